"""The second road: CLIP and SigLIP in transformers' format, and models of sentence-transformers."""

import threading
from collections.abc import Sequence
from functools import cached_property
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError
from ..types import Embeddings, Role, as_embeddings
from . import hub
from .device import check_precision, choose_device, choose_dtype, in_batches, short_name
from .digest import sha256_of_model
from .names import FOLDER, SENTENCE
from .whole import check_whole, quietly

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from sentence_transformers import SentenceTransformer

_BATCH = 32
_SIGLIP = (
    "siglip",
    "siglip2",
)  # `model_type` of the models that saw lower-case text, padded to the full context


def find_folder(model_id: str) -> Path:
    """The local directory of a model by its canonical id, `local-dir:…` or `st:…`; downloaded if need be."""
    if model_id.startswith(FOLDER):
        return Path(model_id.removeprefix(FOLDER))
    return hub.repository(model_id.removeprefix(SENTENCE), model=model_id)


class SentenceTransformerEncoder:
    """A model that sentence-transformers runs on both pictures and texts. Fulfils `Encoder`.

    It is loaded when it is first needed. Calls from several threads are safe and wait their turn.

    Attributes:
        model_id: the canonical id of the model.
    """

    def __init__(self, model_id: str, folder: Path, *, device: str = "auto", precision: str = "auto") -> None:
        self.model_id = model_id
        self._folder = folder
        self._wanted_device = device
        self._wanted_precision = check_precision(precision)
        self._lock = threading.RLock()
        self._model: SentenceTransformer | None = None
        self._largest_batch = _BATCH

    @cached_property
    def dim(self) -> int:
        """Length of a vector. The first question loads the model."""
        return int(self._encode_texts(["a"], "query").shape[1])

    @property
    def device(self) -> str:
        """What the model runs on: "cpu", "cuda", "cuda:1" or "mps"."""
        return str(self._device)

    @property
    def precision(self) -> str:
        """The numbers it computes in: "fp32", "bf16" or "fp16"."""
        return short_name(choose_dtype(self._wanted_precision, self._device))

    @cached_property
    def logit_scale(self) -> float | None:
        """What a cosine is multiplied by before softmax or sigmoid; None if the model has none."""
        scale = getattr(self._network(), "logit_scale", None)
        return None if scale is None else exp(float(scale.detach()))

    @cached_property
    def logit_bias(self) -> float | None:
        """What is then added before the sigmoid; None if the model has none."""
        bias = getattr(self._network(), "logit_bias", None)
        return None if bias is None else float(bias.detach())

    def fingerprint(self) -> str:
        """64 hexadecimal digits that change when weights, preprocessing or tokenizer do. Loads nothing."""
        return self._fingerprint

    def encode_images(self, images: "Sequence[Image]") -> Embeddings:
        """Encode n RGB pictures of any size to float32 (n, dim) with unit rows, in order; none give (0, dim).

        Raises:
            ModelError: the model cannot be loaded whole, takes no pictures, or does not fit the device.
        """
        if not images:
            return np.zeros((0, self.dim), np.float32)
        with self._lock:
            model = self._load()
            if not model.supports("image"):
                raise ModelError(
                    f"{self.model_id!r} takes no pictures, only {', '.join(map(str, model.modalities))}"
                )
            # Pictures are what is searched: models with two roles know them as documents.
            return self._batches(
                images, lambda part: model.encode_document(list(part), show_progress_bar=False)
            )

    def encode_texts(self, texts: Sequence[str], *, role: Role = "query") -> Embeddings:
        """Encode n texts of any length to float32 (n, dim) with unit rows, in order; none give (0, dim).

        Args:
            texts: any strings; what exceeds the model's context is cut off. A text that looks like
                the address of a picture is still a text.
            role: which prompt of the model's own goes before them, if it has prompts.

        Raises:
            ModelError: the model cannot be loaded whole, or does not fit the device.
        """
        return self._encode_texts(texts, role) if texts else np.zeros((0, self.dim), np.float32)

    def close(self) -> None:
        """Let go of the model; the next call loads it again."""
        with self._lock:
            self._model = None

    def _encode_texts(self, texts: Sequence[str], role: Role) -> Embeddings:
        with self._lock:
            model = self._load()
            encode = model.encode_query if role == "query" else model.encode_document
            options = {"text": self._text_options()}
            lower = self._is_siglip()
            inputs = [{"text": _plain(text.lower() if lower else text)} for text in texts]
            return self._batches(
                inputs, lambda part: encode(list(part), show_progress_bar=False, processing_kwargs=options)
            )

    def _batches(self, items: Sequence[Any], encode: Any) -> Embeddings:
        rows, self._largest_batch = in_batches(
            items, encode, size=self._largest_batch, model_id=self.model_id
        )
        return as_embeddings(np.concatenate(rows))

    def _load(self) -> "SentenceTransformer":
        if self._model is None:
            self._model = _load_whole(self._folder, self.model_id, self._device, self.precision)
        return self._model

    def _network(self) -> Any:
        with self._lock:
            return _pretrained(self._load())

    def _is_siglip(self) -> bool:
        return getattr(self._network().config, "model_type", None) in _SIGLIP

    def _text_options(self) -> dict[str, Any]:
        """Cut to the context, which a tokenizer saved without its length does not know; pad as trained."""
        limit = getattr(getattr(self._network().config, "text_config", None), "max_position_embeddings", None)
        options: dict[str, Any] = {"truncation": True}
        if isinstance(limit, int):
            options["max_length"] = limit
            options["padding"] = "max_length" if self._is_siglip() else True
        return options

    @cached_property
    def _device(self) -> "torch.device":
        return choose_device(self._wanted_device)

    @cached_property
    def _fingerprint(self) -> str:
        return sha256_of_model(self._folder)


def _load_whole(folder: Path, model_id: str, device: "torch.device", precision: str) -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer

    dtype = choose_dtype(precision, device)
    try:
        with quietly():
            model = SentenceTransformer(
                str(folder), device=str(device), local_files_only=True, model_kwargs={"dtype": dtype}
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ModelError(f"cannot load {model_id!r} from {folder}: {error}. {hub.ways_out()}") from error
    check_whole(_pretrained(model), model=model_id, folder=folder)
    return model


def _pretrained(model: "SentenceTransformer") -> Any:
    from transformers import PreTrainedModel

    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ModelError(
        "this sentence-transformers model holds no network of transformers: it cannot encode pictures"
    )


def _plain(text: str) -> str:
    # Lone surrogates (undecodable bytes of a command line) are not text: they become "?".
    return text.encode("utf-8", "replace").decode("utf-8")
