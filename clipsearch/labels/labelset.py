"""What pictures are to be told apart by: names, in the layouts people keep them in."""

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias, overload

from ..errors import LabelError
from ..render import printable
from .templates import open_clip_metadata, read_text, text_lines, tidy

SETS = ("imagenet-1k",)
FIELDS = ("synonyms", "prompts", "group")  # of a label in a file, beside its `label` or `name`
KINDS = (".txt", ".csv", ".tsv", ".json")
EXPECTED = f"a list of names, a {', '.join(KINDS[:-1])} or {KINDS[-1]} file, or the set {SETS[0]!r}"


@dataclass(frozen=True, slots=True)
class Label:
    """One thing a picture may be said to show.

    Attributes:
        name: what it is called, in the templates and in every result.
        synonyms: what else it is called; each goes through the templates too.
        prompts: whole sentences of its own, used instead of the templates.
        group: where it belongs, as a path: "animals/dogs" is in "animals" too; "" is nowhere.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True, repr=False)
class LabelSet(Sequence[Label]):
    """Labels in order; `read_labels` makes one and sees to it that no name is there twice."""

    labels: tuple[Label, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> Label: ...
    @overload
    def __getitem__(self, index: slice) -> "LabelSet": ...
    def __getitem__(self, index: int | slice) -> "Label | LabelSet":
        return LabelSet(self.labels[index]) if isinstance(index, slice) else self.labels[index]

    def __repr__(self) -> str:
        more = ", …" if len(self) > 5 else ""
        return f"LabelSet({len(self):,} labels: {printable(', '.join(self.names[:5]))}{more})"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name a label, in order."""
        return tuple(label.name for label in self.labels)

    def index(self, name: str) -> int:  # type: ignore[override]
        """Return the position of the label that has this name or synonym, in any spelling of case.

        Raises:
            LabelError: there is none.
        """
        try:
            return self._positions[_key(name)]
        except KeyError:
            raise LabelError(f"found the label {name!r}, expected one of {few(self.names)}") from None

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {_key(name): place for place, label in enumerate(self.labels) for name in _names(label)}

    def groups(self) -> dict[str, tuple[int, ...]]:
        """Return the positions of each group's labels, in order; "animals/dogs" counts for "animals" too.

        A group comes before those within it; labels of no group are in none.
        """
        found: dict[str, list[int]] = {}
        for position, label in enumerate(self.labels):
            for group in accumulate(label.group.split("/"), "{}/{}".format) if label.group else ():
                found.setdefault(group, []).append(position)
        return {group: tuple(positions) for group, positions in found.items()}


LabelSpec: TypeAlias = (
    "LabelSet | Sequence[str | Label] | Mapping[str, Sequence[str]] | str | os.PathLike[str]"
)


def read_labels(spec: LabelSpec, *, least: int = 2) -> LabelSet:
    """Read the labels that pictures are to be given.

    Files are UTF-8. A `.txt` has one name a line. A `.csv` or `.tsv` has a header with `label` (or `name`)
    and perhaps `synonyms`, `prompts` (several in a cell are parted by `|`) and `group`; other columns are
    ignored. A `.json` is a list of names, or of objects with the fields of the table, synonyms and
    prompts as lists; or one object `{name: [prompt, …]}` (the layout of CuPL) or `{name: {field: …}}`. An
    object of objects none of which has a field (nor is empty) holds several sets, as
    `{dataset: {name: [prompt, …]}}` of CLIP_benchmark: a single one is taken, and "file.json#dataset"
    chooses; `#` takes what is under any key as if it were the file.

    "imagenet-1k" has ImageNet's 1,000 classes in the order of their numbers, by the names open_clip
    uses, but for two: open_clip, as the authors of CLIP, calls two classes "missile" (657, 744) and two
    "sunglasses" (836, 837), which nothing could tell apart. Here 744 is "projectile" and 836 "sunglass",
    as in WordNet. So 998 rows of a classifier equal open_clip's and those two do not.

    Args:
        spec: a list of names and of `Label`; a mapping of names to prompts; a file; or "imagenet-1k".
        least: how many there must be. Among one label, every picture is it; a caller that decides on
            each label by itself asks for 1.

    Returns:
        The labels in order, texts in Unicode NFC and stripped. No name or synonym is there twice,
        whatever its case and white space; prompts may be, as CuPL's are, and then count twice.

    Raises:
        LabelError: it is none of these, or cannot be read; there are fewer than `least`; a name is
            blank, there twice, no text, or has characters that cannot be seen. The message says where.
    """
    labels = [(where, _label(where, found)) for where, found in _found(spec)]
    _refuse_repeats(labels)
    names = tuple(label.name for _, label in labels)
    if len(names) < least:
        source = f"{spec}: " if isinstance(spec, str | os.PathLike) else ""
        raise LabelError(
            f"{source}found {'only ' + few(names) if names else 'no label'}, expected at least {least}: "
            "add what else the pictures may show, or let a picture have several labels or none (multi)"
        )
    return LabelSet(tuple(label for _, label in labels))


