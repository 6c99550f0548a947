"""Spans, tools, workflows and users: where events belong, however the agent's code runs."""

from __future__ import annotations

import asyncio
import contextvars
import random
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentops_monitoring import AgentOpsMonitor, monitored, trace


def where(event: dict[str, Any]) -> tuple[Any, ...]:
    return event["workflow_id"], event["parent_id"], event.get("user_id")


def test_user_session_and_tags_are_fields_of_each_line_and_no_dimensions(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    with monitor.context(user_id="u-1", session_id="s-1", tags={"plan": "pro", "beta": True}):
        monitor.record_event("test_passed")
        with monitor.context(user_id=17, tags={"plan": "free"}):  # type: ignore[arg-type]
            monitor.record_event("test_passed")
        with monitor.workflow("order-17", tags={"step": 2}):
            monitor.record_event("test_passed", {"big": "x" * 200_000})
    monitor.record_event("test_passed")
    outer, inner, workflow, none = recorded()
    assert (outer["user_id"], outer["session_id"]) == ("u-1", "s-1")
    assert outer["tags"] == {"plan": "pro", "beta": True}
    assert (inner["user_id"], inner["session_id"]) == ("17", "s-1")
    assert inner["tags"] == {"plan": "free", "beta": True}
    assert (workflow["workflow_id"], workflow["user_id"]) == ("order-17", "u-1")
    assert workflow["tags"] == {"plan": "pro", "beta": True, "step": 2}
    assert {"user_id", "session_id", "tags"}.isdisjoint(none)


def test_ids_and_tags_of_any_size_leave_the_line_within_its_limit(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    ids = ["é" * 5_000 + end for end in "ab"]
    tags = {f"{number}-{'k' * 500}": "v" * 9_999 for number in range(100)}
    for each in ids:
        with monitor.context(user_id=each, session_id=each, tags=tags):
            monitor.record_event("test_passed", {"big": "x" * 100_000})
    first, second = recorded()
    assert first["user_id"] != second["user_id"]
    assert len(first["user_id"]) == 256
    assert len(first["tags"]) == 15
    assert "32 at most" in " ".join(first["problems"])
    assert "longer than 256" in " ".join(first["problems"])


def test_tags_of_any_script_and_depth_leave_the_line_within_its_limit(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    with monitor.context(tags={f"{number}{'漢' * 255}": "字" * 256 for number in range(32)}):
        monitor.record_event("test_passed", {"big": "x" * 100_000})
    with ExitStack() as stack:
        for level in range(100):
            tags = {f"{level}-{number}": "v" * 100 for number in range(8)}
            stack.enter_context(monitor.context(tags=tags))
        monitor.record_event("test_passed")
    first, second = recorded()  # which refuses lines that are longer
    assert first["tags"]
    assert "32 at most" in " ".join(second["problems"])
    assert len(second["tags"]) == 32
    assert second["tags"].keys() >= tags.keys()


def test_tags_that_no_longer_fit_are_a_wrong_argument(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOPS_STRICT", "1")
    monitor = AgentOpsMonitor("a")
    outside = where_now(monitor)
    with monitor.context(tags={f"a{number}": 1 for number in range(32)}):
        for scope in (monitor.context(tags={"b": 1}), monitor.workflow("w", tags={"b": 1})):
            with pytest.raises(ValueError, match="32 at most"), scope:
                pass
    assert where_now(monitor) == outside


def test_what_was_wrong_leaves_the_line_within_its_limit(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    for _ in range(15):
        monitor.context(user_id={"\U0001f600" * 300: 1}, session_id=["漢" * 300])  # type: ignore[arg-type]
    monitor.record_event("test_passed", {"big": "x" * 100_000})
    (event,) = recorded()
    assert "user_id" in event["problems"][0]
    assert event["problems"][-1] == f"and {30 + 2 - len(event['problems']) - 15} more problems"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"user_id": 1.5}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"session_id": ["s"]}, "session_id"),
        ({"tags": ["a", "b"]}, "tags"),
        ({"tags": {"a": {"b": 1}}}, "tag 'a'"),
        ({"tags": {"a" * 300: 1}}, "longer than 256"),
    ],
)
def test_wrong_ids_and_tags(
    given: dict[str, Any], named: str, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = AgentOpsMonitor("a")
    for scope in (monitor.context, monitor.workflow):
        with scope(**given):
            monitor.record_event("test_passed")
    monitor.record_event("test_passed")
    first, second, third = recorded()
    assert named in " ".join(first["problems"])
    assert named in " ".join(second["problems"])
    assert "problems" not in third
    monkeypatch.setenv("AGENTOPS_STRICT", "1")
    for scope in (AgentOpsMonitor("a").context, AgentOpsMonitor("a").workflow):
        with pytest.raises(ValueError, match=named):
            scope(**given)


def test_a_span_can_be_used_again_and_says_more_until_it_ends(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    span = monitor.span("attempt", number=1)
    for number in (1, 2):
        with span as begun:
            begun.fields["number"] = number
            monitor.record_event("test_passed")
    one, first, two, second = recorded()
    assert (one["parent_id"], two["parent_id"]) == (first["span_id"], second["span_id"])
    assert first["span_id"] != second["span_id"]
    assert (first["data"]["number"], second["data"]["number"]) == (1, 2)


def test_whatever_an_agent_makes_of_a_span_it_ends_in_peace(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    for scope in (monitor.span("s"), monitor.tool("t")):
        assert scope.span_id is None
        with scope as begun:
            begun.fields = 7  # type: ignore[assignment]
            begun.name = None
    assert [event["data"]["fields"] for event in recorded()] == [7, 7]


def test_what_ends_twice_or_never_began_leaves_nothing(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    for scope in (monitor.span("s"), monitor.tool("t"), monitor.context(user_id="u"), monitor.workflow("w")):
        scope.__exit__(None, None, None)
        with scope:
            pass
        scope.__exit__(None, None, None)
    monitor.record_event("test_passed")
    assert [event["type"] for event in recorded()] == ["span", "span", "test_passed"]
    assert where(recorded()[-1])[1:] == (None, None)


def test_a_tool_from_begin_to_end(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    with monitor.tool("search", arguments={"query": "p99", "api_key": "k"}) as call:
        monitor.record_event("test_passed")
        call.result = ["hit"]
    with pytest.raises(TimeoutError), monitor.tool("fetch"):
        raise TimeoutError("after 3 s, token=abc")
    with monitor.tool("sql") as call:
        call.error = "no such table"
    inside, search, fetch, sql = recorded()
    assert inside["parent_id"] == search["span_id"]
    took = search["data"].pop("duration_ms")
    assert took >= 0
    assert search["data"] == {
        "name": "search",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.call.arguments": {"query": "p99", "api_key": "[REDACTED]"},
        "gen_ai.tool.call.result": ["hit"],
    }
    assert fetch["data"]["error"] == {"type": "TimeoutError", "message": "after 3 s, token=[REDACTED]"}
    assert sql["data"]["error"] == {"message": "no such table"}


def test_a_tool_after_the_fact(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    monitor.track_tool("search", arguments={"q": 1}, result=2, duration_ms=12)
    monitor.track_tool("search", error=LookupError("none"))
    good, bad = recorded()
    assert good["type"] == bad["type"] == "span"
    assert good["data"]["gen_ai.tool.call.arguments"] == {"q": 1}
    assert good["data"]["duration_ms"] == 12
    assert "error" not in good["data"]
    assert bad["data"]["error"] == {"type": "LookupError", "message": "none"}
    assert bad["data"]["duration_ms"] is None


def test_the_early_end_of_a_generator_is_no_error(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")

    def pieces() -> Iterator[int]:
        with monitor.span("reading"):
            yield from range(3)

    for _ in pieces():
        break
    (span,) = recorded()
    assert "error" not in span["data"]


def test_two_generators_in_turns_do_not_leave_their_scopes_behind(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")

    def order(number: int) -> Generator[None, None, None]:
        with monitor.workflow(f"order-{number}"):
            yield
            yield

    first, second = order(1), order(2)
    next(first), next(second)
    first.close()
    assert monitor.current.workflow_id == "order-2"
    second.close()
    monitor.record_event("test_passed")
    (event,) = recorded()
    assert not event["workflow_id"].startswith("order")


SCOPES = ("span", "tool", "context", "workflow")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(SCOPES), st.booleans()), max_size=12), st.randoms())
def test_scopes_may_end_in_any_order(
    recorded: Any, steps: list[tuple[str, bool]], chance: random.Random
) -> None:
    """The innermost scope that is still open says where an event belongs; a list is the oracle."""
    monitor = AgentOpsMonitor("a")
    outside = where_now(monitor)
    opened: list[Any] = []
    for number, (kind, closes) in enumerate(steps):
        if closes and opened:
            opened.pop(chance.randrange(len(opened))).__exit__(None, None, None)
        else:
            make: dict[str, Callable[[], Any]] = {
                "span": partial(monitor.span, "s"),
                "tool": partial(monitor.tool, "t"),
                "context": partial(monitor.context, user_id=f"u-{number}"),
                "workflow": partial(monitor.workflow, f"w-{number}"),
            }
            scope = make[kind]()
            scope.__enter__()
            opened.append(scope)
        assert trace.current() is opened[-1].context if opened else where_now(monitor) == outside
    chance.shuffle(opened)
    for scope in opened:
        scope.__exit__(None, None, None)
    assert where_now(monitor) == outside


def where_now(monitor: AgentOpsMonitor) -> tuple[Any, ...]:
    current = monitor.current
    return current.workflow_id, current.span_id, current.user_id


def test_a_stream_that_is_closed_in_another_task_frees_the_task_that_began_it(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")

    async def pieces() -> AsyncIterator[int]:
        with monitor.workflow("stream"):
            yield 1
            yield 2

    async def agent() -> None:
        stream = pieces()
        async for _ in stream:
            break
        await asyncio.create_task(stream.aclose())  # type: ignore[attr-defined]
        monitor.record_event("test_passed")

    asyncio.run(agent())
    assert recorded()[-1]["workflow_id"] != "stream"


def test_tasks_and_threads_keep_their_own_scopes(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")

    def work(number: int) -> None:
        with monitor.workflow(f"w-{number}", user_id=f"u-{number}"), monitor.span("outer"):
            for _ in range(20):
                with monitor.span("inner"):
                    monitor.record_event("test_passed", {"number": number})

    async def task(number: int) -> None:
        with monitor.workflow(f"w-{number}", user_id=f"u-{number}"):
            for _ in range(20):
                await asyncio.sleep(0)
                monitor.record_event("test_passed", {"number": number})

    async def tasks() -> None:
        await asyncio.gather(*(task(number) for number in range(8)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    asyncio.run(tasks())
    events = [event for event in recorded() if event["type"] == "test_passed"]
    assert len(events) == 2 * 8 * 20
    for event in events:
        number = event["data"]["number"]
        assert (event["workflow_id"], event["user_id"]) == (f"w-{number}", f"u-{number}")
    parents = {event["span_id"]: event["parent_id"] for event in recorded() if event["type"] == "span"}
    threads = events[: 8 * 20]
    assert all(parents[parents[event["parent_id"]]] is None for event in threads)


def test_threads_of_the_only_workflow_belong_to_it(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    with monitor.workflow("order-17", user_id="u"):
        in_thread(lambda: monitor.record_event("test_passed"))
        with monitor.workflow("order-18"):
            in_thread(lambda: monitor.record_event("test_passed"))
            contextvars.copy_context().run(lambda: monitor.record_event("test_passed"))
    in_thread(lambda: monitor.record_event("test_passed"))
    first, inner, copied, last = recorded()
    assert where(first) == ("order-17", None, "u")
    assert inner["workflow_id"] == "order-17"
    assert copied["workflow_id"] == "order-18"
    assert last["workflow_id"] != "order-17"


def in_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_threads_of_an_invocation_stay_in_it(in_lambda: None, recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")

    @monitored
    def handler(event: Any, context: Any) -> None:
        with monitor.workflow("order-17"):
            in_thread(lambda: monitor.record_event("test_passed"))

    handler({}, SimpleNamespace(aws_request_id="8f7b1a52-1c2d-4e3f-8a9b-000000000009"))
    started, inside, _ = recorded()
    assert inside["workflow_id"] == started["workflow_id"]


def test_what_outlives_its_scope_still_belongs_to_it(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")

    async def agent() -> None:
        async def later() -> None:
            await asyncio.sleep(0)
            monitor.record_event("test_passed")

        with monitor.workflow("order-17"):
            task = asyncio.create_task(later())
        await task

    asyncio.run(agent())
    assert recorded()[0]["workflow_id"] == "order-17"


def test_deep_nesting_and_long_life_cost_no_memory(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    with ExitStack() as stack:
        spans = [stack.enter_context(monitor.span("s")) for _ in range(2_000)]
        assert monitor.current is spans[-1].context
    # Scopes whose generators nobody ends, one inside the other.
    for _ in range(2_000):
        scope = monitor.span("s")
        contextvars.copy_context().run(scope.__enter__)
        scope.__exit__(None, None, None)
    # Scopes that end in the wrong order, again and again.
    for _ in range(2_000):
        first, second = monitor.span("s"), monitor.span("s")
        for each in (first, second):
            each.__enter__()
        for each in (first, second):
            each.__exit__(None, None, None)
    with monitor.span("s"):
        depth = 0
        context: Any = monitor.current
        while context is not None:
            context, depth = context.outer, depth + 1
        assert depth < 10
