"""How sure a classifier should be, fitted to answers."""

import numpy as np
import numpy.typing as npt

from ..errors import LabelError


def fit_temperature(logits: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Fit the temperature T of softmax(logits / T) by likelihood (Guo, Pleiss, Sun, Weinberger, 2017).

    A prior worth about one answer, the Gamma density of 1/T with its mode at T = 1, keeps T finite where
    all answers are right. The optimum is unique: both parts are convex in 1/T.

    Args:
        logits: (m, L), what the softmax took.
        truth: int (m,), the true label of each, in [0, L); leave out pictures that no label fits.

    Returns:
        T in [0.001, 1000]; above 1: the scores were too sure. Without answers 1.

    Raises:
        LabelError: shapes or labels do not fit, or a number is not finite.
    """
    from scipy.special import softmax

    z, y = np.asarray(logits, dtype=np.float64), np.asarray(truth, dtype=np.int64)
    shaped = z.ndim == 2 and y.shape == z.shape[:1] and ((y >= 0) & (y < z.shape[1])).all()
    if not (shaped and np.isfinite(z).all()):
        raise LabelError(f"need finite logits (m, L) and truth (m,) in [0, L); found {z.shape}, {y.shape}")
    margin = z - z[np.arange(len(y)), y][:, None]  # (m, L), 0 at the true label
    low, high = np.log(0.001), np.log(1000)  # of 1/T
    for _ in range(40):  # halvings: to 1e-11 of T
        middle = (low + high) / 2
        expected = (softmax(np.exp(middle) * margin, axis=1) * margin).sum(axis=1)  # (m,)
        rises = expected.sum() + 1 - np.exp(-middle) > 0  # the slope, by 1/T, of -log posterior
        low, high = (low, middle) if rises else (middle, high)
    return float(np.exp(-middle))


def tempered(
    scores: npt.NDArray[np.float32], temperature: float, labels: int, *, alone: bool
) -> npt.NDArray[np.float32]:
    """Return the scores that logits divided by a temperature give.

    Of a softmax only the k best are known here: what they leave of 1 is taken to be spread evenly over the
    other labels, which is exact where there are none.

    Args:
        scores: (n, k) probabilities; nan, where there is none, stays.
        temperature: above 0; above 1 makes them less sure.
        labels: how many there are, at least k.
        alone: each score stands alone (sigmoid); else they are of a softmax.
    """
    p, others = np.nan_to_num(scores.astype(np.float64)), labels - scores.shape[1]
    with np.errstate(divide="ignore"):
        logs = np.log(p) / temperature
        if alone:
            odds = np.log1p(-p) / temperature - logs
            return np.where(np.isnan(scores), scores, 1 / (1 + np.exp(np.minimum(odds, 700)))).astype(
                np.float32
            )
        rest = np.log(np.maximum(1 - p.sum(axis=1, keepdims=True), 0) / max(others, 1)) / temperature
    most = np.maximum(logs.max(axis=1, keepdims=True), -700)
    weights = np.exp(logs - most)
    whole = weights.sum(axis=1, keepdims=True) + others * np.exp(rest - most)
    return np.where(np.isnan(scores), scores, weights / np.maximum(whole, 1e-300)).astype(np.float32)


def fit_verdicts(
    scores: npt.NDArray[np.float32],
    columns: npt.NDArray[np.int64],
    right: npt.NDArray[np.bool_],
    labels: int,
    *,
    alone: bool,
) -> float:
    """Fit the temperature under which verdicts on single labels are likeliest, with the prior above.

    It needs no true label where a label is wrong.

    Args:
        scores: (m, k) probabilities, as for `tempered`.
        columns: (m,) which of the k was judged.
        right: (m,) whether it is right.
        labels: how many there are.
        alone: as for `tempered`.

    Returns:
        T in [0.02, 50], to about 1 %. Without verdicts 1.
    """
    grid = np.exp(np.linspace(-np.log(50), np.log(50), 801))
    rows = np.arange(len(columns))
    loss = np.empty(len(grid))
    for place, temperature in enumerate(grid):
        p = tempered(scores, temperature, labels, alone=alone)[rows, columns].astype(np.float64)
        likely = np.where(right, p, 1 - p)
        loss[place] = 1 / temperature + np.log(temperature) - np.log(np.maximum(likely, 1e-9)).sum()
    return float(grid[loss.argmin()])
