"""Each line that a function writes is in its log once, in its own invocation, in order, before the report.

Whatever way it is written, and whatever way the invocation ends. The functions note outside of the log how
far they came, so that also those that are cut off in the middle of writing are known to the line.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import EmbeddedAws

pytestmark = pytest.mark.xdist_group("embedded_aws")

WRITERS = (
    "print", "stderr", "descriptor", "logging", "thread0", "thread1", "thread2", "child", "parent", "command",
    "endless", "open",
)  # fmt: skip
WAYS = {
    "by_print": ("print",),
    "by_stderr": ("stderr",),
    "by_descriptor": ("descriptor",),
    "by_logging": ("logging",),
    "by_threads": ("thread0", "thread1", "thread2"),
    "by_fork": ("child", "parent"),
    "by_command": ("command",),
}
ENDS = ("", "", "", "raise", "raise", "exit", "leave", "kill", "memory", "sleep")
CUTS = ("at the deadline", "killed", "exited")  # while they write without end
# A line says which invocation wrote it, through what, and as which of how many: "<3 print 17>".
SOURCE = (
    f"WRITERS = {WRITERS!r}"
    + """
import logging, mmap, os, subprocess, sys, threading, time

class Writer:
    def __init__(self, event):
        self.event, self.lines = event, range(event["lines"])
        with open(event["notes"], "r+b") as file:
            self.notes = mmap.mmap(file.fileno(), 0)

    def text(self, who, k):
        return f"<{self.event['n']} {who} {k}>" + "x" * self.event["padding"]

    def note(self, who, count):
        at = 4 * WRITERS.index(who)
        self.notes[at : at + 4] = count.to_bytes(4, "little")

    def each(self, who, write):
        for k in self.lines:
            write(self.text(who, k))
            self.note(who, k + 1)

    def by_print(self): self.each("print", print)
    def by_stderr(self): self.each("stderr", lambda text: print(text, file=sys.stderr))
    def by_descriptor(self): self.each("descriptor", lambda text: os.write(1, text.encode() + b"\\n"))
    def by_logging(self): self.each("logging", logging.getLogger().error)

    def by_threads(self):
        write = lambda text: sys.stdout.write(text + "\\n")
        threads = [threading.Thread(target=self.each, args=(f"thread{i}", write)) for i in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()

    def by_fork(self):
        write, child = lambda text: os.write(1, text.encode() + b"\\n"), os.fork()
        self.each("parent" if child else "child", write)
        if not child: os._exit(0)
        os.waitpid(child, 0)

    def by_command(self):
        for k in self.lines[:5]:
            subprocess.run(["echo", self.text("command", k)], check=True)
            self.note("command", k + 1)

    def without_end(self):
        if self.event["cut"] == "killed": end = lambda: os.kill(os.getpid(), 9)
        if self.event["cut"] == "exited": end = lambda: os._exit(5)
        if self.event["cut"] != "at the deadline": threading.Timer(self.event["after"], end).start()
        k = 0
        while True:
            os.write(1, self.text("endless", k).encode() + b"\\n")
            k += 1
            self.note("endless", k)
            time.sleep(0.001)

    def open_end(self):
        sys.stdout.write(self.text("open", 0))
        self.note("open", 1)

def handler(event, context):
    for way in event["ways"]: getattr(Writer(event), way)()
    end = event["end"]
    if end == "raise": raise KeyError("missing")
    if end == "exit": os._exit(3)
    if end == "leave": sys.exit(4)
    if end == "kill": os.kill(os.getpid(), 9)
    if end == "memory": held = bytearray(1 << 30)
    if end == "sleep": time.sleep(60)
"""
)
TAG = re.compile(r"<(\d+) (\w+) (\d+)>")
START = re.compile(r'^START RequestId: (\S+)|^\{.*"platform\.start".*"requestId": ?"([^"]+)')
REPORT = re.compile(r'^REPORT RequestId: (\S+)|^\{.*"platform\.report".*"requestId": ?"([^"]+)')


@dataclass
class _Found:
    """What a log says: lines by invocation and writer, request ids by invocation, reports by request id."""

    lines: Counter[tuple[int, str]] = field(default_factory=Counter)
    ids: dict[int, set[str]] = field(default_factory=dict)
    reports: Counter[str] = field(default_factory=Counter)


def _read(aws: EmbeddedAws, function: str) -> _Found:
    """Read a log; fail at a line out of order, doubled, outside of an invocation or run into another."""
    found = _Found()
    running: dict[str, str] = {}
    for stream, text in aws.log(function):
        if started := START.search(text):
            assert stream not in running, f"two invocations at once in {stream}"
            running[stream] = started[1] or started[2]
        elif reported := REPORT.search(text):
            assert running.pop(stream) == (reported[1] or reported[2])
            found.reports[reported[1] or reported[2]] += 1
        tags = TAG.findall(text)
        assert len(tags) <= 1, f"lines that ran into each other: {text[:300]}"
        for number, writer, k in tags:
            assert stream in running, f"outside of an invocation: {text[:300]}"
            found.ids.setdefault(int(number), set()).add(running[stream])
            assert found.lines[int(number), writer] == int(k), f"lost, doubled or out of order: {text[:300]}"
            found.lines[int(number), writer] += 1
    assert not running, "invocations without a report"
    return found


def _event(number: int, draw: random.Random, folder: Path) -> dict[str, Any]:
    """Draw what one invocation does: how it writes, and how it ends."""
    ways = draw.sample(sorted(WAYS), draw.randint(1, 3))
    cut = draw.choice(CUTS) if draw.random() < 0.2 else ""
    last = ["without_end"] if cut else ["open_end"] if draw.random() < 0.3 else []
    notes = folder / str(number)
    notes.write_bytes(bytes(4 * len(WRITERS)))
    return {
        "n": number,
        "ways": ways + last,
        "end": draw.choice(ENDS),
        "cut": cut,
        "after": draw.uniform(0.01, 0.5),
        "lines": draw.choice((1, 5, 20)),
        "padding": draw.choice((0, 0, 100, 3_000)),  # a pipe keeps writes of up to 4,096 bytes whole
        "notes": str(notes),
    }


def _noted(event: Mapping[str, Any]) -> dict[str, int]:
    """Return how many lines each writer of an invocation has noted as written."""
    notes = Path(event["notes"]).read_bytes()
    return {who: int.from_bytes(notes[4 * i : 4 * i + 4], "little") for i, who in enumerate(WRITERS)}


def _prove(aws: EmbeddedAws, log_format: str, count: int, seed: int, folder: Path) -> None:
    draw = random.Random(seed)
    function = aws.function(SOURCE, Timeout=2, LoggingConfig={"LogFormat": log_format})
    events = [_event(number, draw, folder) for number in range(count)]
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda event: aws.invoke(function, event), events))

    found = _read(aws, function)
    written = 0
    for event in events:
        number, noted = event["n"], _noted(event)
        written += sum(noted.values())
        for who, least in noted.items():
            # Who is killed between the write and its note has written one more.
            assert least <= found.lines.pop((number, who), 0) <= least + 1, (event, who)
        assert len(found.ids[number]) == 1, f"lines of one invocation in several: {event}"
    assert not +found.lines
    assert found.reports == Counter({one for ids in found.ids.values() for one in ids})
    assert len(found.reports) == count
    assert written > 10 * count
    aws.client("logs").delete_log_group(logGroupName=f"/aws/lambda/{function}")
    aws.client("lambda").delete_function(FunctionName=function)


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_each_line_once_in_its_own_invocation_before_its_report(
    aws: EmbeddedAws, log_format: str, full_size: bool, tmp_path: Path
) -> None:
    count, repetitions = (200, 20) if full_size else (40, 1)
    first = random.SystemRandom().randrange(1_000_000)
    for seed in range(first, first + repetitions):
        print(f"seed {seed}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        _prove(aws, log_format, count, seed, folder)


RECORDS = """
import logging, sys, threading
def handler(event, context):
    def log(who):
        for k in range(20): logging.getLogger().error(f"<{event} {who} {k}>" + "x" * 150_000)
    def write():
        for k in range(300): sys.stdout.write(f"<{event} print {k}>\\n")
    threads = [threading.Thread(target=log, args=(who,)) for who in ("first", "second")]
    threads.append(threading.Thread(target=write))
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    for k, write in enumerate([print, logging.getLogger().error, print]): write(f"<{event} logging {k}>")
"""


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_records_larger_than_the_pipe_stay_whole_and_in_order(
    aws: EmbeddedAws, log_format: str, full_size: bool
) -> None:
    count = 32 if full_size else 6
    function = aws.function(RECORDS, Timeout=60, LoggingConfig={"LogFormat": log_format})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: aws.invoke(function, number), range(count)))
    lines = {"first": 20, "second": 20, "print": 300, "logging": 3}
    assert _read(aws, function).lines == Counter({(n, w): k for n in range(count) for w, k in lines.items()})
