"""Exact search on a device against brute force in float64; torch's processor stands for a GPU."""

import itertools

import numpy as np
import pytest
import torch

from clipsearch import gpu
from clipsearch.errors import ClipsearchError
from clipsearch.exact import ExactIndex
from clipsearch.gpu import fits, upload
from clipsearch.segments import Segment
from clipsearch.store import Snapshot, Space
from clipsearch.types import as_embeddings

DIM = 24
SPACE = Space(1, "1-test", "test", "", DIM, True)


def unit(n, seed):
    return as_embeddings(np.random.default_rng(seed).standard_normal((n, DIM)))


def snapshot(sizes, *, hidden=(), vectors=None):
    """Segments of these sizes; the content of row r is 10 * r."""
    vectors = unit(sum(sizes), 0) if vectors is None else vectors
    parts = itertools.pairwise(np.cumsum([0, *sizes]))
    segments = tuple(Segment(vectors[a:b].astype(np.float16), np.arange(a, b) * 10) for a, b in parts)
    return Snapshot(1, SPACE, segments, np.array(hidden, np.int64))


def brute_force(snap, query, k, shown=None):
    stored = np.concatenate([s.vectors for s in snap.segments]).astype(np.float64)
    scores = stored @ query.astype(np.float64)
    scores[np.isin(snap.contents, snap.hidden)] = -np.inf
    if shown is not None:
        scores[~shown] = -np.inf
    rows = np.argsort(-scores, kind="stable")[:k]
    rows = rows[scores[rows] > -np.inf]
    return rows, scores[rows]


def check(index, snap, queries, k, shown=None):
    found = index.search(queries, k, only=shown)
    assert len(found) == len(queries)
    for query, near in zip(queries, found, strict=True):
        rows, scores = brute_force(snap, query, k, shown)
        np.testing.assert_array_equal(near.rows, rows)
        np.testing.assert_allclose(near.scores, scores, atol=2e-6)
        assert near.scores.dtype == np.float32
        assert near.rows.dtype == np.int64


@pytest.fixture
def tiny(monkeypatch):
    """Blocks of 200 rows, tiles of 24 and three queries, groups of 4: nothing divides anything."""
    monkeypatch.setattr(gpu, "GROUP", 4)
    monkeypatch.setattr(gpu, "BLOCK", DIM * 202)
    monkeypatch.setattr(gpu, "SCORES", DIM * 27)
    monkeypatch.setattr(gpu, "QUERIES", 3)
    monkeypatch.setattr(gpu, "STAGED", DIM * 33)


@pytest.mark.parametrize("sizes", [(500,), (1, 300, 40, 7), (0, 2, 3), (200, 200)])
@pytest.mark.parametrize("k", [1, 10, 1000])
@pytest.mark.parametrize("hidden", [(), (0, 10, 20, 40)])
def test_tiny_tiles_agree_with_brute_force(tiny, sizes, k, hidden):
    snap = snapshot(sizes, hidden=hidden)
    check(upload(snap, "cpu"), snap, unit(7, 1), k)


def test_a_large_tile_agrees_with_brute_force():
    snap = snapshot((3000, 6000), hidden=np.arange(0, 90_000, 30))
    check(upload(snap, "cpu"), snap, unit(300, 1), 12)


def test_the_best_of_each_group_are_not_all_that_is_found():
    vectors = unit(9000, 0)
    vectors[500:516] = as_embeddings(vectors[500] + 0.01 * unit(16, 2))  # neighbours in one group
    snap = snapshot((9000,), vectors=vectors)
    check(upload(snap, "cpu"), snap, vectors[500:501], 16)


def test_only_shown_rows_are_found_and_hidden_ones_stay_hidden(tiny):
    snap = snapshot((150, 271), hidden=range(0, 2000, 10))
    shown = np.random.default_rng(3).random(421) < 0.3
    shown.flags.writeable = False
    check(upload(snap, "cpu"), snap, unit(5, 1), 20, shown)
    check(upload(snap, "cpu"), snap, unit(5, 1), 20)


