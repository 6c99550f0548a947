"""A model provider on loopback: real HTTP, failures on demand, and a count of what it served."""

from __future__ import annotations

import gzip
import json
import random
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from secrets import token_hex
from typing import Any, NamedTuple, Self


class Served(NamedTuple):
    """What one answer took, as the provider bills it; each token is in one of the counts."""

    id: str | None
    model: str
    input: int
    output: int
    read: int = 0
    write: int = 0
    write_1h: int = 0
    tier: str = "standard"


class Request(NamedTuple):
    """One request as it came in; the names of headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class Answer(NamedTuple):
    """One answer: a body at once, or events of a stream."""

    body: bytes | list[bytes]
    content_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = {}


class ContractError(Exception):
    """A request that the provider would refuse; the message says why."""


def need(condition: object, why: str) -> None:
    """Refuse the request unless a condition of the provider's contract holds."""
    if not condition:
        raise ContractError(why)


class ModelServer:
    """Serves on a port of the system's choice while entered.

    Parameters
    ----------
    seed
        Of the numbers of tokens.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.served: list[Served] = []
        self.requests: list[Request] = []
        self.broken: list[str] = []
        """What requests broke of the contract."""
        self.failures: deque[Answer] = deque()
        """Given instead of the next answers."""
        self.texts = ["Hello", " there", "!"]
        """The pieces of the text that the model says."""
        self.gzip = False
        self.piece_bytes = 1 << 20
        """Streams leave in pieces of that size, whatever their events' bounds."""
        self.pause_after: int | None = None
        """After so many events a stream waits for `go_on`."""
        self.cut_after: int | None = None
        """After so many events the connection breaks."""
        self.hold_answers = False
        """Answers wait for `go_on` before their first byte."""
        self.arrived = threading.Event()
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, request: Request) -> Answer:
        """Answer a request, or raise a `ContractError`; noting what was served."""
        raise NotImplementedError

    def refusal(self, error: ContractError) -> Answer:
        """Say what is wrong in the provider's own way."""
        raise NotImplementedError

    def identifier(self) -> str:
        """Return what no answer was called before."""
        return token_hex(12)

    def forget(self) -> None:
        """Start counting anew."""
        self.served.clear()
        self.requests.clear()

    def __enter__(self) -> Self:
        self._server = QuietServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def events(named: list[tuple[str | None, Any]]) -> list[bytes]:
    """Return server-sent events: name and data, a text as it stands and anything else as JSON."""
    lines = []
    for name, data in named:
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        lines.append(((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode())
    return lines


class QuietServer(ThreadingHTTPServer):
    """A server whose clients may leave at any time, which is no error."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, json.loads(raw) if raw else None)
            server.requests.append(request)
            if server.failures:
                answer = server.failures.popleft()
            else:
                try:
                    need(headers.get("content-type") == "application/json" or not raw, "content-type")
                    answer = server.answer(request)
                except ContractError as error:
                    server.broken.append(str(error))
                    answer = server.refusal(error)
            server.arrived.set()
            if server.hold_answers:
                server.go_on.wait(10)
            with _client_may_leave(self):
                self._send(answer)

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if isinstance(answer.body, bytes):
                body = gzip.compress(answer.body) if server.gzip else answer.body
                if server.gzip:
                    self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            if server.gzip:
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if server.gzip:
                self._pieces(gzip.compress(b"".join(answer.body)))
            else:
                self._events(answer.body)
            self.wfile.write(b"0\r\n\r\n")

        def _events(self, all_of_them: list[bytes]) -> None:
            waiting = b""
            for number, event in enumerate(all_of_them):
                if number == server.cut_after:
                    self._pieces(waiting)
                    self.close_connection = True
                    raise ConnectionAbortedError
                if number == server.pause_after:
                    self._pieces(waiting)
                    waiting = b""
                    server.go_on.wait(10)
                waiting += event
            self._pieces(waiting)

        def _pieces(self, body: bytes) -> None:
            for at in range(0, len(body), server.piece_bytes):
                piece = body[at : at + server.piece_bytes]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def _client_may_leave(handler: BaseHTTPRequestHandler) -> Iterator[None]:
    try:
        yield
    except ConnectionError:
        handler.close_connection = True
