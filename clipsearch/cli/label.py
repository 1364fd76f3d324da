"""`clipsearch label`: say of every picture which of some labels fits it."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from ..render import printable
from .output import SOME_FAILED, counted, emit, examples, existing, json_option, note, shown, where_option

if TYPE_CHECKING:
    from ..collection import Collection
    from ..labels import LabelResults, LabelSet

SHOWN = 20  # labels and pictures on a terminal
CHECKS = 100  # labels that a person checks in a round
UNANSWERED = 4  # exit code: nothing is written before a person has answered
WORK = ".clipsearch"  # ending of the folder of vectors beside --out while a run goes on


@click.command(
    epilog=examples(
        "clipsearch label ~/Photos --labels cat,dog,car --out labels.csv",
        "clipsearch label photos.clipsearch --labels labels.txt --multi --html report.html",
        "clipsearch label pets/ --labels cat,dog --truth folder",
        "clipsearch label photos.clipsearch --labels cat,dog --target-precision 0.95 --out labels.csv",
    )
)
@click.argument("source", metavar="SOURCE|DIR")
@click.option(
    "--labels",
    "labels",
    required=True,
    metavar="L",
    help="Names between commas, a .txt, .csv or .json file, or imagenet-1k.",
)
@click.option(
    "--templates",
    default="photo",
    show_default=True,
    metavar="T",
    help="photo, plain, simple-7, openai-80, a file, or a sentence with {} in it.",
)
@click.option("--multi", is_flag=True, help="A picture may have several labels, or none.")
@click.option(
    "--scores",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "softmax", "sigmoid", "contrast"]),
    metavar="K",
    help="What the scores are: auto, softmax, sigmoid, contrast.",
)
@click.option("--threshold", metavar="S", type=float, help="Say a label from this score on only.")
@click.option(
    "--unknown/--no-unknown", default=True, show_default=True, help="Let a picture be none of these."
)
@where_option
@click.option("--model", metavar="M", help="See `clipsearch models`; pictures of a SOURCE get siglip2-b16.")
@click.option("--device", default="auto", show_default=True, metavar="D", help="cpu, cuda, cuda:1, mps.")
@click.option("--precision", default="auto", show_default=True, metavar="P", help="fp32, bf16, fp16.")
@click.option(
    "--out", metavar="F", type=click.Path(path_type=Path), help="Write .csv, .tsv, .jsonl, .json or .parquet."
)
@click.option("--html", metavar="F", type=click.Path(path_type=Path), help="Write a page with thumbnails.")
@click.option("--by-group", is_flag=True, help="Say a label's group, a field of --labels, in its place.")
@click.option(
    "--review",
    metavar="N",
    type=click.IntRange(min=1),
    help="Draw N labels for a person to check; 100 with --target-precision.",
)
@click.option("--more", is_flag=True, help="Draw a further round of the review now; it may keep more labels.")
@click.option(
    "--target-precision", "target", metavar="P", type=float, help="Keep labels of which this share is right."
)
@click.option(
    "--sheet", metavar="F", type=click.Path(path_type=Path), help="The review's .csv file; else beside --out."
)
@click.option("--truth", metavar="T", help="Measure: `folder`, or a table with the columns path and label.")
@json_option
@click.pass_context
def label(
    ctx: click.Context,
    source: str,
    labels: str,
    templates: str,
    multi: bool,
    scores: str,
    threshold: float | None,
    unknown: bool,
    where: str | None,
    model: str | None,
    device: str,
    precision: str,
    out: Path | None,
    html: Path | None,
    by_group: bool,
    review: int | None,
    more: bool,
    target: float | None,
    sheet: Path | None,
    truth: str | None,
    as_json: bool,
) -> None:
    """Say of every picture which of some labels fits it.

    The pictures are those of a collection, DIR, whose vectors are there already, or of a SOURCE as
    `clipsearch index` takes it. A run with --out that was stopped goes on where it was.

    With --review or --target-precision a person checks some of the labels: they are written to a sheet, and
    to a page beside it that fills it in. When that is done, the same command goes on.

    Exits with 3 when all is done but some pictures cannot be read, with 4 when a person is to answer first.
    """
    from ..labels import check_name, read_templates

    names, put = _names(labels, least=1 if multi else 2), read_templates(templates)
    if out:
        check_name(out)  # what is wrong is told before anything is encoded
    sheet = _sheet(sheet, out, html, review, target, threshold)
    if by_group and not names.groups():
        raise click.UsageError("--by-group needs a group of the labels: a column of a --labels file")
    with _photos(Path(source), source, out or sheet, model, device, precision) as photos:
        results = photos.classify(
            names,
            templates=put,
            multi=multi,
            scores=scores,
            unknown=unknown,
            threshold=threshold,
            where=where,
        )
        _note_none(results, where)
        results = results.by_group() if by_group else results
        if sheet:
            results = _checked(results, sheet, review, target, more) or _wait(ctx, sheet, more)
        evaluation = results.evaluate(truth) if truth else None
        if out:
            results.write(out)
        if html:
            results.to_html(html, evaluation=evaluation)
    if as_json:
        told = {"evaluation": evaluation and evaluation.to_dict()}
        told |= {"review": results.reviewed(sheet).to_dict()} if sheet else {}
        emit({"pictures": results.to_dicts(), **told})
    else:
        _tell(results, said=not out)
        for written in filter(None, (out, html)):
            note(f"written: {shown(written.expanduser().absolute())}")
        if evaluation:
            click.echo(evaluation.summary())
    if any(picture.reason for picture in results.pictures):
        ctx.exit(SOME_FAILED)


def _note_none(results: "LabelResults", where: str | None) -> None:
    if where is not None and not results.pictures:
        note(f"nothing passes --where {printable(where)}")


def _names(labels: str, least: int) -> "LabelSet":
    """What --labels means: a file or a set as it is, else names between commas."""
    from ..labels.labelset import SETS, read_labels, split_names

    known = os.path.exists(labels) or ("," not in labels and (Path(labels).suffix or labels in SETS))
    return read_labels(labels if known else split_names(labels), least=least)


@contextmanager
def _photos(
    folder: Path, source: str, out: Path | None, model: str | None, device: str, precision: str
) -> "Iterator[Collection]":
    """The collection to label: the one that was named, or one made of the source and deleted at the end."""
    from ..collection import Collection
    from ..store import is_collection
    from ..zeroshot import place

    if is_collection(folder.expanduser()):
        with existing(folder, read_only=True, model=model, device=device, precision=precision) as photos:
            yield photos
        return
    beside = out and out.expanduser().with_name(out.name + WORK)  # stays when a run is stopped
    with place(beside) as work, Collection(work, model=model, device=device, precision=precision) as photos:
        report = photos.add(source)
        note(printable(str(report)))
        yield photos
    if beside:
        shutil.rmtree(beside, ignore_errors=True)


def _sheet(
    sheet: Path | None,
    out: Path | None,
    html: Path | None,
    review: int | None,
    target: float | None,
    threshold: float | None,
) -> Path | None:
    """Where the review's sheet is, if there is a review."""
    from ..labels.sheet import sheet_path

    if review is None and target is None:
        if sheet:
            raise click.UsageError("--sheet is of a review: add --review or --target-precision")
        return None
    if threshold is not None:
        raise click.UsageError("a review is of all labels, and finds the threshold: leave --threshold out")
    if target is not None and not 0 < target <= 1:
        raise click.UsageError(f"--target-precision is a share such as 0.95, found {target:g}")
    chosen = sheet or (out and out.with_name(f"{out.stem}.review.csv"))
    if chosen is None:
        raise click.UsageError("a review needs --sheet F.csv, or --out beside which the sheet can lie")
    whole = sheet_path(chosen)
    written = {path.expanduser().absolute() for path in (out, html) if path}
    if written & {whole, whole.with_suffix(".html")}:
        raise click.UsageError("--sheet, its page (.html), --out and --html must be different files")
    return whole


