"""What a camera wrote into a file: how it was held, when, with what and where.

EXIF in the wild is broken in every way (zero denominators, offsets past the end, text of no
encoding), so it is read here, a tag at a time and only the tags we want: what cannot be read is
absent and nothing raises. Layout and tag numbers: CIPA DC-008 (Exif 3.0), sections 4.6.2 to 4.6.6.
"""

import re
import struct
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeAlias

Tags: TypeAlias = dict[int, Any]
"""By tag number: a string, or a tuple of numbers. GPS tags have numbers below all others."""

ORIENTATION = 0x0112
_EXIF_DIRECTORY, _GPS_DIRECTORY = 0x8769, 0x8825
_MAKE, _MODEL = 0x010F, 0x0110
_TAKEN = ((0x9003, 0x9011), (0x9004, 0x9012))  # (date, offset from UTC): of the shot, of its digitization
_LATITUDE, _LONGITUDE = (2, 1, 90), (4, 3, 180)  # (degrees, N/S or E/W, the most degrees there are)
_PREVIEW, _COMPRESSION, _DIRECTORIES, _DNG_VERSION = 0x00FE, 0x0103, 0x014A, 0xC612
_WANTED = {ORIENTATION, _EXIF_DIRECTORY, _GPS_DIRECTORY, _MAKE, _MODEL, *_TAKEN[0], *_TAKEN[1]}
_WANTED |= {*_LATITUDE[:2], *_LONGITUDE[:2], _PREVIEW, _COMPRESSION, _DIRECTORIES, _DNG_VERSION}
_KINDS = {1: "B", 3: "H", 4: "I", 5: "II", 7: "B", 9: "i", 10: "ii", 13: "I"}  # of values, by their code
_TEXT = 2
_RAW_COMPRESSIONS = (32767, 34713, 34892, 65535)  # Sony, Nikon, lossy DNG, Pentax
_DATE = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)")


def read_tags(exif: bytes) -> Tags:
    """The wanted tags of an EXIF block, or of a whole TIFF file; none when it is not one."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return {}
    tags = _directory(tiff, order, struct.unpack_from(order + "I", tiff, 4)[0])
    for pointer in (_EXIF_DIRECTORY, _GPS_DIRECTORY):
        tags |= _directory(tiff, order, _whole(tags, pointer))
    return tags


def orientation(tags: Tags) -> int:
    """1 to 8 as EXIF numbers them; 1, upright, when absent or senseless."""
    turned = _whole(tags, ORIENTATION)
    return turned if 1 <= turned <= 8 else 1


def is_raw(tags: Tags) -> bool:
    """Whether a TIFF file is a camera's raw one: its first picture is then a preview or sensor data."""
    begins_small = _whole(tags, _PREVIEW) == 1 and _DIRECTORIES in tags
    return begins_small or _DNG_VERSION in tags or _whole(tags, _COMPRESSION) in _RAW_COMPRESSIONS


def facts(tags: Tags) -> dict[str, Any]:
    """When, with what and where: the keys taken, camera, latitude, longitude that are known.

    taken is ISO 8601, with its offset from UTC where the camera wrote one. Latitude and longitude
    are degrees, north and east positive; both or none, and exactly (0, 0) counts as not known.
    """
    known = {"taken": _taken(tags), "camera": _camera(tags), **_place(tags)}
    return {name: value for name, value in known.items() if value is not None}


def _whole(tags: Tags, tag: int) -> int:
    """The first number of a tag, 0 when there is no whole one."""
    value = tags.get(tag)
    return value[0] if isinstance(value, tuple) and isinstance(value[0], int) else 0


def _directory(tiff: bytes, order: str, offset: int) -> Tags:
    """Read one list of 12-byte entries: tag, kind, count, and the value or where it is."""
    found: Tags = {}
    if offset < 8:  # inside the header: none
        return found
    with suppress(struct.error):  # the list ends early
        (count,) = struct.unpack_from(order + "H", tiff, offset)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from(order + "HHI", tiff, entry)
            if tag in _WANTED:
                with suppress(struct.error, KeyError, ValueError):  # this value is broken
                    found[tag] = _value(tiff, order, kind, length, entry + 8)
    return found


def _value(tiff: bytes, order: str, kind: int, length: int, place: int) -> str | tuple[float, ...]:
    letters = "s" if kind == _TEXT else _KINDS[kind]
    if struct.calcsize("=" + letters) * length > 4:  # too long for the entry, which tells where it is
        (place,) = struct.unpack_from(order + "I", tiff, place)
    if kind == _TEXT:
        return tiff[place : place + min(length, 256)].partition(b"\0")[0].decode("utf-8", "replace")
    if not length:
        raise ValueError("a value of no numbers")
    numbers = struct.unpack_from(order + letters * min(length, 4), tiff, place)
    if len(letters) == 1:
        return numbers
    return tuple(a / b if b else float("nan") for a, b in zip(numbers[::2], numbers[1::2], strict=True))


def _taken(tags: Tags) -> str | None:
    for date, offset in _TAKEN:
        with suppress(ValueError):  # such as "0000:00:00 00:00:00"
            if match := _DATE.match(str(tags.get(date))):
                naive = datetime.fromisoformat("{}-{}-{}T{}:{}:{}".format(*match.groups()))
                return _with_offset(naive, tags.get(offset))
    return None


def _with_offset(naive: datetime, offset: object) -> str:
    with suppress(ValueError):
        return datetime.fromisoformat(f"{naive.isoformat()}{str(offset).strip()}").isoformat()
    return naive.isoformat()


def _camera(tags: Tags) -> str | None:
    """Make and model as people say them: "Canon" and "Canon EOS R5" are one "Canon EOS R5"."""
    make, model = (_plain(tags.get(tag)) for tag in (_MAKE, _MODEL))
    same = make and model.casefold().startswith(make.split()[0].casefold())
    return (model if same else f"{make} {model}".strip()) or None


def _plain(text: object) -> str:
    printable = (c if c.isprintable() else " " for c in text) if isinstance(text, str) else ""
    return " ".join("".join(printable).split())


def _place(tags: Tags) -> dict[str, float]:
    latitude, longitude = (_degrees(tags, *where) for where in (_LATITUDE, _LONGITUDE))
    if latitude is None or longitude is None or (latitude, longitude) == (0, 0):
        return {}
    return {"latitude": latitude, "longitude": longitude}


def _degrees(tags: Tags, angle: int, side: int, most: int) -> float | None:
    parts = tags.get(angle)
    if not isinstance(parts, tuple):
        return None
    degrees: float = sum(part / 60**power for power, part in enumerate(parts[:3]))  # with minutes, seconds
    if not 0 <= degrees <= most:  # nor when it is not a number
        return None
    negative = str(tags.get(side)).upper().startswith(("S", "W"))
    return round(-degrees if negative else degrees, 7)  # to a centimetre
