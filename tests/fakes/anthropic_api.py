"""Anthropic's Messages API, as its reference describes it, on loopback.

Requests are held against https://platform.claude.com/docs/en/api/messages/create; answers and events have the
shape of its examples and of https://platform.claude.com/docs/en/build-with-claude/streaming; batches that of
https://platform.claude.com/docs/en/build-with-claude/batch-processing. Bedrock and Vertex take the same body
without its model: https://platform.claude.com/docs/en/build-with-claude/claude-on-amazon-bedrock and
…/claude-on-vertex-ai.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from urllib.parse import unquote

from tests.fakes.server import Answer, ContractError, ModelServer, Request, Served, events, need
from tests.unit.core.aws_server import frame

_FIELDS = {
    *("model", "max_tokens", "messages", "stream", "system", "temperature", "top_p", "top_k", "metadata"),
    *("stop_sequences", "tools", "tool_choice", "thinking", "service_tier", "output_config", "output_format"),
    *("anthropic_version", "anthropic_beta", "speed"),
}
_VERSIONS = {"2023-06-01", "2026-10-21"}
"""https://platform.claude.com/docs/en/api/versioning."""
_BLOCKS = {"text", "image", "document", "tool_use", "tool_result", "thinking"}


class AnthropicApi(ModelServer):
    """Answers each message with tokens of its choice; uses a tool once where it is offered one."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._batches: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self._results: dict[str, bytes] = {}
        self.speed: str | None = None

    def answer(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        if path.startswith(("/model/", "/projects/")):
            return self._elsewhere(request, unquote(path))
        bearer = request.headers.get("authorization", "").startswith("Bearer ")
        need(bearer or request.headers.get("x-api-key"), "x-api-key: header is required")
        need(request.headers.get("anthropic-version") in _VERSIONS, "anthropic-version: header is required")
        if path == "/v1/messages/batches" and request.method == "POST":
            return self._make_batch(request.body)
        if path.startswith("/v1/messages/batches/"):
            need(request.method == "GET", "method")
            identifier = path.split("/")[4]
            if path.endswith("/results"):
                return Answer(self._results_of(identifier), "application/x-jsonl")
            return _json(self._batch(identifier))
        need(path == "/v1/messages" and request.method == "POST", f"not_found: {path}")
        _check_message(request.body)
        return self._message(request.body, request.body["model"])

    def refusal(self, error: ContractError) -> Answer:
        body = {"type": "error", "error": {"type": "invalid_request_error", "message": str(error)}}
        return _json(body, 400)

    def overloaded(self, status: int = 529, error: str = "overloaded_error") -> Answer:
        """Return what a provider that is too busy says."""
        headers = {"retry-after-ms": "1", "request-id": "req_1"}
        body = {"type": "error", "error": {"type": error, "message": "Overloaded"}}
        return Answer(json.dumps(body).encode(), status=status, headers=headers)

    def _elsewhere(self, request: Request, path: str) -> Answer:
        body = request.body
        need("model" not in body, "model: Extra inputs are not permitted")
        if path.startswith("/model/"):
            need(body.get("anthropic_version") in {"bedrock-2023-05-31", *_VERSIONS}, "anthropic_version")
            need(request.headers["authorization"].startswith("AWS4-HMAC-SHA256"), "authorization")
            _, _, model, operation = path.split("/")
            need(operation in ("invoke", "invoke-with-response-stream"), "operation")
            need("stream" not in body, "stream: Extra inputs are not permitted")
            _check_message({**body, "model": model})
            return self._message(body, model, frames=operation != "invoke")
        need(body.get("anthropic_version") in {"vertex-2023-10-16", *_VERSIONS}, "anthropic_version")
        need(request.headers["authorization"] == "Bearer token", "authorization")
        model, _, operation = path.rpartition("/")[2].partition(":")
        need(operation == ("streamRawPredict" if body.get("stream") else "rawPredict"), "operation")
        _check_message({**body, "model": model})
        return self._message(body, model)

    def _message(self, body: dict[str, Any], model: str, *, frames: bool = False) -> Answer:
        message, served = self._generate(body, model)
        self.served.append(served)
        headers = {"request-id": "req_011"}
        if not (body.get("stream") or frames):
            return Answer(json.dumps(message).encode(), headers=headers)
        stream = self._stream(message)
        if not frames:
            return Answer(events(stream), "text/event-stream; charset=utf-8", headers=headers)
        stream[-1][1]["amazon-bedrock-invocationMetrics"] = {
            "inputTokenCount": served.input,
            "outputTokenCount": served.output,
            "invocationLatency": 9,
            "firstByteLatency": 5,
        }
        pieces = [
            {"bytes": b64encode(json.dumps(event).encode()).decode(), "p": "abc"} for _, event in stream
        ]
        return Answer(
            [frame("chunk", json.dumps(piece).encode()) for piece in pieces],
            "application/vnd.amazon.eventstream",
        )

    def _generate(self, body: dict[str, Any], model: str) -> tuple[dict[str, Any], Served]:
        count = self.random.randrange
        cached = "cache_control" in json.dumps(body)
        read, write, write_1h = (count(5000), count(3000), count(2000)) if cached else (0, 0, 0)
        tier = "priority" if body.get("service_tier") == "auto" else "standard"
        served = Served(
            f"msg_{self.identifier()}",
            model,
            count(1, 900),
            count(2, 900),
            read,
            write,
            write_1h,
            tier,
        )
        used = any(block["type"] == "tool_result" for block in _blocks(body["messages"]))
        content: list[dict[str, Any]] = [{"type": "text", "text": "".join(self.texts)}]
        if body.get("tools") and not used:
            name = body["tools"][0]["name"]
            content.append({"type": "tool_use", "id": "toolu_01", "name": name, "input": {"city": "Paris"}})
        message = {
            "id": served.id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": content,
            "stop_reason": "tool_use" if len(content) > 1 else "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": served.input,
                "cache_creation_input_tokens": write + write_1h,
                "cache_read_input_tokens": read,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": write,
                    "ephemeral_1h_input_tokens": write_1h,
                },
                "output_tokens": served.output,
                "service_tier": tier,
            },
        }
        return message, served

    def _stream(self, message: dict[str, Any]) -> list[tuple[str | None, Any]]:
        usage = message["usage"]
        opening = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        stream: list[Any] = [{"type": "message_start", "message": opening}]
        for index, block in enumerate(message["content"]):
            empty = {**block, "input": {}} if block["type"] == "tool_use" else {**block, "text": ""}
            stream.append({"type": "content_block_start", "index": index, "content_block": empty})
            if index == 0:
                stream.append({"type": "ping"})
            deltas: list[dict[str, str]] = [{"type": "text_delta", "text": text} for text in self.texts]
            if block["type"] == "tool_use":
                deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
            stream += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            stream.append({"type": "content_block_stop", "index": index})
        totals = {name: usage[name] for name in usage if name.endswith("_tokens")}
        delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
        stream.append({"type": "message_delta", "delta": delta, "usage": totals})
        stream.append({"type": "message_stop"})
        return [(event["type"], event) for event in stream]

    def _make_batch(self, body: dict[str, Any]) -> Answer:
        requests = [(each["custom_id"], each["params"]) for each in body["requests"]]
        for _, params in requests:
            _check_message(params)
        identifier = f"msgbatch_{self.identifier()}"
        self._batches[identifier] = requests
        return _json(self._batch(identifier))

    def _batch(self, identifier: str) -> dict[str, Any]:
        need(identifier in self._batches, "not_found")
        counts = {"processing": 0, "succeeded": len(self._batches[identifier]), "errored": 0}
        return {
            "id": identifier,
            "type": "message_batch",
            "processing_status": "ended",
            "request_counts": {**counts, "canceled": 0, "expired": 0},
            "ended_at": "2026-11-22T08:00:00Z",
            "created_at": "2026-11-22T07:00:00Z",
            "expires_at": "2026-11-23T07:00:00Z",
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{self.url}/v1/messages/batches/{identifier}/results",
        }

    def _results_of(self, identifier: str) -> bytes:
        if identifier not in self._results:
            lines: list[dict[str, Any]] = []
            for custom_id, params in self._batches[identifier]:
                message, served = self._generate(params, params["model"])
                message["usage"]["service_tier"] = "batch"
                self.served.append(served._replace(tier="batch"))
                lines.append({"custom_id": custom_id, "result": {"type": "succeeded", "message": message}})
            refused = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
            lines.append({"custom_id": "bad", "result": {"type": "errored", "error": refused}})
            self._results[identifier] = "".join(json.dumps(line) + "\n" for line in lines).encode()
        return self._results[identifier]


def _json(body: dict[str, Any], status: int = 200) -> Answer:
    return Answer(json.dumps(body).encode(), status=status)


def _blocks(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [block for each in messages if isinstance(each["content"], list) for block in each["content"]]


def _check_message(body: dict[str, Any]) -> None:
    for name in body:
        need(name in _FIELDS, f"{name}: Extra inputs are not permitted")
    need(isinstance(body.get("model"), str), "model: Field required")
    need(type(body.get("max_tokens")) is int and body["max_tokens"] > 0, "max_tokens: Field required")
    messages = body.get("messages")
    need(isinstance(messages, list) and messages, "messages: Field required")
    assert isinstance(messages, list)
    for each in messages:
        need(each.get("role") in ("user", "assistant"), "messages.role")
        need(isinstance(each.get("content"), str | list), "messages.content")
    for block in _blocks(messages):
        need(block.get("type") in _BLOCKS, "messages.content.type")
        control = block.get("cache_control")
        need(control is None or control.get("type") == "ephemeral", "cache_control.type")
        need(control is None or control.get("ttl", "5m") in ("5m", "1h"), "cache_control.ttl")
    for tool in body.get("tools") or ():
        need(tool.get("name") and tool.get("input_schema", {}).get("type") == "object", "tools.input_schema")
    need(isinstance(body.get("stream", False), bool), "stream")
