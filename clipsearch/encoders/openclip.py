"""The main road: any model of open_clip as an encoder."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import ModelError
from ..files import cores
from ..types import Embeddings, Role, as_embeddings
from .device import Rows, check_precision, choose_device, choose_dtype, in_batches, short_name
from .pixels import Pixels, prepare
from .recipe import Recipe
from .script import notice_script

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn

    from .tokens import Tokens

_BATCH = {"cpu": 16}  # more is no faster on a processor (measured for 8 to 128), only bigger
_BATCH_ELSEWHERE = 256
_TEXTS = {"cpu": 64}  # 1.3 times the speed of 16, for ViT-B/32
_TOKENIZED = 16_384  # texts at a time
_CUTTABLE_POOLS = ("argmax", "eos")


class OpenClipEncoder:
    """A dual encoder of open_clip. Fulfils `Encoder` and `Prepares`.

    Each tower is loaded when it is first needed, so searching by text never loads the image
    tower. `load_encoder` makes these; the recipe says which model.

    Calls from several threads are safe. On a processor, pictures of several threads are encoded
    side by side; everything else waits its turn.

    Attributes:
        model_id: the canonical id of the model.
        dim: length of a vector.
        min_side: pixels of the longer side of what the image tower looks at.
    """

    def __init__(self, recipe: Recipe, *, device: str = "auto", precision: str = "auto") -> None:
        self.model_id = recipe.model_id
        self.dim = int(recipe.config["embed_dim"])
        self.min_side: int | None = max(recipe.preprocessing.size)
        self._recipe = recipe
        self._wanted_device = device
        self._wanted_precision = check_precision(precision)
        self._lock = threading.RLock()
        self._image_tower: nn.Module | None = None
        self._text_tower: nn.Module | None = None
        self._tokens: Tokens | None = None
        self._largest_batch: int | None = None
        self._largest_texts: int | None = None

    @property
    def device(self) -> str:
        """What the model runs on: "cpu", "cuda", "cuda:1" or "mps"."""
        return str(self._device)

    @property
    def precision(self) -> str:
        """The numbers in which pictures are encoded: "fp32", "bf16" or "fp16"."""
        return short_name(choose_dtype(self._wanted_precision, self._device))

    @cached_property
    def logit_scale(self) -> float:
        """What a cosine is multiplied by before softmax or sigmoid: about 100 for CLIP."""
        return self._scalars[0]

    @cached_property
    def logit_bias(self) -> float | None:
        """What is then added before the sigmoid; None for models without, that is all but SigLIP's kind."""
        return self._scalars[1]

    def fingerprint(self) -> str:
        """64 hexadecimal digits that change when weights, preprocessing or tokenizer do.

        They change with nothing else, neither device nor precision. Loads no tower.
        """
        return self._fingerprint

    def prepare(self, image: "Image") -> Pixels:
        """Resize and crop one RGB picture to uint8 (height, width, 3). Thread-safe."""
        return prepare(image, self._recipe.preprocessing)

    def encode_prepared(self, batch: Sequence[Pixels]) -> Embeddings:
        """Encode n prepared pictures to float32 (n, dim) with unit rows, in order; none give (0, dim).

        When the device's memory is too small for a batch, halves of it are tried, down to one picture.

        Raises:
            ModelError: the model cannot be loaded, does not fit the device, or gives no finite numbers.
        """
        if not batch:
            return self._embeddings([])
        tower = self._load_image_tower()
        with self._turn():
            return self._embeddings(self._batches(batch, lambda part: self._encode_pixels(tower, part)))

    @property
    def batch_size(self) -> int:
        """How many pictures one forward takes best."""
        return self._largest_batch or _BATCH.get(self._device.type, _BATCH_ELSEWHERE)

    @property
    def forwards(self) -> int:
        """How many threads are of use for `encode_prepared`: one a core on a processor, else one."""
        return cores() if self._device.type == "cpu" else 1

    @contextmanager
    def forward_threads(self) -> Iterator[Executor]:
        """Load the image tower and open the threads to call `encode_prepared` in.

        On a processor each computes on one core. That is a little faster than one forward over all
        of them, and does not stand still when another program takes one away.
        """
        import torch

        self._load_image_tower()
        everywhere = torch.get_num_threads()
        alone = partial(torch.set_num_threads, 1 if self._device.type == "cpu" else everywhere)
        try:
            with ThreadPoolExecutor(self.forwards, "clipsearch-forward", initializer=alone) as pool:
                yield pool
        finally:
            torch.set_num_threads(everywhere)  # for threads that others start later

    def encode_images(self, images: "Sequence[Image]") -> Embeddings:
        """Encode n RGB pictures of any size to float32 (n, dim) with unit rows; none give (0, dim)."""
        rows, size = [self._embeddings([])], self.batch_size
        for start in range(0, len(images), size):
            rows.append(self.encode_prepared([self.prepare(image) for image in images[start : start + size]]))
        return np.concatenate(rows)

    def encode_texts(self, texts: Sequence[str], *, role: Role = "query") -> Embeddings:
        """Encode n texts of any length to float32 (n, dim) with unit rows, in order; none give (0, dim).

        Args:
            texts: any strings; what exceeds the model's context is cut off.
            role: has no meaning for these models.

        Raises:
            ModelError: the model cannot be loaded, or gives no finite numbers.
        """
        if not texts:
            return self._embeddings([])
        notice_script(self.model_id, texts)
        with self._lock:
            tower, tokens = self._load_text_tower()
            parts = (tokens(texts[i : i + _TOKENIZED]) for i in range(0, len(texts), _TOKENIZED))
            return self._embeddings([self._encode_ids(tower, ids) for ids in parts])

    def close(self) -> None:
        """Let go of both towers; the next call loads them again."""
        with self._lock:
            self._image_tower = self._text_tower = self._tokens = None

    @cached_property
    def _device(self) -> "torch.device":
        return choose_device(self._wanted_device)

    @cached_property
    def _scalars(self) -> tuple[float, float | None]:
        from .towers import load_scalars

        return load_scalars(self._recipe)

    @cached_property
    def _fingerprint(self) -> str:
        return self._recipe.fingerprint()

    def _turn(self) -> AbstractContextManager[object]:
        return nullcontext() if self._device.type == "cpu" else self._lock

    def _load_image_tower(self) -> "nn.Module":
        from .towers import is_convolutional, load_tower

        with self._lock:
            if self._image_tower is None:
                import torch

                tower = load_tower(self._recipe, "image")
                # Convolutions run 1.3 (fp32) to 1.8 (bf16) times faster with channels last, measured.
                layout = torch.channels_last if is_convolutional(tower) else torch.preserve_format
                dtype = choose_dtype(self._wanted_precision, self._device)
                self._image_tower = tower.to(self._device, dtype).to(memory_format=layout)
            return self._image_tower

    def _load_text_tower(self) -> "tuple[nn.Module, Tokens]":
        from .tokens import Tokens
        from .towers import load_tower

        if self._text_tower is None or self._tokens is None:
            self._tokens = Tokens(self._recipe)
            # On a processor converting takes longer than a query: then the file is mapped and used as it is.
            automatic = self._wanted_precision == "auto" and self._device.type == "cpu"
            dtype = choose_dtype("fp32" if automatic else self._wanted_precision, self._device)
            self._text_tower = load_tower(self._recipe, "text").to(self._device, dtype)
        return self._text_tower, self._tokens

    def _encode_pixels(self, tower: "nn.Module", batch: Sequence[Pixels]) -> Rows:
        import torch

        how, dtype = self._recipe.preprocessing, next(tower.parameters()).dtype
        mean, std = (
            torch.tensor(channel, device=self._device).view(3, 1, 1) for channel in (how.mean, how.std)
        )
        pixels = torch.from_numpy(np.stack(batch)).to(self._device)  # (n, height, width, 3) uint8
        with torch.inference_mode():
            # (n, 3, height, width), channels last in memory
            scaled = pixels.permute(0, 3, 1, 2).float().div_(255)
            rows: torch.Tensor = tower(scaled.sub_(mean).div_(std).to(dtype))  # (n, dim)
            return rows.float().cpu().numpy()

    def _encode_ids(self, tower: "nn.Module", ids: "torch.Tensor") -> Rows:
        """Vectors of tokenized texts, (n, dim), in order; texts of a length are encoded together."""
        order = _lengths(tower, ids).argsort(stable=True)  # (n,)
        size = self._largest_texts or _TEXTS.get(self._device.type, _BATCH_ELSEWHERE)
        forward = partial(self._forward_ids, tower)
        rows, self._largest_texts = in_batches(ids[order], forward, size=size, model_id=self.model_id)
        out = np.empty((len(ids), self.dim), np.float32)
        out[order.numpy()] = np.concatenate(rows)
        return out

    def _forward_ids(self, tower: "nn.Module", ids: "torch.Tensor") -> Rows:
        import torch

        longest = int(_lengths(tower, ids).max())
        with torch.inference_mode(), _cut(tower, longest) if longest < ids.shape[1] else nullcontext():
            rows: torch.Tensor = tower(ids[:, :longest].to(self._device))
            return rows.float().cpu().numpy()

    def _batches(self, items: Sequence[Any], encode: Callable[[Sequence[Any]], Rows]) -> list[Rows]:
        rows, fitted = in_batches(items, encode, size=self.batch_size, model_id=self.model_id)
        self._largest_batch = fitted
        return rows

    def _embeddings(self, rows: list[Rows]) -> Embeddings:
        if not rows:
            return np.zeros((0, self.dim), np.float32)
        try:
            return as_embeddings(np.concatenate(rows), dim=self.dim)
        except ValueError as error:
            raise ModelError(
                f"{self.model_id!r} in {self.precision} on {self.device}: {error}; try precision='fp32'"
            ) from error


def _lengths(tower: "nn.Module", ids: "torch.Tensor") -> "torch.Tensor":
    """How many columns of the ids (n, context) each text needs, (n,).

    In CLIP's causal tower no token sees what comes after it, and the vector is read at the end of the text,
    so padding cannot change it. Towers that see the whole context at once (SigLIP) need all of it.
    """
    import torch

    mask = getattr(tower, "attn_mask", None)
    if mask is None or tower.cls_emb is not None or tower.pool_type not in _CUTTABLE_POOLS:
        return torch.full((len(ids),), ids.shape[1])
    # "argmax": the end has the highest id
    ends = (ids == tower.eos_id).int() if tower.pool_type == "eos" else ids
    return ends.argmax(dim=-1) + 1


@contextmanager
def _cut(tower: "nn.Module", length: int) -> Iterator[None]:
    """Let a causal tower take fewer columns than its context."""
    mask = cast("torch.Tensor", tower.attn_mask)
    tower.attn_mask = mask[:length, :length]
    try:
        yield
    finally:
        tower.attn_mask = mask
