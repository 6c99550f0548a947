"""What an invocation records of itself: how it began, what it received, and that its time runs out."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentops_monitoring import AgentOpsMonitor, monitored, receiving, watchdog
from agentops_monitoring.testing import LambdaContext

from .conftest import read_events

RUNTIME = Path(__file__).parents[3] / "runtime"
PATIENCE = 20.0


def wait_for(found: Callable[[], bool]) -> None:
    """Wait until something is so, for as long as a slow machine may take."""
    ends = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.002)


def warnings(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "time_running_out"]


class Clock:
    """A Lambda context that says how much time is left: the answers in turn, the last one for ever."""

    def __init__(self, *left: Any, request_id: str = "request-1") -> None:
        self.aws_request_id = request_id
        self.left = list(left)
        self.asked = 0

    def get_remaining_time_in_millis(self) -> Any:
        self.asked += 1
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


@pytest.fixture
def one_second(monkeypatch: pytest.MonkeyPatch, in_lambda: None) -> None:
    monkeypatch.setenv("AGENTOPS_TIME_WARNING_MS", "1000")


def test_an_invocation_is_warned_of_once_before_its_time_is_up(one_second: None, recorded: Any) -> None:
    @monitored
    def handler(event: Any, context: Any) -> None:
        with AgentOpsMonitor().span("work"):
            wait_for(lambda: bool(warnings(recorded())))

    handler({}, Clock(1_010, 990))
    started, warning, _, completed = recorded()
    assert warning["type"] == "time_running_out"
    assert warning["data"] == {
        "remaining_ms": 990,
        "duration_ms": warning["data"]["duration_ms"],
        "limit_ms": 2_000,
    }
    assert 0 < warning["data"]["duration_ms"] <= completed["data"]["duration_ms"]
    for name in ("workflow_id", "trace_id", "span_id", "request_id", "parent_id"):
        assert warning[name] == started[name]


def test_what_ends_in_time_is_not_warned_of(one_second: None, recorded: Any) -> None:
    """The second invocation's deadline is the later one: the thread looked at both."""
    handler: Any = monitored(lambda event, context: wait_for(event))
    handler(lambda: True, Clock(1_500, 900))
    handler(lambda: bool(warnings(recorded())), Clock(1_550, 900, request_id="request-2"))
    assert [event["request_id"] for event in warnings(recorded())] == ["request-2"]


def test_nothing_of_an_invocation_stays_once_it_has_ended(one_second: None, recorded: Any) -> None:
    class Event(dict[str, Any]):
        """May be referred to weakly."""

    kept = []
    for number in range(3):
        event = Event(message(f"m{number}"))
        kept.append(weakref.ref(event))
        monitored(lambda event, context: None)(event, Clock(900_000, request_id=f"request-{number}"))
        del event
    gc.collect()
    assert [each() for each in kept] == [None] * 3


def test_concurrent_invocations_are_each_warned_of(one_second: None, recorded: Any) -> None:
    def handle(event: Any, context: Any) -> None:
        wait_for(lambda: len(warnings(recorded())) == 8)

    handler = monitored(handle)
    with ThreadPoolExecutor(8) as pool:
        contexts = [Clock(1_000 + 10 * n, 900, request_id=f"request-{n}") for n in range(1, 9)]
        list(pool.map(lambda context: handler({}, context), contexts))
    assert sorted(event["request_id"] for event in warnings(recorded())) == [
        f"request-{n}" for n in range(1, 9)
    ]
    assert [thread.name for thread in threading.enumerate()].count("agentops-watchdog") == 1


def test_a_process_that_was_frozen_asks_lambda_s_clock(one_second: None, recorded: Any) -> None:
    clock = Clock(1_005, 1_150, 700)
    monitored(lambda event, context: wait_for(lambda: bool(warnings(recorded()))))({}, clock)
    (warning,) = warnings(recorded())
    assert clock.asked == 3
    assert warning["data"]["remaining_ms"] == 700


