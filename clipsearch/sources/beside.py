"""What the files of a folder tell of the pictures in it: sidecars, and tables called metadata."""

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from stat import S_ISREG

from ..errors import ImageError
from ..types import Item
from .disk import read_file, stamp
from .names import is_hidden
from .sidecars import MAX_SIDECAR, Read, is_sidecar, known_from, sidecar_names, small
from .table import Table, with_row

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # as Hugging Face's ImageFolder reads


class Beside:
    """What is known of the pictures of one walk, from files beside them.

    Args:
        excluded: which keys are left out; a sidecar or table that is tells nothing.
    """

    def __init__(self, excluded: Callable[[str], bool]) -> None:
        self._excluded = excluded
        self._rows: dict[str, str] = {}  # of pictures that are yet to come, by key
        self._sidecars: dict[str, os.DirEntry[str]] = {}  # of the folder looked at, by key

    def look(self, folder: str, entries: "Sequence[os.DirEntry[str]]") -> Iterator[Item]:
        """Note what a folder holds; yield each table that cannot be read whole, as an item that says why."""
        beside = [entry for entry in entries if is_sidecar(entry.name) and not is_hidden(entry.name)]
        keys = [(folder + entry.name, entry) for entry in beside]
        self._sidecars = {small(key): entry for key, entry in keys if not self._excluded(key)}
        for entry in entries:
            if entry.name not in TABLES or self._excluded(folder + entry.name):
                continue
            if status := _file(entry):
                table = Table(entry.path)
                self._rows |= {posixpath.normpath(folder + name): row for name, row in table.rows.items()}
                if table.troubles:
                    yield Item(folder + entry.name, partial(_fail, table.troubles), stamp(status))

    @property
    def unused(self) -> str:
        """What is to be said of rows for which no picture came; empty: nothing."""
        if not (keys := [key for key in self._rows if not self._excluded(key)]):
            return ""
        return (
            f"rows of metadata tables that name no picture there is: {len(keys):,}, such as {keys[0]!r} "
            "(file_name is relative to the table's folder)"
        )

    def add(self, item: Item) -> Item:
        """The picture with what is known of it, in its stamp too."""
        sidecars: dict[str, tuple[str, Read]] = {}
        stamps = [item.stamp or ""]
        for ending, name in sidecar_names(item.key) if self._sidecars else ():
            if (entry := self._sidecars.get(name)) and (size := _stamp(entry)):
                sidecars[name] = (ending, partial(read_file, entry.path))
                stamps.append(size)
        if sidecars:
            item = Item(item.key, item.read, item.stamp and "-".join(stamps), known_from(sidecars))
        row = self._rows.pop(item.key, None)
        return item if row is None else with_row(item, row)


def _stamp(entry: "os.DirEntry[str]") -> str:
    """The stamp of a sidecar; empty for what is none, being too large, no file, or gone."""
    status = _file(entry)
    return stamp(status) if status and status.st_size <= MAX_SIDECAR else ""


def _file(entry: "os.DirEntry[str]") -> os.stat_result | None:
    """What is known of a file; None for what is none, such as a pipe, which would block, or gone."""
    try:
        status = entry.stat()
    except OSError:
        return None
    return status if S_ISREG(status.st_mode) else None


def _fail(trouble: str) -> bytes:
    raise ImageError(trouble)
