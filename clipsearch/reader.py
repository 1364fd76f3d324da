"""What answers a collection's questions as it is now, kept until something changes."""

import threading

from .captioning import vectors_in_use
from .columns import Columns
from .filters import Selection, select
from .index import Keeper
from .search import Searcher
from .spaces import Spaces
from .store import Store
from .types import Encoder
from .where import parse


class Reader:
    """The searcher of the space in use and the columns of conditions. May be used from several threads."""

    def __init__(self, store: Store, spaces: Spaces, keeper: Keeper) -> None:
        self._store, self._spaces, self._keeper = store, spaces, keeper
        self._held: tuple[Searcher, tuple[object, object]] | None = None  # and what it was made of
        self._refreshing, self._captioning = threading.Lock(), threading.Lock()
        self._columns: Columns | None = None
        self._captions: tuple[Searcher, tuple[int, str]] | None = None  # and what it was made of

    def searcher(self) -> Searcher | None:
        """What searches the vectors as they are now; None before the first add."""
        space = self._spaces.in_use()
        if space is None:
            return None
        now = ((space, self._store.generation()), self._keeper.stamp(space))
        held = self._held
        if held and held[1] == now:
            return held[0]
        same = held is not None and held[1][0] == now[0]  # but for the index: the old one will do meanwhile
        if not self._refreshing.acquire(blocking=not same):
            return held[0] if held else None
        try:
            if self._held is None or self._held[1] != now:
                self._held = Searcher(self._store, space, self._keeper.index), now
            return self._held[0]
        finally:
            self._refreshing.release()

    def by_caption(self, encoder: Encoder) -> Searcher:
        """What searches the captions in use by a model of texts; see captioning.vectors_in_use."""
        with self._captioning:  # several threads must not encode the same
            if self._captions is None or self._captions[1] != (self._store.generation(), encoder.model_id):
                space = vectors_in_use(self._store, encoder)
                found = Searcher(self._store, space)
                self._captions = found, (found.generation, encoder.model_id)
            return self._captions[0]

    def only(self, where: str | None) -> Selection | None:
        """The pictures that pass a condition; None: there is none."""
        if where is None:
            return None
        condition = parse(where)
        with self._store.reading() as generation:
            columns = self._columns
            if columns is None or columns.generation != generation:
                columns = self._columns = Columns(self._store, generation)
            return select(columns, condition)
