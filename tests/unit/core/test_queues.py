"""Messages through SQS, SNS, Lambda and Step Functions: sent by boto3, received as Lambda hands them over."""

from __future__ import annotations

import base64
import copy
import io
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from agentops_monitoring import AgentOpsMonitor, instrument, monitored
from agentops_monitoring.instrument import payloads, queues

from .aws_server import Aws, frame
from .deliveries import eventbridge_event, sns_event, sqs_event, sqs_record

REGION = {"AWS_ACCESS_KEY_ID": "t", "AWS_SECRET_ACCESS_KEY": "t", "AWS_DEFAULT_REGION": "us-east-1"}
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


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch, in_lambda: None, recorded: Any) -> Iterator[None]:
    for name, value in REGION.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        instrument.install()
        yield


@cache
def hooked() -> Any:
    """The session of all clients here: reading the services' descriptions is what takes long."""
    assert instrument.active()
    return boto3.session.Session()


def client(service: str) -> Any:
    return hooked().client(service)


@pytest.fixture
def queue(moto: None) -> SimpleNamespace:
    sqs = client("sqs")
    url = sqs.create_queue(QueueName="patches")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    def drain() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while batch := sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            found += batch
        return found

    return SimpleNamespace(client=sqs, url=url, arn=arn, drain=drain)


def attribute(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


def test_a_message_through_a_queue(queue: Any, recorded: Any) -> None:
    given = {"to": attribute("qa"), "message_type": attribute("patch.ready")}
    kept = copy.deepcopy(given)
    in_invocation(
        lambda: queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY, MessageAttributes=given)
    )
    assert given == kept
    (message,) = queue.drain()
    assert message["Body"] == BODY
    assert {name: message["MessageAttributes"][name] for name in given} == given
    receive(sqs_event([message]))
    events = recorded()
    check_one_trace(events, "sqs")
    (sent,), (received,) = of(events, "message_sent"), of(events, "message_received")
    assert sent["data"]["destination"] == "patches"
    assert sent["data"]["to"] == received["data"]["addressed_to"] == "qa"
    assert sent["data"]["message_type"] == received["data"]["message_type"] == "patch.ready"
    assert received["data"]["to"] == "engineer"


def test_a_batch_of_one_workflow_is_one_invocation_of_it(queue: Any, recorded: Any) -> None:
    entries = [{"Id": str(n), "MessageBody": BODY} for n in range(3)]
    kept = copy.deepcopy(entries)
    in_invocation(lambda: queue.client.send_message_batch(QueueUrl=queue.url, Entries=entries))
    assert entries == kept
    receive(sqs_event(queue.drain()))
    check_one_trace(recorded(), "sqs", messages=3)


def test_a_batch_of_several_workflows_is_received_in_each_of_them(queue: Any, recorded: Any) -> None:
    for number in (1, 2):
        in_invocation(lambda: queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY), number=number)
    queue.client.send_message(QueueUrl=queue.url, MessageBody="of nobody")
    records = [sqs_record(each) for each in queue.drain()]

    @monitored
    def handler(event: Any, context: Any) -> None:
        monitor = AgentOpsMonitor()
        for record in event["Records"]:
            with monitor.message(record):
                monitor.record_event("test_passed", {"body": record["body"]})

    # The third one was sent outside any invocation, but it has a context of its own all the same.
    handler({"Records": records}, context(9))
    events = recorded()
    sent, received = of(events, "message_sent"), of(events, "message_received")
    assert len({event["trace_id"] for event in sent}) == 3
    assert [event["trace_id"] for event in sent] == [event["trace_id"] for event in received]
    assert [event["parent_id"] for event in received] == [event["span_id"] for event in sent]
    own = of(events, "invocation_started")[-1]
    assert own["request_id"] == context(9).aws_request_id
    assert own["trace_id"] not in {event["trace_id"] for event in sent}
    done, spans = of(events, "test_passed"), of(events, "span")
    assert [event["workflow_id"] for event in done] == [event["workflow_id"] for event in sent]
    assert [event["parent_id"] for event in done] == [event["span_id"] for event in spans]
    assert [event["parent_id"] for event in spans] == [event["span_id"] for event in sent]
    assert [event["data"]["message_id"] for event in spans] == [event["data"]["message_id"] for event in sent]


