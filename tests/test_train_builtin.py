"""The code that trains the built-in model: each rule by hand, and the whole way on a handful of pictures."""

import importlib
import io
import json
import math
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clipsearch import load_encoder

CODE = Path(__file__).parents[1] / "examples" / "train_builtin"
NAMES = ("training", "views", "prepare", "images", "text", "export", "evaluate")
DIM = 264  # of the teacher here
NOUNS = """  1 This software and database is being provided to you, the LICENSEE
00000001 05 n 02 domestic_dog 0 dog 0 001 @ 00000003 n 0000 | a furry pet; "the dog barked all night"
00000002 06 n 01 accordion 0 000 | a portable box-shaped instrument; has keys
00000003 23 n 01 idea 0 000 | the content of cognition
"""


@pytest.fixture(scope="module")
def code():
    """The scripts as modules, found as when one of them is started."""
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(CODE))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
        for name in NAMES:
            sys.modules.pop(name, None)


# Preparation


def test_a_tenth_of_each_class_is_held_out_always_the_same(code):
    classes = ["cat"] * 30 + ["dog"] * 50 + ["ant"] * 4

    held = np.array(code.prepare.hold_out(classes, 0.1))

    assert [held[:30].sum(), held[30:80].sum(), held[80:].sum()] == [3, 5, 0]
    assert held.tolist() == code.prepare.hold_out(classes, 0.1)
    assert sum(code.prepare.hold_out(classes, 2)) == 6


def test_wordnet_is_read_as_its_manual_says(code, tmp_path):
    (tmp_path / "data.noun").write_text(NOUNS)

    found = code.prepare.read_wordnet(tmp_path / "data.noun")

    assert found == {
        "00000001": (["domestic dog", "dog"], "a furry pet", 5),
        "00000002": (["accordion"], "a portable box-shaped instrument; has keys", 6),
        "00000003": (["idea"], "the content of cognition", 23),
    }


def test_a_class_has_its_names_in_templates_and_its_definition(code):
    texts = code.prepare.variants(["dog", "domestic dog", "dog"], "a furry pet; barks")

    assert len(texts) == code.prepare.VARIANTS
    assert texts[:2] == ["a photo of a dog", "dog"]
    assert any("domestic dog" in text for text in texts)
    assert texts[-3:] == ["dog, a furry pet", "a furry pet", "a photo of a dog, a furry pet"]


def test_every_class_of_the_two_sets_is_told_in_words():
    told = json.loads((CODE / "classes.json").read_text())

    assert {group: len(classes) for group, classes in told.items()} == {"caltech101": 102, "clothing": 10}
    for about in [about for classes in told.values() for about in classes.values()]:
        assert about["is"] and len(set(about["names"])) == len(about["names"]) >= 2


# Training


def test_a_whole_crop_is_the_picture_or_its_mirror_image(code):
    import torch

    pictures = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).view(2, 3, 8, 8)
    for view, picture in zip(code.views.cropped(pictures, 8, 1.0), pictures, strict=True):
        # crops keep the area, not the ratio, so only the ratio's share is lost at the sides
        errors = [float((view - wanted).abs().mean()) for wanted in (picture, picture.flip(2))]
        assert min(errors) < 2.0 < max(errors)


