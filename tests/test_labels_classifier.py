"""Label vectors and scores, against open_clip's classifier, transformers' pipeline and sums by hand."""

import sys

import numpy as np
import pytest
from PIL import Image

from clipsearch.encoders import load_encoder
from clipsearch.errors import LabelError
from clipsearch.labels import Classifier, Label, TextModel, build_classifier, read_labels, read_templates
from clipsearch.labels.best import best_first
from clipsearch.labels.classifier import background, label_vectors
from clipsearch.testing import ColourEncoder
from clipsearch.types import as_embeddings

NAMES = ["cat", "apple", "fire engine", "고양이", "hour glass"]


def text_model(encoder, key=""):
    scale, bias = (getattr(encoder, name, None) for name in ("logit_scale", "logit_bias"))
    return TextModel(
        encoder.model_id, (encoder.model_id, encoder.dim, key), encoder.encode_texts, scale, bias
    )


def unit(rows, seed=0):
    return as_embeddings(np.random.default_rng(seed).standard_normal(rows))


@pytest.fixture(scope="module")
def builtin():
    return load_encoder("builtin", precision="fp32")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("simple-7", "SIMPLE_IMAGENET_TEMPLATES"), ("openai-80", "OPENAI_IMAGENET_TEMPLATES")],
)
def test_label_vectors_equal_those_of_open_clips_classifier(builtin, ours, theirs):
    import open_clip

    folder = "local-dir:" + str(builtin._recipe.weights.parent)
    model = open_clip.create_model(folder).eval()
    tokenizer = open_clip.get_tokenizer(folder)
    expected = open_clip.build_zero_shot_classifier(model, tokenizer, NAMES, getattr(open_clip, theirs))

    found = label_vectors(read_labels(NAMES), read_templates(ours), text_model(builtin))

    np.testing.assert_allclose(found, expected.numpy().T, atol=1e-6)


def pictures(count=5):
    random = np.random.default_rng(1)
    return [Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_probabilities_equal_those_of_transformers_zero_shot_pipeline(kind, request):
    from transformers import pipeline

    folder, model, processor = request.getfixturevalue(kind)
    names = ["dog", "cat", "cow"]
    pipe = pipeline(
        "zero-shot-image-classification",
        model=model,
        tokenizer=processor.tokenizer,
        image_processor=processor.image_processor,
    )
    answers = pipe(pictures(), candidate_labels=names, hypothesis_template="a {}")
    expected = [
        [{row["label"]: row["score"] for row in answer}[name] for name in names] for answer in answers
    ]
    encoder = load_encoder(folder, precision="fp32")
    multi = kind == "siglip"  # which the pipeline gives sigmoid scores

    classify = build_classifier(
        read_labels(names), read_templates("a {}"), text_model(encoder), multi=multi, unknown=False
    )
    scored = classify(encoder.encode_images(pictures()), 3)

    assert classify.kind == ("sigmoid" if multi else "softmax")
    found = np.empty((5, 3))
    np.put_along_axis(found, scored.top.astype(int), scored.scores, 1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])  # NumPy, and torch as on a GPU
def test_scores_by_hand(device):
    vectors = np.array([[1, 0], [0, 1]], np.float32)
    picture = np.array([[0.6, 0.8]], np.float32)
    none = vectors[:0]

    soft = Classifier(vectors, none, "softmax", scale=10.0, device=device)(picture, 2)
    assert soft.top.tolist() == [[1, 0]]
    np.testing.assert_allclose(soft.scores, [[1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))]], rtol=1e-5)
    np.testing.assert_allclose(soft.cosines, [[0.8, 0.6]], rtol=1e-6)
    assert np.isnan(soft.unknown).all()

    sigmoid = Classifier(vectors, none, "sigmoid", scale=10.0, bias=-7.0, device=device)(picture, 2)
    np.testing.assert_allclose(sigmoid.scores, [[1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))]], rtol=1e-5)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])  # NumPy, and torch as on a GPU
