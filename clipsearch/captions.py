"""Captions as a collection keeps them: a text for a content, under what wrote it.

They are the user's data: they stay until they are removed, or the picture is and the collection
is compacted. The tables come with the first caption (captions.sql).
"""

import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .encoders.names import short
from .errors import QueryError
from .store import Space, Store, marks, parts_of
from .writer import Writer


class Captioner(NamedTuple):
    """Something that wrote captions here."""

    id: int
    spec: dict[str, Any]  # all that decides a caption, as JSON values; "model" is always there
    live: bool  # its captions are those that are shown and searched

    @property
    def model(self) -> str:
        """The model's id."""
        return str(self.spec["model"])


def captioners(store: Store) -> list[Captioner]:
    """Every captioner that wrote here, oldest first; none before the first caption."""
    if not store.rows("SELECT 1 FROM sqlite_master WHERE name = 'captions'"):
        return []
    rows = store.rows("SELECT id, spec, live FROM captioners ORDER BY id")
    return [Captioner(id, json.loads(spec), bool(live)) for id, spec, live in rows]


def in_use(store: Store) -> Captioner | None:
    """The captioner whose captions are shown and searched; None: there are none."""
    return next((captioner for captioner in captioners(store) if captioner.live), None)


def captions_of(store: Store, contents: Sequence[int]) -> dict[int, str]:
    """The captions in use of those of some contents that have one."""
    captioner = in_use(store)
    found: dict[int, str] = {}
    if captioner is None:
        return found
    query = "SELECT content, text FROM captions WHERE captioner = ? AND text NOT NULL AND content IN"
    for part in parts_of(contents):
        found |= dict(store.rows(f"{query} ({marks(part)})", (captioner.id, *part)))
    return found


def written(store: Store, captioner: Captioner) -> tuple[npt.NDArray[np.int64], dict[int, str]]:
    """The contents that have a caption of a captioner, and why those that it failed on have none."""
    of = "FROM captions WHERE captioner = ? AND text"
    have = store.rows(f"SELECT content {of} NOT NULL ORDER BY content", (captioner.id,))
    failed = store.rows(f"SELECT content, failure {of} IS NULL ORDER BY content", (captioner.id,))
    return np.array(have, np.int64).reshape(-1), dict(failed)


def texts(store: Store, captioner: Captioner) -> Iterator[tuple[int, str]]:
    """Every content that a captioner wrote of and the text, in order of the contents."""
    after = 0
    query = (
        "SELECT content, text FROM captions "
        "WHERE captioner = ? AND content > ? AND text NOT NULL ORDER BY content LIMIT 1000"
    )
    while rows := store.rows(query, (captioner.id, after)):
        yield from rows
        after = rows[-1][0]


def words_of(text: str) -> list[str]:
    """The words of a text as in the index of captions: letters and digits, no capitals and no accents."""
    plain = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFC", "".join(plain)).lower())


def having_words(store: Store, text: str) -> npt.NDArray[np.int64]:
    """The contents whose caption in use has every word of a text, or one that begins with it.

    A text without words is in no caption.
    """
    captioner, wanted = in_use(store), [f'"{word}"*' for word in words_of(text)]
    if captioner is None or not wanted:
        return np.empty(0, np.int64)
    found = store.rows(
        "SELECT content FROM captions WHERE captioner = ? "
        "AND id IN (SELECT rowid FROM caption_words WHERE caption_words MATCH ?)",
        (captioner.id, " AND ".join(wanted)),
    )
    return np.array(found, np.int64).reshape(-1)


def caption_spaces(store: Store) -> dict[int, int]:
    """For each space whose vectors are of captions, the captioner."""
    return dict(store.rows("SELECT space, captioner FROM caption_spaces")) if captioners(store) else {}


def make_captioner(writer: Writer, spec: Mapping[str, Any]) -> Captioner:
    """The captioner of that spec, made when there is none."""
    text = json.dumps(dict(spec), sort_keys=True)
    with writer.transaction() as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'captions'").fetchone():
            for statement in _statements():
                db.execute(statement)
        db.execute("INSERT OR IGNORE INTO captioners (spec, live) VALUES (?, 0)", (text,))
    every = captioners(writer.store)
    return next(one for one in every if json.dumps(one.spec, sort_keys=True) == text)


