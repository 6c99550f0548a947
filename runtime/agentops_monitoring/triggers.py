"""What invoked a function, by the shape of its event."""

from __future__ import annotations

from collections.abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeGuard

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
        if not _is_mapping(event):
            return "direct"
        if "detail-type" in event and "source" in event:
            return _EVENTBRIDGE.get(str(event["detail-type"]), "eventbridge")
        return _of_records(event.get("Records")) or _of_keys(event)
    except Exception:  # noqa: BLE001 - an object that raises when it is looked at
        return "direct"


def _of_records(records: object) -> str | None:
    first = records[0] if isinstance(records, list) and records else None
    if not _is_mapping(first):
        return None
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
    if not _is_mapping(request):
        return "http"
    if "elb" in request:
        return "load-balancer"
    if "connectionId" in request:
        return "websocket"
    if "lambda-url" in str(request.get("domainName")):
        return "function-url"
    return "api-gateway" if "apiId" in request else "http"


def _is_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    return issubclass(type(value), Mapping)


def _short(source: str) -> str:
    names = {"rmq": "rabbitmq", "mq": "activemq", "SelfManagedKafka": "kafka"}
    short = source.removeprefix("aws:")
    return names.get(short, short)
