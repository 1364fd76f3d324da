"""Every snippet of the README and the docs runs, and so does every example."""

import contextlib
import re
import runpy
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from clipsearch.cli import main
from clipsearch.encoders import CATALOG

ROOT = Path(__file__).parents[1]
GENERATED = "cli.md"  # from the help texts, whose examples test_cli tries
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FENCE = re.compile(r"(<!-- (?P<mark>[^>]*?) -->\n+)?```(?P<language>\w*)\n(?P<code>.*?)```", re.DOTALL)
KNOWN = {"", "python", "{toctree}", "{eval-rst}", "{literalinclude}"}
NOT_RUN = ("needs a download", "needs a person", "install", "test")  # the last two: what .ci/run begins with


def snippets(page, language):
    for found in FENCE.finditer(page.read_text()):
        if found["language"] == language and found["mark"] not in NOT_RUN:
            yield found["code"]


def pages_with(language):
    return [
        pytest.param(page, id=page.name)
        for page in PAGES
        if page.name != GENERATED and any(snippets(page, language))
    ]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with photos, as the snippets expect."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "Photos"
    photos.mkdir()
    for number, colour in enumerate(("red", "green", "blue", "white", "orange", "navy")):
        Image.linear_gradient("L").convert("RGB").resize((80, 60)).point(
            lambda v, n=number: v // (n + 1)
        ).save(photos / f"{colour}.jpg")
    (photos / "broken.jpg").write_bytes(b"not a picture")
    Image.new("RGB", (60, 80), "tan").save(tmp_path / "query.jpg")
    return tmp_path


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_snippets_run(page, home):
    """Those of a page run one after the other, as a reader would."""
    names = {}
    with contextlib.redirect_stdout(None):
        for code in snippets(page, "python"):
            exec(compile(code, page.name, "exec"), names)
    for value in names.values():
        if hasattr(value, "close"):
            value.close()


@pytest.mark.parametrize("page", pages_with(""))
def test_command_lines_run(page, home):
    for code in snippets(page, ""):
        for line in code.splitlines():
            if line.startswith("clipsearch "):
                words = [
                    str(home / word[2:]) if word.startswith("~/") else word for word in shlex.split(line)
                ]
                result = CliRunner().invoke(main, words[1:], catch_exceptions=False)
                assert result.exit_code in (0, 3), f"{line}: {result.output}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) < 60


ARGUMENTS = {
    "search_photos": ["Photos", "something dark", "something light"],
    "more_like_this": ["Photos", "query.jpg"],
    "own_encoder": ["Photos", "query.jpg"],
    "moments_of_a_gif": ["dance.gif", "something light"],
    "most_alike": ["photos.clipsearch"],
    "to_pandas": ["Photos", "something dark"],
    "hugging_face_dataset": ["Photos", "something dark"],
    "langchain_retriever": ["Photos", "something dark"],
    "llama_index_retriever": ["Photos", "something dark"],
    "label_studio_tasks": ["Photos", "dog,grass,sea"],
    "fiftyone_labels": ["Photos", "dog,grass,sea"],
    "label_in_korean": ["Photos", "고양이,말,풀", "builtin"],
}


NEEDED = {  # too large for CI
    "hugging_face_dataset": "datasets",
    "langchain_retriever": "langchain_core",
    "llama_index_retriever": "llama_index.core",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path, home, capsys):
    if (module := NEEDED.get(path.stem)) and find_spec(module.split(".")[0]) is None:
        pytest.skip(f"needs the package {module}")
    frames = [Image.new("RGB", (40, 40), (n * 60, 0, 0)) for n in range(4)]
    frames[0].save("dance.gif", save_all=True, append_images=frames[1:])
    if path.stem == "to_pandas":
        for picture in (home / "Photos").glob("*.jpg"):
            picture.with_suffix(".json").write_text('{"score": 7}')  # a name of ours, too
    if path.stem == "most_alike":
        runpy.run_path(str(ROOT / "examples" / "search_photos.py"))["main"](*ARGUMENTS["search_photos"])
        capsys.readouterr()
    runpy.run_path(str(path))["main"](*ARGUMENTS[path.stem])
    lines = capsys.readouterr().out.splitlines()
    scores = [float(line.split()[0]) for line in lines if re.match(r"\s*\d\.\d{3}  ", line)]
    assert scores or path.stem == "more_like_this"
    assert (home / "more-like-this.html").exists() or path.stem != "more_like_this"


def test_no_link_of_the_docs_is_dead():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_table_of_models_has_every_alias_and_its_figures():
    page = (ROOT / "docs" / "models.md").read_text()
    for model in CATALOG.values():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{model.alias}` |")]
        assert f"| {model.parameters:,.0f} M | {model.image_size} px | {model.dim:,} |" in row
        assert f"| {model.imagenet or ''} |" in row


def test_no_snippet_is_in_a_language_that_is_not_run():
    for page in PAGES:
        languages = set(re.findall(r"^```([^\n]*)$", page.read_text(), re.MULTILINE))
        assert languages <= {
            "",
            "python",
            "{toctree}",
            "{eval-rst}",
            "{literalinclude} ../clipsearch/schema.sql",
            "{literalinclude} ../clipsearch/captions.sql",
        }
