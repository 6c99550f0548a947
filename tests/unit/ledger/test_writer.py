"""Random streams, cut, repeated and mixed: the tables must equal a recount of the raw lines, to the last digit."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentops_monitoring.ledger.parse import read_payload
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.writer import LedgerBusy, LedgerWriter
from tests.unit.ledger.conftest import TABLES, create_tables
from tests.unit.ledger.streams import Count, LogEvent, World, payload, recount


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


def nonzero(counters: dict[str, Any]) -> dict[str, Fraction]:
    ignored = ("n.", "llm_ms", "handler", "cold_starts", "failed_runs", "workflows_")
    return {
        name: Fraction(value) for name, value in counters.items() if value and not name.startswith(ignored)
    }


def check(client: Any, expected: Count, *, shards: int = 4) -> None:
    """Compare everything there is with the recount."""
    items = scan(client, TABLES.monitoring)
    assert sorted(item["sk"]["S"].split("#")[1] for item in items) == sorted(expected.events)
    decisions = scan(client, TABLES.decisions)
    wanted = [body for body in expected.events.values() if body["type"] == "decision_made"]
    assert sorted(item["sk"]["S"].split("#")[1] for item in decisions) == sorted(b["id"] for b in wanted)
    for item in decisions:
        assert json.loads(item["data"]["S"]) == expected.events[item["sk"]["S"].split("#")[1]]["data"]
    for item in items:
        body = expected.events[item["sk"]["S"].split("#")[1]]
        if body["type"] != "decision_made":
            assert json.loads(item["data"]["S"]) == body["data"]
    reader = LedgerReader(client, TABLES, shards=shards)
    hours = sorted({*expected.total, *(hour for hour, _ in expected.types)})
    if not hours:
        return
    start = datetime.fromisoformat(f"{hours[0]}:00:00+00:00")
    end = datetime.fromisoformat(f"{hours[-1]}:00:00+00:00") + timedelta(hours=1)
    for hour, found in reader.hours(start, end).items():
        key = hour.strftime("%Y-%m-%dT%H")
        total = {k: v for k, v in expected.total[key].items() if v and not k.startswith("workflows_")}
        assert nonzero(found.total.counters) == total
        assert found.total.workflows_completed == expected.total[key]["workflows_completed"]
        assert found.total.workflows_failed == expected.total[key]["workflows_failed"]
        agents = {agent: nonzero(each.counters) for agent, each in found.agents.items()}
        assert {a: c for a, c in agents.items() if c} == {
            agent: {k: v for k, v in counters.items() if v}
            for (at, agent), counters in expected.agents.items()
            if at == key
        }
        for agent, each in found.agents.items():
            assert each.workflows_completed == expected.outcomes[key, agent, "workflows_completed"]
            assert each.workflows_failed == expected.outcomes[key, agent, "workflows_failed"]
        assert {m: nonzero(each.counters) for m, each in found.models.items()} == {
            model: {k: v for k, v in counters.items() if v}
            for (at, model), counters in expected.models.items()
            if at == key
        }
        assert {f: nonzero(each.counters) for f, each in found.flows.items()} == {
            (sender, to): {k: v for k, v in counters.items() if v}
            for (at, sender, to), counters in expected.flows.items()
            if at == key
        }
        assert {t: [Fraction(each.events), Fraction(each.cost)] for t, each in found.types.items()} == {
            kind: pair for (at, kind), pair in expected.types.items() if at == key and any(pair)
        }
        # EventCost over all types is TotalCost, exactly.
        assert sum(each.cost for each in found.types.values()) == found.total.total_cost
    for day in {at for at, _ in expected.day_spend}:
        spend = reader.spend(datetime.fromisoformat(day).date())
        by_agent = {agent: usd for (at, agent), usd in expected.day_spend.items() if at == day and usd}
        assert {a: Fraction(t.total_cost) for a, t in spend.agents.items() if t.total_cost} == by_agent
        assert Fraction(spend.total.total_cost) == sum(by_agent.values())


def writer_of(client: Any, **arguments: Any) -> LedgerWriter:
    return LedgerWriter(client, TABLES, shards=4, sleep=lambda _: None, **arguments)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_delivery_gives_the_recount(dynamodb: Any, seed: int) -> None:
    for table in TABLES:
        dynamodb.delete_table(TableName=table)
    create_tables(dynamodb)
    world = World(seed)
    expected = recount(world.events)
    assert write_all(writer_of(dynamodb), world.deliveries()) == len(expected.events)
    check(dynamodb, expected)
