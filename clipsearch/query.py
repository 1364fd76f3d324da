"""Queries with operators: `Query("dog") & ~Query("leash")`, `2 * Query("beach") - "people"`.

`+`, `-` and numbers make one embedding of several, a *unit*; `&`, `|` and `~` join units by how
relevant a picture is to each. Nothing here asks a model or reads a picture: whoever evaluates a
query brings embeddings and relevance.
"""

import math
import operator
import os
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from . import query_text
from .errors import SHOWN, QueryError, misread
from .results import Hit
from .types import as_embeddings

if TYPE_CHECKING:
    from PIL.Image import Image

DEEPEST = 50  # &, | and ~ in each other
TINY = "found a weight that rounds to 0; expected a larger one"

Kind: TypeAlias = Literal["text", "image", "item", "embedding"]


class Leaf(NamedTuple):
    """What has an embedding of its own."""

    kind: Kind
    value: Any  # a text; a path, the bytes of a file or a PIL image; an id; float32 bytes of a unit vector


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Query:
    """What to look for: texts, pictures, items and vectors, joined by operators. It never changes.

    `a & b`, `a | b` and `~a` are about pictures: both, either, not. `a + b`, `a - b`, `2 * a` and `-a` are
    about embeddings, and make one of several: towards, away from, more of. They bind as in Python: `*`, then
    `+` and `-`, then `&`, then `|`; `~` and a leading `-` before all. A str beside an operator is a text.

    Two queries are equal if they say the same in the same order. `str(query)` is the form that
    `Query.parse` reads.

    Args:
        text: plain words; no character of them is an operator.

    Raises:
        QueryError: the text is none or blank; with an operator: the operand is none it can have.
    """

    word: Literal["+", "~", "&", "|"]
    terms: tuple[tuple[float, Leaf], ...]  # of "+": weights and leaves
    parts: tuple["Query", ...]  # of the others
    depth: int

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise QueryError(f"found {type(text).__name__}, expected a text; Query.image takes pictures")
        if not text.strip():
            raise QueryError(f"a query must have words, got {text!r}")
        self._fill("+", terms=((1.0, Leaf("text", text)),))

    def _fill(
        self, word: str, terms: tuple[Any, ...] = (), parts: "tuple[Query, ...]" = (), depth: int = 0
    ) -> "Query":
        for name, value in (("word", word), ("terms", terms), ("parts", parts), ("depth", depth)):
            object.__setattr__(self, name, value)
        return self

    # ------------------------------------------------------------------ leaves

    @staticmethod
    def text(text: str) -> "Query":
        """Plain words, like `Query(text)`."""
        return Query(text)

    @staticmethod
    def image(picture: "str | os.PathLike[str] | bytes | Image") -> "Query":
        """A picture: a path, the bytes of a file, or a PIL image; it is read when searched with."""
        if not (isinstance(picture, str | os.PathLike | bytes) or hasattr(picture, "getexif")):
            found = type(picture).__name__
            raise QueryError(f"found {found}; expected a path, bytes of a file or a PIL image")
        return _leaf("image", os.fsdecode(picture) if isinstance(picture, os.PathLike) else picture)

    @staticmethod
    def item(item: int | Hit) -> "Query":
        """A picture of the collection: a hit, or its id."""
        try:
            id = operator.index(item.id if isinstance(item, Hit) else item)
        except TypeError:
            raise QueryError(f"found {type(item).__name__}, expected a hit or the id of a picture") from None
        if not 0 <= id < 10**18:
            raise QueryError(f"found {id}, expected the id of a picture")
        return _leaf("item", id)

    @staticmethod
    def embedding(vector: npt.ArrayLike) -> "Query":
        """A vector of the model's space: dim numbers, or (1, dim), of any length but zero."""
        try:
            row = as_embeddings(np.atleast_2d(np.asarray(vector, np.float32)))
        except (ValueError, TypeError) as error:
            raise QueryError(f"the query's vector: {error}") from error
        if len(row) != 1:
            raise QueryError(f"one vector is one query, got an array of shape {row.shape}")
        return _leaf("embedding", row.tobytes())

    @staticmethod
    def parse(text: str) -> "Query":
        """Read the text form, such as "dog & ~leash" or "2*beach - people"; docs/queries.md has all.

        Raises:
            QueryError: it is no query, or might mean two things; the message says at which character.
        """
        query: Query = query_text.read(text, _read_leaf)
        try:
            units(query)
        except QueryError as error:
            raise misread("query", text, len(text) - len(text.lstrip()), str(error)) from None
        return query

    # ------------------------------------------------------------------ operators

    def __and__(self, other: "Query | str") -> "Query":
        return _joined("&", self, _query(other))

    def __rand__(self, other: "Query | str") -> "Query":
        return _joined("&", _query(other), self)

    def __or__(self, other: "Query | str") -> "Query":
        return _joined("|", self, _query(other))

    def __ror__(self, other: "Query | str") -> "Query":
        return _joined("|", _query(other), self)

    def __invert__(self) -> "Query":
        return self.parts[0] if self.word == "~" else _joined("~", self)

    def __add__(self, other: "Query | str") -> "Query":
        return _sum(_terms(self) + _terms(_query(other)))

    def __radd__(self, other: "Query | str") -> "Query":
        return _query(other) + self

    def __sub__(self, other: "Query | str") -> "Query":
        return self + -_query(other)

    def __rsub__(self, other: "Query | str") -> "Query":
        return _query(other) - self

    def __neg__(self) -> "Query":
        return self * -1

    def __mul__(self, number: float) -> "Query":
        weight = _weight(number)
        return _sum(tuple((_product(weight, each), leaf) for each, leaf in _terms(self)))

    __rmul__ = __mul__
    __array_ufunc__ = None  # so that NumPy's numbers leave `number * query` to it

    def __hash__(self) -> int:
        terms = tuple((weight, leaf.kind, _hashable(leaf)) for weight, leaf in self.terms)
        return hash((self.word, terms, self.parts))

    def __bool__(self) -> NoReturn:
        raise QueryError("a query is neither true nor false; write & for `and`, | for `or` and ~ for `not`")

    def __str__(self) -> str:
        return query_text.write(self, _as_text)

    def __repr__(self) -> str:
        return query_text.write(self, _as_code)


