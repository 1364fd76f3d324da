"""Sheets that a person fills in, and what is made of the answers."""

import csv
import json
import re
from base64 import b64encode
from hashlib import sha256
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest, hypergeom

from clipsearch.errors import LabelError
from clipsearch.labels import Label, LabelResults, LabelSet, Pictured, Scores
from clipsearch.labels.certify import of_round
from clipsearch.labels.temperature import fit_verdicts, tempered

NAMES = ("cat", "=dog", "고양이, a|b")


def png():
    file = BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, "PNG")
    return file.getvalue()


def results(probabilities, *, multi=False, kind="softmax", unknown=0.1, names=NAMES):
    """The labels of n pictures by the probability of each label, (n, L)."""
    scores = np.asarray(probabilities, np.float32)
    top = np.argsort(-scores, axis=1, kind="stable").astype(np.int32)
    scores = np.take_along_axis(scores, top, 1)
    pictures = tuple(
        Pictured(n + 1, f"/home/kim/{n}.png", f"{n}.png", "/home/kim", png) for n in range(len(scores))
    )
    told = Scores(top, scores, scores / 10, np.broadcast_to(np.float32(unknown), len(scores)))
    return LabelResults(
        LabelSet(tuple(map(Label, names))), pictures, told, multi, kind, "some model", "photo"
    )


def many(n=300, seed=0):
    """Softmax scores, and whether the best label of each is right, by just these scores."""
    rng = np.random.default_rng(seed)
    chances = softmax(rng.normal(0, 2.5, (n, 3)), axis=1).astype(np.float32)
    return results(chances), rng.random(n) < chances.max(axis=1)


def rows_of(sheet):
    with sheet.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rewrite(sheet, rows):
    with sheet.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def answer(sheet, right, *, first=0):
    """Fill in from a bool for each picture."""
    rows = rows_of(sheet)
    for row in rows[first:]:
        row["right"] = "yes" if right[int(row["path"][10:-4])] else "no"
    rewrite(sheet, rows)


def test_a_sheet_asks_for_the_best_label_of_each_picture_drawn(tmp_path):
    chances = [[0.1, 0.7, 0.2], [0.5, 0.1, 0.4], [0.2, 0.2, 0.6]]

    form = results(chances).review(tmp_path / "sheet.csv", 10)

    assert form == tmp_path / "sheet.html"
    rows = {row["path"]: row for row in rows_of(tmp_path / "sheet.csv")}
    assert set(rows) == {f"/home/kim/{n}.png" for n in range(3)}
    first = rows["/home/kim/0.png"]
    assert (first["label"], first["others"], first["score"]) == ("'=dog", "고양이, a|b|cat", "0.7")
    assert (first["round"], first["of"], first["right"], first["truth"]) == ("1", "3", "", "")
    assert first["region"] == "", "drawn from all"
    assert sorted(int(row["number"]) for row in rows.values()) == [1, 2, 3]


def test_pictures_of_none_of_the_labels_are_not_drawn(tmp_path):
    some = results([[0.5, 0.3, 0.2]] * 4, unknown=[0.1, 0.9, 0.2, 0.8])

    some.review(tmp_path / "sheet.csv", 10)

    assert {row["path"] for row in rows_of(tmp_path / "sheet.csv")} == {"/home/kim/0.png", "/home/kim/2.png"}


def test_where_there_may_be_several_labels_each_that_is_said_is_asked_for(tmp_path):
    some = results([[0.9, 0.8, 0.1], [0.2, 0.1, 0.6], [0.1, 0.1, 0.1]], multi=True, kind="sigmoid")

    some.review(tmp_path / "sheet.csv", 10)

    asked = {(row["path"][10:-4], row["label"]) for row in rows_of(tmp_path / "sheet.csv")}
    assert asked == {("0", "cat"), ("0", "'=dog"), ("1", "고양이, a|b")}


def test_a_threshold_does_not_change_what_is_drawn(tmp_path):
    some, _ = many()
    some.review(tmp_path / "all.csv", 20)
    some.at(0.9).review(tmp_path / "sure.csv", 20)
    assert (tmp_path / "all.csv").read_bytes() == (tmp_path / "sure.csv").read_bytes()


def test_accuracy_is_clopper_pearson_over_the_answers(tmp_path):
    some, right = many(20_000)
    some.review(tmp_path / "sheet.csv", 80)
    answer(tmp_path / "sheet.csv", right)

    review = some.reviewed(tmp_path / "sheet.csv")

    drawn = right[[int(row["path"][10:-4]) for row in rows_of(tmp_path / "sheet.csv")]]
    expected = binomtest(int(drawn.sum()), 80).proportion_ci(0.95, method="exact")
    found = review.accuracy()
    assert (found.value, found.reviewed) == (drawn.mean(), 80)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-3)  # of 20,000
    assert str(review).startswith(f"80 of 80 checked · {drawn.mean():.1%} of the labels are right (")


