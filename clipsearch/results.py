"""What a search answers: hits in order, and the ways to look at them."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from .errors import ClipsearchError, ImageError, SourceError, require
from .files import write_durably
from .render import Card, Section, grid, page, printable, relative, thumbnail
from .segments import WHOLE, Box

if TYPE_CHECKING:
    from pandas import DataFrame
    from PIL.Image import Image

PAGE_SIDE = 480  # pixels, the longer side of a picture on a page: sharp on a screen of double density
NOTEBOOK_SIDE = 256  # pixels; what a notebook shows is saved inside the notebook
NOTEBOOK_HITS = 40  # a notebook draws results by itself, perhaps of k=1000


class Judgement(NamedTuple):
    """What a stage made of a hit."""

    by: str  # the reranker
    score: float | None  # its own: log-odds or a similarity; None: it gave none
    before: int  # rank before the stage, from 1
    after: int  # and after it
    reason: str = ""  # why there is no score


class StageReport(NamedTuple):
    """What a stage did."""

    by: str  # the reranker
    pool: int  # how many hits it was to judge
    judged: int  # how many of them it did before its budget was spent, those it could not judge included
    kept: int  # how many of these scores were known from an earlier search
    failed: int  # and how many have no score
    seconds: float

    def __str__(self) -> str:
        known = f", {self.kept:,} of them known" if self.kept else ""
        without = f", {self.failed:,} without a score" if self.failed else ""
        return f"{self.judged:,} of {self.pool:,} judged by {self.by} in {self.seconds:.1f} s{known}{without}"


@dataclass(frozen=True, slots=True)
class Hit:
    """One picture that was found.

    Attributes:
        id: its number in the collection.
        path: where it is: the file's absolute path, or the archive's path and the member.
        key: its name inside its source.
        source: root of its source.
        score: what the results are ordered by; higher is better.
        cosine: similarity of its embedding to the query's, or None where there is none.
        relevance: how well it fits the query beside how well neutral queries fit it, 0 to 1, which can be
            compared across queries; from 0.5 it is relevant. None: the collection is not calibrated.
        metadata: what is known of it, as JSON values: width and height in pixels as shown, taken,
            camera, latitude and longitude in degrees, and whatever its source added.
        read: returns its bytes, or the picture itself, as they are now.
        box: the part of it that was found: left, top, right, bottom as shares of its sides; (0, 0, 1, 1)
            is all of it.
        judgements: what each stage of the search that judged it made of it.
    """

    id: int
    path: str
    key: str = field(repr=False)
    source: str = field(repr=False)
    score: float
    cosine: float | None
    metadata: Mapping[str, Any] = field(repr=False, hash=False)
    read: "Callable[[], bytes | Image]" = field(repr=False, compare=False)
    box: Box = field(default=WHOLE, repr=False)
    judgements: tuple[Judgement, ...] = field(default=(), repr=False)
    relevance: float | None = field(default=None, repr=False)

    def image(self, *, min_side: int | None = None) -> "Image":
        """Return the picture, RGB and upright.

        Args:
            min_side: pixels its shorter side must keep; a JPEG that is much larger is then decoded
                at a reduced scale, which is faster. None gives every pixel.

        Raises:
            ImageError: it is gone or cannot be read; the message is the reason.
            SourceError: the place it came from is gone.
        """
        return _opened(self.read, min_side)


def _opened(read: "Callable[[], bytes | Image]", min_side: int | None) -> "Image":
    from .decode import decode

    try:
        return decode(read(), min_side=min_side).image
    except FileNotFoundError as error:
        raise ImageError("the file is gone; if its folder was moved, relocate the source") from error
    except OSError as error:
        raise ImageError(error.strerror or "the file cannot be read") from error


@dataclass(frozen=True, repr=False)
class SearchResults(Sequence[Hit]):
    """Hits, best first: a sequence that also knows what was asked, and can show itself.

    Attributes:
        hits: the pictures found; may be empty.
        query: what was asked, for a person to read; it names no folder.
        score_kind: what the scores are.
        model: the encoder that was used.
        stages: what each stage after the first did.
        nearest: what would have been found, where nothing was relevant enough for `min_relevance`.
        relevant: whether anything in the collection is relevant, 0.5 or more, whatever k is; None: the
            collection is not calibrated. Among 1,000 pictures one neutral query in ten finds something.
    """

    hits: tuple[Hit, ...]
    query: str
    score_kind: str = "cosine"
    model: str = ""
    stages: tuple[StageReport, ...] = ()
    nearest: tuple[Hit, ...] = ()
    relevant: bool | None = None

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> "SearchResults": ...
    def __getitem__(self, index: int | slice) -> "Hit | SearchResults":
        return replace(self, hits=self.hits[index]) if isinstance(index, slice) else self.hits[index]

    def __repr__(self) -> str:
        hits = self.hits or self.nearest
        shown = [f"  {hit.score:.3f}{percent(hit)}  {printable(hit.path)}{judged(hit)}" for hit in hits[:10]]
        more = [f"  … and {len(hits) - 10} more"] if len(hits) > 10 else []
        return "\n".join([printable(f"{self.query}: {_summary(self)}"), *shown, *more])

    def _repr_html_(self) -> str:
        hits = self.hits or self.nearest
        shown = hits[:NOTEBOOK_HITS]
        more = f"; here are the first {len(shown)}" if len(shown) < len(hits) else ""
        cards = [card(hit, side=NOTEBOOK_SIDE, reveal=False) for hit in shown]
        return grid(cards, caption=f"{self.query}: {_summary(self)}{more}")

    def show(self) -> None:
        """Draw the pictures in a notebook, the first 40 of them.

        Raises:
            ClipsearchError: this is no notebook.
        """
        ipython = sys.modules.get("IPython")  # there whenever one of its shells is running
        if ipython is None or ipython.get_ipython() is None:
            raise ClipsearchError("show() draws in a notebook and this is none; use to_html('results.html')")
        ipython.display.display(self)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one JSON-able dict a hit: its attributes but `read`."""
        return [
            {
                "id": hit.id,
                "path": hit.path,
                "key": hit.key,
                "source": hit.source,
                "score": hit.score,
                "cosine": hit.cosine,
                "relevance": hit.relevance,
                "box": [round(side, 4) for side in hit.box],
                "metadata": dict(hit.metadata),
                "judgements": [judgement._asdict() for judgement in hit.judgements],
            }
            for hit in self.hits
        ]

    def to_pandas(self) -> "DataFrame":
        """Return a table with one row a hit; a metadatum `width` is the column `metadata.width`.

        Raises:
            MissingExtraError: pandas is not installed; the message has the pip command.
        """
        require("pandas", extra="pandas")
        import pandas

        columns = ["id", "path", "key", "source", "score", "cosine", "relevance"]
        rows = [
            {name: row[name] for name in columns} | {f"metadata.{k}": v for k, v in row["metadata"].items()}
            for row in self.to_dicts()
        ]
        if not rows:
            return pandas.DataFrame(columns=columns)
        try:
            return pandas.DataFrame(rows)
        except UnicodeEncodeError:  # Arrow's strings cannot hold a file name that is not UTF-8
            numbers = {"id": "int64", "score": "float64", "cosine": "float64", "relevance": "float64"}
            return pandas.DataFrame(rows, dtype=object).astype(numbers)

    def to_html(
        self, path: str | os.PathLike[str], *, title: str | None = None, reveal: bool = False
    ) -> Path:
        """Write one HTML file that holds everything it shows, fit to be sent to somebody.

        Args:
            path: the file to write; an existing one is replaced.
            title: its heading; None takes the query.
            reveal: show absolute paths and all metadata, so also where a picture was taken. By
                default the page tells a picture's name, folder within its source, size, date and
                camera, and nothing else.

        Returns:
            Where it was written, absolute.

        Raises:
            CollectionError: it cannot be written.
        """
        return write_page(path, [self], title=title or self.query, reveal=reveal)


