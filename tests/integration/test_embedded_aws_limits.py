"""What the embedded AWS may use and leave: concurrency, time, memory, processes, files, sockets."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.integration.conftest import EmbeddedAws, start_embedded_aws
from tests.integration.processes import alive, family, listening, of_folder, usage

pytestmark = [
    pytest.mark.xdist_group("embedded_aws"),
    pytest.mark.skipif(sys.platform != "linux", reason="what limits and sweeps processes reads /proc"),
]

SOURCE = """
import json, os, subprocess, sys, time
def handler(event, context):
    began, do = time.monotonic(), event.get("do")
    print("line\\n" * event.get("lines", 0), end="")
    if do == "raise": raise KeyError("missing")
    if do == "kill": os.kill(os.getpid(), 9)
    if do == "hold": return len(bytearray(event["megabytes"] << 20))
    if do == "children":
        escaped = subprocess.Popen(["sleep", "600"], start_new_session=True)
        return [os.getpid(), subprocess.Popen(["sleep", "600"]).pid, escaped.pid]
    if do == "tick":
        deadline = context._epoch_deadline_time_in_ms
        while True:
            with open(event["file"] + ".new", "w") as file: json.dump([deadline, time.time() * 1000], file)
            os.replace(event["file"] + ".new", event["file"])
            time.sleep(0.01)
    time.sleep(event.get("seconds", 0))
    if gate := event.get("gate"):
        open(f"{gate}.{context.aws_request_id}", "w").close()
        while not os.path.exists(gate): time.sleep(0.02)
    print(json.dumps({"span": [began, time.monotonic()]}))
    return [began, time.monotonic()]
"""


@contextmanager
def own_server(folder: Path) -> Iterator[tuple[subprocess.Popen[str], EmbeddedAws]]:
    """Give a server of the test's own, with a folder for its temporary files; it is ended in the end."""
    process, url = start_embedded_aws(TMPDIR=str(folder))
    try:
        yield process, EmbeddedAws(url)
    finally:
        process.kill()
        process.wait()


def most_at_once(spans: Sequence[Sequence[float]]) -> int:
    """Return how many of the spans of time overlap at most."""
    changes = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    running = [sum(change for _, change in changes[: i + 1]) for i in range(len(changes))]
    return max(running, default=0)


def storm(
    aws: EmbeddedAws, functions: Sequence[str], bound: int, calls: int, gate: Path
) -> tuple[list[Any], Counter[str]]:
    """Make so many calls, which wait for each other at a gate until all but ``bound`` are refused.

    Returns the answers, and how often which reason for a refusal was given.
    """
    refused: list[str] = []  # adding to a counter is no single step, and threads would lose some

    def call(number: int) -> Any:
        try:
            return aws.invoke(functions[number % len(functions)], {"gate": str(gate)})
        except ClientError as error:
            told: Any = error.response
        refused.append(told["Reason"])
        assert told["ResponseMetadata"]["HTTPStatusCode"] == 429
        assert told["Error"]["Code"] == "TooManyRequestsException"
        return None

    with ThreadPoolExecutor(calls) as pool:
        running = [pool.submit(call, number) for number in range(calls)]
        try:
            aws.until(lambda: len(refused) >= calls - bound, 30)
            aws.until(lambda: len(list(gate.parent.glob(f"{gate.name}.*"))) >= bound, 30)
        finally:
            gate.touch()
        answers = [one.result() for one in running]
    assert not any(failed for _, failed in filter(None, answers))
    return [answer for answer, _ in filter(None, answers)], Counter(refused)


def total(aws: EmbeddedAws, function: str, metric: str) -> float:
    """Return the sum of a metric of a function."""
    about = {"Dimensions": [{"Name": "FunctionName", "Value": function}], "MetricName": metric}
    stat = {"Metric": {"Namespace": "AWS/Lambda", **about}, "Period": 60, "Stat": "Sum"}
    answer = aws.client("cloudwatch").get_metric_data(
        MetricDataQueries=[{"Id": "m", "MetricStat": stat}],
        StartTime=time.time() - 600,
        EndTime=time.time() + 600,
    )
    values: list[float] = answer["MetricDataResults"][0]["Values"]
    return sum(values)


def test_never_more_at_once_than_reserved(aws: EmbeddedAws, full_size: bool, tmp_path: Path) -> None:
    function, reserved, calls = aws.function(SOURCE, Timeout=60), 3, 60 if full_size else 24
    concurrency = {"FunctionName": function, "ReservedConcurrentExecutions": reserved}
    aws.client("lambda").put_function_concurrency(**concurrency)
    spans, refused = storm(aws, [function], reserved, calls, tmp_path / "gate")
    assert most_at_once(spans) == len(spans) == reserved
    assert refused == {"ReservedFunctionConcurrentInvocationLimitExceeded": calls - reserved}
    assert total(aws, function, "Throttles") == calls - reserved
    assert total(aws, function, "Invocations") == reserved


