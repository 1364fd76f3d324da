"""Which pictures pass a condition: true, false and unknown as in SQL, over whole columns at a time."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .columns import ALIASES, CAPTION, KNOWN, Column, Columns, Mask, quoted
from .where import AllOf, AnyOf, Comparison, Name, Node, Not, Relation, Where

ORDER: dict[str, Any] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NAMED = 30  # names in a message


@dataclass(frozen=True)
class Selection:
    """What may be found: present items, and the contents that at least one of them shows.

    Both masks end with one False, which stands for whatever is newer than they are.
    """

    items: Mask  # by item id
    contents: Mask  # by content id

    def has(self, id: int) -> bool:
        """Whether an item passes."""
        return id < len(self.items) and bool(self.items[id])

    def of_contents(self, contents: npt.NDArray[np.int64]) -> Mask:
        """Which of some contents an item that passes shows, (n,)."""
        return self.contents[np.minimum(contents, len(self.contents) - 1)]


def select(columns: Columns, where: Where) -> Selection:
    """Find the pictures that pass.

    Raises:
        QueryError: there is no such column, or numbers are compared with texts; the message says
            at which character.
    """
    passing = _Judge(columns, where).verdict(where.tree).true
    items, contents = (np.zeros(of.max(initial=0) + 2, np.bool_) for of in (columns.ids, columns.contents))
    items[columns.ids] = passing
    contents[columns.contents[passing]] = True
    return Selection(items, contents)


class Verdict(NamedTuple):
    """Where something is true, and where false; elsewhere it is unknown."""

    true: Mask  # (n,)
    false: Mask  # (n,)


class _Judge:
    """Judges all pictures by one condition."""

    def __init__(self, columns: Columns, where: Where) -> None:
        self._columns, self._where = columns, where

    def verdict(self, node: Node) -> Verdict:
        match node:
            case Relation():
                return self._test(node)
            case Comparison():
                return self._comparison(node)
            case Not():
                true, false = self.verdict(node.part)
                return Verdict(false, true)
            case AllOf(parts):
                return reduce(
                    lambda a, b: Verdict(a.true & b.true, a.false | b.false), map(self.verdict, parts)
                )
            case AnyOf(parts):
                return reduce(
                    lambda a, b: Verdict(a.true | b.true, a.false & b.false), map(self.verdict, parts)
                )

    def _test(self, test: Relation) -> Verdict:
        if test.word == "match":
            return self._match(test)
        column = self._column(test.column)
        if test.word == "null":
            return Verdict(~column.known, column.known)
        for value, at in test.values or [(1.0, test.column.at)]:
            self._check(column, test.column, value, at)
        true = column.of_pictures(_marked(column, test.word, [value for value, _ in test.values]))
        return Verdict(true, column.known & ~true)

    def _match(self, test: Relation) -> Verdict:
        if test.column.text != CAPTION:
            expected = f"{CAPTION}, whose words are indexed; of other columns use like"
            raise self._where.error(test.column.at, f"found {test.column.text}, expected {expected}")
        true, known = self._columns.having_words(str(test.values[0].value))
        if not known.any() and len(known):
            raise self._where.error(
                test.column.at, "no picture has a caption yet; `clipsearch caption` writes some"
            )
        return Verdict(true, known & ~true)

    def _comparison(self, test: Comparison) -> Verdict:
        left, right = self._column(test.left), self._column(test.right)
        for name, column in ((test.left, left), (test.right, right)):
            if column.owners is not None or (column.numbers is not None and column.codes is not None):
                raise self._where.error(name.at, f"{name.text} has lists or values of several kinds")
        if (left.numbers is None) != (right.numbers is None) and left.known.any() and right.known.any():
            kinds = " and ".join(f"{c.kind}, such as {c.example}" for c in (left, right))
            raise self._where.error(test.right.at, f"found {kinds}; expected two columns of one kind")
        a, b = (left.numbers, right.numbers) if left.codes is None else _ranked(left, right)
        known = left.known & right.known
        true = known & ORDER[test.word](a, b) if known.any() else known
        return Verdict(true, known & ~true)

    def _check(self, column: Column, name: Name, value: str | float, at: int) -> None:
        """Refuse a text for a column of numbers alone, and a number for one of texts alone."""
        text = isinstance(value, str)
        if (column.numbers, column.codes)[text] is None and (column.codes, column.numbers)[text] is not None:
            written = "without quotes" if text else "in single quotes"
            found = "a text" if text else "a number" if at != name.at else "no relation"
            raise self._where.error(
                at,
                f"found {found}, but {name.text} holds {column.kind}, such as {column.example}, "
                f"which are written {written}",
            )

    def _column(self, name: Name) -> Column:
        column = self._columns[name.text]
        if column.known.any() or name.text in KNOWN or not len(self._columns.ids):
            return column
        names = self._columns.names
        every = dict.fromkeys([*names, *ALIASES])
        same = [known for known in every if known.casefold() == name.text.casefold()]
        if name.text not in names and len(same) != 1:
            raise self._where.error(name.at, self._unknown(name.text, names))
        return column if name.text in names else self._columns[same[0]]

    def _unknown(self, name: str, names: Sequence[str]) -> str:
        near = get_close_matches(name, names, n=3) or names
        more = f" and {len(near) - NAMED:,} more" if len(near) > NAMED else ""
        known = ", ".join(near[:NAMED]) + more
        return (
            f"no picture has {name!r}, expected {known}; a text is written in single quotes, {quoted(name)}"
        )


def _marked(column: Column, relation: str, values: list[Any]) -> Mask:
    """Which of a column's values are so, (m,)."""
    match relation:
        case "in":
            return _among(column, values)
        case "like":
            return column.of_words(column.words.like(values[0]))
        case "between":
            return _ordered(column, ">=", values[0]) & _ordered(column, "<=", values[1])
        case "true":
            return _ordered(column, "<", 0.0) | (_ordered(column, ">", 0.0) & column.are_numbers)
        case _:
            return _ordered(column, relation, values[0])


def _ordered(column: Column, sign: str, value: str | float) -> Mask:
    """Which values are =, <, … one value; as in SQLite, every number is less than every text."""
    if isinstance(value, str):
        low, high = column.words.places(value)
        last = len(column.words)
        begin, end = {"=": (low, high), "<": (0, low), "<=": (0, high), ">": (high, last), ">=": (low, last)}[
            sign
        ]
        found = column.between(begin, end)
        return found | column.are_numbers if sign[0] == "<" else found
    found = column.none() if column.numbers is None else ORDER[sign](column.numbers, value)
    return found | column.between(0, len(column.words)) if sign[0] == ">" else found


def _among(column: Column, values: list[Any]) -> Mask:
    """Which values equal one of some."""
    places = [column.words.places(value) for value in values if isinstance(value, str)]
    words = np.zeros(len(column.words), np.bool_)
    for low, high in places:
        words[low:high] = True
    found = column.of_words(words)
    if column.numbers is None:
        return found
    return found | np.isin(column.numbers, [value for value in values if not isinstance(value, str)])


def _ranked(left: Column, right: Column) -> tuple[Any, Any]:
    """Numbers that order the texts of two columns; those of a picture that has none mean nothing."""
    ranks = {word: rank for rank, word in enumerate(sorted({*left.words, *right.words}))}
    first, second = (np.array([*map(ranks.get, c.words), -1])[c.codes] for c in (left, right))
    return first, second
