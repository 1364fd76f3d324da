"""From query vectors to hits: the index finds rows, the store knows whose they are."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import QueryError, SourceError
from .exact import ExactIndex, Neighbours
from .results import Hit, SearchResults
from .sources import restore
from .store import ItemRow, Space, Store
from .types import Embeddings, Source

if TYPE_CHECKING:
    from PIL.Image import Image


class Searcher:
    """Searches one space of a store as it was when made."""

    def __init__(self, store: Store, space: Space) -> None:
        self._store, self.space = store, space
        snapshot = store.snapshot(space)
        self.generation = snapshot.generation
        self._contents = snapshot.contents  # (N,) content id of each row
        self._index = ExactIndex(snapshot)
        self._sources = {row.id: restore(row.kind, row.root, row.options) for row in store.sources()}

    def search(
        self, queries: Embeddings, names: list[str], k: int, *, without: int | None = None
    ) -> list[SearchResults]:
        """Find the k best pictures for each query.

        Args:
            queries: float32 (q, dim), unit rows.
            names: what each query is called in its results.
            k: how many pictures; fewer come where there are fewer.
            without: a content that must not be among them: the one that was asked with.

        Returns:
            One SearchResults per query, in order.
        """
        if k < 1:
            raise QueryError(f"k is how many pictures to find and must be at least 1, got {k}")
        found = self._index.search(queries, k + (without is not None))
        return [
            SearchResults(self._hits(near, k, without), name, model=self.space.model)
            for name, near in zip(names, found, strict=True)
        ]

    def embedding(self, content: int) -> Embeddings:
        """The stored vector of a content, float32 (1, dim), unit length.

        Raises:
            QueryError: it has none in this space yet.
        """
        rows = np.flatnonzero(self._contents == content)[:1]
        if not len(rows):
            raise QueryError(f"the item has no vector of {self.space.model!r} yet; add its source again")
        return self._index.vectors(rows)

    def everything(self) -> tuple[list[int], Embeddings]:
        """The id of every present item and its vector, float32 (n, dim), in order of the ids."""
        row_of = {int(content): row for row, content in enumerate(self._contents)}
        items = [
            item for item in self._store.items(failed=False) if not item.missing and item.content in row_of
        ]
        rows = np.array([row_of[item.content or 0] for item in items], np.int64)
        return [item.id for item in items], self._index.vectors(rows)

    def _hits(self, near: Neighbours, k: int, without: int | None) -> tuple[Hit, ...]:
        contents = [int(content) for content in self._contents[near.rows]]
        items = self._store.items_of(contents)
        hits = [
            self._hit(item, float(score), known)
            for content, score in zip(contents, near.scores, strict=True)
            for item, known in items[content]
            if content != without
        ]
        return tuple(hits[:k])

    def _hit(self, item: ItemRow, score: float, known: dict[str, Any]) -> Hit:
        source = self._sources[item.source]
        return Hit(
            id=item.id,
            path=source.path(item.key),
            key=item.key,
            source=source.root,
            score=score,
            cosine=score,
            metadata=known,
            read=partial(_read, source, item.key),
        )


def _read(source: Source, key: str) -> "bytes | Image":
    item = source.item(key)
    if item is None:
        raise SourceError("the picture is no longer where it was; if its folder moved, relocate the source")
    return item.read()
