"""The demo: real photos, no network, and queries whose answers are right."""

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from clipsearch.cli import main
from clipsearch.cli.demo import QUERIES, SMALL, answer, sample_photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(folder: Path) -> Iterator[Result]:
    """The demo as a user runs it, on a machine where every connection fails."""

    def refuse(*args: Any, **options: Any) -> NoReturn:
        raise OSError("the demo wanted the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        options = ["--out", str(folder / "page.html"), "--dir", str(folder / "demo.clipsearch")]
        yield CliRunner().invoke(main, ["demo", *options], catch_exceptions=False)


def test_the_sample_photos_are_in_the_package() -> None:
    photos = sample_photos()
    assert len(photos) == 16
    for photo in photos:
        with Image.open(photo) as image:
            assert min(image.size) >= 172


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_the_right_photo_comes_first_for_every_query(tmp_path: Path, precision: str) -> None:
    report, answers = answer(tmp_path / "demo.clipsearch", sample_photos(), precision=precision)
    assert (report.added, report.failed) == (16, [])
    assert {found.query: Path(found[0].path).name for found in answers} == QUERIES


def test_the_demo_answers_in_the_terminal_and_says_how_small_the_model_is(demo: Result, folder: Path) -> None:
    assert demo.exit_code == 0, demo.output
    blocks = [block.splitlines() for block in demo.stdout.split("\n\n")]
    first = {block[0]: block[1].split()[1] for block in blocks if block[0] in QUERIES}
    assert first == QUERIES
    assert SMALL in demo.stdout.splitlines()
    assert f"{folder / 'page.html'}" in demo.stdout


def test_the_page_holds_every_answer_and_needs_nothing_else(demo: Result, folder: Path) -> None:
    page = (folder / "page.html").read_text()
    for query, name in QUERIES.items():
        assert f">{query}</h2>" in page and name.partition(".")[0] in page
    assert page.count('src="data:image/jpeg;base64,') == 3 * len(QUERIES)
    assert "://" not in page and "<script" not in page
    assert SMALL in page
    assert str(sample_photos()[0].parent) not in page


def test_the_collection_can_be_kept_and_searched(demo: Result, folder: Path) -> None:
    result = CliRunner().invoke(main, ["info", str(folder / "demo.clipsearch"), "--json"])
    assert json.loads(result.stdout)["pictures"] == 16


def test_the_demo_as_json_is_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["demo", "--json"], catch_exceptions=False)
    told = json.loads(result.stdout)
    assert {a["query"]: Path(a["hits"][0]["path"]).name for a in told["answers"]} == QUERIES
    assert Path(told["page"]) == tmp_path / "clipsearch-demo.html"
    assert list(tmp_path.iterdir()) == [Path(told["page"])]  # and nothing else is left


def test_without_the_extra_the_pip_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "skimage"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not (Path(entry) / "skimage").exists()])
    result = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "x.html")], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (1, "")
    expected = "clipsearch: this needs the package 'skimage': pip install 'clipsearch[demo]'\n"
    assert result.stderr == expected
