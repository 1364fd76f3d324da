"""One order out of two scores, and the weight between them."""

import numpy as np
import pytest

from clipsearch.errors import QueryError
from clipsearch.rerank.fusion import Fit, fit_weight, fused, order

NAN, INF = float("nan"), float("inf")
ROOT = 1.5**0.5  # z of the ends of three equally spaced numbers: 1 / sqrt(2 / 3)


def pool(rng, n=20):
    """First-stage scores, best first, and second scores that know nothing of them."""
    return -np.sort(-rng.normal(0.3, 0.02, n)), rng.normal(-2, 3, n)


def test_z_scores_by_hand():
    # z of (.3, .2, .1) is (1, 0, -1) * ROOT, of (0, 4, 8) it is (-1, 0, 1) * ROOT
    expected = np.array([0.7 - 0.3, 0, 0.3 - 0.7]) * ROOT
    np.testing.assert_allclose(fused([0.3, 0.2, 0.1], [0, 4, 8], weight=0.3), expected, atol=1e-12)


def test_the_second_score_weighs_three_tenths_by_default():
    first, second = pool(np.random.default_rng(0))
    assert (fused(first, second) == fused(first, second, weight=0.3)).all()


def test_a_picture_that_was_not_judged_counts_as_average():
    # the judged (0, 8) have z -1 and 1; the picture between them has only its first score, of z 0
    values = fused([0.3, 0.2, 0.1], [0, NAN, 8], weight=0.5)
    np.testing.assert_allclose(values, [0.5 * ROOT - 0.5, 0, 0.5 - 0.5 * ROOT], atol=1e-12)


@pytest.mark.parametrize("second", [[5, 5, 5], [NAN] * 3, [NAN, 7, NAN], [2.0, 2.0 + 1e-8, 2.0]])
def test_scores_that_do_not_differ_say_nothing(second):
    values = fused([0.3, 0.2, 0.1], second, weight=0.4)
    np.testing.assert_allclose(values, 0.6 * ROOT * np.array([1, 0, -1]), atol=1e-12)


def test_an_infinite_score_stands_one_deviation_beyond_the_furthest():
    # of (1, 2, 3) the deviation is sqrt(2 / 3): -inf becomes 1 - .816, inf 3 + .816
    step = (2 / 3) ** 0.5
    clipped = np.array([1 - step, 1, 2, 3, 3 + step])
    expected = (clipped - clipped.mean()) / clipped.std()
    values = fused([5, 4, 3, 2, 1], [-INF, 1, 2, 3, INF], weight=1)
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_scores_may_all_be_infinite():
    np.testing.assert_allclose(fused([2, 1], [-INF, INF], weight=1), [-1, 1])
    np.testing.assert_allclose(fused([3, 2, 1], [INF, INF, INF], weight=1), [0, 0, 0])


def test_huge_and_tiny_scores_do_not_overflow():
    expected = np.array([-ROOT, 0, ROOT])
    np.testing.assert_allclose(fused([3, 2, 1], [-1e308, 0, 1e308], weight=1), expected, atol=1e-12)
    np.testing.assert_allclose(fused([3, 2, 1], [0, 1e-300, 2e-300], weight=1), expected, atol=1e-12)


def test_reciprocal_ranks_by_hand():
    values = fused([0.3, 0.2, 0.1], [4, 9, 7], weight=0.25, how="rrf")
    np.testing.assert_allclose(values, [0.75 / 11 + 0.25 / 13, 0.75 / 12 + 0.25 / 11, 0.75 / 13 + 0.25 / 12])


def test_equal_scores_share_the_mean_of_their_ranks():
    values = fused([1, 1, 0, 0, 0], [9, 9, 9, 5, 9], weight=0.5, how="rrf")
    second = [2.5, 2.5, 2.5, 5, 2.5]
    expected = [0.5 / (10 + a) + 0.5 / (10 + b) for a, b in zip([1.5, 1.5, 4, 4, 4], second, strict=True)]
    np.testing.assert_allclose(values, expected)


