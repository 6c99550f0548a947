"""Model calls through boto3's `bedrock-runtime` client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from agentops_monitoring import instrument, trace
from agentops_monitoring.trace import TraceContext

if TYPE_CHECKING:
    from agentops_monitoring.pricing import TokenUsage

_KEY = "agentops_call"
_STREAMS = {"ConverseStream": "stream", "InvokeModelWithResponseStream": "body"}


class _Call(NamedTuple):
    model: str
    started_ns: int
    context: TraceContext
    region: str | None


def before_call(params: Any, context: Any, **_: Any) -> None:
    """Note the model and the time, before botocore serializes the parameters."""
    if instrument.active():
        model = params.get("modelId")
        context[_KEY] = _Call(
            model if isinstance(model, str) else "unknown",
            time.monotonic_ns(),
            trace.current(),
            context.get("client_region"),
        )


def after_call(http_response: Any, parsed: Any, model: Any, context: Any, **_: Any) -> None:
    """Record the call, or arrange for it once its stream has been read."""
    call = context.pop(_KEY, None)
    if call is None or http_response.status_code >= 300:
        return
    if model.name == "InvokeModel":
        # Outside the guard below: a connection that breaks here would have broken in the agent's own read().
        raw = parsed["body"].read()
        from io import BytesIO

        from botocore.response import StreamingBody

        parsed["body"] = StreamingBody(BytesIO(raw), len(raw))
    try:
        response_id = parsed.get("ResponseMetadata", {}).get("RequestId")
        if model.name == "Converse":
            _record(call, response_id, _converse_usage(parsed))
        elif model.name == "InvokeModel":
            body = _json_object(raw)
            headers = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            _record(call, body.get("id") or response_id, _body_usage(body, headers))
        else:
            field = _STREAMS[model.name]
            parsed[field] = RecordedStream(parsed[field], call, response_id)
    except Exception:  # noqa: BLE001, S110 - the agent has its answer, whatever shape it is of
        pass


class RecordedStream:
    """A response's event stream that records the call when it has been read, closed or dropped."""

    def __init__(self, stream: Any, call: _Call, response_id: str | None) -> None:
        self._stream = stream
        self._call: _Call | None = call
        self._response_id = response_id
        self._seen: dict[str, Any] = {}
        self._usage: TokenUsage | None = None

    def __iter__(self) -> Iterator[Any]:
        try:
            for event in self._stream:
                with suppress(Exception):  # an event of a shape nobody foresaw
                    self._observe(event)
                yield event
        finally:
            self._finish()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        """Close the stream; what was not read is not known."""
        self._finish()
        self._stream.close()

    def __del__(self) -> None:
        self._finish()

    def _observe(self, event: Mapping[str, Any]) -> None:
        metadata = event.get("metadata")
        if metadata is not None:
            self._usage = _converse_usage(metadata)
            return
        piece = event.get("chunk", {}).get("bytes", b"")
        if b'"usage"' in piece or b"invocationMetrics" in piece:
            body = _json_object(piece)
            message = body.get("message", {})
            self._response_id = message.get("id") or self._response_id
            # The later figures are running totals.
            for found in (message.get("usage"), body.get("usage")):
                self._seen.setdefault("usage", {}).update(found or {})
            if body.get("amazon-bedrock-invocationMetrics"):
                self._seen["amazon-bedrock-invocationMetrics"] = body["amazon-bedrock-invocationMetrics"]
            self._usage = _body_usage(self._seen, {})

    def _finish(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            with suppress(Exception):  # also runs in __del__, at the interpreter's end
                _record(call, self._response_id, self._usage)


def _record(call: _Call, response_id: str | None, usage: TokenUsage | None) -> None:
    instrument.monitor().record_call(
        model=call.model,
        tokens=dict.fromkeys(_TOKENS) if usage is None else {name: getattr(usage, name) for name in _TOKENS},
        tier="standard" if usage is None else usage.tier,
        region=call.region,
        provider="aws.bedrock",
        response_id=response_id,
        duration_ms=round((time.monotonic_ns() - call.started_ns) / 1_000_000, 3),
        source="auto",
        problems=["the response names no tokens, or its stream was not read to the end"]
        if usage is None
        else [],
        context=call.context,
    )


_TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
)


def _converse_usage(answer: Mapping[str, Any]) -> TokenUsage | None:
    from agentops_monitoring.pricing import TokenUsage

    usage = answer.get("usage")
    if not usage:
        return None
    tier = (answer.get("serviceTier") or {}).get("type", "standard")
    return TokenUsage.from_bedrock(usage)._replace(tier="standard" if tier == "default" else tier)


def _body_usage(body: Mapping[str, Any], headers: Mapping[str, str]) -> TokenUsage | None:
    """Read the tokens of InvokeModel, whose body is the model's own."""
    from agentops_monitoring.pricing import TokenUsage

    usage = body.get("usage")
    if isinstance(usage, Mapping):
        if "input_tokens" in usage:
            return TokenUsage.from_anthropic(usage)
        if "prompt_tokens" in usage:
            return TokenUsage.from_openai(usage)
        if "inputTokens" in usage:
            counts = {**usage}
            for kind in ("Read", "Write"):
                counts.setdefault(f"cache{kind}InputTokens", usage.get(f"cache{kind}InputTokenCount", 0))
            return TokenUsage.from_bedrock(counts)
    metrics = body.get("amazon-bedrock-invocationMetrics")
    if isinstance(metrics, Mapping):
        return TokenUsage(
            metrics["inputTokenCount"],
            metrics["outputTokenCount"],
            metrics.get("cacheReadInputTokenCount") or 0,
            metrics.get("cacheWriteInputTokenCount") or 0,
        )
    prefix = "x-amzn-bedrock-"
    if f"{prefix}input-token-count" in headers:
        return TokenUsage(
            int(headers[f"{prefix}input-token-count"]),
            # An embedding has no output.
            int(headers.get(f"{prefix}output-token-count", 0)),
            int(headers.get(f"{prefix}cache-read-input-token-count", 0)),
            int(headers.get(f"{prefix}cache-write-input-token-count", 0)),
        )
    return None


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
