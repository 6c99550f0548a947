"""Lines straight to the ledger, where nobody reads stdout: containers, laptops, bare Lambda functions."""

from __future__ import annotations

import atexit
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence

from agentops_monitoring.settings import Settings
from agentops_monitoring.transport import STDOUT, Transport

MAX_QUEUED = 10_000
MAX_BATCH = 500
LINGER_SECONDS = 0.2
"""How long the worker waits for more lines to go in the same batch."""
FLUSH_SECONDS = 5.0
"""How long the process waits at its end for what is still queued."""
THROUGH_SECONDS = 2.0
"""How long an event in a Lambda function may take to be written through."""
_CLOSED_RETRY_SECONDS = 1.0

Write = Callable[[Sequence[str], float], None]
"""Writes lines to the ledger by a deadline of the monotonic clock; raises when it could not. Idempotent."""


def direct_transport(settings: Settings) -> Transport:
    """Return the transport of a process whose settings say "direct"."""
    write = _ledger_write(settings)
    if settings.in_lambda:
        return WriteThrough(write)
    worker = BackgroundWriter(write)
    atexit.register(worker.flush, FLUSH_SECONDS)
    os.register_at_fork(after_in_child=worker.renew)
    return worker


class BackgroundWriter:
    """Queues lines and writes them in batches from a thread of its own.

    A full queue drops the newest event and counts it: an agent must not wait for a table. What cannot be
    written is tried again with the next batch.
    """

    def __init__(self, write: Write, *, max_queued: int = MAX_QUEUED) -> None:
        self._write = write
        self._max_queued = max_queued
        self.lost = 0
        """Events that were dropped because the queue was full or the process ended."""
        self.renew()

    def renew(self) -> None:
        """Start over with an empty queue, as a forked child must: the parent writes what it had queued."""
        self._queue: queue.Queue[Sequence[str]] = queue.Queue(self._max_queued)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._urgent = threading.Event()

    def write(self, lines: Sequence[str]) -> None:
        """Queue the lines of one event."""
        try:
            self._queue.put_nowait(lines)
            if self._thread is None:
                self._start()
        except queue.Full:
            self.lost += 1
        except RuntimeError:  # no new threads once the interpreter shuts down; flush() writes what is queued
            pass

    def flush(self, seconds: float) -> bool:
        """Write what is queued, within a time; returns whether all of it was written."""
        deadline = time.monotonic() + seconds
        self._urgent.set()
        while self._queue.unfinished_tasks:
            left = deadline - time.monotonic()
            if left <= 0:
                self._report(f"{self._queue.unfinished_tasks} events were not written in {seconds:g} s")
                self.lost += self._queue.unfinished_tasks
                return False
            thread = self._thread
            if thread is None or not thread.is_alive():
                self._drain(deadline)
            else:
                time.sleep(min(0.01, left))
        self._urgent.clear()
        return True

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agentops-writer", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._drain(None)

    def _drain(self, deadline: float | None) -> None:
        """Write one batch; without a deadline, wait for its first event and try until it is written."""
        try:
            batch = [self._queue.get(block=deadline is None)]
        except queue.Empty:
            return
        if deadline is None:
            self._urgent.wait(LINGER_SECONDS)
        while len(batch) < MAX_BATCH:
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        lines = [line for event in batch for line in event]
        pause = 0.1
        while True:
            try:
                self._write(lines, time.monotonic() + FLUSH_SECONDS if deadline is None else deadline)
            except Exception as error:  # noqa: BLE001 - a table that throttles, credentials that expired
                if deadline is not None and time.monotonic() + pause > deadline:
                    self._report(f"{len(batch)} events were not written: {type(error).__name__}: {error}")
                    self.lost += len(batch)
                    break
                # A process that ends cannot wait for the next try's turn.
                if self._urgent.wait(pause):
                    time.sleep(0.1)
                pause = min(pause * 2, 30.0)
            else:
                break
        for _ in batch:
            self._queue.task_done()

    @staticmethod
    def _report(text: str) -> None:
        print(f"agentops_monitoring: {text}", file=sys.stderr)


class WriteThrough:
    """In Lambda: the line goes to stdout, and to the ledger before the call returns, within a bounded time.

    A frozen process runs no background thread, hence through. What fails is tried again with the next
    event, and said once in the log; the line on stdout remains in any case.
    """

    def __init__(self, write: Write, *, seconds: float = THROUGH_SECONDS) -> None:
        self._write = write
        self._seconds = seconds
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._closed_until = 0.0
        self.lost = 0
        """Lines that were given up because too many waited."""

    def write(self, lines: Sequence[str]) -> None:
        """Write the lines of one event, and those that waited."""
        STDOUT.write(lines)
        deadline = time.monotonic() + self._seconds
        if not self._lock.acquire(timeout=self._seconds):
            self.lost += len(lines)
            return
        try:
            self._waiting.extend(lines)
            surplus = len(self._waiting) - MAX_QUEUED
            if surplus > 0:
                del self._waiting[:surplus]
                self.lost += surplus
            # After a failure the agent shall not pay the whole time for each of its next events.
            if time.monotonic() < self._closed_until:
                return
            while self._waiting and time.monotonic() < deadline:
                batch = self._waiting[:MAX_BATCH]
                self._write(batch, deadline)
                del self._waiting[: len(batch)]
        except Exception as error:  # noqa: BLE001 - never into the agent
            self._closed_until = time.monotonic() + _CLOSED_RETRY_SECONDS
            print(
                f"agentops_monitoring: {len(self._waiting)} lines wait to be written: {type(error).__name__}",
                file=sys.stderr,
            )
        finally:
            self._lock.release()


def _ledger_write(settings: Settings) -> Write:
    """Return the way to the ledger; boto3 and the ledger load with the first batch, not with the agent."""
    write: Write | None = None

    def through(lines: Sequence[str], deadline: float) -> None:
        nonlocal write
        if write is None:
            from agentops_monitoring.ledger.direct import line_writer

            write = line_writer(settings)
        write(lines, deadline)

    return through
