import numpy as np
import pytest
from PIL import Image

from clipsearch.encoders.pixels import Preprocessing, prepare, preprocessing
from clipsearch.errors import ModelError

SHAPES = [(640, 480), (480, 640), (333, 333), (97, 511), (50, 40), (224, 224), (300, 225), (1000, 70)]


def photo(size):
    width, height = size
    random = np.random.default_rng(width * 1000 + height)
    coarse = Image.fromarray(random.integers(0, 256, (9, 11, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    noise = random.integers(-20, 20, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse).astype(int) + noise, 0, 255).astype(np.uint8))


def normalised(pixels, how):
    scaled = pixels.astype(np.float32).transpose(2, 0, 1) / np.float32(255)
    mean, std = (np.array(channel, np.float32)[:, None, None] for channel in (how.mean, how.std))
    return (scaled - mean) / std


@pytest.mark.parametrize("size", [(224, 224), (96, 96), (120, 224), (224, 120)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_pixels_equal_those_of_open_clips_own_transform(resize_mode, interpolation, size):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    how = Preprocessing(size, interpolation=interpolation, resize_mode=resize_mode, fill_color=7)
    transform = image_transform_v2(
        PreprocessCfg(size=size, interpolation=interpolation, resize_mode=resize_mode, fill_color=7),
        is_train=False,
    )
    for shape in SHAPES:
        image = photo(shape)
        ours = prepare(image, how)
        assert ours.dtype == np.uint8
        assert ours.shape == (*size, 3)
        np.testing.assert_allclose(normalised(ours, how), transform(image).numpy(), atol=1e-6)


def test_defaults_and_configurations_are_read_as_open_clip_reads_them():
    from dataclasses import asdict

    from open_clip.transform import PreprocessCfg

    read = preprocessing(
        224, {"mean": [0.5, 0.5, 0.5], "resize_mode": "squash", "std": None, "url": "x", "size": 512}
    )

    assert read == Preprocessing((224, 224), mean=(0.5, 0.5, 0.5), resize_mode="squash")
    theirs = asdict(PreprocessCfg())
    assert all(
        value == theirs[name] for name, value in asdict(preprocessing(224, {})).items() if name != "size"
    )


def test_a_ribbon_is_cut_to_its_middle_and_stays_small():
    ribbon = Image.new("RGB", (60_000, 1), "red")
    ribbon.paste((0, 0, 255), (29_000, 0, 31_000, 1))

    pixels = prepare(ribbon, Preprocessing((96, 96)))

    assert (pixels == (0, 0, 255)).all()


def test_a_hair_thin_picture_can_be_padded():
    pixels = prepare(Image.new("RGB", (5_000, 1), "white"), Preprocessing((96, 96), resize_mode="longest"))

    assert pixels.sum() == 96 * 3 * 255, "one white row, the rest padding"


def test_an_unknown_way_to_resize_is_an_error():
    with pytest.raises(ModelError, match="resize_mode 'stretch'"):
        preprocessing(224, {"resize_mode": "stretch"})
