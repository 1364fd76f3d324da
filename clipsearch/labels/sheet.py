"""The sheet that a person fills in: labels drawn for a review, as a CSV file and as a page that writes it."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import LabelError
from .labelset import few
from .outputs import cell, read_table, write_cells

YES, NO, NOBODY_KNOWS = "yes", "no", "?"
WORDS = {
    "y": YES,
    "yes": YES,
    "true": YES,
    "1": YES,
    "n": NO,
    "no": NO,
    "false": NO,
    "0": NO,
    "?": "?",
    "": "",
}


class Asked(NamedTuple):
    """A label of a picture that a person is to judge; its fields are the columns of the sheet.

    Attributes:
        round, number: the draw and the place in it, both from 1.
        path: the picture.
        label: what is said of it.
        right: "yes", "no", "?" (nobody can tell), or empty: not answered yet.
        truth: the label it should have, where that is another one and known.
        others: its next best labels, best first.
        score: of the label.
        region: the lowest score of the labels it was drawn from; None: it was drawn from all.
        drawn_from: how many labels there were in all.
    """

    round: int
    number: int
    path: str
    label: str
    right: str
    truth: str
    others: tuple[str, ...]
    score: np.float32
    region: np.float32 | None
    drawn_from: int


def sheet_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a sheet.

    Raises:
        LabelError: it does not end in .csv.
    """
    whole = Path(path).expanduser().absolute()
    if whole.suffix.lower() != ".csv":
        raise LabelError(f"found the name {whole.name!r}; expected a sheet that ends in .csv")
    return whole


def write_sheet(path: Path, asked: Iterable[Asked]) -> None:
    """Write a sheet. Numbers are written as short as float32 allows: spreadsheets keep 15 digits.

    Raises:
        CollectionError: it cannot be written.
    """
    write_cells(path, Asked._fields, map(_values, asked))


def cells(asked: Asked) -> list[str]:
    """What stands in a row of a sheet's file."""
    return [str(cell(value)) for value in _values(asked).values()]


def _values(asked: Asked) -> dict[str, object]:
    region = "" if asked.region is None else str(asked.region)
    return asked._asdict() | {"others": list(asked.others), "score": str(asked.score), "region": region}


def read_sheet(path: Path) -> list[Asked]:
    """Read a sheet back, in the order in which it was drawn.

    Rows may have been sorted, and rows cut off the end of a round: a review may stop early. `right` may also
    be y, true, 1 or n, false, 0 in any case.

    Raises:
        LabelError: it is no such sheet, or an answer is none; the message tells which.
    """
    rows = [_asked(path.name, row) for row in read_table(path)]
    _check_places(path.name, rows)
    return sorted(rows)


def _asked(name: str, row: dict[str, object]) -> Asked:
    missing = [column for column in Asked._fields if column not in row]
    if missing:
        raise LabelError(f"{name}: found no column {few(missing)}; expected a sheet drawn for a review")
    where = f"{name}, {row['path']}"
    try:
        region = None if row["region"] is None else np.float32(str(row["region"]))
        numbers = int(str(row["round"])), int(str(row["number"])), int(str(row["drawn_from"]))
        score = np.float32(str(row["score"]))
    except ValueError as error:
        raise LabelError(f"{where}: {error}; expected the numbers as they were drawn") from None
    others = tuple(filter(None, str(row["others"] or "").split("|")))
    told, truth = (str(row[column] or "").strip() for column in ("right", "truth"))
    right = WORDS.get(told.casefold())
    if right is None:
        raise LabelError(f"{where}: found right {told!r}; expected yes, no or ? (nobody can tell)")
    path, label = str(row["path"]), str(row["label"])
    return Asked(*numbers[:2], path, label, right, truth, others, score, region, numbers[2])


def _check_places(name: str, rows: Sequence[Asked]) -> None:
    twice = [pair for pair, times in Counter((row.path, row.label) for row in rows).items() if times > 1]
    if twice:
        raise LabelError(f"{name}: found twice {few(twice)}; expected each label of a picture once")
    places = sorted((row.round, row.number) for row in rows)
    for drawn, each in groupby(places, key=lambda place: place[0]):
        numbers = [number for _, number in each]
        gone = set(range(1, len(numbers) + 1)) - set(numbers)
        if gone:
            raise LabelError(
                f"{name}: row {min(gone)} of round {drawn} is gone; expected all rows but those at the end: "
                "answer ? where nobody can tell"
            )
