"""How fast the built-in model is, beside open_clip's own loop with the same weights in the same run.

    python tests/benchmarks/builtin.py [--pictures 2000] [--texts 4000] [--rounds 3]

Turn by turn, medians. Pictures are JPEGs of 500 x 375 from their files to vectors in a collection, held
to 150 a second; the whole `clipsearch demo` from a cold start is held to 12 s beyond `import torch`.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from statistics import median

import torch
from pictures import make_pictures
from PIL import Image

import clipsearch

FOLDER = files("clipsearch.builtin")
BATCH = 64


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--pictures", type=int, default=2000)
    options.add_argument("--texts", type=int, default=4000)
    options.add_argument("--rounds", type=int, default=3)
    args = options.parse_args()
    told()
    texts = captions(args.texts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder / "pictures", args.pictures, (500, 375))
        paths = sorted((folder / "pictures").iterdir())
        places = (folder / f"{n}.clipsearch" for n in itertools.count())
        seconds: dict[str, list[float]] = {}
        for _ in range(args.rounds):
            for what, work in {
                "images, clipsearch": lambda: clipsearch_images(next(places), folder / "pictures"),
                "images, open_clip loop": lambda: open_clip_images(paths),
                "texts, clipsearch": lambda: clipsearch.load_encoder("builtin").encode_texts(texts),
                "texts, open_clip loop": lambda: open_clip_texts(texts),
                "demo": lambda: subprocess.run(
                    [sys.executable, "-m", "clipsearch", "demo", "--out", str(folder / "demo.html")],
                    check=True,
                    capture_output=True,
                ),
                "import torch": lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True),
            }.items():
                seconds.setdefault(what, []).append(timed(work))
    took = {what: median(values) for what, values in seconds.items()}
    for kind, count in (("images", args.pictures), ("texts", args.texts)):
        ours, theirs = (count / took[f"{kind}, {who}"] for who in ("clipsearch", "open_clip loop"))
        print(f"{kind}/s: clipsearch {ours:.0f}, open_clip's loop {theirs:.0f}, ratio {ours / theirs:.2f}")
    beyond = took["demo"] - took["import torch"]
    print(f"demo {took['demo']:.1f} s, {beyond:.1f} s beyond import torch (bound 12)")


def told() -> None:
    """Bytes and parameters."""
    from open_clip import create_model

    model, size = (
        create_model(f"local-dir:{FOLDER}"),
        Path(str(FOLDER), "open_clip_model.safetensors").stat().st_size,
    )
    image = sum(p.numel() for p in model.visual.parameters())
    whole = sum(p.numel() for p in model.parameters())
    print(f"{size:,} bytes; {image:,} parameters for images, {whole - image:,} for texts")


def captions(count: int) -> list[str]:
    """Different sentences of a caption's length."""
    subjects, places = ("dog", "man", "girl", "cat", "boat"), ("beach", "street", "field", "lake", "roof")
    pairs = itertools.islice(itertools.cycle(itertools.product(subjects, places)), count)
    return [
        f"a {who} number {n} is running across the {where} on a sunny day"
        for n, (who, where) in enumerate(pairs)
    ]


def clipsearch_images(place: Path, pictures: Path) -> None:
    with clipsearch.Collection(place, model="builtin") as photos:
        photos.add(pictures, progress=False)


@torch.inference_mode()
def open_clip_images(paths: list[Path]) -> None:
    from open_clip import create_model_and_transforms

    model, _, transform = create_model_and_transforms(f"local-dir:{FOLDER}")
    for start in range(0, len(paths), BATCH):
        pictures = [transform(Image.open(path).convert("RGB")) for path in paths[start : start + BATCH]]
        model.eval().encode_image(torch.stack(pictures), normalize=True)


@torch.inference_mode()
def open_clip_texts(texts: list[str]) -> None:
    from open_clip import create_model, get_tokenizer

    model, tokenizer = create_model(f"local-dir:{FOLDER}").eval(), get_tokenizer(f"local-dir:{FOLDER}")
    for start in range(0, len(texts), BATCH):
        model.encode_text(tokenizer(texts[start : start + BATCH]), normalize=True)


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
