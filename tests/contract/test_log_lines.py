"""What Lambda writes about an invocation, for each way that it can end, held against lines that AWS wrote.

The same probes run in a real account with ``--against-aws``: there it is the corpus that is put to the test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache

import pytest

from agentops_monitoring.ledger import parse
from tests.contract.cloud import Cloud
from tests.contract.lines import Case, cases, lambdas_own, shape

pytestmark = pytest.mark.xdist_group("contract")

SOURCE = """
import os, time
def handler(event, context):
    print("a line of its own")
    if event == "raise": raise KeyError("told to")
    if event == "exit": os._exit(3)
    if event == "kill": os.kill(os.getpid(), 9)
    if event == "memory": held = [bytearray(10_000_000) for _ in range(60)]
    if event == "sleep": time.sleep(60)
"""
BROKEN = "print('a line of its own'); import nowhere_to_be_found"
FORMATS = ["Text", "JSON"]
WELL = "well"
# How an invocation ends; the corpus's word for it, the ledger's, and what the caller is told.
ENDINGS = {
    WELL: ("warm", "success", ""),
    "raise": ("warm", "success", "KeyError"),  # to Lambda's log no failure: the runtime has answered
    "sleep": ("timeout", "timeout", "Sandbox.Timedout"),
    "exit": ("died", "error", "Runtime.ExitError"),
    "kill": ("died", "error", "Runtime.ExitError"),
    "memory": ("died", "error", "Runtime.OutOfMemory"),
    "import": ("init failed", "error", "Runtime.ImportModuleError"),
}


class Logged:
    """Runs functions, and gives what Lambda wrote about them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    @cache  # noqa: B019 - one object a module
    def log(self, log_format: str, *events: str, **levels: str) -> Sequence[str]:
        """Invoke a new function with one event after the other, and return its log."""
        shortest = 3 if self.cloud.real else 1
        function = self.cloud.function(
            BROKEN if "import" in events else SOURCE,
            Timeout=shortest if "sleep" in events else 20,  # what ends in another way may be slow here
            LoggingConfig={"LogFormat": log_format, **levels},
        )
        for event in events:
            answer = self.cloud.invoke(function, event)
            assert (answer["Payload"] or {}).get("errorType", "") == ENDINGS[event][2]
        group = f"/aws/lambda/{function}"
        expected = 1 if levels.get("SystemLogLevel") == "WARN" else len(events)
        self.cloud.until(lambda: sum(map(is_report, self.texts(group))) >= expected)
        return self.texts(group)

    def texts(self, group: str) -> list[str]:
        """Return the messages of a log group."""
        return [text for _, text in self.cloud.log(group)]


@pytest.fixture(scope="module")
def logged(cloud: Cloud) -> Logged:
    """Give the logs of functions that end in each way."""
    return Logged(cloud)


def is_report(text: str) -> bool:
    """Whether it is Lambda's report on an invocation."""
    return any(term in text for term in parse.TERMS)


def quoted(log_format: str, *endings: str) -> set[str]:
    """Return the shapes of the corpus's lines for these endings, where tabs have come down to us."""
    of_these = [one for one in cases() if one.format == log_format and one.tabs and one.ending in endings]
    return {shape(line) for case in of_these for line in lambdas_own(case.lines)}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("log_format", FORMATS)
def test_lines_have_the_fields_order_units_and_separators_of_aws(
    logged: Logged, log_format: str, ending: str
) -> None:
    events = ("import",) if ending == "import" else (WELL, ending)
    expected = quoted(log_format, "cold", ENDINGS[ending][0])
    log = logged.log(log_format, *events)
    for line in lambdas_own(log):
        assert shape(line) in expected, line
        if log_format == "JSON":
            assert json.dumps(json.loads(line), separators=(",", ":")) == line, "compact, with no end of line"
    own = [text for text in log if text not in set(lambdas_own(log))]
    assert own.count("a line of its own\n") == 2


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("log_format", FORMATS)
def test_the_ledger_reads_each_invocation_once(logged: Logged, log_format: str, ending: str) -> None:
    events = ("import",) if ending == "import" else (WELL, ending)
    lines = logged.log(log_format, *events)
    batch = parse.read_payload(
        {
            "logStream": "",
            "subscriptionFilters": ["agentops|test|manager|arm64"],
            "logEvents": [{"id": str(n), "timestamp": n, "message": line} for n, line in enumerate(lines)],
        },
        "us-east-1",
    )
    assert batch.rejects == []
    assert [one.status for one in batch.reports] == [ENDINGS[event][1] for event in events]
    for report in batch.reports:
        assert 0 <= report.billed_ms - report.duration_ms - report.init_ms < 1, "INIT is billed, in whole ms"
    assert [bool(one.init_ms) for one in batch.reports] == ([False] if ending == "import" else [True, False])


