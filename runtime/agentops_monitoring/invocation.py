"""One invocation of a handler: its context, and its events from start to end."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from agentops_monitoring import identity, trace
from agentops_monitoring.encoding import render
from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.propagation import Incoming, received
from agentops_monitoring.receiving import receipt
from agentops_monitoring.trace import TraceContext
from agentops_monitoring.triggers import trigger_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from types import TracebackType
    from typing import Any, Self

    from agentops_monitoring.monitor import AgentOpsMonitor

_OWN_FILES = os.path.join(os.path.dirname(__file__), "")
MAX_FRAMES = 50
_PROVISIONED = "provisioned-concurrency"

_cold = True
# By what all contexts of an invocation share.
_under_way: dict[int, Invocation] = {}


class Invocation:
    """Context manager around the call of a handler; never raises, lets every exception through untouched.

    Parameters
    ----------
    monitor
        Records the events.
    event, lambda_context
        The handler's arguments.
    """

    __slots__ = (
        "_context", "_inside", "_outside", "_parent_id", "_started", "_token",
        "closed_early", "ended", "event", "lambda_context", "monitor", "received",
    )  # fmt: skip

    def __init__(self, monitor: AgentOpsMonitor, event: object, lambda_context: object) -> None:
        self.monitor = monitor
        self._context: TraceContext | None = None
        self._token: Token[TraceContext | None] | None = None
        self._inside: TraceContext | None = None
        self._parent_id: str | None = None
        self.event = event
        self.lambda_context = lambda_context
        self.closed_early = False
        """Set for a generator whose reader left: that is no failure."""
        self.ended = False
        self.received: set[str] = set()
        """Ids of the messages whose receipt it has recorded."""

    def __enter__(self) -> Self:
        # Before all else: nothing recorded inside the span may be older than the span.
        self._started = time.monotonic_ns()
        with suppress(Exception):  # an event of a shape nobody foresaw must still reach the handler
            self._enter()
        return self

    def _enter(self) -> None:
        if _running(self.event, self.lambda_context):
            return  # wrapped twice
        now = time.time_ns() // 1_000_000
        request_id = request_id_of(self.lambda_context)
        messages = received(self.event, self.lambda_context)
        span_id = identity.new_span_id()
        joined = _only_workflow(messages)
        if joined is None:
            # A retry keeps its request id, and so its workflow.
            workflow_id = request_id.replace("-", "") if request_id else os.urandom(16).hex()
            context = TraceContext(
                workflow_id, span_id=span_id, request_id=request_id, workflow_started_ms=now
            )
        else:
            context = joined.context(span_id=span_id, request_id=request_id, calls=None)
            self._parent_id = joined.span_id
        self._context = context
        self._token = trace.enter(context)
        trace.activate(self, context)
        _under_way[id(context.calls)] = self
        self.record(AgentEventType.INVOCATION_STARTED, _start(self.event), now)
        for message in messages:
            if message is not None:
                self._receive(message, joined is not None, now)
        if hasattr(self.lambda_context, "get_remaining_time_in_millis"):
            from agentops_monitoring.watchdog import WATCHDOG

            WATCHDOG.watch(self)

    def _receive(self, message: Incoming, joined: bool, now: int) -> None:
        assert self._context is not None
        context = self._context
        self.received.add(message.message_id)
        if not joined:
            # Each message of a mixed batch is received in its own workflow, below its sender's span.
            context = message.context(
                span_id=message.span_id, request_id=context.request_id, calls=context.calls
            )
        agent = self.monitor.agent_name
        self.monitor.emit(
            AgentEventType.MESSAGE_RECEIVED, receipt(message, agent, now), context=context, at_ms=now
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self.ended = True
        if self._context is None:
            return
        try:
            duration = self.duration_ms()
            if error is None or (self.closed_early and isinstance(error, GeneratorExit)):
                data: dict[str, Any] = {"duration_ms": duration}
                if self.closed_early:
                    data["closed_early"] = True
                self.record(AgentEventType.INVOCATION_COMPLETED, data)
            else:
                data = {"duration_ms": duration, "error": describe(error, frames)}
                self.record(AgentEventType.INVOCATION_FAILED, data)
        except Exception:  # noqa: BLE001, S110 - the handler's own outcome stands
            pass
        finally:
            trace.deactivate(self)
            _under_way.pop(id(self._context.calls), None)
            if self._token is not None:
                trace.leave(self._token, self._context)
            watchdog = sys.modules.get("agentops_monitoring.watchdog")
            if watchdog is not None:
                watchdog.WATCHDOG.release(self)

    def detach(self) -> None:
        """Leave the invocation's context; from now on `resume` and `pause` enclose each step of a generator.

        Between two steps the reader's code runs, which is no part of the invocation.
        """
        if self._context is not None and self._token is not None:
            trace.leave(self._token, self._context)
            self._token = None
            self._inside = self._context

    def resume(self) -> None:
        """Enter the invocation's context, and what the generator has entered in it."""
        if self._context is not None:
            self._outside = trace.swap(self._inside)

    def pause(self) -> None:
        """Leave them again."""
        if self._context is not None:
            self._inside = trace.swap(self._outside)

    def duration_ms(self) -> float:
        """Return how long the invocation has run, in milliseconds."""
        return round((time.monotonic_ns() - self._started) / 1_000_000, 3)

    def record(self, kind: str, data: Mapping[str, Any], at_ms: int | None = None) -> None:
        """Write an event of the invocation's own span."""
        assert self._context is not None
        self.monitor.emit(
            kind,
            data,
            context=self._context,
            span_id=self._context.span_id,
            parent_id=self._parent_id,
            at_ms=at_ms,
        )


def of_context(context: TraceContext) -> Invocation | None:
    """Return the invocation that a context belongs to, while it runs."""
    return _under_way.get(id(context.calls))


def _running(event: object, lambda_context: object) -> bool:
    """Whether the calling code is already inside the invocation with these arguments."""
    request_id = request_id_of(lambda_context)
    if request_id is not None:
        return trace.current().request_id == request_id
    context = trace.entered()
    outer = None if context is None else of_context(context)
    return outer is not None and outer.event is event and outer.lambda_context is lambda_context


def request_id_of(lambda_context: object) -> str | None:
    """Return Lambda's request id, where the context has one."""
    try:
        request_id = getattr(lambda_context, "aws_request_id", None)
    except Exception:  # noqa: BLE001 - a property that raises is the handler's to meet
        return None
    return request_id if type(request_id) is str and request_id else None


def _start(event: object) -> dict[str, Any]:
    global _cold
    first, _cold = _cold, False
    data: dict[str, Any] = {"cold_start": first, "trigger": trigger_of(event)}
    kind = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE")
    if kind and first:
        # What was made ready ahead of its first event kept nobody waiting. Lambda restores a snapshot when
        # an event comes, so the first one after that is cold.
        data["cold_start"] = kind not in (_PROVISIONED, "lambda-managed-instances")
    if kind and (first or kind == _PROVISIONED):
        data["initialization"] = kind  # of each, where each has another price
    return data


def _only_workflow(messages: list[Incoming | None]) -> Incoming | None:
    """Return the first message where all of them belong to one workflow."""
    first = messages[0] if messages else None
    if first is None or any(each is None or each.workflow_id != first.workflow_id for each in messages):
        return None
    return first


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
