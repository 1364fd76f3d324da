"""What a collection knows, as a reader sees it: items in SQLite, vectors in segments.

A reader takes generation, segments and hidden contents in one short transaction and keeps that
snapshot, whatever a writer does meanwhile. writer.py is the other half.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .database import Connection, Database, make_database
from .errors import CollectionError, DamagedError
from .files import TEMPORARY, make_folder, write_durably, write_lock
from .segments import Box, Segment, SegmentRow, open_segment
from .types import FOREIGN, Embeddings

FORMAT = 1
DESCRIPTION, DATABASE, SEAL, LOCK = "collection.json", "items.sqlite", "seal.json", "write.lock"
KEYS_PER_QUERY = 500  # SQLite's limit on parameters is 999 in old builds


class SourceRow(NamedTuple):
    """A source as the collection keeps it."""

    id: int
    kind: str
    root: str
    options: dict[str, Any]


class Space(NamedTuple):
    """One encoder's vectors in a collection."""

    id: int
    folder: str
    model: str
    fingerprint: str
    dim: int
    live: bool

    @property
    def foreign(self) -> bool:
        """Whether another program made the vectors: they are of the same model, and not quite ours."""
        return self.model.startswith(FOREIGN)


class ItemRow(NamedTuple):
    """An item as the collection keeps it; exactly one of content and failure is None."""

    id: int
    source: int
    key: str
    stamp: str | None
    content: int | None
    failure: str | None
    missing: bool


@dataclass(frozen=True)
class Snapshot:
    """A space at one moment: what a reader searches, unchanged whatever a writer does."""

    generation: int
    space: Space
    segments: tuple[Segment, ...]
    hidden: npt.NDArray[np.int64]  # content ids that no present item shows

    def __len__(self) -> int:
        return sum(len(segment.contents) for segment in self.segments)

    @cached_property
    def contents(self) -> npt.NDArray[np.int64]:
        """(N,) content id of each row."""
        return np.concatenate([np.empty(0, np.int64), *(s.contents for s in self.segments)])

    @cached_property
    def shown(self) -> npt.NDArray[np.bool_] | None:
        """(N,) whether each row may be found; None: all may."""
        shown = ~np.isin(self.contents, self.hidden) if len(self.hidden) else None
        return None if shown is None or shown.all() else shown

    @property
    def rows_each(self) -> int:
        """How many rows the content with the most of them has; at least 1."""
        return len(self._sizes) - 1

    def rows_of_any(self, count: int) -> int:
        """How many rows `count` contents have at most: so many rows are of no fewer contents."""
        taken = np.minimum(np.cumsum(self._sizes[::-1]), count)  # contents, those with most rows first
        return int(np.diff(taken, prepend=0) @ np.arange(len(self._sizes))[::-1])

    def having(self, rows: int) -> npt.NDArray[np.int64]:
        """The contents that have at least so many rows, ascending."""
        contents, counts = np.unique(self.contents, return_counts=True)
        return contents[counts >= rows]

    @cached_property
    def _sizes(self) -> npt.NDArray[np.int64]:
        """How many contents have 0, 1, 2, … rows."""
        if (np.diff(self.contents) > 0).all():  # quicker than counting, and usual
            return np.array([0, len(self)])
        return np.bincount(np.unique(self.contents, return_counts=True)[1], minlength=2)

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        """(segments + 1,) the first row of each segment, and the number of rows."""
        return np.cumsum([0, *(len(segment.contents) for segment in self.segments)])

    def vectors(self, rows: npt.NDArray[np.int64]) -> Embeddings:
        """The stored vectors of some rows, float32 (n, dim), in order."""
        out = np.empty((len(rows), self.space.dim), np.float32)
        segments = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(segments):
            here = segments == number
            out[here] = self.segments[number].vectors[rows[here] - self._starts[number]]
        return out

    def boxes(self, rows: npt.NDArray[np.int64]) -> list[Box]:
        """Which part of its picture each of some rows is."""
        segments = np.searchsorted(self._starts, rows, side="right") - 1
        places = rows - self._starts[segments]
        return [self.segments[s].box(int(place)) for s, place in zip(segments, places, strict=True)]


