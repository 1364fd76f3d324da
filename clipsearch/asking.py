"""From what a user asks to results."""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from .embedder import Embedder
from .errors import QueryError
from .filters import Selection
from .pictures import Pictures
from .reader import Reader
from .results import Hit, SearchResults
from .search import Picture, Searcher, as_query, picture_name
from .second_look import SecondLook
from .store import Store
from .types import Reranker


class Asker:
    """Answers queries of every kind."""

    def __init__(self, store: Store, reader: Reader, embedder: Embedder, pictures: Pictures) -> None:
        self._reader, self._embedder, self._pictures = reader, embedder, pictures
        self.second_look = SecondLook(store, self._by_text, reader)

    def search(
        self,
        query: str | None,
        image: "Picture | None",
        item: int | Hit | None,
        embedding: npt.ArrayLike | None,
        *,
        k: int,
        where: str | None,
        stages: Sequence[Reranker],
    ) -> SearchResults:
        """See Collection.search."""
        given: dict[str, Any] = {"query": query, "image": image, "item": item, "embedding": embedding}
        given = {name: value for name, value in given.items() if value is not None}
        if query is not None and not isinstance(query, str):
            raise QueryError(f"a query is a text, got {type(query).__name__}; a picture goes to image=")
        if len(given) != 1:
            raise QueryError(f"give one of query, image, item and embedding, not {list(given) or 'none'}")
        if query is not None:
            return self.second_look.staged(query, k, where, stages)
        if stages:
            raise QueryError("stages judge how pictures fit a text; give a query, or leave the stages out")
        only, searcher = self._reader.only(where), self._reader.searcher()
        if searcher is None:
            return SearchResults((), "")
        if item is not None:
            return self._like(searcher, item, k, only)
        if image is not None:
            vector = self._embedder.picture(image)
            return searcher.search(vector, [picture_name(image)], k, kind="image", only=only)[0]
        return searcher.search(as_query(embedding, searcher.space.dim), ["an embedding"], k, only=only)[0]

    def many(self, queries: Sequence[str], *, k: int, where: str | None) -> list[SearchResults]:
        """See Collection.search_many."""
        if isinstance(queries, str):
            raise QueryError(f"search_many takes a list of texts, got the one text {queries!r}; use search")
        if empty := [query for query in queries if not query.strip()]:
            raise QueryError(f"a query must have words, got {empty[0]!r}")
        only, searcher = self._reader.only(where), self._reader.searcher()
        if searcher is None or not queries:
            return [SearchResults((), query) for query in queries]
        return searcher.search(self._embedder.texts(queries), list(queries), k, only=only)

    def _by_text(self, query: str, k: int, where: str | None) -> SearchResults:
        return self.many([query], k=k, where=where)[0]

    def _like(self, searcher: Searcher, item: int | Hit, k: int, only: Selection | None) -> SearchResults:
        id = item.id if isinstance(item, Hit) else item
        content = self._pictures.content(id)
        vector, name = searcher.embedding(content), f"like item {id}"
        return searcher.search(vector, [name], k, kind="image", without=content, only=only)[0]
