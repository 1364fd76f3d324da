"""Which index a collection is searched with, and when it is built anew."""

import atexit
import logging
import threading
from collections.abc import Callable
from typing import Any

from ..errors import ClipsearchError, DamagedError, LockedError
from ..exact import ExactIndex
from ..files import write_lock
from ..gpu import DeviceIndex, fits, upload
from ..progress import progress_bar
from ..spec import AUTO, EXACT, MAX_EXACT
from ..store import Snapshot, Space, Store
from .approximate import ApproximateIndex
from .build import Encode, build, chosen
from .published import About, Published, load, published_at, read_about

logger = logging.getLogger("clipsearch")

LOCK = "index.lock"  # one builder at a time; it disturbs nobody who adds or searches
WAITING, GONE = 0.10, 0.15  # shares from which an index is built anew: rows not in it, positions of no use
UPLOADED = 1 << 28  # bytes of vectors from which a GPU is worth sending them to
SHRUNK = 0.5  # of the size up to which every vector is looked at: an index that is there is kept until then


class Keeper:
    """The index of a store: loaded when another is published, built when one is due."""

    def __init__(
        self, store: Store, memory: int | None = None, device: Callable[[], str] = lambda: "cpu"
    ) -> None:
        """Keep the index of a store within `memory` bytes; None: whatever it takes.

        `device` tells where the model is: a GPU that holds all vectors looks at every one.
        """
        self._store, self._memory, self._device = store, memory, device
        self._uploaded: DeviceIndex | None = None
        self._stamp: object = None
        self._published: Published | None = None
        self._builder: threading.Thread | None = None
        self._loading = threading.Lock()

    def stamp(self, space: Space) -> object:
        """Changes whenever another index of a space is published."""
        return published_at(self._store, space)

    def index(self, snapshot: Snapshot) -> ExactIndex | ApproximateIndex | DeviceIndex:
        """What searches a snapshot: an index that is whole and fits, else every vector is looked at."""
        with self._loading:  # others wait for the index, and do not take its absence for an answer
            return self._there(snapshot) or self._on_processor(snapshot)

    def _on_processor(self, snapshot: Snapshot) -> ExactIndex | ApproximateIndex:
        stamp = (snapshot.space.id, self.stamp(snapshot.space))
        try:
            if stamp != self._stamp:
                self._published, self._stamp = None, stamp
                self._published = load(self._store, snapshot.space)
            return ApproximateIndex(snapshot, self._published) if self._published else ExactIndex(snapshot)
        except (DamagedError, ValueError) as error:
            self._published = None
            logger.warning("%s; every vector is looked at until it is built anew", error)
            return ExactIndex(snapshot)

    def _there(self, snapshot: Snapshot) -> DeviceIndex | None:
        """All vectors on the GPU, where that is worth it and no other index was asked for."""
        about = self.about(snapshot.space)
        asked = about is not None and about.wanted not in (AUTO, EXACT)
        if asked or not self._on_gpu(len(snapshot), snapshot.space.dim):
            return None
        try:
            self._uploaded = upload(snapshot, self._device(), earlier=self._uploaded)
        except ClipsearchError as error:
            logger.warning("%s", error)
            self._uploaded = None
        return self._uploaded

    def _on_gpu(self, rows: int, dim: int) -> bool:
        """Whether a GPU that is in use anyway has room for the vectors, and is worth sending them to."""
        if 2 * rows * dim < UPLOADED or self._device() == "cpu":
            return False
        return self._uploaded is not None or fits(self._device(), rows=rows, dim=dim)

    def about(self, space: Space) -> About | None:
        """What is known of the index of a space; None: there is none, or it is damaged."""
        try:
            return read_about(self._store, space)
        except DamagedError as error:
            logger.warning("%s", error)
            return None

    def due(self, space: Space) -> str:
        """Why an index is to be built; empty: it is not."""
        about, rows = self.about(space), sum(segment.rows for segment in self._store.segments(space))
        if about is None and 2 * rows * space.dim <= MAX_EXACT:
            return ""
        if (about is None or about.wanted == AUTO) and self._on_gpu(rows, space.dim):
            return ""
        snapshot = self._store.snapshot(space)
        choice = chosen(snapshot, about.wanted if about else AUTO, self._memory)
        built = about is not None and about.number > 0
        if not choice.spec.factory:
            return choice.why if built and 2 * rows * space.dim < SHRUNK * MAX_EXACT else ""
        index = self.index(snapshot)
        if not isinstance(index, ApproximateIndex) or index.about.layout != choice.spec.name:
            return choice.why
        if index.waiting > WAITING:
            return f"{index.waiting:.0%} of the vectors are not in the index"
        return f"{index.gone:.0%} of the index is of no use any more" if index.gone > GONE else ""

    def describe(self, snapshot: Snapshot) -> dict[str, Any]:
        """The index of a snapshot for a person or a program: its layout, why, and what it finds."""
        about, index = self.about(snapshot.space), self.index(snapshot)
        if not isinstance(index, ApproximateIndex):
            choice = chosen(snapshot, about.wanted if about else AUTO, self._memory)
            if isinstance(index, DeviceIndex):
                return {"layout": EXACT, "why": f"{self._device()} looks at every vector"}
            waits = "" if not choice.spec.factory else f"; {choice.spec.name} is not built yet"
            return {"layout": EXACT, "why": choice.why + waits}
        told = ("layout", "why", "factory", "target_recall", "rows", "bytes", "seconds", "built")
        return {
            **{name: getattr(index.about, name) for name in told},
            "tuned": {kind: tuned._asdict() for kind, tuned in index.about.tuned.items()},
            "waiting": round(index.waiting, 4),
            "gone": round(index.gone, 4),
        }

    def build(self, space: Space, encode: Encode, *, progress: bool | None = None, **how: Any) -> About:
        """Build the index of a space as it was built last time, or as `how` says; see `build`.

        Raises:
            LockedError: another process or thread is building one.
            LayoutError: the layout is unknown or cannot be built of so few vectors.
        """
        about = self.about(space)
        before: dict[str, Any] = (
            {"wanted": about.wanted, "target_recall": about.target_recall} if about else {}
        )
        how = before | {name: value for name, value in how.items() if value is not None}
        total = sum(segment.rows for segment in self._store.segments(space))
        with (
            write_lock(self._store.path / LOCK),
            progress_bar("index", progress, unit="vectors", total=total) as bar,
        ):
            return build(self._store, space, encode, memory=self._memory, done=bar.update, **how)

    def build_when_due(self, space: Space, encode: Encode, *, progress: bool | None = None) -> None:
        """Build the index in a thread of its own if it is due; searches and adding go on meanwhile."""
        if self._store.read_only or self._building():
            return
        try:
            why = self.due(space)
        except ClipsearchError as error:  # what was just done is done all the same
            logger.warning("whether an index is due could not be told: %s", error)
            return
        if why:
            logger.info("the index is built in the background: %s", why)
            about = (space, encode, progress)
            self._builder = threading.Thread(
                target=self._build_quietly, args=about, name="clipsearch-index", daemon=True
            )
            BUILDERS.add(self._builder)
            self._builder.start()

    def _build_quietly(self, space: Space, encode: Encode, progress: bool | None) -> None:
        try:
            self.build(space, encode, progress=progress)
        except LockedError:  # somebody else is at it
            return
        except ClipsearchError as error:
            logger.warning("no index was built, so every vector is looked at: %s", error)
        finally:
            BUILDERS.discard(threading.current_thread())

    def _building(self) -> bool:
        return self._builder in BUILDERS

    def wait(self) -> None:
        """Wait for an index that is being built in the background; Ctrl-C gives it up."""
        if self._builder is not None and self._builder is not threading.current_thread():
            _wait_for(self._builder)


BUILDERS: set[threading.Thread] = set()


def _wait_for(builder: threading.Thread) -> None:
    if builder not in BUILDERS:
        return
    logger.info("waiting for the index")
    try:
        builder.join()
    except KeyboardInterrupt:
        BUILDERS.discard(builder)  # it ends with the process, and leaves the index that was there
        raise


@atexit.register
def _wait_for_all() -> None:
    """A script that ends after adding would else never have an index."""
    for builder in list(BUILDERS):
        _wait_for(builder)
