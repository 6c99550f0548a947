"""Commits batches to the three tables: each event once, with all that it adds to, whatever fails between."""

from __future__ import annotations

import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import localcontext
from typing import Any

from botocore.exceptions import ClientError

from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.ledger import rollup, schema
from agentops_monitoring.ledger.allocation import Invocation
from agentops_monitoring.ledger.events import Event, Part, Reject, Report
from agentops_monitoring.ledger.exact import EXACT
from agentops_monitoring.ledger.failures import workflow_of
from agentops_monitoring.ledger.items import Written, noted, render, stub
from agentops_monitoring.ledger.later import LaterLines
from agentops_monitoring.ledger.parse import Batch, read_lines
from agentops_monitoring.ledger.parts import PartStore
from agentops_monitoring.ledger.payload import unpack
from agentops_monitoring.ledger.receipts import Receipt
from agentops_monitoring.ledger.requests import LedgerBusy, Requests
from agentops_monitoring.ledger.sequences import Sequence
from agentops_monitoring.ledger.shards import declare
from agentops_monitoring.ledger.state import State, Unit
from agentops_monitoring.ledger.states import concerned
from agentops_monitoring.ledger.transaction import MAX_ACTIONS, Plan
from agentops_monitoring.ledger.workflows import Workflow

_BUSY_REASONS = frozenset(
    ("ProvisionedThroughputExceeded", "RequestLimitExceeded", "ThrottlingError", "TransactionConflict")
)


@dataclass(slots=True)
class WriteResult:
    """What a batch changed."""

    events: int = 0
    """Events committed now."""
    reports: int = 0
    """Reports committed now."""
    duplicates: int = 0
    """Events and reports that were in the ledger already, or twice in the batch."""
    increments: rollup.Increments = field(default_factory=dict)
    """What was added to the counters, by bucket and sort key."""
    failures: dict[tuple[int, str], int] = field(default_factory=dict)
    """Invocations that Lambda ended, by minute (milliseconds since the epoch) and agent; less than 0 where
    one was taken back."""
    problems: int = 0
    """Events committed now that were recorded with wrong arguments."""
    handoff_ms: list[float] = field(default_factory=list)
    newest_ms: dict[str, int] = field(default_factory=dict)
    """By hour bucket, the time of its newest event or report."""
    oldest_ms: int = 0
    """Time of the oldest event or report committed now; 0 when there is none."""
    later: int = 0
    """Lines of a later version, kept."""
    rejects: list[Reject] = field(default_factory=list)
    """Lines that the ledger cannot hold, for the dead letters."""
    requests: int = 0
    """Requests made to DynamoDB."""


