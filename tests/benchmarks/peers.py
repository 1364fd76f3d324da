"""Other libraries' nearest neighbours, behind one set of calls, and the exact truth. scale.py uses it.

Every peer has `build(vectors, threads)`, `save(path)`, `load(path)`, `use(dial, threads)`, which sets how
hard the next searches try, and `search(queries, k)`. `dials` are settings to try, from fast to exact;
`usual()` is the setting that the library has or chooses by itself.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import floor, log2, sqrt
from pathlib import Path
from typing import Any, Protocol

import faiss
import hnswlib
import numpy as np
import usearch.index

from clipsearch.index import About, ApproximateIndex, Published, Tuned
from clipsearch.index.layout import make_layout, read_layout
from clipsearch.index.published import Wish
from clipsearch.segments import Segment
from clipsearch.spec import spec_of
from clipsearch.store import Snapshot, Space

STEP = 50_000  # rows in float32 at a time
GIB = 2**30
GRID = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144)


class Peer(Protocol):
    what: str  # the setup, in the library's own words
    dials: Sequence[int]

    def build(self, vectors: np.ndarray, *, threads: int) -> None: ...
    def save(self, path: Path) -> None: ...
    def load(self, path: Path) -> None: ...
    def usual(self) -> int: ...
    def use(self, dial: int, *, threads: int) -> None: ...
    def search(self, queries: np.ndarray, k: int) -> np.ndarray: ...


def truth(vectors: np.ndarray, queries: np.ndarray, *, k: int = 10) -> np.ndarray:
    """The k best rows for each query by a float32 product, best first, int64 (q, k)."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    for start, part in parts(vectors):
        scores = queries @ part.T
        top = np.argpartition(-scores, k, axis=1)[:, :k]
        best = np.concatenate([best, np.take_along_axis(scores, top, 1)], 1)
        rows = np.concatenate([rows, top + start], 1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, rows = (np.take_along_axis(table, order, 1) for table in (best, rows))
    return rows


def parts(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The vectors in float32, a part at a time, with the row each begins at."""
    for start in range(0, len(vectors), STEP):
        yield start, vectors[start : start + STEP].astype(np.float32)


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """The share of the true rows that were found."""
    return float((found[:, :, None] == true[:, None]).any(1).mean())


class Faiss:
    """What the peers from FAISS share."""

    index: Any

    def save(self, path: Path) -> None:
        faiss.write_index(self.index, str(path))

    def load(self, path: Path) -> None:
        self.index = faiss.read_index(str(path))

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        return self.index.search(queries, k)[1]

    def add(self, vectors: np.ndarray) -> None:
        for _, part in parts(vectors):
            self.index.add(part)


class Flat(Faiss):
    """Exact search."""

    what = "IndexFlatIP"
    dials = (0,)

    def build(self, vectors: np.ndarray, *, threads: int) -> None:
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.add(vectors)

    def usual(self) -> int:
        return 0

    def use(self, dial: int, *, threads: int) -> None:
        faiss.omp_set_num_threads(threads)


class AutoFaiss(Faiss):
    """autofaiss 2.18.0, which cannot be installed beside numpy 2: the rule and the tuning of its source.

    external/optimize.py (get_optimal_index_keys_v2, get_optimal_hyperparameters), indices/index_factory.py
    and indices/training.py, for inner products and 10,000 vectors or more. Its only choice of the caller's
    is the memory: 16 GiB for the index by default, of 32 GiB, which train on 100 vectors a cluster.
    """

    def __init__(self, memory: int = 16 * GIB) -> None:
        self.memory = memory

    @property
    def hnsw(self) -> bool:
        return isinstance(self.index, faiss.IndexHNSW)

    @property
    def what(self) -> str:
        if self.hnsw:
            return f"HNSW{self.index.hnsw.nb_neighbors(1)}"
        opq, ivf = faiss.downcast_VectorTransform(self.index.chain.at(0)), faiss.extract_index_ivf(self.index)
        m, width = faiss.downcast_index(ivf).pq.M, opq.d_out
        return f"OPQ{m}_{width},IVF{ivf.nlist}_HNSW32,PQ{m}x8"

    @property
    def dials(self) -> Sequence[int]:
        return GRID if self.hnsw else [n for n in GRID if n <= faiss.extract_index_ivf(self.index).nlist]

    def build(self, vectors: np.ndarray, *, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        n, dim = vectors.shape
        links = floor((self.memory / (4 * n) - dim) / 2)
        if links >= 8:
            self.index = faiss.IndexHNSWFlat(dim, min(links, 32), faiss.METRIC_INNER_PRODUCT)
        elif n < 1_000_000 and 4 * dim * (n + clusters(n)) <= self.memory:
            raise NotImplementedError(f"IVF{clusters(n)},Flat, which {n:,} rows would get")
        else:
            self.index = opq(dim, clusters(n), bytes_a_vector(n, dim, self.memory))
            self.index.train(vectors[: 100 * clusters(n)].astype(np.float32))
        self.add(vectors)

    def use(self, dial: int, *, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        if self.hnsw:
            self.index.hnsw.efSearch = dial
        else:
            text = f"nprobe={dial},efSearch={2 * dial},ht=2048"
            faiss.ParameterSpace().set_index_parameters(self.index, text)

    def usual(self) -> int:
        """The largest dial that answers a vector of the collection in less than 10 ms on average.

        Its search for the least dial that finds 20 neighbours at all is left out: the first does, here.
        """
        dials = range(16, 2**14 if self.hnsw else min(6144, faiss.extract_index_ivf(self.index).nlist) + 1)
        queries = self.index.reconstruct_n(0, 4000)
        low, high = 0, len(dials)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.slow(dials[middle], queries, 0.15) else (middle + 1, high)
        place = max(0, low - 1)
        while place > 1 and self.slow(dials[place], queries, 0.9 if self.hnsw else 1.0):
            place -= max(1, floor(0.05 * place))
        return dials[min(place, len(dials) - 1)]

    def slow(self, dial: int, queries: np.ndarray, seconds: float) -> bool:
        """Whether 40 neighbours take 10 ms or more, on average over so many seconds."""
        self.use(dial, threads=1)
        started = time.perf_counter()
        for count in range(1, 2001):
            self.index.search(queries[None, count], 40)
            if time.perf_counter() - started > seconds:
                break
        return (time.perf_counter() - started) / count >= 0.010


def clusters(n: int) -> int:
    """get_optimal_nb_clusters: its first."""
    if n < 1_000_000:
        return 2 ** round(log2(4 * sqrt(n)))
    return 16_384 if n < 10_000_000 else 65_536 if n < 300_000_000 else 131_072


def bytes_a_vector(n: int, dim: int, memory: int) -> int:
    """get_optimal_quantization: the longest codes that fit."""
    for code in (256, 128, 64, 48, 32, 24, 16, 8, 4):
        if code < dim and n * (code + 8) <= memory:
            return code
    raise ValueError(f"{n:,} vectors do not fit {memory:,} bytes")


def opq(dim: int, cells: int, code: int) -> Any:
    """index_factory's OPQ{code}_{width},IVF{cells}_HNSW32,PQ{code}x8 for inner products."""
    width = (min(dim // code, 6) + 1) * code
    quantizer = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
    ivf = faiss.IndexIVFPQ(quantizer, width, cells, code, 8, faiss.METRIC_INNER_PRODUCT)
    ivf.own_fields = True
    quantizer.this.disown()
    rotation = faiss.OPQMatrix(dim, code, width)
    index = faiss.IndexPreTransform(rotation, ivf)
    index.own_fields = True
    for part in (rotation, ivf):
        part.this.disown()
    return index


class Usearch:
    """usearch; only the metric is given, or its better known options too."""

    dials = GRID

    def __init__(self, **options: Any) -> None:
        self.options = options

    @property
    def what(self) -> str:
        index = self.index
        return f"{index.dtype.name.lower()}, connectivity {index.connectivity}, add {index.expansion_add}"

    def build(self, vectors: np.ndarray, *, threads: int) -> None:
        self.index = usearch.index.Index(ndim=vectors.shape[1], metric="ip", **self.options)
        for start, part in parts(vectors):
            self.index.add(np.arange(start, start + len(part)), part, threads=threads)

    def save(self, path: Path) -> None:
        self.index.save(str(path))

    def load(self, path: Path) -> None:
        self.index = usearch.index.Index.restore(str(path))

    def usual(self) -> int:
        return usearch.index.Index(ndim=8).expansion_search

    def use(self, dial: int, *, threads: int) -> None:
        self.index.expansion_search, self.threads = dial, threads

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        found = self.index.search(queries, k, threads=self.threads)
        return np.asarray(found.keys).astype(np.int64).reshape(len(queries), -1)


class Hnswlib:
    """hnswlib with its defaults, M 16 and ef_construction 200."""

    what = "M 16, efC 200"
    dials = GRID

    def __init__(self, dim: int) -> None:
        self.index = hnswlib.Index(space="ip", dim=dim)

    def build(self, vectors: np.ndarray, *, threads: int) -> None:
        self.index.init_index(max_elements=len(vectors))
        for start, part in parts(vectors):
            self.index.add_items(part, np.arange(start, start + len(part)), num_threads=threads)

    def save(self, path: Path) -> None:
        self.index.save_index(str(path))

    def load(self, path: Path) -> None:
        self.index.load_index(str(path))

    def usual(self) -> int:
        return 10

    def use(self, dial: int, *, threads: int) -> None:
        self.index.set_ef(dial)
        self.threads = threads

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        return self.index.knn_query(queries, k=k, num_threads=self.threads)[0].astype(np.int64)


class Clipsearch:
    """clipsearch's own index, through all of the package's own search: scores are of the stored vectors."""

    what = "ivf-pq-fastscan, 32 candidates a hit, 64 from 192 cells on"
    dials = GRID

    def build(self, vectors: np.ndarray, *, threads: int) -> None:
        self.layout = make_layout(
            spec_of("ivf-pq-fastscan"),
            np.arange(len(vectors)),
            lambda rows: vectors[rows].astype(np.float32),
            vectors.shape[1],
        )

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            self.layout.write(file)

    def load(self, path: Path) -> None:
        vectors = np.load(path.with_name("vectors.npy"), mmap_mode="r").view(np.ndarray)
        contents = np.arange(1, len(vectors) + 1)
        space = Space(1, "1-made-up", "made-up", "", vectors.shape[1], True)
        snapshot = Snapshot(1, space, (Segment(vectors, contents),), np.empty(0, np.int64))
        about = About(Wish(), "ivf-pq-fastscan", "asked for")
        self.index = ApproximateIndex(snapshot, Published(about, read_layout(path), contents))

    def usual(self) -> int:
        return spec_of("ivf-pq-fastscan").probes

    def use(self, dial: int, *, threads: int) -> None:
        tuned = Tuned(dial, 64 if dial >= 192 else 32, 0, 0, 0, "")
        self.index.about = replace(self.index.about, tuned={"text": tuned, "image": tuned})

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        return np.stack([near.rows for near in self.index.search(queries, k)])
