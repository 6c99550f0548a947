"""A model call counts once, whoever sees it first."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring import AgentOpsMonitor, instrument, llm, trace, transport
from agentops_monitoring import calls as model_calls
from agentops_monitoring.pricing import TokenUsage
from agentops_monitoring.trace import TraceContext

from .aws_server import Aws
from .conftest import Recorded, read_events
from .seen import EXAMPLES, MODEL, calls, notes, see

SEED = Path(__file__).parents[1] / "data" / "seed_monitoring_example.py.txt"


@pytest.mark.parametrize("first", ["seen", "reported"])
@pytest.mark.parametrize(
    "reported",
    [
        {"model": "claude-sonnet-4", "response_id": "r1", "input_tokens": 999, "output_tokens": 9},
        {"model": MODEL, "input_tokens": 100, "output_tokens": 20, "cache_read_tokens": 50},
        {"model": "anthropic.claude-sonnet-4-20250514-v1:0", "input_tokens": 100, "output_tokens": 20},
        {"model": "claude-sonnet-4-20250514", "input_tokens": 150, "output_tokens": 20},
    ],
    ids=["its id", "its tokens", "without the cached", "with the cached as input"],
)
def test_a_call_counts_once_in_either_order(first: str, reported: dict[str, Any], recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    if first == "seen":
        see(monitor, TokenUsage(100, 20, 50))
    monitor.track_llm_usage(**reported)
    if first == "reported":
        see(monitor, TokenUsage(100, 20, 50))
    events = recorded()
    (call,) = calls(events)
    assert call["data"]["source"] == ("auto" if first == "seen" else "manual")
    assert all("cost_usd" not in event["data"] for event in notes(events))


@pytest.mark.parametrize(
    "other",
    [
        {"model": MODEL, "response_id": "r2", "input_tokens": 100, "output_tokens": 20},
        {"model": MODEL, "input_tokens": 100, "output_tokens": 21},
        {"model": MODEL, "input_tokens": 101, "output_tokens": 20},
        {"model": MODEL, "input_tokens": 100, "output_tokens": 20, "cache_read_tokens": 49},
        {"model": "claude-3-haiku", "input_tokens": 100, "output_tokens": 20},
        {"model": "gpt-4o", "input_tokens": 100, "output_tokens": 20},
    ],
)
@pytest.mark.parametrize("first", ["seen", "reported"])
def test_another_call_counts_too(first: str, other: dict[str, Any], recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    if first == "seen":
        see(monitor, TokenUsage(100, 20, 50))
    monitor.track_llm_usage(**other)
    if first == "reported":
        see(monitor, TokenUsage(100, 20, 50))
    assert len(calls(recorded())) == 2


def test_each_seen_call_is_claimed_once(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    for _ in range(3):
        see(monitor, TokenUsage(10, 5), response_id=None)
    for _ in range(5):
        monitor.track_llm_usage(model=MODEL, input_tokens=10, output_tokens=5)
    assert len(calls(recorded())) == 3 + 2


def test_another_invocations_calls_are_none_of_this_one(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    see(monitor, TokenUsage(10, 5), context=TraceContext("another"))
    monitor.track_llm_usage(model=MODEL, input_tokens=10, output_tokens=5)
    assert len(calls(recorded())) == 2


def test_spans_and_workflows_of_an_invocation_share_its_calls(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    with monitor.workflow("w"), monitor.span("inner"):
        see(monitor, TokenUsage(10, 5))
    monitor.track_llm_usage(model=MODEL, input_tokens=10, output_tokens=5)
    assert len(calls(recorded())) == 1


def test_tokens_alone_mean_no_call_of_an_hour_ago(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = AgentOpsMonitor("a")
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    see(monitor, TokenUsage(10, 5), response_id="r1")
    now += 3600
    monitor.track_llm_usage(model=MODEL, input_tokens=10, output_tokens=5)
    assert len(calls(recorded())) == 2
    monitor.track_llm_usage(model=MODEL, response_id="r1", input_tokens=10, output_tokens=5)
    assert len(calls(recorded())) == 2


def test_a_report_with_metadata_annotates_the_call_that_was_counted(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    see(monitor, TokenUsage(100, 20))
    cost = monitor.track_llm_usage(
        model=MODEL, input_tokens=100, output_tokens=20, metadata={"prompt": "v3", "password": "x"}
    )
    call, note = recorded()
    assert cost == Decimal(call["data"]["cost_usd"])
    assert note["type"] == "llm_annotation"
    assert note["data"]["annotates"] == call["id"]
    assert note["data"]["metadata"]["prompt"] == "v3"
    assert note["data"]["metadata"]["password"] != "x"
    assert "problems" not in note


def test_metadata_of_a_call_that_only_the_agent_knows_is_the_calls(recorded: Any) -> None:
    AgentOpsMonitor("a").track_llm_usage(
        model="gpt-4o", input_tokens=1, output_tokens=1, metadata={"prompt": "v3"}
    )
    (event,) = recorded()
    assert event["type"] == "llm_usage"
    assert event["data"]["metadata"] == {"prompt": "v3"}


def test_what_the_second_one_knows_is_kept(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    monitor.track_llm_usage(model=MODEL, response_id="r1", input_tokens=100, output_tokens=1)
    see(monitor, TokenUsage(100, 20))
    call, note = recorded()
    assert note["data"] == {
        "annotates": call["id"],
        "gen_ai.request.model": MODEL,
        "source": "auto",
        "duration_ms": 12.5,
        "gen_ai.response.id": "r1",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
    }
    assert note["problems"] == ["its tokens are not those that were counted"]


def test_a_report_prices_the_call_whose_tokens_were_not_seen(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    see(monitor, None)
    monitor.track_llm_usage(model=MODEL, response_id="r1", input_tokens=100, output_tokens=20)
    seen, reported = calls(recorded())
    assert seen["data"]["cost_usd"] is None
    assert seen["data"]["gen_ai.usage.input_tokens"] is None
    assert reported["data"]["cost_usd"] is not None


def test_a_stream_left_half_read_adds_nothing_to_its_report(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    monitor.track_llm_usage(model=MODEL, response_id="r1", input_tokens=100, output_tokens=20)
    see(monitor, None)
    events = recorded()
    assert len(calls(events)) == 1
    assert notes(events)[0]["problems"] == ["the stream was not read to its end"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("claude-3-opus", "us.anthropic.claude-3-opus-20240229-v1:0"),
        ("claude-opus-4.8", "global.anthropic.claude-opus-4-8-v1:0"),
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4.1", "azure/gpt-4.1-2025-04-14"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5-latest"),
        ("nova-lite", "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.amazon.nova-lite-v1:0"),
    ],
)
def test_names_of_one_model(one: str, other: str, recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    for model in (one, other):
        see(monitor, TokenUsage(10, 5), model=model, response_id=None)
        monitor.track_llm_usage(model=other if model == one else one, input_tokens=10, output_tokens=5)
    assert len(calls(recorded())) == 2


@pytest.mark.parametrize("first", ["seen", "reported"])
def test_seeds_example_beside_the_same_call_seen_counts_once(first: str, recorded: Any) -> None:
    """SEED.md's example verbatim, its `{...}` included."""
    module = ModuleType("seed")
    exec(compile(SEED.read_text(), "SEED.md", "exec"), module.__dict__)
    agent = module.__dict__["YourAgent"]()
    model = "anthropic.claude-3-opus-20240229-v1:0"
    if first == "seen":
        see(agent.monitor, TokenUsage(1000, 500), model=model)
    agent.process()
    if first == "reported":
        see(agent.monitor, TokenUsage(1000, 500), model=model)
    (call,) = calls(recorded())
    assert Decimal(call["data"]["cost_usd"]) == Decimal("0.0525")


