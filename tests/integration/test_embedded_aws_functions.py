"""Functions of the embedded AWS: their environment, how they end, their retries, levels, new code."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest

from agentops_monitoring.ledger.parse import read_payload
from tests.integration.conftest import ACCOUNT, PYTHON, REGION, ROOT, EmbeddedAws

pytestmark = pytest.mark.xdist_group("embedded_aws")

SOURCE = """
import json, os, platform, time
def handler(event, context):
    for number in range(event.get("lines", 0)):
        print(json.dumps({"invocation": event["invocation"], "line": number, "id": context.aws_request_id}))
    mode = event.get("mode")
    if mode == "raise": raise KeyError("missing")
    if mode == "exit": os._exit(3)
    if mode == "kill": os.kill(os.getpid(), 9)
    if mode == "sleep": time.sleep(60)
    if mode == "memory": held = bytearray(400_000_000)
    if mode == "environment": return dict(os.environ, python=platform.python_version())
    if mode == "id": return context.aws_request_id
    return {"ok": True, "left": context.get_remaining_time_in_millis()}
"""
JSON = {"LoggingConfig": {"LogFormat": "JSON"}}


def report_of(aws: EmbeddedAws, function: str) -> dict[str, Any]:
    """Return the last platform.report of a function that logs as JSON."""
    documents = [json.loads(text) for _, text in aws.log(function) if text.startswith('{"time"')]
    report: dict[str, Any] = [one["record"] for one in documents if one["type"] == "platform.report"][-1]
    return report


@pytest.mark.parametrize("level", ["INFO", "WARN", None])
def test_environment_is_the_functions_own(aws: EmbeddedAws, level: str | None) -> None:
    function = aws.function(
        SOURCE,
        MemorySize=192,
        Environment={"Variables": {"OWN": "value"}},
        LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": level} if level else {"LogFormat": "Text"},
    )
    variables, _ = aws.invoke(function, {"mode": "environment"})
    by_level = {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": level} if level else {}
    # Lambda developer guide, "Defined runtime environment variables", and "Log-level filtering"
    expected = by_level | {
        "_HANDLER": "app.handler",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EXECUTION_ENV": "AWS_Lambda_python" + ".".join(variables.pop("python").split(".")[:2]),
        "AWS_LAMBDA_FUNCTION_NAME": function,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "192",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function}",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "AWS_EC2_METADATA_DISABLED": "true",  # from here on ours, and the driver's
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_ENDPOINT_URL_S3": aws.url,
        "OWN": "value",
        "GIVEN": "by the driver",
    }
    own = {name: variables.pop(name) for name in expected}
    assert own == expected
    stream = variables.pop("AWS_LAMBDA_LOG_STREAM_NAME")
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", stream)
    assert {one for one, _ in aws.log(function)} == {stream}
    variables.pop("LC_CTYPE", None)  # Python's own, where the host lacks the locale
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    folders = {"LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "PYTHONPATH", "PATH", "HOME", "TMPDIR"}
    calls = {"AWS_LAMBDA_RUNTIME_API", "_X_AMZN_TRACE_ID"}
    assert variables.keys() ^ (keys | folders | calls) == set()


NEEDS = """
import importlib, os
def handler(event, context):
    if name := event.get("import"): return len(importlib.import_module(name).__name__)
    if path := event.get("write"): open(os.path.expandvars(path), "w").close()
    if path := event.get("make"): os.makedirs(os.path.expandvars(path))
