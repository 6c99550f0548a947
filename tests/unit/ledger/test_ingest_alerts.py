"""Ingest and gauges as functions: what they tell of budgets, and what no budget may do to the lines."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentops_monitoring.functions import gauges, ingest
from agentops_monitoring.ledger import watch
from agentops_monitoring.ledger.parse import read_payload
from agentops_monitoring.ledger.schema import Tables
from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.mailbox import Mailbox
from tests.unit.ledger.streams import LogEvent, payload, proof, rfc3339

# Whether DynamoDB's conditions hold is test_alerts' matter, on both of its stand-ins.
pytestmark = pytest.mark.parametrize("dynamodb", ["moto"], indirect=True)
STREAM = "2026/11/22/[$LATEST]00112233445566778899aabbccddeeff"
Line = Callable[..., LogEvent]


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 60_000


@pytest.fixture
def mailbox(dynamodb: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    """Give the topic, and functions whose variables name it."""
    made = Mailbox()
    for name, table in zip(("MONITORING", "DECISIONS", "LEDGER"), TABLES, strict=True):
        monkeypatch.setenv(f"{name}_TABLE_NAME", table)
    monkeypatch.setenv("ENVIRONMENT", "test")
    monkeypatch.setenv("AGENTOPS_LEDGER_SHARDS", "1")  # the fewer there are to read
    monkeypatch.setenv("COST_ALERT_TOPIC_ARN", made.topic)
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", made.queue)
    start_anew()
    made.read()
    yield made
    start_anew()


def start_anew() -> None:
    """Have the functions run in new processes."""
    ingest._ingest.cache_clear()
    gauges._gauges.cache_clear()


def line(kind: str, number: int, workflow: str = "w1", **data: Any) -> LogEvent:
    """Return an event's line, logged now."""
    at = int(time.time() * 1000) - 60 + number
    body = {
        "v": 1, "id": f"abc-{number}", "type": kind, "agent": "manager", "at": rfc3339(at),
        "workflow_id": workflow, "trace_id": "0" * 32, "span_id": "1" * 16, "parent_id": None,
        "request_id": "r", "seq": number, "proof": proof("abc", STREAM), "data": data,
    }  # fmt: skip
    text = json.dumps({kind: 1, "agentops.event": body})
    return LogEvent(STREAM, "agentops|test|manager|arm64", f"{number}", at, text)


def call(number: int, tokens: int, **more: Any) -> LogEvent:
    usage = {"gen_ai.usage.input_tokens": tokens, "gen_ai.usage.output_tokens": 0}
    return line("llm_usage", number, **{"gen_ai.request.model": "claude-3-opus", **usage, **more})


def report(number: int, billed_ms: int) -> LogEvent:
    at = int(time.time() * 1000)
    text = (
        f"REPORT RequestId: r\tDuration: {billed_ms:.2f} ms\tBilled Duration: {billed_ms} ms\t"
        "Memory Size: 10240 MB\tMax Memory Used: 70 MB\n"
    )
    return LogEvent(STREAM, "agentops|test|manager|arm64", f"{number}", at, text)


def deliver(*lines: LogEvent) -> dict[str, Any]:
    body = json.dumps(payload(list(lines))).encode()
    return ingest.handler({"awslogs": {"data": base64.b64encode(gzip.compress(body)).decode()}}, Context())


def commit_alone(dynamodb: Any, *lines: LogEvent) -> None:
    """Write a batch as an ingest does that ends before it looks at any budget."""
    LedgerWriter(dynamodb, Tables(*TABLES)).write(read_payload(payload(list(lines)), "us-east-1"))


def keys(told: list[dict[str, Any]]) -> list[str]:
    return [each["key"].partition("/")[2] for each in told]


def test_who_ends_before_looking_is_made_up_for_by_the_delivery_that_comes_again(
    mailbox: Mailbox, dynamodb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_BUDGETS", '[{"usd": "0.1", "workflow": "*"}]')
    batch = [line("invocation_started", 1, "w0"), call(2, 10_000, workflow="w1")]
    commit_alone(dynamodb, *batch)
    assert deliver(*batch)["duplicates"] == 2
    assert keys(mailbox.read(1)) == ["WS#w1#workflow@0.1#100"]
    # Compute of w0, by the report alone: 900 s of 10 GB are $0.12.
    commit_alone(dynamodb, report(3, 899_000))
    assert deliver(report(3, 899_000))["duplicates"] == 1
    assert keys(mailbox.read(1)) == ["WS#w0#workflow@0.1#100"]
    assert deliver(*batch, report(3, 899_000))["events"] == 0
    assert mailbox.read() == []


def test_gauges_tells_what_ingest_did_not_look_at(
    mailbox: Mailbox, dynamodb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_BUDGETS", '[{"usd": "7", "period": "month", "agent": "*"}]')
    # What a month's money went to is read day by day, which is others' matter and most of the time.
    monkeypatch.setattr(watch, "causes", lambda *_: [])
    commit_alone(dynamodb, call(1, 400_000))  # $6
    for _ in range(2):
        gauges.handler({}, None)
        start_anew()
    told = mailbox.read(2)
    assert sorted((each["scope"], each["threshold"], each["spent_usd"]) for each in told) == [
        ("agent", "80", "6.00"), ("total", "50", "6.00"),
    ]  # fmt: skip
    deliver(call(2, 400_000))  # of all of the day the alarm tells
    assert [(each["scope"], each["threshold"]) for each in mailbox.read(1)] == [("agent", "100")]


@pytest.mark.parametrize(
    "text", ["{}", '[{"usd": 0}]', '[{"usd": 1, "perod": "day"}]', "[", '[{"agent": "a"}]']
)
def test_budgets_that_make_no_sense_stop_no_line_and_gauges_fails_for_them(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTOPS_BUDGETS", text)
    assert deliver(call(1, 400_000))["events"] == 1
    assert '"message": "budgets"' in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"(?i)budget"):
        gauges.handler({}, None)


def test_no_topic_no_look(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COST_ALERT_TOPIC_ARN")
    deliver(call(1, 400_000))
    gauges.handler({}, None)
    assert mailbox.read() == []
