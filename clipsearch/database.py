"""items.sqlite as a file: a connection for each thread, and its troubles told in errors of ours."""

import hashlib
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.resources import files
from io import FileIO
from pathlib import Path
from typing import Any

from .errors import CollectionError, DamagedError, LockedError

BUSY_SECONDS = 60  # how long a commit waits for readers, and a reader for a commit


class Connection(sqlite3.Connection):
    """One thread's connection. Who uses it and who closes it take turns: at once they would crash SQLite."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.busy = threading.RLock()


class Database:
    """This process's connections to one database file. May be used from several threads."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._path, self._mode = path, "ro" if read_only else "rw"
        self._connections: dict[threading.Thread, Connection] = {}
        self._files: list[FileIO] = []
        self._opening, self._digesting = threading.Lock(), threading.Lock()
        weakref.finalize(self, _close, self._connections, self._files, self._opening, self._digesting)

    @property
    def connection(self) -> Connection:
        """This thread's connection, in which transactions are begun and ended by hand."""
        me = threading.current_thread()
        if (mine := self._connections.get(me)) is None:
            for ended in [thread for thread in list(self._connections) if not thread.is_alive()]:
                _close_one(self._connections, ended)
            with self._opening:
                mine = self._connections[me] = _connect(self._path, self._mode)
        return mine

    @contextmanager
    def held(self) -> Iterator[Connection]:
        """This thread's connection, which stays open inside whatever other threads do."""
        while True:
            db = self.connection
            with db.busy:
                if self.connection is db:  # else it was closed between the two lines
                    yield db
                    return

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows that a query finds.

        Raises:
            LockedError: another process kept the database busy for BUSY_SECONDS.
            DamagedError: it cannot be read.
            CollectionError: it may not be read.
        """
        try:
            with explained(self._path), self.held() as db:
                return db.execute(query, values).fetchall()
        except UnicodeDecodeError as error:  # SQLite's complaint quotes the damaged bytes
            raise DamagedError(f"{self._path} is damaged ({error}); run `clipsearch verify`") from error

    def digest(self) -> str:
        """sha256 of the file, in hex."""
        with self._digesting:
            # Stays open: closing any handle on a file drops all locks this process, so SQLite, has on it.
            if not self._files:
                self._files.append(FileIO(self._path))
            self._files[0].seek(0)
            return hashlib.file_digest(self._files[0], "sha256").hexdigest()

    def close(self) -> None:
        """Close all connections, those of other threads once they are done; the next use opens a new one."""
        _close(self._connections, self._files, self._opening, self._digesting)


def make_database(path: Path) -> None:
    """Make the empty tables; what an interrupted attempt left is replaced.

    Raises:
        CollectionError: the disk is full or the folder cannot be written.
    """
    schema = files("clipsearch").joinpath("schema.sql").read_text()
    path.unlink(missing_ok=True)  # a journal beside it is then void to SQLite
    with explained(path), closing(_connect(path, "rwc")) as db:
        db.executescript(f"BEGIN; {schema} COMMIT;")


def _connect(path: Path, mode: str) -> Connection:
    uri = path.absolute().as_uri()
    if not uri.startswith("file:///"):  # a Windows share: SQLite wants its server in the path
        uri = uri.replace("file://", "file:////")
    # autocommit: transactions are ours; closed from another thread: by close().
    db = sqlite3.connect(
        f"{uri}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
    )
    try:
        # EXTRA: what a commit replaced is deleted after it, so no power cut may take the commit back.
        db.execute("PRAGMA synchronous = EXTRA")
    except BaseException:
        db.close()
        raise
    return db


def _close(
    connections: dict[threading.Thread, Connection],
    files: list[FileIO],
    opening: threading.Lock,
    digesting: threading.Lock,
) -> None:
    for thread in list(connections):
        _close_one(connections, thread)
    with digesting, opening:
        while files and not connections:  # else one was opened meanwhile, and would lose its locks
            files.pop().close()


def _close_one(connections: dict[threading.Thread, Connection], thread: threading.Thread) -> None:
    """Close the connection of a thread when that is done with it, unless somebody else has closed it."""
    if (db := connections.get(thread)) is not None:
        with db.busy:
            connections.pop(thread, None)
            db.close()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Tell what SQLite has to say of the database at `path` in errors of ours."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # our mistakes, not the database's
    except sqlite3.DatabaseError as error:
        raise _explanation(path, error) from error


def _explanation(path: Path, error: sqlite3.DatabaseError) -> CollectionError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code == sqlite3.SQLITE_READONLY_ROLLBACK:
        return CollectionError(
            f"{path} was left in the middle of a commit; open it once where it can be written, which mends it"
        )
    if code & 0xFF == sqlite3.SQLITE_BUSY:
        return LockedError(f"{path} was kept busy by another process for {BUSY_SECONDS} s; try again")
    if code & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DamagedError(f"{path} is damaged ({error}); run `clipsearch verify`")
    return CollectionError(f"{path}: {error}; what was committed is safe")
