"""Exact search of one query over 1,000,000 x 512 float16, beside reading those bytes once.

    python tests/benchmarks/exact_search.py [--rows 1000000] [--dim 512] [--rounds 15]

All run in the same process, turn by turn, with one thread per core; the bound is 1.3. The peers are
FAISS's IndexFlatIP and NumPy, which hold the same vectors as float32, and usearch's exact search (pip
install usearch), which takes float16 too.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))

import faiss
import numpy as np
import usearch.index

from clipsearch.exact import ExactIndex
from clipsearch.files import cores
from clipsearch.segments import open_segment, row_table, write_segment
from clipsearch.store import Snapshot, Space
from clipsearch.types import as_embeddings


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--dim", type=int, default=512)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--segments", type=int, default=8)
    args = options.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        space = Space(1, "s", "random", "", args.dim, True)
        rows = args.rows // args.segments
        for number in range(args.segments):
            vectors = as_embeddings(rng.standard_normal((rows, args.dim), dtype=np.float32))
            write_segment(Path(name), number, row_table(np.arange(rows) + number * rows), vectors)
        segments = tuple(open_segment(Path(name), n, rows=rows, dim=args.dim) for n in range(args.segments))
        index = ExactIndex(Snapshot(1, space, segments, np.empty(0, np.int64)))
        flat = faiss.IndexFlatIP(args.dim)
        for segment in segments:
            flat.add(segment.vectors.astype(np.float32))
        query = as_embeddings(rng.standard_normal((1, args.dim), dtype=np.float32))
        assert set(index.search(query, 10)[0].rows) == set(flat.search(query, 10)[1][0])

        words = [part for s in segments for part in np.array_split(s.vectors.view(np.uint64), cores())]
        floats = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * args.dim).reshape(-1, args.dim)
        halves, half = np.concatenate([s.vectors for s in segments]), query[0].astype(np.float16)
        ways = {
            "read the bytes": lambda: read(words),
            "clipsearch": lambda: index.search(query, 10),
            "IndexFlatIP": lambda: flat.search(query, 10),
            "NumPy float32": lambda: np.argpartition(floats @ query[0], -10)[-10:],
            "usearch float16": lambda: usearch.index.search(halves, half, 10, exact=True, threads=cores()),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(args.rounds):
            for way, run in ways.items():
                started = time.perf_counter()
                run()
                times[way].append(time.perf_counter() - started)
        size = rows * args.segments * args.dim * 2
        print(f"{rows * args.segments:,} x {args.dim}, {cores()} cores, median of {args.rounds} rounds")
        base = median(times["read the bytes"])
        for way, taken in times.items():
            took = median(taken)
            line = (
                f"{way:16} {took * 1e3:7.1f} ms  best {min(taken) * 1e3:6.1f}  {size / took / 1e9:5.1f} GB/s"
            )
            print(f"{line}  {took / base:5.2f} x reading")
        paired = median(b / a for a, b in zip(times["read the bytes"], times["clipsearch"], strict=True))
        print(f"clipsearch / reading, round by round: {paired:.2f} (bound 1.3)")


def read(words: list[np.ndarray]) -> None:
    """Read every byte once, one thread per core."""
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(lambda part: part.reshape(-1).sum(), words))


if __name__ == "__main__":
    main()