def write_captions(
    db: sqlite3.Connection, captioner: Captioner, of: Mapping[int, str], failed: Mapping[int, str]
) -> None:
    """Keep the captions of some contents, and why there is none of others; inside a transaction."""
    rows: list[tuple[int, int, str | None, str | None]]
    rows = [(captioner.id, content, text, None) for content, text in of.items()]
    rows += [(captioner.id, content, None, reason) for content, reason in failed.items()]
    keys = [row[:2] for row in rows]
    db.executemany("DELETE FROM captions WHERE captioner = ? AND content = ?", keys)  # REPLACE: no trigger
    db.executemany("INSERT INTO captions (captioner, content, text, failure) VALUES (?, ?, ?, ?)", rows)
    _let_one_be_used(db)


def use_captioner(writer: Writer, captioner: Captioner) -> None:
    """Show and search a captioner's captions from now on."""
    with writer.transaction() as db:
        db.execute("UPDATE captioners SET live = (id = ?)", (captioner.id,))


def drop_captioner(writer: Writer, captioner: Captioner) -> int:
    """Delete a captioner's captions and their vectors; how many there were."""
    with writer.transaction() as db:
        owned = "IN (SELECT space FROM caption_spaces WHERE captioner = ?)"
        db.execute(f"DELETE FROM segments WHERE space {owned}", (captioner.id,))
        db.execute(f"DELETE FROM spaces WHERE id {owned}", (captioner.id,))
        db.execute("DELETE FROM caption_spaces WHERE captioner = ?", (captioner.id,))
        count = db.execute("DELETE FROM captions WHERE captioner = ?", (captioner.id,)).rowcount
        db.execute("DELETE FROM captioners WHERE id = ?", (captioner.id,))
        _let_one_be_used(db)
    return count


def drop_empty(writer: Writer, captioner: Captioner) -> None:
    """Forget a captioner that has neither captions nor failures, such as one that could not be asked."""
    with writer.transaction() as db:
        unused = "id = ? AND id NOT IN (SELECT captioner FROM captions)"
        db.execute(f"DELETE FROM captioners WHERE {unused}", (captioner.id,))


def _let_one_be_used(db: sqlite3.Connection) -> None:
    """Where the captioner in use has no caption, or there is none, use the newest that has some."""
    some = "SELECT captioner FROM captions WHERE text NOT NULL"
    if not db.execute(f"SELECT 1 FROM captioners WHERE live AND id IN ({some})").fetchone():
        db.execute(f"UPDATE captioners SET live = (id IS (SELECT max(captioner) FROM ({some})))")


def find_captioner(store: Store, captioner: str | int) -> Captioner:
    """The captioner of that number, or the newest of that model.

    Raises:
        QueryError: it wrote nothing here.
    """
    known = captioners(store)
    wanted = short(captioner) if isinstance(captioner, str) else captioner
    if named := [one for one in known if wanted in (short(one.model), one.id)]:
        return named[-1]
    names = ", ".join(f"{one.model!r} ({one.id})" for one in known) or "none"
    raise QueryError(f"{store.path} has no captions by {captioner!r}; there are captions by: {names}")


def find_vectors(store: Store, captioner: Captioner, model: str) -> Space | None:
    """The space of a text model's vectors of a captioner's captions, or None."""
    name = _space_name(captioner, model)
    return next((space for space in store.spaces() if space.model == name), None)


def make_vectors(writer: Writer, captioner: Captioner, *, model: str, fingerprint: str, dim: int) -> Space:
    """An empty space for them."""
    name = _space_name(captioner, model)
    with writer.transaction() as db:
        space = writer.insert_space(db, model=name, fingerprint=fingerprint, dim=dim)
        db.execute("INSERT INTO caption_spaces VALUES (?, ?)", (space.id, captioner.id))
    return space


def _space_name(captioner: Captioner, model: str) -> str:
    return f"{model} of captions {captioner.id}"


def _statements() -> Iterator[str]:
    """The statements of captions.sql one by one: as a script they would not be in our transaction."""
    statement = ""
    for line in files("clipsearch").joinpath("captions.sql").read_text().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
