from __future__ import annotations

import asyncio
import importlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentops_monitoring import AgentOpsMonitor, instrument, invocation, monitored, trace, transport, triggers
from agentops_monitoring.testing import LambdaContext
from agentops_monitoring.wrapper import load_handler

from .aws_server import Aws, frame
from .conftest import Recorded, read_events

RUNTIME = Path(__file__).parents[3] / "runtime"
RUNTIME_CLIENT_PYTHON = Path(__file__).parents[3] / ".venv-local" / "bin" / "python"
REQUEST = "8f7b1a52-1c2d-4e3f-8a9b-000000000001"
CONTEXT = SimpleNamespace(aws_request_id=REQUEST)


def message(**carried: Any) -> dict[str, Any]:
    return {
        "source": "agentops.agents",
        "detail-type": "issue.found",
        "detail": {
            "environment": "demo",
            "agentops": {
                "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
                "workflow_id": "a" * 32,
                "from": "manager",
                "to": "engineer",
                "hop": 2,
                "sent_ms": 1_000,
                "message_id": "m1",
                "workflow_started_ms": 500,
                **carried,
            },
            "issue": 7,
        },
    }


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


def test_objects_and_methods_are_handlers_too(in_lambda: None, recorded: Any) -> None:
    class Handler:
        @monitored
        def handle(self, event: Any, context: Any) -> Any:
            return event

        def __call__(self, event: Any, context: Any) -> Any:
            return event

    assert Handler().handle(message(), CONTEXT) == message()
    assert monitored(Handler())(event=message(), context=CONTEXT) == message()
    assert [event["type"] for event in recorded()].count("message_received") == 2


def inside(events: list[dict[str, Any]]) -> list[str]:
    """The events recorded in invocations, which all belong to the one of REQUEST."""
    assert {event["request_id"] for event in events} == {REQUEST}
    assert len({event["trace_id"] for event in events}) == 1
    return [event["type"] for event in events]


ONE = ["invocation_started", "test_passed", "invocation_completed"]


def work(event: Any) -> Any:
    AgentOpsMonitor().record_event("test_passed")
    return event


class Plain:
    """Every way to hang a handler into a class."""

    @monitored
    @staticmethod
    def below_static(event: Any, context: Any) -> Any:
        return work(event)

    @staticmethod
    @monitored
    def above_static(event: Any, context: Any) -> Any:
        return work(event)

    @monitored
    @classmethod
    def below_class(cls, event: Any, context: Any) -> Any:
        assert cls is Plain
        return work(event)

    @classmethod
    @monitored
    def above_class(cls, event: Any, context: Any) -> Any:
        assert cls is Plain
        return work(event)

    @monitored
    def method(self, event: Any, context: Any, more: Any = None) -> Any:
        assert isinstance(self, Plain)
        return work(event)


@monitored
class Called:
    """A class whose objects are handlers."""

    def __init__(self, name: str = "mine") -> None:
        self.name = name

    def __call__(self, event: Any, context: Any) -> Any:
        assert self.name == "mine"
        return work(event)


def three(setting: Any, event: Any, context: Any) -> Any:
    return work(event)


@pytest.mark.parametrize(
    "call",
    [
        lambda event, context: Plain.below_static(event, context),
        lambda event, context: Plain().below_static(event, context),
        lambda event, context: Plain().above_static(event, context=context),
        lambda event, context: Plain.below_class(event, context),
        lambda event, context: Plain().above_class(event, context),
        lambda event, context: Plain().method(event, context),
        lambda event, context: Plain().method(event, context, "behind it"),
        lambda event, context: Plain().method(event=event, context=context),
        lambda event, context: monitored(Plain().method)(event, context),
        lambda event, context: Called()(event, context),
        lambda event, context: monitored(Called())(event, context),
        lambda event, context: monitored(partial(three, 7))(event, context),
        lambda event, context: monitored(monitored(three))(7, event, context),
    ],
)
def test_whatever_can_be_called_is_a_handler(call: Any, in_lambda: None, recorded: Any) -> None:
    event = message(traceparent="none")
    assert call(event, CONTEXT) is event
    assert inside(recorded()) == ONE
    assert recorded()[0]["data"]["trigger"] == "eventbridge"


