"""A model behind a server: what is sent, what is made of each answer, and of each kind of trouble."""

import base64
import io
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from clipsearch.captioners import wire
from clipsearch.captioners.http import PROMPT, HttpVLM
from clipsearch.captioners.local import LocalVLM
from clipsearch.errors import ImageError, ServerError
from clipsearch.types import VLM


def chat(content, **more):
    return 200, {}, json.dumps({"choices": [{"message": {"content": content}, **more}]}).encode()


class Asked:
    """One request as the server saw it."""

    def __init__(self, line, headers, body):
        self.line, self.headers, self.body = line, headers, json.loads(body)
        self.picture, self.words = self.body["messages"][0]["content"]
        self.kind, encoded = self.picture["image_url"]["url"].split(",")
        self.image = Image.open(io.BytesIO(base64.b64decode(encoded)))
        self.grey = round(np.asarray(self.image).mean() / 20)  # which of `greys` it is


class Faulty:
    """A server on loopback: `answer(asked)` gives (status, headers, body), or None for no answer."""

    def __init__(self, answer=lambda asked: chat(f"grey {asked.grey}")):
        self.answer, self.asked, self.busy, self.peak = answer, [], 0, 0
        self._lock, self._over, outer = threading.Lock(), threading.Event(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked = Asked(self.path, self.headers, body)
                with outer._lock:
                    outer.asked.append(asked)
                    outer.busy += 1
                    outer.peak = max(outer.peak, outer.busy)
                said = outer.answer(asked)
                with outer._lock:
                    outer.busy -= 1
                if said is None:
                    outer._over.wait()
                else:
                    self.respond(*said)
                self.close_connection = True

            def respond(self, status, headers, body):
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._over.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def faulty():
    server = Faulty()
    yield server
    server.close()


@pytest.fixture
def waited(monkeypatch):
    """The pauses between tries, none of which is waited."""
    seconds = []
    monkeypatch.setattr(wire, "pause", lambda each, call: seconds.append(each))
    return seconds


def greys(n):
    return [Image.new("RGB", (32, 24), (20 * number,) * 3) for number in range(n)]


def as_sent(image):
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=90)
    return Image.open(encoded).convert("RGB")


def in_turn(*answers):
    """Each answer once, then the last one for ever."""
    left = list(answers)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


def test_a_picture_is_sent_small_before_the_words_and_greedily(faulty):
    vlm = HttpVLM(faulty.url, model="tiny", api_key="sk-secret", max_side=64)
    assert isinstance(vlm, VLM)
    assert vlm.generate([Image.new("RGB", (200, 50), "white")], "What is it?", max_tokens=7) == ["grey 13"]

    (asked,) = faulty.asked
    assert asked.line == "/v1/chat/completions"
    assert asked.headers["Authorization"] == "Bearer sk-secret"
    assert asked.words == {"type": "text", "text": "What is it?"}
    assert (asked.kind, asked.image.format, asked.image.size) == ("data:image/jpeg;base64", "JPEG", (64, 16))
    options = {name: asked.body[name] for name in ("model", "temperature", "max_tokens", "stream")}
    assert options == {"model": "tiny", "temperature": 0, "max_tokens": 7, "stream": False}


def test_a_small_picture_is_not_enlarged(faulty):
    HttpVLM(faulty.url, model="tiny").generate(greys(1))
    assert faulty.asked[0].image.size == (32, 24)
    assert faulty.asked[0].words["text"] == PROMPT


def test_a_picture_is_sent_as_jpeg_of_quality_90(faulty):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8))
    HttpVLM(faulty.url, model="tiny").generate([noise])
    np.testing.assert_array_equal(np.asarray(faulty.asked[0].image), np.asarray(as_sent(noise)))


def test_half_a_surrogate_pair_in_the_words_is_sent_as_a_question_mark(faulty):
    HttpVLM(faulty.url, model="tiny").generate(greys(1), "a \ud83d 개")
    assert faulty.asked[0].words["text"] == "a ? 개"


def test_no_picture_asks_nothing(faulty):
    vlm = HttpVLM(faulty.url, model="tiny")
    odds, share = vlm.log_odds([], "?", yes=["yes"], no=["no"])
    assert (vlm.generate([]), odds.shape, share.shape, faulty.asked) == ([], (0,), (0,), [])


