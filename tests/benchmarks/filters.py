"""What `where=` costs over 1,000,000 items, beside SQLite itself running the same condition.

    python tests/benchmarks/filters.py [--items 1000000] [--rounds 7]

The collection is made through SQL, each item with a caption of its own. Bounds: 20 ms for numbers and
categories, 400 ms for `like` over the captions. "first" is the first use of the columns named: they
are then read from items.sqlite. SQLite is given the values of the same columns as a plain table
in memory, so that it reads no JSON.
"""

import argparse
import json
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

from clipsearch.columns import Columns
from clipsearch.filters import select
from clipsearch.store import Store
from clipsearch.where import parse

WORDS = ["dog", "beach", "sunset", "mountain", "red car", "boat", "people walking", "green", "Field", "night"]
CONDITIONS = [
    ("width >= 4000", 20),
    ("camera = 'Camera 7'", 20),
    ("taken >= '2024-06'", 20),
    ("taken between '2024-06' and '2024-09' and camera in ('Camera 1', 'Camera 2') and rating > 3", 20),
    ("latitude between 37.4 and 37.7 and longitude between 126.8 and 127.2", 20),
    ("caption like '%dog%'", 400),
    ("caption like 'dog%'", 400),
    ("caption like '%dog%car%'", 400),
    ("caption like '%7'", 400),
    ("caption like '%d_g b%'", 400),
]
COLUMNS = ("width", "camera", "taken", "rating", "latitude", "longitude", "caption")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--items", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=7)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as name, closing(Store.create(Path(name) / "c")) as store:
        fill(store, args.items)
        columns, took = timed(lambda: Columns(store, store.generation()))
        print(f"{args.items:,} items; ids read in {took:.2f} s")
        for column in (*COLUMNS, "tags", "path"):
            _, took = timed(lambda c=column: columns[c])
            print(f"first use of {column:10} {took:6.2f} s")
        with closing(peer(store)) as db:
            for condition, bound in CONDITIONS:
                compare(columns, db, condition, bound, args.rounds)


def compare(columns: Columns, db: sqlite3.Connection, condition: str, bound: int, rounds: int) -> None:
    """Print both times, turn by turn, having checked that both find the same items."""
    ours, theirs = [], []
    for _ in range(rounds):
        selection, took = timed(lambda: select(columns, parse(condition)))
        ours.append(took * 1e3)
        rows, took = timed(lambda: db.execute(f"SELECT id FROM plain WHERE {condition}").fetchall())
        theirs.append(took * 1e3)
    assert selection.items.nonzero()[0].tolist() == sorted(id for (id,) in rows)
    ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        f"{median(ours):7.1f} ms (bound {bound}), SQLite {median(theirs):7.1f} ms, ratio {ratio:5.2f}, "
        f"{len(rows):>9,} pass: {condition}"
    )


def fill(store: Store, items: int) -> None:
    rng = random.Random(0)
    store.db.execute("BEGIN")
    store.db.execute("INSERT INTO sources VALUES (1, 'folder', '/photos', '{}')")
    contents = ((id, id.to_bytes(32, "big"), json.dumps(facts(rng))) for id in range(1, items + 1))
    store.db.executemany("INSERT INTO contents (id, sha256, facts) VALUES (?, ?, ?)", contents)
    rows = ((id, f"{id % 1000}/{id}.jpg", id, json.dumps(metadata(rng, id))) for id in range(1, items + 1))
    store.db.executemany(
        "INSERT INTO items (id, source, key, content, metadata) VALUES (?, 1, ?, ?, ?)", rows
    )
    store.db.execute("COMMIT")


def facts(rng: random.Random) -> dict[str, object]:
    day = f"20{rng.randrange(10, 26)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
    return {
        "width": rng.randrange(100, 9000),
        "height": rng.randrange(100, 9000),
        "format": "JPEG",
        "taken": f"{day}T{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}",
        "camera": f"Camera {rng.randrange(40)}",
        "latitude": round(rng.uniform(33, 39), 7),
        "longitude": round(rng.uniform(124, 130), 7),
    }


def metadata(rng: random.Random, id: int) -> dict[str, object]:
    caption = " ".join([*rng.choices(WORDS, k=7), str(id)])
    return {"caption": caption, "tags": rng.sample(WORDS, 2), "rating": id % 6}


def peer(store: Store) -> sqlite3.Connection:
    """The same values in a table of SQLite's own."""
    db = sqlite3.connect(":memory:")
    names = ", ".join(COLUMNS)
    db.execute(f"CREATE TABLE plain (id INTEGER PRIMARY KEY, {names})")
    values = ", ".join(f"json_extract(json_patch(facts, metadata), '$.{name}')" for name in COLUMNS)
    rows = store.db.execute(f"SELECT items.id, {values} FROM items JOIN contents ON contents.id = content")
    db.executemany(f"INSERT INTO plain VALUES (?{', ?' * len(COLUMNS)})", rows)
    return db


def timed(run: Callable[[], object]) -> tuple[object, float]:
    started = time.perf_counter()
    return run(), time.perf_counter() - started


if __name__ == "__main__":
    main()
