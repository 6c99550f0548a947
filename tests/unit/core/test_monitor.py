from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentops_monitoring import AgentEventType, AgentOpsMonitor, pricing

from .conftest import strict_json

DATA = Path(__file__).parents[1] / "data"


def test_the_example_of_the_users_page_runs_verbatim(
    in_lambda: None, recorded: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    exec((DATA / "seed_monitoring_example.py.txt").read_text(), names)
    agent = names["YourAgent"]()
    agent.process()
    issue, usage, decision = recorded()
    assert issue["type"] == "issue_detected"
    assert issue["agent"] == "agent_name"
    assert issue["data"] == {"issue_type": "high_error_rate", "severity": "high", "error_rate": 0.15}
    assert usage["data"]["gen_ai.request.model"] == "claude-3-opus"
    # $15 and $75 a million tokens
    assert Decimal(usage["data"]["cost_usd"]) == Decimal("0.0525")
    assert decision["data"]["inputs"] == {"metrics": ["..."]}
    assert [step["observation"] for step in decision["data"]["reasoning_chain"]] == [
        "Spike in 500 errors", "Memory leak in service",
    ]  # fmt: skip
    assert decision["data"]["confidence_score"] == 0.92


def test_usage_is_told_in_the_conventions_names(recorded: Any) -> None:
    cost = AgentOpsMonitor("a").track_llm_usage(
        model="anthropic.claude-sonnet-4-20250514-v1:0",
        input_tokens=10,
        output_tokens=20,
        cache_read_tokens=30,
        cache_write_tokens=40,
        cache_write_1h_tokens=50,
        region="us-east-1",
        duration_ms=12.5,
        response_id="r",
    )
    usage = pricing.TokenUsage(10, 20, 30, 40, 50)
    assert cost == pricing.llm_cost("anthropic.claude-sonnet-4-20250514-v1:0", usage, region="us-east-1")
    (event,) = recorded()
    assert event["data"] == {
        "gen_ai.request.model": "anthropic.claude-sonnet-4-20250514-v1:0",
        "gen_ai.provider.name": "aws.bedrock",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 30,
        "gen_ai.usage.cache_creation.input_tokens": 40,
        "cache_creation_1h.input_tokens": 50,
        "gen_ai.response.id": "r",
        "cost_usd": f"{cost:f}",
        "duration_ms": 12.5,
        "source": "manual",
        "tier": "standard",
        "region": "us-east-1",
    }


def test_an_unknown_model_is_unpriced_not_free(recorded: Any) -> None:
    assert (
        AgentOpsMonitor("a").track_llm_usage(model="no-such-model", input_tokens=1, output_tokens=1) is None
    )
    assert recorded()[0]["data"]["cost_usd"] is None


def test_responses_are_read(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    bedrock = {
        "usage": {"inputTokens": 5, "outputTokens": 6, "cacheReadInputTokens": 7, "cacheWriteInputTokens": 8},
        "ResponseMetadata": {"RequestId": "req"},
    }
    openai = {
        "id": "chatcmpl-1",
        "model": "gpt-4o-2024-08-06",
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 60},
        },
    }

    class Usage:
        def __init__(self) -> None:
            self.input_tokens, self.output_tokens, self.cache_read_input_tokens = 1, 2, 3

    class Anthropic:
        def __init__(self) -> None:
            self.id, self.model, self.usage = "msg_1", "claude-3-5-haiku-20241022", Usage()

    monitor.track_llm_usage(model="amazon.nova-lite-v1:0", response=bedrock)
    monitor.track_llm_usage(response=openai)
    monitor.track_llm_usage(response=Anthropic())
    counts = [
        (
            event["data"]["gen_ai.response.id"],
            event["data"]["gen_ai.usage.input_tokens"],
            event["data"]["gen_ai.usage.output_tokens"],
            event["data"]["gen_ai.usage.cache_read.input_tokens"],
        )
        for event in recorded()
    ]
    assert counts == [("req", 5, 6, 7), ("chatcmpl-1", 40, 9, 60), ("msg_1", 1, 2, 3)]


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("record_event", {"event_type": None}, "event type"),
    ("record_event", {"event_type": ""}, "event type"),
    ("record_event", {"event_type": "a#b"}, "event type"),
    ("record_event", {"event_type": "x" * 200}, "event type"),
    ("record_event", {"event_type": "test_passed", "data": [1]}, "data"),
    (
        "record_decision",
        {"decision_type": "d", "reasoning_chain": [], "confidence_score": 1.2},
        "confidence_score",
    ),
    (
        "record_decision",
        {"decision_type": "d", "reasoning_chain": [], "confidence_score": math.nan},
        "confidence_score",
    ),
    (
        "record_decision",
        {"decision_type": "d", "reasoning_chain": [], "confidence_score": "high"},
        "confidence_score",
    ),
    ("record_decision", {"decision_type": "d", "reasoning_chain": ["think"]}, "step 1"),
    ("record_decision", {"decision_type": "d", "reasoning_chain": "think"}, "reasoning_chain"),
    ("record_decision", {"decision_type": "d", "reasoning_chain": None}, "reasoning_chain"),
    ("record_decision", {"decision_type": None, "reasoning_chain": []}, "decision_type"),
    ("track_llm_usage", {"model": None, "input_tokens": 1, "output_tokens": 1}, "model"),
    ("track_llm_usage", {"model": "gpt-4o", "input_tokens": -1, "output_tokens": 1}, "input_tokens"),
    ("track_llm_usage", {"model": "gpt-4o", "input_tokens": 1, "output_tokens": "2"}, "output_tokens"),
    ("track_llm_usage", {"model": "gpt-4o", "input_tokens": 1, "output_tokens": True}, "output_tokens"),
    ("track_llm_usage", {"model": "gpt-4o", "input_tokens": 1.5, "output_tokens": 1}, "input_tokens"),
    ("track_llm_usage", {"model": "gpt-4o"}, "input_tokens"),
]


