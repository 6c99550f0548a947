"""Random streams, cut, repeated and mixed: the tables equal a recount of the raw lines, to the last digit."""

from __future__ import annotations

import copy
import itertools
import json
import random
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring import settings as settings_module
from agentops_monitoring.ledger.direct import line_writer
from agentops_monitoring.ledger.fold import Fold
from agentops_monitoring.ledger.parse import read_payload
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.writer import LedgerBusy, LedgerWriter
from tests.unit.ledger.compare import check_rollups
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB, client_error
from tests.unit.ledger.recount import Count, recount
from tests.unit.ledger.streams import LogEvent, World, payload

NOW = datetime(2026, 12, 2, tzinfo=UTC)
"""When the random streams are over."""


def write_all(writer: LedgerWriter, batches: list[list[LogEvent]]) -> int:
    written = 0
    for batch in batches:
        result = writer.write(read_payload(payload(batch), "us-east-1"))
        assert not result.rejects
        written += result.events
    return written


def scan(client: Any, table: str) -> list[dict[str, Any]]:
    pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return [item for page in pages for item in page["Items"]]


def check(client: Any, expected: Count, *, shards: int = 4, now: datetime | None = None) -> None:
    """Compare everything there is with the recount."""
    items = [item for item in scan(client, TABLES.monitoring) if "withdrawn" not in item]
    check_failures([item for item in items if "#report-" in item["sk"]["S"]], expected)
    items = [item for item in items if "#report-" not in item["sk"]["S"]]
    assert sorted(item["sk"]["S"].split("#")[1] for item in items) == sorted(expected.events)
    decisions = [item for item in scan(client, TABLES.decisions) if item["pk"]["S"].startswith("WF#")]
    wanted = [body for body in expected.events.values() if body["type"] == "decision_made"]
    assert sorted(item["sk"]["S"].split("#")[1] for item in decisions) == sorted(b["id"] for b in wanted)
    for item in decisions:
        assert json.loads(item["data"]["S"]) == expected.events[item["sk"]["S"].split("#")[1]]["data"]
    for item in items:
        body = expected.events[item["sk"]["S"].split("#")[1]]
        if body["type"] != "decision_made":
            assert json.loads(item["data"]["S"]) == body["data"]
        for name in ("user_id", "session_id"):
            assert item.get(name, {}).get("S") == body.get(name)
        assert json.loads(item["tags"]["S"] if "tags" in item else "null") == body.get("tags")
    check_workflow_spend(client, expected)
    reader = LedgerReader(client, TABLES, shards=shards, clock=lambda: now or datetime.now(UTC))
    check_outcomes(reader, expected)
    check_rollups(reader, expected)


