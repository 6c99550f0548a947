"""What is on stdout after a kill, and whose ids are on it: forked children, restored snapshots."""

from __future__ import annotations

import json
import mmap
import os
import random
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agentops_monitoring.ledger.parse import read_lines
from tests.unit.core.conftest import strict_json

RUNTIME = Path(__file__).parents[2] / "runtime"
THREADS = 8
# Writes of up to this size to a pipe are atomic: https://man7.org/linux/man-pages/man7/pipe.7.html.
PIPE_BUF = 4096

# Eight threads record, and note in shared memory, which outlives them, how many of their calls have returned.
RECORDING = """
import mmap, struct, sys, threading
from agentops_monitoring import AgentOpsMonitor

sys.setswitchinterval(1e-5)
large = sys.argv[2] == "large"
with open(sys.argv[1], "r+b") as file:
    returned = mmap.mmap(file.fileno(), 0)
monitor = AgentOpsMonitor("a")

def work(thread):
    for index in range(10**9):
        data = {"thread": thread, "index": index}
        if large and index % 5 == thread % 5:
            data["text"] = "x" * (7_000 if index % 2 else 150_000)
        monitor.record_event("test_passed", data)
        struct.pack_into("q", returned, thread * 8, index + 1)

for number in range(1, 8):
    threading.Thread(target=work, args=(number,)).start()
work(0)
"""


def _environment(**more: str) -> dict[str, str]:
    return {"PYTHONPATH": str(RUNTIME), "PATH": os.environ["PATH"], "AGENTOPS_TRANSPORT": "stdout", **more}


def _killed_while_recording(
    folder: Path, chance: random.Random, to_file: bool, large: bool
) -> tuple[str, Any]:
    """Kill a process at a random moment; return what is on its stdout, and how many calls had returned."""
    returned = folder / "returned"
    returned.write_bytes(bytes(8 * THREADS))
    output = folder / "stdout"
    command = [sys.executable, "-c", RECORDING, str(returned), "large" if large else "small"]
    with open(output, "w+b") as file:
        process = subprocess.Popen(
            command,
            env=_environment(),
            stdout=file if to_file else subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        received = bytearray()

        def drain() -> None:
            assert process.stdout is not None
            while piece := os.read(process.stdout.fileno(), 1 << 16):
                received.extend(piece)

        reader = threading.Thread(target=drain)
        try:
            if not to_file:
                reader.start()
            while not (received or (to_file and output.stat().st_size)):
                assert process.poll() is None
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.1))
        finally:
            process.kill()
            process.wait()
            if not to_file:
                reader.join()
                assert process.stdout is not None
                process.stdout.close()
    text = output.read_bytes() if to_file else bytes(received)
    with open(returned, "rb") as notes, mmap.mmap(notes.fileno(), 0, access=mmap.ACCESS_READ) as counts:
        return text.decode(), struct.unpack(f"{THREADS}q", counts[:])


def test_after_a_kill_every_event_whose_call_had_returned_is_whole(tmp_path: Path, full_size: bool) -> None:
    events = 0
    for seed in range(200 if full_size else 8):
        chance = random.Random(seed)
        to_file, large = bool(seed & 1), bool(seed & 2)
        print(f"seed {seed}, to a {'file' if to_file else 'pipe'}, {'large' if large else 'small'} events")
        text, returned = _killed_while_recording(tmp_path, chance, to_file, large)
        *lines, rest = text.split("\n")
        parsed = [strict_json(line)["agentops.event"] for line in lines]  # none torn, none inside another
        if not to_file and not large:
            assert max(map(len, lines)) < PIPE_BUF
            assert rest == ""
        parts: dict[str, dict[int, Any]] = {}
        for event in parsed:
            parts.setdefault(event["id"], {})[event.get("part", [1, 1])[0]] = event
        written: dict[int, set[int]] = {thread: set() for thread in range(THREADS)}
        for found in parts.values():
            first = found[1]
            if len(found) == first.get("part", [1, 1])[1]:
                data = first.get("data") or json.loads(
                    "".join(found[each]["chunk"] for each in sorted(found))
                )
                written[data["thread"]].add(data["index"])
        for thread, count in enumerate(returned):
            # What was underway may be there as well, or the beginning of it.
            assert set(range(count)) <= written[thread] <= set(range(count + 1))
        events += sum(returned)
    assert events > 1000


