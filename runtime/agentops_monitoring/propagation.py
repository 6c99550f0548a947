"""How the context travels between agents: what a message carries, and how its receiver reads it.

| sent through | carried in | found in the receiver's |
|---|---|---|
| EventBridge | the field `agentops` of `Detail` | `event["detail"]` |
| SQS, SNS | the message attribute `agentops` | `messageAttributes` of a record, also in an envelope of SNS |
| Lambda, synchronous | the text `agentops` of `ClientContext`'s `custom` | `context.client_context.custom` |
| Lambda, asynchronous | the field `agentops` of `Payload` | `event` |
| Step Functions | the field `agentops` of `input` or `output` | `event` |

Messages may be forwarded on the way, as by a rule whose target is a queue: a body that holds the text of an
event is looked into.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from agentops_monitoring.trace import TraceContext, is_hex, is_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeGuard

KEY = "agentops"
"""Name of the field, or of the attribute, that carries the context."""

_MAX_NAME = 256


class Incoming:
    """The context that came with a message."""

    __slots__ = (
        "channel", "hop", "message_id", "message_type", "redelivered", "sender", "sent_ms", "session_id",
        "span_id", "to", "trace_id", "user_id", "workflow_id", "workflow_started_ms",
    )  # fmt: skip

    def __init__(
        self,
        carried: Mapping[str, Any],
        trace_id: str,
        span_id: str,
        *,
        channel: str,
        message_type: object,
        redelivered: bool,
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        """The sender's message span."""
        self.workflow_id = _name(carried.get("workflow_id")) or trace_id
        self.sender = _name(carried.get("from"))
        self.to = _name(carried.get("to"))
        self.hop = _count(carried.get("hop"))
        self.sent_ms = _count(carried.get("sent_ms"))
        self.message_id = _name(carried.get("message_id")) or span_id
        self.message_type = _name(message_type) or _name(carried.get("type"))
        self.workflow_started_ms = _count(carried.get("workflow_started_ms")) or self.sent_ms
        self.channel = _name(carried.get("channel")) or channel
        """How it was sent, whatever service delivers it."""
        self.redelivered = redelivered
        """Whether the service says that it delivers it again."""
        self.user_id = _name(carried.get("user_id"))
        self.session_id = _name(carried.get("session_id"))

    def context(self, *, span_id: str, request_id: str | None, calls: list[object] | None) -> TraceContext:
        """Return the context of work on this message, below the given span."""
        return TraceContext(
            self.workflow_id,
            trace_id=self.trace_id,
            span_id=span_id,
            request_id=request_id,
            hop=self.hop,
            workflow_started_ms=self.workflow_started_ms,
            calls=calls,
            user_id=self.user_id,
            session_id=self.session_id,
        )


def carried(
    context: TraceContext,
    *,
    span_id: str,
    sender: str,
    to: str | None,
    message_id: str,
    sent_ms: int,
    channel: str,
    message_type: str | None = None,
) -> dict[str, Any]:
    """Return what a message carries."""
    fields: dict[str, Any] = {
        "traceparent": f"00-{context.trace_id}-{span_id}-01",
        "workflow_id": context.workflow_id,
        "from": sender,
        "hop": context.hop + 1,
        "sent_ms": sent_ms,
        "message_id": message_id,
        "workflow_started_ms": context.workflow_started_ms or sent_ms,
        "channel": channel,
    }
    optional = {
        "to": to,
        "type": message_type,
        "user_id": context.user_id,
        "session_id": context.session_id,
    }
    return fields | {name: value for name, value in optional.items() if value}


def received(event: object, lambda_context: object = None) -> list[Incoming | None]:
    """Read the context of each message that an invocation brings.

    Parameters
    ----------
    event, lambda_context
        The handler's arguments: an EventBridge event, records of SQS or SNS, a payload, any object.

    Returns
    -------
    list
        One entry a message, None for one without a context that makes sense; empty for what is no message.
    """
    # What a sender put beside its payload or into it comes first: the payload may be the event that the
    # sender got itself, with the context of that one in it.
    single = _of_client(lambda_context) or _of_payload(event)
    if single is not None:
        return [single]
    records: object = event if type(event) is list else None
    with suppress(Exception):  # an object that raises when it is looked at
        if _is_mapping(event):
            records = event.get("Records")
    if type(records) is list:
        found = [message_of(record) for record in records]
        return found if any(found) else []
    single = _of_event(event)
    return [] if single is None else [single]


