"""Labels that a person checks: what to look at, and what the answers say of all the others.

What is checked is labels that are said without a threshold, one of a picture each: n of them. A sheet holds
the drawn ones; a further round is added to it once all are answered.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LabelError
from .certify import Answers, Threshold, accuracy, certified_threshold, draw, of_round
from .form import write_form
from .labelset import LabelSet
from .outputs import shown
from .results import LabelResults
from .shares import Estimate
from .sheet import NO, NONE, YES, Asked, read_sheet, sheet_path, write_sheet
from .temperature import fit_verdicts, tempered

SAME = 1e-3  # scores that differ by more are not those a sheet was drawn by
ANEW = "label as it was drawn, or draw a new sheet"


class Said:
    """The labels that are said without a threshold, n of them, one after the other."""

    def __init__(self, results: LabelResults) -> None:
        self.results = results
        self.rows, self.columns = np.nonzero(results.at(None).said)
        self.scores = results.scored.scores[self.rows, self.columns].astype(np.float64)
        if not len(self.rows):
            raise LabelError("no picture has a label: there is nothing to check")

    @cached_property
    def digest(self) -> str:
        """Stands for the pictures that have a label, the model and the words."""
        about = self.results
        paths = (shown(about.pictures[row].path) for row in self.rows)
        words = (about.model, about.templates, about.kind, *about.labels.names)
        return sha256("\n".join([*words, *paths]).encode()).hexdigest()

    def asked(self, number: int, place: int, count: int, row: int, region: float) -> Asked:
        """The row of a sheet that asks for one of them, `place`-th of `count` in round `number`."""
        picture, column = self.results[int(self.rows[row])], self.columns[row]
        others = tuple(guess.label for guess in picture.guesses)
        drawn = Asked(
            round=number,
            number=place,
            of=count,
            path=shown(picture.picture.path),
            label=others[column],
            right="",
            truth="",
            others=others[:column] + others[column + 1 :],
            score=np.float32(self.scores[row]),
            region=None if region == -np.inf else np.float32(region),
            check="",
        )
        return drawn._replace(check=self.check(drawn))

    def check(self, row: Asked) -> str:
        """Stands for a row as it was drawn; it begins with a letter, or a spreadsheet may see a number.

        The score is compared by itself, with some tolerance, and spreadsheets shorten long numbers.
        """
        region = "" if row.region is None else f"{row.region:.5g}"
        drawn = row.round, row.number, row.of, row.path, row.label, region
        return "c" + sha256("\n".join(map(str, (self.digest, *drawn))).encode()).hexdigest()[:12]

    def places(self, asked: Sequence[Asked]) -> list[int]:
        """Where the labels asked for are among those said.

        Raises:
            LabelError: they are not, or with other scores.
        """
        where = {shown(picture.path): row for row, picture in enumerate(self.results.pictures)}
        return [self._place(each, where.get(each.path, -1)) for each in asked]

    def _place(self, asked: Asked, row: int) -> int:
        first, end = np.searchsorted(self.rows, [row, row + 1])
        names = [
            self.results.labels[int(self.results.scored.top[row, c])].name for c in self.columns[first:end]
        ]
        if asked.label not in names:
            raise LabelError(
                f"the sheet is of other labels: {asked.path} is not said to be {asked.label!r}; {ANEW}"
            )
        place = int(first) + names.index(asked.label)
        if not abs(self.scores[place] - asked.score) <= SAME:
            scores = f"{asked.label!r} had {asked.score:.4g} and has {self.scores[place]:.4g} now"
            raise LabelError(f"the sheet is of other scores: for {asked.path} {scores}; {ANEW}")
        if asked.check != self.check(asked):
            raise LabelError(
                f"the sheet was drawn from other pictures or labels, or the row of {asked.path} was changed; "
                f"{ANEW}"
            )
        return place


def _judged(labels: LabelSet, row: Asked) -> Asked:
    """The row with its truth, which may be a synonym, as the name of a label; it tells what is right, too."""
    if not row.truth:
        return row
    truth = row.truth if row.truth == NONE else labels[labels.index(row.truth)].name
    right = YES if truth == row.label else NO
    if row.right in (YES, NO) and row.right != right:
        raise LabelError(f"{row.path}: found right {row.right!r} and the truth {truth!r} of {row.label!r}")
    return row._replace(right=right, truth=truth)


def draw_review(
    results: LabelResults,
    path: str | os.PathLike[str],
    count: int,
    *,
    target_precision: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Path:
    """Draw labels for a person to check, and write the sheet and beside it the page to do it on.

    Without a target they are a uniform sample. With one, the first round is half so and half from the surest
    quarter; a later one comes from where the answers so far promise the most labels at that precision.

    Args:
        results: the labels.
        path: the sheet, .csv. If it is there and all of it is answered, the draw is a further round in it.
        count: how many labels; fewer where fewer are left.
        target_precision: the share of right labels that is to be promised, in (0, 1].
        confidence: of the promise.
        seed: of the draw.

    Returns:
        The page: the sheet's path, ending in .html.

    Raises:
        LabelError: no picture has a label, or all are checked, the sheet has rows without an answer or is
            of other labels, or the numbers cannot be used.
        CollectionError: sheet or page cannot be written.
    """
    whole = sheet_path(path)
    if count < 1:
        raise LabelError(f"found {count!r} labels to check, expected at least 1")
    review = Review(results, read_sheet(whole) if whole.exists() else ())
    if review.unanswered:
        raise LabelError(f"{whole}: {review.unanswered:,} of {len(review.asked):,} rows have no answer yet")
    number = review.rounds + 1
    if len(review.asked) == len(review.said.rows):
        raise LabelError(f"{whole}: all {len(review.asked):,} labels are checked")
    drawn = draw(
        review.said.scores,
        count,
        target=target_precision,
        confidence=of_round(confidence, number),
        reviewed=review.answers,
        seed=seed,
    )
    places = zip(drawn.rows, drawn.region, strict=True)
    size = len(drawn.rows)
    new = [review.said.asked(number, at, size, row, region) for at, (row, region) in enumerate(places, 1)]
    form = whole.with_suffix(".html")
    pictures = [results.pictures[row] for row in review.said.rows[drawn.rows]]
    write_form(form, whole.name, () if results.multi else results.labels.names, pictures, review.asked, new)
    write_sheet(whole, [*review.asked, *new])
    return form


def read_review(results: LabelResults, path: str | os.PathLike[str]) -> "Review":
    """Read the answers that a sheet holds.

    Args:
        results: the labels the sheet was drawn from.
        path: the sheet.

    Raises:
        LabelError: it is no sheet, an answer is none, or it was drawn from other labels: by another model,
            other names or templates, or before pictures came or went.
    """
    return Review(results, tuple(read_sheet(sheet_path(path))))


class Review:
    """What a person said of the labels drawn.

    Attributes:
        results: all labels.
        asked: the rows of the sheet, round by round.
        said: what was drawn from: the labels said without a threshold.
        answers: those that are answered; their rows are places among `said`.
    """

    def __init__(self, results: LabelResults, asked: Sequence[Asked]) -> None:
        self.results, self.said = results, Said(results)
        self.asked = tuple(_judged(results.labels, row) for row in asked)
        self._places = self.said.places(self.asked)
        self.answers = Answers(
            np.array(self._places, np.int64),
            np.array([-np.inf if row.region is None else row.region for row in self.asked]),
            np.array([row.round for row in self.asked], np.int64),
            np.array([row.right == YES for row in self.asked], np.bool_),  # ? is wrong: such tend to be hard
        ).where(np.array([bool(row.right) for row in self.asked], np.bool_))

    @property
    def unanswered(self) -> int:
        """How many rows have no answer yet."""
        return len(self.asked) - len(self.answers.rows)

    @property
    def rounds(self) -> int:
        """How many rounds were drawn."""
        return max((row.round for row in self.asked), default=0)

    def accuracy(self, *, confidence: float = 0.95) -> Estimate:
        """Estimate the share of the labels that are right, with an exact interval (Clopper-Pearson).

        Only answers that are a uniform sample count: those drawn from all labels.
        """
        return accuracy(self.said.scores, self.answers, confidence=confidence)

    def by_label(self, *, confidence: float = 0.95) -> dict[str, Estimate]:
        """The same for each label that is said of a picture; each interval for itself holds so often."""
        tops = self.results.scored.top[self.said.rows, self.said.columns]
        return {
            self.results.labels[int(label)].name: accuracy(
                self.said.scores, self.answers, among=tops == label, confidence=confidence
            )
            for label in np.unique(tops)
        }

    def certify(self, target_precision: float, *, confidence: float = 0.95) -> Threshold:
        """Look for the lowest score from which on the labels keep the precision.

        With that confidence, over all rounds of the review together, at least that share of the labels kept
        is right, checked or not. Each round is a test with its own share of the risk; the best one counts.

        Args:
            target_precision: in (0, 1].
            confidence: of the promise.

        Returns:
            The threshold; without one its `value` is None, and it tells why and how many more answers
            may certify one.

        Raises:
            LabelError: rows have no answer yet: a test that is tried after some answers and again after
                more of them holds no promise.
        """
        if self.unanswered:
            raise LabelError(
                f"{self.unanswered:,} of {len(self.asked):,} rows have no answer yet; answer all, "
                "with ? where nobody can tell"
            )
        rounds = [
            certified_threshold(
                self.said.scores,
                self.answers.where(self.answers.round <= number),
                target_precision,
                confidence=of_round(confidence, number),
                next_confidence=of_round(confidence, number + 1),
            )
            for number in range(1, 1 + max(1, self.rounds))
        ]
        return max(reversed(rounds), key=lambda found: found.coverage)  # of none, what the last one says

    def keep(self, target_precision: float, *, confidence: float = 0.95) -> LabelResults:
        """Return the results with the certified threshold: labels below it are no longer said.

        Raises:
            LabelError: no threshold is certified; the message tells why.
        """
        found = self.certify(target_precision, confidence=confidence)
        if found.value is None:
            raise LabelError(found.reason)
        return self.results.at(found.value)

    @cached_property
    def temperature(self) -> float | None:
        """By what to divide the logits so that the scores are as sure as they are right.

        Above 1: they were too sure. 1 where nothing is answered; None for contrast scores, which have no
        logits. See `fit_verdicts`.
        """
        if self.results.kind == "contrast":
            return None
        rows, columns = (each[self.answers.rows] for each in (self.said.rows, self.said.columns))
        scores, right = self.results.scored.scores[rows], self.answers.right
        return fit_verdicts(scores, columns, right, len(self.results.labels), alone=self.results.multi)

    def calibrated(self) -> LabelResults:
        """Return the results with scores at the fitted temperature; without threshold, as scores are others.

        Raises:
            LabelError: the scores are contrasts.
        """
        if self.temperature is None:
            raise LabelError("contrast scores have no temperature; use softmax or sigmoid scores")
        old = self.results.scored
        new = tempered(old.scores, self.temperature, len(self.results.labels), alone=self.results.multi)
        return replace(self.results.at(None), scored=old._replace(scores=new))

    @property
    def examples(self) -> dict[str, list[int]]:
        """The ids of the pictures whose label is known now, by label: for Collection.classify.

        Raises:
            LabelError: answers say that a label is wrong, and not what would be right: examples that are
                all right already would teach that every label is.
        """
        if untold := sum(row.right == NO and not row.truth for row in self.asked):
            raise LabelError(
                f"{untold:,} labels are wrong and have no truth; fill in that column, with {NONE} for none "
                "of the labels: right ones alone make no good examples"
            )
        shown: dict[str, list[int]] = {}
        for row, picture in zip(self.asked, self.said.rows[self._places], strict=True):
            label = row.truth or (row.label if row.right == YES else NONE)
            if label != NONE:
                shown.setdefault(label, []).append(self.results.pictures[picture].id)
        return shown

    def to_dict(self) -> dict[str, Any]:
        """Return what was answered and found as JSON values.

        Keys: asked, unanswered, rounds, accuracy and by_label (value, low, high, reviewed), temperature.
        """
        return {
            "asked": len(self.asked),
            "unanswered": self.unanswered,
            "rounds": self.rounds,
            "accuracy": _as_json(self.accuracy()),
            "by_label": {name: _as_json(found) for name, found in self.by_label().items()},
            "temperature": self.temperature,
        }

    def __str__(self) -> str:
        found = self.accuracy()
        told = [f"{len(self.answers.rows):,} of {len(self.asked):,} checked"]
        if found.reviewed and not self.unanswered:
            told.append(f"{found.value:.1%} of the labels are right ({found.low:.1%} to {found.high:.1%})")
        if self.temperature is not None and not self.unanswered:
            told.append(f"temperature {self.temperature:.2f}")
        return " · ".join(told)

    __repr__ = __str__


def _as_json(found: Estimate) -> dict[str, float | int | None]:
    return {name: None if value != value else value for name, value in found._asdict().items()}