def test_mixed_pictures_keep_the_share_that_is_said(code):
    import torch

    torch.manual_seed(0)
    pictures = torch.stack([torch.full((3, 20, 20), float(n)) for n in range(4)])
    other = torch.tensor([1, 2, 3, 0])

    mixed, share = code.views.cut_mix(pictures, other)

    assert 0 < share < 1
    for n in range(4):
        assert (mixed[n] == n).float().mean() == pytest.approx(share)
        assert (mixed[n] == other[n]).float().mean() == pytest.approx(1 - share)


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_the_loss_is_what_the_formulas_give(code, share):
    import torch

    draw = np.random.default_rng(0)

    def unit(*shape):
        return torch.nn.functional.normalize(torch.from_numpy(draw.normal(size=shape)), dim=-1)

    images, labels, captions = unit(5, 8), unit(4, 8), unit(3, 8)  # 3 class pictures and 2 with captions
    y, other = torch.tensor([0, 2, 1]), torch.tensor([1, 0])
    alike = torch.zeros(
        3, 6, dtype=torch.bool
    )  # of 3 classes and 6 captioned pictures; the 4th label is a noun
    alike[0, 5] = True
    bank, near = torch.tensor([5, 1, 3]), torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    soft, scales = torch.full((3, 4), 0.25), torch.tensor([10.0, 20.0])
    batch = {"y": y, "other": other, "share": torch.tensor(share), "bank": bank, "near": near, "soft": soft}
    memory = code.images.Memory(2, 8, torch.device("cpu"))
    before = unit(2, 8)
    memory.rows, memory.ids = before, torch.tensor([5, 0])  # the first is the picture of the first caption

    found = code.images.loss(images, labels, captions, scales, batch, SimpleNamespace(alike=alike), memory)

    def chosen(logits, right):  # cross-entropy of one row
        return math.log(sum(math.exp(v) for v in logits)) - right

    z, t, c = images.numpy(), labels.numpy(), captions.numpy()
    hard = 0.0
    for i in range(3):
        to_t, to_c = 10 * z[i] @ t[:3].T, 10 * z[i] @ c.T
        kept = [v for v, place in zip(to_c, bank, strict=True) if not alike[y[i], place]]
        hard += chosen([*to_t, *kept], to_t[y[i]]) / 3
    assert float(found["class"]) == pytest.approx(hard)

    caption = 0.0
    for i in range(2):
        to_c, to_t = 20 * z[3 + i] @ c.T, 20 * z[3 + i] @ t[:3].T
        kept = [v for n, v in enumerate(to_t) if not (alike[n, bank[i]] | alike[n, bank[other[i]]])]
        each = [chosen([*to_c, *kept], to_c[j]) for j in (i, other[i])]
        caption += (share * each[0] + (1 - share) * each[1]) / 2
    assert float(found["caption"]) == pytest.approx(caption)

    pool = [*z[3:], *before.numpy()]
    first = [20 * c[0] @ pool[k] for k in (0, 1, 3)]  # the remembered picture of the same caption is left out
    second = [20 * c[1] @ row for row in pool]
    picture = (chosen(first, first[0]) + chosen(second, second[1])) / 2
    assert float(found["picture"]) == pytest.approx(picture if share == 1 else 0)
    assert memory.ids.tolist() == ([5, 1] if share == 1 else [5, 0])

    softly = np.zeros(2)
    for i in range(2):
        target = share * near[i] + (1 - share) * near[other[i]]
        softly[i] = sum(
            float(target[j]) * chosen(20 * z[3 + i] @ c.T, 20 * z[3 + i] @ c[j]) for j in range(3)
        )
    classes = [0.25 * sum(chosen(10 * z[i] @ t.T, 10 * z[i] @ t[j]) for j in range(4)) for i in range(3)]
    whole = hard + 0.3 * (np.mean(classes) + caption + softly.mean() + float(found["picture"]))
    assert float(found["all"]) == pytest.approx(whole)


def test_the_schedule_warms_up_and_ends_near_nothing(code):
    assert code.training.cosine(0, 50, warm=200) == pytest.approx(0.25 * 1.003)
    assert code.training.cosine(0.5, 1000, warm=200) == pytest.approx(0.503)
    assert code.training.cosine(1, 1000, warm=200) == pytest.approx(0.003)


def test_the_average_forgets_slowly(code):
    import torch

    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = code.training.Average(model, keep=0.9)
    model.weight.data.fill_(2.0)
    average.update(model, step=1000)
    assert float(average.state["weight"]) == pytest.approx(1.1)


# The whole way


@pytest.fixture
def small(code, monkeypatch):
    """The same recipe, a few pictures a step."""
    batch = {"tiny-imagenet": 4, "flickr8k-train": 4, "caltech101": 2, "clothing": 2}
    for module, values in {
        code.images: {"BATCH": batch, "SAVE_EVERY": 1, "SIZES": ((0.0, 32), (0.5, 48))},
        code.text: {"BATCH": 8, "SAVE_EVERY": 1, "UNSEEN": 2, "CAPTIONED": 3, "LABELLED": 4},
    }.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