def _leaf(kind: Kind, value: Any) -> Query:
    return _sum(((1.0, Leaf(kind, value)),))


def _read_leaf(kind: query_text.Kind, text: str) -> Query:
    return Query.item(int(text)) if kind == "item" else Query.image(text) if kind == "image" else Query(text)


def _sum(terms: tuple[tuple[float, Leaf], ...]) -> Query:
    return object.__new__(Query)._fill("+", terms=terms)


def _joined(word: str, *given: Query) -> Query:
    for query in given:
        if query.word == "+":  # the others were looked at when they were made
            totals(query)
    same = [query.parts if query.word == word else (query,) for query in given]  # a & b & c is flat
    parts = tuple(part for each in same for part in each)
    depth = 1 + max(part.depth for part in parts)
    if depth > DEEPEST:
        raise QueryError(f"&, | and ~ are more than {DEEPEST} deep in each other; expected less")
    return object.__new__(Query)._fill(word, parts=parts, depth=depth)


def _query(operand: Query | str) -> Query:
    if isinstance(operand, Query | str):
        return operand if isinstance(operand, Query) else Query(operand)
    ways = "a query or a text; pictures go to Query.image, hits to Query.item"
    raise QueryError(f"found {type(operand).__name__} beside an operator, expected {ways}")


def _terms(query: Query) -> tuple[tuple[float, Leaf], ...]:
    if query.word == "+":
        return query.terms
    raise QueryError(
        f"found {briefly(query)} beside +, - or *, which work on embeddings, and &, | and ~ have none; "
        "join it with & or |, or add and subtract inside it"
    )


def _weight(number: float) -> float:
    if not isinstance(number, Real) or isinstance(number, bool):
        raise QueryError(f"found {type(number).__name__} beside *, expected a number and a query")
    try:
        weight = float(number)
    except OverflowError:  # of an int with hundreds of digits
        weight = math.inf
    if not math.isfinite(weight):
        raise QueryError("found a weight that is no finite number")
    if number and not weight:  # of a fraction
        raise QueryError(TINY)
    return weight


