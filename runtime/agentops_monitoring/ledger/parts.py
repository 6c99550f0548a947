"""Data that does not fit: parts of split payloads wait for their siblings, oversized data goes to pieces."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.events import Event, Part, Refused, Reject, Source, complete, read_event

_PART_TTL_S = 14 * 86_400
_ROUNDS = 8


class PartStore:
    """Items of the ledger table that hold parts and pieces. All writes repeat without effect."""

    def __init__(self, client: Any, table: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._table = table
        self._sleep = sleep

    def assemble(self, parts: Sequence[Part]) -> tuple[list[Event], list[Reject]]:
        """Return the events whose parts are all here now; the rest waits in the table.

        An event whose parts come in two batches at once may be returned to both; its id makes it count once.
        """
        events: list[Event] = []
        rejects: list[Reject] = []
        by_event: dict[str, dict[int, Part]] = {}
        for part in parts:
            by_event.setdefault(part.event.id, {})[part.number] = part
        for event_id, found in by_event.items():
            if len(found) < next(iter(found.values())).total:
                self._put(self._part_item(part) for part in found.values())
                found = self._stored(event_id)
            if len(found) < next(iter(found.values())).total:
                continue
            try:
                events.append(_join(found))
            except Refused as refused:
                rejects += [Reject(str(refused), part.event.sources[0]) for part in found.values()]
        return events, rejects

    def put_pieces(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Store pieces of data, before the item that refers to them."""
        expires = {"N": str(int(time.time()) + schema.raw_ttl_s())}
        counts: dict[str, int] = {}
        items = []
        for owner, content in pieces:
            counts[owner] = counts.get(owner, 0) + 1
            key = {"pk": {"S": f"DATA#{owner}"}, "sk": {"S": f"{counts[owner]:06d}"}}
            items.append({**key, "data": {"B": content}, "expires_at": expires})
        self._put(items)

    def pieces(self, owner: str) -> list[bytes]:
        """Return the pieces of an owner's data, in order."""
        return [bytes(item["data"]["B"]) for item in self._query(f"DATA#{owner}")]

    def _part_item(self, part: Part) -> dict[str, Any]:
        source = part.event.sources[0]
        return {
            "pk": {"S": f"PART#{part.event.id}"},
            "sk": {"S": f"{part.number:06d}"},
            "line": {"S": source.message},
            "log_event_id": {"S": source.log_event_id},
            "timestamp_ms": {"N": str(source.timestamp_ms)},
            "expires_at": {"N": str(int(time.time()) + _PART_TTL_S)},
        }

    def _stored(self, event_id: str) -> dict[int, Part]:
        found: dict[int, Part] = {}
        for item in self._query(f"PART#{event_id}"):
            source = Source(item["log_event_id"]["S"], int(item["timestamp_ms"]["N"]), item["line"]["S"])
            part = read_event(json.loads(source.message), source)
            if isinstance(part, Part):
                found[part.number] = part
        return found

    def _query(self, pk: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": pk}},
            ConsistentRead=True,
        )
        for page in pages:
            yield from page["Items"]

    def _put(self, items: Iterable[dict[str, Any]]) -> None:
        # 25 items and 16 MB a request; parts are at most 60 kB, pieces 350 kB.
        rest = iter(items)
        while some := list(islice(rest, 25)):
            waiting = [{"PutRequest": {"Item": item}} for item in some]
            for attempt in range(_ROUNDS):
                answer = self._client.batch_write_item(RequestItems={self._table: waiting})
                waiting = answer.get("UnprocessedItems", {}).get(self._table, [])
                if not waiting:
                    break
                self._sleep(0.05 * 2**attempt)
            else:
                raise TimeoutError(f"{len(waiting)} items of {self._table} stay unprocessed")


def _join(parts: dict[int, Part]) -> Event:
    ordered = [parts[index] for index in sorted(parts)]
    first = ordered[0]
    if any(part.total != first.total for part in ordered) or len(ordered) != first.total:
        raise Refused("parts of one event disagree on their number")
    event = first.event
    try:
        event.data = json.loads("".join(part.chunk for part in ordered))
    except (ValueError, RecursionError) as error:
        raise Refused(f"the joined parts are not JSON: {error}") from None
    event.sources = tuple(part.event.sources[0] for part in ordered)
    return complete(event)
