"""Events out of DynamoDB stream records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from agentops_monitoring.export.spans import Event, MalformedEvent


class Record(NamedTuple):
    """One inserted item and its place in the stream."""

    sequence_number: str
    item: Mapping[str, Any]


def inserted(records: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    """The items that records insert, in the stream's order.

    Deletions by time to live are in the stream as well, and so are changes; neither is an event.
    """
    from boto3.dynamodb.types import TypeDeserializer

    deserialize = TypeDeserializer().deserialize
    for record in records:
        if record.get("eventName") == "INSERT":
            stream = record["dynamodb"]
            image = stream.get("NewImage") or {}
            yield Record(
                str(stream["SequenceNumber"]), {name: deserialize(value) for name, value in image.items()}
            )


def event_of(item: Mapping[str, Any], environment: str) -> Event:
    """Read one item of the monitoring table.

    Parameters
    ----------
    item
        The item, without DynamoDB's type tags.
    environment
        The deployment whose table it is.

    Raises
    ------
    MalformedEvent
        An attribute that every event has is missing, or its data is not a JSON object.
    """
    missing = [
        name for name in ("pk", "sk", "type", "agent", "at", "trace_id", "span_id") if not item.get(name)
    ]
    if missing:
        raise MalformedEvent(f"item {item.get('pk')} {item.get('sk')} lacks {', '.join(missing)}")
    return Event(
        id=str(item["sk"]).partition("#")[2],
        type=str(item["type"]),
        agent=str(item["agent"]),
        environment=environment,
        at=str(item["at"]),
        workflow_id=str(item["pk"]).removeprefix("WF#"),
        trace_id=str(item["trace_id"]),
        span_id=str(item["span_id"]),
        parent_id=item.get("parent_id") or None,
        request_id=item.get("request_id") or None,
        data=_data(item),
    )


def _data(item: Mapping[str, Any]) -> Mapping[str, Any]:
    data = item.get("data") or {}
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except ValueError as error:
            raise MalformedEvent(f"data of {item['sk']} is not JSON: {error}") from None
    if not isinstance(data, Mapping):
        raise MalformedEvent(f"data of {item['sk']} is not an object")
    return data
