"""Context managers that say where events belong: a span, a tool's call, a workflow, a user."""

from __future__ import annotations

import time

from agentops_monitoring import arguments, identity, trace
from agentops_monitoring.event_types import SPAN
from agentops_monitoring.trace import TraceContext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from types import TracebackType
    from typing import Any, Self

    from agentops_monitoring.monitor import AgentOpsMonitor


class Scope:
    """Makes a context current between its begin and its end; may be used again, but not inside itself."""

    __slots__ = ("_token", "context")

    context: TraceContext

    def __init__(self) -> None:
        self._token: Token[TraceContext | None] | None = None

    def _enter(self, context: TraceContext) -> None:
        self.context = context
        self._token = trace.enter(context)

    def _leave(self) -> bool:
        """Return whether the scope had begun."""
        token, self._token = self._token, None
        if token is None:
            return False
        trace.leave(token, self.context)
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._leave()


class Span(Scope):
    """A stretch of work; leaves one event with its duration when it ends."""

    __slots__ = ("_monitor", "_outer", "_problems", "_started", "fields", "name", "span_id")

    def __init__(self, monitor: AgentOpsMonitor, name: str, fields: dict[str, Any]) -> None:
        super().__init__()
        self._monitor = monitor
        self._problems: list[str] = []
        self.name = arguments.text("name", name, self._problems)
        self.fields = fields
        """What else its event shall say; may be changed until it ends."""
        self.span_id: str | None = None
        """Of the span that has begun."""
        monitor.check(self._problems)

    def __enter__(self) -> Self:
        self._begin(trace.current())
        return self

    def _begin(self, outer: TraceContext) -> None:
        self._outer = outer
        self.span_id = identity.new_span_id()
        self._enter(outer.within(self.span_id))
        self._started = time.monotonic_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if not self._leave():
            return
        duration = round((time.monotonic_ns() - self._started) / 1_000_000, 3)
        # A generator that its reader closes early has done its work.
        failed = None if kind is None or issubclass(kind, GeneratorExit) else arguments.failure(error)
        self._monitor.emit(
            SPAN,
            self._data(duration, failed),
            context=self._outer,
            span_id=self.span_id,
            parent_id=self._outer.span_id,
            problems=self._problems,
            checked=True,
        )

    def _data(self, duration_ms: float, failed: Mapping[str, object] | None) -> dict[str, Any]:
        data = {**self._further(), "name": self.name, "duration_ms": duration_ms}
        if failed is not None:
            data["error"] = failed
        return data

    def _further(self) -> dict[str, Any]:
        # The agent may have put anything in its place.
        return self.fields if type(self.fields) is dict else {"fields": self.fields}


class ToolCall(Span):
    """The call of a tool: a span that says with what it was called and what came back."""

    __slots__ = ("arguments", "error", "result")

    def __init__(self, monitor: AgentOpsMonitor, name: str, given: object) -> None:
        super().__init__(monitor, name, {})
        self.arguments = given
        self.result: Any = None
        """What the tool answered; set it inside."""
        self.error: Any = None
        """What went wrong, where the tool says so without raising."""

    def _data(self, duration_ms: float, failed: Mapping[str, object] | None) -> dict[str, Any]:
        error = arguments.failure(self.error) if failed is None else failed
        return {**self._further(), **tool_data(self.name, self.arguments, self.result, error, duration_ms)}


def tool_data(
    name: object, given: object, result: object, error: Mapping[str, object] | None, duration_ms: float | None
) -> dict[str, Any]:
    """Return the fields of a tool's call, by the OpenTelemetry conventions for GenAI."""
    data: dict[str, Any] = {
        "name": name,
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.call.arguments": given,
        "gen_ai.tool.call.result": result,
        "duration_ms": duration_ms,
    }
    if error is not None:
        data["error"] = error
    return data


class Belonging(Scope):
    """Says for whom, in which conversation and with which tags the events inside are recorded."""

    __slots__ = ("_monitor", "_session_id", "_tags", "_user_id")

    def __init__(self, monitor: AgentOpsMonitor, user_id: object, session_id: object, tags: object) -> None:
        super().__init__()
        problems: list[str] = []
        self._user_id = arguments.belonging("user_id", user_id, problems)
        self._session_id = arguments.belonging("session_id", session_id, problems)
        self._tags = arguments.tags(tags, problems)
        self._monitor = monitor
        monitor.note(problems)

    def __enter__(self) -> TraceContext:
        self._enter(self._within(trace.current()))
        return self.context

    def _within(self, context: TraceContext) -> TraceContext:
        tags = self._tags
        if tags and context.tags:
            problems: list[str] = []
            tags = arguments.joined_tags(context.tags, tags, problems)
            self._monitor.note(problems)
        return context.belonging_to(self._user_id, self._session_id, tags)


class Workflow(Belonging):
    """Makes a workflow current. Joining the workflow that is current already changes nothing."""

    __slots__ = ("_alone", "_id")

    def __init__(
        self, monitor: AgentOpsMonitor, workflow_id: object, user_id: object, session_id: object, tags: object
    ) -> None:
        super().__init__(monitor, user_id, session_id, tags)
        self._id = arguments.identifier(workflow_id) or identity.new_span_id() + identity.new_span_id()
        self._alone = False

    def __enter__(self) -> TraceContext:
        outer = trace.current()
        context = outer
        if outer.workflow_id != trace.normal_id(self._id):
            context = outer.of_workflow(self._id, started_ms=time.time_ns() // 1_000_000)
        self._alone = trace.alone()
        self._enter(self._within(context))
        # Where no invocation runs, threads that the agent starts belong to its only workflow.
        if self._alone:
            trace.activate(self, self.context)
        return self.context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if self._alone:
            trace.deactivate(self)
        self._leave()