def test_contrast_is_the_share_of_background_words_that_fit_less_and_unknown_follows_from_the_best(device):
    words = as_embeddings([[1, 0], [0.9, 0.1], [0.5, 0.5], [0, 1]])
    vectors = np.array([[1, 0], [0, 1]], np.float32)
    picture = as_embeddings([[0.2, 0.8]])  # fits the words in the order 3, 2, 1, 0

    scored = Classifier(vectors, words, "contrast", scale=100.0, device=device)(picture, 2)

    assert scored.top.tolist() == [[1, 0]]
    # word 3, the best, is the first label: half of one in four; three fit better than the second
    np.testing.assert_allclose(scored.scores, [[1 - 0.5 / 4, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(scored.unknown, [1 - (1 - 0.125) ** 2], rtol=1e-6)

    worse = Classifier(vectors[:1], words, "contrast", scale=100.0)(picture, 1)
    np.testing.assert_allclose(worse.unknown, [1 - (1 - 0.75) ** 1])


def test_unknown_counts_the_words_that_beat_the_best_of_all_labels():
    pictures, vectors, words = unit((40, 8)), unit((3, 8), 1), unit((100, 8), 2)

    found = Classifier(vectors, words, "softmax", scale=20.0)(pictures, 2).unknown

    share = share_above(pictures @ words.T, (pictures @ vectors.T).max(1), 20.0)
    np.testing.assert_allclose(found, 1 - (1 - share) ** 3, atol=1e-6)


def share_above(others, values, scale):
    """The share by definition, one picture after the other."""
    found = []
    for row, value in zip(others, values, strict=True):
        nearest = 1 / (1 + np.exp(-scale * (max(row) - value)))
        found.append((sum(other > value for other in sorted(row)[:-1]) + nearest) / len(row))
    return np.array(found)


def test_with_more_labels_than_background_words_as_many_are_counted_as_there_are_words():
    pictures, vectors, words = unit((40, 64)), unit((500, 64), 1), unit((10, 64), 2)

    found = Classifier(vectors, words, "softmax", scale=20.0)(pictures, 2).unknown

    share = share_above(pictures @ words.T, (pictures @ vectors.T).max(1), 20.0)
    np.testing.assert_allclose(found, 1 - (1 - share) ** 10, atol=1e-6)
    assert found.max() < 0.5, "of 500 words one is nearer than any of 10"


def test_blocks_change_nothing(monkeypatch):
    pictures, vectors, words = unit((50, 8)), unit((20, 8), 1), unit((10, 8), 2)
    classify = Classifier(vectors, words, "softmax", scale=20.0)
    whole = classify(pictures, 5)

    monkeypatch.setattr(sys.modules[Classifier.__module__], "BLOCK", 200)  # seven pictures at a time
    for one, other in zip(whole, classify(pictures, 5), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 7, 33, 60])
def test_the_best_labels_are_those_of_a_full_sort_with_equal_ones_in_their_order(k):
    scores = np.random.default_rng(0).integers(0, 9, (200, 60)).astype(np.float32)  # many ties
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(best_first(scores, k), expected)


def test_no_pictures_give_no_rows():
    scored = Classifier(unit((4, 8)), unit((2, 8)), "softmax", 10.0)(unit((1, 8))[:0], 3)
    assert scored.top.shape == (0, 3)
    assert scored.unknown.shape == (0,)


def test_synonyms_and_own_prompts_make_the_mean_direction_of_all_their_texts():
    encoder = ColourEncoder()
    labels = [Label("red", synonyms=("green",)), Label("sea", prompts=("blue water",))]

    found = label_vectors(read_labels(labels), read_templates("a {} wall"), text_model(encoder))

    both = encoder.encode_texts(["a red wall", "a green wall"]).mean(0)
    np.testing.assert_allclose(found[0], both / np.linalg.norm(both), rtol=1e-6)
    np.testing.assert_allclose(found[1], encoder.encode_texts(["blue water"])[0], rtol=1e-6)


def test_the_background_has_no_word_that_means_a_label(builtin):
    model = text_model(builtin)
    of = lambda names: label_vectors(read_labels(names), read_templates("photo"), model)  # noqa: E731
    goldfish, everything = of(["goldfish", "volcano"]), background(of(["goldfish", "volcano"])[:0], model)
    rest = background(goldfish, model)

    assert 900 < len(everything) <= 1000
    assert (everything @ goldfish.T).max() > 0.999  # both are names of ImageNet's
    assert (rest @ goldfish.T).max() < 0.99
    assert len(everything) - 10 < len(rest) < len(everything)


class Counting(ColourEncoder):
    asked = 0

    def encode_texts(self, texts, *, role="query"):
        self.asked += len(texts)
        return super().encode_texts(texts, role=role)


def test_a_second_run_encodes_no_text(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSEARCH_QUERY_CACHE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    encoder = Counting()
    labels, templates = read_labels(["red", "green", "blue"]), read_templates(["a {}", "the {}"])
    first = label_vectors(labels, templates, text_model(encoder, "colour-1"))
    assert encoder.asked == 6

    again = label_vectors(labels, templates, text_model(encoder, "colour-1"))
    more = label_vectors(read_labels(["red", "green", "cyan"]), templates, text_model(encoder, "colour-1"))

    assert encoder.asked == 8  # cyan alone
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[:2], more[:2])
    label_vectors(labels, read_templates(["a {}", "my {}"]), text_model(encoder, "colour-1"))
    assert encoder.asked == 14  # other templates are other vectors


@pytest.mark.parametrize(
    ("multi", "bias", "scores", "kind"),
    [
        (False, None, "auto", "softmax"),
        (False, -10.0, "auto", "softmax"),
        (True, -10.0, "auto", "sigmoid"),
        (True, None, "auto", "contrast"),
        (False, -10.0, "sigmoid", "sigmoid"),
    ],
)
def test_auto_picks_the_scores_that_the_model_was_trained_for(multi, bias, scores, kind):
    model = text_model(ColourEncoder())._replace(bias=bias)
    labels, templates = read_labels(["red", "blue"]), read_templates()
    assert build_classifier(labels, templates, model, multi=multi, scores=scores, unknown=False).kind == kind


@pytest.mark.parametrize(
    ("multi", "scores", "said"),
    [
        (False, "sigmoid", "not trained for sigmoid"),
        (True, "softmax", "'contrast'"),
        (False, "best", "'best'"),
    ],
)
def test_scores_that_cannot_be_are_refused(multi, scores, said):
    with pytest.raises(LabelError, match=said):
        build_classifier(
            read_labels(["a", "b"]), read_templates(), text_model(ColourEncoder()), multi=multi, scores=scores
        )


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_many_blocks_of_pictures_get_the_scores_of_the_formulas(device, monkeypatch):
    monkeypatch.setattr("clipsearch.labels.classifier.BLOCK", 700)  # of 7 + 40 columns: 14 pictures
    vectors, words, pictures = unit((7, 16), 1), unit((40, 16), 2), unit((50, 16), 3)
    shift = np.random.default_rng(4).standard_normal((7, 16)).astype(np.float32)
    logits = 9.0 * (pictures @ vectors.T) + pictures @ shift.T
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    order = np.argsort(-logits, axis=1)[:, :3]
    best = (pictures * vectors[order[:, 0]]).sum(1)
    share = share_above(pictures @ words.T, best, 9.0)

    scored = Classifier(vectors, words, "softmax", 9.0, shift=shift, device=device)(pictures, 3)

    assert scored.top.tolist() == order.tolist()
    np.testing.assert_allclose(scored.scores, np.take_along_axis(chances, order, 1), rtol=1e-4)
    np.testing.assert_allclose(scored.cosines[:, 0], best, atol=1e-6)
    np.testing.assert_allclose(scored.unknown, 1 - (1 - share) ** 7, atol=1e-5)
