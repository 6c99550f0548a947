"""Lines straight to the ledger, where nobody reads stdout: containers, laptops, bare Lambda functions."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from agentops_monitoring.forks import at_fork
from agentops_monitoring.outbox import Outbox
from agentops_monitoring.settings import Settings
from agentops_monitoring.spill import SpillFolder
from agentops_monitoring.transport import STDOUT, Transport, say

if TYPE_CHECKING:
    from types import FrameType

LINGER_SECONDS = 0.2
"""How long the worker waits for more events to go in the same batch."""
ATTEMPT_SECONDS = 10.0
BUDGET_SECONDS = 60.0
"""How long what cannot be written is tried in a row, before it is left to `agentops-monitoring replay`."""
AGAIN_SECONDS = 300.0
"""How long until the worker looks at that itself."""
FORK_SECONDS = 10.0
"""How long a fork waits at most for the worker to have loaded what it needs, once in a process."""
EXIT_SECONDS = 5.0
"""How long the process waits at its end for what is still queued."""
THROUGH_SECONDS = 2.0
"""How long an event in a Lambda function waits to be written."""
INVOCATION_SECONDS = 5.0
"""How long all events of one invocation wait together."""
AFTER_FAILURE_SECONDS = 10.0
"""How long events do not wait after they waited in vain, or for too long."""
_MAX_PAUSE_SECONDS = 30.0
_AWAITED_PAUSE_SECONDS = 0.2

Write = Callable[[Sequence[str], float], Sequence[str]]
"""Writes lines to the ledger by a deadline of the monotonic clock; returns those that no ledger takes.

