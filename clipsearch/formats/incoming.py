"""Vectors that come, as every format gives them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import SourceError


class Row(NamedTuple):
    """One picture that comes."""

    path: str
    metadata: Mapping[str, Any] = {}
    sha256: bytes | None = None  # of the content the vector is of, where that is known
    size: int | None = None  # of its file in bytes, likewise


Batch: TypeAlias = tuple[list[Row], npt.NDArray[Any]]
"""n rows and their vectors, (n, dim), of any length; nan where there is none."""


class Incoming(NamedTuple):
    """Vectors to be imported."""

    model: str | None  # None: they do not tell
    fingerprint: str | None  # None: some other program made them
    dim: int
    total: int
    batches: Iterator[Batch]


def incoming(about: Mapping[str, Any], dim: int, total: int, batches: Iterator[Batch]) -> Incoming:
    """What comes with what clipsearch.json says of it, which may be nothing.

    Raises:
        SourceError: it says another dimension, or there is none.
    """
    said = about.get("dim", dim)
    if total and said != dim:
        raise SourceError(f"found vectors of {dim} numbers; expected {said}, as is said of them")
    if not isinstance(said, int) or said < 1:
        raise SourceError(f"found vectors of {said!r} numbers; expected at least one number")
    return Incoming(about.get("model"), about.get("fingerprint"), said, total, batches)


def mapped(path: Path) -> npt.NDArray[Any]:
    """The vectors of an .npy file, (n, dim), mapped into memory where there are any.

    Raises:
        SourceError: it cannot be read, or is no such array.
    """
    try:
        vectors: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise SourceError(f"{path} is no array of numbers: {error}") from error
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise SourceError(f"{path} holds {vectors.dtype} {vectors.shape}; expected numbers of shape (n, dim)")
    return vectors
