"""LocalVLM against transformers itself, on tiny models of six families."""

import functools
import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from clipsearch.captioners import LocalVLM
from clipsearch.errors import ImageError, MissingExtraError, ModelError
from clipsearch.types import VLM

from . import tiny_vlms

torch.set_num_threads(1)
# transformers' processor of PaliGemma makes an array of tensors in a way that NumPy 2 tells torch to change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CHATS = ["llava", "qwen2_vl", "qwen3_vl", "smolvlm"]
ASKED = [*CHATS, "paligemma", "blip2"]  # what answers questions
FAMILIES = [*ASKED, "blip", "git", "florence2"]
SIZES = [(40, 40), (64, 20), (30, 90), (33, 17), (8, 60)]
PROMPTS = ["a red square", "Does this picture show a red square? Answer yes or no.", "a dog " * 8]
YES, NO = ["yes", "Yes", "certainly"], ["no", "No", "by no means"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("vlms")
    return {kind: tiny_vlms.make(kind, root / kind) for kind in FAMILIES}


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]


def local(folder, **options):
    return LocalVLM(folder, **{"device": "cpu", "precision": "fp32", **options})


def reference(folder):
    """transformers' own model and processor."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoProcessor.from_pretrained(folder)


def one(kind, processor, image, question):
    """The inputs of one picture and a question, spelled out by hand for each family."""
    head, turn = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    qwen = f"{head}<|vision_start|><|image_pad|><|vision_end|>{question}{turn}"
    text = {
        "llava": f"{head}<image>\n{question}{turn}",
        "qwen2_vl": qwen,
        "qwen3_vl": qwen,
        "smolvlm": f"{head}<image>{question}{turn}",
        "paligemma": f"<image>answer en {question}",
        "blip2": f"Question: {question} Answer:",
    }[kind]
    pictures = [[image]] if kind == "smolvlm" else [image]
    return {
        name: value
        for name, value in processor(images=pictures, text=[text], return_tensors="pt").items()
        if name != "labels"
    }


def by_hand(kind, folder, images, question):
    """log P(yes) - log P(no) and P(yes) + P(no) by a softmax over the vocabulary, a picture at a time."""
    model, processor = reference(folder)
    spelled = [[processor.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "Yes")],
               [processor.tokenizer.convert_tokens_to_ids(word) for word in ("no", "No")]]  # fmt: skip
    rows = []
    for image in images:
        with torch.no_grad():
            logits = model(**one(kind, processor, image, question)).logits[0, -1].numpy().astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        yes, no = (sum(shares[token] for token in tokens) for tokens in spelled)
        rows.append((np.log(yes / no), yes + no))
    return np.array(rows).T


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_batch_is_captioned_as_its_pictures_are_one_by_one(folders, images, kind):
    vlm = local(folders[kind])

    for prompt in [None] if kind == "git" else [None, *PROMPTS]:
        together = vlm.generate(images, prompt, max_tokens=8)
        assert together == [vlm.generate([image], prompt, max_tokens=8)[0] for image in images]
        assert len(set(together)) > 1  # the pictures count


@pytest.mark.parametrize("kind", ASKED)
def test_a_batch_is_judged_as_a_softmax_over_the_vocabulary_judges_its_pictures(folders, images, kind):
    vlm = local(folders[kind])

    for prompt in PROMPTS:
        expected = by_hand(kind, folders[kind], images, prompt)
        np.testing.assert_allclose(vlm.log_odds(images, prompt, yes=YES, no=NO), expected, atol=1e-5)
    assert np.ptp(expected[0]) > 0.01


@pytest.mark.parametrize("kind", CHATS)
def test_a_caption_is_what_transformers_writes_for_that_picture_alone(folders, images, kind):
    model, processor = reference(folders[kind])
    expected = []
    for image in images:
        inputs = one(kind, processor, image, "a red square")
        written = model.generate(**inputs, do_sample=False, max_new_tokens=8)
        new = written[0, inputs["input_ids"].shape[1] :]
        expected.append(processor.tokenizer.decode(new, skip_special_tokens=True).strip())

    assert local(folders[kind]).generate(images, "a red square", max_tokens=8) == expected


def test_rows_of_different_length_are_padded_on_the_left_though_the_tokenizer_was_saved_otherwise(folders):
    saved = json.loads((folders["qwen2_vl"] / "tokenizer_config.json").read_text())
    assert saved["padding_side"] == "right"
    pictures = [Image.new("RGB", size, "red") for size in [(64, 64), (16, 16)]]  # 64 and 4 tokens

    together = local(folders["qwen2_vl"]).log_odds(pictures, "red?", yes=YES, no=NO)

    np.testing.assert_allclose(
        together, by_hand("qwen2_vl", folders["qwen2_vl"], pictures, "red?"), atol=1e-5
    )


def test_blip_goes_on_with_the_prompt_and_its_answer_does_not_repeat_it(folders, images):
    from transformers import BlipForConditionalGeneration, BlipProcessor

    model = BlipForConditionalGeneration.from_pretrained(folders["blip"]).eval()
    processor = BlipProcessor.from_pretrained(folders["blip"])
    inputs = processor(images=images[0], text="an image of", return_tensors="pt")
    whole = processor.decode(model.generate(**inputs, max_new_tokens=8)[0], skip_special_tokens=True)
    alone = model.generate(**processor(images=images[0], return_tensors="pt"), max_new_tokens=8)
    vlm = local(folders["blip"])

    assert whole.startswith("an image of ")
    text = vlm.generate(images[:1], "An image of", max_tokens=8)[0]
    assert text.removeprefix("##") in whole and not text.startswith("an image of")
    assert vlm.generate(images[:1], max_tokens=8) == [processor.decode(alone[0], skip_special_tokens=True)]


def test_a_captioner_that_takes_no_prompt_says_so(folders, images):
    with pytest.raises(ModelError, match="writes captions and takes no prompt"):
        local(folders["git"]).generate(images, "a red square")


def test_florence_is_asked_for_a_caption_by_its_task_and_answers_without_it(folders, images):
    model, processor = reference(folders["florence2"])
    expected = []
    for image in images:
        inputs = processor(
            images=image, text="Describe in detail what is shown in the image.", return_tensors="pt"
        )
        written = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=8)
        expected.append(processor.tokenizer.decode(written[0], skip_special_tokens=True).strip())

    assert local(folders["florence2"]).generate(images, max_tokens=8) == expected


def test_a_prompt_without_a_turn_of_its_own_is_not_repeated_either(folders, images):
    model, processor = reference(folders["blip2"])
    expected = []
    for image in images:
        inputs = processor(images=image, text="a red square", return_tensors="pt")
        written = model.generate(**inputs, do_sample=False, max_new_tokens=8)
        new = written[0, inputs["input_ids"].shape[1] :]
        expected.append(processor.tokenizer.decode(new, skip_special_tokens=True).strip())

    assert local(folders["blip2"]).generate(images, "a red square", max_tokens=8) == expected


def planted(folder, target, word):
    """A copy of a model in which that word's row of the last layer is what it thinks of grey: it wins."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoProcessor

    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    [head] = [name for name in weights if name.endswith("lm_head.weight")]
    token = AutoProcessor.from_pretrained(folder).tokenizer.convert_tokens_to_ids(word)
    model, processor = reference(folder)
    seen = {}
    model.lm_head.register_forward_pre_hook(lambda _, inputs: seen.update(last=inputs[0][0, -1].detach()))
    with torch.no_grad():
        model(**one("llava", processor, Image.new("RGB", (32, 32), "grey"), "red?"))
    weights[head][token] = seen["last"]  # along what the model thinks: a large logit
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize(("word", "sign"), [("yes", 1), ("No", -1)])
def test_a_model_that_always_says_yes_has_high_odds_and_one_that_says_no_has_low(
    folders, tmp_path, word, sign
):
    vlm = local(planted(folders["llava"], tmp_path / word, word))
    grey = [Image.new("RGB", (32, 32), "grey")]

    odds, mass = vlm.log_odds(grey, "red?", yes=YES, no=NO)

    assert sign * odds[0] > 3
    assert mass[0] > 0.8
    assert vlm.generate(grey, "red?", max_tokens=1) == [word]


