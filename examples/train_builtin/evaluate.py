"""Step 7: how good a model is on what it did not see.

    python evaluate.py PHOTOS [--model DIRECTORY]

Prints one table, chance beside each figure. All pictures go through clipsearch's encoder, from their files.
Held out: Flickr8k's dev split, a tenth of each class of Caltech-101's training part, the validation part of
the clothing set, five pictures of each class of tiny-imagenet; and the sample photos of scikit-image. No
official test split is looked at.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from prepare import HELD_OUT, HELD_OUT_TINY, Pictures, hold_out, read_flickr, read_tar, tiny_names

from clipsearch import Encoder, load_encoder
from clipsearch.cli.demo import sample_photos

PROMPT = "a photo of a {}"

NATURAL = {
    "astronaut.png": "a woman astronaut in an orange suit",
    "brick.png": "a brick wall",
    "camera.png": "a man with a camera on a tripod",
    "chelsea.png": "a close-up of a cat",
    "clock_motion.png": "a clock",
    "coffee.png": "a cup of coffee",
    "coins.png": "old coins",
    "grass.png": "green grass",
    "gravel.png": "small stones on the ground",
    "hubble_deep_field.jpg": "galaxies and stars in space",
    "moon.png": "the surface of the moon",
    "motorcycle_left.png": "a motorcycle in a garage",
    "motorcycle_right.png": "a red motorcycle",
    "page.png": "a page of text from a book",
    "retina.jpg": "the retina of an eye",
    "rocket.jpg": "a rocket on its launch pad",
}
"""A query a photo that a person would type, written once and not changed for a model's sake."""

KS = (1, 5, 10)
Row = tuple[str, float, float]  # what, chance, figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="builtin", help="as in clipsearch.load_encoder")
    options = parser.parse_args()
    encoder = load_encoder(options.model, precision="fp32")
    print(f"{'':44}{'chance':>8}{options.model:>12}")
    for part in (retrieval, caltech101, clothing, tiny_imagenet):
        for what, chance, figure in part(encoder, options.photos):
            print(f"{what:44}{chance:8.3f}{figure:12.4f}", flush=True)
    mean, ranks = natural(encoder)
    print(f"{'sample photos, mean rank (lower is better)':44}{8.5:8.1f}{mean:12.2f}")
    print("\n" + "\n".join(f"  {rank:2}  {query}" for query, rank in ranks.items()))


def retrieval(encoder: Encoder, photos: Path) -> list[Row]:
    """Recall@k on Flickr8k dev: 1,000 photos, 5,000 captions."""
    members, captions = read_flickr(photos / "flickr8k-dev.tar")
    scores = encoder.encode_texts([c for five in captions for c in five]) @ images_of(encoder, members).T
    to_image = before(scores, np.arange(len(members)).repeat(5))
    to_text = before(scores.T, np.arange(len(captions) * 5).reshape(-1, 5)).min(1)
    by_chance = [1 - float(np.prod([1 - 5 / (len(scores) - i) for i in range(k)])) for k in KS]
    return [
        *(row(f"Flickr8k dev, text to image R@{k}", k / len(members), to_image < k) for k in KS),
        *(
            row(f"Flickr8k dev, image to text R@{k}", c, to_text < k)
            for k, c in zip(KS, by_chance, strict=True)
        ),
    ]


def caltech101(encoder: Encoder, photos: Path) -> list[Row]:
    members = read_tar(photos / "caltech101-train.tar")
    classes = [name.split("/")[-2] for name, _ in members]
    kept = np.flatnonzero(hold_out(classes, HELD_OUT))
    names = {name: name.replace("_", " ").lower() for name in classes}
    return zero_shot(
        "Caltech-101, held out", encoder, [members[i] for i in kept], [classes[i] for i in kept], names
    )


def clothing(encoder: Encoder, photos: Path) -> list[Row]:
    members = [m for m in read_tar(photos / "clothing-train.tar") if "validation/" in m[0]]
    classes = [name.split("/")[-2] for name, _ in members]
    return zero_shot("clothing, validation", encoder, members, classes, {name: name for name in classes})


def tiny_imagenet(encoder: Encoder, photos: Path) -> list[Row]:
    members = read_tar(photos / "tiny-imagenet-train.tar")
    classes = [name.split("/")[-2] for name, _ in members]
    kept = np.flatnonzero(hold_out(classes, HELD_OUT_TINY))
    names = {wnid: names[0] for wnid, names in tiny_names(photos).items()}
    return zero_shot(
        "tiny-imagenet, held out",
        encoder,
        [members[i] for i in kept],
        [classes[i] for i in kept],
        names,
        ks=(1, 5),
    )


def zero_shot(what: str, encoder: Encoder, members: Pictures, classes: list[str], names: dict[str, str],
              ks: tuple[int, ...] = (1,)) -> list[Row]:  # fmt: skip
    """Top-k accuracy with one prompt a class."""
    order = sorted(names)
    prompts = encoder.encode_texts([PROMPT.format(names[name]) for name in order])
    scores = images_of(encoder, members) @ prompts.T
    rank = before(scores, np.array([order.index(name) for name in classes]))
    return [row(f"{what} ({len(classes)}), top-{k}", k / len(order), rank < k) for k in ks]


def natural(encoder: Encoder) -> tuple[float, dict[str, int]]:
    """The place of each sample photo for its query: the mean, and each."""
    photos = {path.name: Image.open(path) for path in sample_photos()}
    images = images_of(encoder, [(name, photos[name]) for name in NATURAL])
    ranks = before(encoder.encode_texts(list(NATURAL.values())) @ images.T, np.arange(len(NATURAL))) + 1
    return float(ranks.mean()), dict(zip(NATURAL.values(), ranks.tolist(), strict=True))


def before(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How many others come before the right answers; a tie is no hit.

    Args:
        scores: (queries, answers).
        right: (queries,), or (queries, k) where k answers are right: none of them is in another's way.
    """
    own = np.take_along_axis(scores, right.reshape(len(right), -1), 1)  # (queries, k)
    first = (scores[:, None] >= own[..., None]).sum(2) - (own[:, None] >= own[..., None]).sum(2)
    return np.asarray(first.reshape(right.shape))


def row(what: str, chance: float, hits: np.ndarray) -> Row:
    return what, chance, float(hits.mean())


def images_of(encoder: Encoder, members: Pictures) -> np.ndarray:
    return np.asarray(encoder.encode_images([image.convert("RGB") for _, image in members]))


if __name__ == "__main__":
    main()
