"""Tiles: parts of pictures are encoded and found, and the whole picture stays what a picture is."""

import io
import re
from base64 import b64decode

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import clipsearch as cs
from clipsearch import ingest
from clipsearch.cli import main
from clipsearch.errors import CollectionError, ModelError, ModelMismatchError
from clipsearch.testing import ColourEncoder
from clipsearch.tiles import boxes_of, cut, read_tiles

SIDE = 60  # pixels; of a mosaic's 6 x 6 fields each has 10
GRIDS, ROWS = "2x2+3x3", 14


class Counting(ColourEncoder):
    """Keeps the sizes of all it was given, a list for each time."""

    def __init__(self):
        self.batches = []

    def encode_images(self, images):
        self.batches.append([image.size for image in images])
        return super().encode_images(images)


class Backwards(ColourEncoder):
    """Another model: its vectors are (blue, green, red)."""

    model_id = "backwards"

    def encode_images(self, images):
        return np.ascontiguousarray(super().encode_images(images)[:, ::-1])

    def fingerprint(self):
        return "backwards-1"


class Picky(ColourEncoder):
    """Breaks on a picture or tile that is all black."""

    def encode_images(self, images):
        if any(image.getextrema() == ((0, 0),) * 3 for image in images):
            raise ValueError("all black")
        return super().encode_images(images)


def mosaic(seed):
    fields = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(fields).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def by_hand(image):
    """The boxes of a picture's 14 parts and their vectors, float64 (14, 3), by the means of whole fields."""
    fields = np.asarray(image, np.float64)[5::10, 5::10]  # (6, 6, 3)
    boxes = [(0, 0, 6, 6)]
    boxes += [(x, y, x + 3, y + 3) for y in (0, 3) for x in (0, 3)]
    boxes += [(x, y, x + 2, y + 2) for y in (0, 2, 4) for x in (0, 2, 4)]
    means = np.array([fields[top:bottom, left:right].mean(axis=(0, 1)) for left, top, right, bottom in boxes])
    vectors = (means + 1) / np.linalg.norm(means + 1, axis=1, keepdims=True)
    return np.array(boxes) / 6, vectors


BOXES = by_hand(mosaic(0))[0]  # (14, 4)
TRUTH = np.stack([by_hand(mosaic(number))[1] for number in range(30)])  # (30, 14, 3)
QUERIES = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0.2), (0.1, 1, 0.9), (1, 1, 1)])


@pytest.fixture
def encoder():
    return Counting()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(30):
        mosaic(number).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def photos(tmp_path, encoder):
    with cs.Collection(tmp_path / "c", model=encoder) as photos:
        yield photos


@pytest.fixture
def tiled(photos, folder, encoder):
    photos.add(folder, tiles=GRIDS)
    encoder.batches.clear()
    return photos


def rows_each(photos, model=None):
    """How many rows each content has in a model's space, and whether its first is the whole."""
    space = photos._spaces.find(model or photos.model)
    snapshot = photos._store.snapshot(space)
    rows = {int(content): np.flatnonzero(snapshot.contents == content) for content in snapshot.contents}
    assert all(snapshot.boxes(found[:1]) == [(0, 0, 1, 1)] for found in rows.values())
    return {content: len(found) for content, found in rows.items()}


# ---------------------------------------------------------------- grids


@pytest.mark.parametrize(
    ("text", "kept"),
    [("2x2", "2x2"), ("3x3+2x2", "2x2+3x3"), ("1x2+1x2", "1x2"), ("8x8", "8x8"), ("3x1", "3x1")],
)
def test_grids_are_kept_once_and_in_order(text, kept):
    assert read_tiles(text) == kept


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected grids of ROWSxCOLUMNS"),
        ("2", "expected grids of ROWSxCOLUMNS"),
        ("2x2+", "expected grids of ROWSxCOLUMNS"),
        ("0x2", "expected grids of ROWSxCOLUMNS"),
        ("2X2", "expected grids of ROWSxCOLUMNS"),
        ("2x2\n", "expected grids of ROWSxCOLUMNS"),
        (3, "expected grids of ROWSxCOLUMNS"),
        ("1x1", "leave out 1x1"),
        ("2x2+1x1", "leave out 1x1"),
        ("9x1", "at most 8 rows"),
        ("2x12", "at most 8 rows"),
        ("8x8+1x2", "64 tiles"),
    ],
)
def test_what_is_no_grid_is_refused_before_anything_happens(photos, folder, encoder, text, why):
    with pytest.raises(CollectionError, match=why):
        photos.add(folder, tiles=text)
    assert photos.info()["sources"] == [] and encoder.batches == []


