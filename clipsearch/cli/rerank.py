"""The options of `clipsearch search` for a second look."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..types import Reranker

KINDS = ("yes-no", "pairs", "match", "sheet", "captions", "hybrid")
ALL_AT_ONCE = ("sheet", "captions", "hybrid")
UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0}


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The seconds that a text such as 5, 5s, 800ms or 2m means."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value)
    if not found or found[2] not in UNITS or not float(found[1]):
        raise click.BadParameter(f"found {value!r}, expected a time such as 5s, 800ms or 2m.")
    return float(found[1]) * UNITS[found[2]]


def rerank_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --rerank and what goes with it."""
    options = (
        click.option(
            "--rerank", metavar="KIND:M", multiple=True, help=f"Judge the best again: {', '.join(KINDS)}."
        ),
        click.option("--depth", metavar="N", type=click.IntRange(min=1), help="How many are judged again."),
        click.option(
            "--budget", metavar="TIME", callback=_seconds, help="Stop judging after 5s, 800ms or 2m."
        ),
        click.option("--weight", metavar="W", type=click.FloatRange(0, 1), help="Of the second look, to 1."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def stages_of(
    rerank: tuple[str, ...], depth: int | None, budget: float | None, weight: float | None
) -> "list[Reranker]":
    """The stages that the options ask for, in order."""
    given = {"depth": depth, "budget": budget, "weight": weight}
    options = {name: value for name, value in given.items() if value is not None}
    if options and not rerank:
        raise click.UsageError(f"--{next(iter(options))} goes with --rerank.")
    return [_reranker(*_parsed(each, budget), options) for each in rerank]


def _parsed(rerank: str, budget: float | None) -> tuple[str, str]:
    """The kind and the model of a stage."""
    kind, _, model = rerank.partition(":")
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise click.UsageError(f"--rerank {rerank}: found {kind}, expected one of {', '.join(KINDS)}{hint}")
    if not model and kind not in ("captions", "hybrid"):
        raise click.UsageError(f"--rerank {rerank}: no model; expected {kind}:MODEL.")
    if kind in ALL_AT_ONCE and budget is not None:
        raise click.UsageError(f"--budget does not go with {kind}, which judges all at once.")
    return kind, model


def _reranker(kind: str, model: str, options: dict[str, Any]) -> "Reranker":
    if kind == "yes-no":
        from ..rerank.yes_no import YesNoReranker

        return YesNoReranker(model, **options)
    if kind == "pairs":
        from ..rerank.pairs import PairReranker

        return PairReranker(model, **options)
    if kind == "match":
        from ..rerank.itm import ItmReranker

        return ItmReranker(model, **options)
    if kind == "sheet":
        from ..captioners import load_vlm
        from ..rerank.sheet import SheetReranker

        return SheetReranker(load_vlm(model), **options)
    from ..rerank.by_caption import TEXT_MODEL, CaptionReranker

    return CaptionReranker(model or TEXT_MODEL, retrieve=kind == "hybrid", **options)
