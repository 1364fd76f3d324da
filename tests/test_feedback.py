"""Rocchio's rule by hand, and what it must do to a ranking."""

import numpy as np
import pytest

from clipsearch.errors import QueryError
from clipsearch.feedback import feedback
from clipsearch.types import as_embeddings

X, Y, Z = np.eye(3, dtype=np.float32)
NONE = np.empty((0, 3), np.float32)
ORIGIN = np.zeros(3, np.float32)


def test_it_is_rocchios_rule_by_hand():
    """(1, 0, 0) + .75 (0, 1, 0) - .15 (0, 0, 1) has the length sqrt(1 + .5625 + .0225) = 1.25897."""
    found = feedback(X, Y[None], Z[None], pictures=ORIGIN, queries=ORIGIN)
    np.testing.assert_allclose(found, np.array([1, 0.75, -0.15]) / 1.258968, atol=1e-6)
    assert found.dtype == np.float32


def test_each_kind_is_seen_from_its_own_mean():
    """The text lies at .6 x of its mean, the liked at .5 y and 2 z of theirs: both count the same."""
    texts, pictures = np.array([[3, 3, 3], [-2, 0, 5]], np.float32)
    liked = np.stack([pictures + 0.5 * Y, pictures + 2 * Z])
    found = feedback(texts + 0.6 * X, liked, NONE, pictures=pictures, queries=texts)
    expected = X + 0.75 * (Y + Z) / 2
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)
    of_picture = feedback(pictures + 0.6 * X, liked, NONE, pictures=pictures)
    np.testing.assert_allclose(of_picture, found, atol=1e-6)


def test_without_a_query_the_liked_ones_are_it():
    np.testing.assert_allclose(feedback(None, np.stack([Y, Y]), NONE, pictures=ORIGIN), Y, atol=1e-6)


def test_what_is_like_the_liked_leaves_what_is_like_the_disliked_behind():
    rng = np.random.default_rng(0)
    base = as_embeddings(rng.standard_normal((1, 32)))
    groups = rng.standard_normal((3, 32))
    pictures = as_embeddings(2 * base + np.repeat(groups, 20, axis=0) + rng.standard_normal((60, 32)) * 0.3)
    text = as_embeddings(rng.standard_normal((1, 32)) + groups[:1] * 0.3 + groups[1:2] * 0.3)[0]
    means = {"pictures": pictures.mean(axis=0), "queries": np.zeros(32, np.float32)}
    before = pictures @ feedback(text, pictures[:0], pictures[:0], **means)
    after = pictures @ feedback(text, pictures[:3], pictures[20:23], **means)
    gap = [scores[3:20].mean() - scores[23:40].mean() for scores in (before, after)]
    assert gap[1] > gap[0] + 0.1


def test_nothing_to_look_for_is_an_error():
    with pytest.raises(QueryError, match="disliked pictures alone"):
        feedback(None, NONE, X[None], pictures=ORIGIN)
    with pytest.raises(QueryError, match="cancel"):
        feedback(ORIGIN, NONE, NONE, pictures=ORIGIN)
