"""Captions: written once, kept with the content, found by their words, and what goes wrong meanwhile."""

import json
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch import captioning
from clipsearch.captions import make_captioner, words_of, write_captions
from clipsearch.errors import CollectionError, ImageError, QueryError, ServerError
from clipsearch.testing import COLOURS, ColourEncoder, ColourVLM
from clipsearch.writer import writing

NAMES = [f"{number}{colour}.png" for number, colour in enumerate(COLOURS)]


@pytest.fixture
def folder(tmp_path):
    """Seven pictures of one colour each."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (name, colour) in enumerate(zip(NAMES, COLOURS, strict=True)):
        Image.new("RGB", (8, 8 + number), COLOURS[colour]).save(folder / name)
    return folder


@pytest.fixture
def photos(tmp_path, folder):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        photos.add(folder, progress=False)
        yield photos


class Writes(ColourVLM):
    """Writes what it is told to, by the picture's height; counts its calls."""

    def __init__(self, texts=(), name="writes", **spec):
        self.model_id, self.texts, self.asked, self.own = name, dict(texts), [], spec

    def spec(self):
        return self.own

    def generate(self, images, prompt=None, *, max_tokens=64):
        self.asked.append([image.height - 8 for image in images])
        return [self.texts.get(image.height - 8, "a picture") for image in images]


def captions(photos):
    return {hit.key: hit.metadata.get("caption") for hit in photos.search("red", k=99)}


def keys(results):
    return sorted(hit.key for hit in results)


# ---------------------------------------------------------------- written and kept


def test_every_picture_is_captioned_once(photos):
    vlm = Writes({0: "  a red\n square "})
    report = photos.caption(vlm, batch_size=3, progress=False)
    assert (report.captioned, report.unchanged, report.failed) == (7, 0, [])
    assert vlm.asked == [[0, 1, 2], [3, 4, 5], [6]]
    assert captions(photos) == dict.fromkeys(NAMES, "a picture") | {NAMES[0]: "a red square"}
    again = photos.caption(vlm, progress=False)
    assert (again.captioned, again.unchanged, len(vlm.asked)) == (0, 7, 3)


def test_what_comes_later_is_captioned_later(photos, folder):
    vlm = Writes()
    photos.caption(vlm, progress=False)
    Image.new("RGB", (8, 90), "red").save(folder / "new.png")
    shutil.copy(folder / NAMES[0], folder / "copy.png")  # the same content: no call
    photos.add(folder, progress=False)
    report = photos.caption(vlm, progress=False)
    assert (report.captioned, report.unchanged, vlm.asked[-1]) == (1, 7, [82])
    assert captions(photos)["copy.png"] == "a picture"


def test_another_prompt_length_or_model_is_another_captioner(photos):
    calls = {}
    for name, options, spec in [
        ("a", {}, {}),
        ("a", {"prompt": "what?"}, {}),
        ("a", {"max_tokens": 9}, {}),
        ("a", {}, {"fingerprint": "x"}),
        ("b", {}, {}),
    ]:
        vlm = Writes({0: f"by {len(calls)}"}, name, **spec)
        assert photos.caption(vlm, progress=False, **options).captioned == 7
        calls[len(calls)] = captions(photos)[NAMES[0]]
    assert list(calls.values()) == [f"by {number}" for number in range(5)], "the last one is in use"
    assert [about["in_use"] for about in photos.info()["captioners"]] == [False] * 4 + [True]
    assert photos.caption(Writes({}, "a"), progress=False).unchanged == 7
    assert captions(photos)[NAMES[0]] == "by 0", "one that ran again is in use again"


def test_a_captioner_that_could_not_be_asked_leaves_nothing(photos):
    with pytest.raises(ServerError):
        photos.caption(Breaks(ServerError("down"), range(7)), progress=False)
    assert photos.info()["captioners"] == []
    with pytest.raises(cs.Interrupted):
        photos.caption(Stops(KeyboardInterrupt(), {4}), batch_size=2, progress=False)
    assert sum(text is not None for text in captions(photos).values()) == 4, "what is safe is shown"


