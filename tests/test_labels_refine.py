"""Examples that correct a classifier, against scikit-learn and on planted mistakes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from clipsearch.errors import LabelError
from clipsearch.labels.classifier import Classifier
from clipsearch.labels.refine import _fit, refine
from clipsearch.types import as_embeddings

DIM = 16


def world(count=200, labels=4, noise=0.5, seed=0):
    """Pictures around the true direction of their label."""
    random = np.random.default_rng(seed)
    true = as_embeddings(random.standard_normal((labels, DIM)))
    y = random.integers(0, labels, count)
    return as_embeddings(true[y] + noise * random.standard_normal((count, DIM)) / 4), y, true


def classifier(vectors, scale=10.0):
    return Classifier(vectors, vectors[:0], "softmax", scale)


def probabilities(fitted, x):
    return np.exp(log_softmax(fitted.logits(x), axis=1))


def test_without_words_it_is_the_logistic_regression_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    x, y, true = world()
    fitted = _fit(classifier(np.zeros_like(true)), x, y, 2.0)

    expected = LogisticRegression(C=1 / 2.0, fit_intercept=False, tol=1e-8, max_iter=5000).fit(x, y)

    np.testing.assert_allclose(probabilities(fitted, x), expected.predict_proba(x), atol=2e-3)


def test_examples_correct_words_that_were_exchanged():
    x, y, true = world()
    fresh, truth, _ = world(count=400, seed=0)
    refined = refine(classifier(true[[1, 0, 2, 3]]), x, y)

    assert refined.helped
    assert refined.accuracy[0] < 0.6 < 0.95 < refined.accuracy[1]
    assert (probabilities(refined.classifier, fresh).argmax(1) == truth).mean() > 0.95
    assert "200 examples make held-out ones likelier" in str(refined)


def test_scores_go_through_the_classifier_as_the_fit_saw_them():
    x, y, true = world()
    refined = refine(classifier(true[[1, 0, 2, 3]]), x, y).classifier
    scored = refined(x, 4)
    by_label = np.empty((len(x), 4))
    np.put_along_axis(by_label, scored.top.astype(int), scored.scores, 1)
    np.testing.assert_allclose(by_label, probabilities(refined, x), atol=1e-5)
    np.testing.assert_allclose(
        scored.cosines[:, 0], (x @ refined.vectors.T)[np.arange(len(x)), scored.top[:, 0]]
    )


def test_a_label_without_examples_keeps_what_its_words_say():
    x, y, true = world()
    seen = y < 3
    refined = refine(classifier(true), x[seen], y[seen]).classifier
    assert (probabilities(refined, x[~seen]).argmax(1) == 3).mean() > 0.9


def test_examples_that_only_confuse_are_left_out():
    x, y, true = world(count=60, noise=0.1)
    told = np.random.default_rng(5).permutation(y)  # answers by chance
    calm = replace(classifier(true), scale=0.01)  # and a classifier that claims nothing
    refined = refine(calm, x, told)
    assert refined.accuracy[0] == pytest.approx((x @ true.T).argmax(1).__eq__(told).mean())
    assert refined.log_likelihood[1] < refined.log_likelihood[0] + 0.02


@pytest.mark.parametrize(
    ("kind", "count", "said"), [("contrast", 50, "one label"), ("softmax", 9, "at least 10")]
)
def test_what_cannot_be_refined_is_told(kind, count, said):
    x, y, true = world(count)
    with pytest.raises(LabelError, match=said):
        refine(replace(classifier(true), kind=kind), x, y)
