"""What the monitor costs an agent, in counts: modules, sockets, AWS calls, system calls, bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from .conftest import LOG_STREAM, read_events, strict_json

RUNTIME = Path(__file__).parents[3] / "runtime"
LAMBDA = {
    "AWS_LAMBDA_FUNCTION_NAME": "engineer-function",
    "AWS_LAMBDA_LOG_STREAM_NAME": LOG_STREAM,
    "AGENTOPS_TRANSPORT": "stdout",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}
# Everything that an agent records by itself and by hand, twice over.
AGENT = """
import os, sys
from agentops_monitoring import AgentEventType, AgentOpsMonitor, monitored
monitor = AgentOpsMonitor("engineer")

class Context:
    aws_request_id = "8f507cfc-1234-4697-b07a-ac58fc914c95"
    function_name = "engineer-function"
    def get_remaining_time_in_millis(self):
        return 60_000

@monitored
def handler(event, context):
    for index in range(5):
        monitor.record_event(AgentEventType.ISSUE_DETECTED, {"error_rate": 0.15, "index": index})
    with monitor.span("step"), monitor.workflow("w", user_id="u"):
        monitor.track_llm_usage(model="claude-3-opus", input_tokens=1000, output_tokens=500)
        monitor.record_decision(decision_type="d", reasoning_chain=[{"thought": "t"}], confidence_score=0.9)
    monitor.complete_workflow()
"""
EVENTS_AN_INVOCATION = 1 + 5 + 3 + 1 + 1


def _run(code: str, path: Path = RUNTIME, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PYTHONPATH": str(path),
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",  # in a fresh clone those would be files that are opened
            **LAMBDA,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    "code",
    [
        "from agentops_monitoring import AgentOpsMonitor; AgentOpsMonitor().record_event('test_passed')",
        "import agentops_monitoring.wrapper",
    ],
    ids=["monitor", "wrapper"],
)
def test_importing_it_imports_little(code: str) -> None:
    heavy = {
        *(
            "boto3",
            "botocore",
            "asyncio",
            "ssl",
            "socket",
            "http",
            "urllib",
            "subprocess",
            "hashlib",
            "random",
        ),
        *("typing", "re", "json", "logging", "inspect", "dataclasses", "traceback", "decimal", "datetime"),
        *(
            "threading",
            "string",
            "tempfile",
            "uuid",
            "email",
            "zlib",
            "ctypes",
            "pathlib",
            "fnmatch",
            "pickle",
        ),
    }
    told = _run(
        f"import sys; before = set(sys.modules)\n{code}\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    ).stderr.split()
    assert "agentops_monitoring.recorder" in told
    assert heavy.intersection(told) == set()
    # Each is a file to find, to read and to run. The enum of event types brings some of the standard library.
    assert len(told) <= 55, told


def test_an_invocation_opens_no_socket_starts_no_process_and_reads_no_file_but_the_price_book() -> None:
    done = _run(
        AGENT
        + """
counted = {"socket.__new__": 0, "subprocess.Popen": 0, "os.system": 0, "open": 0}
books = 0
def count(event, arguments):
    global books
    if event == "open" and str(arguments[0]).endswith((".py", ".pyc", "book.json")):
        books += str(arguments[0]).endswith("book.json")
    elif event in counted:
        counted[event] += isinstance(arguments[0], (str, bytes)) or event != "open"
sys.addaudithook(count)
handler({}, Context())
handler({}, Context())
print(counted, books, "socket" in sys.modules, file=sys.stderr)
"""
    )
    assert (
        done.stderr.split("\n")[0]
        == str({"socket.__new__": 0, "subprocess.Popen": 0, "os.system": 0, "open": 0}) + " 1 False"
    )
    assert len(read_events(done.stdout, LOG_STREAM)) == 2 * EVENTS_AN_INVOCATION


def test_an_invocation_calls_no_aws() -> None:
    done = _run(
        """
import botocore.endpoint
calls = []
botocore.endpoint.Endpoint.make_request = lambda self, operation, _: calls.append(operation.name)
"""
        + AGENT
        + """
