import hashlib
import json
import os
import socket
import subprocess
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest

from clipsearch.encoders import load_encoder
from clipsearch.encoders.digest import sha256_of
from clipsearch.encoders.recipe import find
from clipsearch.errors import ModelError

CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 48, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
ASK = """
import sys, time
from clipsearch.encoders import load_encoder
from clipsearch.errors import ModelError
start = time.perf_counter()
try:
    load_encoder(sys.argv[1])
except ModelError as error:
    print(time.perf_counter() - start, error)
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hugging Face cache; returns what puts a file into it as a download would."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(repo, filename, content):
        folder = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        for name in ("refs", "blobs", f"snapshots/{'1' * 40}"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text("1" * 40)
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        link = folder / "snapshots" / ("1" * 40) / filename
        link.symlink_to(blob)
        return link

    return put


def weights_of(model):
    from safetensors.torch import save

    return save({name: value.contiguous() for name, value in model.state_dict().items()})


def ask(model, tmp_path, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    clean = {name: value for name, value in clean.items() if not name.startswith("HF_")}
    environment = clean | {"HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path)} | environment
    done = subprocess.run(
        [sys.executable, "-c", ASK, model], capture_output=True, text=True, env=environment, check=True
    )
    seconds, _, message = done.stdout.partition(" ")
    assert done.stderr == "", "no retries' noise"
    return float(seconds), message


def test_where_nothing_listens_the_error_comes_at_once_and_names_the_ways_out(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"

        seconds, message = ask("hf-hub:org/name", tmp_path, HF_ENDPOINT=endpoint)

    assert seconds < 2
    assert message.startswith(f"'hf-hub:org/name' is not on this machine, and {endpoint} does not answer.")
    assert "with a network" in message
    assert "local directory" in message
    assert "model='builtin'" in message


def test_a_hub_that_never_answers_is_given_up_within_five_seconds(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"

        seconds, message = ask("st:org/name", tmp_path, HF_ENDPOINT=endpoint)

    assert seconds < 5
    assert f"{endpoint} does not answer" in message


def test_the_variable_that_forbids_the_network_is_obeyed_and_named(tmp_path):
    seconds, message = ask("hf-hub:org/name", tmp_path, HF_HUB_OFFLINE="1")

    assert seconds < 2
    assert "HF_HUB_OFFLINE forbids to fetch it" in message


@pytest.mark.parametrize("model", ["siglip2-b16", "hf-hub:org/name", "st:org/name"])
def test_a_model_that_is_not_cached_is_an_error(model, hub):
    with pytest.raises(ModelError, match=r"is not on this machine.*model='builtin'"):
        load_encoder(model)


@pytest.mark.parametrize("name", ["hf-hub:not a name", "hf-hub:a/b/c", "st:../x"])
def test_a_malformed_hub_name_is_an_error(name, hub):
    with pytest.raises(ModelError, match="is no name of a Hugging Face repository: expected org/name"):
        load_encoder(name)


def test_a_cached_hub_model_is_used_without_a_network(hub):
    import torch
    from open_clip import CLIP as Clip
    from open_clip import tokenize

    torch.manual_seed(0)
    model = Clip(**json.loads(json.dumps(CLIP))).eval()
    hub("org/tiny", "open_clip_config.json", json.dumps({"model_cfg": CLIP}).encode())
    hub("org/tiny", "open_clip_model.safetensors", weights_of(model))

    encoder = load_encoder("hf-hub:org/tiny", device="cpu", precision="fp32")

    with torch.inference_mode():
        expected = model.encode_text(tokenize(["a dog"], 20), normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_texts(["a dog"]), expected, atol=2e-6)


def test_a_text_tower_and_tokenizer_of_transformers_come_from_the_cache_too(hub, tmp_path):
    import torch
    from open_clip import CustomTextCLIP
    from open_clip.tokenizer import HFTokenizer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig

    words = {word: n for n, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "a", "dog", "cat"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(
        tmp_path / "tokenizer"
    )
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    XLMRobertaConfig(vocab_size=7, pad_token_id=1, **size).save_pretrained(tmp_path / "tower")
    for path in (tmp_path / "tokenizer").iterdir():
        hub("org/words", path.name, path.read_bytes())
    hub("org/tower", "config.json", (tmp_path / "tower" / "config.json").read_bytes())
    text = {"hf_model_name": "org/tower", "hf_tokenizer_name": "org/words", "hf_pooler_type": "mean_pooler"}
    torch.manual_seed(0)
    local = text | {"hf_model_name": str(tmp_path / "tower"), "hf_model_pretrained": False}
    model = CustomTextCLIP(**CLIP | {"text_cfg": local}).eval()
    config = CLIP | {"text_cfg": text | {"context_length": 8, "tokenizer_kwargs": {"clean": "canonicalize"}}}
    hub("org/tiny", "open_clip_config.json", json.dumps({"model_cfg": config}).encode())
    hub("org/tiny", "open_clip_model.safetensors", weights_of(model))

    encoder = load_encoder("hf-hub:org/tiny", device="cpu", precision="fp32")

    ids = HFTokenizer(str(tmp_path / "tokenizer"), context_length=8)(["a dog", "a cat a cat"])
    with torch.inference_mode():
        expected = model.encode_text(ids, normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_texts(["A Dog!", "a cat, a cat"]), expected, atol=2e-6)
    assert encoder.encode_texts(["\udcff", "a " * 90_000]).shape == (2, 24)


def test_published_models_bring_the_preprocessing_and_activation_of_their_weights(hub):
    hub("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors", b"weights of openai")
    hub("timm/ViT-B-16-SigLIP2", "open_clip_model.safetensors", b"weights of siglip")
    hub("timm/ViT-B-16-SigLIP2", "tokenizer_config.json", b"{}")

    openai, siglip = find("ViT-B-32/openai"), find("ViT-B-16-SigLIP2/webli")

    assert openai.config["quick_gelu"] is True, "open_clip itself only warns here"
    assert (openai.preprocessing.resize_mode, openai.preprocessing.mean[0]) == ("shortest", 0.48145466)
    assert (siglip.preprocessing.resize_mode, siglip.preprocessing.mean) == ("squash", (0.5, 0.5, 0.5))
    assert siglip.preprocessing.size == (224, 224)
    assert siglip.tokenizer is not None
    assert siglip.weights.read_bytes() == b"weights of siglip"


def test_a_siglip_model_whose_tokenizer_is_not_cached_is_found_out_when_it_is_loaded(hub):
    hub("timm/ViT-B-16-SigLIP2", "open_clip_model.safetensors", b"weights")

    with pytest.raises(ModelError, match=r"'ViT-B-16-SigLIP2/webli' is not on this machine"):
        load_encoder("siglip2-b16")


def test_files_of_the_cache_are_not_read_to_know_their_digest(hub):
    path = hub("org/tiny", "model.safetensors", b"some weights")
    path.resolve().write_bytes(b"now others, which nobody notices")

    assert sha256_of(path) == hashlib.sha256(b"some weights").hexdigest()


def test_big_files_are_digested_once_and_again_when_they_change(tmp_path):
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(65 << 20)
    expected = hashlib.sha256(bytes(65 << 20)).hexdigest()

    assert sha256_of(path) == expected
    [note] = (tmp_path / "cache" / "clipsearch" / "digests").iterdir()
    note.write_text("remembered")
    assert sha256_of(path) == "remembered"
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 10_000_000))
    assert sha256_of(path) == expected


def test_where_nothing_can_be_remembered_digests_are_still_right(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(65 << 20)

    assert sha256_of(path) == hashlib.sha256(bytes(65 << 20)).hexdigest()
