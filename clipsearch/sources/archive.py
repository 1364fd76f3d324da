"""The pictures in a zip file, read one by one in memory and never unpacked."""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from threading import Lock
from typing import Any
from zipfile import ZipFile, ZipInfo

from ..errors import ImageError, SourceError
from ..types import Item
from .disk import MAX_BYTES, absolute, native, stamp
from .names import exclusion, is_hidden, is_picture
from .sidecars import MAX_SIDECAR, is_sidecar, known_from, sidecar_names, small

_ENCRYPTED = 0x1  # bit of ZipInfo.flag_bits


class ZipSource:
    """The pictures of a zip file; keys are member names.

    A member is a picture by the ending of its name; hidden ones are skipped as in folders. Two
    members of one name are one item, the later one. Members .json, .txt and .cls of a picture's stem are its
    metadata, and part of its stamp. Members may be read from several threads.

    Attributes:
        kind: "zip".
        root: absolute path of the file.
        options: {"exclude": patterns}, where there are any.
        lists_all: True.
    """

    kind = "zip"
    lists_all = True

    def __init__(self, root: str | os.PathLike[str], *, exclude: Iterable[str] = ()) -> None:
        self.root = absolute(root)
        self.options: Mapping[str, Any] = {"exclude": list(exclude)} if exclude else {}
        self._lock = Lock()
        self._opened: tuple[str, ZipFile] | None = None  # (stamp of the file, its archive)

    def items(self) -> Iterator[Item]:
        """Yield every picture, in the order of the archive.

        Raises:
            SourceError: the file is absent, no zip file, or has no picture in it.
        """
        try:
            archive = self._archive()
        except Exception as error:  # zipfile has no common class for what it cannot read
            raise SourceError(f"cannot read the zip file {self.root!r}: {_why(error)}") from error
        excluded = exclusion(self.options.get("exclude", ()))
        empty = True
        members = {member.filename: member for member in archive.infolist() if not excluded(member.filename)}
        beside = {small(key): member for key, member in members.items() if _is_beside(member)}
        for member in members.values():
            if _is_wanted(member):
                empty = False
                yield self._item(archive, member, beside)
        if empty:
            raise SourceError(
                f"no picture in the zip file {self.root!r}; expected members named like .jpg, .png, …"
            )

    def item(self, key: str) -> Item | None:
        """The member of that key as it is now, without what others tell of it; None when it is gone."""
        try:
            archive = self._archive()
            return self._item(archive, archive.getinfo(key), {})
        except Exception:  # the file is gone, the member is, or nothing can be read any more
            return None

    def path(self, key: str) -> str:
        """The archive's path and the member's name."""
        return f"{self.root}/{key}"

    def _archive(self) -> ZipFile:
        """The open archive, opened again when the file is another one."""
        with self._lock:
            now = stamp(os.stat(native(self.root)))
            if self._opened is None or self._opened[0] != now:
                self._opened = (now, ZipFile(native(self.root)))
            return self._opened[1]

    def _item(self, archive: ZipFile, member: ZipInfo, beside: Mapping[str, ZipInfo]) -> Item:
        names = [pair for pair in sidecar_names(member.filename) if pair[1] in beside] if beside else []
        told = {name: (ending, partial(self._read, archive, beside[name])) for ending, name in names}
        stamps = map(_stamp, (member, *(beside[name] for _, name in names)))
        return Item(member.filename, partial(self._read, archive, member), "-".join(stamps), known_from(told))

    def _read(self, archive: ZipFile, member: ZipInfo) -> bytes:
        if member.flag_bits & _ENCRYPTED:
            raise ImageError("encrypted: unpack the archive with its password and add the folder")
        if member.file_size > MAX_BYTES:
            raise ImageError(f"the member has {member.file_size:,} bytes, the limit is {MAX_BYTES:,}")
        try:
            with self._lock:  # one file handle, which ZipFile does not share safely
                return archive.read(member)
        except Exception as error:  # nor have its decompressors
            if isinstance(error, OSError) and error.errno:  # the disk's trouble, which may pass
                raise
            raise ImageError(f"broken in the archive: {_why(error)}") from error


def _stamp(member: ZipInfo) -> str:
    written = "{}{:02}{:02}{:02}{:02}{:02}".format(*member.date_time)
    return f"{member.CRC:08x}-{member.file_size}-{written}"


def _is_beside(member: ZipInfo) -> bool:
    hidden = any(map(is_hidden, member.filename.split("/")))
    return is_sidecar(member.filename) and member.file_size <= MAX_SIDECAR and not hidden


def _is_wanted(member: ZipInfo) -> bool:
    names = member.filename.split("/")
    return (
        is_picture(names[-1])
        and not any(map(is_hidden, names))
        and not stat.S_ISLNK(member.external_attr >> 16)
    )


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
