"""One Parquet file with a row for each picture, as DuckDB, LanceDB and Hugging Face `datasets` read it."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import SourceError, require
from ..files import write_durably
from .about import about, parse_about
from .arrow import PATHS, Kinds, kinds_of, rows, schema, table
from .incoming import Batch, Incoming, incoming
from .outgoing import TOGETHER, Outgoing

VECTORS = ("vector", "embedding", "embeddings")


def write(out: Outgoing, path: Path) -> int:
    """Write one file; an existing one is replaced.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    require("pyarrow", extra="parquet")
    said = json.dumps(about(out, dtype="float32", pictures=out.total))
    kinds = kinds_of(out.metadata())
    columns = schema(kinds, dim=out.space.dim, about=said)
    write_durably(path, partial(_write, out, kinds, columns))
    return out.total


def _write(out: Outgoing, kinds: Kinds, columns: Any, file: BinaryIO) -> None:
    from pyarrow.parquet import ParquetWriter

    with ParquetWriter(file, columns) as writer:
        for block in out.blocks():
            writer.write_table(table(block.pictures, kinds, columns, block.vectors))


def read(path: Path) -> Incoming:
    """What such a file holds: a column vector, embedding or embeddings, and one of paths.

    Raises:
        SourceError: it is no such file.
        MissingExtraError: pyarrow is not installed.
    """
    require("pyarrow", extra="parquet")
    with opened(path) as file:
        columns, total = file.schema_arrow, file.metadata.num_rows
        said = (columns.metadata or {}).get(b"clipsearch")
        numbers = [field.name for field in columns if _is_vector(field.type)]
        vector = next((name for name in VECTORS if name in numbers), "")
        if not vector or not set(PATHS) & set(columns.names):
            names = ", ".join(f"{field.name} ({field.type})" for field in columns)
            raise SourceError(
                f"{path} has the columns {names}; expected one of {', '.join(VECTORS)} of lists of numbers, "
                f"and one of {', '.join(PATHS)}"
            )
        dim = _dim(file, vector)
    return incoming(parse_about(said, path) if said else {}, dim, total, _batches(path, vector, dim))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An open Parquet file.

    Raises:
        SourceError: there is none, it is damaged, or several of its columns have one name.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := [name for name in names if names.count(name) > 1]:
                raise SourceError(
                    f"{path} has {twice[0]!r} as the name of {len(twice)} columns; expected one"
                )
            yield file
    except (OSError, ValueError, OverflowError, pyarrow.ArrowException) as error:
        raise SourceError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _is_vector(kind: Any) -> bool:
    from pyarrow import types

    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view)
    if not any(is_some(kind) for is_some in (*lists, types.is_large_list_view)):
        return False
    return bool(types.is_floating(kind.value_type) or types.is_integer(kind.value_type))


def _dim(file: Any, vector: str) -> int:
    """How many numbers a vector has: what the type says, else most of the first; 0: there is none."""
    size = getattr(file.schema_arrow.field(vector).type, "list_size", None)
    if size is not None:
        return int(size)
    columns = (batch.column(0) for batch in file.iter_batches(TOGETHER, columns=[vector]))
    lengths = (Counter(len(value) for value in column if value.is_valid) for column in columns)
    ((size, _),) = next(filter(None, lengths), Counter([0])).most_common(1)
    return size


def _batches(path: Path, vector: str, dim: int) -> Iterator[Batch]:
    first = 1
    with opened(path) as file:
        for batch in file.iter_batches(TOGETHER):
            yield rows(batch, path, first, without=vector), _vectors(batch.column(vector), dim)
            first += len(batch)


def _vectors(column: Any, dim: int) -> npt.NDArray[np.float32]:
    """The vectors of a column, (n, dim); nan where there is none, or one of another length."""
    good = np.fromiter((value.is_valid and len(value) == dim for value in column), np.bool_, len(column))
    vectors = np.full((len(column), dim), np.nan, np.float32)
    flat = column.filter(good).flatten() if not good.all() else column.flatten()
    vectors[good] = np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(-1, dim)
    return vectors
