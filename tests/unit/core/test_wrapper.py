from __future__ import annotations

import asyncio
import importlib
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

from agentops_monitoring import AgentOpsMonitor, invocation, monitored, trace, transport, triggers
from agentops_monitoring.wrapper import load_handler

from .aws_server import Aws
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
