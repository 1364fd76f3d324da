"""Pictures with known labels that the built-in model was not trained on, and their vectors."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clipsearch import Encoder
from clipsearch.labels import LabelSet, TextModel, read_labels
from clipsearch.types import Embeddings

sys.path.append(str(Path(__file__).parents[2] / "examples" / "train_builtin"))

from prepare import HELD_OUT, HELD_OUT_TINY, Pictures, hold_out, read_tar, tiny_names

PARTS = ("caltech101", "clothing", "tiny-imagenet")


class HeldOut(NamedTuple):
    """A part of a set.

    Attributes:
        what: which.
        labels: of the whole set, L.
        vectors: (n, dim).
        truth: int64 (n,), positions of labels.
    """

    what: str
    labels: LabelSet
    vectors: Embeddings
    truth: np.ndarray


def held_out(photos: Path, encoder: Encoder, parts: Sequence[str] = PARTS) -> Iterator[HeldOut]:
    """The parts that examples/train_builtin holds out, from its tar files.

    A tenth of each class of Caltech-101, the validation part of clothing, five pictures of each class of
    tiny-imagenet; with the names that its evaluation gives the classes.
    """
    for part in parts:
        members = read_tar(photos / f"{part}-train.tar")
        classes = [name.split("/")[-2] for name, _ in members]
        kept, names = chosen(part, photos, members, classes)
        order = sorted(names)
        vectors = encoder.encode_images([members[i][1].convert("RGB") for i in np.flatnonzero(kept)])
        truth = np.array([order.index(classes[i]) for i in np.flatnonzero(kept)])
        yield HeldOut(part, read_labels([names[name] for name in order]), vectors, truth)


def chosen(
    part: str, photos: Path, members: Pictures, classes: list[str]
) -> tuple[Sequence[bool], dict[str, str]]:
    """Which pictures are held out, and what each class is called."""
    if part == "tiny-imagenet":
        names = tiny_names(photos)
        return hold_out(classes, HELD_OUT_TINY), {name: names[name][0] for name in set(classes)}
    names = {name: name.replace("_", " ").lower() for name in classes}
    if part == "clothing":
        return ["validation/" in name for name, _ in members], names
    return hold_out(classes, HELD_OUT), names


def text_model(encoder: Encoder) -> TextModel:
    """An encoder's text side, which encodes no text twice while it lives and keeps nothing on disk."""
    known: dict[str, np.ndarray] = {}

    def encode(texts: Sequence[str]) -> Embeddings:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, encoder.encode_texts(new), strict=True))
        return np.stack([known[text] for text in texts])

    scale, bias = (getattr(encoder, name, None) for name in ("logit_scale", "logit_bias"))
    return TextModel(encoder.model_id, (encoder.model_id, encoder.dim, ""), encode, scale, bias)
