"""Ingest: discover, skip what is unchanged, decode ahead in threads, encode in batches, commit.

Every picture ends in exactly one outcome. A kill at any instant costs at most the last few
seconds of encoding: the next run skips what was committed.
"""

import hashlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from .decode import decode
from .errors import ImageError, ModelError
from .files import cores
from .render import printable
from .report import Failure, Report
from .store import ItemRow, Space, Store, to_sql
from .types import Embeddings, Encoder, Item, Prepares, Source, as_embeddings
from .writer import Writer, writing

logger = logging.getLogger("clipsearch")

BATCH = 64  # pictures encoded at a time
BATCH_WHOLE = 8  # the same for encoders without `prepare`: their pictures wait at full size
COMMIT_SECONDS = 10.0  # what a kill may cost
COMMIT_PICTURES = 8192  # what memory holds before a commit


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while adding: what was encoded is committed, and the same call goes on from there."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"stopped; {report.encoded:,} new pictures are safe, add again to go on")
        self.report = report


@dataclass(slots=True)
class Loaded:
    """One picture on its way: what the threads found out about it."""

    item: Item
    known: ItemRow | None  # what the collection has under its key
    sha256: bytes = b""
    facts: dict[str, Any] = field(default_factory=dict)
    prepared: Any = None  # None: it failed, or its bytes have a vector already
    vector: npt.NDArray[np.float32] | None = None  # (dim,)
    failure: str | None = None
    cause: Exception | None = None  # of the failure


