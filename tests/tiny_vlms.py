"""Vision-language models with random weights, a few hundred kilobytes each, written in a tenth of a second.

`make("qwen2_vl", folder)` writes what `from_pretrained(folder)` reads. Their texts are nonsense; what they
prove is loading, padding, batching and arithmetic.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    *("yes", "no", "Yes", "No"),  # at the start of a text: single tokens
    "a an the of in on with and image picture describe this does show yes no Yes No red green blue yellow",
    "Describe this picture in one or two sentences. Say what is to be seen, and where.",
    "Does this picture show a red square? Answer yes or no.",
    "Question: an image of a dog, a cat and a car in the sky? Answer: caption en answer user assistant",
]
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = TOWER | {"image_size": 32, "patch_size": 8, "initializer_range": 0.02}  # BLIP's own is 1e-10
TEXT = TOWER | {"num_key_value_heads": 2, "max_position_embeddings": 2048}
SPREAD = 8
START, END = "<|im_start|>", "<|im_end|>"

CHAT = (
    "{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{%- for part in m['content'] %}{%- if part['type'] == 'image' %}{{ 'PICTURE' }}"
    "{%- else %}{{ part['text'] }}{%- endif %}{%- endfor %}{{ '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)


def make(kind, folder):
    """Write a model of that kind and return its folder."""
    torch.manual_seed(2 if kind == "paligemma" else 0)  # with most others it ends its texts at once
    model, processor = KINDS[kind]()
    for weight in model.parameters():  # as initialised, pictures would change next to nothing
        if weight.dim() > 1:
            weight.data.mul_(SPREAD)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)


def letters(*specials, named=None, picture=None):
    """A tokenizer of bytes and some words, with a chat template if it is told how a picture is written."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    reserved = ["<pad>", "<s>", "</s>", "<unk>", START, END, *specials]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=reserved, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 40, trainer)
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token=END, unk_token="<unk>",
        model_max_length=4096, padding_side="right", extra_special_tokens=named or {},
    )  # fmt: skip
    words.chat_template = picture and CHAT.replace("PICTURE", picture)
    return words


def pieces():
    """BERT's kind of tokenizer, in lower case."""
    from transformers import BertTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    reserved = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=reserved, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 40, trainer)
    ends = [(end, tokenizer.token_to_id(end)) for end in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return BertTokenizerFast(tokenizer_object=tokenizer)


def specials_of(words):
    return {name: getattr(words, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}


def ready(model, words):
    """A model whose generation ends where its tokenizer's texts do."""
    model.generation_config.update(**specials_of(words))
    return model


def llava():
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    words = letters("<image>", named={"image_token": "<image>"}, picture="<image>\n")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, projection_dim=16),
        text_config=LlamaConfig(vocab_size=len(words), **TEXT, **specials_of(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        pictures, words, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=words.chat_template,
    )  # fmt: skip
    return ready(LlavaForConditionalGeneration(config), words), processor


def qwen_words():
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    words = letters(*marks, picture="<|vision_start|><|image_pad|><|vision_end|>")
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return words, dict(zip(names, words.convert_tokens_to_ids(marks), strict=True))


def qwen_text(words, **rope):
    shape = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, **rope}}
    return {"vocab_size": len(words), "head_dim": 8, **TEXT, **shape, **specials_of(words)}


QWEN_PATCHES = {"patch_size": 4, "temporal_patch_size": 2}
QWEN_PICTURES = QWEN_PATCHES | {
    "merge_size": 2,
    "size": {"shortest_edge": 256, "longest_edge": 4096},
}  # pixels


def qwen2_vl():
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    words, tokens = qwen_words()
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2}
    config = Qwen2VLConfig(
        text_config=qwen_text(words, mrope_section=[1, 1, 2]),
        vision_config=vision | QWEN_PATCHES | {"spatial_merge_size": 2},
        **tokens,
    )
    pictures, films = Qwen2VLImageProcessor(**QWEN_PICTURES), Qwen2VLVideoProcessor(**QWEN_PICTURES)
    processor = Qwen2VLProcessor(pictures, words, films, chat_template=words.chat_template)
    return ready(Qwen2VLForConditionalGeneration(config), words), processor


def qwen3_vl():
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    words, tokens = qwen_words()
    vision = {
        "depth": 3, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64, "num_heads": 4,
        "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1], "spatial_merge_size": 2,
    }  # fmt: skip
    config = Qwen3VLConfig(
        text_config=qwen_text(words, mrope_section=[2, 1, 1], mrope_interleaved=True),
        vision_config=vision | QWEN_PATCHES,
        **tokens,
    )
    pictures, films = Qwen2VLImageProcessor(**QWEN_PICTURES), Qwen3VLVideoProcessor(**QWEN_PICTURES)
    processor = Qwen3VLProcessor(pictures, words, films, chat_template=words.chat_template)
    return ready(Qwen3VLForConditionalGeneration(config), words), processor


