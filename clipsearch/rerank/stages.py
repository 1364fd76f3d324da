"""Stages after the first: the best hits are judged again, one by one, and put in a new order."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NamedTuple, cast, get_args

import numpy as np

from ..errors import ImageError, ModelError, QueryError, SourceError
from ..files import cores
from ..report import reason_of
from ..results import Hit, Judgement, SearchResults, StageReport
from ..types import Candidate, Reranker
from .fusion import WEIGHT, How, fused, order
from .judgements import Judgements

DEPTH, BATCH = 20, 8
NEEDS = ("pixels", "caption", "nothing")
NO_SCORE = (math.nan, "no finite score")

Candidates = Callable[[Sequence[Hit]], list[Candidate]]


@dataclass(frozen=True)
class Stage:
    """A reranker and how it is to be used: what it says itself, and the usual where it says nothing."""

    reranker: Reranker
    name: str
    depth: int
    budget: float | None  # seconds
    weight: float
    how: How
    batch_size: int
    needs: str
    spec: Mapping[str, Any] | None

    @classmethod
    def of(cls, reranker: Reranker) -> "Stage":
        """Read what a reranker says of its use.

        Raises:
            QueryError: it has no `score`, or says what cannot be.
        """
        if isinstance(reranker, type) or not callable(getattr(reranker, "score", None)):
            hint = "; wrap it in a YesNoReranker" if hasattr(reranker, "log_odds") else ""
            raise QueryError(f"found {reranker!r}; expected a reranker, an object that has `score`{hint}")
        spec, own = getattr(reranker, "spec", None), type(reranker)
        kind = f"{own.__module__}.{own.__qualname__}"
        stage = cls(
            reranker,
            str(getattr(reranker, "name", type(reranker).__name__)),
            getattr(reranker, "depth", DEPTH),
            getattr(reranker, "budget", None),
            getattr(reranker, "weight", WEIGHT),
            getattr(reranker, "how", "z"),
            getattr(reranker, "batch_size", BATCH),
            getattr(reranker, "needs", "pixels"),
            {"reranker": kind, "spec": spec()} if callable(spec) else None,
        )
        stage._check()
        return stage

    def _check(self) -> None:
        seconds = self.budget is None or (isinstance(self.budget, Real) and self.budget > 0)
        expected = {
            "depth, a whole number from 1": _counts(self.depth),
            "batch_size, a whole number from 1": _counts(self.batch_size),
            "budget, seconds above 0 or None": seconds,
            "weight, a number from 0 to 1": isinstance(self.weight, Real) and 0 <= self.weight <= 1,
            f"needs, one of {', '.join(NEEDS)}": self.needs in NEEDS,
            f"how, one of {', '.join(get_args(How))}": self.how in get_args(How),
        }
        if wrong := [what for what, holds in expected.items() if not holds]:
            found = getattr(self, wrong[0].split(",")[0])
            raise QueryError(f"{self.name} has {found!r}; expected {wrong[0]}")


def _counts(value: Any) -> bool:
    return isinstance(value, int | np.integer) and bool(value >= 1)


class Judged(NamedTuple):
    """What became of the first m candidates."""

    scores: list[float]  # (m,) nan where there is none
    reasons: list[str]  # (m,) why
    kept: int
    seconds: float


def rerank(results: SearchResults, stages: Sequence[Stage], candidates: Candidates) -> SearchResults:
    """Put the hits of a text query in the order that each stage in turn gives them.

    A stage judges the first `depth` hits, best first, until its budget is spent. Those it came to are ordered
    anew among themselves, by fusion.fused; the others stay below them, in order, with the lowest score of
    these. So no hit comes or goes, and one that could not be judged counts as an average one.

    Args:
        results: hits for a text, best first.
        stages: applied one after the other.
        candidates: gives what a reranker sees of some hits, in order.
    """
    for stage in stages:
        results = _after(stage, results, candidates)
    return results


def _after(stage: Stage, results: SearchResults, candidates: Candidates) -> SearchResults:
    pool = results.hits[: stage.depth]
    judged = judge(stage, results.query, candidates(pool))
    seen = pool[: len(judged.scores)]
    scores = fused([hit.score for hit in seen], judged.scores, weight=stage.weight, how=stage.how)
    hits = [
        _judged(stage, seen[old], float(scores[old]), judged, int(old), new)
        for new, old in enumerate(order(scores))
    ]
    lowest = hits[-1].score if hits else 0.0
    hits += [replace(hit, score=lowest) for hit in results.hits[len(seen) :]]
    failed = sum(map(math.isnan, judged.scores))
    report = StageReport(stage.name, len(pool), len(seen), judged.kept, failed, judged.seconds)
    return replace(results, hits=tuple(hits), score_kind="fused", stages=(*results.stages, report))


def _judged(stage: Stage, hit: Hit, score: float, judged: Judged, old: int, new: int) -> Hit:
    own = None if math.isnan(judged.scores[old]) else judged.scores[old]
    judgement = Judgement(stage.name, own, old + 1, new + 1, judged.reasons[old])
    return replace(hit, score=score, judgements=(*hit.judgements, judgement))


def judge(stage: Stage, query: str, candidates: Sequence[Candidate]) -> Judged:
    """Score candidates, best first, until the budget is spent.

    Scores of an earlier search are taken, and cost nothing. A batch is not begun that would take longer than
    is left, going by the longest so far; the first always is.
    """
    kept = Judgements(stage.spec, query, needs=stage.needs)
    known = kept.known(candidates)
    if any(one.sha256 not in known for one in candidates):
        getattr(stage.reranker, "load", lambda: None)()  # what it takes is not of the budget
    scores: list[float] = []
    reasons: list[str] = []
    started, longest = time.perf_counter(), 0.0
    for start in range(0, len(candidates), stage.batch_size):
        before = time.perf_counter()
        if stage.budget is not None and start and before - started + longest > stage.budget:
            break
        batch = candidates[start : start + stage.batch_size]
        found, why = _judge_batch(stage, query, [one for one in batch if one.sha256 not in known])
        kept.keep([one for one in batch if one.sha256 not in known], found)
        fresh = iter(zip(found, why, strict=True))
        both = [(known[one.sha256], "") if one.sha256 in known else next(fresh) for one in batch]
        scores += [score for score, _ in both]
        reasons += [reason for _, reason in both]
        longest = max(longest, time.perf_counter() - before)
    _check_any(stage, scores, reasons)
    used = sum(one.sha256 in known for one in candidates[: len(scores)])
    return Judged(scores, reasons, used, time.perf_counter() - started)


def _check_any(stage: Stage, scores: list[float], reasons: list[str]) -> None:
    """A stage that can judge none of several pictures is told: their order would look like an answer."""
    if len(scores) > 1 and all(map(math.isnan, scores)):
        way_out = "; write captions first" if stage.needs == "caption" else ""
        raise ModelError(f"{stage.name} could judge none of {len(scores)} pictures: {reasons[0]}{way_out}")


def _judge_batch(stage: Stage, query: str, batch: Sequence[Candidate]) -> tuple[list[float], list[str]]:
    ready = [_ready(stage, one) for one in _opened(stage, batch)]
    asked = [one for one in ready if isinstance(one, Candidate)]
    answers = iter(_ask(stage, query, asked))
    both = [next(answers) if isinstance(one, Candidate) else (math.nan, one) for one in ready]
    return [score for score, _ in both], [reason for _, reason in both]


def _opened(stage: Stage, batch: Sequence[Candidate]) -> list[Candidate | str]:
    """The candidates with their pictures read, in threads; or why one cannot be."""
    if stage.needs != "pixels" or not batch:
        return list(batch)
    with ThreadPoolExecutor(min(cores(), len(batch)), "clipsearch-decode") as pool:
        return list(pool.map(_read, batch))


def _read(candidate: Candidate) -> Candidate | str:
    try:
        image = candidate.image()
    except (ImageError, SourceError, OSError) as error:
        return reason_of(error)
    return replace(candidate, image=lambda: image)


def _ready(stage: Stage, candidate: Candidate | str) -> Candidate | str:
    if isinstance(candidate, str) or stage.needs != "caption" or candidate.caption:
        return candidate
    return "it has no caption"


def _ask(stage: Stage, query: str, batch: Sequence[Candidate]) -> list[tuple[float, str]]:
    """The score of each candidate, or why there is none; a picture that is refused breaks only itself."""
    if not batch:
        return []
    try:
        return [(score, "") if math.isfinite(score) else NO_SCORE for score in _scores(stage, query, batch)]
    except ImageError as error:
        half = len(batch) // 2
        if not half:
            return [(math.nan, str(error))]
        return _ask(stage, query, batch[:half]) + _ask(stage, query, batch[half:])


def _scores(stage: Stage, query: str, batch: Sequence[Candidate]) -> list[float]:
    given = stage.reranker.score(query, batch)
    try:
        scores = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{stage.name} gave no numbers for {len(batch)} pictures: {error}") from error
    if scores.shape != (len(batch),):
        raise ModelError(f"{stage.name} gave scores of shape {scores.shape} for {len(batch)} pictures")
    return cast("list[float]", scores.tolist())
