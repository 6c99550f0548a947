"""An invocation behind the wrapper, from start to end."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentops_monitoring import AgentOpsMonitor, invocation, monitored, trace, transport

from .conftest import Recorded, read_events
from .invoked import CONTEXT, ONE, REQUEST, Hostile, message, work


def test_an_invocation_from_start_to_end(
    in_lambda: None, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invocation, "_cold", True)

    @monitored
    def handler(event: Any, context: Any) -> Any:
        AgentOpsMonitor().record_event("test_passed", event)
        return {"result": event}

    answer = handler({"a": 1}, CONTEXT)
    assert answer == {"result": {"a": 1}}
    assert handler({"a": 2}, CONTEXT)
    started, inside, completed, *second = recorded()
    assert [each["type"] for each in (started, inside, completed)] == [
        "invocation_started", "test_passed", "invocation_completed",
    ]  # fmt: skip
    assert started["data"] == {"cold_start": True, "trigger": "direct"}
    assert second[0]["data"]["cold_start"] is False
    assert {each["workflow_id"] for each in (started, inside, completed)} == {REQUEST.replace("-", "")}
    assert {each["request_id"] for each in (started, inside, completed)} == {REQUEST}
    assert started["span_id"] == completed["span_id"] == inside["parent_id"] != inside["span_id"]
    assert started["parent_id"] is completed["parent_id"] is None
    assert completed["data"]["duration_ms"] >= 0


def test_a_message_brings_its_trace(in_lambda: None, recorded: Any) -> None:
    @monitored
    def handler(event: Any, context: Any) -> None:
        assert trace.current().hop == 2
        AgentOpsMonitor().complete_workflow("done")

    handler(message(), CONTEXT)
    started, received, done, completed = recorded()
    assert started["data"]["trigger"] == "eventbridge"
    assert {each["trace_id"] for each in (started, received, done, completed)} == {"a" * 32}
    assert started["parent_id"] == completed["parent_id"] == "b" * 16
    assert received["parent_id"] == done["parent_id"] == started["span_id"]
    assert received["data"] == {
        "from": "manager",
        "to": "engineer",
        "message_type": "issue.found",
        "message_id": "m1",
        "hop": 2,
        "latency_ms": received["data"]["latency_ms"],
        "channel": "eventbridge",
        "addressed_to": "engineer",
    }
    assert received["data"]["latency_ms"] > 10**12
    assert done["data"]["duration_ms"] > 10**12


def test_no_message_arrives_before_it_was_sent(in_lambda: None, recorded: Any) -> None:
    """The sender's clock may be ahead."""
    ahead = (int(time.time()) + 60) * 1_000
    handler: Any = monitored(lambda event, context: AgentOpsMonitor().complete_workflow())
    handler(message(sent_ms=ahead, workflow_started_ms=ahead), CONTEXT)
    _, received, done, _ = recorded()
    assert received["data"]["latency_ms"] == 0
    assert done["data"]["duration_ms"] == 0


