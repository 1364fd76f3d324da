"""Exact search against brute force in float64, by each of its three ways."""

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest

from clipsearch import exact
from clipsearch.errors import ClipsearchError
from clipsearch.exact import ExactIndex
from clipsearch.faiss_check import load_faiss
from clipsearch.segments import Segment
from clipsearch.store import Snapshot, Space
from clipsearch.types import as_embeddings

DIM = 24
SPACE = Space(1, "1-test", "test", "", DIM, True)


def snapshot(sizes, *, hidden=(), seed=0, vectors=None):
    rng = np.random.default_rng(seed)
    total = sum(sizes)
    if vectors is None:
        vectors = (
            as_embeddings(rng.standard_normal((total, DIM))) if total else np.empty((0, DIM), np.float32)
        )
    contents = rng.permutation(total) + 1
    parts = np.cumsum([0, *sizes])
    segments = tuple(
        Segment(vectors[a:b].astype(np.float16), contents[a:b]) for a, b in itertools.pairwise(parts)
    )
    return Snapshot(1, SPACE, segments, np.array(hidden, np.int64))


def brute_force(snap, query, k):
    """Rows by a stable sort of float64 dot products of the stored vectors."""
    stored = np.concatenate([s.vectors for s in snap.segments]).astype(np.float64)
    scores = stored @ query.astype(np.float64)
    scores[np.isin(snap.contents, snap.hidden)] = -np.inf
    rows = np.argsort(-scores, kind="stable")[:k]
    rows = rows[scores[rows] > -np.inf]
    return rows, scores[rows]


@pytest.fixture(params=["multiply", "scan"])
def way(request, monkeypatch):
    """Every search goes this way, whatever its size."""
    if request.param == "scan":
        monkeypatch.setattr(exact, "SMALL", 0)
        monkeypatch.setattr(exact, "TINY", 0)
    return request.param


@pytest.mark.parametrize("sizes", [(500,), (1, 300, 40, 7), (2, 3)])
@pytest.mark.parametrize("k", [1, 10, 1000])
@pytest.mark.parametrize("hidden", [(), (1, 2, 3, 5)])
def test_every_way_agrees_with_brute_force(way, sizes, k, hidden):
    snap = snapshot(sizes, hidden=hidden)
    queries = as_embeddings(np.random.default_rng(1).standard_normal((3, DIM)))

    found = ExactIndex(snap).search(queries, k)

    for query, near in zip(queries, found, strict=True):
        rows, scores = brute_force(snap, query, k)
        np.testing.assert_array_equal(near.rows, rows)
        np.testing.assert_allclose(near.scores, scores, atol=2e-6)


@pytest.mark.parametrize("count", [1, 40])
def test_of_a_few_rows_that_lie_far_apart_no_others_are_read(count, monkeypatch):
    monkeypatch.setattr(exact, "FEW", 5)
    snap, read = snapshot((300, 211)), []
    rows = np.zeros(511, np.bool_)
    rows[[0, 299, 300, 510]] = True
    queries = as_embeddings(np.random.default_rng(2).standard_normal((count, DIM)))
    for name in ("_multiply", "_scan"):
        monkeypatch.setattr(exact, name, lambda *a: read.append(a))
    for index, only in ((ExactIndex(snap, rows), None), (ExactIndex(snap), rows)):
        for query, near in zip(queries, index.search(queries, 3, only=only), strict=True):
            stored = np.concatenate([s.vectors for s in snap.segments]).astype(np.float64)
            best = sorted(np.flatnonzero(rows), key=lambda row: -(stored[row] @ query))[:3]
            assert near.rows.tolist() == best
    assert read == []


def test_many_queries_agree_with_brute_force_across_blocks(monkeypatch):
    monkeypatch.setattr(exact, "BLOCK", DIM * 64)
    monkeypatch.setattr(exact, "TOGETHER", 16)
    snap = snapshot((300, 211), hidden=range(1, 200))
    queries = as_embeddings(np.random.default_rng(2).standard_normal((40, DIM)))
    for query, near in zip(queries, ExactIndex(snap).search(queries, 7), strict=True):
        np.testing.assert_array_equal(near.rows, brute_force(snap, query, 7)[0])


