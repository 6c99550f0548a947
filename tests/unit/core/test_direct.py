from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from agentops_monitoring import AgentOpsMonitor, direct, settings, transport
from agentops_monitoring.direct import BackgroundWriter, Hopeless
from agentops_monitoring.outbox import MAX_BATCH, Outbox
from agentops_monitoring.spill import SpillFile, SpillFolder

from .conftest import read_events
from .direct_agents import Ledger


def types_written(code: str, folder: Path) -> list[str]:
    """Run code in a process of its own, and return the types of the events that it wrote, sorted."""
    runtime = Path(__file__).parents[3] / "runtime"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(runtime), "PYTHONWARNINGS": "ignore", "AGENTOPS_SPILL_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert answer.stderr == ""
    assert list(folder.iterdir()) == []
    return sorted(event["type"] for event in read_events(answer.stdout))


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, "direct"),
        ({"MONITORING_TABLE_NAME": "t"}, "direct"),
        ({"AGENTOPS_TRANSPORT": "stdout", "MONITORING_TABLE_NAME": "t"}, "stdout"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "f"}, "stdout"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "f", "MONITORING_TABLE_NAME": "t"}, "direct"),
        ({"AGENTOPS_TRANSPORT": "direct", "AWS_LAMBDA_FUNCTION_NAME": "f"}, "direct"),
    ],
)
def test_which_way_lines_go(env: dict[str, str], expected: str) -> None:
    assert settings.load(env).transport == expected


def test_events_of_all_threads_arrive_in_batches() -> None:
    ledger = Ledger()
    worker = BackgroundWriter(ledger)
    transport.replace(worker)
    monitor = AgentOpsMonitor("a")

    def work() -> None:
        for _ in range(100):
            monitor.record_event("test_passed")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worker.wait(5)
    assert len(read_events("".join(ledger.lines))) == 800
    assert ledger.batches < 20
    assert worker.lost == 0


def test_failures_are_tried_again_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(failures=3)
    worker = BackgroundWriter(ledger)
    worker.write(["1\n"])
    assert worker.wait(5)
    assert ledger.lines == ["1\n"]
    assert capsys.readouterr().err.count("out of reach") == 1


def test_a_full_queue_drops_and_counts_and_never_blocks() -> None:
    worker = BackgroundWriter(Ledger(seconds=60), lambda: Outbox(max_queued=10))
    began = time.monotonic()
    for index in range(100):
        worker.write([f"{index}\n"])
    assert time.monotonic() - began < 1
    assert worker.lost >= 100 - 10 - MAX_BATCH
    assert worker.lost > 0


def test_a_process_writes_what_is_queued_at_its_end(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\nfrom agentops_monitoring import AgentOpsMonitor, direct\n"
        "def write(lines, deadline):\n"
        "    time.sleep(0.05); sys.stdout.writelines(lines); sys.stdout.flush(); return ()\n"
        "direct._connect = lambda settings: write\n"
        "monitor = AgentOpsMonitor('a')\n"
        "for _ in range(10): monitor.record_event('test_passed')\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    monitor.record_event('test_failed'); sys.exit()\n"
        "os.waitpid(child, 0)\n"
        "monitor.record_event('issue_detected')\n"
    )
    kinds = types_written(code, tmp_path)
    assert kinds == ["issue_detected", "test_failed"] + ["test_passed"] * 10


def create_table(client: Any, table: str) -> None:
    client.create_table(
        TableName=table,
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )


@pytest.fixture
def own_sigterm() -> Iterator[None]:
    """Take away the handler that the transport sets."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("own_sigterm")
def test_the_example_of_the_users_page_fills_the_tables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("MONITORING_TABLE_NAME", "agent-monitoring")
    monkeypatch.setenv("AGENTOPS_SPILL_DIR", str(tmp_path))
    with mock_aws():
        client = boto3.client("dynamodb")
        for table in ("agent-monitoring", "agent-decisions", "agent-ledger"):
            create_table(client, table)
        worker: Any = direct.direct_transport(settings.load())
        transport.replace(worker)
        names: dict[str, Any] = {}
        example = Path(__file__).parents[1] / "data" / "seed_monitoring_example.py.txt"
        exec(example.read_text(), names)
        names["YourAgent"]().process()
        assert worker.wait(20)
        assert client.scan(TableName="agent-monitoring")["Count"] == 3
        (decision,) = client.scan(TableName="agent-decisions")["Items"]
        assert "Memory leak in service" in str(decision)


class _Closed:
    """A standard error that was closed."""

    def write(self, text: str) -> int:
        raise ValueError("I/O operation on closed file")


@pytest.mark.parametrize("stderr", [None, _Closed()])
def test_a_writer_whose_complaints_nobody_hears_goes_on(
    stderr: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(failures=1)
    worker = BackgroundWriter(ledger, lambda: Outbox(max_queued=1))
    monkeypatch.setattr(sys, "stderr", stderr)
    worker.write(["1\n"])
    for _ in range(10):
        worker.write(["2\n"])
    assert worker.wait(5)
    assert ledger.lines[0] == "1\n"
    assert worker.lost > 0
    assert capsys.readouterr().out == ""


_AT_EXIT = """
import atexit, sys, time
from agentops_monitoring import AgentOpsMonitor, direct
monitor = AgentOpsMonitor('a')
atexit.register(monitor.record_event, 'test_failed')
def write(lines, deadline): time.sleep(0.05); sys.stdout.writelines(lines); sys.stdout.flush(); return ()
direct._connect = lambda settings: write
monitor.record_event('test_passed')
"""

_IN_CHILDREN = """
import multiprocessing, os, sys, time
from agentops_monitoring import AgentOpsMonitor, direct
def write(lines, deadline): time.sleep(0.05); os.write(1, ''.join(lines).encode()); return ()
direct._connect = lambda settings: write
monitor = AgentOpsMonitor('a')
if __name__ == '__main__':
    monitor.record_event('test_passed')
    children = [multiprocessing.get_context('fork').Process(
        target=monitor.record_event, args=('test_failed',)) for _ in range(3)]
    for child in children: child.start()
    for child in children: child.join()