@pytest.mark.parametrize("hidden", [(), (10, 50)])
def test_equal_scores_stay_in_row_order_however_many_there_are(tiny, hidden):
    vectors = unit(400, 0)
    vectors[::2] = vectors[0]
    snap = snapshot((130, 270), vectors=vectors, hidden=hidden)
    check(upload(snap, "cpu"), snap, vectors[:1], 12)


def test_rows_that_the_product_cannot_tell_apart_are_ranked_rightly():
    """Numbers whose float32 dot products are exact: rows in steps of 2^-10, queries in steps of 2^-14."""
    rng = np.random.default_rng(4)
    middle = np.full(DIM, 200)  # / 1024: a length of 0.96
    apart = np.tile(np.repeat([-1, 0, 1], DIM // 3), (4000, 1))
    vectors = (middle + rng.permuted(apart, axis=1)) / 1024
    queries = ((middle * 16 + rng.integers(-3, 4, (5, DIM))) / 16384).astype(np.float32)  # float16: even ones
    snap = snapshot((1500, 2500), vectors=vectors)
    check(upload(snap, "cpu"), snap, queries, 25)


def test_scores_are_those_of_search_on_the_processor():
    snap, queries = snapshot((800, 500)), unit(20, 1)
    expected = ExactIndex(snap).search(queries, 9)
    for near, other in zip(upload(snap, "cpu").search(queries, 9), expected, strict=True):
        np.testing.assert_array_equal(near.rows, other.rows)
        np.testing.assert_array_equal(near.scores, other.scores)


@pytest.mark.parametrize("snap", [snapshot(()), snapshot((0,)), snapshot((3,), hidden=(0, 10, 20))])
def test_all_hidden_or_empty_finds_nothing(snap):
    near = upload(snap, "cpu").search(unit(1, 0), 5)[0]
    assert near.rows.shape == near.scores.shape == (0,)


def test_no_queries_give_an_empty_list():
    assert upload(snapshot((3,)), "cpu").search(np.empty((0, DIM), np.float32), 5) == []


def test_stored_vectors_come_back_in_the_order_asked_for(tiny):
    snap = snapshot((150, 500))
    rows = np.array([649, 3, 200, 3, 199])
    stored = np.concatenate([s.vectors for s in snap.segments]).astype(np.float32)
    np.testing.assert_array_equal(upload(snap, "cpu").vectors(rows), stored[rows])


@pytest.fixture
def uploads(monkeypatch):
    """The rows that were sent, as (first, end)."""
    sent, real = [], gpu._block

    def watched(segments, first, end, *, device):
        sent.append((first, end))
        return real(segments, first, end, device=device)

    monkeypatch.setattr(gpu, "_block", watched)
    return sent


def test_after_additions_only_the_last_block_and_what_came_are_uploaded(tiny, uploads):
    first = upload(snapshot((150, 300)), "cpu")
    uploads.clear()
    snap = snapshot((150, 300, 90), hidden=(20, 4800))
    later = upload(snap, "cpu", earlier=first)
    assert uploads == [(400, 540)]
    check(later, snap, unit(4, 1), 10)
    check(first, snapshot((150, 300)), unit(4, 1), 10)


def test_rows_that_moved_are_uploaded_again(tiny, uploads):
    first = upload(snapshot((250, 300)), "cpu")
    uploads.clear()
    whole = snapshot((250, 300))
    other = Segment(whole.segments[1].vectors[5:], whole.segments[1].contents[5:])
    snap = Snapshot(2, SPACE, (whole.segments[0], other), np.empty(0, np.int64))  # five were compacted away
    later = upload(snap, "cpu", earlier=first)
    assert uploads == [(200, 400), (400, 545)]
    check(later, snap, unit(4, 1), 10)


@pytest.mark.parametrize(
    ("moved", "boxes"), [(1, None), (0, np.full((300, 4), 0.5, np.float32))], ids=["contents", "boxes"]
)
def test_other_vectors_in_as_many_rows_are_uploaded_again(tiny, uploads, moved, boxes):
    first = upload(snapshot((250, 300)), "cpu")
    uploads.clear()
    other = Segment(unit(300, 5).astype(np.float16), np.arange(250, 550) * 10 + moved, boxes)
    snap = Snapshot(2, SPACE, (snapshot((250,)).segments[0], other), np.empty(0, np.int64))
    later = upload(snap, "cpu", earlier=first)
    assert uploads == [(200, 400), (400, 550)]
    check(later, snap, unit(4, 1), 10)


@pytest.mark.parametrize("wanted", [1, 5, 7, 8, 600])
def test_the_largest_scores_are_found_by_groups_as_by_sorting(wanted):
    scores = np.random.default_rng(6).permutation(3 * 1024).reshape(3, 1024).astype(np.float32)
    found, columns = gpu._largest(torch.from_numpy(scores), wanted=wanted)
    np.testing.assert_array_equal(columns.numpy(), np.argsort(-scores, axis=1)[:, :wanted])
    np.testing.assert_array_equal(found.numpy(), -np.sort(-scores, axis=1)[:, :wanted])


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("MPS backend out of memory (MPS …")]
)
def test_a_tile_that_does_not_fit_is_halved_and_stays_so(monkeypatch, error):
    widths, real = [], gpu.product

    def small(queries, vectors):
        widths.append(len(vectors))
        if len(vectors) > 600:
            raise error
        return real(queries, vectors)

    monkeypatch.setattr(gpu, "product", small)
    snap = snapshot((1000, 1500))
    index = upload(snap, "cpu")
    check(index, snap, unit(4, 1), 10)
    assert widths == [2560, 1280, 640, 256, 256, 256, 256, 256, 256, 256, 256, 256, 256]
    widths.clear()
    check(index, snap, unit(4, 1), 10)
    assert max(widths) == 256


