"""Kinesis streams of the embedded AWS: log groups write to them, and functions read them in order."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .conftest import ACCOUNT, REGION, EmbeddedAws
from .test_embedded_aws_subscriptions import put_lines, ready_group

pytestmark = pytest.mark.xdist_group("embedded_aws")

# Tells which records it got, and fails at those that say so, by their number or altogether.
READER = """
import base64, boto3, gzip, json, os
def handler(event, context):
    records = [(one["kinesis"]["sequenceNumber"], one["kinesis"]["data"]) for one in event["Records"]]
    names, failed = [], []
    for number, data in records:
        try:
            payload = json.loads(gzip.decompress(base64.b64decode(data)))
            lines = [one["message"] for one in payload["logEvents"]]
            names += [(payload["logStream"], lines, payload["messageType"])]
        except Exception:
            names += [("raw", [base64.b64decode(data).decode()], "")]
        if "bad" in names[-1][1]: failed += [{"itemIdentifier": number}]
    boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps(names))
    return {"batchItemFailures": failed}
"""


def stream(aws: EmbeddedAws, shards: int = 1) -> tuple[str, str]:
    """Create a stream; return its name and ARN."""
    name = aws.name("stream")
    aws.client("kinesis").create_stream(StreamName=name, ShardCount=shards)
    return name, f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}"


def writer(aws: EmbeddedAws, stream_arn: str, action: str = "kinesis:PutRecord", source: str = "*") -> str:
    """Create a role that CloudWatch Logs may assume for such a source, and its policy."""
    name = aws.name("writer")
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "logs.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringLike": {"aws:SourceArn": f"arn:aws:logs:{REGION}:{ACCOUNT}:{source}"}},
    }
    iam = aws.client("iam")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
    allowed = {"Effect": "Allow", "Action": action, "Resource": stream_arn}
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps({"Statement": [allowed]}))
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


def subscribe(aws: EmbeddedAws, group: str, **settings: Any) -> None:
    aws.client("logs").put_subscription_filter(
        logGroupName=group, filterName="stream", filterPattern='"line"', **settings
    )


def read(aws: EmbeddedAws, stream_arn: str, **settings: Any) -> str:
    """Create a function that reads a stream; return the URL of the queue that it tells."""
    function, url = aws.relay(READER)
    aws.client("lambda").create_event_source_mapping(
        FunctionName=function,
        EventSourceArn=stream_arn,
        StartingPosition="TRIM_HORIZON",
        FunctionResponseTypes=["ReportBatchItemFailures"],
        **settings,
    )
    return url


def test_lines_go_through_a_stream_each_once_and_in_the_order_of_their_log_stream(aws: EmbeddedAws) -> None:
    (_, arn), group = stream(aws, 2), ready_group(aws, "a", "b", "c")
    url = read(aws, arn)
    subscribe(aws, group, destinationArn=arn, roleArn=writer(aws, arn))
    for number in range(6):
        for name in "abc":
            put_lines(aws, group, name, f"line {number}", "something else")
        if number % 2:
            aws.settle()
    aws.settle()

    got = [tuple(one) for batch in aws.bodies(url) for one in batch]
    assert [kind for _, _, kind in got].count("CONTROL_MESSAGE") == 1, "when the filter was put"
    for name in "abc":
        lines = [line for at, some, _ in got for line in some if at == name]
        assert lines == [f"line {number}" for number in range(6)]


def test_what_fails_of_a_batch_comes_again_with_what_follows_it_and_is_given_up_by_its_place(
    aws: EmbeddedAws,
) -> None:
    (name, arn), (failure_url, failure_arn) = stream(aws), aws.queue()
    for data in ("good-0", "bad", "good-1"):
        aws.client("kinesis").put_record(StreamName=name, Data=data.encode(), PartitionKey="one")
    url = read(
        aws,
        arn,
        MaximumRetryAttempts=1,
        BisectBatchOnFunctionError=True,
        DestinationConfig={"OnFailure": {"Destination": failure_arn}},
    )
    aws.settle()

    batches = [[lines[0] for _, lines, _ in batch] for batch in aws.bodies(url)]
    assert batches[0] == ["good-0", "bad", "good-1"]
    assert batches[1][0] == "bad"
    assert [batch for batch in batches if "good-0" in batch] == batches[:1], (
        "what was taken does not come again"
    )
    assert batches[-1] == ["good-1"], "the shard goes on"
    (told,) = aws.bodies(failure_url)
    assert told["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert told["KinesisBatchInfo"]["streamArn"] == arn
    assert told["KinesisBatchInfo"]["batchSize"] == 1
    assert "bad" not in json.dumps(told), "a place, and no data"


def test_a_filter_that_cannot_write_is_refused(aws: EmbeddedAws) -> None:
    (_, arn), group = stream(aws), ready_group(aws)
    function = aws.arn(aws.relay()[0])
    for settings, said in (
        ({"destinationArn": arn}, "test message"),
        ({"destinationArn": arn, "roleArn": writer(aws, arn, "kinesis:GetRecords")}, "test message"),
        ({"destinationArn": arn, "roleArn": writer(aws, arn, source="log-group:/other:*")}, "test message"),
        ({"destinationArn": f"{arn}-not", "roleArn": writer(aws, f"{arn}-not")}, "test message"),
        ({"destinationArn": function, "roleArn": writer(aws, arn)}, "cannot be used with roleArn"),
    ):
        with pytest.raises(ClientError, match=said):
            subscribe(aws, group, **settings)


def test_lines_that_cannot_be_written_any_more_are_counted(aws: EmbeddedAws) -> None:
    (name, arn), group = stream(aws), ready_group(aws, "a")
    subscribe(aws, group, destinationArn=arn, roleArn=writer(aws, arn))
    (record,) = aws.client("kinesis").get_records(
        ShardIterator=aws.client("kinesis").get_shard_iterator(
            StreamName=name, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
    )["Records"]
    data = record["Data"]
    tried = json.loads(gzip.decompress(data if data[:2] == b"\x1f\x8b" else base64.b64decode(data)))
    assert tried["messageType"] == "CONTROL_MESSAGE"

    aws.client("kinesis").delete_stream(StreamName=name)
    put_lines(aws, group, "a", "line 0")
    aws.settle()

    found = aws.client("cloudwatch").list_metrics(Namespace="AWS/Logs", MetricName="DeliveryErrors")[
        "Metrics"
    ]
    dimensions = [{one["Name"]: one["Value"] for one in metric["Dimensions"]} for metric in found]
    assert {"LogGroupName": group, "DestinationType": "Kinesis", "FilterName": "stream"} in dimensions
