"""An agent over its budget, deployed by the CDK CLI: stopped, its events kept, and given back in the end."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs

from agentops_constructs import CostAction, CostAlarm, MonitoredAgent, MonitoringPlane
from agentops_monitoring import cli
from agentops_monitoring.control import redrive
from tests.fault.conftest import FaultyAws

from .conftest import deployed
from .test_embedded_aws_clock import DAY, MINUTE, MovedAws

pytestmark = pytest.mark.xdist_group("stopping")

ENVIRONMENT = "stopped"
FORMER = 3
STOPPED, KEPT = 0, 4  # concurrency, events sent meanwhile
WORKER = """
import boto3, json, os
from agentops_monitoring import AgentOpsMonitor

monitor = AgentOpsMonitor()

def handler(event, context):
    if event.get("spend"):
        monitor.track_llm_usage(model="claude-3-opus", input_tokens=1000, output_tokens=500)
    boto3.client("sqs").send_message(QueueUrl=os.environ["SEEN"], MessageBody=json.dumps(event))
"""


class Team(Stack):
    """A plane, and two agents that alarms can stop."""

    def __init__(self, app: App, source: Path) -> None:
        super().__init__(app, "Stopping")
        plane = MonitoringPlane(self, "Monitoring", environment=ENVIRONMENT, alert_email="ops@example.com")
        agents = []
        for name, concurrency in (("worker", FORMER), ("free", None)):
            seen = sqs.Queue(self, f"{name}-seen", queue_name=f"seen-{name}")
            agent = MonitoredAgent(
                self,
                name.capitalize(),
                monitoring=plane,
                agent_name=name,
                code=lambda_.Code.from_asset(str(source)),
                handler="index.handler",
                environment={"SEEN": seen.queue_url},
                reserved_concurrent_executions=concurrency,
            )
            seen.grant_send_messages(agent.role)
            agents.append(agent)
        stop = CostAction.STOP_AGENT
        CostAlarm(
            self, "Cost", monitoring=plane, agent=agents[0], threshold_usd=0.05, on_breach=stop
        )  # fmt: skip
        CostAlarm(self, "All", monitoring=plane, threshold_usd=1000, on_breach=stop, stops=agents)


class StoppingAws(MovedAws, FaultyAws):
    """The embedded AWS with that stack."""

    def function_of(self, agent: str) -> str:
        """Return the name of an agent's function."""
        return str(self.parameter(agent)["function"])

    def parameter(self, agent: str) -> dict[str, Any]:
        """Return what makes an agent known."""
        name = f"/agentops/{ENVIRONMENT}/stoppable/{agent}"
        found: dict[str, Any] = json.loads(self.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])
        return found

    def concurrency(self, agent: str) -> int | None:
        """Return the reserved concurrency of an agent."""
        found = self.client("lambda").get_function_concurrency(FunctionName=self.function_of(agent))
        reserved: int | None = found.get("ReservedConcurrentExecutions")
        return reserved

    def seen(self, agent: str) -> list[int]:
        """Take the numbers of the events that an agent was invoked with, in their order, for good."""
        self.settle()
        url = self.client("sqs").get_queue_url(QueueName=f"seen-{agent}")["QueueUrl"]
        messages = self.messages(url)
        self.client("sqs").purge_queue(QueueUrl=url)
        return [json.loads(message["Body"]).get("n") for message in messages]

    def left(self, agent: str) -> list[Any]:
        """Look at what is in an agent's queue of failed events, and hide it from nobody."""
        found = self.client("sqs").receive_message(
            QueueUrl=self.parameter(agent)["queue"], MaxNumberOfMessages=10, VisibilityTimeout=0
        )
        return [json.loads(message["Body"]) for message in found.get("Messages", [])]

    def send(self, agent: str, numbers: range) -> None:
        """Invoke an agent asynchronously."""
        for number in numbers:
            self.invoke(self.function_of(agent), {"n": number}, "Event")
        self.settle()

    def subjects(self) -> list[str]:
        """Return the subjects of the mails so far, without their region."""
        return [mail["subject"].rpartition(" in ")[0] for mail in self.local("mail")]

    def resume(self, *words: str) -> tuple[int, Any]:
        """Run the command; return its exit code and its document."""
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = cli.main(["resume", *words, "--environment", ENVIRONMENT, "--rate", "100", "--json"])
        return code, json.loads(said.getvalue())["agents"]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory, full_size: bool) -> Iterator[StoppingAws]:
    folder = tmp_path_factory.mktemp("stopping")
    with deployed(Team, WORKER, folder) as (url, variables), pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
            patch.setenv(name, variables[name])
        cloud = StoppingAws(url)
        if not full_size:
            # The queue here knows at once that it is empty.
            patch.setattr(redrive, "WAIT_S", 0)
            # Whatever time passes, the other functions start for nothing; gauges is invoked where it matters.
            for rule in cloud.client("events").list_rules()["Rules"]:
                if "ScheduleExpression" in rule and "StopSchedule" not in rule["Name"]:
                    cloud.client("events").disable_rule(Name=rule["Name"])
        yield cloud