class Store:
    """An open collection folder, for reading. May be used from several threads."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the collection at `path`.

        Raises:
            CollectionError: there is none, or it is of a format this version does not read.
            DamagedError: its database cannot be read.
        """
        self.path = path
        self.read_only = read_only
        _check_format(path)
        self.database = Database(path / DATABASE, read_only=read_only)
        self.rows = self.database.rows
        try:
            self.generation()
        except CollectionError:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path) -> "Store":
        """Make an empty collection: collection.json comes last, so that its presence means complete.

        Raises:
            CollectionError: the folder holds other things, or cannot be made or written.
            LockedError: another process is making it.
        """
        refuse_other_things(path)
        make_folder(path)
        with write_lock(path / LOCK):
            if not (path / DESCRIPTION).exists():
                make_database(path / DATABASE)
                about = {"format": FORMAT, "clipsearch": version("clipsearch"), "created": _now()}
                write_durably(path / DESCRIPTION, lambda file: file.write(json.dumps(about).encode()))
        return cls(path)

    def close(self) -> None:
        """Close every connection, those of other threads too."""
        self.database.close()

    @property
    def db(self) -> Connection:
        """This thread's connection, for the one who may write: `writing` holds it."""
        return self.database.connection

    def generation(self) -> int:
        """Grows with every commit: equal means that nothing has changed."""
        match self.rows("SELECT generation FROM state"):
            case [(int(generation),)]:
                return generation
        raise DamagedError(f"{self.path / DATABASE} has lost its state; run `clipsearch verify`")

    def spaces(self) -> list[Space]:
        """Every space, oldest first."""
        rows = self.rows("SELECT id, folder, model, fingerprint, dim, live FROM spaces ORDER BY id")
        return [
            Space(id, folder, model, fingerprint, dim, bool(live))
            for id, folder, model, fingerprint, dim, live in rows
        ]

    def sources(self) -> list[SourceRow]:
        """Every source, oldest first."""
        rows = self.rows("SELECT id, kind, root, options FROM sources ORDER BY id")
        return [SourceRow(id, kind, from_sql(root), as_facts(options)) for id, kind, root, options in rows]

    def tiles(self) -> str:
        """The grids of tiles that every picture is given, such as "2x2+3x3"; "" is none."""
        if not self.rows("SELECT 1 FROM sqlite_master WHERE name = 'tiles'"):
            return ""
        return "".join(grids for (grids,) in self.rows("SELECT grids FROM tiles"))

    def snapshot(self, space: Space) -> Snapshot:
        """The space as it is now, its segments mapped into memory."""
        while True:
            generation, rows, hidden = self._read_state(space)
            try:
                segments = tuple(
                    open_segment(self.folder(space), row.number, rows=row.rows, dim=space.dim) for row in rows
                )
                return Snapshot(generation, space, segments, np.array(hidden, np.int64))
            except FileNotFoundError as error:  # compacted between the two steps: look again
                if self.generation() == generation:
                    raise DamagedError(f"{error.filename} is gone; run `clipsearch verify`") from error

    def _read_state(self, space: Space) -> tuple[int, list[SegmentRow], list[int]]:
        with self.reading() as generation:
            segments = self.segments(space)
            hidden = self.rows("SELECT id FROM contents WHERE shown = 0")
        return generation, segments, [content for (content,) in hidden]

    @contextmanager
    def reading(self) -> Iterator[int]:
        """Let everything that this thread reads inside be of one moment; yields its generation."""
        with self.database.held() as db:
            db.execute("BEGIN")
            try:
                yield self.generation()
            finally:
                db.rollback()  # nothing was written: this only lets go

    def segments(self, space: Space) -> list[SegmentRow]:
        """A space's segments, in the order of its rows."""
        query = "SELECT id, rows, vectors_sha256, rows_sha256 FROM segments WHERE space = ? ORDER BY id"
        return [SegmentRow(*row) for row in self.rows(query, (space.id,))]

    def folder(self, space: Space) -> Path:
        """Where a space's segments are."""
        return self.path / "vectors" / space.folder

    def items_of(self, contents: Sequence[int]) -> dict[int, list[tuple[ItemRow, dict[str, Any]]]]:
        """The present items that show each of some contents, oldest first, with all that is known of them."""
        found: dict[int, list[tuple[ItemRow, dict[str, Any]]]] = {content: [] for content in contents}
        for part in parts_of(contents):
            for *row, metadata, facts in self.rows(
                f"SELECT {ITEM}, metadata, facts FROM items JOIN contents ON contents.id = content "
                f"WHERE content IN ({marks(part)}) AND NOT missing ORDER BY items.id",
                part,
            ):
                item = _item(row)
                found[item.content or 0].append((item, as_facts(facts) | as_facts(metadata)))
        return found

    def known(self, source: int, key: str) -> ItemRow | None:
        """The item of a source that bears this key, or None."""
        query = f"SELECT {ITEM} FROM items WHERE source = ? AND key = ?"
        found = self.rows(query, (source, to_sql(key)))
        return _item(found[0]) if found else None

    def content_of(self, sha256: bytes) -> int | None:
        """The content of these bytes, or None."""
        found = self.rows("SELECT id FROM contents WHERE sha256 = ?", (sha256,))
        return found[0][0] if found else None

    def sha256s(self, contents: Sequence[int]) -> dict[int, bytes]:
        """The digest of each of some contents."""
        found: dict[int, bytes] = {}
        for part in parts_of(contents):
            found |= dict(self.rows(f"SELECT id, sha256 FROM contents WHERE id IN ({marks(part)})", part))
        return found

    def sha256s_of_items(self, items: Sequence[int]) -> dict[int, bytes]:
        """The digest of the content of each of some items that has one."""
        query = "SELECT items.id, sha256 FROM items JOIN contents ON contents.id = content WHERE items.id IN "
        found: dict[int, bytes] = {}
        for part in parts_of(items):
            found |= dict(self.rows(f"{query} ({marks(part)})", part))
        return found

    def items_showing(self, content: int) -> list[ItemRow]:
        """Every item of a content, missing ones too, oldest first."""
        return [
            _item(row)
            for row in self.rows(f"SELECT {ITEM} FROM items WHERE content = ? ORDER BY id", (content,))
        ]

    def item(self, id: int) -> ItemRow | None:
        """The item of that id, or None."""
        found = self.rows(f"SELECT {ITEM} FROM items WHERE id = ?", (id,))
        return _item(found[0]) if found else None

    def last_item(self) -> int:
        """The highest id of an item; 0: there is none."""
        [(last,)] = self.rows("SELECT coalesce(max(id), 0) FROM items")
        return int(last)

    def metadata_of(self, id: int) -> str:
        """What is known of an item beside its file's facts, as JSON."""
        [(metadata,)] = self.rows("SELECT metadata FROM items WHERE id = ?", (id,))
        return str(metadata)

    def items(self, *, failed: bool | None = None) -> Iterator[ItemRow]:
        """Every item in order of its id, missing ones too; only (or no) failed ones if asked."""
        condition = {None: "1", True: "failure NOT NULL", False: "failure IS NULL"}[failed]
        last = 0
        while rows := self.rows(
            f"SELECT {ITEM} FROM items WHERE id > ? AND {condition} ORDER BY id LIMIT 1000", (last,)
        ):
            yield from map(_item, rows)
            last = rows[-1][0]

    def counts(self) -> dict[str, int]:
        """How many items are shown, failed and missing, and how many contents are shown."""
        [(shown, failed, missing)] = self.rows(
            "SELECT coalesce(sum(content NOT NULL AND NOT missing), 0),"
            " coalesce(sum(failure NOT NULL AND NOT missing), 0), coalesce(sum(missing), 0) FROM items"
        )
        [(contents,)] = self.rows("SELECT count(*) FROM contents WHERE shown > 0")
        return {"pictures": shown, "failed": failed, "missing": missing, "contents": contents}


