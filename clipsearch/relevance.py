"""How well a query fits a picture, beside how well neutral ones do: a number that can be compared.

A cosine means something within one query: 0.3 may be the best or the worst of a model's. What can be
compared is

    fit = (cosine - log(mean over b of exp(sharpness * cosine of b)) / sharpness) / spread

where b runs over neutral queries that are not about the same as this one: by how much it fits better than
they do. The logarithm is the normalisation of query banks (Bogolin et al. 2022, "Cross Modal Retrieval with
Querybank Normalisation", their inverted softmax), per picture as for a model trained with a softmax, where
it is the log of p(query | picture) / p(query). Spread is that of neutral queries' cosines, so fits of any
model have one unit. Leaving out neutral queries about the same follows NegLabel (Jiang et al. 2024).

relevance = 1 / (1 + exp(-STEEP * (fit - usual))), and `usual` is what one in ten neutral queries reaches
somewhere among 1,000 pictures of the collection.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .types import Embeddings

RELEVANT = 0.5
"""From here a picture is said to be relevant."""

SHARPNESS = 3.0  # in units of 1 / spread; 2 to 4 do the same
STEEP = 1.7  # logistic fits to pictures of classes that were left out gave 0.9 to 2.6
SAME = 2.0  # standard deviations: neutral queries this much nearer to the query than most mean about the same
ASKED = 256  # neutral queries that are asked to learn what is usual
TRIALS, USUAL = 128, 0.9  # neutral queries in place of a part, and the share that must not reach 0.5
FLAT = 1e-3  # the least spread: of pictures that are all the same, rounding is no spread
BELOW_SELF = 2.0  # by how much less than itself a picture must fit to be as alike as usual, at least
TOGETHER = 1000  # pictures judged at a time, so that memory stays bounded
LEAST = 1e-9  # of a sum of exponentials, below which what is left of it is noise

Floats = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float32]  # (dim,)


class Background:
    """Neutral queries, and how well they fit some pictures of a collection."""

    def __init__(self, neutral: Embeddings, pictures: Embeddings, *, usual: float, own: bool = False) -> None:
        """Take what is compared with.

        Args:
            neutral: float32 (B, dim), unit rows: queries about no collection in particular, in mixed order.
            pictures: float32 (n, dim), unit rows, a sample of the collection, n at least 1.
            usual: the share of neutral queries that find nothing as fit as a relevance of 0.5.
            own: the neutral queries are the pictures themselves, and none finds itself.
        """
        self._neutral, self._pictures, self._usual, self._own = neutral, pictures, usual, own

    def relevance(self, query: Vector, cosines: npt.NDArray[np.float32], vectors: Embeddings) -> Floats:
        """How relevant pictures are for a query, 0 to 1.

        Args:
            query: (dim,), unit length.
            cosines: (n,), of the pictures with the query.
            vectors: (n, dim), the pictures.

        Returns:
            (n,), comparable across queries, collections and models as far as they go.
        """
        fits = [
            self._fit(query, cosines[i : i + TOGETHER], _Levels(vectors[i : i + TOGETHER], self))
            for i in range(0, len(vectors), TOGETHER)
        ]
        return _logistic(STEEP * (np.concatenate([*fits, np.empty(0)]) - self._centre))

    @cached_property
    def known(self) -> Floats:
        """How relevant the pictures of the sample are to 256 neutral queries at most, (queries, n)."""
        return _logistic(STEEP * (self._fits - self._centre))

    def _fit(self, query: Vector, cosines: npt.NDArray[np.float32], levels: "_Levels") -> Floats:
        near = self._neutral @ query  # (B,)
        level = levels.without(near > near.mean() + SAME * near.std())
        return np.asarray((cosines - level) / self.spread)

    @property
    def neutral(self) -> Embeddings:
        """The neutral queries."""
        return self._neutral

    @cached_property
    def spread(self) -> float:
        """The standard deviation of a picture's cosines with neutral queries, the mean over pictures."""
        return max(float((self._pictures @ self._neutral.T).std(1).mean()), FLAT)

    @cached_property
    def _fits(self) -> Floats:
        """The fit of each neutral query that is asked with each picture, (queries, n)."""
        levels = _Levels(self._pictures, self)
        asked = [self._neutral[i] for i in self._asked]
        return np.array([self._fit(query, self._pictures @ query, levels) for query in asked])

    @property
    def _asked(self) -> npt.NDArray[np.int64]:
        """Which of the neutral queries are asked, evenly from all."""
        count = min(ASKED, len(self._neutral))
        return np.asarray(np.arange(count) * (len(self._neutral) / count), np.int64)

    @cached_property
    def _centre(self) -> float:
        """The fit that few neutral queries reach anywhere among the pictures, but for themselves."""
        if not self._own:
            return float(np.quantile(self._fits.max(1), self._usual))
        themselves = np.arange(len(self._pictures)) == self._asked[:, None]
        found = np.where(themselves, -np.inf, self._fits).max(1)
        most = float(np.median(self._fits[themselves])) - BELOW_SELF
        return min(float(np.quantile(found, self._usual)), most)


class _Levels:
    """How well neutral queries fit each of n pictures, with any of them left out."""

    def __init__(self, vectors: Embeddings, background: Background) -> None:
        self._sharpness = SHARPNESS / background.spread
        usual = self._sharpness * (vectors @ background.neutral.T).astype(np.float64)  # (n, B)
        self._most = usual.max(1, initial=-np.inf)
        self._each = np.exp(usual - self._most[:, None])
        self._sum = self._each.sum(1)

    def without(self, same: npt.NDArray[np.bool_]) -> Floats:
        """log(mean over b of exp(sharpness * cosine of b)) / sharpness, where b is not `same`, (n,)."""
        left = np.maximum(self._sum - self._each[:, same].sum(1), LEAST * self._sum)
        mean = left / max(1, len(same) - int(same.sum()))
        return np.asarray((np.log(mean) + self._most) / self._sharpness)


def rescaled(
    joined: Floats,
    *,
    join: Callable[[Floats], Floats],
    given: Floats,
    parts: Sequence[Sequence[int]],
    backgrounds: Sequence[Background],
) -> Floats:
    """What a query of several parts makes of relevance, on the scale of one part.

    0.5 is what it reaches in one of ten cases if neutral queries stand in place of one part, of whichever it
    reaches most without. So a query whose parts are not all there is not relevant for those that are.

    Args:
        joined: (n,) in [0, 1], what `join` made of the parts.
        join: makes (m,) of (u, m), the relevance to each unit.
        given: (u, m), the relevance of the m pictures of the sample to each unit.
        parts: for each part that must be there, which units it has.
        backgrounds: of the u units, of the same sample.

    Returns:
        (n,), in the same order.
    """
    draw = np.random.default_rng(0)
    usual = max(_without(part, join, given, backgrounds, draw) for part in parts)
    return _logistic(_logit(joined) - _logit(np.array(usual)))


def _without(
    part: Sequence[int],
    join: Callable[[Floats], Floats],
    given: Floats,
    backgrounds: Sequence[Background],
    draw: np.random.Generator,
) -> float:
    """What one in ten neutral queries in place of a part reaches somewhere in the sample."""
    best, rows = [], given.copy()
    for _ in range(TRIALS):
        for unit in part:
            known = backgrounds[unit].known
            rows[unit] = known[draw.integers(len(known))]
        best.append(join(rows).max())
    return float(np.quantile(best, USUAL))


def _logistic(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -100, 100))))


def _logit(p: Floats) -> Floats:
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(p) - np.log1p(-p))
