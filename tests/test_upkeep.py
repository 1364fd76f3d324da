"""verify finds whatever is not as it was written, and compact takes away only what nobody sees."""

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch import segments, writer
from clipsearch.errors import CollectionError, DamagedError
from clipsearch.search import Searcher
from clipsearch.store import Store
from clipsearch.testing import ColourEncoder
from clipsearch.upkeep import verify

LEVELS = (0, 51, 102, 153, 204, 255)
PALETTE = [(red, green, 100) for red in LEVELS for green in LEVELS]  # 36 directions, none alike
QUERY = np.array((250, 40, 90)) / np.linalg.norm((250, 40, 90))


def paint(folder, count, first=0):
    folder.mkdir(exist_ok=True)
    for number in range(first, first + count):
        Image.new("RGB", (4, 4), PALETTE[number]).save(folder / f"{number}.png")
    return folder


def cosine(number):
    vector = np.array(PALETTE[number]) + 1
    return float(vector @ QUERY / np.linalg.norm(vector))


def ranking(photos):
    return [(hit.id, hit.key, hit.score) for hit in photos.search(embedding=QUERY, k=1000)]


def keys(photos):
    return sorted(key for _, key, _ in ranking(photos))


@pytest.fixture
def photos(tmp_path):
    """Twelve pictures in three segments."""
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        for first in (0, 4, 8):
            photos.add(paint(tmp_path / "p", 4, first), progress=False)
        yield photos


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three pictures, closed and sealed: to be copied, never changed."""
    folder = tmp_path_factory.mktemp("written")
    with cs.Collection(folder / "c", model=ColourEncoder()) as photos:
        photos.add(paint(folder / "p", 3), progress=False)
    (folder / "c" / "write.lock").unlink()  # empty
    return folder / "c"


def problems(path):
    """What opening and verifying says, which must be an error of ours or a list."""
    try:
        with closing(Store(path, read_only=True)) as store:
            return verify(store).problems
    except CollectionError as error:
        return [str(error)]


# ---------------------------------------------------------------- verify


def test_a_collection_as_it_was_written_is_ok(photos):
    checked = photos.verify()
    assert (checked.ok, checked.problems, checked.notes) == (True, [], [])
    assert (checked.files, checked.vectors) == (2 + 2 * 3, 12)


def test_an_empty_collection_is_ok(tmp_path):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        checked = photos.verify()
    assert (checked.problems, checked.vectors) == ([], 0)


def flips(size, most):
    """Up to `most` positions, the first 100 (the headers) and then evenly."""
    return (
        sorted({*range(min(size, 100)), *range(0, size, max(1, size // most))})
        if size > most
        else range(size)
    )


def test_every_flipped_byte_of_every_file_is_found(written, tmp_path):
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    names = {file.name for file in files}
    assert names == {
        "collection.json",
        "items.sqlite",
        "seal.json",
        "000001.npy",
        "000001.rows.npy",
    }
    here = shutil.copytree(written, tmp_path / "c")
    assert problems(here) == []
    for file in files:
        whole = (written / file).read_bytes()
        for number, place in enumerate(flips(len(whole), 300)):
            # one bit, or, in texts, what makes a space a line break
            other = whole[place] ^ (0x2A if file.suffix == ".json" else 1 << number % 8)
            (here / file).write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
            assert problems(here), f"{file}: byte {place}, {whole[place]} to {other}"
        (here / file).write_bytes(whole)
    assert problems(here) == []


@pytest.mark.parametrize("change", [lambda whole: whole[:-1], lambda whole: whole + b"\0", lambda whole: b""])
def test_a_file_that_is_shorter_or_longer_is_found(written, tmp_path, change):
    here = shutil.copytree(written, tmp_path / "c")
    for file in [path for path in here.rglob("*") if path.is_file()]:
        whole = file.read_bytes()
        file.write_bytes(change(whole))
        assert problems(here), file.name
        file.write_bytes(whole)


@pytest.mark.parametrize("name", ["collection.json", "items.sqlite", "000001.npy", "000001.rows.npy"])
def test_a_file_that_is_gone_is_found(written, tmp_path, name):
    here = shutil.copytree(written, tmp_path / "c")
    next(here.rglob(name)).unlink()
    assert len(problems(here)) == 1


def test_flips_in_a_database_that_is_not_sealed_never_break_verify(written, tmp_path):
    here = shutil.copytree(written, tmp_path / "c")
    (here / "seal.json").unlink()
    whole = (here / "items.sqlite").read_bytes()
    found = 0
    for number, place in enumerate(flips(len(whole), 400)):
        changed = bytearray(whole)
        changed[place] ^= 1 + number * 37 % 255
        (here / "items.sqlite").write_bytes(changed)
        found += bool(problems(here))
    assert found > 50  # without the seal only what SQLite itself notices


def test_a_database_that_is_not_sealed_is_noted(photos):
    (photos.path / "seal.json").unlink()
    checked = photos.verify()
    assert checked.ok
    assert [note.split(" (")[0] for note in checked.notes] == ["items.sqlite has no seal"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE segments SET rows = rows + 1 WHERE id = 2", r"000002\.npy holds float16 \(4, 3\), not"),
        (
            "UPDATE segments SET rows_sha256 = vectors_sha256 WHERE id = 2",
            "000002.rows.npy is not what was written",
        ),
        ("UPDATE segments SET id = 9 WHERE id = 2", "000009.npy cannot be read: No such file"),
        ("UPDATE contents SET shown = 2 WHERE id = 5", "1 contents count their items wrong"),
        ("DELETE FROM contents WHERE id = 5", "row 5 of items points nowhere"),
        ("UPDATE contents SET id = 99 WHERE id = 5", "has 1 vectors of contents that do not exist"),
        ("UPDATE spaces SET dim = 4", r"holds float16 \(4, 3\), not float16 \(4, 4\)"),
        ("UPDATE spaces SET folder = 'x' || char(0)", "cannot be read"),
        ("UPDATE state SET generation = 'many'", "has lost its state"),
        ("DELETE FROM state", "has lost its state"),
    ],
)
def test_counts_that_do_not_agree_are_found_without_the_seal(photos, change, found):
    (photos.path / "seal.json").unlink()
    photos.close()
    with closing(sqlite3.connect(photos.path / "items.sqlite")) as db, db:
        db.execute(change)
    assert any(re.search(found, problem) for problem in problems(photos.path)), problems(photos.path)


def rewritten(photos, number, change):
    """Write a segment's arrays anew as if they had always been so, digests too."""
    folder = next(photos.path.glob("vectors/*"))
    vectors, rows = (np.load(path) for path in segments.segment_paths(folder, number))
    change(vectors, rows)
    digests = segments.write_segment(folder, number, rows, vectors)
    photos.close()
    (photos.path / "seal.json").unlink()
    with closing(sqlite3.connect(photos.path / "items.sqlite")) as db, db:
        db.execute("UPDATE segments SET vectors_sha256 = ?, rows_sha256 = ? WHERE id = ?", (*digests, number))
    return problems(photos.path)