class LedgerWriter:
    """Writes batches of one log stream each.

    Parameters
    ----------
    client
        A DynamoDB client.
    tables
        Names of the tables.
    shards
        Over how many items each rollup is spread; from the environment when left out.
    attempts
        How often a transaction is tried in a row without any progress.
    """

    def __init__(
        self,
        client: Any,
        tables: schema.Tables,
        *,
        shards: int | None = None,
        attempts: int = 10,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._tables = tables
        self._shards = shards or schema.shards()
        self._clock = clock
        self._requests = Requests(client, attempts=attempts, sleep=sleep, jitter=jitter, clock=clock)
        self._parts = PartStore(client, tables.ledger, self._requests)
        self._later = LaterLines(client, tables.ledger, self._requests)
        self._marked: set[str] = set()
        self._declared = False

    @classmethod
    def from_environment(cls) -> LedgerWriter:
        """Return a writer for the tables that the environment variables name."""
        return cls(schema.client(), schema.Tables.from_environment())

    def write_lines(self, lines: Iterable[str], writer: str, *, deadline: float | None = None) -> WriteResult:
        """Write lines that this process made itself; `writer` names the process. Otherwise as `write`."""
        batch = read_lines(lines, writer, int(self._clock() * 1000))
        return self.write(batch, deadline=deadline)

    def write(self, batch: Batch, *, deadline: float | None = None) -> WriteResult:
        """Write a batch. Writing it again, or parts of it among others, changes nothing.

        Parameters
        ----------
        batch
            What `parse` read.
        deadline
            When to give up, on the monotonic clock, seconds.

        Raises
        ------
        LedgerBusy
            Conflicts or throttles persisted, or time ran out. What was committed stays so; write the whole
            batch again.
        botocore.exceptions.ClientError
            The tables refuse, as when they are missing or permissions are.
        """
        self._requests.deadline = deadline
        with localcontext(EXACT):
            return self._write(batch)

    def _write(self, batch: Batch) -> WriteResult:
        result = WriteResult(rejects=list(batch.rejects), later=len(batch.later))
        before = self._requests.made
        if not self._declared:
            declare(self._requests, self._tables.ledger, self._shards)
            self._declared = True
        self._later.put(batch.frame, batch.later)
        split = [part.event for part in batch.parts]
        asked = _likely([*batch.events, *split, *batch.reports], batch.stream)
        known = self._load(asked)
        assembled, refused = self._parts.assemble(_new_parts(batch, known, result))
        result.rejects += refused
        units = _together(_distinct([*batch.events, *assembled, *batch.reports], result))
        rendered: dict[str, Written] = {}
        if assembled:  # more is known of an event once it is whole
            likely = _likely(assembled, batch.stream)
            known |= self._load({key: kind for key, kind in likely.items() if key not in asked})
        if failed := [unit for unit in units if isinstance(unit, Report) and unit.failed]:
            known |= self._load(_of_failures(failed, known))
        queue = deque(units)
        shard = schema.shard_of(batch.stream, self._shards)
        limit, fruitless = len(units), 0
        while queue:
            self._requests.check_time()
            plan = Plan(self._tables, batch.stream, shard, known, self._clock(), self._marked)
            repeated = self._fill(plan, queue, rendered, limit)
            result.duplicates += repeated
            if not plan:
                continue
            increments = plan.increments()
            failure = self._commit(plan, increments)
            if failure is None:
                self._marked |= rollup.days_of(increments)
                _account(result, plan, increments)
                for key, state in plan.states.items():
                    state.version += 1
                    known[key] = state
                limit, fruitless = len(units), 0
                continue
            rest = plan.units()
            if failure.invalid:
                if len(rest) == 1:
                    result.rejects += [Reject(failure.invalid, source) for source in _sources(rest[0])]
                    rest = []
                limit = max(1, len(rest) // 2)
            elif failure.duplicates:
                result.duplicates += len(failure.duplicates)
                # One whose number is not booked is another's copy of what counts once, such as a kept answer.
                for each in plan.written:
                    if each.event.id in failure.duplicates:
                        rendered[each.event.id] = noted(each.event)
                rest = [
                    each
                    for each in rest
                    if each.id not in failure.duplicates or Sequence.key(each, batch.stream) is not None
                ]
            else:
                fruitless += 1
                if fruitless >= self._requests.attempts:
                    raise LedgerBusy(f"{len(queue) + len(rest)} of {len(units)} items wait: {failure.reason}")
                self._requests.wait(fruitless)
            if failure.stale:
                stale = {key: type(state) for key, state in plan.states.items()}
                for key in stale:
                    known.pop(key, None)
                # Where one was there that was taken for new, the others that were are read as well, at once.
                waiting = [pair for unit in queue for pair in concerned(unit, batch.stream)]
                stale |= {key: kind for key, kind in waiting if key not in asked}
                asked |= stale
                known |= self._load(stale)
            queue.extendleft(reversed(rest))
        for event in assembled:
            workflow = known.get(schema.workflow_pk(event.workflow_id))
            if isinstance(workflow, Workflow) and workflow.forgotten:
                self._parts.forget(event)
        result.requests = self._requests.made - before
        return result

    def _fill(self, plan: Plan, queue: deque[Unit], rendered: dict[str, Written], limit: int) -> int:
        """Move units into the plan while there is room; return the number of those that the ledger has."""
        while queue and len(plan.written) + len(plan.reports) < limit:
            unit = queue[0]
            if isinstance(unit, Report):
                fits = plan.try_report(unit)
            elif plan.knows(unit):
                # What is only to be noted was counted when it turned out so.
                plan.repeated += unit.id not in rendered or bool(rendered[unit.id].actions)
                fits = True
            else:
                written = rendered.get(unit.id)
                if written is None or (written.actions and plan.forgets(unit) and not written.is_stub):
                    make = stub if plan.forgets(unit) else render
                    written = rendered[unit.id] = make(unit, self._tables, self._clock())
                    if written.pieces:
                        self._parts.put_pieces(written.pieces)
                fits = plan.try_event(written)
            if not fits:
                break
            queue.popleft()
        return plan.repeated

    def _commit(self, plan: Plan, increments: rollup.Increments) -> _Failure | None:
        """Send a transaction; None when it is committed.

        The token is the transaction's: should an answer get lost, sending the same again tells success, and
        does not commit twice.
        """
        try:
            actions = plan.actions(increments)
        except OverflowError as error:
            return _Failure(str(error), invalid=str(error))
        if len(actions) > MAX_ACTIONS:
            # The plan's bound was too low; fewer units at once are fewer actions.
            return _Failure("", invalid=f"it takes {len(actions)} actions, a transaction {MAX_ACTIONS}")
        try:
            self._requests.send(
                "transact_write_items", TransactItems=actions, ClientRequestToken=uuid.uuid4().hex
            )
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code == "TransactionCanceledException":
                return _Failure.of(plan, error)
            if code in ("ValidationException", "SerializationException"):
                return _Failure(str(error), invalid=str(error)[:500])
            raise
        return None

    def _load(self, keys: Mapping[str, type[State]]) -> dict[str, State]:
        """Read states, consistently; those that do not exist are left out."""
        found: dict[str, State] = {}
        for item in self._requests.get(self._tables.ledger, [(key, schema.STATE) for key in keys]):
            key = item["pk"]["S"]
            found[key] = keys[key](int(item["ver"]["N"]), unpack(item, "state"))
        return found


@dataclass(slots=True)
class _Failure:
    """Why a transaction was not committed."""

    reason: str
    invalid: str = ""
    """What DynamoDB will never take."""
    duplicates: set[str] = field(default_factory=set)
    """Events that are in the table already."""
    stale: bool = False
    """Whether states have changed since they were read."""

    @classmethod
    def of(cls, plan: Plan, error: ClientError) -> _Failure:
        codes = [str(each.get("Code")) for each in error.response.get("CancellationReasons", ())]
        failure = cls(", ".join(sorted({code for code in codes if code != "None"})) or str(error))
        if "ValidationError" in codes:
            failure.invalid = str(error)[:500]
            return failure
        position = 0
        for each in plan.written:
            if "ConditionalCheckFailed" in codes[position : position + len(each.actions)]:
                failure.duplicates.add(each.event.id)
            position += len(each.actions)
        failure.stale = "ConditionalCheckFailed" in codes[position:] or bool(failure.duplicates)
        if not codes or not ("ConditionalCheckFailed" in codes or _BUSY_REASONS.intersection(codes)):
            raise error
        return failure


def _together(units: list[Unit]) -> list[Unit]:
    """Order by invocation, else workflow: what changes the same states goes into the same transaction."""
    groups: dict[str, list[Unit]] = {}
    for unit in units:
        group = unit.request_id or ("" if isinstance(unit, Report) else unit.workflow_id)
        groups.setdefault(group, []).append(unit)
    return [unit for group in groups.values() for unit in group]


def _likely(units: Iterable[Unit], stream: str) -> dict[str, type[State]]:
    """Return the states that may be in the table already.

    Those of a message that arrives and of an invocation that starts are not, unless something comes again:
    then the transaction finds out, and they are read.
    """
    found: dict[str, type[State]] = {}
    begun: set[str] = set()
    for unit in units:
        starts = isinstance(unit, Event) and unit.type == AgentEventType.INVOCATION_STARTED
        for key, kind in concerned(unit, stream):
            if kind is Invocation and starts:
                begun.add(key)
            elif kind is not Receipt:
                found[key] = kind
    return {key: kind for key, kind in found.items() if key not in begun}


def _new_parts(batch: Batch, known: Mapping[str, State], result: WriteResult) -> list[Part]:
    """Return the parts whose event is not in the ledger yet; the others would wait there once more."""
    new = []
    for part in batch.parts:
        sequence = known.get(Sequence.key(part.event, batch.stream) or "")
        if sequence is None or sequence.changes(part.event):
            new.append(part)
        else:
            result.duplicates += part.number == 1
    return new


def _of_failures(failed: Iterable[Report], known: Mapping[str, State]) -> dict[str, type[State]]:
    """Return the workflows that failures may belong to, those that are not known."""
    states = (state for state in known.values() if isinstance(state, Invocation))
    names = {name for state in states for name in state.workflows}
    names |= {workflow_of(report.request_id) for report in failed}
    return dict.fromkeys({schema.workflow_pk(name) for name in names} - known.keys(), Workflow)


def _distinct(units: list[Unit], result: WriteResult) -> list[Unit]:
    kept: dict[str, Unit] = {}
    for unit in units:
        key = f"{type(unit).__name__}#{unit.id}"
        if key in kept:
            result.duplicates += 1
        else:
            kept[key] = unit
    return list(kept.values())


def _sources(unit: Unit) -> Iterable[Any]:
    return (unit.source,) if isinstance(unit, Report) else unit.sources


def _account(result: WriteResult, plan: Plan, increments: rollup.Increments) -> None:
    result.events += sum(bool(each.actions) for each in plan.written)
    result.reports += len(plan.reports)
    rollup.merge(result.increments, increments)
    for written in plan.written:
        if not written.actions:
            continue
        event = written.event
        _newest(result, event.at, event.at_ms)
        result.problems += bool(event.problems)
    for report in plan.reports:
        at = time.strftime("%Y-%m-%dT%H", time.gmtime(report.at_ms / 1000))
        _newest(result, at, report.at_ms)
    for event in plan.handoffs():
        latency = rollup.measure(event.fields(), "latency_ms")
        result.handoff_ms += [] if latency is None else [float(latency)]
    for change, failures in zip((1, -1), plan.failures(), strict=True):
        for each in failures:
            key = each.at_ms // 60_000 * 60_000, each.agent
            result.failures[key] = result.failures.get(key, 0) + change


def _newest(result: WriteResult, at: str, at_ms: int) -> None:
    bucket = schema.hour_bucket(at)
    result.newest_ms[bucket] = max(at_ms, result.newest_ms.get(bucket, 0))
    result.oldest_ms = min(at_ms, result.oldest_ms or at_ms)


__all__ = ["Event", "LedgerBusy", "LedgerWriter", "WriteResult"]
