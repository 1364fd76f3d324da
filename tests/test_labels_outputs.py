import csv
import json
import os
import sys
from dataclasses import replace
from io import BytesIO
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from clipsearch.errors import CollectionError, ImageError, LabelError, MissingExtraError, SourceError
from clipsearch.labels import exports
from clipsearch.labels.classifier import Scores
from clipsearch.labels.exports import fiftyone, image_folder, label_studio
from clipsearch.labels.labelset import Label, LabelSet
from clipsearch.labels.outputs import read_table, to_pandas, write_table
from clipsearch.labels.results import LabelResults, Pictured, Verdict

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names that Windows does not allow")

NAMES = ("cat", "=1+1", '개, "강아지"', "-x")
ODD = "caf\udce9.png"  # the byte e9, which is not UTF-8
NONE = float("nan")
KEYS = [
    "cat.png",
    "-dash.png",
    '자전거, "빨간".png',
    ODD,
    "none.png",
    "faint.png",
    "broken.png",
    "two\nlines.png",
]
IDS = [1, 2, 5, 6, 7, 8, 9, 12]
TOP = [[0, 1], [1, 0], [2, 3], [0, 3], [0, 1], [3, 2], [-1, -1], [0, 1]]
SCORES = [[0.75, 0.25], [0.875, 0.125], [0.5, 0.5], [0.625, 0.375], [0.5, 0.25], [0.375, 0.25]]
SCORES += [[NONE, NONE], [1, 0]]
UNKNOWN = [0.25, 0, 0.5, 0.125, 0.75, 0.25, NONE, 0.0625]


def png(colour):
    file = BytesIO()
    Image.new("RGB", (4, 3), colour).save(file, "PNG")
    return file.getvalue()


def raises(error):
    def read():
        raise error

    return read


def of(rows, *, labels=NAMES, multi=False, kind="softmax", threshold=0.5, pictures=None):
    """Results of (top, scores, unknown) rows; cosines are -scores / 4."""
    top, scores, unknown = zip(*rows, strict=True) if rows else ([], [], [])
    shape = (len(rows), -1) if rows else (0, 2)
    numbers = np.array(scores, np.float32).reshape(shape)
    scored = Scores(
        np.array(top, np.int32).reshape(shape), numbers, -numbers / 4, np.array(unknown, np.float32)
    )
    pictures = pictures or [a_picture(n + 1, f"{n}.png") for n in range(len(rows))]
    labels = LabelSet(tuple(map(Label, labels)))
    return LabelResults(labels, tuple(pictures), scored, multi, kind, "tiny/random", "photo", threshold)


def a_picture(number, key, *, source="/photos", read=None, reason=""):
    return Pictured(number, f"{source}/{key}", key, source, read or (lambda: png("red")), reason)


def all_kinds(source="/photos"):
    reasons = ["truncated; 3 bytes" if key == "broken.png" else "" for key in KEYS]
    triples = zip(IDS, KEYS, reasons, strict=True)
    pictures = [a_picture(number, key, source=source, reason=reason) for number, key, reason in triples]
    return of(list(zip(TOP, SCORES, UNKNOWN, strict=True)), pictures=pictures)


