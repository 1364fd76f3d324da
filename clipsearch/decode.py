"""From the bytes of a file to upright RGB pixels: the one path every picture takes.

What is decided here, for all formats:

- turned upright by EXIF; transparency is laid on white; the first frame stands for an animation;
- a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where the model looks at less than half of that,
  and what then still is above LARGE pixels is averaged down by a whole number, on the same condition;
- pictures above LARGE pixels are decoded one at a time in a process, as each may take gigabytes;
- grey of more than 8 bits keeps its whole range (see `_scale`), it is never clipped;
- colour profiles are ignored, as they were when the models were trained; CMYK is converted plainly;
- a truncated file is refused: half a picture would get a vector like any other;
- RAW is seen through the preview the camera embedded.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from . import exif
from .errors import ImageError, MissingExtraError, require

# Memory: Pillow keeps RGB, RGBA and LA in 4 bytes a pixel, so MAX_PIXELS are 0.7 GB as decoded. The
# peak is that once when reduced, twice at full size, and a third time turned; WebP's decoder has
# three of its own.
MAX_PIXELS = 178_000_000  # just under where Pillow itself refuses
LARGE = 50_000_000  # pixels: above what phones take, 0.2 GB
STRIP = 4_000_000  # pixels converted at a time
REDUCED_TO = 2  # times min_side, which leaves the final resize enough: vectors keep a cosine of 0.9999

_SIGNATURES = (  # (first bytes, format)
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"RIFF", "WEBP"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    ((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), "PPM"),
    ((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0"), "RAW"),  # Fujifilm, Olympus, Panasonic
    ((b"II*\0\x10\0\0\0CR", b"II\x1a\0\0\0HEAPCCDR"), "RAW"),  # Canon
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
)
_BRANDS = (  # of the ISO container that begins with "ftyp"
    ((b"avif", b"avis"), "AVIF"),
    ((b"crx ",), "RAW"),
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"),
)
_PLUGINS = {  # how the classes of Pillow that read a format are called
    "PNG": "Png",
    "GIF": "Gif",
    "WEBP": "WebP",
    "BMP": "Bmp",
    "JPEG2000": "Jpeg2K",
    "PPM": "Ppm",
    "TIFF": "Tiff",
    "AVIF": "Avif",
}
_TURNS = {  # EXIF orientation: what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RAW_TURNS = {3: 3, 5: 8, 6: 6}  # LibRaw's flip: the EXIF orientation


def _start_large() -> None:
    global _large
    _large = ThreadPoolExecutor(1, "clipsearch-large")  # its thread starts with the first large picture


_large: ThreadPoolExecutor
_start_large()
if hasattr(os, "register_at_fork"):  # a child has the parent's executor without its thread
    os.register_at_fork(after_in_child=_start_large)


class Picture(NamedTuple):
    """A picture ready for any encoder, and what its file says of it.

    Attributes:
        image: RGB and upright; a JPEG, or a picture above LARGE pixels, may be smaller than in its file.
        facts: width and height in pixels of the full upright picture, format, and as far as known
            taken (ISO 8601), camera, latitude and longitude (degrees). JSON values; what is not
            known is absent.
    """

    image: Image.Image
    facts: dict[str, Any]


def decode(
    data: bytes | Image.Image, *, min_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Decode a file to an upright RGB picture, reading it once for pixels and facts. Thread-safe.

    Args:
        data: the whole file, or a PIL image, which is turned by its EXIF too and never changed.
        min_side: shortest side in pixels the model looks at: a JPEG, or a file above LARGE pixels,
            comes back reduced, its short side at least twice that. None: full size.
        max_pixels: larger pictures are refused before any memory is taken for them.

    Returns:
        The picture and its facts. An RGB image that needs nothing done is returned as it is.

    Raises:
        ImageError: there is no picture, it is broken or too large, or a package is missing to read
            it. The message is the reason and does not name the file.
    """
    try:
        if isinstance(data, Image.Image):
            return _from_image(data, max_pixels)
        return _from_file(data, min_side, max_pixels)
    except ImageError:
        raise
    except MissingExtraError as error:
        raise ImageError(str(error)) from error
    except Exception as error:  # what decoders raise on broken bytes has no common class
        raise ImageError(_reason(error)) from error


