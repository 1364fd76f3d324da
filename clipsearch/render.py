"""What a person sees: text made safe to show, thumbnails, and HTML that stands alone.

Names of files are written by strangers. Everything here shows them and obeys none of them: markup is
escaped, and characters that steer a terminal or turn the reading direction are made visible. A page
carries its pictures within itself and forbids the browser every request.
"""

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from io import BytesIO
from pathlib import PurePath, PureWindowsPath
from typing import TYPE_CHECKING, TypeAlias
from unicodedata import category

if TYPE_CHECKING:
    from PIL.Image import Image

Outline: TypeAlias = tuple[float, float, float, float]
"""A part of a picture: left, top, right, bottom as shares of its sides."""

QUALITY = 82  # of JPEG thumbnails
LINKS = ("file:", "http:", "https:")  # what a card may lead to: nothing that runs code
DEEP = 0.55  # from which share on writing turns to the colour of the ground
JOINERS = "\u200c\u200d"  # invisible, but Persian and emoji are spelled with them


def printable(text: str) -> str:
    r"""Return `text` on one line with every character that is not plain writing made visible.

    Control characters (so also the escape sequences of a terminal), line breaks, invisible and
    direction-turning characters and lone surrogates become `\n`, `\x1b`, `\u202e`; bytes of a file
    name that are not UTF-8 become `\xff`. The result can always be encoded as UTF-8. It is for eyes:
    a backslash stays itself, so it cannot be turned back.
    """
    if text.isprintable():
        return text
    return "".join(_visible(char) for char in text)


def _visible(char: str) -> str:
    if category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or char in JOINERS:
        return char
    if "\udc80" <= char <= "\udcff":  # Python's stand-in for a byte that is not UTF-8 (PEP 383)
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def thumbnail(image: "Image", side: int = 256, outline: Outline | None = None) -> bytes:
    """Return an RGB picture as a JPEG that fits into `side` x `side` pixels, without any metadata.

    The proportions stay, and a smaller picture keeps its size. `outline` is drawn around a part of it.
    """
    small = image.copy()
    small.thumbnail((side, side))
    if outline:
        _draw(small, outline)
    small.info = {}  # Pillow would write the comment and XMP of the original into the thumbnail
    file = BytesIO()
    small.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _draw(image: "Image", outline: Outline) -> None:
    """Draw a thin line that is seen on light and on dark."""
    from PIL.ImageDraw import Draw

    sides = (image.width - 1, image.height - 1) * 2
    left, top, right, bottom = (int(share * side) for share, side in zip(outline, sides, strict=True))
    for inset, colour in enumerate(("black", "white", "white", "black")):
        if 2 * inset <= min(right - left, bottom - top):
            corners = (left + inset, top + inset, right - inset, bottom - inset)
            Draw(image).rectangle(corners, outline=colour)


def relative(name: str) -> PurePath:
    """Return a relative name whole and of any other the last part, which tells no folder of this machine."""
    path = PureWindowsPath(name)  # knows drives, and both kinds of slash
    return PurePath(path.name) if path.anchor or ".." in path.parts or "://" in name else path


@dataclass(frozen=True, slots=True)
class Card:
    """One picture with what is said of it.

    Attributes:
        title: its name.
        lines: short texts under the name.
        image: a JPEG thumbnail; None shows a neutral placeholder.
        reason: why there is no image.
        badge: a word or number beside the name.
        link: where a click on the picture leads (file, http or https); None: nowhere.

    Raises:
        ValueError: the link is of another kind, such as `javascript:`.
    """

    title: str
    lines: Sequence[str] = ()
    image: bytes | None = None
    reason: str = ""
    badge: str = ""
    link: str | None = None

    def __post_init__(self) -> None:
        if self.link is not None and not self.link.startswith(LINKS):
            raise ValueError(f"a card cannot link to {self.link!r}; expected one of {', '.join(LINKS)}")


@dataclass(frozen=True, slots=True)
class Bar:
    """A share, 0 to 1, drawn in a table as the length of a bar, perhaps with a mark at another share."""

    share: float
    mark: float | None = None


@dataclass(frozen=True, slots=True)
class Heat:
    """A number in a table: the darker, the larger a share it is; what is right in another colour.

    Attributes:
        count: the number; 0 leaves the cell empty.
        share: 0 to 1.
        right: whether it counts what is right.
        about: what a pointer over it shows.
    """

    count: int
    share: float
    right: bool
    about: str


Cell: TypeAlias = str | int | float | Bar | Heat  # nan is a dash


