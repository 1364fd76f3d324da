"""Groups of duplicates: which pictures, which one is kept and why; from Python and on the command line."""

import csv
import io
import json
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageFilter

import clipsearch as cs
from clipsearch.cli import main
from clipsearch.duplicates import ALIKE, NEAR, SIDE, sharpness, usual_threshold
from clipsearch.errors import QueryError
from clipsearch.testing import ColourEncoder


def save(path, colour=(200, 30, 30), size=(60, 40), *, detail=0, kind="PNG", **how):
    """A picture of one colour; `detail` lets every other pixel be as much lighter and darker."""
    pixels = np.full((size[1], size[0], 3), colour, np.int16)
    pixels += np.where(np.indices(size[::-1]).sum(axis=0) // 8 % 2, detail, -detail)[:, :, None]
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, kind, **how)
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pictures"


@pytest.fixture
def photos(tmp_path):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        yield photos


def names(group):
    return [hit.key for hit in group]


def test_the_one_with_most_pixels_is_kept(photos, folder):
    save(folder / "a.png", size=(30, 20))
    save(folder / "b.png", size=(90, 60))
    save(folder / "c.png", size=(60, 40))
    save(folder / "other.png", (20, 20, 220))
    photos.add(folder)

    found = photos.duplicates(threshold=0.999)

    assert len(found) == 1
    assert (found[0].keep.key, found[0].reason) == ("b.png", "most pixels")
    assert {hit.key for hit in found[0].others} == {"a.png", "c.png"}
    assert found[0].same_bytes == (False, False, False)
    assert (found.threshold, found.compared, found.model) == (0.999, 4, "colour")
    vectors = dict(zip(*photos.embeddings(), strict=True))
    for hit in found[0]:
        assert hit.score == hit.cosine == pytest.approx(vectors[hit.id] @ vectors[found[0].keep.id], abs=1e-4)
    assert str(found) == (
        "2 files could go, of 1 group; 4 pictures of different bytes compared, cosine from 0.999"
    )


def test_of_as_many_pixels_the_sharpest_is_kept(photos, folder):
    sharp = save(folder / "b.png", size=(300, 200), detail=60)
    with Image.open(sharp) as image:
        image.filter(ImageFilter.GaussianBlur(4)).save(folder / "a.png")
    (folder / "c.png").write_bytes(sharp.read_bytes()[:200])  # not to be read
    photos.add(folder)
    (group,) = photos.duplicates(threshold=0.999)
    assert (names(group), group.reason) == (["b.png", "a.png"], "sharpest")


def test_of_as_sharp_ones_the_largest_file_is_kept(photos, folder):
    save(folder / "a.jpg", size=(300, 200), detail=60, kind="JPEG", quality=60)
    save(folder / "b.jpg", size=(300, 200), detail=60, kind="JPEG", quality=90)
    photos.add(folder)
    (group,) = photos.duplicates(threshold=0.999)
    assert (names(group), group.reason) == (["b.jpg", "a.jpg"], "largest file")


def test_a_picture_that_is_gone_stops_nothing_and_is_not_kept(photos, folder):
    for name, green in (("a.png", 30), ("b.png", 31)):
        save(folder / name, (200, green, 30), size=(60, 40), detail=50)
    photos.add(folder)
    (folder / "a.png").unlink()
    (group,) = photos.duplicates(threshold=0.999)
    assert (names(group), group.reason) == (["b.png", "a.png"], "the only one that can be read")


HARM = {"gone": Path.unlink, "empty": lambda path: path.write_bytes(b"")}
BROKEN = {"broken": lambda path: path.write_bytes(b"no picture")}  # told only where it is opened


@pytest.mark.parametrize("harm", HARM)
def test_of_equal_bytes_the_file_that_can_be_read_is_kept(photos, folder, harm):
    first = save(folder / "a.png")
    shutil.copy(first, folder / "b.png")
    photos.add(folder)
    HARM[harm](first)
    (group,) = photos.duplicates(threshold=0.99)
    assert (names(group), group.reason) == (["b.png", "a.png"], "the only one that can be read")