def test_each_label_has_its_own_share(tmp_path):
    some, right = many()
    some.review(tmp_path / "sheet.csv", 300)
    answer(tmp_path / "sheet.csv", right)

    found = some.reviewed(tmp_path / "sheet.csv").by_label()

    best = some.scored.top[:, 0]
    assert list(found) == list(NAMES)
    for label, name in enumerate(NAMES):
        assert found[name].value == pytest.approx(right[best == label].mean()), "all are checked"
        assert found[name].low == found[name].high == pytest.approx(found[name].value)


def test_what_nobody_can_tell_counts_as_wrong(tmp_path):
    some = results([[0.8, 0.1, 0.1]] * 4)
    some.review(tmp_path / "sheet.csv", 4)
    rows = rows_of(tmp_path / "sheet.csv")
    for row, told in zip(rows, ["Y", "?", "1", "TRUE"], strict=True):
        row["right"] = told
    rewrite(tmp_path / "sheet.csv", rows)

    assert some.reviewed(tmp_path / "sheet.csv").accuracy().value == 0.75


def test_a_truth_alone_answers_and_gives_an_example(tmp_path):
    some = results([[0.8, 0.1, 0.1]] * 4)
    some.review(tmp_path / "sheet.csv", 4)
    rows = sorted(rows_of(tmp_path / "sheet.csv"), key=lambda row: row["path"])
    for row, told in zip(rows, [("", " CAT "), ("no", "'=dog"), ("no", "-"), ("yes", "")], strict=True):
        row["right"], row["truth"] = told
    rewrite(tmp_path / "sheet.csv", rows)

    review = some.reviewed(tmp_path / "sheet.csv")

    assert review.answers.right.sum() == 2
    assert review.examples == {"cat": [1, 4], "=dog": [2]}


def test_wrong_labels_without_a_truth_make_no_examples(tmp_path):
    some = results([[0.8, 0.1, 0.1]] * 4)
    some.review(tmp_path / "sheet.csv", 4)
    answer(tmp_path / "sheet.csv", np.array([True, False, True, False]))

    with pytest.raises(LabelError, match="2 labels are wrong and have no truth; fill in that column, with -"):
        _ = some.reviewed(tmp_path / "sheet.csv").examples


def test_answers_of_a_later_round_bound_the_accuracy(tmp_path):
    some, right = many(400)
    sheet = tmp_path / "sheet.csv"
    some.review(sheet, 20, target_precision=0.9)
    answer(sheet, right)
    some.review(sheet, 370, target_precision=0.9)
    answer(sheet, right, first=20)

    review = some.reviewed(sheet)

    asked = [int(row["path"][10:-4]) for row in rows_of(sheet)]
    found = review.accuracy()
    assert found.reviewed < 30 < len(asked)
    assert right[asked].sum() / 400 <= found.low <= found.value <= found.high
    assert found.high <= 1 - (~right[asked]).sum() / 400


def test_rounds_follow_each_other_in_one_sheet_and_certify_a_threshold(tmp_path):
    some, right = many(3000)
    sheet = tmp_path / "sheet.csv"
    some.review(sheet, 100, target_precision=0.9)
    answer(sheet, right)
    first = rows_of(sheet)
    some.review(sheet, 300, target_precision=0.9)
    both = rows_of(sheet)

    assert both[:100] == sorted(first, key=lambda row: int(row["number"]))
    assert {row["round"] for row in both[100:]} == {"2"} and len(both) == 400
    assert len({row["path"] for row in both}) == 400

    answer(sheet, right, first=100)
    found = some.reviewed(sheet).certify(0.9)
    kept = some.reviewed(sheet).keep(0.9)

    assert found.value is not None and found.coverage > 0.2
    said = kept.said[:, 0]
    assert right[said].mean() >= 0.9
    assert said.mean() == pytest.approx(found.coverage)
    assert (some.scored.scores[:, 0] >= found.value).tolist() == said.tolist()
    # 0.05 / 2 of the risk is the second round's: so many wrong answers are borne, not one more
    assert found.precision_low >= 0.9


def test_the_risk_of_all_rounds_together_is_that_of_the_promise():
    assert sum(1 - of_round(0.95, number) for number in range(1, 60)) == pytest.approx(0.05)
    assert 1 - of_round(0.95, 2) == pytest.approx(0.025)


