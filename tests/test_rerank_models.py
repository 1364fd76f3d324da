"""Trained rerankers and matching heads against the models' own forwards, on tiny models."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from clipsearch.captioners import LocalVLM
from clipsearch.errors import ModelError
from clipsearch.rerank.itm import ItmReranker
from clipsearch.rerank.pairs import PairReranker, cross_encoder
from clipsearch.types import Candidate

from . import tiny_vlms

torch.set_num_threads(1)

SIZES = [(40, 40), (64, 20), (30, 90), (33, 17), (12, 60)]
QUERIES = ["a red square", "Does this picture show a dog and a cat in the sky?", "car"]
HEADS = {"blip_itm": "BlipForImageTextRetrieval", "blip2_itm": "Blip2ForImageTextRetrieval"}
CPU = {"device": "cpu", "precision": "fp32"}
ROLES = (  # what a trained reranker's template does with a query and a document
    "{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{%- for part in m['content'] %}{%- if part['type'] == 'image' %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{%- else %}{{ part['text'] }}{%- endif %}"
    "{%- endfor %}"
    "{{ '<|im_end|>\n' }}{%- endfor %}{{ '<|im_start|>assistant\n' }}"
)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]


def candidates(images, looked=None):
    def opened(n):
        if looked is not None:
            looked.append(n)
        return images[n]

    return [Candidate(n, bytes([n]) * 32, None, None, lambda n=n: opened(n)) for n in range(len(images))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("rerankers")
    kinds = ["llava", "qwen2_vl", "qwen3_vl", "smolvlm", *HEADS]
    return {kind: tiny_vlms.make(kind, root / kind) for kind in kinds}


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    """A directory as a trained Qwen3-VL-Reranker is published."""
    folder = tmp_path_factory.mktemp("trained")
    model = cross_encoder(folders["qwen3_vl"], **CPU)
    model[0].processor.chat_template = ROLES
    model.save_pretrained(str(folder))
    return folder


def yes_minus_no(folder, images, query):
    """The difference of two logits of the next token, spelled out, a picture at a time."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    yes, no = processor.tokenizer.convert_tokens_to_ids(["yes", "no"])
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    text = f"<|im_start|>query\n{query}<|im_end|>\n<|im_start|>document\n{picture}<|im_end|>\n"
    rows = []
    for image in images:
        inputs = processor(images=[image], text=[f"{text}<|im_start|>assistant\n"], return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1].double()
        rows.append(float(logits[yes] - logits[no]))
    return rows


def test_a_trained_reranker_gives_the_log_odds_of_its_own_forward(trained, images):
    reranker = PairReranker(trained, **CPU)

    for query in QUERIES:
        expected = yes_minus_no(trained, images, query)
        np.testing.assert_allclose(reranker.score(query, candidates(images)), expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_a_query_that_names_a_file_is_still_a_text(trained, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images[0].save("dog.jpg")

    scores = PairReranker(trained, **CPU).score("dog.jpg", candidates(images))

    np.testing.assert_allclose(scores, yes_minus_no(trained, images, "dog.jpg"), atol=1e-5)


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "qwen3_vl", "smolvlm"])
def test_any_chat_model_is_a_cross_encoder_with_the_odds_of_the_model_itself(folders, images, kind):
    question = "Does this picture show a red square? Answer yes or no."
    model = cross_encoder(folders[kind], **CPU)
    ask = {"type": "text", "text": question}
    chats = [[{"role": "user", "content": [{"type": "image", "image": image}, ask]}] for image in images]

    scores = model.predict(chats, activation_fn=torch.nn.Identity(), show_progress_bar=False)

    ours = LocalVLM(folders[kind], **CPU).log_odds(images, question, yes=["yes"], no=["no"])[0]
    np.testing.assert_allclose(scores, ours, atol=1e-5)


def test_a_word_of_several_tokens_makes_no_cross_encoder(folders):
    with pytest.raises(ModelError, match=r"'nevermore' is . tokens of"):
        cross_encoder(folders["llava"], no="nevermore", **CPU)


@pytest.mark.parametrize("kind", HEADS)
def test_a_matching_head_gives_the_log_odds_of_the_model_s_own_forward(folders, images, kind):
    import transformers

    model = getattr(transformers, HEADS[kind]).from_pretrained(folders[kind], dtype=torch.float32).eval()
    processor = transformers.AutoProcessor.from_pretrained(folders[kind])
    reranker = ItmReranker(folders[kind], batch_size=2, **CPU)
    options = {"use_image_text_matching_head": True} if kind == "blip2_itm" else {}

    for query in QUERIES:
        expected = []
        for image in images:
            inputs = processor(images=image, text=query, return_tensors="pt")
            with torch.no_grad():
                logits = model(**inputs, **options)[0].double()  # (1, 2): no match, match
            expected.append(float(torch.log_softmax(logits, -1)[0] @ torch.tensor([-1.0, 1.0]).double()))
        np.testing.assert_allclose(reranker.score(query, candidates(images)), expected, atol=1e-5)
    assert np.ptp(expected) > 0.01


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_that_always_matches_scores_high(folders, images, tmp_path, kind):
    from safetensors.torch import load_file, save_file

    shutil.copytree(folders[kind], tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    weights["itm_head.weight"].zero_()
    weights["itm_head.bias"] = torch.tensor([-2.0, 3.0])
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})

    scores = ItmReranker(tmp_path / "m", **CPU).score("a dog", candidates(images))

    np.testing.assert_allclose(scores, [5.0] * 5, atol=1e-6)


