"""The text form of a query, such as `dog & ~leash` or `2*beach + sunset - people`.

Reading applies Python's own operators to the leaves, as they bind in Python; so a text means what
the same operators mean between `Query` objects. Words that stand beside each other are one text.
"""

import operator
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

from .errors import SHOWN, QueryError, misread

# What a keyboard or a word processor writes for a sign: some anywhere in a word, dashes alone or, if they are
# no punctuation, before a word, quotes around one.
_NEARLY = re.compile(r"[＆｜～＋＊（）]|^[−－]|^[–—]$|^[“”„＂]|[“”„＂]$")
_MEANT = dict(zip("＆｜～＋＊（）−－–—“”„＂", '&|~+*()----""""', strict=True))

DEEPEST = 100  # parentheses, ~ and - in each other; Python itself goes some hundreds deep

Kind: TypeAlias = Literal["text", "image", "item"]

_QUOTED = r'"(?:[^"]|"")*+"'
_BARE = r'[^\s()"*&|]+'  # a path that needs no quotes
_TOKEN = re.compile(
    rf"""(?P<image>(?i:image):(?:{_QUOTED}|{_BARE})?)
       | (?P<item>(?i:item):(?:{_BARE})?)
       | (?P<text>{_QUOTED})
       | (?P<word>[^\s()"*&|~+-][^\s()"*&|~]*)
       | (?P<sign>[()*&|~+-])""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?", re.IGNORECASE)
BINDS = {"|": 1, "&": 2, "+": 3, "-": 3, "*": 4}  # as in Python; higher binds tighter
PREFIX = 5  # ~ and unary -
_APPLY = {"|": operator.or_, "&": operator.and_, "+": operator.add, "-": operator.sub, "*": operator.mul}
_OPERAND = "words, a text in double quotes, image:PATH, item:NUMBER, ~, - or ("
_SPACED = {
    "-": "spaces on both sides to subtract; `a & ~b` leaves out; a text with a dash stands in double quotes",
    "+": "spaces on both sides to add; a text with a plus stands in double quotes",
    "*": "spaces on both sides or on none; a text with a * stands in double quotes",
}


def read(text: str, leaf: Callable[[Kind, str], Any]) -> Any:
    """Read the text form of a query.

    Args:
        text: words, quoted texts, `image:PATH`, `item:NUMBER`, `& | ~ + - *`, numbers and parentheses.
        leaf: makes an operand of the kind and the text, path or number; it may raise a QueryError.

    Raises:
        QueryError: it is no query, or might mean two things; the message says at which character,
            what was found there and what is expected.
    """
    if not isinstance(text, str):
        raise QueryError(f"the text form of a query is a text, got {type(text).__name__}")
    return _Parser(text, leaf).whole()


def write(query: Any, leaf: Callable[[Any], str]) -> str:
    """The text form of a query, with no more parentheses than the operators' order asks for.

    Args:
        query: has a `word`, which is an operator; "+" has `terms`, pairs of weight and leaf, others `parts`.
        leaf: gives a leaf's text.
    """
    if query.word == "+":
        return _write_sum(query.terms, leaf)
    level = _level(query)
    parts = [write(part, leaf) if _level(part) >= level else f"({write(part, leaf)})" for part in query.parts]
    return f"~{parts[0]}" if query.word == "~" else f" {query.word} ".join(parts)


def _write_sum(terms: tuple[tuple[float, Any], ...], leaf: Callable[[Any], str]) -> str:
    text = ""
    for weight, one in terms:
        size = "" if abs(weight) == 1 else repr(abs(weight)).removesuffix(".0") + "*"
        sign = "-" if weight < 0 else "+"
        text += f" {sign} " if text else sign.strip("+")
        text += size + leaf(one)
    return text


def _level(query: Any) -> int:
    """How tightly the loosest operator of a query binds."""
    if query.word != "+":
        return PREFIX if query.word == "~" else BINDS[query.word]
    if len(query.terms) > 1:
        return BINDS["+"]
    return PREFIX if query.terms[0][0] == 1 else BINDS["*"]


def quoted(text: str) -> str:
    """A text as it stands in a query: as it is where it reads back as these words, else in double quotes."""
    bare = bool(text) and not _NUMBER.fullmatch(text) and all(map(_is_word, text.split(" ")))
    return text if bare else in_quotes(text)


def quoted_path(path: str) -> str:
    """A path as it stands after `image:`."""
    return path if re.fullmatch(_BARE, path) else in_quotes(path)


def in_quotes(text: str) -> str:
    """A text in double quotes; those inside are doubled."""
    return '"' + text.replace('"', '""') + '"'


def _is_word(text: str) -> bool:
    match = _TOKEN.fullmatch(text)
    plain = match is not None and match.lastgroup == "word"
    return plain and not _sum_within(text) and not _NEARLY.search(text)


def _sum_within(word: str) -> bool:
    """Whether a word looks like a sum without spaces; C++ and 1e+5 do not."""
    return bool(re.search(r"\w\+\w", word)) and not _NUMBER.fullmatch(word)


class _Token(NamedTuple):
    kind: str  # image, item, text, word, sign or end
    text: str  # as it stands
    at: int


class _Operand(NamedTuple):
    query: Any
    number: float | None  # if it may be a weight
    at: int


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif match := _TOKEN.match(text, at):
            yield _Token(match.lastgroup or "", match[0], at)
            at = match.end()
        else:  # only a double quote is left
            raise misread("query", text, at, 'found ", expected the " that closes it')
    yield _Token("end", "the end", at)


class _Parser:
    """Reads the tokens of one query from left to right."""

    def __init__(self, text: str, leaf: Callable[[Kind, str], Any]) -> None:
        self._text, self._leaf, self._tokens = text, leaf, _tokens(text)
        self._now = next(self._tokens)

    def whole(self) -> Any:
        query = self._expression(0, 0).query
        if self._now.kind == "end":
            return query
        self._fail("&, |, +, -, * or the end; what has spaces or signs in it stands in double quotes")

    def _expression(self, loosest: int, depth: int) -> _Operand:
        """Operands joined by what binds tighter than `loosest`."""
        left = self._operand(depth)
        while self._now.kind == "sign" and BINDS.get(self._now.text, 0) > loosest:
            sign = self._binary()
            left = self._joined(left, sign, self._expression(BINDS[sign.text], depth))
        return left

    def _binary(self) -> _Token:
        before, after = (self._text[i : i + 1] for i in (self._now.at - 1, self._now.at + 1))
        if self._now.text in "&|" and after == self._now.text:
            problem = f"found {2 * after}, expected a single {after}, with spaces around it"
            raise misread("query", self._text, self._now.at, problem)
        if self._now.text in _SPACED and before.isspace() != after.isspace() and after:
            self._fail(_SPACED[self._now.text])
        if self._now.text in "&|" and not re.search(r'[\s()"~]', before + (after or " ")):
            self._fail("spaces around it; a text such as AT&T stands in double quotes")
        return self._next()

    def _joined(self, left: _Operand, sign: _Token, right: _Operand) -> _Operand:
        parts = left.query, right.query
        if sign.text == "*":
            if (left.number is None) == (right.number is None):
                found = "no number" if left.number is None else "two numbers"
                problem = (
                    f"found {found} beside *, expected one; a text such as M*A*S*H stands in double quotes"
                )
                raise misread("query", self._text, sign.at, problem)
            parts = (left.query, right.number) if left.number is None else (left.number, right.query)
        return _Operand(self._applied(sign.at, _APPLY[sign.text], *parts), None, left.at)

    def _operand(self, depth: int) -> _Operand:
        if depth > DEEPEST:
            raise misread(
                "query", self._text, self._now.at, f"it is nested more than {DEEPEST} deep; expected less"
            )
        at, sign = self._now.at, self._now.text if self._now.kind == "sign" else ""
        if sign not in ("", "~", "-", "("):
            self._fail(_OPERAND)
        if not sign:
            return self._one()
        self._next()
        if sign == "(":
            inside = self._expression(0, depth + 1)
            self._close()
            return inside
        inside = self._operand(depth + 1)
        number = None if inside.number is None or sign == "~" else -inside.number
        apply = operator.invert if sign == "~" else operator.neg
        return _Operand(self._applied(at, apply, inside.query), number, at)

    def _close(self) -> None:
        if self._now[:2] != ("sign", ")"):
            self._fail("&, |, +, -, * or the ) that closes it")
        self._next()

    def _one(self) -> _Operand:
        kind, found, at = self._now
        if kind == "word":
            return self._words()
        value = found if kind == "text" else found.partition(":")[2]
        if kind == "end":
            self._fail(_OPERAND)
        if kind == "image" and not value:
            self._fail("a path behind it; one with spaces in double quotes")
        if kind == "item" and not re.fullmatch("[0-9]{1,18}", value):
            self._fail("item: and the number of a picture")
        self._next()
        plain = value[1:-1].replace('""', '"') if value.startswith('"') else value
        return _Operand(self._applied(at, self._leaf, kind, plain), None, at)

    def _words(self) -> _Operand:
        at, words = self._now.at, []
        while self._now.kind == "word":
            if _sum_within(self._now.text):
                self._fail(_SPACED["+"])
            if nearly := _NEARLY.search(self._now.text):
                self._fail_nearly(self._now.at + nearly.start(), nearly[0])
            words.append(self._next().text)
        number = float(words[0]) if len(words) == 1 and _NUMBER.fullmatch(words[0]) else None
        if number == 0 and re.match("[0.]*[1-9]", words[0]):
            problem = f"found {words[0][:SHOWN]}, which rounds to 0; expected a larger number"
            raise misread("query", self._text, at, problem)
        return _Operand(self._applied(at, self._leaf, "text", " ".join(words)), number, at)

    def _applied(self, at: int, make: Callable[..., Any], *parts: Any) -> Any:
        try:
            return make(*parts)
        except QueryError as error:
            raise misread("query", self._text, at, str(error)) from None

    def _next(self) -> _Token:
        token = self._now
        self._now = next(self._tokens, token)
        return token

    def _fail_nearly(self, at: int, found: str) -> NoReturn:
        called = unicodedata.name(found).lower()
        problem = f"found {found} ({called}), expected {_MEANT[found]}, or the text in double quotes"
        raise misread("query", self._text, at, problem)

    def _fail(self, expected: str) -> NoReturn:
        found = self._now.text[:SHOWN]
        raise misread("query", self._text, self._now.at, f"found {found}, expected {expected}")
