"""Ingest: discover, skip what is unchanged, decode ahead in threads, encode in batches, commit.

Every picture ends in exactly one outcome. A kill at any instant costs at most the last few
seconds of encoding: the next run skips what was committed.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from PIL.Image import Image

from .decode import content_digest, decode
from .errors import CollectionError, ImageError, ModelError, ModelMismatchError
from .files import cores, interrupts_held
from .outcomes import Loaded, Outcomes
from .progress import progress_bar
from .report import Interrupted, Report, reason_of
from .sources.known import as_json
from .store import Space, Store
from .tiles import cut, shortest
from .types import FOREIGN, Embeddings, Encoder, Item, Prepares, Source, as_embeddings
from .writer import Writer, writing

logger = logging.getLogger("clipsearch")

BATCH = 64  # pictures or tiles encoded at a time
BATCH_WHOLE = 8  # the same for encoders without `prepare`: their pictures wait at full size
COMMIT_SECONDS = 10.0  # what a kill may cost
COMMIT_PICTURES = 8192  # what memory holds before a commit; with tiles, each counts as one


def ingest(
    store: Store,
    space: Callable[[Writer], Space],
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
        space: gives the space whose vectors to add, of which `encoder` is the model. Called only
            when the source has shown that it holds pictures. The store has the tiles by then.
        source: the pictures. Those it no longer has become missing if it lists all it has.
        encoder: turns pictures into vectors.
        retry_failed: read pictures again that failed before and have not changed since.
        batch_size: pictures or tiles encoded at a time; None chooses.
        progress: show a bar; None does where a terminal is watching.

    Returns:
        What became of every picture.

    Raises:
        Interrupted: Ctrl-C; what was encoded is committed.
        ModelMismatchError: a picture must be encoded, and the space's vectors were imported.
        SourceError: the source is absent or empty; nothing was changed.
        LockedError: another process is writing to the collection.
    """
    with writing(store) as writer, progress_bar(source.root, progress) as bar:
        items = _peek(source.items())  # an absent or empty source raises here, before any change
        return _Ingest(writer, space(writer), source, encoder, retry_failed, batch_size, bar).run(items)


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
        self.store, self.space = writer.store, space
        self.source, self.encoder, self.retry_failed = source, encoder, retry_failed
        self.prepares = encoder if isinstance(encoder, Prepares) else None
        self.wanted_batch_size = batch_size
        self.pool: Executor | None = None  # the model's threads, once there is something to encode
        self.pending: list[Loaded] = []  # done, not yet committed
        self.in_flight: set[bytes] = set()  # sha256 of those pending
        self.broken = 0  # how many the model has failed on since it last worked
        self.bar = bar
        self.lock = threading.Lock()  # over the report's times, which the threads add to
        self.report = Report(source=source.root, model=encoder.model_id)
        self.outcomes = Outcomes(writer, space, source, self.report)
        self.parts = self.outcomes.parts  # of every picture: the whole and its tiles

    def run(self, items: Iterable[Item]) -> Report:
        started = committed = time.perf_counter()
        try:
            for batch in self._encode(self._batches(self._load_ahead(self._discover(items)))):
                self.pending += batch
                self.bar.update(len(batch))
                if time.perf_counter() - committed > COMMIT_SECONDS or self._many(self.pending):
                    self._commit()
                    committed = time.perf_counter()
            self._commit()
            self.outcomes.mark_missing()
            self.report.warnings += getattr(self.source, "warnings", [])
        except KeyboardInterrupt:
            self._commit()
            raise Interrupted(self.report, f"{self.report.encoded:,} new pictures") from None
        except Exception:
            self._commit()  # a source or a model that breaks does not take with it what is done
            raise
        finally:
            self.report.seconds = time.perf_counter() - started
        return self.report

    def _many(self, pictures: Sequence[Loaded]) -> bool:
        return len(pictures) * len(self.parts) >= COMMIT_PICTURES

    def _commit(self) -> None:
        with interrupts_held():  # between the commit and the count of it there must be no Ctrl-C
            self.outcomes.commit(self.pending)
            self.in_flight.difference_update(loaded.sha256 for loaded in self.pending)
            self.pending.clear()

    def _discover(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield what must be read; count the rest as unchanged, or as failed as before."""
        for item in items:
            known = self.outcomes.see(item)
            if known is None or known.missing or item.stamp is None or item.stamp != known.stamp:
                yield item
            elif known.failure is not None and not self.retry_failed:
                self.outcomes.fail(item, known.failure)
            elif known.content in self.outcomes.encoded:
                self.report.unchanged += 1
                self.bar.update()
            else:
                yield item

    def _load_ahead(self, todo: Iterable[Item]) -> Iterator[Loaded]:
        """Load in threads, in order, about a batch and a half ahead, and never many unread."""
        window: deque[Future[Loaded]] = deque()
        unread = threading.Semaphore(2 * cores())  # an iterator hands over whole pictures
        with ThreadPoolExecutor(cores(), thread_name_prefix="clipsearch-decode") as pool:
            try:
                for item in todo:
                    unread.acquire()
                    window.append(pool.submit(self._load, item))
                    window[-1].add_done_callback(lambda _: unread.release())
                    if len(window) > max(self.together + self.together // 2, min(self.batch_size, cores())):
                        yield window.popleft().result()
                while window:
                    yield window.popleft().result()
            finally:
                for future in window:
                    future.cancel()

    def _load(self, item: Item) -> Loaded:
        """Read, hash, decode and prepare one picture; in a thread. What fails is told, not raised."""
        loaded = Loaded(replace(item, read=_spent))  # what it may hold is not kept until the commit
        started = time.perf_counter()
        try:
            loaded.metadata = as_json(item.metadata)
            data = _picture(item.read())
            loaded.sha256 = content_digest(data)
            if self.store.content_of(loaded.sha256) not in self.outcomes.encoded:
                picture = decode(data, min_side=self.min_side)
                loaded.facts = dict(picture.facts)
                loaded.prepared = [self._prepare(cut(picture.image, part)) for part in self.parts]
        except CollectionError:
            raise  # the collection's trouble, not the picture's
        except Exception as error:
            loaded.failure = reason_of(error)
            logger.debug("%s: %s", item.key, loaded.failure, exc_info=error)
            loaded.cause = error.with_traceback(None)  # whose frames would hold the picture
        with self.lock:
            self.report.decoding += (time.perf_counter() - started) / cores()
        return loaded

    def _prepare(self, image: Any) -> Any:
        return self.prepares.prepare(image) if self.prepares else image

    @property
    def min_side(self) -> int | None:
        """The shortest side of a picture, in pixels, of which every tile has what the model looks at."""
        side = self.prepares.min_side if self.prepares else None
        return round(side / shortest(self.parts)) if side else None

    def _batches(self, pictures: Iterable[Loaded]) -> Iterator[list[Loaded]]:
        """Group pictures so that each group has `together` of them for the model."""
        batch: list[Loaded] = []
        wanted = 0
        for loaded in pictures:
            batch.append(loaded)
            if loaded.prepared is not None and self._has(loaded.sha256):
                loaded.prepared = None  # the same bytes came in the meantime
            if loaded.prepared is not None:
                self.in_flight.add(loaded.sha256)
                wanted += 1
            if wanted == self.together or self._many(batch):
                yield batch
                batch, wanted = [], 0
        if batch:
            yield batch

    def _has(self, sha256: bytes) -> bool:
        return sha256 in self.in_flight or self.store.content_of(sha256) in self.outcomes.encoded

    # An encoder may have to load torch to answer these, so they are asked when a picture must be read.

    @cached_property
    def batch_size(self) -> int:
        default = getattr(self.encoder, "batch_size", BATCH) if self.prepares else BATCH_WHOLE
        return self.wanted_batch_size or int(default)

    @property
    def together(self) -> int:
        """How many pictures have a batch of tiles, at least one."""
        return max(1, self.batch_size // len(self.parts))

    @cached_property
    def forwards(self) -> int:
        return int(getattr(self.encoder, "forwards", 1))

    def _encode(self, batches: Iterable[list[Loaded]]) -> Iterator[list[Loaded]]:
        """Encode in the model's own threads, in order, one batch more than there are threads."""
        window: deque[tuple[list[Loaded], Future[None] | None]] = deque()
        with ExitStack() as stack:
            for batch in batches:
                window.append((batch, self._submit(batch, stack)))
                if len(window) > self.forwards:
                    yield self._encoded(*window.popleft())
            while window:
                yield self._encoded(*window.popleft())

    def _submit(self, batch: list[Loaded], stack: ExitStack) -> Future[None] | None:
        if all(loaded.prepared is None for loaded in batch):
            return None  # nothing for the model, which then need not even be loaded
        if self.pool is None:
            _refuse_foreign(self.space)
            self.pool = stack.enter_context(self._forward_threads())
        return self.pool.submit(self._encode_batch, batch)

    @contextmanager
    def _forward_threads(self) -> Iterator[Executor]:
        """The model's own threads, if it brings some, and all that is to be said of it."""
        started, report = time.perf_counter(), self.report
        self._say(f"loading {report.model}")
        own = getattr(self.encoder, "forward_threads", None)
        with own() if own else ThreadPoolExecutor(1, "clipsearch-forward") as pool:
            report.device = str(getattr(self.encoder, "device", ""))
            report.precision = str(getattr(self.encoder, "precision", ""))
            report.loading = time.perf_counter() - started
            self._say(f"encoding with {report.on}")
            yield pool

    def _say(self, text: str) -> None:
        self.bar.clear()
        logger.info(text)

    def _encode_batch(self, batch: list[Loaded]) -> None:
        started = time.perf_counter()
        self._vectors([loaded for loaded in batch if loaded.prepared is not None])
        with self.lock:
            self.report.encoding += (time.perf_counter() - started) / self.forwards

    def _encoded(self, batch: list[Loaded], future: Future[None] | None) -> list[Loaded]:
        """The batch with its vectors. A model that failed on all of it is told, and blames no picture."""
        if future:
            future.result()
        good = sum(loaded.vectors is not None for loaded in batch)
        broken = [loaded for loaded in batch if loaded.prepared is not None]
        worked = self.report.encoded or self.outcomes.whole  # has the model ever
        self.broken = 0 if good else self.broken + len(broken)
        if broken and not good and not (worked and self.broken < max(2, self.batch_size)):
            raise ModelError(f"{self.encoder.model_id} failed on every picture: {broken[0].failure}")
        for loaded in broken:
            loaded.prepared = None
        self.report.encoded += good
        return batch

    def _vectors(self, wanted: Sequence[Loaded]) -> None:
        """Give each picture its vectors; one that breaks the model breaks only itself."""
        if not wanted:
            return
        try:
            vectors = self._forward([part for loaded in wanted for part in loaded.prepared or ()])
            for loaded, own in zip(wanted, np.split(vectors, len(wanted)), strict=True):
                loaded.vectors, loaded.prepared = own, None
        except Exception as error:
            half = len(wanted) // 2
            if not half:
                wanted[0].failure = f"the model failed on it: {reason_of(error)}"
            else:
                self._vectors(wanted[:half])
                self._vectors(wanted[half:])

    def _forward(self, prepared: list[Any]) -> Embeddings:
        """The vectors of some pictures and tiles, float32 (n, dim), a batch at a time."""
        batches = [prepared[i : i + self.batch_size] for i in range(0, len(prepared), self.batch_size)]
        return np.concatenate([self._forward_batch(batch) for batch in batches])

    def _forward_batch(self, prepared: list[Any]) -> Embeddings:
        encode = self.prepares.encode_prepared if self.prepares else self.encoder.encode_images
        vectors = as_embeddings(encode(prepared), dim=self.space.dim)
        if len(vectors) != len(prepared):
            raise ValueError(f"the encoder gave {len(vectors)} vectors for {len(prepared)} pictures")
        return vectors


def _picture(data: object) -> bytes | Image:
    """What `read` gave, if it is a picture."""
    if not isinstance(data, bytes | Image):
        raise ImageError(f"read() gave {type(data).__name__}; expected the bytes of a file or a PIL image")
    return data


def _refuse_foreign(space: Space) -> None:
    """Keep the vectors of an encoder here apart from those that another program made.

    Raises:
        ModelMismatchError: the space has such vectors.
    """
    if space.foreign:
        model = space.model.removeprefix(FOREIGN)
        raise ModelMismatchError(
            f"there are new pictures to encode, but the vectors in use are {space.model!r}: another program "
            f"made them, which may prepare pictures otherwise. Encode all pictures here: "
            f"add_model({model!r}), then use_model it (clipsearch index --upgrade --model {model})"
        )


def _spent() -> bytes:
    raise ImageError("it was read already")


def _peek(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; the first is fetched now, so that a source that cannot be read says so."""
    first = list(islice(items, 1))
    return (item for part in (first, items) for item in part)
