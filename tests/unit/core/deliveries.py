"""What Lambda hands a function for a message that a service took: the shapes of AWS's own examples.

https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html, …/with-sns.html,
https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html,
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def sqs_record(message: Mapping[str, Any], received: int = 1) -> dict[str, Any]:
    """A record of an event source mapping, from what `receive_message` returns."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": "AQEB",
        "body": message["Body"],
        "attributes": {
            "ApproximateReceiveCount": str(received),
            "SentTimestamp": "1545082649183",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1545082649185",
        },
        "messageAttributes": {
            name: {
                "stringValue": value["StringValue"],
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": value["DataType"],
            }
            for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:my-queue",
        "awsRegion": "us-east-1",
    }


def sqs_event(messages: Sequence[Mapping[str, Any]], received: int = 1) -> dict[str, Any]:
    """The event of a batch."""
    return {"Records": [sqs_record(each, received) for each in messages]}


def sns_event(message: str, attributes: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The event of a notification, with its attributes as they were published."""
    notification = {
        "SignatureVersion": "1",
        "Timestamp": "2019-01-02T12:45:07.000Z",
        "MessageId": "95df01b4-ee98-5cb9-9903-4c221d41eb5e",
        "Message": message,
        "MessageAttributes": {
            name: {"Type": value["DataType"], "Value": value["StringValue"]}
            for name, value in attributes.items()
        },
        "Type": "Notification",
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:sns-lambda",
        "Subject": "TestInvoke",
    }
    return {"Records": [{"EventVersion": "1.0", "EventSource": "aws:sns", "Sns": notification}]}


def eventbridge_event(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The event of an entry of PutEvents."""
    return {
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": entry["DetailType"],
        "source": entry["Source"],
        "account": "123456789012",
        "time": "2026-11-22T18:43:48Z",
        "region": "us-east-1",
        "resources": [],
        "detail": json.loads(entry["Detail"]),
    }
