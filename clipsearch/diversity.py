"""Results that differ from each other: maximal marginal relevance."""

import numpy as np
import numpy.typing as npt

from .types import Embeddings

TINY = 1e-6  # of equal vectors, between which there is nothing to choose


def diversify(
    scores: npt.NDArray[np.float32], vectors: Embeddings, k: int, weight: float
) -> npt.NDArray[np.int64]:
    """Order hits so that each is good and unlike those before it.

    The next is always the one with the highest (1 - weight) * score - weight * (its highest cosine to those
    before it). Texts and pictures have other cosines than pictures among themselves, so both are put on one
    scale first: scores from 0, the lowest, to 1, the highest; cosines from 0, their mean over all hits, to 1.
    Carbonell and Goldstein, "The use of MMR", SIGIR 1998. Work grows like k * n.

    Args:
        scores: (n,) higher is better.
        vectors: float32 (n, dim), unit rows.
        k: how many to choose.
        weight: 0 keeps the order of the scores, 1 looks at the differences alone once the best is chosen.

    Returns:
        min(k, n) places, int64, in the new order; of equal ones the first comes first. The best score is
        always the first.
    """
    chosen = np.empty(min(k, len(scores)), np.int64)
    if not len(chosen):
        return chosen
    good = (scores - scores.min()) / (np.ptp(scores) or 1)
    mean = mean_cosine(vectors)
    alike = np.zeros(len(scores))  # (n,) to the nearest of those chosen
    free = np.ones(len(scores), np.bool_)
    for place in range(len(chosen)):
        value = (1 - weight) * good - weight * alike if place else good
        chosen[place] = best = np.where(free, value, -np.inf).argmax()
        free[best] = False
        cosines = (vectors @ vectors[best] - mean) / max(1 - mean, TINY)
        alike = np.maximum(alike, cosines) if place else cosines
    return chosen


def mean_cosine(vectors: Embeddings) -> float:
    """The mean cosine of two different ones; 1 of fewer than two."""
    n, total = len(vectors), vectors.sum(axis=0, dtype=np.float64)
    return float((total @ total - n) / (n * (n - 1))) if n > 1 else 1.0
