"""Agents that hand cases on at random, through every service, which deliver late, in batches and twice.

The oracle is what the services took: each message says in its own payload which case it is of and how far
that has come, and the monitor never reads it.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from threading import Thread
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from agentops_monitoring import AgentOpsMonitor, instrument, monitored
from tests.fakes.server import QuietServer

from .deliveries import eventbridge_event, sqs_event

AGENTS = ("manager", "engineer", "qa")
BUS = "agentops-demo"
MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:triage"
FARTHEST = 4


@dataclass
class Services:
    """EventBridge, SQS, Lambda and Step Functions, as far as they take messages, by their contracts."""

    dice: random.Random
    url: str = ""
    taken: list[dict[str, Any]] = field(default_factory=list)
    """The payload of each message that was taken, and the channel."""
    waiting: list[tuple[str, Any, list[dict[str, Any]]]] = field(default_factory=list)
    """To which agent, which event, and the payloads in it."""
    queued: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    refused: int = 0

    def answer(self, target: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Take a call, or refuse it now and then."""
        if self.dice.random() < 0.1:
            self.refused += 1
            return 400, {"__type": "InvalidParameterValue", "message": "refused"}
        request = json.loads(body)
        if target == "AWSEvents.PutEvents":
            return 200, {"FailedEntryCount": 0, "Entries": [self._put(each) for each in request["Entries"]]}
        if target == "AmazonSQS.SendMessage":
            attributes = request.get("MessageAttributes", {})
            assert len(attributes) <= 10
            assert all(set(each) == {"DataType", "StringValue"} for each in attributes.values())
            payload = json.loads(request["MessageBody"])
            self._take("sqs", payload)
            message = {"MessageId": "1", "Body": request["MessageBody"], "MessageAttributes": attributes}
            self.queued[payload["to"]].append((message, payload))
            return 200, {"MessageId": "1", "MD5OfMessageBody": "0"}
        if target == "AWSStepFunctions.StartExecution":
            assert request["stateMachineArn"] == MACHINE
            event = json.loads(request["input"])
            self._deliver("stepfunctions", event, event)
            return 200, {"executionArn": f"{MACHINE}:1", "startDate": 1}
        assert path.startswith("/2015-03-31/functions/")
        self._deliver("lambda", request, request)
        return 202, {}

    def _put(self, entry: dict[str, Any]) -> dict[str, str]:
        if self.dice.random() < 0.1:
            self.refused += 1
            return {"ErrorCode": "ThrottlingException"}
        assert entry["EventBusName"] == BUS
        self._deliver("eventbridge", eventbridge_event(entry), json.loads(entry["Detail"]))
        return {"EventId": "1"}

    def _take(self, channel: str, payload: dict[str, Any]) -> None:
        self.taken.append({**payload, "channel": channel})

    def _deliver(self, channel: str, event: Any, payload: dict[str, Any]) -> None:
        self._take(channel, payload)
        for _ in range(1 + (self.dice.random() < 0.2)):
            self.waiting.append((payload["to"], event, [payload]))

    def next(self) -> tuple[str, Any, list[dict[str, Any]]] | None:
        """Return a delivery: any of those that wait, or a batch of what waits in a queue."""
        for agent, messages in self.queued.items():
            if messages and self.dice.random() < 0.5:
                batch, self.queued[agent] = messages[:10], messages[10:]
                return agent, sqs_event([each for each, _ in batch]), [payload for _, payload in batch]
        if self.waiting:
            return self.waiting.pop(self.dice.randrange(len(self.waiting)))
        return None if not any(self.queued.values()) else self.next()


