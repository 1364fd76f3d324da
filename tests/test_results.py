import json
import re
import subprocess
import sys
from base64 import b64decode
from dataclasses import replace
from functools import partial
from io import BytesIO

import pytest
from PIL import Image

from clipsearch.errors import ClipsearchError, CollectionError, ImageError, MissingExtraError, SourceError
from clipsearch.results import Hit, SearchResults, write_page

FACTS = {
    "width": 1200,
    "height": 800,
    "taken": "2024-05-01T18:30:05+02:00",
    "camera": "Acme One",
    "latitude": 47.123456,
    "longitude": 8.765432,
    "serial": "SN-0042",
    "caption": "at aunt Ida's",
    "empty": None,
}


def fails(error):
    raise error


def a_hit(number, *, path="/home/ida/Photos/trip/a.jpg", read=bytes, score=0.25, **changes):
    values = {"key": "trip/a.jpg", "source": "/home/ida/Photos", "cosine": score, "metadata": FACTS} | changes
    return Hit(id=number, path=path, score=score, read=read, **values)


def a_picture(colour, size=(1200, 800), **options):
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def pictures_in(html):
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", html)
    return [Image.open(BytesIO(b64decode(text))) for text in found]


@pytest.fixture
def results():
    red, blue = a_picture((210, 20, 30)), a_picture((20, 30, 210), (300, 600))
    hits = (
        a_hit(7, read=lambda: red, score=0.75),
        a_hit(3, read=lambda: blue, score=0.5, key="b.jpg", path="/home/ida/Photos/b.jpg", metadata={}),
    )
    return SearchResults(hits, "something red", model="builtin")


def test_results_are_a_sequence_of_hits(results):
    first, second = results

    assert (len(results), results[0], results[-1]) == (2, first, second)
    assert (first.id, second.id) == (7, 3)
    assert first in results
    assert results[1:] == SearchResults((second,), "something red", model="builtin")
    assert not results[:0]
    assert len({first, second, first}) == 2
    assert replace(first, read=bytes) == first, "how it is read is no part of what it is"


def test_results_print_best_first_with_their_scores(results):
    assert repr(results) == (
        "something red: 2 pictures, best first · cosine · builtin\n"
        "  0.750  /home/ida/Photos/trip/a.jpg\n"
        "  0.500  /home/ida/Photos/b.jpg"
    )
    assert repr(SearchResults((), "a \x1b[31mdog")) == "a \\x1b[31mdog: Nothing found"
    assert repr(results[0]) == "Hit(id=7, path='/home/ida/Photos/trip/a.jpg', score=0.75, cosine=0.75)"


def test_results_print_no_more_than_ten_names():
    lines = repr(SearchResults(tuple(a_hit(n) for n in range(12)), "x")).splitlines()

    assert len(lines) == 12
    assert lines[-1] == "  … and 2 more"


def test_a_hit_gives_its_picture_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    picture = a_picture((10, 200, 10), (64, 32), exif=exif)

    image = a_hit(1, read=lambda: picture).image()

    assert (image.mode, image.size) == ("RGB", (32, 64))
    assert image.getpixel((5, 5)) == pytest.approx((10, 200, 10), abs=6)


def test_a_hit_gives_the_picture_a_user_handed_over():
    image = a_hit(1, read=lambda: Image.new("L", (5, 4), 128)).image()

    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (5, 4), (128, 128, 128))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            FileNotFoundError(2, "No such file or directory", "/home/ida"),
            "the file is gone; if its folder was moved",
        ),
        (PermissionError(13, "Permission denied", "/home/ida"), "^Permission denied$"),
        (OSError("/home/ida went away"), "^the file cannot be read$"),
        (ImageError("cut short"), "^cut short$"),
    ],
)
def test_a_hit_that_cannot_be_read_says_why(error, reason):
    with pytest.raises(ImageError, match=reason):
        a_hit(1, read=partial(fails, error)).image()


def test_dicts_hold_everything_as_json(results):
    dicts = results.to_dicts()

    assert dicts[0] == {
        "id": 7,
        "path": "/home/ida/Photos/trip/a.jpg",
        "key": "trip/a.jpg",
        "source": "/home/ida/Photos",
        "score": 0.75,
        "cosine": 0.75,
        "relevance": None,
        "box": [0.0, 0.0, 1.0, 1.0],
        "metadata": FACTS,
        "judgements": [],
    }
    assert json.loads(json.dumps(dicts)) == dicts
    assert SearchResults((), "x").to_dicts() == []


