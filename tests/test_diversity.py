"""Maximal marginal relevance, by hand and against its definition word by word."""

import numpy as np
import pytest

from clipsearch.diversity import diversify, mean_cosine
from clipsearch.types import as_embeddings


def turned(*degrees):
    angles = np.radians(degrees)
    return as_embeddings(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def test_a_copy_of_the_best_goes_back_and_another_picture_comes_forward():
    """Scores 1, .9, .6, 0; the second is a copy of the first, the third is at right angles to both.

    The mean cosine of the six pairs is (1 + 0 + 0 + .707 * 3) / 6 = .520. After the first, at weight .5:
    the copy has .45 - .5 = -.05, the third .3 + .5 * .520 / .480 = .842, the last 0 - .5 * .389 = -.195.
    """
    scores = np.array([1, 0.9, 0.6, 0], np.float32)
    vectors = turned(0, 0, 90, 45)
    assert mean_cosine(vectors) == pytest.approx((1 + 3 * np.sqrt(0.5)) / 6, abs=1e-6)
    assert diversify(scores, vectors, 4, 0.5).tolist() == [0, 2, 1, 3]
    assert diversify(scores, vectors, 4, 0.0).tolist() == [0, 1, 2, 3]
    assert diversify(scores, vectors, 2, 0.5).tolist() == [0, 2]


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_it_is_the_definition(weight):
    rng = np.random.default_rng(4)
    vectors = as_embeddings(rng.standard_normal((40, 6)) + 1)
    scores = rng.random(40).astype(np.float32)
    good = (scores - scores.min()) / (scores.max() - scores.min())
    cosines = vectors.astype(np.float64) @ vectors.T
    mean = cosines[~np.eye(40, dtype=bool)].mean()
    expected = [int(scores.argmax())]
    while len(expected) < 15:
        value = {
            i: (1 - weight) * good[i] - weight * max((cosines[i, j] - mean) / (1 - mean) for j in expected)
            for i in range(40)
            if i not in expected
        }
        expected.append(max(value, key=value.__getitem__))
    assert diversify(scores, vectors, 15, weight).tolist() == expected


def test_more_than_there_are_gives_all_of_them_once():
    scores = np.array([0.1, 0.3, 0.2], np.float32)
    assert sorted(diversify(scores, turned(0, 30, 60), 10, 0.5).tolist()) == [0, 1, 2]
    assert diversify(np.empty(0, np.float32), np.empty((0, 4), np.float32), 10, 0.5).tolist() == []
    assert diversify(scores[:1], turned(0), 10, 0.5).tolist() == [0]


def test_equal_pictures_and_equal_scores_keep_their_order():
    assert diversify(np.ones(3, np.float32), turned(20, 20, 20), 3, 0.5).tolist() == [0, 1, 2]
