"""Pictures that are here more than once: the same bytes twice, or nearly the same picture."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from .decode import decode
from .errors import ImageError, QueryError, SourceError
from .files import cores, write_durably
from .filters import Selection
from .labels.outputs import write_cells
from .near import Rows, components, mean_cosine, stars
from .progress import progress_bar
from .render import Card, Section, page, printable, relative
from .results import NOTEBOOK_SIDE, Hit, card
from .search import Searcher
from .types import Embeddings, as_embeddings

if TYPE_CHECKING:
    from PIL.Image import Image

NEAR = 0.06  # of the distance (1 - cosine) of any two pictures: measured, see docs/duplicates.md
ALIKE = 0.7  # the highest mean cosine that is believed: above, a collection is made of copies
SIDE = 512  # pixels: at this size pictures are compared for sharpness
PAGE_GROUPS = 200  # a page carries its pictures within itself
COLUMNS = ("group", "keep", "path", "id", "cosine", "width", "height", "same_bytes", "reason")


@dataclass(frozen=True)
class DuplicateGroup(Sequence[Hit]):
    """Pictures that are nearly the same; the first is the one to keep.

    Attributes:
        hits: the one to keep, then the others by their cosine to it, which is their score.
        same_bytes: for each, in the same order, whether another file of the group has its bytes.
        reason: why the first is to be kept.
    """

    hits: tuple[Hit, ...]
    same_bytes: tuple[bool, ...]
    reason: str

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    @property
    def keep(self) -> Hit:
        """The picture to keep."""
        return self.hits[0]

    @property
    def others(self) -> tuple[Hit, ...]:
        """The pictures that could go."""
        return self.hits[1:]

    def to_dict(self) -> dict[str, Any]:
        """The group as JSON values."""
        pictures = [
            {
                "id": hit.id,
                "path": hit.path,
                "keep": hit is self.keep,
                "cosine": hit.score,
                "width": hit.metadata.get("width"),
                "height": hit.metadata.get("height"),
                "same_bytes": same,
            }
            for hit, same in zip(self.hits, self.same_bytes, strict=True)
        ]
        return {"reason": self.reason, "pictures": pictures}


@dataclass(frozen=True, repr=False)
class Duplicates(Sequence[DuplicateGroup]):
    """Groups of pictures that are nearly the same, in the order in which those to keep came in.

    Attributes:
        groups: at least two pictures each; no picture is in two groups.
        threshold: the least cosine of a picture to the one that is kept of its group.
        compared: how many different pictures were compared.
        model: the encoder whose vectors were compared.
    """

    groups: tuple[DuplicateGroup, ...]
    threshold: float
    compared: int
    model: str = ""

    def __len__(self) -> int:
        return len(self.groups)

    @overload
    def __getitem__(self, index: int) -> DuplicateGroup: ...
    @overload
    def __getitem__(self, index: slice) -> "Duplicates": ...
    def __getitem__(self, index: int | slice) -> "DuplicateGroup | Duplicates":
        return replace(self, groups=self.groups[index]) if isinstance(index, slice) else self.groups[index]

    def __str__(self) -> str:
        extra = _counted(sum(len(group) - 1 for group in self.groups), "file")
        found = f"{extra} could go, of {_counted(len(self), 'group')}" if self.groups else "no duplicates"
        pictures = _counted(self.compared, "picture")
        return f"{found}; {pictures} of different bytes compared, cosine from {self.threshold:.3f}"

    def __repr__(self) -> str:
        lines = [line for group in self.groups[:10] for line in _lines(group)]
        more = [f"  … and {_counted(len(self) - 10, 'more group')}"] if len(self) > 10 else []
        return "\n".join([str(self), *lines, *more])

    def to_dicts(self) -> list[dict[str, Any]]:
        """One JSON-able dict a group: reason, and pictures with id, path, keep, cosine, size, same_bytes."""
        return [group.to_dict() for group in self.groups]

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write one row a picture; `group` counts from 1, and `keep` is 1 for the one to keep, else 0.

        `same_bytes` is 1 where another file of the group has the same bytes, else 0.
        Cells are as those of labels: docs/labels.md tells of names that look like formulas.

        Returns:
            Where it was written, absolute.
        """
        whole = Path(path).expanduser().absolute()
        rows = (
            {"group": number, "reason": group["reason"], **picture, **_numbers(picture)}
            for number, group in enumerate(self.to_dicts(), 1)
            for picture in group["pictures"]
        )
        write_cells(whole, COLUMNS, rows)
        return whole

    def to_html(self, path: str | os.PathLike[str], *, reveal: bool = False) -> Path:
        """Write one HTML file with the pictures of the first 200 groups, the ones to keep first.

        Args:
            path: the file to write; an existing one is replaced.
            reveal: show absolute paths and all metadata; see `SearchResults.to_html`.

        Returns:
            Where it was written, absolute.
        """
        shown = self.groups[:PAGE_GROUPS]
        more = f"; here are the first {len(shown):,} groups" if len(shown) < len(self) else ""
        sections = [
            Section(
                f"{number}. Keep {relative(group.keep.key).name}: {group.reason}",
                cards=_cards(group, reveal),
                part=True,
            )
            for number, group in enumerate(shown, 1)
        ]
        document = page("Duplicates", sections, note=f"{self}{more}", footer="Made with clipsearch").encode()
        whole = Path(path).expanduser().absolute()
        write_durably(whole, lambda file: file.write(document))
        return whole


