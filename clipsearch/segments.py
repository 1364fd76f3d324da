"""Segments: the immutable pairs of files that hold a space's vectors.

000017.npy       float16 (n, dim), unit rows as the encoder gave them
000017.rows.npy  (n,) of ROW: whose vector each row is
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import CollectionError, DamagedError
from .files import write_durably
from .types import Embeddings

ROW = np.dtype([("content", "<i8"), ("kind", "u1"), ("box", "<f4", (4,))])
"""Content id, kind (0 whole picture, 1 part of one) and box (left, top, right, bottom)."""

Box: TypeAlias = tuple[float, float, float, float]
"""A part of a picture: left, top, right, bottom as shares of its sides."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


class SegmentRow(NamedTuple):
    """A segment as the collection keeps it."""

    number: int
    rows: int
    vectors_sha256: str
    rows_sha256: str


class Digests(NamedTuple):
    """sha256 of a segment's two files, in hex."""

    vectors: str
    rows: str


@dataclass(frozen=True)
class Segment:
    """One open segment."""

    vectors: npt.NDArray[np.float16]  # (n, dim), mapped into memory and not read until used
    contents: npt.NDArray[np.int64]  # (n,) content id of each row
    boxes: npt.NDArray[np.float32] | None = None  # (n, 4) as in ROW; None: all are whole pictures

    def box(self, row: int) -> Box:
        """Which part of its picture a row is."""
        if self.boxes is None:
            return WHOLE
        left, top, right, bottom = (float(side) for side in self.boxes[row])
        return left, top, right, bottom


def segment_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """Where a segment's vectors and rows are."""
    return folder / f"{number:06d}.npy", folder / f"{number:06d}.rows.npy"


def row_table(contents: npt.ArrayLike, boxes: npt.ArrayLike | None = None) -> npt.NDArray[Any]:
    """The (n,) ROW array of n contents: whole pictures, or the parts that the boxes, (n, 4), say."""
    contents = np.asarray(contents, np.int64)
    rows = np.zeros(len(contents), ROW)
    rows["content"], rows["box"] = contents, WHOLE if boxes is None else boxes
    rows["kind"] = (rows["box"] != WHOLE).any(axis=1)
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
        CollectionError: it may not be read.
    """
    vectors_path, rows_path = segment_paths(folder, number)
    vectors, table = _load(vectors_path, mapped=True), _load(rows_path)
    if vectors.dtype != np.float16 or vectors.shape != (rows, dim):
        raise DamagedError(
            f"{vectors_path} holds {vectors.dtype} {vectors.shape}, not float16 {(rows, dim)}; "
            "run `clipsearch verify`"
        )
    if table.dtype != ROW or table.shape != (rows,):
        raise DamagedError(f"{rows_path} holds {table.shape} rows, not {(rows,)}; run `clipsearch verify`")
    boxes = None if (table["box"] == WHOLE).all() else np.ascontiguousarray(table["box"])
    return Segment(vectors, np.ascontiguousarray(table["content"]), boxes)


def _load(path: Path, *, mapped: bool = False) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CollectionError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged header leads NumPy to almost any of them
        raise DamagedError(f"{path} is damaged ({error}); run `clipsearch verify`") from error
    return array.view(np.ndarray)


def damage(folder: Path, segment: SegmentRow) -> list[str]:
    """What is wrong with a segment's files: each is read and compared with its digest."""
    paths = segment_paths(folder, segment.number)
    found = map(_damage, paths, (segment.vectors_sha256, segment.rows_sha256))
    return [problem for problem in found if problem]


def _damage(path: Path, digest: str) -> str | None:
    try:
        return None if digest_of(path) == digest else f"{path.name} is not what was written"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"


def digest_of(path: Path) -> str:
    """sha256 of a file, in hex, read a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
