"""A folder that is somewhere else: s3://, gs://, hf://, https:// and whatever else fsspec reads."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any, NoReturn

from ..errors import ImageError, SourceError, require
from ..types import Item
from .disk import MAX_BYTES
from .folder import has_magic
from .names import exclusion, is_hidden, is_picture
from .sidecars import MAX_SIDECAR, is_sidecar, known_from, sidecar_names, small

# What tells that a file changed, as the kinds of stores call it; at least one beside the size must be there.
_MARKS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "blob_id",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
)
_MARKS_IF_NONE = ("created",)

_Info = Mapping[str, Any]  # as fsspec gives it: name, size, type and more


class RemoteSource:
    """The pictures of a folder that fsspec reads, and of all below it; keys are posix paths inside it.

    As in a folder on disk, a file is a picture by the ending of its name, hidden ones are skipped, and .json,
    .txt and .cls of its stem are its metadata. Credentials are those that fsspec finds by itself.

    A folder below that cannot be listed is yielded as an item whose key ends in "/" and whose `read` raises
    the reason; `lists_all` is then False.

    Attributes:
        kind: "remote".
        root: the URL.
        options: {"exclude": patterns}, where there are any.
        lists_all: whether the last listing could look into every folder.
    """

    kind = "remote"

    def __init__(self, root: str, *, exclude: Iterable[str] = ()) -> None:
        self.root = root.rstrip("/") if not root.endswith("://") else root
        self.options: Mapping[str, Any] = {"exclude": list(exclude)} if exclude else {}
        self.lists_all = True

    def items(self) -> Iterator[Item]:
        """Yield every picture as it is listed, sorted by name within each folder, files before folders.

        Raises:
            SourceError: the folder is absent or cannot be listed, or nothing in it is a picture.
            MissingExtraError: fsspec is not installed.
        """
        self.lists_all, empty = True, True
        excluded = exclusion(self.options.get("exclude", ()))
        for item in self._walk(excluded):
            empty = False
            self.lists_all &= not item.key.endswith("/")
            yield item
        if empty:
            raise SourceError(
                f"no picture in {self.root!r}; expected a folder of files named like .jpg, .png, …"
            )

    def item(self, key: str) -> Item | None:
        """The file of that key as it is now, without what others tell of it; None when it is gone."""
        files, base = self._place
        try:
            return self._item(key, files.info(f"{base}/{key}"), {})
        except FileNotFoundError:
            return None
        except Exception as error:  # of the store's own classes
            return Item(key, partial(_fail, OSError(f"{type(error).__name__}: {error}")))

    def path(self, key: str) -> str:
        """The URL of a picture."""
        return f"{self.root}/{key}"

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system, and the folder's path in it."""
        require("fsspec", extra="remote")
        from fsspec.core import url_to_fs

        try:
            files, base = url_to_fs(self.root)
        except (ImportError, ValueError) as error:  # a package of that store, or the store, is not known
            raise SourceError(f"cannot open {self.root!r}: {error}") from error
        return files, base.rstrip("/")

    def _walk(self, excluded: Callable[[str], bool]) -> Iterator[Item]:
        files, base = self._place
        files.invalidate_cache()  # it would not see what has changed since
        pending = [""]  # the next one last
        while pending:
            folder = pending.pop()
            try:
                entries = files.ls(f"{base}/{folder}".rstrip("/"), detail=True)
            except Exception as error:  # of the store's own classes
                if not folder:
                    hint = "; patterns at a URL are not read, only folders" if has_magic(self.root) else ""
                    why = f"{type(error).__name__}: {error}{hint}"
                    raise SourceError(f"cannot list {self.root!r}: {why}") from error
                yield Item(folder, partial(_fail, OSError(f"{type(error).__name__}: {error}")))
                continue
            if not folder and [str(entry["name"]).rstrip("/") for entry in entries] == [base]:
                raise SourceError(f"found a file at {self.root!r}; expected a folder")
            found = {folder + _name(entry): entry for entry in sorted(entries, key=_name) if _name(entry)}
            shown = {key: e for key, e in found.items() if not is_hidden(_name(e)) and not excluded(key)}
            beside = {small(key): e for key, e in shown.items() if is_sidecar(key) and _is_small(e)}
            for key, entry in shown.items():
                if is_picture(key) and entry["type"] == "file":
                    yield self._item(key, entry, beside)
            pending += [f"{key}/" for key, e in reversed(shown.items()) if e["type"] == "directory"]

    def _item(self, key: str, info: _Info, beside: Mapping[str, _Info]) -> Item:
        files, _ = self._place
        names = [pair for pair in sidecar_names(key) if pair[1] in beside] if beside else []
        told = {name: (ending, partial(_read, files, beside[name])) for ending, name in names}
        stamps = [_stamp(one) for one in (info, *(beside[name] for _, name in names))]
        stamp = "-".join(map(str, stamps)) if None not in stamps else None
        return Item(key, partial(_read, files, info), stamp, known_from(told))


def _name(entry: _Info) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _is_small(entry: _Info) -> bool:
    return entry["type"] == "file" and (entry.get("size") or 0) <= MAX_SIDECAR


def _stamp(info: _Info) -> str | None:
    """Size and what else changes with the file; None where nothing does, so that it must be read."""
    marks = [str(info[name]) for name in _MARKS if info.get(name)]
    marks = marks or [str(info[name]) for name in _MARKS_IF_NONE if info.get(name)]
    return "-".join([str(info.get("size")), *marks]) if marks else None


def _read(files: Any, info: _Info) -> bytes:
    if (info.get("size") or 0) > MAX_BYTES:
        raise ImageError(f"the file has {info['size']:,} bytes, the limit is {MAX_BYTES:,}")
    try:
        return bytes(files.cat_file(info["name"]))
    except OSError:
        raise
    except Exception as error:  # of the store's own classes; it may pass, as what an OSError tells
        raise OSError(f"{type(error).__name__}: {error}") from error


def _fail(error: OSError) -> NoReturn:
    raise error
