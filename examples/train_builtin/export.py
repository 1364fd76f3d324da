"""Step 4: both towers in one open_clip directory.

    python export.py WORK DIRECTORY

Half-precision weights, the configuration and the tokenizer twice over: as merges, and in the format of
Hugging Face, so that `open_clip.get_tokenizer("local-dir:DIRECTORY")` needs not be told of the merges.
"""

import json
import sys
from pathlib import Path

import images
import torch
from open_clip.tokenizer import SimpleTokenizer
from prepare import CONTEXT, VOCABULARY, tokenizer
from safetensors.torch import save_file
from text import HEADS, LAYERS, WIDTH
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from training import MEAN, STD


def main(work: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    state = weights(work)
    save_file(state, directory / "open_clip_model.safetensors")
    (directory / "open_clip_config.json").write_text(json.dumps(config(), indent=1) + "\n")
    (directory / "bpe_16k.txt.gz").write_bytes((work / "bpe_16k.txt.gz").read_bytes())
    save_tokenizer(tokenizer(work), directory)
    size = (directory / "open_clip_model.safetensors").stat().st_size
    for tower in ("visual.", ""):
        count = sum(v.numel() for k, v in state.items() if k.startswith(tower))
        print(f"{tower or 'all'}: {count:,} parameters")
    print(f"{size:,} bytes in {directory}")


def config() -> dict[str, object]:
    """The towers and what is done to a picture, as open_clip reads it."""
    return {
        "model_cfg": {
            "embed_dim": images.DIM,
            "vision_cfg": {
                "image_size": images.SIZES[-1][1],
                "timm_model_name": images.ARCHITECTURE,
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": VOCABULARY,
                "width": WIDTH,
                "heads": HEADS,
                "layers": LAYERS,
                "hf_tokenizer_name": "clipsearch/builtin",
            },
        },
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"},
    }


def weights(work: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of both towers under open_clip's names, in half precision."""
    image, text = (
        torch.load(work / name, map_location="cpu", weights_only=True)["average"]
        for name in ("images.pt", "text.pt")
    )
    state = {name: value for name, value in image.items() if name.startswith("visual.")} | text
    state["logit_scale"] = image["scales"][1].clamp(max=torch.tensor(60.0).log())
    return {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}


def save_tokenizer(merges: SimpleTokenizer, directory: Path) -> None:
    """The same tokenizer for `transformers`: the same ids for the same text."""
    start, end = merges.all_special_ids
    pairs = sorted(merges.bpe_ranks, key=merges.bpe_ranks.__getitem__)
    model = models.BPE(merges.encoder, pairs, end_of_word_suffix="</w>", fuse_unk=False)
    whole = Tokenizer(model)
    whole.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = pre_tokenizers.Split(Regex(words), behavior="removed", invert=True)
    whole.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    whole.decoder = decoders.BPEDecoder(suffix="</w>")
    names = [merges.decoder[id_] for id_ in (start, end)]
    whole.post_processor = processors.TemplateProcessing(
        single=f"{names[0]} $A {names[1]}", special_tokens=list(zip(names, (start, end), strict=True))
    )
    whole.add_special_tokens(names)
    whole.save(str(directory / "tokenizer.json"), pretty=False)
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "bos_token": names[0],
        "eos_token": names[1],
        "unk_token": names[1],
        "pad_token": names[1],  # as CLIP's: the first end is the one that is read
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
