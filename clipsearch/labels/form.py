"""The page of a review: pictures with what is said of them, and buttons that fill in the sheet."""

from collections.abc import Sequence
from pathlib import Path

from ..files import write_durably
from ..render import Card, Script, Section, page, printable, relative
from ..results import thumbnail_or_reason
from .outputs import cell
from .results import Pictured
from .sheet import Asked, cells

SIDE = 320  # pixels, the longer side of a picture

NOTE = (
    "Is the label right? Click, or use the keys y, n and ? on the picture that is framed (arrows move the "
    "frame); unsure counts as wrong. Where a label is wrong, say which would be right, if you can. Your "
    "answers stay in this browser until you save them: put the file in the place of the sheet."
)


def write_form(
    path: Path,
    sheet: str,
    labels: Sequence[str],
    pictures: Sequence[Pictured],
    before: Sequence[Asked],
    asked: Sequence[Asked],
) -> None:
    """Write the page on which a round is answered; it saves the whole sheet.

    Args:
        path: the page.
        sheet: name of the sheet's file.
        labels: those that may be the right one where it is wrong; none: it is not asked.
        pictures: those of the new rows.
        before: rows of earlier rounds, which the saved sheet keeps.
        asked: the new rows.

    Raises:
        CollectionError: it cannot be written.
    """
    data = {
        "name": sheet,
        "columns": Asked._fields,
        "places": [Asked._fields.index(name) for name in ("label", "right", "truth", "others")],
        "before": [cells(row) for row in before],
        "rows": [cells(row) for row in asked],
        "labels": [(printable(name), cell(name)) for name in labels],
    }
    cards = [_card(picture, row) for picture, row in zip(pictures, asked, strict=True)]
    document = page(
        f"{len(asked):,} labels to check",
        [Section("", cards=cards)],
        note=NOTE,
        script=Script(CODE, STYLE, data),
    )
    write_durably(path, lambda file: file.write(document.encode()))


def _card(picture: Pictured, row: Asked) -> Card:
    image, reason = thumbnail_or_reason(picture.read, SIDE)
    return Card(row.label, (relative(picture.key).name,), image, reason)


STYLE = """
.bar-top { position: sticky; top: 0; z-index: 1; display: flex; gap: 1rem; align-items: center;
  padding: .7rem 0; background: var(--ground); }
.bar-top progress { flex: 1; accent-color: var(--accent); }
button, select { padding: .3rem .8rem; border: 1px solid var(--line); border-radius: 99px; font: inherit;
  font-size: .85rem; background: var(--card); color: inherit; cursor: pointer; }
button[aria-pressed=true], .save { border-color: var(--accent); background: var(--accent);
  color: var(--card); }
.answers { display: flex; flex-wrap: wrap; gap: .4rem; padding: .7rem .9rem 0; }
.answers select { width: 100%; }
.card.now { box-shadow: 0 0 0 2px var(--accent); }
"""

CODE = """
"use strict";
const sheet = JSON.parse(document.getElementById("data").textContent);
const [LABEL, RIGHT, TRUTH, OTHERS] = sheet.places;
const cards = [...document.querySelectorAll(".card")];
const key = "clipsearch " + sheet.name + JSON.stringify(sheet.rows);
let now = 0;

const add = (parent, tag, text, about = {}) => {
  const made = Object.assign(document.createElement(tag), about);
  made.textContent = text;
  parent.append(made);
  return made;
};
const bar = document.createElement("div");
bar.className = "bar-top";
document.querySelector("main").prepend(bar);
const told = add(bar, "span", "");
const progress = add(bar, "progress", "", { max: sheet.rows.length });
add(bar, "button", "Save " + sheet.name, { className: "save", onclick: save });

try {
  (JSON.parse(localStorage.getItem(key)) || []).forEach(([right, truth], row) => {
    [sheet.rows[row][RIGHT], sheet.rows[row][TRUTH]] = [right, truth];
  });
} catch { /* a browser that keeps nothing */ }

cards.forEach((card, row) => {
  card.onclick = () => move(row);
  const answers = add(card, "div", "", { className: "answers" });
  for (const [right, text] of [["yes", "Right"], ["no", "Wrong"], ["?", "Unsure"]])
    add(answers, "button", text, { value: right, onclick: () => answer(row, right) });
  const which = add(answers, "select", "", { onchange: () => correct(row, which.value) });
  which.setAttribute("aria-label", "the right label");
  add(which, "option", "which then?", { value: "" });
  add(which, "option", "none of the labels", { value: "-" });
  const own = sheet.rows[row][LABEL], others = sheet.rows[row][OTHERS].split("|");
  const rank = ([name]) => others.indexOf(name) + 1 || others.length + 1;
  const wrong = sheet.labels.filter(([, cell]) => cell !== own).sort((a, b) => rank(a) - rank(b));
  for (const [name, cell] of wrong) add(which, "option", name, { value: cell });
  show(row);
});
move(Math.max(0, sheet.rows.findIndex((row) => !row[RIGHT])));

function answer(row, right) {
  sheet.rows[row][RIGHT] = right;
  if (right !== "no") sheet.rows[row][TRUTH] = "";
  keep(row);
}
function correct(row, truth) {
  sheet.rows[row][TRUTH] = truth;
  keep(row);
}
function keep(row) {
  const answers = sheet.rows.map((row) => [row[RIGHT], row[TRUTH]]);
  try { localStorage.setItem(key, JSON.stringify(answers)); } catch { /* saved by hand then */ }
  show(row);
}
function show(row) {
  const [right, truth] = [sheet.rows[row][RIGHT], sheet.rows[row][TRUTH]];
  for (const button of cards[row].querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(button.value === right));
  const which = cards[row].querySelector("select");
  [which.hidden, which.value] = [right !== "no" || !sheet.labels.length, truth];
  const done = sheet.rows.filter((row) => row[RIGHT]).length;
  told.textContent = done + " of " + sheet.rows.length + " checked";
  progress.value = done;
}
function move(row) {
  cards[now].classList.remove("now");
  now = Math.min(Math.max(row, 0), cards.length - 1);
  cards[now].classList.add("now");
}
document.onkeydown = (event) => {
  if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const right = { y: "yes", n: "no", "?": "?" }[event.key];
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (right) answer(now, right);
  if (right && right !== "no") move(now + 1);
  if (step) move(now + step);
  if (right || step) { event.preventDefault(); cards[now].scrollIntoView({ block: "nearest" }); }
};
function save() {
  const quoted = (cell) => (/[",\\r\\n]/.test(cell) ? '"' + cell.replaceAll('"', '""') + '"' : cell);
  const rows = [sheet.columns, ...sheet.before, ...sheet.rows];
  const file = new Blob(rows.map((row) => row.map(quoted).join(",") + "\\r\\n"), { type: "text/csv" });
  const link = document.createElement("a");
  Object.assign(link, { href: URL.createObjectURL(file), download: sheet.name }).click();
}
"""
