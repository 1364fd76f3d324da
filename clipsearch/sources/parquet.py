"""Parquet files with the pictures inside, as Hugging Face's `datasets` writes them."""

import json
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from operator import itemgetter
from threading import Lock
from typing import Any, NoReturn

from ..errors import ImageError, SourceError, require
from ..files import cores
from ..types import Item
from .disk import absolute, native, read_file, stamp
from .known import Known
from .names import exclusion
from .shards import Shards
from .table import is_bytes, plain_columns

NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "bytes", "image_bytes", "content")
BATCH_BYTES = 2 << 20  # of rows that are read at a time
KEPT = 2  # such batches: the one that is read, and the one that other threads may still be at
BUFFER = 1 << 20  # bytes; without one, pyarrow reads a whole row group into memory


class ParquetSource:
    """The pictures in a column of one or many Parquet files; keys are row numbers, from 0.

    Where there are many files, the file's name comes first. The column is that which `datasets` calls an
    Image, else a struct of bytes and path, else bytes called image, jpg and the like. The other columns
    are metadata, but for bytes; a ClassLabel is its name.

    All rows of a file are looked at again when its size or time changes. A file that is absent or broken
    is yielded as an item whose key ends in "/" and whose `read` raises the reason; `lists_all` is then False.

    Attributes:
        kind: "parquet".
        root: absolute path of the file, or the absolute pattern.
        options: {"exclude": patterns}, where there are any.
        lists_all: whether the last listing could look at all of each file.
    """

    kind = "parquet"

    def __init__(self, root: str | os.PathLike[str], *, exclude: Iterable[str] = ()) -> None:
        self.root = absolute(root)
        self.options: Mapping[str, Any] = {"exclude": list(exclude)} if exclude else {}
        self.lists_all = True
        self._shards = Shards(self.root)
        self._file = lru_cache(maxsize=4)(_File)

    def items(self) -> Iterator[Item]:
        """Yield every row, file by file in order.

        Raises:
            SourceError: there is no such file, the only one cannot be read, or there is no row.
            MissingExtraError: pyarrow is not installed.
        """
        require("pyarrow", extra="parquet")
        self.lists_all, empty = True, True
        excluded = exclusion(self.options.get("exclude", ()))
        for path in self._shards.files():
            for item in self._of_file(path):
                if not excluded(item.key):
                    empty = False
                    yield item
        if empty:
            raise SourceError(
                f"no picture in {self.root!r}; expected Parquet files with a column of pictures"
            )

    def item(self, key: str) -> Item | None:
        """The picture of that key as it is now, or None when it is gone."""
        path, row = self._shards.split(key)
        try:
            file = self._file(path, stamp(os.stat(native(path))))
            return file.item(key, int(row)) if 0 <= int(row) < file.starts[-1] else None
        except (OSError, ValueError, SourceError):
            return None

    def path(self, key: str) -> str:
        """The file's path and the number of the row."""
        return self._shards.path(key)

    def _of_file(self, path: str) -> Iterator[Item]:
        try:
            file = _File(path, stamp(os.stat(native(path))))
            if file.column is None:
                names = ", ".join(file.schema.names)
                raise SourceError(f"found columns {names}; expected one of pictures, such as image")
        except (OSError, SourceError) as error:
            if self._shards.plain:
                why = getattr(error, "strerror", None) or error
                raise SourceError(f"cannot read the Parquet file {path!r}: {why}") from error
            self.lists_all = False
            yield Item(self._shards.own_key(path), partial(_fail, error))
            return
        prefix = self._shards.prefix(path)
        for row in range(file.starts[-1]):
            yield file.item(f"{prefix}{row}", row)


