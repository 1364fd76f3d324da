"""`where=` of every verb of a collection."""

import shutil

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch.errors import QueryError
from clipsearch.testing import COLOURS, ColourEncoder
from clipsearch.types import Item


class Shoot:
    """Pictures of one colour each, of which the user knows something."""

    kind, root, lists_all, options = "shoot", "my shoot", True, {}

    def __init__(self, known):
        self._known = known

    def items(self):
        for number, (colour, metadata) in enumerate(self._known):
            picture = Image.new("RGB", (8 + number, 8), colour)
            yield Item(f"set/{colour}{number}", lambda picture=picture: picture, metadata=metadata)

    def item(self, key):
        return None

    def path(self, key):
        return key


@pytest.fixture
def photos(tmp_path):
    """Seven pictures: red8, green, blue, yellow … of width 8, 9, 10 …, the last one without a rating."""
    known = [(colour, {"rating": n, "tags": [colour, "all"]}) for n, colour in enumerate(COLOURS)]
    known[-1][1].pop("rating")
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        photos.add(Shoot(known), progress=False)
        yield photos


def keys(results):
    return [hit.key.removeprefix("set/") for hit in results]


def test_a_search_finds_the_best_of_those_that_pass(photos):
    everything = photos.search("red", k=7)
    for where, expected in {
        "rating >= 2 and rating < 5": {"blue2", "yellow3", "cyan4"},
        "tags in ('magenta', 'red')": {"red0", "magenta5"},
        "rating is null": {"white6"},
        "width = 9 or path = 'set/blue2'": {"green1", "blue2"},
        "rating > 100": set(),
    }.items():
        found = photos.search("red", k=7, where=where)
        assert found.to_dicts() == [hit for hit in everything.to_dicts() if hit["key"][4:] in expected]
        assert len(found) == len(expected)
    assert keys(photos.search("red", k=1, where="rating > 0")) == ["yellow3"]
    many = photos.search_many(["blue", "green"], k=1, where="rating in (0, 2)")
    assert [keys(results) for results in many] == [["blue2"], ["red0"]]


def test_every_kind_of_query_takes_a_condition(photos):
    first = photos.search("red")[0]
    assert keys(photos.search(item=first, k=1, where="rating < 4")) == ["yellow3"]
    assert keys(photos.search(item=first, where="rating = 0")) == [], "it is not among its own results"
    picture = Image.new("RGB", (8, 8), "red")
    assert keys(photos.search(image=picture, k=1, where="rating > 0 and rating < 5")) == ["yellow3"]
    assert keys(photos.search(embedding=[1, 0, 0], k=1, where="tags = 'white'")) == ["white6"]


def test_embeddings_paths_and_labels_of_those_that_pass(photos):
    where = "rating between 1 and 2"
    ids, vectors = photos.embeddings()
    some, theirs = photos.embeddings(where=where)
    assert some == ids[1:3]
    np.testing.assert_array_equal(theirs, vectors[1:3])
    assert photos.paths(where=where) == {ids[1]: "set/green1", ids[2]: "set/blue2"}
    labels = photos.classify(["green", "blue"], unknown=False, templates="plain", where=where)
    assert [(row.picture.key, row.label) for row in labels] == [
        ("set/green1", "green"),
        ("set/blue2", "blue"),
    ]
    assert len(photos.classify(["green", "blue"], unknown=False, where="rating > 100")) == 0
    assert photos.embeddings(where="rating > 100")[1].shape == (0, 3)


def test_remove_takes_those_that_pass_and_nothing_removes_nothing(photos):
    ids = list(photos.paths())
    assert photos.remove() == 0
    assert photos.remove(where="rating > 100") == 0
    assert photos.remove(ids[0], where="rating = 1") == 0
    assert len(photos) == 7
    assert photos.remove(ids[0], ids[1], where="rating = 1") == 1
    assert photos.remove("set", where="tags = 'blue'") == 1
    assert photos.remove(where="rating > 3 or rating is null") == 3
    assert sorted(photos.paths().values()) == ["set/red0", "set/yellow3"]
    with pytest.raises(QueryError, match="at character 1 "):
        photos.remove(where="")
    assert len(photos) == 2


def test_what_changes_is_seen_by_the_next_condition(photos):
    assert len(photos.search("red", where="rating = 1")) == 1
    photos.remove(where="rating = 1")
    assert len(photos.search("red", where="rating = 1")) == 0
    photos.add([("new", Image.new("RGB", (99, 9), "red"))], progress=False)
    assert keys(photos.search("red", where="width = 99")) == ["new"]


def test_of_equal_pictures_only_those_that_pass_are_found(tmp_path):
    one = tmp_path / "one"
    one.mkdir()
    Image.new("RGB", (8, 8), "red").save(one / "a.png")
    Image.new("RGB", (8, 8), "blue").save(one / "b.png")
    for name in ("two", "three"):
        shutil.copytree(one, tmp_path / name)
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        for folder in ("one", "two", "three"):
            photos.add(tmp_path / folder, progress=False)
        photos.add(tmp_path, progress=False)  # the same files again, as another source
        for folder in ("one", "two", "three"):
            found = photos.search("red", k=2, where=f"source like '%/{folder}'")
            assert [hit.path for hit in found] == [
                str(tmp_path / folder / name) for name in ("a.png", "b.png")
            ]
        found = photos.search("red", k=9, where=f"source = '{tmp_path}' and path not like '%/two/%'")
        assert keys(found) == ["one/a.png", "three/a.png", "one/b.png", "three/b.png"], "however seen before"


def test_a_condition_is_read_even_where_there_is_nothing_yet(tmp_path):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        assert len(photos.search("red", where="rating > 3")) == 0
        for ask in (photos.search, photos.classify):
            with pytest.raises(QueryError, match="at character 9 "):
                ask(["red", "blue"] if ask == photos.classify else "red", where="rating >")


@pytest.fixture
def diary(tmp_path):
    """Pictures taken in four months."""
    moments = ["2024-03-31T23:59:59", "2024-04-01T00:00:00", "2024-11-30T08:00:00.25", "2024-12-01T00:00:00"]
    known = [("red", {"taken": moment}) for moment in moments]
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        photos.add(Shoot(known), progress=False)
        yield photos


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("taken between '2024-03' and '2024-11'", [0, 1, 2]),
        ("taken <= '2024-11'", [0, 1, 2]),
        ("taken > '2024-11'", [3]),
        ("taken >= '2024-04'", [1, 2, 3]),
        ("taken < '2024-04'", [0]),
        ("taken = '2024-04'", [1]),
        ("taken_at != '2024'", []),
        ("taken in ('2024-03', '2024-12-01')", [0, 3]),
        ("taken <= '2024-11-30 08:00'", [0, 1, 2]),
        ("taken < '2024-04-01 00:00:00'", [0]),
        ("not taken <= '2024-11-29'", [2, 3]),
    ],
)
def test_the_beginning_of_a_date_stands_for_all_of_that_time(diary, where, expected):
    assert [id - 1 for id in diary.paths(where=where)] == expected


def test_any_number_of_hits_may_be_asked_for(photos):
    assert len(photos.search("red", k=10**30)) == 7
