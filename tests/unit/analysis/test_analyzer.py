"""The analyzer's answers on a ledger whose content is known."""

from __future__ import annotations

import itertools
import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import boto3
import pytest
from moto import mock_aws

from agentops_monitoring.analysis.analyzer import AgentOpsAnalyzer
from agentops_monitoring.analysis.findings import LOOP_MESSAGES, find
from agentops_monitoring.analysis.opportunities import siblings
from agentops_monitoring.functions import analyze
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.ledger.conftest import TABLES, create_tables
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)


class Ledger:
    """A ledger that is told events one by one."""

    def __init__(self) -> None:
        self.client = FakeDynamoDB()
        self.writer = LedgerWriter(self.client, TABLES, shards=2)
        self.reader = LedgerReader(self.client, TABLES, shards=2)
        self.analyzer = AgentOpsAnalyzer(self.reader, clock=lambda: NOW)
        self.lines: list[str] = []

    def tell(
        self,
        agent: str,
        kind: str,
        data: Any = None,
        *,
        workflow: str = "w",
        at: datetime = NOW,
        times: int = 1,
    ) -> None:
        for _ in range(times):
            number = len(self.lines) + 1
            body = {
                "v": 1, "id": f"{agent}-{number}", "type": kind, "agent": agent, "env": "test",
                "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), "workflow_id": workflow,
                "trace_id": "0" * 32, "span_id": f"{number:016x}", "parent_id": None, "request_id": None,
                "seq": number, "data": data or {},
            }  # fmt: skip
            self.lines.append(json.dumps({kind: 1, "agentops.event": body}))

    def say(self, sender: str, to: str, message_id: str, **place: Any) -> None:
        data = {"from": sender, "to": to, "message_id": message_id, "message_type": "x"}
        self.tell(sender, "message_sent", data, **place)

    def hear(self, sender: str, to: str, message_id: str, *, named: bool = True, **place: Any) -> None:
        data = {"from": sender, "to": to, "message_id": message_id, "latency_ms": 20}
        self.tell(to, "message_received", {**data, "addressed_to": to if named else None}, **place)

    def hand(self, sender: str, to: str, message_id: str, *, named: bool, **place: Any) -> None:
        """A message that arrives; one that names nobody is known to be for who receives it."""
        data = {"from": sender, "to": to if named else None, "message_id": message_id, "message_type": "x"}
        self.tell(sender, "message_sent", data, **place)
        self.hear(sender, to, message_id, named=named, **place)

    def call(self, agent: str, model: str, tokens_in: int, tokens_out: int, **place: Any) -> None:
        data = {
            "gen_ai.request.model": model,
            "gen_ai.usage.input_tokens": tokens_in,
            "gen_ai.usage.output_tokens": tokens_out,
        }
        self.tell(agent, "llm_usage", data, **place)

    def settle(self) -> Ledger:
        result = self.writer.write_lines(self.lines, "test")
        assert not result.rejects
        return self


def test_flows() -> None:
    ledger = Ledger()
    for index in range(3):
        ledger.say("manager", "engineer", f"a{index}")
        ledger.hear("manager", "engineer", f"a{index}")
    ledger.say("engineer", "qa", "b")
    patterns = ledger.settle().analyzer.analyze_collaboration_patterns(time_window_hours=24)
    assert patterns["most_active_flow"] == "manager->engineer"
    assert patterns["total_messages"] == 4
    assert patterns["flows"][0].pop("p95_handoff_ms") == pytest.approx(20, rel=0.02)
    assert patterns["flows"][0] == {
        "flow": "manager->engineer", "from": "manager", "to": "engineer", "messages": 3, "received": 3,
        "mean_handoff_ms": 20.0,
    }  # fmt: skip
    assert patterns["agents"]["engineer"] == {"sent": 1, "received": 3}


def test_silence() -> None:
    analyzer = Ledger().settle().analyzer
    assert analyzer.analyze_collaboration_patterns(24)["most_active_flow"] is None
    effectiveness = analyzer.analyze_agent_effectiveness("manager", 24)
    assert math.isnan(effectiveness["success_rate"])
    assert effectiveness["samples"] == 0
    assert f"{effectiveness['success_rate']:.1%}" == "nan%"
    assert analyzer.identify_optimization_opportunities() == []


