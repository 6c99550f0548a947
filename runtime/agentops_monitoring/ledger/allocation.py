"""What an invocation cost, and which domain events that cost led to.

An invocation's lines and Lambda's report on it come in different batches and in any order, so what is known
of it stands in one versioned item. Its contributions to the counters are a function of that state alone:
whoever changes the state books the difference in the same transaction, and any order ends in the same sums.

- A report is one attempt. A line that imitates one was printed while the attempt ran, so it lies within the
  interval of the true report, which Lambda writes last: of overlapping reports the last counts.
- A model call belongs to the next domain event of its attempt. Compute is sliced at the domain events: each
  slice, by its share of the attempt's duration, belongs to the event that ends it.
- What no domain event follows is `overhead`, so the parts always sum to the whole, exactly.
- An attempt that Lambda ended, and that wrote no end of its own, has an `invocation_failed` made of its
  report. It too is a function of the state: a start or an end that arrives late moves it, or takes it back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, Self

from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.events import Event, Report
from agentops_monitoring.ledger.exact import EXACT, share
from agentops_monitoring.ledger.failures import Ending, Place, failure
from agentops_monitoring.ledger.items import key_of, of_report, withdrawn
from agentops_monitoring.ledger.rollup import (
    OVERHEAD,
    Increments,
    Key,
    add,
    merge,
    of_event,
    of_workflow,
    spend,
)
from agentops_monitoring.ledger.state import State, Unit

_START, _DOMAIN, _CALL, _END = "s", "d", "c", "e"
_ENDS = (AgentEventType.INVOCATION_COMPLETED, AgentEventType.INVOCATION_FAILED)
MOST_ENTRIES = 12_000
"""Of one invocation: an item has room for twice as many. The cost of later model calls is overhead."""
MAX_FAILURES = 8
"""Of one invocation; Lambda tries three times at most, but an agent may print what looks like reports."""
PROVISIONED = "provisioned-concurrency"
"""`initialization` of a start whose environment had been kept ready: `AWS_LAMBDA_INITIALIZATION_TYPE`."""
_ZERO = Decimal(0)


class _Entry(NamedTuple):
    """One event that matters here."""

    seq: int
    at_ms: int
    kind: str
    value: str
    """The metric of a domain event, the USD of a model call, the span that ended, how a start's environment
    came to be."""
    place: Place | None = None
    """Of a start."""


class _Moment(NamedTuple):
    """An entry with its time on a clock that never runs backwards."""

    clock: int
    entry: _Entry


class _Run(NamedTuple):
    """One report, less what does not matter here."""

    at_ms: int
    duration_ms: Decimal
    billed_ms: int
    init_ms: Decimal
    cost: Decimal
    provisioned_cost: Decimal
    """Instead, where the attempt's start says that its environment had been kept ready."""
    status: str
    agent: str
    ending: Ending | None = None
    """How Lambda ended it; None when it did not."""


