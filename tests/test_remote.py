"""Folders that fsspec reads, tried on its file system in memory and on this disk."""

import io
import time

import pytest
from PIL import Image

import clipsearch as cs
from clipsearch.errors import SourceError
from clipsearch.sources import open_source, restore
from clipsearch.testing import ColourEncoder

fsspec = pytest.importorskip("fsspec", reason="needs the extra remote")


@pytest.fixture
def store():
    """An empty bucket in memory: memory://bucket."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


@pytest.fixture
def photos(tmp_path):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        yield photos


def paint(store, name, colour):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    store.pipe(f"/bucket/{name}", file.getvalue())


def keys(spec, **options):
    return [item.key for item in open_source(spec, **options).items()]


def test_a_remote_folder_is_searched_shown_and_filtered_like_one_on_disk(store, tmp_path, photos):
    paint(store, "red.png", "red")
    paint(store, "deep/er/blue.PNG", "blue")
    store.pipe("/bucket/deep/er/blue.txt", b"a blue square\n")
    store.pipe("/bucket/broken.jpg", b"no picture")

    report = photos.add("memory://bucket")

    assert (report.added, [failure.path for failure in report.failed]) == (2, ["memory://bucket/broken.jpg"])
    (hit,) = photos.search("red", where="caption like '%blue%'")
    assert (hit.key, hit.path) == ("deep/er/blue.PNG", "memory://bucket/deep/er/blue.PNG")
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as again:
        assert again.search("blue", k=1)[0].image().getpixel((0, 0)) == (0, 0, 255)
        (refreshed,) = again.refresh()
        assert refreshed.unchanged == 2


def test_names_are_sorted_hidden_ones_skipped_and_patterns_left_out(store):
    for name in ["b.png", "a.png", ".hidden.png", "d/c.png", "@eaDir/x.png", "d/e/f.png", "g/h.gif"]:
        store.pipe(f"/bucket/{name}", b"x")
    assert keys("memory://bucket/") == ["a.png", "b.png", "d/c.png", "d/e/f.png", "g/h.gif"]
    assert keys("memory://bucket/d") == ["c.png", "e/f.png"]
    assert keys("memory://bucket", exclude=["d", "*.gif"]) == ["a.png", "b.png"]


def test_what_changed_is_read_again_and_nothing_else(store, photos):
    paint(store, "a.png", "red")
    paint(store, "b.png", "blue")
    photos.add("memory://bucket")
    read = []
    plain = store.cat_file
    store.cat_file = lambda path, **options: read.append(path) or plain(path, **options)
    try:
        assert photos.add("memory://bucket").unchanged == 2 and read == []
        time.sleep(0.01)
        paint(store, "a.png", "lime")
        store.pipe("/bucket/b.json", b'{"label": "new"}')
        report = photos.add("memory://bucket")
    finally:
        del store.cat_file
    assert (report.updated, report.unchanged) == (1, 1)
    assert sorted(read) == ["/bucket/a.png", "/bucket/b.json", "/bucket/b.png"]
    assert [hit.key for hit in photos.search("red", where="label = 'new'")] == ["b.png"]
    store.rm("/bucket/a.png")
    assert photos.add("memory://bucket").missing == 1


def test_a_folder_that_cannot_be_listed_is_told_and_its_pictures_are_not_called_gone(
    store, photos, monkeypatch
):
    paint(store, "a.png", "red")
    paint(store, "lost/b.png", "blue")
    photos.add("memory://bucket")
    plain = store.ls

    def refuse(path, **options):
        if "lost" in path:
            raise RuntimeError("access denied")
        return plain(path, **options)

    monkeypatch.setattr(store, "ls", refuse)
    report = photos.add("memory://bucket")
    assert (report.unchanged, report.missing) == (1, 0)
    assert [failure.path for failure in report.failed] == ["memory://bucket/lost/"]
    assert "access denied" in report.failed[0].reason


def test_a_listing_that_the_store_has_cached_is_asked_for_again(store, monkeypatch):
    plain, cached = store.ls, {}

    def ls(path, **options):
        if path not in cached:
            cached[path] = plain(path, **options)
        return cached[path]

    monkeypatch.setattr(store, "ls", ls)
    monkeypatch.setattr(store, "invalidate_cache", lambda path=None: cached.clear())
    paint(store, "a.png", "red")
    assert keys("memory://bucket") == ["a.png"]
    paint(store, "b.png", "red")
    assert keys("memory://bucket") == ["a.png", "b.png"]


def test_a_read_that_fails_is_tried_again_next_time(store, photos, monkeypatch):
    paint(store, "a.png", "red")

    def fail(path, **options):
        raise RuntimeError("timed out")

    with monkeypatch.context() as patch:
        patch.setattr(store, "cat_file", fail)
        assert "timed out" in photos.add("memory://bucket").failed[0].reason
    report = photos.add("memory://bucket")
    assert report.failed == [] and len(photos.search("red")) == 1


def test_a_url_of_this_disk_works_and_item_knows_what_is_gone(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    source = restore("remote", f"file://{tmp_path}", {})
    assert [item.key for item in source.items()] == ["in/a.png"]
    assert source.item("in/a.png").read() == b"x" and source.item("in/b.png") is None


def test_a_place_that_is_absent_empty_or_unknown_is_an_error(store):
    store.pipe("/bucket/a.txt", b"x")
    for url, why in [
        ("memory://absent", "cannot list 'memory://absent': FileNotFoundError"),
        ("memory://bucket", "no picture in"),
        ("memory://bucket/a.txt", "found a file at"),
        ("nonsense://bucket", "cannot open 'nonsense://bucket': Protocol not known"),
    ]:
        with pytest.raises(SourceError, match=why):
            keys(url)


def test_a_pattern_at_a_url_says_that_only_folders_are_read(store):
    paint(store, "red.png", "red")
    with pytest.raises(SourceError, match="patterns at a URL are not read"):
        list(open_source("memory://bucket/*.png").items())
