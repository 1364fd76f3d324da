import functools
import subprocess
import sys
import unicodedata

import pytest

from clipsearch.errors import LabelError
from clipsearch.labels.templates import (
    DEFAULT,
    SETS,
    Templates,
    open_clip_metadata,
    read_templates,
    with_article,
)


def fill_nothing(name):
    return "  "


class Shouter:
    """A callable that can be compared and so has no hash."""

    def __eq__(self, other):
        return isinstance(other, Shouter)

    def __call__(self, name):
        return name.upper()


@pytest.mark.parametrize(
    ("spec", "prompts"),
    [
        ("plain", ["cat"]),
        ("photo", ["a photo of a cat."]),
        ("a drawing of a {}.", ["a drawing of a cat."]),
        ("a drawing of a {c}.", ["a drawing of a cat."]),
        ("{} beside another {c}", ["cat beside another cat"]),
        ("  a   {}  ", ["a cat"]),
        (str.upper, ["CAT"]),
        (Shouter(), ["CAT"]),
        (functools.partial("{1} of a {0}".format, "tiger"), ["cat of a tiger"]),
        (["{}", "a {c}", str.upper], ["cat", "a cat", "CAT"]),
        (("{}",), ["cat"]),
    ],
)
def test_a_name_is_put_where_the_template_says(spec, prompts):
    assert read_templates(spec).prompts("cat") == prompts


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("openai-80", "openai-80"),
        (" a  {} ", "a {}"),
        (["a {}"], "a {}"),
        (["a {}", "{}"], "2 templates"),
        (fill_nothing, "function fill_nothing"),
        (Shouter(), "function Shouter"),
    ],
)
def test_templates_know_what_to_be_called(spec, name):
    assert read_templates(spec).name == name


def test_the_default_is_a_photo_with_its_article():
    assert DEFAULT == "photo"
    assert read_templates().prompts("owl") == ["a photo of an owl."]
    assert read_templates(read_templates("plain")) == read_templates("plain")


@pytest.mark.parametrize("name", ["{}", "{c}", "{0.__class__}", "%s", "\\1", "a{b"])
def test_braces_and_signs_in_a_name_stay_as_they_are(name):
    assert read_templates("see {c} and {}").prompts(name) == [f"see {name} and {name}"]


@pytest.mark.parametrize(
    "template", ["a {} {name}", "{0.__class__}{}", "{!r} {}", "a {{}} b", "{{c}}", "{ } {}", "{}}", "{c}{"]
)
def test_no_other_braces_are_taken(template):
    with pytest.raises(LabelError, match=r"the template: found '.*'; braces may be .* only as \{\} or \{c\}"):
        read_templates(template)


def test_a_file_holds_one_template_a_line(tmp_path):
    path = tmp_path / "mine.txt"
    korean = unicodedata.normalize("NFD", "{}의 사진")
    path.write_bytes(b"\xef\xbb\xbf" + f"a {{}}.\r\n\r\n  the {{c}}.  \r\n{korean}".encode())
    for spec in (path, str(path)):
        templates = read_templates(spec)
        assert templates.name == "mine.txt"
        assert templates.prompts("고양이") == ["a 고양이.", "the 고양이.", "고양이의 사진"]  # composed again


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("a {}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert read_templates("~/mine.txt").prompts("cat") == ["a cat"]


def test_korean_templates_take_korean_names():
    templates = read_templates(["{} 사진", "사진 속의 {}"])
    assert templates.prompts("고양이") == ["고양이 사진", "사진 속의 고양이"]


def test_the_named_sets_equal_those_of_open_clip():
    from open_clip import zero_shot_metadata as theirs

    for name in ("cat", "origami {c}", "고양이"):
        for ours, there in [
            ("openai-80", theirs.OPENAI_IMAGENET_TEMPLATES),
            ("simple-7", theirs.SIMPLE_IMAGENET_TEMPLATES),
        ]:
            assert read_templates(ours).prompts(name) == [template(name) for template in there]
    assert open_clip_metadata("IMAGENET_CLASSNAMES") == theirs.IMAGENET_CLASSNAMES
    assert len(read_templates("openai-80").fill) == 80
    assert len(read_templates("simple-7").fill) == 7


def test_the_named_sets_load_neither_open_clip_nor_torch():
    code = """
import sys
from clipsearch.labels.labelset import read_labels
from clipsearch.labels.templates import read_templates
assert len(read_templates("openai-80").prompts("cat")) == 80
assert len(read_labels("imagenet-1k")) == 1000
print([name for name in ("torch", "open_clip", "PIL") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_without_open_clip_the_message_says_what_to_install():
    code = """
import sys
sys.modules["open_clip"] = None
from clipsearch.errors import LabelError
from clipsearch.labels.templates import read_templates
try:
    read_templates("simple-7")
except LabelError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install open_clip_torch" in run.stdout


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("openai80", "found the templates 'openai80', which is no file; .*plain, photo, simple-7, openai-80"),
        ("a photo", r"found the templates 'a photo'.*sentence with \{\} or \{c\} where the name goes"),
        ("a photo of {name}", r"found the templates 'a photo of \{name\}'"),
        ("", "found the templates ''"),
        ([], "found no templates, expected at least one"),
        (["a {}", "a photo"], r"template 2: found 'a photo', expected \{\} or \{c\}"),
        (["photo", "a {}"], "template 1: found 'photo'"),
        (["a {}", " "], "template 2: found ' ', expected a text that is not blank"),
        (["a {}", "the {}", "a  {c} "], r"template 3: found 'a  \{c\} ' again.*remove one"),
        ([str.upper, str.upper], "template 2: found .* again"),
        ([Shouter(), Shouter()], "template 2: found .* again"),
        (["a {}", 3], "template 2: found 3, expected a sentence"),
        (["a\n{}"], r"template 1: found 'a\\n\{\}', which holds characters that cannot be seen"),
        (["a \ud800 {}"], r"template 1: found 'a \\ud800 \{\}', which holds characters that cannot be seen"),
        (b"a {}", "found templates of type bytes, expected one of the sets plain"),
        (None, "found templates of type NoneType"),
        (7, "found templates of type int"),
        ({"a {}"}, "found templates of type set"),
    ],
)
def test_what_are_no_templates_is_told(spec, message):
    with pytest.raises(LabelError, match=message):
        read_templates(spec)


