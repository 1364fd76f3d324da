"""`clipsearch label`, on squares of one colour and the built-in model."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from clipsearch.cli import main
from clipsearch.collection import Collection
from clipsearch.encoders import load_encoder

NAMES = ["grass", "sea", "fire"]


def run(*args: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name, colour in {"grass": (40, 160, 30), "sea": (20, 60, 200)}.items():
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (64, 64), colour).save(folder / name / "1.png")
    (folder / "broken.jpg").write_bytes(b"")
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fill_in(sheet: Path, least: float = 0) -> None:
    """Answer that the labels with at least this score are right."""
    rows = table(sheet)
    for row in rows:
        row["right"] = "y" if float(row["score"]) >= least else "n"
    with sheet.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([rows[0], *(row.values() for row in rows)])


@pytest.fixture
def greens(tmp_path: Path) -> Path:
    """Sixty pictures that hardly differ."""
    folder = tmp_path / "greens"
    folder.mkdir()
    for n in range(60):
        Image.new("RGB", (32, 32), (20 + n, 160, 30)).save(folder / f"{n}.png")
    return folder


def label(pictures: Path, *args: object, code: int = 3) -> Result:
    names = ",".join(NAMES)
    return run(
        "label", pictures, "--labels", names, "--model", "builtin", "--precision", "fp32", *args, code=code
    )


def test_every_picture_has_a_row_with_the_softmax_of_its_cosines(pictures: Path) -> None:
    document = json.loads(label(pictures, "--no-unknown", "--json").stdout)

    encoder = load_encoder("builtin", precision="fp32")
    texts = encoder.encode_texts([f"a photo of {name}." for name in ("a grass", "a sea", "a fire")])
    rows = {row["key"]: row for row in document["pictures"]}
    assert set(rows) == {"grass/1.png", "sea/1.png", "broken.jpg"}
    for key in ("grass/1.png", "sea/1.png"):
        cosines = (encoder.encode_images([Image.open(pictures / key)]) @ texts.T)[0]
        weights = np.exp(encoder.logit_scale * (cosines - cosines.max()))
        found = {guess["label"]: (guess["score"], guess["cosine"]) for guess in rows[key]["guesses"]}
        for name, weight, cosine in zip(NAMES, weights / weights.sum(), cosines, strict=True):
            assert found[name] == (pytest.approx(weight, abs=2e-3), pytest.approx(cosine, abs=2e-3))
        assert rows[key]["label"] == NAMES[int(cosines.argmax())]
    assert rows["broken.jpg"]["verdict"] == "failed"
    assert rows["broken.jpg"]["reason"]


def test_a_table_is_written_and_the_vectors_beside_it_go(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    told = label(pictures, "--no-unknown", "--out", out)

    rows = table(out)
    assert [row["verdict"] for row in rows].count("failed") == 1
    assert {row["label"] for row in rows} - set(NAMES) == {""}
    assert "3 pictures: 2 labelled, 1 failed" in told.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"labels.csv", "pictures"}


def test_a_run_that_was_stopped_goes_on_with_the_vectors_it_had(pictures: Path, tmp_path: Path) -> None:
    (pictures / "sea").rename(tmp_path / "later")
    with Collection(tmp_path / "labels.csv.clipsearch", model="builtin", precision="fp32") as begun:
        begun.add(pictures, progress=False)
    (tmp_path / "later").rename(pictures / "sea")

    told = label(pictures, "--no-unknown", "--out", tmp_path / "labels.csv")

    assert "1 added, 1 unchanged" in told.stderr
    rows = table(tmp_path / "labels.csv")
    assert sorted(row["key"] for row in rows) == ["broken.jpg", "grass/1.png", "sea/1.png"]


def test_a_collection_is_labelled_without_reading_a_picture(pictures: Path, tmp_path: Path) -> None:
    with Collection(tmp_path / "c", model="builtin") as photos:
        photos.add(pictures / "sea", progress=False)
    (pictures / "sea" / "1.png").unlink()

    told = run("label", tmp_path / "c", "--labels", "sea,grass", "--no-unknown").stdout

    assert told.splitlines() == [f"sea\t{pictures / 'sea' / '1.png'}"]


def test_only_what_passes_a_condition_is_labelled(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    with Collection(tmp_path / "c", model="builtin") as photos:
        photos.add(pictures)
    for source in (pictures, tmp_path / "c"):
        label(source, "--out", out, "--where", "key like 'sea/%'", code=0)
        assert [row["path"] for row in table(out)] == [str(pictures / "sea" / "1.png")]
    assert "nothing passes --where width > 64" in label(pictures, "--where", "width > 64", code=0).stderr


def test_the_truth_is_measured_and_a_page_written(pictures: Path, tmp_path: Path) -> None:
    told = label(pictures, "--no-unknown", "--truth", "folder", "--html", tmp_path / "page.html").stdout

    assert "acc1" in told
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "data:image/jpeg;base64," in page
    assert str(tmp_path) not in page


@pytest.mark.parametrize(
    ("labels", "said"),
    [("cat", "cat"), ("cat,Cat", "Cat"), ("cat,,dog", "blank"), ("labels.xyz", "labels.xyz")],
)
def test_bad_labels_are_one_line_and_nothing_is_made(
    pictures: Path, tmp_path: Path, labels: str, said: str
) -> None:
    out = tmp_path / "labels.csv"
    told = run("label", pictures, "--labels", labels, "--model", "builtin", "--out", out, code=1)
    assert said in told.stderr
    assert "Traceback" not in told.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


def test_a_table_of_another_kind_is_refused_before_anything_is_encoded(
    pictures: Path, tmp_path: Path
) -> None:
    told = label(pictures, "--out", tmp_path / "labels.xlsx", code=1)
    assert "labels.xlsx" in told.stderr and ".csv" in told.stderr
    assert "loading" not in told.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


def test_a_review_waits_for_a_person_and_then_keeps_the_precision(greens: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    asked = ["--out", out, "--no-unknown", "--target-precision", 0.9, "--review", 60]

    waiting = label(greens, *asked, code=4)

    sheet = tmp_path / "labels.review.csv"
    assert "labels.review.html" in waiting.stderr and "run this command again" in waiting.stderr
    assert not out.exists() and sheet.with_suffix(".html").exists()
    assert "60 added" not in label(greens, *asked, code=4).stderr, "the vectors stay"
    rows = table(sheet)
    assert len(rows) == 60
    least = sorted(float(row["score"]) for row in rows)[30]
    fill_in(sheet, least)

    done = label(greens, *asked, code=0)

    assert "60 of 60 checked · 50.0% of the labels are right" in done.stderr
    told = {
        verdict: [float(row["score"]) for row in table(out) if row["verdict"] == verdict]
        for verdict in ("labelled", "abstained")
    }
    assert len(told["labelled"]) + len(told["abstained"]) == 60
    assert 20 <= len(told["labelled"]) <= 33, "nine tenths of them are right, and all are checked"
    assert min(told["labelled"]) > max(told["abstained"])
    assert f"{len(told['labelled']) / 60:.1%} of the labels are kept" in done.stderr


def test_a_further_round_is_drawn_when_it_is_asked_for(greens: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    asked = ["--no-unknown", "--sheet", sheet, "--review", 20]
    label(greens, *asked, code=4)
    fill_in(sheet)

    told = json.loads(label(greens, *asked, "--json", code=0).stdout)["review"]
    assert (told["asked"], told["unanswered"], told["accuracy"]["value"]) == (20, 0, 1.0)
    assert "again, without --more" in label(greens, *asked, "--more", code=4).stderr

    assert [row["round"] for row in table(sheet)] == ["1"] * 20 + ["2"] * 20


def test_a_precision_that_no_threshold_keeps_asks_for_a_further_round(greens: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    asked = ["--no-unknown", "--sheet", sheet, "--target-precision", 0.9, "--review", 20]
    label(greens, *asked, code=4)
    fill_in(sheet)

    further = label(greens, *asked, code=4)

    assert "do not certify a precision of 0.9" in further.stderr
    assert {row["round"] for row in table(sheet)} == {"1", "2"} and further.stdout == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--review", 5], "a review needs --sheet F.csv, or --out"),
        (["--target-precision", 0.9, "--threshold", 0.5, "--out", "x.csv"], "leave --threshold out"),
        (["--review", 0], "is not in the range x>=1"),
        (["--sheet", "x.csv"], "add --review or --target-precision"),
        (["--target-precision", 95, "--out", "x.csv"], "is a share such as 0.95, found 95"),
        (["--review", 5, "--sheet", "x.csv", "--out", "x.csv"], "must be different files"),
        (["--review", 5, "--sheet", "x.csv", "--html", "x.html"], "must be different files"),
        (["--by-group"], "--by-group needs a group of the labels"),
    ],
)
def test_options_of_a_review_that_do_not_fit_are_told_before_anything_is_read(
    options: list[object], message: str, tmp_path: Path
) -> None:
    assert message in label(tmp_path / "none", *options, code=2).stderr


def test_groups_of_labels_are_said_in_the_place_of_the_labels(pictures: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.csv"
    names.write_text("label,group\ngrass,land\nforest,land\nsea,water\n", encoding="utf-8")
    asked = ["--labels", names, "--model", "builtin", "--precision", "fp32", "--no-unknown", "--json"]

    one, groups = (
        json.loads(run("label", pictures, *asked, *more, code=3).stdout)["pictures"]
        for more in ([], ["--by-group"])
    )

    for single, grouped in zip(one, groups, strict=True):
        scores = {guess["label"]: guess["score"] for guess in single["guesses"]}
        expected = {"land": scores["grass"] + scores["forest"], "water": scores["sea"]} if scores else {}
        assert {guess["label"]: guess["score"] for guess in grouped["guesses"]} == pytest.approx(expected)