@dataclass(frozen=True, slots=True)
class Table:
    """Cells under the names of their columns, which stand upright over Heat."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Section:
    """Tables and cards under a heading and a note; whatever is empty is left out.

    Attributes:
        heading: also its link at the top of the page, unless it is part of the section before.
        note: a paragraph under the heading.
        cards: pictures.
        tables: before the pictures.
        part: whether it belongs to the section before.
        small: whether the cards are small, for many of them.
    """

    heading: str
    note: str = ""
    cards: Sequence[Card] = ()
    tables: Sequence[Table] = ()
    part: bool = False
    small: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """What makes a page answer.

    Attributes:
        code: JavaScript, run when all else is there; nothing else runs on the page.
        style: of what the code adds.
        data: JSON values, the text of the element `data`.
    """

    code: str
    style: str
    data: object


def page(
    title: str,
    sections: Sequence[Section],
    *,
    note: str = "",
    footer: str = "",
    script: Script | None = None,
) -> str:
    """Return one whole HTML document, which can be encoded as UTF-8 and needs no other file.

    Several sections get a line of links to jump between them; none leave the title and the note.
    """
    allowed = "" if script is None else f"; script-src 'sha256-{_digest(script.code)}'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}{allowed}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{_text(title)}</title>
<style>{STYLE}{script.style if script else ""}</style>
</head>
<body>
<header>
<h1 dir="auto">{_text(title)}</h1>
{_paragraph(note, "note")}
{_contents(sections)}
</header>
<main>
{"".join(_section(number, section) for number, section in enumerate(sections, 1))}
</main>
<footer>{_paragraph(footer, "note")}</footer>
{_script(script) if script else ""}
</body>
</html>
"""


def _script(script: Script) -> str:
    data = json.dumps(script.data).replace("<", "\\u003c")  # no text in it can end the element
    return f'<script type="application/json" id="data">{data}</script><script>{script.code}</script>'


def _digest(code: str) -> str:
    return b64encode(sha256(code.encode()).digest()).decode()


def grid(cards: Sequence[Card], *, caption: str = "") -> str:
    """Return cards as an HTML fragment for a notebook, under a caption; no cards leave the caption alone.

    Every style is inline, so nothing leaks into the notebook, whose own colours show through.
    """
    return (
        f'<div style="margin:0 0 10px;font:14px/1.5 system-ui,sans-serif">{_text(caption)}</div>'
        '<div style="display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));'
        f'gap:16px 12px;max-width:1100px">{"".join(map(_cell, cards))}</div>'
    )


def _text(text: str) -> str:
    return escape(printable(text), quote=True)


def _paragraph(text: str, kind: str) -> str:
    # A long name or path may be broken after a slash or underscore and before its ending.
    lines = re.sub(r"(?<=[/_])|(?=\.[a-zA-Z])", "<wbr>", _text(text))
    return f'<p class="{kind}" dir="auto">{lines}</p>' if text else ""


def _contents(sections: Sequence[Section]) -> str:
    whole = [(number, section) for number, section in enumerate(sections, 1) if not section.part]
    if len(whole) < 2:
        return ""
    links = (f'<a href="#s{number}" dir="auto">{_text(section.heading)}</a>' for number, section in whole)
    return f'<nav aria-label="On this page">{"".join(links)}</nav>'


def _section(number: int, section: Section) -> str:
    cards = "".join(map(_card, section.cards))
    level = "h3" if section.part else "h2"
    heading = f'<{level} dir="auto">{_text(section.heading)}</{level}>' if section.heading else ""
    return f"""<section id="s{number}"{' class="part"' if section.part else ""}>
{heading}
{_paragraph(section.note, "note")}
{"".join(map(_table, section.tables))}
{f'<ol class="cards{" small" if section.small else ""}">{cards}</ol>' if cards else ""}
</section>
"""


def _table(table: Table) -> str:
    first = table.rows[0] if table.rows else [""] * len(table.columns)
    heads = (
        f'<th class="{_kind(cell)}"><span dir="auto">{_text(name)}</span></th>'
        for name, cell in zip(table.columns, first, strict=True)
    )
    rows = (f"<tr>{''.join(map(_datum, row))}</tr>" for row in table.rows)
    whole = f"<table><thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="table">{whole}</div>'


def _kind(cell: Cell) -> str:
    return "number" if isinstance(cell, int | float) else type(cell).__name__.lower()


