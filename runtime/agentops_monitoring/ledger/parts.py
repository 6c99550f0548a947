"""Data that does not fit: parts of split payloads wait for their siblings, oversized data goes to pieces."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.events import (
    Event,
    Part,
    Refused,
    Reject,
    Source,
    complete,
    decode_line,
    read_event,
)
from agentops_monitoring.ledger.requests import Requests


class PartStore:
    """Items of the ledger table that hold parts and pieces. All writes repeat without effect.

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

    def assemble(self, parts: Sequence[Part]) -> tuple[list[Event], list[Reject]]:
        """Return the events whose parts are all here now; the rest waits in the table.

        An event whose parts come in two batches at once may be returned to both; its id makes it count once.
        """
        by_event: dict[str, dict[int, Part]] = {}
        for part in parts:
            by_event.setdefault(part.event.id, {})[part.number] = part
        self._add_stored({name: found for name, found in by_event.items() if not _is_whole(found)})
        events: list[Event] = []
        rejects: list[Reject] = []
        for found in by_event.values():
            if _is_whole(found):
                try:
                    events.append(_join(found))
                except Refused as refused:
                    rejects += [Reject(str(refused), part.event.sources[0]) for part in found.values()]
        return events, rejects

    def forget(self, event: Event) -> None:
        """Leave nothing of an event's parts but their keys."""
        expires = {"N": str(int(time.time()) + schema.PART_TTL_S)}
        keys = [
            {"pk": {"S": schema.part_pk(event.id)}, "sk": {"S": schema.number_sk(number)}}
            for number in range(1, len(event.sources) + 1)
        ]
        self._requests.put(self._table, [{**key, "expires_at": expires} for key in keys])

    def put_pieces(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Store pieces of data, before the item that refers to them."""
        expires = {"N": str(int(time.time()) + schema.raw_ttl_s())}
        counts: dict[str, int] = {}
        items = []
        for owner, content in pieces:
            counts[owner] = counts.get(owner, 0) + 1
            key = {"pk": {"S": schema.pieces_pk(owner)}, "sk": {"S": schema.number_sk(counts[owner])}}
            items.append({**key, "data": {"B": content}, "expires_at": expires})
        self._requests.put(self._table, items)

    def pieces(self, owner: str) -> list[bytes]:
        """Return the pieces of an owner's data, in order."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": schema.pieces_pk(owner)}},
            ConsistentRead=True,
        )
        return [bytes(item["data"]["B"]) for page in pages for item in page["Items"]]

    def _add_stored(self, incomplete: dict[str, dict[int, Part]]) -> None:
        # First put, then get: of two batches that do so at once, the later one sees all parts.
        self._requests.put(
            self._table, [_item(part) for found in incomplete.values() for part in found.values()]
        )
        missing = [
            (schema.part_pk(event_id), schema.number_sk(number))
            for event_id, found in incomplete.items()
            for number in range(1, next(iter(found.values())).total + 1)
            if number not in found
        ]
        for item in self._requests.get(self._table, missing):
            if "line" not in item:
                continue  # of a workflow that was forgotten, and counted
            source = Source(item["log_event_id"]["S"], int(item["timestamp_ms"]["N"]), item["line"]["S"])
            part = read_event(decode_line(source.message), source)
            if isinstance(part, Part):
                incomplete[part.event.id][part.number] = part


def _item(part: Part) -> dict[str, Any]:
    source = part.event.sources[0]
    return {
        "pk": {"S": schema.part_pk(part.event.id)},
        "sk": {"S": schema.number_sk(part.number)},
        "line": {"S": source.message},
        "log_event_id": {"S": source.log_event_id},
        "timestamp_ms": {"N": str(source.timestamp_ms)},
        "expires_at": {"N": str(int(time.time()) + schema.PART_TTL_S)},
    }


def _is_whole(parts: dict[int, Part]) -> bool:
    return len(parts) >= next(iter(parts.values())).total


def _join(parts: dict[int, Part]) -> Event:
    ordered = [parts[number] for number in sorted(parts)]
    first = ordered[0]
    if any(part.total != len(ordered) for part in ordered):
        raise Refused("parts of one event disagree on their number")
    event = first.event
    try:
        event.data = json.loads("".join(part.chunk for part in ordered))
    except (ValueError, RecursionError) as error:
        raise Refused(f"the joined parts are not JSON: {error}") from None
    event.sources = tuple(part.event.sources[0] for part in ordered)
    return complete(event)
