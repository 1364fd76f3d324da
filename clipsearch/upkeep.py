"""Upkeep: is everything what was written (verify), and is anything kept that nobody needs (compact)."""

import json
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .captions import caption_spaces
from .errors import ClipsearchError, CollectionError
from .index import damage as damage_of_index
from .index import described_wrong, folder_of, published_at, read_about, read_wish
from .segments import SegmentRow, damage, digest_of, open_segment, row_table
from .spec import AUTO, EXACT
from .store import DATABASE, DESCRIPTION, SEAL, Space, Store
from .tiles import boxes_of
from .writer import leftovers, writing

ORPHANS = "SELECT id FROM contents WHERE id NOT IN (SELECT content FROM items WHERE content NOT NULL)"
UNIT = 1e-2  # how far a float16 row's length may be from 1


@dataclass
class Verification:
    """What `verify` found; `ok` when nothing is wrong."""

    files: int = 0
    vectors: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # not wrong, but good to know

    @property
    def ok(self) -> bool:
        """Whether every byte and count is what was written."""
        return not self.problems


class Compaction(NamedTuple):
    """What `compact` did."""

    segments_before: int
    segments_after: int
    vectors_dropped: int
    bytes_freed: int


def verify(store: Store) -> Verification:
    """Read a whole collection and compare it with its digests and counts."""
    try:
        while True:
            before, found = _now(store), _verify(store)
            if found.ok or _now(store) == before:
                return found  # else it was written meanwhile: what looked wrong may only have been replaced
    except CollectionError as error:
        return Verification(problems=[str(error)])


def _now(store: Store) -> object:
    """Changes with every commit, and whenever an index is published."""
    return store.generation(), [published_at(store, space) for space in store.spaces()]


def _verify(store: Store) -> Verification:
    found = Verification()
    _verify_seal(store, found)
    try:
        _verify_database(store, found)
        for space in store.spaces():
            _verify_space(store, space, found)
            _verify_index(store, space, found)
        if left := len(leftovers(store)):
            found.notes.append(f"{left} files are of no commit; the next writer removes them")
    except Exception as error:  # where damaged values lead, nobody can list
        found.problems.append(f"{DATABASE} cannot be read: {error}")
    return found


