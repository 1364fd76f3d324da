"""The language of `where=`: conditions on pictures, from text to a tree.

It looks like what follows WHERE in SQL and never becomes SQL: names, texts, numbers and the
relations below are all there is. filters.py finds the pictures that pass.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, TypeAlias

from .errors import SHOWN, QueryError, misread

DEEPEST = 100  # parentheses and nots in each other; Python itself goes some hundreds deep
EXACT = 2**53  # up to here a float is every whole number

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?(?![\w.]))
      | (?P<name>[^\W\d]\w*|"(?:[^"]|"")+")
      | (?P<sign><=|>=|<>|!=|==|[=<>(),])""",
    re.VERBOSE | re.IGNORECASE,
)
_KEYWORDS = {"and", "or", "not", "in", "like", "match", "between", "is", "null", "true", "false"}
_SIGNS = {"=": "=", "==": "=", "<>": "!=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_TURNED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_RELATIONS = "=, !=, <, <=, >, >=, between, in, like, match or is null"
_VALUE = "a text in single quotes or a number"


class Name(NamedTuple):
    """A column."""

    text: str
    at: int  # place of its first character in the expression, from 0


class Value(NamedTuple):
    """A text or a number; true and false are 1 and 0."""

    value: str | float
    at: int


@dataclass(frozen=True, slots=True)
class Relation:
    """What a column must be: a sign, between, in, like or match with values; or null, or true (not 0)."""

    column: Name
    word: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two columns, and =, <, <=, > or >= between them."""

    left: Name
    word: str
    right: Name


@dataclass(frozen=True, slots=True)
class Not:
    """What passes where its part does not; what is unknown stays unknown."""

    part: "Node"


@dataclass(frozen=True, slots=True)
class AllOf:
    """What passes where all parts do."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """What passes where a part does."""

    parts: tuple["Node", ...]


Node: TypeAlias = Relation | Comparison | Not | AllOf | AnyOf


@dataclass(frozen=True)
class Where:
    """A condition that was read, with the text it was read from."""

    text: str
    tree: Node

    def error(self, at: int, problem: str) -> QueryError:
        """What is wrong, and at which character of the expression."""
        return _error(self.text, at, problem)


def parse(text: str) -> Where:
    """Read a condition such as "taken >= '2024' and (camera = 'X100V' or rating in (4, 5))".

    Raises:
        QueryError: it is no condition; the message says at which character, what was found there
            and what is expected.
    """
    if not isinstance(text, str):
        raise QueryError(f"where is a text such as \"taken >= '2024'\", got {type(text).__name__}")
    return Where(text, _Parser(text).whole())


def _error(text: str, at: int, problem: str) -> QueryError:
    return misread("where", text, at, problem)


class _Token(NamedTuple):
    kind: str  # text, number, name, sign, keyword or end
    text: str  # as it stands; a keyword in lower case
    at: int


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif match := _TOKEN.match(text, at):
            kind, found = match.lastgroup or "", match[0]
            word = found.lower()
            yield _Token("keyword", word, at) if word in _KEYWORDS else _Token(kind, found, at)
            at = match.end()
        else:
            quote = text[at] in "'\""
            expected = f"the {text[at]} that closes it" if quote else f"a name, {_VALUE}, or {_RELATIONS}"
            raise _error(text, at, f"found {text[at:].split()[0][:20]}, expected {expected}")
    yield _Token("end", "the end", at)


class _Parser:
    """Reads the tokens of one expression from left to right."""

    def __init__(self, text: str) -> None:
        self._text, self._tokens = text, _tokens(text)
        self._now = next(self._tokens)

    def whole(self) -> Node:
        tree = self._any(0)
        return tree if self._now.kind == "end" else self._fail("and, or, or the end")

    def _any(self, depth: int) -> Node:
        return self._joined("or", AnyOf, lambda: self._joined("and", AllOf, lambda: self._one(depth)))

    def _joined(self, word: str, kind: Callable[[tuple[Node, ...]], Node], part: Callable[[], Node]) -> Node:
        parts = [part()]
        while self._took(word):
            parts.append(part())
        return kind(tuple(parts)) if len(parts) > 1 else parts[0]

    def _one(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise _error(self._text, self._now.at, f"it is nested more than {DEEPEST} deep; expected less")
        if self._took("not"):
            return Not(self._one(depth + 1))
        if self._took("("):
            inside = self._any(depth + 1)
            self._take(")")
            return inside
        return self._test()

    def _test(self) -> Node:
        left = self._operand("a column's name, not or (")
        if self._now.text in _SIGNS and self._now.kind == "sign":
            return self._comparison(left, _SIGNS[self._next().text])
        if isinstance(left, Value):
            self._fail("=, !=, <, <=, > or >=, and a column's name")
        if self._took("is"):
            negated = self._took("not")
            self._take("null")
            return _not(Relation(left, "null"), negated)
        negated = self._took("not")
        readers = {"in": self._listed, "like": self._pattern, "match": self._pattern, "between": self._bounds}
        for word, read in readers.items():
            if self._took(word):
                return _not(Relation(left, word, read()), negated)
        return self._fail("in, like, match or between") if negated else self._bare(left)

    def _bare(self, column: Name) -> Relation:
        if self._now.kind != "end" and self._now.text not in ("and", "or", ")"):
            self._fail(_RELATIONS)
        return Relation(column, "true")

    def _comparison(self, left: Value | Name, sign: str) -> Node:
        right = self._operand(f"{_VALUE}, or a column's name")
        if isinstance(left, Value):
            left, right, sign = right, left, _TURNED[sign]
        if isinstance(left, Value):
            raise _error(self._text, right.at, "found two values, expected a column's name on one side")
        word = "=" if sign == "!=" else sign
        if isinstance(right, Name):
            return _not(Comparison(left, word, right), sign == "!=")
        return _not(Relation(left, word, (right,)), sign == "!=")

    def _operand(self, expected: str) -> Value | Name:
        if self._now.kind != "name":
            return self._value(expected)
        token = self._next()
        quoted = token.text.startswith('"')
        return Name(token.text[1:-1].replace('""', '"') if quoted else token.text, token.at)

    def _value(self, expected: str = _VALUE) -> Value:
        if self._now.text == "null":
            self._fail("a value: nothing equals null; write `is null` or `is not null`")
        if self._now.kind not in ("text", "number") and self._now.text not in ("true", "false"):
            self._fail(expected)
        kind, text, at = self._next()
        if kind == "text":
            return Value(text[1:-1].replace("''", "'"), at)
        number = float(text) if kind == "number" else float(text == "true")
        digits = text.lstrip("+-")
        if abs(number) >= EXACT and digits.isdigit() and digits != str(EXACT):
            expected = f"one up to {EXACT:,}: past that neighbours are not told apart; keep it as a text"
            raise _error(self._text, at, f"found the whole number {text[:SHOWN]}, expected {expected}")
        return Value(number, at)

    def _listed(self) -> tuple[Value, ...]:
        self._take("(")
        values = [self._value()]
        while self._took(","):
            values.append(self._value())
        self._take(")")
        return tuple(values)

    def _pattern(self) -> tuple[Value, ...]:
        return (self._value() if self._now.kind == "text" else self._fail("a text in single quotes"),)

    def _bounds(self) -> tuple[Value, ...]:
        low = self._value()
        self._take("and")
        return low, self._value()

    def _next(self) -> _Token:
        token = self._now
        self._now = next(self._tokens, token)
        return token

    def _took(self, word: str) -> bool:
        """Go past a keyword or sign, if it stands here."""
        here = self._now.text == word and self._now.kind in ("keyword", "sign")
        if here:
            self._next()
        return here

    def _take(self, word: str) -> None:
        self._took(word) or self._fail(word)

    def _fail(self, expected: str) -> NoReturn:
        raise _error(self._text, self._now.at, f"found {self._now.text[:SHOWN]}, expected {expected}")


def _not(test: Node, negated: bool) -> Node:
    return Not(test) if negated else test
