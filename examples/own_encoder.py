"""Search with a model of your own: here a colour histogram, which needs no weights at all.

python examples/own_encoder.py ~/Photos query.jpg
"""

import sys
from collections.abc import Sequence

import numpy as np
from PIL.Image import Image

import clipsearch as cs

BINS = 6


class Histogram:
    """Embeds a picture as its colours, wherever they are. It has no idea of words."""

    model_id = f"histogram-{BINS}"
    dim = BINS**3

    def encode_images(self, images: Sequence[Image]) -> cs.Embeddings:
        """Square roots of the shares of each colour: their dot product is the Bhattacharyya coefficient."""
        pixels = [np.asarray(image.resize((64, 64))).reshape(-1, 3) // (256 // BINS + 1) for image in images]
        cells = [three @ [BINS * BINS, BINS, 1] for three in pixels]
        shares = [np.bincount(cell, minlength=self.dim) / len(cell) for cell in cells]
        return np.sqrt(np.array(shares, np.float32).reshape(-1, self.dim))

    def encode_texts(self, texts: Sequence[str], *, role: str = "query") -> cs.Embeddings:
        raise cs.ClipsearchError("a histogram knows no words; search with a picture")


def main(folder: str, picture: str) -> None:
    with cs.Collection("colours.clipsearch", model=Histogram()) as photos:
        print(photos.add(folder))
        for hit in photos.search(image=picture, k=5):
            print(f"{hit.score:.3f}  {hit.path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
