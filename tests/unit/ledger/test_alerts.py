"""Alerts of budgets: each threshold is told once, whoever crosses it, and whatever ends in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from botocore.exceptions import ClientError

from agentops_monitoring.ledger import budgets
from agentops_monitoring.ledger.alerts import LEASE_S
from agentops_monitoring.ledger.budgets import Budget
from agentops_monitoring.ledger.parse import read_lines
from agentops_monitoring.ledger.watch import EVERY_S, LATE, Watch
from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import client_error

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
USD_PER_TOKEN = Decimal("0.000015")  # input of claude-3-opus
DAY, MONTH = "D#2026-11-22", "M#2026-11"


class Crash(BaseException):
    """The process ends here."""


class Service:
    """A client between whose calls others may come, that ends the process at one of them when told to."""

    def __init__(self, client: Any, lock: threading.Lock) -> None:
        self._client, self._lock = client, lock
        self.calls: list[str] = []
        self.crash: tuple[int, str] | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            self._maybe("before")
            with self._lock:
                answer = getattr(self._client, name)(**arguments)
            self._maybe("after")
            self.calls.append(name)
            return answer

        return call

    def _maybe(self, when: str) -> None:
        if self.crash == (len(self.calls), when):
            self.crash = None
            raise Crash


class Cloud:
    """The tables, the topic, and the time."""

    def __init__(self, dynamodb: Any) -> None:
        self.dynamodb = dynamodb
        self.now = NOON
        self.sent: list[dict[str, Any]] = []
        self.seq = 0
        self._lock = threading.Lock()

    def process(self, *held: Budget, publish: Callable[..., Any] | None = None) -> tuple[Watch, Service]:
        """Start a process that watches budgets, and give its client."""
        service = Service(self.dynamodb, self._lock)

        def send(**arguments: Any) -> None:
            service._maybe("before")
            (publish or self._publish)(**arguments)
            service._maybe("after")
            service.calls.append("publish")

        watch = Watch(service, TABLES, held, send, shards=2, clock=lambda: self.now.timestamp())
        watch.requests._sleep = lambda seconds: None
        return watch, service

    def _publish(self, **arguments: Any) -> None:
        with self._lock:
            self.sent.append(json.loads(json.loads(arguments["Message"])["default"]) | {"raw": arguments})

    def spend(
        self,
        usd: str,
        agent: str = "manager",
        workflow: str = "w",
        at: datetime | None = None,
        shard: int = 0,
    ) -> Any:
        """Book the cost of a model call; return what was added to the counters."""
        with self._lock:
            self.seq += 1
            number = self.seq
        tokens = int(Decimal(usd) / USD_PER_TOKEN)
        assert tokens * USD_PER_TOKEN == Decimal(usd)
        body = {
            "v": 1, "id": f"{number:024x}-1", "type": "llm_usage", "agent": agent, "workflow_id": workflow,
            "at": (at or self.now).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "trace_id": "0" * 32, "span_id": "1" * 16, "parent_id": None, "request_id": None, "seq": 1,
            "data": {"gen_ai.request.model": "claude-3-opus", "gen_ai.usage.input_tokens": tokens,
                     "gen_ai.usage.output_tokens": 0},
        }  # fmt: skip
        batch = read_lines([json.dumps({"llm_usage": 1, "agentops.event": body})], f"stream-{number}")
        assert not batch.rejects
        return LedgerWriter(Service(self.dynamodb, self._lock), TABLES, shards=2).write(batch).increments

    def told(self) -> list[tuple[str, str]]:
        """Return (key, threshold) of what was sent, the environment left out of the key."""
        return [(each["key"].partition("/")[2], each["threshold"]) for each in self.sent]

    def marks(self, period: str) -> dict[str, str]:
        """Return the states of the marks of a period."""
        found = self.dynamodb.query(
            TableName=TABLES.ledger,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"ALERT#{period}"}},
        )
        return {item["sk"]["S"]: item["state"]["S"] for item in found["Items"] if "state" in item}

    def pending(self) -> int:
        """Return how many alerts are in the outbox."""
        found = self.dynamodb.query(
            TableName=TABLES.ledger,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": "ALERT#PENDING"}},
        )
        return len(found["Items"])


@pytest.fixture
def cloud(dynamodb: Any) -> Cloud:
    """Give the tables, empty."""
    return Cloud(dynamodb)


on_one = pytest.mark.parametrize("dynamodb", ["moto"], indirect=True)
"""Where no condition of DynamoDB's matters that another test does not rest on."""
TEN = Budget(Decimal(10), alarm=True)
MONTHLY = Budget(Decimal(100), "month")


