"""Near pairs, linked sets and stars, against brute force over all pairs."""

import numpy as np
import pytest

from clipsearch import near
from clipsearch.near import components, mean_cosine, stars
from clipsearch.types import as_embeddings


def crowd(n, dim=64, *, copies=0.3, noise=0.1, seed=0):
    """Vectors with a common direction and falling spectrum, as models give; some are copies of others."""
    rng = np.random.default_rng(seed)
    falling = 1 / np.sqrt(np.arange(1, dim + 1))
    rows = rng.standard_normal((n, dim)) * falling + np.eye(dim)[0] * 2
    again = rng.random(n) < copies
    rows[again] = rows[rng.integers(n, size=again.sum())]
    return as_embeddings(rows + rng.standard_normal((n, dim)) * falling * noise)


def of(vectors):
    return lambda rows: vectors[rows]


def linked(vectors, threshold):
    """Sets by following every pair over the threshold, one by one, in float64."""
    exact = vectors.astype(np.float64)
    neighbours = [np.flatnonzero(row >= threshold) for row in exact @ exact.T]
    seen, sets = set(), []
    for first in range(len(vectors)):
        if first in seen:
            continue
        found, ahead = {first}, [first]
        while ahead:
            new = set(neighbours[ahead.pop()].tolist()) - found
            found |= new
            ahead += new
        seen |= found
        if len(found) > 1:
            sets.append(sorted(found))
    return sets


@pytest.mark.parametrize("threshold", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("cell", [10**6, 40])
@pytest.mark.parametrize("dim", [3, 64])
def test_the_sets_are_those_of_brute_force(monkeypatch, threshold, cell, dim):
    monkeypatch.setattr(near, "CELL", cell)
    monkeypatch.setattr(near, "BLOCK", 500)
    monkeypatch.setattr(near, "TOGETHER", 128)
    vectors = crowd(900, dim)
    expected = linked(vectors, threshold)
    assert any(len(rows) > 2 for rows in expected)
    assert [rows.tolist() for rows in components(of(vectors), 900, threshold)] == expected


def test_no_pair_is_lost_between_cells_at_any_threshold(monkeypatch):
    monkeypatch.setattr(near, "CELL", 30)
    vectors = crowd(600, copies=0)
    exact = vectors.astype(np.float64)
    for threshold in np.quantile((exact @ exact.T)[np.triu_indices(600, 1)], [0.5, 0.9, 0.999]):
        points = near._brought_down(of(vectors), 600)
        found = set()
        for one, other in near._candidates(points, threshold, Bar()):
            pairs = {(min(pair), max(pair)) for pair in zip(one.tolist(), other.tolist(), strict=True)}
            assert len(pairs) == len(one)
            assert not pairs & found, "a pair comes once"
            found |= pairs
        ones, others = np.nonzero(np.triu(exact @ exact.T >= threshold, 1))
        assert set(zip(ones.tolist(), others.tolist(), strict=True)) <= found


class Bar:
    def update(self, count):
        pass


@pytest.mark.parametrize("threshold", [1.0, 1 - 1e-7])
@pytest.mark.parametrize("dim", [64, 512, 2048])
def test_equal_vectors_are_found_whatever_float32_makes_of_their_cosine(threshold, dim):
    vectors = np.repeat(crowd(300, dim, copies=0), 2, axis=0)
    pairs = [[2 * i, 2 * i + 1] for i in range(300)]
    assert (np.einsum("nd,nd->n", vectors, vectors) < threshold).any()
    sets = components(of(vectors), 600, threshold)
    assert [rows.tolist() for rows in sets] == pairs
    assert [rows.tolist() for one in sets for rows in stars(of(vectors), one, threshold).rows] == pairs


def test_a_pair_at_the_threshold_is_no_worse_off_between_two_cells(monkeypatch):
    """Mirrored at the plane between two centres, its distances from it add up to all of its reach."""
    monkeypatch.setattr(near, "CELL", 50)
    angles = np.concatenate([np.linspace(0.1, 0.5, 50), -np.linspace(0.1, 0.5, 50)])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    for one in range(50):
        threshold = float(points[one].astype(np.float64) @ points[50 + one])
        found = np.concatenate([np.stack(p, 1) for p in near._candidates(points, threshold, Bar())])
        assert [one, 50 + one] in np.sort(found, axis=1).tolist()


def test_a_pair_at_the_threshold_is_no_worse_off_within_a_cell():
    points = near._brought_down(of(crowd(300, 512)), 300)
    (pairs,) = near._pairs(points, points, 1.0)
    assert (pairs[0] == pairs[1]).sum() == 300 > (np.diag(points @ points.T) >= 1).sum()


def test_bringing_down_never_lowers_a_cosine():
    vectors = crowd(300)
    points = near._brought_down(of(vectors), 300).astype(np.float64)
    assert points.shape == (300, near.STRONG + 1)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-5)
    assert (points @ points.T >= vectors.astype(np.float64) @ vectors.T - 1e-5).all()


