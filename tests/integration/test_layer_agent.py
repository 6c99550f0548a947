"""Agents whose code comes as it is, with the monitor in a layer: deployed by the CDK CLI, and run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Duration, Stack
from aws_cdk import aws_lambda as lambda_

from agentops_constructs import Budget, MonitoredAgent, MonitoringPlane
from tests.unit.core.aws_server import aws_server
from tests.unit.core.test_bedrock import CONVERSE_STREAM

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

SPENDING = """
import boto3, json, os, signal
from agentops_monitoring import BudgetExceeded

def handler(event, context):
    if "key" in event:
        key = {"pk": {"S": event["key"]}, "sk": {"S": "STATE"}}
        boto3.client("dynamodb").update_item(TableName=os.environ["LEDGER_TABLE_NAME"], Key=key)
    bedrock = boto3.client("bedrock-runtime", endpoint_url=event["url"])
    messages = [{"role": "user", "content": [{"text": "hello"}]}]
    asked = dict(modelId=event["model"], messages=messages, inferenceConfig={"maxTokens": event["limit"]})
    if event.get("die"):
        unread = bedrock.converse_stream(**asked)
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        bedrock.converse(**asked)
    except BudgetExceeded as over:
        return {"spent": str(over.spent_usd), "reserved": str(over.reserved_usd)}
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
        MonitoredAgent(
            self,
            "Spending",
            monitoring=plane,
            agent_name="spending",
            code=lambda_.Code.from_asset(str(sources / "spending")),
            handler="index.handler",
            function_name="layered-spending",
            budget=Budget(daily_usd="0.02", when_unreachable="closed"),
        )
        agents["plain"].grant_invoke(agents["sending"].role)


@pytest.fixture(scope="module")
def agents(aws: EmbeddedAws, tmp_path_factory: pytest.TempPathFactory) -> EmbeddedAws:
    """Deploy the stack."""
    folder = tmp_path_factory.mktemp("layered")
    sources = {"plain": PLAIN, "speaking": SPEAKING, "sending": SENDING, "slow": SLOW, "spending": SPENDING}
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


def test_an_agent_with_a_budget_spends_no_more_whoever_is_killed(agents: EmbeddedAws) -> None:
    answer = {
        "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 100, "outputTokens": 600, "totalTokens": 700},
        "metrics": {"latencyMs": 5},
    }
    price = Decimal("0.0093")  # 100 tokens at $3 a million, 600 at $15
    asked = {"model": "us.anthropic.claude-sonnet-4-20250514-v1:0", "limit": 600}

    def budget() -> dict[str, Any]:
        pages = (
            agents.client("dynamodb").get_paginator("scan").paginate(TableName=f"agent-ledger-{ENVIRONMENT}")
        )
        found = [
            item for page in pages for item in page["Items"] if item["pk"]["S"].startswith("BUDGET#spending#")
        ]
        assert len(found) == 1
        return dict(found[0])

    with aws_server() as model:
        for _ in range(6):
            model.answer(answer)
        event = {**asked, "url": model.url}
        with ThreadPoolExecutor(6) as pool:
            answers = [
                each for each, _ in pool.map(lambda _: agents.invoke("layered-spending", event), range(6))
            ]
        made = answers.count(None)
        assert made == len(model.requests) == 1, "the worst case of one is more than half of the budget"
        assert Decimal(budget()["available"]["N"]) == Decimal("0.02") - price

        model.answers.clear()
        model.answer(CONVERSE_STREAM)
        _, failed = agents.invoke("layered-spending", {**event, "limit": 300, "die": True})
        assert failed
        (held,) = [value["S"] for name, value in budget().items() if name.startswith("r.")]
        usd, _, until = held.partition(" ")
        assert Decimal("0.0045") < Decimal(usd) < Decimal("0.0075")
        assert 0 < int(until) - time.time() < 60 + 60  # its time limit, and a minute
        refused, failed = agents.invoke("layered-spending", {**event, "limit": 600})
        assert not failed
        assert {name: Decimal(value) for name, value in refused.items()} == {
            "spent": price,
            "reserved": Decimal(usd),
        }


def test_it_may_not_touch_another_agents_budget_nor_anything_else(agents: EmbeddedAws) -> None:
    for key in ("BUDGET#plain#2026-11-22", "BUDGET#spending", "D#2026-11-22#0"):
        answer, failed = agents.invoke("layered-spending", {"key": key})
        assert failed
        assert "not authorized to perform: dynamodb:UpdateItem" in answer["errorMessage"]
    # Its own it may; what fails is what comes after.
    answer, _ = agents.invoke("layered-spending", {"key": "BUDGET#spending#2000-01-01"})
    assert answer["errorType"] == "KeyError"
