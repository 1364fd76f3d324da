"""Tiles: the parts of a picture that are encoded beside the whole, so that small things are found."""

import re
from math import ceil, floor
from typing import TYPE_CHECKING

from .errors import CollectionError
from .segments import WHOLE, Box

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST, MOST = 8, 64  # rows or columns of a grid; tiles of a picture


def read_tiles(text: str) -> str:
    """Grids such as "2x2+3x3", each ROWSxCOLUMNS, as they are kept: each once, in order.

    Raises:
        CollectionError: the text is something else, a grid is 1x1 or has more than 8 rows or columns, or
            there are more than 64 tiles.
    """
    if not (isinstance(text, str) and re.fullmatch(r"[1-9]\d?x[1-9]\d?(\+[1-9]\d?x[1-9]\d?)*", text)):
        raise CollectionError(
            f"found tiles {text!r}; expected grids of ROWSxCOLUMNS, such as '3x3' or '2x2+3x3'"
        )
    grids = sorted(set(_grids(text)))
    if (1, 1) in grids:
        raise CollectionError(f"found tiles {text!r}; leave out 1x1, the whole picture: it is always encoded")
    if max(map(max, grids)) > LARGEST or sum(rows * columns for rows, columns in grids) > MOST:
        raise CollectionError(
            f"found tiles {text!r}; expected at most {LARGEST} rows and columns, and {MOST} tiles in all"
        )
    return "+".join(f"{rows}x{columns}" for rows, columns in grids)


def boxes_of(tiles: str) -> list[Box]:
    """The whole picture, and then the tiles of each grid, row by row; "" has no grid."""
    return [
        WHOLE,
        *(
            (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
            for rows, columns in _grids(tiles)
            for row in range(rows)
            for column in range(columns)
        ),
    ]


def _grids(text: str) -> list[tuple[int, int]]:
    """The (rows, columns) that a text names."""
    return [(int(rows), int(columns)) for rows, columns in re.findall(r"(\d+)x(\d+)", text)]


def shortest(boxes: list[Box]) -> float:
    """The shortest side of some boxes, as a share of the picture's."""
    return min(min(right - left, bottom - top) for left, top, right, bottom in boxes)


def cut(image: "Image", box: Box) -> "Image":
    """A part of a picture, at least one pixel of it; the whole is the picture itself."""
    if box == WHOLE:
        return image
    (width, height), (left, top, right, bottom) = image.size, box
    return image.crop((floor(left * width), floor(top * height), ceil(right * width), ceil(bottom * height)))