@pytest.fixture
def on_disk(tmp_path):
    """The same results, and a file of another colour for each picture but the broken one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, key in zip(IDS, KEYS, strict=True):
        (folder / key).write_bytes(png((number * 20, 0, 0)) if key != "broken.png" else b"no picture")
    results = all_kinds(str(folder))
    return replace(results, pictures=tuple(p._replace(read=reader(p.path)) for p in results.pictures))


def reader(path):
    def read():
        with open(path, "rb") as file:
            return file.read()

    return read


def several(labels=("cat", "dog", "=1")):
    """Several labels a picture: two, one, none of them."""
    rows = [([2, 0, 1], [1, 0.75, 0.25], 0.0), ([1, 0, 2], [0.5, 0.25, 0], 0.5), ([0, 1, 2], [0.25, 0, 0], 1)]
    return of(rows, labels=labels, multi=True, kind="sigmoid", threshold=None)


def lines(path):
    return path.read_bytes().decode("utf-8", "surrogateescape").split("\r\n")


# Tables


def test_a_csv_table_has_a_row_for_every_picture(tmp_path):
    found = write_table(all_kinds(), tmp_path / "labels.csv")

    assert found == tmp_path / "labels.csv"
    assert lines(found) == [
        "path,key,source,id,verdict,label,score,cosine,unknown,label_1,label_2,score_2,reason",
        "/photos/cat.png,cat.png,/photos,1,labelled,cat,0.75,-0.1875,0.25,cat,'=1+1,0.25,",
        "/photos/-dash.png,'-dash.png,/photos,2,labelled,'=1+1,0.875,-0.21875,0.0,'=1+1,cat,0.125,",
        '"/photos/자전거, ""빨간"".png","자전거, ""빨간"".png",/photos,5,labelled,"개, ""강아지""",'
        '0.5,-0.125,0.5,"개, ""강아지""",\'-x,0.5,',
        f"/photos/{ODD},{ODD},/photos,6,labelled,cat,0.625,-0.15625,0.125,cat,'-x,0.375,",
        "/photos/none.png,none.png,/photos,7,unknown,,0.5,-0.125,0.75,cat,'=1+1,0.25,",
        '/photos/faint.png,faint.png,/photos,8,abstained,,0.375,-0.09375,0.25,\'-x,"개, ""강아지""",0.25,',
        "/photos/broken.png,broken.png,/photos,9,failed,,,,,,,,truncated; 3 bytes",
        '"/photos/two\nlines.png","two\nlines.png",/photos,12,labelled,cat,1.0,-0.25,0.0625,cat,\'=1+1,0.0,',
        "",
    ]
    assert b"/photos/caf\xe9.png" in found.read_bytes(), "the name's own byte"


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".TSV"])
def test_what_is_in_cells_comes_back(tmp_path, ending):
    results = all_kinds()
    expected = results.to_dicts()
    for row in expected:
        row["guesses"] = [
            guess | ({"cosine": None} if place else {}) for place, guess in enumerate(row["guesses"])
        ]

    assert read_table(write_table(results, tmp_path / f"a{ending}")) == expected


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
@pytest.mark.parametrize("make", [all_kinds, several, lambda: of([])])
def test_json_is_what_to_dicts_says(tmp_path, ending, make):
    results = make()
    path = write_table(results, tmp_path / f"a{ending}")

    assert path.read_bytes().isascii()
    assert read_table(path) == results.to_dicts()
    if ending == ".jsonl":
        assert [json.loads(line) for line in path.read_text().splitlines()] == results.to_dicts()
    else:
        assert json.loads(path.read_text()) == results.to_dicts()


def test_several_labels_stand_in_one_cell(tmp_path):
    results = several()
    path = write_table(results, tmp_path / "a.csv")

    assert lines(path)[:3] == [
        "path,key,source,id,verdict,labels,score,cosine,unknown,label_1,label_2,score_2,label_3,score_3,reason",
        "/photos/0.png,0.png,/photos,1,labelled,'=1|cat,1.0,-0.25,0.0,'=1,cat,0.75,dog,0.25,",
        "/photos/1.png,1.png,/photos,2,labelled,dog,0.5,-0.125,0.5,dog,cat,0.25,'=1,0.0,",
    ]
    assert [row["labels"] for row in read_table(path)] == [["=1", "cat"], ["dog"], []]
    assert [row["label"] for row in read_table(path)] == ["=1", "dog", None]


def test_labels_that_hold_the_separator_are_refused_in_one_cell_only(tmp_path):
    with pytest.raises(LabelError, match=r"'a\|b' holds the '\|' that is to separate labels; write .jsonl"):
        write_table(several(("a|b", "c", "d")), tmp_path / "a.csv")
    assert os.listdir(tmp_path) == []

    path = write_table(several(("c", "d", "a|b")), tmp_path / "a.jsonl")
    assert read_table(path)[0]["labels"] == ["a|b", "c"]
    single = of([([0], [1], 0.0)], labels=("a|b",))
    assert read_table(write_table(single, tmp_path / "b.csv"))[0]["labels"] == ["a|b"]


