"""Functions of the embedded AWS: their environment, how they end, their retries, levels, new code."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from typing import Any

import pytest

from tests.integration.conftest import PYTHON, ROOT, EmbeddedAws

pytestmark = pytest.mark.xdist_group("embedded_aws")

SOURCE = """
import json, logging, os, sys, time
def handler(event, context):
    for number in range(event.get("lines", 0)):
        print(json.dumps({"invocation": event["invocation"], "line": number, "id": context.aws_request_id}))
    mode = event.get("mode")
    if mode == "raise": raise KeyError("missing")
    if mode == "exit": os._exit(3)
    if mode == "kill": os.kill(os.getpid(), 9)
    if mode == "sleep": time.sleep(60)
    if mode == "memory": held = bytearray(400_000_000)
    if mode == "environment": return dict(os.environ)
    if mode == "log":
        logging.getLogger().setLevel("DEBUG")
        logging.debug("a detail"); logging.warning("a warning")
        print("stdout"); print("stderr", file=sys.stderr)
        print(json.dumps({"level": "DEBUG", "timestamp": "2026-11-22T08:00:00.000Z", "own": "detail"}))
    if mode == "id": return context.aws_request_id
    return {"ok": True, "left": context.get_remaining_time_in_millis()}
"""
JSON = {"LoggingConfig": {"LogFormat": "JSON"}}


def report_of(aws: EmbeddedAws, function: str) -> dict[str, Any]:
    """Return the last platform.report of a function that logs as JSON."""
    documents = [json.loads(text) for _, text in aws.log(function) if text.startswith('{"time"')]
    report: dict[str, Any] = [one["record"] for one in documents if one["type"] == "platform.report"][-1]
    return report


def test_environment_is_the_functions_own(aws: EmbeddedAws) -> None:
    function = aws.function(SOURCE, Environment={"Variables": {"OWN": "value"}}, **JSON)
    variables, _ = aws.invoke(function, {"mode": "environment"})
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", variables["AWS_LAMBDA_LOG_STREAM_NAME"])
    assert {stream for stream, _ in aws.log(function)} == {variables["AWS_LAMBDA_LOG_STREAM_NAME"]}
    assert variables["AWS_LAMBDA_LOG_GROUP_NAME"] == f"/aws/lambda/{function}"
    assert (variables["OWN"], variables["GIVEN"]) == ("value", "by the driver")
    assert variables["AWS_LAMBDA_LOG_FORMAT"] == "JSON"
    assert "VIRTUAL_ENV" not in variables


@pytest.mark.parametrize(
    ("mode", "status", "error"),
    [
        ("", "success", ""),
        ("raise", "success", "KeyError"),  # as AWS reports it: the runtime has answered
        ("exit", "error", "Runtime.ExitError"),
        ("kill", "error", "Runtime.ExitError"),
        ("memory", "error", "Runtime.OutOfMemory"),
        ("sleep", "timeout", "Sandbox.Timedout"),
    ],
)
def test_how_an_invocation_ends(aws: EmbeddedAws, mode: str, status: str, error: str) -> None:
    function = aws.function(SOURCE, Timeout=1 if mode == "sleep" else 5, **JSON)
    answer, failed = aws.invoke(function, {"mode": mode})
    assert failed is bool(error)
    if error:
        assert answer["errorType"] == error
    report = report_of(aws, function)
    measured = report["metrics"]
    assert report["status"] == status
    total = measured["durationMs"] + measured["initDurationMs"]
    assert 0 <= measured["billedDurationMs"] - total < 1, "billed is the ceiling of duration and INIT"
    assert 0 < measured["maxMemoryUsedMB"] <= measured["memorySizeMB"]
    answer, failed = aws.invoke(function, {})
    assert not failed, "the function is whole again"
    warm = mode in ("", "raise")
    assert ("initDurationMs" not in report_of(aws, function)["metrics"]) is warm


def test_a_module_that_does_not_import(aws: EmbeddedAws) -> None:
    function = aws.function("import nowhere_to_be_found", **JSON)
    answer, failed = aws.invoke(function, {})
    assert failed
    assert answer["errorType"] == "Runtime.ImportModuleError"
    assert report_of(aws, function)["status"] == "error"


def test_levels_apply_to_json_logging_alone(aws: EmbeddedAws) -> None:
    text, plain_json = aws.function(SOURCE), aws.function(SOURCE, **JSON)
    quiet = aws.function(
        SOURCE,
        LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "SystemLogLevel": "WARN"},
    )
    found = {}
    for function in (text, plain_json, quiet):
        aws.invoke(function, {"mode": "log"})
        found[function] = "\n".join(message for _, message in aws.log(function))
    words = ("a detail", "a warning", '"own"', "stdout", "stderr", "platform.report", "REPORT")
    has = {function: [word in found[function] for word in words] for function in found}
    assert has[text] == [True, True, True, True, True, False, True]
    assert has[plain_json] == [False, True, False, True, True, True, False]
    assert has[quiet] == [False, True, False, False, False, False, False]


def test_asynchronous_retries_keep_the_request_id_then_dead_letter(aws: EmbeddedAws) -> None:
    url, arn = aws.queue()
    failure_url, failure_arn = aws.queue()
    function = aws.function(SOURCE, DeadLetterConfig={"TargetArn": arn})
    aws.client("lambda").put_function_event_invoke_config(
        FunctionName=function, DestinationConfig={"OnFailure": {"Destination": failure_arn}}
    )
    aws.invoke(function, {"mode": "raise", "invocation": 1, "lines": 1}, kind="Event")
    aws.settle()
    ids = [json.loads(text)["id"] for _, text in aws.log(function) if text.startswith('{"invocation"')]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    (letter,) = aws.messages(url)
    assert json.loads(letter["Body"]) == {"mode": "raise", "invocation": 1, "lines": 1}
    assert letter["MessageAttributes"]["RequestID"]["StringValue"] == ids[0]
    (record,) = [json.loads(one["Body"]) for one in aws.messages(failure_url)]
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 3
    assert record["responsePayload"]["errorType"] == "KeyError"


def test_zero_reserved_concurrency_sends_events_to_the_failure_destination(aws: EmbeddedAws) -> None:
    url, arn = aws.queue()
    function = aws.function(SOURCE)
    aws.client("lambda").put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
    aws.client("lambda").put_function_event_invoke_config(
        FunctionName=function, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    aws.invoke(function, {"kept": True}, kind="Event")
    aws.settle()
    (record,) = [json.loads(one["Body"]) for one in aws.messages(url)]
    assert record["requestPayload"] == {"kept": True}


def test_new_code_is_used_at_once(aws: EmbeddedAws) -> None:
    function = aws.function("def handler(event, context): return 1")
    assert aws.invoke(function)[0] == 1
    other = aws.function("def handler(event, context): return 2")
    location = aws.client("lambda").get_function(FunctionName=other)["Code"]["Location"]
    archive = urllib.request.urlopen(location).read()
    aws.client("lambda").update_function_code(FunctionName=function, ZipFile=archive)
    assert aws.invoke(function)[0] == 2


def test_a_port_in_use_is_one_clear_line(aws: EmbeddedAws) -> None:
    port = aws.url.rsplit(":", 1)[1]
    command = [str(PYTHON), "-m", "local.aws", "--port", port]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert port in done.stderr
    assert "--port" in done.stderr
