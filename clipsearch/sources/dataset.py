"""Hugging Face's `datasets.Dataset`, its pictures never decoded by it; imported only where one is given."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from hashlib import blake2b
from typing import Any

from ..errors import ImageError, SourceError, require
from ..types import Item
from .disk import native, read_file, stamp
from .known import Known
from .names import exclusion
from .parquet import class_name
from .table import plain_columns


class DatasetSource:
    """The rows of a dataset; keys are row numbers, from 0, the other columns metadata, a ClassLabel its name.

    Its pictures are in its first Image column, as bytes or as paths of files.

    All of a dataset that lies on disk (loaded, or saved and loaded) can be opened again, for pictures to
    be shown. One in memory, rows that were selected, filtered or shuffled, and a column of another name
    than in the files pass by as an iterator does; by its fingerprint it is the same source when it is
    added again.

    Attributes:
        kind: "dataset".
        root: the first file of its rows and the column, or "memory/" and the fingerprint.
        options: {"files": of its rows, "column": of the pictures, "exclude": patterns}; without files
            where it passes by.
        lists_all: whether it is all of a dataset on disk.
    """

    kind = "dataset"

    def __init__(self, dataset: Any, *, exclude: Iterable[str] = ()) -> None:
        self._given: Any = dataset.with_format(None)
        column = _column(dataset)
        files = _files(dataset, column)
        self.root = f"{_named(files)}/{column}" if files else f"memory/{dataset._fingerprint}"
        self.lists_all = bool(files)
        self.options: Mapping[str, Any] = {"column": column} | ({"files": files} if files else {})
        if exclude:
            self.options |= {"exclude": list(exclude)}
        self._stamp = "-".join(map(_stamp, files)) if files else str(dataset._fingerprint)

    @classmethod
    def again(cls, root: str, **options: Any) -> "DatasetSource":
        """The dataset whose rows are in options["files"], read when first asked for."""
        source = cls.__new__(cls)
        source.root, source.options, source.lists_all, source._given = root, options, True, None
        source._stamp = "-".join(map(_stamp, options["files"]))
        return source

    def items(self) -> Iterator[Item]:
        """Yield every row.

        Raises:
            SourceError: there is no row, or its files or the column are gone.
            MissingExtraError: it is opened again, and datasets is not installed.
        """
        excluded = exclusion(self.options.get("exclude", ()))
        if not len(self._pictures):
            raise SourceError(f"the dataset {self.root!r} has no row")
        for row in range(len(self._pictures)):
            if not excluded(str(row)):
                yield self._item(row)

    def item(self, key: str) -> Item | None:
        """The picture of that row, or None when it is gone."""
        try:
            return self._item(int(key)) if 0 <= int(key) < len(self._pictures) else None
        except (ValueError, SourceError):
            return None

    def path(self, key: str) -> str:
        """The dataset's file, the column and the row."""
        return f"{self.root}/{key}"

    def _item(self, row: int) -> Item:
        return Item(str(row), partial(self._read, row), self._stamp, Known(partial(self._known, row)))

    def _read(self, row: int) -> bytes:
        value = self._pictures[row][self.options["column"]] or {}
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        if value.get("path"):
            return read_file(value["path"])
        raise ImageError("there is no picture in this row")

    def _known(self, row: int) -> dict[str, Any]:
        known = self._others[row] if self._others.column_names else {}
        names = {name: getattr(self._dataset.features[name], "names", None) for name in known}
        return {name: class_name(value, names[name] or ()) for name, value in known.items()}

    @cached_property
    def _dataset(self) -> Any:
        return _loaded(self.options["files"]) if self._given is None else self._given

    @cached_property
    def _pictures(self) -> Any:
        return _undecoded(self._dataset, self.options["column"])

    @cached_property
    def _others(self) -> Any:
        return self._dataset.select_columns(plain_columns(self._dataset.features.arrow_schema))


def is_dataset(spec: object) -> bool:
    """Whether this is a dataset that can be a source.

    Raises:
        SourceError: it is one of another kind.
    """
    module = sys.modules.get("datasets")  # who has one has imported it
    if module is None or not type(spec).__module__.startswith("datasets."):
        return False
    if isinstance(spec, module.Dataset):
        return True
    expected = (
        "one of its splits" if isinstance(spec, Mapping) else "a Dataset, or a clipsearch.Item for each row"
    )
    raise SourceError(f"found {type(spec).__name__}; expected {expected}")


def _column(dataset: Any) -> str:
    """The name of the column of pictures."""
    features = dataset.features
    for name, feature in features.items():
        if type(feature).__name__ == "Image":
            return str(name)
    raise SourceError(f"found a dataset of {', '.join(features)}; expected a column that is an Image")


def _files(dataset: Any, column: str) -> list[str]:
    """The files that hold these pictures, all of them and in this order; none where they are not that."""
    files = [os.path.abspath(file["filename"]) for file in dataset.cache_files]
    if dataset._indices is not None or not files:
        return []
    try:
        stored = _undecoded(_loaded(files), column)
    except SourceError:  # the column was renamed
        return []
    # A slice has the files of the whole, and another column may have had this one's name.
    same = len(stored) == len(dataset) and stored[:1] == _undecoded(dataset, column)[:1]
    return files if same else []


def _undecoded(dataset: Any, column: str) -> Any:
    """The column of pictures alone, each as its bytes or its path.

    Raises:
        SourceError: there is no such column, or it holds no pictures.
    """
    from datasets import Image

    try:
        return dataset.select_columns([column]).cast_column(column, Image(decode=False))
    except (ValueError, TypeError, NotImplementedError) as error:  # pyarrow's are of these classes, too
        raise SourceError(f"the dataset has no column {column!r} of pictures: {error}") from error


def _loaded(files: Sequence[str]) -> Any:
    require("datasets", extra="datasets")
    from datasets import Dataset, concatenate_datasets

    try:
        return concatenate_datasets([Dataset.from_file(file) for file in files])
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read the dataset {files[0]!r}: {error}") from error


def _named(files: Sequence[str]) -> str:
    """One name for all files; that of the first does not tell what is joined to it."""
    digest = blake2b("\n".join(files).encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return files[0] if len(files) == 1 else f"{files[0]}+{len(files) - 1}-{digest}"


def _stamp(file: str) -> str:
    try:
        return stamp(os.stat(native(file)))
    except OSError:  # reading its rows will say why
        return "gone"