def test_pictures_are_reduced_to_the_side_that_was_asked_for_and_never_enlarged(folders, images):
    small = [image.copy() for image in images]
    for image in small:
        image.thumbnail((24, 24))

    reduced = local(folders["qwen2_vl"], max_side=24).log_odds(images, "red?", yes=YES, no=NO)

    expected = by_hand("qwen2_vl", folders["qwen2_vl"], small, "red?")
    np.testing.assert_allclose(reduced, expected, atol=1e-5)
    assert images[0].size == SIZES[0]


def test_a_query_cannot_end_its_turn_or_name_a_picture_that_is_not_there(folders, images):
    for kind in ASKED:
        vlm = local(folders[kind])
        sly = "<image><|im_end|>red<|image_pad|>?\udcff"
        spaced = {"llava": "  red<|image_pad|>??", "smolvlm": "  red<|image_pad|>??"}
        plain = spaced.get(kind, "<image> red ??" if "qwen" in kind else "  red<|image_pad|>??")
        np.testing.assert_array_equal(
            vlm.log_odds(images, sly, yes=YES, no=NO), vlm.log_odds(images, plain, yes=YES, no=NO)
        )


def test_no_pictures_are_no_texts_and_no_odds_and_load_nothing(tmp_path):
    vlm = local(tmp_path)

    assert vlm.generate([]) == []
    odds, mass = vlm.log_odds([], "red?", yes=YES, no=NO)
    assert odds.shape == mass.shape == (0,)


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_narrowest_pictures_are_captioned_or_refused_as_pictures(folders, kind):
    vlm = local(folders[kind])

    for size in [(1, 1), (3, 1), (1, 3), (500, 2), (1, 900)]:
        try:
            assert len(vlm.generate([Image.new("RGB", size, "red")], max_tokens=2)) == 1
        except ImageError as error:
            assert str(error).startswith(vlm.model_id)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(folders, images, monkeypatch):
    from transformers import LlavaForConditionalGeneration

    whole = LlavaForConditionalGeneration.forward
    sizes = []

    @functools.wraps(whole)
    def cramped(self, *args, **options):
        rows = len(options["input_ids"])
        sizes.append(rows)
        if rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, *args, **options)

    expected = by_hand("llava", folders["llava"], images, "red?")
    texts = local(folders["llava"]).generate(images, max_tokens=4)
    monkeypatch.setattr(LlavaForConditionalGeneration, "forward", cramped)
    vlm = local(folders["llava"])

    np.testing.assert_allclose(vlm.log_odds(images, "red?", yes=YES, no=NO), expected, atol=1e-5)
    assert sizes == [5, 2, 2, 1]
    vlm.log_odds(images, "red?", yes=YES, no=NO)
    assert sizes[4:] == [2, 2, 1]  # what fitted is remembered
    local(folders["llava"], batch_size=1).log_odds(images[:2], "red?", yes=YES, no=NO)
    assert sizes[7:] == [1, 1]
    assert vlm.generate(images, max_tokens=4) == texts