def test_sorting_the_sheet_changes_nothing(tmp_path):
    some, right = many()
    sheet = tmp_path / "sheet.csv"
    some.review(sheet, 60)
    answer(sheet, right)
    rows = rows_of(sheet)
    rewrite(sheet, sorted(rows, key=lambda row: row["path"]))

    assert [row.path for row in some.reviewed(sheet).asked] == [row["path"] for row in rows]


def test_when_all_labels_are_checked_there_is_nothing_to_draw(tmp_path):
    some = results([[0.8, 0.1, 0.1]] * 4)
    sheet = tmp_path / "sheet.csv"
    page = some.review(sheet, 4)
    answer(sheet, np.zeros(4, bool))
    before = page.read_bytes(), sheet.read_bytes()

    with pytest.raises(LabelError, match="all 4 labels are checked"):
        some.review(sheet, 4)
    assert (page.read_bytes(), sheet.read_bytes()) == before


def test_a_near_tie_elsewhere_that_falls_otherwise_changes_nothing(tmp_path):
    chances = np.tile(np.array([0.4, 0.39999998, 0.2], np.float32), (300, 1))
    some = results(chances)
    some.review(tmp_path / "sheet.csv", 3)
    drawn = {row["path"] for row in rows_of(tmp_path / "sheet.csv")}
    for n in range(300):
        if f"/home/kim/{n}.png" not in drawn:
            chances[n] = [0.39999998, 0.4, 0.2]

    assert results(chances).reviewed(tmp_path / "sheet.csv").unanswered == 3


def test_a_round_that_is_missing_is_noticed(tmp_path):
    some, right = many(3000)
    sheet = tmp_path / "sheet.csv"
    some.review(sheet, 20)
    answer(sheet, right)
    some.review(sheet, 20)
    rewrite(sheet, rows_of(sheet)[20:])

    with pytest.raises(LabelError, match="a round is missing"):
        some.reviewed(sheet)


def other(some, **changes):
    from dataclasses import replace

    return replace(some, **changes)


@pytest.mark.parametrize(
    "changed",
    [
        lambda some: other(some, model="another model"),
        lambda some: other(some, templates="openai-80"),
        lambda some: other(some, labels=LabelSet(tuple(map(Label, (*NAMES, "new"))))),
        lambda some: some[:-1],
        lambda some: other(
            some, pictures=(*some.pictures[:-1], some.pictures[-1]._replace(path="/other.png"))
        ),
    ],
)
def test_a_sheet_of_other_labels_is_refused_though_the_rows_drawn_are_the_same(changed, tmp_path):
    some, _ = many()
    some.review(tmp_path / "sheet.csv", 3)
    assert not any(row["path"] == "/home/kim/299.png" for row in rows_of(tmp_path / "sheet.csv"))

    with pytest.raises(LabelError, match="drawn from other pictures or labels"):
        changed(some).reviewed(tmp_path / "sheet.csv")


def test_a_round_that_certifies_less_takes_nothing_away(tmp_path):
    some, right = many(3000)
    sheet = tmp_path / "sheet.csv"
    some.review(sheet, 100, target_precision=0.8)
    answer(sheet, right)
    some.review(sheet, 300, target_precision=0.8)
    answer(sheet, right, first=100)
    before = some.reviewed(sheet).certify(0.8)
    some.review(sheet, 3, target_precision=0.8)
    answer(sheet, right, first=400)

    after = some.reviewed(sheet).certify(0.8)

    assert before.value is not None and after == before


def test_a_number_that_went_through_a_spreadsheet_is_the_same(tmp_path):
    some, right = many()
    sheet = tmp_path / "sheet.csv"
    some.review(sheet, 60, target_precision=0.9)
    answer(sheet, right)
    before = some.reviewed(sheet).answers
    rows = rows_of(sheet)
    for row in rows:
        for column in ("score", "region"):
            row[column] = row[column] and f"{float(row[column]):.9g}"
    rewrite(sheet, rows)

    assert some.reviewed(sheet).answers.region.tolist() == before.region.tolist()
    assert {region for region in before.region if region > -np.inf} <= set(
        some.scored.scores[:, 0].astype(float)
    )


