"""Labels of a hierarchy looked at from further away: dogs and cats as animals."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..errors import LabelError
from .best import best_first
from .classifier import Scores, joined
from .labelset import Label, LabelSet
from .results import LabelResults

ROWS = 10_000  # pictures whose groups are scored at a time


def by_group(results: LabelResults, depth: int = 1) -> LabelResults:
    """Return the results with groups in the place of their labels.

    Where labels exclude each other (softmax) a group's score is the sum of its labels' scores, of those
    that are kept for the picture: exact where all are (`k` of classify), else too low by at most what the
    kept ones leave of 1. Where a picture may have several labels it is the highest. Its cosine is the
    highest of its labels'. A label's name is a synonym of its group's, so that a truth may tell either.

    Args:
        results: of labels of which some have a group.
        depth: how many parts of a group's path to tell apart: of "animals/dogs/terriers" 1 leaves
            "animals" and 2 "animals/dogs". A label of no group stays itself.

    Raises:
        LabelError: no label has a group, fewer than two groups are left of labels of which a picture has
            one, or depth is less than 1.
    """
    if depth < 1:
        raise LabelError(f"found depth {depth!r}, expected at least 1")
    if not results.labels.groups():
        raise LabelError("no label has a group; give them in the column or field `group`")
    paths = [
        "/".join(label.group.split("/")[:depth]) if label.group else label.name for label in results.labels
    ]
    within: dict[str, list[str]] = {}  # names of the labels of each group
    for label, path in zip(results.labels, paths, strict=True):
        within.setdefault(path, []).append(label.name)
    names = list(within)
    if len(names) < 2 and not results.multi:
        raise LabelError(f"all labels are in the group {names[0]!r}: there is nothing to tell apart")
    place = {name: position for position, name in enumerate(names)}
    group = np.array([place[path] for path in paths])
    blocks = (results.scored.at(slice(i, i + ROWS)) for i in range(0, max(1, len(results)), ROWS))
    parts = [_grouped(block, group, len(names), results.multi) for block in blocks]
    scored = joined(parts, parts[0].top.shape[1])
    groups = tuple(Label(name, tuple(each for each in own if each != name)) for name, own in within.items())
    return replace(results, labels=LabelSet(groups), scored=scored)


def _grouped(labelled: Scores, group: npt.NDArray[np.int64], size: int, multi: bool) -> Scores:
    """The scores of `size` groups; `group` has that of each label."""
    rows = np.arange(len(labelled.top))
    scores = np.full((len(rows), size), -np.inf, np.float32)  # of groups of which no label is kept
    cosines = scores.copy()
    for column, label in enumerate(labelled.top.T):
        at = rows, group[label]
        more = labelled.scores[:, column]
        scores[at] = np.fmax(scores[at], more) if multi else np.fmax(scores[at], 0) + more
        cosines[at] = np.fmax(cosines[at], labelled.cosines[:, column])
    top = best_first(scores, min(size, labelled.top.shape[1]))
    found = np.take_along_axis(scores, top, 1), np.take_along_axis(cosines, top, 1)
    absent = np.isinf(found[0]) | (labelled.top[:, :1] < 0)
    best, cosine = (np.where(absent, np.float32(np.nan), each) for each in found)
    return Scores(np.where(absent, -1, top).astype(np.int32), best, cosine, labelled.unknown)
