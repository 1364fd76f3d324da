"""`clipsearch index` and the searches that need a model, with the built-in one."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from clipsearch.cli import main

PROGRAM = [sys.executable, "-c", "from clipsearch.cli import main; main()"]


def run(*args: object, input: str | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args], input=input, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def draw(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.bmp")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw(tmp_path / "pictures", 3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tmp_path / "photos.clipsearch"


def test_index_says_the_model_before_and_the_counts_after(photos: Path, pictures: Path) -> None:
    first = run(
        "index", pictures, "--to", photos, "--model", "builtin", "--precision", "fp32", "--device", "cpu"
    )
    assert "encoding with builtin on cpu (fp32)\n" in first.stderr
    assert re.search(r"pictures: 3 added in \d+\.\d s: .* with builtin on cpu \(fp32\)", first.stdout)
    draw(pictures / "more", 1)
    again = run("index", "--to", photos)  # the sources and the model it knows
    assert re.search(r"pictures: 1 same-content, 3 unchanged|3 unchanged, 1 same-content", again.stdout)


def test_pictures_that_fail_are_listed_with_reasons_and_the_exit_code_is_3(
    photos: Path, pictures: Path
) -> None:
    for number in range(22):
        (pictures / f"broken{number:02}.jpg").write_bytes(b"")
    result = run("index", pictures, "--to", photos, "--model", "builtin", code=3)
    listed = re.findall(r"^  .*broken(\d\d)\.jpg: the file is empty$", result.stdout, re.M)
    assert listed == [f"{number:02}" for number in range(20)]
    assert f"\n  and 2 more; `clipsearch info {photos} --failed` lists them\n" in result.stdout
    assert run("info", photos, "--failed").stdout.count("the file is empty") == 22


def test_what_failed_is_tried_again_when_asked(photos: Path, pictures: Path) -> None:
    picture = pictures / "0000.bmp"
    times, data = picture.stat(), picture.read_bytes()
    picture.write_bytes(bytes(len(data)))
    os.utime(picture, ns=(times.st_atime_ns, times.st_mtime_ns))
    run("index", pictures, "--to", photos, "--model", "builtin", code=3)
    picture.write_bytes(data)
    os.utime(picture, ns=(times.st_atime_ns, times.st_mtime_ns))
    run("index", pictures, "--to", photos, code=3)
    assert "0000.bmp" not in run("index", pictures, "--to", photos, "--retry-failed").stdout
    assert "cannot be read, now or when last tried" in " ".join(run("index", "--help").stdout.split())


def test_index_json_is_a_list_with_a_report_for_each_source(
    photos: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    Image.new("RGB", (9, 9), "red").save(tmp_path / "other" / "red.png")
    out = run("index", pictures, tmp_path / "other", "--to", photos, "--model", "builtin", "--json").stdout
    assert [(Path(report["source"]).name, report["added"]) for report in json.loads(out)] == [
        ("pictures", 3),
        ("other", 1),
    ]


def test_pictures_named_one_by_one_are_one_source_and_what_is_excluded_stays_out(
    photos: Path, pictures: Path
) -> None:
    named = sorted(pictures.iterdir())
    options = ["--to", photos, "--model", "builtin", "--exclude", "*1.bmp", "--json"]
    (report,) = json.loads(run("index", *named, *options).stdout)
    assert report["added"] == 2


def test_a_source_that_is_not_there_makes_no_collection(photos: Path, pictures: Path) -> None:
    result = run("index", pictures, pictures / "absent", "--to", photos, "--model", "builtin", code=1)
    assert "absent" in result.stderr and result.stdout == ""
    assert not photos.exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "name a SOURCE to make it from"),
        (["--exclude", "*.gif"], "--exclude goes with a SOURCE"),
        (["--upgrade"], "give it --model and no SOURCE"),
        (["pictures", "--upgrade", "--model", "builtin"], "give it --model and no SOURCE"),
    ],
)
def test_index_refuses_what_does_not_go_together(photos: Path, options: list[str], reason: str) -> None:
    result = run("index", *options, "--to", photos, code=2)
    assert reason in " ".join(result.stderr.split())
    assert not photos.exists()


@pytest.fixture
def second_model(tmp_path: Path) -> Path:
    """The built-in model under another name: a directory of its own."""
    import clipsearch.builtin

    folder = tmp_path / "second"
    folder.mkdir()
    for file in Path(clipsearch.builtin.__file__).parent.glob("*.*"):
        (folder / file.name).symlink_to(file)
    return folder


def test_upgrade_encodes_everything_again_switches_and_keeps_the_old_vectors(
    photos: Path, pictures: Path, second_model: Path
) -> None:
    run("index", pictures, "--to", photos, "--model", "builtin")
    result = run("index", "--to", photos, "--upgrade", "--model", second_model)
    assert f"searches now use local-dir:{second_model}" in result.stderr
    models = {m["model"]: m for m in json.loads(run("info", photos, "--json").stdout)["models"]}
    assert {name: (m["vectors"], m["in_use"]) for name, m in models.items()} == {
        "builtin": (3, False),
        f"local-dir:{second_model}": (3, True),
    }
    assert "(in use)" in run("info", photos).stdout
    run("remove", photos, "--model", "builtin")
    assert [m["in_use"] for m in json.loads(run("info", photos, "--json").stdout)["models"]] == [True]


def test_an_upgrade_that_cannot_see_every_picture_leaves_the_old_model_in_use(
    photos: Path, pictures: Path, second_model: Path
) -> None:
    run("index", pictures, "--to", photos, "--model", "builtin")
    pictures.rename(pictures.with_name("away"))
    result = run("index", "--to", photos, "--upgrade", "--model", second_model, code=1)
    assert "has no vectors of" in result.stderr and "only of ['builtin']" in result.stderr
    models = json.loads(run("info", photos, "--json").stdout)["models"]
    assert [m["model"] for m in models if m["in_use"]] == ["builtin"]


def test_another_model_on_a_collection_is_refused(photos: Path, pictures: Path) -> None:
    run("index", pictures, "--to", photos, "--model", "builtin")
    assert run("index", pictures, "--to", photos, "--model", "vit-b-32", code=1).stderr.startswith(
        "clipsearch: "
    )


def test_the_prompt_answers_until_an_empty_line(photos: Path, pictures: Path) -> None:
    run("index", pictures, "--to", photos, "--model", "builtin")
    result = run("search", photos, "-k", 2, input="a dog\na cat\n\na tree\n")
    assert "3 pictures; an empty line leaves" in result.stderr
    assert len(re.findall(r"^-?0\.\d{4}\t.*\.bmp$", result.stdout, re.M)) == 4


def test_the_prompt_ends_with_the_input(photos: Path, pictures: Path) -> None:
    run("index", pictures, "--to", photos, "--model", "builtin")
    assert run("search", photos, "-k", 1, input="a dog").stdout.count(".bmp") == 1


def test_a_picture_as_the_query_finds_itself(photos: Path, pictures: Path) -> None:
    run("index", pictures, "--to", photos, "--model", "builtin")
    score, path = run("search", photos, "--image", pictures / "0001.bmp").stdout.splitlines()[0].split("\t")
    assert (float(score), path) == (pytest.approx(1, abs=1e-2), str(pictures / "0001.bmp"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_index_works_with_nobody_to_read_its_progress(photos: Path, pictures: Path) -> None:
    options = [str(pictures), "--to", str(photos), "--model", "builtin"]
    command = ["sh", "-c", '"$0" "$@" 2>&-', *PROGRAM, "index", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "3 added" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to one child")
def test_ctrl_c_tells_what_is_safe_and_the_same_command_goes_on(tmp_path: Path, photos: Path) -> None:
    many = draw(tmp_path / "many", 1000)
    command = [*PROGRAM, "index", str(many), "--to", str(photos), "--model", "builtin"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and process.stderr.readline().startswith("loading builtin")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    stopped = re.search(
        r"clipsearch: stopped(?:: ([\d,]+) new pictures are safe; the same command goes on)?", err
    )
    assert stopped is not None
    safe = int((stopped[1] or "0").replace(",", ""))
    (report,) = json.loads(run(*command[3:], "--json").stdout)
    assert (report["unchanged"], report["added"]) == (safe, 1000 - safe)


# ---------------------------------------------------------------------- how vectors are searched


def test_the_layouts_are_listed_with_when_to_choose_them() -> None:
    listed = run("indexes").stdout
    assert re.findall(r"^(\S+)$", listed, re.M) == ["exact", "pq-fastscan", "ivf-pq-fastscan"]
    assert "136 bytes beside a vector of 512 numbers" in listed  # 512 / 4 + 8
    told = {layout["name"]: layout for layout in json.loads(run("indexes", "--json").stdout)}
    assert told["exact"]["min_recall"] == 1.0 and told["ivf-pq-fastscan"]["bytes_per_vector"] == 136


def test_an_index_that_is_asked_for_is_built_told_and_kept(photos: Path, tmp_path: Path) -> None:
    pictures = draw(tmp_path / "many", 40)
    done = run(
        "index",
        pictures,
        "--to",
        photos,
        "--model",
        "builtin",
        "--index",
        "IVF4,Flat",
        "--target-recall",
        "0.9",
    )
    assert re.search(
        r"index IVF4,Flat: 40 vectors in .*; of the ten best it finds \d+\.\d% for words", done.stderr
    )
    told = json.loads(run("info", photos, "--json").stdout)["models"][0]["index"]
    assert (told["layout"], told["rows"], told["target_recall"]) == ("IVF4,Flat", 40, 0.9)
    assert "index     IVF4,Flat: 40 vectors" in run("info", photos).stdout
    draw(pictures / "more", 45)  # the first 40 are the same
    run("index", "--to", photos)
    assert json.loads(run("info", photos, "--json").stdout)["models"][0]["index"]["rows"] == 45


@pytest.mark.parametrize(
    ("options", "complaint", "code"),
    [
        (("--index", "nonsense"), "'nonsense' is neither a shipped layout", 1),
        (("--index", "PQ16x4fs"), "written IVF1,PQ", 1),
        (("--memory", "much"), "a text such as '4GB', got 'much'", 1),
        (("--target-recall", "95"), "95.0 is not in the range", 2),
    ],
)
def test_a_wrong_option_of_the_index_is_told_before_anything_is_encoded(
    photos: Path, pictures: Path, options: tuple[str, str], complaint: str, code: int
) -> None:
    result = run("index", pictures, "--to", photos, "--model", "builtin", *options, code=code)
    assert complaint in result.output
    assert not photos.exists() or json.loads(run("info", photos, "--json").stdout)["pictures"] == 0
