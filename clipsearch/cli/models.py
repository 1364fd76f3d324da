"""`clipsearch models`: the models that have a short name."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ..spec import size
from .output import emit, examples, json_option

if TYPE_CHECKING:
    from ..encoders import Model

HEAD = "name             params   image   dim ImageNet  download  languages  licence"

FOOT = """\
params: of both towers. image: pixels a side. dim: length of a vector. ImageNet: published zero-shot top-1
accuracy in percent; --json says where.

Every other open_clip model goes by its own name, for example --model ViT-B-16-SigLIP2/webli; so do
hf-hub:org/name, st:org/name (sentence-transformers) and a local directory."""


@click.command(
    epilog=examples(
        "clipsearch models", "clipsearch index ~/Photos --to photos.clipsearch --model siglip2-b32"
    )
)
@json_option
def models(as_json: bool) -> None:
    """List the models that have a short name."""
    from ..encoders import CATALOG

    if as_json:
        return emit([asdict(model) for model in CATALOG.values()])
    click.echo(click.style(HEAD, bold=True))
    for model in CATALOG.values():
        click.echo(_row(model))
        click.echo(click.style(f"  {model.name}: {model.note}", dim=True))
    click.echo(f"\n{FOOT}")


def _row(model: "Model") -> str:
    accuracy = "-" if model.imagenet is None else f"{model.imagenet:.1f}"
    download = "-" if model.download is None else size(model.download * 1e6) if model.download else "none"
    numbers = (
        f"{model.parameters:>5,.0f} M {model.image_size:>4} px {model.dim:>5} {accuracy:>8} {download:>9}"
    )
    return f"{model.alias:<15} {numbers}  {model.languages:<9}  {model.licence}"
