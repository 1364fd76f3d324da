"""Captioning: a vision-language model writes a text about every picture that has none yet.

A kill costs at most the last seconds: what was written is committed, and the next run goes on.
"""

import json
import logging
import operator
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .candidates import VLM_SIDE, pixels
from .captions import (
    Captioner,
    drop_empty,
    find_vectors,
    in_use,
    make_captioner,
    make_vectors,
    texts,
    use_captioner,
    write_captions,
    written,
)
from .encoders.names import short
from .errors import (
    CollectionError,
    ImageError,
    LockedError,
    ModelError,
    ModelMismatchError,
    QueryError,
    ServerError,
    SourceError,
)
from .files import cores, interrupts_held
from .filters import Selection
from .progress import progress_bar
from .report import Failure, Interrupted, reason_of
from .search import Searcher
from .store import Space, Store
from .types import VLM, Encoder, as_embeddings, fingerprint_of
from .writer import Writer, writing

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger("clipsearch")

BATCH = 8  # pictures captioned at a time
BROKE = "the model failed on it: "
COMMIT_SECONDS = 10.0  # what a kill may cost
TEXTS_TOGETHER = 4096  # captions whose vectors are committed at a time


@dataclass
class CaptionReport:
    """What `caption` did: every picture that is shown is counted once.

    Attributes:
        model: the captioner's.
        captioned: contents that were given a caption.
        unchanged: contents that had one.
        failed: pictures without one, now or when last tried, with the reason.
        seconds: wall time.
    """

    model: str
    captioned: int = 0
    unchanged: int = 0
    failed: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self) | {"failed": [failure._asdict() for failure in self.failed]}

    def __str__(self) -> str:
        failed = f", {len(self.failed):,} failed" if self.failed else ""
        speed = f": {self.captioned / self.seconds:.2f} images/s" if self.captioned else ""
        done = f"{self.captioned:,} captioned, {self.unchanged:,} unchanged{failed}"
        return f"{done} in {self.seconds:.1f} s{speed} with {short(self.model)}"


class _Loaded(NamedTuple):
    content: int
    path: str
    image: "Image | None" = None
    reason: str = ""  # why there is no image
    lasting: bool = True  # the reason is of the picture, not of a disk that is not there now


def write_all(
    store: Store,
    searcher: Searcher,
    vlm: VLM,
    *,
    prompt: str | None,
    max_tokens: int,
    batch_size: int | None = None,
    retry_failed: bool = False,
    only: Selection | None = None,
    progress: bool | None = None,
) -> CaptionReport:
    """Caption every picture that has no caption of that model, prompt and length; see Collection.caption."""
    _check(batch_size, max_tokens, prompt)
    own = _json_of(vlm)
    spec = {"model": own.get("model", vlm.model_id), "prompt": prompt, "max_tokens": max_tokens}
    with writing(store) as writer:
        captioner = make_captioner(writer, {**spec, "min_side": VLM_SIDE, "vlm": own})
        job = _Captioning(writer, searcher, captioner, vlm, prompt, max_tokens, batch_size or BATCH)
        try:
            job.run(searcher.contents(only), retry_failed, progress)
        finally:
            drop_empty(writer, captioner)
        _take_over(writer, captioner, whole=only is None)
    return job.report


def _check(batch_size: int | None, max_tokens: int, prompt: str | None) -> None:
    for name, number in (("batch_size", batch_size), ("max_tokens", max_tokens)):
        if number is not None and not (isinstance(number, int) and number >= 1):
            raise QueryError(f"{name} is a whole number from 1, got {number!r}")
    if prompt is not None and not isinstance(prompt, str):
        raise QueryError(f"a prompt is a text, got {prompt!r:.80}")


def _json_of(vlm: VLM) -> dict[str, Any]:
    try:
        own: dict[str, Any] = json.loads(json.dumps(dict(vlm.spec()), allow_nan=False))
        return own
    except (TypeError, ValueError) as error:
        raise ModelError(f"{vlm.model_id!r}: its spec() is to be a dict of JSON values ({error})") from error


def _take_over(writer: Writer, captioner: Captioner, *, whole: bool) -> None:
    """Use a captioner that has ended, unless it wrote of some pictures only and of fewer than another."""
    used, have = in_use(writer.store), len(written(writer.store, captioner)[0])
    if used is None or used.id == captioner.id or not have:
        return
    if whole or have >= len(written(writer.store, used)[0]):
        return use_captioner(writer, captioner)
    logger.info(
        "the captions of %s stay in use, since it captioned more pictures; use_captions(%d) changes that",
        used.model,
        captioner.id,
    )