def test_the_examples_of_the_documentation_work(queue: Any, recorded: Any, root: Path) -> None:
    in_invocation(lambda: queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY))
    example, decorated = re.findall(
        r"```python\n(.*?)```", (root / "docs/collaboration.md").read_text(), re.DOTALL
    )
    scope: dict[str, Any] = {"monitor": AgentOpsMonitor()}
    exec(example, scope)
    monitored(scope["handler"])(sqs_event(queue.drain()), context(2))
    check_one_trace(recorded(), "sqs")
    (found,) = of(recorded(), "issue_detected")
    assert found["data"] == {"body": BODY}
    exec(decorated, scope)
    scope["handler"]({}, context(3))
    assert of(recorded(), "invocation_completed")[-1]["agent"] == "engineer"


def test_a_worker_that_polls_a_queue_itself_records_what_it_receives(queue: Any, recorded: Any) -> None:
    in_invocation(lambda: queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY))
    instrument.uninstall()
    (message,) = queue.drain()
    monitor = AgentOpsMonitor("worker")
    with pytest.raises(KeyError), monitor.message(message):
        raise KeyError("no such patch")
    _, sent, _, received, span = recorded()
    assert received["type"] == "message_received"
    assert received["agent"] == span["agent"] == "worker"
    assert received["trace_id"] == span["trace_id"] == sent["trace_id"]
    assert received["parent_id"] == span["parent_id"] == sent["span_id"]
    assert span["data"]["error"]["type"] == "KeyError"


@pytest.mark.parametrize("given", [None, context(9)])
def test_each_message_has_one_receipt_whoever_fetched_it(queue: Any, recorded: Any, given: Any) -> None:
    for number in (1, 2, 3):
        in_invocation(lambda: queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY), number=number)
    first, second, polled = queue.drain()

    @monitored
    def handler(event: Any, context: Any) -> None:
        monitor = AgentOpsMonitor()
        for record in [*event["Records"], polled]:
            with monitor.message(record):
                pass

    handler(sqs_event([first, second]), given)
    sent, received = of(recorded(), "message_sent"), of(recorded(), "message_received")
    assert [each["data"]["message_id"] for each in sent] == [each["data"]["message_id"] for each in received]
    assert [each["parent_id"] for each in received] == [each["span_id"] for each in sent]
    assert not any("redelivered" in each["data"] for each in received)


def test_a_worker_gets_a_receipt_of_what_it_sent_itself(queue: Any, recorded: Any) -> None:
    monitor = AgentOpsMonitor("worker")
    with monitor.workflow("case-7"):
        queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY)
        with monitor.message(queue.drain()[0]):
            pass
    sent, received, span = recorded()
    assert received["type"] == "message_received"
    assert received["parent_id"] == sent["span_id"]
    assert span["workflow_id"] == "case-7"


def test_a_record_without_a_context_is_a_span_of_the_current_workflow(recorded: Any) -> None:
    monitor = AgentOpsMonitor("worker")
    for record in (None, 7, {}, {"body": "agentops"}, {"body": '{"agentops": 7}'}):
        with monitor.message(record):
            pass
    assert {event["type"] for event in recorded()} == {"span"}
    assert len({event["trace_id"] for event in recorded()}) == 1


@pytest.mark.parametrize("raw", [True, False])
def test_a_topic_hands_on_to_a_queue(queue: Any, recorded: Any, raw: bool) -> None:
    sns = client("sns")
    topic = sns.create_topic(Name="findings")["TopicArn"]
    sns.subscribe(
        TopicArn=topic,
        Protocol="sqs",
        Endpoint=queue.arn,
        Attributes={"RawMessageDelivery": str(raw).lower()},
    )
    in_invocation(lambda: sns.publish(TopicArn=topic, Message=BODY, Subject="issue.found"))
    (message,) = queue.drain()
    assert (message["Body"] == BODY) is raw
    receive(sqs_event([message]))
    check_one_trace(recorded(), "sns")
    assert of(recorded(), "message_received")[0]["data"]["message_type"] == "issue.found"
    assert of(recorded(), "message_sent")[0]["data"]["destination"] == "findings"


