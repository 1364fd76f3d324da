"""Scores of groups of labels."""

import numpy as np
import pytest

from clipsearch.errors import LabelError
from clipsearch.labels import Label, LabelResults, LabelSet, Pictured, Scores

LABELS = LabelSet(
    (
        Label("terrier", group="animals/dogs"),
        Label("poodle", group="animals/dogs"),
        Label("cat", group="animals/cats"),
        Label("car", group="things"),
        Label("rain"),
    )
)
PROBABILITIES = np.array([[0.2, 0.15, 0.1, 0.4, 0.15], [0.1, 0.1, 0.1, 0.1, 0.6]], np.float32)


def results(scores=PROBABILITIES, labels=LABELS, *, k=5, multi=False, failed=False):
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
    best = np.take_along_axis(scores, top, 1)
    cosines = best / 10 + top / 100
    if failed:
        top[0], best[0], cosines[0] = -1, np.nan, np.nan
    pictures = tuple(Pictured(n, f"/{n}", str(n), "/", bytes) for n in range(len(scores)))
    unknown = np.full(len(scores), 0.2, np.float32)
    scored = Scores(top, best, cosines.astype(np.float32), unknown)
    return LabelResults(labels, pictures, scored, multi, "sigmoid" if multi else "softmax", "m", "photo")


def guesses(row):
    return {guess.label: pytest.approx(guess.score, abs=1e-6) for guess in row.guesses}


def test_a_group_has_the_sum_of_its_labels():
    first, second = results().by_group()
    assert guesses(first) == {"animals": 0.45, "things": 0.4, "rain": 0.15}
    assert (first.label, second.label) == ("animals", "rain"), "no single animal is as likely as the car"
    assert guesses(second) == {"rain": 0.6, "animals": 0.3, "things": 0.1}
    assert first.unknown == pytest.approx(0.2)


def test_more_of_the_path_tells_more_groups_apart():
    found = guesses(results().by_group(2)[0])
    assert found == {"animals/dogs": 0.35, "animals/cats": 0.1, "things": 0.4, "rain": 0.15}
    assert guesses(results().by_group(9)[0]) == found


def test_of_labels_that_are_not_kept_nothing_is_added():
    first, _ = results(k=2).by_group()
    assert guesses(first) == {"things": 0.4, "animals": 0.2}


def test_where_there_may_be_several_a_group_has_its_best_label():
    first, _ = results(PROBABILITIES * 1.5, multi=True).by_group()
    assert guesses(first) == {"things": 0.6, "animals": 0.3, "rain": 0.225}
    assert first.labels == ("things",)


def test_the_cosine_is_the_highest_of_the_labels():
    first, _ = results().by_group()
    # terrier 0.2 / 10 + 0, poodle 0.015 + 0.01, cat 0.01 + 0.02
    assert {guess.label: guess.cosine for guess in first.guesses}["animals"] == pytest.approx(0.03)


def test_a_picture_that_failed_has_no_group():
    first, second = results(failed=True).by_group()
    assert (str(first.verdict), first.guesses) == ("failed", ())
    assert second.label == "rain"


def test_no_pictures_have_no_groups():
    assert len(results(PROBABILITIES[:0]).by_group()) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: results(labels=LabelSet(tuple(Label(n) for n in "abcde"))).by_group(),
            "no label has a group",
        ),
        (lambda: results().by_group(0), "found depth 0"),
        (
            lambda: results(labels=LabelSet(tuple(Label(n, group="all") for n in "abcde"))).by_group(),
            "all labels are in the group 'all'",
        ),
    ],
)
def test_what_cannot_be_grouped_is_named(call, message):
    with pytest.raises(LabelError, match=message):
        call()
