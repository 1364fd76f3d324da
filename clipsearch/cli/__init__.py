"""The command line: the one room that prints, exits and configures logging.

Exit codes: 0 done, 1 an error of ours, 2 wrong usage, 3 done but some pictures cannot
be read (now or when last tried), 130 Ctrl-C.
Commands import what they need when they run, so that help and cached searches come at once.
"""

import io
import logging
import os
import sys
from contextlib import suppress
from typing import IO, Any, NoReturn

import click

from .. import __version__
from ..errors import ClipsearchError
from ..render import printable
from .caption import caption
from .demo import demo
from .duplicates import duplicates
from .formats import export, import_vectors
from .index import index
from .indexes import indexes
from .label import label
from .models import models
from .output import examples
from .search import search
from .upkeep import compact, info, relocate, remove, verify

STOPPED = 130  # what shells expect of a program that Ctrl-C ended: 128 + SIGINT


class Expected(click.ClickException):
    """An error of ours, told in one line."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line to standard error."""
        click.echo(f"clipsearch: {printable(self.message)}", err=True)


class Commands(click.Group):
    """Commands in the order people need them, whose expected errors take one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; a broken pipe is quiet, other trouble with files or the output takes one line."""
        sys.stderr = sys.stderr or io.StringIO()  # None after `2>&-`: then nobody wants to read it
        try:
            if sys.stdout is None:  # after `>&-`
                raise OSError("standard output is closed; expected somewhere to write, such as /dev/null")
            return super().main(*args, **kwargs)
        except OSError as error:
            with suppress(OSError):
                click.echo(f"clipsearch: {printable(str(error))}", err=True)
            sys.exit(Expected.exit_code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what is not ours to expect keeps its traceback."""
        try:
            return super().invoke(ctx)
        except ClipsearchError as error:
            raise Expected(str(error)) from error
        except KeyboardInterrupt as stop:
            _say_stopped(ctx, stop)


class Terminal(logging.Handler):
    """Shows what the library logs, such as the size of a download, as plain lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        click.echo(printable(self.format(record)), err=True)


TERMINAL = Terminal(logging.INFO)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    epilog=examples(
        "clipsearch demo",
        "clipsearch index ~/Photos --to photos.clipsearch",
        'clipsearch search photos.clipsearch "a dog running on grass"',
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="clipsearch", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Search a pile of pictures with plain words."""
    _settle(ctx)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for command in (
    demo,
    index,
    search,
    label,
    duplicates,
    caption,
    info,
    verify,
    compact,
    remove,
    relocate,
    export,
    import_vectors,
    models,
    indexes,
):
    main.add_command(command)


def _settle(ctx: click.Context) -> None:
    """Let any name be written to any terminal, obey NO_COLOR, and show what the library logs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    logger = logging.getLogger("clipsearch")
    logger.setLevel(logging.INFO)
    logger.addHandler(TERMINAL)


def _say_stopped(ctx: click.Context, stop: KeyboardInterrupt) -> NoReturn:
    done: str | None = getattr(stop, "safe", None)  # by a job that was interrupted
    safe = f": {done} are safe; the same command goes on" if done else ""
    click.echo(f"\nclipsearch: stopped{safe}", err=True)
    ctx.exit(STOPPED)
