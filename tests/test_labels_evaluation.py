import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    precision_score,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from clipsearch.errors import LabelError, MissingExtraError
from clipsearch.labels import Label, LabelResults, LabelSet, Pictured, Scores
from clipsearch.labels.evaluation import evaluate

NAMES = ("cat", "dog", "car", "Polish sausage", "=boat", "고양이, 새끼", 'a "quoted" tree')


def unread():
    raise AssertionError("no picture needs to be read to be measured")


def pictured(keys, source="/photos", failed=()):
    return tuple(
        Pictured(number, f"{source}/{key}", key, source, unread, "cut short" if number in failed else "")
        for number, key in enumerate(keys, 1)
    )


def results(chances, keys=None, *, k=None, labels=NAMES, unknown=None, failed=(), **how):
    """What a classifier whose scores are `chances` (n, L) says; `failed` are ids."""
    chances = np.asarray(chances, np.float32)
    top = np.argsort(-chances, axis=1, kind="stable")[:, :k].astype(np.int32)
    scores = np.take_along_axis(chances, top, 1)
    unknown = np.full(len(chances), np.nan) if unknown is None else np.asarray(unknown)
    for row in (number - 1 for number in failed):
        top[row], scores[row] = -1, np.nan
    labelled = [Label(name) if isinstance(name, str) else name for name in labels]
    return LabelResults(
        LabelSet(tuple(labelled)),
        pictured(keys or [f"{n}.jpg" for n in range(len(chances))], failed=failed),
        Scores(top, scores, scores / 10, unknown.astype(np.float32)),
        **{"multi": False, "kind": "softmax", "model": "m/tag", "templates": "photo"} | how,
    )


def softmax(n, size, seed=0, sharp=1.5):
    logits = sharp * np.random.default_rng(seed).standard_normal((n, size))
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def drawn(chances, seed=1):
    """Truths that are as likely as the chances say."""
    return (np.random.default_rng(seed).random((len(chances), 1)) > chances.cumsum(1)[:, :-1]).sum(1)


@pytest.fixture(scope="module")
def single():
    chances = softmax(400, len(NAMES))
    truth = drawn(chances)
    truth[truth == 6] = 5  # one label never occurs
    return chances, truth


def test_accuracies_recalls_and_confusions_are_those_of_scikit_learn(single):
    chances, truth = single
    guess, classes = chances.argmax(1), range(len(NAMES))

    found = evaluate(results(chances, k=5), [NAMES[label] for label in truth])

    assert found.n == 400
    assert found.acc1 == pytest.approx(accuracy_score(truth, guess))
    assert found.acc5 == pytest.approx(top_k_accuracy_score(truth, chances, k=5, labels=classes))
    present = np.unique(truth)
    macro = recall_score(truth, guess, labels=present, average="macro", zero_division=0)
    assert found.mean_per_class_recall == pytest.approx(macro)
    np.testing.assert_array_equal(found.confusion, confusion_matrix(truth, guess, labels=classes))
    np.testing.assert_array_equal(found.support, np.bincount(truth, minlength=7))
    expected = recall_score(truth, guess, labels=classes, average=None, zero_division=np.nan)
    np.testing.assert_allclose(found.recall, expected)
    expected = precision_score(truth, guess, labels=classes, average=None, zero_division=np.nan)
    np.testing.assert_allclose(found.precision, expected)
    assert np.isnan(found.recall[6]), "no picture shows it"
    assert found.mean_average_precision is None


def test_five_pictures_by_hand():
    chances = [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.9, 0.05, 0.05]]
    truth = ["cat", "dog", "dog", "car", "dog"]

    found = evaluate(results(chances, labels=NAMES[:3]), truth)

    assert found.acc1 == pytest.approx(3 / 5)
    assert found.acc5 is None, "there are not five labels"
    assert found.mean_per_class_recall == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert found.precision.tolist() == pytest.approx([1 / 3, 1, 1])
    assert found.confusions() == [("dog", "cat", 2)]
    assert found.coverage == 1
    assert found.labelled_precision == pytest.approx(3 / 5)
    # one guess a bin, but for none: |.6-1| + |.7-1| + |.5-0| + |.8-1| + |.9-0|
    assert found.calibration_error == pytest.approx((0.4 + 0.3 + 0.5 + 0.2 + 0.9) / 5)
    assert found.chance() == pytest.approx({"acc1": 1 / 3, "mean_per_class_recall": 1 / 3})
    assert found.bins.guesses.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 0, 1, 0]


