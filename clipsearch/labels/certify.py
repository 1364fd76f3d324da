"""Which pictures a person should check, and what the answers say: accuracy and threshold.

A review is drawn in rounds. The first is, half or all of it, a uniform sample of the labelled pictures; a
later one is a uniform sample of {score >= a}, for the a that promises most. Two facts carry the statistics.
A uniform sample of {score >= a}, restricted to {score >= t}, t >= a, is uniform there. And the newest round
is, given the earlier ones, a sample without replacement of what they left: the exact (hypergeometric) test
on it holds however they chose where to look.

Thresholds are tried by fixed-sequence testing ("Learn then Test", Angelopoulos, Bates, Candès, Jordan and
Lei, 2021): levels laid down before the answers, from strict to lenient, at full confidence until one fails.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import LabelError
from .shares import Estimate, chance_of, largest_count, needed, proportion, risk_of

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

EVERYWHERE = -np.inf  # the region of a uniform draw from all labelled pictures
RANDOM_SHARE, SUREST_SHARE = 0.5, 0.25  # of a first round with a target: the rest from the surest quarter
STEP = 0.9  # a level keeps this share of the pictures of the next more lenient one
LEAST_KEPT = 0.01, 20  # share and number of pictures: no level keeps fewer than the larger of the two
SPARE_ERRORS = 2  # testing starts where so many errors may be met: a start at none fails too often


class Draw(NamedTuple):
    """Pictures to review, (m,) each, in an order of which any first part is as good a sample."""

    rows: Ints  # positions in the scores, each once
    region: Floats  # lowest score of the region each was drawn from uniformly; -inf: everywhere
    round: Ints  # number of the round, from 1


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a person said of the pictures drawn, all rounds together: `Answers(*drawn, right)`.

    A review may stop early; a picture skipped in between counts best as wrong: such tend to be hard.

    Attributes:
        rows, region, round: (m,) each, as drawn, with every digit.
        right: bool (m,), whether the best label is the true one; False where no label fits.
    """

    rows: Ints
    region: Floats
    round: Ints
    right: Mask

    def __post_init__(self) -> None:
        for name, kind in (("rows", np.int64), ("region", np.float64), ("round", np.int64), ("right", bool)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind).reshape(-1))
        lengths = len(self.rows), len(self.region), len(self.round), len(self.right)
        if len(set(lengths)) > 1 or len(np.unique(self.rows)) < len(self.rows):
            raise LabelError(f"answers need row, region, round and verdict, each row once; found {lengths}")

    @property
    def random(self) -> Mask:
        """Bool (m,): the answers that together are a uniform sample of all labelled pictures.

        Restricted to a group they are one of it: `proportion` of those with `truth == c` is the recall of
        c. Draws from everywhere no longer count after the first round that took pictures from a region.
        """
        aimed = self.round[self.region > EVERYWHERE].min(initial=np.iinfo(np.int64).max)
        return np.asarray((self.region == EVERYWHERE) & (self.round <= aimed), dtype=bool)

    def where(self, chosen: Mask) -> "Answers":
        """Those that are chosen, by a bool (m,)."""
        return Answers(self.rows[chosen], self.region[chosen], self.round[chosen], self.right[chosen])


class Threshold(NamedTuple):
    """The score from which on labels keep a promised precision, or why there is none."""

    value: float | None  # keep labels with at least this score; None: no threshold is certified
    precision_low: float  # lower bound at that one threshold (without one: at the first that was tried)
    coverage: float  # share of the labelled pictures that is kept; 0 without a threshold
    reviewed: int  # answers of the newest round that the bound rests on
    errors: int  # wrong ones among them
    more_needed: int  # answers of a further round that would certify the target if none is wrong, or 0
    reason: str  # the same in plain words


def of_round(confidence: float, number: int) -> float:
    """Return the confidence to ask of one round so that all rounds together, however many, have this one.

    The risk is spent as 1/4, 1/2, 1/8, 1/16, … (their sum is 1): the first round shows where to look, the
    second is drawn to certify.

    Args:
        confidence: of the promise.
        number: of the round, from 1.
    """
    return 1 - risk_of(confidence) * (0.5 if number == 2 else 0.5 ** max(number, 2))


