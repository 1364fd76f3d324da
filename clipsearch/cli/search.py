"""`clipsearch search`: ask once, or again and again at a prompt with the model kept warm."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ClipsearchError
from ..render import printable
from .output import (
    counted,
    emit,
    examples,
    existing,
    folder_argument,
    json_option,
    note,
    shown,
    where_option,
)
from .rerank import rerank_options, stages_of

if TYPE_CHECKING:
    from ..collection import Collection
    from ..results import SearchResults

CAPTION = 100  # characters shown of one


@click.command(
    epilog=examples(
        'clipsearch search photos.clipsearch "a dog running on grass" -k 20',
        "clipsearch search photos.clipsearch --image beach.jpg --html beach.html",
        'clipsearch search photos.clipsearch --query "dog & ~leash" --min-relevance 0.5',
        """clipsearch search photos.clipsearch "a dog" --where "width >= 4000 and taken >= '2024-06'\"""",
    )
)
@folder_argument
@click.argument("query", required=False)
@click.option(
    "-k", default=10, show_default=True, metavar="N", type=click.IntRange(min=1), help="How many pictures."
)
@click.option(
    "--image",
    metavar="P",
    type=click.Path(path_type=Path),
    help="Find pictures like this file.",
)
@click.option("--item", metavar="ID", type=int, help="Find pictures like this one of DIR.")
@click.option(
    "--query",
    "expression",
    metavar="Q",
    help='Find pictures by a query with operators: "dog & ~leash", "2*beach - people", "item:7 + snow".',
)
@click.option(
    "--min-relevance",
    metavar="R",
    type=click.FloatRange(0, 1),
    help="Leave out less relevant pictures; 0.5 is a good one.",
)
@click.option(
    "--diverse", metavar="W", default=0.0, type=click.FloatRange(0, 1), help="Hits unlike each other: 0 to 1."
)
@click.option(
    "--liked", metavar="ID", type=int, multiple=True, help="A picture that is right; again for more."
)
@click.option("--disliked", metavar="ID", type=int, multiple=True, help="A picture that is wrong.")
@where_option
@rerank_options
@click.option("--html", metavar="F", type=click.Path(path_type=Path), help="Write a page with thumbnails.")
@click.option("--reveal", is_flag=True, help="Show absolute paths and GPS on that page.")
@click.option("--model", metavar="M", help="Search the vectors of this model, where DIR has several.")
@json_option
def search(
    folder: Path,
    query: str | None,
    k: int,
    image: Path | None,
    item: int | None,
    expression: str | None,
    min_relevance: float | None,
    diverse: float,
    liked: tuple[int, ...],
    disliked: tuple[int, ...],
    where: str | None,
    rerank: tuple[str, ...],
    depth: int | None,
    budget: float | None,
    weight: float | None,
    html: Path | None,
    reveal: bool,
    model: str | None,
    as_json: bool,
) -> None:
    """Find pictures by words, or by another picture.

    Prints them best first; into a file or a pipe, each as its score, a tab and its path. Characters that
    could steer a terminal are escaped there too, so programs that open the files should read --json,
    where every path is exact. Without QUERY, --query, --image, --item and --liked it asks for queries, one
    after the other, until an empty line.

    A percentage beside the score is the relevance: how well a picture fits beside how well neutral captions
    do. Where none reaches 50 %, it says so. QUERY is always plain words; only --query has operators:
    & and | and ~ for both, either and not, + and - and numbers for more and less.

    --rerank has the best hits for words judged again: yes-no:M asks a vision-language model M (a hub id, a
    directory, or NAME@URL of a server's model), pairs:M is a trained reranker, match:M a BLIP with a matching
    head, sheet:M shows a strong model all of them at once, captions:M compares what `clipsearch caption`
    wrote, by a model of texts, and hybrid:M finds pictures by it too.
    """
    from ..query import Query

    asked = [given for given in (query, expression, image, item) if given is not None]
    _check_usage(len(asked), bool(liked), bool(disliked), as_json, html, reveal)
    stages = stages_of(rerank, depth, budget, weight)
    wanted = query if expression is None else Query.parse(expression)
    ways: dict[str, Any] = {
        "k": k,
        "where": where,
        "stages": stages,
        "min_relevance": min_relevance,
        "diverse": diverse,
    }
    with existing(folder, read_only=True, model=model) as photos:
        if not asked and not liked:
            return _converse(photos, where, ways)
        results = photos.search(wanted, image=image, item=item, liked=liked, disliked=disliked, **ways)
        if as_json:
            tell_relevance(results, bool(results))
            emit(results.to_dicts())
            tell_stages(results)
        elif not html or sys.stdout.isatty():
            show(results)
        if html:
            click.echo(shown(results.to_html(html, reveal=reveal)))
        if results or results.nearest:
            return
        if where is not None and len(photos):
            note(f"nothing found: nothing passes --where {printable(where)}")
        else:
            note(f"nothing found: {shown(folder)} has no pictures yet; clipsearch index SOURCE --to {folder}")


