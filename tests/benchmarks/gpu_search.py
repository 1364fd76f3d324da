"""Exact search on a device, over random vectors made there, beside what the device can do at all.

    python tests/benchmarks/gpu_search.py [--device cuda] [--rows 10000000 100000000] [--dim 512]

Two limits are measured in the same run: reading the vectors once for each tile of queries, at the speed
of a copy on the device (which reads and writes); and the products alone, at the speed of a square one of
float16. A number of rows that has no room is passed over. On a processor, to see that it works:

    python tests/benchmarks/gpu_search.py --device cpu --rows 100000 --rounds 3
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from clipsearch import gpu
from clipsearch.gpu import GROUP, QUERIES, DeviceIndex, block_rows
from clipsearch.types import as_embeddings

COPIED = 1 << 30  # bytes
SIDE = 8192  # of the square product


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--device", default="cuda")
    options.add_argument("--rows", type=int, nargs="+", default=[10_000_000, 100_000_000])
    options.add_argument("--dim", type=int, default=512)
    options.add_argument("-k", type=int, default=10)
    options.add_argument("--rounds", type=int, default=15)
    args = options.parse_args()
    name = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else args.device
    copied = 2 * COPIED / timed(copy(args.device), args.device, args.rounds)  # bytes/s
    side = SIDE if args.device != "cpu" else SIDE // 8
    multiplied = 2 * side**3 / timed(multiply(args.device, side), args.device, args.rounds)  # FLOP/s
    print(f"{name}, torch {torch.__version__}: copies at {copied / 1e9:,.0f} GB/s read and written,")
    print(f"multiplies float16 at {multiplied / 1e12:,.2f} TFLOP/s; k {args.k}, median of {args.rounds}")
    print(f"{'rows':>12} {'queries':>8} {'ms':>10} {'ms/query':>9} {'reading':>9} {'product':>9}  x larger")
    for rows in args.rows:
        try:
            index = make(rows, args.dim, args.device)
        except torch.OutOfMemoryError:
            print(f"{rows:12,} vectors have no room")
            continue
        for count in (1, 32, 512):
            queries = unit(count, args.dim)
            check(index, queries[:1], args.k)
            took = timed(lambda q=queries, i=index: i.search(q, args.k), args.device, args.rounds)
            reading = 2 * rows * args.dim * -(-count // QUERIES) / copied
            product = 2 * rows * args.dim * count / multiplied
            line = f"{rows:12,} {count:8} {took * 1e3:10.2f} {took * 1e3 / count:9.3f}"
            over = took / max(reading, product)
            print(f"{line} {reading * 1e3:9.2f} {product * 1e3:9.2f}  {over:.2f}", flush=True)
        del index


def make(rows: int, dim: int, device: str) -> DeviceIndex:
    """Random unit rows, made on the device a block at a time."""
    torch.manual_seed(0)
    blocks = []
    for first in range(0, rows, block_rows(dim)):
        shape = -(-min(block_rows(dim), rows - first) // GROUP) * GROUP, dim
        block = torch.empty(shape, dtype=torch.float16, device=device)
        for part in block.split(1 << 18):
            part.copy_(torch.nn.functional.normalize(torch.randn(part.shape, device=device)))
        blocks.append(block)
    return DeviceIndex(blocks, hidden=np.arange(rows, sum(map(len, blocks))))


def check(index: DeviceIndex, query: np.ndarray, k: int) -> None:
    """Compare one search with all scores of the first block, in float32 on the processor."""
    scores = index.blocks[0][: 1 << 18].float().cpu().numpy() @ query[0]
    best = float(np.sort(scores)[-k])
    found = index.search(query, k)[0]
    expected = np.flatnonzero(scores > found.scores[-1] + 1e-6)
    assert found.scores[-1] >= best - 1e-6
    assert set(expected) <= set(found.rows)


def unit(n: int, dim: int) -> np.ndarray:
    return as_embeddings(np.random.default_rng(1).standard_normal((n, dim)))


def copy(device: str) -> Callable[[], object]:
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def multiply(device: str, side: int) -> Callable[[], object]:
    """A product as the search makes them: float16 where the device sums in float32."""
    one, other = (torch.randn(side, side, device=device).half() for _ in range(2))
    return lambda: gpu.product(one, other)


def timed(run: Callable[[], object], device: str, rounds: int) -> float:
    """Median seconds; two more rounds go before."""
    taken = []
    for _ in range(rounds + 2):
        wait(device)
        started = time.perf_counter()
        run()
        wait(device)
        taken.append(time.perf_counter() - started)
    return median(taken[2:])


def wait(device: str) -> None:
    """Until the device has done what it was told."""
    if device != "cpu":
        torch.accelerator.synchronize(device)


if __name__ == "__main__":
    main()
