"""Datasets of Hugging Face and items of your own: undecoded, with their columns, by row."""

import io
import sys
from dataclasses import replace

import pytest
from PIL import Image

import clipsearch as cs
from clipsearch.errors import SourceError
from clipsearch.sources import open_source, restore
from clipsearch.testing import ColourEncoder

COLOURS = ["red", "lime", "blue", "yellow"]


@pytest.fixture
def datasets(monkeypatch):
    return pytest.importorskip("datasets", reason="needs the package datasets")


@pytest.fixture
def photos(tmp_path):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        yield photos


def picture(colour):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def made(datasets, contents, path=None):
    """A dataset of those bytes, in memory, or saved to a folder and loaded."""
    feature = {
        "label": datasets.ClassLabel(names=["cat", "dog"]),
        "photo": datasets.Image(),
        "n": datasets.Value("int64"),
        "others": datasets.Sequence(datasets.Image()),
    }
    columns = {
        "label": [n % 2 for n in range(len(contents))],
        "photo": [{"bytes": content, "path": None} for content in contents],
        "n": list(range(len(contents))),
        "others": [[] for _ in contents],
    }
    dataset = datasets.Dataset.from_dict(columns, features=datasets.Features(feature))
    if path is None:
        return dataset
    dataset.save_to_disk(path, num_shards=2)
    return datasets.load_from_disk(path)


def test_rows_of_a_dataset_are_pictures_with_their_columns_and_shown_after_a_restart(
    datasets, tmp_path, photos
):
    contents = [picture(colour) for colour in COLOURS]
    dataset = made(datasets, [*contents, b"no picture"], str(tmp_path / "d"))

    report = photos.add(dataset.with_format("numpy"))

    assert (report.added, [failure.path.rpartition("/")[2] for failure in report.failed]) == (4, ["4"])
    (first, second) = photos.search("red", where="label = 'cat'")
    assert (first.key, first.metadata["n"]) == ("0", 0) and second.metadata["n"] == 2
    assert "others" not in first.metadata and "photo" not in first.metadata
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as again:
        hit = again.search("blue", k=1)[0]
        assert hit.metadata["n"] == 2 and hit.image().getpixel((0, 0)) == (0, 0, 255)
        report = again.add(datasets.load_from_disk(str(tmp_path / "d")))
        assert (report.unchanged, len(report.failed)) == (4, 1)
        (refreshed,) = again.refresh()
        assert (refreshed.unchanged, refreshed.missing) == (4, 0)


def test_selected_rows_are_a_source_of_their_own_and_touch_no_other(datasets, tmp_path, photos):
    dataset = made(datasets, [picture(colour) for colour in COLOURS], str(tmp_path / "d"))
    photos.add(dataset)
    for some in (dataset.select([3, 1]), dataset.select(range(1, 3))):
        report = photos.add(some)
        assert (report.same_content, report.updated, report.missing, len(report.failed)) == (2, 0, 0, 0)
        assert photos.add(some).unchanged == 2
    assert sorted(hit.metadata["n"] for hit in photos.search("red")) == [0, 1, 1, 1, 2, 2, 3, 3]
    assert photos.add(dataset.select([3, 2, 1, 0])).same_content == 4, "as many rows, in another order"


def test_each_column_of_pictures_is_a_source_of_its_own(datasets, tmp_path, photos):
    image = datasets.Image()
    columns = {
        name: [{"bytes": picture(colour), "path": None}] for name, colour in zip("abc", COLOURS, strict=False)
    }
    features = datasets.Features(dict.fromkeys("abc", image))
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "d")
    dataset = datasets.load_from_disk(str(tmp_path / "d"))

    assert photos.add(dataset).added == 1
    assert photos.add(dataset.select_columns(["b"])).added == 1

    assert photos.add(dataset).unchanged == 1
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as again:
        assert [hit.image().getpixel((0, 0)) for hit in again.search("red", k=1)] == [(255, 0, 0)]
        assert [hit.image().getpixel((0, 0)) for hit in again.search("green", k=1)] == [(0, 255, 0)]
        assert [report.unchanged for report in again.refresh()] == [1, 1]


