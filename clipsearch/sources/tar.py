"""The pictures in tar files, webdataset's shards among them, read at their place and never unpacked."""

import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple, NoReturn, Self

from ..errors import ImageError, SourceError
from ..types import Item
from .disk import MAX_BYTES, absolute, native, stamp
from .names import exclusion, is_hidden, is_picture
from .shards import Shards
from .sidecars import MAX_SIDECAR, is_sidecar, known_from, sidecar_names, small

BLOCK = 512  # bytes, of which a tar file is made
SPARSE = -1  # the size of a member of which the holes were left out; to read it they would have to be put in
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_OCTAL = re.compile(rb"[0-7]+[ \0]*").fullmatch


class Place(NamedTuple):
    """Where in its tar file a member is, in bytes."""

    offset: int
    size: int  # or SPARSE


class Listing(NamedTuple):
    """What a tar file holds."""

    stamp: str  # of the file
    members: dict[str, Place]  # pictures and sidecars by name, the last of each name
    trouble: str  # why there may be more than could be listed; empty: there is not


class TarSource:
    """The pictures of one or many tar files; keys are member names, behind the file's where there are many.

    A member is a picture by the ending of its name; hidden ones are skipped as in folders. Members
    .json, .txt and .cls of the same stem, wherever in the file, are its metadata. There is no telling
    whether a member changed, so all of a file are looked at again when the file's size or time changes.
    A file's list of members is kept in memory: some 300 bytes each.

    A file that is absent or broken is yielded as an item whose key ends in "/" and whose `read` raises the
    reason, after those of its pictures that can be listed; `lists_all` is then False.

    Attributes:
        kind: "tar".
        root: absolute path of the file, or the absolute pattern.
        options: {"exclude": patterns}, where there are any.
        lists_all: whether the last listing could look at all of each file.
    """

    kind = "tar"

    def __init__(self, root: str | os.PathLike[str], *, exclude: Iterable[str] = ()) -> None:
        self.root = absolute(root)
        self.options: Mapping[str, Any] = {"exclude": list(exclude)} if exclude else {}
        self.lists_all = True
        self._shards = Shards(self.root)
        self._listing = lru_cache(maxsize=8)(_listing)  # per source; hits come from a few files

    def items(self) -> Iterator[Item]:
        """Yield every picture, file by file in order, in the order of each.

        Raises:
            SourceError: there is no such file, the only one cannot be read, or none has a picture in it.
        """
        self.lists_all, empty = True, True
        excluded = exclusion(self.options.get("exclude", ()))
        for file in self._shards.files():
            for item in self._of_file(file):
                if not excluded(item.key):
                    empty = False
                    yield item
        if empty:
            raise SourceError(
                f"no picture in {self.root!r}; expected tar files of members named .jpg, .png, …"
            )

    def item(self, key: str) -> Item | None:
        """The picture of that key as it is now, or None when it is gone."""
        file, name = self._shards.split(key)
        try:
            listing = self._listing(file, _stamp(file))
        except (OSError, SourceError):
            return None
        return _item(key, file, listing, name) if name in listing.members else None

    def path(self, key: str) -> str:
        """The tar file's path and the member's name."""
        return self._shards.path(key)

    def _of_file(self, file: str) -> Iterator[Item]:
        try:
            listing = _listing(file, _stamp(file))
        except (OSError, SourceError) as error:
            if self._shards.plain:
                raise error if isinstance(error, SourceError) else _unreadable(file, error) from error
            self.lists_all = False
            yield Item(self._shards.own_key(file), partial(_fail, error))
            return
        prefix = self._shards.prefix(file)
        for name in listing.members:
            if is_picture(name):
                yield _item(prefix + name, file, listing, name)
        if listing.trouble:
            self.lists_all = False
            yield Item(self._shards.own_key(file), partial(_fail, ImageError(listing.trouble)), listing.stamp)


class Header(tarfile.TarInfo):
    """A header, read without tarfile's care where it is one of the plainest, which most are."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse the 512 bytes of a header."""
        name, size, checksum, kind = buf[:100], buf[124:136], buf[148:156], buf[156:157]
        plain = kind == tarfile.REGTYPE and len(buf) == BLOCK and not buf[345]  # else the name goes on there
        if not (plain and _OCTAL(size) and _OCTAL(checksum)):
            return super().frombuf(buf, encoding, errors)
        if sum(buf) - sum(checksum) + 8 * ord(" ") != int(checksum.rstrip(b" \0"), 8):
            return super().frombuf(buf, encoding, errors)  # which knows other sums, and how to refuse it
        header = cls(name.partition(b"\0")[0].decode(encoding, errors))
        header.size = int(size.rstrip(b" \0"), 8)
        return header