"""


@pytest.mark.parametrize(
    ("code", "expected"),
    [(_AT_EXIT, ["test_failed", "test_passed"]), (_IN_CHILDREN, ["test_failed"] * 3 + ["test_passed"])],
    ids=["recorded by an exit handler", "children of multiprocessing"],
)
def test_what_is_recorded_last_of_all_is_written_too(code: str, expected: list[str], tmp_path: Path) -> None:
    assert types_written(code, tmp_path) == expected


def test_the_end_of_a_process_is_not_held_up_for_longer_than_its_bound(
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker = BackgroundWriter(Ledger(failures=1_000))
    worker.write(["1\n"])
    began = time.monotonic()
    worker.close(0.2)
    for index in range(10):
        worker.write([f"{index}\n"])
    assert time.monotonic() - began < 0.5
    assert "not all events were written before the end" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path) -> SpillFolder:
    return SpillFolder(str(tmp_path / "spill"), "agent-monitoring")


def test_after_its_budget_a_failure_is_left_to_others_and_looked_at_again(
    folder: SpillFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(direct, "BUDGET_SECONDS", 0.3)
    monkeypatch.setattr(direct, "AGAIN_SECONDS", 0.5)
    ledger = Ledger(failures=1_000)
    worker = BackgroundWriter(ledger, lambda: Outbox(folder))
    worker.write(["1\n"])
    # In vain, but not for as long as that: the wait ends when the worker gives up.
    assert not worker.wait(60)
    (path,) = folder.files()
    others = SpillFile.open(path)
    assert others is not None
    others.release()
    worker.write(["2\n"])
    ledger.failures = 0
    while len(ledger.lines) < 2:
        time.sleep(0.01)
    assert worker.wait(60)
    assert set(ledger.lines) == {"1\n", "2\n"}
    worker.close(1)
    assert folder.files() == []
    told = capsys.readouterr().err
    assert told.count("events wait to be written: ConnectionError: out of reach") == 1
    assert told.count("agentops-monitoring replay") == 1


def test_what_is_hopeless_is_not_tried_in_a_row(
    folder: SpillFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts = []

    def connect() -> direct.Write:
        attempts.append(1)
        raise Hopeless("no permission")

    worker = BackgroundWriter(connect, lambda: Outbox(folder))
    for number in range(20):
        worker.write([f"{number}\n"])
        time.sleep(0.02)
    assert not worker.wait(60)
    assert not worker.wait(60)
    # At most once by itself, and once for each that waits.
    assert len(attempts) <= 3
    worker.close(60)
    assert capsys.readouterr().err.count("no permission") == 1
    assert sum(len(Path(path).read_text().splitlines()) for path in folder.files()) == 20


def test_a_line_that_no_ledger_takes_is_kept_beside_and_the_others_are_written(folder: SpillFolder) -> None:
    written: list[str] = []

    def write(lines: Sequence[str], deadline: float) -> Sequence[str]:
        written.extend(line for line in lines if line != "odd\n")
        return [line for line in lines if line == "odd\n"]

    worker = BackgroundWriter(lambda: write, lambda: Outbox(folder))
    for line in ("1\n", "odd\n", "2\n"):
        worker.write([line])
    assert worker.wait(60)
    worker.close(60)
    assert written == ["1\n", "2\n"]
    (path,) = folder.files()
    assert Path(path).read_text() == "odd\n"


def test_a_forked_child_connects_anew(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom agentops_monitoring import AgentOpsMonitor, direct\n"
        "def connect(settings):\n"
        "    mine = os.getpid()\n"
        "    def write(lines, deadline):\n"
        "        assert mine == os.getpid()\n"
        "        os.write(1, ''.join(lines).encode()); return ()\n"
        "    return write\n"
        "direct._connect = connect\n"
        "monitor = AgentOpsMonitor('a')\n"
        "monitor.record_event('test_passed')\n"
        "from agentops_monitoring import transport\n"
        "assert transport.chosen.wait(60)\n"
        "child = os.fork()\n"
        "if not child: monitor.record_event('test_failed'); sys.exit()\n"
        "os.waitpid(child, 0)\n"
    )
    assert types_written(code, tmp_path) == ["test_failed", "test_passed"]


@pytest.mark.usefixtures("own_sigterm")
def test_threads_that_come_first_together_share_a_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MONITORING_TABLE_NAME", f"agent-monitoring-{tmp_path.name}")
    monkeypatch.setenv("AGENTOPS_SPILL_DIR", str(tmp_path))
    monkeypatch.setattr(direct, "_close_on_sigterm", lambda worker: time.sleep(0.05))
    all_there = threading.Barrier(8)
    found: set[int] = set()

    def work() -> None:
        all_there.wait()
        found.add(id(direct.direct_transport(settings.load())))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