"""


def test_a_function_has_what_lambda_brings_and_nothing_else_of_the_host(aws: EmbeddedAws) -> None:
    function = aws.function(NEEDS)
    for name in ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3", "awslambdaric"):
        assert aws.invoke(function, {"import": name}) == (len(name), False)
    for name in ("yaml", "hypercorn", "ministack", "pip", "local", "agentops_monitoring", "aws_cdk"):
        answer, failed = aws.invoke(function, {"import": name})
        assert (failed, answer["errorType"]) == (True, "ModuleNotFoundError"), name


def test_code_is_read_only(aws: EmbeddedAws) -> None:
    function = aws.function(NEEDS)
    for event in (
        {"write": "new"},
        {"write": "app.py"},
        {"write": "$LAMBDA_TASK_ROOT/new"},
        {"write": "$LAMBDA_RUNTIME_DIR/boto3.py"},
        {"make": "folder"},
    ):
        answer, failed = aws.invoke(function, event)
        assert failed, event
        assert "Read-only file system" in answer["errorMessage"]
    assert aws.invoke(function, {"write": "$TMPDIR/new"}) == (None, False)
    assert aws.invoke(function, {"make": "$TMPDIR/folder"}) == (None, False)


MONITORED = """
import os
from agentops_monitoring import AgentEventType, AgentOpsMonitor
def handler(event, context):
    AgentOpsMonitor().record_event(AgentEventType.ISSUE_DETECTED, {"severity": "high"})
    return os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
"""


def test_streams_of_a_log_group_of_its_own_name_the_function(aws: EmbeddedAws) -> None:
    """Then the line's proof hangs on the end of the stream's name: BLAKE2b takes no longer key."""
    group, name = aws.name("/shared/group"), aws.name("f" * 50)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("app.py", MONITORED)
        for path in (ROOT / "runtime").rglob("agentops_monitoring/**/*.py"):
            content.write(path, path.relative_to(ROOT / "runtime"))
    logs = aws.client("logs")
    logs.create_log_group(logGroupName=group)
    aws.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.12",
        Handler="app.handler",
        Role=aws.role(),
        Code={"ZipFile": archive.getvalue()},
        Timeout=10,
        LoggingConfig={"LogFormat": "JSON", "LogGroup": group},
    )
    stream, failed = aws.invoke(name, {})
    assert not failed, stream
    # Lambda developer guide, "Configuring CloudWatch log groups", and the corpus of the log contract
    assert re.fullmatch(rf"\d{{4}}/\d\d/\d\d/{name}\[\$LATEST\][0-9a-f]{{32}}", stream)
    events = logs.filter_log_events(logGroupName=group, logStreamNames=[stream])["events"]
    lines = [{"id": event["eventId"], **event} for event in events]
    about = {"messageType": "DATA_MESSAGE", "owner": ACCOUNT, "logGroup": group, "logStream": stream}
    batch = read_payload({**about, "subscriptionFilters": ["agentops|e|f|arm64"], "logEvents": lines}, REGION)
    assert [event.type for event in batch.events] == ["issue_detected"]
    assert (len(batch.reports), batch.rejects) == (1, [])


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


# What is written, by a word of its own, and the level that AWS gives it where it filters. Lambda developer
# guide, "Log-level filtering": lines without a level, or with one and no RFC 3339 time, count as INFO.
LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
WRITTEN = {
    "logged-debug": "DEBUG",
    "logged-info": "INFO",
    "logged-warning": "WARN",
    "logged-error": "ERROR",
    "logged-critical": "FATAL",
    "printed": "INFO",
    "to-stderr": "INFO",
    "trace-object": "TRACE",
    "debug-object": "DEBUG",
    "error-object": "ERROR",
    "odd-level": "INFO",
    "no-level": "INFO",
    "no-time": "INFO",
    "no-zone": "INFO",
    "no-object": "INFO",
}
WRITER = """
import json, logging, sys
def handler(event, context):
    log, time = logging.getLogger(), {"timestamp": "2026-11-22T08:00:00.587199Z"}
    log.setLevel("DEBUG")
    for name in ("debug", "info", "warning", "error", "critical"): getattr(log, name)(f"logged-{name}")
    print("printed"); print("to-stderr", file=sys.stderr)
    for level in ("TRACE", "debug", "Error"):
        print(json.dumps({"level": level, "text": f"{level.lower()}-object", **time}))
    print(json.dumps({"level": "LOUD", "text": "odd-level", **time}))
    print(json.dumps({"text": "no-level", **time}))
    print(json.dumps({"level": "ERROR", "text": "no-time"}))
    print(json.dumps({"level": "ERROR", "text": "no-zone", "timestamp": "2026-11-22"}))
    print(json.dumps(["no-object", "level"]))