def test_a_batch_to_a_topic(queue: Any, recorded: Any) -> None:
    sns = client("sns")
    topic = sns.create_topic(Name="findings")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue.arn)
    entries = [{"Id": str(n), "Message": f"{n}"} for n in range(2)]
    in_invocation(lambda: sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries))
    receive(sqs_event(queue.drain()))
    check_one_trace(recorded(), "sns", messages=2)


def test_a_topic_that_starts_a_function(queue: Any, recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sns = client("sns")
    topic = sns.create_topic(Name="findings")["TopicArn"]
    sns.subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=queue.arn, Attributes={"RawMessageDelivery": "true"}
    )
    in_invocation(lambda: sns.publish(TargetArn=topic, Message=BODY))
    (message,) = queue.drain()
    receive(sns_event(message["Body"], message["MessageAttributes"]))
    check_one_trace(recorded(), "sns")


def test_texts_to_phones_are_no_messages_between_agents(moto: None, recorded: Any) -> None:
    client("sns").publish(PhoneNumber="+15550100", Message="patch ready")
    assert recorded() == []


@pytest.mark.parametrize("through", ["queue", "topic", "topic in a queue"])
def test_an_event_of_eventbridge_may_take_a_detour(
    aws: Aws, in_lambda: None, recorded: Any, through: str
) -> None:
    aws.answer({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
    instrument.install()
    entry = {"Source": "mine", "DetailType": "issue.found", "Detail": "{}"}
    in_invocation(lambda: client("events").put_events(Entries=[entry]))
    text = json.dumps(eventbridge_event(aws.requests[-1][1]["Entries"][0]))
    if through == "topic":
        event = sns_event(text, {})
    else:
        body = text if through == "queue" else json.dumps(sns_event(text, {})["Records"][0]["Sns"])
        event = sqs_event([{"MessageId": "1", "Body": body}])
    receive(event)
    check_one_trace(recorded(), "eventbridge")
    assert of(recorded(), "message_received")[0]["data"]["message_type"] == "issue.found"


def test_a_pipe_hands_over_a_list_of_records(queue: Any, recorded: Any) -> None:
    in_invocation(lambda: queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY))
    receive([sqs_record(each) for each in queue.drain()])
    check_one_trace(recorded(), "sqs")
    assert of(recorded(), "invocation_started")[-1]["data"]["trigger"] == "sqs"


def test_a_message_without_room_goes_without_its_context(queue: Any, recorded: Any) -> None:
    full = {f"a{n}": attribute("x") for n in range(10)}
    in_invocation(
        lambda: queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY, MessageAttributes=full)
    )
    # moto's own limit is the lower one, as that of a queue made before August 2025.
    large = "x" * (queues.MAX_BYTES - 100)
    in_invocation(lambda: queue.client.send_message(QueueUrl=queue.url, MessageBody=large))
    messages = queue.drain()
    assert messages[0]["MessageAttributes"] == full
    assert "MessageAttributes" not in messages[1]
    attributes, size = of(recorded(), "message_sent")
    assert "10 attributes" in attributes["problems"][0]
    assert "too large" in size["problems"][0]


def test_the_messages_of_a_batch_share_its_room(queue: Any, recorded: Any) -> None:
    sizes = (queues.MAX_BYTES - 600, 100, 100)
    entries = [{"Id": str(n), "MessageBody": "x" * size} for n, size in enumerate(sizes)]
    queue.client.send_message_batch(QueueUrl=queue.url, Entries=entries)
    carry = ["MessageAttributes" in each for each in queue.drain()]
    assert carry == [True, False, False]
    assert ["problems" in event for event in recorded()] == [False, True, True]


