"""The way of one event from a call to its line; what the monitor and our own instrumentation both use."""

from __future__ import annotations

from agentops_monitoring import arguments, redaction, settings, trace, transport
from agentops_monitoring.line import LineRenderer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentops_monitoring.trace import TraceContext

_MAX_UNSAID = 16

strict_everywhere = False
"""Strict mode for monitors that were made without it, too; set by the testing kit."""


class Recorder:
    """Writes the events of one agent; see `AgentOpsMonitor` for its parameters."""

    def __init__(self, agent_name: str | None = None) -> None:
        self.settings = settings.load()
        redaction.configure()
        self._unsaid: list[str] = []
        named = self.settings.agent_name if agent_name is None else agent_name
        self.agent_name = arguments.agent_name(named)
        if not (arguments.is_text(named) and named == self.agent_name):
            self._unsaid.append(f"agent_name {arguments.shown(named)} is {arguments.AGENT_NAME_RULE}")
            self.check(self._unsaid)
        self._render = LineRenderer(self.agent_name, self.settings).render

    @property
    def current(self) -> TraceContext:
        """The workflow, trace and span that an event recorded now would belong to."""
        return trace.current()

    def emit(
        self,
        kind: str,
        data: object,
        # No * here: arguments that can only be named cost their share of a microsecond, each, when left out.
        context: TraceContext | None = None,
        span_id: str | None = None,
        parent_id: str | None = None,
        at_ms: int | None = None,
        problems: list[str] | None = None,
        checked: bool = False,
    ) -> str:
        """Write one event; the way in for our own instrumentation, which knows its spans.

        Without a `span_id` the event gets one of its own, below the current span.
        """
        if problems and not checked:
            self.check(problems)
        try:
            if self._unsaid:
                problems = [*self._unsaid, *(problems or ())]
                self._unsaid = []
            if context is None:
                context = trace.current()
            event_id, lines = self._render(kind, data, context, span_id, parent_id, at_ms, problems)
            (transport.chosen or transport.choose()).write(lines)
        except Exception:  # noqa: BLE001 - never into the agent
            return ""
        return event_id

    def check(self, problems: Sequence[str]) -> None:
        """Raise a `ValueError` for wrong arguments in strict mode."""
        if problems and (self.settings.strict or strict_everywhere):
            raise ValueError("; ".join(problems))

    def note(self, problems: Sequence[str]) -> None:
        """Check the arguments of a call that records nothing itself; the next event says what was wrong."""
        self.check(problems)
        if problems and len(self._unsaid) < _MAX_UNSAID:
            self._unsaid.extend(problems)
