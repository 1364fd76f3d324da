"""`clipsearch duplicates`: pictures that are there more than once."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..render import printable
from .output import counted, emit, examples, existing, folder_argument, json_option, note, shown, where_option

if TYPE_CHECKING:
    from ..duplicates import DuplicateGroup, Duplicates


@click.command(
    epilog=examples(
        "clipsearch duplicates photos.clipsearch",
        "clipsearch duplicates photos.clipsearch --html duplicates.html",
        "clipsearch duplicates photos.clipsearch --threshold 0.99 --csv duplicates.csv",
    )
)
@folder_argument
@click.option("--threshold", metavar="S", type=float, help="The least cosine. Default: what suits the model.")
@where_option
@click.option("--csv", metavar="F", type=click.Path(path_type=Path), help="Write one row a picture.")
@click.option("--html", metavar="F", type=click.Path(path_type=Path), help="Write a page with thumbnails.")
@click.option("--reveal", is_flag=True, help="Show absolute paths and GPS on that page.")
@click.option("--model", metavar="M", help="Compare the vectors of this model, where DIR has several.")
@json_option
def duplicates(
    folder: Path,
    threshold: float | None,
    where: str | None,
    csv: Path | None,
    html: Path | None,
    reveal: bool,
    model: str | None,
    as_json: bool,
) -> None:
    """Group pictures that are there more than once.

    A group has the same bytes, or nearly the same picture. The first is the one to keep, and why is told.
    Nothing is deleted.

    Into a file or a pipe each picture is a line: the group's number, `keep` or `copy`, its cosine to the one
    to keep, and its path, with tabs between. Characters that could steer a terminal are escaped there too, so
    programs that open the files should read --json or --csv.
    """
    if as_json and (csv or html):
        raise click.UsageError("give one of --json, --csv and --html.")
    if reveal and not html:
        raise click.UsageError("--reveal goes with --html.")
    with existing(folder, read_only=True, model=model) as photos:
        found = photos.duplicates(threshold=threshold, where=where)
        if as_json:
            return emit(found.to_dicts())
        if csv:
            click.echo(shown(found.to_csv(csv)))
        if html:
            click.echo(shown(found.to_html(html, reveal=reveal)))
        if not csv and not html:
            _show(found)
        note(printable(str(found)))


def _show(found: "Duplicates") -> None:
    for number, group in enumerate(found, 1):
        if sys.stdout.isatty():
            _show_group(group)
            continue
        for hit in group:
            word = "keep" if hit is group.keep else "copy"
            click.echo(f"{number}\t{word}\t{hit.score:.4f}\t{printable(hit.path)}")


def _show_group(group: "DuplicateGroup") -> None:
    from ..duplicates import facts

    width = max(len(f"{hit.id}") for hit in group)
    reason = click.style(f"({group.reason})", dim=True)
    for hit, same in zip(group, group.same_bytes, strict=True):
        keep = hit is group.keep
        word = click.style("keep ", bold=True) if keep else f"{hit.score:.3f}"
        id = click.style(f"#{hit.id:<{width}}", dim=True)
        said = facts(hit, same and not keep) + f"  {reason}" * keep
        click.echo(f"{word}  {id}  {shown(hit.path)}{said}")
    click.echo(click.style(f"      {counted(len(group), 'picture')}", dim=True))
