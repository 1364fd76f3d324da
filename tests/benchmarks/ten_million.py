"""10,000,000 vectors in one collection: built, tuned, and searched within 4 GB of memory.

    python tests/benchmarks/ten_million.py --work DIRECTORY [--rows 10000000] [--dim 512] [--memory 4GB]

Fills a collection in DIRECTORY with gap.py's made-up vectors (10 GB of disk, 2 GB of items), lets
clipsearch choose and build its index, and then searches in a process of its own whose memory is bounded
by --memory, as far as the system's limits can (RLIMIT_DATA: what no file stands behind). A second run
finds what is there and only measures. Prints seconds, sizes, recall@10 on held-out texts, the median
time of single queries and the memory.
"""

import argparse
import hashlib
import json
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import gap
import numpy as np
import psutil

import clipsearch as cs
from clipsearch.exact import ExactIndex
from clipsearch.spec import as_bytes
from clipsearch.types import as_embeddings
from clipsearch.writer import writing

SEGMENT = 100_000  # rows of a commit
ASKED = 200  # texts


class MadeUp:
    """Texts are gap.py's: which one a text is depends on the text alone."""

    model_id, device = "made-up", "cpu"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode_images(self, images):
        raise NotImplementedError

    def encode_texts(self, texts, *, role="query"):
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        return np.concatenate([gap.texts(1, 1000 + seed, dim=self.dim) for seed in seeds])

    def fingerprint(self):
        return "made-up-1"


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--dim", type=int, default=512)
    options.add_argument("--memory", default="4GB")
    args = options.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for step in (fill, build, measure):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(step, args.work / "collection", args.rows, args.dim, args.memory).result()


def fill(path: Path, rows: int, dim: int, memory: str) -> None:
    """Put the vectors in, as if they were of pictures."""
    started = time.perf_counter()
    with cs.Collection(path, model=MadeUp(dim)) as photos, writing(photos._store) as writer:
        space, source = photos._spaces.of_encoder(writer), writer.add_source("iterator", "", {})
        have = sum(segment.rows for segment in photos._store.segments(space))
        for start in range(have, rows, SEGMENT):
            blocks = [
                gap.block(number, dim=dim)
                for number in range(start // gap.BLOCK, (start + SEGMENT) // gap.BLOCK)
            ]
            part = np.concatenate(blocks)[: rows - start]
            with writer.transaction() as db:
                ids = [
                    writer.add_content(hashlib.sha256(b"%d" % n).digest(), {})
                    for n in range(start, start + len(part))
                ]
                insert = "INSERT INTO items (source, key, stamp, content) VALUES (?, ?, '', ?)"
                db.executemany(insert, [(source, str(id), id) for id in ids])
                writer.append(space, ids, as_embeddings(part))
            print(
                f"\r{start + len(part):,} vectors, {time.perf_counter() - started:,.0f} s", end="", flush=True
            )
    print()


def build(path: Path, rows: int, dim: int, memory: str) -> None:
    with cs.Collection(path, model=MadeUp(dim), memory=memory) as photos:
        if photos.index()["layout"] != "exact":
            return
        about = photos.build_index("auto", progress=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{about.layout} ({about.why}), {about.factory}: "
        f"{about.seconds:,.0f} s, peak {peak:.1f} GB; {about.tuned}"
    )


def measure(path: Path, rows: int, dim: int, memory: str) -> None:
    limit = as_bytes(memory)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with cs.Collection(path, model=MadeUp(dim), memory=memory, read_only=True) as photos:
        print(json.dumps(photos.index(), indent=1))
        texts = [f"a text that is asked, number {number}" for number in range(ASKED)]
        asked = photos.encode_texts(texts)
        started = time.perf_counter()
        photos.search(embedding=asked[0])
        print(f"opened and searched once: {time.perf_counter() - started:.2f} s")
        index = photos._searcher()._index
        truth = [set(near.rows) for near in ExactIndex(index._snapshot).search(asked, 10)]
        found = index.search(asked, 10)
        recall = np.mean([len(set(near.rows) & true) / 10 for near, true in zip(found, truth, strict=True)])
        for name, ask in {
            "index alone": lambda query: index.search(query[None], 10),
            "search(), with items": lambda query: photos.search(embedding=query),
        }.items():
            taken = []
            for query in asked:
                started = time.perf_counter()
                ask(query)
                taken.append(time.perf_counter() - started)
            print(f"{name}: p50 {median(taken) * 1e3:.1f} ms, p95 {np.quantile(taken, 0.95) * 1e3:.1f} ms")
        started = time.perf_counter()
        index.search(asked, 10)
        print(f"{ASKED} together: {ASKED / (time.perf_counter() - started):,.0f} a second")
        used = psutil.Process().memory_full_info()
        print(
            f"recall@10 of {ASKED} texts {recall:.3f}; "
            f"memory {(used.rss - used.shared) / 1e9:.2f} GB of {memory} "
            f"(and {used.shared / 1e9:.1f} GB of mapped files, which the system may take back)"
        )


if __name__ == "__main__":
    main()