def test_reciprocal_ranks_put_the_unjudged_in_the_middle():
    values = fused([4, 3, 2, 1], [NAN, 1, 5, INF], weight=1, how="rrf")
    np.testing.assert_allclose(values, [1 / 12, 1 / 13, 1 / 12, 1 / 11])
    nobody = fused([2, 1], [NAN, NAN], weight=0.5, how="rrf")
    np.testing.assert_allclose(nobody, [0.5 / 11 + 0.5 / 10.5, 0.5 / 12 + 0.5 / 10.5])


@pytest.mark.parametrize("how", ["z", "rrf"])
def test_weight_0_keeps_the_order(how):
    rng = np.random.default_rng(1)
    for _ in range(50):
        first, second = pool(rng)
        second[rng.integers(0, 20, 3)] = [NAN, INF, -INF]
        assert order(fused(first, second, weight=0, how=how)).tolist() == list(range(20))


@pytest.mark.parametrize("how", ["z", "rrf"])
def test_weight_1_orders_the_judged_by_the_second_score_alone(how):
    rng = np.random.default_rng(2)
    for _ in range(50):
        first, second = pool(rng)
        second[:2] = INF, -INF
        second[rng.permutation(np.arange(2, 20))[:5]] = NAN
        ranked = order(fused(first, second, weight=1, how=how))
        judged = [place for place in ranked.tolist() if not np.isnan(second[place])]
        known = np.flatnonzero(~np.isnan(second)).tolist()
        assert judged == sorted(known, key=lambda place: -second[place])


@pytest.mark.parametrize("how", ["z", "rrf"])
@pytest.mark.parametrize("n", [0, 1, 2, 20])
def test_the_pool_keeps_its_pictures(how, n):
    first, second = pool(np.random.default_rng(3), n)
    second[: n // 2] = NAN
    for weight in (0, 0.3, 1):
        values = fused(first, second, weight=weight, how=how)
        assert values.shape == (n,) and values.dtype == np.float64 and np.isfinite(values).all()
        assert sorted(order(values).tolist()) == list(range(n))


def test_equal_scores_keep_their_order_and_nan_is_last():
    assert order([1, 3, NAN, 1, 3, 2]).tolist() == [1, 4, 5, 0, 3, 2]
    ones = list(range(0, 100, 2))
    assert order(np.tile([1, 0], 50)).tolist() == ones + [place + 1 for place in ones]


@pytest.mark.parametrize(("scale", "shift"), [(100, 0), (0.01, 5), (3, -20)])
def test_the_scale_of_either_score_does_not_matter(scale, shift):
    first, second = pool(np.random.default_rng(4))
    second[[2, 9, 13]] = NAN, INF, -INF
    expected = fused(first, second, weight=0.4)
    np.testing.assert_allclose(fused(first * scale + shift, second, weight=0.4), expected, atol=1e-9)
    np.testing.assert_allclose(fused(first, second * scale + shift, weight=0.4), expected, atol=1e-9)


def test_reciprocal_ranks_know_only_the_order():
    first, second = pool(np.random.default_rng(5))
    expected = fused(first, second, weight=0.4, how="rrf")
    np.testing.assert_array_equal(fused(np.exp(first), second**3, weight=0.4, how="rrf"), expected)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1, 2], [1]), {}, "2 pictures have 1 second scores: give each one, nan for none"),
        (([1, 2], [1, 2]), {"weight": 1.5}, "weight of the second score is 1.5: it goes from 0 to 1"),
        (([1, 2], [1, 2]), {"weight": NAN}, "is nan: it goes from 0 to 1"),
        (([1, 2], [1, 2]), {"how": "sum"}, "cannot be fused by 'sum': use 'z' or 'rrf'"),
        (([[1, 2]], [1, 2]), {}, r"have shape \(1, 2\): give one number for each picture"),
    ],
)
def test_what_cannot_be_fused_is_told(arguments, options, message):
    with pytest.raises(QueryError, match=message):
        fused(*arguments, **options)


SIGNAL = 1.5


def planted(rng, noise, queries=1000, n=20):
    """Pools with one relevant picture, which both scores tell: the first in noise of 1."""
    for _ in range(queries):
        relevant = np.arange(n) == rng.integers(n)
        first, second = (SIGNAL * relevant + rng.normal(0, each, n) for each in (1, noise))
        best = np.argsort(-first)
        yield first[best], second[best], relevant[best]


