"""What reranking is worth: measures against formulas written down a second time."""

import json
from math import log2

import numpy as np
import pytest

from clipsearch.errors import QueryError
from clipsearch.rerank.evaluation import RerankEvaluation, bootstrap, evaluate_rerank, measure


def by_hand(ranking, wanted):
    """R@1, R@5, R@10, reciprocal rank and nDCG@10 of one query, id by id."""
    reciprocal, dcg = 0.0, 0.0
    for position in range(len(ranking)):
        if ranking[position] in wanted:
            reciprocal = reciprocal or 1 / (position + 1)
            dcg += 1 / log2(position + 2) if position < 10 else 0
    ideal = sum(1 / log2(position + 2) for position in range(min(10, len(wanted))))
    recalls = [float(any(id in wanted for id in ranking[:k])) for k in (1, 5, 10)]
    return [*recalls, reciprocal, dcg / ideal]


def made_up(queries=40, pictures=30):
    rng = np.random.default_rng(0)
    rankings = [rng.permutation(pictures)[: rng.integers(0, pictures)].tolist() for _ in range(queries)]
    relevant = [rng.permutation(pictures)[: rng.integers(1, 15)].tolist() for _ in range(queries)]
    return rankings, relevant


def test_the_measures_are_those_of_their_formulas():
    rankings, relevant = made_up()
    expected = np.mean([by_hand(*each) for each in zip(rankings, relevant, strict=True)], axis=0)
    measured = measure(rankings, relevant)
    assert list(measured) == ["R@1", "R@5", "R@10", "MRR", "nDCG@10"]
    np.testing.assert_allclose(list(measured.values()), expected)


def test_two_queries_on_paper():
    # "a" has its one at rank 2; "b" has one of its two at rank 4 and the other nowhere
    measured = measure([[7, 1, 5], [9, 8, 7, 2]], [{1}, {2, 3}], ks=(1, 3, 4))
    assert measured == {
        "R@1": 0,
        "R@3": 0.5,
        "R@4": 1,
        "MRR": (1 / 2 + 1 / 4) / 2,
        "nDCG@10": pytest.approx((1 / log2(3) + (1 / log2(5)) / (1 + 1 / log2(3))) / 2),
    }


def test_ndcg_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    rankings = [rng.permutation(30).tolist() for _ in range(20)]
    relevant = [rng.permutation(30)[: rng.integers(1, 20)].tolist() for _ in range(20)]
    truth, scores = np.zeros((2, 20, 30))
    for query, (ranking, wanted) in enumerate(zip(rankings, relevant, strict=True)):
        truth[query, wanted] = 1
        scores[query, ranking] = -np.arange(30)
    expected = metrics.ndcg_score(truth, scores, k=10)
    assert measure(rankings, relevant)["nDCG@10"] == pytest.approx(expected)


