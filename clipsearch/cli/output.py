"""What the commands share: their common options, and how numbers, names and JSON are written."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CollectionError
from ..render import printable
from ..spec import size

if TYPE_CHECKING:
    from ..collection import Collection
    from ..report import Failure

FAILURES = 20  # shown after a run
SOME_FAILED = 3  # exit code: done, but some pictures cannot be read, now or when last tried

KINDS = {"text": "words", "image": "pictures"}  # what people ask with

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
where_option = click.option(
    "--where", metavar="EXPR", help="Only pictures that are so: \"taken >= '2024' and camera = 'X100V'\"."
)
folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


def examples(*commands: str) -> str:
    """The end of a command's help, which click must not wrap."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


def note(text: str) -> None:
    """Tell a person what goes on, on standard error, where it disturbs no result."""
    click.echo(click.style(text, dim=True), err=True)


def emit(document: Any) -> None:
    """Print one JSON document, in ASCII: a name that is not UTF-8 keeps its bytes as lone surrogates."""
    click.echo(json.dumps(document, indent=2))


def shown(path: str | os.PathLike[str]) -> str:
    """A path as short as can be typed here (within the working folder, else from ~), safe to show."""
    whole = os.fspath(path)
    for folder, short in ((os.getcwd(), ""), (os.path.expanduser("~"), "~" + os.sep)):
        if whole.startswith(folder + os.sep):
            return printable(short + whole[len(folder) + 1 :])
    return printable(whole)


def tell_failures(failed: "Sequence[Failure]", more: str) -> None:
    """Print the first pictures that failed, with the reasons; `more` says where the others are listed."""
    for failure in failed[:FAILURES]:
        click.echo(f"  {shown(failure.path)}: {printable(failure.reason)}")
    if len(failed) > FAILURES:
        click.echo(f"  and {len(failed) - FAILURES:,} more; {more} lists them")


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 picture", "1,200 pictures"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def describe(index: Mapping[str, Any]) -> str:
    """What an index finds, for a person."""
    if "tuned" not in index:
        return str(index["why"])
    found = [
        f"{tuned['recall']:.1%} for {KINDS[kind]} (at least {tuned['at_least']:.1%})"
        for kind, tuned in sorted(index["tuned"].items(), reverse=True)
        if tuned["queries"]
    ]
    waiting = f"; {index['waiting']:.1%} of the vectors are not in it yet" if index["waiting"] else ""
    held = f"{counted(index['rows'], 'vector')} in {size(index['bytes'])}"
    return f"{held}; of the ten best it finds {' and '.join(found)}{waiting}"


def existing(
    folder: Path,
    *,
    read_only: bool = False,
    model: str | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> "Collection":
    """Open the collection that is at `folder`; unlike an index command, never make one.

    Raises:
        CollectionError: there is none.
    """
    from ..collection import Collection
    from ..store import is_collection

    if not is_collection(folder.expanduser()):
        raise CollectionError(
            f"no collection at {folder} (its folder comes first); make one with `clipsearch index`"
        )
    return Collection(folder, model=model, device=device, precision=precision, read_only=read_only)
