"""What comes into a collection: vectors that are there already, and where their pictures are.

A picture whose file can be read becomes an item of the list source, with the stamp and the digest that
`add` would have found, so that `add` encodes nothing again. One that is gone becomes an item of the source
GONE, which is never looked through: a search finds it, shows its path, and its picture cannot be read.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..decode import content_digest
from ..errors import ImageError, ModelError, SourceError
from ..files import cores, interrupts_held
from ..outcomes import GONE, ContentSet, Loaded, Outcomes
from ..progress import progress_bar
from ..report import Interrupted, Report
from ..sources import ListSource, restore
from ..sources.disk import to_posix
from ..sources.known import as_json, both
from ..spaces import Spaces
from ..store import ItemRow, Space, Store, to_sql
from ..types import Embeddings, Item
from ..writer import Writer, writing
from .incoming import Incoming, Row

UNIT = 1e-3  # how far a length may be from 1 and count as 1: float16 rounds by less


@dataclass(slots=True)
class ImportReport(Report):
    """What an import did; see Report. `added` counts the pictures that are gone, too.

    Attributes:
        gone: pictures that have a vector here now, and whose files cannot be read.
        merged: rows that tell more of a picture of another row.
        normalised: vectors that had another length than 1.
    """

    gone: int = 0
    merged: int = 0
    normalised: int = 0

    def __str__(self) -> str:
        more = f"; {self.merged:,} merged with a row of the same picture" if self.merged else ""
        more += f"; {self.gone:,} have no file that can be read" if self.gone else ""
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

    row: Row
    loaded: Loaded
    gone: bool = False  # there is no file that can be read
    known: ItemRow | None = None  # its item, where nothing had to be read to know it

    @property
    def name(self) -> "tuple[bool, str]":
        """What its item is known by."""
        return self.gone, self.loaded.item.key


class _Import:
    """Which item a row is of: a picture is known by its content, and where no row tells that, by its path.

    So rows of one path and other contents are other pictures, and rows of one path and content are one, of
    which all tell. A picture that is gone is none where its content is shown from elsewhere already.
    """

    def __init__(self, writer: Writer, space: Space, report: ImportReport, root: str | None) -> None:
        self._writer, self._store, self._space = writer, writer.store, space
        self._report, self._root = report, root
        self._rows = 0  # taken so far
        self._list = ListSource()
        self._encoded = ContentSet(self._store.snapshot(space).contents)  # which have a vector
        self._before = self._store.last_item()  # items above it came with this import
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
            self._record(seen)

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
            return _Seen(row, _loaded(row, item or Item(key, _nothing)), known=known)
        try:
            return self._there(row, item) if item else _absent(row)
        except (OSError, ValueError, ImageError):
            return _absent(row)

    def _there(self, row: Row, item: Item) -> _Seen:
        data = item.read()
        assert isinstance(data, bytes)  # it is a file
        loaded = _loaded(row, item, content_digest(data))
        if row.sha256 not in (None, loaded.sha256) or row.size not in (None, len(data)):
            loaded.failure = "the file has changed since its vector was made; add it to have it encoded"
        return _Seen(row, loaded)

    # ------------------------------------------------------------------ which item a row is of

    def _record(self, seen: Sequence[_Seen]) -> None:
        self._gone = self._source(*GONE)
        self._paths = {row.id: restore(row.kind, row.root, row.options).path for row in self._store.sources()}
        fresh: dict[tuple[bool, str], _Seen] = {}  # those that become items
        again: list[tuple[_Seen, ItemRow]] = []  # of pictures that came with this import before
        for one in seen:
            here = one.known or (None if one.loaded.failure else self._here(one))
            if here and here.id <= self._before:
                self._report.unchanged += 1
                self._report.gone += here.source == self._gone
                one.loaded.failure = None
            elif here and not one.loaded.failure:
                again.append((one, here))
            elif not one.loaded.failure:
                self._make(one, fresh)
        self._refuse_other_vectors(again)
        self._commit([one for one in fresh.values() if not one.gone])
        self._commit([one for one in fresh.values() if one.gone])
        self._merge([(one, here) for one, here in again if not one.loaded.failure])
        self._found_again([one for one in fresh.values() if not one.gone])
        for one in seen:
            if one.loaded.failure:
                self._fail(one)

    def _here(self, one: _Seen) -> ItemRow | None:
        """The item that a row is of already."""
        if one.gone and one.row.sha256 is None:
            return self._at(one.row.path)
        content = self._store.content_of(one.loaded.sha256)
        if content not in self._encoded:
            return None
        showing = [item for item in self._store.items_showing(content or 0) if not item.missing]
        same = (item for item in showing if self._is_of(item, one))
        elsewhere = (i for i in showing if one.gone and i.source != self._gone and i.id <= self._before)
        return next(same, None) or next(elsewhere, None)

    def _is_of(self, item: ItemRow, one: _Seen) -> bool:
        """Whether an item of the same content is at the place that a row names."""
        if one.gone:
            return item.source == self._gone and item.key in (one.row.path, _told_apart(one))
        return item.source != self._gone and self._paths[item.source](item.key) == self._list.path(
            one.loaded.item.key
        )

    def _at(self, path: str) -> ItemRow | None:
        """The picture of a path, where nothing else is known of a row."""
        known = self._store.known(self._gone, path)
        if known is not None and known.content is not None:
            return known
        return self._store.item(self._present[path]) if path in self._present else None

    @cached_property
    def _present(self) -> dict[str, int]:
        """The pictures that are not gone by their paths."""
        items = self._store.items(failed=False)
        there = (item for item in items if item.source != self._gone and not item.missing)
        return {self._paths[item.source](item.key): item.id for item in there}

    def _make(self, one: _Seen, fresh: "dict[tuple[bool, str], _Seen]") -> None:
        """Put a row among those that become items, or tell what it tells of one of them."""
        if one.gone and self._is_taken(one, fresh):
            one.loaded.item = replace(one.loaded.item, key=_told_apart(one))
        twin = fresh.setdefault(one.name, one)
        if twin is one:
            return
        one.loaded.failure = _other_vector(one, twin.loaded.vectors)
        if not one.loaded.failure:
            twin.loaded.metadata = _merged(twin.loaded.metadata, one.loaded.metadata)
            self._report.merged += 1

    def _is_taken(self, one: _Seen, fresh: "Mapping[tuple[bool, str], _Seen]") -> bool:
        """Whether another picture that is gone has the path of this one."""
        if twin := fresh.get(one.name):
            return twin.loaded.sha256 != one.loaded.sha256
        known = self._store.known(self._gone, one.row.path)
        if known is None or known.content is None:
            return False
        same = (one.loaded.sha256, _stand_in(one.row.path))  # its own bytes, or those that nobody knows
        return known.content not in map(self._store.content_of, same)

    # ------------------------------------------------------------------ into the collection

    def _commit(self, ones: Sequence[_Seen]) -> None:
        """One transaction; a content gets a vector only where it has none."""
        fresh: set[bytes] = set()
        for one in ones:
            loaded = one.loaded
            if loaded.sha256 in fresh or self._store.content_of(loaded.sha256) in self._encoded:
                loaded.vectors = None
            fresh.add(loaded.sha256)
        if ones:
            self._report.gone += sum(one.gone for one in ones)
            self._of(ones[0].gone).commit([one.loaded for one in ones])

    def _refuse_other_vectors(self, again: "Sequence[tuple[_Seen, ItemRow]]") -> None:
        """Fail the rows of a path that have another vector than its picture."""
        if unsure := [(one, here) for one, here in again if one.row.sha256 is None]:
            snapshot = self._store.snapshot(self._space)
            contents, rows = np.unique(snapshot.contents, return_index=True)
            places = np.searchsorted(contents, [here.content or 0 for _, here in unsure])
            for (one, _), vector in zip(unsure, snapshot.vectors(rows[places]), strict=True):
                one.loaded.failure = _other_vector(one, vector)

    def _merge(self, again: "Sequence[tuple[_Seen, ItemRow]]") -> None:
        """Keep what further rows tell of pictures that came with this import."""
        if not again:
            return
        with self._writer.transaction() as db:
            for one, here in again:
                metadata = _merged(self._store.metadata_of(here.id), one.loaded.metadata)
                db.execute("UPDATE items SET metadata = ? WHERE id = ?", (metadata, here.id))
        self._report.merged += len(again)

    def _fail(self, one: _Seen) -> None:
        """Record a row that gives no vector, unless its picture has one from elsewhere."""
        outcomes = self._of(one.gone)
        known = self._store.known(outcomes.source_id, one.loaded.item.key)
        if known is not None and known.content is not None:
            outcomes.fail(one.loaded.item, one.loaded.failure or "")
        else:
            outcomes.commit([one.loaded])

    def _of(self, gone: bool) -> Outcomes:
        if gone not in self._outcomes:
            source = restore(*GONE, {}) if gone else self._list
            made = self._outcomes[gone] = Outcomes(self._writer, self._space, source, self._report)
            made.encoded = self._encoded  # both add to the one
            made.before = self._before  # it may be made in the middle of the import
        return self._outcomes[gone]

    def _source(self, kind: str, root: str) -> int:
        """The id of a source, or 0, which none has."""
        return next((row.id for row in self._store.sources() if (row.kind, row.root) == (kind, root)), 0)

    def _found_again(self, found: Sequence[_Seen]) -> None:
        """Forget that pictures were gone whose files are there now."""
        source = self._source(*GONE)
        stale = [path for one in found for path in self._names(one) if self._is_stale(source, path)]
        if stale:
            with self._writer.transaction() as db:
                rows = [(source, to_sql(path)) for path in stale]
                db.executemany("DELETE FROM items WHERE source = ? AND key = ?", rows)

    def _names(self, one: _Seen) -> set[str]:
        return {one.row.path, self._list.path(one.loaded.item.key)}

    def _is_stale(self, source: int, path: str) -> bool:
        """Whether a picture that was gone is this one: a relative path is no file's alone."""
        known = self._store.known(source, path)
        nobody_knows = known is not None and known.content == self._store.content_of(_stand_in(path))
        return known is not None and (nobody_knows or os.path.isabs(path))


