"""The context of a message, however it arrives and whatever stands where it should be."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring import AgentOpsMonitor, monitored
from agentops_monitoring.propagation import carried, message_of, received
from agentops_monitoring.testing import capture_events
from agentops_monitoring.trace import TraceContext

from .deliveries import sns_event, sqs_event, sqs_record

THOROUGH = settings(
    deadline=None, max_examples=1_000 if os.environ.get("AGENTOPS_TEST_SIZE") == "full" else 25
)
HEX = "0123456789abcdef"
NAMES = st.text(min_size=1, max_size=256)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
CONTEXTS = st.builds(
    TraceContext,
    NAMES,
    trace_id=st.text(HEX, min_size=32, max_size=32).filter(lambda text: text != "0" * 32),
    hop=st.integers(0, 1_000),
    workflow_started_ms=st.none() | st.integers(1, 2**45),
    user_id=st.none() | NAMES,
    session_id=st.none() | NAMES,
)


def echo(event: Any, context: Any) -> Any:
    return event


def as_attribute(fields: dict[str, Any]) -> dict[str, Any]:
    return {"agentops": {"DataType": "String", "StringValue": json.dumps(fields)}}


def notification(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = sns_event("x", as_attribute(fields))["Records"][0]["Sns"]
    return found


WAYS: dict[str, Any] = {
    "eventbridge": lambda fields: ({"detail-type": "t", "detail": {"agentops": fields}}, None),
    "sqs": lambda fields: (
        sqs_event([{"MessageId": "1", "Body": "x", "MessageAttributes": as_attribute(fields)}]), None,
    ),
    "sns": lambda fields: (sns_event("x", as_attribute(fields)), None),
    "sns in sqs": lambda fields: (
        sqs_event([{"MessageId": "1", "Body": json.dumps(notification(fields))}]), None,
    ),
    "payload": lambda fields: ({"issue": 7, "agentops": fields}, None),
    "client": lambda fields: (
        {"issue": 7},
        SimpleNamespace(client_context=SimpleNamespace(custom={"agentops": json.dumps(fields)})),
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@THOROUGH
@given(
    context=CONTEXTS,
    span_id=st.text(HEX, min_size=16, max_size=16).filter(lambda text: text != "0" * 16),
    sent_ms=st.integers(1, 2**45),
    to=st.none() | NAMES,
    kind=st.none() | NAMES,
)
def test_what_is_carried_arrives(
    way: str, context: TraceContext, span_id: str, sent_ms: int, to: str | None, kind: str | None
) -> None:
    fields = carried(
        context, span_id=span_id, sender="manager", to=to, message_id="m1", sent_ms=sent_ms,
        channel="a channel", message_type=kind,
    )  # fmt: skip
    (arrived,) = received(*WAYS[way](json.loads(json.dumps(fields))))
    assert arrived is not None
    assert (arrived.workflow_id, arrived.trace_id) == (context.workflow_id, context.trace_id)
    assert (arrived.user_id, arrived.session_id) == (context.user_id, context.session_id)
    assert (arrived.span_id, arrived.sent_ms, arrived.to) == (span_id, sent_ms, to)
    assert (arrived.hop, arrived.sender, arrived.channel) == (context.hop + 1, "manager", "a channel")
    assert arrived.workflow_started_ms == (context.workflow_started_ms or sent_ms)
    assert arrived.message_type == ("t" if way == "eventbridge" else kind)


@pytest.mark.parametrize("way", WAYS)
@THOROUGH
@given(fields=JSON)
def test_nonsense_in_its_place_is_no_context(way: str, fields: Any) -> None:
    event, context = WAYS[way](fields)
    with capture_events(strict=False) as events:
        assert monitored(echo)(event, context) is event
    assert events.types == ["invocation_started", "invocation_completed"]


@THOROUGH
@given(event=JSON)
def test_any_event_reaches_its_handler(event: Any) -> None:
    with capture_events(strict=False) as events:
        assert monitored(echo)(event, None) is event
        with AgentOpsMonitor().message(event):
            pass
    assert events.types == ["invocation_started", "invocation_completed", "span"]


@THOROUGH
@given(
    fields=st.dictionaries(st.sampled_from(["hop", "from", "to", "sent_ms", "workflow_id", "user_id"]), JSON)
)
def test_fields_that_make_no_sense_are_left_out(fields: dict[str, Any]) -> None:
    given = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", **fields}
    (arrived,) = received({"agentops": given})
    assert arrived is not None
    assert arrived.workflow_id
    assert all(type(each) is int and each >= 0 for each in (arrived.hop, arrived.sent_ms))
    for name in (arrived.sender, arrived.to, arrived.user_id):
        assert name is None or (type(name) is str and 0 < len(name) <= 256)


class Raising(dict[str, Any]):
    """A mapping that raises when it is asked."""

    def get(self, *_: Any) -> Any:
        raise OSError("the database of my fields is down")

    __getitem__ = get


def test_objects_that_raise_are_no_messages() -> None:
    assert message_of(Raising()) is None
    assert message_of({"Sns": Raising()}) is None
    assert received({"Records": [Raising(), sqs_record({"MessageId": "1", "Body": "x"})]}) == []
    with capture_events(strict=False) as events:
        for event in (Raising(), {"detail": Raising(agentops=1)}, {"Records": [Raising()]}):
            assert monitored(echo)(event, None) is event
    assert events.types == ["invocation_started", "invocation_completed"] * 3


def test_records_by_the_thousands_are_read() -> None:
    records = [
        {"messageAttributes": {"agentops": {"stringValue": json.dumps({
            "traceparent": f"00-{'a' * 32}-{number:016x}-01"})}}}
        for number in range(1, 10_001)
    ]  # fmt: skip
    found = received({"Records": records})
    assert [each and each.span_id for each in found] == [f"{number:016x}" for number in range(1, 10_001)]
