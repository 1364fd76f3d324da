"""Crash safety: a power cut after any single write, and real kills, never cost what was committed.

A recorder listens to what reaches the disk (files written, synced, renamed and deleted, folders made
and synced, SQLite's commits) while a collection is made, filled, changed, compacted and moved to
another model. Then the power is cut after each of these events: what was synced is there, what was
not is there, lost or cut short, in many combinations. Each of these wrecks is opened by a reader,
which must find exactly what the last commit said, and by a writer, which must be able to finish.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
import clipsearch.database
from clipsearch import ingest, upkeep, writer
from clipsearch.captions import captioners
from clipsearch.errors import CollectionError
from clipsearch.index import Keeper
from clipsearch.search import Searcher
from clipsearch.store import Store
from clipsearch.testing import ColourEncoder, ColourVLM

LEVELS = (0, 51, 102, 153, 204, 255)
PALETTE = [(red, green, 100) for red in LEVELS for green in LEVELS]  # 36 directions, none alike
DATABASE = "items.sqlite"


class Backwards(ColourEncoder):
    """Another model: its vectors are (blue, green, red)."""

    model_id = "backwards"

    def encode_images(self, images):
        return np.ascontiguousarray(super().encode_images(images)[:, ::-1])

    def fingerprint(self):
        return "backwards-1"


ENCODERS = {"colour": ColourEncoder(), "backwards": Backwards()}


def by_hand(colour, model):
    """The vector that a model gives to a picture of one colour."""
    vector = np.array(colour if model == "colour" else colour[::-1], np.float64) + 1
    return vector / np.linalg.norm(vector)


def paint(path, colour):
    Image.new("RGB", (4, 4), colour).save(path)


# ---------------------------------------------------------------- what a power cut leaves


class Recorder:
    """Listens to the standard library and keeps every change below `root` that could be lost."""

    def __init__(self, root, monkeypatch):
        self.root, self.events, self.numbers, self.database, self.paused = root, [], {}, b"", False
        for name in ("fsync", "replace", "unlink", "mkdir", "rmdir"):
            self.real = {**getattr(self, "real", {}), name: getattr(os, name)}
            monkeypatch.setattr(os, name, getattr(self, name))
        recorder = self

        class Connection(clipsearch.database.Connection):
            def execute(self, sql, *values):
                recorder.notice()
                cursor = super().execute(sql, *values)
                if sql in ("COMMIT", "VACUUM"):
                    recorder.commit(super().execute("PRAGMA synchronous").fetchone()[0])
                return cursor

            def executescript(self, sql):
                cursor = super().executescript(sql)
                recorder.commit(super().execute("PRAGMA synchronous").fetchone()[0])
                return cursor

        monkeypatch.setattr(clipsearch.database, "Connection", Connection)

    def fsync(self, handle):
        self.real["fsync"](handle)
        self.notice()
        inode = os.fstat(handle).st_ino
        path = next(path for path in [self.root, *self.root.rglob("*")] if path.stat().st_ino == inode)
        if path.is_dir():
            self.events.append(("sync names", path))
        else:
            self.events.append(("write", self.numbers[path], path.read_bytes()))
            self.events.append(("sync", self.numbers[path]))

    def replace(self, old, new):
        self.notice()
        self.real["replace"](old, new)
        self.numbers[new] = self.numbers.pop(old)
        self.events.append(("names", new.parent, {old.name: None, new.name: self.numbers[new]}))

    def unlink(self, path):
        self.notice()
        self.real["unlink"](path)
        if self.numbers.pop(path, None) is not None:
            self.events.append(("names", path.parent, {path.name: None}))

    def mkdir(self, path, *mode):
        self.real["mkdir"](path, *mode)
        self.events.append(("names", path.parent, {path.name: "folder"}))

    def rmdir(self, path):
        self.real["rmdir"](path)
        self.events.append(("names", path.parent, {path.name: None}))

    def notice(self):
        """Files that came without a word: by open and write."""
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and path not in self.numbers and path.suffix in (".npy", ".tmp", ".json"):
                number = self.numbers[path] = len(self.events)
                self.events.append(("write", number, path.read_bytes()))
                self.events.append(("names", path.parent, {path.name: number}))

    def commit(self, synchronous):
        data = next(self.root.rglob(DATABASE)).read_bytes()
        if data != self.database:
            self.database = data
            self.events.append(("commit", data, synchronous))


class Disk:
    """What is surely on the disk after some events, and what may be."""

    def __init__(self, collection):
        self.collection, self.folders, self.pending = collection, {collection.parent: {}}, []
        self.contents, self.synced = {}, set()
        self.databases = []  # the one that is surely there; then, perhaps, a newer one

    def see(self, event):
        match event:
            case "names", folder, names:
                self.pending.append((folder, names))
            case "write", number, data:
                self.contents[number] = data
                self.synced.discard(number)
            case "sync", number:
                self.synced.add(number)
            case "sync names", folder:
                self.folders = self._names([change for change in self.pending if change[0] == folder])
                self.pending = [change for change in self.pending if change[0] != folder]
                if folder == self.collection:
                    self.databases = self.databases[-1:]
            case "commit", data, synchronous:
                # EXTRA syncs the deletion of the journal; with FULL a hot journal may come back
                # and undo the commit, until something else syncs the folder
                self.databases = [data] if synchronous == 3 else [*self.databases[-1:], data]

    def _names(self, changes):
        folders = {folder: dict(names) for folder, names in self.folders.items()}
        for folder, names in changes:
            folders.setdefault(folder, {}).update(names)
        return folders

    def wrecks(self):
        """Every (database, {path: bytes}) that a power cut now may leave, within reason."""
        every = range(len(self.pending))
        kept = {frozenset(), frozenset(every)}
        kept |= {frozenset(range(n)) for n in every}  # in order, as most file systems do
        kept |= {frozenset({n}) for n in every} | {frozenset(every) - {n} for n in every}
        seen = set()
        for chosen in kept:
            folders = self._names([self.pending[n] for n in sorted(chosen)])
            for part in (0.0, 0.5):
                files = dict(self._files(self.collection.parent, folders, part))
                for database in self.databases or [None]:
                    key = (database, frozenset(files.items()))
                    if key not in seen:
                        seen.add(key)
                        yield database, files

    def _files(self, folder, folders, part):
        for name, number in folders.get(folder, {}).items():
            if number == "folder":
                yield folder / name, "folder"
                yield from self._files(folder / name, folders, part)
            elif number is not None:
                data = self.contents[number]
                yield folder / name, data if number in self.synced else data[: int(part * len(data))]


def rebuild(wreck, original, database, files):
    """Lay a wreck of the collection at `original` out at `wreck`."""
    shutil.rmtree(wreck, ignore_errors=True)
    for old, data in files.items():
        new = wreck / old.relative_to(original)
        if data == "folder":
            new.mkdir()
        else:
            new.write_bytes(data)
    if database is not None and wreck.is_dir():
        (wreck / DATABASE).write_bytes(database)


# ---------------------------------------------------------------- what must be found there


CAPTIONS = "SELECT sha256, text FROM captions JOIN contents ON contents.id = content"


def view(path, colours):
    """{model: [(key, id)]} as a reader finds them, each checked to have the vector of its own pixels."""
    with closing(Store(path, read_only=True)) as store:
        assert upkeep.verify(store).problems == []
        digests = dict(
            store.rows("SELECT items.id, sha256 FROM items JOIN contents ON contents.id = content")
        )
        found = {}
        for space in store.spaces():
            searcher = Searcher(store, space, Keeper(store).index)
            query = by_hand((200, 90, 30), "colour").astype(np.float32)[None]
            hits = searcher.search(query, ["a colour"], 1000)[0]
            ids, vectors = searcher.everything()
            true = {id: by_hand(colours[digests[id]], space.model) for id in ids}
            for id, vector in zip(ids, vectors, strict=True):
                assert np.allclose(vector, true[id], atol=1e-3)
            for hit in hits:
                assert hit.score == pytest.approx(float(true[hit.id] @ query[0]), abs=1e-3)
            assert sorted(hit.id for hit in hits) == ids
            for digest, text in store.rows(CAPTIONS) if captioners(store) else []:
                assert [text] == ColourVLM().generate([Image.new("RGB", (4, 4), colours[digest])])
            found[space.model] = sorted((hit.key, hit.id) for hit in hits)
            rows = np.unique(searcher._snapshot.contents, return_counts=True)[1]
            assert set(rows) <= ({1, 3} if store.tiles() else {1}), "all tiles of a picture or none"
        return found


def finish(path, folders):
    """Open what a crash left as any user would, and add the same folders again."""
    models, live = ["colour"], "colour"
    if (path / "collection.json").exists():
        with cs.Collection(path) as found:
            models, live = found.models or models, found.model if found.models else live
    with cs.Collection(path, model=ENCODERS[live]) as photos:
        for folder in folders:
            photos.add(folder, progress=False)
        for model in set(models) - {live}:
            photos.add_model(ENCODERS[model], progress=False)
        checked = photos.verify()
    assert (checked.problems, checked.notes) == ([], [])


@pytest.fixture
def quick_folder():
    """A folder in memory, where there is one: wrecks are many."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


