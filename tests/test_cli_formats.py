"""`clipsearch export` and `clipsearch import`."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from clipsearch.cli import main
from clipsearch.collection import Collection
from clipsearch.testing import ColourEncoder


def run(*args: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("red", "blue"):
        Image.new("RGB", (8, 8), name).save(folder / f"{name}.png")
    with Collection(tmp_path / "photos.clipsearch", model=ColourEncoder()) as collection:
        collection.add(folder, progress=False)
    return tmp_path / "photos.clipsearch"


def test_an_export_is_imported_into_a_new_collection_without_its_model(photos: Path, tmp_path: Path) -> None:
    run("export", photos, "--to", tmp_path / "out", "--format", "npy")
    out = run("import", tmp_path / "out", "--to", tmp_path / "new", "--format", "npy").stdout
    assert "2 added" in out
    assert "model     colour: 2 vectors of 3 numbers" in run("info", tmp_path / "new").stdout


def test_json_says_where_and_how_many(photos: Path, tmp_path: Path) -> None:
    args = ("--to", tmp_path / "x.faiss", "--format", "faiss", "--where", "path like '%red.png'", "--json")
    said = json.loads(run("export", photos, *args).stdout)
    assert said == {"path": str(tmp_path / "x.faiss"), "format": "faiss", "pictures": 1}


def test_rows_that_fail_are_listed_and_exit_with_3(tmp_path: Path) -> None:
    (tmp_path / "n").mkdir()
    np.save(tmp_path / "n" / "vectors.npy", np.eye(2, 512) * [[1], [np.nan]])
    lines = [json.dumps({"path": f"/gone/{name}.jpg"}) for name in "ab"]
    (tmp_path / "n" / "items.jsonl").write_text("\n".join(lines))
    args = ("import", tmp_path / "n", "--to", tmp_path / "c", "--format", "npy")
    assert "give --model" in run(*args, code=2).output
    assert not (tmp_path / "c").exists()
    out = run(*args, "--model", "ViT-B-32/openai", code=3).stdout
    assert "/gone/b.jpg: its vector has no direction" in out and "1 have no file" in out
    assert "foreign:ViT-B-32/openai" in run("info", tmp_path / "c").stdout
    report = json.loads(run(*args, "--json", code=3).stdout)
    assert (report["gone"], report["unchanged"], len(report["failed"])) == (1, 1, 1)
