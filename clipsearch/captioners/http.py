"""A vision-language model behind an OpenAI-compatible server, on this machine or elsewhere."""

import base64
import hashlib
import io
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL.Image import Resampling

from ..errors import ImageError
from .wire import Call, Stopped, Wire

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger("clipsearch")

PROMPT = "Describe this picture in one or two sentences. Say what is to be seen, and where."
QUALITY = 90  # of the JPEG that is sent
SHOWN_TOKENS = 20  # alternatives asked for: the most that OpenAI and vLLM give
ABSENT = -100.0  # a log-probability below it is a filler: OpenAI writes -9999
RESOLUTION = 1e-6  # of the probabilities that servers write
KEPT = 1000  # answers of calls that failed

Choice: TypeAlias = Mapping[str, Any]
"""What a server said of one picture: choices[0] of its answer."""


class HttpVLM:
    """A model behind any OpenAI-compatible server: vLLM, LMDeploy, Ollama, llama.cpp, `transformers serve`.

    Each picture is one request, with the picture before the words, so that a server may keep what it saw for
    the next question. Trouble with the connection, time-outs and the answers 408, 409, 425, 429 and 5xx are
    tried again, after as long as the server asks for (Retry-After, up to 60 s) or twice as long each time.

    Of a server's model only the name is known, not its weights: give another name to other weights, or what
    was kept of the first is shown for the second.

    Args:
        url: the server's address, http://HOST:PORT/v1. Proxies of the environment are used, but not to this
            machine.
        model: what the server calls the model.
        api_key: sent as a bearer token; in no error, log or spec. clipsearch looks for it in no other place.
        max_side: pixels that the longer side of a picture is brought down to before it is sent, as JPEG.
        concurrency: requests that a call has under way at a time.
        timeout: seconds that one try waits for an answer.
        retries: tries after the first one.

    Raises:
        ServerError: the url, or the proxy that the environment names, is no address.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        api_key: str | None = None,
        max_side: int = 1024,
        concurrency: int = 4,
        timeout: float = 60.0,
        retries: int = 4,
    ) -> None:
        self._wire = Wire(url, api_key=api_key, timeout=timeout, retries=retries)
        self.model_id = f"{model}@{self._wire.host}"
        self.max_side = max_side
        self._model, self._concurrency = model, concurrency
        self._kept: dict[
            bytes, Choice | ImageError
        ] = {}  # answers, by digest of the request, until given out
        self._warned = False

    def spec(self) -> Mapping[str, Any]:
        """What is known of what decides its answers; the weights are not."""
        return {
            "backend": "openai-http",
            "url": self._wire.shown,
            "model": self._model,
            "max_side": self.max_side,
            "jpeg": QUALITY,
            "prompt": PROMPT,
        }

    def generate(
        self, images: "Sequence[Image]", prompt: str | None = None, *, max_tokens: int = 64
    ) -> list[str]:
        """A text for each of n RGB pictures, in order; none give [].

        A text that was cut off at `max_tokens` is still a text; of one that thinks aloud, what follows
        </think> is. A call that fails keeps what was answered until it is asked for again: a batch with a
        refused picture can be asked for picture by picture, and nothing is sent twice.

        Raises:
            ImageError: the server refuses a picture (400, 413, 415, 422), or, of several, at least one.
            ServerError: the server is down, refuses to answer, or gives what is no answer.
        """
        options = {"max_tokens": max_tokens}
        return [_text(choice) for choice in self._ask(images, PROMPT if prompt is None else prompt, options)]

    def log_odds(
        self, images: "Sequence[Image]", prompt: str, *, yes: Sequence[str], no: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Whether each of n pictures is answered with yes, from the tokens that the server shows.

        Returns:
            log P(yes) - log P(no) of the next token, float64 (n,), and P(yes) + P(no), float64 (n,). Servers
            show the 20 likeliest tokens; blanks around one count for nothing. A side that is not among them
            is taken for as likely as it can be, which is as the least likely token shown, or as all that is
            not shown, whichever is less: the truth is further from 0. If neither is, the log-odds are nan.

            A server that gives no probabilities (`transformers serve`) says yes or no in words: these give 1
            and -1, anything else 0, the share is nan, and a warning is logged once.

        Raises:
            ImageError, ServerError: as `generate`.
        """
        options = {"max_tokens": 1, "logprobs": True, "top_logprobs": SHOWN_TOKENS}
        sides = {_plain(word) for word in yes}, {_plain(word) for word in no}
        judged = [self._judged(choice, *sides) for choice in self._ask(images, prompt, options)]
        table = np.array(judged, dtype=np.float64).reshape(-1, 2)  # (n, 2)
        return table[:, 0], table[:, 1]

    def _judged(self, choice: Choice, yes: set[str], no: set[str]) -> tuple[float, float]:
        if shown := _shown(choice):
            return _odds(shown, yes, no)
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s gives no probabilities: its words, yes or no, count as 1 and -1", self.model_id
            )
        word = _plain(_text(choice)).rstrip(".,!")
        return float(word in yes) - float(word in no), float(word in yes or word in no)

    def _ask(self, images: "Sequence[Image]", prompt: str, options: Mapping[str, Any]) -> list[Choice]:
        call = Call()
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="clipsearch-http") as pool:
            tasks = [pool.submit(call.run, self._answer, image, prompt, options, call) for image in images]
            try:
                _wait_for(tasks)
            except BaseException:  # Ctrl-C too
                pool.shutdown(wait=False, cancel_futures=True)
                call.stop()
                raise
        return self._given_out([task.result() for task in tasks])

    def _given_out(self, answers: "Sequence[_Answer]") -> list[Choice]:
        """The answers, which are then forgotten; kept for the next call if one of several was refused."""
        refused = [said for _, said in answers if isinstance(said, ImageError)]
        given = [] if refused and len(answers) > 1 else [key for key, _ in answers]
        for key in [*given, *list(self._kept)[:-KEPT]]:
            self._kept.pop(key, None)
        if refused:
            raise refused[0]
        return [said for _, said in answers if not isinstance(said, ImageError)]

    def _answer(self, image: "Image", prompt: str, options: Mapping[str, Any], call: Call) -> "_Answer":
        body = json.dumps({**self._question(image, prompt), **options}).encode()
        key = hashlib.sha256(body).digest()
        said = self._kept.get(key)
        if said is None:
            try:
                said = self._choice(self._wire.post(body, call))
            except ImageError as error:
                said = error
            self._kept[key] = said
        return _Answer(key, said)

    def _question(self, image: "Image", prompt: str) -> dict[str, Any]:
        picture = {"type": "image_url", "image_url": {"url": _data_url(image, self.max_side)}}
        words = prompt.encode("utf-8", "replace").decode()  # lone surrogates become "?": JSON has none
        content = [picture, {"type": "text", "text": words}]
        messages = [{"role": "user", "content": content}]
        return {"model": self._model, "messages": messages, "temperature": 0, "stream": False}

    def _choice(self, body: bytes) -> Choice:
        """choices[0] of an answer.

        Raises:
            ServerError: it is not JSON, or not a chat's.
        """
        try:
            choice = json.loads(body)["choices"][0]
            if not isinstance(choice["message"]["content"], str | None):
                raise TypeError
        except (ValueError, LookupError, TypeError) as error:
            raise self._wire.error("expected the answer of a chat as JSON, found", body) from error
        return dict(choice)


