import gzip
import json
import os
import shutil
import threading
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipsearch.collection import Collection
from clipsearch.encoders import load_encoder
from clipsearch.encoders.script import SAID
from clipsearch.errors import ModelError

BUILTIN = Path(str(files("clipsearch.builtin")))
TEXTS = ["a dog running on grass", "two people", "", "A photo of a RED boat, on the lake; at night! " * 9]
ODD_TEXTS = [
    *("", " ", "\x00", "\t\n", "\udcff\udc80", "<end_of_text>", "Ωmega ﬁ ǆ", "고양이가 창가에 앉아 있다"),
    *("a" * 20_000, "🦊" * 300, "日本語" * 500, "'" * 5_000, "&amp;" * 2_000, "x y " * 9_000),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import torch

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    sizes = [(120, 80), (64, 200), (96, 96), (31, 40), (300, 225)]
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 48, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
SIGLIP = {
    "embed_dim": 24,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": CLIP["vision_cfg"],
    "text_cfg": CLIP["text_cfg"]
    | {
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "tokenizer_kwargs": {"clean": "canonicalize"},
    },
}
EOS = CLIP | {"text_cfg": CLIP["text_cfg"] | {"pool_type": "eos", "eos_id": 49407}, "custom_text": True}
LAST = CLIP | {"text_cfg": CLIP["text_cfg"] | {"pool_type": "last"}, "custom_text": True}
CLS = CLIP | {"text_cfg": CLIP["text_cfg"] | {"embed_cls": True}, "custom_text": True}
ROTARY = CLIP | {
    "embed_dim": 512,  # computes some tensors of its own that no file holds
    "vision_cfg": {
        "timm_model_name": "vit_pe_core_tiny_patch16_384",
        "image_size": 384,
        "timm_pool": "map",
        "timm_proj": None,
    },
    "custom_text": True,
}
COCA = CLIP | {
    "multimodal_cfg": {"context_length": 20, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1},
    "vision_cfg": CLIP["vision_cfg"]
    | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "text_cfg": CLIP["text_cfg"] | {"embed_cls": True, "output_tokens": True},
    "custom_text": True,
}


def build(config):
    import torch
    from open_clip import CLIP as Clip
    from open_clip import CoCa, CustomTextCLIP

    torch.manual_seed(0)
    options = {name: value for name, value in json.loads(json.dumps(config)).items() if name != "custom_text"}
    if "multimodal_cfg" in options:
        return CoCa(**options).eval()
    return (CustomTextCLIP if config.get("custom_text") else Clip)(**options).eval()


def save(folder, config, *, model=None, name="open_clip_model.safetensors", **preprocess):
    """Write a model with random weights as open_clip lays it out; returns open_clip's own model."""
    import torch
    from safetensors.torch import save_file

    model = model or build(config)
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    if name.endswith(".safetensors"):
        save_file(weights, folder / name)
    else:
        torch.save(weights, folder / name)
    return model


def reference(model, config, images, texts):
    """Unit rows by open_clip's own transform, tokenizer and forward."""
    import torch
    from open_clip import SimpleTokenizer
    from open_clip.transform import PreprocessCfg, image_transform_v2

    transform = image_transform_v2(PreprocessCfg(size=config["vision_cfg"]["image_size"]), is_train=False)
    options = config["text_cfg"].get("tokenizer_kwargs", {})
    tokenizer = SimpleTokenizer(context_length=config["text_cfg"]["context_length"], **options)
    with torch.inference_mode():
        pixels = torch.stack([transform(image) for image in images])
        return (
            model.encode_image(pixels, normalize=True).numpy(),
            model.encode_text(tokenizer(texts), normalize=True).numpy(),
        )


CONFIGS = {
    "clip": CLIP,
    "siglip": SIGLIP,
    "eos": EOS,
    "last": LAST,
    "cls": CLS,
    "rotary": ROTARY,
    "coca": COCA,
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_vectors_equal_open_clips_own(config, tmp_path, images):
    model = save(tmp_path / "model", config)
    encoder = load_encoder(tmp_path / "model", precision="fp32", device="cpu")

    expected_images, expected_texts = reference(model, config, images, TEXTS)

    np.testing.assert_allclose(encoder.encode_images(images), expected_images, atol=2e-6)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected_texts, atol=2e-6)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS[:2]), expected_texts[:2], atol=2e-6)
    assert encoder.logit_scale == pytest.approx(1 / 0.07)
    assert encoder.logit_bias == (-10 if config is SIGLIP else None)


