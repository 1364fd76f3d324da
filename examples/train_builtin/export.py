"""Step 5: both towers in one open_clip directory.

    python export.py WORK DIRECTORY

Half-precision weights, the configuration and the tokenizer twice over: as merges, and in the format of
Hugging Face, so that `open_clip.get_tokenizer("local-dir:DIRECTORY")` needs not be told of the merges.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import images
import torch
from open_clip.constants import IMAGENET_MEAN, IMAGENET_STD
from open_clip.tokenizer import SimpleTokenizer
from prepare import CONTEXT, VOCABULARY, tokenizer
from safetensors.torch import save_file
from text import HEADS, LAYERS, WIDTH
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from training import finished


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("work", "directory"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    export(options.work, options.directory)


def export(work: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    state = weights(work)
    save_file(state, directory / "open_clip_model.safetensors")
    (directory / "open_clip_config.json").write_text(json.dumps(config(), indent=1) + "\n", encoding="utf-8")
    (directory / "bpe_16k.txt.gz").write_bytes((work / "bpe_16k.txt.gz").read_bytes())
    save_tokenizer(tokenizer(work), directory)
    size = (directory / "open_clip_model.safetensors").stat().st_size
    print(f"{sum(value.numel() for value in state.values()):,} numbers, {size:,} bytes in {directory}")


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
                "hf_tokenizer_name": ".",
            },
        },
        "preprocess_cfg": {
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def weights(work: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of both towers under open_clip's names, in half precision.

    Raises:
        SystemExit: a training is not finished, or the towers are of two spaces.
        ValueError: a weight is too large for half precision.
    """
    image, text = (finished(work / name) for name in ("images.pt", "text.pt"))
    if not torch.equal(text["project"], image["average"]["project.weight"]):
        sys.exit("text.pt was trained toward other pictures' vectors: move it away and run text.py again")
    state = {name: value for name, value in image["average"].items() if name.startswith("visual.")}
    state |= text["average"] | {"logit_scale": image["average"]["scales"][1].clamp(max=math.log(60))}
    halves = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}
    if bad := [name for name, value in halves.items() if not value.isfinite().all()]:
        raise ValueError(f"too large for half precision: {bad}")
    return halves


def save_tokenizer(merges: SimpleTokenizer, directory: Path) -> None:
    """The tokenizer for `transformers`, which pads with the end where CLIP's pads with 0.

    Under open_clip it gives the same vectors, but for letters on whose kind two versions of Unicode, or
    Python and Rust on lower case, do not agree.
    """
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
    text = json.dumps(about, indent=1) + "\n"
    (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
