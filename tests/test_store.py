"""The store between processes and threads, on full and read-only disks, and with the names people have."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch import ingest
from clipsearch.errors import CollectionError, DamagedError, LockedError
from clipsearch.search import Searcher
from clipsearch.store import Store, from_sql, to_sql
from clipsearch.testing import ColourEncoder
from clipsearch.writer import writing

LEVELS = (0, 51, 102, 153, 204, 255)
PALETTE = [(red, green, 100) for red in LEVELS for green in LEVELS]  # 36 directions, none alike
QUERY = (np.array((250, 40, 90)) / np.linalg.norm((250, 40, 90))).astype(np.float32)
SETUP = """
import sys, time
from pathlib import Path
import numpy as np
import clipsearch as cs
from clipsearch import ingest
from clipsearch.store import Store
from clipsearch.testing import ColourEncoder
from clipsearch.writer import writing
"""
linux_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs to mount a small disk: Linux and root"
)


def paint(folder, count, first=0):
    """Pictures n.png in one colour each; sizes differ so that no two are the same bytes."""
    folder.mkdir(exist_ok=True)
    for number in range(first, first + count):
        Image.new("RGB", (4 + number, 4), PALETTE[number % 36]).save(folder / f"{number}.png")
    return folder


def cosine(number):
    """Of picture n.png to QUERY, by hand."""
    vector = np.array(PALETTE[number % 36]) + 1
    return float(vector @ QUERY / np.linalg.norm(vector))


def ranking(photos, k=1000):
    return [(hit.key, hit.score) for hit in photos.search(embedding=QUERY, k=k)]


def by_hand(count):
    """The ranking of pictures 0 to count - 1: best first, equal ones in the order they came."""
    order = sorted(range(count), key=lambda n: f"{n}.png")
    return [f"{n}.png" for n in sorted(order, key=lambda n: -round(cosine(n), 3))]


def check(photos, count):
    """The collection is whole: every picture once, in its place, with its own vector."""
    found = ranking(photos)
    assert sorted(key for key, _ in found) == sorted(f"{n}.png" for n in range(count))
    for key, score in found:
        assert score == pytest.approx(cosine(int(key[:-4])), abs=1e-3)


@contextmanager
def another(code, *arguments):
    """Another process that has run `code` as far as its first print."""
    command = [sys.executable, "-c", SETUP + code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        try:
            process.said = process.stdout.readline().strip()
            yield process
        finally:
            process.kill()


@pytest.fixture
def photos(tmp_path):
    """A collection of 12 pictures in three segments."""
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        for first in (0, 4, 8):
            photos.add(paint(tmp_path / "p", 4, first), progress=False)
        yield photos


def contents_of(folder):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in [folder, *folder.rglob("*")]
    }


# ---------------------------------------------------------------- one writer

HOLD = """
with writing(Store(Path(sys.argv[1]))) as writer:
    print("holds it", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_told_who_the_first_is(photos, tmp_path):
    with another(HOLD, photos.path) as holder:
        assert holder.said == "holds it"
        with pytest.raises(LockedError, match=f"is being written by process {holder.pid} on .* since 20"):
            photos.add(tmp_path / "p", progress=False)
        check(photos, 12)  # reading goes on
        holder.stdin.close()
        holder.wait()
    photos.add(tmp_path / "p", progress=False)


def test_the_right_to_write_is_free_again_when_its_holder_is_killed(photos, tmp_path):
    with another(HOLD, photos.path) as holder:
        holder.kill()
        holder.wait()
    assert photos.add(paint(tmp_path / "p", 1, 12), progress=False).added == 1
    assert (photos.path / "write.lock").read_bytes() == b""


def test_two_writers_in_one_process_are_two_writers(photos):
    with closing(Store(photos.path)) as one, closing(Store(photos.path)) as two:  # noqa: SIM117
        with writing(one), pytest.raises(LockedError, match=f"process {os.getpid()} "), writing(two):
            pass


def test_an_error_inside_a_transaction_leaves_nothing(photos):
    before = contents_of(photos.path / "vectors"), photos.info()
    with closing(Store(photos.path)) as store, writing(store) as writer:
        with pytest.raises(RuntimeError), writer.transaction():
            content = writer.add_content(b"x" * 32, {})
            writer.append(store.spaces()[0], [content], np.eye(3, dtype=np.float32)[:1])
            raise RuntimeError("no")
        writer.sweep()
    check(photos, 12)
    assert photos.info() == before[1]
    assert {path: data[1] for path, data in contents_of(photos.path / "vectors").items()} == {
        path: data[1] for path, data in before[0].items()
    }
    assert photos.verify().problems == []


# ---------------------------------------------------------------- readers meanwhile

GROW = """
ingest.COMMIT_PICTURES = 4
print("begins", flush=True)
with cs.Collection(sys.argv[1], model=ColourEncoder()) as photos:
    photos.add(sys.argv[2], batch_size=4, progress=False)
"""


def test_one_process_searches_while_another_adds(photos, tmp_path):
    paint(tmp_path / "p", 288, 12)
    seen = [12]
    with another(GROW, photos.path, tmp_path / "p") as adder:
        while adder.poll() is None:
            found = ranking(photos)
            for key, score in found:
                assert score == pytest.approx(cosine(int(key[:-4])), abs=1e-3)
            seen.append(len(found))
        assert adder.returncode == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 3, seen
    check(photos, 300)


CHURN = """
print("begins", flush=True)
with cs.Collection(sys.argv[1]) as photos:
    for _ in range(30):
        photos.compact()
"""


def test_a_reader_may_open_search_and_verify_while_another_process_compacts(photos):
    held = Searcher(photos._store, photos._store.spaces()[0])
    searches = 0
    with another(CHURN, photos.path) as compacter:
        while compacter.poll() is None:
            with cs.Collection(photos.path, read_only=True) as fresh:
                check(fresh, 12)
                assert fresh.verify().problems == []
            assert len(held.search(QUERY[None], ["held"], 100)[0]) == 12
            searches += 1
        assert compacter.returncode == 0
    assert searches > 5


def test_segments_that_a_compaction_replaced_between_two_steps_are_looked_up_again(photos, monkeypatch):
    store = photos._store
    load, compactions = np.load, []

    def load_after_a_compaction(*given, **named):
        if not compactions:
            compactions.append(
                subprocess.run([sys.executable, "-c", SETUP + COMPACT, photos.path], check=True)
            )
        return load(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(np, "load", load_after_a_compaction)
        snapshot = store.snapshot(store.spaces()[0])
    assert len(compactions) == 1
    assert (len(snapshot), len(snapshot.segments)) == (12, 1)


COMPACT = "cs.Collection(sys.argv[1]).compact()"


def test_a_segment_that_is_gone_for_good_is_an_error_that_names_it(photos):
    gone = sorted(photos.path.glob("vectors/*/*.npy"))[0]
    gone.unlink()
    with pytest.raises(DamagedError, match=f"{gone.name} is gone; run `clipsearch verify`"):
        ranking(photos)


def test_segments_stay_few_however_many_commits_there_are(tmp_path, monkeypatch):
    """Each segment that a reader maps costs it a file handle, and macOS gives 256."""
    monkeypatch.setattr(ingest, "COMMIT_PICTURES", 2)
    monkeypatch.setattr("clipsearch.writer.SMALL", 8)
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        photos.add(paint(tmp_path / "p", 40), batch_size=2, progress=False)
        assert photos.info()["models"][0]["segments"] == 20 - 2 * 8
        assert len(list(photos.path.glob("vectors/*/*"))) == 2 * (20 - 2 * 8)
        check(photos, 40)
        contents = photos._store.snapshot(photos._store.spaces()[0]).contents
        assert np.array_equal(contents, np.arange(40) + 1)  # in the order they came
        assert (photos.verify().problems, photos.verify().notes) == ([], [])


def test_eight_threads_may_search_one_store(photos):
    expected = ranking(photos)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(lambda _: ranking(photos), range(200)))


def test_connections_of_ended_threads_are_closed(photos, tmp_path):
    for number in range(12, 20):
        photos.add(paint(tmp_path / "p", 1, number), progress=False)
        thread = threading.Thread(target=ranking, args=(photos,))
        thread.start()
        thread.join()
    handles = Path("/proc/self/fd")
    if not handles.exists():
        pytest.skip("needs /proc to count open files")

    def count():
        return sum(os.readlink(handle) == str(photos.path / "items.sqlite") for handle in open_now())

    def open_now():
        return [handle for handle in handles.iterdir() if handle.exists()]

    assert 1 <= count() <= 3 + (os.cpu_count() or 1)
    photos.close()
    assert count() == 0


def test_threads_that_begin_and_end_while_others_close_disturb_nobody(photos):
    found = []

    def ask():
        found.append(photos._store.rows("SELECT generation FROM state"))

    for _ in range(60):
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
            threading.Thread(target=photos._store.database.rows, args=("SELECT 1",)).start()
        for thread in threads:
            thread.join()
        photos._store.close()
    assert len(found) == 360
    assert len({str(rows) for rows in found}) == 1


def test_closing_waits_for_who_adds_and_searches(photos, tmp_path):
    """Else SQLite ends the whole process, so another one tries it."""
    code = """
import threading, time
photos = cs.Collection(Path(sys.argv[1]), model=ColourEncoder())
folder, stop, wrong = Path(sys.argv[2]), time.monotonic() + 4, []
def again(what, pause=0.0):
    def run():
        while time.monotonic() < stop and not wrong:
            try:
                what()
            except Exception as error:
                wrong.append(repr(error))
            time.sleep(pause)
    return threading.Thread(target=run)
threads = [
    again(lambda: photos.add(folder, progress=False)), again(lambda: photos.search("red")),
    again(lambda: photos.paths(where="width > 1")), again(photos.close, 0.001),
]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(wrong)
"""
    with another(code, photos.path, paint(tmp_path / "p", 12)) as process:
        assert process.said == "[]"
        assert process.wait(30) == 0


PROBE = """
from contextlib import suppress
db = __import__("sqlite3").connect(sys.argv[1] + "/items.sqlite", timeout=0, isolation_level=None)
try:
    db.execute("BEGIN IMMEDIATE")
    print("free")
except Exception as error:
    print(error)
"""


def test_sealing_and_verifying_do_not_drop_the_locks_of_sqlite(photos):
    """POSIX drops all locks of a process on a file when it closes any handle on it."""
    photos.verify()
    with closing(sqlite3.connect(photos.path / "items.sqlite", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        photos.verify()
        with another(PROBE, photos.path) as other:
            assert other.said == "database is locked"


def test_a_database_kept_busy_by_another_program_is_an_error_that_says_so(photos, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0}))
    photos.close()
    with closing(connect(photos.path / "items.sqlite", isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LockedError, match="kept busy by another process"):
            ranking(photos)
    check(photos, 12)


# ---------------------------------------------------------------- what a killed writer leaves

DIE = """
import os, signal
from clipsearch import database

class Connection(database.Connection):
    def execute(self, sql, *values):
        if sql == "COMMIT":
            super().execute("PRAGMA cache_spill = 1")
            super().execute("PRAGMA cache_size = 1")
            super().execute("UPDATE items SET metadata = metadata || ' '")
            super().execute("CREATE TABLE big (text)")
            super().executemany("INSERT INTO big VALUES (?)", [("x" * 400,)] * 3000)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(sql, *values)

store = Store(Path(sys.argv[1]))
database.Connection = Connection
store.close()
with writing(store) as writer:
    print("begins", flush=True)
    with writer.transaction() as db:
        db.execute("UPDATE items SET missing = 1")
"""


@pytest.fixture
def interrupted(photos):
    """The same collection, whose writer was killed when half of a commit was on the disk."""
    photos.close()
    with another(DIE, photos.path) as dying:
        dying.wait()
    assert dying.returncode == -signal.SIGKILL
    assert (photos.path / "items.sqlite-journal").stat().st_size > 512
    return photos.path


def test_half_a_commit_is_undone_by_the_next_who_opens(interrupted):
    with cs.Collection(interrupted) as photos:
        check(photos, 12)
        checked = photos.verify()
        assert checked.ok
        assert [note.split(" (")[0] for note in checked.notes] == ["items.sqlite has no seal"]
    assert not (interrupted / "items.sqlite-journal").exists()


def test_half_a_commit_cannot_be_undone_by_a_reader_that_may_not_write(interrupted):
    before = contents_of(interrupted)
    with pytest.raises(CollectionError, match="left in the middle of a commit; open it once where"):
        cs.Collection(interrupted, read_only=True)
    assert contents_of(interrupted) == before


# ---------------------------------------------------------------- creating and opening


@pytest.mark.parametrize(
    "left",
    [
        {},
        {"write.lock": b""},
        {"write.lock": b"", "items.sqlite": b""},
        {
            "items.sqlite": b"SQLite format 3\0 half",
            "items.sqlite-journal": b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",
        },
        {"items.sqlite": b"", "collection.json.tmp": b'{"form'},
    ],
    ids=lambda left: " ".join(left) or "empty",
)
def test_a_half_made_folder_is_completed(tmp_path, left):
    for name, data in left.items():
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / "c" / name).write_bytes(data)
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        photos.add(paint(tmp_path / "p", 3), progress=False)
        check(photos, 3)
        checked = photos.verify()
        assert (checked.problems, checked.notes) == ([], [])


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path):
    paint(tmp_path / "holiday", 1)
    before = contents_of(tmp_path / "holiday")
    with pytest.raises(CollectionError, match="holiday is a folder of other things, not a collection"):
        cs.Collection(tmp_path / "holiday", model=ColourEncoder())
    assert contents_of(tmp_path / "holiday") == before


