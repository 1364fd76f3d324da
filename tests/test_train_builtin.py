"""The code that trains the built-in model: each rule by hand, and the whole way on a handful of pictures."""

import importlib
import io
import json
import math
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clipsearch import load_encoder
from clipsearch.errors import LockedError

CODE = Path(__file__).parents[1] / "examples" / "train_builtin"
NAMES = ("training", "views", "prepare", "images", "distil", "text", "export", "soup", "evaluate")
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


def test_words_of_captions_are_those_that_tell_of_pictures(code, tmp_path):
    captions = ["A dog runs .", "the dog's ball"] * 13 + ["a cat", "a cat"]

    assert code.prepare.words_of(captions) == [
        "dog"
    ]  # in 26 captions; "ball" in 13, "s", "a" and "the" say nothing

    (tmp_path / "words.json").write_text('["ball", "dog"]')
    five = ["a dog", "a dog and a ball", "dogs", "a dog", "x"]
    (tmp_path / "captions-train.json").write_text(json.dumps([*five, "dog", "x", "x", "x", "x"]))
    dog, ball = 3 * math.log(2 / 2 + 1), 1 * math.log(2 / 1 + 1)
    expected = [[ball / (dog + ball), dog / (dog + ball)], [0, 1]]
    np.testing.assert_allclose(code.images.word_targets(tmp_path), expected, rtol=1e-6)


# Training


def test_a_whole_crop_is_the_picture_or_its_mirror_image(code, monkeypatch):
    import torch

    torch.manual_seed(0)
    monkeypatch.setattr(torch, "exp", torch.ones_like)  # of a random logarithm: the crop's ratio
    pictures = torch.rand(6, 3, 8, 8)

    views = code.views.cropped(pictures, 8, 1.0)

    turned = [bool(torch.allclose(v, p.flip(2), atol=1e-5)) for v, p in zip(views, pictures, strict=True)]
    straight = [bool(torch.allclose(v, p, atol=1e-5)) for v, p in zip(views, pictures, strict=True)]
    assert [a != b for a, b in zip(turned, straight, strict=True)] == [True] * 6
    assert any(turned) and any(straight)


def test_colours_stay_where_nothing_is_asked_and_mean_the_same_on_average(code):
    import torch

    torch.manual_seed(0)
    pictures = torch.rand(64, 3, 4, 4) * 100 + 70

    assert torch.allclose(code.views.recoloured(pictures.clone(), 0.0), pictures, atol=1e-4)
    changed = code.views.recoloured(pictures.clone(), 1.0)
    assert (changed - pictures).abs().mean() > 5
    assert changed.mean() == pytest.approx(float(pictures.mean()), rel=0.06)
    assert changed.min() >= 0 and changed.max() <= 255


