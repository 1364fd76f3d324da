"""A vision-language model that transformers runs on this machine."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ..encoders.device import in_batches
from ..errors import ModelError
from . import forms
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Odds = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
Answers = TypeVar("Answers")

_ONE_STEP = {"logits_to_keep": 1, "use_cache": False}  # where a model's forward takes them
# Greedy; what would make a library warn that it goes unused is unset.
_GREEDY = {"do_sample": False, "num_beams": 1}
_UNUSED = ("temperature", "top_p", "top_k", "min_p", "early_stopping", "length_penalty", "max_length")


class _Parts(NamedTuple):
    model: Any
    tokenizer: Any
    asker: forms.Asker


class LocalVLM:
    """A vision-language model of the hub or of a local directory. Fulfils `VLM`.

    It is read when it is first needed, and only by transformers' own code: none that comes with a model is
    run. Calls from several threads are safe and wait their turn.

    Args:
        model: org/name on the Hugging Face hub, or a directory in transformers' format.
        device: "auto" (the first of cuda, mps and cpu that is there), "cpu", "cuda", "cuda:1", "mps".
        precision: "auto" (bf16 where the device has instructions for it, else fp32), "fp32", "bf16", "fp16".
        max_side: pixels that the longer side of a picture is reduced to first; None: what the model wants.
            Some look at pictures in full size: less is quicker and needs less memory.
        batch_size: how many pictures at a time; halved by itself when the device's memory does not suffice.

    Attributes:
        model_id: the name on the hub, or `local-dir:` and the absolute path.

    Raises:
        ModelError: neither a directory nor a name of the hub, or an unknown precision.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        device: str = "auto",
        precision: str = "auto",
        max_side: int | None = None,
        batch_size: int = 8,
    ) -> None:
        self._checkpoint = Checkpoint(model, device=device, precision=precision)
        self.model_id = self._checkpoint.model_id
        self._max_side = max_side
        self._largest_batch = max(1, batch_size)
        self._lock = threading.RLock()
        self._parts: _Parts | None = None

    @property
    def device(self) -> str:
        """What the model runs on: "cpu", "cuda", "cuda:1" or "mps"."""
        return str(self._checkpoint.device)

    @property
    def precision(self) -> str:
        """The numbers it computes in: "fp32", "bf16" or "fp16"."""
        return self._checkpoint.precision

    def spec(self) -> Mapping[str, Any]:
        """What decides its answers, as JSON values. Digests the files, which are then remembered; loads none.

        Raises:
            ModelError: the files are not here and cannot be fetched.
        """
        return {**self._checkpoint.spec(), "max_side": self._max_side, "prompts": forms.VERSION}

    def generate(
        self, images: "Sequence[Image]", prompt: str | None = None, *, max_tokens: int = 64
    ) -> list[str]:
        """A text for each of n RGB pictures of any size, in order, without the prompt; none give [].

        Args:
            images: n RGB pictures.
            prompt: the same for all. None: a caption, asked for as the family of the model is used to.
            max_tokens: how long a text may become.

        Raises:
            ImageError: the model's processor refuses a picture.
            ModelError: the model cannot be loaded whole, takes no pictures, or does not fit the device.
        """
        if not images:
            return []
        with self._lock:
            parts = self._load()
            texts = self._batches(
                images, lambda some: _write(parts, parts.asker.ask(some, prompt), max_tokens)
            )
        return list(chain.from_iterable(texts))

    def log_odds(
        self, images: "Sequence[Image]", prompt: str, *, yes: Sequence[str], no: Sequence[str]
    ) -> Odds:
        """Whether each of n pictures is answered with yes.

        Args:
            images: n RGB pictures of any size.
            prompt: a question that yes or no answers.
            yes: spellings of yes; those that are more than one token of the model are left out.
            no: spellings of no, likewise.

        Returns:
            log P(yes) - log P(no) of the next token, float64 (n,); and P(yes) + P(no), float64 (n,). No
            pictures give two arrays of shape (0,).

        Raises:
            ImageError: the model's processor refuses a picture.
            ModelError: as for `generate`; or no spelling is a single token; or the next token of this
                family answers nothing (BLIP, Florence-2).
        """
        if not images:
            return np.zeros(0), np.zeros(0)
        with self._lock:
            parts = self._load()
            tokens = self._tokens(parts, yes), self._tokens(parts, no)
            odds = self._batches(
                images, lambda some: _judge(parts.model, parts.asker.question(some, prompt), *tokens)
            )
        margins, masses = zip(*odds, strict=True)
        return np.concatenate(margins), np.concatenate(masses)

    def load(self) -> None:
        """Read the model now, if it was not yet."""
        with self._lock:
            self._load()

    def close(self) -> None:
        """Let go of the model; the next call loads it again."""
        with self._lock:
            self._parts = None

    def _batches(
        self, images: "Sequence[Image]", answer: "Callable[[list[Image]], Answers]"
    ) -> list[Answers]:
        answers, self._largest_batch = in_batches(
            images,
            lambda some: answer([_reduced(image, self._max_side) for image in some]),
            size=self._largest_batch,
            model_id=self.model_id,
        )
        return answers

    def _tokens(self, parts: _Parts, spellings: Sequence[str]) -> list[int]:
        """The single tokens among some spellings, each once."""
        if parts.model.config.get_text_config().is_encoder_decoder:
            raise forms.no_answers(self.model_id)
        rows = (parts.tokenizer(text, add_special_tokens=False)["input_ids"] for text in spellings)
        tokens = {row[0] for row in rows if len(row) == 1} - {parts.tokenizer.unk_token_id}
        if not tokens:
            raise ModelError(
                f"none of {', '.join(map(repr, spellings))} is a single token of {self.model_id!r}; "
                "use other words"
            )
        return sorted(tokens)

    def _load(self) -> _Parts:
        if self._parts is None:
            self._parts = _parts(self._checkpoint)
        return self._parts


