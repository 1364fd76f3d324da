"""What a person holds: opening, searching, several models, removing and moving."""

import csv
import gc
import io
import os
import shutil
import tarfile
import weakref

import numpy as np
import pytest
from PIL import Image

import clipsearch as cs
from clipsearch.errors import (
    CollectionError,
    ImageError,
    ModelError,
    ModelMismatchError,
    QueryError,
    SourceError,
)
from clipsearch.testing import COLOURS, ColourEncoder


class OtherEncoder(ColourEncoder):
    """Sees the same colours, turned by one place: red is where green was."""

    model_id = "other"

    def encode_images(self, images):
        return np.roll(super().encode_images(images), 1, axis=1)

    def encode_texts(self, texts, *, role="query"):
        return np.roll(super().encode_texts(texts), 1, axis=1)

    def fingerprint(self):
        return "other-1"


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for name, colour in COLOURS.items():
        (folder / ("sub" if name == "cyan" else "") / f"{name}.png").write_bytes(png(colour))
    return folder


@pytest.fixture
def photos(tmp_path, folder):
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos:
        photos.add(folder)
        yield photos


def keys(results):
    return [hit.key for hit in results]


def test_text_search_gives_the_cosines_worked_out_by_hand(photos, folder):
    found = photos.search("red", k=7)
    # (256, 1, 1) against itself, against (256, 1, 256) and (256, 256, 256)
    red, both, white = 256**2 + 2, (256**2 + 1 + 256), (256**2 + 512)
    expected = {
        "red.png": 1.0,
        "yellow.png": both / (red**0.5 * (2 * 256**2 + 1) ** 0.5),
        "white.png": white / (red**0.5 * (3 * 256**2) ** 0.5),
    }
    assert keys(found)[:3] == ["red.png", "magenta.png", "yellow.png"], "equal scores in the order they came"
    for hit in found:
        if hit.key in expected:
            assert hit.score == pytest.approx(expected[hit.key], abs=1e-3)
            assert hit.cosine == hit.score
    assert found.score_kind == "cosine"
    assert found[0].path == str(folder / "red.png")
    assert found[0].metadata["width"] == 8
    assert found[0].image().getpixel((0, 0)) == (255, 0, 0)
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


@pytest.mark.parametrize("kind", ["path", "text path", "PIL", "bytes"])
def test_a_picture_is_a_query_in_every_form(photos, folder, kind):
    path = folder / "blue.png"
    with Image.open(path) as opened:
        forms = {"path": path, "text path": str(path), "PIL": opened, "bytes": path.read_bytes()}
        hit = photos.search(image=forms[kind], k=1)[0]
    assert hit.key == "blue.png"
    assert hit.score == pytest.approx(1, abs=1e-3)


def test_an_item_finds_others_like_it_but_not_itself(photos):
    red = photos.search("red")[0]
    for item in (red, red.id, np.int64(red.id)):
        assert keys(photos.search(item=item, k=2)) == ["magenta.png", "yellow.png"]


def test_an_embedding_of_any_length_is_a_query(photos):
    assert keys(photos.search(embedding=[0, 0, 17.0], k=1)) == ["blue.png"]
    with pytest.raises(QueryError, match=r"\(n, 3\), got \(1, 4\)"):
        photos.search(embedding=[1, 2, 3, 4])
    with pytest.raises(QueryError, match=r"no direction"):
        photos.search(embedding=[0, 0, 0])


def test_many_queries_give_what_each_alone_gives_in_order(photos):
    many = photos.search_many(["blue", "red", "blue"], k=3)
    assert [results.query for results in many] == ["blue", "red", "blue"]
    for results in many:
        assert results.to_dicts() == photos.search(results.query, k=3).to_dicts()
    assert photos.search_many([]) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"query": "red", "item": 1},
        {"query": "  "},
        {"query": ["red", "blue"]},
        {"query": 5},
        {"query": "red", "k": 0},
        {"query": "red", "k": "3"},
        {"query": "red", "k": 2.5},
        {"item": 999},
        {"item": 10**30},
        {"item": "red.png"},
        {"embedding": [[1, 2, 3], [4, 5, 6]]},
        {"embedding": "red"},
        {"image": np.zeros((4, 4, 3))},
    ],
)
def test_a_query_that_cannot_be_answered_is_an_error(photos, arguments):
    with pytest.raises(QueryError):
        photos.search(**arguments)


