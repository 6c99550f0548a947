"""A day held against AWS's counts: what is missing is found, and what only seems so is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws

from agentops_monitoring import cli
from agentops_monitoring.functions import reconcile as function
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.origins import Origins
from agentops_monitoring.ledger.parse import read_payload
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.reconcile import BEDROCK, LAMBDA, Compared, NotTold, reconcile
from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.ledger.conftest import TABLES, create_tables
from tests.unit.ledger.streams import LogEvent, payload, proof, rfc3339

REGION = "eu-west-1"
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
STREAM = "2026/11/22/shop-manager[$LATEST]0a1b"
NONCE = "0" * 24


class Cloud:
    """A ledger and CloudWatch's metrics of yesterday."""

    def __init__(self) -> None:
        self.dynamodb, self.cloudwatch = boto3.client("dynamodb"), boto3.client("cloudwatch")
        create_tables(self.dynamodb)
        self.day = datetime.now(UTC).date() - timedelta(days=1)
        self.noon = datetime(self.day.year, self.day.month, self.day.day, 12, tzinfo=UTC)
        self.number = 0

    def count(
        self, namespace: str, metric: str, dimension: str, value: float, at: datetime | None = None
    ) -> None:
        name = {"AWS/Lambda": "FunctionName", "AWS/Bedrock": "ModelId"}[namespace]
        datum: Any = {"MetricName": metric, "Dimensions": [{"Name": name, "Value": dimension}]}
        datum |= {"Value": value, "Timestamp": at or self.noon}
        self.cloudwatch.put_metric_data(Namespace=namespace, MetricData=[datum])

    def log(
        self, *lines: dict[str, Any], at: datetime | None = None, agent: str = "manager", stream: str = STREAM
    ) -> None:
        at_ms = int((at or self.noon).timestamp() * 1000)
        batch = []
        for line in lines:
            self.number += 1
            name = f"agentops|test|{agent}|arm64"
            batch.append(LogEvent(stream, name, f"{self.number:056d}", at_ms, json.dumps(line)))
        body = payload(batch)
        LedgerWriter(self.dynamodb, TABLES).write(read_payload(body, REGION))
        Origins(self.dynamodb, TABLES.ledger).note(body)

    def event(self, kind: str, data: dict[str, Any], at: datetime | None = None) -> dict[str, Any]:
        self.number += 1
        body = {
            "v": 1, "id": f"{NONCE}-{self.number}", "type": kind, "agent": "manager", "workflow_id": "w",
            "trace_id": "t" * 32, "span_id": "s" * 16, "request_id": f"r{self.number}", "seq": self.number,
            "at": rfc3339(int((at or self.noon).timestamp() * 1000)), "proof": proof(NONCE, STREAM),
            "data": data,
        }  # fmt: skip
        return {"timestamp": body["at"], "level": "INFO", kind: 1, "agentops.event": body}

    def report(self) -> dict[str, Any]:
        self.number += 1
        metrics = {"durationMs": 5, "billedDurationMs": 5, "memorySizeMB": 128}
        record = {"requestId": f"r{self.number}", "status": "success", "metrics": metrics}
        return {"time": "2026-11-22T12:00:00.000Z", "type": "platform.report", "record": record}

    def call(self, model: str, into: int, out: int) -> dict[str, Any]:
        tokens = {"gen_ai.usage.input_tokens": into, "gen_ai.usage.output_tokens": out}
        return self.event("llm_usage", {"gen_ai.request.model": model, **tokens})

    def compared(self, now: datetime | None = None) -> list[Compared]:
        reader = LedgerReader(self.dynamodb, TABLES)
        return reconcile(reader, self.cloudwatch, self.day, region=REGION, now=now)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "1", "AWS_SECRET_ACCESS_KEY": "2", "AWS_DEFAULT_REGION": REGION,
        "MONITORING_TABLE_NAME": TABLES.monitoring, "DECISIONS_TABLE_NAME": TABLES.decisions,
        "LEDGER_TABLE_NAME": TABLES.ledger, "ENVIRONMENT": "test",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    function._parts.cache_clear()
    with mock_aws():
        yield Cloud()
    function._parts.cache_clear()


def test_what_agrees_is_said_without_a_remark(cloud: Cloud) -> None:
    cloud.log(*(cloud.report() for _ in range(3)), cloud.event("invocation_failed", {"duration_ms": 1}))
    cloud.log(cloud.call(SONNET, 100, 7))
    for metric, value in (("Invocations", 3), ("Errors", 1)):
        cloud.count("AWS/Lambda", metric, "shop-manager", value)
        cloud.count("AWS/Lambda", metric, "of-another-team", 99)
    for metric, value in (("Invocations", 1), ("InputTokenCount", 100), ("OutputTokenCount", 7)):
        cloud.count("AWS/Bedrock", metric, f"eu.{SONNET}", value)
    agent, model = cloud.compared()
    assert (agent.kind, agent.name, agent.sources) == (LAMBDA, "manager", ("shop-manager",))
    assert agent.aws == agent.ledger == {"invocations": 3, "errors": 1}
    assert (model.kind, model.sources) == (BEDROCK, (f"eu.{SONNET}",))
    assert model.aws == model.ledger == {"calls": 1, "input_tokens": 100, "output_tokens": 7}
    assert [each.remarks for each in (agent, model)] == [[], []]
    assert (agent.missing, model.missing) == (0, 0)