def _parts(checkpoint: Checkpoint) -> _Parts:
    try:
        from transformers import CONFIG_MAPPING, MODEL_FOR_MULTIMODAL_LM_MAPPING, AutoModelForMultimodalLM
    except ImportError as error:
        raise ModelError(
            "models that write need transformers 5: pip install 'clipsearch[captions]'"
        ) from error

    kind = checkpoint.model_type
    if CONFIG_MAPPING[kind] not in MODEL_FOR_MULTIMODAL_LM_MAPPING:
        raise ModelError(
            f"{checkpoint.model_id!r} takes no pictures, or writes no texts about them (it is of type "
            f"{kind!r}); captions need a vision-language model such as SmolVLM, Qwen3-VL or BLIP"
        )
    model, processor = checkpoint.load(AutoModelForMultimodalLM)
    for module in model.modules():
        if config := getattr(module, "generation_config", None):
            config.update(**_GREEDY, **dict.fromkeys(_UNUSED))
    asker = forms.Asker(processor, model_type=kind, model_id=checkpoint.model_id)
    return _Parts(model, processor.tokenizer, asker)


def _write(parts: _Parts, inputs: Any, max_tokens: int) -> list[str]:
    import torch

    model = parts.model
    inputs = inputs.to(model.device, dtype=model.dtype)  # casts no integers
    with torch.inference_mode():
        written = model.generate(**inputs, max_new_tokens=max_tokens)
    if "input_ids" in inputs:
        written = _without(inputs["input_ids"], written)
    return [text.strip() for text in parts.tokenizer.batch_decode(written, skip_special_tokens=True)]


def _without(prompt: "torch.Tensor", written: "torch.Tensor") -> "torch.Tensor":
    """Cut the prompt off, where the model repeats it; BLIP does without the token that ends it."""
    for length in (prompt.shape[1], prompt.shape[1] - 1):
        if written.shape[1] >= length and bool((written[:, :length] == prompt[:, :length]).all()):
            return written[:, length:]
    return written


def _judge(model: Any, inputs: Any, yes: list[int], no: list[int]) -> Odds:
    import torch

    accepted = signature(model.forward).parameters
    options = {name: value for name, value in _ONE_STEP.items() if name in accepted}
    with torch.inference_mode():
        logits = model(**inputs.to(model.device, dtype=model.dtype), **options).logits
    shares = logits[:, -1].float().cpu().double().log_softmax(-1)  # (n, tokens); the device may lack float64
    margin = shares[:, yes].logsumexp(-1) - shares[:, no].logsumexp(-1)
    mass = shares[:, sorted({*yes, *no})].exp().sum(-1)
    return margin.numpy(), mass.numpy()


def _reduced(image: "Image", max_side: int | None) -> "Image":
    if max_side is None or max(image.size) <= max_side:
        return image
    small = image.copy()
    small.thumbnail((max_side, max_side))
    return small
