"""Where events go when their first way is closed: nowhere silently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from agentops_monitoring import AgentOpsMonitor, direct, transport

RUNTIME = Path(transport.__file__).parents[1]


def test_what_cannot_be_written_to_tables_goes_to_stdout_and_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(settings: object) -> transport.Transport:
        raise OSError("no threads left")

    monkeypatch.setenv("AGENTOPS_TRANSPORT", "direct")
    monkeypatch.setattr(direct, "direct_transport", broken)
    identifiers = [AgentOpsMonitor("a").record_event("test_passed") for _ in range(2)]
    out, err = capsys.readouterr()
    assert [json.loads(line)["agentops.event"]["id"] for line in out.splitlines()] == identifiers
    assert err.count("events go to stdout: OSError: no threads left") == 1


def test_where_processes_do_not_fork_events_go_to_stdout() -> None:
    # As on Windows: no fork to register for, and no fcntl for the files of the direct transport.
    code = """
import os, sys
del os.register_at_fork
sys.modules["fcntl"] = None
from agentops_monitoring import AgentOpsMonitor
from agentops_monitoring.wrapper import monitored
monitored(lambda event, context: AgentOpsMonitor("a").track_llm_usage(
    model="claude-3-opus", input_tokens=1000, output_tokens=500))({}, None)
"""
    env = {name: text for name, text in os.environ.items() if not name.startswith("AGENTOPS_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "PYTHONPATH": str(RUNTIME)},
        capture_output=True,
        text=True,
        check=True,
    )
    events = [json.loads(line)["agentops.event"] for line in done.stdout.splitlines()]
    assert [each["type"] for each in events] == ["invocation_started", "llm_usage", "invocation_completed"]
    assert Decimal(events[1]["data"]["cost_usd"]) == Decimal("0.0525")
    assert "can't write to tables" in done.stderr