def _numbers(picture: dict[str, Any]) -> dict[str, Any]:
    return {"keep": int(picture["keep"]), "same_bytes": int(picture["same_bytes"])}


def _counted(count: int, one: str) -> str:
    return f"{count:,} {one}{'s' * (count != 1)}"


def _cards(group: DuplicateGroup, reveal: bool) -> list[Card]:
    """The pictures of a group; the id tells apart what has one name in two sources."""
    cards = []
    for hit, same in zip(group, group.same_bytes, strict=True):
        shown = card(hit, side=NOTEBOOK_SIDE, reveal=reveal)
        badge = "keep" if hit is group.keep else shown.badge
        lines = [*shown.lines, f"id {hit.id}", *["same bytes"] * same]
        cards.append(replace(shown, badge=badge, lines=lines))
    return cards


def _lines(group: DuplicateGroup) -> list[str]:
    first = f"  keep   {printable(group.keep.path)}{facts(group.keep, False)}  ({group.reason})"
    others = zip(group.others, group.same_bytes[1:], strict=True)
    return [first, *(f"  {hit.score:.3f}  {printable(hit.path)}{facts(hit, same)}" for hit, same in others)]


def facts(hit: Hit, same_bytes: bool) -> str:
    """The size in pixels, where it is known, and whether another has the same bytes; spaces before each."""
    width, height = hit.metadata.get("width"), hit.metadata.get("height")
    size = f"  {width} × {height}" if width and height else ""
    return size + "  same bytes" * same_bytes


class Quality(NamedTuple):
    """What is better about a picture; the least is the one to keep."""

    unreadable: bool
    pixels: int  # negative
    blur: int  # how often it is half as sharp as the sharpest of as many pixels
    bytes: int  # negative, where it was read
    id: int


REASONS = ("can be read", "most pixels", "sharpest", "largest file", "came first")  # of what is better


def usual_threshold(mean: float) -> float:
    """From which cosine two pictures are nearly the same, by the mean cosine of any two.

    Models differ in how far apart they put pictures: what all of them have in common shrinks 1 - cosine by
    the same share for all pairs, so a share of the mean 1 - cosine means the same for every model.
    """
    return 1 - NEAR * (1 - min(max(mean, 0.0), ALIKE))


def find(
    searcher: Searcher,
    *,
    threshold: float | None = None,
    only: Selection | None = None,
    progress: bool | None = None,
) -> Duplicates:
    """Group the pictures that are nearly the same; see Collection.duplicates."""
    contents = searcher.contents(only)  # (n,)
    fetch = partial(_fetch, searcher, searcher.rows_of(contents))
    if threshold is None:
        threshold = usual_threshold(mean_cosine(fetch, len(contents)))
    sets = components(fetch, len(contents), check_threshold(threshold), progress=progress)
    linked = np.concatenate([np.empty(0, np.int64), *sets])
    files = searcher.files(np.union1d(contents[linked], searcher.several(only)), only)
    files = {content: hits for content, hits in files.items() if hits}
    gone = _gone([hit for hits in files.values() for hit in hits], progress)
    chosen = _qualities([contents[rows].tolist() for rows in sets], files, gone, progress)
    groups = []
    for rows in sets:
        known = [row for row in rows if int(contents[row]) in chosen]
        order = sorted(known, key=lambda row: chosen[int(contents[row])])
        for near, cosines in zip(*stars(fetch, np.array(order, np.int64), threshold), strict=True):
            members = contents[near].tolist()
            groups.append(_group([files.pop(content) for content in members], cosines, members, chosen, gone))
    groups += [_group([hits], [1.0], [], {}, gone) for hits in files.values() if len(hits) > 1]
    groups.sort(key=lambda group: group.keep.id)
    return Duplicates(tuple(groups), threshold, len(contents), searcher.space.model)


def check_threshold(threshold: float) -> float:
    """The least cosine that was asked for.

    Raises:
        QueryError: it is no number above 0 and at most 1.
    """
    number = isinstance(threshold, int | float | np.number) and not isinstance(threshold, bool)
    if not number or not 0 < threshold <= 1:
        raise QueryError(f"threshold is a cosine such as 0.97, above 0 and at most 1, got {threshold!r}")
    return float(threshold)


def _fetch(searcher: Searcher, rows: Rows, places: Rows) -> Embeddings:
    vectors = searcher.vectors(rows[places])
    return as_embeddings(vectors)  # float16 has left them a little off the unit length


