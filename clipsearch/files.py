"""Files that survive a crash: written whole or not at all, and one writer at a time."""

import errno
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import BinaryIO

from .errors import CollectionError, LockedError

TEMPORARY = ".tmp"  # ending of a file that is still being written; never read, swept by the next writer


def write_durably(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file that appears at `path` complete and on disk, or not at all.

    Raises:
        CollectionError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_names(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from error
        raise


def remove_durably(path: Path) -> None:
    """Delete a file, if it is there, so that no crash brings it back.

    Raises:
        CollectionError: the folder cannot be written.
    """
    try:
        path.unlink(missing_ok=True)
        _sync_names(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are not there; their names are then on disk.

    Raises:
        CollectionError: the folder above cannot be written, or it is not a folder.
    """
    if not folder.parent.is_dir():
        make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        _sync_names(folder.parent)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(path: Path, error: OSError) -> CollectionError:
    return CollectionError(f"cannot write {path}: {error.strerror or error}; what was there is safe")


def _sync_names(folder: Path) -> None:
    """Put the names in a folder on disk, where that is asked of us: Windows and some network drives do it."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@cache
def cores() -> int:
    """How many processors this process may use: its affinity, less what its control group withholds."""
    have = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(have, int(quota) // int(period)))
    except (OSError, ValueError):  # another system, or no limit ("max")
        return have


def cache_folder() -> Path:
    """This user's folder for what can be computed again."""
    from platformdirs import user_cache_path

    return user_cache_path("clipsearch", appauthor=False)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let a Ctrl-C that comes meanwhile wait until the end of the block."""
    here = threading.current_thread() is threading.main_thread()  # only there it can arrive
    if not here or signal.getsignal(signal.SIGINT) is None:  # or a handler that is not Python's
        yield
        return
    held: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if held:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the one right to write, which the system takes back when the process dies.

    Raises:
        LockedError: another process holds it; the message names that process.
        CollectionError: the folder cannot be written, or its file system has no locks.
    """
    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise _cannot_write(path.parent, error) from error
    with file:
        try:
            _lock(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise _cannot_write(path, error) from error
            raise LockedError(
                f"{path.parent} is being written by {_holder(path)}; wait for it to end"
            ) from error
        file.truncate(0)
        since = datetime.now().isoformat(" ", "seconds")
        who = {"process": os.getpid(), "machine": socket.gethostname(), "since": since}
        with suppress(OSError):  # a full disk: the lock holds without a name in it
            file.write(json.dumps(who).encode())
        try:
            yield
        finally:
            file.truncate(0)
            _unlock(file.fileno())  # closing is not enough where a child process was forked meanwhile


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text())
        return f"process {who['process']} on {who['machine']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        # A byte far past the text, which others must be able to read.
        os.lseek(handle, 1 << 30, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

    def _unlock(handle: int) -> None:
        os.lseek(handle, 1 << 30, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)