def test_success_rate_counts_workflows_an_agent_took_part_in() -> None:
    ledger = Ledger()
    for index in range(4):
        ledger.tell("manager", "issue_detected", workflow=f"w{index}")
        if index != 3:
            ledger.tell("engineer", "code_generated", workflow=f"w{index}")
        ledger.tell("qa", "workflow_completed" if index < 2 else "workflow_failed", workflow=f"w{index}")
    ledger.tell("manager", "issue_detected", workflow="still running")
    ledger.call("engineer", "claude-3-opus", 1000, 500, workflow="w0")
    analyzer = ledger.settle().analyzer
    manager = analyzer.analyze_agent_effectiveness("manager", 24)
    assert (manager["success_rate"], manager["samples"]) == (0.5, 4)
    engineer = analyzer.analyze_agent_effectiveness("engineer", 24)
    assert (engineer["success_rate"], engineer["samples"]) == (2 / 3, 3)
    assert engineer["llm_cost_usd"] == Decimal("0.0525")
    assert engineer["cost_per_completed_workflow_usd"] == Decimal("0.026250")
    assert engineer["events_by_type"]["code_generated"] == 3


def test_the_window_ends_where_it_says() -> None:
    ledger = Ledger()
    ledger.tell("manager", "issue_detected", at=NOW - timedelta(hours=3))
    analyzer = ledger.settle().analyzer
    assert analyzer.analyze_agent_effectiveness("manager", 3)["events"] == 0
    assert analyzer.analyze_agent_effectiveness("manager", 4)["events"] == 1
    with pytest.raises(ValueError, match="hour"):
        analyzer.analyze_agent_effectiveness("manager", 0)


def _opportunities(ledger: Ledger) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in ledger.settle().analyzer.identify_optimization_opportunities()}


def test_a_cheaper_model_is_priced_from_the_same_tokens() -> None:
    ledger = Ledger()
    for index in range(20):
        ledger.call("engineer", "claude-opus-4-5", 2000, 100, workflow=f"w{index}")
        ledger.tell("qa", "workflow_completed", workflow=f"w{index}")
    found = _opportunities(ledger)
    downgrade = found["model_downgrade"]
    # 40,000 input and 2,000 output tokens: $5 and $25 a million on Opus 4.5, $3 and $15 on Sonnet 4.5.
    assert downgrade["evidence"]["alternative"] == "claude-sonnet-4-5"
    assert downgrade["evidence"]["cost_usd"] == Decimal("0.25")
    assert downgrade["estimated_savings_usd"] == Decimal("0.10")
    # How much repeats is unknown, so nothing is promised.
    assert found["prompt_caching"]["estimated_savings_usd"] is None
    assert found["prompt_caching"]["evidence"]["usd_per_million_cached"] == Decimal("0.5")


def test_no_downgrade_where_agents_fail() -> None:
    ledger = Ledger()
    for index in range(20):
        ledger.call("engineer", "claude-opus-4-5", 2000, 100, workflow=f"w{index}")
        ledger.tell("qa", "workflow_failed", workflow=f"w{index}")
    assert "model_downgrade" not in _opportunities(ledger)


def test_unpriced_models_high_cost_agents_and_ping_pong_are_named() -> None:
    ledger = Ledger()
    ledger.call("manager", "mystery-model", 10, 10)
    ledger.call("manager", "claude-haiku-4-5", 1000, 10)
    ledger.call("engineer", "claude-3-opus", 100_000, 10)
    for index in range(12):
        ledger.say("engineer", "qa", f"a{index}", workflow=f"w{index}")
        ledger.say("qa", "engineer", f"b{index}", workflow=f"w{index}")
    found = _opportunities(ledger)
    assert found["unpriced_model"]["evidence"]["model"] == "mystery-model"
    assert found["high_cost_agent"]["evidence"]["agent"] == "engineer"
    assert found["inefficient_collaboration"]["evidence"]["engineer->qa"] == 12
    for each in found.values():
        assert each["recommendation"]
        assert each["evidence"]


