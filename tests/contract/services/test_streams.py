"""Streams: what the exporter reads of a table and must not take for an event, and Kinesis into ingest."""

from __future__ import annotations

import base64
import gzip
import json
import time
import uuid
from typing import Any

import pytest

from tests.contract.cloud import Cloud

pytestmark = pytest.mark.xdist_group("embedded_aws")

SHOW = """
import base64
import gzip
import json
import time
def handler(event, context):
    for record in event["Records"]:
        print("RECORD " + json.dumps(record))
"""


def records(service: Cloud, table: str, pk: str, count: int) -> list[dict[str, Any]]:
    """Return the stream's records of a partition, once there are that many."""
    described = service.client("dynamodb").describe_table(TableName=table)["Table"]
    streams = service.client("dynamodbstreams")
    arn = described["LatestStreamArn"]

    def read() -> list[dict[str, Any]]:
        found = []
        for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
            iterator = streams.get_shard_iterator(
                StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            for _ in range(20):
                page = streams.get_records(ShardIterator=iterator)
                found += [each for each in page["Records"] if each["dynamodb"]["Keys"]["pk"]["S"] == pk]
                iterator = page.get("NextShardIterator")
                if not iterator or not (page["Records"] or service.real):
                    break
        return found

    return list(service.until(lambda: len(found := read()) >= count and found))


def test_a_stream_tells_inserts_changes_and_removals_in_order(service: Cloud, table: str) -> None:
    client, pk = service.client("dynamodb"), f"k#{uuid.uuid4().hex}"
    place = {"pk": {"S": pk}, "sk": {"S": "1"}}
    client.put_item(TableName=table, Item={**place, "n": {"N": "1"}})
    client.update_item(
        TableName=table,
        Key=place,
        UpdateExpression="SET n = :n",
        ExpressionAttributeValues={":n": {"N": "2"}},
    )
    client.delete_item(TableName=table, Key=place)
    told = records(service, table, pk, 3)
    assert [each["eventName"] for each in told] == ["INSERT", "MODIFY", "REMOVE"]
    images = [each["dynamodb"] for each in told]
    assert [image.get("OldImage", {}).get("n") for image in images] == [None, {"N": "1"}, {"N": "2"}]
    assert [image.get("NewImage", {}).get("n") for image in images] == [{"N": "1"}, {"N": "2"}, None]
    assert all(image["Keys"] == place for image in images)
    numbers = [int(image["SequenceNumber"]) for image in images]
    assert numbers == sorted(set(numbers))
    assert all(len(image["SequenceNumber"]) >= 21 for image in images)
    assert all(image["StreamViewType"] == "NEW_AND_OLD_IMAGES" for image in images)
    assert all(each["eventSource"] == "aws:dynamodb" and each["eventID"] for each in told)
    assert all("userIdentity" not in each for each in told)


def test_a_write_that_changes_nothing_is_not_in_the_stream(service: Cloud, table: str) -> None:
    client, pk = service.client("dynamodb"), f"k#{uuid.uuid4().hex}"
    item = {"pk": {"S": pk}, "sk": {"S": "1"}, "n": {"N": "1"}}
    place = {name: item[name] for name in ("pk", "sk")}
    for _ in range(2):
        client.put_item(TableName=table, Item=item)
    client.update_item(
        TableName=table,
        Key=place,
        UpdateExpression="SET n = :n",
        ExpressionAttributeValues={":n": {"N": "1"}},
    )
    client.batch_write_item(RequestItems={table: [{"PutRequest": {"Item": item}}]})
    client.put_item(TableName=table, Item={**item, "sk": {"S": "2"}})  # the last: nothing comes behind it
    told = records(service, table, pk, 2)
    assert [(each["eventName"], each["dynamodb"]["Keys"]["sk"]["S"]) for each in told] == [
        ("INSERT", "1"),
        ("INSERT", "2"),
    ]


def test_a_transaction_that_is_cancelled_or_repeated_is_not_in_the_stream(service: Cloud, table: str) -> None:
    client, pk, token = service.client("dynamodb"), f"k#{uuid.uuid4().hex}", uuid.uuid4().hex

    def put(sk: str) -> Any:
        item = {"pk": {"S": pk}, "sk": {"S": sk}}
        condition = {"ConditionExpression": "attribute_not_exists(pk)"}
        return {"Put": {"TableName": table, "Item": item, **condition}}

    for _ in range(2):
        client.transact_write_items(TransactItems=[put("1")], ClientRequestToken=token)
    with pytest.raises(client.exceptions.TransactionCanceledException):
        client.transact_write_items(TransactItems=[put("2"), put("1")])
    client.put_item(TableName=table, Item={"pk": {"S": pk}, "sk": {"S": "3"}})
    told = records(service, table, pk, 2)
    assert [each["dynamodb"]["Keys"]["sk"]["S"] for each in told] == ["1", "3"]


def test_a_function_gets_records_as_json(service: Cloud, table: str) -> None:
    client, pk = service.client("dynamodb"), f"k#{uuid.uuid4().hex}"
    arn = client.describe_table(TableName=table)["Table"]["LatestStreamArn"]
    actions = ["DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"]
    read = {"Effect": "Allow", "Action": [f"dynamodb:{each}" for each in actions], "Resource": "*"}
    function = service.function(SHOW, read)
    functions = service.client("lambda")
    asked = {"EventSourceArn": arn, "StartingPosition": "TRIM_HORIZON", "BatchSize": 100}

    def mapped() -> str:
        try:
            return str(functions.create_event_source_mapping(FunctionName=function, **asked)["UUID"])
        except functions.exceptions.InvalidParameterValueException:
            return ""  # on AWS a new role may not be known everywhere

    mapping = service.until(mapped)
    service.made(f"mapping {mapping}", lambda: functions.delete_event_source_mapping(UUID=mapping))
    item = {"pk": {"S": pk}, "sk": {"S": "1"}, "n": {"N": "1.50"}, "data_z": {"B": b"\x00\xff"}}
    client.put_item(TableName=table, Item=item)

    def told() -> dict[str, Any] | None:
        for _, message in service.log(f"/aws/lambda/{function}"):
            if message.startswith("RECORD ") and pk in message:
                return dict(json.loads(message.removeprefix("RECORD ")))
        return None

    record = service.until(told)
    stream = record["dynamodb"]
    assert record["eventName"] == "INSERT"
    assert record["eventSource"] == "aws:dynamodb"
    assert record["eventSourceARN"] == arn
    assert record["awsRegion"] == service.region
    assert stream["NewImage"] == {**item, "n": {"N": "1.5"}, "data_z": {"B": "AP8="}}
    assert stream["Keys"] == {"pk": {"S": pk}, "sk": {"S": "1"}}
    assert isinstance(stream["SequenceNumber"], str)
    assert isinstance(stream["ApproximateCreationDateTime"], int | float)


def test_a_function_gets_payloads_of_log_groups_from_a_kinesis_stream(service: Cloud) -> None:
    kinesis, name, group = service.client("kinesis"), service.name("stream"), service.log_group()
    service.made(f"stream {name}", lambda: kinesis.delete_stream(StreamName=name))
    kinesis.create_stream(StreamName=name, ShardCount=1)

    def described() -> Any:
        return kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]

    service.until(lambda: described()["StreamStatus"] == "ACTIVE")
    arn = described()["StreamARN"]
    actions = ["DescribeStream", "DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards"]
    read = {"Effect": "Allow", "Action": [f"kinesis:{each}" for each in actions], "Resource": arn}
    function, functions, logs = service.function(SHOW, read), service.client("lambda"), service.client("logs")
    asked = {"EventSourceArn": arn, "StartingPosition": "TRIM_HORIZON", "BatchSize": 10}

    def mapped() -> str:
        try:
            return str(functions.create_event_source_mapping(FunctionName=function, **asked)["UUID"])
        except functions.exceptions.InvalidParameterValueException:
            return ""

    mapping = service.until(mapped)
    service.made(f"mapping {mapping}", lambda: functions.delete_event_source_mapping(UUID=mapping))
    role = {"roleArn": log_writer(service, arn), "destinationArn": arn}

    def subscribed() -> bool:
        try:
            logs.put_subscription_filter(logGroupName=group, filterName="ours", filterPattern="line", **role)
        except logs.exceptions.InvalidParameterException:
            return False  # on AWS a new role may not be known everywhere
        return True

    service.until(subscribed)
    logs.create_log_stream(logGroupName=group, logStreamName="s")

    def told() -> dict[str, tuple[Any, Any]]:
        at = int(time.time() * 1000)
        line = {"timestamp": at, "message": "a line"}
        logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=[line])
        found = {}
        for _, message in service.log(f"/aws/lambda/{function}"):
            if message.startswith("RECORD "):
                record = json.loads(message.removeprefix("RECORD "))
                payload = json.loads(gzip.decompress(base64.b64decode(record["kinesis"]["data"])))
                found[payload["messageType"]] = (record, payload)
        return found if len(found) == 2 else {}

    record, payload = service.until(told)["DATA_MESSAGE"]
    assert record["eventSource"] == "aws:kinesis"
    assert record["eventSourceARN"] == arn
    assert record["eventID"].endswith(f":{record['kinesis']['sequenceNumber']}")
    assert isinstance(record["kinesis"]["approximateArrivalTimestamp"], int | float)
    assert (payload["owner"], payload["logGroup"], payload["logStream"]) == (service.account, group, "s")
    assert payload["subscriptionFilters"] == ["ours"]
    assert payload["logEvents"][0]["message"] == "a line"


def log_writer(service: Cloud, stream: str) -> str:
    """Create a role with which CloudWatch Logs may write to a stream, and return its ARN."""
    iam, name = service.client("iam"), service.name("role")
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "logs.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringLike": {"aws:SourceArn": f"arn:aws:logs:{service.region}:{service.account}:*"}},
    }
    document = {"Version": "2012-10-17", "Statement": [trust]}
    service.made(f"role {name}", lambda: iam.delete_role(RoleName=name))
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(document))["Role"]["Arn"]
    policy = {"RoleName": name, "PolicyName": "write"}
    service.made(f"policy of {name}", lambda: iam.delete_role_policy(**policy))
    document["Statement"] = [{"Effect": "Allow", "Action": "kinesis:PutRecord", "Resource": stream}]
    iam.put_role_policy(**policy, PolicyDocument=json.dumps(document))
    return str(arn)
