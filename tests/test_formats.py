"""Vectors in the files of other programs: what they read of ours, and what we read of theirs."""

import json
import os
import shutil
import sqlite3
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch.errors import CollectionError, ModelError, ModelMismatchError, SourceError
from clipsearch.formats import clip_retrieval, importing, outgoing, rclip
from clipsearch.sources.disk import file_item
from clipsearch.testing import COLOURS, ColourEncoder, ColourVLM
from clipsearch.types import Item

BOTH_WAYS = ["clip-retrieval", "npy", "parquet"]
ODD = os.fsdecode(b"odd-\xff.png")  # no UTF-8
KNOWN = {
    "red.png": {"title": "빨간 사각형", "rating": 5, "tags": ["따뜻한", "warm"], "vector": "mine"},
    "blue.png": {"title": "파랑", "rating": 2.5, "tags": [], "extra": {"a": [1, "b"]}},
    "green.png": {"rating": None, "seen": True, "mixed": 1},
    "white.png": {"mixed": "one", "seen": False},
}


class Described:
    """The pictures of a folder, with metadata that nobody could read off the files."""

    kind, root, lists_all, options = "described", "here", False, {}

    def __init__(self, folder):
        self.folder = folder

    def items(self):
        for path in sorted(self.folder.iterdir()):
            found = file_item(str(path), str(path))
            yield Item(found.key, found.read, found.stamp, KNOWN.get(path.name, {}))

    def item(self, key):
        return file_item(key, key)

    def path(self, key):
        return key


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "그림"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
    (folder / "red again.png").write_bytes((folder / "red.png").read_bytes())
    if sys.platform == "linux":
        (folder / ODD).write_bytes((folder / "cyan.png").read_bytes())
    return folder


@pytest.fixture
def photos(tmp_path, folder):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        photos.add(Described(folder))
        yield photos


@pytest.fixture
def other(tmp_path):
    with cs.Collection(tmp_path / "other", model=ColourEncoder()) as other:
        yield other


def answers(photos, **options):
    """Every picture's path and score for one query."""
    return sorted((hit.path, round(hit.score, 6)) for hit in photos.search("red", k=50, **options))


def exported(photos, tmp_path, format, **options):
    path = tmp_path / f"out-{format}"
    return photos.export(path, format=format, **options).path


def _told(metadata):
    return {name: value for name, value in metadata.items() if value is not None}


# ---------------------------------------------------------------------- there and back


@pytest.mark.parametrize("format", BOTH_WAYS)
def test_there_and_back_the_same_pictures_have_the_same_scores_and_metadata(photos, other, tmp_path, format):
    report = other.import_vectors(exported(photos, tmp_path, format), format=format)

    assert (report.added + report.same_content, report.failed, report.gone) == (len(photos), [], 0)
    assert answers(other) == answers(photos)
    before = {hit.path: hit.metadata for hit in photos.search("red", k=50)}
    after = {hit.path: hit.metadata for hit in other.search("red", k=50)}
    assert after.keys() == before.keys()
    for path, known in before.items():
        assert _told(after[path]) == _told(known)
    assert other.models == ["colour"]


@pytest.mark.parametrize("format", BOTH_WAYS)
def test_adding_the_same_files_after_an_import_encodes_nothing(photos, other, folder, tmp_path, format):
    other.import_vectors(exported(photos, tmp_path, format), format=format)
    files = [folder / name for name in sorted(os.listdir(folder))]

    listed = other.add(files)
    walked = other.add(folder)

    assert (listed.unchanged, listed.encoded) == (len(files), 0)
    assert (walked.moved, walked.encoded) == (len(files), 0), "the folder takes over what was listed"


@pytest.mark.parametrize("format", BOTH_WAYS)
def test_only_what_passes_where_is_exported(photos, other, tmp_path, format):
    path = exported(photos, tmp_path, format, where="rating >= 2")
    other.import_vectors(path, format=format)
    names = sorted(Path(place).name for place in other.paths().values())
    assert names == ["blue.png", "red.png"]
    assert answers(other) == answers(photos, where="rating >= 2")


@pytest.mark.parametrize("format", BOTH_WAYS)
def test_no_picture_at_all_goes_both_ways(photos, other, tmp_path, format):
    path = exported(photos, tmp_path, format, where="rating = 99")
    report = other.import_vectors(path, format=format)
    assert (report.added, report.failed, len(other)) == (0, [], 0)
    assert list(other.search("red")) == []
    assert other.info()["models"][0]["dim"] == 3


@pytest.mark.parametrize("format", BOTH_WAYS)
def test_pictures_are_written_and_read_in_blocks(photos, other, tmp_path, format, monkeypatch):
    for module in (outgoing, clip_retrieval):
        monkeypatch.setattr(module, "TOGETHER", 2)
    monkeypatch.setattr("clipsearch.formats.npy.TOGETHER", 2)
    monkeypatch.setattr("clipsearch.formats.parquet.TOGETHER", 2)
    sizes = []
    take = importing._Import.take
    monkeypatch.setattr(
        importing._Import, "take", lambda self, rows, v: (sizes.append(len(rows)), take(self, rows, v))
    )
    other.import_vectors(exported(photos, tmp_path, format), format=format)
    assert max(sizes) == 2 and sum(sizes) == len(photos)
    assert answers(other) == answers(photos)


def test_captions_leave_with_their_pictures(other, tmp_path, folder):
    other.add(folder)
    other.caption(ColourVLM())
    path = exported(other, tmp_path, "clip-retrieval")
    with cs.Collection(tmp_path / "third", model=ColourEncoder()) as third:
        third.import_vectors(path, format="clip-retrieval")
        assert third.search("red", k=1)[0].metadata["caption"] == "a red picture"


def test_a_caption_of_the_users_own_leaves_before_that_of_a_captioner(other, tmp_path, folder):
    (folder / "red.txt").write_text("mine")
    other.add(folder)
    other.caption(ColourVLM())
    lines = map(json.loads, (exported(other, tmp_path, "npy") / "items.jsonl").read_text().splitlines())
    captions = {Path(line["path"]).name: line["metadata"]["caption"] for line in lines}
    assert (captions["red.png"], captions["blue.png"]) == ("mine", "a blue picture")


OURS = [
    "id",
    "path",
    "path_bytes",
    "key",
    "source",
    "content_sha256",
    "vector",
    "image_path",
    "filepath",
    "file_name",
    "uri",
]
METADATA = {
    "a whole number no float is, and a float": [{"a": 2**53 + 1}, {"a": 2.5}],
    "the same the other way round": [{"a": 2.5}, {"a": 2**53 + 1}, {"a": 3.5}],
    "lists of these": [{"a": [2**53 + 1]}, {"a": [2.5]}],
    "small and large numbers": [{"a": 1}, {"a": 2**63 - 1}, {"a": -(2**63)}],
    "too large for Arrow": [{"a": 2**63}, {"a": 1}],
    "names of our own columns": [dict.fromkeys(OURS, "mine"), {f"metadata_{name}": name for name in OURS}],
    "names of vectors": [{"embedding": [0.5, 1.5], "embeddings": "mine"}, {"embedding": [2.0]}],
    "no name": [{"": 1, " ": 2}],
}


