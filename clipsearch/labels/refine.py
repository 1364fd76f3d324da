"""A few examples make a zero-shot classifier better, on the vectors that are there already.

Multinomial logistic regression that is drawn toward the classifier of texts alone: the logits of a
picture x are t s (x . w_l) + x . d_l, and the examples choose t and d under a penalty on d. So a label
without examples keeps what its words say. (The idea of CLAP, Silva-Rodriguez et al. 2024, with one
strength for all labels, chosen by the likelihood of examples that were held out.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import LabelError
from ..types import Embeddings
from .best import log_sum_exp
from .classifier import Classifier
from .temperature import fit_temperature

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of the penalty; beside them none of it: d = 0
FOLDS = 5
LEAST = 10  # examples; fewer cannot show on held-out ones that they help


class Refined(NamedTuple):
    """A classifier that examples made, and what they did on examples that it had not seen.

    Attributes:
        classifier: the refined one, or the one given where that was the better.
        strength: of the penalty; inf where d is 0.
        examples: how many there were, m.
        accuracy: share of held-out examples whose best label is right, before and after.
        log_likelihood: mean over held-out examples, natural logarithm, before and after.
    """

    classifier: Classifier
    strength: float
    examples: int
    accuracy: tuple[float, float]
    log_likelihood: tuple[float, float]

    @property
    def helped(self) -> bool:
        """Whether held-out examples became more likely."""
        return self.log_likelihood[1] > self.log_likelihood[0]

    def __str__(self) -> str:
        (before, after), (unlikely, likely) = self.accuracy, self.log_likelihood
        verdict = "make held-out ones likelier" if self.helped else "do not help, and are left out"
        change = f"log likelihood {unlikely:.2f} before, {likely:.2f} after"
        return f"{self.examples:,} examples {verdict}: {change}; {before:.1%} right before, {after:.1%} after"


def refine(classifier: Classifier, embeddings: Embeddings, truth: Sequence[int], *, seed: int = 0) -> Refined:
    """Let examples correct a classifier.

    Args:
        classifier: of one label a picture.
        embeddings: float32 (m, dim), unit rows: the examples' vectors.
        truth: (m,) the position of each one's label.
        seed: of the division into five parts, of which each is held out once.

    Raises:
        LabelError: there are fewer than 10 examples, or the classifier is one of several labels.
    """
    y = np.asarray(truth, np.int64)
    if classifier.kind != "softmax":
        raise LabelError(f"examples refine a classifier of one label a picture, found {classifier.kind!r}")
    if len(y) < LEAST:
        raise LabelError(f"found {len(y)} examples; expected at least {LEAST}, to see whether they help")
    folds = list(_folds(y, seed))
    before = _held_out(classifier, embeddings, y, folds, None)
    tried = {each: _held_out(classifier, embeddings, y, folds, each) for each in (*STRENGTHS, np.inf)}
    best = max(tried, key=lambda each: tried[each][1])
    helped = tried[best][1] > before[1]
    refined = _fit(classifier, embeddings, y, best) if helped else classifier
    return Refined(refined, best, len(y), (before[0], tried[best][0]), (before[1], tried[best][1]))


def _folds(y: npt.NDArray[np.int64], seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Masks of the examples held out, every label spread over all of them."""
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    return (np.isin(np.arange(len(y)), order[fold::FOLDS]) for fold in range(FOLDS))


def _held_out(
    classifier: Classifier,
    embeddings: Embeddings,
    y: npt.NDArray[np.int64],
    folds: Sequence[npt.NDArray[np.bool_]],
    strength: float | None,
) -> tuple[float, float]:
    """Accuracy and mean log likelihood of the examples, each while it was held out; None fits nothing."""
    right, likely = np.empty(len(y)), np.empty(len(y))
    for out in folds:
        fitted = classifier if strength is None else _fit(classifier, embeddings[~out], y[~out], strength)
        logits = fitted.logits(embeddings[out])
        right[out] = logits.argmax(1) == y[out]
        likely[out] = logits[np.arange(len(logits)), y[out]] - log_sum_exp(logits)
    return float(right.mean()), float(likely.mean())


def _fit(
    classifier: Classifier, embeddings: Embeddings, y: npt.NDArray[np.int64], strength: float
) -> Classifier:
    """The classifier with the scale and shift under which the examples are likeliest, less the penalty.

    d is a combination of the examples (the penalty is on its length), so that only (m, L) numbers are fitted.
    """
    from scipy.optimize import minimize

    x = embeddings.astype(np.float64)
    told = classifier.scale * (x @ classifier.vectors.T)  # (m, L)
    if np.isinf(strength):
        return replace(classifier, scale=classifier.scale / fit_temperature(told, y))
    gram, hot = x @ x.T, np.eye(told.shape[1])[y]

    def objective(unknowns: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        stretch, a = np.exp(unknowns[0]), unknowns[1:].reshape(hot.shape)
        shifts = gram @ a  # (m, L)
        logits = stretch * told + shifts
        excess = log_sum_exp(logits)
        loss = (excess - (logits * hot).sum(1)).sum() + strength / 2 * (a * shifts).sum()
        slope = np.exp(logits - excess[:, None]) - hot
        return loss, np.append((slope * told).sum() * stretch, gram @ slope + strength * shifts)

    found = minimize(objective, np.zeros(1 + hot.size), jac=True, method="L-BFGS-B").x
    shift = found[1:].reshape(hot.shape).T @ x  # (L, dim)
    return replace(
        classifier, scale=classifier.scale * float(np.exp(found[0])), shift=shift.astype(np.float32)
    )