def test_the_loss_is_what_the_formulas_give(code):
    import torch

    draw = np.random.default_rng(0)

    def unit(*shape):
        return torch.nn.functional.normalize(torch.from_numpy(draw.normal(size=shape)), dim=-1)

    images, labels, captions = unit(5, 8), unit(4, 8), unit(3, 8)  # 3 class pictures and 2 with captions
    y = torch.tensor([0, 2, 1])
    alike = torch.zeros(
        3, 6, dtype=torch.bool
    )  # of 3 classes and 6 captioned pictures; the 4th label is a noun
    alike[0, 5] = True
    bank, near = torch.tensor([5, 1, 3]), torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    soft, scales = torch.full((3, 4), 0.25), torch.tensor([10.0, 20.0])
    batch = {"y": y, "bank": bank, "near": near, "soft": soft}
    teacher = draw.normal(size=(9, 5))  # of the 3 captions and the 6 pictures
    batch["captions"], pictured = torch.from_numpy(teacher[:3]), torch.from_numpy(teacher[3:])
    memory = code.images.Memory(2, 8, torch.device("cpu"))
    memory.rows, memory.ids = unit(2, 8), torch.tensor([5, -1])  # the second is no picture yet
    before = memory.rows.numpy()
    told, words = torch.tensor(draw.dirichlet([1, 1, 1, 1], 6)), unit(4, 8)  # of the 6 pictures, 4 words
    data = SimpleNamespace(alike=alike, pictured=pictured, told=told)
    texts = {"labels": labels, "captions": captions, "words": words}

    found = code.images.loss(images, texts, scales, batch, data, memory)

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
        kept = [v for n, v in enumerate(to_t) if not alike[n, bank[i]]]
        caption += chosen([*to_c, *kept], to_c[i]) / 2
    assert float(found["caption"]) == pytest.approx(caption)

    worded = 0.0
    for i in range(2):
        logits = 20 * z[3 + i] @ words.numpy().T
        worded += sum(float(told[bank[i]][j]) * chosen(logits, logits[j]) for j in range(4)) / 2
    assert float(found["words"]) == pytest.approx(worded)

    pool, picture = [z[3], z[4], before[0]], 0.0  # of the pictures 5, 1 and 5
    for i in range(2):
        near_it = np.exp([teacher[i] @ teacher[3 + place] / code.images.SOFT for place in (5, 1, 5)])
        logits = [20 * c[i] @ row for row in pool]
        picture += (
            sum(w * chosen(logits, v) for w, v in zip(near_it / near_it.sum(), logits, strict=True)) / 2
        )
    assert float(found["picture"]) == pytest.approx(picture)
    assert memory.ids.tolist() == [5, 1]

    softly = np.zeros(2)
    for i in range(2):
        softly[i] = sum(
            float(near[i][j]) * chosen(20 * z[3 + i] @ c.T, 20 * z[3 + i] @ c[j]) for j in range(3)
        )
    classes = [0.25 * sum(chosen(10 * z[i] @ t.T, 10 * z[i] @ t[j]) for j in range(4)) for i in range(3)]
    whole = hard + 0.2 * np.mean(classes) + 0.5 * caption + 0.3 * (softly.mean() + worded)
    whole += 0.5 * float(found["picture"])
    assert float(found["all"]) == pytest.approx(whole)


def test_a_distilled_tower_is_drawn_to_the_wanted_cosines_and_to_the_class(code):
    import torch

    found, wanted = torch.tensor([[0.5, 0.1, 0.0], [0.2, 0.3, 0.1]]), torch.tensor([[0.4, 0.1, 0.1]] * 2)

    losses = code.distil.loss(found, wanted, torch.tensor([1]), classes=2, scale=10.0)

    def shares(row, sharp):
        weights = [math.exp(sharp * value) for value in row]
        return [weight / sum(weights) for weight in weights]

    far = [
        sum(p * math.log(p / q) for p, q in zip(shares(want, 20), shares(have, 20), strict=True))
        for want, have in zip(wanted.tolist(), found.tolist(), strict=True)
    ]
    assert float(losses["texts"]) == pytest.approx(sum(far) / 2, rel=1e-4)
    assert float(losses["cosines"]) == pytest.approx((0.01 + 0 + 0.01 + 0.04 + 0.04 + 0) / 6, rel=1e-4)
    assert float(losses["class"]) == pytest.approx(-math.log(shares([0.5, 0.1], 10)[1]), rel=1e-4)
    assert float(losses["all"]) == pytest.approx(
        float(losses["texts"]) + 200 * float(losses["cosines"]) + 0.15 * float(losses["class"]), rel=1e-5
    )
    assert float(code.distil.loss(wanted, wanted, torch.tensor([1]), 2, 10.0)["texts"]) == pytest.approx(
        0, abs=1e-6
    )


def test_the_schedule_warms_up_and_ends_near_nothing(code):
    assert code.training.cosine(0, 50, warm=200) == pytest.approx(0.25 * 1.003)
    assert code.training.cosine(0.5, 1000, warm=200) == pytest.approx(0.503)
    assert code.training.cosine(1, 1000, warm=200) == pytest.approx(0.003)