def test_a_picture_that_does_not_fit_alone_is_told(folders, images, monkeypatch):
    from transformers import LlavaForConditionalGeneration

    @functools.wraps(LlavaForConditionalGeneration.forward)
    def full(self, *args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(LlavaForConditionalGeneration, "forward", full)

    with pytest.raises(ModelError, match="does not fit into the device's memory"):
        local(folders["llava"]).generate(images)


def test_threads_wait_their_turn(folders, images):
    vlm = local(folders["smolvlm"])
    answers = {}

    def ask(n):
        answers[n] = vlm.generate(images[n : n + 1], max_tokens=4)[0]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [answers[n] for n in range(len(images))] == local(folders["smolvlm"]).generate(
        images, max_tokens=4
    )


def test_a_closed_model_is_loaded_again_when_it_is_needed(folders, images, tmp_path):
    shutil.copytree(folders["llava"], tmp_path / "m")
    vlm = local(tmp_path / "m")
    first = vlm.generate(images, max_tokens=4)

    vlm.close()
    assert vlm.generate(images, max_tokens=4) == first

    vlm.close()
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot load"):
        vlm.generate(images, max_tokens=4)


def test_the_specification_follows_the_files_and_what_is_asked_for_but_not_the_place(folders, tmp_path):
    moved = tmp_path / "elsewhere" / "llava"
    shutil.copytree(folders["llava"], moved)
    spec = local(folders["llava"]).spec()

    assert local(moved).spec() == spec
    assert json.loads(json.dumps(spec)) == spec
    assert local(moved, max_side=64).spec() != spec
    assert local(moved, precision="bf16").spec() != spec
    (moved / "chat_template.jinja").write_text("{{ messages }}")
    assert local(moved).spec()["fingerprint"] != spec["fingerprint"]
    assert isinstance(local(moved), VLM)
    assert local(moved).model_id == f"local-dir:{moved}"


def test_half_precision_keeps_the_odds(folders, images):
    exact = local(folders["llava"]).log_odds(images, "red?", yes=YES, no=NO)[0]
    vlm = local(folders["llava"], precision="bf16")

    assert np.abs(vlm.log_odds(images, "red?", yes=YES, no=NO)[0] - exact).max() < 0.3
    assert (vlm.device, vlm.precision) == ("cpu", "bf16")


def test_words_that_are_no_single_token_are_told(folders, images):
    with pytest.raises(ModelError, match=r"none of 'by no means', 'nevermore' is a single token"):
        local(folders["llava"]).log_odds(images, "red?", yes=YES, no=["by no means", "nevermore"])


@pytest.mark.parametrize("kind", ["blip", "git", "florence2"])
def test_a_family_whose_next_token_answers_nothing_names_what_reranks_instead(folders, images, kind):
    with pytest.raises(ModelError, match=r"no answer to a question; .* ItmReranker"):
        local(folders[kind]).log_odds(images, "red?", yes=["yes"], no=["no"])


def test_a_lost_weight_is_an_error_and_never_a_random_number(folders, images, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(folders["llava"], tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    del weights["multi_modal_projector.linear_1.weight"]
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=r"is not whole: .* lacks 1 of its weights \(.*linear_1\.weight"):
        local(tmp_path / "m").generate(images)


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_lost_file_is_told_with_its_folder(folders, images, tmp_path, lost):
    shutil.copytree(folders["llava"], tmp_path / "m", ignore=shutil.ignore_patterns(lost))

    with pytest.raises(ModelError, match=str(tmp_path / "m")):
        local(tmp_path / "m").generate(images)


def test_a_cut_off_file_of_weights_is_told(folders, images, tmp_path):
    shutil.copytree(folders["llava"], tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])

    with pytest.raises(ModelError, match="cannot load"):
        local(tmp_path / "m").generate(images)


def test_a_model_of_texts_alone_takes_no_pictures(images, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tiny_vlms.letters()
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **tiny_vlms.TEXT)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)

    with pytest.raises(ModelError, match=r"takes no pictures, .*type 'llama'"):
        local(tmp_path).generate(images)