def message_of(record: object) -> Incoming | None:
    """Read the context of one message: a record of an event, or what `receive_message` of SQS returns."""
    try:
        if not _is_mapping(record):
            return None
        if _is_mapping(record.get("Sns")):
            return _of_sns(record["Sns"])
        again = _received_before(record.get("attributes") or record.get("Attributes"))
        attributes = record.get("messageAttributes") or record.get("MessageAttributes")
        return _of_attributes(attributes, "sqs", again) or _of_text(
            record.get("body") or record.get("Body"), again
        )
    except Exception:  # noqa: BLE001 - an object that raises when it is looked at
        return None


def _of_sns(notification: Mapping[str, Any], redelivered: bool = False) -> Incoming | None:
    return _of_attributes(notification.get("MessageAttributes"), "sns", redelivered) or _of_text(
        notification.get("Message"), redelivered
    )


def _of_attributes(attributes: object, channel: str, redelivered: bool) -> Incoming | None:
    attribute = attributes.get(KEY) if _is_mapping(attributes) else None
    if not _is_mapping(attribute):
        return None
    # As Lambda, SQS itself and SNS spell it.
    for name in ("stringValue", "StringValue", "Value"):
        text = attribute.get(name)
        if type(text) is str:
            return _read(_json(text), channel=channel, redelivered=redelivered)
    return None


def _of_text(text: object, redelivered: bool) -> Incoming | None:
    # Most bodies are no concern of ours, and are not parsed.
    if type(text) is not str or KEY not in text:
        return None
    body = _json(text)
    if _is_mapping(body) and body.get("Type") == "Notification":
        return _of_sns(body, redelivered)
    return _of_payload(body, redelivered) or _of_event(body, redelivered)


def _of_payload(event: object, redelivered: bool = False) -> Incoming | None:
    try:
        given = event.get(KEY) if _is_mapping(event) else None
        return _read(given, channel="lambda", redelivered=redelivered)
    except Exception:  # noqa: BLE001 - an object that raises when it is looked at
        return None


def _of_event(event: object, redelivered: bool = False) -> Incoming | None:
    try:
        detail = event.get("detail") if _is_mapping(event) else None
        if not _is_mapping(event) or not _is_mapping(detail):
            return None
        kind = event.get("detail-type")
        return _read(detail.get(KEY), channel="eventbridge", message_type=kind, redelivered=redelivered)
    except Exception:  # noqa: BLE001 - an object that raises when it is looked at
        return None


def _of_client(lambda_context: object) -> Incoming | None:
    try:
        custom = getattr(getattr(lambda_context, "client_context", None), "custom", None)
        given = custom.get(KEY) if _is_mapping(custom) else None
        return _read(_json(given), channel="lambda") if type(given) is str else None
    except Exception:  # noqa: BLE001 - an object that raises when it is looked at
        return None


def _read(
    carried: object, *, channel: str, message_type: object = None, redelivered: bool = False
) -> Incoming | None:
    if not _is_mapping(carried):
        return None
    parent = str(carried.get("traceparent", "")).split("-")
    # Later versions may append fields; ff is forbidden: https://www.w3.org/TR/trace-context/#version.
    if len(parent) < 4 or not is_hex(parent[0], 2) or parent[0] == "ff":
        return None
    if not is_id(parent[1], 32) or not is_id(parent[2], 16):
        return None
    return Incoming(
        carried, parent[1], parent[2], channel=channel, message_type=message_type, redelivered=redelivered
    )


def _received_before(attributes: object) -> bool:
    count = attributes.get("ApproximateReceiveCount") if _is_mapping(attributes) else None
    return type(count) is str and count.isdecimal() and int(count) > 1


def _json(text: str) -> object:
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    # By its type alone: Powertools' data classes are mappings, and some objects raise at every touch.
    kind = type(value)
    return kind is dict or issubclass(kind, Mapping)


def _name(value: object) -> str | None:
    return value if type(value) is str and 0 < len(value) <= _MAX_NAME else None


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
