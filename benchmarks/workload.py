"""What subscriptions deliver of agents at work: their monitor's own lines and Lambda's reports, by stream."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NamedTuple

FLOWS = {"manager": ("desk", "engineer"), "engineer": ("manager", "qa"), "qa": ("engineer", "manager")}
"""By agent, who sends it messages, and to whom it sends them."""
EVENTS_AN_INVOCATION = 10
_STEP = {
    "thought": "The error rate of checkout rose from 0.2 % to 15 % at 07:58, after version 42 went live.",
    "action": "compare(version=41, version=42)",
    "observation": "Version 42 reads `order.total` before it is set when the cart holds a gift card.",
}


class Delivery(NamedTuple):
    """One invocation of ingest."""

    payload: dict[str, Any]
    events: int
    """Events of agents in it; Lambda's reports are not counted."""

    @property
    def event(self) -> dict[str, Any]:
        """What Lambda hands to the function."""
        packed = gzip.compress(json.dumps(self.payload, separators=(",", ":")).encode(), 6)
        return {"awslogs": {"data": base64.b64encode(packed).decode()}}


def deliveries(streams: int, invocations: int = 200, seed: int = 1) -> list[Delivery]:
    """Return a delivery of each stream, with so many invocations of one agent.

    An invocation receives a message, calls models four times, records a decision with its chain and a domain
    event, sends a message, and ends: ten events, and Lambda's report. Each belongs to a workflow of its own.
    """
    chance = random.Random(seed)
    agents = [*FLOWS] * streams
    return [_delivery(chance, agent, invocations) for agent in agents[:streams]]


def _delivery(chance: random.Random, agent: str, invocations: int) -> Delivery:
    function = f"agentops-{agent}-production"
    stream = f"2026/11/22/{function}[$LATEST]{chance.getrandbits(128):032x}"
    lines: list[str] = []
    with _lambda_function(function, stream):
        from agentops_monitoring import AgentOpsMonitor
        from agentops_monitoring.testing import capture_events

        with capture_events() as captured:
            monitor = AgentOpsMonitor(agent)
            for _ in range(invocations):
                request = f"{chance.getrandbits(128):032x}"
                request = "-".join((request[:8], request[8:12], request[12:16], request[16:20], request[20:]))
                _invoke(monitor, chance, agent, request)
                lines += captured.lines
                captured.lines.clear()
                lines.append(_report(chance, request))
    at = int(datetime.now(UTC).timestamp() * 1000)
    return Delivery(
        {
            "messageType": "DATA_MESSAGE",
            "owner": "123456789012",
            "logGroup": f"/aws/lambda/{function}",
            "logStream": stream,
            "subscriptionFilters": [f"agentops|production|{agent}|arm64"],
            "logEvents": [
                {"id": f"{chance.getrandbits(180):056d}", "timestamp": at, "message": line.rstrip("\n")}
                for line in lines
            ],
        },
        invocations * EVENTS_AN_INVOCATION,
    )


def _invoke(monitor: Any, chance: random.Random, agent: str, request: str) -> None:
    from agentops_monitoring import AgentEventType, monitored

    def handler(_event: object, _context: object) -> None:
        for _ in range(4):
            monitor.track_llm_usage(
                model=chance.choice(("claude-3-opus", "claude-haiku-4-5")),
                input_tokens=chance.randrange(200, 20_000),
                output_tokens=chance.randrange(20, 2_000),
                duration_ms=round(chance.uniform(300, 9_000), 1),
                response_id=f"msg_{chance.getrandbits(96):024x}",
            )
        monitor.record_decision(
            decision_type="remediation",
            reasoning_chain=[_STEP] * 4,
            inputs={"function": "checkout", "error_rate": 0.15},
            outputs={"action": "roll back", "version": 41},
            confidence_score=round(chance.random(), 2),
        )
        monitor.record_event(
            AgentEventType.ISSUE_DETECTED,
            {"issue_type": "high_error_rate", "severity": "high", "error_rate": round(chance.random(), 3)},
        )
        monitor.send_message(to=FLOWS[agent][1], message_type="patch.ready", payload={"diff": "- a\n+ b" * 8})

    monitored(handler, agent_name=agent)(_message(chance, agent), SimpleNamespace(aws_request_id=request))


def _message(chance: random.Random, agent: str) -> dict[str, Any]:
    workflow, span = f"{chance.getrandbits(128):032x}", f"{chance.getrandbits(64):016x}"
    carried = {
        "traceparent": f"00-{workflow}-{span}-01",
        "workflow_id": workflow,
        "from": FLOWS[agent][0],
        "to": agent,
        "hop": 1,
        "sent_ms": int(datetime.now(UTC).timestamp() * 1000) - chance.randrange(20, 900),
        "message_id": span,
        "channel": "eventbridge",
    }
    return {"detail-type": "issue.reported", "source": "desk", "detail": {"agentops": carried}}


def _report(chance: random.Random, request: str) -> str:
    billed = chance.randrange(500, 30_000)
    metrics = {
        "durationMs": billed - 0.5,
        "billedDurationMs": billed,
        "memorySizeMB": 512,
        "maxMemoryUsedMB": 120,
    }
    record = {"requestId": request, "status": "success", "metrics": metrics}
    return json.dumps({"time": "2026-11-22T08:00:00.000Z", "type": "platform.report", "record": record})


@contextmanager
def _lambda_function(name: str, stream: str) -> Iterator[None]:
    """Make this process look like that function's to the monitor."""
    from agentops_monitoring import identity

    before = dict(os.environ)
    os.environ |= {"AWS_LAMBDA_FUNCTION_NAME": name, "AWS_LAMBDA_LOG_STREAM_NAME": stream}
    identity._forget()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        identity._forget()
