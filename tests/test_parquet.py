"""Pictures inside Parquet files: each row's picture with each row's columns, streamed."""

import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch.errors import ImageError, SourceError
from clipsearch.sources import open_source, restore
from clipsearch.testing import ColourEncoder

pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
from pyarrow import parquet  # noqa: E402


@pytest.fixture
def photos(tmp_path):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        yield photos


def picture(colour):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def write(path, columns, *, features=None, **options):
    table = pyarrow.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, **options)
    return path


def structs(*contents):
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    return pyarrow.array([{"bytes": content, "path": path} for content, path in contents], kind)


def error(spec):
    with pytest.raises(SourceError) as caught:
        list(open_source(spec).items())
    return str(caught.value)


def test_pictures_as_datasets_writes_them_with_labels_by_name(tmp_path, photos):
    contents = [picture(colour) for colour in ("red", "lime", "blue")]
    features = {"photo": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    columns = {
        "mask": structs(*[(picture("white"), None)] * 3),
        "photo": structs(*zip(contents, ["a.png", None, "c.png"], strict=True)),
        "label": [1, 0, -1],
        "stars": [1.5, None, 3.0],
        "tags": [["x", "y"], [], None],
        "raw": [b"1", b"2", b"3"],
    }
    file = write(tmp_path / "train.parquet", columns, features=features)

    assert photos.add(file).added == 3

    items = list(open_source(file).items())
    assert [(item.key, item.read()) for item in items] == [(str(row), contents[row]) for row in range(3)]
    assert [dict(item.metadata) for item in items] == [
        {"file_name": "a.png", "label": "dog", "stars": 1.5, "tags": ["x", "y"]},
        {"label": "cat", "tags": []},
        {"file_name": "c.png", "label": -1, "stars": 3.0},
    ]
    (hit,) = photos.search("red", where="label = 'dog'")
    assert (hit.key, hit.path) == ("0", f"{file}/0") and hit.image().getpixel((0, 0)) == (255, 0, 0)


def test_a_column_of_bytes_and_files_of_a_pattern(tmp_path, photos):
    for shard in range(2):
        contents = [picture((90 * shard, 40 * row, 0)) for row in range(3)]
        write(tmp_path / "d" / f"train-0{shard}-of-02.parquet", {"image": contents, "n": [0, 1, 2]})
    pattern = f"{tmp_path}/d/train-{{00..01}}-of-02.parquet"

    assert photos.add(pattern).added == 6

    assert [hit.key for hit in photos.search("red", k=1, where="n = 2")] == ["train-01-of-02.parquet/2"]
    again = restore("parquet", pattern, {})
    assert again.item("train-01-of-02.parquet/2").read() == picture((90, 80, 0))
    for gone in ("train-01-of-02.parquet/3", "train-01-of-02.parquet/-1", "train-02-of-02.parquet/0", "x"):
        assert again.item(gone) is None
    assert again.path("train-01-of-02.parquet/2") == f"{tmp_path}/d/train-01-of-02.parquet/2"
    assert [item.key for item in open_source(f"{tmp_path}/d/*.parquet", exclude="*/1").items()] == [
        f"train-0{shard}-of-02.parquet/{row}" for shard in range(2) for row in (0, 2)
    ]
    assert photos.add(pattern).unchanged == 6


@pytest.mark.parametrize("group", [7, 1000])
@pytest.mark.parametrize("size", [10, 600_000])
def test_every_row_gives_its_own_picture_in_any_order_and_from_many_threads(tmp_path, group, size):
    contents = [np.random.default_rng(row).bytes(size + row) for row in range(60)]
    file = write(tmp_path / "a.parquet", {"image": contents, "n": list(range(60))}, row_group_size=group)
    source = open_source(file)
    items = list(source.items())
    for order in (range(60), range(59, -1, -1), np.random.default_rng(0).permutation(60)):
        with ThreadPoolExecutor(8) as threads:
            read = list(threads.map(lambda row: items[row].read(), order))
        assert read == [contents[row] for row in order]
    assert [item.metadata["n"] for item in items] == list(range(60))
    assert [source.item(str(row)).read() for row in (59, 0, 31)] == [contents[row] for row in (59, 0, 31)]


def test_a_row_without_picture_fails_by_itself_and_one_with_a_path_is_read_from_there(tmp_path, photos):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "blue.png").write_bytes(picture("blue"))
    rows = [(picture("red"), None), (None, None), (None, "in/blue.png"), (b"no picture", None)]
    file = write(tmp_path / "a.parquet", {"image": structs(*rows)})
    report = photos.add(file)
    assert report.added == 2
    assert {failure.path: failure.reason for failure in report.failed}.keys() == {f"{file}/1", f"{file}/3"}
    assert report.failed[0].reason == "there is no picture in this row"
    assert photos.search("blue", k=1)[0].key == "2"


def test_a_changed_file_is_looked_at_again(tmp_path, photos):
    file = write(tmp_path / "a.parquet", {"image": [picture("red"), picture("blue")], "n": [1, 2]})
    photos.add(file)
    write(file, {"image": [picture("red"), picture("lime")], "n": [3, 4]})
    os.utime(file, ns=(5, 5))
    report = photos.add(file)
    assert (report.unchanged, report.updated) == (1, 1)
    assert [hit.key for hit in photos.search("red", where="n = 3")] == ["0"]