def test_an_attribute_that_is_passed_on_makes_room_for_the_next(queue: Any, recorded: Any) -> None:
    stale = {f"a{n}": attribute("x") for n in range(9)} | {"agentops": attribute("stale")}
    in_invocation(
        lambda: queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY, MessageAttributes=stale)
    )
    assert stale["agentops"] == attribute("stale")
    receive(sqs_event(queue.drain()))
    check_one_trace(recorded(), "sqs")


def test_what_a_queue_refuses_is_not_recorded(queue: Any, recorded: Any) -> None:
    missing = queue.url.replace("patches", "missing")
    with pytest.raises(ClientError):
        queue.client.send_message(QueueUrl=missing, MessageBody=BODY)
    for wrong in ({"MessageBody": 7}, {"MessageBody": BODY, "MessageAttributes": 7}, {}):
        with pytest.raises(ParamValidationError):
            queue.client.send_message(QueueUrl=queue.url, **wrong)
    with pytest.raises(ParamValidationError):
        queue.client.send_message_batch(QueueUrl=queue.url, Entries=[7])
    assert recorded() == []


def test_of_a_batch_what_was_taken_is_recorded(aws: Aws, in_lambda: None, recorded: Any) -> None:
    instrument.install()
    aws.answer(
        {
            "Successful": [{"Id": "b", "MessageId": "1", "MD5OfMessageBody": "x"}],
            "Failed": [{"Id": "a", "SenderFault": True, "Code": "InternalError"}],
        }
    )
    entries = [{"Id": name, "MessageBody": name} for name in "ab"]
    client("sqs").send_message_batch(QueueUrl=f"{aws.url}/123456789012/q", Entries=entries)
    carried = [
        json.loads(each["MessageAttributes"]["agentops"]["StringValue"])
        for each in aws.requests[0][1]["Entries"]
    ]
    (sent,) = recorded()
    assert sent["data"]["message_id"] == carried[1]["message_id"] != carried[0]["message_id"]


@pytest.mark.parametrize(
    ("named", "carries"),
    [("", True), ("none", False), ("eventbridge", False), ("eventbridge, SQS", True), ("sqs", True)],
)
def test_channels_can_be_left_alone(
    queue: Any, recorded: Any, monkeypatch: pytest.MonkeyPatch, named: str, carries: bool
) -> None:
    monkeypatch.setenv("AGENTOPS_PROPAGATE", named)
    queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY)
    assert ("MessageAttributes" in queue.drain()[0]) is carries
    assert len(recorded()) == carries


def test_a_channel_that_nobody_knows_is_said_once(
    queue: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTOPS_PROPAGATE", "events,sqs")
    for _ in range(2):
        queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY)
    said = capsys.readouterr().err
    assert said.count("AGENTOPS_PROPAGATE names events") == 1
    assert "eventbridge" in said
    assert all("MessageAttributes" in each for each in queue.drain())


def test_nothing_is_carried_once_the_hooks_are_removed(queue: Any, recorded: Any) -> None:
    instrument.uninstall()
    queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY)
    assert "MessageAttributes" not in queue.drain()[0]
    assert recorded() == []


def test_users_and_sessions_travel_along(queue: Any, recorded: Any) -> None:
    def send() -> None:
        with AgentOpsMonitor().context(user_id="user-7", session_id="s-1", tags={"plan": "free"}):
            queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY)

    in_invocation(send)
    receive(sqs_event(queue.drain()))
    arrived = [event for event in recorded() if event["request_id"] == context(2).aws_request_id]
    assert {(event["user_id"], event["session_id"]) for event in arrived} == {("user-7", "s-1")}
    assert not any("tags" in event for event in arrived)


@pytest.mark.parametrize("count", [1, 2])
def test_a_queue_tells_that_it_delivers_again(queue: Any, recorded: Any, count: int) -> None:
    in_invocation(lambda: queue.client.send_message(QueueUrl=queue.url, MessageBody=BODY))
    receive(sqs_event(queue.drain(), received=count))
    (received,) = of(recorded(), "message_received")
    assert received["data"].get("redelivered", False) is (count > 1)


# Lambda


