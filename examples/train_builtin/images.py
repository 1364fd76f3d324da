"""Step 2: the image tower, trained toward a linear projection of the teacher's text space.

    torchrun --standalone --nproc-per-node CORES images.py WORK [--samples 1_150_000] [--seed 0]

One process a core (one alone on a GPU). A run that is stopped goes on from WORK/images.pt, at most
SAVE_EVERY steps back. The texts are locked (LiT, Zhai et al. 2022): their vectors are the teacher's, and
only the projection to 256 dimensions learns with the tower.
"""

import argparse
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from prepare import VARIANTS, read, words_in
from torch import Tensor, nn
from training import Average, Told, checkpoint, cosine, descend, finished, parallel, processes, resume
from views import cropped, normalized, recoloured

from clipsearch.files import write_lock

ARCHITECTURE, DIM = "resnet10t", 256
BATCH = {"tiny-imagenet": 66, "flickr8k-train": 32, "caltech101": 20, "clothing": 10}  # of one process
SIZES = ((0.0, 64), (0.33, 96))  # from this share of the samples on, at this size
PEAK, DECAY = 2e-3, 0.05
BANK, NOUNS, REMEMBERED = 2048, 1024, 2048  # captions and nouns drawn as negatives each step; past pictures
ALIKE = 0.30  # cosine of the teacher from which a caption is no negative of a class
SOFT = 0.045  # temperature of the teacher's similarities as targets for captions and their pictures
SAVE_EVERY, REPORT_EVERY = 250, 50  # steps
LOSSES = ("all", "class", "caption", "words", "picture", "right")

CAPTIONED = "flickr8k-train"
LABELLED = [name for name in BATCH if name != CAPTIONED]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--samples", type=int, default=1_150_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.work, options.samples, options.seed)


def train(work: Path, samples: int, seed: int = 0) -> None:
    rank, count, device = processes()
    torch.manual_seed(seed)  # the same weights in every process
    student = Student(work, device).to(device).to(memory_format=torch.channels_last)
    whole = parallel(student)
    parts = groups(student)
    optimizer, scales_of = torch.optim.AdamW(parts, lr=PEAK, betas=(0.9, 0.98)), [p["scale"] for p in parts]
    average = Average(student, 0.997)
    lock = ExitStack()
    if rank == 0:  # workers may outlive a torchrun that was killed, and go on writing
        lock.enter_context(write_lock(work / "images.lock"))
    together = sum(BATCH.values()) * count
    steps = samples // together
    about = {"steps": steps, "batch": together}
    step = first = resume(work / "images.pt", about, student=student, optimizer=optimizer, average=average)
    torch.manual_seed(seed + 1 + rank + 1000 * step)  # other pictures in every process
    data = Data(work, device, np.random.default_rng([seed, rank, step]), BATCH)
    memory = Memory(REMEMBERED, DIM, device)
    told = Told(LOSSES, REPORT_EVERY, first, steps, together)
    if rank == 0:
        print(f"{ARCHITECTURE}: step {step} of {steps}, {together} pictures each", flush=True)
    while step < steps:
        done = step / steps
        rate = PEAK * cosine(done, step, warm=200)
        for group, scale in zip(optimizer.param_groups, scales_of, strict=True):
            group["lr"] = rate * scale
        size = next(size for start, size in reversed(SIZES) if done >= start)
        pictures, batch = data.batch(size)
        with torch.autocast(device.type, torch.bfloat16):
            images, texts, scales = whole(pictures, batch)
        losses = loss(images, texts, scales, batch, data, memory)
        descend(losses["all"], optimizer, student)
        step += 1
        average.update(student, step)
        told.add(step, losses, aloud=rank == 0, note=f"{size} px")
        if rank == 0 and (step % SAVE_EVERY == 0 or step == steps):
            checkpoint(work / "images.pt", step, about, student=student, optimizer=optimizer, average=average)
    lock.close()