class _Captioning:
    def __init__(
        self,
        writer: Writer,
        searcher: Searcher,
        captioner: Captioner,
        vlm: VLM,
        prompt: str | None,
        max_tokens: int,
        batch_size: int,
    ) -> None:
        self.writer, self.searcher, self.captioner, self.vlm = writer, searcher, captioner, vlm
        self.prompt, self.max_tokens, self.batch_size = prompt, max_tokens, batch_size
        self.report = CaptionReport(captioner.model)
        self.texts: dict[int, str] = {}  # by content, not yet committed
        self.failures: dict[int, Failure] = {}  # likewise

    def run(self, contents: npt.NDArray[np.int64], retry_failed: bool, progress: bool | None) -> None:
        started = committed = time.perf_counter()
        todo = self._todo(contents, retry_failed)
        try:
            with progress_bar("captions", progress, total=len(todo)) as bar:
                for batch in _batches(self._load_ahead(todo), self.batch_size):
                    self._caption(batch)
                    self._check_model(max(2, min(self.batch_size, len(todo))))
                    bar.update(len(batch))
                    if time.perf_counter() - committed > COMMIT_SECONDS:
                        self._commit()
                        committed = time.perf_counter()
        except KeyboardInterrupt:
            self._commit()
            raise Interrupted(self.report, f"{self.report.captioned:,} new captions") from None
        finally:
            self._commit()  # a model that breaks does not take with it what is done
            self.report.seconds = time.perf_counter() - started

    def _todo(self, contents: npt.NDArray[np.int64], retry_failed: bool) -> list[int]:
        """The contents that are to have a caption; those that have one, or failed, are counted."""
        have, failed = written(self.writer.store, self.captioner)
        todo: list[int] = np.setdiff1d(contents, have).tolist()
        self.report.unchanged = len(contents) - len(todo)
        if not retry_failed:
            again = [content for content in todo if content in failed]
            self.report.failed = [Failure(self._path(content), failed[content]) for content in again]
        return todo if retry_failed else [content for content in todo if content not in failed]

    def _path(self, content: int) -> str:
        return next((place.path for place in self.searcher.places(content)), "")

    def _load_ahead(self, contents: Iterable[int]) -> Iterator[_Loaded]:
        """Read in threads, in order, a batch ahead."""
        window: deque[Future[_Loaded]] = deque()
        with ThreadPoolExecutor(cores(), thread_name_prefix="clipsearch-decode") as pool:
            try:
                for content in contents:
                    window.append(pool.submit(self._load, content))
                    if len(window) > self.batch_size:
                        yield window.popleft().result()
                while window:
                    yield window.popleft().result()
            finally:
                for future in window:
                    future.cancel()

    def _load(self, content: int) -> _Loaded:
        """The first file of a content that can be read and is still what was added."""
        found = _Loaded(content, "", reason="it was removed meanwhile")
        sha256 = self.writer.store.sha256s([content]).get(content, b"")
        for place in self.searcher.places(content):
            try:
                return _Loaded(content, place.path, pixels(place.read, sha256))
            except (ImageError, SourceError, OSError) as error:
                lasting = isinstance(error, ImageError)
                found = _Loaded(content, place.path, reason=reason_of(error), lasting=lasting)
        return found

    def _caption(self, batch: Sequence[_Loaded]) -> None:
        for loaded in batch:
            if loaded.image is None and loaded.lasting:
                self._fail(loaded, loaded.reason)
            elif loaded.image is None:
                self.report.failed.append(Failure(loaded.path, loaded.reason))
        self._write([loaded for loaded in batch if loaded.image is not None])

    def _write(self, batch: Sequence[_Loaded]) -> None:
        """Ask for captions; a picture that breaks the model breaks only itself."""
        if not batch:
            return
        try:
            found = self._ask(batch)
        except (ModelError, ServerError):
            raise  # no picture's fault
        except Exception as error:
            half = len(batch) // 2
            if not half:
                return self._fail(batch[0], BROKE + reason_of(error))
            self._write(batch[:half])
            return self._write(batch[half:])
        for loaded, text in zip(batch, found, strict=True):
            if text:
                self.texts[loaded.content] = text
            else:
                self._fail(loaded, f"{BROKE}it wrote nothing")

    def _ask(self, batch: Sequence[_Loaded]) -> list[str]:
        images = [loaded.image for loaded in batch if loaded.image is not None]
        found = self.vlm.generate(images, self.prompt, max_tokens=self.max_tokens)
        if not isinstance(found, list | tuple) or not all(isinstance(text, str) for text in found):
            raise ModelError(f"{self.vlm.model_id!r} gave {found!r:.80}; expected a list of texts")
        if len(found) != len(batch):
            raise ModelError(f"{self.vlm.model_id!r} gave {len(found)} texts for {len(batch)} pictures")
        return [_clean(text) for text in found]

    def _fail(self, loaded: _Loaded, why: str) -> None:
        self.failures[loaded.content] = Failure(loaded.path, why)

    def _check_model(self, many: int) -> None:
        """Blame the model and no picture when it has failed on so many and never worked."""
        refused = [failure.reason for failure in self.failures.values() if failure.reason.startswith(BROKE)]
        worked = self.texts or self.report.captioned or self.report.unchanged
        if not worked and len(refused) >= many:
            self.failures.clear()
            why = refused[0].removeprefix(BROKE)
            raise ModelError(f"{self.vlm.model_id!r} failed on every picture: {why}")

    def _commit(self) -> None:
        with interrupts_held():  # between the commit and the count of it there must be no Ctrl-C
            if self.texts or self.failures:
                with self.writer.transaction() as db:
                    failed = {content: failure.reason for content, failure in self.failures.items()}
                    write_captions(db, self.captioner, self.texts, failed)
            self.report.captioned += len(self.texts)
            self.report.failed += self.failures.values()
            self.texts.clear()
            self.failures.clear()