def test_a_table_has_a_row_a_hit_and_a_column_a_metadatum(results):
    table = results.to_pandas()

    assert list(table.columns[:7]) == ["id", "path", "key", "source", "score", "cosine", "relevance"]
    assert table["id"].tolist() == [7, 3]
    assert table["score"].tolist() == [0.75, 0.5]
    assert table["metadata.width"].isna().tolist() == [False, True]
    assert table["metadata.camera"][0] == "Acme One"
    assert list(SearchResults((), "x").to_pandas().columns) == list(table.columns[:7])


def test_a_table_takes_names_that_are_not_utf_8():
    hits = (a_hit(1, path="/a/\udcff.jpg", cosine=None), a_hit(2))

    table = SearchResults(hits, "x").to_pandas()

    assert table["path"][0] == "/a/\udcff.jpg"
    assert (table["id"].dtype, table["score"].dtype, table["cosine"].dtype) == ("int64", "float64", "float64")


def test_a_table_without_pandas_names_the_command(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'clipsearch\[pandas\]'"):
        results.to_pandas()


def test_a_page_tells_nothing_private_unless_asked(results, tmp_path):
    plain = results.to_html(tmp_path / "a.html").read_text("utf-8")
    whole = results.to_html(tmp_path / "b.html", reveal=True).read_text("utf-8")

    private = ["47.123456", "8.765432", "SN-0042", "aunt Ida", "home", "18:30:05", "file:"]
    assert [text for text in private if text in plain] == []
    shown = [">a<wbr>.jpg<", ">trip<", ">1200 × 800 · 2024-05-01 18:30<", ">Acme One<", ">0.750<"]
    assert [text for text in shown if text not in plain] == []

    revealed = [
        "latitude: 47.123456",
        "longitude: 8.765432",
        "serial: SN-0042",
        "at aunt Ida&#x27;s",
        "18:30:05",
    ]
    assert [text for text in revealed if text not in whole] == []
    assert "/home/ida/Photos/trip/a.jpg" in whole.replace("<wbr>", "")
    assert "empty" not in whole


def test_a_page_holds_thumbnails_of_the_right_size_and_colour(results, tmp_path):
    red, blue = pictures_in(results.to_html(tmp_path / "a.html").read_text("utf-8"))

    assert (red.size, blue.size) == ((480, 320), (240, 480))
    assert red.getpixel((100, 100)) == pytest.approx((210, 20, 30), abs=6)
    assert blue.getpixel((100, 100)) == pytest.approx((20, 30, 210), abs=6)


@pytest.mark.parametrize(
    "key",
    [
        "/home/ida/a.jpg",
        "C:\\Users\\ida\\a.jpg",
        "C:/Users/ida/a.jpg",
        "\\\\nas\\ida\\a.jpg",
        "../../ida/a.jpg",
        "https://user:ida@example.org/a.jpg",
    ],
)
def test_a_key_that_is_a_whole_path_is_shown_by_its_last_part(key, tmp_path):
    hit = a_hit(1, key=key, path=key, source="list of 3 in ida's home", metadata={})

    html = SearchResults((hit,), "x").to_html(tmp_path / "a.html").read_text("utf-8")

    assert ">a<wbr>.jpg<" in html
    assert "ida" not in html
    assert "http:" not in html
    assert "https:" not in html


def test_a_model_in_a_folder_is_shown_by_its_last_part(tmp_path):
    for model, shown in [
        ("local-dir:/home/ida/models/mine", "cosine · mine<"),
        ("/home/ida/models/mine", "cosine · mine<"),
        ("hf-hub:org/mine", "cosine · hf-hub:org/<wbr>mine<"),
        ("ViT-B-16-SigLIP2/webli", "cosine · ViT-B-16-SigLIP2/<wbr>webli<"),
    ]:
        html = SearchResults((a_hit(1),), "x", model=model).to_html(tmp_path / "a.html").read_text("utf-8")
        assert shown in html
        assert "home" not in html


def test_a_revealed_picture_links_to_its_file(tmp_path):
    path = tmp_path / "a b\udcff.jpg"
    path.write_bytes(a_picture((0, 0, 0), (8, 8)))
    hits = (a_hit(1, path=str(path), read=path.read_bytes), a_hit(2, path="/nowhere/a.zip/b.jpg"))

    html = SearchResults(hits, "x").to_html(tmp_path / "a.html", reveal=True).read_text("utf-8")

    assert re.findall(r'href="([^"]*)"', html) == [path.as_uri()]
    assert path.as_uri().endswith("/a%20b%FF.jpg")


def test_a_picture_that_is_gone_does_not_spoil_the_page(results, tmp_path):
    gone = [
        partial(fails, FileNotFoundError(2, "No such file or directory", "/home/ida/Photos/trip/a.jpg")),
        partial(fails, SourceError("/home/ida/Photos is not there")),
        lambda: b"no picture at all",
    ]
    hits = (results[0], *(a_hit(n, read=read) for n, read in enumerate(gone, 10)))

    html = SearchResults(hits, "x").to_html(tmp_path / "a.html").read_text("utf-8")

    assert len(pictures_in(html)) == 1
    assert html.count("Picture not available") == 3
    assert "the file is gone; if its folder was moved, relocate the source" in html
    assert "the place it came from cannot be read" in html
    assert "home" not in html


def test_strangers_names_are_shown_and_never_obeyed(tmp_path):
    key = "</p><script>alert('x')</script>\u202egpj\udcff\x1b[2J.jpg"
    hits = (a_hit(1, key=key, path="/" + key, metadata={"camera": key, "<b>": [key]}),)
    results = SearchResults(hits, key, model=key)

    pages = [
        results.to_html(tmp_path / "a.html", reveal=reveal).read_text("utf-8") for reveal in (True, False)
    ]
    for html in [*pages, results._repr_html_()]:
        assert "<script" not in html
        assert "\\u202egpj\\xff\\x1b[2J" in html.replace("<wbr>", "")
    assert "\x1b" not in repr(results)


def test_a_page_of_nothing_says_so(tmp_path):
    html = SearchResults((), "a unicorn").to_html(tmp_path / "a.html").read_text("utf-8")

    assert '<h1 dir="auto">a unicorn</h1>' in html
    assert "Nothing found" in html
    assert "<h2" not in html, "the query is the heading of the whole page"


def test_one_page_holds_the_answers_to_several_queries(results, tmp_path):
    answers = [results, SearchResults((), "a unicorn")]

    path = write_page(tmp_path / "a.html", answers, title="Holidays", note="A note.")

    html = path.read_text("utf-8")
    assert re.findall(r"<h[12][^>]*>([^<]*)<", html) == ["Holidays", "something red", "a unicorn"]
    assert html.index("A note.") < html.index("something red")
    assert len(pictures_in(html)) == 2


def test_a_page_is_replaced_whole_and_its_place_told(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.html").write_text("old")

    assert results.to_html("a.html", title="Mine") == tmp_path / "a.html"
    assert "<title>Mine</title>" in (tmp_path / "a.html").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_a_page_that_cannot_be_written_is_our_error(results, tmp_path):
    with pytest.raises(CollectionError, match=r"cannot write .*nowhere.*No such file"):
        results.to_html(tmp_path / "nowhere" / "a.html")


def test_a_notebook_draws_the_first_forty():
    picture = a_picture((1, 2, 3), (600, 400))
    results = SearchResults(tuple(a_hit(n, read=lambda: picture) for n in range(45)), "x")

    html = results._repr_html_()

    assert [image.size for image in pictures_in(html)] == [(256, 171)] * 40
    assert "x: 45 pictures, best first · cosine; here are the first 40" in html
    assert "home" not in html


def test_show_outside_a_notebook_names_the_way_out(results):
    with pytest.raises(ClipsearchError, match=r"show\(\) draws in a notebook.*to_html"):
        results.show()


def test_show_draws_in_a_notebook():
    pytest.importorskip("IPython", reason="IPython is not installed")
    code = (
        "from IPython.core.interactiveshell import InteractiveShell; InteractiveShell.instance()\n"
        "from clipsearch.results import SearchResults; SearchResults((), 'a unicorn').show()"
    )

    assert "a unicorn: Nothing found" in subprocess.check_output([sys.executable, "-c", code], text=True)