def invoked(aws: Aws) -> tuple[bytes, Any]:
    """The payload of the last call, and its client context."""
    path, body, headers = aws.raw[-1]
    assert path.startswith("/2015-03-31/functions/")
    given = headers.get("X-Amz-Client-Context")
    assert given is None or len(given) <= 3_583
    return body, json.loads(base64.b64decode(given)) if given else None


@pytest.fixture
def functions(aws: Aws, in_lambda: None, recorded: Any) -> Any:
    instrument.install()
    aws.answer({})
    return client("lambda")


@pytest.mark.parametrize("more", [{}, {"InvocationType": "RequestResponse"}])
@pytest.mark.parametrize(
    "name",
    ["qa", "qa:live", "123456789012:function:qa", "arn:aws:lambda:us-east-1:123456789012:function:qa:7"],
)
def test_a_synchronous_call_carries_it_beside_the_payload(
    aws: Aws, functions: Any, recorded: Any, more: dict[str, Any], name: str
) -> None:
    own = base64.b64encode(b'{"custom": {"mine": "1"}, "env": {"locale": "de"}}').decode()
    in_invocation(lambda: functions.invoke(FunctionName=name, Payload=BODY, ClientContext=own, **more))
    payload, client_context = invoked(aws)
    assert payload == BODY.encode()
    assert client_context["env"] == {"locale": "de"}
    assert client_context["custom"]["mine"] == "1"
    # As the runtimes of typed languages want it; Go's calls fail with anything else.
    assert all(type(value) is str for value in client_context["custom"].values())
    # As Lambda's runtime client makes it of the header.
    receive(json.loads(payload), client_context=SimpleNamespace(**client_context))
    check_one_trace(recorded(), "lambda")
    assert of(recorded(), "message_sent")[0]["data"]["destination"] == "qa"


@pytest.mark.parametrize("as_given", [str, str.encode, lambda text: bytearray(text.encode())])
def test_an_asynchronous_call_carries_it_in_the_payload(
    aws: Aws, functions: Any, recorded: Any, as_given: Any
) -> None:
    text = '{"issue": 7, "ratio": 0.10, "to": "qa"}'
    in_invocation(lambda: functions.invoke(FunctionName="qa", InvocationType="Event", Payload=as_given(text)))
    payload, client_context = invoked(aws)
    assert client_context is None, "Lambda drops it"
    assert payload.startswith(b'{"issue": 7, "ratio": 0.10, "to": "qa",')
    receive(json.loads(payload))
    check_one_trace(recorded(), "lambda")
    assert of(recorded(), "message_sent")[0]["data"]["to"] == "qa"


@pytest.mark.parametrize("kind", ["RequestResponse", "Event"])
@pytest.mark.parametrize("shape", ["detail", "records", "payload"])
def test_an_event_that_is_handed_on_whole_is_a_message_of_its_own(
    aws: Aws, functions: Any, recorded: Any, kind: str, shape: str
) -> None:
    """It has the context of the message that brought it, which is not the one that the next agent gets."""
    fields = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "message_id": "m1", "from": "manager", "hop": 4}
    attributes = {"agentops": attribute(json.dumps(fields))}
    event: Any = {
        "detail": {"detail-type": "t", "detail": {"agentops": fields}},
        "records": sqs_event([{"MessageId": "1", "Body": "x", "MessageAttributes": attributes}]),
        "payload": {"agentops": fields},
    }[shape]

    @monitored
    def forward(event: Any, context: Any) -> None:
        functions.invoke(FunctionName="qa", InvocationType=kind, Payload=json.dumps(event))

    forward(event, context(1))
    payload, client_context = invoked(aws)
    receive(json.loads(payload), client_context=client_context and SimpleNamespace(**client_context))
    (sent,) = of(recorded(), "message_sent")
    first, second = of(recorded(), "message_received")
    assert (first["data"]["message_id"], first["data"]["hop"]) == ("m1", 4)
    assert (second["data"]["message_id"], second["data"]["hop"]) == (sent["data"]["message_id"], 5)
    assert {event["trace_id"] for event in recorded()} == {"a" * 32}