def test_the_builtin_model_equals_open_clips_own_loading_of_it(images):
    import torch
    from open_clip import create_model_and_transforms, get_tokenizer

    model, _, transform = create_model_and_transforms(f"local-dir:{BUILTIN}")
    tokenizer = get_tokenizer(f"local-dir:{BUILTIN}")
    with torch.inference_mode():
        pixels = torch.stack([transform(image) for image in images])
        expected_images = model.eval().encode_image(pixels, normalize=True).numpy()
        expected_texts = model.encode_text(tokenizer(TEXTS), normalize=True).numpy()

    encoder = load_encoder("builtin", device="cpu", precision="fp32")

    np.testing.assert_allclose(encoder.encode_images(images), expected_images, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected_texts, atol=1e-5)
    assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-6)
    assert encoder.logit_bias is None


def test_half_precision_keeps_the_direction_of_every_vector(images):
    exact = load_encoder("builtin", device="cpu", precision="fp32")
    half = load_encoder("builtin", device="cpu", precision="bf16")

    assert (half.encode_images(images) * exact.encode_images(images)).sum(axis=1).min() > 0.999
    assert (half.encode_texts(TEXTS) * exact.encode_texts(TEXTS)).sum(axis=1).min() > 0.999
    assert (half.precision, exact.precision, exact.device) == ("bf16", "fp32", "cpu")


def test_precision_is_bf16_by_itself_exactly_where_the_processor_has_it():
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")

    assert load_encoder("builtin", device="cpu").precision == ("bf16" if fast else "fp32")


def test_a_text_is_encoded_alike_whatever_else_is_in_its_batch(tmp_path):
    save(tmp_path / "model", CLIP)
    encoder = load_encoder(tmp_path / "model", precision="fp32", device="cpu")

    together = encoder.encode_texts(TEXTS)

    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_only_texts_of_causal_towers_are_cut_to_the_longest(tmp_path):
    lengths = {}
    for name, config in {"clip": CLIP, "siglip": SIGLIP}.items():
        save(tmp_path / name, config)
        encoder = load_encoder(tmp_path / name, device="cpu")
        encoder.encode_texts(["a"])
        seen = lengths.setdefault(name, [])
        encoder._text_tower.register_forward_pre_hook(
            lambda module, args, seen=seen: seen.append(args[0].shape[1])
        )
        encoder.encode_texts(["a dog"])

    assert lengths == {"clip": [4], "siglip": [20]}, "start, a, dog, end; and the whole context"


def test_siglip_texts_are_canonicalised_and_clip_texts_keep_their_punctuation(tmp_path):
    save(tmp_path / "siglip", SIGLIP)
    save(tmp_path / "clip", CLIP)
    pair = ["A Photo of_a dog!", "a photo of a dog"]

    siglip = load_encoder(tmp_path / "siglip", device="cpu").encode_texts(pair)
    clip = load_encoder(tmp_path / "clip", device="cpu").encode_texts(pair)

    np.testing.assert_array_equal(siglip[0], siglip[1])
    assert (clip[0] @ clip[1]) < 0.9999


@pytest.mark.parametrize("name", ["builtin", "clip"])
def test_any_string_at_all_has_a_vector(name, tmp_path):
    model = "builtin" if name == "builtin" else tmp_path / "model"
    if name == "clip":
        save(tmp_path / "model", CLIP)

    rows = load_encoder(model, device="cpu").encode_texts(ODD_TEXTS)

    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_long_text_is_cut_where_open_clip_cuts_it(tmp_path):
    model = save(tmp_path / "model", CLIP)
    long = ["  the quick brown fox \n jumps over the lazy dog " * 2_000]

    rows = load_encoder(tmp_path / "model", device="cpu", precision="fp32").encode_texts(long)

    np.testing.assert_allclose(rows, reference(model, CLIP, [Image.new("RGB", (9, 9))], long)[1], atol=2e-6)


