"""Where budgets stand, and how the Cost dashboard's widget shows it."""

from __future__ import annotations

import html
import json
import re
from decimal import Decimal
from typing import Any

import pytest

from agentops_monitoring.functions import widgets
from agentops_monitoring.ledger import budgets
from agentops_monitoring.ledger.budgets import Budget
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.standing import standings
from tests.unit.ledger.cloud import DAY, MONTHLY, OUTLOOK, TEN, Cloud, on_one
from tests.unit.ledger.conftest import TABLES

EACH, OWN = Budget(Decimal(2), agent="*"), Budget(Decimal(20), agent="manager")
WORKFLOWS = [
    Budget(Decimal("0.5"), budgets.LIFE, workflow="*"),
    Budget(Decimal(3), budgets.LIFE, workflow="nightly"),
]


@pytest.fixture
def cloud(dynamodb: Any) -> Cloud:
    """Give the tables, with what two agents have spent and a process has told."""
    made = Cloud(dynamodb)
    held = [TEN, MONTHLY, EACH, OWN, *WORKFLOWS]
    watch, _ = made.process(*held)
    made.spend("9")
    watch.after(made.spend("1.8", "engineer", "nightly"))
    watch.everything()
    (month,) = budgets.cases([MONTHLY], "M#2026-11", "month")
    watch.expect(month, Decimal("10.8"), OUTLOOK)
    watch.keep_outlook(month, OUTLOOK)
    return made


@on_one
def test_each_budget_is_there_with_what_is_spent_and_told_and_expected(cloud: Cloud) -> None:
    reader = LedgerReader(cloud.dynamodb, TABLES, shards=2)
    found = standings(reader, [TEN, MONTHLY, EACH, OWN, *WORKFLOWS], cloud.now)
    assert [(each.case.scope, each.case.name, str(each.spent), each.told) for each in found] == [
        ("total", "", "10.80000000", ("100",)),  # the alarm's
        ("agent", "engineer", "1.80000000", ("80",)),
        ("workflow", "nightly", "1.80000000", ("50",)),
        ("agent", "manager", "9.00000000", ()),
        ("total", "", "10.80000000", ("forecast",)),
    ]
    assert [each.outlook and each.outlook["usd"] for each in found] == [None, None, None, None, "120"]


@on_one
def test_the_widget_shows_them_and_says_what_it_leaves_out(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widgets, "_reader", lambda: LedgerReader(cloud.dynamodb, TABLES, shards=2))
    monkeypatch.setattr(widgets, "_now", lambda: cloud.now)
    monkeypatch.setenv("COST_ALERT_THRESHOLD", "10")
    monkeypatch.setenv("AGENTOPS_BUDGETS", budgets.dump([MONTHLY, EACH, OWN, *WORKFLOWS]))
    shown = widgets.handler({"widget": "budgets"}, None)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in shown.split("<tr>")[2:]]
    rows = [[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in row] for row in cells]
    assert rows[0] == ["all agents", DAY[2:], "$10.80", "$10.00", "108 %", "100 %", "–"]
    assert rows[2] == ["workflow nightly", "its whole life", "$1.80", "$3.00", "60 %", "50 %", "–"]
    assert rows[-1][-2:] == [
        "forecast", "$120 ($104 to $141, 80 % interval, as of 2026-11-02T01:00+00:00)",
    ]  # fmt: skip
    assert "Of workflows only those" in shown
    monkeypatch.setattr(widgets, "MAX_BUDGETS", 2)
    assert "The 2 fullest of 5." in widgets.handler({"widget": "budgets"}, None)


@on_one
def test_without_budgets_the_widget_says_so(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widgets, "_reader", lambda: LedgerReader(cloud.dynamodb, TABLES, shards=2))
    monkeypatch.setenv("COST_ALERT_THRESHOLD", "0")
    assert "No budget is set" in widgets.handler({"widget": "budgets"}, None)


@on_one
def test_a_name_is_text_and_no_markup(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widgets, "_reader", lambda: LedgerReader(cloud.dynamodb, TABLES, shards=2))
    name = "<script>alert(1)</script>"
    monkeypatch.setenv("AGENTOPS_BUDGETS", json.dumps([{"usd": 1, "agent": name}]))
    shown = widgets.handler({"widget": "budgets"}, None)
    assert "<script" not in shown
    assert html.escape(name) in shown
