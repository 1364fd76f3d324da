"""Shares of a population told from a sample of it, with exact intervals."""

from bisect import bisect_left
from typing import NamedTuple

import numpy as np

from ..errors import LabelError


class Estimate(NamedTuple):
    """A share and its interval; nan between 0 and 1 where nothing was reviewed."""

    value: float
    low: float
    high: float
    reviewed: int


def proportion(
    right: int, reviewed: int, *, population: int | None = None, confidence: float = 0.95
) -> Estimate:
    """Estimate the share that is right, with an exact two-sided interval.

    Clopper and Pearson (1934); for a sample without replacement of a known population their
    hypergeometric counterpart, which is narrower, and a point where all of it is reviewed.

    Args:
        right: how many of the sample are right.
        reviewed: size of the uniform sample; 0 gives nan between 0 and 1.
        population: size of what it was drawn from; None is endless.
        confidence: the interval holds the truth at least so often.

    Raises:
        LabelError: the numbers contradict each other.
    """
    tail = risk_of(confidence) / 2
    if not 0 <= right <= reviewed or (population is not None and reviewed > population):
        raise LabelError(f"{right!r} right of {reviewed!r} reviewed of {population!r} cannot be")
    if not reviewed:
        return Estimate(np.nan, 0.0, 1.0, 0)
    low = 1 - _largest_share(reviewed - right, reviewed, population, tail)
    return Estimate(right / reviewed, low, _largest_share(right, reviewed, population, tail), reviewed)


def chance_of(errors: int, drawn: int, population: int, wrong: int) -> float:
    """P(at most `errors` met) when `drawn` are drawn of a population of which `wrong` are wrong."""
    from scipy.stats import hypergeom

    if not 0 < wrong <= population:
        return float(wrong <= 0)
    return float(hypergeom.cdf(errors, population, wrong, drawn))


def needed(errors: int, population: int, wrong: int, risk: float) -> int:
    """The smallest sample that rules `wrong` out though it meets `errors`; population + 1: there is none."""
    sizes = range(int(population) + 1)
    return bisect_left(sizes, True, key=lambda drawn: chance_of(errors, drawn, population, wrong) <= risk)


def largest_count(errors: int, drawn: int, population: int, risk: float) -> int:
    """The largest number of wrong ones in the population that the sample does not rule out."""
    counts = range(int(population) + 1)
    return (
        bisect_left(counts, True, key=lambda wrong: chance_of(errors, drawn, population, wrong) <= risk) - 1
    )


def _largest_share(errors: int, drawn: int, population: int | None, risk: float) -> float:
    from scipy.special import betaincinv

    if population is not None:
        return largest_count(errors, drawn, population, risk) / population
    return 1.0 if errors == drawn else float(betaincinv(errors + 1, drawn - errors, 1 - risk))


def risk_of(confidence: float) -> float:
    """Return 1 - confidence.

    Raises:
        LabelError: it is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise LabelError(f"a confidence of {confidence!r} cannot be had; give a number between 0 and 1")
    return 1 - confidence
