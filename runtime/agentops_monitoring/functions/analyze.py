"""Lambda entry point, each five minutes: findings since the last run, as metrics and on the bus."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from agentops_monitoring import settings
from agentops_monitoring.analysis.findings import GRACE, LOOKBACK, Finding, find
from agentops_monitoring.catalogue import ANOMALIES, COLLABORATION, MONITOR
from agentops_monitoring.emf import MetricValue, emf_lines
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.gaps import Gaps
from agentops_monitoring.ledger.reader import LedgerReader

SLICE = timedelta(minutes=5)
SOURCE = "agentops.analyze"
DETAIL_TYPE = "agentops.finding"
_KINDS = ("lost_message", "handoff_loop", "traffic_spike")


class Cursor:
    """How far analysis has come, kept in the ledger, so that a late run skips nothing."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table
        self._key = {"pk": {"S": "CURSOR#analyze"}, "sk": {"S": schema.STATE}}

    def read(self) -> datetime | None:
        """Return where the last run ended; None before the first."""
        found = self._client.get_item(TableName=self._table, Key=self._key, ConsistentRead=True).get("Item")
        return datetime.fromisoformat(found["analyzed_until"]["S"]) if found else None

    def move(self, before: datetime | None, until: datetime) -> bool:
        """Move on; False when another run did so meanwhile, and found the same."""
        from botocore.exceptions import ClientError

        values = {":until": {"S": until.isoformat()}}
        condition = "attribute_not_exists(pk)"
        if before is not None:
            condition, values[":before"] = "analyzed_until = :before", {"S": before.isoformat()}
        try:
            self._client.update_item(
                TableName=self._table,
                Key=self._key,
                UpdateExpression="SET analyzed_until = :until",
                ConditionExpression=condition,
                ExpressionAttributeValues=values,
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
                return False
            raise
        return True


def due(before: datetime | None, now: datetime) -> tuple[datetime, datetime]:
    """Return the slice of time that a run looks at; it is empty when there is nothing new."""
    end = now - GRACE
    return max(before or end - SLICE, end - LOOKBACK), end


def metric_values(findings: Sequence[Finding], environment: str) -> list[MetricValue]:
    """Return the metrics of findings, zeros included: no data must mean that nothing ran."""
    own = {"Environment": environment}
    counts = {kind: float(sum(each.kind == kind for each in findings)) for kind in _KINDS}
    return [
        *(MetricValue(ANOMALIES, kind, count, own) for kind, count in counts.items()),
        MetricValue(COLLABORATION, "LostMessages", counts["lost_message"], own),
        MetricValue(COLLABORATION, "LoopsDetected", counts["handoff_loop"], own),
    ]


def publish(client: Any, bus: str, findings: Sequence[Finding], environment: str) -> None:
    """Put findings on the bus, ten a request.

    Raises
    ------
    RuntimeError
        The bus refused some.
    """
    for start in range(0, len(findings), 10):
        entries = [
            {
                "Source": SOURCE,
                "DetailType": DETAIL_TYPE,
                "EventBusName": bus,
                "Detail": json.dumps({"environment": environment, "kind": each.kind, "key": each.key}
                                     | {"evidence": each.evidence}),
            }
            for each in findings[start : start + 10]
        ]  # fmt: skip
        answer = client.put_events(Entries=entries)
        if answer.get("FailedEntryCount"):
            raise RuntimeError(f"the bus {bus} refused {answer['FailedEntryCount']} findings")


def tell_lost(gaps: Gaps, environment: str, now: datetime) -> None:
    """Print how many events are lost that were not before, and which of those told of have arrived."""
    changes = list(gaps.look(now))
    lost = MetricValue(
        MONITOR, "LostEvents", sum(each.lost for each in changes), {"Environment": environment}
    )
    for line in emf_lines([lost], at_ms=time.time_ns() // 1_000_000):
        print(line, flush=True)
    for change in changes:
        if change.lost or change.found:
            about = {
                "message": "events are missing" if change.lost else "events arrived that were missing",
                "lost": change.lost,
                "found": change.found,
                "agent": change.gap.agent,
                "log_group": change.gap.log_group,
                "log_stream": change.gap.log_stream,
                "numbers": [f"{change.gap.nonce}-{first}…{last}" for first, last in change.gap.missing[:5]],
            }
            print(json.dumps({"level": "WARN" if change.lost else "INFO", **about}), flush=True)
        # Last: what fails before is told again.
        gaps.keep(change)


@lru_cache(maxsize=1)
def _parts() -> tuple[LedgerReader, Cursor, Gaps]:
    client, tables = schema.client(), schema.Tables.from_environment()
    return LedgerReader(client, tables), Cursor(client, tables.ledger), Gaps(client, tables.ledger)


def handler(event: Mapping[str, Any], context: Any) -> None:  # noqa: ARG001 - Lambda's signature
    """Print the metrics of what was found, and put the findings on the bus."""
    reader, cursor, gaps = _parts()
    found = settings.load()
    tell_lost(gaps, found.environment, datetime.now(UTC))
    before = cursor.read()
    start, end = due(before, datetime.now(UTC))
    if start >= end:
        return
    findings = find(reader, start, end)
    for line in emf_lines(metric_values(findings, found.environment), at_ms=time.time_ns() // 1_000_000):
        print(line, flush=True)
    if findings:
        import boto3

        publish(boto3.client("events"), found.event_bus, findings, found.environment)
    # Last, so that what fails before is found again: a finding may repeat, with its key, and is never missed.
    cursor.move(before, end)