def test_nothing_gives_no_rows_and_reads_no_weights(tmp_path):
    save(tmp_path / "model", CLIP)
    encoder = load_encoder(tmp_path / "model", device="cpu")
    (tmp_path / "model" / "open_clip_model.safetensors").unlink()

    for rows in (encoder.encode_images([]), encoder.encode_texts([]), encoder.encode_prepared([])):
        assert rows.shape == (0, 24)
        assert rows.dtype == np.float32


def test_weights_in_torchs_old_format_serve_too(tmp_path, images):
    model = save(tmp_path / "model", CLIP, name="open_clip_pytorch_model.bin")
    encoder = load_encoder(tmp_path / "model", device="cpu", precision="fp32")

    np.testing.assert_allclose(
        encoder.encode_images(images), reference(model, CLIP, images, [""])[0], atol=2e-6
    )
    assert encoder.logit_scale == pytest.approx(1 / 0.07)


def drop(folder, prefix):
    from safetensors.torch import load_file, save_file

    path = folder / "open_clip_model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(prefix)}
    save_file(kept, path)


def test_a_search_by_text_needs_nothing_of_the_image_tower_and_the_other_way_round(tmp_path, images):
    for name, prefix in {"texts": "visual.", "pictures": "transformer."}.items():
        save(tmp_path / name, CLIP)
        drop(tmp_path / name, prefix)
    texts, pictures = load_encoder(tmp_path / "texts"), load_encoder(tmp_path / "pictures")

    assert texts.encode_texts(["a dog"]).shape == (1, 24)
    assert pictures.encode_images(images).shape == (5, 24)
    with pytest.raises(ModelError, match=r"cannot load the image tower .*Missing key"):
        texts.encode_images(images)
    with pytest.raises(ModelError, match=r"cannot load the text tower .*Missing key"):
        pictures.encode_texts(["a dog"])


@pytest.mark.parametrize(
    "lost", ["visual.ln_post.bias", "visual.class_embedding", "visual.transformer.resblocks.1"]
)
def test_a_single_lost_weight_is_an_error_and_never_a_random_number(lost, tmp_path, images):
    save(tmp_path / "model", CLIP)
    drop(tmp_path / "model", lost)

    with pytest.raises(ModelError, match="cannot load the image tower"):
        load_encoder(tmp_path / "model").encode_images(images)


def test_weights_of_another_shape_are_an_error(tmp_path):
    save(tmp_path / "model", CLIP | {"text_cfg": CLIP["text_cfg"] | {"width": 64}}, model=build(CLIP))

    with pytest.raises(ModelError, match=r"cannot load the text tower .*width changed"):
        load_encoder(tmp_path / "model").encode_texts(["a"])


def test_a_truncated_file_of_weights_is_an_error(tmp_path):
    save(tmp_path / "model", CLIP)
    path = tmp_path / "model" / "open_clip_model.safetensors"
    os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(ModelError, match="cannot load the text tower"):
        load_encoder(tmp_path / "model").encode_texts(["a"])


def test_weights_that_give_no_numbers_are_an_error_with_a_way_out(tmp_path, images):
    model = build(CLIP)
    model.visual.proj.data.fill_(float("nan"))
    save(tmp_path / "model", CLIP, model=model)

    with pytest.raises(ModelError, match=r"embedding 0 has length nan.*try precision='fp32'"):
        load_encoder(tmp_path / "model").encode_images(images)


def test_a_small_vocabulary_without_its_own_tokenizer_is_refused_before_it_can_crash(tmp_path):
    shutil.copytree(BUILTIN, tmp_path / "model", ignore=shutil.ignore_patterns("bpe*", "tokenizer*", "__*"))

    with pytest.raises(
        ModelError, match=r"knows 16384 tokens but its tokenizer makes 49408.*bpe_\*\.txt\.gz"
    ):
        load_encoder(tmp_path / "model").encode_texts(["a dog"])