def ingest(
    store: Store,
    space: Space,
    source: Source,
    encoder: Encoder,
    *,
    retry_failed: bool = False,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Report:
    """Bring a collection up to date with a source.

    Args:
        store: the collection.
        space: whose vectors to add; `encoder` is its model.
        source: the pictures. Those it no longer has become missing if it lists all it has.
        encoder: turns pictures into vectors.
        retry_failed: read pictures again that failed before and have not changed since.
        batch_size: pictures encoded at a time; None chooses.
        progress: show a bar; None does where a terminal is watching.

    Returns:
        What became of every picture.

    Raises:
        Interrupted: Ctrl-C; what was encoded is committed.
        SourceError: the source is absent or empty; nothing was changed.
        LockedError: another process is writing to the collection.
    """
    with writing(store) as writer, _bar(source.root, progress) as bar:
        return _Ingest(writer, space, source, encoder, retry_failed, batch_size, bar).run()


class _Ingest:
    def __init__(
        self,
        writer: Writer,
        space: Space,
        source: Source,
        encoder: Encoder,
        retry_failed: bool,
        batch_size: int | None,
        bar: Any,
    ) -> None:
        self.writer, self.store, self.space = writer, writer.store, space
        self.source, self.encoder, self.retry_failed = source, encoder, retry_failed
        self.prepares = encoder if isinstance(encoder, Prepares) else None
        default = getattr(encoder, "batch_size", BATCH) if self.prepares else BATCH_WHOLE
        self.batch_size = batch_size or default
        self.forwards = getattr(encoder, "forwards", 1)
        self.encoded = _Contents(self.store.snapshot(space).contents)  # which have a vector
        self.pending: list[Loaded] = []  # done, not yet committed
        self.in_flight: set[bytes] = set()  # sha256 of those pending
        self.bar = bar
        self.lock = threading.Lock()  # over the report's times, which the threads add to
        self.report = Report(
            source=source.root,
            model=encoder.model_id,
            device=str(getattr(encoder, "device", "its own device")),
            precision=str(getattr(encoder, "precision", "its own precision")),
        )

    def run(self) -> Report:
        started = committed = time.perf_counter()
        found = _peek(self.source.items())  # an absent or empty source raises here, before any change
        self.source_id = self.writer.add_source(self.source.kind, self.source.root, self.source.options)
        self.store.db.execute("CREATE TEMP TABLE seen (key PRIMARY KEY) WITHOUT ROWID")
        try:
            for batch in self._encode(self._batches(self._load_ahead(self._discover(found)))):
                self.pending += batch
                self.bar.update(len(batch))
                if time.perf_counter() - committed > COMMIT_SECONDS or len(self.pending) >= COMMIT_PICTURES:
                    self._commit()
                    committed = time.perf_counter()
            self._commit()
            self._mark_missing()
        except KeyboardInterrupt as interrupt:
            self._commit()
            raise Interrupted(self.report) from interrupt
        except Exception:
            self._commit()  # a source or a model that breaks does not take with it what is done
            raise
        finally:
            self.store.db.execute("DROP TABLE temp.seen")
            self.report.seconds = time.perf_counter() - started
        return self.report

    # ---------------------------------------------------------------- discover and load

    def _discover(self, items: Iterable[Item]) -> Iterator[tuple[Item, ItemRow | None]]:
        """Yield what must be read; count the rest as unchanged, or as failed as before."""
        for item in items:
            self.store.db.execute("INSERT OR IGNORE INTO temp.seen VALUES (?)", (to_sql(item.key),))
            known = self.store.known(self.source_id, item.key)
            if known is None or known.missing or item.stamp is None or item.stamp != known.stamp:
                yield item, known
            elif known.failure is not None and not self.retry_failed:
                self._fail(item, known.failure)
            elif known.content in self.encoded:
                self.report.unchanged += 1
                self.bar.update()
            else:
                yield item, known

    def _load_ahead(self, todo: Iterable[tuple[Item, ItemRow | None]]) -> Iterator[Loaded]:
        """Load in threads, in order, never more than a batch and a half ahead."""
        window: deque[Future[Loaded]] = deque()
        with ThreadPoolExecutor(cores(), thread_name_prefix="clipsearch-decode") as pool:
            try:
                for item, known in todo:
                    window.append(pool.submit(self._load, item, known))
                    if len(window) > self.batch_size + self.batch_size // 2:
                        yield window.popleft().result()
                while window:
                    yield window.popleft().result()
            finally:
                for future in window:
                    future.cancel()

    def _load(self, item: Item, known: ItemRow | None) -> Loaded:
        """Read, hash, decode and prepare one picture; in a thread. What fails is told, not raised."""
        loaded = Loaded(item, known)
        started = time.perf_counter()
        try:
            data = item.read()
            loaded.sha256 = _sha256(data)
            if self.store.content_of(loaded.sha256) not in self.encoded:
                picture = decode(data, min_side=self.prepares.min_side if self.prepares else None)
                loaded.facts = dict(picture.facts)
                loaded.prepared = self.prepares.prepare(picture.image) if self.prepares else picture.image
        except Exception as error:
            loaded.failure, loaded.cause = _reason(error), error
            logger.debug("%s: %s", item.key, loaded.failure, exc_info=error)
        with self.lock:
            self.report.decoding += (time.perf_counter() - started) / cores()
        return loaded

    # ---------------------------------------------------------------- encode

    def _batches(self, pictures: Iterable[Loaded]) -> Iterator[list[Loaded]]:
        """Group pictures so that each group has `batch_size` of them for the model."""
        batch: list[Loaded] = []
        wanted = 0
        for loaded in pictures:
            batch.append(loaded)
            if loaded.prepared is not None and self._has(loaded.sha256):
                loaded.prepared = None  # the same bytes came in the meantime
            if loaded.prepared is not None:
                self.in_flight.add(loaded.sha256)
                wanted += 1
            if wanted == self.batch_size or len(batch) == COMMIT_PICTURES:
                yield batch
                batch, wanted = [], 0
        if batch:
            yield batch

    def _has(self, sha256: bytes) -> bool:
        return sha256 in self.in_flight or self.store.content_of(sha256) in self.encoded

    def _encode(self, batches: Iterable[list[Loaded]]) -> Iterator[list[Loaded]]:
        """Encode in the model's own threads, in order, one batch more than there are threads."""
        window: deque[tuple[list[Loaded], Future[None]]] = deque()
        with self._forward_threads() as pool:
            for batch in batches:
                window.append((batch, pool.submit(self._encode_batch, batch)))
                if len(window) > self.forwards:
                    yield self._encoded(*window.popleft())
            while window:
                yield self._encoded(*window.popleft())

    def _forward_threads(self) -> AbstractContextManager[Executor]:
        own = getattr(self.encoder, "forward_threads", None)
        return own() if own else ThreadPoolExecutor(1, "clipsearch-forward")

    def _encode_batch(self, batch: list[Loaded]) -> None:
        started = time.perf_counter()
        self._vectors([loaded for loaded in batch if loaded.prepared is not None])
        with self.lock:
            self.report.encoding += (time.perf_counter() - started) / self.forwards

    def _encoded(self, batch: list[Loaded], future: Future[None]) -> list[Loaded]:
        """The batch with its vectors. A model that failed on all of it is told, and blames no picture."""
        future.result()
        good = sum(loaded.vector is not None for loaded in batch)
        broken = [loaded for loaded in batch if loaded.prepared is not None]
        if broken and not good and (len(broken) > 1 or not self.report.encoded):
            raise ModelError(f"{self.encoder.model_id} failed on every picture: {broken[0].failure}")
        for loaded in broken:
            loaded.prepared = None
        self.report.encoded += good
        return batch

    def _vectors(self, wanted: Sequence[Loaded]) -> None:
        """Give each picture its vector; one that breaks the model breaks only itself."""
        if not wanted:
            return
        try:
            for loaded, vector in zip(wanted, self._forward([w.prepared for w in wanted]), strict=True):
                loaded.vector, loaded.prepared = vector, None
        except Exception as error:
            half = len(wanted) // 2
            if not half:
                wanted[0].failure = f"the model failed on it: {_reason(error)}"
            else:
                self._vectors(wanted[:half])
                self._vectors(wanted[half:])

    def _forward(self, prepared: list[Any]) -> Embeddings:
        encode = self.prepares.encode_prepared if self.prepares else self.encoder.encode_images
        vectors = as_embeddings(encode(prepared), dim=self.space.dim)
        if len(vectors) != len(prepared):
            raise ValueError(f"the encoder gave {len(vectors)} vectors for {len(prepared)} pictures")
        return vectors

    # ---------------------------------------------------------------- commit

    def _commit(self) -> None:
        """One transaction for all that is done; counted only once it holds."""
        if not self.pending:
            return
        started = time.perf_counter()
        contents: list[int] = []
        vectors: list[npt.NDArray[np.float32]] = []
        outcomes: list[str] = []
        with self.writer.transaction():
            for loaded in self.pending:
                content = self._content(loaded)
                outcomes.append(self._place(loaded, content))
                if content is not None and loaded.vector is not None:
                    contents.append(content)
                    vectors.append(loaded.vector)
            if contents:
                self.writer.append(self.space, contents, np.stack(vectors))
        self.encoded.add(contents)
        for loaded, outcome in zip(self.pending, outcomes, strict=True):
            self._count(loaded, outcome)
        self.in_flight.difference_update(loaded.sha256 for loaded in self.pending)
        self.pending.clear()
        self.report.writing += time.perf_counter() - started

    def _content(self, loaded: Loaded) -> int | None:
        """The id of its bytes, new ones recorded; None for a picture that failed."""
        known = None if loaded.failure else self.store.content_of(loaded.sha256)
        if known is None and loaded.vector is not None:
            return self.writer.add_content(loaded.sha256, loaded.facts)
        if known is None and not loaded.failure:
            loaded.failure = "the model failed on another picture with the same bytes"
        return known

    def _place(self, loaded: Loaded, content: int | None) -> str:
        """Put the item where it belongs, and name the outcome."""
        item, known = loaded.item, loaded.known
        unread = isinstance(loaded.cause, OSError)  # nobody knows what its bytes are now, which may pass
        if unread and known and known.content is not None:
            return self._keep(known, loaded)
        stamp = None if unread else item.stamp  # permissions change without the stamp: try again
        values = (stamp, content, loaded.failure, json.dumps(dict(item.metadata)))
        others = self.store.items_showing(content) if known is None and content is not None else []
        moved = next((other for other in others if self._gone(other)), None)
        if target := known or moved:
            update = "UPDATE items SET stamp = ?, content = ?, failure = ?, metadata = ?, missing = 0"
            where = (self.source_id, to_sql(item.key), target.id)
            self.store.db.execute(f"{update}, source = ?, key = ? WHERE id = ?", (*values, *where))
        else:
            insert = "INSERT INTO items (stamp, content, failure, metadata, source, key) VALUES (?,?,?,?,?,?)"
            self.store.db.execute(insert, (*values, self.source_id, to_sql(item.key)))
        if content is None:
            return "failed"
        if known:
            return "unchanged" if known.content == content else "updated"
        return "moved" if moved else "same_content" if others else "added"

    def _keep(self, known: ItemRow, loaded: Loaded) -> str:
        """Keep the vector of a picture that cannot be read now; hide it if its file is gone."""
        if not isinstance(loaded.cause, FileNotFoundError):
            return "failed"
        self.store.db.execute("UPDATE items SET missing = 1 WHERE id = ?", (known.id,))
        return "missing"

    def _gone(self, other: ItemRow) -> bool:
        """Whether an item is no longer there, so that its bytes under another name have moved."""
        here = other.source == self.source_id and self.source.lists_all
        return other.missing or (here and self.source.item(other.key) is None)

    def _count(self, loaded: Loaded, outcome: str) -> None:
        if outcome == "failed":
            self._fail(loaded.item, loaded.failure or "")
        else:
            setattr(self.report, outcome, getattr(self.report, outcome) + 1)

    def _fail(self, item: Item, reason: str) -> None:
        self.report.failed.append(Failure(self.source.path(item.key), reason))

    # ---------------------------------------------------------------- what is gone

    def _mark_missing(self) -> None:
        """Hide the items that a full listing no longer names; forget those that had failed."""
        if not self.source.lists_all:  # asked after the listing: a folder in it may have been unreadable
            return
        gone = "FROM items WHERE source = ? AND NOT missing AND key NOT IN (SELECT key FROM temp.seen)"
        if not self.store.db.execute(f"SELECT 1 {gone}", (self.source_id,)).fetchone():
            return
        with self.writer.transaction() as db:
            db.execute(f"DELETE {gone} AND failure NOT NULL", (self.source_id,))
            hide = f"UPDATE items SET missing = 1 WHERE id IN (SELECT id {gone})"
            self.report.missing += db.execute(hide, (self.source_id,)).rowcount


class _Contents:
    """A set of content ids, one byte each: ten million take 10 MB."""

    def __init__(self, contents: npt.NDArray[np.int64]) -> None:
        self._flags = np.zeros(int(contents.max(initial=0)) + 1, np.bool_)
        self._flags[contents] = True

    def __contains__(self, content: int | None) -> bool:
        return content is not None and content < len(self._flags) and bool(self._flags[content])

    def add(self, contents: Sequence[int]) -> None:
        needed = max(contents, default=0) + 1
        if needed > len(self._flags):
            self._flags = np.concatenate([self._flags, np.zeros(needed, np.bool_)])  # at least doubled
        self._flags[list(contents)] = True


def _sha256(data: "bytes | Image.Image") -> bytes:
    """Digest of a file's bytes, or of what decides how a picture looks."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).digest()
    turned = data.getexif().get(ExifTags.Base.Orientation, 1)
    if data.mode in ("P", "PA"):  # the pixels are numbers of colours: equal ones may look different
        data = data.convert("RGBA")
    return hashlib.sha256(f"{data.mode} {data.size} {turned} ".encode() + data.tobytes()).digest()


def _reason(error: Exception) -> str:
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__}: {error}"


def _peek(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; the first is fetched now, so that a source that cannot be read says so."""
    first = list(islice(items, 1))
    return (item for part in (first, items) for item in part)


@contextmanager
def _bar(name: str, progress: bool | None) -> Iterator[Any]:
    from tqdm.auto import tqdm  # slow to import, and only needed here

    disable = None if progress is None else not progress
    with tqdm(desc=printable(name), unit=" pictures", disable=disable, leave=False) as bar:
        yield bar
