"""CloudWatch Logs: what the plane's subscriptions, the Manager and the report rely on."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.contract.cloud import Cloud
from tests.contract.services.probes import refused

pytestmark = pytest.mark.xdist_group("embedded_aws")


@pytest.fixture
def group(service: Cloud) -> str:
    """Give a log group with a stream ``s``."""
    name = service.log_group()
    service.client("logs").create_log_stream(logGroupName=name, logStreamName="s")
    return name


def now() -> int:
    return time.time_ns() // 1_000_000


def put(service: Cloud, group: str, *messages: str, at: int = 0, **more: Any) -> dict[str, Any]:
    events = [{"timestamp": at or now(), "message": message} for message in messages]
    arguments = {"logGroupName": group, "logStreamName": "s", "logEvents": events, **more}
    return dict(service.client("logs").put_log_events(**arguments))


def destination(service: Cloud, function: str, group: str = "*", **condition: str) -> str:
    """Let CloudWatch Logs invoke a function for a group, all of them by default, and return its ARN."""
    client = service.client("lambda")
    client.add_permission(
        FunctionName=function,
        StatementId="logs",
        Action="lambda:InvokeFunction",
        Principal="logs.amazonaws.com",
        SourceArn=f"arn:aws:logs:{service.region}:{service.account}:log-group:{group}",
        **condition,
    )
    return str(client.get_function(FunctionName=function)["Configuration"]["FunctionArn"])


def test_a_group_has_two_subscriptions(service: Cloud, group: str) -> None:
    function, logs = service.function("def handler(event, context): pass"), service.client("logs")
    arn = destination(service, function, SourceAccount=service.account)
    asked: dict[str, Any] = {"logGroupName": group, "destinationArn": arn}
    pattern = '?"agentops.event" ?"REPORT RequestId"'
    for name in ("one", "two", "one"):  # the last one changes the first
        logs.put_subscription_filter(filterName=name, filterPattern=pattern, **asked)
    refused(
        logs.put_subscription_filter, "LimitExceededException", filterName="three", filterPattern="", **asked
    )
    found = logs.describe_subscription_filters(logGroupName=group)["subscriptionFilters"]
    assert sorted((each["filterName"], each["filterPattern"]) for each in found) == [
        ("one", pattern),
        ("two", pattern),
    ]


def test_a_subscription_needs_the_functions_permission(service: Cloud, group: str) -> None:
    function = service.function("def handler(event, context): pass")
    arn = service.client("lambda").get_function(FunctionName=function)["Configuration"]["FunctionArn"]
    asked = {"logGroupName": group, "destinationArn": arn, "filterName": "f", "filterPattern": ""}
    refused(service.client("logs").put_subscription_filter, "InvalidParameterException", **asked)


def test_filtered_events_come_in_pages(service: Cloud, group: str) -> None:
    at = now()
    for start in range(0, 30, 10):
        put(service, group, *(f"{number:02d} seen" for number in range(start, start + 10)), at=at + start)
    put(service, group, "something else", at=at + 40)
    logs = service.client("logs")
    asked: dict[str, Any] = {"logGroupName": group, "filterPattern": "seen", "startTime": at}

    def pages() -> list[list[str]]:
        found: list[Any] = []
        token: dict[str, str] = {}
        while True:
            page = logs.filter_log_events(limit=12, **asked, **token)
            found.append([event["message"] for event in page["events"]])
            if "nextToken" not in page:
                return found
            token = {"nextToken": page["nextToken"]}

    found = service.until(lambda: sum(map(len, pages())) == 30 and pages())
    assert sorted(message for page in found for message in page) == [f"{n:02d} seen" for n in range(30)]
    assert max(map(len, found)) <= 12
    first = logs.filter_log_events(limit=1, **asked)["events"][0]
    assert {"timestamp", "message", "ingestionTime", "eventId", "logStreamName"} <= set(first)


def test_filtered_events_are_between_two_times_both_included(service: Cloud, group: str) -> None:
    at, logs = now(), service.client("logs")
    for late in (0, 5, 10):
        put(service, group, f"{late}", at=at + late)
    asked = {"logGroupName": group, "startTime": at + 5, "endTime": at + 10}
    found = service.until(lambda: len(e := logs.filter_log_events(**asked)["events"]) == 2 and e)
    assert [event["message"] for event in found] == ["5", "10"]


def test_a_group_that_is_not_there_is_told_as_such(service: Cloud) -> None:
    logs, name = service.client("logs"), service.name("missing")
    refused(logs.filter_log_events, "ResourceNotFoundException", logGroupName=name)
    refused(logs.describe_log_streams, "ResourceNotFoundException", logGroupName=name)
    refused(logs.get_log_events, "ResourceNotFoundException", logGroupName=name, logStreamName="s")
    refused(
        logs.put_log_events,
        "ResourceNotFoundException",
        logGroupName=name,
        logStreamName="s",
        logEvents=[{"timestamp": now(), "message": "m"}],
    )
    refused(logs.describe_subscription_filters, "ResourceNotFoundException", logGroupName=name)


def test_a_group_is_made_once(service: Cloud, group: str) -> None:
    create = service.client("logs").create_log_group
    refused(create, "ResourceAlreadyExistsException", logGroupName=group)


def test_events_are_put_in_order_and_within_a_day(service: Cloud, group: str) -> None:
    logs, at = service.client("logs"), now()
    place: dict[str, Any] = {"logGroupName": group, "logStreamName": "s"}

    def events(*offsets: int) -> list[dict[str, Any]]:
        return [{"timestamp": at + offset, "message": "m"} for offset in offsets]

    refused(logs.put_log_events, "InvalidParameterException", logEvents=events(0, -1), **place)
    hour = 3_600_000
    wide = events(-23 * hour, int(1.5 * hour))
    refused(logs.put_log_events, "InvalidParameterException", logEvents=wide, **place)
    old = logs.put_log_events(logEvents=events(-15 * 24 * hour, 0), **place)["rejectedLogEventsInfo"]
    # The group keeps a day, so it may be told as expired, too.
    assert 1 in (old.get("tooOldLogEventEndIndex"), old.get("expiredLogEventEndIndex"))
    answer = logs.put_log_events(logEvents=events(0, 3 * hour), **place)
    assert answer["rejectedLogEventsInfo"]["tooNewLogEventStartIndex"] == 1


def test_a_put_holds_10000_events_and_a_megabyte(service: Cloud, group: str) -> None:
    logs, at = service.client("logs"), now()
    place: dict[str, Any] = {"logGroupName": group, "logStreamName": "s"}

    def events(count: int, size: int) -> list[dict[str, Any]]:
        return [{"timestamp": at, "message": "x" * size}] * count

    refused(logs.put_log_events, "InvalidParameterException", logEvents=events(10_001, 1), **place)
    logs.put_log_events(logEvents=events(1_000, 1_000), **place)
    refused(logs.put_log_events, "InvalidParameterException", logEvents=events(1_000, 1_048), **place)


def test_a_subscription_delivers_compressed_batches(service: Cloud, group: str) -> None:
    source = "def handler(event, context): print('GOT ' + event['awslogs']['data'])"
    function, logs = service.function(source), service.client("logs")
    logs.put_subscription_filter(
        logGroupName=group,
        destinationArn=destination(service, function, f"{group}:*"),
        filterName="ours",
        filterPattern='?"agentops.event" ?"other"',
    )

    def payloads() -> list[dict[str, Any]]:
        import base64
        import gzip

        texts = [m.removeprefix("GOT ") for _, m in service.log(f"/aws/lambda/{function}") if "GOT" in m]
        return [json.loads(gzip.decompress(base64.b64decode(text))) for text in texts]

    def delivered() -> dict[str, Any] | None:
        for payload in payloads():
            if payload["messageType"] == "DATA_MESSAGE":
                return payload
        if service.real:  # a new subscription misses what comes at once
            put(service, group, '{"agentops.event":{}}', "not this")
        return None

    at = now()
    put(service, group, '{"agentops.event":{}}', "not this", at=at)
    found = service.until(delivered)
    assert found["owner"] == service.account
    assert (found["logGroup"], found["logStream"]) == (group, "s")
    assert found["subscriptionFilters"] == ["ours"]
    assert {event["message"] for event in found["logEvents"]} == {'{"agentops.event":{}}'}
    for event in found["logEvents"]:
        assert isinstance(event["id"], str)
        assert event["timestamp"] >= at
