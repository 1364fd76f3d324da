"""On what and in which numbers a model runs."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import ModelError

if TYPE_CHECKING:
    import torch

Rows: TypeAlias = npt.NDArray[np.float32]  # (n, dim), of any length
Answers = TypeVar("Answers")  # what a model gives for a batch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_CPU_BF16 = ("avx512_bf16", "amx_bf16")  # instructions with which bf16 is faster than fp32, measured


def choose_device(device: str) -> "torch.device":
    """The device of that name; "auto" is the first of cuda, mps and cpu that is there.

    Raises:
        ModelError: there is no such device here.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"unknown device {device!r}; expected auto, cpu, cuda, cuda:1 or mps") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ModelError(f"no device {device!r} here: torch {torch.__version__} sees {count}; use 'auto'")
    if chosen.type == "mps" and not _has_mps():
        raise ModelError(f"no device {device!r} here; use 'auto'")
    return chosen


def choose_dtype(precision: str, device: "torch.device") -> "torch.dtype":
    """The numbers a tower computes in; "auto" is bf16 where the device has instructions for it, else fp32."""
    import torch

    if precision == "auto":
        return torch.bfloat16 if _has_bf16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def check_precision(precision: str) -> str:
    """Return a precision that is one of the known.

    Raises:
        ModelError: it is not.
    """
    if precision not in PRECISIONS:
        raise ModelError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    return precision


def short_name(dtype: "torch.dtype") -> str:
    """What `precision` calls a dtype: fp32, bf16 or fp16."""
    import torch

    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]


def _has_bf16(device: "torch.device") -> bool:
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # not in torch 2.10
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in _CPU_BF16)
    return False


def _has_mps() -> bool:
    import torch

    return torch.backends.mps.is_available()


def in_batches(
    items: "Sequence[Any] | torch.Tensor", encode: Callable[[Any], Answers], *, size: int, model_id: str
) -> tuple[list[Answers], int]:
    """Encode in batches, halving them whenever the device runs out of memory.

    Args:
        items: what to encode.
        encode: gives what the model makes of some of them: vectors (n, dim), texts, scores.
        size: of the first batch.
        model_id: for the error.

    Returns:
        What it made of each batch, in order, and the largest size that fitted.

    Raises:
        ModelError: not even one item fits.
    """
    import torch

    rows: list[Answers] = []
    done = 0
    while done < len(items):
        try:
            rows.append(encode(items[done : done + size]))
            done += size
        except torch.OutOfMemoryError as error:
            size = min(size, len(items) - done) // 2
            if not size:
                raise ModelError(
                    f"{model_id!r} does not fit into the device's memory; use device='cpu'"
                ) from error
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return rows, size
