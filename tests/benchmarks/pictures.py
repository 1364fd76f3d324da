"""Pictures to measure with, made at run time from scikit-image's sample photos; none is committed."""

import itertools
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "grass.png")


def sample_photos() -> list[Image.Image]:
    """The real photos that ship inside scikit-image."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [Image.open(folder / name).convert("RGB") for name in PHOTOS]


def make_pictures(
    folder: Path, count: int, size: tuple[int, int], *, quality: int = 92, noise: float = 7
) -> None:
    """Fill a folder with `count` different JPEGs of `size` (width, height).

    Each is a random crop of a photo, enlarged, with sensor-like noise, so that it costs what a
    real one costs to decode: 12 megapixels at quality 92 take 3.5 to 6 MB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    grain = rng.normal(0, noise, (size[1], size[0], 1)).astype(np.int16)
    for number, photo in zip(range(count), itertools.cycle(sample_photos()), strict=False):
        width, height = (int(side * rng.uniform(0.6, 1.0)) for side in photo.size)
        left, top = rng.integers(0, photo.width - width + 1), rng.integers(0, photo.height - height + 1)
        crop = photo.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(crop, np.int16) + np.roll(grain, rng.integers(0, size[0]), axis=1)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            folder / f"{number:06d}.jpg", quality=quality
        )
