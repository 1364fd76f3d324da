"""Every kind of file ends as upright RGB pixels, or as one short reason."""

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import IFDRational

from clipsearch.decode import MAX_PIXELS, decode
from clipsearch.encoders import load_encoder
from clipsearch.errors import ImageError

UNTURNED = {  # EXIF orientation: how a camera held that way would have stored the upright picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[::-1],  # its first row is the right side of the upright picture
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
}


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A real photo, (300, 451, 3): neither square nor symmetric."""
    data = pytest.importorskip("skimage.data", reason="needs scikit-image's photos")
    return data.chelsea()


def encoded(image, kind, **options) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def exif(orientation=None, **directories) -> bytes:
    tags = Image.Exif()
    tags.update(directories.pop("main", {}))
    if orientation:
        tags[0x0112] = orientation
    for number, name in ((0x8769, "exif"), (0x8825, "gps")):
        if name in directories:
            tags.get_ifd(number).update(directories[name])
    return tags.tobytes()


def pixels(data, **options) -> np.ndarray:
    image = decode(data, **options).image
    assert image.mode == "RGB"
    return np.asarray(image)


def reason(data, **options) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    return str(caught.value)


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("orientation", UNTURNED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_gives_exactly_the_upright_pixels(photo, kind, orientation):
    stored = np.ascontiguousarray(UNTURNED[orientation](photo))
    data = encoded(stored, kind, exif=exif(orientation), **({"lossless": True} if kind == "WEBP" else {}))

    picture = decode(data)

    np.testing.assert_array_equal(np.asarray(picture.image), photo)
    assert (picture.facts["width"], picture.facts["height"]) == (451, 300)


@pytest.mark.parametrize("orientation", UNTURNED)
@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_formats_that_turn_by_themselves_are_turned_once(photo, kind, orientation):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    data = encoded(
        np.ascontiguousarray(UNTURNED[orientation](photo)), kind, exif=exif(orientation), quality=90
    )

    assert np.abs(pixels(data).astype(int) - photo).mean() < 4


def test_every_orientation_gives_the_same_embedding(photo):
    encoder = load_encoder("builtin", device="cpu", precision="fp32")
    large = Image.fromarray(photo).resize((912, 608))
    expected = encoder.encode_images([large])[0]
    for kind, least in (("PNG", 0.99999), ("JPEG", 0.995)):  # JPEG noise by itself moves vectors by 0.002
        files = [
            encoded(np.ascontiguousarray(unturn(np.asarray(large))), kind, exif=exif(orientation))
            for orientation, unturn in UNTURNED.items()
        ]
        pictures = [decode(data, min_side=96) for data in files]
        ignored = [Image.open(io.BytesIO(data)).convert("RGB") for data in files[2:]]

        assert {(p.facts["width"], p.facts["height"]) for p in pictures} == {(912, 608)}
        assert {p.image.size for p in pictures} == {(456, 304) if kind == "JPEG" else (912, 608)}
        assert (encoder.encode_images([p.image for p in pictures]) @ expected).min() > least
        assert (encoder.encode_images(ignored) @ expected).max() < 0.95, "or the test would show nothing"


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_a_senseless_orientation_counts_as_upright(photo, value):
    np.testing.assert_array_equal(pixels(encoded(photo, "PNG", exif=exif(value or None))), photo)


def test_a_pil_image_is_turned_by_its_exif_and_left_as_it_was(photo):
    opened = Image.open(io.BytesIO(encoded(UNTURNED[6](photo).copy(), "PNG", exif=exif(6))))

    np.testing.assert_array_equal(pixels(opened), photo)
    assert opened.size == (300, 451)


def test_an_rgb_image_that_needs_nothing_is_not_copied(photo):
    image = Image.fromarray(photo)
    assert decode(image).image is image
    assert decode(image).facts == {"width": 451, "height": 300}


# ---------------------------------------------------------------- formats and modes


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "HEIF", "PPM"]
)
def test_every_format_shows_the_picture_and_says_what_it_is(photo, kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()

    picture = decode(encoded(photo, kind))

    assert picture.image.mode == "RGB"
    assert picture.facts == {"width": 451, "height": 300, "format": kind}
    assert np.abs(np.asarray(picture.image).astype(int) - photo).mean() < 8


def test_cmyk_keeps_its_colours_inverted_as_adobe_does_or_not():
    red = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    jpeg = encoded(red, "JPEG", quality=95)
    assert b"Adobe" in jpeg
    for data in (jpeg, encoded(red, "TIFF")):
        assert np.abs(pixels(data)[16, 16].astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    colour = (200, 200, 200, 64) if mode == "RGBA" else (200, 64)
    expected = round(200 * 64 / 255 + 255 * (1 - 64 / 255))  # 241
    assert np.abs(pixels(encoded(Image.new(mode, (4, 4), colour), "PNG")).astype(int) - expected).max() <= 1


def test_a_palette_and_a_colour_key_can_be_transparent_too():
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.putpixel((0, 0), 1)
    for data in (
        encoded(palette, "PNG", transparency=0),
        encoded(palette, "PNG", transparency=b"\x00\xff"),
        encoded(palette, "GIF", transparency=0),
        encoded(Image.merge("RGB", [c.point(lambda v: v) for c in palette.convert("RGB").split()]), "PNG",
                transparency=(10, 20, 30)),
    ):  # fmt: skip
        shown = pixels(data)
        assert tuple(shown[3, 3]) == (255, 255, 255)
        assert tuple(shown[0, 0]) == (200, 0, 0)


def test_a_palette_image_with_its_own_alpha_channel_is_laid_on_white():
    image = Image.new("PA", (2, 2))
    image.putpalette([10, 20, 30])
    assert (pixels(image) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_sixteen_bit_grey_keeps_its_whole_range(kind):
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    options = {"irreversible": False} if kind == "JPEG2000" else {}

    shown = pixels(encoded(values, kind, **options))

    np.testing.assert_array_equal(shown[:, :, 0], np.floor(values / 257 + 0.5))
    assert len(np.unique(shown)) == 256


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 128, 255]], np.int32), [0, 128, 255]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[0, 50_000, 100_000]], np.int32), [0, 128, 255]),
        (np.array([[-10, 0, 10]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 2.0, 255.0]], np.float32), [0, 2, 255]),
        (np.array([[np.nan, np.inf, 1.0]], np.float32), [0, 0, 255]),
        (np.array([[-7.0, -7.0, -7.0]], np.float32), [0, 0, 0]),
    ],
)
def test_grey_of_32_bits_is_scaled_and_not_clipped(values, expected):
    image = Image.fromarray(values)
    assert image.mode in ("I", "F")
    for data in (image, encoded(image, "TIFF")):
        assert pixels(data)[0, :, 0].tolist() == expected


def test_a_dark_picture_of_sixteen_bits_stays_dark():
    assert pixels(encoded(np.array([[0, 514, 1285]], np.uint16), "PNG"))[0, :, 0].tolist() == [0, 2, 5]


def test_sixteen_bits_in_the_other_byte_order_are_grey_too():
    image = Image.frombytes("I;16B", (3, 1), b"\x00\x00\x80\x80\xff\xff")
    assert pixels(image)[0, :, 0].tolist() == [0, 128, 255]


def test_one_bit_pictures_are_black_and_white():
    image = Image.new("1", (8, 8), 1)
    image.putpixel((0, 0), 0)
    assert sorted(np.unique(pixels(encoded(image, "PNG")))) == [0, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_stands_for_an_animation(kind):
    first, second = Image.new("RGB", (32, 32), (250, 0, 0)), Image.new("RGB", (32, 32), (0, 0, 250))
    data = encoded(first, kind, save_all=True, append_images=[second])
    assert np.abs(pixels(data)[16, 16].astype(int) - (250, 0, 0)).max() <= 8


def test_a_jpeg_with_more_pictures_behind_the_first_is_a_jpeg(photo):
    data = encoded(photo, "MPO", save_all=True, append_images=[Image.new("RGB", (20, 20))])
    assert decode(data).facts == {"width": 451, "height": 300, "format": "JPEG"}


def test_a_jpeg_is_reduced_to_no_less_than_twice_what_the_model_sees(photo):
    data = encoded(Image.fromarray(photo).resize((2000, 1500)), "JPEG")
    sizes = {
        min_side: decode(data, min_side=min_side).image.size for min_side in (None, 93, 96, 224, 400, 5000)
    }
    assert sizes == {
        None: (2000, 1500),
        93: (250, 188),  # 1/8
        96: (500, 375),  # 1/4: at 1/8, 187 would be less than 192
        224: (1000, 750),
        400: (2000, 1500),
        5000: (2000, 1500),
    }
    assert decode(data, min_side=96).facts["width"] == 2000


def test_heic_without_its_package_names_the_command(photo, monkeypatch):
    pytest.importorskip("pillow_heif").register_heif_opener()
    data = encoded(photo, "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "pip install 'clipsearch[heic]'" in reason(data)


def raw_like() -> bytes:
    """A TIFF that begins as a DNG does: a small preview, and its version among the tags."""
    return encoded(Image.new("RGB", (16, 12)), "TIFF", tiffinfo={0xC612: b"\x01\x04\x00\x00", 0x00FE: 1})


@pytest.mark.parametrize("data", [raw_like(), b"FUJIFILMCCD-RAW 0201", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"])
def test_raw_without_its_package_names_the_command_and_never_shows_the_thumbnail(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    assert "pip install 'clipsearch[raw]'" in reason(data)


def dng(preview: bytes, orientation: int) -> bytes:
    """A small raw photo: black sensor data, and a preview in the first directory."""
    letters = {1: "B", 2: "s", 3: "H", 4: "I", 10: "i"}  # by TIFF kind; 10 is a fraction of two

    def directory(entries, at):
        body, tail = struct.pack("<H", len(entries)), b""
        for tag, kind, *values in entries:
            value = values[0] if kind == 2 else struct.pack(f"<{len(values)}{letters[kind]}", *values)
            if len(value) > 4:
                value, tail = struct.pack("<I", at + 400 + len(tail)), tail + value + bytes(len(value) % 2)
            count = len(values[0]) if kind == 2 else len(values) // (2 if kind == 10 else 1)
            body += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
        return (body.ljust(400, b"\0") + tail).ljust(800, b"\0")

    width, height, sensor = 64, 48, bytes(64 * 48 * 2)
    shape = ((256, 4, width), (257, 4, height), (277, 3, 1), (278, 4, height))
    first = [
        (254, 4, 1), (256, 4, 640), (257, 4, 480), (258, 3, 8, 8, 8), (259, 3, 7), (262, 3, 6),
        (271, 2, b"Acme\0"), (272, 2, b"Lens 1\0"), (273, 4, 1608 + len(sensor)), (274, 3, orientation),
        (277, 3, 3), (278, 4, 480), (279, 4, len(preview)), (330, 4, 808), (50706, 1, 1, 4, 0, 0),
        (50708, 2, b"Acme 1\0"), (50721, 10, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1),
    ]  # fmt: skip
    second = [
        (254, 4, 0), *shape[:2], (258, 3, 16), (259, 3, 1), (262, 3, 32803), (273, 4, 1608), *shape[2:],
        (279, 4, len(sensor)), (33421, 3, 2, 2), (33422, 1, 0, 1, 1, 2),
    ]  # fmt: skip
    return b"II*\0\x08\0\0\0" + directory(first, 8) + directory(second, 808) + sensor + preview


def test_raw_is_seen_through_its_preview_turned_once():
    pytest.importorskip("rawpy", reason="needs the extra raw")
    preview = Image.new("RGB", (640, 480), (200, 30, 30))
    preview.paste((0, 0, 255), (0, 0, 320, 480))  # its left half, which is on top once turned
    for inside in (None, 6):  # with and without an orientation of its own
        picture = decode(dng(encoded(preview, "JPEG", exif=exif(inside)), orientation=6), min_side=100)
        assert picture.facts == {"width": 48, "height": 64, "format": "RAW", "camera": "Acme Lens 1"}
        assert picture.image.size == (240, 320)
        assert picture.image.getpixel((120, 20))[2] > 200
        assert picture.image.getpixel((120, 300))[0] > 150


# ---------------------------------------------------------------- facts


def test_date_camera_and_place_are_read_on_the_way(photo):
    data = encoded(
        photo,
        "JPEG",
        exif=exif(
            6,
            main={0x010F: "NIKON CORPORATION\0", 0x0110: "NIKON  D850 "},
            exif={0x9003: "2024:02:29 23:59:58", 0x9011: "+09:00"},
            gps={1: "S", 2: (33.0, 51.0, 24.48), 3: "E", 4: (151.0, 12.0, 0.0)},
        ),
    )
    assert decode(data, min_side=32).facts == {
        "width": 300,
        "height": 451,
        "format": "JPEG",
        "taken": "2024-02-29T23:59:58+09:00",
        "camera": "NIKON D850",
        "latitude": -33.8568,
        "longitude": 151.2,
    }


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_other_formats_have_facts_too(photo, kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    data = encoded(
        photo,
        kind,
        exif=exif(main={0x010F: "Apple", 0x0110: "iPhone 15"}, exif={0x9003: "2024:01:02 03:04:05"}),
    )
    facts = decode(data).facts
    assert (facts["taken"], facts["camera"]) == ("2024-01-02T03:04:05", "Apple iPhone 15")


@pytest.mark.parametrize(
    ("written", "offset", "taken"),
    [
        ("2024:02:29 23:59:58", None, "2024-02-29T23:59:58"),
        ("2024:02:29 23:59:58", "Z", "2024-02-29T23:59:58+00:00"),
        ("2024:02:29 23:59:58", "   :  ", "2024-02-29T23:59:58"),
        ("2024-02-29T23:59:58", "-03:30", "2024-02-29T23:59:58-03:30"),
        ("0000:00:00 00:00:00", None, None),
        ("2023:02:29 10:00:00", None, None),
        ("    :  :     :  :  ", "+01:00", None),
    ],
)
def test_a_date_is_iso_with_its_offset_or_absent(photo, written, offset, taken):
    tags = {0x9003: written} | ({0x9011: offset} if offset else {})
    assert decode(encoded(photo, "JPEG", exif=exif(exif=tags))).facts.get("taken") == taken


@pytest.mark.parametrize(
    "gps",
    [
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
        {1: "N", 2: (95.0, 0.0, 0.0), 3: "E", 4: (10.0, 0.0, 0.0)},
        {1: "N", 2: (IFDRational(1, 0), 0.0, 0.0), 3: "E", 4: (10.0, 0.0, 0.0)},
        {1: "N", 2: (48.0, 0.0, 0.0)},
    ],
)
def test_a_place_that_cannot_be_is_absent(photo, gps):
    assert "latitude" not in decode(encoded(photo, "JPEG", exif=exif(gps=gps))).facts


# ---------------------------------------------------------------- broken files


def broken_exif() -> dict[str, bytes]:
    whole = exif(
        6,
        main={0x010F: "Canon", 0x011A: 72.0},
        exif={0x9003: "2024:01:02 03:04:05"},
        gps={1: "N", 2: (48.0, 0.0, 0.0), 3: "E", 4: (2.0, 0.0, 0.0)},
    )
    entry = struct.Struct("<HHII").pack
    header = b"Exif\0\0II*\0\x08\0\0\0"
    return {
        "empty": b"Exif\0\0",
        "no header": b"Exif\0\0 this is not EXIF",
        "cut": whole[: len(whole) // 2],
        "past the end": b"Exif\0\0II*\0\xff\xff\xff\x7f",
        "inside itself": b"Exif\0\0II*\0\x00\0\0\0",
        "65535 entries": header + b"\xff\xff" + entry(0x0112, 3, 1, 99),
        "unknown kind": header + b"\x01\0" + entry(0x0112, 77, 1, 6) + bytes(4),
        "no values": header + b"\x01\0" + entry(0x0112, 3, 0, 0) + bytes(4),
        "zero denominators": header
        + b"\x02\0"
        + entry(0x0112, 5, 1, 38)
        + entry(0x8769, 5, 1, 38)
        + bytes(12),
        "pointer to itself": header + b"\x01\0" + entry(0x8769, 4, 1, 8) + bytes(4),
        "not text": header + b"\x01\0" + entry(0x010F, 2, 4, 0xFFFEFDFC) + bytes(4),
        "endless": header + b"\x01\0" + entry(0x010F, 2, 0xFFFFFFFF, 8) + bytes(4),
    }


@pytest.mark.parametrize("name", broken_exif())
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_never_costs_the_picture(photo, kind, name):
    data = encoded(photo, kind, exif=broken_exif()[name])
    picture = decode(data, min_side=64)
    assert {picture.facts["width"], picture.facts["height"]} == {451, 300}


def test_only_the_directories_of_exif_are_believed(photo):
    """Bytes that would read as a tag if the header were taken for a list, and text without its NUL."""
    entry = struct.Struct("<HHI4s").pack
    header = b"Exif\0\0II*\0\x1a\0\0\0" + bytes(6)
    listed = struct.pack("<H", 1) + entry(0x010F, 2, 3, b"abcX") + bytes(4)
    data = encoded(photo, "JPEG", exif=header + entry(0x0112, 3, 1, b"\6\0\0\0") + listed)
    assert decode(data).facts == {"width": 451, "height": 300, "format": "JPEG", "camera": "abc"}


def test_an_empty_file_and_a_text_say_what_they_are():
    assert reason(b"") == "the file is empty"
    assert reason(b"this is no picture") == "not a known picture format: it begins with b'this is no p'"


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "HEIF", "PPM"]
)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_a_truncated_file_is_refused(photo, kind, kept):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    data = encoded(photo, kind)
    assert reason(data[: int(len(data) * kept)])


def test_a_truncated_jpeg_is_refused_at_reduced_size_and_says_so(photo):
    data = encoded(Image.fromarray(photo).resize((2000, 1500)), "JPEG")
    assert reason(data[: len(data) // 2], min_side=64) == "truncated: the file ends before the picture does"


def test_random_damage_ends_in_a_picture_or_a_reason(photo):
    numbers = np.random.default_rng(0)
    small = Image.fromarray(photo).resize((64, 48))
    tags = exif(6, exif={0x9003: "2024:01:02 03:04:05"}, gps={1: "N", 2: (48.0, 0.0, 0.0)})
    for kind in ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM"]:
        whole = encoded(
            small, kind, **({"exif": tags} if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {})
        )
        for _ in range(60):
            data = bytearray(whole)
            for place in numbers.integers(0, min(len(data), 600), size=3):
                data[place] = numbers.integers(256)
            try:
                assert decode(bytes(data), min_side=16, max_pixels=1_000_000).image.mode == "RGB"
            except ImageError as error:
                assert str(error) and "0x7f" not in str(error)


def bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that claims side x side pixels of RGB."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(9999)))
        + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb_is_refused_by_its_header():
    assert reason(bomb(60_000)) == f"too large: 60000 x 60000 pixels, the limit is {MAX_PIXELS:,} pixels"
    assert "the limit is 100 pixels" in reason(Image.new("RGB", (11, 11)), max_pixels=100)


def test_a_large_picture_below_the_limit_decodes_without_a_warning():
    data = encoded(Image.new("L", (12_000, 9_000), 99), "JPEG")  # Pillow warns from 89 million pixels on
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert decode(data, min_side=224).image.size == (1500, 1125)
    assert not caught


PEAK = r"""
import struct, sys, zlib
from concurrent.futures import ThreadPoolExecutor
import numpy, PIL.PngImagePlugin
from clipsearch.decode import decode