@pytest.fixture
def photos(tmp_path):
    """Tar files laid out as the real ones, of random pictures."""
    draw = np.random.default_rng(0)

    def jpeg(side):
        data = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (side, side + 9, 3), dtype=np.uint8)).save(data, "JPEG")
        return data.getvalue()

    captions = "\n".join(f"a furry dog number {n} runs ." for n in range(5)).encode()
    flickr = {f"{n}.jpg": jpeg(128) for n in range(6)} | {f"{n}.txt": captions for n in range(6)}
    tiny = {f"{w}/{w}_{n}.JPEG": jpeg(64) for w in ("n00000001", "n00000002") for n in range(7)}
    sets = {
        "flickr8k-train": flickr,
        "flickr8k-dev": flickr,
        "caltech101-train": {
            f"{c}/image_{n}.jpg": jpeg(128) for c in ("accordion", "ant") for n in range(10)
        },
        "clothing-train": {
            f"{p}/dress/{n}.jpg": jpeg(128) for p in ("train", "validation") for n in range(3)
        },
        "tiny-imagenet-train": tiny
        | {"classes.tsv": b"n00000001\tdog, domestic dog\nn00000002\taccordion\n"},
    }
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, members in sets.items():
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for path, data in members.items():
                about = tarfile.TarInfo(path)
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
    return folder


@pytest.fixture
def teacher():
    """A sentence encoder with random word vectors."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel()
    return SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=DIM)], device="cpu")


def test_from_photos_to_a_model_that_clipsearch_loads(
    code, small, photos, teacher, tmp_path, capsys, monkeypatch
):
    import torch

    work, wordnet = tmp_path / "work", tmp_path / "wordnet"
    work.mkdir()
    wordnet.mkdir()
    for name in ("noun", "verb", "adj"):
        (wordnet / f"data.{name}").write_text(NOUNS)
    code.prepare.pictures(photos, work)
    code.prepare.texts(wordnet, work, teacher)
    assert np.load(work / "flickr8k-train.npy").shape == (6, 128, 128, 3)
    assert np.load(work / "prompts.npy").shape == (code.prepare.VARIANTS * (2 + 102 + 10), DIM)

    code.images.train(work, samples=2 * 12)  # stopped after two steps of four
    assert torch.load(work / "images.pt", weights_only=True)["step"] == 2
    first = torch.load(work / "images.pt", weights_only=True)["student"]["project.weight"]
    code.images.train(work, samples=4 * 12)
    states = torch.load(work / "images.pt", weights_only=True)
    assert states["step"] == 4
    assert not torch.equal(states["student"]["project.weight"], first)
    code.text.train(work, count_of_texts=5 * 8)
    assert torch.load(work / "text.pt", weights_only=True)["step"] == 5
    assert "unseen WordNet texts: cosine" in capsys.readouterr().out
    code.export.main(work, tmp_path / "model")

    # 1. both towers, loaded by clipsearch, give what the trained ones give
    student = code.images.trained(work, torch.device("cpu"))
    tower = code.text.text_tower()
    tower.load_state_dict(torch.load(work / "text.pt", weights_only=True)["average"])
    encoder = load_encoder(tmp_path / "model", device="cpu", precision="fp32")
    picture = Image.fromarray(np.load(work / "clothing.npy")[0]).resize((48, 48))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.normalize(student.visual(code.views.normalized(pixels)), dim=-1)
    # the weights are in half precision
    np.testing.assert_allclose(encoder.encode_images([picture]), expected.detach().numpy(), atol=2e-3)
    ids = code.prepare.tokenizer(work)(["a furry dog"])
    expected = torch.nn.functional.normalize(tower.eval()(ids), dim=-1)
    np.testing.assert_allclose(encoder.encode_texts(["a furry dog"]), expected.detach().numpy(), atol=2e-3)

    # 2. and the evaluation tells of them all
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(photos), "--model", str(tmp_path / "model")])
    code.evaluate.main()
    told = capsys.readouterr().out
    expected = ["text to image R@10", "image to text R@10", "Caltech-101, held out (2)", "mean rank"]
    for what in [*expected, "clothing, validation (3)", "tiny-imagenet, held out (10), top-5"]:
        assert what in told
