"""Whether a tuned index keeps its promise on captions of another distribution than it was tuned on.

    python tests/benchmarks/text_recall.py PHOTOS [--rows 100000] [--seeds 100] [--target 0.95] [--work DIR]

PHOTOS holds folders of photos, and captions beside some of them (`ID.jpg`, `ID.txt` with one a line),
as Flickr8k. Each photo is encoded by the built-in model as a whole and as two crops. Each seed takes
`rows` of these vectors, builds ivf-pq-fastscan of them, tunes it on the captions that ship with
clipsearch, and asks 1,000 captions of the photos. Beside it the same index tuned on stored vectors,
as is usual. Prints recall@10 of both for each seed, and how often the promise held: at least the
target less 0.01.
"""

import argparse
import hashlib
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import clipsearch as cs
from clipsearch.exact import ExactIndex
from clipsearch.types import as_embeddings
from clipsearch.writer import writing

ASKED, TOGETHER = 1000, 96


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("photos", type=Path)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--seeds", type=int, default=100)
    options.add_argument("--target", type=float, default=0.95)
    options.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    args = options.parse_args()
    vectors = encoded(args.photos, args.work / "photos3.npy")
    captions = [line for path in sorted(args.photos.rglob("*.txt")) for line in path.read_text().splitlines()]
    print(f"{len(vectors):,} vectors, {len(captions):,} captions; target {args.target}")
    kept = []
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        with tempfile.TemporaryDirectory() as folder, cs.Collection(folder, model="builtin") as photos:
            put(photos, vectors[np.sort(rng.permutation(len(vectors))[: args.rows])])
            about = photos.build_index("ivf-pq-fastscan", target_recall=args.target, progress=False)
            asked = photos.encode_texts([captions[i] for i in rng.permutation(len(captions))[:ASKED]])
            index = photos._searcher()._index
            truth = [near.rows for near in ExactIndex(index._snapshot).search(asked, 10)]
            found = {kind: share(index.search(asked, 10, kind=kind), truth) for kind in ("text", "image")}
        kept.append(found["text"] >= args.target - 0.01)
        tuned = ", ".join(f"{kind} {t.probes} probes x {t.depth}" for kind, t in sorted(about.tuned.items()))
        print(
            f"seed {seed}: captions find {found['text']:.4f} (tuned: {about.tuned['text'].recall:.4f}); "
            f"tuned on stored vectors {found['image']:.4f}; {tuned}; kept {sum(kept)} of {len(kept)}",
            flush=True,
        )


def share(found: list, truth: list) -> float:
    return float(np.mean([len(set(f.rows) & set(t)) / 10 for f, t in zip(found, truth, strict=True)]))


def encoded(folder: Path, cache: Path) -> np.ndarray:
    """(3 n, 256) float16: n photos, each whole, its upper left and its lower right."""
    if not cache.exists():
        encoder, done, batch = cs.load_encoder("builtin"), [], []
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png")):
            image = Image.open(path).convert("RGB")
            w, h = image.size
            parts = (
                image,
                image.crop((0, 0, int(w * 0.6), int(h * 0.6))),
                image.crop((int(w * 0.4), int(h * 0.3), w, h)),
            )
            batch += [encoder.prepare(part) for part in parts]
            if len(batch) >= TOGETHER:
                done.append(np.asarray(encoder.encode_prepared(batch), np.float16))
                batch = []
        done += [np.asarray(encoder.encode_prepared(batch), np.float16)] if batch else []
        np.save(cache, np.concatenate(done))
    return np.load(cache)


def put(photos: cs.Collection, vectors: np.ndarray) -> None:
    """Add vectors as if they were of pictures."""
    with writing(photos._store) as writer:
        space = photos._spaces.of_encoder(writer)
        source = writer.add_source("iterator", "", {})
        with writer.transaction() as db:
            ids = [
                writer.add_content(hashlib.sha256(str(n).encode()).digest(), {}) for n in range(len(vectors))
            ]
            db.executemany(
                "INSERT INTO items (source, key, stamp, content) VALUES (?, ?, '', ?)",
                [(source, str(id), id) for id in ids],
            )
            writer.append(space, ids, as_embeddings(vectors))


if __name__ == "__main__":
    main()