class _Answer(NamedTuple):
    """What was said to a question."""

    key: bytes  # digest of the question
    said: Choice | ImageError


def _wait_for(tasks: Iterable[Future[Any]]) -> None:
    """Until all are done, or one has failed: its error is raised."""
    waiting = set(tasks)
    while waiting:
        # an endless wait could not be interrupted on Windows
        done, waiting = wait(waiting, timeout=1, return_when=FIRST_EXCEPTION)
        for task in done:
            if not isinstance(task.exception(), Stopped):  # by the error of another, which comes
                task.result()


def _data_url(image: "Image", max_side: int) -> str:
    scale = max_side / max(image.size)
    if scale < 1:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.convert("RGB").save(encoded, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _text(choice: Choice) -> str:
    content: str | None = choice["message"]["content"]
    return (content or "").rpartition("</think>")[2].strip()


def _plain(token: str) -> str:
    """Without the blanks around it, in the spellings of tokenizers too."""
    return token.replace("▁", " ").replace("Ġ", " ").strip()


def _shown(choice: Choice) -> list[tuple[str, float]]:
    """The likeliest tokens at the answer's beginning, with their log-probabilities; none if it has none."""
    try:
        first = choice["logprobs"]["content"][0]
        shown = first.get("top_logprobs") or [first]
        pairs = [(_plain(each["token"]), float(each["logprob"])) for each in shown]
    except (LookupError, TypeError, ValueError, AttributeError):
        return []
    return [(token, log) for token, log in pairs if log > ABSENT]


def _odds(shown: Sequence[tuple[str, float]], yes: set[str], no: set[str]) -> tuple[float, float]:
    """Log-odds and share of the likeliest tokens."""
    p_yes = sum(math.exp(log) for token, log in shown if token in yes)
    p_no = sum(math.exp(log) for token, log in shown if token in no)
    if not p_yes and not p_no:
        return math.nan, 0.0
    rest = max(1 - sum(math.exp(log) for _, log in shown), RESOLUTION)
    bound = min(rest, math.exp(min(log for _, log in shown)))
    return math.log(p_yes or bound) - math.log(p_no or bound), p_yes + p_no
