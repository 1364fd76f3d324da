"""Upkeep: is everything what was written (verify), and is anything kept that nobody needs (compact)."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import ClipsearchError, CollectionError, DamagedError
from .segments import ROW, digest_of, open_segment, segment_paths
from .store import DATABASE, DESCRIPTION, SEAL, Space, Store
from .writer import Writer, leftovers, writing

SEGMENT_BYTES = 128 << 20  # vectors in one file after compaction
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
            before, found = store.generation(), _verify(store)
            if found.ok or store.generation() == before:
                return found  # else it was written meanwhile: what looked wrong may only have been replaced
    except CollectionError as error:
        return Verification(problems=[str(error)])


def _verify(store: Store) -> Verification:
    found = Verification()
    _verify_seal(store, found)
    try:
        _verify_database(store, found)
        for space in store.spaces():
            _verify_space(store, space, found)
        if left := len(leftovers(store)):
            found.notes.append(f"{left} files are of no commit; the next writer removes them")
    except Exception as error:  # where damaged values lead, nobody can list
        found.problems.append(f"{DATABASE} cannot be read: {error}")
    return found


def _verify_seal(store: Store, found: Verification) -> None:
    try:
        text = (store.path / SEAL).read_bytes()
    except FileNotFoundError:
        found.notes.append(f"the last writer did not finish: {DATABASE} is checked for structure only")
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
    seen = [np.empty(0, np.int64)]
    query = "SELECT id, rows, vectors_sha256, rows_sha256 FROM segments WHERE space = ?"
    for number, rows, *digests in store.rows(query, (space.id,)):
        paths = segment_paths(store.folder(space), number)
        found.files += len(paths)
        problems = [problem for problem in map(_verify_file, paths, digests) if problem]
        if not problems:
            contents, problems = _verify_rows(store, space, number, rows)
            seen.append(contents)
            found.vectors += rows
        found.problems += problems
    contents = np.concatenate(seen)
    if len(np.unique(contents)) != len(contents):
        found.problems.append(f"{space.folder} has two vectors for one content")
    known = np.array(store.rows("SELECT id, shown > 0 FROM contents"), np.int64).reshape(-1, 2)
    if strangers := len(np.setdiff1d(contents, known[:, 0])):
        found.problems.append(f"{space.folder} has {strangers} vectors of contents that do not exist")
    if waiting := len(np.setdiff1d(known[known[:, 1] == 1, 0], contents)):
        found.notes.append(f"{waiting} pictures have no vector in {space.folder} yet; add their source again")


def _verify_file(path: Path, digest: str) -> str | None:
    try:
        return None if digest_of(path) == digest else f"{path.name} is not what was written"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"


def _verify_rows(
    store: Store, space: Space, number: int, rows: int
) -> tuple[npt.NDArray[np.int64], list[str]]:
    try:
        segment = open_segment(store.folder(space), number, rows=rows, dim=space.dim)
    except (ClipsearchError, OSError) as error:
        return np.empty(0, np.int64), [str(error)]
    for start in range(0, rows, 4096):
        part = segment.vectors[start : start + 4096].astype(np.float32)
        if not (np.abs(np.linalg.norm(part, axis=1) - 1) < UNIT).all():
            return segment.contents, [f"{number:06d}.npy has rows that are not of unit length"]
    return segment.contents, []


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
            counts = [_compact_space(writer, space, orphans) for space in store.spaces()]
            db.execute(f"DELETE FROM contents WHERE id IN ({ORPHANS})")
        writer.sweep()
        with suppress(sqlite3.OperationalError):  # no room for a copy of the database: it stays as it is
            store.db.execute("VACUUM")
    old, new, dropped = (sum(part) for part in zip(*counts, strict=True)) if counts else (0, 0, 0)
    return Compaction(old, new, dropped, before - _bytes(store))


ORPHANS = "SELECT id FROM contents WHERE id NOT IN (SELECT content FROM items WHERE content NOT NULL)"


def _compact_space(writer: Writer, space: Space, orphans: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    """Segments before, segments after, vectors dropped."""
    store = writer.store
    query = "SELECT id, rows, vectors_sha256, rows_sha256 FROM segments WHERE space = ? ORDER BY id"
    old = store.rows(query, (space.id,))
    kept = after = 0
    for rows, vectors in _regroup(store, space, old, orphans):
        writer.append_rows(space, rows, vectors)
        kept, after = kept + len(rows), after + 1
    store.db.executemany("DELETE FROM segments WHERE id = ?", [(number,) for number, *_ in old])
    return len(old), after, sum(rows for _, rows, *_ in old) - kept


def _regroup(
    store: Store, space: Space, old: list[tuple[int, int, str, str]], orphans: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.float16]]]:
    """The rows worth keeping, in order, in groups of about SEGMENT_BYTES."""
    full = max(1, SEGMENT_BYTES // (2 * space.dim))  # rows
    rows, vectors = np.empty(0, ROW), np.empty((0, space.dim), np.float16)
    for number, count, *digests in old:
        paths = segment_paths(store.folder(space), number)
        if problems := [problem for problem in map(_verify_file, paths, digests) if problem]:
            raise DamagedError(f"{problems[0]}; run `clipsearch verify`")  # new digests would hide it
        segment = open_segment(store.folder(space), number, rows=count, dim=space.dim)
        table = np.load(paths[1], allow_pickle=False)
        keep = ~np.isin(segment.contents, orphans)
        rows, vectors = np.concatenate([rows, table[keep]]), np.concatenate([vectors, segment.vectors[keep]])
        while len(rows) >= full:
            yield rows[:full], vectors[:full]
            rows, vectors = rows[full:], vectors[full:]
    if len(rows):
        yield rows, vectors


def _bytes(store: Store) -> int:
    return sum(path.stat().st_size for path in store.path.rglob("*") if path.is_file())
