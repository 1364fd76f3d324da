"""Kill the process again and again while it adds pictures: nothing committed is lost, nothing comes twice.

    python tests/benchmarks/kill.py [--kills 50] [--pictures 2000]

The built-in model adds generated pictures to two collections: one in peace, one in processes that
are killed with SIGKILL at random instants, each followed by a look at what is there. In the end
both must hold the same.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from PIL import Image

import clipsearch
from clipsearch import ingest
from clipsearch.types import as_embeddings

BATCH = 16  # pictures encoded at a time, and then committed


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--pictures", type=int, default=2000)
    options.add_argument("--add", nargs=2, metavar=("COLLECTION", "FOLDER"), help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.add:
        add(*map(Path, args.add))
        return
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), args.kills, args.pictures)


def add(collection: Path, folder: Path) -> float:
    """Add a folder with the built-in model; say when it begins, and return the seconds it took."""
    ingest.COMMIT_SECONDS = 0
    with clipsearch.Collection(collection, model="builtin", precision="fp32") as photos:
        photos.encoder.encode_images([Image.new("RGB", (64, 64))])  # the weights are read now
        print("begins", flush=True)
        return photos.add(folder, batch_size=BATCH, progress=False).seconds


def compare(here: Path, kills: int, pictures: int) -> None:
    folder = here / "pictures"
    paint(folder, pictures)
    seconds = add(here / "peace", folder)
    print(f"in peace: {pictures:,} pictures in {seconds:.1f} s")
    chance, counts, done, pause = random.Random(0), [0], 0, 1.0
    while done < kills and counts[-1] < pictures:
        done += killed(here / "war", folder, chance.uniform(0, 2 * pause))
        with clipsearch.Collection(here / "war") as photos:
            counts.append(len(photos))
        behind = counts[-1] / pictures < done / kills  # the last picture should come with the last kill
        pause *= 1.2 if behind else 0.8
        print(f"\r{done} kills, {counts[-1]:,} pictures", end="", flush=True)
    add(here / "war", folder)
    report(here, folder, done, counts)


def paint(folder: Path, count: int) -> None:
    """Pictures of 16 by 16 coloured squares, each unlike all others."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        squares = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(squares).resize((160, 160), Image.Resampling.NEAREST).save(
            folder / f"{number:06d}.jpg"
        )


def killed(collection: Path, folder: Path, seconds: float) -> bool:
    """Add in another process, killed some seconds after it began; whether it was still at work."""
    command = [sys.executable, __file__, "--add", str(collection), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(seconds)
        process.kill()
    return process.returncode != 0


def report(here: Path, folder: Path, kills: int, counts: list[int]) -> None:
    peace, war = (vectors(here / name) for name in ("peace", "war"))
    with clipsearch.Collection(here / "war", read_only=True) as photos:
        checked = photos.verify()
    once = sorted(key for key, _ in war) == sorted(os.listdir(folder))
    cosines = [float(mine @ other) for (_, mine), (_, other) in zip(peace, war, strict=True)]
    print(f"\rkills                       {kills}, in {len(counts) - 1} runs")
    print(f"never fewer than before     {counts == sorted(counts)}")
    print(f"every picture exactly once  {once} ({len(war):,} of {len(os.listdir(folder)):,})")
    print(f"smallest cosine to peace    {min(cosines):.7f}")
    print(f"verify                      {'ok' if checked.ok else checked.problems}")


def vectors(collection: Path) -> list[tuple[str, np.ndarray]]:
    """(key, unit vector) of every picture that a search finds, by key."""
    with clipsearch.Collection(collection, read_only=True) as photos:
        ids, found = photos.embeddings()
        rows = dict(zip(ids, as_embeddings(found), strict=True))
        hits = photos.search(embedding=found[0], k=10**6)
    return sorted(((hit.key, rows[hit.id]) for hit in hits), key=lambda pair: pair[0])


if __name__ == "__main__":
    main()
