"""All candidates on one picture: a strong model lists them, best first, in a single call."""

import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..captioners import load_vlm
from ..encoders.names import short
from ..errors import ImageError, ServerError
from ..types import VLM, Candidate

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

PROMPT = (
    "This sheet shows {n} pictures. The number of each stands in its upper left corner. "
    "List the numbers of the pictures that show {query!r}, best first, separated by commas. "
    "Write nothing but numbers; if no picture shows it, write 0."
)
SIDE = 1024  # pixels of the sheet's longer side, unless the model takes other sizes
GAP = 4  # pixels between pictures
MARK = 5  # a number is a fifth as high as its picture


@dataclass(frozen=True)
class SheetReranker:
    """A model's own order of all candidates, asked for once, by the numbers on a contact sheet.

    For strong models, most of them behind a server: `SheetReranker(HttpVLM(url, model=...))`. The sheet is as
    large as the model's `max_side`, or 1024 pixels. Scores depend on which others are on the sheet, so they
    are not kept: there is no `spec`.

    Args:
        vlm: who looks at the sheet: a model, or what names one in `YesNoReranker`.
        depth: how many of the best are on it; with more, each is smaller.
        weight: of its order beside the first stage's scores, 0 to 1.
    """

    vlm: VLM
    _: KW_ONLY
    depth: int = 20
    weight: float = 0.3
    needs: ClassVar[str] = "pixels"

    def __post_init__(self) -> None:
        if isinstance(self.vlm, str | os.PathLike):
            object.__setattr__(self, "vlm", load_vlm(self.vlm))

    @property
    def name(self) -> str:
        """What it is called in results."""
        return f"sheet:{short(self.vlm.model_id)}"

    @property
    def batch_size(self) -> int:
        """It must see all of them at once."""
        return self.depth

    def score(self, query: str, candidates: Sequence[Candidate]) -> npt.NDArray[np.float64]:
        """Scores of n candidates, float64 (n,): m for the first of m that are listed, 1 for the last of them.

        All others have 0, and so stay in their order. A candidate whose picture cannot be read has nan.
        Numbers that are on no picture, or come a second time, are passed over.

        Raises:
            ServerError: the sheet is refused, or the model cannot be asked.
            ModelError: the model cannot be asked.
        """
        scores, pictures = np.full(len(candidates), math.nan), {}
        for place, candidate in enumerate(candidates):
            with suppress(ImageError):
                pictures[place] = candidate.image()
        scores[list(pictures)] = 0
        listed = self._listed(query, list(pictures.values())) if pictures else []
        scores[[list(pictures)[number - 1] for number in listed]] = range(len(listed), 0, -1)
        return scores

    def _listed(self, query: str, pictures: "Sequence[Picture]") -> list[int]:
        n, side = len(pictures), getattr(self.vlm, "max_side", SIDE)
        prompt = PROMPT.format(n=n, query=query)
        try:
            (text,) = self.vlm.generate([sheet(pictures, side=side)], prompt, max_tokens=8 * n + 16)
        except ImageError as error:  # of no single picture, so none is to be left out
            raise ServerError(f"the sheet of {n} pictures is refused: {error}") from error
        return numbers(text, n)


def numbers(text: str, n: int) -> list[int]:
    """The whole numbers from 1 to n in a text, in order, each once."""
    found = (int(digits) for digits in re.findall(r"\d{1,9}", text))
    return list(dict.fromkeys(number for number in found if 1 <= number <= n))


def sheet(pictures: "Sequence[Picture]", *, side: int = SIDE) -> "Picture":
    """At least one RGB picture, in rows from left to right, numbered from 1; at most `side` pixels a side."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows, cell = math.ceil(len(pictures) / columns), max(1, side // columns)
    whole = Image.new("RGB", (columns * cell, rows * cell), "white")
    for place, picture in enumerate(pictures):
        tile = ImageOps.pad(picture, (max(1, cell - GAP), max(1, cell - GAP)), color="white")
        _mark(tile, str(place + 1), max(10, cell // MARK))
        whole.paste(tile, (place % columns * cell, place // columns * cell))
    return whole


def _mark(tile: "Picture", number: str, height: int) -> None:
    """Write a number in the upper left corner, white on black: readable on any picture."""
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(height)
    _, _, right, bottom = draw.textbbox((height // 5, height // 5), number, font=font)
    draw.rectangle((0, 0, right + height // 5, bottom + height // 5), fill="black")
    draw.text((height // 5, height // 5), number, font=font, fill="white")
