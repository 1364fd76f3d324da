"""From what a user asks to results."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from .calibration import Calibration, Kind, kind_of, language_of
from .diversity import diversify
from .embedder import Embedder
from .errors import QueryError
from .feedback import feedback
from .filters import Selection
from .pictures import Pictures
from .query import Leaf, Query, name, negated, plain, units
from .query_vectors import combine, leaves, mixed, relevance_of
from .reader import Reader
from .results import Hit, SearchResults
from .search import Judge, Picture, Searcher, as_query, check_k
from .second_look import SecondLook
from .store import Store
from .types import Embeddings, Reranker

POOL = 2000  # pictures that are looked at for each unit of a query with &, | and ~
CHOICE = 10  # hits for each one that diverse results are chosen from


class Asker:
    """Answers queries of every kind."""

    def __init__(self, store: Store, reader: Reader, embedder: Embedder, pictures: Pictures) -> None:
        self._reader, self._embedder, self._pictures = reader, embedder, pictures
        self.calibration = Calibration(reader, embedder)
        self.second_look = SecondLook(store, self._by_text, reader)

    def search(
        self,
        query: Query | None,
        *,
        k: int,
        where: str | None,
        stages: Sequence[Reranker] = (),
        min_relevance: float | None = None,
        diverse: float = 0.0,
        liked: Sequence["Picture | Hit | int"] = (),
        disliked: Sequence["Picture | Hit | int"] = (),
    ) -> SearchResults:
        """See Collection.search; no query is one that the liked pictures make."""
        least, weight = check_relevance(min_relevance), _weight(diverse)
        asked = CHOICE * check_k(k) if weight else k
        picked = [list(liked), list(disliked)]
        text = None if query is None or any(picked) else plain(query)
        if stages and text is None:
            raise QueryError("stages judge how pictures fit a text; give a text, or leave the stages out")
        if least is not None:
            self._calibrate(query)
        if text is not None:
            found = self.second_look.staged(text, asked, where, stages)
        else:
            found = self._answered(query, asked, where, picked)
        return self._diverse(cut(found, least), k, weight)

    def many(
        self, queries: Sequence[str], *, k: int, where: str | None, min_relevance: float | None = None
    ) -> list[SearchResults]:
        """See Collection.search_many."""
        least = check_relevance(min_relevance)
        if isinstance(queries, str):
            raise QueryError(f"search_many takes a list of texts, got the one text {queries!r}; use search")
        if empty := [query for query in queries if not query.strip()]:
            raise QueryError(f"a query must have words, got {empty[0]!r}")
        only, searcher = self._reader.only(where), self._reader.searcher()
        if searcher is None or not queries:
            return [SearchResults((), query) for query in queries]
        vectors = self._embedder.texts(queries)
        for language in {language_of(query) for query in queries} if least is not None else ():
            self._embedder.neutral(language)
        judges = [
            self._judge(searcher, language_of(query), row)
            for query, row in zip(queries, vectors, strict=True)
        ]
        found = searcher.search(vectors, list(queries), k, only=only, judges=judges)
        return [cut(results, least) for results in found]

    def _by_text(self, query: str, k: int, where: str | None) -> SearchResults:
        return self.many([query], k=k, where=where)[0]

    # ------------------------------------------------------------------ other queries

    def _answered(
        self, query: Query | None, k: int, where: str | None, picked: list[list["Picture | Hit | int"]]
    ) -> SearchResults:
        only, searcher = self._reader.only(where), self._reader.searcher()
        called = "like the liked pictures" if query is None else name(query)
        if searcher is None or not searcher.shows_any:
            return SearchResults((), called)
        if any(picked):
            return self._fed_back(searcher, query, picked, called, k, only)
        assert query is not None
        search = self._by_vector if query.word == "+" else self._by_relevance
        return search(searcher, query, k, only)

    def _by_vector(self, searcher: Searcher, query: Query, k: int, only: Selection | None) -> SearchResults:
        """The pictures most like one vector."""
        vector, called = self._vectors(searcher, query), name(query)
        means = self.calibration.means(searcher) if self.calibration.ready(["english"]) else None
        kind = kind_of(query, vector, means)
        return searcher.search(
            vector,
            [called],
            k,
            kind="image" if kind == "picture" else "text",
            without=self._itself(query),
            only=only,
            judges=[self._judge(searcher, kind, vector[0])],
        )[0]

    def _by_relevance(
        self, searcher: Searcher, query: Query, k: int, only: Selection | None
    ) -> SearchResults:
        """The pictures most relevant to a query with &, | or ~, of those most like its units."""
        vectors, means = self._vectors(searcher, query), self.calibration.means(searcher)
        kinds = [kind_of(unit, row[None], means) for unit, row in zip(units(query), vectors, strict=True)]
        judges = [
            partial(self.calibration.background(searcher, kind).relevance, row)
            for kind, row in zip(kinds, vectors, strict=True)
        ]
        signs = np.where(negated(query), -1, 1).astype(np.float32)[:, None]
        pool = searcher.pool(signs * vectors, max(POOL, k), only)
        return searcher.by_relevance(
            vectors, judges, partial(relevance_of, query), pool, name(query), k, only
        )

    def _fed_back(
        self,
        searcher: Searcher,
        query: Query | None,
        picked: list[list["Picture | Hit | int"]],
        called: str,
        k: int,
        only: Selection | None,
    ) -> SearchResults:
        """The pictures most like a query that was moved towards the liked pictures, off the disliked ones."""
        if query is not None and query.word != "+":
            raise QueryError("found liked or disliked pictures beside &, | or ~; expected one text or sum")
        asked = None if query is None else self._vectors(searcher, query)[0]
        middle = None if query is None else self._middle(searcher, query, asked)
        liked, disliked = (self._pictured(some, searcher) for some in picked)
        pictures = self.calibration.pictures(searcher).mean(0)
        vector = feedback(asked, liked, disliked, pictures=pictures, queries=middle)
        judge = self._judge(searcher, "mixed", vector)
        return searcher.search(vector[None], [f"{called}, with feedback"], k, only=only, judges=[judge])[0]

    def _middle(self, searcher: Searcher, query: Query, vector: Any) -> npt.NDArray[np.float32] | None:
        """The mean that a query's vector is taken relative to; None: that of pictures."""
        if all(leaf.kind in ("item", "image") for leaf in leaves(query)):
            return None
        means = self.calibration.means(searcher)
        kind = kind_of(query, vector[None], means)
        centred: npt.NDArray[np.float32] = np.zeros_like(vector)
        return {"picture": None, "mixed": centred}.get(kind, np.asarray(means.text, np.float32))

    def _pictured(self, some: Sequence["Picture | Hit | int"], searcher: Searcher) -> Embeddings:
        rows = [self._embedder.picture(one) for one in some]
        return np.concatenate(rows) if rows else np.empty((0, searcher.space.dim), np.float32)

    def _itself(self, query: Query) -> int | None:
        """The content of an item that is asked with alone, which is no hit."""
        _, leaf = query.terms[0]
        return self._pictures.content(leaf.value) if len(query.terms) == 1 and leaf.kind == "item" else None

    # ------------------------------------------------------------------ vectors and relevance

    def _vectors(self, searcher: Searcher, query: Query) -> Embeddings:
        """The vector of each unit, float32 (u, dim), in order."""
        texts = [leaf.value for leaf in leaves(query) if leaf.kind == "text"]
        known = dict(zip(texts, self._embedder.texts(texts), strict=True)) if texts else {}
        each = units(query)
        means = self.calibration.means(searcher) if any(map(mixed, each)) else None
        embed = partial(self._of_leaf, known, searcher.space.dim)
        return np.concatenate([combine(unit, embed, means) for unit in each])

    def _of_leaf(self, known: dict[str, npt.NDArray[np.float32]], dim: int, leaf: Leaf) -> Embeddings:
        if leaf.kind == "text":
            return known[leaf.value][None]
        if leaf.kind == "embedding":
            return as_query(np.frombuffer(leaf.value, np.float32), dim)
        return self._embedder.picture(leaf.value)

    def _judge(self, searcher: Searcher, kind: Kind, vector: npt.NDArray[np.float32]) -> Judge | None:
        """What gives hits their relevance; None: the neutral captions were never encoded."""
        if not searcher.shows_any or not self.calibration.ready([kind]):
            return None
        return partial(self.calibration.background(searcher, kind).relevance, vector)

    def _calibrate(self, query: Query | None) -> None:
        """Encode the neutral captions that a query needs to be judged."""
        texts = [] if query is None else [leaf.value for leaf in leaves(query) if leaf.kind == "text"]
        for language in {language_of(*texts[i : i + 1]) for i in range(max(1, len(texts)))}:
            self._embedder.neutral(language)

    def _diverse(self, found: SearchResults, k: int, weight: float) -> SearchResults:
        searcher = self._reader.searcher()
        if not weight or searcher is None or not found:
            return found[:k]
        contents = np.array([self._pictures.content(hit.id) for hit in found])
        vectors = searcher.vectors(searcher.rows_of(contents))
        order = diversify(np.array([hit.score for hit in found], np.float32), vectors, k, weight)
        return replace(found, hits=tuple(found.hits[place] for place in order))


