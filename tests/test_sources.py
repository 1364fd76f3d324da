"""Every place pictures come from names each picture once, and says so when it cannot."""

import io
import os
import socket
import stat
import sys
import unicodedata
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipsearch.errors import ImageError, SourceError
from clipsearch.sources import open_source, restore
from clipsearch.sources.disk import read_file
from clipsearch.types import Item

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="names and files that Windows does not have")


def write(path: Path, content: bytes = b"picture") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def keys(spec, **options) -> list[str]:
    return [item.key for item in open_source(spec, **options).items()]


def error(spec, **options) -> str:
    with pytest.raises(SourceError) as caught:
        list(open_source(spec, **options).items())
    return str(caught.value)


# ---------------------------------------------------------------- folder


def test_a_folder_names_its_pictures_sorted_whatever_their_ending_looks_like(tmp_path):
    for name in ["b.JPG", "a.jpeg", "c/deep/er.Png", "c/x.tIf", "d.heic", "raw.NEF"]:
        write(tmp_path / name)
    for name in ["notes.txt", "jpg", "movie.mp4", "Thumbs.db", "c/.jpg"]:
        write(tmp_path / name)

    assert keys(tmp_path) == ["a.jpeg", "b.JPG", "d.heic", "raw.NEF", "c/x.tIf", "c/deep/er.Png"]


def test_an_item_reads_its_file_and_its_stamp_changes_with_it(tmp_path):
    file = write(tmp_path / "sub" / "a.jpg", b"one")
    source = open_source(tmp_path)
    (item,) = source.items()

    assert item.read() == b"one"
    assert item.stamp == f"3-{file.stat().st_mtime_ns}"
    assert source.path(item.key) == str(file)
    assert source.item("sub/a.jpg").stamp == item.stamp
    os.utime(file, ns=(1, 1))
    assert source.item("sub/a.jpg").stamp == "3-1"
    file.unlink()
    assert source.item("sub/a.jpg") is None
    with pytest.raises(FileNotFoundError):
        item.read()


def test_hidden_files_and_folders_of_systems_are_skipped(tmp_path):
    write(tmp_path / "seen.jpg")
    hidden = [
        ".hidden.jpg",
        ".cache/a.jpg",
        "@eaDir/a.jpg",
        ".Trash/a.jpg",
        "$RECYCLE.BIN/a.jpg",
        "x/#recycle/a.jpg",
    ]
    for name in hidden:
        write(tmp_path / name)

    assert keys(tmp_path) == ["seen.jpg"]


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*.gif", ["a.jpg", "drafts/b.jpg", "2019/drafts/c.jpg", "2019/e.jpg"]),
        ("drafts", ["a.jpg", "d.gif", "2019/e.jpg"]),
        ("drafts/", ["a.jpg", "d.gif", "2019/e.jpg"]),
        ("2019/*", ["a.jpg", "d.gif", "drafts/b.jpg"]),
        ("2019/drafts", ["a.jpg", "d.gif", "2019/e.jpg", "drafts/b.jpg"]),
        ("2019/e.jpg", ["a.jpg", "d.gif", "2019/drafts/c.jpg", "drafts/b.jpg"]),
        ("[ab].jpg", ["d.gif", "2019/drafts/c.jpg", "2019/e.jpg"]),
        ("*.GIF", ["a.jpg", "d.gif", "2019/drafts/c.jpg", "2019/e.jpg", "drafts/b.jpg"]),
    ],
)
def test_excluded_names_folders_and_paths_are_left_out_of_every_kind_of_source(tmp_path, pattern, left):
    names = ["a.jpg", "d.gif", "2019/e.jpg", "2019/drafts/c.jpg", "drafts/b.jpg"]
    for name in names:
        write(tmp_path / "all" / name)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")

    for spec in (tmp_path / "all", tmp_path / "all.zip", [(name, b"x") for name in names]):
        assert sorted(keys(spec, exclude=[pattern])) == sorted(left)
        assert sorted(keys(spec, exclude=pattern)) == sorted(left)
    assert restore("folder", str(tmp_path / "all"), {"exclude": [pattern]}).options == {"exclude": [pattern]}


