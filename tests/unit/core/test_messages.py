from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from agentops_monitoring import AgentOpsMonitor, instrument, monitored
from agentops_monitoring.instrument.messages import (
    MAX_REQUEST_BYTES,
    RAISED_REQUEST_BYTES,
    MessageNotSentError,
)

from .aws_server import Aws

TAKEN = {"FailedEntryCount": 0, "Entries": [{"EventId": "e-1"}]}
BUS = "agentops-demo"


@pytest.fixture
def events(aws: Aws, in_lambda: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("EVENT_BUS_NAME", BUS)
    instrument.install()
    return boto3.session.Session().client("events")


def entry(detail: Any, **fields: Any) -> dict[str, Any]:
    text = detail if isinstance(detail, str) else json.dumps(detail)
    return {"EventBusName": BUS, "Source": "mine", "DetailType": "issue.found", "Detail": text, **fields}


def sent_entries(aws: Aws) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = aws.requests[-1][1]["Entries"]
    return entries


def test_a_message_carries_its_context_to_the_receiver(aws: Aws, events: Any, recorded: Any) -> None:
    aws.answer(TAKEN)
    original = [entry({"issue": 7, "ratio": 0.10})]
    kept = copy.deepcopy(original)

    @monitored
    def sender(event: Any, context: Any) -> None:
        events.put_events(Entries=original)

    sender({}, SimpleNamespace(aws_request_id="request-1"))
    assert original == kept
    (put,) = sent_entries(aws)
    assert put["Detail"].startswith('{"issue": 7, "ratio": 0.1')
    detail = json.loads(put["Detail"])
    assert detail["environment"] == "demo"

    started, sent, _ = recorded()
    carried = detail["agentops"]
    assert carried["traceparent"] == f"00-{started['trace_id']}-{sent['span_id']}-01"
    assert carried["workflow_id"] == started["workflow_id"]
    assert carried["from"] == "engineer"
    assert "to" not in carried
    assert carried["hop"] == 1
    assert carried["message_id"] == sent["data"]["message_id"]
    assert carried["workflow_started_ms"] <= carried["sent_ms"]
    assert sent["parent_id"] == started["span_id"]
    assert sent["data"] == {
        "from": "engineer",
        "to": None,
        "message_type": "issue.found",
        "message_id": carried["message_id"],
        "hop": 1,
        "channel": "eventbridge",
        "destination": BUS,
    }

    received = {"source": "mine", "detail-type": "issue.found", "detail": detail}
    monitored(lambda event, context: None)(received, SimpleNamespace(aws_request_id="request-2"))
    assert {event["trace_id"] for event in recorded()} == {started["trace_id"]}
    assert recorded()[3]["parent_id"] == sent["span_id"]
    assert recorded()[4]["data"]["message_id"] == sent["data"]["message_id"]


def test_send_message(aws: Aws, events: Any, recorded: Any) -> None:
    aws.answer(TAKEN)
    monitor = AgentOpsMonitor("manager")
    message_id = monitor.send_message(
        to="engineer", message_type="issue.found", payload={"token": "t", "n": ...}
    )
    (put,) = sent_entries(aws)
    assert (put["EventBusName"], put["Source"], put["DetailType"]) == (BUS, "agentops.agents", "issue.found")
    detail = json.loads(put["Detail"])
    # A message is the agents' own business: nothing in it is redacted.
    assert (detail["token"], detail["n"]) == ("t", "...")
    assert detail["agentops"]["to"] == "engineer"
    (sent,) = recorded()
    assert sent["agent"] == "manager"
    assert sent["data"]["from"] == "manager"
    assert sent["data"]["to"] == "engineer"
    assert sent["data"]["message_id"] == message_id == detail["agentops"]["message_id"]


def test_send_message_needs_no_hooks_and_counts_once_with_them(aws: Aws, events: Any, recorded: Any) -> None:
    instrument.uninstall()
    for _ in range(2):
        aws.answer(TAKEN)
        AgentOpsMonitor("manager").send_message(to="qa", message_type="patch.ready", payload="text")
        instrument.install()
    assert json.loads(sent_entries(aws)[0]["Detail"])["payload"] == "text"
    assert [event["type"] for event in recorded()] == ["message_sent"] * 2


def test_send_message_carries_its_context_even_where_plain_events_are_left_alone(
    aws: Aws, events: Any, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_PROPAGATE", "none")
    aws.answer(TAKEN)
    events.put_events(Entries=[entry({"to": "qa"})])
    assert json.loads(sent_entries(aws)[0]["Detail"]) == {"to": "qa"}
    assert recorded() == []
    aws.answer(TAKEN)
    AgentOpsMonitor("manager").send_message(to="qa", message_type="patch.ready", payload={})
    assert json.loads(sent_entries(aws)[0]["Detail"])["agentops"]["to"] == "qa"
    assert len(recorded()) == 1


@pytest.mark.parametrize(("to", "named"), [("qa", "qa"), ("", None), (7, None), (None, None)])
def test_a_plain_event_may_name_its_receiver(
    aws: Aws, events: Any, recorded: Any, to: Any, named: str | None
) -> None:
    aws.answer(TAKEN)
    events.put_events(Entries=[entry({"to": to, "environment": "demo", "ratio": 0.10})])
    text = sent_entries(aws)[0]["Detail"]
    assert text.startswith('{"to": '), "what the agent wrote stays as it is"
    assert json.loads(text)["to"] == to
    (sent,) = recorded()
    assert sent["data"]["to"] == named
    received = {"source": "mine", "detail-type": "t", "detail": json.loads(text)}
    monitored(lambda event, context: None)(received, None)
    assert recorded()[2]["data"]["addressed_to"] == named


def test_a_message_that_is_refused_is_told_and_not_recorded(aws: Aws, events: Any, recorded: Any) -> None:
    aws.answer(
        {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure", "ErrorMessage": "sorry"}]}
    )
    with pytest.raises(MessageNotSentError, match="InternalFailure"):
        AgentOpsMonitor().send_message(to="qa", message_type="patch.ready", payload={})
    aws.answer({"__type": "AccessDeniedException"}, status=400)
    with pytest.raises(ClientError):
        AgentOpsMonitor().send_message(to="qa", message_type="patch.ready", payload={})
    with pytest.raises(MessageNotSentError, match="too many"):
        AgentOpsMonitor().send_message(
            to="qa", message_type="patch.ready", payload="x" * RAISED_REQUEST_BYTES
        )
    with pytest.raises(ValueError, match="message_type"):
        AgentOpsMonitor().send_message(to="qa", message_type="", payload={})
    assert recorded() == []


def test_each_entry_succeeds_or_fails_alone(aws: Aws, events: Any, recorded: Any) -> None:
    aws.answer(
        {
            "FailedEntryCount": 1,
            "Entries": [{"EventId": "1"}, {"ErrorCode": "ThrottlingException"}, {"EventId": "3"}],
        }
    )
    events.put_events(Entries=[entry({}, DetailType=name) for name in ("first", "second", "third")])
    assert [event["data"]["message_type"] for event in recorded()] == ["first", "third"]
    carried = [json.loads(put["Detail"])["agentops"] for put in sent_entries(aws)]
    assert len({each["message_id"] for each in carried}) == 3


@pytest.mark.parametrize("detail", ["[1]", "7", '"text"', "no json", ""])
def test_what_is_no_object_is_left_alone(detail: str, aws: Aws, events: Any, recorded: Any) -> None:
    aws.answer(TAKEN)
    events.put_events(Entries=[entry(detail)])
    assert sent_entries(aws)[0]["Detail"] == detail
    assert recorded() == []


@pytest.mark.parametrize("fields", [{"EventBusName": "other"}, {"EventBusName": "default"}])
def test_other_buses_are_left_alone(fields: dict[str, str], aws: Aws, events: Any, recorded: Any) -> None:
    aws.answer(TAKEN)
    events.put_events(Entries=[entry({"a": 1}, **fields)])
    assert sent_entries(aws)[0]["Detail"] == '{"a": 1}'
    assert recorded() == []


def test_a_bus_may_be_named_by_its_arn(aws: Aws, events: Any, recorded: Any) -> None:
    aws.answer(TAKEN)
    events.put_events(
        Entries=[entry({}, EventBusName=f"arn:aws:events:us-east-1:123456789012:event-bus/{BUS}")]
    )
    assert len(recorded()) == 1


def test_a_context_that_is_passed_on_is_replaced(aws: Aws, events: Any, recorded: Any) -> None:
    aws.answer(TAKEN)
    events.put_events(Entries=[entry({"a": 1, "agentops": {"message_id": "stale"}})])
    detail = json.loads(sent_entries(aws)[0]["Detail"])
    assert detail["a"] == 1
    assert detail["environment"] == "demo"
    (sent,) = recorded()
    assert detail["agentops"]["message_id"] == sent["data"]["message_id"] != "stale"
    assert "problems" not in sent


def test_an_environment_of_the_agents_own_stays_but_in_a_message_that_we_send(
    aws: Aws, events: Any, recorded: Any
) -> None:
    for own in ("staging", {"cpu": "arm64"}, None):
        aws.answer(TAKEN)
        events.put_events(Entries=[entry({"environment": own})])
        assert json.loads(sent_entries(aws)[0]["Detail"])["environment"] == own
        aws.answer(TAKEN)
        AgentOpsMonitor().send_message(to="qa", message_type="m", payload={"environment": own})
        assert json.loads(sent_entries(aws)[0]["Detail"])["environment"] == "demo"
    assert all("environment" in sent["problems"][0] for sent in recorded())


def test_a_message_at_eventbridges_limit_goes_without_context(aws: Aws, events: Any, recorded: Any) -> None:
    aws.answer({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}, {"EventId": "2"}]})
    small = entry({})
    room = MAX_REQUEST_BYTES - sum(len(small[name]) for name in ("Source", "DetailType")) * 2 - 600
    large = entry({"text": "x" * room})
    events.put_events(Entries=[large, small])
    first, second = sent_entries(aws)
    assert sum(len(put[name]) for put in (first, second) for name in ("Source", "DetailType", "Detail")) <= (
        MAX_REQUEST_BYTES
    )
    assert "agentops" in json.loads(first["Detail"])
    assert second["Detail"] == "{}", "the room for one context is no room for two"
    aws.answer(TAKEN)
    events.put_events(Entries=[entry({"text": "x" * (MAX_REQUEST_BYTES - 100)})])
    assert set(json.loads(sent_entries(aws)[0]["Detail"])) == {"text"}
    assert "too large" in recorded()[-1]["problems"][0]


@pytest.mark.parametrize("by_hand", [True, False])
def test_what_only_the_raised_limit_takes_keeps_its_context(
    by_hand: bool, aws: Aws, events: Any, recorded: Any
) -> None:
    aws.answer(TAKEN)
    if by_hand:
        events.put_events(Entries=[entry({"text": "x" * MAX_REQUEST_BYTES})])
    else:
        text = "x" * (MAX_REQUEST_BYTES - 100)
        AgentOpsMonitor().send_message(to="qa", message_type="patch.ready", payload={"text": text})
    assert "agentops" in json.loads(sent_entries(aws)[0]["Detail"])
    (sent,) = recorded()
    assert "problems" not in sent


def test_a_context_that_even_the_raised_limit_does_not_take_stays_away(
    aws: Aws, events: Any, recorded: Any
) -> None:
    aws.answer(TAKEN)
    events.put_events(Entries=[entry({"text": "x" * (RAISED_REQUEST_BYTES - 100)})])
    assert set(json.loads(sent_entries(aws)[0]["Detail"])) == {"text"}


def test_a_name_that_strict_mode_refuses_is_no_error_of_the_agents_calls(
    aws: Aws, events: Any, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_STRICT", "1")
    monkeypatch.setenv("AGENTOPS_AGENT_NAME", "the\nengineer")
    with pytest.raises(ValueError, match="agent_name"):
        AgentOpsMonitor()
    aws.answer(TAKEN)
    events.put_events(Entries=[entry({})])
    aws.answer({"usage": {"inputTokens": 1, "outputTokens": 2}})
    boto3.session.Session().client("bedrock-runtime").converse(modelId="m", messages=[])
    assert [event["agent"] for event in recorded()] == ["the_engineer"] * 2


def test_wrong_entries_are_botocores_business(aws: Aws, events: Any, recorded: Any) -> None:
    from botocore.exceptions import ParamValidationError

    for wrong in (None, 7, [7], [{"Detail": 7, "EventBusName": BUS}], [{"EventBusName": 7}]):
        with pytest.raises(ParamValidationError):
            events.put_events(Entries=wrong)
    assert recorded() == []


def test_an_entry_that_cannot_be_parsed_does_not_keep_the_others_from_their_context(
    aws: Aws, events: Any, recorded: Any
) -> None:
    aws.answer({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}, {"EventId": "2"}]})
    deep = '{"a":' + "[" * 50_000 + "]" * 50_000 + "}"
    events.put_events(Entries=[entry(deep), entry({})])
    first, second = sent_entries(aws)
    assert first["Detail"] == deep
    assert "agentops" in json.loads(second["Detail"])
    assert len(recorded()) == 1


