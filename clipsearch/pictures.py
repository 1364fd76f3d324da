"""Which pictures a collection holds, by id and by path, and how they leave it or move."""

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import TypeAlias

from .errors import QueryError, SourceError
from .filters import Selection
from .report import Failure
from .results import Hit
from .sources import IteratorSource, ListSource, absolute, restore
from .store import ItemRow, Store, to_sql
from .types import Source
from .writer import writing

Placed: TypeAlias = tuple[ItemRow, str]
"""An item and where it is."""


class Pictures:
    """The items of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def paths(self, only: Selection | None) -> dict[int, str]:
        """Where every present picture is, by its id, in order of the ids."""
        return {
            item.id: path
            for item, path in self._items()
            if item.content and not item.missing and (only is None or only.has(item.id))
        }

    def failures(self) -> list[Failure]:
        """The pictures that could not be read, oldest first."""
        paths = self._paths()
        return [
            Failure(paths[item.source](item.key), item.failure or "")
            for item in self._store.items(failed=True)
            if not item.missing
        ]

    def relisted(self) -> Iterator[Source]:
        """The sources that can be looked through again: not those that were handed over one by one."""
        for row in self._store.sources():
            source = restore(row.kind, row.root, row.options)
            if isinstance(source, ListSource):
                keys = [item.key for item in self._store.items() if item.source == row.id]
                yield from [ListSource(keys)] if keys else []  # none: a folder has taken them over
            elif not isinstance(source, IteratorSource):
                yield source

    # ------------------------------------------------------------------ which is meant

    def content(self, picture: int | Hit) -> int:
        """The content that an item shows.

        Raises:
            QueryError: there is no such picture, or a hit is of another collection.
        """
        id = picture.id if isinstance(picture, Hit) else picture
        if not isinstance(id, Integral) or isinstance(id, bool):
            raise QueryError(f"an item is named by its id, a whole number, got {id!r}")
        row = self._store.item(int(id)) if 0 < id < 1 << 63 else None
        if row is None or row.content is None:
            raise QueryError(f"no picture of {self._store.path} has the id {id}")
        if isinstance(picture, Hit) and picture.key != row.key:
            raise QueryError(
                f"the hit {picture.key!r:.80} is of another collection, or of an earlier state of it"
            )
        return row.content

    def ids(self, relevant: "Sequence[Iterable[int | Hit | str]]") -> list[set[int]]:
        """The ids of pictures that are named by id, hit or path, query by query."""
        if wrong := [some for some in relevant if isinstance(some, str) or not isinstance(some, Iterable)]:
            raise QueryError(f"found {wrong[0]!r:.80}; expected for each query a list of pictures")
        lists = [list(some) for some in relevant]
        named = any(isinstance(one, str) for some in lists for one in some)
        ids = {path: id for id, path in self.paths(None).items()} if named else {}
        return [{self._id(one, ids) for one in some} for some in lists]

    def _id(self, picture: "int | Hit | str", ids: Mapping[str, int]) -> int:
        if isinstance(picture, str):
            found = ids.get(absolute(picture), ids.get(picture))
            if found is None:
                raise QueryError(f"no picture of {self._store.path} is at {picture!r}")
            return found
        self.content(picture)  # raises where there is none
        return int(picture.id if isinstance(picture, Hit) else picture)

    # ------------------------------------------------------------------ out and elsewhere

    def remove(self, what: Sequence[int | str | os.PathLike[str]], only: Selection | None) -> int:
        """Forget the items that are named, or all, as far as they pass; return how many."""
        if wrong := [one for one in what if not isinstance(one, str | bytes | os.PathLike | Integral)]:
            raise QueryError(f"found {type(wrong[0]).__name__}; expected ids and paths, one by one")
        names = {os.fsdecode(one) for one in what if isinstance(one, str | bytes | os.PathLike)}
        paths = names | {absolute(name) for name in names}
        ids = {operator.index(one) for one in what if not isinstance(one, str | bytes | os.PathLike)}
        whole = {row.id for row in self._store.sources() if row.root in paths}

        def is_named(item: ItemRow, path: str) -> bool:
            return item.id in ids or item.source in whole or _below(path, paths)

        named = (row for row in self._items() if is_named(*row))
        if only is None:
            return self._delete(named)
        return self._delete(row for row in (named if what else self._items()) if only.has(row[0].id))

    def remove_missing(self) -> int:
        """Forget the items that are gone from their sources; return how many."""
        return self._delete(row for row in self._items() if row[0].missing)

    def _delete(self, rows: Iterable[Placed]) -> int:
        ids = [(row.id,) for row, _ in rows]
        with writing(self._store) as writer, writer.transaction() as db:
            db.executemany("DELETE FROM items WHERE id = ?", ids)
            db.execute("DELETE FROM sources WHERE id NOT IN (SELECT source FROM items)")
        return len(ids)

    def relocate(self, old: str, new: str) -> None:
        """Move a source to another root; both are absolute."""
        row = next((row for row in self._store.sources() if row.root == old), None)
        if row is None:
            known = ", ".join(source.root for source in self._store.sources()) or "none"
            raise SourceError(f"{old!r} is not a source of {self._store.path}; its sources are: {known}")
        if any((other.kind, other.root) == (row.kind, new) for other in self._store.sources()):
            raise SourceError(f"{new!r} is a source of {self._store.path} already; remove one of the two")
        moved = restore(row.kind, new, row.options)
        items = (item for item in self._store.items(failed=False) if item.source == row.id)
        if not any(moved.item(item.key) for item in items):
            raise SourceError(f"{new!r} holds none of the pictures of {old!r}")
        with writing(self._store) as writer, writer.transaction() as db:
            db.execute("UPDATE sources SET root = ? WHERE id = ?", (to_sql(new), row.id))

    def _paths(self) -> dict[int, Callable[[str], str]]:
        """For each source, what turns a key into a path."""
        return {row.id: restore(row.kind, row.root, row.options).path for row in self._store.sources()}

    def _items(self) -> Iterator[Placed]:
        paths = self._paths()
        return ((item, paths[item.source](item.key)) for item in self._store.items())


def _below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)