def test_an_empty_table_has_only_its_header(tmp_path):
    path = write_table(of([]), tmp_path / "a.csv")

    assert path.read_text().count("\n") == 1
    assert read_table(path) == []


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-photo.jpg", "'-photo.jpg"),
        ("@a", "'@a"),
        ("\ta", "'\ta"),
        ("\ra", "'\ra"),
        ("\na", "'\na"),
        ("＝1", "'＝1"),
        ("'=1", "''=1"),
        ("''-", "'''-"),
        ("'tis.jpg", "'tis.jpg"),
        ("''", "''"),
        ("a=1", "a=1"),
        (" =1", " =1"),
    ],
)
def test_cells_that_a_spreadsheet_would_run_are_texts(tmp_path, text, cell):
    picture = a_picture(1, "a.png")._replace(key=text)
    path = write_table(of([([0, 1], [1, 0], 0.0)], pictures=[picture]), tmp_path / "a.csv")

    with path.open(newline="") as file:
        assert next(csv.DictReader(file))["key"] == cell
    assert read_table(path)[0]["key"] == text


def many(count=10_001):
    """As many pictures as make a second part."""
    return of([([0, 1], [0.75, 0.25], 0.0)] * count)


def test_tables_are_written_a_part_at_a_time_and_none_is_lost(tmp_path):
    found = read_table(write_table(many(), tmp_path / "a.csv"))

    assert [row["id"] for row in found] == list(range(1, 10_002))


def test_another_ending_is_refused(tmp_path):
    message = r"found the name 'labels.xls'; expected one that ends in .csv, .tsv, .jsonl, .json, .parquet"
    with pytest.raises(LabelError, match=message):
        write_table(all_kinds(), tmp_path / "labels.xls")
    with pytest.raises(LabelError, match=message):
        read_table(tmp_path / "labels.xls")


def test_a_table_that_cannot_be_written_or_read_says_so(tmp_path):
    with pytest.raises(CollectionError, match="cannot write"):
        write_table(all_kinds(), tmp_path / "absent" / "a.csv")
    with pytest.raises(LabelError, match=r"cannot read .*absent.csv: No such file"):
        read_table(tmp_path / "absent.csv")


def test_a_table_made_by_hand_needs_little(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffid,label,by\n7,cat,Ida\n\n8,,\n9\n", encoding="utf-8")

    assert read_table(tmp_path / "a.csv") == [
        {"id": 7, "label": "cat", "labels": ["cat"], "by": "Ida"},
        {"id": 8, "label": None, "labels": [], "by": None},
        {"id": 9, "label": None, "labels": [], "by": None},
    ]
    (tmp_path / "a.jsonl").write_text('{"path": "a.jpg", "labels": ["b", "c"]}\n\n{"id": 3, "label": null}\n')
    assert read_table(tmp_path / "a.jsonl") == [
        {"path": "a.jpg", "label": "b", "labels": ["b", "c"]},
        {"id": 3, "label": None, "labels": []},
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "a.csv, line 1: found nothing; expected path or id, and label or labels"),
        ("a.csv", "path label\n", "a.csv, line 1: found path label; expected path or id"),
        ("a.csv", "path,verdict\n", "a.csv, line 1: found path, verdict; expected path or id"),
        ("a.csv", "path,label,label\n", "a.csv, line 1: there are two columns 'label'"),
        ("a.csv", 'path,label\na,b\n"c\nd",e,f\n', "a.csv, line 4: found 3 cells; expected 2"),
        ("a.csv", 'path,label\na,"b"c\n', "a.csv, line 2: ',' expected after"),
        ("a.csv", "id,label\n1,b\nx,b\n", "a.csv, line 3: found id 'x'; expected a number"),
        ("a.tsv", "id\tlabel\tscore\n1\tb\thalf\n", "a.tsv, line 2: found score 'half'; expected a number"),
        ("a.csv", "path,id,label\n,,b\n", "a.csv, line 2: found path None and id None; expected"),
        ("a.jsonl", '{"id": 1, "label": "b"}\n{', "a.jsonl, line 2: this is no JSON"),
        ("a.jsonl", "[]\n", "a.jsonl, line 1: found a list; expected an object"),
        ("a.jsonl", '{"id": 1, "label": 2}\n', r"a.jsonl, line 1: found the labels \[2\]; expected texts"),
        ("a.jsonl", '{"id": 1, "labels": "b"}\n', "a.jsonl, line 1: found the labels 'b'; expected texts"),
        ("a.jsonl", '{"id": "1", "label": "b"}\n', "a.jsonl, line 1: found path None and id '1'"),
        ("a.json", '{"id": 1}', "a.json holds a dict; expected a list of objects"),
        ("a.json", '[{"id": 1, "label": "b"}, {"id": 2}]', "a.json, entry 2: found id; expected"),
        ("a.json", "[", "a.json: this is no JSON"),
    ],
)
def test_a_table_that_is_none_is_refused_with_its_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(LabelError, match=message):
        read_table(tmp_path / name)


