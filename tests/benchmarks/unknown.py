"""How well `unknown` tells pictures whose class was left out of the labels, beside the best probability.

    python tests/benchmarks/unknown.py PHOTOS [--model builtin] [--splits 20]

PHOTOS as for examples/train_builtin/prepare.py; the parts that the built-in model was not trained on. A
split gives a random half of a set's classes as labels, in the template "photo"; all pictures are scored.
AUROC is the chance that a picture of a class left out has the higher `unknown` (or the lower best
probability) than one of a class given; equal values count half. Mean over the splits; the interval of the
difference holds 95 % of its values for pictures and splits drawn again, with replacement, the same for
both. Then the shares that the default rule calls unknown. Caltech-101's clutter is never among the
labels.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from heldout import PARTS, HeldOut, held_out, text_model

from clipsearch import load_encoder
from clipsearch.labels import LabelSet, TextModel, build_classifier, read_templates
from clipsearch.labels.results import UNKNOWN_AT

CLUTTER = "background google"


class Found(NamedTuple):
    """What one split gave.

    Attributes:
        unknown, probability: (1 + resamples,) AUROC, of all pictures and of those drawn again.
        rightly, wrongly: the share called unknown of the pictures left out, and of the others.
    """

    unknown: np.ndarray
    probability: np.ndarray
    rightly: float
    wrongly: float


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("photos", type=Path)
    options.add_argument("--model", default="builtin", help="as in clipsearch.load_encoder")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options.add_argument("--splits", type=int, default=20)
    options.add_argument("--resamples", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    encoder = load_encoder(args.model, precision="fp32")
    model = text_model(encoder)
    print(f"{args.model}, {args.splits} splits; AUROC by chance 0.5")
    print(
        f"{'':26}{'unknown':>9}{'best prob.':>12}{'difference, 95 %':>28}   called unknown: left out, given"
    )
    for part in held_out(args.photos, encoder, args.parts):
        draw = np.random.default_rng(args.seed)
        shares = np.full(len(part.truth), 1 / len(part.truth))
        weights = np.vstack([np.ones(len(shares)), draw.multinomial(len(shares), shares, args.resamples)])
        tell(part, [split(part, model, draw, weights) for _ in range(args.splits)], draw)


def tell(part: HeldOut, found: list[Found], draw: np.random.Generator) -> None:
    unknown, probability, rightly, wrongly = map(np.array, zip(*found, strict=True))
    difference = unknown - probability  # (splits, 1 + resamples)
    again = draw.integers(0, len(found), (len(found), difference.shape[1] - 1))
    low, high = np.quantile(np.take_along_axis(difference[:, 1:], again, 0).mean(0), (0.025, 0.975))
    about = f"{part.what}, {len(part.truth):,} pictures"
    print(
        f"{about:26}{unknown[:, 0].mean():9.3f}{probability[:, 0].mean():12.3f}"
        f"{difference[:, 0].mean():+12.3f} ({low:+.3f} to {high:+.3f})"
        f"{rightly.mean():27.3f}{wrongly.mean():7.3f}",
        flush=True,
    )


def split(part: HeldOut, model: TextModel, draw: np.random.Generator, weights: np.ndarray) -> Found:
    """Give half of the classes as labels."""
    names = [place for place, name in enumerate(part.labels.names) if name != CLUTTER]
    given = np.sort(draw.permutation(names)[: len(names) // 2])
    labels = LabelSet(tuple(part.labels[place] for place in given))
    scored = build_classifier(labels, read_templates("photo"), model)(part.vectors, 1)
    outside, called = ~np.isin(part.truth, given), scored.unknown > UNKNOWN_AT
    return Found(
        auroc(scored.unknown, outside, weights),
        auroc(-scored.scores[:, 0], outside, weights),
        float(called[outside].mean()),
        float(called[~outside].mean()),
    )


def auroc(values: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Chance that a positive has the higher value, (b,), for pictures that count as `weights` (b, n) say."""
    order = np.argsort(values)
    first = np.flatnonzero(np.diff(values[order], prepend=-np.inf))  # of each group of equal values
    high, low = (
        np.add.reduceat(weights[:, order] * side[order], first, axis=1) for side in (positive, ~positive)
    )
    below = low.cumsum(1) - low / 2
    return (high * below).sum(1) / (high.sum(1) * low.sum(1))


if __name__ == "__main__":
    main()
