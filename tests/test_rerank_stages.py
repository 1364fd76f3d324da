"""A second look: who is judged, in what order hits come out, what is kept, and what goes wrong."""

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch.errors import CollectionError, ImageError, ModelError, QueryError, ServerError
from clipsearch.files import write_lock
from clipsearch.rerank.by_caption import CaptionReranker
from clipsearch.rerank.yes_no import YesNoReranker
from clipsearch.testing import COLOURS, ColourEncoder, ColourVLM

NAMES = [f"{number}{colour}.png" for number, colour in enumerate(COLOURS)]


@pytest.fixture
def folder(tmp_path):
    """Seven pictures of one colour each, number n being 8 + n pixels high."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (name, colour) in enumerate(zip(NAMES, COLOURS, strict=True)):
        Image.new("RGB", (8, 8 + number), COLOURS[colour]).save(folder / name)
    return folder


@pytest.fixture
def photos(tmp_path, folder):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        photos.add(folder, progress=False)
        yield photos


class Scorer:
    """Scores by the number of the picture; keeps what it was asked."""

    def __init__(self, scores=lambda number: float(number), **options):
        self.scores, self.asked = scores, []
        self.__dict__.update(options)

    def score(self, query, candidates):
        numbers = [candidate.image().height - 8 for candidate in candidates]
        self.asked.append(numbers)
        return [self.scores(number) for number in numbers]


def numbers(results):
    return [int(hit.key[0]) for hit in results]


def z(values):
    return (np.array(values) - np.mean(values)) / np.std(values)


FIRST = [0, 3, 5, 6, 4, 1, 2]  # by cosine to red: red, yellow = magenta, white, cyan, green = blue


def test_the_first_stage_is_as_these_tests_think(photos):
    assert numbers(photos.search("red", k=7)) == FIRST


# ---------------------------------------------------------------- order


def test_scores_are_the_weighted_z_scores_of_both_stages(photos):
    before = photos.search("red", k=7)
    results = photos.search("red", k=7, stages=[Scorer(weight=0.4, depth=7)])
    by_hand = 0.6 * z([hit.cosine for hit in before]) + 0.4 * z(FIRST)
    order = np.argsort(-by_hand, kind="stable")
    assert numbers(results) == [FIRST[place] for place in order]
    np.testing.assert_allclose([hit.score for hit in results], by_hand[order])
    assert results.score_kind == "fused"
    for rank, (hit, place) in enumerate(zip(results, order, strict=True), 1):
        [judgement] = hit.judgements
        assert (judgement.by, judgement.score) == ("Scorer", float(FIRST[place]))
        assert (judgement.before, judgement.after, judgement.reason) == (place + 1, rank, "")
        assert hit.cosine == before[int(place)].cosine


def test_at_the_usual_weight_a_sure_scorer_does_not_overrule_a_clear_first_stage(photos):
    results = photos.search("red", k=7, stages=[Scorer(lambda number: -number)])
    assert numbers(results)[0] == 0
    alone = photos.search("red", k=7, stages=[Scorer(weight=1.0)])
    assert numbers(alone) == [6, 5, 4, 3, 2, 1, 0]
    none = photos.search("red", k=7, stages=[Scorer(weight=0.0)])
    assert numbers(none) == FIRST


def test_only_the_best_are_judged_and_no_hit_comes_or_goes(photos):
    scorer = Scorer(depth=3, weight=1.0)
    results = photos.search("red", k=7, stages=[scorer])
    assert sorted(scorer.asked[0]) == [0, 3, 5]
    assert numbers(results) == [5, 3, 0, 6, 4, 1, 2]
    assert [len(hit.judgements) for hit in results] == [1, 1, 1, 0, 0, 0, 0]
    scores = [hit.score for hit in results]
    assert scores[2:] == [scores[2]] * 5, "those not judged have the lowest score of those that were"
    assert str(results.stages[0]).startswith("3 of 3 judged by Scorer in ")


def test_the_pool_may_be_deeper_than_what_is_wanted(photos):
    assert numbers(photos.search("red", k=1, stages=[Scorer(depth=7, weight=1.0)])) == [6]


def test_equal_scores_keep_their_order(photos):
    results = photos.search("red", k=7, stages=[Scorer(lambda number: 1.0, weight=1.0)])
    assert numbers(results) == FIRST
    assert {hit.score for hit in results} == {0.0}


def test_stages_follow_each_other(photos):
    stages = [Scorer(depth=7, weight=1.0, name="up"), Scorer(lambda n: -n, depth=2, weight=1.0, name="down")]
    results = photos.search("red", k=7, stages=stages)
    assert numbers(results) == [5, 6, 4, 3, 2, 1, 0]
    assert [judgement.by for judgement in results[0].judgements] == ["up", "down"]
    assert [stage.judged for stage in results.stages] == [7, 2]


def test_ranks_may_be_fused_instead(photos):
    results = photos.search("red", k=7, stages=[Scorer(weight=0.5, how="rrf", depth=7)])
    tied = {0: 1, 3: 2.5, 5: 2.5, 6: 4, 4: 5, 1: 6.5, 2: 6.5}  # ranks of the first stage
    by_hand = {n: 0.5 / (10 + tied[n]) + 0.5 / (10 + 7 - n) for n in tied}
    np.testing.assert_allclose([hit.score for hit in results], sorted(by_hand.values(), reverse=True))


def test_a_perfect_scorer_reaches_the_ceiling_and_the_evaluation_says_so(photos):
    queries, relevant = ["red", "red", "red"], [{5}, {7}, {2}]  # ids are numbers + 1
    truth = {"red": 4}
    stage = Scorer(lambda number: float(number == truth["red"]), depth=5, weight=1.0)
    told = photos.evaluate_rerank(queries, relevant, [stage], k=1)
    # Green (id 2) is outside of the pool of five.
    assert (told.before["R@1"], told.after["R@1"], told.ceiling) == (
        0.0,
        *[pytest.approx(n / 3) for n in (1, 2)],
    )
    truth["red"] = 1
    assert photos.evaluate_rerank(queries, relevant, [stage], k=1).after["R@1"] == 0.0


def test_before_is_the_order_of_the_first_stage_equal_scores_too(photos):
    told = photos.evaluate_rerank(["red"], [[6]], [Scorer(depth=7)])  # magenta, as like red as yellow is
    assert told.before["MRR"] == pytest.approx(1 / 3)


def test_right_answers_may_be_named_by_id_path_or_hit(photos, folder, monkeypatch):
    monkeypatch.chdir(folder)
    hit = photos.search("green")[0]
    relevant = [[1, str(folder / NAMES[3])], [hit], [NAMES[2]]]
    told = photos.evaluate_rerank(["red", "green", "blue"], relevant, [Scorer()])
    assert told.before["R@1"] == 1.0
    for wrong, message in [
        ([[99]], "has the id 99"),
        ([["nowhere.png"]], "no picture of .* is at 'nowhere.png'"),
        ([1], "found 1; expected for each query a list"),
        (["0red.png"], "found '0red.png'; expected for each query a list"),
        ([[]], "what query 0 should find"),
    ]:
        with pytest.raises(QueryError, match=message):
            photos.evaluate_rerank(["red"], wrong, [Scorer()])


def test_a_weight_is_fitted_on_what_was_judged(photos):
    truth = Scorer(lambda number: float(number == 6), depth=7)
    fit = photos.fit_weight(["red", "yellow", "magenta"], [{7}] * 3, truth)
    assert (fit.before, fit.after, fit.queries) == (pytest.approx(np.mean([1 / 4, 1 / 2, 1 / 2])), 1.0, 3)
    assert fit.weight == 0.3 and fit.default == 1.0


# ---------------------------------------------------------------- budget


def test_when_the_budget_is_spent_the_rest_keep_their_place(photos):
    class Slow(Scorer):
        def score(self, query, candidates):
            time.sleep(0.05)
            return super().score(query, candidates)

    scorer = Slow(depth=7, weight=1.0, batch_size=2, budget=0.12)
    results = photos.search("red", k=7, stages=[scorer])
    judged = results.stages[0].judged
    assert 2 <= judged <= 4, "another batch would take longer than is left"
    assert numbers(results) == sorted(FIRST[:judged], reverse=True) + FIRST[judged:]
    assert len(scorer.asked) == judged / 2
    tiny = photos.search("red", k=7, stages=[Slow(depth=7, batch_size=2, budget=1e-9)])
    assert tiny.stages[0].judged == 2, "the first batch always is judged"


# ---------------------------------------------------------------- what goes wrong


def test_a_picture_that_cannot_be_read_keeps_its_cosine_and_tells_why(photos, folder):
    (folder / NAMES[3]).write_bytes(b"broken")
    (folder / NAMES[0]).unlink()
    before = {hit.id: hit.cosine for hit in photos.search("red", k=7)}
    results = photos.search("red", k=7, stages=[Scorer(depth=7, weight=0.5)])
    told = {int(hit.key[0]): hit.judgements[0] for hit in results}
    assert {n: j.reason for n, j in told.items() if j.score is None} == {
        0: "the picture is no longer where it was; if its folder moved, relocate the source",
        3: "it has changed since it was added; add its source again",
    }
    assert {hit.id: hit.cosine for hit in results} == before
    cosines = [before[n + 1] for n in FIRST]
    scores = {int(hit.key[0]): hit.score for hit in results}
    assert scores[0] == pytest.approx(0.5 * z(cosines)[0]), "it counts as judged average"
    assert scores[6] == pytest.approx(0.5 * z(cosines)[3] + 0.5 * z([5, 6, 4, 1, 2])[1])


def test_a_picture_that_the_scorer_refuses_breaks_only_itself(photos):
    class Picky(Scorer):
        def score(self, query, candidates):
            if any(candidate.id == 6 for candidate in candidates):
                raise ImageError("too narrow")
            return super().score(query, candidates)

    results = photos.search("red", k=7, stages=[Picky(depth=7)])
    assert {hit.id: hit.judgements[0].reason for hit in results if hit.judgements[0].score is None} == {
        6: "too narrow"
    }


@pytest.mark.parametrize("nothing", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_none_is_told(photos, nothing):
    results = photos.search("red", k=7, stages=[Scorer(lambda n: nothing if n == 2 else n)])
    judgement = next(hit for hit in results if hit.id == 3).judgements[0]
    assert (judgement.score, judgement.reason) == (None, "no finite score")


def test_how_many_have_no_score_is_told(photos):
    results = photos.search("red", k=7, stages=[Scorer(lambda n: math.nan if n > 4 else n, depth=7)])
    assert results.stages[0].failed == 2
    assert str(results.stages[0]).endswith(", 2 without a score")


def test_a_stage_that_can_judge_none_is_an_error_and_not_an_answer(photos, folder):
    with pytest.raises(ModelError, match="Scorer could judge none of 7 pictures: no finite score"):
        photos.search("red", k=7, stages=[Scorer(lambda n: math.nan)])
    with pytest.raises(ModelError, match="it has no caption; write captions first"):
        photos.search("red", stages=[CaptionReranker(ColourEncoder())])
    alone = photos.search("red", where="id = 1", stages=[Scorer(lambda n: math.nan)])
    assert alone[0].judgements[0].reason == "no finite score"


def test_reading_a_model_is_not_of_the_budget(photos):
    class Late(Scorer):
        def load(self):
            time.sleep(0.3)
            self.loaded = True

    scorer = Late(depth=7, batch_size=2, budget=0.25)
    assert photos.search("red", stages=[scorer]).stages[0].judged == 7


def test_a_server_that_is_down_is_an_error_and_not_an_answer(photos):
    def down(number):
        raise ServerError("down")

    with pytest.raises(ServerError):
        photos.search("red", stages=[Scorer(down)])


@pytest.mark.parametrize(
    ("scores", "told"), [([1.0], r"scores of shape \(1,\) for 7"), (["a"] * 7, "no numbers"), (None, "shape")]
)
def test_scores_that_do_not_fit_are_an_error(photos, scores, told):
    class Wrong:
        def score(self, query, candidates):
            return scores

    with pytest.raises(ModelError, match=f"Wrong gave .*{told}"):
        photos.search("red", stages=[Wrong()])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"depth": 0}, "depth"),
        ({"depth": 2.5}, "depth"),
        ({"weight": 1.5}, "weight"),
        ({"weight": "much"}, "weight"),
        ({"budget": 0}, "budget"),
        ({"budget": "5s"}, "budget"),
        ({"batch_size": None}, "batch_size"),
        ({"needs": "luck"}, "needs"),
        ({"how": "sum"}, "how"),
    ],
)
def test_a_stage_that_says_what_cannot_be_is_refused_before_anything_is_asked(photos, options, told):
    scorer = Scorer(**options)
    with pytest.raises(QueryError, match=f"expected {told}"):
        photos.search("red", stages=[scorer])
    assert scorer.asked == []


@pytest.mark.parametrize("k", [0, -1, 2.5, "3"])
def test_k_is_checked_with_stages_too(photos, k):
    with pytest.raises(QueryError, match="k is how many"):
        photos.search("red", k=k, stages=[Scorer()])


def test_stages_are_for_texts_and_are_rerankers(photos):
    with pytest.raises(QueryError, match="give a text alone"):
        photos.search(item=1, stages=[Scorer()])
    for wrong, told in [
        (["yes-no"], "has `score`"),
        ([Scorer], "has `score`"),
        ([ColourVLM()], "wrap it in a YesNoReranker"),
        (Scorer(), "a list of rerankers"),
    ]:
        with pytest.raises(QueryError, match=told):
            photos.search("red", stages=wrong)


def test_an_empty_collection_and_an_empty_answer_are_no_trouble(photos, tmp_path):
    with cs.Collection(tmp_path / "empty", model=ColourEncoder()) as empty:
        hybrid = CaptionReranker(ColourEncoder(), retrieve=True)
        assert len(empty.search("red", stages=[Scorer(), hybrid])) == 0
    assert len(photos.search("red", where="width > 999", stages=[Scorer()])) == 0


# ---------------------------------------------------------------- kept judgements


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSEARCH_QUERY_CACHE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_judgement_is_asked_for_once(photos, folder, cache):
    def scorer(**spec):
        return Scorer(depth=7, weight=1.0, spec=lambda: spec)

    first, again, other = scorer(v=1), scorer(v=1), scorer(v=2)
    expected = photos.search("red", k=7, stages=[first])
    assert expected.stages[0].kept == 0
    found = photos.search("red", k=7, stages=[again])
    assert again.asked == []
    assert found.to_dicts() == expected.to_dicts()
    assert (found.stages[0].judged, found.stages[0].kept) == (7, 7)
    photos.search("blue", k=7, stages=[again])
    photos.search("red", k=7, stages=[other])
    assert [sorted(asked) for asked in (again.asked[0], other.asked[0])] == [list(range(7))] * 2
    Image.new("RGB", (8, 15), "red").save(folder / NAMES[2])
    photos.add(folder, progress=False)
    renewed = scorer(v=1)
    photos.search("red", k=7, stages=[renewed])
    assert renewed.asked == [[7]], "another content"


def test_what_could_not_be_judged_is_asked_again(photos, cache):
    scorer = Scorer(lambda number: math.nan if number == 4 else number, depth=7, spec=dict)
    photos.search("red", stages=[scorer])
    photos.search("red", stages=[scorer])
    assert scorer.asked[1:] == [[4]]


def test_scorers_of_two_classes_share_no_judgement(photos, cache):
    class Negated(Scorer):
        pass

    first = Scorer(depth=7, spec=lambda: {"version": 1})
    photos.search("red", stages=[first])
    second = Negated(lambda n: -n, depth=7, spec=lambda: {"version": 1})
    found = photos.search("red", k=7, stages=[second])
    assert {int(hit.key[0]): hit.judgements[0].score for hit in found} == {n: -float(n) for n in range(7)}


def test_a_judgement_of_a_caption_is_of_that_caption(photos, cache):
    class Length(Scorer):
        needs = "caption"

        def score(self, query, candidates):
            return [len(candidate.caption) for candidate in candidates]

    def scores():
        stage = Length(depth=7, spec=dict)
        return {hit.judgements[0].score for hit in photos.search("red", k=7, stages=[stage])}

    class Says(ColourVLM):
        def __init__(self, text):
            self.model_id = self.text = text

        def generate(self, images, prompt=None, *, max_tokens=64):
            return [self.text for _ in images]

    for text in ("five!", "two"):
        photos.caption(Says(text), progress=False)
        assert scores() == {len(text)}


def test_a_scorer_without_a_spec_is_always_asked(photos, cache):
    scorer = Scorer(depth=7)
    photos.search("red", stages=[scorer])
    photos.search("red", stages=[scorer])
    assert len(scorer.asked) == 2


# ---------------------------------------------------------------- yes or no


def test_yes_no_asks_the_question_and_orders_by_its_log_odds(photos):
    reranker = YesNoReranker(ColourVLM(), depth=7, weight=1.0)
    results = photos.search("magenta", k=7, stages=[reranker])
    expected = {
        n: 1 - math.dist(colour, COLOURS["magenta"]) / 100 for n, colour in enumerate(COLOURS.values())
    }
    assert {int(hit.key[0]): hit.judgements[0].score for hit in results} == pytest.approx(expected)
    assert numbers(results)[0] == 5


def test_the_question_is_ones_own_and_the_query_may_hold_anything(photos):
    asked = []

    class Listens(ColourVLM):
        def log_odds(self, images, prompt, *, yes, no):
            asked.append((prompt, list(yes), list(no)))
            return super().log_odds(images, prompt, yes=yes, no=no)

    own = {"prompt": "{query}? 예/아니요", "yes": ["예"], "no": ["아니요"]}
    photos.search("a {query} %s {0} red", stages=[YesNoReranker(Listens(), **own)])
    assert asked == [("a {query} %s {0} red? 예/아니요", ["예"], ["아니요"])]
    options = [own, {}, {"prompt": "x"}, {"yes": ["ja"]}, {"no": ["nein"]}]
    specs = [YesNoReranker(Listens(), **each).spec() for each in options]

    class Newer(Listens):
        def spec(self):
            return {"version": 2}

    specs.append(YesNoReranker(Newer()).spec())
    assert len({json.dumps(spec, sort_keys=True) for spec in specs}) == 6
    with pytest.raises(QueryError, match="lists of spellings, got 'yes'"):
        YesNoReranker(Listens(), yes="yes")


def test_a_model_that_does_not_answer_the_question_is_told_of_once(photos, caplog):
    class Mumbles(ColourVLM):
        def log_odds(self, images, prompt, *, yes, no):
            odds, mass = super().log_odds(images, prompt, yes=yes, no=no)
            return odds, mass * 0.02

    reranker = YesNoReranker(Mumbles(), batch_size=2)
    photos.search("red", stages=[reranker])
    assert [record.message for record in caplog.records if "0.02" in record.message] != []
    assert len([record for record in caplog.records if "hardly answers" in record.message]) == 1


@pytest.mark.parametrize("wrong", [[1.0] * 7, None, (["x"] * 7, [1] * 7), ([1.0],)])
def test_a_model_whose_answers_are_no_log_odds_is_an_error(photos, wrong):
    class Wrong(ColourVLM):
        def log_odds(self, images, prompt, *, yes, no):
            return wrong

    with pytest.raises(ModelError, match=r"colour-vlm.* expected two arrays"):
        photos.search("red", stages=[YesNoReranker(Wrong())])


# ---------------------------------------------------------------- captions


@pytest.fixture
def said(photos):
    photos.caption(ColourVLM(), progress=False)
    return photos


def test_captions_are_compared_with_the_query(said):
    results = said.search("yellow", k=7, stages=[CaptionReranker(ColourEncoder(), weight=1.0)])
    vectors = ColourEncoder().encode_texts(["yellow", *(f"a {colour} picture" for colour in COLOURS)])
    expected = vectors[1:] @ vectors[0]
    found = {int(hit.key[0]): hit.judgements[0].score for hit in results}
    np.testing.assert_allclose([found[number] for number in range(7)], expected, rtol=1e-6)
    assert numbers(results)[0] == 3


def test_a_picture_without_a_caption_says_so(photos):
    photos.caption(ColourVLM(), where="id != 4", progress=False)
    results = photos.search("yellow", k=7, stages=[CaptionReranker(ColourEncoder())])
    assert {hit.id: hit.judgements[0].reason for hit in results if hit.judgements[0].reason} == {
        4: "it has no caption"
    }


class Misled(ColourEncoder):
    """A first stage that takes every text for red."""

    model_id = "misled"

    def encode_texts(self, texts, *, role="query"):
        return super().encode_texts(["red" for _ in texts])


@pytest.fixture
def misled(tmp_path, folder):
    with cs.Collection(tmp_path / "misled", model=Misled()) as photos:
        photos.add(folder, progress=False)
        photos.caption(ColourVLM(), progress=False)
        yield photos


def test_captions_bring_in_what_the_first_stage_missed(misled):
    without = misled.search("cyan", k=2, stages=[CaptionReranker(ColourEncoder(), depth=3, weight=1.0)])
    assert 4 not in numbers(without)
    hybrid = CaptionReranker(ColourEncoder(), depth=3, weight=1.0, retrieve=True)
    results = misled.search("cyan", k=2, stages=[hybrid])
    assert numbers(results)[0] == 4
    plain = {hit.id: hit.cosine for hit in misled.search("cyan", k=7)}
    assert results[0].cosine == pytest.approx(plain[5]), "its own cosine, found or not"
    only = misled.search("cyan", k=2, where="width = 8 and height != 12", stages=[hybrid])
    assert 4 not in numbers(only), "the condition holds for captions too"


def test_a_hidden_picture_is_not_found_by_its_caption(misled):
    hybrid = CaptionReranker(ColourEncoder(), depth=1, weight=1.0, retrieve=True)
    assert numbers(misled.search("cyan", k=1, stages=[hybrid])) == [4]
    misled.remove(5)
    assert 4 not in numbers(misled.search("cyan", k=7, stages=[hybrid]))


def test_threads_may_retrieve_by_captions_at_once_while_another_process_writes(misled):
    hybrid = CaptionReranker(ColourEncoder(), depth=1, weight=1.0, retrieve=True)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda _: numbers(misled.search("cyan", k=1, stages=[hybrid])), range(40))
        assert list(found) == [[4]] * 40
    with write_lock(misled.path / "write.lock"):
        assert numbers(misled.search("cyan", k=1, stages=[hybrid])) == [4]


def test_a_read_only_collection_takes_the_vectors_that_are_there(misled):
    hybrid = CaptionReranker(ColourEncoder(), depth=1, weight=1.0, retrieve=True)
    with cs.Collection(misled.path, model=Misled(), read_only=True) as reader:
        with pytest.raises(CollectionError, match="have no vectors of colour yet"):
            reader.search("cyan", stages=[hybrid])
        misled.encode_captions(ColourEncoder(), progress=False)
        assert numbers(reader.search("cyan", k=1, stages=[hybrid])) == [4]


def test_without_captions_there_is_nothing_to_retrieve_by(photos):
    with pytest.raises(CollectionError, match="no captions yet"):
        photos.search("red", stages=[CaptionReranker(ColourEncoder(), retrieve=True)])


# ---------------------------------------------------------------- looking at it


def test_what_a_stage_did_is_shown(photos, tmp_path):
    results = photos.search("red", k=3, stages=[Scorer(depth=7, weight=1.0, name="yes-no:me")])
    assert "7 of 7 judged by yes-no:me in 0." in repr(results)
    assert "(cosine 0.582; yes-no +6.00, was 4)" in repr(results)
    page = results.to_html(tmp_path / "page.html").read_text()
    assert "cosine 0.582; yes-no +6.00, was 4" in page
    assert "7 of 7 judged by yes-no:me" in page
    assert results.to_dicts()[0]["judgements"] == [
        {"by": "yes-no:me", "score": 6.0, "before": 4, "after": 1, "reason": ""}
    ]
