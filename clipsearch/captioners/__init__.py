"""Models that write texts about pictures and answer questions about them. Importing them loads no torch."""

import os

from ..errors import ModelError
from ..types import VLM
from .local import LocalVLM

__all__ = ["LocalVLM", "load_vlm"]

KEY = "CLIPSEARCH_API_KEY"


def load_vlm(
    model: str | os.PathLike[str] | VLM,
    *,
    does: str = "log_odds",
    device: str = "auto",
    precision: str = "auto",
) -> VLM:
    """A vision-language model by its name; an object that can do what is wanted is returned as it is.

    Args:
        model: a hub id or a directory, for transformers; NAME@URL, for a model of a server, whose key, if it
            wants one, is in the environment as CLIPSEARCH_API_KEY; or an object.
        does: the method that is wanted of an object, "log_odds" or "generate".
        device: of a model of transformers, see `Collection`.
        precision: likewise.

    Raises:
        ModelError: it is none of these.
    """
    if isinstance(model, str) and "://" in model:
        return _served(model)
    if isinstance(model, str | os.PathLike):
        return LocalVLM(model, device=device, precision=precision)
    if lacking := [name for name in ("model_id", "spec", does) if not hasattr(model, name)]:
        raise ModelError(
            f"{model!r} is no vision-language model: it lacks {', '.join(lacking)}; give a hub id, "
            "a directory, NAME@URL, a cs.HttpVLM or an object with these"
        )
    return model


def _served(name: str) -> VLM:
    from .http import HttpVLM

    model, at, url = name.partition("@")
    if not model or not at or not url.startswith(("http://", "https://")):
        raise ModelError(
            f"found {name!r}; a server's model is NAME@URL, such as qwen3-vl@http://localhost:8000/v1"
        )
    return HttpVLM(url, model=model, api_key=os.environ.get(KEY))