def test_a_device_without_any_memory_left_is_told(monkeypatch):
    def full(queries, vectors):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    index = upload(snapshot((1000,)), "cpu")
    monkeypatch.setattr(gpu, "product", full)
    with pytest.raises(ClipsearchError, match="cpu has no memory left to compare 4 queries with 128 vectors"):
        index.search(unit(4, 1), 10)


def test_another_error_of_the_device_is_not_taken_for_a_full_one(monkeypatch):
    def broken(queries, vectors):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    index = upload(snapshot((1000,)), "cpu")
    monkeypatch.setattr(gpu, "product", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        index.search(unit(4, 1), 10)


def test_vectors_that_do_not_fit_are_told_with_what_did(tiny, monkeypatch):
    real = torch.zeros
    blocks = []

    def small(*size, **options):
        blocks.append(size)
        if len(blocks) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*size, **options)

    monkeypatch.setattr(torch, "zeros", small)
    with pytest.raises(ClipsearchError, match=r"700 vectors of 24 .* cpu had room for 400\."):
        upload(snapshot((700,)), "cpu")


def test_a_processor_never_wants_a_copy():
    assert not fits("cpu", rows=1, dim=DIM)


def test_what_fits_is_seven_tenths_of_the_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (102_400_000_000, 150_000_000_000))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12_240_000_000)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2_000_000_000)
    assert fits("cuda:1", rows=70_000_000, dim=512)
    assert not fits("cuda:1", rows=70_000_001, dim=512)
    assert fits("mps", rows=7_000_000, dim=512)
    assert not fits("mps", rows=7_000_001, dim=512)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_brute_force(monkeypatch):
    monkeypatch.setattr(gpu, "BLOCK", DIM * 5000)
    monkeypatch.setattr(gpu, "SCORES", 300 * 1000)
    vectors = unit(12_345, 0)
    vectors[3::7] = vectors[3]
    snap = snapshot((6000, 345, 6000), hidden=range(0, 1000, 10), vectors=vectors)
    index = upload(snap, "cuda")
    check(index, snap, unit(300, 1), 12)
    check(index, snap, vectors[3:4], 12)
    check(index, snap, unit(3, 1), 12, np.arange(12_345) % 3 == 0)
    assert fits("cuda", rows=1000, dim=DIM)