def test_a_broken_file_is_told_and_costs_no_other(tmp_path, photos):
    for shard in range(3):
        write(tmp_path / f"{shard}.parquet", {"image": [picture((80 * shard, 0, 0))]})
    pattern = f"{tmp_path}/{{0..3}}.parquet"
    assert len(photos.add(pattern).failed) == 1
    (tmp_path / "1.parquet").write_bytes(b"no parquet")
    (tmp_path / "2.parquet").unlink()
    write(tmp_path / "2.parquet", {"text": ["a"]})

    report = photos.add(pattern)

    assert (report.unchanged, report.missing, len(photos)) == (1, 0, 3)
    told = {os.path.basename(failure.path): failure.reason for failure in report.failed}
    assert told.keys() == {"1.parquet", "2.parquet", "3.parquet"}
    assert "found columns text; expected one of pictures" in told["2.parquet"]


def test_a_page_that_cannot_be_unpacked_fails_its_rows_and_those_before_are_read(tmp_path):
    rng = np.random.default_rng(0)
    contents = [rng.bytes(5_000) for _ in range(4_000)]
    options = {"row_group_size": 2_000, "compression": "none", "use_dictionary": False}
    file = write(tmp_path / "a.parquet", {"image": contents}, **options)
    data = bytearray(file.read_bytes())
    middle = data.index(contents[1_500])
    data[middle - 4 : middle] = b"\xff\xff\xff\x7f"  # its length
    file.write_bytes(data)
    items = list(open_source(file).items())
    assert items[100].read() == contents[100] and items[3_999].read() == contents[3_999]
    for row in (1_500, 1_999):
        with pytest.raises(ImageError, match="broken in the Parquet file"):
            items[row].read()
    assert items[101].read() == contents[101]


def test_trouble_of_the_computer_passes_and_the_rows_are_read_later(tmp_path):
    contents = [picture((row, 0, 0)) for row in range(6)]
    file = write(tmp_path / "a.parquet", {"image": contents, "n": list(range(6))}, row_group_size=3)
    items = list(open_source(file).items())
    file.rename(tmp_path / "away")
    for ask in (items[0].read, lambda: items[4].metadata["n"]):
        with pytest.raises(FileNotFoundError):
            ask()
    (tmp_path / "away").rename(file)
    assert [item.read() for item in items] == contents
    assert [item.metadata["n"] for item in items] == list(range(6))


LAYOUTS = {
    "large": pyarrow.large_binary(),
    "view": pyarrow.binary_view(),
    "fixed": pyarrow.binary(len(picture("red"))),
    "dictionary": pyarrow.dictionary(pyarrow.int8(), pyarrow.binary()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_are_bytes_in_any_layout_and_other_bytes_are_left_out(tmp_path, layout):
    red = pyarrow.array([picture("red")]).cast(LAYOUTS[layout])
    columns = {
        "image": red,
        "n": [1],
        "more": red,
        "several": pyarrow.array([[b"1", b"2"]], pyarrow.list_(pyarrow.binary(), 2)),
        "named": pyarrow.array([[("k", b"1")]], pyarrow.map_(pyarrow.string(), pyarrow.binary())),
    }
    source = open_source(write(tmp_path / "a.parquet", columns))
    (item,) = source.items()
    assert (source.kind, item.read(), dict(item.metadata)) == ("parquet", picture("red"), {"n": 1})


@pytest.mark.parametrize("names", [None, {"0": "cat", "1": "dog"}])
def test_a_class_without_a_list_of_names_is_a_number(tmp_path, names):
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    columns = {"image": structs((picture("red"), None)), "label": [1]}
    (item,) = open_source(write(tmp_path / "a.parquet", columns, features=features)).items()
    assert dict(item.metadata) == {"label": 1}


def test_a_file_of_paths_is_a_table(tmp_path):
    (tmp_path / "a.png").write_bytes(picture("red"))
    file = write(tmp_path / "some.parquet", {"file_name": ["a.png"], "label": ["cat"]})
    source = open_source(file)
    (item,) = source.items()
    assert (source.kind, item.key, dict(item.metadata)) == ("table", "a.png", {"label": "cat"})


def test_what_holds_no_picture_is_an_error(tmp_path):
    assert "columns are text" in error(write(tmp_path / "t.parquet", {"text": ["a"]}))
    message = error(write(tmp_path / "photo.parquet", {"photo": [b"x"], "caption": ["x"]}))
    assert "columns are photo, caption;" in message and "one of pictures, such as image" in message
    twice = pyarrow.Table.from_arrays([pyarrow.array([picture("red")])] * 2, names=["image"] * 2)
    parquet.write_table(twice, tmp_path / "twice.parquet")
    assert "columns are image, image;" in error(tmp_path / "twice.parquet")
    kind = pyarrow.array([], pyarrow.binary())
    assert "no picture in" in error(write(tmp_path / "e.parquet", {"image": kind}))
    with pytest.raises(SourceError, match="cannot read the Parquet file"):
        list(restore("parquet", str(tmp_path / "absent.parquet"), {}).items())


STREAM = """
import sys
import pyarrow
from clipsearch.sources import open_source
read = told = 0
for item in open_source(sys.argv[1]).items():
    read += len(item.read())
    told += len(item.metadata["text"])
print(read, told, pyarrow.default_memory_pool().max_memory())
"""


def test_a_row_group_of_any_size_is_streamed(tmp_path):
    rng = np.random.default_rng(0)
    contents = [rng.bytes(7_000) for _ in range(15_000)]  # 105 MB in one group, and as much of text
    columns = {"image": contents, "text": [content[:3_500].hex() for content in contents]}
    file = write(tmp_path / "a.parquet", columns, row_group_size=20_000)
    command = [sys.executable, "-c", STREAM, str(file)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    read, told, peak = map(int, out.split())
    assert read == told == 105_000_000 and peak < 80_000_000
