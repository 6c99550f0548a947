"""Messages through SQS and SNS: sent by boto3, received as Lambda hands them over."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from agentops_monitoring import AgentOpsMonitor, instrument, monitored
from agentops_monitoring.instrument import queues

from .aws_server import Aws
from .deliveries import eventbridge_event, sns_event, sqs_event, sqs_record
from .handovers import BODY, attribute, check_one_trace, client, context, in_invocation, of, receive


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
