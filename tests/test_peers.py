"""What stops or misleads other programs, tried in every kind of source."""

import io
import tarfile
import zipfile

import pytest
from PIL import Image

import clipsearch as cs
from clipsearch.testing import COLOURS, ColourEncoder


def picture(colour, kind="PNG", **options):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), COLOURS[colour]).save(file, kind, **options)
    return file.getvalue()


def folder(path, files):
    for name, content in files.items():
        (path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "all" / name).write_bytes(content)
    return path / "all"


def zipped(path, files):
    with zipfile.ZipFile(path / "all.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path / "all.zip"


def shard(path, files):
    with tarfile.open(path / "0.tar", "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return f"{path}/{{0..0}}.tar"


def remote(path, files):
    pytest.importorskip("fsspec", reason="needs the extra remote")
    return folder(path, files).as_uri()


def parquet(path, files):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from pyarrow import parquet

    contents = {name: content for name, content in files.items() if not name.endswith((".txt", ".json"))}
    beside = [files.get(name.rpartition(".")[0] + ".txt") for name in contents]
    columns = {"image": [{"bytes": content, "path": name} for name, content in contents.items()]}
    columns["caption"] = [text and text.decode() for text in beside]
    parquet.write_table(pyarrow.table(columns), path / "a.parquet")
    return path / "a.parquet"


def dataset(path, files):
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    return datasets.Dataset.from_parquet(str(parquet(path, files)), cache_dir=str(path)).cast_column(
        "image", datasets.Image()
    )


def handed_over(path, files):
    named = {name: content for name, content in files.items() if not name.endswith((".txt", ".json"))}
    return [
        cs.Item(name, lambda content=content: content, "1", {"caption": text.decode()} if text else {})
        for name, content in named.items()
        for text in [files.get(name.rpartition(".")[0] + ".txt")]
    ]


KINDS = [folder, zipped, shard, remote, parquet, dataset, handed_over]


@pytest.fixture
def photos(tmp_path):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        yield photos


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_name_and_no_broken_file_costs_another_picture(photos, tmp_path, kind):
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 40
    files = {
        "a/one.Jpg": picture("red", "JPEG", quality=95),  # an ending in mixed case
        "b/one.Jpg": picture("green", "JPEG", quality=95),  # a name that another folder has too
        "exif.jpeg": picture("blue", "JPEG", quality=95, exif=exif),  # Exif that stops streams of datasets
        "false.heic": b"no picture",  # what is embedded as a text elsewhere
        "cut.png": picture("yellow")[:45],
        "wrong.jpg": picture("yellow", "WEBP", lossless=True),  # another format than its name says
    }
    report = photos.add(kind(tmp_path, files))

    assert (report.added, len(report.failed)) == (4, 2)
    best = {colour: photos.search(colour, k=1)[0] for colour in ("red", "green", "blue", "yellow")}
    assert len({hit.id for hit in best.values()}) == 4
    assert all(hit.score > 0.99 for hit in best.values())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_batches_of_nothing_but_broken_pictures_are_recorded_and_passed(photos, tmp_path, kind):
    files = {f"{number:02}.jpg": b"broken %d" % number for number in range(40)} | {"z.png": picture("red")}
    report = photos.add(kind(tmp_path, files), batch_size=4)
    assert (report.added, len(report.failed), len(photos.failures())) == (1, 40, 40)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_captions_beside_pictures_are_kept_with_their_own_picture(photos, tmp_path, kind):
    files = {
        "1.png": picture("red"),
        "1.txt": b"warm",
        "2.png": b"broken: what comes after it must not move up",
        "2.txt": b"broken",
        "3.png": picture("blue"),
        "3.txt": b"cold",
        "4.png": picture("green"),
    }
    photos.add(kind(tmp_path, files))
    assert photos.search("red", where="caption = 'warm'")[0].score > 0.99
    assert photos.search("blue", where="caption = 'cold'")[0].score > 0.99
    assert len(photos.search("red", where="caption = 'warm' or caption = 'cold' or caption = 'broken'")) == 2