@pytest.mark.parametrize("missing", ["tokenizer*", "bpe*"])
def test_either_of_the_builtin_models_tokenizers_gives_the_same_vectors(missing, tmp_path):
    shutil.copytree(BUILTIN, tmp_path / "model", ignore=shutil.ignore_patterns(missing, "__*"))
    texts = [
        text for text in [*TEXTS, *ODD_TEXTS] if "\udcff" not in text
    ]  # half a surrogate pair is no UTF-8

    copy = load_encoder(tmp_path / "model", device="cpu", precision="fp32").encode_texts(texts)

    builtin = load_encoder("builtin", device="cpu", precision="fp32").encode_texts(texts)
    np.testing.assert_allclose(copy, builtin, atol=1e-6)


def test_open_clip_alone_reads_any_text_for_the_builtin_model():
    import torch
    from open_clip import create_model, get_tokenizer

    texts = [text for text in [*TEXTS, *ODD_TEXTS] if "\udcff" not in text]
    model, tokenizer = (
        create_model(f"local-dir:{BUILTIN}"),
        get_tokenizer(f"local-dir:{BUILTIN}"),
    )  # no bpe_path
    with torch.inference_mode():
        expected = model.eval().encode_text(tokenizer(texts), normalize=True).numpy()

    rows = load_encoder("builtin", device="cpu", precision="fp32").encode_texts(texts)

    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_a_model_that_knows_english_only_says_so_once(caplog):
    SAID.clear()
    encoder = load_encoder("builtin", device="cpu")
    encoder.encode_texts(["a dog", "un café à Zürich", "2,5 €", ""])
    assert caplog.messages == []

    encoder.encode_texts(["a dog", "고양이가 창가에 앉아 있다", "собака"])
    encoder.encode_texts(["кошка"])

    assert caplog.messages == [
        "builtin knows English only; what it finds for '고양이가 창가에 앉아 있다' means nothing (said once)"
    ]


def test_a_script_the_model_does_not_know_is_told_of_labels_and_of_cached_queries_too(
    tmp_path, images, caplog
):
    with Collection(tmp_path / "photos.clipsearch", model="builtin") as photos:
        photos.add([(f"{n}", image) for n, image in enumerate(images)])
        photos.search("собака")
        for again in (lambda: photos.search("собака"), lambda: photos.classify(["собака", "кошка"])):
            SAID.clear()
            caplog.clear()
            again()
            assert ["knows English only" in message for message in caplog.messages] == [True]


def test_merges_beside_a_model_are_used(tmp_path):
    shutil.copytree(BUILTIN, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*", "__*"))
    with gzip.open(tmp_path / "model" / "bpe_16k.txt.gz", "rt", encoding="utf-8") as file:
        assert len(file.read().split("\n")) < 16384

    copy, builtin = load_encoder(tmp_path / "model", device="cpu"), load_encoder("builtin", device="cpu")

    np.testing.assert_array_equal(copy.encode_texts(TEXTS), builtin.encode_texts(TEXTS))


@pytest.mark.parametrize("content", ["", "{}", '{"model_cfg": {"embed_dim": 3}}', "[1]"])
def test_a_broken_configuration_is_an_error_that_says_what_is_expected(content, tmp_path):
    (tmp_path / "open_clip_config.json").write_text(content)

    with pytest.raises(ModelError, match=r"is not an open_clip configuration .*expected JSON with model_cfg"):
        load_encoder(tmp_path)


def test_a_directory_without_or_with_ambiguous_weights_is_an_error(tmp_path):
    save(tmp_path / "model", CLIP, name="one.safetensors")
    assert load_encoder(tmp_path / "model").encode_texts(["a"]).shape == (1, 24)
    shutil.copy(tmp_path / "model" / "one.safetensors", tmp_path / "model" / "two.safetensors")

    with pytest.raises(ModelError, match=r"holds 2 files of weights \(one.safetensors, two.safetensors\)"):
        load_encoder(tmp_path / "model")

    for name in ("one", "two"):
        (tmp_path / "model" / f"{name}.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"holds 0 files of weights \(none\); expected open_clip_model.safetensors"
    ):
        load_encoder(tmp_path / "model")


def test_a_directory_with_no_model_or_none_at_all_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"holds no model: expected open_clip_config.json"):
        load_encoder(tmp_path)
    with pytest.raises(ModelError, match=r"there is no directory .*gone.*model='builtin'"):
        load_encoder(tmp_path / "gone")


