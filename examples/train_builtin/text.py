"""Step 4: the text tower, a small student of the teacher in the space that the image tower learned.

    torchrun --standalone --nproc-per-node CORES text.py WORK [--texts 1_200_000] [--tower MODEL]

First it only imitates the teacher's projected vectors, on captions, class prompts and WordNet; in the last
part it is tuned as well against the pictures' vectors, the image tower frozen. With `--tower MODEL` it does
not begin with nothing but with the text tower of an open_clip directory, an earlier model of this kind. A
run that is stopped goes on from WORK/text.pt.
"""

import argparse
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import images
import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import TextTransformer
from prepare import CONTEXT, VARIANTS, VOCABULARY, read, tokenizer
from safetensors.torch import load_file
from torch import Tensor
from training import Average, checkpoint, cosine, descend, finished, parallel, processes, resume

from clipsearch.files import write_lock

WIDTH, HEADS, LAYERS = 256, 4, 3
BATCH, PEAK, DECAY, SEED = 384, 1.5e-3, 0.02, 0
TUNED = 0.6  # from this share of the steps on, the pictures count
TUNING = 3e-4  # learning rate then
CAPTIONED, LABELLED, VIEWS = 192, 160, 4  # pictures of a tuning step; views of each captioned picture
UNSEEN = 2000  # WordNet texts held out
SAVE_EVERY, REPORT_EVERY = 400, 100  # steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--texts", type=int, default=1_200_000)
    parser.add_argument("--tower", type=Path, help="an open_clip directory with such a tower")
    options = parser.parse_args()
    train(options.work, options.texts, options.tower)