def test_a_folder_named_like_a_picture_is_a_folder(tmp_path):
    write(tmp_path / "x.jpg" / "inside.png")
    assert keys(tmp_path) == ["x.jpg/inside.png"]
    assert open_source(tmp_path).item("x.jpg") is None


@posix_only
def test_pipes_sockets_and_dangling_links_never_block(tmp_path, monkeypatch):
    write(tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.jpg")
    os.symlink("nowhere", "dangling.jpg")
    os.symlink("circle.jpg", "circle.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")

    assert keys(tmp_path) == ["a.jpg", "circle.jpg"]
    for name in ["pipe.jpg", "socket.jpg", "circle.jpg", "dangling.jpg"]:
        (item,) = open_source([tmp_path / name]).items()
        with pytest.raises((ImageError, OSError)):
            item.read()


@posix_only
def test_links_are_followed_but_never_in_circles(tmp_path):
    write(tmp_path / "elsewhere" / "far.jpg")
    write(tmp_path / "root" / "one" / "a.jpg")
    (tmp_path / "root" / "one" / "up").symlink_to("..")
    (tmp_path / "root" / "one" / "self").symlink_to(".")
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "b.jpg").symlink_to(tmp_path / "elsewhere" / "far.jpg")
    (tmp_path / "alias").symlink_to("root")

    assert keys(tmp_path / "root") == ["b.jpg", "one/a.jpg", "linked/far.jpg"]
    assert open_source(tmp_path / "alias").root == str(tmp_path / "alias")
    assert keys(tmp_path / "alias") == keys(tmp_path / "root")


@posix_only
def test_folders_that_link_to_each_other_are_looked_through_once_by_their_own_names(tmp_path):
    for name in "abcdefg":
        write(tmp_path / name / "x.jpg")
        for other in "abcdefg":
            (tmp_path / name / f"0{other}").symlink_to(f"../{other}")
    assert keys(tmp_path) == [f"{name}/x.jpg" for name in "abcdefg"]
    assert keys(tmp_path / "a") == ["x.jpg", *(f"0{name}/x.jpg" for name in "bcdefg")]


@posix_only
def test_a_folder_that_only_a_link_shows_or_only_a_link_makes_match_is_found_through_it(tmp_path):
    write(tmp_path / ".kept" / "a.jpg")
    write(tmp_path / "plain" / "b.jpg")
    (tmp_path / "shown").symlink_to(".kept")
    (tmp_path / "album").symlink_to("plain")
    assert keys(tmp_path) == ["plain/b.jpg", "shown/a.jpg"]
    assert keys(f"{tmp_path}/**/album/*.jpg") == ["album/b.jpg"]
    assert keys(tmp_path, exclude=["plain"]) == ["album/b.jpg", "shown/a.jpg"]


