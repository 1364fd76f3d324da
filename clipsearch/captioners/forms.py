"""How each family of models is asked: by its own chat template, or in the words it was trained with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ImageError, ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1  # of the words below; raise it with them, since answers are kept under it
CAPTION = "Describe this picture in one or two sentences. Say what is to be seen, and where."

REFUSALS = (ValueError, ZeroDivisionError)  # of a picture, by processors: far too narrow, too large, …


class Form(NamedTuple):
    """The words of a family that has no chat template; {} is where the user's own go.

    Attributes:
        caption: asks for a caption; None: the picture alone does.
        prompt: asks anything else; None: it cannot be asked.
        question: asks something that the next token answers; None: its next token answers nothing.
    """

    caption: str | None
    prompt: str | None
    question: str | None


FORMS = {
    "blip": Form(None, "{}", None),
    "blip-2": Form(None, "{}", "Question: {} Answer:"),
    "florence2": Form("<DETAILED_CAPTION>", "{}", None),
    "git": Form(None, None, None),
    "instructblip": Form("Write a short description of the image.", "{}", "{}"),
    "kosmos-2": Form("An image of", "{}", "Question: {} Answer:"),
    "paligemma": Form("<image>caption en", "<image>{}", "<image>answer en {}"),
}


class Asker:
    """Makes a model's inputs of pictures and words.

    Args:
        processor: of transformers; its texts are padded on the left from now on, so that the last token of
            each row is the last of its prompt.
        model_type: what transformers calls the family.
        model_id: for errors.

    Raises:
        ModelError: it has no chat template, and how the family is asked is not known.
    """

    def __init__(self, processor: Any, *, model_type: str, model_id: str) -> None:
        self._processor = processor
        self._model_id = model_id
        self._form = None if getattr(processor, "chat_template", None) else FORMS.get(model_type)
        self._tokenizer = processor.tokenizer
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        if self._form is None and not getattr(processor, "chat_template", None):
            raise ModelError(
                f"{model_id!r} has no chat template (chat_template.jinja), and how a model of type "
                f"{model_type!r} is asked without one is not known here"
            )

    def ask(self, images: "Sequence[Image]", prompt: str | None) -> Any:
        """Inputs for a text about each of n pictures; None asks for a caption.

        Raises:
            ImageError: the processor refuses a picture.
            ModelError: the family takes no prompt, or its template fails.
        """
        if self._form is None:
            return self._chat(images, CAPTION if prompt is None else self._plain(prompt))
        if prompt is None:
            return self._inputs(images, self._form.caption)
        if self._form.prompt is None:
            raise ModelError(f"{self._model_id!r} writes captions and takes no prompt")
        return self._inputs(images, self._form.prompt.format(self._plain(prompt)))

    def question(self, images: "Sequence[Image]", prompt: str) -> Any:
        """Inputs after which the next token is the answer to a question.

        Raises:
            ImageError: the processor refuses a picture.
            ModelError: the family answers no questions that way.
        """
        if self._form is None:
            return self._chat(images, self._plain(prompt))
        if self._form.question is None:
            raise no_answers(self._model_id)
        return self._inputs(images, self._form.question.format(self._plain(prompt)))

    def _chat(self, images: "Sequence[Image]", prompt: str) -> Any:
        text = {"type": "text", "text": prompt}
        chats = [[{"role": "user", "content": [{"type": "image", "image": image}, text]}] for image in images]
        # Some models would think aloud first.
        quiet = {"enable_thinking": False} if "enable_thinking" in str(self._processor.chat_template) else {}
        return self._checked(
            lambda: self._processor.apply_chat_template(
                chats,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
                **quiet,
            )
        )

    def _inputs(self, images: "Sequence[Image]", text: str | None) -> Any:
        words = {} if text is None else {"text": [text] * len(images), "padding": True}
        inputs = self._checked(lambda: self._processor(images=list(images), return_tensors="pt", **words))
        inputs.pop("labels", None)  # PaliGemma's processor makes some, and a loss of them fails
        return inputs

    def _checked(self, make: Any) -> Any:
        from jinja2 import TemplateError

        try:
            return make()
        except TemplateError as error:
            raise ModelError(f"the chat template of {self._model_id!r} fails: {error}") from error
        except REFUSALS as error:
            raise ImageError(f"{self._model_id} refuses it: {error}") from error

    def _plain(self, text: str) -> str:
        """The words alone: a query may not end its own turn, nor name a picture that is not there."""
        for token in self._tokenizer.added_tokens_decoder.values():
            if token.special:
                text = text.replace(token.content, " ")
        return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates become "?"


def no_answers(model_id: str) -> ModelError:
    """The error for a model whose next token is no answer to a question."""
    return ModelError(
        f"{model_id!r} writes captions, and its next token is no answer to a question; rerank with its "
        "captions, with ItmReranker (BLIP's image-text matching head), or with a chat model such as "
        "SmolVLM or Qwen3-VL"
    )
