"""Step 3: one image tower that knows what several know.

    torchrun --standalone --nproc-per-node CORES distil.py WORK TEACHER TEACHER [--samples 256_000]

WORK/TEACHER.pt are finished runs of images.py. The student begins as the first of them and keeps its
projection of the texts; it learns the mean of all teachers' cosines of pictures and texts (Hinton, Vinyals
and Dean 2015; the same view for all, Beyer et al. 2022). What one tower has learned by heart of a training
photo the others have not, so the mean knows better what an unseen photo shows. Writes WORK/images.pt.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

import images
import numpy as np
import torch
import torch.nn.functional as F
from images import SIZES, Data, Student
from torch import Tensor, nn
from training import Average, Told, checkpoint, cosine, descend, parallel, processes, resume

from clipsearch.files import write_lock

BATCH = {"tiny-imagenet": 72, "flickr8k-train": 16, "caltech101": 26, "clothing": 14}  # of one process
PEAK, SEED = 1e-3, 7
SHARP = 20.0  # what cosines are multiplied by before they are compared as distributions over the texts
SAVE_EVERY, REPORT_EVERY = 200, 50  # steps
LOSSES = ("all", "texts", "cosines", "class")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("teachers", nargs="+", help="runs of images.py, the one to begin with first")
    parser.add_argument("--samples", type=int, default=256_000)
    options = parser.parse_args()
    distil(options.work, options.teachers, options.samples)


def distil(work: Path, teachers: list[str], samples: int) -> None:
    if "images" in teachers:
        sys.exit(f"the result goes to {work / 'images.pt'}: give that teacher's file another name first")
    rank, count, device = processes()
    towers = [images.trained(work, device, name) for name in teachers]
    student = images.trained(work, device, teachers[0]).train()
    whole, parts = parallel(Unit(student.visual)), images.groups(student)[:2]  # all but projection and scales
    optimizer, average = torch.optim.AdamW(parts, lr=PEAK, betas=(0.9, 0.98)), Average(student, 0.99)
    lock = ExitStack()
    if rank == 0:
        lock.enter_context(write_lock(work / "images.lock"))
    together = sum(BATCH.values()) * count
    steps = samples // together
    size = SIZES[-1][1]
    about = {"steps": steps, "batch": together, "project": student.project.weight.detach()}
    step = first = resume(work / "images.pt", about, student=student, optimizer=optimizer, average=average)
    torch.manual_seed(SEED + 1 + rank + 1000 * step)
    data = Data(work, device, np.random.default_rng([SEED, rank, step]), BATCH)
    told = Told(LOSSES, REPORT_EVERY, first, steps, together)
    if rank == 0:
        print(f"{len(towers)} teachers: step {step} of {steps}, {together} pictures each", flush=True)
    while step < steps:
        for group in optimizer.param_groups:
            group["lr"] = PEAK * cosine(step / steps, step, warm=60)
        pictures, batch = data.batch(size)
        texts = torch.cat([batch["labels"], batch["captions"]])
        with torch.autocast(device.type, torch.bfloat16):
            vectors = whole(pictures)
            wanted = [cosines(tower, pictures, texts) for tower in towers]
        known = F.normalize(student.project(texts).detach(), dim=-1)
        scale = float(student.scales[0].detach().exp())
        losses = loss(vectors @ known.T, torch.stack(wanted).mean(0), batch["y"], len(data.prompts), scale)
        descend(losses["all"], optimizer, student.visual)
        step += 1
        average.update(student, step)
        told.add(step, losses, aloud=rank == 0, note=f"{size} px")
        if rank == 0 and (step % SAVE_EVERY == 0 or step == steps):
            checkpoint(work / "images.pt", step, about, student=student, optimizer=optimizer, average=average)
    lock.close()


class Unit(nn.Module):
    """A tower that gives unit rows (b, 256)."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pictures: Tensor) -> Tensor:
        return F.normalize(self.tower(pictures).float(), dim=-1)


@torch.no_grad()
def cosines(teacher: Student, pictures: Tensor, texts: Tensor) -> Tensor:
    """What a teacher thinks of pictures and texts, (b, texts): each teacher has a projection of its own."""
    vectors = F.normalize(teacher.visual(pictures).float(), dim=-1)
    with torch.autocast(pictures.device.type, enabled=False):
        return vectors @ F.normalize(teacher.project(texts), dim=-1).T


def loss(found: Tensor, wanted: Tensor, y: Tensor, classes: int, scale: float) -> dict[str, Tensor]:
    """How far cosines (b, texts) are from those wanted, and class pictures from their class.

    The first `classes` texts are the classes', and the first pictures are of class `y`.
    """
    texts = F.kl_div(F.log_softmax(found * SHARP, -1), F.softmax(wanted * SHARP, -1), reduction="batchmean")
    apart = (found - wanted).square().mean()
    hard = F.cross_entropy(found[: len(y), :classes] * scale, y)
    whole = texts + 200 * apart + 0.15 * hard
    return dict(zip(LOSSES, (whole, texts, apart, hard), strict=True))


if __name__ == "__main__":
    main()
