"""Lambda entry point, each five minutes: what keeping environments ready costs, into the ledger."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from agentops_monitoring import settings
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.metrics import BusiestPairs, metric_lines
from agentops_monitoring.ledger.ready import Ready
from agentops_monitoring.ledger.writer import WriteResult


@lru_cache(maxsize=1)
def _ready() -> Ready:
    import boto3

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return Ready(schema.client(), boto3.client("lambda"), schema.Tables.from_environment(), region)


def handler(event: Mapping[str, Any], context: Any) -> dict[str, int]:  # noqa: ARG001 - Lambda's signature
    """Book what is due, and print it as metrics.

    Raises
    ------
    ExceptionGroup
        Some of it could not be booked.
    """
    booked = _ready().run(datetime.now(UTC))
    if booked.increments:
        now_ms = time.time_ns() // 1_000_000
        result = WriteResult(increments=booked.increments)
        pairs = BusiestPairs(list)  # there are none among these
        for line in metric_lines(result, settings.load().environment, now_ms, pairs):
            print(line, flush=True)
    for name, slots in booked.unknown.items():
        about = {"function": name, "slots": slots, "why": "nobody asked what was configured in them"}
        print(json.dumps({"level": "WARN", "message": "ready", **about}), flush=True)
    for failure in booked.failures:  # Lambda's own line on a group leaves out what is in it
        print(json.dumps({"level": "ERROR", "message": "ready", "why": str(failure)}), flush=True)
    if booked.failures:
        raise ExceptionGroup("not booked", booked.failures)
    return {"counters": len(booked.increments)}