def test_seeds_example_beside_an_instrumented_call_counts_once(
    aws: Aws, in_lambda: None, recorded: Any
) -> None:
    instrument.install()
    aws.answer(
        {
            "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 1000, "outputTokens": 500, "totalTokens": 1500},
            "metrics": {"latencyMs": 5},
        }
    )
    module = ModuleType("seed")
    exec(compile(SEED.read_text(), "SEED.md", "exec"), module.__dict__)
    agent = module.__dict__["YourAgent"]()
    client = boto3.session.Session().client("bedrock-runtime")
    client.converse(
        modelId="anthropic.claude-3-opus-20240229-v1:0",
        messages=[{"role": "user", "content": [{"text": "hello"}]}],
    )
    agent.process()
    events = recorded()
    assert [event["type"] for event in events] == ["llm_usage", "issue_detected", "decision_made"]
    assert Decimal(events[0]["data"]["cost_usd"]) == Decimal("0.0525")


def test_threads_that_see_and_report_the_same_calls_count_each_once() -> None:
    sink = Recorded()
    transport.replace(sink)
    monitor = AgentOpsMonitor("a")
    context = TraceContext("w")
    ready = threading.Barrier(8)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(number: int) -> None:
        trace.enter(context)
        ready.wait()
        for turn in range(40):
            if number % 2:
                see(monitor, TokenUsage(10, turn), response_id=f"{number // 2}-{turn}")
            else:
                monitor.track_llm_usage(
                    model=MODEL, input_tokens=10, output_tokens=turn, response_id=f"{number // 2}-{turn}"
                )

    try:
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(copy_context().run, work, number) for number in range(8)]:
                done.result()
    finally:
        sys.setswitchinterval(before)
    assert len(calls(read_events(sink.stream.getvalue()))) == 4 * 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_reports_although_its_parent_was_forked_within_a_report() -> None:
    with model_calls._lock:
        # The parent's other threads hold the lock at the fork; the child has none of them.
        held = threading.Thread(target=model_calls._lock.acquire)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                free = []
                thread = threading.Thread(target=lambda: free.append(model_calls._lock.acquire(timeout=5)))
                thread.start()
                thread.join()
                status = 0 if free == [True] else 1
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
    assert not held.is_alive()


COUNTS = st.tuples(*[st.integers(0, 3)] * 5)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    script=st.lists(
        st.tuples(st.sampled_from(["see", "report"]), COUNTS, st.sampled_from(["x", "y"])), max_size=20
    )
)
def test_by_id_the_count_is_the_number_of_ids(script: list[tuple[str, tuple[int, ...], str]]) -> None:
    """Whatever the order, each id counts as often as the one of the two who named it more often did."""
    sink = Recorded()
    transport.replace(sink)
    monitor = AgentOpsMonitor("a")
    context = TraceContext("w")
    for who, counts, response_id in script:
        usage = TokenUsage(*counts)  # type: ignore[arg-type]
        if who == "see":
            see(monitor, usage, response_id=response_id, context=context)
        else:
            names = [name for name, _ in llm.TOKEN_FIELDS]
            tokens: dict[str, Any] = dict(zip(names, counts, strict=True))
            here = copy_context()
            here.run(trace.enter, context)
            here.run(monitor.track_llm_usage, model=MODEL, response_id=response_id, **tokens)
    # An oracle of its own: a balance for each id.
    expected = 0
    balance = {"x": 0, "y": 0}
    for who, _, response_id in script:
        step = 1 if who == "see" else -1
        if balance[response_id] * step >= 0:
            expected += 1
        balance[response_id] += step
    assert len(calls(read_events(sink.stream.getvalue()))) == expected
