"""Many files that are one source, such as shards/{00000..00099}.tar."""

import glob
import os
import posixpath
import re
from collections.abc import Iterator
from itertools import accumulate

from ..errors import SourceError
from .disk import native, to_posix
from .folder import has_magic, split_pattern

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class Shards:
    """The files that an absolute path or pattern names, and the keys of what is in them.

    A key is the file's path from the folder where the pattern begins, then the name inside the file; of a
    plain path, the name inside alone.

    Attributes:
        root: the path or pattern. `{00000..00099}` counts, `{a,b}` lists; `*`, `?`, `[…]` and `**` are globs.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.plain = os.path.isfile(native(root)) or not is_pattern(root)
        self.folder = os.path.dirname(root) if self.plain else split_pattern(_BRACES.sub("*", root))[0]
        self._ending = posixpath.splitext(root)[1].lower()

    def files(self) -> list[str]:
        """The absolute paths, in order; those that braces name and that are not there, too."""
        if self.plain:
            return [self.root]
        found = [file for pattern in _expanded(self.root) for file in _matching(pattern)]
        return list(dict.fromkeys(found))

    def prefix(self, file: str) -> str:
        """What the keys of all that is in a file begin with."""
        return "" if self.plain else f"{to_posix(os.path.relpath(file, self.folder))}/"

    def own_key(self, file: str) -> str:
        """A key for the file itself, which ends in "/"."""
        return self.prefix(file) or "/"

    def split(self, key: str) -> tuple[str, str]:
        """The file and the name inside that a key stands for."""
        if self.plain:
            return self.root, key
        for shard in accumulate(key.split("/"), "{}/{}".format):
            file = os.path.join(self.folder, *shard.split("/"))
            if shard.lower().endswith(self._ending) and not os.path.isdir(native(file)):
                return file, key[len(shard) + 1 :]
        return self.root, key

    def path(self, key: str) -> str:
        """The file's path and the name inside it, as people read them."""
        return f"{self.root if self.plain else self.folder.rstrip('/')}/{key}".rstrip("/")


def is_pattern(path: str) -> bool:
    """Whether a path stands for several files."""
    return has_magic(path) or _BRACES.search(path) is not None


def _matching(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True)) if has_magic(pattern) else [pattern]


def _expanded(pattern: str) -> Iterator[str]:
    """Every pattern without braces that one with braces stands for, in order."""
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    for word in _words(found[1]):
        yield from _expanded(pattern[: found.start()] + word + pattern[found.end() :])


def _words(inside: str) -> list[str]:
    if counted := _RANGE.fullmatch(inside):
        first, last = map(int, counted.groups())
        return [f"{number:0{len(counted[1])}}" for number in range(first, last + 1)]
    if "," in inside:
        return inside.split(",")
    raise SourceError(f"found {{{inside}}} in a pattern; expected {{00000..00099}} or {{a,b}}")
