"""Near-duplicates: time, memory, precision and recall beside brute force; and where the threshold should be.

    python tests/benchmarks/duplicates.py [--vectors 100000] [--dim 512] [--ways clipsearch brute …]
    python tests/benchmarks/duplicates.py --photos DIRECTORY

The vectors are gap.py's, float16 in a mapped file; every twentieth has one to three copies, whose cosine to
it is drawn evenly from 0.97 to 0.999. That is assumed, from where most small crops, resizes and JPEGs lie
with the built-in model, so recall and precision here tell of threshold and pruning, and not of photos.
Each way runs in a process of its own and makes groups by its own pairs with the same last step. "Recall" is
the share of the copies that are in the group of their original; "precision" the share of all grouped pictures
that are copies of the one kept; "memory" the peak beyond mapped files.
brute: a NumPy product of every two blocks; range_search: FAISS's IndexFlatIP; knn: its 10 nearest.

DIRECTORY holds the tar files of photos: what copies of them score with the built-in model, beside the most
alike different pictures, by the cosine as it is and with the mean taken out.
"""

import argparse
import io
import multiprocessing
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import faiss
import gap
import numpy as np
import psutil
from PIL import Image, ImageEnhance

import clipsearch
from clipsearch import near
from clipsearch.duplicates import usual_threshold
from clipsearch.types import as_embeddings

BLOCK = 4096
EVERY = 20  # one of so many has copies
COSINES = (0.97, 0.999)
NEIGHBOURS = 10


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--vectors", type=int, default=100_000)
    options.add_argument("--dim", type=int, default=512)
    options.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options.add_argument("--photos", type=Path)
    args = options.parse_args()
    if args.photos:
        return thresholds(args.photos)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "vectors.npy"
        original = plant(path, args.vectors, args.dim)
        rows = partial(fetch, np.load(path, mmap_mode="r"))
        threshold = usual_threshold(near.mean_cosine(rows, args.vectors))
        planted = int((original != np.arange(args.vectors)).sum())
        print(f"{args.vectors:,} x {args.dim}, {planted:,} copies, cosine from {threshold:.4f}")
        print(
            f"{'':14}{'s':>9}{'s of CPU':>10}{'MB':>8}{'groups':>9}{'recall':>8}{'precision':>11}  same sets"
        )
        first: list[list[int]] = []
        for way in args.ways:
            took, cpu, memory, sets, groups = alone(measure, way, path, threshold)
            first = first or sets
            kept = {row: group[0] for group in groups for row in group}
            copies = np.flatnonzero(original != np.arange(args.vectors))
            found = np.mean([kept.get(row) == kept.get(original[row], -1) for row in copies.tolist()])
            right = np.mean([original[row] == original[group[0]] for group in groups for row in group[1:]])
            print(
                f"{way:14}{took:9.1f}{cpu:10.1f}{memory:8,.0f}{len(groups):9,}{found:8.4f}{right:11.4f}"
                f"  {sets == first}",
                flush=True,
            )