def write_page(
    path: str | os.PathLike[str],
    results: Sequence[SearchResults],
    *,
    title: str,
    note: str = "",
    reveal: bool = False,
) -> Path:
    """Write the answers to several queries as one HTML file; see SearchResults.to_html.

    A picture that can no longer be read is shown as a placeholder with the reason.
    """
    sections = [
        _section(answer, heading="" if answer.query == title else answer.query, reveal=reveal)
        for answer in results
    ]
    document = page(title, sections, note=note, footer="Made with clipsearch").encode()
    whole = Path(path).expanduser().absolute()
    write_durably(whole, lambda file: file.write(document))
    return whole


def _section(results: SearchResults, *, heading: str, reveal: bool) -> Section:
    cards = [card(hit, side=PAGE_SIDE, reveal=reveal) for hit in results.hits or results.nearest]
    return Section(heading, _summary(results), cards)


def _summary(results: SearchResults) -> str:
    if not (results.hits or results.nearest):
        return "Nothing found"
    count = "1 picture" if len(results) == 1 else f"{len(results):,} pictures, best first"
    if results.relevant is False or results.nearest:
        count = "Nothing relevant found; the nearest"
    model = relative(results.model.removeprefix("local-dir:")).as_posix()
    parts = [count, results.score_kind, model if results.model else "", *map(str, results.stages)]
    return " · ".join(filter(None, parts))


