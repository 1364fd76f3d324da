"""A text's search in stages: the first finds hits, later ones judge the best of them again."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np

from .arguments import check_k
from .candidates import candidates
from .errors import QueryError
from .reader import Reader
from .rerank.by_caption import CaptionReranker
from .rerank.evaluation import RerankEvaluation, evaluate_rerank
from .rerank.fusion import Fit, Pool, fit_weight
from .rerank.stages import Stage, rerank
from .results import Hit, SearchResults
from .store import Store
from .types import Reranker


@dataclass(frozen=True)
class SecondLook:
    """What later stages need of a collection."""

    store: Store
    search: Callable[[str, int, str | None], SearchResults]  # the first stage: text, k, where
    reader: Reader

    def staged(self, query: str, k: int, where: str | None, rerankers: Sequence[Reranker]) -> SearchResults:
        """The first stage's hits as the later ones order them; only then the best k are taken."""
        return self._ranked(query, k, where, rerankers)[1][:k]

    def _ranked(
        self, query: str, k: int, where: str | None, rerankers: Sequence[Reranker]
    ) -> tuple[SearchResults, SearchResults]:
        """The pool as the first stage orders it, and as the last does."""
        stages = _stages(rerankers)
        found = self.search(query, max([check_k(k), *(stage.depth for stage in stages)]), where)
        if not found:
            return found, found
        for reranker in filter(_retrieves, rerankers):
            found = self._with_captioned(found, cast(CaptionReranker, reranker), where)
        every = len(found)
        stages = [replace(s, depth=every, batch_size=every) if _retrieves(s.reranker) else s for s in stages]
        return found, rerank(found, stages, partial(candidates, self.store))

    def _with_captioned(
        self, found: SearchResults, reranker: CaptionReranker, where: str | None
    ) -> SearchResults:
        """The hits and those that the captions find besides, all by their cosine to the query."""
        captioned = self._by_caption(found.query, reranker, where)
        new = {hit.id for hit in captioned} - {hit.id for hit in found}
        if not new:
            return found
        more = self.search(found.query, len(new), f"id in ({', '.join(map(str, sorted(new)))})")
        hits = sorted([*found, *more], key=_first_score, reverse=True)
        return replace(found, hits=tuple(hits), model=more.model)

    def _by_caption(self, query: str, reranker: CaptionReranker, where: str | None) -> SearchResults:
        """The pictures whose captions are most like a text."""
        searcher, vector = self.reader.by_caption(reranker.encoder), reranker.encode([query], "query")
        return searcher.search(vector, [query], reranker.depth, only=self.reader.only(where))[0]

    def evaluate(
        self,
        queries: Sequence[str],
        relevant: Sequence[Iterable[int]],
        stages: Sequence[Reranker],
        k: int,
        where: str | None,
    ) -> RerankEvaluation:
        """See Collection.evaluate_rerank."""

        def search(query: str) -> tuple[list[int], list[int], float]:
            started = time.perf_counter()
            before, after = self._ranked(query, k, where, stages)
            seconds = time.perf_counter() - started
            return [hit.id for hit in before], [hit.id for hit in after], seconds

        return evaluate_rerank(search, queries, [set(ids) for ids in relevant], k=k)

    def fit(
        self, queries: Sequence[str], relevant: Sequence[Iterable[int]], stage: Reranker, where: str | None
    ) -> Fit:
        """See Collection.fit_weight."""
        pools: list[Pool] = []
        if len(queries) != len(relevant):
            raise QueryError(
                f"{len(queries)} queries have {len(relevant)} lists of right answers: give each its own"
            )
        for query, ids in zip(queries, map(set, relevant), strict=True):
            hits = [hit for hit in self._ranked(query, 1, where, [stage])[1] if hit.judgements]
            hits.sort(key=lambda hit: hit.judgements[0].before)
            second = [hit.judgements[0].score for hit in hits]
            scores = [np.nan if score is None else score for score in second]
            pools.append(([_first_score(hit) for hit in hits], scores, [hit.id in ids for hit in hits]))
        return fit_weight(pools, how=Stage.of(stage).how)


def _stages(rerankers: Sequence[Reranker]) -> list[Stage]:
    if not isinstance(rerankers, list | tuple):
        raise QueryError(f"stages is a list of rerankers, got {rerankers!r:.80}; write stages=[…]")
    return [Stage.of(reranker) for reranker in rerankers]


def _retrieves(reranker: Reranker) -> bool:
    return isinstance(reranker, CaptionReranker) and reranker.retrieve


def _first_score(hit: Hit) -> float:
    return hit.cosine or 0.0
