"""Messages through SQS and SNS: an attribute carries the trace, the body stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentops_monitoring import instrument
from agentops_monitoring.encoding import encode
from agentops_monitoring.instrument.outgoing import TOO_LARGE, Outgoing, fits, keep, kept, propagates
from agentops_monitoring.propagation import KEY

MAX_ATTRIBUTES = 10
"""Of a message in SQS, and of one that SNS hands to SQS as it is:
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html."""
MAX_BYTES = 262_144
"""Body and attributes of a request: what older queues and every topic take by default."""
RAISED_BYTES = 1_048_576
"""What queues take at most, and topics whose `MaximumMessageSize` says so."""


def before_send(params: Any, model: Any, context: Any, **_: Any) -> None:
    """Put the context into a message, or a batch of them, for a queue or a topic."""
    batch = model.name.endswith("Batch")
    topic = _topic(params) if model.name.startswith("Publish") else None
    channel = "sqs" if topic is None else "sns"
    # A text message to a phone, or one to an application on it, is no message to an agent.
    if not propagates(channel) or (channel == "sqs" and model.name.startswith("Publish")):
        return
    try:
        destination = topic or str(params["QueueUrl"]).rpartition("/")[2]
        entries = params["PublishBatchRequestEntries" if topic else "Entries"] if batch else [params]
        changed, messages = _with_context(entries, channel, destination)
    except Exception:  # noqa: BLE001 - botocore will say what is wrong with the entries
        return
    if batch:
        params["PublishBatchRequestEntries" if topic else "Entries"] = changed
    else:
        params.update(changed[0])
    keep(context, *messages)


def after_send(http_response: Any, parsed: Any, context: Any, **_: Any) -> None:
    """Record the messages that were taken."""
    messages = kept(context, http_response)
    taken = {each.get("Id") for each in parsed.get("Successful") or ()}
    for message in messages:
        if message is not None and (message.entry_id is None or message.entry_id in taken):
            message.record()


def _with_context(
    entries: Sequence[Mapping[str, Any]], channel: str, destination: str
) -> tuple[list[Mapping[str, Any]], list[Outgoing]]:
    monitor = instrument.monitor()
    size = before = sum(_entry_bytes(entry) for entry in entries)
    changed: list[Mapping[str, Any]] = []
    messages = []
    for entry in entries:
        attributes = dict(entry.get("MessageAttributes") or {})
        # One that came with a message and is passed on would tell of that message.
        attributes.pop(KEY, None)
        message = Outgoing(
            monitor,
            channel,
            to=_text(attributes, "to"),
            message_type=_text(attributes, "message_type") or entry.get("Subject"),
            destination=destination,
        )
        message.entry_id = entry.get("Id")
        ours = {"DataType": "String", "StringValue": encode(message.carried, redact=False)}
        grown = size + _attribute_bytes(KEY, ours)
        if len(attributes) >= MAX_ATTRIBUTES:
            message.problems.append(
                f"the message has {MAX_ATTRIBUTES} attributes and no room for its context"
            )
        elif not fits(before, grown, MAX_BYTES, RAISED_BYTES):
            message.problems.append(TOO_LARGE)
        else:
            size = grown
            attributes[KEY] = ours
        given = "MessageAttributes" in entry
        changed.append({**entry, "MessageAttributes": attributes} if attributes or given else entry)
        messages.append(message)
    return changed, messages


def _topic(params: Mapping[str, Any]) -> str | None:
    """Return the name of the topic that a message is published to."""
    arn = params.get("TopicArn") or params.get("TargetArn")
    parts = arn.split(":") if type(arn) is str else []
    # arn:aws:sns:region:account:topic; a phone's application is behind `endpoint/` or `app/`.
    return parts[5] if len(parts) == 6 and "/" not in parts[5] else None


def _text(attributes: Mapping[str, Any], name: str) -> object:
    return (attributes.get(name) or {}).get("StringValue")


def _entry_bytes(entry: Mapping[str, Any]) -> int:
    body = entry.get("MessageBody") or entry.get("Message") or ""
    attributes = entry.get("MessageAttributes") or {}
    return len(body.encode()) + sum(_attribute_bytes(name, value) for name, value in attributes.items())


def _attribute_bytes(name: str, attribute: Mapping[str, Any]) -> int:
    value = attribute.get("StringValue") or attribute.get("BinaryValue") or ""
    texts = (name, attribute.get("DataType") or "", value)
    return sum(len(each.encode() if isinstance(each, str) else each) for each in texts)
