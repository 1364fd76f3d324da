"""The caption bank is large, varied, clean and shipped."""

import re
import tomllib
from collections import Counter
from importlib.resources import files
from pathlib import Path
from unicodedata import category, normalize

import pytest

from clipsearch.bank import captions
from clipsearch.errors import QueryError

ROOT = Path(__file__).parents[1]
LEAST = {"english": 2000, "korean": 500}
SHORT = {"english": 3, "korean": 2}  # words at most; Korean joins its particles to them
MIDDLE = {"english": 9, "korean": 5}
LANGUAGES = pytest.mark.parametrize("language", ["english", "korean"])


def file_lines(language):
    text = (files("clipsearch") / "bank" / f"{language}.txt").read_bytes().decode("utf-8")
    assert text.endswith("\n") and "\r" not in text
    return text.split("\n")[:-1]


def words(line):
    return frozenset(re.findall(r"\w+", line.casefold()))


def likeness(lines):
    """The greatest share of words (Jaccard) that each line has in common with any other."""
    bags = [words(line) for line in lines]
    return [
        max(len(bag & other) / len(bag | other) for n, other in enumerate(bags) if n != at)
        for at, bag in enumerate(bags)
    ]


@LANGUAGES
def test_every_line_but_the_comment_is_a_caption_in_the_order_of_the_file(language):
    comment, *rest = file_lines(language)
    assert comment.startswith("# Neutral captions") and "MIT licence" in comment
    assert captions(language) == rest


@LANGUAGES
def test_there_are_enough_and_no_two_are_the_same_without_case_and_full_stops(language):
    lines = [line.casefold().rstrip(".?!") for line in captions(language)]
    assert len(lines) >= LEAST[language]
    assert [line for line, times in Counter(lines).items() if times > 1] == []


def test_english_comes_by_default_and_a_list_that_was_changed_changes_no_other():
    captions().clear()
    assert captions() == file_lines("english")[1:]


def test_a_language_without_captions_is_refused_by_name():
    with pytest.raises(QueryError, match=r"'latin', expected 'english' or 'korean'"):
        captions("latin")


@LANGUAGES
def test_lines_have_no_stray_spaces_or_unseen_characters_and_one_spelling(language):
    for line in captions(language):
        assert line and line == " ".join(line.split()) == normalize("NFC", line)
        assert not any(category(char).startswith("C") for char in line), repr(line)


@LANGUAGES
def test_short_middle_and_long_captions_are_mixed_in_every_part(language):
    lines = captions(language)
    for part in (lines, lines[: len(lines) // 2], lines[len(lines) // 2 :]):
        counts = [len(line.split()) for line in part]
        short = sum(n <= SHORT[language] for n in counts) / len(part)
        long = sum(n > MIDDLE[language] for n in counts) / len(part)
        assert 0.25 <= short <= 0.37 and 0.20 <= long <= 0.32 and max(counts) <= 20


@LANGUAGES
def test_captions_begin_in_many_ways(language):
    firsts = Counter(line.casefold().split()[0] for line in captions(language))
    articles = sum(firsts.pop(word, 0) for word in ("a", "the"))
    assert articles <= 0.35 * len(captions(language))
    assert firsts.most_common(1)[0][1] <= 0.08 * len(captions(language))


@LANGUAGES
def test_hardly_any_caption_is_nearly_another(language):
    alike = likeness(captions(language))
    assert sum(share > 0.75 for share in alike) < 0.01 * len(alike)
    assert sum(share >= 0.5 for share in alike) < 0.05 * len(alike)


def test_likeness_of_a_hand_counted_example():
    assert likeness(["a red ball", "A blue ball", "sunset"]) == [0.5, 0.5, 0.0]


def test_korean_captions_are_in_korean_and_english_ones_are_not():
    assert all(re.search(r"[가-힣]", line) for line in captions("korean"))
    assert not any(re.search(r"[^\x20-\x7eéêñ]", line) for line in captions("english"))


def test_a_wheel_holds_the_captions():
    """setuptools ships what these two tables name, and nothing else of the folder."""
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert "clipsearch.bank" in shipped["packages"]
    names = {
        path.name
        for pattern in shipped["package-data"]["clipsearch.bank"]
        for path in (ROOT / "clipsearch" / "bank").glob(pattern)
    }
    assert names == {"english.txt", "korean.txt"}