def test_equal_scores_stay_in_row_order(way):
    vectors = np.tile(as_embeddings(np.ones((1, DIM))), (30, 1))
    near = ExactIndex(snapshot((30,), vectors=vectors)).search(vectors[:1], 12)[0]
    np.testing.assert_array_equal(near.rows, np.arange(12))


def test_more_equal_scores_than_are_spared_stay_in_row_order_too(way, monkeypatch):
    monkeypatch.setattr(exact, "BLOCK", DIM * 64)
    vectors = np.tile(as_embeddings(np.ones((1, DIM))), (300, 1))
    near = ExactIndex(snapshot((100, 200), vectors=vectors)).search(vectors[:1], 5)[0]
    np.testing.assert_array_equal(near.rows, np.arange(5))


def test_all_hidden_or_empty_finds_nothing(way):
    query = as_embeddings(np.ones((1, DIM)))
    for snap in (snapshot((3,), hidden=(1, 2, 3)), snapshot((0,)), snapshot(())):
        near = ExactIndex(snap).search(query, 5)[0]
        assert near.rows.shape == near.scores.shape == (0,)


def test_no_queries_give_an_empty_list():
    assert ExactIndex(snapshot((3,))).search(np.empty((0, DIM), np.float32), 5) == []


def test_an_emptied_faiss_folder_is_answered_with_the_repair_line(tmp_path, monkeypatch):
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "faiss"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ClipsearchError, match=r"empty.*pip install --force-reinstall --no-deps 'faiss-cpu>="):
        load_faiss.__wrapped__()


def test_a_gpu_wheel_overwritten_by_the_other_is_noticed(tmp_path, monkeypatch):
    if hasattr(load_faiss(), "StandardGpuResources"):
        pytest.skip("this is the GPU wheel itself")
    about = tmp_path / "faiss_gpu_cuvs-1.15.1.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: faiss-gpu-cuvs\nVersion: 1.15.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ClipsearchError, match=r"overwritten by faiss-cpu.*--no-deps 'faiss-gpu-cuvs>="):
        load_faiss.__wrapped__()


@pytest.mark.parametrize("few", [0, 10**6])
@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_among_some_rows_it_agrees_with_brute_force_over_these(way, monkeypatch, few, count, share):
    monkeypatch.setattr(exact, "FEW", few)
    snap = snapshot((1, 300, 40, 7), hidden=range(1, 60))
    rng = np.random.default_rng(5)
    only = rng.random(len(snap)) < share
    passing = replace(snap, hidden=np.union1d(snap.hidden, snap.contents[~only]))
    queries = as_embeddings(rng.standard_normal((count, DIM)))

    index = ExactIndex(snap)
    found = index.search(queries, 9, only=only)

    for query, near in zip(queries, found, strict=True):
        rows, scores = brute_force(passing, query, 9)
        np.testing.assert_array_equal(near.rows, rows)
        np.testing.assert_allclose(near.scores, scores, atol=2e-6)
    np.testing.assert_array_equal(index.search(queries, 9)[0].rows, brute_force(snap, queries[0], 9)[0])


def test_among_some_rows_equal_scores_stay_in_row_order(way):
    vectors = np.tile(as_embeddings(np.ones((1, DIM))), (30, 1))
    only = np.arange(30) % 2 == 1
    near = ExactIndex(snapshot((30,), vectors=vectors)).search(vectors[:1], 4, only=only)[0]
    np.testing.assert_array_equal(near.rows, [1, 3, 5, 7])


def test_among_no_rows_nothing_is_found(way):
    for snap in (snapshot((3,)), snapshot(())):
        near = ExactIndex(snap).search(np.ones((1, DIM), np.float32), 5, only=np.zeros(len(snap), bool))[0]
        assert near.rows.shape == near.scores.shape == (0,)
