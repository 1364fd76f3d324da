"""What pictures show, told by folders, tables, mappings, lists or functions."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from unicodedata import normalize

import numpy as np

from ..errors import LabelError
from .labelset import few
from .outputs import BETWEEN, read_table
from .results import Pictured

Truth: TypeAlias = str | Iterable[str] | None
"""What one picture shows: a label, several, or None where it is not known."""

TruthSpec: TypeAlias = (
    str | os.PathLike[str] | Mapping[Any, Truth] | Sequence[Truth] | Callable[[Pictured], Truth]
)

Names: TypeAlias = tuple[str, ...]


def read_truths(pictures: Sequence[Pictured], truth: TruthSpec) -> list[Names | None]:
    """Return what each picture shows, as it is spelled; None where that is not known.

    Raises:
        LabelError: the truth cannot be read, or is of other pictures.
    """
    if isinstance(truth, str) and truth == "folder":
        return [_names(_folder(picture)) for picture in pictures]
    if isinstance(truth, str | os.PathLike):
        path = Path(truth).expanduser()
        if not path.suffix:
            raise LabelError(
                f"found the truth {os.fspath(truth)!r}; expected 'folder' or a table, such as truth.csv"
            )
        return _looked_up(pictures, _from_table(path), path.parent)
    if isinstance(truth, Mapping):
        return _looked_up(pictures, truth.items(), Path())
    told = [truth(picture) for picture in pictures] if callable(truth) else list(truth)
    if len(told) != len(pictures):
        raise LabelError(f"found {len(told):,} truths for {len(pictures):,} pictures; expected one for each")
    return [_names(each) for each in told]


def _names(told: Any) -> Names | None:
    if told is None or (isinstance(told, float) and np.isnan(told)):
        return None
    names = (told,) if isinstance(told, str) or not isinstance(told, Iterable) else tuple(told)
    if not all(isinstance(name, str) for name in names):
        raise LabelError(f"found the truth {told!r}; expected a label's name, several of them, or None")
    written = tuple(name for name in names if name.strip())
    return None if names and not written else written


def _folder(picture: Pictured) -> str:
    return PurePosixPath(picture.key).parent.name or os.path.basename(picture.source)


def _looked_up(
    pictures: Sequence[Pictured], pairs: Iterable[tuple[Any, Truth]], folder: Path
) -> list[Names | None]:
    found: dict[Any, Names] = {}
    for name, told in pairs:
        names = _names(told)
        for spelled in _spellings(name, folder) if names is not None else ():
            found[spelled] = tuple(dict.fromkeys([*found.get(spelled, ()), *(names or ())]))
    keys = [(normalize("NFC", each.path), normalize("NFC", each.key), each.id) for each in pictures]
    truths = [next((found[key] for key in each if key in found), None) for each in keys]
    if not any(each is not None for each in truths):
        raise LabelError(
            f"the truth belongs to other pictures: found {few(found)}, expected names such as "
            f"{few(picture.key for picture in pictures)}"
        )
    return truths


def _spellings(name: Any, folder: Path) -> set[Any]:
    if not isinstance(name, str | os.PathLike):
        return {name}
    text = normalize("NFC", os.fsdecode(name))
    return {text, os.path.abspath(text), os.path.abspath(folder / text)}


def _from_table(path: Path) -> Iterator[tuple[Any, Truth]]:
    for row in read_table(path):
        told = row.get("truth", row["labels"])
        names = [
            name for text in ([told] if isinstance(told, str) else told or ()) for name in text.split(BETWEEN)
        ]
        places = [row[column] for column in ("path", "key") if row.get(column)]
        yield from ((place, names or None) for place in places or [row["id"]])


def plain(name: str) -> str:
    """Return what is equal for names that are the same but for case, white space, `_` and Unicode form."""
    return " ".join(normalize("NFC", normalize("NFC", name).casefold()).replace("_", " ").split())
