"""Alerts of a process that writes the ledger itself, as SEED's environment variables set it up."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from agentops_monitoring import settings
from agentops_monitoring.ledger.direct import line_writer
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.mailbox import Mailbox

# Whether DynamoDB's conditions hold is test_alerts' matter, on both of its stand-ins.
pytestmark = pytest.mark.parametrize("dynamodb", ["moto"], indirect=True)


def line(number: int, tokens: int) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    body = {
        "v": 1, "id": f"{number:024x}-1", "type": "llm_usage", "agent": "a", "workflow_id": "w", "at": at,
        "trace_id": "0" * 32, "span_id": "1" * 16, "parent_id": None, "request_id": None, "seq": 1,
        "data": {"gen_ai.request.model": "claude-3-opus", "gen_ai.usage.input_tokens": tokens,
                 "gen_ai.usage.output_tokens": 0},
    }  # fmt: skip
    return json.dumps({"llm_usage": 1, "agentops.event": body}) + "\n"


@pytest.fixture
def mailbox(dynamodb: Any, monkeypatch: pytest.MonkeyPatch) -> Mailbox:
    """Give the topic that a process is told of, beside the tables."""
    made = Mailbox()
    for name, table in zip(("MONITORING", "DECISIONS", "LEDGER"), TABLES, strict=True):
        monkeypatch.setenv(f"{name}_TABLE_NAME", table)
    monkeypatch.setenv("AGENTOPS_LEDGER_SHARDS", "1")  # the fewer there are to read
    monkeypatch.setenv("COST_ALERT_THRESHOLD", "10")
    monkeypatch.setenv("COST_ALERT_TOPIC_ARN", made.topic)
    # As in a process whose environment has said so from its start.
    monkeypatch.setattr("agentops_monitoring.ledger.direct.Watch", _watch_class(), raising=False)
    made.read()
    return made


def _watch_class() -> Any:
    from agentops_monitoring.ledger.watch import Watch

    return Watch


def write(*lines: str) -> None:
    """Write lines as a process of its own does."""
    assert line_writer(settings.load())(lines, time.monotonic() + 30) == []


def test_the_threshold_of_the_users_page_is_told_once_to_the_topic(mailbox: Mailbox) -> None:
    write(line(1, 400_000))  # $6
    write(line(2, 300_000))  # $10.50, and no alarm tells of it here
    write(line(3, 1_000))
    told = mailbox.read(2)
    assert [each["threshold"] for each in told] == ["50", "100"]
    assert told[-1]["spent_usd"] == "10.50"
    assert told[-1]["causes"][0] == {"kind": "agent", "name": "a", "usd": "10.50"}


def test_where_a_plane_has_an_alarm_its_mail_is_the_only_one(mailbox: Mailbox, dynamodb: Any) -> None:
    day = time.strftime("%Y-%m-%d", time.gmtime())
    mark = {"pk": {"S": f"ALERT#D#{day}"}, "sk": {"S": "total@10#100"}, "state": {"S": "alarm"}}
    dynamodb.put_item(TableName=TABLES.ledger, Item=mark)
    write(line(1, 800_000))
    assert mailbox.read() == []


def test_a_topic_that_cannot_be_told_keeps_no_event_from_the_ledger(
    mailbox: Mailbox, capsys: pytest.CaptureFixture[str], dynamodb: Any
) -> None:
    mailbox.sns.delete_topic(TopicArn=mailbox.topic)
    write(line(1, 400_000))
    assert "could not be sent" in capsys.readouterr().err
    assert dynamodb.scan(TableName=TABLES.monitoring)["Count"] == 1


@pytest.mark.parametrize(
    ("name", "value"), [("COST_ALERT_THRESHOLD", "ten"), ("AGENTOPS_BUDGETS", '[{"usd": 0}]')]
)
def test_a_budget_that_makes_no_sense_is_said_and_events_are_written(
    mailbox: Mailbox,
    name: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dynamodb: Any,
) -> None:
    monkeypatch.setenv(name, value)
    write(line(1, 400_000))
    assert "budgets: ValueError" in capsys.readouterr().err
    assert dynamodb.scan(TableName=TABLES.monitoring)["Count"] == 1