@posix_only
def test_names_that_are_not_utf8_and_twins_of_unicode_survive(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    for name in (
        b"\xff\xfe.jpg",
        composed.encode(),
        decomposed.encode(),
        b"line\nbreak.jpg",
        b"back\\slash.jpg",
    ):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(name)

    items = {item.key: item for item in open_source(tmp_path).items()}

    assert len(items) == 5 and {composed, decomposed} <= set(items)
    for key, item in items.items():
        assert item.read() == os.fsencode(key)
        assert open_source(tmp_path).item(key).read() == os.fsencode(key)


def test_a_folder_that_cannot_be_read_is_reported_and_its_pictures_are_not_called_gone(tmp_path, monkeypatch):
    write(tmp_path / "a.jpg")
    write(tmp_path / "lost" / "b.jpg")
    write(tmp_path / "z" / "c.jpg")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(os.path.normpath(path)) == "lost":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    source = open_source(tmp_path)
    items = {item.key: item for item in source.items()}

    assert list(items) == ["a.jpg", "lost/", "z/c.jpg"]
    assert not source.lists_all
    with pytest.raises(PermissionError):
        items["lost/"].read()
    monkeypatch.undo()
    assert keys(tmp_path) == ["a.jpg", "lost/b.jpg", "z/c.jpg"]
    assert len(list(source.items())) == 3 and source.lists_all


def test_an_unreadable_root_is_an_error(tmp_path, monkeypatch):
    write(tmp_path / "a.jpg")
    source = open_source(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match="Permission denied"):
        list(source.items())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_listed_and_fails_when_read(tmp_path):
    file = write(tmp_path / "a.jpg")
    file.chmod(0)
    (item,) = open_source(tmp_path).items()
    with pytest.raises(PermissionError):
        item.read()


def test_a_picture_left_in_icloud_fails_with_the_reason_until_it_is_here(tmp_path):
    write(tmp_path / "sub" / ".IMG_1.HEIC.icloud", b"bplist00")
    write(tmp_path / ".notes.txt.icloud")
    (item,) = open_source(tmp_path).items()
    assert item.key == "sub/IMG_1.HEIC" and item.stamp
    with pytest.raises(ImageError, match="only in iCloud"):
        item.read()


def test_a_folder_is_walked_as_it_is_asked_for(tmp_path):
    for place in range(30):
        write(tmp_path / f"{place:02}" / "a.jpg")
    items = open_source(tmp_path).items()
    assert next(items).key == "00/a.jpg"
    (tmp_path / "29" / "a.jpg").unlink()
    assert [item.key for item in items][-1] == "28/a.jpg"


def test_deep_folders_are_no_problem(tmp_path):
    deep = tmp_path.joinpath(*["d"] * 900)
    deep.mkdir(parents=True)
    (deep / "a.jpg").write_bytes(b"x")
    assert keys(tmp_path) == ["d/" * 900 + "a.jpg"]


def test_a_place_that_is_absent_empty_or_no_picture_is_an_error(tmp_path):
    assert "found nothing to read at" in error(tmp_path / "absent")
    assert "no picture in" in error(tmp_path)
    assert "none of these" in error(write(tmp_path / "notes.doc"))
    assert "no picture in" in error(f"{tmp_path}/*.jpg")
    source = open_source(tmp_path)
    tmp_path.joinpath("notes.doc").unlink()
    tmp_path.rmdir()
    with pytest.raises(SourceError, match="cannot read the folder"):
        list(source.items())


# ---------------------------------------------------------------- glob


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jpg", ["a.jpg"]),
        ("*", ["a.jpg", "b.png"]),
        ("**/*.jpg", ["a.jpg", "one/c.jpg", "one/two/d.jpg", "three/e.jpg"]),
        ("**", ["a.jpg", "b.png", "one/c.jpg", "one/two/d.jpg", "three/e.jpg"]),
        ("o*/*.jpg", ["one/c.jpg"]),
        ("**/two/*.jpg", ["one/two/d.jpg"]),
        ("one/**/*.jpg", ["c.jpg", "two/d.jpg"]),
        ("?[!b].jpg", []),
        ("[a].jpg", ["a.jpg"]),
    ],
)
def test_a_glob_finds_the_pictures_that_match(tmp_path, pattern, found):
    for name in ["a.jpg", "b.png", "one/c.jpg", "one/two/d.jpg", "three/e.jpg", ".f.jpg", "one/notes.txt"]:
        write(tmp_path / name)
    if not found:
        assert "no picture in" in error(f"{tmp_path}/{pattern}")
        return
    source = open_source(f"{tmp_path}/{pattern}")

    items = list(source.items())

    assert sorted(item.key for item in items) == sorted(found)
    assert (source.kind, source.root) == ("glob", str(tmp_path / pattern))
    again = restore(source.kind, source.root, source.options)
    assert [item.key for item in again.items()] == [item.key for item in items]
    assert all(os.path.isfile(again.path(item.key)) for item in items)


@posix_only
def test_what_exists_is_taken_by_its_name_even_with_glob_characters(tmp_path):
    write(tmp_path / "trip [2019]" / "a.jpg")
    assert open_source(tmp_path / "trip [2019]").kind == "folder"


def test_a_glob_is_only_restored_from_a_pattern(tmp_path):
    with pytest.raises(SourceError, match="expected a glob pattern"):
        restore("glob", str(tmp_path), {})