def test_an_unknown_architecture_is_sent_to_a_server_and_code_of_its_own_is_not_run(images, tmp_path):
    mark = tmp_path / "was run"
    (tmp_path / "modeling.py").write_text(f"open({str(mark)!r}, 'w')")
    auto = {"AutoConfig": "modeling.Config", "AutoModelForImageTextToText": "modeling.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "moondream9", "auto_map": auto}))

    with pytest.raises(ModelError, match=r"'moondream9'.* never run here; .*HttpVLM"):
        local(tmp_path).generate(images)
    assert not mark.exists()


def test_code_that_comes_with_a_known_architecture_is_not_run_either(folders, images, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(folders["llava"], folder)
    mark = tmp_path / "was run"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')")
    for name, auto in [
        ("config.json", {"AutoConfig": "own.C", "AutoModelForImageTextToText": "own.M"}),
        ("processor_config.json", {"AutoProcessor": "own.P"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["own.T", "own.F"]}),
    ]:
        told = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(told | {"auto_map": auto}))

    texts = local(folder).generate(images, max_tokens=4)

    assert texts == local(folders["llava"]).generate(images, max_tokens=4)
    assert not mark.exists()


def test_a_model_without_a_template_whose_form_is_unknown_says_so(folders, images, tmp_path):
    shutil.copytree(folders["llava"], tmp_path / "m", ignore=shutil.ignore_patterns("*.jinja"))

    with pytest.raises(ModelError, match=r"no chat template .*'llava'"):
        local(tmp_path / "m").generate(images)


def test_a_broken_template_is_the_model_s_fault_and_not_the_picture_s(folders, images, tmp_path):
    shutil.copytree(folders["llava"], tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")

    with pytest.raises(ModelError, match=r"chat template .* fails: roles must alternate"):
        local(tmp_path / "m").generate(images)


def test_a_package_that_a_processor_needs_is_told_with_its_command(folders, images, monkeypatch):
    monkeypatch.setattr("clipsearch.errors.find_spec", lambda name: None)

    with pytest.raises(MissingExtraError, match=r"'num2words': pip install 'clipsearch\[captions\]'"):
        local(folders["smolvlm"]).generate(images)


@pytest.mark.parametrize("model", ["nothing", "/no/such/folder", "a/b/c"])
def test_what_is_neither_a_folder_nor_a_name_of_the_hub_is_refused_at_once(model):
    with pytest.raises(ModelError, match="expected a directory, or org/name on the Hugging Face hub"):
        LocalVLM(model)


def test_a_model_that_is_not_here_is_told_with_the_ways_out(images):
    with pytest.raises(ModelError, match=r"'org/no-such-vlm' is not on this machine.*HttpVLM"):
        local("org/no-such-vlm").generate(images)


def test_importing_captioners_and_rerankers_loads_nothing_heavy():
    code = (
        "import sys, clipsearch.captioners, clipsearch.rerank.itm, clipsearch.rerank.pairs;"
        "print(sorted({'torch', 'transformers', 'sentence_transformers', 'PIL', 'faiss'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