def test_a_captioner_without_a_caption_is_never_in_use(photos):
    photos.caption(Writes({number: "" for number in range(6)} | {6: "one"}, "few"), progress=False)
    photos.caption(Writes({0: "all"}, "all"), progress=False)
    photos.caption(Writes({}, "last"), progress=False)
    with pytest.raises(cs.ModelError, match="failed on every picture: it wrote nothing"):
        photos.caption(Writes({number: "" for number in range(7)}, "none"), progress=False)
    assert [(about["model"], about["in_use"]) for about in photos.info()["captioners"]] == [
        ("few", False),
        ("all", False),
        ("last", True),
    ]


def test_a_captioner_that_was_tried_on_some_pictures_does_not_take_over(photos, caplog):
    photos.caption(Writes({0: "old"}, "a"), progress=False)
    with caplog.at_level("INFO"):
        photos.caption(Writes({0: "new"}, "b"), where="id <= 3", progress=False)
    assert captions(photos)[NAMES[0]] == "old"
    assert "the captions of a stay in use" in caplog.text and "use_captions(2)" in caplog.text
    photos.use_captions(2)
    assert captions(photos)[NAMES[0]] == "new"
    photos.use_captions("a")
    assert captions(photos)[NAMES[0]] == "old"
    with pytest.raises(QueryError, match="no captions by 3"):
        photos.use_captions(3)


def test_captions_of_a_condition_only(photos):
    vlm = Writes()
    assert photos.caption(vlm, where="height in (9, 10)", progress=False).captioned == 2
    assert vlm.asked == [[1, 2]]
    assert photos.caption(vlm, progress=False).captioned == 5


def test_removed_captions_are_gone_and_the_ones_before_are_in_use(photos):
    photos.caption(Writes({0: "old"}, "a"), progress=False)
    photos.caption(Writes({0: "new"}, "b"), progress=False)
    with pytest.raises(QueryError, match=r"no captions by 'c'; there are captions by: 'a' .1., 'b' .2."):
        photos.remove_captions("c")
    assert photos.remove_captions("b") == 7
    assert captions(photos)[NAMES[0]] == "old"
    assert len(photos.paths(where="caption match 'new'")) == 0
    assert photos.remove_captions(1) == 7
    assert captions(photos) == dict.fromkeys(NAMES)
    assert photos.verify().ok


def test_captions_of_pictures_that_nobody_has_any_more_go_with_a_compaction(photos):
    photos.caption(Writes({0: "red", 1: "green"}), progress=False)
    photos.remove(1)
    photos.compact()
    assert photos.verify().ok
    assert photos._store.rows("SELECT count(*) FROM captions") == [(6,)]
    with closing(sqlite3.connect(photos.path / "items.sqlite")) as db:
        db.execute("INSERT INTO caption_words (caption_words) VALUES ('integrity-check')")  # of FTS5 itself


# ---------------------------------------------------------------- what goes wrong


def test_a_picture_that_cannot_be_captioned_is_told_and_not_asked_again(photos, folder):
    (folder / NAMES[1]).write_bytes(b"no picture")
    (folder / NAMES[2]).unlink()
    vlm = Writes({3: ""})
    report = photos.caption(vlm, progress=False)
    reasons = {path.rsplit("/", 1)[1]: reason for path, reason in report.failed}
    assert reasons == {
        NAMES[1]: "it has changed since it was added; add its source again",
        NAMES[2]: "the picture is no longer where it was; if its folder moved, relocate the source",
        NAMES[3]: "the model failed on it: it wrote nothing",
    }
    assert report.captioned == 4
    asked = len(vlm.asked)
    again = photos.caption(vlm, progress=False)
    assert {path.rsplit("/", 1)[1]: reason for path, reason in again.failed} == reasons
    assert len(vlm.asked) == asked
    vlm.texts[3] = "yellow at last"
    assert photos.caption(vlm, retry_failed=True, progress=False).captioned == 1
    assert captions(photos)[NAMES[3]] == "yellow at last"


def test_of_a_content_with_several_files_one_that_is_there_is_enough(photos, folder):
    shutil.copytree(folder, folder / "copies")
    photos.add(folder, progress=False)
    (folder / NAMES[0]).unlink()
    assert photos.caption(Writes(), progress=False).failed == []


class Breaks(Writes):
    """Fails on pictures of some heights."""

    def __init__(self, error, on):
        super().__init__(name="breaks")
        self.error, self.on = error, on

    def generate(self, images, prompt=None, *, max_tokens=64):
        found = super().generate(images, prompt, max_tokens=max_tokens)
        if any(image.height - 8 in self.on for image in images):
            raise self.error
        return found


