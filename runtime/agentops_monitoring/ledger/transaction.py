"""One transaction: raw items, decisions, states and counters that belong together."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.ledger import rollup, schema
from agentops_monitoring.ledger.allocation import Invocation
from agentops_monitoring.ledger.events import Event, Report
from agentops_monitoring.ledger.exact import Number, dynamo
from agentops_monitoring.ledger.items import Written
from agentops_monitoring.ledger.payload import Attributes, pack
from agentops_monitoring.ledger.receipts import Receipt
from agentops_monitoring.ledger.sequences import Sequence
from agentops_monitoring.ledger.state import State, Unit
from agentops_monitoring.ledger.states import concerned
from agentops_monitoring.ledger.workflows import Workflow

MAX_ACTIONS = 100
MAX_BYTES = 3_500_000
"""DynamoDB: 100 actions, 4 MB. The bytes are estimated, hence the distance."""


class Plan:
    """A transaction in the making. It changes copies of states; `states` is what to keep once committed.

    Parameters
    ----------
    marked
        Days of which this process has told the fold.
    """

    def __init__(
        self,
        tables: schema.Tables,
        stream: str,
        shard: int,
        states: Mapping[str, State],
        now: float,
        marked: Collection[str] = (),
    ) -> None:
        self._tables = tables
        self._stream = stream
        self._shard = shard
        self._known = states
        self._now = now
        self._today = time.strftime("%Y-%m-%d", time.gmtime(now))
        self._marked = marked
        self._size = 0
        self._counters: set[rollup.Key] = set()
        self._puts = 0
        self._others: dict[str, int] = {}
        self._marks: set[str | None] = set()
        self.written: list[Written] = []
        self.reports: list[Report] = []
        self.repeated = 0
        self.states: dict[str, State] = {}

    def __bool__(self) -> bool:
        return bool(self.written or self.reports)

    def units(self) -> list[Unit]:
        """Return everything the plan holds."""
        return [*(each.event for each in self.written), *self.reports]

    def knows(self, event: Event) -> bool:
        """Whether an event is in the ledger, as far as the states say that were read."""
        sequence = self._known.get(Sequence.key(event, self._stream) or "")
        return sequence is not None and not sequence.changes(event)

    def forgets(self, event: Event) -> bool:
        """Whether an event's workflow was forgotten."""
        return self._is_forgotten(schema.workflow_pk(event.workflow_id))

    def _is_forgotten(self, key: str) -> bool:
        state = self._known.get(key)
        return isinstance(state, Workflow) and state.forgotten

    def try_event(self, written: Written) -> bool:
        """Add an event if there is room for it and all that it touches."""
        if written.mark is not None and written.mark in self._marks:
            return False
        event = written.event
        touched = [
            (key, kind)
            for key, kind in concerned(event, self._stream)
            if (written.actions or kind is Sequence) and self._state(key, kind).changes(event)
        ]
        if not self._try(event, touched, set(written.increments), len(written.actions), written.size):
            return False
        self.written.append(written)
        self._marks.add(written.mark)
        return True

    def try_report(self, report: Report) -> bool:
        """Add a report if there is room; one that is booked already takes none."""
        touched = concerned(report, self._stream)
        if not any(self._state(key, kind).changes(report) for key, kind in touched):
            self.repeated += 1
            return True
        if not self._try(report, touched, set(), 0, 0):
            return False
        self.reports.append(report)
        return True

    def _try(
        self,
        unit: Unit,
        touched: list[tuple[str, type[State]]],
        counters: set[rollup.Key],
        puts: int,
        size: int,
    ) -> bool:
        others: dict[str, int] = {}
        for key, kind in touched:
            state, before = self._state(key, kind), self._known.get(key)
            counters |= state.touches
            counters |= state.touched_by(unit)
            # Items that it has already may go, and others come.
            others[key] = state.most_others(unit) + (before.most_others() if before is not None else 0)
        counters -= self._counters
        if counters:
            counters |= {(schema.MARK, schema.day_bucket(day)) for day in self._unmarked(counters)}
            counters -= self._counters
        states = len(self.states) + sum(key not in self.states for key in others)
        others = self._others | others
        actions = self._puts + puts + states + len(self._counters) + len(counters) + sum(others.values())
        if self and (actions > MAX_ACTIONS or self._size + size > MAX_BYTES):
            return False
        self._puts += puts
        self._size += size
        self._counters |= counters
        self._others = others
        for key, kind in touched:
            if key not in self.states:
                self.states[key] = self._state(key, kind).copy()
            self.states[key].add(unit)
        return True

    def _state(self, key: str, kind: type[State]) -> State:
        found = self.states.get(key) or self._known.get(key)
        return found if found is not None else kind()

    def handoffs(self) -> Iterator[Event]:
        """Return the receipts of messages that were not known before."""
        for each in self.written:
            event = each.event
            if event.type == AgentEventType.MESSAGE_RECEIVED:
                key = Receipt.key(event, self._stream)
                state = self.states.get(key or "")
                first = isinstance(state, Receipt) and state.first == (event.at, event.id)
                if key is None or (first and key not in self._known):
                    yield event

    def increments(self) -> rollup.Increments:
        """Return what the transaction adds to the counters."""
        total: rollup.Increments = {}
        for each in self.written:
            rollup.merge(total, each.increments)
        for key, state in self.states.items():
            before = self._known.get(key)
            booked = before.contributions() if before is not None else {}
            rollup.merge(total, rollup.minus(state.contributions(), booked))
        for day in self._unmarked(total):
            total[schema.MARK, schema.day_bucket(day)] = {"ver": 1}
        return total

    def _unmarked(self, keys: Iterable[rollup.Key]) -> set[str]:
        """Return the days of which the fold has to be told: closed ones each time, others once."""
        return {day for day in rollup.days_of(keys) if day not in self._marked or day < self._today}

    def failures(self) -> tuple[list[Event], list[Event]]:
        """Return the failures made of reports that there are now, and those that there are no longer."""
        made: list[Event] = []
        gone: list[Event] = []
        for key, state in self.states.items():
            if isinstance(state, Invocation):
                known = self._known.get(key)
                more, less = state.changed_failures(known if isinstance(known, Invocation) else None)
                made += more
                gone += less
        return made, gone

    def actions(self, increments: rollup.Increments) -> list[dict[str, Any]]:
        """Return the transaction's actions: puts of events in their order, then all that has no condition on
        its own event: states, what comes with them, counters."""
        actions = [action for each in self.written for action in each.actions]
        for key, state in self.states.items():
            actions.append(self._put_state(key, state))
            actions += map(self._as_kept, state.others(self._known.get(key), self._tables, self._now))
        actions += [
            update_counters(self._tables.ledger, key, counters, self._shard, self._now)
            for key, counters in increments.items()
            if counters
        ]
        return actions

    def _as_kept(self, action: dict[str, Any]) -> dict[str, Any]:
        """Return an action on another item, of which only the key is put if its workflow was forgotten."""
        put = action.get("Put")
        if put is None or not self._is_forgotten(put["Item"]["pk"]["S"]):
            return action
        kept = {name: put["Item"][name] for name in ("pk", "sk", "expires_at")}
        return {"Put": {**put, "Item": {**kept, "withdrawn": {"BOOL": True}}}}

    def _put_state(self, key: str, state: State) -> dict[str, Any]:
        packed, pieces = pack(state.text(), "state")
        if pieces:
            raise OverflowError(f"the state of {key} exceeds an item")
        item: Attributes = {
            "pk": {"S": key},
            "sk": {"S": schema.STATE},
            "ver": {"N": str(state.version + 1)},
            "expires_at": {"N": str(int(self._now) + schema.raw_ttl_s())},
            **packed,
        }
        put: dict[str, Any] = {"TableName": self._tables.ledger, "Item": item}
        if state.version == 0:
            put["ConditionExpression"] = "attribute_not_exists(pk)"
        else:
            put["ConditionExpression"] = "ver = :known"
            put["ExpressionAttributeValues"] = {":known": {"N": str(state.version)}}
        return {"Put": put}


@lru_cache(maxsize=512)
def _add_expression(names: tuple[str, ...], lasts: bool) -> tuple[str, dict[str, str]]:
    expression = "" if lasts else "SET expires_at = :expires "
    expression += "ADD " + ", ".join(f"#{i} :{i}" for i in range(len(names)))
    return expression, {f"#{i}": name for i, name in enumerate(names)}


def update_counters(
    table: str, key: rollup.Key, counters: Mapping[str, Number], shard: int, now: float
) -> dict[str, Any]:
    """Return the action that adds to a rollup's counters."""
    bucket, sk = key
    ttl_s = schema.counters_ttl_s(bucket)
    expression, names = _add_expression(tuple(counters), ttl_s is None)
    values: dict[str, Any] = {f":{i}": dynamo(value) for i, value in enumerate(counters.values())}
    if ttl_s is not None:
        values[":expires"] = {"N": str(int(now) // 86_400 * 86_400 + ttl_s)}
    return {
        "Update": {
            "TableName": table,
            "Key": {"pk": {"S": f"{bucket}#{shard}"}, "sk": {"S": sk}},
            "UpdateExpression": expression,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }
    }