@pytest.mark.parametrize(
    ("model", "first"),
    [
        ("claude-opus-4-5", "claude-sonnet-4-5"),
        ("amazon.nova-pro-v1:0", "amazon.nova-lite-v1:0"),
        (
            "regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "regional.anthropic.claude-haiku-4-5-20251001-v1:0",
        ),
        ("gemini-2.5-pro", "gemini-2.5-flash"),
        ("gpt-4o-mini", None),
    ],
)
def test_siblings(model: str, first: str | None) -> None:
    assert next(iter(siblings(model)), None) == first


def test_failed_attempts_are_counted_and_no_cost_is_claimed_for_them() -> None:
    ledger = Ledger()
    ledger.call("engineer", "claude-sonnet-4-5", 1000, 500)
    ledger.tell("engineer", "code_generated")
    ledger.tell("qa", "test_failed", times=3)
    ledger.tell("qa", "test_passed")
    found = _opportunities(ledger)["failed_attempts"]
    assert found["recommendation"].startswith("3 of 4 test runs failed")
    assert "$" not in found["recommendation"]
    assert (found["evidence"]["test_failed"], found["evidence"]["test_passed"]) == (3, 1)
    assert not [name for name in found["evidence"] if "usd" in name]
    assert found["estimated_savings_usd"] is None


def test_money_in_evidence_has_no_trailing_zeros() -> None:
    ledger = Ledger()
    ledger.call("engineer", "claude-sonnet-4-5", 1000, 500)
    ledger.call("qa", "claude-sonnet-4-5", 10, 5)
    evidence = _opportunities(ledger)["high_cost_agent"]["evidence"]
    assert str(evidence["total_cost_usd"]) == str(evidence["llm_cost_usd"]) == "0.0105"
    assert str(evidence["compute_cost_usd"]) == "0"


def test_lost_messages_and_loops_are_found_once() -> None:
    ledger = Ledger()
    early = NOW - timedelta(minutes=20)
    ledger.say("manager", "engineer", "kept", at=early)
    ledger.hear("manager", "engineer", "kept", at=early)
    ledger.say("manager", "engineer", "lost", at=early)
    ledger.say("manager", "someone outside", "elsewhere", at=early)
    for index in range(8):
        ledger.say("engineer", "qa", f"x{index}", workflow="circle", at=early)
        ledger.hear("engineer", "qa", f"x{index}", workflow="circle", at=early)
    ledger.settle()
    slices = [NOW - timedelta(minutes=minutes) for minutes in (25, 20, 15, 10)]
    found = [each for a, b in itertools.pairwise(slices) for each in find(ledger.reader, a, b)]
    assert [(each.kind, each.key) for each in found] == [
        ("lost_message", "lost_message/lost"),
        ("handoff_loop", "handoff_loop/circle"),
    ]


@pytest.mark.parametrize("named", [True, False])
def test_messages_that_name_no_receiver_make_flows_and_loops_as_well(named: bool) -> None:
    ledger = Ledger()
    for index in range(LOOP_MESSAGES):
        at = NOW - timedelta(minutes=20, seconds=index)
        ledger.hand("engineer", "qa", f"x{index}", named=named, workflow="circle", at=at)
    ledger.hand("engineer", "manager", "one", named=named, workflow="circle", at=at)
    ledger.hear("engineer", "manager", "one", named=named, workflow="circle", at=NOW)  # delivered again
    ledger.settle()
    (found,) = find(ledger.reader, NOW - timedelta(minutes=25), NOW - timedelta(minutes=10))
    assert found.evidence == {"workflow_id": "circle", "messages": {"engineer->qa": LOOP_MESSAGES}}
    told = AgentOpsAnalyzer(ledger.reader, clock=lambda: NOW).analyze_collaboration_patterns(2)
    assert [(each["flow"], each["messages"], each["received"]) for each in told["flows"]] == [
        ("engineer->qa", LOOP_MESSAGES, LOOP_MESSAGES),
        ("engineer->manager", 1, 1),
    ]


