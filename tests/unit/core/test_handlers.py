"""What can be a handler, and whose."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from agentops_monitoring import AgentOpsMonitor, instrument, monitored

from .aws_server import Aws, frame
from .invoked import CONTEXT, ONE, REQUEST, Hostile, inside, message, work


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
