"""`clipsearch caption` and `clipsearch search --rerank`, with tiny models that write nonsense."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import clipsearch as cs
from clipsearch.cli import main
from clipsearch.testing import COLOURS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number, colour in enumerate(COLOURS):
        pixels = random.integers(0, 256, (40, 30 + number, 3)) // 2 + np.array(COLOURS[colour]) // 2
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}{colour}.png")
    return folder


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    """A tiny Qwen3-VL with random weights."""
    from . import tiny_vlms

    return str(tiny_vlms.make("qwen3_vl", tmp_path_factory.mktemp("vlm") / "tiny"))


@pytest.fixture
def photos(folder, tmp_path):
    path = tmp_path / "photos.clipsearch"
    with cs.Collection(path, model="builtin") as photos:
        photos.add(folder, progress=False)
    return str(path)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_pictures_are_captioned_found_and_the_captions_removed(photos, vlm):
    told = run("caption", photos, "--captioner", vlm, "--max-tokens", 4, "--precision", "fp32").stdout
    assert re.fullmatch(r"7 captioned, 0 unchanged in .* s: .* images/s with .*\n", told)
    report = json.loads(run("caption", photos, "--captioner", vlm, "--max-tokens", 4, "--json").stdout)
    assert report["vectors"] is None
    assert report["captions"]["captioned"] + report["captions"]["unchanged"] == 7
    assert "captions  2: 7 pictures, by tiny (in use)" in run("info", photos).stdout
    hits = json.loads(run("search", photos, "red", "--json").stdout)
    with cs.Collection(photos, read_only=True) as opened:
        expected = cs.LocalVLM(vlm, precision="fp32").generate([hits_image(opened, hits[0])], max_tokens=4)
    assert [hits[0]["metadata"]["caption"]] == [" ".join(text.split()) for text in expected]
    assert run("remove", photos, "--captions", "tiny").stdout == "removed 7 captions\n"


def hits_image(photos, hit):
    return next(found for found in photos.search("red", k=7) if found.id == hit["id"]).image()


def test_pictures_without_a_caption_give_exit_code_3(photos, vlm, folder, tmp_path):
    with cs.Collection(photos) as opened:
        extra = tmp_path / "gone.png"
        Image.new("RGB", (8, 8), "red").save(extra)
        opened.add([extra], progress=False)
        extra.unlink()
    told = run("caption", photos, "--captioner", vlm, "--max-tokens", 2, code=3).stdout
    assert "7 captioned, 0 unchanged, 1 failed" in told
    assert "gone.png: the picture is no longer where it was" in told


def test_the_best_are_judged_again_by_the_model_itself(photos, vlm):
    question = 'Does this picture show "red"? Answer with one word, yes or no.'
    hits = json.loads(
        run(
            "search", photos, "red", "--rerank", f"yes-no:{vlm}", "--depth", 3, "--weight", 1, "--json"
        ).stdout
    )
    assert [len(hit["judgements"]) for hit in hits] == [1, 1, 1, 0, 0, 0, 0]
    with cs.Collection(photos, read_only=True) as opened:
        images = [hits_image(opened, hit) for hit in hits[:3]]
    odds, _ = cs.LocalVLM(vlm).log_odds(images, question, yes=("yes", "Yes", "YES"), no=("no", "No", "NO"))
    assert [hit["judgements"][0]["score"] for hit in hits[:3]] == pytest.approx(odds.tolist(), abs=1e-2)
    assert sorted(odds.tolist(), reverse=True) == odds.tolist()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--depth", "3"], "--depth goes with --rerank"),
        (["--budget", "5s"], "--budget goes with --rerank"),
        (["--rerank", "yes-no"], "expected yes-no:MODEL"),
        (["--rerank", "maybe:x"], "found maybe, expected one of yes-no, pairs"),
        (["--rerank", "yesno:x"], "did you mean yes-no?"),
        (["--rerank", "captions", "--budget", "5s"], "does not go with captions"),
        (["--rerank", "captions", "--budget", "soon"], "expected a time such as 5s"),
        (["--rerank", "captions", "--budget", "0s"], "expected a time such as 5s"),
        (["--rerank", "captions", "--weight", "2"], "range"),
    ],
)
def test_options_that_do_not_fit_are_wrong_usage(photos, options, told):
    assert told in run("search", photos, "red", *options, code=2).stderr


@pytest.mark.parametrize(
    ("rerank", "told"),
    [
        ("yes-no:no/such/model", "no model"),
        ("pairs:nothing", "no model 'nothing'"),
        ("yes-no:m@http://127.0.0.1:1/v1", "is the server running"),
        ("hybrid:builtin", "no captions yet"),
    ],
)
def test_a_model_that_is_not_to_be_had_takes_one_line(photos, rerank, told, monkeypatch):
    monkeypatch.setattr("clipsearch.captioners.wire.pause", lambda seconds, call: None)
    result = run("search", photos, "red", "--rerank", rerank, code=1)
    assert told in result.stderr and result.stderr.startswith("clipsearch: ") and result.stdout == ""


def test_a_captioner_or_vectors_must_be_named(photos):
    assert "--captioner" in run("caption", photos, code=2).stderr
    assert "no captions yet" in run("caption", photos, "--vectors", "builtin", code=1).stderr


def test_captions_are_encoded_and_found_by(photos, vlm):
    run("caption", photos, "--captioner", vlm, "--max-tokens", 8)
    assert run("caption", photos, "--vectors", "builtin").stdout == "7 captions have vectors\n"
    hits = json.loads(run("search", photos, "red", "--rerank", "hybrid:builtin", "--json").stdout)
    assert {judgement["by"] for hit in hits for judgement in hit["judgements"]} == {"hybrid:builtin"}
    assert len(hits) == 7
