"""How far an approximate index must look: measured on queries that it was not built of.

Text queries lie outside the cloud of picture vectors (the modality gap: Liang et al. 2022, "Mind
the Gap"), so an index tuned on stored vectors, as is usual, finds far less of what a text should
find. Each kind of queries is tuned on its own.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..types import Embeddings
from .approximate import TUNED_FOR
from .layout import Layout
from .published import Tuned

DEPTHS = (2, 4, 8, 16, 32, 64, 128)  # candidates for each hit
SURE = 1.645  # standard errors below the mean: 95 %, one-sided
MISSED = 1 << 30  # behind every candidate
TIMED = 40  # queries asked one by one of each setting that is good enough


class Setting(NamedTuple):
    """One way to search, and the recall of each query with it, (q,)."""

    probes: int
    depth: int
    recalls: npt.NDArray[np.float64]


def tune(
    layout: Layout, queries: Embeddings, nearest: npt.NDArray[np.int64], *, target: float, source: str
) -> Tuned:
    """The quickest setting whose recall@10 is at least `target`, 95 % sure.

    Args:
        layout: the index.
        queries: float32 (q, dim), unit rows.
        nearest: (q, 10) positions of the true nearest vectors; -1 where there are fewer.
        target: recall to reach. Where no setting is sure to, the widest one is taken.
        source: what the queries are, for a person.

    Returns:
        The setting with its measured recall: the mean over queries of the share of `nearest` found.
    """
    trial = _Trial(layout, queries, nearest)
    good = list(_good_enough(trial, target)) or [trial.setting(layout.most_probes, DEPTHS[-1])]
    best = min(good, key=lambda setting: _seconds(layout, queries[:TIMED], setting)) if good[1:] else good[0]
    return Tuned(best.probes, best.depth, *_bounds(best.recalls), len(queries), source)


class _Trial:
    """Queries whose answers are known, and what was found with so many probes."""

    def __init__(self, layout: Layout, queries: Embeddings, nearest: npt.NDArray[np.int64]) -> None:
        self.layout, self._queries, self._nearest = layout, queries, nearest
        self._ranks: dict[int, npt.NDArray[np.int64]] = {}  # by probes

    def setting(self, probes: int, depth: int) -> Setting:
        """What a search finds; all depths of as many probes cost one search."""
        if probes not in self._ranks:
            found = self.layout.candidates(self._queries, DEPTHS[-1] * TUNED_FOR, probes)
            self._ranks[probes] = _ranks(found, self._nearest)
        right = (self._ranks[probes] < depth * TUNED_FOR) & (self._nearest >= 0)
        return Setting(probes, depth, right.sum(axis=1) / np.maximum((self._nearest >= 0).sum(axis=1), 1))

    def at_least(self, probes: int, depth: int) -> float:
        """The recall that a search surely has."""
        return _bounds(self.setting(probes, depth).recalls)[1]


def _good_enough(trial: _Trial, target: float) -> Iterator[Setting]:
    """For each depth, the fewest probes that reach the target; fewer candidates never need fewer probes."""
    steps, fewest = _steps(trial.layout.most_probes), 0
    for depth in reversed(DEPTHS):
        sure = partial(trial.at_least, depth=depth)
        fewest = bisect_left(steps, target, lo=fewest, key=sure)
        if fewest == len(steps):
            return
        yield trial.setting(steps[fewest], depth)


def _steps(most: int) -> list[int]:
    """Numbers of probes to try: 1, 2, 3, 4, 6, 8, 12, 16, …, `most`."""
    steps = {2**power for power in range(20)} | {3 * 2**power for power in range(20)}
    return [step for step in sorted(steps) if step < most] + [most]


def _ranks(found: npt.NDArray[np.int64], nearest: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(q, 10) at which place of the candidates, (q, m), each true neighbour is, or MISSED."""
    ranks = np.empty(nearest.shape, np.int64)
    for query, line in enumerate(found):
        same = line == nearest[query, :, None]  # (10, m)
        ranks[query] = np.where(same.any(axis=1), same.argmax(axis=1), MISSED)
    return ranks


def _bounds(recalls: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The mean, and what the mean over all such queries is at least, 95 % sure."""
    mean = float(recalls.mean())
    return round(mean, 4), round(mean - SURE * float(recalls.std()) / len(recalls) ** 0.5, 4)


def _seconds(layout: Layout, queries: Embeddings, setting: Setting) -> float:
    """The median time of one query."""
    taken = []
    for query in queries:
        started = time.perf_counter()
        layout.candidates(query[None], setting.depth * TUNED_FOR, setting.probes)
        taken.append(time.perf_counter() - started)
    return median(taken)