def train(work: Path, count_of_texts: int, start: Path | None = None) -> None:
    rank, count, device = processes()
    torch.manual_seed(SEED)
    project = finished(work / "images.pt")["average"]["project.weight"]
    data = Texts(work, device, project)
    tower = text_tower()
    if start:
        take_over(tower, start, *data.some(8192))
    else:
        tower.token_embedding.weight.data[: VOCABULARY - 2] = token_table(work)
    tower.to(device)
    whole, peak = parallel(tower), PEAK / 2 if start else PEAK
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in tower.parameters() if p.ndim > 1], "weight_decay": DECAY},
            {"params": [p for p in tower.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    average = Average(tower, 0.998)
    lock = ExitStack()
    if rank == 0:  # workers may outlive a torchrun that was killed, and go on writing
        lock.enter_context(write_lock(work / "text.lock"))
    steps = count_of_texts // (BATCH * count)
    about = {"steps": steps, "batch": BATCH * count, "project": project}  # the space it is trained in
    step = first = resume(work / "text.pt", about, tower=tower, optimizer=optimizer, average=average)
    if rank == 0:
        print(f"text tower: step {step} of {steps}, {BATCH * count} texts each", flush=True)
    torch.manual_seed(SEED + 1 + rank + 1000 * step)
    batches, pictures = data.endless(random.Random(f"{SEED} {rank} {step}")), Pictures(work, device)
    began, sums = time.monotonic(), [0.0, 0.0]
    while step < steps:
        done = step / steps
        tuned = done >= TUNED
        part = (done - TUNED) / (1 - TUNED) if tuned else done / TUNED
        rate = (TUNING if tuned else peak) * cosine(part, step, warm=100)
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids, target = next(batches)
        shown = pictures.draw() if tuned else None
        both = torch.cat([ids, shown[0]]) if shown else ids
        with torch.autocast(device.type, torch.bfloat16):
            texts = F.normalize(whole(trimmed(tower, both)).float(), dim=-1)
        imitation = imitate(texts[:BATCH], target)
        found = pictures.loss(texts[BATCH:], *shown[1:]) if shown else torch.zeros(())
        loss = imitation + found
        descend(loss, optimizer, tower, longest=1.0)
        step += 1
        average.update(tower, step)
        cosines = (texts[:BATCH] * target).sum(1).mean()
        sums = [sums[0] + float(cosines.detach()), sums[1] + float(found.detach())]
        if step % REPORT_EVERY == 0:
            speed = (step - first) * BATCH * count / (time.monotonic() - began)
            told = f"cosine {sums[0] / REPORT_EVERY:.4f}  pictures {sums[1] / REPORT_EVERY:.3f}"
            if rank == 0:
                print(f"{step}/{steps}  {speed:.0f} texts/s  {told}", flush=True)
            sums = [0.0, 0.0]
        if rank == 0 and (step % SAVE_EVERY == 0 or step == steps):
            checkpoint(work / "text.pt", step, about, tower=tower, optimizer=optimizer, average=average)
            if step % (5 * SAVE_EVERY) == 0 or step == steps:
                print(f"unseen WordNet texts: cosine {data.unseen(tower):.4f}", flush=True)
    lock.close()


def text_tower() -> TextTransformer:
    """open_clip's, its mask no buffer: each batch sets its own, and processes do not share it."""
    tower = TextTransformer(CONTEXT, VOCABULARY, WIDTH, HEADS, LAYERS, output_dim=images.DIM)
    mask = tower.attn_mask
    del tower.attn_mask
    tower.attn_mask = mask
    return tower


@torch.no_grad()
def take_over(tower: TextTransformer, start: Path, ids: Tensor, vectors: Tensor) -> None:
    """Load another tower's weights; its projection is fitted anew, so that these ids give these vectors."""
    state = load_file(start / "open_clip_model.safetensors")
    tower.load_state_dict({name: state[name].float() for name in tower.state_dict()})
    tower.text_projection.data = torch.eye(WIDTH)
    features = torch.cat([tower(trimmed(tower, part)) for part in ids.split(500)])
    tower.text_projection.data = torch.linalg.lstsq(features, vectors).solution


def token_table(work: Path) -> Tensor:
    """(tokens, WIDTH): what the teacher says of each token's string, its first principal components."""
    vectors = torch.from_numpy(np.load(work / "tokens.npy")).float()
    vectors -= vectors.mean(0)
    _, _, axes = torch.linalg.svd(vectors, full_matrices=False)
    turned = vectors @ axes[:WIDTH].T @ torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
    return turned / turned.std() * 0.03


def trimmed(tower: TextTransformer, ids: Tensor) -> Tensor:
    """Without the columns after every row's end, and the tower's mask likewise.

    This changes no result, as attention looks back only and the end is what is read.
    """
    length = int(ends(ids).max())
    tower.attn_mask = tower.build_causal_mask()[:length, :length].to(ids.device)
    return ids[:, :length]


def ends(ids: Tensor) -> Tensor:
    """The length of each row up to its end token, the largest id. 0 is padding, but a sign of its own too."""
    return ids.argmax(1) + 1


def imitate(texts: Tensor, target: Tensor) -> Tensor:
    """Cosine to the teacher, and the similarities within the batch as the teacher sees them."""
    near = F.cross_entropy(texts @ target.T * 20, F.softmax(target @ target.T * 20, -1))
    return (1 - (texts * target).sum(1)).mean() * 4 + near * 0.3


class Texts:
    """All texts: token ids (n, context), and the teacher's vectors (n, 256) as projected."""

    def __init__(self, work: Path, device: torch.device, project: Tensor) -> None:
        self.device = device
        parts = {
            name: self.embedded(work, name, project) for name in ("captions-train", "prompts", "wordnet")
        }
        words, vectors = parts["wordnet"]
        self.held = words[:UNSEEN], vectors[:UNSEEN]
        parts["wordnet"] = words[UNSEEN:], vectors[UNSEEN:]
        each = [parts["captions-train"], *[parts["prompts"]] * 3, parts["wordnet"]]
        self.ids, self.vectors = (torch.cat([part[i] for part in each]) for i in (0, 1))

    def embedded(self, work: Path, name: str, project: Tensor) -> tuple[Tensor, Tensor]:
        texts = read(work / f"{name}.json")
        vectors = torch.from_numpy(np.load(work / f"{name}.npy")).float()
        return tokenizer(work)(texts), F.normalize(vectors @ project.T, dim=-1)

    def some(self, count: int) -> tuple[Tensor, Tensor]:
        """Ids and vectors of random texts."""
        rows = torch.randperm(len(self.ids))[:count]
        return self.ids[rows], self.vectors[rows]

    def endless(self, draw: random.Random) -> Iterator[tuple[Tensor, Tensor]]:
        lengths = ends(self.ids)
        while True:
            order = torch.argsort(lengths + torch.rand(len(lengths)) * 3)  # lengths alike within two tokens
            batches = [rows for rows in order.split(BATCH) if len(rows) == BATCH]
            draw.shuffle(batches)
            for rows in batches:
                yield self.ids[rows].to(self.device), self.vectors[rows].to(self.device)

    @torch.no_grad()
    def unseen(self, tower: TextTransformer) -> float:
        """Mean cosine to the teacher on WordNet texts that the student never sees."""
        ids, vectors = self.held
        texts = torch.cat([tower(trimmed(tower, part.to(self.device))).cpu() for part in ids.split(500)])
        return float((F.normalize(texts.float(), dim=-1) * vectors).sum(1).mean())


class Pictures:
    """Frozen vectors of random views of the training pictures, with their captions or classes."""

    def __init__(self, work: Path, device: torch.device) -> None:
        student = images.trained(work, device)
        self.scale = float(student.scales.detach()[1].exp().clamp(max=60))
        view = partial(images.augmented, size=images.SIZES[-1][1])
        captioned, _ = images.training_pictures(work, images.CAPTIONED)
        each = [images.vectors(student, captioned, partial(view, captioned=True)) for _ in range(VIEWS)]
        self.captioned = torch.stack(each)  # (views, pictures, dim)
        sets = [images.training_pictures(work, name) for name in images.LABELLED]
        shown = [images.vectors(student, pixels, partial(view, captioned=False)) for pixels, _ in sets]
        self.labelled = torch.cat(shown)
        self.y = torch.from_numpy(np.concatenate([y for _, y in sets])).to(device)
        words = tokenizer(work)
        self.captions = words(read(work / "captions-train.json")).to(device).unflatten(0, (-1, 5))
        self.prompts = words(read(work / "prompts.json")).to(device).unflatten(0, (-1, VARIANTS))

    def draw(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Token ids of captions and of the drawn classes' prompts; pictures of both; each one's class."""
        captioned = torch.randperm(len(self.captions))[:CAPTIONED]
        view = torch.randint(0, VIEWS, (CAPTIONED,))
        labelled = torch.randint(0, len(self.y), (LABELLED,))
        classes, place = self.y[labelled].unique(return_inverse=True)
        captions = self.captions[captioned, torch.randint(0, 5, (CAPTIONED,))]
        prompts = self.prompts[classes, torch.randint(0, self.prompts.shape[1], (len(classes),))]
        return torch.cat([captions, prompts]), self.captioned[view, captioned], self.labelled[labelled], place

    def loss(self, texts: Tensor, captioned: Tensor, labelled: Tensor, place: Tensor) -> Tensor:
        """Captions and their pictures both ways, class pictures among the drawn classes."""
        captions, prompts = texts[:CAPTIONED], texts[CAPTIONED:]
        logits, own = captions @ captioned.T * self.scale, torch.arange(CAPTIONED, device=texts.device)
        both = F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)
        return 0.15 * both + 0.2 * F.cross_entropy(labelled @ prompts.T * self.scale, place)


if __name__ == "__main__":
    main()
