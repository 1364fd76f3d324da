"""The database of rclip, db.sqlite3: it is read and never written."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from ..errors import SourceError
from .incoming import Batch, Incoming, Row, incoming
from .outgoing import TOGETHER

MODEL = "ViT-B-32-256/datacomp_s34b_b86k"  # of rclip 3
OLD_MODEL = "ViT-B-32-quickgelu/openai"  # of rclip 1 and 2
SINCE = 3  # the version of the database that came with rclip 3
DIM = 512
GOOD = "FROM images WHERE deleted IS NULL"
PAGE = f"SELECT id, filepath, size, vector {GOOD} AND id > ? ORDER BY id LIMIT ?"


def read(path: Path) -> Incoming:
    """What such a database holds: the pictures that are not deleted.

    Raises:
        SourceError: it is no such database.
    """
    with _opened(path) as db:
        [(total,)] = db.execute(f"SELECT count(*) {GOOD}").fetchall()
        [(version,)] = db.execute("SELECT max(version) FROM db_version").fetchall()
        db.execute(PAGE, (0, 1)).fetchall()  # are all columns there?
    model = MODEL if (version or 1) >= SINCE else OLD_MODEL
    return incoming({}, DIM, total, _batches(path))._replace(model=model)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise SourceError(f"found no file {path}; expected the db.sqlite3 of rclip")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.text_factory = os.fsdecode  # a name need not be UTF-8
            yield db
    except sqlite3.DatabaseError as error:
        raise SourceError(f"{path} cannot be read as a database of rclip: {error}") from error


def _batches(path: Path) -> Iterator[Batch]:
    last = 0
    with _opened(path) as db:
        while rows := db.execute(PAGE, (last, TOGETHER)).fetchall():
            last = rows[-1][0]
            vectors = np.full((len(rows), DIM), np.nan, np.float32)  # also where one has another length
            for place, (*_, blob) in enumerate(rows):
                if isinstance(blob, bytes) and len(blob) == 4 * DIM:
                    vectors[place] = np.frombuffer(blob, "<f4")
            yield [Row(filepath, size=size) for _, filepath, size, _ in rows], vectors
