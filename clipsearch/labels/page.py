"""What a person looks at: a page of labelled pictures, and what an evaluation found."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import LabelError, require
from ..files import write_durably
from ..render import Bar, Card, Cell, Heat, Section, Table, page, printable, relative
from ..results import thumbnail_or_reason
from .evaluation import BINS, Evaluation, by_label
from .results import LabelResults, Pictured, Verdict

SIDE = 256  # pixels, the longer side of a picture
PICTURES = 600  # on the sheets of all labels, some 8 MB; labels beyond have no sheet
ROWS = 40  # of a table of labels
FAILURES = 200  # that are told by name
CLASSES = 40  # that a square of confusions has room for
KINDS = {
    "softmax": "A score is a label's share among all the labels.",
    "sigmoid": "A score is the chance that a label fits, whatever the others do.",
    "contrast": "A score is the share of other words that fit the picture less than the label does.",
}

Guesses = npt.NDArray[np.int64]  # (m, 2): positions of a picture and of one of its guesses


def write_report(
    results: LabelResults,
    path: str | os.PathLike[str],
    *,
    evaluation: Evaluation | None = None,
    title: str | None = None,
    reveal: bool = False,
    shown: int = 12,
) -> Path:
    """Write one HTML file that holds everything it shows, fit to be sent to somebody.

    It has how many pictures each label got, the surest and the least sure of them, those that got
    none, and the reasons of those that cannot be read. With many labels, only those with the most
    pictures have theirs shown, 600 in all, and the page says so.

    Args:
        results: what was said of n pictures, which may be none.
        path: the file to write; an existing one is replaced.
        evaluation: of the same results; the page then shows it, and marks what is wrong.
        title: its heading; None counts the pictures.
        reveal: show absolute paths and link to the files. By default the page tells a picture's name
            and its folder within the source.
        shown: pictures of each label, half of them the surest; also those of each other kind.

    Returns:
        Where it was written, absolute. A picture that can no longer be read is a placeholder in it.

    Raises:
        LabelError: `shown` is less than two, or the evaluation is of other labels.
        CollectionError: it cannot be written.
    """
    if shown < 2:
        raise LabelError(f"found shown={shown!r}, expected 2 or more")
    if evaluation and evaluation.labels != results.labels.names:
        raise LabelError("found an evaluation of other labels, expected one of these results")
    view = _View(results, evaluation, reveal, shown)
    sections = [_counts(view), *_measures(view), *_sheets(view), *_others(view)]
    heading = title or f"{len(results):,} pictures, {len(results.labels):,} labels"
    document = page(heading, sections, note=_about(results), footer="Made with clipsearch").encode()
    whole = Path(path).expanduser().absolute()
    write_durably(whole, lambda file: file.write(document))
    return whole


@dataclass(frozen=True)
class _View:
    """What is shown, and how."""

    results: LabelResults
    evaluation: Evaluation | None
    reveal: bool
    shown: int

    @cached_property
    def given(self) -> Guesses:
        """The guesses that are labels said of a picture, surest first."""
        return self.surest(np.argwhere(self.results.said))

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many pictures each label is said of, (L,)."""
        labels = self.results.scored.top[*self.given.T]
        return np.bincount(labels, minlength=len(self.results.labels))

    @cached_property
    def mistakes(self) -> dict[int, str]:
        """What the pictures show whose best guess is wrong."""
        if self.evaluation is None or not len(self.evaluation.truths):
            return {}
        each = zip(self.evaluation.rows, self.evaluation.truths, self.evaluation.guesses, strict=True)
        return {int(row): self.evaluation.labels[truth] for row, truth, guess in each if truth != guess}

    def best(self, verdict: Verdict) -> Guesses:
        """The best guesses of the pictures with this verdict, surest first."""
        rows = np.flatnonzero(self.results.verdicts == verdict)
        return self.surest(np.stack([rows, np.zeros_like(rows)], axis=1))

    def surest(self, guesses: Guesses) -> Guesses:
        """Order guesses by score, equal ones by cosine."""
        scores, cosines = (column[*guesses.T] for column in self.results.scored[1:3])
        return guesses[np.lexsort((-cosines, -scores))]


