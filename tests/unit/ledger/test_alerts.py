"""Alerts of budgets: each threshold is told once, whoever crosses it, and whatever ends in between."""

from __future__ import annotations

import json
import threading
import time
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
from agentops_monitoring.ledger.requests import LedgerBusy
from agentops_monitoring.ledger.watch import EVERY_S, LATE, Watch
from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import client_error

START = datetime(2026, 11, 22, 1, tzinfo=UTC)
"""Early: what an alert's money went to is read hour by hour."""
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
        self.refuse: Callable[[str, dict[str, Any]], None] = lambda name, arguments: None
        """Raises what a call is refused with."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            self._maybe("before")
            self.refuse(name, arguments)
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
        self.now = START
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
        ("WS#patient#workflow@3#50", "50"),
        ("WS#hasty#workflow@0.6#100", "100"),
        (f"{DAY}#agent:engineer@2#50", "50"),
        ("WS#tiny#workflow@0.6#50", "50"),
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
    assert cloud.told() == [("WS#w1#workflow@1#100", "100")]


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
        cloud.now = START + turn * timedelta(days=1)
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
    first, note = service.calls.index("query"), service.calls.index("delete_item")
    assert service.calls[note - 1 :] == ["publish", "delete_item", "update_item"]
    # What it went to is read hour by hour: one of these requests stands for all.
    told_apart = [n for n, name in enumerate(service.calls) if name != "query" or n == first]
    assert len(told_apart) == 6
    crashes = [(call, when) for call in told_apart for when in ("before", "after")]
    for turn, crash in enumerate(crashes, start=1):
        cloud.now, cloud.sent = START + timedelta(days=turn), []
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
        noted = crash[0] > note or crash == (note, "after")
        assert len(cloud.sent) == told + (0 if noted else 1) <= 2, crash
        assert cloud.pending() == 0


@on_one
def test_others_who_try_to_claim_it_meanwhile_do_not_make_it_come_twice(cloud: Cloud) -> None:
    """A transaction that meets another one is canceled, and so may be what notes that an alert is sent."""

    def publish(**arguments: Any) -> None:
        cloud._publish(**arguments)
        service.refuse = meet

    def meet(name: str, arguments: dict[str, Any]) -> None:
        if f"'ALERT#{DAY}'" in repr(arguments):
            if name != "transact_write_items":
                raise client_error("TransactionConflictException", name)
            reasons = [{"Code": "TransactionConflict"} for _ in arguments["TransactItems"]]
            answer: Any = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons}
            raise ClientError(answer, name)

    watch, service = cloud.process(TEN, publish=publish)
    watch.after(cloud.spend("5.1"))
    cloud.now += timedelta(seconds=LEASE_S)
    cloud.process(TEN)[0].everything()
    assert cloud.told() == [(f"{DAY}#total@10#50", "50")]
    assert cloud.pending() == 0


@on_one
def test_what_is_taken_back_makes_no_lower_threshold_news(cloud: Cloud) -> None:
    watch, _ = cloud.process(TEN)
    cloud.spend("12")
    watch.everything()
    (item,) = (f"{DAY}#{shard}" for shard in range(2) if _has(cloud, f"{DAY}#{shard}"))
    cloud.dynamodb.update_item(
        TableName=TABLES.ledger,
        Key={"pk": {"S": item}, "sk": {"S": "TOTAL"}},
        UpdateExpression="ADD llm_cost :less",
        ExpressionAttributeValues={":less": {"N": "-3"}},
    )
    cloud.process(TEN)[0].everything()
    assert cloud.sent == [], "the alarm told of all of it"
    assert cloud.marks(DAY) == {"total@10#50": "passed", "total@10#80": "passed", "total@10#100": "alarmed"}


def _has(cloud: Cloud, pk: str) -> bool:
    key = {"pk": {"S": pk}, "sk": {"S": "TOTAL"}}
    return "Item" in cloud.dynamodb.get_item(TableName=TABLES.ledger, Key=key)


@on_one
def test_only_what_an_alarm_was_shown_is_left_to_it(cloud: Cloud) -> None:
    """The last dollar of a day may come between the last value of its metric and the look at its budget."""
    cloud.now = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)
    cloud.spend("9")
    watch, _ = cloud.process(TEN)
    cloud.spend("2.1")
    now, cloud.now = cloud.now, cloud.now + timedelta(seconds=2)
    watch.everything(now, {"": 9.0})
    assert cloud.marks(DAY)["total@10#100"] == "alarm"
    assert "total@10#100" not in cloud.marks("D#2026-11-23")
    watch.everything(cloud.now, {"": 0.0})
    assert cloud.told() == [(f"{DAY}#total@10#100", "100")]


@on_one
def test_what_is_late_for_a_day_that_nobody_looks_at_any_more_is_looked_at_at_once(cloud: Cloud) -> None:
    late, cloud.now = cloud.now, datetime(2026, 11, 23, tzinfo=UTC) + LATE
    watch, _ = cloud.process(TEN)
    watch.after(cloud.spend("0.3"))
    watch.after(cloud.spend("6", at=late))
    assert cloud.told() == [(f"{DAY}#total@10#50", "50")]


@on_one
def test_where_nobody_else_looks_each_batch_is_looked_at(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COST_ALERT_TOPIC_ARN", "arn:aws:sns:us-east-1:000000000000:alerts")
    for alarmed, every_s in ((True, EVERY_S), (False, 0)):
        watch = Watch.from_environment(cloud.dynamodb, TABLES, alarmed=alarmed)
        assert watch is not None
        assert watch._every_s == every_s


@on_one
def test_one_alert_that_cannot_be_claimed_holds_up_no_other(cloud: Cloud) -> None:
    def refuse(name: str, arguments: dict[str, Any]) -> None:
        if name == "transact_write_items" and "agent:manager" in repr(arguments):
            raise client_error("ValidationException", name)

    cloud.spend("6")
    watch, service = cloud.process(Budget(Decimal(10), agent="manager"), TEN)
    service.refuse = refuse
    with pytest.raises(ClientError, match="ValidationException"):
        watch.everything()
    assert cloud.told() == [(f"{DAY}#total@10#50", "50")]


@on_one
def test_after_one_that_cannot_be_sent_a_batch_waits_for_no_other(cloud: Cloud) -> None:
    tried: list[Any] = []

    def fail(**arguments: Any) -> None:
        tried.append(arguments)
        raise client_error("InternalError", "Publish")

    watch, _ = cloud.process(TEN, Budget(Decimal(10), "month"), publish=fail)
    watch.after(cloud.spend("5.1"))
    assert (len(tried), cloud.pending()) == (1, 2)
    cloud.now += timedelta(seconds=LEASE_S)
    cloud.process(TEN)[0].everything()
    assert sorted(cloud.told()) == [(f"{DAY}#total@10#50", "50"), (f"{MONTH}#total@10#50", "50")]


@on_one
def test_a_batch_that_has_no_time_left_comes_again_for_its_alerts(cloud: Cloud) -> None:
    watch, _ = cloud.process(Budget(Decimal(1), budgets.LIFE, workflow="*"))
    increments = cloud.spend("1.5")
    with pytest.raises(LedgerBusy):
        watch.after(increments, deadline=time.monotonic() - 1)
    watch.after({}, ["w"], deadline=time.monotonic() + 60)
    assert [threshold for _, threshold in cloud.told()] == ["100"]


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
    for attribute in cloud.sent[0]["raw"]["MessageAttributes"].values():
        assert attribute["StringValue"].isprintable()
    assert "\nBcc" not in json.loads(cloud.sent[0]["raw"]["Message"])["email"]