def test_trimming_keeps_the_end_also_behind_the_sign_whose_id_is_padding(code, tmp_path):
    import torch

    torch.manual_seed(0)
    ids = code.prepare.tokenizer(tmp_path)(["no !- at all", "a dog", "wow !!!"])
    assert 0 in ids[0, : int(ids[0].argmax())]
    tower = code.text.text_tower().eval()
    with torch.no_grad():
        short = tower(code.text.trimmed(tower, ids))
        tower.attn_mask = tower.build_causal_mask()
        assert torch.allclose(short, tower(ids), atol=1e-5)


def test_a_tower_taken_over_speaks_the_new_space_at_once(code, tmp_path):
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    old, new = code.text.text_tower(), code.text.text_tower()
    save_file(old.state_dict(), tmp_path / "open_clip_model.safetensors")
    words = code.prepare.tokenizer(tmp_path)([f"a {n} {n * n} dog" for n in range(600)])
    with torch.no_grad():
        turned = torch.linalg.qr(torch.randn(256, 256))[0]
        vectors = old(code.text.trimmed(old, words)) @ turned
        code.text.take_over(new, tmp_path, words[:500], vectors[:500])
        unseen = new(code.text.trimmed(new, words[500:]))

    assert torch.nn.functional.cosine_similarity(unseen, vectors[500:]).min() > 0.999


