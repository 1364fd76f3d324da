import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from clipsearch.errors import LabelError
from clipsearch.labels.labelset import Label, LabelSet, read_labels, split_names
from clipsearch.labels.templates import open_clip_metadata, read_templates

CAT = Label("cat", ("kitty", "tabby"), (), "animals/pets")
DOG = Label("dog", (), ("a dog, barking.", "a dog | or so"), "animals/pets")
CAR = Label("car", group="things")


@pytest.fixture
def write(tmp_path):
    """Writes a file of labels and returns its path."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def test_a_list_of_names_and_labels_becomes_a_label_set():
    labels = read_labels([" cat ", Label("dog", ["hound"], [" a  dog. "]), "car"])
    assert labels.names == ("cat", "dog", "car")
    assert labels[1] == Label("dog", ("hound",), ("a dog.",))
    assert len(labels) == 3 and list(labels[1:]) == [labels[1], Label("car")]
    assert isinstance(labels[1:], LabelSet)
    assert read_labels(labels) == labels
    assert repr(labels) == "LabelSet(3 labels: cat, dog, car)"
    assert repr(read_labels(list("abcdefg"))) == "LabelSet(7 labels: a, b, c, d, e, …)"


def test_a_label_is_found_by_its_name_or_synonym_however_it_is_spelled():
    labels = read_labels([CAR, CAT, "Café au lait"])
    for name in ("cat", "CAT", "  Kitty", "tabby"):
        assert labels.index(name) == 1
    assert labels.index(unicodedata.normalize("NFD", "CAFÉ  AU lait")) == 2
    with pytest.raises(
        LabelError, match="found the label 'dog', expected one of 'car', 'cat', 'Café au lait'"
    ):
        labels.index("dog")


def test_groups_hold_the_labels_of_all_within_them():
    cow = Label("cow", group="animals/farm")
    labels = read_labels([CAT, "sky", cow, CAR, DOG, Label("zebra", group="animals")])
    assert labels.groups() == {
        "animals": (0, 2, 4, 5),
        "animals/pets": (0, 4),
        "animals/farm": (2,),
        "things": (3,),
    }
    assert read_labels(["a", "b"]).groups() == {}


def test_a_mapping_gives_each_name_prompts_of_its_own():
    labels = read_labels({"cat": ["a cat.", "one cat."], "dog": ("a dog.",), "car": []})
    assert [label.prompts for label in labels] == [("a cat.", "one cat."), ("a dog.",), ()]


def test_a_text_file_has_one_name_a_line(write):
    path = write(
        "a.txt", b"\xef\xbb\xbfcat\r\n\r\n  hot dog, with mustard \nC#\r\xea\xb3\xa0\xec\x96\x91\xec\x9d\xb4"
    )
    for spec in (path, str(path)):
        assert read_labels(spec).names == ("cat", "hot dog, with mustard", "C#", "고양이")


TABLE = """\ufeffid, Label ,synonyms,prompts,group
1,cat, kitty | tabby|,,animals/pets
,,,,