def test_asynchronous_events_wait_for_reserved_concurrency(aws: EmbeddedAws, full_size: bool) -> None:
    function, reserved, events = aws.function(SOURCE, Timeout=30), 2, 40 if full_size else 12
    concurrency = {"FunctionName": function, "ReservedConcurrentExecutions": reserved}
    aws.client("lambda").put_function_concurrency(**concurrency)
    with ThreadPoolExecutor(events) as pool:
        list(pool.map(lambda _: aws.invoke(function, {"seconds": 0.1}, kind="Event"), range(events)))
    aws.settle(60)
    spans = [json.loads(text)["span"] for _, text in aws.log(function) if text.startswith('{"span"')]
    assert len(spans) == events
    assert most_at_once(spans) == reserved


def test_a_bound_over_all_functions(aws: EmbeddedAws, tmp_path: Path) -> None:
    bound, calls = 64, 76
    functions = [aws.function(SOURCE, Timeout=60) for _ in range(2)]
    spans, refused = storm(aws, functions, bound, calls, tmp_path / "gate")
    assert most_at_once(spans) == len(spans) == bound
    assert refused == {"ConcurrentInvocationLimitExceeded": calls - bound}
    for _ in range(3):  # idle environments of one function give way to another's
        assert not aws.invoke(aws.function(SOURCE), {})[1]


def test_deadline(aws: EmbeddedAws, tmp_path: Path) -> None:
    function, file = aws.function(SOURCE, Timeout=1), tmp_path / "ticks"
    aws.invoke(function, {})
    called = time.time() * 1000
    answer, failed = aws.invoke(function, {"do": "tick", "file": str(file)})
    answered = time.time() * 1000
    assert failed
    assert answer["errorType"] == "Sandbox.Timedout"
    assert answer["errorMessage"].endswith("Task timed out after 1.00 seconds")
    deadline, last = json.loads(file.read_text())
    assert called + 1000 <= deadline <= answered
    assert deadline - 900 < last < answered, "ran up to its deadline, and no longer than to the answer"


@pytest.mark.parametrize(("megabytes", "error"), [(60, ""), (140, "Runtime.OutOfMemory")])
def test_memory(aws: EmbeddedAws, megabytes: int, error: str) -> None:
    function = aws.function(SOURCE, MemorySize=128, Timeout=30, LoggingConfig={"LogFormat": "JSON"})
    answer, failed = aws.invoke(function, {"do": "hold", "megabytes": megabytes})
    assert failed is bool(error)
    assert not failed or answer["errorType"] == error
    (report,) = [json.loads(text) for _, text in aws.log(function) if '"platform.report"' in text]
    assert megabytes < report["record"]["metrics"]["maxMemoryUsedMB"] <= 128 or failed


def test_nothing_grows_with_the_number_of_invocations(full_size: bool, tmp_path: Path) -> None:
    rounds, count, callers = (5, 1000, 8) if full_size else (3, 80, 4)
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    draw = random.Random(seed)
    with own_server(tmp_path) as (process, cloud), ThreadPoolExecutor(callers) as pool:
        function = cloud.function(SOURCE, Timeout=30)
        group, used = f"/aws/lambda/{function}", []
        for _ in range(rounds):
            events = [
                {"lines": 10, "do": draw.choices(["", "raise", "kill"], [90, 8, 2])[0]} for _ in range(count)
            ]
            list(pool.map(lambda event: cloud.invoke(function, event), events))
            list(pool.map(lambda _: cloud.invoke(function, {"seconds": 0.3}), range(callers)))
            assert len(cloud.log(function)) > 10 * count
            cloud.client("logs").delete_log_group(logGroupName=group)  # lines are data, and kept as such
            used.append(usage(process.pid))
            print(used[-1])
    first, last = used[0], used[-1]
    assert first.processes == last.processes == callers + 1  # and the sweeper
    assert last.threads <= first.threads + 1
    assert last.files <= first.files + 2
    assert last.memory_of_children <= first.memory_of_children + 2
    # Each invocation leaves a data point of Duration, which is kept as data is: not quite 1 kB. The 3 MB for
    # the allocator's moods hide less than 1 kB an invocation at full size; at reduced size, a smoke test, 20.
    assert last.memory <= first.memory + (rounds - 1) * count / 1024 + 3


def test_a_client_that_goes_takes_its_socket_along(tmp_path: Path) -> None:
    with own_server(tmp_path) as (process, cloud):
        files = usage(process.pid).files
        for _ in range(50):
            connection = http.client.HTTPConnection(cloud.url.removeprefix("http://"))
            connection.request("GET", "/_local/idle")
            assert connection.getresponse().read()
            connection.close()
        cloud.until(lambda: usage(process.pid).files <= files + 1, 5)