def _datum(cell: Cell) -> str:
    if isinstance(cell, Bar):
        mark = "" if cell.mark is None else f'<b style="left:{cell.mark:.1%}"></b>'
        return f'<td class="bar"><div><i style="width:{cell.share:.1%}"></i>{mark}</div></td>'
    if isinstance(cell, Heat):
        kind = "heat" + " right" * cell.right + " deep" * (cell.share > DEEP)
        about = f'style="--share:{cell.share:.0%}" title="{_text(cell.about)}"' if cell.count else ""
        return f'<td class="{kind}" {about}>{cell.count or ""}</td>'
    if isinstance(cell, str):
        return f'<td class="str" dir="auto">{_text(cell)}</td>'
    number = "–" if cell != cell else f"{cell:,}" if isinstance(cell, int) else f"{cell:.3f}"
    return f'<td class="number">{number}</td>'


def _card(card: Card) -> str:
    badge = f'<span class="badge">{_text(card.badge)}</span>' if card.badge else ""
    return f"""<li class="card">{_frame(card)}
<div class="about">{_paragraph(card.title, "name")}{badge}</div>
{"".join(_paragraph(line, "line") for line in card.lines)}</li>
"""


def _frame(card: Card) -> str:
    if card.link is None:
        return f'<div class="frame">{_picture(card)}</div>'
    return f'<a class="frame" href="{_text(card.link)}">{_picture(card)}</a>'


def _picture(card: Card) -> str:
    if card.image is not None:
        return f'<img src="{_source(card.image)}" alt="{_text(card.title)}" decoding="async">'
    return f'<div class="absent">{ABSENT}<p>Picture not available</p>{_paragraph(card.reason, "line")}</div>'


