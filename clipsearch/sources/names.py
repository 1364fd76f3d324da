"""Which names are pictures, which are nobody's business, and which a user leaves out."""

import os
import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from itertools import accumulate

_PLAIN = ".avif .bmp .gif .heic .heif .hif .j2k .jfif .jp2 .jpe .jpeg .jpg .pgm .png .ppm .tif .tiff .webp"
_RAW = ".arw .cr2 .cr3 .dng .nef .nrw .orf .pef .raf .rw2 .srw"
PICTURES = frozenset(_PLAIN.split() + _RAW.split())
_OF_SYSTEMS = frozenset(  # what Synology, QNAP, Windows, Linux and macOS keep beside people's files
    ("@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX")
)
_EVICTED = ".icloud"


def is_picture(name: str) -> bool:
    """Whether a name ends like a picture's, in any case. RAW counts: without its extra it fails by name."""
    return os.path.splitext(name)[1].lower() in PICTURES


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or belongs to the system."""
    return name.startswith(".") or name in _OF_SYSTEMS


def evicted_name(name: str) -> str | None:
    """The picture a placeholder of iCloud stands for (".a.jpg.icloud": "a.jpg"); None for other names."""
    stands_for = name[1 : -len(_EVICTED)]
    return stands_for if name.startswith(".") and name.endswith(_EVICTED) and is_picture(stands_for) else None


def exclusion(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a posix path is left out: it, its name, or a folder above it matches a pattern.

    `*` also crosses folders: "*.gif" is every GIF, "drafts" every folder of that name, "2019/*"
    whatever is below that one. Case counts.
    """
    rules = [translate(pattern.rstrip("/")) for pattern in patterns]
    if not rules:
        return lambda key: False
    matches = re.compile("|".join(rules)).match

    def excluded(key: str) -> bool:
        parts = key.split("/")
        return any(map(matches, (*parts, *accumulate(parts, "{}/{}".format))))

    return excluded