class Invocation(State):
    """The state of one invocation."""

    __slots__ = ("_beyond", "_booked", "_entries", "_failures", "_runs")

    def __init__(self, version: int = 0, text: str | None = None) -> None:
        super().__init__(version, text)
        self._entries: dict[str, _Entry] = {}
        self._runs: dict[str, _Run] = {}
        self._beyond: dict[str, Decimal] = {}
        """By hour, the USD of the model calls that there was no room for."""
        self._booked: Increments | None = None
        self._failures: list[Event] = []
        if text:
            raw = json.loads(text)
            for event_id, (*entry, place) in raw["entries"].items():
                self._add_entry(event_id, _Entry._make([*entry, Place(*place) if place else None]))
            for report_id, (at_ms, duration, billed, init, cost, ready, *rest, ending) in raw["runs"].items():
                amounts = at_ms, Decimal(duration), billed, Decimal(init), Decimal(cost), Decimal(ready)
                run = _Run._make([*amounts, *rest, Ending(*ending) if ending else None])
                self._add_run(report_id, run)
            for hour, usd in raw.get("beyond", {}).items():
                self._add_beyond(hour, Decimal(usd))

    def copy(self) -> Invocation:
        """Return a copy to add to; what fails to commit is thrown away."""
        twin = Invocation(self.version)
        twin._entries, twin._runs = dict(self._entries), dict(self._runs)
        twin._beyond = dict(self._beyond)
        twin.touches = set(self.touches)
        return twin

    def text(self) -> str:
        """Return the state as JSON."""
        runs = {
            key: [
                run.at_ms, str(run.duration_ms), run.billed_ms, str(run.init_ms), str(run.cost),
                str(run.provisioned_cost), run.status, run.agent, run.ending,
            ]
            for key, run in self._runs.items()
        }  # fmt: skip
        state: dict[str, Any] = {"entries": self._entries, "runs": runs}
        if self._beyond:
            state["beyond"] = {hour: str(usd) for hour, usd in self._beyond.items()}
        return json.dumps(state, separators=(",", ":"))

    @staticmethod
    def key(unit: Unit, stream: str) -> str | None:
        """Return the key of the invocation whose state a report or an event belongs to."""
        if unit.request_id is None or not (isinstance(unit, Report) or _matters(unit)):
            return None
        return schema.invocation_pk(stream, unit.request_id)

    def changes(self, unit: Unit) -> bool:
        """Whether adding changes anything: not if it is a report that is in the state already."""
        return not isinstance(unit, Report) or unit.id not in self._runs

    def add(self, unit: Unit) -> None:
        """Add an event or a report; one that is there already changes nothing, as long as there is room.

        Beyond, it is the condition on an event's own item that lets it be added once.
        """
        if isinstance(unit, Report):
            self._add_report(unit)
        else:
            self._add_event(unit)

    def _add_event(self, event: Event) -> None:
        kind, value, place = _DOMAIN, event.metric, None
        if event.call is not None:
            kind, value = _CALL, str(event.call.cost)
        elif event.type in _ENDS:
            kind, value = _END, event.span_id
        elif not event.is_domain:
            kind, value, place = _START, str(event.fields().get("initialization") or "")[:64], Place.of(event)
        if kind in (_CALL, _DOMAIN) and len(self._entries) >= MOST_ENTRIES:
            if event.call is not None and event.call.cost:
                self._add_beyond(_hour(event.at_ms), event.call.cost)
            return
        self._add_entry(event.id, _Entry(event.seq, event.at_ms, kind, value, place))

    def _add_entry(self, event_id: str, entry: _Entry) -> None:
        self._entries[event_id] = entry
        self._booked = None
        if entry.kind == _CALL:
            self.touches.add((_hour(entry.at_ms), schema.TYPES))
        elif entry.place is not None:
            self.touches |= self._touched_by_start(entry.place)

    def _add_beyond(self, hour: str, usd: Decimal) -> None:
        self._beyond[hour] = EXACT.add(self._beyond.get(hour, _ZERO), usd)
        self._booked = None
        self.touches.add((hour, schema.TYPES))

    def _add_report(self, report: Report) -> None:
        ending = Ending(
            report.id,
            report.request_id,
            report.agent,
            report.at_ms,
            float(report.duration_ms),
            report.status,
            report.error_type,
            report.memory_mb,
            report.peak_mb,
        )
        run = _Run(
            report.at_ms,
            report.duration_ms,
            report.billed_ms,
            report.init_ms,
            report.cost,
            report.cost if report.provisioned_cost is None else report.provisioned_cost,
            report.status,
            report.agent,
            ending if report.failed else None,
        )
        self._add_run(report.id, run)

    def _add_run(self, report_id: str, run: _Run) -> None:
        self._runs[report_id] = run
        self._booked = None
        self.touches |= self._touched_by_report(run.at_ms, run.agent)

    def touched_by(self, unit: Unit) -> set[Key]:
        """Return the counters that its contributions may change beyond `touches` once this is added."""
        if isinstance(unit, Report):
            return self._touched_by_report(unit.at_ms, unit.agent)
        if unit.type == AgentEventType.INVOCATION_STARTED:
            return self._touched_by_start(Place.of(unit))
        return {(schema.hour_bucket(unit.at), schema.TYPES)} if unit.call is not None else set()

    def _touched_by_start(self, place: Place) -> set[Key]:
        # Failures may become this agent's, and compute this workflow's.
        found = {(_hour(run.at_ms), schema.agent_key(place.agent)) for run in self._runs.values()}
        return found | {_spend_key(place)} if found else found

    def _touched_by_report(self, at_ms: int, agent: str) -> set[Key]:
        hour = _hour(at_ms)
        # A failure is that of the agent whose start is found.
        places = [entry.place for entry in self._entries.values() if entry.place]
        agents = {agent, *(place.agent for place in places)}
        keys = [schema.TOTAL, *map(schema.agent_key, agents)]
        spent = {(bucket, key) for bucket in schema.spend_buckets(hour[2:]) for key in keys}
        spent |= {_spend_key(place) for place in places}
        return spent | {(hour, key) for key in (*keys, schema.TYPES)}

    def most_others(self, unit: Unit | None = None) -> int:
        """Return how many failures there are at most, once this is added."""
        more = isinstance(unit, Report) and unit.failed
        return min(MAX_FAILURES, sum(run.ending is not None for run in self._runs.values()) + more)

    def changed_failures(self, before: Invocation | None) -> tuple[list[Event], list[Event]]:
        """Return the failures that there are now, and those that there are no longer."""
        old, new = before.failures() if before is not None else [], self.failures()
        return [each for each in new if each not in old], [each for each in old if each not in new]

    def others(self, before: Self | None, tables: schema.Tables, now: float) -> list[dict[str, Any]]:
        """Return the actions that put the events of its failures, and take back what is none any more."""
        made, gone = self.changed_failures(before)
        replaced = [key_of(each) for each in made]
        put = [of_report(each, tables.monitoring, now) for each in made]
        return put + [
            withdrawn(each, tables.monitoring, now) for each in gone if key_of(each) not in replaced
        ]

    @property
    def workflows(self) -> set[str]:
        """The workflows that its attempts, or its failures, belong to, as far as is known."""
        begun = {entry.place.workflow_id for entry in self._entries.values() if entry.place}
        return begun | {event.workflow_id for event in self.failures()}

    def failures(self) -> list[Event]:
        """Return the events of the attempts that Lambda ended and that wrote no end of their own."""
        self.contributions()
        return self._failures

    def contributions(self) -> Increments:
        """Return everything this invocation adds to the counters beyond what its events add by themselves."""
        if self._booked is None:
            increments: Increments = {}
            entries = _in_order(self._entries)
            _allocate_calls(entries, increments)
            for hour, usd in self._beyond.items():
                add(increments, (hour, schema.TYPES), f"c.{OVERHEAD}", usd)
            ended = {entry.value for entry in self._entries.values() if entry.kind == _END}
            begun = {entry.place.span_id for entry in self._entries.values() if entry.place}
            start = 0
            failures: list[Event] = []
            for run in self._attempts():
                end = start
                while end < len(entries) and entries[end].clock <= run.at_ms:
                    end += 1
                starts = [entry for _, entry in entries[start:end] if entry.kind == _START]
                if not starts:
                    _count(run, "unstarted_runs", increments)
                elif starts[-1].value == PROVISIONED:
                    run = run._replace(cost=run.provisioned_cost)
                    _count(run, "provisioned_runs", increments)
                _book_run(run, increments)
                _allocate_run(run, entries[start:end], increments)
                places = [entry.place for entry in starts if entry.place]
                if places:
                    merge(increments, of_workflow(places[-1].workflow_id, run.agent, run.cost))
                # An end without its start, which may have got lost, is an end nevertheless.
                silent = (places[-1].span_id not in ended) if places else ended <= begun
                if run.ending is not None and silent:
                    failures.append(failure(run.ending, places[-1] if places else None))
                start = end
            self._failures = failures[-MAX_FAILURES:]
            for event in self._failures:
                merge(increments, of_event(event))
            self._booked = increments
        return self._booked

    def _attempts(self) -> list[_Run]:
        attempts: list[_Run] = []
        begins = None
        for _, run in sorted(self._runs.items(), key=lambda each: (each[1].at_ms, each[0]), reverse=True):
            if begins is None or run.at_ms <= begins:
                attempts.append(run)
                begins = EXACT.subtract(Decimal(run.at_ms), run.duration_ms)
        return attempts[::-1]


