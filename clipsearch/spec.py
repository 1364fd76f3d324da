"""Index specs: each TOML in `indexes/` is one tested way to lay vectors out for search.

"auto" looks at every vector up to MAX_EXACT bytes of them and takes the widest layout past that.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from .errors import IndexSpecError

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
        return self.factory.format(cells=cells(rows), pairs=pairs(dim))


EXACT = "exact"
LARGE = "ivf-pq-fastscan"


def cells(rows: int) -> int:
    """The power of two nearest to 4 sqrt(rows): k-means and search then take about as long."""
    exponent = round((4 + (max(rows, 1)).bit_length()) / 2)
    return int(2**exponent)


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
