"""One invocation of a handler: its context, and its events from start to end."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from agentops_monitoring import identity, trace
from agentops_monitoring.encoding import render
from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.propagation import Incoming, incoming
from agentops_monitoring.trace import TraceContext

if TYPE_CHECKING:
    from agentops_monitoring.monitor import AgentOpsMonitor

_OWN_FILES = os.path.dirname(__file__)
MAX_FRAMES = 50

_cold = True


class Invocation:
    """Context manager around the call of a handler; never raises, lets every exception through untouched.

    Parameters
    ----------
    monitor
        Records the events.
    event, lambda_context
        The handler's arguments.
    """

    __slots__ = ("_context", "_monitor", "_parent_id", "_started", "_token", "event", "lambda_context")

    _token: Token[TraceContext | None]

    def __init__(self, monitor: AgentOpsMonitor, event: object, lambda_context: object) -> None:
        self._monitor = monitor
        self._context: TraceContext | None = None
        self.event = event
        self.lambda_context = lambda_context

    def __enter__(self) -> Self:
        with suppress(Exception):  # an event of a shape nobody foresaw must still reach the handler
            self._enter()
        return self

    def _enter(self) -> None:
        global _cold
        # Before all else: nothing recorded inside the span may be older than the span.
        self._started = time.monotonic_ns()
        cold_start, _cold = _cold, False
        now = time.time_ns() // 1_000_000
        span_id = identity.new_span_id()
        request_id = request_id_of(self.lambda_context)
        message = incoming(self.event)
        if message is None:
            # A retry keeps its request id, and so its workflow.
            workflow_id = request_id.replace("-", "") if request_id else os.urandom(16).hex()
            context = TraceContext(
                workflow_id, span_id=span_id, request_id=request_id, workflow_started_ms=now
            )
            self._parent_id = None
        else:
            context = TraceContext(
                message.workflow_id,
                trace_id=message.trace_id,
                span_id=span_id,
                request_id=request_id,
                hop=message.hop,
                workflow_started_ms=message.workflow_started_ms,
            )
            self._parent_id = message.span_id
        self._context = context
        self._token = trace.enter(context)
        trace.activate(self, context)
        self._emit(
            AgentEventType.INVOCATION_STARTED,
            {"cold_start": cold_start, "trigger": trigger_of(self.event)},
            now,
        )
        if message is not None:
            self._monitor.emit(
                AgentEventType.MESSAGE_RECEIVED,
                _receipt(message, self._monitor.agent_name, now),
                context=context,
                at_ms=now,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if self._context is None:
            return
        try:
            duration = round((time.monotonic_ns() - self._started) / 1_000_000, 3)
            if error is None:
                self._emit(AgentEventType.INVOCATION_COMPLETED, {"duration_ms": duration})
            else:
                data = {"duration_ms": duration, "error": describe(error, frames)}
                self._emit(AgentEventType.INVOCATION_FAILED, data)
        except Exception:  # noqa: BLE001, S110 - the handler's own outcome stands
            pass
        finally:
            trace.deactivate(self)
            trace.leave(self._token)

    def _emit(self, kind: AgentEventType, data: Mapping[str, Any], at_ms: int | None = None) -> None:
        assert self._context is not None
        self._monitor.emit(
            kind,
            data,
            context=self._context,
            span_id=self._context.span_id,
            parent_id=self._parent_id,
            at_ms=at_ms,
        )


def running(lambda_context: object) -> bool:
    """Whether the calling code is already inside an invocation of that request."""
    request_id = request_id_of(lambda_context)
    context = trace.current()
    return request_id is not None and context.request_id == request_id


def request_id_of(lambda_context: object) -> str | None:
    """Return Lambda's request id, where the context has one."""
    try:
        request_id = getattr(lambda_context, "aws_request_id", None)
    except Exception:  # noqa: BLE001 - a property that raises is the handler's to meet
        return None
    return request_id if type(request_id) is str and request_id else None


def trigger_of(event: object) -> str:
    """Name what invoked the function, by the shape of its event."""
    if not issubclass(type(event), Mapping):
        return "direct"
    event = cast(Mapping[str, Any], event)
    if "detail-type" in event and "source" in event:
        if event["detail-type"] == "Scheduled Event":
            return "schedule"
        return "alarm" if event["source"] == "aws.cloudwatch" else "eventbridge"
    if "alarmData" in event:
        return "alarm"
    records = event.get("Records")
    if isinstance(records, list) and records and isinstance(records[0], Mapping):
        source = records[0].get("eventSource") or records[0].get("EventSource")
        if isinstance(source, str):
            return source.removeprefix("aws:")
    if "requestContext" in event:
        return "http"
    return "direct"


def _receipt(message: Incoming, agent: str, now: int) -> dict[str, Any]:
    return {
        "from": message.sender,
        "to": agent,
        "message_type": message.message_type,
        "message_id": message.message_id,
        "hop": message.hop,
        # Clocks differ a little between hosts; no message arrives before it was sent.
        "latency_ms": max(0, now - message.sent_ms) if message.sent_ms else None,
    }


def describe(error: BaseException, frames: TracebackType | None) -> dict[str, str]:
    """Describe an exception by type, message and traceback, with what looks like secrets hidden."""
    import traceback

    from agentops_monitoring.redaction import redact_text

    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OWN_FILES):
        frames = frames.tb_next
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a __str__ that raises
        message = str(render(error))
    try:
        stack = "".join(traceback.format_exception(kind, error, frames, limit=-MAX_FRAMES))
    except Exception as failure:  # noqa: BLE001 - an exception that cannot be formatted
        stack = f"<no traceback: {type(failure).__name__}>"
    return {"type": name, "message": redact_text(message), "stack": redact_text(stack)}