def test_one_text_is_not_a_list_of_letters(photos):
    with pytest.raises(QueryError, match="use search"):
        photos.search_many("red")


def test_a_query_picture_that_is_not_there_is_an_error(photos, tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        photos.search(image=tmp_path / "nowhere.jpg")
    with pytest.raises(ImageError, match="null"):
        photos.search(image="a\0b")


def test_k_larger_than_the_collection_gives_all(photos):
    assert len(photos.search("red", k=1000)) == 7


def test_an_empty_collection_finds_nothing_and_loads_no_model(tmp_path):
    with cs.Collection(tmp_path / "c", model="builtin") as photos:
        assert list(photos.search("red")) == []
        assert photos.embeddings()[1].shape == (0, 0)
        assert list(photos.search(image=png("red"))) == []
        assert len(photos) == 0


def test_what_was_removed_is_found_no_more(photos, folder):
    assert photos.remove(folder / "red.png") == 1
    assert "red.png" not in keys(photos.search("red", k=100))
    assert photos.remove(folder / "sub", photos.search("blue")[0].id) == 2
    assert sorted(keys(photos.search("red", k=100))) == [
        "green.png",
        "magenta.png",
        "white.png",
        "yellow.png",
    ]
    assert photos.remove(folder / "red.png") == 0
    with pytest.raises(QueryError, match="one by one"):
        photos.remove([1, 2])
    with pytest.raises(SourceError, match="empty"):
        photos.remove("")
    assert len(photos) == 4
    assert photos.add(folder).added == 3, "files that are still there come back, their vectors kept"
    assert photos.verify().ok


def test_removing_a_whole_source_forgets_it(photos, folder):
    assert photos.remove(folder) == 7
    assert photos.info()["sources"] == []
    assert photos.compact().vectors_dropped == 7
    assert photos.refresh() == []


def test_missing_pictures_are_removed_only_on_request(photos, folder):
    (folder / "red.png").unlink()
    photos.add(folder)
    assert photos.info()["missing"] == 1
    assert photos.remove_missing() == 1
    assert photos.info()["missing"] == 0


def test_a_moved_source_is_relocated(photos, folder, tmp_path):
    folder.rename(tmp_path / "new")
    with pytest.raises(SourceError, match="none of the pictures"):
        photos.relocate(folder, tmp_path / "c")
    with pytest.raises(SourceError, match="is not a source"):
        photos.relocate(tmp_path / "new", folder)
    photos.relocate(folder, tmp_path / "new")
    hit = photos.search("red")[0]
    assert hit.path == str(tmp_path / "new" / "red.png")
    assert hit.image().size == (8, 8)
    assert photos.add(tmp_path / "new").unchanged == 7


def test_paths_are_the_same_however_they_are_spelled(photos, folder, tmp_path):
    (tmp_path / "q").mkdir()
    folder.rename(tmp_path / "q" / "pictures")
    photos.relocate(folder, tmp_path / "c" / ".." / "q" / "pictures")
    assert photos.add(tmp_path / "q" / "pictures").unchanged == 7
    assert len(photos.info()["sources"]) == 1
    assert photos.remove(tmp_path / "c" / ".." / "q" / "pictures" / "red.png") == 1


def test_a_source_is_not_relocated_onto_another(photos, folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    photos.add(other)
    with pytest.raises(SourceError, match="already"):
        photos.relocate(folder, other)


def test_overlapping_sources_give_each_file_once(photos, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    for source in (folder / "sub", tmp_path / "link", str(folder / "*.png")):
        photos.add(source)
    assert len(photos.search("cyan", k=100)) == 7


def test_a_picture_handed_over_is_removed_by_its_key(photos):
    photos.add([("square", Image.new("RGB", (5, 5), "tan"))])
    assert photos.remove("square") == 1


def test_ids_lead_to_paths(photos, folder):
    assert photos.paths()[photos.search("cyan")[0].id] == str(folder / "sub" / "cyan.png")
    assert len(photos.paths()) == 7


def test_a_collection_can_itself_be_moved(photos, tmp_path):
    photos.close()
    shutil.move(tmp_path / "c", tmp_path / "d")
    with cs.Collection(tmp_path / "d", model=ColourEncoder(), read_only=True) as moved:
        assert keys(moved.search("red"))[0] == "red.png"


def test_refresh_brings_every_source_up_to_date(photos, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "grey.png").write_bytes(png((9, 9, 9)))
    photos.add(other)
    (folder / "new.png").write_bytes(png((1, 2, 3)))
    shutil.rmtree(other)
    first, second = photos.refresh()
    assert (first.added, first.unchanged) == (1, 7)
    assert second.failed[0].path == str(other), "an absent source is told, and its pictures stay"
    assert len(photos) == 9


# ---------------------------------------------------------------- models


def test_another_model_is_refused_with_both_names(photos, tmp_path):
    with pytest.raises(ModelMismatchError, match=r"'colour'.*'other'"):
        cs.Collection(tmp_path / "c", model=OtherEncoder())


def test_other_weights_under_the_same_name_are_refused(photos, tmp_path):
    class Retrained(ColourEncoder):
        def fingerprint(self):
            return "colour-2"

    with cs.Collection(tmp_path / "c", model=Retrained()) as retrained:
        with pytest.raises(ModelMismatchError, match=r"colour-1.*colour-2"):
            retrained.search("red")
        with pytest.raises(ModelMismatchError):
            retrained.add([("x", png("red"))])


def test_a_second_model_stands_beside_the_first_until_flipped_and_dropped(photos, folder, tmp_path):
    (report,) = photos.add_model(OtherEncoder())
    assert (report.encoded, report.unchanged) == (7, 7)
    assert photos.models == ["colour", "other"]
    assert photos.model == "colour"
    assert keys(photos.search("red"))[0] == "red.png"
    with pytest.raises(CollectionError, match="in use"):
        photos.drop_model("colour")
    photos.use_model(OtherEncoder())
    assert photos.search("red")[0].score == pytest.approx(1, abs=1e-3)
    assert (photos.model, photos.search(embedding=[0, 1, 0])[0].key) == ("other", "red.png")
    photos.close()
    with cs.Collection(tmp_path / "c", model=OtherEncoder()) as other:
        assert other.model == "other"
        hit = other.search("red")[0]
        assert (hit.key, other.encoder.model_id) == ("red.png", "other")
        # its own vector, not the first model's: red is (1, 256, 1) there
        assert other.search(embedding=[0, 1, 0])[0].key == "red.png"
        other.drop_model("colour")
        assert other.models == ["other"]
        assert other.verify().ok
        assert len(list((tmp_path / "c" / "vectors").iterdir())) == 1


def test_a_second_model_filled_halfway_goes_on(photos, folder):
    class Dies(OtherEncoder):
        left = 1

        def encode_images(self, images):
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("device lost")
            return super().encode_images(images)

    for number in range(10):
        (folder / f"z{number}.png").write_bytes(png((number, 0, 0)))
    photos.add(folder)
    with pytest.raises(ModelError):
        photos.add_model(Dies())
    assert keys(photos.search("red"))[0] == "red.png"
    (report,) = photos.add_model(OtherEncoder())
    assert (report.encoded, report.unchanged) == (17 - 8, 17)


def test_an_encoder_of_ones_own_must_be_given_again(photos, tmp_path):
    photos.close()
    with cs.Collection(tmp_path / "c") as again, pytest.raises(ModelError, match="colour"):
        again.search("red")


def test_texts_asked_before_are_never_those_of_another_model(tmp_path, monkeypatch):
    """Even where two models say the same of their weights, and even with another dimension."""

    class Turned(OtherEncoder):
        def fingerprint(self):
            return "colour-1"

    class Wide(ColourEncoder):
        dim = 6

        def encode_images(self, images):
            return np.tile(super().encode_images(images), 2)

        def encode_texts(self, texts, *, role="query"):
            return np.tile(super().encode_texts(texts), 2)

    monkeypatch.setenv("CLIPSEARCH_QUERY_CACHE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number, encoder in enumerate((ColourEncoder(), Turned(), Wide(), ColourEncoder())):
        with cs.Collection(tmp_path / str(number), model=encoder) as photos:
            photos.add([("red", png("red")), ("green", png((0, 255, 0)))])
            found = photos.search("red")[0]
            assert (found.key, found.score) == ("red", pytest.approx(1, abs=1e-3))
    assert (tmp_path / "cache").exists()


def test_a_text_asked_before_needs_no_model(tmp_path, monkeypatch):
    class Once(ColourEncoder):
        asked = 0

        def encode_texts(self, texts, *, role="query"):
            self.asked += len(texts)
            return super().encode_texts(texts)

    monkeypatch.setenv("CLIPSEARCH_QUERY_CACHE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    encoder = Once()
    with cs.Collection(tmp_path / "c", model=encoder) as photos:
        photos.add([("red", png("red"))])
        first = photos.search_many(["red", "blue", "red"])
        assert encoder.asked == 2
        again = photos.search_many(["blue", "red"])
        assert encoder.asked == 2
    assert [results[0].score for results in again] == [first[1][0].score, first[0][0].score]


@pytest.mark.parametrize(
    "texts",
    [np.ones((1, 4)), np.full((1, 3), np.nan), np.zeros((1, 3)), None, np.ones((2, 3)), np.ones(3)],
    ids=["wide", "nan", "zero", "none", "extra row", "flat"],
)
def test_texts_without_usable_vectors_are_an_error_of_the_model(tmp_path, texts):
    class Odd(ColourEncoder):
        def encode_texts(self, queries, *, role="query"):
            return texts

    with cs.Collection(tmp_path / "c", model=Odd()) as photos:
        photos.add([("red", png("red"))])
        with pytest.raises(ModelError, match="colour"):
            photos.search("red")


@pytest.mark.parametrize("model", ["ViT-B-32/nope", "no-such-model", "", object(), 5, "hf-hub:a/b"])
def test_a_model_that_is_not_to_be_had_leaves_no_folder(tmp_path, model):
    with pytest.raises(ModelError):
        cs.Collection(tmp_path / "c", model=model)
    assert not (tmp_path / "c").exists()


def test_a_model_may_be_a_path(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        cs.Collection(tmp_path / "c", model=tmp_path / "nowhere")


def test_an_empty_source_does_not_decide_the_model(tmp_path):
    (tmp_path / "empty").mkdir()
    with cs.Collection(tmp_path / "c", model=ColourEncoder()) as photos, pytest.raises(SourceError):
        photos.add(tmp_path / "empty")
    with cs.Collection(tmp_path / "c", model=OtherEncoder()) as photos:
        assert photos.add([("red", png("red"))]).added == 1


def test_a_dimension_may_be_a_numpy_integer(tmp_path):
    class Numpy(ColourEncoder):
        dim = np.int64(3)

    for _ in range(2):
        with cs.Collection(tmp_path / "c", model=Numpy()) as photos:
            photos.add([("red", png("red"))])
            assert keys(photos.search("red")) == ["red"]


def test_an_object_that_is_no_encoder_is_refused_with_what_it_lacks(tmp_path):
    class Half:
        model_id, dim = "half", 3

        def encode_images(self, images): ...

    with pytest.raises(ModelError, match="encode_texts"):
        cs.Collection(tmp_path / "c", model=Half())


# ---------------------------------------------------------------- opening


def test_read_only_needs_a_collection_and_refuses_to_write(photos, tmp_path):
    with pytest.raises(CollectionError, match="no collection"):
        cs.Collection(tmp_path / "nothing", read_only=True)
    assert not (tmp_path / "nothing").exists()
    with cs.Collection(tmp_path / "c", model=ColourEncoder(), read_only=True) as reader:
        assert keys(reader.search("red"))[0] == "red.png"
        with pytest.raises(CollectionError, match="read-only"):
            reader.add([("x", png("red"))])


def test_a_folder_of_other_things_is_refused(folder):
    with pytest.raises(CollectionError, match="other things"):
        cs.Collection(folder)
    assert not (folder / "collection.json").exists()


def test_a_reader_sees_what_another_has_added_since(photos, tmp_path):
    with cs.Collection(tmp_path / "c", model=ColourEncoder(), read_only=True) as reader:
        assert len(reader.search("red", k=99)) == 7
        photos.add([("late", Image.new("RGB", (5, 5), "red"))])
        assert len(reader.search("red", k=99)) == 8


def test_info_says_what_is_there(photos, folder):
    info = photos.info()
    assert (info["pictures"], info["failed"], info["missing"], info["format"]) == (7, 0, 0, 1)
    assert info["sources"] == [{"kind": "folder", "root": str(folder)}]
    (model,) = info["models"]
    assert (model["model"], model["dim"], model["vectors"], model["bytes"]) == ("colour", 3, 7, 42)


def test_a_hit_whose_file_is_gone_says_so(photos, folder):
    hit = photos.search("red")[0]
    (folder / "red.png").unlink()
    with pytest.raises((SourceError, ImageError), match=r"no longer|gone"):
        hit.image()


# ---------------------------------------------------------------- real vectors


def test_real_clip_vectors_are_found_as_their_own_figures_say(shared_data, tmp_path):
    """100 photos x 5 captions of CLIP ViT-B/32: text to image R@1 .832, R@5 .990."""
    folder = shared_data / "vectors" / "flickr8k-100"
    images = np.load(folder / "image_embeddings.npy")[::5]
    texts = np.load(folder / "text_embeddings.npy")
    with open(folder / "metadata.csv", newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]

    class Recorded:
        """Knows its pictures by their colour and its texts by their place."""

        model_id, dim = "clip-vit-b-32-recorded", 512

        def encode_images(self, pictures):
            return images[[picture.getpixel((0, 0))[0] for picture in pictures]]

        def encode_texts(self, queries, *, role="query"):
            return texts[[int(query.split(":")[0]) for query in queries]]

    with cs.Collection(tmp_path / "c", model=Recorded()) as photos:
        photos.add((str(n), Image.new("RGB", (2, 2), (n, 0, 0))) for n in range(100))
        queries = [f"{n}: {caption}" for n, caption in enumerate(captions)]
        ranks = [
            keys(results).index(str(n // 5)) for n, results in enumerate(photos.search_many(queries, k=100))
        ]
    assert np.mean(np.array(ranks) < 1) == pytest.approx(0.832, abs=0.002)
    assert np.mean(np.array(ranks) < 5) == pytest.approx(0.990, abs=0.002)


def test_paths_with_a_home_and_names_that_are_not_utf8(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "Photos"
    folder.mkdir()
    with open(os.path.join(os.fsencode(folder), b"caf\xe9.png"), "wb") as file:
        file.write(png("red"))
    with cs.Collection("~/c", model=ColourEncoder()) as photos:
        assert photos.add("~/Photos").added == 1
        hit = photos.search("red")[0]
        assert os.fsencode(hit.path).endswith(b"caf\xe9.png")
        assert hit.image().size == (8, 8)
        assert photos.add("~/Photos").unchanged == 1


def test_a_collection_that_is_let_go_lets_its_files_go(tmp_path):
    photos = cs.Collection(tmp_path / "c", model=ColourEncoder())
    photos.add([("red", Image.new("RGB", (4, 4), "red"))], progress=False)
    photos.search("red")
    gone = weakref.ref(photos)
    gc.disable()
    try:
        del photos
        assert gone() is None, "something points back to it, and keeps deleted files on the disk"
    finally:
        gc.enable()


def test_a_source_is_removed_by_the_name_it_was_added_under(photos, folder, tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.add(folder, "in")
    (tmp_path / "t.csv").write_text(f"file_name\n{folder / 'red.png'}\n")
    pattern = str(tmp_path / "{0..1}.tar")
    photos.add(folder)
    before = photos.paths()
    for source in (pattern, tmp_path / "t.csv"):
        photos.add(source)
        assert photos.remove(source) > 0
        assert photos.failures() == [] and photos.paths() == before
