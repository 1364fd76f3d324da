"""Relevance against a plain computation of the formula in its module's docstring."""

import math

import numpy as np
import pytest

from clipsearch import relevance
from clipsearch.relevance import Background, rescaled


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
    """What `share` of 256 neutral queries do not reach with any picture, but for themselves."""
    asked = [int(i * max(1, len(neutral) / 256)) for i in range(min(256, len(neutral)))]
    best = []
    for place in asked:
        others = [i for i in range(len(pictures)) if not (own and i == place)]
        best.append(max(fit(neutral[place], pictures[i], neutral, spread) for i in others))
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
        found += background.relevance(query, pictures @ query, pictures).max() > 0.5
    assert found == pytest.approx(0.1 * 256, abs=1)


def test_a_neutral_query_about_the_same_does_not_compete():
    """The query itself among the neutral ones changes little; competing, it would lower the fit."""
    draw = np.random.default_rng(0)
    neutral, pictures = unit(draw.normal(size=(300, 32))), unit(draw.normal(size=(40, 32)))
    query = unit(draw.normal(size=(1, 32)))[0]
    near = unit(query + 0.08 * draw.normal(size=(3, 32)))  # where such a competitor counts most
    more = np.concatenate([neutral, np.tile(query, (5, 1))])
    spread = spread_of(more, pictures)
    level = np.log(np.exp(3 / spread * (near @ more.T)).mean(1)) * spread / 3
    competing = (near @ query - level) / spread
    alone, copies = (Background(captions, pictures, usual=0.9) for captions in (neutral, more))
    fits = [b._fit(query, near @ query, relevance._Levels(near, b)) for b in (alone, copies)]
    np.testing.assert_allclose(*fits, atol=0.1)
    assert (fits[1] - competing > 0.5).all()


def test_many_pictures_are_judged_as_one_by_one(world, monkeypatch):
    neutral, pictures = world
    background, query = Background(neutral, pictures, usual=0.9), unit(np.ones((1, 16)))[0]
    whole = background.relevance(query, pictures @ query, pictures)
    monkeypatch.setattr(relevance, "TOGETHER", 7)
    np.testing.assert_allclose(background.relevance(query, pictures @ query, pictures), whole, atol=1e-12)


def test_equal_pictures_are_relevant_to_each_other():
    same = np.tile(unit(np.ones((1, 8))), (30, 1))
    pairs = np.repeat(unit(np.random.default_rng(0).normal(size=(100, 32))), 2, axis=0)
    for pictures in (same, pairs):
        background = Background(pictures, pictures, usual=0.5, own=True)
        assert background.relevance(pictures[0], pictures[:2] @ pictures[0], pictures[:2]).min() > 0.9


def test_a_query_of_parts_must_beat_neutral_queries_in_place_of_each(world):
    """a & b: 0.5 is the more of what one in ten reaches beside b, and beside a."""
    neutral, pictures = world
    background = Background(neutral, pictures, usual=0.9)
    draw = np.random.default_rng(0)
    given = np.stack([draw.random(60), draw.random(60) * 0.3])
    order = np.random.default_rng(0)
    usual_of = [
        np.quantile([(background.known[order.integers(256)] * given[other]).max() for _ in range(128)], 0.9)
        for other in (1, 0)
    ]
    joined = np.array([0.0, max(usual_of), 0.4, 1.0])
    found = rescaled(
        joined, join=lambda p: p.prod(0), given=given, parts=[[0], [1]], backgrounds=[background] * 2
    )
    assert usual_of[1] > usual_of[0] and found[1] == pytest.approx(0.5, abs=1e-6)
    odds = 0.4 / 0.6 / (max(usual_of) / (1 - max(usual_of)))
    assert found[2] == pytest.approx(odds / (1 + odds), abs=1e-6)
    assert (np.diff(found[[0, 1, 3]]) > 0).all()


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