class Life:
    """The pictures of a collection, and all that happens to it."""

    def __init__(self, folder, disk):
        self.collection, self.colours = disk / "c", {}
        self.folders = [folder / "first", folder / "second"]
        for parent in self.folders:
            parent.mkdir()

    def paint(self, folder, name, number):
        path = self.folders[folder] / name
        paint(path, PALETTE[number])
        self.colours[sha256(path.read_bytes()).digest()] = PALETTE[number]

    def add(self, photos):
        for folder in self.folders:
            photos.add(folder, batch_size=3, progress=False)
            photos._keeper.wait()  # of the index, once there is one: events come one after the other

    def live(self):
        for number in range(6):
            self.paint(0, f"{number}.png", number)
        for number in range(3):
            self.paint(1, f"{number}.png", 10 + number)
        self.paint(1, "again.png", 0)  # the bytes of a picture of the other folder
        (self.folders[1] / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
        with cs.Collection(self.collection, model=ENCODERS["colour"]) as photos:
            self.add(photos)
            yield "added"
            photos.build_index("IVF2,Flat", queries=["red", "green", "blue"], progress=False)
            yield "indexed"
            self.paint(0, "0.png", 20)
            (self.folders[0] / "1.png").unlink()
            (self.folders[0] / "2.png").rename(self.folders[0] / "moved.png")
            self.paint(1, "new.png", 21)
            self.add(photos)
            yield "changed"
            photos.caption(ColourVLM(), batch_size=3, progress=False)
            yield "captioned"
            photos.remove(*[hit.id for hit in photos.search("red", k=2)])
            photos._keeper.wait()
            yield "removed"
            self.fail_in_a_transaction()
            self.add(photos)
            yield "added after a failure"
            photos.add(self.folders[0], tiles="1x2", batch_size=3, progress=False)  # the others have none yet
            photos._keeper.wait()
            self.paint(1, "tiled.png", 23)
            self.add(photos)
            yield "given tiles"
            photos.remove_missing()
            photos.compact()
            photos._keeper.wait()
            yield "compacted"
            photos.add_model(ENCODERS["backwards"], progress=False)
            yield "second model"
            photos.use_model("backwards")
            photos.drop_model("colour")
            yield "one model"
        with cs.Collection(self.collection, model=ENCODERS["backwards"]) as photos:
            self.paint(1, "last.png", 22)
            self.add(photos)
            photos.compact()
            yield "the end"

    def fail_in_a_transaction(self):
        store = Store(self.collection)
        with writer.writing(store) as writing, pytest.raises(RuntimeError), writing.transaction():
            writing.append(store.spaces()[0], [1], np.eye(3, dtype=np.float32)[:1])
            raise RuntimeError("the model broke")
        store.close()

    def keys(self):
        """What a search must find in the end."""
        paths = [path for folder in self.folders for path in folder.iterdir() if path.name != "broken.png"]
        return sorted(path.name for path in paths)


@pytest.fixture
def recorded(tmp_path, quick_folder, monkeypatch):
    """A collection's life, its events, and what a reader must find for each state of the database."""
    disk = quick_folder / "disk"
    disk.mkdir()
    life = Life(tmp_path, disk)
    monkeypatch.setattr(ingest, "COMMIT_PICTURES", 3)
    monkeypatch.setattr(writer, "SMALL", 3)
    with monkeypatch.context() as patched:
        recorder = Recorder(disk, patched)
        expected, commit = {}, recorder.commit

        def commit_and_look(synchronous):
            commit(synchronous)
            if (life.collection / "collection.json").exists():
                expected[recorder.database] = view(life.collection, life.colours)

        recorder.commit = commit_and_look
        for _ in life.live():
            pass
    return life, recorder.events, expected


def test_no_power_cut_at_any_instant_costs_what_was_committed(recorded, quick_folder, monkeypatch):
    life, events, expected = recorded
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # the wrecks themselves need not last
    made = next(n for n, event in enumerate(events) if event[0] == "names" and "collection.json" in event[2])
    disk, wreck = Disk(life.collection), quick_folder / "wreck"
    read = set()
    for number, event in enumerate(events):
        disk.see(event)
        for database, files in disk.wrecks():
            key = hash((database, frozenset(files.items())))
            if key in read:
                continue
            read.add(key)
            rebuild(wreck, life.collection, database, files)
            try:
                found = view(wreck, life.colours)
            except CollectionError as error:
                assert number <= made + 1, f"event {number}, {event}: {error}"
            else:
                assert found == expected.get(database, {}), f"event {number}: {event}"
            if number <= made + 1 or len(read) % 12 == 0:
                finish(wreck, life.folders)
                final = view(wreck, life.colours)
                for found in final.values():
                    assert sorted(key for key, _ in found) == life.keys(), f"event {number}: {event}"
    assert len(events) > 300 and len(read) > 1000


# ---------------------------------------------------------------- real kills

ADD = """
import sys
from pathlib import Path
import clipsearch as cs
import clipsearch.database
from clipsearch import ingest
from clipsearch.testing import ColourEncoder, ColourVLM

ingest.COMMIT_PICTURES = 8
with cs.Collection(sys.argv[1], model=ColourEncoder()) as photos:
    print("ready", flush=True)
    photos.add(sys.argv[2], tiles=sys.argv[3] or None, batch_size=4, progress=False)
"""


def killed_while_adding(collection, folder, seconds, tiles):
    """Start adding in another process and kill it; whether that was in time."""
    command = [sys.executable, "-c", ADD, str(collection), str(folder), tiles]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(seconds)
        process.kill()
    return process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("tiles", ["", "1x2"])
def test_killed_at_random_instants_it_ends_with_every_picture_exactly_once(tmp_path, tiles):
    folder, collection, colours = tmp_path / "pictures", tmp_path / "c", {}
    folder.mkdir()
    for number in range(300):
        path = folder / f"{number:03}.png"
        Image.new("RGB", (4 + number, 4), PALETTE[number % 36]).save(path)
        colours[sha256(path.read_bytes()).digest()] = PALETTE[number % 36]
    chance, kills, counts = random.Random(7), 0, [0]
    for _ in range(5):
        kills += killed_while_adding(collection, folder, chance.uniform(0.0, 0.2), tiles)
        Store(collection).close()  # mends what the kill left in the middle of a commit
        counts.append(len(view(collection, colours).get("colour", ())))
    assert kills >= 3
    assert counts == sorted(counts)  # what was committed once stays
    finish(collection, [folder])
    assert [key for key, _ in view(collection, colours)["colour"]] == sorted(os.listdir(folder))
