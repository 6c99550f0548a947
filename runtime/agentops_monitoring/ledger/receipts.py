"""A message counts once for each receiver, however often it is delivered: the first receipt is the one."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from agentops_monitoring.ledger.events import Event
from agentops_monitoring.ledger.exact import Number
from agentops_monitoring.ledger.rollup import Increments, Key, received


class Receipt:
    """The first receipt of a message by a receiver, by its own time: whichever comes first to the ledger."""

    __slots__ = ("_increments", "first", "touches", "version")

    def __init__(self, version: int = 0, text: str | None = None) -> None:
        self.version = version
        self.touches: set[Key] = set()
        """The counters that its contributions may change, at most."""
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

    def changes(self, event: Event) -> bool:
        """Whether an event is an earlier receipt than what is known."""
        return self.first is None or (event.at, event.id) < self.first

    def add_event(self, event: Event) -> None:
        """Add a receipt."""
        if self.changes(event):
            self.first = (event.at, event.id)
            self._increments = received(event)
            self.touches |= self._increments.keys()

    def contributions(self) -> Increments:
        """Return what the message adds to the counters of the hour it was received in."""
        return self._increments


def _number(text: str) -> Number:
    return int(text) if text.lstrip("-").isdigit() else Decimal(text)
