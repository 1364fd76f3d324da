"""Which of many vectors lie near each other: every pair over a threshold, and never a matrix of all pairs.

No pair is missed. The vectors are first brought down to 33 numbers in a way that brings no two farther
apart, and then into cells; a pair of two cells must lie near the plane between their centres. What is left is
compared in full.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .faiss_check import load_faiss
from .progress import progress_bar
from .types import Embeddings

Rows: TypeAlias = npt.NDArray[np.int64]
Fetch: TypeAlias = Callable[[Rows], Embeddings]
"""Gives some of n vectors, float32 (m, dim), unit rows, by their numbers."""

TOGETHER = 4096  # vectors fetched at a time
SAMPLE = 20_000  # vectors that the strong axes are found from
STRONG = 32  # axes kept: they hold 0.89 of the squared length of the built-in model's vectors
CELL = 2000  # vectors a cell: a million make 500 cells, and 125,000 pairs of cells to look at
TRAINED = 64  # vectors that each centre is found from
BLOCK = 1 << 22  # cosines at a time: 16 MB
WAITING = 1 << 18  # pairs compared in full at a time
ROUNDING = 1e-4  # by which float32 may misplace a distance
TOLERANCE = 3e-6  # by which float32 may misplace a cosine: 2e-6 at 4096 numbers
APART = 0.01  # centres nearer than this have no plane between them that float32 can tell


class Stars(NamedTuple):
    """Groups of vectors, each within reach of its first one."""

    rows: list[Rows]  # one (m,) a group, m > 1; the chosen one, then the others by their cosine to it
    cosines: list[npt.NDArray[np.float32]]  # (m,) to the chosen one


def mean_cosine(fetch: Fetch, n: int) -> float:
    """The mean cosine of two different ones of n vectors; 0 of fewer than two."""
    if n < 2:
        return 0.0
    total = np.sum([fetch(part).sum(axis=0, dtype=np.float64) for part in _parts(np.arange(n))], axis=0)
    return float((total @ total - n) / (n * (n - 1)))


def components(fetch: Fetch, n: int, threshold: float, *, progress: bool | None = None) -> list[Rows]:
    """Which of n vectors are linked by pairs whose cosine is at least `threshold` - TOLERANCE.

    Returns:
        The vectors' numbers, one sorted array for each set of two or more, in order of their first.
    """
    labels, threshold = np.arange(n), threshold - TOLERANCE
    with progress_bar("comparing", progress, total=n) as bar:
        for one, other in _gathered(_candidates(_brought_down(fetch, n), threshold, bar)):
            fresh = labels[one] != labels[other]
            pairs = one[fresh], other[fresh]
            near = _cosines(fetch, *pairs) >= threshold
            labels = _joined(labels, pairs[0][near], pairs[1][near])
    order = np.argsort(labels, kind="stable")
    sets = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if n else []
    return sorted((rows for rows in sets if len(rows) > 1), key=lambda rows: int(rows[0]))


def stars(fetch: Fetch, rows: Rows, threshold: float) -> Stars:
    """Group vectors around chosen ones: the first takes all within reach, then the first that is left does.

    Single links would make one group of a row of pictures of which each is like the next, and the last
    not like the first. Here every member has a cosine of at least `threshold` - TOLERANCE to the chosen
    one.

    Args:
        fetch: gives vectors by their numbers.
        rows: (n,) numbers of vectors, those that are rather chosen first.
        threshold: the least cosine.

    Returns:
        The groups of two or more, in order of their chosen ones in `rows`.
    """
    owner = np.full(len(rows), -1)  # place in `rows` of the chosen one that took it
    left, threshold = np.arange(len(rows)), threshold - TOLERANCE
    while len(left):
        block, left = left[:TOGETHER], left[TOGETHER:]
        _choose(owner, block, _near(fetch(rows[block]), fetch(rows[block]), threshold))
        chosen = block[owner[block] == block]
        vectors = fetch(rows[chosen])
        for part in _parts(left):
            near = _near(fetch(rows[part]), vectors, threshold)
            taken = near.any(axis=1)
            owner[part[taken]] = chosen[near[taken].argmax(axis=1)]
        left = left[owner[left] < 0]
    return _stars(fetch, rows, owner)


def _choose(owner: Rows, block: Rows, near: npt.NDArray[np.bool_]) -> None:
    """Let the first free one of a block take all free ones near it, until none is free."""
    for place, reach in zip(block, near, strict=True):
        if owner[place] < 0:
            owner[block[reach & (owner[block] < 0)]] = place
            owner[place] = place


def _stars(fetch: Fetch, rows: Rows, owner: Rows) -> Stars:
    found = Stars([], [])
    order = np.argsort(owner, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
        if len(places) < 2:
            continue
        others = places[places != owner[places[0]]]
        chosen = np.full(len(others), owner[places[0]])
        cosines = _cosines(fetch, rows[chosen], rows[others])
        best = np.argsort(-cosines, kind="stable")
        found.rows.append(np.concatenate([rows[chosen[:1]], rows[others[best]]]))
        found.cosines.append(np.concatenate([np.ones(1, np.float32), cosines[best]]))
    return found


def _near(some: Embeddings, others: Embeddings, threshold: float) -> npt.NDArray[np.bool_]:
    return np.asarray(some @ others.T >= threshold)


def _parts(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER))


def _cosines(fetch: Fetch, some: Rows, others: Rows) -> npt.NDArray[np.float32]:
    """Of each pair, (n,)."""
    found = [
        np.einsum("nd,nd->n", fetch(one), fetch(other))
        for one, other in zip(_parts(some), _parts(others), strict=True)
    ]
    return np.concatenate([np.empty(0, np.float32), *found])


def _joined(labels: Rows, some: Rows, others: Rows) -> Rows:
    """The labels, (n,), when pairs are linked too."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = labels[some], labels[others]
    graph = coo_array((np.ones(len(some), np.bool_), ends), shape=(len(labels), len(labels)))
    merged: Rows = connected_components(graph, directed=False)[1]
    return merged[labels].astype(np.int64)


