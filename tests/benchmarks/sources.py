"""The same pictures as files, webdataset shards and Parquet: how fast each is taken in, beside files.

    python tests/benchmarks/sources.py [--pictures 20000] [--rounds 5]

JPEGs of 64 x 64 pixels, each unlike all others. The encoder costs next to nothing, so what is measured is
finding, reading, hashing, decoding and storing. Shards and Parquet bring a caption for each picture, and so
do the files that they are compared with; files without captions show what captions cost. Each way has a
process of its own, the ways in turn; figures are medians of the rounds, as ratios to captioned files of the
same round. Then a second `add`, which reads no picture; the peak of memory; and an `add` that is killed in
the middle and goes on. The bound is 0.9 of the speed of files.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SHARD = 2_000  # pictures
WAYS = ("files", "captioned files", "shards", "parquet", "parquet, one row group")
BASE = "captioned files"
CHILD = """
import json, resource, sys, time
import clipsearch
from clipsearch import ingest
from clipsearch.testing import ColourEncoder

ingest.COMMIT_SECONDS = float(sys.argv[3])
with clipsearch.Collection(sys.argv[1], model=ColourEncoder()) as photos:
    print("begins", flush=True)
    started = time.perf_counter()
    report = photos.add(sys.argv[2], progress=False, batch_size=256)
    seconds = time.perf_counter() - started
    counts = [report.added, report.unchanged, len(report.failed), report.missing, len(photos)]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak": peak, "counts": counts}))
"""


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--pictures", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=5)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        specs = dict(zip(WAYS, write(here, args.pictures), strict=True))
        first: dict[str, list[dict]] = {way: [] for way in WAYS}
        second: dict[str, list[dict]] = {way: [] for way in WAYS}
        for number in range(args.rounds):
            for way in WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]:
                collection = here / f"{number} {way}"
                first[way].append(add(collection, specs[way]))
                second[way].append(add(collection, specs[way]))
        report(first, second, args.pictures)
        for way in WAYS:
            half = statistics.median(run["seconds"] for run in first[way]) / 2
            told = killed(here / f"killed {way}", specs[way], args.pictures, half)
            print(f"killed and resumed, {way}: {told}")


def write(here: Path, count: int) -> list[str]:
    """The pictures in every way; what to give to `add` for each."""
    import pyarrow
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    files, captioned = here / "files", here / "captioned"
    for start in range(0, count, SHARD):
        shard = start // SHARD
        names = [f"{number:07}" for number in range(start, min(count, start + SHARD))]
        contents = [jpeg(rng) for _ in names]
        for folder in (files, captioned):
            (folder / f"{shard:05}").mkdir(parents=True)
        (here / "shards").mkdir(exist_ok=True)
        with tarfile.open(here / "shards" / f"{shard:05}.tar", "w") as tar:
            for name, content in zip(names, contents, strict=True):
                (files / f"{shard:05}" / f"{name}.jpg").write_bytes(content)
                (captioned / f"{shard:05}" / f"{name}.jpg").write_bytes(content)
                (captioned / f"{shard:05}" / f"{name}.txt").write_text(f"picture {name}")
                put(tar, f"{name}.jpg", content)
                put(tar, f"{name}.txt", f"picture {name}".encode())
        rows = [
            {"bytes": content, "path": f"{name}.jpg"} for name, content in zip(names, contents, strict=True)
        ]
        table = pyarrow.table({"image": rows, "caption": [f"picture {name}" for name in names]})
        parquet.write_table(table, here / f"train-{shard:05}.parquet", row_group_size=100)
        parquet.write_table(table, here / f"large-{shard:05}.parquet")
    last = (count - 1) // SHARD
    patterns = ["shards/{00000..%05d}.tar", "train-{00000..%05d}.parquet", "large-{00000..%05d}.parquet"]
    return [str(files), str(captioned), *(str(here / (pattern % last)) for pattern in patterns)]


def jpeg(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 64)).save(file, "JPEG")
    return file.getvalue()


def put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def add(collection: Path, spec: str) -> dict:
    command = [sys.executable, "-c", CHILD, str(collection), spec, "10"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def killed(collection: Path, spec: str, count: int, seconds: float) -> str:
    """Kill it with SIGKILL after some seconds, run it again, and say what both did."""
    command = [sys.executable, "-c", CHILD, str(collection), spec, "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        time.sleep(seconds)
        process.kill()
    added, unchanged, failed, missing, total = add(collection, spec)["counts"]
    whole = added + unchanged == total == count and not failed and not missing and 0 < unchanged < count
    return f"{unchanged:,} kept, {added:,} added, {'whole' if whole else 'NOT WHOLE'}"


def report(first: dict[str, list[dict]], second: dict[str, list[dict]], count: int) -> None:
    assert all(run["counts"][0] == count for runs in first.values() for run in runs)
    assert all(run["counts"][1] == count for runs in second.values() for run in runs)
    print(f"{'':24}{'images/s':>10}{'ratio':>10}{'again/s':>12}{'ratio':>10}{'peak MB':>10}")
    for way in WAYS:
        cells = [(rate(runs[way], count), ratio(runs, way)) for runs in (first, second)]
        peak = max(run["peak"] for run in first[way])
        rates = "".join(
            f"{speed:>{wide},.0f}{part:>10.2f}" for wide, (speed, part) in zip((10, 12), cells, strict=True)
        )
        print(f"{way:24}{rates}{peak:>10.0f}")


def rate(runs: list[dict], count: int) -> float:
    return count / statistics.median(run["seconds"] for run in runs)


def ratio(runs: dict[str, list[dict]], way: str) -> float:
    pairs = zip(runs[BASE], runs[way], strict=True)
    return statistics.median(files["seconds"] / own["seconds"] for files, own in pairs)


if __name__ == "__main__":
    main()