def _source(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + b64encode(jpeg).decode()


def _cell(card: Card) -> str:
    clip = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
    badge = f'<span style="opacity:.65;flex:none">{_text(card.badge)}</span>' if card.badge else ""
    lines = "".join(f'<div style="opacity:.65;{clip}">{_text(line)}</div>' for line in card.lines)
    return (
        f'<div style="min-width:0;font:12px/1.5 system-ui,sans-serif;text-align:left">{_cell_picture(card)}'
        '<div style="display:flex;gap:8px;justify-content:space-between;margin-top:6px">'
        f'<span dir="auto" title="{_text(card.title)}" style="font-weight:600;{clip}">'
        f"{_text(card.title)}</span>{badge}</div>{lines}</div>"
    )


def _cell_picture(card: Card) -> str:
    box = "box-sizing:border-box;width:100%;height:150px;margin:0;border-radius:8px;background:#8881"
    if card.image is not None:
        return f'<img src="{_source(card.image)}" alt="{_text(card.title)}" style="{box};object-fit:contain">'
    why = _text(": ".join(filter(None, ["Picture not available", card.reason])))
    return f'<div style="{box};display:flex;align-items:center;padding:12px;overflow:hidden">{why}</div>'


POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

ABSENT = (
    '<svg viewBox="0 0 24 24" width="28" height="28" aria-hidden="true" fill="none" stroke="currentColor"'
    ' stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round"><rect x="3" y="4.5" width="18"'
    ' height="15" rx="2.5"/><path d="m3.5 16.5 4.5-4.5 3.5 3.5 3-3 6 5M3 3l18 18"/></svg>'
)

STYLE = """
:root { --ground: #f6f6f7; --card: #fff; --well: #ececef; --ink: #18191c; --soft: #5d616a;
  --line: #00000014; --tint: #e7ecfd; --accent: #2f4ac0; --miss: #b3401f; }
@media (prefers-color-scheme: dark) { :root { --ground: #101113; --card: #191b1e; --well: #222428;
  --ink: #ededf0; --soft: #a0a4ad; --line: #ffffff17; --tint: #262d48; --accent: #aab9ff;
  --miss: #ff9d7a; } }
* { box-sizing: border-box; margin: 0; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { max-width: 84rem; margin: auto; padding: clamp(1.5rem, 5vw, 4rem) clamp(1rem, 4vw, 3rem);
  background: var(--ground); color: var(--ink); overflow-wrap: anywhere;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: clamp(1.6rem, 4vw, 2.25rem); line-height: 1.15; letter-spacing: -.025em; font-weight: 700; }
h1, h2, p { text-align: left; }
h2 { font-size: 1.3rem; line-height: 1.3; letter-spacing: -.015em; font-weight: 650; }
h1 + .note { margin-top: .6rem; max-width: 44rem; }
.note { color: var(--soft); font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .5rem; margin-top: 1.25rem; }
nav a { padding: .3rem .85rem; border: 1px solid var(--line); border-radius: 99px;
  background: var(--card); color: inherit; font-size: .875rem; text-decoration: none; }
nav a:hover { border-color: var(--accent); color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
section { margin-top: clamp(2rem, 5vw, 3.25rem); scroll-margin-top: 1rem; }
section:not(:has(h2)) { margin-top: .6rem; }
.cards { display: grid; gap: 1.25rem; margin-top: 1.1rem; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
.card { min-width: 0; padding-bottom: .8rem; overflow: hidden; border-radius: 14px;
  background: var(--card); box-shadow: 0 0 0 1px var(--line), 0 1px 3px #0000000a; }
.frame { display: grid; aspect-ratio: 4 / 3; place-items: center; padding: .7rem; overflow: hidden;
  background: var(--well); color: var(--soft); text-decoration: none; }
a.frame:focus-visible { outline-offset: -3px; border-radius: 14px; }
.frame:has(.absent) { overflow: visible; }
.frame img { max-width: 100%; max-height: 100%; min-height: 0; border-radius: 5px;
  box-shadow: 0 1px 5px #0003; }
.cards.small { gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); }
.absent { display: grid; gap: .3rem; justify-items: center; max-width: 13rem; font-size: .875rem; }
.absent p { text-align: center; }
.about { display: flex; gap: .75rem; align-items: start; justify-content: space-between;
  padding: .75rem .9rem 0; }
.name { min-width: 0; font-size: .9rem; font-weight: 600; line-height: 1.45; }
.small .name { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
.badge { flex: none; padding: .1rem .5rem; border-radius: 99px; background: var(--tint); color: var(--accent);
  font-size: .78rem; font-weight: 600; line-height: 1.45; font-variant-numeric: tabular-nums; }
.card > .line { padding: 0 .9rem; }
.line { color: var(--soft); font-size: .8rem; }
.part { margin-top: 1.6rem; }
h3 { font-size: 1rem; font-weight: 650; text-align: left; }
.table { margin-top: 1.1rem; overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; text-align: left; vertical-align: bottom; }
th, td { padding: .28rem 1rem .28rem 0; }
tbody tr { border-top: 1px solid var(--line); }
.number { text-align: right; white-space: nowrap; }
.str { min-width: 7rem; }
table:has(.bar) { width: min(100%, 46rem); }
.bar { width: 100%; min-width: 5rem; }
.bar div { position: relative; height: .7rem; }
.bar i { display: block; height: 100%; border-radius: 3px; background: var(--accent); }
.bar b { position: absolute; top: -.2rem; bottom: -.2rem; width: 2px; background: var(--miss); }
th.heat { padding: .4rem 0; }
th.heat span { display: inline-block; writing-mode: vertical-rl; transform: rotate(180deg); }
td.heat { --hue: var(--miss); height: 1.9rem; min-width: 1.9rem; padding: 0 .2rem; font-size: .72rem;
  text-align: center; border: 1px solid var(--line);
  background: color-mix(in srgb, var(--hue) var(--share, 0%), var(--card)); }
td.right { --hue: var(--accent); } td.deep { color: var(--card); }
table:has(.heat) :is(th, td) { overflow-wrap: normal; white-space: nowrap; }
footer { margin-top: clamp(2.5rem, 6vw, 4rem); padding-top: 1.25rem; border-top: 1px solid var(--line); }
@media (max-width: 37rem) {
  .cards { gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); }
  .frame { padding: .5rem; } .about { gap: .35rem; padding: .6rem .65rem 0; }
  .name { font-size: .84rem; } .badge { padding: .1rem .4rem; font-size: .72rem; }
  th, td { padding-right: .6rem; } .str { min-width: 5rem; } .bar { min-width: 4rem; padding-right: 0; }
  .card > .line { padding: 0 .65rem; } .absent { font-size: .8rem; } .absent .line { font-size: .75rem; } }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@media print {
  :root { --ground: #fff; --card: #fff; --well: #fff; --ink: #000; --soft: #444; --line: #ccc;
    --tint: #fff; --accent: #000; --miss: #666; }
  body { max-width: none; padding: 0; } nav { display: none; }
  .cards { grid-template-columns: repeat(4, 1fr); gap: .6rem; }
  .name { font-size: .8rem; } .badge { padding: 0; }
  .card { break-inside: avoid; box-shadow: none; border: 1px solid var(--line); } h2 { break-after: avoid; } }
"""