def test_a_picture_whose_folder_became_a_file_is_gone(tmp_path):
    source = restore("folder", str(write(tmp_path / "moved.zip")), {})
    assert source.item("a.jpg") is None


# ---------------------------------------------------------------- zip


def test_a_zip_names_its_pictures_and_reads_them_from_many_threads(tmp_path):
    contents = {f"d/{place}.jpg": np.random.default_rng(place).bytes(20_000) for place in range(40)}
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        for name in ["d/notes.txt", "__MACOSX/d/._0.jpg", "d/.hidden.jpg", "folder.jpg/"]:
            archive.writestr(name, b"")
    source = open_source(tmp_path / "all.zip")
    items = list(source.items())

    with ThreadPoolExecutor(8) as threads:
        read = dict(threads.map(lambda item: (item.key, item.read()), items))

    assert read == contents and list(read) == list(contents)
    assert source.item("d/3.jpg").read() == contents["d/3.jpg"]
    assert source.item("d/absent.jpg") is None
    assert source.path("d/3.jpg") == f"{tmp_path / 'all.zip'}/d/3.jpg"
    assert (source.kind, source.lists_all) == ("zip", True)


def test_a_stamp_in_a_zip_changes_with_the_content(tmp_path):
    file = tmp_path / "all.zip"
    source = restore("zip", str(file), {})
    stamps = []
    for content in (b"one", b"two", b"two"):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(zipfile.ZipInfo("a.jpg", (2024, 1, 2, 3, 4, 6)), content)
        os.utime(file, ns=(len(stamps), len(stamps)))
        stamps.append(source.item("a.jpg").stamp)
    assert stamps[0] == f"{zipfile.crc32(b'one'):08x}-3-20240102030406"
    assert stamps[0] != stamps[1] == stamps[2]
    file.unlink()
    assert source.item("a.jpg") is None


def test_a_change_beside_a_picture_in_a_zip_is_noticed(tmp_path):
    def items(caption, **options):
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for name, content in {
                "d/a.jpg": b"x",
                "d/a.TXT": caption,
                "a.txt": b"no",
                "d/b.jpg": b"y",
            }.items():
                archive.writestr(zipfile.ZipInfo(name, (2024, 1, 2, 3, 4, 6)), content)
        found = open_source(tmp_path / "all.zip", **options).items()
        return [(item.stamp, dict(item.metadata)) for item in found]

    (a, b), (changed, same) = items(b"one"), items(b"two")
    assert (a[1], b[1], changed[1]) == ({"caption": "one"}, {}, {"caption": "two"})
    assert a[0] != changed[0] and b == same
    assert [known for _, known in items(b"one", exclude="*.TXT")] == [{}, {}]


def test_broken_encrypted_and_oversized_members_fail_one_by_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ["broken.jpg", "whole.jpg", "secret.jpg", "huge.jpg"]:
            archive.writestr(name, name * 10)
    data = bytearray((tmp_path / "all.zip").read_bytes())
    data[data.index(b"broken.jpgbroken") + 12] ^= 1
    central = data.rindex(b"secret.jpg") - 46
    data[central + 8] |= 1  # the flag "encrypted"
    central = data.rindex(b"huge.jpg") - 46
    data[central + 24 : central + 28] = (2**31).to_bytes(4, "little")
    (tmp_path / "all.zip").write_bytes(data)

    items = {item.key: item for item in open_source(tmp_path / "all.zip").items()}

    assert items["whole.jpg"].read() == b"whole.jpg" * 10
    for name, why in [
        ("broken.jpg", "broken in the archive: Bad CRC"),
        ("secret.jpg", "encrypted: unpack"),
        ("huge.jpg", "limit"),
    ]:
        with pytest.raises(ImageError, match=why):
            items[name].read()


def test_a_zip_that_is_none_or_holds_no_picture_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as archive:
        archive.writestr("a.txt", b"x")
    assert "no picture in the zip file" in error(tmp_path / "texts.zip")
    assert "none of these" in error(write(tmp_path / "fake.zip", b"no zip"))
    with pytest.raises(SourceError, match="cannot read the zip file"):
        list(restore("zip", str(tmp_path / "fake.zip"), {}).items())


