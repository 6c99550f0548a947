"""Items that outlive their time leave their table, and the stream tells of it as AWS does."""

from __future__ import annotations

import time
from typing import Any

from agentops_monitoring.export.stream import inserted
from tests.integration.conftest import EmbeddedAws, running_aws

DAY = 86_400
TELL = """
import boto3, json, os
def handler(event, context):
    for record in event["Records"]:
        boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps(record))
"""


def test_expiry_is_a_removal_by_the_service_and_no_event() -> None:
    with running_aws() as (_, url):
        told = expire(EmbeddedAws(url))
    names = [(each["eventName"], each["dynamodb"]["Keys"]["pk"]["S"]) for each in told]
    assert names == [("INSERT", "mortal"), ("INSERT", "lasting"), ("INSERT", "eternal"), ("REMOVE", "mortal")]
    # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/time-to-live-ttl-streams.html
    by = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
    assert [each.get("userIdentity") for each in told] == [None, None, None, by]
    assert told[3]["dynamodb"]["OldImage"]["pk"] == {"S": "mortal"}
    assert [record.item["pk"]["S"] for record in inserted(told)] == ["mortal", "lasting", "eternal"]


def expire(aws: EmbeddedAws) -> list[dict[str, Any]]:
    """Let an item expire, and return what a reader of the table's stream was given."""
    client, (table, arn) = aws.client("dynamodb"), aws.stream_table("NEW_AND_OLD_IMAGES")
    client.update_time_to_live(
        TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_at"}
    )
    function, queue = aws.relay(TELL)
    aws.client("lambda").create_event_source_mapping(
        FunctionName=function, EventSourceArn=arn, StartingPosition="TRIM_HORIZON"
    )
    for name, days in (("mortal", 90), ("lasting", 92)):
        expires = {"N": str(int(time.time()) + days * DAY)}
        client.put_item(TableName=table, Item={"pk": {"S": name}, "expires_at": expires})
    client.put_item(TableName=table, Item={"pk": {"S": "eternal"}})
    aws.local("clock", {"advance_seconds": 89 * DAY})
    assert client.scan(TableName=table)["Count"] == 3
    aws.local("clock", {"advance_seconds": 2 * DAY})
    left = [item["pk"]["S"] for item in client.scan(TableName=table)["Items"]]
    assert sorted(left) == ["eternal", "lasting"]
    records: list[dict[str, Any]] = []

    def taken() -> bool:
        records.extend(aws.bodies(queue))
        return len(records) >= 4

    aws.until(taken, 15)
    return sorted(records, key=lambda record: record["dynamodb"]["SequenceNumber"])
