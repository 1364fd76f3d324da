"""Whether transformers read every weight of a model, or made some up."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError

if TYPE_CHECKING:
    import torch


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
