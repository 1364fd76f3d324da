"""What labelling adds to embedding the pictures, and what a picture costs transformers' pipeline.

    python tests/benchmarks/labelling.py [--pictures 2000 | --folder PICTURES] [--labels imagenet-1k]

- The built-in model: seconds of `Collection.add`, and of `Collection.classify` beyond them, as a share,
  with no label vector known and with all of them cached (bound 5 %); each time with a collection opened
  and an encoder loaded anew. Turn by turn, medians of the rounds.
- CLIP ViT-B/32 with random weights, fp32, 5 pictures and 200 labels in one template: transformers'
  zero-shot-image-classification pipeline, and `clipsearch.label` from the files to all scores, with no
  label vector known and with all of them cached. Towers are loaded before the clock starts, which for
  clipsearch's cached labels is the image tower alone.
"""

import argparse
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from builtin import timed
from ingest import save_model
from pictures import make_pictures

import clipsearch
from clipsearch.files import cores
from clipsearch.labels import LabelSet, read_labels

TEMPLATE = "a photo of a {}."


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--pictures", type=int, default=2000)
    options.add_argument("--folder", type=Path, help="pictures of your own instead of made-up ones")
    options.add_argument("--labels", default="imagenet-1k")
    options.add_argument("--templates", default="simple-7")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=cores(), help="of texts and of the pipeline")
    options.add_argument("--pipeline-pictures", type=int, default=5)
    options.add_argument("--pipeline-labels", type=int, default=200)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{cores()} cores, torch {torch.__version__} with {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "CLIPSEARCH_QUERY_CACHE": "1"}
        if args.folder is None:
            make_pictures(folder / "pictures", args.pictures, (500, 375))
        added(args.folder or folder / "pictures", folder, args.labels, args.templates, args.rounds)
        make_pictures(folder / "few", args.pipeline_pictures, (500, 375))
        beside_pipeline(folder, read_labels("imagenet-1k")[: args.pipeline_labels], args.rounds)


def added(pictures: Path, folder: Path, labels: str, templates: str, rounds: int) -> None:
    """Print what labelling adds to embedding."""
    places = (folder / f"{n}.clipsearch" for n in itertools.count())
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        place = next(places)
        forget(folder)
        for what, work in {
            "embedding": lambda place=place: embed(place, pictures),
            "labelling, nothing cached": lambda place=place: classify(place, labels, templates),
            "labelling, labels cached": lambda place=place: classify(place, labels, templates),
        }.items():
            seconds.setdefault(what, []).append(timed(work))
    with clipsearch.Collection(place, read_only=True) as photos:
        about = (
            f"{len(photos):,} pictures, {len(read_labels(labels)):,} labels, {templates}, the built-in model"
        )
    print(f"\n{about}; medians of {rounds} rounds")
    for what, took in seconds.items():
        share = median(a / b for a, b in zip(took, seconds["embedding"], strict=True))
        print(f"  {what:26}{median(took):8.2f} s {share:8.1%}" + " (bound 5 %)" * what.startswith("label"))


def embed(place: Path, pictures: Path) -> None:
    with clipsearch.Collection(place, model="builtin") as photos:
        photos.add(pictures, progress=False)


def classify(place: Path, labels: str, templates: str) -> None:
    with clipsearch.Collection(place) as photos:
        photos.classify(labels, templates=templates, progress=False)


def beside_pipeline(folder: Path, labels: LabelSet, rounds: int) -> None:
    """Print what a picture costs."""
    save_model(folder / "model", "ViT-B-32-quickgelu")  # the activation of transformers' CLIP
    pipe, pictures = pipeline(folder / "hf"), sorted(map(str, (folder / "few").iterdir()))
    encoder = clipsearch.load_encoder(folder / "model", device="cpu", precision="fp32")
    forget(folder)
    label(folder, labels[:2], encoder)  # loads both towers
    pipe(pictures[0], candidate_labels=list(labels.names[:2]), hypothesis_template=TEMPLATE)
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        forget(folder)
        for what, work in {
            "transformers' pipeline": lambda: pipe(
                pictures, candidate_labels=list(labels.names), hypothesis_template=TEMPLATE
            ),
            "clipsearch, nothing cached": lambda: label(folder, labels, encoder),
            "clipsearch, labels cached": lambda: label(folder, labels, encoder),
        }.items():
            seconds.setdefault(what, []).append(timed(work) / len(pictures))
    print(f"\n{len(pictures)} pictures, {len(labels)} labels, ViT-B/32; medians of {rounds} rounds")
    for what, took in seconds.items():
        ratio = median(a / b for a, b in zip(seconds["transformers' pipeline"], took, strict=True))
        print(f"  {what:26}{median(took):8.3f} s a picture  {ratio:8.1f} times the pipeline's speed")


def label(folder: Path, labels: LabelSet, encoder: clipsearch.Encoder) -> None:
    clipsearch.label(folder / "few", labels, model=encoder, templates=TEMPLATE, unknown=False, progress=False)


def forget(folder: Path) -> None:
    """Begin with no label vector known."""
    shutil.rmtree(folder / "cache", ignore_errors=True)


def pipeline(folder: Path) -> Callable[..., object]:
    """The pipeline of a CLIP ViT-B/32 with random weights and CLIP's own tokenizer, saved and loaded."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTokenizer,
        pipeline,
    )

    own = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    tokenizer = CLIPTokenizer(
        vocab={names.get(token, token): number for token, number in own.encoder.items()},
        merges=[*own.bpe_ranks],
    )
    text = TEMPLATE.format("great white shark")
    expected = own([text])[0]
    assert tokenizer(text)["input_ids"] == expected[expected > 0].tolist()
    CLIPModel(CLIPConfig()).save_pretrained(folder)
    CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=tokenizer).save_pretrained(folder)
    return pipeline("zero-shot-image-classification", model=str(folder), device="cpu")


if __name__ == "__main__":
    main()