@pytest.mark.parametrize("payload", ["[1]", "7", '"text"', "", "no json", io.BytesIO(b'{"a": 1}')])
def test_what_is_no_object_goes_as_it_is(aws: Aws, functions: Any, recorded: Any, payload: Any) -> None:
    functions.invoke(FunctionName="qa", InvocationType="Event", Payload=payload)
    assert invoked(aws)[0] == (payload.encode() if isinstance(payload, str) else b'{"a": 1}')
    (sent,) = recorded()
    assert "JSON object" in sent["problems"][0]


def test_a_payload_at_the_limit_goes_as_it_is(aws: Aws, functions: Any, recorded: Any) -> None:
    text = json.dumps({"x": "y" * (payloads.MAX_EVENT_BYTES - 100)})
    functions.invoke(FunctionName="qa", InvocationType="Event", Payload=text)
    assert invoked(aws)[0] == text.encode()
    assert "too large" in recorded()[0]["problems"][0]


def test_a_client_context_without_room_goes_as_it_is(aws: Aws, functions: Any, recorded: Any) -> None:
    own = base64.b64encode(json.dumps({"custom": {"mine": "x" * 2_600}}).encode()).decode()
    functions.invoke(FunctionName="qa", ClientContext=own)
    assert invoked(aws)[1] == {"custom": {"mine": "x" * 2_600}}
    assert "too large" in recorded()[0]["problems"][0]


def test_a_dry_run_and_a_refusal_are_no_messages(aws: Aws, functions: Any, recorded: Any) -> None:
    functions.invoke(FunctionName="qa", InvocationType="DryRun", Payload="{}")
    assert invoked(aws) == (b"{}", None)
    aws.answer(
        {"Message": "Rate exceeded"}, status=429, headers={"x-amzn-ErrorType": "TooManyRequestsException"}
    )
    with pytest.raises(ClientError):
        functions.invoke(FunctionName="qa", Payload="{}")
    with pytest.raises(ParamValidationError):
        functions.invoke(FunctionName=7)
    assert recorded() == []


@pytest.mark.parametrize("payload", [b'{"to": "qa"}', b"\xff\x00 no text", io.BytesIO(b"{}")])
def test_a_synchronous_call_is_carried_whatever_its_payload_is(
    aws: Aws, functions: Any, recorded: Any, payload: Any
) -> None:
    functions.invoke(FunctionName="qa", Payload=payload)
    assert "agentops" in invoked(aws)[1]["custom"]
    assert [event["type"] for event in recorded()] == ["message_sent"]


def test_a_call_with_a_streamed_answer_carries_it_too(aws: Aws, functions: Any, recorded: Any) -> None:
    aws.answers.clear()
    aws.answer(frame("InvokeComplete", b"{}"))
    answer = functions.invoke_with_response_stream(FunctionName="qa", Payload=b"{}")
    assert [list(each) for each in answer["EventStream"]] == [["InvokeComplete"]]
    (sent,) = recorded()
    custom = json.loads(base64.b64decode(aws.raw[-1][2]["X-Amz-Client-Context"]))["custom"]
    assert json.loads(custom["agentops"])["message_id"] == sent["data"]["message_id"]


def test_a_named_durable_execution_keeps_its_payload(aws: Aws, functions: Any, recorded: Any) -> None:
    """The same name and payload start it once; another payload under that name would be an error."""
    functions.invoke(
        FunctionName="qa", InvocationType="Event", DurableExecutionName="case-7", Payload='{"issue": 7}'
    )
    assert invoked(aws) == (b'{"issue": 7}', None)
    (sent,) = recorded()
    assert "named" in sent["problems"][0]


def test_a_function_that_failed_had_the_message(aws: Aws, functions: Any, recorded: Any) -> None:
    aws.answers.clear()
    aws.answer({"errorMessage": "no"}, headers={"X-Amz-Function-Error": "Unhandled"})
    assert functions.invoke(FunctionName="qa", Payload="{}")["FunctionError"] == "Unhandled"
    assert [event["type"] for event in recorded()] == ["message_sent"]


