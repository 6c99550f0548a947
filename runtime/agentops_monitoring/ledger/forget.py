"""A workflow's data, deleted: what remains are the keys of its events, and every counter as it was.

First the workflow is marked, so that what ingest writes from then on are keys alone (`items.stub`). Then its
data goes, an event's key last: an interruption leaves nothing behind that a repetition would not find. The
keys stay for as long as the data would have, for without them a replay would count its lines again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from agentops_monitoring.event_types import DECISION_OUTCOME
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.later import LaterLines
from agentops_monitoring.ledger.parts import PartStore
from agentops_monitoring.ledger.payload import pack, unpack
from agentops_monitoring.ledger.requests import LedgerBusy, Requests
from agentops_monitoring.ledger.workflows import Workflow

IN_FLIGHT_S = 65.0
"""Ingest ends within 60 seconds; one that read the workflow before it was marked may write it until then."""
_ATTEMPTS = 10
_BATCH = 100

Item = Mapping[str, Any]


class Forgotten(NamedTuple):
    """How much was deleted, or was found to delete."""

    events: int = 0
    """Events of which only the key is left."""
    decisions: int = 0
    outcomes: int = 0
    pieces: int = 0
    """Items that hold what was too large for one."""
    parts: int = 0
    """Items that hold parts of split lines."""
    later: int = 0
    """Lines of a later version that name the workflow."""

    def plus(self, other: Forgotten) -> Forgotten:
        """Return the sums."""
        return Forgotten(*(mine + yours for mine, yours in zip(self, other, strict=True)))


class Forget:
    """Forgets workflows.

    Parameters
    ----------
    client
        A DynamoDB client.
    tables
        Names of the tables.
    sleep
        Waits, in seconds.
    """

    def __init__(
        self, client: Any, tables: schema.Tables, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = client
        self._tables = tables
        self._requests = Requests(client)
        self._parts = PartStore(client, tables.ledger, self._requests)
        self._later = LaterLines(client, tables.ledger, self._requests)
        self._sleep = sleep

    def mark(self, workflow_id: str) -> None:
        """Let ingest keep nothing more of a workflow but keys; once is enough.

        Raises
        ------
        LedgerBusy
            Others kept changing the workflow.
        """
        key = {"pk": {"S": schema.workflow_pk(workflow_id)}, "sk": {"S": schema.STATE}}
        for _ in range(_ATTEMPTS):
            item = self._client.get_item(TableName=self._tables.ledger, Key=key, ConsistentRead=True).get(
                "Item"
            )
            state = Workflow(int(item["ver"]["N"]), unpack(item, "state")) if item else Workflow()
            if state.forgotten:
                return
            state.forgotten = True
            packed, _ = pack(state.text(), "state")
            put: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
            if item:
                put["ConditionExpression"] = "ver = :known"
                put["ExpressionAttributeValues"] = {":known": item["ver"]}
            changed = {
                "ver": {"N": str(state.version + 1)},
                "expires_at": {"N": str(int(time.time()) + schema.raw_ttl_s())},
            }
            try:
                self._client.put_item(TableName=self._tables.ledger, Item={**key, **changed, **packed}, **put)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "ConditionalCheckFailedException":
                    raise
                self._sleep(0.05)
                continue
            return
        raise LedgerBusy(f"workflow {workflow_id} keeps changing")

    def sweep(self, workflow_id: str, *, dry_run: bool = False) -> Iterator[Forgotten]:
        """Delete what there is of a workflow, and tell of each portion.

        Parameters
        ----------
        workflow_id
            Which.
        dry_run
            Count only.
        """
        pk = schema.workflow_pk(workflow_id)
        for items in _portions(self._query(self._tables.decisions, pk)):
            pieces = self._pieces(items, "#decision")
            if not dry_run:
                self._requests.delete(self._tables.ledger, pieces)
                self._requests.delete(self._tables.decisions, [_key(item) for item in items])
            yield Forgotten(decisions=len(items), pieces=len(pieces))
        for items in _portions(self._query(self._tables.monitoring, pk)):
            items = [item for item in items if "withdrawn" not in item]
            outcomes = list(self._outcomes(items))
            pieces, parts = self._pieces(items, ""), self._parts_of(items)
            if not dry_run:
                self._requests.delete(self._tables.decisions, outcomes)
                self._requests.delete(self._tables.ledger, [*pieces, *parts])
                self._requests.put(self._tables.monitoring, map(_stub, items))
            yield Forgotten(len(items), 0, len(outcomes), len(pieces), len(parts))
        lines = [each for each in self._later.all(datetime.now(UTC)) if each.names(workflow_id)]
        if lines:
            if not dry_run:
                self._later.delete(lines)
            yield Forgotten(later=len(lines))

    def _outcomes(self, items: Iterable[Item]) -> Iterator[tuple[str, str]]:
        """Return the keys under which decisions' outcomes are kept, which these events told."""
        for item in items:
            if item["type"]["S"] == DECISION_OUTCOME:
                event_id = _id(item)
                pieces = self._parts.pieces(event_id) if "data_parts" in item else None
                data = json.loads(unpack(item, "data", pieces) or "null")
                decision = data.get("decision_id") if isinstance(data, dict) else None
                if isinstance(decision, str) and decision:
                    yield schema.outcome_pk(decision), item["sk"]["S"]

    def _pieces(self, items: Iterable[Item], suffix: str) -> list[tuple[str, str]]:
        owners = [_id(item) + suffix for item in items if "data_parts" in item]
        return [
            _key(each)
            for owner in owners
            for each in self._query(self._tables.ledger, schema.pieces_pk(owner))
        ]

    def _parts_of(self, items: Iterable[Item]) -> list[tuple[str, str]]:
        # Of an event that is in the ledger, either all parts were kept or none.
        first = [(schema.part_pk(_id(item)), schema.number_sk(1)) for item in items]
        kept = [item["pk"]["S"] for item in self._requests.get(self._tables.ledger, first)]
        return [_key(each) for pk in kept for each in self._query(self._tables.ledger, pk)]

    def _query(self, table: str, pk: str) -> Iterator[Item]:
        pages = self._client.get_paginator("query").paginate(
            TableName=table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": pk}},
            ConsistentRead=True,
        )
        for page in pages:
            yield from page["Items"]


def _portions(items: Iterator[Item]) -> Iterator[list[Item]]:
    portion: list[Item] = []
    for item in items:
        portion.append(item)
        if len(portion) == _BATCH:
            yield portion
            portion = []
    if portion:
        yield portion


def _id(item: Item) -> str:
    return str(item["sk"]["S"]).partition("#")[2]


def _key(item: Item) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def _stub(item: Item) -> dict[str, Any]:
    kept = {name: item[name] for name in ("pk", "sk", "expires_at")}
    return {**kept, "withdrawn": {"BOOL": True}}