def test_four_are_under_way_at_a_time_and_the_order_is_kept(faulty):
    together, last_first = threading.Barrier(4, timeout=10), [threading.Event() for _ in range(12)]

    def answer(asked):
        together.wait()  # broken unless four are here at once
        later = asked.grey + 1
        if later % 4 and not last_first[later].wait(10):  # each waits for the one after it
            return 500, {}, b""
        last_first[asked.grey].set()
        return chat(f"grey {asked.grey}")

    faulty.answer = answer
    texts = HttpVLM(faulty.url, model="tiny", concurrency=4, retries=0).generate(greys(12))
    assert texts == [f"grey {number}" for number in range(12)]
    assert (faulty.peak, len(faulty.asked)) == (4, 12)


def test_nothing_begins_after_a_task_of_a_call_has_failed():
    call, begun = wire.Call(), []
    with pytest.raises(ZeroDivisionError):
        call.run(lambda: 1 / 0)
    with pytest.raises(wire.Stopped):
        call.run(begun.append, "task")
    assert begun == []


def test_threads_end_with_the_call(faulty):
    HttpVLM(faulty.url, model="tiny").generate(greys(8))
    assert not [each.name for each in threading.enumerate() if each.name.startswith("clipsearch-http")]


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(faulty, waited, status):
    faulty.answer = in_turn((status, {}, b"busy"), (status, {}, b"busy"), chat("a dog"))
    assert HttpVLM(faulty.url, model="tiny").generate(greys(1)) == ["a dog"]
    assert len(faulty.asked) == 3
    assert 0.25 <= waited[0] <= 0.5 <= waited[1] <= 1


def test_pauses_double_up_to_twenty_seconds_and_then_it_is_given_up(faulty, waited):
    faulty.answer = in_turn((503, {}, b"still loading"))
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:.*\(503\), asked 9 times.*'still loading'"):
        HttpVLM(faulty.url, model="tiny", retries=8).generate(greys(1))
    assert len(faulty.asked) == 9
    for seconds, longest in zip(waited, [0.5, 1, 2, 4, 8, 16, 20, 20], strict=True):
        assert longest / 2 <= seconds <= longest


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("7", 7, 7),
        ("1.5", 1.5, 1.5),
        ("3600", 60, 60),
        ("0", 0.25, 0.5),
        ("soon", 0.25, 0.5),
        ("-5", 0.25, 0.5),
    ],
)
def test_retry_after_is_waited_up_to_a_minute(faulty, waited, asked, least, most):
    faulty.answer = in_turn((429, {"Retry-After": asked}, b""), chat("a dog"))
    assert HttpVLM(faulty.url, model="tiny").generate(greys(1)) == ["a dog"]
    assert len(waited) == 1 and least <= waited[0] <= most


def test_retry_after_may_be_a_date(faulty, waited, monkeypatch):
    monkeypatch.setattr(wire.time, "time", lambda: 1_700_000_000.0)
    date = formatdate(1_700_000_030, usegmt=True)
    faulty.answer = in_turn((503, {"Retry-After": date}, b""), chat("a dog"))
    assert HttpVLM(faulty.url, model="tiny").generate(greys(1)) == ["a dog"]
    assert waited == [30]


@pytest.mark.parametrize(
    ("status", "way_out"),
    [(401, "api_key"), (403, "api_key"), (404, "end in /v1"), (402, "refuses to answer")],
)
def test_what_will_not_pass_is_said_at_once(faulty, waited, status, way_out):
    faulty.answer = in_turn((status, {}, b'{"error": "no"}'))
    with pytest.raises(ServerError, match=way_out):
        HttpVLM(faulty.url, model="tiny").generate(greys(1))
    assert (len(faulty.asked), waited) == (1, [])


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_one_refused_picture_is_an_image_error(faulty, waited, status):
    faulty.answer = in_turn((status, {}, b"picture too wide"))
    with pytest.raises(ImageError, match=rf"\({status}\): 'picture too wide'"):
        HttpVLM(faulty.url, model="tiny").generate(greys(1))
    assert (len(faulty.asked), waited) == (1, [])


def test_a_batch_with_a_refused_picture_is_asked_for_singly_and_nothing_is_sent_twice(faulty):
    faulty.answer = lambda asked: (400, {}, b"") if asked.grey == 2 else chat(f"grey {asked.grey}")
    vlm, pictures, texts = HttpVLM(faulty.url, model="tiny"), greys(6), []
    with pytest.raises(ImageError):
        vlm.generate(pictures)
    with pytest.raises(ImageError):
        vlm.generate(pictures[:4])  # a caller may halve it first
    for picture in pictures:
        try:
            texts += vlm.generate([picture])
        except ImageError:
            texts.append(None)
    assert texts == ["grey 0", "grey 1", None, "grey 3", "grey 4", "grey 5"]
    assert len(faulty.asked) == 6
    vlm.generate(pictures[:1])  # what was given out is forgotten
    assert len(faulty.asked) == 7