def test_the_largest_is_not_kept_when_it_is_gone(photos, folder):
    for number, side in enumerate((90, 60, 30)):
        save(folder / f"{number}.png", size=(side, side))
    photos.add(folder)
    (folder / "0.png").unlink()
    (group,) = photos.duplicates(threshold=0.999)
    assert (group.keep.key, group.reason) == ("1.png", "most pixels of those that can be read")
    (folder / "1.png").unlink()
    (group,) = photos.duplicates(threshold=0.999)
    assert (group.keep.key, group.reason) == ("2.png", "the only one that can be read")
    (folder / "2.png").unlink()
    (group,) = photos.duplicates(threshold=0.999)
    assert (group.keep.key, group.reason) == ("0.png", "most pixels")


@pytest.mark.parametrize("harm", HARM | BROKEN)
def test_a_content_is_as_good_as_its_file_that_is_left(photos, folder, harm):
    first = save(folder / "a.jpg", size=(300, 200), detail=60, kind="JPEG", quality=95)
    save(folder / "b.jpg", size=(300, 200), detail=60, kind="JPEG", quality=60)
    shutil.copy(first, folder / "c.jpg")
    photos.add(folder)
    (HARM | BROKEN)[harm](first)
    (group,) = photos.duplicates(threshold=0.99)
    assert (names(group), group.reason) == (
        ["c.jpg", "a.jpg", "b.jpg"],
        "largest file of those that can be read",
    )


def test_a_member_of_an_archive_that_is_gone_is_not_kept(photos, folder):
    big, small = save(folder / "big.png", size=(90, 60)), save(folder / "small.png", size=(30, 20))
    archive = folder.parent / "a.zip"
    with ZipFile(archive, "w") as file:
        file.write(big, "big.png")
    big.unlink()
    photos.add(archive)
    photos.add(folder)
    assert photos.duplicates(threshold=0.999)[0].keep.key == "big.png"
    archive.unlink()
    assert photos.duplicates(threshold=0.999)[0].keep.path == str(small)


def test_equal_bytes_are_a_group_too(photos, folder):
    first = save(folder / "a.png")
    shutil.copy(first, folder / "b.png")
    save(folder / "other.png", (20, 20, 220))
    photos.add(folder)
    (group,) = photos.duplicates()
    assert (names(group), group.same_bytes) == (["a.png", "b.png"], (True, True))
    assert group.reason == "same bytes, came first"
    assert [hit.score for hit in group] == [1.0, 1.0]


def test_copies_of_what_is_kept_come_before_what_is_like_it(photos, folder):
    save(folder / "small.png", size=(30, 20))
    big = save(folder / "x.png", size=(90, 60))
    shutil.copy(big, folder / "y.png")
    photos.add(folder)
    (group,) = photos.duplicates(threshold=0.99)
    assert names(group) == ["x.png", "y.png", "small.png"]
    assert group.same_bytes == (True, True, False)
    assert [hit["same_bytes"] for hit in group.to_dict()["pictures"]] == [True, True, False]


def test_equal_bytes_are_marked_though_another_is_kept(photos, folder):
    save(folder / "a.png", size=(90, 60))
    shutil.copy(save(folder / "b.png", size=(30, 20)), folder / "c.png")
    photos.add(folder)
    found = photos.duplicates(threshold=0.99)
    assert (names(found[0]), found[0].same_bytes) == (["a.png", "b.png", "c.png"], (False, True, True))
    assert "same bytes" not in repr(found).splitlines()[1]
    assert all(line.endswith("30 × 20  same bytes") for line in repr(found).splitlines()[2:])


def test_a_file_of_two_sources_is_no_duplicate(photos, folder):
    folder.mkdir()
    save(folder / "sub" / "a.png")
    photos.add(folder)
    photos.add(folder / "sub")
    assert len(photos) == 2
    assert len(photos.duplicates()) == 0


