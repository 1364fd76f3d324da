"""Decoding 12-megapixel JPEGs, beside the least anyone can do; and what reduced decoding does to vectors.

    python tests/benchmarks/decode.py [--rounds 8] [--side 224] [--photos 200]

Table 1: processor seconds of `decode` to the pixels a model takes, beside a bare Image.open, draft and
resize of the same bytes, turn by turn in one process; the bound is 1.15. The files are made from
scikit-image's photos, enlarged to 4000 x 3000 with sensor-like noise, 3.5 MB or more each.

Table 2: cosine between the built-in model's vectors of reduced and of full decodes; the bounds are
0.999 in the mean and 0.995 at least.
"""

import argparse
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import skimage.data
from PIL import Image
from tqdm.auto import tqdm

from clipsearch.decode import decode
from clipsearch.encoders import load_encoder

SIZE = (4000, 3000)
LEAST_BYTES = 3_500_000
NAMES = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "moon",
    "retina",
    "rocket",
)
BESIDE = Path(__file__).parents[3] / "shared" / "data"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=8)
    options.add_argument("--side", type=int, default=224)
    options.add_argument(
        "--photos", type=int, default=200, help="of Flickr8k's development split, where it is"
    )
    args = options.parse_args()
    samples = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in NAMES]
    with tempfile.TemporaryDirectory() as folder:
        files = [
            save_large(image, Path(folder) / f"{place}.jpg") for place, image in enumerate(tqdm(samples))
        ]
        speed([path.read_bytes() for path in files], args.side, args.rounds)
        fidelity("scikit-image, 12 megapixels with noise", (path.read_bytes() for path in files))
    if (
        tar := Path(os.environ.get("CLIPSEARCH_TEST_DATA", BESIDE)) / "photos" / "flickr8k-dev.tar"
    ).is_file():
        fidelity("Flickr8k development, enlarged to 12 megapixels", islice(enlarged(tar), args.photos))


def save_large(image: Image.Image, path: Path) -> Path:
    """A JPEG as a camera writes it: noise in every pixel, EXIF with a date, a camera and a place."""
    exif = Image.Exif()
    exif.update({0x010F: "Acme", 0x0110: "One", 0x0112: 1})
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 24.0), 3: "E", 4: (2.0, 21.0, 3.0)})
    pixels = np.asarray(image.resize(SIZE, Image.Resampling.LANCZOS), np.float32)
    grain = np.random.default_rng(0).standard_normal(pixels.shape, np.float32)
    strength = 2.0  # grey levels
    while not path.exists() or path.stat().st_size < LEAST_BYTES:
        noisy = np.clip(pixels + strength * grain, 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=90, exif=exif)
        strength *= 1.5
    return path


def speed(files: list[bytes], side: int, rounds: int) -> None:
    def ours(data: bytes) -> Image.Image:
        return decode(data, min_side=side).image.resize((side, side), Image.Resampling.BICUBIC)

    def bare(data: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.draft(None, (2 * side, 2 * side))
        return image.resize((side, side), Image.Resampling.BICUBIC)

    def full(data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(data)).resize((side, side), Image.Resampling.BICUBIC)

    for data in files:
        np.testing.assert_array_equal(np.asarray(ours(data)), np.asarray(bare(data)))
    ways = (ours, bare, full)
    spent: dict[str, list[float]] = {way.__name__: [] for way in ways}
    for data in tqdm(files):
        seconds: dict[str, list[float]] = {way.__name__: [] for way in ways}
        for turn in range(rounds):
            for way in ways[:: 1 if turn % 2 else -1]:  # nobody always comes first
                seconds[way.__name__].append(processor_seconds(way, data))
        for name in spent:
            spent[name].append(median(seconds[name]))
    least, most = min(map(len, files)) / 1e6, max(map(len, files)) / 1e6
    print(f"\n{len(files)} JPEGs of {SIZE[0]} x {SIZE[1]}, {least:.1f} to {most:.1f} MB, to {side} px")
    for way, each in spent.items():
        print(f"  {way:5} {1000 * sum(each) / len(each):7.1f} ms of processor time a picture")
    print(f"  ours / bare = {sum(spent['ours']) / sum(spent['bare']):.3f} (bound 1.15)")
    print(f"  ours / full = {sum(spent['ours']) / sum(spent['full']):.3f}")


def processor_seconds(work: Callable[[bytes], object], data: bytes) -> float:
    before = time.process_time()
    work(data)
    return time.process_time() - before


def enlarged(tar: Path) -> Iterator[bytes]:
    with tarfile.open(tar) as archive:
        for member in archive:
            if member.name.endswith(".jpg") and (file := archive.extractfile(member)):
                large = io.BytesIO()
                Image.open(file).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS).save(
                    large, "JPEG", quality=92
                )
                yield large.getvalue()


def fidelity(title: str, files: Iterator[bytes]) -> None:
    encoder = load_encoder("builtin", precision="fp32")
    cosines = []
    for data in tqdm(files):
        pictures = [decode(data, min_side=min_side).image for min_side in (encoder.min_side, None)]
        reduced, full = encoder.encode_images(pictures)
        cosines.append(float(reduced @ full))
    print(f"\n{title}: {len(cosines)} pictures, least side {encoder.min_side}")
    print(f"  cosine of reduced to full: mean {np.mean(cosines):.5f} (bound 0.999)")
    print(f"                             least {min(cosines):.5f} (bound 0.995)")


if __name__ == "__main__":
    main()
