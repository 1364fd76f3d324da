"""Rerankers with BLIP's image-text matching head: small enough for a processor without a GPU."""

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..captioners.checkpoint import Checkpoint
from ..captioners.forms import REFUSALS
from ..encoders.device import in_batches
from ..encoders.names import short
from ..errors import ImageError, ModelError
from ..types import Candidate
from .fusion import WEIGHT, How

if TYPE_CHECKING:
    import torch

Scores = npt.NDArray[np.float64]

_HEADS = {"blip": "BlipForImageTextRetrieval", "blip-2": "Blip2ForImageTextRetrieval"}
_KEPT = 256  # pictures whose features stay in memory; BLIP base has 0.9 MB of bf16 for each


class ItmReranker:
    """BLIP or BLIP-2 with its matching head, such as Salesforce/blip-itm-base-coco. Fulfils `Reranker`.

    Its score is the log-odds that the text describes the picture. It is read when it is first needed. What it
    sees in a picture does not depend on the text, so that a picture's second query costs a fraction.

    Args:
        model: org/name on the Hugging Face hub, or a directory in transformers' format.
        depth: how many of the best it is asked for.
        budget: seconds after which no more are asked for; None: all.
        weight: of its scores beside the first stage's, 0 to 1.
        how: they are fused, "z" or "rrf"; see `fused`.
        batch_size: how many pictures at a time; halved by itself when the device's memory does not suffice.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        precision: "auto", "fp32", "bf16", "fp16".

    Raises:
        ModelError: neither a directory nor a name of the hub, or an unknown precision.
    """

    needs = "pixels"

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        depth: int = 20,
        budget: float | None = None,
        weight: float = WEIGHT,
        how: How = "z",
        batch_size: int = 8,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.depth, self.budget, self.weight, self.how = depth, budget, weight, how
        self.batch_size = batch_size
        self._checkpoint = Checkpoint(model, device=device, precision=precision)
        self._lock = threading.RLock()
        self._parts: tuple[Any, Any] | None = None
        self._seen: dict[bytes, torch.Tensor] = {}  # features (patches, width) by sha256, oldest first
        self._largest_batch = max(1, batch_size)

    @property
    def name(self) -> str:
        """What it is called in results."""
        return f"match:{short(self._checkpoint.model_id)}"

    def load(self) -> None:
        """Read the model now, if it was not yet."""
        with self._lock:
            self._load()

    def spec(self) -> Mapping[str, Any]:
        """What decides its scores, as JSON values. Digests the files, which is remembered; loads none."""
        return {**self._checkpoint.spec(), "reranker": "itm"}

    def score(self, query: str, candidates: Sequence[Candidate]) -> Scores:
        """Log-odds that a text describes n pictures, float64 (n,), in order; no candidates give (0,).

        Raises:
            ModelError: the model cannot be loaded whole, has no matching head, or does not fit the device.
        """
        if not candidates:
            return np.zeros(0)
        with self._lock:
            model, processor = self._load()
            rows, self._largest_batch = in_batches(
                candidates,
                lambda some: _match(model, processor, query, self._look(some)),
                size=self._largest_batch,
                model_id=self._checkpoint.model_id,
            )
        return np.concatenate(rows)

    def close(self) -> None:
        """Let go of the model and of what it has seen; the next call loads it again."""
        with self._lock:
            self._parts = None
            self._seen.clear()

    def _load(self) -> tuple[Any, Any]:
        if self._parts is None:
            import transformers

            kind = self._checkpoint.model_type
            if kind not in _HEADS:
                raise ModelError(
                    f"{self._checkpoint.model_id!r} is of type {kind!r} and has no image-text matching head; "
                    "expected BLIP or BLIP-2, such as Salesforce/blip-itm-base-coco"
                )
            self._parts = self._checkpoint.load(getattr(transformers, _HEADS[kind]))
        return self._parts

    def _look(self, candidates: Sequence[Candidate]) -> "torch.Tensor":
        """What the model sees in n pictures: (n, patches, width)."""
        import torch

        model, processor = self._load()
        new = {one.sha256: one for one in candidates if one.sha256 not in self._seen}
        if new:
            pictures = [one.image() for one in new.values()]
            try:
                pixels = processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
            except REFUSALS as error:
                raise ImageError(f"the model's processor refuses it: {error}") from error
            with torch.inference_mode():
                features = model.vision_model(pixels.to(model.device, model.dtype)).last_hidden_state
            self._seen.update(zip(new, features, strict=True))
        looks = torch.stack([self._seen[one.sha256] for one in candidates])
        while len(self._seen) > _KEPT:
            del self._seen[next(iter(self._seen))]
        return looks


def _match(model: Any, processor: Any, query: str, looks: "torch.Tensor") -> Scores:
    import torch

    longest = getattr(model.config, "qformer_config", model.config.text_config).max_position_embeddings
    text = query.encode("utf-8", "replace").decode("utf-8")
    words = processor.tokenizer([text], truncation=True, max_length=longest, return_tensors="pt")
    tokens = words["input_ids"].to(model.device).expand(len(looks), -1)  # (n, tokens): no padding
    head = _blip2 if hasattr(model, "qformer") else _blip
    with torch.inference_mode():
        logits = head(model, tokens, looks).double().cpu().numpy()  # (n, 2): does not fit, fits
    return np.asarray(logits[:, 1] - logits[:, 0])


def _blip(model: Any, tokens: "torch.Tensor", looks: "torch.Tensor") -> "torch.Tensor":
    words = model.text_encoder(input_ids=tokens, encoder_hidden_states=looks).last_hidden_state
    logits: torch.Tensor = model.itm_head(words[:, 0])
    return logits


def _blip2(model: Any, tokens: "torch.Tensor", looks: "torch.Tensor") -> "torch.Tensor":
    asked = model.query_tokens.expand(len(looks), -1, -1)
    count = asked.shape[1]
    joined = model.embeddings(input_ids=tokens, query_embeds=asked)
    looks = looks.to(joined.dtype)  # the middle part stays in float32 in some precisions
    words = model.qformer(query_embeds=joined, query_length=count, encoder_hidden_states=looks)
    seen = words.last_hidden_state[:, :count].to(model.itm_head.weight.dtype)
    logits: torch.Tensor = model.itm_head(seen).mean(dim=1)
    return logits