def test_rows_of_a_content_that_has_its_row_already_are_found(photos):
    def change(vectors, rows):
        rows["content"][0] = 1

    assert rewritten(photos, 2, change) == ["1-colour has two vectors for one content"]


@pytest.mark.parametrize("value", [0, np.nan, np.inf, 2])
def test_vectors_without_unit_length_are_found(photos, value):
    def change(vectors, rows):
        vectors[1] = value

    assert rewritten(photos, 2, change) == ["000002.npy has rows that are not of unit length"]


def test_the_segments_of_two_contents_exchanged_are_found(photos):
    folder = next(photos.path.glob("vectors/*"))
    one, two = folder / "000001.npy", folder / "000002.npy"
    os.rename(one, folder / "x")
    os.rename(two, one)
    os.rename(folder / "x", two)
    assert photos.verify().problems == [
        "000001.npy is not what was written",
        "000002.npy is not what was written",
    ]


def test_files_that_no_commit_names_are_noted_and_swept_by_the_next_writer(photos, tmp_path):
    folder = next(photos.path.glob("vectors/*"))
    left = [folder / "000099.npy", folder / "000099.rows.npy.tmp", photos.path / "seal.json.tmp"]
    for path in left:
        path.write_bytes(b"half")
    checked = photos.verify()
    assert (checked.problems, checked.notes) == (
        [],
        ["3 files are of no commit; the next writer removes them"],
    )
    photos.add(tmp_path / "p", progress=False)
    assert not any(path.exists() for path in left)