def content_digest(data: bytes | Image.Image) -> bytes:
    """sha256 of a file's bytes, or of what decides how a PIL image looks: two equal ones are one content."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).digest()
    turned = data.getexif().get(ExifTags.Base.Orientation, 1)
    if data.mode in ("P", "PA"):  # the pixels are numbers of colours: equal ones may look different
        data = data.convert("RGBA")
    return hashlib.sha256(f"{data.mode} {data.size} {turned} ".encode() + data.tobytes()).digest()


def _from_image(image: Image.Image, max_pixels: int) -> Picture:
    _check_size(image.size, max_pixels)
    rgb = _converted(image, image.size)
    tags = exif.read_tags(image.info.get("exif") or b"")
    return _picture(rgb, image.size, tags, exif.orientation(tags), image.format)


def _from_file(data: bytes, min_side: int | None, max_pixels: int) -> Picture:
    kind = _format(data)
    tags = exif.read_tags(data) if kind == "TIFF" else {}
    if kind == "RAW" or exif.is_raw(tags):
        return _from_raw(data, min_side, max_pixels)
    image, size, block = _load(data, kind, min_side, max_pixels)
    if kind == "TIFF":  # which Pillow has turned upright by itself
        return _picture(image, size, tags, 1, kind)
    tags = exif.read_tags(block)
    return _picture(image, size, tags, exif.orientation(tags), kind)


def _from_raw(data: bytes, min_side: int | None, max_pixels: int) -> Picture:
    require("rawpy", extra="raw")
    import rawpy

    with rawpy.imread(io.BytesIO(data)) as raw:
        preview, sizes = raw.extract_thumb(), raw.sizes
    if preview.format == rawpy.ThumbFormat.JPEG:  # LibRaw gives it the file's EXIF where it has none
        image, _, block = _load(cast("bytes", preview.data), "JPEG", min_side, max_pixels)
        tags = exif.read_tags(block)
        turned = exif.orientation(tags)
    else:
        pixels = cast("npt.NDArray[np.uint8]", preview.data)
        image, tags, turned = _to_rgb(Image.fromarray(pixels)), {}, _RAW_TURNS.get(sizes.flip, 1)
    tags |= exif.read_tags(data)
    return _picture(image, (sizes.width, sizes.height), tags, turned, "RAW")


def _format(data: bytes) -> str:
    if data[4:8] == b"ftyp":  # a box that lists the brands, its length comes first
        brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        kinds = [kind for names, kind in _BRANDS if any(name in brands for name in names)]
    else:
        kinds = [kind for start, kind in _SIGNATURES if data.startswith(start)]
    if not kinds:
        raise ImageError(
            f"not a known picture format: it begins with {data[:12]!r}" if data else "the file is empty"
        )
    return kinds[0]


def _load(
    data: bytes, kind: str, min_side: int | None, max_pixels: int
) -> tuple[Image.Image, tuple[int, int], bytes]:
    """Decode to RGB, turned as stored; also the size when not reduced, and the EXIF block."""
    image = _opener(kind)(io.BytesIO(data), "")
    size = image.size
    _check_size(size, max_pixels)
    if kind == "JPEG" and min_side:
        image.draft(None, (REDUCED_TO * min_side, REDUCED_TO * min_side))
    held = size if image.info.get("progressive") else image.size  # libjpeg holds progressive ones whole
    return _converted(image, held, min_side), size, image.info.get("exif") or b""


def _converted(image: Image.Image, held: tuple[int, int], min_side: int | None = None) -> Image.Image:
    """Decode to RGB; if large in the one thread that decodes such, each picture in the memory of the last.

    Else each thread that ever decodes a large one would keep that much from the system.
    """

    def load() -> Image.Image:
        image.load()
        rgb = _to_rgb(image, min_side)
        if min_side and rgb is not image:  # a file's, never a caller's own
            image.close()  # its memory goes before the next one's turn
        return rgb

    if held[0] * held[1] <= LARGE:
        return load()
    try:
        task = _large.submit(load)
    except RuntimeError:  # no thread starts any more: the interpreter is ending
        return load()
    return task.result()


def _opener(kind: str) -> type[ImageFile.ImageFile]:
    """The class that reads a format. Image.open would find it too, but warns of large pictures."""
    if kind == "JPEG":
        return _Jpeg
    if kind == "HEIF":
        require("pillow_heif", extra="heic")
        from pillow_heif import HeifImageFile

        return cast(type[ImageFile.ImageFile], HeifImageFile)
    plugin = import_module(f"PIL.{_PLUGINS[kind]}ImagePlugin")
    return cast(type[ImageFile.ImageFile], getattr(plugin, f"{_PLUGINS[kind]}ImageFile"))


class _Jpeg(JpegImageFile):
    """A JPEG whose EXIF Pillow leaves alone: it would warn of a broken one, and we read it ourselves."""

    def _read_dpi_from_exif(self) -> None:
        pass


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"too large: {width} x {height} pixels, the limit is {max_pixels:,} pixels")


def _picture(
    image: Image.Image, size: tuple[int, int], tags: exif.Tags, orientation: int, kind: str | None
) -> Picture:
    """Turn an RGB image whose full size, as stored, is `size`."""
    width, height = size if orientation < 5 else size[::-1]
    facts = {"width": width, "height": height, **({"format": kind} if kind else {}), **exif.facts(tags)}
    return Picture(image.transpose(_TURNS[orientation]) if orientation > 1 else image, facts)


def _to_rgb(image: Image.Image, min_side: int | None = None) -> Image.Image:
    """In strips, so that no second copy of a large picture is made on the way; reduced if it is one."""
    width, height = image.size
    factor = 1
    if min_side and width * height > LARGE:
        factor = max(1, min(width, height) // (REDUCED_TO * min_side))
    if factor == 1 and image.mode == "RGB" and not image.has_transparency_data:
        return image
    scale = _scale(image)
    if width * height <= STRIP:
        return _strip_to_rgb(image, scale)
    whole, top = Image.new("RGB", (-(-width // factor), -(-height // factor))), 0
    for strip in _strips(image, factor):
        small = _strip_to_rgb(strip, scale).reduce(factor)
        whole.paste(small, (0, top))
        top += small.height
    return whole


def _strips(image: Image.Image, factor: int = 1) -> Iterator[Image.Image]:
    """The image from top to bottom, in parts of about STRIP pixels whose heights are multiples of factor."""
    width, height = image.size
    rows = max(1, STRIP // (width * factor)) * factor
    return (image.crop((0, top, width, min(top + rows, height))) for top in range(0, height, rows))


def _strip_to_rgb(image: Image.Image, scale: tuple[float, float]) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _to_8_bits(image, *scale).convert("RGB")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale(image: Image.Image) -> tuple[float, float]:
    """What of grey of more than 8 bits becomes 0, and the range from there to 255.

    The range is 65535 for 16 bits. Other modes do not say theirs: it is the smallest of 1 (floating
    point only), 255 and 65535 that holds every value, and where none does, the values are stretched
    from their least to their greatest.
    """
    scales = {"I": (255, 65535), "F": (1, 255, 65535)}.get(image.mode)
    if scales is None:
        return 0, 65535
    extremes = [(values.min(), values.max()) for values in map(_values, _strips(image))]
    low, high = float(min(low for low, _ in extremes)), float(max(high for _, high in extremes))
    fitting = [scale for scale in scales if low >= 0 and high <= scale]
    return (0, fitting[0]) if fitting else (low, high - low or 1)


def _to_8_bits(image: Image.Image, low: float, scale: float) -> Image.Image:
    return Image.fromarray(((_values(image) - low) * (255 / scale) + 0.5).astype(np.uint8))


def _values(image: Image.Image) -> npt.NDArray[np.float32]:
    """Grey of any depth, (height, width). What is not finite becomes 0."""
    values = np.array(image, dtype=np.float32)
    values[~np.isfinite(values)] = 0
    return values


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if "truncated" in text.lower():
        return "truncated: the file ends before the picture does"
    return f"cannot be decoded: {text}"
