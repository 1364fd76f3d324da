"""Step 2: the image tower, trained toward a linear projection of the teacher's text space.

    torchrun --standalone --nproc-per-node CORES images.py WORK [--samples 4_000_000]

One process a core (one alone on a GPU). A run that is stopped goes on from WORK/images.pt, at most
SAVE_EVERY steps back. The texts are locked (LiT, Zhai et al. 2022): their vectors are the teacher's, and
only the projection to 256 dimensions learns with the tower.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from prepare import VARIANTS
from torch import Tensor, nn
from training import Average, checkpoint, cosine, parallel, processes, resume
from views import cropped, cut_mix, normalized, recoloured

ARCHITECTURE, DIM = "regnetx_004", 256
BATCH = {"tiny-imagenet": 144, "flickr8k-train": 64, "caltech101": 32, "clothing": 16}  # of one process
SIZES = ((0.0, 64), (0.50, 80), (0.75, 96), (0.92, 112))  # from this share of the samples on, at this size
PEAK, DECAY, SEED = 2e-3, 0.05, 0
MIXED = 0.5  # share of the steps in which captioned pictures are mixed (CutMix): they are few
BANK, NOUNS, REMEMBERED = 2048, 1024, 2048  # captions and nouns drawn as negatives each step; past pictures
ALIKE = 0.30  # cosine of the teacher from which a caption is no negative of a class
SAVE_EVERY = 250  # steps

CAPTIONED = "flickr8k-train"
LABELLED = [name for name in BATCH if name != CAPTIONED]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--samples", type=lambda text: int(text.replace("_", "")), default=4_000_000)
    options = parser.parse_args()
    train(options.work, options.samples)


def train(work: Path, samples: int) -> None:
    rank, count, device = processes()
    torch.manual_seed(SEED)  # the same weights in every process
    student = Student(work, device).to(device).to(memory_format=torch.channels_last)
    whole = parallel(student)
    optimizer = torch.optim.AdamW(groups(student), lr=PEAK, betas=(0.9, 0.98))
    average = Average(student, 0.998)
    step = resume(work / "images.pt", student=student, optimizer=optimizer, average=average)
    torch.manual_seed(SEED + 1 + rank + 1000 * step)  # other pictures in every process
    data = Data(work, device, np.random.default_rng([SEED, rank, step]))
    memory = Memory(REMEMBERED, DIM, device)
    size_of_batch, began, sums = sum(BATCH.values()), time.monotonic(), {}  # type: ignore[var-annotated]
    steps, first = samples // (size_of_batch * count), step
    while step < steps:
        done = step / steps
        rate = PEAK * cosine(done, step, warm=200)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        size = next(size for start, size in reversed(SIZES) if done >= start)
        pictures, batch = data.batch(size, mixed=float(torch.rand(())) < MIXED and done < SIZES[-1][0])
        with torch.autocast(device.type, torch.bfloat16):
            images, labels, captions, scales = whole(pictures, batch)
        losses = loss(images, labels, captions, scales, batch, data, memory)
        optimizer.zero_grad(set_to_none=True)
        losses["all"].backward()
        nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimizer.step()
        step += 1
        average.update(student, step)
        sums = {k: sums.get(k, 0.0) + float(v.detach()) for k, v in losses.items()}
        if step % 50 == 0:
            if rank == 0:
                speed = (step - first) * size_of_batch * count / (time.monotonic() - began)
                told = "  ".join(f"{k} {v / 50:.3f}" for k, v in sums.items())
                print(f"{step}/{steps}  {size} px  {speed:.0f} images/s  {told}", flush=True)
            sums = {}
        if rank == 0 and (step % SAVE_EVERY == 0 or step == steps):
            checkpoint(work / "images.pt", step, student=student, optimizer=optimizer, average=average)


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

    def forward(self, pictures: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Unit rows: images (b, 256), classes' and nouns' texts, captions; and the two scales."""
        images = F.normalize(self.visual(pictures).float(), dim=-1)
        with torch.autocast(pictures.device.type, enabled=False):
            labels, captions = (F.normalize(self.project(batch[k]), dim=-1) for k in ("labels", "captions"))
        return images, labels, captions, self.scales.exp().clamp(max=60)


