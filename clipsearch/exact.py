"""Exact search: every stored vector is looked at, as close to the memory's speed as we can.

Few values are scored by NumPy, which needs no import; one query against many is scanned by
FAISS's fp16 kernel over the segments' own bytes, a share per core, and nothing is copied; many
queries are one matrix product per block of rows. All three end in the same rescoring, so a hit's
score never depends on the way it was found.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .faiss_check import load_faiss
from .files import cores
from .store import Snapshot
from .types import Embeddings

SMALL = 1 << 25  # values that NumPy scores in less time than FAISS takes to import
TINY = 1 << 19  # the same where FAISS is there anyway
SCANNED = 16  # queries up to which reading the vectors once for each is quicker than unpacking them
TOGETHER = 256  # queries multiplied at a time: their scores against a block take some 10 MB
BLOCK = 1 << 22  # values unpacked at a time: 16 MB of float32, near the cache
FIRST = 256  # rows multiplied at first: what is best so far is then soon good, and hardly a row beats it
SPARE = 16  # candidates past k, so that rounding in the scan cannot cost a hit
FEW = 5_000  # rows that a filter leaves, up to which fetching them beats passing over the others


class Piece(NamedTuple):
    """A run of rows of one segment."""

    start: int  # row number of its first vector in the space
    vectors: npt.NDArray[np.float16]  # (n, dim)
    shown: npt.NDArray[np.bool_] | None  # (n,); None: all


class Neighbours(NamedTuple):
    """The nearest rows of one query, best first; equal scores in row order."""

    scores: npt.NDArray[np.float32]  # (m,) cosine, m <= k
    rows: npt.NDArray[np.int64]  # (m,)


class ExactIndex:
    """Searches a snapshot, or some of its rows, by looking at every vector."""

    def __init__(self, snapshot: Snapshot, rows: npt.NDArray[np.bool_] | None = None) -> None:
        """Take the shown rows of a snapshot, or those of them that a mask `rows`, (N,), allows."""
        self._snapshot, self._dim = snapshot, snapshot.space.dim
        self._shown = both(snapshot.shown, rows)  # (N,); None: all
        self._pieces = list(_pieces(snapshot, self._shown))
        self._rows = sum(len(piece.vectors) for piece in self._pieces)
        self._handful: npt.NDArray[np.int64] | None = None  # (m,) all that may be found, where few are
        if self._shown is not None and np.count_nonzero(self._shown) <= FEW < self._rows:
            self._handful = np.flatnonzero(self._shown)

    def search(
        self, queries: Embeddings, k: int, *, only: npt.NDArray[np.bool_] | None = None, kind: str = "text"
    ) -> list[Neighbours]:
        """Find the k nearest shown rows of each query.

        Args:
            queries: float32 (q, dim), unit rows.
            k: how many; fewer come where fewer are shown.
            only: (N,) the rows that may be found; None: all.
            kind: what the queries are of, which makes no difference here.

        Returns:
            One Neighbours per query, in order. No queries give an empty list.
        """
        candidates = self.candidates(queries, k, only=only)
        return [rescore(self._snapshot, *pair, k) for pair in zip(queries, candidates, strict=True)]

    def candidates(
        self, queries: Embeddings, k: int, *, only: npt.NDArray[np.bool_] | None = None
    ) -> list[npt.NDArray[np.int64]]:
        """Rows among which are the k nearest of each query, in no order."""
        if (rows := self._few(only)) is not None:
            return _gather(self._snapshot, queries, rows, k + SPARE)
        pieces = self._pieces if only is None else _masked(self._pieces, only)
        wanted = min(k + SPARE, self._rows)
        if not wanted:
            return [np.empty(0, np.int64) for _ in queries]
        if self._rows * self._dim <= self._small or len(queries) > SCANNED:
            parts = [queries[i : i + TOGETHER] for i in range(0, len(queries), TOGETHER)]
            return [rows for part in parts for rows in _multiply(pieces, part, wanted)]
        return [_scan(pieces, query, wanted) for query in queries]

    def _few(self, only: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64] | None:
        """The rows that may be found, where fetching them beats passing over the others; else None."""
        if only is None:
            return self._handful
        if np.count_nonzero(only) > FEW:
            return None
        return np.flatnonzero(only if self._shown is None else only & self._shown)

    @property
    def _small(self) -> int:
        """Values up to which NumPy is as quick as FAISS, or as importing it."""
        return TINY if "faiss" in sys.modules else SMALL


def rescore(
    snapshot: Snapshot, query: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], k: int
) -> Neighbours:
    """The k best of some rows, all different, by their stored vectors."""
    rows = np.sort(rows)
    scores = np.einsum("nd,d->n", snapshot.vectors(rows), query, dtype=np.float32)
    best = np.argsort(-scores, kind="stable")[:k]  # stable: equal scores stay in row order
    return Neighbours(scores[best], rows[best])


def both(
    one: npt.NDArray[np.bool_] | None, other: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.bool_] | None:
    """The rows that two masks allow; None allows all."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _gather(
    snapshot: Snapshot, queries: Embeddings, rows: npt.NDArray[np.int64], wanted: int
) -> list[npt.NDArray[np.int64]]:
    """Candidates of each query among a few rows."""
    if len(queries) == 1 or len(rows) <= wanted:
        return [rows] * len(queries)
    scores = queries @ snapshot.vectors(rows).T  # (q, m)
    return list(rows[np.argsort(-scores, axis=1, kind="stable")[:, :wanted]])


