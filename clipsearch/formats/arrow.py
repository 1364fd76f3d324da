"""Pictures as Arrow tables: what is known of them becomes columns, and comes back from them.

A column has one type: numbers, texts, truth values or lists of these. Where values differ more, it holds
JSON texts, and says so. Arrow's texts are UTF-8: of a name that is not, the visible form stands in the
column and the bytes beside it.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..documents import parse_json
from ..errors import SourceError
from ..labels.outputs import is_utf8, shown
from ..sources.table import plain_columns
from .incoming import Row
from .outgoing import Picture

OWN = ("id", "path", "path_bytes", "key", "source", "content_sha256", "vector", "image_path")
PREFIX = "metadata_"  # of what a user named as one of these; LanceDB takes no dot in names
JSON = {b"clipsearch": b"json"}  # an Arrow field's own metadata
PATHS = ("path", "image_path", "filepath", "file_name", "uri")
EXACT = 2**53  # up to which a float64 is every whole number
_WIDER = {frozenset({"int", "long"}): "long", frozenset({"int", "float"}): "float"}

Kinds = dict[str, str]


def kinds_of(all_metadata: Iterable[Mapping[str, Any]]) -> Kinds:
    """The kind of column that each name wants: bool, int, long, float, text, a list of one of these, or json.

    What is an int may stand among floats, which a long, too large for that, may not.
    """
    kinds: Kinds = {}
    for metadata in all_metadata:
        for name, value in metadata.items():
            if value is not None:
                kinds[name] = _wider(kinds.get(name), _kind(value))
    return kinds


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case int() if -EXACT <= value <= EXACT:
            return "int"
        case int() if -(2**63) <= value < 2**63:
            return "long"
        case float():
            return "float"
        case str():
            return "text"
        case list():
            inner = kinds_of({"": element} for element in value).get("", "text")
            return "json" if inner == "json" or " " in inner else f"list {inner}"
    return "json"


def _wider(one: str | None, other: str) -> str:
    if one is None or one == other:
        return other
    *listed, inner = one.split(" ")
    *also, another = other.split(" ")
    wider = _WIDER.get(frozenset({inner, another}))
    return " ".join([*listed, wider]) if wider and listed == also else "json"


def schema(kinds: Kinds, *, path: str = "path", dim: int | None = None, about: str = "") -> Any:
    """The columns: id, path, its bytes where they are no UTF-8, key, source, digest, vector, metadata."""
    import pyarrow

    text = pyarrow.string()
    fields = [pyarrow.field("id", pyarrow.int64()), pyarrow.field(path, text)]
    fields += [pyarrow.field("path_bytes", pyarrow.binary())]
    fields += [pyarrow.field(name, text) for name in ("key", "source", "content_sha256")]
    if dim is not None:
        fields.append(pyarrow.field("vector", pyarrow.list_(pyarrow.float32(), dim)))
    fields += [_field(column, kinds[name]) for name, column in _columns(kinds).items()]
    return pyarrow.schema(fields, metadata={"clipsearch": about} if about else None)


def _field(column: str, kind: str) -> Any:
    import pyarrow

    simple = {
        "bool": pyarrow.bool_(),
        "int": pyarrow.int64(),
        "long": pyarrow.int64(),
        "float": pyarrow.float64(),
        "text": pyarrow.string(),
        "json": pyarrow.string(),
    }
    *listed, inner = kind.split(" ")
    of = pyarrow.list_(simple[inner]) if listed else simple[inner]
    return pyarrow.field(column, of, metadata=JSON if kind == "json" else None)


def _columns(names: Iterable[str]) -> dict[str, str]:
    """The column of each name, in order; "_" ends one whose visible form is another's."""
    columns: dict[str, str] = {}
    used: set[str] = set()
    for name in sorted(names, key=lambda name: (not is_utf8(name), name)):
        column = shown(PREFIX + name if _taken(name) else name)
        while column in used:
            column += "_"
        used.add(column)
        columns[name] = column
    return columns


def _taken(name: str) -> bool:
    return name in (*OWN, *PATHS) or name.startswith(PREFIX)


def _name(column: str) -> str:
    """What a column's values are called in metadata."""
    name = column.removeprefix(PREFIX)
    return name if _taken(name) else column


def table(pictures: Sequence[Picture], kinds: Kinds, schema: Any, vectors: Any = None) -> Any:
    """Some pictures as a table; `vectors`, (n, dim), where the schema has them."""
    import pyarrow

    path = schema.names[1]
    columns: dict[str, list[Any]] = {
        "id": [picture.id for picture in pictures],
        path: [shown(picture.path) for picture in pictures],
        "path_bytes": [None if is_utf8(one.path) else os.fsencode(one.path) for one in pictures],
        "key": [shown(picture.key) for picture in pictures],
        "source": [shown(picture.source) for picture in pictures],
        "content_sha256": [picture.sha256 for picture in pictures],
    }
    columns |= {
        column: [_stored(one.metadata.get(name), kinds[name]) for one in pictures]
        for name, column in _columns(kinds).items()
    }
    arrays = {name: pyarrow.array(column, schema.field(name).type) for name, column in columns.items()}
    if vectors is not None:
        flat = pyarrow.array(vectors.reshape(-1), pyarrow.float32())
        arrays["vector"] = pyarrow.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type)
    return pyarrow.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _stored(value: Any, kind: str) -> Any:
    if value is None:
        return None
    match kind:
        case "json":
            return json.dumps(value)
        case "text":
            return shown(value)
        case "list text":
            return [None if element is None else shown(element) for element in value]
    return value


def rows(table: Any, where: Path, first: int, *, without: str | None = None) -> list[Row]:
    """What a table or batch says of each picture.

    Args:
        table: of them.
        where: the file it is from, to name it.
        first: number of its first row in that file, from 1.
        without: the column of vectors.

    Raises:
        SourceError: a digest is no text in hex, or what should be JSON is none.
    """
    from pyarrow import types

    plain = {*plain_columns(table.schema), "path_bytes"} - {without}  # no pictures
    fields = [field for field in table.schema if field.name in plain]
    fields = [field for field in fields if not types.is_fixed_size_list(field.type)]
    texts = {field.name for field in fields if (field.metadata or {}).get(b"clipsearch") == b"json"}
    records = table.select([field.name for field in fields]).to_pylist()
    return [_row(record, texts, f"{where}, row {n}") for n, record in enumerate(records, first)]


def _row(record: dict[str, Any], texts: set[str], where: str) -> Row:
    path = next((record[name] for name in PATHS if isinstance(record.get(name), str)), "")
    exact, digest = record.get("path_bytes"), record.get("content_sha256")
    try:
        metadata = {
            _name(name): parse_json(value) if name in texts else value
            for name, value in record.items()
            if value is not None and name not in (*OWN, *PATHS)
        }
        return Row(os.fsdecode(exact) if exact else path, metadata, bytes.fromhex(digest) if digest else None)
    except (ValueError, TypeError) as error:
        raise SourceError(f"{where}: {error}") from error
