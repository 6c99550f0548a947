"""Context managers that say where events belong: a span, a workflow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agentops_monitoring import arguments, identity, trace
from agentops_monitoring.event_types import SPAN
from agentops_monitoring.trace import TraceContext

if TYPE_CHECKING:
    from agentops_monitoring.monitor import AgentOpsMonitor


class Span:
    """A stretch of work; leaves one event with its duration when it ends."""

    __slots__ = ("_context", "_fields", "_monitor", "_name", "_started", "_token", "span_id")

    _token: Token[TraceContext | None]

    def __init__(self, monitor: AgentOpsMonitor, name: str, fields: Mapping[str, Any]) -> None:
        self._monitor = monitor
        self._name = name
        self._fields = fields
        self.span_id = identity.new_span_id()

    def __enter__(self) -> Self:
        self._context = trace.current()
        self._token = trace.enter(self._context.within(self.span_id))
        self._started = time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        trace.leave(self._token)
        duration = (time.monotonic_ns() - self._started) / 1_000_000
        data = {**self._fields, "name": self._name, "duration_ms": round(duration, 3)}
        if kind is not None:
            data["error"] = {"type": kind.__qualname__}
        self._monitor.emit(
            SPAN, data, context=self._context, span_id=self.span_id, parent_id=self._context.span_id
        )


class Workflow:
    """Makes a workflow current. Joining the workflow that is current already changes nothing."""

    __slots__ = ("_id", "_token", "context")

    _token: Token[TraceContext | None]

    def __init__(self, workflow_id: str | None) -> None:
        self._id = arguments.identifier(workflow_id) or identity.new_span_id() + identity.new_span_id()

    def __enter__(self) -> TraceContext:
        outer = trace.current()
        if outer.workflow_id == trace.normal_workflow_id(self._id):
            self.context = outer
        else:
            now = time.time_ns() // 1_000_000
            self.context = TraceContext(
                self._id, request_id=outer.request_id, workflow_started_ms=now, calls=outer.calls
            )
        self._token = trace.enter(self.context)
        return self.context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        trace.leave(self._token)
