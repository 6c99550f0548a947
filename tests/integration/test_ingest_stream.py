"""The plane with a stream before ingest, deployed by the CDK CLI: each event once, whatever fails."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_lambda as lambda_

from agentops_constructs import IngestStream, MonitoredAgent, MonitoringPlane
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.schema import Tables
from agentops_monitoring.pricing import TokenUsage, llm_cost
from tests.fault.conftest import FaultyAws

from .conftest import REGION, deployed

pytestmark = pytest.mark.xdist_group("ingest_stream")

ENVIRONMENT = "streamed"
INGEST = f"agentops-ingest-{ENVIRONMENT}"
MODEL = "claude-3-opus"
WORKER = f"""
from agentops_monitoring import AgentEventType, AgentOpsMonitor

monitor = AgentOpsMonitor()

def handler(event, context):
    monitor.track_llm_usage(model="{MODEL}", input_tokens=1000 + event["n"], output_tokens=500)
    monitor.record_event(AgentEventType.ISSUE_DETECTED, {{"severity": "high"}})
"""


class Team(Stack):
    """A plane with a stream, and an agent."""

    def __init__(self, app: App, source: Path) -> None:
        super().__init__(app, "Streamed")
        plane = MonitoringPlane(
            self, "Monitoring", environment=ENVIRONMENT, ingest_stream=IngestStream(shards=2)
        )
        self.agent = MonitoredAgent(
            self,
            "Worker",
            monitoring=plane,
            agent_name="worker",
            code=lambda_.Code.from_asset(str(source)),
            handler="index.handler",
            function_name="streamed-worker",
        )


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory, full_size: bool) -> Iterator[FaultyAws]:
    if not full_size:
        pytest.skip(
            "at reduced size test_embedded_aws_kinesis.py and tests/unit/ledger/test_records.py say so"
        )
    with deployed(Team, WORKER, tmp_path_factory.mktemp("streamed")) as (url, _):
        yield FaultyAws(url)


def letters(aws: FaultyAws) -> list[dict[str, Any]]:
    """Take what is on the plane's dead-letter queues."""
    urls = aws.client("sqs").list_queues().get("QueueUrls", [])
    return [body for url in urls for body in aws.bodies(url)]


def granted(aws: FaultyAws) -> set[str]:
    """Return the actions on Kinesis that the policies of ingest's role allow."""
    iam, lambda_ = aws.client("iam"), aws.client("lambda")
    role = lambda_.get_function_configuration(FunctionName=INGEST)["Role"].rpartition("/")[2]
    statements = [
        statement
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
        for statement in iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]["Statement"]
    ]
    return {
        action
        for statement in statements
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        if action.startswith("kinesis:")
    }


def test_each_event_is_in_the_ledger_once_though_deliveries_and_calls_fail(aws: FaultyAws) -> None:
    aws.order(
        {"invoke": INGEST, "fault": "twice", "probability": 0.3},
        {"invoke": INGEST, "fault": "kill", "seconds": 0.05, "probability": 0.1},
        {"call": "dynamodb:Transact*", "by": INGEST, "fault": "conflict", "probability": 0.3},
        {"call": "*", "by": INGEST, "fault": "throttle", "probability": 0.1},
        {"call": "*", "by": INGEST, "fault": "kill", "when": "after", "probability": 0.05},
    )
    poison = b"no payload of a subscription"
    aws.client("kinesis").put_record(
        StreamName=f"agentops-lines-{ENVIRONMENT}", Data=poison, PartitionKey="somebody"
    )
    count = 60
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: aws.invoke("streamed-worker", {"n": n}), range(count)))
    assert not any(failed for _, failed in answers)
    aws.settle(120)
    fired = [fired for _, fired in aws.counts()]
    print("fired", fired)
    assert sum(fired) >= 10, fired
    aws.order()

    suffix = f"-{ENVIRONMENT}"
    tables = Tables(f"agent-monitoring{suffix}", f"agent-decisions{suffix}", f"agent-ledger{suffix}")
    rollups = LedgerReader(aws.client("dynamodb"), tables).last(2)
    usages = [TokenUsage(1000 + n, 500) for n in range(count)]
    costs = [llm_cost(MODEL, usage, at=datetime.now(UTC), region=REGION) for usage in usages]
    assert rollups.types["issue_detected"].events == count
    assert rollups.types["llm_usage"].events == count
    assert rollups.total.llm_cost == sum((cost for cost in costs if cost is not None), Decimal())
    assert rollups.total.invocations == count

    (letter,) = letters(aws)
    assert base64.b64encode(poison).decode() in json.dumps(letter), "kept whole, and its shard went on"
    used = {action for action in aws.local("calls")[INGEST] if action.startswith("kinesis:")}
    assert used == granted(aws), "least privilege"
    found = aws.client("cloudwatch").list_metrics(Namespace="AWS/Lambda", MetricName="IteratorAge")["Metrics"]
    assert {"Name": "FunctionName", "Value": INGEST} in [one["Dimensions"][0] for one in found]