def test_each_threshold_is_told_once_and_with_what_happened(cloud: Cloud) -> None:
    watch, _ = cloud.process(TEN)
    watch.after(cloud.spend("4.98"))
    assert cloud.sent == []
    for usd in ("0.03", "0.03"):
        cloud.now += timedelta(seconds=EVERY_S)
        watch.after(cloud.spend(usd, "engineer"))
    assert cloud.told() == [(f"{DAY}#total@10#50", "50")]
    (alert,) = cloud.sent
    assert (alert["spent_usd"], alert["budget"], alert["percent"]) == (
        "5.01", {"period": "day", "usd": "10.00"}, "50.1",
    )  # fmt: skip
    agents = [(each["name"], each["usd"]) for each in alert["causes"] if each["kind"] == "agent"]
    assert agents == [("manager", "4.98"), ("engineer", "0.03")]
    assert {each["kind"] for each in alert["causes"]} == {"agent", "model", "led to"}
    assert alert["dashboard"].endswith("#dashboards:name=AgentOps-Monitoring-Cost")
    text = json.loads(alert["raw"]["Message"])["email"]
    for part in (
        "50 % of the daily budget of all agents",
        "$5.01 of $10.00, 50.1 %",
        "manager",
        alert["key"],
    ):
        assert part in text
    assert (
        alert["raw"]["Subject"] == "AgentOps production: all agents spent 50 % of the daily budget of $10.00"
    )
    attributes = {name: value["StringValue"] for name, value in alert["raw"]["MessageAttributes"].items()}
    assert attributes["key"] == alert["key"]
    assert (cloud.marks(DAY)["total@10#50"], cloud.pending()) == ("sent", 0)


def test_what_is_crossed_at_once_is_one_alert_and_the_lower_threshold_stays_silent(cloud: Cloud) -> None:
    watch, _ = cloud.process(TEN, MONTHLY)
    watch.after(cloud.spend("8.1"))
    other, _ = cloud.process(TEN, MONTHLY)
    other.everything()
    assert cloud.told() == [(f"{DAY}#total@10#80", "80")]
    assert cloud.marks(DAY) == {"total@10#50": "passed", "total@10#80": "sent", "total@10#100": "alarm"}


def test_all_of_a_daily_budget_is_the_alarms_to_tell_and_of_any_other_the_ledgers(cloud: Cloud) -> None:
    watch, _ = cloud.process(TEN, Budget(Decimal(9)), Budget(Decimal(12), "month"))
    watch.after(cloud.spend("12"))
    watch.everything()
    assert sorted(cloud.told()) == [(f"{DAY}#total@9#100", "100"), (f"{MONTH}#total@12#100", "100")]
    assert cloud.marks(DAY)["total@10#100"] == "alarmed"


def test_an_alarm_cannot_see_what_comes_after_midnight_so_the_ledger_tells(cloud: Cloud) -> None:
    before, _ = cloud.process(TEN)
    cloud.spend("9")
    before.everything()
    assert [threshold for _, threshold in cloud.told()] == ["80"]
    cloud.spend("2.1")
    cloud.now = datetime(2026, 11, 23, 0, 1, tzinfo=UTC)
    after, _ = cloud.process(TEN)
    for _ in range(2):
        after.everything()
    assert cloud.told()[1:] == [(f"{DAY}#total@10#100", "100")]


@on_one
def test_what_the_alarm_has_told_is_not_told_again_after_midnight(cloud: Cloud) -> None:
    watch, _ = cloud.process(TEN)
    cloud.spend("12")
    watch.everything()
    cloud.now = datetime(2026, 11, 23, 0, 1, tzinfo=UTC)
    watch.everything()
    assert cloud.sent == []