def test_what_other_programs_put_into_the_folders_is_left_alone(photos, tmp_path):
    folder = next(photos.path.glob("vectors/*"))
    theirs = [folder / "@eaDir" / "x", folder / ".DS_Store", photos.path / "vectors" / "Thumbs.db"]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"theirs")
    photos.add(paint(tmp_path / "p", 1, 12), progress=False)
    photos.compact()
    assert all(path.exists() for path in theirs)
    assert photos.verify().ok


def test_pictures_that_wait_for_a_vector_are_noted(photos):
    with closing(Store(photos.path)) as store, writer.writing(store) as writing:
        writing.add_space(model="empty", fingerprint="", dim=2)
    checked = photos.verify()
    assert checked.ok
    assert checked.notes == ["12 pictures have no vector in 2-empty yet; add their source again"]


WRITE = """
import sys
from clipsearch import Collection, ingest
from clipsearch.testing import ColourEncoder
ingest.COMMIT_PICTURES = 1
print("begins", flush=True)
with Collection(sys.argv[1], model=ColourEncoder()) as photos:
    for _ in range(12):
        photos.remove(sys.argv[2])
        photos.add(sys.argv[2], batch_size=1, progress=False)
        photos.compact()
"""


def test_verify_raises_no_false_alarm_while_another_process_writes(photos, tmp_path):
    command = [sys.executable, "-c", WRITE, str(photos.path), str(tmp_path / "p")]
    checks = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        while process.poll() is None:
            assert photos.verify().problems == []
            checks += 1
        assert process.returncode == 0
    assert checks > 3


def test_verify_looks_again_at_what_was_written_meanwhile(photos, monkeypatch):
    digest, compactions = hashlib.file_digest, []
    compact = "import sys, clipsearch; clipsearch.Collection(sys.argv[1]).compact()"

    def digest_after_a_compaction(*given):
        if not compactions:
            compactions.append(subprocess.run([sys.executable, "-c", compact, photos.path], check=True))
        return digest(*given)

    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", digest_after_a_compaction)
        checked = photos.verify()
    assert len(compactions) == 1
    assert (checked.problems, checked.notes, checked.vectors) == ([], [], 12)


# ---------------------------------------------------------------- compact


def test_compact_makes_one_segment_and_changes_no_result(photos):
    before = ranking(photos)
    assert [key for _, key, _ in before] == [f"{n}.png" for n in sorted(range(12), key=lambda n: -cosine(n))]
    done = photos.compact()
    assert (done.segments_before, done.segments_after, done.vectors_dropped) == (3, 1, 0)
    assert done.bytes_freed > 0
    assert ranking(photos) == before  # ids, order and scores to the last bit
    assert sorted(path.name for path in photos.path.glob("vectors/*/*")) == ["000004.npy", "000004.rows.npy"]
    assert (photos.verify().problems, photos.verify().notes) == ([], [])


