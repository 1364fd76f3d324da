"""Whether `relevance` tells that nothing is there, beside the best cosine.

    python tests/benchmarks/relevance.py PHOTOS [--vectors VECTORS] [--model builtin] [--resamples 2000]

PHOTOS as for examples/train_builtin/prepare.py; the parts that the built-in model was not trained on, and
Flickr8k's development split. Every class is asked for by its name, in three spellings, once among all
pictures and once with all pictures of the class removed. A class of Flickr8k is a noun: the pictures of
which one of five captions has it. AUROC is the chance that a query with pictures has the better best hit
than one without, equal values counting half; the mean over the spellings. The interval of the gain holds
95 % of its values for classes drawn again, the same for both. Then the shares of queries that find
something relevant (0.5), with the pictures, without them, and of neutral queries that were not used for
the calibration. Last, the recall of captions when pictures are ordered by what relevance is made of.

With --growth: how many neutral queries find something relevant among more and more pictures of all sets.

VECTORS are real vectors of CLIP (ViT-B/32, OpenAI) of 100 photos, and of 2,148 class names, which are the
neutral queries there: each caption is asked for with its photo and without it.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from heldout import held_out

from clipsearch import Encoder, load_encoder
from clipsearch.bank import captions
from clipsearch.relevance import ASKED, RELEVANT, Background
from clipsearch.types import Embeddings, as_embeddings

sys.path.append(str(Path(__file__).parents[2] / "examples" / "train_builtin"))

from prepare import read_flickr, read_tar

CLUTTER = "background google"
SPELLINGS = ("{}", "a {}", "a photo of a {}")
K = 200  # as clipsearch.search.JUDGED
FORMS = """
dog:puppy,puppies boy girl man:men woman:women snow:snowy beach:beaches ball bike:bicycle,bicycles,biker
water grass:grassy horse car skateboard:skateboarder,skateboarding mountain:mountainous football pool
guitar camera hat sunglasses soccer tennis basketball swing sand:sandy street bench:benches tree
rock:rocky frisbee helmet jacket shirt river lake ocean wave surfboard motorcycle:motorbike,motorbikes
truck boat bridge fountain fence field crowd bird cat:kitten baby:babies climber:climbing,climbs ramp
trampoline slide tent fire kayak:kayaker,kayaking snowboard:snowboarder,snowboarding
ski:skier,skiers,skiing,skis swimsuit costume dress:dresses toy cup building city playground puddle
hill jeans umbrella phone
"""
NOUNS = {
    noun: [noun, f"{noun}s", *others.split(",")]
    for noun, _, others in (forms.partition(":") for forms in FORMS.split())
}


class Set(NamedTuple):
    """Pictures and what they show.

    Attributes:
        what: which.
        vectors: (n, dim).
        queries: (spellings, L, dim), of the names of the classes.
        shows: (L, n) bool.
    """

    what: str
    vectors: Embeddings
    queries: np.ndarray
    shows: np.ndarray


class Best(NamedTuple):
    """The best hit of every query, (spellings, L), with the pictures of its class and without them."""

    cosine: np.ndarray
    cosine_without: np.ndarray
    relevance: np.ndarray
    relevance_without: np.ndarray


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("photos", type=Path)
    options.add_argument("--vectors", type=Path)
    options.add_argument("--model", default="builtin", help="as in clipsearch.load_encoder")
    options.add_argument("--growth", action="store_true")
    options.add_argument("--resamples", type=int, default=2000)
    args = options.parse_args()
    encoder = load_encoder(args.model, precision="fp32")
    neutral = as_embeddings(encoder.encode_texts(captions()))
    print(f"{'':30}{'AUROC of the best':^24}{'':26}{'relevant: with, without,':>29}")
    print(f"{'':30}{'cosine':>11}{'relevance':>11}{'gain, 95 %':>28}{'neutral':>29}")
    for part in sets(args.photos, encoder):
        background = made(neutral, part.vectors)
        tell(part.what, ask(part, background), of_neutral(background, neutral, part.vectors), args.resamples)
    recall(args.photos, encoder, neutral)
    if args.growth:
        grow(args.photos, encoder, neutral)
    if args.vectors:
        real(args.vectors, args.resamples)


def made(neutral: Embeddings, vectors: Embeddings) -> Background:
    every = -(-len(vectors) // 1000)
    return Background(neutral, vectors[::every], usual=0.9)


def sets(photos: Path, encoder: Encoder) -> Iterator[Set]:
    vectors, told = flickr(photos, encoder)
    words = [set(re.findall(r"[a-z]+", " ".join(texts).lower())) for texts in told]
    shows = {noun: np.array([bool(word & set(forms)) for word in words]) for noun, forms in NOUNS.items()}
    shows = {noun: which for noun, which in shows.items() if 5 <= which.sum() <= len(vectors) / 2}
    yield Set("flickr8k, nouns", vectors, named(encoder, list(shows)), np.array(list(shows.values())))
    for part in held_out(photos, encoder):
        classes = [place for place, name in enumerate(part.labels.names) if name != CLUTTER]
        names = [part.labels.names[place] for place in classes]
        shows_class = part.truth == np.array(classes)[:, None]
        yield Set(part.what, part.vectors, named(encoder, names), shows_class)


def flickr(photos: Path, encoder: Encoder) -> tuple[Embeddings, list[list[str]]]:
    members, told = read_flickr(photos / "flickr8k-dev.tar")
    pictures = [picture.convert("RGB") for _, picture in members]
    return as_embeddings(encoder.encode_images(pictures)), list(told)


def named(encoder: Encoder, names: list[str]) -> np.ndarray:
    return np.stack(
        [as_embeddings(encoder.encode_texts([form.format(n) for n in names])) for form in SPELLINGS]
    )


def ask(part: Set, background: Background) -> Best:
    everything = np.ones(len(part.vectors), bool)
    sides = [
        [
            [
                best(query, part.vectors[kept], background)
                for query, kept in zip(queries, allowed, strict=True)
            ]
            for queries in part.queries
        ]
        for allowed in ([everything] * len(part.shows), ~part.shows)
    ]
    (cosine, relevance), (cosine_without, relevance_without) = (np.moveaxis(side, 2, 0) for side in sides)
    return Best(cosine, cosine_without, relevance, relevance_without)


def best(query: np.ndarray, vectors: Embeddings, background: Background) -> tuple[float, float]:
    """The best cosine, and the best relevance of the 200 hits by cosine."""
    cosines = vectors @ query
    hits = np.argsort(-cosines)[:K]
    return cosines.max(), background.relevance(query, cosines[hits], vectors[hits]).max()


def of_neutral(background: Background, neutral: Embeddings, vectors: Embeddings) -> float:
    """The share of neutral queries, without those the calibration asked, that find something relevant."""
    used = (np.arange(ASKED) * (len(neutral) / ASKED)).astype(int)
    asked = np.delete(neutral, used, 0)[::4]
    return float(np.mean([best(query, vectors, background)[1] >= RELEVANT for query in asked]))


def tell(what: str, found: Best, neutral: float | None, resamples: int) -> None:
    draw = np.random.default_rng(0)
    classes = found.cosine.shape[1]
    drawn = draw.integers(0, classes, (resamples, classes))
    all_classes = np.arange(classes)
    gains = [gain(found, some) for some in drawn]
    low, high = np.quantile(gains, (0.025, 0.975))
    cosine = auroc(found.cosine, found.cosine_without)
    relevance = auroc(found.relevance, found.relevance_without)
    shares = [(side >= RELEVANT).mean() for side in (found.relevance, found.relevance_without)]
    about = f"{what}, {classes} queries"
    told = "".join(f"{share:8.2f}" for share in [*shares, *([] if neutral is None else [neutral])])
    change = f"{gain(found, all_classes):+.3f} ({low:+.3f} to {high:+.3f})"
    print(f"{about:30}{cosine:11.3f}{relevance:11.3f}{change:>28}     {told}", flush=True)


def gain(found: Best, some: np.ndarray) -> float:
    relevance = auroc(found.relevance[:, some], found.relevance_without[:, some])
    return relevance - auroc(found.cosine[:, some], found.cosine_without[:, some])


def auroc(with_: np.ndarray, without: np.ndarray) -> float:
    """The chance that one with pictures has the higher value; both (spellings, L)."""
    above = with_[:, :, None] - without[:, None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def grow(photos: Path, encoder: Encoder, neutral: Embeddings) -> None:
    names = ("flickr8k-train", "caltech101-train", "tiny-imagenet-train")
    pictures = [picture for name in names for _, picture in read_tar(photos / f"{name}.tar")]
    parts = [encoder.encode_images([p.convert("RGB") for p in pictures[i::64]]) for i in range(64)]  # mixed
    vectors = as_embeddings(np.concatenate(parts))
    for count in (100, 1000, 10_000, len(vectors)):
        some = vectors[np.random.default_rng(0).permutation(len(vectors))[:count]]
        share = of_neutral(made(neutral, some), neutral, some)
        print(f"{count:,} pictures: {share:.2f} of neutral queries find something relevant", flush=True)


def recall(photos: Path, encoder: Encoder, neutral: Embeddings) -> None:
    vectors, told = flickr(photos, encoder)
    queries = as_embeddings(encoder.encode_texts([text for texts in told for text in texts]))
    truth = np.repeat(np.arange(len(told)), [len(texts) for texts in told])
    order("flickr8k, captions", queries, vectors, truth, made(neutral, vectors))


def order(what: str, queries: Embeddings, vectors: Embeddings, truth: np.ndarray, made: Background) -> None:
    cosines = queries @ vectors.T
    relevance = np.array(
        [made.relevance(query, row, vectors) for query, row in zip(queries, cosines, strict=True)]
    )
    ranks = [rank(scores, truth) for scores in (cosines, relevance)]
    told = [" ".join(f"{(each < k).mean():.3f}" for k in (1, 5, 10)) for each in ranks]
    print(f"{what}: R@1, 5, 10 by cosine {told[0]}; ordered by relevance {told[1]}", flush=True)


def rank(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return (scores > np.take_along_axis(scores, truth[:, None], 1)).sum(1)


def real(folder: Path, resamples: int) -> None:
    vectors = as_embeddings(np.load(folder / "flickr8k-100" / "image_embeddings.npy")[::5])
    queries = as_embeddings(np.load(folder / "flickr8k-100" / "text_embeddings.npy"))
    files = sorted((folder / "class-names").glob("*.npy"))
    names = as_embeddings(np.concatenate([np.load(file).astype(np.float32) for file in files]))
    truth = np.repeat(np.arange(100), 5)
    shows = np.arange(100) == truth[:, None]
    background = made(names[np.random.default_rng(0).permutation(len(names))], vectors)
    part = Set("CLIP ViT-B/32", vectors, queries[None], shows)
    tell(part.what, ask(part, background), None, resamples)
    order(part.what, queries, vectors, truth, background)


if __name__ == "__main__":
    main()
