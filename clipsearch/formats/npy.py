"""A folder of vectors.npy and items.jsonl, which anything reads: row i of one is line i of the other."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..documents import parse_json
from ..errors import SourceError
from ..files import write_durably
from .about import NAME, about, new_folder, read_about, write_json
from .incoming import Batch, Incoming, Row, incoming, mapped
from .outgoing import TOGETHER, Outgoing, Picture

VECTORS, ITEMS = "vectors.npy", "items.jsonl"
OWN = ("id", "path", "key", "source", "content_sha256", "metadata")


def write(out: Outgoing, folder: Path) -> int:
    """Write vectors.npy, float32 (n, dim), items.jsonl, and clipsearch.json last."""
    count = 0

    def lines(file: BinaryIO) -> None:
        nonlocal count
        with ArrayFile(folder / VECTORS, np.dtype(np.float32), out.space.dim) as vectors:
            for block in out.blocks():
                vectors.append(block.vectors)
                file.writelines(_line(picture) for picture in block.pictures)
            count = vectors.rows

    with new_folder(folder):
        write_durably(folder / ITEMS, lines)
        write_json(folder / NAME, about(out, dtype="float32", pictures=count))
    return count


class ArrayFile:
    """An .npy file of (n, dim) that grows; n is written into its head when it is closed."""

    def __init__(self, path: Path, dtype: "np.dtype[Any]", dim: int) -> None:
        """Begin a file."""
        self.rows, self._dtype, self._dim = 0, dtype, dim
        self._file = path.open("wb")
        self._head()

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, *exception: object) -> None:
        with self._file:
            self._file.seek(0)
            self._head()  # as long as before: NumPy leaves room for n to grow

    def append(self, vectors: npt.NDArray[Any]) -> None:
        """Add (m, dim) rows."""
        self._file.write(np.ascontiguousarray(vectors, self._dtype).data)
        self.rows += len(vectors)

    def _head(self) -> None:
        description = np.lib.format.dtype_to_descr(self._dtype)
        head = {"descr": description, "fortran_order": False, "shape": (self.rows, self._dim)}
        np.lib.format.write_array_header_1_0(self._file, head)


def read(folder: Path) -> Incoming:
    """What such a folder holds. Of a line only `path` is needed.

    Metadata are what is in `metadata`, an object, and all names that `write` does not know.

    Raises:
        SourceError: a file is absent or no such file.
    """
    vectors = mapped(folder / VECTORS)
    if not (folder / ITEMS).is_file():
        raise SourceError(f"{folder} has no {ITEMS}; expected a line with the path of each vector")
    return incoming(read_about(folder / NAME), vectors.shape[1], len(vectors), _batches(folder, vectors))


def _line(picture: Picture) -> bytes:
    record = picture._asdict()
    record["content_sha256"] = record.pop("sha256")
    return json.dumps(record).encode() + b"\n"  # ASCII: a byte that is no UTF-8 is a lone surrogate


def _batches(folder: Path, vectors: npt.NDArray[Any]) -> Iterator[Batch]:
    with (folder / ITEMS).open("rb") as file:
        for start in range(0, len(vectors), TOGETHER):
            part = vectors[start : start + TOGETHER]
            lines = list(islice(file, len(part)))
            if len(lines) < len(part):
                found = start + len(lines)
                raise SourceError(f"{folder}: found {found:,} lines of {ITEMS} for {len(vectors):,} vectors")
            yield [_row(line, f"{ITEMS}, line {start + n}") for n, line in enumerate(lines, 1)], part
        if next(file, b"").strip():
            raise SourceError(f"{folder}: {ITEMS} has more than a line for each of {len(vectors):,} vectors")


def _row(line: bytes, where: str) -> Row:
    try:
        record = parse_json(line)
        digest = record.get("content_sha256")
        others = {name: value for name, value in record.items() if name not in OWN}
        path, metadata = record["path"], others | dict(record.get("metadata") or {})
        return Row("" if path is None else str(path), metadata, bytes.fromhex(digest) if digest else None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{where}: expected an object with a path ({error!r})") from error
