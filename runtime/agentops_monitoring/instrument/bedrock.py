"""Model calls through boto3's `bedrock-runtime` client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from agentops_monitoring import instrument, responses
from agentops_monitoring.instrument import model_calls

if TYPE_CHECKING:
    from agentops_monitoring.instrument.model_calls import Call

BROKEN = "the answer was not received to its end, and it names the tokens"

_KEY = "agentops_call"
_STREAMS = {"ConverseStream": "stream", "InvokeModelWithResponseStream": "body"}


def before_call(params: Any, context: Any, **_: Any) -> None:
    """Note the model and the time, before botocore serializes the parameters."""
    if instrument.active():
        context[_KEY] = model_calls.begin(params.get("modelId"), "aws.bedrock", context.get("client_region"))


def before_send(params: Any, model: Any, context: Any, **_: Any) -> None:
    """Hold the worst case of a call that is valid and about to be sent; registered where there is a budget.

    Raises
    ------
    BudgetExceeded
        It does not fit.
    """
    call = context.get(_KEY)
    if call is not None and instrument.guard is not None:
        kind, tier = ("converse", "") if model.name.startswith("Converse") else ("invoke", _tier(params))
        try:
            context[_KEY] = instrument.guard.admit(call, kind, tier, params.get("body"))
        except BaseException:
            del context[_KEY]
            raise


def _tier(params: Any) -> str:
    headers = params.get("headers") or {}
    asked = (headers.get(f"X-Amzn-Bedrock-{name}") for name in ("Service-Tier", "PerformanceConfig-Latency"))
    return responses.bedrock_tier(*asked)


def after_failure(exception: Any, context: Any, **_: Any) -> None:
    """Record a call that got no answer."""
    call = context.pop(_KEY, None)
    if call is not None:
        model_calls.record_failure(call, exception)


def after_call(http_response: Any, parsed: Any, model: Any, context: Any, **_: Any) -> None:
    """Record the call, or arrange for it once its stream has been read."""
    call = context.pop(_KEY, None)
    if call is None:
        return
    if http_response.status_code >= 300:
        with suppress(Exception):
            model_calls.record_failure(call, parsed["Error"]["Code"], http_response.status_code)
        return
    metadata = parsed.get("ResponseMetadata", {})
    request_id = metadata.get("RequestId")
    raw = b""
    if model.name == "InvokeModel":
        try:
            raw = _take_body(parsed)
        except BaseException:
            # The agent hears of it here, and would have in its own read(); the answer was paid for.
            model_calls.record(call, request_id, None, BROKEN)
            raise
    with suppress(Exception):  # the agent has its answer, whatever shape it is of
        if model.name in _STREAMS:
            field = _STREAMS[model.name]
            kind = RecordedAsyncStream if hasattr(type(parsed[field]), "__aiter__") else RecordedStream
            parsed[field] = kind(parsed[field], call, request_id)
            return
        usage, response_id = None, request_id
        with suppress(Exception):  # figures of a shape nobody foresaw: a call without a price
            if model.name == "Converse":
                usage = responses.converse_usage(parsed)
            else:
                body = _json_object(raw)
                response_id = body.get("id") or request_id
                usage = responses.body_usage(body, metadata.get("HTTPHeaders", {}))
        model_calls.record(call, response_id, usage, None, request_id=request_id)


def _take_body(parsed: Any) -> bytes:
    """Read the body of a response and put an unread one in its place."""
    from io import BytesIO

    from botocore.response import StreamingBody

    # That of aiobotocore, a subclass, cannot be read here; the tokens are in the headers too.
    body = parsed.get("body")
    if type(body) is not StreamingBody:
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
    call, request_id
        What is known so far.
    """

    def __init__(self, stream: Any, call: Call, request_id: str | None) -> None:
        self._stream = stream
        self._call: Call | None = call
        self._request_id = request_id
        self._reader = responses.StreamReader()

    def __iter__(self) -> Iterator[Any]:
        with self._reading():
            for event in self._stream:
                self._see(event)
                yield event

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> Any:
        """Close the stream; what was not read is not known."""
        self._finish(model_calls.HALF_READ)
        return self._stream.close()

    def __del__(self) -> None:
        self._finish(model_calls.HALF_READ)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except GeneratorExit:  # the agent left its loop, and may read on in another
            raise
        except BaseException:
            self._finish(model_calls.HALF_READ)
            raise
        self._finish(None)

    def _see(self, event: Mapping[str, Any]) -> None:
        with suppress(Exception):  # an event of a shape nobody foresaw
            if "chunk" in event:
                piece = event["chunk"].get("bytes", b"")
                if b'"usage"' not in piece and b"invocationMetrics" not in piece:
                    return
                event = _json_object(piece)
            if self._reader.see(event):
                # Before the agent has the event, since it may report the call when it sees the tokens.
                self._finish(None)

    def _finish(self, problem: str | None) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        reading = responses.Reading(None, None, None)
        with suppress(Exception):  # figures of a shape nobody foresaw: a call without a price
            reading = self._reader.reading
        response_id = reading.response_id or self._request_id
        model_calls.record(call, response_id, reading.usage, problem, request_id=self._request_id)


class RecordedAsyncStream(RecordedStream):
    """The same for the clients of aiobotocore."""

    __iter__ = None  # type: ignore[assignment]

    async def __aiter__(self) -> AsyncIterator[Any]:
        with self._reading():
            async for event in self._stream:
                self._see(event)
                yield event


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
