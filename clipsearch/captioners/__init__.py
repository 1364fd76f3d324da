"""Models that write texts about pictures and answer questions about them. Importing them loads no torch."""

import os

from ..errors import ModelError
from ..types import VLM
from .local import LocalVLM

__all__ = ["LocalVLM", "load_vlm"]


def load_vlm(model: str | os.PathLike[str] | VLM, *, device: str = "auto", precision: str = "auto") -> VLM:
    """A model of transformers by its hub id or directory; an object that is one is returned as it is.

    Raises:
        ModelError: it is none of these.
    """
    if isinstance(model, str | os.PathLike):
        return LocalVLM(model, device=device, precision=precision)
    if isinstance(model, VLM):
        return model
    missing = [name for name in ("model_id", "spec", "generate", "log_odds") if not hasattr(model, name)]
    raise ModelError(
        f"{model!r} is no vision-language model: it lacks {', '.join(missing)}; give a hub id, a directory, "
        "a cs.HttpVLM or an object with these"
    )