def split_names(text: str) -> list[str]:
    """Return names parted by commas; one that holds a comma stands in double quotes.

    Raises:
        LabelError: a quote is not closed.
    """
    try:
        rows = csv.reader(StringIO(text, newline=""), skipinitialspace=True, strict=True)
        return [name.strip() for row in rows for name in row]
    except csv.Error as error:
        raise LabelError(f"found {text!r}: {error}; expected names parted by commas") from error


Found: TypeAlias = Iterable[tuple[str, Any]]
"""(where it was found, a name, Label or mapping of fields): not checked yet."""


def _found(spec: object) -> Found:
    if isinstance(spec, str) and spec in SETS:
        return _imagenet()
    if isinstance(spec, str | os.PathLike):
        return _from_file(os.path.expanduser(os.fspath(spec)))
    if isinstance(spec, Mapping | Sequence) and not isinstance(spec, bytes | bytearray):
        return _from_data("", spec)
    raise LabelError(f"found labels of type {type(spec).__name__}, expected {EXPECTED}")


def _imagenet() -> Found:
    second = {744: "projectile", 836: "sunglass"}
    names = open_clip_metadata("IMAGENET_CLASSNAMES")
    return [(f"class {number}", second.get(number, name)) for number, name in enumerate(names)]


def _from_file(text: str) -> Found:
    path, key = Path(text), None
    if ".json#" in text and not os.path.isfile(path):
        before, _, key = text.partition(".json#")
        path = Path(f"{before}.json")
    if not os.path.isfile(path):  # False too for what no path can be
        hint = f"; split_names({text!r}) makes a list" if "," in text else ""
        raise LabelError(f"found the labels {text!r}, which is no file; expected {EXPECTED}{hint}")
    match path.suffix.lower():
        case ".txt":
            return text_lines(path)
        case ".csv":
            return _from_table(path, ",")
        case ".tsv":
            return _from_table(path, "\t")
        case ".json":
            return _from_json(path, key)
    raise LabelError(f"found the file {text!r}, expected its name to end in one of {', '.join(KINDS)}")


