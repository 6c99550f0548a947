"""What a load takes of DynamoDB: request units, counted from the sizes of the very items that ingest writes.

Sizes: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
Units: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html; a write in
a transaction takes two for each kilobyte, that of an index, which follows by itself, takes one.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from unittest.mock import patch

from benchmarks.workload import Delivery
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB

_TABLES = {
    "MONITORING_TABLE_NAME": "events",
    "DECISIONS_TABLE_NAME": "decisions",
    "LEDGER_TABLE_NAME": "ledger",
}
ITEM_OVERHEAD = 100
"""Bytes of storage for each item, and for each in an index."""


@dataclass(slots=True)
class Units:
    """What was taken so far."""

    calls: float = 0
    raw: float = 0
    """Write units of events and decisions."""
    index: float = 0
    """Write units of their indexes."""
    states: float = 0
    """Write units of what belongs to one invocation, workflow, message or process."""
    counters: float = 0
    """Write units of counters that many share."""
    busiest: float = 0
    """Those of them that go to the hour's key of the log stream's shard."""
    hottest: float = 0
    """Write units of the one index key that takes most of them."""
    reads: float = 0
    stored: float = 0
    """Bytes of events and decisions, and of their indexes."""
    printed: float = 0
    """Bytes that the function prints."""

    def minus(self, other: Units) -> Units:
        """Return the difference."""
        return Units(*(getattr(self, each.name) - getattr(other, each.name) for each in fields(self)))


class Meter(FakeDynamoDB):
    """Tables in memory that count what is asked of them."""

    def __init__(self) -> None:
        super().__init__()
        self.units = Units()
        self._by_key: Counter[str] = Counter()

    def _call(self, operation: str, effect: Any) -> Any:
        self.units.calls += 1
        return super()._call(operation, effect)

    def transact_write_items(self, *, TransactItems: list[Any], ClientRequestToken: str) -> Any:
        """Count every action of a transaction, by the item that it leaves."""
        answer = super().transact_write_items(
            TransactItems=TransactItems, ClientRequestToken=ClientRequestToken
        )
        for action in TransactItems:
            ((_, body),) = action.items()
            self._wrote(body["TableName"], body.get("Item") or body["Key"], 2)
        return answer

    def batch_write_item(self, *, RequestItems: Any) -> Any:
        """Count the puts of a batch."""
        answer = super().batch_write_item(RequestItems=RequestItems)
        for table, requests in RequestItems.items():
            for each in requests:
                self._wrote(table, each["PutRequest"]["Item"], 1)
        return answer

    def put_item(self, *, TableName: str, **body: Any) -> Any:
        """Count a put."""
        answer = super().put_item(TableName=TableName, **body)
        self._wrote(TableName, body["Item"], 1)
        return answer

    def update_item(self, *, TableName: str, **body: Any) -> Any:
        """Count an update."""
        answer = super().update_item(TableName=TableName, **body)
        self._wrote(TableName, body["Key"], 1)
        return answer

    def batch_get_item(self, *, RequestItems: Any) -> Any:
        """Count every key, those without an item as well."""
        for table, request in RequestItems.items():
            for key in request["Keys"]:
                item = self._table(table).get((key["pk"]["S"], key["sk"]["S"]), {})
                self.units.reads += max(1, math.ceil(size(item) / 4096))
        return super().batch_get_item(RequestItems=RequestItems)

    def query(self, **arguments: Any) -> Any:
        """Count what a query returns."""
        answer = super().query(**arguments)
        self.units.reads += max(1, math.ceil(sum(map(size, answer["Items"])) / 4096))
        return answer

    def _wrote(self, table: str, key: Mapping[str, Any], factor: int) -> None:
        pk = key["pk"]["S"]
        item = self._table(table)[pk, key["sk"]["S"]]
        units = factor * max(1, math.ceil(size(item) / 1024))
        if table != "ledger":
            self.units.raw += units
            self.units.stored += size(item) + ITEM_OVERHEAD
            for index in ("gsi1pk", "gsi2pk"):
                if index in item:
                    self._by_key[f"{table} {index} {item[index]['S']}"] += max(
                        1, math.ceil(size(item) / 1024)
                    )
                    self.units.stored += size(item) + ITEM_OVERHEAD
            self.units.index = self._by_key.total()
            self.units.hottest = max(self._by_key.values(), default=0)
        elif pk.startswith(("H#", "D#", "M#")):
            self.units.counters += units
            self.units.busiest += units * pk.startswith("H#")
        else:
            self.units.states += units


def size(item: Mapping[str, Any]) -> int:
    """Return the bytes of an item, without the overhead of storage."""
    total = 0
    for name, value in item.items():
        ((kind, content),) = value.items()
        if kind == "N":
            total += math.ceil(len(content.replace(".", "").strip("-0")) / 2) + 1
        else:
            total += 1 if kind == "BOOL" else len(content.encode() if isinstance(content, str) else content)
        total += len(name.encode())
    return total


def metered(batches: Iterable[Delivery]) -> Iterator[Units]:
    """Run the function on deliveries, one after the other, and yield what was taken up to each."""
    from agentops_monitoring.functions.ingest import Ingest
    from agentops_monitoring.ledger import schema

    meter = Meter()
    with patch.dict(os.environ, _TABLES), patch.object(schema, "client", return_value=meter):
        ingest = Ingest()
        for each in batches:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                result = ingest(each.event, 60.0)
            assert result.events == each.events, result
            assert not result.rejects, result
            meter.units.printed += len(printed.getvalue())
            yield replace(meter.units)
