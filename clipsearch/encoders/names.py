"""From the many ways to spell a model to the one id by which a collection remembers it."""

import operator
import os
from functools import cache
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path
from typing import cast

from ..errors import ModelError, ModelMismatchError
from ..types import FOREIGN, Encoder
from .catalog import CATALOG

HUB = "hf-hub:"
FOLDER = "local-dir:"
SENTENCE = "st:"
_SEPARATORS = ("::", "__", ",", "/")  # clip-as-service, immich, CLIP_benchmark, clip-retrieval
_MEMBERS = ("model_id", "dim", "encode_images", "encode_texts")

AnyModel = str | os.PathLike[str] | Encoder


def resolve(model: AnyModel) -> str:
    """The canonical id of a model, however it was spelled. Cheap: imports no torch and reads no weights.

    Args:
        model: one of
            - an alias (`siglip2-b16`, `builtin`; `clipsearch models` lists them),
            - `ARCHITECTURE/WEIGHTS` as open_clip names them; a comma, "__" or "::" may stand between,
            - `hf-hub:org/name`: an open_clip model on the Hugging Face hub,
            - `st:org/name`: a CLIP-like or sentence-transformers model there,
            - a directory, or `local-dir:` and a directory,
            - an object with the four names of `Encoder`;
            - `foreign:` and one of these: vectors that another program made with it.

    Returns:
        `builtin`, `ARCHITECTURE/WEIGHTS`, a hub's name with its prefix, `local-dir` and a colon before
        the absolute path of a directory, or the object's own `model_id`.

    Raises:
        ModelError: it is none of these; the message names what comes near.
    """
    if isinstance(model, os.PathLike):
        return _folder_id(os.fspath(model))
    if not isinstance(model, str):
        return checked(model).model_id
    if model.startswith(FOREIGN):
        return FOREIGN + resolve(model.removeprefix(FOREIGN))
    if model in CATALOG:
        return CATALOG[model].name
    if model.startswith(FOLDER):
        return _folder_id(model.removeprefix(FOLDER))
    if model.startswith((HUB, SENTENCE)):
        return model
    return _pair(model) or _existing_folder(model)


def checked(model: object) -> Encoder:
    """A user's own object, once it is known to have the four names of `Encoder`.

    Raises:
        ModelError: it lacks some; the message names them.
    """
    missing = [name for name in _MEMBERS if not hasattr(model, name)]
    if missing:
        raise ModelError(
            f"{model!r} is no model: it lacks {', '.join(missing)}; "
            f"an encoder has {', '.join(_MEMBERS)}, and anything else is named by a string"
        )
    encoder = cast(Encoder, model)
    name, dim = encoder.model_id, encoder.dim
    if not isinstance(name, str) or not name.isprintable() or not name:
        raise ModelError(f"found model_id {name!r}; expected a text that names the model")
    if not isinstance(dim, Integral) or dim < 1:
        raise ModelError(f"{name}: found dim {dim!r}; expected how many numbers a vector has")
    return encoder


def check_dim(model: str | Encoder, dim: int) -> None:
    """Refuse vectors of another length than a model's, where that is known without loading it.

    Args:
        model: a canonical id, or the model.
        dim: how many numbers a vector has.

    Raises:
        ModelMismatchError: the model's have another number.
    """
    if isinstance(model, str):
        name = model.removeprefix(FOREIGN)
        expected = next((one.dim for one in CATALOG.values() if one.name == name), dim)
    else:
        name, expected = model.model_id, operator.index(model.dim)
    if dim != expected:
        raise ModelMismatchError(f"found vectors of {dim} dimensions; expected {expected}, as {name!r} has")


def short(model_id: str) -> str:
    """A model's id for a person: of a directory its name alone."""
    return Path(model_id.removeprefix(FOLDER)).name if model_id.startswith(FOLDER) else model_id


def unknown(name: str) -> ModelError:
    """The error for a name that is no model, with the names that come near. Imports open_clip."""
    from difflib import get_close_matches

    from open_clip import list_pretrained

    every = [*CATALOG, *(f"{architecture}/{weights}" for architecture, weights in list_pretrained())]
    near = get_close_matches(name, every, n=5)
    return ModelError(
        f"unknown model {name!r}"
        + (f"; did you mean {', '.join(near)}?" if near else ".")
        + " `clipsearch models` lists the usual ones, open_clip.list_pretrained() every open_clip one;"
        f" from the Hugging Face hub write {HUB}org/name (open_clip format) or {SENTENCE}org/name"
    )


@cache
def architectures() -> frozenset[str]:
    """The architectures open_clip knows, read from the names of its files without importing it."""
    return frozenset(path.stem for path in (open_clip_folder() / "model_configs").glob("*.json"))


def open_clip_folder() -> Path:
    """Where open_clip is installed."""
    found = find_spec("open_clip")
    if found is None or found.origin is None:
        raise ModelError(
            "open_clip is not installed whole; repair it with: pip install --force-reinstall open_clip_torch"
        )
    return Path(found.origin).parent


def _pair(name: str) -> str | None:
    for separator in _SEPARATORS:
        architecture, found, weights = name.rpartition(separator)
        architecture = architecture.replace("/", "-")  # "ViT-B/32" is "ViT-B-32" to open_clip
        if found and architecture in architectures():
            return f"{architecture}/{weights.lower().replace('-', '_')}"
    return None


def _existing_folder(name: str) -> str:
    if not Path(name).expanduser().is_dir():
        raise unknown(name)
    return _folder_id(name)


def _folder_id(path: str) -> str:
    return FOLDER + str(Path(path).expanduser().resolve())
