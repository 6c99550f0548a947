"""OpenAI's API, as its reference describes it, on loopback.

Requests are held against https://platform.openai.com/docs/api-reference (chat, responses, embeddings, batch,
files), answers and events have the shape of its examples; Azure's paths are those of
https://learn.microsoft.com/azure/ai-foundry/openai/reference.
"""

from __future__ import annotations

import json
from base64 import b64encode
from struct import pack
from typing import Any

from tests.fakes.server import Answer, ContractError, ModelServer, Request, Served, events, need

_ROLES = {"system", "developer", "user", "assistant", "tool"}


class OpenaiApi(ModelServer):
    """Answers each request with tokens of its choice; uses a tool where it is offered one."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.answers_as: str | None = None
        """The model's name in answers, where it is not the one that was asked for."""
        self._kept: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}

    def answer(self, request: Request) -> Answer:
        path, _, query = request.path.partition("?")
        body = request.body
        if path.startswith("/openai/deployments/"):
            need(request.headers.get("api-key"), "api-key")
            need("api-version=" in query, "api-version")
            _, _, _, deployment, path = path.split("/", 4)
            need(body.get("model") == deployment, "model")
            path = f"/v1/{path}"
        else:
            need(request.headers.get("authorization", "").startswith("Bearer "), "authorization")
        if request.method == "GET":
            if path.startswith("/v1/files/"):
                return Answer(self.files[path.split("/")[3]], "application/octet-stream")
            need(path.startswith("/v1/responses/"), f"not found: {path}")
            kept = self._kept[path.split("/")[3]]
            kept["status"], kept["usage"] = "completed", kept.pop("later", None) or kept["usage"]
            return _json(kept)
        need(isinstance(body.get("model"), str), "you must provide a model parameter")
        routes = {
            "/v1/chat/completions": self._chat,
            "/v1/responses": self._respond,
            "/v1/embeddings": self._embed,
        }
        need(path in routes, f"not found: {path}")
        return routes[path](body)

    def refusal(self, error: ContractError) -> Answer:
        body = {"message": str(error), "type": "invalid_request_error", "param": None, "code": None}
        return _json({"error": body}, 400)

    def overloaded(self, status: int = 503, error: str = "server_error") -> Answer:
        """Return what a provider that is too busy says."""
        body = {"error": {"message": "busy", "type": error, "param": None, "code": None}}
        return Answer(json.dumps(body).encode(), status=status, headers={"retry-after-ms": "1"})

    def _count(self, model: str, tier: object, prefix: str) -> Served:
        count = self.random.randrange
        tier = {"flex": "flex", "priority": "priority"}.get(str(tier), "standard")
        identifier = f"{prefix}{self.identifier()}"
        return Served(
            identifier,
            self.answers_as or model,
            count(1, 900),
            count(2, 900),
            count(2) * count(900),
            tier=tier,
        )

    def _chat(self, body: dict[str, Any]) -> Answer:
        need(isinstance(body.get("messages"), list) and body["messages"], "messages")
        for each in body["messages"]:
            need(each.get("role") in _ROLES, "messages.role")
        need("stream_options" not in body or body.get("stream"), "stream_options: only with stream")
        served = self._count(body["model"], body.get("service_tier"), "chatcmpl-")
        self.served.append(served)
        usage = {
            "prompt_tokens": served.input + served.read,
            "completion_tokens": served.output,
            "total_tokens": served.input + served.read + served.output,
            "prompt_tokens_details": {"cached_tokens": served.read, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": served.output // 2,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.texts), "refusal": None}
        if body.get("tools"):
            name = body["tools"][0]["function"]["name"]
            call = {"name": name, "arguments": '{"city":"Paris"}'}
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": call}]
        if (body.get("response_format") or {}).get("type") == "json_schema":
            message["content"] = '{"city":"Paris"}'
        common = {
            "id": served.id,
            "created": 1_795_334_400,
            "model": served.model,
            "service_tier": "default" if served.tier == "standard" else served.tier,
            "system_fingerprint": "fp_44709d6fcb",
        }
        reason = "tool_calls" if body.get("tools") else "stop"
        if not body.get("stream"):
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
            return _json({**common, "object": "chat.completion", "choices": [choice], "usage": usage})
        with_usage = (body.get("stream_options") or {}).get("include_usage")
        empty = {"usage": None} if with_usage else {}
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": text} for text in self.texts]
        chunks: list[dict[str, Any]] = []
        for delta in [*deltas, {}]:
            ended = None if delta else reason
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": ended}
            chunks.append({**common, "object": "chat.completion.chunk", "choices": [choice], **empty})
        if with_usage:
            chunks.append({**common, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        stream: list[tuple[str | None, Any]] = [(None, chunk) for chunk in chunks]
        return Answer(events([*stream, (None, "[DONE]")]), "text/event-stream; charset=utf-8")

    def _respond(self, body: dict[str, Any]) -> Answer:
        need(isinstance(body.get("input"), str | list), "input")
        served = self._count(body["model"], body.get("service_tier"), "resp_")
        self.served.append(served)
        usage = {
            "input_tokens": served.input + served.read,
            "input_tokens_details": {"cached_tokens": served.read},
            "output_tokens": served.output,
            "output_tokens_details": {"reasoning_tokens": served.output // 2},
            "total_tokens": served.input + served.read + served.output,
        }
        text = {"type": "output_text", "text": "".join(self.texts), "annotations": [], "logprobs": []}
        if (body.get("text") or {}).get("format", {}).get("type") == "json_schema":
            text["text"] = '{"city":"Paris"}'
        output = [
            {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [text]}
        ]
        response = {
            "id": served.id,
            "object": "response",
            "created_at": 1_795_334_400,
            "status": "completed",
            "background": bool(body.get("background")),
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "model": served.model,
            "output": output,
            "parallel_tool_calls": True,
            "service_tier": "default" if served.tier == "standard" else served.tier,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": usage,
        }
        begun = {**response, "status": "in_progress", "output": [], "usage": None}
        if body.get("background") and not body.get("stream"):
            self._kept[str(served.id)] = {**response, "usage": None, "later": usage}
            return _json({**begun, "status": "queued"})
        self._kept[str(served.id)] = dict(response)
        if not body.get("stream"):
            return _json(response)
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        stream: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            {"type": "response.in_progress", "response": begun},
            {
                "type": "response.output_item.added",
                "output_index": 0,
                "item": {**output[0], "status": "in_progress", "content": []},
            },
            {"type": "response.content_part.added", **place, "part": {**text, "text": ""}},
            *(
                {"type": "response.output_text.delta", **place, "delta": each, "logprobs": []}
                for each in self.texts
            ),
            {"type": "response.output_text.done", **place, "text": text["text"], "logprobs": []},
            {"type": "response.content_part.done", **place, "part": text},
            {"type": "response.output_item.done", "output_index": 0, "item": output[0]},
            {"type": "response.completed", "response": response},
        ]
        numbered = [{**event, "sequence_number": number} for number, event in enumerate(stream)]
        return Answer(
            events([(event["type"], event) for event in numbered]), "text/event-stream; charset=utf-8"
        )

    def _embed(self, body: dict[str, Any]) -> Answer:
        need(isinstance(body.get("input"), str | list), "input")
        need(body.get("encoding_format", "float") in ("float", "base64"), "encoding_format")
        served = self._count(body["model"], None, "")._replace(id=None, output=0, read=0)
        self.served.append(served)
        vector: Any = [0.5, -0.25, 0.125]
        if body.get("encoding_format") == "base64":
            vector = b64encode(pack("<3f", *vector)).decode()
        return _json(
            {
                "object": "list",
                "data": [{"object": "embedding", "index": 0, "embedding": vector}],
                "model": served.model,
                "usage": {"prompt_tokens": served.input, "total_tokens": served.input},
            }
        )

    def batch_output(self, requests: list[tuple[str, dict[str, Any]]]) -> str:
        """Run requests (path, body) as a batch; returns the id of the file with its results."""
        lines = []
        for number, (path, body) in enumerate(requests):
            route = {"/v1/chat/completions": self._chat, "/v1/embeddings": self._embed}[path]
            answered = route(body)
            assert isinstance(answered.body, bytes)
            self.served[-1] = self.served[-1]._replace(tier="batch")
            identifier = f"batch_req_{self.identifier()}"
            if self.served[-1].id is None:
                self.served[-1] = self.served[-1]._replace(id=identifier)
            response = {"status_code": 200, "request_id": "req_1", "body": json.loads(answered.body)}
            lines.append({"id": identifier, "custom_id": f"r-{number}", "response": response, "error": None})
        self.files["file-1"] = "".join(json.dumps(line) + "\n" for line in lines).encode()
        return "file-1"


def _json(body: dict[str, Any], status: int = 200) -> Answer:
    return Answer(json.dumps(body).encode(), status=status, headers={"x-request-id": "req_1"})
