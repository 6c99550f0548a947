"""Alerts of budgets: what is told, of whom, and who tells it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from agentops_monitoring.ledger import budgets
from agentops_monitoring.ledger.budgets import Budget
from agentops_monitoring.ledger.watch import EVERY_S, LATE, Watch
from tests.unit.ledger.cloud import DAY, MONTH, MONTHLY, OUTLOOK, TEN, Cloud, on_one
from tests.unit.ledger.conftest import TABLES


@pytest.fixture
def cloud(dynamodb: Any) -> Cloud:
    """Give the tables, empty."""
    return Cloud(dynamodb)


@on_one
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
    cloud.now = datetime(2026, 11, 3, 0, 1, tzinfo=UTC)
    after, _ = cloud.process(TEN)
    for _ in range(2):
        after.everything()
    assert cloud.told()[1:] == [(f"{DAY}#total@10#100", "100")]


@on_one
def test_so_does_an_ingest_that_sees_it_first(cloud: Cloud) -> None:
    cloud.spend("9")
    cloud.process(TEN)[0].everything()
    late, cloud.now = cloud.now, datetime(2026, 11, 3, 0, 0, 2, tzinfo=UTC)
    watch, _ = cloud.process(TEN)
    for _ in range(2):
        watch.after(cloud.spend("2.1", at=late))
        cloud.now += timedelta(seconds=EVERY_S)
    assert cloud.told()[1:] == [(f"{DAY}#total@10#100", "100")]


@on_one
def test_what_the_alarm_has_told_is_not_told_again_after_midnight(cloud: Cloud) -> None:
    watch, _ = cloud.process(TEN)
    cloud.spend("12")
    watch.everything()
    cloud.now = datetime(2026, 11, 3, 0, 1, tzinfo=UTC)
    watch.everything()
    assert cloud.sent == []


@on_one
def test_a_day_that_is_long_over_is_no_news_unless_something_is_added_to_it(cloud: Cloud) -> None:
    cloud.spend("7.8")
    late = cloud.now
    cloud.now = datetime(2026, 11, 3, tzinfo=UTC) + LATE + timedelta(minutes=1)
    watch, _ = cloud.process(TEN)
    watch.everything()
    assert cloud.sent == []
    watch.after(cloud.spend("0.3", at=late))
    assert cloud.told() == [(f"{DAY}#total@10#80", "80")]
    cloud.now += timedelta(days=1)
    watch.after(cloud.spend("3", at=late))
    assert len(cloud.sent) == 1, "two days later it is history"


@on_one
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
def test_a_workflow_whose_budget_is_spent_is_looked_at_no_more(cloud: Cloud) -> None:
    watch, service = cloud.process(Budget(Decimal(1), budgets.LIFE, workflow="*"))
    watch.after(cloud.spend("1.5"))
    made = len(service.calls)
    watch.after(cloud.spend("1.5"))
    assert len(service.calls) == made
    watch.after(cloud.spend("1.5", workflow="other"))
    assert [threshold for _, threshold in cloud.told()] == ["100", "100"]


@on_one
def test_looking_takes_one_request_and_not_after_each_batch(cloud: Cloud) -> None:
    watch, service = cloud.process(TEN, MONTHLY, Budget(Decimal(3), agent="manager"))
    for _ in range(5):
        watch.after(cloud.spend("0.03"))
    assert service.calls == ["batch_get_item"]
    cloud.now += timedelta(seconds=EVERY_S)
    watch.after({("H#2026-11-02T12", "TOTAL"): {"events": 1}})
    assert service.calls == ["batch_get_item"], "nothing was spent"
    watch.after(cloud.spend("0.03"))
    assert service.calls == ["batch_get_item"] * 2


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
    cloud.now = datetime(2026, 11, 2, 23, 59, 59, tzinfo=UTC)
    cloud.spend("9")
    watch, _ = cloud.process(TEN)
    cloud.spend("2.1")
    now, cloud.now = cloud.now, cloud.now + timedelta(seconds=2)
    watch.everything(now, {"": 9.0})
    assert cloud.marks(DAY)["total@10#100"] == "alarm"
    assert "total@10#100" not in cloud.marks("D#2026-11-03")
    watch.everything(cloud.now, {"": 0.0})
    assert cloud.told() == [(f"{DAY}#total@10#100", "100")]


@on_one
def test_what_is_late_for_a_day_that_nobody_looks_at_any_more_is_looked_at_at_once(cloud: Cloud) -> None:
    late, cloud.now = cloud.now, datetime(2026, 11, 3, tzinfo=UTC) + LATE
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
def test_a_forecast_is_told_once_with_its_interval_and_its_backtest(cloud: Cloud) -> None:
    watch, _ = cloud.process(MONTHLY)
    cloud.spend("3")
    (case,) = budgets.cases([MONTHLY], MONTH, "month")
    for each in (watch, cloud.process(MONTHLY)[0]):
        each.expect(case, Decimal(3), OUTLOOK)
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
