"""Exact search on a GPU, through torch: every stored vector is looked at where it lies.

The vectors lie on the device as the float16 values that are stored, in blocks. Queries are
multiplied with a tile of rows at a time, and each query's best rows are kept. The product is only
near the true one; so the best are rescored from the stored values, as exact.py does, and where rounding
could have cost a hit, all rows that come near enough are looked at again.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import ClipsearchError
from .exact import Neighbours
from .segments import Segment
from .store import Snapshot
from .types import Embeddings

if TYPE_CHECKING:
    import torch

Rows: TypeAlias = npt.NDArray[np.int64]
Whose: TypeAlias = tuple[Rows, npt.NDArray[np.float32] | None]  # a segment's contents and boxes
Found: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"

SHARE = 0.7  # of the free memory that vectors may take; the rest is for tiles, the encoder and other programs
BLOCK = 1 << 30  # values of a block, 2 GiB: products and Metal's buffers are safe below 2^31 values
STAGED = 1 << 25  # values sent to the device at a time, or fetched from it: 64 MiB
SCORES = 1 << 27  # scores of a tile: 512 MiB of float32
QUERIES = 256  # multiplied at a time: from some 165 on, arithmetic takes longer than reading the vectors
GROUP = 128  # rows of which first only the best is looked at
SPARE = 16  # candidates past k and half of k, so that few searches have to look twice


def fits(device: str, *, rows: int, dim: int) -> bool:
    """Whether so many vectors leave a device room to work: never on a processor, which needs no copy.

    Args:
        device: as torch names it, and there.
        rows: how many vectors.
        dim: numbers in each.
    """
    return 2 * rows * dim <= SHARE * _free(device)


def _free(device: str) -> int:
    """Bytes of a device's own memory that are free; 0 where it has none."""
    import torch

    match torch.device(device).type:
        case "cuda":
            return torch.cuda.mem_get_info(device)[0]
        case "mps":
            return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return 0


