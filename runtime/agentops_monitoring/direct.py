"""Lines straight to the ledger, where nobody reads stdout: containers, laptops, bare Lambda functions."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

from agentops_monitoring.settings import Settings
from agentops_monitoring.transport import STDOUT, Transport, say

MAX_QUEUED = 10_000
"""Events that wait at most."""
MAX_BATCH = 500
"""Events that are written together at most."""
LINGER_SECONDS = 0.2
"""How long the worker waits for more events to go in the same batch."""
ATTEMPT_SECONDS = 5.0
EXIT_SECONDS = 5.0
"""How long the process waits at its end for what is still queued."""
THROUGH_SECONDS = 2.0
"""How long an event in a Lambda function waits to be written."""
AFTER_FAILURE_SECONDS = 10.0
"""How long events do not wait after one waited in vain."""
_MAX_PAUSE_SECONDS = 30.0

Write = Callable[[Sequence[str], float], None]
"""Writes lines to the ledger by a deadline of the monotonic clock; raises when it could not. Idempotent."""


def direct_transport(settings: Settings) -> Transport:
    """Return the transport of a process whose settings say "direct"."""
    worker = BackgroundWriter(_ledger_write(settings))
    os.register_at_fork(after_in_child=worker.renew)
    atexit.register(worker.close, EXIT_SECONDS)
    if settings.in_lambda:
        return WriteThrough(worker)
    _close_with_children(worker)
    return worker


def _close_with_children(worker: BackgroundWriter) -> None:
    # Children of multiprocessing end without the handlers of atexit, and run only multiprocessing's own.
    from multiprocessing import util

    def close_here(worker: BackgroundWriter) -> None:
        util.Finalize(None, worker.close, (EXIT_SECONDS,), exitpriority=0)

    close_here(worker)
    util.register_after_fork(worker, close_here)


class BackgroundWriter:
    """Queues events and writes them in batches from a thread of its own.

    A full queue drops the newest event and counts it: an agent must not wait for a table. What cannot be
    written is tried again, with growing pauses, until the process ends.

    Parameters
    ----------
    write
        The way to the ledger.
    max_queued
        Events that wait at most.
    """

    def __init__(self, write: Write, *, max_queued: int = MAX_QUEUED) -> None:
        self._write = write
        self._max_queued = max_queued
        self.lost = 0
        """Events dropped since the queue was full, or the process ended."""
        self.renew()

    def renew(self) -> None:
        """Start over with an empty queue, as a forked child must: the parent writes what it had queued."""
        self._queue: queue.Queue[Sequence[str]] = queue.Queue(self._max_queued)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._awaited = threading.Event()
        self._waits = 0
        self._exit_seconds = 0.0

    def write(self, lines: Sequence[str]) -> None:
        """Queue the lines of one event."""
        try:
            self._queue.put_nowait(lines)
        except queue.Full:
            self.lost += 1
            if self.lost == 1:
                say("the queue is full, events are dropped")
            return
        if self._thread is None:
            self._start()
        # No later end will wait for what an exit handler records.
        if self._exit_seconds:
            self.close(self._exit_seconds)

    def wait(self, seconds: float) -> bool:
        """Wait for all that is queued to be written; returns whether it is."""
        waiting = self._queue
        with waiting.all_tasks_done:
            self._waits += 1
            self._awaited.set()
            try:
                return waiting.all_tasks_done.wait_for(lambda: not waiting.unfinished_tasks, seconds)
            finally:
                self._waits -= 1
                if not self._waits:
                    self._awaited.clear()

    def close(self, seconds: float) -> None:
        """Write what is queued at the process's end, and say what could not be written in that time.

        From then on each event is waited for, until one waits in vain.
        """
        self._exit_seconds = seconds
        if not self.wait(seconds):
            self._exit_seconds = 0.0
            self.lost += self._queue.unfinished_tasks
            say(f"{self._queue.unfinished_tasks} events were not written within {seconds:g} s")

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="agentops-writer", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads, as while the interpreter ends
                    return
                self._thread = thread

    def _run(self) -> None:
        waiting = self._queue
        while True:
            batch = [waiting.get()]
            self._awaited.wait(LINGER_SECONDS)
            while len(batch) < MAX_BATCH and not waiting.empty():
                batch.append(waiting.get())
            self._write_out([line for lines in batch for line in lines])
            for _ in batch:
                waiting.task_done()

    def _write_out(self, lines: Sequence[str]) -> None:
        pause = 0.1
        while True:
            try:
                self._write(lines, time.monotonic() + ATTEMPT_SECONDS)
            except Exception as error:  # noqa: BLE001 - a table that throttles, credentials that expired
                if pause == 0.1:
                    say(f"events wait to be written: {type(error).__name__}: {error}")
                if self._awaited.wait(pause):
                    time.sleep(0.1)
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)
            else:
                return


class WriteThrough:
    """In Lambda: the line goes to stdout, and to the ledger before the call returns, within a bounded time.

    A frozen process runs no thread, hence the wait. What was not written in time is tried again with the next
    event, and the line on stdout remains in any case.

    Parameters
    ----------
    worker
        Writes to the ledger.
    seconds
        How long an event waits.
    """

    def __init__(self, worker: BackgroundWriter, *, seconds: float = THROUGH_SECONDS) -> None:
        self._worker = worker
        self._seconds = seconds
        self._patient_from = 0.0

    def write(self, lines: Sequence[str]) -> None:
        """Print and queue the lines of one event, and wait for them."""
        STDOUT.write(lines)
        self._worker.write(lines)
        # A table that is out of reach shall not cost the agent the whole time for each of its events.
        if time.monotonic() >= self._patient_from and not self._worker.wait(self._seconds):
            self._patient_from = time.monotonic() + AFTER_FAILURE_SECONDS


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
