"""Models in transformers' format: where their files are, what is in them, and how they are loaded whole."""

import json
import os
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..encoders import hub
from ..encoders.device import check_precision, choose_device, choose_dtype, short_name
from ..encoders.digest import sha256_of_model
from ..encoders.names import FOLDER
from ..encoders.whole import check_whole, quietly
from ..errors import ModelError, require

if TYPE_CHECKING:
    import torch

_INSTEAD = "run the model in a server and ask it with HttpVLM (docs/captioners.md)"
_EXTRAS = {"smolvlm": "num2words"}  # by model type: what its processor needs besides transformers


class Checkpoint:
    """A model's files, and on what and in which numbers it is to run. Cheap: all is found when asked for.

    Attributes:
        model_id: org/name on the hub, or `local-dir:` and the absolute path of a directory.
    """

    def __init__(self, model: str | os.PathLike[str], *, device: str, precision: str) -> None:
        self.model_id = _name(model)
        self._wanted_device = device
        self._wanted_precision = check_precision(precision)

    @cached_property
    def folder(self) -> Path:
        """The directory of the files; downloaded if need be.

        Raises:
            ModelError: they are not here and the hub cannot be reached; within 5 seconds.
        """
        if self.model_id.startswith(FOLDER):
            return Path(self.model_id.removeprefix(FOLDER))
        return hub.repository(self.model_id, model=self.model_id, instead=_INSTEAD)

    @cached_property
    def device(self) -> "torch.device":
        """What it runs on."""
        return choose_device(self._wanted_device)

    @cached_property
    def dtype(self) -> "torch.dtype":
        """The numbers it computes in."""
        return choose_dtype(self._wanted_precision, self.device)

    @property
    def precision(self) -> str:
        """Their short name: "fp32", "bf16" or "fp16"."""
        return short_name(self.dtype)

    @cached_property
    def model_type(self) -> str:
        """What transformers calls its architecture, such as "qwen3_vl".

        Raises:
            ModelError: the directory holds no model, or one that transformers does not know by itself.
        """
        from transformers import CONFIG_MAPPING

        try:
            kind = json.loads((self.folder / "config.json").read_bytes()).get("model_type")
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{self.folder} holds no model of transformers: config.json cannot be read ({error})"
            ) from error
        if kind not in CONFIG_MAPPING:
            raise ModelError(
                f"{self.model_id!r} is of type {kind!r}, which transformers {version('transformers')} does "
                f"not know by itself, and code that comes with a model is never run here; {_INSTEAD}"
            )
        return str(kind)

    def spec(self) -> dict[str, Any]:
        """What decides the answers, as JSON values; a directory may move. Reads files, loads no model."""
        return {
            "backend": "transformers",
            "model": self.folder.name if self.model_id.startswith(FOLDER) else self.model_id,
            "fingerprint": self._fingerprint,
            "precision": self.precision,
            "transformers": int(version("transformers").split(".")[0]),
        }

    def load(self, architecture: Any) -> tuple[Any, Any]:
        """The model as one of transformers' classes, on its device, and its processor.

        Raises:
            ModelError: it cannot be loaded, or not whole, or takes no pictures.
            MissingExtraError: its processor needs a package that is not here.
        """
        from transformers import AutoProcessor

        if self.model_type in _EXTRAS:
            require(_EXTRAS[self.model_type], extra="captions")
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            processor = AutoProcessor.from_pretrained(self.folder, **options)  # type: ignore[no-untyped-call]
            with quietly():
                model = architecture.from_pretrained(self.folder, dtype=self.dtype, **options)
            model = model.eval().to(self.device)
        except Exception as error:  # readers of so many formats raise what they like
            raise ModelError(f"cannot load {self.model_id!r} from {self.folder}: {error}") from error
        check_whole(model, model=self.model_id, folder=self.folder)
        if getattr(processor, "image_processor", None) is None:
            raise ModelError(f"{self.model_id!r} takes no pictures: {self.folder} describes none")
        return model, processor

    @cached_property
    def _fingerprint(self) -> str:
        return sha256_of_model(self.folder)


def _name(model: str | os.PathLike[str]) -> str:
    path = Path(os.fspath(model).removeprefix(FOLDER)).expanduser()
    if path.is_dir():
        return FOLDER + str(path.resolve())
    if isinstance(model, str) and len(path.parts) == 2 and not path.is_absolute():
        return model
    raise ModelError(
        f"no model {os.fspath(model)!r}: expected a directory, or org/name on the Hugging Face hub"
    )