def test_what_was_answered_before_the_server_went_is_not_asked_again(faulty):
    faulty.answer = lambda asked: (500, {}, b"") if asked.grey == 3 else chat(f"grey {asked.grey}")
    vlm = HttpVLM(faulty.url, model="tiny", concurrency=1, retries=0)
    with pytest.raises(ServerError):
        vlm.generate(greys(6))
    assert len(faulty.asked) == 4  # those after it were not sent
    faulty.answer = lambda asked: chat(f"grey {asked.grey}")
    assert vlm.generate(greys(6)) == [f"grey {number}" for number in range(6)]
    assert [asked.grey for asked in faulty.asked[4:]] == [3, 4, 5]


@pytest.mark.parametrize(
    "body",
    [
        b"<html><title>Sign in</title>",
        b"[1]",
        b'{"error": {"message": "overloaded"}}',
        b'{"choices": []}',
        b'{"choices": [{"text": "not a chat"}]}',
        b'{"choices": [{"message": {"content": 5}}]}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_answer_of_a_chat_is_shown(faulty, body):
    faulty.answer = in_turn((200, {}, body))
    shown = re.escape(repr(body.decode("utf-8", "replace")))
    with pytest.raises(ServerError, match=f"expected the answer of a chat as JSON, found: {shown}"):
        HttpVLM(faulty.url, model="tiny").generate(greys(1))
    assert len(faulty.asked) == 1


def test_an_empty_answer_is_no_answer(faulty):
    faulty.answer = in_turn((200, {}, b""))
    with pytest.raises(ServerError, match="expected the answer of a chat"):
        HttpVLM(faulty.url, model="tiny").generate(greys(1))


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, ""), ("  a dog\n", "a dog"), ("a dog on", "a dog on"), ("<think>hm</think>\n\na dog", "a dog")],
)
def test_null_is_an_empty_text_and_thoughts_are_left_out(faulty, content, text):
    faulty.answer = in_turn(chat(content, finish_reason="length"))
    assert HttpVLM(faulty.url, model="tiny").generate(greys(1)) == [text]


def test_a_redirect_is_not_followed(faulty):
    place = f"http://user:pw@127.0.0.1:{faulty.port}/v2?token=t"
    faulty.answer = in_turn((307, {"Location": place}, b""))
    with pytest.raises(ServerError, match=r"sends elsewhere \(307\), to 127\.0\.0\.1/v2: give"):
        HttpVLM(faulty.url, model="tiny").generate(greys(1))
    assert len(faulty.asked) == 1


def test_a_server_that_is_silent_is_asked_again_and_then_given_up(faulty, waited):
    faulty.answer = lambda asked: None
    with pytest.raises(ServerError, match=r"no answer \(timed out\), asked 3 times.* 0\.2 s enough"):
        HttpVLM(faulty.url, model="tiny", timeout=0.2, retries=2).generate(greys(1))
    assert (len(faulty.asked), len(waited)) == (3, 2)


def test_a_port_where_nothing_listens_is_asked_again_and_then_given_up(waited):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and so nobody else's, but not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServerError, match=r"refused.*, asked 5 times: is the server running"):
            HttpVLM(url, model="tiny").generate(greys(1))
    assert len(waited) == 4


def test_an_answer_that_breaks_off_is_asked_for_again(faulty, waited):
    faulty.answer = in_turn((200, {"Content-Length": "500"}, chat("a c")[2]), chat("a dog"))
    assert HttpVLM(faulty.url, model="tiny").generate(greys(1)) == ["a dog"]
    assert len(waited) == 1


def test_an_answer_without_end_is_not_read_to_its_end(faulty, monkeypatch):
    monkeypatch.setattr(wire, "LARGEST", 1000)
    faulty.answer = in_turn((200, {}, b"x" * 5000))
    with pytest.raises(ServerError, match="longer than 1,000 bytes"):
        HttpVLM(faulty.url, model="tiny").generate(greys(1))


