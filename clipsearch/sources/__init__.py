"""Where pictures come from: one small class for each kind of place, all with the methods of `Source`."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias, cast
from zipfile import is_zipfile

from ..errors import SourceError
from ..types import Source
from .archive import ZipSource
from .dataset import DatasetSource, is_dataset
from .disk import absolute, native
from .folder import FolderSource, has_magic, split_pattern
from .given import IteratorSource, ListSource, read_list
from .names import is_picture
from .parquet import ParquetSource, has_pictures, is_export
from .remote import RemoteSource
from .shards import is_pattern
from .table import TableSource, is_table
from .tar import TarSource, is_tar, refuse_compressed

__all__ = [
    "DatasetSource",
    "FolderSource",
    "IteratorSource",
    "ListSource",
    "ParquetSource",
    "RemoteSource",
    "SourceSpec",
    "TableSource",
    "TarSource",
    "ZipSource",
    "absolute",
    "open_source",
    "restore",
]

SourceSpec: TypeAlias = "str | os.PathLike[str] | Source | Iterable[Any]"
"""What people may name as a place: see `open_source`."""

_MEMBERS = ("kind", "root", "lists_all", "options", "items", "item", "path")  # of `Source`
_EXPECTED = (
    "expected a folder, a glob pattern, the URL of a folder, a zip, tar or Parquet file, shards such as "
    "'x/{00000..00099}.tar', a .csv, .jsonl, .parquet or COCO .json file that names pictures, a .txt file "
    "with a path on each line, a picture, a list of paths, a datasets.Dataset, (key, picture) pairs or Items"
)


def open_source(spec: SourceSpec, *, exclude: str | Sequence[str] = ()) -> Source:
    """Open the place someone named.

    Args:
        spec: a folder; a glob pattern, where `**` goes down folders, of which the files named like
            pictures count; the URL of a folder that fsspec reads; a zip, tar or Parquet file, or a pattern
            of tar or Parquet files, where `{00000..00099}` counts; a `.csv`, `.tsv`, `.jsonl` or `.parquet`
            table that names pictures, or COCO's `.json`; a `.txt` file of paths; a picture; paths; (key, PIL
            image or bytes) pairs or `Item`s; a `datasets.Dataset`; or an object with the methods of
            `Source`. `~` is expanded, and what exists under a name with glob characters is taken by that
            name. Iterables are looked into.
        exclude: fnmatch patterns of keys, file names or folder names to leave out.

    Raises:
        SourceError: there is nothing by that name, or it is no such thing.
    """
    patterns = [exclude] if isinstance(exclude, str) else list(exclude)
    if isinstance(spec, str) and "://" in spec:
        return RemoteSource(spec, exclude=patterns)
    if isinstance(spec, (str, os.PathLike)):
        return _open_path(absolute(spec), patterns)
    if is_dataset(spec):
        return DatasetSource(spec, exclude=patterns)
    if hasattr(spec, "columns"):
        raise SourceError(
            f"found a {type(spec).__name__} with columns; expected its file: write it as Parquet or CSV with "
            "the paths in file_name, and add that; or give an Item for each row"
        )
    lacking = [name for name in _MEMBERS if not hasattr(spec, name)]
    if not lacking:
        if patterns:
            raise SourceError(
                f"found exclude={patterns!r} with a source of your own; expected it to leave out itself"
            )
        return cast(Source, spec)
    if isinstance(spec, Iterable) and not isinstance(spec, (bytes, Mapping)):
        return _open_iterable(spec, patterns)
    if hasattr(spec, "items") and not isinstance(spec, Mapping):
        raise SourceError(
            f"found a source of your own, {type(spec).__name__}, without {', '.join(lacking)}; "
            f"expected {', '.join(_MEMBERS)}"
        )
    raise SourceError(f"found {type(spec).__name__} {spec!r:.80}; {_EXPECTED}")


def restore(kind: str, root: str, options: Mapping[str, Any]) -> Source:
    """Open a source again from what it said of itself, without looking whether it is there.

    Args:
        kind: its `kind`.
        root: its `root`.
        options: its `options`, which are JSON values.

    Returns:
        The source. Pictures of an iterator, or of a source of your own, cannot be read again: the
        `item` of that one is always None.

    Raises:
        SourceError: a "glob" whose root is no pattern, or a root that is empty.
    """
    if kind == DatasetSource.kind and "files" in options:
        return DatasetSource.again(root, **options)
    if kind in _MAKERS:
        return _MAKERS[kind](root, **options)
    if kind == ListSource.kind:
        return ListSource()
    past = IteratorSource()
    past.kind, past.root, past.options = kind, root, options
    return past


def _open_path(path: str, exclude: Sequence[str]) -> Source:
    if os.path.isdir(native(path)):
        return FolderSource(path, exclude=exclude)
    if os.path.isfile(native(path)):
        return _open_file(path, exclude)
    if is_pattern(path) and path.lower().endswith(".tar"):
        return TarSource(path, exclude=exclude)
    if is_pattern(path) and path.lower().endswith(".parquet"):
        return ParquetSource(path, exclude=exclude)
    if is_pattern(path):
        refuse_compressed(path)
    if has_magic(path):
        return _glob(path, exclude=exclude)
    raise SourceError(f"found nothing to read at {path!r}; {_EXPECTED}; is its disk connected?")


def _open_file(path: str, exclude: Sequence[str]) -> Source:
    if is_picture(path):
        return ListSource([path], exclude=exclude)
    if path.lower().endswith(".txt"):
        return ListSource(read_list(path), exclude=exclude)
    if path.lower().endswith(".parquet") and has_pictures(path):
        return ParquetSource(path, exclude=exclude)
    if path.lower().endswith(".parquet") and is_export(path):
        raise SourceError(
            f"{path!r} holds vectors that a collection exported; expected pictures: "
            "import_vectors(…, format='parquet') takes it, and encodes nothing (clipsearch import)"
        )
    if is_table(path):
        return TableSource(path, exclude=exclude)
    if is_zipfile(native(path)):
        return ZipSource(path, exclude=exclude)
    if is_tar(path):
        return TarSource(path, exclude=exclude)
    raise SourceError(f"found a file that is none of these at {path!r}; {_EXPECTED}")


def _open_iterable(spec: Iterable[Any], exclude: Sequence[str]) -> Source:
    """By its first element: paths are listed now, pairs pass by as they are asked for."""
    rest = iter(spec)
    first = next(rest, None)
    if isinstance(first, (str, os.PathLike)):
        return ListSource(chain([first], rest), exclude=exclude)
    return IteratorSource([] if first is None else chain([first], rest), exclude=exclude)


def _glob(pattern: str, exclude: Iterable[str] = ()) -> FolderSource:
    folder, parts = split_pattern(pattern)
    return FolderSource(folder, pattern=parts, exclude=exclude)


_MAKERS: dict[str, Callable[..., Source]] = {
    "folder": FolderSource,
    "glob": _glob,
    "parquet": ParquetSource,
    "remote": RemoteSource,
    "table": TableSource,
    "tar": TarSource,
    "zip": ZipSource,
}
