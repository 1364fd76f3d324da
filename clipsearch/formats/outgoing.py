"""What leaves a collection: its pictures and their vectors, some thousands at a time."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..captions import captions_of
from ..filters import Selection
from ..sources import restore
from ..store import Space, Store, as_facts, from_sql
from ..types import Embeddings

TOGETHER = 4096  # pictures in memory at a time
PAGE = (
    "SELECT items.id, source, key, content, sha256, facts, metadata FROM items"
    " JOIN contents ON contents.id = content WHERE items.id > ? AND NOT missing ORDER BY items.id LIMIT ?"
)


class Picture(NamedTuple):
    """One picture that leaves."""

    id: int
    path: str
    key: str
    source: str  # root of its source
    sha256: str  # of its content, in hex
    metadata: dict[str, Any]


class Block(NamedTuple):
    """Some pictures."""

    pictures: list[Picture]  # n
    vectors: Embeddings  # (n, dim) of the whole pictures, as stored


class Outgoing:
    """The present pictures that have a vector in a space, in order of their ids.

    Each item is one, also where several show the same content. Vectors are those of the moment when
    this was made; what is removed meanwhile may or may not be among them.
    """

    def __init__(self, store: Store, space: Space, only: Selection | None = None, bar: Any = None) -> None:
        """Take what passes `only`; a progress bar is told of every block."""
        self.space = space
        self._store, self._only, self._bar = store, only, bar
        self._snapshot = store.snapshot(space)
        # Of a content's rows the first is the whole picture.
        self._contents, self._rows = np.unique(self._snapshot.contents, return_index=True)
        self._sources = {row.id: restore(row.kind, row.root, row.options) for row in store.sources()}

    @cached_property
    def total(self) -> int:
        """How many there are."""
        return sum(map(len, self._pages()))

    def metadata(self) -> Iterator[dict[str, Any]]:
        """All that is known of each picture."""
        return (known for page in self._pages() for known in self._known(page))

    def blocks(self) -> Iterator[Block]:
        """The pictures with their vectors."""
        for page in self._pages():
            yield self._block(page)
            if self._bar is not None:
                self._bar.update(len(page))

    def _pages(self) -> Iterator[list[tuple[Any, ...]]]:
        last = 0
        while rows := self._store.rows(PAGE, (last, TOGETHER)):
            last = rows[-1][0]
            if page := [row for row in rows if self._passes(row)]:
                yield page

    def _passes(self, row: tuple[Any, ...]) -> bool:
        place = int(np.searchsorted(self._contents, row[3]))
        has_vector = place < len(self._contents) and self._contents[place] == row[3]
        # A source that was added since may be unknown here: its pictures came later, too.
        return bool(has_vector) and row[1] in self._sources and (self._only is None or self._only.has(row[0]))

    def _known(self, page: list[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
        captions = captions_of(self._store, [row[3] for row in page])
        for row in page:
            known = as_facts(row[5]) | as_facts(row[6])
            yield {"caption": captions[row[3]], **known} if row[3] in captions else known

    def _block(self, page: list[tuple[Any, ...]]) -> Block:
        contents = np.array([row[3] for row in page], np.int64)
        vectors = self._snapshot.vectors(self._rows[np.searchsorted(self._contents, contents)])
        rows = zip(page, self._known(page), strict=True)
        return Block([self._picture(row, known) for row, known in rows], vectors)

    def _picture(self, row: tuple[Any, ...], known: dict[str, Any]) -> Picture:
        id, source, key, _, sha256, *_ = row
        where, name = self._sources[source], from_sql(key)
        return Picture(id, where.path(name), name, where.root, sha256.hex(), known)