@contextmanager
def ctrl_c_when(happened):
    def press():
        happened.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    yield


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
@pytest.mark.parametrize("answer", [None, (429, {"Retry-After": "60"}, b"")])
def test_ctrl_c_waits_neither_for_the_server_nor_for_a_pause(faulty, answer):
    happened = threading.Event()

    def said(asked):
        if len(faulty.asked) == 4:
            threading.Timer(0.1, happened.set).start()  # once the client waits
        return answer

    faulty.answer = said
    with ctrl_c_when(happened), pytest.raises(KeyboardInterrupt):
        HttpVLM(faulty.url, model="tiny", timeout=600).generate(greys(8))
    assert not [each.name for each in threading.enumerate() if each.name.startswith("clipsearch-http")]
    assert len(faulty.asked) == 4


SECRET = "sk-0123456789"


def test_credentials_are_in_no_error_spec_or_name(faulty):
    host = f"127.0.0.1:{faulty.port}"
    vlm = HttpVLM(f"http://me:{SECRET}@{host}/v1/?key=query-{SECRET}", model="org/tiny", retries=0)
    faulty.answer = in_turn((401, {}, f"wrong: {SECRET}".encode()))
    with pytest.raises(ServerError) as error:
        vlm.generate(greys(1))
    told = f"{error.value} {vlm.spec()} {vlm.model_id} {vlm!r}"
    assert SECRET not in told and "me:" not in told
    assert vlm.model_id == f"org/tiny@{host}"
    assert vlm.spec()["url"] == f"http://{host}/v1"
    (asked,) = faulty.asked
    assert asked.line == f"/v1/chat/completions?key=query-{SECRET}"
    assert asked.headers["Authorization"] == "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()


def test_a_key_that_a_header_cannot_hold_is_not_shown():
    with pytest.raises(ServerError) as error:
        HttpVLM("http://127.0.0.1:1", model="tiny", api_key="sk-ab\ncd")
    assert "sk-ab" not in str(error.value)


def test_the_spec_says_what_decides_the_answers():
    specs = [
        HttpVLM("http://127.0.0.1:1", model="a").spec(),
        HttpVLM("http://127.0.0.1:2", model="a").spec(),
        HttpVLM("http://127.0.0.1:1", model="b").spec(),
        HttpVLM("http://127.0.0.1:1", model="a", max_side=512).spec(),
    ]
    assert len({json.dumps(spec, sort_keys=True) for spec in specs}) == 4
    same = HttpVLM("http://127.0.0.1:1/v1/", model="a", api_key="k", concurrency=1, timeout=1, retries=0)
    assert same.spec() == specs[0]


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/v1", "http://", "http://host:x/v1", f"me:{SECRET}@host", ""]
)
def test_an_address_that_is_none_is_refused_without_its_password(url):
    with pytest.raises(ServerError, match="expected http://HOST:PORT/v1") as error:
        HttpVLM(url, model="tiny")
    assert SECRET not in str(error.value)


def test_proxies_are_for_other_machines(faulty, monkeypatch):
    for name in ("HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://me:pw@127.0.0.1:{faulty.port}")
    assert HttpVLM("http://models.example/v1", model="tiny").generate(greys(1)) == ["grey 0"]
    (asked,) = faulty.asked
    assert asked.line == "http://models.example/v1/chat/completions"
    assert asked.headers["Host"] == "models.example"
    assert asked.headers["Proxy-Authorization"] == "Basic bWU6cHc="

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    url = f"http://localhost:{faulty.port}/v1"
    assert HttpVLM(url, model="tiny", retries=0).generate(greys(1)) == ["grey 0"]
    assert faulty.asked[1].line == "/v1/chat/completions"


def test_a_proxy_of_another_kind_is_said(monkeypatch):
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(ServerError, match="socks5"):
        HttpVLM("https://models.example/v1", model="tiny")


def judged(*shown):
    """An answer with these tokens and probabilities, likeliest first."""
    top = [{"token": token, "logprob": math.log(p) if p else -9999.0} for token, p in shown]
    return chat(shown[0][0], logprobs={"content": [{**top[0], "top_logprobs": top}]})


YES, NO = ["yes", "Yes", " yes"], ["no", "No"]


def odds_of(server, answer, **options):
    server.answer = in_turn(answer)
    vlm = HttpVLM(server.url, model="tiny", **options)
    odds, share = vlm.log_odds(greys(1), "Red?", yes=YES, no=NO)
    assert (odds.dtype, share.dtype, odds.shape, share.shape) == (np.float64, np.float64, (1,), (1,))
    return odds[0], share[0]


def test_log_odds_are_over_all_spellings_that_are_shown(faulty):
    shown = [("Yes", 0.5), ("No", 0.2), ("▁yes", 0.1), (" yes", 0.05), ("no", 0.04), ("Maybe", 0.03)]
    odds, share = odds_of(faulty, judged(*shown))
    assert odds == pytest.approx(math.log(0.65 / 0.24))
    assert share == pytest.approx(0.89)
    options = {name: faulty.asked[0].body[name] for name in ("max_tokens", "logprobs", "top_logprobs")}
    assert options == {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}


