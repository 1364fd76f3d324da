"""A classifier over all the vectors of a space."""

import numpy as np

from .labels import Classifier, Pictured, Scores, score_all
from .progress import progress_bar
from .search import Place, Searcher


def label_pictures(
    searcher: Searcher, classify: Classifier, k: int, progress: bool | None = None
) -> tuple[tuple[Pictured, ...], Scores]:
    """Score every picture of a collection; equal pictures share one vector, which is scored once.

    Args:
        searcher: the space.
        classify: says what it thinks of some thousand vectors at a time.
        k: labels for each picture.
        progress: show a bar; None does where a terminal is watching.

    Returns:
        The pictures in order of their ids, and their scores, (n, k). A picture that could not be
        read has its reason, and scores of nan.
    """
    places = list(searcher.pictures())
    rows = searcher.rows_of(np.array([place.item.content or -1 for place in places], np.int64))  # (n,)
    wanted, row_of = np.unique(rows[rows >= 0], return_inverse=True)
    with progress_bar("labelling", progress, total=len(wanted)) as bar:
        scored = score_all(classify, searcher.blocks(wanted), k, done=bar.update)
    spread = np.full(len(places), -1)
    spread[rows >= 0] = row_of
    told = [_pictured(place, row >= 0, searcher.space.model) for place, row in zip(places, rows, strict=True)]
    return tuple(told), scored.spread(spread)


def _pictured(place: Place, known: bool, model: str) -> Pictured:
    reason = "" if known else place.item.failure or f"it has no vector of {model!r} yet; add its source again"
    return Pictured(place.item.id, place.path, place.item.key, place.root, place.read, reason)
