"""Tar files and webdataset shards: found whole, read at their place, with what lies beside the pictures."""

import io
import json
import os
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch.errors import ImageError, SourceError
from clipsearch.sources import open_source, restore
from clipsearch.testing import ColourEncoder


def picture(colour, ending="png"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, {"jpg": "JPEG"}.get(ending, ending.upper()))
    return file.getvalue()


def pack(path, members, **options):
    """Write a tar file of (name, bytes), in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def items(spec, **options):
    return {item.key: item for item in open_source(spec, **options).items()}


def error(spec):
    with pytest.raises(SourceError) as caught:
        list(open_source(spec).items())
    return str(caught.value)


@pytest.fixture
def photos(tmp_path):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        yield photos


FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


@pytest.mark.parametrize("form", FORMATS, ids=["ustar", "gnu", "pax"])
def test_a_tar_names_its_pictures_and_reads_them_from_many_threads(tmp_path, form):
    contents = {f"d/{place}.jpg": np.random.default_rng(place).bytes(5_000 + place) for place in range(40)}
    contents["d/" + "x" * 80 + "/" + "y" * 60 + "/long.PNG"] = b"long"
    if form != tarfile.USTAR_FORMAT:
        contents["d/" + "é" * 120 + ".webp"] = b"longer than a header"
    others = {name: b"x" for name in ["d/notes.md", "d/.hidden.jpg", "__MACOSX/a.jpg", "d/._0.jpg"]}
    pack(tmp_path / "all.tar", contents | others, format=form)
    source = open_source(tmp_path / "all.tar")
    found = list(source.items())

    with ThreadPoolExecutor(8) as threads:
        read = dict(threads.map(lambda item: (item.key, item.read()), found))

    assert read == contents and list(read) == list(contents)
    assert source.item("d/3.jpg").read() == contents["d/3.jpg"]
    assert source.item("d/absent.jpg") is None
    assert source.path("d/3.jpg") == f"{tmp_path / 'all.tar'}/d/3.jpg"
    assert (source.kind, source.lists_all) == ("tar", True)


def test_shards_are_one_source_in_the_order_of_the_pattern(tmp_path):
    for shard in range(8, 12):
        pack(tmp_path / "s" / f"{shard:05}.tar", {"a.jpg": b"%d" % shard})
    pack(tmp_path / "s" / "deep" / "b.tar", {"in/b.jpg": b"b"})

    keys = [f"{shard:05}.tar/a.jpg" for shard in range(8, 12)]
    assert list(items(f"{tmp_path}/s/{{00008..00011}}.tar")) == keys
    assert list(items(f"{tmp_path}/s/{{00011,00009}}.tar")) == [keys[3], keys[1]]
    assert list(items(f"{tmp_path}/s/*.tar")) == keys
    assert list(items(f"{tmp_path}/s/0001{{0..1}}.tar", exclude="00010.tar")) == [keys[3]]
    assert list(items(f"{tmp_path}/{{s,t}}/0000*.tar")) == [f"s/{key}" for key in keys[:2]]
    assert sorted(items(f"{tmp_path}/**/*.tar")) == sorted(
        [f"s/{key}" for key in keys] + ["s/deep/b.tar/in/b.jpg"]
    )


def test_a_pattern_is_restored_and_finds_a_picture_after_a_restart(tmp_path):
    pattern = f"{tmp_path}/s/{{0..1}}.tar"
    for shard in range(2):
        pack(tmp_path / "s" / f"{shard}.tar", {"x.tar/a.jpg": b"%d" % shard})
    first = open_source(pattern)

    again = restore(first.kind, first.root, first.options)

    assert (again.kind, again.root) == ("tar", pattern)
    assert again.item("1.tar/x.tar/a.jpg").read() == b"1"
    assert again.path("1.tar/x.tar/a.jpg") == f"{tmp_path}/s/1.tar/x.tar/a.jpg"
    assert again.item("2.tar/a.jpg") is None and again.item("nothing") is None
    assert again.item("1.tar/x.tar/a.jpg").stamp == items(pattern)["1.tar/x.tar/a.jpg"].stamp


def test_a_folder_called_like_a_shard_is_none(tmp_path):
    pack(tmp_path / "s.tar" / "0.tar", {"a.jpg": b"a"})
    source = open_source(f"{tmp_path}/*/0.tar")
    assert [item.key for item in source.items()] == ["s.tar/0.tar/a.jpg"]
    assert source.item("s.tar/0.tar/a.jpg").read() == b"a"


def test_what_lies_beside_a_picture_is_its_metadata_wherever_it_stands(tmp_path):
    about = {"url": "http://x", "label": "from json", "nothing": None, "tags": ["a", "b"]}
    pack(
        tmp_path / "all.tar",
        {
            "d/1.txt": " a red square\n".encode("utf-8-sig"),
            "d/1.png": b"1",
            "d/2.cls": b"7",
            "d/1.JSON": json.dumps(about).encode(),
            "d/1.cls": b"cat\n",
            "1.txt": b"of another folder",
            "d/2.png": b"2",
            "d/3.left.png": b"3",
            "d/3.right.png": b"4",
            "d/3.json": b'{"pair": 3}',
            "d/3.left.txt": b"left",
            "d/4.png": b"5",
            "d/4.json": b"[1, 2]",
        },
    )
    found = {key: dict(item.metadata) for key, item in items(tmp_path / "all.tar").items()}
    assert found == {
        "d/1.png": {"url": "http://x", "label": "cat", "tags": ["a", "b"], "caption": "a red square"},
        "d/2.png": {"label": 7},
        "d/3.left.png": {"pair": 3, "caption": "left"},
        "d/3.right.png": {"pair": 3},
        "d/4.png": {"json": [1, 2]},
    }


def test_metadata_of_shards_is_kept_and_filtered_on(tmp_path, photos):
    pack(
        tmp_path / "0.tar",
        {"a.png": picture("red"), "a.cls": b"cat", "b.png": picture("lime"), "b.cls": b"dog"},
    )
    pack(tmp_path / "1.tar", {"a.png": picture("blue"), "a.cls": b"cat", "a.txt": b"a blue square"})

    assert photos.add(f"{tmp_path}/{{0..1}}.tar").added == 3

    found = photos.search("blue", where="label = 'cat'")
    assert [hit.key for hit in found] == ["1.tar/a.png", "0.tar/a.png"]
    assert found[0].metadata["caption"] == "a blue square"
    assert found[0].image().getpixel((0, 0)) == (0, 0, 255)
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as again:
        hit = again.search("green", k=1)[0]
        assert hit.path == f"{tmp_path}/0.tar/b.png" and hit.image().getpixel((0, 0)) == (0, 255, 0)


def test_a_broken_sidecar_is_told_and_its_picture_is_added(tmp_path, photos):
    pack(tmp_path / "0.tar", {"a.png": picture("red"), "a.json": b"{not json", "a.txt": b"red"})
    assert photos.add(tmp_path / "0.tar").added == 1
    (hit,) = photos.search("red", where="sidecar_error like 'a.json: %'")
    assert hit.metadata["caption"] == "red"


def test_a_sidecar_of_another_programs_size_is_left_alone(tmp_path):
    pack(tmp_path / "0.tar", {"a.png": b"x", "a.json": json.dumps({"imageData": "x" * 70_000}).encode()})
    assert items(tmp_path / "0.tar")["a.png"].metadata == {}


def test_a_second_add_reads_no_picture_and_a_changed_shard_is_looked_at_again(tmp_path, photos):
    def write(label):
        for shard in "01":
            pack(
                tmp_path / f"{shard}.tar",
                {"a.png": picture("red" if shard == "0" else "blue"), "a.txt": label},
            )
            os.utime(tmp_path / f"{shard}.tar", ns=(5, 5))

    pattern = f"{tmp_path}/*.tar"
    write(b"one")
    photos.add(pattern)
    write(b"two")  # of the same size and time: nobody can know
    report = photos.add(pattern)
    assert (report.unchanged, report.added, report.updated) == (2, 0, 0)
    assert {hit.metadata["caption"] for hit in photos.search("red")} == {"one"}

    os.utime(tmp_path / "1.tar", ns=(6, 6))
    assert photos.add(pattern).unchanged == 2
    assert {hit.key: hit.metadata["caption"] for hit in photos.search("red")} == {
        "0.tar/a.png": "one",
        "1.tar/a.png": "two",
    }


def test_an_add_that_was_stopped_goes_on_in_the_middle(tmp_path, photos):
    for shard in range(2):
        members = {f"{n}.png": picture((40 * n, 99 * shard, 0)) for n in range(6)}
        pack(tmp_path / f"{shard}.tar", members)
    source = open_source(f"{tmp_path}/{{0..1}}.tar")
    everything, read = list(source.items()), []
    source.items = lambda: iter_then_stop(everything[:9])
    with pytest.raises(cs.Interrupted):
        photos.add(source, batch_size=1)
    done = len(photos)
    source.items = lambda: (replace(item, read=partial(noted, item, read)) for item in everything)

    report = photos.add(source)

    assert 6 <= done <= 9, "into the second file, and not through it"
    assert (report.unchanged, report.added, report.missing) == (done, 12 - done, 0)
    assert read == [item.key for item in everything[done:]]


def noted(item, read):
    read.append(item.key)
    return item.read()


def iter_then_stop(items):
    yield from items
    raise KeyboardInterrupt


READABLE = {"cut in a picture": 5, "cut in a header": 5, "a bad header": 5, "no tar at all": 4, "absent": 4}


@pytest.mark.parametrize("damage", READABLE)
def test_a_damaged_shard_costs_what_cannot_be_listed_and_nothing_else(tmp_path, photos, damage):
    pattern, colours = f"{tmp_path}/{{0..2}}.tar", ["red", "lime", "blue", "yellow", "cyan", "magenta"]
    for shard in range(3):
        pack(tmp_path / f"{shard}.tar", {f"{n}.png": picture(colours[2 * shard + n]) for n in range(2)})
    assert photos.add(pattern).added == 6
    data = (tmp_path / "1.tar").read_bytes()
    second = data.index(b"1.png")
    if damage == "absent":
        (tmp_path / "1.tar").unlink()
    else:
        broken = {
            "cut in a picture": data[: second + 512 + 20],
            "cut in a header": data[: second + 20],
            "a bad header": data[: second + 20] + b"?" + data[second + 21 :],
            "no tar at all": b"no tar",
        }
        (tmp_path / "1.tar").write_bytes(broken[damage])

    report = photos.add(pattern)

    assert report.missing == 0, "what cannot be listed is not gone"
    assert f"{tmp_path}/1.tar" in [failure.path for failure in report.failed]
    assert report.unchanged == READABLE[damage]
    assert len(photos.search("red", k=9)) == (5 if damage == "cut in a picture" else 6)
    (tmp_path / "1.tar").write_bytes(data)
    assert photos.add(pattern).failed == [] and len(photos.search("red", k=9)) == 6


def test_a_picture_that_breaks_off_and_one_beyond_the_limit_fail_by_themselves(tmp_path):
    file = pack(tmp_path / "0.tar", {"whole.jpg": b"w" * 600, "cut.jpg": b"c" * 600})
    file.write_bytes(file.read_bytes()[: 512 + 1024 + 512 + 100])
    found = items(file)
    assert list(found) == ["whole.jpg", "cut.jpg", "/"]
    assert found["whole.jpg"].read() == b"w" * 600
    with pytest.raises(ImageError, match="breaks off after 100 of its 600 bytes"):
        found["cut.jpg"].read()
    with pytest.raises(ImageError, match="unexpected end of data"):
        found["/"].read()
    assert open_source(file).path("/") == str(file)
    vast = tarfile.TarInfo("vast.jpg")
    vast.size = 1 << 40
    file.write_bytes(vast.tobuf(tarfile.GNU_FORMAT) + b"v")
    with pytest.raises(ImageError, match="1,099,511,627,776 bytes, the limit is 1,073,741,824"):
        items(file)["vast.jpg"].read()


@pytest.mark.parametrize("blocks", range(16, 22))
def test_an_archive_is_whole_that_was_closed_or_never_was(tmp_path, blocks):
    file = pack(tmp_path / "0.tar", {"a.jpg": b"a" * 512 * (blocks - 1)})  # a header, and these
    for end in (None, 512 * blocks):
        file.write_bytes(file.read_bytes()[:end])
        source = open_source(file)
        assert [item.key for item in source.items()] == ["a.jpg"] and source.lists_all


@pytest.mark.parametrize(
    "header", ["one of zeros", "all zeros to a far end", "another archive", "less than 0"]
)
def test_what_comes_after_a_damaged_header_is_not_taken_for_gone(tmp_path, header):
    file = pack(tmp_path / "0.tar", {"a.jpg": b"a" * 512, "b.jpg": b"b" * 512})
    data = file.read_bytes()
    backwards = tarfile.TarInfo("b.jpg")
    backwards.size = -512
    file.write_bytes(
        data[:1024]
        + {
            "one of zeros": bytes(512) + data[1536:],
            "all zeros to a far end": bytes(20_480),
            "another archive": bytes(1024) + data[1024:],
            "less than 0": backwards.tobuf(tarfile.GNU_FORMAT) + data[1536:],
        }[header]
    )
    source = open_source(file)
    found = {item.key: item for item in source.items()}
    assert (list(found), source.lists_all) == (["a.jpg", "/"], False)
    with pytest.raises(ImageError, match="damaged at byte 1,024"):
        found["/"].read()


def test_a_size_below_zero_in_an_extended_header_is_not_believed(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.jpg")
        member.size, member.pax_headers = 3, {"size": "-99"}
        archive.addfile(member, io.BytesIO(b"one"))
    assert list(items(tmp_path / "0.tar")) == ["/"]


def test_a_sparse_member_fails_by_itself(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo("a.jpg")
        member.type, member.size = tarfile.GNUTYPE_SPARSE, 3
        archive.addfile(member, io.BytesIO(b"one"))
    with pytest.raises(ImageError, match="sparse"):
        items(tmp_path / "0.tar")["a.jpg"].read()


def test_the_later_of_two_members_of_a_name_counts_and_links_are_their_targets(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for content in (b"one", b"two"):
            member = tarfile.TarInfo("./a.jpg")
            member.size = 3
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("b.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "./a.jpg"
        archive.addfile(link)
        symbolic = tarfile.TarInfo("c.jpg")
        symbolic.type, symbolic.linkname = tarfile.SYMTYPE, "a.jpg"
        archive.addfile(symbolic)
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        archive.addfile(tarfile.TarInfo("a.JSON"))
        sidecar = tarfile.TarInfo("b.Json")
        sidecar.type, sidecar.linkname = tarfile.LNKTYPE, "a.JSON"
        archive.addfile(sidecar)
    assert "sidecar_error" in items(tmp_path / "0.tar")["b.jpg"].metadata, "the empty one of a.jpg"
    assert {key: item.read() for key, item in items(tmp_path / "0.tar").items()} == {
        "a.jpg": b"two",
        "b.jpg": b"two",
    }


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path, compression):
    with tarfile.open(tmp_path / "all.tar.gz", f"w:{compression}") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    assert "unpack it with gunzip" in error(tmp_path / "all.tar.gz")
    (tmp_path / "all.tar.zst").write_bytes(b"(\xb5/\xfd")
    for name in ("all.tar.zst", "*.tar.gz", "{00..01}.tar.xz", "*.tgz"):
        assert "unpack it with gunzip" in error(tmp_path / name)
    assert "found nothing to read" in error(tmp_path / "absent.tgz")


def test_what_is_no_tar_or_has_no_picture_is_an_error(tmp_path):
    (tmp_path / "fake.tar").write_bytes(b"no tar" * 200)
    assert "none of these" in error(tmp_path / "fake.tar")
    assert "no picture in" in error(pack(tmp_path / "texts.tar", {"a.txt": b"x"}))
    assert "no picture in" in error(f"{tmp_path}/absent*.tar")
    assert "expected {00000..00099}" in error(f"{tmp_path}/{{x}}.tar")
    with pytest.raises(SourceError, match="cannot read the tar file"):
        list(restore("tar", str(tmp_path / "fake.tar"), {}).items())
    with pytest.raises(SourceError, match="No such file"):
        list(restore("tar", str(tmp_path / "absent.tar"), {}).items())


def test_listing_reads_headers_and_no_picture(tmp_path):
    pack(tmp_path / "0.tar", {f"{n}.jpg": bytes(1 << 20) for n in range(5)})
    before = read_so_far()
    assert len(items(tmp_path / "0.tar")) == 5
    assert read_so_far() - before < 1 << 19


def read_so_far():
    if sys.platform != "linux":
        pytest.skip("needs /proc")
    with open("/proc/self/io") as file:
        return int(next(line for line in file if line.startswith("rchar")).split()[1])
