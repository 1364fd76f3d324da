import os
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipsearch.errors import CollectionError, ImageError, LabelError, SourceError
from clipsearch.labels import Label, LabelResults, LabelSet, Pictured, Scores
from clipsearch.labels.evaluation import evaluate
from clipsearch.labels.page import write_report

NAMES = ("cat", "=dog & <b>", '고양이, "새끼"')
COLOURS = {"cat": "red", "=dog & <b>": "green", '고양이, "새끼"': "blue"}
NOT_UTF8 = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")


class Reader(HTMLParser):
    """Reads a page: its sections as (level, heading, texts), its elements, and its pictures' colours."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.sections, self.stack, self.colours = [], [("", "", [])], [], {}
        self.feed(Path(path).read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self.stack.append(tag)
        if tag in ("h2", "h3", "footer"):
            self.sections.append((tag, "", []))
        if tag == "img":
            picture = Image.open(BytesIO(b64decode(attributes["src"].partition(",")[2])))
            heading = self.sections[-1][1]
            self.colours.setdefault(heading, []).append(name_of(picture.resize((1, 1)).getpixel((0, 0))))

    def handle_endtag(self, tag):
        self.stack.append("/")

    def handle_data(self, data):
        level, heading, texts = self.sections[-1]
        if not heading and level and not texts:
            self.sections[-1] = (level, data, [])
        elif data.strip() and self.stack[-1] == "wbr" and texts:
            texts[-1] += data
        elif data.strip():
            texts.append(data.strip())

    def headings(self, level):
        return [heading for found, heading, _ in self.sections if found == level]

    def texts(self, heading):
        return next(texts for _, found, texts in self.sections if found == heading)


def name_of(pixel):
    return ("red", "green", "blue")[int(np.argmax(pixel))]


def png(colour):
    file = BytesIO()
    Image.new("RGB", (60, 40), colour).save(file, "PNG")
    return lambda: file.getvalue()


def raising(error):
    def read():
        raise error

    return read


def results(rows, **how):
    """What was said, of rows of (key, read, scores of the labels, chance of unknown, reason)."""
    size = len(how.get("names", NAMES))
    scores = np.array([row[2] for row in rows], np.float32).reshape(len(rows), size)
    top = np.argsort(-scores, axis=1, kind="stable").astype(np.int32)
    scores = np.take_along_axis(scores, top, 1)
    top[np.isnan(scores[:, 0])] = -1
    told = {
        "multi": False,
        "kind": "softmax",
        "model": "local-dir:/home/kim/siglip",
        "templates": "photo",
    } | how
    return LabelResults(
        LabelSet(tuple(Label(name) for name in told.pop("names", NAMES))),
        tuple(
            Pictured(n, f"/home/kim/{key}", key, "/home/kim", read, reason)
            for n, (key, read, _, _, reason) in enumerate(rows, 1)
        ),
        Scores(top, scores, scores / 10, np.array([row[3] for row in rows], np.float32)),
        **told,
    )


def row(key, scores, colour="red", unknown=0.1, read=None, reason=""):
    return key, read or png(colour), scores, unknown, reason


@pytest.fixture
def mixed():
    """Five cats that are ever less sure (the fifth abstained), two others, an unknown and a failed one."""
    cats = [row(f"cats/{n}.png", [0.99 - n / 10, 0.01, n / 10]) for n in range(5)]
    return results(
        [
            *cats,
            row(f"dogs/{NOT_UTF8}", [0.1, 0.9, 0.0], "green"),
            row("dogs/=1+1,'\".png", [0.2, 0.0, 0.8], "blue"),
            row("dogs/strange.png", [0.6, 0.4, 0.0], "green", unknown=0.75),
            row(
                "dogs/cut.png", [np.nan] * 3, unknown=np.nan, reason="cut short in local-dir:/home/kim/siglip"
            ),
        ],
        threshold=0.6,
    )


def test_a_page_tells_what_was_done_and_how_many_pictures_each_label_has(mixed, tmp_path):
    page = Reader(write_report(mixed, tmp_path / "page.html"))

    assert page.texts("Labels") == [
        "6 labelled · 1 unknown · 1 abstained · 1 failed",
        *("label", "pictures"),
        *("cat", "4", "=dog & <b>", "1", '고양이, "새끼"', "1"),
    ]
    about = " ".join(page.sections[0][2])
    assert "9 pictures, 3 labels" in about
    assert "The model siglip gave each picture the best of 3 labels (prompt templates: photo)." in about
    assert "A score is a label's share among all the labels. A label is said from a score of 0.6 on." in about
    assert page.headings("h2") == ["Labels", *NAMES, "Unknown", "Abstained", "Cannot be read"]


def test_bars_are_as_long_as_the_counts(mixed, tmp_path):
    page = Reader(write_report(mixed, tmp_path / "page.html"))

    widths = [attrs["style"] for tag, attrs in page.elements if tag == "i"]
    assert widths == ["width:100.0%", "width:25.0%", "width:25.0%"]


def test_each_label_has_its_pictures_surest_first(mixed, tmp_path):
    page = Reader(write_report(mixed, tmp_path / "page.html"))

    assert page.texts("cat")[0] == "4 pictures"
    assert [text for text in page.texts("cat") if text.startswith("0.") and text[-1].isdigit()] == [
        "0.990",
        "0.890",
        "0.790",
        "0.690",
    ]
    assert page.colours == {
        "cat": ["red"] * 4,
        "=dog & <b>": ["green"],
        '고양이, "새끼"': ["blue"],
        "Unknown": ["green"],
        "Abstained": ["red"],
    }
    assert page.texts("Unknown")[1:] == [
        "strange.png",
        "0.600",
        "dogs",
        "guess: cat",
        "or =dog & <b> 0.400",
        "unknown 0.750",
    ]
    assert page.texts("Abstained")[1:5] == ["4.png", "0.590", "cats", "guess: cat"]


def test_with_more_pictures_than_are_shown_there_are_the_surest_and_the_least_sure(tmp_path):
    some = results([row(f"{n}.png", [0.9 - n / 10, 0.1, 0.0]) for n in (3, 0, 5, 1, 4, 2)])

    page = Reader(write_report(some, tmp_path / "page.html", shown=4))

    names = [[text for text in page.texts(part) if ".png" in text] for part in page.headings("h3")]
    assert page.headings("h3") == ["The surest", "The least sure"]
    assert names == [["0.png", "1.png"], ["5.png", "4.png"]]
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert links == ["#s1", "#s2"], "to the labels and to cats, not to their parts"


def test_the_unknown_come_first_of_which_that_is_surest(tmp_path):
    chances = {"b.png": 0.7, "a.png": 0.9, "c.png": 0.6}
    some = results([row(key, [0.5, 0.3, 0.2], unknown=chance) for key, chance in chances.items()])

    page = Reader(write_report(some, tmp_path / "page.html"))

    assert [text for text in page.texts("Unknown") if ".png" in text] == ["a.png", "b.png", "c.png"]


def test_a_page_names_no_folder_of_this_machine_unless_asked(mixed, tmp_path):
    hidden = Path(write_report(mixed, tmp_path / "page.html")).read_text("utf-8")
    told = Reader(write_report(mixed, tmp_path / "all.html", reveal=True))

    assert "/home" not in hidden
    assert "kim" not in hidden
    assert Reader(tmp_path / "page.html").texts("Cannot be read")[4:] == [
        "cut.png",
        "dogs",
        "cut short in siglip",
    ]
    assert "/home/kim/cats/0.png" in told.texts("cat")
    assert "/home/kim/dogs" in told.texts("Cannot be read")


def test_a_revealing_page_leads_to_the_files_that_are_there(tmp_path):
    (tmp_path / "a b.png").write_bytes(png("red")())
    pictures = tuple(
        Pictured(n, str(tmp_path / name), name, str(tmp_path), png("red"))
        for n, name in enumerate(["a b.png", "c.png"])
    )
    scored = Scores(
        *(np.zeros((2, 1), kind) for kind in (np.int32, np.float32, np.float32)), np.zeros(2, np.float32)
    )
    both = LabelResults(LabelSet((Label("cat"),)), pictures, scored, True, "sigmoid", "m", "photo", 0.0)

    page = Reader(write_report(both, tmp_path / "page.html", reveal=True))

    links = [
        attrs["href"] for tag, attrs in page.elements if tag == "a" and not attrs["href"].startswith("#")
    ]
    assert links == [(tmp_path / "a b.png").as_uri()]


def test_strangers_names_are_shown_and_never_obeyed(mixed, tmp_path):
    page = Reader(write_report(mixed, tmp_path / "page.html", title="<script>x</script>"))

    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "b", "link", "iframe", "object", "form"})
    assert "caf\\xe9.jpg" in page.texts("=dog & <b>")
    assert "=1+1,'\".png" in page.texts('고양이, "새끼"')
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImageError("the file is cut short"), "the file is cut short"),
        (
            FileNotFoundError(2, "No such file", "/home/kim/x"),
            "the file is gone; if its folder was moved, relocate the source",
        ),
        (PermissionError(13, "Permission denied", "/home/kim/x"), "Permission denied"),
        (SourceError("/home/kim is gone"), "the place it came from cannot be read"),
    ],
)
def test_a_picture_that_can_no_longer_be_read_is_a_placeholder(error, reason, tmp_path):
    both = results([row("a.png", [0.9, 0.1, 0]), row("b.png", [0.8, 0.1, 0.1], read=raising(error))])

    page = Reader(write_report(both, tmp_path / "page.html"))

    assert page.colours == {"cat": ["red"]}
    assert ["Picture not available", reason] == [
        t for t in page.texts("cat") if t in ("Picture not available", reason)
    ]
    assert "kim" not in (tmp_path / "page.html").read_text()


def test_an_evaluation_is_shown_with_what_is_mixed_up(mixed, tmp_path):
    truth = ["cat", "cat", "cat", "=dog & <b>", "cat", "=dog & <b>", "=dog & <b>", "bird", "cat"]

    found = evaluate(mixed, truth)
    page = Reader(write_report(mixed, tmp_path / "page.html", evaluation=found))

    told = page.texts("Against the truth")
    assert told[0].split(" · ") == [
        *("7 pictures", "1 more show none of the labels", "1 more cannot be read"),
        "not among the labels: bird 1",
    ]
    assert told[told.index("acc1") :][:3] == ["acc1", "0.714", "0.333"]
    assert told[told.index("mean_per_class_recall") :][:3] == ["mean_per_class_recall", "0.667", "0.333"]
    heat = [
        (attrs.get("class"), attrs.get("title"))
        for tag, attrs in page.elements
        if tag == "td" and "title" in attrs
    ]
    assert heat == [
        ("heat right deep", "cat, guess cat: 4 of 4"),
        ("heat", "=dog & <b>, guess cat: 1 of 3"),
        ("heat right", "=dog & <b>, guess =dog & <b>: 1 of 3"),
        ("heat", '=dog & <b>, guess 고양이, "새끼": 1 of 3'),
    ]
    assert page.texts("Label by label")[1:] == [
        *("label", "pictures", "precision", "recall"),
        *("=dog & <b>", "3", "1.000", "0.333", "cat", "4", "0.800", "1.000"),
    ]
    assert [text for text in page.texts("Surest mistakes") if text.startswith(("guess", "truth", "0."))] == [
        *("0.800", 'guess: 고양이, "새끼"', "truth: =dog & <b>"),
        *("0.690", "guess: cat", "truth: =dog & <b>"),
    ]
    assert page.texts("cat").count("truth: =dog & <b>") == 1, "mistakes are marked on the sheets too"


def test_the_reliability_diagram_has_a_bar_and_a_mark_for_each_bin(tmp_path):
    some = results([row("1", [0.5, 0.3, 0.2]), row("2", [0.5, 0.3, 0.2]), row("3", [0.95, 0.05, 0.0])])

    page = Reader(
        write_report(some, tmp_path / "page.html", evaluation=evaluate(some, ["cat", NAMES[1], "cat"]))
    )

    assert page.texts("How far to trust a score")[1:] == [
        *("score", "guesses", "right"),
        *("0.47–0.53", "2", "0.500", "0.93–1.00", "1", "1.000"),
    ]
    assert [attrs["style"] for tag, attrs in page.elements if tag == "b"] == ["left:50.0%", "left:95.0%"]


def test_several_labels_each_have_their_pictures_and_no_mistakes(tmp_path):
    both = results([row("1", [0.9, 0.8, 0.1]), row("2", [0.7, 0.1, 0.2])], multi=True, kind="sigmoid")

    page = Reader(
        write_report(both, tmp_path / "page.html", evaluation=evaluate(both, [["cat", NAMES[1]], ["cat"]]))
    )

    assert page.headings("h2") == ["Labels", "Against the truth", "cat", "=dog & <b>"]
    assert "Surest mistakes" not in page.headings("h3")
    assert "those that fit of 3 labels" in " ".join(page.sections[0][2])
    assert page.texts("=dog & <b>")[:3] == ["1 picture", "1", "0.800"]
    assert "or cat 0.900" in page.texts("=dog & <b>")


def test_a_thousand_labels_make_a_page_of_sane_size(tmp_path):
    names = [f"label {n}" for n in range(1000)]
    rows = []
    for n in range(130):  # labels 0 to 29 have three pictures or more
        scores = np.full(1000, 0.0004)
        scores[n % 100 if n < 100 else n % 10] = 0.6
        rows.append(row(f"{n}.png", scores))
    some = results(rows, names=names)
    truth = [f"label {n % 90}" for n in range(130)]

    written = write_report(some, tmp_path / "page.html", evaluation=evaluate(some, truth), shown=10)

    page = Reader(written)
    assert written.stat().st_size < 1_000_000
    assert "the 40 commonest labels; the other 960 have 60 pictures" in page.texts("Labels")[0]
    assert page.texts("Further labels") == ["The pictures of 40 more labels are not shown"]
    assert len([name for name in page.headings("h2") if name.startswith("label ")]) == 60
    assert not [attrs for _, attrs in page.elements if "heat" in attrs.get("class", "")]
    assert page.texts("Taken for each other")[1:4] == ["shows", "taken for", "pictures"]


def test_no_pictures_at_all_are_still_a_page(tmp_path):
    page = Reader(write_report(results([], names=["cat"]), tmp_path / "page.html"))

    assert page.texts("Labels") == ["no pictures", "label", "pictures", "cat", "0"]


def test_a_page_that_cannot_be_made_says_why(mixed, tmp_path):
    others = results([row("1", [0.9, 0.1])], names=["boat", "car"])

    with pytest.raises(LabelError, match="found shown=1, expected 2 or more"):
        write_report(mixed, tmp_path / "page.html", shown=1)
    with pytest.raises(LabelError, match="found an evaluation of other labels"):
        write_report(mixed, tmp_path / "page.html", evaluation=evaluate(others, ["boat"]))
    with pytest.raises(CollectionError, match="cannot write"):
        write_report(mixed, tmp_path / "absent" / "page.html")
    assert not os.listdir(tmp_path)