def _verify_seal(store: Store, found: Verification) -> None:
    try:
        text = (store.path / SEAL).read_bytes()
    except FileNotFoundError:
        found.notes.append(
            f"{DATABASE} has no seal (its last writer was stopped, or none wrote): its structure is checked"
        )
        return
    try:
        sealed: dict[str, str] = json.loads(text)
        digests = {DATABASE: store.database.digest(), DESCRIPTION: digest_of(store.path / DESCRIPTION)}
        found.files += len(digests)
        found.problems += [
            f"{name} is not what was written" for name, digest in digests.items() if sealed[name] != digest
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        found.problems.append(f"{SEAL} cannot be read: {error!r}")


def _verify_database(store: Store, found: Verification) -> None:
    checks = [text for (text,) in store.rows("PRAGMA integrity_check") if text != "ok"]
    checks += [
        f"row {row} of {table} points nowhere" for table, row, *_ in store.rows("PRAGMA foreign_key_check")
    ]
    [(wrong,)] = store.rows(
        "SELECT count(*) FROM contents WHERE shown !="
        " (SELECT count(*) FROM items WHERE content = contents.id AND NOT missing)"
    )
    if wrong:
        checks.append(f"{wrong} contents count their items wrong")
    found.problems += [f"{DATABASE}: {check}" for check in checks]


def _verify_space(store: Store, space: Space, found: Verification) -> None:
    tables = [row_table([])]
    for segment in store.segments(space):
        found.files += 2
        problems = damage(store.folder(space), segment)
        if not problems:
            table, problems = _verify_rows(store, space, segment.number, segment.rows)
            tables.append(table)
            found.vectors += segment.rows
        found.problems += problems
    table = np.concatenate(tables)
    contents, counts = np.unique(table["content"], return_counts=True)
    again = table[np.isin(table["content"], contents[counts > 1])]
    if len(np.unique(np.column_stack([again["content"], again["box"]]), axis=0)) != len(again):
        found.problems.append(f"{space.folder} has two vectors for one content")
    known = np.array(store.rows("SELECT id, shown > 0 FROM contents"), np.int64).reshape(-1, 2)
    if strangers := len(np.setdiff1d(contents, known[:, 0])):
        found.problems.append(f"{space.folder} has {strangers} vectors of contents that do not exist")
    waiting = len(np.setdiff1d(known[known[:, 1] == 1, 0], contents))
    if waiting and space.id not in caption_spaces(store):
        found.notes.append(f"{waiting} pictures have no vector in {space.folder} yet; add their source again")
    parts = 1 if space.foreign or space.id in caption_spaces(store) else len(boxes_of(store.tiles()))
    shown = np.isin(contents, known[known[:, 1] == 1, 0])
    if untiled := np.count_nonzero(counts[shown] < parts):
        found.notes.append(f"{untiled} pictures have no tiles in {space.folder} yet; add their source again")


def _verify_index(store: Store, space: Space, found: Verification) -> None:
    wrong = described_wrong(store, space)
    about = None if wrong else read_about(store, space)
    problems = [wrong] if wrong else damage_of_index(folder_of(store, space), about) if about else []
    found.files += 2 + len(about.digests) if about else 0
    if not about and not wrong and (layout := read_wish(store, space).layout) not in (AUTO, EXACT):
        found.notes.append(f"the index {layout} of {space.folder} is gone; `clipsearch index` builds it anew")
    found.problems += [f"{problem}; `clipsearch index` builds it anew" for problem in problems]


def _verify_rows(store: Store, space: Space, number: int, rows: int) -> tuple[npt.NDArray[Any], list[str]]:
    try:
        segment = open_segment(store.folder(space), number, rows=rows, dim=space.dim)
    except (ClipsearchError, OSError) as error:
        return row_table([]), [str(error)]
    table = row_table(segment.contents, segment.boxes)
    for start in range(0, rows, 4096):
        part = segment.vectors[start : start + 4096].astype(np.float32)
        if not (np.abs(np.linalg.norm(part, axis=1) - 1) < UNIT).all():
            return table, [f"{number:06d}.npy has rows that are not of unit length"]
    return table, []


def compact(store: Store) -> Compaction:
    """Rewrite the vectors in few large files, without those of contents that no item has.

    Missing items keep theirs: they may come back. Readers keep what they have open.

    Raises:
        DamagedError: a file is not what was written; nothing was changed.
        LockedError: another process is writing.
        CollectionError: the disk is full or the folder cannot be written.
    """
    before = _bytes(store)
    with writing(store) as writer:
        with writer.transaction() as db:
            orphans = np.array(store.rows(ORPHANS), np.int64).reshape(-1)
            old = _segments(store)
            for space in store.spaces():
                writer.rewrite(space, store.segments(space), without=orphans)
            db.execute(f"DELETE FROM contents WHERE id IN ({ORPHANS})")
        writer.sweep()
        new = _segments(store)
        with suppress(sqlite3.OperationalError):  # no room for a copy of the database: it stays as it is
            store.db.execute("VACUUM")
    dropped = sum(segment.rows for segment in old) - sum(segment.rows for segment in new)
    return Compaction(len(old), len(new), dropped, before - _bytes(store))


def _segments(store: Store) -> list[SegmentRow]:
    return [segment for space in store.spaces() for segment in store.segments(space)]


def _bytes(store: Store) -> int:
    return sum(map(_size, store.path.rglob("*")))


def _size(path: Path) -> int:
    with suppress(OSError):  # gone meanwhile: an index is being built
        return path.stat().st_size if path.is_file() else 0
    return 0