Raises when it could not. Idempotent.
"""


class Hopeless(Exception):
    """The ledger cannot be written until somebody changes something: a permission, a table, a region."""


def direct_transport(settings: Settings) -> Transport:
    """Return the transport of a process whose settings say "direct"; the same one for the same tables."""
    key = settings.monitoring_table, settings.decisions_table, settings.ledger_table, settings.in_lambda
    # Threads that record their first events at once shall share a worker.
    with _making:
        if key not in _made:
            _made[key] = _new_transport(settings)
        return _made[key]


_made: dict[tuple[str, str, str, bool], Transport] = {}
_making = threading.RLock()


def _renew_lock() -> None:
    # A fork may have copied it while another thread held it.
    global _making
    _making = threading.RLock()


at_fork(after_in_child=_renew_lock)


def _new_transport(settings: Settings) -> Transport:
    # In Lambda the lines are on stdout in any case.
    folder = None if settings.in_lambda else SpillFolder.from_environment(settings.monitoring_table)
    worker = BackgroundWriter(lambda: _connect(settings), lambda: Outbox(folder))
    at_fork(after_in_child=worker.renew)
    atexit.register(worker.close, EXIT_SECONDS)
    if settings.in_lambda:
        return WriteThrough(worker)
    _close_with_children(worker)
    _close_on_sigterm(worker)
    return worker


def _connect(settings: Settings) -> Write:
    # botocore and the ledger load with the first batch, in the worker's thread.
    with _loading:
        from agentops_monitoring.ledger.direct import line_writer
    # Outside: it looks for credentials, which can take a server or a program that no fork shall wait for.
    return line_writer(settings)


_loading = threading.RLock()
_forking = 0


def _hold_fork() -> None:
    # In the child a module that was just being imported would stay locked, for the agent's own imports too.
    global _forking
    if _loading.acquire(timeout=FORK_SECONDS):
        _forking = threading.get_ident()


def _release_fork() -> None:
    global _forking
    if _forking == threading.get_ident():
        _forking = 0
        _loading.release()


def _renew_loading() -> None:
    global _loading, _forking
    _loading, _forking = threading.RLock(), 0


at_fork(before=_hold_fork, after_in_parent=_release_fork, after_in_child=_renew_loading)


def _close_with_children(worker: BackgroundWriter) -> None:
    """Have children of multiprocessing write what they queued: they end without the handlers of atexit."""
    attended = False

    def close_here(worker: BackgroundWriter) -> None:
        sys.modules["multiprocessing.util"].Finalize(None, worker.close, (EXIT_SECONDS,), exitpriority=0)

    def attend() -> None:
        nonlocal attended
        util = sys.modules.get("multiprocessing.util")
        # Only where somebody uses it; another thread may be importing it right now.
        if util and not attended and hasattr(util, "register_after_fork") and hasattr(util, "Finalize"):
            attended = True
            close_here(worker)
            util.register_after_fork(worker, close_here)

    attend()
    at_fork(before=attend)


def _close_on_sigterm(worker: BackgroundWriter) -> None:
    """Write what is queued when SIGTERM ends the process."""
    import signal

    before = signal.getsignal(signal.SIGTERM)

    def end(number: int, _frame: object) -> None:
        worker.close(EXIT_SECONDS)
        # Where the agent set a handler since, and that calls the one before, the end is not ours to bring.
        if signal.getsignal(number) is end:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            # Still here: a container's first process, which no signal ends by default.
            worker.go_on()
            signal.signal(number, end)

    def pass_on(number: int, frame: FrameType | None) -> None:
        # The agent's own handler decides on the end, and must not wait for us.
        worker.hurry()
        assert callable(before)
        before(number, frame)

    with suppress(ValueError):  # not the main thread
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, end)
        elif callable(before):
            signal.signal(signal.SIGTERM, pass_on)


class BackgroundWriter:
    """Writes events in batches from a thread of its own, while they are safe in an outbox.

    An agent never waits for a table. What the ledger does not take is tried again with growing pauses; after
    `BUDGET_SECONDS` the outbox's files are left for `agentops-monitoring replay`, and looked at again every
    `AGAIN_SECONDS`.

    Parameters
    ----------
    connect
        Returns the way to the ledger; called by the thread, and again after a fork.
    new_outbox
        Returns an empty outbox; called again after a fork.
    """

    def __init__(self, connect: Callable[[], Write], new_outbox: Callable[[], Outbox] = Outbox) -> None:
        self._connect = connect
        self._new_outbox = new_outbox
        self.renew()

    def renew(self) -> None:
        """Start over with nothing queued, as a forked child must: the parent writes what it had queued."""
        self._outbox = self._new_outbox()
        # A connection is not for two processes either.
        self._write: Write | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._woken = False
        self._waiting: list[SimpleQueue[bool]] = []
        self._hurried = False
        self._failures = 0
        self._failing_since = 0.0
        self._exit_seconds = 0.0

    @property
    def lost(self) -> int:
        """Events that found no room."""
        return self._outbox.lost

    def write(self, lines: Sequence[str]) -> None:
        """Queue the lines of one event."""
        self._outbox.put(lines)
        if not self._woken:
            self._woken = True
            self._wake.put(None)
        if self._thread is None:
            self._start()
        # No later end will wait for what an exit handler records.
        if self._exit_seconds:
            self.close(self._exit_seconds)

    def wait(self, seconds: float) -> bool:
        """Wait for all that is queued to be written; returns whether it is."""
        if not self._outbox:
            return True
        # Neither here nor in `write` is a lock that a signal's handler could find taken by its own thread.
        answer: SimpleQueue[bool] = SimpleQueue()
        self._waiting.append(answer)
        self._wake.put(None)
        try:
            if self._thread is None and not self._start():
                self._round()  # no more threads, as while the interpreter ends
            return answer.get(timeout=seconds)
        except Empty:
            return False
        finally:
            self._waiting.remove(answer)

    def hurry(self) -> None:
        """Write at once from now on, for the process may end soon."""
        self._hurried = True
        self._wake.put(None)

    def close(self, seconds: float) -> None:
        """Write what is queued at the process's end, and say what could not be written in that time.

        From then on each event is waited for, until one waits in vain.
        """
        self._exit_seconds = seconds
        written = self.wait(seconds)
        if not written:
            self._exit_seconds = 0.0
        rest = self._outbox.close(written=written)
        if rest:
            say(f"not all events were written before the end: {rest}")

    def go_on(self) -> None:
        """Let events wait for nothing again, since the process did not end after all."""
        self._exit_seconds = 0.0

    def _start(self) -> bool:
        # Not blocking: a handler may have interrupted the very start.
        if self._starting.acquire(blocking=False):
            try:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="agentops-writer", daemon=True)
                    thread.start()
                    self._thread = thread
            except RuntimeError:
                return False
            finally:
                self._starting.release()
        return True

    def _run(self) -> None:
        pause = 0.0
        while True:
            self._rest(pause)
            pause = self._round()

    def _rest(self, pause: float) -> None:
        lingers = not pause
        if lingers:
            self._wake.get()
            pause = LINGER_SECONDS
        until = time.monotonic() + pause
        while not self._waiting and not (lingers and self._hurried):
            left = until - time.monotonic()
            if left <= 0:
                break
            with suppress(Empty):
                self._wake.get(timeout=left)
        if self._failures and self._waiting:
            time.sleep(min(pause, _AWAITED_PAUSE_SECONDS))

    def _round(self) -> float:
        """Write all that there is; returns for how long to pause, or 0 to wait for more."""
        self._woken = False
        waiting = self._waiting[:]
        try:
            if self._write is None:
                self._write = self._connect()
            with closing(self._outbox.batches()) as batches:
                for lines in batches:
                    refused = self._write(lines, time.monotonic() + ATTEMPT_SECONDS)
                    if refused:
                        self._outbox.refuse(refused)
        except Exception as error:  # noqa: BLE001 - a table that throttles, credentials that expired
            pause, given_up = self._failed(error)
            if given_up:
                for answer in waiting:
                    answer.put(False)
            return pause
        self._failures = 0
        self._outbox.tidy()
        for answer in waiting:
            answer.put(True)
        return 0.0

    def _failed(self, error: Exception) -> tuple[float, bool]:
        """Return for how long to pause, and whether the files are left to others."""
        now = time.monotonic()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        hopeless = isinstance(error, Hopeless)
        reason = str(error) if hopeless else f"{type(error).__name__}: {error}"
        if not hopeless and now - self._failing_since < BUDGET_SECONDS:
            self._outbox.say_once("waits", f"events wait to be written: {reason}")
            # By chance, so that processes that failed together do not come back together.
            return max(0.05, _chance() * min(_MAX_PAUSE_SECONDS, 0.1 * 2**self._failures)), False
        whereabouts = self._outbox.leave()
        self._outbox.say_once("left", f"events are not written: {reason}; {whereabouts}")
        return AGAIN_SECONDS * (0.5 + _chance()), True


def _chance() -> float:
    # The module `random` would load here, in a thread, while the process may fork.
    return int.from_bytes(os.urandom(4)) / 2**32


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
    invocation_seconds
        How long all events of an invocation wait together.
    """

    def __init__(
        self,
        worker: BackgroundWriter,
        *,
        seconds: float = THROUGH_SECONDS,
        invocation_seconds: float = INVOCATION_SECONDS,
    ) -> None:
        self._worker = worker
        self._seconds = seconds
        self._invocation_seconds = invocation_seconds
        self._invocation = ""
        self._waited = 0.0
        self._patient_from = 0.0

    def write(self, lines: Sequence[str]) -> None:
        """Print and queue the lines of one event, and wait for them."""
        STDOUT.write(lines)
        self._worker.write(lines)
        began = time.monotonic()
        if began < self._patient_from:
            return
        # The runtime client sets it anew for each invocation.
        invocation = os.environ.get("_X_AMZN_TRACE_ID", "")
        if invocation != self._invocation:
            self._invocation, self._waited = invocation, 0.0
        # A table that is slow or out of reach shall not cost the agent that time for each of its events.
        left = self._invocation_seconds - self._waited
        written = left > 0 and self._worker.wait(min(self._seconds, left))
        now = time.monotonic()
        self._waited += now - began
        if not written:
            self._patient_from = now + AFTER_FAILURE_SECONDS
            if not invocation:
                self._waited = 0.0
