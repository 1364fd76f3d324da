"""A folder and all below it, or those of its files that a glob pattern matches."""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from typing import Any, NoReturn, TypeAlias

from ..errors import ImageError, SourceError
from ..types import Item
from .beside import Beside
from .disk import absolute, file_item, native, read_file, stamp, to_posix
from .names import evicted_name, exclusion, is_hidden, is_picture

_Pattern: TypeAlias = tuple[str, ...]  # a glob pattern, part by part
_Folder: TypeAlias = tuple[str, frozenset[_Pattern]]  # (key, what may come below it)
_Rest: TypeAlias = Callable[[str], frozenset[_Pattern]]  # key -> what may come below it; see `_rest`


class FolderSource:
    """The pictures of a folder and of all folders below it; keys are posix paths inside it.

    A file is a picture by the ending of its name. Hidden files and folders are skipped, symbolic
    links followed, and a folder that several names lead to is looked through once: under its own
    name where that is below the root, else by the first link to it. Names are kept as the disk
    spells them: bytes that are not UTF-8 survive, and composed and decomposed accents are two names.

    What files beside a picture tell of it is its metadata: .json, .txt and .cls of its stem, and the tables
    metadata.csv, .jsonl and .parquet of its folder and those above. It is part of the stamp.

    A folder below that cannot be read is yielded as an item whose key ends in "/" and whose
    `read` raises the reason; as its pictures are then unknown rather than gone, `lists_all` is
    False once `items` has ended.

    Attributes:
        kind: "folder", or "glob" with a pattern.
        root: absolute path of the folder, or the absolute pattern.
        options: {"exclude": patterns}, where there are any.
        lists_all: whether the last listing could look into every folder.
        warnings: what the last listing found to be said of the folder as a whole.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, pattern: Sequence[str] = (), exclude: Iterable[str] = ()
    ) -> None:
        self._folder = absolute(root)
        self._pattern = tuple(pattern)
        self.kind = "glob" if pattern else "folder"
        self.root = os.path.join(self._folder, *pattern)
        self.options: Mapping[str, Any] = {"exclude": list(exclude)} if exclude else {}
        self.lists_all = True
        self.warnings: list[str] = []

    def items(self) -> Iterator[Item]:
        """Yield every picture as it is found, sorted by name within each folder, files before folders.

        Folders behind links come last. Costs one stat a file, and memory for the largest single
        folder and a number for each.

        Raises:
            SourceError: the folder is absent or unreadable, or nothing in it is a picture.
        """
        self.lists_all, empty = True, True
        excluded, pattern = exclusion(self.options.get("exclude", ())), self._pattern or ("**",)

        def rest(key: str) -> frozenset[_Pattern]:
            return frozenset() if excluded(key) else _rest(tuple(key.split("/")), pattern)

        beside = Beside(excluded)
        for item in _walk(self._folder, rest, pattern, beside):
            empty = False
            self.lists_all &= not item.key.endswith("/")
            yield item
        if empty:
            raise SourceError(
                f"no picture in {self.root!r}; expected files named like .jpg, .png, .heic, …{self._hint()}"
            )
        self.warnings = [beside.unused] if beside.unused and not self._pattern else []

    def _hint(self) -> str:
        """What to add instead where there are files that hold pictures."""
        endings = {os.path.splitext(name)[1].lower() for name in os.listdir(native(self._folder))}
        found = next((ending for ending in (".tar", ".parquet") if ending in endings), None)
        return f"; its {found} files are {os.path.join(self._folder, '*' + found)!r}" if found else ""

    def item(self, key: str) -> Item | None:
        """The file of that key as it is now, without what others tell of it; None when it is gone."""
        return file_item(key, self.path(key))

    def path(self, key: str) -> str:
        """The absolute path of a picture."""
        return os.path.join(self._folder, *key.split("/"))


def split_pattern(pattern: str) -> tuple[str, tuple[str, ...]]:
    """Divide an absolute glob pattern into the folder it starts from and the rest, part by part.

    Raises:
        SourceError: it is a plain path.
    """
    parts = to_posix(pattern).split("/")
    first = next((place for place, part in enumerate(parts) if has_magic(part)), None)
    if first is None:
        raise SourceError(f"found the plain path {pattern!r}; expected a glob pattern, such as '{pattern}/*'")
    return "/".join(parts[:first]) + "/", tuple(parts[first:])


def has_magic(text: str) -> bool:
    """Whether a path is a glob pattern."""
    return any(sign in text for sign in "*?[")


def _walk(root: str, rest: _Rest, pattern: _Pattern, beside: Beside) -> Iterator[Item]:
    pending: deque[_Folder] = deque([("", frozenset([pattern]))])  # the next one last
    seen: set[tuple[int, int, frozenset[_Pattern]]] = set()  # with another rest it may show other pictures
    while pending:
        folder, left = pending.pop()
        try:
            status = os.stat(path := native(os.path.join(root, folder)))
            if (here := (status.st_dev, status.st_ino, left)) in seen:
                continue
            seen.add(here)
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise SourceError(f"cannot read the folder {root!r}: {error.strerror or error}") from error
            yield Item(folder, partial(_fail, error))
            continue
        yield from beside.look(folder, entries)
        below: list[_Folder] = []
        linked: list[_Folder] = []
        for entry in entries:
            key = folder + entry.name
            if is_hidden(entry.name):
                yield from _evicted(folder, entry, rest)
            elif _is_folder(entry):
                if left := rest(key) - {()}:
                    (linked if entry.is_symlink() else below).append((key + "/", left))
            elif is_picture(entry.name) and _ends(rest(key)):
                yield from map(beside.add, _listed(key, entry))
        pending.extend(reversed(below))
        pending.extendleft(linked)


def _listed(key: str, entry: "os.DirEntry[str]") -> Iterator[Item]:
    """A file with its stamp; nothing when it vanished meanwhile or is a pipe, socket or device."""
    try:
        status = entry.stat()
        if stat.S_ISREG(status.st_mode):
            yield Item(key, partial(read_file, entry.path), stamp(status))
    except FileNotFoundError:
        pass
    except OSError:  # reading it will say why
        yield Item(key, partial(read_file, entry.path))


def _evicted(folder: str, entry: "os.DirEntry[str]", rest: _Rest) -> Iterator[Item]:
    """A picture that iCloud took off this disk, leaving a hidden placeholder."""
    name = evicted_name(entry.name)
    if name and _ends(rest(folder + name)):
        for placeholder in _listed(folder + name, entry):
            yield Item(placeholder.key, _not_here, placeholder.stamp)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in circles
        return False


def _rest(parts: _Pattern, pattern: _Pattern) -> frozenset[_Pattern]:
    """What of a pattern may be left once a path has matched its beginning; nothing: the path does not."""
    if not parts:
        return frozenset([pattern])
    if not pattern:
        return frozenset()
    if pattern[0] == "**":
        return _rest(parts, pattern[1:]) | _rest(parts[1:], pattern)
    return _rest(parts[1:], pattern[1:]) if fnmatch(parts[0], pattern[0]) else frozenset()


def _ends(rest: Iterable[_Pattern]) -> bool:
    """Whether a path has matched all of its pattern."""
    return any(set(left) <= {"**"} for left in rest)


def _fail(error: OSError) -> NoReturn:
    raise error


def _not_here() -> NoReturn:
    raise ImageError("only in iCloud, not on this disk: download it in Finder, then add again")
