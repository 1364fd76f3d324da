"""What a `clipsearch search` costs from a cold start, in a collection of 10,000 pictures.

    python tests/benchmarks/cold_search.py [--items 10000] [--rounds 5]

Whole processes, turn by turn, medians. A new query is held to 1.3 times
`python -c "import torch, open_clip"` plus loading the text tower; a repeated one to 0.6 s without
importing torch; one in the prompt to 150 ms; `import clipsearch` to 0.2 s.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

import clipsearch

CLI = [sys.executable, "-m", "clipsearch"]
LOAD = """
import time, torch, open_clip
from clipsearch.encoders import load_encoder
started = time.perf_counter()
load_encoder("builtin").encode_texts(["a dog"])
print(time.perf_counter() - started)
"""
PROMPT = """
import sys, time, clipsearch
photos = clipsearch.Collection(sys.argv[1], read_only=True)
photos.search("warm up")
times = []
for number in range(20):
    started = time.perf_counter()
    photos.search(f"a dog number {number} on the grass")
    times.append(time.perf_counter() - started)
print(sorted(times)[10])
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--items", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=5)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {
            "XDG_CACHE_HOME": f"{name}/cache",
            "HF_HUB_OFFLINE": "1",
            "CLIPSEARCH_QUERY_CACHE": "1",
        }
        folder = str(Path(name) / "photos.clipsearch")
        with clipsearch.Collection(folder, model="builtin") as photos:
            rng = np.random.default_rng(0)
            noise = (rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(args.items))
            print(
                photos.add(
                    ((str(n), Image.fromarray(pixels)) for n, pixels in enumerate(noise)), progress=False
                )
            )
        rows: dict[str, list[float]] = {}
        for number in range(args.rounds):
            query = f"a dog number {number}"
            add(rows, "python -c pass", lambda: wall([sys.executable, "-c", "pass"]))
            add(rows, "import clipsearch", lambda: wall([sys.executable, "-c", "import clipsearch"]))
            add(
                rows,
                "import torch, open_clip",
                lambda: wall([sys.executable, "-c", "import torch, open_clip"]),
            )
            add(rows, "load the text tower", lambda: float(run([sys.executable, "-c", LOAD])))
            add(rows, "search, a new query", lambda q=query: wall([*CLI, "search", folder, q]))
            add(rows, "search, repeated", lambda q=query: wall([*CLI, "search", folder, q]))
        for what, seconds in rows.items():
            print(f"{what:26} {median(seconds):6.3f} s")
        bases = [
            a + b for a, b in zip(rows["import torch, open_clip"], rows["load the text tower"], strict=True)
        ]
        new = median(a / b for a, b in zip(rows["search, a new query"], bases, strict=True))
        bare = median(rows["import clipsearch"]) - median(rows["python -c pass"])
        print(f"import clipsearch adds     {bare * 1e3:6.0f} ms to starting Python (bound 200 ms)")
        print(f"new query / base           {new:6.2f} (bound 1.3)")
        print(f"repeated query             {median(rows['search, repeated']):6.2f} s (bound 0.6 s)")
        prompt = float(run([sys.executable, "-c", PROMPT, folder]))
        print(f"a query in the prompt      {prompt * 1e3:6.1f} ms (bound 150 ms)")


def add(rows: dict[str, list[float]], what: str, measure: object) -> None:
    rows.setdefault(what, []).append(measure())


def wall(command: list[str]) -> float:
    started = time.perf_counter()
    run(command)
    return time.perf_counter() - started


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