def test_a_class_stays_a_class() -> None:
    assert isinstance(Called, type)
    assert isinstance(Called("other"), Called)
    assert Called("other").name == "other"

    class Derived(Called):
        pass

    assert isinstance(Derived(), Called)


def test_a_class_that_is_called_itself_is_a_handler_too(in_lambda: None, recorded: Any) -> None:
    class Answer:
        def __init__(self, event: Any, context: Any) -> None:
            self.event = work(event)

    assert monitored(Answer)({"a": 1}, CONTEXT).event == {"a": 1}
    assert inside(recorded()) == ONE


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


# Its agent


def test_a_handler_can_say_whose_it_is(aws: Aws, in_lambda: None, recorded: Any) -> None:
    """With two agents in one process, each of what is seen without their code belongs to its own."""
    import boto3

    instrument.install()
    client = boto3.session.Session().client("events")
    put: Any = {"Source": "s", "DetailType": "t", "Detail": "{}"}

    @monitored(agent_name="planner")
    def planner(event: Any, context: Any) -> Any:
        client.put_events(Entries=[put])
        return event

    def report(event: Any, context: Any) -> Any:
        client.put_events(Entries=[put])
        return event

    reporter = monitored(report, agent_name="reporter")
    for _ in range(3):
        aws.answer({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
    event = message()
    assert planner(event, CONTEXT) is event
    assert planner.__name__ == "planner"
    assert reporter(event, SimpleNamespace(aws_request_id="other")) is event
    assert monitored()(report)(event, SimpleNamespace(aws_request_id="third")) is event
    events = recorded()
    assert [event["agent"] for event in events] == ["planner"] * 4 + ["reporter"] * 4 + ["engineer"] * 4
    sent = [event["data"]["from"] for event in events if event["type"] == "message_sent"]
    assert sent == ["planner", "reporter", "engineer"]
    received = [event["data"]["to"] for event in events if event["type"] == "message_received"]
    assert received == ["planner", "reporter", "engineer"]


@pytest.mark.parametrize("wrap", [staticmethod, classmethod, lambda handler: handler])
def test_the_decorator_with_a_name_takes_what_the_bare_one_takes(
    wrap: Any, in_lambda: None, recorded: Any
) -> None:
    class Handlers:
        handle: Any = monitored(agent_name="planner")(wrap(lambda *arguments: arguments[-2]))

    @monitored(agent_name="planner")
    class Handler:
        def __call__(self, event: Any, context: Any) -> Any:
            return event

    handlers: Any = Handlers()
    assert handlers.handle({"a": 1}, CONTEXT) == Handler()({"a": 1}, CONTEXT) == {"a": 1}
    assert [event["agent"] for event in recorded()] == ["planner"] * 4


def test_a_model_call_is_of_the_agent_that_made_it(aws: Aws, in_lambda: None, recorded: Any) -> None:
    """Also one whose stream was left, which is known when its invocation is long over."""
    import boto3

    instrument.install()
    client = boto3.session.Session().client("bedrock-runtime")
    left = []

    @monitored(agent_name="planner")
    def handler(event: Any, context: Any) -> None:
        client.converse(modelId="m", messages=[])
        left.append(client.converse_stream(modelId="m", messages=[])["stream"])

    aws.answer({"usage": {"inputTokens": 1, "outputTokens": 2}})
    aws.answer(frame("messageStart", b'{"role": "assistant"}'))
    handler({}, CONTEXT)
    left.pop().close()
    calls = [event for event in recorded() if event["type"] == "llm_usage"]
    assert [event["agent"] for event in calls] == ["planner", "planner"]


def test_of_two_wrappers_the_outer_one_says_whose_it_is(in_lambda: None, recorded: Any) -> None:
    inner: Any = monitored(lambda event, context: work(event), agent_name="inner")
    monitored(inner, agent_name="outer")({}, CONTEXT)
    assert [event["agent"] for event in recorded()] == ["outer", "engineer", "outer"]


@pytest.mark.parametrize("given", ["planner", 7, {}])
def test_what_cannot_be_called_is_no_handler(given: Any) -> None:
    with pytest.raises(TypeError, match="agent_name="):
        monitored(given)


# Generators


def stream(event: Any, context: Any) -> Any:
    """Answer in pieces, as frameworks for streamed responses have it."""
    monitor = AgentOpsMonitor()
    with monitor.span("writing"):
        for number in range(event["pieces"]):
            got = yield number
            monitor.record_event("test_passed", {"got": got})
    return "the end"


def test_a_generator_is_one_invocation_up_to_its_end(in_lambda: None, recorded: Any) -> None:
    pieces = monitored(stream)({"pieces": 2}, CONTEXT)
    assert recorded() == [], "nothing runs before the first piece is asked for"
    with AgentOpsMonitor().workflow("of-the-reader") as outside:
        assert next(pieces) == 0
        assert trace.current() is outside
        assert pieces.send("a") == 1
        assert trace.current() is outside
        with pytest.raises(StopIteration) as end:
            pieces.send("b")
        assert trace.current() is outside
    assert end.value.value == "the end"
    events = recorded()
    assert inside(events) == [ONE[0], "test_passed", "test_passed", "span", ONE[2]]
    assert [event["data"]["got"] for event in events[1:3]] == ["a", "b"]
    assert {event["parent_id"] for event in events[1:3]} == {events[3]["span_id"]}


def test_generators_that_take_turns_do_not_mix(in_lambda: None, recorded: Any) -> None:
    handler = monitored(stream)
    several = [handler({"pieces": 3}, SimpleNamespace(aws_request_id=f"request-{n}")) for n in range(4)]
    with AgentOpsMonitor().workflow("of-the-reader"):
        for _ in range(3):
            for pieces in several:
                next(pieces)
                AgentOpsMonitor().record_event("issue_detected")
        for pieces in several:
            assert list(pieces) == []
    by_request: dict[Any, set[str]] = {}
    for event in recorded():
        by_request.setdefault(event["request_id"], set()).add(event["workflow_id"])
    assert by_request.pop(None) == {"of-the-reader"}
    assert len(by_request) == 4
    assert all(len(each) == 1 for each in by_request.values())
    assert [event["type"] for event in recorded()].count("invocation_completed") == 4


def test_a_reader_that_leaves_early_is_no_failure(in_lambda: None, recorded: Any) -> None:
    pieces = monitored(stream)({"pieces": 5}, CONTEXT)
    next(pieces)
    pieces.close()
    completed = recorded()[-1]
    assert completed["type"] == "invocation_completed"
    assert completed["data"]["closed_early"] is True
    pieces = monitored(stream)({"pieces": 5}, CONTEXT)
    next(pieces)
    del pieces
    assert recorded()[-1]["data"]["closed_early"] is True


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_generator_whose_end_fails_has_failed(asynchronous: bool, in_lambda: None, recorded: Any) -> None:
    @monitored
    def pieces(event: Any, context: Any) -> Any:
        try:
            yield 1
        finally:
            raise OSError("the upload could not be finished")

    @monitored
    async def later(event: Any, context: Any) -> Any:
        try:
            yield 1
        finally:
            raise OSError("the upload could not be finished")

    async def leave_later() -> None:
        answer = later({}, CONTEXT)
        await anext(answer)
        await answer.aclose()

    def leave() -> None:
        answer = pieces({}, CONTEXT)
        next(answer)
        answer.close()

    with pytest.raises(OSError, match="upload"):
        asyncio.run(leave_later()) if asynchronous else leave()
    assert [event["type"] for event in recorded()] == ["invocation_started", "invocation_failed"]


def test_what_the_reader_throws_into_a_generator_arrives(in_lambda: None, recorded: Any) -> None:
    @monitored
    def handler(event: Any, context: Any) -> Any:
        try:
            yield 1
        except KeyError:
            yield 2
        raise ValueError("in the end")

    pieces = handler({}, CONTEXT)
    assert next(pieces) == 1
    assert pieces.throw(KeyError()) == 2
    with pytest.raises(ValueError, match="in the end"):
        next(pieces)
    assert recorded()[-1]["data"]["error"]["type"] == "ValueError"


@pytest.mark.parametrize("leaves_early", [True, False])
def test_asynchronous_generators(leaves_early: bool, in_lambda: None, recorded: Any) -> None:
    @monitored
    async def handler(event: Any, context: Any) -> Any:
        for number in range(3):
            await asyncio.sleep(0)
            AgentOpsMonitor().record_event("test_passed", {"request": context.aws_request_id})
            yield number

    async def read(n: int) -> list[int]:
        found = []
        pieces = handler({}, SimpleNamespace(aws_request_id=f"request-{n}"))
        async for piece in pieces:
            found.append(piece)
            await asyncio.sleep(0)
            if leaves_early:
                await pieces.aclose()
                break
        return found

    async def read_all() -> list[list[int]]:
        return await asyncio.gather(*(read(n) for n in range(5)))

    assert asyncio.run(read_all()) == [[0] if leaves_early else [0, 1, 2]] * 5
    events = recorded()
    assert all(e["request_id"] == e["data"]["request"] for e in events if e["type"] == "test_passed")
    ends = [event for event in events if event["type"] == "invocation_completed"]
    assert len(ends) == 5
    assert all(event["data"].get("closed_early", False) is leaves_early for event in ends)


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


# Powertools

BATCH = {
    "Records": [
        {"messageId": name, "body": body, "eventSource": "aws:sqs", "messageAttributes": {}, "attributes": {}}
        for name, body in (("1", "good"), ("2", "bad"), ("3", "good"))
    ]
}


def test_powertools_decorators_above_and_below(
    in_lambda: None, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "agents")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "agents")
    from aws_lambda_powertools import Logger, Metrics
    from aws_lambda_powertools.metrics import MetricUnit
    from aws_lambda_powertools.utilities.data_classes import EventBridgeEvent, event_source

    logger, metrics = Logger(), Metrics()
    answer = {"statusCode": 200}

    @logger.inject_lambda_context
    @monitored
    @metrics.log_metrics
    @event_source(data_class=EventBridgeEvent)
    def above(event: EventBridgeEvent, context: Any) -> Any:
        assert event.detail_type == "issue.found"
        metrics.add_metric("found", MetricUnit.Count, 1)
        work(event)
        return answer

    @monitored
    @event_source(data_class=EventBridgeEvent)
    @logger.inject_lambda_context
    def below(event: EventBridgeEvent, context: Any) -> Any:
        work(event)
        return answer

    @event_source(data_class=EventBridgeEvent)
    @monitored
    def inmost(event: EventBridgeEvent, context: Any) -> Any:
        work(event)
        return answer

    lambdas: Any = LambdaContext("engineer-function", request_id=REQUEST)
    for number, handler in enumerate((above, below, inmost)):
        assert handler(message(message_id=f"m{number}"), lambdas) is answer
    assert inside(recorded()) == [ONE[0], "message_received", *ONE[1:]] * 3


def test_a_partial_batch_response_passes_through(in_lambda: None, recorded: Any) -> None:
    from aws_lambda_powertools.utilities.batch import (
        BatchProcessor,
        EventType,
        process_partial_response,
    )
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

    monitor = AgentOpsMonitor()

    def record_handler(record: SQSRecord) -> None:
        with monitor.message(record):
            assert record.body == "good"

    processor = BatchProcessor(event_type=EventType.SQS)

    @monitored
    def handler(event: Any, context: Any) -> Any:
        return process_partial_response(event, record_handler, processor, context)

    failures = {"batchItemFailures": [{"itemIdentifier": "2"}]}
    assert handler(BATCH, CONTEXT) == failures
    events = recorded()
    assert [event["type"] for event in events] == [ONE[0], "span", "span", "span", ONE[2]]
    assert [("error" in event["data"]) for event in events[1:4]] == [False, True, False]
    assert events[4]["type"] == "invocation_completed", "a partial failure is an answer"


def test_objects_of_any_kind_pass_through(in_lambda: None, recorded: Any) -> None:
    for answer in (Hostile(), object(), iter([1]), lambda: 1, io.BytesIO(), (x for x in "ab")):
        assert monitored(lambda event, context: event)(answer, CONTEXT) is answer


@pytest.mark.parametrize(
    ("event", "trigger"),
    [
        ({"source": "aws.events", "detail-type": "Scheduled Event"}, "schedule"),
        ({"source": "aws.scheduler", "detail-type": "Scheduled Event"}, "schedule"),
        ({"source": "mine", "detail-type": "issue.found"}, "eventbridge"),
        ({"source": "aws.cloudwatch", "detail-type": "CloudWatch Alarm State Change"}, "alarm"),
        ({"alarmData": {}}, "alarm"),
        ({"Records": [{"eventSource": "aws:sqs"}]}, "sqs"),
        ({"Records": [{"EventSource": "aws:sns"}]}, "sns"),
        ({"requestContext": {}}, "http"),
        ({"requestContext": 7}, "http"),
        ({"requestContext": {"elb": {"targetGroupArn": "arn:…"}}}, "load-balancer"),
        (
            {"requestContext": {"apiId": "a1", "domainName": "a1.execute-api.eu-west-1.amazonaws.com"}},
            "api-gateway",
        ),
        ({"requestContext": {"apiId": "u1", "domainName": "u1.lambda-url.eu-west-1.on.aws"}}, "function-url"),
        ({"requestContext": {"apiId": "w1", "connectionId": "c", "routeKey": "$default"}}, "websocket"),
        ({"Records": [{"eventSource": "aws:dynamodb"}]}, "dynamodb"),
        ({"Records": [{"eventSource": "aws:kinesis"}]}, "kinesis"),
        ({"Records": [{"eventSource": "aws:s3"}]}, "s3"),
        ({"Records": [{"cf": {}}]}, "cloudfront"),
        ([{"eventSource": "aws:sqs"}], "sqs"),
        ({"eventSource": "aws:kafka", "records": {}}, "kafka"),
        ({"eventSource": "SelfManagedKafka", "records": {}}, "kafka"),
        ({"eventSource": "aws:rmq", "rmqMessagesByQueue": {}}, "rabbitmq"),
        ({"eventSource": "aws:mq", "messages": []}, "activemq"),
        ({"awslogs": {"data": ""}}, "logs"),
        ({"deliveryStreamArn": "arn:…", "records": []}, "firehose"),
        ({"type": "TOKEN", "methodArn": "arn:…"}, "authorizer"),
        ({"triggerSource": "PreSignUp_SignUp", "userPoolId": "p"}, "cognito"),
        ({"actionGroup": "g", "agent": {}}, "bedrock-agent"),
        ({"RequestType": "Create", "ResponseURL": "https://…"}, "cloudformation"),
        ({"CodePipeline.job": {}}, "codepipeline"),
        ({"configRuleName": "r", "invokingEvent": "{}"}, "config"),
        ({"invocationSchemaVersion": "1.0", "tasks": []}, "s3-batch"),
        ({"SecretId": "s", "Step": "createSecret"}, "secretsmanager"),
        ({"arguments": {}, "info": {"fieldName": "f"}}, "appsync"),
        ({"Records": [7]}, "direct"),
        ({"Records": 7}, "direct"),
        ([], "direct"),
        ([7], "direct"),
    ],
)
def test_triggers(event: Any, trigger: str) -> None:
    assert triggers.trigger_of(event) == trigger


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    for path in ("flat_fn.py", "pkg_fn/inner.py", "dir_fn/sub/file_fn.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(
            "from agentops_monitoring import monitored\n"
            "def handler(event, context):\n    return [__name__, event]\n"
        )
    return tmp_path


@pytest.mark.parametrize("name", ["flat_fn.handler", "pkg_fn.inner.handler", "dir_fn/sub/file_fn.handler"])
def test_the_configured_handler_is_called(
    name: str, functions: Path, in_lambda: None, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_HANDLER", name)
    monkeypatch.delitem(sys.modules, "agentops_monitoring.wrapper", raising=False)
    # As Lambda does it.
    wrapper = importlib.import_module("agentops_monitoring.wrapper")
    assert wrapper.handler({"a": 1}, CONTEXT) == [name.rpartition(".")[0].replace("/", "."), {"a": 1}]
    assert [event["type"] for event in recorded()] == ["invocation_started", "invocation_completed"]


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("no_such_module_fn.handler", ImportError, "no_such_module_fn"),
        ("flat_fn.missing", AttributeError, "missing"),
        ("flat_fn.__name__", AttributeError, "__name__"),
        ("handler", ImportError, "module.function"),
    ],
)
def test_a_handler_that_cannot_be_loaded_is_named(
    name: str, error: type[Exception], text: str, functions: Path
) -> None:
    with pytest.raises(error, match=text):
        load_handler(name)


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


