"""What the training steps share: processes, schedule, weight averaging, checkpoints."""

import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def processes() -> tuple[int, int, torch.device]:
    """This process, how many there are, and its device: one process alone on a GPU, or some on processors."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if "RANK" not in os.environ:  # not started by torchrun
        return 0, 1, device
    torch.set_num_threads(1)  # a process a core: threads that wait for each other lose more than they win
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return torch.distributed.get_rank(), torch.distributed.get_world_size(), device


def parallel(model: nn.Module) -> nn.Module:
    """The model with its gradients averaged over the processes."""
    return DistributedDataParallel(model) if torch.distributed.is_initialized() else model


def cosine(done: float, step: int, warm: int) -> float:
    """Learning rate as a share of its peak: linear warm-up, then half a cosine to almost nothing."""
    return min(1.0, step / warm) * (0.5 * (1 + math.cos(math.pi * done)) + 0.003)


class Average:
    """Exponential moving average of weights and statistics: what is kept in the end."""

    def __init__(self, model: nn.Module, keep: float) -> None:
        self.keep, self.state = keep, {k: v.clone() for k, v in model.state_dict().items()}

    def update(self, model: nn.Module, step: int) -> None:
        keep = min(self.keep, 1 - 1 / (step * 0.1 + 2))  # quick at first
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.dtype.is_floating_point:
                    self.state[name].lerp_(value, 1 - keep)
                else:
                    self.state[name].copy_(value)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for name, value in state.items():
            self.state[name].copy_(value)


def descend(
    loss: torch.Tensor, optimizer: torch.optim.Optimizer, learned: torch.nn.Module, longest: float = 3.0
) -> None:
    """One step downhill; longer gradients are shortened, and one that is no number ends the run."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learned.parameters(), longest, error_if_nonfinite=True)
    optimizer.step()


class Told:
    """What a run says of itself: the means of its losses since the last time, and its speed."""

    def __init__(self, names: Sequence[str], every: int, first: int, steps: int, together: int) -> None:
        self.every, self.first, self.steps, self.together = every, first, steps, together
        self.began, self.sums = time.monotonic(), dict.fromkeys(names, 0.0)

    def add(self, step: int, losses: dict[str, torch.Tensor], *, aloud: bool, note: str) -> None:
        self.sums = {name: value + float(losses[name].detach()) for name, value in self.sums.items()}
        if step % self.every:
            return
        speed = (step - self.first) * self.together / (time.monotonic() - self.began)
        means = "  ".join(f"{name} {value / self.every:.3f}" for name, value in self.sums.items())
        if aloud:
            print(f"{step}/{self.steps}  {note}  {speed:.0f} images/s  {means}", flush=True)
        self.sums = dict.fromkeys(self.sums, 0.0)


def checkpoint(path: Path, step: int, about: dict[str, Any], **parts: Any) -> None:
    """Write all states and what the run is about; the file is always a whole one."""
    beside = path.with_suffix(".tmp")
    torch.save({"step": step, **about, **{name: part.state_dict() for name, part in parts.items()}}, beside)
    beside.replace(path)


def resume(path: Path, about: dict[str, Any], **parts: Any) -> int:
    """Load all states where there is a checkpoint, and its step; 0 where there is none.

    Raises:
        SystemExit: the checkpoint is of a run about something else.
    """
    if not path.exists():
        return 0
    states = torch.load(path, map_location="cpu", weights_only=True)
    for name, value in about.items():
        same = name in states and torch.equal(torch.as_tensor(states[name]), torch.as_tensor(value))
        if name != "steps" and not same:
            sys.exit(f"{path} is of another run, with another {name}: move it away, or run as it was made")
    for name, part in parts.items():
        part.load_state_dict(states[name])
    return int(states["step"])


def finished(path: Path) -> dict[str, Any]:
    """What a run left behind that came to its end.

    Raises:
        SystemExit: it did not, or there is none.
    """
    if not path.exists():
        sys.exit(f"there is no {path} yet: the step that writes it comes first")
    states: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if states["step"] < states["steps"]:
        sys.exit(f"{path} stands at step {states['step']} of {states['steps']}: start what writes it again")
    return states