@pytest.mark.parametrize("format", BOTH_WAYS)
@pytest.mark.parametrize("case", METADATA)
def test_metadata_come_back_as_they_were(other, tmp_path, format, case):
    items = [
        Item(f"{n}.png", lambda n=n: Image.new("RGB", (8, 8), (9 * n, 0, 0)), "1", known)
        for n, known in enumerate(METADATA[case])
    ]
    other.add(items)
    path = exported(other, tmp_path, format)
    with cs.Collection(tmp_path / "third", model=ColourEncoder()) as third:
        third.import_vectors(path, format=format)
        back = {hit.path: hit.metadata for hit in third.search("red")}
    for n, known in enumerate(METADATA[case]):
        came = {name: back[f"{n}.png"].get(name) for name in known}
        assert repr(came) == repr(known)


def test_names_of_which_one_looks_like_the_other_are_two_columns(other, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow")
    other.add([Item("a", lambda: Image.new("RGB", (8, 8)), "1", {"\udcff": 1, "\\xff": 2})])
    table = parquet.read_table(exported(other, tmp_path, "parquet")).to_pylist()
    assert (table[0]["\\xff"], table[0]["\\xff_"]) == (2, 1)


# ---------------------------------------------------------------------- what other programs read


def test_clip_retrievals_own_reader_reads_every_partition(photos, tmp_path, monkeypatch):
    reader = pytest.importorskip(
        "embedding_reader", reason="pip install embedding-reader: wants pandas below 3"
    )
    monkeypatch.setattr(clip_retrieval, "PARTITION", 4)
    monkeypatch.setattr(outgoing, "TOGETHER", 3)
    folder = exported(photos, tmp_path, "clip-retrieval")

    read = reader.EmbeddingReader(
        embeddings_folder=str(folder / "img_emb"),
        metadata_folder=str(folder / "metadata"),
        meta_columns=["id", "title"],
        file_format="parquet_npy",
    )
    blocks = list(read(batch_size=4, show_progress=False))
    vectors = np.concatenate([vectors for vectors, _ in blocks])
    ids = [id for _, known in blocks for id in known["id"]]

    wanted, expected = photos.embeddings()
    assert ids == wanted
    np.testing.assert_array_equal(vectors, expected)
    parts = [np.load(path) for path in sorted((folder / "img_emb").iterdir())]
    assert [len(part) for part in parts][:2] == [4, 4] and parts[0].dtype == np.float16


def test_partitions_are_numbered_as_clip_retrieval_numbers_them(photos, tmp_path, monkeypatch):
    photos.add([("tenth", Image.new("RGB", (8, 8), "tan"))])
    photos.remove(*list(photos.paths())[: len(photos) - 10])
    for name, size, last in (("ten", 1, "img_emb_09.npy"), ("one", 1_000_000, "img_emb_0.npy")):
        monkeypatch.setattr(clip_retrieval, "PARTITION", size)
        photos.export(tmp_path / name, format="clip-retrieval")
        names = sorted(path.name for path in (tmp_path / name / "img_emb").iterdir())
        digits = int(np.log10(len(names))) + 1  # the formula of its writer
        assert names == [f"img_emb_{number:0{digits}d}.npy" for number in range(len(names))]
        assert last == names[-1]


def test_npy_is_an_array_and_a_line_for_each_of_its_rows(photos, tmp_path):
    folder = exported(photos, tmp_path, "npy")
    ids, vectors = photos.embeddings()
    lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    np.testing.assert_array_equal(np.load(folder / "vectors.npy"), vectors)
    assert [line["id"] for line in lines] == ids
    assert {line["path"] for line in lines} == set(photos.paths().values())
    about = json.loads((folder / "clipsearch.json").read_text())
    assert (about["model"], about["fingerprint"], about["dim"]) == ("colour", "colour-1", 3)
    assert (about["n"], about["dtype"]) == (len(ids), "float32")


def test_duckdb_reads_the_parquet_file(photos, tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="pip install duckdb")
    path = exported(photos, tmp_path, "parquet")
    ids, vectors = photos.embeddings()
    query = f"SELECT id, vector, rating FROM read_parquet('{path}') WHERE title = '빨간 사각형'"
    with duckdb.connect() as db:
        ((id, vector, rating),) = db.execute(query).fetchall()
        best = db.execute(
            "SELECT path FROM read_parquet(?) ORDER BY"
            " array_inner_product(vector::FLOAT[3], [1, 0, 0]::FLOAT[3]) DESC, id LIMIT 1",
            [str(path)],
        ).fetchone()[0]
    np.testing.assert_array_equal(np.float32(vector), vectors[ids.index(id)])
    assert rating == 5 and best == photos.search("red", k=1)[0].path


def test_lancedb_searches_the_parquet_file(photos, tmp_path):
    lancedb = pytest.importorskip("lancedb", reason="pip install lancedb: too large for CI")
    from pyarrow import parquet

    table = parquet.read_table(exported(photos, tmp_path, "parquet"))
    found = lancedb.connect(tmp_path / "lance").create_table("photos", table).search([1.0, 0.0, 0.0])
    assert found.limit(1).to_list()[0]["path"] in {
        hit.path for hit in photos.search(embedding=[1, 0, 0], k=2)
    }


def test_hugging_face_datasets_load_the_parquet_file(photos, tmp_path):
    datasets = pytest.importorskip("datasets", reason="pip install datasets: too large for CI")
    path = str(exported(photos, tmp_path, "parquet"))
    table = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=str(tmp_path / "hf"))
    ids, vectors = photos.embeddings()
    assert table["id"][:] == ids
    np.testing.assert_array_equal(np.array(table["vector"][:], np.float32), vectors)
    assert table.features["vector"].length == 3


