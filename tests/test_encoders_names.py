import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipsearch.encoders import CATALOG, DEFAULT_MODEL, load_encoder, resolve
from clipsearch.errors import ModelError
from clipsearch.types import as_embeddings

SEPARATORS = ["/", ",", "__", "::"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Colour:
    """A user's own encoder."""

    model_id, dim = "mine", 3

    def encode_images(self, images):
        return as_embeddings([np.asarray(image).mean((0, 1)) for image in images], dim=3)

    def encode_texts(self, texts, *, role="query"):
        return as_embeddings(np.ones((len(texts), 3)))


@pytest.mark.parametrize("separator", SEPARATORS)
def test_every_published_open_clip_model_is_found_under_the_spelling_of_every_tool(separator):
    from open_clip import list_pretrained

    for architecture, weights in list_pretrained():
        assert resolve(f"{architecture}{separator}{weights}") == f"{architecture}/{weights}"


def test_the_first_clip_release_s_way_to_write_an_architecture_is_understood():
    assert resolve("ViT-B/32,openai") == resolve("ViT-B/32/openai") == "ViT-B-32/openai"


def test_tags_are_written_in_one_way():
    assert resolve("ViT-B-32/LAION2B-s34b-b79k") == "ViT-B-32/laion2b_s34b_b79k"


def test_aliases_stand_for_models_that_open_clip_has_and_say_their_true_size_and_dimension():
    from open_clip import get_model_config, list_pretrained

    published = {f"{architecture}/{weights}" for architecture, weights in list_pretrained()}
    for alias, model in CATALOG.items():
        assert resolve(alias) == model.name
        if alias != "builtin":
            config = get_model_config(model.name.partition("/")[0])
            assert model.name in published
            assert (model.dim, model.image_size) == (config["embed_dim"], config["vision_cfg"]["image_size"])
    assert DEFAULT_MODEL in CATALOG


def test_the_catalogue_counts_the_parameters_that_the_architectures_have():
    import torch
    from open_clip import CLIP, CustomTextCLIP, get_model_config

    for model in CATALOG.values():
        config = {} if model.name == "builtin" else get_model_config(model.name.partition("/")[0])
        if not config or "hf_model_name" in config["text_cfg"]:
            continue  # the text tower's size stands in a file on the hub
        with torch.device("meta"):
            built = (CustomTextCLIP if config.pop("custom_text", False) else CLIP)(**config)
        assert model.parameters == pytest.approx(sum(p.numel() for p in built.parameters()) / 1e6, abs=0.06)


def test_a_directory_is_found_by_path_string_or_prefix_and_named_by_its_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "my model").mkdir()
    monkeypatch.chdir(tmp_path)

    expected = f"local-dir:{(tmp_path / 'my model').resolve()}"

    assert resolve("my model") == resolve(Path("my model")) == resolve("local-dir:my model") == expected


def test_hub_names_stay_as_they_are():
    assert resolve("hf-hub:org/name") == "hf-hub:org/name"
    assert resolve("st:org/name") == "st:org/name"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("siglip2-b61", "siglip2-b16"),
        ("ViT-B-32", "ViT-B-32/openai"),
        ("ViT-B-16-SigLIP9/webli", "ViT-B-16-SigLIP2/webli"),
    ],
)
def test_an_unknown_name_is_answered_with_names_that_come_near(name, near):
    with pytest.raises(ModelError, match=f"unknown model {name!r}; did you mean .*{near}.*clipsearch models"):
        resolve(name)


def test_a_known_architecture_with_unknown_weights_is_answered_with_the_weights_it_has():
    with pytest.raises(ModelError, match=r"unknown model 'ViT-B-32/opnai'; did you mean .*ViT-B-32/openai"):
        load_encoder("ViT-B-32/opnai")


def test_a_hub_id_without_prefix_is_not_guessed_but_explained():
    with pytest.raises(ModelError, match=r"hf-hub:org/name .* or st:org/name"):
        resolve("openai/clip-vit-base-patch32")


def test_a_users_own_object_is_taken_as_it_is():
    mine = Colour()

    assert load_encoder(mine) is mine
    assert resolve(mine) == "mine"


def test_an_object_that_lacks_something_is_told_what():
    with pytest.raises(ModelError, match="lacks model_id, encode_texts; an encoder has"):
        load_encoder(type("Half", (), {"dim": 3, "encode_images": None})())


def test_an_unknown_precision_is_answered_with_the_known():
    with pytest.raises(ModelError, match="unknown precision 'int8'; expected one of auto, fp32, bf16, fp16"):
        load_encoder("builtin", precision="int8")


@pytest.mark.parametrize("device", ["tpu9", "cuda:99"])
def test_a_device_that_is_not_here_is_an_error(device):
    with pytest.raises(ModelError, match="device"):
        load_encoder("builtin", device=device).encode_texts(["a"])


def test_names_and_fingerprints_are_known_without_importing_torch_or_open_clip(tmp_path):
    script = """
import sys
from clipsearch.encoders import CATALOG, load_encoder, resolve
assert resolve("siglip2-b16") == "ViT-B-16-SigLIP2/webli" and resolve("ViT-B-32__openai") == "ViT-B-32/openai"
encoder = load_encoder("builtin")
assert len(encoder.fingerprint()) == 64 and encoder.dim == 256 and encoder.min_side == 96
assert not {"torch", "open_clip", "transformers", "huggingface_hub"} & set(sys.modules)
"""
    subprocess.run(
        [sys.executable, "-c", script], check=True, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    )