@on_one
def test_a_day_that_is_long_over_is_no_news_unless_something_is_added_to_it(cloud: Cloud) -> None:
    cloud.spend("7.8")
    late = cloud.now
    cloud.now = datetime(2026, 11, 23, tzinfo=UTC) + LATE + timedelta(minutes=1)
    watch, _ = cloud.process(TEN)
    watch.everything()
    assert cloud.sent == []
    watch.after(cloud.spend("0.3", at=late))
    assert cloud.told() == [(f"{DAY}#total@10#80", "80")]
    cloud.now += timedelta(days=1)
    watch.after(cloud.spend("3", at=late))
    assert len(cloud.sent) == 1, "two days later it is history"


def test_agents_and_workflows_have_budgets_of_their_own_or_what_each_has(cloud: Cloud) -> None:
    each = Budget(Decimal(2), agent="*")
    own = Budget(Decimal(4), agent="manager")
    workflows = Budget(Decimal("0.6"), budgets.LIFE, workflow="*")
    patient = Budget(Decimal(3), budgets.LIFE, workflow="patient")
    watch, _ = cloud.process(each, own, workflows, patient)
    for agent, workflow in (("manager", "patient"), ("engineer", "hasty"), ("qa", "tiny")):
        cloud.now += timedelta(seconds=EVERY_S)
        watch.after(cloud.spend("0.3" if agent == "qa" else "1.5", agent, workflow))
    assert cloud.told() == [
        ("WS#patient#workflow:patient@3#50", "50"),
        ("WS#hasty#workflow:hasty@0.6#100", "100"),
        (f"{DAY}#agent:engineer@2#50", "50"),
        ("WS#tiny#workflow:tiny@0.6#50", "50"),
    ]
    assert [(cause["kind"], cause["name"]) for cause in cloud.sent[1]["causes"]] == [
        ("agent", "engineer"), ("model", "claude-3-opus-latest"),
    ]  # fmt: skip
    gauges, _ = cloud.process(each, own, workflows, patient)
    gauges.everything()
    assert len(cloud.sent) == 4


@on_one
def test_a_redelivered_batch_is_looked_at_again_for_its_workflows(cloud: Cloud) -> None:
    """Who committed it ended before he could look."""
    held = Budget(Decimal(1), budgets.LIFE, workflow="*")
    cloud.spend("1.5", workflow="w1")
    watch, _ = cloud.process(held)
    watch.after({}, ["w1", "w2"])
    assert cloud.told() == [("WS#w1#workflow:w1@1#100", "100")]


@on_one
def test_looking_takes_one_request_and_not_after_each_batch(cloud: Cloud) -> None:
    watch, service = cloud.process(TEN, MONTHLY, Budget(Decimal(3), agent="manager"))
    for _ in range(5):
        watch.after(cloud.spend("0.03"))
    assert service.calls == ["batch_get_item"]
    cloud.now += timedelta(seconds=EVERY_S)
    watch.after({("H#2026-11-22T12", "TOTAL"): {"events": 1}})
    assert service.calls == ["batch_get_item"], "nothing was spent"
    watch.after(cloud.spend("0.03"))
    assert service.calls == ["batch_get_item"] * 2


def ingest_once(cloud: Cloud, together: threading.Barrier) -> None:
    watch, _ = cloud.process(TEN)
    increments = cloud.spend("0.06")
    together.wait(60)
    watch.after(increments)


def test_sixteen_ingests_that_cross_a_threshold_tell_it_once(cloud: Cloud, full_size: bool) -> None:
    for turn in range(10 if full_size else 1):
        cloud.now = NOON + turn * timedelta(days=1)
        cloud.spend("4.5")
        together = threading.Barrier(16)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: ingest_once(cloud, together), range(16)))  # noqa: B023
        assert cloud.told() == [(f"D#{cloud.now.date()}#total@10#50", "50")]
        assert cloud.pending() == 0
        cloud.sent.clear()


