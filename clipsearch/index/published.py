"""Index files on disk: what is there, whether it may be trusted, and how it is put there.

    index/1-builtin/index.json            what the index is: replaced by one rename, and true from then on
    index/1-builtin/wanted.json           what was asked for: kept though the rest is damaged
    index/1-builtin/000003.faiss          FAISS's file
    index/1-builtin/000003.contents.npy   (n,) int64: whose vector each position is

All of it can be made again from the vectors, so what is damaged or foreign is not mended but left.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import CollectionError, DamagedError
from ..files import TEMPORARY, make_folder, write_durably
from ..segments import digest_of
from ..spec import AUTO, TARGET
from ..store import DESCRIPTION, Space, Store
from .layout import Layout, read_layout

SIDECAR, WANTED, FORMAT = "index.json", "wanted.json", 1


NOT_OURS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading JSON of another shape than ours leads to."""


class Tuned(NamedTuple):
    """How one kind of queries is searched, and what was measured with it."""

    probes: int  # cells read for a query
    depth: int  # candidates rescored for each hit
    recall: float  # recall@10 on held-out queries
    at_least: float  # its lower bound, 95 % sure (one-sided)
    queries: int  # how many were held out
    source: str  # what they were


class Wish(NamedTuple):
    """What was asked for."""

    layout: str = AUTO  # "auto", a layout's name or a factory string
    target_recall: float = TARGET


@dataclass(frozen=True)
class About:
    """What index.json says."""

    wanted: Wish
    layout: str
    why: str
    factory: str = ""
    rows: int = 0
    bytes: int = 0  # of FAISS's file
    number: int = 0  # of the files; 0: there are none, every vector is looked at
    digests: Mapping[str, str] = field(default_factory=dict)  # sha256 of the files, by their names
    tuned: Mapping[str, Tuned] = field(default_factory=dict)  # by kind of queries: "text", "image"
    collection: str = ""  # sha256 of collection.json: an index of another collection is foreign
    fingerprint: str = ""  # of the model
    seconds: float = 0.0  # that building and tuning took
    built: str = ""  # when


@dataclass(frozen=True)
class Published:
    """An index that is on disk, mapped into memory."""

    about: About
    layout: Layout
    contents: npt.NDArray[np.int64]  # (n,) whose vector each position is


def folder_of(store: Store, space: Space) -> Path:
    """Where a space's index is."""
    return store.path / "index" / space.folder


def published_at(store: Store, space: Space) -> object:
    """Changes whenever another index is published; costs one look at a file's dates."""
    try:
        found = (folder_of(store, space) / SIDECAR).stat()
        return found.st_mtime_ns, found.st_ino, found.st_size
    except (OSError, ValueError):  # ValueError: a damaged name
        return None


def read_about(store: Store, space: Space) -> About | None:
    """What index.json says; None: there is none.

    Raises:
        DamagedError: it is not what was written, or of another collection or other weights.
    """
    path = folder_of(store, space) / SIDECAR
    try:
        text = path.read_bytes().decode()
        told = json.loads(text)
        digest, format = told.pop("sha256"), told.pop("format")
        if format != FORMAT:
            raise DamagedError(f"{path} has format {format!r}, and this version reads {FORMAT}")
        tuned = {kind: Tuned(**values) for kind, values in told.pop("tuned").items()}
        about = About(Wish(**told.pop("wanted")), **told, tuned=tuned)
        if text != _dumped(about) or set(about.digests) != set(_names(about.number) if about.number else ()):
            raise DamagedError(f"{path} is not what was written ({digest[:12]})")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}") from error
    except NOT_OURS as error:
        raise DamagedError(f"{path} is not what was written") from error
    if (about.collection, about.fingerprint) != (digest_of(store.path / DESCRIPTION), space.fingerprint):
        raise DamagedError(f"{path} belongs to another collection or to other weights")
    return about


def read_wish(store: Store, space: Space) -> Wish:
    """What was asked for, from whichever description is whole; "auto" where none is."""
    with suppress(DamagedError):
        return _read_wanted(folder_of(store, space) / WANTED)
    with suppress(DamagedError):
        about = read_about(store, space)
        return about.wanted if about else Wish()
    return Wish()


def _read_wanted(path: Path) -> Wish:
    try:
        text = path.read_bytes().decode()
        wish = Wish(**json.loads(text)["wanted"])
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}") from error
    except NOT_OURS as error:
        raise DamagedError(f"{path} is not what was written") from error
    if text != _sealed({"wanted": wish._asdict()}):
        raise DamagedError(f"{path} is not what was written")
    return wish


