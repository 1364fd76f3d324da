"""`clipsearch indexes`: the tested ways to lay vectors out for search."""

import click

from .output import emit, examples, json_option

DIM = 512  # what bytes are told for


@click.command(epilog=examples("clipsearch indexes"))
@json_option
def indexes(as_json: bool) -> None:
    """List the index layouts, and when to choose each.

    `clipsearch index --index` takes their names. By itself it looks at every vector up to 1 GB of them and
    takes ivf-pq-fastscan past that. A FAISS factory string of your own is taken too.
    """
    from ..spec import index_specs

    specs = index_specs().values()
    if as_json:
        return emit([{**vars(spec), "bytes_per_vector": spec.bytes_per_vector(DIM)} for spec in specs])
    for spec in specs:
        click.echo(click.style(spec.name, bold=True))
        click.echo(f"  {spec.when}")
        beside = f"{spec.factory}: {spec.bytes_per_vector(DIM)} bytes beside a vector of {DIM} numbers"
        click.echo(f"  {beside if spec.factory else 'the stored vectors themselves'}")
        click.echo(f"  tests hold it to a recall@10 of {spec.min_recall:g}")