class Stops(Breaks):
    """Under another name."""

    def __init__(self, error, on):
        super().__init__(error, on)
        self.model_id = "stops"


@pytest.mark.parametrize(
    ("error", "reason"), [(ImageError("refused"), "refused"), (KeyError("x"), "KeyError: 'x'")]
)
def test_a_picture_that_breaks_the_model_breaks_only_itself(photos, error, reason):
    report = photos.caption(Breaks(error, {4}), progress=False)
    assert report.captioned == 6
    assert [(path.rsplit("/", 1)[1], why) for path, why in report.failed] == [
        (NAMES[4], f"the model failed on it: {reason}")
    ]


def test_when_the_server_goes_down_what_was_written_is_kept_and_no_picture_is_blamed(photos):
    with pytest.raises(ServerError):
        photos.caption(Breaks(ServerError("down"), {4}), batch_size=2, progress=False)
    assert sum(text is not None for text in captions(photos).values()) == 4
    report = photos.caption(Breaks(ServerError("down"), set()), batch_size=2, progress=False)
    assert (report.captioned, report.unchanged, report.failed) == (3, 4, [])


def test_ctrl_c_keeps_what_was_written(photos):
    with pytest.raises(cs.Interrupted, match="4 new captions are safe") as stopped:
        photos.caption(Breaks(KeyboardInterrupt(), {4}), batch_size=2, progress=False)
    assert stopped.value.report.captioned == 4
    assert photos.caption(Breaks(None, set()), progress=False).unchanged == 4


def test_a_model_that_loses_count_is_an_error(photos):
    class Few(Writes):
        def generate(self, images, prompt=None, *, max_tokens=64):
            return ["one"]

    with pytest.raises(cs.ModelError, match="'writes' gave 1 texts for 7 pictures"):
        photos.caption(Few(), progress=False)
    for wrong in (1, "text", [1] * 7, None):
        Few.generate = lambda *_, wrong=wrong, **options: wrong
        with pytest.raises(cs.ModelError, match="expected a list of texts"):
            photos.caption(Few(), progress=False)
    assert captions(photos) == dict.fromkeys(NAMES)


def test_a_model_that_never_worked_is_blamed_and_no_picture(photos):
    with pytest.raises(cs.ModelError, match="'breaks' failed on every picture: refused"):
        photos.caption(Breaks(ImageError("refused"), range(7)), batch_size=3, progress=False)
    assert photos._store.rows("SELECT count(*) FROM captions") == [(0,)]


def test_what_is_no_model_is_refused(photos):
    with pytest.raises(cs.ModelError, match="it lacks model_id, spec, generate"):
        photos.caption(object(), progress=False)
    for name in ("http://localhost:8000/v1", "@http://localhost:8000/v1", "m@ftp://localhost"):
        with pytest.raises(cs.ModelError, match="NAME@URL"):
            photos.caption(name, progress=False)
    reader = cs.Collection(photos.path, model=ColourEncoder(), read_only=True)
    with reader, pytest.raises(CollectionError, match="read-only"):
        reader.caption(Writes(), progress=False)


def test_a_collection_without_captions_and_an_empty_one_are_searched_as_ever(photos, tmp_path):
    assert captions(photos) == dict.fromkeys(NAMES)
    assert photos.info()["captioners"] == []
    with cs.Collection(tmp_path / "empty", model=ColourEncoder()) as empty:
        assert empty.caption(Writes(), progress=False).captioned == 0


# ---------------------------------------------------------------- found by their words


