"""Models that write texts about pictures and answer questions about them. Importing them loads no torch."""

import os

from ..errors import ModelError
from ..types import VLM


def load_vlm(model: str | os.PathLike[str] | VLM, *, device: str = "auto", precision: str = "auto") -> VLM:
    """A vision-language model by its name; one that was given is returned as it is."""
    if isinstance(model, VLM):
        return model
    raise ModelError(f"{model!r} is no vision-language model")