@pytest.mark.parametrize("noise", [0.5, 1, 2])
def test_the_weight_that_is_planted_is_found(noise):
    # The log-likelihood is proportional to first + second / noise^2. In units of z, deviations of the pools,
    # that is their deviations' ratio more.
    one, two = (np.hypot(each, SIGNAL * (0.05 * 0.95) ** 0.5) for each in (1, noise))
    share = two / noise**2 / (one + two / noise**2)  # .68, .5, .33
    fit = fit_weight(planted(np.random.default_rng(6), noise))
    assert fit.weight == pytest.approx(share, abs=0.11)
    assert fit.queries == 1000
    assert fit.held_out > fit.before + 0.02 and fit.interval[0] > 0
    assert fit.before < fit.default <= fit.after and fit.held_out <= fit.after


def test_a_score_that_knows_nothing_gains_nothing():
    rng = np.random.default_rng(7)
    pools = [(first, rng.normal(0, 1, 20), wanted) for first, _, wanted in planted(rng, 1)]
    fit = fit_weight(pools)
    assert fit.weight <= 0.1
    assert fit.held_out - fit.before == pytest.approx(0, abs=0.02)
    assert fit.interval[0] < 0.005
    assert fit.default < fit.before


def test_the_numbers_of_a_fit_by_hand():
    # Three queries of two pictures, both scores with z 1 and -1: below .5 the first decides, at .5 both are
    # equal and keep their order, above it the second decides.
    right, wrong = ([2, 1], [1, 2], [False, True]), ([2, 1], [1, 2], [True, False])
    fit = fit_weight([right, right, wrong])
    assert fit.weight == 0.55, "the nearest to .3 of those above .5"
    assert (fit.before, fit.default) == pytest.approx([(0.5 + 0.5 + 1) / 3] * 2)
    assert fit.after == pytest.approx((1 + 1 + 0.5) / 3)
    # Held out: a right one is left with one right and one wrong, all weights are equal and .3 is taken, .5;
    # the wrong one is left with two right, so the second score decides, .5.
    assert fit.held_out == pytest.approx(0.5)
    assert fit.interval is None and fit.queries == 3
    assert str(fit) == (
        "weight 0.55 fitted on 3 queries: MRR 0.667 before, 0.667 at 0.3, 0.833 fitted, 0.500 held out "
        "(gain -0.167, fewer than 10 queries: too few to tell)"
    )


def test_one_query_shows_nothing():
    fit = fit_weight([([2, 1], [1, 2], [False, True])])
    assert fit == Fit(0.55, before=0.5, default=0.5, after=1, held_out=0.5, interval=None, queries=1)


def test_where_every_weight_is_as_good_it_is_the_default():
    assert fit_weight([([2, 1], [4, 3], [False, True])]).weight == 0.3


def test_pools_without_a_relevant_picture_count_as_misses():
    miss = ([2, 1], [1, 2], [False, False])
    fit = fit_weight([([2, 1], [1, 2], [False, True]), miss, ([], [], [])])
    assert (fit.after, fit.queries) == (pytest.approx(1 / 3), 3)


def test_a_weight_for_reciprocal_ranks_is_fitted_on_them():
    # Ranks 1, 2, 3 and 2, 3, 1: the last is first where (1 - w) (1/11 - 1/13) < w (1/11 - 1/12), w > .649.
    # z 1.22, 0, -1.22 and -.593, -.815, 1.408: where (1 - w) 2.449 < w 2.001, w > .550.
    pools = [([3, 2, 1], [-9, -10, 0], [False, False, True])]
    assert fit_weight(pools, how="rrf").weight == 0.65
    assert fit_weight(pools, how="z").weight == 0.6


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ([], "no queries to fit a weight on"),
        ([([2, 1], [1, 2], [False, False])], "none of the 1 pools has a relevant picture"),
        ([([2, 1], [1, 2], [True])], "of 2 pictures 1 are said to be relevant or not"),
        ([([2, 1], [1], [True, False])], "2 pictures have 1 second scores"),
    ],
)
def test_queries_that_a_weight_cannot_be_fitted_on_are_refused(pools, message):
    with pytest.raises(QueryError, match=message):
        fit_weight(pools)
