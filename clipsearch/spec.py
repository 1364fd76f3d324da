"""Index specs: each TOML in `indexes/` is one tested way to lay vectors out for search.

"auto" looks at every vector up to MAX_EXACT bytes of them and takes the widest layout past that.
"""

import math
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from .errors import LayoutError

MAX_EXACT = 1_000_000_000  # bytes of stored float16 vectors, some 30 ms a query on two cores
ROW_BYTES = 8  # of each row's number, which an index keeps beside its code


@dataclass(frozen=True)
class IndexSpec:
    """One way to lay vectors out, and when to choose it.

    Attributes:
        name: how it is asked for.
        when: when to choose it, for a person to read.
        factory: a FAISS factory string, in which {cells} and {pairs} stand for a power of two near
            4 sqrt(rows) and for dim / 2; empty: the stored vectors themselves, nothing is built.
        min_rows: the least vectors for which it is worth building.
        train_per_cell: vectors that each cell is trained on.
        probes: cells that are read for a query, and `depth`: candidates rescored for each hit; both
            only until they are tuned.
        code_bits: bits of memory that a number of a vector takes; 0: nothing beside the stored vectors.
        min_recall: recall@10 on text queries, against brute force, that the tests hold it to.
    """

    name: str
    when: str
    factory: str = ""
    min_rows: int = 0
    train_per_cell: int = 0
    probes: int = 1
    depth: int = 1
    code_bits: int = 0
    min_recall: float = 0.0

    def bytes_per_vector(self, dim: int) -> int:
        """Bytes of memory that a vector takes in the index, beside the stored float16 one."""
        return self.code_bits * dim // 8 + ROW_BYTES * bool(self.code_bits)

    def written_out(self, rows: int, dim: int) -> str:
        """The factory string for so many vectors."""
        return self.factory.replace("{cells}", str(cells(rows))).replace("{pairs}", str(pairs(dim)))


AUTO, EXACT = "auto", "exact"
TARGET = 0.95  # recall@10 that an index is tuned to, unless another is asked for
TRAIN_PER_CELL = 48  # vectors: FAISS warns below 39, and more hardly help
LARGE = "ivf-pq-fastscan"


def cells(rows: int) -> int:
    """The power of two nearest to 4 sqrt(rows): k-means and search then take about as long."""
    return 1 << round(math.log2(4 * math.sqrt(max(rows, 1))))


def pairs(dim: int) -> int:
    """Codes of 4 bits that a vector is written in: one for two numbers, or one each where dim is odd."""
    return dim // 2 if dim % 2 == 0 else dim


@cache
def index_specs() -> dict[str, IndexSpec]:
    """Every spec that ships with the package, by name, those for few vectors first."""
    folder = files("clipsearch.indexes")
    paths = [path for path in folder.iterdir() if path.name.endswith(".toml")]
    specs = [IndexSpec(path.name.removesuffix(".toml"), **tomllib.loads(path.read_text())) for path in paths]
    return {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.min_rows)}


def spec_of(layout: str) -> IndexSpec:
    """The shipped spec of that name, or one made of a FAISS factory string.

    Raises:
        LayoutError: it is neither a name nor a text that could be a factory string.
    """
    if not isinstance(layout, str) or not layout.strip():
        raise LayoutError(f"a layout is a name such as 'exact' or a FAISS factory string, got {layout!r}")
    own = IndexSpec(layout, "your own", layout, train_per_cell=TRAIN_PER_CELL, probes=16, depth=32)
    return index_specs().get(layout, own)


class Choice(NamedTuple):
    """A layout, and why it was taken."""

    spec: IndexSpec
    why: str


def choose(rows: int, dim: int, memory: int | None = None) -> Choice:
    """The layout that "auto" means for so many vectors, with `memory` bytes for an index; None: enough."""
    specs, stored = index_specs(), 2 * rows * dim
    if stored <= MAX_EXACT:
        return Choice(specs[EXACT], f"{size(stored)} of vectors; up to 1 GB every one is looked at")
    needed = specs[LARGE].bytes_per_vector(dim) * rows
    if memory is not None and needed > memory:
        short = f"an index would take {size(needed)} of memory, and {size(memory)} are allowed"
        return Choice(specs[EXACT], short)
    return Choice(specs[LARGE], f"{size(stored)} of vectors, more than 1 GB")


def size(count: float) -> str:
    """Bytes for a person: "812 bytes", "1.2 MB", "15 GB"."""
    if count < 1000:
        return f"{count:.0f} bytes"
    power = min(4, int(math.log(count * 1.0005, 1000)))
    count, unit = count / 1000**power, ("", "kB", "MB", "GB", "TB")[power]
    return f"{count:.1f} {unit}" if count < 9.95 else f"{count:,.0f} {unit}"


UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def as_bytes(memory: int | str) -> int:
    """How many bytes 4_000_000_000, "4GB" or "3.5 GiB" is.

    Raises:
        LayoutError: it is none of these, or not positive.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-z]*)\s*", str(memory))
    if not found or found[2].upper() not in UNITS or not float(found[1]):
        raise LayoutError(f"memory is a number of bytes or a text such as '4GB', got {memory!r}")
    return int(float(found[1]) * UNITS[found[2].upper()])