def test_a_row_of_pictures_each_like_the_next_is_not_one_group(photos, folder):
    """Angles between neighbours are about 10 degrees; the middle one has most pixels and reaches 15."""
    for number, green in enumerate((0, 40, 85, 145)):
        save(folder / f"{number}.png", (200, green, 0), size=(40 + 10 * (number == 1), 40))
    photos.add(folder)
    vectors = photos.embeddings()[1].astype(np.float64)
    angles = np.degrees(np.arccos(np.clip(vectors @ vectors.T, -1, 1)))
    assert (np.diag(angles, 1) < 14).all() and angles[1, 3] > 20
    found = photos.duplicates(threshold=float(np.cos(np.radians(14))))
    assert [(group.keep.key, sorted(names(group)[1:])) for group in found] == [("1.png", ["0.png", "2.png"])]


def test_a_tile_like_another_picture_makes_no_duplicate(photos, folder):
    save(folder / "red.png", (250, 0, 0), size=(60, 60))
    both = Image.new("RGB", (60, 60), (250, 0, 0))
    both.paste((0, 0, 250), (30, 0, 60, 60))
    both.save(folder / "both.png")
    photos.add(folder, tiles="2x2")
    assert photos.search(image=folder / "red.png")[1].score > 0.999
    assert len(photos.duplicates(threshold=0.99)) == 0


def test_where_leaves_out_pictures_and_copies(photos, folder):
    first = save(folder / "a.png")
    shutil.copy(first, folder / "b.png")
    save(folder / "c.png", size=(90, 60))
    photos.add(folder)
    assert [names(group) for group in photos.duplicates(threshold=0.99)] == [["c.png", "a.png", "b.png"]]
    assert [names(group) for group in photos.duplicates(threshold=0.99, where="key != 'b.png'")] == [
        ["c.png", "a.png"]
    ]
    assert len(photos.duplicates(threshold=0.99, where="width < 10")) == 0


def test_an_empty_collection_has_none(photos):
    assert photos.duplicates().to_dicts() == []
    assert str(photos.duplicates(threshold=0.9)) == (
        "no duplicates; 0 pictures of different bytes compared, cosine from 0.900"
    )


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan"), "0.9", True])
def test_a_threshold_that_is_no_cosine_is_refused(photos, threshold):
    with pytest.raises(QueryError, match="threshold is a cosine"):
        photos.duplicates(threshold=threshold)


def test_the_usual_threshold_is_a_share_of_the_way_between_any_two_pictures():
    assert usual_threshold(0.5) == pytest.approx(1 - 0.5 * NEAR)
    assert usual_threshold(-0.2) == 1 - NEAR
    assert usual_threshold(0.999) == pytest.approx(1 - (1 - ALIKE) * NEAR)


def test_the_usual_threshold_finds_the_same_pairs_whatever_all_vectors_have_in_common():
    rng = np.random.default_rng(1)
    own = rng.standard_normal((40, 50))
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    found = []
    for common in (0.0, 0.3, 0.6):
        vectors = np.hstack([np.full((40, 1), common**0.5), own * (1 - common) ** 0.5])
        cosines = vectors @ vectors.T
        mean = cosines[~np.eye(40, dtype=bool)].mean()
        found.append((1 - usual_threshold(mean)) / (1 - common))
    np.testing.assert_allclose(found, found[0], rtol=0.02)