def test_a_file_of_templates_that_does_not_do_is_told_with_its_line(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("a {}\n\nthe {}\na {c}\n")
    with pytest.raises(LabelError, match=r"mine\.txt, line 4: found 'a \{c\}' again"):
        read_templates(path)
    path.write_text("\n")
    with pytest.raises(LabelError, match="found no templates"):
        read_templates(path)
    path.write_bytes("a {}\n{}의 사진".encode("cp949"))
    with pytest.raises(LabelError, match=r"mine\.txt, line 2: found bytes that are not UTF-8"):
        read_templates(path)
    with pytest.raises(LabelError, match=r"cannot read .*absent\.txt': No such file"):
        read_templates(tmp_path / "absent.txt")
    with pytest.raises(LabelError, match="cannot read"):
        read_templates(tmp_path)


def test_a_function_must_return_a_sentence():
    with pytest.raises(LabelError, match=r"the template: the function returned '  ' for 'cat'"):
        read_templates(fill_nothing).prompts("cat")
    with pytest.raises(LabelError, match=r"template 2: the function returned 3 for 'cat'"):
        read_templates(["{}", len]).prompts("cat")


def test_templates_made_by_hand_are_taken_as_they_are():
    templates = Templates("mine", (str.upper, str.lower))
    assert read_templates(templates) is templates
    assert templates.prompts("Cat") == ["CAT", "cat"]


AN = """\
hour; hourglass; honest man; heir; heirloom tomato; hors d'oeuvre; apple; Egg; ice cream; owl; umbrella;
uncle; urn; urchin; ugly duckling; upright piano; usher; unusual car; unopened box; unidentified object;
unimpressed cat; X-ray; x-ray; MRI; MRI scan; F-16; S bend; HDMI cable; SUV; LED lamp; R2; M&M; FBI
agent; ECG; EU flag; octopus; 8-ball; 80s car; 8; 11; 18-wheeler; éclair; Île flottante; onerous task;
Ewok; only child; iPod; 8 track tape; atlas; oncoming car"""

A = """\
cat; house; horse; hotel; unicorn; uniform; unicycle; union jack; universal remote; university; unit;
one-eyed cat; one-piece bathing suit; onesie; once-loved toy; European robin; eucalyptus; ewe; ukulele;
urinal; utensil; user; UFO; ufo; UK flag; USB stick; usb stick; UV lamp; UAV; U-turn; T-shirt; NASA
logo; LEGO brick; SIM card; SHIRT; FROG; SHRIMP; yacht; wheel; 7-seater; 1; 100 m race; 2CV; Ñandú;
rhino; led; suv; bus; glass; cactus; tennis racket; tennis; lens; camera lens; gas; gas mask; canvas;
Canvas; triceratops; compass; McDonald's; potter's wheel; pair of jeans; man in shorts; woman with
glasses; slice of tomatoes; box (for shoes); Christmas tree; dress; café; plate of fish;
rhinoceros; TV series; bias; cosmos; thermos"""

NEITHER = """\
a cat; an owl; A Cat; the sun; my dog; two cats; three fish; one cat; some bread; something else;
nothing; these shoes; scissors; jeans; dogs; DOGS; glasses; buses; lenses; gaskets; potatoes; men;
Women; people; children; police dogs; old men; cats and dogs; dogs in a park; tights (clothing);
swim trunks / shorts; 2 cats; mice; 고양이; 파란 자동차; K팝 가수들; 猫; кошка; γάτα; قطة; 🐱;
(unknown); “quoted”"""


def words(text):
    return text.replace("\n", " ").split("; ")


@pytest.mark.parametrize(("names", "article"), [(AN, "an "), (A, "a "), (NEITHER, "")])
def test_names_get_the_article_they_are_said_with(names, article):
    got = {name: with_article(name) for name in words(names)}
    assert got == {name: article + name for name in words(names)}


def test_every_name_of_imagenet_that_gets_no_article_is_a_plural():
    alone = {name for name in open_clip_metadata("IMAGENET_CLASSNAMES") if with_article(name) == name}
    assert alone == {
        "binoculars", "clogs", "jeans", "mashed potatoes", "pajamas", "parallel bars", "sunglasses",
        "swim trunks / shorts", "tights",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["", " ", "a", "the", "8", "s"])
def test_odd_names_break_nothing(name):
    assert name in read_templates().prompts(name)[0]


def test_every_named_set_can_be_read():
    assert [read_templates(name).name for name in SETS] == ["plain", "photo", "simple-7", "openai-80"]
