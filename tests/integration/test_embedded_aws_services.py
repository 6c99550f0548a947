"""Streams, events and templates of the embedded AWS, where our claims rest on them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.conftest import EmbeddedAws

pytestmark = pytest.mark.xdist_group("embedded_aws")

STREAM = """
import boto3, json, os
def handler(event, context):
    names = [r["dynamodb"]["Keys"]["pk"]["S"] for r in event["Records"]]
    boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps(names))
    bad = [r for r in event["Records"] if r["dynamodb"]["Keys"]["pk"]["S"].startswith("bad")]
    if bad and os.environ["HOW"] == "raise": raise RuntimeError("a bad record")
    return {"batchItemFailures": [{"itemIdentifier": bad[0]["dynamodb"]["SequenceNumber"]}] if bad else []}
"""


@pytest.mark.parametrize(
    ("how", "settings", "given_up"),
    [
        # Without bisection, Lambda gives up all that is left of the batch.
        ("report", {"FunctionResponseTypes": ["ReportBatchItemFailures"]}, 3),
        ("raise", {"BisectBatchOnFunctionError": True}, 1),
    ],
)
def test_stream_checkpoints_bisects_and_gives_up(
    aws: EmbeddedAws, how: str, settings: dict[str, Any], given_up: int
) -> None:
    failure_url, failure_arn = aws.queue()
    function, url = aws.relay(STREAM, variables={"HOW": how})
    table, stream = aws.stream_table()
    names = ["good-0", "good-1", "bad-2", "good-3", "good-4"]
    for name in names:
        aws.client("dynamodb").put_item(TableName=table, Item={"pk": {"S": name}})
    aws.client("lambda").create_event_source_mapping(
        FunctionName=function,
        EventSourceArn=stream,
        StartingPosition="TRIM_HORIZON",
        MaximumRetryAttempts=1,
        BatchSize=10,
        DestinationConfig={"OnFailure": {"Destination": failure_arn}},
        **settings,
    )
    aws.until(lambda: aws.local("idle")["stream_records"] == 0, 15)
    taken = aws.bodies(url)
    assert taken[0] == names
    assert taken[-1][-1] == "good-4"
    (record,) = aws.bodies(failure_url)
    assert record["DDBStreamBatchInfo"]["batchSize"] == given_up
    assert record["requestContext"]["condition"] == "RetryAttemptsExhausted"


def test_events_reach_functions_and_a_missing_one_the_dead_letters(aws: EmbeddedAws) -> None:
    events, bus = aws.client("events"), aws.name("bus")
    function, url = aws.relay()
    dead_url, dead_arn = aws.queue()
    events.create_event_bus(Name=bus)
    unwilling = aws.function(STREAM)
    aws.client("lambda").remove_permission(FunctionName=unwilling, StatementId="events")
    for rule, target in (("there", function), ("gone", "no-such-function"), ("unwilling", unwilling)):
        events.put_rule(
            Name=rule, EventBusName=bus, EventPattern=json.dumps({"detail": {"environment": ["e"]}})
        )
        target_settings = {"Id": "f", "Arn": aws.arn(target), "DeadLetterConfig": {"Arn": dead_arn}}
        events.put_targets(Rule=rule, EventBusName=bus, Targets=[target_settings])
    entries = [
        {"EventBusName": bus, "Source": "s", "DetailType": "t", "Detail": json.dumps({"environment": name})}
        for name in ("e", "other")
    ]
    events.put_events(Entries=entries)
    aws.settle()
    (event,) = aws.bodies(url)
    assert event["detail"] == {"environment": "e"}
    dead = aws.until(lambda: aws.messages(dead_url))
    dead += aws.until(lambda: aws.messages(dead_url)) if len(dead) == 1 else []
    reasons = {one["MessageAttributes"]["ERROR_CODE"]["StringValue"] for one in dead}
    assert reasons == {"NO_RESOURCE", "NO_PERMISSIONS"}
    assert [json.loads(one["Body"])["detail"] for one in dead] == [{"environment": "e"}] * 2
