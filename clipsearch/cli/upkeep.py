"""What keeps a collection well: info, verify, compact, remove, relocate."""

from pathlib import Path
from typing import Any

import click

from ..errors import CollectionError
from ..render import printable
from ..spec import size
from .output import (
    counted,
    describe,
    emit,
    examples,
    existing,
    folder_argument,
    json_option,
    shown,
    where_option,
)


@click.command(
    epilog=examples("clipsearch info photos.clipsearch", "clipsearch info photos.clipsearch --failed")
)
@folder_argument
@click.option("--failed", is_flag=True, help="List the pictures that could not be read, with the reasons.")
@json_option
def info(folder: Path, failed: bool, as_json: bool) -> None:
    """Say what is in a collection."""
    with existing(folder, read_only=True) as photos:
        if not failed:
            return emit(photos.info()) if as_json else _tell(photos.info())
        failures = photos.failures()
    if as_json:
        return emit([failure._asdict() for failure in failures])
    for failure in failures:
        click.echo(f"{shown(failure.path)}: {printable(failure.reason)}")
    if not failures:
        click.echo("no picture failed")


def _tell(about: dict[str, Any]) -> None:
    click.echo(click.style(shown(about["path"]), bold=True))
    _line("pictures", f"{about['pictures']:,}" + _different(about))
    if about["failed"]:
        _line("failed", f"{about['failed']:,}; --failed lists them")
    if about["missing"]:
        _line("missing", f"{about['missing']:,} gone from their sources, hidden and kept")
    for source in about["sources"]:
        _line(source["kind"], shown(source["root"]) or "pictures named or handed over one by one")
    if about["tiles"]:
        _line("tiles", about["tiles"])
    for space in about["models"]:
        _line("model", _model(space, several=len(about["models"]) > 1))
        _line("index", f"{printable(space['index']['layout'])}: {describe(space['index'])}")
    for captioner in about["captioners"]:
        _line("captions", _captions(captioner))
    _line("made", f"{about['created'][:10]} by clipsearch {about['clipsearch']}, format {about['format']}")


def _line(name: str, text: str) -> None:
    click.echo(f"  {name:<9} {text}")


def _different(about: dict[str, Any]) -> str:
    """How many pictures have contents of their own, where some are copies of others."""
    return f" ({about['contents']:,} different ones)" if about["contents"] != about["pictures"] else ""


def _captions(captioner: dict[str, Any]) -> str:
    failed = f", {captioner['failed']:,} failed" if captioner["failed"] else ""
    used = " (in use)" if captioner["in_use"] else ""
    asked = f", asked {printable(captioner['prompt'])!r}" if captioner["prompt"] else ""
    by = f"by {printable(captioner['model'])}{asked}"
    return f"{captioner['id']}: {counted(captioner['captions'], 'picture')}{failed}, {by}{used}"


def _model(space: dict[str, Any], *, several: bool) -> str:
    files = counted(space["segments"], "file")
    vectors = f"{counted(space['vectors'], 'vector')} of {space['dim']:,} numbers, {size(space['bytes'])}"
    used = " (in use)" if several and space["in_use"] else ""
    tiled = f"; {counted(space['tiled'], 'picture')} with tiles" if space["tiled"] else ""
    return f"{printable(space['model'])}{used}: {vectors} in {files}{tiled}"


@click.command(epilog=examples("clipsearch verify photos.clipsearch"))
@folder_argument
@json_option
@click.pass_context
def verify(ctx: click.Context, folder: Path, as_json: bool) -> None:
    """Read every byte and compare it with what was written.

    Exits with 1 when something is wrong.
    """
    with existing(folder, read_only=True) as photos:
        found = photos.verify()
    if as_json:
        emit({"ok": found.ok, **vars(found)})
    else:
        for line in found.problems:
            click.echo(click.style(f"wrong: {printable(line)}", fg="red"))
        for line in found.notes:
            click.echo(f"note: {printable(line)}")
        verdict = "all is as written" if found.ok else counted(len(found.problems), "problem")
        click.echo(f"{verdict}: {counted(found.files, 'file')}, {counted(found.vectors, 'vector')}")
    ctx.exit(0 if found.ok else 1)


