"""The whole report over a small run: real lines through the real ledger, then recounted and drawn."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agentops_monitoring.ledger.parse import read_payload
from agentops_monitoring.ledger.writer import LedgerWriter
from local.report.boards import chips
from local.report.console import Console, wants_color
from local.report.ledger import tables_of
from local.report.main import Report, build_report
from tests.unit.report.factory import HOSTILE, FakeCloudWatch, FakeLambda, FakeLogs, Process

WORKFLOWS = ["a" * 32, "b" * 32]
BOARD = {
    "start": "-PT3H",
    "widgets": [
        {"type": "text", "x": 0, "y": 0, "width": 24, "height": 2,
         "properties": {"markdown": "# Cost · demo"}},
        {
            "type": "metric", "x": 0, "y": 2, "width": 12, "height": 6,
            "properties": {"title": f"Cost {HOSTILE}", "view": "timeSeries", "stacked": True,
                           "metrics": [["AgentOps/Costs", "TotalCost", {"label": HOSTILE}]]},
        },
        {
            "type": "metric", "x": 12, "y": 2, "width": 12, "height": 6,
            "properties": {"title": "Anomalies", "metrics": [["AgentOps/Anomalies", "handoff_loop"]]},
        },
        {
            "type": "alarm", "x": 0, "y": 8, "width": 24, "height": 3,
            "properties": {"title": "Alarms", "alarms": [
                "arn:aws:cloudwatch:us-east-1:000000000000:alarm:AgentOps-demo-HighCost"]},
        },
        {
            "type": "custom", "x": 0, "y": 11, "width": 24, "height": 8,
            "properties": {"title": "Flow", "endpoint": "arn:flow", "params": {"widget": "flow"}},
        },
        {
            "type": "custom", "x": 0, "y": 19, "width": 24, "height": 8,
            "properties": {"title": "Broken", "endpoint": "arn:flow", "params": {"widget": "broken"}},
        },
        {"type": "explorer", "x": 0, "y": 27, "width": 24, "height": 3, "properties": {"title": "Explorer"}},
    ],
}  # fmt: skip


def run() -> tuple[list[Process], list[dict[str, Any]], list[dict[str, Any]]]:
    """Two workflows of two agents, the model's own log, and AgentOps' record."""
    manager, qa = Process("manager", "stream-m", "m1"), Process("qa", "stream-q", "q1")
    calls, spans = [], []
    for number, workflow in enumerate(WORKFLOWS):
        told = {"workflow": workflow, "request_id": f"req-{number}"}
        calls.append(manager.call(1000 + number, 100))
        chain = [{"thought": HOSTILE, "action": "look", "observation": "x" * 300}]
        decision = {
            "decision_id": "d",
            "decision_type": HOSTILE,
            "reasoning_chain": chain,
            "confidence_score": 0.5,
        }
        manager.event("decision_made", decision, **told)
        message = {"from": "manager", "to": "qa", "message_type": "issue.found", "message_id": "1", "hop": 1}
        manager.event("message_sent", message, **told)
        qa.event("message_received", {**message, "latency_ms": 20}, **told)
        qa.event("workflow_completed" if number else "workflow_failed", {"reason": "done"}, **told)
        manager.report(120, request_id=f"req-{number}")
        qa.text_report(33, request_id=f"req-{number}")
        spans.append({"trace_id": workflow, "span_id": "1", "parent_span_id": None})
    return [manager, qa], calls, spans


def ingest(dynamodb: Any, processes: list[Process]) -> None:
    now_ms = int(time.time() * 1000)
    for process in processes:
        payload = {
            "logGroup": f"/aws/lambda/{process.agent}",
            "logStream": process.stream,
            "subscriptionFilters": [f"agentops|demo|{process.agent}|arm64"],
            "logEvents": [
                {"id": f"{process.agent}{n}", "timestamp": now_ms, "message": line}
                for n, line in enumerate(process.lines)
            ],
        }
        batch = read_payload(payload, "us-east-1")
        assert not batch.rejects
        LedgerWriter(dynamodb, tables_of("demo")).write(batch)


Build = Callable[..., Report]


@pytest.fixture
def build(dynamodb: Any, tmp_path: Path) -> Build:
    def built(*, lose: int = 0, color: bool = False, alarm_note: str = "") -> Report:
        processes, calls, spans = run()
        ingest(dynamodb, processes)
        for _ in range(lose):
            calls.pop()
        for name, rows in (("model", calls), ("agentops", spans)):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

        def widget(event: dict[str, Any]) -> Any:
            return (
                RuntimeError("boom")
                if event["widget"] == "broken"
                else f"<svg><text>{event['widget']}</text></svg>"
            )

        clients: dict[str, Any] = {
            "logs": FakeLogs({f"/aws/lambda/{p.agent}": [p] for p in processes}),
            "dynamodb": dynamodb,
            "cloudwatch": FakeCloudWatch({"AgentOps-Monitoring-Cost-demo": BOARD}, {"TotalCost": [0.1, 0.3]}),
            "lambda": FakeLambda(widget),
        }
        return build_report(
            out=tmp_path / "out",
            environment="demo",
            model_log=tmp_path / "model.jsonl",
            agentops_log=tmp_path / "agentops.jsonl",
            client=clients.__getitem__,
            color=color,
            alarm_note=alarm_note,
        )

    return built


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


def test_the_recount_confirms_the_ledger_to_the_last_digit(build: Build, tmp_path: Path) -> None:
    report = build()
    assert [check for check in report.facts.checks if not check.ok] == []
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["ok"]
    assert summary["totals"]["workflows"] == 2
    # Claude 3 Haiku: $0.25 and $1.25 a million tokens; 2,001 in, 200 out.
    assert Decimal(summary["totals"]["llm_usd"]) == Decimal("0.00075025")
    compute = 2 * (
        Decimal(120 * 256 + 33 * 128) / 1024 / 1000 * Decimal("0.0000133334") + 2 * Decimal("0.0000002")
    )
    assert Decimal(summary["totals"]["compute_usd"]) == compute
    assert summary["flows"] == [{"from": "manager", "to": "qa", "messages": 2, "mean_latency_ms": 20.0}]
    (workflow,) = (one for name, one in summary["unit_costs"].items() if name == "completed_workflow")
    whole = Decimal("0.00075025") + compute
    assert (workflow["results"], Decimal(workflow["usd"]), Decimal(workflow["each_usd"])) == (1, whole, whole)
    assert "completed workflow" in report.text
    agents = {agent["name"]: agent for agent in summary["agents"]}
    assert agents["qa"]["success_rate"] == 0.5
    assert agents["manager"]["mean_confidence"] == 0.5
    assert agents["qa"]["mean_confidence"] is None


def test_a_difference_fails_the_report(build: Build) -> None:
    report = build(lose=1)
    assert not report.ok
    assert "DIFFERS" in report.text


class Auditor(HTMLParser):
    """Checks that tags balance and that nothing loads or runs but our own script."""

    VOID = frozenset({"br", "hr", "img", "meta", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            assert name not in ("src", "srcset"), (tag, name)
            assert name not in ("href", "xlink:href") or str(value).startswith("#"), (tag, value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_no_network(build: Build, tmp_path: Path) -> None:
    build()
    page = (tmp_path / "out/index.html").read_text()
    auditor = Auditor()
    auditor.feed(page)
    auditor.close()
    assert auditor.open == []
    assert auditor.scripts == 1
    assert "Cost · demo" in page
    assert "<text>flow</text>" in page
    assert 'class="chip alarm"' in page


def test_a_note_stands_beside_the_alarms_as_text(build: Build, tmp_path: Path) -> None:
    build(alarm_note="meant <to> fire")
    page = (tmp_path / "out/index.html").read_text()
    assert page.index("Alarms on the agents") < page.index("meant &lt;to&gt; fire")


def test_a_chip_leaves_out_what_its_heading_says() -> None:
    alarm = {"name": "AgentOps-demo-Watch-cart", "state": "OK", "since": "", "about": "", "reason": ""}
    assert "<b>Watch-cart</b>" in chips([alarm])
    assert "<b>cart</b>" in chips([alarm], "Watch-")


def test_what_shows_nothing_is_named_with_its_reason(build: Build) -> None:
    named = {widget["title"]: widget["reason"] for widget in build().facts.widgets_without_data}
    assert set(named) == {"Anomalies", "Broken", "Explorer"}
    assert "boom" in named["Broken"]


def test_the_console_aligns_its_columns_and_colours_only_when_asked(build: Build) -> None:
    text = build().text
    assert "\x1b" not in text
    table = text.split("\n\n")[0].splitlines()
    rows = [line for line in table[1:] if not line.startswith("  all")]
    # The heading, the rule and each agent's row end their last column at the same place.
    assert len({len(line) for line in rows}) == 1
    assert "2 workflows, 1 completed, 1 failed" in table[0]


def test_colour_is_there_on_a_terminal(build: Build) -> None:
    assert "\x1b[32mok" in build(color=True).text


def test_text_from_agents_cannot_drive_the_terminal() -> None:
    shown = Console(color=False).table("t", ("name",), [["\x1b[2Jgone\n\x07"]])
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert len(shown.splitlines()) == 4


@pytest.mark.parametrize(
    ("tty", "env", "wanted"), [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False)]
)
def test_colour_needs_a_terminal_and_nobody_who_minds(tty: bool, env: dict[str, str], wanted: bool) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return tty

    assert wants_color(Stream(), env) is wanted