def image_tower(device: torch.device) -> TimmModel:
    tower = TimmModel(ARCHITECTURE, DIM, image_size=SIZES[-1][1], pool="", proj="linear", pretrained=False)
    if (
        device.type == "cpu"
    ):  # the backward of a 3-channel bf16 convolution is 100 times slower than in float32
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
        {"params": [student.project.weight], "weight_decay": 0.0, "scale": 0.3},
        {"params": [student.scales], "weight_decay": 0.0, "scale": 0.5},
    ]


def loss(images: Tensor, labels: Tensor, captions: Tensor, scales: Tensor, batch: dict[str, Tensor],
         data: "Data", memory: "Memory") -> dict[str, Tensor]:  # fmt: skip
    """Class pictures choose their class, captioned ones their caption, captions their picture.

    Negatives of both are the texts of the other, unless the teacher finds them alike; soft targets come
    from the teacher's similarities.
    """
    of_class, of_caption = images[: len(batch["y"])], images[len(batch["y"]) :]
    alike = data.alike[:, batch["bank"]]  # (classes, bank)
    count = len(alike)

    # 1. class pictures: (n, classes + bank), and softly (n, classes + nouns)
    y = batch["y"]
    to_labels = of_class @ labels.T * scales[0]
    to_bank = (of_class @ captions.T * scales[0]).masked_fill(alike[y], -1e4)
    hard = F.cross_entropy(torch.cat([to_labels[:, :count], to_bank], 1), y)
    soft = -(batch["soft"][y] * F.log_softmax(to_labels, -1)).sum(-1).mean()

    # 2. captioned pictures, each mixed with another: the first captions of the bank are theirs
    n, share, other = len(of_caption), batch["share"], batch["other"]
    own = torch.arange(n, device=images.device)
    to_captions = of_caption @ captions.T * scales[1]
    to_classes = (of_caption @ labels[:count].T * scales[1]).masked_fill(alike.T[:n] | alike.T[other], -1e4)
    logits = torch.cat([to_captions, to_classes], 1)
    found = share * F.cross_entropy(logits, own) + (1 - share) * F.cross_entropy(logits, other)
    near = share * batch["near"] + (1 - share) * batch["near"][other]
    softly = -(near * F.log_softmax(to_captions, -1)).sum(-1).mean()

    # 3. captions: among the pictures of this batch and of some before, unless they are mixed
    pool, ids = torch.cat([of_caption, memory.rows]), torch.cat([batch["bank"][:n], memory.ids])
    logits = captions[:n] @ pool.T * scales[1]
    same = (ids[None] == ids[:n, None]) & (torch.arange(len(ids), device=ids.device)[None] != own[:, None])
    back = F.cross_entropy(logits.masked_fill(same, -1e4), own) * (share == 1)
    if share == 1:
        memory.push(of_caption.detach(), ids[:n])

    whole = 1.0 * hard + 0.3 * soft + 0.3 * found + 0.3 * softly + 0.3 * back
    right = (to_labels[:, :count].argmax(1) == y).float().mean()
    return {"all": whole, "class": hard, "caption": found, "picture": back, "right": right}


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

    def __init__(self, work: Path, device: torch.device, draw: np.random.Generator) -> None:
        self.device, self.draw = device, draw
        self.pictures = {name: training_pictures(work, name) for name in BATCH}
        self.order = {name: Endless(len(y), draw) for name, (_, y) in self.pictures.items()}
        load = lambda name: torch.from_numpy(np.load(work / f"{name}.npy")).float().to(device)  # noqa: E731
        self.prompts = load("prompts").unflatten(0, (-1, VARIANTS))  # (classes, variants, teacher dim)
        self.captions = load("captions-train").unflatten(0, (-1, 5))
        self.nouns = load("nouns")
        self.means = F.normalize(self.prompts.mean(1), dim=-1)
        pictures = F.normalize(self.captions.mean(1), dim=-1)
        self.alike = self.means @ pictures.T > ALIKE  # (classes, captioned pictures)

    def batch(self, size: int, mixed: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Pictures (b, 3, size, size), class pictures first, and all that the loss compares them with."""
        rows = {name: self.order[name].take(count) for name, count in BATCH.items()}
        views = {name: self.view(name, rows[name], size) for name in BATCH}
        pictures = torch.cat([views[name] for name in LABELLED])
        y = torch.from_numpy(np.concatenate([self.pictures[n][1][rows[n]] for n in LABELLED])).to(self.device)
        captioned, share = views[CAPTIONED], 1.0
        other = torch.randperm(len(captioned), device=self.device)
        if mixed:
            captioned, share = cut_mix(captioned, other)
        pictures = torch.cat([pictures, captioned])
        own = torch.from_numpy(rows[CAPTIONED])
        rest = torch.from_numpy(self.draw.permutation(len(self.captions))[:BANK])
        bank = torch.cat([own, rest[~torch.isin(rest, own)]]).to(self.device)
        captions = self.captions[bank, torch.randint(0, 5, (len(bank),), device=self.device)]
        near = F.softmax(captions[: len(own)] @ captions.T / 0.05, -1)
        return pictures.contiguous(memory_format=torch.channels_last), {
            "y": y, "other": other, "share": torch.tensor(share), "bank": bank, "captions": captions,
            "near": near, **self.named(),
        }  # fmt: skip

    def named(self) -> dict[str, Tensor]:
        """One text of each class (or their mean), some nouns, and how alike the teacher finds them."""
        count, variants = self.prompts.shape[:2]
        chosen = torch.randint(0, variants, (count,), device=self.device)
        texts = self.prompts[torch.arange(count, device=self.device), chosen]
        if torch.rand(()) < 0.5:
            texts = self.prompts.mean(1)
        nouns = self.nouns[torch.from_numpy(self.draw.permutation(len(self.nouns))[:NOUNS]).to(self.device)]
        soft = F.softmax(self.means @ torch.cat([self.means, nouns]).T / 0.07, -1)
        return {"labels": torch.cat([texts, nouns]), "soft": soft}

    def view(self, name: str, rows: np.ndarray, size: int) -> Tensor:
        """An augmented view (n, 3, size, size) of each picture."""
        pixels = torch.from_numpy(self.pictures[name][0][rows]).to(self.device).permute(0, 3, 1, 2).float()
        blurred = pixels.shape[-1] > 64 and (size <= 80 or torch.rand(()) < 0.3)
        pixels = F.avg_pool2d(pixels, 2) if blurred else pixels  # tiny-imagenet must not be told by its blur
        return normalized(recoloured(cropped(pixels, size, 0.4 if name == CAPTIONED else 0.35)))


def training_pictures(work: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, side, side, 3) of a set without what is held out, and the place of each one's texts.

    That is the place of its class in classes.json, or its own where it has captions.
    """
    about, pixels = json.loads((work / f"{name}.json").read_text()), np.load(work / f"{name}.npy")
    if name == CAPTIONED:
        return pixels, np.arange(len(pixels))
    pairs = json.loads((work / "classes.json").read_text())
    classes = {tuple(pair): place for place, pair in enumerate(pairs)}
    rows = np.flatnonzero(~np.array(about["held_out"]))
    return pixels[rows], np.array([classes[name, about["classes"][row]] for row in rows])


def trained(work: Path, device: torch.device) -> Student:
    """The averaged weights of the last checkpoint."""
    student = Student(work, device)
    student.load_state_dict(torch.load(work / "images.pt", map_location="cpu", weights_only=True)["average"])
    return student.eval().to(device).to(memory_format=torch.channels_last)


@torch.no_grad()
def vectors(student: Student, pixels: np.ndarray, flip: bool = False) -> Tensor:
    """Unit rows (n, 256) of pictures (n, side, side, 3), at the last size."""
    device, found = student.scales.device, []
    for part in np.array_split(pixels, math.ceil(len(pixels) / 250)):
        images = torch.from_numpy(part).to(device).permute(0, 3, 1, 2).float()
        images = F.interpolate(images, (SIZES[-1][1],) * 2, mode="bicubic", antialias=True).clamp_(0, 255)
        with torch.autocast(device.type, torch.bfloat16):
            found.append(student.visual(normalized(images.flip(3) if flip else images)).float())
    return F.normalize(torch.cat(found), dim=-1)


class Endless:
    """The numbers below `count` in random order, again and again, each once a pass."""

    def __init__(self, count: int, draw: np.random.Generator) -> None:
        self.count, self.draw, self.left = count, draw, np.empty(0, int)

    def take(self, count: int) -> np.ndarray:
        if len(self.left) < count:
            self.left = self.draw.permutation(self.count)
        taken, self.left = self.left[:count], self.left[count:]
        return np.sort(taken)


if __name__ == "__main__":
    main()
