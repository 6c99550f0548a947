"""A small world for the agents: AWS by moto, the real model server on loopback, the sandbox in-process."""

from __future__ import annotations

import importlib
import io
import json
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.events.utils import EventTemplateParser

from agentops_monitoring import monitored, transport
from agents import clients, sandbox, source
from local.model_script import Script
from local.model_server import ModelServer, scripted

SHOP = Path(__file__).resolve().parents[3] / "examples" / "shop"
FUNCTIONS: list[dict[str, Any]] = json.loads((SHOP / "functions.json").read_text())
INCIDENTS: list[dict[str, Any]] = json.loads((SHOP / "incidents.json").read_text())
BUS = "agentops-test"
ROUTES = {
    "issue.reported": "manager",
    "issue.found": "engineer",
    "patch.rejected": "engineer",
    "patch.ready": "qa",
}
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "ENVIRONMENT": "test",
    "EVENT_BUS_NAME": BUS,
    # As deployed: the support desk's queue and the sandbox are no agents.
    "AGENTOPS_PROPAGATE": "eventbridge",
    "EVIDENCE_BUCKET": "evidence",
    "SOURCE_BUCKET": "source",
    "SOURCE_KEY": "shop.zip",
    "SANDBOX_FUNCTION_NAME": "sandbox",
    "WATCHED_FUNCTIONS": ",".join(each["name"] for each in FUNCTIONS),
}


@dataclass
class World:
    """What the agents see, and what they did."""

    events: list[dict[str, Any]] = field(default_factory=list)
    """Every event that the monitor wrote."""
    delivered: list[dict[str, Any]] = field(default_factory=list)
    """Every message that the bus delivered."""
    queue_url: str = ""
    requests: int = 0

    def of(self, *types: str) -> list[dict[str, Any]]:
        """Return the events of some types."""
        return [event for event in self.events if event["type"] in types]

    def invoke(self, agent: str, event: Mapping[str, Any], request_id: str | None = None) -> Any:
        """Invoke an agent as Lambda does."""
        self.requests += 1
        context = SimpleNamespace(
            aws_request_id=request_id or f"00000000-0000-4000-8000-{self.requests:012d}"
        )
        handler: Callable[..., Any] = monitored(importlib.import_module(f"agents.{agent}").handler)
        return handler(event, context)

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that are on the bus now."""
        client = boto3.client("sqs")
        found: list[dict[str, Any]] = []
        while batch := client.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in batch:
                found.append(json.loads(message["Body"]))
                client.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
        self.delivered += found
        return found

    def settle(self) -> None:
        """Deliver messages until none is left."""
        while waiting := self.receive():
            for message in waiting:
                self.invoke(ROUTES[message["detail-type"]], message)

    def fail(self, function: str) -> None:
        """Let a function of the shop fail in earnest: its log and its metrics say so."""
        incident = next(each for each in INCIDENTS if each["function"] == function)
        folder = function.replace("-", "_")
        record = failure_record(SHOP / folder / "app.py", incident["payload"])
        put_log(f"/aws/lambda/{function}", json.dumps(record))
        boto3.client("cloudwatch").put_metric_data(
            Namespace="AWS/Lambda",
            MetricData=[
                {
                    "MetricName": name,
                    "Dimensions": [{"Name": "FunctionName", "Value": function}],
                    "Value": 1,
                    "Unit": "Count",
                }
                for name in ("Invocations", "Errors")
            ],
        )

    def report(self, function: str, summary: str = "It does not work") -> None:
        """Deliver `issue.reported` as from a support desk, which no monitor watches."""
        event = {
            "id": str(uuid.uuid4()),
            "source": "support.desk",
            "detail-type": "issue.reported",
            "detail": {"environment": "test", "function": function, "summary": summary},
        }
        boto3.client("sqs").send_message(QueueUrl=self.queue_url, MessageBody=json.dumps(event))


def failure_record(path: Path, payload: Any) -> dict[str, Any]:
    """Return what Python's runtime logs, in JSON, when the handler raises on `payload`."""
    import traceback

    scope: dict[str, Any] = {"__name__": "app"}
    exec(compile(path.read_text(), f"/var/task/{path.name}", "exec"), scope)
    try:
        scope["handler"](payload, None)
    except Exception as error:  # noqa: BLE001
        frames = traceback.extract_tb(error.__traceback__)[1:]
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        kind = type(error).__name__
        return {"timestamp": stamp, "level": "ERROR", "errorMessage": str(error), "errorType": kind,
                "requestId": "6a3fbd10-1b4e-4e54-8c5b-0f1d7a1f6a11",
                "stackTrace": traceback.format_list(frames)}  # fmt: skip
    raise AssertionError(f"{path} did not raise")