def test_retries_of_the_client_are_one_message(
    aws: Aws, events: Any, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    aws.answer({"__type": "InternalFailure"}, status=500)
    aws.answer(TAKEN)
    client: Any = boto3.session.Session().client("events")
    client.put_events(Entries=[entry({})])
    sent = [json.loads(put["Entries"][0]["Detail"])["agentops"] for _, put in aws.requests]
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert [event["data"]["message_id"] for event in recorded()] == [sent[0]["message_id"]]


def test_a_redelivered_message_and_a_retried_invocation_keep_their_workflow(
    aws: Aws, events: Any, recorded: Any
) -> None:
    failing = [True, False]

    @monitored
    def handler(event: Any, context: Any) -> None:
        if failing.pop(0):
            raise ConnectionError

    aws.answer(TAKEN)
    AgentOpsMonitor("manager").send_message(to="engineer", message_type="issue.found", payload={})
    (put,) = sent_entries(aws)
    event = {"source": put["Source"], "detail-type": "issue.found", "detail": json.loads(put["Detail"])}
    with pytest.raises(ConnectionError):
        handler(event, SimpleNamespace(aws_request_id="request-1"))
    handler(event, SimpleNamespace(aws_request_id="request-1"))
    sent, *received = recorded()
    assert {each["workflow_id"] for each in received} == {sent["workflow_id"]}
    assert {each["data"]["hop"] for each in received if each["type"] == "message_received"} == {1}
    # Two attempts are two spans of one trace, below the same message.
    spans = {each["span_id"] for each in received if each["type"] == "invocation_started"}
    assert len(spans) == 2
    assert {each["parent_id"] for each in received if each["type"] == "invocation_started"} == {
        sent["span_id"]
    }


def test_hops_are_counted_from_agent_to_agent(aws: Aws, events: Any, recorded: Any) -> None:
    event: Any = {}
    for number in range(1, 5):
        aws.answer(TAKEN)
        monitored(
            lambda event, context: AgentOpsMonitor().send_message(to="qa", message_type="m", payload={})
        )(event, SimpleNamespace(aws_request_id=f"request-{number}"))
        (put,) = sent_entries(aws)
        event = {"source": put["Source"], "detail-type": "m", "detail": json.loads(put["Detail"])}
        assert event["detail"]["agentops"]["hop"] == number
    assert len({each["workflow_id"] for each in recorded()}) == 1
    details = [json.loads(put["Entries"][0]["Detail"]) for _, put in aws.requests]
    assert len({each["agentops"]["workflow_started_ms"] for each in details}) == 1
