"""Report lines that an agent printed: what they can claim is bounded, and what rests on them is counted."""

from __future__ import annotations

import json
import math
import random
import time
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring.ledger.parse import Function, read_payload
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB
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
        {"durationMs": "NaN"},
        {"initDurationMs": math.nan},
        {"billedDurationMs": math.inf},
        {"durationMs": 1e-300},
    ],
)
def test_no_report_claims_more_than_lambda_runs(claims: dict[str, Any]) -> None:
    batch = read_payload(payload([printed("r", 1, **claims)]), REGION)
    assert batch.reports == []
    (reject,) = batch.rejects
    assert "out of range" in reject.reason


ODD = st.one_of(
    st.sampled_from(
        ["NaN", "sNaN", "1E-999999", "1E+999999", "-0", "٣", "\ud800", "9" * 5_000, "0." + "0" * 40 + "1"]
    ),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    st.lists(st.none(), max_size=1),
)


@given(
    st.dictionaries(st.sampled_from(["requestId", "status", "errorType"]), ODD),
    st.dictionaries(
        st.sampled_from(
            ["durationMs", "billedDurationMs", "memorySizeMB", "initDurationMs", "maxMemoryUsedMB"]
        ),
        ODD,
    ),
    st.booleans(),
)
def test_whatever_a_printed_report_says_what_came_with_it_is_booked(
    fields: dict[str, Any], metrics: dict[str, Any], as_text: bool
) -> None:
    odd = printed("odd", 1, **metrics)
    line = json.loads(odd.message)
    line["record"] |= fields
    message = json.dumps(line)
    if as_text:
        said = {**line["record"], **line["record"]["metrics"]}
        message = f"REPORT RequestId: {said['requestId']}\tDuration: {said['durationMs']} ms\t"
        message += f"Billed Duration: {said['billedDurationMs']} ms\tMemory Size: {said['memorySizeMB']} MB\t"
        message += f"Max Memory Used: {said.get('maxMemoryUsedMB')} MB\tStatus: {said['status']}"
    both = payload([odd._replace(message=message), printed("true", 2)])
    result = LedgerWriter(FakeDynamoDB(), TABLES).write(read_payload(both, REGION))
    assert (result.reports, len(result.rejects)) in ((2, 0), (1, 1))


# Per GB-second: on demand and kept ready on x86_64, then on arm64, then of storage; per request.
RATES = {
    "us-east-1": (
        "0.0000166667",
        "0.0000097222",
        "0.0000133334",
        "0.0000077778",
        "0.0000000309",
        "0.0000002",
    ),
    "eu-west-1": ("0.0000166667", "0.0000108407", "0.0000133334", "0.0000133334", "0.000000034", "0.0000002"),
    "me-south-1": (
        "0.0000206667",
        "0.0000119251",
        "0.0000165334",
        "0.0000165334",
        "0.0000000374",
        "0.00000025",
    ),
}
# How an attempt ended, as the corpus of Lambda's lines has it: status, error type.
ENDS = (
    ("success", ""),
    ("timeout", ""),
    ("error", "Runtime.OutOfMemory"),
    ("error", "Runtime.ExitError"),
    ("failure", ""),
)


@given(
    region=st.sampled_from(sorted(RATES)),
    arm=st.booleans(),
    storage=st.none() | st.integers(512, 10_240),
    memory=st.integers(128, 10_240),
    duration=st.decimals(0, 900_000, places=3),
    init=st.none() | st.decimals("0.01", 20_000, places=2),
    end=st.sampled_from(ENDS),
    as_text=st.booleans(),
)
def test_a_report_costs_what_lambda_bills_however_the_attempt_ended(
    region: str, arm: bool, storage: int | None, memory: int, duration: Decimal, init: Decimal | None,
    end: tuple[str, str], as_text: bool,
) -> None:  # fmt: skip
    billed = math.ceil(duration + (init or 0))  # INIT is billed, and is in the billed duration already
    status, error = end
    if as_text:
        line = f"REPORT RequestId: r\tDuration: {duration} ms\tBilled Duration: {billed} ms\t"
        line += f"Memory Size: {memory} MB\tMax Memory Used: {memory} MB\t"
        line += f"Init Duration: {init} ms\t" if init else ""
        line += (f"Status: {status}" if status != "success" else "") + (
            f"\tError Type: {error}" if error else ""
        )
    else:
        metrics: dict[str, Any] = {
            "durationMs": float(duration),
            "billedDurationMs": billed,
            "memorySizeMB": memory,
        }
        metrics |= {"initDurationMs": float(init)} if init else {}
        record = {"requestId": "r", "status": status, "metrics": metrics} | (
            {"errorType": error} if error else {}
        )
        line = json.dumps({"time": "2026-11-22T08:00:00.000Z", "type": "platform.report", "record": record})
    more = "" if storage is None else f"|tmp={storage}"
    name = f"agentops|test|manager|{'arm64' if arm else 'x86_64'}{more}"
    batch = read_payload(payload([LogEvent("stream", name, "1", 1, line)]), region)
    assert batch.rejects == []
    (report,) = batch.reports
    x86, x86_ready, arm64, arm64_ready, disk, request = map(Fraction, RATES[region])
    of_disk = disk * ((storage or 512) - 512)
    for cost, rate in (
        (report.cost, arm64 if arm else x86),
        (report.provisioned_cost, arm64_ready if arm else x86_ready),
    ):
        assert Fraction(cost or 0) == Fraction(billed, 1024 * 1000) * (rate * memory + of_disk) + request
    assert (report.failed, report.error_type, bool(report.init_ms)) == (
        status != "success",
        error,
        bool(init),
    )


def test_what_printed_reports_claim_is_bounded_and_counted_as_resting_on_them_alone(dynamodb: Any) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    world = World(seed, streams=1, invocations=3, start_ms=time.time_ns() // 10**6)
    last = world.events[-1].timestamp
    forged = [
        printed(f"made-up-{number}", last, billedDurationMs=1_800_000, memorySizeMB=10_240)
        for number in range(15)
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
