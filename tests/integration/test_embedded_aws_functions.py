"""Functions of the embedded AWS: every line in its own invocation, every end told, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import PYTHON, ROOT, EmbeddedAws, start_embedded_aws

pytestmark = pytest.mark.xdist_group("embedded_aws")
FULL = os.environ.get("AGENTOPS_TEST_SIZE") == "full"

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


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_each_line_once_in_its_own_invocation_before_its_report(aws: EmbeddedAws, log_format: str) -> None:
    count, lines = (200, 20) if FULL else (64, 20)
    function = aws.function(SOURCE, Timeout=2, LoggingConfig={"LogFormat": log_format})
    modes = ["", "raise", "", "exit", "", "kill", "", ""]

    def one(number: int) -> None:
        mode = "sleep" if number % 40 == 7 else modes[number % len(modes)]
        aws.invoke(function, {"invocation": number, "lines": lines, "mode": mode})

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one, range(count)))

    seen: Counter[tuple[int, int]] = Counter()
    reports = 0
    running: dict[str, str] = {}
    last: dict[str, int] = {}
    for stream, text in aws.log(function):
        started = re.search(r'^START RequestId: (\S+)|"platform.start".*"requestId": ?"([^"]+)', text)
        if started:
            running[stream], last[stream] = started[1] or started[2], -1
        elif text.startswith("REPORT") or '"platform.report"' in text:
            assert running.pop(stream) in text
            reports += 1
        elif text.startswith('{"invocation"'):
            document = json.loads(text)
            assert running[stream] == document["id"]
            assert document["line"] == last[stream] + 1
            last[stream] = document["line"]
            seen[document["invocation"], document["line"]] += 1
    assert reports == count
    assert seen == Counter((n, k) for n in range(count) for k in range(lines))


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


def test_reserved_concurrency_throttles(aws: EmbeddedAws) -> None:
    function = aws.function(SOURCE, Timeout=2)
    aws.client("lambda").put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=1)
    errors = aws.client("lambda").exceptions
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(aws.invoke, function, {"mode": "sleep"})
        aws.until(lambda: aws.local("idle")["invocations"])
        with pytest.raises(errors.TooManyRequestsException):
            aws.invoke(function, {})
        assert running.result()[1]


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


def test_warm_invocations_are_fast(aws: EmbeddedAws) -> None:
    function = aws.function(SOURCE)
    aws.invoke(function, {})
    started = time.monotonic()
    for _ in range(60):
        aws.invoke(function, {})
    assert 60 / (time.monotonic() - started) >= 30, "warm invocations a second"


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="reads /proc")
def test_stops_clean_in_the_middle_of_work(tmp_path: Path) -> None:
    started = time.monotonic()
    process, url = start_embedded_aws(TMPDIR=str(tmp_path))
    assert time.monotonic() - started < 4, "start: 2 s alone on the machine"
    try:
        cloud = EmbeddedAws(url)
        function = cloud.function(SOURCE, Timeout=60)
        cloud.invoke(function, {})
        cloud.invoke(function, {"mode": "sleep"}, kind="Event")
        cloud.until(lambda: cloud.local("idle")["invocations"])
        children = _children(process.pid)
        assert children
        assert _listening(process.pid) == {"127.0.0.1"}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    assert not list(tmp_path.iterdir())


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                found.append(int(folder.name))
    return found


def _listening(pid: int) -> set[str]:
    """Return the addresses that a process listens on."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = {link[8:-1] for link in links if link.startswith("socket:[")}
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    addresses = [row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets]
    return {socket.inet_ntoa(bytes.fromhex(address)[::-1]) for address in addresses}


def test_a_port_in_use_is_one_clear_line(aws: EmbeddedAws) -> None:
    port = aws.url.rsplit(":", 1)[1]
    command = [str(PYTHON), "-m", "local.aws", "--port", port]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert port in done.stderr
    assert "--port" in done.stderr
