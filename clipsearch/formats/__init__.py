"""Vectors in the files of other programs: out of a collection and into one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..encoders import AnyModel, check_dim, resolve
from ..errors import CollectionError, ModelMismatchError, SourceError
from ..filters import Selection
from ..progress import progress_bar
from ..store import Space, Store
from ..types import FOREIGN
from . import clip_retrieval, faiss_file, npy, parquet, rclip
from .importing import ImportReport, bring_in
from .incoming import Incoming
from .outgoing import Outgoing

__all__ = ["READERS", "WRITERS", "Exported", "ImportReport", "bring_in", "open_vectors", "write_vectors"]

WRITERS: dict[str, Callable[[Outgoing, Path], int]] = {
    "clip-retrieval": clip_retrieval.write,
    "faiss": faiss_file.write,
    "npy": npy.write,
    "parquet": parquet.write,
}
READERS: dict[str, Callable[[Path], Incoming]] = {
    "clip-retrieval": clip_retrieval.read,
    "npy": npy.read,
    "parquet": parquet.read,
    "rclip": rclip.read,
}


class Exported(NamedTuple):
    """What was written."""

    path: Path  # absolute
    format: str
    pictures: int

    def __str__(self) -> str:
        return f"{self.path}: {self.pictures:,} pictures as {self.format}"


def write_vectors(
    store: Store, space: Space, path: Path, *, format: str, only: Selection | None, progress: bool | None
) -> Exported:
    """Write the vectors of a space; see Collection.export."""
    if format not in WRITERS:
        raise CollectionError(f"found format={format!r}; expected one of {', '.join(map(repr, WRITERS))}")
    with progress_bar("export", progress) as bar:
        try:
            count = WRITERS[format](Outgoing(store, space, only, bar), path)
        except OSError as error:
            raise CollectionError(f"cannot write {path}: {error.strerror or error}") from error
    return Exported(path, format, count)


def open_vectors(path: Path, *, format: str, model: AnyModel | None = None) -> Incoming:
    """What a file or folder holds, before any of it is read.

    Args:
        path: where.
        format: one of READERS.
        model: whose vectors they are, where they do not tell; else it must be the one they tell.

    Raises:
        SourceError: it is no such file, or there is no such format.
        ModelMismatchError: the vectors tell another model, or that one's have another length.
        ModelError: there is no such model.
        MissingExtraError: reading it needs a package that is not installed.
    """
    if format not in READERS:
        raise SourceError(f"found format={format!r}; expected one of {', '.join(map(repr, READERS))}")
    found = READERS[format](path)
    name = found.model if model is None else resolve(model)
    if name is not None and found.model is not None:
        if name.removeprefix(FOREIGN) != found.model.removeprefix(FOREIGN):
            raise ModelMismatchError(f"{path} holds vectors of {found.model!r}, not of {name!r}")
        name = found.model
    if model is not None:
        check_dim(resolve(model) if isinstance(model, str | os.PathLike) else model, found.dim)
    return found._replace(model=name)