def _about(results: LabelResults) -> str:
    which = "those that fit" if results.multi else "the best"
    least = "" if results.least is None else f" A label is said from a score of {results.least:.3g} on."
    return (
        f"The model {_model(results)} gave each picture {which} of {len(results.labels):,} labels "
        f"(prompt templates: {results.templates}). {KINDS[results.kind]}{least}"
    )


def _model(results: LabelResults) -> str:
    return relative(results.model.removeprefix("local-dir:")).as_posix()


def _counts(view: _View) -> Section:
    found = Counter(map(Verdict, view.results.verdicts.tolist()))
    told = [f"{found[verdict]:,} {verdict}" for verdict in Verdict if found[verdict]]
    order, names = np.argsort(-view.counts, kind="stable"), view.results.labels.names
    most = max(1, int(view.counts.max(initial=0)))
    rows = [(names[label], int(view.counts[label]), Bar(view.counts[label] / most)) for label in order[:ROWS]]
    if len(order) > ROWS:
        left = int(view.counts[order[ROWS:]].sum())
        told.append(f"the {ROWS} commonest labels; the other {len(order) - ROWS:,} have {_pictures(left)}")
    table = Table(("label", "pictures", ""), rows)
    return Section("Labels", " · ".join(told) or "no pictures", tables=[table])