def state_of(code, torch):
    """A small model that has made one step, with its optimizer and average."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    average = code.training.Average(model, 0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    average.update(model, 1)
    return {"model": model, "optimizer": optimizer, "average": average}


def test_a_run_goes_on_with_exactly_what_it_had(code, tmp_path):
    import torch

    torch.manual_seed(1)
    before, path = state_of(code, torch), tmp_path / "images.pt"
    code.training.checkpoint(path, 7, {"steps": 9, "batch": 4}, **before)

    torch.manual_seed(2)
    after = state_of(code, torch)
    assert code.training.resume(path, {"steps": 20, "batch": 4}, **after) == 7

    for name in ("model", "average"):
        for key, value in before[name].state_dict().items():
            assert torch.equal(after[name].state_dict()[key], value)
    for one, other in zip(
        *(s["optimizer"].state_dict()["state"].values() for s in (before, after)), strict=True
    ):
        assert all(torch.equal(one[key], other[key]) for key in ("step", "exp_avg", "exp_avg_sq"))


def test_a_run_does_not_go_on_with_another_ones_work(code, tmp_path):
    import torch

    state, path = state_of(code, torch), tmp_path / "images.pt"
    assert code.training.resume(path, {"steps": 9, "batch": 4}, **state) == 0
    code.training.checkpoint(path, 7, {"steps": 9, "batch": 4}, **state)

    with pytest.raises(SystemExit, match="of another run, with another batch"):
        code.training.resume(path, {"steps": 9, "batch": 8}, **state)
    with pytest.raises(SystemExit, match="at step 7 of 9: start what writes it again"):
        code.training.finished(path)
    with pytest.raises(SystemExit, match=r"there is no .*text\.pt yet"):
        code.training.finished(tmp_path / "text.pt")


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(code, tmp_path, monkeypatch):
    import torch

    state, path = state_of(code, torch), tmp_path / "images.pt"
    code.training.checkpoint(path, 7, {}, **state)

    def full(states, file):
        Path(file).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        code.training.checkpoint(path, 8, {}, **state)
    assert code.training.resume(path, {}, **state) == 7


def test_the_average_forgets_slowly(code):
    import torch

    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = code.training.Average(model, keep=0.9)
    model.weight.data.fill_(2.0)
    average.update(model, step=1000)
    assert float(average.state["weight"]) == pytest.approx(1.1)


# Evaluation


def test_a_tie_is_no_hit_and_right_answers_are_not_in_each_others_way(code):
    scores = np.array([[0.9, 0.1, 0.9], [0.3, 0.2, 0.1], [0.5, 0.5, 0.5]])

    assert code.evaluate.before(scores, np.array([0, 1, 2])).tolist() == [1, 1, 2]
    assert code.evaluate.before(scores, np.array([[0, 2], [1, 2], [0, 1]])).tolist() == [
        [0, 0],
        [1, 1],
        [1, 1],
    ]


# The whole way


@pytest.fixture
def small(code, monkeypatch):
    """The same recipe, a few pictures a step."""
    batch = {"tiny-imagenet": 4, "flickr8k-train": 4, "caltech101": 2, "clothing": 2}
    for module, values in {
        code.images: {"BATCH": batch, "SAVE_EVERY": 1, "REPORT_EVERY": 2, "SIZES": ((0.0, 32), (0.5, 48))},
        code.distil: {"BATCH": batch, "SAVE_EVERY": 1, "REPORT_EVERY": 2, "SIZES": ((0.0, 48),)},
        code.text: {
            "BATCH": 8,
            "SAVE_EVERY": 1,
            "REPORT_EVERY": 5,
            "UNSEEN": 2,
            "CAPTIONED": 3,
            "LABELLED": 4,
        },
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

    held = "from clipsearch.files import write_lock; import sys; from pathlib import Path\n"
    held += "with write_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", held, str(work / "images.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match="is being written by process"):
            code.images.train(work, samples=4 * 12)
        other.communicate()
    for seed, name in enumerate(("first", "second")):
        code.images.train(work, samples=4 * 12, seed=seed)
        (work / "images.pt").rename(work / f"{name}.pt")
    with pytest.raises(SystemExit, match="another name first"):
        code.distil.distil(work, ["images", "second"], samples=3 * 12)
    code.distil.distil(work, ["first", "second"], samples=3 * 12)
    with pytest.raises(SystemExit, match=r"there is no .*text\.pt"):
        code.export.export(work, tmp_path / "model")
    code.text.train(work, count_of_texts=5 * 8)
    told = capsys.readouterr().out
    for line in ("4/4  48 px", "2 teachers: step 0 of 3", "5/5", "unseen WordNet texts: cosine"):
        assert line in told
    code.export.export(work, tmp_path / "model")
    trained = code.images.trained(work, torch.device("cpu")), code.text.text_tower()
    trained[1].load_state_dict(torch.load(work / "text.pt", weights_only=True)["average"])

    (work / "first.pt").rename(work / "images.pt")
    code.images.train(work, samples=6 * 12)  # goes on, and the text tower's space is another then
    assert "step 4 of 6" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"text\.pt was trained toward other pictures' vectors"):
        code.export.export(work, tmp_path / "other")
    with pytest.raises(SystemExit, match="of another run, with another project"):
        code.text.train(work, count_of_texts=6 * 8)

    # 1. both towers, loaded by clipsearch, give what the trained ones give
    student, tower = trained
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


def test_a_soup_has_the_means_of_the_weights(code, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    scalars = {"one": 1.0, "two": 3.0}
    for name, value in scalars.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(name)
        weights = {"w": torch.full((2, 3), value, dtype=torch.float16), "steps": torch.tensor(int(value))}
        save_file(weights, tmp_path / name / code.soup.WEIGHTS)

    code.soup.soup(tmp_path / "one", tmp_path / "two", tmp_path / "both", 0.25)

    found = load_file(tmp_path / "both" / code.soup.WEIGHTS)
    assert found["w"].tolist() == [[1.5] * 3] * 2 and found["w"].dtype == torch.float16
    assert found["steps"] == 1
    assert (tmp_path / "both" / "tokenizer.json").read_text() == "one"

    save_file({"w": torch.zeros(2, 4)}, tmp_path / "two" / code.soup.WEIGHTS)
    with pytest.raises(SystemExit, match="models of two kinds"):
        code.soup.soup(tmp_path / "one", tmp_path / "two", tmp_path / "neither")
