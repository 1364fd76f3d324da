"""Models that turn pictures and texts into vectors of one space.

`load_encoder` gives one by any of its names; `resolve` gives the one id a name stands for, and is
cheap. Neither imports torch before something is encoded.
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..errors import ModelError
from ..types import FOREIGN, Encoder
from .catalog import BUILTIN, CATALOG, DEFAULT_MODEL, Model
from .names import FOLDER, SENTENCE, AnyModel, check_dim, checked, resolve
from .script import notice_script, stranger

if TYPE_CHECKING:
    from .openclip import OpenClipEncoder
    from .sentence import SentenceTransformerEncoder

__all__ = [
    "BUILTIN",
    "CATALOG",
    "DEFAULT_MODEL",
    "AnyModel",
    "Model",
    "check_dim",
    "load_encoder",
    "notice_script",
    "resolve",
    "stranger",
]

_SENTENCE_MARKS = ("modules.json", "config_sentence_transformers.json", "config.json")


def load_encoder(
    model: AnyModel = DEFAULT_MODEL, *, device: str = "auto", precision: str = "auto"
) -> Encoder:
    """An encoder, ready to use. Its weights are found (or downloaded) now and read when first needed.

    Args:
        model: any spelling that `resolve` takes. An object of the user's own is returned as it is.
        device: "auto" (the first of cuda, mps and cpu that is there), "cpu", "cuda", "cuda:1", "mps".
        precision: "auto" (bf16 where the device has instructions for it, else fp32), "fp32", "bf16", "fp16".

    Raises:
        ModelError: there is no such model, it is incomplete, or it is not here and cannot be
            downloaded; the message says what to do. Weights are never made up.
    """
    if not isinstance(model, str) and not hasattr(model, "__fspath__"):
        return checked(model)
    model_id = resolve(model).removeprefix(FOREIGN)
    if _is_sentence(model_id):
        # Its dim is a property, since it is known only once the model is loaded.
        return cast(Encoder, _sentence(model_id, device=device, precision=precision))
    return _open_clip(model_id, device=device, precision=precision)


def _open_clip(model_id: str, *, device: str, precision: str) -> "OpenClipEncoder":
    from .openclip import OpenClipEncoder
    from .recipe import find

    return OpenClipEncoder(find(model_id), device=device, precision=precision)


def _sentence(model_id: str, *, device: str, precision: str) -> "SentenceTransformerEncoder":
    from .sentence import SentenceTransformerEncoder, find_folder

    return SentenceTransformerEncoder(model_id, find_folder(model_id), device=device, precision=precision)


def _is_sentence(model_id: str) -> bool:
    """Whether a model is for sentence-transformers: its prefix says so, or the files of its directory."""
    if not model_id.startswith(FOLDER):
        return model_id.startswith(SENTENCE)
    folder = Path(model_id.removeprefix(FOLDER))
    if not folder.is_dir() or (folder / "open_clip_config.json").is_file():
        return False
    if any((folder / mark).is_file() for mark in _SENTENCE_MARKS):
        return True
    raise ModelError(
        f"{folder} holds no model: expected open_clip_config.json (open_clip) or "
        f"one of {', '.join(_SENTENCE_MARKS)} (transformers, sentence-transformers)"
    )