def test_whoever_ends_between_mark_and_publish_is_stood_in_for_with_the_same_key(cloud: Cloud) -> None:
    """At each call, before and after it took effect: at least one alert, and one key."""
    watch, service = cloud.process(TEN)
    watch.after(cloud.spend("5.1"))
    calls, first = len(service.calls), service.calls.index("query")
    assert service.calls[-2:] == ["publish", "transact_write_items"]
    # What it went to is read hour by hour: one of these requests stands for all.
    told_apart = [n for n, name in enumerate(service.calls) if name != "query" or n == first]
    assert len(told_apart) == 5
    crashes = [(call, when) for call in told_apart for when in ("before", "after")]
    for turn, crash in enumerate(crashes, start=1):
        cloud.now, cloud.sent = NOON + timedelta(days=turn), []
        watch, service = cloud.process(TEN)
        service.crash = crash
        increments = cloud.spend("5.1")
        with pytest.raises(Crash):
            watch.after(increments)
        told = len(cloud.sent)
        for seconds in (1, LEASE_S):
            cloud.now += timedelta(seconds=seconds)
            cloud.process(TEN)[0].everything()
        keys = {key for key, _ in cloud.told()}
        assert keys == {f"D#{cloud.now.date()}#total@10#50"}, crash
        noted = crash == (calls - 1, "after")
        assert len(cloud.sent) == told + (0 if noted else 1) <= 2, crash
        assert cloud.pending() == 0


@on_one
def test_what_cannot_be_published_stays_in_the_outbox_and_does_not_fail_the_batch(cloud: Cloud) -> None:
    def fail(**arguments: Any) -> None:
        raise client_error("InternalError", "Publish")

    watch, _ = cloud.process(TEN, publish=fail)
    watch.after(cloud.spend("5.1"))
    assert (cloud.sent, cloud.pending()) == ([], 1)
    cloud.now += timedelta(seconds=LEASE_S)
    with pytest.raises(ClientError, match="InternalError"):
        cloud.process(TEN, publish=fail)[0].everything()
    cloud.now += timedelta(seconds=LEASE_S)
    cloud.process(TEN)[0].everything()
    assert cloud.told() == [(f"{DAY}#total@10#50", "50")]
    assert cloud.pending() == 0


def test_two_sweepers_send_one(cloud: Cloud) -> None:
    watch, service = cloud.process(TEN)
    increments = cloud.spend("5.1")
    service.crash = (len(_calls_until_publish(cloud)), "before")
    with pytest.raises(Crash):
        watch.after(increments)
    assert cloud.pending() == 1
    cloud.now += timedelta(seconds=LEASE_S)
    sweepers = [cloud.process(TEN)[0] for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(Watch.everything, sweepers))
    assert cloud.told() == [(f"{DAY}#total@10#50", "50")]


def _calls_until_publish(cloud: Cloud) -> list[str]:
    now, cloud.now = cloud.now, cloud.now - timedelta(days=3)
    watch, service = cloud.process(TEN)
    watch.after(cloud.spend("5.1"))
    cloud.now, cloud.sent = now, []
    return service.calls[: service.calls.index("publish")]


@on_one
def test_a_forecast_is_told_once_with_its_interval_and_its_backtest(cloud: Cloud) -> None:
    watch, _ = cloud.process(MONTHLY)
    cloud.spend("3")
    (case,) = budgets.cases([MONTHLY], MONTH, "month")
    forecast = {
        "usd": "120", "lower_usd": "104", "upper_usd": "141", "level": "80 %", "model": "level", "models": 6,
        "history": "40 days", "mae_usd": "1.2", "naive_mae_usd": "2.3", "origins": 30, "coverage": "81 %",
    }  # fmt: skip
    for each in (watch, cloud.process(MONTHLY)[0]):
        each.expect(case, Decimal(3), forecast)
    assert cloud.told() == [(f"{MONTH}#total@100#forecast", "forecast")]
    text = json.loads(cloud.sent[0]["raw"]["Message"])["email"]
    for part in ("expected to be exceeded", "$120 by the end", "$104 to $141", "wrong by $1.2", "81 %"):
        assert part in text
    watch.after(cloud.spend("60"))
    assert [threshold for _, threshold in cloud.told()] == ["forecast", "50"]


@on_one
@pytest.mark.parametrize("name", ["q" * 200, "ünï\nBcc: x", "\x1b[31m"])
def test_names_that_agents_choose_stay_within_a_subject(cloud: Cloud, name: str) -> None:
    watch, _ = cloud.process(Budget(Decimal(1), agent=name))
    watch.after(cloud.spend("0.6", name))
    subject = cloud.sent[0]["raw"]["Subject"]
    assert len(subject) < 100
    assert subject.isascii()
    assert subject.isprintable()
    assert "\nBcc" not in json.loads(cloud.sent[0]["raw"]["Message"])["email"]
