"""Labels of a collection: a classifier made of texts, perhaps of examples too, over all the vectors."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from .errors import LabelError
from .filters import Selection
from .labels import (
    Classifier,
    LabelResults,
    LabelSet,
    Pictured,
    Scores,
    Templates,
    TextModel,
    build_classifier,
    joined,
    refine,
    score_all,
)
from .progress import progress_bar
from .search import Place, Searcher
from .types import Embeddings

KEPT, KEPT_OF_SEVERAL, KEPT_OF_GROUPS = 5, 20, 50  # labels for each picture; a group's scores are summed
LARGE = 1_000_000_000  # cosines from which on a GPU is worth the import of torch


def classify(
    searcher: Searcher | None,
    model: TextModel,
    labels: LabelSet,
    templates: Templates,
    examples: Iterable[tuple[str, Embeddings]] = (),
    *,
    only: Selection | None = None,
    multi: bool,
    scores: str,
    unknown: bool,
    threshold: float | None,
    k: int | None,
    progress: bool | None,
) -> LabelResults:
    """Say of every picture which label fits it; see Collection.classify.

    Args:
        searcher: the vectors; None: there are none yet.
        model: whose text tower encodes the labels.
        labels: what to tell apart.
        templates: what the names are put into.
        examples: names of labels, each with the vector of a picture that shows it, (1, dim).
        only: the pictures to label; None: all.
        multi: a picture may have several labels.
        scores: what they are.
        unknown: whether a picture may be none of the labels.
        threshold: score from which a label is said.
        k: labels kept for each picture.
        progress: show bars.

    Raises:
        LabelError: scores, examples or k are not to be used.
    """
    if k is not None and k < 1:
        raise LabelError(f"k is how many labels to keep for each picture, at least 1, got {k!r}")
    kept = min(len(labels), k or (KEPT_OF_GROUPS if labels.groups() else KEPT_OF_SEVERAL if multi else KEPT))
    with progress_bar("labels", progress, unit="labels") as bar:
        how = build_classifier(
            labels, templates, model, multi=multi, scores=scores, unknown=unknown, done=bar.update
        )
    shown = [(labels.index(name), vector) for name, vector in examples]
    refined = refine(how, np.concatenate([v for _, v in shown]), [y for y, _ in shown]) if shown else None
    how = refined.classifier if refined else how
    told: tuple[tuple[Pictured, ...], Scores] = (), joined([], kept)
    if searcher:
        told = label_pictures(searcher, how, kept, progress, model.device, only)
    return LabelResults(labels, *told, multi, how.kind, model.name, templates.name, threshold, refined)


def label_pictures(
    searcher: Searcher,
    classify: Classifier,
    k: int,
    progress: bool | None = None,
    device: Callable[[], str] = lambda: "cpu",
    only: Selection | None = None,
) -> tuple[tuple[Pictured, ...], Scores]:
    """Score every picture of a collection; equal pictures share one vector, which is scored once.

    Args:
        searcher: the space.
        classify: says what it thinks of some thousand vectors at a time.
        k: labels for each picture.
        progress: show a bar; None does where a terminal is watching.
        device: tells where to compute; asked where there is much to do.
        only: the pictures to score; None: all.

    Returns:
        The pictures in order of their ids, and their scores, (n, k). A picture that could not be
        read has its reason, and scores of nan.
    """
    places = list(searcher.pictures(only))
    rows = searcher.rows_of(np.array([place.item.content or -1 for place in places], np.int64))  # (n,)
    wanted, row_of = np.unique(rows[rows >= 0], return_inverse=True)
    if len(wanted) * len(classify.vectors) > LARGE:
        classify = replace(classify, device=device())
    with progress_bar("labelling", progress, total=len(wanted)) as bar:
        scored = score_all(classify, searcher.blocks(wanted), k, done=bar.update)
    spread = np.full(len(places), -1)
    spread[rows >= 0] = row_of
    told = [_pictured(place, row >= 0, searcher.space.model) for place, row in zip(places, rows, strict=True)]
    return tuple(told), scored.spread(spread)


def _pictured(place: Place, known: bool, model: str) -> Pictured:
    reason = "" if known else place.item.failure or f"it has no vector of {model!r} yet; add its source again"
    return Pictured(place.item.id, place.path, place.item.key, place.root, place.read, reason)