def test_a_column_of_another_name_than_in_the_files_passes_by(datasets, tmp_path, photos):
    contents = {"photo": picture("red"), "other": picture("blue")}
    columns = {name: [{"bytes": content, "path": None}] for name, content in contents.items()}
    features = datasets.Features(dict.fromkeys(columns, datasets.Image()) | {"n": datasets.Value("int64")})
    datasets.Dataset.from_dict(columns | {"n": [7]}, features=features).save_to_disk(tmp_path / "d")
    dataset = datasets.load_from_disk(str(tmp_path / "d"))

    swapped = dataset.rename_columns({"photo": "other", "other": "photo"})
    of_number = dataset.remove_columns("other").rename_columns({"n": "photo", "photo": "n"})
    for named, colour in [
        (dataset.rename_column("photo", "picture"), "red"),
        (swapped.select_columns(["photo"]), "blue"),
        (of_number, "red"),
    ]:
        source = open_source(named)
        assert [item.read() for item in source.items()] == [picture(colour)]
        assert source.root.startswith("memory/") and not source.lists_all
        assert restore(source.kind, source.root, source.options).item("0") is None


def test_files_that_lost_the_column_have_no_picture(datasets, tmp_path):
    dataset = made(datasets, [picture("red")] * 2, str(tmp_path / "d"))
    source = open_source(dataset)
    again = restore(source.kind, source.root, source.options | {"column": "gone"})
    assert again.item("0") is None
    with pytest.raises(SourceError, match="no column 'gone' of pictures"):
        list(again.items())


def test_a_dataset_in_memory_passes_by(datasets, photos):
    dataset = made(datasets, [picture(colour) for colour in COLOURS])
    assert photos.add(dataset).added == 4
    assert photos.add(made(datasets, [picture(colour) for colour in COLOURS])).unchanged == 4
    assert photos.add(made(datasets, [picture("cyan")])).added == 1
    source = open_source(dataset)
    assert restore(source.kind, source.root, source.options).item("0") is None
    assert photos.refresh() == []


def test_paths_in_a_dataset_are_read_and_rows_without_picture_fail(datasets, tmp_path, photos):
    (tmp_path / "a.png").write_bytes(picture("red"))
    columns = {"image": [str(tmp_path / "a.png"), None, str(tmp_path / "gone.png")]}
    dataset = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    report = photos.add(dataset)
    assert (report.added, len(report.failed)) == (1, 2)
    assert "no picture in this row" in report.failed[0].reason


def test_what_is_no_source_of_pictures_is_named(datasets, tmp_path):
    dataset = made(datasets, [picture("red")])
    for spec, why in [
        (datasets.DatasetDict({"train": dataset}), "found DatasetDict; expected one of its splits"),
        (dataset.to_iterable_dataset(), "found IterableDataset; expected a Dataset, or a clipsearch.Item"),
        (
            dataset.remove_columns("photo"),
            "found a dataset of label, n, others; expected a column that is an Image",
        ),
        (dataset.select([]), "has no row"),
    ]:
        with pytest.raises(SourceError, match=why):
            list(open_source(spec).items())
    saved = made(datasets, [picture("red")] * 2, str(tmp_path / "d"))
    source = open_source(saved)
    (tmp_path / "d").rename(tmp_path / "e")
    again = restore(source.kind, source.root, source.options)
    assert again.item("0") is None
    with pytest.raises(SourceError, match="cannot read the dataset"):
        list(again.items())


def test_rows_can_be_excluded(datasets):
    dataset = made(datasets, [picture(colour) for colour in COLOURS])
    assert [item.key for item in open_source(dataset, exclude=["1", "2"]).items()] == ["0", "3"]


def test_datasets_is_not_imported_unless_somebody_did(monkeypatch):
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    open_source([("a", b"x")])
    assert "datasets" not in sys.modules


# ---------------------------------------------------------------- items


def test_items_bring_metadata_and_are_not_read_again_while_their_stamp_is_the_same(photos):
    read = []

    def item(key, colour, stamp):
        return cs.Item(key, lambda: read.append(key) or picture(colour), stamp, {"label": colour})

    items = [item("a", "red", "1"), item("b", "blue", None)]
    assert photos.add(iter(items)).added == 2
    assert [hit.key for hit in photos.search("red", where="label = 'blue'")] == ["b"]
    assert photos.add(items).unchanged == 2
    assert sorted(read) == ["a", "b", "b"]
    assert photos.add([item("a", "lime", "2")]).updated == 1
    assert [hit.key for hit in photos.search("green", where="label = 'lime'")] == ["a"]
    assert len(photos) == 2


def test_items_and_pairs_may_be_mixed_and_a_wrong_item_is_named():
    item = cs.Item("a", lambda: b"1")
    assert [one.read() for one in open_source([item, ("b", b"2")]).items()] == [b"1", b"2"]
    assert [one.key for one in open_source([item, ("b", b"2")], exclude="a").items()] == ["b"]
    for wrong, why in [(replace(item, key=""), "found Item"), (replace(item, key=7), "found Item")]:
        with pytest.raises(SourceError, match=why):
            list(open_source([wrong]).items())
    with pytest.raises(SourceError, match="the key 'a' came twice"):
        list(open_source([item, item]).items())