def draw(
    scores: npt.ArrayLike,
    count: int,
    *,
    target: float | None = None,
    confidence: float = 0.95,
    reviewed: Answers | None = None,
    seed: int = 0,
) -> Draw:
    """Draw pictures for a person to review.

    Without a target: uniformly from all not yet reviewed. With one: a first round half so and half from
    the surest quarter (uniformly where that has fewer pictures than are to be drawn), a later one from the
    region {score >= a} where it should certify the most pictures.

    Args:
        scores: numbers (n,), higher is surer; only their order matters. nan: a picture without a label.
        count: how many; fewer are drawn where fewer are left.
        target: the precision to certify, in (0, 1].
        confidence: of the promise that the answers to this round are to give.
        reviewed: the answers of all earlier rounds, by the same scores.
        seed: with the number of the round it fixes what is drawn.

    Raises:
        LabelError: scores, count, target or answers are not usable.
    """
    known = reviewed if reviewed is not None else Answers(*np.empty((4, 0)))
    values = _checked(scores, known, 1.0 if target is None else target)
    if count < 0:
        raise LabelError(f"cannot review {count!r} pictures; give a number of at least 0")
    number = int(known.round.max(initial=0)) + 1
    rng = np.random.default_rng((seed, number))
    left = rng.permutation(np.setdiff1d(np.flatnonzero(~np.isnan(values)), known.rows))
    at_random, region = count, EVERYWHERE
    if target is not None and len(known.rows) and len(left):
        levels, gain = _aim(values, known, target, count, risk_of(confidence))
        at_random, region = 0, float(levels.value[np.argmax(gain)])
    elif target is not None and 0 < count <= SUREST_SHARE * len(left):
        at_random = round(count * RANDOM_SHARE)
        region = float(np.nanquantile(values, 1 - SUREST_SHARE, method="higher"))
    rest = left[at_random:]
    rows = np.concatenate([left[:at_random], rest[values[rest] >= region][: count - at_random]])
    regions = np.where(np.arange(len(rows)) < at_random, EVERYWHERE, region)
    mixed = rng.permutation(len(rows))
    return Draw(rows[mixed], regions[mixed], np.full(len(rows), number, dtype=np.int64))


def accuracy(
    scores: npt.ArrayLike, answers: Answers, *, among: npt.ArrayLike = True, confidence: float = 0.95
) -> Estimate:
    """Estimate the share of the labelled pictures whose label is right.

    By `answers.random` alone, a sample of all; but what is known of the others bounds it, too: no fewer are
    right than were found right, no more than were not found wrong.

    Args:
        scores: (n,) as drawn from.
        answers: of all rounds.
        among: bool (n,), the pictures to look at: `predicted == c` gives the precision of a class.
        confidence: of the interval, for one such question.

    Raises:
        LabelError: scores and answers do not fit.
    """
    values = _checked(scores, answers)
    group = ~np.isnan(values) & np.asarray(among, dtype=bool)
    inside, size = group[answers.rows], int(group.sum())
    asked = answers.right[answers.random & inside]
    found = proportion(int(asked.sum()), len(asked), population=size, confidence=confidence)
    least, wrong = ((verdict & inside).sum() / max(size, 1) for verdict in (answers.right, ~answers.right))
    value, low, high = (float(np.clip(each, least, 1 - wrong)) for each in found[:3])
    return Estimate(value, low, high, len(asked))


