"""What keeping environments ready costs: each slot of five minutes once, whoever asks how often."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from agentops_monitoring.functions import ready as function
from agentops_monitoring.ledger.origins import Origins
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.ready import SLOT_S, Ready
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB, client_error

NOON = datetime(2026, 11, 22, 12, 2, tzinfo=UTC)
SLOT_USD = Decimal("0.0000041667") * 2 * 3 * SLOT_S
"""Of three environments of 2 GB in us-east-1, on x86_64."""
ASKED = timedelta(seconds=SLOT_S)


class Lambda:
    """What Lambda says is configured, in the shapes of its API."""

    def __init__(self) -> None:
        self.configs: dict[str, list[dict[str, Any]]] = {}
        self.architecture = "x86_64"
        self.refuses: set[str] = set()

    def keep(self, name: str, environments: int, since: datetime, *, status: str = "READY") -> None:
        self.configs[name] = [
            {
                "FunctionArn": f"arn:aws:lambda:us-east-1:123456789012:function:{name}:live",
                "RequestedProvisionedConcurrentExecutions": environments,
                "AllocatedProvisionedConcurrentExecutions": 0,
                "Status": status,
                "LastModified": since.strftime("%Y-%m-%dT%H:%M:%S+0000"),
            }
        ]

    def get_paginator(self, name: str) -> Lambda:
        assert name == "list_provisioned_concurrency_configs"
        return self

    def paginate(self, FunctionName: str) -> Any:
        code = "AccessDeniedException" if FunctionName in self.refuses else "ResourceNotFoundException"
        if FunctionName not in self.configs or FunctionName in self.refuses:
            raise ClientError({"Error": {"Code": code}}, "ListProvisionedConcurrencyConfigs")
        found = {"ProvisionedConcurrencyConfigs": self.configs[FunctionName]}

        class Pages:
            def build_full_result(self) -> Any:
                return found

        return Pages()

    def get_function_configuration(self, **asked: str) -> Any:
        assert asked["Qualifier"] == "live"
        return {"MemorySize": 2048, "Architectures": [self.architecture]}


@pytest.fixture
def memory() -> FakeDynamoDB:
    client = FakeDynamoDB()
    hear(client, "manager", "shop-manager")
    return client


@pytest.fixture
def functions() -> Lambda:
    return Lambda()


def hear(dynamodb: Any, agent: str, name: str, at: datetime = NOON) -> None:
    """Have a line of an agent come from a function, and cost a bit."""
    payload = {
        "logStream": f"2026/11/22/{name}[7]0a1b",
        "subscriptionFilters": [f"agentops|test|{agent}|arm64"],
    }
    Origins(dynamodb, TABLES.ledger, clock=at.timestamp).note(payload)
    dynamodb.update_item(
        TableName=TABLES.ledger,
        Key={"pk": {"S": "M#2026-11#0"}, "sk": {"S": f"AGENT#{agent}"}},
        UpdateExpression="ADD llm_cost :usd",
        ExpressionAttributeValues={":usd": {"N": "0.000001"}},
    )


def ready(dynamodb: Any, functions: Lambda, region: str = "us-east-1") -> Ready:
    return Ready(dynamodb, functions, TABLES, region)


def spent(dynamodb: Any, at: datetime = NOON) -> Decimal:
    """Return what is booked on a day, which every view of it has to say alike."""
    reader = LedgerReader(dynamodb, TABLES, clock=lambda: at)
    day = reader.day(at.date())
    assert day.agents["manager"].compute_cost == day.total.compute_cost
    assert sum(each.cost for each in day.types.values()) == day.total.total_cost
    assert reader.spend(at.date()).total.compute_cost == day.total.compute_cost
    return day.total.compute_cost


def test_a_slot_costs_what_is_configured_and_counts_once(dynamodb: Any, functions: Lambda) -> None:
    hear(dynamodb, "manager", "shop-manager")
    functions.keep("shop-manager", 3, NOON - timedelta(days=99))
    for seconds in (0, 60, 170):  # in one slot, by different processes
        ready(dynamodb, functions).run(NOON + timedelta(seconds=seconds))
    assert spent(dynamodb) == SLOT_USD
    ready(dynamodb, functions).run(NOON + ASKED)
    assert spent(dynamodb) == 2 * SLOT_USD
    found = LedgerReader(dynamodb, TABLES, clock=lambda: NOON)
    assert found.day(NOON.date()).total.ready_s == 2 * 3 * SLOT_S
    assert found.marks() == {"D#2026-11-22": 2}
    assert found.month_spend(2026, 11).agents["manager"].compute_cost == 2 * SLOT_USD


def test_what_nobody_asked_for_is_made_up_for_while_nothing_changed(
    memory: FakeDynamoDB, functions: Lambda
) -> None:
    functions.keep("shop-manager", 3, NOON - timedelta(days=99))
    ready(memory, functions).run(NOON)
    booked = ready(memory, functions).run(NOON + timedelta(hours=24))
    assert (booked.unknown, booked.failures) == ({}, [])
    assert spent(memory) == SLOT_USD * 12 * 12
    assert spent(memory, NOON + timedelta(hours=24)) == SLOT_USD * (12 * 12 + 1)


def test_what_was_configured_before_a_change_is_not_guessed(memory: FakeDynamoDB, functions: Lambda) -> None:
    functions.keep("shop-manager", 1, NOON - timedelta(days=99))
    ready(memory, functions).run(NOON)
    functions.keep("shop-manager", 3, NOON + timedelta(minutes=40))
    booked = ready(memory, functions).run(NOON + timedelta(hours=1))
    # Slots begin at 12:00: that of 12:42 is the ninth.
    assert booked.unknown == {"shop-manager:live": 7}
    assert spent(memory) == SLOT_USD / 3 + SLOT_USD * 5


def test_a_change_between_two_slots_costs_what_each_had(memory: FakeDynamoDB, functions: Lambda) -> None:
    for step in range(6):
        at = NOON + step * ASKED
        functions.keep("shop-manager", 1 + step, at - timedelta(seconds=30))
        assert ready(memory, functions).run(at).unknown == {}
    assert spent(memory) == SLOT_USD / 3 * (1 + 2 + 3 + 4 + 5 + 6)


def test_what_is_gone_or_failed_costs_nothing_and_stops_nobody(
    memory: FakeDynamoDB, functions: Lambda
) -> None:
    for name in ("a-gone", "a-refused", "z-refused", "failed"):
        hear(memory, "manager", name)
    functions.refuses = {"a-refused", "z-refused"}
    functions.keep("failed", 9, NOON - timedelta(days=1), status="FAILED")
    functions.keep("shop-manager", 3, NOON - timedelta(days=1))
    assert len(ready(memory, functions).run(NOON).failures) == 2
    assert spent(memory) == SLOT_USD


def test_of_an_agents_names_the_last_one_pays(memory: FakeDynamoDB, functions: Lambda) -> None:
    hear(memory, "former", "shop-manager", NOON - timedelta(days=2))
    hear(memory, "zeta", "shop-manager", NOON - timedelta(days=1))
    functions.keep("shop-manager", 3, NOON - timedelta(days=9))
    ready(memory, functions).run(NOON)
    assert spent(memory) == SLOT_USD


def test_without_a_known_price_it_is_counted_and_not_booked(memory: FakeDynamoDB, functions: Lambda) -> None:
    functions.keep("shop-manager", 3, NOON - timedelta(days=9))
    functions.architecture = "arm64"
    ready(memory, functions, "eu-west-1").run(NOON)
    found = LedgerReader(memory, TABLES, clock=lambda: NOON).day(NOON.date()).total
    assert not found.compute_cost
    assert (found.ready_s, found.ready_unpriced_s) == (0, 3 * SLOT_S)


def test_after_an_outage_of_weeks_two_weeks_are_made_up_for(memory: FakeDynamoDB, functions: Lambda) -> None:
    functions.keep("shop-manager", 3, NOON - timedelta(days=99))
    ready(memory, functions).run(NOON - timedelta(days=20))
    booked = ready(memory, functions).run(NOON)
    assert booked.unknown == {"shop-manager:live": 6 * 24 * 12 - 1}
    reader = LedgerReader(memory, TABLES, clock=lambda: NOON)
    assert reader.day(NOON.date() - timedelta(days=15)).total.compute_cost == 0
    assert spent(memory, NOON - timedelta(days=13)) == SLOT_USD * 12 * 24


def test_in_a_new_month_agents_are_known_from_the_last_one(memory: FakeDynamoDB, functions: Lambda) -> None:
    functions.keep("shop-manager", 3, NOON - timedelta(days=99))
    first = datetime(2026, 12, 1, 0, 1, tzinfo=UTC)
    ready(memory, functions).run(first)
    assert spent(memory, first) == SLOT_USD


def test_of_two_at_once_one_books(memory: FakeDynamoDB, functions: Lambda) -> None:
    functions.keep("shop-manager", 3, NOON - timedelta(days=9))
    for at in (NOON, NOON + 3 * ASKED):  # the first booking, then a later one

        def meanwhile(operation: str, when: str, at: datetime = at) -> None:
            if (operation, when) == ("TransactWriteItems", "before"):
                memory.fault = lambda operation, when: None
                ready(memory, functions).run(at)

        memory.fault = meanwhile
        late = ready(memory, functions).run(at)
        assert (late.increments, late.failures) == ({}, [])
    assert spent(memory) == SLOT_USD * 4


def test_faults_at_any_request_book_each_slot_once(memory: FakeDynamoDB, functions: Lambda) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    r = random.Random(seed)
    functions.keep("shop-manager", 3, NOON - timedelta(days=9))
    ready(memory, functions).run(NOON)
    end = NOON + timedelta(hours=3)

    def fault(operation: str, when: str) -> None:
        if r.random() < 0.3:
            if when == "before" and operation == "TransactWriteItems" and r.random() < 0.5:
                reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
                raise client_error("TransactionCanceledException", operation, CancellationReasons=reasons)
            raise ConnectTimeoutError(endpoint_url=operation)

    memory.fault = fault
    while True:
        try:
            if not Ready(memory, functions, TABLES, "us-east-1", sleep=lambda _: None).run(end).failures:
                break
        except ConnectTimeoutError:
            continue
    memory.fault = lambda operation, when: None
    ready(memory, functions).run(end)
    assert spent(memory) == SLOT_USD * (3 * 12 + 1)


def test_the_function_prints_what_it_booked_and_fails_for_what_it_could_not(
    memory: FakeDynamoDB,
    functions: Lambda,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hear(memory, "manager", "refused")
    functions.keep("shop-manager", 3, datetime.now(UTC) - timedelta(days=9))
    functions.refuses = {"refused"}
    now = datetime.now(UTC)
    memory.update_item(
        TableName=TABLES.ledger,
        Key={"pk": {"S": f"M#{now:%Y-%m}#0"}, "sk": {"S": "AGENT#manager"}},
        UpdateExpression="ADD llm_cost :usd",
        ExpressionAttributeValues={":usd": {"N": "0.000001"}},
    )
    monkeypatch.setenv("ENVIRONMENT", "test")
    monkeypatch.setattr(function, "_ready", lambda: ready(memory, functions))
    with pytest.raises(ExceptionGroup, match="not booked"):
        function.handler({}, None)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert any("AccessDenied" in line["why"] for line in lines if line.get("level") == "ERROR")
    costs = [line["LambdaExecutionCost"] for line in lines if "LambdaExecutionCost" in line]
    assert costs
    assert set(costs) == {float(SLOT_USD)}
