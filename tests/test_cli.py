"""The commands, on a collection of colours whose answers can be worked out by hand."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from clipsearch.cli import main
from clipsearch.cli.output import counted, shown
from clipsearch.collection import Collection
from clipsearch.encoders import CATALOG
from clipsearch.spec import size
from clipsearch.testing import ColourEncoder

PROGRAM = [sys.executable, "-c", "from clipsearch.cli import main; main()"]
EVIL = "red\x1b[31m.png"
PIXELS = {
    "red.png": (255, 0, 0),
    "orange.png": (255, 90, 0),
    "blue.png": (0, 0, 255),
    "sea/cyan.png": (0, 255, 255),
}


def run(*args: object, input: str | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args], input=input, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "sea").mkdir(parents=True)
    for name, colour in PIXELS.items():
        Image.new("RGB", (8, 8), colour).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"")
    return folder


@pytest.fixture
def photos(tmp_path: Path, pictures: Path) -> Path:
    """Four pictures and a broken one, in a collection made with an encoder no command can load."""
    folder = tmp_path / "photos.clipsearch"
    with Collection(folder, model=ColourEncoder()) as collection:
        collection.add(pictures, progress=False)
    return folder


@pytest.fixture
def id_of(photos: Path) -> Callable[[str], int]:
    with Collection(photos, model=ColourEncoder()) as collection:
        ids = {hit.key: hit.id for hit in collection.search("red", k=9)}
    return ids.__getitem__


@pytest.fixture
def cache(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The query "red" was asked before, so that it needs no model."""
    monkeypatch.setenv("CLIPSEARCH_QUERY_CACHE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with Collection(photos, model=ColourEncoder()) as collection:
        collection.search("red")
    yield


# ---------------------------------------------------------------------- the program


def test_alone_it_shows_its_commands_in_the_order_people_need_them() -> None:
    shown = run().output
    names = re.findall(r"^  (\w+)  +[A-Z]", shown, re.M)
    first = ["demo", "index", "search", "label", "duplicates", "caption"]
    then = ["info", "verify", "compact", "remove", "relocate", "export", "import"]
    assert names == [*first, *then, "models", "indexes"]


@pytest.mark.parametrize("command", main.commands.values(), ids=lambda command: command.name)
def test_every_command_says_what_it_does_gives_an_example_and_explains_every_option(
    command: click.Command,
) -> None:
    assert command.help
    assert f"clipsearch {command.name}" in (command.epilog or "")
    assert "--json" in [name for param in command.params for name in param.opts]
    for param in command.params:
        assert isinstance(param, click.Argument) or (isinstance(param, click.Option) and param.help)


def test_no_summary_of_a_command_is_cut_off() -> None:
    assert "..." not in run().output.partition("Commands:")[2]


def test_help_costs_no_numpy_no_pillow_and_no_torch() -> None:
    code = f"{PROGRAM[2].replace('main()', 'main(standalone_mode=False)')}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert not {"numpy", "PIL", "torch", "open_clip", "faiss", "sqlite3"} & set(done.stdout.split())


def test_what_the_library_logs_is_plain_lines_on_standard_error() -> None:
    code = (
        "import logging; from clipsearch.cli import main; main(['models', '--json'], standalone_mode=False);"
        "logging.getLogger('clipsearch').info('downloading %s', '1 \\x1b MB');"
        "logging.getLogger('clipsearch').debug('a detail')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "downloading 1 \\x1b MB\n"
    assert isinstance(json.loads(done.stdout), list)


def test_a_command_that_does_not_exist_is_wrong_usage() -> None:
    assert "No such command" in run("find", code=2).stderr


def test_an_error_of_ours_is_one_line_on_standard_error(tmp_path: Path) -> None:
    result = run("info", tmp_path / "no\nwhere", code=1)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    found = f"no collection at {tmp_path}/no\\nwhere (its folder comes first)"
    assert result.stderr.startswith(f"clipsearch: {found}; make one")


@pytest.mark.parametrize("command", ["search", "info", "verify", "compact", "remove", "relocate"])
def test_commands_on_a_collection_that_is_not_there_make_none(tmp_path: Path, command: str) -> None:
    more = {"search": ["red"], "remove": ["1"], "relocate": ["a", "b"]}.get(command, [])
    result = run(command, tmp_path / "absent", *more, code=1)
    assert "make one with `clipsearch index`" in result.stderr
    assert not (tmp_path / "absent").exists()


def test_the_documentation_is_what_the_commands_say() -> None:
    documented = Path(__file__).parents[1] / "docs" / "cli.md"
    assert documented.read_text(encoding="utf-8") == _reference().reference(), "run: python docs/make_cli.py"


def test_the_documentation_names_every_command_and_option() -> None:
    text = _reference().reference()
    for command in main.commands.values():
        assert f"## clipsearch {command.name}\n" in text
        for param in command.params:
            assert isinstance(param, click.Argument) or f"| `{param.opts[0]}" in text


def _reference() -> ModuleType:
    path = Path(__file__).parents[1] / "docs" / "make_cli.py"
    spec = importlib.util.spec_from_file_location("make_cli", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------- search


def test_search_into_a_pipe_is_score_tab_path_best_first(photos: Path, pictures: Path, cache: None) -> None:
    lines = [line.split("\t") for line in run("search", photos, "red", "-k", 3).stdout.splitlines()]
    assert [path for _, path in lines] == [str(pictures / f"{n}.png") for n in ("red", "orange", "sea/cyan")]
    # (256, 1, 1) and (256, 91, 1), each made unit length: their dot product by hand, of float16 rows
    assert float(lines[0][0]) == pytest.approx(1, abs=1e-3)
    expected = (256 * 256 + 91 + 1) / ((256**2 + 2) ** 0.5 * (256**2 + 91**2 + 1) ** 0.5)
    assert float(lines[1][0]) == pytest.approx(expected, abs=1e-3)


def test_a_cached_search_imports_neither_torch_nor_faiss(photos: Path, pictures: Path, cache: None) -> None:
    command = [sys.executable, "-X", "importtime", *PROGRAM[1:], "search", str(photos), "red", "-k", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\t")[1] == f"{pictures / 'red.png'}\n"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "clipsearch.collection" in imported
    assert not {"torch", "open_clip", "faiss", "transformers", "sentence_transformers", "tqdm"} & imported


def test_a_search_of_an_empty_collection_says_so(tmp_path: Path) -> None:
    Collection(tmp_path / "c", model="builtin").close()
    result = run("search", tmp_path / "c", "a dog")
    assert result.stdout == ""
    assert "has no pictures yet" in result.stderr
    assert json.loads(run("search", tmp_path / "c", "a dog", "--json").stdout) == []


def test_search_json_is_one_list_and_nothing_else(photos: Path, pictures: Path, cache: None) -> None:
    hits = json.loads(run("search", photos, "red", "-k", 2, "--json").stdout)
    assert [hit["key"] for hit in hits] == ["red.png", "orange.png"]
    assert hits[0]["path"] == str(pictures / "red.png")
    known = {"id", "path", "key", "source", "score", "cosine", "relevance", "box", "metadata", "judgements"}
    assert set(hits[0]) == known
    assert hits[0]["metadata"]["width"] == 8


def test_a_calibrated_search_tells_relevance_and_when_there_is_none(photos: Path, cache: None) -> None:
    assert json.loads(run("search", photos, "red", "--json").stdout)[0]["relevance"] is None
    with Collection(photos, model=ColourEncoder()) as collection:
        collection.calibrate()
        expected = [hit.relevance for hit in collection.search("red")]
    every = run("search", photos, "red", "--json", "--min-relevance", 0)
    assert [hit["relevance"] for hit in json.loads(every.stdout)] == expected
    nothing = run("search", photos, "red", "--min-relevance", 1)
    assert (nothing.stdout, nothing.stderr) == ("", "nothing relevant found\n")


def test_operators_are_read_in_query_alone(photos: Path, cache: None) -> None:
    with Collection(photos, model=ColourEncoder()) as collection:
        collection.calibrate()
        collection.search_many(["blue"])  # so that they need no model
    away = json.loads(run("search", photos, "--query", "red - blue", "-k", 1, "--json").stdout)
    red, blue = (256, 1, 1), (1, 1, 256)
    length = (256**2 + 2) ** 0.5
    difference = [a - b for a, b in zip(red, blue, strict=True)]
    far = sum(d * r for d, r in zip(difference, red, strict=True)) / (255 * 2**0.5 * length)
    assert away[0]["score"] == pytest.approx(far, abs=1e-3)
    both = json.loads(run("search", photos, "--query", "red & ~blue", "-k", 1, "--json").stdout)
    assert (both[0]["key"], both[0]["cosine"]) == ("red.png", None)
    wrong = run("search", photos, "--query", "red & ~", code=1).stderr
    assert "at character" in wrong
    assert "give one of QUERY, --query" in run("search", photos, "red", "--query", "red", code=2).stderr


def test_liked_pictures_are_asked_with(photos: Path, id_of: Callable[[str], int]) -> None:
    with Collection(photos, model=ColourEncoder()) as collection:
        liked, middle = id_of("blue.png"), collection.embeddings()[1].mean(0)
        ids, vectors = collection.embeddings()
        towards = vectors[ids.index(liked)] - middle
        best = ids[int((vectors @ towards).argmax())]
    result = run("search", photos, "--liked", liked, "-k", 1, "--json")
    assert [hit["id"] for hit in json.loads(result.stdout)] == [best]


def test_more_like_this_leaves_out_this(photos: Path, id_of: Callable[[str], int]) -> None:
    hits = json.loads(run("search", photos, "--item", id_of("red.png"), "--json").stdout)
    assert [hit["key"] for hit in hits] == ["orange.png", "sea/cyan.png", "blue.png"]


def test_an_item_that_is_not_there_is_an_error(photos: Path) -> None:
    assert "has the id 4711" in run("search", photos, "--item", 4711, code=1).stderr


def test_a_search_with_a_condition_finds_what_passes(photos: Path, pictures: Path, cache: None) -> None:
    found = run("search", photos, "red", "--where", "key like '%e.png' and path like '%/pictures/_%'").stdout
    assert [line.split("\t")[1] for line in found.splitlines()] == [
        str(pictures / name) for name in ("orange.png", "blue.png")
    ]
    nothing = run("search", photos, "red", "--where", "width > 8")
    assert nothing.stdout == ""
    assert "nothing passes --where width > 8" in nothing.stderr
    assert json.loads(run("search", photos, "red", "--where", "width > 8", "--json").stdout) == []


def test_a_condition_that_is_none_is_one_line_that_names_the_character(photos: Path) -> None:
    for command in (["search", photos, "red"], ["search", photos], ["remove", photos]):
        error = run(*command, "--where", "width >\n", code=1).stderr
        assert error.startswith("clipsearch: where, at character 9 of [width >\\n]: found the end, expected")
        assert error.count("\n") == 1


def test_search_writes_a_page_and_tells_where(photos: Path, tmp_path: Path, cache: None) -> None:
    page = tmp_path / "red.html"
    assert run("search", photos, "red", "--html", page).stdout == f"{shown(page)}\n"
    assert "red.png" in page.read_text() and str(tmp_path) not in page.read_text()
    run("search", photos, "red", "--html", page, "--reveal")
    assert str(tmp_path) in page.read_text()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["red", "--item", "1"], "give one of QUERY, --query, --image and --item"),
        (["--json"], "go with a QUERY"),
        (["--html", "x.html"], "go with a QUERY"),
        (["red", "--html", "x.html", "--json"], "give one of --json and --html"),
        (["red", "--reveal"], "--reveal goes with --html"),
        (["red", "-k", "0"], "0 is not in the range"),
    ],
)
def test_search_refuses_what_does_not_go_together(photos: Path, options: list[str], reason: str) -> None:
    assert reason in " ".join(run("search", photos, *options, code=2).stderr.split())


@pytest.mark.parametrize("query", ["", "  "])
def test_a_query_without_words_is_an_error_and_no_prompt(photos: Path, query: str) -> None:
    assert "must have words" in run("search", photos, query, code=1).stderr


def test_names_that_would_steer_a_terminal_are_shown_and_json_keeps_them(
    photos: Path, pictures: Path, cache: None
) -> None:
    (pictures / "red.png").rename(pictures / EVIL)
    with Collection(photos, model=ColourEncoder()) as collection:
        assert collection.add(pictures, progress=False).moved == 1
    assert run("search", photos, "red", "-k", 1).stdout.endswith("red\\x1b[31m.png\n")
    assert json.loads(run("search", photos, "red", "-k", 1, "--json").stdout)[0]["key"] == EVIL


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
@pytest.mark.parametrize("no_color", ["", "1"])
def test_on_a_terminal_hits_have_rank_score_id_and_a_short_path(
    photos: Path, pictures: Path, cache: None, id_of: Callable[[str], int], no_color: str
) -> None:
    ours, theirs = os.openpty()
    command = [*PROGRAM, "search", str(photos), "red", "-k", "2"]
    environment = os.environ | {"NO_COLOR": no_color, "TERM": "xterm"}
    subprocess.run(command, stdout=theirs, cwd=pictures.parent, env=environment, check=True)
    os.close(theirs)
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    assert ("\x1b" in text) is not bool(no_color)
    lines = re.sub(r"\x1b\[\d*m", "", text).splitlines()
    assert [re.sub(r"\.\d\d\d ", ".nnn ", line) for line in lines] == [
        f"1  1.nnn  #{id_of('red.png')}  pictures/red.png",
        f"2  0.nnn  #{id_of('orange.png')}  pictures/orange.png",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_reader_that_stops_early_makes_no_noise(photos: Path, cache: None) -> None:
    script = '"$0" "$@" | true'
    command = ["sh", "-c", script, *PROGRAM, "search", str(photos), "red", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("arguments", "output", "reason"),
    [
        (["search", "DIR", "red"], ">&-", "standard output is closed"),
        (["search", "DIR", "red", "--json"], ">&-", "standard output is closed"),
        (["search", "DIR", "red"], ">/dev/full", "No space left on device"),
        (["--help"], ">/dev/full", "No space left on device"),
    ],
)
def test_output_that_cannot_be_written_is_one_line_and_exit_code_1(
    photos: Path, cache: None, arguments: list[str], output: str, reason: str
) -> None:
    given = [str(photos) if argument == "DIR" else argument for argument in arguments]
    command = ["sh", "-c", f'"$0" "$@" {output}', *PROGRAM, *given]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("clipsearch: ") and reason in done.stderr


# ---------------------------------------------------------------------- info, verify and the rest


def test_info_tells_numbers_sources_and_model(photos: Path, pictures: Path) -> None:
    lines = run("info", photos).stdout.splitlines()
    assert lines[0] == shown(photos)
    assert "  pictures  4" in lines and "  failed    1; --failed lists them" in lines
    assert f"  folder    {shown(pictures)}" in lines
    assert "  model     colour: 4 vectors of 3 numbers, 24 bytes in 1 file" in lines
    about = json.loads(run("info", photos, "--json").stdout)
    assert (about["pictures"], about["failed"], about["missing"]) == (4, 1, 0)


def test_info_tells_how_many_are_copies_and_how_many_are_gone(photos: Path, pictures: Path) -> None:
    (pictures / "copy.png").write_bytes((pictures / "red.png").read_bytes())
    (pictures / "blue.png").unlink()
    with Collection(photos, model=ColourEncoder()) as collection:
        collection.add(pictures, progress=False)
    text = run("info", photos).stdout
    assert "  pictures  4 (3 different ones)\n" in text
    assert "  missing   1 gone from their sources, hidden and kept\n" in text


def test_info_lists_what_failed_and_why(photos: Path, pictures: Path) -> None:
    assert run("info", photos, "--failed").stdout == f"{shown(pictures / 'broken.jpg')}: the file is empty\n"
    listed = json.loads(run("info", photos, "--failed", "--json").stdout)
    assert listed == [{"path": str(pictures / "broken.jpg"), "reason": "the file is empty"}]


def test_verify_is_content_with_what_was_written(photos: Path) -> None:
    assert run("verify", photos).stdout.startswith("all is as written: ")
    found = json.loads(run("verify", photos, "--json").stdout)
    assert (found["ok"], found["vectors"], found["problems"]) == (True, 4, [])


def test_verify_exits_with_1_and_names_the_file_that_is_damaged(photos: Path) -> None:
    (vectors,) = photos.glob("vectors/*/*[0-9].npy")
    data = bytearray(vectors.read_bytes())
    data[-1] ^= 1
    vectors.write_bytes(data)
    result = run("verify", photos, code=1)
    lines = result.stdout.splitlines()
    assert lines[0] == f"wrong: {vectors.name} is not what was written"
    assert lines[-1] == "1 problem: 4 files, 0 vectors"
    assert json.loads(run("verify", photos, "--json", code=1).stdout)["ok"] is False


def test_what_was_removed_is_not_found_and_compact_drops_its_vector(photos: Path, pictures: Path) -> None:
    assert run("remove", photos, pictures / "red.png").stdout == "removed 1 picture\n"
    assert run("compact", photos).stdout.startswith("1 file of vectors became 1; 1 vector dropped, ")
    assert json.loads(run("info", photos, "--json").stdout)["pictures"] == 3
    run("verify", photos)


def test_remove_takes_ids_folders_and_what_is_missing(
    photos: Path, pictures: Path, id_of: Callable[[str], int]
) -> None:
    assert json.loads(run("remove", photos, id_of("red.png"), "--json").stdout) == {"removed": 1}
    assert json.loads(run("remove", photos, pictures / "sea", "--json").stdout) == {"removed": 1}
    (pictures / "blue.png").unlink()
    with Collection(photos, model=ColourEncoder()) as collection:
        collection.add(pictures, exclude=["red.png", "sea"], progress=False)
    assert json.loads(run("remove", photos, "--missing", "--json").stdout) == {"removed": 1}
    assert json.loads(run("info", photos, "--json").stdout)["pictures"] == 1


def test_remove_takes_what_passes_a_condition(photos: Path, pictures: Path) -> None:
    none = run("remove", photos, "--where", "width > 8", code=1).stderr
    assert "nothing passes --where width > 8; nothing was removed" in none
    none = run("remove", photos, pictures / "sea", "--where", "key = 'red.png'", code=1).stderr
    assert "nothing was removed" in none
    assert "removed 1 picture" in run("remove", photos, pictures, "--where", "key = 'red.png'").stdout
    assert "removed 3 pictures" in run("remove", photos, "--where", "height = 8").stdout


def test_removing_what_is_not_there_is_an_error(photos: Path) -> None:
    assert "none of ['4711'] is in" in run("remove", photos, 4711, code=1).stderr


@pytest.mark.parametrize("options", [[], ["1", "--missing"], ["--missing", "--model", "colour"]])
def test_remove_wants_one_way_of_saying_what(photos: Path, options: list[str]) -> None:
    assert "give PATHs or IDs" in run("remove", photos, *options, code=2).stderr


def test_the_model_in_use_is_not_removed(photos: Path) -> None:
    assert "in use" in run("remove", photos, "--model", "colour", code=1).stderr


def test_relocate_finds_the_pictures_at_their_new_place(photos: Path, pictures: Path, cache: None) -> None:
    moved = pictures.rename(pictures.with_name("moved"))
    assert run("relocate", photos, pictures, moved).stdout == f"{shown(pictures)} is now {shown(moved)}\n"
    assert run("search", photos, "red", "-k", 1).stdout.endswith(f"\t{moved / 'red.png'}\n")
    assert "is not a source of" in run("relocate", photos, pictures, moved, "--json", code=1).stderr


def test_models_lists_every_alias_with_its_figures() -> None:
    text = run("models").stdout
    assert re.search(r"^siglip2-b16 +375 M +224 px +768 +78\.2 +1\.5 GB +many +Apache-2\.0$", text, re.M)
    assert [line.split()[0] for line in text.splitlines() if re.match(r"\S+ +[\d,]+ M ", line)] == list(
        CATALOG
    )
    assert "Every other open_clip model goes by its own name" in text
    listed = json.loads(run("models", "--json").stdout)
    assert {model["alias"]: model["dim"] for model in listed}["vit-b-32"] == 512


# ---------------------------------------------------------------------- how things are written


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_960, "10 kB"),
        (999_600, "1.0 MB"),
        (1_501_000_000, "1.5 GB"),
        (2.5e15, "2,500 TB"),
    ],
)
def test_sizes_are_for_people(count: float, text: str) -> None:
    assert size(count) == text


def test_numbers_have_thousands_separators_and_nouns_their_plural() -> None:
    assert [counted(n, "picture") for n in (0, 1, 1200)] == ["0 pictures", "1 picture", "1,200 pictures"]


def test_paths_are_as_short_as_can_be_typed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home" / "here").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home" / "here")
    assert shown(tmp_path / "home" / "here" / "a" / "b.jpg") == os.path.join("a", "b.jpg")
    assert shown(tmp_path / "home" / "c.jpg") == os.path.join("~", "c.jpg")
    assert shown(tmp_path / "home" / "hereafter.jpg") == os.path.join("~", "hereafter.jpg")
    assert shown(tmp_path / "d.jpg") == str(tmp_path / "d.jpg")
    assert shown("bad\udcff\n.jpg") == "bad\\xff\\n.jpg"