def certified_threshold(
    scores: npt.ArrayLike,
    answers: Answers,
    target: float,
    *,
    confidence: float = 0.95,
    next_confidence: float | None = None,
) -> Threshold:
    """Choose the lowest threshold found at which the newest round certifies the target precision.

    With that confidence at least, the share of right labels among these very pictures, reviewed or not,
    from the threshold on is the target or more. Earlier rounds are facts, no evidence: each round is a
    new try; for a confidence in all of them together see `of_round`.

    Args:
        scores: (n,) as drawn from; nan: no label.
        answers: of all rounds.
        target: precision in (0, 1]; 1 takes the review of all but a share 1 - confidence of what is kept.
        confidence: of the promise.
        next_confidence: of the round after this one, for `more_needed`; None: the same.

    Raises:
        LabelError: scores, answers, target or confidence are not usable.
    """
    values, risk = _checked(scores, answers, target), risk_of(confidence)
    newest = answers.round == answers.round.max(initial=0)
    fresh, known = answers.where(newest), answers.where(~newest)
    levels = _survey(values, known, target, risk, answers.region)
    within = (values[fresh.rows] >= levels.value[:, None]) & (fresh.region <= levels.value[:, None])  # (J, m)
    drawn, errors = within.sum(axis=1), (within & ~fresh.right).sum(axis=1)  # (J,)
    chance = np.array([*map(chance_of, errors, drawn, levels.open, levels.breaking)])
    begin = np.searchsorted(-levels.value[:-1], -fresh.region)  # (m,) the level of each draw's region
    share = (begin >= np.arange(len(chance))[:, None]) / np.maximum(levels.open[begin], 1)  # (J, m)
    expected = levels.open * share.sum(axis=1)  # (J,) by the design, not by where the draws fell
    first = int(np.argmax(expected >= min(levels.enough, expected.max())))  # or where most are expected
    tried = first + np.flatnonzero(expected[first:] >= min(0.75 * levels.enough, expected[first]))
    passed = tried[np.logical_and.accumulate(chance[tried] <= risk)]
    passed = np.union1d(passed, np.flatnonzero(chance == 0))  # 0: known exactly, which needs no test
    at = int(passed[-1]) if len(passed) else first
    value, size = float(levels.value[at]), int(levels.size[at])
    unknown = largest_count(errors[at], drawn[at], levels.open[at], risk)
    low = float(1 - ((values[known.rows[~known.right]] >= value).sum() + unknown) / size)
    found, promise = (int(drawn[at]), int(errors[at])), f"certify a precision of {target:g}"
    seen = f"{found[1]} wrong of the {found[0]} newest answers with a score of at least {value:.4g}"
    if len(passed):
        coverage = size / int(levels.size[-1])
        kept = f"{coverage:.1%} of the labels are kept"
        return Threshold(value, low, coverage, *found, 0, f"{seen} {promise}; {kept}")
    more, missing = _missing(values, answers, target, risk_of(next_confidence or confidence))
    reason = f"{seen if found[0] else 'no answers'} do not {promise}; {missing}"
    return Threshold(None, low, 0.0, *found, more, reason)


class _Levels(NamedTuple):
    """The J thresholds that may be chosen, strict to lenient, and what is known above each."""

    value: Floats  # (J,) scores, falling
    size: Ints  # (J,) pictures with at least that score
    open: Ints  # (J,) of them not yet reviewed
    breaking: Ints  # (J,) so many wrong ones among the open break the target; 0: it is broken already
    least: int  # answers that certify it if none is wrong
    enough: int  # and if a few are


def _survey(values: Floats, known: Answers, target: float, risk: float, regions: Floats) -> _Levels:
    """Lay out the levels: by scores and regions, never by the answers that are to be tested."""
    ranked = np.sort(values[~np.isnan(values)])
    if not (n := len(ranked)):
        raise LabelError("no picture has a label: there is nothing to certify")
    smallest = max(LEAST_KEPT[0] * n, LEAST_KEPT[1])
    steps = np.arange(1 + max(0, int(np.log(smallest / n) / np.log(STEP))))
    regular = ranked[n - np.ceil(n * STEP**steps).astype(np.int64)]
    value = np.unique(np.concatenate([regular, regions[regions > EVERYWHERE]]))[::-1]

    def above(some: Floats) -> Ints:
        return len(some) - np.searchsorted(np.sort(some), value)

    size, asked, wrong = above(ranked), above(values[known.rows]), above(values[known.rows[~known.right]])
    breaking = np.floor((1 - target) * size + 1e-9).astype(np.int64) + 1  # 1e-9: (1 - 0.9) * 10 < 1
    least, enough = (needed(errors, n, breaking[-1], risk) for errors in (0, SPARE_ERRORS))
    return _Levels(value, size, size - asked, np.maximum(breaking - wrong, 0), least, enough)


