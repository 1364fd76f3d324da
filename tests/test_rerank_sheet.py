"""The contact sheet: what is drawn, what is made of the numbers that come back."""

import math

import numpy as np
import pytest
from PIL import Image

from clipsearch.errors import ImageError, ServerError
from clipsearch.rerank.sheet import SheetReranker, numbers, sheet
from clipsearch.types import Candidate

COLOURS = ["red", "green", "blue", "yellow", "cyan", "magenta", "orange"]


class Reads:
    """A model that answers with a given text, and keeps what it was shown."""

    model_id = "reads"

    def __init__(self, text):
        self.text, self.shown = text, []

    def generate(self, images, prompt=None, *, max_tokens=64):
        self.shown.append((images, prompt))
        if isinstance(self.text, Exception):
            raise self.text
        return [self.text] * len(images)


def candidates(n):
    def picture(place):
        return lambda: Image.new("RGB", (120, 80), COLOURS[place])

    return [Candidate(place, bytes([place]) * 32, 0.3, None, picture(place)) for place in range(n)]


def test_those_that_are_listed_come_first_and_the_others_are_equal():
    vlm = Reads("4, 1, 6")
    scores = SheetReranker(vlm).score("a boat", candidates(7))
    assert scores.tolist() == [2, 0, 0, 3, 0, 1, 0]
    ((images, prompt),) = vlm.shown  # one call, one picture
    assert len(images) == 1
    assert "7 pictures" in prompt and "'a boat'" in prompt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4, 1, 6", [4, 1, 6]),
        ("[3] [3] 2, 3", [3, 2]),
        ("0", []),
        ("", []),
        ("none of them", []),
        ("8, 99999999999999999999, 7", [7]),
        ("7 > 2 > 5", [7, 2, 5]),
    ],
)
def test_numbers_are_read_once_each_and_only_those_on_the_sheet(text, expected):
    assert numbers(text, 7) == expected


def test_nothing_listed_and_nothing_given_change_no_order():
    assert SheetReranker(Reads("0")).score("a boat", candidates(3)).tolist() == [0, 0, 0]
    vlm = Reads("1")
    assert SheetReranker(vlm).score("a boat", []).shape == (0,)
    assert vlm.shown == []


def test_a_picture_that_cannot_be_read_leaves_the_sheet_and_has_no_score():
    def broken():
        raise ImageError("gone")

    pool = candidates(4)
    pool[1] = Candidate(1, b"1" * 32, 0.3, None, broken)
    vlm = Reads("2, 3")  # of the three that are left: the third and fourth candidate
    scores = SheetReranker(vlm).score("a boat", pool)
    assert math.isnan(scores[1])
    assert scores[[0, 2, 3]].tolist() == [0, 2, 1]
    assert "3 pictures" in vlm.shown[0][1]


def test_a_refused_sheet_is_no_fault_of_a_picture():
    with pytest.raises(ServerError, match=r"sheet of 3 pictures is refused: too large \(413\)"):
        SheetReranker(Reads(ImageError("too large (413)"))).score("a boat", candidates(3))


def test_pictures_lie_in_rows_and_their_numbers_in_their_corners():
    whole = np.asarray(sheet([each.image() for each in candidates(7)], side=300))
    assert whole.shape == (300, 300, 3)  # 3 x 3 cells of 100 pixels
    for place in range(7):
        top, left = place // 3 * 100, place % 3 * 100
        colour = Image.new("RGB", (1, 1), COLOURS[place]).getpixel((0, 0))
        assert tuple(whole[top + 60, left + 70]) == colour
        corner = whole[top : top + 26, left : left + 18]
        assert (corner == 0).all(axis=2).mean() > 0.5 and (corner == 255).all(axis=2).any()
    assert (whole[200:, 100:] == 255).all()  # no eighth and ninth picture


def test_every_number_looks_different():
    black = [Image.new("RGB", (50, 50))] * 20
    whole = np.asarray(sheet(black, side=1000))
    marks = {
        whole[row * 200 : row * 200 + 60, column * 200 : column * 200 + 70].tobytes()
        for row in range(4)
        for column in range(5)
    }
    assert len(marks) == 20


def test_the_sheet_is_as_large_as_the_model_looks_at():
    vlm = Reads("1")
    SheetReranker(vlm).score("a boat", candidates(4))
    vlm.max_side = 512
    SheetReranker(vlm).score("a boat", candidates(4))
    assert [images[0].size for images, _ in vlm.shown] == [(1024, 1024), (512, 512)]


def test_it_asks_for_the_whole_pool_at_once_and_keeps_no_scores():
    stage = SheetReranker(Reads("1"), depth=35, weight=0.5)
    assert (stage.batch_size, stage.depth, stage.weight, stage.needs) == (35, 35, 0.5, "pixels")
    assert not hasattr(stage, "spec")