def test_lines_that_got_lost_are_missed(cloud: Cloud) -> None:
    cloud.log(*(cloud.report() for _ in range(6)))
    cloud.count("AWS/Lambda", "Invocations", "shop-manager", 8)
    (agent,) = cloud.compared()
    assert (agent.missing, agent.missing_percent) == (2, 25.0)
    assert agent.remarks == ["lines did not arrive: replay --from-logs"]


def test_an_agent_none_of_whose_lines_came_is_missed_if_it_was_known(cloud: Cloud) -> None:
    cloud.log(cloud.report(), at=cloud.noon - timedelta(days=2))
    cloud.count("AWS/Lambda", "Invocations", "shop-manager", 4)
    (agent,) = cloud.compared()
    assert (agent.name, agent.missing, agent.missing_percent) == ("manager", 4, 100.0)


def test_what_runs_across_midnight_is_not_missed(cloud: Cloud) -> None:
    end = cloud.noon + timedelta(hours=12)
    cloud.log(cloud.report())
    cloud.count("AWS/Lambda", "Invocations", "shop-manager", 1)
    cloud.count("AWS/Lambda", "Invocations", "shop-manager", 2, at=end - timedelta(minutes=10))
    (agent,) = cloud.compared()
    assert (agent.counted, agent.booked, agent.late, agent.missing) == (3, 1, 2, 0)
    assert agent.remarks == ["across midnight"]
    cloud.count("AWS/Lambda", "Invocations", "shop-manager", 1, at=end - timedelta(minutes=20))
    assert cloud.compared()[0].missing == 1


def test_what_began_just_now_is_not_missed_on_a_day_that_is_not_over(cloud: Cloud) -> None:
    cloud.log(cloud.report(), at=cloud.noon - timedelta(hours=1))
    for minutes, value in ((-60, 1), (-14, 2), (-40, 1)):
        at = cloud.noon + timedelta(minutes=minutes)
        cloud.count("AWS/Lambda", "Invocations", "shop-manager", value, at=at)
    (agent,) = cloud.compared(now=cloud.noon)
    assert (agent.counted, agent.booked, agent.late, agent.missing) == (4, 1, 2, 1)


class Silent:
    """CloudWatch, which fails to answer a query as GetMetricData does: within an answer that succeeds."""

    def __init__(self, client: Any, status: str | None) -> None:
        self.client, self.status, self.meta = client, status, client.meta

    def get_paginator(self, name: str) -> Any:
        pages = self.client.get_paginator(name)
        if name != "get_metric_data":
            return pages
        status = self.status

        class Pages:
            def paginate(self, **arguments: Any) -> Iterator[Any]:
                for page in pages.paginate(**arguments):
                    for result in page["MetricDataResults"]:
                        result |= {"StatusCode": status, "Timestamps": [], "Values": []}
                    yield page if status else {"MetricDataResults": []}

        return Pages()


