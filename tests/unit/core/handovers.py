"""Messages of one invocation that another receives, as the tests of all channels make and read them."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import boto3

from agentops_monitoring import AgentOpsMonitor, instrument, monitored

BODY = '{"issue":  7}'


def context(number: int = 1) -> Any:
    return SimpleNamespace(aws_request_id=f"00000000-0000-4000-8000-{number:012d}")


def in_invocation(call: Any, number: int = 1) -> Any:
    """Make a call in an invocation of its own."""
    return monitored(lambda event, context: call())({}, context(number))


def receive(event: Any, number: int = 2, client_context: Any = None) -> None:
    """Hand an event to an agent."""
    given = context(number)
    given.client_context = client_context
    monitored(lambda event, context: AgentOpsMonitor().record_event("test_passed"))(event, given)


def of(events: list[dict[str, Any]], *types: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] in types]


def check_one_trace(events: list[dict[str, Any]], channel: str, messages: int = 1) -> None:
    """Every event is of one trace, and each message that was sent has arrived one hop further."""
    sent, received = of(events, "message_sent"), of(events, "message_received")
    assert len(sent) == len(received) == messages
    assert len({event["trace_id"] for event in events}) == 1
    assert len({event["workflow_id"] for event in events}) == 1
    assert [each["data"]["message_id"] for each in sent] == [each["data"]["message_id"] for each in received]
    assert {each["data"]["hop"] for each in sent + received} == {1}
    assert {each["data"]["channel"] for each in sent + received} == {channel}
    assert all(each["data"]["from"] == "engineer" for each in received)
    assert all(0 <= each["data"]["latency_ms"] < 60_000 for each in received)
    first, second = of(events, "invocation_started")
    assert sent[0]["parent_id"] == first["span_id"]
    assert second["parent_id"] == sent[0]["span_id"]
    assert not any("problems" in event for event in events)


@cache
def hooked() -> Any:
    """The session of all clients here: reading the services' descriptions is what takes long."""
    assert instrument.active()
    return boto3.session.Session()


def client(service: str) -> Any:
    return hooked().client(service)


def attribute(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}