@click.command(epilog=examples("clipsearch compact photos.clipsearch"))
@folder_argument
@json_option
def compact(folder: Path, as_json: bool) -> None:
    """Rewrite the vectors in few large files.

    Those that no picture needs any more are left out. Searches that run meanwhile are not disturbed.
    """
    with existing(folder) as photos:
        done = photos.compact()
    if as_json:
        return emit(done._asdict())
    click.echo(
        f"{counted(done.segments_before, 'file')} of vectors became {done.segments_after:,}; "
        f"{counted(done.vectors_dropped, 'vector')} dropped, {size(max(0, done.bytes_freed))} freed"
    )


@click.command(
    epilog=examples(
        "clipsearch remove photos.clipsearch ~/Photos/drafts",
        "clipsearch remove photos.clipsearch --missing",
        'clipsearch remove photos.clipsearch --where "width < 200 and height < 200"',
    )
)
@folder_argument
@click.argument("what", nargs=-1, metavar="[PATH|ID]...")
@where_option
@click.option("--missing", is_flag=True, help="All pictures that are gone from their sources.")
@click.option("--model", metavar="M", help="The vectors of a model that is not in use, instead of pictures.")
@click.option(
    "--captions", metavar="M", help="The captions that a model wrote last, or their number in info."
)
@json_option
def remove(
    folder: Path,
    what: tuple[str, ...],
    where: str | None,
    missing: bool,
    model: str | None,
    captions: str | None,
    as_json: bool,
) -> None:
    """Forget pictures: by path, id, folder or condition.

    A folder means all below it, a source (a pattern, a table) all that came with it; with --where too, those
    that pass. The files themselves are not touched. One that is still in its source comes back when that is
    looked through again; a source of which nothing is left is forgotten.
    """
    chosen = [bool(what) or where is not None, missing, model is not None, captions is not None]
    if sum(chosen) != 1:
        raise click.UsageError("give PATHs or IDs, or --where, or one of --missing, --model and --captions.")
    with existing(folder) as photos:
        if model is not None:
            photos.drop_model(model)
            return _say({"removed": model}, f"removed the vectors of {printable(model)}", as_json)
        if captions is not None:
            count = photos.remove_captions(int(captions) if captions.isdecimal() else captions)
            return _say({"removed": count}, f"removed {counted(count, 'caption')}", as_json)
        count = photos.remove_missing() if missing else photos.remove(*map(_named, what), where=where)
    if not (count or missing):
        none = f"none of {list(what)} is in {folder}" if what else "nothing"
        passes = "" if where is None else f"{' or' if what else ''} passes --where {where}"
        raise CollectionError(f"{none}{passes}; nothing was removed")
    _say({"removed": count}, f"removed {counted(count, 'picture')}", as_json)


def _named(what: str) -> int | str:
    """An id, or a path; a file whose name is a number is written ./17."""
    return int(what) if what.isascii() and what.isdigit() else what


@click.command(epilog=examples("clipsearch relocate photos.clipsearch ~/Photos /mnt/disk/Photos"))
@folder_argument
@click.argument("old")
@click.argument("new")
@json_option
def relocate(folder: Path, old: str, new: str, as_json: bool) -> None:
    """Tell a collection that the source OLD is now at NEW.

    Nothing is encoded again. `clipsearch info` names the sources.
    """
    from ..sources import absolute

    with existing(folder) as photos:
        photos.relocate(old, new)
    old, new = absolute(old), absolute(new)
    _say({"old": old, "new": new}, f"{shown(old)} is now {shown(new)}", as_json)


def _say(document: dict[str, Any], line: str, as_json: bool) -> None:
    emit(document) if as_json else click.echo(line)
