"""Lambda entry point: a subscription's log events into the tables, once each; prints what they cost."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agentops_monitoring import settings
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.dead_letters import DeadLetters
from agentops_monitoring.ledger.events import Refused, Reject, Source
from agentops_monitoring.ledger.metrics import BusiestPairs, Pair, metric_lines
from agentops_monitoring.ledger.parse import decode, read_payload
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.writer import LedgerWriter, WriteResult
from agentops_monitoring.pricing import overrides

_RESERVE_S = 3.0
"""Time kept for dead letters and metrics, and to raise before Lambda ends the function."""


class Ingest:
    """The function's parts, made once per process."""

    def __init__(self) -> None:
        client = schema.client()
        tables = schema.Tables.from_environment()
        self.writer = LedgerWriter(client, tables)
        self.reader = LedgerReader(client, tables)
        self.pairs = BusiestPairs(self._busiest)
        self.environment = settings.load().environment
        self.region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"

    def _busiest(self) -> list[Pair]:
        flows = self.reader.last(2).flows
        return sorted(flows, key=lambda pair: (-flows[pair].messages, pair))

    def dead_letters(self) -> DeadLetters:
        """Return the queue of what cannot be taken; nothing is dropped for want of one."""
        import boto3

        url = os.environ.get("DEAD_LETTER_QUEUE_URL")
        if not url:
            raise RuntimeError("DEAD_LETTER_QUEUE_URL is not set, so lines that cannot be read have no place")
        return DeadLetters(boto3.client("sqs"), url)

    def __call__(self, event: Mapping[str, Any], remaining_s: float) -> WriteResult:
        """Handle one delivery. When it raises, the same delivery may come again and changes nothing twice."""
        try:
            data = event["awslogs"]["data"]
        except (KeyError, TypeError):
            raise ValueError("this function takes CloudWatch Logs subscriptions only") from None
        deadline = time.monotonic() + max(1.0, remaining_s - _RESERVE_S)
        overrides.refresh()
        try:
            payload = decode(data)
        except Refused as refused:
            self._print(WriteResult(rejects=[Reject(str(refused), Source("", 0, ""))]))
            self.dead_letters().keep_undecodable(str(data), str(refused))
            return WriteResult()
        if payload.get("messageType") == "CONTROL_MESSAGE":
            return WriteResult()
        result = self.writer.write(read_payload(payload, self.region), deadline=deadline)
        # First the metrics: a repetition after what may fail below would find nothing left to commit.
        self._print(result)
        if result.rejects:
            self.dead_letters().keep_rejects(payload, result.rejects)
        return result

    def _print(self, result: WriteResult) -> None:
        now_ms = time.time_ns() // 1_000_000
        for line in metric_lines(result, self.environment, now_ms, self.pairs):
            print(line, flush=True)


@lru_cache(maxsize=1)
def _ingest() -> Ingest:
    return Ingest()


def handler(event: Mapping[str, Any], context: Any) -> dict[str, int]:
    """Handle one delivery of a subscription filter."""
    remaining = context.get_remaining_time_in_millis() / 1000 if context is not None else 60.0
    result = _ingest()(event, remaining)
    return {
        "events": result.events,
        "reports": result.reports,
        "duplicates": result.duplicates,
        "rejected": len(result.rejects),
        "requests": result.requests,
    }
