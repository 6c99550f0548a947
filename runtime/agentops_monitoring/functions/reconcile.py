"""Lambda entry point, daily: yesterday's counts held against AWS's own, into the ledger and as metrics.

`{"day": "2026-11-22"}` as the event asks for another day.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from agentops_monitoring import settings
from agentops_monitoring.catalogue import MONITOR
from agentops_monitoring.emf import MetricValue, emf_lines
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.reconcile import BEDROCK, LAMBDA, Compared, reconcile, store

_METRICS = {LAMBDA: "ReconciliationInvocations", BEDROCK: "ReconciliationModelCalls"}


@lru_cache(maxsize=1)
def _parts() -> tuple[LedgerReader, Any, Any]:
    import boto3

    client = schema.client()
    return LedgerReader(client, schema.Tables.from_environment()), client, boto3.client("cloudwatch")


def worst(found: Sequence[Compared]) -> dict[str, float]:
    """Return, by kind, the largest share in percent that the ledger lacks of what AWS has counted."""
    return {
        kind: max((each.missing_percent for each in found if each.kind == kind), default=0.0)
        for kind in _METRICS
    }


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - Lambda's signature
    """Reconcile a day, and say what differs.

    Raises
    ------
    ValueError
        The event asks for something that is no day of the last two weeks.
    """
    asked = event.get("day")
    day = date.fromisoformat(asked) if asked else datetime.now(UTC).date() - timedelta(days=1)
    reader, dynamodb, cloudwatch = _parts()
    found = reconcile(reader, cloudwatch, day, region=cloudwatch.meta.region_name)
    store(dynamodb, schema.Tables.from_environment().ledger, day, found)
    for each in found:
        if each.missing:
            said = {"kind": each.kind, "name": each.name, "aws": each.counted, "ledger": each.booked}
            print(json.dumps({"level": "WARN", "message": "reconcile", "day": day.isoformat(), **said}))
    shares = worst(found)
    own = {"Environment": settings.load().environment}
    values = [MetricValue(MONITOR, name, shares[kind], own) for kind, name in _METRICS.items()]
    for line in emf_lines(values, at_ms=time.time_ns() // 1_000_000):
        print(line, flush=True)
    return {"day": day.isoformat(), "compared": len(found), "missing_percent": shares}