@pytest.fixture
def said(photos):
    texts = [
        "A red dog's ball, on GRASS",
        "두 아이가 강아지와 공원에서 놀고 있다",
        "Café con leche",
        'he said "no" AND left',
        "dogs and more dogs",
        "",
        "100% wool",
    ]
    photos.caption(Writes(enumerate(texts)), progress=False)
    return photos


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dog", {0, 4}),
        ("red grass", {0}),
        ("grass red", {0}),
        ("DOGS", {4}),
        ("강아지", {1}),
        ("cafe", {2}),
        ("and", {3, 4}),
        ('"no"', {3}),
        ("no OR café", set()),
        ("dog*", {0, 4}),
        ("wool 100", {6}),
        ("- (", set()),
        ("", set()),
        ("cat", set()),
        ("NOT dog", set()),
        ("text:dog", set()),
    ],
)
def test_match_finds_the_captions_with_all_words(said, words, expected):
    quoted = words.replace("'", "''")
    found = said.search("red", k=99, where=f"caption match '{quoted}'")
    assert keys(found) == sorted(NAMES[number] for number in expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red dog's ball!", ["a", "red", "dog", "s", "ball"]),
        ("Café ÉTÉ straße", ["cafe", "ete", "straße"]),
        ("강아지가 공원", ["강아지가", "공원"]),
        ("snake_case 100%", ["snake", "case", "100"]),
        ("…", []),
    ],
)
def test_words_are_those_of_the_index_and_of_the_users_own_captions(photos, text, expected):
    assert words_of(text) == expected
    photos.caption(Writes({0: text}), progress=False)
    for word in expected:
        assert photos.paths(where=f"caption match '{word}' and id = 1") != {}, "FTS5 takes it for a word too"


def test_captions_are_a_column_like_others(said):
    def found(where):
        return {int(path.rsplit("/", 1)[1][0]) for path in said.paths(where=where).values()}

    assert found("caption like '%dog%'") == {0, 4}
    assert found("caption = '100% wool'") == {6}
    assert found("caption is null") == {5}
    assert found("not caption match 'dog'") == {1, 2, 3, 6}
    assert found("caption match 'dog' or height = 9") == {0, 1, 4}
    with pytest.raises(QueryError, match=r"at character 1 .*found path, expected caption, whose words"):
        found("path match 'x'")
    said.remove_captions("writes")
    with pytest.raises(QueryError, match=r"at character 1 .*no picture has a caption yet"):
        found("caption match 'dog'")
    with pytest.raises(QueryError, match=r"at character 15 .*expected a text in single quotes"):
        found("caption match 3")


def test_a_caption_of_the_users_own_hides_the_models(tmp_path):
    class Told:
        kind, root, lists_all, options = "told", "told", True, {}

        def items(self):
            yield cs.Item("a", lambda: Image.new("RGB", (8, 8), "red"), metadata={"caption": "mine"})
            yield cs.Item("b", lambda: Image.new("RGB", (8, 9), "red"))

        def item(self, key):
            return next(item for item in self.items() if item.key == key)

        def path(self, key):
            return key

    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        photos.add(Told(), progress=False)
        assert photos.caption(Writes(), progress=False).failed, "what was handed over cannot be read again"
        assert list(photos.paths(where="caption = 'mine'")) == [1]
        assert list(photos.paths(where="caption match 'MIN'")) == [1]
        assert list(photos.paths(where="not caption match 'min'")) == []
        assert list(photos.paths(where="caption match '...'")) == []
        assert captions(photos)["a"] == "mine"


# ---------------------------------------------------------------- their vectors


def test_vectors_of_captions_are_no_model_of_pictures(said):
    assert said.encode_captions(ColourEncoder(), progress=False) == 6
    assert said.encode_captions(ColourEncoder(), progress=False) == 6
    assert said.models == ["colour"]
    assert [about["vectors"] for about in said.info()["models"]] == [7]
    found = said.verify()
    assert (found.ok, found.notes, found.vectors) == (True, [], 13)
    said.compact()
    assert said.verify().ok
    said.remove_captions("writes")
    assert said.verify().vectors == 7


def test_vectors_are_those_of_the_model_of_texts(said):
    said.encode_captions(ColourEncoder(), progress=False)
    space = said._store.spaces()[1]
    snapshot = said._store.snapshot(space)
    texts = said._store.rows("SELECT content, text FROM captions WHERE text NOT NULL ORDER BY content")
    assert snapshot.contents.tolist() == [content for content, _ in texts]
    expected = ColourEncoder().encode_texts([text for _, text in texts])
    np.testing.assert_allclose(snapshot.vectors(np.arange(6)), expected, atol=1e-3)


def test_other_weights_of_the_same_name_are_refused(said):
    class Other(ColourEncoder):
        def fingerprint(self):
            return "colour-2"

    said.encode_captions(ColourEncoder(), progress=False)
    with pytest.raises(cs.ModelMismatchError, match="other weights of 'colour'"):
        said.encode_captions(Other(), progress=False)


