"""`clipsearch demo`: real photos, the built-in model and a page of results, without a network."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from ..errors import require
from .output import emit, examples, json_option, note, shown

if TYPE_CHECKING:
    from ..report import Report
    from ..results import SearchResults

PHOTOS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png",
    "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png",
    "motorcycle_right.png", "page.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
"""What scikit-image ships inside its wheel; its other photos would need a download."""

QUERIES = {
    "a smiling woman in an orange suit": "astronaut.png",
    "the face of a cat": "chelsea.png",
    "a clock": "clock_motion.png",
    "craters on the moon": "moon.png",
    "a field of grass": "grass.png",
    "old coins": "coins.png",
    "a page of text from a book": "page.png",
    "a motorcycle": "motorcycle_right.png",
}
"""What the built-in model can answer, and the photo that comes first."""

SHOWN = 3  # hits a query

SMALL = "The built-in model is a toy of 12 M parameters; for real work take siglip2-b16 (clipsearch models)."

NEXT = "For your own: clipsearch index ~/Photos --to photos.clipsearch --model siglip2-b16"


@click.command(epilog=examples("clipsearch demo --out demo.html"))
@click.option(
    "--out",
    metavar="F",
    type=click.Path(path_type=Path),
    default="clipsearch-demo.html",
    show_default=True,
    help="The page to write.",
)
@click.option(
    "--dir", "folder", metavar="DIR", type=click.Path(path_type=Path), help="Keep the collection here."
)
@json_option
def demo(out: Path, folder: Path | None, as_json: bool) -> None:
    """Search sample photos with the built-in model.

    Indexes photos that come with scikit-image, answers a few queries and writes a page with
    thumbnails. Needs no network.
    """
    from ..results import write_page

    photos = sample_photos()
    note(f"indexing {len(photos)} photos of scikit-image with the built-in model …")
    with _place(folder) as place:
        report, answers = answer(place, photos)
        page = write_page(out, answers, title="clipsearch demo", note=SMALL)
    if as_json:
        return emit(_document(report, answers, page))
    click.echo(report)
    for found in answers:
        click.echo("\n" + click.style(found.query, bold=True))
        for hit in found:
            click.echo(f"  {hit.score:.3f}  {Path(hit.path).name}")
    click.echo(f"\nWith thumbnails: {shown(page)}\n\n{SMALL}\n{NEXT}")


def sample_photos() -> list[Path]:
    """Where the photos are; scikit-image itself may want to download.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    require("skimage", extra="demo")
    folder = Path(str(files("skimage"))) / "data"
    return [folder / name for name in PHOTOS]


def answer(
    folder: Path, photos: list[Path], *, precision: str = "auto"
) -> "tuple[Report, list[SearchResults]]":
    """Index the photos into a collection at `folder` and answer the queries."""
    from ..collection import Collection

    with Collection(folder, model="builtin", precision=precision) as collection:
        report = collection.add(photos, progress=False)
        return report, collection.search_many(list(QUERIES), k=SHOWN)


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    """The folder to keep the collection in, or one that goes away."""
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory(prefix="clipsearch-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary) / "demo.clipsearch"


def _document(report: "Report", answers: "list[SearchResults]", page: Path) -> dict[str, Any]:
    found = [{"query": answer.query, "hits": answer.to_dicts()} for answer in answers]
    return {"report": report.to_dict(), "answers": found, "page": os.fspath(page)}