def _item(key: str, file: str, listing: Listing, name: str) -> Item:
    sidecars = {
        sidecar: (ending, partial(_read, file, listing.members[sidecar]))
        for ending, sidecar in sidecar_names(name)
        if sidecar in listing.members
    }
    return Item(key, partial(_read, file, listing.members[name]), listing.stamp, known_from(sidecars))


def is_tar(path: str) -> bool:
    """Whether a file is a tar file.

    Raises:
        SourceError: it is a compressed one.
    """
    try:
        with tarfile.open(native(path), "r:"):
            return True
    except (tarfile.TarError, OSError, EOFError):
        pass
    try:
        with tarfile.open(native(path), "r:*"):
            pass
    except Exception:  # whatever the decompressors raise
        refuse_compressed(path)
        return False
    raise _compressed(path)


def refuse_compressed(path: str) -> None:
    """Raise SourceError for a path or pattern that ends like that of compressed tar files."""
    if path.lower().endswith(COMPRESSED):
        raise _compressed(path)


def _compressed(path: str) -> SourceError:
    return SourceError(
        f"found a compressed tar file at {path!r}, whose pictures cannot be read one by one; expected a "
        "plain one: unpack it with gunzip, bunzip2, unxz or unzstd (pictures hardly grow), then add that"
    )


def _stamp(file: str) -> str:
    return stamp(os.stat(native(file)))


def _listing(file: str, stamped: str) -> Listing:
    """Read all headers, and nothing between them.

    Raises:
        SourceError: it is no tar file.
        OSError: it is gone, or may not be read.
    """
    members: dict[str, Place] = {}
    try:
        with tarfile.open(native(file), "r:", tarinfo=Header) as archive:
            trouble = _list(archive, members)
    except tarfile.TarError as error:
        raise SourceError(f"cannot read the tar file {file!r}: {error}") from error
    return Listing(stamped, members, trouble)


def _list(archive: tarfile.TarFile, members: dict[str, Place]) -> str:
    """Fill in the members; return why there may be more."""
    damaged, unlisted = "the tar file is damaged at byte", ": what comes after it cannot be listed"
    try:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep all
            if member.size < 0:  # by which the next header would be this one, or one before
                return f"{damaged} {member.offset:,}{unlisted}"
            name, target = _tidy(member.name), _tidy(member.linkname)
            if member.isreg() and _is_wanted(name):
                _put(members, name, Place(member.offset_data, SPARSE if member.issparse() else member.size))
            elif member.islnk() and target in members and _is_wanted(name):
                _put(members, name, members[target])
    except (tarfile.TarError, ValueError) as error:
        return f"the tar file breaks off: {error}"
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)  # where tarfile found no header, which it takes for the end
    most = BLOCK + tarfile.RECORDSIZE  # of zeros: two blocks end a file, and then a record is filled
    rest = archive.fileobj.read(most + 1)
    if any(rest) or len(rest) > most:
        return f"{damaged} {archive.offset:,}, or another begins there{unlisted}"
    return ""


def _tidy(name: str) -> str:
    """A member's name as keys are spelled: tar writes ./a.jpg for one in the folder it was called in.

    The ending of a sidecar in small letters, as it is looked for.
    """
    tidy = "/".join(part for part in name.split("/") if part not in ("", "."))
    return tidy if is_picture(tidy) else small(tidy)


def _put(members: dict[str, Place], name: str, place: Place) -> None:
    """Add a member, unless it is a sidecar that is for another program."""
    if is_picture(name) or place.size <= MAX_SIDECAR:
        members[name] = place


def _is_wanted(name: str) -> bool:
    return (is_picture(name) or is_sidecar(name)) and not any(map(is_hidden, name.split("/")))


def _read(file: str, place: Place) -> bytes:
    if place.size == SPARSE:
        raise ImageError("the member is sparse, its holes were left out: pack it without --sparse")
    if place.size > MAX_BYTES:
        raise ImageError(f"the member has {place.size:,} bytes, the limit is {MAX_BYTES:,}")
    with open(native(file), "rb", buffering=0) as archive:
        archive.seek(place.offset)
        content = archive.read(place.size)
    if len(content) < place.size:
        raise ImageError(f"the tar file breaks off after {len(content):,} of its {place.size:,} bytes")
    return content


def _fail(error: Exception) -> NoReturn:
    raise error


def _unreadable(file: str, error: OSError) -> SourceError:
    return SourceError(f"cannot read the tar file {file!r}: {error.strerror or error}")
