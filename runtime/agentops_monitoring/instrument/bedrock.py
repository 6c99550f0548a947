"""Model calls through boto3's `bedrock-runtime` client."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from agentops_monitoring import instrument, llm, responses, trace
from agentops_monitoring.trace import TraceContext

if TYPE_CHECKING:
    from agentops_monitoring.pricing import TokenUsage

_KEY = "agentops_call"
_TOKENS = tuple(name for name, _ in llm.TOKEN_FIELDS)
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
    # Outside the guard below: a connection that breaks here would have broken in the agent's own read().
    raw = _take_body(parsed) if model.name == "InvokeModel" else b""
    with suppress(Exception):  # the agent has its answer, whatever shape it is of
        metadata = parsed.get("ResponseMetadata", {})
        response_id = metadata.get("RequestId")
        if model.name in _STREAMS:
            field = _STREAMS[model.name]
            kind = RecordedAsyncStream if hasattr(type(parsed[field]), "__aiter__") else RecordedStream
            parsed[field] = kind(parsed[field], call, response_id)
            return
        usage = None
        with suppress(Exception):  # figures of a shape nobody foresaw: a call without a price
            if model.name == "Converse":
                usage = responses.converse_usage(parsed)
            else:
                body = _json_object(raw)
                response_id = body.get("id") or response_id
                usage = responses.body_usage(body, metadata.get("HTTPHeaders", {}))
        _record(call, response_id, usage)


def _take_body(parsed: Any) -> bytes:
    """Read the body of a response and put an unread one in its place."""
    from io import BytesIO

    from botocore.response import StreamingBody

    # That of an asynchronous client cannot be read here; the tokens are in the headers too.
    body = parsed.get("body")
    if not isinstance(body, StreamingBody):
        return b""
    raw: bytes = body.read()
    parsed["body"] = StreamingBody(BytesIO(raw), len(raw))
    return raw


class RecordedStream:
    """A response's event stream that records the call once its tokens are known, or cannot become so.

    Parameters
    ----------
    stream
        The client's own.
    call, response_id
        What is known so far.
    """

    def __init__(self, stream: Any, call: _Call, response_id: str | None) -> None:
        self._stream = stream
        self._call: _Call | None = call
        self._response_id = response_id
        self._seen: dict[str, Any] = {}
        self._usage: TokenUsage | None = None

    def __iter__(self) -> Iterator[Any]:
        with self._reading():
            for event in self._stream:
                self._see(event)
                yield event

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> Any:
        """Close the stream; what was not read is not known."""
        self._finish()
        return self._stream.close()

    def __del__(self) -> None:
        self._finish()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except GeneratorExit:  # the agent left its loop, and may read on in another
            raise
        except BaseException:
            self._finish()
            raise
        self._finish()

    def _see(self, event: Any) -> None:
        with suppress(Exception):  # an event of a shape nobody foresaw
            if self._completed_by(event):
                # Before the agent has the event, since it may report the call when it sees the tokens.
                self._finish()

    def _completed_by(self, event: Mapping[str, Any]) -> bool:
        metadata = event.get("metadata")
        if metadata is not None:
            self._usage = responses.converse_usage(metadata)
            return True
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
            self._usage = responses.body_usage(self._seen, {})
        return "amazon-bedrock-invocationMetrics" in self._seen

    def _finish(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            with suppress(Exception):  # also runs in __del__, at the interpreter's end
                _record(call, self._response_id, self._usage)


class RecordedAsyncStream(RecordedStream):
    """The same for the clients of aiobotocore."""

    __iter__ = None  # type: ignore[assignment]

    async def __aiter__(self) -> AsyncIterator[Any]:
        with self._reading():
            async for event in self._stream:
                self._see(event)
                yield event


def _record(call: _Call, response_id: str | None, usage: TokenUsage | None) -> None:
    llm.record_call(
        instrument.monitor(),
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


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