def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

def peak():
    return next(int(line.split()[1]) // 1000 for line in open("/proc/self/status") if "VmHWM" in line)

side, depth, colour, size = 7200, *map(int, sys.argv[1:])
packer, row = zlib.compressobj(1), bytes(1 + side * size)
body = b"".join([packer.compress(row) for _ in range(side)]) + packer.flush()
header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0))
data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")
before = peak()
with ThreadPoolExecutor(6) as threads:
    sizes = {picture.image.size for picture in threads.map(lambda _: decode(data, min_side=224), range(6))}
assert sizes == {(450, 450)}, sizes  # 1/16: the short side stays 448 or more
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of the process")
@pytest.mark.parametrize(("depth", "colour", "size"), [(8, 6, 4), (8, 4, 2), (16, 0, 2)])
def test_large_pictures_take_turns_and_little_more_memory_than_one_of_them(depth, colour, size):
    command = [sys.executable, "-c", PEAK, str(depth), str(colour), str(size)]
    megabytes = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert megabytes < 4 * 7200 * 7200 / 1e6 + 150  # RGBA as decoded, and its strips


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "I;16B", "I", "F"])
def test_what_is_converted_in_strips_looks_as_if_it_was_not(photo, mode):
    small = Image.fromarray(photo).convert("RGBA")
    small.putalpha(Image.linear_gradient("L").resize(small.size))
    if mode == "P":
        small = small.quantize()
    elif mode in ("RGBA", "LA"):
        small = small.convert(mode)
    else:
        grey = np.asarray(small.convert("L")).astype({"F": "f4", "I": "i4", "I;16B": ">u2"}.get(mode, "<u2"))
        small = Image.frombytes(mode, small.size, (grey * 250).astype(grey.dtype).tobytes())
    assert small.mode == mode
    data = np.asarray(decode(small).image)
    tall = Image.new(mode, (small.width, small.height * 35))  # 4.7 million pixels
    if mode == "P":
        tall.putpalette(small.getpalette("RGBA"), "RGBA")
    for place in range(35):
        tall.paste(small, (0, place * small.height))

    np.testing.assert_array_equal(np.asarray(decode(tall).image), np.tile(data, (35, 1, 1)))


