"""Writing to a collection: segments first, then the one transaction that names them.

A segment's files are complete and synced before the commit, so a crash at any instant leaves
either the old collection or the new one; what no commit names is swept by the next writer.
"""

import json
import logging
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .database import explained
from .errors import CollectionError, DamagedError
from .files import TEMPORARY, make_folder, remove_durably, write_durably, write_lock
from .segments import (
    ROW,
    SegmentRow,
    damage,
    digest_of,
    open_segment,
    row_table,
    segment_paths,
    write_segment,
)
from .store import DATABASE, DESCRIPTION, LOCK, SEAL, Space, Store, to_sql
from .types import Embeddings

logger = logging.getLogger("clipsearch")

SEGMENT_BYTES = 128 << 20  # vectors in one large segment
SMALL = 64  # smaller ones at the end of a space before they are made one: each costs a reader a file handle
NOTHING = np.empty(0, np.int64)


@contextmanager
def writing(store: Store) -> Iterator["Writer"]:
    """Hold the one right to write; sweep what a crash left, and seal the database at the end.

    Raises:
        LockedError: another process is writing.
        DamagedError: the database cannot be read.
        CollectionError: the collection was opened read-only, the folder cannot be written or the
            disk is full. What was committed before is safe.
    """
    if store.read_only:
        raise CollectionError(f"{store.path} was opened read-only; open it without read_only to change it")
    # The connection is held, so that a close() in another thread waits for the whole job.
    with write_lock(store.path / LOCK), explained(store.path / DATABASE), store.database.held():
        writer = Writer(store)
        try:
            yield writer
            writer.sweep()
        finally:
            writer.seal()


class Writer:
    """What the holder of the right to write may do.

    `append`, `rewrite`, `add_content` and `insert_space` are for inside a transaction; the others bring
    their own.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: what happens inside is committed at the end, or, on an error, never was."""
        remove_durably(self.store.path / SEAL)
        self.sweep()
        db = self.store.db
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("UPDATE state SET generation = generation + 1")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def add_source(self, kind: str, root: str, options: Mapping[str, Any]) -> int:
        """The id of a source, made when new; its options are the last ones given."""
        for row in self.store.sources():
            if (row.kind, row.root, row.options) == (kind, root, dict(options)):
                return row.id
        with self.transaction() as db:
            row = db.execute(
                "INSERT INTO sources (kind, root, options) VALUES (?1, ?2, ?3)"
                " ON CONFLICT (kind, root) DO UPDATE SET options = ?3 RETURNING id",
                (kind, to_sql(root), json.dumps(dict(options))),
            ).fetchone()
        return int(row[0])

    def add_space(self, *, model: str, fingerprint: str, dim: int) -> Space:
        """Make an empty space; the first one of a collection is live."""
        with self.transaction() as db:
            return self.insert_space(db, model=model, fingerprint=fingerprint, dim=dim)

    def insert_space(self, db: sqlite3.Connection, *, model: str, fingerprint: str, dim: int) -> Space:
        """The same inside a transaction."""
        number = db.execute("SELECT coalesce(max(id), 0) + 1 FROM spaces").fetchone()[0]
        name = re.sub(r"[^a-z0-9]+", "-", model.rsplit("/", 1)[-1].lower()).strip("-")[:40]
        live = not self.store.spaces()
        db.execute(
            "INSERT INTO spaces (folder, model, fingerprint, dim, live) VALUES (?, ?, ?, ?, ?)",
            (f"{number}-{name}", model, fingerprint, dim, live),
        )
        return self.store.spaces()[-1]

    def use_tiles(self, tiles: str) -> None:
        """Let every picture that comes have these tiles (tiles.read_tiles)."""
        with self.transaction() as db:
            db.execute("CREATE TABLE IF NOT EXISTS tiles (grids TEXT NOT NULL)")
            db.execute("DELETE FROM tiles")
            db.execute("INSERT INTO tiles VALUES (?)", (tiles,))

    def append(
        self,
        space: Space,
        contents: npt.ArrayLike,
        embeddings: Embeddings,
        *,
        boxes: npt.ArrayLike | None = None,
    ) -> None:
        """Add a segment: row i of `embeddings` (n, dim) is of contents[i].

        Args:
            space: where to.
            contents: (n,) content ids. A content may have several rows; its first is the whole picture.
            embeddings: float32 (n, dim), unit rows.
            boxes: (n, 4) the part of the picture that each row is (segments.Box); None: all are whole.
        """
        self._append(space, row_table(contents, boxes), embeddings)
        small = _small(self.store.segments(space), space)
        if len(small) > SMALL and not any(damage(self.store.folder(space), segment) for segment in small):
            self.rewrite(space, small)

    def rewrite(
        self, space: Space, old: Sequence[SegmentRow], *, without: npt.NDArray[np.int64] = NOTHING
    ) -> None:
        """Replace segments by few large ones with the same rows in order, less those of some contents.

        Raises:
            DamagedError: a file is not what was written; a new digest would hide it for ever.
        """
        for rows, vectors in _regrouped(self.store, space, old, without):
            self._append(space, rows, vectors)
        gone = [(segment.number,) for segment in old]
        self.store.db.executemany("DELETE FROM segments WHERE id = ?", gone)

    def _append(
        self, space: Space, rows: npt.NDArray[Any], vectors: Embeddings | npt.NDArray[np.float16]
    ) -> None:
        """Add a segment of (n,) ROW and (n, dim) unit vectors; on disk before this returns."""
        db, folder = self.store.db, self.store.folder(space)
        make_folder(folder)
        insert = "INSERT INTO segments (space, rows, vectors_sha256, rows_sha256) VALUES (?, ?, '', '')"
        number = db.execute(insert, (space.id, len(rows))).lastrowid or 0
        digests = write_segment(folder, number, rows, vectors)
        update = "UPDATE segments SET vectors_sha256 = ?, rows_sha256 = ? WHERE id = ?"
        db.execute(update, (*digests, number))

    def add_content(self, sha256: bytes, facts: Mapping[str, Any]) -> int:
        """Record bytes never seen before and return their content id."""
        insert = "INSERT INTO contents (sha256, facts) VALUES (?, ?)"
        return self.store.db.execute(insert, (sha256, json.dumps(dict(facts)))).lastrowid or 0

    def sweep(self) -> None:
        """Delete what no commit names: unfinished files, and segments and spaces that were dropped."""
        for path in leftovers(self.store):
            with suppress(OSError):  # Windows keeps files that a reader has mapped: next time
                path.unlink()
        spaces = {space.folder for space in self.store.spaces()}
        found = [*self.store.path.glob("vectors/*"), *self.store.path.glob("index/*")]
        for folder in [folder for folder in found if folder.name not in spaces]:
            with suppress(OSError):  # not empty, or no folder: somebody else's
                folder.rmdir()

    def seal(self) -> None:
        """Keep the database's digest, so that a byte that flips later is noticed."""
        path = self.store.path
        if (path / SEAL).exists():
            return
        try:
            digests = {DATABASE: self.store.database.digest(), DESCRIPTION: digest_of(path / DESCRIPTION)}
            text = json.dumps(digests, separators=(",", ":"))  # no byte that could change unnoticed
            write_durably(path / SEAL, lambda file: file.write(text.encode()))
        except (CollectionError, OSError) as error:  # all is committed: no reason to fail
            logger.warning("%s is not sealed, so verify will see less: %s", path, error)


