"""Peak memory of indexing 50,000 small pictures beside that of indexing 2,000: the difference is bounded.

    python tests/benchmarks/memory.py [--many 50000] [--few 2000]

Each in a process of its own, with the built-in model. The bound is 300 MB more.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CHILD = """
import resource, sys, clipsearch
with clipsearch.Collection(sys.argv[2], model="builtin") as photos:
    report = photos.add(sys.argv[1], progress=False)
print(report.added, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, report.images_per_second)
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--many", type=int, default=50_000)
    options.add_argument("--few", type=int, default=2_000)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        peaks = [measure(Path(name) / str(count), count) for count in (args.few, args.many)]
    print(f"difference {peaks[1] - peaks[0]:.0f} MB (bound 300 MB)")


def measure(folder: Path, count: int) -> float:
    rng = np.random.default_rng(0)
    for number in range(count):
        if number % 1000 == 0:
            (folder / f"pictures/{number // 1000:03}").mkdir(parents=True)
        pixels = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 64))
        pixels.save(folder / f"pictures/{number // 1000:03}/{number:06}.jpg")
    command = [sys.executable, "-c", CHILD, str(folder / "pictures"), str(folder / "c")]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    print(f"{int(output[0]):>7,} pictures: peak {float(output[1]):7.1f} MB, {float(output[2]):.0f} images/s")
    return float(output[1])


if __name__ == "__main__":
    main()
