"""Approximate indexes: derived from the vectors, tuned on text queries, built again at will."""

from .approximate import ApproximateIndex, Kind
from .keeper import Keeper
from .layout import check_layout
from .published import (
    About,
    Published,
    Tuned,
    Wish,
    damage,
    described_wrong,
    folder_of,
    load,
    published_at,
    read_about,
    read_wish,
)

__all__ = [
    "About",
    "ApproximateIndex",
    "Keeper",
    "Kind",
    "Published",
    "Tuned",
    "Wish",
    "check_layout",
    "damage",
    "described_wrong",
    "folder_of",
    "load",
    "published_at",
    "read_about",
    "read_wish",
]