@contextmanager
def serving(services: Services) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, found = services.answer(self.headers.get("X-Amz-Target", ""), self.path, body)
            raw = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = QuietServer(("127.0.0.1", 0), Handler)
    services.url = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class Team:
    """Agents that know the services and what they do, and nothing of a trace."""

    def __init__(self, dice: random.Random, session: Any) -> None:
        self.dice = dice
        self.clients = {name: session.client(name) for name in ("events", "sqs", "lambda", "stepfunctions")}

    def hand_on(self, case: int, step: int) -> None:
        """Send a case to nobody, to one colleague or to two."""
        if step >= FARTHEST:
            return
        for _ in range(self.dice.choice((0, 1, 1, 2)) if step else 2):
            payload = {"case": case, "step": step + 1, "to": self.dice.choice(AGENTS)}
            with suppress(ClientError):  # refused: the agent goes on
                self._send(json.dumps(payload))

    def _send(self, text: str) -> None:
        channel = self.dice.choice(sorted(self.clients))
        client = self.clients[channel]
        if channel == "events":
            entry = {"EventBusName": BUS, "Source": "team", "DetailType": "case", "Detail": text}
            client.put_events(Entries=[entry])
        elif channel == "sqs":
            client.send_message(QueueUrl="https://sqs.us-east-1.amazonaws.com/1/q", MessageBody=text)
        elif channel == "lambda":
            client.invoke(FunctionName="any", InvocationType="Event", Payload=text)
        else:
            client.start_execution(stateMachineArn=MACHINE, input=text)

    def handle(self, event: Any, context: Any) -> None:
        """Work on whatever comes, as the agents' own code has it in its payload."""
        monitor = AgentOpsMonitor()
        if isinstance(event, dict) and "Records" in event:
            for record in event["Records"]:
                with monitor.message(record):
                    self._work(monitor, json.loads(record["body"]))
        else:
            self._work(monitor, event.get("detail", event))

    def _work(self, monitor: AgentOpsMonitor, payload: dict[str, Any]) -> None:
        monitor.record_event("test_passed", {"case": payload["case"], "step": payload["step"]})
        self.hand_on(payload["case"], payload["step"])


def test_one_case_is_one_trace_whatever_way_it_takes(
    in_lambda: None, recorded: Any, monkeypatch: pytest.MonkeyPatch, full_size: bool
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    services = Services(dice)
    with serving(services):
        for name, value in {
            "AWS_ENDPOINT_URL": services.url,
            "AWS_MAX_ATTEMPTS": "1",
            "EVENT_BUS_NAME": BUS,
        }.items():
            monkeypatch.setenv(name, value)
        instrument.install()
        team = Team(dice, boto3.session.Session())
        deliveries: Counter[tuple[int, int, str]] = Counter()
        cases = 200 if full_size else 10
        for number in range(cases):
            invoke(team, "manager", {"case": number, "step": 0}, number, monkeypatch)
        requests = cases
        while (delivery := services.next()) is not None:
            agent, event, payloads = delivery
            deliveries.update((each["case"], each["step"], agent) for each in payloads)
            invoke(team, agent, event, requests, monkeypatch)
            requests += 1
    check(recorded(), services, deliveries, cases)


def invoke(team: Team, agent: str, event: Any, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invoke an agent as its function's process would."""
    monkeypatch.setenv("AGENTOPS_AGENT_NAME", agent)
    monitored(team.handle)(event, SimpleNamespace(aws_request_id=f"request-{number}"))


def check(
    events: list[dict[str, Any]], services: Services, deliveries: Counter[tuple[int, int, str]], cases: int
) -> None:
    sent = [event for event in events if event["type"] == "message_sent"]
    received = [event for event in events if event["type"] == "message_received"]
    worked = [event for event in events if event["type"] == "test_passed"]
    assert services.refused
    # What a case did is in its trace, and nothing else is.
    traces: dict[int, set[str]] = defaultdict(set)
    for event in worked:
        traces[event["data"]["case"]].add(event["trace_id"])
    assert len(traces) == cases
    assert all(len(found) == 1 for found in traces.values())
    case_of = {found.pop(): case for case, found in traces.items()}
    assert len(case_of) == cases
    # What the services took is what was recorded as sent: of which case, how far, to whom, by which way.
    told = Counter((case_of[e["trace_id"]], e["data"]["hop"], e["data"]["channel"]) for e in sent)
    assert told == Counter((each["case"], each["step"], each["channel"]) for each in services.taken)
    assert len({event["data"]["message_id"] for event in sent}) == len(sent)
    # Each delivery has its receipt, below the span of its message.
    told_of = Counter((case_of[e["trace_id"]], e["data"]["hop"], e["data"]["to"]) for e in received)
    assert told_of == deliveries
    spans = {event["data"]["message_id"]: event["span_id"] for event in sent}
    starts = {
        event["span_id"]: event["parent_id"] for event in events if event["type"] == "invocation_started"
    }
    for event in received:
        message = spans[event["data"]["message_id"]]
        assert event["parent_id"] == message or starts[event["parent_id"]] in spans.values()
    # A message of a service that delivers twice is known the second time.
    seen: set[tuple[str, str]] = set()
    for event in received:
        key = (event["data"]["to"], event["data"]["message_id"])
        again = key in seen and event["data"]["channel"] != "stepfunctions"
        assert event["data"].get("redelivered", False) is again
        seen.add(key)
