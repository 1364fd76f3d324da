"""From what a user asks to results."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .arguments import Picture, as_query, check_k
from .calibration import Calibration, Kind, kind_of, language_of
from .diversity import diversify
from .embedder import Embedder
from .errors import QueryError
from .feedback import feedback
from .filters import Selection
from .pictures import Pictures
from .query import Leaf, Query, name, negated, plain, units, wanted_parts
from .query_vectors import combine, leaves, mixed, relevance_of
from .reader import Reader
from .relevance import Background, rescaled
from .results import Hit, SearchResults
from .search import Judge, Searcher
from .second_look import SecondLook
from .store import Store
from .types import Embeddings, Reranker

Pictured: TypeAlias = Sequence["Picture | Hit | int"]
Vector: TypeAlias = npt.NDArray[np.float32]

POOL = 2000  # pictures that are looked at for each unit of a query with &, | and ~
FEW = 10  # pictures; among fewer nothing is usual for a picture
CHOICE = 10  # hits for each one that diverse results are chosen from


class Ask(NamedTuple):
    """What every kind of query is asked with."""

    searcher: Searcher
    k: int
    only: Selection | None
    least: float | None  # relevance


class Asker:
    """Answers queries of every kind."""

    def __init__(self, store: Store, reader: Reader, embedder: Embedder, pictures: Pictures) -> None:
        self._reader, self._embedder, self._pictures = reader, embedder, pictures
        self._calibration = Calibration(embedder)
        self._store = store

    def search(
        self,
        query: Query | None,
        *,
        k: int,
        where: str | None,
        stages: Sequence[Reranker],
        min_relevance: float | None,
        diverse: float,
        liked: Pictured,
        disliked: Pictured,
    ) -> SearchResults:
        """See Collection.search; no query is one that the liked pictures make."""
        least = None if min_relevance is None else _share("min_relevance", min_relevance)
        weight = _share("diverse", diverse)
        picked = [_listed("liked", liked), _listed("disliked", disliked)]
        if query is None and not picked[0]:
            raise QueryError("give one of query, image, item and embedding, or liked pictures, not none")
        k = check_k(k)
        asked = CHOICE * k if weight else k
        text = None if query is None or any(picked) else plain(query)
        if stages and text is None:
            raise QueryError("stages judge how pictures fit a text; give a text alone, or leave them out")
        if text is not None:
            found = self.second_look(least).staged(text, asked, where, stages)
            return self._diverse(found, k, weight)
        only, searcher = self._reader.only(where), self._reader.searcher()
        called = "like the liked pictures" if query is None else name(query)
        if searcher is None or not searcher.shows_any:
            return SearchResults((), called)
        ask = Ask(searcher, asked, only, least)
        return self._diverse(self._answered(ask, query, picked, called), k, weight)

    def second_look(self, least: float | None = None) -> SecondLook:
        """The stages after the first. It is not kept: a cycle would hold the files of a closed collection."""
        return SecondLook(self._store, partial(self._by_text, least=least), self._reader)

    def many(
        self, queries: Sequence[str], *, k: int, where: str | None, min_relevance: float | None = None
    ) -> list[SearchResults]:
        """See Collection.search_many."""
        least = None if min_relevance is None else _share("min_relevance", min_relevance)
        if isinstance(queries, str):
            raise QueryError(f"search_many takes a list of texts, got the one text {queries!r}; use search")
        queries = list(queries)
        if wrong := [query for query in queries if not isinstance(query, str) or not query.strip()]:
            raise QueryError(f"search_many takes texts, each with words, got {wrong[0]!r:.80}")
        only, searcher = self._reader.only(where), self._reader.searcher()
        if searcher is None or not queries:
            return [SearchResults((), query) for query in queries]
        vectors = self._embedder.texts(queries)
        if least is not None:
            self._calibrate(queries)
        ask = Ask(searcher, k, only, least)
        made = {language: self._background(ask, language) for language in set(map(language_of, queries))}
        judges = [
            self._judge(made[language_of(query)], row, [query])
            for query, row in zip(queries, vectors, strict=True)
        ]
        return searcher.search(vectors, queries, k, only=only, judges=judges, least=least)

    def _by_text(self, query: str, k: int, where: str | None, least: float | None = None) -> SearchResults:
        return self.many([query], k=k, where=where, min_relevance=least)[0]

    # ------------------------------------------------------------------ other queries

    def _answered(
        self, ask: Ask, query: Query | None, picked: Sequence[Pictured], called: str
    ) -> SearchResults:
        texts = [] if query is None else [leaf.value for leaf in leaves(query) if leaf.kind == "text"]
        if ask.least is not None or (query is not None and query.word != "+"):
            self._calibrate(texts)
        if any(picked):
            return self._fed_back(ask, query, picked, texts, called)
        assert query is not None
        return self._by_vector(ask, query, texts) if query.word == "+" else self._by_relevance(ask, query)

    def _by_vector(self, ask: Ask, query: Query, texts: Sequence[str]) -> SearchResults:
        """The pictures most like one vector."""
        vector = self._vectors(ask.searcher, query)
        kind = self._kind(ask, query, vector)
        return ask.searcher.search(
            vector,
            [name(query)],
            ask.k,
            kind="image" if kind == "picture" else "text",
            without=self._items(query),
            only=ask.only,
            judges=[self._judge(self._background(ask, kind), vector[0], texts)],
            least=ask.least,
        )[0]

    def _by_relevance(self, ask: Ask, query: Query) -> SearchResults:
        """The pictures most relevant to a query with &, | or ~, of those most like its units."""
        searcher, vectors = ask.searcher, self._vectors(ask.searcher, query)
        kinds = [self._kind(ask, unit, row) for unit, row in zip(units(query), vectors, strict=True)]
        backgrounds = [self._calibration.background(searcher, kind) for kind in kinds]
        judges = [partial(each.relevance, row) for each, row in zip(backgrounds, vectors, strict=True)]
        sample, join = self._calibration.pictures(searcher), partial(relevance_of, query)
        given = np.array([judge(sample @ row, sample) for judge, row in zip(judges, vectors, strict=True)])
        parts = wanted_parts(query)
        scale = partial(rescaled, join=join, given=given, parts=parts, backgrounds=backgrounds)
        signs = np.where(negated(query), -1, 1).astype(np.float32)[:, None]
        return searcher.by_relevance(
            vectors,
            judges,
            join,
            searcher.pool(signs * vectors, max(POOL, ask.k), ask.only),
            scale if len(parts) > 1 else _same,
            name(query),
            ask.k,
            ask.only,
            ask.least,
        )

    def _fed_back(
        self, ask: Ask, query: Query | None, picked: Sequence[Pictured], texts: Sequence[str], called: str
    ) -> SearchResults:
        """The pictures most like a query that was moved towards the liked pictures, off the disliked ones."""
        if query is not None and query.word != "+":
            raise QueryError("found liked or disliked pictures beside &, | or ~; expected one text or sum")
        searcher = ask.searcher
        asked = None if query is None else self._vectors(searcher, query)[0]
        middle = None if query is None or asked is None else self._middle(searcher, query, asked)
        liked, disliked = (self._pictured(some, searcher) for some in picked)
        pictures = self._calibration.pictures(searcher).mean(0)
        vector = feedback(asked, liked, disliked, pictures=pictures, queries=middle)
        judges, called = (
            [self._judge(self._background(ask, "mixed"), vector, texts)],
            f"{called}, with feedback",
        )
        return searcher.search(vector[None], [called], ask.k, only=ask.only, judges=judges, least=ask.least)[
            0
        ]

    def _middle(self, searcher: Searcher, query: Query, vector: Vector) -> Vector | None:
        """The mean that a query's vector is taken relative to; None: that of pictures."""
        if all(leaf.kind in ("item", "image") for leaf in leaves(query)):
            return None
        means = self._calibration.means(searcher)
        kind = kind_of(query, vector[None], means)
        centred: Vector = np.zeros_like(vector)
        return {"picture": None, "mixed": centred}.get(kind, np.asarray(means.text, np.float32))

    def _kind(self, ask: Ask, unit: Query, vector: Vector) -> Kind:
        """What a unit is made of; of a vector from elsewhere it is told where captions are known."""
        elsewhere = any(leaf.kind == "embedding" for leaf in leaves(unit))
        told = elsewhere and (ask.least is not None or self._calibration.ready("english"))
        return kind_of(unit, vector, self._calibration.means(ask.searcher) if told else None)

    def _pictured(self, some: Pictured, searcher: Searcher) -> Embeddings:
        rows = [self._embedder.picture(one) for one in some]
        return np.concatenate(rows) if rows else np.empty((0, searcher.space.dim), np.float32)

    def _items(self, query: Query) -> set[int]:
        """The contents of the items that a sum leads towards, which are no hits."""
        items = [leaf.value for weight, leaf in query.terms if leaf.kind == "item" and weight > 0]
        return {self._pictures.content(id) for id in items}

    # ------------------------------------------------------------------ vectors and relevance

    def _vectors(self, searcher: Searcher, query: Query) -> Embeddings:
        """The vector of each unit, float32 (u, dim), in order."""
        texts = [leaf.value for leaf in leaves(query) if leaf.kind == "text"]
        known = dict(zip(texts, self._embedder.texts(texts), strict=True)) if texts else {}
        each = units(query)
        means = self._calibration.means(searcher) if any(map(mixed, each)) else None
        embed = partial(self._of_leaf, known, searcher.space.dim)
        return np.concatenate([combine(unit, embed, means) for unit in each])

    def _of_leaf(self, known: dict[str, Vector], dim: int, leaf: Leaf) -> Embeddings:
        if leaf.kind == "text":
            return known[leaf.value][None]
        if leaf.kind == "embedding":
            return as_query(np.frombuffer(leaf.value, np.float32), dim)
        return self._embedder.picture(leaf.value)

    def _background(self, ask: Ask, kind: Kind) -> Background | None:
        """What a kind of query is compared with; None: it was never calibrated, or there is too little."""
        if not ask.searcher.shows_any or not (ask.least is not None or self._calibration.ready(kind)):
            return None
        if kind == "picture" and len(self._calibration.pictures(ask.searcher)) < FEW:
            return None
        return self._calibration.background(ask.searcher, kind)

    def _judge(self, background: Background | None, vector: Vector, texts: Sequence[str]) -> Judge | None:
        """What gives hits their relevance; None: it is not known, or would mean nothing of these texts."""
        if background is None or self._embedder.stranger(texts) is not None:
            return None
        return partial(background.relevance, vector)

    def _calibrate(self, texts: Sequence[str]) -> None:
        """Encode the neutral captions that some texts are compared with."""
        if strange := self._embedder.stranger(texts):
            model = self._embedder.model
            raise QueryError(
                f"{model} knows English only: the relevance of {strange!r:.60} would mean nothing"
            )
        for language in set(map(language_of, texts)):
            self._embedder.neutral(language)

    def _diverse(self, found: SearchResults, k: int, weight: float) -> SearchResults:
        searcher = self._reader.searcher()
        found = replace(found, nearest=found.nearest[:k])
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
        raise QueryError(
            f"give one of query, image, item and embedding, not {list(given)}; "
            "to join several, write a Query such as Query.item(7) + 'snow'"
        )
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


def _share(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
        raise QueryError(f"{name} is a number from 0 to 1, such as 0.5, got {value!r}")
    return float(value)


def _listed(name: str, some: Pictured) -> Pictured:
    if isinstance(some, str | bytes) or not isinstance(some, Iterable):
        raise QueryError(f"{name} is a list of hits, ids or pictures, got {some!r:.80}; write {name}=[…]")
    return list(some)


def _same(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return scores