ITEM = "items.id, source, key, stamp, content, failure, missing"


def _item(row: Sequence[Any]) -> ItemRow:
    id, source, key, stamp, content, failure, missing = row
    return ItemRow(id, source, from_sql(key), stamp, content, failure, bool(missing))


def as_facts(text: str) -> dict[str, Any]:
    """What a column of JSON says."""
    try:
        facts: dict[str, Any] = json.loads(text)
        return facts
    except (ValueError, TypeError) as error:
        raise DamagedError(f"{DATABASE} is damaged ({error}); run `clipsearch verify`") from error


def to_sql(name: str) -> str | bytes:
    """A name for the database: text, or bytes where it is not Unicode (SQLite refuses lone surrogates)."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass")


def from_sql(name: str | bytes) -> str:
    """The name that `to_sql` was given."""
    return name if isinstance(name, str) else name.decode("utf-8", "surrogatepass")


def is_collection(path: Path) -> bool:
    """Whether a collection was made at `path`."""
    return (path / DESCRIPTION).is_file()


def refuse_other_things(path: Path) -> None:
    """Raise CollectionError unless `path` is absent, empty, a collection or one that was half made."""
    try:
        if path.is_dir() and not (is_collection(path) or _left_half_made(path)):
            raise CollectionError(f"{path} is a folder of other things, not a collection; name a new folder")
    except OSError as error:
        raise CollectionError(f"cannot make a collection at {path}: {error.strerror}") from error


def _check_format(path: Path) -> None:
    try:
        about = json.loads((path / DESCRIPTION).read_bytes())
        found = about["format"]
    except FileNotFoundError as error:
        raise CollectionError(f"no collection at {path}; make one with `clipsearch index`") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path / DESCRIPTION} cannot be read: {error!r}") from error
    if found != FORMAT:
        raise CollectionError(
            f"{path} has format {found!r}, and this version reads {FORMAT}: "
            "pip install -U clipsearch, or index the pictures again"
        )


def _left_half_made(path: Path) -> bool:
    """Whether the folder is empty, or as far as a crash let `create` come."""
    begun = {LOCK, DATABASE, f"{DATABASE}-journal", DESCRIPTION, DESCRIPTION + TEMPORARY}
    return {entry.name for entry in path.iterdir()} <= begun


def parts_of(values: Sequence[Any]) -> Iterator[list[Any]]:
    """Values in parts that one query takes."""
    for start in range(0, len(values), KEYS_PER_QUERY):
        yield list(values[start : start + KEYS_PER_QUERY])


def marks(values: Sequence[Any]) -> str:
    """A question mark for each, as a query's IN wants them."""
    return ",".join("?" * len(values))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
