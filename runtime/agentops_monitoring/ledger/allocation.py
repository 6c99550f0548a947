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
from typing import Any, NamedTuple

from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.events import Event, Report
from agentops_monitoring.ledger.exact import EXACT, share
from agentops_monitoring.ledger.failures import Ending, Place, failure
from agentops_monitoring.ledger.rollup import OVERHEAD, Increments, Key, add, merge, of_event

_START, _DOMAIN, _CALL, _END = "s", "d", "c", "e"
_ENDS = (AgentEventType.INVOCATION_COMPLETED, AgentEventType.INVOCATION_FAILED)
MAX_FAILURES = 8
"""Of one invocation; Lambda tries three times at most, but an agent may print what looks like reports."""
_ZERO = Decimal(0)


class _Entry(NamedTuple):
    """One event that matters here."""

    seq: int
    at_ms: int
    kind: str
    value: str
    """The metric of a domain event, the USD of a model call, the span that ended."""
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
    status: str
    agent: str
    ending: Ending | None = None
    """How Lambda ended it; None when it did not."""


class Invocation:
    """The state of one invocation; it is changed by adding to it and never in any other way."""

    __slots__ = ("_booked", "_entries", "_failures", "_runs", "touches", "version")

    def __init__(self, version: int = 0, text: str | None = None) -> None:
        self.version = version
        self.touches: set[Key] = set()
        """The counters that its contributions may change, at most."""
        self._entries: dict[str, _Entry] = {}
        self._runs: dict[str, _Run] = {}
        self._booked: Increments | None = None
        self._failures: list[Event] = []
        if text:
            raw = json.loads(text)
            for event_id, (*entry, place) in raw["entries"].items():
                self._add_entry(event_id, _Entry._make([*entry, Place(*place) if place else None]))
            for report_id, (at_ms, duration, billed, init, cost, *rest, ending) in raw["runs"].items():
                amounts = at_ms, Decimal(duration), billed, Decimal(init), Decimal(cost)
                run = _Run._make([*amounts, *rest, Ending(*ending) if ending else None])
                self._add_run(report_id, run)

    def copy(self) -> Invocation:
        """Return a copy to add to; what fails to commit is thrown away."""
        twin = Invocation(self.version)
        twin._entries, twin._runs = dict(self._entries), dict(self._runs)
        twin.touches = set(self.touches)
        return twin

    def text(self) -> str:
        """Return the state as JSON."""
        runs = {
            key: [
                run.at_ms, str(run.duration_ms), run.billed_ms, str(run.init_ms), str(run.cost), run.status,
                run.agent, run.ending,
            ]
            for key, run in self._runs.items()
        }  # fmt: skip
        return json.dumps({"entries": self._entries, "runs": runs}, separators=(",", ":"))

    @staticmethod
    def concerns(event: Event) -> bool:
        """Whether an event changes the state of its invocation."""
        return event.request_id is not None and (
            event.is_domain
            or event.type == AgentEventType.INVOCATION_STARTED
            or event.type in _ENDS
            or (event.call is not None and bool(event.call.cost))
        )

    def add_event(self, event: Event) -> None:
        """Add an event; one that is there already changes nothing."""
        kind, value, place = _DOMAIN, event.metric, None
        if event.call is not None:
            kind, value = _CALL, str(event.call.cost)
        elif event.type in _ENDS:
            kind, value = _END, event.span_id
        elif not event.is_domain:
            kind, value, place = _START, "", Place.of(event)
        self._add_entry(event.id, _Entry(event.seq, event.at_ms, kind, value, place))

    def _add_entry(self, event_id: str, entry: _Entry) -> None:
        self._entries[event_id] = entry
        self._booked = None
        if entry.kind == _CALL:
            self.touches.add((_hour(entry.at_ms), schema.TYPES))
        elif entry.place is not None:
            self.touches |= self.touched_by_start(entry.place.agent)

    def has_report(self, report: Report) -> bool:
        """Whether a report is in the state already."""
        return report.id in self._runs

    def add_report(self, report: Report) -> None:
        """Add a report; one that is there already changes nothing."""
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
            report.status,
            report.agent,
            ending if report.failed else None,
        )
        self._add_run(report.id, run)

    def _add_run(self, report_id: str, run: _Run) -> None:
        self._runs[report_id] = run
        self._booked = None
        hour = _hour(run.at_ms)
        self.touches |= {
            (bucket, name)
            for bucket in (hour, _day(hour))
            for name in (schema.TOTAL, schema.TYPES, schema.agent_key(run.agent))
        }
        self.touches |= self.touched_by_report(run.at_ms)

    def touched_by_start(self, agent: str) -> set[Key]:
        """Return the counters of failures that may become this agent's once its start is added."""
        return {(_hour(run.at_ms), schema.agent_key(agent)) for run in self._runs.values()}

    def touched_by_report(self, at_ms: int) -> set[Key]:
        """Return the counters of agents whose failure a report may tell of once it is added."""
        agents = {entry.place.agent for entry in self._entries.values() if entry.place}
        return {(_hour(at_ms), schema.agent_key(agent)) for agent in agents}

    @property
    def most_failures(self) -> int:
        """How many failures there are at most."""
        return min(MAX_FAILURES, sum(run.ending is not None for run in self._runs.values()))

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
            ended = {entry.value for entry in self._entries.values() if entry.kind == _END}
            begun = {entry.place.span_id for entry in self._entries.values() if entry.place}
            start = 0
            failures: list[Event] = []
            for run in self._attempts():
                end = start
                while end < len(entries) and entries[end].clock <= run.at_ms:
                    end += 1
                _book_run(run, increments)
                _allocate_run(run, entries[start:end], increments)
                if run.ending is not None:
                    places = [entry.place for _, entry in entries[start:end] if entry.place]
                    # An end without its start, which may have got lost, is an end nevertheless.
                    if (places[-1].span_id not in ended) if places else ended <= begun:
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
        add(increments, (_day(hour), key), "compute_cost", run.cost)


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


