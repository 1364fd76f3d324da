"""`clipsearch export` and `clipsearch import`: vectors in the files of other programs."""

from pathlib import Path

import click

from ..render import printable
from .output import (
    SOME_FAILED,
    counted,
    emit,
    examples,
    existing,
    folder_argument,
    json_option,
    shown,
    tell_failures,
    where_option,
)


@click.command(
    epilog=examples(
        "clipsearch export photos.clipsearch --to photos.parquet --format parquet",
        "clipsearch export photos.clipsearch --to embeddings --format clip-retrieval",
    )
)
@folder_argument
@click.option(
    "--to",
    "target",
    required=True,
    metavar="F",
    type=click.Path(path_type=Path),
    help="A new folder, or a file, which is replaced.",
)
@click.option(
    "--format",
    "layout",
    required=True,
    metavar="X",
    type=click.Choice(["clip-retrieval", "faiss", "npy", "parquet"]),
    help="clip-retrieval, faiss, npy or parquet.",
)
@where_option
@json_option
def export(folder: Path, target: Path, layout: str, where: str | None, as_json: bool) -> None:
    """Write vectors, paths and metadata for other programs.

    clip-retrieval and npy are folders, parquet and faiss files. Every picture's vector is written as it is
    stored, with unit length.
    """
    with existing(folder, read_only=True) as photos:
        done = photos.export(target, format=layout, where=where)
    if as_json:
        return emit(done._asdict() | {"path": str(done.path)})
    click.echo(f"{shown(done.path)}: {counted(done.pictures, 'picture')} as {done.format}")


@click.command(
    "import",
    epilog=examples(
        "clipsearch import ~/.local/share/rclip/db.sqlite3 --to photos.clipsearch --format rclip",
        "clipsearch import embeddings --to photos.clipsearch --format clip-retrieval --model ViT-B-32/openai",
    ),
)
@click.argument("path", metavar="F", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "folder",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The collection's folder, made if it is not there.",
)
@click.option(
    "--format",
    "layout",
    required=True,
    metavar="X",
    type=click.Choice(["clip-retrieval", "npy", "parquet", "rclip"]),
    help="clip-retrieval, npy, parquet or rclip.",
)
@click.option("--model", metavar="M", help="Whose vectors they are, where F does not tell.")
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where relative paths begin; else they are not looked for.",
)
@json_option
@click.pass_context
def import_vectors(
    ctx: click.Context,
    path: Path,
    folder: Path,
    layout: str,
    model: str | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Take over vectors that were made before.

    F is what `clipsearch export` or another program wrote. Nothing is encoded. Pictures whose files are
    gone are found all the same, in the source "(gone)". Vectors that another program made stay apart from
    those that are made here.

    Exits with 3 when some rows have no usable vector.
    """
    from ..collection import Collection
    from ..formats import open_vectors
    from ..store import Store, is_collection

    folder = folder.expanduser().absolute()
    if not is_collection(folder):
        named = open_vectors(path.expanduser(), format=layout, model=model)  # before there is a new folder
        if named.model is None:
            raise click.UsageError(f"{path} does not say of which model its vectors are: give --model.")
        Store.create(folder).close()
    with Collection(folder) as photos:
        report = photos.import_vectors(path, format=layout, model=model, root=root)
    if as_json:
        emit(report.to_dict())
    else:
        click.echo(f"{shown(report.source)}: {printable(str(report))}")
        tell_failures(report.failed, f"`clipsearch info {shown(folder)} --failed`")
    if report.failed:
        ctx.exit(SOME_FAILED)
