"""What every test may ask for: pictures, collections of them, and no network."""

import os
import signal
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CLIPSEARCH_QUERY_CACHE"] = "0"  # those that test the cache switch it on, in a folder of theirs
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos and vectors, where this machine has them."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CLIPSEARCH_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"needs the test data: no folder {folder} (set CLIPSEARCH_TEST_DATA)")
    return folder


CONTEXT = 64  # what transformers' pipeline pads texts for SigLIP to
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = TOWER | {"image_size": 32, "patch_size": 16}


@pytest.fixture(scope="session")
def letters():
    """What makes a tokenizer of single bytes, as CLIP's, with a start and an end."""
    from open_clip.tokenizer import bytes_to_unicode
    from transformers import CLIPTokenizer

    each = list(bytes_to_unicode().values())
    names = [*each, *(letter + "</w>" for letter in each), "<|startoftext|>", "<|endoftext|>"]
    return lambda: CLIPTokenizer(vocab={name: n for n, name in enumerate(names)}, merges=[])


@pytest.fixture(scope="session")
def clip(tmp_path_factory, letters):
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


@pytest.fixture(scope="session")
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
