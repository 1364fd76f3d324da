"""How often a certified threshold keeps its promise, and what it costs, beside two simpler choices.

    python tests/benchmarks/promise.py [--reviews 400 --resamplings 200 --target 0.95 --scores FILE.npz]

Each resampling reviews so many pictures of one fixed set: a quarter in a first round, the rest in a
second that is drawn near the threshold. Beside it, with as many answers drawn from everywhere: "naive",
the lowest threshold at which the reviewed precision is the target; "split", which finds that with half of
the answers and tests it with the other half (Clopper-Pearson). Bounds: the true precision of what is kept
reaches the target in 95 % of the resamplings less their sampling error. Coverage is a share of what an
oracle's threshold keeps; its median should be 0.5. FILE.npz has the arrays score and right.
"""

import argparse

import numpy as np
from scipy.stats import binom

from clipsearch.labels.certify import Answers, certified_threshold, draw, of_round
from clipsearch.labels.shares import proportion

PICTURES = 5000


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--reviews", type=int, default=400)
    options.add_argument("--resamplings", type=int, default=200)
    options.add_argument("--target", type=float, default=0.95)
    options.add_argument("--scores", help="real scores: an .npz with the arrays score and right")
    args = options.parse_args()
    bound = binom.ppf(0.01, args.resamplings, 0.95) / args.resamplings
    print(
        f"{args.reviews} reviews, {args.resamplings} resamplings, target {args.target:g}; bound {bound:.3f}"
    )
    for name, (score, right) in worlds(args.scores).items():
        best = oracle(score, right, args.target)
        print(f"{name}: {len(score):,} pictures, accuracy {right.mean():.3f}, oracle coverage {best:.3f}")
        for method in (clipsearch, split, naive):
            rngs = [np.random.default_rng(seed) for seed in range(args.resamplings)]
            chosen = [method(score, right, args.target, args.reviews, rng) for rng in rngs]
            kept = np.array([np.mean(score >= threshold) for threshold in chosen])
            broken = [right[score >= t].mean() < args.target - 1e-9 for t in chosen if t < np.inf]
            share = kept / best if best else kept * np.nan
            ratio = (
                f"coverage/oracle: median {np.median(share):.2f}, half or more {np.mean(share >= 0.5):.2f}"
            )
            promise = f"promise kept {1 - np.sum(broken) / len(chosen):.3f}"
            print(f"  {method.__name__:10} {promise}  {ratio}  none certified {np.mean(kept == 0):.2f}")


def worlds(path: str | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scores and whether each label is right; `margin` is the true log odds of being right."""
    if path is not None:
        with np.load(path) as stored:
            return {path: (stored["score"].astype(float), stored["right"].astype(bool))}
    rng = np.random.default_rng(0)
    margin = rng.normal(1.5, 2, PICTURES)
    common = rng.random(PICTURES) < 0.9  # one class holds nine tenths, and is the easier one
    uneven = np.where(common, rng.normal(3, 2, PICTURES), rng.normal(-0.5, 1.5, PICTURES))
    easy = rng.normal(6, 1.5, PICTURES)
    chances = {
        "well calibrated": (sigmoid(margin), sigmoid(margin)),
        "overconfident, with ties": (np.round(sigmoid(2.5 * margin + 1), 3), sigmoid(margin)),
        "one class in 9 of 10": (sigmoid(1.5 * uneven + np.where(common, 0, 1.5)), sigmoid(uneven)),
        "2.5 % wrong at the best": (sigmoid(margin), 0.975 * sigmoid(1.3 * margin)),
        "very accurate": (sigmoid(easy), sigmoid(easy)),
        "hopeless": (sigmoid(margin), np.full(PICTURES, 0.6)),
    }
    return {name: (score, rng.random(PICTURES) < chance) for name, (score, chance) in chances.items()}


def sigmoid(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds))


def oracle(score: np.ndarray, right: np.ndarray, target: float) -> float:
    """The largest share that can be kept at the target precision, all being known."""
    return float(np.mean(score >= lowest(score, right, target)))


def lowest(score: np.ndarray, right: np.ndarray, target: float) -> float:
    """The lowest of these scores from which on the share that is right is the target; inf: none."""
    order = np.argsort(-score)
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last = np.append(np.diff(score[order]) != 0, True)  # of its ties
    fine = np.flatnonzero(last & (precision >= target - 1e-9))
    return float(score[order][fine[-1]]) if len(fine) else np.inf


def clipsearch(score, right, target, reviews, rng) -> float:
    seed = int(rng.integers(1 << 30))
    sure = of_round(0.95, 2)
    first = draw(score, reviews // 4, target=target, seed=seed)
    known = Answers(*first, right[first.rows])
    second = draw(score, reviews - len(first.rows), target=target, confidence=sure, reviewed=known, seed=seed)
    both = [np.concatenate(parts) for parts in zip(first, second, strict=True)]
    value = certified_threshold(score, Answers(*both, right[both[0]]), target, confidence=sure).value
    return np.inf if value is None else value


def naive(score, right, target, reviews, rng) -> float:
    rows = rng.permutation(len(score))[:reviews]
    return lowest(score[rows], right[rows], target)


def split(score, right, target, reviews, rng) -> float:
    rows = rng.permutation(len(score))[:reviews]
    find, test = rows[::2], rows[1::2]
    threshold = lowest(score[find], right[find], target)
    asked = right[test[score[test] >= threshold]]
    passed = proportion(int(asked.sum()), len(asked), confidence=0.9).low >= target  # 0.9: one-sided 0.95
    return threshold if passed else np.inf


if __name__ == "__main__":
    main()