def test_a_commit_every_few_seconds_bounds_what_a_kill_costs(photos, monkeypatch):
    monkeypatch.setattr(captioning, "COMMIT_SECONDS", 0.0)

    class Looks(Writes):
        def generate(self, images, prompt=None, *, max_tokens=64):
            with closing(sqlite3.connect(photos.path / "items.sqlite")) as db:
                counts.append(db.execute("SELECT count(*) FROM captions").fetchone()[0])
            return super().generate(images, prompt, max_tokens=max_tokens)

    counts = []
    photos.caption(Looks(), batch_size=2, progress=False)
    assert counts == [0, 2, 4, 6]


def test_a_spec_is_kept_as_json(photos):
    photos.caption(Writes({}, "a", digest="x"), prompt="what?", progress=False)
    [(spec,)] = photos._store.rows("SELECT spec FROM captioners")
    assert json.loads(spec) == {
        "max_tokens": 64,
        "min_side": 512,
        "model": "a",
        "prompt": "what?",
        "vlm": {"digest": "x"},
    }


def test_what_a_model_says_of_itself_hides_nothing_of_ours(photos):
    for spec in ({"prompt": "own"}, {"prompt": "another"}, {"max_tokens": 1, "in_use": "no", "captions": 0}):
        assert photos.caption(Writes({}, "a", **spec), progress=False).captioned == 7
    assert [(about["in_use"], about["captions"]) for about in photos.info()["captioners"]] == [
        (False, 7),
        (False, 7),
        (True, 7),
    ]


@pytest.mark.parametrize("spec", [[1], {"a": {1}}, {"a": b"x"}, {"a": float("nan")}, {1: 2, "a": object()}])
def test_a_spec_that_is_not_json_is_refused(photos, spec):
    vlm = Writes()
    vlm.own = spec
    with pytest.raises(cs.ModelError, match="a dict of JSON values"):
        photos.caption(vlm, progress=False)
    assert photos.info()["captioners"] == []


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"batch_size": 2.5}, {"max_tokens": -1}, {"max_tokens": "9"}, {"prompt": 5}],
)
def test_wrong_options_are_refused(photos, options):
    with pytest.raises(QueryError, match=r"whole number from 1|is a text"):
        photos.caption(Writes(), progress=False, **options)


def test_any_text_can_be_kept(photos):
    texts = [
        "cut \ud83d",
        "a\0b",
        "x" * 1_000_000,
        "<b>&amp;</b>",
        "'; DROP TABLE captions; --",
        "\x1b[31m",
        "ok",
    ]
    photos.caption(Writes(enumerate(texts)), progress=False)
    expected = ["cut ?", "a b", *texts[2:]]
    assert captions(photos) == dict(zip(NAMES, expected, strict=True))
    assert photos.verify().ok
    json.dumps(photos.search("red", k=7).to_dicts()).encode()


def test_a_disk_that_is_not_there_blames_no_picture(photos, folder):
    folder.rename(folder.with_name("away"))
    report = photos.caption(Writes(), progress=False)
    assert (report.captioned, len(report.failed)) == (0, 7)
    folder.with_name("away").rename(folder)
    assert photos.caption(Writes(), progress=False).captioned == 7


def test_thousands_of_captions_get_their_vectors_as_documents(tmp_path):
    roles = []

    class Listens(ColourEncoder):
        def encode_texts(self, texts, *, role="query"):
            roles.append((role, len(texts)))
            return super().encode_texts(texts)

    with cs.Collection(tmp_path / "many", model=ColourEncoder()) as photos:
        photos.add([("one", Image.new("RGB", (8, 8), "red"))], progress=False)
        store = photos._store
        with writing(store) as writer, writer.transaction() as db:
            rows = [(number, number.to_bytes(8, "big")) for number in range(100, 5200)]
            db.executemany("INSERT INTO contents (id, sha256, facts) VALUES (?, ?, '{}')", rows)
        with writing(store) as writer:
            captioner = make_captioner(writer, {"model": "m", "prompt": None})
            with writer.transaction() as db:
                write_captions(db, captioner, {number: "red" for number, _ in rows}, {})
        assert photos.encode_captions(Listens(), progress=False) == 5100
        assert {role for role, _ in roles} == {"document"} and sum(count for _, count in roles) == 5100
        photos.remove_captions("m")
        assert store.rows("SELECT count(*) FROM segments") == [(1,)]