def test_sharpness_is_the_variance_of_the_laplacian():
    """Of stripes one pixel wide, 0 and 100, the Laplacian is +200 and -200: their variance is 40,000."""
    stripes = np.tile(np.array([0, 100], np.uint8), (SIDE, SIDE // 2))
    assert sharpness(Image.fromarray(stripes)) == pytest.approx(40_000, rel=1e-6)
    assert sharpness(Image.new("RGB", (SIDE, 1), "red")) == 0


@pytest.fixture
def two_groups(photos, folder):
    save(folder / "a.png", size=(90, 60))
    save(folder / "=b.png", size=(30, 20))
    copied = save(folder / "c.png", (20, 20, 220))
    shutil.copy(copied, folder / "d.png")
    photos.add(folder)
    return photos.duplicates(threshold=0.999)


def test_dicts_can_be_written_as_json(two_groups):
    first, second = json.loads(json.dumps(two_groups.to_dicts()))
    assert first["reason"] == "most pixels"
    assert [(p["keep"], p["width"], p["height"], p["same_bytes"]) for p in first["pictures"]] == [
        (True, 90, 60, False),
        (False, 30, 20, False),
    ]
    assert [p["same_bytes"] for p in second["pictures"]] == [True, True]


def test_the_table_has_a_row_a_picture(two_groups, tmp_path):
    path = two_groups.to_csv(tmp_path / "d.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["group"], row["keep"], row["same_bytes"], row["width"]) for row in rows] == [
        ("1", "1", "0", "90"),
        ("1", "0", "0", "30"),
        ("2", "1", "1", "60"),
        ("2", "0", "1", "60"),
    ]


def test_the_page_shows_every_picture_and_names_no_folder(two_groups, tmp_path, folder):
    document = two_groups.to_html(tmp_path / "d.html").read_text()
    assert document.count("data:image/jpeg") == 4
    assert "1. Keep a.png: most pixels" in document
    assert "2. Keep c.png: same bytes, came first" in document
    assert document.count(">keep</span>") == 2
    assert document.count(">same bytes</p>") == 2
    assert all(f">id {hit.id}</p>" in document for group in two_groups for hit in group)
    assert 'class="cards small"' not in document, "there a long name is cut, and copies look alike"
    assert str(folder) not in document
    assert str(folder) in two_groups.to_html(tmp_path / "e.html", reveal=True).read_text()


def test_printed_they_name_what_is_kept_and_what_could_go(two_groups, folder):
    lines = repr(two_groups).splitlines()
    summary = "2 files could go, of 2 groups; 3 pictures of different bytes compared, cosine from 0.999"
    assert lines[0] == summary
    assert lines[1] == f"  keep   {folder / 'a.png'}  90 × 60  (most pixels)"
    assert lines[4] == f"  1.000  {folder / 'd.png'}  60 × 40  same bytes"


def test_a_slice_is_groups_again(two_groups):
    assert [names(group) for group in two_groups[1:]] == [["c.png", "d.png"]]
    assert two_groups[1:].threshold == two_groups.threshold


def run(*words):
    return CliRunner().invoke(main, ["duplicates", *map(str, words)], catch_exceptions=False)


def test_the_command(tmp_path, folder):
    (tmp_path / "p").mkdir()
    save(folder / "a.png", size=(90, 60))
    shutil.copy(folder / "a.png", folder / "b.png")
    with cs.Collection(tmp_path / "c", model="builtin") as photos:
        photos.add(folder, progress=False)
    result = run(tmp_path / "c")
    assert result.stdout == f"1\tkeep\t1.0000\t{folder / 'a.png'}\n1\tcopy\t1.0000\t{folder / 'b.png'}\n"
    assert json.loads(run(tmp_path / "c", "--json").stdout)[0]["reason"] == "same bytes, came first"
    assert run(tmp_path / "c", "--csv", tmp_path / "d.csv", "--html", tmp_path / "d.html").exit_code == 0
    assert (tmp_path / "d.csv").stat().st_size and (tmp_path / "d.html").stat().st_size
    assert run(tmp_path / "c", "--where", "width < 5").stdout == ""
    assert run(tmp_path / "c", "--json", "--html", "x").exit_code == 2
    assert run(tmp_path / "c", "--reveal").exit_code == 2
    assert "threshold is a cosine" in run(tmp_path / "c", "--threshold", "7").stderr


def test_a_jpeg_and_its_smaller_copy_are_found_by_the_built_in_model(tmp_path, folder):
    data = pytest.importorskip("skimage.data")
    folder.mkdir()
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        image = Image.fromarray(getattr(data, name)())
        image.save(folder / f"{name}.png")
        file = io.BytesIO()
        image.resize((image.width // 2, image.height // 2)).save(file, "JPEG", quality=80)
        (folder / f"{name}-small.jpg").write_bytes(file.getvalue())
    with cs.Collection(tmp_path / "c", model="builtin") as photos:
        photos.add(folder, progress=False)
        found = photos.duplicates(progress=False)
    assert sorted(names(group) for group in found) == [
        [f"{name}.png", f"{name}-small.jpg"] for name in ("astronaut", "chelsea", "coffee", "rocket")
    ]