@pytest.mark.parametrize(("method", "arguments", "named"), WRONG)
def test_wrong_arguments_are_recorded_with_the_reason(
    method: str, arguments: dict[str, Any], named: str, recorded: Any
) -> None:
    getattr(AgentOpsMonitor("a"), method)(**arguments)
    (event,) = recorded()
    assert named in " ".join(event["problems"])
    if method == "track_llm_usage":
        assert event["data"]["cost_usd"] is None


@pytest.mark.parametrize(("method", "arguments", "named"), WRONG)
def test_wrong_arguments_raise_in_strict_mode(
    method: str, arguments: dict[str, Any], named: str, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_STRICT", "1")
    with pytest.raises(ValueError, match=named):
        getattr(AgentOpsMonitor("a"), method)(**arguments)
    assert recorded() == []


def test_nothing_of_a_wrong_argument_gets_lost(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    monitor.record_event("test_passed", ["kept"])  # type: ignore[arg-type]
    monitor.record_decision(decision_type="d", reasoning_chain=["kept"])  # type: ignore[list-item]
    first, second = recorded()
    assert first["data"] == {"value": ["kept"]}
    assert second["data"]["reasoning_chain"] == [{"thought": "kept"}]


@pytest.mark.parametrize("name", ["", "   ", "a#b", "ä", "a|b", ":x", 7, "x" * 500])
def test_agent_names_that_no_dimension_takes(
    name: Any, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    AgentOpsMonitor(name).record_event("test_passed")
    (event,) = recorded()
    assert event["agent"]
    assert "agent_name" in event["problems"][0]
    monkeypatch.setenv("AGENTOPS_STRICT", "1")
    with pytest.raises(ValueError, match="agent_name"):
        AgentOpsMonitor(name)


def test_odd_values_are_rendered_in_strict_mode_too(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOPS_STRICT", "1")
    AgentOpsMonitor("a").record_event("test_passed", {1: ..., "n": math.nan})  # type: ignore[dict-item]
    assert recorded()[0]["data"] == {"1": "...", "n": "NaN"}


def test_spans_and_workflows_nest(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    with monitor.workflow("order-17") as workflow:
        assert monitor.current is workflow
        with monitor.span("outer", step=1):
            monitor.record_event("test_passed")
            with pytest.raises(KeyError), monitor.span("inner"):
                raise KeyError("shelf")
        with monitor.workflow("order-17"):
            monitor.complete_workflow("shipped", items=2)
    with monitor.workflow():
        monitor.fail_workflow("gave up")
    passed, inner, outer, completed, failed = recorded()
    assert passed["parent_id"] == inner["parent_id"] == outer["span_id"]
    assert inner["data"]["error"] == {"type": "KeyError", "message": "'shelf'"}
    assert outer["data"]["name"] == "outer"
    assert outer["data"]["step"] == 1
    assert outer["parent_id"] is completed["parent_id"] is None
    assert {each["workflow_id"] for each in (passed, inner, outer, completed)} == {"order-17"}
    assert completed["data"]["reason"] == "shipped"
    assert completed["data"]["items"] == 2
    assert completed["data"]["duration_ms"] >= 0
    assert failed["trace_id"] == failed["workflow_id"] != completed["trace_id"]


def test_a_workflow_of_any_name_has_one_trace(recorded: Any) -> None:
    for name in ("a" * 32, "x" * 10_000, "über-17"):
        for _ in range(2):
            with AgentOpsMonitor("a").workflow(name):
                AgentOpsMonitor("a").record_event("test_passed")
    events = recorded()
    assert (
        len({event["trace_id"] for event in events}) == len({event["workflow_id"] for event in events}) == 3
    )
    assert events[0]["trace_id"] == "a" * 32
    assert all(len(event["workflow_id"]) <= 256 for event in events)


def test_outside_the_wrapper_lambdas_own_trace_joins_events(
    in_lambda: None, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = AgentOpsMonitor("a")
    for root in ("1-5759e988-bd862e3fe1be46a994272793", "1-5759e988-bd862e3fe1be46a994272794"):
        monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root={root};Parent=53995c3f42cd8ad8;Sampled=0")
        monitor.record_event("test_passed")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "nonsense")
    monitor.record_event("test_passed")
    first, second, third = recorded()
    assert first["workflow_id"] == "5759e988bd862e3fe1be46a994272793"
    assert second["workflow_id"] == "5759e988bd862e3fe1be46a994272794"
    assert third["workflow_id"] not in (first["workflow_id"], second["workflow_id"])


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(...)
containers = anything | st.lists(anything) | st.dictionaries(anything, anything)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(containers, containers, containers, containers)
def test_no_argument_whatever_raises_or_loses_the_event(
    recorded: Any, one: Any, two: Any, three: Any, four: Any
) -> None:
    monitor = AgentOpsMonitor(one)
    before = len(recorded())
    monitor.record_event(one, two)
    monitor.record_decision(
        decision_type=one,
        reasoning_chain=two,
        inputs=three,
        outputs=four,
        confidence_score=one,
        alternatives=two,
    )
    monitor.track_llm_usage(
        model=one,
        input_tokens=two,
        output_tokens=three,
        cache_read_tokens=four,
        tier=one,
        region=two,
        response=three,
    )
    monitor.complete_workflow(one, field=two)
    with monitor.workflow(one), monitor.span(two, field=three):
        pass
    assert len(recorded()) == before + 5


def test_the_first_line_of_a_process_is_ordinary_json(
    in_lambda: None, capsys: pytest.CaptureFixture[str]
) -> None:
    AgentOpsMonitor().record_event(AgentEventType.TEST_PASSED)
    text = capsys.readouterr().out
    assert json.loads(text) == strict_json(text)
    assert json.loads(text)["AgentName"] == "engineer"


class Hostile:
    """An object that raises at every touch, as a proxy without its request does."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def _raise(self, *_: Any) -> Any:
        raise RuntimeError("touched")

    __bool__ = __eq__ = __ne__ = __float__ = __index__ = __str__ = __iter__ = _raise
    __hash__ = None  # type: ignore[assignment]


def test_objects_that_raise_when_looked_at_are_recorded(recorded: Any) -> None:
    odd: Any = Hostile()
    monitor = AgentOpsMonitor(odd)
    monitor.record_event("test_passed", odd)
    monitor.record_event(odd)
    monitor.record_decision(
        decision_type=odd, reasoning_chain=odd, inputs=odd, confidence_score=odd, decision_id=odd
    )
    monitor.record_decision(decision_type="d", reasoning_chain=[odd, {"thought": odd}])
    monitor.track_llm_usage(model=odd, input_tokens=odd, output_tokens=1, tier=odd, response=odd)
    monitor.track_llm_usage(model="gpt-4o", response={"model": odd, "id": odd, "usage": odd})
    with monitor.workflow(odd), monitor.span(odd, field=odd):
        monitor.complete_workflow(odd, field=odd)
    assert [event["type"] for event in recorded()] == [
        "test_passed", "custom_event", "decision_made", "decision_made", "llm_usage", "llm_usage",
        "workflow_completed", "span",
    ]  # fmt: skip


def test_a_chain_of_many_wrong_steps_is_recorded_whole(recorded: Any) -> None:
    AgentOpsMonitor("a").record_decision(decision_type="d", reasoning_chain=["think"] * 5_000)  # type: ignore[list-item]
    (event,) = recorded()
    assert len(event["data"]["reasoning_chain"]) == 5_000
    assert "step 1 " in event["problems"][0]
    assert len(event["problems"]) == 1


def test_a_span_that_ends_in_another_task_leaves_that_task_alone(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")

    async def pieces() -> AsyncIterator[int]:
        with monitor.span("reading"):
            yield 1
            yield 2

    async def agent() -> None:
        stream = pieces()
        await anext(stream)

        async def other() -> None:
            with monitor.workflow("order-17"):
                await stream.aclose()  # type: ignore[attr-defined]
                monitor.record_event("test_passed")

        await asyncio.create_task(other())

    asyncio.run(agent())
    assert recorded()[-1]["workflow_id"] == "order-17"