import boto3
client = boto3.client("events", aws_access_key_id="a", aws_secret_access_key="b")
handler({}, Context())
before = list(calls)
try:
    client.list_event_buses()
except Exception:
    pass
print(before, calls, file=sys.stderr)
"""
    )
    # The agent's own call is counted, so the monitor's would be.
    assert done.stderr.strip() == "[] ['ListEventBuses']"


@pytest.mark.parametrize("stdout", ["a pipe", "a file", "Lambda's"])
def test_an_event_is_one_system_call(stdout: str, tmp_path: Path) -> None:
    code = (
        AGENT
        + """
def writes():
    with open("/proc/self/io") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("syscw"))
"""
    )
    if stdout == "a file":
        code += f"sys.stdout = open({str(tmp_path / 'out')!r}, 'w')\n"
    if stdout == "Lambda's":
        # As awslambdaric.bootstrap has it: https://github.com/aws/aws-lambda-python-runtime-interface-client.
        code += """
class Unbuffered:
    def __init__(self, stream):
        self.stream = stream
    def __getattr__(self, name):
        return getattr(self.stream, name)
    def write(self, text):
        self.stream.write(text)
        self.stream.flush()
Unbuffered.__module__ = "awslambdaric.bootstrap"
sys.stdout = Unbuffered(sys.stdout)
"""
    code += """
monitor.record_event("test_passed", {})
before = writes()
for index in range(100):
    monitor.record_event("test_passed", {"index": index})
print(writes() - before, file=sys.stderr)
"""
    done = _run(code)
    written = (tmp_path / "out").read_text() if stdout == "a file" else done.stdout
    assert len(read_events(written)) == 101
    assert done.stderr.strip() == "100"


def test_a_stdout_that_somebody_listens_to_is_written_as_text() -> None:
    done = _run(
        AGENT
        + """
class Unbuffered:  # not Lambda's: nothing flushes what is written
    def __init__(self, stream):
        self.stream = stream
    def write(self, text):
        self.heard = text
        self.stream.write(text)
    def flush(self):
        self.stream.flush()
kept = sys.stdout
sys.stdout = mine = Unbuffered(kept)
monitor.record_event("test_passed", {"index": 0})
sys.stdout, write, heard = kept, kept.write, []
kept.write = lambda text: (heard.append(text), write(text))
monitor.record_event("test_passed", {"index": 1})
assert '"index":0' in mine.heard and '"index":1' in heard[0]
os._exit(0)
"""
    )
    assert [event["data"]["index"] for event in read_events(done.stdout)] == [0, 1]


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a function gets of the monitor, as deployed."""
    from agentops_constructs import bundling  # which starts Node

    return bundling.layer_bundle().build(tmp_path_factory.mktemp("bundles")) / "python"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]


def test_the_bundle_has_at_most_300_kilobytes(layer: Path) -> None:
    assert sum(path.stat().st_size for path in _files(layer)) <= 300_000


def test_the_bundle_is_all_that_an_agent_needs(layer: Path) -> None:
    modules = [
        str(path.relative_to(layer).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for path in _files(layer)
        if path.suffix == ".py"
    ]
    done = _run(
        AGENT
        + f"""
handler({{}}, Context())
from importlib import import_module
for name in {modules!r}:
    import_module(name)
""",
        layer,
    )
    events: list[dict[str, Any]] = read_events(done.stdout, LOG_STREAM)
    assert len(events) == EVENTS_AN_INVOCATION
    (usage,) = [event["data"] for event in events if event["type"] == "llm_usage"]
    assert Decimal(usage["cost_usd"]) == Decimal("0.0525")


def test_a_bundle_that_cannot_write_to_tables_says_so_and_prints(layer: Path) -> None:
    done = _run(AGENT + "handler({}, Context())", layer, AGENTOPS_TRANSPORT="direct")
    assert len(done.stdout.splitlines()) == EVENTS_AN_INVOCATION
    assert all(strict_json(line) for line in done.stdout.splitlines())
    assert done.stderr.count("AGENTOPS_TRANSPORT=stdout") == 1
