"""The sheet that a person fills in: labels drawn for a review, as a CSV file and as a page that writes it."""

import os
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import LabelError
from .labelset import few
from .outputs import cell, read_table, write_cells

YES, NO = "yes", "no"
NONE = "-"  # as a truth: none of the labels
WORDS = dict.fromkeys(("y", "yes", "true", "1"), YES) | dict.fromkeys(("n", "no", "false", "0"), NO)
WORDS |= {"?": "?", "": ""}


class Asked(NamedTuple):
    """A label of a picture that a person is to judge; its fields are the columns of the sheet.

    Attributes:
        round, number, of: the draw, the place in it, both from 1, and how many were drawn.
        path: the picture.
        label: what is said of it.
        right: "yes", "no", "?" (nobody can tell), or empty: not answered yet.
        truth: the label it should have, where that is another one and known; "-": none of them.
        others: its next best labels, best first.
        score: of the label.
        region: the lowest score of the labels it was drawn from; None: it was drawn from all.
        check: what the row was drawn as, and from what: it no longer fits when either is changed.
    """

    round: int
    number: int
    of: int
    path: str
    label: str
    right: str
    truth: str
    others: tuple[str, ...]
    score: np.float32
    region: np.float32 | None
    check: str


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

    Rows may have been sorted; none may be missing. `right` may also be y, true, 1 or n, false, 0 in any case.

    Raises:
        LabelError: it is no such sheet, or an answer is none; the message tells which.
    """
    rows = sorted(_asked(path.name, row) for row in read_table(path))
    for (drawn, count), each in groupby(rows, key=lambda row: (row.round, row.of)):
        found = [row.number for row in each]
        if found != [*range(1, count + 1)]:
            missing = sorted({*range(1, count + 1)} - {*found})
            told = f"rows {few(missing)} are missing" if missing else "a row is there twice"
            raise LabelError(f"{path.name}, round {drawn}: {told}; expected each of the {count:,} rows once")
    if {row.round for row in rows} != {*range(1, 1 + max((row.round for row in rows), default=0))}:
        raise LabelError(f"{path.name}: a round is missing; expected all rows of all rounds")
    return rows


def _asked(name: str, row: dict[str, object]) -> Asked:
    missing = [column for column in Asked._fields if column not in row]
    if missing:
        raise LabelError(f"{name}: found no column {few(missing)}; expected a sheet drawn for a review")
    where = f"{name}, {row['path']}"
    try:
        region = None if row["region"] is None else np.float32(str(row["region"]).replace(",", "."))
        place, number, count = (int(str(row[column])) for column in ("round", "number", "of"))
        score = np.float32(str(row["score"]))
    except ValueError as error:
        raise LabelError(f"{where}: {error}; expected the numbers as they were drawn") from None
    others = tuple(filter(None, str(row["others"] or "").split("|")))
    told, truth = (str(row[column] or "").strip() for column in ("right", "truth"))
    right = WORDS.get(told.casefold())
    if right is None:
        raise LabelError(f"{where}: found right {told!r}; expected yes, no or ? (nobody can tell)")
    path, label, check = (str(row[column]) for column in ("path", "label", "check"))
    return Asked(place, number, count, path, label, right, truth, others, score, region, check)
