"""Small files beside a picture that tell of it: a.json, a.txt and a.cls belong to a.jpg."""

import posixpath
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..documents import parse_json
from ..errors import ImageError
from .known import Known

Read = Callable[[], bytes]

ENDINGS = (".json", ".txt", ".cls")  # the later ones win where two tell the same
MAX_SIDECAR = 1 << 16  # bytes; a larger one is for another program, such as one that keeps the picture in it


def is_sidecar(name: str) -> bool:
    """Whether a file of this name may tell of a picture."""
    return name.lower().endswith(ENDINGS)


def small(key: str) -> str:
    """The key with its ending in small letters, as `sidecar_names` has them."""
    stem, ending = posixpath.splitext(key)
    return stem + ending.lower()


def sidecar_names(key: str) -> list[tuple[str, str]]:
    """(ending, name) of all that may belong to a picture, names with the ending in small letters.

    Those of its stem come last and win; before them those of all that stands before the first dot, which
    is what webdataset calls the key: a.json belongs to a.left.jpg and a.right.jpg.
    """
    stem = key[: key.rindex(".")]
    first = key[: key.index(".", key.rfind("/") + 2)]  # a dot that a name begins with is part of it
    stems = (stem,) if first == stem else (first, stem)
    return [(ending, stem + ending) for stem in stems for ending in ENDINGS]


def known_from(sidecars: Mapping[str, tuple[str, Read]]) -> Mapping[str, Any]:
    """What the sidecars of a picture say, by name: (ending, what reads it); none say nothing.

    One that cannot be understood is told under "sidecar_error": the picture itself is as good as any.
    """
    return Known(partial(_merged, dict(sidecars))) if sidecars else {}


def _merged(sidecars: Mapping[str, tuple[str, Read]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, (ending, read) in sidecars.items():
        try:
            values |= _parsed(ending, read())
        except FileNotFoundError:  # gone since it was listed, which will change the stamp
            continue
        except (ImageError, ValueError) as error:
            values["sidecar_error"] = f"{posixpath.basename(name)}: {error}"
    return values


def _parsed(ending: str, content: bytes) -> dict[str, Any]:
    text = content.decode("utf-8-sig", "replace").strip()
    if ending == ".txt":
        return {"caption": text}
    if ending == ".cls":
        return {"label": int(text) if text.isdecimal() else text}
    value = parse_json(text)
    return value if isinstance(value, dict) else {"json": value}