def test_a_score_on_the_border_of_two_bins_is_in_the_lower_one():
    found = evaluate(results([[3 / 15, 0], [0, 1.0], [0.0, 0.0]], labels=NAMES[:2]), ["cat", "dog", "cat"])

    assert np.flatnonzero(found.bins.guesses).tolist() == [0, 2, 14]


def test_the_calibration_error_is_near_zero_for_honest_scores_and_large_for_others(single):
    chances = softmax(10_000, 7, seed=3)
    truth = [NAMES[label] for label in drawn(chances)]
    boast = np.where(chances == chances.max(1, keepdims=True), 0.99, 0.001)

    honest, boasting = evaluate(results(chances), truth), evaluate(results(boast), truth)

    assert honest.calibration_error < 0.015
    assert boasting.calibration_error == pytest.approx(abs(0.99 - boasting.acc1), abs=1e-6)


def test_scores_that_are_no_chances_have_no_calibration_error():
    found = evaluate(results([[0.9, 0.1]], labels=NAMES[:2], kind="contrast"), ["cat"])

    assert found.calibration_error is None
    assert found.bins.guesses.sum() == 1


def test_coverage_and_precision_go_by_the_verdict_and_accuracy_by_the_best_guess():
    chances = [[0.9, 0.1], [0.7, 0.3], [0.55, 0.45], [0.2, 0.8]]
    found = evaluate(
        results(chances, labels=NAMES[:2], threshold=0.6, unknown=[0, 0, 0, 0.9]),
        ["cat", "dog", "cat", "dog"],
    )

    assert found.acc1 == pytest.approx(3 / 4)
    assert found.coverage == pytest.approx(2 / 4), "one abstained, one is unknown"
    assert found.labelled_precision == pytest.approx(1 / 2)


def test_where_nothing_is_said_there_is_no_precision():
    found = evaluate(results([[0.6, 0.4]], labels=NAMES[:2], threshold=0.9), ["cat"])

    assert (found.coverage, found.labelled_precision) == (0, None)
    assert "precision" not in found.summary()


