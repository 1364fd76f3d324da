"""Label results as tables that other programs read, and such tables read back."""

import csv
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import LabelError, require
from ..files import write_durably
from ..render import printable
from .results import LabelResults

if TYPE_CHECKING:
    from pandas import DataFrame

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
BETWEEN = "|"  # labels of one picture, in one cell
ROWS = 10_000  # pictures made into rows at a time: a row group of a parquet file
NAMES_AS_BYTES = sys.getfilesystemencodeerrors()  # a file name that is not UTF-8 keeps its bytes
FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")  # what a spreadsheet may run starts like this, quotes aside
NUMBER = re.compile(r"score(_\d+)?|cosine|unknown")
GUESS = re.compile(r"label_\d+")


def write_table(results: LabelResults, path: str | os.PathLike[str], kind: str = "") -> Path:
    r"""Write a table with one row for every picture, the unreadable too; its name's ending says how.

    - .csv, .tsv: the columns path, key, source, id, verdict, label, score, cosine, unknown, then
      label_1, label_2, score_2, … (the best labels, said or not; `score` is that of label_1), and
      reason. What is not known is an empty cell. Where a picture may have several labels, `labels`
      stands in for `label` and joins them by "|". As in RFC 4180; UTF-8 with no mark at the start; a
      file name that is not UTF-8 keeps its bytes. A text that a spreadsheet would run as a formula,
      as it begins with = + - @, a tab or a line break, gets a ' before it, which OWASP advises:
      "-a.jpg" becomes "'-a.jpg". read_table takes the ' away again; other programs do not.
    - .jsonl: the dicts of results.to_dicts(), one a line; .json: a list of them. ASCII: all other
      characters are escaped, a byte of a file name that is not UTF-8 as "\udcff".
    - .parquet: the same fields, typed: labels are a list, guesses a list of structs, scores float32.
      Parquet's texts are UTF-8; of a file name that is not, such a byte is made visible ("\xff") and
      the row is known by its id.

    Args:
        results: what to write; may be empty.
        path: the file to write; an existing one is replaced.
        kind: the ending to go by, whatever the name's is, such as ".csv".

    Returns:
        Where it was written, absolute.

    Raises:
        LabelError: the name ends in something else, or a label holds the "|" that is to separate them.
        MissingExtraError: pyarrow is not installed; the message has the pip command.
        CollectionError: it cannot be written.
    """
    whole, ending = check_name(path, kind)
    if ending in SEPARATORS:
        _check_separable(results)
        flat = (_flat(row) for rows in _slices(results) for row in rows)
        write_cells(whole, _columns(results), flat, SEPARATORS[ending])
    elif ending == ".parquet":
        write_durably(whole, partial(_write_parquet, results))
    else:
        rows = (json.dumps(row) for rows in _slices(results) for row in rows)
        write_text(whole, (row + "\n" for row in rows) if ending == ".jsonl" else listed(rows))
    return whole


def to_pandas(results: LabelResults) -> "DataFrame":
    """The columns of a CSV file, one row a picture; where there may be several labels, they are a list.

    Raises:
        MissingExtraError: pandas is not installed; the message has the pip command.
    """
    require("pandas", extra="pandas")
    import pandas

    columns = _columns(results)
    rows = [_flat(row) for row in results.to_dicts()]
    try:
        return pandas.DataFrame(rows, columns=columns)
    except UnicodeEncodeError:  # Arrow's strings cannot hold a file name that is not UTF-8
        numbers = {name: "float64" for name in columns if NUMBER.fullmatch(name)}
        return pandas.DataFrame(rows, columns=columns, dtype=object).astype({"id": "int64"} | numbers)


