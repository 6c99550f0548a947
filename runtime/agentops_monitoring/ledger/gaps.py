"""Events that never arrived: gaps that stay open longer than a delivery may take.

Each look at the gaps compares what is missing with what was missing at looks before: a number that is missing
at a look and at every one until `GRACE` later is lost. It counts once, and when it arrives after all, as by a
replay of its log, that is told.

Lambda tries a failed delivery again after one and after two minutes
(https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html), and ingest has a minute
for each attempt: what can come without anybody's help has come within 6 minutes. Only throttled deliveries
may take longer, up to 6 hours; they are told of as lost, and then as found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from agentops_monitoring.ledger import intervals, schema
from agentops_monitoring.ledger.intervals import Intervals

GRACE = timedelta(minutes=15)


class Gap(NamedTuple):
    """A process some of whose events are missing."""

    nonce: str
    agent: str
    log_group: str
    """Empty where the process wrote to the ledger itself."""
    log_stream: str
    missing: Intervals
    """Their numbers."""
    lost: Intervals
    """Those that were told of as lost."""
    watched: list[tuple[int, int, int]]
    """(first, last, seconds since the epoch): since which look they are missing."""


class Change(NamedTuple):
    """What a look at a process's gap found."""

    gap: Gap
    lost: int
    """Events that are lost since the look before."""
    found: int
    """Events that were told of as lost and have arrived."""


class Gaps:
    """The gaps in the ledger table.

    Parameters
    ----------
    client
        A DynamoDB client.
    table
        The ledger table.
    """

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def all(self) -> Iterator[Gap]:
        """Return the processes with a gap, and those whose gap closed of late."""
        for shard in range(schema.INDEX_SHARDS):
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": schema.gaps_shard(shard)}},
                ConsistentRead=True,
            )
            for page in pages:
                yield from map(_gap, page["Items"])

    def look(self, now: datetime) -> Iterator[Change]:
        """Return what is lost, or found, since the look before; `keep` each once it is told."""
        for gap in self.all():
            due = intervals.both(gap.missing, _older(gap.watched, now - GRACE))
            lost = _joined([*intervals.both(gap.lost, gap.missing), *due])
            watched = _watched(gap, now)
            if (lost, watched) != (gap.lost, gap.watched):
                found = intervals.size(intervals.minus(gap.lost, gap.missing))
                new = intervals.size(intervals.minus(lost, gap.lost))
                yield Change(gap._replace(lost=lost, watched=watched), new, found)

    def keep(self, change: Change) -> None:
        """Remember what a look found; another look that came first has told the same."""
        gap = change.gap
        try:
            self._client.update_item(
                TableName=self._table,
                Key={"pk": {"S": schema.gaps_pk(gap.nonce)}, "sk": {"S": gap.nonce}},
                UpdateExpression="SET lost = :lost, watched = :watched",
                # An item that expired meanwhile must not come back.
                ConditionExpression="attribute_exists(pk)",
                ExpressionAttributeValues={
                    ":lost": {"S": json.dumps(gap.lost)},
                    ":watched": {"S": json.dumps(gap.watched)},
                },
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ConditionalCheckFailedException":
                raise


def _gap(item: dict[str, Any]) -> Gap:
    def read(name: str) -> Any:
        return [tuple(each) for each in json.loads(item[name]["S"])] if name in item else []

    # Of numbers that were let go nobody knows whether they came.
    through = int(item["through"]["N"]) if "through" in item else 0
    lost = [(max(first, through + 1), last) for first, last in read("lost") if last > through]
    agent, group, stream = (str(item[name]["S"]) for name in ("agent", "log_group", "log_stream"))
    return Gap(item["sk"]["S"], agent, group, stream, read("missing"), lost, read("watched"))


def _older(watched: list[tuple[int, int, int]], than: datetime) -> Intervals:
    return [(first, last) for first, last, since in watched if since <= than.timestamp()]


def _watched(gap: Gap, now: datetime) -> list[tuple[int, int, int]]:
    """Return since when each number is missing: as before where it was, now where it was not."""
    kept = [
        (*span, since)
        for first, last, since in gap.watched
        for span in intervals.both(gap.missing, [(first, last)])
    ]
    new = intervals.minus(gap.missing, [(first, last) for first, last, _ in kept])
    return sorted([*kept, *((*span, int(now.timestamp())) for span in new)])


def _joined(spans: Intervals) -> Intervals:
    """Return the union of spans."""
    joined: Intervals = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined
