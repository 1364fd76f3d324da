"""How right labels are, where the truth is known.

Measures that CLIP_benchmark has go by its names and definitions:

- acc1, acc5: share of the pictures whose truth is the best guess, or among the five best.
- mean_per_class_recall: the share of a label's pictures that is guessed right, averaged over the labels
  that occur.
- mean_average_precision, of pictures that may have several labels: with the pictures ordered by their
  score for a label, the share of right ones from the top down to a picture that has it, averaged over
  these pictures, then over the labels that occur. (CLIP_benchmark orders by the cosine, which is the
  same for sigmoid but not for contrast, and counts a label that does not occur as 0.)

Of the others, the calibration error is that of Guo et al. 2017, with 15 bins of equal width; telling
pictures of something else by a low best score is the baseline of Hendrycks & Gimpel 2017.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import LabelError
from ..files import write_durably
from .classifier import Scores
from .labelset import few
from .results import LabelResults, Verdict
from .truth import TruthSpec as TruthSpec
from .truth import plain, read_truths

Shares: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = npt.NDArray[np.int64]

BINS = 15  # of the reliability diagram
ENOUGH = 10  # pictures on either side for an AUROC that says anything


class Bins(NamedTuple):
    """Guesses by their score: bin m of 15 has those above (m - 1) / 15 and up to m / 15."""

    guesses: Counts  # (15,)
    score: Shares  # (15,) their mean score; nan in an empty bin
    right: Shares  # (15,) the share of them that is right; nan in an empty bin


class Outside(NamedTuple):
    """Pictures whose truth is none of the labels: those that ought to come out unknown.

    Attributes:
        n: how many.
        unlabelled: the share of them that got no label.
        auroc_unknown: chance that such a picture has a higher `unknown` than one that shows a label;
            None where it was not asked, or with fewer than 10 pictures of either.
        auroc_score: chance that it has a lower best score; None with fewer than 10 of either.
    """

    n: int
    unlabelled: float
    auroc_unknown: float | None
    auroc_score: float | None


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """How right labels are.

    Pictures count by their best guess, whatever their verdict; only `coverage` and `labelled_precision`
    go by the verdict. Where a picture may have several labels (`results.multi`, or some truth is not
    exactly one), precision, recall and the bins judge each label by itself, a picture that shows none
    of the labels counts too, and acc1, acc5, mean_per_class_recall and confusions do not exist. A
    picture that cannot be read is neither right nor wrong: no classifier ever saw it.

    Attributes:
        labels: L names.
        model: id of the encoder.
        kind: what the scores are.
        n: pictures that count.
        skipped: pictures that do not, by reason; a reason that did not occur is not there.
        strange: names in the truth that are none of the labels, with their pictures, most first.
        acc1, acc5, mean_per_class_recall: see above. acc5 is None where fewer than five guesses are stored.
        mean_average_precision: see above; None for one label a picture, and where not every label's
            score is stored, so that the order of the rest is not known.
        average_precision_range: what it lies between, whatever the scores that are not stored.
        support: int64 (L,), pictures that show each label.
        precision: (L,), the share that is right where a label is guessed (of several: said); nan where
            it never is.
        recall: (L,), the share of a label's pictures where it is; nan without pictures.
        coverage: the share of the n pictures that got a label.
        labelled_precision: the share of the labels said that is right; None if none is said.
        calibration_error: distance between score and share of right guesses, averaged over the guesses;
            None for "contrast", whose scores are no chances.
        bins: for the reliability diagram.
        outside: of the pictures that show none of the labels; None if there are none.
        rows: int64 (n,), positions in the results of the pictures that count.
        truths, guesses: int64 (n,), the positions of each one's label and best guess; empty for several.
    """

    labels: tuple[str, ...]
    model: str
    kind: str
    n: int
    skipped: Mapping[str, int]
    strange: Mapping[str, int]
    acc1: float | None
    acc5: float | None
    mean_per_class_recall: float | None
    mean_average_precision: float | None
    average_precision_range: tuple[float, float] | None
    support: Counts
    precision: Shares
    recall: Shares
    coverage: float
    labelled_precision: float | None
    calibration_error: float | None
    bins: Bins
    outside: Outside | None
    rows: Counts
    truths: Counts
    guesses: Counts

    @property
    def confusion(self) -> Counts:
        """int64 (L, L): pictures by the label they show (rows) and the best guess (columns)."""
        size = len(self.labels)
        return np.bincount(self.truths * size + self.guesses, minlength=size * size).reshape(size, size)

    def confusions(self, most: int = 10) -> list[tuple[str, str, int]]:
        """Return (truth, best guess, pictures) of the labels most often taken for others, most first."""
        wrong = self.truths != self.guesses
        pairs = Counter(zip(self.truths[wrong].tolist(), self.guesses[wrong].tolist(), strict=True))
        names = self.labels
        return [(names[shown], names[guess], count) for (shown, guess), count in pairs.most_common(most)]

    def metrics(self) -> dict[str, float]:
        """Return the measures that CLIP_benchmark has, by its names, without those that are None."""
        names = ("acc1", "acc5", "mean_per_class_recall", "mean_average_precision")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def chance(self) -> dict[str, float]:
        """Return what blind guessing would reach in each of `metrics`."""
        one = 1 / len(self.labels)
        share = float(self.support[self.support > 0].mean()) / self.n  # of right ones, in any order
        blind = {"acc1": one, "acc5": 5 * one, "mean_per_class_recall": one, "mean_average_precision": share}
        return {name: blind[name] for name in self.metrics()}

    def to_dict(self) -> dict[str, Any]:
        """Return all but the single pictures as JSON values; what is not known is None."""
        bins = zip(*map(_values, self.bins), strict=True)
        each = zip(self.labels, *map(_values, (self.support, self.precision, self.recall)), strict=True)
        return {
            "n": self.n,
            "skipped": dict(self.skipped),
            "strange": dict(self.strange),
            "metrics": self.metrics(),
            "chance": self.chance(),
            "average_precision_range": self.average_precision_range and list(self.average_precision_range),
            "coverage": self.coverage,
            "labelled_precision": self.labelled_precision,
            "calibration_error": self.calibration_error,
            "bins": [dict(zip(Bins._fields, values, strict=True)) for values in bins],
            "outside": self.outside and self.outside._asdict(),
            "labels": [
                dict(zip(("label", "support", "precision", "recall"), values, strict=True)) for values in each
            ],
            "confusions": [list(confusion) for confusion in self.confusions(100)],
        }

    def to_json(
        self,
        path: str | os.PathLike[str],
        *,
        dataset: str,
        model: str | None = None,
        pretrained: str = "",
        language: str = "en",
    ) -> Path:
        """Write the measures as CLIP_benchmark does, for `clip_benchmark build` to collect.

        Args:
            path: the file to write; an existing one is replaced.
            dataset: what to call the pictures.
            model: what to call the encoder; None takes its id.
            pretrained: what to call its weights.
            language: of the labels.

        Returns:
            Where it was written, absolute.

        Raises:
            CollectionError: it cannot be written.
        """
        result = {
            "dataset": dataset,
            "model": self.model if model is None else model,
            "pretrained": pretrained,
            "task": "zeroshot_classification",
            "metrics": self.metrics(),
            "language": language,
        }
        whole = Path(path).expanduser().absolute()
        write_durably(whole, lambda file: file.write(json.dumps(result).encode()))
        return whole

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the reliability diagram and the confusions with matplotlib; see `page.plot`."""
        from .page import plot

        return plot(self, path)

    def summary(self) -> str:
        """Return a few lines for a terminal: each measure beside chance, and the worst confusions."""
        from .page import summary

        return summary(self)

    __str__ = __repr__ = summary