@pytest.mark.parametrize(
    ("shown", "bound"),
    [
        ([("Yes", 0.6), ("A", 0.3), ("The", 0.01)], 0.01),  # as the least likely that is shown
        ([("Yes", 0.6), ("A", 0.3), ("The", 0.01), ("", 0)], 0.01),  # a filler is nothing shown
        ([("Yes", 0.6), ("A", 0.39)], 0.01),  # as all that is left
        ([("Yes", 1.0)], 1e-6),
    ],
)
def test_a_side_that_is_not_shown_is_as_likely_as_it_can_be(faulty, shown, bound):
    p_yes = shown[0][1]
    odds, share = odds_of(faulty, judged(*shown))
    assert (odds, share) == (pytest.approx(math.log(p_yes / bound)), pytest.approx(p_yes))


def test_neither_side_shown_is_not_known(faulty):
    odds, share = odds_of(faulty, judged(("A", 0.9), ("The", 0.1)))
    assert math.isnan(odds) and share == 0


def test_a_server_that_shows_the_chosen_token_alone_is_enough(faulty):
    content = [{"token": "No", "logprob": math.log(0.8), "top_logprobs": []}]
    odds, share = odds_of(faulty, chat("No", logprobs={"content": content}))
    assert (odds, share) == (pytest.approx(math.log(0.2 / 0.8)), pytest.approx(0.8))


def test_without_probabilities_words_count_and_it_is_said_once(faulty, caplog):
    words = {0: "Yes.", 1: "no", 2: "Perhaps", 3: None}
    faulty.answer = lambda asked: chat(words[asked.grey], logprobs=None)
    vlm = HttpVLM(faulty.url, model="tiny")
    for _ in range(2):
        odds, share = vlm.log_odds(greys(4), "Red?", yes=YES, no=NO)
        assert odds.tolist() == [1, -1, 0, 0] and share.tolist() == [1, 1, 0, 0]
    (record,) = caplog.records
    assert "gives no probabilities" in record.getMessage() and record.levelname == "WARNING"


@contextmanager
def transformers_serve(folder):
    """Its address, while `transformers serve` runs that model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from transformers.cli.transformers import main; main()"
    options = ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-c", program, "serve", folder, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            for line in server.stdout:
                if "Uvicorn running" in line:
                    break
            else:
                pytest.fail(f"transformers serve ended with {server.wait()}")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()


def generated(folder, images, prompt, max_tokens):
    """What transformers' own generate writes, picture by picture."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    for image in images:
        content = [{"type": "image", "image": image}, {"type": "text", "text": prompt}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
        yield processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.skipif(
    not all(map(find_spec, ("fastapi", "uvicorn", "openai", "accelerate"))),
    reason="needs transformers[serving]",
)
@pytest.mark.parametrize("kind", ["llava", "smolvlm"])
def test_a_real_server_writes_what_transformers_writes(kind, tmp_path, caplog):
    if kind == "smolvlm" and not find_spec("num2words"):
        pytest.skip("SmolVLM's processor needs num2words")
    import torch

    torch.set_num_threads(1)
    from . import tiny_vlms

    folder = str(tiny_vlms.make(kind, tmp_path))
    noise = np.random.default_rng(0).integers(0, 256, (6, 48, 40, 3), np.uint8)
    pictures = [as_sent(Image.fromarray(each)) for each in noise]
    with transformers_serve(folder) as url:
        vlm = HttpVLM(url, model=folder)
        texts = vlm.generate(pictures, "What is it?", max_tokens=12)
        odds, share = vlm.log_odds(pictures[:2], "Red?", yes=YES, no=NO)
        with pytest.raises(ImageError, match="refuses it"):  # 400: it serves that model alone
            HttpVLM(url, model="another").generate(pictures[:1])
    again = [as_sent(picture) for picture in pictures]
    expected = [text.strip() for text in generated(folder, again, "What is it?", 12)]
    assert texts == expected and len(set(texts)) > 1
    ours = LocalVLM(folder, precision="fp32").generate(again, "What is it?", max_tokens=12)
    assert texts == ours, "a model here and one behind a server write the same"
    assert odds.tolist() == [0, 0] and share.tolist() == [0, 0]  # it gives no probabilities, and random words
    assert "gives no probabilities" in caplog.text
