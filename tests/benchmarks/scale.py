"""Millions of vectors: recall, speed, build time and memory of approximate indexes, beside other libraries.

    python tests/benchmarks/scale.py --work DIRECTORY --out RESULTS.jsonl [--rows 2000000] [--dim 512]
        [--targets 0.95 0.99] [--ways flat hnswlib usearch usearch-tuned autofaiss autofaiss-1G clipsearch]
        [--threads 2] [--build-only | --measure-only]

The vectors are gap.py's; --work keeps them, the queries, the truth and each way's index, so that a way is
built once (in a process of its own, with --threads) and measured again at will. Ways that are measured in
one run stay in memory together and take turns.

A row is a way at one setting. "recall" is recall@10 of 1,000 held-out texts and 1,000 held-out pictures;
"ms" the median of single queries on one thread, after a warm-up; "q/s" one batch of the 1,000 on all
cores. Why a setting is measured: it is the "usual" one, the library's own; or the least whose recall on
1,000 other texts reaches a target, for which every way gets the same search; or a point of the curve. "RAM"
is what the process grew by on loading the index and searching, without pages of mapped files.
"""

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import gap
import numpy as np
import psutil
from peers import GIB, AutoFaiss, Clipsearch, Flat, Hnswlib, Peer, Usearch, recall, truth

QUERIES = 1000  # of each kind, and as many others to tune on
SETS = {
    "text": (gap.texts, 1),
    "image": (gap.images, 1),
    "tune": (gap.texts, 2),
    "tune_image": (gap.images, 2),
}
KINDS = ("text", "image")
SLICE = 0.15  # seconds of single queries in one turn
ROUNDS = 12
CURVE = (0.7, 0.998)  # recalls on texts between which all dials are measured
GAIN = 0.0005  # a dial that adds less ends the curve


WAYS: dict[str, Callable[[int], Peer]] = {
    "clipsearch": lambda dim: Clipsearch(),
    "flat": lambda dim: Flat(),
    "autofaiss": lambda dim: AutoFaiss(),
    "autofaiss-1G": lambda dim: AutoFaiss(GIB),
    "usearch": lambda dim: Usearch(),
    "usearch-tuned": lambda dim: Usearch(dtype="f16", connectivity=32, expansion_add=128),
    "hnswlib": Hnswlib,
}


class Setting(NamedTuple):
    """A way at one dial, and what single queries took, in seconds, by kind."""

    way: str
    dial: int
    why: list[str]
    took: dict[str, list[float]]


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--rows", type=int, default=2_000_000)
    options.add_argument("--dim", type=int, default=512)
    options.add_argument("--targets", type=float, nargs="+", default=[0.95, 0.99])
    options.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options.add_argument("--threads", type=int, default=os.cpu_count(), help="for building")
    only = options.add_mutually_exclusive_group()
    only.add_argument("--build-only", action="store_true")
    only.add_argument("--measure-only", action="store_true")
    args = options.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    prepare(args.work, args.rows, args.dim)
    if not args.measure_only:
        for way in args.ways:
            alone(build, way, args.work, args.threads)
    if not args.build_only:
        measure(args)


def prepare(work: Path, rows: int, dim: int) -> None:
    """The vectors, the queries and the truth, where they are not there yet."""
    path = work / "vectors.npy"
    if not path.exists():
        gap.save(path.with_suffix(".part"), rows, dim=dim)
        path.with_suffix(".part").rename(path)
    vectors = np.load(path, mmap_mode="r")
    if vectors.shape != (rows, dim):
        raise SystemExit(f"{path} holds {vectors.shape}, not {(rows, dim)}: name another --work")
    if (work / "queries.npz").exists():
        return
    queries = {name: make(QUERIES, seed, dim=dim) for name, (make, seed) in SETS.items()}
    true = {f"{name}_true": truth(vectors, rows) for name, rows in queries.items()}
    np.savez(work / "queries.npz", **queries, **true)


def alone(run: Callable[..., Any], *args: Any) -> Any:
    """Runs it in a process of its own, whose memory is given back."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, *args).result()


def build(way: str, work: Path, threads: int) -> None:
    """Builds a way's index and saves it, with what that took beside it."""
    vectors = np.load(work / "vectors.npy", mmap_mode="r")
    peer = WAYS[way](vectors.shape[1])
    started, before = time.perf_counter(), processor()
    peer.build(vectors, threads=threads)
    took = {"build_s": time.perf_counter() - started, "build_cpu_s": processor() - before}
    peer.save(work / f"{way}.index")
    (work / f"{way}.json").write_text(json.dumps(took | {"build_threads": threads}))
    print(
        f"{way}: {peer.what}, built in {took['build_s']:,.0f} s, {took['build_cpu_s']:,.0f} s of CPU",
        flush=True,
    )


def processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(args: argparse.Namespace) -> None:
    """Loads the ways, chooses their dials, lets them take turns, and prints and appends the results."""
    sets = dict(np.load(args.work / "queries.npz"))
    peers, rams = {}, {}
    for way in args.ways:
        peers[way], rams[way] = loaded(way, args, sets["tune_image"])
    settings = [one for way, peer in peers.items() for one in choose(way, peer, args.targets, sets)]
    for turn in range(ROUNDS + 1):  # the first is the warm-up
        for one in settings:
            for kind in KINDS:
                took = singles(peers[one.way], one.dial, sets[kind], turn)
                one.took[kind].extend(took if turn else [])
    print(f"{args.rows:,} x {args.dim}, {os.cpu_count()} cores; single queries on 1 thread, {ROUNDS} turns")
    print(
        f"{'':15}{'dial':>6}{'recall text':>13}{'image':>8}{'ms text':>10}{'image':>8}"
        f"{'q/s text':>10}{'image':>8}{'build s':>9}{'CPU s':>8}{'RAM B':>8}  why"
    )
    with args.out.open("a", encoding="utf-8") as file:
        for one in settings:
            row = figures(one, peers[one.way], sets) | {"ram_bytes": rams[one.way] / args.rows}
            row |= {"rows": args.rows, "dim": args.dim, "date": date.today().isoformat()}
            row |= json.loads((args.work / f"{one.way}.json").read_text()) | {"what": peers[one.way].what}
            row["file_bytes"] = (args.work / f"{one.way}.index").stat().st_size / args.rows
            print(line(row), flush=True)
            file.write(json.dumps(row) + "\n")


def loaded(way: str, args: argparse.Namespace, queries: np.ndarray) -> tuple[Peer, int]:
    """A way's index, and the bytes that the process grew by."""
    before, peer = private(), WAYS[way](args.dim)
    peer.load(args.work / f"{way}.index")
    peer.use(peer.dials[0], threads=1)
    peer.search(queries[:100], 10)
    return peer, private() - before


def private() -> int:
    """Bytes in memory that no file on the disk stands behind."""
    full = psutil.Process().memory_full_info()
    return full.rss - full.shared


def choose(way: str, peer: Peer, targets: list[float], sets: dict[str, np.ndarray]) -> list[Setting]:
    """The library's own setting, one for each target, and the curve; by texts that are not measured on."""
    known: dict[int, float] = {}

    def reached(dial: int) -> float:
        if dial not in known:
            peer.use(dial, threads=os.cpu_count() or 1)
            known[dial] = recall(peer.search(sets["tune"], 10), sets["tune_true"])
        return known[dial]

    why: dict[int, list[str]] = {}
    before = -1.0
    for dial in peer.dials:
        if reached(dial) >= CURVE[0]:
            why.setdefault(dial, []).append("curve")
        if known[dial] >= CURVE[1] or known[dial] - before < GAIN:
            break
        before = known[dial]
    for target in targets:
        if max(known.values()) >= target:
            why.setdefault(least(target, sorted(known), reached), []).append(f"text {target:g}")
    why.setdefault(peer.usual(), []).append("usual")
    return [Setting(way, dial, why[dial], {kind: [] for kind in KINDS}) for dial in sorted(why)]


def least(target: float, dials: list[int], reached: Callable[[int], float]) -> int:
    """The least dial that reaches a target, to a twentieth."""
    high = next(dial for dial in dials if reached(dial) >= target)
    low = max((dial for dial in dials if dial < high), default=high)
    while high - low > max(1, low // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= target else (middle, high)
    return high


def singles(peer: Peer, dial: int, queries: np.ndarray, turn: int) -> list[float]:
    """What single queries took, as many as a turn has time for; every turn begins at others."""
    peer.use(dial, threads=1)
    took: list[float] = []
    at = turn * len(queries) // (ROUNDS + 1)
    while sum(took) < SLICE and len(took) < len(queries):
        query = queries[(at + len(took)) % len(queries)][None]
        started = time.perf_counter()
        peer.search(query, 10)
        took.append(time.perf_counter() - started)
    return took


def figures(one: Setting, peer: Peer, sets: dict[str, np.ndarray]) -> dict[str, Any]:
    """What a setting finds and how fast."""
    row: dict[str, Any] = {"way": one.way, "dial": one.dial, "why": one.why}
    for kind in KINDS:
        peer.use(one.dial, threads=os.cpu_count() or 1)
        started = time.perf_counter()
        found = peer.search(sets[kind], 10)
        row[f"qps_{kind}"] = len(found) / (time.perf_counter() - started)
        row[f"recall_{kind}"] = recall(found, sets[f"{kind}_true"])
        row[f"ms_{kind}"] = median(one.took[kind]) * 1e3
        row[f"ms_{kind}_p10"] = (
            float(np.quantile(one.took[kind], 0.1)) * 1e3
        )  # what a busy machine spoils less
    return row


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['way']:15}{row['dial']:6}{row['recall_text']:13.4f}{row['recall_image']:8.4f}"
        f"{row['ms_text']:10.3f}{row['ms_image']:8.3f}{row['qps_text']:10,.0f}{row['qps_image']:8,.0f}"
        f"{row['build_s']:9,.0f}{row['build_cpu_s']:8,.0f}{row['ram_bytes']:8,.0f}  {', '.join(row['why'])}"
    )


if __name__ == "__main__":
    main()
