"""A trace of production, each row one call, through the whole path: its cost is tokens times price, exactly.

The trace is Azure's of a coding service (CC-BY; Patel et al., Splitwise, ISCA 2024), from
https://github.com/Azure/AzurePublicDataset; azure_sample.csv has its first rows.
"""

from __future__ import annotations

import base64
import csv
import gzip
import json
import os
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentops_monitoring import AgentOpsMonitor, identity
from agentops_monitoring.functions import ingest
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.schema import Tables
from agentops_monitoring.testing import capture_events
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB

SAMPLE = Path(__file__).with_name("azure_sample.csv")
TRACE = Path(
    os.environ.get("AGENTOPS_AZURE_TRACE")
    or Path(__file__).parents[4] / "shared" / "data" / "azure_llm_code_trace.csv"
)
MODEL, INPUT_USD, OUTPUT_USD = "claude-haiku-4-5", Decimal("0.000001"), Decimal("0.000005")
"""USD per token: https://platform.claude.com/docs/en/about-claude/pricing (2026-11-22)."""
FUNCTION = "agentops-coder-test"
STREAM = f"2026/11/22/{FUNCTION}[$LATEST]00112233445566778899aabbccddeeff"
LINES_A_DELIVERY = 1_000


def rows(path: Path) -> Iterator[tuple[int, int]]:
    """Return the tokens in and out of each call."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            yield int(row["ContextTokens"]), int(row["GeneratedTokens"])


def deliveries(lines: list[str], at_ms: int) -> Iterator[dict[str, Any]]:
    """Return what CloudWatch Logs hands to the function."""
    for start in range(0, len(lines), LINES_A_DELIVERY):
        body = {
            "messageType": "DATA_MESSAGE",
            "owner": "123456789012",
            "logGroup": f"/aws/lambda/{FUNCTION}",
            "logStream": STREAM,
            "subscriptionFilters": ["agentops|test|coder|arm64"],
            "logEvents": [
                {"id": f"{start + number:056d}", "timestamp": at_ms, "message": line}
                for number, line in enumerate(lines[start : start + LINES_A_DELIVERY])
            ],
        }
        packed = base64.b64encode(gzip.compress(json.dumps(body).encode())).decode()
        yield {"awslogs": {"data": packed}}


@pytest.mark.parametrize("path", [SAMPLE, TRACE], ids=["sample", "trace"])
def test_costs_of_a_production_trace_are_exact(
    path: Path, monkeypatch: pytest.MonkeyPatch, full_size: bool
) -> None:
    if not path.exists():
        pytest.skip(f"{path} is not here")
    calls = list(rows(path))[: None if full_size else 600]
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", FUNCTION)
    monkeypatch.setenv("AWS_LAMBDA_LOG_STREAM_NAME", STREAM)
    identity._forget()
    with capture_events() as captured:
        monitor = AgentOpsMonitor("coder")
        told = [
            monitor.track_llm_usage(model=MODEL, input_tokens=read, output_tokens=written)
            for read, written in calls
        ]
        lines = list(captured.lines)
    identity._forget()
    client = FakeDynamoDB()
    monkeypatch.setattr(schema, "client", lambda: client)
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME")
    monkeypatch.setenv("ENVIRONMENT", "test")
    ingest._ingest.cache_clear()
    at = json.loads(lines[0])["agentops.event"]["at"]
    counted = 0
    try:
        for delivery in deliveries(lines, json.loads(lines[0])["_aws"]["Timestamp"]):
            counted += ingest.handler(delivery, None)["events"]
            assert ingest.handler(delivery, None)["events"] == 0
    finally:
        ingest._ingest.cache_clear()

    read, written = (sum(column) for column in zip(*calls, strict=True))
    expected = read * INPUT_USD + written * OUTPUT_USD
    assert counted == len(calls)
    assert told == [each * INPUT_USD + other * OUTPUT_USD for each, other in calls]
    reader = LedgerReader(client, Tables.from_environment())
    items = [
        item
        for (pk, sk), item in client.tables[Tables.from_environment().ledger].items()
        if pk.startswith("H#") and sk == schema.TOTAL
    ]
    assert sum(Decimal(item["llm_cost"]["N"]) for item in items) == expected
    assert sum(int(item["input_tokens"]["N"]) for item in items) == read
    assert sum(int(item["output_tokens"]["N"]) for item in items) == written
    days = {body[:10] for body in (at, json.loads(lines[-1])["agentops.event"]["at"])}
    assert sum(reader.spend(date.fromisoformat(day)).agents["coder"].total_cost for day in days) == expected