def test_parquet_columns_have_the_types_of_what_they_hold(photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow")
    schema = parquet.read_schema(exported(photos, tmp_path, "parquet"))
    types = {field.name: str(field.type) for field in schema}
    assert types["vector"] == "fixed_size_list<element: float>[3]"
    assert (types["title"], types["rating"], types["seen"]) == ("string", "double", "bool")
    assert types["tags"] == "list<element: string>"
    assert (types["mixed"], types["extra"], types["metadata_vector"]) == ("string", "string", "string")


def test_the_faiss_file_finds_what_exact_search_finds(photos, tmp_path):
    import faiss

    path = photos.export(tmp_path / "photos.faiss", format="faiss").path
    index = faiss.read_index(str(path))
    said = json.loads(path.with_suffix(".json").read_text())
    ids, vectors = photos.embeddings()
    query = ColourEncoder().encode_texts(["red"])

    scores, places = index.search(query, len(ids))

    assert said["ids"] == ids and (said["n"], said["dim"], said["model"]) == (len(ids), 3, "colour")
    by_id = {ids[place]: score for place, score in zip(places[0], scores[0], strict=True)}
    for id, score in zip(ids, vectors @ query[0], strict=True):
        assert by_id[id] == pytest.approx(score, abs=1e-6)


# ---------------------------------------------------------------------- what others wrote


@pytest.fixture
def theirs(tmp_path, folder):
    """What clip-retrieval's inference writes: two parts, float16, names and numbers of its own."""
    pyarrow = pytest.importorskip("pyarrow", reason="pip install pyarrow")
    from pyarrow import parquet

    root = tmp_path / "embeddings"
    for name in ("img_emb", "metadata", "text_emb", "stats"):
        (root / name).mkdir(parents=True)
    names = ["red.png", "green.png", "blue.png"]
    vectors = ColourEncoder().encode_images([Image.open(folder / name).convert("RGB") for name in names])
    for number, part in enumerate((slice(0, 2), slice(2, 3))):
        np.save(root / "img_emb" / f"img_emb_{number}.npy", vectors[part].astype(np.float16))
        table = pyarrow.table(
            {
                "image_path": [str(folder / name) for name in names[part]],
                "caption": ["a red one", None, "a blue one"][part],
                "url": [f"https://example.org/{name}" for name in names[part]],
                "width": [8, 8, 8][part],
            }
        )
        parquet.write_table(table, root / "metadata" / f"metadata_{number}.parquet")
    return root


def test_what_clip_retrieval_wrote_is_searched_with_the_model_that_is_named(theirs, tmp_path, folder):
    with cs.Collection(tmp_path / "other", model=ColourEncoder()) as other:
        report = other.import_vectors(theirs, format="clip-retrieval")
        assert (report.added, report.gone, other.models) == (3, 0, ["foreign:colour"])
        (hit,) = other.search("blue", k=1)
        assert hit.path == str(folder / "blue.png") and hit.score == pytest.approx(1, abs=1e-3)
        assert hit.metadata["caption"] == "a blue one"
        assert hit.metadata["url"] == "https://example.org/blue.png"
        assert hit.image().getpixel((0, 0)) == (0, 0, 255)


def test_vectors_of_nobody_knows_which_model_are_refused(theirs, tmp_path, folder):
    from clipsearch.store import Store

    Store.create(tmp_path / "other").close()
    with cs.Collection(tmp_path / "other") as other, pytest.raises(ModelError, match="does not say"):
        other.import_vectors(theirs, format="clip-retrieval")


def test_our_encoders_vectors_are_never_put_among_foreign_ones(theirs, other, folder):
    other.import_vectors(theirs, format="clip-retrieval")
    known = [folder / f"{name}.png" for name in ("red", "green", "blue")]
    assert other.add(known).encoded == 0
    with pytest.raises(ModelMismatchError, match="another program"):
        other.add(folder)
    assert other.info()["models"][0]["vectors"] == 3

    other.add_model(ColourEncoder())
    other.use_model(ColourEncoder())
    assert sorted(other.models) == ["colour", "foreign:colour"] and other.model == "colour"
    assert [space["vectors"] for space in other.info()["models"]] == [3, len(COLOURS)]


def test_only_use_model_switches_from_foreign_vectors_to_our_own(other, folder, tmp_path):
    lines = [{"path": path} for path in (str(folder / "red.png"), "/g/b", "/g/c")]
    other.import_vectors(npy(tmp_path / "n", np.eye(3), lines), format="npy")
    other.add_model(ColourEncoder())
    assert other.model == "foreign:colour" and len(other.search("red", k=9)) == 3
    with cs.Collection(tmp_path / "other", model=ColourEncoder(), read_only=True) as again:
        assert again.model == "foreign:colour"
    other.remove(where="source = '(gone)'")
    other.use_model(ColourEncoder())
    assert other.model == "colour" and len(other.search("red", k=9)) == 1


def test_a_collection_of_foreign_vectors_opens_again_under_either_name(theirs, other, tmp_path):
    other.import_vectors(theirs, format="clip-retrieval")
    with cs.Collection(tmp_path / "other") as again:
        assert again.model == "foreign:colour" and len(again) == 3
    with cs.Collection(tmp_path / "other", model=ColourEncoder()) as again:
        assert again.search("red", k=1)[0].key.endswith("red.png")


def test_foreign_vectors_stay_foreign_on_their_way_through_our_formats(theirs, other, tmp_path):
    other.import_vectors(theirs, format="clip-retrieval")
    other.export(tmp_path / "npy", format="npy")
    with cs.Collection(tmp_path / "third", model=ColourEncoder()) as third:
        third.import_vectors(tmp_path / "npy", format="npy", model=ColourEncoder())
        assert third.models == ["foreign:colour"]


def test_parts_of_different_lengths_are_refused_before_anything_is_written(theirs, other):
    vectors = np.load(theirs / "img_emb" / "img_emb_0.npy")
    np.save(theirs / "img_emb" / "img_emb_0.npy", vectors[:1])
    with pytest.raises(SourceError, match="2 rows for the 1 vectors"):
        other.import_vectors(theirs, format="clip-retrieval")
    assert other.models == []


def test_parts_of_different_dimensions_are_refused(theirs, other):
    vectors = np.load(theirs / "img_emb" / "img_emb_0.npy")
    np.save(theirs / "img_emb" / "img_emb_0.npy", np.pad(vectors, ((0, 0), (0, 1))))
    with pytest.raises(SourceError, match=r"vectors of \[3, 4\] numbers; expected one dimension"):
        other.import_vectors(theirs, format="clip-retrieval")


def database(path, rows, version=4):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE db_version (version INTEGER)")
        db.execute("INSERT INTO db_version VALUES (?)", (version,))
        db.execute(
            "CREATE TABLE images (id INTEGER PRIMARY KEY, deleted BOOLEAN, filepath TEXT NOT NULL UNIQUE,"
            " modified_at DATETIME, size INTEGER, vector BLOB, indexing BOOLEAN, hash TEXT)"
        )
        db.executemany("INSERT INTO images (filepath, deleted, size, vector) VALUES (?, ?, ?, ?)", rows)
    db.close()
    return path


def test_the_database_of_rclip_is_read_and_left_as_it_is(tmp_path, folder):
    from clipsearch.store import Store

    vectors = np.eye(4, 512, dtype=np.float32)
    vectors[3] = 0
    red, gone = folder / "red.png", "/no/such/picture.jpg"
    path = database(
        tmp_path / "db.sqlite3",
        [
            (str(red), None, red.stat().st_size, vectors[0].tobytes()),
            (gone, None, 100, vectors[1].tobytes()),
            (str(folder / "green.png"), 1, 9, vectors[2].tobytes()),
            (str(folder / "blue.png"), None, 9, vectors[2].tobytes()),
            ("/no/direction.jpg", None, 100, vectors[3].tobytes()),
            ("/too/short.jpg", None, 100, b"1234"),
        ],
    )
    before = path.read_bytes()
    Store.create(tmp_path / "r").close()
    with cs.Collection(tmp_path / "r") as photos:
        report = photos.import_vectors(path, format="rclip")

        assert photos.models == [f"foreign:{rclip.MODEL}"] and photos.info()["models"][0]["fingerprint"] == ""
        assert (report.added, report.gone) == (2, 1)
        reasons = {failure.path: failure.reason for failure in report.failed}
        assert set(reasons) == {str(folder / "blue.png"), "/no/direction.jpg", "/too/short.jpg"}
        assert "changed" in reasons[str(folder / "blue.png")]
        (hit,) = photos.search(embedding=vectors[1], k=1)
        assert (hit.path, hit.source, round(hit.score, 5)) == (gone, "(gone)", 1)
        with pytest.raises(SourceError, match="no longer where it was"):
            hit.image()
    assert path.read_bytes() == before


def test_what_rclip_made_before_its_third_version_is_of_its_older_model(tmp_path):
    path = database(tmp_path / "db.sqlite3", [("/a.jpg", None, 1, np.ones(512, "<f4").tobytes())], version=2)
    assert rclip.read(path).model == "ViT-B-32-quickgelu/openai"


def test_a_file_that_is_no_database_is_refused_by_name(tmp_path, other):
    (tmp_path / "db.sqlite3").write_bytes(b"no database at all")
    with pytest.raises(SourceError, match=r"db\.sqlite3"):
        other.import_vectors(tmp_path / "db.sqlite3", format="rclip")


# ---------------------------------------------------------------------- what may be wrong


def npy(folder, vectors, lines, **about):
    folder.mkdir()
    np.save(folder / "vectors.npy", vectors)
    (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if about:
        (folder / "clipsearch.json").write_text(json.dumps(about))
    return folder


def test_a_row_that_is_not_finite_fails_alone(tmp_path, other, folder):
    red, blue, green = (str(folder / f"{name}.png") for name in ("red", "blue", "green"))
    vectors = [[1, 0, 0], [np.nan, 0, 1], [0, np.inf, 0]]
    source = npy(tmp_path / "n", np.float32(vectors), [{"path": path} for path in (red, blue, green)])
    report = other.import_vectors(source, format="npy")
    assert report.added == 1 and [failure.path for failure in report.failed] == [blue, green]
    assert [failure.path for failure in other.failures()] == [blue, green]
    assert "not finite" in report.failed[0].reason


def test_a_row_that_fails_takes_no_vector_from_a_picture_that_has_one(photos, tmp_path, other):
    other.import_vectors(exported(photos, tmp_path, "npy"), format="npy")
    before = answers(other)
    path = photos.search("red", k=1)[0].path
    os.utime(path, ns=(1, 1))  # so that it must be looked at again
    about = {"model": "colour", "fingerprint": "colour-1"}
    bad = npy(tmp_path / "bad", np.full((1, 3), np.nan), [{"path": path}], **about)
    assert len(other.import_vectors(bad, format="npy").failed) == 1
    assert answers(other) == before


def test_vectors_of_any_length_are_normalised_and_counted(tmp_path, other):
    vectors = np.array([[3, 0, 4], [0, 1, 0], [0, 0, 1.00098], [0, 1.00195, 0]])  # two are float16's
    source = npy(tmp_path / "n", vectors, [{"path": f"/gone/{n}.jpg"} for n in range(4)])
    report = other.import_vectors(source, format="npy")
    assert report.normalised == 2 and "2 vectors were normalised" in str(report)
    _, stored = other.embeddings()
    np.testing.assert_allclose(stored, [[0.6, 0, 0.8], [0, 1, 0], [0, 0, 1.00098], [0, 1, 0]], atol=3e-4)


def test_vectors_of_another_model_or_dimension_are_refused(photos, tmp_path, other):
    about = {"model": "another", "fingerprint": "1"}
    source = npy(tmp_path / "a", np.ones((1, 3)), [{"path": "/a"}], **about)
    for collection in (photos, other):
        with pytest.raises(ModelMismatchError, match="another"):
            collection.import_vectors(source, format="npy")
    wide = npy(tmp_path / "b", np.ones((1, 4)), [{"path": "/a"}], model="colour", fingerprint="colour-1")
    with pytest.raises(ModelMismatchError, match="4 dimensions"):
        photos.import_vectors(wide, format="npy")
    retrained = npy(
        tmp_path / "retrained", np.ones((1, 3)), [{"path": "/a"}], model="colour", fingerprint="colour-2"
    )
    with pytest.raises(ModelMismatchError, match="colour-2"):
        photos.import_vectors(retrained, format="npy")
    with pytest.raises(ModelMismatchError, match="not of 'other'"):
        photos.import_vectors(wide, format="npy", model=type("", (ColourEncoder,), {"model_id": "other"})())
    unclear = npy(tmp_path / "unclear", np.ones((1, 3)), [{"path": "/a"}], model="colour", dim=4)
    with pytest.raises(SourceError, match="expected 4"):
        photos.import_vectors(unclear, format="npy")
    assert len(photos.models) == 1 and other.models == []


def test_foreign_vectors_of_two_models_are_not_mixed_either(tmp_path):
    from clipsearch.store import Store

    source = npy(tmp_path / "n", np.ones((1, 512)), [{"path": "/a"}])
    Store.create(tmp_path / "f").close()
    with cs.Collection(tmp_path / "f") as photos:
        photos.import_vectors(source, format="npy", model="ViT-B-32/openai")
        with pytest.raises(ModelMismatchError, match="ViT-B-16"):
            photos.import_vectors(source, format="npy", model="ViT-B-16/openai")
    for name in ("ViT-B/32,openai", "foreign:ViT-B-32/openai"):
        with cs.Collection(tmp_path / "f", model=name) as again:
            assert (again.model, len(again)) == ("foreign:ViT-B-32/openai", 1)


def test_foreign_vectors_are_searched_by_words_with_their_model(tmp_path, folder):
    encoder = cs.load_encoder("builtin")
    names = ["red.png", "blue.png"]
    vectors = encoder.encode_images([Image.open(folder / name).convert("RGB") for name in names])
    source = npy(tmp_path / "n", vectors, [{"path": str(folder / name)} for name in names])
    with cs.Collection(tmp_path / "made", model="builtin") as photos:
        photos.import_vectors(source, format="npy")
    with cs.Collection(tmp_path / "made") as again:
        cosines = vectors @ again.encode_texts(["something blue"])[0]
        found = {Path(hit.path).name: hit.score for hit in again.search("something blue")}
        assert again.model == "foreign:builtin"
    assert found == pytest.approx(dict(zip(names, cosines.tolist(), strict=True)), abs=1e-3)


def test_a_file_that_changed_since_the_export_is_left_to_add(photos, tmp_path, other, folder):
    path = exported(photos, tmp_path, "npy")
    Image.new("RGB", (8, 8), "blue").save(folder / "red.png")
    report = other.import_vectors(path, format="npy")
    assert [failure.path for failure in report.failed] == [str(folder / "red.png")]
    assert other.add([folder / "red.png"]).failed == []
    assert str(folder / "red.png") in [hit.path for hit in other.search("blue", k=2)]


def test_a_gone_picture_is_found_by_its_path_and_becomes_a_file_again(photos, tmp_path, other, folder):
    path = exported(photos, tmp_path, "parquet")
    away = tmp_path / "away"
    folder.rename(away)
    report = other.import_vectors(path, format="parquet")
    assert report.gone == len(photos) and answers(other) == answers(photos)
    (hit,) = other.search("green", k=1)
    assert hit.path == str(folder / "green.png") and hit.source == "(gone)"
    with pytest.raises(SourceError, match="no longer where it was"):
        hit.image()
    assert other.refresh() == [] and len(other) == len(photos)

    away.rename(folder)
    again = other.import_vectors(path, format="parquet")
    assert (again.gone, len(other)) == (0, len(photos)) and answers(other) == answers(photos)
    assert other.search("green", k=1)[0].image().getpixel((0, 0)) == COLOURS["green"]
    assert other.paths(where="source = '(gone)'") == {}


def test_a_gone_picture_whose_folder_is_added_is_that_picture(photos, tmp_path, other, folder):
    path = exported(photos, tmp_path, "npy")
    folder.rename(tmp_path / "away")
    other.import_vectors(path, format="npy")
    (tmp_path / "away").rename(folder)
    report = other.add(folder)
    assert (report.moved, report.encoded, len(other)) == (len(photos), 0, len(photos))
    (hit,) = other.search("green", k=1)
    assert hit.source == str(folder) and hit.image().getpixel((0, 0)) == COLOURS["green"]


def test_a_content_of_a_file_and_of_a_picture_that_is_gone_has_one_vector(photos, tmp_path, other, folder):
    path = exported(photos, tmp_path, "npy")
    (folder / "red again.png").unlink()
    assert other.import_vectors(path, format="npy").gone == 1
    assert other.info()["models"][0]["vectors"] == len(COLOURS)
    assert answers(other) == answers(photos)


def test_a_foreign_picture_that_was_gone_is_one_item_when_it_is_there(tmp_path, other):
    there = tmp_path / "late.png"
    source = npy(tmp_path / "n", np.eye(3)[:1], [{"path": str(there)}])
    assert other.import_vectors(source, format="npy").gone == 1
    Image.new("RGB", (8, 8), "red").save(there)
    assert other.import_vectors(source, format="npy").gone == 0
    assert len(other) == 1 and other.search("red")[0].image().size == (8, 8)


def test_members_of_an_archive_are_gone_until_the_archive_is_added(other, tmp_path, folder):
    (folder / ODD).unlink(missing_ok=True)  # which zipfile does not write
    archive = Path(shutil.make_archive(tmp_path / "pictures", "zip", folder))
    other.add(archive)
    path = exported(other, tmp_path, "parquet")
    with cs.Collection(tmp_path / "third", model=ColourEncoder()) as third:
        assert third.import_vectors(path, format="parquet").gone == len(other)
        assert answers(third) == answers(other)
        assert third.add(archive).encoded == 0
        assert third.search("blue", k=1)[0].image().getpixel((0, 0)) == (0, 0, 255)


def test_importing_twice_changes_nothing(photos, tmp_path, other):
    path = exported(photos, tmp_path, "npy")
    other.import_vectors(path, format="npy")
    for place in other.paths().values():
        if place.endswith("green.png"):
            os.utime(place, ns=(1, 1))  # so that it is read again
    again = other.import_vectors(path, format="npy")
    assert (again.added, again.unchanged) == (0, len(photos))
    assert other.info()["models"][0]["vectors"] == len(set(COLOURS.values()))


def test_relative_paths_begin_at_the_root_that_is_named(tmp_path, folder, other):
    source = npy(tmp_path / "n", np.eye(3)[:1], [{"path": "red.png"}])
    report = other.import_vectors(source, format="npy", root=folder)
    assert report.gone == 0 and list(other.paths().values()) == [str(folder / "red.png")]


def test_a_folder_with_something_in_it_is_not_written_to(photos, folder):
    before = sorted(os.listdir(folder))
    for format in ("npy", "clip-retrieval"):
        with pytest.raises(CollectionError, match="absent or empty"):
            photos.export(folder, format=format)
    assert sorted(os.listdir(folder)) == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of a process")
@pytest.mark.parametrize("format", ["npy", "clip-retrieval"])
def test_an_export_that_failed_can_be_repeated(photos, tmp_path, format):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))  # like a full disk
    try:
        with pytest.raises(CollectionError, match="cannot write"):
            photos.export(tmp_path / "out", format=format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out").exists()
    assert photos.export(tmp_path / "out", format=format).pictures == len(photos)


def test_no_index_stands_beside_the_ids_of_another(photos, tmp_path):
    path = photos.export(tmp_path / "photos.faiss", format="faiss").path
    (tmp_path / "photos.json.tmp").mkdir()  # so that it cannot be written
    with pytest.raises(CollectionError, match="cannot write"):
        photos.export(path, format="faiss", where="rating = 5")
    assert not (tmp_path / "photos.json").exists()


def test_formats_are_named_in_the_error_of_one_that_is_unknown(photos, tmp_path):
    with pytest.raises(CollectionError, match="'parquet'"):
        photos.export(tmp_path / "x", format="arrow")
    with pytest.raises(SourceError, match="'rclip'"):
        photos.import_vectors(tmp_path, format="faiss")


def test_a_collection_without_vectors_has_nothing_to_export(other, tmp_path):
    with pytest.raises(CollectionError, match="no vectors yet"):
        other.export(tmp_path / "x", format="npy")


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([], "found 0 lines"),
        ([{"path": "/a"}] * 2, "more than a line"),
        ([{"id": 1}], "line 1"),
        ([["/a"]], "line 1"),
    ],
)
def test_lines_that_do_not_fit_the_vectors_are_told(tmp_path, other, lines, complaint):
    with pytest.raises(SourceError, match=complaint):
        other.import_vectors(npy(tmp_path / "n", np.eye(3)[:1], lines), format="npy")


