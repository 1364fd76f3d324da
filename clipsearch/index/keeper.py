"""Which index a collection is searched with, and when it is built anew."""

import atexit
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ClipsearchError, DamagedError, LockedError
from ..exact import ExactIndex
from ..files import write_lock
from ..gpu import DeviceIndex, fits, upload
from ..progress import progress_bar
from ..spec import AUTO, EXACT, MAX_EXACT, Choice
from ..store import Snapshot, Space, Store
from .approximate import ApproximateIndex
from .build import Encode, build, chosen, shown_rows
from .published import (
    About,
    Published,
    Wish,
    described_wrong,
    load,
    published_at,
    read_about,
    read_wish,
)

logger = logging.getLogger("clipsearch")

LOCK = "index.lock"  # one builder at a time; it disturbs nobody who adds or searches
WAITING, GONE = 0.10, 0.15  # shares from which an index is built anew: rows not in it, positions of no use
UPLOADED = 1 << 28  # bytes of vectors from which a GPU is worth sending them to
SHRUNK = 0.5  # of the size up to which every vector is looked at: an index that is there is kept until then


class Keeper:
    """The indexes of a store: loaded when another is published, built when one is due."""

    def __init__(
        self, store: Store, memory: int | None = None, device: Callable[[], str] = lambda: "cpu"
    ) -> None:
        """Keep the indexes of a store; "auto" chooses none that takes more than `memory` bytes.

        `device` tells where the model is: a GPU that holds all vectors looks at every one.
        """
        self._store, self._memory, self._device = store, memory, device
        self._uploaded: tuple[Space, DeviceIndex] | None = None
        self._loaded: dict[int, tuple[object, Published | None]] = {}  # by space, with its stamp
        self._warned: set[str] = set()
        self._builder: threading.Thread | None = None

    def stamp(self, space: Space) -> object:
        """Changes whenever another index of a space is published."""
        return published_at(self._store, space)

    def index(self, snapshot: Snapshot) -> ExactIndex | ApproximateIndex | DeviceIndex:
        """What searches a snapshot: an index that is whole and fits it, else every vector is looked at."""
        return self._there(snapshot) or self._on_processor(snapshot)

    def _on_processor(self, snapshot: Snapshot) -> ExactIndex | ApproximateIndex:
        try:
            published = self._published(snapshot.space)
            return ApproximateIndex(snapshot, published) if published else ExactIndex(snapshot)
        except (DamagedError, ValueError) as error:
            self._warn(f"{error}; every vector is looked at until it is built anew")
            return ExactIndex(snapshot)

    def _published(self, space: Space) -> Published | None:
        """The index of a space, read only when another one than last time is there."""
        stamp = self.stamp(space)
        if space.id not in self._loaded or self._loaded[space.id][0] != stamp:
            self._loaded[space.id] = stamp, None  # what is damaged is read once
            self._loaded[space.id] = stamp, load(self._store, space)
        return self._loaded[space.id][1]

    def _there(self, snapshot: Snapshot) -> DeviceIndex | None:
        """All vectors on the GPU, where that is worth it and no other index was asked for."""
        asked = read_wish(self._store, snapshot.space).layout not in (AUTO, EXACT)
        if asked or not self._on_gpu(len(snapshot), snapshot.space.dim):
            return None
        if self._uploaded and self._uploaded[0] != snapshot.space:
            self._uploaded = None
        try:
            earlier = self._uploaded[1] if self._uploaded else None
            self._uploaded = snapshot.space, upload(snapshot, self._device(), earlier=earlier)
            return self._uploaded[1]
        except ClipsearchError as error:
            self._warn(str(error))
            self._uploaded = None
            return None

    def _on_gpu(self, rows: int, dim: int) -> bool:
        """Whether a GPU that is in use anyway has room for the vectors, and is worth sending them to."""
        if 2 * rows * dim < UPLOADED or self._device() == "cpu":
            return False
        return self._uploaded is not None or fits(self._device(), rows=rows, dim=dim)

    def _warn(self, text: str) -> None:
        """Say what is wrong, once."""
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s", text)

    def due(self, space: Space) -> str:
        """Why an index is to be built; empty: it is not."""
        wish, rows = read_wish(self._store, space), sum(s.rows for s in self._store.segments(space))
        if wrong := described_wrong(self._store, space):
            return wrong
        about = read_about(self._store, space)
        if about is None and wish.layout == AUTO and 2 * rows * space.dim <= MAX_EXACT:
            return ""
        if wish.layout == AUTO and self._on_gpu(rows, space.dim):
            return ""
        snapshot = self._store.snapshot(space)
        choice, shown = chosen(snapshot, wish.layout, self._memory), len(shown_rows(snapshot))
        return self._amiss(about, choice, snapshot, shown) if shown else ""

    def _amiss(self, about: About | None, choice: Choice, snapshot: Snapshot, shown: int) -> str:
        """What is wrong with an index that is there, or not there; empty: nothing."""
        if not choice.spec.factory and not (about and about.number):
            return ""
        index = self.index(snapshot)
        if not isinstance(index, ApproximateIndex):
            return choice.why
        kept = not choice.spec.factory and 2 * shown * snapshot.space.dim >= SHRUNK * MAX_EXACT
        if index.about.layout != choice.spec.name and not kept:
            return choice.why
        if index.waiting > WAITING:
            return f"{index.waiting:.0%} of the vectors are not in the index"
        return f"{index.gone:.0%} of the index is of no use any more" if index.gone > GONE else ""

    def describe(self, snapshot: Snapshot) -> dict[str, Any]:
        """The index of a snapshot for a person or a program: its layout, why, and what it finds."""
        index, space = self.index(snapshot), snapshot.space
        if isinstance(index, DeviceIndex):
            return {"layout": EXACT, "why": f"{self._device()} looks at every vector"}
        if not isinstance(index, ApproximateIndex):
            choice = chosen(snapshot, read_wish(self._store, space).layout, self._memory)
            waits = "" if not choice.spec.factory else f"; {choice.spec.name} is not built yet"
            return {"layout": EXACT, "why": choice.why + waits}
        told = ("layout", "why", "factory", "rows", "bytes", "seconds", "built")
        return {
            **{name: getattr(index.about, name) for name in told},
            "target_recall": index.about.wanted.target_recall,
            "tuned": {kind: tuned._asdict() for kind, tuned in index.about.tuned.items()},
            "waiting": round(index.waiting, 4),
            "gone": round(index.gone, 4),
        }

    def build(
        self,
        space: Space,
        encode: Encode,
        *,
        layout: str | None = None,
        target_recall: float | None = None,
        queries: Sequence[str] | None = None,
        progress: bool | None = None,
    ) -> About:
        """Build the index of a space, as it was asked for last time where nothing else is; see `build`.

        Raises:
            LockedError: another process or thread is building one.
            LayoutError: the layout is unknown or cannot be built of so few vectors.
        """
        wish = read_wish(self._store, space)
        wish = Wish(layout or wish.layout, target_recall or wish.target_recall)
        total = sum(segment.rows for segment in self._store.segments(space))
        with (
            write_lock(self._store.path / LOCK),
            progress_bar("index", progress, unit="vectors", total=total) as bar,
        ):
            return build(
                self._store,
                space,
                encode,
                wanted=wish,
                queries=queries,
                memory=self._memory,
                done=bar.update,
            )

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
            # A script that ends after adding would else never have an index. Registered now, it runs before
            # what closes the store's connections, which was registered earlier.
            atexit.register(_wait_for, self._builder)
            self._builder.start()

    def _build_quietly(self, space: Space, encode: Encode, progress: bool | None) -> None:
        try:
            self.build(space, encode, progress=progress)
        except LockedError:  # somebody else is at it
            return
        except ClipsearchError as error:
            logger.warning("no index was built: %s", error)
        except Exception:  # such as an encoder of one's own that breaks: nobody else would hear of it
            logger.warning("no index was built", exc_info=True)
        finally:
            BUILDERS.discard(threading.current_thread())

    def _building(self) -> bool:
        return self._builder is not None and self._builder.is_alive()

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