def _matters(event: Event) -> bool:
    return (
        event.is_domain
        or event.type == AgentEventType.INVOCATION_STARTED
        or event.type in _ENDS
        or (event.call is not None and bool(event.call.cost))
    )


def _in_order(entries: Mapping[str, _Entry]) -> list[_Moment]:
    """Order by the processes' own counters; where a clock runs backwards, time stands still."""
    processes: dict[str, list[_Entry]] = {}
    for event_id, entry in entries.items():
        if entry.kind != _END:
            processes.setdefault(event_id.rpartition("-")[0], []).append(entry)
    ordered: list[_Moment] = []
    clock = 0
    for nonce in sorted(processes, key=lambda each: (min(entry.at_ms for entry in processes[each]), each)):
        for entry in sorted(processes[nonce], key=lambda each: each[:4]):
            clock = max(clock, entry.at_ms)
            ordered.append(_Moment(clock, entry))
    return ordered


def _allocate_calls(moments: list[_Moment], increments: Increments) -> None:
    following = OVERHEAD
    for _, entry in reversed(moments):
        if entry.kind == _START:
            following = OVERHEAD
        elif entry.kind == _DOMAIN:
            following = entry.value
        else:
            add(increments, (_hour(entry.at_ms), schema.TYPES), f"c.{following}", Decimal(entry.value))