def percent(hit: Hit) -> str:
    """The relevance of a hit, for a line of text; nothing where it has none."""
    return "" if hit.relevance is None else f"  {hit.relevance:4.0%}"


def judged(hit: Hit) -> str:
    """What each stage made of a hit, for a line of text; of a hit of one stage nothing."""
    if not hit.judgements and hit.cosine in (None, hit.score):
        return ""
    cosine = [] if hit.cosine is None else [f"cosine {hit.cosine:.3f}"]
    parts = cosine + ([_said(judgement) for judgement in hit.judgements] or ["not judged"])
    return f"  ({printable('; '.join(parts))})"


def _said(judgement: Judgement) -> str:
    score = judgement.reason if judgement.score is None else f"{judgement.score:+.2f}"
    return f"{judgement.by.partition(':')[0]} {score}, was {judgement.before}"


def card(hit: Hit, *, side: int, reveal: bool) -> Card:
    """What a page shows of a hit; `reveal` as in SearchResults.to_html."""
    image, reason = thumbnail_or_reason(hit.read, side, None if hit.box == WHOLE else hit.box)
    badge = f"{hit.score:.3f}{percent(hit)}"
    name = relative(hit.key).name
    notes = [text] if (text := judged(hit).strip(" ()")) else []
    if not reveal:
        return Card(name, [*_harmless(hit), *notes], image, reason, badge)
    link = Path(hit.path).as_uri() if os.path.isabs(hit.path) and os.path.isfile(hit.path) else None
    return Card(name, [*_everything(hit), *notes], image, reason, badge, link)


def thumbnail_or_reason(
    read: "Callable[[], bytes | Image]", side: int, outline: Box | None = None
) -> tuple[bytes | None, str]:
    """Return a picture as it is now as a JPEG that fits into `side` pixels, or why there is none.

    No reason names a folder. `outline` is drawn around a part of it.
    """
    try:
        return thumbnail(_opened(read, side), side, outline), ""
    except ImageError as error:
        return None, str(error)
    except SourceError:  # its message names the folder
        return None, "the place it came from cannot be read"


def _harmless(hit: Hit) -> list[str]:
    """Return what the default page tells of a picture: its folder, size, date and camera."""
    facts = hit.metadata
    folder = relative(hit.key).parent
    size = f"{facts['width']} × {facts['height']}" if facts.get("width") and facts.get("height") else ""
    taken = str(facts.get("taken") or "").replace("T", " ")[:16]  # to the minute
    lines = [
        folder.as_posix() if folder.name else "",
        " · ".join(filter(None, [size, taken])),
        str(facts.get("camera") or ""),
    ]
    return [line for line in lines if line]


def caption_of(hit: Hit) -> str:
    """The caption of a hit, in a line; of several that a source brought, all; empty: none."""
    known = hit.metadata.get("caption")
    texts = known if isinstance(known, list) else [known]
    return " ".join(" ".join(text.split()) for text in texts if isinstance(text, str))


def _everything(hit: Hit) -> list[str]:
    return [hit.path, *(f"{name}: {value}" for name, value in hit.metadata.items() if value is not None)]
