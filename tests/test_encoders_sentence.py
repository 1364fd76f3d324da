import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from PIL import Image

from clipsearch.encoders import load_encoder
from clipsearch.errors import ModelError

TEXTS = ["a dog", "two people on a beach that is far longer than the context", "", "A Red Boat"]
CONTEXT = 12
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = TOWER | {"image_size": 32, "patch_size": 16}


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in [(50, 40), (33, 70)]
    ]


def letters():
    """A tokenizer of single bytes, as CLIP's, with a start and an end."""
    from open_clip.tokenizer import bytes_to_unicode
    from transformers import CLIPTokenizer

    each = list(bytes_to_unicode().values())
    names = [*each, *(letter + "</w>" for letter in each), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: n for n, name in enumerate(names)}, merges=[])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP with random weights in transformers' format: its folder, model and processor."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    torch.set_num_threads(1)
    torch.manual_seed(0)
    special = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    text = TOWER | special | {"vocab_size": 514, "max_position_embeddings": CONTEXT}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)).eval()
    size = {"height": 32, "width": 32}
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    processor = CLIPProcessor(image_processor=pictures, tokenizer=letters())
    return write(tmp_path_factory.mktemp("clip"), model, processor)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    """A tiny SigLIP likewise."""
    import torch
    from tokenizers import Tokenizer, models
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        PreTrainedTokenizerFast,
        SiglipConfig,
        SiglipImageProcessor,
        SiglipModel,
        SiglipProcessor,
    )

    torch.manual_seed(1)
    text = TOWER | {"vocab_size": 514, "max_position_embeddings": CONTEXT, "projection_size": 32}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)).eval()
    model.logit_bias.data.fill_(-7.5)
    model.logit_scale.data.fill_(2.0)
    tokenizer = Tokenizer(
        models.BPE({letter: n for n, letter in enumerate(sorted(ByteLevel.alphabet()))}, [])
    )
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)  # keeps upper and lower case apart
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    pictures = SiglipImageProcessor(size={"height": 32, "width": 32})
    return write(tmp_path_factory.mktemp("siglip"), model, SiglipProcessor(pictures, words))


def write(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model, processor


def unit(features):
    rows = getattr(features, "pooler_output", features)
    return (rows / rows.norm(dim=-1, keepdim=True)).numpy()


def forward(model, processor, images, texts, padding):
    """Unit rows by transformers' own processor and forward."""
    import torch

    options = {"padding": padding, "truncation": True, "max_length": CONTEXT, "return_tensors": "pt"}
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


def test_a_model_of_texts_alone_says_so_when_it_gets_a_picture(images, tmp_path):
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(vocab_size=514, max_position_embeddings=CONTEXT, **TOWER)).save_pretrained(tmp_path)
    letters().save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, device="cpu")

    with pytest.raises(ModelError, match="takes no pictures, only text"):
        encoder.encode_images(images)