def test_loopback_only(tmp_path: Path) -> None:
    with own_server(tmp_path) as (process, cloud), ThreadPoolExecutor(3) as pool:
        function = cloud.function(SOURCE, Timeout=30)
        gate = {"gate": str(tmp_path / "gate")}
        running = [pool.submit(cloud.invoke, function, gate) for _ in range(3)]
        cloud.until(lambda: cloud.local("idle")["invocations"] == 3)
        found = [address for pid in family(process.pid) for address in listening(pid)]
        Path(gate["gate"]).touch()
        assert [one.result()[1] for one in running] == [False] * 3
    assert len(found) >= 4, "the server's own and one for each environment"
    assert [address for address in found if not address.is_loopback] == []


def _work(cloud: EmbeddedAws) -> list[int]:
    """Have functions idle, busy and with children of their own; return the processes."""
    idle, busy = cloud.function(SOURCE, Timeout=60), cloud.function(SOURCE, Timeout=600)
    found: list[int] = cloud.invoke(idle, {"do": "children"})[0]
    found += cloud.invoke(busy, {"do": "children"})[0]
    cloud.invoke(busy, {"seconds": 500}, kind="Event")
    cloud.until(lambda: cloud.local("idle")["invocations"])
    assert len(found) == 6
    assert all(alive(pid) for pid in found)
    return found


def _sweepers(process: subprocess.Popen[str]) -> list[int]:
    lines = {pid: psutil.Process(pid).cmdline() for pid in family(process.pid)}
    return [pid for pid, line in lines.items() if "sweep.py" in " ".join(line)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(number: signal.Signals, tmp_path: Path) -> None:
    with own_server(tmp_path) as (process, cloud):
        processes = _work(cloud) + _sweepers(process)
        process.send_signal(number)
        code = process.wait(10)
        if number == signal.SIGKILL:  # what it cannot see to itself takes a moment
            cloud.until(lambda: not any(alive(pid) for pid in processes), 20)
    assert code == (0 if number != signal.SIGKILL else -number)
    assert [pid for pid in processes if alive(pid)] == []
    assert of_folder(tmp_path) == set()
    assert list(tmp_path.iterdir()) == []


def test_a_start_sweeps_after_the_dead_and_not_after_the_living(tmp_path: Path) -> None:
    with own_server(tmp_path) as (_, living):
        function = living.function(SOURCE, Timeout=60)
        mine = living.invoke(function, {"do": "children"})[0]
        kept = set(tmp_path.iterdir())
        with own_server(tmp_path) as (process, cloud):
            processes = _work(cloud)
            for pid in _sweepers(process):
                os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
        (left,) = set(tmp_path.iterdir()) - kept
        assert any(alive(pid) for pid in processes), "nobody was there to sweep"
        with own_server(tmp_path):
            assert not left.exists()
            assert [pid for pid in processes if alive(pid)] == []
            assert kept < set(tmp_path.iterdir())
        assert all(alive(pid) for pid in mine)
        assert not living.invoke(function, {})[1]


def test_stops_at_any_moment_of_a_storm(full_size: bool, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(20 if full_size else 1):
        number = draw.choice([signal.SIGTERM, signal.SIGINT])
        with own_server(tmp_path) as (process, cloud), ThreadPoolExecutor(8) as pool:
            function = cloud.function(SOURCE, Timeout=30)

            def call(event: Any, cloud: EmbeddedAws = cloud, function: str = function) -> None:
                with suppress(BotoCoreError, ClientError):  # the server goes away under it
                    cloud.invoke(function, event)

            events = [
                {"lines": 100, "do": draw.choice(["", "raise", "kill", "children"])} for _ in range(200)
            ]
            running = [pool.submit(call, event) for event in events]
            time.sleep(draw.uniform(0, 1.5))
            process.send_signal(number)
            assert process.wait(10) == 0
            assert of_folder(tmp_path) == set()
            assert list(tmp_path.iterdir()) == []
            for one in running:
                one.cancel()


def test_start(full_size: bool, tmp_path: Path) -> None:
    took = []
    for _ in range(3 if full_size else 1):
        began = time.monotonic()
        with own_server(tmp_path) as (_, cloud):
            took.append(time.monotonic() - began)
            assert cloud.local("idle")["pending"] == 0
    print(f"start: {min(took):.2f} s")
    assert min(took) <= 2 or not full_size


def test_warm_invocations(aws: EmbeddedAws, full_size: bool) -> None:
    function, count = aws.function(SOURCE), 300 if full_size else 30
    processes = {aws.invoke(function, {"do": "children"})[0][0] for _ in range(2)}
    assert len(processes) == 1, "the second is warm"
    began = time.monotonic()
    assert [aws.invoke(function, {"lines": 10})[1] for _ in range(count)] == [False] * count
    rate = count / (time.monotonic() - began)
    print(f"warm, one after the other: {rate:.0f} a second")
    assert rate >= 30 or not full_size