def _group(
    files: list[list[Hit]],
    cosines: Iterable[float] | npt.NDArray[np.float32],
    contents: list[int],
    qualities: dict[int, Quality],
    gone: set[int],
) -> DuplicateGroup:
    """The group of some contents, the one to keep first."""
    hits = tuple(
        replace(hit, score=float(cosine), cosine=float(cosine))
        for several, cosine in zip(files, cosines, strict=True)
        for hit in several
    )
    same = tuple(len(several) > 1 for several in files for _ in several)
    lost = sum(hit.id in gone for hit in hits)
    if lost == len(hits) - 1:
        return DuplicateGroup(hits, same, "the only one that can be read")
    reason = _reason([qualities[content] for content in contents])
    return DuplicateGroup(hits, same, reason + " of those that can be read" * (0 < lost < len(hits)))


def _reason(qualities: list[Quality]) -> str:
    """What the first has before the best of the others."""
    if len(qualities) < 2:
        return "same bytes, came first"
    best, second = qualities[0], min(qualities[1:])
    return next(why for why, one, other in zip(REASONS, best, second, strict=True) if one != other)


def _gone(hits: list[Hit], progress: bool | None) -> set[int]:
    """The ids of those that cannot be read."""
    with (
        ThreadPoolExecutor(cores()) as pool,
        progress_bar("looking which are there", progress, total=len(hits)) as bar,
    ):
        gone = set()
        for hit, there in zip(hits, pool.map(_there, hits), strict=True):
            gone |= set() if there else {hit.id}
            bar.update()
    return gone


def _there(hit: Hit) -> bool:
    """Whether a picture can be read, as far as is cheap to know: what is a file of its own is not opened."""
    try:
        if os.path.isabs(hit.path) and os.path.isfile(hit.path):
            return os.access(hit.path, os.R_OK) and os.path.getsize(hit.path) > 0
        return bool(hit.read())
    except (ImageError, SourceError, OSError):
        return False


def _qualities(
    sets: list[list[int]], files: dict[int, list[Hit]], gone: set[int], progress: bool | None
) -> dict[int, Quality]:
    """How good each content of some sets is; it is looked at where another of its set has as many pixels.

    Files that turn out to be unreadable are added to `gone`, and each content's are sorted: those come last.
    """
    pixels = {content: _pixels(hits[0]) for content, hits in files.items()}
    tied: dict[tuple[int, int], list[int]] = {}
    for number, contents in enumerate(sets):
        for content in (content for content in contents if content in files):
            tied.setdefault((number, pixels[content]), []).append(content)
    together = [contents for contents in tied.values() if len(contents) > 1]
    seen = _looks([content for contents in together for content in contents], files, gone, progress)
    for hits in files.values():
        hits.sort(key=lambda hit: hit.id in gone)
    sharpest = {content: max(seen[c][0] for c in contents) for contents in together for content in contents}
    return {
        content: Quality(
            files[content][0].id in gone,
            -pixels[content],
            _halvings(seen[content][0], sharpest[content]) if content in seen else 0,
            -seen[content][1] if content in seen else 0,
            files[content][0].id,
        )
        for contents in tied.values()
        for content in contents
    }


def _pixels(hit: Hit) -> int:
    sides = [hit.metadata.get(side) for side in ("width", "height")]
    return int(np.prod([side if isinstance(side, int | float) else 0 for side in sides]))


def _looks(
    contents: list[int], files: dict[int, list[Hit]], gone: set[int], progress: bool | None
) -> dict[int, tuple[float, int]]:
    """The sharpness and the bytes of some contents; (0, 0) of one of which no file can be read."""
    tries = [[hit for hit in files[content] if hit.id not in gone] for content in contents]
    found = {}
    with (
        ThreadPoolExecutor(cores()) as pool,
        progress_bar("looking for the sharpest", progress, total=len(contents)) as bar,
    ):
        for content, hits, looks in zip(contents, tries, pool.map(_first_look, tries), strict=True):
            gone.update(hit.id for hit, look in zip(hits, looks, strict=False) if look is None)
            found[content] = next((look for look in looks if look), (0.0, 0))
            bar.update()
    return found


def _first_look(hits: list[Hit]) -> list[tuple[float, int] | None]:
    """What comes of each of some files, up to the first that can be read."""
    looks: list[tuple[float, int] | None] = []
    for hit in hits:
        looks.append(_look(hit))
        if looks[-1]:
            break
    return looks


def _look(hit: Hit) -> tuple[float, int] | None:
    try:
        data = hit.read()
        size = len(data) if isinstance(data, bytes) else 0
        return sharpness(decode(data, min_side=SIDE // 2).image), size
    except (ImageError, SourceError, OSError):
        return None


def sharpness(image: "Image") -> float:
    """The variance of the Laplacian of the grey picture, its longer side brought to SIDE pixels.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    scale = SIDE / max(image.size)
    grey = image.convert("L").resize([max(3, round(side * scale)) for side in image.size])
    p = np.asarray(grey, np.float32)
    laplacian = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * p[1:-1, 1:-1]
    return float(laplacian.var())


def _halvings(value: float, best: float) -> int:
    """How often `best` can be halved before it is below `value`.

    A new JPEG of the same picture changes its sharpness too, so a small difference decides nothing.
    """
    return 0 if value >= best else int(np.log2(best / value)) if value > 0 else 1000
