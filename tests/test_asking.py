"""What is asked with operators, cut, spread out or fed back, against NumPy over all vectors."""

import sqlite3
import zlib
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch import asking, bank
from clipsearch.errors import QueryError
from clipsearch.relevance import Background
from clipsearch.testing import ColourEncoder
from clipsearch.types import as_embeddings

DIM, PICTURES = 24, 60


def direction(name):
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=DIM)


class Names:
    """Embeds a picture by its first pixel's number and a text by its letters, apart from each other."""

    model_id, dim = "names", DIM

    def encode_images(self, images):
        numbers = [image.getpixel((0, 0))[0] for image in images]
        return as_embeddings(np.array([direction(f"picture {n}") + 2 for n in numbers]).reshape(-1, DIM))

    def encode_texts(self, texts, *, role="query"):
        return as_embeddings(np.array([direction(text) - 2 for text in texts]).reshape(-1, DIM))

    def fingerprint(self):
        return "names-1"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    with cs.Collection(tmp_path_factory.mktemp("asked") / "c", model=Names()) as photos:
        photos.add([(str(n), Image.new("RGB", (4, 4), (n, 0, 0))) for n in range(PICTURES)])
        yield photos


@pytest.fixture(scope="module")
def world(photos):
    """The ids, the vectors as they are stored, and the background of English texts."""
    ids, vectors = photos.embeddings()
    neutral = Names().encode_texts(bank.captions())
    return np.array(ids), vectors, Background(neutral, vectors, usual=0.9)


def text(name):
    return Names().encode_texts([name])[0]


def unit(vector):
    return vector / np.linalg.norm(vector)


def relevance(world, name):
    _, vectors, background = world
    return background.relevance(text(name), vectors @ text(name), vectors)


def best(world, scores, k=10):
    return world[0][np.argsort(-scores, kind="stable")[:k]].tolist()


def found(results):
    return [hit.id for hit in results]


def test_before_it_is_calibrated_nothing_has_relevance(tmp_path):
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        photos.add([("1", Image.new("RGB", (4, 4)))])
        results = photos.search("dog")
        assert (results.relevant, results[0].relevance) == (None, None)


def test_every_hit_has_the_relevance_of_the_formula(photos, world):
    photos.calibrate()
    results = photos.search("dog")
    expected = relevance(world, "dog")
    assert found(results) == best(world, world[1] @ text("dog"))
    for hit in results:
        assert hit.relevance == pytest.approx(expected[world[0].tolist().index(hit.id)], abs=1e-3)
    assert results.relevant == (max(hit.relevance for hit in results) >= 0.5)
    [many] = photos.search_many(["dog"])
    assert [hit.relevance for hit in many] == [hit.relevance for hit in results]


def test_what_was_calibrated_once_is_known_to_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSEARCH_QUERY_CACHE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        photos.add([("1", Image.new("RGB", (4, 4)))])
        photos.calibrate()
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        assert photos.search("dog")[0].relevance is not None
        assert photos.search("개")[0].relevance is None  # its neutral captions are others
        photos.calibrate("korean")
        assert photos.search("개")[0].relevance is not None


def test_min_relevance_leaves_out_what_is_below(photos, world):
    every = photos.search("cat", k=PICTURES, min_relevance=0)
    cut = sorted(hit.relevance for hit in every)[PICTURES // 2]
    kept = photos.search("cat", k=PICTURES, min_relevance=cut)
    assert found(kept) == [hit.id for hit in every if hit.relevance >= cut]
    assert kept.nearest == ()


def test_where_nothing_is_relevant_the_nearest_are_told(photos):
    nothing = photos.search("cat", k=3, min_relevance=1)
    assert len(nothing) == 0 and found(nothing.nearest) == found(photos.search("cat", k=3))
    assert "Nothing relevant found; the nearest" in repr(nothing)
    assert nothing.nearest[0].path in repr(nothing)
    assert "Nothing relevant found" in nothing._repr_html_()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("dog & ~cat", lambda p: p("dog") * (1 - p("cat"))),
        ("dog & cat & sea", lambda p: p("dog") * p("cat") * p("sea")),
        ("dog | cat", lambda p: 1 - (1 - p("dog")) * (1 - p("cat"))),
        ("~(dog | cat)", lambda p: (1 - p("dog")) * (1 - p("cat"))),
    ],
)
def test_boolean_queries_join_relevance(photos, world, query, expected):
    scores = expected(lambda name: relevance(world, name))
    results = photos.search(cs.Query.parse(query), k=8)
    assert found(results) == best(world, scores, 8)
    np.testing.assert_allclose([hit.score for hit in results], -np.sort(-scores)[:8], atol=1e-3)
    assert results.score_kind == "relevance of all parts"
    assert all(hit.cosine is None for hit in results)
    assert sorted(results, key=lambda hit: -hit.relevance) == list(results)