OWN = {"model": "colour", "fingerprint": "colour-1"}


def test_an_import_that_fails_leaves_no_space_that_nothing_fits_into(tmp_path, other, folder):
    lines = [{"path": "/a"}, {"id": 1}]
    broken = npy(tmp_path / "broken", np.eye(3)[:2], lines, **OWN)
    with pytest.raises(SourceError, match="line 2"):
        other.import_vectors(broken, format="npy")
    wide = npy(tmp_path / "wide", np.eye(4)[:1], lines[:1], **OWN)
    for model in (None, ColourEncoder()):
        with pytest.raises(ModelMismatchError, match="4 dimensions; expected 3, as 'colour'"):
            other.import_vectors(wide, format="npy", model=model)
    none = npy(tmp_path / "none", np.empty((1, 0)), lines[:1], **OWN)
    with pytest.raises(SourceError, match="0 numbers"):
        other.import_vectors(none, format="npy")
    lost = npy(tmp_path / "lost", np.full((1, 3), np.nan), lines[:1], **OWN)
    assert len(other.import_vectors(lost, format="npy").failed) == 1

    assert other.models == []
    assert other.add(folder).failed == [] and len(other) > 0


def test_json_that_is_nested_without_end_is_refused_by_name(tmp_path, other):
    source = npy(tmp_path / "n", np.eye(3)[:1], [{"path": "/a"}], **OWN)
    for depth in (900, 100_000):
        deep = "[" * depth + "]" * depth
        (source / "items.jsonl").write_text(f'{{"path": "/a", "metadata": {{"x": {deep}}}}}\n')
        with pytest.raises(SourceError, match="line 1"):
            other.import_vectors(source, format="npy")
        (source / "clipsearch.json").write_text(deep)
        with pytest.raises(SourceError, match=r"clipsearch\.json"):
            other.import_vectors(source, format="npy")
        (source / "clipsearch.json").write_text(json.dumps(OWN))


