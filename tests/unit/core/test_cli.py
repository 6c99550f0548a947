"""`agentops-monitoring replay`: files into the ledger, once, and what remains of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentops_monitoring import AgentOpsMonitor, cli, transport
from agentops_monitoring.spill import SpillFile, SpillFolder
from agentops_monitoring.transport import StdoutTransport

from .dynamodb_server import DynamoDbServer, dynamodb_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DynamoDbServer]:
    with dynamodb_server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AGENTOPS_SPILL_DIR", str(tmp_path))
        yield server


class _Kept(StdoutTransport):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def write(self, lines: Any) -> None:
        self.lines += lines


def lines_of(count: int, size: int = 1) -> list[str]:
    kept = _Kept()
    transport.replace(kept)
    monitor = AgentOpsMonitor("a")
    for number in range(count):
        monitor.record_event("test_passed", {"n": number, "text": "x" * size})
    transport.replace(None)
    return kept.lines


def left(tmp_path: Path, *lines: str, table: str = "agent-monitoring", torn: str = "") -> Path:
    file = SpillFolder(str(tmp_path), table).new()
    file.append("".join(lines).encode() + torn.encode())
    file.release()
    return Path(file.path)


def held(server: DynamoDbServer) -> int:
    return len(server.tables.scan(TableName="agent-monitoring")["Items"])


def counted(server: DynamoDbServer) -> int:
    rows = server.tables.scan(TableName="agent-ledger")["Items"]
    return sum(
        int(row["events"]["N"]) for row in rows if row["sk"]["S"] == "TOTAL" and row["pk"]["S"][0] == "H"
    )


def test_files_are_written_once_and_deleted(
    server: DynamoDbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [*lines_of(30), *lines_of(1, 200_000)]
    left(tmp_path, *lines)
    assert cli.main(["replay", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["files"]
    assert (told["state"], told["events"], told["duplicates"]) == ("written", 31, 0)
    assert list(tmp_path.iterdir()) == []
    assert held(server) == counted(server) == 31

    # The same again, as after a kill between the last batch and the deletion, with some that are new.
    again = left(tmp_path, *lines[:20], *lines_of(5))
    assert cli.main(["replay", str(again)]) == 0
    assert "1 file" not in capsys.readouterr().err
    assert held(server) == counted(server) == 36


def test_the_table_says_what_became_of_each(
    server: DynamoDbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left(tmp_path, *lines_of(1_234))
    assert cli.main(["replay"]) == 0
    header, row, total = capsys.readouterr().out.splitlines()
    assert header.split() == ["file", "state", "events", "known", "refused"]
    assert row.split()[1:] == ["written", "1,234", "0", "0"]
    assert total == "1,234 events from 1 file, for agent-monitoring"


def test_what_the_ledger_refuses_stays_and_nothing_else_does(
    server: DynamoDbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = lines_of(3)
    later = good[0].replace('"v":1', '"v":2')
    path = left(tmp_path, good[0], "hello\n", good[1], later, good[2], torn=good[0][:50])
    for known in (0, 0):
        assert cli.main(["replay", "--json"]) == 1
        (told,) = json.loads(capsys.readouterr().out)["files"]
        assert (told["state"], told["refused"], told["duplicates"]) == ("kept", 2, known)
        assert sorted(path.read_text().splitlines(keepends=True)) == sorted(["hello\n", later])
        assert path.stat().st_mode & 0o777 == 0o600
    assert held(server) == counted(server) == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_torn_last_line_is_said_and_dropped(
    server: DynamoDbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = lines_of(2)
    left(tmp_path, good[0], torn=good[1][:-1])
    assert cli.main(["replay"]) == 0
    assert "torn" in capsys.readouterr().out
    assert held(server) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_changes_nothing(
    server: DynamoDbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = left(tmp_path, *lines_of(3), *lines_of(1, 200_000), "odd\n")
    before = path.read_text()
    assert cli.main(["replay", "--dry-run", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["files"]
    assert (told["state"], told["events"], told["refused"]) == ("found", 4, 1)
    assert path.read_text() == before
    assert server.requests == []


def test_a_file_that_a_process_writes_is_not_touched(
    server: DynamoDbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = left(tmp_path, *lines_of(3))
    file = SpillFile.open(str(path))
    assert file
    assert cli.main(["replay", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["state"] == "in use"
    assert server.requests == []
    file.release()
    assert cli.main(["replay"]) == 0
    assert held(server) == 3


def test_files_for_other_tables_stay_unless_they_are_named(
    server: DynamoDbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = left(tmp_path, *lines_of(3), table="agent-monitoring-test")
    assert cli.main(["replay"]) == 0
    assert capsys.readouterr().out == "nothing waits for agent-monitoring\n1 file is for other tables\n"
    assert path.exists()
    assert cli.main(["replay", str(path)]) == 0
    assert held(server) == 3


@pytest.mark.parametrize(
    ("status", "code", "named"),
    [(400, "ResourceNotFoundException", "ResourceNotFound"), (400, "AccessDeniedException", "AccessDenied")],
)
def test_what_fails_stays_as_it_was_and_the_rest_is_not_tried(
    server: DynamoDbServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    status: int,
    code: str,
    named: str,
) -> None:
    paths = [left(tmp_path, line) for line in lines_of(3)]
    server.fault = lambda operation: (status, code)
    assert cli.main(["replay", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [each["state"] for each in told["files"]] == ["failed"]
    assert named in told["files"][0]["reason"]
    assert told["untried"] == 2
    assert len(server.requests) <= 2
    assert all(path.exists() for path in paths)
    server.fault = lambda operation: None
    assert cli.main(["replay"]) == 0
    assert held(server) == counted(server) == 3


def test_wrong_usage_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    assert cli.main(["replay", str(tmp_path / "missing")]) == 2
    assert "missing" in capsys.readouterr().err
    monkeypatch.setenv("AGENTOPS_SPILL_DIR", "off")
    assert cli.main(["replay"]) == 2
    with pytest.raises(SystemExit) as told:
        cli.main(["reply"])
    assert told.value.code == 2


def test_a_file_that_cannot_be_read_keeps_no_other_waiting(
    server: DynamoDbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = left(tmp_path, *lines_of(3))
    first = path.with_name(path.name.partition("~")[0] + "~0-0.jsonl")
    first.symlink_to(tmp_path / "elsewhere")
    assert sorted(tmp_path.glob("*.jsonl"))[0] == first
    assert cli.main(["replay"]) == 1
    assert "unreadable" in capsys.readouterr().out
    assert not path.exists()
    assert held(server) == 3


def test_an_interruption_is_no_loss(
    server: DynamoDbServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = left(tmp_path, *lines_of(700))
    # A background job of a shell that is not interactive, as CI's may be, ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def fault(operation: str) -> None:
        if server.requests.count("TransactWriteItems") > 3:
            os.kill(os.getpid(), signal.SIGINT)

    server.fault = fault
    try:
        assert cli.main(["replay"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted" in capsys.readouterr().err
    assert path.exists()
    server.fault = lambda operation: None
    assert cli.main(["replay"]) == 0
    assert held(server) == counted(server) == 700


def test_without_a_region_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AGENTOPS_SPILL_DIR", str(tmp_path))
    path = left(tmp_path, *lines_of(1))
    assert cli.main(["replay"]) == 1
    assert "region" in capsys.readouterr().err
    assert path.exists()


def test_python_m_is_the_command_too() -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    command = [sys.executable, "-m", "agentops_monitoring", "replay", "--help"]
    told = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert "agentops-monitoring replay" in told


def test_where_nothing_was_ever_left_there_is_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AGENTOPS_SPILL_DIR", str(tmp_path / "none"))
    assert cli.main(["replay"]) == 0
    assert capsys.readouterr().out == "nothing waits for agent-monitoring\n"


def test_lines_that_somebody_else_may_have_put_there_are_not_written(
    server: DynamoDbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGENTOPS_SPILL_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"agentops-monitoring-{os.geteuid()}"
    folder.mkdir(mode=0o755)
    left(folder, *lines_of(1))
    folder.chmod(0o755)
    assert cli.main(["replay"]) == 1
    assert server.requests == []


def test_a_profile_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nope")
    assert cli.main(["replay", str(left(tmp_path, *lines_of(1)))]) == 1
    assert "nope" in capsys.readouterr().err
