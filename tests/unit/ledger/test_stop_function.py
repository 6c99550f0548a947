"""The function `stop` and the command `resume`, in moto: several agents, of which one makes trouble."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from agentops_monitoring import cli
from agentops_monitoring.control import redrive, stoppable
from agentops_monitoring.functions import stop
from tests.integration.conftest import ACCOUNT, REGION

from .conftest import TABLES, create_tables

CONTEXT = SimpleNamespace(get_remaining_time_in_millis=lambda: 300_000)
ALARM = "AgentOps-test-HighCost"


class Agents:
    """Agents that one alarm stops: `gone` has lost its function, `worker` has one."""

    def __init__(self) -> None:
        self.lambda_ = boto3.client("lambda")
        self.sqs = boto3.client("sqs")
        create_tables(boto3.client("dynamodb"))
        ssm = boto3.client("ssm")
        role = boto3.client("iam").create_role(RoleName="role", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as content:
            content.writestr("app.py", "")
        self.lambda_.create_function(
            FunctionName="worker", Runtime="python3.13", Handler="app.handler", Role=role,
            Code={"ZipFile": archive.getvalue()},
        )  # fmt: skip
        for agent in ("gone", "worker"):
            known = {
                "function": agent, "queue": self.sqs.create_queue(QueueName=agent)["QueueUrl"],
                "alarms": [ALARM], "failed_alarm": f"FailedEvents-{agent}",
            }  # fmt: skip
            name = f"{stoppable.path('test')}/{agent}"
            ssm.put_parameter(Name=name, Value=json.dumps(known), Type="String")

    @property
    def concurrency(self) -> int | None:
        """The worker's."""
        found = self.lambda_.get_function_concurrency(FunctionName="worker")
        return found.get("ReservedConcurrentExecutions")


@pytest.fixture(scope="module")
def session() -> boto3.Session:
    """Give a session that has read what services there are, which takes longer than all else here."""
    return boto3.Session(ACCOUNT, "test", region_name=REGION)


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch, session: boto3.Session) -> Iterator[Agents]:
    monkeypatch.setattr(redrive, "WAIT_S", 0)  # moto knows at once that a queue is empty
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCOUNT, "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION,
        "ENVIRONMENT": "test", "LEDGER_TABLE_NAME": TABLES.ledger,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    stop._stops.cache_clear()
    with mock_aws(config={"core": {"reset_boto3_session": False}}):
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
        yield Agents()
    stop._stops.cache_clear()


def alarm(name: str = ALARM, value: str = "ALARM") -> dict[str, Any]:
    state = {"value": value, "reason": "too much", "timestamp": datetime.now(UTC).isoformat()}
    return {"source": "aws.cloudwatch", "alarmData": {"alarmName": name, "state": state}}


def test_one_agents_trouble_is_not_the_others(agents: Agents, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match=r"gone: .*not found"):
        stop.handler(alarm(), CONTEXT)
    assert agents.concurrency == 0
    said = json.loads(capsys.readouterr().out)
    assert {name: said[name] for name in ("message", "agent", "alarm", "reason")} == {
        "message": "stop", "agent": "worker", "alarm": ALARM, "reason": "too much",
    }  # fmt: skip

    tomorrow = datetime.now(UTC) + timedelta(days=1)
    stop.handler({"source": "aws.events", "time": f"{tomorrow:%Y-%m-%dT00:05:00Z}"}, CONTEXT)
    assert agents.concurrency is None
    said = json.loads(capsys.readouterr().out)
    assert (said["message"], said["agent"], said["state"]) == ("resume", "worker", "resumed")


def test_an_alarm_about_the_day_before_stops_nothing(agents: Agents) -> None:
    event = alarm()
    for hours, stopped in ((24, None), (0, 0)):
        start = datetime.now(UTC) - timedelta(hours=hours)
        event["alarmData"]["state"]["reasonData"] = json.dumps(
            {"version": "1.0", "startDate": f"{start:%Y-%m-%dT%H:%M:00.000+0000}", "period": 60}
        )
        with contextlib.suppress(RuntimeError):  # of the agent that has no function
            stop.handler(event, CONTEXT)
        assert agents.concurrency == stopped


def test_an_alarm_that_ends_stops_nothing(agents: Agents) -> None:
    for value in ("OK", "INSUFFICIENT_DATA"):
        stop.handler(alarm(value=value), CONTEXT)
    assert agents.concurrency is None


@pytest.mark.parametrize("event", [{}, {"Records": []}, {"alarmData": {"alarmName": ALARM, "state": None}}])
def test_any_other_event_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="alarms and a schedule only"):
        stop.handler(event, CONTEXT)


def test_a_parameter_that_is_not_ours_is_named(agents: Agents) -> None:
    boto3.client("ssm").put_parameter(Name=f"{stoppable.path('test')}/odd", Value="{}", Type="String")
    with pytest.raises(ValueError, match="agent odd"):
        stop.handler(alarm(), CONTEXT)


def test_the_command_says_what_it_does(agents: Agents, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["resume", "--all"]) == 0
    assert capsys.readouterr().out == "no agent of test is stopped\n"
    with pytest.raises(RuntimeError):
        stop.handler(alarm(), CONTEXT)
    agents.sqs.send_message(
        QueueUrl=agents.sqs.get_queue_url(QueueName="worker")["QueueUrl"], MessageBody="another failure"
    )
    capsys.readouterr()

    assert cli.main(["resume", "--all", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "worker  resumed      unreserved        0        1" in said
    assert "a dry run: nothing was changed" in said
    assert agents.concurrency == 0

    assert cli.main(["resume", "worker", "gone"]) == 0
    said = capsys.readouterr().out
    assert "gone    not stopped" in said
    assert "they stay in the agent's queue" in said
    assert agents.concurrency is None


def test_what_could_not_be_done_for_an_agent_is_said(
    agents: Agents, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError):
        stop.handler(alarm(), CONTEXT)
    agents.sqs.delete_queue(QueueUrl=agents.sqs.get_queue_url(QueueName="worker")["QueueUrl"])
    capsys.readouterr()
    assert cli.main(["resume", "worker", "gone", "--json"]) == 1
    worker, gone = json.loads(capsys.readouterr().out)["agents"]
    assert (worker["state"], gone["state"]) == ("refused", "not stopped")
    assert "does not exist" in worker["reason"]


def test_a_name_that_is_nobodys_is_said(agents: Agents, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["resume", "worker", "wroker"]) == 1
    worker, wroker = capsys.readouterr().out.splitlines()[1:]
    assert worker.startswith("worker  not stopped")
    assert wroker.startswith("wroker  unknown")


@pytest.mark.parametrize(
    "words", [[], ["worker", "--all"], ["worker", "--rate", "0.1"], ["--all", "--rate", "1e9"]]
)
def test_the_command_says_how_it_is_used(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["resume", *words]) == 2
    assert capsys.readouterr().err.startswith("resume: ")


def test_a_plane_that_is_not_there_is_said(agents: Agents, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["resume", "worker", "--environment", "another"]) == 1
    assert "there is no parameter /agentops/another/" in capsys.readouterr().err
