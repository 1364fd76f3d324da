"""Architecture is a test: imports point down, and `import clipsearch` costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "clipsearch"
LAYERS = [
    {"errors"},
    {"types", "files", "documents", "faiss_check", "bank"},
    {"exif", "where", "query_text", "diversity", "feedback", "relevance"},
    {
        "sources",
        "decode",
        "encoders",
        "segments",
        "render",
        "report",
        "query_cache",
        "testing",
        "spec",
        "database",
    },
    {"store", "results", "progress", "arguments", "tiles"},
    {"writer", "exact", "near", "labels", "captioners", "query"},
    {"outcomes", "candidates", "captions", "gpu", "rerank", "query_vectors"},
    {"columns"},
    {"filters"},
    {"index"},
    {"search", "upkeep"},
    {"ingest", "spaces", "labelling", "captioning", "duplicates"},
    {"reader", "formats", "pictures", "overview"},
    {"second_look", "embedder"},
    {"calibration"},
    {"asking"},
    {"collection"},
    {"zeroshot"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ROOMS = sorted(
    path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
)
ROOMS = [room for room in ROOMS if room not in ("__init__", "__main__", "builtin")]


def imported_rooms(code, own):
    """Rooms that a module's code imports, in any spelling, inside functions too; `own`: its path's parts."""
    for node in ast.walk(ast.parse(code)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = own[: len(own) - node.level] if node.level else ()
            base = ".".join(
                [*(("clipsearch", *above) if node.level else ()), *([node.module] if node.module else [])]
            )
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "clipsearch" and len(parts) > 1 and parts[1] in LEVEL:
                yield parts[1]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_only_point_down(room):
    assert room in LEVEL, f"give {room} a place in LAYERS"
    files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else (PACKAGE / room).rglob("*.py")
    for file in files:
        for other in set(imported_rooms(file.read_text(), file.relative_to(PACKAGE).parts)) - {room}:
            assert LEVEL[other] < LEVEL[room], f"{file.relative_to(PACKAGE)} must not import {other}"


@pytest.mark.parametrize(
    ("code", "own"),
    [
        ("from .store import Store", ("a.py",)),
        ("from . import store", ("a.py",)),
        ("from .. import store", ("sources", "a.py")),
        ("from ..store import Store", ("sources", "a.py")),
        ("import clipsearch.store", ("a.py",)),
        ("from clipsearch import store", ("a.py",)),
        ("def f():\n    from clipsearch.store import Store", ("a.py",)),
    ],
)
def test_every_spelling_of_an_import_is_seen(code, own):
    assert set(imported_rooms(code, own)) == {"store"}


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_clipsearch_loads_none_of_the_heavy_packages():
    heavy = "{'torch', 'faiss', 'transformers', 'open_clip', 'numpy', 'PIL', 'sentence_transformers', 'tqdm'}"
    assert run(f"import sys, clipsearch; print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


def test_a_search_loads_neither_torch_nor_faiss(tmp_path):
    code = f"""
import sys, clipsearch
from clipsearch.testing import ColourEncoder
from PIL import Image
photos = clipsearch.Collection({str(tmp_path / "c")!r}, model=ColourEncoder())
photos.add([("red", Image.new("RGB", (4, 4), "red"))])
assert photos.search("red")[0].key == "red"
print(sorted({{'torch', 'faiss', 'transformers', 'open_clip'}} & set(sys.modules)))
"""
    assert run(code).strip() == "[]"
