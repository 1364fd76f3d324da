import subprocess
import sys
import unicodedata
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image

from clipsearch.render import Card, Section, grid, page, printable, thumbnail

HOSTILE = "<script>alert(1)</script> \"a\" 'b' &amp; \x1b[31m \u202egpj.exe \udcff \ud800 \r\n </style> -->"
VISIBLE = (
    "<script>alert(1)</script> \"a\" 'b' &amp; \\x1b[31m \\u202egpj.exe \\xff \\ud800 \\r\\n </style> -->"
)


class Reader(HTMLParser):
    """Reads HTML as a browser does: the elements with their attributes, and the texts."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag != "wbr":  # a place to break a line is no border between texts
            self.texts.append("")

    def handle_endtag(self, tag):
        self.texts.append("")

    def handle_data(self, data):
        self.texts[-1:] = ["".join(self.texts[-1:]) + data]

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.elements if name in attrs]

    def tags(self):
        return {tag for tag, _ in self.elements}


@pytest.fixture(scope="module")
def jpeg():
    return thumbnail(Image.new("RGB", (40, 30), (200, 30, 60)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ελλάδα 東京\u3000日本 café\u202f1.jpg", "Ελλάδα 東京\u3000日本 café\u202f1.jpg"),
        ("a\\b", "a\\b"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("two\nlines\tand\x00nul\x7f", "two\\nlines\\tand\\x00nul\\x7f"),
        ("photo\u202egnp.exe", "photo\\u202egnp.exe"),
        ("\u2066x\u2069\u200e\u061c\u200b\ufeff", "\\u2066x\\u2069\\u200e\\u061c\\u200b\\ufeff"),
        ("line\u2028paragraph\u2029", "line\\u2028paragraph\\u2029"),
        (b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), "caf\\xe9.jpg"),
        ("\ud83d", "\\ud83d"),
        ("می\u200cخواهم 👩\u200d🚀", "می\u200cخواهم 👩\u200d🚀"),
        ("", ""),
    ],
)
def test_text_shows_what_is_plain_writing_and_spells_out_what_is_not(text, shown):
    assert printable(text) == shown


def test_no_character_at_all_steers_a_terminal_or_breaks_utf_8():
    shown = printable("".join(map(chr, range(sys.maxunicode + 1))))

    shown.encode()
    assert {"Cc", "Cs", "Zl", "Zp"}.isdisjoint(map(unicodedata.category, shown))
    assert {c for c in shown if unicodedata.category(c) == "Cf"} == {"\u200c", "\u200d"}


def test_a_thumbnail_keeps_proportions_and_colours():
    picture = Image.new("RGB", (1000, 500), (220, 20, 20))
    picture.paste((20, 40, 220), (500, 0, 1000, 500))

    small = Image.open(BytesIO(thumbnail(picture, 200)))

    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (200, 100))
    assert small.getpixel((40, 50)) == pytest.approx((220, 20, 20), abs=6)
    assert small.getpixel((160, 50)) == pytest.approx((20, 40, 220), abs=6)
    assert picture.size == (1000, 500), "the picture handed in stays as it was"


def test_a_thumbnail_of_a_small_picture_is_no_larger():
    assert Image.open(BytesIO(thumbnail(Image.new("RGB", (30, 20)), 256))).size == (30, 20)


def test_a_thumbnail_carries_nothing_of_the_metadata():
    exif = Image.Exif()
    exif[0x0110] = "secret camera"
    file = BytesIO()
    Image.new("RGB", (600, 600)).save(file, "JPEG", exif=exif, comment=b"secret comment", xmp=b"<secret/>")
    picture = Image.open(file)
    assert b"secret" in picture.info["comment"]

    small = thumbnail(picture)

    assert b"secret" not in small
    assert set(Image.open(BytesIO(small)).info) == {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_strangers_text_is_shown_and_never_obeyed(jpeg):
    cards = [Card(HOSTILE, [HOSTILE], jpeg, badge=HOSTILE), Card("b", reason=HOSTILE)]
    sections = [Section(HOSTILE, HOSTILE, cards), Section("another")]

    document = page(HOSTILE, sections, note=HOSTILE, footer=HOSTILE)

    document.encode()
    read = Reader(document)
    assert "script" not in read.tags()
    assert sum(text.strip() == VISIBLE for text in read.texts) == 11  # <title>, h1, note, contents, h2, …
    assert read.attributes("alt") == [VISIBLE]
    assert not [name for _, attrs in read.elements for name in attrs if name.startswith("on")]


def test_a_page_asks_for_nothing_from_anywhere(jpeg):
    document = page("t", [Section("s", "", [Card("a", image=jpeg), Card("b")]), Section("u")])

    read = Reader(document)
    assert "http:" not in document
    assert "https:" not in document
    assert "url(" not in document
    assert "@import" not in document
    assert read.tags().isdisjoint({"link", "script", "iframe", "object", "embed", "base", "form"})
    assert all(address.startswith("data:image/jpeg;base64,") for address in read.attributes("src"))
    assert read.attributes("href") == ["#s1", "#s2"]
    policy = next(a["content"] for _, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_a_page_carries_the_very_bytes_of_its_pictures(jpeg):
    for html in (page("t", [Section("s", "", [Card("a", image=jpeg)])]), grid([Card("a", image=jpeg)])):
        [address] = Reader(html).attributes("src")
        assert b64decode(address.partition(",")[2]) == jpeg


def test_links_between_sections_lead_to_them(jpeg):
    read = Reader(page("t", [Section("one"), Section("two")]))

    assert read.attributes("href") == ["#s1", "#s2"]
    assert read.attributes("id") == ["s1", "s2"]
    assert not Reader(page("t", [Section("one")])).attributes("href")


def test_a_card_without_picture_says_why():
    for html in (
        page("t", [Section("s", "", [Card("a", reason="cut short")])]),
        grid([Card("a", reason="cut short")]),
    ):
        assert "img" not in Reader(html).tags()
        assert "Picture not available" in html
        assert "cut short" in html


def test_a_card_leads_to_its_file():
    html = page("t", [Section("s", "", [Card("a", link='file:///x/a%20b.jpg?"')])])

    assert Reader(html).attributes("href") == ['file:///x/a%20b.jpg?"']


def test_a_card_leads_to_no_code():
    with pytest.raises(ValueError, match=r"cannot link to 'javascript:alert\(1\)'; expected one of file:"):
        Card("a", link="javascript:alert(1)")


def test_a_fragment_for_notebooks_is_escaped_and_touches_nothing_else(jpeg):
    html = grid([Card(HOSTILE, [HOSTILE], jpeg, badge=HOSTILE), Card("b", reason=HOSTILE)], caption=HOSTILE)

    read = Reader(html)
    assert read.tags() == {"div", "span", "img"}
    assert not read.attributes("class") + read.attributes("id")
    assert sum(text == VISIBLE for text in read.texts) == 4
    assert f"Picture not available: {VISIBLE}" in read.texts
    assert read.attributes("alt") == [VISIBLE]


def test_nothing_to_show_is_still_a_page():
    assert "ol" not in Reader(page("t", [Section("s", "Nothing found")])).tags()
    assert Reader(page("Nobody asked", [])).texts.count("Nobody asked") == 2
    assert "img" not in Reader(grid([])).tags()


def test_showing_text_loads_no_imaging_library():
    code = "import sys, clipsearch.render; print('PIL' in sys.modules, 'numpy' in sys.modules)"

    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False False\n"
