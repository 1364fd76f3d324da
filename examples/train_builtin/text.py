"""Step 3: the text tower, a small student of the teacher in the space that the image tower learned.

    torchrun --standalone --nproc-per-node CORES text.py WORK [--texts 12_000_000]

First it only imitates the teacher's projected vectors, on captions, class prompts and WordNet; in the last
part it is tuned as well against the pictures' vectors, the image tower frozen. A run that is stopped goes
on from WORK/text.pt.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import images
import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import TextTransformer
from prepare import CONTEXT, VARIANTS, VOCABULARY, tokenizer
from torch import Tensor, nn
from training import Average, checkpoint, cosine, parallel, processes, resume

WIDTH, HEADS, LAYERS, DIM = 256, 4, 3, 256
BATCH, PEAK, DECAY, SEED = 384, 1.5e-3, 0.02, 0
TUNED = 0.8  # from this share of the steps on, the pictures count
TUNING = 3e-4  # learning rate then
CAPTIONED, LABELLED = 192, 160  # pictures of a tuning step
UNSEEN = 2000  # WordNet texts held out
SAVE_EVERY = 400  # steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--texts", type=lambda text: int(text.replace("_", "")), default=12_000_000)
    options = parser.parse_args()
    train(options.work, options.texts)


def train(work: Path, count_of_texts: int) -> None:
    rank, count, device = processes()
    torch.manual_seed(SEED)
    tower = text_tower()
    tower.token_embedding.weight.data[: VOCABULARY - 2] = token_table(work)
    tower.to(device)
    whole = parallel(tower)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in tower.parameters() if p.ndim > 1], "weight_decay": DECAY},
            {"params": [p for p in tower.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    average = Average(tower, 0.998)
    step = resume(work / "text.pt", tower=tower, optimizer=optimizer, average=average)
    torch.manual_seed(SEED + 1 + rank + 1000 * step)
    data = Texts(work, device, random.Random(f"{SEED} {rank} {step}"))
    pictures = Pictures(work, device)
    steps, began, first, sums = count_of_texts // (BATCH * count), time.monotonic(), step, [0.0, 0.0]
    while step < steps:
        done = step / steps
        tuned = done >= TUNED
        part = (done - TUNED) / (1 - TUNED) if tuned else done / TUNED
        rate = (TUNING if tuned else PEAK) * cosine(part, step, warm=100)
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids, target = next(data)
        shown = pictures.draw() if tuned else None
        both = torch.cat([ids, shown[0]]) if shown else ids
        with torch.autocast(device.type, torch.bfloat16):
            texts = F.normalize(whole(trimmed(tower, both)).float(), dim=-1)
        imitation = imitate(texts[:BATCH], target)
        found = pictures.loss(texts[BATCH:], *shown[1:]) if shown else torch.zeros(())
        loss = imitation + found
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        step += 1
        average.update(tower, step)
        sums = [
            sums[0] + float((texts[:BATCH] * target).sum(1).mean().detach()),
            sums[1] + float(found.detach()),
        ]
        if step % 100 == 0 and rank == 0:
            speed = (step - first) * BATCH * count / (time.monotonic() - began)
            told = f"cosine {sums[0] / 100:.4f}  pictures {sums[1] / 100:.3f}"
            print(f"{step}/{steps}  {speed:.0f} texts/s  {told}", flush=True)
            sums = [0.0, 0.0]
        if rank == 0 and (step % SAVE_EVERY == 0 or step == steps):
            checkpoint(work / "text.pt", step, tower=tower, optimizer=optimizer, average=average)
            if step % (5 * SAVE_EVERY) == 0 or step == steps:
                print(f"unseen WordNet texts: cosine {data.unseen(tower):.4f}", flush=True)


def text_tower() -> TextTransformer:
    """open_clip's, its mask no buffer: each batch sets its own, and processes do not share it."""
    tower = TextTransformer(CONTEXT, VOCABULARY, WIDTH, HEADS, LAYERS, output_dim=DIM)
    mask = tower.attn_mask
    del tower.attn_mask
    tower.attn_mask = mask
    return tower


def token_table(work: Path) -> Tensor:
    """(tokens, WIDTH): what the teacher says of each token's string, its first principal components."""
    vectors = torch.from_numpy(np.load(work / "tokens.npy")).float()
    vectors -= vectors.mean(0)
    _, _, axes = torch.linalg.svd(vectors, full_matrices=False)
    turned = vectors @ axes[:WIDTH].T @ torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
    return turned / turned.std() * 0.03


def trimmed(tower: TextTransformer, ids: Tensor) -> Tensor:
    """Without the columns that are padding in every row, and the tower's mask likewise.

    This changes no result, as attention looks back only.
    """
    length = int((ids != 0).sum(1).max())
    tower.attn_mask = tower.build_causal_mask()[:length, :length].to(ids.device)
    return ids[:, :length]