def _hour(at_ms: int) -> str:
    return schema.hour_bucket(datetime.fromtimestamp(at_ms / 1000, UTC).isoformat())


def _day(hour: str) -> str:
    return schema.day_bucket(hour[2:])


class Workflow:
    """Who took part in a workflow, and how it ended: its last ending counts, whichever comes first."""

    __slots__ = ("_booked", "agents", "ended", "touches", "version")

    def __init__(self, version: int = 0, text: str | None = None) -> None:
        self.version = version
        self.touches: set[Key] = set()
        """The counters that its contributions may change, at most."""
        raw: dict[str, Any] = json.loads(text) if text else {"agents": [], "ended": None}
        self.agents: set[str] = set(raw["agents"])
        self._booked: Increments | None = None
        self.ended: tuple[str, str, str] | None = tuple(raw["ended"]) if raw["ended"] else None
        """(time, event id, "c" for completed or "f" for failed)"""
        self._note()

    def copy(self) -> Workflow:
        """Return a copy to add to."""
        twin = Workflow(self.version)
        twin.agents, twin.ended, twin.touches = set(self.agents), self.ended, set(self.touches)
        return twin

    def text(self) -> str:
        """Return the state as JSON."""
        return json.dumps({"agents": sorted(self.agents), "ended": self.ended}, separators=(",", ":"))

    def changes(self, event: Event) -> bool:
        """Whether an event adds to what is known."""
        return event.agent not in self.agents or self._ending(event) != self.ended

    def add_event(self, event: Event) -> None:
        """Add an event."""
        self.agents.add(event.agent)
        self.ended = self._ending(event)
        self._note()

    def _note(self) -> None:
        self._booked = None
        if self.ended is not None:
            hour = schema.hour_bucket(self.ended[0])
            self.touches |= {(hour, schema.TOTAL), (hour, schema.OUTCOMES)}

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
