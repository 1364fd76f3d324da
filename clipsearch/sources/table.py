"""Tables that tell of pictures, a picture a row: CSV, TSV, JSON lines, Parquet, and COCO's JSON."""

import csv
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any

from ..documents import parse_json
from ..errors import MissingExtraError, SourceError, require
from ..types import Item
from .coco import coco_rows
from .disk import absolute, file_item, native, read_file, to_posix
from .known import Known, as_json, both
from .names import exclusion

PATHS = ("file_name", "filename", "image_path", "filepath", "file_path", "path", "file", "image")
_OF_PANDAS = re.compile(r"__index_level_\d+__")  # the number of each row
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_PLACES = (
    "",
    "images",
    "Images",
    "data",
    "{stem}",
    "{last}",
    "../{last}",
    "../images/{last}",
    "../images",
    "..",
)

LONGEST = 4096  # characters of a path, as on Linux; a longer one is a picture in base64 or so
Row = tuple[Any, dict[str, Any]]  # (path as the table has it, the other columns)


class Table:
    """What a table says of each picture.

    Attributes:
        rows: metadata as JSON, by posix path as the table spells it. Where several rows are of one picture,
            a value that differs is the list of them.
        trouble: why there may be more rows; empty: there are not.
        pathless: the first row that names no path; empty: all do.
    """

    def __init__(self, path: str) -> None:
        self.rows: dict[str, str] = {}
        self.trouble, self.pathless = "", ""
        try:
            for number, (name, values) in enumerate(_rows(path), 1):
                if isinstance(name, str) and 0 < len(name) < LONGEST:
                    self._put(posixpath.normpath(to_posix(name)), values)
                elif not self.pathless:
                    self.pathless = f"the table {path!r} has {name!r:.80} for a path in row {number}"
        except (SourceError, MissingExtraError, OSError, ValueError, RecursionError, csv.Error) as error:
            self.trouble = f"cannot read the table {path!r}: {getattr(error, 'strerror', None) or error}"

    @property
    def troubles(self) -> str:
        """All that is wrong with it; empty: nothing is."""
        return "; ".join(filter(None, (self.trouble, self.pathless)))

    def _put(self, key: str, values: dict[str, Any]) -> None:
        text = as_json(values)
        if known := self.rows.get(key):
            text = json.dumps(both(json.loads(known), json.loads(text)))
        self.rows[key] = text


class TableSource:
    """The pictures that a table names; keys are their paths as it spells them, other columns their metadata.

    Paths are relative to the folder of the table, or to one nearby, where that holds them instead: images,
    data, or of COCO's layout val2017 for annotations/captions_val2017.json.

    A picture is looked at again when its file or its row changes. All rows are kept in memory while they
    are gone through.

    Attributes:
        kind: "table".
        root: absolute path of the table.
        options: {"images": folder of the pictures, relative to the table's; "exclude": patterns}, those
            there are.
        lists_all: whether the last listing could read the whole table.
    """

    kind = "table"

    def __init__(
        self, root: str | os.PathLike[str], *, images: str | None = None, exclude: Iterable[str] = ()
    ) -> None:
        self.root = absolute(root)
        self.lists_all = True
        self._table: Table | None = None
        if images is None:
            self._table = Table(self.root)
            images = _images(self.root, self._table)
        self.options: Mapping[str, Any] = {"images": images} | ({"exclude": list(exclude)} if exclude else {})

    def items(self) -> Iterator[Item]:
        """Yield the pictures in the order of the table, then, where it breaks off, an item that tells why.

        One that is not there is an item whose `read` raises FileNotFoundError.

        Raises:
            SourceError: the table is absent, cannot be read from the beginning, or names no picture.
        """
        table, self._table = self._table or Table(self.root), None
        self.lists_all = not table.trouble
        if not table.rows:
            raise SourceError(table.troubles or f"the table {self.root!r} names no picture")
        excluded, empty = exclusion(self.options.get("exclude", ())), True
        for key, row in table.rows.items():
            if not excluded(key):
                empty = False
                yield with_row(self.item(key) or Item(key, partial(read_file, self.path(key))), row)
        if empty:
            raise SourceError(f"the table {self.root!r} names no picture but those that are left out")
        if table.troubles:
            yield Item("/", partial(_fail, table.troubles))

    def item(self, key: str) -> Item | None:
        """The file of that key as it is now, without what the table says of it; None when it is gone."""
        return file_item(key, self.path(key))

    def path(self, key: str) -> str:
        """The absolute path of a picture."""
        if key == "/":
            return self.root
        return os.path.normpath(os.path.join(os.path.dirname(self.root), self.options["images"], key))


