"""A query made better by hits that were liked and disliked: Rocchio's rule, across the modality gap."""

import numpy as np
import numpy.typing as npt

from .errors import QueryError
from .types import Embeddings

LIKED, DISLIKED = 0.75, 0.15  # weights of the means beside the query's 1; usual values, and measured

Vector = npt.NDArray[np.float32]  # (dim,)


def feedback(
    query: Vector | None,
    liked: Embeddings,
    disliked: Embeddings,
    *,
    pictures: Vector,
    queries: Vector | None = None,
) -> Vector:
    """The vector to search with, unit length, float32 (dim,).

    It is u(query - queries) + 0.75 mean(u(liked - pictures)) - 0.15 mean(u(disliked - pictures)), where u
    makes unit length: J. J. Rocchio, "Relevance feedback in information retrieval", 1971. Texts and pictures
    lie apart, each around a mean of their own; without the means a liked picture would mostly say "a
    picture". Cosines to the result are lower than those to a text or a picture, and compare among themselves.

    Args:
        query: what was asked before, unit length, (dim,); None: the liked pictures alone.
        liked: float32 (n, dim), unit rows; n may be 0.
        disliked: float32 (m, dim), unit rows; m may be 0.
        pictures: the mean of the collection's vectors, (dim,).
        queries: the mean of texts, (dim,), where the query is a text; None: it is a picture.

    Raises:
        QueryError: there is neither a query nor a liked picture, or they cancel each other out.
    """
    if query is None and not len(liked):
        raise QueryError("disliked pictures alone do not say what to look for; give a query or liked ones")
    middle = pictures if queries is None else queries
    asked = np.zeros_like(pictures) if query is None else _units((query - middle)[None])[0]
    wanted = asked + LIKED * _mean(liked - pictures) - DISLIKED * _mean(disliked - pictures)
    length = np.linalg.norm(wanted)
    if length < 1e-6:
        raise QueryError("the query, the liked and the disliked pictures cancel each other out")
    return np.asarray(wanted / length, np.float32)


def _mean(rows: Embeddings) -> Vector:
    """The mean of the rows' directions; zero of none."""
    return np.asarray(_units(rows).sum(axis=0) / max(1, len(rows)), np.float32)


def _units(rows: Embeddings) -> Embeddings:
    """Rows of unit length; those that have no direction stay zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 1e-6, norms, 1), np.float32)
