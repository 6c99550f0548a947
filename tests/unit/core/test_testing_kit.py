"""The testing kit as another team uses it: the fixture, the context manager, a handler like in Lambda."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentops_monitoring import (
    AgentEventType,
    AgentOpsMonitor,
    instrument,
    monitored,
    redaction,
    trace,
    transport,
)
from agentops_monitoring.testing import Events, LambdaContext, capture_events, invoke

RUNTIME = Path(__file__).parents[3] / "runtime"

AGENT = """
from agentops_monitoring import AgentOpsMonitor

monitor = AgentOpsMonitor("manager")


def handler(event, context):
    usage = dict(model="claude-3-opus", input_tokens=1000, output_tokens=500)
    monitor.track_llm_usage(**usage)
    decided = monitor.record_decision(
        decision_type="remediation",
        reasoning_chain=[{"thought": "t" * 70_000}],
        confidence_score=event["score"],
    )
    with monitor.tool("search", arguments={"q": "p99"}) as call:
        call.result = ["hit"]
    monitor.send_message(to="qa", message_type="patch.ready", payload={"patch": 7})
    return decided
"""

TESTS = """
from decimal import Decimal

import pytest
import agent
from agentops_monitoring.testing import invoke


def test_what_the_agent_recorded(agent_events):
    decided = invoke(agent.handler, {"score": 0.9}, agent_name="manager")
    assert agent_events.types == [
        "invocation_started", "llm_usage", "decision_made", "span", "message_sent", "invocation_completed",
    ]
    assert agent_events.one("decision_made").data["decision_id"] == decided
    assert agent_events.costs == [Decimal("0.0525")]
    assert agent_events.messages[0].payload == {"patch": 7}


def test_events_of_the_test_before_are_gone(agent_events):
    assert len(agent_events) == 0


def test_strict_mode_holds_for_a_monitor_that_was_made_before(agent_events):
    with pytest.raises(ValueError, match="confidence_score"):
        invoke(agent.handler, {"score": 7})


def test_that_fails(agent_events):
    agent.monitor.record_event("issue_detected", {"severity": "high"})
    assert agent_events.of_type("code_generated")


def test_without_the_fixture_failures_are_ordinary():
    assert 1 == 2
