"""The users' own example of asking the analyzer, verbatim, on tables as deployed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.analysis.test_analyzer import Ledger
from tests.unit.ledger.conftest import TABLES, create_tables

EXAMPLE = Path(__file__).parents[1] / "data" / "seed_analyzer_example.py.txt"


@pytest.fixture
def dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make the tables, and name them as the deployment does."""
    for name, table in zip(("MONITORING", "DECISIONS", "LEDGER"), TABLES, strict=True):
        monkeypatch.setenv(f"{name}_TABLE_NAME", table)
    with mock_aws():
        client = boto3.client("dynamodb")
        create_tables(client)
        yield client


def run_example() -> None:
    """Run the example as a script of its own would run."""
    exec(compile(EXAMPLE.read_text(), str(EXAMPLE), "exec"), {})


def test_it_tells_of_what_happened(dynamodb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    now, told = datetime.now(UTC), Ledger()
    for index in range(3):
        place: dict[str, Any] = {"workflow": f"w{index}", "at": now}
        told.tell("manager", "issue_detected", **place)
        told.say("manager", "engineer", f"m{index}", **place)
        told.hear("manager", "engineer", f"m{index}", **place)
        told.call("manager", "claude-3-opus", 100, 50, **place)
        told.call("engineer", "claude-3-opus", 1_000, 500, **place)
        told.tell("engineer", "workflow_failed" if index == 2 else "workflow_completed", **place)
    LedgerWriter(dynamodb, TABLES).write_lines(told.lines, "example")
    run_example()
    flow, rate, *opportunities = capsys.readouterr().out.splitlines()
    assert flow == "Most active flow: manager->engineer"
    assert rate == "Success rate: 66.7%"
    assert any(line.startswith("high_cost_agent: engineer") for line in opportunities)


def test_it_runs_before_anything_happened(dynamodb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run_example()
    assert capsys.readouterr().out.splitlines() == ["Most active flow: None", "Success rate: nan%"]