def test_tiles_go_row_by_row_after_the_whole():
    assert boxes_of("") == [(0, 0, 1, 1)]
    assert boxes_of("2x1+1x2") == [
        (0, 0, 1, 1),
        (0, 0, 1, 0.5),
        (0, 0.5, 1, 1),
        (0, 0, 0.5, 1),
        (0.5, 0, 1, 1),
    ]
    np.testing.assert_allclose(boxes_of(GRIDS), BOXES)


def test_a_tile_is_at_least_one_pixel():
    assert {cut(Image.new("RGB", (2, 1)), box).size for box in boxes_of("8x8")} == {(1, 1), (2, 1)}


# ---------------------------------------------------------------- what is found


def test_a_small_thing_is_found_where_it_is(photos):
    meadow = Image.new("RGB", (80, 80), (20, 200, 20))
    ball = meadow.copy()
    ball.paste((255, 0, 0), (62, 2, 78, 18))
    pinkish = Image.new("RGB", (80, 80), (180, 120, 120))
    photos.add([("meadow", meadow), ("ball", ball), ("pinkish", pinkish)])
    assert [hit.key for hit in photos.search("red", k=3)] == ["pinkish", "ball", "meadow"]
    photos.add([("meadow", meadow), ("ball", ball), ("pinkish", pinkish)], tiles="4x4")
    found = photos.search("red", k=3)
    assert [hit.key for hit in found] == ["ball", "pinkish", "meadow"]
    assert found[0].box == (0.75, 0, 1, 0.25) and found.to_dicts()[0]["box"] == [0.75, 0, 1, 0.25]
    share = 16 * 16 / 400
    mean = share * np.array([255, 0, 0]) + (1 - share) * np.array([20, 200, 20]) + 1
    assert found[0].score == pytest.approx(
        mean @ [256, 1, 1] / np.linalg.norm(mean) / np.sqrt(65538), abs=2e-3
    )


def check(hits, query, k, numbers=range(30)):
    """Whether these are the k mosaics whose best part is most like a query, by brute force."""
    query = np.asarray(query, np.float64) / np.linalg.norm(query)
    scores = {number: TRUTH[number] @ query for number in numbers}
    best = sorted((parts.max() for parts in scores.values()), reverse=True)[:k]
    np.testing.assert_allclose([hit.score for hit in hits], best, atol=2e-3)
    assert len({hit.key for hit in hits}) == len(hits)
    for hit in hits:
        parts = scores[int(hit.key[:2])]
        part = int(np.abs(BOXES - hit.box).max(axis=1).argmin())
        np.testing.assert_allclose(hit.box, BOXES[part], atol=1e-6)
        assert parts[part] == pytest.approx(parts.max(), abs=2e-3)
        assert hit.score == pytest.approx(parts.max(), abs=2e-3)


@pytest.mark.parametrize("k", [1, 2, 5, 30, 100])
@pytest.mark.parametrize("query", QUERIES.tolist())
def test_the_best_part_of_each_picture_counts(tiled, query, k):
    check(tiled.search(embedding=query, k=k), query, k)


def test_a_filter_a_removal_and_a_compaction_leave_the_rest_right(tiled, folder):
    for query in QUERIES:
        hits = tiled.search(embedding=query, k=5, where="id <= 12")
        check(hits, query, 5, range(12))
    tiled.remove(*range(1, 6))
    (folder / "29.png").unlink()
    tiled.add(folder, exclude=["0[0-4].png"])
    assert len(tiled) == 24
    for _ in range(2):
        for query in QUERIES:
            check(tiled.search(embedding=query, k=7), query, 7, range(5, 29))
        assert (tiled.verify().problems, tiled.verify().notes) == ([], [])
        tiled.compact()
    assert rows_each(tiled) == dict.fromkeys(range(6, 31), ROWS)  # the missing one is kept


def test_few_pictures_may_have_most_of_the_best_rows(photos):
    """Nine tenths of the rows nearest to red are of the first two pictures, so a search has to look twice."""
    reds = [Image.new("RGB", (32, 32), (255, 30 * n, 0)) for n in range(2)]
    others = [Image.new("RGB", (32, 32), (255, 50 + 10 * n, 100)) for n in range(19)]
    photos.add([(str(n), image) for n, image in enumerate(reds + others)], tiles="8x8")
    assert [hit.key for hit in photos.search("red", k=5)] == ["0", "1", "2", "3", "4"]
    found = photos.search_many(["red", "blue"], k=21)
    assert [len({hit.key for hit in hits}) for hits in found] == [21, 21]