def imitate(texts: Tensor, target: Tensor) -> Tensor:
    """Cosine to the teacher, and the similarities within the batch as the teacher sees them."""
    near = F.cross_entropy(texts @ target.T * 20, F.softmax(target @ target.T * 20, -1))
    return (1 - (texts * target).sum(1)).mean() * 4 + near * 0.3


class Texts:
    """Batches (ids, teacher's projected vectors) of texts of like length, without an end."""

    def __init__(self, work: Path, device: torch.device, draw: random.Random) -> None:
        self.device, self.draw = device, draw
        project = torch.load(work / "images.pt", map_location="cpu")["average"]["project.weight"]
        parts = {name: self.read(work, name, project) for name in ("captions-train", "prompts", "wordnet")}
        words, vectors = parts["wordnet"]
        self.held = words[:UNSEEN], vectors[:UNSEEN]
        parts["wordnet"] = words[UNSEEN:], vectors[UNSEEN:]
        each = [parts["captions-train"], *[parts["prompts"]] * 3, parts["wordnet"]]
        self.ids, self.vectors = (torch.cat([part[i] for part in each]) for i in (0, 1))
        self.batches = self.endless()

    def read(self, work: Path, name: str, project: Tensor) -> tuple[Tensor, Tensor]:
        texts = json.loads((work / f"{name}.json").read_text())
        vectors = torch.from_numpy(np.load(work / f"{name}.npy")).float()
        return tokenizer(work)(texts), F.normalize(vectors @ project.T, dim=-1)

    def endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        lengths = (self.ids != 0).sum(1)
        while True:
            order = torch.argsort(lengths + torch.rand(len(lengths)) * 3)  # lengths alike within two tokens
            batches = [rows for rows in order.split(BATCH) if len(rows) == BATCH]
            self.draw.shuffle(batches)
            for rows in batches:
                yield self.ids[rows].to(self.device), self.vectors[rows].to(self.device)

    def __next__(self) -> tuple[Tensor, Tensor]:
        return next(self.batches)

    @torch.no_grad()
    def unseen(self, tower: TextTransformer) -> float:
        """Mean cosine to the teacher on WordNet texts that the student never sees."""
        ids, vectors = self.held
        texts = torch.cat([tower(trimmed(tower, part.to(self.device))).cpu() for part in ids.split(500)])
        return float((F.normalize(texts.float(), dim=-1) * vectors).sum(1).mean())


class Pictures:
    """Frozen vectors of training pictures, with their captions or classes."""

    def __init__(self, work: Path, device: torch.device) -> None:
        student = images.trained(work, device)
        self.scale = float(student.scales.detach()[1].exp().clamp(max=60))
        flip = bool(torch.rand(()) < 0.5)  # another view in another process
        self.captioned = images.vectors(student, images.training_pictures(work, images.CAPTIONED)[0], flip)
        sets = [images.training_pictures(work, name) for name in images.LABELLED]
        self.labelled = torch.cat([images.vectors(student, pixels, flip) for pixels, _ in sets])
        self.y = torch.from_numpy(np.concatenate([y for _, y in sets])).to(device)
        words = tokenizer(work)
        read = lambda name: words(json.loads((work / f"{name}.json").read_text())).to(device)  # noqa: E731
        self.captions = read("captions-train").unflatten(0, (-1, 5))
        self.prompts = read("prompts").unflatten(0, (-1, VARIANTS))

    def draw(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Token ids of captions and of the drawn classes' prompts; pictures of both; each one's class."""
        captioned = torch.randperm(len(self.captioned))[:CAPTIONED]
        labelled = torch.randint(0, len(self.y), (LABELLED,))
        classes, place = self.y[labelled].unique(return_inverse=True)
        captions = self.captions[captioned, torch.randint(0, 5, (CAPTIONED,))]
        prompts = self.prompts[classes, torch.randint(0, self.prompts.shape[1], (len(classes),))]
        return torch.cat([captions, prompts]), self.captioned[captioned], self.labelled[labelled], place

    def loss(self, texts: Tensor, captioned: Tensor, labelled: Tensor, place: Tensor) -> Tensor:
        """Captions and their pictures both ways, class pictures among the drawn classes."""
        captions, prompts = texts[:CAPTIONED], texts[CAPTIONED:]
        logits, own = captions @ captioned.T * self.scale, torch.arange(CAPTIONED, device=texts.device)
        both = F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)
        return 0.15 * both + 0.2 * F.cross_entropy(labelled @ prompts.T * self.scale, place)


if __name__ == "__main__":
    main()