def _sheets(view: _View) -> Iterator[Section]:
    """The pictures of each label, those of the labels with the most pictures first."""
    each = by_label(view.results.scored.top[*view.given.T], len(view.results.labels))
    order = [label for label in np.argsort(-view.counts, kind="stable") if view.counts[label]]
    most = max(1, PICTURES // view.shown)
    for label in order[:most]:
        yield from _sheet(view, view.results.labels.names[label], view.given[each[label]])
    if order[most:]:
        yield Section("Further labels", f"The pictures of {len(order) - most:,} more labels are not shown")


def _sheet(view: _View, heading: str, guesses: Guesses) -> Iterator[Section]:
    if len(guesses) <= view.shown:
        yield Section(heading, _pictures(len(guesses)), _cards(view, guesses, named=False), small=True)
        return
    half = view.shown // 2
    yield Section(heading, _pictures(len(guesses)))
    for name, some in ("The surest", guesses[:half]), ("The least sure", guesses[: -half - 1 : -1]):
        yield Section(name, cards=_cards(view, some, named=False), part=True, small=True)


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"


def _others(view: _View) -> Iterator[Section]:
    """What got no label, and what cannot be read."""
    unknown, abstained = view.best(Verdict.UNKNOWN), view.best(Verdict.ABSTAINED)
    if len(unknown):
        chances, scores = view.results.scored.unknown[unknown[:, 0]], view.results.scored.scores[*unknown.T]
        surest = unknown[np.argsort(np.where(np.isnan(chances), scores, -chances), kind="stable")]
        note = (
            f"{_pictures(len(unknown))} that none of the labels fits, the surest first, with the best guess"
        )
        yield Section("Unknown", note, _cards(view, surest[: view.shown]), small=True)
    if len(abstained):
        note = f"{_pictures(len(abstained))} whose best guess is below the threshold, the nearest first"
        yield Section("Abstained", note, _cards(view, abstained[: view.shown]), small=True)
    failed = np.flatnonzero(view.results.verdicts == Verdict.FAILED)
    if len(failed):
        rows = [_failure(view, view.results.pictures[row]) for row in failed[:FAILURES]]
        note = _pictures(len(failed)) + (f", the first {FAILURES} of them" if len(failed) > FAILURES else "")
        yield Section("Cannot be read", note, tables=[Table(("picture", "folder", "reason"), rows)])


def _failure(view: _View, picture: Pictured) -> tuple[str, str, str]:
    if view.reveal:
        return relative(picture.key).name, os.path.dirname(picture.path), picture.reason
    reason = picture.reason.replace(view.results.model, _model(view.results))  # which may be a folder
    return relative(picture.key).name, _folder(picture), reason


def _folder(picture: Pictured) -> str:
    folder = relative(picture.key).parent
    return folder.as_posix() if folder.name else ""


def _cards(view: _View, guesses: Guesses, *, named: bool = True) -> list[Card]:
    """Cards of pictures with one of their guesses, by its name or under a heading that is that."""
    return [_card(view, row, guess, named) for row, guess in guesses.tolist()]


def _card(view: _View, row: int, guess: int, named: bool) -> Card:
    said = view.results[row]
    picture, guesses = said.picture, said.guesses
    image, reason = thumbnail_or_reason(picture.read, SIDE)
    other = [each for each in guesses[:2] if each != guesses[guess]][:1]
    lines = [
        picture.path if view.reveal else _folder(picture),
        f"guess: {guesses[guess].label}" if named else "",
        *(f"or {each.label} {each.score:.3f}" for each in other),
        f"unknown {said.unknown:.3f}" if said.verdict == Verdict.UNKNOWN and said.unknown is not None else "",
        f"truth: {view.mistakes[row]}" if row in view.mistakes else "",
    ]
    there = view.reveal and os.path.isabs(picture.path) and os.path.isfile(picture.path)
    link = Path(picture.path).as_uri() if there else None
    name, score = relative(picture.key).name, f"{guesses[guess].score:.3f}"
    return Card(name, [line for line in lines if line], image, reason, score, link)


def _measures(view: _View) -> Iterator[Section]:
    found = view.evaluation
    if found is None:
        return
    table = Table(("", "found", "by chance"), list(_measured(found)))
    yield Section("Against the truth", _counted(found), tables=[table])
    if len(found.truths):
        yield _confusions(found)
    yield _reliability(found)
    order = [label for label in np.argsort(found.recall, kind="stable") if found.support[label]]
    note = f"The {ROWS} labels found least" if len(order) > ROWS else "The least found first"
    yield Section("Label by label", note, tables=[_by_recall(found, order[:ROWS])], part=True)
    if view.mistakes:
        wrong = view.surest(np.array([(row, 0) for row in view.mistakes]))
        note = f"Of {len(wrong):,} wrong best guesses those with the highest scores"
        yield Section("Surest mistakes", note, _cards(view, wrong[: view.shown]), part=True, small=True)


def _confusions(found: Evaluation) -> Section:
    """All labels against all, or a list of the worst where that would be too wide."""
    heading, names = "Taken for each other", found.labels
    if len(names) > CLASSES:
        worst = [
            (shown, guess, count, Bar(count / found.support[names.index(shown)]))
            for shown, guess, count in found.confusions(30)
        ]
        note = "The most frequent; the bar is the share of the pictures that show the first"
        table = Table(("shows", "taken for", "pictures", ""), worst)
        return Section(heading, note, tables=[table], part=True)
    rows: list[Sequence[Cell]] = [
        (name, *(_heat(found, shown, guess, count) for guess, count in enumerate(counts)))
        for shown, (name, counts) in enumerate(zip(names, found.confusion.tolist(), strict=True))
    ]
    note = "A row for what pictures show, a column for the best guess"
    return Section(heading, note, tables=[Table(("", *names), rows)], part=True)


def _heat(found: Evaluation, shown: int, guess: int, count: int) -> Heat:
    about = f"{found.labels[shown]}, guess {found.labels[guess]}: {count:,} of {found.support[shown]:,}"
    return Heat(count, count / max(1, int(found.support[shown])), shown == guess, about)


def _reliability(found: Evaluation) -> Section:
    chances = found.calibration_error is not None
    note = "The bar is how many of the guesses with about that score are right" + (
        ", the mark that score: they should meet" if chances else ""
    )
    bins = enumerate(zip(*(column.tolist() for column in found.bins), strict=True))
    rows = [
        (f"{n / BINS:.2f}–{(n + 1) / BINS:.2f}", count, right, Bar(right, score if chances else None))
        for n, (count, score, right) in bins
        if count
    ]
    table = Table(("score", "guesses", "right", ""), rows)
    return Section("How far to trust a score", note, tables=[table], part=True)


def _by_recall(found: Evaluation, labels: Sequence[int]) -> Table:
    columns = (found.labels, *(values.tolist() for values in (found.support, found.precision, found.recall)))
    each = ([column[label] for column in columns] for label in labels)
    return Table(("label", "pictures", "precision", "recall", ""), [[*row, Bar(row[-1])] for row in each])


def summary(found: Evaluation) -> str:
    """Return a few lines for a terminal: each measure beside chance, and the worst confusions."""
    lines = [_counted(found)]
    for name, value, chance in _measured(found):
        lines.append(f"{name:<34} {value:.3f}" + ("" if chance != chance else f"   by chance {chance:.3f}"))
    if worst := found.confusions(3):
        told = " · ".join(f"{shown} for {guess} {count:,}" for shown, guess, count in worst)
        lines.append(f"{'taken for each other':<34} {told}")
    return "\n".join(map(printable, lines))


def _counted(found: Evaluation) -> str:
    skipped = [f"{count:,} more {why}" for why, count in found.skipped.items()]
    names = [f"{name} {count:,}" for name, count in found.strange.items()]
    strange = f"not among the labels: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" if names else ""
    return " · ".join(filter(None, [_pictures(found.n), *skipped, strange]))


def _measured(found: Evaluation) -> Iterator[tuple[str, float, float]]:
    """Names of what was measured, its value, and what chance would give: nan where that says nothing."""
    nan, chance = float("nan"), found.chance()
    yield from ((name, value, chance[name]) for name, value in found.metrics().items())
    if found.average_precision_range and found.mean_average_precision is None:
        yield "mean_average_precision, at least", found.average_precision_range[0], nan
        yield "mean_average_precision, at most", found.average_precision_range[1], nan
    if found.calibration_error is not None:
        yield "calibration error", found.calibration_error, nan
    if found.labelled_precision is not None and (found.coverage < 1 or not len(found.truths)):
        yield "coverage: pictures with a label", found.coverage, nan
        yield "precision: labels that are right", found.labelled_precision, nan
    if found.outside:
        yield f"of {found.outside.n:,} with another truth, no label", found.outside.unlabelled, nan
        by = (
            ("  told apart by unknown, AUROC", found.outside.auroc_unknown),
            ("  told apart by score, AUROC", found.outside.auroc_score),
        )
        yield from ((name, value, 0.5) for name, value in by if value is not None)


def plot(found: Evaluation, path: str | os.PathLike[str]) -> Path:
    """Draw the reliability diagram and, where a picture has one label, the confusions with matplotlib.

    Args:
        found: what to draw.
        path: the file to write, in the format that its name ends in: .png, .svg, .pdf, …

    Returns:
        Where it was written, absolute.

    Raises:
        MissingExtraError: matplotlib is not installed; the message has the pip command.
        LabelError: matplotlib draws no such format.
        CollectionError: it cannot be written.
    """
    require("matplotlib", extra="plots")
    from matplotlib.figure import Figure  # not pyplot, which keeps every figure

    whole, panels = Path(path).expanduser().absolute(), 2 if len(found.truths) else 1
    figure = Figure(figsize=(5.5 * panels, 5), layout="constrained")
    if whole.suffix[1:] not in figure.canvas.get_supported_filetypes():
        raise LabelError(f"found {whole.name!r}, expected a name that ends in .png, .svg or .pdf")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _draw_reliability(axes[0], found)
    if panels == 2:
        _draw_confusions(axes[1], found)
    write_durably(whole, lambda file: figure.savefig(file, format=whole.suffix[1:], dpi=150))
    return whole


def _draw_reliability(axes: Any, found: Evaluation) -> None:
    axes.bar((np.arange(BINS) + 0.5) / BINS, np.nan_to_num(found.bins.right), 1 / BINS, edgecolor="white")
    axes.plot([0, 1], [0, 1], "--", color="grey")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="score", ylabel="share that is right")


def _draw_confusions(axes: Any, found: Evaluation) -> None:
    axes.imshow(found.confusion / np.maximum(found.support, 1)[:, None], vmin=0, vmax=1, cmap="Blues")
    axes.set(xlabel="best guess", ylabel="truth")
    if len(found.labels) <= CLASSES:
        places, plain = range(len(found.labels)), {"fontsize": 7, "parse_math": False}  # a $ is a $
        axes.set_xticks(places, found.labels, rotation=90, **plain)
        axes.set_yticks(places, found.labels, **plain)