def test_one_picture_with_tiles_makes_searches_look_for_few_more_rows(photos, folder, monkeypatch):
    photos.add(folder)
    photos.add([("tiled", Image.new("RGB", (9, 9), "blue"))], tiles="8x8")
    searcher, asked = photos._searcher(), []
    usual = searcher._index.search
    monkeypatch.setattr(searcher._index, "search", lambda q, k, **o: asked.append(k) or usual(q, k, **o))
    photos.search("red", k=20)
    photos.search("red", k=5)
    assert asked == [80, 20]  # 20 rows each of 65 would be 1,300
    assert searcher._snapshot.rows_each == 65
    assert [searcher._snapshot.rows_of_any(k) for k in (1, 2, 31, 100)] == [65, 66, 95, 95]


def test_an_index_and_a_picture_as_a_query_go_by_parts_too(tiled):
    tiled.build_index("IVF2,Flat", target_recall=0.99, queries=["red", "green"], progress=False)
    for query in QUERIES:
        check(tiled.search(embedding=query, k=6), query, 6)
    tile = mosaic(7).crop((20, 0, 40, 20))
    best = tiled.search(image=tile, k=30)
    check(best, by_hand(tile.resize((SIDE, SIDE)))[1][0], 30)
    assert best[0].key == "07.png"
    np.testing.assert_allclose(best[0].box, (1 / 3, 0, 2 / 3, 1 / 3), atol=1e-6)


def test_what_is_said_of_a_picture_is_said_of_the_whole(tiled, tmp_path):
    ids, vectors = tiled.embeddings()
    assert ids == list(range(1, 31))
    np.testing.assert_allclose(vectors, TRUTH[:, 0], atol=1e-3)
    like = tiled.search(item=4, k=29)
    check(like, TRUTH[3, 0], 29, [number for number in range(30) if number != 3])
    labels = tiled.classify(["red", "green", "blue"], templates="plain", unknown=False)
    cosines = TRUTH[:, 0] @ ColourEncoder().encode_texts(["red", "green", "blue"]).T
    for row, line in zip(labels, cosines, strict=True):
        assert row.guesses[0].cosine == pytest.approx(line.max(), abs=1e-3)
    tiled.export(tmp_path / "npy", format="npy")
    np.testing.assert_allclose(np.load(tmp_path / "npy" / "vectors.npy"), TRUTH[:, 0], atol=1e-3)


# ---------------------------------------------------------------- given once


def test_tiles_are_given_once_and_what_is_unchanged_is_not_encoded_again(tiled, folder, encoder):
    assert tiled.info()["tiles"] == GRIDS
    assert (tiled.info()["models"][0]["vectors"], tiled.info()["models"][0]["tiled"]) == (30 * ROWS, 30)
    for again in (lambda: tiled.add(folder), lambda: tiled.add(folder, tiles="3x3+2x2"), tiled.refresh):
        again()
        assert encoder.batches == []
    mosaic(30).save(folder / "30.png")
    assert tiled.add(folder).added == 1
    assert rows_each(tiled) == dict.fromkeys(range(1, 32), ROWS)
    tiled.add_model(Backwards())
    assert rows_each(tiled, "backwards") == dict.fromkeys(range(1, 32), ROWS)
    tiled.use_model(Backwards())
    assert tiled.verify().notes == []


def test_other_tiles_are_refused_and_change_nothing(tiled, folder):
    mosaic(30).save(folder / "30.png")
    with pytest.raises(CollectionError, match=r"has tiles 2x2\+3x3, and 4x4 was asked for"):
        tiled.add(folder, tiles="4x4")
    with pytest.raises(CollectionError, match="make a collection of its own"):
        tiled.refresh(tiles="2x2")
    assert (len(tiled), tiled.info()["tiles"]) == (30, GRIDS)