def test_a_boolean_query_keeps_to_the_filter(photos, world):
    scores = relevance(world, "dog") * (1 - relevance(world, "cat"))
    scores[world[0] > 20] = -1
    assert found(photos.search(cs.Query("dog") & ~cs.Query("cat"), k=5, where="id <= 20")) == best(
        world, scores, 5
    )


def test_of_a_large_collection_those_most_like_a_part_are_looked_at(photos, world, monkeypatch):
    monkeypatch.setattr(asking, "POOL", 12)
    dog, cat = (world[1] @ text(name) for name in ("dog", "cat"))
    pool = {
        *np.argsort(-dog, kind="stable")[:12],
        *np.argsort(cat, kind="stable")[:12],
    }  # and those least like a cat
    scores = relevance(world, "dog") * (1 - relevance(world, "cat"))
    outside = np.array([place not in pool for place in range(PICTURES)])
    scores[outside] = -1
    assert outside.any()
    assert found(photos.search(cs.Query("dog") & ~cs.Query("cat"), k=8)) == best(world, scores, 8)


def test_sums_are_one_vector(photos, world):
    wanted = unit(2 * text("dog") - text("cat"))
    results = photos.search(2 * cs.Query("dog") - "cat", k=5)
    assert found(results) == best(world, world[1] @ wanted, 5)
    assert results[0].cosine == pytest.approx(float(np.sort(world[1] @ wanted)[-1]), abs=1e-3)


def test_texts_and_pictures_are_centred_before_they_are_added(photos, world):
    ids, vectors, _ = world
    texts = Names().encode_texts(bank.captions()).mean(0)
    wanted = unit(unit(vectors[7] - vectors.mean(0)) + unit(text("dog") - texts))
    results = photos.search(cs.Query.item(int(ids[7])) + "dog", k=5)
    assert found(results) == best(world, np.where(ids == ids[7], -9, vectors @ wanted), 5)


def test_a_query_of_one_leaf_is_the_search_it_was(photos):
    item = photos.search(item=3, k=4)
    assert found(photos.search(cs.Query.item(3), k=4)) == found(item)
    assert 3 not in found(item)
    assert found(photos.search(cs.Query("dog"), k=4)) == found(photos.search("dog", k=4))
    assert photos.search("dog & ~cat").query == "dog & ~cat"  # a plain text is never parsed
    assert found(photos.search("dog & ~cat")) != found(photos.search(cs.Query.parse("dog & ~cat")))


def test_liked_and_disliked_pictures_move_the_query(photos, world):
    ids, vectors, _ = world
    means = Names().encode_texts(bank.captions()).mean(0), vectors.mean(0)
    asked = unit(text("dog") - means[0])
    liked = np.mean([unit(vectors[place] - means[1]) for place in (3, 4)], axis=0)
    wanted = unit(asked + 0.75 * liked - 0.15 * unit(vectors[9] - means[1]))
    results = photos.search("dog", liked=[int(ids[3]), int(ids[4])], disliked=[int(ids[9])], k=6)
    assert found(results) == best(world, vectors @ wanted, 6)
    alone = photos.search(liked=photos.search("dog", k=2), k=6)
    first = [world[0].tolist().index(id) for id in found(photos.search("dog", k=2))]
    towards = unit(np.mean([unit(vectors[place] - means[1]) for place in first], axis=0))
    assert found(alone) == best(world, vectors @ towards, 6)


def sampled(kind, neutral, vectors):
    if kind == "picture":
        return Background(vectors, vectors, usual=0.5, own=True)
    return Background(neutral, vectors, usual=0.9)


