"""Where an open_clip model's files lie and how it is built, found without importing torch or open_clip."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import ModelError
from . import hub
from .catalog import BUILTIN
from .digest import recall, remember, sha256_of, sha256_of_files
from .names import FOLDER, HUB, open_clip_folder, unknown
from .pixels import Preprocessing, preprocessing

CONFIG = "open_clip_config.json"
BESIDE = "."  # the name of a tokenizer that lies with its model and on no hub
_SAFE, _PICKLED = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
_WEIGHTS = (_SAFE, "open_clip_pytorch_model.safetensors", _PICKLED, "open_clip_pytorch_model.pth",
            "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that is needed to build one open_clip model.

    Attributes:
        model_id: the canonical id.
        config: open_clip's `model_cfg`.
        preprocessing: what is done to a picture.
        weights: the file that holds them.
        tokenizer: folder of a tokenizer in Hugging Face's format; None: CLIP's own.
        merges: a `bpe_*.txt.gz` of the model's own for CLIP's tokenizer; None: the usual one.
        text_config: folder with the configuration of a Hugging Face text tower, if the model has one.
    """

    model_id: str
    config: Mapping[str, Any]
    preprocessing: Preprocessing
    weights: Path
    tokenizer: Path | None = None
    merges: Path | None = None
    text_config: Path | None = None

    def fingerprint(self) -> str:
        """64 hexadecimal digits that change when weights, preprocessing, towers or tokenizer do."""
        tokenizer = [
            *(self.tokenizer.glob("tokenizer.*") if self.tokenizer else ()),
            *([self.merges] if self.merges else ()),
        ]
        parts = {
            "weights": sha256_of(self.weights),
            "config": dict(self.config),
            "preprocessing": asdict(self.preprocessing),
            "tokenizer": sha256_of_files(tokenizer),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find(model_id: str) -> Recipe:
    """The recipe of a model by its canonical id; missing files are downloaded.

    Raises:
        ModelError: the model is unknown, incomplete, or not here and the hub cannot be reached.
    """
    if model_id == BUILTIN:
        return _from_folder(Path(str(files("clipsearch.builtin"))), model_id)
    if model_id.startswith(FOLDER):
        return _from_folder(Path(model_id.removeprefix(FOLDER)), model_id)
    if model_id.startswith(HUB):
        repo = model_id.removeprefix(HUB)
        config = _read_config(hub.fetch(repo, [CONFIG], model=model_id), model_id)
        return _recipe(model_id, config, hub.fetch(repo, [_SAFE, _PICKLED], model=model_id))
    return _from_tables(model_id)


def _from_folder(folder: Path, model_id: str) -> Recipe:
    if not folder.is_dir():
        raise ModelError(f"cannot load {model_id!r}: there is no directory {folder}. {hub.ways_out()}")
    config = _read_config(folder / CONFIG, model_id)
    merges = sorted(folder.glob("bpe_*.txt.gz"))
    return _recipe(
        model_id, config, _weights_in(folder, model_id), folder=folder, merges=merges[0] if merges else None
    )


def _from_tables(model_id: str) -> Recipe:
    architecture, _, tag = model_id.partition("/")
    row = _published().get(architecture, {}).get(tag)
    if row is None:
        raise unknown(model_id)
    path = open_clip_folder() / "model_configs" / f"{architecture}.json"
    model = json.loads(path.read_text(encoding="utf-8"))
    model["quick_gelu"] = model.get("quick_gelu", False) or row.get("quick_gelu", False)  # weights know best
    repo, filename = str(row["hf_hub"]).rsplit("/", 1)  # "org/name/" or "org/name/file"
    names = [filename.rsplit(".", 1)[0] + ".safetensors", filename] if filename else [_SAFE, _PICKLED]
    return _recipe(
        model_id, {"model_cfg": model, "preprocess_cfg": row}, hub.fetch(repo, names, model=model_id)
    )


def _recipe(
    model_id: str,
    config: dict[str, Any],
    weights: Path,
    *,
    folder: Path | None = None,
    merges: Path | None = None,
) -> Recipe:
    model = config["model_cfg"]
    vision, text = model["vision_cfg"], model["text_cfg"]
    tokenizer, tower = text.get("hf_tokenizer_name"), text.get("hf_model_name")
    if model_id == BUILTIN or not tokenizer:
        tokenizer_folder = None  # the merges of the built-in model give the same and need no transformers
    elif folder and hub.has_tokenizer(folder):
        tokenizer_folder = folder
    else:
        tokenizer_folder = None if tokenizer == BESIDE else hub.tokenizer_files(tokenizer, model=model_id)
    return Recipe(
        model_id=model_id,
        config=model,
        preprocessing=preprocessing(vision.get("image_size", 224), config.get("preprocess_cfg") or {}),
        weights=weights,
        tokenizer=tokenizer_folder,
        merges=merges,
        text_config=hub.fetch(tower, ["config.json"], model=model_id).parent if tower else None,
    )


def _read_config(path: Path, model_id: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        model = config["model_cfg"]
        model["embed_dim"], model["vision_cfg"], model["text_cfg"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"cannot load {model_id!r}: {path} is not an open_clip configuration ({error!r}); "
            "expected JSON with model_cfg holding embed_dim, vision_cfg and text_cfg"
        ) from error
    return config


def _weights_in(folder: Path, model_id: str) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    others = sorted(
        path for ending in ("safetensors", "bin", "pth", "pt") for path in folder.glob(f"*.{ending}")
    )
    if len(others) != 1:
        raise ModelError(
            f"cannot load {model_id!r}: {folder} holds {len(others)} files of weights "
            f"({', '.join(path.name for path in others) or 'none'}); expected {_SAFE}, or one single other"
        )
    return others[0]


def _published() -> dict[str, dict[str, dict[str, Any]]]:
    """open_clip's table of published weights: architecture, tag, row.

    Importing open_clip takes seconds, so the table is kept as JSON under the digest of its source.
    """
    source = open_clip_folder() / "pretrained.py"
    name = f"open_clip-{version('open_clip_torch')}-{sha256_of(source)[:16]}.json"
    text = recall(name)
    if text is None:
        text = _read_published()
        remember(name, text)
    table: dict[str, dict[str, dict[str, Any]]] = json.loads(text)
    return table


def _read_published() -> str:
    from open_clip import get_pretrained_cfg, list_pretrained

    table: dict[str, dict[str, Any]] = {}
    for architecture, tag in list_pretrained():
        table.setdefault(architecture, {})[tag] = get_pretrained_cfg(architecture, tag)
    return json.dumps(table)