@pytest.mark.parametrize("status", ["InternalError", "PartialData", "Forbidden", None])
def test_what_cloudwatch_did_not_tell_is_not_taken_for_zero(
    cloud: Cloud, status: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.log(cloud.report())
    cloud.count("AWS/Lambda", "Invocations", "shop-manager", 9)
    silent = Silent(cloud.cloudwatch, status)
    with pytest.raises(NotTold, match="shop-manager"):
        reconcile(LedgerReader(cloud.dynamodb, TABLES), silent, cloud.day, region=REGION)
    monkeypatch.setattr("agentops_monitoring.cli.plane.client", lambda _: silent)
    assert cli.main(["reconcile"]) == 1
    assert "CloudWatch on" in capsys.readouterr().err


def test_an_agent_that_was_renamed_is_held_together_with_its_former_name(cloud: Cloud) -> None:
    cloud.log(cloud.report(), agent="former")
    cloud.log(cloud.report(), cloud.report(), agent="latter")
    cloud.log(cloud.report(), agent="elsewhere", stream="2026/11/22/another[$LATEST]0a1b")
    cloud.count("AWS/Lambda", "Invocations", "shop-manager", 3)
    cloud.count("AWS/Lambda", "Invocations", "another", 1)
    other, renamed = cloud.compared()
    assert (renamed.name, renamed.counted, renamed.booked) == ("former, latter", 3, 3)
    assert (other.name, other.counted, other.booked) == ("elsewhere", 1, 1)


def test_who_shares_a_function_and_did_nothing_is_not_named(cloud: Cloud) -> None:
    cloud.log(cloud.report(), agent="former", at=cloud.noon - timedelta(days=3))
    cloud.log(cloud.report(), agent="latter")
    cloud.count("AWS/Lambda", "Invocations", "shop-manager", 2)
    (renamed,) = cloud.compared()
    assert (renamed.name, renamed.missing) == ("latter", 1)


def test_printed_report_lines_show_as_more_than_aws_counted(cloud: Cloud) -> None:
    cloud.log(cloud.report(), cloud.report())
    cloud.count("AWS/Lambda", "Invocations", "shop-manager", 1)
    (agent,) = cloud.compared()
    assert (agent.missing, agent.unstarted) == (0, 2)
    assert "2 rest on a report line alone" in agent.remarks[0]


def test_calls_by_others_and_calls_that_failed(cloud: Cloud) -> None:
    cloud.log(cloud.call(SONNET, 10, 1), cloud.call("claude-sonnet-4-5", 5, 1))
    for metric, value in (("Invocations", 4), ("InvocationClientErrors", 2), ("InvocationServerErrors", 1)):
        cloud.count("AWS/Bedrock", metric, SONNET, value)
    (model,) = (each for each in cloud.compared() if each.kind == BEDROCK)
    # The call of Anthropic's own API is none of Bedrock's.
    assert (model.counted, model.booked, model.failed, model.missing) == (4, 1, 3, 0)
    cloud.count("AWS/Bedrock", "Invocations", f"eu.{SONNET}", 5)
    (model,) = (each for each in cloud.compared() if each.kind == BEDROCK)
    assert (model.missing, model.sources) == (5, (SONNET, f"eu.{SONNET}"))
    assert model.remarks == ["calls by others in the account, or by code without the monitor"]


@pytest.mark.parametrize("days", [-14, 1])
def test_days_that_cloudwatch_cannot_tell_of_are_refused(cloud: Cloud, days: int) -> None:
    asked = datetime.now(UTC).date() + timedelta(days=days)
    with pytest.raises(ValueError, match=str(asked)):
        reconcile(LedgerReader(cloud.dynamodb, TABLES), cloud.cloudwatch, asked)


def test_the_function_keeps_what_it_found_and_says_the_worst(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.log(*(cloud.report() for _ in range(3)))
    cloud.count("AWS/Lambda", "Invocations", "shop-manager", 4)
    for _ in range(2):  # repeated: in the place of the first
        answer = function.handler({}, None)
    assert answer == {
        "day": cloud.day.isoformat(), "compared": 1, "missing_percent": {"LAMBDA": 25.0, "BEDROCK": 0.0},
    }  # fmt: skip
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"day": cloud.day.isoformat(), "name": "manager", "aws": 4, "ledger": 3}.items() <= lines[
        0
    ].items()
    metrics = {name: value for name, value in lines[-1].items() if name.startswith("Reconciliation")}
    assert metrics == {"ReconciliationInvocations": 25.0, "ReconciliationModelCalls": 0.0}
    found = LedgerReader(cloud.dynamodb, TABLES).partition(schema.reconciliation_pk(cloud.day.isoformat()))
    (item,) = found
    assert item["sk"]["S"] == "LAMBDA#manager"
    assert [item[f"{who}_invocations"]["N"] for who in ("aws", "ledger")] == ["4", "3"]
    assert (item["missing"]["N"], item["sources"]) == ("1", {"L": [{"S": "shop-manager"}]})
    with pytest.raises(ValueError, match="month"):
        function.handler({"day": "2026-99-01"}, None)


def test_the_command_shows_a_day(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reconcile"]) == 0
    assert f"nothing ran on {cloud.day}" in capsys.readouterr().out
    cloud.log(*(cloud.report() for _ in range(9)))
    cloud.count("AWS/Lambda", "Invocations", "shop-manager", 1_234)
    assert cli.main(["reconcile", "--day", cloud.day.isoformat()]) == 1
    header, first, second, total = capsys.readouterr().out.splitlines()
    assert header.split() == ["agent", "or", "model", "counted", "AWS", "ledger", "differs"]
    assert first.split()[:5] == ["manager", "invocations", "1,234", "9", "-1,225"]
    assert "replay --from-logs" in first
    assert second.split() == ["errors", "0", "0"]
    assert total.startswith(f"{cloud.day}, test: the ledger lacks some")
    assert cli.main(["reconcile", "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)["compared"]
    assert (told["name"], told["missing"], told["ledger"]["invocations"]) == ("manager", 1_225, 9)


@pytest.mark.parametrize("day", ["yesterday", "2020-01-01", str(date.max)])
def test_the_command_says_which_day_makes_no_sense(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], day: str
) -> None:
    assert cli.main(["reconcile", "--day", day]) == 2
    assert day in capsys.readouterr().err
