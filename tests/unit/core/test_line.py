from __future__ import annotations

import io
import sys
import threading
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentops_monitoring import AgentEventType, AgentOpsMonitor, identity, transport

from .conftest import LOG_STREAM, Recorded, read_events, strict_json


def test_the_line_of_the_design(in_lambda: None, recorded: Any) -> None:
    event_id = AgentOpsMonitor("manager").record_event(AgentEventType.ISSUE_DETECTED, {"severity": "high"})
    (event,) = recorded()
    assert event["id"] == event_id
    assert event["type"] == "issue_detected"
    assert event["agent"] == "manager"
    assert event["env"] == "demo"
    assert event["data"] == {"severity": "high"}


def test_the_proof_needs_the_random_end_of_the_log_streams_name(
    in_lambda: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a log group of its own, a function's streams carry its name, up to 64 bytes, in front.
    name = "2026/11/22/" + "f" * 64 + "[$LATEST]"
    assert identity.proof_of("n", name + "0" * 32) != identity.proof_of("n", name + "1" * 32)
    sink = Recorded()
    transport.replace(sink)
    AgentOpsMonitor("a").record_event("test_passed")
    read_events(sink.stream.getvalue(), LOG_STREAM)


def test_the_functions_log_level_is_kept(
    in_lambda: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", "warn")
    AgentOpsMonitor("a").record_event("test_passed")
    assert strict_json(capsys.readouterr().out)["level"] == "WARN"


def test_event_types_and_their_metrics(
    in_lambda: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTOPS_EVENT_TYPES", "order_placed, Not Valid,timestamp")
    monitor = AgentOpsMonitor("a")
    for kind in ("test_passed", "order_placed", "order_palced", "Not Valid", "timestamp"):
        monitor.record_event(kind)
    lines = [strict_json(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["agentops.event"]["type"] for line in lines] == [
        "test_passed", "order_placed", "order_palced", "Not Valid", "timestamp",
    ]  # fmt: skip
    metrics = [line["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Name"] for line in lines]
    assert metrics == ["test_passed", "order_placed", "custom_event", "custom_event", "custom_event"]
    sets = [line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] for line in lines]
    assert sets[0] == [["Environment"], ["Environment", "AgentName"]]
    assert sets[2] == [["Environment"]]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.sampled_from('"\\a\x00é\U0001f600\ud800'), min_size=1, max_size=50),
    st.integers(1, 40_000),
    st.text(max_size=300),
)
def test_large_payloads_come_back_whole_from_their_parts(
    in_lambda: None, piece: str, repeats: int, workflow: str
) -> None:
    sink = Recorded()
    transport.replace(sink)
    value = piece * repeats
    monitor = AgentOpsMonitor("a")
    with monitor.workflow(workflow):
        monitor.record_event("test_passed", {"text": value})
    (event,) = read_events(sink.stream.getvalue(), LOG_STREAM)
    assert event["data"]["text"] == value.encode("utf-8", "backslashreplace").decode()


def test_ten_megabytes(recorded: Any) -> None:
    AgentOpsMonitor("a").record_decision(decision_type="d", reasoning_chain=[{"thought": "x" * 10_000_000}])
    (event,) = recorded()
    assert len(event["data"]["reasoning_chain"][0]["thought"]) == 10_000_000


class _Torn(io.StringIO):
    """A stream that yields to other threads in the middle of each write."""

    def write(self, text: str) -> int:
        half = len(text) // 2
        super().write(text[:half])
        threading.Event().wait(0.0001)
        return half + super().write(text[half:])


def test_no_line_is_torn_by_threads(monkeypatch: pytest.MonkeyPatch, in_lambda: None) -> None:
    stream = _Torn()
    monkeypatch.setattr(sys, "stdout", stream)
    monitor = AgentOpsMonitor("a")

    def work(number: int) -> None:
        for index in range(25):
            monitor.record_event(
                "test_passed", {"thread": number, "index": index, "text": "x" * 70_000 * (index % 2)}
            )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    lines = stream.getvalue().splitlines(keepends=True)
    # Parts of different events may alternate; the reader wants them together.
    lines.sort(
        key=lambda line: (lambda e: (e["seq"], e.get("part", [1])[0]))(strict_json(line)["agentops.event"])
    )
    assert len(read_events("".join(lines))) == 200


def test_a_stdout_that_fails_does_not_reach_the_agent(
    monkeypatch: pytest.MonkeyPatch, in_lambda: None
) -> None:
    class Broken:
        def write(self, text: str) -> int:
            raise BrokenPipeError

    for stdout in (Broken(), None):
        monkeypatch.setattr(sys, "stdout", stdout)
        AgentOpsMonitor("a").record_event("test_passed")


@pytest.mark.parametrize(
    ("letter", "width"), [("x", 1), ("é", 6), ("\U0001f600", 12), ('"', 2), ("\\", 2)], ids=lambda _: ""
)
def test_the_longest_line_has_60000_bytes(
    letter: str, width: int, in_lambda: None, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = AgentOpsMonitor("a")
    monitor.record_event("test_passed", {"text": ""})
    spare = 60_000 - len(capsys.readouterr().out.encode())
    filled = letter * ((spare - 30) // width)
    whole: list[int] = []
    for extra in range(60):
        monitor.record_event("test_passed", {"text": filled + "x" * extra})
        lines = capsys.readouterr().out.splitlines(keepends=True)
        assert max(len(line.encode()) for line in lines) <= 60_000
        (event,) = read_events("".join(lines))
        assert event["data"]["text"] == filled + "x" * extra
        if len(lines) == 1:
            whole.append(len(lines[0]))
    assert max(whole) == 60_000


def test_an_environment_without_end_does_not_keep_the_agent(
    in_lambda: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "e" * 70_000)
    AgentOpsMonitor("a").record_event("test_passed", {"text": "x" * 100_000})
    assert "".join(
        strict_json(line)["agentops.event"]["chunk"] for line in capsys.readouterr().out.splitlines()
    ).endswith('x"}')


@pytest.mark.parametrize(
    ("named", "level"),
    [("", "INFO"), ("TRACE", "TRACE"), ("debug", "DEBUG"), (" ERROR ", "ERROR"), ("FATAL", "FATAL"),
     ("verbose", "INFO"), ("WARNING", "WARN"), ("CRITICAL", "FATAL")],
)  # fmt: skip
def test_level_names(
    named: str,
    level: str,
    in_lambda: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", named)
    AgentOpsMonitor("a").record_event("test_passed")
    assert strict_json(capsys.readouterr().out)["level"] == level


def test_names_without_end_take_no_memory_without_end() -> None:
    class Nowhere:
        def write(self, lines: object) -> None:
            pass

    transport.replace(Nowhere())
    monitor = AgentOpsMonitor("a")
    try:
        for number in range(5_000):
            monitor.record_event(f"type_{number}", {f"key_{number}": 1})
        tracemalloc.start()
        for number in range(5_000, 8_000):
            monitor.record_event(f"type_{number}", {f"key_{number}": 1})
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        transport.replace(None)
    assert kept < 100_000
