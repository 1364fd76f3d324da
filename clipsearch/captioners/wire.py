"""A question to a server over HTTP, asked again while that can help. The standard library alone.

- Asked again: trouble with the connection, a time-out, and the answers 408, 409, 425, 429 and 5xx; after
  twice as long each time, or as long as the server asks for.
- Said at once: what would be the same the next time. An answer of 400, 413, 415 or 422 is about what was
  sent, and so about a picture: ImageError. Everything else is about the server: ServerError.
- Nothing is followed: a redirect could carry pictures and a key elsewhere.
- Proxies of the environment are used (http_proxy, https_proxy, no_proxy), except to this machine itself.
"""

import base64
import math
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from ipaddress import ip_address
from typing import NamedTuple, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import ImageError, ServerError

T = TypeVar("T")

CONNECT = 10.0  # seconds to be let in: a thread that waits for that cannot be stopped
TELLING = 6  # characters of a value in a url from which it may be a secret
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0  # seconds between tries
LONGEST_ASKED = 60.0  # seconds of a Retry-After that are waited at most
LARGEST = 16_000_000  # bytes of an answer
SHOWN = 200  # characters of an answer in a message
_AGAIN = (408, 409, 425, 429)
_ABOUT_THE_PICTURE = (400, 413, 415, 422)
_WAYS_OUT = {
    401: "give the right api_key",
    403: "give an api_key that may use this model",
    404: "is the model served there, and does the address end in /v1?",
}


class Stopped(Exception):
    """Raised in a thread whose call has ended without it."""