def test_many_equal_vectors_are_one_set_and_not_all_their_pairs_are_compared(monkeypatch):
    monkeypatch.setattr(near, "CELL", 100)
    monkeypatch.setattr(near, "WAITING", 1000)
    asked = []
    vectors = as_embeddings(np.tile(crowd(1), (2000, 1)))

    def fetch(rows):
        asked.append(len(rows))
        return vectors[rows]

    assert [len(rows) for rows in components(fetch, 2000, 0.99)] == [2000]
    assert sum(asked) < 2000 * 2000 / 4


def test_a_chain_is_one_set_and_no_star():
    """Three steps of 10 degrees: each is within 15 of the next alone."""
    turned = np.radians([0, 10, 20, 30])
    chain = as_embeddings(np.stack([np.cos(turned), np.sin(turned)], axis=1))
    near15 = np.cos(np.radians(15))
    assert [rows.tolist() for rows in components(of(chain), 4, near15)] == [[0, 1, 2, 3]]

    found = stars(of(chain), np.array([1, 0, 3, 2]), near15)

    # 1 takes 0 and 2, which both are 10 degrees off; 3 is left alone
    assert [rows.tolist() for rows in found.rows] == [[1, 0, 2]]
    np.testing.assert_allclose(found.cosines[0], [1, *[np.cos(np.radians(10))] * 2], atol=1e-6)
    assert [rows.tolist() for rows in stars(of(chain), np.array([0, 3, 1, 2]), near15).rows] == [
        [0, 1],
        [3, 2],
    ]


@pytest.mark.parametrize("together", [4096, 7])
def test_stars_are_those_of_one_vector_after_the_other(monkeypatch, together):
    monkeypatch.setattr(near, "TOGETHER", together)
    vectors, rng = crowd(300), np.random.default_rng(3)
    rows = rng.permutation(300)[:200]
    free, expected = rows.tolist(), []
    while free:
        first = free[0]
        members = [row for row in free if vectors[row].astype(np.float64) @ vectors[first] >= 0.9]
        free = [row for row in free if row not in members and row != first]
        expected.append((first, set(members) | {first}))
    found = stars(of(vectors), rows, 0.9)
    assert [(int(group[0]), set(group.tolist())) for group in found.rows] == [
        (first, members) for first, members in expected if len(members) > 1
    ]
    for group, cosines in zip(found.rows, found.cosines, strict=True):
        np.testing.assert_allclose(cosines[1:], vectors[group[1:]] @ vectors[group[0]], atol=1e-6)
        assert (np.diff(cosines) <= 1e-6).all() and (cosines >= 0.9).all()


def test_mean_cosine_is_that_of_all_pairs():
    vectors = crowd(50)
    assert mean_cosine(of(vectors), 50) == pytest.approx(
        (vectors @ vectors.T)[np.triu_indices(50, 1)].mean(), abs=1e-5
    )


@pytest.mark.parametrize("n", [0, 1])
def test_few_vectors_have_no_pairs(n):
    vectors = crowd(max(n, 1))[:n]
    assert components(of(vectors), n, 0.9) == []
    assert stars(of(vectors), np.arange(n), 0.9) == ([], [])
    assert mean_cosine(of(vectors), n) == 0
