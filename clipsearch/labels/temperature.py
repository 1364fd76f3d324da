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