def evaluate(results: LabelResults, truth: TruthSpec) -> Evaluation:
    """Measure labels against the truth.

    Names and synonyms are equal whatever their case, white space, `_` and Unicode form.

    Args:
        results: what was said of the pictures.
        truth: what they show, as one of
            "folder": the name of the folder each lies in;
            a table such as `results.write` makes, .csv, .tsv, .jsonl, .json or .parquet: `path` or `id`
            says which picture, `label` or `labels` what it shows, several parted by `|` or on lines of
            their own; a column `truth` beside them counts instead. A relative path starts at the
            picture's source, at the table's folder or at the working folder;
            a mapping of path, key or id to a label, or to several;
            a list with one entry a picture, in the order of the results;
            a function of the `Pictured`.
            Where it is None or blank or has nothing of a picture, the picture is skipped.

    Raises:
        LabelError: the truth cannot be read or belongs to other pictures; none of it is among the labels;
            no picture with a truth can be read.
    """
    told = read_truths(results.pictures, truth)
    places = {
        plain(name): n for n, label in enumerate(results.labels) for name in (*label.synonyms, label.name)
    }
    meant = [sorted({places[name] for name in map(plain, each or ()) if name in places}) for each in told]
    strange = Counter(name for each in told for name in each or () if plain(name) not in places)
    if not any(meant):
        raise LabelError(
            f"none of the truth is among the labels: found {few(strange) or 'nothing'}, expected names "
            f"such as {few(results.labels.names)}; add synonyms, or give the truth as a mapping"
        )
    several = results.multi or any(each is not None and len(each) != 1 for each in told)
    known, inside = np.array([(each is not None, bool(ids)) for each, ids in zip(told, meant, strict=True)]).T
    failed = results.verdicts == Verdict.FAILED
    counted = known & ~failed & (inside | several)
    if not (counted & inside).any():
        raise LabelError(f"none of the {inside.sum():,} pictures with a truth can be read")
    skipped = {
        "have no truth": ~known,
        "show none of the labels": known & ~failed & ~counted,
        "cannot be read": known & failed,
    }
    return _measured(
        results,
        np.flatnonzero(counted),
        meant,
        several,
        skipped={why: int(which.sum()) for why, which in skipped.items() if which.any()},
        strange=dict(strange.most_common()),
        outside=_outside(results, known & ~failed & ~inside, known & ~failed & inside),
    )