def test_pictures_that_are_there_get_their_tiles_when_their_source_comes_again(photos, folder, encoder):
    photos.add(folder)
    photos.add([("handed over", mosaic(40))])
    ids, before = photos.embeddings()
    sample = photos._searcher().sample(20)
    assert photos.info()["tiles"] is None
    report = photos.add(folder, tiles=GRIDS)
    assert (report.unchanged, report.encoded) == (30, 30)
    assert rows_each(photos) == {**dict.fromkeys(range(1, 31), ROWS), 31: 1}
    assert photos.verify().notes == ["1 pictures have no tiles in 1-colour yet; add their source again"]
    assert photos.info()["models"][0]["tiled"] == 30
    assert photos.refresh()[0].encoded == 0
    photos.add([("handed over", mosaic(40))])
    assert photos.verify().notes == []
    again, after = photos.embeddings()
    assert again == ids
    np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(photos._searcher().sample(20), sample)
    for query in QUERIES:
        check(photos.search(embedding=query, k=9, where="id <= 30"), query, 9)


def test_refresh_takes_tiles_too(photos, folder):
    photos.add(folder)
    assert photos.refresh(tiles="1x2")[0].encoded == 30
    assert photos.info()["models"][0]["vectors"] == 90


def test_vectors_of_another_program_get_no_tiles(photos, folder, tmp_path):
    photos.add(folder)
    photos.export(tmp_path / "npy", format="npy")
    (tmp_path / "npy" / "clipsearch.json").unlink()
    with cs.Collection(tmp_path / "d", model=ColourEncoder()) as others:
        others.import_vectors(tmp_path / "npy", format="npy", model=ColourEncoder())
        assert others.models == ["foreign:colour"]
        with pytest.raises(ModelMismatchError, match="tiles go with vectors made here"):
            others.add(folder, tiles="2x2")
        assert others.info()["tiles"] is None


# ---------------------------------------------------------------- batches and failures


def test_no_batch_is_larger_for_tiles(photos, folder, encoder):
    photos.add(folder, tiles=GRIDS, batch_size=30)
    assert {len(batch) for batch in encoder.batches} == {28}  # two pictures
    assert set(encoder.batches[0]) == {(60, 60), (30, 30), (20, 20)}


def test_a_picture_with_more_tiles_than_a_batch_goes_in_several(photos, folder, encoder):
    photos.add(folder, tiles=GRIDS, batch_size=5)
    assert {len(batch) for batch in encoder.batches} == {5, 4}
    assert rows_each(photos) == dict.fromkeys(range(1, 31), ROWS)
    check(photos.search(embedding=QUERIES[0], k=9), QUERIES[0], 9)


def test_tiles_of_a_large_jpeg_have_the_pixels_that_the_model_looks_at(tmp_path):
    sizes = []

    class Prepares(ColourEncoder):
        min_side = 32

        def prepare(self, image):
            sizes.append(image.size)
            return image

        def encode_prepared(self, batch):
            return self.encode_images(batch)

    file = io.BytesIO()
    Image.new("RGB", (1600, 800), "red").save(file, "JPEG")
    with cs.Collection(tmp_path / "c", model=Prepares()) as photos:
        photos.add([("large", file.getvalue())], tiles="4x2")
    # Twice 4 x 32 = 256 pixels are needed; 1/2 of 800 has them and 1/4 has not.
    assert sizes == [(800, 400), *[(400, 100)] * 8]


def test_the_window_is_bounded_in_tiles(tmp_path):
    alive, most = 0, 0

    class Pixels:
        def __init__(self):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    class Prepares(ColourEncoder):
        min_side = None

        def prepare(self, image):
            return Pixels()

        def encode_prepared(self, batch):
            return self.encode_images([Image.new("RGB", (1, 1), "red")] * len(batch))

    pictures = ((str(n), Image.new("RGB", (4, 4), (n, 0, 0))) for n in range(200))
    with cs.Collection(tmp_path / "c", model=Prepares()) as photos:
        photos.add(pictures, tiles="3x3", batch_size=40)
    ahead = max(6, min(40, ingest.cores())) + ingest.cores() + 1
    assert 40 <= most <= 10 * (ahead + 3 * 4)


def black_corner():
    picture = mosaic(50)
    picture.paste((0, 0, 0), (0, 0, 20, 20))
    return picture


def test_a_picture_whose_tile_breaks_the_model_fails_alone(tmp_path, folder):
    black_corner().save(folder / "15b.png")
    with cs.Collection(tmp_path / "c", model=Picky()) as photos:
        report = photos.add(folder, tiles=GRIDS)
        assert (report.added, len(report.failed)) == (30, 1)
        assert report.failed[0].reason == "the model failed on it: ValueError: all black"
        assert len(photos) == 30 and set(rows_each(photos).values()) == {ROWS}


