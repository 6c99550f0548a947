"""Agents' processes that write directly, and the oracle that recounts what they wrote."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from agentops_monitoring import direct

from .dynamodb_server import DynamoDbServer

RUNTIME = Path(__file__).parents[3] / "runtime"
PRELUDE = """
import asyncio, multiprocessing, os, signal, sys, threading, time
from agentops_monitoring import AgentOpsMonitor, direct
direct.EXIT_SECONDS = 100  # on a busy machine too
monitor = AgentOpsMonitor("a")
def record(n, kind="test_passed", **data):
    for i in range(n):
        os.write(1, (monitor.record_event(kind, {"i": i, **data}) + chr(10)).encode())
"""


class Agents:
    """Agents' processes, the tables that they write to, and the folder for what they could not."""

    def __init__(self, server: DynamoDbServer, home: Path) -> None:
        self.server = server
        self.folder = home / "spill"
        self._home = home
        self._numbers = count()
        self._started: list[subprocess.Popen[bytes]] = []
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(RUNTIME),
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AGENTOPS_SPILL_DIR": str(self.folder),
        }

    def start(self, code: str, **env: str) -> Agent:
        """Run code after the prelude; it may wait for its stdin to close."""
        out = self._home / f"out-{next(self._numbers)}"
        with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", PRELUDE + code],
                env={**self.env, **env},
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
            )
        self._started.append(process)
        return Agent(process, out)

    def stop(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            assert process.stdin
            process.stdin.close()

    @property
    def waiting(self) -> list[Path]:
        """Files in which lines wait."""
        return sorted(self.folder.iterdir()) if self.folder.exists() else []

    def check(self, *agents: Agent, in_flight: int = 0) -> None:
        """Compare the tables with what the agents noted; `in_flight` calls may have been cut off."""
        noted = {line for agent in agents for line in agent.noted}
        items = self.server.tables.scan(TableName="agent-monitoring")["Items"]
        held = {item["sk"]["S"].split("#")[1] for item in items}
        assert noted
        assert noted - held == set()
        assert len(held - noted) <= in_flight
        totals = [
            item["events"]["N"]
            for item in self.server.tables.scan(TableName="agent-ledger")["Items"]
            if item["pk"]["S"].startswith("H#") and item["sk"]["S"] == "TOTAL"
        ]
        assert sum(map(int, totals)) == len(held)


class Agent:
    """A process, and what it noted."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path) -> None:
        self.process = process
        self._out = out

    @property
    def noted(self) -> list[str]:
        return self._out.read_text().split("\n")[:-1]

    @property
    def said(self) -> str:
        return self._out.with_suffix(".err").read_text()

    def wait_for(self, lines: int) -> None:
        until = time.monotonic() + 30
        while len(self.noted) < lines:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < until, self.said
            time.sleep(0.005)

    def end(self, code: int = 0) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(60) == code, self.said


class Ledger:
    """Stands in for the ledger; fails as often as told."""

    def __init__(self, failures: int = 0, seconds: float = 0.0) -> None:
        self.lines: list[str] = []
        self.batches = 0
        self.failures = failures
        self.seconds = seconds

    def __call__(self) -> direct.Write:
        """Connect, as a worker does."""
        return self.write

    def write(self, lines: Sequence[str], deadline: float) -> Sequence[str]:
        time.sleep(self.seconds)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("out of reach")
        self.batches += 1
        self.lines += lines
        return ()
