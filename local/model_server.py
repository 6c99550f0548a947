"""A model on loopback that speaks Bedrock's Converse API.

Scripted and repeatable by default (`model_script.py`); with `--upstream` it passes every call on to an
OpenAI-compatible server instead. Requests are checked against botocore's own description of the API, and
every call that was answered is recorded with its tokens, one JSON line each.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from local.model_api import Answer, ApiError, RequestCheck
from local.model_script import Script, cut, understand, usage
from local.model_upstream import upstream

DEFAULT_MODEL = "global.anthropic.claude-sonnet-5-5"
DEFAULT_MAX_TOKENS = 4096


def scripted(script: Script) -> Callable[[Mapping[str, Any]], Answer]:
    """Answer from the script."""

    def answer(request: Mapping[str, Any]) -> Answer:
        text = script.answer(understand(request))
        kept = cut(text, request.get("inferenceConfig", {}).get("maxTokens", DEFAULT_MAX_TOKENS))
        return kept, "end_turn" if kept == text else "max_tokens", usage(request, kept)

    return answer


class ModelServer(ThreadingHTTPServer):
    """The server.

    Parameters
    ----------
    port
        On 127.0.0.1; 0 lets the system choose.
    answer
        Makes the answer to a request.
    record
        File for the calls; none by default.
    latency
        Seconds that every answer takes.
    """

    daemon_threads = True
    # Many agents may call at once.
    request_queue_size = 128

    def __init__(
        self,
        port: int,
        answer: Callable[[Mapping[str, Any]], Answer],
        *,
        record: Path | None = None,
        latency: float = 0.0,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer, self.latency, self.check = answer, latency, RequestCheck()
        self._record, self._lock = record, threading.Lock()
        if record:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.touch()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def record(self, call: Mapping[str, Any]) -> None:
        """Write one call to the file."""
        if self._record:
            with self._lock, self._record.open("a", encoding="utf-8") as file:
                file.write(json.dumps(call) + "\n")


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"
    # Small answers should not wait for the client's acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/foundation-models":
            summary = {"modelId": DEFAULT_MODEL, "providerName": "Anthropic"}
            return self._send(200, {"modelSummaries": [summary]}, {})
        return self._send(404, {"message": "no such path"}, {"x-amzn-ErrorType": "UnknownOperationException"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        identifier = {"x-amzn-RequestId": str(uuid.uuid4())}
        try:
            answer = self._converse(body, identifier["x-amzn-RequestId"])
        except ApiError as error:
            headers = {**identifier, "x-amzn-ErrorType": error.kind}
            return self._send(error.status, {"message": str(error)}, headers)
        return self._send(200, answer, identifier)

    def _converse(self, body: bytes, request_id: str) -> dict[str, Any]:
        parts = self.path.partition("?")[0].split("/")
        if len(parts) != 4 or parts[1] != "model" or parts[3] != "converse":
            raise ApiError(404, "UnknownOperationException", f"only Converse is served, not {self.path}")
        try:
            request = json.loads(body)
        except ValueError as error:
            raise ApiError(400, "SerializationException", str(error)) from error
        if not isinstance(request, dict):
            raise ApiError(400, "SerializationException", "the body has to be an object")
        started = time.monotonic()
        self.server.check({"modelId": unquote(parts[2]), **request})
        text, stop_reason, counts = self.server.answer(request)
        time.sleep(self.server.latency)
        latency_ms = round((time.monotonic() - started) * 1000)
        call = understand(request)
        self.server.record(
            {
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request_id": request_id,
                "model": unquote(parts[2]),
                "role": call.role,
                "function": call.function,
                "attempt": call.attempt,
                "input_tokens": counts["inputTokens"],
                "output_tokens": counts["outputTokens"],
                "cache_read_tokens": counts["cacheReadInputTokens"],
                "cache_write_tokens": counts["cacheWriteInputTokens"],
                "stop_reason": stop_reason,
                "latency_ms": latency_ms,
            }
        )
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": text}] if text else []}},
            "stopReason": stop_reason,
            "usage": counts,
            "metrics": {"latencyMs": latency_ms},
        }

    def _send(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": len(data),
            **headers,
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Calls are on record; a line for each on stderr helps nobody."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; the first line on stdout is the URL."""
    parser = argparse.ArgumentParser(prog="local.model_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument(
        "--seed", type=int, default=7, help="decides which defects the script mends, and when"
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="every call with its tokens, as JSON lines"
    )
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="of every answer")
    parser.add_argument(
        "--upstream", metavar="URL", help="an OpenAI-compatible server, such as http://host/v1"
    )
    parser.add_argument("--upstream-model", metavar="NAME", help="the model there")
    options = parser.parse_args(arguments)
    if bool(options.upstream) != bool(options.upstream_model):
        parser.error("--upstream and --upstream-model go together")
    if options.upstream:
        answer = upstream(options.upstream, options.upstream_model)
    else:
        answer = scripted(Script(options.seed))
    try:
        server = ModelServer(options.port, answer, record=options.record, latency=options.latency)
    except OSError as error:
        print(f"model server: port {options.port}: {error.strerror}; choose another --port", file=sys.stderr)
        return 1
    print(server.url, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