"""


def test_a_team_of_another_repository_tests_its_agent(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "test_agent.py").write_text(TESTS)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AGENTOPS", "PYTEST", "AWS"))
    }
    # Nothing answers there: a call to AWS would fail the test.
    calls_nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true"}
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "agentops_monitoring.testing.plugin",
            "-p",
            "no:cacheprovider",
        ],
        cwd=tmp_path,
        env={**kept, **calls_nobody, "PYTHONPATH": str(RUNTIME), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "2 failed, 3 passed" in run.stdout, run.stdout + run.stderr
    _, _, shown = run.stdout.partition("test_that_fails")
    assert "Recorded agent events" in shown
    assert '0. issue_detected by manager {"severity": "high"}' in shown
    assert run.stdout.count("Recorded agent events") == 1


def test_the_package_registers_the_plugin() -> None:
    import tomllib

    declared = tomllib.loads((RUNTIME.parent / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared["pytest11"] == {"agentops_monitoring": "agentops_monitoring.testing.plugin"}


def test_what_was_found_is_told_where_it_is_not_what_was_expected() -> None:
    with capture_events() as events:
        monitor = AgentOpsMonitor("manager")
        monitor.record_event("issue_detected", {"severity": "high"})
        with pytest.raises(
            AssertionError, match=r"0 events of type 'llm_usage'[\s\S]*issue_detected by manager"
        ):
            events.one(AgentEventType.LLM_USAGE)
        monitor.record_event("issue_detected")
        with pytest.raises(AssertionError, match="2 events of type 'issue_detected'"):
            events.one("issue_detected")
        events.clear()
        assert str(events) == "no events"
        assert events.lines == []
        monitor.record_event("test_passed")
        assert events[-1].type == events.one("test_passed").type == "test_passed"
        assert [event.type for event in events[0:]] == ["test_passed"]


def test_an_event_says_where_it_belongs() -> None:
    with capture_events() as events:
        monitor = AgentOpsMonitor("manager")
        with monitor.workflow("order-17", user_id="u", session_id="s", tags={"plan": "pro"}):
            decided = monitor.record_decision(decision_type="d", reasoning_chain=[{"thought": "x" * 100_000}])
            monitor.record_outcome(decided, correct=False)
            monitor.track_tool("search", result=1)
            monitor.track_llm_usage(model="no-such-model", input_tokens=1, output_tokens=1)
    decision, outcome = events.decisions[0], events.outcomes[0]
    assert len(decision.data["reasoning_chain"][0]["thought"]) == 100_000
    assert outcome.data["decision_id"] == decided
    assert {(each.workflow_id, each.user_id, each.session_id) for each in events} == {("order-17", "u", "s")}
    assert events[0].tags == {"plan": "pro"}
    assert events.tools[0].data["gen_ai.tool.call.result"] == 1
    assert events.costs == [None]
    assert sum(cost for cost in events.costs if cost is not None) == Decimal(0)


def test_without_strict_mode_problems_are_there_to_assert_on() -> None:
    with capture_events(strict=False) as events:
        AgentOpsMonitor("a").record_outcome("d")
    assert events.problems == ["neither correct nor score is given"]
    assert "! neither correct" in str(events)


def broken_off(monitor: AgentOpsMonitor) -> Events:
    with suppress(KeyError), capture_events(strict=False) as events:
        redaction.use(None)
        monitor.workflow("left-open").__enter__()
        invoke(lambda event, context: monitor.record_event(""))
        raise KeyError
    return events


def test_captures_nest_and_undo_all_that_they_changed() -> None:
    function = str.upper
    with capture_events() as outer:
        monitor = AgentOpsMonitor("a")
        monitor.record_event("test_passed", {"n": "x"})
        redaction.use(function)
        inner = broken_off(monitor)
        assert redaction.use(None) is function
        assert trace.current().workflow_id != "left-open"
        assert not instrument.active()
        monitor.record_event("test_failed")
        with pytest.raises(ValueError, match="event type"):
            monitor.record_event("")
    assert outer.types == ["test_passed", "test_failed"]
    assert inner.types == ["invocation_started", "custom_event", "invocation_completed"]
    assert redaction.use(None) is None
    assert transport.replace(None) is None


def test_calls_of_a_model_before_are_not_known() -> None:
    for _ in range(2):
        with capture_events() as events:
            AgentOpsMonitor("a").track_llm_usage(model="gpt-4o", input_tokens=5, output_tokens=5)
        assert len(events.costs) == 1


def test_handlers_of_each_kind() -> None:
    class Agent:
        def handle(self, event: Any, context: Any) -> Any:
            return event, context.function_name

    async def asynchronous(event: Any, context: Any) -> Any:
        await asyncio.sleep(0)
        return event

    async def in_a_loop() -> Any:
        return await invoke(asynchronous, 3)

    with capture_events() as events:
        assert invoke(Agent().handle, 1) == (1, "agent")
        assert invoke(monitored(asynchronous), 2) == 2
        assert asyncio.run(in_a_loop()) == 3
        with pytest.raises(LookupError):
            invoke(failing, agent_name="engineer")
    assert events.types.count("invocation_started") == 4
    failed = events.one("invocation_failed")
    assert failed.agent == "engineer"
    assert failed.data["error"]["type"] == "LookupError"


def failing(event: Any, context: Any) -> None:
    raise LookupError


def test_a_retry_has_the_same_request_and_the_first_of_a_test_starts_cold() -> None:
    for _ in range(2):
        with capture_events() as events:
            context = LambdaContext("engineer-function", timeout_ms=3_000)
            assert 0 < context.get_remaining_time_in_millis() <= 3_000
            for _ in range(2):
                invoke(lambda event, context: None, {}, context)
        first, second = events.of_type("invocation_started")
        assert first.request_id == second.request_id == context.aws_request_id
        assert first.workflow_id == second.workflow_id
        assert (first.data["cold_start"], second.data["cold_start"]) == (True, False)
    assert LambdaContext(timeout_ms=0).get_remaining_time_in_millis() == 0


def test_a_test_knows_nothing_of_invocations_and_messages_before_it() -> None:
    carried = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "message_id": "m-1"}
    message = {"detail-type": "patch.ready", "source": "mine", "detail": {"agentops": carried}}

    def seen(events: Events) -> list[Any]:
        invoke(lambda event, context: None, message)
        started, received = events.of_type("invocation_started"), events.of_type("message_received")
        return [started[-1].data["cold_start"], received[-1].data.get("redelivered", False)]

    with capture_events() as outer:
        assert seen(outer) == [True, False]
        assert seen(outer) == [False, True]
        with capture_events() as inner:
            assert seen(inner) == [True, False]
        assert seen(outer) == [False, True]


def test_what_a_handler_sets_in_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOPS_AGENT_NAME", "outer")
    monkeypatch.setenv("SET_BY_HANDLER", "before")
    seen = []

    def handler(event: Any, context: Any) -> None:
        os.environ["SET_BY_HANDLER"] = "inside"
        seen.append(os.environ["AGENTOPS_AGENT_NAME"])

    with capture_events():
        invoke(handler, agent_name="inner")
        invoke(handler)
    assert seen == ["inner", "outer"]
    assert os.environ["SET_BY_HANDLER"] == "inside"


def test_threads_and_tasks_are_captured() -> None:
    with capture_events() as events:
        monitor = AgentOpsMonitor("a")
        threads = [
            threading.Thread(target=lambda: [monitor.record_event("test_passed") for _ in range(50)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        async def stream() -> AsyncIterator[None]:
            monitor.record_event("test_failed")
            yield

        async def read() -> None:
            async for _ in stream():
                pass

        asyncio.run(read())
    assert events.types.count("test_passed") == 400
    assert events.types.count("test_failed") == 1
    assert len({event.id for event in events}) == 401


def test_a_handler_s_own_name_holds_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    @monitored(agent_name="outer")
    def handler(event: object, context: object) -> None: ...

    with capture_events() as events:
        invoke(handler)
        invoke(handler, agent_name="other")
        monkeypatch.setenv("AGENTOPS_AGENT_NAME", "deployed")
        invoke(handler)
    started = [each.agent for each in events.of_type("invocation_started")]
    assert started == ["outer", "other", "deployed"]