def test_ids_may_be_names_and_relevant_ones_may_be_told_twice():
    assert measure([["b", "a"]], [["a", "a"]], ks=(1,)) == {
        "R@1": 0, "MRR": 0.5, "nDCG@10": pytest.approx(1 / log2(3)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rankings", "relevant", "message"),
    [
        ([], [], "there are no queries to measure"),
        ([[1]], [[1], [2]], "1 queries have 2 lists of relevant ids"),
        ([[1], [2]], [[1], []], r"what query 1 should find is \[\]"),
        ([["a"]], ["a"], "what query 0 should find is 'a': give one or more ids"),
        ([[1]], [1], "what query 0 should find is 1: give one or more ids"),
        ([[1, 2, 1]], [[1]], "query 0 has a picture twice"),
    ],
)
def test_what_cannot_be_measured_is_told(rankings, relevant, message):
    with pytest.raises(QueryError, match=message):
        measure(rankings, relevant)


POOLS = {  # before, after, seconds
    "dog": ([1, 2, 3], [3, 1, 2], 1.0),
    "cat": ([4, 5], [4, 5], 3.0),
    "cow": ([6, 7, 8, 9], [9, 8, 7, 6], 2.0),
}


def test_an_evaluation_by_hand():
    found = evaluate_rerank(POOLS.__getitem__, ["dog", "cat", "cow"], [[3], [99], [8]], k=3)
    assert list(found.before) == ["R@1", "R@3", "R@5", "R@10", "MRR", "nDCG@10"]
    assert found.before["R@1"] == 0 and found.after["R@1"] == pytest.approx(1 / 3)
    assert found.before["MRR"] == pytest.approx((1 / 3 + 0 + 1 / 3) / 3)
    assert found.after["MRR"] == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert found.ceiling == pytest.approx(2 / 3)
    assert (found.depth, found.queries, found.seconds_per_query) == (4, 3, 2.0)
    assert found.interval is None


def test_mrr_and_ndcg_do_not_depend_on_k():
    found, other = (evaluate_rerank(POOLS.__getitem__, ["dog", "cow"], [[3], [7]], k=k) for k in (2, 9))
    assert found.after["R@2"] == 0.5
    for told in (found, other):
        assert told.before["MRR"] == pytest.approx((1 / 3 + 1 / 2) / 2)
        assert told.after["MRR"] == pytest.approx((1 + 1 / 3) / 2)
        assert told.after["nDCG@10"] == pytest.approx((1 + 1 / 2) / 2)
        assert told.ceiling == 1


def test_an_evaluation_measures_at_1_5_10_and_k():
    found = evaluate_rerank(POOLS.__getitem__, ["dog"], [[3]], k=20)
    assert list(found.after) == ["R@1", "R@5", "R@10", "R@20", "MRR", "nDCG@10"]


def test_the_table_is_aligned():
    found = evaluate_rerank(POOLS.__getitem__, ["dog", "cat", "cow"], [[3], [99], [8]], k=3)
    assert str(found).splitlines() == [
        "          before   after    gain",
        "R@1        0.000   0.333  +0.333",
        "R@3        0.667   0.667  +0.000",
        "R@5        0.667   0.667  +0.000",
        "R@10       0.667   0.667  +0.000",
        "MRR        0.222   0.500  +0.278  (fewer than 10 queries: too few to tell)",
        "nDCG@10    0.333   0.544  +0.210",
        "ceiling    0.667  have a relevant picture in the pool of 4",
        "3 queries, 2 s each",
    ]


def test_an_evaluation_is_json():
    told = RerankEvaluation({"MRR": 0.5}, {"MRR": 0.75}, 1.0, 20, 10, 0.5, (0.1, 0.4)).to_dict()
    assert json.loads(json.dumps(told)) == {
        "before": {"MRR": 0.5}, "after": {"MRR": 0.75}, "ceiling": 1.0, "depth": 20, "queries": 10,
        "seconds_per_query": 0.5, "interval": [0.1, 0.4],
    }  # fmt: skip


@pytest.mark.parametrize("after", [[1, 2], [1, 2, 4], [1, 2, 3, 4], [1, 2, 3, 3]])
def test_a_reranker_may_neither_add_nor_lose_pictures(after):
    with pytest.raises(QueryError, match="reranking 'dog' gave other pictures than it got"):
        evaluate_rerank(lambda _: ([1, 2, 3], after, 0.0), ["dog"], [[1]], k=10)


def test_queries_without_answers_are_refused_before_anything_is_searched():
    def never(query):
        raise AssertionError(query)

    with pytest.raises(QueryError, match="what query 0 should find"):
        evaluate_rerank(never, ["dog"], [[]], k=10)
    with pytest.raises(QueryError, match="no queries"):
        evaluate_rerank(never, [], [], k=10)
    with pytest.raises(QueryError, match="k is at least 1"):
        evaluate_rerank(never, ["dog"], [[1]], k=0)


def test_the_interval_of_a_gain_is_paired():
    # Ranks 1 to 10 stay as they are, so however widely they differ there is no doubt that nothing is gained.
    pool = list(range(10))
    assert evaluate_rerank(lambda _: (pool, pool, 0.0), pool, [[n] for n in pool], k=10).interval == (0, 0)


def test_the_interval_is_that_of_the_mean():
    gains = np.random.default_rng(2).normal(0.05, 0.3, 400)
    low, high = bootstrap(gains)
    error = 1.96 * gains.std() / 400**0.5
    np.testing.assert_allclose([low, high], [gains.mean() - error, gains.mean() + error], atol=0.004)
    assert bootstrap(gains) == (low, high), "the same numbers each time"
    assert bootstrap(gains[:9]) is None and bootstrap(gains[:10]) is not None
