"""What `A & B` and `A & ~B` find, beside the sentence that says so and beside sums of vectors.

    python tests/benchmarks/boolean.py PHOTOS [--model builtin] [--resamples 2000]

PHOTOS as for examples/train_builtin/prepare.py. On Flickr8k's development split a picture shows A if one of
its five captions has the noun, and B likewise. For every pair of nouns that at least 10 pictures show
together: `A & B` against "A and B" and `A + B`; and, where 10 show A alone, `A & ~B` against "A without B"
and `A - B`. Means over the pairs; the interval of the gain over the sentence holds 95 % of its values for
pairs drawn again. "min" and "sum of log-odds" are other ways to join relevance. Last, texts and pictures
in one sum: a noun and a picture of another noun should find pictures of both, with and without centring.
"""

import argparse
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
from heldout import text_model
from relevance import NOUNS, flickr, made

from clipsearch import Query, load_encoder
from clipsearch.bank import captions
from clipsearch.query_vectors import Means, combine, relevance_of
from clipsearch.types import as_embeddings

LEAST = 10  # pictures that a pair must have
WAYS = ("sentence", "vectors", "cosine", "min", "log-odds", "product")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("photos", type=Path)
    options.add_argument("--model", default="builtin", help="as in clipsearch.load_encoder")
    options.add_argument("--resamples", type=int, default=2000)
    args = options.parse_args()
    encoder = load_encoder(args.model, precision="fp32")
    vectors, told = flickr(args.photos, encoder)
    neutral = as_embeddings(encoder.encode_texts(captions()))
    encode = text_model(encoder).encode
    shows = {noun: shown(told, forms) for noun, forms in NOUNS.items()}
    background = made(neutral, vectors)

    def relevance(text: str) -> np.ndarray:
        query = encode([text])[0]
        return background.relevance(query, vectors @ query, vectors)

    judged = {noun: relevance(noun) for noun in shows}
    cosines = {noun: vectors @ encode([noun])[0] for noun in shows}
    for form, least in (("{} and {}", both), ("{} without {}", alone)):
        pairs = [pair for pair in permutations(shows, 2) if least(*(shows[noun] for noun in pair))]
        pairs = [pair for pair in pairs if form != "{} and {}" or pair[0] < pair[1]]
        negated = "without" in form
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for a, b in pairs:
            truth = shows[a] & (~shows[b] if negated else shows[b])
            other = 1 - judged[b] if negated else judged[b]
            sign = -1 if negated else 1
            query = Query(a) & (~Query(b) if negated else Query(b))
            ranked = {
                "sentence": vectors @ encode([form.format(a, b)])[0],
                "vectors": vectors @ (encode([a])[0] + sign * encode([b])[0]),
                "cosine": np.minimum(cosines[a], sign * cosines[b])
                if not negated
                else cosines[a] - cosines[b],
                "min": np.minimum(judged[a], other),
                "log-odds": logit(judged[a]) + logit(other),
                "product": relevance_of(query, [judged[a], judged[b]]),
            }
            for way in WAYS:
                found[way].append(quality(ranked[way], truth))
        tell(form.replace("{}", "A", 1).replace("{}", "B"), found, args.resamples)
    centring(vectors, shows, encode, neutral, args.resamples)


def shown(told: list[list[str]], forms: list[str]) -> np.ndarray:
    words = [
        set("".join(c if c.isalpha() else " " for c in " ".join(texts).lower()).split()) for texts in told
    ]
    return np.array([bool(word & set(forms)) for word in words])


def both(a: np.ndarray, b: np.ndarray) -> bool:
    return (a & b).sum() >= LEAST


def alone(a: np.ndarray, b: np.ndarray) -> bool:
    return both(a, b) and (a & ~b).sum() >= LEAST


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


def quality(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Precision@10 and average precision of a ranking."""
    right = truth[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return right[:10].mean(), precision[right].mean()


def tell(what: str, found: dict[str, list[tuple[float, float]]], resamples: int) -> None:
    table = {way: np.array(rows) for way, rows in found.items()}  # (pairs, 2)
    first = next(iter(table))
    pairs = len(table[first])
    drawn = np.random.default_rng(0).integers(0, pairs, (resamples, pairs))
    print(f"{what}, {pairs} pairs: precision@10, mAP, gain in mAP over {first!r} (95 %)")
    for way, rows in table.items():
        gain = (rows - table[first])[:, 1]
        low, high = np.quantile(gain[drawn].mean(1), (0.025, 0.975))
        p10, mean = rows.mean(0)
        print(f"  {way:12}{p10:8.3f}{mean:8.3f}{gain.mean():+10.3f} ({low:+.3f} to {high:+.3f})", flush=True)


def centring(
    vectors: np.ndarray,
    shows: dict[str, np.ndarray],
    encode: Callable[[list[str]], np.ndarray],
    neutral: np.ndarray,
    resamples: int,
) -> None:
    """Sums of a noun and a picture of another one."""
    means = Means(neutral.mean(0), vectors.mean(0))
    draw = np.random.default_rng(0)
    found: dict[str, list[tuple[float, float]]] = {
        way: [] for way in ("picture", "text", "plain sum", "centred")
    }
    for a, b in permutations(shows, 2):
        given = np.flatnonzero(shows[a] & ~shows[b])
        if not both(shows[a], shows[b]) or not len(given):
            continue
        picture = int(draw.choice(given))
        rest = np.arange(len(vectors)) != picture
        text, truth = encode([b])[0], (shows[a] & shows[b])[rest]
        query = Query(b) + Query.item(picture)
        embed = {"text": text[None], "item": vectors[picture][None]}
        ways = {
            "picture": vectors[picture],
            "text": text,
            "plain sum": vectors[picture] + text,
            "centred": combine(query, lambda leaf, embed=embed: embed[leaf.kind], means)[0],
        }
        for way, vector in ways.items():
            found[way].append(quality(vectors[rest] @ vector, truth))
    tell("picture of A + B", found, resamples)


if __name__ == "__main__":
    main()