def _product(one: float, other: float) -> float:
    product = _weight(one * other)
    if one and other and not product:
        raise QueryError(TINY)
    return product


# ---------------------------------------------------------------------- units


def units(query: Query) -> list[Query]:
    """The parts of a query that have one embedding each: its sums and leaves, in order.

    Raises:
        QueryError: one adds up to nothing, or has nothing to lead towards.
    """
    if query.word != "+":
        return [unit for part in query.parts for unit in units(part)]
    totals(query)
    return [query]


def totals(unit: Query) -> list[tuple[float, Leaf]]:
    """The leaves of a unit that count, each once, with the sum of its weights over the largest of all."""
    largest = max(abs(weight) for weight, _ in unit.terms) or 1.0
    weights: dict[Any, list[float]] = {}
    for weight, leaf in unit.terms:
        weights.setdefault(key(leaf), []).append(weight / largest)
    each = {key(leaf): leaf for _, leaf in unit.terms}
    summed = [(math.fsum(weights[key]), leaf) for key, leaf in each.items()]
    left = [(weight, leaf) for weight, leaf in summed if abs(weight) > 1e-12]  # 0.1 + 0.2 - 0.3 is 0
    if not left:
        raise QueryError(f"{briefly(unit)} adds up to nothing; expected a weight that is left")
    if all(weight < 0 for weight, _ in left):
        raise QueryError(
            f"{briefly(unit)} only leads away, so towards nothing; add what to look for, "
            "such as `beach - people`, or write ~ for pictures without it"
        )
    return left


def _hashable(leaf: Leaf) -> Any:
    """A leaf's value, or nothing for PIL images, which are equal by their pixels and have no hash."""
    return leaf.value if isinstance(leaf.value, str | bytes | int) else None


def key(leaf: Leaf) -> Any:
    """What tells leaves apart; PIL images, which have no hash, by being the same object."""
    return leaf if isinstance(leaf.value, str | bytes | int) else id(leaf.value)


def negated(query: Query, so: bool = False) -> list[bool]:
    """For each of the units, whether a picture is to be unlike it: under an odd number of ~."""
    if query.word == "+":
        return [so]
    return [each for part in query.parts for each in negated(part, so ^ (query.word == "~"))]


def wanted_parts(query: Query) -> list[range]:
    """For each part of a & b & … that a picture must have, the places of its units; of others none."""
    if query.word != "&":
        return []
    ends = np.cumsum([0, *(len(units(part)) for part in query.parts)]).tolist()
    places = [range(start, end) for start, end in pairwise(ends)]
    return [place for part, place in zip(query.parts, places, strict=True) if part.word != "~"]


# ---------------------------------------------------------------------- writing


def plain(query: Query) -> str | None:
    """The text of a query that is a text alone, else None."""
    weight, leaf = query.terms[0] if len(query.terms) == 1 else (0, None)
    return leaf.value if leaf is not None and weight == 1 and leaf.kind == "text" else None


def name(query: Query) -> str:
    """What a query is called in its results, for a person to read; it names no folder."""
    text = plain(query)
    return query_text.write(query, _as_name) if text is None else text


def briefly(query: Query) -> str:
    """The beginning of a query, for an error."""
    text = str(query)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _as_text(leaf: Leaf) -> str:
    if leaf.kind == "text":
        return query_text.quoted(leaf.value)
    if leaf.kind == "item":
        return f"item:{leaf.value}"
    return (
        f"image:{query_text.quoted_path(leaf.value)}" if isinstance(leaf.value, str) else f"{leaf.kind}:(…)"
    )


def _as_code(leaf: Leaf) -> str:
    if leaf.kind == "text":
        return f"Query({leaf.value!r})"
    value = repr(leaf.value) if isinstance(leaf.value, str | int) else "…"
    return f"Query.{leaf.kind}({value})"


def _as_name(leaf: Leaf) -> str:
    if leaf.kind == "image":
        return f"picture {Path(leaf.value).name}" if isinstance(leaf.value, str) else "a picture"
    return {"text": _as_text(leaf), "item": f"item {leaf.value}"}.get(leaf.kind, "an embedding")