def test_vectors_of_another_length_than_those_of_a_model_of_the_catalogue_are_refused(tmp_path):
    source = npy(tmp_path / "n", np.eye(4)[:1], [{"path": "/a"}])
    with cs.Collection(tmp_path / "made", model="builtin") as photos:
        for model in (None, "builtin", "ViT-B/32,openai"):
            with pytest.raises(ModelMismatchError, match=r"4 dimensions; expected (256|512)"):
                photos.import_vectors(source, format="npy", model=model)
        assert photos.models == []


def test_a_first_vector_of_another_length_is_the_one_that_fails(tmp_path, other):
    pyarrow = pytest.importorskip("pyarrow", reason="pip install pyarrow")
    from pyarrow import parquet

    vectors = [None, [1.0], [0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]
    table = pyarrow.table({"path": ["/n", "/a", "/b", "/c"], "vector": vectors})
    parquet.write_table(table, tmp_path / "x.parquet")
    report = other.import_vectors(tmp_path / "x.parquet", format="parquet")
    assert (report.added, [failure.path for failure in report.failed]) == (2, ["/n", "/a"])


def test_parquet_of_another_program_needs_a_vector_and_a_path(tmp_path, other):
    pyarrow = pytest.importorskip("pyarrow", reason="pip install pyarrow")
    from pyarrow import parquet

    write = partial(parquet.write_table, where=tmp_path / "x.parquet")
    write(pyarrow.table({"uri": ["/a", "/b", "/c"], "embedding": [[0.0, 2.0, 0.0], None, [1.0]]}))
    report = other.import_vectors(tmp_path / "x.parquet", format="parquet")
    assert (report.added, [failure.path for failure in report.failed]) == (1, ["/b", "/c"])
    assert other.search(embedding=[0, 1, 0], k=1)[0].path == "/a"
    write(pyarrow.table({"name": ["a"]}))
    with pytest.raises(SourceError, match="expected one of vector, embedding, embeddings"):
        other.import_vectors(tmp_path / "x.parquet", format="parquet")


# ---------------------------------------------------------------------- which row is which picture


def pieces(*keys, colours=("red", "green", "blue", "white")):
    """Pictures in memory under such keys, each of another colour."""
    from io import BytesIO

    for key, colour in zip(keys, colours, strict=False):
        file = BytesIO()
        Image.new("RGB", (8, 8), colour).save(file, "PNG")
        yield Item(key, file.getvalue)


class Pieces:
    """Pictures in memory, of one root."""

    kind, lists_all, options = "pieces", False, {}

    def __init__(self, root, items):
        self.root, self._items = root, items

    def items(self):
        return iter(self._items)

    def item(self, key):
        return None

    def path(self, key):
        return key


@pytest.mark.parametrize("format", BOTH_WAYS)
@pytest.mark.parametrize("together", [1, 4096])
def test_pictures_that_share_a_path_stay_different_pictures(
    photos, other, tmp_path, format, together, monkeypatch
):
    for module in ("outgoing", "clip_retrieval", "npy", "parquet"):
        monkeypatch.setattr(f"clipsearch.formats.{module}.TOGETHER", together)
    for root, colours in (("one", ("red", "green")), ("two", ("blue", "white"))):
        photos.add(Pieces(root, list(pieces("0", "1", colours=colours))))
    path = exported(photos, tmp_path, format, where="key in ('0', '1')")

    report = other.import_vectors(path, format=format)

    assert (report.added, report.updated, report.failed, len(other)) == (4, 0, [], 4)
    best = {colour: other.search(colour, k=1)[0] for colour in ("red", "green", "blue", "white")}
    assert [hit.score for hit in best.values()] == pytest.approx([1, 1, 1, 1], abs=1e-3)
    assert [best[colour].path for colour in ("red", "green")] == ["0", "1"]
    assert best["blue"].path.startswith("0 (") and best["white"].path.startswith("1 (")
    again = other.import_vectors(path, format=format)
    assert (again.unchanged, len(other), again.gone) == (4, 4, 4)


def coco(folder):
    """Two tables of the same pictures that tell other things of them."""
    names = [f"{name}.png" for name in ("red", "green", "blue")]
    texts = {"captions": [f"a {name}" for name in names], "instances": [3, 4, 5]}
    for table, values in texts.items():
        lines = [f"{name},{value},{table}" for name, value in zip(names, values, strict=True)]
        (folder / f"{table}.csv").write_text("\n".join([f"file_name,{table},table", *lines]))
        yield folder / f"{table}.csv"


@pytest.mark.parametrize("together", [2, 4096])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("format", BOTH_WAYS)
def test_rows_of_one_picture_all_tell_of_it(
    photos, other, tmp_path, folder, format, there, together, monkeypatch
):
    for module in ("outgoing", "clip_retrieval", "npy", "parquet"):
        monkeypatch.setattr(f"clipsearch.formats.{module}.TOGETHER", together)
    with cs.Collection(tmp_path / "coco", model=ColourEncoder()) as twice:
        for table in coco(folder):
            twice.add(table)
        path = exported(twice, tmp_path, format)
    if not there:
        folder.rename(tmp_path / "away")

    report = other.import_vectors(path, format=format)

    assert (report.added, report.merged, report.unchanged, len(other)) == (3, 3, 0, 3)
    assert "3 merged" in str(report)
    (hit,) = other.search("green", k=1, where="captions = 'a green.png' and instances = 4")
    assert hit.metadata["table"] == ["captions", "instances"]
    again = other.import_vectors(path, format=format)
    assert (again.unchanged, again.merged, len(other)) == (6, 0, 3)
    assert other.search("green", k=1)[0].metadata == hit.metadata


def test_rows_of_one_gone_picture_with_two_vectors_are_told(tmp_path, other):
    paths = ["/gone/a", "/gone/b", "/gone/a", "/gone/b"]
    lines = [{"path": path, "metadata": {"line": n}} for n, path in enumerate(paths)]
    source = npy(tmp_path / "n", np.eye(3)[[0, 1, 2, 1]], lines)
    report = other.import_vectors(source, format="npy")
    assert [failure.path for failure in report.failed] == ["/gone/a"]
    assert "another vector" in report.failed[0].reason
    assert {hit.path: hit.metadata["line"] for hit in other.search("red")} == {
        "/gone/a": 0,
        "/gone/b": [1, 3],
    }
    assert other.search(embedding=[1, 0, 0], k=1)[0].path == "/gone/a" and other.failures() == []


def test_importing_again_what_came_back_in_an_archive_brings_no_ghosts(other, tmp_path, folder):
    (folder / ODD).unlink(missing_ok=True)
    archive = Path(shutil.make_archive(tmp_path / "pictures", "zip", folder))
    other.add(archive)
    path = exported(other, tmp_path, "parquet")
    assert other.import_vectors(path, format="parquet").unchanged == len(other)
    with cs.Collection(tmp_path / "third", model=ColourEncoder()) as third:
        third.import_vectors(path, format="parquet")
        assert third.add(archive).moved == len(other)
        before = third.paths()
        again = third.import_vectors(path, format="parquet")
        assert (again.unchanged, again.added, again.gone) == (len(other), 0, 0)
        assert third.paths() == before


def test_a_row_that_tells_no_bytes_is_known_by_its_path(other, tmp_path, folder):
    (folder / ODD).unlink(missing_ok=True)
    archive = Path(shutil.make_archive(tmp_path / "pictures", "zip", folder))
    other.add(archive)
    count, about = len(other), {"model": "colour", "fingerprint": "colour-1"}
    source = npy(tmp_path / "n", np.eye(3)[:1], [{"path": f"{archive}/red.png"}], **about)
    assert other.import_vectors(source, format="npy").unchanged == 1
    assert len(other) == count


def test_a_folder_takes_over_what_was_imported_of_its_files(photos, other, tmp_path, folder):
    path = exported(photos, tmp_path, "npy")
    other.import_vectors(path, format="npy")
    ids = {place: id for id, place in other.paths().items()}

    report = other.add(folder)

    assert (report.moved, report.same_content, report.encoded) == (len(photos), 0, 0)
    assert {place: id for id, place in other.paths().items()} == ids
    assert {hit.source for hit in other.search("red", k=50)} == {str(folder)}
    known = {Path(hit.path).name: hit.metadata for hit in other.search("red", k=50)}
    assert known["red.png"]["tags"] == ["따뜻한", "warm"], "what came with the import stays known"
    (folder / "green.png").unlink()
    assert other.add(folder).missing == 1
    assert len(other) == len(photos) - 1
    assert [str(one) for one in other.refresh() if one.failed] == []
    again = other.import_vectors(path, format="npy")
    assert (again.unchanged, again.added) == (len(photos) - 1, 0)


def test_an_import_of_what_a_folder_holds_changes_nothing(other, tmp_path, folder):
    other.add(folder)
    before = answers(other)
    report = other.import_vectors(exported(other, tmp_path, "npy"), format="npy")
    assert (report.unchanged, report.added, report.same_content) == (len(before), 0, 0)
    assert answers(other) == before


@pytest.mark.parametrize("told", [True, False])
def test_relative_paths_are_the_same_pictures_once_their_root_is_named(tmp_path, folder, other, told):
    import hashlib

    digest = hashlib.sha256((folder / "red.png").read_bytes()).hexdigest() if told else None
    source = npy(tmp_path / "n", np.eye(3)[:1], [{"path": "red.png", "content_sha256": digest}])
    other.import_vectors(source, format="npy")
    report = other.import_vectors(source, format="npy", root=folder)
    assert report.gone == 0 and list(other.paths().values()) == [str(folder / "red.png")]


def test_what_is_known_stays_when_an_import_says_otherwise(photos, other, tmp_path, folder):
    about = {"model": "colour", "fingerprint": "colour-1"}
    lines = [{"path": str(folder / "red.png"), "metadata": {"title": title}} for title in ("first", "second")]
    for n, line in enumerate(lines):
        other.import_vectors(npy(tmp_path / f"n{n}", np.eye(3)[:1], [line], **about), format="npy")
    os.utime(folder / "red.png", ns=(1, 1))
    other.add([folder / "red.png"])
    assert other.search("red", k=1)[0].metadata["title"] == "first"


def test_what_a_line_tells_beside_our_names_is_metadata(tmp_path, other):
    line = {"path": "/gone", "stars": 5, "id": 7, "key": "k", "source": "s", "metadata": {"room": "hall"}}
    other.import_vectors(npy(tmp_path / "n", np.eye(3)[:1], [line]), format="npy")
    assert other.search("red", k=1)[0].metadata == {"stars": 5, "room": "hall"}


def test_a_faiss_file_replaces_no_json_of_anothers(photos, tmp_path):
    (tmp_path / "holiday.json").write_text('{"mine": 1}')
    for text in ('{"mine": 1}', "precious", "[1]"):
        (tmp_path / "holiday.json").write_text(text)
        with pytest.raises(CollectionError, match=r"holiday\.json is there"):
            photos.export(tmp_path / "holiday.faiss", format="faiss")
        assert (tmp_path / "holiday.json").read_text() == text
    assert not (tmp_path / "holiday.faiss").exists()
    photos.export(tmp_path / "mine.faiss", format="faiss")
    assert photos.export(tmp_path / "mine.faiss", format="faiss").pictures == len(photos)


def test_an_exported_table_is_not_taken_for_one_of_pictures(photos, tmp_path):
    with pytest.raises(SourceError, match="import_vectors"):
        photos.add(exported(photos, tmp_path, "parquet").rename(tmp_path / "x.parquet"))


def test_columns_of_several_values_come_along_and_pictures_do_not(tmp_path, other):
    pyarrow = pytest.importorskip("pyarrow", reason="pip install pyarrow")
    from pyarrow import parquet

    row = {
        "path": "/a",
        "vector": [1.0, 0.0, 0.0],
        "place": {"city": "Seoul"},
        "thumb": b"x",
        "thumbs": [b"x"],
    }
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "x.parquet")
    other.import_vectors(tmp_path / "x.parquet", format="parquet")
    assert other.search("red", k=1)[0].metadata == {"place": {"city": "Seoul"}}


