"""The events of a test, read from the very lines that the agent would have written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, overload

from agentops_monitoring.event_types import DECISION_OUTCOME, SPAN, AgentEventType

_MAX_SHOWN = 240


@dataclass(frozen=True, slots=True)
class Event:
    """One event, as CloudWatch and the ledger would read it: rendered, redacted, put together."""

    type: str
    agent: str
    data: Any
    problems: tuple[str, ...]
    """What the monitor found wrong with the call."""
    id: str
    at: datetime
    workflow_id: str
    trace_id: str
    span_id: str
    parent_id: str | None
    request_id: str | None
    user_id: str | None
    session_id: str | None
    tags: Mapping[str, Any]
    payload: Any = None
    """Of a message that `send_message` sent: what it carries."""

    def __str__(self) -> str:
        shown = json.dumps(self.data, ensure_ascii=False)
        shown = shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "…"
        said = "".join(f"\n    ! {problem}" for problem in self.problems)
        return f"{self.type} by {self.agent} {shown}{said}"


class Events(Sequence[Event]):
    """All events recorded so far, in order; it grows as the agent runs.

    Attributes
    ----------
    lines
        The lines as they would have been written.
    payloads
        What the messages of `send_message` carry, by message id.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._read: list[Event] = []
        self._lines_read = 0
        self._parts: dict[str, str] = {}
        self.payloads: dict[str, Any] = {}

    def _all(self) -> list[Event]:
        for line in self.lines[self._lines_read :]:
            self._lines_read += 1
            event = self._put_together(json.loads(line)["agentops.event"])
            if event is not None:
                self._read.append(event)
        return self._read

    def _put_together(self, fields: dict[str, Any]) -> Event | None:
        if "part" in fields:
            number, count = fields["part"]
            text = self._parts.pop(fields["id"], "") + fields["chunk"]
            if number < count:
                self._parts[fields["id"]] = text
                return None
            fields["data"] = json.loads(text)
        data = fields["data"]
        sent = fields["type"] == AgentEventType.MESSAGE_SENT and isinstance(data, dict)
        return Event(
            type=fields["type"],
            agent=fields["agent"],
            data=data,
            problems=tuple(fields.get("problems", ())),
            id=fields["id"],
            at=datetime.fromisoformat(fields["at"]),
            workflow_id=fields["workflow_id"],
            trace_id=fields["trace_id"],
            span_id=fields["span_id"],
            parent_id=fields["parent_id"],
            request_id=fields["request_id"],
            user_id=fields.get("user_id"),
            session_id=fields.get("session_id"),
            tags=fields.get("tags", {}),
            payload=self.payloads.get(str(data.get("message_id"))) if sent else None,
        )

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...

    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        return self._all()[index]

    def __iter__(self) -> Iterator[Event]:
        return iter(list(self._all()))

    def of_type(self, kind: str) -> list[Event]:
        """Return the events of a type, given by name or as `AgentEventType`."""
        return [event for event in self if event.type == str(kind)]

    def one(self, kind: str) -> Event:
        """Return the only event of a type.

        Raises
        ------
        AssertionError
            There is none, or more; the message lists what was recorded.
        """
        found = self.of_type(kind)
        if len(found) != 1:
            raise AssertionError(f"{len(found)} events of type {str(kind)!r} instead of 1, in:\n{self}")
        return found[0]

    @property
    def types(self) -> list[str]:
        """The type of each event, in order."""
        return [event.type for event in self]

    @property
    def decisions(self) -> list[Event]:
        """The decisions; `outcomes` tell what became of them."""
        return self.of_type(AgentEventType.DECISION_MADE)

    @property
    def outcomes(self) -> list[Event]:
        """The outcomes of decisions."""
        return self.of_type(DECISION_OUTCOME)

    @property
    def messages(self) -> list[Event]:
        """The messages sent, with their `payload` where `send_message` sent them."""
        return self.of_type(AgentEventType.MESSAGE_SENT)

    @property
    def tools(self) -> list[Event]:
        """The calls of tools."""
        return [event for event in self.of_type(SPAN) if "gen_ai.tool.name" in event.data]

    @property
    def costs(self) -> list[Decimal | None]:
        """The USD of each model call, in order; None for one whose price is not known."""
        told = [event.data.get("cost_usd") for event in self.of_type(AgentEventType.LLM_USAGE)]
        return [None if cost is None else Decimal(cost) for cost in told]

    @property
    def problems(self) -> list[str]:
        """All that the monitor found wrong."""
        return [problem for event in self for problem in event.problems]

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self._all()
        self._read.clear()
        del self.lines[: self._lines_read]
        self._lines_read = 0

    def __str__(self) -> str:
        events = self._all()
        return "\n".join(f"{number}. {event}" for number, event in enumerate(events)) or "no events"

    def __repr__(self) -> str:
        return f"<{len(self)} events:\n{self}>"
