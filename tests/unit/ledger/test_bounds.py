"""What has no end of its own: names, invocations; it fits into the tables' limits, and counts exactly."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring.ledger import allocation, schema
from agentops_monitoring.ledger.alerts import Alert
from agentops_monitoring.ledger.budgets import Budget, Case
from agentops_monitoring.ledger.parse import read_payload
from agentops_monitoring.ledger.reader import LedgerReader
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB
from tests.unit.ledger.recount import recount
from tests.unit.ledger.streams import World, payload
from tests.unit.ledger.test_sequences import deliver
from tests.unit.ledger.test_writer import Faults, check, scan, writer_of


@pytest.mark.parametrize(
    ("size", "length", "taken"), [(1, 511, True), (1, 512, False), (4, 225, True), (4, 226, False)]
)
def test_a_workflow_of_any_id_does_not_hold_up_the_others(
    dynamodb: Any, size: int, length: int, taken: bool
) -> None:
    """A partition key has 2,048 bytes, for reading as well, and a sort key 1,024."""
    workflow = {1: "w", 4: "\U0001f600"}[size] * length
    world = World(14, streams=1, invocations=2)
    call = world._llm() | {"gen_ai.request.model": "claude-3-opus"}
    world._event("llm_usage", call, None, workflow)
    result = writer_of(dynamodb).write(read_payload(payload(world.events), "us-east-1"))
    refused = [reject.source.message for reject in result.rejects]
    assert refused == ([] if taken else [world.events[-1].message])
    assert not any("ValidationException" in reject.reason for reject in result.rejects)
    check(dynamodb, recount(world.events[: len(world.events) - len(refused)]))
    if taken:
        budget = Budget(Decimal("0.000001"), "life", workflow=workflow)
        case = Case(budget, workflow, schema.workflow_bucket(workflow))
        alert = Alert.of(case, "forecast", Decimal(1), datetime(2026, 11, 22, tzinfo=UTC))
        sk = {"S": alert.key}
        dynamodb.put_item(TableName=TABLES.ledger, Item={"pk": {"S": schema.PENDING_ALERTS}, "sk": sk})
        dynamodb.put_item(TableName=TABLES.ledger, Item={"pk": {"S": schema.alert_pk(case.period)}, "sk": sk})


@pytest.mark.parametrize("character", ["w", "#", "\U0001f600"])
def test_names_of_any_length_are_counted(dynamodb: Any, character: str) -> None:
    """A receiver or a model that no sort key has room for is no reason to refuse what else there is."""
    world = World(14, streams=1, invocations=1)
    name = character * 256
    before = recount(world.events).events
    world._event("message_sent", {"from": "manager", "to": name, "message_id": "m"}, None)
    world._event("llm_usage", {"gen_ai.request.model": name}, None)
    result = writer_of(dynamodb).write(read_payload(payload(world.events), "us-east-1"))
    assert not result.rejects
    assert result.events == len(before) + 2
    found = LedgerReader(dynamodb, TABLES, shards=4).last(2, datetime.fromtimestamp(world.now / 1000, UTC))
    assert any(model.startswith(character * 200) for model in found.models)
    assert (("manager", name) in found.flows) == (character != "\U0001f600")


@pytest.mark.slow
def test_ten_thousand_events_of_one_invocation(full_size: bool) -> None:
    world = World(15, streams=0)
    world.stream, world.filter_name, world.agent, world.now = (
        "s" * 40,
        "agentops|test|m|arm64",
        "m",
        1_795_334_400_000,
    )
    world._process()
    for _ in range(10_000 if full_size else 1_500):
        world.now += 1
        world._random_event("request", "w")
    world._report("request", 12_000, 12_345)
    client = FakeDynamoDB()
    result = writer_of(client).write(read_payload(payload(world.events), "us-east-1"))
    assert not result.rejects
    check(client, recount(world.events))


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_invocation_without_end_fits_into_its_item(seed: int) -> None:
    """What there is no room for is counted all the same, in the order in which it comes."""
    world = World(seed, streams=1, invocations=6)
    clients = FakeDynamoDB(), FakeDynamoDB(Faults(seed, 0.1))
    sums = []
    for most, client in zip((allocation.MOST_ENTRIES, 3), clients, strict=True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(allocation, "MOST_ENTRIES", most)
            deliver(client, world.deliveries())
            client.fault = lambda operation, when: None
            states = [item for item in scan(client, TABLES.ledger) if item["pk"]["S"].startswith("INV#")]
            assert all(
                sum(entry[2] in "cd" for entry in json.loads(item["state"]["S"])["entries"].values()) <= most
                for item in states
            )
        found = LedgerReader(client, TABLES, shards=4).last(3, datetime.fromtimestamp(world.now / 1000, UTC))
        assert sum(each.cost for each in found.types.values()) == found.total.total_cost
        counts = {name: each.events for name, each in found.types.items() if each.events}
        total = {name: value for name, value in found.total.counters.items() if value}
        sums.append((total, found.agents.keys(), counts))
    assert sums[0] == sums[1]