def test_a_collection_that_lost_its_description_is_not_made_anew(photos):
    (photos.path / "collection.json").unlink()
    with pytest.raises(CollectionError, match="folder of other things"):
        cs.Collection(photos.path, model=ColourEncoder())
    assert (photos.path / "items.sqlite").stat().st_size > 1000


def test_a_file_cannot_become_a_collection(tmp_path):
    (tmp_path / "c").write_text("mine")
    with pytest.raises(CollectionError, match=r"cannot write .*c: File exists"):
        cs.Collection(tmp_path / "c", model=ColourEncoder())


def test_a_format_of_another_version_is_refused_with_both_numbers(photos):
    about = json.loads((photos.path / "collection.json").read_text())
    (photos.path / "collection.json").write_text(json.dumps(about | {"format": 2}))
    with pytest.raises(CollectionError, match="has format 2, and this version reads 1: pip install -U"):
        cs.Collection(photos.path)


@pytest.mark.parametrize("description", [b"", b"{", b"[]", b'"text"', b"{}", b"\xff\xfe\x00"])
def test_a_description_that_cannot_be_read_is_damage(photos, description):
    (photos.path / "collection.json").write_bytes(description)
    with pytest.raises(DamagedError, match=r"collection\.json cannot be read"):
        cs.Collection(photos.path)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda path: path.unlink(), "unable to open database file"),
        (lambda path: path.write_bytes(b""), "no such table"),
        (lambda path: path.write_bytes(b"no database at all" * 100), "not a database"),
        (lambda path: os.truncate(path, 2048), "damaged"),
    ],
    ids=["gone", "empty", "other bytes", "cut short"],
)
def test_a_database_that_cannot_be_read_is_an_error_of_ours(photos, damage, error):
    photos.close()
    damage(photos.path / "items.sqlite")
    with pytest.raises(CollectionError, match=error):
        cs.Collection(photos.path)