def _clean(text: str) -> str:
    """One line of a text that SQLite takes: no NUL, no half of a surrogate pair."""
    return " ".join(text.replace("\0", " ").encode("utf-8", "replace").decode().split())


def _batches(items: Iterable[_Loaded], size: int) -> Iterator[list[_Loaded]]:
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def vectors_in_use(store: Store, encoder: Encoder) -> Space:
    """The space of a text model's vectors of the captions in use; those that it lacks are encoded now.

    While another process writes, those that are there are taken.

    Raises:
        CollectionError: there are no captions, or some lack a vector and the collection may not be changed.
        LockedError: none has a vector, and another process is writing to the collection.
        ModelMismatchError: they were made with other weights.
    """
    captioner = _in_use(store)
    space = find_vectors(store, captioner, encoder.model_id)
    if space is not None and _is_complete(store, captioner, space, encoder):
        return space
    if store.read_only:
        raise CollectionError(
            f"captions of {store.path} have no vectors of {short(encoder.model_id)} yet, and it may not be "
            "changed now: run `clipsearch caption DIR --vectors MODEL`, or encode_captions(model), first"
        )
    try:
        return fill_vectors(store, encoder)
    except LockedError:
        if space is None:
            raise
        return space


def fill_vectors(store: Store, encoder: Encoder, *, progress: bool | None = None) -> Space:
    """The same, shown by a bar.

    Raises:
        CollectionError: there are no captions.
        LockedError: another process is writing to the collection.
        ModelMismatchError: there are vectors of other weights.
    """
    with writing(store) as writer, progress_bar("vectors", progress, unit="captions") as bar:
        captioner = _in_use(store)  # as it is now that nobody else may change it
        space = find_vectors(store, captioner, encoder.model_id) or make_vectors(
            writer,
            captioner,
            model=encoder.model_id,
            fingerprint=fingerprint_of(encoder),
            dim=operator.index(encoder.dim),
        )
        _check_weights(store, space, encoder)
        have = set(store.snapshot(space).contents.tolist())
        waiting = ((content, text) for content, text in texts(store, captioner) if content not in have)
        while part := list(islice(waiting, TEXTS_TOGETHER)):
            vectors = as_embeddings(encoder.encode_texts([text for _, text in part], role="document"))
            with writer.transaction():
                writer.append(space, [content for content, _ in part], vectors)
            bar.update(len(part))
    return space


def _in_use(store: Store) -> Captioner:
    captioner = in_use(store)
    if captioner is None:
        raise CollectionError(f"{store.path} has no captions yet; write some with caption()")
    return captioner


def _is_complete(store: Store, captioner: Captioner, space: Space, encoder: Encoder) -> bool:
    _check_weights(store, space, encoder)
    have, _ = written(store, captioner)
    return not len(np.setdiff1d(have, store.snapshot(space).contents))


def _check_weights(store: Store, space: Space, encoder: Encoder) -> None:
    if space.fingerprint != fingerprint_of(encoder):
        raise ModelMismatchError(
            f"the captions of {store.path} have vectors of other weights of {encoder.model_id!r}; "
            "remove the captions, or use those weights"
        )
