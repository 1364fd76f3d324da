"""What a search is given, checked: how many hits, a vector, a picture."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from .decode import decode
from .errors import ImageError, QueryError
from .types import Embeddings, Encoder, as_embeddings

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = Union[str, os.PathLike[str], bytes, "Image"]
"""A picture as a query: a path, the bytes of a file, or a PIL image."""


def check_k(k: int) -> int:
    """How many hits were asked for.

    Raises:
        QueryError: it is no whole number of at least 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise QueryError(f"k is how many pictures to find, a whole number of at least 1, got {k!r}")
    return int(k)


def encode_picture(image: Picture, encoder: Encoder) -> Embeddings:
    """Embed one picture, float32 (1, dim), unit length.

    Raises:
        ImageError: it cannot be read; the message names it.
    """
    try:
        picture = decode(_bytes(image), min_side=getattr(encoder, "min_side", None)).image
    except ImageError as error:
        raise ImageError(f"{picture_name(image)}: {error}") from error
    return as_embeddings(encoder.encode_images([picture]), dim=encoder.dim)


def picture_name(image: Picture) -> str:
    """What a picture is called in its results: its name without the folder."""
    return f"picture {Path(image).name}" if isinstance(image, str | os.PathLike) else "a picture"


def as_query(embedding: npt.ArrayLike | None, dim: int) -> Embeddings:
    """One vector of any length as float32 (1, dim) of unit length.

    Raises:
        QueryError: it has another dimension, or is zero or not finite.
    """
    try:
        vectors = as_embeddings(np.atleast_2d(np.asarray(embedding, np.float32)), dim=dim)
    except (ValueError, TypeError) as error:
        raise QueryError(f"the query's vector: {error}") from error
    if len(vectors) != 1:
        raise QueryError(f"one vector of {dim} numbers is one query, got {len(vectors)}")
    return vectors


def _bytes(image: Picture) -> "bytes | Image":
    if not isinstance(image, str | os.PathLike):
        if not (isinstance(image, bytes) or hasattr(image, "getexif")):  # which PIL's images have
            raise QueryError(f"found {type(image).__name__}; expected a path, bytes of a file or a PIL image")
        return image
    try:
        return Path(image).expanduser().read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(getattr(error, "strerror", None) or str(error)) from error
