"""A small encoder and a small captioner with meaning, for the tests of programs that use clipsearch.

    photos = clipsearch.Collection(folder, model=ColourEncoder())
    photos.caption(ColourVLM())

Their answers can be worked out by hand and they need no weights, so a test can say which picture
comes first.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .types import Embeddings, Role, as_embeddings

if TYPE_CHECKING:
    from PIL.Image import Image

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "white": (255, 255, 255),
}


class ColourEncoder:
    """Embeds a picture as its mean colour, and a text as the colours it names.

    The three numbers are (red, green, blue) + 1, made unit length; black and a text without a
    colour word are (1, 1, 1), as white is.
    """

    model_id = "colour"
    dim = 3

    def encode_images(self, images: "Sequence[Image]") -> Embeddings:
        """Embed n RGB pictures as float32 (n, 3)."""
        means = [np.asarray(image, np.float32).reshape(-1, 3).mean(axis=0) for image in images]
        return as_embeddings(np.array(means, np.float32).reshape(-1, 3) + 1)

    def encode_texts(self, texts: Sequence[str], *, role: Role = "query") -> Embeddings:
        """Embed n texts as float32 (n, 3)."""
        colours = [[COLOURS[word] for word in text.lower().split() if word in COLOURS] for text in texts]
        sums = [np.sum(found, axis=0) if found else np.zeros(3) for found in colours]
        return as_embeddings(np.array(sums, np.float32).reshape(-1, 3) + 1)

    def fingerprint(self) -> str:
        """Always the same."""
        return "colour-1"


class ColourVLM:
    """Writes "a red picture" of one whose mean colour is nearest to red, and knows if a question names it.

    Log-odds are 1 less the distance of the mean colour to the nearest that is named, in parts of 100.
    """

    model_id = "colour-vlm"

    def spec(self) -> Mapping[str, Any]:
        """Always the same."""
        return {"version": 1}

    def generate(
        self, images: "Sequence[Image]", prompt: str | None = None, *, max_tokens: int = 64
    ) -> list[str]:
        """A text for each of n RGB pictures."""
        return [f"a {min(COLOURS, key=lambda name: _far(image, name))} picture" for image in images]

    def log_odds(
        self, images: "Sequence[Image]", prompt: str, *, yes: Sequence[str], no: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Float64 (n,), and as many ones; a question without a colour is answered with no."""
        named = COLOURS.keys() & set(re.findall(r"\w+", prompt.lower()))
        odds = [1 - min([_far(image, name) for name in named], default=500) / 100 for image in images]
        return np.array(odds, np.float64), np.ones(len(images))


def _far(image: "Image", name: str) -> float:
    mean = np.asarray(image, np.float64).reshape(-1, 3).mean(axis=0)
    return float(np.linalg.norm(mean - COLOURS[name]))