def test_a_picture_that_cannot_be_shown_says_why(other, tmp_path):
    other.import_vectors(
        npy(tmp_path / "n", np.eye(3)[:1], [{"path": "/gone"}], model="colour", fingerprint="colour-1"),
        format="npy",
    )
    other.add(pieces("handed", colours=["blue"]))
    for query, way in (("red", "gone when its vector was imported"), ("blue", "handed over")):
        with pytest.raises(SourceError, match=way):
            other.search(query, k=1)[0].image()
    with pytest.raises(CollectionError, match="add_model makes them, of all pictures that can be read again"):
        other.use_model("builtin")


def digest_of(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("together", [1, 4096])
@pytest.mark.parametrize("gone_first", [True, False])
def test_a_gone_copy_of_a_file_of_the_same_import_stays_an_item(
    tmp_path, other, folder, together, gone_first, monkeypatch
):
    monkeypatch.setattr("clipsearch.formats.npy.TOGETHER", together)
    digest = digest_of(folder / "red.png")
    lines = [{"path": path, "content_sha256": digest} for path in (str(folder / "red.png"), "/gone")]
    source = npy(tmp_path / "n", np.eye(3)[[0, 0]], lines[::-1] if gone_first else lines)
    assert other.import_vectors(source, format="npy").gone == 1
    assert sorted(other.paths().values()) == sorted(line["path"] for line in lines)
    assert other.import_vectors(source, format="npy").unchanged == 2 and len(other) == 2


def test_a_relative_path_of_other_bytes_is_another_picture(tmp_path, other, folder):
    about = {"model": "colour", "fingerprint": "colour-1"}
    lines = [{"path": "red.png", "content_sha256": digest_of(folder / "blue.png")}, {"path": "red.png"}]
    first, second = (npy(tmp_path / f"n{n}", np.eye(3)[[n]], [line], **about) for n, line in enumerate(lines))
    other.import_vectors(first, format="npy")
    other.import_vectors(second, format="npy", root=folder)
    assert sorted(other.paths().values()) == sorted(["red.png", str(folder / "red.png")])


def test_copies_that_come_back_are_told_apart_by_their_places(tmp_path, other, folder):
    about = {"model": "colour", "fingerprint": "colour-1"}
    digest = digest_of(folder / "red.png")
    names = ["red.png", "red again.png"]  # a folder is walked in the other order
    lines = [{"path": str(folder / n), "content_sha256": digest, "metadata": {"of": n}} for n in names]
    source = npy(tmp_path / "n", np.eye(3)[[0, 0]], lines, **about)
    folder.rename(tmp_path / "away")
    other.import_vectors(source, format="npy")
    (tmp_path / "away").rename(folder)
    assert other.add(folder).moved == 2
    known = {hit.key: hit.metadata.get("of") for hit in other.search("red", k=50)}
    assert [known[name] for name in names] == names


def test_what_was_told_of_other_bytes_is_forgotten_with_them(tmp_path, other, folder):
    about = {"model": "colour", "fingerprint": "colour-1"}
    lines = [{"path": str(folder / "red.png"), "metadata": {"title": "red"}}]
    other.import_vectors(npy(tmp_path / "n", np.eye(3)[:1], lines, **about), format="npy")
    Image.new("RGB", (8, 8), "blue").save(folder / "red.png")
    assert other.add([folder / "red.png"]).updated == 1
    assert "title" not in other.search("blue", k=1)[0].metadata


GOOD = {"path": ["/a"], "vector": [[1.0, 0.0, 0.0]]}


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"vector": ["x"]}, r"vector \(string\); expected one of vector"),
        ({"vector": [["x", "y", "z"]]}, "of lists of numbers"),
        ({"vector": [1.0]}, "of lists of numbers"),
        ({"vector": [b"123"]}, "of lists of numbers"),
        ({"vector": [[[1.0], [0.0], [0.0]]]}, "of lists of numbers"),
        ({"vector": [None]}, "of lists of numbers"),
        ({"vector": [[]]}, "of lists of numbers"),
        ({"content_sha256": ["zz"]}, r"x\.parquet, row 1: non-hexadecimal"),
        ({"content_sha256": [5]}, r"x\.parquet, row 1"),
        ({"path_bytes": [4]}, r"x\.parquet, row 1"),
    ],
)
def test_parquet_of_another_program_with_columns_of_another_kind_is_refused(
    tmp_path, other, columns, complaint
):
    pyarrow = pytest.importorskip("pyarrow", reason="pip install pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(GOOD | columns), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=complaint):
        other.import_vectors(tmp_path / "x.parquet", format="parquet")
    assert other.models == []


def test_parquet_that_says_what_is_not_so_is_refused(tmp_path, other):
    pyarrow = pytest.importorskip("pyarrow", reason="pip install pyarrow")
    from pyarrow import parquet

    def complaint(table):
        parquet.write_table(table, tmp_path / "x.parquet")
        with pytest.raises(SourceError) as caught:
            other.import_vectors(tmp_path / "x.parquet", format="parquet")
        return str(caught.value)

    table = pyarrow.table(GOOD)
    assert "x.parquet says of its vectors" in complaint(table.replace_schema_metadata({"clipsearch": "{"}))
    field = pyarrow.field("j", pyarrow.string(), metadata={"clipsearch": "json"})
    bad = table.append_column(field, pyarrow.array(["{oops"]))
    assert "x.parquet, row 1: Expecting property name" in complaint(bad)
    twice = table.append_column("n", pyarrow.array([1])).append_column("n", pyarrow.array([2]))
    assert "'n' as the name of 2 columns" in complaint(twice)
    null = pyarrow.table({"path": ["/a"], "vector": pyarrow.array([None], pyarrow.list_(pyarrow.float32()))})
    assert "vectors of 0 numbers" in complaint(null)


def test_only_the_column_of_vectors_is_left_out_of_metadata(tmp_path, other):
    pyarrow = pytest.importorskip("pyarrow", reason="pip install pyarrow")
    from pyarrow import parquet

    more = {"vector": ["a text"], "embedding": [[1.0, 0.0, 0.0]], "embeddings": [7], "raw": [[b"x"]]}
    more["metadata_colour"] = ["red"]  # as ours would be called only if "colour" were a column of ours
    parquet.write_table(pyarrow.table(GOOD | more), tmp_path / "x.parquet")
    other.import_vectors(tmp_path / "x.parquet", format="parquet")
    known = other.search("red")[0].metadata
    assert {name: known[name] for name in more if name in known} == {
        "embeddings": 7,
        "metadata_colour": "red",
    }


def test_an_array_that_is_empty_or_without_a_path_is_no_traceback(tmp_path, other):
    source = npy(tmp_path / "n", np.eye(3)[:1], [{"path": None}])
    other.import_vectors(source, format="npy")
    assert list(other.paths().values()) == ["(row 1)"]
    (source / "vectors.npy").write_bytes(b"")
    with pytest.raises(SourceError, match="is no array of numbers"):
        other.import_vectors(source, format="npy")


def test_a_picture_that_came_back_is_there_again_when_it_is_imported_again(tmp_path, other):
    file = tmp_path / "red.png"
    Image.new("RGB", (8, 8), "red").save(file)
    source = npy(tmp_path / "n", np.eye(3)[:1], [{"path": str(file)}], **OWN)
    other.import_vectors(source, format="npy")
    file.rename(tmp_path / "away")
    assert other.refresh()[0].missing == 1 and len(other) == 0
    (tmp_path / "away").rename(file)
    other.import_vectors(source, format="npy")
    assert list(other.paths().values()) == [str(file)]