@pytest.mark.parametrize("kind", ["item", "image", "embedding", "sum", "mixed", "feedback", "many"])
def test_every_kind_of_query_has_a_relevance(photos, world, kind):
    photos.calibrate()
    ids, vectors, english = world
    texts = Names().encode_texts(bank.captions())
    centred = Background(as_embeddings(texts - texts.mean(0)), vectors, usual=0.9)
    pictures = sampled("picture", texts, vectors)
    moved = unit(vectors[7] - vectors.mean(0))
    asked = unit(text("dog") - texts.mean(0))
    picture = Image.new("RGB", (4, 4), (7, 0, 0))
    query, vector, background = {
        "item": (lambda: photos.search(item=int(ids[7])), vectors[7], pictures),
        "image": (lambda: photos.search(image=picture), Names().encode_images([picture])[0], pictures),
        "embedding": (lambda: photos.search(embedding=text("dog")), text("dog"), english),
        "sum": (lambda: photos.search(cs.Query("dog") + "cat"), unit(text("dog") + text("cat")), english),
        "mixed": (lambda: photos.search(cs.Query.item(int(ids[7])) + "dog"), unit(moved + asked), centred),
        "feedback": (lambda: photos.search("dog", liked=[int(ids[7])]), unit(asked + 0.75 * moved), centred),
        "many": (lambda: photos.search_many(["cat", "dog"])[1], text("dog"), english),
    }[kind]
    vector = vector.astype(np.float32)
    expected = dict(zip(ids.tolist(), background.relevance(vector, vectors @ vector, vectors), strict=True))
    results = query()
    assert len(results) == 10
    for hit in results:
        assert hit.relevance == pytest.approx(expected[hit.id], abs=2e-3)


def test_the_verdict_does_not_depend_on_how_many_are_asked_for(photos):
    photos.calibrate()
    verdicts = {photos.search("dog", k=k).relevant for k in (1, 5, 60)}
    assert len(verdicts) == 1
    every = photos.search("dog", k=60)
    least = sorted(hit.relevance for hit in every)[-4]
    assert len(photos.search("dog", k=3, min_relevance=least)) == 3
    [many] = photos.search_many(["dog"], k=60, min_relevance=least)
    assert found(many) == [hit.id for hit in every if hit.relevance >= least]


def test_what_is_usual_is_learnt_anew_after_an_add(tmp_path):
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        photos.calibrate()  # before there is any picture
        photos.add([(str(n), Image.new("RGB", (4, 4), (n, 0, 0))) for n in range(20)])
        before = photos.search(item=1)[0]
        photos.add([(str(n), Image.new("RGB", (4, 4), (n, 0, 0))) for n in range(20, 60)])
        vectors = photos.embeddings()[1]
        background = sampled("picture", None, vectors)
        expected = background.relevance(vectors[0], vectors @ vectors[0], vectors)
        for hit in photos.search(item=1):
            assert hit.relevance == pytest.approx(expected[hit.id - 1], abs=2e-3)
        assert before.relevance is not None


def test_few_pictures_are_no_measure_of_pictures(tmp_path):
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        photos.add([(str(n), Image.new("RGB", (4, 4), (n, 0, 0))) for n in range(9)])
        photos.calibrate()
        assert photos.search(item=1)[0].relevance is None
        assert photos.search("dog")[0].relevance is not None


def test_a_model_that_knows_english_only_gives_no_other_text_a_relevance(tmp_path, monkeypatch):
    monkeypatch.setattr(Names, "model_id", "builtin")  # which the catalogue says to be English only
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        photos.add([("1", Image.new("RGB", (4, 4)))])
        photos.calibrate()
        assert photos.search("개")[0].relevance is None
        assert photos.search("犬")[0].relevance is None
        with pytest.raises(QueryError, match="English only"):
            photos.calibrate("korean")
        with pytest.raises(QueryError, match="relevance of '개' would mean nothing"):
            photos.search("개", min_relevance=0.5)


def test_a_cache_that_is_damaged_gives_no_wrong_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSEARCH_QUERY_CACHE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        photos.add([("1", Image.new("RGB", (4, 4)))])
        photos.calibrate()
        expected = photos.search("dog")[0].relevance
    [file] = tmp_path.glob("cache/**/neutral.sqlite")
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("DELETE FROM queries WHERE asked = 100")
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        assert photos.search("dog")[0].relevance is None
        photos.calibrate()
        assert photos.search("dog")[0].relevance == pytest.approx(expected)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE queries SET vector = x'010203' WHERE asked = 7")
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        assert photos.search("dog")[0].relevance == pytest.approx(expected)
    file.write_bytes(file.read_bytes()[:5000])
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        photos.calibrate()
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        photos.calibrate()
        assert photos.search("dog")[0].relevance == pytest.approx(expected)


