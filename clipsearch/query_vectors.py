"""From a query with operators to numbers: one embedding for each unit, one relevance for each picture.

Pure functions over arrays: embeddings, means and the relevance to each unit are brought by the caller.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import QueryError
from .query import Kind, Leaf, Query, briefly, key, totals, units
from .types import Embeddings, as_embeddings

NOISE = 1e-5  # shorter than this, a sum of unit vectors is what float32 leaves of nothing


class Means(NamedTuple):
    """The centres of the two modalities, (dim,) each: means of unit vectors of texts and of pictures."""

    text: npt.NDArray[np.floating]
    image: npt.NDArray[np.floating]


def leaves(query: Query) -> list[Leaf]:
    """What must be embedded: the different leaves that have a weight, in order.

    Raises:
        QueryError: as of `units`.
    """
    return list({key(leaf): leaf for unit in units(query) for _, leaf in totals(unit)}.values())


def mixed(unit: Query) -> bool:
    """Whether a unit joins texts with pictures, so that `combine` must know both means."""
    kinds = {"image" if leaf.kind == "item" else leaf.kind for _, leaf in totals(unit)}
    return len(kinds) > 1


def combine(unit: Query, embed: Callable[[Leaf], npt.ArrayLike], means: Means | None = None) -> Embeddings:
    """Make one embedding of a unit: the weighted sum of its leaves' unit vectors, normalised.

    Texts and pictures lie in two distant cones (Liang et al. 2022, "Mind the gap"), and a sum across
    would mostly tell the cones apart. So where a unit mixes them, each vector is first taken
    relative to the mean of its modality, and normalised again; a vector from elsewhere belongs to the
    nearer mean. Dot products with pictures rank as if those were centred too.

    Args:
        unit: one of `units`.
        embed: gives the embedding of a leaf, (1, dim).
        means: needed where `mixed`.

    Returns:
        float32 (1, dim), unit length.

    Raises:
        QueryError: the vectors cancel each other.
    """
    terms = totals(unit)
    rows = [as_embeddings(embed(leaf)).astype(np.float64) for _, leaf in terms]
    if mixed(unit):
        assert means is not None
        rows = [_centred(row, leaf.kind, means) for row, (_, leaf) in zip(rows, terms, strict=True)]
    weights = np.array([weight for weight, _ in terms])
    total = weights @ np.concatenate(rows)  # (dim,)
    if np.linalg.norm(total) <= NOISE * np.abs(weights).sum():
        raise QueryError(f"the embeddings of {briefly(unit)} cancel each other; expected a sum that is left")
    return as_embeddings(total[None])


def _centred(row: npt.NDArray[np.float64], kind: Kind, means: Means) -> npt.NDArray[np.float64]:
    near = min(means, key=lambda mean: float(np.linalg.norm(row - mean)))
    moved = row - {"text": means.text, "embedding": near}.get(kind, means.image)
    length = float(np.linalg.norm(moved))
    return moved / length if length > NOISE else moved * 0  # the mean itself leads nowhere


def relevance_of(query: Query, given: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """How relevant n pictures are to a query, from how relevant they are to each of its u units.

    Args:
        query: what is asked.
        given: (u, n) relevance in [0, 1], rows as in `units(query)`.

    Returns:
        float64 (n,) in [0, 1].
    """
    return _relevance(query, iter(np.asarray(given, np.float64)))


def _relevance(query: Query, rows: Iterator[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    if query.word == "+":
        return next(rows)
    return _fused(query.word, np.stack([_relevance(part, rows) for part in query.parts]))


def _fused(word: str, parts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(m, n) to (n,): all, any, or not, as probabilities of independent events."""
    factors = parts if word == "&" else 1 - parts
    product: npt.NDArray[np.float64] = np.prod(factors, axis=0)
    return 1 - product if word == "|" else product