def with_row(item: Item, row: str) -> Item:
    """The item with what a row of a table says of it, in its stamp too."""
    digest = blake2b(row.encode(), digest_size=8).hexdigest()
    known = Known(partial(_merged, item.metadata, row))
    return Item(item.key, item.read, item.stamp and f"{item.stamp}-{digest}", known)


def is_table(name: str) -> bool:
    """Whether a file of this name may be a table of pictures."""
    return posixpath.splitext(name)[1].lower() in _READERS


def plain_columns(schema: Any) -> list[str]:
    """The columns of a Parquet schema that are metadata: none of bytes, nor of pictures of `datasets`."""
    fields = [field for field in schema if not _OF_PANDAS.fullmatch(field.name)]
    return [field.name for field in fields if not has_bytes(field.type)]


def has_bytes(kind: Any) -> bool:
    """Whether values of an Arrow type are bytes, or have some in them."""
    return is_bytes(kind) or any(has_bytes(kind.field(place).type) for place in range(kind.num_fields))


def is_bytes(kind: Any) -> bool:
    """Whether values of an Arrow type are bytes, in any of its layouts."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return is_bytes(kind.value_type)
    layouts = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(layout(kind) for layout in layouts)


def _rows(path: str) -> Iterator[Row]:
    """Every row, without the values that are not known."""
    column = ""
    for row in _READERS[posixpath.splitext(path)[1].lower()](path):
        column = column or next((name for name in PATHS if name in row), "")
        if not column:
            raise SourceError(f"columns are {', '.join(map(str, row))}; expected one of {', '.join(PATHS)}")
        yield (
            row.get(column),
            {key: value for key, value in row.items() if key != column and value not in (None, "")},
        )


def _csv(path: str) -> Iterator[dict[str, Any]]:
    with open(native(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        dialect = "excel-tab" if path.lower().endswith(".tsv") else "excel"
        reader = csv.DictReader(file, dialect=dialect, restkey="", restval=None)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        for row in reader:
            row.pop("", None)  # the number that pandas writes before each row, and what has no heading
            column = next((name for name in PATHS if name in row), "")
            yield {name: value if name == column else _number(_utf8(value)) for name, value in row.items()}


def _utf8(text: str | None) -> str | None:
    """The text, if it is one; only a path may hold other bytes, since a file may bear them."""
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        found = text and text.encode(errors="surrogateescape")
        raise SourceError(
            f"found {found!r:.80}, which is not UTF-8; convert the table first, such as with "
            "iconv -f ISO-8859-1 -t UTF-8"
        ) from error
    return text


def _number(text: str | None) -> Any:
    """A number where a text is one as it would be written: 007 is none."""
    if not text or not _NUMBER.fullmatch(text.strip()):
        return text
    return float(text) if set(text) & set(".eE") else int(text)


def _lines(path: str) -> Iterator[dict[str, Any]]:
    with open(native(path), "rb") as file:  # in bytes: those that are no UTF-8 are one line's trouble
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise SourceError(f"line {number}: {error}") from error
            if not isinstance(row, dict):
                raise SourceError(f"line {number}: found {line.decode().strip()!r:.80}; expected an object")
            yield row


def _parquet(path: str) -> Iterator[dict[str, Any]]:
    require("pyarrow", extra="parquet")
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(native(path)) as file:
            names, plain = file.schema_arrow.names, plain_columns(file.schema_arrow)
            if names and not set(PATHS) & set(plain):
                raise SourceError(
                    f"columns are {', '.join(names)}; expected one of paths: {', '.join(PATHS)}, "
                    "or one of pictures, such as image"
                )
            for batch in file.iter_batches(columns=plain):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise SourceError(str(error)) from error


_READERS: dict[str, Callable[[str], Iterator[dict[str, Any]]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": coco_rows,
    ".parquet": _parquet,
}


def _merged(known: Mapping[str, Any], row: str) -> dict[str, Any]:
    return {**known, **json.loads(row)}


def _images(root: str, table: Table) -> str:
    """Where a table's pictures are, from its own folder; that one itself if they are nowhere."""
    folder, name = os.path.split(root)
    stem = os.path.splitext(name)[0]
    some = list(table.rows)[:10]  # not all need be there
    places = [place.format(stem=stem, last=stem.rsplit("_")[-1]) for place in _PLACES]

    def holds(place: str) -> bool:
        return any(os.path.isfile(native(os.path.join(folder, place, key))) for key in some)

    return next(filter(holds, places), "")


def _fail(trouble: str) -> bytes:
    raise SourceError(trouble)