def _loaded(row: Row, item: Item, sha256: bytes = b"") -> Loaded:
    loaded = Loaded(item, sha256)
    try:
        loaded.metadata = as_json(row.metadata)
    except SourceError as error:
        loaded.failure = str(error)
    return loaded


def _absent(row: Row) -> _Seen:
    return _Seen(row, _loaded(row, Item(row.path, _nothing), row.sha256 or _stand_in(row.path)), gone=True)


def _stand_in(path: str) -> bytes:
    """The digest of a picture whose bytes nobody knows."""
    return hashlib.sha256(b"a picture that is gone\0" + path.encode("utf-8", "surrogatepass")).digest()


def _told_apart(one: _Seen) -> str:
    """The path of a picture that is gone where another one has the same."""
    return f"{one.row.path} ({one.loaded.sha256.hex()[:8]})"


def _merged(known: str, more: str) -> str:
    return json.dumps(both(json.loads(known), json.loads(more)))


def _other_vector(one: _Seen, vector: Any) -> str | None:
    """Why a row is not of the picture that has this vector; None: it is, as far as one can tell."""
    mine: Any = one.loaded.vectors
    same = one.row.sha256 is not None or float(np.vdot(mine, vector)) > 1 - UNIT
    return None if same else "another row has this path and another vector; expected a path for each picture"


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