@pytest.mark.parametrize("damage", ["version", "name"])
def test_an_archive_that_python_cannot_list_is_an_error_of_ours(tmp_path, damage):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.jpg", b"x")
    data = bytearray((tmp_path / "all.zip").read_bytes())
    central = data.rindex(b"a.jpg") - 46
    if damage == "version":
        data[central + 6] = 99  # needed to extract
    else:
        data[central + 9] |= 8  # the flag "UTF-8"
        data[central + 46] = 0xFF
    (tmp_path / "all.zip").write_bytes(data)
    assert "cannot read the zip file" in error(tmp_path / "all.zip")
    assert open_source(tmp_path / "all.zip").item("a.jpg") is None


def test_a_member_that_bzip2_cannot_unpack_is_a_broken_picture(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.jpg", bytes(1000))
    data = bytearray((tmp_path / "all.zip").read_bytes())
    data[data.index(b"BZh")] = 0
    (tmp_path / "all.zip").write_bytes(data)
    (item,) = open_source(tmp_path / "all.zip").items()
    with pytest.raises(ImageError, match="broken in the archive"):
        item.read()


# ---------------------------------------------------------------- lists and iterators


def test_a_list_names_files_by_their_absolute_path_and_each_once(tmp_path, monkeypatch):
    file, odd = write(tmp_path / "a.jpg", b"a"), write(tmp_path / "picture without ending", b"b")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    source = open_source([file, "a.jpg", "./a.jpg", "~/a.jpg", odd, "gone.jpg"])

    items = list(source.items())

    assert [item.key for item in items] == [path.as_posix() for path in (file, odd, tmp_path / "gone.jpg")]
    assert [item.read() for item in items[:2]] == [b"a", b"b"]
    assert items[0].stamp and items[2].stamp is None
    with pytest.raises(FileNotFoundError):
        items[2].read()
    assert (source.kind, source.root, source.lists_all) == ("list", "", False)
    again = restore("list", "", {})
    assert again.item(items[0].key).read() == b"a" and again.path(items[0].key) == str(file)
    assert again.item(items[2].key) is None


def test_a_single_picture_and_an_iterator_of_paths_are_lists(tmp_path):
    for name in ["a.jpg", "b.jpg"]:
        write(tmp_path / name)
    assert keys(tmp_path / "a.jpg") == [(tmp_path / "a.jpg").as_posix()]
    assert len(keys(tmp_path.glob("*.jpg"))) == 2
    assert open_source(str(tmp_path / "a.jpg")).kind == "list"


def test_a_folder_in_a_list_fails_when_read(tmp_path):
    (item,) = open_source([tmp_path]).items()
    with pytest.raises(OSError, match="one by one"):
        item.read()


@pytest.mark.parametrize("name", ["x.tar", "x.zip", "X.CSV", "captions.json", "x.parquet", "list.txt"])
def test_a_source_in_a_list_of_pictures_says_how_to_add_it(tmp_path, name):
    write(tmp_path / name)
    (item,) = open_source([tmp_path / name]).items()
    with pytest.raises(ImageError, match="one by one"):
        item.read()
    assert item.stamp


@posix_only
def test_a_text_file_names_a_path_on_each_line(tmp_path):
    names = ["#1.jpg", " led by a space.jpg", "ü.jpg", os.fsdecode(b"\xff.jpg")]
    for name in names:
        write(tmp_path / "in" / name)
    lines = "\ufeff" + "in/#1.jpg\r\n\r\nin/ led by a space.jpg\n   \n" + str(tmp_path / "in" / "ü.jpg")
    write(tmp_path / "LIST.TXT", lines.encode() + b"\nin/\xff.jpg")

    source = open_source(tmp_path / "LIST.TXT")

    assert [item.key for item in source.items()] == [f"{tmp_path}/in/{name}" for name in names]
    assert all(item.stamp for item in source.items())


def test_pictures_are_handed_over_with_their_keys():
    image = Image.new("RGB", (2, 2))
    source = open_source(iter([("a", image), ("b", b"bytes")]))

    items = list(source.items())

    assert [(item.key, item.stamp) for item in items] == [("a", None), ("b", None)]
    assert items[0].read() is image and items[1].read() == b"bytes"
    assert (source.kind, source.lists_all, source.item("a"), source.path("a")) == (
        "iterator",
        False,
        None,
        "a",
    )
    again = restore("iterator", "", {})
    assert again.item("a") is None and again.path("a") == "a"


def test_an_iterator_is_not_read_ahead():
    def pairs():
        yield "a", b"1"
        yield "b", b"2"
        raise RuntimeError("too far")

    items = open_source(pairs()).items()
    assert (next(items).key, next(items).key) == ("a", "b")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ([], "expected (key, picture) pairs"),
        ([("a", b""), ("a", b"")], "the key 'a' came twice"),
        ([("a", b""), "b"], "found str 'b'; expected pairs"),
        ([(1, b"")], "found (1, bytes); expected pairs of a string key"),
        ([("", b"")], "found ('', bytes)"),
        ([("a", np.zeros(3))], "found ('a', ndarray)"),
        ([Image.new("L", (1, 1))], "found Image <PIL.Image"),
        (7, "found int 7; expected a folder"),
        (7, "pairs or Items"),
        (
            type("DataFrame", (), {"columns": ["file_name"], "__iter__": lambda self: iter(["file_name"])})(),
            "found a DataFrame with columns; expected its file",
        ),
        (b"photos", "found bytes b'photos'"),
        ({"a": b""}, "found dict"),
        (None, "found NoneType None"),
        ("", "found an empty path"),
        (["/x.jpg", ""], "found an empty path"),
        (["/x.jpg", ("k", b"")], "found tuple ('k', b''); expected a path"),
    ],
)
def test_what_is_not_a_source_is_named_with_what_was_expected(spec, why):
    assert why in error(spec)