def _checked(
    results: "LabelResults", sheet: Path, count: int | None, target: float | None, more: bool
) -> "LabelResults | None":
    """The labels as a person's answers let them be kept; None: there is something to answer first."""
    if sheet.exists():
        review = results.reviewed(sheet)
        note(str(review))
        if review.unanswered:
            return None
        found = review.certify(target) if target is not None else None
        if found:
            note(found.reason)
            count = count or max(CHECKS, found.more_needed)
        if not more and not (found and found.value is None):
            return results.at(found.value) if found else results
    results.review(sheet, count or CHECKS, target_precision=target)
    return None


def _wait(ctx: click.Context, sheet: Path, more: bool) -> NoReturn:
    page = shown(sheet.absolute().with_suffix(".html"))
    again = "then run this command again" + ", without --more" * more
    note(f"open {page}, put what it saves in the place of {shown(sheet)}, {again}")
    ctx.exit(UNANSWERED)


def _tell(results: "LabelResults", *, said: bool) -> None:
    """The pictures for a program where no terminal is watching, and how many got which label for a person."""
    if said and not sys.stdout.isatty():
        for row in results:
            click.echo(
                f"{printable('|'.join(row.labels) or str(row.verdict))}\t{printable(row.picture.path)}"
            )
        return
    click.echo(str(results))
    counts = sorted(results.counts().items(), key=lambda pair: -pair[1])
    for name, count in counts[:SHOWN]:
        click.echo(f"  {count:>9,}  {printable(name)}")
    if len(counts) > SHOWN:
        click.echo(f"  and {counted(len(counts) - SHOWN, 'label')} more")
    failed = [picture for picture in results.pictures if picture.reason]
    for picture in failed[:SHOWN]:
        click.echo(f"  {shown(picture.path)}: {printable(picture.reason)}")
    if len(failed) > SHOWN:
        click.echo(f"  and {len(failed) - SHOWN:,} more that cannot be read")