def smolvlm():
    from transformers import (
        LlamaConfig,
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    named = {
        "fake_image_token": "<fake_token_around_image>", "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>", "global_image_token": "<global-img>",
    }  # fmt: skip
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    words = letters(*named.values(), *tiles, named=named, picture="<image>")
    config = SmolVLMConfig(
        vision_config=VISION,
        text_config=LlamaConfig(vocab_size=len(words), **TEXT, **specials_of(words)).to_dict(),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        pad_token_id=words.pad_token_id,
        scale_factor=2,
        tie_word_embeddings=False,
    )
    side = {"longest_edge": 32}
    film = {"max_frames": 4, "fps": 1, "video_size": side}
    processor = SmolVLMProcessor(
        # Up to 2 x 2 tiles: the number of tokens follows the shape of the picture.
        SmolVLMImageProcessor(size={"longest_edge": 64}, max_image_size=side, do_image_splitting=True),
        words,
        SmolVLMVideoProcessor(size=side, max_image_size=side, video_sampling=film),
        image_seq_len=4,
        chat_template=words.chat_template,
    )
    return ready(SmolVLMForConditionalGeneration(config), words), processor


def paligemma():
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    words = letters("<image>", named={"image_token": "<image>"})
    places = 2_000  # the processor adds words for places and masks
    text = {"model_type": "gemma", "vocab_size": len(words) + places, "head_dim": 8}
    config = PaliGemmaConfig(
        vision_config=VISION | {"model_type": "siglip_vision_model"},
        text_config=TEXT | text | specials_of(words),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    pictures = SiglipImageProcessor(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    model = ready(PaliGemmaForConditionalGeneration(config), words)
    model.get_input_embeddings().weight.data[len(words) :] = (
        0  # tied: places and masks are never the likeliest
    )
    return model, PaliGemmaProcessor(pictures, words)


def blip(matching=False):
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipForImageTextRetrieval,
        BlipImageProcessor,
        BlipProcessor,
    )

    words = pieces()
    tokens = {
        "pad_token_id": words.pad_token_id, "sep_token_id": words.sep_token_id,
        "eos_token_id": words.sep_token_id, "bos_token_id": words.convert_tokens_to_ids("[DEC]"),
    }  # fmt: skip
    text = (
        TOWER | tokens | {"vocab_size": len(words), "encoder_hidden_size": 32, "max_position_embeddings": 64}
    )
    shape = {"projection_dim": 16, "image_text_hidden_size": 16}
    config = BlipConfig(text_config=text, vision_config=VISION, **shape)
    model = (BlipForImageTextRetrieval if matching else BlipForConditionalGeneration)(config)
    return model, BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), words)


def blip2_matching():
    from transformers import Blip2Config, Blip2ForImageTextRetrieval, Blip2Processor, BlipImageProcessor

    words = pieces()
    queries = 4
    former = TOWER | {"vocab_size": len(words), "encoder_hidden_size": 32, "use_qformer_text_input": True}
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=former | {"cross_attention_frequency": 1, "max_position_embeddings": 64},
        num_query_tokens=queries,
        image_text_hidden_size=16,
        image_token_index=len(words),
    )
    model = Blip2ForImageTextRetrieval(config)
    torch.nn.init.normal_(model.query_tokens)
    pictures = BlipImageProcessor(size={"height": 32, "width": 32})
    return model, Blip2Processor(pictures, words, num_query_tokens=queries)


def blip2():
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
        OPTConfig,
    )

    words = letters("<image>")
    queries = 4
    sizes = {"vocab_size": len(words), "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64}
    text = OPTConfig(hidden_size=32, word_embed_proj_dim=32, **sizes, **specials_of(words))
    former = TOWER | {"vocab_size": len(words), "encoder_hidden_size": 32, "cross_attention_frequency": 1}
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=former,
        text_config=text.to_dict(),
        num_query_tokens=queries,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    pictures = BlipImageProcessor(size={"height": 32, "width": 32})
    return ready(model, words), Blip2Processor(pictures, words, num_query_tokens=queries)


def git():
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    words = pieces()
    ends = {"bos_token_id": words.cls_token_id, "eos_token_id": words.sep_token_id}
    sizes = TOWER | {"vocab_size": len(words), "max_position_embeddings": 128}
    config = GitConfig(vision_config=VISION, pad_token_id=words.pad_token_id, **sizes, **ends)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return GitForCausalLM(config), GitProcessor(pictures, words)


def florence2():
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    words = letters("<image>", named={"image_token": "<image>"})
    bart = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"layers": 1, "ffn_dim": 64, "attention_heads": 4}.items()
    }
    config = Florence2Config(
        text_config={
            "model_type": "bart", "vocab_size": len(words), "d_model": 32, "max_position_embeddings": 256,
            "decoder_start_token_id": 2, **bart, **specials_of(words),
        },
        vision_config={
            "depths": [1] * 4, "embed_dim": [16, 16, 16, 32], "num_heads": [2, 2, 2, 4],
            "num_groups": [2, 2, 2, 4], "projection_dim": 32, "window_size": 4, "drop_path_rate": 0.0,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    pictures = CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    pictures.image_seq_length = 5  # 2 x 2 patches and their mean
    return ready(Florence2ForConditionalGeneration(config), words), Florence2Processor(pictures, words)


KINDS = {
    "llava": llava,
    "qwen2_vl": qwen2_vl,
    "qwen3_vl": qwen3_vl,
    "smolvlm": smolvlm,
    "paligemma": paligemma,
    "blip": blip,
    "blip2": blip2,
    "git": git,
    "florence2": florence2,
    "blip_itm": lambda: blip(matching=True),
    "blip2_itm": blip2_matching,
}
