"""The best labels of a block of pictures: two matrix products, on the processor or on a GPU."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..types import Embeddings

if TYPE_CHECKING:
    import torch

Reals: TypeAlias = npt.NDArray[np.float32]

FEW = 32  # so many of the best are found faster one by one than by sorting


class Best(NamedTuple):
    """The k best labels of b pictures."""

    top: npt.NDArray[np.int64]  # (b, k) positions of labels, best first
    logits: Reals  # (b, k)
    cosines: Reals  # (b, k)
    share: Reals  # (b, k) share of the background that fits better, see share_above; nan without one
    excess: Reals  # (b,) logarithm of the sum of the exponentials of all L logits


class Weights(NamedTuple):
    """What pictures are compared with."""

    vectors: Embeddings  # (L, dim), unit rows
    background: Embeddings  # (B, dim), unit rows; B may be 0
    scale: float  # logit = scale * cosine + picture . shift
    shift: Reals | None  # (L, dim)


Product: TypeAlias = Callable[[Embeddings, int], Best]


def on_host(weights: Weights, embeddings: Embeddings, k: int) -> Best:
    """Compute with NumPy.

    Args:
        weights: of the labels.
        embeddings: float32 (b, dim), unit rows.
        k: at most L.
    """
    cosines = embeddings @ weights.vectors.T  # (b, L)
    logits = scaled(weights, embeddings, cosines)
    top = best_first(logits, k)
    best, found = (np.take_along_axis(table, top, 1) for table in (logits, cosines))
    others = np.sort(embeddings @ weights.background.T, axis=1)  # (b, B)
    below = np.array([np.searchsorted(*pair, side="right") for pair in zip(others, found, strict=True)])
    share = share_above(below, others[:, -1:], found, len(weights.background), weights.scale)
    return Best(top, best, found, share, log_sum_exp(logits))


def on_device(weights: Weights, device: str) -> Product:
    """Return what computes the same with torch on a device; the weights stay there."""
    import torch

    def there(array: Reals) -> "torch.Tensor":
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    vectors, background = there(weights.vectors), there(weights.background)
    shift = None if weights.shift is None else there(weights.shift)

    def product(embeddings: Embeddings, k: int) -> Best:
        pictures = there(embeddings)
        cosines = pictures @ vectors.T  # (b, L)
        logits = weights.scale * cosines
        if shift is not None:
            logits += pictures @ shift.T
        best, top = logits.topk(k)
        found = cosines.gather(1, top)
        others = (pictures @ background.T).sort(1).values
        below = torch.searchsorted(others, found, right=True)
        parts = (top, best, found, below, others[:, -1:], logits.logsumexp(1))
        places, raw, near, counts, largest, excess = (part.cpu().numpy() for part in parts)
        share = share_above(counts, largest, near, len(background), weights.scale)
        return Best(places, raw, near, share, excess)

    return product


def scaled(weights: Weights, embeddings: Embeddings, cosines: Reals) -> Reals:
    """Return the logits (b, L), from the cosines with all labels."""
    logits: Reals = np.float32(weights.scale) * cosines
    return logits if weights.shift is None else logits + embeddings @ weights.shift.T


def best_first(scores: Reals, k: int) -> npt.NDArray[np.int64]:
    """The columns of the k largest values of each row, (n, k), best first; equal ones in their order."""
    if k > FEW:
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]
    left, rows, found = scores.copy(), np.arange(len(scores)), []
    for _ in range(k):
        found.append(left.argmax(1))
        left[rows, found[-1]] = -np.inf
    return np.stack(found, 1)


def log_sum_exp(logits: Reals) -> Reals:
    """The logarithm of each row's sum of exponentials, (n,)."""
    highest = logits.max(1)
    shares = logits - highest[:, None]
    sums: Reals = highest + np.log(np.exp(shares, out=shares).sum(1))
    return sums


def share_above(
    below: npt.NDArray[np.int64], largest: Reals, values: Reals, size: int, scale: float
) -> Reals:
    """Return the share of other cosines that are larger than some.

    The largest of the B others counts as p = 1 / (1 + exp(scale (value - largest))), any other that is larger
    as 1; their sum over B. So values above all others differ, too, by how far they are above them.

    Args:
        below: (n, k), how many of the others are not larger.
        largest: (n, 1), of the others.
        values: (n, k).
        size: B.
        scale: of a model's logits.

    Returns:
        (n, k), between 0 and 1; nan where B is 0.
    """
    if not size:
        return np.full_like(values, np.nan)
    nearest = 1 / (1 + np.exp(np.minimum(np.float32(scale) * (values - largest), 80)))
    share: Reals = (np.maximum(size - below.astype(np.float32) - 1, 0) + nearest) / np.float32(size)
    return share
