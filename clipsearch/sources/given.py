"""Pictures that someone names or hands over one by one."""

import os
from collections.abc import Iterable, Iterator, Mapping
from errno import EISDIR
from functools import partial
from typing import Any, NoReturn

from PIL.Image import Image

from ..errors import ImageError, SourceError
from ..types import Item
from .disk import absolute, file_item, native, read_file, to_posix
from .names import exclusion

ONE_BY_ONE = "no picture, but a place that holds or names some: add such places one by one"
PLACES = (".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".tar", ".tsv", ".txt", ".zip")


class ListSource:
    """Files named one by one, of any ending but those of tables and archives; keys are absolute posix paths.

    All lists are one source, so a file is one item however often and in however many lists it is
    named. A file that does not exist is an item whose `read` raises FileNotFoundError.

    Args:
        paths: files, relative ones to the working folder; `~` is expanded.
        exclude: patterns of paths to leave out.
    """

    kind = "list"
    root = ""
    lists_all = False

    def __init__(self, paths: Iterable[str | os.PathLike[str]] = (), *, exclude: Iterable[str] = ()) -> None:
        excluded = exclusion(exclude)
        keys = dict.fromkeys(to_posix(absolute(path)) for path in paths)
        self._keys = [key for key in keys if not excluded(key)]
        self.options: Mapping[str, Any] = {}

    def items(self) -> Iterator[Item]:
        """Yield the files in the order they were named, each once.

        Raises:
            SourceError: there are none.
        """
        if not self._keys:
            raise SourceError("the list names no picture; expected at least one path")
        for key in self._keys:
            path = self.path(key)
            found = self.item(key)
            if path.lower().endswith(PLACES):
                yield Item(key, partial(_fail, ImageError(ONE_BY_ONE)), found.stamp if found else None)
            elif found is None and os.path.isdir(native(path)):
                yield Item(key, partial(_fail, IsADirectoryError(EISDIR, ONE_BY_ONE)))
            else:
                yield found or Item(key, partial(read_file, path))

    def item(self, key: str) -> Item | None:
        """The file of that path as it is now, or None when it is gone."""
        return file_item(key, self.path(key))

    def path(self, key: str) -> str:
        """The absolute path as the system spells it."""
        return key.replace("/", os.sep)


class IteratorSource:
    """Pictures handed over as (key, PIL image or encoded bytes), or as `Item`s, which pass by once.

    All iterators are one source: a key that was given before, by this or another one, is the same
    item with new contents.

    Args:
        pairs: keys are any non-empty strings, each at most once. An `Item` also brings its stamp, so that
            it is not read again while that is the same, and its metadata.
        exclude: patterns of keys to leave out.
    """

    kind = "iterator"
    root = ""
    lists_all = False

    def __init__(
        self, pairs: Iterable["tuple[str, bytes | Image] | Item"] = (), *, exclude: Iterable[str] = ()
    ) -> None:
        self._pairs = iter(pairs)
        self._excluded = exclusion(exclude)
        self.options: Mapping[str, Any] = {}

    def items(self) -> Iterator[Item]:
        """Yield the pictures as they come; there is no second time.

        Raises:
            SourceError: nothing came, something that is neither, or a key came twice.
        """
        keys: set[str] = set()
        for pair in self._pairs:
            item = _checked(pair)
            if item.key in keys:
                raise SourceError(
                    f"the key {item.key!r} came twice; expected a key for each picture, such as its path"
                )
            keys.add(item.key)
            if not self._excluded(item.key):
                yield item
        if not keys:
            raise SourceError(
                "no picture was handed over; expected (key, picture) pairs, and an iterator only once"
            )

    def item(self, key: str) -> Item | None:
        """None: a picture that passed by cannot be read again."""
        return None

    def path(self, key: str) -> str:
        """The key: it is all that is known."""
        return key


def read_list(path: str) -> list[str]:
    """The paths in a text file: one a line, UTF-8, relative ones to the folder of the text file.

    Blank lines are skipped; there are no comments, as any other line may be a name.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        with open(native(path), encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = [line.rstrip("\r\n") for line in file]
    except OSError as error:
        raise SourceError(f"cannot read the list {path!r}: {error.strerror or error}") from error
    return [os.path.join(os.path.dirname(path), os.path.expanduser(line)) for line in lines if line.strip()]


def _fail(error: Exception) -> NoReturn:
    raise error


def _checked(pair: object) -> Item:
    match pair:
        case Item(key=str(key)) if key:
            return pair
        case (str(key), bytes() | Image() as picture) if key:
            return Item(key, partial(_handed, picture))
        case (key, picture):
            found = f"({key!r:.80}, {type(picture).__name__})"
        case _:
            found = f"{type(pair).__name__} {pair!r:.80}"
    raise SourceError(f"found {found}; expected pairs of a string key and a PIL image or the bytes of a file")


def _handed(picture: "bytes | Image") -> "bytes | Image":
    return picture
