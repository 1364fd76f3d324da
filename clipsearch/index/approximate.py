"""Search through an approximate index, in a collection that goes on living.

The index knows the rows it was built of. Those that came later are looked at one by one, those
that are hidden are left out, and every hit is scored by its stored vector.
"""

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..exact import FEW, ExactIndex, Neighbours, both, packed, rescore
from ..store import Snapshot
from ..types import Embeddings
from .published import Published, Tuned

Kind: TypeAlias = Literal["text", "image"]

TUNED_FOR = 10  # hits; fewer are searched for as if they were so many
BESIDE, FURTHER = 8, 0.3  # candidates for each hit past those; probes grow like this power of the hits
LOOKED_AT = 250_000_000  # bytes of vectors a filter leaves, up to which each is looked at
WIDENED, MOST_WIDENED = 2, 8  # times more probes, over the share of rows a filter leaves, and at most


class ApproximateIndex:
    """Searches a snapshot through an index of some of its rows."""

    def __init__(self, snapshot: Snapshot, published: Published) -> None:
        """Take an index that was built of this snapshot or of an older one.

        Raises:
            ValueError: its rows are not rows of the snapshot.
        """
        self.about, self._layout = published.about, published.layout
        self._snapshot, self._exact = snapshot, ExactIndex(snapshot)
        self._rows = rows_of(published.contents, snapshot.contents)  # (n,) row of each position; -1: gone
        here = self._allowed(snapshot.shown)
        self._bits = None if here.all() else packed(here)
        waiting = np.ones(len(snapshot), np.bool_)
        waiting[self._rows[self._rows >= 0]] = False
        self._tail = ExactIndex(snapshot, waiting)
        self._findable = self._count(np.ones(len(snapshot), np.bool_))
        self.gone = 1 - _share(here)  # of the positions: what is not to be found any more
        self.waiting = _share(waiting if snapshot.shown is None else waiting & snapshot.shown)  # of the rows

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        only: npt.NDArray[np.bool_] | None = None,
        kind: Kind = "text",
    ) -> list[Neighbours]:
        """Find the k nearest shown rows of each query, or nearly so.

        Args:
            queries: float32 (q, dim), unit rows.
            k: how many; fewer come where fewer are shown.
            only: (N,) the rows that may be found; None: all.
            kind: what the queries are of; each kind is tuned apart.

        Returns:
            One Neighbours per query, in order, with the scores of the stored vectors.
        """
        if only is not None and self._few(self._count(only)):
            return self._exact.search(queries, k, only=only)
        dials = self.about.tuned[kind]
        positions = self._candidates(queries, k, dials, only)
        tails = self._tail.candidates(queries, k, only=only)
        near = [
            rescore(self._snapshot, query, np.concatenate([self._rows[found[found >= 0]], tail]), k)
            for query, found, tail in zip(queries, positions, tails, strict=True)
        ]
        wanted = min(k, self._findable if only is None else self._count(only))
        return [
            found if len(found.rows) >= wanted else self._exact.search(query[None], k, only=only)[0]
            for query, found in zip(queries, near, strict=True)
        ]

    def _count(self, only: npt.NDArray[np.bool_]) -> int:
        """How many rows may be found."""
        return int(np.count_nonzero(only if self._snapshot.shown is None else only & self._snapshot.shown))

    def _few(self, passing: int) -> bool:
        return passing <= FEW or 2 * passing * self._snapshot.space.dim <= LOOKED_AT

    def _candidates(
        self, queries: Embeddings, k: int, dials: Tuned, only: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.int64]:
        """Positions of candidates, int64 (q, m); -1 where there are fewer."""
        count = dials.depth * TUNED_FOR + BESIDE * max(0, k - TUNED_FOR)
        probes = dials.probes * max(1.0, k / TUNED_FOR) ** FURTHER
        if only is None:
            return self._layout.candidates(queries, count, round(probes), self._bits)
        allowed = self._allowed(both(self._snapshot.shown, only))
        # What is left may lie away from the query, in cells that come late: no pictures of snow in July.
        widened = min(MOST_WIDENED, WIDENED / max(_share(allowed), 1e-9))
        return self._layout.candidates(queries, count, round(probes * widened), packed(allowed))

    def _allowed(self, mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
        """(n,) which positions a mask of rows allows; None allows all that are still there."""
        here = self._rows >= 0
        return here if mask is None else here & mask[self._rows]


def _share(mask: npt.NDArray[np.bool_]) -> float:
    return float(mask.mean()) if len(mask) else 0.0


def rows_of(indexed: npt.NDArray[np.int64], contents: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The row of each position of an index, (n,); -1 where it was dropped.

    Rows keep their order whatever happens to a collection, and leave with their content.

    Args:
        indexed: (n,) content of each position, in the order of the rows it was built of.
        contents: (N,) content of each row now.

    Raises:
        ValueError: the two are of different collections.
    """
    base = 1 + max(_most(indexed), _most(contents))
    one, other = _numbered(indexed, base), _numbered(contents, base)
    kept = np.isin(one, other)
    rows = np.flatnonzero(np.isin(other, one))
    if (other[rows] != one[kept]).any():
        raise ValueError("its rows are not rows of this collection")
    out = np.full(len(indexed), -1, np.int64)
    out[kept] = rows
    return out


def _most(contents: npt.NDArray[np.int64]) -> int:
    """How many rows the content with the most of them has."""
    if (np.diff(contents) > 0).all():  # quicker than counting, and usual
        return min(1, len(contents))
    return int(np.unique(contents, return_counts=True)[1].max(initial=0))


def _numbered(contents: npt.NDArray[np.int64], base: int) -> npt.NDArray[np.int64]:
    """A number for each row that no other has: of its content, and which of its rows it is."""
    if base == 2:
        return contents
    order = np.argsort(contents, kind="stable")
    _, first, counts = np.unique(contents[order], return_index=True, return_counts=True)
    which = np.empty(len(contents), np.int64)
    which[order] = np.arange(len(contents)) - np.repeat(first, counts)
    return contents * base + which