def test_pandas_gets_the_columns_of_a_csv_file():
    table = to_pandas(all_kinds())

    columns = "path,key,source,id,verdict,label,score,cosine,unknown,label_1,label_2,score_2,reason"
    assert ",".join(table.columns) == columns
    assert table["id"].tolist() == IDS
    assert table["path"][3] == f"/photos/{ODD}"
    assert (table["id"].dtype, table["score"].dtype, table["score_2"].dtype) == (
        "int64",
        "float64",
        "float64",
    )
    assert table["score"].tolist()[:6] == [0.75, 0.875, 0.5, 0.625, 0.5, 0.375]
    assert table["score"].isna().tolist() == [False] * 6 + [True, False]
    assert table["label"].isna().tolist() == [False] * 4 + [True] * 3 + [False]
    assert table["reason"][6] == "truncated; 3 bytes"


def test_pandas_gets_several_labels_as_lists():
    table = to_pandas(several())

    assert table["labels"].tolist() == [["=1", "cat"], ["dog"], []]
    assert list(to_pandas(of([])).columns) == [*to_pandas(all_kinds()).columns]


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'clipsearch\[parquet\]'"):
        write_table(all_kinds(), tmp_path / "a.parquet")
    with pytest.raises(MissingExtraError, match=r"pip install 'clipsearch\[parquet\]'"):
        read_table(tmp_path / "a.parquet")


def test_the_kind_that_is_asked_for_is_written_whatever_the_name_ends_in(tmp_path):
    written = all_kinds().to_csv(tmp_path / "labels.txt")
    assert written == tmp_path / "labels.txt"
    assert written.read_bytes() == write_table(all_kinds(), tmp_path / "a.csv").read_bytes()

    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(all_kinds().to_parquet(tmp_path / "a.pq")).num_rows == len(all_kinds())


@pytest.mark.parametrize("make", [all_kinds, several, lambda: of([])])
def test_parquet_holds_the_same_rows(tmp_path, make):
    pytest.importorskip("pyarrow")
    visible = json.loads(json.dumps(make().to_dicts()).replace(r"\udce9", r"\\xe9"))

    assert read_table(write_table(make(), tmp_path / "a.parquet")) == visible


def test_parquet_is_typed_and_in_row_groups(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    with parquet.ParquetFile(write_table(many(), tmp_path / "a.parquet")) as file:
        kinds = {field.name: str(field.type) for field in file.schema_arrow}
        groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]

    assert groups == [10_000, 1]
    assert list(kinds) == list(all_kinds().to_dicts()[0])
    assert (kinds["id"], kinds["score"], kinds["path"]) == ("int64", "float", "string")
    assert kinds["labels"] in ("list<element: string>", "list<item: string>")
    assert "struct<label: string, score: float, cosine: float>" in kinds["guesses"]


def test_what_is_no_parquet_file_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_text("id,label\n")
    with pytest.raises(LabelError, match=r"a.parquet is no parquet file"):
        read_table(tmp_path / "a.parquet")


# An image folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_labelled_pictures_go_to_the_folder_of_their_label(on_disk, tmp_path):
    tree = image_folder(on_disk, tmp_path / "out")

    plain = [
        "cat/caf_.png",
        "cat/cat.png",
        "cat/two_lines.png",
        "=1+1/-dash.png",
        "개, _강아지_/자전거, _빨간_.png",
    ]
    assert files(tree.folder) == sorted([*plain, "labels.json", "metadata.jsonl"])
    assert (tree.linked, tree.copied, tree.folder) == (5, 0, tmp_path / "out")
    assert tree.failed == ((str(tmp_path / "photos/broken.png"), "truncated; 3 bytes"),)
    assert str(tree) == f"{tmp_path}/out: 5 linked, 0 copied, 1 failed"
    assert (tree.folder / "cat/cat.png").samefile(tmp_path / "photos/cat.png")
    assert json.loads((tree.folder / "labels.json").read_text()) == {
        "labels": list(NAMES),
        "folders": {"cat": "cat", "=1+1": "=1+1", "개, _강아지_": '개, "강아지"', "-x": "-x"},
    }
    rows = [json.loads(line) for line in (tree.folder / "metadata.jsonl").read_text().splitlines()]
    assert rows[2] == {
        "file_name": "개, _강아지_/자전거, _빨간_.png",
        "label": '개, "강아지"',
        "score": 0.5,
        "path": f'{tmp_path}/photos/자전거, "빨간".png',
    }
    assert rows[3]["path"].endswith(r"caf\xe9.png")


