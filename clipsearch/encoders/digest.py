"""Digests of weights and other files, remembered so that gigabytes are read once."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..files import cache_folder

_BIG = 64 << 20  # bytes; smaller files are read again, in under 0.1 s
_SHA256 = re.compile("[0-9a-f]{64}")
_MODEL_SUFFIXES = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")


def remember(name: str, text: str) -> None:
    """Keep a text in the cache folder, whole or not at all; where that is impossible, do without."""
    path = cache_folder() / name
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        return


def recall(name: str) -> str | None:
    """What `remember` kept under that name, or None."""
    try:
        return (cache_folder() / name).read_text(encoding="utf-8")
    except OSError:
        return None


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal.

    Files of the Hugging Face cache are named by it already. Of other big files it is remembered
    under path, size and time of change.
    """
    real = path.resolve()
    if real.parent.name == "blobs" and _SHA256.fullmatch(real.name):
        return real.name
    state = real.stat()
    if state.st_size < _BIG:
        return _read(real)
    key = f"{real}|{state.st_size}|{state.st_mtime_ns}"
    name = f"digests/{hashlib.sha256(os.fsencode(key)).hexdigest()}.txt"
    known = recall(name)
    if known is None:
        known = _read(real)
        remember(name, known)
    return known


def sha256_of_files(paths: Iterable[Path]) -> str:
    """One digest over the names and contents of several files, in any order."""
    lines = sorted(f"{path.name} {sha256_of(path)}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def sha256_of_model(folder: Path) -> str:
    """One digest over weights, preprocessing and tokenizer of a model in transformers' format."""
    paths = (path for path in folder.rglob("*") if path.suffix in _MODEL_SUFFIXES)
    return sha256_of_files(path for path in paths if not path.relative_to(folder).as_posix().startswith("."))


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
