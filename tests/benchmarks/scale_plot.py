"""Draws scale.py's results: recall against the time of one query, for each way.

    python tests/benchmarks/scale_plot.py RESULTS.jsonl [--out docs/_static/scale.png] [--ways clipsearch ...]

Full marks are texts, hollow marks pictures; a star is the setting that a library has or chooses by itself.
The legend says what an index costs. Of a way's settings the newest line of the file counts.
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

COLOURS = {
    "clipsearch": "#d62728",
    "flat": "#555555",
    "autofaiss": "#1f77b4",
    "autofaiss-1G": "#17becf",
    "usearch": "#ff9f1c",
    "usearch-tuned": "#8c564b",
    "hnswlib": "#2ca02c",
}
RECALLS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
TIMES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
TOP = 0.9995  # a higher recall stands here


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("results", type=Path)
    options.add_argument("--out", type=Path, default=Path("docs/_static/scale.png"))
    options.add_argument("--ways", nargs="+", choices=COLOURS, default=list(COLOURS))
    args = options.parse_args()
    newest = {(row["way"], row["dial"]): row for row in map(json.loads, args.results.open(encoding="utf-8"))}
    rows = [row for row in newest.values() if row["way"] in args.ways]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(small(draw(rows, args.ways)))
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB")


def draw(rows: list[dict[str, Any]], ways: list[str]) -> Figure:
    figure = Figure(figsize=(9, 7.2), layout="constrained")
    axes = figure.add_subplot()
    for way in ways:
        line = sorted((row for row in rows if row["way"] == way), key=lambda row: row["dial"])
        if line:
            curve(axes, line, COLOURS[way])
    scales(axes, rows)
    size = f"{rows[0]['rows']:,} x {rows[0]['dim']}"
    axes.set_title(f"{size}: recall@10 and the time of one query on one thread", fontsize=12, loc="left")
    kinds = axes.legend(handles=kinds_of_mark(), loc="lower right", fontsize=9, framealpha=1)
    axes.add_artist(kinds)
    figure.legend(loc="outside lower left", fontsize=9, frameon=False, handlelength=1.2)
    return figure


def curve(axes: Any, line: list[dict[str, Any]], colour: str) -> None:
    """One way: texts, pictures, and the library's own setting."""
    last = line[-1]
    label = f"{last['way']} ({last['what']}): {last['ram_bytes']:,.0f} bytes of RAM a vector, {built(last)}"
    for kind, style in (("image", "--"), ("text", "-")):
        shown = [row for row in line if row[f"recall_{kind}"] >= RECALLS[0]]
        points = [row[f"ms_{kind}"] for row in shown], [row[f"recall_{kind}"] for row in shown]
        text = kind == "text"
        face, name = (colour, label) if text else ("white", None)
        look = {"marker": "o", "markersize": 5, "linewidth": 1.6 if text else 0.8, "linestyle": style}
        axes.plot(*points, color=colour, markerfacecolor=face, label=name, alpha=1 if text else 0.75, **look)
        usual = [row for row in shown if "usual" in row["why"]]
        points = [row[f"ms_{kind}"] for row in usual], [row[f"recall_{kind}"] for row in usual]
        axes.plot(*points, "*", color=colour, markerfacecolor=face, markersize=15, zorder=5, clip_on=False)


def built(row: dict[str, Any]) -> str:
    seconds = row["build_cpu_s"]
    return f"built in {seconds:.0f} s of CPU" if seconds < 120 else f"built in {seconds / 60:.0f} min of CPU"


def kinds_of_mark() -> list[Line2D]:
    look = {"color": "black", "markersize": 5}
    return [
        Line2D([], [], marker="o", linewidth=1.6, label="queries are texts", **look),
        Line2D(
            [],
            [],
            marker="o",
            linewidth=0.8,
            linestyle="--",
            markerfacecolor="white",
            label="queries are pictures",
            **look,
        ),
        Line2D(
            [],
            [],
            marker="*",
            linestyle="",
            color="black",
            markersize=13,
            label="the library's own setting",
        ),
    ]


def scales(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Time by its logarithm, recall by that of what is missed."""
    axes.set_xscale("log")
    axes.set_yscale(
        "function",
        functions=(
            lambda y: -np.log10(1 - np.clip(y, None, TOP)),
            lambda y: 1 - 10.0 ** -np.asarray(y),
        ),
    )
    times = [row[f"ms_{kind}"] for row in rows for kind in ("text", "image")]
    axes.set_xlim(min(times) / 1.3, max(times) * 1.3)
    axes.set_ylim(RECALLS[0], TOP + 0.00003)
    axes.xaxis.set_major_locator(FixedLocator(TIMES))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_major_locator(FixedLocator((*RECALLS, TOP)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}" if y < TOP else "1"))
    axes.set_xlabel("milliseconds, median")
    axes.set_ylabel("recall@10")
    axes.grid(color="#dddddd", linewidth=0.6)


def small(figure: Figure) -> bytes:
    """A PNG of few colours."""
    raw, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png", dpi=100)
    picture = Image.open(raw).convert("RGB").quantize(48, dither=Image.Dither.NONE)
    picture.save(packed, "PNG", optimize=True)
    return packed.getvalue()


if __name__ == "__main__":
    main()