def _brought_down(fetch: Fetch, n: int) -> npt.NDArray[np.float32]:
    """The vectors along their strong axes, and the length of the rest: float32 (n, STRONG + 1), unit rows.

    x · y <= x1 · y1 + |x2| |y2| (Cauchy and Schwarz), so two of these have at least the cosine of the two
    vectors.
    """
    sample = fetch(np.sort(np.random.default_rng(0).choice(n, min(n, SAMPLE), replace=False)))
    axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :STRONG]  # (dim, STRONG)
    points = np.empty((n, axes.shape[1] + 1), np.float32)
    for part in _parts(np.arange(n)):
        points[part, :-1] = fetch(part) @ axes
        points[part, -1] = np.sqrt(np.maximum(0, 1 - np.square(points[part, :-1]).sum(axis=1)))
    return points


def _candidates(points: npt.NDArray[np.float32], threshold: float, bar: Any) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of points, each at most once, with all whose cosine is at least `threshold` among them."""
    centres, homes = _cells(points)
    order = np.argsort(homes, kind="stable")
    points = points[order]
    ends = np.searchsorted(homes[order], np.arange(len(centres) + 1))
    reach = np.sqrt(max(0.0, 2 - 2 * threshold)) + ROUNDING
    for a, (start, end) in enumerate(pairwise(ends)):
        for one, other in _pairs(points[start:end], points[start:end], threshold):
            yield order[start + one[one < other]], order[start + other[one < other]]
        for b in range(a + 1, len(centres)):
            across = centres[a] - centres[b]
            across /= max(np.linalg.norm(across), APART)
            beyond = points[ends[b] : ends[b + 1]]
            # Their distances from the plane between the two centres: a pair is no nearer than their sum.
            here, there = points[start:end] @ across, -(beyond @ across)
            for mine, theirs in (
                (here <= reach / 2, there <= reach),
                ((here > reach / 2) & (here <= reach), there <= reach / 2),
            ):
                left, right = np.flatnonzero(mine), np.flatnonzero(theirs)
                for one, other in _pairs(points[start + left], beyond[right], threshold):
                    yield order[start + left[one]], order[ends[b] + right[other]]
        bar.update(int(end - start))


def _cells(points: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], Rows]:
    """Unit centres (cells, d), and the number of the nearest for each point, (n,)."""
    count = max(1, len(points) // CELL)
    if count == 1:
        return points[:1], np.zeros(len(points), np.int64)
    means = load_faiss().Kmeans(
        points.shape[1], count, niter=8, spherical=True, seed=1, max_points_per_centroid=TRAINED
    )
    means.train(points)
    homes = [(points[part] @ means.centroids.T).argmax(axis=1) for part in _parts(np.arange(len(points)))]
    return means.centroids, np.concatenate(homes)


def _pairs(
    some: npt.NDArray[np.float32], others: npt.NDArray[np.float32], threshold: float
) -> Iterator[tuple[Rows, Rows]]:
    """The places of the points in both whose cosine is at least `threshold`."""
    step = max(1, BLOCK // max(1, len(others)))
    for start in range(0, len(some) if len(others) else 0, step):
        near = some[start : start + step] @ others.T >= threshold - ROUNDING
        one, other = np.divmod(np.flatnonzero(near), len(others))
        yield start + one, other


def _gathered(pairs: Iterator[tuple[Rows, Rows]]) -> Iterator[tuple[Rows, Rows]]:
    """The same pairs, WAITING at a time; fewer at last."""
    waiting, count = [np.empty((2, 0), np.int64)], 0
    for pair in pairs:
        waiting.append(np.stack(pair))
        count += len(pair[0])
        if count >= WAITING:
            together = np.concatenate(waiting, axis=1)  # (2, count)
            starts = range(0, count - WAITING + 1, WAITING)
            yield from ((part[0], part[1]) for part in (together[:, i : i + WAITING] for i in starts))
            waiting = [together[:, len(starts) * WAITING :]]
            count = waiting[0].shape[1]
    one, other = np.concatenate(waiting, axis=1)
    yield one, other