@pytest.mark.parametrize(
    "event",
    [
        None, 7, [], "text", {}, {"detail": None}, {"detail": {"agentops": 7}}, {"detail": {"agentops": {}}},
        message(traceparent="nonsense"), message(traceparent=None),
        message(traceparent=f"ff-{'a' * 32}-{'b' * 16}-01"),
        message(traceparent=f"00-{'0' * 32}-{'b' * 16}-01"),
        message(traceparent=f"00-{'A' * 32}-{'b' * 16}-01"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("context", [None, CONTEXT, SimpleNamespace(aws_request_id=7)])
def test_events_without_a_context_start_a_workflow(
    event: Any, context: Any, in_lambda: None, recorded: Any
) -> None:
    assert monitored(lambda event, context: event)(event, context) is event
    started, completed = recorded()
    assert started["parent_id"] is None
    assert started["workflow_id"] == completed["workflow_id"]


def test_nonsense_in_a_context_is_left_out(in_lambda: None, recorded: Any) -> None:
    odd = message(hop="x", sent_ms=-5, workflow_started_ms=None, message_id=7, to=[], workflow_id="")
    odd["detail"]["agentops"]["from"] = {}
    monitored(lambda event, context: None)(odd, CONTEXT)
    received = recorded()[1]
    assert received["trace_id"] == received["workflow_id"] == "a" * 32
    assert received["data"]["from"] is None
    assert received["data"]["hop"] == 0
    assert received["data"]["latency_ms"] is None
    assert received["data"]["message_id"] == "b" * 16


def test_a_failure_is_told_without_its_secrets_and_passes_untouched(in_lambda: None, recorded: Any) -> None:
    failure = ValueError("cannot connect with password='hunter2'")

    def connect(password: str) -> None:
        raise failure

    @monitored
    def handler(event: Any, context: Any) -> None:
        connect(password="hunter2")

    with pytest.raises(ValueError) as raised:
        handler({}, CONTEXT)
    assert raised.value is failure
    assert failure.args == ("cannot connect with password='hunter2'",)
    assert failure.__cause__ is failure.__context__ is None
    failed = recorded()[-1]
    assert failed["type"] == "invocation_failed"
    error = failed["data"]["error"]
    assert error["type"] == "ValueError"
    assert error["message"] == "cannot connect with password=[REDACTED]"
    assert "in connect" in error["stack"]
    assert "hunter2" not in str(failed)
    assert "agentops_monitoring" not in error["stack"]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "failure", [SystemExit(1), KeyboardInterrupt(), Unprintable(), ExceptionGroup("g", [OSError()])]
)
def test_any_exception_is_told(failure: BaseException, in_lambda: None, recorded: Any) -> None:
    def handler(event: Any, context: Any) -> None:
        raise failure

    with pytest.raises(type(failure)):
        monitored(handler)({}, CONTEXT)
    assert recorded()[-1]["data"]["error"]["type"].endswith(type(failure).__name__)


def test_endless_recursion_is_told(in_lambda: None, recorded: Any) -> None:
    @monitored
    def handler(event: Any, context: Any) -> Any:
        def down() -> Any:
            return and_on()

        def and_on() -> Any:
            return down()

        return down()

    with pytest.raises(RecursionError):
        handler({}, CONTEXT)
    error = recorded()[-1]["data"]["error"]
    assert error["type"] == "RecursionError"
    assert 20 < error["stack"].count("in and_on") + error["stack"].count("in down") <= invocation.MAX_FRAMES


def test_a_handler_wrapped_twice_is_recorded_once(in_lambda: None, recorded: Any) -> None:
    monitored(monitored(lambda event, context: None))({}, CONTEXT)
    assert len(recorded()) == 2
    # Lambda's request tells, where a decorator between the two makes another event of it.
    inner: Any = monitored(lambda event, context: None)
    monitored(lambda event, context: inner({**event}, context))({}, CONTEXT)
    assert len(recorded()) == 4


def test_coroutines_stay_coroutines_and_do_not_mix(in_lambda: None, recorded: Any) -> None:
    @monitored
    async def handler(event: Any, context: Any) -> Any:
        await asyncio.sleep(0.001 * (event["n"] % 3))
        AgentOpsMonitor().record_event("test_passed", event)
        return event["n"]

    async def all_of_them() -> list[Any]:
        calls = (handler({"n": n}, SimpleNamespace(aws_request_id=f"request-{n}")) for n in range(20))
        return await asyncio.gather(*calls)

    assert asyncio.run(all_of_them()) == list(range(20))
    inside = [event for event in recorded() if event["type"] == "test_passed"]
    assert {event["request_id"] for event in inside} == {f"request-{event['data']['n']}" for event in inside}
    assert all(event["request_id"] == f"request-{event['data']['n']}" for event in inside)


def test_concurrent_invocations_in_threads_do_not_mix(in_lambda: None, recorded: Any) -> None:
    barrier = threading.Barrier(8)

    @monitored
    def handler(event: Any, context: Any) -> None:
        barrier.wait()
        AgentOpsMonitor().record_event("test_passed", event)
        barrier.wait()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: handler({"n": n}, SimpleNamespace(aws_request_id=f"request-{n}")), range(8)))
    inside = [event for event in recorded() if event["type"] == "test_passed"]
    assert all(event["request_id"] == f"request-{event['data']['n']}" for event in inside)


def test_threads_beside_several_invocations_belong_to_none_of_them(in_lambda: None, recorded: Any) -> None:
    """Whose they are cannot be known, and a wrong answer would be worse than none."""
    barrier = threading.Barrier(2)

    @monitored
    def handler(event: Any, context: Any) -> None:
        barrier.wait()
        thread = threading.Thread(target=AgentOpsMonitor().record_event, args=("test_passed",))
        thread.start()
        thread.join()
        barrier.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: handler({}, SimpleNamespace(aws_request_id=f"request-{n}")), range(2)))
    inside = [event["request_id"] for event in recorded() if event["type"] == "test_passed"]
    assert inside == [None, None]