def has_pictures(path: str) -> bool:
    """Whether a Parquet file has a column of pictures; if not, it may name some.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    require("pyarrow", extra="parquet")
    try:
        return _File(path, "").column is not None
    except (OSError, SourceError):
        return False


def is_export(path: str) -> bool:
    """Whether a Parquet file holds what a collection exported: paths and vectors."""
    try:
        return b"clipsearch" in (_File(path, "").schema.metadata or {})
    except (OSError, SourceError):
        return False


class _File:
    """A Parquet file of which the footer was read; the rest is read row group by row group when asked for."""

    def __init__(self, path: str, stamped: str) -> None:
        self.path, self.stamp = path, stamped
        with _opened(path) as file:
            self.schema = file.schema_arrow
            self.footer = file.metadata
        groups = [self.footer.row_group(place) for place in range(self.footer.num_row_groups)]
        self.starts = list(accumulate((group.num_rows for group in groups), initial=0))
        self.bytes = [group.total_byte_size for group in groups]
        self.features = _features(self.schema)
        self.column = _column(self.schema, self.features)
        self._current: _Group | None = None  # those before belong to the items that were yielded

    def item(self, key: str, row: int) -> Item:
        """The picture in a row."""
        number = bisect_right(self.starts, row) - 1
        if self._current is None or self._current.number != number:
            self._current = _Group(self, number)
        place = row - self.starts[number]
        group = self._current
        return Item(key, partial(group.picture, place), self.stamp, Known(partial(group.known, place)))


class _Group:
    """The rows of a row group; what is known of the pictures is read only when that is asked for."""

    def __init__(self, file: _File, number: int) -> None:
        self.number = number
        self._folder, self._column = os.path.dirname(file.path), file.column or ""
        others = [name for name in plain_columns(file.schema) if name != file.column]
        self._pictures = _Rows(file, number, [self._column])
        self._others = _Rows(file, number, [*others, f"{self._column}.path"])
        self._classes = {
            name: feature["names"]
            for name, feature in file.features.items()
            if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
        }

    def picture(self, place: int) -> bytes:
        """The bytes in a row, counted from the group's first."""
        value = self._pictures.at(place)[self._column]
        path = value.get("path") if isinstance(value, dict) else None
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None and path:
            return read_file(os.path.join(self._folder, path))
        if content is None:
            raise ImageError("there is no picture in this row")
        return bytes(content)

    def known(self, place: int) -> dict[str, Any]:
        """What is known of the picture in a row; the picture's own path as file_name."""
        row = self._others.at(place)
        path = (row.pop(self._column, None) or {}).get("path")
        named = {name: class_name(row.get(name), names) for name, names in self._classes.items()}
        return {"file_name": path} | row | named


class _Rows:
    """Some columns of a row group, read in batches one after the other, whichever thread asks first."""

    def __init__(self, file: _File, number: int, columns: Sequence[str]) -> None:
        self._path, self._footer = file.path, file.footer
        self._number, self._columns = number, list(columns)
        rows = file.starts[number + 1] - file.starts[number]
        some = BATCH_BYTES * rows // max(1, file.bytes[number])
        self._together = max(some, 4 * cores())  # rows of a batch: more than the threads can be apart
        self._lock = Lock()
        self._restart()

    def at(self, place: int) -> dict[str, Any]:
        """The values in a row, counted from the group's first."""
        with self._lock:
            start, batch = self._batch(place)
        row: dict[str, Any] = batch.slice(place - start, 1).to_pylist()[0]
        return row

    def _batch(self, place: int) -> tuple[int, Any]:
        """The batch a row is in, and the place of its first row."""
        if place < self._next - sum(batch.num_rows for _, batch in self._kept):
            self._restart()  # a thread that fell behind, or a person who looks at hits
        while place >= self._next:
            try:
                batch = next(self._batches)
            except Exception as error:  # pyarrow's, which are of many classes
                if (isinstance(error, OSError) and error.errno) or isinstance(error, MemoryError):
                    self._restart()  # the computer's trouble, which may pass
                    raise
                raise ImageError(f"broken in the Parquet file: {str(error) or 'it ends here'}") from error
            self._kept.append((self._next, batch))
            self._next += batch.num_rows
        return max((kept for kept in self._kept if kept[0] <= place), key=itemgetter(0))

    def _restart(self) -> None:
        self._next, self._kept = 0, deque[tuple[int, Any]](maxlen=KEPT)
        self._batches = self._read()

    def _read(self) -> Iterator[Any]:
        with _opened(self._path, self._footer) as file:
            yield from file.iter_batches(
                self._together, row_groups=[self._number], columns=self._columns, use_threads=False
            )


def class_name(value: Any, names: Sequence[str]) -> Any:
    """The name of a ClassLabel's number; what is no such number stays."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _opened(path: str, footer: Any = None) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(native(path), metadata=footer, pre_buffer=False, buffer_size=BUFFER)
    except pyarrow.ArrowException as error:
        raise SourceError(str(error)) from error


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What `datasets` wrote of the columns, by name."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _column(schema: Any, features: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The column of pictures, or None."""
    from pyarrow.types import is_struct

    kinds = {field.name: field.type for field in schema if schema.names.count(field.name) == 1}
    structs = [
        name
        for name, kind in kinds.items()
        if is_struct(kind) and any(field.name == "bytes" and is_bytes(field.type) for field in kind)
    ]
    images = [name for name in structs if features.get(name, {}).get("_type") == "Image"]
    plain = [name for name in NAMES if name in kinds and is_bytes(kinds[name])]
    return next(iter([*images, *structs, *plain]), None)


def _fail(error: Exception) -> NoReturn:
    raise error
