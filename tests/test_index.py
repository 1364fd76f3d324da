"""Approximate indexes: held to brute force in float64, alive, whole or not used at all."""

import contextlib
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import clipsearch as cs
from clipsearch import gpu, spec
from clipsearch.errors import ClipsearchError, CollectionError, DamagedError, LayoutError, LockedError
from clipsearch.exact import ExactIndex
from clipsearch.faiss_check import load_faiss
from clipsearch.files import write_lock
from clipsearch.gpu import DeviceIndex
from clipsearch.index import (
    ApproximateIndex,
    approximate,
    build,
    keeper,
    load,
    published,
    read_about,
    tuning,
)
from clipsearch.index.approximate import rows_of
from clipsearch.index.layout import Layout, make_layout, omp_threads
from clipsearch.spec import IndexSpec, choose, index_specs, spec_of
from clipsearch.types import as_embeddings
from clipsearch.writer import writing

DIM, N = 32, 4000
CENTRES = np.random.default_rng(9).standard_normal((60, DIM))
GAP = 2 * np.random.default_rng(8).standard_normal(DIM)  # between texts and pictures


def pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    near = CENTRES[rng.integers(len(CENTRES), size=count)]
    return as_embeddings(1.2 * near + rng.standard_normal((count, DIM)) + GAP)


class MadeUp:
    """Texts lie near the pictures of a group, and apart from all pictures."""

    model_id, dim = "made-up", DIM

    def encode_images(self, images):
        raise NotImplementedError

    def encode_texts(self, texts, *, role="query"):
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        rngs = [np.random.default_rng(seed) for seed in seeds]
        rows = [CENTRES[rng.integers(len(CENTRES))] + rng.standard_normal(DIM) - GAP for rng in rngs]
        return as_embeddings(np.array(rows).reshape(-1, DIM))

    def fingerprint(self):
        return "made-up-1"