def test_an_invocation_that_ends_while_its_clock_is_asked_is_not_warned_of(
    one_second: None, recorded: Any
) -> None:
    asked, over = threading.Event(), threading.Event()

    class Slow(Clock):
        def get_remaining_time_in_millis(self) -> Any:
            if self.asked:
                asked.set()
                over.wait(PATIENCE)
            return super().get_remaining_time_in_millis()

    monitored(lambda event, context: asked.wait(PATIENCE))({}, Slow(1_005, 900))
    over.set()
    # The same thread warns of the next one.
    handler: Any = monitored(lambda event, context: wait_for(lambda: bool(warnings(recorded()))))
    handler({}, Clock(1_005, 900, request_id="request-2"))
    assert [event["request_id"] for event in warnings(recorded())] == ["request-2"]


def test_a_clock_that_raises_in_the_end_leaves_the_others_watched(one_second: None, recorded: Any) -> None:
    class Broken(Clock):
        def get_remaining_time_in_millis(self) -> Any:
            left = super().get_remaining_time_in_millis()
            if self.asked > 1:
                raise OSError
            return left

    broken = Broken(1_005)
    monitored(lambda event, context: wait_for(lambda: broken.asked > 1))({}, broken)
    handler: Any = monitored(lambda event, context: wait_for(lambda: bool(warnings(recorded()))))
    handler({}, Clock(1_005, 900, request_id="request-2"))


@pytest.mark.parametrize(
    ("limit_ms", "configured", "warns_ms"),
    [
        (60_000, None, 6_000), (900_000, None, 90_000), (3_000, None, 1_000), (1_000, None, 500),
        (60_000, "250", 250), (60_000, "0", 0), (60_000, "soon", 6_000), (60_000, "", 6_000),
    ],
)  # fmt: skip
def test_when_the_warning_comes(
    limit_ms: int, configured: str | None, warns_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if configured is not None:
        monkeypatch.setenv("AGENTOPS_TIME_WARNING_MS", configured)
    assert watchdog.warning_ms(limit_ms) == warns_ms


@pytest.mark.parametrize("left", [None, "soon", -5, 0, 10**9, float("nan")])
def test_a_context_that_makes_no_sense_stops_nobody(one_second: None, recorded: Any, left: Any) -> None:
    assert monitored(lambda event, context: event)(7, Clock(left)) == 7
    assert [event["type"] for event in recorded()] == ["invocation_started", "invocation_completed"]


def test_a_clock_that_raises_stops_nobody(one_second: None, recorded: Any) -> None:
    class Broken(Clock):
        def get_remaining_time_in_millis(self) -> Any:
            raise OSError

    assert monitored(lambda event, context: event)(7, Broken()) == 7
    assert len(recorded()) == 2


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a function's process; what it prints are lines."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(RUNTIME),
            "AGENTOPS_TRANSPORT": "stdout",
            "AGENTOPS_TIME_WARNING_MS": "1000",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


_HEAD = """
import os, sys, threading, time
from agentops_monitoring import monitored
class Context:
    aws_request_id = "request-1"
    def __init__(self, left): self.left = left
    def get_remaining_time_in_millis(self): return self.left
"""


def test_the_thread_makes_no_noise_at_the_end_and_holds_nobody_up() -> None:
    began = time.monotonic()
    ended = run(_HEAD + "monitored(lambda event, context: sys.exit())({}, Context(900_000))")
    assert ended.stderr == ""
    assert [event["type"] for event in read_events(ended.stdout)] == [
        "invocation_started",
        "invocation_failed",
    ]
    assert time.monotonic() - began < 60


def test_a_process_without_a_time_limit_has_no_thread() -> None:
    ended = run(
        _HEAD
        + "monitored(lambda event, context: 7)({}, None); print(threading.active_count(), file=sys.stderr)"
    )
    assert ended.stderr == "1\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_watches_its_own_invocations_only() -> None:
    ended = run(
        _HEAD
        + """
class Out:
    def __init__(self): self.real, self.warned = sys.stdout, False
    def flush(self): self.real.flush()
    def write(self, text):
        self.real.write(text)
        self.real.flush()
        self.warned = self.warned or "time_running_out" in text
def wait(event, context):
    while not sys.stdout.warned: time.sleep(0.01)
def handle(event, context):
    if os.fork() == 0:
        context.left = 900
        time.sleep(0.1)   # the parent's deadline passes
        sys.stdout = Out()
        monitored(wait)({}, Own(1_020))
        os._exit(0)
    os.wait()
class Own(Context):
    aws_request_id = "of-the-child"
    def get_remaining_time_in_millis(self):
        left, self.left = self.left, 900
        return left
monitored(handle)({}, Context(1_050))
"""
    )
    assert ended.stderr == ""
    events = [json.loads(line)["agentops.event"] for line in ended.stdout.splitlines()]
    child = {event["id"].partition("-")[0] for event in events if event["request_id"] == "of-the-child"}
    warned = [(event["id"].partition("-")[0] in child, event["request_id"]) for event in warnings(events)]
    assert (True, "of-the-child") in warned
    assert (True, "request-1") not in warned


def message(message_id: str = "m1", **carried: Any) -> dict[str, Any]:
    carried = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "message_id": message_id, **carried}
    return {"source": "mine", "detail-type": "issue.found", "detail": {"agentops": carried}}


