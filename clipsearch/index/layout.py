"""A FAISS index whose ids are positions: made, filled, written, and asked for candidates.

The metric is L2. Between unit vectors it orders as the cosine does, and it probes cells better
for text queries than the inner product; a shift of all vectors, such as centring, changes nothing.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import LayoutError
from ..exact import selector
from ..faiss_check import load_faiss
from ..files import cores
from ..spec import AUTO, IndexSpec, index_specs, spec_of
from ..types import Embeddings

ROUNDS = 6  # of k-means: later ones hardly move a cell
CODEBOOK = 65_536  # vectors that the codes are trained on
FLAT_CELLS = 4096  # up to which a matrix product finds a vector's cell sooner than a graph does
BLOCK = 1 << 25  # numbers added at a time: 128 MB of float32
READING = threading.Lock()  # FAISS's limits on what it reads are one for the process


class Layout:
    """A FAISS index of n vectors. May be asked from several threads."""

    def __init__(self, index: Any) -> None:
        faiss = load_faiss()
        self._index = index
        self._cells = isinstance(index, faiss.IndexIVF)
        self._graph = isinstance(index, faiss.IndexHNSW)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def most_probes(self) -> int:
        """How far `probes` can go; 1: there is no such dial."""
        return int(self._index.nlist) if self._cells else min(len(self), 4096) if self._graph else 1

    def candidates(
        self,
        queries: Embeddings,
        count: int,
        probes: int,
        bits: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Positions of the vectors that seem nearest, int64 (q, count), best first; -1 where there are fewer.

        Args:
            queries: float32 (q, dim), unit rows.
            count: how many for each.
            probes: cells read, or vectors kept in a graph's search.
            bits: a packed mask of the positions that may be found; None: all.
        """
        parameters = self._parameters(probes, bits)
        count = max(1, min(count, len(self)))

        # For one query a barrier between threads can cost more than the search.
        with omp_threads(1 if len(queries) == 1 else cores()):
            found: npt.NDArray[np.int64] = self._index.search(queries, count, params=parameters)[1]
        return found

    def _parameters(self, probes: int, bits: npt.NDArray[np.uint8] | None) -> Any:
        faiss = load_faiss()
        select = selector(faiss, bits)
        if self._cells:
            return faiss.SearchParametersIVF(nprobe=min(probes, self._index.nlist), sel=select)
        if self._graph:
            return faiss.SearchParametersHNSW(efSearch=probes, sel=select)
        return faiss.SearchParameters(sel=select)

    def write(self, file: BinaryIO) -> None:
        """Write the index to an open file."""
        faiss = load_faiss()
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))


def read_layout(path: Path) -> Layout:
    """Map an index file whose digest was checked; FAISS may allocate no more than it could need."""
    faiss = load_faiss()
    size = path.stat().st_size
    with READING, _at_most(faiss, 4 * size + (1 << 20)):
        return Layout(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))


@contextmanager
def _at_most(faiss: Any, size: int) -> Iterator[None]:
    limits = ("vector_byte_limit", "loop_limit")
    before = [getattr(faiss, f"get_deserialization_{limit}")() for limit in limits]
    try:
        for limit in limits:
            getattr(faiss, f"set_deserialization_{limit}")(size)
        yield
    finally:
        for limit, value in zip(limits, before, strict=True):
            getattr(faiss, f"set_deserialization_{limit}")(value)


