"""What becomes of every picture: outcomes, resuming, failures, and what is encoded how often."""

import os
import shutil
import signal
import threading
import time
import weakref
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch import ingest
from clipsearch.errors import ClipsearchError, ModelError, SourceError
from clipsearch.testing import COLOURS, ColourEncoder

OUTCOMES = ("added", "updated", "moved", "unchanged", "same_content", "missing")


class CountingEncoder(ColourEncoder):
    """Also keeps how many pictures it was given at a time."""

    def __init__(self):
        self.batches = []

    def encode_images(self, images):
        self.batches.append(len(images))
        return super().encode_images(images)


def paint(path, colour, size=(20, 10)):
    Image.new("RGB", size, colour).save(path)


def outcomes(report):
    counts = {name: getattr(report, name) for name in OUTCOMES if getattr(report, name)}
    return counts | ({"failed": len(report.failed)} if report.failed else {})


@pytest.fixture
def folder(tmp_path):
    """Three pictures of one colour each."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("red", "green", "blue"):
        paint(folder / f"{name}.png", name if name != "green" else COLOURS["green"])
    return folder


@pytest.fixture
def encoder():
    return CountingEncoder()


@pytest.fixture
def photos(tmp_path, encoder):
    with cs.Collection(tmp_path / "c", model=encoder) as photos:
        yield photos


def names(results):
    return [os.path.basename(hit.path) for hit in results]


def test_a_second_add_of_the_same_folder_reads_nothing(photos, folder, encoder):
    assert outcomes(photos.add(folder)) == {"added": 3}
    for path in folder.iterdir():  # reading would now fail, and the size and time are as before
        stamp = path.stat()
        path.write_bytes(b"x" * stamp.st_size)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    encoder.batches.clear()
    assert outcomes(photos.add(folder)) == {"unchanged": 3}
    assert encoder.batches == []


def test_an_unchanged_add_writes_nothing(photos, folder):
    photos.add(folder)
    before = {path: path.stat().st_mtime_ns for path in photos.path.rglob("*") if path.name != "write.lock"}
    photos.add(folder)
    assert before == {
        path: path.stat().st_mtime_ns for path in photos.path.rglob("*") if path.name != "write.lock"
    }


def test_a_changed_file_is_updated_and_found_as_what_it_is_now(photos, folder):
    photos.add(folder)
    paint(folder / "red.png", "yellow", size=(30, 30))
    assert outcomes(photos.add(folder)) == {"updated": 1, "unchanged": 2}
    found = photos.search("yellow", k=3)
    assert names(found)[0] == "red.png"
    assert found[0].score == pytest.approx(1, abs=1e-3)
    assert photos.search("red")[0].score < 0.8, "the old content is found no more"


def test_a_touched_file_is_unchanged_and_not_encoded_again(photos, folder, encoder):
    photos.add(folder)
    os.utime(folder / "red.png")
    encoder.batches.clear()
    assert outcomes(photos.add(folder)) == {"unchanged": 3}
    assert encoder.batches == []


def test_equal_bytes_are_encoded_once_and_both_names_are_found(photos, folder, encoder):
    shutil.copy(folder / "red.png", folder / "rouge.png")
    assert outcomes(photos.add(folder)) == {"added": 3, "same_content": 1}
    assert sum(encoder.batches) == 3
    found = photos.search("red", k=2)
    assert sorted(names(found)) == ["red.png", "rouge.png"]
    assert found[0].score == found[1].score
    shutil.copy(folder / "red.png", folder / "third.png")
    assert outcomes(photos.add(folder)) == {"unchanged": 4, "same_content": 1}
    assert sum(encoder.batches) == 3


def test_a_moved_file_keeps_its_id_and_is_not_encoded_again(photos, folder, encoder):
    photos.add(folder)
    id = photos.search("red")[0].id
    (folder / "deep").mkdir()
    (folder / "red.png").rename(folder / "deep" / "rouge.png")
    assert outcomes(photos.add(folder)) == {"moved": 1, "unchanged": 2}
    found = photos.search("red")[0]
    assert (found.id, found.key) == (id, "deep/rouge.png")
    assert sum(encoder.batches) == 3


def test_a_file_moved_to_another_source_is_recognised_once_it_is_missing(photos, folder, tmp_path):
    photos.add(folder)
    other = tmp_path / "other"
    other.mkdir()
    (folder / "red.png").rename(other / "red.png")
    assert outcomes(photos.add(folder)) == {"unchanged": 2, "missing": 1}
    assert outcomes(photos.add(other)) == {"moved": 1}
    assert len(photos) == 3


def test_missing_pictures_are_hidden_kept_and_come_back(photos, folder, encoder):
    photos.add(folder)
    picture = (folder / "red.png").read_bytes()
    (folder / "red.png").unlink()
    assert outcomes(photos.add(folder)) == {"unchanged": 2, "missing": 1}
    assert "red.png" not in names(photos.search("red"))
    assert photos.info()["missing"] == 1
    (folder / "red.png").write_bytes(picture)
    assert outcomes(photos.add(folder)) == {"unchanged": 3}
    assert names(photos.search("red"))[0] == "red.png"
    assert sum(encoder.batches) == 3


def test_a_source_that_is_absent_or_empty_deletes_nothing(photos, folder, tmp_path):
    photos.add(folder)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(SourceError):
        photos.add(folder)
    shutil.rmtree(folder)
    with pytest.raises(SourceError):
        photos.add(folder)
    assert len(photos) == 3


def test_a_broken_picture_is_recorded_and_does_not_shift_the_others(photos, folder, encoder):
    (folder / "a-broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "m-empty.jpg").touch()
    report = photos.add(folder)
    assert outcomes(report) == {"added": 3, "failed": 2}
    assert [os.path.basename(failure.path) for failure in report.failed] == ["a-broken.png", "m-empty.jpg"]
    assert all(failure.reason for failure in report.failed)
    for colour in ("red", "green", "blue"):
        best = photos.search(colour)[0]
        assert os.path.basename(best.path) == f"{colour}.png"
        assert best.score == pytest.approx(1, abs=1e-3)


def test_a_failed_picture_is_read_again_only_when_it_changes_or_when_asked(photos, folder):
    bad = folder / "bad.png"
    bad.write_bytes(b"123456")
    assert outcomes(photos.add(folder)) == {"added": 3, "failed": 1}
    stamp = bad.stat()
    paint(bad, "yellow")
    whole = bad.read_bytes()
    bad.write_bytes(b"654321")
    os.utime(bad, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    first = photos.failures()
    assert outcomes(photos.add(folder)) == {"unchanged": 3, "failed": 1}
    assert photos.failures() == first
    report = photos.add(folder, retry_failed=True)
    assert "654321" in report.failed[0].reason and "123456" in first[0].reason
    bad.write_bytes(whole)
    assert outcomes(photos.add(folder)) == {"unchanged": 3, "updated": 1}
    assert photos.failures() == []


def test_a_picture_that_breaks_the_model_breaks_only_itself(tmp_path, folder):
    class Picky(ColourEncoder):
        def encode_images(self, images):
            if any(image.size == (1, 1) for image in images):
                raise ValueError("too small")
            return super().encode_images(images)

    paint(folder / "dot.png", "white", size=(1, 1))
    with cs.Collection(tmp_path / "c", model=Picky()) as photos:
        report = photos.add(folder)
        assert outcomes(report) == {"added": 3, "failed": 1}
        assert report.failed[0].reason == "the model failed on it: ValueError: too small"
        assert names(photos.search("blue"))[0] == "blue.png"


def test_vectors_that_are_not_numbers_are_failures_not_rows(tmp_path, folder):
    class Nan(ColourEncoder):
        def encode_images(self, images):
            vectors = super().encode_images(images)
            vectors[[image.size == (1, 1) for image in images]] = np.nan
            return vectors

    paint(folder / "dot.png", "white", size=(1, 1))
    with cs.Collection(tmp_path / "c", model=Nan()) as photos:
        assert outcomes(photos.add(folder)) == {"added": 3, "failed": 1}


def test_a_model_that_fails_on_everything_stops_the_job_and_blames_no_picture(tmp_path, folder):
    class Broken(ColourEncoder):
        def encode_images(self, images):
            raise RuntimeError("no weights")

    with cs.Collection(tmp_path / "c", model=Broken()) as photos:
        with pytest.raises(ModelError, match="no weights"):
            photos.add(folder)
        assert photos.failures() == []
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        assert outcomes(photos.add(folder)) == {"added": 3}


def test_a_model_that_breaks_midway_keeps_what_was_encoded(tmp_path, folder):
    class Dies(CountingEncoder):
        def encode_images(self, images):
            if sum(self.batches) >= 2:
                raise RuntimeError("device lost")
            return super().encode_images(images)

    for number in range(4):
        paint(folder / f"z{number}.png", (number, 0, 0))
    with cs.Collection(tmp_path / "c", model=Dies()) as photos:
        with pytest.raises(ModelError, match="device lost"):
            photos.add(folder, batch_size=2)
        assert len(photos) == 2
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        assert outcomes(photos.add(folder)) == {"added": 5, "unchanged": 2}


def test_copies_of_a_picture_are_encoded_once_however_far_apart_they_come(tmp_path, monkeypatch):
    """With a commit after every batch, so that the first copy is committed, in flight or waiting."""
    monkeypatch.setattr(ingest, "COMMIT_SECONDS", 0.0)
    pictures = [Image.new("RGB", (4, 4), (number % 7, 0, 0)) for number in range(60)]
    encoder = CountingEncoder()
    with cs.Collection(tmp_path / "c", model=encoder) as photos:
        report = photos.add(((str(n), image) for n, image in enumerate(pictures)), batch_size=1)
        assert outcomes(report) == {"added": 7, "same_content": 53}
        assert sum(encoder.batches) == 7
        assert photos.info()["models"][0]["vectors"] == 7
        assert photos.verify().ok


def test_a_copy_of_a_picture_that_breaks_the_model_fails_too(tmp_path, folder):
    class Picky(ColourEncoder):
        def encode_images(self, images):
            if any(image.size == (1, 1) for image in images):
                raise ValueError("too small")
            return super().encode_images(images)

    for name in ("a.png", "z.png"):
        paint(folder / name, "white", size=(1, 1))
    with cs.Collection(tmp_path / "c", model=Picky()) as photos:
        assert outcomes(photos.add(folder)) == {"added": 3, "failed": 2}
        assert photos.verify().notes == []


def test_batches_are_full_and_order_is_that_of_the_names(tmp_path, encoder, monkeypatch):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(10):
        paint(folder / f"{number}.png", (25 * number, 0, 0))
    with cs.Collection(tmp_path / "c", model=encoder) as photos:
        photos.add(folder, batch_size=4)
        ids, vectors = photos.embeddings()
    assert encoder.batches == [4, 4, 2]
    assert ids == list(range(1, 11))
    expected = np.array([[25 * n + 1, 1, 1] for n in range(10)], np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-3)


def test_the_window_never_runs_far_ahead_of_the_model(tmp_path):
    """Pictures that wait for the model are bounded, however many there are."""
    alive, most, lock = 0, 0, threading.Lock()

    class Pixels:
        def __init__(self, image):
            nonlocal alive, most
            self.image = image
            with lock:
                alive += 1
                most = max(most, alive)

        def __del__(self):
            nonlocal alive
            with lock:
                alive -= 1

    class Slow(ColourEncoder):
        min_side = None

        def prepare(self, image):
            return Pixels(image)

        def encode_prepared(self, batch):
            time.sleep(0.01)
            return self.encode_images([pixels.image for pixels in batch])

    pictures = ((str(n), Image.new("RGB", (4, 4), (n % 256, n // 256, 0))) for n in range(400))
    with cs.Collection(tmp_path / "c", model=Slow()) as photos:
        assert photos.add(pictures, batch_size=8).added == 400
    assert most <= 4 * 8 + 4 + ingest.cores() + 1, (
        "two and a half batches before the model, and what it holds"
    )


def test_ctrl_c_commits_what_is_done_and_the_next_add_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        paint(folder / f"{number:02}.png", (number, 0, 0))

    class Interrupts(CountingEncoder):
        def encode_images(self, images):
            vectors = super().encode_images(images)
            if len(self.batches) == 3:
                signal.raise_signal(signal.SIGINT)
            return vectors

    with cs.Collection(tmp_path / "c", model=Interrupts()) as photos:
        with pytest.raises(KeyboardInterrupt) as stopped:
            photos.add(folder, batch_size=5)
        assert isinstance(stopped.value, cs.Interrupted)
        done = stopped.value.report.added
        assert done == len(photos)
        assert done in (5, 10), "what was on its way is done again"
        assert photos.verify().ok
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        assert outcomes(photos.add(folder)) == {"added": 40 - done, "unchanged": done}


def test_an_iterator_of_pictures_and_bytes_can_be_added_and_added_to(photos, folder, encoder):
    red = (folder / "red.png").read_bytes()
    report = photos.add([("one", red), ("two", Image.new("RGB", (3, 3), "blue"))])
    assert outcomes(report) == {"added": 2}
    assert [hit.path for hit in photos.search("blue", k=1)] == ["two"]
    report = photos.add(iter([("one", red), ("three", Image.new("RGB", (3, 3), "yellow"))]))
    assert outcomes(report) == {"unchanged": 1, "added": 1}
    assert len(photos) == 3, "an iterator says nothing of what it does not name"


def test_pictures_with_equal_pixels_numbers_but_other_palettes_are_two(photos):
    one, two = Image.new("P", (4, 4), 0), Image.new("P", (4, 4), 0)
    one.putpalette([255, 0, 0])
    two.putpalette([0, 0, 255])
    assert outcomes(photos.add([("one", one), ("two", two)])) == {"added": 2}
    assert photos.search("blue")[0].key == "two"


def test_the_report_adds_up_and_says_what_bounds_it(photos, folder):
    (folder / "bad.jpg").touch()
    report = photos.add(folder)
    assert report.encoded == 3
    assert report.images_per_second == pytest.approx(3 / (report.seconds - report.loading))
    assert report.bottleneck in ("decoding", "encoding", "writing")
    assert report.to_dict()["failed"][0]["path"].endswith("bad.jpg")
    assert str(report).startswith("3 added, 1 failed in ")


def test_a_source_that_breaks_midway_keeps_what_came_before(photos, folder):
    def pictures():
        for number in range(50):
            yield str(number), Image.new("RGB", (4, 4), (number, 0, 0))
        raise OSError("the drive went away")

    with pytest.raises((OSError, ClipsearchError), match="drive"):
        photos.add(pictures(), batch_size=2)
    assert 40 <= len(photos) < 50, "all but what was on its way"
    assert photos.verify().ok


def test_a_picture_that_cannot_be_read_for_now_keeps_its_vector(photos, folder, encoder):
    paths = sorted(folder.iterdir())
    photos.add(paths)
    whole = (folder / "red.png").read_bytes()
    (folder / "red.png").unlink()
    (folder / "red.png").mkdir()  # what the list names is still there, and cannot be read
    assert outcomes(photos.add(paths)) == {"unchanged": 2, "failed": 1}
    assert names(photos.search("red"))[0] == "red.png"
    (folder / "red.png").rmdir()
    (folder / "red.png").write_bytes(whole)
    assert outcomes(photos.add(paths)) == {"unchanged": 3}
    assert sum(encoder.batches) == 3


def test_a_failed_picture_that_is_gone_is_forgotten(photos, folder):
    (folder / "bad.png").write_bytes(b"bad")
    photos.add(folder)
    (folder / "bad.png").unlink()
    assert outcomes(photos.add(folder)) == {"unchanged": 3}
    assert photos.failures() == []
    assert photos.info()["missing"] == 0


def test_equal_pixels_turned_differently_are_two_pictures(photos, tmp_path):
    pixels = Image.new("RGB", (8, 4), "red")
    turned = Image.Exif()
    turned[0x0112] = 6
    pixels.save(tmp_path / "plain.png")
    pixels.save(tmp_path / "turned.png", exif=turned)
    with Image.open(tmp_path / "plain.png") as one, Image.open(tmp_path / "turned.png") as two:
        assert outcomes(photos.add([("one", one), ("two", two)])) == {"added": 2}
    sizes = {hit.key: (hit.metadata["width"], hit.metadata["height"]) for hit in photos.search("red")}
    assert sizes == {"one": (8, 4), "two": (4, 8)}


def test_ctrl_c_in_the_middle_of_a_commit_waits_for_its_end(photos, folder, monkeypatch):
    """The signal comes as SQLite is told to commit; what is counted must be what is there."""
    photos.add([("first", Image.new("RGB", (3, 3), "tan"))])
    replace = os.replace

    def interrupting(*paths):
        if "vectors" in str(paths[1]):
            signal.raise_signal(signal.SIGINT)
        return replace(*paths)

    monkeypatch.setattr(os, "replace", interrupting)
    with pytest.raises(cs.Interrupted) as stopped:
        photos.add(folder)
    assert stopped.value.report.added == 3
    assert len(photos) == 4
    assert photos.verify().ok
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_trouble_of_the_collection_is_not_blamed_on_a_picture(photos, folder):
    photos.add(folder)
    (folder / "new.png").write_bytes((folder / "red.png").read_bytes() + b" ")
    database = photos.path / "items.sqlite"
    whole = database.read_bytes()
    database.write_bytes(whole[:100] + b"\0" * (len(whole) - 100))
    with pytest.raises(ClipsearchError, match="damaged"):
        photos.add(folder)
    database.write_bytes(whole)
    assert photos.failures() == []


def test_a_reason_that_is_not_unicode_is_recorded(tmp_path, folder):
    class Odd(ColourEncoder):
        def encode_images(self, images):
            if any(image.size == (1, 1) for image in images):
                raise ValueError("bad name caf\udce9")
            return super().encode_images(images)

    paint(folder / "dot.png", "white", size=(1, 1))
    with cs.Collection(tmp_path / "c", model=Odd()) as photos:
        assert "caf\\udce9" in photos.add(folder).failed[0].reason


def test_a_restored_file_beside_a_copy_of_it_loses_neither(photos, folder):
    photos.add(folder)
    whole = (folder / "red.png").read_bytes()
    (folder / "red.png").unlink()
    photos.add(folder)
    (folder / "red.png").write_bytes(whole)
    (folder / "a-copy.png").write_bytes(whole)
    assert outcomes(photos.add(folder)) == {"unchanged": 3, "same_content": 1}
    assert len(photos) == 4
    assert outcomes(photos.add(folder)) == {"unchanged": 4}


def test_pictures_that_were_handed_over_are_let_go_once_they_are_read(tmp_path):
    """What waits for a commit is its vector, not the picture."""
    alive = most = 0

    def gone():
        nonlocal alive
        alive -= 1

    class Watching(ColourEncoder):
        def encode_images(self, images):
            nonlocal most
            most = max(most, alive)
            return super().encode_images(images)

    def pictures():
        nonlocal alive
        for number in range(200):
            image = Image.new("RGB", (6, 6), (number, 0, 0))
            alive += 1
            weakref.finalize(image, gone)
            yield str(number), image
            del image

    with cs.Collection(tmp_path / "c", model=Watching()) as photos:
        assert photos.add(pictures(), batch_size=4).added == 200
    assert most < 60, most


def test_some_pictures_that_break_the_model_never_stop_a_later_add(tmp_path, folder):
    class Picky(ColourEncoder):
        def encode_images(self, images):
            if any(image.size == (1, 1) for image in images):
                raise ValueError("too small")
            return super().encode_images(images)

    with cs.Collection(tmp_path / "c", model=Picky()) as photos:
        photos.add(folder)
        for number in range(2):
            paint(folder / f"dot{number}.png", (number, 0, 0), size=(1, 1))
        assert outcomes(photos.add(folder)) == {"unchanged": 3, "failed": 2}
        paint(folder / "good.png", "yellow")
        assert outcomes(photos.add(folder)) == {"unchanged": 3, "added": 1, "failed": 2}


def test_metadata_that_cannot_be_kept_fails_only_its_picture(photos, folder):
    class Own:
        kind, root, lists_all, options = "own", "place", True, {}

        def items(self):
            for name, metadata in (("red", {("a", "pair"): 1}), ("blue", {})):
                yield cs.Item(name, (folder / f"{name}.png").read_bytes, metadata=metadata)

        def item(self, key):
            return None

        def path(self, key):
            return key

    assert outcomes(photos.add(Own())) == {"added": 1, "failed": 1}
    assert photos.search("blue")[0].key == "blue"


def test_metadata_that_is_no_json_is_kept_as_text(photos, folder):
    class Own:
        kind, root, lists_all, options = "own", "place", True, {}

        def items(self):
            yield cs.Item("one", (folder / "red.png").read_bytes, metadata={"from": folder})

        def item(self, key):
            return next(self.items())

        def path(self, key):
            return f"place/{key}"

    assert outcomes(photos.add(Own())) == {"added": 1}
    assert photos.search("red")[0].metadata["from"] == str(folder)
    assert photos.refresh() == [], "a source of one's own cannot be opened again by its name"


def test_a_number_that_json_cannot_write_is_nothing_known(photos, folder):
    class Own:
        kind, root, lists_all, options = "own", "place", True, {}

        def items(self):
            odd = {"n": float("nan"), "m": {"far": [1.5, float("inf")]}, "rating": 4}
            yield cs.Item("one", (folder / "red.png").read_bytes, metadata=odd)

        def item(self, key):
            return None

        def path(self, key):
            return key

    photos.add(Own())
    known = photos.search("red", where="rating = 4 and n is null and width > 1")[0].metadata
    assert (known["n"], known["m"], known["rating"]) == (None, {"far": [1.5, None]}, 4)


# ---------------------------------------------------------------------- what is known of a picture


def test_values_of_numpy_and_dates_are_what_they_mean(tmp_path):
    known = {
        "price": np.int64(3),
        "share": np.float32(0.5),
        "ok": np.bool_(True),
        "box": np.arange(3),
        "nan": np.float64("nan"),
        "when": datetime(2024, 5, 6, 7, 8, 9),
        "day": date(2024, 5, 6),
        "moment": np.datetime64("2024-05-06T07:08:09"),
        "file": Path("a/b.jpg"),
        "cost": Decimal("1.5"),
        "nested": {"deep": (np.int8(1), [np.uint8(2)])},
        7: "number",
    }
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        picture = Image.new("RGB", (4, 4), "red")
        photos.add([cs.Item("red", lambda: picture, metadata=known)])
        (hit,) = photos.search("red", where="price < 5 and share = 0.5 and ok and box = 2 and cost < 2")
    expected = {
        "price": 3,
        "share": 0.5,
        "ok": True,
        "box": [0, 1, 2],
        "nan": None,
        "when": "2024-05-06T07:08:09",
        "day": "2024-05-06",
        "moment": "2024-05-06T07:08:09",
        "file": "a/b.jpg",
        "cost": 1.5,
        "nested": {"deep": [1, [2]]},
        "7": "number",
    }
    assert {name: hit.metadata.get(name) for name in expected} == expected


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 1j])
def test_what_cannot_be_kept_fails_its_own_picture_with_the_name(tmp_path, value):
    picture = Image.new("RGB", (4, 4), "red")
    items = [
        cs.Item("bad", lambda: picture, metadata={"inner": [{"thing": value}]}),
        cs.Item("good", lambda: picture),
    ]
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        report = photos.add(items)
    assert report.added == 1
    ((path, reason),) = report.failed
    assert path == "bad" and "'inner'" in reason and type(value).__name__ in reason and "expected" in reason


def test_what_a_read_gave_that_is_no_picture_is_named(photos):
    ((path, reason),) = photos.add(
        [cs.Item("a", lambda: "text"), cs.Item("b", lambda: Image.new("L", (4, 4)))]
    ).failed
    assert (path, reason) == ("a", "read() gave str; expected the bytes of a file or a PIL image")


def test_pictures_that_are_told_otherwise_are_counted(photos, folder):
    photos.add(folder)
    (folder / "red.txt").write_text("a red one")
    report = photos.add(folder)
    assert (report.unchanged, report.new_metadata) == (3, 1)
    assert "3 unchanged (1 with new metadata)" in str(report)
    assert "3 unchanged in" in str(photos.add(folder))