def _pieces(snapshot: Snapshot, shown: npt.NDArray[np.bool_] | None) -> Iterator[Piece]:
    """The snapshot's segments, each from the first to the last row that may be found."""
    start = 0
    for segment in snapshot.segments:
        mask = None if shown is None else shown[start : start + len(segment.contents)]
        if mask is None or mask.all():
            yield Piece(start, segment.vectors, None)
        elif len(here := np.flatnonzero(mask)):
            part = slice(here[0], here[-1] + 1)
            yield Piece(start + int(here[0]), segment.vectors[part], mask[part])
        start += len(segment.contents)


def _masked(pieces: list[Piece], only: npt.NDArray[np.bool_]) -> list[Piece]:
    """The same pieces with the rows that a mask of all rows allows."""
    parts = [only[start : start + len(vectors)] for start, vectors, _ in pieces]
    return [piece._replace(shown=both(piece.shown, part)) for piece, part in zip(pieces, parts, strict=True)]


def _split(pieces: list[Piece], step: int, first: int | None = None) -> Iterator[Piece]:
    """The same rows in pieces of at most `step`; or of `first`, and then of twice as many each time."""
    size = min(step, first or step)
    for start, vectors, shown in pieces:
        done = 0
        while done < len(vectors):
            part = slice(done, done + size)
            yield Piece(start + done, vectors[part], None if shown is None else shown[part])
            done, size = done + size, min(step, 2 * size)


def _multiply(pieces: list[Piece], queries: Embeddings, wanted: int) -> list[npt.NDArray[np.int64]]:
    """Candidates of many queries, unpacking each block of vectors once."""
    best = np.full((len(queries), wanted), -np.inf, np.float32)  # (q, wanted)
    rows = np.full((len(queries), wanted), -1, np.int64)
    dim = queries.shape[1]
    step = max(1, BLOCK // dim)
    unpacked = np.empty((step, dim), np.float32)
    for start, vectors, shown in _split(pieces, step, FIRST):
        block = unpacked[: len(vectors)]  # (b, dim)
        np.copyto(block, vectors)
        scores = queries @ block.T  # (q, b)
        if shown is not None:
            scores[:, ~shown] = -np.inf
        _merge(best, rows, scores, start)
    return [row[score > -np.inf] for row, score in zip(rows, best, strict=True)]


def _merge(
    best: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    start: int,
) -> None:
    """Put what beats the worst of the best so far, (q, wanted), in its place; of equal ones the first stays.

    After some blocks hardly a score does, so finding those is one comparison, and no sorting of all.
    """
    count, wanted = best.shape
    queries, places = np.divmod(np.flatnonzero(scores > best[:, -1:]), scores.shape[1])
    if not len(queries):
        return
    whose = np.concatenate([np.repeat(np.arange(count), wanted), queries])
    pool = np.concatenate([best.reshape(-1), scores[queries, places]])
    numbers = np.concatenate([rows.reshape(-1), places + start])
    order = np.lexsort((-pool, whose))  # stable
    first = np.searchsorted(whose[order], np.arange(count))
    top = order[first[:, None] + np.arange(wanted)]  # (q, wanted)
    best[:], rows[:] = pool[top], numbers[top]


def _scan(pieces: list[Piece], query: npt.NDArray[np.float32], wanted: int) -> npt.NDArray[np.int64]:
    """Candidates of one query, at the speed the memory can be read."""
    step = -(-sum(len(piece.vectors) for piece in pieces) // cores())
    with ThreadPoolExecutor(cores()) as pool:
        found = list(pool.map(lambda piece: _scan_piece(piece, query, wanted), _split(pieces, step)))
    scores, rows = (np.concatenate(part) for part in zip(*found, strict=True))
    best = np.argsort(-scores)[:wanted]
    return rows[best][rows[best] >= 0]


def _scan_piece(
    piece: Piece, query: npt.NDArray[np.float32], wanted: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The best of one piece, in no order; the rest of the arrays is (-inf, -1).

    FAISS's codes for QT_fp16 are the float16 values themselves, so its kernel reads the mapped file.
    """
    faiss = load_faiss()
    scores = np.full(wanted, -np.inf, np.float32)
    rows = np.full(wanted, -1, np.int64)
    bits = packed(piece.shown)
    codec = faiss.ScalarQuantizer(piece.vectors.shape[1], faiss.ScalarQuantizer.QT_fp16)
    # store_pairs: rows are numbered by their place in the list, and the list is number 0
    chosen = selector(faiss, bits)  # FAISS only points to it
    scanner = codec.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, True, chosen, False)
    scanner.set_query(faiss.swig_ptr(query))
    scanner.set_list(0, 0.0)
    codes = piece.vectors.view(np.uint8).reshape(-1)
    heap = (faiss.swig_ptr(scores), faiss.swig_ptr(rows))
    scanner.scan_codes(len(piece.vectors), faiss.swig_ptr(codes), None, *heap, wanted)
    return scores, np.where(rows < 0, -1, rows + piece.start)


def packed(shown: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.uint8] | None:
    """A mask as FAISS wants it, eight rows a byte."""
    return None if shown is None else np.packbits(shown, bitorder="little")


def selector(faiss: Any, bits: npt.NDArray[np.uint8] | None) -> Any:
    """FAISS's filter for a packed mask, which must live as long as it; None: no filter."""
    return None if bits is None else faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
