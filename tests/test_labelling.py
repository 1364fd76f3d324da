"""Labels of a whole collection, and of a source without one."""

import io

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch.errors import LabelError
from clipsearch.labels import Verdict
from clipsearch.testing import ColourEncoder

COLOURS = {"red": (250, 20, 10), "green": (10, 250, 30), "blue": (0, 30, 250)}
LABELS = list(COLOURS)


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


class Scaled(ColourEncoder):
    logit_scale = 10.0


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(2):
            dark = [channel // (number + 1) for channel in colour]
            (folder / name / f"{number}.png").write_bytes(png(tuple(dark)))
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def photos(tmp_path, folder):
    with cs.Collection(tmp_path / "c", model=Scaled()) as photos:
        photos.add(folder)
        yield photos


def told(results):
    return {row.picture.key: row.label for row in results}


def test_every_picture_gets_its_colour_and_a_broken_one_its_reason(photos):
    results = photos.classify(LABELS, templates="plain", unknown=False)

    assert told(results) == {f"{name}/{n}.png": name for name in COLOURS for n in (0, 1)} | {
        "broken.png": None
    }
    broken = next(row for row in results if row.picture.key == "broken.png")
    assert broken.verdict == Verdict.FAILED
    assert broken.guesses == ()
    assert broken.picture.reason == photos.failures()[0].reason


def test_scores_are_the_softmax_of_scaled_cosines(photos):
    results = photos.classify(LABELS, templates="plain", unknown=False)
    ids, vectors = photos.embeddings()
    texts = ColourEncoder().encode_texts(LABELS)
    for row in results:
        if row.verdict == Verdict.FAILED:
            continue
        cosines = vectors[ids.index(row.picture.id)] @ texts.T
        weights = np.exp(10 * cosines)
        for guess in row.guesses:
            place = LABELS.index(guess.label)
            assert guess.cosine == pytest.approx(cosines[place], abs=1e-5)
            assert guess.score == pytest.approx(weights[place] / weights.sum(), abs=1e-4)
        assert [g.score for g in row.guesses] == sorted((g.score for g in row.guesses), reverse=True)


def test_a_file_of_two_sources_comes_once_and_equal_files_come_each(photos, folder):
    (folder / "red" / "again.png").write_bytes((folder / "red" / "0.png").read_bytes())
    photos.add(folder)
    photos.add(folder / "red")

    keys = sorted(told(photos.classify(LABELS, templates="plain", unknown=False)))

    assert keys == sorted(
        [f"{name}/{n}.png" for name in COLOURS for n in (0, 1)] + ["red/again.png", "broken.png"]
    )


def test_pictures_that_went_or_were_removed_get_no_row(photos, folder):
    (folder / "red" / "0.png").unlink()
    photos.add(folder)
    photos.remove(str(folder / "blue"))

    keys = told(photos.classify(LABELS, templates="plain", unknown=False))

    assert set(keys) == {"red/1.png", "green/0.png", "green/1.png", "broken.png"}


def test_an_empty_collection_has_no_rows(tmp_path):
    with cs.Collection(tmp_path / "empty", model=Scaled()) as photos:
        results = photos.classify(LABELS, unknown=False)
    assert len(results) == 0
    assert results.counts() == {"red": 0, "green": 0, "blue": 0}


def test_a_threshold_abstains_and_can_be_moved(photos):
    results = photos.classify(LABELS, templates="plain", unknown=False)
    least = np.nanmedian(results.scored.scores[:, 0])
    kept = results.at(float(least))

    verdicts = [row.verdict for row in kept]
    assert verdicts.count(Verdict.FAILED) == 1
    assert verdicts.count(Verdict.ABSTAINED) == (results.scored.scores[:, 0] < least).sum() > 0
    assert all(row.guesses[0].score >= least for row in kept if row.verdict == Verdict.LABELLED)
    assert told(kept.at(None)) == told(results)


def test_of_several_labels_all_that_reach_the_threshold_are_said(tmp_path):
    class Sigmoid(Scaled):
        logit_bias = -8.0

    with cs.Collection(tmp_path / "c", model=Sigmoid()) as photos:
        photos.add(
            [("yellow", Image.new("RGB", (4, 4), (255, 255, 0))), ("red", Image.new("RGB", (4, 4), "red"))]
        )
        results = photos.classify(LABELS, templates="plain", multi=True, unknown=False)
    # cosine of yellow to red and to green is 1/sqrt(2): sigmoid(7.07 - 8) < 0.5; red to red is 1
    assert [row.labels for row in results] == [(), ("red",)]
    assert [str(row.verdict) for row in results] == ["unknown", "labelled"]
    assert [row.labels for row in results.at(0.25)] == [("red", "green"), ("red",)]
    assert str(results.at(0.9)[0].verdict) == "abstained"


def test_a_source_is_labelled_without_a_collection(folder, tmp_path):
    results = cs.label(folder, LABELS, model=Scaled(), templates="plain", unknown=False)

    assert told(results)["blue/1.png"] == "blue"
    assert next(row for row in results if row.label == "green").picture.read() == png(COLOURS["green"])
    assert not list(tmp_path.glob("*.clipsearch"))


def test_vectors_that_are_kept_are_not_made_again(folder, tmp_path):
    class Once(Scaled):
        seen = 0

        def encode_images(self, images):
            self.seen += len(images)
            return super().encode_images(images)

    encoder = Once()
    for labels in (LABELS, [*LABELS, "cyan"]):
        results = cs.label(
            folder, labels, model=encoder, keep=tmp_path / "kept", templates="plain", unknown=False
        )
    assert encoder.seen == 6
    assert told(results)["red/0.png"] == "red"


def test_examples_teach_what_the_words_do_not_say(tmp_path):
    random = np.random.default_rng(0)
    shades = {"warm": (230, 60, 30), "cold": (30, 60, 230)}
    drawn = {
        f"{name}{n}": Image.new(
            "RGB", (4, 4), tuple(int(c) for c in np.clip(base + random.normal(0, 25, 3), 0, 255))
        )
        for name, base in shades.items()
        for n in range(20)
    }
    with cs.Collection(tmp_path / "c", model=Scaled()) as photos:
        photos.add(drawn.items())
        of = {row.picture.key: row.picture.id for row in photos.classify(list(shades), unknown=False)}
        plain = photos.classify(list(shades), unknown=False)
        examples = {name: [of[f"{name}{n}"] for n in range(5)] + [drawn[f"{name}{5}"]] for name in shades}
        taught = photos.classify(list(shades), unknown=False, examples=examples)

    right = lambda results: np.mean([row.label == row.picture.key[:4] for row in results])  # noqa: E731
    assert right(plain) == 0.5  # to this encoder both words are the same grey
    assert right(taught) == 1.0
    assert taught.refined.helped
    assert "12 examples make held-out ones likelier" in str(taught)


def test_where_unknown_is_not_asked_no_picture_is(photos):
    results = photos.classify(LABELS, scores="contrast", unknown=False)
    assert results.kind == "contrast"
    assert {str(row.verdict) for row in results} == {"labelled", "failed"}
    assert {row.unknown for row in results} == {None}


def test_labels_kept_for_each_picture_are_at_least_one(photos):
    assert photos.classify(LABELS, unknown=False, k=2).scored.top.shape == (7, 2)
    with pytest.raises(LabelError, match="at least 1"):
        photos.classify(LABELS, unknown=False, k=-1)


def test_bad_labels_are_told_before_anything_is_read(folder, tmp_path):
    with pytest.raises(LabelError):
        cs.label(folder, ["red", "Red"], model=Scaled(), keep=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
