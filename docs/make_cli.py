"""Write docs/cli.md from the commands themselves: python docs/make_cli.py."""

from collections.abc import Iterator
from pathlib import Path

import click

from clipsearch.cli import main

HEAD = """\
<!-- Made by make_cli.py from the commands; change those. -->
# Command line

Every command that answers takes `--json`: one JSON document on standard output and nothing else there.
Progress, warnings and errors go to standard error. `clipsearch COMMAND --help` says what stands here.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an error, told in one line that begins with `clipsearch:`; or `verify` found something wrong |
| 2 | the command was not understood |
| 3 | done, but some pictures cannot be read (now or when last tried) |
| 4 | labels wait for a person to check them (`label --review`); nothing else was written |
| 130 | stopped with Ctrl-C; what was encoded is kept |

Anything else that ends with a traceback is a bug in clipsearch.

Into a file or a pipe, `search` writes a score, a tab and a path per line. Characters in names that would
steer a terminal are shown as `\\x1b` and the like, there too; `--json` has every name exactly, bytes that
are not UTF-8 as lone surrogates. Colours go away with `NO_COLOR=1`.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_command(name, command) for name, command in main.commands.items())])


def _command(name: str, command: click.Command) -> str:
    arguments = [_argument(param) for param in command.params if isinstance(param, click.Argument)]
    usage = " ".join(["clipsearch", name, *arguments, "[OPTIONS]"])
    blocks = [f"## clipsearch {name}", f"`{usage}`", *_paragraphs(command.help), _examples(command.epilog)]
    rows = [_option(param) for param in command.params if isinstance(param, click.Option)]
    return "\n\n".join([*blocks, "\n".join(["| option | meaning |", "|---|---|", *rows])]) + "\n"


def _argument(argument: click.Argument) -> str:
    name = argument.metavar or argument.human_readable_name
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _paragraphs(help: str | None) -> Iterator[str]:
    for paragraph in (help or "").split("\n\n"):
        yield " ".join(paragraph.split())


def _examples(epilog: str | None) -> str:
    lines = [line.strip() for line in (epilog or "").splitlines() if line.startswith("  ")]
    return "\n".join(["```", *lines, "```"])


def _option(option: click.Option) -> str:
    value = "" if option.is_flag else f" {option.metavar}"
    names = ", ".join(f"`{name}{value}`" for name in option.opts)
    default = f" Default: {option.default}." if option.show_default else ""
    required = " Needed." if option.required else ""
    return f"| {names} | {option.help}{required}{default} |"


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(reference(), encoding="utf-8")