def test_a_thread_of_the_only_invocation_belongs_to_it(in_lambda: None, recorded: Any) -> None:
    @monitored
    def handler(event: Any, context: Any) -> None:
        thread = threading.Thread(target=AgentOpsMonitor().record_event, args=("test_passed",))
        thread.start()
        thread.join()

    handler({}, CONTEXT)
    assert {event["request_id"] for event in recorded()} == {REQUEST}


def test_a_handler_without_a_context_is_recorded_once_however_often_it_is_wrapped(
    in_lambda: None, recorded: Any
) -> None:
    inner: Any = monitored(lambda event, context: work(event))
    outer: Any = monitored(lambda event, context: inner(event, context))
    event: Any = {}
    assert outer(event, None) is event
    assert [each["type"] for each in recorded()] == ONE
    # Another event in it is another invocation, as of a router that splits a batch.
    router: Any = monitored(lambda event, context: [inner({}, None), inner({}, None)])
    router({}, None)
    assert [each["type"] for each in recorded()[3:]].count("invocation_started") == 3


def test_invocations_of_equal_arguments_in_threads_are_each_recorded(in_lambda: None, recorded: Any) -> None:
    barrier = threading.Barrier(4)
    event: Any = {}

    @monitored
    def handler(event: Any, context: Any) -> None:
        barrier.wait()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: handler(event, None), range(4)))
    assert [each["type"] for each in recorded()].count("invocation_started") == 4


def test_only_one_frame_of_ours_is_in_the_traceback(in_lambda: None, recorded: Any) -> None:
    @monitored
    def handler(event: Any, context: Any) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError) as raised:
        handler({}, CONTEXT)
    files = [frame.path for frame in raised.traceback]
    assert [Path(str(each)).name for each in files] == ["test_wrapper.py", "wrapper.py", "test_wrapper.py"]
    assert raised.value.__context__ is None


def test_a_coroutine_that_is_cancelled_has_failed(in_lambda: None, recorded: Any) -> None:
    @monitored
    async def handler(event: Any, context: Any) -> None:
        await asyncio.sleep(60)

    async def cancel() -> None:
        task = asyncio.ensure_future(handler({}, CONTEXT))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert recorded()[-1]["data"]["error"]["type"] == "asyncio.exceptions.CancelledError"


def test_objects_of_any_kind_pass_through(in_lambda: None, recorded: Any) -> None:
    for answer in (Hostile(), object(), iter([1]), lambda: 1, io.BytesIO(), (x for x in "ab")):
        assert monitored(lambda event, context: event)(answer, CONTEXT) is answer


def test_the_span_starts_before_all_that_is_recorded_in_it(
    in_lambda: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Recorded):
        """Takes its time, as the first lines of a cold process do."""

        def write(self, lines: Any) -> None:
            time.sleep(0.02)
            super().write(lines)

    sink = Slow()
    transport.replace(sink)
    began = time.monotonic()
    monitored(lambda event, context: None)(message(), CONTEXT)
    elapsed = (time.monotonic() - began) * 1_000
    *_, completed = read_events(sink.stream.getvalue())
    assert 40 <= completed["data"]["duration_ms"] <= elapsed


@pytest.mark.parametrize("make_event", [dict, Hostile])
def test_arguments_that_raise_when_looked_at_reach_the_handler(
    make_event: Any, in_lambda: None, recorded: Any
) -> None:
    event, context = make_event(), Hostile()
    got = monitored(lambda event, context: (event, context))(event, context)
    assert got[0] is event
    assert got[1] is context
    assert recorded()[-1]["type"] == "invocation_completed"


def test_a_failure_with_a_long_message_does_not_hold_the_agent_up(in_lambda: None, recorded: Any) -> None:
    @monitored
    def handler(event: Any, context: Any) -> None:
        raise ValueError("abcdefg-" * 100_000)

    began = time.monotonic()
    with pytest.raises(ValueError, match="abcdefg"):
        handler({}, CONTEXT)
    assert time.monotonic() - began < 2
    assert recorded()[-1]["type"] == "invocation_failed"