def test_a_sheet_that_a_spreadsheet_saved_with_semicolons_is_the_same(tmp_path):
    some, right = many()
    sheet = tmp_path / "sheet.csv"
    some.review(sheet, 60, target_precision=0.9)
    answer(sheet, right)
    before = some.reviewed(sheet)
    rows = rows_of(sheet)
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, rows[0], delimiter=";")
        table.writeheader()
        for row in rows:
            commas = {column: row[column].replace(".", ",") for column in ("score", "region")}
            table.writerow(row | commas)
        file.write(";" * (len(rows[0]) - 1) + "\r\n")

    assert some.reviewed(sheet).asked == before.asked


def change(**values):
    return lambda rows: rows[0].update(values)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change(right="perhaps"), "found right 'perhaps'; expected yes, no or ?"),
        (
            change(right="yes", truth="'=dog"),
            "found right 'yes' and the truth '=dog' of 'cat'",
        ),
        (change(truth="mouse"), "found the label 'mouse', expected one of 'cat'"),
        (change(label="'=dog"), "is not said to be '=dog'; label as it was drawn"),
        (change(path="/home/kim/x.png"), "/home/kim/x.png is not said to be 'cat'"),
        (change(score="0.31"), "'cat' had 0.31 and has 0.8 now"),
        (change(score="nan"), "'cat' had nan and has 0.8 now"),
        (change(region="0.5"), "or the row of"),
        (change(number="three"), "invalid literal"),
        (lambda rows: rows.pop(1), "round 1: rows 2 are missing"),
        (lambda rows: rows.append(rows[0]), "round 1: a row is there twice"),
        (lambda rows: [row.update(round="2") for row in rows], "a round is missing"),
        (lambda rows: [row.pop("region") for row in rows], "found no column 'region'"),
    ],
)
def test_a_sheet_that_cannot_be_used_says_why(spoil, message, tmp_path):
    some = results([[0.8, 0.1, 0.1]] * 4)
    some.review(tmp_path / "sheet.csv", 4)
    rows = rows_of(tmp_path / "sheet.csv")
    spoil(rows)
    rewrite(tmp_path / "sheet.csv", rows)

    with pytest.raises(LabelError, match=re.escape(message)):
        some.reviewed(tmp_path / "sheet.csv")


def test_nothing_is_certified_or_drawn_before_all_is_answered(tmp_path):
    some, _ = many()
    sheet = tmp_path / "sheet.csv"
    some.review(sheet, 40, target_precision=0.9)
    before = sheet.read_bytes()

    with pytest.raises(LabelError, match="40 of 40 rows have no answer yet"):
        some.review(sheet, 40, target_precision=0.9)
    assert sheet.read_bytes() == before
    with pytest.raises(LabelError, match="40 of 40 rows have no answer yet; answer all, with"):
        some.reviewed(sheet).keep(0.9)
    assert np.isnan(some.reviewed(sheet).accuracy().value)


def test_too_few_answers_say_how_many_are_missing_instead_of_leaving_every_picture_out(tmp_path):
    some = results(np.tile([0.8, 0.1, 0.1], (5000, 1)))
    sheet = tmp_path / "sheet.csv"
    some.review(sheet, 30)
    answer(sheet, np.ones(5000, bool))

    # 251 wrong of 5,000 break 0.95; the second round has half of the risk
    more = next(m for m in range(5000) if hypergeom.pmf(0, 4970, 251, m) <= 0.025)
    assert more == 71
    with pytest.raises(
        LabelError, match=r"0 wrong of the 30 .* do not certify a precision of 0.95; at least 71 more"
    ):
        some.reviewed(sheet).keep(0.95)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda some, folder: some.review(folder / "sheet.txt"), "expected a sheet that ends in .csv"),
        (lambda some, folder: some.review(folder / "sheet.csv", 0), "found 0 labels to check"),
        (lambda some, folder: some.reviewed(folder / "none.csv"), "cannot read .*none.csv"),
        (
            lambda some, folder: results([[0.9, 0, 0]], unknown=0.9).review(folder / "s.csv"),
            "nothing to check",
        ),
    ],
)
def test_what_cannot_be_reviewed_is_named(call, message, tmp_path):
    with pytest.raises(LabelError, match=message):
        call(results([[0.8, 0.1, 0.1]] * 4), tmp_path)


# ---------------------------------------------------------------- temperature


def test_tempered_scores_are_the_softmax_of_the_divided_logits():
    logits = np.random.default_rng(0).normal(0, 3, (50, 6))
    best = -np.sort(-softmax(logits, axis=1), axis=1).astype(np.float32)
    for temperature in (0.3, 1.0, 4.0):
        expected = -np.sort(-softmax(logits / temperature, axis=1), axis=1)
        found = tempered(best, temperature, 6, alone=False)
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_what_the_best_leave_over_is_spread_evenly():
    kept = np.array([[0.5, 0.2]], np.float32)  # of 5 labels: 0.1 each of the others
    expected = softmax(np.log([[0.5, 0.2, 0.1, 0.1, 0.1]]) / 2.0, axis=1)[:, :2]
    np.testing.assert_allclose(tempered(kept, 2.0, 5, alone=False), expected, atol=1e-6)


