"""What is known of the pictures, as arrays: each column is read from items.sqlite when first asked for."""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from .captions import having_words, in_use, words_of, written
from .sources import restore
from .store import Store

Mask = npt.NDArray[np.bool_]

OWN = ("id", "path", "key", "source")
FACTS = ("taken", "camera", "width", "height", "format", "latitude", "longitude")
ALIASES = {"taken_at": "taken"}
CAPTION = "caption"
KNOWN = {*OWN, *FACTS, *ALIASES, CAPTION}  # whether or not any picture has them

PRESENT = "FROM items JOIN contents ON contents.id = items.content WHERE NOT missing ORDER BY items.id"
# The user's own value of a name hides the file's, as in Hit.metadata.
FOUND = "CASE WHEN json_type(metadata, ?1) IS NULL THEN facts ELSE metadata END"
VALUES = f"SELECT json_type({FOUND}, ?1) = 'array', json_extract({FOUND}, ?1) {PRESENT}"
# A caption is the user's own, or what the captioner in use wrote.
CAPTIONS = VALUES.replace("facts", "json_object('caption', text)").replace(
    "WHERE", "LEFT JOIN captions ON captions.content = items.content AND captioner = ?2 WHERE"
)
KEYS = "SELECT DISTINCT j.key FROM items, json_each(metadata) AS j WHERE metadata != '{}'"

END = b"\xff"  # stands in no UTF-8
REST = b"[^\xff]*"  # of a text
LETTER = b"[^\x80-\xbf\xff][\x80-\xbf]*+"