def leftovers(store: Store) -> list[Path]:
    """Files of ours that no commit names: unfinished, or of segments and spaces that were dropped."""
    named = {
        path
        for space in store.spaces()
        for segment in store.segments(space)
        for path in segment_paths(store.folder(space), segment.number)
    }
    ours = (f"*{TEMPORARY}", f"vectors/*/*{TEMPORARY}", "vectors/*/*.npy")
    spaces = {space.folder for space in store.spaces()}
    indexes = {path for path in store.path.glob("index/*/*") if path.parent.name not in spaces}
    return sorted({path for pattern in ours for path in store.path.glob(pattern)} - named | indexes)


def _full(space: Space) -> int:
    """How many rows make a large segment."""
    return max(1, SEGMENT_BYTES // (2 * space.dim))


def _small(segments: Sequence[SegmentRow], space: Space) -> list[SegmentRow]:
    """The last segments, as long as they are small: merging them keeps the order of the rows."""
    small = takewhile(lambda segment: segment.rows < _full(space), reversed(segments))
    return list(small)[::-1]


def _regrouped(
    store: Store, space: Space, old: Sequence[SegmentRow], without: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.float16]]]:
    """The rows of segments, less those of some contents, in order and in large groups."""
    folder, full = store.folder(space), _full(space)
    rows, vectors = np.empty(0, ROW), np.empty((0, space.dim), np.float16)
    for segment in old:
        if problems := damage(folder, segment):
            raise DamagedError(f"{folder}: {problems[0]}; run `clipsearch verify`")
        more = open_segment(folder, segment.number, rows=segment.rows, dim=space.dim)
        table = np.load(segment_paths(folder, segment.number)[1], allow_pickle=False)
        keep = ~np.isin(more.contents, without)
        rows, vectors = np.concatenate([rows, table[keep]]), np.concatenate([vectors, more.vectors[keep]])
        while len(rows) >= full:
            yield rows[:full], vectors[:full]
            rows, vectors = rows[full:], vectors[full:]
    if len(rows):
        yield rows, vectors
