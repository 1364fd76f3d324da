"""A bank of neutral captions: what people ask a photo search for, about no collection in particular."""

from functools import cache
from importlib.resources import files
from typing import Literal, TypeAlias, get_args

from ..errors import QueryError

Language: TypeAlias = Literal["english", "korean"]
"""The languages that there are captions in."""


def captions(language: Language = "english") -> list[str]:
    """Return the captions of one language: search words, phrases and whole sentences.

    They are all different, and lie in a mixed order, so the first n are a fair sample of all. The list is
    the caller's own.

    Raises:
        QueryError: there are no captions in `language`.
    """
    if language not in get_args(Language):
        known = " or ".join(map(repr, get_args(Language)))
        raise QueryError(f"found no captions in the language {language!r}, expected {known}")
    return list(_lines(language))


@cache
def _lines(language: Language) -> tuple[str, ...]:
    """The lines of a file that are not comments."""
    text = (files("clipsearch.bank") / f"{language}.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))