def test_a_picture_that_cannot_be_read_is_neither_right_nor_wrong():
    chances = [[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]

    found = evaluate(results(chances, labels=NAMES[:2], failed=[2]), ["cat", "cat", "dog"])

    assert (found.n, found.acc1) == (2, 0.5)
    assert found.skipped == {"cannot be read": 1}
    assert found.rows.tolist() == [0, 2]


def test_every_picture_that_does_not_count_has_its_reason():
    chances = softmax(6, 7)
    truth = ["cat", None, float("nan"), "  ", "boot", "DOG"]

    found = evaluate(results(chances), truth)

    assert found.n == 2
    assert found.skipped == {"have no truth": 3, "show none of the labels": 1}
    assert found.strange == {"boot": 1}
    assert found.outside.n == 1
    assert found.outside.auroc_score is None, "too few to say"


def test_names_match_whatever_their_case_underscores_and_unicode_form():
    labels = ["Polish sausage", Label("자동차", ("Strauß_wagen",)), "café"]
    truth = ["polish__Sausage ", "STRAUSS WAGEN", "자동차", "cafe\u0301"]

    found = evaluate(results(softmax(4, 3), labels=labels), truth)

    assert found.truths.tolist() == [0, 1, 1, 2]


def test_a_truth_that_knows_none_of_the_labels_shows_both_sides():
    message = r"found 'n01440764', 'n02085620', expected names such as 'cat', 'dog', 'car'.*; add"

    with pytest.raises(LabelError, match=message):
        evaluate(results(softmax(2, 7)), ["n01440764", "n02085620"])


def test_pictures_of_something_else_are_told_by_unknown_as_scikit_learn_finds():
    random = np.random.default_rng(5)
    chances, other = softmax(60, 7), np.arange(60) % 3 == 0
    unknown = np.round(random.random(60) + 0.3 * other, 1) / 1.3  # with ties
    truth = ["boot" if each else "cat" for each in other]

    found = evaluate(results(chances, unknown=unknown), truth).outside

    assert found.n == 20
    assert found.auroc_unknown == pytest.approx(roc_auc_score(other, unknown.astype(np.float32)))
    assert found.auroc_score == pytest.approx(roc_auc_score(other, -chances.max(1)))
    assert found.unlabelled == pytest.approx((unknown.astype(np.float32) > 0.5)[other].mean())


def test_where_unknown_was_not_asked_only_the_score_tells():
    found = evaluate(results(softmax(40, 7)), ["boot", "cat"] * 20).outside

    assert found.auroc_unknown is None
    assert 0 < found.auroc_score < 1
    assert found.unlabelled == 0


def several(n=300, size=7, seed=2):
    random = np.random.default_rng(seed)
    shows = random.random((n, size)) < 0.25
    shows[:, 6] = False
    scores = 1 / (1 + np.exp(-(random.standard_normal((n, size)) + 1.5 * shows - 1)))
    return scores.astype(np.float32), shows


def names_of(shows):
    return [[NAMES[label] for label in np.flatnonzero(row)] for row in shows]


def test_mean_average_precision_is_that_of_scikit_learn():
    scores, shows = several()

    found = evaluate(results(scores, multi=True, kind="sigmoid"), names_of(shows))

    expected = np.mean([average_precision_score(shows[:, label], scores[:, label]) for label in range(6)])
    assert found.mean_average_precision == pytest.approx(expected, abs=1e-6)
    assert found.average_precision_range == pytest.approx((expected, expected), abs=1e-6)
    assert found.n == 300, "a picture that shows none of the labels counts against each of them"
    assert found.chance() == pytest.approx({"mean_average_precision": shows[:, :6].mean()})
    assert (found.acc1, found.acc5, found.mean_per_class_recall) == (None, None, None)
    assert not found.confusions()


def test_precision_and_recall_of_several_labels_go_by_those_that_are_said():
    scores, shows = several()
    said = scores >= np.float32(0.5)

    found = evaluate(results(scores, multi=True, kind="sigmoid"), names_of(shows))

    np.testing.assert_allclose(found.recall[:6], recall_score(shows[:, :6], said[:, :6], average=None))
    np.testing.assert_allclose(found.precision, precision_score(shows, said, average=None))
    assert found.labelled_precision == pytest.approx(precision_score(shows, said, average="micro"))
    assert found.coverage == pytest.approx(said.any(1).mean())
    confidence = scores.ravel().astype(float)
    place = np.ceil(confidence * 15).astype(int) - 1
    gaps = [
        (place == bin).mean() * abs(confidence[place == bin].mean() - shows.ravel()[place == bin].mean())
        for bin in np.unique(place)
    ]
    assert found.calibration_error == pytest.approx(sum(gaps))


@pytest.mark.parametrize("k", [1, 3, 6])
def test_with_the_best_scores_only_the_mean_average_precision_lies_within_what_is_told(k):
    scores, shows = several()
    exact = evaluate(results(scores, multi=True, kind="sigmoid"), names_of(shows)).mean_average_precision

    found = evaluate(results(scores, k=k, multi=True, kind="sigmoid"), names_of(shows))

    low, high = found.average_precision_range
    assert found.mean_average_precision is None
    assert "mean_average_precision" not in found.metrics()
    assert low < exact < high
    assert f"{low:.3f}" in found.summary()
    # The bounds are reached, so they cannot be closer: the unknown scores as bad and as good as can be.
    order = np.argsort(-scores, axis=1, kind="stable")
    last = np.take_along_axis(scores, order[:, k - 1 : k], 1)
    hidden = np.ones_like(shows)
    np.put_along_axis(hidden, order[:, :k], False, 1)
    for bound, unlucky in ((low, shows), (high, ~shows)):
        nothing = -np.random.default_rng(0).random(shows.shape)  # no two alike: they have an order
        filled = np.where(hidden, np.where(unlucky, nothing, last - 1e-6), scores)
        pairs = zip(shows.T[:6], filled.T[:6], strict=True)
        assert bound == pytest.approx(np.mean([average_precision_score(*pair) for pair in pairs]), abs=2e-3)


def test_equal_scores_go_by_the_cosine():
    both = results([[1.0, 0.2], [1.0, 0.2]], labels=NAMES[:2], multi=True, kind="contrast")
    cosines = np.array([[0.2, 0.1], [0.3, 0.1]], np.float32)
    both = LabelResults(**vars(both) | {"scored": both.scored._replace(cosines=cosines)})

    assert evaluate(both, [["cat"], []]).mean_average_precision == pytest.approx(1 / 2)
    assert evaluate(both, [[], ["cat"]]).mean_average_precision == 1


def test_a_truth_of_several_labels_makes_an_evaluation_of_several():
    found = evaluate(results(softmax(3, 7)), [["cat", "dog"], ["car"], []])

    assert found.n == 3
    assert found.acc1 is None
    assert 0 < found.mean_average_precision <= 1
    assert found.labelled_precision is not None


def folders(*names):
    return [f"set/{name}/{n}.jpg" for n, name in enumerate(names)]


def test_the_folder_a_picture_lies_in_is_its_truth():
    found = evaluate(results(softmax(3, 7), folders("Cat", "polish_sausage", "boot")), "folder")

    assert found.truths.tolist() == [0, 3]
    assert found.strange == {"boot": 1}


def test_a_picture_at_the_root_of_its_source_has_the_name_of_that():
    flat = results(softmax(1, 7), ["1.jpg"])
    cats = LabelResults(**vars(flat) | {"pictures": pictured(["1.jpg"], source="/photos/cat")})

    assert evaluate(cats, "folder").truths.tolist() == [0]


@pytest.mark.parametrize(
    "truth",
    [
        {"a/1.jpg": "cat", "a/2.jpg": "dog"},
        {"/photos/a/1.jpg": "cat", Path("/photos/a/2.jpg"): ["dog"]},
        {1: "cat", 2: "dog", 3: None},
        {np.int64(1): "cat", np.int64(2): "dog"},
        ["cat", "dog", None],
        np.array(["cat", "dog", ""]),
        lambda picture: {1: "cat", 2: "dog"}.get(picture.id),
    ],
)
def test_the_truth_may_be_a_mapping_a_list_or_a_function(truth):
    found = evaluate(results(softmax(3, 7), ["a/1.jpg", "a/2.jpg", "a/3.jpg"]), truth)

    assert found.truths.tolist() == [0, 1]
    assert found.rows.tolist() == [0, 1]
    assert found.skipped == {"have no truth": 1}


TABLES = {
    "path.csv": "path,label\n/photos/a/1.jpg,cat\n/photos/a/2.jpg,dog\n",
    "key.csv": "\ufeffpath,label\r\na/1.jpg,cat\r\na/2.jpg,DOG\r\n",
    "id.tsv": "id\tlabel\n1\tcat\n2\tdog\n3\t\n",
    "truth.csv": 'path,label,truth\na/1.jpg,dog,cat\na/2.jpg,cat,dog\na/3.jpg,cat,""\n',
    "lines.jsonl": '{"path": "a/1.jpg", "label": "cat"}\n\n{"path": "a/2.jpg", "labels": ["dog"]}\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_the_truth_may_be_a_table(name, tmp_path):
    (tmp_path / name).write_text(TABLES[name], newline="")

    found = evaluate(results(softmax(3, 7), ["a/1.jpg", "a/2.jpg", "a/3.jpg"]), tmp_path / name)

    assert found.truths.tolist() == [0, 1]
    assert found.skipped == {"have no truth": 1}


def test_paths_in_a_table_may_start_at_its_folder_or_at_the_working_folder(tmp_path, monkeypatch):
    pictures = pictured(["1.jpg", "2.jpg"], source=str(tmp_path / "pets"))
    both = LabelResults(**vars(results(softmax(2, 7))) | {"pictures": pictures})
    (tmp_path / "truth.csv").write_text("path,label\npets/1.jpg,cat\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "truth.csv").write_text("path,label\n1.jpg,cat\n./pets/../pets/2.jpg,dog\n")
    monkeypatch.chdir(tmp_path)

    assert evaluate(both, "truth.csv").truths.tolist() == [0]
    assert evaluate(both, os.path.join("elsewhere", "truth.csv")).truths.tolist() == [0, 1]


def test_several_labels_of_a_table_are_in_one_cell_or_on_lines_of_their_own(tmp_path):
    pictures = results(softmax(2, 7), ["1.jpg", "2.jpg"])
    (tmp_path / "cell.csv").write_text("path,labels\n1.jpg,cat|dog\n2.jpg,car\n")
    (tmp_path / "lines.csv").write_text("path,label\n1.jpg,cat\n2.jpg,car\n1.jpg,dog\n1.jpg,dog\n")

    for name in ("cell.csv", "lines.csv"):
        assert evaluate(pictures, tmp_path / name).support.tolist() == [1, 1, 1, 0, 0, 0, 0]


def test_a_table_of_results_that_was_put_right_is_the_truth_of_awkward_names(tmp_path):
    keys = ["=a.jpg", b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), 'with, "quotes".jpg', "고양이.jpg"]
    chances = np.eye(7)[[4, 5, 6, 3]] * 0.9 + 0.01
    before = results(chances, keys, k=5)
    before.write(tmp_path / "labels.csv")

    found = evaluate(before, tmp_path / "labels.csv")

    assert found.truths.tolist() == [4, 5, 6, 3]
    assert found.acc1 == 1


def test_names_spelled_in_another_unicode_form_are_the_same_picture():
    found = evaluate(results(softmax(1, 7), ["사진/cafe\u0301.jpg"]), {"사진/café.jpg": "cat"})

    assert found.n == 1


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ([None, ""], "none of the truth is among the labels: found nothing, expected names such as 'cat'"),
        (["cat"], "found 1 truths for 2 pictures; expected one for each"),
        ([3, "cat"], "found the truth 3; expected a label's name, several of them, or None"),
        (
            {"x.jpg": "cat"},
            r"belongs to other pictures: found .*'x.jpg'.*, expected names such as '0.jpg', '1.jpg'",
        ),
        ({}, "belongs to other pictures"),
        ("folders", "found the truth 'folders'; expected 'folder' or a table"),
        ("absent.csv", "cannot read .*absent.csv: No such file"),
    ],
)
def test_a_truth_that_cannot_be_used_says_what_was_expected(truth, message):
    with pytest.raises(LabelError, match=message):
        evaluate(results(softmax(2, 7)), truth)


