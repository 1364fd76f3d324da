"""Approximate indexes: derived from the vectors, tuned on text queries, built again at will."""

from .approximate import ApproximateIndex, Kind
from .build import build
from .keeper import Keeper
from .published import About, Published, Tuned, drop, leftovers, load, read_about

__all__ = [
    "About",
    "ApproximateIndex",
    "Keeper",
    "Kind",
    "Published",
    "Tuned",
    "build",
    "drop",
    "leftovers",
    "load",
    "read_about",
]
