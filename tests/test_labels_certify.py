"""The statistics of a review, against scipy, brute force and values worked out by hand."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from clipsearch.errors import LabelError
from clipsearch.labels.certify import (
    Answers,
    accuracy,
    certified_threshold,
    draw,
)
from clipsearch.labels.shares import proportion

NONE = Answers(*np.empty((4, 0)))


def answered(right, *rounds):
    """The answers to these rounds of draws, `right` being known of every picture."""
    rows, region, number = (np.concatenate(parts) for parts in zip(*rounds, strict=True))
    return Answers(rows, region, number, right[rows])


def sigmoid(log_odds):
    return 1 / (1 + np.exp(-log_odds))


def world(n, seed=0):
    """Calibrated scores and whether each label is right."""
    rng = np.random.default_rng(seed)
    scores = sigmoid(rng.normal(2, 2, n))
    return scores, rng.random(n) < scores


# ---------------------------------------------------------------- shares


@pytest.mark.parametrize(("right", "reviewed"), [(0, 1), (1, 1), (0, 20), (8, 10), (20, 20), (93, 100)])
def test_an_interval_is_scipys_clopper_pearson(right, reviewed):
    found = proportion(right, reviewed, confidence=0.9)
    expected = binomtest(right, reviewed).proportion_ci(0.9, method="exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (found.value, found.reviewed) == (right / reviewed, reviewed)


def test_an_interval_has_the_tabulated_values():
    assert proportion(8, 10)[1:3] == pytest.approx((0.4439, 0.9748), abs=5e-5)
    assert proportion(20, 20)[1:3] == pytest.approx((0.8316, 1.0), abs=5e-5)


@pytest.mark.parametrize("reviewed", [1, 4, 7, 8])
def test_an_interval_in_a_small_population_agrees_with_counting_all_samples(reviewed):
    size, tail = 8, 0.025
    samples = np.array(list(combinations(range(size), reviewed)))
    for right in range(reviewed + 1):
        plausible = []
        for good in range(size + 1):
            counts = (samples < good).sum(axis=1)  # the first `good` of the population are right
            if np.mean(counts <= right) > tail and np.mean(counts >= right) > tail:
                plausible.append(good / size)
        found = proportion(right, reviewed, population=size)
        assert (found.low, found.high) == pytest.approx((min(plausible), max(plausible)))


def test_nothing_reviewed_says_nothing_and_everything_reviewed_says_all():
    nothing = proportion(0, 0, population=50)
    assert np.isnan(nothing.value) and nothing[1:] == (0.0, 1.0, 0)
    assert proportion(37, 50, population=50)[:3] == pytest.approx((0.74, 0.74, 0.74))


def test_accuracy_rests_on_the_random_answers_alone():
    scores, right = world(2000)
    first = draw(scores, 200, target=0.95, seed=3)
    asked = first.rows[first.region == -np.inf]
    second = draw(scores, 100, target=0.95, reviewed=answered(right, first), seed=3)
    found = accuracy(scores, answered(right, first, second))
    assert found == proportion(int(right[asked].sum()), 100, population=2000)


def test_a_class_is_measured_by_the_random_answers_within_it():
    scores, right = world(2000)
    predicted = np.arange(2000) % 4
    scores[5] = np.nan  # picture 5, of class 1, has no label
    drawn = draw(scores, 300)
    asked = drawn.rows[predicted[drawn.rows] == 1]
    found = accuracy(scores, answered(right, drawn), among=predicted == 1)
    assert found == proportion(int(right[asked].sum()), len(asked), population=499)


def test_draws_from_everywhere_stop_counting_as_random_once_a_region_was_drained():
    answers = Answers(
        range(6), [-np.inf, 0.5, -np.inf, -np.inf, -np.inf, -np.inf], [1, 2, 2, 1, 3, 3], [True] * 6
    )
    assert answers.random.tolist() == [True, False, True, True, False, False]


def test_an_interval_holds_the_true_accuracy_as_often_as_it_says():
    scores, right = world(400)
    found = [accuracy(scores, answered(right, draw(scores, 60, target=0.9, seed=s))) for s in range(300)]
    missed = sum(not each.low <= right.mean() <= each.high for each in found)
    assert missed <= binom.isf(1e-6, 300, 0.05)


# ---------------------------------------------------------------- draws


def test_a_draw_without_a_target_is_uniform_and_never_repeats():
    scores = np.array([0.9, np.nan, 0.5, 0.4, 0.4, 0.1])
    counts = np.zeros(6)
    for seed in range(3000):
        rows = draw(scores, 2, seed=seed).rows
        assert len(set(rows.tolist())) == 2
        counts[rows] += 1
    assert counts[1] == 0, "it has no label"
    low, high = binom.ppf(1e-6, 3000, 0.4), binom.isf(1e-6, 3000, 0.4)
    assert ((counts[[0, 2, 3, 4, 5]] >= low) & (counts[[0, 2, 3, 4, 5]] <= high)).all()


def test_a_first_round_is_half_random_and_half_from_the_surest_quarter():
    scores, _ = world(1000)
    drawn = draw(scores, 80, target=0.95)
    aimed = drawn.region > -np.inf
    assert aimed.sum() == 40 and (drawn.round == 1).all()
    assert np.mean(scores >= drawn.region[aimed][0]) == pytest.approx(0.25, abs=0.002)
    assert (scores[drawn.rows] >= drawn.region).all()
    assert 8 < aimed[:40].sum() < 32, "in mixed order: who stops early has seen some of both"


def test_a_second_round_is_drawn_from_one_region_and_repeats_nothing():
    scores, right = world(3000)
    first = draw(scores, 100, target=0.9)
    second = draw(scores, 150, target=0.9, reviewed=answered(right, first))
    assert len(second.rows) == 150 and (second.round == 2).all()
    assert len(np.unique(second.region)) == 1 and (scores[second.rows] >= second.region).all()
    assert not set(second.rows.tolist()) & set(first.rows.tolist())
    true = [right[scores >= t].mean() for t in np.sort(scores)[:-50]]
    region = right[scores >= second.region[0]].mean()
    assert 0.88 < region < 0.99, "near the threshold, not at the sure end"
    assert min(true) < 0.8


def test_the_same_seed_draws_the_same_and_another_does_not():
    scores, _ = world(500)
    assert draw(scores, 20, seed=1).rows.tolist() == draw(scores, 20, seed=1).rows.tolist()
    assert draw(scores, 20, seed=1).rows.tolist() != draw(scores, 20, seed=2).rows.tolist()


def test_a_first_round_that_the_surest_quarter_cannot_fill_is_random():
    scores, _ = world(200)
    assert (draw(scores, 51, target=0.9).region == -np.inf).all()
    assert len(draw(scores, 200, target=0.9).rows) == 200
    assert (draw(scores, 50, target=0.9).region > -np.inf).sum() == 25


@pytest.mark.parametrize("target", [None, 0.9])
def test_a_draw_ends_where_the_pictures_do(target):
    assert len(draw(np.full(7, 0.5), 20, target=target).rows) == 7
    assert len(draw(np.full(3, np.nan), 20, target=target).rows) == 0
    assert len(draw([], 20, target=target).rows) == 0
    assert len(draw([0.5], 0, target=target).rows) == 0


# ---------------------------------------------------------------- thresholds


def test_59_errorless_answers_certify_95_percent_and_58_do_not():
    scores = np.linspace(0, 1, 300_000)
    right = np.ones(len(scores), bool)
    without = certified_threshold(scores, NONE, 0.95)
    assert (without.value, without.coverage, without.more_needed) == (None, 0.0, 59)
    assert without.reason.startswith(
        "no answers do not certify a precision of 0.95; at least 59 more answers, none"
    )

    few = certified_threshold(scores, answered(right, draw(scores, 58)), 0.95)
    assert few.value is None and (few.reviewed, few.errors) == (58, 0)
    enough = certified_threshold(scores, answered(right, draw(scores, 59)), 0.95)
    assert (enough.value, enough.coverage, enough.more_needed) == (0.0, 1.0, 0)
    assert enough.precision_low == pytest.approx(0.05 ** (1 / 59), abs=1e-4)


@pytest.mark.parametrize(("target", "needed"), [(0.9, 29), (0.98, 149), (0.8, 14)])
def test_other_targets_need_as_many_as_the_rule_says(target, needed):
    # the smallest m with target ** m <= 0.05
    assert certified_threshold(np.linspace(0, 1, 300_000), NONE, target).more_needed == needed


def test_one_error_in_93_is_borne_and_in_92_it_is_not():
    scores = np.linspace(0, 1, 300_000)
    for count, kept in ((93, 1.0), (92, 0.0)):
        drawn = draw(scores, count)
        right = np.ones(len(scores), bool)
        right[drawn.rows[10]] = False
        assert certified_threshold(scores, answered(right, drawn), 0.95).coverage == kept


def test_as_many_errorless_answers_as_are_said_to_be_missing_do_certify():
    scores, right = world(900)
    for seed in range(8):
        first = draw(scores, 60, target=0.9, seed=seed)
        found = certified_threshold(scores, answered(right, first), 0.9)
        if found.value is not None:
            continue
        second = draw(scores, found.more_needed, target=0.9, reviewed=answered(right, first), seed=seed)
        assert len(second.rows) == found.more_needed > 0
        better = right.copy()
        better[second.rows] = True
        assert certified_threshold(scores, answered(better, first, second), 0.9).value is not None


def test_in_a_small_set_fewer_answers_suffice_and_all_of_them_are_exact():
    scores, right = np.linspace(1, 0, 40), np.arange(40) != 7  # one of 40 is wrong: 0.975
    all_of_it = certified_threshold(scores, answered(right, draw(scores, 40)), 0.975)
    assert (all_of_it.value, all_of_it.precision_low, all_of_it.coverage) == (0.0, 0.975, 1.0)
    assert certified_threshold(scores, answered(right, draw(scores, 40)), 0.98).coverage < 1
    # 3 wrong of 40 would break 0.95; P(none of them in m) = C(37, m) / C(40, m) <= 0.05 from m = 25 on
    fine = np.ones(40, bool)
    assert certified_threshold(scores, answered(fine, draw(scores, 25)), 0.95).value == 0.0
    assert certified_threshold(scores, answered(fine, draw(scores, 24)), 0.95).value is None


def test_a_precision_of_one_needs_all_but_a_twentieth_reviewed():
    scores, right = np.linspace(1, 0, 30), np.ones(30, bool)
    # one wrong picture of 30 would be missed by 28 answers in 2 of 30 cases, by 29 in 1 of 30
    almost = certified_threshold(scores, answered(right, draw(scores, 28)), 1.0)
    assert almost.value is None and almost.more_needed in (1, 2)
    assert certified_threshold(scores, answered(right, draw(scores, 29)), 1.0).value == 0.0


def test_wrong_answers_of_an_earlier_round_are_facts_that_count():
    scores = np.linspace(1, 0, 100)
    right = np.arange(100) >= 6  # the first six are wrong: 0.94 over all, less among fewer
    answers = Answers(np.arange(100), np.repeat([-np.inf, 0.0], [10, 90]), np.repeat([1, 2], [10, 90]), right)
    assert certified_threshold(scores, answers, 0.94).value == 0.0
    beaten = certified_threshold(scores, answers, 0.95)
    assert (beaten.value, beaten.more_needed) == (None, 0)
    assert beaten.precision_low == pytest.approx(84 / 90), "at the first level tried, of 90 pictures"
    assert "no threshold is likely" in beaten.reason


def test_right_answers_of_an_earlier_round_are_no_evidence():
    scores, right = np.linspace(0, 1, 50_000), np.ones(50_000, bool)
    first = draw(scores, 100)
    second = draw(scores, 30, reviewed=answered(right, first))
    found = certified_threshold(scores, answered(right, first, second), 0.95)
    assert (found.value, found.reviewed) == (None, 30)


def test_a_share_that_is_exactly_the_target_is_enough():
    scores = np.linspace(1, 0, 10)
    answers = answered(np.arange(10) != 4, draw(scores, 10))
    assert certified_threshold(scores, answers, 0.9).value == 0.0  # (1 - 0.9) * 10 is not quite 1


def test_a_mixed_round_counts_for_a_lenient_threshold_what_was_drawn_from_everywhere():
    scores, right = np.linspace(0, 1, 50_000), np.ones(50_000, bool)
    found = certified_threshold(scores, answered(right, draw(scores, 200, target=0.95)), 0.95)
    assert (found.value, found.coverage, found.reviewed) == (0.0, 1.0, 100)


def test_no_threshold_is_tried_below_one_that_failed():
    scores = np.linspace(1, 0, 6000)
    right = (np.arange(6000) > 700) | (
        np.arange(6000) % 2 == 0
    )  # half of the surest are wrong: 0.942 over all
    found = certified_threshold(scores, answered(right, draw(scores, 600)), 0.9)
    assert found.value is None and found.errors > 15


def test_pictures_of_one_score_are_kept_or_left_together():
    rng = np.random.default_rng(0)
    scores = rng.choice([0.2, 0.6, 0.9], 3000)
    right = np.where(scores == 0.2, rng.random(3000) < 0.5, True)
    first = draw(scores, 100, target=0.95)
    second = draw(scores, 200, target=0.95, reviewed=answered(right, first))
    found = certified_threshold(scores, answered(right, first, second), 0.95)
    assert found.value == 0.6 and found.coverage == pytest.approx(np.mean(scores >= 0.6))
    same = np.full(500, 0.5)
    assert certified_threshold(same, answered(np.ones(500, bool), draw(same, 100)), 0.95).coverage == 1.0


def test_pictures_without_a_label_take_no_part():
    scores, right = np.linspace(0, 1, 1000), np.ones(1000, bool)
    scores[::2] = np.nan
    found = certified_threshold(scores, answered(right, draw(scores, 80)), 0.95)
    assert (found.value, found.coverage) == (scores[1], 1.0)


def test_when_hopeless_it_says_so_instead_of_promising():
    scores = np.linspace(0, 1, 2000)
    right = np.random.default_rng(0).random(2000) < 0.6
    first = draw(scores, 100, target=0.95)
    second = draw(scores, 200, target=0.95, reviewed=answered(right, first))
    found = certified_threshold(scores, answered(right, first, second), 0.95)
    assert found.value is None and found.errors > 3
    assert found.reason.endswith("by the answers so far no threshold is likely to keep it")


def test_answers_from_a_strict_region_say_nothing_of_a_lenient_threshold():
    scores = np.linspace(1, 0, 10_000)
    right = np.arange(10_000) < 5000
    top = draw(scores[:5000], 400)  # of the upper half, where all is right
    answers = Answers(top.rows, np.full(400, scores[4999]), top.round, right[top.rows])
    found = certified_threshold(scores, answers, 0.95)
    assert found.value == scores[4999] and found.coverage == 0.5


def test_the_promise_holds_and_half_of_the_possible_is_kept():
    scores, right = world(3000, seed=1)
    order = np.argsort(-scores)
    precision = np.cumsum(right[order]) / np.arange(1, 3001)
    possible = (np.flatnonzero(precision >= 0.9)[-1] + 1) / 3000
    broken, kept = 0, []
    for seed in range(60):
        first = draw(scores, 60, target=0.9, seed=seed)
        second = draw(scores, 180, target=0.9, reviewed=answered(right, first), seed=seed)
        found = certified_threshold(scores, answered(right, first, second), 0.9)
        kept.append(found.coverage)
        broken += found.value is not None and right[scores >= found.value].mean() < 0.9
    assert broken <= binom.isf(1e-6, 60, 0.05)
    assert np.median(kept) >= possible / 2


def test_where_the_target_is_just_missed_everywhere_hardly_any_round_certifies_it():
    scores = np.linspace(1, 0, 4000)
    right = np.arange(4000) % 9 != 0  # 8 of 9 right from any threshold on: 0.8889, and every group ends lower
    certified = 0
    for seed in range(150):
        found = certified_threshold(scores, answered(right, draw(scores, 150, seed=seed)), 0.9)
        certified += found.value is not None
    assert certified <= binom.isf(1e-6, 150, 0.05)
    assert certified > 0, "a test that never errs is not at the promised confidence"


def test_a_stricter_confidence_certifies_less():
    scores, right = np.linspace(0, 1, 100_000), np.ones(100_000, bool)
    answers = answered(right, draw(scores, 70))
    assert certified_threshold(scores, answers, 0.95, confidence=0.95).coverage == 1.0
    assert certified_threshold(scores, answers, 0.95, confidence=0.99).value is None


# ---------------------------------------------------------------- what cannot be used


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw([[0.5]], 1), r"shape \(n,\), found \(1, 1\)"),
        (lambda: draw([0.5, np.inf], 1), "scores must be finite"),
        (lambda: draw([0.5], -1), "cannot review -1 pictures"),
        (lambda: draw([0.5], 1, target=95), "a precision of 95 cannot be kept"),
        (lambda: certified_threshold([np.nan], NONE, 0.9), "no picture has a label"),
        (lambda: certified_threshold([0.5], NONE, 0.9, confidence=95), "a confidence of 95 cannot be had"),
        (lambda: certified_threshold([0.5], Answers([3], [0.0], [1], [1]), 0.9), "not among 1"),
        (lambda: accuracy([np.nan, 0.5], Answers([0], [0.0], [1], [1])), "or have no label"),
        (lambda: Answers([1, 1], [0.0, 0.0], [1, 1], [1, 1]), "each row once"),
        (lambda: Answers([1], [0.0, 0.0], [1], [1]), r"found \(1, 2, 1, 1\)"),
        (lambda: proportion(3, 2), "3 right of 2 reviewed"),
    ],
)
def test_what_cannot_be_used_is_named(call, message):
    with pytest.raises(LabelError, match=message):
        call()
