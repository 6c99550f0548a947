"""Lines of a later version, kept whole with what frames them until a plane that knows it replays them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.events import Source
from agentops_monitoring.ledger.payload import pack, unpack
from agentops_monitoring.ledger.requests import Requests

_PAGE_LINES, _PAGE_BYTES = 200, 2_000_000
"""Of one delivery; lines of an event have 60,000 bytes at most, and a log event 1 MB."""


class LaterLine(NamedTuple):
    """A line that was kept."""

    key: tuple[str, str]
    frame: dict[str, Any]
    """The subscription's payload that it came in, without its log events."""
    source: Source

    @property
    def version(self) -> object:
        """Its version, as far as it says so where this one would."""
        return _event(self.source.message).get("v")

    def names(self, workflow_id: str) -> bool:
        """Whether it is of a workflow: by the field that says so, or by any value without such a field."""
        event = _event(self.source.message)
        named = event.get("workflow_id")
        return named == workflow_id if isinstance(named, str) else _holds(event, workflow_id)


class LaterLines:
    """The lines in the ledger table.

    Parameters
    ----------
    client
        A DynamoDB client.
    table
        The ledger table.
    requests
        How requests are sent; with that client when left out.
    """

    def __init__(self, client: Any, table: str, requests: Requests | None = None) -> None:
        self._client = client
        self._table = table
        self._requests = requests or Requests(client)

    def put(self, frame: Mapping[str, Any], lines: Sequence[Source]) -> None:
        """Keep lines; those that are kept already stay as they are."""
        expires = {"N": str(int(time.time()) + schema.raw_ttl_s())}
        framed = json.dumps(frame, separators=(",", ":"))
        items = []
        for line in lines:
            text, pieces = pack(line.message, "line")
            key = schema.later_pk(line.timestamp_ms)
            for number, piece in enumerate(pieces, start=1):
                items.append(
                    {
                        "pk": {"S": schema.pieces_pk(f"{key}#{line.log_event_id}")},
                        "sk": {"S": schema.number_sk(number)},
                        "data": {"B": piece},
                        "expires_at": expires,
                    }
                )
            items.append(
                {
                    "pk": {"S": key},
                    "sk": {"S": line.log_event_id},
                    "frame": {"S": framed},
                    "timestamp_ms": {"N": str(line.timestamp_ms)},
                    "expires_at": expires,
                    **text,
                }
            )
        self._requests.put(self._table, items)

    def all(self, now: datetime) -> Iterator[LaterLine]:
        """Return what is kept, oldest day first."""
        days = schema.raw_ttl_s() // 86_400
        for ago in range(days, -2, -1):
            day = (now.astimezone(UTC) - timedelta(days=ago)).timestamp()
            for item in self._query(schema.later_pk(int(day * 1000))):
                key = item["pk"]["S"], item["sk"]["S"]
                pieces = None
                if "line_parts" in item:
                    found = self._query(schema.pieces_pk("#".join(key)))
                    pieces = [bytes(piece["data"]["B"]) for piece in found]
                text = unpack(item, "line", pieces)
                if text is not None:
                    source = Source(key[1], int(item["timestamp_ms"]["N"]), text)
                    yield LaterLine(key, json.loads(item["frame"]["S"]), source)

    def delete(self, lines: Sequence[LaterLine]) -> None:
        """Delete lines that were replayed; pieces of large ones expire."""
        for line in lines:
            pk, sk = line.key
            self._client.delete_item(TableName=self._table, Key={"pk": {"S": pk}, "sk": {"S": sk}})

    def _query(self, pk: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": pk}},
            ConsistentRead=True,
        )
        for page in pages:
            yield from page["Items"]


def later_pages(lines: Iterable[LaterLine]) -> Iterator[list[LaterLine]]:
    """Return lines in portions that make a delivery each: of one log stream and version, and not too many."""
    waiting: dict[str, list[LaterLine]] = {}
    for line in lines:
        key = json.dumps([line.frame, line.version], sort_keys=True)
        some = waiting.setdefault(key, [])
        some.append(line)
        if len(some) >= _PAGE_LINES or sum(len(each.source.message) for each in some) > _PAGE_BYTES:
            yield waiting.pop(key)
    yield from waiting.values()


def payload_of(lines: Sequence[LaterLine]) -> dict[str, Any]:
    """Return the delivery of lines of one log stream."""
    events = [
        {
            "id": line.source.log_event_id,
            "timestamp": line.source.timestamp_ms,
            "message": line.source.message,
        }
        for line in lines
    ]
    return {**lines[0].frame, "logEvents": events}


def _event(message: str) -> dict[str, Any]:
    try:
        event = json.loads(message)["agentops.event"]
    except (ValueError, TypeError, KeyError):
        event = None
    return event if isinstance(event, dict) else {"line": message}


def _holds(value: object, wanted: str) -> bool:
    if isinstance(value, dict):
        return any(_holds(each, wanted) for each in value.values())
    if isinstance(value, list):
        return any(_holds(each, wanted) for each in value)
    return value == wanted
