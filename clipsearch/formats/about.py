"""What a file of vectors does not say of itself: a small JSON file beside it does."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree
from typing import Any

from ..documents import parse_json
from ..errors import CollectionError, SourceError
from ..files import make_folder, write_durably
from .outgoing import Outgoing

NAME = "clipsearch.json"


def about(out: Outgoing, *, dtype: str, pictures: int) -> dict[str, Any]:
    """What there is to say of vectors that leave a collection, as JSON values."""
    return {
        "clipsearch": version("clipsearch"),
        "model": out.space.model,
        "fingerprint": out.space.fingerprint,
        "dim": out.space.dim,
        "metric": "inner product",
        "normalised": True,
        "dtype": dtype,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "n": pictures,
    }


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file; it appears whole or not at all."""
    text = json.dumps(document, indent=1)
    write_durably(path, lambda file: file.write(text.encode()))


def read_about(path: Path) -> dict[str, Any]:
    """What a JSON file says; empty where there is none.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    return parse_about(content, path)


def parse_about(content: bytes, path: Path) -> dict[str, Any]:
    """The same of the JSON text itself, which is from `path`.

    Raises:
        SourceError: it is none, or does not name a model.
    """
    try:
        said = parse_json(content)
    except ValueError as error:
        raise SourceError(f"cannot read what {path} says of its vectors: {error}") from error
    texts = [said.get("model"), said.get("fingerprint", "")] if isinstance(said, dict) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise SourceError(f"{path} does not say of which model the vectors are; expected model, fingerprint")
    return dict(said)


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make a folder to export to; one that fails leaves nothing in it, so that it can be repeated.

    Raises:
        CollectionError: there is something in it already, or it cannot be made.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise CollectionError(f"{path} is there already; expected an absent or empty folder")
    make_folder(path)
    try:
        yield
    except BaseException:
        rmtree(path, ignore_errors=True)
        raise
