"""Agents whose code comes as it is, with the monitor in a layer: deployed by the CDK CLI, and run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Duration, Stack
from aws_cdk import aws_lambda as lambda_

from agentops_constructs import MonitoredAgent, MonitoringPlane

from .conftest import ACCOUNT, REGION, ROOT, EmbeddedAws, cli_variables, run_command

pytestmark = pytest.mark.xdist_group("layer")

ENVIRONMENT = "layered"
PLAIN = """
def handler(event, context):
    if event.get("fail"):
        raise LookupError("told to")
    return {"echo": event["say"]}
"""
SPEAKING = """
from agentops_monitoring import AgentEventType, AgentOpsMonitor

monitor = AgentOpsMonitor()

def handler(event, context):
    monitor.record_event(AgentEventType.ISSUE_DETECTED, {"severity": "high"})
    return monitor.current.workflow_id
"""
SENDING = """
import boto3, json

def handler(event, context):
    boto3.client("lambda").invoke(
        FunctionName="layered-plain", InvocationType="Event", Payload=json.dumps({"say": "from a colleague"})
    )
"""
SLOW = """
import time

def handler(event, context):
    time.sleep(60)
"""


class Team(Stack):
    """Another team's stack, with a plane of its own."""

    def __init__(self, app: App, sources: Path) -> None:
        super().__init__(app, "Layered")
        plane = MonitoringPlane(self, "Monitoring", environment=ENVIRONMENT)
        agents = {
            name: MonitoredAgent(
                self,
                name.capitalize(),
                monitoring=plane,
                agent_name=name,
                code=lambda_.Code.from_asset(str(sources / name)),
                handler="index.handler",
                function_name=f"layered-{name}",
                timeout=Duration.seconds(2 if name == "slow" else 60),
            )
            for name in ("plain", "speaking", "sending", "slow")
        }
        agents["plain"].grant_invoke(agents["sending"].role)


@pytest.fixture(scope="module")
def agents(aws: EmbeddedAws, tmp_path_factory: pytest.TempPathFactory) -> EmbeddedAws:
    """Deploy the stack."""
    folder = tmp_path_factory.mktemp("layered")
    sources = {"plain": PLAIN, "speaking": SPEAKING, "sending": SENDING, "slow": SLOW}
    for name, source in sources.items():
        (folder / name).mkdir()
        (folder / name / "index.py").write_text(source)
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = App(outdir=str(folder / "cdk.out"), context=context, analytics_reporting=False)
    Team(app, folder)
    app.synth()
    keys = {"AWS_ACCESS_KEY_ID": ACCOUNT, "AWS_SECRET_ACCESS_KEY": "local"}
    variables = cli_variables(aws.url, folder / "home") | keys
    cdk = [str(ROOT / ".venv/bin/node"), "node_modules/aws-cdk/bin/cdk", "--app", app.outdir]
    for words in (
        ("bootstrap", f"aws://{ACCOUNT}/{REGION}"),
        ("deploy", "Layered", "--method", "direct"),
    ):
        run_command([*cdk, *words], variables)
    return aws


def items(aws: EmbeddedAws, agent: str) -> Iterator[dict[str, Any]]:
    """Return what the ledger knows of an agent's events, once everything has arrived."""
    aws.settle()
    pages = aws.client("dynamodb").get_paginator("scan").paginate(TableName=f"agent-monitoring-{ENVIRONMENT}")
    for page in pages:
        for item in page["Items"]:
            if item["agent"]["S"] == agent:
                yield item


def test_code_that_knows_nothing_of_the_monitor_is_monitored(agents: EmbeddedAws) -> None:
    configuration = agents.client("lambda").get_function_configuration(FunctionName="layered-plain")
    assert configuration["Handler"] == "agentops_monitoring.wrapper.handler"
    assert len(configuration["Layers"]) == 1

    assert agents.invoke("layered-plain", {"say": "hello"}) == ({"echo": "hello"}, False)
    answer, failed = agents.invoke("layered-plain", {"fail": True})
    assert (answer["errorType"], failed) == ("LookupError", True)

    found = [item["type"]["S"] for item in items(agents, "plain")]
    assert sorted(found) == [
        "invocation_completed",
        "invocation_failed",
        "invocation_started",
        "invocation_started",
    ]


def test_code_may_use_the_monitor_of_the_layer(agents: EmbeddedAws) -> None:
    workflow, failed = agents.invoke("layered-speaking", {})

    assert not failed
    found = {item["type"]["S"]: item["pk"]["S"] for item in items(agents, "speaking")}
    kinds = ("invocation_started", "issue_detected", "invocation_completed")
    assert found == dict.fromkeys(kinds, f"WF#{workflow}")


def test_a_function_that_another_one_invokes_is_in_its_trace(agents: EmbeddedAws) -> None:
    assert agents.invoke("layered-sending", {}) == (None, False)

    sender = {item["type"]["S"]: item for item in items(agents, "sending")}
    assert set(sender) == {"invocation_started", "message_sent", "invocation_completed"}
    workflow = sender["message_sent"]["pk"]["S"]
    receiver = [item["type"]["S"] for item in items(agents, "plain") if item["pk"]["S"] == workflow]
    assert sorted(receiver) == ["invocation_completed", "invocation_started", "message_received"]


def test_an_agent_whose_time_runs_out_says_so_before_lambda_ends_it(agents: EmbeddedAws) -> None:
    _, failed = agents.invoke("layered-slow", {})

    assert failed
    found = {item["type"]["S"]: item["pk"]["S"] for item in items(agents, "slow")}
    assert set(found) == {"invocation_started", "time_running_out", "invocation_failed"}
    assert len(set(found.values())) == 1


def test_what_it_ran_for_is_booked(agents: EmbeddedAws) -> None:
    agents.invoke("layered-plain", {"say": "again"})
    agents.settle()

    pages = agents.client("dynamodb").get_paginator("scan").paginate(TableName=f"agent-ledger-{ENVIRONMENT}")
    booked = [
        item
        for page in pages
        for item in page["Items"]
        if item["pk"]["S"].startswith("D#") and item["sk"]["S"] == "AGENT#plain"
    ]
    assert sum(Decimal(item["compute_cost"]["N"]) for item in booked) > 0
