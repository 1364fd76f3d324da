"""Files as items: reading one without ever blocking, and knowing that it did not change."""

import os
import stat
import sys
from functools import partial

from ..errors import ImageError, SourceError
from ..types import Item

MAX_BYTES = 1 << 30  # of one file: a picture of the most pixels that are decoded is smaller


def absolute(path: str | os.PathLike[str]) -> str:
    """A path as the system spells it, absolute, `~` expanded and no symbolic link resolved.

    Raises:
        SourceError: the path is empty, which the system would take for the working folder, or is none.
    """
    try:
        text = os.fsdecode(path)
    except TypeError as error:
        raise SourceError(f"found {type(path).__name__} {path!r:.80}; expected a path") from error
    if not text:
        raise SourceError("found an empty path; expected a name, or '.' for the working folder")
    return os.path.abspath(os.path.expanduser(text))


def to_posix(path: str) -> str:
    """The spelling of keys, the same on every system."""
    return path.replace(os.sep, "/")


def native(path: str) -> str:
    """The spelling to open: Windows wants a prefix on absolute paths of 260 characters or more."""
    if sys.platform != "win32" or path.startswith("\\\\?\\"):
        return path
    path = os.path.abspath(path)
    return "\\\\?\\UNC" + path[1:] if path.startswith("\\\\") else "\\\\?\\" + path


def file_item(key: str, path: str) -> Item | None:
    """The file as it is now, or None when there is none of that name."""
    try:
        status = os.stat(native(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):  # not allowed, a loop of links, a NUL in the name: reading will say it
        return Item(key, partial(read_file, path))
    return None if stat.S_ISDIR(status.st_mode) else Item(key, partial(read_file, path), stamp(status))


def stamp(status: os.stat_result) -> str:
    """Size in bytes and time of modification in nanoseconds."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def read_file(path: str) -> bytes:
    """Read a whole file.

    Raises:
        ImageError: it is larger than MAX_BYTES, or a pipe, socket or device, which could block.
        OSError: it is gone, or may not be read.
    """
    with open(native(path), "rb", buffering=0, opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a file: a pipe, socket or device")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"the file has {status.st_size:,} bytes, the limit is {MAX_BYTES:,}")
        return file.read()


def _open_at_once(path: str, flags: int) -> int:
    """Opening a pipe would wait for someone to write into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
