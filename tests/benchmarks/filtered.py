"""Search through an index among the rows that a filter leaves, and for more hits: recall and time.

    python tests/benchmarks/filtered.py --work DIRECTORY [--queries 200]

DIRECTORY is scale.py's, with clipsearch's index in it. Filters leave 0.1, 1, 10 and 50 % of the rows: at
random, and the rows least like one picture (which other filters may come near to: no snow in July). The
index is set to what reached 0.95 without a filter (--probes). Prints recall@10 on texts and the
median time of a query, beside the exact search over the same rows; then recall@k for other k.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np
from peers import Clipsearch

from clipsearch.exact import ExactIndex
from clipsearch.index import approximate


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--probes", type=int, default=116)
    args = options.parse_args()
    peer = Clipsearch()
    peer.load(args.work / "clipsearch.index")
    peer.use(args.probes, threads=1)
    snapshot = peer.index._snapshot
    exact, queries = ExactIndex(snapshot), np.load(args.work / "queries.npz")["text"][: args.queries]
    print(
        f"{len(snapshot):,} x {snapshot.space.dim}; exact to {approximate.LOOKED_AT / 1e6:.0f} MB that pass"
    )
    for share in (0.001, 0.01, 0.1, 0.5):
        for name, only in masks(snapshot, share).items():
            truth, slow = timed(lambda query, only=only: exact.search(query, 10, only=only), queries)
            found, fast = timed(lambda query, only=only: peer.index.search(query, 10, only=only), queries)
            recall = np.mean([len(set(f.rows) & set(t.rows)) / 10 for f, t in zip(found, truth, strict=True)])
            print(
                f"{share:6.1%} {name:10} recall {recall:.4f}  {fast:7.1f} ms, exact {slow:7.1f} ms",
                flush=True,
            )
    for k in (1, 10, 50, 100, 1000):
        truth, slow = timed(lambda query, k=k: exact.search(query, k), queries)
        found, fast = timed(lambda query, k=k: peer.index.search(query, k), queries)
        recall = np.mean([len(set(f.rows) & set(t.rows)) / k for f, t in zip(found, truth, strict=True)])
        print(f"{k:5} hits recall {recall:.4f}  {fast:7.1f} ms, exact {slow:7.1f} ms", flush=True)


def masks(snapshot, share: float) -> dict[str, np.ndarray]:
    rows = len(snapshot)
    like = np.concatenate([part.astype(np.float32) @ one for part, one in pieces(snapshot)])
    return {
        "at random": np.random.default_rng(0).random(rows) < share,
        "unlike one": like < np.quantile(like, share),
    }


def pieces(snapshot):
    vectors = snapshot.segments[0].vectors
    one = vectors[12345].astype(np.float32)
    return ((vectors[i : i + 100_000], one) for i in range(0, len(vectors), 100_000))


def timed(search, queries: np.ndarray) -> tuple[list, float]:
    found, taken = [], []
    for query in queries:
        started = time.perf_counter()
        found += search(query[None])
        taken.append(time.perf_counter() - started)
    return found, median(taken) * 1e3


if __name__ == "__main__":
    main()