FAMILY = """
import ctypes, multiprocessing, os, sys, threading, types
from agentops_monitoring import AgentOpsMonitor, monitored

monitor = AgentOpsMonitor("a")

def record(times=20):
    for index in range(times):
        with monitor.span("step"):
            monitor.record_event("test_passed", {"pid": os.getpid(), "index": index})

def child(times=20):
    record(times)
    os._exit(0)
"""

FORKS = (
    FAMILY
    + """
stop = threading.Event()

def busy():
    while not stop.is_set():
        record(1)

# Forks meet locks that other threads hold.
threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads:
    thread.start()
children = []
for _ in range(12):
    pid = os.fork()
    if not pid:
        stop.set()
        grandchild = os.fork()
        if not grandchild:
            child()
        os.waitpid(grandchild, 0)
        child()
    children.append(pid)
    record(3)
for pid in children:
    os.waitpid(pid, 0)
stop.set()
for thread in threads:
    thread.join()
"""
)

METHODS = (
    FAMILY
    + """
if __name__ == "__main__":
    record()
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        processes = [context.Process(target=record) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
    record()
"""
)

# The C library's own fork runs none of Python's hooks, so it makes what restoring one snapshot twice does:
# two processes with the same memory. Then Lambda calls the functions that registered for it.
SNAPSHOTS = (
    """
import sys, types
hooks = []
module = types.ModuleType("snapshot_restore_py")
module.register_after_restore = hooks.append
sys.modules["snapshot_restore_py"] = module
"""
    + FAMILY
    + """
record()
libc = ctypes.CDLL(None)
for _ in range(4):
    pid = libc.fork()
    if not pid:
        if sys.argv[1] == "restored":
            for hook in hooks:
                hook()
        child()
    os.waitpid(pid, 0)
"""
)


def _events(code: str, tmp_path: Path, *arguments: str, **environment: str) -> list[dict[str, Any]]:
    script = tmp_path / "family.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [strict_json(line)["agentops.event"] for line in done.stdout.splitlines()]


def _assert_nothing_shared(events: list[dict[str, Any]], processes: int) -> None:
    assert len({event["id"] for event in events}) == len(events)
    assert len({event["span_id"] for event in events}) == len(events)
    by_nonce: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_nonce.setdefault(event["id"].partition("-")[0], []).append(event)
    assert len(by_nonce) == processes
    # Each counts without a gap: what is missing is seen to be missing.
    for own in by_nonce.values():
        assert sorted(event["seq"] for event in own) == list(range(1, len(own) + 1))
    assert len({event["workflow_id"] for event in events}) == processes


def test_children_of_forks_beside_threads_share_no_id(tmp_path: Path) -> None:
    events = _events(FORKS, tmp_path)
    # A child, and its child, of each of 12 forks.
    _assert_nothing_shared(events, 1 + 24)
    # A forked thread may die with a line in the making, but none of those that were to record is missing.
    own = [event["data"]["pid"] for event in events if event["type"] == "test_passed"]
    assert sorted(own.count(pid) for pid in set(own))[:24] == [20] * 24


def test_children_of_multiprocessing_share_no_id(tmp_path: Path) -> None:
    events = _events(METHODS, tmp_path)
    assert len(events) == 2 * 20 * (2 + 9)
    _assert_nothing_shared(events, 1 + 9)


def test_restored_snapshots_share_no_id(tmp_path: Path) -> None:
    snap_start = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
    _assert_nothing_shared(_events(SNAPSHOTS, tmp_path, "restored", **snap_start), 1 + 4)
    # Without the hook the clones do share them: the test's restored snapshots are none in name only.
    cloned = _events(SNAPSHOTS, tmp_path, "cloned", **snap_start)
    assert len({event["id"] for event in cloned}) < len(cloned)