def read_table(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read a table that write_table wrote, or one that was made or changed by hand.

    Args:
        path: a file that ends like one of write_table. It needs each picture's path or id, and its
            label or labels (these count where it has both). Other columns may be missing; those of
            names unknown here are kept, from CSV as text.

    Returns:
        One dict a row, with the keys of LabelResults.to_dicts() that the file has columns for. `label`
        and `labels` are always among them: None and empty where nothing is said. Of CSV, guesses
        after the first have no cosine.

    Raises:
        LabelError: it cannot be read or is no such table; the message tells the line.
        MissingExtraError: pyarrow is not installed; the message has the pip command.
    """
    whole, ending = check_name(path)
    try:
        if ending == ".parquet":
            return list(_parquet_rows(whole))
        # Spreadsheets put a mark at the start.
        with whole.open(encoding="utf-8-sig", errors=NAMES_AS_BYTES, newline="") as file:
            if ending in SEPARATORS:
                return list(_cell_rows(file, whole.name, SEPARATORS[ending]))
            return list(_json_lines(file, whole.name) if ending == ".jsonl" else _json_list(file, whole.name))
    except OSError as error:
        raise LabelError(f"cannot read {whole}: {error.strerror or error}") from error


def write_cells(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], separator: str = ","
) -> None:
    """Write the cells of a table; the file appears whole or not at all. See write_table for how."""

    def write(file: BinaryIO) -> None:
        text = TextIOWrapper(file, "utf-8", NAMES_AS_BYTES, newline="")
        table = csv.writer(text, delimiter=separator)  # lines end in CR LF (RFC 4180), so both are quoted
        table.writerow(columns)
        table.writerows([cell(row.get(name)) for name in columns] for row in rows)
        text.detach()  # writes what is left, and leaves the file open

    write_durably(path, write)


def cell(value: Any) -> Any:
    """What stands in a cell: several joined, and a ' before what a spreadsheet would run as a formula."""
    text = BETWEEN.join(value) if isinstance(value, list) else value
    return f"'{text}" if isinstance(text, str) and FORMULA.match(text) else text


def write_text(path: Path, parts: Iterable[str]) -> None:
    """Write parts of a text one after the other; the file appears whole or not at all."""
    write_durably(path, lambda file: file.writelines(part.encode() for part in parts))


def listed(entries: Iterable[str], opening: str = "[", closing: str = "]") -> Iterator[str]:
    """Parts of a JSON list, or of what else `opening` and `closing` make of it, one entry a line."""
    yield opening
    for place, entry in enumerate(entries):
        yield f",\n{entry}" if place else f"\n{entry}"
    yield f"\n{closing}\n"


def shown(text: str) -> str:
    """The text itself where it can be UTF-8, else with what cannot made visible."""
    return text if is_utf8(text) else printable(text)


def is_utf8(text: str) -> bool:
    """Whether there is no lone surrogate in it, Python's stand-in for a byte that is not UTF-8."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def check_name(path: str | os.PathLike[str], kind: str = "") -> tuple[Path, str]:
    """Return a table's absolute path and its ending, before there is work that may be for nothing.

    Args:
        path: of the table.
        kind: the ending to go by in the place of its own.

    Raises:
        LabelError: it has another ending.
        MissingExtraError: it is Parquet and pyarrow is not installed.
    """
    whole = Path(path).expanduser().absolute()
    ending = kind or whole.suffix.lower()
    if ending not in ENDINGS:
        raise LabelError(f"found the name {whole.name!r}; expected one that ends in {', '.join(ENDINGS)}")
    if ending == ".parquet":
        require("pyarrow", extra="parquet")
    return whole, ending


def _check_separable(results: LabelResults) -> None:
    for name in results.labels.names if results.multi else ():
        if BETWEEN in name:
            raise LabelError(f"{name!r} holds the {BETWEEN!r} that is to separate labels; write .jsonl")


def _slices(results: LabelResults) -> Iterator[list[dict[str, Any]]]:
    return (results[start : start + ROWS].to_dicts() for start in range(0, len(results), ROWS))


def _columns(results: LabelResults) -> list[str]:
    about = ["path", "key", "source", "id", "verdict", "labels" if results.multi else "label"]
    places = range(2, results.scored.top.shape[1] + 1)
    others = [f"{what}_{place}" for place in places for what in ("label", "score")]
    return [*about, "score", "cosine", "unknown", "label_1", *others, "reason"]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    guesses = enumerate(row["guesses"], 1)
    return row | {f"{what}_{place}": guess[what] for place, guess in guesses for what in ("label", "score")}


def _write_parquet(results: LabelResults, file: BinaryIO) -> None:
    import pyarrow
    from pyarrow import parquet

    text, number = pyarrow.string(), pyarrow.float32()
    guess = pyarrow.struct([("label", text), ("score", number), ("cosine", number)])
    columns = [
        *[("id", pyarrow.int64()), ("path", text), ("key", text), ("source", text), ("verdict", text)],
        *[("label", text), ("labels", pyarrow.list_(text)), ("score", number), ("cosine", number)],
        *[("unknown", number), ("guesses", pyarrow.list_(guess)), ("reason", text)],
    ]
    schema = pyarrow.schema(columns)
    with parquet.ParquetWriter(file, schema) as table:
        for rows in _slices(results):
            table.write_table(pyarrow.Table.from_pylist([_storable(row) for row in rows], schema))


def _storable(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: shown(row[name]) for name in ("path", "key", "source", "reason") if row[name]}


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as table:
            rows = (row for batch in table.iter_batches() for row in batch.to_pylist())
            yield from (_checked(row, f"{path.name}, row {place}") for place, row in enumerate(rows, 1))
    except pyarrow.ArrowInvalid as error:
        raise LabelError(f"{path.name} is no parquet file: {error}") from error


def _json_lines(file: Iterable[str], name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield _checked(_parsed(line, f"{name}, line {number}"), f"{name}, line {number}")


def _json_list(file: Iterable[str], name: str) -> Iterator[dict[str, Any]]:
    entries = _parsed("".join(file), name)
    if not isinstance(entries, list):
        raise LabelError(f"{name} holds a {type(entries).__name__}; expected a list of objects")
    return (_checked(entry, f"{name}, entry {place}") for place, entry in enumerate(entries, 1))


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise LabelError(f"{where}: this is no JSON: {error}") from error


def _cell_rows(file: Iterable[str], name: str, separator: str) -> Iterator[dict[str, Any]]:
    lines = iter(file)
    first = next(lines, "")
    if separator == "," and ";" in first and "," not in first:
        separator = ";"  # as spreadsheets write it where the comma is in numbers
    table = csv.reader(chain([first], lines), delimiter=separator, strict=True)
    try:
        header = next(table, [])
        _check_columns(header, f"{name}, line 1")
        for cells in filter(any, table):  # a spreadsheet may leave rows with nothing in them
            where = f"{name}, line {table.line_num}"
            if len(cells) > len(header):
                raise LabelError(f"{where}: found {len(cells)} cells; expected {len(header)}, as in line 1")
            cells += [""] * (len(header) - len(cells))  # Excel leaves out empty ones at the end
            yield _checked(_valued(dict(zip(header, cells, strict=True)), where), where)
    except csv.Error as error:
        raise LabelError(f"{name}, line {table.line_num}: {error}") from error


def _valued(cells: dict[str, str], where: str) -> dict[str, Any]:
    row = {name: _value(name, cell, where) for name, cell in cells.items()}
    if "labels" in row:
        row["labels"] = row["labels"].split(BETWEEN) if row["labels"] else []
    columns = [name for name in row if GUESS.fullmatch(name)]
    if not columns:
        return row
    guesses = [_guess(row, name) for name in columns]
    return row | {"guesses": [guess for guess in guesses if guess["label"] is not None]}


def _guess(row: dict[str, Any], column: str) -> dict[str, Any]:
    label, score = row.pop(column), row.pop(column.replace("label", "score"), None)
    first = column == "label_1"
    return {
        "label": label,
        "score": row.get("score") if first else score,
        "cosine": row.get("cosine") if first else None,
    }


def _value(name: str, cell: str, where: str) -> Any:
    if not cell:
        return None
    try:
        if name == "id":
            return int(cell)
        if NUMBER.fullmatch(name):
            return float(cell.replace(",", "."))
    except ValueError:
        raise LabelError(f"{where}: found {name} {cell!r}; expected a number") from None
    return cell[1:] if cell[0] == "'" and FORMULA.match(cell) else cell


def _check_columns(names: Collection[str], where: str) -> None:
    twice = [name for name, times in Counter(list(names)).items() if times > 1]
    if twice:
        raise LabelError(f"{where}: there are two columns {twice[0]!r}; expected one of each name")
    if not {"path", "id"} & set(names) or not {"label", "labels"} & set(names):
        found = ", ".join(names) or "nothing"
        raise LabelError(f"{where}: found {found:.200}; expected path or id, and label or labels")


def _checked(row: Any, where: str) -> dict[str, Any]:
    """A row that says which picture it is of, with what is said of it in `labels` and `label`."""
    if not isinstance(row, dict):
        raise LabelError(f"{where}: found a {type(row).__name__}; expected an object")
    _check_columns(row, where)
    path, number, label = row.get("path"), row.get("id"), row.get("label")
    labels = row.get("labels", [] if label is None else [label])
    if not isinstance(labels, list) or not all(isinstance(name, str) and name for name in labels):
        raise LabelError(f"{where}: found the labels {labels!r:.200}; expected texts")
    if not (isinstance(path, str) and path) and not isinstance(number, int):
        raise LabelError(f"{where}: found path {path!r:.200} and id {number!r}; expected a text or a number")
    return row | {"label": labels[0] if labels else None, "labels": labels}
