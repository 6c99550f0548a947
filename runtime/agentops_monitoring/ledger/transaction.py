"""One transaction: raw items, decisions, states and counters that belong together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.ledger import rollup, schema
from agentops_monitoring.ledger.allocation import Invocation, Workflow
from agentops_monitoring.ledger.events import Event, Report
from agentops_monitoring.ledger.exact import Number, dynamo
from agentops_monitoring.ledger.items import Written, key_of, of_report, withdrawn
from agentops_monitoring.ledger.payload import Attributes, pack
from agentops_monitoring.ledger.receipts import Receipt

MAX_ACTIONS = 100
MAX_BYTES = 3_500_000
"""DynamoDB: 100 actions, 4 MB. The bytes are estimated, hence the distance."""

State = Invocation | Workflow | Receipt
Unit = Event | Report


def receipt_key(event: Event) -> str | None:
    """Return the key of the state of the message that an event is a receipt of; None for any other event."""
    if event.type != AgentEventType.MESSAGE_RECEIVED:
        return None
    message = rollup.message_id(event)
    return None if message is None else schema.receipt_pk(event.agent, message)


class Plan:
    """A transaction in the making. It changes copies of states; `states` is what to keep once committed."""

    def __init__(
        self, tables: schema.Tables, stream: str, shard: int, states: Mapping[str, State], now: float
    ) -> None:
        self._tables = tables
        self._stream = stream
        self._shard = shard
        self._known = states
        self._now = now
        self._size = 0
        self._counters: set[rollup.Key] = set()
        self._puts = 0
        self._failures: dict[str, int] = {}
        self._marks: set[str | None] = set()
        self.written: list[Written] = []
        self.reports: list[Report] = []
        self.repeated_reports = 0
        self.states: dict[str, State] = {}

    def __bool__(self) -> bool:
        return bool(self.written or self.reports)

    def units(self) -> list[Unit]:
        """Return everything the plan holds."""
        return [*(each.event for each in self.written), *self.reports]

    def try_event(self, written: Written) -> bool:
        """Add an event if there is room for it and all that it touches."""
        event = written.event
        if written.mark is not None and written.mark in self._marks:
            return False
        touched: list[tuple[str, type[State]]] = []
        workflow_key = schema.workflow_pk(event.workflow_id)
        if self._state(workflow_key, Workflow).changes(event):  # type: ignore[union-attr]
            touched.append((workflow_key, Workflow))
        counters = set(written.increments)
        if event.request_id is not None and Invocation.concerns(event):
            key = schema.invocation_pk(self._stream, event.request_id)
            touched.append((key, Invocation))
            if event.type == AgentEventType.INVOCATION_STARTED:
                counters |= self._state(key, Invocation).touched_by_start(event.agent)  # type: ignore[union-attr]
        receipt = receipt_key(event)
        if receipt is not None and self._state(receipt, Receipt).changes(event):  # type: ignore[union-attr]
            touched.append((receipt, Receipt))
            counters |= rollup.received(event).keys()
        if not self._try(len(written.actions), written.size, counters, event.at[:13], touched):
            return False
        self.written.append(written)
        self._marks.add(written.mark)
        for key, kind in touched:
            self._changing(key, kind).add_event(event)
        return True

    def handoffs(self) -> Iterator[Event]:
        """Return the receipts of messages that were not known before."""
        for each in self.written:
            event = each.event
            if event.type == AgentEventType.MESSAGE_RECEIVED:
                key = receipt_key(event)
                state = self.states.get(key or "")
                first = isinstance(state, Receipt) and state.first == (event.at, event.id)
                if key is None or (first and key not in self._known):
                    yield event

    def try_report(self, report: Report) -> bool:
        """Add a report if there is room; one that is booked already takes none."""
        key = schema.invocation_pk(self._stream, report.request_id)
        if self._state(key, Invocation).has_report(report):  # type: ignore[union-attr]
            self.repeated_reports += 1
            return True
        at = time.strftime("%Y-%m-%dT%H", time.gmtime(report.at_ms / 1000))
        counters = self._state(key, Invocation).touched_by_report(report.at_ms)  # type: ignore[union-attr]
        if not self._try(0, 0, counters, at, [(key, Invocation)], report):
            return False
        self._changing(key, Invocation).add_report(report)  # type: ignore[union-attr]
        self.reports.append(report)
        return True

    def _try(
        self,
        puts: int,
        size: int,
        counters: set[rollup.Key],
        hour: str,
        touched: list[tuple[str, type[State]]],
        report: Report | None = None,
    ) -> bool:
        bound = set(counters)
        failures = dict(self._failures)
        for key, kind in touched:
            if kind is Invocation:
                failures[key] = self._most_failures(key, report is not None and report.failed)
            # What it may touch already, and what it may touch with the addition.
            bound |= self._state(key, kind).touches
            bound |= {(f"H#{hour}", name) for name in (schema.TOTAL, schema.TYPES, schema.OUTCOMES)}
        if report is not None:
            bound |= {
                (bucket, name)
                for bucket in (f"H#{hour}", f"D#{hour[:10]}")
                for name in (schema.TOTAL, schema.agent_key(report.agent))
            }
        new_states = sum(1 for key, _ in touched if key not in self.states)
        actions = self._puts + puts + len(self.states) + new_states + len(self._counters | bound)
        actions += sum(failures.values())
        if self and (actions > MAX_ACTIONS or self._size + size > MAX_BYTES):
            return False
        self._puts += puts
        self._size += size
        self._counters |= bound
        self._failures = failures
        return True

    def _most_failures(self, key: str, another: bool) -> int:
        """How many items of failures a state may change at most: those that it has, and those to come."""
        before, after = self._known.get(key), self._state(key, Invocation)
        found = after.most_failures + another  # type: ignore[union-attr]
        return found + (before.most_failures if isinstance(before, Invocation) else 0)

    def _state(self, key: str, kind: type[State]) -> State:
        found = self.states.get(key) or self._known.get(key)
        return found if found is not None else kind()

    def _changing(self, key: str, kind: type[State]) -> State:
        if key not in self.states:
            self.states[key] = self._state(key, kind).copy()
        return self.states[key]

    def increments(self) -> rollup.Increments:
        """Return what the transaction adds to the counters."""
        total: rollup.Increments = {}
        for each in self.written:
            rollup.merge(total, each.increments)
        for key, state in self.states.items():
            before = self._known.get(key)
            booked = before.contributions() if before is not None else {}
            rollup.merge(total, rollup.minus(state.contributions(), booked))
        return total

    def failures(self) -> tuple[list[Event], list[Event]]:
        """Return the failures made of reports that there are now, and those that there are no longer."""
        made: list[Event] = []
        gone: list[Event] = []
        for key, state in self.states.items():
            if isinstance(state, Invocation):
                known = self._known.get(key)
                before = known.failures() if isinstance(known, Invocation) else []
                after = state.failures()
                made += [each for each in after if each not in before]
                gone += [each for each in before if each not in after]
        return made, gone

    def actions(self, increments: rollup.Increments) -> list[dict[str, Any]]:
        """Return the transaction's actions: puts of events in their order, then all that has no condition on
        its own event: failures made of reports, states, counters."""
        actions = [action for each in self.written for action in each.actions]
        made, gone = self.failures()
        table, replaced = self._tables.monitoring, [key_of(each) for each in made]
        actions += [of_report(each, table, self._now) for each in made]
        actions += [withdrawn(each, table, self._now) for each in gone if key_of(each) not in replaced]
        actions += [self._put_state(key, state) for key, state in self.states.items()]
        actions += [
            update_counters(self._tables.ledger, key, counters, self._shard, self._now)
            for key, counters in increments.items()
            if counters
        ]
        return actions

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
def _add_expression(names: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    expression = "SET expires_at = :expires ADD " + ", ".join(f"#{i} :{i}" for i in range(len(names)))
    return expression, {f"#{i}": name for i, name in enumerate(names)}


def update_counters(
    table: str, key: rollup.Key, counters: Mapping[str, Number], shard: int, now: float
) -> dict[str, Any]:
    """Return the action that adds to a rollup's counters."""
    bucket, sk = key
    expression, names = _add_expression(tuple(counters))
    values: dict[str, Any] = {f":{i}": dynamo(value) for i, value in enumerate(counters.values())}
    values[":expires"] = {"N": str(int(now) // 86_400 * 86_400 + schema.ROLLUP_TTL_S)}
    return {
        "Update": {
            "TableName": table,
            "Key": {"pk": {"S": f"{bucket}#{shard}"}, "sk": {"S": sk}},
            "UpdateExpression": expression,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }
    }
