"""A message counts once for each receiver, however often it is delivered: the first receipt is the one."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.events import Event, Report
from agentops_monitoring.ledger.exact import Number
from agentops_monitoring.ledger.rollup import Increments, Key, message_id, received
from agentops_monitoring.ledger.state import State, Unit


class Receipt(State):
    """The first receipt of a message by a receiver, by its own time: whichever comes first to the ledger."""

    __slots__ = ("_increments", "first")

    def __init__(self, version: int = 0, text: str | None = None) -> None:
        super().__init__(version, text)
        self.first: tuple[str, str] | None = None
        """(time, event id)"""
        self._increments: Increments = {}
        if text:
            raw: dict[str, Any] = json.loads(text)
            self.first = (raw["at"], raw["id"])
            self._increments = {
                (bucket, sk): {name: _number(value) for name, value in counters.items()}
                for bucket, sk, counters in raw["adds"]
            }
            self.touches |= self._increments.keys()

    def copy(self) -> Receipt:
        """Return a copy to add to."""
        twin = Receipt(self.version)
        twin.first, twin._increments, twin.touches = self.first, self._increments, set(self.touches)
        return twin

    def text(self) -> str:
        """Return the state as JSON."""
        at, event_id = self.first or ("", "")
        adds = [
            [*key, {name: str(value) for name, value in counters.items()}]
            for key, counters in self._increments.items()
        ]
        return json.dumps({"at": at, "id": event_id, "adds": adds}, separators=(",", ":"))

    @staticmethod
    def key(unit: Unit, _stream: str) -> str | None:
        """Return the key of the message that an event is a receipt of; None for anything else."""
        if isinstance(unit, Report) or unit.type != AgentEventType.MESSAGE_RECEIVED:
            return None
        message = message_id(unit)
        return None if message is None else schema.receipt_pk(unit.agent, message)

    def changes(self, unit: Unit) -> bool:
        """Whether an event is an earlier receipt than what is known."""
        return isinstance(unit, Event) and (self.first is None or (unit.at, unit.id) < self.first)

    def add(self, unit: Unit) -> None:
        """Add a receipt."""
        if isinstance(unit, Event) and self.changes(unit):
            self.first = (unit.at, unit.id)
            self._increments = received(unit)
            self.touches |= self._increments.keys()

    def touched_by(self, unit: Unit) -> set[Key]:
        """Return the counters that its contributions may change beyond `touches` once this is added."""
        return set(received(unit)) if isinstance(unit, Event) else set()

    def contributions(self) -> Increments:
        """Return what the message adds to the counters of the hour it was received in."""
        return self._increments


def _number(text: str) -> Number:
    return int(text) if text.lstrip("-").isdigit() else Decimal(text)
