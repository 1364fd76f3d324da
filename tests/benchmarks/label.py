"""20,000 labels and 1,000,000 pictures' vectors, beside the bare matrix product of the two.

    python tests/benchmarks/label.py [--labels 20000] [--rows 1000000] [--dim 512]

Both run in the same process on the same blocks, turn by turn; the peak is that of the process.
"""

import argparse
import resource
import time

import numpy as np

from clipsearch.labels import Classifier
from clipsearch.search import ROWS_TOGETHER
from clipsearch.types import as_embeddings


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--labels", type=int, default=20_000)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--dim", type=int, default=512)
    args = options.parse_args()
    rng = np.random.default_rng(0)
    unit = lambda rows: as_embeddings(rng.standard_normal((rows, args.dim), dtype=np.float32))  # noqa: E731
    vectors = unit(args.labels)
    classify = Classifier(vectors, unit(1000), "softmax", 100.0)
    spent = {"the product alone": 0.0, "classify, k=5": 0.0}
    for start in range(0, args.rows, ROWS_TOGETHER):
        block = unit(min(ROWS_TOGETHER, args.rows - start))
        began = time.perf_counter()
        step = 16_000_000 // args.labels
        for first in range(0, len(block), step):
            _ = block[first : first + step] @ vectors.T
        between = time.perf_counter()
        classify(block, 5)
        spent["the product alone"] += between - began
        spent["classify, k=5"] += time.perf_counter() - between
    least = spent["the product alone"]
    for way, seconds in spent.items():
        print(f"{way:20} {seconds:8.1f} s  {seconds / least:5.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{args.labels:,} labels, {args.rows:,} vectors of {args.dim}; peak {peak:.2f} GB")


if __name__ == "__main__":
    main()