def test_a_large_picture_is_whole_also_while_the_interpreter_ends(tmp_path):
    Image.new("L", (7200, 7200), 90).save(tmp_path / "large.png")
    code = """
import sys, threading, time
from clipsearch.decode import decode
data = open(sys.argv[1], "rb").read()
def late():
    threading.main_thread().join()
    time.sleep(0.2)
    print(decode(data, min_side=224).image.getpixel((0, 0)))
threading.Thread(target=late).start()
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "large.png")]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == "(90, 90, 90)\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_decodes_large_pictures_too(tmp_path):
    Image.new("L", (7200, 7200)).save(tmp_path / "large.png")
    code = """
import os, sys
from clipsearch.decode import decode
data = open(sys.argv[1], "rb").read()
decode(data, min_side=224)
child = os.fork()
if child == 0:
    decode(data, min_side=224)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "large.png")]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == "7\n"


def test_a_large_picture_is_reduced_to_no_less_than_twice_what_the_model_sees(photo):
    large = encoded(Image.fromarray(photo).resize((9020, 6000)), "PNG", compress_level=1)  # 54 million pixels
    picture = decode(large, min_side=96)
    assert (picture.facts["width"], picture.facts["height"]) == (9020, 6000)
    assert picture.image.size == (291, 194)  # 1/31, rounded up
    expected = np.asarray(Image.fromarray(photo).resize((291, 194), Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(picture.image) - expected).mean() < 3
    assert decode(large).image.size == (9020, 6000)


def test_the_settings_of_the_process_stay_as_they_were(photo):
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    decode(encoded(photo, "PNG"))
    reason(bomb(60_000))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def test_threads_decode_the_same_pictures_at_once(photo):
    files = [encoded(photo, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "JPEG2000")]
    alone = [pixels(data) for data in files]
    start = threading.Barrier(6)

    def decode_all(first: int) -> None:
        start.wait()
        for place in range(first, first + 2 * len(files)):
            np.testing.assert_array_equal(pixels(files[place % len(files)]), alone[place % len(files)])

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(decode_all, range(6)))
