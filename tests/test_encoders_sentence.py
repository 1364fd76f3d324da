import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from PIL import Image

from clipsearch.encoders import load_encoder
from clipsearch.errors import ModelError

TEXTS = [
    "a dog",
    "two people on a beach, told in far more words than there is room for in the context",
    "",
    "A Red Boat",
]


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in [(50, 40), (33, 70)]
    ]


def unit(features):
    rows = getattr(features, "pooler_output", features)
    return (rows / rows.norm(dim=-1, keepdim=True)).numpy()


def forward(model, processor, images, texts, padding):
    """Unit rows by transformers' own processor and forward."""
    import torch

    options = {"padding": padding, "truncation": True, "max_length": 64, "return_tensors": "pt"}
    with torch.inference_mode():
        return (
            unit(model.get_image_features(**processor(images=images, return_tensors="pt"))),
            unit(model.get_text_features(**processor(text=texts, **options))),
        )


def test_a_directory_in_transformers_format_gives_the_vectors_of_transformers_own_forward(clip, images):
    folder, model, processor = clip
    encoder = load_encoder(folder, device="cpu", precision="fp32")

    expected_images, expected_texts = forward(model, processor, images, TEXTS, padding=True)

    np.testing.assert_allclose(encoder.encode_images(images), expected_images, atol=2e-6)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected_texts, atol=2e-6)
    assert (encoder.dim, encoder.device, encoder.precision) == (16, "cpu", "fp32")
    assert encoder.model_id == f"local-dir:{folder}"
    assert encoder.logit_scale == pytest.approx(np.exp(2.6592), rel=1e-5)
    assert encoder.logit_bias is None


def test_siglip_texts_are_lower_case_and_padded_to_the_whole_context_as_in_training(siglip, images):
    folder, model, processor = siglip
    encoder = load_encoder(folder, device="cpu", precision="fp32")
    lower = [text.lower() for text in TEXTS]

    expected_images, expected_texts = forward(model, processor, images, lower, padding="max_length")

    np.testing.assert_allclose(encoder.encode_images(images), expected_images, atol=2e-6)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected_texts, atol=2e-6)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS[:1]), expected_texts[:1], atol=2e-6)
    assert encoder.logit_scale == pytest.approx(np.exp(2.0))
    assert encoder.logit_bias == pytest.approx(-7.5)


def test_a_text_that_names_a_picture_is_still_a_text(clip, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images[0].save("dog.jpg")
    encoder = load_encoder(clip[0], device="cpu", precision="fp32")

    rows = encoder.encode_texts(["dog.jpg", "https://example.invalid/dog.jpg"])

    expected = forward(
        clip[1], clip[2], images, ["dog.jpg", "https://example.invalid/dog.jpg"], padding=True
    )[1]
    np.testing.assert_allclose(rows, expected, atol=2e-6)


def test_half_precision_keeps_the_direction(clip, images):
    exact = load_encoder(clip[0], device="cpu", precision="fp32")
    half = load_encoder(clip[0], device="cpu", precision="bf16")

    assert (half.encode_images(images) * exact.encode_images(images)).sum(axis=1).min() > 0.999
    assert (half.encode_texts(TEXTS) * exact.encode_texts(TEXTS)).sum(axis=1).min() > 0.999


def test_odd_texts_and_none_at_all_are_fine(clip):
    encoder = load_encoder(clip[0], device="cpu")

    assert encoder.encode_texts(["\udcff", "🦊" * 500, " " * 9_000], role="document").shape == (3, 16)
    assert encoder.encode_texts([]).shape == encoder.encode_images([]).shape == (0, 16)


def test_a_lost_weight_is_an_error_and_never_a_random_number(clip, images, tmp_path, caplog):
    from safetensors.torch import load_file, save_file

    shutil.copytree(clip[0], tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(
        ModelError, match=r"is not whole: .* lacks 1 of its weights \(visual_projection.weight"
    ):
        load_encoder(tmp_path / "model").encode_images(images)


def test_a_directory_without_weights_is_an_error_with_the_ways_out(clip, tmp_path):
    shutil.copytree(clip[0], tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))

    with pytest.raises(ModelError, match=r"cannot load .*model.safetensors.*model='builtin'"):
        load_encoder(tmp_path / "model").encode_texts(["a"])


def test_the_fingerprint_follows_the_files_and_not_the_place(clip, tmp_path):
    shutil.copytree(clip[0], tmp_path / "moved")
    first = load_encoder(clip[0], device="cpu", precision="fp32").fingerprint()

    assert load_encoder(tmp_path / "moved", precision="bf16").fingerprint() == first
    (tmp_path / "moved" / "processor_config.json").write_text("{}")
    assert load_encoder(tmp_path / "moved").fingerprint() != first


def test_a_model_of_texts_alone_says_so_when_it_gets_a_picture(images, letters, tmp_path):
    from transformers import BertConfig, BertModel

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=514, max_position_embeddings=64, **tower)).save_pretrained(tmp_path)
    letters().save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, device="cpu")

    with pytest.raises(ModelError, match="takes no pictures, only text"):
        encoder.encode_images(images)
