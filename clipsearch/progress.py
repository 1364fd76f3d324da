"""The bar that long work shows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .render import printable


@contextmanager
def progress_bar(
    name: str, progress: bool | None, *, unit: str = "pictures", total: int | None = None
) -> Iterator[Any]:
    """A bar of tqdm's; `progress` switches it, and None shows it where a terminal is watching."""
    from tqdm.auto import tqdm  # slow to import, and only needed here

    disable = None if progress is None else not progress
    with tqdm(desc=printable(name), unit=f" {unit}", total=total, disable=disable, leave=False) as bar:
        yield bar
