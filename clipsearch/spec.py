"""Index specs: each TOML in `indexes/` is one tested way to lay vectors out for search."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class IndexSpec:
    """One way to lay vectors out, and when to choose it."""

    name: str
    layout: str  # "exact": the segments' own rows
    max_bytes: int  # of stored float16 vectors, up to which it is the one to choose
    min_recall: float  # recall@10 against brute force


def index_specs() -> list[IndexSpec]:
    """Every spec that ships with the package, by name."""
    folder = files("clipsearch.indexes")
    paths = sorted(
        (path for path in folder.iterdir() if path.name.endswith(".toml")), key=lambda path: path.name
    )
    return [IndexSpec(path.name.removesuffix(".toml"), **tomllib.loads(path.read_text())) for path in paths]


def index_for(size: int) -> IndexSpec:
    """The layout for `size` bytes of stored vectors: the smallest that is made for them, else the largest."""
    specs = sorted(index_specs(), key=lambda spec: spec.max_bytes)
    return next((spec for spec in specs if size <= spec.max_bytes), specs[-1])