class DeviceIndex:
    """Searches vectors that lie on a device; `upload` makes it. Nothing in it changes but the tile's size."""

    def __init__(
        self, blocks: "Sequence[torch.Tensor]", *, hidden: Rows, whose: Sequence[Whose] = ()
    ) -> None:
        """Hold vectors that are there.

        Args:
            blocks: float16 (n, dim) each, unit rows, on one device; each of `block_rows(dim)` rows but the
                last, which has a multiple of GROUP.
            hidden: rows never to be found, ascending; those that fill up the last group among them.
            whose: what the rows are of, segment by segment; none where no `earlier` is made of it.
        """
        import torch

        self.blocks, self.whose = tuple(blocks), whose
        self._hidden = hidden
        self._rows = sum(map(len, blocks))
        self._scores = SCORES
        if self._rows:
            self._mask = torch.zeros(self._rows, dtype=torch.bool, device=blocks[0].device)
            self._mask[torch.from_numpy(hidden).to(self._mask.device)] = True

    def search(
        self, queries: Embeddings, k: int, *, only: npt.NDArray[np.bool_] | None = None, kind: str = "text"
    ) -> list[Neighbours]:
        """Find the k nearest shown rows of each query: the hits and scores of ExactIndex.

        Args:
            queries: float32 (q, dim), unit rows.
            k: how many; fewer come where fewer are shown.
            only: (N,) the rows that may be found; None: all. Hidden ones stay hidden.
            kind: what the queries are of, which makes no difference here.

        Returns:
            One Neighbours per query, in order. No queries give an empty list.

        Raises:
            ClipsearchError: the device has no memory left for even the smallest tile.
        """
        if not self._rows:
            return [Neighbours(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
        mask = None
        if only is not None:
            mask = self._mask.clone()
            mask[: len(only)] |= _there(~only, mask)
        parts = [queries[i : i + QUERIES] for i in range(0, len(queries), QUERIES)]
        return [near for part in parts for near in self._search(part, k, mask)]

    def _search(self, queries: Embeddings, k: int, mask: "torch.Tensor | None") -> list[Neighbours]:
        """Search for one tile of queries.

        A row that is no candidate scores at most what the last candidate does by the product, so at most
        that and the error in truth. Where the k-th hit is better, none is missing; elsewhere every row
        that may be as good as the k-th is rescored.
        """
        halves = queries.astype(np.float16)
        wanted = min(k + k // 2 + SPARE, self._rows)
        scores, rows = self._best(_there(halves, self.blocks[0]), wanted, mask)
        found = self._rescore(queries, [row[ok] for row, ok in zip(rows, scores > -np.inf, strict=True)], k)
        error = _error(queries, halves)
        last = np.array([near.scores[k - 1] if len(near.scores) == k else np.inf for near in found])
        doubtful = np.flatnonzero(last <= scores.min(1) + error)
        if len(doubtful):
            floors = (last - error)[doubtful].astype(np.float32)
            near = self._above(_there(halves[doubtful], self.blocks[0]), floors, mask)
            for i, again in zip(doubtful, self._rescore(queries[doubtful], near, k), strict=True):
                found[i] = again
        return found

    def _best(
        self, queries: "torch.Tensor", wanted: int, mask: "torch.Tensor | None"
    ) -> tuple[Embeddings, Rows]:
        """Scores by the product and rows (q, wanted) of the best, in no order; -inf where fewer are shown."""
        import torch

        scores = torch.empty((len(queries), 0), device=queries.device)
        rows = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
        for found, places in self._tiles(queries, mask, partial(_largest, wanted=wanted)):
            scores, rows = torch.cat([scores, found], 1), torch.cat([rows, places], 1)
            scores, top = scores.topk(min(wanted, scores.shape[1]))
            rows = rows.gather(1, top)
        return scores.cpu().numpy(), rows.cpu().numpy()

    def _above(
        self, queries: "torch.Tensor", floors: npt.NDArray[np.float32], mask: "torch.Tensor | None"
    ) -> list[Rows]:
        """The rows of each query whose product is not below its floor, ascending."""
        look = partial(_reaching, floors=_there(floors, queries)[:, None])
        found = [(who.cpu().numpy(), rows.cpu().numpy()) for who, rows in self._tiles(queries, mask, look)]
        whose, rows = (np.concatenate(part) for part in zip(*found, strict=True))
        return [rows[whose == i] for i in range(len(queries))]

    def _tiles(
        self, queries: "torch.Tensor", mask: "torch.Tensor | None", look: "Callable[[torch.Tensor], Found]"
    ) -> "Iterator[Found]":
        """What `look` makes of the scores (q, n) of each tile; its second half, places in the tile, as rows.

        A tile that does not fit is tried again at half its size, at which the index stays.
        """
        start = 0
        for block in self.blocks:
            done = 0
            while done < len(block):
                tile = block[done : done + self._width(queries)]
                try:
                    which, places = look(self._score(queries, tile, start + done, mask))
                except RuntimeError as error:
                    self._narrow(queries, tile, error)
                    continue
                yield which, places + (start + done)
                done += len(tile)
            start += len(block)

    def _score(
        self, queries: "torch.Tensor", tile: "torch.Tensor", start: int, mask: "torch.Tensor | None"
    ) -> "torch.Tensor":
        """Score a tile (n, dim) that begins at a row: (q, n), -inf where a row is not shown."""
        scores = product(queries, tile)
        end = start + len(tile)
        if mask is not None:
            scores.masked_fill_(mask[start:end], -np.inf)
        elif np.diff(np.searchsorted(self._hidden, (start, end))).any():
            scores.masked_fill_(self._mask[start:end], -np.inf)
        return scores

    def _width(self, queries: "torch.Tensor") -> int:
        """Rows of a tile: a multiple of GROUP."""
        return max(1, self._scores // _per_row(queries) // GROUP) * GROUP

    def _narrow(self, queries: "torch.Tensor", tile: "torch.Tensor", error: RuntimeError) -> None:
        """Halve the tile that did not fit; raise where the error is another or nothing can be halved."""
        if not _is_full(error):
            raise error
        if len(tile) <= GROUP:
            raise ClipsearchError(
                f"{tile.device} has no memory left to compare {len(queries)} queries with {len(tile)} "
                "vectors; end other programs that use it, or search on the processor"
            ) from error
        self._scores = len(tile) // 2 * _per_row(queries)

    def _rescore(self, queries: Embeddings, rows: list[Rows], k: int) -> list[Neighbours]:
        """The k best of each query's rows by the stored values; equal scores in row order."""
        rows = [np.sort(row) for row in rows]
        ends = np.cumsum([len(row) for row in rows])
        whose = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        scores = np.split(self._exactly(queries, whose, np.concatenate(rows)), ends[:-1])
        best = [np.argsort(-score, kind="stable")[:k] for score in scores]
        return [Neighbours(s[top], row[top]) for s, row, top in zip(scores, rows, best, strict=True)]

    def _exactly(self, queries: Embeddings, whose: Rows, rows: Rows) -> npt.NDArray[np.float32]:
        """The cosines (n,) of rows (n,), each with the query at `whose` (n,)."""
        scores = np.empty(len(rows), np.float32)
        step = max(1, STAGED // queries.shape[1])
        for i in range(0, len(rows), step):
            part = slice(i, i + step)
            pairs = self.vectors(rows[part]), queries[whose[part]]
            scores[part] = np.einsum("nd,nd->n", *pairs, dtype=np.float32)
        return scores

    def vectors(self, rows: Rows) -> Embeddings:
        """The stored vectors of some rows, float32 (n, dim), in order."""
        import torch

        size = len(self.blocks[0])
        order = np.argsort(rows, kind="stable")
        parts = np.split(rows[order], np.searchsorted(rows[order], size * np.arange(1, len(self.blocks))))
        taken = [
            block[_there(part - size * i, block)]
            for i, (block, part) in enumerate(zip(self.blocks, parts, strict=True))
            if len(part)
        ]
        out = np.empty((len(rows), self.blocks[0].shape[1]), np.float32)
        if taken:
            out[order] = torch.cat(taken).cpu().numpy()
        return out


def upload(snapshot: Snapshot, device: str, *, earlier: DeviceIndex | None = None) -> DeviceIndex:
    """Bring a snapshot's vectors to a device.

    Args:
        snapshot: of any size that the device has room for; see `fits`.
        device: as torch names it: "cuda", "cuda:1", "mps".
        earlier: the index of an earlier snapshot of the same space on that device. Whole blocks of rows
            that are the same in both are shared: after additions only what came and the last block are
            uploaded. It stays usable.

    Raises:
        ClipsearchError: the device's memory is too small; the message says what fits.
    """
    rows, dim = len(snapshot), snapshot.space.dim
    step = block_rows(dim)
    whose = [(segment.contents, segment.boxes) for segment in snapshot.segments]
    blocks = list(earlier.blocks[: _common(earlier.whose, whose) // step]) if earlier else []
    try:
        for first in range(len(blocks) * step, rows, step):
            blocks.append(_block(snapshot.segments, first, min(first + step, rows), device=device))
    except RuntimeError as error:
        if not _is_full(error):
            raise
        raise ClipsearchError(
            f"{rows:,} vectors of {dim} numbers take {2 * rows * dim / 1e9:.1f} GB; {device} had room for "
            f"{len(blocks) * step:,}. Search on the processor, end other programs that use the device, or "
            "take one with more memory"
        ) from error
    hidden = np.arange(0) if snapshot.shown is None else np.flatnonzero(~snapshot.shown)
    padding = np.arange(rows, sum(map(len, blocks)))
    return DeviceIndex(blocks, hidden=np.concatenate([hidden, padding]), whose=whose)


def block_rows(dim: int) -> int:
    """Rows of a whole block of vectors of so many numbers."""
    return max(1, BLOCK // dim // GROUP) * GROUP


def product(queries: "torch.Tensor", vectors: "torch.Tensor") -> "torch.Tensor":
    """The dot products, float32 (q, n), of float16 (q, dim) and (n, dim), summed in float32."""
    import torch

    if vectors.device.type == "cuda":
        return torch.mm(queries, vectors.T, out_dtype=torch.float32)
    return queries.float() @ vectors.float().T  # elsewhere torch would round each to float16


def _per_row(queries: "torch.Tensor") -> int:
    """Numbers made for each row of a tile: its scores or, where `product` unpacks it, itself."""
    return max(len(queries), 0 if queries.device.type == "cuda" else queries.shape[1])


def _largest(scores: "torch.Tensor", *, wanted: int) -> Found:
    """The largest of (q, n) and their columns, (q, min(wanted, n)).

    The `wanted` largest lie in the `wanted` groups that have the largest maxima: finding those reads the
    scores once, where topk reads all of them several times.
    """
    if wanted * GROUP >= scores.shape[1]:
        return scores.topk(min(wanted, scores.shape[1]))
    groups = scores.view(len(scores), -1, GROUP)  # (q, n / GROUP, GROUP)
    _, which = groups.amax(2).topk(wanted)
    inside = groups.gather(1, which[:, :, None].expand(-1, -1, GROUP)).flatten(1)  # (q, wanted * GROUP)
    found, places = inside.topk(wanted)
    return found, which.gather(1, places // GROUP) * GROUP + places % GROUP


def _reaching(scores: "torch.Tensor", *, floors: "torch.Tensor") -> Found:
    """Row and column of each score that is not below the floor of its row."""
    whose, places = (scores >= floors).nonzero(as_tuple=True)
    return whose, places


def _error(queries: Embeddings, halves: npt.NDArray[np.float16]) -> npt.NDArray[np.float64]:
    """How far apart a query's product and its rescoring can be for any unit row, (q,).

    The query is rounded to float16, which moves a cosine by at most the length of what is lost. A sum of
    dim products in float32 errs by up to dim * 2^-23 where the hardware truncates, and the rescoring by half
    of that.
    """
    lost = np.linalg.norm(queries - halves.astype(np.float64), axis=1)
    error: npt.NDArray[np.float64] = lost * (1 + 2.0**-10)  # a unit row is up to 2^-11 longer in float16
    error += queries.shape[1] * 2.0**-22
    return error


def _common(earlier: Sequence[Whose], later: Sequence[Whose]) -> int:
    """How many rows at the beginning are the same: those of segments with the same contents and boxes."""
    rows = 0
    for (contents, boxes), (others, parts) in zip(earlier, later, strict=False):
        if not np.array_equal(contents, others) or not _equal(boxes, parts):
            break
        rows += len(contents)
    return rows


def _equal(one: npt.NDArray[np.float32] | None, other: npt.NDArray[np.float32] | None) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


def _block(segments: Sequence[Segment], first: int, end: int, *, device: str) -> "torch.Tensor":
    """The rows from first to end on the device, filled up with zeros to a multiple of GROUP."""
    import torch

    starts = np.cumsum([0, *(len(segment.contents) for segment in segments)])
    dim = segments[0].vectors.shape[1]
    block = torch.zeros((-(-(end - first) // GROUP) * GROUP, dim), dtype=torch.float16, device=device)
    step = max(1, STAGED // dim)
    pinned = block.device.type == "cuda"  # it is read faster
    staged = torch.empty((min(step, end - first), dim), dtype=torch.float16, pin_memory=pinned)
    for a in range(first, end, step):
        b = min(a + step, end)
        pairs = zip(segments, starts[:-1], strict=True)
        rows = [segment.vectors[max(a - start, 0) : max(b - start, 0)] for segment, start in pairs]
        np.concatenate(rows, out=staged[: b - a].numpy())
        block[a - first : b - first].copy_(staged[: b - a])
    return block


def _there(array: npt.NDArray[np.generic], other: "torch.Tensor") -> "torch.Tensor":
    """The array as a tensor on another's device."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(other.device)


def _is_full(error: RuntimeError) -> bool:
    """Whether it says that a device's memory is full; Metal has no class for that."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)