2,dog,,"a dog, barking.|a dog or so",animals / pets
3, car
"""


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.tsv"])
def test_a_table_has_a_header_and_a_label_a_row(write, name):
    tabs = TABLE.replace('"a dog, barking', "a dog; barking").replace('or so"', "or so").replace(",", "\t")
    path = write(name, tabs.replace(";", ",") if name == "a.tsv" else TABLE)
    dog = Label("dog", (), ("a dog, barking.", "a dog or so"), "animals/pets")
    assert list(read_labels(path)) == [CAT, dog, Label("car")]


def test_a_table_may_call_the_column_name(write):
    assert read_labels(write("a.csv", 'NAME\ncat\n"a, b"\n')).names == ("cat", "a, b")


FIELDS = [
    {"label": "cat", "synonyms": ["kitty", "tabby"], "group": "animals/pets", "id": 3},
    {"name": "dog", "prompts": list(DOG.prompts), "group": "animals/pets", "synonyms": None},
    {"name": "car", "group": "things"},
]


@pytest.mark.parametrize(
    "content",
    [
        FIELDS,
        {"cat": FIELDS[0], "dog": FIELDS[1], "car": FIELDS[2]},
        {"mine": {"cat": FIELDS[0], "dog": FIELDS[1], "car": FIELDS[2]}},
    ],
)
def test_json_may_give_every_field(write, content):
    assert list(read_labels(write("a.json", content))) == [CAT, DOG, CAR]


def test_json_may_be_a_plain_list_of_names(write):
    assert read_labels(write("a.json", ["cat", {"name": "dog"}])).names == ("cat", "dog")
    assert read_labels(write("a.json", {"cat": {}, "dog": {}})).names == ("cat", "dog")


CUPL = {"cat": ["\nA cat has\n* whiskers.", " whiskers.", " whiskers."], "dog": ["A dog barks."]}


def test_cupl_prompts_are_taken_with_their_repeats_and_without_their_line_breaks(write):
    cat = Label("cat", (), ("A cat has * whiskers.", "whiskers.", "whiskers."))
    dog = Label("dog", (), ("A dog barks.",))
    for content in (CUPL, {"pets": CUPL}):  # CuPL's own layout and CLIP_benchmark's
        assert list(read_labels(write("cupl.json", content))) == [cat, dog]


def test_one_of_several_sets_in_a_file_is_chosen(write):
    path = write("sets.json", {"pets": CUPL, "vehicles": {"car": ["A car."], "bus": ["A bus."]}})
    assert read_labels(f"{path}#vehicles").names == ("car", "bus")
    with pytest.raises(
        LabelError, match=r"sets\.json, found several sets: 'pets', 'vehicles'; choose one, as"
    ):
        read_labels(path)
    with pytest.raises(LabelError, match=r"sets\.json: found no 'birds', expected one of 'pets', 'vehicles'"):
        read_labels(f"{path}#birds")
    names = write("names.json", {"cifar10": ["cat", "dog"], "mnist": ["0", "1"]})
    assert read_labels(f"{names}#mnist").names == ("0", "1")
    with pytest.raises(LabelError, match="found no 'x', expected one of only a list"):
        read_labels(f"{write('list.json', ['cat', 'dog'])}#x")


def test_a_file_whose_name_has_the_sign_is_that_file(write):
    path = write("a.json#b.json", ["cat", "dog"])
    assert read_labels(str(path)).names == ("cat", "dog")


def test_a_home_folder_is_found(write, tmp_path, monkeypatch):
    write("a.txt", "cat\ndog")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert read_labels("~/a.txt").names == read_labels(Path("~/a.txt")).names == ("cat", "dog")


def test_korean_names_are_composed_so_that_a_model_reads_them_as_written(write):
    names = ("고양이", "강아지", "자동차")
    path = write("ko.txt", unicodedata.normalize("NFD", "\n".join(names)))
    labels = read_labels(path)
    assert labels.names == names
    prompts = [read_templates(["{}의 사진", "{}"]).prompts(name) for name in labels.names]
    assert prompts[0] == ["고양이의 사진", "고양이"]
    assert read_templates().prompts(labels.names[1]) == ["a photo of 강아지."]


def test_imagenet_has_its_thousand_classes_in_order_and_no_name_twice():
    theirs = open_clip_metadata("IMAGENET_CLASSNAMES")
    assert {name for name, times in Counter(theirs).items() if times > 1} == {"missile", "sunglasses"}
    labels = read_labels("imagenet-1k")
    assert len(labels) == len(set(labels.names)) == 1000
    changed = {place: name for place, name in enumerate(labels.names) if name != theirs[place]}
    assert changed == {744: "projectile", 836: "sunglass"}
    assert (labels.index("tench"), labels.index("missile"), labels.index("toilet paper")) == (0, 657, 999)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat,dog", ["cat", "dog"]),
        (" cat , hot dog ", ["cat", "hot dog"]),
        ('cat, "dog, big", it\'s', ["cat", "dog, big", "it's"]),
        ("cat\ndog, car", ["cat", "dog", "car"]),
        ("고양이,개", ["고양이", "개"]),
        ("cat,,", ["cat", "", ""]),
        ("", []),
    ],
)
def test_names_are_split_at_commas(text, names):
    assert split_names(text) == names


def test_an_open_quote_is_no_list_of_names():
    with pytest.raises(LabelError, match=r"found 'cat,\"dog': .*expected names parted by commas"):
        split_names('cat,"dog')


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([], "^found no label, expected at least 2"),
        ({}, "^found no label"),
        (["cat"], "^found only 'cat', expected at least 2: add what else .* several labels or none"),
        (["cat", " "], "^label 2, name: found ' ', expected a text that is not blank"),
        (["cat", ""], "^label 2, name: found ''"),
        (["cat", "dog", " CAT"], "^label 3: found 'CAT', which label 1 has too; .* remove one"),
        (["caf\u00e9", "cafe\u0301"], "^label 2: found 'café', which label 1 has too"),
        (["hot  dog", "hot\u00a0dog"], "^label 2: found 'hot dog', which label 1 has too"),
        (["kitty", CAT], "^label 2: found 'kitty', which label 1 has too"),
        ([CAT, Label("puss", ("Tabby",))], "^label 2: found 'Tabby', which label 1 has too"),
        ([Label("cat", ("Cat",)), "dog"], "^label 1: found 'Cat', which label 1 has too"),
        (["cat", 3], "^label 2: found 3, expected a name or a Label"),
        (["cat", None], "^label 2: found None"),
        (["cat", b"dog"], "^label 2: found b'dog'"),
        (["cat", ["dog"]], r"^label 2: found \['dog'\]"),
        (["cat", Label(3)], "^label 2: found the name 3, expected a text"),
        (["cat", Label("dog", "hound")], "^label 2: found 'hound' as synonyms, expected a list of texts"),
        (["cat", Label("dog", (), "a dog.")], r"^label 2: found 'a dog\.' as prompts, expected a list"),
        (["cat", Label("dog", ("",))], "^label 2, synonym: found ''"),
        (
            ["cat", Label("dog", (), (" \n",))],
            "^label 2, prompt: found '', expected a text that is not blank",
        ),
        (["cat", Label("dog", (), (7,))], "^label 2: found the prompt 7"),
        (["cat", Label("dog", group="a//b")], "^label 2, group: found ''"),
        (["cat", Label("dog", group=None)], "^label 2: found the group None"),
        (["cat", "do\ng"], r"^label 2, name: found 'do\\ng', which holds characters that cannot be seen"),
        (["cat", "do\x00g"], r"^label 2, name: found 'do\\x00g'"),
        (["cat", "dog\u202e"], r"^label 2, name: found 'dog\\u202e'"),
        (["cat", "\ud800"], r"^label 2, name: found '\\ud800'"),
        ({"cat": ["a cat."], "dog": "a dog."}, r"^'dog': found 'a dog\.', expected a list of prompts"),
        ({"cat": 0, "dog": 1}, "^'cat': found 0, expected a list of prompts"),
        ({3: ["a cat."], "dog": []}, "^3: found the name 3, expected a text"),
        (["cat", {"id": 3}], "^label 2: found the fields 'id', expected either label or name"),
        (["cat", {"label": 0, "name": "dog"}], "^label 2: found the fields 'label', 'name', expected either"),
        (
            b"cat",
            r"^found labels of type bytes, expected a list of names, a \.txt, \.csv, \.tsv or \.json file",
        ),
        (7, "^found labels of type int"),
        (None, "^found labels of type NoneType"),
        ({"cat", "dog"}, "^found labels of type set"),
        (
            "cat",
            "^found the labels 'cat', which is no file; expected a list of names, .* the set 'imagenet-1k'$",
        ),
        ("cat,dog", r"which is no file; .*; split_names\('cat,dog'\) makes a list$"),
        ("", "^found the labels '', which is no file"),
        ("x" * 5000, "which is no file"),
        ("absent.txt", "^found the labels 'absent.txt', which is no file"),
        ("absent.json#pets", "^found the labels 'absent.json#pets', which is no file"),
    ],
)
def test_what_are_no_labels_is_told(spec, message):
    with pytest.raises(LabelError, match=message):
        read_labels(spec)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "\n \n", "a.txt: found no label, expected at least 2"),
        ("a.txt", "cat\n", "a.txt: found only 'cat'"),
        ("a.txt", "cat\n\nCat", "a.txt, line 3: found 'Cat', which .*a.txt, line 1 has too"),
        ("a.txt", "cat\ndog\t7", r"a.txt, line 2, name: found 'dog\\t7', which holds characters"),
        (
            "a.txt",
            "개\n고양이".encode("cp949"),
            "a.txt, line 1: found bytes that are not UTF-8; save it as UTF-8",
        ),
        ("a.txt", b"cat\ndog\n\xff", "a.txt, line 3: found bytes that are not UTF-8"),
        (
            "a.csv",
            "cat\ndog\n",
            r"a.csv, line 1: found the columns \['cat'\], expected .*label or name.*\.txt file",
        ),
        ("a.csv", "", r"a.csv, line 1: found the columns \[\]"),
        ("a.csv", "label,name\n0,cat\n", r"found the columns \['label', 'name'\], expected .* either"),
        ("a.csv", "label,group\ncat,a\ndog,a,b\n", "a.csv, line 3: found 3 cells, expected 2; quote a cell"),
        ("a.csv", 'label\ncat\n"dog\n', "a.csv, line 3: unexpected end of data; check the quotes"),
        ("a.csv", 'label\ncat\n"dog"s\n', "a.csv, line 3: .*check the quotes"),
        ("a.csv", "label,group\ncat,a\n,b\n", "a.csv, line 3, name: found ''"),
        ("a.csv", "label,synonyms\ncat,a\ndog,cat\n", "a.csv, line 3: found 'cat', which .*line 2 has too"),
        ("a.json", '["cat",\n "dog"', "a.json: expected JSON with one meaning, but .*line 2"),
        ("a.json", "", "a.json: expected JSON with one meaning"),
        ("a.json", "[" * 100_000, "a.json: expected JSON with one meaning"),
        ("a.json", '{"cat": [], "cat": []}', "a.json: .* found 'cat' twice in one object"),
        ("a.json", '"cat"', "a.json, found 'cat', expected a list of names or an object"),
        ("a.json", "7", "a.json, found 7, expected a list of names"),
        ("a.json", ["cat", 7], "a.json, label 2: found 7"),
        ("a.json", {"cat": {"group": ""}, "dog": {"synonyms": "x"}}, "a.json, 'dog': found 'x' as synonyms"),
        ("a.json", {"pets": {"cat": 7}}, "a.json, 'cat': found 7, expected a list of prompts"),
        ("a.yaml", "cat", r"found the file .*a.yaml', expected its name to end in one of \.txt, \.csv"),
    ],
)
def test_a_file_that_does_not_do_is_told_with_its_line(write, name, content, message):
    with pytest.raises(LabelError, match=message):
        read_labels(write(name, content))


def test_a_folder_is_no_file_of_labels(tmp_path):
    with pytest.raises(LabelError, match="which is no file"):
        read_labels(tmp_path)


def test_one_label_does_where_it_is_asked_for():
    assert read_labels(["cat"], least=1).names == ("cat",)
    with pytest.raises(LabelError, match="found no label, expected at least 1"):
        read_labels([], least=1)
    with pytest.raises(LabelError, match="found only 'cat', 'dog', expected at least 3"):
        read_labels(["cat", "dog"], least=3)


def test_twenty_thousand_labels_are_read_and_the_last_repeat_is_found():
    names = [f"thing {number}" for number in range(20_000)]
    assert read_labels(names).index("THING 19999") == 19_999
    with pytest.raises(LabelError, match="label 20001: found 'Thing 7', which label 8 has too"):
        read_labels([*names, "Thing 7"])
