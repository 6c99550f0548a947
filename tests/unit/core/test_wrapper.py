from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentops_monitoring import AgentOpsMonitor, invocation, monitored, trace
from agentops_monitoring.wrapper import load_handler

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
    }
    assert received["data"]["latency_ms"] > 10**12
    assert done["data"]["duration_ms"] > 10**12


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
            return down()

        return down()

    with pytest.raises(RecursionError):
        handler({}, CONTEXT)
    assert recorded()[-1]["data"]["error"]["type"] == "RecursionError"


def test_a_handler_wrapped_twice_is_recorded_once(in_lambda: None, recorded: Any) -> None:
    monitored(monitored(lambda event, context: None))({}, CONTEXT)
    assert len(recorded()) == 2


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


@pytest.mark.parametrize(
    ("event", "trigger"),
    [
        ({"source": "aws.events", "detail-type": "Scheduled Event"}, "schedule"),
        ({"source": "aws.cloudwatch", "detail-type": "CloudWatch Alarm State Change"}, "alarm"),
        ({"alarmData": {}}, "alarm"),
        ({"Records": [{"eventSource": "aws:sqs"}]}, "sqs"),
        ({"Records": [{"EventSource": "aws:sns"}]}, "sns"),
        ({"requestContext": {}}, "http"),
        ({"Records": [7]}, "direct"),
    ],
)
def test_triggers(event: Any, trigger: str) -> None:
    assert invocation.trigger_of(event) == trigger


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