def described_wrong(store: Store, space: Space) -> str:
    """What is wrong with the two descriptions of an index; empty: nothing, or there is none."""
    try:
        wanted = folder_of(store, space) / WANTED
        if read_about(store, space) and wanted.exists():
            _read_wanted(wanted)
        return ""
    except DamagedError as error:
        return str(error)


def load(store: Store, space: Space) -> Published | None:
    """The index of a space; None: there is none, or every vector is to be looked at.

    Raises:
        DamagedError: a file is not what was written; none of it was given to FAISS.
    """
    while True:
        seen = published_at(store, space)
        about = read_about(store, space)
        if about is None or not about.number:
            return None
        try:
            return _load(folder_of(store, space), about)
        except (OSError, CollectionError, RuntimeError, ValueError) as error:
            if published_at(store, space) == seen:  # else another one was published meanwhile
                raise DamagedError(f"the index of {store.path}: {error}") from error


def damage(folder: Path, about: About) -> list[str]:
    """What is wrong with an index's files: each is read and compared with its digest."""
    return [problem for name, digest in about.digests.items() if (problem := _damage(folder / name, digest))]


def _damage(path: Path, digest: str) -> str | None:
    try:
        return None if digest_of(path) == digest else f"{path.name} is not what was written"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"


def _load(folder: Path, about: About) -> Published:
    if problems := damage(folder, about):
        raise DamagedError(problems[0])
    index, contents = _names(about.number)
    layout = read_layout(folder / index)
    rows = np.load(folder / contents, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    if (len(layout), rows.shape, rows.dtype) != (about.rows, (about.rows,), np.int64):
        raise DamagedError(f"{index} holds {len(layout)} vectors of {len(rows)} pictures, not {about.rows}")
    return Published(about, layout, rows)


def publish(
    store: Store, space: Space, about: About, layout: Layout | None, contents: npt.NDArray[np.int64]
) -> About:
    """Put an index on disk; true from the last rename on. A crash leaves the one before.

    Raises:
        CollectionError: the disk is full or the folder cannot be written.
    """
    folder = folder_of(store, space)
    make_folder(folder)
    number = 1 + max((int(p.name[:6]) for p in folder.glob("[0-9]*") if p.name[:6].isdigit()), default=0)
    index, rows = _names(number)
    digests: dict[str, str] = {}
    if layout is not None:
        digests[index] = _write(folder / index, layout.write)
        digests[rows] = _write(folder / rows, lambda file: np.save(file, contents))
    about = replace(
        about,
        rows=len(contents),
        bytes=(folder / index).stat().st_size if digests else 0,
        number=number if digests else 0,
        digests=digests,
        collection=digest_of(store.path / DESCRIPTION),
        fingerprint=space.fingerprint,
        built=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    wish = _sealed({"wanted": about.wanted._asdict()})
    write_durably(folder / WANTED, lambda file: file.write(wish.encode()))
    write_durably(folder / SIDECAR, lambda file: file.write(_dumped(about).encode()))
    sweep(folder, about)
    return about


def sweep(folder: Path, about: About | None) -> None:
    """Delete the files of indexes that were replaced or never finished."""
    for path in leftovers(folder, about):
        with suppress(OSError):  # Windows keeps files that a reader has mapped: next time
            path.unlink()


def leftovers(folder: Path, about: About | None) -> list[Path]:
    """Files of ours that no description names."""
    named = {folder / name for name in about.digests} if about else set()
    ours = ("[0-9]*.faiss", "[0-9]*.contents.npy", f"*{TEMPORARY}")
    return sorted({path for pattern in ours for path in folder.glob(pattern)} - named)


def _names(number: int) -> tuple[str, str]:
    return f"{number:06d}.faiss", f"{number:06d}.contents.npy"


class _Tee(NamedTuple):
    file: BinaryIO
    sha: "hashlib._Hash"

    def write(self, data: bytes) -> int:
        self.sha.update(data)
        return self.file.write(data)


def _write(path: Path, write: Callable[[Any], object]) -> str:
    sha = hashlib.sha256()
    write_durably(path, lambda file: write(_Tee(file, sha)))
    return sha.hexdigest()


def _dumped(about: About) -> str:
    tuned = {kind: tuned._asdict() for kind, tuned in about.tuned.items()}
    return _sealed(asdict(about) | {"tuned": tuned, "wanted": about.wanted._asdict()})


def _sealed(told: Mapping[str, Any]) -> str:
    """JSON with its own digest in it: no byte can change unnoticed."""
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    sha = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"format": FORMAT, "sha256": sha, **told}, indent=1, sort_keys=True) + "\n"
