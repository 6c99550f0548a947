"""Who took part in a workflow, and how it ended, in one versioned item."""

from __future__ import annotations

import json
from typing import Any

from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.events import Event, Report
from agentops_monitoring.ledger.rollup import Increments, Key, add
from agentops_monitoring.ledger.state import State, Unit


class Workflow(State):
    """Who took part in a workflow, and how it ended: its last ending counts, whichever comes first."""

    __slots__ = ("_booked", "agents", "ended", "forgotten")

    def __init__(self, version: int = 0, text: str | None = None) -> None:
        super().__init__(version, text)
        raw: dict[str, Any] = json.loads(text) if text else {"agents": [], "ended": None}
        self.agents: set[str] = set(raw["agents"])
        self._booked: Increments | None = None
        self.ended: tuple[str, str, str] | None = tuple(raw["ended"]) if raw["ended"] else None
        """(time, event id, "c" for completed or "f" for failed)"""
        self.forgotten = bool(raw.get("forgotten"))
        """Whether of its events only the keys are kept (`forget`)."""
        self._note()

    def copy(self) -> Workflow:
        """Return a copy to add to."""
        twin = Workflow(self.version)
        twin.agents, twin.ended, twin.touches = set(self.agents), self.ended, set(self.touches)
        twin.forgotten = self.forgotten
        return twin

    def text(self) -> str:
        """Return the state as JSON."""
        state: dict[str, Any] = {"agents": sorted(self.agents), "ended": self.ended}
        state |= {"forgotten": True} if self.forgotten else {}
        return json.dumps(state, separators=(",", ":"))

    @staticmethod
    def key(unit: Unit, _stream: str) -> str | None:
        """Return the key of the workflow that an event belongs to; a report says of none."""
        return None if isinstance(unit, Report) else schema.workflow_pk(unit.workflow_id)

    def changes(self, unit: Unit) -> bool:
        """Whether an event adds to what is known."""
        return isinstance(unit, Event) and (unit.agent not in self.agents or self._ending(unit) != self.ended)

    def add(self, unit: Unit) -> None:
        """Add an event."""
        if isinstance(unit, Event):
            self.agents.add(unit.agent)
            self.ended = self._ending(unit)
            self._note()

    def touched_by(self, unit: Unit) -> set[Key]:
        """Return the counters that its contributions may change beyond `touches` once this is added."""
        ended = self._ending(unit) if isinstance(unit, Event) else None
        return _touched(ended) if ended is not None else set()

    def _note(self) -> None:
        self._booked = None
        if self.ended is not None:
            self.touches |= _touched(self.ended)

    def _ending(self, event: Event) -> tuple[str, str, str] | None:
        if event.type == AgentEventType.WORKFLOW_COMPLETED:
            found = (event.at, event.id, "c")
        elif event.type == AgentEventType.WORKFLOW_FAILED:
            found = (event.at, event.id, "f")
        else:
            return self.ended
        return max(self.ended, found) if self.ended else found

    def contributions(self) -> Increments:
        """Return what this workflow adds to the counters of the hour it ended in."""
        if self._booked is None:
            increments: Increments = {}
            if self.ended is not None:
                at, _, outcome = self.ended
                hour = schema.hour_bucket(at)
                total = "completed" if outcome == "c" else "failed"
                add(increments, (hour, schema.TOTAL), f"workflows_{total}", 1)
                for agent in self.agents:
                    add(increments, (hour, schema.OUTCOMES), f"{outcome}.{agent}", 1)
            self._booked = increments
        return self._booked


def _touched(ended: tuple[str, str, str]) -> set[Key]:
    hour = schema.hour_bucket(ended[0])
    return {(hour, schema.TOTAL), (hour, schema.OUTCOMES)}
