"""What bf16 does to vectors and to retrieval, beside fp32 in the same run.

    python tests/benchmarks/precision.py [--photos 1000]

The built-in model over Flickr8k's development split (1,000 photos, 5 captions each), which must be
where CLIPSEARCH_TEST_DATA says. Bounds: mean cosine 0.999, no figure lower by more than 0.3 points.
"""

import argparse
import io
import os
import tarfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from PIL import Image

from clipsearch.encoders import load_encoder

DATA = Path(os.environ.get("CLIPSEARCH_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--photos", type=int, default=1000)
    args = options.parse_args()
    images, captions, owners = load(args.photos)
    print(f"{len(images):,} photos, {len(captions):,} captions, the built-in model")
    vectors, figures = {}, {}
    for precision in ("fp32", "bf16", "auto"):
        encoder = load_encoder("builtin", precision=precision)
        vectors[precision] = encoder.encode_images(images)
        texts = encoder.encode_texts(captions)
        figures[precision] = recalls(texts @ vectors[precision].T, owners)
        cosines = np.einsum("nd,nd->n", vectors["fp32"], vectors[precision])
        points = 100 * (figures[precision] - figures["fp32"])
        shown = "  ".join(
            f"R@{k} {value:.4f}" for k, value in zip((1, 5, 10), figures[precision], strict=True)
        )
        worst = f"against fp32: worst figure {points.min():+.2f} points (bound -0.3)"
        least = f"cosine mean {cosines.mean():.5f} (bound 0.999), least {cosines.min():.5f}"
        print(f"{precision:5} text to image {shown}; {worst}; {least}")
    chance = "  ".join(f"R@{k} {k / len(images):.4f}" for k in (1, 5, 10))
    print(f"chance text to image {chance}")


def load(count: int) -> tuple[list[Image.Image], list[str], np.ndarray]:
    """Photos, their captions, and the number of the photo of each caption."""
    images, texts = {}, {}
    with tarfile.open(DATA / "photos" / "flickr8k-dev.tar") as archive:
        for member in archive:
            file = archive.extractfile(member)
            name, ending = os.path.splitext(member.name)
            if file and ending == ".jpg":
                images[name] = Image.open(io.BytesIO(file.read())).convert("RGB")
            elif file:
                texts[name] = file.read().decode().splitlines()
    names = sorted(images)[:count]
    captions = [caption for name in names for caption in texts[name]]
    owners = np.repeat(np.arange(len(names)), [len(texts[name]) for name in names])
    return [images[name] for name in names], captions, owners


def recalls(scores: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Recall at 1, 5 and 10: the share of captions whose photo is among the first k."""
    own = scores[np.arange(len(owners)), owners][:, None]
    ranks = (scores > own).sum(axis=1)
    return np.array([(ranks < k).mean() for k in (1, 5, 10)])


if __name__ == "__main__":
    main()
