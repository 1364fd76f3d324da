"""What comes into a collection: vectors that are there already, and where their pictures are.

A picture whose file can be read becomes an item of the list source, with the stamp and the digest that
`add` would have found, so that `add` encodes nothing again. One that is gone becomes an item of the source
GONE, which is never looked through: a search finds it, shows its path, and its picture cannot be read.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..decode import content_digest
from ..errors import ImageError, ModelError, SourceError
from ..files import cores, interrupts_held
from ..outcomes import GONE, ContentSet, Loaded, Outcomes, as_json
from ..progress import progress_bar
from ..report import Interrupted, Report
from ..sources import ListSource, restore
from ..sources.disk import to_posix
from ..spaces import Spaces
from ..store import Space, Store, to_sql
from ..types import Embeddings, Item
from ..writer import Writer, writing

UNIT = 1e-3  # how far a length may be from 1 and count as 1: float16 rounds by less


class Row(NamedTuple):
    """One picture that comes."""

    path: str
    metadata: Mapping[str, Any] = {}
    sha256: bytes | None = None  # of the content the vector is of, where that is known
    size: int | None = None  # of its file in bytes, likewise


Batch: TypeAlias = tuple[list[Row], npt.NDArray[Any]]
"""n rows and their vectors, (n, dim), of any length; nan where there is none."""


class Incoming(NamedTuple):
    """Vectors to be imported."""

    model: str | None  # None: they do not tell
    fingerprint: str | None  # None: some other program made them
    dim: int
    total: int
    batches: Iterator[Batch]


def incoming(about: Mapping[str, Any], dim: int, total: int, batches: Iterator[Batch]) -> Incoming:
    """What comes with what clipsearch.json says of it, which may be nothing.

    Raises:
        SourceError: it says another dimension, or there is none.
    """
    said = about.get("dim", dim)
    if total and said != dim:
        raise SourceError(f"found vectors of {dim} numbers; expected {said}, as is said of them")
    if not isinstance(said, int) or said < 1:
        raise SourceError(f"found vectors of {said!r} numbers; expected at least one number")
    return Incoming(about.get("model"), about.get("fingerprint"), said, total, batches)


def mapped(path: Path) -> npt.NDArray[Any]:
    """The vectors of an .npy file, (n, dim), mapped into memory where there are any.

    Raises:
        SourceError: it cannot be read, or is no such array.
    """
    try:
        vectors: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise SourceError(f"{path} is no array of numbers: {error}") from error
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise SourceError(f"{path} holds {vectors.dtype} {vectors.shape}; expected numbers of shape (n, dim)")
    return vectors


@dataclass(slots=True)
class ImportReport(Report):
    """What an import did; see Report. `added` counts the pictures that are gone, too.

    Attributes:
        gone: pictures that have a vector here now, and whose files cannot be read.
        normalised: vectors that had another length than 1.
    """

    gone: int = 0
    normalised: int = 0

    def __str__(self) -> str:
        more = f"; {self.gone:,} have no file that can be read" if self.gone else ""
        more += f"; {self.normalised:,} vectors were normalised" if self.normalised else ""
        return Report.__str__(self) + more


def bring_in(
    store: Store, spaces: Spaces, given: Incoming, *, name: str, root: str | None, progress: bool | None
) -> ImportReport:
    """Put vectors and what is known of their pictures into a collection; see Collection.import_vectors.

    Raises:
        ModelMismatchError: the collection's vectors are of another model.
        SourceError: what comes breaks off; what came before is kept.
        ModelError: nobody says of which model these are.
    """
    if given.model is None:
        raise ModelError(f"{name} does not say of which model its vectors are; name it: model=")
    report = ImportReport(name, given.model)
    with writing(store) as writer, progress_bar(name, progress, total=given.total) as bar:
        batches = chain(list(islice(given.batches, 1)), given.batches)  # what cannot be read makes no space
        new = spaces.in_use() is None
        space = spaces.of_import(writer, given.model, given.fingerprint, given.dim)
        report.model = space.model
        job = _Import(writer, space, report, root)
        started = time.perf_counter()
        try:
            for rows, vectors in batches:
                job.take(rows, vectors)
                bar.update(len(rows))
        except KeyboardInterrupt:
            raise Interrupted(report, f"{report.added:,} imported pictures") from None
        finally:
            report.seconds = time.perf_counter() - started
            if new and given.total:
                spaces.unmake(writer, space)
    return report


class _Seen(NamedTuple):
    """A row, and what is to be recorded of it."""

    loaded: Loaded
    gone: bool = False  # there is no file that can be read
    known: bool = False  # nothing: its picture is here already, and has its vector


class _Import:
    def __init__(self, writer: Writer, space: Space, report: ImportReport, root: str | None) -> None:
        self._writer, self._store, self._space = writer, writer.store, space
        self._report, self._root = report, root
        self._rows = 0  # taken so far
        self._list = ListSource()
        self._encoded = ContentSet(self._store.snapshot(space).contents)  # which have a vector
        self._outcomes: dict[bool, Outcomes] = {}  # by whether the file is gone; made when needed

    def take(self, rows: Sequence[Row], vectors: npt.NDArray[Any]) -> None:
        """Record some pictures."""
        unit, usable, changed = normalised(vectors)
        with ThreadPoolExecutor(cores()) as pool:
            seen = list(pool.map(self._look, map(self._named, rows)))
        for one, vector, good in zip(seen, unit, usable, strict=True):
            if not (good or one.loaded.failure):
                one.loaded.failure = "its vector has no direction: it is absent, zero or not finite"
            if one.loaded.failure:
                one.loaded.item = replace(one.loaded.item, stamp=None)  # so that `add` reads the file
            else:
                one.loaded.vectors = vector[None]
        with interrupts_held():  # between the commits and the counts there must be no Ctrl-C
            self._report.normalised += int(changed.sum())
            self._report.unchanged += sum(one.known for one in seen)
            self._record([one for one in seen if not one.known])

    def _named(self, row: Row) -> Row:
        self._rows += 1
        return row if row.path else row._replace(path=f"(row {self._rows})")

    def _look(self, row: Row) -> _Seen:
        """What the file of a row is now; in a thread."""
        path = os.path.join(self._root or "", row.path)
        key = to_posix(os.path.normpath(path))
        item = self._list.item(key) if os.path.isabs(path) else None
        known = self._store.known(self._source(ListSource.kind, ListSource.root), key)
        have = known is not None and known.content in self._encoded
        if known and have and (item is None or (item.stamp == known.stamp and not known.missing)):
            return _Seen(Loaded(item or Item(key, _nothing)), known=True)
        try:
            return self._there(row, item) if item else self._absent(row)
        except (OSError, ValueError, ImageError):
            return self._absent(row)

    def _there(self, row: Row, item: Item) -> _Seen:
        data = item.read()
        assert isinstance(data, bytes)  # it is a file
        loaded = Loaded(item, content_digest(data), metadata=as_json(row.metadata))
        if row.sha256 not in (None, loaded.sha256) or row.size not in (None, len(data)):
            loaded.failure = "the file has changed since its vector was made; add it to have it encoded"
        return _Seen(loaded)

    def _absent(self, row: Row) -> _Seen:
        name = row.path.encode("utf-8", "surrogatepass")
        stand_in = hashlib.sha256(b"a picture that is gone\0" + name).digest()  # nobody knows its bytes
        item = Item(row.path, _nothing)
        return _Seen(Loaded(item, row.sha256 or stand_in, metadata=as_json(row.metadata)), gone=True)

    def _record(self, seen: Sequence[_Seen]) -> None:
        good = [one for one in seen if not one.loaded.failure]
        self._report.gone += sum(one.gone for one in good)
        for gone in (False, True):
            self._commit([one.loaded for one in good if one.gone == gone], gone)
        self._found_again([self._list.path(one.loaded.item.key) for one in good if not one.gone])
        for one in seen:
            if one.loaded.failure:
                self._fail(one.loaded, one.gone)

    def _commit(self, pending: Sequence[Loaded], gone: bool) -> None:
        """One transaction; a content gets a vector only where it has none."""
        fresh: set[bytes] = set()
        for loaded in pending:
            if loaded.sha256 in fresh or self._store.content_of(loaded.sha256) in self._encoded:
                loaded.vectors = None
            fresh.add(loaded.sha256)
        if pending:
            self._of(gone).commit(pending)

    def _fail(self, loaded: Loaded, gone: bool) -> None:
        """Record a row that gives no vector, unless its picture has one from elsewhere."""
        known = self._store.known(self._of(gone).source_id, loaded.item.key)
        if known is not None and known.content is not None:
            self._of(gone).fail(loaded.item, loaded.failure or "")
        else:
            self._of(gone).commit([loaded])

    def _of(self, gone: bool) -> Outcomes:
        if gone not in self._outcomes:
            source = restore(*GONE, {}) if gone else self._list
            made = self._outcomes[gone] = Outcomes(self._writer, self._space, source, self._report)
            made.encoded = self._encoded  # both add to the one
        return self._outcomes[gone]

    def _source(self, kind: str, root: str) -> int:
        """The id of a source, or 0, which none has."""
        return next((row.id for row in self._store.sources() if (row.kind, row.root) == (kind, root)), 0)

    def _found_again(self, paths: Sequence[str]) -> None:
        """Forget that pictures were gone whose files are there now."""
        source = self._source(*GONE)
        if stale := [(source, to_sql(path)) for path in paths if self._store.known(source, path)]:
            with self._writer.transaction() as db:
                db.executemany("DELETE FROM items WHERE source = ? AND key = ?", stale)


def normalised(
    vectors: npt.NDArray[Any],
) -> tuple[Embeddings, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Vectors as float32 (n, dim) of unit length; which have a direction, (n,), and which were scaled, (n,).

    Those that have a length of 1 but for rounding stay as they are, to the bit.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.ascontiguousarray(vectors, np.float32)
        norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
        usable = np.isfinite(norms) & (norms > 0)
        changed = usable & (np.abs(norms - 1) > UNIT)
        scaled = rows / np.where(changed, norms, 1)[:, None]
    return np.ascontiguousarray(scaled, np.float32), usable, changed


def _nothing() -> bytes:
    raise ImageError("it was gone when its vector was imported")
