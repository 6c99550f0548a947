"""What invoked a function, by the shape of its event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

# A key of the event, and the source it tells of; the first that matches counts. The shapes are those of
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-services.html and the services' own pages.
_BY_KEY = (
    ("alarmData", "alarm"),
    ("requestContext", "http"),
    ("awslogs", "logs"),
    ("deliveryStreamArn", "firehose"),
    ("methodArn", "authorizer"),
    ("routeArn", "authorizer"),
    ("triggerSource", "cognito"),
    ("actionGroup", "bedrock-agent"),
    ("ResponseURL", "cloudformation"),
    ("CodePipeline.job", "codepipeline"),
    ("configRuleName", "config"),
    ("invocationSchemaVersion", "s3-batch"),
    ("bot", "lex"),
    ("SecretId", "secretsmanager"),
    ("fieldName", "appsync"),
)
_EVENTBRIDGE = {
    "Scheduled Event": "schedule",
    "CloudWatch Alarm State Change": "alarm",
}


def trigger_of(event: object) -> str:
    """Name what invoked the function, as "sqs" or "eventbridge"; "direct" where nothing tells."""
    try:
        if issubclass(type(event), list):
            return _of_records(event) or "direct"
        if not issubclass(type(event), Mapping):
            return "direct"
        event = cast("Mapping[str, object]", event)
        if "detail-type" in event and "source" in event:
            return _EVENTBRIDGE.get(str(event["detail-type"]), "eventbridge")
        return _of_records(event.get("Records")) or _of_keys(event)
    except Exception:  # noqa: BLE001 - an object that raises when it is looked at
        return "direct"


def _of_records(records: object) -> str | None:
    first = records[0] if isinstance(records, list) and records else None
    if not issubclass(type(first), Mapping):
        return None
    first = cast("Mapping[str, object]", first)
    source = first.get("eventSource") or first.get("EventSource")
    if type(source) is str:
        return _short(source)
    return "cloudfront" if "cf" in first else None


def _of_keys(event: Mapping[str, object]) -> str:
    for key, trigger in _BY_KEY:
        if key in event:
            return _of_http(event) if trigger == "http" else trigger
    # Kafka and message brokers name themselves at the top.
    source = event.get("eventSource")
    if type(source) is str:
        return _short(source)
    return "appsync" if "arguments" in event and "info" in event else "direct"


def _of_http(event: Mapping[str, object]) -> str:
    request = event["requestContext"]
    if not issubclass(type(request), Mapping):
        return "http"
    request = cast("Mapping[str, object]", request)
    if "elb" in request:
        return "load-balancer"
    if "connectionId" in request:
        return "websocket"
    if "lambda-url" in str(request.get("domainName")):
        return "function-url"
    return "api-gateway" if "apiId" in request else "http"


def _short(source: str) -> str:
    names = {"rmq": "rabbitmq", "mq": "activemq", "SelfManagedKafka": "kafka"}
    short = source.removeprefix("aws:")
    return names.get(short, short)