def _from_table(path: Path, delimiter: str) -> Found:
    rows = csv.reader(StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        header = [cell.strip().casefold() for cell in next(rows, [])]
        if header.count("label") + header.count("name") != 1:
            raise LabelError(
                f"{path}, line 1: found the columns {header}, expected a header with either label or name, "
                f"and perhaps {', '.join(FIELDS)}; a plain list of names goes into a .txt file"
            )
        return [
            _row(f"{path}, line {rows.line_num}", header, row) for row in rows if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise LabelError(f"{path}, line {rows.line_num}: {error}; check the quotes") from error


def _row(where: str, header: list[str], row: list[str]) -> tuple[str, dict[str, object]]:
    """Return where one row of a table is, and its fields."""
    if len(row) > len(header):
        raise LabelError(
            f"{where}: found {len(row)} cells, expected {len(header)}; quote a cell that holds the delimiter"
        )
    cells: dict[str, object] = {}
    for field, cell in zip(header, row, strict=False):
        several = [part for part in cell.split("|") if part.strip()]
        cells[field] = several if field in ("synonyms", "prompts") else cell.strip()
    return where, cells


def _from_json(path: Path, key: str | None) -> Found:
    text = read_text(path)
    try:
        data = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError, LabelError) as error:
        raise LabelError(f"{path}: expected JSON with one meaning, but {error}") from error
    if key is None:
        return _from_data(f"{path}, ", data)
    if not isinstance(data, Mapping) or key not in data:
        there = few(data) if isinstance(data, Mapping) else "only a list"
        raise LabelError(f"{path}: found no {key!r}, expected one of {there}")
    return _from_data(f"{path}#{key}, ", data[key])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, of which json itself would keep the last of two equal names."""
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise LabelError(f"found {twice!r} twice in one object; remove one or rename it")
    return data


def _from_data(where: str, data: object) -> Found:
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [(f"{where}label {number}", each) for number, each in enumerate(data, 1)]
    if not isinstance(data, Mapping):
        raise LabelError(f"{where}found {data!r}, expected a list of names or an object of them")
    if not data or any(map(_is_label, data.values())):
        return [(f"{where}{name!r}", _named(f"{where}{name!r}", name, each)) for name, each in data.items()]
    if len(data) > 1:
        raise LabelError(f'{where}found several sets: {few(data)}; choose one, as "file.json#name"')
    return _from_data(where, next(iter(data.values())))


def _is_label(value: object) -> bool:
    """Tell what describes one label, prompts or fields, from a whole set of labels."""
    return not isinstance(value, Mapping) or not value or not value.keys().isdisjoint(FIELDS)


def _named(where: str, name: object, value: object) -> dict[str, object]:
    """Return an entry of `{name: prompts or fields}` as a mapping of fields."""
    if isinstance(value, Mapping):
        return {"name": name} | {field: value[field] for field in FIELDS if field in value}
    if isinstance(value, list | tuple):
        return {"name": name, "prompts": value}
    raise LabelError(f"{where}: found {value!r}, expected a list of prompts, or {', '.join(FIELDS)}")


def _label(where: str, found: object) -> Label:
    """Return what was found as a label, checked, every text in its one spelling."""
    if isinstance(found, str):
        found = Label(found)
    if isinstance(found, Mapping):
        names = [found[field] for field in ("label", "name") if field in found]
        if len(names) != 1:
            raise LabelError(f"{where}: found the fields {few(found)}, expected either label or name")
        synonyms, prompts, group = (found.get(field) for field in FIELDS)
        found = Label(names[0], synonyms or (), prompts or (), group or "")
    if not isinstance(found, Label):
        raise LabelError(f"{where}: found {found!r}, expected a name or a Label")
    return Label(
        _text(where, "name", found.name),
        tuple(_text(where, "synonym", name) for name in _list(where, "synonyms", found.synonyms)),
        tuple(_prompt(where, prompt) for prompt in _list(where, "prompts", found.prompts)),
        _group(where, found.group),
    )


def _text(where: str, field: str, text: object) -> str:
    if not isinstance(text, str):
        raise LabelError(f"{where}: found the {field} {text!r}, expected a text")
    return tidy(f"{where}, {field}", text)


def _prompt(where: str, text: object) -> str:
    """Check a prompt, in which line breaks are usual: those that a language model wrote begin with one."""
    return _text(where, "prompt", " ".join(text.split()) if isinstance(text, str) else text)


def _list(where: str, field: str, value: object) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise LabelError(f"{where}: found {value!r} as {field}, expected a list of texts")
    return value


def _group(where: str, group: object) -> str:
    parts = _text(where, "group", group).split("/") if group != "" else []
    return "/".join(_text(where, "group", part) for part in parts)


def _refuse_repeats(labels: Iterable[tuple[str, Label]]) -> None:
    first: dict[str, str] = {}  # where each name was found first
    for where, label in labels:
        for name in _names(label):
            if (key := _key(name)) in first:
                raise LabelError(
                    f"{where}: found {name!r}, which {first[key]} has too; a name or synonym may be there "
                    "once: remove one, or name them apart"
                )
            first[key] = where


def _names(label: Label) -> tuple[str, ...]:
    return (label.name, *label.synonyms)


def _key(name: str) -> str:
    """Return what is equal for names that nobody would tell apart."""
    return tidy("the label", name).casefold()


def few(names: Iterable[object]) -> str:
    """The first of some names, and how many more there are."""
    shown = [repr(name) for name in names]
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10:,} more" if len(shown) > 10 else "")