def test_unlabelled_pictures_come_when_asked_for(on_disk, tmp_path):
    tree = image_folder(on_disk, tmp_path / "out", unlabelled=True)

    assert {"_unknown/none.png", "_abstained/faint.png"} < set(files(tree.folder))
    assert tree.linked == 7
    rows = [json.loads(line) for line in (tree.folder / "metadata.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows if row["file_name"].startswith("_")] == [None, None]


def test_links_may_be_symbolic_or_none(on_disk, tmp_path):
    linked = image_folder(on_disk, tmp_path / "links", how="symlink")
    copied = image_folder(on_disk, tmp_path / "copies", how="copy")

    assert (linked.linked, linked.copied, copied.linked, copied.copied) == (5, 0, 0, 5)
    assert os.readlink(tmp_path / "links/cat/cat.png") == str(tmp_path / "photos/cat.png")
    assert (tmp_path / "copies/cat/cat.png").stat().st_nlink == 1
    assert (tmp_path / "copies/cat/cat.png").read_bytes() == png((20, 0, 0))


def test_a_hard_link_leads_to_the_file_not_to_a_link_to_it(tmp_path):
    (tmp_path / "real.png").write_bytes(png("red"))
    (tmp_path / "link.png").symlink_to("real.png")
    picture = a_picture(1, "link.png", source=str(tmp_path))
    image_folder(of([([0, 1], [1, 0], 0.0)], pictures=[picture]), tmp_path / "out")

    assert not (tmp_path / "out/cat/link.png").is_symlink()
    assert (tmp_path / "out/cat/link.png").samefile(tmp_path / "real.png")


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_across_disks_a_hard_link_becomes_a_copy(tmp_path):
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(dir="/dev/shm") as other:
        if os.stat(other).st_dev == os.stat(tmp_path).st_dev:
            pytest.skip("both folders are on one file system")
        (tmp_path / "a.png").write_bytes(png("blue"))
        picture = a_picture(1, "a.png", source=str(tmp_path), read=reader(tmp_path / "a.png"))
        tree = image_folder(of([([0, 1], [1, 0], 0.0)], pictures=[picture]), f"{other}/out")

        assert (tree.linked, tree.copied) == (0, 1)
        assert (tree.folder / "cat/a.png").read_bytes() == png("blue")


def ones(pictures, labels=NAMES):
    """Results that give all pictures the first label."""
    count = len(labels)
    row = (list(range(count)), [1, *[0] * (count - 1)], 0.0)
    return of([row] * len(pictures), labels=labels, pictures=pictures)


def test_pictures_of_one_name_are_numbered_in_order(tmp_path):
    keys = ["a/IMG.jpg", "b/IMG.jpg", "IMG (2).jpg", "c/img.JPG", "caf\u00e9.png", "d/cafe\u0301.png"]
    pictures = [a_picture(n, key) for n, key in enumerate(keys)]
    tree = image_folder(ones(pictures), tmp_path / "out")

    rows = [json.loads(line) for line in (tree.folder / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [
        "cat/IMG.jpg",
        "cat/IMG (2).jpg",
        "cat/IMG (2) (2).jpg",
        "cat/img (3).JPG",
        "cat/caf\u00e9.png",
        "cat/cafe\u0301 (2).png",
    ]
    assert tree.copied == 6


def test_labels_that_are_no_folder_names_get_ones():
    changed = {
        "a/b": "a_b",
        "a\\b": "a_b (2)",
        "A?B": "A_B (3)",
        "..": "_",
        ".hidden": "_hidden",
        "__init__": "_init__",
        "con": "_con",
        "Nul.x": "_Nul.x",
        "COM1": "_COM1",
        "console": "console",
        "end.": "end_",
        "end ": "end_ (2)",
        "Cat": "Cat",
        "cat": "cat (2)",
        "St. Bernard": "St. Bernard",
        "st. bernard": "st. bernard (2)",
        "_unknown": "_unknown (2)",
        "기차역": "기차역",
        "x" * 300: "x" * 200,
        "x" * 301: "x" * 200 + " (2)",
        "가" * 100: "가" * 66,
    }

    assert exports._folders(changed) == changed
    assert exports._folders(["train"]) == {"train": "train"}


def test_members_of_archives_and_pictures_in_memory_become_files(tmp_path):
    with ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("in/a.png", png("green"))
    zipped = str(tmp_path / "all.zip")
    pictures = [
        a_picture(1, "in/a.png", source=zipped, read=lambda: ZipFile(zipped).read("in/a.png")),
        a_picture(2, "b", source="")._replace(path="b", read=lambda: Image.new("L", (2, 2), 7)),
        a_picture(3, "c.dat", source="", read=lambda: png("blue")),
        a_picture(4, "d.jpg", source="", read=lambda: Image.new("RGB", (2, 2), "blue")),
    ]
    tree = image_folder(ones(pictures), tmp_path / "out")

    assert (tree.linked, tree.copied, tree.failed) == (0, 4, ())
    assert files(tree.folder)[:4] == ["cat/a.png", "cat/b.png", "cat/c.dat.png", "cat/d.jpg.png"]
    assert (tree.folder / "cat/a.png").read_bytes() == png("green")
    assert Image.open(tree.folder / "cat/b.png").getpixel((0, 0)) == (7, 7, 7)
    assert Image.open(tree.folder / "cat/c.dat.png").getpixel((0, 0)) == (0, 0, 255)


def test_a_picture_in_memory_is_not_taken_for_a_file_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(png("black"))
    picture = a_picture(1, "a.png", source="", read=lambda: png("white"))._replace(path="a.png")

    assert image_folder(ones([picture]), "out").copied == 1
    assert (tmp_path / "out/cat/a.png").read_bytes() == png("white")


def test_a_picture_that_cannot_be_read_now_is_counted(tmp_path):
    errors = [FileNotFoundError(2, "No such file or directory"), ImageError("encrypted"), SourceError("gone")]
    pictures = [a_picture(n, f"{n}.png", read=raises(error)) for n, error in enumerate(errors)]
    tree = image_folder(ones([*pictures, a_picture(9, "9.png")]), tmp_path / "out")

    reasons = ["No such file or directory", "encrypted", "gone"]
    assert tree.failed == tuple((f"/photos/{n}.png", reason) for n, reason in enumerate(reasons))
    assert (tree.copied, files(tree.folder)[0]) == (1, "cat/9.png")


def test_an_image_folder_overwrites_nothing(on_disk, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").write_text("mine")
    (tmp_path / "empty").mkdir()

    for taken in (tmp_path / "full", tmp_path / "full/a"):
        with pytest.raises(LabelError, match="is there already; expected an absent or empty folder"):
            image_folder(on_disk, taken)
    assert files(tmp_path / "full") == ["a"]
    assert image_folder(on_disk, tmp_path / "empty").linked == 5


def test_an_image_folder_is_for_one_label_a_picture(tmp_path):
    with pytest.raises(LabelError, match=r"can be in one folder only: write_table to a .jsonl file"):
        image_folder(several(), tmp_path / "out")
    with pytest.raises(LabelError, match="found how='move'; expected one of 'link', 'symlink', 'copy'"):
        image_folder(all_kinds(), tmp_path / "out", how="move")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_cannot_be_written_stops_it(tmp_path):
    with pytest.raises(CollectionError, match="cannot write"):
        exports._write(tmp_path / "absent/a.png", b"")


# Label Studio


def test_label_studio_gets_a_task_for_every_picture(tmp_path):
    found = label_studio(all_kinds(), tmp_path / "tasks.json", root="/")
    tasks = json.loads(found.read_text())

    assert found == tmp_path / "tasks.json"
    assert tasks[1] == {
        "data": {
            "image": "/data/local-files/?d=photos/-dash.png",
            "id": 2,
            "path": "/photos/-dash.png",
            "verdict": "labelled",
            "reason": "",
        },
        "predictions": [
            {
                "model_version": "tiny/random",
                "score": 0.875,
                "result": [
                    {
                        "id": "picture-2",
                        "type": "choices",
                        "from_name": "choice",
                        "to_name": "image",
                        "value": {"choices": ["=1+1"]},
                    }
                ],
            }
        ],
    }
    assert [len(task["predictions"]) for task in tasks] == [1, 1, 1, 1, 0, 0, 0, 1]
    assert tasks[6]["data"]["reason"] == "truncated; 3 bytes"
    paths = [parse_qs(urlsplit(task["data"]["image"]).query, errors="surrogateescape")["d"] for task in tasks]
    assert paths == [[f"photos/{key}"] for key in KEYS]
    assert tasks[3]["data"]["image"].endswith("/caf%E9.png")


def test_the_labelling_setup_knows_every_label(tmp_path):
    label_studio(all_kinds(), tmp_path / "tasks.json", root="/photos")
    label_studio(several(), tmp_path / "several.json", root="/photos")

    setup = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    assert [choice.get("value") for choice in setup.iter("Choice")] == list(NAMES)
    assert setup.find("Choices").attrib == {"name": "choice", "toName": "image", "choice": "single"}
    assert setup.find("Image").attrib == {"name": "image", "value": "$image"}
    several_setup = ElementTree.parse(tmp_path / "several.xml").getroot()
    assert several_setup.find("Choices").get("choice") == "multiple"
    tasks = json.loads((tmp_path / "several.json").read_text())
    assert tasks[0]["predictions"][0]["result"][0]["value"] == {"choices": ["=1", "cat"]}


def test_another_server_has_its_own_addresses(tmp_path):
    path = label_studio(
        ones([a_picture(1, "a b/ü#.jpg")]), tmp_path / "t.json", root="/photos/", url_prefix="https://x/"
    )

    assert json.loads(path.read_text())[0]["data"]["image"] == "https://x/a%20b/%C3%BC%23.jpg"


def test_pictures_that_label_studio_could_not_see_are_refused(tmp_path):
    with pytest.raises(LabelError, match=r"found root='/other'; expected a folder above '/photos/cat.png'"):
        label_studio(all_kinds(), tmp_path / "t.json", root="/other")
    with pytest.raises(LabelError, match=r"found the name 't.csv'; expected one that ends in .json"):
        label_studio(all_kinds(), tmp_path / "t.csv", root="/")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", [fiftyone, lambda results, path: label_studio(results, path, root="/")])
def test_members_of_archives_are_refused_where_files_are_needed(tmp_path, write):
    (tmp_path / "all.zip").write_bytes(b"")
    member = a_picture(1, "a.png", source=str(tmp_path / "all.zip"))
    given = a_picture(1, "a.png", source="")._replace(path="a.png")
    for picture in (member, given):
        with pytest.raises(
            LabelError, match=r"a.png' is no file of its own, which other tools need: image_folder"
        ):
            write(ones([picture]), tmp_path / "t.json")


# FiftyOne


def test_fiftyone_gets_positions_confidences_and_reasons(tmp_path):
    found = fiftyone(all_kinds(), tmp_path / "labels.json")

    assert json.loads(found.read_text()) == {
        "classes": list(NAMES),
        "labels": {
            "/photos/cat.png": {"label": 0, "confidence": 0.75},
            "/photos/-dash.png": {"label": 1, "confidence": 0.875},
            '/photos/자전거, "빨간".png': {"label": 2, "confidence": 0.5},
            "/photos/none.png": None,
            "/photos/faint.png": None,
            "/photos/broken.png": None,
            "/photos/two\nlines.png": {"label": 0, "confidence": 1.0},
        },
        "reasons": {
            r"/photos/caf\xe9.png": "its name is not UTF-8",
            "/photos/broken.png": "truncated; 3 bytes",
        },
    }


def test_fiftyone_gets_several_labels_as_a_list(tmp_path):
    assert json.loads(fiftyone(several(), tmp_path / "labels.json").read_text())["labels"] == {
        "/photos/0.png": [{"label": 2, "confidence": 1.0}, {"label": 0, "confidence": 0.75}],
        "/photos/1.png": [{"label": 1, "confidence": 0.5}],
        "/photos/2.png": None,
    }
    with pytest.raises(LabelError, match=r"ends in .json"):
        fiftyone(several(), tmp_path / "labels.txt")


def test_the_rows_of_these_tests_have_every_verdict():
    assert {Verdict(verdict) for verdict in all_kinds().verdicts} == set(Verdict)
