"""A loopback AgentOps: the two endpoints that an exporter talks to, as strict as the real ones.

The contract is AgentOps' own, from its published backend: ``POST /v3/auth/token`` takes ``{"api_key":
UUID}`` (400 when it is no UUID, 403 when it is unknown) and answers a bearer token; ``POST /v1/traces`` is
an OpenTelemetry collector behind that token (401 without it) that takes OTLP as protobuf. Beyond the
contract it refuses what a real collector would take and then show wrongly: ids of zero, spans without name,
status or times.

Run: ``python -m local.fake_agentops --port 0 --record spans.jsonl``; the first line on stdout is its URL.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import gzip
import json
import secrets
import signal
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

AUTH_PATH = "/v3/auth/token"
TRACES_PATH = "/v1/traces"
FAULTS_PATH = "/_fake/faults"
"""Ours, no exporter calls it: ``POST {"path": …, "status": 429, "times": 2}`` makes the next answers of that
path fail, after ``"hang": seconds``; ``GET`` tells what was received."""

MAX_BODY_BYTES = 20 * 1024 * 1024
"""An OpenTelemetry collector's default limit of a request's body."""


class Reply(NamedTuple):
    """One HTTP answer."""

    status: int
    body: bytes
    content_type: str = "application/json"


class Fault(NamedTuple):
    """A failure to answer with, `times` times."""

    status: int
    hang_s: float
    times: int


class FakeAgentOps:
    """The service's state and rules, apart from HTTP.

    Parameters
    ----------
    record
        File that each accepted span is appended to, one JSON object a line.
    api_key
        The only key that is known; any UUID when left out.
    """

    def __init__(self, record: Path | None = None, api_key: str | None = None) -> None:
        self._record = record
        self._api_key = api_key
        self._lock = threading.Lock()
        self._tokens: set[str] = set()
        self._faults: dict[str, Fault] = {}
        self._expire_after: int | None = None
        self.project_id = str(uuid.uuid4())
        self.requests: list[tuple[str, int]] = []
        """Path and answered status of every request, in order."""
        self.spans: list[dict[str, Any]] = []
        self.rejected: list[str] = []
        """Why spans were refused."""

    def fail(self, path: str, *, status: int = 500, hang_s: float = 0.0, times: int = 1) -> None:
        """Make the next `times` requests to `path` fail, after `hang_s` seconds."""
        with self._lock:
            self._faults[path] = Fault(status, hang_s, times)

    def expire_after(self, requests: int) -> None:
        """Forget the tokens given out after so many accepted requests, as when they expire."""
        self._expire_after = requests

    def handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        """Answer one request."""
        fault = self._next_fault(path)
        if fault is not None:
            time.sleep(fault.hang_s)
            reply = _error(fault.status, "injected")
        elif path == FAULTS_PATH:
            return self._control(method, body)
        else:
            reply = self._answer(method, path, headers, body)
        with self._lock:
            self.requests.append((path, reply.status))
        return reply

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        routes: dict[tuple[str, str], Callable[[dict[str, str], bytes], Reply]] = {
            ("POST", AUTH_PATH): self._authenticate,
            ("POST", TRACES_PATH): self._take_traces,
        }
        if path.startswith("/v4/"):
            # The SDK uploads what the process prints; our exporter must not, and tests look for this.
            return _json(200, {"url": "", "size": len(body)})
        route = routes.get((method, path))
        return route(headers, body) if route else _error(404, "no such endpoint")

    def _next_fault(self, path: str) -> Fault | None:
        with self._lock:
            fault = self._faults.get(path)
            if fault is None or fault.times < 1:
                return None
            self._faults[path] = fault._replace(times=fault.times - 1)
            return fault

    def _control(self, method: str, body: bytes) -> Reply:
        if method == "POST":
            wanted = json.loads(body)
            self.fail(
                wanted["path"],
                status=int(wanted.get("status", 500)),
                hang_s=float(wanted.get("hang", 0)),
                times=int(wanted.get("times", 1)),
            )
        with self._lock:
            return _json(
                200, {"requests": self.requests, "spans": len(self.spans), "rejected": self.rejected}
            )

    def _authenticate(self, headers: dict[str, str], body: bytes) -> Reply:
        if "json" not in headers.get("content-type", ""):
            return _error(415, "expected application/json")
        try:
            key = json.loads(body)["api_key"]
            uuid.UUID(key)
        except (ValueError, KeyError, TypeError, AttributeError):
            return _error(400, "Invalid API key format")
        if self._api_key is not None and key != self._api_key:
            return _error(403, "Invalid API key")
        token = _jwt({"project_id": self.project_id, "exp": int(time.time()) + 30 * 86_400})
        with self._lock:
            self._tokens.add(token)
        return _json(200, {"token": token, "project_id": self.project_id, "project_prem_status": "free"})

    def _take_traces(self, headers: dict[str, str], body: bytes) -> Reply:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        with self._lock:
            known = token in self._tokens
        if scheme.lower() != "bearer" or not known:
            return _error(401, "invalid or missing bearer token")
        if headers.get("content-type", "").split(";")[0] != "application/x-protobuf":
            return _error(415, "expected application/x-protobuf")
        try:
            request = ExportTraceServiceRequest.FromString(_decompress(headers, body))
        except (DecodeError, OSError, zlib.error) as error:
            return _error(400, f"not OTLP: {error}")
        rows = list(_rows(request))
        faults = [f"{row['name'] or '?'}: {fault}" for row in rows if (fault := _fault_of(row))]
        if faults:
            with self._lock:
                self.rejected.extend(faults)
            return _error(400, "; ".join(faults[:5]))
        self._keep(rows)
        if self._expire_after is not None:
            self._expire_after -= 1
            if self._expire_after == 0:
                self._tokens.clear()
        return Reply(200, ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")

    def _keep(self, rows: list[dict[str, Any]]) -> None:
        with self._lock:
            self.spans.extend(rows)
            if self._record is not None:
                with self._record.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)


class FakeServer:
    """The fake behind a real HTTP server on a loopback port, in a thread of its own.

    Parameters
    ----------
    fake
        What answers.
    port
        0 lets the operating system choose.
    """

    def __init__(self, fake: FakeAgentOps, port: int = 0) -> None:
        self.fake = fake
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler_for(fake))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler_for(fake: FakeAgentOps) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body leave in two writes: with Nagle's algorithm each answer would wait 40 ms for an ACK.
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if length > MAX_BODY_BYTES:
                self.close_connection = True
                reply = _error(413, "body too large")
            else:
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = fake.handle(self.command, self.path.split("?")[0], headers, self.rfile.read(length))
            try:
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.content_type)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
            except OSError:
                # A client that gave up on a hanging answer.
                self.close_connection = True

        do_POST = _serve
        do_GET = _serve

    return Handler


def _rows(request: ExportTraceServiceRequest) -> Iterator[dict[str, Any]]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield _row(span, resource, scope.scope.name)


def _row(span: Span, resource: dict[str, Any], scope: str) -> dict[str, Any]:
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex() or None,
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "status": Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower(),
        "status_message": span.status.message,
        "attributes": _attributes(span.attributes),
        "events": {event.name: _attributes(event.attributes) for event in span.events},
        "resource": resource,
        "scope": scope,
        "received_at": time.time(),
    }


def _fault_of(row: dict[str, Any]) -> str | None:
    """What is wrong with a span, if anything."""
    parent = row["parent_span_id"]
    checks = {
        "trace_id must be 16 bytes, not zero": len(row["trace_id"]) == 32 and int(row["trace_id"], 16) != 0,
        "span_id must be 8 bytes, not zero": len(row["span_id"]) == 16 and int(row["span_id"], 16) != 0,
        "parent_span_id must be 8 bytes, not zero": parent is None
        or (len(parent) == 16 and int(parent, 16) != 0),
        "a span is not its own parent": parent != row["span_id"],
        "name is empty": bool(row["name"]),
        "start is not set": row["start_ns"] > 0,
        "ends before it starts": row["end_ns"] >= row["start_ns"],
        "status is not set": row["status"] != "unset",
        "service.name is missing": bool(row["resource"].get("service.name")),
        "agentops.span.kind is missing": bool(row["attributes"].get("agentops.span.kind")),
    }
    return next((reason for reason, holds in checks.items() if not holds), None)


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return getattr(value, kind)


def _decompress(headers: dict[str, str], body: bytes) -> bytes:
    encoding = headers.get("content-encoding", "identity")
    if encoding == "gzip":
        return gzip.decompress(body)
    return zlib.decompress(body) if encoding == "deflate" else body


def _jwt(payload: dict[str, Any]) -> str:
    """A token of JWT's shape; its signature is random, for only this process ever looks at it."""
    parts = (json.dumps({"alg": "HS256", "typ": "JWT"}), json.dumps(payload), secrets.token_hex(16))
    return ".".join(binascii.b2a_base64(part.encode(), newline=False).decode().rstrip("=") for part in parts)


def _json(status: int, body: dict[str, Any]) -> Reply:
    return Reply(status, json.dumps(body).encode())


def _error(status: int, message: str) -> Reply:
    return _json(status, {"error": message})


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="A loopback AgentOps.")
    parser.add_argument("--port", type=int, default=0, help="0: the operating system chooses")
    parser.add_argument("--record", type=Path, help="append each accepted span to this file, as JSON lines")
    parser.add_argument("--api-key", help="the only key that is known; any UUID when left out")
    options = parser.parse_args(arguments)
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        server = FakeServer(FakeAgentOps(options.record, options.api_key), options.port)
    except OSError as error:
        print(f"port {options.port} on 127.0.0.1: {error.strerror}", file=sys.stderr)
        return 1
    with server:
        print(server.url, flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
