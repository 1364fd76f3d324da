"""Segments: the immutable pairs of files that hold a space's vectors.

000017.npy       float16 (n, dim), unit rows as the encoder gave them
000017.rows.npy  (n,) of ROW: whose vector each row is
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import DamagedError
from .files import write_durably
from .types import Embeddings

ROW = np.dtype([("content", "<i8"), ("kind", "u1"), ("box", "<f4", (4,))])
"""Content id, kind (0 whole picture) and box (left, top, right, bottom as shares of the sides)."""

WHOLE = (0.0, 0.0, 1.0, 1.0)


class Digests(NamedTuple):
    """sha256 of a segment's two files, in hex."""

    vectors: str
    rows: str


@dataclass(frozen=True)
class Segment:
    """One open segment, mapped into memory and not read until used."""

    vectors: npt.NDArray[np.float16]  # (n, dim)
    contents: npt.NDArray[np.int64]  # (n,) content id of each row


def segment_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """Where a segment's vectors and rows are."""
    return folder / f"{number:06d}.npy", folder / f"{number:06d}.rows.npy"


def whole_rows(contents: npt.ArrayLike) -> npt.NDArray[Any]:
    """The (n,) ROW array of n contents that are each one whole picture."""
    contents = np.asarray(contents, np.int64)
    rows = np.zeros(len(contents), ROW)
    rows["content"], rows["box"] = contents, WHOLE
    return rows


def write_segment(
    folder: Path, number: int, rows: npt.NDArray[Any], vectors: Embeddings | npt.NDArray[np.float16]
) -> Digests:
    """Put a segment on disk, both files synced, before anything names it.

    Args:
        folder: the space's folder; made when absent.
        number: the segment's number, never used before in this space.
        rows: (n,) ROW.
        vectors: (n, dim) unit rows; stored as float16.

    Raises:
        CollectionError: the disk is full or the folder cannot be written.
    """
    vectors_path, rows_path = segment_paths(folder, number)
    return Digests(_save(vectors_path, np.asarray(vectors, np.float16)), _save(rows_path, rows))


def _save(path: Path, array: npt.NDArray[Any]) -> str:
    sha = hashlib.sha256()

    def write(file: BinaryIO) -> None:
        np.lib.format.write_array(_Tee(file, sha), array, allow_pickle=False)

    write_durably(path, write)
    return sha.hexdigest()


class _Tee(NamedTuple):
    """A file that hashes what passes through, so that a digest never needs a second read."""

    file: BinaryIO
    sha: "hashlib._Hash"

    def write(self, data: bytes) -> int:
        self.sha.update(data)
        return self.file.write(data)


def open_segment(folder: Path, number: int, *, rows: int, dim: int) -> Segment:
    """Map a segment into memory.

    Raises:
        FileNotFoundError: it is gone: a compaction replaced it.
        DamagedError: its shape or type is not what the collection says.
    """
    vectors_path, rows_path = segment_paths(folder, number)
    vectors, table = _map(vectors_path), _map(rows_path)
    if vectors.dtype != np.float16 or vectors.shape != (rows, dim):
        raise DamagedError(
            f"{vectors_path} holds {vectors.dtype} {vectors.shape}, not float16 {(rows, dim)}; "
            "run `clipsearch verify`"
        )
    if table.dtype != ROW or table.shape != (rows,):
        raise DamagedError(f"{rows_path} holds {table.shape} rows, not {(rows,)}; run `clipsearch verify`")
    return Segment(vectors, np.asarray(table["content"]))


def _map(path: Path) -> npt.NDArray[Any]:
    try:
        mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged header leads NumPy to almost any of them
        raise DamagedError(f"{path} is damaged ({error}); run `clipsearch verify`") from error
    return mapped.view(np.ndarray)


def digest_of(path: Path) -> str:
    """sha256 of a file, in hex, read a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
