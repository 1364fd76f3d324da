"""`clipsearch caption`: have a vision-language model write a caption of every picture."""

from pathlib import Path
from typing import TYPE_CHECKING

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
    tell_failures,
    where_option,
)

if TYPE_CHECKING:
    from ..captioning import CaptionReport


@click.command(
    epilog=examples(
        "clipsearch caption photos.clipsearch --captioner HuggingFaceTB/SmolVLM-256M-Instruct",
        "clipsearch caption photos.clipsearch --captioner qwen3-vl@http://localhost:8000/v1",
        'clipsearch search photos.clipsearch "a dog" --where "caption match \'red collar\'"',
    )
)
@folder_argument
@click.option("--captioner", metavar="M", help="A hub id, a directory, or NAME@URL of a server's model.")
@click.option("--prompt", metavar="P", help="What the model is asked, instead of what suits it.")
@click.option(
    "--max-tokens",
    default=64,
    show_default=True,
    metavar="N",
    type=click.IntRange(min=1),
    help="How long a caption may become.",
)
@where_option
@click.option("--retry-failed", is_flag=True, help="Ask again for those that failed before.")
@click.option("--batch-size", metavar="N", type=click.IntRange(min=1), help="Pictures at a time.")
@click.option("--device", default="auto", show_default=True, metavar="D", help="cpu, cuda, cuda:1, mps.")
@click.option("--precision", default="auto", show_default=True, metavar="P", help="fp32, bf16, fp16.")
@click.option(
    "--use", metavar="M", help="Show and search the captions that this model wrote, or their number."
)
@click.option("--vectors", metavar="M", help="Encode the captions with this model of texts, for --rerank.")
@json_option
@click.pass_context
def caption(
    ctx: click.Context,
    folder: Path,
    captioner: str | None,
    prompt: str | None,
    max_tokens: int,
    where: str | None,
    retry_failed: bool,
    batch_size: int | None,
    device: str,
    precision: str,
    use: str | None,
    vectors: str | None,
    as_json: bool,
) -> None:
    """Caption every picture that has no caption of that model yet.

    Captions are kept in DIR. A run that was stopped goes on where it was. The captions of the model that
    ran last on all pictures are shown and searched. A server's model is named NAME@URL, such as
    qwen3-vl@http://localhost:8000/v1; where it wants a key, that is in the environment as CLIPSEARCH_API_KEY.

    Exits with 3 when all is done but some pictures have no caption.
    """
    if captioner is None and use is None and vectors is None:
        raise click.UsageError("give --captioner, --use or --vectors.")
    with existing(folder) as photos:
        report = None
        if captioner is not None:
            report = photos.caption(
                captioner,
                prompt=prompt,
                max_tokens=max_tokens,
                where=where,
                retry_failed=retry_failed,
                batch_size=batch_size,
                device=device,
                precision=precision,
            )
        if use is not None:
            photos.use_captions(int(use) if use.isdecimal() else use)
        encoded = photos.encode_captions(vectors) if vectors is not None else None
    if as_json:
        emit({"captions": report and report.to_dict(), "vectors": encoded})
    else:
        _tell(report, encoded)
    if report and report.failed:
        ctx.exit(SOME_FAILED)


def _tell(report: "CaptionReport | None", encoded: int | None) -> None:
    if report is not None:
        click.echo(printable(str(report)))
        tell_failures(report.failed, "--json")
    if encoded is not None:
        click.echo(f"{counted(encoded, 'caption')} have vectors")