def redelivered(events: list[dict[str, Any]]) -> list[bool]:
    return [
        event["data"].get("redelivered", False) for event in events if event["type"] == "message_received"
    ]


def test_a_message_that_was_seen_before_is_known_again(
    in_lambda: None, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, event in enumerate([message("m1"), message("m2"), message("m1"), message("m1")]):
        # Lambda's own retry keeps the request id; EventBridge's second delivery has another.
        monitored(lambda event, context: None)(
            event, SimpleNamespace(aws_request_id=f"request-{number // 3}")
        )
    assert redelivered(recorded()) == [False, False, True, True]
    monkeypatch.setenv("AGENTOPS_AGENT_NAME", "qa")
    monitored(lambda event, context: None)(message("m1"), None)
    assert redelivered(recorded())[-1] is False, "it is for several agents"


def test_what_is_known_of_messages_does_not_grow_for_ever(in_lambda: None, recorded: Any) -> None:
    handler: Any = monitored(lambda event, context: None)
    for number in range(1_100):
        handler(message(f"m{number}"), None)
    assert len(receiving._known) == 1_024
    handler(message("m1099"), None)
    handler(message("m0"), None)
    assert redelivered(recorded())[-2:] == [True, False]


@pytest.mark.parametrize(
    ("kind", "cold"),
    [
        (None, True), ("on-demand", True), ("snap-start", True),
        ("provisioned-concurrency", False), ("lambda-managed-instances", False),
    ],
)  # fmt: skip
def test_a_cold_start_is_one_that_kept_somebody_waiting(
    in_lambda: None, recorded: Any, monkeypatch: pytest.MonkeyPatch, kind: str | None, cold: bool
) -> None:
    if kind is not None:
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", kind)
    for _ in range(2):
        monitored(lambda event, context: None)({}, LambdaContext())
    first, second = (event["data"] for event in recorded() if event["type"] == "invocation_started")
    assert first["cold_start"] is cold
    assert first.get("initialization") == kind
    # Each start in an environment that is kept ready says so, for each has another price.
    kept_ready = {"initialization": kind} if kind == "provisioned-concurrency" else {}
    assert second == {"cold_start": False, "trigger": "direct"} | kept_ready


def test_in_a_mixed_batch_each_message_is_received_in_its_own_workflow(
    in_lambda: None, recorded: Any
) -> None:
    traces = ["a" * 32, "c" * 32]
    records = [
        {
            "eventSource": "aws:sqs",
            "body": "x",
            "messageAttributes": {
                "agentops": {
                    "stringValue": json.dumps({"traceparent": f"00-{trace}-{'b' * 16}-01", "hop": 3})
                }
            },
        }
        for trace in traces
    ]
    monitored(lambda event, context: None)({"Records": [*records, {"body": "no context"}]}, None)
    started, *received, completed = recorded()
    assert [event["trace_id"] for event in received] == traces
    assert {event["parent_id"] for event in received} == {"b" * 16}
    assert started["trace_id"] == completed["trace_id"] not in traces
    assert started["data"]["trigger"] == "sqs"