def put_log(group: str, message: str) -> None:
    """Write one event to a log group, which is made where it is missing."""
    client = boto3.client("logs")
    with suppress(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_group(logGroupName=group)
    with suppress(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_stream(logGroupName=group, logStreamName="one")
    now = int(time.time() * 1000)
    client.put_log_events(
        logGroupName=group, logStreamName="one", logEvents=[{"timestamp": now, "message": message}]
    )


def alarm_event(function: str, state: str = "ALARM", identifier: str = "alarm-1") -> dict[str, Any]:
    """Return what EventBridge delivers when a watched function's alarm changes."""
    metric = {"namespace": "AWS/Lambda", "name": "Errors", "dimensions": {"FunctionName": function}}
    return {
        "id": identifier,
        "source": "aws.cloudwatch",
        "detail-type": "CloudWatch Alarm State Change",
        "detail": {
            "alarmName": f"AgentOps-test-Watch-{function}",
            "state": {
                "value": state,
                "reason": "Threshold Crossed",
                "timestamp": "2026-11-22T08:00:00.000+0000",
            },
            "configuration": {"metrics": [{"id": "m1", "metricStat": {"metric": metric, "period": 60}}]},
        },
    }


def shop_zip(folder: Path = SHOP) -> bytes:
    """Return the shop as CDK's asset has it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(folder).as_posix())
    return buffer.getvalue()


class _Lines:
    """Takes the monitor's lines instead of stdout."""

    def __init__(self, world: World) -> None:
        self._world = world

    def write(self, lines: Any) -> None:
        self._world.events += [json.loads(line)["agentops.event"] for line in lines]


class SandboxInProcess:
    """Lambda's client, as far as QA uses it."""

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:
        assert FunctionName == "sandbox"
        answer = sandbox.handler(json.loads(Payload), None)
        return {"Payload": io.BytesIO(json.dumps(answer).encode())}


@pytest.fixture(scope="session")
def model_factory() -> Iterator[Callable[..., ModelServer]]:
    """Start model servers on loopback; all end with the session."""
    servers = []

    def start(answer: Callable[..., Any] | None = None, record: Path | None = None) -> ModelServer:
        server = ModelServer(0, answer or scripted(Script(7)), record=record)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def model_log(tmp_path: Path) -> Path:
    """Where the model server records its calls."""
    return tmp_path / "model.jsonl"


@pytest.fixture
def world(
    monkeypatch: pytest.MonkeyPatch, model_factory: Callable[..., ModelServer], model_log: Path
) -> Iterator[World]:
    """The agents' world with the scripted model of seed 7."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", model_factory(record=model_log).url)
    monkeypatch.setattr(clients, "functions", SandboxInProcess)
    monkeypatch.setattr("agents.manager._SECONDS_BETWEEN_LOOKS", 0.0)
    # moto wants a JSONPath library even where a target has no input transformer.
    monkeypatch.setattr(EventTemplateParser, "parse", lambda event, **_: event)
    found = World()
    forget()
    with mock_aws():
        s3, sqs, events = boto3.client("s3"), boto3.client("sqs"), boto3.client("events")
        for bucket in ("evidence", "source"):
            s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket="source", Key="shop.zip", Body=shop_zip())
        events.create_event_bus(Name=BUS)
        found.queue_url = sqs.create_queue(QueueName="bus")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=found.queue_url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        pattern = json.dumps({"detail": {"environment": ["test"]}})
        events.put_rule(Name="all", EventBusName=BUS, EventPattern=pattern)
        events.put_targets(Rule="all", EventBusName=BUS, Targets=[{"Id": "queue", "Arn": arn}])
        before = transport.replace(_Lines(found))
        yield found
        transport.replace(before)
    forget()


def forget() -> None:
    """Drop clients and sources of another world."""
    for make in (clients.s3, clients.logs, clients.cloudwatch, clients.bedrock, clients.events):
        make.cache_clear()
    source._unzip.cache_clear()
