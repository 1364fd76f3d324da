"""Images/s from a folder of JPEGs to stored vectors, beside the peers and beside the physical limit.

    python tests/benchmarks/ingest.py [--small 2000] [--large 200] [--rounds 3] [--model ViT-B-32]

ViT-B-32 with random weights, saved locally; no weights are fetched and none are needed to measure
speed. Two sets of pictures: about 500 px, and 12 megapixels of at least 3.5 MB. Every way runs in
this process, turn by turn; medians of the rounds.

- limit: on a processor 1 / (decode seconds / cores + forward seconds), on a GPU the slower of the two
  stages; each measured alone in the same run.
- clipsearch: Collection.add, with hashing, EXIF, storing and committing.
- open_clip + DataLoader: the loop of open_clip's README, batches from a torch DataLoader.
- sentence-transformers: SentenceTransformer.encode of PIL images (they are opened by the caller).
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import open_clip
import torch
from pictures import make_pictures
from PIL import Image

import clipsearch
from clipsearch.decode import decode
from clipsearch.files import cores

BATCH = 64
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--small", type=int, default=2000)
    options.add_argument("--large", type=int, default=200)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--model", default="ViT-B-32")
    options.add_argument("--skip-sentence", action="store_true")
    args = options.parse_args()
    print(f"{cores()} cores, torch {torch.__version__} with {torch.get_num_threads()} threads, {flags()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "model", args.model)
        make_pictures(folder / "small", args.small, (500, 375))
        make_pictures(folder / "large", args.large, (4000, 3000))
        sentence = None if args.skip_sentence else sentence_model(folder / "hf")
        for kind in ("small", "large"):
            files = sorted((folder / kind).iterdir())
            size = sum(path.stat().st_size for path in files) / len(files) / 1e6
            print(f"\n{len(files):,} pictures of {Image.open(files[0]).size}, {size:.2f} MB each")
            table("same precision (fp32)", folder, files, "fp32", args.rounds, sentence)
            table("defaults", folder, files, "auto", args.rounds, sentence)


def table(title: str, folder: Path, files: list[Path], precision: str, rounds: int, sentence: object) -> None:
    """Run each way `rounds` times in turn and print images/s and ratios."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder / 'model'}")
    model.to(DEVICE).eval()
    encoder = clipsearch.load_encoder(str(folder / "model"), precision=precision)
    ways = {
        "limit": lambda: limit(encoder, files),
        "clipsearch": lambda: ours(encoder, files),
        "open_clip + DataLoader": lambda: loader_loop(model, preprocess, files),
    }
    if sentence is not None:
        ways["sentence-transformers"] = lambda: sentence_encode(sentence, files)
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            rates[way].append(run())
    print(f"{title}: clipsearch in {encoder.precision}, the peers in fp32; medians of {rounds} rounds")
    for way, found in rates.items():
        ratio = median(a / b for a, b in zip(rates["clipsearch"], found, strict=True))
        print(f"  {way:24} {median(found):8.1f} images/s   clipsearch is {ratio:5.2f} x")


def ours(encoder: object, files: list[Path]) -> float:
    with (
        tempfile.TemporaryDirectory() as name,
        clipsearch.Collection(Path(name) / "c", model=encoder) as photos,
    ):
        started = time.perf_counter()
        report = photos.add(files[0].parent, progress=False)
        assert report.encoded == len(files), report
        return len(files) / (time.perf_counter() - started)


def limit(encoder: object, files: list[Path]) -> float:
    """What decoding on all cores and the model's forwards would give, and nothing else."""
    sample = files[:: max(1, len(files) // 128)][:128]
    started = time.thread_time()
    ready = [encoder.prepare(decode(path.read_bytes(), min_side=encoder.min_side).image) for path in sample]
    decoding = (time.thread_time() - started) / len(sample)
    ready = (ready * BATCH)[:BATCH]
    encoder.encode_prepared(ready)
    times = []
    for _ in range(4):
        started = time.perf_counter()
        encoder.encode_prepared(ready)
        times.append(time.perf_counter() - started)
    decoding, forward = decoding / cores(), median(times) / BATCH
    return 1 / (decoding + forward) if encoder.device == "cpu" else 1 / max(decoding, forward)


class Files(torch.utils.data.Dataset):
    """What open_clip's users write."""

    def __init__(self, files: list[Path], preprocess: object) -> None:
        self.files, self.preprocess = files, preprocess

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.preprocess(Image.open(self.files[index]))


def loader_loop(model: object, preprocess: object, files: list[Path]) -> float:
    started = time.perf_counter()
    loader = torch.utils.data.DataLoader(Files(files, preprocess), batch_size=BATCH, num_workers=cores())
    features = []
    with torch.no_grad():
        for images in loader:
            found = model.encode_image(images.to(DEVICE))
            features.append((found / found.norm(dim=-1, keepdim=True)).cpu().numpy())
    assert len(np.concatenate(features)) == len(files)
    return len(files) / (time.perf_counter() - started)


def sentence_encode(model: object, files: list[Path]) -> float:
    started = time.perf_counter()
    vectors = model.encode([Image.open(path) for path in files], batch_size=BATCH, show_progress_bar=False)
    assert len(vectors) == len(files)
    return len(files) / (time.perf_counter() - started)


def save_model(folder: Path, name: str) -> None:
    """An open_clip model with random weights, in open_clip's own layout."""
    import json

    from safetensors.torch import save_file

    folder.mkdir()
    model = open_clip.create_model(name)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    config = {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": open_clip.get_model_preprocess_cfg(model),
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def sentence_model(folder: Path) -> object:
    """CLIP ViT-B/32 with random weights in the Hugging Face layout, as sentence-transformers loads it."""
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer, models
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizerFast

    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    tokenizer = CLIPTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, [])))
    CLIPModel(CLIPConfig()).save_pretrained(folder)
    CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=tokenizer).save_pretrained(folder)
    return SentenceTransformer(str(folder), device=DEVICE)


def flags() -> str:
    """Which of the instructions that matter here this processor has."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown processor"
    return "flags " + (
        " ".join(flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in text) or "none"
    )


if __name__ == "__main__":
    main()
