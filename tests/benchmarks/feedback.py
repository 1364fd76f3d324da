"""What picked hits are worth, and what more diverse results cost.

    python tests/benchmarks/feedback.py PHOTOS

PHOTOS holds flickr8k-dev.tar: 1,000 photos with five captions each; the built-in model. Queries are the
words of the captions that 15 to 300 photos have; a photo is relevant when one of its captions has the word.
The first hits of a plain search are judged by that, and mAP is over the photos that were not judged. "text
alone" is the query with the mean of texts taken out and no picked hits, so what is beyond it is what the
hits add. The mean of texts is that of captions that come with clipsearch, none of them from Flickr8k.
Intervals of 95 % by a bootstrap over the words. The logistic regression is scikit-learn's, balanced, its
direction added to the text's with weight 0.3; in the second line 300 photos drawn at random are further
negatives.

Diversity: 10 of the 100 best hits, by the weight of the differences; once as the photos are, and once with
two copies of each, whose cosines to it are about 0.98.
"""

import argparse
import io
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression

import clipsearch
from clipsearch.bank import captions
from clipsearch.diversity import diversify, mean_cosine
from clipsearch.feedback import feedback
from clipsearch.types import as_embeddings

TEXTS = 256  # captions that the mean of texts is taken from
LEAST, MOST = 15, 300  # photos of a word
SMALL = re.compile(
    "the|and|with|his|her|their|its|for|from|into|out|over|while|two|one|three|some|other|that|this|who|there|"
    "through|near|behind|front|down|off|around|another|against|next|onto|along|under|across|being|has|have|him|"
    "them|all|very|about|not|during|top|having|just|like|each|both|what|where|together"
)
POOL, SHOWN = 100, 10

Way = Callable[
    [np.ndarray, np.ndarray, np.ndarray], np.ndarray
]  # query, liked, disliked: what to search with


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("photos", type=Path)
    args = options.parse_args()
    encoder = clipsearch.load_encoder("builtin")
    vectors, said = read(args.photos / "flickr8k-dev.tar", encoder)
    counts = Counter(word for words in said for word in words)
    words = sorted(
        word
        for word, n in counts.items()
        if LEAST <= n <= MOST and not SMALL.fullmatch(word) and len(word) > 2
    )
    queries = as_embeddings(encoder.encode_texts(words))
    truth = np.array([[word in some for some in said] for word in words])  # (words, photos)
    texts = as_embeddings(encoder.encode_texts(captions()[:TEXTS])).mean(axis=0)
    ways = all_ways(vectors, texts)
    for judged in (10, 20, 50):
        compare(vectors, queries, truth, judged, ways)
    diverse(vectors, queries, truth)


def read(path: Path, encoder: clipsearch.Encoder) -> tuple[np.ndarray, list[set[str]]]:
    """The photos' vectors, and the words that are said of each."""
    vectors, said, texts = {}, {}, {}
    with tarfile.open(path) as tar:
        for member in tar:
            name, _, ending = member.name.rpartition(".")
            data = tar.extractfile(member).read()
            if ending == "jpg":
                vectors[name] = encoder.encode_images([Image.open(io.BytesIO(data)).convert("RGB")])
            else:
                texts[name] = data.decode().lower()
    said = [set(re.findall("[a-z]+", texts[name])) for name in vectors]
    return as_embeddings(np.concatenate(list(vectors.values()))), said


def all_ways(vectors: np.ndarray, texts: np.ndarray) -> dict[str, Way]:
    pictures = vectors.mean(axis=0)
    others = vectors[np.random.default_rng(5).choice(len(vectors), 300, replace=False)]
    none = vectors[:0]

    def ours(query: np.ndarray, liked: np.ndarray, disliked: np.ndarray) -> np.ndarray:
        return feedback(query, liked, disliked, pictures=pictures, queries=texts)

    def as_it_is(query: np.ndarray, liked: np.ndarray, disliked: np.ndarray) -> np.ndarray:
        zero = np.zeros_like(pictures)
        return feedback(query, liked, disliked, pictures=zero, queries=zero)

    def logistic(more: np.ndarray) -> Way:
        def way(query: np.ndarray, liked: np.ndarray, disliked: np.ndarray) -> np.ndarray:
            base, bad = ours(query, none, none), np.concatenate([disliked, more])
            if not len(liked) or not len(bad):
                return base
            rows = as_embeddings(np.concatenate([liked, bad]) - pictures)
            right = np.repeat([1, 0], [len(liked), len(bad)])
            fitted = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500).fit(rows, right)
            return base + 0.3 * as_embeddings(fitted.coef_)[0]

        return way

    return {
        "plain search": lambda query, liked, disliked: query,
        "Rocchio, vectors as they are": as_it_is,
        "text alone": lambda query, liked, disliked: ours(query, none, none),
        "Rocchio, means taken out": ours,
        "  liked alone": lambda query, liked, disliked: ours(query, liked, none),
        "logistic regression": logistic(none),
        "  with 300 others": logistic(others),
    }


def compare(
    vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray, judged: int, ways: dict[str, Way]
) -> None:
    precisions: dict[str, list[float]] = {way: [] for way in ways}
    liked = []
    for query, right in zip(queries, truth, strict=True):
        first = np.argsort(-(vectors @ query), kind="stable")[:judged]
        rest = np.setdiff1d(np.arange(len(vectors)), first)
        if not right[rest].any():
            continue
        good, bad = first[right[first]], first[~right[first]]
        liked.append(len(good))
        for way, make in ways.items():
            scores = vectors[rest] @ make(query, vectors[good], vectors[bad])
            precisions[way].append(average_precision(scores, right[rest]))
    print(f"\n{judged} judged, {len(liked)} words, {np.mean(liked):.1f} of them relevant")
    print(f"{'':32}{'mAP':>7}{'gain on plain':>28}{'gain on text alone':>28}{'mAP, 5 liked':>14}")
    many = np.array(liked) >= 5
    for way, found in precisions.items():
        gains = [interval(np.subtract(found, precisions[base])) for base in ("plain search", "text alone")]
        print(
            f"{way:32}{np.mean(found):7.4f}{gains[0]:>28}{gains[1]:>28}{np.array(found)[many].mean():14.4f}"
        )


def average_precision(scores: np.ndarray, right: np.ndarray) -> float:
    ranked = right[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean())


def interval(values: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(5000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{values.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def diverse(vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    copies = np.repeat(vectors, 3, axis=0)
    noise = as_embeddings(rng.standard_normal(copies.shape)) * 0.2
    noise[::3] = 0
    for what, rows, photo in (
        ("as they are", vectors, np.arange(len(vectors))),
        ("with two copies of each", as_embeddings(copies + noise), np.repeat(np.arange(len(vectors)), 3)),
    ):
        print(f"\n{SHOWN} of the {POOL} best, photos {what}")
        print(f"{'weight':>8}{'precision':>11}{'different photos':>18}{'relevant ones':>15}{'cosine':>15}")
        for weight in (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0):
            found = []
            for query, right in zip(queries, truth, strict=True):
                scores = rows @ query
                pool = np.argsort(-scores, kind="stable")[:POOL]
                chosen = pool[diversify(scores[pool], rows[pool], SHOWN, weight)]
                shown = np.unique(photo[chosen])
                alike = mean_cosine(rows[chosen])
                found.append((right[photo[chosen]].mean(), len(shown), right[shown].sum(), alike))
            precision, different, relevant, alike = np.mean(found, axis=0)
            print(f"{weight:8.1f}{precision:11.4f}{different:18.2f}{relevant:15.2f}{alike:15.4f}")


if __name__ == "__main__":
    main()