def test_where_no_picture_with_a_truth_can_be_read_nothing_is_measured():
    with pytest.raises(LabelError, match="none of the 1 pictures with a truth can be read"):
        evaluate(results(softmax(2, 7), failed=[1]), ["cat", None])


def test_the_json_is_that_of_clip_benchmark(tmp_path, single):
    chances, truth = single
    found = evaluate(results(chances, k=5), [NAMES[label] for label in truth])

    written = found.to_json(tmp_path / "r.json", dataset="pets", pretrained="openai", language="ko")

    assert json.loads(written.read_text()) == {
        "dataset": "pets",
        "model": "m/tag",
        "pretrained": "openai",
        "task": "zeroshot_classification",
        "metrics": {
            "acc1": found.acc1,
            "acc5": found.acc5,
            "mean_per_class_recall": found.mean_per_class_recall,
        },
        "language": "ko",
    }


def test_everything_measured_is_a_json_value(single):
    chances, truth = single
    found = evaluate(results(chances, k=5), [NAMES[label] for label in truth])

    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))

    assert told["labels"][6] == {"label": NAMES[6], "support": 0, "precision": 0.0, "recall": None}
    assert sum(entry["guesses"] for entry in told["bins"]) == 400
    assert told["metrics"] == found.metrics()


def test_the_summary_tells_each_measure_beside_chance_and_what_is_taken_for_what():
    labels = ["cat", "dog\x1b[31m"]
    truth = ["cat", "cat", "dog\x1b[31m", None]

    found = evaluate(results([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1]], labels=labels), truth)

    assert found.summary().splitlines() == [
        "3 pictures · 1 more have no truth",
        "acc1                               0.667   by chance 0.500",
        "mean_per_class_recall              0.750   by chance 0.500",
        "calibration error                  0.400",
        "taken for each other               cat for dog\\x1b[31m 1",
    ]
    assert str(found) == repr(found) == found.summary()


