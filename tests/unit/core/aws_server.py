"""Bedrock's runtime and EventBridge on loopback, as far as the wire goes: boto3 talks to it for real."""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.fakes.server import QuietServer


def frame(event_type: str, payload: bytes) -> bytes:
    """Encode one message of an AWS event stream (vnd.amazon.eventstream)."""
    headers = b""
    for name, value in (
        (":event-type", event_type),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ):
        headers += (
            bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        )
    total = 12 + len(headers) + len(payload) + 4
    prelude = struct.pack(">II", total, len(headers))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    message = prelude + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


class Aws:
    """What it was asked, and what it answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[tuple[str, Any]] = []
        self.raw: list[tuple[str, bytes, Any]] = []
        """The same with their headers, and those that are no JSON."""
        self.answers: list[tuple[int, dict[str, str], bytes]] = []

    def answer(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Queue an answer: JSON, or bytes of an event stream."""
        kind = "application/vnd.amazon.eventstream" if isinstance(body, bytes) else "application/json"
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.append(
            (status, {"Content-Type": kind, "x-amzn-RequestId": "req-1", **(headers or {})}, raw)
        )


@contextmanager
def aws_server() -> Iterator[Aws]:
    """Serve on a port of the system's choice."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            aws.raw.append((self.path, raw, self.headers))
            with suppress(ValueError):  # a function's payload may be anything
                aws.requests.append((self.path, json.loads(raw)))
            status, headers, body = aws.answers.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = QuietServer(("127.0.0.1", 0), Handler)
    aws = Aws(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield aws
    finally:
        server.shutdown()
        server.server_close()
