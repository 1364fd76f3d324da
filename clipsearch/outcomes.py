"""What becomes of each picture, decided and recorded in one transaction."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .report import Failure, Report
from .segments import Box
from .sources import ListSource
from .store import ItemRow, Space, to_sql
from .tiles import boxes_of
from .types import Embeddings, Item, Source
from .writer import Writer

GONE = ("imported", "(gone)")  # kind and root of the source of imported pictures whose files are not there
LISTED = (ListSource.kind, ListSource.root)
SILENT = (GONE, LISTED)  # sources that tell nothing of their pictures


@dataclass(slots=True)
class Loaded:
    """One picture on its way: what the threads found out about it."""

    item: Item
    sha256: bytes = b""
    facts: dict[str, Any] = field(default_factory=dict)
    metadata: str = "{}"  # JSON
    prepared: list[Any] | None = None  # the whole, then its tiles; None: it failed, or has all its vectors
    vectors: Embeddings | None = None  # (n, dim) of the same
    failure: str | None = None
    cause: Exception | None = None  # of the failure


class Outcomes:
    """Commits pictures that went through the pipeline, and counts what became of them."""

    def __init__(self, writer: Writer, space: Space, source: Source, report: Report) -> None:
        self.writer, self.store, self.space = writer, writer.store, space
        self.source, self.report = source, report
        self.source_id = writer.add_source(source.kind, source.root, source.options)
        self._kinds = {row.id: (row.kind, row.root) for row in self.store.sources()}
        self.before = self.store.last_item()  # of those above it nobody says yet that they moved
        # Of every picture: the whole and its tiles. Foreign vectors can have none.
        self.parts = boxes_of("" if space.foreign else self.store.tiles())
        snapshot = self.store.snapshot(space)
        self.whole = ContentSet(snapshot.contents)  # which have a vector
        self.encoded = ContentSet(snapshot.having(len(self.parts)))  # and of all parts
        self.store.db.execute("CREATE TEMP TABLE IF NOT EXISTS seen (key PRIMARY KEY) WITHOUT ROWID")
        self.store.db.execute("DELETE FROM temp.seen")

    def see(self, item: Item) -> ItemRow | None:
        """Note that the source names an item; return what is known of it."""
        self.store.db.execute("INSERT OR IGNORE INTO temp.seen VALUES (?)", (to_sql(item.key),))
        return self.store.known(self.source_id, item.key)

    def commit(self, pending: Sequence[Loaded]) -> None:
        """One transaction for all that is done; counted only once it holds."""
        if not pending:
            return
        started = time.perf_counter()
        contents: list[int] = []
        vectors: list[Embeddings] = []
        boxes: list[Box] = []
        outcomes: list[str] = []
        with self.writer.transaction():
            for loaded in pending:
                content = self._content(loaded)
                outcomes.append(self._place(loaded, content))
                if content is not None and loaded.vectors is not None:
                    new = slice(int(content in self.whole), len(loaded.vectors))  # only the tiles may be
                    vectors.append(loaded.vectors[new])
                    boxes += self.parts[new]
                    contents += [content] * len(vectors[-1])
            if contents:
                self.writer.append(self.space, contents, np.concatenate(vectors), boxes=boxes)
        self.whole.add(contents)
        self.encoded.add(contents)
        for loaded, outcome in zip(pending, outcomes, strict=True):
            self._count(loaded, outcome)
        self.report.writing += time.perf_counter() - started

    def _content(self, loaded: Loaded) -> int | None:
        """The id of its bytes, new ones recorded; None for a picture that failed."""
        known = self.store.content_of(loaded.sha256)
        if loaded.failure:  # a picture whose tiles alone failed stays, as the whole that it was
            return known if known in self.whole and known not in self.encoded else None
        if known is None and loaded.vectors is not None:
            return self.writer.add_content(loaded.sha256, loaded.facts)
        if known is None:
            loaded.failure = "the model failed on another picture with the same bytes"
        return known

    def _place(self, loaded: Loaded, content: int | None) -> str:
        """Put the item where it belongs, and name the outcome."""
        item, known = loaded.item, self.store.known(self.source_id, loaded.item.key)
        unread = isinstance(loaded.cause, OSError)  # nobody knows what its bytes are now, which may pass
        if unread and known and known.content is not None:
            return self._keep(known, loaded)
        stamp = None if unread else item.stamp  # permissions change without the stamp: try again
        failure = loaded.failure if content is None else None
        others = self.store.items_showing(content) if known is None and content is not None else []
        moved = self._moved(item, others)
        target = known or moved
        metadata = self._told(target, content, loaded.metadata)
        values = (stamp, content, failure, metadata, self.source_id, to_sql(item.key))
        same = target is not None and metadata == self.store.metadata_of(target.id)
        if target:
            update = "UPDATE items SET stamp = ?, content = ?, failure = ?, metadata = ?, missing = 0"
            self.store.db.execute(f"{update}, source = ?, key = ? WHERE id = ?", (*values, target.id))
        else:
            insert = "INSERT INTO items (stamp, content, failure, metadata, source, key) VALUES (?,?,?,?,?,?)"
            self.store.db.execute(insert, values)
        if loaded.failure:
            return "failed"
        if known and known.content == content:
            return "unchanged" if same else "retold"
        return "updated" if known else "moved" if moved else "same_content" if others else "added"

    def _told(self, target: ItemRow | None, content: int | None, metadata: str) -> str:
        """What is known of a picture: lists tell nothing, so what an import told stays beside what comes."""
        if target is None or target.content != content or self._kinds.get(target.source) not in SILENT:
            return metadata
        return json.dumps({**json.loads(self.store.metadata_of(target.id)), **json.loads(metadata)})

    def _keep(self, known: ItemRow, loaded: Loaded) -> str:
        """Keep the vector of a picture that cannot be read now; hide it if its file is gone."""
        if not isinstance(loaded.cause, FileNotFoundError):
            return "failed"
        self.store.db.execute("UPDATE items SET missing = 1 WHERE id = ?", (known.id,))
        return "missing"

    def _moved(self, item: Item, others: Sequence[ItemRow]) -> ItemRow | None:
        """Which of the items with its bytes a new one is: the one at its place before any other."""
        gone = [other for other in others if self._gone(other) or self._same_file(other, item)]
        return next((other for other in gone if self._at(other) == self.source.path(item.key)), None) or next(
            iter(gone), None
        )

    def _gone(self, other: ItemRow) -> bool:
        """Whether an item is no longer there, so that its bytes under another name have moved."""
        if other.source == self.source_id:
            return self.source.item(other.key) is None if self.source.lists_all else other.missing
        return other.missing or (self._kinds.get(other.source) == GONE and other.id <= self.before)

    def _same_file(self, other: ItemRow, item: Item) -> bool:
        """Whether an item is the very file, named in a list, which now comes with its folder."""
        return self._kinds.get(other.source) == LISTED and self._at(other) == self.source.path(item.key)

    def _at(self, other: ItemRow) -> str:
        """The path of a listed item or of one that is gone."""
        return ListSource().path(other.key) if self._kinds.get(other.source) == LISTED else other.key

    def _count(self, loaded: Loaded, outcome: str) -> None:
        if outcome == "failed":
            self.fail(loaded.item, loaded.failure or "")
        elif outcome == "retold":
            self.report.unchanged += 1
            self.report.new_metadata += 1
        else:
            setattr(self.report, outcome, getattr(self.report, outcome) + 1)

    def fail(self, item: Item, reason: str) -> None:
        """Count a picture as failed."""
        self.report.failed.append(Failure(self.source.path(item.key), reason))

    def mark_missing(self) -> None:
        """Hide the items that a full listing no longer names; forget those that had failed."""
        if not self.source.lists_all:  # asked after the listing: a folder in it may have been unreadable
            return
        gone = "FROM items WHERE source = ? AND NOT missing AND key NOT IN (SELECT key FROM temp.seen)"
        if not self.store.db.execute(f"SELECT 1 {gone}", (self.source_id,)).fetchone():
            return
        with self.writer.transaction() as db:
            db.execute(f"DELETE {gone} AND failure NOT NULL", (self.source_id,))
            hide = f"UPDATE items SET missing = 1 WHERE id IN (SELECT id {gone})"
            self.report.missing += db.execute(hide, (self.source_id,)).rowcount


class ContentSet:
    """A set of content ids, one byte each: ten million take 10 MB."""

    def __init__(self, contents: npt.NDArray[np.int64]) -> None:
        self._flags = np.zeros(int(contents.max(initial=0)) + 1, np.bool_)
        self._flags[contents] = True

    def __contains__(self, content: int | None) -> bool:
        return content is not None and content < len(self._flags) and bool(self._flags[content])

    def __bool__(self) -> bool:
        return bool(self._flags.any())

    def add(self, contents: Sequence[int]) -> None:
        """Put some ids in."""
        needed = max(contents, default=0) + 1
        if needed > len(self._flags):
            self._flags = np.concatenate([self._flags, np.zeros(needed, np.bool_)])  # at least doubled
        self._flags[list(contents)] = True
