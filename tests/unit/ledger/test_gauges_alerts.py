"""Gauges, each minute: what it shows alarms, and what it keeps and tells of what it expects."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from agentops_monitoring.analysis.outlook import Expected, Outlooks
from agentops_monitoring.functions import gauges
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.standing import standings
from agentops_monitoring.ledger.watch import Watch
from tests.unit.ledger.cloud import DAY, OUTLOOK, TEN, Cloud, on_one
from tests.unit.ledger.conftest import TABLES

pytestmark = on_one


@pytest.fixture
def cloud(dynamodb: Any) -> Cloud:
    """Give the tables, empty."""
    return Cloud(dynamodb)


def run(cloud: Cloud, watch: Watch, monkeypatch: pytest.MonkeyPatch, expected: Expected | None) -> None:
    """Have the function run now, with a forecast that is as given."""

    class Now:
        @staticmethod
        def now(zone: Any) -> Any:
            return cloud.now.astimezone(zone)

    parts = object.__new__(gauges.Gauges)
    parts.reader, parts.watch = LedgerReader(cloud.dynamodb, TABLES, shards=2), watch
    parts.outlooks = Outlooks(watch.read, watch.shards)
    monkeypatch.setattr(parts.outlooks, "of", lambda case, now: expected)
    monkeypatch.setattr(gauges, "_gauges", lambda: parts)
    monkeypatch.setattr(gauges, "datetime", Now)
    gauges.handler({}, None)


@pytest.mark.parametrize("exceeds", [True, False])
def test_what_is_expected_is_kept_and_told_if_it_exceeds(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, exceeds: bool
) -> None:
    cloud.spend("3")
    for _ in range(2):
        run(cloud, cloud.process(TEN)[0], monkeypatch, Expected(exceeds, OUTLOOK))
    assert cloud.told() == ([(f"{DAY}#total@10#forecast", "forecast")] if exceeds else [])
    (found,) = standings(LedgerReader(cloud.dynamodb, TABLES, shards=2), [TEN], cloud.now)
    assert found.outlook is not None
    assert found.outlook["usd"] == "120"


def test_what_is_exceeded_is_not_expected_to_be(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.spend("12.30003")  # no float is that
    run(cloud, cloud.process(TEN)[0], monkeypatch, Expected(True, OUTLOOK))
    assert cloud.sent == []
    assert cloud.marks(DAY)["total@10#100"] == "alarmed"


def test_what_was_spent_after_the_metric_was_printed_is_not_the_alarm_s_yet(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.spend("9")
    watch, _ = cloud.process(TEN)
    everything = watch.everything

    def later(*given: Any) -> Any:
        cloud.spend("3")
        return everything(*given)

    monkeypatch.setattr(watch, "everything", later)
    run(cloud, watch, monkeypatch, None)
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["SpendToDate"] for each in printed if "SpendToDate" in each} == {9.0}
    assert cloud.marks(DAY)["total@10#100"] == "alarm"


def test_what_it_went_to_keeps_no_alert_back(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("of nobody's")

    monkeypatch.setattr(LedgerReader, "window", broken)
    cloud.process(TEN)[0].after(cloud.spend("5.1"))
    assert cloud.sent[0]["causes"] is None
    assert "could not be read" in json.loads(cloud.sent[0]["raw"]["Message"])["email"]
    assert Decimal(cloud.sent[0]["spent_usd"]) == Decimal("5.1")
    assert schema.PENDING_ALERTS not in {key[0] for key in cloud.dynamodb.tables[TABLES.ledger]}
