"""Readers look wherever anyone writes, whatever their own environment says."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from agentops_monitoring.ledger import schema, shards
from agentops_monitoring.ledger.budgets import Budget, Case
from agentops_monitoring.ledger.fold import Fold
from agentops_monitoring.ledger.parse import read_payload
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.ready import Ready
from agentops_monitoring.ledger.requests import Requests
from agentops_monitoring.ledger.watch import Watch
from agentops_monitoring.ledger.writer import LedgerWriter

from .conftest import TABLES
from .fake_dynamodb import FakeDynamoDB
from .streams import LogEvent, World, payload

SETTING = "AGENTOPS_LEDGER_SHARDS"
DAY = date(2026, 11, 22)


def write(client: Any, events: list[LogEvent]) -> LedgerWriter:
    writer = LedgerWriter(client, TABLES)
    for stream in {each.stream for each in events}:
        some = [each for each in events if each.stream == stream]
        writer.write(read_payload(payload(some), "us-east-1"))
    return writer


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> FakeDynamoDB:
    """Give a ledger that was written over 16 items by others, and take their setting away."""
    client = FakeDynamoDB()
    monkeypatch.setenv(SETTING, "16")
    write(client, World(17, streams=12, invocations=3, start_ms=1_795_348_800_000).events)
    monkeypatch.delenv(SETTING)
    return client


def spent(client: Any, count: int | None = None) -> Decimal:
    return LedgerReader(client, TABLES, shards=count).spend(DAY).total.total_cost


@pytest.mark.parametrize("setting", ["", "1", "16"])
def test_a_reader_misses_nothing(ledger: FakeDynamoDB, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, setting)
    whole = spent(ledger, 16)
    assert whole > spent(ledger, 4)  # else there is nothing to miss
    assert spent(ledger) == whole
    start = datetime(2026, 11, 22, tzinfo=UTC)
    reader = LedgerReader(ledger, TABLES, clock=lambda: start)
    assert reader.window(start, start.replace(hour=23)).total.total_cost == whole


def test_neither_do_a_watch_of_budgets_and_a_fold(ledger: FakeDynamoDB) -> None:
    whole = spent(ledger, 16)
    case = Case(Budget(Decimal(10)), "", schema.day_bucket(DAY.isoformat()))
    watch = Watch(ledger, TABLES, [case.budget], lambda **_: None)
    assert watch.spent([case]) == {case: whole}
    Fold(ledger, TABLES).run(datetime(2026, 11, 24, tzinfo=UTC))
    folded = ledger.query(TableName=TABLES.ledger, ExpressionAttributeValues={":pk": {"S": f"D#{DAY}"}})[
        "Items"
    ]
    total = next(item for item in folded if item["sk"]["S"] == "TOTAL")
    assert Decimal(total["llm_cost"]["N"]) + Decimal(total["compute_cost"]["N"]) == whole


def test_a_reader_that_lives_on_learns_of_more(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeDynamoDB()
    reader = LedgerReader(client, TABLES)
    for _ in range(2):
        assert reader.spend(DAY).total.total_cost == 0
    assert reader.requests == 2 * 4 + 1  # it asks once a minute
    monkeypatch.setenv(SETTING, "16")
    write(client, World(17, streams=12, invocations=3, start_ms=1_795_348_800_000).events)
    monkeypatch.delenv(SETTING)
    monkeypatch.setattr(shards, "_KEPT_S", 0.0)
    reader = LedgerReader(client, TABLES)
    for _ in range(2):
        assert reader.spend(DAY).total.total_cost == spent(client, 16)
    assert reader.requests == 2 * (16 + 1)


def test_saying_so_costs_a_request_a_process_and_none_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    client, events = FakeDynamoDB(), World(17, streams=2).events
    write(client, events)
    assert "UpdateItem" not in client.calls
    monkeypatch.setenv(SETTING, "16")
    write(client, events)
    assert client.calls["UpdateItem"] == 1


def test_what_books_standing_prices_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "16")
    client = FakeDynamoDB()
    Ready(client, None, TABLES, "us-east-1").run(datetime(2026, 11, 22, tzinfo=UTC))
    assert client.tables[TABLES.ledger][shards.KEY]["n"] == {"N": "16"}


@pytest.mark.parametrize("order", [(8, 16), (16, 8), (16, 16)])
def test_the_highest_number_stays(dynamodb: Any, order: tuple[int, ...]) -> None:
    requests = Requests(dynamodb)
    for count in order:
        shards.declare(requests, TABLES.ledger, count)
    assert shards.Shards(lambda: requests.get(TABLES.ledger, [shards.KEY]))() == 16
