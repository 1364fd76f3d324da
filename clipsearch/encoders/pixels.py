"""From a picture to the pixels a model looks at, exactly as open_clip does it, without torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = npt.NDArray[np.uint8]
"""(height, width, 3), RGB."""

_RESIZE_MODES = ("shortest", "longest", "squash")
_INTERPOLATIONS = (
    "bicubic",
    "bilinear",
    "random",
)  # open_clip takes "random" for bicubic when it does not train
_RIBBON = 16  # longer than this many times its width, a picture is cut before it is resized


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a model wants done to a picture; the fields and defaults are open_clip's.

    Attributes:
        size: height and width, pixels.
        mean: subtracted from each channel, on the scale 0 to 1.
        std: each channel is divided by it.
        interpolation: "bicubic" or "bilinear".
        resize_mode: "shortest" (crop the rest), "longest" (pad the rest) or "squash".
        fill_color: grey value of the padding.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    def __post_init__(self) -> None:
        if self.resize_mode not in _RESIZE_MODES or self.interpolation not in _INTERPOLATIONS:
            raise ModelError(
                f"a model wants resize_mode {self.resize_mode!r}, interpolation {self.interpolation!r}; "
                f"known are {', '.join(_RESIZE_MODES)} and {', '.join(_INTERPOLATIONS)}"
            )


def preprocessing(image_size: Any, config: dict[str, Any]) -> Preprocessing:
    """Read open_clip's `preprocess_cfg`; the size is always the image tower's own, as there."""
    height, width = image_size if isinstance(image_size, list | tuple) else (image_size, image_size)
    given = {name: config.get(name) for name in Preprocessing.__slots__ if name != "size"}
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list | tuple) else value
        for name, value in given.items()
        if value is not None
    }
    return Preprocessing((int(height), int(width)), **options)


def prepare(image: "Image", how: Preprocessing) -> Pixels:
    """Resize and crop a picture of any size to uint8 (height, width, 3). Thread-safe.

    The result equals open_clip's own transform before it normalises, except for pictures more
    than 16 times longer than wide: of these the middle is taken first, so that a strip of
    1 x 60,000 pixels does not become gigabytes.
    """
    if image.mode != "RGB":
        image = image.convert("RGB")
    if how.resize_mode == "shortest":
        resized = _crop(_shortest(_without_ribbon(image), how), how.size)
    elif how.resize_mode == "longest":
        resized = _pad(_longest(image, how), how)
    else:
        resized = image.resize(how.size[::-1], _filter(how))
    return np.array(resized)  # (height, width, 3)


def _shortest(image: "Image", how: Preprocessing) -> "Image":
    from PIL.Image import Resampling

    (height, width), (w, h) = how.size, image.size
    if height == width:
        # torchvision.transforms.Resize with one number: the long side is rounded down.
        short, long = height, int(height * max(w, h) / min(w, h))
        return image.resize((short, long) if w <= h else (long, short), _filter(how))
    ratio = min(h / height, w / width)
    return image.resize((round(w / ratio), round(h / ratio)), Resampling.BICUBIC)  # so in open_clip


def _longest(image: "Image", how: Preprocessing) -> "Image":
    (height, width), (w, h) = how.size, image.size
    ratio = max(h / height, w / width)
    return image.resize((max(1, round(w / ratio)), max(1, round(h / ratio))), _filter(how))


def _crop(image: "Image", size: tuple[int, int]) -> "Image":
    height, width = size
    top, left = round((image.height - height) / 2.0), round((image.width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))


def _pad(image: "Image", how: Preprocessing) -> "Image":
    from PIL import Image

    height, width = how.size
    canvas = Image.new("RGB", (width, height), (how.fill_color,) * 3)
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def _without_ribbon(image: "Image") -> "Image":
    longest = _RIBBON * min(image.size)
    if max(image.size) <= longest:
        return image
    return _crop(image, (min(image.height, longest), min(image.width, longest)))


def _filter(how: Preprocessing) -> Any:
    from PIL.Image import Resampling

    return Resampling.BILINEAR if how.interpolation == "bilinear" else Resampling.BICUBIC
