"""A classifier of 1,000 labels x 80 templates on the processor, beside open_clip's in the same run.

    python tests/benchmarks/templates.py [--labels 1000] [--templates openai-80] [--peer-labels 20]

ViT-B-32 with random weights, saved locally, fp32; the same labels, templates and threads. The models are
loaded before the clock starts. open_clip's `build_zero_shot_classifier` gets a sample of the labels,
evenly spread, half of it before clipsearch's run and half after; its time is scaled by the number of
texts. Bounds: 8 times the texts/s; a second run, by a collection with an encoder loaded anew, encodes no
text.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
from ingest import save_model
from pictures import make_pictures

import clipsearch
from clipsearch.files import cores
from clipsearch.labels import TextModel, build_classifier, read_labels, read_templates
from clipsearch.types import Embeddings


class Counted:
    """An encoder that counts its texts and the seconds they take."""

    def __init__(self, model: Path) -> None:
        self.encoder = clipsearch.load_encoder(model, device="cpu", precision="fp32")
        self.texts, self.seconds = 0, 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self.encoder, name)

    def encode_texts(self, texts: Sequence[str], *, role: str = "query") -> Embeddings:
        vectors, took = timed(lambda: self.encoder.encode_texts(texts, role=role))
        self.texts, self.seconds = self.texts + len(texts), self.seconds + took
        return vectors


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--labels", type=int, default=1000, help="so many of ImageNet's, at most 1000")
    options.add_argument("--templates", default="openai-80")
    options.add_argument("--peer-labels", type=int, default=20, help="open_clip's sample, at least 2")
    options.add_argument("--model", default="ViT-B-32", help="or ViT-B-32-quickgelu")
    options.add_argument("--threads", type=int, default=cores())
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    labels, templates = read_labels("imagenet-1k")[: args.labels], read_templates(args.templates)
    sample = np.linspace(0, len(labels) - 1, min(len(labels), args.peer_labels)).astype(int)
    print(f"{len(labels):,} labels, {args.templates}, {args.model}, fp32, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "CLIPSEARCH_QUERY_CACHE": "1"}
        save_model(folder / "model", args.model)
        encoder = Counted(folder / "model")
        encoder.encoder.encode_texts(["a photo of a cat."])
        model = TextModel(
            encoder.model_id, (encoder.model_id, encoder.dim, encoder.fingerprint()), encoder.encode_texts
        )
        peer = open_clip.create_model(f"local-dir:{folder / 'model'}").eval()
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder / 'model'}")

        def theirs(places: np.ndarray) -> np.ndarray:
            names = [labels.names[place] for place in places]
            return (
                open_clip.build_zero_shot_classifier(peer, tokenizer, names, list(templates.fill)).numpy().T
            )

        theirs(sample[:1])
        before, first_half = timed(lambda: theirs(sample[::2]))
        ours, first = timed(lambda: build_classifier(labels, templates, model, unknown=False))
        after, second_half = timed(lambda: theirs(sample[1::2]))
        texts, between = len(labels) * len(templates.fill), len(sample) * len(templates.fill)
        rate, peer_rate = texts / first, between / (first_half + second_half)
        print(f"clipsearch, first run  {first:8.2f} s  {rate:7.1f} texts/s, {texts:,} texts")
        print(f"  outside the encoder  {first - encoder.seconds:8.2f} s; different texts {encoder.texts:,}")
        print(
            f"open_clip              {texts / peer_rate:8.2f} s  {peer_rate:7.1f} texts/s, "
            f"scaled from {first_half + second_half:.2f} s for {len(sample)} labels, {between:,} texts"
        )
        print(f"ratio {rate / peer_rate:.2f} (bound 8)")
        found = np.empty((len(sample), encoder.dim), np.float32)
        found[::2], found[1::2] = before, after
        print(
            f"largest difference on the sample {np.abs(found - ours.vectors[sample]).max():.1e} (bound 1e-6)"
        )
        again(folder, labels, templates)


def again(folder: Path, labels: object, templates: object) -> None:
    """The same labels for a collection."""
    make_pictures(folder / "pictures", 2, (64, 64))
    encoder = Counted(folder / "model")
    with clipsearch.Collection(folder / "photos.clipsearch", model=encoder) as photos:
        photos.add(folder / "pictures", progress=False)
        _, seconds = timed(
            lambda: photos.classify(labels, templates=templates, unknown=False, progress=False)
        )
    print(f"clipsearch, second run {seconds:8.2f} s, texts encoded {encoder.texts:,} (bound 0)")


def timed(work: Callable[[], object]) -> tuple[object, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


if __name__ == "__main__":
    main()
