"""`clipsearch index`: make a collection, bring it up to date, or move it to another model."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ClipsearchError, SourceError
from ..render import printable
from .output import SOME_FAILED, describe, emit, examples, json_option, note, shown, tell_failures

if TYPE_CHECKING:
    from ..collection import Collection
    from ..report import Report
    from ..types import Source


@click.command(
    epilog=examples(
        "clipsearch index ~/Photos --to photos.clipsearch",
        "clipsearch index --to photos.clipsearch --tiles 3x3",
        "clipsearch index --to photos.clipsearch --upgrade --model siglip2-l16",
    )
)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option(
    "--to",
    "folder",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The collection's folder, made if it is not there.",
)
@click.option("--model", metavar="M", help="See `clipsearch models`; a new DIR gets siglip2-b16.")
@click.option("--device", default="auto", show_default=True, metavar="D", help="cpu, cuda, cuda:1, mps.")
@click.option("--precision", default="auto", show_default=True, metavar="P", help="fp32, bf16, fp16.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out files or folders by name, such as `*.gif`; may be given again.",
)
@click.option(
    "--tiles",
    metavar="GRIDS",
    help="Encode tiles of each picture too, so that small things are found: 3x3, or 2x2+3x3.",
)
@click.option("--retry-failed", is_flag=True, help="Try those that failed again, though they did not change.")
@click.option(
    "--index",
    "layout",
    metavar="L",
    help="How vectors are searched: auto, exact, another of `clipsearch indexes`, or a FAISS factory string.",
)
@click.option(
    "--target-recall",
    metavar="R",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the ten best that an index must find.",
)
@click.option("--memory", metavar="B", help="What an index that auto chooses may take of it, such as 4GB.")
@click.option("--upgrade", is_flag=True, help="Encode all pictures with --model too, then search with it.")
@json_option
@click.pass_context
def index(
    ctx: click.Context,
    sources: tuple[str, ...],
    folder: Path,
    model: str | None,
    device: str,
    precision: str,
    exclude: tuple[str, ...],
    tiles: str | None,
    retry_failed: bool,
    layout: str | None,
    target_recall: float | None,
    memory: str | None,
    upgrade: bool,
    as_json: bool,
) -> None:
    """Make a collection of pictures, or bring it up to date.

    SOURCE is a folder or the URL of one (s3://, gs://, hf://), a picture, a pattern such as
    `~/Photos/**/*.jpg`, a zip, tar or Parquet file, shards such as `shards/{00000..00099}.tar`, a .csv,
    .jsonl, .parquet or COCO .json file that names pictures, or a text file with a path on each line. Without
    one, the sources that DIR knows are looked through again. Only new and changed pictures are encoded, and
    a run that was stopped goes on where it was. --tiles is kept for later runs.

    Past 1 GB of vectors an index is built at the end and tuned, and anew when much has changed. --index
    and --target-recall have that done now, and are kept for later runs.

    Exits with 3 when all is done but some pictures cannot be read, now or when last tried.
    """
    from ..collection import Collection
    from ..index import check_layout
    from ..tiles import read_tiles

    _check_usage(sources, folder, model, exclude, retry_failed or tiles is not None, upgrade)
    opened = _opened(sources, exclude)  # before there is a new folder for nothing
    tiles = None if tiles is None else read_tiles(tiles)
    reports = []
    wanted = None if upgrade else model
    with Collection(folder, model=wanted, device=device, precision=precision, memory=memory) as photos:
        if layout is not None:
            check_layout(layout, photos.encoder.dim)  # what is wrong is told before anything is encoded
        if upgrade and model:
            steps = _upgrade(photos, model, device, precision)
        else:
            steps = _add(photos, opened, tiles, retry_failed)
        for report in steps:
            reports.append(report)
            if not as_json:
                _tell(report, folder)
        if layout is not None or target_recall:
            built = photos.build_index(layout, target_recall=target_recall)
            note(f"index {printable(built.layout)}: {describe(photos.index())}")
        if as_json:
            emit([report.to_dict() for report in reports])
        _calibrate(photos)
    if any(report.failed for report in reports):
        ctx.exit(SOME_FAILED)


def _calibrate(photos: "Collection") -> None:
    """Have searches tell when nothing is relevant, where that can be kept for them."""
    from ..query_cache import switched_off

    kept = any(model["in_use"] and model["fingerprint"] for model in photos.info()["models"])
    if not kept or not len(photos) or switched_off():
        return
    try:
        photos.calibrate()
    except ClipsearchError as error:
        note(f"searches will have no relevance: {printable(str(error))}")


def _check_usage(
    sources: tuple[str, ...],
    folder: Path,
    model: str | None,
    exclude: tuple[str, ...],
    adding: bool,
    upgrade: bool,
) -> None:
    from ..store import is_collection

    if upgrade and (sources or exclude or adding or not model):
        raise click.UsageError(
            "--upgrade takes the sources and tiles that DIR has: give it --model and no SOURCE or --tiles."
        )
    if exclude and not sources:
        raise click.UsageError("--exclude goes with a SOURCE; those that DIR knows keep their own.")
    if not sources and not is_collection(folder.expanduser()):
        raise click.UsageError(f"there is no collection at {folder} yet: name a SOURCE to make it from.")


def _opened(specs: tuple[str, ...], exclude: tuple[str, ...]) -> "list[Source]":
    """The sources; all pictures named one by one, as by a shell's `*.jpg`, are one of them."""
    from ..sources import open_source
    from ..sources.names import is_picture

    pictures = [spec for spec in specs if is_picture(spec) and os.path.isfile(spec)]
    others = [open_source(spec, exclude=exclude) for spec in specs if spec not in set(pictures)]
    return [*others, open_source(pictures, exclude=exclude)] if pictures else others


def _add(
    photos: "Collection", sources: "list[Source]", tiles: str | None, retry_failed: bool
) -> "Iterator[Report]":
    if not sources and not photos.info()["sources"]:
        raise SourceError(f"{photos.path} knows no source yet; name one: clipsearch index SOURCE --to DIR")
    for source in sources:
        yield photos.add(source, tiles=tiles, retry_failed=retry_failed)
    if not sources:
        yield from photos.refresh(tiles=tiles, retry_failed=retry_failed)


def _upgrade(photos: "Collection", model: str, device: str, precision: str) -> "Iterator[Report]":
    from ..encoders import load_encoder

    old = photos.model
    encoder = load_encoder(model, device=device, precision=precision)
    yield from photos.add_model(encoder)
    photos.use_model(encoder.model_id)
    note(f"searches now use {printable(encoder.model_id)}")
    if old != encoder.model_id:
        note(f"the vectors of {printable(old)} stay until `clipsearch remove {photos.path} --model {old}`")


def _tell(report: "Report", folder: Path) -> None:
    """Print what became of a source, and the first of what failed."""
    click.echo(f"{shown(report.source) or 'pictures named one by one'}: {printable(str(report))}")
    tell_failures(report.failed, f"`clipsearch info {folder} --failed`")
