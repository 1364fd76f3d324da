"""COCO's 80 names and 100 photos of Flickr8k, on vectors of the real CLIP ViT-B/32: no model is run.

    python tests/benchmarks/real_clip.py --vectors DIRECTORY

DIRECTORY holds flickr8k-100/ (image_embeddings.npy: 100 photos x 5 equal rows; metadata.csv with their
captions) and class-names/ (vectors of "a {name}" for COCO, LVIS, Objects365 and Open Images). A photo
shows a label when two of its five captions say it or a word for it; what captions leave out counts as
absent, so precision and mAP are lower bounds. The background of "contrast" are the other three sets'
names, less those related to a label, by the rule that clipsearch follows for ImageNet's. "label centred"
is no score of clipsearch: the cosine less the label's mean over these photos, which needs many photos of
all kinds. "mAP" orders the photos by each label, for labels with 3 photos or more, so that nothing done
to a label as a whole changes it; "pooled" orders all pairs of photo and such a label together; "top-1" is
how many photos show their best label of the 80.
"""

import argparse
import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from clipsearch.labels import Classifier
from clipsearch.labels.classifier import DEFAULT_SCALE, RELATED, SAME
from clipsearch.labels.results import SAID_AT
from clipsearch.types import Embeddings, as_embeddings

COCO = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove,
skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple,
sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining
table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink,
refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush
"""
WORDS = {
    "person": "person|people|(?:wo)?m[ae]n|boys?|girls?|child(?:ren)?|kid|player|lady|guy|couple|crowd|"
    "toddler|baby",
    "dog": "dogs?|puppy|puppies",
    "bicycle": "bicycle|bikes?|bicyclist|cyclist",
    "motorcycle": "motorcycle|dirt bike|motorbike",
    "skis": "skis?|skier|skiing",
    "surfboard": "surfboard|surfing|surfer|surfs",
    "snowboard": "snowboard(?:er|ing)?",
    "skateboard": "skateboard(?:er|ing)?",
    "sports ball": "ball|soccer|football|basketball|baseball",
}
NAMES = [name.strip() for name in COCO.split(",")]
DOG = NAMES.index("dog")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--vectors", type=Path, required=True)
    args = options.parse_args()
    photos = as_embeddings(np.load(args.vectors / "flickr8k-100" / "image_embeddings.npy")[::5])
    shown = captioned(args.vectors / "flickr8k-100" / "metadata.csv")  # (100, 80)
    coco, lvis, *others = (
        vectors(args.vectors, name) for name in ("coco_clip_a+cname", "lvis_v1_clip_a+cname",
                                                 "o365_clip_a+cnamefix", "oid_clip_a+cname")
    )  # fmt: skip
    words = background(coco, np.concatenate([lvis, *others]))
    usual = shown.sum(0) >= 3
    dogs = shown[:, DOG]
    print(
        f"{len(photos)} photos, {dogs.sum()} of dogs; {usual.sum()} labels with 3 photos or more; "
        f"{len(words):,} background words"
    )
    print(
        f"{'':16}{'mAP':>8}{'pooled':>8}{'top-1':>8}{'dog in the top 5':>18}{'dog first':>11}"
        "   first most often on dogs' photos"
    )
    cosines = photos @ coco.T
    contrast = scores(Classifier(coco, words, "contrast", DEFAULT_SCALE), photos)
    for what, values in {
        "by chance": np.zeros_like(cosines),
        "cosine": cosines,
        "softmax": scores(Classifier(coco, words, "softmax", DEFAULT_SCALE), photos),
        "contrast": contrast,
        "label centred": cosines - cosines.mean(0),
    }.items():
        mean = average_precision_score(shown[:, usual], values[:, usual], average="macro")
        pooled = average_precision_score(shown[:, usual], values[:, usual], average="micro")
        print(f"{what:16}{mean:8.3f}{pooled:8.3f}" + (firsts(values, cosines, shown) if values.any() else ""))
    said = contrast >= SAID_AT["contrast"]
    right = (said & shown)[:, usual].sum()
    print(
        f"contrast from {SAID_AT['contrast']}: {said.sum() / len(photos):.1f} labels a photo; "
        f"of the {usual.sum()} labels, {right} of {said[:, usual].sum()} right "
        f"and {right} of {shown[:, usual].sum()} found"
    )
    print(
        f"AUC of LVIS's dog: {roc_auc_score(dogs, photos @ lvis[lvis_names(args.vectors).index('dog')]):.3f}"
    )


def firsts(values: np.ndarray, cosines: np.ndarray, shown: np.ndarray) -> str:
    """How often the best label is shown, and how early "dog" comes for dogs; equal scores by the cosine."""
    order = np.lexsort((-cosines, -values), axis=1)  # (photos, 80), best first
    right = np.take_along_axis(shown, order[:, :1], 1).mean()
    dogs = order[shown[:, DOG]]
    place = (dogs == DOG).argmax(1)
    most = ", ".join(f"{NAMES[label]} {n}" for label, n in Counter(dogs[:, 0].tolist()).most_common(3))
    return f"{right:8.2f}{(place < 5).sum():18}{(place == 0).sum():11}   {most}"


def scores(classify: Classifier, photos: Embeddings) -> np.ndarray:
    """Every label's score, (photos, 80)."""
    scored = classify(photos, len(classify.vectors))
    table = np.empty_like(scored.scores)
    np.put_along_axis(table, scored.top.astype(np.int64), scored.scores, 1)
    return table


def background(labels: Embeddings, words: Embeddings) -> Embeddings:
    """The words that are none of the labels; as `clipsearch.labels.classifier.background`, from vectors."""
    near = words @ labels.T
    return words[(near < np.minimum(near.mean(0) + RELATED * near.std(0), SAME)).all(1)]


def captioned(path: Path) -> np.ndarray:
    """Which labels each photo shows, bool (100, 80)."""
    with path.open(encoding="utf-8", newline="") as file:
        captions = [row["caption"].lower() for row in csv.DictReader(file)]
    patterns = [re.compile(rf"\b(?:{WORDS.get(name, name + 's?')})\b") for name in NAMES]
    said = np.array([[bool(pattern.search(caption)) for pattern in patterns] for caption in captions])
    return said.reshape(-1, 5, len(NAMES)).sum(1) >= 2


def vectors(folder: Path, name: str) -> Embeddings:
    return as_embeddings(np.load(folder / "class-names" / f"{name}.npy"))


def lvis_names(folder: Path) -> list[str]:
    text = (folder / "class-names" / "lvis_v1_train_cat_info.json").read_text(encoding="utf-8")
    return [row["name"] for row in sorted(json.loads(text), key=lambda row: row["id"])]


if __name__ == "__main__":
    main()
