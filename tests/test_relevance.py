"""Relevance against a plain computation of the formula in its module's docstring."""

import math

import numpy as np
import pytest

from clipsearch.relevance import Background


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def world():
    draw = np.random.default_rng(3)
    neutral, pictures = unit(draw.normal(size=(400, 16)) + 1), unit(draw.normal(size=(60, 16)))
    return neutral, pictures


def spread_of(neutral, pictures):
    return sum(float(np.std([float(p @ b) for b in neutral])) for p in pictures) / len(pictures)


def fit(query, picture, neutral, spread):
    """By hand, one picture at a time, in float64."""
    near = [float(query @ b) for b in neutral]
    mean, deviation = np.mean(near), np.std(near)
    others = [b for b, how in zip(neutral, near, strict=True) if how <= mean + 2 * deviation]
    sharpness = 3 / spread
    level = math.log(sum(math.exp(sharpness * float(picture @ b)) for b in others) / len(others)) / sharpness
    return (float(picture @ query) - level) / spread


def usual(neutral, pictures, share, spread, own=False):
    """What `share` of 256 neutral queries do not reach with the best of their ten nearest pictures."""
    asked = [int(i * max(1, len(neutral) / 256)) for i in range(min(256, len(neutral)))]
    best = []
    for place in asked:
        found = [i for i in range(len(pictures)) if not (own and i == place)]
        found.sort(key=lambda i: -float(pictures[i] @ neutral[place]))
        best.append(max(fit(neutral[place], pictures[i], neutral, spread) for i in found[:10]))
    return float(np.quantile(best, share))


def test_it_is_the_formula(world):
    neutral, pictures = world
    background, query = Background(neutral, pictures, usual=0.9), unit(np.ones((1, 16)))[0]
    found = background.relevance(query, pictures[:5] @ query, pictures[:5])
    spread = spread_of(neutral, pictures)
    centre = usual(neutral, pictures, 0.9, spread)
    by_hand = [1 / (1 + math.exp(-1.7 * (fit(query, p, neutral, spread) - centre))) for p in pictures[:5]]
    np.testing.assert_allclose(found, by_hand, atol=1e-4)


def test_pictures_as_neutral_queries_do_not_find_themselves(world):
    _, pictures = world
    background = Background(pictures, pictures, usual=0.5, own=True)
    spread = spread_of(pictures, pictures)
    assert background._centre == pytest.approx(usual(pictures, pictures, 0.5, spread, own=True), abs=1e-4)


def test_one_in_ten_neutral_queries_finds_something_relevant(world):
    neutral, pictures = world
    background = Background(neutral, pictures, usual=0.9)
    found = 0
    for place in (np.arange(256) * (400 / 256)).astype(int):
        query = neutral[place]
        best = np.argsort(-(pictures @ query), kind="stable")[:10]
        found += background.relevance(query, pictures[best] @ query, pictures[best]).max() > 0.5
    assert found == pytest.approx(0.1 * 256, abs=1)


def test_a_neutral_query_about_the_same_does_not_compete():
    """The query itself among the neutral ones, ten times, changes nothing."""
    draw = np.random.default_rng(0)
    neutral, pictures = unit(draw.normal(size=(300, 32))), unit(draw.normal(size=(40, 32)))
    query = unit(draw.normal(size=(1, 32)))[0]
    alone = Background(neutral, pictures, usual=0.9)
    copies = Background(np.concatenate([neutral, np.tile(query, (5, 1))]), pictures, usual=0.9)
    vectors = pictures[:3]
    alone._spread = copies._spread = 0.2  # they share what is not looked at here
    np.testing.assert_allclose(
        copies._fit(query, vectors @ query, vectors), alone._fit(query, vectors @ query, vectors), atol=0.05
    )


def test_no_hits_have_no_relevance(world):
    neutral, pictures = world
    none = Background(neutral, pictures, usual=0.9).relevance(
        pictures[0], np.empty(0, np.float32), np.empty((0, 16), np.float32)
    )
    assert none.shape == (0,)


def test_far_above_and_far_below_are_1_and_0_and_nothing_overflows():
    neutral = unit(np.eye(4)[[0, 1]] + 1e-3)
    background = Background(neutral, neutral, usual=0.9)
    query = np.array([0, 0, 1, 0], np.float32)
    with np.errstate(all="raise", under="ignore"):
        cosines = np.array([1, -1], np.float32)
        high, low = background.relevance(query, cosines, np.eye(4, dtype=np.float32)[[2, 3]])
    assert 0.9 < high <= 1 and 0 <= low < 0.1


def test_one_picture_is_enough():
    pictures = unit(np.ones((1, 4)))
    background = Background(unit(np.eye(4)), pictures, usual=0.9)
    assert 0 <= background.relevance(pictures[0], np.ones(1, np.float32), pictures)[0] <= 1