@contextmanager
def omp_threads(count: int) -> Iterator[None]:
    """How many threads OpenMP, and so FAISS, may use for what this thread asks of it."""
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def make_layout(
    spec: IndexSpec,
    rows: npt.NDArray[np.int64],
    vectors: Callable[[npt.NDArray[np.int64]], Embeddings],
    dim: int,
    *,
    done: Callable[[int], object] = lambda rows: None,
) -> Layout:
    """Build an index of some vectors; position i is that of rows[i].

    Args:
        spec: how.
        rows: (n,) which vectors, ascending.
        vectors: gives float32 (m, dim) for m of the rows.
        dim: numbers in a vector.
        done: told how many more vectors are in.

    Raises:
        LayoutError: FAISS does not understand the factory string, or there are too few vectors to train it.
    """
    index = new_index(spec, len(rows), dim)
    nlist = getattr(index, "nlist", 1)
    wanted = max(nlist * spec.train_per_cell, min(CODEBOOK, len(rows)))
    chosen = np.random.default_rng(0).permutation(rows)[:wanted]
    sample = vectors(np.sort(chosen))
    try:
        with _trained(index, sample):
            step = max(1, BLOCK // dim)
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                with omp_threads(cores()):
                    index.add(vectors(part))
                done(len(part))
    except (RuntimeError, MemoryError) as error:
        raise LayoutError(
            f"FAISS cannot build {spec.name!r} of {len(rows):,} vectors: {_short(error)}"
        ) from error
    return Layout(index)


def check_layout(layout: str, dim: int) -> None:
    """Raise LayoutError where a layout is neither shipped nor a factory string for so many numbers."""
    spec = spec_of(layout)
    if layout not in (AUTO, *index_specs()):
        new_index(spec, 1, dim)


def new_index(spec: IndexSpec, rows: int, dim: int) -> Any:
    """An empty FAISS index.

    Raises:
        LayoutError: FAISS does not understand the factory string, or its index cannot leave rows out.
    """
    faiss = load_faiss()
    factory = spec.written_out(rows, dim)
    for name, least, most in (("IVF", 1, 1 << 24), ("HNSW", 2, 512)):  # others crash FAISS
        if (found := re.search(rf"{name}(\d+)", factory)) and not least <= int(found[1]) <= most:
            raise LayoutError(f"{factory!r} has {found[0]}; expected a number from {least} to {most:,}")
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_L2)
    except (RuntimeError, MemoryError) as error:
        near = get_close_matches(factory, [AUTO, *index_specs()], n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise LayoutError(
            f"{factory!r} is neither a shipped layout nor a factory string that FAISS understands for "
            f"vectors of {dim} numbers: {_short(error)}; {meant}`clipsearch indexes` lists the shipped ones"
        ) from error
    kinds = faiss.IndexIVF | faiss.IndexHNSW | faiss.IndexFlat | faiss.IndexScalarQuantizer
    if not isinstance(index, kinds) or re.search(r"HNSW\d+_", factory):  # a second level takes no filter
        raise LayoutError(
            f"{factory!r} makes a FAISS {type(index).__name__}; expected IVF, HNSW, Flat or SQ, which can "
            "leave deleted pictures out (a flat PQ… is written IVF1,PQ…; leave Refine out, since hits "
            "are always rescored)"
        )
    return index


@contextmanager
def _trained(index: Any, sample: Embeddings) -> Iterator[None]:
    """Train an index; while it is filled, a quick quantizer finds the cells."""
    faiss = load_faiss()
    if not isinstance(index, faiss.IndexIVF):
        with omp_threads(1):  # beside another job, two threads can take a hundred times as long over codes
            index.train(sample)
        yield
        return
    centroids = _centroids(sample, index.nlist)
    if hasattr(index, "pq"):
        index.pq.cp.min_points_per_centroid = 1  # FAISS would print a warning
    with _quick_cells(index, centroids):
        with omp_threads(1):
            index.train(sample[:: max(1, len(sample) // CODEBOOK)])
        yield


def _centroids(sample: Embeddings, count: int) -> Embeddings:
    """The middles of `count` cells, in numbers that float16 can hold."""
    faiss = load_faiss()
    if len(sample) < count:
        raise RuntimeError(f"{count} cells need as many vectors to train on, found {len(sample)}")
    kmeans = faiss.Kmeans(
        sample.shape[1],
        count,
        niter=ROUNDS,
        seed=1,
        min_points_per_centroid=1,
        max_points_per_centroid=1 << 24,
    )
    with omp_threads(cores()):
        kmeans.train(sample)
    rounded: Embeddings = kmeans.centroids.astype(np.float16).astype(np.float32)
    return rounded


@contextmanager
def _quick_cells(index: Any, centroids: Embeddings) -> Iterator[None]:
    """Give an index its cells, and for a while a quantizer that finds those of many vectors quickly."""
    faiss = load_faiss()
    usual, dim = index.quantizer, index.d
    usual.train(centroids)
    usual.add(centroids)
    quick = faiss.IndexFlatL2(dim) if len(centroids) <= FLAT_CELLS else faiss.IndexHNSWFlat(dim, 32)
    with omp_threads(cores()):
        quick.add(centroids)
    index.quantizer = quick
    try:
        yield
    finally:
        index.quantizer = usual
        quick.this.acquire()  # SWIG thinks that the index deletes it


def _short(error: Exception) -> str:
    """FAISS's complaint without the name of the function and its line."""
    return str(error).rsplit(": ", 1)[-1].strip()