class Call:
    """What ends the threads of one call: their pauses and their connections."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()

    def run(self, task: Callable[..., T], *args: object) -> T:
        """What a task of this call gives, unless the call is over; a task's error ends the call."""
        self.pause(0)
        try:
            return task(*args)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every pause, and every wait for a server, of this call."""
        self._over.set()
        with self._lock:
            for each in self._sockets:
                _shut(each)

    def pause(self, seconds: float) -> None:
        """Wait so long, or raise Stopped as soon as the call is over."""
        if self._over.wait(seconds):
            raise Stopped

    def watch(self, open_socket: socket.socket) -> None:
        """Have a connection shut when the call is stopped."""
        with self._lock:
            self._sockets.add(open_socket)
        if self._over.is_set():
            _shut(open_socket)

    def leave(self, open_socket: socket.socket) -> None:
        """Watch it no more."""
        with self._lock:
            self._sockets.discard(open_socket)


def _shut(open_socket: socket.socket) -> None:
    with suppress(OSError):  # it was closed meanwhile
        socket.socket.shutdown(
            open_socket, socket.SHUT_RDWR
        )  # of TLS too: its own would change what a thread reads


class Reply(NamedTuple):
    """What a server said."""

    status: int
    headers: Message
    body: bytes


class Wire:
    """The way to one address.

    Attributes:
        shown: the address without credentials and query: what errors and specs may say.
        host: its host and port.
    """

    def __init__(self, url: str, *, api_key: str | None, timeout: float, retries: int) -> None:
        parts = _address(url)
        self.host = parts.netloc.rpartition("@")[2]
        self.shown = f"{parts.scheme}://{self.host}{parts.path}"
        self._parts, self._timeout, self._retries = parts, timeout, retries
        self._target = f"{parts.path}/chat/completions" + (f"?{parts.query}" if parts.query else "")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        parameters = [value for _, value in parse_qsl(parts.query) if len(value) >= TELLING]
        login = [unquote(parts.password), _basic(parts).split()[1]] if parts.password else []
        secrets = (api_key, parts.password, parts.query, *parameters, *login)
        self._secrets = sorted({_secret(text) for text in secrets if text}, key=len, reverse=True)
        if api_key:
            self._headers["Authorization"] = f"Bearer {_secret(api_key)}"
        elif parts.username:
            self._headers["Authorization"] = _basic(parts)
        self._proxy = _proxy(parts)
        if self._proxy and self._proxy.username and parts.scheme == "http":
            self._headers["Proxy-Authorization"] = _basic(self._proxy)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None

    def post(self, body: bytes, call: Call) -> bytes:
        """The body of the server's answer.

        Raises:
            ImageError: the server refuses what was sent.
            ServerError: it is down, refuses to answer at all, or sends elsewhere.
            Stopped: the call is over.
        """
        outcome, tries = self._try(body, call), 1
        while _may_change(outcome) and tries <= self._retries:
            pause(_seconds(outcome, tries), call)
            outcome, tries = self._try(body, call), tries + 1
        return self._body_of(outcome, tries)

    def error(self, what: str, said: bytes = b"") -> ServerError:
        """A ServerError about this address, with the first characters of what was said."""
        return ServerError(f"{self.shown}: {what}{self._quoted(said)}")

    def _body_of(self, outcome: Reply | Exception, tries: int) -> bytes:
        times = f", asked {tries} times" if tries > 1 else ""
        if isinstance(outcome, Exception):
            reason = str(outcome) or type(outcome).__name__
            late = f", and are {self._timeout:g} s enough" if isinstance(outcome, TimeoutError) else ""
            way_out = f"is the server running{late}?"
            raise self.error(f"no answer ({reason}){times}: {way_out}") from outcome
        status, headers, body = outcome
        if 200 <= status < 300:
            return body
        if 300 <= status < 400:
            place = urlsplit(headers.get("Location", ""))
            raise self.error(
                f"sends elsewhere ({status}), to {place.hostname or ''}{place.path}: give that address"
            )
        if status in _ABOUT_THE_PICTURE:
            raise ImageError(f"{self.shown} refuses it ({status}){self._quoted(body)}")
        way_out = f"; {_WAYS_OUT[status]}" if status in _WAYS_OUT else ""
        raise self.error(f"refuses to answer ({status}){times}{way_out}", body)

    def _quoted(self, said: bytes) -> str:
        text = " ".join(said[: 20 * SHOWN].decode("utf-8", "replace").split())
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return f": {text[:SHOWN]!r}" if text else ""

    def _try(self, body: bytes, call: Call) -> Reply | Exception:
        """What the server said, or why it said nothing."""
        connection = self._connection()
        try:
            connection.connect()
            call.watch(opened := connection.sock)
            try:
                opened.settimeout(self._timeout)
                return self._asked(connection, body)
            finally:
                call.leave(opened)
        except ssl.SSLCertVerificationError as error:
            reason = f"its certificate is not trusted ({error.verify_message})"
            raise self.error(f"{reason}; SSL_CERT_FILE may name another root") from error
        except (OSError, HTTPException) as error:
            return error
        finally:
            connection.close()

    def _asked(self, connection: HTTPConnection, body: bytes) -> Reply:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it has read all
            connection.request("POST", self._asked_for, body, self._headers)
        response = connection.getresponse()
        return Reply(response.status, response.headers, self._read(response))

    def _read(self, response: HTTPResponse) -> bytes:
        body, end = bytearray(), time.monotonic() + self._timeout
        while part := response.read1(1 << 16):
            body += part
            if len(body) > LARGEST:
                raise self.error(f"its answer is longer than {LARGEST:,} bytes", bytes(body))
            if time.monotonic() > end:
                raise TimeoutError(f"its answer took longer than {self._timeout:g} s")
        if response.length:  # what it announced and did not send
            raise IncompleteRead(bytes(body), response.length)
        return bytes(body)

    @property
    def _asked_for(self) -> str:
        """What stands in the first line: a proxy of plain HTTP is told the whole address."""
        whole = self._proxy is not None and self._tls is None
        return f"http://{self.host}{self._target}" if whole else self._target

    def _connection(self) -> HTTPConnection:
        near = self._proxy or self._parts
        host, port = near.hostname or "", near.port
        if self._tls is None:
            return HTTPConnection(host, port or 80, timeout=CONNECT)
        secure = HTTPSConnection(
            host, port or (80 if self._proxy else 443), timeout=CONNECT, context=self._tls
        )
        if self._proxy:
            proof = {"Proxy-Authorization": _basic(self._proxy)} if self._proxy.username else {}
            secure.set_tunnel(self._parts.hostname or "", self._parts.port or 443, proof)
        return secure


def pause(seconds: float, call: Call) -> None:
    """Wait before the next try. Tests put their own in its place, and so need not wait."""
    call.pause(seconds)


def _may_change(outcome: Reply | Exception) -> bool:
    return isinstance(outcome, Exception) or outcome.status in _AGAIN or outcome.status >= 500


def _seconds(outcome: Reply | Exception, tries: int) -> float:
    """How long to wait after so many tries: not all threads the same, and as long as the server asks for."""
    own = min(FIRST_PAUSE * 2.0 ** (tries - 1), LONGEST_PAUSE) * random.uniform(0.5, 1)
    asked = "" if isinstance(outcome, Exception) else str(outcome.headers.get("Retry-After", "")).strip()
    return max(own, min(_asked_seconds(asked), LONGEST_ASKED))


def _asked_seconds(retry_after: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", retry_after):
        return float(retry_after)
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, OverflowError):  # absent, or neither of the two
        return -math.inf


def _address(url: str) -> SplitResult:
    """The parts of an address; its path is /v1 if nothing follows the host."""
    parts = urlsplit(url.strip())
    try:
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:  # of the port
        usable = False
    if not usable or not url.strip().isprintable():
        shown = re.sub(r"\S*@", "", url.partition("?")[0])
        raise ServerError(f"{shown!r} is no address of a server: expected http://HOST:PORT/v1")
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return parts._replace(path=path, fragment="")


def _secret(text: str) -> str:
    """As it can stand in a header; the message does not show it."""
    if not text.strip().isascii() or not text.strip().isprintable():
        raise ServerError(
            "the api_key or password has characters that no header may have: is it the right one?"
        )
    return text.strip()


def _basic(parts: SplitResult) -> str:
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _proxy(parts: SplitResult) -> SplitResult | None:
    host = parts.hostname or ""
    url = getproxies().get(parts.scheme)
    if not url or _is_here(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxy = urlsplit(url if "//" in url else f"http://{url}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise ServerError(
            f"{parts.scheme}_proxy is a proxy of the kind {proxy.scheme!r}: expected http://HOST:PORT"
        )
    return proxy


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