def test_the_fingerprint_follows_weights_preprocessing_and_tokenizer_and_nothing_else(tmp_path):
    save(tmp_path / "model", CLIP)
    first = load_encoder(tmp_path / "model", precision="fp32").fingerprint()

    assert len(first) == 64
    assert load_encoder(tmp_path / "model", precision="bf16", device="cpu").fingerprint() == first
    shutil.copytree(tmp_path / "model", tmp_path / "moved")
    assert load_encoder(tmp_path / "moved").fingerprint() == first

    changed = build(CLIP)
    changed.visual.proj.data[0, 0] += 1e-6
    save(tmp_path / "weights", CLIP, model=changed)
    save(tmp_path / "pixels", CLIP, resize_mode="squash")
    shutil.copy(BUILTIN / "bpe_16k.txt.gz", tmp_path / "moved")
    others = {load_encoder(tmp_path / name).fingerprint() for name in ("weights", "pixels", "moved")}

    assert len(others | {first}) == 4


def test_when_the_device_is_full_smaller_batches_are_tried_and_remembered(tmp_path, images):
    import torch

    save(tmp_path / "model", CLIP)
    encoder = load_encoder(tmp_path / "model", device="cpu", precision="fp32")
    expected = encoder.encode_images(images * 3)
    sizes = []

    def full(module, args):
        sizes.append(len(args[0]))
        if sizes[-1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = encoder._image_tower.register_forward_pre_hook(full)
    np.testing.assert_allclose(encoder.encode_images(images * 3), expected, atol=1e-6)
    assert sizes == [15, 7, 3, 3, 3, 3, 3]
    encoder.encode_images(images)
    assert sizes[7:] == [3, 2], "what did not fit is not tried again"
    hook.remove()

    encoder._image_tower.register_forward_pre_hook(lambda module, args: full(module, [range(5)]))
    with pytest.raises(ModelError, match="does not fit into the device's memory; use device='cpu'"):
        encoder.encode_images(images)


def test_many_threads_at_once_get_what_one_would(tmp_path, images):
    save(tmp_path / "model", CLIP)
    encoder = load_encoder(tmp_path / "model", device="cpu", precision="fp32")
    expected = load_encoder(tmp_path / "model", device="cpu", precision="fp32")
    texts = [f"{'very ' * n}good dog" for n in range(8)]
    encoder.encode_texts(texts)
    encoder._text_tower.register_forward_pre_hook(lambda module, args: time.sleep(0.002))
    results = {}

    def work(n):
        for _ in range(5):
            results[n] = encoder.encode_images(images[n % 5 :]), encoder.encode_texts(texts[: n + 1])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for n in range(8):
        np.testing.assert_allclose(results[n][0], expected.encode_images(images[n % 5 :]), atol=1e-6)
        np.testing.assert_allclose(results[n][1], expected.encode_texts(texts[: n + 1]), atol=1e-6)


def test_a_closed_encoder_loads_again_when_asked(images):
    encoder = load_encoder("builtin", device="cpu")
    before = encoder.encode_images(images), encoder.encode_texts(TEXTS)
    encoder.close()

    assert encoder._image_tower is None
    np.testing.assert_array_equal(encoder.encode_images(images), before[0])
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS), before[1])


def test_a_grey_or_transparent_picture_that_slips_through_does_no_harm(images):
    encoder = load_encoder("builtin", device="cpu", precision="fp32")
    grey = images[0].convert("L")

    np.testing.assert_array_equal(encoder.encode_images([grey]), encoder.encode_images([grey.convert("RGB")]))
