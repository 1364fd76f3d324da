"""From query vectors to hits: the index finds rows, the store knows whose they are."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .arguments import check_k
from .captions import captions_of
from .errors import QueryError, SourceError
from .exact import ExactIndex, Neighbours
from .filters import Selection
from .gpu import DeviceIndex
from .index import ApproximateIndex, Kind
from .outcomes import GONE
from .relevance import RELEVANT
from .results import Hit, SearchResults
from .segments import WHOLE, Box
from .sources import IteratorSource, restore
from .store import ItemRow, Snapshot, Space, Store
from .types import Embeddings, Source

if TYPE_CHECKING:
    from PIL.Image import Image

Known: TypeAlias = tuple[ItemRow, dict[str, Any]]
"""An item and all that is known of it."""


Judge: TypeAlias = Callable[[npt.NDArray[np.float32], Embeddings], npt.NDArray[np.float64]]
"""Gives the relevance of n pictures, (n,), from their cosines with a query, (n,), and vectors, (n, dim)."""

JUDGED = 200  # pictures at least whose relevance tells whether anything is there, and which may pass a cut
ROWS_TOGETHER = 8192
MOSTLY = 4  # rows for a picture that are looked for: few pictures have more among the best
SEVERAL = "SELECT id FROM contents WHERE shown > 1 ORDER BY id"


class Place(NamedTuple):
    """An item and where it is."""

    item: ItemRow
    path: str
    root: str  # of its source
    read: "Callable[[], bytes | Image]"


class Ranking(NamedTuple):
    """Pictures, best first, each once."""

    contents: npt.NDArray[np.int64]  # (n,)
    rows: npt.NDArray[np.int64]  # (n,) of each the one that was found
    scores: npt.NDArray[np.floating]  # (n,)
    relevance: npt.NDArray[np.float64] | None  # (n,)

    def first(self, k: int) -> "Ranking":
        """The k best."""
        return Ranking(*(None if part is None else part[:k] for part in self))  # type: ignore[arg-type]

    def above(self, least: float) -> "Ranking":
        """Those that have at least some relevance; all, where it is not known."""
        if self.relevance is None:
            return self
        kept = self.relevance >= least
        return Ranking(*(part[kept] for part in self if part is not None))  # type: ignore[arg-type]


class Searcher:
    """Searches one space of a store as it was when made."""

    def __init__(
        self,
        store: Store,
        space: Space,
        index: Callable[[Snapshot], ExactIndex | ApproximateIndex | DeviceIndex] = ExactIndex,
    ) -> None:
        """Take the space as it is now; `index` gives what finds its rows."""
        self._store, self.space = store, space
        self._snapshot = snapshot = store.snapshot(space)
        self.generation = snapshot.generation
        self._contents = snapshot.contents  # (N,) content id of each row
        self._index = index(snapshot)
        self._sources: dict[int, Source] = {}

    def search(
        self,
        queries: Embeddings,
        names: list[str],
        k: int,
        *,
        kind: Kind = "text",
        without: Collection[int] = (),
        only: Selection | None = None,
        judges: Sequence[Judge | None] | None = None,
        least: float | None = None,
    ) -> list[SearchResults]:
        """Find the k best pictures for each query: those of which a part, or the whole, is most like it.

        Args:
            queries: float32 (q, dim), unit rows.
            names: what each query is called in its results.
            k: how many pictures; fewer come where there are fewer.
            kind: what the queries are of.
            without: contents that must not be among them: those that were asked with.
            only: the pictures that may be found; None: all.
            judges: for each query what gives its hits their relevance; None: they have none.
            least: the relevance that a hit must have; of the 200 best, or k, those that have it are taken.

        Returns:
            One SearchResults per query, in order.
        """
        check_k(k)
        rows = None if only is None else only.of_contents(self._contents)  # (N,)
        judges = judges or [None] * len(names)
        asked = max(int(k), JUDGED) if any(judges) else int(k)
        found = self._near(queries, min(asked, len(self._snapshot)) + len(without), rows, kind)
        return [
            self._results(self._ranking(near, without, judge), name, k, only, least)
            for name, near, judge in zip(names, found, judges, strict=True)
        ]

    def _ranking(self, near: Neighbours, without: Collection[int], judge: Judge | None) -> Ranking:
        """The pictures that some rows are of, each once, by the best of its rows."""
        first = np.sort(np.unique(self._contents[near.rows], return_index=True)[1])
        first = first[~np.isin(self._contents[near.rows[first]], list(without))]
        rows, scores = near.rows[first], near.scores[first]
        relevance = None if judge is None else judge(scores, self._snapshot.vectors(rows))
        return Ranking(self._contents[rows], rows, scores, relevance)

    def _results(
        self, ranking: Ranking, name: str, k: int, only: Selection | None, least: float | None
    ) -> SearchResults:
        """The k first of a ranking that are relevant enough; where none is, what was nearest."""
        relevance = ranking.relevance
        relevant = None if relevance is None or not len(relevance) else bool(relevance.max() >= RELEVANT)
        hits = self._hits(ranking if least is None else ranking.above(least), k, only)
        nearest = self._hits(ranking, k, only) if least is not None and not hits else ()
        return SearchResults(hits, name, model=self.space.model, relevant=relevant, nearest=nearest)

    @property
    def shows_any(self) -> bool:
        """Whether any picture of it is shown."""
        shown = self._snapshot.shown
        return bool(len(self._snapshot) if shown is None else shown.any())

    def pool(self, queries: Embeddings, count: int, only: Selection | None) -> npt.NDArray[np.int64]:
        """The contents that are most like any of some queries, so many for each, ascending."""
        rows = None if only is None else only.of_contents(self._contents)
        found = self._near(queries, min(count, len(self._snapshot)), rows, "text")
        return np.unique(self._contents[np.concatenate([near.rows for near in found])])

    def by_relevance(
        self,
        units: Embeddings,
        judges: Sequence[Judge],
        join: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
        contents: npt.NDArray[np.int64],
        scale: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
        name: str,
        k: int,
        only: Selection | None,
        least: float | None,
    ) -> SearchResults:
        """The k pictures of some contents that are most relevant to all units together.

        Each unit counts by the row of a picture that is most like it, so parts of it may fit one unit each.

        Args:
            units: float32 (u, dim), unit rows.
            judges: what gives the relevance to each unit.
            join: makes the scores, (n,), of (u, n) relevance.
            contents: (n,) ascending.
            scale: makes relevance of the scores.
            name: what the query is called.
            k: how many.
            only: the pictures that may be found; None: all.
            least: the relevance that a hit must have.
        """
        rows = np.flatnonzero(np.isin(self._contents, contents))
        vectors, owner = self._snapshot.vectors(rows), np.searchsorted(contents, self._contents[rows])
        each = []
        for cosines, judge in zip((vectors @ units.T).T, judges, strict=True):
            order = np.lexsort((-cosines, owner))
            best = order[np.unique(owner[order], return_index=True)[1]]  # of each picture's rows
            each.append(judge(cosines[best], vectors[best]))
        scores = join(np.array(each))
        best = np.argsort(-scores, kind="stable")
        found = contents[best]
        ranking = Ranking(found, self.rows_of(found), scores[best], scale(scores[best]))
        results = self._results(ranking, name, k, only, least)
        hits, nearest = (
            tuple(replace(h, cosine=None) for h in some) for some in (results.hits, results.nearest)
        )
        return replace(results, hits=hits, nearest=nearest, score_kind="relevance of all parts")

    def sample(self, count: int) -> Embeddings:
        """The vectors of up to so many shown pictures, evenly from all, float32 (n, dim)."""
        first = np.unique(self._contents, return_index=True)[1]  # of a picture's rows the whole
        shown = self._snapshot.shown
        first = first if shown is None else first[shown[first]]
        return self._snapshot.vectors(
            first[np.linspace(0, len(first), min(count, len(first)), False, dtype=np.int64)]
        )

    def _near(
        self, queries: Embeddings, pictures: int, rows: npt.NDArray[np.bool_] | None, kind: Kind
    ) -> list[Neighbours]:
        """The nearest rows of each query, of so many pictures at least where there are so many."""
        surely = max(1, self._snapshot.rows_of_any(pictures))
        wanted = min(surely, MOSTLY * pictures)
        found = self._index.search(queries, wanted, only=rows, kind=kind)
        if wanted < surely:
            short = [i for i, near in enumerate(found) if len(near.rows) == wanted]
            short = [i for i in short if len(np.unique(self._contents[found[i].rows])) < pictures]
            again = self._index.search(queries[short], surely, only=rows, kind=kind) if short else []
            for i, near in zip(short, again, strict=True):
                found[i] = near
        return found

    def embedding(self, content: int) -> Embeddings:
        """The stored vector of a content, float32 (1, dim), unit length.

        Raises:
            QueryError: it has none in this space yet.
        """
        rows = np.flatnonzero(self._contents == content)[:1]
        if not len(rows):
            raise QueryError(f"the item has no vector of {self.space.model!r} yet; add its source again")
        return self._snapshot.vectors(rows)

    def everything(self, only: Selection | None = None) -> tuple[list[int], Embeddings]:
        """The id of every present item and its vector, float32 (n, dim), in order of the ids."""
        items = [item for item in _among(self._store.items(failed=False), only) if not item.missing]
        rows = self.rows_of(np.array([item.content for item in items], np.int64))
        ids = [item.id for item, row in zip(items, rows, strict=True) if row >= 0]
        return ids, self._snapshot.vectors(rows[rows >= 0])

    def rows_of(self, contents: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The row of each of n contents, (n,); -1 for one that has no vector here."""
        if not len(self._contents):
            return np.full(len(contents), -1, np.int64)
        order = np.argsort(self._contents, kind="stable")  # of a picture's rows the first is the whole
        place = np.searchsorted(self._contents, contents, sorter=order)
        rows = order[np.minimum(place, len(order) - 1)]
        return np.where(self._contents[rows] == contents, rows, -1)

    def vectors(self, rows: npt.NDArray[np.int64]) -> Embeddings:
        """The stored vectors of some rows, float32 (n, dim), in order."""
        return self._snapshot.vectors(rows)

    def blocks(self, rows: npt.NDArray[np.int64]) -> Iterator[Embeddings]:
        """The vectors of some rows, float32, some thousands at a time, in order."""
        starts = range(0, len(rows), ROWS_TOGETHER)
        return (self._snapshot.vectors(rows[i : i + ROWS_TOGETHER]) for i in starts)

    def pictures(self, only: Selection | None = None) -> Iterator[Place]:
        """Every file of the collection once, in order of the ids; those that could not be read too."""
        items = [item for item in _among(self._store.items(), only) if not item.missing]
        shown = Counter(item.content for item in items)
        files: set[tuple[int | None, str]] = set()  # of contents that several items show, and of failures
        for item in items:
            source = self._source(item.source)
            path = source.path(item.key)
            if shown[item.content] > 1:
                file = item.content, os.path.realpath(path)
                if file in files:
                    continue
                files.add(file)
            yield Place(item, path, source.root, partial(_read, source, item.key))

    def contents(self, only: Selection | None = None) -> npt.NDArray[np.int64]:
        """The contents that are shown, in order, each once, (n,)."""
        shown = self._snapshot.shown
        contents = np.unique(self._contents if shown is None else self._contents[shown])
        return contents if only is None else contents[only.of_contents(contents)]

    def several(self, only: Selection | None = None) -> npt.NDArray[np.int64]:
        """The contents that several items show, in order, (n,)."""
        contents = np.array([id for (id,) in self._store.rows(SEVERAL)], np.int64)
        return contents if only is None else contents[only.of_contents(contents)]

    def files(self, contents: npt.NDArray[np.int64], only: Selection | None = None) -> dict[int, list[Hit]]:
        """The files that show each of some contents, oldest first, with a score of 1."""
        return {
            content: [self._hit(item, 1.0, known, WHOLE) for item, known in self._different(_of(items, only))]
            for content, items in self._store.items_of(contents.tolist()).items()
        }

    def places(self, content: int) -> list[Place]:
        """The present items of a content and where they are, oldest first."""
        return [self._place(item) for item, _ in self._store.items_of([content])[content]]

    def _place(self, item: ItemRow) -> Place:
        source = self._source(item.source)
        return Place(item, source.path(item.key), source.root, partial(_read, source, item.key))

    def _hits(self, ranking: Ranking, k: int, only: Selection | None) -> tuple[Hit, ...]:
        contents, rows, scores, relevance = ranking.first(k)
        items = self._store.items_of(contents.tolist())
        texts = captions_of(self._store, contents.tolist())
        told = [None] * len(rows) if relevance is None else relevance.tolist()
        found = zip(contents.tolist(), scores.tolist(), self._snapshot.boxes(rows), told, strict=True)
        hits = [
            self._hit(item, score, _with_caption(known, texts.get(content)), box, how)
            for content, score, box, how in found
            for item, known in self._different(_of(items[content], only))
        ]
        return tuple(hits[:k])

    def _hit(
        self, item: ItemRow, score: float, known: dict[str, Any], box: Box, relevance: float | None = None
    ) -> Hit:
        source = self._source(item.source)
        return Hit(
            id=item.id,
            path=source.path(item.key),
            key=item.key,
            source=source.root,
            score=score,
            cosine=score,
            relevance=relevance,
            metadata=known,
            read=partial(_read, source, item.key),
            box=box,
        )

    def _different(self, items: list[Known]) -> Iterator[Known]:
        """Items of one content that are different files: sources may overlap."""
        files: set[str] = set()
        for item, known in items:
            path = self._source(item.source).path(item.key)
            file = os.path.realpath(path) if len(items) > 1 else path
            if file not in files:
                files.add(file)
                yield item, known

    def _source(self, id: int) -> Source:
        if id not in self._sources:  # at first, and when another process has added one since
            rows = self._store.sources()
            self._sources = {row.id: restore(row.kind, row.root, row.options) for row in rows}
        return self._sources[id]


def _with_caption(known: dict[str, Any], text: str | None) -> dict[str, Any]:
    """What is known of a picture, with its caption unless the user brought one."""
    return known if text is None else {"caption": text, **known}


def _among(items: Iterator[ItemRow], only: Selection | None) -> Iterator[ItemRow]:
    return (item for item in items if only is None or only.has(item.id))


def _of(items: list[Known], only: Selection | None) -> list[Known]:
    return [(item, known) for item, known in items if only is None or only.has(item.id)]


def _read(source: Source, key: str) -> "bytes | Image":
    item = source.item(key)
    if item is None:
        raise SourceError(f"the picture is no longer where it was; {_way_out(source)}")
    return item.read()


def _way_out(source: Source) -> str:
    if (source.kind, source.root) == GONE:
        return "it was gone when its vector was imported; add its folder or archive when that is back"
    if isinstance(source, IteratorSource):
        return "it was handed over, and only what lies in files or archives can be read again"
    return "if its folder moved, relocate the source"
