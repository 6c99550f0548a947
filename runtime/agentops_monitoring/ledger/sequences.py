"""Which of a process's events have arrived: it numbers them from 1 on, so what is missing between is known.

The numbers are booked in the transaction of their events. As long as a process has a gap, an item says so
for who looks for gaps each few minutes (`gaps`). What lies behind the last event that arrived, a process of
which nothing arrived included, is no gap: see docs/operations.md.
"""

from __future__ import annotations

import json
from typing import Any

from agentops_monitoring.ledger import intervals, schema
from agentops_monitoring.ledger.events import Event
from agentops_monitoring.ledger.intervals import Intervals
from agentops_monitoring.ledger.rollup import Increments, Key
from agentops_monitoring.ledger.state import State, Unit

_MAX_NUMBER = 10**12
MOST_SPANS = 1_000
"""Of consecutive numbers: as many as its items have room for, and a look at them has time for. With more, the
oldest numbers are let go: they are not missed any more, and whether such an event is in the ledger only its
own item says."""


class Sequence(State):
    """The events of one process that are in the ledger, by number."""

    __slots__ = ("_gaps", "agent", "arrived", "group", "nonce", "stream", "through")

    def __init__(self, version: int = 0, text: str | None = None) -> None:
        super().__init__(version, text)
        self.arrived: Intervals = []
        self.through = 0
        """The last number that was let go."""
        self.nonce = self.agent = self.group = self.stream = ""
        self._gaps: Intervals | None = None
        if text:
            raw: dict[str, Any] = json.loads(text)
            self.nonce, self.agent = raw["nonce"], raw["agent"]
            self.group, self.stream = raw["group"], raw["stream"]
            self.arrived = [(first, last) for first, last in raw["arrived"]]
            self.through = raw.get("through", 0)

    def copy(self) -> Sequence:
        """Return a copy to add to."""
        twin = Sequence(self.version)
        twin.nonce, twin.agent, twin.group, twin.stream = self.nonce, self.agent, self.group, self.stream
        twin.arrived, twin.through, twin._gaps = self.arrived, self.through, self._gaps
        return twin

    def text(self) -> str:
        """Return the state as JSON."""
        names = ("nonce", "agent", "group", "stream", "arrived", "through")
        return json.dumps({name: getattr(self, name) for name in names}, separators=(",", ":"))

    @staticmethod
    def key(unit: Unit, _stream: str) -> str | None:
        """Return the key of an event's process; None for what bears no number."""
        if not isinstance(unit, Event):
            return None
        nonce, _, number = unit.id.rpartition("-")
        if not nonce or number != str(unit.seq) or not 0 < unit.seq <= _MAX_NUMBER:
            return None
        return schema.sequence_pk(nonce)

    def changes(self, unit: Unit) -> bool:
        """Whether an event has not arrived yet, as far as is known."""
        return isinstance(unit, Event) and not intervals.has(self.arrived, unit.seq)

    def add(self, unit: Unit) -> None:
        """Add an event's number."""
        if isinstance(unit, Event):
            if unit.seq > self.through:
                self.arrived = intervals.with_number(self.arrived, unit.seq)
            if len(self.arrived) > MOST_SPANS:
                (_, self.through), *self.arrived = self.arrived
            self.nonce, self.agent = unit.nonce, unit.agent
            self.group, self.stream = unit.log or ("", "")
            self._gaps = None

    def gaps(self) -> Intervals:
        """Return the numbers that are missing below the highest, less those that were let go."""
        if self._gaps is None:
            self._gaps = intervals.gaps(self.arrived, self.through + 1)
        return self._gaps

    def contributions(self) -> Increments:
        """Return nothing: a number adds to no counter."""
        return {}

    def touched_by(self, unit: Unit) -> set[Key]:  # noqa: ARG002
        """Return nothing."""
        return set()

    def most_others(self, unit: Unit | None = None, /) -> int:
        """Return 1 when the item of its gaps may change."""
        last = self.arrived[-1][1] if self.arrived else 0
        return int(bool(self.gaps()) or (isinstance(unit, Event) and unit.seq != last + 1))

    def others(self, before: State | None, tables: schema.Tables, now: float, /) -> list[dict[str, Any]]:
        """Return what says of its gaps to who looks for them, when they have changed."""
        known = before.gaps() if isinstance(before, Sequence) else []
        missing = self.gaps()
        if missing == known:
            return []
        # Once there is none, it is kept for as long as it takes to say that it is closed.
        life = schema.raw_ttl_s() if missing else schema.CLOSED_GAPS_TTL_S
        values = {
            "missing": json.dumps(missing, separators=(",", ":")),
            "agent": self.agent,
            "log_group": self.group,
            "log_stream": self.stream,
        }
        # By placeholders: some of these names are reserved words of DynamoDB's.
        sets = ", ".join(f"#{name} = :{name}" for name in values)
        return [
            {
                "Update": {
                    "TableName": tables.ledger,
                    "Key": {"pk": {"S": schema.gaps_pk(self.nonce)}, "sk": {"S": self.nonce}},
                    "UpdateExpression": f"SET expires_at = :expires, #through = :through, {sets}",
                    "ExpressionAttributeNames": {f"#{name}": name for name in (*values, "through")},
                    "ExpressionAttributeValues": {
                        ":expires": {"N": str(int(now) + life)},
                        ":through": {"N": str(self.through)},
                        **{f":{name}": {"S": text} for name, text in values.items()},
                    },
                }
            }
        ]
