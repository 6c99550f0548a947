"""Numbers that agents state: no number spoils a counter that others add to."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from agentops_monitoring.ledger.parse import read_lines
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.ledger.conftest import TABLES

ODD: tuple[Any, ...] = (
    1e300, -1e300, 1e-300, 5e-324, 10**400, -(10**40), 1e12, 0.1 + 0.2, 123456789012.12345, 0, -3.5, True,
    "7", None,
)  # fmt: skip
KINDS = (
    ("decision_made", "confidence_score"),
    ("invocation_completed", "duration_ms"),
    ("llm_usage", "duration_ms"),
    ("message_received", "latency_ms"),
)


def line(number: int, kind: str, data: dict[str, Any]) -> str:
    body = {
        "v": 1, "id": f"abc-{number}", "type": kind, "agent": "m", "at": "2026-11-22T08:00:00.000Z",
        "workflow_id": "w", "trace_id": "0" * 32, "span_id": "1" * 16, "parent_id": None, "request_id": None,
        "seq": number, "data": data,
    }  # fmt: skip
    return json.dumps({kind: 1, "agentops.event": body})


def test_no_number_keeps_others_from_being_counted(dynamodb: Any) -> None:
    writer = LedgerWriter(dynamodb, TABLES, shards=1)
    lines = [
        line(number, kind, {name: value, "message_id": str(number), "from": "a", "to": "m"})
        for number, (kind, name, value) in enumerate(
            ((kind, name, value) for kind, name in KINDS for value in ODD), start=1
        )
    ]
    # Each alone as well, behind what has been counted: DynamoDB adds in its own digits.
    for batch in (lines[::2], *([each] for each in lines[1::2])):
        assert writer.write(read_lines(batch, "p")).rejects == []
    more = len(lines) + 1
    last = [line(more + number, kind, {name: 0.125}) for number, (kind, name) in enumerate(KINDS)]
    assert writer.write(read_lines(last, "p")).events == len(KINDS)
    at = datetime(2026, 11, 22, 8, tzinfo=UTC)
    (found,) = LedgerReader(dynamodb, TABLES, shards=1).hours(at, at.replace(minute=1)).values()
    assert found.total.events == len(lines) + len(KINDS)
    counted = 7  # what is a number within the bounds, 0.125 among them
    for name in ("confidence_n", "handler_n", "llm_n", "handoff_n"):
        assert found.total.counters[name] == counted
    assert found.total.p50_handler_ms is not None