def test_read_only_means_that_there_must_be_a_collection(tmp_path):
    with pytest.raises(CollectionError, match="no collection at"):
        cs.Collection(tmp_path / "c", read_only=True)
    assert not (tmp_path / "c").exists()


# ---------------------------------------------------------------- read-only, full, moved


def test_reading_leaves_every_byte_and_time_as_it_was(photos):
    photos.close()
    os.utime(photos.path, ns=(1, 1))
    before = contents_of(photos.path)
    with cs.Collection(photos.path, read_only=True) as reader:
        check(reader, 12)
        assert reader.verify().ok
        assert len(reader.embeddings()[0]) == 12
        with pytest.raises(CollectionError, match="was opened read-only; open it without read_only"):
            reader.compact()
    assert contents_of(photos.path) == before


@contextmanager
def small_disk(path, options):
    path.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True).returncode:
        pytest.skip("needs to mount a small disk, which is not allowed here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@linux_root
@pytest.mark.parametrize("read_only", [True, False])
def test_a_collection_on_a_disk_that_cannot_be_written_can_be_searched(photos, tmp_path, read_only):
    photos.close()
    with small_disk(tmp_path / "disk", "size=4m") as disk:
        shutil.copytree(photos.path, disk / "c")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with cs.Collection(disk / "c", model=ColourEncoder(), read_only=read_only) as there:
            check(there, 12)
            assert there.verify().ok
            with pytest.raises(CollectionError, match=r"opened read-only|Read-only file system"):
                there.add(tmp_path / "p", progress=False)
            check(there, 12)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_the_right_to_write_can_be_searched(photos, tmp_path):
    photos.close()
    for path in [photos.path, *photos.path.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with cs.Collection(photos.path, model=ColourEncoder()) as there:
            check(there, 12)
            with pytest.raises(CollectionError, match=r"cannot write .*Permission denied"):
                there.add(tmp_path / "p", progress=False)
    finally:
        for path in [photos.path, *photos.path.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


@linux_root
def test_a_full_disk_is_a_clear_error_and_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "COMMIT_PICTURES", 8)
    paint(tmp_path / "p", 300)
    with small_disk(tmp_path / "disk", "size=200k") as disk:
        for spare in range(0, 60_000, 9_000):  # the disk is full at another step each time
            shutil.rmtree(disk / "c", ignore_errors=True)
            (disk / "spare").write_bytes(b"x" * spare)
            with cs.Collection(disk / "c", model=ColourEncoder()) as photos:
                with pytest.raises(CollectionError, match=r"No space left on device|disk is full"):
                    photos.add(tmp_path / "p", batch_size=8, progress=False)
                known = len(photos)
                found = ranking(photos)
                assert len(found) == known
                for key, score in found:
                    assert score == pytest.approx(cosine(int(key[:-4])), abs=1e-3)
            with cs.Collection(disk / "c", read_only=True) as photos:
                assert photos.verify().problems == []
                assert len(photos) == known
        assert known > 0
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        with cs.Collection(disk / "c", model=ColourEncoder()) as photos:
            report = photos.add(tmp_path / "p", progress=False)
            assert (report.unchanged, report.added, report.failed) == (known, 300 - known, [])
            check(photos, 300)
            checked = photos.verify()
            assert (checked.problems, checked.notes) == ([], [])


def test_a_collection_can_be_moved_and_copied(photos, tmp_path):
    photos.close()
    shutil.copytree(photos.path, tmp_path / "copy")
    os.rename(photos.path, tmp_path / "moved")
    for name in ("copy", "moved"):
        with cs.Collection(tmp_path / name, model=ColourEncoder()) as there:
            check(there, 12)
            assert there.add(paint(tmp_path / "p", 12), progress=False).added == 0
            assert there.verify().ok


@pytest.mark.parametrize("name", ["a ?b#c%20é&mode=ro", "фото 写真", "-c", "'quoted\"", "a" * 200])
def test_a_collection_may_have_any_name(tmp_path, name):
    with cs.Collection(tmp_path / name, model=ColourEncoder()) as photos:
        photos.add(paint(tmp_path / "p", 2), progress=False)
        check(photos, 2)
    assert (tmp_path / name / "items.sqlite").is_file()


# ---------------------------------------------------------------- names of pictures


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow only Unicode in names")
def test_names_that_are_not_utf8_and_twin_accents_survive(tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    names = [b"\xff\xfe caf\xe9.png", *(unicodedata.normalize(f, "é.png").encode() for f in ("NFC", "NFD"))]
    for number, name in enumerate(names):
        Image.new("RGB", (4, 4), PALETTE[number]).save(folder / "x.png")
        os.rename(folder / "x.png", os.fsencode(folder) + b"/" + name)
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        assert photos.add(folder, progress=False).added == 3
        assert photos.add(folder, progress=False).unchanged == 3
        found = {os.fsencode(hit.key): hit for hit in photos.search(embedding=QUERY)}
        assert sorted(found) == sorted(names)
        for number, name in enumerate(names):
            assert found[name].score == pytest.approx(cosine(number), abs=1e-3)
            assert os.path.exists(found[name].path)
        assert photos.remove(os.fsdecode(os.fsencode(folder) + b"/" + names[0])) == 1


@pytest.mark.parametrize(
    "name", ["plain.jpg", "é", "\udcff.png", "\ud800 half of a pair", "\udcc3\udca9", ""]
)
def test_every_name_there_can_be_comes_back_from_the_database(name):
    with closing(sqlite3.connect(":memory:")) as db:
        (back,) = db.execute("SELECT ?", (to_sql(name),)).fetchone()
    assert from_sql(back) == name


def test_the_rows_of_a_source_are_its_own(tmp_path):
    """Ids are not used again, so that what a reader still holds never comes to mean another thing."""
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        for name in ("one", "two"):
            photos.add(paint(tmp_path / name, 2), progress=False)
            before = [row.id for row in photos._store.sources()], [row.id for row in photos._store.items()]
            photos.remove(tmp_path / name)
            photos.compact()
        assert before == ([2], [3, 4])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_writing_does_not_keep_the_lock(tmp_path):
    code = f"""
import os, time
from pathlib import Path
from clipsearch.files import write_lock
lock = Path({str(tmp_path / "write.lock")!r})
with write_lock(lock):
    child = os.fork()
    if not child:
        time.sleep(30)
        os._exit(0)
with write_lock(lock):
    print("free")
os.kill(child, 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout == "free\n", done.stderr
