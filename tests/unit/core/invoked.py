"""What tests of the wrapper hand to handlers, and read of what these recorded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from agentops_monitoring import AgentOpsMonitor

REQUEST = "8f7b1a52-1c2d-4e3f-8a9b-000000000001"
CONTEXT = SimpleNamespace(aws_request_id=REQUEST)


def message(**carried: Any) -> dict[str, Any]:
    return {
        "source": "agentops.agents",
        "detail-type": "issue.found",
        "detail": {
            "environment": "demo",
            "agentops": {
                "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
                "workflow_id": "a" * 32,
                "from": "manager",
                "to": "engineer",
                "hop": 2,
                "sent_ms": 1_000,
                "message_id": "m1",
                "workflow_started_ms": 500,
                **carried,
            },
            "issue": 7,
        },
    }


def inside(events: list[dict[str, Any]]) -> list[str]:
    """The events recorded in invocations, which all belong to the one of REQUEST."""
    assert {event["request_id"] for event in events} == {REQUEST}
    assert len({event["trace_id"] for event in events}) == 1
    return [event["type"] for event in events]


ONE = ["invocation_started", "test_passed", "invocation_completed"]


def work(event: Any) -> Any:
    AgentOpsMonitor().record_event("test_passed")
    return event


class Hostile:
    """An object that raises at every touch, as a proxy without its request does."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)
