"""From texts to token ids as a model was trained on them; no text can break it."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from .recipe import Recipe

if TYPE_CHECKING:
    import torch

_CLIP_VOCABULARY = 49408
_LETTERS_PER_TOKEN = 32  # a text longer than this times the context is cut before a slow tokenizer sees it


class Tokens:
    """The tokenizer of one open_clip model.

    Texts are cleaned as its configuration says (SigLIP: lower case, no punctuation), cut to its
    context, and any string is allowed: empty, of any length, in any script.

    Raises:
        ModelError: the tokenizer cannot be loaded, or makes ids that the text tower does not have.
    """

    def __init__(self, recipe: Recipe) -> None:
        text = recipe.config["text_cfg"]
        self._model_id = recipe.model_id
        self._vocabulary: int | None = (
            None if "hf_model_name" in text else text.get("vocab_size", _CLIP_VOCABULARY)
        )
        self._context: int = text.get("context_length", 77)
        self._tokenize, largest = _load(recipe, self._context)
        if largest and self._vocabulary and largest > self._vocabulary:
            raise ModelError(
                f"{self._model_id!r} knows {self._vocabulary} tokens but its tokenizer makes {largest}: "
                "it needs its own merges, a file bpe_*.txt.gz beside its open_clip_config.json"
            )

    def __call__(self, texts: Sequence[str]) -> "torch.Tensor":
        """Token ids of n texts: int64 (n, context), padded."""
        ids: torch.Tensor = self._tokenize(
            [_short(text, self._context * _LETTERS_PER_TOKEN) for text in texts]
        )
        if self._vocabulary and ids.numel() and int(ids.max()) >= self._vocabulary:
            raise ModelError(
                f"the tokenizer of {self._model_id!r} makes the id {int(ids.max())}, but its text tower "
                f"knows {self._vocabulary}: the files do not belong together; fetch the model again"
            )
        return ids


def _load(recipe: Recipe, context: int) -> tuple[Any, int | None]:
    """A tokenizer, and how many ids it makes where that is known."""
    from open_clip import SimpleTokenizer, tokenize
    from open_clip.tokenizer import HFTokenizer

    text = recipe.config["text_cfg"]
    options = dict(text.get("tokenizer_kwargs") or {})
    try:
        if recipe.tokenizer:
            mode = text.get("tokenizer_mode")
            return HFTokenizer(
                str(recipe.tokenizer), context_length=context, tokenizer_mode=mode, **options
            ), None
        if not recipe.merges and not options:  # open_clip has made this one already; it costs 0.3 s
            return partial(tokenize, context_length=context), _CLIP_VOCABULARY
        if recipe.merges:
            options["bpe_path"] = str(recipe.merges)
        tokenizer = SimpleTokenizer(context_length=context, **options)
        return tokenizer, tokenizer.vocab_size
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ModelError(f"cannot load the tokenizer of {recipe.model_id!r}: {error}") from error


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else " ".join(text.split())[:longest]