class Words(Sequence[bytes]):
    """Distinct texts in order, as UTF-8, which sorts as SQLite does; all in one piece of memory."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self._text = END + END.join([*words, b""])
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        self._starts = np.concatenate([[0], np.cumsum(lengths + 1)])  # (W + 1,) the END before each

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        return self._text[self._starts[place] + 1 : self._starts[place + 1]]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._text[1:-1].split(END) if len(self) else [])

    def places(self, word: str) -> tuple[int, int]:
        """How many are less than a text, and how many are not greater."""
        wanted = to_bytes(word)
        return bisect_left(self, wanted), bisect_right(self, wanted)

    def like(self, pattern: str) -> Mask:
        """Which are LIKE a pattern of % and _, the case of ASCII letters aside: (W,)."""
        wanted = _regex(to_bytes(pattern).lower())
        found = np.zeros(len(self) + 1, np.bool_)
        begins = (match.start() for match in wanted.finditer(self._lower))
        found[np.searchsorted(self._starts, np.fromiter(begins, np.int64), side="right") - 1] = True
        return found[:-1]

    def having(self, text: str) -> Mask:
        """Which have every word of a text, or one that begins with it, as in the index of captions: (W,)."""
        wanted = words_of(text)
        each = (words_of(word.decode("utf-8", "replace")) for word in self)
        found = (all(any(word.startswith(begin) for word in words) for begin in wanted) for words in each)
        return np.fromiter(found, np.bool_, len(self)) & bool(wanted)

    @cached_property
    def _lower(self) -> bytes:
        return self._text.lower()


class Dates(Words):
    """Moments in ISO 8601; the beginning of one, such as 2024-06, stands for all of that month."""

    def places(self, word: str) -> tuple[int, int]:
        """How many are before a period, and how many are not after it."""
        wanted = to_bytes(word.replace(" ", "T", 1))
        return bisect_left(self, wanted), bisect_left(self, wanted + END)


def _regex(pattern: bytes) -> re.Pattern[bytes]:
    """What finds a place in each text that is LIKE the pattern, in texts between ENDs."""
    head, *middle = pattern.split(b"%")
    tail = middle.pop() if middle else None
    first = END + _letters(head) if head or tail is None else b""
    parts = [_letters(part) for part in middle if part]
    if tail:
        parts.append(_letters(tail) + b"(?=\xff)")
    if not first and parts:
        first = parts.pop(0)
    # Atomic: the first place where a part stands is as good as any later one. Only the end must be the last.
    rest = [b"(?>[^\xff]*?" + part + b")" for part in parts]
    return re.compile(first + b"".join(rest) + (b"(?=\xff)" if tail is None else REST), re.DOTALL)


def _letters(part: bytes) -> bytes:
    return LETTER.join(map(re.escape, part.split(b"_")))


@dataclass(frozen=True)
class Column:
    """What n pictures have under one name: a number, a text, a list of both, or nothing.

    Of lists there is each element, and `owners` tells whose it is; else value i is of picture i.
    """

    known: Mask  # (n,) whether there is anything
    numbers: npt.NDArray[np.float64] | None  # (m,) nan where there is none; None: no numbers at all
    codes: npt.NDArray[np.int32] | None  # (m,) place in `words`, -1 where there is none; None likewise
    words: Words
    owners: npt.NDArray[np.int64] | None  # (m,)

    def of_pictures(self, values: Mask) -> Mask:
        """Whether any value of each picture is among those marked, (n,)."""
        if self.owners is None:
            return values
        found = np.zeros_like(self.known)
        found[self.owners[values]] = True
        return found

    def none(self) -> Mask:
        """No value marked, (m,)."""
        return np.zeros(len(self.known if self.owners is None else self.owners), np.bool_)

    def between(self, begin: int, end: int) -> Mask:
        """Which values are the texts from one place in `words` up to another, (m,)."""
        return self.none() if self.codes is None else (self.codes >= begin) & (self.codes < end)

    def of_words(self, words: Mask) -> Mask:
        """Which values are among the texts marked, (m,)."""
        return self.none() if self.codes is None else np.append(words, np.False_)[self.codes]

    @property
    def are_numbers(self) -> Mask:
        """Which values are numbers, (m,)."""
        return self.none() if self.numbers is None else ~np.isnan(self.numbers)

    @property
    def kind(self) -> str:
        """What a column of one kind holds."""
        return "texts" if self.numbers is None else "numbers"

    @property
    def example(self) -> str:
        """One of its values, as it would be written."""
        if self.numbers is not None:
            return f"{self.numbers[~np.isnan(self.numbers)][0]:.15g}"
        return quoted(self.words[len(self.words) // 2].decode("utf-8", "replace")[:40])


class Columns:
    """The pictures that are present, in order of their ids, and what is known of them."""

    def __init__(self, store: Store, generation: int) -> None:
        self._store, self.generation = store, generation
        table = np.array(store.rows(f"SELECT items.id, content {PRESENT}"), np.int64).reshape(-1, 2)
        self.ids, self.contents = table[:, 0].copy(), table[:, 1].copy()  # (n,)
        self._columns: dict[str, Column] = {}

    def __getitem__(self, name: str) -> Column:
        """The column of that very name; one that no picture has anything in is all unknown."""
        name = ALIASES.get(name, name)
        if name not in self._columns:
            self._columns[name] = self._load(name)
        return self._columns[name]

    @cached_property
    def names(self) -> list[str]:
        """Every column there is: ours, then the user's own."""
        captions = [CAPTION] if in_use(self._store) else []
        return list(dict.fromkeys([*OWN, *FACTS, *captions, *self._own]))

    @cached_property
    def _own(self) -> list[str]:
        """The user's own names."""
        return sorted(key.decode("utf-8", "replace") for (key,) in self._bytes(KEYS))

    def having_words(self, text: str) -> tuple[Mask, Mask]:
        """The pictures whose caption has all words of a text, and those that have a caption, each (n,)."""
        if CAPTION in self._own:
            column = self[CAPTION]
            return column.of_pictures(column.of_words(column.words.having(text))), column.known
        return np.isin(self.contents, having_words(self._store, text)), self._captioned

    @cached_property
    def _captioned(self) -> Mask:
        """The pictures that have a caption by the captioner in use, (n,)."""
        captioner = in_use(self._store)
        return np.isin(self.contents, written(self._store, captioner)[0] if captioner else [])

    def _load(self, name: str) -> Column:
        if name == "id":
            return Column(
                np.ones(len(self.ids), np.bool_), self.ids.astype(np.float64), None, Words([]), None
            )
        if name in OWN:
            return _column(list(self._places(name)))
        if '"' in name:  # it cannot be written in SQLite's JSON paths
            return _column([None] * len(self.ids))
        captioner = in_use(self._store) if name == CAPTION else None
        path = "$." + json.dumps(name)
        rows = self._bytes(CAPTIONS, (path, captioner.id)) if captioner else self._bytes(VALUES, (path,))
        if not any(listed for listed, _ in rows):
            return _column([value for _, value in rows], words=Dates if name == "taken" else Words)
        lists = iter(json.loads(b"[" + b",".join(value for listed, value in rows if listed) + b"]"))
        return _lists([next(lists) if listed else [value] for listed, value in rows])

    def _places(self, name: str) -> Iterator[bytes]:
        sources = {row.id: restore(row.kind, row.root, row.options) for row in self._store.sources()}
        for source, key in self._bytes(f"SELECT source, key {PRESENT}"):
            match name:
                case "key":
                    yield key
                case "source":
                    yield to_bytes(sources[source].root)
                case _:
                    yield to_bytes(sources[source].path(key.decode("utf-8", "surrogatepass")))

    def _bytes(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query, texts as bytes: Python does not decode the lone surrogates some may hold."""
        with self._store.database.held() as db:
            db.text_factory = bytes
            try:
                return self._store.rows(query, values)
            finally:
                db.text_factory = str


def _column(
    values: list[Any], known: Mask | None = None, owners: Any = None, words: type[Words] = Words
) -> Column:
    """The column of some values: numbers, bytes or None."""
    kinds = set(map(type, values))
    numbers = codes = None
    texts: list[bytes] = []
    if kinds & {int, float}:
        plain = [None if type(value) is bytes else value for value in values] if bytes in kinds else values
        numbers = np.array(plain, np.float64)
    if bytes in kinds:
        texts = sorted(value for value in set(values) if type(value) is bytes)
        ranks: dict[Any, int] = dict(zip(texts, range(len(texts)), strict=True))
        codes = np.fromiter(map(ranks.get, values, repeat(-1)), np.int32, len(values))
    if known is None:
        known = np.fromiter((value is not None for value in values), np.bool_, len(values))
    return Column(known, numbers, codes, words(texts), owners)


def _lists(lists: list[list[Any]]) -> Column:
    """The column of lists; one that is [None] is no list, but nothing."""
    known = np.fromiter((values != [None] for values in lists), np.bool_, len(lists))
    elements = [
        (owner, _element(value))
        for owner, values in enumerate(lists)
        for value in values
        if value is not None
    ]
    owners = np.fromiter((owner for owner, _ in elements), np.int64, len(elements))
    return _column([value for _, value in elements], known, owners)


def _element(value: Any) -> Any:
    """An element of a list as SQLite gives values that stand alone."""
    if isinstance(value, str):
        return to_bytes(value)
    if isinstance(value, bytes | int | float):
        return value + 0 if isinstance(value, bool) else value
    return json.dumps(value, separators=(",", ":")).encode()


def quoted(text: str) -> str:
    """A text as an expression has it."""
    return "'" + text.replace("'", "''") + "'"


def to_bytes(text: str) -> bytes:
    """UTF-8; lone surrogates, which stand for bytes of names that are not Unicode, pass through."""
    return text.encode("utf-8", "surrogatepass")
