"""Report lines that an agent printed: what they can claim is bounded, and what rests on them is counted."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from agentops_monitoring.ledger.parse import Function, read_payload
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.recount import recount
from tests.unit.ledger.streams import LogEvent, World, payload
from tests.unit.ledger.test_writer import check

REGION = "us-east-1"
MOST_USD = Decimal("0.31")
"""Of a line: twice 15 minutes of 10,240 MB of memory and storage."""


def printed(request: str, at_ms: int, **claims: Any) -> LogEvent:
    metrics = {"durationMs": 1.5, "billedDurationMs": 2, "memorySizeMB": 128, **claims}
    record = {"requestId": request, "status": "success", "metrics": metrics}
    line = {"time": "2026-11-22T08:00:00.000Z", "type": "platform.report", "record": record}
    name = "agentops|test|manager|x86_64|tmp=10240"
    return LogEvent("2026/11/22/manager[$LATEST]ab", name, f"printed-{request}", at_ms, json.dumps(line))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", ("manager", "arm64", 512)),
        ("|tmp=2048", ("manager", "arm64", 2048)),
        ("|of-a-later-version|x=1|tmp=600", ("manager", "arm64", 600)),
        ("|tmp=-5", ("manager", "arm64", 512)),
        ("|tmp=99999999", ("manager", "arm64", 512)),
        ("|tmp=", ("manager", "arm64", 512)),
    ],
)
def test_a_filters_name_says_what_a_report_does_not(fields: str, expected: tuple[str, str, int]) -> None:
    found = Function.of({"subscriptionFilters": ["another", f"agentops|test|manager|arm64{fields}"]})
    assert found == expected


@pytest.mark.parametrize(
    "claims",
    [
        {"billedDurationMs": 1_800_001},
        {"durationMs": 1_800_001},
        {"initDurationMs": 1_800_001},
        {"memorySizeMB": 10_241},
        {"memorySizeMB": 0},
        {"billedDurationMs": -1},
        {"billedDurationMs": 1.5},
        {"durationMs": 10**400},
    ],
)
def test_no_report_claims_more_than_lambda_runs(claims: dict[str, Any]) -> None:
    batch = read_payload(payload([printed("r", 1, **claims)]), REGION)
    assert batch.reports == []
    (reject,) = batch.rejects
    assert "out of range" in reject.reason


def test_what_printed_reports_claim_is_bounded_and_counted_as_resting_on_them_alone(dynamodb: Any) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    world = World(seed, streams=1, invocations=3, start_ms=time.time_ns() // 10**6)
    last = world.events[-1].timestamp
    forged = [
        printed(f"made-up-{number}", last, billedDurationMs=1_800_000, memorySizeMB=10_240)
        for number in range(40)
    ]
    writer = LedgerWriter(dynamodb, TABLES)
    for events in (world.events, forged, forged):  # again under the same id: nothing
        for start in range(0, len(events), 20):
            writer.write(read_payload(payload(events[start : start + 20]), REGION))
    check(dynamodb, recount([*world.events, *forged]))
    day = datetime.fromtimestamp(last / 1000, UTC)
    found = LedgerReader(dynamodb, TABLES).window(day, day.replace(microsecond=999_999)).agents["manager"]
    assert found.unstarted_runs >= len(forged)
    assert found.compute_cost <= len(forged) * MOST_USD + Decimal("0.1")