def wanted(query: str | Query | None, **others: Any) -> Query | None:
    """The query that one of several arguments makes; None: nothing was given.

    Raises:
        QueryError: several were given, or the one that was is not to be used.
    """
    given = {name: value for name, value in {"query": query, **others}.items() if value is not None}
    if query is not None and not isinstance(query, str | Query):
        raise QueryError(
            f"a query is a text or a Query, got {type(query).__name__}; a picture goes to image="
        )
    if len(given) > 1:
        raise QueryError(f"give one of query, image, item and embedding, not {list(given)}")
    make: dict[str, Callable[[Any], Query]] = {
        "query": lambda value: value if isinstance(value, Query) else Query(value),
        "image": Query.image,
        "item": Query.item,
        "embedding": Query.embedding,
    }
    for argument, value in given.items():
        made = make[argument](value)
        units(made)  # raises where it leads nowhere
        return made
    return None


def cut(found: SearchResults, least: float | None) -> SearchResults:
    """Only the hits that are relevant enough; where none is, the others are what is nearest."""
    if least is None or not found:
        return found
    kept = tuple(hit for hit in found if hit.relevance is None or hit.relevance >= least)
    return replace(found, hits=kept, nearest=() if kept else found.hits)


def check_relevance(least: float | None) -> float | None:
    """A relevance that was asked for.

    Raises:
        QueryError: it is no number from 0 to 1.
    """
    if least is None:
        return None
    if isinstance(least, bool) or not isinstance(least, Real) or not 0 <= least <= 1:
        raise QueryError(f"min_relevance is a number from 0 to 1, such as 0.5, got {least!r}")
    return float(least)


def _weight(diverse: float) -> float:
    if isinstance(diverse, bool) or not isinstance(diverse, Real) or not 0 <= diverse <= 1:
        raise QueryError(f"diverse is a number from 0, the best hits, to 1, unlike ones, got {diverse!r}")
    return float(diverse)