def test_a_score_that_is_not_there_stays_so():
    scores = np.array([[0.6, 0.4, np.nan], [np.nan, np.nan, np.nan]], np.float32)
    found = tempered(scores, 2.0, 3, alone=False)
    expected = softmax(np.log([0.6, 0.4]) / 2)
    np.testing.assert_allclose(found[0, :2], expected, atol=1e-6)
    assert np.isnan(found[0, 2]) and np.isnan(found[1]).all()
    assert 0.5 < fit_verdicts(scores[:1], np.zeros(1, int), np.ones(1, bool), 3, alone=False) < 1.5


def test_scores_that_stand_alone_are_tempered_alone():
    logits = np.array([[3.0, -1.0, 0.0]])
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    np.testing.assert_allclose(tempered(scores, 2.0, 3, alone=True), 1 / (1 + np.exp(-logits / 2)), atol=1e-6)


def test_a_planted_temperature_is_found_by_right_and_wrong_alone():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (6000, 4))
    true = np.array([rng.choice(4, p=row) for row in softmax(logits, axis=1)])
    for planted in (0.5, 2.5):
        scores = np.exp(-np.sort(-log_softmax(logits * planted, axis=1), axis=1)).astype(np.float32)
        right = logits.argmax(axis=1) == true
        found = fit_verdicts(scores, np.zeros(6000, int), right, 4, alone=False)
        assert found == pytest.approx(planted, rel=0.08)


def test_without_answers_the_temperature_is_one():
    nothing = np.empty((0, 3), np.float32), np.empty(0, int), np.empty(0, bool)
    assert fit_verdicts(*nothing, 3, alone=False) == pytest.approx(1, rel=0.01)


def test_calibrated_scores_are_as_sure_as_they_are_right(tmp_path):
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (2000, 3))
    some = results(softmax(3 * logits, axis=1))  # three times too sure
    right = rng.random(2000) < softmax(logits, axis=1).max(axis=1)
    some.review(tmp_path / "sheet.csv", 1000)
    answer(tmp_path / "sheet.csv", right)

    calibrated = some.reviewed(tmp_path / "sheet.csv").calibrated()

    assert some.scored.scores[:, 0].mean() - right.mean() > 0.1
    assert calibrated.scored.scores[:, 0].mean() == pytest.approx(right.mean(), abs=0.02)
    assert (calibrated.scored.top == some.scored.top).all()


def test_contrasts_have_no_temperature(tmp_path):
    some = results([[0.99, 0.96, 0.1]] * 3, multi=True, kind="contrast")
    some.review(tmp_path / "sheet.csv", 6)
    review = some.reviewed(tmp_path / "sheet.csv")
    assert review.temperature is None
    with pytest.raises(LabelError, match="no temperature"):
        review.calibrated()


# ---------------------------------------------------------------- page


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def test_the_page_holds_the_rows_of_the_sheet_and_one_card_for_each_new_one(tmp_path):
    some, right = many(50)
    sheet = tmp_path / "sheet.csv"
    some.review(sheet, 4)
    answer(sheet, right)
    page = some.review(sheet, 3).read_text("utf-8")

    with sheet.open(encoding="utf-8", newline="") as file:
        written = list(csv.reader(file))
    data = data_of(page)
    assert [data["columns"], *data["before"], *data["rows"]] == written
    assert (len(data["before"]), page.count('<li class="card">')) == (4, 3)
    assert [data["columns"][place] for place in data["places"]] == ["label", "right", "truth", "others"]
    assert data["labels"] == [["cat", "cat"], ["=dog", "'=dog"], ["고양이, a|b", "고양이, a|b"]]


def test_nothing_runs_on_the_page_but_its_own_script_and_no_name_ends_it(tmp_path):
    names = ("</script><script>alert(1)</script>", "b", "c")
    page = results([[0.8, 0.1, 0.1]], names=names).review(tmp_path / "s.csv", 1).read_text("utf-8")

    code = re.search(r"<script>(.*?)</script>", page, re.S)[1]
    digest = b64encode(sha256(code.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and "default-src 'none'" in page
    assert "alert(1)</script>" not in page
    assert data_of(page)["labels"][0] == [names[0], names[0]]