def check_workflow_spend(client: Any, expected: Count) -> None:
    """Compare what the workflows have spent."""
    spent: dict[str, dict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    for item in scan(client, TABLES.ledger):
        if item["pk"]["S"].startswith("WS#"):
            for name, value in item.items():
                if name not in ("pk", "sk", "expires_at"):
                    spent[item["pk"]["S"][3:].rpartition("#")[0]][name] += Fraction(value["N"])
    for each in (spent, expected.workflow_spend):
        for counters in each.values():
            for name in [name for name, value in counters.items() if not value]:
                del counters[name]
    assert {key: each for key, each in spent.items() if each} == {
        key: each for key, each in expected.workflow_spend.items() if each
    }


def check_outcomes(reader: LedgerReader, expected: Count) -> None:
    """Compare what became of the decisions with the outcomes in the lines."""
    told = [body for body in expected.events.values() if body["type"] == "decision_outcome"]
    agents = {body["agent"] for body in expected.events.values()}
    decided = [body for body in expected.events.values() if body["type"] == "decision_made"]
    if len(decided) > 300:
        return  # one query each; the small worlds show it
    found = {each["id"]: each["outcome"] for each in reader.latest_decisions(agents, limit=len(decided) or 1)}
    assert len(found) == len(decided)
    for body in decided:
        same = [each for each in told if each["data"]["decision_id"] == body["data"]["decision_id"]]
        own = [each for each in same if each["workflow_id"] == body["workflow_id"]]
        last = max(own or same, key=lambda each: (each["at"], each["id"]), default=None)
        wanted = last and {name: last["data"][name] for name in ("correct", "score", "evidence")} | {
            name: last[name] for name in ("at", "agent", "workflow_id")
        }
        outcome = found[body["id"]]
        assert (None if outcome is None else {**outcome, "score": _float(outcome["score"])}) == wanted


def _float(score: object) -> float | None:
    return None if score is None else float(str(score))


def check_failures(items: list[dict[str, Any]], expected: Count) -> None:
    """Compare the failures that were made of Lambda's reports."""
    found = {item["sk"]["S"].partition("#")[2]: item for item in items}
    assert len(found) == len(items)
    assert sorted(found) == sorted(expected.failures)
    for id_, body in expected.failures.items():
        item, data = found[id_], json.loads(found[id_]["data"]["S"])
        assert item["pk"]["S"] == f"WF#{body['workflow_id']}"
        for name in ("agent", "at", "type", "request_id"):
            assert item[name]["S"] == body[name]
        if body["span_id"] is not None:
            assert (item["span_id"]["S"], item["parent_id"]["S"]) == (body["span_id"], body["parent_id"])
        assert (data["error"]["type"], Fraction(str(data["duration_ms"]))) == (body["error"], body["ms"])


def writer_of(client: Any, **arguments: Any) -> LedgerWriter:
    return LedgerWriter(client, TABLES, shards=4, sleep=lambda _: None, **arguments)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_delivery_gives_the_recount(seed: int) -> None:
    world = World(seed)
    expected = recount(world.events)
    client = FakeDynamoDB()
    assert write_all(writer_of(client), world.deliveries()) == len(expected.events)
    check(client, expected)


@pytest.mark.slow
def test_two_opinions_of_aws_agree(dynamodb: Any, request: pytest.FixtureRequest, full_size: bool) -> None:
    # moto copies all that it holds for each transaction; the embedded AWS takes the full size, eight at once.
    embedded = request.node.callspec.params["dynamodb"] == "embedded"
    workers, most = (8, 420) if embedded else (1, 12)
    world = World(7, streams=8 if embedded else 3, invocations=most if full_size else 5)
    expected = recount(world.events)
    assert not (embedded and full_size) or len(world.events) >= 20_000

    def work(batch: list[LogEvent]) -> int:
        return write_all(writer_of(dynamodb), [batch])

    with ThreadPoolExecutor(workers) as pool:
        assert sum(pool.map(work, world.deliveries())) == len(expected.events)
    check(dynamodb, expected)


class Faults:
    """Fails calls at random, before and after they took effect."""

    def __init__(self, seed: int, rate: float) -> None:
        self.random = random.Random(seed)
        self.rate = rate

    def __call__(self, operation: str, when: str) -> None:
        # What only reads is repeated by botocore, and asks often.
        if self.random.random() >= (self.rate / 50 if operation == "Query" else self.rate):
            return
        self.fail(operation, when)

    def fail(self, operation: str, when: str) -> None:
        if when == "after":
            raise ReadTimeoutError(endpoint_url="test")
        code = self.random.choice(("InternalServerError", "ThrottlingException", "TransactionConflict"))
        if code == "TransactionConflict" and operation == "TransactWriteItems":
            reasons = [{"Code": "None"}, {"Code": code}]
            raise client_error("TransactionCanceledException", operation, CancellationReasons=reasons)
        raise client_error("InternalServerError", operation)


class Crash(Exception):
    """The end of a worker: its batch comes again, whole."""


class AtEveryCall(Faults):
    """Fails each request of each worker once: before it took effect, after it, or the worker ends there."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 1)
        self.worker = threading.local()
        self.faults: Counter[tuple[str, str]] = Counter()

    def __call__(self, operation: str, when: str) -> None:
        if operation == "Query":
            return  # what only reads is repeated by botocore
        told = vars(self.worker)
        if when == "before":
            told["place"] = None if told.get("failed") else self.random.choice(("before", "after"))
            told["failed"] = False
        if told["place"] == when:
            told["failed"] = True
            self.faults[operation, when] += 1
            if self.random.random() < 0.1:
                raise Crash
            self.fail(operation, when)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_faults_lose_nothing_and_double_nothing(seed: int) -> None:
    world = World(seed)
    expected = recount(world.events)
    client = FakeDynamoDB(Faults(seed, 0.15))
    writer = writer_of(client, attempts=4)
    for batch in world.deliveries():
        # As Lambda does: a batch that fails is delivered again, whole.
        for _ in range(1000):
            try:
                writer.write(read_payload(payload(batch), "us-east-1"))
            except (LedgerBusy, ClientError, ReadTimeoutError):
                continue
            break
    client.fault = lambda operation, when: None
    check(client, expected)


@pytest.mark.slow
def test_eight_workers_at_once_and_faults_at_every_call(full_size: bool) -> None:
    world = World(3, streams=8, invocations=420 if full_size else 40)
    expected = recount(world.events)
    faults = AtEveryCall(3)
    client = FakeDynamoDB(faults)
    assert not full_size or len(world.events) >= 20_000

    def work(batch: list[LogEvent]) -> None:
        while True:
            try:
                writer_of(client).write(read_payload(payload(batch), "us-east-1"))
            except (LedgerBusy, ClientError, ReadTimeoutError, Crash):
                continue
            return

    done, folds = threading.Event(), Fold(client, TABLES, shards=4, sleep=lambda _: None)

    def fold() -> int:
        days = 0
        while not done.wait(0.2):
            with suppress(ExceptionGroup, LedgerBusy, ClientError, ReadTimeoutError, Crash):
                days += folds.run(NOW).days
        return days

    with ThreadPoolExecutor(9) as pool:
        folding = pool.submit(fold)
        list(pool.map(work, world.deliveries()))
        done.set()
    print(f"{folding.result()} folds meanwhile; faults: {dict(faults.faults)}")
    assert len(faults.faults) >= 6, "every kind of call failed, before and after it took effect"
    client.fault = lambda operation, when: None
    check(client, expected, now=NOW)
    folds.run(NOW)
    check(client, expected, now=NOW)


def test_other_workers_between_read_and_write() -> None:
    world = World(11, streams=2, invocations=8)
    waiting = world.deliveries()
    client = FakeDynamoDB()

    def interleave(operation: str, when: str) -> None:
        if operation == "TransactWriteItems" and when == "before" and waiting:
            writer_of(client).write(read_payload(payload(waiting.pop()), "us-east-1"))

    client.fault = interleave
    while waiting:
        writer_of(client).write(read_payload(payload(waiting.pop()), "us-east-1"))
    client.fault = lambda operation, when: None
    check(client, recount(world.events))


def test_conflicts_that_persist_are_raised() -> None:
    def conflict(operation: str, when: str) -> None:
        if operation == "TransactWriteItems":
            reasons = [{"Code": "TransactionConflict"}]
            raise client_error("TransactionCanceledException", operation, CancellationReasons=reasons)

    world = World(1, streams=1)
    client = FakeDynamoDB(conflict)
    with pytest.raises(LedgerBusy, match="TransactionConflict"):
        writer_of(client).write(read_payload(payload(world.events), "us-east-1"))


def test_missing_permissions_are_not_retried() -> None:
    def deny(operation: str, when: str) -> None:
        if operation == "TransactWriteItems":
            raise client_error("AccessDeniedException", operation)

    with pytest.raises(ClientError, match="AccessDenied"):
        writer_of(FakeDynamoDB(deny)).write(read_payload(payload(World(1).events[:5]), "us-east-1"))


def test_a_full_batch_takes_few_requests() -> None:
    world = World(5, streams=1, invocations=130)
    client = FakeDynamoDB()
    result = writer_of(client).write(read_payload(payload(world.events), "us-east-1"))
    requests = client.calls["TransactWriteItems"] + client.calls["BatchGetItem"]
    assert result.requests == requests
    assert requests <= 20 * len(world.events) / 1000 + 2


def test_reading_a_day_takes_requests_by_hours_and_shards_alone() -> None:
    for invocations in (2, 40):
        client = FakeDynamoDB()
        world = World(5, invocations=invocations)
        write_all(writer_of(client), world.deliveries())
        reader = LedgerReader(client, TABLES, shards=4)
        reader.last(24, datetime.fromtimestamp(world.events[0].timestamp / 1000, UTC))
        assert reader.requests == 24 * 4


def test_a_batch_of_duplicates_changes_nothing() -> None:
    world = World(9, streams=1)
    client = FakeDynamoDB()
    batch = read_payload(payload(world.events), "us-east-1")
    first = writer_of(client).write(batch)
    before = copy.deepcopy(client.tables)
    again = writer_of(client).write(read_payload(payload(world.events), "us-east-1"))
    assert client.tables == before
    assert (again.events, again.reports, again.increments) == (0, 0, {})
    assert again.duplicates == first.events + first.reports


@pytest.mark.parametrize("operation", ["BatchGetItem", "BatchWriteItem"])
def test_what_a_request_leaves_for_later_is_asked_for_again(operation: str) -> None:
    world = World(13)
    client = FakeDynamoDB()
    leaves = itertools.cycle((1, 0))

    def leave(called: str, when: str) -> None:
        if when == "before":
            client.unprocessed = next(leaves) if called == operation else 0

    client.fault = leave
    write_all(writer_of(client), world.deliveries())
    assert client.calls[operation] > 1
    check(client, recount(world.events))


@pytest.mark.parametrize("code", ["ValidationException", "SerializationException"])
def test_one_event_that_dynamodb_refuses_does_not_hold_up_the_others(code: str) -> None:
    class Picky(FakeDynamoDB):
        def transact_write_items(self, **arguments: Any) -> Any:
            if "poison" in json.dumps(arguments, default=str):
                raise client_error(code, "TransactWriteItems")
            return super().transact_write_items(**arguments)

    world = World(14, streams=1, invocations=8)
    world._event("issue_detected", {"note": "poison"}, None)
    client = Picky()
    result = writer_of(client).write(read_payload(payload(world.events), "us-east-1"))
    (reject,) = result.rejects
    assert reject.source.message == world.events[-1].message
    check(client, recount(world.events[:-1]))


def test_lines_written_directly_by_a_deadline(dynamodb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, table in zip(("MONITORING", "DECISIONS", "LEDGER"), TABLES, strict=True):
        monkeypatch.setenv(f"{name}_TABLE_NAME", table)
    world = World(16, streams=1, invocations=2)
    lines = [event.message for event in world.events if "agentops.event" in event.message]
    write = line_writer(settings_module.load())
    write(lines, time.monotonic() + 60)
    write(lines, time.monotonic() + 60)
    total = LedgerReader(dynamodb, TABLES).last(2, datetime.fromtimestamp(world.now / 1000, UTC)).total
    assert total.events == len(recount(world.events).events)
    with pytest.raises(LedgerBusy, match="time"):
        write([lines[0].replace(world.nonce, "other")], time.monotonic() - 1)