def test_compact_drops_the_vectors_that_no_item_has_and_keeps_those_of_missing_ones(photos, tmp_path):
    photos.remove(*(tmp_path / "p" / f"{n}.png" for n in (0, 5, 6, 7)))
    for number in (1, 9):
        (tmp_path / "p" / f"{number}.png").unlink()
    for number in (0, 5, 6, 7):  # so that add does not bring them back
        (tmp_path / "p" / f"{number}.png").unlink()
    assert photos.add(tmp_path / "p", progress=False).missing == 2
    before = ranking(photos)
    assert photos.compact().vectors_dropped == 4
    assert ranking(photos) == before
    assert photos.info()["models"][0]["vectors"] == 8
    paint(tmp_path / "p", 1, 9)
    report = photos.add(tmp_path / "p", progress=False)
    assert (report.encoded, report.unchanged) == (0, 7)  # 9.png is back, with the vector it had
    assert keys(photos) == sorted(f"{n}.png" for n in (2, 3, 4, 8, 9, 10, 11))
    (hit,) = photos.search(item=next(id for id, key, _ in ranking(photos) if key == "9.png"), k=1)
    assert hit.key != "9.png"
    assert photos.verify().ok


def test_what_was_dropped_can_be_added_again(photos, tmp_path):
    photos.remove(tmp_path / "p")
    photos.compact()
    assert photos.info()["models"][0]["vectors"] == 0
    assert not list(photos.path.glob("vectors/*/*"))
    assert photos.add(tmp_path / "p", progress=False).encoded == 12
    assert keys(photos) == sorted(f"{n}.png" for n in range(12))
    assert {path.name for path in photos.path.glob("vectors/*/*.npy")}.isdisjoint(
        {"000001.npy", "000002.npy"}
    )
    assert photos.verify().ok


def test_a_reader_keeps_what_it_has_open(photos, tmp_path):
    searcher = Searcher(photos._store, photos._store.spaces()[0])
    before = searcher.everything()
    photos.compact()
    photos.compact()
    ids, vectors = searcher.everything()
    assert ids == before[0]
    assert np.array_equal(vectors, before[1])


def test_large_segments_are_filled_and_rows_stay_in_order(photos, monkeypatch):
    monkeypatch.setattr(writer, "SEGMENT_BYTES", 5 * 3 * 2)  # five rows
    before, contents = ranking(photos), photos._store.snapshot(photos._store.spaces()[0]).contents
    assert photos.compact()[:3] == (3, 3, 0)
    snapshot = photos._store.snapshot(photos._store.spaces()[0])
    assert [len(segment.contents) for segment in snapshot.segments] == [5, 5, 2]
    assert np.array_equal(snapshot.contents, contents)
    assert ranking(photos) == before


def test_compact_of_an_empty_collection_does_nothing(tmp_path):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        assert photos.compact()[:3] == (0, 0, 0)


def test_compact_does_not_give_damage_a_new_digest(photos):
    path = next(photos.path.glob("vectors/*/000002.npy"))
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    before = ranking(photos)
    with pytest.raises(DamagedError, match=r"000002\.npy is not what was written; run `clipsearch verify`"):
        photos.compact()
    assert ranking(photos) == before
    assert photos.verify().problems == ["000002.npy is not what was written"]


def test_a_compaction_that_fails_half_way_changes_nothing(photos, monkeypatch):
    before, replaced, replace = ranking(photos), [], os.replace

    def replace_twice(old, new):
        replaced.append(new)
        if len(replaced) == 2:
            raise OSError(28, "No space left on device")
        replace(old, new)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_twice)
        with pytest.raises(CollectionError, match="No space left on device; what was there is safe"):
            photos.compact()
    assert ranking(photos) == before
    assert photos.verify().problems == []
    assert photos.compact()[:3] == (3, 1, 0)
    assert ranking(photos) == before
    assert (photos.verify().problems, photos.verify().notes) == ([], [])


def test_a_seal_that_cannot_be_written_costs_nothing_but_a_warning(photos, tmp_path, monkeypatch, caplog):
    replace = os.replace

    def replace_all_but_seals(old, new):
        if new.name == "seal.json":
            raise OSError(28, "No space left on device")
        replace(old, new)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_all_but_seals)
        assert photos.add(paint(tmp_path / "p", 1, 12), progress=False).added == 1
    assert "is not sealed, so verify will see less" in caplog.text
    assert len(photos.verify().notes) == 1
    photos.compact()
    assert json.loads((photos.path / "seal.json").read_text()).keys() == {"items.sqlite", "collection.json"}
    assert photos.verify().notes == []
