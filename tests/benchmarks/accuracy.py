"""How often the best label is right: by template, and after a few examples.

    python tests/benchmarks/accuracy.py PHOTOS [--model builtin]

PHOTOS as for examples/train_builtin/prepare.py; the parts that the built-in model was not trained on,
their own class names as labels. Examples are drawn at random from these pictures and refine the
classifier of the template "photo"; acc1 before and after is that of the rest, mean over 5 seeds with the
standard deviation of the gain.
"""

import argparse
from pathlib import Path

import numpy as np
from heldout import PARTS, HeldOut, held_out, text_model

from clipsearch import load_encoder
from clipsearch.labels import Classifier, TextModel, build_classifier, read_templates, refine

TEMPLATES = ("plain", "photo", "simple-7", "openai-80")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("photos", type=Path)
    options.add_argument("--model", default="builtin", help="as in clipsearch.load_encoder")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options.add_argument("--examples", nargs="+", type=int, default=(10, 50, 200))
    options.add_argument("--seeds", type=int, default=5)
    args = options.parse_args()
    encoder = load_encoder(args.model, precision="fp32")
    model = text_model(encoder)
    for part in held_out(args.photos, encoder, args.parts):
        print(f"\n{part.what}: {len(part.truth):,} pictures, {len(part.labels)} labels, {args.model}")
        print(f"{'':24}{'chance':>8}{'acc1':>8}{'before':>8}{'gain, sd':>17}")
        for templates in TEMPLATES:
            told = classifier(part, templates, model)
            print(f"{templates:24}{1 / len(part.labels):8.3f}{acc1(told, part):8.3f}", flush=True)
        words = classifier(part, "photo", model)
        for count in args.examples:
            tell(part, words, count, args.seeds)


def tell(part: HeldOut, words: Classifier, count: int, seeds: int) -> None:
    """Print what so many examples do to the rest of the pictures."""
    before, after, helped = [], [], 0
    for seed in range(seeds):
        shown, rest = np.split(np.random.default_rng(seed).permutation(len(part.truth)), [count])
        refined = refine(words, part.vectors[shown], part.truth[shown], seed=seed)
        before.append(acc1(words, part, rest))
        after.append(acc1(refined.classifier, part, rest))
        helped += refined.helped
    gain = np.subtract(after, before)
    print(
        f"{f'photo, {count} examples':24}{1 / len(part.labels):8.3f}{np.mean(after):8.3f}"
        f"{np.mean(before):8.3f}{gain.mean():+10.3f} {gain.std(ddof=1):.4f}"
        f"   said to help {helped} of {seeds} times",
        flush=True,
    )


def classifier(part: HeldOut, templates: str, model: TextModel) -> Classifier:
    return build_classifier(part.labels, read_templates(templates), model, unknown=False)


def acc1(classify: Classifier, part: HeldOut, rows: slice | np.ndarray = slice(None)) -> float:
    return float((classify(part.vectors[rows], 1).top[:, 0] == part.truth[rows]).mean())


if __name__ == "__main__":
    main()
