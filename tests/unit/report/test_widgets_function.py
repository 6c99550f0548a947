"""The custom widgets' Lambda function over a real ledger on moto."""

from __future__ import annotations

import html
import json
import re
import time
from types import SimpleNamespace
from typing import Any

import pytest

from agentops_monitoring.functions import widgets
from agentops_monitoring.ledger.reader import LedgerReader
from local.report.ledger import tables_of
from tests.unit.report.factory import HOSTILE
from tests.unit.report.test_report import ingest, run

CONTEXT = SimpleNamespace(invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:widgets")


@pytest.fixture
def ask(dynamodb: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ENVIRONMENT", "demo")
    tables = tables_of("demo")
    for name, table in zip(("MONITORING", "DECISIONS", "LEDGER"), tables, strict=True):
        monkeypatch.setenv(f"{name}_TABLE_NAME", table)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    ingest(dynamodb, run()[0])
    monkeypatch.setattr(widgets, "_reader", lambda: LedgerReader(dynamodb, tables))
    now = int(time.time() * 1000)
    context = {
        "timeRange": {"start": now - 3_600_000, "end": now},
        "width": 900,
        "height": 400,
        "theme": "dark",
    }

    def asked(**event: Any) -> str:
        return widgets.handler({"environment": "demo", "widgetContext": context, **event}, CONTEXT)

    return asked


def test_it_describes_itself_in_markdown(ask: Any) -> None:
    told = widgets.handler({"describe": True}, CONTEXT)
    assert told.startswith("## ")
    for name in ("flow", "decisions", "cost_drivers", "unit_costs", "budgets"):
        assert f"`{name}`" in told


def test_the_flow_map_shows_the_ledgers_messages(ask: Any) -> None:
    told = html.unescape(ask(widget="flow"))
    assert "manager → qa: 2 messages, 20 ms on the way, 95 % of them within" in told


def test_a_decision_is_found_again_by_its_drill_down(ask: Any) -> None:
    listed = ask(widget="decisions")
    links = re.findall(r"<cwdb-action ([^>]*)>(.*?)</cwdb-action>", listed)
    assert len(links) == 2
    assert f'endpoint="{CONTEXT.invoked_function_arn}"' in links[0][0]
    whole = ask(**json.loads(html.unescape(links[0][1])))
    assert html.escape(HOSTILE) in whole
    assert "x" * 300 in whole
    assert "<script" not in listed + whole


def test_a_decision_that_is_gone_says_so(ask: Any) -> None:
    assert "no longer kept" in ask(widget="decision", key={"workflow_id": "x", "sk": "y"})


def test_costs_are_ranked_with_their_evidence(ask: Any) -> None:
    shown = ask(widget="cost_drivers")
    assert "manager" in shown
    assert "input tokens a call 1,000" in shown
    assert "<script" not in shown


def test_what_one_result_has_cost_is_shown_for_each_kind(ask: Any) -> None:
    shown = ask(widget="unit_costs")
    for name in ("completed workflow", "issue found", "accepted fix", "failed attempt"):
        assert f"<td>{name}</td>" in shown
    # Nothing was accepted in the time shown: no price is made up.
    past = {"timeRange": {"start": 1_500_000_000_000, "end": 1_500_003_600_000}}
    assert ask(widget="unit_costs", widgetContext=past).count("<strong>–</strong>") == 4


def test_outside_the_time_shown_there_is_nothing(ask: Any) -> None:
    past = {"timeRange": {"start": 1_500_000_000_000, "end": 1_500_003_600_000}}
    assert "No messages" in ask(widget="flow", widgetContext=past)


def test_the_zoom_counts(ask: Any) -> None:
    now = int(time.time() * 1000)
    past = {"start": 1_500_000_000_000, "end": 1_500_003_600_000}
    shown = {"timeRange": {"start": now - 3_600_000, "end": now, "zoom": past}}
    assert "No messages" in ask(widget="flow", widgetContext=shown)


def test_a_long_time_costs_a_bounded_number_of_requests(
    dynamodb: Any, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = LedgerReader(dynamodb, tables_of("demo"), shards=1)
    monkeypatch.setattr(widgets, "_reader", lambda: reader)
    now = int(time.time() * 1000)
    ask(widget="flow", widgetContext={"timeRange": {"start": 0, "end": now}})
    assert reader.requests <= widgets.MAX_HOURS + 1


def test_what_it_does_not_know_is_named(ask: Any) -> None:
    assert "expected one of flow" in ask(widget="<b>pie</b>")
    assert "<b>" not in ask(widget="<b>pie</b>")
    assert "not staging" in ask(widget="flow", environment="staging")