def _book_run(run: _Run, increments: Increments) -> None:
    hour = _hour(run.at_ms)
    agent = schema.agent_key(run.agent)
    for key in (schema.TOTAL, agent):
        add(increments, (hour, key), "compute_cost", run.cost)
        add(increments, (hour, key), "invocations", 1)
        add(increments, (hour, key), "billed_ms", run.billed_ms)
        add(increments, (hour, key), "duration_ms", run.duration_ms)
        if run.init_ms:
            add(increments, (hour, key), "cold_starts", 1)
        if run.status != "success":
            add(increments, (hour, key), "failed_runs", 1)
    merge(increments, spend(hour[2:], run.agent, "compute_cost", run.cost))


def _count(run: _Run, name: str, increments: Increments) -> None:
    for key in (schema.TOTAL, schema.agent_key(run.agent)):
        add(increments, (_hour(run.at_ms), key), name, 1)


def _allocate_run(run: _Run, moments: list[_Moment], increments: Increments) -> None:
    key = (_hour(run.at_ms), schema.TYPES)
    domain = [(Decimal(clock), entry.value) for clock, entry in moments if entry.kind == _DOMAIN]
    rest = run.cost
    if domain:
        start = next((Decimal(clock) for clock, entry in moments if entry.kind == _START), None)
        if start is None:
            start = min(EXACT.subtract(Decimal(run.at_ms), run.duration_ms), Decimal(moments[0].clock))
        whole = EXACT.subtract(max(EXACT.add(start, run.duration_ms), domain[-1][0]), start)
        before = start
        for at, metric in domain:
            # An event of another process may lie before the start that was found.
            at = max(at, before)
            part = share(run.cost, EXACT.subtract(at, before), whole) if whole else _ZERO
            if part:
                add(increments, key, f"c.{metric}", part)
                rest = EXACT.subtract(rest, part)
            before = at
    if rest:
        add(increments, key, f"c.{OVERHEAD}", rest)


def _spend_key(place: Place) -> Key:
    return schema.workflow_bucket(place.workflow_id), schema.SPEND


def _hour(at_ms: int) -> str:
    return schema.hour_bucket(datetime.fromtimestamp(at_ms / 1000, UTC).isoformat())
