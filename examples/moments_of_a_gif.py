"""Find the moments of an animation: pictures can come from a generator as well as from files.

python examples/moments_of_a_gif.py dance.gif "a person jumping"
"""

import sys
from collections.abc import Iterator

from PIL import Image, ImageSequence

import clipsearch as cs


def frames(path: str) -> Iterator[tuple[str, Image.Image]]:
    with Image.open(path) as animation:
        for number, frame in enumerate(ImageSequence.Iterator(animation)):
            yield f"frame {number}", frame.convert("RGB")


def main(path: str, words: str) -> None:
    with cs.Collection("moments.clipsearch", model="builtin") as moments:
        print(moments.add(frames(path)))
        for hit in moments.search(words, k=3):
            print(f"{hit.score:.3f}  {hit.path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