def plant(path: Path, n: int, dim: int) -> np.ndarray:
    """Write n vectors, copies among them; return for each the row that it is a copy of, or its own, (n,)."""
    rng = np.random.default_rng(1)
    count = rng.integers(1, 4, size=n // EVERY)
    sources = rng.choice(n - count.sum(), size=len(count), replace=False)
    original = np.concatenate([np.arange(n - count.sum()), np.repeat(sources, count)])
    rows = np.lib.format.open_memmap(path, "w+", np.float16, (n, dim))
    for start, part in zip(range(0, n, gap.BLOCK), gap.blocks(n, dim=dim), strict=True):
        rows[start : start + len(part)] = part
    falling = gap.spectrum(dim, 0.7)
    for part in np.array_split(np.arange(n - count.sum(), n), 50):
        base = rows[original[part]].astype(np.float32)
        noise = (
            rng.standard_normal(base.shape, dtype=np.float32) * falling @ gap.world(dim).turn
        )  # a picture's own
        noise -= np.einsum("nd,nd->n", noise, base)[:, None] * base
        cosine = rng.uniform(*COSINES, size=(len(part), 1)).astype(np.float32)
        rows[part] = cosine * base + np.sqrt(1 - cosine**2) * gap.unit(noise)
    rows.flush()
    return original


def fetch(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return as_embeddings(vectors[rows])


def alone(run: Callable, *args: object) -> tuple:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, *args).result()


def measure(
    way: str, path: Path, threshold: float
) -> tuple[float, float, float, list[list[int]], list[list[int]]]:
    """Seconds, seconds of CPU, MB, and what was found."""
    vectors = np.load(path, mmap_mode="r")
    rows = partial(fetch, vectors)
    before, peak, done = private(), [0], threading.Event()
    watcher = threading.Thread(target=watch, args=(peak, done))
    watcher.start()
    started, cpu = time.perf_counter(), time.process_time()
    sets = WAYS[way](rows, len(vectors), threshold)
    found = [near.stars(rows, one, threshold) for one in sets]
    took = time.perf_counter() - started, time.process_time() - cpu
    done.set()
    watcher.join()
    groups = [group.tolist() for stars in found for group in stars.rows]
    return *took, (peak[0] - before) / 1e6, [one.tolist() for one in sets], groups


def watch(peak: list[int], done: threading.Event) -> None:
    while not done.wait(0.05):
        peak[0] = max(peak[0], private())


def private() -> int:
    """Bytes in memory that no file on the disk stands behind."""
    full = psutil.Process().memory_info()
    return full.rss - full.shared


def clipsearch_sets(rows: near.Fetch, n: int, threshold: float) -> list[np.ndarray]:
    return near.components(rows, n, threshold, progress=False)


def by_pairs(pairs: Callable[..., Iterator[tuple[np.ndarray, np.ndarray]]]) -> Callable:
    """Sets from a way's own pairs."""

    def sets(rows: near.Fetch, n: int, threshold: float) -> list[np.ndarray]:
        labels = np.arange(n)
        for one, other in pairs(rows, n, threshold):
            labels = near._joined(labels, one, other)
        order = np.argsort(labels, kind="stable")
        linked = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        return sorted((some for some in linked if len(some) > 1), key=lambda some: int(some[0]))

    return sets


def brute(rows: near.Fetch, n: int, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    parts = [np.arange(start, min(n, start + BLOCK)) for start in range(0, n, BLOCK)]
    for number, one in enumerate(parts):
        vectors = rows(one)
        for other in parts[number:]:
            here, there = np.nonzero(vectors @ rows(other).T >= threshold)
            yield one[here], other[there]


def range_search(rows: near.Fetch, n: int, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    index, parts = flat(rows, n)
    for part in parts:
        ends, _, found = index.range_search(rows(part), threshold)
        yield np.repeat(part, np.diff(ends.astype(np.int64))), found


def knn(rows: near.Fetch, n: int, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    index, parts = flat(rows, n)
    for part in parts:
        cosines, found = index.search(rows(part), NEIGHBOURS)
        here, place = np.nonzero(cosines >= threshold)
        yield part[here], found[here, place]


def flat(rows: near.Fetch, n: int) -> tuple[faiss.IndexFlatIP, list[np.ndarray]]:
    parts = [np.arange(start, min(n, start + BLOCK)) for start in range(0, n, BLOCK)]
    index = faiss.IndexFlatIP(rows(parts[0][:1]).shape[1])
    for part in parts:
        index.add(rows(part))
    return index, parts


WAYS = {
    "clipsearch": clipsearch_sets,
    "brute": by_pairs(brute),
    "range_search": by_pairs(range_search),
    "knn": by_pairs(knn),
}


# ---------------------------------------------------------------------- photos


def thresholds(folder: Path) -> None:
    """What copies score, beside different pictures."""
    encoder = clipsearch.load_encoder("builtin")
    for name in (
        "flickr8k-dev.tar",
        "caltech101-train.tar",
        "clothing-train.tar",
        "tiny-imagenet-train.tar",
    ):
        pictures = list(read(folder / name))
        vectors = encode(encoder, pictures)
        sample = np.random.default_rng(0).choice(len(pictures), 500, replace=False)
        copies = {how: encode(encoder, [make(pictures[i]) for i in sample]) for how, make in COPIES.items()}
        tell(name, vectors, sample, copies)


def tell(name: str, vectors: np.ndarray, sample: np.ndarray, copies: dict[str, np.ndarray]) -> None:
    mean = near.mean_cosine(lambda rows: vectors[rows], len(vectors))
    usual = usual_threshold(mean)
    centre = vectors.mean(axis=0)
    print(f"\n{name}: {len(vectors):,} pictures, mean cosine {mean:.3f}, usual threshold {usual:.4f}")
    print(f"{'':24}{'threshold':>10}{'have one near':>15}" + "".join(f"{how:>11}" for how in copies))
    raw = nearest(vectors)
    line("usual", usual, raw, [scores(vectors[sample], some) for some in copies.values()])
    line("0.96", 0.96, raw, [scores(vectors[sample], some) for some in copies.values()])
    for what, shift in (("cosine", np.zeros_like(centre)), ("mean taken out", centre)):
        rows = as_embeddings(vectors - shift)
        others = nearest(rows)
        at = float(np.quantile(others, 0.99))
        found = [scores(rows[sample], as_embeddings(some - shift)) for some in copies.values()]
        line(f"{what}, 1 % have one", at, others, found)


def line(what: str, threshold: float, others: np.ndarray, found: list[np.ndarray]) -> None:
    shares = "".join(f"{(some >= threshold).mean():11.3f}" for some in found)
    print(f"{what:24}{threshold:10.4f}{(others >= threshold).mean():15.4f}{shares}", flush=True)


def nearest(rows: np.ndarray) -> np.ndarray:
    """The cosine of each to the nearest other, (n,)."""
    best = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK):
        cosines = rows[start : start + BLOCK] @ rows.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -1
        best[start : start + BLOCK] = cosines.max(axis=1)
    return best


def scores(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", some, others)


def read(path: Path) -> Iterator[Image.Image]:
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.lower().endswith((".jpg", ".jpeg")):
                yield Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")


def encode(encoder: clipsearch.Encoder, pictures: list[Image.Image]) -> np.ndarray:
    parts = [encoder.encode_images(pictures[i : i + 64]) for i in range(0, len(pictures), 64)]
    return np.concatenate(parts)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def crop(image: Image.Image, share: float) -> Image.Image:
    """Without a share of each side's length, from the middle."""
    x, y = (round(side * share / 2) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 75": lambda image: jpeg(image, 75),
    "JPEG 50": lambda image: jpeg(image, 50),
    "half size": lambda image: image.resize([side // 2 for side in image.size], Image.Resampling.BICUBIC),
    "crop 5 %": lambda image: crop(image, 0.05),
    "crop 10 %": lambda image: crop(image, 0.1),
    "crop 20 %": lambda image: crop(image, 0.2),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "grey": lambda image: image.convert("L").convert("RGB"),
}

if __name__ == "__main__":
    main()
