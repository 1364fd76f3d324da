"""Texts in a script that a model does not know."""

import logging
import unicodedata
from collections.abc import Iterable

from .catalog import CATALOG

logger = logging.getLogger("clipsearch")


SAID: set[str] = set()  # ids of the models of which it was said in this process


def stranger(model_id: str, texts: Iterable[str]) -> str | None:
    """The first text in a script that a model of the catalogue does not know, which then is English only."""
    if not any(m.name == model_id and m.languages == "English" for m in CATALOG.values()):
        return None
    return next(filter(_foreign, texts), None)


def notice_script(model_id: str, texts: Iterable[str]) -> None:
    """Say once that a model of the catalogue knows English only, at the first text in another script."""
    if model_id not in SAID and (foreign := stranger(model_id, texts)):
        SAID.add(model_id)
        said = "%s knows English only; what it finds for %.40r means nothing (said once)"
        logger.warning(said, model_id, foreign)


def _foreign(text: str) -> bool:
    """Whether most letters of a text are of another script than the Latin one."""
    if text.isascii():
        return False
    letters = [unicodedata.name(letter, "") for letter in text[:200] if letter.isalpha()]
    return sum("LATIN" in name for name in letters) < len(letters) / 2