def put(photos, vectors, *, boxes=None, each=1):
    """Add made-up pictures, `each` rows for one; their content ids."""
    with writing(photos._store) as writer:
        space = photos._spaces.of_encoder(writer)
        source = writer.add_source("iterator", "", {})
        with writer.transaction() as db:
            first = db.execute("SELECT coalesce(max(id), 0) + 1 FROM contents").fetchone()[0]
            ids = [
                writer.add_content(hashlib.sha256(f"{first + i}".encode()).digest(), {})
                for i in range(len(vectors) // each)
            ]
            rows = [(source, str(id), "", id) for id in ids]
            db.executemany("INSERT INTO items (source, key, stamp, content) VALUES (?, ?, ?, ?)", rows)
            writer.append(space, np.repeat(ids, each), vectors, boxes=boxes)
    return ids


@pytest.fixture
def photos(tmp_path):
    with cs.Collection(tmp_path / "c", model=MadeUp()) as photos:
        put(photos, pictures(N))
        yield photos


TEXTS = [f"text {number}" for number in range(100)]


def brute_force(photos, queries, k=10):
    """{content} of the k best for each query, and all scores, by float64 products of what is stored."""
    snapshot = photos._store.snapshot(photos._spaces.in_use())
    stored = np.concatenate([segment.vectors for segment in snapshot.segments]).astype(np.float64)
    scores = queries.astype(np.float64) @ stored.T
    scores[:, np.isin(snapshot.contents, snapshot.hidden)] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [set(snapshot.contents[rows]) for rows in best], scores, snapshot.contents


def recall(photos, k=10):
    """Of the true k best of each text, the share that a search finds; every hit's score is checked."""
    truth, scores, contents = brute_force(photos, photos.encode_texts(TEXTS), k)
    column = {int(content): number for number, content in enumerate(contents)}
    found = photos.search_many(TEXTS, k=k)
    for line, results in zip(scores, found, strict=True):
        told = [hit.score for hit in results]
        assert told == sorted(told, reverse=True)
        true = [line[column[int(hit.key)]] for hit in results]
        np.testing.assert_allclose(told, true, atol=2e-6)
    shares = [
        len({int(h.key) for h in hits} & want) / len(want) for hits, want in zip(found, truth, strict=True)
    ]
    return float(np.mean(shares))


def approximate_index(photos):
    index = photos._searcher()._index
    assert isinstance(index, ApproximateIndex)
    return index


# ---------------------------------------------------------------- the shipped layouts


@pytest.mark.parametrize("name", list(index_specs()))
def test_every_shipped_layout_is_held_to_brute_force(name, photos):
    about = photos.build_index(name, progress=False)
    assert about.layout == name
    assert recall(photos) >= index_specs()[name].min_recall
    if about.number:
        assert approximate_index(photos)._rows.tolist() == list(range(N))


@pytest.mark.parametrize("factory", ["IVF16,Flat", "HNSW16,SQfp16", "IVF8,PQ16x4fs", "Flat", "SQ8"])
def test_a_factory_string_of_ones_own_is_built_and_tuned(factory, photos):
    about = photos.build_index(factory, progress=False)
    assert (about.layout, about.factory) == (factory, factory)
    assert recall(photos) >= about.tuned["text"].recall - 0.03  # other texts, a tenth as many


@pytest.mark.parametrize(
    ("factory", "complaint"),
    [
        ("no such thing", "neither a shipped layout"),
        ("pqfastscan", "did you mean 'pq-fastscan'"),
        ("IVF{n},Flat", "neither a shipped layout"),
        ("HNSW1", "HNSW1; expected a number from 2"),
        ("HNSW16_2+PQ8", "expected IVF, HNSW, Flat or SQ"),
        ("IVF2000000000,Flat", "expected a number from 1 to"),
        ("", "a layout is a name"),
        (3, "a layout is a name"),
        ("IVF16,PQ5", "neither a shipped layout|cannot build"),
        ("PQ16x4fs", "written IVF1,PQ"),
        ("PQ16", "written IVF1,PQ"),
        ("IVF16,Flat,Refine(Flat)", "leave Refine out"),
        ("IVF8000,Flat", "8000 cells need as many vectors"),
    ],
)
def test_a_layout_that_cannot_be_is_an_error_and_changes_nothing(factory, complaint, photos):
    with pytest.raises(LayoutError, match=complaint):
        photos.build_index(factory, progress=False)
    assert photos.index()["layout"] == "exact"
    assert recall(photos) == 1.0


def test_auto_looks_at_every_vector_up_to_a_gigabyte_of_them():
    assert choose(976_562, 512).spec.name == "exact"  # 2 x 976,562 x 512 = 999,999,488 bytes
    assert choose(976_563, 512).spec.name == "ivf-pq-fastscan"
    # 2,000,000 x (512 / 4 + 8) = 272,000,000 bytes
    assert choose(2_000_000, 512, memory=272_000_000).spec.name == "ivf-pq-fastscan"
    refused = choose(2_000_000, 512, memory=271_999_999)
    assert refused.spec.name == "exact" and "272 MB of memory" in refused.why


def test_cells_are_the_power_of_two_nearest_to_four_roots():
    assert [spec.cells(rows) for rows in (1, 100_000, 1_000_000, 10_000_000)] == [4, 1024, 4096, 16384]
    assert spec_of("ivf-pq-fastscan").written_out(1_000_000, 512) == "IVF4096(SQfp16),PQ256x4fs"
    assert spec_of("pq-fastscan").written_out(9, 3) == "IVF1(SQfp16),PQ3x4fs"


@pytest.mark.parametrize(
    ("memory", "count"), [(5, 5), ("5", 5), ("4GB", 4 * 10**9), ("1.5 MiB", 3 * 2**19), ("2kb", 2000)]
)
def test_memory_is_a_number_of_bytes_or_a_text_with_a_unit(memory, count):
    assert spec.as_bytes(memory) == count


@pytest.mark.parametrize("memory", ["", "GB", "-1", "4 bananas", 0, "0GB"])
def test_memory_that_is_no_amount_is_an_error_before_anything_is_made(memory, tmp_path):
    with pytest.raises(LayoutError, match="such as '4GB'"):
        cs.Collection(tmp_path / "c", model=MadeUp(), memory=memory)
    assert not (tmp_path / "c").exists()


# ---------------------------------------------------------------- tuning


def test_a_tuned_recall_is_the_one_that_brute_force_finds(photos):
    about = photos.build_index("IVF64,Flat", target_recall=0.7, queries=TEXTS, progress=False)
    tuned = about.tuned["text"]
    assert tuned.queries == 100 and tuned.at_least >= 0.7
    assert recall(photos) == pytest.approx(tuned.recall, abs=1e-9)
    assert tuned.probes < 64, "0.7 needs fewer than all cells"


def test_what_is_not_found_among_few_vectors_is_not_counted_as_found():
    vectors = pictures(300)
    made = make_layout(spec_of("IVF64,Flat"), np.arange(300), lambda rows: vectors[rows], DIM)
    nearest = np.argsort(-(vectors[:50] @ vectors.T), axis=1, kind="stable")[:, :10]
    found = made.candidates(vectors[:50], 300, 1)
    by_hand = [len(set(f) & set(n)) / 10 for f, n in zip(found, nearest, strict=True)]
    assert np.mean(by_hand) < 0.9, "ten of 300 vectors are not in one cell of 64"
    trial = tuning._Trial(made, vectors[:50], nearest)
    assert trial.setting(1, 128).recalls.tolist() == by_hand  # 1,280 candidates are more than there are


def test_a_stored_vector_that_asks_is_not_among_its_own_answers(photos):
    snapshot = photos._store.snapshot(photos._spaces.in_use())
    held = build._held_out(snapshot, np.arange(N), photos.encode_texts, TEXTS)
    for kind, expected in (("image", 500), ("text", len(TEXTS))):
        asked, nearest, _ = held[kind]
        scores = asked.astype(np.float64) @ snapshot.vectors(np.arange(N)).T
        if kind == "image":
            scores[np.arange(len(asked)), scores.argmax(axis=1)] = -np.inf  # itself
        assert nearest.tolist() == np.argsort(-scores, axis=1)[:, :10].tolist() and len(asked) == expected


def test_texts_need_more_probes_than_pictures_where_there_is_a_gap(photos):
    tuned = photos.build_index("IVF64,Flat", progress=False).tuned
    assert tuned["text"].probes > tuned["image"].probes
    assert tuned["text"].source == "captions that ship with clipsearch"


def test_the_bound_is_the_mean_less_1645_standard_errors():
    recalls = np.array([1.0, 0.5, 0.9, 0.8])  # mean .8; deviations .2 -.3 .1 0: variance .14 / 4 = .035
    assert tuning._bounds(recalls) == (0.8, round(0.8 - 1.645 * np.sqrt(0.035) / 2, 4))


class Answers:
    """Stands for an index: candidates that are worked out by hand."""

    most_probes = 8

    def candidates(self, queries, count, probes, bits=None):
        """The j-th true neighbour of a query stands at place 30 * j, if its cell, j, is among those read."""
        found = np.full((len(queries), count), -1)
        for j in range(min(10, probes)):
            found[:, 30 * j] = j
        return found


def test_the_fewest_probes_and_the_least_depth_that_reach_the_target_are_found():
    queries, nearest = np.zeros((50, 4), np.float32), np.tile(np.arange(5), (50, 1))
    settings = list(tuning._good_enough(tuning._Trial(Answers(), queries, nearest), 0.8))
    # four of five neighbours: four cells, and places up to 90, so 16 candidates a hit; 8 give places below 80
    assert [(s.probes, s.depth) for s in settings] == [(4, 128), (4, 64), (4, 32), (4, 16)]


def test_a_target_out_of_reach_takes_the_widest_setting_and_says_so(photos, caplog):
    about = photos.build_index("IVF1,PQ1x4", target_recall=0.999, progress=False)  # 16 different codes
    assert about.tuned["text"].depth == 128
    assert about.tuned["text"].at_least < 0.999
    assert "no setting of this index is sure to find 100% for text" in caplog.text


def test_a_model_without_a_text_tower_is_tuned_on_pictures_alone(photos, monkeypatch):
    def encode_texts(self, texts, *, role="query"):
        raise NotImplementedError

    monkeypatch.setattr(MadeUp, "encode_texts", encode_texts)
    tuned = photos.build_index("ivf-pq-fastscan", progress=False).tuned
    assert tuned["image"].at_least >= 0.95
    assert tuned["text"][:2] == (128, 32)  # as indexes/ivf-pq-fastscan.toml has it
    assert "no texts" in tuned["text"].source


def test_a_few_texts_are_made_up_to_a_hundred(photos):
    tuned = photos.build_index("IVF64,Flat", queries=["one", "two"], progress=False).tuned["text"]
    assert (tuned.queries, tuned.source[:46]) == (100, "texts that were given, and 98 captions that sh")


@pytest.mark.parametrize("queries", [[], [1, 2], ["  "], [None]])
def test_texts_to_tune_on_that_are_none_are_an_error(queries, photos):
    with pytest.raises(LayoutError, match="at least one text"):
        photos.build_index("IVF64,Flat", queries=queries)


def test_texts_for_a_model_that_encodes_none_are_an_error(photos, monkeypatch):
    def encode_texts(self, texts, *, role="query"):
        raise NotImplementedError("no operator")

    monkeypatch.setattr(MadeUp, "encode_texts", encode_texts)
    with pytest.raises(NotImplementedError, match="no operator"):
        photos.build_index("IVF64,Flat", queries=TEXTS, progress=False)


def test_pictures_are_searched_with_the_setting_for_pictures(photos):
    about = photos.build_index("IVF64,Flat", progress=False)
    assert about.tuned["text"].probes > about.tuned["image"].probes
    index = approximate_index(photos)
    asked = []
    usual = index._layout.candidates
    index._layout.candidates = lambda queries, count, probes, bits: (
        asked.append(probes) or usual(queries, count, probes, bits)
    )
    photos.search(TEXTS[0])
    photos.search(item=7)
    assert asked == [about.tuned["text"].probes, about.tuned["image"].probes]


@pytest.mark.parametrize("target", [0, 1, 1.5, -1, "0.9", float("nan")])
def test_a_target_that_is_no_share_is_an_error(target, photos):
    with pytest.raises(LayoutError, match=r"share such as 0\.95"):
        photos.build_index("IVF64,Flat", target_recall=target)


# ---------------------------------------------------------------- a living collection


def test_what_is_added_is_found_at_once_and_what_is_removed_never_again(photos):
    photos.build_index("IVF64,Flat", progress=False)
    query = pictures(1, seed=5)
    (new,) = put(photos, query)
    assert photos.search(embedding=query[0])[0].key == str(new)
    assert approximate_index(photos).waiting == pytest.approx(1 / (N + 1))
    gone = [hit.id for hit in photos.search_many(TEXTS[:1], k=50)[0]]
    photos.remove(*gone)
    photos.close()
    assert recall(photos) >= 0.95
    assert not {hit.id for results in photos.search_many(TEXTS, k=100) for hit in results} & set(gone)


def test_compacting_keeps_the_index(photos):
    photos.build_index("IVF64,Flat", progress=False)
    photos.remove(*range(1, 200), *range(3000, 3100))
    put(photos, pictures(50, seed=3))
    photos.compact()
    index = approximate_index(photos)
    assert (len(index._snapshot), index.gone) == (N - 299 + 50, pytest.approx(299 / N))
    assert (index._rows[:199] == -1).all() and index._rows[199] == 0
    assert recall(photos) >= 0.95


def test_rows_that_were_hidden_when_it_was_built_and_came_back_are_found(photos):
    with writing(photos._store) as writer, writer.transaction() as db:
        db.execute("UPDATE items SET missing = 1 WHERE id BETWEEN 101 AND 200")
    photos.build_index("IVF64,Flat", progress=False)
    with writing(photos._store) as writer, writer.transaction() as db:
        db.execute("UPDATE items SET missing = 0 WHERE id BETWEEN 101 AND 150")
    index = approximate_index(photos)
    assert (len(index._rows), index.waiting) == (N - 100, pytest.approx(50 / N))
    found = photos.search(item=120, k=1)
    _, scores, contents = brute_force(photos, photos._searcher().embedding(120))
    scores[0, contents == 120] = -np.inf
    assert int(found[0].key) == contents[np.argmax(scores[0])]
    assert photos.search(embedding=photos._searcher().embedding(120)[0], k=1)[0].key == "120"
    assert recall(photos) >= 0.95


def test_the_target_holds_for_more_than_ten_hits(photos):
    photos.build_index("IVF64,PQ16x4fs", progress=False)
    assert [recall(photos, k) >= 0.95 for k in (1, 10, 30, 100)] == [True] * 4


def test_all_that_there_are_come_when_so_many_are_asked_for(photos):
    photos.build_index("IVF64,Flat", target_recall=0.3, progress=False)
    assert len(photos.search(TEXTS[0], k=N)) == N


def test_more_than_there_are_gives_all_and_no_row_of_nothing(photos):
    photos.build_index("IVF64,Flat", progress=False)
    photos.remove(*range(11, N + 1))
    photos.close()
    assert sorted(hit.id for hit in photos.search(embedding=np.ones(DIM), k=99)) == list(range(1, 11))


def test_an_index_is_built_anew_in_the_background_when_a_tenth_is_not_in_it(photos):
    photos.build_index("IVF64,Flat", target_recall=0.9, progress=False)
    put(photos, pictures(N // 10, seed=1))
    assert photos._keeper.due(photos._spaces.in_use()) == ""  # a tenth of N is less than that of all
    put(photos, pictures(N // 10, seed=2))
    photos._keep_index(progress=False)
    photos.close()  # waits
    index = approximate_index(photos)
    assert (index.waiting, len(index._rows)) == (0, N + 2 * (N // 10))
    assert index.about.wanted == ("IVF64,Flat", 0.9)


def test_an_index_is_built_anew_when_much_of_it_was_removed(photos):
    photos.build_index("IVF64,Flat", progress=False)
    photos.remove(*range(1, 500))  # 12 %
    photos.close()
    assert approximate_index(photos).gone == pytest.approx(499 / N)
    photos.remove(*range(500, 700))
    photos.close()
    assert approximate_index(photos).gone == 0


def test_past_the_exact_limit_adding_builds_an_index_by_itself(photos, monkeypatch):
    monkeypatch.setattr(spec, "MAX_EXACT", 2 * DIM * (N + 10))
    monkeypatch.setattr(keeper, "MAX_EXACT", 2 * DIM * (N + 10))
    photos._keep_index(progress=False)
    photos.close()
    assert photos.index()["layout"] == "exact"
    put(photos, pictures(11, seed=1))
    photos._keep_index(progress=False)
    photos.close()
    assert (photos.index()["layout"], photos.index()["rows"]) == ("ivf-pq-fastscan", N + 11)
    assert recall(photos) >= 0.95


def test_searches_go_on_while_an_index_is_built_and_a_second_builder_is_refused(photos):
    expected = [hit.key for hit in photos.search(TEXTS[0])]
    with write_lock(photos.path / keeper.LOCK):
        assert [hit.key for hit in photos.search(TEXTS[0])] == expected
        put(photos, pictures(5, seed=4))
        with pytest.raises(LockedError):
            photos.build_index("IVF64,Flat", progress=False)


def test_rows_added_while_an_index_is_built_wait_for_the_next_one(photos, monkeypatch):
    real = published.write_durably

    def add_meanwhile(path, write):
        if path.name == published.SIDECAR:
            put(photos, pictures(7, seed=6))
            photos.remove(1, 2)
            photos.compact()
        real(path, write)

    monkeypatch.setattr(published, "write_durably", add_meanwhile)
    photos.build_index("IVF64,Flat", progress=False)
    index = approximate_index(photos)
    assert (len(index._rows), len(index._snapshot), index._rows[:3].tolist()) == (N, N + 5, [-1, -1, 0])
    assert recall(photos) >= 0.95


def test_going_back_to_exact_leaves_no_file_of_the_index(photos):
    photos.build_index("IVF64,Flat", progress=False)
    photos.build_index("exact", progress=False)
    assert {path.name for path in (photos.path / "index").rglob("*.*")} == {"index.json", "wanted.json"}
    assert recall(photos) == 1.0


def test_a_script_that_ends_after_adding_has_its_index_all_the_same(tmp_path):
    code = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("test_index", {__file__!r})
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
photos = made.cs.Collection({str(tmp_path / "c")!r}, model=made.MadeUp())
made.put(photos, made.pictures(2000))
photos.build_index("IVF16,Flat", progress=False)
made.put(photos, made.pictures(600, seed=1))
photos._keep_index(progress=False)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with cs.Collection(tmp_path / "c", model=MadeUp()) as photos:
        assert photos.index()["rows"] == 2600


def test_another_model_waits_for_an_index_that_is_tuned_with_the_old_one(photos, monkeypatch):
    photos.build_index("IVF16,Flat", progress=False)
    with writing(photos._store) as writer:
        space = writer.add_space(model="other", fingerprint="other-1", dim=DIM)
        with writer.transaction():
            writer.append(space, np.arange(1, N + 1), pictures(N, seed=7))
    asked = []

    class Other(MadeUp):
        model_id = "other"

        def encode_texts(self, texts, *, role="query"):
            asked.append(len(texts))
            return super().encode_texts(texts, role=role)

        def fingerprint(self):
            return "other-1"

    with writing(photos._store) as writer, writer.transaction() as db:
        db.execute("UPDATE items SET missing = 1 WHERE id <= 800")
    photos._keep_index(progress=False)
    photos.use_model(Other())
    assert (asked, photos._keeper._building()) == ([], False)


def test_an_encoder_that_breaks_while_an_index_is_tuned_is_told_and_breaks_nothing(photos, caplog):
    photos.build_index("IVF16,Flat", progress=False)
    put(photos, pictures(1000, seed=1))
    photos._spaces.encoder.encode_texts = lambda texts, role="query": 1 / 0
    photos._keep_index(progress=False)
    photos.close()
    assert "no index was built" in caplog.text and "ZeroDivisionError" in caplog.text
    assert len(photos.search(item=7).hits) == 10


def test_a_dropped_model_takes_its_index_with_it(photos):
    class Other(MadeUp):
        model_id = "other"

        def fingerprint(self):
            return "other-1"

    photos.build_index("IVF64,Flat", progress=False)
    with writing(photos._store) as writer:
        space = writer.add_space(model="other", fingerprint="other-1", dim=DIM)
        with writer.transaction():
            writer.append(space, np.arange(1, N + 1), pictures(N, seed=7))
    photos.use_model(Other())
    photos.drop_model("made-up")
    assert list((photos.path / "index").glob("*")) == []
    assert photos.verify().problems == []


def test_an_index_of_which_nothing_is_left_is_not_built_again(photos, caplog):
    photos.build_index("Flat", progress=False)
    photos.remove(*range(1, N + 1))
    photos.close()
    assert photos.search(embedding=np.ones(DIM)).hits == ()
    with pytest.raises(LayoutError, match="no pictures to build 'Flat' of"):
        photos.build_index(progress=False)
    put(photos, pictures(300))
    photos._keep_index(progress=False)
    photos.close()
    assert (photos.index()["rows"], photos.index()["gone"]) == (300, 0)


def test_an_auto_index_that_shrank_is_kept_up_until_it_is_half_the_limit(photos, monkeypatch):
    for module in (spec, keeper):
        monkeypatch.setattr(module, "MAX_EXACT", 2 * DIM * (N - 1))
    photos._keep_index(progress=False)
    photos.close()
    assert photos.index()["rows"] == N
    photos.remove(*range(1, 400))
    photos.close()
    assert photos._keeper.due(photos._spaces.in_use()) == ""
    photos.remove(*range(400, 700))  # 17 % of it
    photos.close()
    assert photos.index()["layout"] == "exact"


def test_another_space_is_described_without_losing_the_index_in_use(photos):
    photos.build_index("IVF64,Flat", progress=False)
    with writing(photos._store) as writer:
        space = writer.add_space(model="other", fingerprint="other-1", dim=DIM)
        with writer.transaction():
            writer.append(space, np.arange(1, N + 1), pictures(N, seed=7))
    photos.search(TEXTS[0])
    before = photos._keeper._loaded[1][1]
    assert [about["index"]["layout"] for about in photos.info()["models"]] == ["IVF64,Flat", "exact"]
    assert photos._keeper._loaded[1][1] is before


def test_a_read_only_collection_has_no_index_built(photos):
    reader = cs.Collection(photos.path, model=MadeUp(), read_only=True)
    with reader, pytest.raises(CollectionError, match="read-only"):
        reader.build_index("IVF64,Flat")
    with cs.Collection(photos.path.parent / "empty", model=MadeUp()) as empty:
        with pytest.raises(CollectionError, match="no vectors yet"):
            empty.build_index()
        assert empty.index() == {}


def test_a_search_with_a_mask_finds_what_passes(photos):
    photos.build_index("IVF64,Flat", progress=False)
    index, exact = approximate_index(photos), ExactIndex(photos._store.snapshot(photos._spaces.in_use()))
    queries = photos.encode_texts(TEXTS)
    for share, least in ((0.001, 1.0), (0.1, 1.0), (0.5, 1.0)):
        only = np.random.default_rng(1).random(N) < share
        truth = exact.search(queries, 10, only=only)
        found = index.search(queries, 10, only=only)
        assert (
            np.mean([len(set(f.rows) & set(t.rows)) / len(t.rows) for f, t in zip(found, truth, strict=True)])
            >= least
        )
        assert all(only[near.rows].all() for near in found)


def test_past_what_is_looked_at_a_mask_widens_the_search(photos, monkeypatch):
    photos.build_index("IVF64,Flat", progress=False)
    monkeypatch.setattr(approximate, "FEW", 10)
    monkeypatch.setattr(approximate, "LOOKED_AT", 0)
    index, exact = approximate_index(photos), ExactIndex(photos._store.snapshot(photos._spaces.in_use()))
    queries = photos.encode_texts(TEXTS)
    only = np.random.default_rng(1).random(N) < 0.25
    truth, found = exact.search(queries, 10, only=only), index.search(queries, 10, only=only)
    assert all(only[near.rows].all() for near in found)
    widened = np.mean([len(set(f.rows) & set(t.rows)) / 10 for f, t in zip(found, truth, strict=True)])
    assert widened >= 0.95
    monkeypatch.setattr(approximate, "MOST_WIDENED", 1)
    narrow = index.search(queries, 10, only=only)
    assert (
        np.mean([len(set(f.rows) & set(t.rows)) / 10 for f, t in zip(narrow, truth, strict=True)]) < widened
    )


# ---------------------------------------------------------------- rows of an index, later


@pytest.mark.parametrize(
    ("indexed", "contents", "rows"),
    [
        ([1, 2, 3], [1, 2, 3], [0, 1, 2]),
        ([1, 2, 3], [1, 2, 3, 4, 5], [0, 1, 2]),
        ([1, 2, 3], [1, 3, 4], [0, -1, 1]),
        ([2, 3], [1, 2, 3, 4], [1, 2]),  # 1 was hidden
        ([7, 3, 5], [7, 5, 9], [0, -1, 1]),  # contents need not ascend
        ([1, 2], [], [-1, -1]),
        ([1, 1, 2, 2], [1, 1, 2, 2, 3, 3], [0, 1, 2, 3]),  # two rows each
        ([1, 1, 2, 2], [2, 2, 3], [-1, -1, 0, 1]),
        ([1, 2], [1, 2, 1, 2, 2], [0, 1]),  # more rows of what is known came later
    ],
)
def test_positions_find_their_rows_again(indexed, contents, rows):
    found = rows_of(np.array(indexed, np.int64), np.array(contents, np.int64))
    assert found.tolist() == rows


def test_rows_of_another_collection_are_refused():
    with pytest.raises(ValueError, match="not rows of this collection"):
        rows_of(np.array([2, 1]), np.array([1, 2]))


# ---------------------------------------------------------------- several rows a picture


def test_of_a_picture_with_several_rows_the_best_one_counts_and_tells_its_box(tmp_path):
    eye = np.eye(DIM, dtype=np.float32)
    boxes = [(0, 0, 1, 1), (0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)] * 3
    with cs.Collection(tmp_path / "c", model=MadeUp()) as photos:
        put(photos, as_embeddings(eye[:9] + 0.1 * eye[20]), boxes=boxes, each=3)
        hits = photos.search(embedding=eye[4] + 0.5 * eye[5] + 0.2 * eye[0], k=5)
        assert [hit.key for hit in hits] == ["2", "1", "3"]
        assert hits[0].box == (0, 0, 0.5, 0.5)  # row 4: the second of the second picture
        assert hits[1].box == (0, 0, 1, 1)  # row 0
        assert hits[0].score == pytest.approx(1 / np.sqrt(1.01) / np.linalg.norm([1, 0.5, 0.2]), abs=1e-3)
        assert photos.verify().problems == []
        ids, vectors = photos.embeddings()  # of the whole pictures
        np.testing.assert_allclose(vectors @ as_embeddings(eye[:9:3] + 0.1 * eye[20]).T, np.eye(3), atol=0.02)
        assert ids == [1, 2, 3]


def test_k_pictures_come_though_one_has_the_k_best_rows(tmp_path):
    rng = np.random.default_rng(3)
    near = as_embeddings(np.ones((16, DIM)) + 0.01 * rng.standard_normal((16, DIM)))
    boxes = [(n / 16, 0, 1, 1) for n in range(16)]
    with cs.Collection(tmp_path / "c", model=MadeUp()) as photos:
        put(photos, near, boxes=boxes, each=16)
        put(photos, pictures(30))
        assert len({hit.key for hit in photos.search(embedding=np.ones(DIM), k=10)}) == 10


def test_a_second_vector_of_the_same_part_of_a_picture_is_found_by_verify(tmp_path):
    with cs.Collection(tmp_path / "c", model=MadeUp()) as photos:
        put(photos, pictures(4), boxes=[(0, 0, 1, 1), (0, 0, 0.5, 1), (0.5, 0, 1, 1), (0, 0, 0.5, 1)], each=4)
        assert photos.verify().problems == ["1-made-up has two vectors for one content"]


# ---------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexed") / "c"
    with cs.Collection(folder, model=MadeUp()) as photos:
        put(photos, pictures(400))
        photos.build_index("IVF4(SQfp16),PQ16x4fs", progress=False)
    return folder


@pytest.fixture
def copy(indexed, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(indexed, folder)
    with cs.Collection(folder, model=MadeUp()) as photos:
        yield photos


def files_of(photos):
    folder = photos.path / "index" / "1-made-up"
    return {path.suffix: path for path in folder.iterdir() if path.name != published.WANTED}


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << (place % 8)
    path.write_bytes(data)


def test_a_flipped_bit_anywhere_in_the_description_is_noticed(copy):
    path, space = files_of(copy)[".json"], copy._spaces.in_use()
    whole = path.read_bytes()
    assert read_about(copy._store, space).rows == 400
    for place in range(len(whole)):
        flip(path, place)
        with pytest.raises(DamagedError):
            read_about(copy._store, space)
        path.write_bytes(whole)


@pytest.mark.parametrize("suffix", [".faiss", ".npy"])
def test_a_flipped_byte_of_an_index_file_never_reaches_faiss(suffix, copy, caplog):
    path = files_of(copy)[suffix]
    size = path.stat().st_size
    truth, _, _ = brute_force(copy, copy.encode_texts(TEXTS[:1]))
    for place in (0, 9, size // 3, size // 2, size - 1):
        flip(path, place)
        with pytest.raises(DamagedError, match="is not what was written"):
            load(copy._store, copy._spaces.in_use())
        assert any(path.name in problem for problem in copy.verify().problems)
        with cs.Collection(copy.path, model=MadeUp(), read_only=True) as reader:
            assert {int(hit.key) for hit in reader.search(TEXTS[0])} == truth[0]
            assert reader.index()["why"].endswith("is not built yet")
        flip(path, place)
    assert "every vector is looked at until it is built anew" in caplog.text


def test_with_any_byte_flipped_a_search_answers_or_says_what_is_wrong(copy):
    rng = np.random.default_rng(0)
    files = [path for part in ("vectors", "index") for path in (copy.path / part).rglob("*.*")]
    assert {path.suffix for path in files} == {".npy", ".faiss", ".json"}
    for path in files:
        whole = path.read_bytes()
        for place in {0, 8, 130, len(whole) - 1, *rng.integers(len(whole), size=25).tolist()}:
            flip(path, place)
            with contextlib.suppress(ClipsearchError), cs.Collection(copy.path, read_only=True) as reader:
                query = as_embeddings(rng.standard_normal((1, DIM)))
                assert len(reader.search(embedding=query[0])) <= 10
            assert not copy.verify().ok
            path.write_bytes(whole)
    assert copy.verify().ok


@pytest.mark.parametrize("name", [".faiss", ".npy"])
def test_a_damaged_or_lost_index_is_built_anew_by_whoever_writes_next(name, copy):
    path = files_of(copy)[name]
    path.unlink()
    assert copy.verify().problems
    put(copy, pictures(1, seed=2))
    copy._keep_index(progress=False)
    copy.close()
    assert copy.verify().problems == []
    assert (copy.index()["rows"], copy.index()["factory"]) == (401, "IVF4(SQfp16),PQ16x4fs")
    assert not path.exists()


@pytest.mark.parametrize("name", ["index.json", "wanted.json"])
def test_a_damaged_description_is_told_and_written_anew_with_what_was_asked_for(name, copy, caplog):
    path = copy.path / "index" / "1-made-up" / name
    flip(path, 40)
    assert len(copy.verify().problems) == 1 and name in copy.verify().problems[0]
    for _ in range(3):
        copy.search(TEXTS[0])
        put(copy, pictures(1, seed=len(copy)))
    copy._keep_index(progress=False)
    copy.close()
    assert copy.verify().problems == []
    assert (copy.index()["layout"], copy.index()["rows"]) == ("IVF4(SQfp16),PQ16x4fs", 403)
    assert caplog.text.count("every vector is looked at") <= 1


def test_where_both_descriptions_are_damaged_it_is_as_if_nothing_had_been_asked_for(copy):
    for name in ("index.json", "wanted.json"):
        flip(copy.path / "index" / "1-made-up" / name, 40)
    copy._keep_index(progress=False)
    copy.close()
    assert (copy.index()["layout"], copy.verify().problems) == ("exact", [])


def test_an_index_of_another_collection_is_foreign(copy, tmp_path, caplog):
    with cs.Collection(tmp_path / "other", model=MadeUp()) as other:
        put(other, pictures(400, seed=3))
        about = other.path / "collection.json"
        about.write_text(about.read_text().replace("created", "created "))  # as if made at another time
        shutil.copytree(copy.path / "index", other.path / "index")
        truth, _, _ = brute_force(other, other.encode_texts(TEXTS[:1]))
        assert {int(hit.key) for hit in other.search(TEXTS[0])} == truth[0]
        assert "belongs to another collection" in caplog.text
        assert isinstance(other._searcher()._index, ExactIndex)


def test_an_unfinished_build_leaves_the_old_index_and_is_swept_by_the_next(copy, monkeypatch):
    before, space = files_of(copy), copy._spaces.in_use()

    def stop(path, write):
        if path.name == published.SIDECAR:
            raise CollectionError("the disk is full")
        return real(path, write)

    real = published.write_durably
    with monkeypatch.context() as patched:
        patched.setattr(published, "write_durably", stop)
        with pytest.raises(CollectionError, match="full"):
            copy.build_index(progress=False)
    assert len(list(before[".json"].parent.iterdir())) == 6
    assert load(copy._store, space).about.number == 1
    assert copy.build_index(progress=False).number == 3
    assert sorted(path.name for path in before[".json"].parent.iterdir()) == [
        "000003.contents.npy",
        "000003.faiss",
        "index.json",
        "wanted.json",
    ]


def test_faiss_may_not_allocate_more_than_a_file_could_need(copy):
    faiss = load_faiss()
    before = faiss.get_deserialization_vector_byte_limit()
    path = files_of(copy)[".faiss"]
    from clipsearch.index.layout import _at_most, read_layout

    with _at_most(faiss, 1000):
        assert faiss.get_deserialization_vector_byte_limit() == 1000
        with pytest.raises(RuntimeError):
            faiss.read_index(str(path))
    assert faiss.get_deserialization_vector_byte_limit() == before
    assert len(read_layout(path)) == 400


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mapped files")
def test_the_index_is_mapped_and_not_read_into_memory(copy):
    copy.search(TEXTS[0])
    mapped = Path("/proc/self/maps").read_text()
    assert str(files_of(copy)[".faiss"]) in mapped


def test_a_description_of_a_later_format_is_not_read(copy):
    path = files_of(copy)[".json"]
    told = json.loads(path.read_text()) | {"format": 99}
    path.write_text(json.dumps(told))
    with pytest.raises(DamagedError, match="format 99, and this version reads 1"):
        read_about(copy._store, copy._spaces.in_use())


def test_a_script_that_ends_after_adding_has_its_index(tmp_path):
    code = f"""
import numpy as np
from PIL import Image
import clipsearch as cs
from clipsearch.testing import ColourEncoder
class Bright(ColourEncoder):
    def encode_images(self, images):
        return super().encode_images(images) + 0.01
photos = cs.Collection({str(tmp_path / "c")!r}, model=Bright())
def paint(first, count):
    colours = map(tuple, np.random.default_rng(first).integers(0, 256, (count, 3)).tolist())
    return [(f"{{first + n}}", Image.new("RGB", (8, 8 + n), colour)) for n, colour in enumerate(colours)]
photos.add(paint(0, 40), progress=False)
photos.build_index("IVF2,Flat", queries=["red", "blue"], progress=False)
photos.add(paint(100, 20), progress=False)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with cs.Collection(tmp_path / "c", read_only=True) as photos:
        assert photos.index()["rows"] == 60


# ---------------------------------------------------------------- threads


def test_faiss_threads_are_put_back_as_they_were():
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    with pytest.raises(ZeroDivisionError), omp_threads(before + 3):
        assert faiss.omp_get_max_threads() == before + 3
        1 / 0  # noqa: B018
    assert faiss.omp_get_max_threads() == before


def test_many_threads_may_search_at_once(photos):
    photos.build_index("IVF64,Flat", progress=False)
    index, queries = approximate_index(photos), photos.encode_texts(TEXTS)
    alone = [index.search(query[None], 10)[0].rows.tolist() for query in queries]
    found = {}

    def ask(part):
        found.update({i: index.search(queries[i : i + 1], 10)[0].rows.tolist() for i in range(part, 100, 8)})

    threads = [threading.Thread(target=ask, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(100)] == alone


@pytest.mark.parametrize("first", ["torch", "faiss"])
def test_torch_and_faiss_in_one_process_give_the_same_answers(first, copy):
    code = f"""
import {first}, torch, faiss, json, sys
import clipsearch as cs
torch.set_num_threads(2)
a = torch.randn(200, 200, generator=torch.Generator().manual_seed(0))
with cs.Collection({str(copy.path)!r}, read_only=True) as photos:
    space = photos._spaces.in_use()
    query = photos._searcher().embedding(7)[0]
    hits = [hit.key for hit in photos.search(embedding=query)]
    torch.linalg.matrix_norm(a @ a)
    again = [hit.key for hit in photos.search(embedding=query)]
assert hits == again
print(json.dumps(hits))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    query = copy._searcher().embedding(7)[0]
    assert json.loads(done.stdout) == [hit.key for hit in copy.search(embedding=query)]


# ---------------------------------------------------------------- FAISS underneath


def test_large_numbers_of_cells_are_found_through_a_graph(monkeypatch):
    from clipsearch.index import layout

    monkeypatch.setattr(layout, "FLAT_CELLS", 16)
    vectors = pictures(3000)
    made = make_layout(spec_of("IVF32(SQfp16),PQ16x4fs"), np.arange(3000), lambda rows: vectors[rows], DIM)
    assert load_faiss().downcast_index(made._index.quantizer).__class__.__name__ == "IndexScalarQuantizer"
    found = made.candidates(vectors[:200], 1, 32)
    assert (found[:, 0] == np.arange(200)).mean() > 0.9


def test_candidates_are_nearest_first_and_end_in_minus_one():
    vectors = pictures(300)
    made = make_layout(
        IndexSpec("own", "", "IVF4,Flat", train_per_cell=48), np.arange(300), lambda r: vectors[r], DIM
    )
    assert isinstance(made, Layout) and len(made) == 300
    found = made.candidates(vectors[:3], 300, 1)
    for query, line in zip(vectors[:3], found, strict=True):
        line = line[line >= 0]
        distances = ((vectors[line] - query) ** 2).sum(axis=1)
        assert (np.diff(distances) >= -1e-6).all() and 0 < len(line) < 300
    assert (np.sort(made.candidates(vectors[:3], 300, 4), axis=1) == np.arange(300)).all()


def test_the_log_says_when_a_layout_hardly_pays(photos, caplog):
    caplog.set_level(logging.INFO, "clipsearch")
    photos.build_index("pq-fastscan", progress=False)
    assert "pq-fastscan pays from 20,000 vectors on" in caplog.text


# ---------------------------------------------------------------- a GPU


@pytest.fixture
def as_if_gpu(monkeypatch):
    """Torch's processor under the name of a device of its own, with room for everything."""
    monkeypatch.setattr(MadeUp, "device", "cpu:0", raising=False)
    monkeypatch.setattr(keeper, "fits", lambda device, rows, dim: True)
    monkeypatch.setattr(keeper, "UPLOADED", 0)


def test_where_the_model_is_on_a_gpu_with_room_every_vector_is_looked_at_there(
    photos, as_if_gpu, monkeypatch
):
    monkeypatch.setattr(keeper, "MAX_EXACT", 0)
    photos.encoder  # noqa: B018  loads it
    assert recall(photos) == 1.0
    assert isinstance(photos._searcher()._index, DeviceIndex)
    assert photos._keeper.due(photos._spaces.in_use()) == ""
    assert photos.index() == {"layout": "exact", "why": "cpu:0 looks at every vector"}
    put(photos, pictures(10, seed=1))
    photos.remove(3)
    assert recall(photos) == 1.0


def test_another_layout_that_was_asked_for_is_used_on_a_gpu_too(photos, as_if_gpu):
    photos.encoder  # noqa: B018
    photos.build_index("IVF64,Flat", progress=False)
    assert recall(photos) >= 0.95
    approximate_index(photos)


def test_another_space_shares_no_vectors_that_were_sent_before(photos, as_if_gpu, monkeypatch):
    monkeypatch.setattr(gpu, "BLOCK", 128 * DIM)
    photos.encoder  # noqa: B018
    assert photos.search(item=7)[0].score < 1.1
    with writing(photos._store) as writer:
        space = writer.add_space(model="other", fingerprint="other-1", dim=DIM)
        with writer.transaction():
            writer.append(space, np.arange(1, N + 1), pictures(N, seed=7))

    class Other(MadeUp):
        model_id = "other"

        def fingerprint(self):
            return "other-1"

    other = Other()
    photos.use_model(other)
    photos.encoder  # noqa: B018
    own = photos._searcher().embedding(8)[0]
    assert isinstance(photos._searcher()._index, DeviceIndex)
    best = photos.search(embedding=own, k=1)[0]
    assert (best.key, best.score) == ("8", pytest.approx(1, abs=1e-3))


def test_a_gpu_that_is_full_leaves_the_search_to_the_processor(photos, as_if_gpu, monkeypatch, caplog):
    def full(snapshot, device, earlier):
        raise ClipsearchError("no room")

    monkeypatch.setattr(keeper, "upload", full)
    photos.encoder  # noqa: B018
    assert recall(photos) == 1.0
    assert isinstance(photos._searcher()._index, ExactIndex)
    assert "no room" in caplog.text