def test_a_picture_is_looked_at_once_however_many_queries_come(folders, images):
    reranker = ItmReranker(folders["blip_itm"], batch_size=2, **CPU)
    looked = []
    first = reranker.score(QUERIES[0], candidates(images, looked))

    reranker.score(QUERIES[1], candidates(images, looked))
    again = reranker.score(QUERIES[0], candidates(images, looked)[::-1])

    assert looked == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(again[::-1], first, atol=1e-6)


def test_of_the_pictures_that_were_seen_the_oldest_are_forgotten(folders, images, monkeypatch):
    monkeypatch.setattr("clipsearch.rerank.itm._KEPT", 3)
    reranker = ItmReranker(folders["blip_itm"], batch_size=5, **CPU)
    looked = []
    reranker.score(QUERIES[0], candidates(images, looked))

    reranker.score(QUERIES[0], candidates(images, looked)[2:])
    reranker.score(QUERIES[0], candidates(images, looked)[:1])

    assert looked == [0, 1, 2, 3, 4, 0]


def test_a_text_longer_than_the_context_is_cut_off(folders, images):
    reranker = ItmReranker(folders["blip_itm"], **CPU)
    words = ["dog"] * 62  # 64 places, two of them for the ends

    cut = reranker.score(" ".join([*words, "cat"]), candidates(images))

    np.testing.assert_array_equal(cut, reranker.score(" ".join(words), candidates(images)))


def test_a_batch_that_does_not_fit_is_halved(folders, trained, images, monkeypatch):
    from sentence_transformers import CrossEncoder
    from transformers import BlipForImageTextRetrieval

    whole = CrossEncoder.predict
    expected = yes_minus_no(trained, images, "car")
    matched = ItmReranker(folders["blip_itm"], **CPU).score("car", candidates(images))

    def cramped(self, pairs, **options):
        if len(pairs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, pairs, **options)

    monkeypatch.setattr(CrossEncoder, "predict", cramped)
    np.testing.assert_allclose(
        PairReranker(trained, **CPU).score("car", candidates(images)), expected, atol=1e-5
    )

    reranker = ItmReranker(folders["blip_itm"], **CPU)
    model, _ = reranker._load()
    assert isinstance(model, BlipForImageTextRetrieval)

    def refuse(module, args, options):
        if len(options["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.text_encoder.register_forward_pre_hook(refuse, with_kwargs=True)
    np.testing.assert_allclose(reranker.score("car", candidates(images)), matched, atol=1e-6)


def test_no_candidates_are_no_scores_and_load_nothing(tmp_path):
    for kind in (PairReranker, ItmReranker):
        assert kind(tmp_path).score("a dog", []).shape == (0,)


def test_a_reranker_says_how_it_is_used_and_what_decides_its_scores(folders, trained):
    for reranker in (PairReranker(trained, **CPU), ItmReranker(folders["blip_itm"], **CPU)):
        assert (reranker.depth, reranker.budget, reranker.weight, reranker.batch_size) == (20, None, 0.3, 8)
        assert reranker.needs == "pixels"
        assert json.loads(json.dumps(reranker.spec())) == reranker.spec()
    other = PairReranker(
        trained, depth=5, budget=2.0, weight=0.7, batch_size=3, device="cpu", precision="bf16"
    )
    assert (other.depth, other.budget, other.weight, other.batch_size) == (5, 2.0, 0.7, 3)
    assert other.spec() != PairReranker(trained, **CPU).spec()


def test_a_model_that_was_not_trained_to_rerank_is_told_apart(folders, images):
    with pytest.raises(ModelError, match=r"not trained to rerank: .* no modules\.json.* YesNoReranker"):
        PairReranker(folders["qwen3_vl"], **CPU).score("a dog", candidates(images))
    with pytest.raises(ModelError, match="'qwen3_vl' and has no image-text matching head"):
        ItmReranker(folders["qwen3_vl"], **CPU).score("a dog", candidates(images))


def test_a_trained_reranker_of_texts_takes_no_pictures(images, tmp_path):
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification

    words = tiny_vlms.pieces()
    config = BertConfig(vocab_size=len(words), num_labels=1, max_position_embeddings=64, **tiny_vlms.TOWER)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    words.save_pretrained(tmp_path / "bert")
    CrossEncoder(str(tmp_path / "bert"), device="cpu").save_pretrained(str(tmp_path / "texts"))

    with pytest.raises(ModelError, match="takes no pictures, only text"):
        PairReranker(tmp_path / "texts", **CPU).score("a dog", candidates(images))


@pytest.mark.parametrize("lost", ["itm_head.weight", "vision_model.post_layernorm.bias"])
def test_a_lost_weight_of_a_matching_head_is_an_error(folders, images, tmp_path, lost):
    from safetensors.torch import load_file, save_file

    shutil.copytree(folders["blip_itm"], tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    del weights[lost]
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=f"is not whole: .* lacks 1 of its weights .{lost}"):
        ItmReranker(tmp_path / "m", **CPU).score("a dog", candidates(images))


def test_a_lost_weight_of_a_trained_reranker_is_an_error(trained, images, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(trained, tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    lost = next(name for name in weights if name.endswith("q_proj.weight"))
    del weights[lost]
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=r"is not whole: .* lacks 1 of its weights .*q_proj"):
        PairReranker(tmp_path / "m", **CPU).score("a dog", candidates(images))


def test_code_that_comes_with_a_trained_reranker_is_not_run(trained, images, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    mark = tmp_path / "was run"
    (tmp_path / "m" / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Score: pass")
    modules = json.loads((tmp_path / "m" / "modules.json").read_text())
    modules[-1]["type"] = "own.Score"
    (tmp_path / "m" / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(ModelError, match="cannot load"):
        PairReranker(tmp_path / "m", **CPU).score("a dog", candidates(images))
    assert not mark.exists()
