"""Builds one tower of an open_clip model and fills it with its weights, wholly or not at all."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, cast

from ..errors import ModelError
from ..files import interrupts_held
from .recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn

Side = Literal["image", "text"]
_SCALARS = ("logit_scale", "logit_bias")


def load_tower(recipe: Recipe, side: Side) -> "nn.Module":
    """One tower on the processor, in the precision its file has, ready for inference.

    Only this tower's weights are read. Models of another make (Hugging Face text towers, CoCa,
    converted formats) are built whole by open_clip and one side is used.

    Raises:
        ModelError: a weight is missing, left over or of another shape: nothing is ever made up.
    """
    try:
        with interrupts_held():  # libraries that Ctrl-C stops in the middle of a file call it damaged
            tower = _single(recipe, side) or _of_whole(recipe, side)
    except Exception as error:  # torch, timm, open_clip and safetensors each have their own
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"cannot load the {side} tower of {recipe.model_id!r}: {reason} …; either {recipe.weights} "
            "does not hold it whole (fetch the model again), or what reads it does not work (pip check)"
        ) from error
    return tower.eval().requires_grad_(False)


def load_scalars(recipe: Recipe) -> tuple[float, float | None]:
    """The logit scale, already exponentiated, and the logit bias (None if the model has none)."""
    from math import exp

    stored = _read(recipe, lambda name: name if name in _SCALARS else None)
    if "logit_scale" not in stored:
        raise ModelError(f"{recipe.weights} holds no logit_scale: it is not a whole open_clip model")
    scale = exp(float(stored["logit_scale"].reshape(())))
    if "init_logit_bias" not in recipe.config:
        return scale, None
    bias = stored.get("logit_bias")
    return scale, 0.0 if bias is None else float(bias.reshape(()))  # 0 as in open_clip


def is_convolutional(tower: "nn.Module") -> bool:
    """Whether a tower has more convolutions than the one that cuts patches."""
    from torch import nn

    return sum(isinstance(module, nn.Conv2d) for module in tower.modules()) > 1


def _single(recipe: Recipe, side: Side) -> "nn.Module | None":
    if "multimodal_cfg" in recipe.config or "hf_model_name" in recipe.config["text_cfg"]:
        return None
    weights = _read(recipe, _image_name if side == "image" else _text_name)
    return _fill(lambda: _build(recipe.config, side), weights)


def _fill(build: Callable[[], Any], weights: "dict[str, torch.Tensor]") -> "nn.Module | None":
    """The tower with exactly these weights, or None if names or shapes do not match."""
    import torch

    with torch.device("meta"):  # no memory, no random numbers
        tower: nn.Module = build()
    wanted = tower.state_dict()
    if wanted.keys() != weights.keys() or any(wanted[name].shape != weights[name].shape for name in wanted):
        return None
    tower.load_state_dict(weights, strict=True, assign=True)
    if getattr(tower, "attn_mask", None) is not None and hasattr(tower, "build_causal_mask"):
        tower.attn_mask = cast(Any, tower).build_causal_mask()  # computed, so in no file
    if any(tensor.is_meta for tensor in chain(tower.parameters(), tower.buffers())):
        tower = build()  # other computed tensors: let the tower make them, then overwrite all that is stored
        tower.load_state_dict(weights, strict=True)
    return tower


def _build(config: Mapping[str, Any], side: Side) -> Any:
    from open_clip import model

    quick_gelu = config.get("quick_gelu", False)
    if side == "text":
        return model._build_text_tower(config["embed_dim"], deepcopy(config["text_cfg"]), quick_gelu)
    return model._build_vision_tower(config["embed_dim"], _vision(config), quick_gelu)


def _vision(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**deepcopy(config["vision_cfg"]), "timm_model_pretrained": False}  # never fetch timm's weights


def _of_whole(recipe: Recipe, side: Side) -> "nn.Module":
    from open_clip import CoCa, CustomTextCLIP, load_checkpoint

    config = deepcopy(dict(recipe.config))
    config.pop("custom_text", None)
    if recipe.text_config:
        config["text_cfg"] |= {"hf_model_name": str(recipe.text_config), "hf_model_pretrained": False}
    config["vision_cfg"] = _vision(config)
    model = (CoCa if "multimodal_cfg" in config else CustomTextCLIP)(**config)
    load_checkpoint(model, str(recipe.weights), strict=True)
    model.forward = partial(model.encode_image if side == "image" else model.encode_text, normalize=False)
    tower: nn.Module = model
    return tower


def _read(recipe: Recipe, rename: Callable[[str], str | None]) -> "dict[str, torch.Tensor]":
    """The tensors of the weights' file that `rename` gives a name; the others are not read."""
    if recipe.weights.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(recipe.weights, framework="pt") as file:
            names = {name: new for name in file.keys() if (new := rename(name))}  # noqa: SIM118 - not a dict
            return {new: file.get_tensor(name) for name, new in names.items()}
    from open_clip.factory import load_state_dict

    every = load_state_dict(str(recipe.weights))
    return {new: tensor for name, tensor in every.items() if (new := rename(name))}


def _image_name(name: str) -> str | None:
    return name.removeprefix("visual.") if name.startswith("visual.") else None


def _text_name(name: str) -> str | None:
    # "text." is there or not, depending on open_clip's class of the day.
    return None if name.startswith("visual.") or name in _SCALARS else name.removeprefix("text.")
