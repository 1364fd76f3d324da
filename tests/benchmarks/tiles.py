"""What tiles are worth for small things, what they do to ordinary searches, and what they cost.

    python tests/benchmarks/tiles.py PHOTOS [--rounds 2] [--side 384] [--grids 3x3 4x4]

PHOTOS as for examples/train_builtin/prepare.py. The built-in model, each way in a collection of its own.

Small things: the objects of Caltech-101 that the model was not trained on are put into the photos of
Flickr8k's development split, enlarged to `side` pixels, one each, anywhere, their longer side a quarter to a
third of the photo's; the rest of the 1,000 photos stay without. Each class is asked for by "a photo of a
NAME"; the means over the classes and the rounds, which put other objects into other photos. R@k: the share
of classes of which one is among the first k. Ordinary searches: the 1,000 photos alone and their 5,000
captions. `overlap` is what neighbouring tiles share of their sides: those of clipsearch share nothing, and
here they are made larger to see what that would be worth.
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from heldout import chosen
from PIL import Image
from precision import load
from prepare import read_tar

import clipsearch as cs
from clipsearch import outcomes
from clipsearch.segments import WHOLE, Box

WAYS = (
    ("", 0.0),
    ("2x2", 0.0),
    ("3x3", 0.0),
    ("3x3", 0.25),
    ("4x4", 0.0),
    ("2x2+3x3", 0.0),
)
CLUTTER = "background google"
SHARES = (1 / 4, 1 / 3)  # of the photo's side that an object's longer side has


class Pictures(NamedTuple):
    """Pictures and what is asked of them.

    Attributes:
        files: n JPEGs.
        asked: q texts.
        right: bool (q, n), which pictures answer a text.
    """

    files: list[bytes]
    asked: list[str]
    right: np.ndarray


class Found(NamedTuple):
    """How well, and at what cost.

    Attributes:
        recall: float (3,), the share of texts with a right picture among the first 1, 5 and 10.
        precision: mean average precision, of as many hits as were asked for.
        ms: of processor time to add a picture.
        bytes: of the vectors, for each picture.
    """

    recall: np.ndarray
    precision: float
    ms: float
    bytes: float


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("photos", type=Path)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--side", type=int, default=384, help="of the photos with objects, in pixels")
    options.add_argument("--grids", nargs="+", help="only these; all of them where none is named")
    args = options.parse_args()
    photos, captions, owners = load(1000)
    objects = list(small_things(args.photos))
    rounds = [composed(photos, objects, args.side, seed) for seed in range(args.rounds)]
    right = owners[:, None] == np.arange(len(photos))
    plain = Pictures([jpeg(photo) for photo in photos], captions, right)
    print(f"{len(objects)} objects of {len(rounds[0].asked)} classes in {len(photos):,} photos")
    print(f"{'':20}{'small things':^28}{'captions':^21}{'a picture':^22}")
    print(
        f"{'tiles':10}{'overlap':>8}{'R@1':>9}{'R@5':>8}{'mAP':>8}{'R@1':>12}{'R@10':>8}"
        f"{'ms':>12}{'bytes':>8}"
    )
    for grids, overlap in WAYS:
        if args.grids and grids and grids not in args.grids:
            continue
        outcomes.boxes_of = partial(boxes, overlap=overlap)
        small = [measure(some, grids, k=len(photos)) for some in rounds]
        whole = measure(plain, grids, k=10)
        r1, r5, _ = np.mean([found.recall for found in small], axis=0)
        precision, ms = np.mean([(found.precision, found.ms) for found in small], axis=0)
        print(
            f"{grids or 'none':10}{overlap:8.2f}{r1:9.3f}{r5:8.3f}{precision:8.3f}"
            f"{whole.recall[0]:12.4f}{whole.recall[2]:8.4f}{ms:12.1f}{whole.bytes:8.0f}",
            flush=True,
        )


def small_things(photos: Path) -> Iterator[tuple[str, Image.Image]]:
    """Classes and pictures of Caltech-101 that were held out of training, without its clutter."""
    members = read_tar(photos / "caltech101-train.tar")
    classes = [name.split("/")[-2] for name, _ in members]
    kept, names = chosen("caltech101", photos, members, classes)
    for keep, name, (_, image) in zip(kept, classes, members, strict=True):
        if keep and names[name] != CLUTTER:
            yield names[name], image.convert("RGB")


def composed(
    photos: Sequence[Image.Image], objects: Sequence[tuple[str, Image.Image]], side: int, seed: int
) -> Pictures:
    """The photos in another order, an object in each of the first."""
    rng = np.random.default_rng(seed)
    files, classes = [], []
    for place, photo in enumerate(rng.permutation(len(photos))):
        picture = photos[photo].resize((side, side), Image.Resampling.BICUBIC)
        name, image = objects[place] if place < len(objects) else ("", None)
        if image is not None:
            scale = rng.uniform(*SHARES) * side / max(image.size)
            small = image.resize([round(scale * length) for length in image.size], Image.Resampling.BICUBIC)
            room = side - small.width, side - small.height
            picture.paste(small, tuple(int(rng.integers(0, most + 1)) for most in room))
        files.append(jpeg(picture))
        classes.append(name)
    names = sorted(set(classes) - {""})
    right = np.array(names)[:, None] == np.array(classes)
    return Pictures(files, [f"a photo of a {name}" for name in names], right)


def boxes(grids: str, *, overlap: float) -> list[Box]:
    """What clipsearch.tiles.boxes_of gives, with tiles that share a part of their sides."""
    found = [WHOLE]
    for grid in filter(None, grids.split("+")):
        lengths = [1 / (int(count) - (int(count) - 1) * overlap) for count in grid.split("x")]
        rows, columns = (
            [place * length * (1 - overlap) for place in range(int(count))]
            for count, length in zip(grid.split("x"), lengths, strict=True)
        )
        found += [
            (left, top, min(1.0, left + lengths[1]), min(1.0, top + lengths[0]))
            for top in rows
            for left in columns
        ]
    return found


def jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=92)
    return file.getvalue()


def measure(pictures: Pictures, grids: str, *, k: int) -> Found:
    """Add the pictures with these tiles to a new collection and ask it."""
    with tempfile.TemporaryDirectory() as folder, cs.Collection(f"{folder}/c", model="builtin") as photos:
        named = ((str(number), data) for number, data in enumerate(pictures.files))
        started = time.process_time()  # not of the clock: other programs may run
        photos.add(named, tiles=grids or None, progress=False)
        ms = (time.process_time() - started) * 1e3 / len(pictures.files)
        found = photos.search_many(pictures.asked, k=k)
        size = photos.info()["models"][0]["bytes"] / len(pictures.files)
    order = np.array([[int(hit.key) for hit in hits] for hits in found])  # (q, n)
    hits = np.take_along_axis(pictures.right, order, axis=1)  # (q, n)
    recall = np.array([hits[:, :first].any(axis=1).mean() for first in (1, 5, 10)])
    ranks = np.arange(1, hits.shape[1] + 1)
    precisions = np.cumsum(hits, axis=1) / ranks * hits
    return Found(
        recall,
        float((precisions.sum(axis=1) / pictures.right.sum(axis=1)).mean()),
        ms,
        size,
    )


if __name__ == "__main__":
    main()
