"""A small encoder with meaning, for the tests of programs that use clipsearch.

    photos = clipsearch.Collection(folder, model=ColourEncoder())

Its vectors can be worked out by hand and it needs no weights, so a test can say which picture
comes first.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

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
