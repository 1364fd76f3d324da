"""Synthetic vectors like CLIP's, with a gap between pictures and texts, for collections of any size.

    python tests/benchmarks/gap.py [--rows 1000000] [--dim 512] [--real DIRECTORY]

Prints how like CLIP they are: the cosines of random and of matched pairs, the distance between the two
means, and how many principal axes hold 90 % of the pictures' variance. DIRECTORY holds vectors of the real
CLIP ViT-B/32 (image_embeddings.npy: 100 photos x 5 equal rows; text_embeddings.npy: their 500 captions);
they stand beside 100 synthetic pictures, each with five texts made from it, because both the best of n and
the principal axes depend on how many there are.

A picture is a common direction (the cone) + a super-cluster + a cluster + detail of its own, with spectra
that fall like 1/i and i^-0.7 under a random rotation. A text has another common direction and a concept
(half of them one picture, a third a cluster, the rest two clusters) of which only the strong half of the
axes is said, weakened, with noise. Rows come in blocks, each made from the seed and its number alone.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

BLOCK = 50_000  # rows
CONE = 0.497  # of a picture's squared length
TEXT_CONE = 0.600
CONES = 0.28  # cosine of the two common directions
SUPERS, CLUSTERS = 200, 20_000
SUPER, CLUSTER, DETAIL = 0.25, 0.35, 0.40  # of the rest of the variance
SIZES = 0.8  # the k-th largest cluster's share falls like k^-0.8
SAID, NOISE, TEXT_ONLY = 0.43, 0.33, 0.24  # of a text's rest: concept, image axes, axes of texts alone
WEAKENED = 16  # axis i of a concept is said 1 + i / 16 times weaker
PICTURES, QUERIES, TEXTS = 1, 2, 3  # streams of random numbers


class World(NamedTuple):
    """What every picture and text of a seed shares.

    Attributes:
        cones: float32 (2, dim), unit; of pictures and of texts.
        turn: float32 (dim, dim), the rotation from axes to vectors.
        centres: float32 (CLUSTERS, dim), by axes: cluster and super-cluster.
        upto: float64 (CLUSTERS,), shares of pictures, summed up.
        detail: float32 (dim,), standard deviation of the detail on each axis.
        noise: float32 (dim,), the same of a text's noise along the pictures' axes.
    """

    cones: np.ndarray
    turn: np.ndarray
    centres: np.ndarray
    upto: np.ndarray
    detail: np.ndarray
    noise: np.ndarray


@cache
def world(dim: int = 512, seed: int = 0) -> World:
    rng = np.random.default_rng([seed, 0])
    steep, flat = spectrum(dim, 1.0), spectrum(dim, 0.7)
    first, second = np.linalg.qr(rng.standard_normal((dim, 2)))[0].T
    cones = np.stack([first, CONES * first + np.sqrt(1 - CONES**2) * second]).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((dim, dim), dtype=np.float32))[0]
    supers = rng.standard_normal((SUPERS, dim), dtype=np.float32) * steep * np.float32(SUPER**0.5)
    own = rng.standard_normal((CLUSTERS, dim), dtype=np.float32) * steep * np.float32(CLUSTER**0.5)
    sizes = np.arange(1, CLUSTERS + 1) ** -SIZES
    return World(
        cones,
        turn,
        own + supers[rng.integers(SUPERS, size=CLUSTERS)],
        np.cumsum(sizes / sizes.sum()),
        flat * np.float32(DETAIL**0.5),
        steep,
    )


def spectrum(dim: int, power: float) -> np.ndarray:
    """Standard deviations that fall along the axes; their squares sum to 1."""
    variances = np.arange(1, dim + 1) ** -power
    return np.sqrt(variances / variances.sum()).astype(np.float32)


def blocks(n: int, *, dim: int = 512, seed: int = 0) -> Iterator[np.ndarray]:
    """The first n pictures of a seed, float16 with unit rows, (at most BLOCK, dim) at a time."""
    for number in range(-(-n // BLOCK)):
        yield block(number, dim=dim, seed=seed)[: n - number * BLOCK]


def block(number: int, *, dim: int = 512, seed: int = 0) -> np.ndarray:
    """One block, float16 (BLOCK, dim); the same whoever asks and in whatever order."""
    rng = np.random.default_rng([seed, PICTURES, number])
    return shown(concepts(BLOCK, rng, world(dim, seed)), world(dim, seed)).astype(np.float16)


def images(n: int, seed: int, *, dim: int = 512, of: int = 0) -> np.ndarray:
    """Pictures that are in no block, as queries; `of` is the seed of the blocks. float32 (n, dim)."""
    return shown(concepts(n, np.random.default_rng([of, QUERIES, seed]), world(dim, of)), world(dim, of))


def texts(n: int, seed: int, *, dim: int = 512, of: int = 0) -> np.ndarray:
    """Texts about pictures that are in no block, as queries. float32 (n, dim)."""
    rng, here = np.random.default_rng([of, TEXTS, seed]), world(dim, of)
    kind = rng.random((n, 1), dtype=np.float32)
    one, other = (here.centres[drawn(n, rng, here)] for _ in range(2))
    idea = np.where(kind < 0.5, concepts(n, rng, here), np.where(kind < 0.85, one, (one + other) / 2))
    return said(idea, rng, here)


def concepts(n: int, rng: np.random.Generator, here: World) -> np.ndarray:
    """What pictures show, by axes, without the cone."""
    rows = rng.standard_normal((n, len(here.turn)), dtype=np.float32)
    rows *= here.detail
    rows += here.centres[drawn(n, rng, here)]
    return rows


def drawn(n: int, rng: np.random.Generator, here: World) -> np.ndarray:
    """The clusters of n pictures."""
    return np.minimum(np.searchsorted(here.upto, rng.random(n)), CLUSTERS - 1)


def shown(concept: np.ndarray, here: World) -> np.ndarray:
    """Pictures of concepts, unit rows."""
    rows = concept @ here.turn
    rows *= np.float32((1 - CONE) ** 0.5)
    rows += here.cones[0] * np.float32(CONE**0.5)
    return unit(rows)


def said(concept: np.ndarray, rng: np.random.Generator, here: World) -> np.ndarray:
    """Texts about concepts, unit rows."""
    dim = len(here.turn)
    axes = np.arange(dim, dtype=np.float32)
    kept = concept * np.where(axes < dim // 2, 1 / (1 + axes / WEAKENED), 0)
    along = rng.standard_normal(concept.shape, dtype=np.float32) * here.noise
    alone = rng.standard_normal(concept.shape, dtype=np.float32) / np.float32(dim**0.5)
    parts = ((SAID, unit(kept)), (NOISE, along), (TEXT_ONLY, alone))
    rows = sum(np.float32(share**0.5) * part for share, part in parts) @ here.turn
    return unit(np.float32((1 - TEXT_CONE) ** 0.5) * rows + np.float32(TEXT_CONE**0.5) * here.cones[1])


def unit(rows: np.ndarray) -> np.ndarray:
    """Divides the rows by their lengths, in place."""
    rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return rows


def save(path: Path, rows: int, *, dim: int = 512, seed: int = 0) -> None:
    """Writes the first rows of a seed as one float16 .npy file."""
    kept = np.lib.format.open_memmap(path, "w+", np.float16, (rows, dim))
    at = 0
    for part in blocks(rows, dim=dim, seed=seed):
        kept[at : at + len(part)] = part
        at += len(part)
    kept.flush()


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--dim", type=int, default=512)
    options.add_argument("--real", type=Path, help="real vectors of 100 photos and their captions")
    args = options.parse_args()
    columns = {f"{args.rows:,} synthetic": large(args.rows, args.dim)}
    if args.real and args.real.exists():
        columns["100 synthetic"] = small(*hundred(args.dim))
        photos, captions = (
            np.load(args.real / f"{kind}_embeddings.npy").astype(np.float32) for kind in ("image", "text")
        )
        columns["100 real"] = small(photos[::5], captions)
    print(f"{'':44}" + "".join(f"{name:>21}" for name in columns))
    for what in next(iter(columns.values())):
        print(f"{what:44}" + "".join(f"{column[what]:>21}" for column in columns.values()))


def large(rows: int, dim: int) -> dict[str, str]:
    """The figures of a large collection, which is never in memory as a whole."""
    queries, best, sample = texts(500, 1, dim=dim), np.full(500, -1, np.float32), []
    for part in blocks(rows, dim=dim):
        best = np.maximum(best, (queries @ part.T.astype(np.float32)).max(1))
        sample.append(part[:2000])
    pictures = np.concatenate(sample).astype(np.float32)
    return figures(pictures, queries, own=None, best=best)


def hundred(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """100 pictures, and 5 texts about each."""
    here, rng = world(dim, 0), np.random.default_rng(5)
    ideas = concepts(100, rng, here)
    return shown(ideas, here), said(np.repeat(ideas, 5, 0), rng, here)


def small(pictures: np.ndarray, queries: np.ndarray) -> dict[str, str]:
    """The figures of pictures that have as many texts each, in order."""
    of = np.repeat(np.arange(len(pictures)), len(queries) // len(pictures))
    return figures(pictures, queries, own=(queries * pictures[of]).sum(1), best=(queries @ pictures.T).max(1))


def figures(
    pictures: np.ndarray, queries: np.ndarray, *, own: np.ndarray | None, best: np.ndarray
) -> dict[str, str]:
    cross = queries @ pictures[:5000].T
    spread = np.linalg.eigvalsh(np.cov(pictures.T))[::-1].cumsum()
    return {
        "cosine of two pictures": f"{others(pictures[:5000]):.3f}",
        "cosine of two texts": f"{others(queries):.3f}",
        "cosine of a text and a picture": f"{cross.mean():.3f}",
        "  its standard deviation": f"{cross.std():.3f}",
        "cosine of a text and its own picture": "" if own is None else f"{own.mean():.3f}",
        "cosine of a text and the best picture of all": f"{best.mean():.3f}",
        "distance of the two means": f"{np.linalg.norm(pictures.mean(0) - queries.mean(0)):.3f}",
        "principal axes for 90 % of the variance": f"{(spread < 0.9 * spread[-1]).sum() + 1}",
    }


def others(rows: np.ndarray) -> float:
    """Mean cosine of two different rows."""
    n = len(rows)
    return float((np.square(rows.sum(0, dtype=np.float64)).sum() - n) / (n * (n - 1)))


if __name__ == "__main__":
    main()