def test_diverse_hits_begin_with_the_best_and_are_less_alike(photos, world):
    plain, diverse = photos.search("dog", k=6), photos.search("dog", k=6, diverse=0.9)
    assert diverse[0] == plain[0]
    places = [[world[0].tolist().index(hit.id) for hit in results] for results in (plain, diverse)]
    alike = [np.triu(world[1][some] @ world[1][some].T, 1).sum() for some in places]
    assert alike[1] < alike[0]
    assert found(photos.search("dog", k=6, diverse=0)) == found(plain)


def test_parts_of_a_picture_may_fit_one_unit_each(tmp_path):
    both = Image.new("RGB", (64, 32), "red")
    both.paste(Image.new("RGB", (32, 32), "blue"), (32, 0))
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        photos.add([("magenta", Image.new("RGB", (64, 32), "magenta")), ("both", both)], tiles="1x2")
        assert photos.search(cs.Query("red") & cs.Query("blue"))[0].key == "both"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"query": "dog", "min_relevance": 2}, "min_relevance is a number from 0 to 1"),
        ({"query": "dog", "min_relevance": True}, "min_relevance is a number from 0 to 1"),
        ({"query": "dog", "diverse": -0.1}, "diverse is a number from 0 to 1"),
        ({"query": 7}, "a query is a text or a Query, got int"),
        ({"query": " "}, "a query must have words"),
        ({"query": "dog", "item": 3}, r"give one of .* not \['query', 'item'\]"),
        ({}, "give one of query, image, item and embedding, or liked pictures, not none"),
        ({"query": -cs.Query("dog")}, "only leads away"),
        ({"disliked": [1]}, "give one of"),
        ({"query": cs.Query("a") & "b", "liked": [1]}, "beside &, | or ~"),
        ({"query": cs.Query("a") & "b", "stages": [object()]}, "stages judge how pictures fit a text"),
        ({"query": "dog", "liked": [4711]}, "has the id 4711"),
        ({"query": "dog", "liked": [True]}, "a whole number, got True"),
        ({"query": "dog", "liked": 5}, r"liked is a list of hits, ids or pictures, got 5; write liked=\[…\]"),
        ({"query": "dog", "disliked": "a.jpg"}, "disliked is a list"),
        ({"query": "dog", "liked": b"\x89PNG"}, "liked is a list"),
        ({"liked": iter([])}, "or liked pictures, not none"),
        ({"query": cs.Query("dog") & "cat", "k": 0}, "a whole number of at least 1"),
        ({"query": cs.Query("dog") & "cat", "k": 2.5}, "a whole number of at least 1"),
    ],
)
def test_wrong_queries_say_what_is_wrong(photos, arguments, told):
    with pytest.raises(QueryError, match=told):
        photos.search(**arguments)


def test_pictures_are_judged_without_a_text_tower(tmp_path, monkeypatch):
    monkeypatch.setattr(Names, "encode_texts", lambda *_, **__: pytest.fail("a text was encoded"))
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        photos.add([(str(n), Image.new("RGB", (4, 4), (n, 0, 0))) for n in range(12)])
        assert photos.search(item=1, min_relevance=0, k=3)[0].relevance is not None
        assert len(photos.search(cs.Query.item(1) & ~cs.Query.item(2), k=3)) == 3


def test_a_hit_of_another_collection_is_refused(photos, tmp_path):
    with cs.Collection(tmp_path / "c", model=Names()) as others:
        others.add([("other", Image.new("RGB", (4, 4)))])
        hit = others.search("dog")[0]
    for arguments in ({"item": hit}, {"liked": [hit]}):
        with pytest.raises(QueryError, match="'other' is of another collection"):
            photos.search(**arguments)


def test_an_empty_collection_finds_nothing(tmp_path):
    with cs.Collection(tmp_path / "c", model=Names()) as photos:
        assert len(photos.search(cs.Query("dog") & "cat")) == 0
        assert len(photos.search("dog", min_relevance=0.5, diverse=0.5)) == 0
        photos.add([("1", Image.new("RGB", (4, 4)))])
        photos.remove(1)
        assert len(photos.search(cs.Query("dog") & "cat")) == 0
        assert len(photos.search("dog", min_relevance=0.5)) == 0
