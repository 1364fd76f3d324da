"""Exact search: every stored vector is looked at, as close to the memory's speed as we can.

Few values are scored by NumPy, which needs no import; one query against many is scanned by
FAISS's fp16 kernel over the segments' own bytes, a share per core, and nothing is copied; many
queries are one matrix product per block of rows. All three end in the same rescoring, so a hit's
score never depends on the way it was found.
"""

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
SCANNED = 16  # queries up to which reading the vectors once for each is quicker than unpacking them
TOGETHER = 256  # queries multiplied at a time: their scores against a block take some 10 MB
BLOCK = 1 << 22  # values unpacked at a time: 16 MB of float32, near the cache
SPARE = 16  # candidates past k, so that rounding in the scan cannot cost a hit


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
    """Searches a snapshot by looking at every vector."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._dim = snapshot.space.dim
        self._pieces = list(pieces(snapshot))
        self._rows = len(snapshot)

    def search(self, queries: Embeddings, k: int) -> list[Neighbours]:
        """Find the k nearest shown rows of each query.

        Args:
            queries: float32 (q, dim), unit rows.
            k: how many; fewer come where fewer are shown.

        Returns:
            One Neighbours per query, in order. No queries give an empty list.
        """
        wanted = min(k + SPARE, self._rows)
        if not wanted:
            return [Neighbours(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
        if self._rows * self._dim <= SMALL or len(queries) > SCANNED:
            parts = [queries[i : i + TOGETHER] for i in range(0, len(queries), TOGETHER)]
            candidates = [rows for part in parts for rows in self._multiply(part, wanted)]
        else:
            candidates = [self._scan(query, wanted) for query in queries]
        return [self._rescore(query, rows, k) for query, rows in zip(queries, candidates, strict=True)]

    def _multiply(self, queries: Embeddings, wanted: int) -> list[npt.NDArray[np.int64]]:
        """Candidates of many queries, unpacking each block of vectors once."""
        best = np.full((len(queries), wanted), -np.inf, np.float32)  # (q, wanted)
        rows = np.full((len(queries), wanted), -1, np.int64)
        step = max(1, BLOCK // self._dim)
        unpacked = np.empty((step, self._dim), np.float32)
        for start, vectors, shown in _split(self._pieces, step):
            block = unpacked[: len(vectors)]  # (b, dim)
            np.copyto(block, vectors)
            scores = queries @ block.T  # (q, b)
            if shown is not None:
                scores[:, ~shown] = -np.inf
            numbers = np.broadcast_to(np.arange(start, start + len(block)), scores.shape)
            scores, numbers = np.hstack([best, scores]), np.hstack([rows, numbers])  # (q, wanted + b)
            top = np.argpartition(-scores, wanted - 1, axis=1)[:, :wanted]
            best, rows = np.take_along_axis(scores, top, 1), np.take_along_axis(numbers, top, 1)
        return [row[score > -np.inf] for row, score in zip(rows, best, strict=True)]

    def _scan(self, query: npt.NDArray[np.float32], wanted: int) -> npt.NDArray[np.int64]:
        """Candidates of one query, at the speed the memory can be read."""
        step = -(-self._rows // cores())
        with ThreadPoolExecutor(cores()) as pool:
            found = list(pool.map(lambda piece: _scan(piece, query, wanted), _split(self._pieces, step)))
        scores, rows = (np.concatenate(part) for part in zip(*found, strict=True))
        best = np.argsort(-scores)[:wanted]
        return rows[best][rows[best] >= 0]

    def _rescore(self, query: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], k: int) -> Neighbours:
        rows = np.sort(rows)
        scores = np.einsum("nd,d->n", self.vectors(rows), query, dtype=np.float32)
        best = np.argsort(-scores, kind="stable")[:k]  # stable: equal scores stay in row order
        return Neighbours(scores[best], rows[best])

    def vectors(self, rows: npt.NDArray[np.int64]) -> Embeddings:
        """The stored vectors of some rows, float32 (n, dim), in order."""
        out = np.empty((len(rows), self._dim), np.float32)
        for start, vectors, _ in self._pieces:
            here = (rows >= start) & (rows < start + len(vectors))
            out[here] = vectors[rows[here] - start]
        return out


def pieces(snapshot: Snapshot) -> Iterator[Piece]:
    """The snapshot's segments, each with the rows that may be found."""
    start = 0
    for segment in snapshot.segments:
        shown = ~np.isin(segment.contents, snapshot.hidden) if len(snapshot.hidden) else None
        yield Piece(start, segment.vectors, None if shown is None or shown.all() else shown)
        start += len(segment.contents)


def _split(pieces: list[Piece], step: int) -> Iterator[Piece]:
    """The same rows in pieces of at most `step`."""
    for start, vectors, shown in pieces:
        for i in range(0, len(vectors), step):
            part = slice(i, i + step)
            yield Piece(start + i, vectors[part], None if shown is None else shown[part])


def _scan(
    piece: Piece, query: npt.NDArray[np.float32], wanted: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The best of one piece, in no order; the rest of the arrays is (-inf, -1).

    FAISS's codes for QT_fp16 are the float16 values themselves, so its kernel reads the mapped file.
    """
    faiss = load_faiss()
    scores = np.full(wanted, -np.inf, np.float32)
    rows = np.full(wanted, -1, np.int64)
    selector, _bits = _selector(faiss, piece.shown)
    codec = faiss.ScalarQuantizer(piece.vectors.shape[1], faiss.ScalarQuantizer.QT_fp16)
    # store_pairs: rows are numbered by their place in the list, and the list is number 0
    scanner = codec.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, True, selector, False)
    scanner.set_query(faiss.swig_ptr(query))
    scanner.set_list(0, 0.0)
    codes = piece.vectors.view(np.uint8).reshape(-1)
    heap = (faiss.swig_ptr(scores), faiss.swig_ptr(rows))
    scanner.scan_codes(len(piece.vectors), faiss.swig_ptr(codes), None, *heap, wanted)
    return scores, np.where(rows < 0, -1, rows + piece.start)


def _selector(faiss: Any, shown: npt.NDArray[np.bool_] | None) -> tuple[Any, Any]:
    """FAISS's filter for the shown rows, and the bits that must live as long as it."""
    if shown is None:
        return None, None
    bits = np.packbits(shown, bitorder="little")
    return faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits)), bits
