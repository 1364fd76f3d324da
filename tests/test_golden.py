"""Collections that an earlier version wrote are read by this one: a copy of each format, never made anew.

The pictures were single colours in a folder /photos that no longer exists (see make_golden.py).
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch.store import FORMAT
from clipsearch.testing import ColourEncoder

GOLDEN = Path(__file__).parent / "golden"
COLOURS = {
    "red.png": (255, 0, 0),
    "again.png": (255, 0, 0),
    "a/orange.png": (255, 128, 0),
    "a/b/olive.png": (128, 128, 0),
    "navy.png": (0, 0, 128),
    "e\u0301.png": (0, 255, 0),
    "\u00e9.png": (0, 255, 255),
    "\udcff.png": (255, 0, 255),
}


@pytest.fixture
def photos():
    with cs.Collection(GOLDEN / "v1", model=ColourEncoder(), read_only=True) as photos:
        yield photos


def test_there_is_a_copy_of_every_format():
    assert sorted(path.name for path in GOLDEN.iterdir()) == [f"v{n + 1}" for n in range(FORMAT)]


def test_format_1_is_found_whole(photos):
    checked = photos.verify()
    assert (checked.problems, checked.notes) == ([], [])
    assert (checked.files, checked.vectors) == (2 + 2 * 7, 9 + 7)
    assert (len(photos), photos.models, photos.model) == (8, ["colour", "backwards"], "colour")
    info = photos.info()
    assert (info["format"], info["failed"], info["missing"], info["contents"]) == (1, 1, 1, 7)
    assert [(source["kind"], source["root"]) for source in info["sources"]] == [("folder", "/photos")]


def test_format_1_is_searched_with_scores_worked_out_by_hand(photos):
    hits = photos.search("red", k=20)
    # cosines of (256, 1, 1) with itself twice, (256, 129, 1), (256, 1, 256), (129, 129, 1), …
    scores = [1.0, 1.0, 0.8952, 0.7099, 0.7099, 0.0117, 0.0083, 0.0078]
    assert [hit.score for hit in hits] == pytest.approx(scores, abs=6e-4)
    assert {hit.key for hit in hits[:2]} == {"red.png", "again.png"}
    assert (hits[2].key, hits[0].id, hits[1].id) == ("a/orange.png", 1, 5)
    assert hits[2].metadata == {"width": 4, "height": 4, "format": "PNG", "album": "golden"}
    for hit in hits:
        picture = np.array(COLOURS[hit.key]) + 1
        by_hand = picture @ (256, 1, 1) / np.linalg.norm(picture) / np.linalg.norm((256, 1, 1))
        assert hit.score == pytest.approx(by_hand, abs=6e-4)
        assert Path(hit.path) == Path("/photos", *hit.key.split("/")).absolute()


def test_format_1_tells_what_failed(photos):
    (failure,) = photos.failures()
    assert Path(failure.path) == Path("/photos/broken.png").absolute()
    assert failure.reason.startswith("cannot be decoded")


def test_format_1_can_be_written_to(tmp_path):
    copy = shutil.copytree(GOLDEN / "v1", tmp_path / "v1")
    (tmp_path / "more").mkdir()
    Image.new("RGB", (5, 5), (250, 10, 10)).save(tmp_path / "more" / "scarlet.png")
    with cs.Collection(copy, model=ColourEncoder()) as photos:
        assert photos.add(tmp_path / "more", progress=False).added == 1
        assert [hit.key for hit in photos.search("red", k=3)] == ["red.png", "again.png", "scarlet.png"]
        assert photos.compact().vectors_dropped == 1  # of a picture that was removed
        photos.drop_model("backwards")
        checked = photos.verify()
        assert (checked.problems, checked.notes, checked.vectors) == ([], [], 9)