"""


def test_application_levels(aws: EmbeddedAws, full_size: bool) -> None:
    for least in LEVELS if full_size else ("TRACE", "INFO", "WARN"):
        function = aws.function(WRITER, LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": least})
        aws.invoke(function)
        found = " ".join(text for _, text in aws.log(function))
        kept = {word for word, level in WRITTEN.items() if LEVELS.index(level) >= LEVELS.index(least)}
        assert {word for word in WRITTEN if word in found} == kept
        assert "platform.report" in found
    function = aws.function(WRITER)
    aws.invoke(function)
    found = " ".join(text for _, text in aws.log(function))
    assert [word for word in WRITTEN if word not in found] == [], "text logging: levels do not filter"


@pytest.mark.parametrize(
    ("least", "mode", "kinds"),
    [  # Lambda developer guide, "System log level event mapping"
        ("DEBUG", "", ["initStart", "initRuntimeDone", "initReport", "start", "runtimeDone", "report"]),
        ("INFO", "", ["initStart", "start", "report"]),
        ("WARN", "", []),
        ("INFO", "exit", ["initStart", "start", "runtimeDone", "report"]),
        ("WARN", "exit", ["runtimeDone", "report"]),
    ],
)
def test_system_levels(aws: EmbeddedAws, least: str, mode: str, kinds: list[str]) -> None:
    function = aws.function(SOURCE, LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": least})
    aws.invoke(function, {"mode": mode})
    found = [json.loads(text)["type"] for _, text in aws.log(function) if '"platform.' in text]
    assert found == [f"platform.{kind}" for kind in kinds]


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


def test_an_event_that_waits_meets_the_function_as_it_is_when_its_turn_comes(aws: EmbeddedAws) -> None:
    url, arn = aws.queue()
    function = aws.function(SOURCE, Timeout=1)
    lambda_ = aws.client("lambda")
    lambda_.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=1)
    lambda_.put_function_event_invoke_config(
        FunctionName=function, MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    aws.invoke(function, {"mode": "sleep"}, kind="Event")
    aws.until(lambda: aws.local("idle")["invocations"])
    aws.invoke(function, {"waits": True}, kind="Event")
    lambda_.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
    aws.settle()
    conditions = {
        str(record["requestPayload"]): record["requestContext"]["condition"] for record in aws.bodies(url)
    }
    assert conditions == {
        "{'mode': 'sleep'}": "RetriesExhausted",
        "{'waits': True}": "ZeroReservedConcurrency",
    }


def test_new_code_is_used_at_once(aws: EmbeddedAws) -> None:
    function = aws.function("def handler(event, context): return 1")
    assert aws.invoke(function)[0] == 1
    other = aws.function("def handler(event, context): return 2")
    location = aws.client("lambda").get_function(FunctionName=other)["Code"]["Location"]
    archive = urllib.request.urlopen(location).read()
    aws.client("lambda").update_function_code(FunctionName=function, ZipFile=archive)
    assert aws.invoke(function)[0] == 2


def refusal(*words: str, python: Path = PYTHON) -> str:
    """Start an embedded AWS that refuses to, and return its only line of why."""
    command = [str(python), "-m", "local.aws", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if not line.startswith(("usage:", " "))]
    assert len(said) == 1, done.stderr
    return said[0]


def test_a_port_in_use_is_one_clear_line(aws: EmbeddedAws) -> None:
    port = aws.url.rsplit(":", 1)[1]
    said = refusal("--port", port)
    assert port in said
    assert "--port" in said


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--port", "99999"),
        ("--port", "-1"),
        ("--retry-seconds", "-1"),
        ("--retry-seconds", "nan"),
        ("--model-url", "127.0.0.1:80"),
        ("--function-env", "=x"),
        ("--function-env", "NAME"),
    ],
)
def test_a_wrong_option_is_one_clear_line(option: str, value: str) -> None:
    said = refusal(f"{option}={value}")
    assert f"{option} wants" in said
    assert said.endswith(f"not {value}")


def test_the_wrong_interpreter_is_told_which_is_right() -> None:
    assert ".venv-local/bin/python" in refusal(python=Path(sys.executable))