def test_a_source_of_your_own_is_taken_as_it_is():
    class Mine:
        kind, root, lists_all, options = "mine", "memory", True, {}

        def items(self):
            yield Item("a", lambda: b"x")

        def item(self, key):
            return None

        def path(self, key):
            return f"mine:{key}"

    class Forgetful(Mine):
        options = property()  # which raises AttributeError

    assert "source of your own, Forgetful, without options; expected kind" in error(Forgetful())
    mine = Mine()
    assert open_source(mine) is mine
    assert "source of your own" in error(mine, exclude=["x"])
    known = restore("mine", "memory", {})
    assert (known.kind, known.root, known.item("a"), known.path("a")) == ("mine", "memory", None, "a")


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    with open(tmp_path / "huge.tif", "wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(ImageError, match="1,073,741,825 bytes"):
        read_file(str(tmp_path / "huge.tif"))


def test_home_is_expanded(tmp_path, monkeypatch):
    write(tmp_path / "Photos" / "a.jpg")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_source("~/Photos").root == str(tmp_path / "Photos")


def test_an_unchanged_file_costs_one_stat(tmp_path, monkeypatch):
    for place in range(20):
        write(tmp_path / f"{place}.jpg")
    opened, real = [], os.open
    monkeypatch.setattr(os, "open", lambda *args, **kwargs: opened.append(args) or real(*args, **kwargs))
    stats, plain = [], os.stat
    monkeypatch.setattr(os, "stat", lambda *args, **kwargs: stats.append(args) or plain(*args, **kwargs))

    items = list(open_source(tmp_path).items())

    assert len(items) == 20 and not opened
    assert len(stats) <= 3, "the folder's own; files are stat-ed once each, by their directory entry"
    assert all(stat.S_ISREG(plain(tmp_path / item.key).st_mode) for item in items)
    assert io.BytesIO(items[0].read()).read() == b"picture"


@pytest.mark.parametrize("ending", [".tar", ".parquet"])
def test_a_folder_of_shards_says_which_pattern_they_are(tmp_path, ending):
    (tmp_path / f"0000{ending}").write_bytes(b"")
    assert f"its {ending} files are {tmp_path / '*'!s}{ending}".replace("'", "") in error(tmp_path).replace(
        "'", ""
    )