@pytest.mark.parametrize("name", ["plot.png", "plot.svg"])
def test_a_plot_is_drawn_where_matplotlib_is(name, single, tmp_path):
    pytest.importorskip("matplotlib")
    chances, truth = single
    labels = ["cat", "dog", "$x", "a $\\y$ b", "e", "f", "g"]  # its own font has no Korean

    found = evaluate(results(chances, labels=labels), [labels[label] for label in truth])

    start = found.plot(tmp_path / name).read_bytes()[:200]
    assert start.startswith(b"\x89PNG") or b"<?xml" in start
    with pytest.raises(LabelError, match=r"found 'plot\.xyz', expected a name that ends in"):
        found.plot(tmp_path / "plot.xyz")


@pytest.mark.skipif(find_spec("matplotlib") is not None, reason="matplotlib is there")
def test_a_plot_without_matplotlib_names_the_command_that_brings_it(tmp_path):
    found = evaluate(results(softmax(1, 7)), ["cat"])

    with pytest.raises(MissingExtraError, match=r"pip install 'clipsearch\[plots\]'"):
        found.plot(tmp_path / "plot.png")


def test_ten_thousand_pictures_of_a_thousand_labels_take_no_square_of_memory():
    random = np.random.default_rng(0)
    names = [f"label {n}" for n in range(1000)]
    top = np.argsort(random.random((10_000, 8)), axis=1).astype(np.int32) + 100
    scores = -np.sort(-random.random((10_000, 8)).astype(np.float32), axis=1)
    some = LabelResults(
        LabelSet(tuple(map(Label, names))),
        pictured([f"{n}.jpg" for n in range(10_000)]),
        Scores(top, scores, scores, np.zeros(10_000, np.float32)),
        multi=False,
        kind="softmax",
        model="m",
        templates="photo",
    )

    found = evaluate(some, [names[place] for place in top[:, 3]])

    assert (found.acc1, found.acc5) == (0, 1)