def test_a_loop_that_goes_on_without_naming_receivers_was_found_before() -> None:
    ledger = Ledger()
    for index in range(LOOP_MESSAGES + 1):
        at = NOW - timedelta(minutes=40 if index < LOOP_MESSAGES else 20)
        ledger.hand("engineer", "qa", f"x{index}", named=False, workflow="circle", at=at)
    ledger.settle()
    slices = [NOW - timedelta(minutes=minutes) for minutes in (45, 30, 10)]
    assert [len(find(ledger.reader, a, b)) for a, b in itertools.pairwise(slices)] == [1, 0]


def test_a_loop_is_found_though_its_messages_came_in_two_slices() -> None:
    ledger = Ledger()
    for index in range(LOOP_MESSAGES):
        at = NOW - timedelta(minutes=40 if index % 2 else 20)
        ledger.hand("engineer", "qa", f"x{index}", named=False, workflow="circle", at=at)
    ledger.settle()
    assert len(find(ledger.reader, NOW - timedelta(minutes=30), NOW - timedelta(minutes=10))) == 1


def test_messages_without_an_id_are_nobodys_loop() -> None:
    ledger = Ledger()
    at = NOW - timedelta(minutes=20)
    for _ in range(LOOP_MESSAGES):
        ledger.tell("engineer", "message_sent", {"from": "engineer", "to": None}, at=at)
    ledger.tell("qa", "message_received", {"from": "desk", "to": "qa"}, at=at)
    ledger.settle()
    assert find(ledger.reader, NOW - timedelta(minutes=25), NOW - timedelta(minutes=10)) == []


def test_a_spike_stands_out_from_the_day_before() -> None:
    for burst, expected in ((40, ["traffic_spike"]), (5, [])):
        ledger = Ledger()
        for hours in range(1, 25):
            for index in range(3):
                at = NOW - timedelta(hours=hours + 1)
                ledger.say("manager", "qa", f"{hours}-{index}", workflow=f"{hours}", at=at)
                ledger.hear("manager", "qa", f"{hours}-{index}", workflow=f"{hours}", at=at)
        for index in range(burst):
            at = NOW - timedelta(hours=1)
            ledger.say("manager", "qa", f"burst-{index}", workflow=f"b{index}", at=at)
            ledger.hear("manager", "qa", f"burst-{index}", workflow=f"b{index}", at=at)
        ledger.settle()
        hour = NOW.replace(minute=0)
        found = find(ledger.reader, hour - timedelta(minutes=2), hour + timedelta(minutes=3))
        assert [each.kind for each in found] == expected


@mock_aws
def test_the_cursor_moves_once() -> None:
    client = boto3.client("dynamodb", region_name="us-east-1")
    create_tables(client)
    cursor = analyze.Cursor(client, TABLES.ledger)
    assert cursor.read() is None
    assert cursor.move(None, NOW)
    assert not cursor.move(None, NOW + timedelta(minutes=5))
    assert cursor.read() == NOW
    assert analyze.due(NOW, NOW + timedelta(minutes=7)) == (NOW, NOW + timedelta(minutes=2))
    assert cursor.move(NOW, NOW + timedelta(minutes=2))


@mock_aws
def test_the_handler_prints_zeros_and_moves_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = boto3.client("dynamodb", region_name="us-east-1")
    create_tables(client)
    monkeypatch.setenv("ENVIRONMENT", "test")
    for name, table in zip(("MONITORING", "DECISIONS", "LEDGER"), TABLES, strict=True):
        monkeypatch.setenv(f"{name}_TABLE_NAME", table)
    analyze._parts.cache_clear()
    analyze.handler({}, None)
    assert '"LostMessages":0' in capsys.readouterr().out
    assert analyze.Cursor(client, TABLES.ledger).read() is not None


def test_metrics_of_findings_include_zeros() -> None:
    values = analyze.metric_values([], "test")
    assert {each.name: each.value for each in values} == {
        "lost_message": 0, "handoff_loop": 0, "traffic_spike": 0, "LostMessages": 0, "LoopsDetected": 0,
    }  # fmt: skip