# What brings about the endings of which the corpus knows every line.
WAYS: Mapping[str, Sequence[Sequence[str]]] = {
    "cold": [(WELL, WELL)],
    "timeout, cold": [("sleep",)],
    "died, cold": [("exit",), ("memory",)],
    "init failed": [("import",)],
}


@pytest.mark.parametrize(
    ("case", "events"),
    [(case, events) for case in cases() if case.complete for events in WAYS.get(case.ending, [])],
    ids=lambda value: getattr(value, "name", " ".join(value) if isinstance(value, tuple) else ""),
)
def test_lines_come_in_aws_s_order(logged: Logged, case: Case, events: Sequence[str]) -> None:
    expected = [shape(line, tabs=case.tabs) for line in lambdas_own(case.lines)]
    if case.ending == "cold":
        (warm,) = (
            one for one in cases() if one.complete and (one.format, one.ending) == (case.format, "warm")
        )
        expected += [shape(line) for line in lambdas_own(warm.lines)]
    found = [shape(line, tabs=case.tabs) for line in lambdas_own(logged.log(case.format, *events))]
    # The documentation begins with START.
    assert [line for line in found if case.tabs or not line.startswith("INIT_START")] == expected


def types(lines: Sequence[str]) -> list[str]:
    """Return the types of Lambda's own lines in JSON."""
    return [json.loads(line)["type"].removeprefix("platform.") for line in lambdas_own(lines)]


def test_system_level_debug_tells_of_the_runtime_s_ends_too(logged: Logged) -> None:
    lines = logged.log("JSON", WELL, WELL, SystemLogLevel="DEBUG")
    init, invocation = ["initStart", "initRuntimeDone", "initReport"], ["start", "runtimeDone", "report"]
    assert types(lines) == [*init, *invocation, *invocation]
    assert {shape(line) for line in lambdas_own(lines)} <= quoted("JSON", "debug", "cold", "warm")


def test_system_level_warn_leaves_what_did_not_end_well(logged: Logged) -> None:
    lines = logged.log("JSON", WELL, "exit", SystemLogLevel="WARN")
    assert types(lines) == ["runtimeDone", "report"]


@pytest.mark.slow
def test_an_init_that_takes_too_long_runs_again_on_the_invocation_s_time(
    cloud: Cloud, full_size: bool
) -> None:
    if not full_size:
        pytest.skip("at full size: it takes INIT's ten seconds")
    function = cloud.function("import time; time.sleep(10.5)\n" + SOURCE, Timeout=20)
    assert "FunctionError" not in cloud.invoke(function, WELL)
    group = f"/aws/lambda/{function}"
    cloud.until(lambda: any(is_report(text) for _, text in cloud.log(group)))
    start, timeout, *invocation = lambdas_own([text for _, text in cloud.log(group)])
    assert start.startswith("INIT_START ")
    documented = next(one for one in cases() if one.name == "INIT takes too long")
    assert shape(timeout, tabs=False) == shape(documented.lines[0], tabs=False)
    assert [shape(line) for line in invocation] == [
        "START RequestId: <id> Version: $LATEST\n",
        "END RequestId: <id>\n",
        next(line for line in quoted("Text", "warm") if line.startswith("REPORT")),
    ]
    duration = re.search(r"\tDuration: ([\d.]+) ms", invocation[-1])
    assert duration is not None
    assert float(duration[1]) > 10_500


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_retry_has_the_request_id_of_the_first_attempt(cloud: Cloud, log_format: str) -> None:
    function = cloud.function(SOURCE, LoggingConfig={"LogFormat": log_format})
    cloud.client("lambda").put_function_event_invoke_config(FunctionName=function, MaximumRetryAttempts=1)
    cloud.invoke(function, "raise", "Event")
    group = f"/aws/lambda/{function}"

    def reports() -> list[str]:
        return [text for _, text in cloud.log(group) if is_report(text)]

    cloud.until(lambda: len(reports()) == 2, 30)
    ids = [re.findall(r'RequestId: (\S+)|"requestId":"([^"]+)', text)[0] for text in reports()]
    assert ids[0] == ids[1]


def test_known_deviation_a_crashed_runtime_starts_in_a_new_stream(cloud: Cloud) -> None:
    """On AWS the environment lives on: the runtime starts again in its stream, within the next report's time.

    Nothing of ours tells the two apart: the ledger bills what the report says, and a new process has a nonce
    of its own, with a proof for the stream that it finds.
    """
    if cloud.real:
        pytest.skip("it is the embedded AWS that deviates")
    function = cloud.function(SOURCE)
    for event in (WELL, "exit", WELL):
        cloud.invoke(function, event)
    log = cloud.log(f"/aws/lambda/{function}")
    assert len({stream for stream, _ in log}) == 2
    assert sum(text.startswith("INIT_START") for _, text in log) == 2