def by_label(places: npt.NDArray[Any], size: int) -> list[Counts]:
    """The positions of each of `size` labels in a flat array of their places, in order."""
    order = np.argsort(places, kind="stable")
    return np.split(order, np.searchsorted(places[order], np.arange(1, size)))


def _measured(
    results: LabelResults, rows: Counts, meant: Sequence[Sequence[int]], several: bool, **found: Any
) -> Evaluation:
    """Measure the pictures at `rows`; `meant` has the places of the labels that each of all shows."""
    size, scored = len(results.labels), results.scored.at(rows)
    pairs = [(picture, label) for picture, row in enumerate(rows) for label in meant[row]]
    shown, truths = np.array(pairs).T  # pictures and labels that belong together
    right = np.isin(np.arange(len(rows))[:, None] * size + scored.top, shown * size + truths)  # (n, k)
    spoken, every = results.said[rows], np.ones_like(right)
    first = every & (np.arange(right.shape[1]) == 0)
    judged, binned = (spoken, every) if several else (first, first)
    support, given, hit = (
        np.bincount(labels, minlength=size)
        for labels in (truths, scored.top[judged], scored.top[judged & right])
    )
    recall, bins = _ratio(hit, support), _bins(scored.scores[binned], right[binned])
    between = _average_precision_range(scored, shown, truths, size) if several else None
    return Evaluation(
        labels=results.labels.names,
        model=results.model,
        kind=results.kind,
        n=len(rows),
        acc1=None if several else float(right[:, 0].mean()),
        acc5=None if several or right.shape[1] < 5 else float(right[:, :5].any(1).mean()),
        mean_per_class_recall=None if several else float(recall[support > 0].mean()),
        mean_average_precision=between[0] if between and right.shape[1] == size else None,
        average_precision_range=between,
        support=support,
        precision=_ratio(hit, given),
        recall=recall,
        coverage=float(spoken.any(1).mean()),
        labelled_precision=float(right[spoken].mean()) if spoken.any() else None,
        calibration_error=None if results.kind == "contrast" else _calibration_error(bins),
        bins=bins,
        rows=rows,
        truths=truths[:0] if several else truths,
        guesses=truths[:0] if several else scored.top[:, 0].astype(np.int64),
        **found,
    )


def _ratio(part: npt.NDArray[Any], whole: Counts) -> Shares:
    with np.errstate(invalid="ignore"):  # 0 / 0 is nan
        return part / whole


def _bins(scores: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> Bins:
    known = ~np.isnan(scores)  # a group of which no label is kept has none
    scores, right = scores[known], right[known]
    place = np.clip(np.ceil(scores * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    return Bins(count, *(_ratio(np.bincount(place, values, BINS), count) for values in (scores, right)))


def _calibration_error(bins: Bins) -> float:
    return float(np.nansum(bins.guesses * abs(bins.right - bins.score)) / bins.guesses.sum())


def _average_precision_range(scored: Scores, shown: Counts, truths: Counts, size: int) -> tuple[float, float]:
    """The least and the most that the mean average precision can be.

    A score that is not stored is at most the last one stored of its picture. The least is reached where
    pictures without the label have that and pictures with it have nothing; the most the other way
    round. Equal scores go by the cosine.
    """
    stored, owners = by_label(scored.top.ravel(), size), by_label(truths, size)
    last = np.stack([scored.scores[:, -1], scored.cosines[:, -1]])  # (2, n)
    found: list[tuple[float, float]] = []
    for label in np.unique(truths):
        flat = stored[label]
        has = np.zeros(last.shape[1], bool)
        has[shown[owners[label]]] = True
        values = [np.where(nothing, -np.inf, last) for nothing in (has, ~has)]
        for each in values:
            each[:, flat // scored.top.shape[1]] = scored.scores.flat[flat], scored.cosines.flat[flat]
        least, most = (_average_precision(has[np.lexsort((-each[1], -each[0]))]) for each in values)
        found.append((least, most))
    least, most = np.mean(found, axis=0).tolist()
    return least, most


def _average_precision(hits: npt.NDArray[np.bool_]) -> float:
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def _outside(
    results: LabelResults, others: npt.NDArray[np.bool_], ours: npt.NDArray[np.bool_]
) -> Outside | None:
    if not others.any():
        return None
    unknown, low = results.scored.unknown, -results.scored.scores[:, 0]
    unlabelled = float((results.verdicts[others] != Verdict.LABELLED).mean())
    aurocs = (_auroc(values[others], values[ours]) for values in (unknown, low))
    return Outside(int(others.sum()), unlabelled, *aurocs)


def _auroc(high: npt.NDArray[np.float32], low: npt.NDArray[np.float32]) -> float | None:
    """Chance that one of `high` is above one of `low`; equal ones count half."""
    if min(len(high), len(low)) < ENOUGH or np.isnan(high).any() or np.isnan(low).any():
        return None
    low = np.sort(low)
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return float(below.mean() / 2 / len(low))


def _values(numbers: npt.NDArray[Any]) -> list[Any]:
    """Numbers for JSON, which has no nan."""
    return [None if number != number else number for number in numbers.tolist()]
