"""One order out of two scores: the first stage's and a reranker's, for the pool of one query."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import QueryError
from .evaluation import bootstrap, spoken

Scores: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]
How: TypeAlias = Literal["z", "rrf"]
Pool: TypeAlias = tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]
"""One query: (n,) first-stage scores, best first; (n,) second scores; (n,) which pictures are relevant."""

WEIGHT = 0.3  # of the second score, as long as nothing is known of it
GRID = np.arange(21) / 20  # weights that are tried
RRF_K = 10  # Cormack's 60 is for lists of 1,000: among 20 it makes all ranks nearly the same
SPREAD = 1e-6  # of the largest score: below it differences are rounding of float32


def fused(first: npt.ArrayLike, second: npt.ArrayLike, *, weight: float = WEIGHT, how: How = "z") -> Scores:
    """The scores by which a pool is ordered anew.

    "z", the convex combination of Bruch et al. (arXiv 2210.11934): (1 - weight) * z(first) + weight *
    z(second), where z(s) = (s - mean) / standard deviation (population), over those of the pool that have a
    score. Scores that do not differ say nothing: all their z are 0.

    "rrf", reciprocal rank fusion (Cormack et al. 2009), weighted: (1 - weight) / (10 + rank of first) +
    weight / (10 + rank of second). Ranks begin at 1, and equal scores share the mean of theirs. It looks at
    no distances, so it is the weaker way unless a score's are meaningless.

    Args:
        first: (n,) the first stage's scores, higher is better.
        second: (n,) the second scores, on any scale, higher is better. nan: there is none, which counts as an
            average judgement, in "z" 0 and in "rrf" the middle rank. An infinite one stands one standard
            deviation beyond the furthest finite one. The same goes for `first`.
        weight: the second's share, from 0 to 1.
        how: see above.

    Returns:
        float64 (n,), finite, in the order given; (0,) for an empty pool.

    Raises:
        QueryError: the lengths differ, the weight is not between 0 and 1, or `how` is another word.
    """
    one, two = _scores(first), _scores(second)
    if one.shape != two.shape:
        raise QueryError(f"{one.size} pictures have {two.size} second scores: give each one, nan for none")
    if not 0 <= weight <= 1:
        raise QueryError(f"the weight of the second score is {weight!r}: it goes from 0 to 1")
    if how not in ("z", "rrf"):
        raise QueryError(f"scores cannot be fused by {how!r}: use 'z' or 'rrf'")
    scale = _z if how == "z" else _reciprocal
    return (1 - weight) * scale(one) + weight * scale(two)


def order(scores: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Positions in the order of their scores, best first, (n,); equal ones keep theirs and nan is last."""
    return np.argsort(-_scores(scores), kind="stable")


@dataclass(frozen=True)
class Fit:
    """A weight that was fitted, and what it can be expected to do.

    All but `weight` and `queries` are mean reciprocal ranks: 1 / rank of a query's first relevant picture, 0
    where the pool has none.

    Attributes:
        weight: the best for these queries.
        before: by the first stage alone.
        default: at the usual weight, 0.3.
        after: at `weight`, on the very queries that it was chosen on: too good.
        held_out: every query at the weight that is best for the others: what new queries can expect.
        interval: 95 % interval of held_out - before; None with fewer than 10 queries.
        queries: how many.
    """

    weight: float
    before: float
    default: float
    after: float
    held_out: float
    interval: tuple[float, float] | None
    queries: int

    def __str__(self) -> str:
        return (
            f"weight {self.weight:.2f} fitted on {self.queries:,} queries: MRR {self.before:.3f} before, "
            f"{self.default:.3f} at {WEIGHT}, {self.after:.3f} fitted, {self.held_out:.3f} held out "
            f"(gain {self.held_out - self.before:+.3f}, {spoken(self.interval)})"
        )


def fit_weight(pools: Iterable[Pool], *, how: How = "z") -> Fit:
    """The weight with the best mean reciprocal rank for queries whose relevant pictures are known.

    Weights 0, 0.05, … 1 are tried; among equally good ones the nearest to 0.3 is taken. A few queries always
    have some weight that suits them, so look at `held_out`: where it is not above `default`, keep 0.3.

    Args:
        pools: (first, second, relevant) of each query: (n,) first-stage scores, best first; (n,) second
            scores, nan for none; and (n,) which pictures are relevant. n may differ, and 0 is a miss.
        how: as in `fused`.

    Raises:
        QueryError: there is no pool, none has a relevant picture, or a pool's lengths differ.
    """
    found = [_reciprocal_ranks(*pool, how) for pool in pools]
    if not found:
        raise QueryError("there are no queries to fit a weight on: give some with known answers")
    ranks = np.stack(found)  # (queries, weights)
    total = ranks.sum(0)
    if not total.any():
        raise QueryError(f"none of the {len(ranks)} pools has a relevant picture, so every weight is as good")
    best = _best(total)
    others = np.array([_best(total - own) for own in ranks])  # of all queries but one
    held_out = np.take_along_axis(ranks, others[:, None], 1)[:, 0]
    means = ranks.mean(0)
    return Fit(
        weight=float(GRID[best]),
        before=float(means[0]),
        default=float(means[_best(np.zeros_like(total))]),
        after=float(means[best]),
        held_out=float(held_out.mean()),
        interval=bootstrap(held_out - ranks[:, 0]),
        queries=len(ranks),
    )


def _best(total: Scores) -> int:
    """The position of the best weight; a part of 1e-9 is rounding."""
    distance = np.where(total >= total.max() - 1e-9, abs(GRID - WEIGHT), np.inf)
    return int(distance.argmin())


def _reciprocal_ranks(
    first: npt.ArrayLike, second: npt.ArrayLike, relevant: npt.ArrayLike, how: How
) -> Scores:
    """1 / rank of the first relevant picture at every weight of the grid, (weights,)."""
    wanted: Mask = np.asarray(relevant, bool).ravel()
    ranked = [order(fused(first, second, weight=weight, how=how)) for weight in GRID.tolist()]
    if len(wanted) != len(ranked[0]):
        raise QueryError(
            f"of {len(ranked[0])} pictures {len(wanted)} are said to be relevant or not: say it of all"
        )
    hits = wanted[np.stack(ranked)]  # (weights, n)
    return 1 / (1 + hits.argmax(1)) if wanted.any() else np.zeros(len(GRID))


def _scores(scores: npt.ArrayLike) -> Scores:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1:
        raise QueryError(f"the scores of a pool have shape {values.shape}: give one number for each picture")
    return values


def _z(scores: Scores) -> Scores:
    z, judged = np.zeros_like(scores), ~np.isnan(scores)
    values = _clipped(scores[judged])
    if len(values) and (spread := values.std()) > SPREAD:
        z[judged] = (values - values.mean()) / spread
    return z


def _clipped(scores: Scores) -> Scores:
    """Finite scores in units of the largest, which z takes no notice of and which cannot overflow."""
    finite = scores[np.isfinite(scores)]
    unit = abs(finite).max(initial=0) or 1.0
    finite = finite / unit if len(finite) else np.zeros(1)
    step = spread if (spread := finite.std()) > SPREAD else 1.0
    return np.clip(scores / unit, finite.min() - step, finite.max() + step)


def _reciprocal(scores: Scores) -> Scores:
    judged = ~np.isnan(scores)
    _, place, counts = np.unique(-scores[judged], return_inverse=True, return_counts=True)
    ranks = np.full(len(scores), (1 + judged.sum()) / 2)
    ranks[judged] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return 1 / (RRF_K + ranks)