def test_a_client_made_while_the_handlers_module_loads_is_seen_too(
    aws: Aws, in_lambda: None, recorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "early_client_fn.py").write_text(
        "import boto3\n"
        "client = boto3.session.Session().client('events')\n"
        "def handler(event, context):\n"
        "    client.put_events(Entries=[{'Source': 's', 'DetailType': 't', 'Detail': '{}'}])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AGENTOPS_HANDLER", "early_client_fn.handler")
    monkeypatch.delitem(sys.modules, "agentops_monitoring.wrapper", raising=False)
    aws.answer({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
    importlib.import_module("agentops_monitoring.wrapper").handler({}, CONTEXT)
    assert [event["type"] for event in recorded()] == [
        "invocation_started", "message_sent", "invocation_completed",
    ]  # fmt: skip


def test_a_client_made_before_its_decorated_handler_is_seen_too(
    aws: Aws, in_lambda: None, recorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "decorated_fn.py").write_text(
        "import boto3\n"
        "from agentops_monitoring import monitored\n"
        "client = boto3.session.Session().client('events')\n"
        "@monitored\n"
        "def handler(event, context):\n"
        "    client.put_events(Entries=[{'Source': 's', 'DetailType': 't', 'Detail': '{}'}])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "agentops_monitoring.wrapper", raising=False)
    monkeypatch.delattr("agentops_monitoring.monitored")
    aws.answer({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
    importlib.import_module("decorated_fn").handler({}, CONTEXT)
    assert [event["type"] for event in recorded()] == [
        "invocation_started", "message_sent", "invocation_completed",
    ]  # fmt: skip


class Hostile:
    """An object that raises at every touch, as a proxy without its request does."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize("make_event", [dict, Hostile])
def test_arguments_that_raise_when_looked_at_reach_the_handler(
    make_event: Any, in_lambda: None, recorded: Any
) -> None:
    event, context = make_event(), Hostile()
    got = monitored(lambda event, context: (event, context))(event, context)
    assert got[0] is event
    assert got[1] is context
    assert recorded()[-1]["type"] == "invocation_completed"


def test_a_handler_that_raises_when_it_is_looked_at_is_called(in_lambda: None, recorded: Any) -> None:
    class Proxy(Hostile):
        def __call__(self, event: Any, context: Any) -> Any:
            return work(event)

    assert monitored(Proxy())({"a": 1}, CONTEXT) == {"a": 1}
    assert inside(recorded()) == ONE


def test_a_partial_coroutine_function_is_awaited(in_lambda: None, recorded: Any) -> None:
    async def handle(setting: int, event: Any, context: Any) -> int:
        AgentOpsMonitor().record_event("test_passed")
        return setting

    assert asyncio.run(monitored(partial(handle, 7))({}, CONTEXT)) == 7
    assert [event["type"] for event in recorded()] == [
        "invocation_started", "test_passed", "invocation_completed",
    ]  # fmt: skip


def test_named_arguments_of_a_method(in_lambda: None, recorded: Any) -> None:
    class Handler:
        @monitored
        def handle(self, event: Any, context: Any) -> Any:
            return event

    assert Handler().handle(message(), context=CONTEXT) == message()
    assert recorded()[0]["request_id"] == REQUEST
    assert recorded()[1]["type"] == "message_received"


def test_a_failure_with_a_long_message_does_not_hold_the_agent_up(in_lambda: None, recorded: Any) -> None:
    @monitored
    def handler(event: Any, context: Any) -> None:
        raise ValueError("abcdefg-" * 100_000)

    began = time.monotonic()
    with pytest.raises(ValueError, match="abcdefg"):
        handler({}, CONTEXT)
    assert time.monotonic() - began < 2
    assert recorded()[-1]["type"] == "invocation_failed"


_WITH_CLIENT_CONTEXT = """
import sys
from awslambdaric import bootstrap
context = bootstrap.create_lambda_context(sys.argv[1], {}, 4_102_444_800_000, "request-1", None, None)
from agentops_monitoring.wrapper import handler
handler({"issue": 7}, context)
"""


@pytest.mark.skipif(not RUNTIME_CLIENT_PYTHON.exists(), reason="no virtual environment of the embedded AWS")
def test_a_client_context_is_found_where_lambda_s_own_client_puts_it(functions: Path) -> None:
    carried = json.dumps(message()["detail"]["agentops"])
    ended = subprocess.run(
        [RUNTIME_CLIENT_PYTHON, "-c", _WITH_CLIENT_CONTEXT, json.dumps({"custom": {"agentops": carried}})],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{functions}{os.pathsep}{RUNTIME}",
            "AGENTOPS_HANDLER": "flat_fn.handler",
            "AGENTOPS_TRANSPORT": "stdout",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    started, received, completed = read_events(ended.stdout)
    assert received["type"] == "message_received"
    assert {each["trace_id"] for each in (started, received, completed)} == {"a" * 32}


_AS_LAMBDA = """
import sys
from awslambdaric import bootstrap
from awslambdaric.lambda_runtime_exception import FaultException
try:
    bootstrap._get_handler(sys.argv[1])
except FaultException as fault:
    print([fault.exception_type, fault.msg, fault.trace])
except Exception as error:
    print([type(error).__name__, str(error)])
"""


@pytest.mark.skipif(not RUNTIME_CLIENT_PYTHON.exists(), reason="no virtual environment of the embedded AWS")
@pytest.mark.parametrize(
    "name",
    ["no_such_fn.handler", "imports_wrong_fn.handler", "bad_syntax_fn.handler", "dir_fn/sub/file_fn.missing",
     "raises_fn.handler", "handler", "sys.exit"],
)  # fmt: skip
def test_a_function_that_cannot_start_fails_as_without_the_monitor(name: str, functions: Path) -> None:
    (functions / "imports_wrong_fn.py").write_text("import no_such_dependency")
    (functions / "bad_syntax_fn.py").write_text("def handler(:\n")
    (functions / "raises_fn.py").write_text("raise KeyError('TABLE')")
    answers = [
        subprocess.run(
            [RUNTIME_CLIENT_PYTHON, "-c", _AS_LAMBDA, configured],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{functions}{os.pathsep}{RUNTIME}",
                "AGENTOPS_HANDLER": name,
                "AGENTOPS_TRANSPORT": "stdout",
            },
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for configured in (name, "agentops_monitoring.wrapper.handler")
    ]
    assert answers[0].strip()
    assert answers[0] == answers[1]
