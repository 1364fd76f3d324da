"""What reranking is worth, where the relevant pictures of some queries are known.

- R@k: share of the queries that have a relevant picture among their first k.
- MRR: mean reciprocal rank, 1 / rank of a query's first relevant picture, 0 where it has none.
- nDCG@10: every relevant picture among the first 10 counts 1 / log2(1 + rank); the sum as a share of the most
  that it could be, averaged over the queries.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import QueryError

Ids: TypeAlias = Sequence[Hashable]
Numbers: TypeAlias = npt.NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]
Query = TypeVar("Query")

KS = (1, 5, 10)
DEPTH = 10  # of nDCG
ENOUGH = 10  # queries for an interval that says anything
DRAWS = 2000  # resamplings


def measure(
    rankings: Sequence[Ids], relevant: Sequence[Collection[Hashable]], ks: Sequence[int] = KS
) -> dict[str, float]:
    """R@k for each k, MRR and nDCG@10 of q queries, by name.

    Args:
        rankings: the ids that each query found, best first; may be empty or of different lengths.
        relevant: the ids that each should find, at least one; what is not found at all counts as missed.
        ks: how many of the first to look at.

    Raises:
        QueryError: there are no queries, a query has no relevant ids, or an id is twice in a ranking.
    """
    places = _places(rankings, relevant)
    first = _first(places)
    most = np.cumsum(_discount(np.arange(1.0, DEPTH + 1)))
    shares = [
        _discount(ranks[ranks <= DEPTH]).sum() / most[min(len(set(wanted)), DEPTH) - 1]
        for ranks, wanted in zip(places, relevant, strict=True)
    ]
    return {
        **{f"R@{k}": float((first <= k).mean()) for k in ks},
        "MRR": float((1 / first).mean()),
        f"nDCG@{DEPTH}": float(np.mean(shares)),
    }


@dataclass(frozen=True)
class RerankEvaluation:
    """What reranking did to the results of some queries.

    Attributes:
        before: R@k, MRR and nDCG@10 of the first stage, as `measure` gives them.
        after: the same of the new order.
        ceiling: share of the queries with a relevant picture in the pool at all: no order has a better
            R@k or MRR.
        depth: pictures in the largest pool.
        queries: how many.
        seconds_per_query: the median.
        interval: 95 % interval of the gain in MRR, by a paired bootstrap over the queries; None with fewer
            than 10 of them.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    ceiling: float
    depth: int
    queries: int
    seconds_per_query: float
    interval: Interval | None

    def __str__(self) -> str:
        lines = [f"{'':8}{'before':>8}{'after':>8}{'gain':>8}"]
        for name, before in self.before.items():
            after = self.after[name]
            lines.append(f"{name:8}{before:8.3f}{after:8.3f}{after - before:+8.3f}")
            if name == "MRR":
                lines[-1] += f"  ({spoken(self.interval)})"
        lines.append(
            f"{'ceiling':8}{self.ceiling:8.3f}  have a relevant picture in the pool of {self.depth:,}"
        )
        lines.append(f"{self.queries:,} queries, {self.seconds_per_query:.3g} s each")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self)


def evaluate_rerank(
    search: Callable[[Query], tuple[Ids, Ids, float]],
    queries: Sequence[Query],
    relevant: Sequence[Collection[Hashable]],
    *,
    k: int = 10,
) -> RerankEvaluation:
    """Measure what a reranker does to the results of queries whose relevant pictures are known.

    Args:
        search: gives a query's pool as ids in the first stage's order, the same ids in the new order, and the
            seconds that it took.
        queries: what to search for.
        relevant: the ids that each query should find, at least one.
        k: R@k is given too, beside R@1, R@5 and R@10.

    Raises:
        QueryError: there are no queries, one has no relevant ids, or reranking added or lost a picture.
    """
    if k < 1:
        raise QueryError(f"there is no R@{k}: k is at least 1")
    _check(queries, relevant)
    found = [search(query) for query in queries]
    for query, (before, after, _) in zip(queries, found, strict=True):
        if len(before) != len(after) or set(before) != set(after):
            raise QueryError(
                f"reranking {query!r} gave other pictures than it got: it may order them, not add or lose any"
            )
    olds, news = [before for before, _, _ in found], [after for _, after, _ in found]
    ks = sorted({*KS, k})
    gains = 1 / _first(_places(news, relevant)) - 1 / _first(_places(olds, relevant))
    return RerankEvaluation(
        before=measure(olds, relevant, ks),
        after=measure(news, relevant, ks),
        ceiling=float(np.isfinite(_first(_places(olds, relevant))).mean()),
        depth=max(map(len, olds)),
        queries=len(queries),
        seconds_per_query=float(np.median([seconds for _, _, seconds in found])),
        interval=bootstrap(gains),
    )


def bootstrap(gains: npt.ArrayLike) -> Interval | None:
    """95 % interval of the mean of paired differences, (n,): percentiles of 2,000 fixed resamplings.

    None for fewer than 10: their interval would look far too narrow.
    """
    values = np.asarray(gains, np.float64)
    if len(values) < ENOUGH:
        return None
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(DRAWS)]
    low, high = np.percentile(means, [2.5, 97.5]).tolist()
    return low, high


def spoken(interval: Interval | None) -> str:
    """An interval in words."""
    if interval is None:
        return f"fewer than {ENOUGH} queries: too few to tell"
    return f"95 %: {interval[0]:+.3f} to {interval[1]:+.3f}"


def _check(queries: Sequence[Any], relevant: Sequence[Collection[Hashable]]) -> None:
    if not len(queries):
        raise QueryError("there are no queries to measure: give some whose relevant pictures are known")
    if len(queries) != len(relevant):
        raise QueryError(
            f"{len(queries)} queries have {len(relevant)} lists of relevant ids: give each its own"
        )
    for number, wanted in enumerate(relevant):
        if isinstance(wanted, str | bytes) or not isinstance(wanted, Collection) or not len(wanted):
            raise QueryError(
                f"what query {number} should find is {wanted!r}: give one or more ids of relevant pictures"
            )


def _places(rankings: Sequence[Ids], relevant: Sequence[Collection[Hashable]]) -> list[Numbers]:
    """The ranks, from 1, of the relevant ids that each query found, in order."""
    _check(rankings, relevant)
    for number, ranking in enumerate(rankings):
        if len(set(ranking)) < len(ranking):
            raise QueryError(f"query {number} has a picture twice in its results: an id may be there once")
    return [
        np.array([rank for rank, id in enumerate(ranking, 1) if id in wanted], np.float64)
        for ranking, wanted in zip(rankings, map(set, relevant), strict=True)
    ]


def _first(places: Sequence[Numbers]) -> Numbers:
    """Each query's first rank, (q,); inf where nothing is found."""
    return np.array([ranks[0] if len(ranks) else np.inf for ranks in places])


def _discount(ranks: Numbers) -> Numbers:
    return 1 / np.log2(1 + ranks)