def failed_elsewhere(aws: StoppingAws, agent: str) -> dict[str, Any]:
    """Put Lambda's record of an event that the agent failed on into its queue."""
    context = {
        "requestId": "r", "functionArn": f"{aws.arn(aws.function_of(agent))}:$LATEST",
        "condition": "RetriesExhausted", "approximateInvokeCount": 3,
    }  # fmt: skip
    answered = {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    record = {
        "version": "1.0", "timestamp": "2126-01-01T00:00:00.000Z", "requestContext": context,
        "requestPayload": {"n": -1}, "responseContext": answered, "responsePayload": {},
    }  # fmt: skip
    aws.client("sqs").send_message(QueueUrl=aws.parameter(agent)["queue"], MessageBody=json.dumps(record))
    return record


def test_a_breach_stops_the_agent_and_a_command_resumes_it(aws: StoppingAws) -> None:
    worker = aws.function_of("worker")
    assert aws.invoke(worker, {"spend": True, "n": 100}) == (None, False)
    assert aws.concurrency("worker") == FORMER
    aws.settle()
    aws.invoke(f"agentops-gauges-{ENVIRONMENT}", {})
    aws.until(lambda: aws.concurrency("worker") == STOPPED)
    aws.settle()
    assert aws.concurrency("free") is None
    assert aws.seen("worker") == [100]

    aws.send("worker", range(KEPT))
    assert aws.seen("worker") == []
    record = failed_elsewhere(aws, "worker")
    aws.advance(2 * MINUTE)  # for the alarm on its queue, which is not to mail of what is kept
    assert aws.subjects() == [f'ALARM: "AgentOps-{ENVIRONMENT}-Cost-worker"']
    (mail,) = aws.local("mail")
    assert f"resume --environment {ENVIRONMENT}" in mail["body"]

    expected = {"agent": "worker", "state": "resumed", "concurrency": FORMER, "redriven": KEPT, "others": 1}
    assert aws.resume("--all", "--dry-run") == (0, [expected | {"reason": ""}])
    assert aws.concurrency("worker") == STOPPED

    assert aws.resume("worker") == (0, [expected | {"reason": ""}])
    assert aws.concurrency("worker") == FORMER
    assert sorted(aws.seen("worker")) == list(range(KEPT))
    assert aws.left("worker") == [record]
    aws.advance(2 * MINUTE)
    failed = f'ALARM: "AgentOps-{ENVIRONMENT}-FailedEvents-worker"'
    assert aws.subjects()[1:] == [failed], "of what else has failed, it is told now"

    code, (again,) = aws.resume("worker")
    assert (code, again["state"]) == (0, "not stopped")


def test_an_alarm_that_comes_again_does_not_stop_what_was_resumed(aws: StoppingAws, full_size: bool) -> None:
    if not full_size:
        pytest.skip("at reduced size tests/unit/ledger/test_stops.py alone says so")
    alarm = {"alarmName": f"AgentOps-{ENVIRONMENT}-HighCost"}
    state = {"value": "ALARM", "reason": "too much", "timestamp": stamp(aws.now())}
    event = {"source": "aws.cloudwatch", "alarmData": {**alarm, "state": state}}
    for _ in range(2):
        assert aws.invoke(f"agentops-stop-{ENVIRONMENT}", event) == (None, False)
        assert aws.concurrency("free") == aws.concurrency("worker") == STOPPED
    assert aws.resume("worker", "free")[0] == 0
    assert aws.invoke(f"agentops-stop-{ENVIRONMENT}", event) == (None, False)
    assert (aws.concurrency("worker"), aws.concurrency("free")) == (FORMER, None)
    over = {**event, "alarmData": {**alarm, "state": {**state, "value": "OK"}}}
    assert aws.invoke(f"agentops-stop-{ENVIRONMENT}", over) == (None, False)
    nobodys, failed = aws.invoke(
        f"agentops-stop-{ENVIRONMENT}",
        {**event, "alarmData": {"alarmName": "another", "state": state}},
    )
    assert failed
    assert "stops no agent" in nobodys["errorMessage"]


def test_the_next_day_resumes_what_was_stopped(aws: StoppingAws, full_size: bool) -> None:
    aws.advance_into(DAY, DAY // 2)
    kill = {"by": f"agentops-stop-{ENVIRONMENT}", "fault": "kill", "when": "before", "most": 1}
    calls = ("lambda:PutFunctionConcurrency", "lambda:DeleteFunctionConcurrency", "sqs:ReceiveMessage")
    # At reduced size one: tests/unit/ledger/test_stops.py has it ended at each call.
    aws.order(*({**kill, "call": call} for call in (calls if full_size else calls[1:2])))
    aws.client("cloudwatch").set_alarm_state(
        AlarmName=f"AgentOps-{ENVIRONMENT}-HighCost", StateValue="ALARM", StateReason="told to"
    )
    aws.until(lambda: aws.concurrency("free") == STOPPED and aws.concurrency("worker") == STOPPED)
    aws.send("free", range(KEPT))
    aws.advance(DAY // 4)
    assert aws.concurrency("free") == STOPPED, "not on the same day"
    aws.advance_into(DAY, 6 * MINUTE)
    aws.until(lambda: aws.concurrency("free") is None)
    assert (aws.concurrency("worker"), aws.concurrency("free")) == (FORMER, None)
    assert sorted(aws.seen("free")) == list(range(KEPT))
    assert {fired for _, fired in aws.counts()} == {1}, "ended at each, and the next did it"


def stamp(at: float) -> str:
    """Return a time as alarms write it."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}.000+0000"
