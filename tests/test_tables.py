"""What lies beside pictures, and tables that name them: every value lands with its own picture."""

import json
import os

import pytest
from PIL import Image

import clipsearch as cs
from clipsearch.errors import ImageError, SourceError
from clipsearch.sources import open_source, restore
from clipsearch.testing import ColourEncoder


@pytest.fixture
def photos(tmp_path):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        yield photos


@pytest.fixture
def folder(tmp_path):
    """red.png, deep/green.PNG, deep/blue.png."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name, colour in {"red.png": "red", "deep/green.PNG": "lime", "deep/blue.png": "blue"}.items():
        Image.new("RGB", (4, 4), colour).save(folder / name)
    return folder


def known(spec, **options):
    return {item.key: dict(item.metadata) for item in open_source(spec, **options).items()}


def stamps(spec):
    return {item.key: item.stamp for item in open_source(spec).items()}


def error(spec):
    with pytest.raises(SourceError) as caught:
        list(open_source(spec).items())
    return str(caught.value)


def error_of(spec, key):
    (item,) = [item for item in open_source(spec).items() if item.key == key]
    with pytest.raises((ImageError, SourceError)) as caught:
        item.read()
    return str(caught.value)


def parquet(path, rows):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


# ---------------------------------------------------------------- beside pictures


def test_captions_and_json_beside_pictures_are_their_metadata(folder, photos):
    (folder / "red.txt").write_text("a red square\n")
    (folder / "red.json").write_text('{"stars": 5, "caption": "of the JSON"}')
    (folder / "deep" / "green.cls").write_text("grass")
    (folder / "blue.txt").write_text("of another folder")

    assert photos.add(folder).added == 3

    assert photos.search("red", k=1)[0].metadata["caption"] == "a red square"
    assert [hit.key for hit in photos.search("red", where="stars = 5")] == ["red.png"]
    assert [hit.key for hit in photos.search("red", where="label = 'grass'")] == ["deep/green.PNG"]
    assert "caption" not in photos.search("blue", k=1)[0].metadata


def test_a_change_beside_a_picture_is_noticed_and_only_that_picture_is_read(folder, photos):
    (folder / "red.txt").write_text("one")
    before = stamps(folder)
    photos.add(folder)
    (folder / "red.txt").write_text("another")
    (folder / "deep" / "blue.json").write_text('{"new": 1}')
    after = stamps(folder)
    assert {key for key in before if before[key] != after[key]} == {"red.png", "deep/blue.png"}

    assert photos.add(folder).unchanged == 3

    assert photos.search("red", k=1)[0].metadata["caption"] == "another"
    assert [hit.key for hit in photos.search("red", where="new = 1")] == ["deep/blue.png"]
    (folder / "red.txt").unlink()
    assert (
        stamps(folder)["red.png"]
        == f"{(folder / 'red.png').stat().st_size}-{(folder / 'red.png').stat().st_mtime_ns}"
    )
    photos.add(folder)
    assert "caption" not in photos.search("red", k=1)[0].metadata


def test_what_beside_a_picture_is_excluded_or_large_is_left_alone(folder):
    (folder / "red.txt").write_text("left out")
    (folder / "deep" / "blue.json").write_text(json.dumps({"imageData": "x" * 70_000}))
    (folder / "metadata.jsonl").write_text('{"file_name": "red.png", "a": 1}')
    assert known(folder, exclude=["*.txt", "metadata.jsonl"]) == {
        "red.png": {},
        "deep/blue.png": {},
        "deep/green.PNG": {},
    }


def test_unreadable_json_beside_a_picture_is_told_and_the_picture_added(folder, photos):
    (folder / "red.json").write_text("{'single': quotes}")
    assert photos.add(folder).added == 3
    (hit,) = photos.search("red", where="sidecar_error is not null")
    assert hit.key == "red.png" and hit.metadata["sidecar_error"].startswith(
        "red.json: Expecting property name"
    )


DEEP = {"deep": "[" * 900 + "]" * 900, "bottomless": "[" * 100_000 + "]" * 100_000}


@pytest.mark.parametrize("depth", DEEP)
def test_json_that_is_nested_without_end_is_told_and_costs_no_picture(folder, photos, depth):
    (folder / "red.json").write_text(f'{{"a": {DEEP[depth]}}}'[: 1 << 16])
    rows = [
        '{"file_name": "deep/green.PNG", "b": 1}',
        f'{{"file_name": "deep/blue.png", "b": {DEEP[depth]}}}',
    ]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    (folder / "coco.json").write_text(f'{{"images": {DEEP["bottomless"]}}}')

    report = photos.add(folder)

    assert (report.added, [failure.path for failure in report.failed]) == (3, [f"{folder}/metadata.jsonl"])
    assert "line 2: lists and objects are in each other more than 100 deep" in report.failed[0].reason
    assert [hit.key for hit in photos.search("red", where="b = 1")] == ["deep/green.PNG"]
    assert "sidecar_error" in known(folder)["red.png"]
    assert "cannot read the table" in error(folder / "coco.json")
    assert "line 2: lists" in error_of(folder / "metadata.jsonl", "/")


def test_json_may_be_nested_a_hundred_deep(folder):
    value = json.loads("[" * 99 + "1" + "]" * 99)
    (folder / "red.json").write_text(json.dumps({"a": value}))
    assert known(folder)["red.png"] == {"a": value}
    (folder / "red.json").write_text(json.dumps({"a": [value]}))
    assert list(known(folder)["red.png"]) == ["sidecar_error"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_is_called_like_a_table_and_is_no_file_is_left_alone(folder):
    os.mkfifo(folder / "metadata.csv")
    (folder / "metadata.jsonl").symlink_to("nowhere")
    (folder / "deep" / "metadata.csv").mkdir()
    assert list(known(folder)) == ["red.png", "deep/blue.png", "deep/green.PNG"]


def test_a_glob_sees_what_lies_beside_its_pictures(folder):
    (folder / "deep" / "green.txt").write_text("green")
    assert known(f"{folder}/**/*.PNG") == {"deep/green.PNG": {"caption": "green"}}


TABLES = {
    "csv": "\ufefffile_name,label,stars,code,empty\nred.png,warm,5,007,\n"
    "deep/blue.png,cold,4.5,1,\nabsent.png,x,1,1,\n",
    "jsonl": '{"file_name": "red.png", "label": "warm", "stars": 5, "code": "007", "empty": null}\n\n'
    '{"file_name": "./deep/blue.png", "label": "cold", "stars": 4.5, "code": 1}\n'
    '{"file_name": "absent.png"}\n',
}


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_table_called_metadata_tells_of_the_pictures_below_its_folder(folder, photos, form):
    if form == "parquet":
        rows = [
            {"file_name": "red.png", "label": "warm", "stars": 5, "code": "007", "data": b"x", "empty": None},
            {
                "file_name": "deep/blue.png",
                "label": "cold",
                "stars": 4.5,
                "code": "1",
                "data": None,
                "empty": None,
            },
        ]
        parquet(folder / "metadata.parquet", rows)
    else:
        (folder / f"metadata.{form}").write_text(TABLES[form])
    code = "1" if form == "parquet" else 1
    assert known(folder) == {
        "red.png": {"label": "warm", "stars": 5, "code": "007"},
        "deep/blue.png": {"label": "cold", "stars": 4.5, "code": code},
        "deep/green.PNG": {},
    }
    photos.add(folder)
    assert [hit.key for hit in photos.search("red", where="stars > 4.6 and label = 'warm'")] == ["red.png"]


def test_tables_of_several_folders_each_tell_of_their_own(folder):
    (folder / "metadata.csv").write_text("file_name,a\nred.png,1\ndeep/blue.png,2\n")
    (folder / "deep" / "metadata.csv").write_text("file_name,b\nred.png,3\ngreen.PNG,4\n")
    assert known(folder) == {"red.png": {"a": 1}, "deep/blue.png": {"a": 2}, "deep/green.PNG": {"b": 4}}


def test_a_changed_row_changes_the_stamp_of_its_picture_alone(folder):
    (folder / "metadata.csv").write_text("file_name,a\nred.png,1\ndeep/blue.png,2\n")
    before = stamps(folder)
    (folder / "metadata.csv").write_text("file_name,a\nred.png,1\ndeep/blue.png,9\n")
    after = stamps(folder)
    assert [key for key in before if before[key] != after[key]] == ["deep/blue.png"]


def test_a_table_that_breaks_off_is_told_once_and_its_rows_before_that_count(folder, photos):
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "red.png", "a": 1}\n{oops\n{"file_name": "deep/blue.png"}\n'
    )
    report = photos.add(folder)
    assert report.added == 3
    ((path, reason),) = [(failure.path, failure.reason) for failure in report.failed]
    assert path == str(folder / "metadata.jsonl") and "line 2: Expecting property name" in reason
    assert [hit.key for hit in photos.search("red", where="a = 1")] == ["red.png"]
    (folder / "metadata.jsonl").write_text('{"file_name": "red.png", "a": 1}\n')
    assert photos.add(folder).failed == []


# ---------------------------------------------------------------- a table as a source


@pytest.mark.parametrize("column", ["file_name", "image", "path", "image_path", "filename"])
def test_a_table_names_the_pictures_to_take(folder, photos, column):
    (folder / "some.csv").write_text(f",{column},label\n0,deep/blue.png,cold\n1,red.png,warm\n2,gone.png,x\n")

    report = photos.add(folder / "some.csv")

    assert (report.added, [failure.path for failure in report.failed]) == (2, [str(folder / "gone.png")])
    hit = photos.search("blue", where="label = 'cold'")[0]
    assert (hit.key, hit.path) == ("deep/blue.png", str(folder / "deep" / "blue.png"))
    assert hit.image().getpixel((0, 0)) == (0, 0, 255)
    again = restore("table", str(folder / "some.csv"), {"images": ""})
    assert again.item("red.png").read() == (folder / "red.png").read_bytes()
    assert photos.add(folder / "some.csv").unchanged == 2


def test_a_byte_that_is_no_text_is_the_trouble_of_its_own_row(folder):
    lines = [
        b'\xef\xbb\xbf{"file_name": "red.png", "a": "\xc3\xa9"}',
        b"",
        b'{"file_name": "deep/blue.png", "a": "\xe9"}',
    ]
    (folder / "some.jsonl").write_bytes(b"\r\n".join(lines))
    assert known(folder / "some.jsonl") == {"red.png": {"a": "é"}, "/": {}}
    assert "line 3: 'utf-8' codec can't decode byte 0xe9" in error_of(folder / "some.jsonl", "/")


def test_a_row_that_goes_takes_its_picture_with_it_and_a_broken_table_takes_none(folder, photos):
    table = folder / "some.jsonl"
    lines = [json.dumps({"file_name": name}) for name in ("red.png", "deep/blue.png")]
    table.write_text("\n".join(lines))
    photos.add(table)
    table.write_text(f"{lines[0]}\n{{oops")
    report = photos.add(table)
    assert (report.missing, [failure.path for failure in report.failed]) == (0, [str(table)])
    table.write_text(lines[0])
    assert photos.add(table).missing == 1


def test_rows_of_one_picture_are_one_picture_with_all_they_say(folder):
    (folder / "captions.tsv").write_text(
        "image\tcaption\tsplit\nred.png\tone\ttest\nred.png\ttwo\ttest\nred.png\tone\ttest\n"
    )
    assert known(folder / "captions.tsv") == {"red.png": {"caption": ["one", "two"], "split": "test"}}


def test_a_number_of_a_csv_is_the_number_that_is_written(folder):
    (folder / "some.csv").write_text("file_name,a,b,c,d\nred.png,9007199254740993,5.0,1e2,-0.5\n")
    assert (
        repr(known(folder / "some.csv")["red.png"])
        == "{'a': 9007199254740993, 'b': 5.0, 'c': 100.0, 'd': -0.5}"
    )


def test_every_row_of_a_long_parquet_table_counts(tmp_path):
    rows = 70_000  # more than pyarrow reads at a time
    parquet(tmp_path / "some.parquet", [{"file_name": f"{n}.png", "n": n} for n in range(rows)])
    found = [item.metadata["n"] for item in open_source(tmp_path / "some.parquet").items()]
    assert found == list(range(rows))


def test_a_table_finds_its_pictures_in_a_folder_beside_it_and_again_when_moved(folder, photos, tmp_path):
    (folder / "deep").rename(folder / "images")
    (folder / "train.csv").write_text("filename,label\nblue.png,cold\n")
    photos.add(folder / "train.csv")
    folder.rename(tmp_path / "elsewhere")
    photos.relocate(folder / "train.csv", tmp_path / "elsewhere" / "train.csv")
    assert photos.search("blue", k=1)[0].path == str(tmp_path / "elsewhere" / "images" / "blue.png")
    assert photos.search("blue", k=1)[0].image().size == (4, 4)


def test_a_table_that_is_none_says_what_was_expected(folder):
    (folder / "none.csv").write_text("a,b\n1,2\n")
    assert "columns are a, b; expected one of file_name" in error(folder / "none.csv")
    (folder / "empty.csv").write_text("file_name\n")
    assert "names no picture" in error(folder / "empty.csv")
    (folder / "all.csv").write_text("file_name\nred.png\n")
    with pytest.raises(SourceError, match="names no picture but those that are left out"):
        list(open_source(folder / "all.csv", exclude="*.png").items())
    (folder / "list.jsonl").write_text("[1]\n")
    assert "line 1: found '[1]'; expected an object" in error(folder / "list.jsonl")
    (folder / "odd.jsonl").write_text('{"path": 3}\n')
    assert "has 3 for a path in row 1" in error(folder / "odd.jsonl")
    (folder / "binary.csv").write_bytes(b"file_name\x00\n\x00\n")
    assert error(folder / "binary.csv")
    (folder / "bad.parquet").write_bytes(b"no parquet")
    assert "cannot read the table" in error(folder / "bad.parquet")


# ---------------------------------------------------------------- COCO

COCO = {
    "images": [
        {"id": 9, "file_name": "red.png"},
        {"id": 7, "file_name": "blue.png"},
        {"id": 8, "file_name": "none.png"},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
    "annotations": [
        {"image_id": 7, "caption": " a blue square "},
        {"image_id": 9, "caption": "a red one"},
        {"image_id": 7, "caption": "blue"},
        {"image_id": 9, "category_id": 3},
        {"image_id": 9, "category_id": 1},
        {"image_id": 9, "category_id": 3},
    ],
}


def test_coco_captions_and_categories_land_with_their_pictures(tmp_path, photos):
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "val2017").mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (4, 4), colour).save(tmp_path / "coco" / "val2017" / f"{colour}.png")
    annotations = tmp_path / "coco" / "annotations" / "captions_val2017.json"
    annotations.write_text(json.dumps(COCO))

    report = photos.add(annotations)

    assert (report.added, len(report.failed)) == (2, 1)
    assert [hit.key for hit in photos.search("red", where="categories = 'dog'")] == ["red.png"]
    (hit,) = photos.search("red", where="caption = 'blue'")
    assert hit.metadata["caption"] == ["a blue square", "blue"] and hit.metadata["image_id"] == 7
    assert hit.path == str(tmp_path / "coco" / "val2017" / "blue.png") and hit.image()
    assert known(annotations)["red.png"] == {
        "image_id": 9,
        "caption": ["a red one"],
        "categories": ["dog", "cat"],
    }


def test_an_annotation_that_cannot_be_understood_is_named_and_costs_no_other(tmp_path):
    wrong = [
        {"image_id": 9, "caption": None},
        {"image_id": 7, "category_id": 99},
        {"caption": "of nothing"},
        7,
    ]
    (tmp_path / "a.json").write_text(json.dumps(COCO | {"annotations": [*wrong, *COCO["annotations"]]}))
    found = known(tmp_path / "a.json")
    assert list(found) == ["red.png", "blue.png", "none.png", "/"]
    assert found["blue.png"] == {"image_id": 7, "caption": ["a blue square", "blue"]}
    assert found["red.png"]["categories"] == ["dog", "cat"]
    told = error_of(tmp_path / "a.json", "/")
    assert "4 annotations are left out, first annotations[0]" in told and "expected an image_id" in told
    (tmp_path / "a.json").write_text(json.dumps(COCO | {"annotations": None, "categories": None}))
    assert known(tmp_path / "a.json")["none.png"] == {"image_id": 8}


@pytest.mark.parametrize(
    "content",
    [
        '{"images": [{"id": [1], "file_name": "a.png"}]}',
        "[]",
        "{}",
        '{"images": [{"id": 1}]}',
        '{"images": 1}',
        "{",
    ],
)
def test_json_in_another_format_is_an_error(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    assert "cannot read the table" in error(tmp_path / "a.json")


def test_an_item_of_a_broken_table_says_why(folder):
    (folder / "metadata.csv").write_text("a\n1\n")
    (item,) = [item for item in open_source(folder).items() if item.key == "metadata.csv"]
    with pytest.raises(ImageError, match="columns are a; expected one of file_name"):
        item.read()
    assert os.path.basename(open_source(folder).path(item.key)) == "metadata.csv"


def test_rows_of_a_folders_table_that_name_no_picture_are_told(folder, photos):
    (folder / "metadata.csv").write_text("file_name,label\nred.png,warm\nblue.png,cold\nnone.png,x\n")
    report = photos.add(folder)
    assert report.added == 3 and report.failed == []
    (warning,) = report.warnings
    assert warning.startswith("rows of metadata tables that name no picture there is: 2, such as 'blue.png'")
    assert warning in str(report) and report.to_dict()["warnings"] == [warning]
    assert photos.add(folder, exclude=["blue.png", "none.png"]).warnings == []
    assert photos.add(folder / "red*").warnings == []


def test_a_row_without_a_path_costs_no_other(folder, photos):
    (folder / "t.csv").write_text("file_name,label\nred.png,warm\n,lost\ndeep/blue.png,cold\n")
    report = photos.add(folder / "t.csv")
    ((path, reason),) = report.failed
    assert report.added == 2 and path == str(folder / "t.csv") and "has '' for a path in row 2" in reason
    assert photos.search("blue", k=1, where="label = 'cold'")[0].key == "deep/blue.png"
    (folder / "t.csv").write_text("file_name,label\nred.png,warm\n,lost\n")
    assert photos.add(folder / "t.csv").missing == 1
    (folder / "t.csv").write_text("file_name,label\nred.png,warm\n")
    assert photos.add(folder / "t.csv").failed == [] and photos.failures() == []


def test_a_picture_in_a_tables_text_is_not_taken_for_a_path(folder):
    (folder / "b.jsonl").write_text(json.dumps({"image": "iVBOR" * 1_000}))
    assert len(error(folder / "b.jsonl")) < 400


def test_names_of_columns_and_numbers_may_have_spaces_around(folder):
    (folder / "t.csv").write_text("file_name, stars , note\nred.png, 5, a b\n")
    assert known(folder / "t.csv") == {"red.png": {"stars": 5, "note": " a b"}}


def test_a_table_of_another_encoding_says_how_to_convert_it(folder):
    (folder / "t.csv").write_bytes("file_name,note\nred.png,caf\u00e9\n".encode("latin-1"))
    assert "iconv -f ISO-8859-1 -t UTF-8" in error(folder / "t.csv")


def test_the_row_numbers_of_pandas_are_no_metadata(folder):
    parquet(folder / "t.parquet", [{"file_name": "red.png", "n": 1, "__index_level_0__": 7}])
    assert known(folder / "t.parquet") == {"red.png": {"n": 1}}