def test_printing_neighbours_cost_no_event(tmp_path: Path) -> None:
    code = (
        FAMILY
        + """
def chat():
    for _ in range(5000):
        sys.stdout.write("the agent's own words\\n")

threads = [threading.Thread(target=chat) for _ in range(4)]
threads += [threading.Thread(target=record, args=(200,)) for _ in range(4)]
sys.setswitchinterval(1e-5)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    )
    script = tmp_path / "chat.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)], env=_environment(), capture_output=True, timeout=60, check=True
    )
    # What several threads print at once, CPython may lose or garble; what we record, never.
    batch = read_lines(done.stdout.decode(errors="replace").split("\n"), "a process")
    assert batch.rejects == []
    assert len({event.id for event in batch.events}) == 4 * 200 * 2


def test_a_line_behind_words_that_an_agent_did_not_end_is_read(tmp_path: Path) -> None:
    code = (
        FAMILY
        + """
for index in range(50):
    print("Once upon", '{"a": 1}', end=" ", flush=index % 2)
    monitor.record_event("test_passed", {"index": index, "text": "x" * 100_000 * (index % 10 == 3)})
    with monitor.span("told"):
        print("a time", end="")
"""
    )
    script = tmp_path / "story.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert sum(not line.startswith("{") for line in lines) == 100
    batch = read_lines(lines, "a process")
    assert batch.rejects == []
    assert len({event.id for event in batch.events} | {part.event.id for part in batch.parts}) == 100


@pytest.mark.parametrize("write", ['monitor.record_event("test_passed", {"text": text})', "print(text)"])
def test_handlers_of_signals_record_in_the_midst_of_a_write(write: str, tmp_path: Path) -> None:
    code = (
        FAMILY
        + f"""
import signal
made = 0

def on_signal(*_):
    global made
    made += 1
    monitor.record_event("test_failed", {{"made": made}})
    if made == 100:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.exit()  # as a handler of SIGTERM does, perhaps with the last event put off

signal.signal(signal.SIGALRM, on_signal)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
text = "x" * 50_000
while True:
    # Larger than the pipe: the write waits for the reader, and there the signals come.
    {write}
"""
    )
    script = tmp_path / "signals.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)], env=_environment(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    received = bytearray()
    while piece := os.read(process.stdout.fileno(), 1 << 16):
        received += piece
        time.sleep(0.001)
    process.stdout.close()
    assert process.wait() == 0
    events = read_lines(received.decode().splitlines(), "a process").events
    made = [event.data["made"] for event in events if event.type == "test_failed"]
    assert sorted(made) == list(range(1, 101))


@pytest.mark.parametrize("how", ["contextlib", "powertools", "replaced", "closed", "none"])
def test_wherever_stdout_leads_the_line_goes_there(how: str, tmp_path: Path) -> None:
    closed = "open(os.devnull)"  # for reading
    codes = {
        "contextlib": """
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as caught:
    record(1)
print(caught.getvalue(), end="")
""",
        "powertools": """
from aws_lambda_powertools import Logger, Metrics
metrics = Metrics(namespace="n", service="s")
@Logger(service="s").inject_lambda_context
@metrics.log_metrics
@monitored
def handler(event, context):
    metrics.add_metric(name="m", unit="Count", value=1)
    record(1)
class Context:
    function_name = memory_limit_in_mb = invoked_function_arn = aws_request_id = "x"
handler({}, Context())
""",
        "replaced": """
class Stdout:
    def __init__(self, stream):
        self.stream = stream
    def write(self, text):
        return self.stream.write(text)
    def flush(self):
        self.stream.flush()
sys.stdout = Stdout(sys.stdout)
record(1)
os._exit(0)
""",
        "closed": f"kept, sys.stdout = sys.stdout, {closed}\nrecord(1)\nsys.stdout = kept\nrecord(1)\n",
        "none": "kept, sys.stdout = sys.stdout, None\nrecord(1)\nsys.stdout = kept\nrecord(1)\n",
    }
    script = tmp_path / "script.py"
    script.write_text(FAMILY + codes[how])
    done = subprocess.run(
        [sys.executable, str(script)],
        env=_environment(POWERTOOLS_METRICS_DISABLED="false"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    types = [
        line["agentops.event"]["type"]
        for line in map(strict_json, done.stdout.splitlines())
        if "agentops.event" in line
    ]
    invocation = ("invocation_started", "invocation_completed") if how == "powertools" else ()
    assert sorted(types) == sorted(["test_passed", "span", *invocation])