def test_a_picture_that_gets_no_tiles_stays_as_a_whole(tmp_path, folder):
    black_corner().save(folder / "15b.png")
    with cs.Collection(tmp_path / "c", model=Picky()) as photos:
        photos.add(folder)
        for _ in range(2):  # it is tried each time
            report = photos.add(folder, tiles=GRIDS)
            assert [failure.reason[:24] for failure in report.failed] == ["the model failed on it: "]
            assert (len(photos), photos.failures()) == (31, [])
        assert sorted(set(rows_each(photos).values())) == [1, ROWS]
        assert photos.search(embedding=np.eye(3)[0], where="id = 17")[0].box == (0, 0, 1, 1)


def test_a_model_that_breaks_on_every_tile_is_told_and_loses_nothing(tmp_path, folder):
    class Dies(ColourEncoder):
        def encode_images(self, images):
            if any(image.size != (SIDE, SIDE) for image in images):
                raise RuntimeError("device lost")
            return super().encode_images(images)

    with cs.Collection(tmp_path / "c", model=Dies()) as photos:
        photos.add(folder)
        with pytest.raises(ModelError, match="device lost"):
            photos.add(folder, tiles=GRIDS)
        assert (len(photos), len(photos.search("red", k=40))) == (30, 30)


def test_broken_pictures_copies_and_moves_are_as_without_tiles(photos, folder, encoder):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    mosaic(3).save(folder / "copy.png")
    report = photos.add(folder, tiles=GRIDS)
    assert (report.added, report.same_content, len(report.failed)) == (30, 1, 1)
    (folder / "05.png").rename(folder / "moved.png")
    encoder.batches.clear()
    assert photos.add(folder).moved == 1 and encoder.batches == []
    assert photos.info()["models"][0]["vectors"] == 30 * ROWS


def test_a_picture_of_one_pixel_has_all_its_tiles(photos):
    photos.add([("dot", Image.new("RGB", (1, 1), "red"))], tiles="8x8")
    assert rows_each(photos) == {1: 65}
    assert photos.search("red")[0].score == pytest.approx(1, abs=1e-3)


# ---------------------------------------------------------------- shown


def test_a_page_draws_the_part_that_was_found_and_of_a_whole_picture_nothing(photos, tmp_path):
    (tmp_path / "in").mkdir()
    picture = Image.new("RGB", (240, 120), (90, 90, 90))
    picture.paste((255, 0, 0), (130, 40, 150, 80))
    picture.save(tmp_path / "in" / "ball.png")
    Image.new("RGB", (240, 120), (90, 90, 200)).save(tmp_path / "in" / "plain.png")
    photos.add(tmp_path / "in", tiles="1x4")
    ball, plain = photos.search("red", k=2)
    assert (ball.box, plain.box) == ((0.5, 0, 0.75, 1), (0, 0, 1, 1))
    page = photos.search("red", k=2).to_html(tmp_path / "red.html").read_text()
    drawn, undrawn = (
        np.asarray(Image.open(io.BytesIO(b64decode(text))).convert("L"), int)[20]
        for text in re.findall(r"base64,([A-Za-z0-9+/=]+)", page)
    )
    light, dark = drawn > 180, drawn < 60
    assert set(np.flatnonzero(light)) == {120, 121, 177, 178}
    assert set(np.flatnonzero(dark)) == {119, 122, 176, 179}
    assert np.ptp(undrawn) < 8


# ---------------------------------------------------------------- the command line


def test_the_command_line_gives_tiles_once_and_tells_of_them(tmp_path, folder):
    for path in sorted(folder.iterdir())[3:]:
        path.unlink()
    index = ["index", str(folder), "--to", str(tmp_path / "c"), "--model", "builtin"]
    run = CliRunner().invoke
    wrong = run(main, [*index, "--tiles", "3"])
    assert wrong.exit_code == 1 and "expected grids of ROWSxCOLUMNS" in wrong.output
    assert not (tmp_path / "c").exists()
    assert run(main, index).exit_code == 0
    again = run(main, ["index", "--to", str(tmp_path / "c"), "--tiles", "1x2"])
    assert again.exit_code == 0, again.output
    told = run(main, ["info", str(tmp_path / "c")]).output
    assert re.search(r"tiles +1x2", told) and "9 vectors" in told and "3 pictures with tiles" in told
    other = run(main, [*index, "--tiles", "2x2"])
    assert other.exit_code == 1 and "has tiles 1x2, and 2x2 was asked for" in other.output
    upgrade = ["index", "--to", str(tmp_path / "c"), "--upgrade", "--model", "builtin", "--tiles", "1x2"]
    assert run(main, upgrade).exit_code == 2
