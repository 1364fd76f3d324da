"""Models as transformers reads them: quietly, and whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError

if TYPE_CHECKING:
    import torch


@contextmanager
def quietly() -> Iterator[None]:
    """Without the bar and the report of transformers: what is wrong with weights we tell ourselves."""
    logging: Any = import_module("transformers.utils.logging")  # untyped
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def check_whole(network: "torch.nn.Module", *, model: str, folder: Path) -> None:
    """Raise unless every weight of a network came from its files.

    Raises:
        ModelError: transformers filled some with random numbers, since the files lack them; it names three.
    """
    # transformers marks what it did read.
    made_up = [
        name for name, weight in network.named_parameters() if not hasattr(weight, "_is_hf_initialized")
    ]
    if made_up:
        named = ", ".join(made_up[:3])
        raise ModelError(
            f"{model!r} is not whole: {folder} lacks {len(made_up)} of its weights "
            f"({named}, …); fetch it again"
        )