def test_a_broken_client_context_is_lambdas_business(aws: Aws, functions: Any, recorded: Any) -> None:
    functions.invoke(FunctionName="qa", ClientContext="no base64")
    assert aws.raw[-1][2]["X-Amz-Client-Context"] == "no base64"
    assert recorded() == []


# Step Functions

MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:triage"


@pytest.fixture
def states(moto: None) -> Any:
    found = client("stepfunctions")
    found.create_state_machine(
        name="triage",
        definition='{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}',
        roleArn="arn:aws:iam::123456789012:role/r",
    )
    return found


@pytest.mark.parametrize("given", [{}, {"input": "{}"}, {"input": '{"issue": 7}'}])
def test_an_execution_carries_it_to_its_tasks(states: Any, recorded: Any, given: dict[str, str]) -> None:
    started = in_invocation(lambda: states.start_execution(stateMachineArn=MACHINE, **given))
    task_input = json.loads(states.describe_execution(executionArn=started["executionArn"])["input"])
    assert {name: value for name, value in task_input.items() if name != "agentops"} == json.loads(
        given.get("input", "{}")
    )
    receive(task_input)
    check_one_trace(recorded(), "stepfunctions")
    assert of(recorded(), "message_sent")[0]["data"]["destination"] == "triage"
    # The next state gets the same input, and that is no redelivery.
    receive(task_input, number=3)
    assert not any("redelivered" in event["data"] for event in recorded())


def test_a_named_execution_keeps_its_input(states: Any, recorded: Any) -> None:
    """The same name and input start it once; another input under that name would be an error."""
    started = states.start_execution(stateMachineArn=MACHINE, name="case-7", input='{"issue": 7}')
    assert states.describe_execution(executionArn=started["executionArn"])["input"] == '{"issue": 7}'
    (sent,) = recorded()
    assert "named" in sent["problems"][0]


def test_an_execution_that_is_waited_for_carries_it_whatever_its_name(
    aws: Aws, in_lambda: None, recorded: Any
) -> None:
    """An express execution is never the one of before: its name is no key."""
    instrument.install()
    aws.answer({"executionArn": f"{MACHINE}:1", "startDate": 1, "stopDate": 2, "status": "SUCCEEDED"})
    states = hooked().client("stepfunctions", config=Config(inject_host_prefix=False))
    in_invocation(
        lambda: states.start_sync_execution(stateMachineArn=MACHINE, name="case-7", input='{"issue": 7}')
    )
    receive(json.loads(aws.requests[-1][1]["input"]))
    check_one_trace(recorded(), "stepfunctions")


def test_the_answer_of_a_task_that_was_waited_for(aws: Aws, in_lambda: None, recorded: Any) -> None:
    instrument.install()
    aws.answer({})
    states = client("stepfunctions")
    in_invocation(lambda: states.send_task_success(taskToken="t", output='{"verdict": "accept"}'))
    output = json.loads(aws.requests[-1][1]["output"])
    assert output["verdict"] == "accept"
    receive(output)
    check_one_trace(recorded(), "stepfunctions")


def test_an_output_that_is_no_object_or_too_large_goes_as_it_is(
    aws: Aws, in_lambda: None, recorded: Any
) -> None:
    instrument.install()
    states = client("stepfunctions")
    for output in ("7", json.dumps({"x": "y" * (payloads.MAX_STATE_BYTES - 50)})):
        aws.answer({})
        states.send_task_success(taskToken="t", output=output)
        assert aws.requests[-1][1]["output"] == output
    assert len(of(recorded(), "message_sent")) == 2
    assert all(event["problems"] for event in recorded())


@given(
    st.dictionaries(
        st.text(max_size=5), st.integers() | st.text(max_size=5) | st.floats(allow_nan=False), max_size=3
    )
)
def test_what_the_agent_wrote_stays_as_it_is(fields: dict[str, Any]) -> None:
    from agentops_monitoring.instrument.outgoing import json_object, spliced

    text = json.dumps(fields)
    changed = spliced(text, json_object(text) or {}, {"agentops": {"hop": 1}})
    assert json.loads(changed) == {**fields, "agentops": {"hop": 1}}
    if "agentops" not in fields:
        assert changed.startswith(text[:-1])
