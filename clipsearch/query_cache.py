"""Text queries that were asked before: their vectors, kept in the user's cache folder.

A repeated query needs neither the model nor torch. Keys are the model's id, dimension and
fingerprint and the text, so a vector can never be of another model or of other weights.
CLIPSEARCH_QUERY_CACHE=0 switches it off.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .files import cache_folder
from .types import Embeddings

logger = logging.getLogger("clipsearch")

KEPT = 100_000  # queries; the ones asked longest ago go first
FILE = "queries.sqlite"
TABLE = """CREATE TABLE IF NOT EXISTS queries (
    asked INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT, text TEXT, vector BLOB, UNIQUE (model, text))"""


def cached(
    model: tuple[str, int, str],
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], Embeddings],
    *,
    file: str = FILE,
) -> Embeddings:
    """The embeddings of some texts, of which `encode` is asked only for those not yet known.

    Args:
        model: its id, dimension and fingerprint; one without a fingerprint is never cached.
        texts: q texts.
        encode: gives float32 (n, dim) unit rows for n texts.
        file: of the cache, which keeps the last 100,000.

    Returns:
        float32 (q, dim), in order.
    """
    name, dim, fingerprint = model
    if not texts or not fingerprint:
        return encode(texts)
    key = f"{name} {dim} {fingerprint}"
    known = {text: row for text, row in recall(file, key, texts, np.float32).items() if len(row) == dim}
    new = [text for text in dict.fromkeys(texts) if text not in known]
    if new:
        known |= dict(zip(new, encode(new), strict=True))
        remember(file, key, {text: known[text] for text in new})
    return np.stack([known[text] for text in texts])


def cache_path(file: str = FILE) -> Path:
    """Where the vectors are kept."""
    return cache_folder() / file


def recall(
    file: str, model: str, texts: Sequence[str], dtype: npt.DTypeLike = np.float64
) -> dict[str, npt.NDArray[Any]]:
    """The numbers kept for those of some texts that a model was asked before, from a file of the cache."""
    if switched_off():
        return {}
    query = "SELECT vector FROM queries WHERE model = ? AND text = ?"
    known = {}
    try:
        with closing(sqlite3.connect(cache_path(file), timeout=1)) as db:
            for text in texts:
                if row := db.execute(query, (model, text)).fetchone():
                    known[text] = np.frombuffer(row[0], dtype)
    except (sqlite3.Error, OSError, ValueError) as error:  # a cache may fail; the query may not
        logger.debug("no query cache: %s", error)
    return known


def kept(file: str, model: str) -> int:
    """How many texts of a model a file of the cache has."""
    if switched_off():
        return 0
    try:
        with closing(sqlite3.connect(cache_path(file), timeout=1)) as db:
            [(count,)] = db.execute("SELECT count(*) FROM queries WHERE model = ?", (model,))
            return int(count)
    except (sqlite3.Error, OSError) as error:
        logger.debug("no query cache: %s", error)
        return 0


def remember(file: str, model: str, vectors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Keep numbers for texts that a model was asked, in a file of the cache."""
    if switched_off():
        return
    try:
        cache_path(file).parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(cache_path(file), timeout=1)) as db, db:
            db.execute(TABLE)
            rows = [(model, text, vector.tobytes()) for text, vector in vectors.items()]
            db.executemany("INSERT OR REPLACE INTO queries (model, text, vector) VALUES (?, ?, ?)", rows)
            db.execute("DELETE FROM queries WHERE asked <= (SELECT max(asked) FROM queries) - ?", (KEPT,))
    except (sqlite3.Error, OSError, UnicodeError) as error:
        logger.debug("query not cached: %s", error)
        if any(word in str(error) for word in ("malformed", "not a database")):
            cache_path(file).unlink(missing_ok=True)  # the next time makes it anew


def switched_off() -> bool:
    """Whether the user wants nothing of it kept."""
    return os.environ.get("CLIPSEARCH_QUERY_CACHE") == "0"
