"""Rerankers that were trained to score a query and a picture: cross-encoders of sentence-transformers."""

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
from ..encoders.whole import check_whole
from ..errors import ImageError, ModelError
from ..types import Candidate
from .fusion import WEIGHT, How

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

Scores = npt.NDArray[np.float64]


class PairReranker:
    """A trained reranker of the hub or of a local directory, such as Qwen3-VL-Reranker. Fulfils `Reranker`.

    It is read when it is first needed; code that comes with a model is never run. Its scores are what the
    model gives before any squashing: log-odds for those that answer with yes or no.

    Args:
        model: org/name on the Hugging Face hub, or a directory that holds modules.json.
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
        self._model: CrossEncoder | None = None
        self._largest_batch = max(1, batch_size)

    @property
    def name(self) -> str:
        """What it is called in results."""
        return f"pairs:{short(self._checkpoint.model_id)}"

    def load(self) -> None:
        """Read the model now, if it was not yet."""
        with self._lock:
            self._load()

    def spec(self) -> Mapping[str, Any]:
        """What decides its scores, as JSON values. Digests the files, which is remembered; loads none."""
        return {**self._checkpoint.spec(), "reranker": "pairs"}

    def score(self, query: str, candidates: Sequence[Candidate]) -> Scores:
        """How well n pictures fit a text, float64 (n,), in order; no candidates give (0,).

        Raises:
            ModelError: the model cannot be loaded whole, was not trained for this, takes no pictures, or
                does not fit the device.
        """
        if not candidates:
            return np.zeros(0)
        with self._lock:
            model = self._load()
            text = {"text": query.encode("utf-8", "replace").decode("utf-8")}  # never taken for a file's name
            rows, self._largest_batch = in_batches(
                candidates,
                lambda some: _predict(model, [(text, {"image": one.image()}) for one in some]),
                size=self._largest_batch,
                model_id=self._checkpoint.model_id,
            )
        return np.concatenate(rows)

    def close(self) -> None:
        """Let go of the model; the next call loads it again."""
        with self._lock:
            self._model = None

    def _load(self) -> "CrossEncoder":
        if self._model is None:
            self._model = _trained(self._checkpoint)
        return self._model


def cross_encoder(
    model: str | os.PathLike[str],
    *,
    yes: str = "yes",
    no: str = "no",
    device: str = "auto",
    precision: str = "auto",
) -> "CrossEncoder":
    """Any vision-language model as a cross-encoder of sentence-transformers, which can train it, say.

    `predict` takes chats, each with one user message of a picture and a question, and with
    `activation_fn=torch.nn.Identity()` gives the log-odds of two tokens.

    Args:
        model: org/name on the Hugging Face hub, or a directory in transformers' format; one with a chat
            template.
        yes: a word that is a single token of the model.
        no: likewise.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        precision: "auto", "fp32", "bf16", "fp16".

    Raises:
        ModelError: it cannot be loaded whole, or a word is not a single token.
    """
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    checkpoint = Checkpoint(model, device=device, precision=precision)
    kind = checkpoint.model_type
    try:
        network = Transformer(
            str(checkpoint.folder),
            transformer_task="any-to-any",
            model_kwargs={"dtype": checkpoint.dtype, "local_files_only": True},
            # Without it the model would be asked to go on with the question.
            processing_kwargs={"chat_template": {"add_generation_prompt": True}},
        )
    except Exception as error:  # readers of so many formats raise what they like
        raise ModelError(f"cannot load {checkpoint.model_id!r} (of type {kind!r}): {error}") from error
    check_whole(network, model=checkpoint.model_id, folder=checkpoint.folder)
    tokens = [_token(network.tokenizer, word, checkpoint.model_id) for word in (yes, no)]
    head = LogitScore(true_token_id=tokens[0], false_token_id=tokens[1])
    made: CrossEncoder = CrossEncoder(modules=[network, head], device=str(checkpoint.device))
    return made


def _trained(checkpoint: Checkpoint) -> "CrossEncoder":
    from sentence_transformers import CrossEncoder

    folder, name = checkpoint.folder, checkpoint.model_id
    if not (folder / "modules.json").is_file():
        raise ModelError(
            f"{name!r} was not trained to rerank: {folder} holds no modules.json; a model that answers "
            "questions reranks with YesNoReranker (--rerank yes-no:MODEL)"
        )
    try:
        model: CrossEncoder = CrossEncoder(
            str(folder),
            device=str(checkpoint.device),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": checkpoint.dtype},
        )
    except Exception as error:  # readers of so many formats raise what they like
        raise ModelError(f"cannot load {name!r} from {folder}: {error}") from error
    if not model.supports("image"):
        raise ModelError(f"{name!r} takes no pictures, only {', '.join(map(str, model.modalities))}")
    check_whole(model[0], model=name, folder=folder)
    return model


def _predict(model: "CrossEncoder", pairs: list[Any]) -> Scores:
    import torch

    raw = torch.nn.Identity()
    try:
        scores = model.predict(pairs, batch_size=len(pairs), show_progress_bar=False, activation_fn=raw)
    except REFUSALS as error:
        raise ImageError(f"the model's processor refuses it: {error}") from error
    return np.asarray(scores, dtype=np.float64)


def _token(tokenizer: Any, word: str, model_id: str) -> int:
    tokens = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(tokens) != 1:
        raise ModelError(f"{word!r} is {len(tokens)} tokens of {model_id!r}; expected a word that is one")
    return int(tokens[0])
