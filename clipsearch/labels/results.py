"""What labelling says of every picture."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from ..render import printable
from .classifier import ScoreKind, Scores
from .labelset import LabelSet
from .refine import Refined

if TYPE_CHECKING:
    from pandas import DataFrame
    from PIL.Image import Image

    from .evaluation import Evaluation, TruthSpec
    from .exports import Tree
    from .review import Review

SAID_AT = {"sigmoid": 0.5, "contrast": 0.98}  # several labels a picture: the score from which one is said
UNKNOWN_AT = 0.5


class Verdict(IntEnum):
    """How a picture came out; `str` gives the word for it."""

    LABELLED = 0
    UNKNOWN = 1  # none of the labels fits
    ABSTAINED = 2  # the best score is below the threshold
    FAILED = 3  # it cannot be read

    def __str__(self) -> str:
        return self.name.lower()


class Pictured(NamedTuple):
    """A picture that was to be labelled.

    Attributes:
        id: its number in the collection.
        path: where it is: the file's absolute path, or the archive's path and the member.
        key: its name inside its source.
        source: root of its source.
        read: returns its bytes, or the picture itself, as they are now.
        reason: why it could not be read; empty where it could.
    """

    id: int
    path: str
    key: str
    source: str
    read: "Callable[[], bytes | Image]"
    reason: str = ""


class Guess(NamedTuple):
    """A label with its score."""

    label: str
    score: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Labelled:
    """One picture with what was said of it.

    Attributes:
        picture: which it is.
        verdict: whether it got a label, and if not why.
        labels: the labels that are said of it, best first; empty unless it is labelled.
        guesses: the best labels with their scores, said or not, best first; empty where it failed.
        unknown: chance that none of the labels fits; None where it was not asked.
    """

    picture: Pictured
    verdict: Verdict
    labels: tuple[str, ...]
    guesses: tuple[Guess, ...]
    unknown: float | None

    @property
    def label(self) -> str | None:
        """The best label said of it, or None."""
        return self.labels[0] if self.labels else None


@dataclass(frozen=True, repr=False)
class LabelResults(Sequence[Labelled]):
    """What was said of every picture: a sequence of Labelled, in order of the pictures' ids.

    Attributes:
        labels: what was told apart.
        pictures: n of them.
        scored: the k best labels of each; rows of pictures that failed hold -1 and nan.
        multi: whether a picture may have several labels.
        kind: what the scores are: "softmax", "sigmoid" or "contrast".
        model: id of the encoder.
        templates: what the names were put into.
        threshold: score from which a label is said; None says the best whatever its score.
        refined: what examples did, if any were given.
    """

    labels: LabelSet
    pictures: tuple[Pictured, ...]
    scored: Scores = field(hash=False, compare=False)
    multi: bool
    kind: ScoreKind
    model: str
    templates: str
    threshold: float | None = None
    refined: Refined | None = field(default=None, hash=False, compare=False)

    def __len__(self) -> int:
        return len(self.pictures)

    @overload
    def __getitem__(self, index: int) -> Labelled: ...
    @overload
    def __getitem__(self, index: slice) -> "LabelResults": ...
    def __getitem__(self, index: int | slice) -> "Labelled | LabelResults":
        if isinstance(index, slice):
            return replace(self, pictures=self.pictures[index], scored=self.scored.at(index))
        row = range(len(self))[index]
        verdict = Verdict(self.verdicts[row])
        guesses = self._guesses(row)
        labels = tuple(guess.label for guess, said in zip(guesses, self.said[row], strict=False) if said)
        unknown = _short(self.scored.unknown[row])
        return Labelled(self.pictures[row], verdict, labels, guesses, None if np.isnan(unknown) else unknown)

    def __iter__(self) -> Iterator[Labelled]:
        return (self[row] for row in range(len(self)))

    @cached_property
    def verdicts(self) -> npt.NDArray[np.int8]:
        """How each picture came out, (n,), as numbers of Verdict."""
        verdicts = np.full(len(self), Verdict.LABELLED, np.int8)
        if self.least is not None:
            below = Verdict.UNKNOWN if self.threshold is None else Verdict.ABSTAINED
            verdicts[self.scored.scores[:, 0] < self.least] = below
        if not self.multi:  # of several labels, none said means that none fits
            verdicts[self.scored.unknown > UNKNOWN_AT] = Verdict.UNKNOWN
        verdicts[self.scored.top[:, 0] < 0] = Verdict.FAILED
        return verdicts

    @cached_property
    def said(self) -> npt.NDArray[np.bool_]:
        """Which of the stored labels are said, (n, k)."""
        scores = self.scored.scores
        said: npt.NDArray[np.bool_] = scores >= (-np.inf if self.least is None else self.least)  # nan is not
        if not self.multi:
            said[:, 1:] = False
        said &= self.verdicts[:, None] == Verdict.LABELLED
        return said

    @property
    def least(self) -> float | None:
        """The score from which a label is said; None: the best is said whatever its score."""
        if self.threshold is None and self.multi:
            return SAID_AT[self.kind]
        return self.threshold

    def at(self, threshold: float | None) -> "LabelResults":
        """The same pictures with another threshold; None takes it away."""
        return replace(self, threshold=threshold)

    def by_group(self, depth: int = 1) -> "LabelResults":
        """The same pictures by the groups of the labels; see `clipsearch.labels.groups.by_group`.

        Raises:
            LabelError: no label has a group, there is only one, or depth is less than 1.
        """
        from .groups import by_group

        return by_group(self, depth)

    def counts(self) -> dict[str, int]:
        """How many pictures each label is said of, in the order of the labels."""
        said = np.bincount(self.scored.top[self.said], minlength=len(self.labels))
        return dict(zip(self.labels.names, said.tolist(), strict=True))

    def to_dicts(self) -> list[dict[str, Any]]:
        """One JSON-able dict a picture.

        Keys: id, path, key, source, verdict, label, labels, score and cosine (of the best label,
        said or not), unknown, guesses (label, score, cosine), reason. What is not known is None.
        """
        return [_as_dict(row) for row in self]

    def to_pandas(self) -> "DataFrame":
        """One row a picture, in the columns that `write` gives a CSV file.

        Raises:
            MissingExtraError: pandas is not installed; the message has the pip command.
        """
        from .outputs import to_pandas

        return to_pandas(self)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write every picture as a row of a file, of the kind that its ending says.

        Args:
            path: ends in .csv, .tsv, .jsonl, .json or .parquet; an existing file is replaced.

        Returns:
            Where it was written, absolute.

        Raises:
            LabelError: it has another ending, or a label holds the `|` that parts several in a cell.
            MissingExtraError: Parquet needs pyarrow; the message has the pip command.
            CollectionError: it cannot be written.
        """
        from .outputs import write_table

        return write_table(self, path)

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a CSV file, whatever the path ends in; see `write`."""
        from .outputs import write_table

        return write_table(self, path, ".csv")

    def to_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Write a Parquet file, whatever the path ends in; see `write`."""
        from .outputs import write_table

        return write_table(self, path, ".parquet")

    def image_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        how: str = "link",
        unlabelled: bool = False,
        progress: bool | None = None,
    ) -> "Tree":
        """Lay labelled pictures out as folder/LABEL/NAME; see `clipsearch.labels.exports.image_folder`."""
        from .exports import image_folder

        return image_folder(self, folder, how=how, unlabelled=unlabelled, progress=progress)

    def label_studio(
        self,
        path: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str],
        url_prefix: str = "/data/local-files/?d=",
    ) -> Path:
        """Write tasks with predictions for Label Studio; see `clipsearch.labels.exports.label_studio`."""
        from .exports import label_studio

        return label_studio(self, path, root=root, url_prefix=url_prefix)

    def fiftyone(self, path: str | os.PathLike[str]) -> Path:
        """Write the labels as FiftyOne reads them; see `clipsearch.labels.exports.fiftyone`."""
        from .exports import fiftyone

        return fiftyone(self, path)

    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        evaluation: "Evaluation | None" = None,
        title: str | None = None,
        reveal: bool = False,
    ) -> Path:
        """Write one HTML file: counts, and for each label its surest and least sure pictures.

        Args:
            path: the file to write; an existing one is replaced.
            evaluation: of these results; shown too.
            title: its heading; None tells what was done.
            reveal: show absolute paths.

        Returns:
            Where it was written, absolute.
        """
        from .page import write_report

        return write_report(self, path, evaluation=evaluation, title=title, reveal=reveal)

    def evaluate(self, truth: "TruthSpec") -> "Evaluation":
        """Measure the labels against the truth; see `clipsearch.labels.evaluation.evaluate`.

        Args:
            truth: "folder" (the name of the folder each picture lies in), a table of paths and labels,
                a mapping, a list, or a function of the picture.

        Raises:
            LabelError: the truth cannot be read, or is of other pictures or labels.
        """
        from .evaluation import evaluate

        return evaluate(self, truth)

    def review(
        self,
        sheet: str | os.PathLike[str],
        count: int = 100,
        *,
        target_precision: float | None = None,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> Path:
        """Draw labels for a person to check; see `clipsearch.labels.review.draw_review`.

        Args:
            sheet: a CSV file to fill in; the page to do it on lies beside it, ending in .html. Another
                call, once all is answered, adds a round.
            count: how many labels.
            target_precision: the share of right labels that is to be promised; None: only measure.
            confidence: of the promise.
            seed: of the draw.

        Returns:
            The page.

        Raises:
            LabelError: nothing is labelled, or the sheet has rows without an answer or is of other labels.
            CollectionError: it cannot be written.
        """
        from .review import draw_review

        return draw_review(
            self, sheet, count, target_precision=target_precision, confidence=confidence, seed=seed
        )

    def reviewed(self, sheet: str | os.PathLike[str]) -> "Review":
        """Read a sheet's answers: how right the labels are, and from which score on they can be kept.

        Raises:
            LabelError: it is no sheet, an answer is none, or it was drawn from other labels than these.
        """
        from .review import read_review

        return read_review(self, sheet)

    def __repr__(self) -> str:
        shown = [f"  {_line(row)}" for row in self[:10]]
        more = [f"  … and {len(self) - 10:,} more"] if len(self) > 10 else []
        return "\n".join([str(self), *shown, *more])

    def __str__(self) -> str:
        found = Counter(map(Verdict, self.verdicts))
        told = ", ".join(f"{found[verdict]:,} {verdict}" for verdict in Verdict if found[verdict])
        about = f"{len(self.labels):,} labels · {self.kind} · {self.templates} · {self.model}"
        examples = f" · {self.refined}" if self.refined else ""
        return printable(f"{len(self):,} pictures: {told or 'none'} · {about}{examples}")

    def _guesses(self, row: int) -> tuple[Guess, ...]:
        names = self.labels.names
        columns = zip(self.scored.top[row], self.scored.scores[row], self.scored.cosines[row], strict=True)
        return tuple(Guess(names[top], _short(score), _short(cos)) for top, score, cos in columns if top >= 0)


def _short(value: np.float32) -> float:
    """The number with the fewest digits that is this float32: 0.8, not 0.800000011920929."""
    return float(str(value))


def _as_dict(row: Labelled) -> dict[str, Any]:
    best = row.guesses[0] if row.guesses else None
    return {
        "id": row.picture.id,
        "path": row.picture.path,
        "key": row.picture.key,
        "source": row.picture.source,
        "verdict": str(row.verdict),
        "label": row.label,
        "labels": list(row.labels),
        "score": best and best.score,
        "cosine": best and best.cosine,
        "unknown": row.unknown,
        "guesses": [guess._asdict() for guess in row.guesses],
        "reason": row.picture.reason or None,
    }


def _line(row: Labelled) -> str:
    said = ", ".join(row.labels) or str(row.verdict)
    score = f"{row.guesses[0].score:.3f}  " if row.guesses else ""
    return f"{score}{printable(said)}  {printable(row.picture.path)}"
