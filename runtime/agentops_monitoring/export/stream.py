"""Events out of DynamoDB stream records."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

from agentops_monitoring.export.parts import Event
from agentops_monitoring.export.spans import MalformedEvent
from agentops_monitoring.ledger.payload import unpack

Item: TypeAlias = Mapping[str, Mapping[str, Any]]
"""An item in DynamoDB's JSON, binary values as bytes."""


class Record(NamedTuple):
    """One inserted item and its place in the stream."""

    sequence_number: str
    item: Item


def inserted(records: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    """The items that records insert, in the stream's order.

    Deletions by time to live are in the stream as well, and so are changes; neither is an event.
    """
    for record in records:
        if record.get("eventName") == "INSERT":
            stream = record["dynamodb"]
            image = stream.get("NewImage") or {}
            if "withdrawn" not in image:  # of a workflow that was forgotten, only the key
                yield Record(
                    str(stream["SequenceNumber"]), {name: _with_bytes(value) for name, value in image.items()}
                )


def _with_bytes(value: Mapping[str, Any]) -> Mapping[str, Any]:
    # Lambda's event is JSON, so binary attributes come in Base64; from boto3 they come as bytes.
    binary = value.get("B")
    return {"B": base64.b64decode(binary)} if isinstance(binary, str) else value


def text_of(item: Item, name: str) -> str | None:
    """A string attribute; None where there is none."""
    value = item.get(name, {}).get("S")
    return value if isinstance(value, str) and value else None


def event_of(item: Item, environment: str) -> Event:
    """Read one item of the monitoring table.

    Parameters
    ----------
    item
        The item, whole.
    environment
        The deployment whose table it is.

    Raises
    ------
    MalformedEvent
        An attribute that every event has is missing, or its data cannot be read.
    """
    names = ("pk", "sk", "type", "agent", "at", "trace_id", "span_id")
    found = {name: text_of(item, name) for name in names}
    missing = [name for name, text in found.items() if text is None]
    if missing:
        raise MalformedEvent(f"item {found['pk']} {found['sk']} lacks {', '.join(missing)}")
    texts = {name: text or "" for name, text in found.items()}
    return Event(
        id=texts["sk"].partition("#")[2],
        type=texts["type"],
        agent=texts["agent"],
        environment=environment,
        at=texts["at"],
        workflow_id=texts["pk"].removeprefix("WF#"),
        trace_id=texts["trace_id"],
        span_id=texts["span_id"],
        parent_id=text_of(item, "parent_id"),
        request_id=text_of(item, "request_id"),
        data=_data_of(item),
        cost_usd=_price_of(item),
        user_id=text_of(item, "user_id"),
        session_id=text_of(item, "session_id"),
        tags=_tags_of(item),
    )


def _price_of(item: Item) -> Decimal | None:
    price = item.get("cost_usd", {}).get("N")
    return None if price is None else Decimal(price)


def _tags_of(item: Item) -> Mapping[str, Any] | None:
    tags = text_of(item, "tags")
    return None if tags is None else json.loads(tags)


def _data_of(item: Item) -> Mapping[str, Any]:
    """The data that an item holds; what is no JSON object becomes the field `value` of one."""
    try:
        text = unpack(item)
        if text is None:
            raise ValueError("it is not there, or not all of it")
        data = json.loads(text)
    except (ValueError, KeyError, zlib.error) as error:
        raise MalformedEvent(f"data of {text_of(item, 'sk')} cannot be read: {error}") from None
    return data if isinstance(data, dict) else {"value": data}