class Student(nn.Module):
    """The image tower, the projection of the teacher's space and the two logit scales."""

    def __init__(self, work: Path, device: torch.device) -> None:
        super().__init__()
        self.visual = image_tower(device)
        self.scales = nn.Parameter(torch.full((2,), math.log(1 / 0.07)))  # of classes, of captions
        known = [np.load(work / f"{name}.npy") for name in ("prompts", "captions-train")]
        texts = torch.from_numpy(np.concatenate(known)).float()
        self.project = nn.Linear(texts.shape[1], DIM, bias=False)
        _, _, axes = torch.linalg.svd(texts.T @ texts)
        self.project.weight.data.copy_(axes[:DIM])  # principal components first

    def forward(self, pictures: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Unit rows of the images (b, 256) and of the texts of each kind; and the two scales."""
        images = F.normalize(self.visual(pictures).float(), dim=-1)
        with torch.autocast(pictures.device.type, enabled=False):
            texts = {k: F.normalize(self.project(batch[k]), dim=-1) for k in ("labels", "captions", "words")}
        return images, texts, self.scales.exp().clamp(max=60)


def image_tower(device: torch.device) -> TimmModel:
    tower = TimmModel(ARCHITECTURE, DIM, image_size=SIZES[-1][1], pool="", proj="linear", pretrained=False)
    # On processors the backward of a 3-channel convolution is 100 times slower in bf16 than in float32.
    if device.type == "cpu":
        stem = next(m for m in tower.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)
        inner = stem.forward

        def in_float32(x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return inner(x.float())

        stem.forward = in_float32  # type: ignore[method-assign, assignment]
    return tower


def groups(student: Student) -> list[dict[str, Any]]:
    """No decay of norms and biases; the projection, which starts well, moves slowly."""
    tower = list(student.visual.parameters())
    return [
        {"params": [p for p in tower if p.ndim > 1], "weight_decay": DECAY, "scale": 1.0},
        {"params": [p for p in tower if p.ndim <= 1], "weight_decay": 0.0, "scale": 1.0},
        {"params": [student.project.weight], "weight_decay": 0.0, "scale": 0.5},
        {"params": [student.scales], "weight_decay": 0.0, "scale": 0.5},
    ]


def loss(images: Tensor, texts: dict[str, Tensor], scales: Tensor, batch: dict[str, Tensor],
         data: "Data", memory: "Memory") -> dict[str, Tensor]:  # fmt: skip
    """Class pictures choose their class, captioned ones their caption, captions their picture.

    Negatives of both are the texts of the other, unless the teacher finds them alike; soft targets come
    from the teacher's similarities.
    """
    of_class, of_caption = images[: len(batch["y"])], images[len(batch["y"]) :]
    labels, captions = texts["labels"], texts["captions"]
    alike = data.alike[:, batch["bank"]]  # (classes, bank)
    count = len(alike)

    # 1. class pictures: (n, classes + bank), and softly (n, classes + nouns)
    y = batch["y"]
    to_labels = of_class @ labels.T * scales[0]
    to_bank = (of_class @ captions.T * scales[0]).masked_fill(alike[y], -1e4)
    hard = F.cross_entropy(torch.cat([to_labels[:, :count], to_bank], 1), y)
    soft = -(batch["soft"][y] * F.log_softmax(to_labels, -1)).sum(-1).mean()

    # 2. captioned pictures: the first captions of the bank are theirs
    n = len(of_caption)
    own = torch.arange(n, device=images.device)
    to_captions = of_caption @ captions.T * scales[1]
    to_classes = (of_caption @ labels[:count].T * scales[1]).masked_fill(alike.T[:n], -1e4)
    found = F.cross_entropy(torch.cat([to_captions, to_classes], 1), own)
    softly = -(batch["near"] * F.log_softmax(to_captions, -1)).sum(-1).mean()
    told = data.told[batch["bank"][:n]]
    worded = -(told * F.log_softmax(of_caption @ texts["words"].T * scales[1], -1)).sum(-1).mean()

    # 3. captions: among the pictures of this batch and of some before
    pool, ids = torch.cat([of_caption, memory.rows]), torch.cat([batch["bank"][:n], memory.ids])
    logits = (captions[:n] @ pool.T * scales[1]).masked_fill(ids < 0, -1e4)
    target = F.softmax((batch["captions"][:n] @ data.pictured[ids].T / SOFT).masked_fill(ids < 0, -1e4), -1)
    back = -(target * F.log_softmax(logits, -1)).sum(-1).mean()
    memory.push(of_caption.detach(), ids[:n])

    whole = hard + 0.2 * soft + 0.5 * found + 0.3 * softly + 0.3 * worded + 0.5 * back
    right = (to_labels[:, :count].argmax(1) == y).float().mean()
    return dict(zip(LOSSES, (whole, hard, found, worded, back, right), strict=True))


class Memory:
    """The last pictures' vectors, as further negatives of captions."""

    def __init__(self, size: int, dim: int, device: torch.device) -> None:
        self.rows = torch.zeros(size, dim, device=device)
        self.ids = torch.full((size,), -1, device=device)

    def push(self, rows: Tensor, ids: Tensor) -> None:
        self.rows = torch.cat([rows, self.rows])[: len(self.rows)]
        self.ids = torch.cat([ids, self.ids])[: len(self.ids)]


class Data:
    """The training pictures and the teacher's vectors of all texts."""

    def __init__(
        self, work: Path, device: torch.device, draw: np.random.Generator, counts: dict[str, int]
    ) -> None:
        self.device, self.draw, self.counts = device, draw, counts  # pictures of each set in a batch
        self.pictures = {name: training_pictures(work, name) for name in counts}
        self.order = {name: Endless(len(y), draw) for name, (_, y) in self.pictures.items()}
        load = lambda name: torch.from_numpy(np.load(work / f"{name}.npy")).float().to(device)  # noqa: E731
        self.prompts = load("prompts").unflatten(0, (-1, VARIANTS))  # (classes, variants, teacher dim)
        self.captions = load("captions-train").unflatten(0, (-1, 5))
        self.nouns, self.words = load("nouns"), load("words")
        self.told = torch.from_numpy(word_targets(work)).to(device)  # (captioned pictures, words)
        self.means = F.normalize(self.prompts.mean(1), dim=-1)
        self.pictured = F.normalize(self.captions.mean(1), dim=-1)  # (captioned pictures, teacher dim)
        self.alike = self.means @ self.pictured.T > ALIKE  # (classes, captioned pictures)

    def batch(self, size: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Pictures (b, 3, size, size), class pictures first, and all that the loss compares them with."""
        rows = {name: self.order[name].take(count) for name, count in self.counts.items()}
        seen = {name: on(self.device, self.pictures[name][0][part]) for name, part in rows.items()}
        views = {name: augmented(pixels, size, name == CAPTIONED) for name, pixels in seen.items()}
        pictures = torch.cat([views[name] for name in (*LABELLED, CAPTIONED)])
        y = torch.from_numpy(np.concatenate([self.pictures[n][1][rows[n]] for n in LABELLED])).to(self.device)
        own = torch.from_numpy(rows[CAPTIONED])
        rest = torch.from_numpy(self.draw.permutation(len(self.captions))[:BANK])
        bank = torch.cat([own, rest[~torch.isin(rest, own)]]).to(self.device)
        captions = self.captions[bank, torch.randint(0, 5, (len(bank),), device=self.device)]
        near = F.softmax(self.pictured[bank[: len(own)]] @ captions.T / SOFT, -1)
        about = {"y": y, "bank": bank, "captions": captions, "near": near, **self.named()}
        return pictures.contiguous(memory_format=torch.channels_last), about

    def named(self) -> dict[str, Tensor]:
        """One text of each class (or their mean), some nouns, and how alike the teacher finds them."""
        count, variants = self.prompts.shape[:2]
        chosen = torch.randint(0, variants, (count,), device=self.device)
        texts = self.prompts[torch.arange(count, device=self.device), chosen]
        if torch.rand(()) < 0.5:
            texts = self.prompts.mean(1)
        nouns = self.nouns[torch.from_numpy(self.draw.permutation(len(self.nouns))[:NOUNS]).to(self.device)]
        soft = F.softmax(self.means @ torch.cat([self.means, nouns]).T / 0.07, -1)
        return {"labels": torch.cat([texts, nouns]), "soft": soft, "words": self.words}


def augmented(pixels: Tensor, size: int, captioned: bool) -> Tensor:
    """A random view (n, 3, size, size) of each picture (n, 3, side, side)."""
    blurred = pixels.shape[-1] > 64 and (size <= 64 or torch.rand(()) < 0.3)
    pixels = F.avg_pool2d(pixels, 2) if blurred else pixels  # tiny-imagenet must not be told by its blur
    least, strength = (0.5, 0.5) if captioned else (0.35, 1.0)  # captions tell scenes and colours
    return normalized(recoloured(cropped(pixels, size, least), strength))


def on(device: torch.device, pixels: np.ndarray) -> Tensor:
    """Pictures (n, side, side, 3) uint8 as float32 (n, 3, side, side)."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float()


def training_pictures(work: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, side, side, 3) of a set without what is held out, and the place of each one's texts.

    That is the place of its class in classes.json, or its own where it has captions.
    """
    about, pixels = read(work / f"{name}.json"), np.load(work / f"{name}.npy")
    if name == CAPTIONED:
        return pixels, np.arange(len(pixels))
    classes = {tuple(pair): place for place, pair in enumerate(read(work / "classes.json"))}
    rows = np.flatnonzero(~np.array(about["held_out"]))
    return pixels[rows], np.array([classes[name, about["classes"][row]] for row in rows])


def word_targets(work: Path) -> np.ndarray:
    """(captioned pictures, words) float32, rows of sum 1: how many of a picture's captions say each word.

    Rare words count more, by the logarithm of how many pictures there are for one that has it. A softmax over
    such targets serves several labels at once (Mahajan et al. 2018).
    """
    words = {word: n for n, word in enumerate(read(work / "words.json"))}
    captions = read(work / "captions-train.json")
    counts = np.zeros((len(captions) // 5, len(words)), np.float32)
    for number, caption in enumerate(captions):
        for word in set(words_in(caption)) & words.keys():
            counts[number // 5, words[word]] += 1
    counts *= np.log(len(counts) / np.maximum(1, (counts > 0).sum(0)) + 1)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1e-6)


def trained(work: Path, device: torch.device, name: str = "images") -> Student:
    """The averaged weights of a finished training, WORK/NAME.pt."""
    student = Student(work, device)
    student.load_state_dict(finished(work / f"{name}.pt")["average"])
    return student.eval().to(device).to(memory_format=torch.channels_last)


@torch.no_grad()
def vectors(student: Student, pixels: np.ndarray, view: Callable[[Tensor], Tensor]) -> Tensor:
    """Unit rows (n, 256) of a view of each picture (n, side, side, 3)."""
    device, found = student.scales.device, []
    for part in np.array_split(pixels, math.ceil(len(pixels) / 250)):
        with torch.autocast(device.type, torch.bfloat16):
            found.append(student.visual(view(on(device, part))).float())
    return F.normalize(torch.cat(found), dim=-1)


class Endless:
    """The numbers below `count` in random order, again and again, each once before any a second time."""

    def __init__(self, count: int, draw: np.random.Generator) -> None:
        self.count, self.draw, self.left = count, draw, np.empty(0, int)

    def take(self, count: int) -> np.ndarray:
        while len(self.left) < count:
            self.left = np.concatenate([self.left, self.draw.permutation(self.count)])
        taken, self.left = self.left[:count], self.left[count:]
        return np.sort(taken)


if __name__ == "__main__":
    main()