def tell_relevance(results: "SearchResults", listed: bool) -> None:
    """Say on standard error when nothing is relevant; `listed`: what is nearest follows."""
    if results.relevant is False or results.nearest:
        note("nothing relevant found" + ("; the nearest are" if listed else ""))


def tell_stages(results: "SearchResults") -> None:
    """Tell what each stage after the first did, on standard error."""
    for stage in results.stages:
        note(printable(str(stage)))


def show(results: "SearchResults") -> None:
    """Print hits for a person, or for a program when no terminal is watching."""
    from ..results import caption_of, judged, percent

    hits = results.hits or (results.nearest if sys.stdout.isatty() else ())
    tell_relevance(results, bool(hits))
    if not sys.stdout.isatty():
        for hit in hits:
            click.echo(f"{hit.score:.4f}\t{printable(hit.path)}")
        return tell_stages(results)
    width = max((len(f"{hit.id}") for hit in hits), default=0)
    for rank, hit in enumerate(hits, 1):
        id = click.style(f"#{hit.id:<{width}}", dim=True)
        place = f"{rank:>{len(str(len(hits)))}}"
        click.echo(f"{place}  {hit.score:.3f}{percent(hit)}  {id}  {shown(hit.path)}{judged(hit)}")
        if caption := caption_of(hit):
            click.echo(click.style(f"{' ' * len(place)}  {printable(caption)[:CAPTION]}", dim=True))
    tell_stages(results)


def _check_usage(
    asked: int, liked: bool, disliked: bool, as_json: bool, html: Path | None, reveal: bool
) -> None:
    if asked > 1:
        raise click.UsageError(
            "give one of QUERY, --query, --image and --item; --query 'item:7 + snow' joins several."
        )
    if disliked and not asked and not liked:
        raise click.UsageError("--disliked goes with a QUERY, --query, --image, --item or --liked.")
    if not asked and not liked and (as_json or html):
        raise click.UsageError("--json and --html go with a QUERY, --query, --image, --item or --liked.")
    if as_json and html:
        raise click.UsageError("give one of --json and --html.")
    if reveal and not html:
        raise click.UsageError("--reveal goes with --html.")


def _converse(photos: "Collection", where: str | None, ways: dict[str, Any]) -> None:
    """Answer queries until an empty line or the end of the input."""
    count = counted(len(photos), "picture")
    if where is not None:  # what is wrong with it is told before a model is loaded
        count = f"{len(photos.paths(where=where)):,} of {count}"
    note(f"loading {printable(photos.model)} …")
    photos.encoder.encode_texts(["a photo"])  # the first call is a slow one
    note(f"{count}; an empty line leaves")
    while query := _ask():
        try:
            show(photos.search(query, **ways))
        except ClipsearchError as error:
            click.echo(f"clipsearch: {printable(str(error))}", err=True)
        click.echo()


def _ask() -> str:
    with suppress(ImportError):  # Windows' own prompt can do the same
        import readline  # noqa: F401  gives input() arrow keys and a history
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        click.echo()
        return ""
