"""EventBridge, SQS and SNS: sizes, counts, and how a part of a request fails."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.contract.cloud import Cloud
from tests.contract.services.probes import refused

pytestmark = pytest.mark.xdist_group("embedded_aws")


def entry(detail: str = "{}", **more: Any) -> dict[str, Any]:
    return {"Source": "agentops.contract", "DetailType": "probe", "Detail": detail, **more}


def bus(service: Cloud) -> str:
    events, name = service.client("events"), service.name("bus")
    events.create_event_bus(Name=name)
    service.made(f"event bus {name}", lambda: events.delete_event_bus(Name=name))
    return name


def test_a_request_has_10_entries(service: Cloud) -> None:
    put = service.client("events").put_events
    refused(put, "ValidationException", Entries=[entry()] * 11)
    assert put(Entries=[entry()] * 10)["FailedEntryCount"] == 0


def test_entries_of_more_than_a_megabyte_are_refused(service: Cloud) -> None:
    put = service.client("events").put_events
    large = json.dumps({"text": "x" * 700_000})
    assert put(Entries=[entry(json.dumps({"text": "x" * 200_000}))])["FailedEntryCount"] == 0
    refused(put, "ValidationException", Entries=[entry(large)] * 2)


@pytest.mark.filterwarnings("ignore:EventDetail should be of type dict")  # moto's
def test_an_entry_fails_alone(service: Cloud) -> None:
    without_source = {"DetailType": "probe", "Detail": "{}"}
    entries = [entry(), entry("not JSON"), without_source, entry("[1]"), entry()]
    answer = service.client("events").put_events(Entries=entries)
    assert answer["FailedEntryCount"] == 3
    codes = [each.get("ErrorCode") for each in answer["Entries"]]
    assert codes == [None, "MalformedDetail", "InvalidArgument", "MalformedDetail", None]
    assert all(each["EventId"] for each in answer["Entries"] if "ErrorCode" not in each)
    assert all(each["ErrorMessage"] for each in answer["Entries"] if "ErrorCode" in each)


def test_an_event_is_routed_with_its_time_in_seconds(service: Cloud) -> None:
    events, sqs, name = service.client("events"), service.client("sqs"), bus(service)
    url = service.queue()
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{**allow, "Resource": arn}]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    pattern = {"source": ["agentops.contract"], "detail": {"environment": ["contract"]}}
    events.put_rule(Name="r", EventBusName=name, EventPattern=json.dumps(pattern))
    service.made(f"rule of {name}", lambda: events.delete_rule(Name="r", EventBusName=name))
    events.put_targets(Rule="r", EventBusName=name, Targets=[{"Id": "q", "Arn": arn}])
    service.made(f"target of {name}", lambda: events.remove_targets(Rule="r", EventBusName=name, Ids=["q"]))
    detail = {"environment": "contract", "sent_ms": 1, "nested": {"a": [1, None]}}

    def arrived() -> list[Any]:
        for other in ("another", "contract"):
            put = entry(json.dumps({**detail, "environment": other}), EventBusName=name)
            events.put_events(Entries=[put])
        got = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, MaxNumberOfMessages=10)
        return list(got.get("Messages", []))

    messages = [json.loads(each["Body"]) for each in service.until(arrived)]
    event = messages[0]
    assert {each["detail"]["environment"] for each in messages} == {"contract"}
    assert event["detail"] == detail
    sent = datetime.strptime(event["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)  # no fraction
    assert abs(datetime.now(UTC) - sent) < timedelta(minutes=10)
    assert (event["version"], event["detail-type"], event["source"]) == ("0", "probe", "agentops.contract")
    assert (event["account"], event["region"], event["resources"]) == (service.account, service.region, [])
    assert event["id"]


def test_a_rule_has_5_targets(service: Cloud) -> None:
    events, name = service.client("events"), bus(service)
    queues = [service.queue() for _ in range(6)]
    get = service.client("sqs").get_queue_attributes
    arns = [get(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"] for url in queues]
    targets = [{"Id": str(number), "Arn": arn} for number, arn in enumerate(arns)]
    rule = {"Rule": "many", "EventBusName": name}
    events.put_rule(Name="many", EventBusName=name, EventPattern=json.dumps({"source": ["nobody"]}))
    service.made(f"rule of {name}", lambda: events.delete_rule(Name="many", EventBusName=name))
    ids = [target["Id"] for target in targets]
    service.made(f"targets of {name}", lambda: events.remove_targets(**rule, Ids=ids))
    for _ in range(2):  # who is there already counts once
        assert events.put_targets(**rule, Targets=targets[:5])["FailedEntryCount"] == 0
    refused(events.put_targets, "LimitExceededException", **rule, Targets=targets[5:])
    assert len(events.list_targets_by_rule(**rule)["Targets"]) == 5


@pytest.mark.parametrize("schedule", ["rate(1 minutes)", "rate(5 minute)", "rate(0 minutes)"])
def test_a_rate_s_unit_agrees_with_its_number(service: Cloud, schedule: str) -> None:
    events, name = service.client("events"), service.name("rule")
    service.made(f"rule {name}, if it is not refused", lambda: events.delete_rule(Name=name))
    refused(events.put_rule, "ValidationException", Name=name, ScheduleExpression=schedule)


def test_a_schedule_is_of_the_default_bus(service: Cloud) -> None:
    events, name = service.client("events"), bus(service)
    rule = {"Name": "scheduled", "EventBusName": name}
    service.made(f"rule of {name}, if it is not refused", lambda: events.delete_rule(**rule))
    refused(events.put_rule, "ValidationException", **rule, ScheduleExpression="rate(2 minutes)")


def test_a_bus_that_is_not_there_is_told_as_such(service: Cloud) -> None:
    asked = {"Name": "r", "EventBusName": service.name("missing"), "EventPattern": '{"source": ["s"]}'}
    refused(service.client("events").put_rule, "ResourceNotFoundException", **asked)


def test_a_message_holds_what_our_dead_letters_send(service: Cloud) -> None:
    sqs, url = service.client("sqs"), service.queue()
    body = "é" * 120_000
    sqs.send_message(QueueUrl=url, MessageBody=body)
    (message,) = service.until(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))
    assert message["Body"] == body
    refused(sqs.send_message, "InvalidParameterValue", QueueUrl=url, MessageBody="x" * 1_048_577)


def test_a_queue_may_take_less(service: Cloud) -> None:
    url = service.queue(MaximumMessageSize="1024")
    refused(service.client("sqs").send_message, "InvalidParameterValue", QueueUrl=url, MessageBody="x" * 1025)


def test_messages_go_and_come_ten_at_a_time(service: Cloud) -> None:
    sqs, url = service.client("sqs"), service.queue()
    entries = [{"Id": f"{number}", "MessageBody": f"{number}"} for number in range(11)]
    refused(sqs.send_message_batch, TOO_MANY, QueueUrl=url, Entries=entries)
    assert len(sqs.send_message_batch(QueueUrl=url, Entries=entries[:10])["Successful"]) == 10
    refused(sqs.receive_message, "InvalidParameterValue", QueueUrl=url, MaxNumberOfMessages=11)
    got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    assert len(got) <= 10


TOO_MANY = "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"


def test_a_message_stays_until_it_is_deleted(service: Cloud) -> None:
    sqs, url = service.client("sqs"), service.queue(VisibilityTimeout="1")
    sqs.send_message(
        QueueUrl=url,
        MessageBody="m",
        MessageAttributes={"RequestID": {"DataType": "String", "StringValue": "r"}},
    )
    asked = {"QueueUrl": url, "WaitTimeSeconds": 1, "MessageAttributeNames": ["All"]}
    (first,) = service.until(lambda: sqs.receive_message(**asked).get("Messages"))
    (again,) = service.until(lambda: sqs.receive_message(**asked).get("Messages"))
    assert first["MessageId"] == again["MessageId"]
    assert again["MessageAttributes"]["RequestID"]["StringValue"] == "r"
    sqs.delete_message(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
    time.sleep(1.2)
    assert not sqs.receive_message(QueueUrl=url).get("Messages")


def test_a_queue_that_is_not_there_is_told_as_such(service: Cloud) -> None:
    sqs = service.client("sqs")
    url = service.queue()
    missing = url.rpartition("/")[0] + "/" + service.name("missing")
    code = "AWS.SimpleQueueService.NonExistentQueue"
    refused(sqs.send_message, code, QueueUrl=missing, MessageBody="m")
    refused(sqs.get_queue_url, code, QueueName=missing.rpartition("/")[2])


def topic(service: Cloud) -> str:
    sns, name = service.client("sns"), service.name("topic")
    arn = sns.create_topic(Name=name)["TopicArn"]
    service.made(f"topic {name}", lambda: sns.delete_topic(TopicArn=arn))
    return str(arn)


def test_a_notification_has_256_kilobytes_and_a_subject_of_100(service: Cloud) -> None:
    publish, arn = service.client("sns").publish, topic(service)
    publish(TopicArn=arn, Message="x" * 262_144, Subject="s" * 99)
    refused(publish, "InvalidParameter", TopicArn=arn, Message="x" * 262_145)
    refused(publish, "InvalidParameter", TopicArn=arn, Message="m", Subject="s" * 101)


def test_a_notification_may_say_something_else_to_each_protocol(service: Cloud) -> None:
    sns, sqs, arn, url = service.client("sns"), service.client("sqs"), topic(service), service.queue()
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    taken = {"Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": queue}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **taken}]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    raw = {"RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue, Attributes=raw)
    said, asked = [], {"QueueUrl": url, "WaitTimeSeconds": 1}
    for bodies in ({"default": "all", "email": "mail"}, {"default": "all", "sqs": "queues"}):
        sns.publish(TopicArn=arn, Message=json.dumps(bodies), MessageStructure="json")
        (message,) = service.until(lambda: sqs.receive_message(**asked).get("Messages"))
        said.append(message["Body"])
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert said == ["all", "queues"]


def test_a_subject_is_one_line(service: Cloud) -> None:
    publish, arn = service.client("sns").publish, topic(service)
    refused(publish, "InvalidParameter", TopicArn=arn, Message="m", Subject="two\nlines")


def test_a_topic_that_is_not_there_is_told_as_such(service: Cloud) -> None:
    missing = topic(service) + "-missing"
    refused(service.client("sns").publish, "NotFound", TopicArn=missing, Message="m")