def _believe(levels: _Levels, values: Floats, known: Answers) -> tuple[Floats, Floats]:
    """Say where precision may fall: a guide to where to look, on which no promise rests.

    Logistic curves in the normal quantile of the rank get the weight (G,) that the answers and a wide
    prior give them; with them comes the share of wrong labels among the open above each level (G, J).
    """
    from scipy.special import expit, log_expit, ndtri

    a, b = (grid.reshape(-1, 1) for grid in np.meshgrid(np.linspace(-4, 8, 25), np.linspace(0, 5, 21)))
    strata = np.diff(levels.size, prepend=0)  # (J,) pictures between neighbouring levels
    odds = a - b * ndtri((levels.size - strata / 2) / levels.size[-1])  # (G, J) log odds of being right
    stratum = np.searchsorted(-levels.value[:-1], -values[known.rows])  # (m,)
    right, wrong = (np.bincount(stratum[known.right == verdict], minlength=len(strata)) for verdict in (1, 0))
    prior = -(((a - 1) / 2.5) ** 2) / 2 - b / 2
    score = log_expit(odds) @ right + log_expit(-odds) @ wrong + prior[:, 0]
    likely = score > score.max() - 7  # the rest weighs less than a thousandth of the likeliest
    weight = np.exp(score[likely] - score.max())
    share = np.cumsum(expit(-odds[likely]) * np.diff(levels.open, prepend=0), axis=1)
    return weight / weight.sum(), share / np.maximum(levels.open, 1)


def _aim(values: Floats, known: Answers, target: float, count: int, risk: float) -> tuple[_Levels, Floats]:
    """Find what share of the pictures `count` draws above each level should certify (J,)."""
    from scipy.special import bdtr, bdtrik

    levels = _survey(values, known, target, risk, known.region)
    weight, wrong = _believe(levels, values, known)
    gain = np.zeros(len(levels.value))
    for last in np.flatnonzero(levels.open):
        above, total = levels.open[: last + 1], levels.open[last]
        expected = min(max(count, levels.least), total) * above // total
        tried = slice(int(np.argmax(expected >= min(levels.enough, expected.max()))), last + 1)
        drawn, left, breaking = expected[tried], levels.open[tried], levels.breaking[tried]
        few, many = np.sort([drawn, breaking], axis=0)
        share = np.minimum(many / np.maximum(left, 1), 1)  # hypergeometric as binomial: enough for a plan
        allowed = np.minimum(np.nan_to_num(bdtrik(risk, few, share)), breaking - 1).astype(np.int64)
        allowed[(1 - share) ** few > risk] = -1
        passes = bdtr(np.clip(allowed, 0, drawn), drawn, wrong[:, tried]) * (allowed >= 0)  # (G, tried)
        gain[last] = weight @ np.minimum.accumulate(passes, axis=1) @ np.diff(levels.size[tried], prepend=0)
    return levels, gain / levels.size[-1]


def _missing(values: Floats, answers: Answers, target: float, risk: float) -> tuple[int, str]:
    """How many errorless answers would certify the region of the smallest round, and the words for it."""
    levels, gain = _aim(values, answers, target, 0, risk)
    at = int(np.argmax(gain))
    doubt = "by the answers so far no threshold is likely to keep it"
    if not levels.breaking[at]:
        return 0, doubt
    more = needed(0, levels.open[at], levels.breaking[at], risk)
    would = "would" if gain[at] >= LEAST_KEPT[0] else f"would, but {doubt}"
    return more, f"at least {more} more answers, none wrong, {would}"


def _checked(scores: npt.ArrayLike, answers: Answers, target: float = 1.0) -> Floats:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or np.isinf(values).any():
        raise LabelError(f"scores must be finite (nan: no label) and of shape (n,), found {values.shape}")
    if not 0 < target <= 1:
        raise LabelError(f"a precision of {target!r} cannot be kept; give a share, as 0.95 for 95 %")
    rows = answers.rows
    if not ((rows >= 0) & (rows < len(values))).all() or np.isnan(values[rows]).any():
        raise LabelError(f"there are answers for pictures that are not among {len(values)}, or have no label")
    return values
