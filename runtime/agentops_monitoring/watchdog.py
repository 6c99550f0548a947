"""Warns of invocations that near their time limit, from one thread a process.

An invocation costs a lock and a comparison. The thread sleeps until the earliest deadline that it knows of,
which in a busy process is that of an invocation long over: then it looks at those that run, and sleeps on.
"""

from __future__ import annotations

import os
import threading
import time

from agentops_monitoring.event_types import TIME_RUNNING_OUT
from agentops_monitoring.forks import at_fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from agentops_monitoring.invocation import Invocation

MIN_WARNING_MS = 1_000
"""The least time that a warning leaves, but never more than half of the limit."""
WARNING_SHARE = 0.1
"""Of the limit: what is left when the warning comes."""


def limit_of(remaining_ms: int) -> int:
    """Return a function's limit in milliseconds from what is left at its start: limits are whole seconds."""
    return -(-remaining_ms // 1_000) * 1_000


def warning_ms(limit_ms: int) -> int:
    """Return how many milliseconds before its limit an invocation is warned of; 0 for never.

    `AGENTOPS_TIME_WARNING_MS` says it where it is set, 0 included.
    """
    configured = os.environ.get("AGENTOPS_TIME_WARNING_MS", "").strip()
    if configured.isdecimal():
        return int(configured)
    return min(max(MIN_WARNING_MS, int(limit_ms * WARNING_SHARE)), limit_ms // 2)


class _Deadline:
    __slots__ = ("at", "limit_ms", "remaining_ms", "warning_ms")

    def __init__(self, at: float, limit_ms: int, warning_ms: int, remaining_ms: Callable[[], int]) -> None:
        self.at = at
        """On the monotonic clock, in seconds."""
        self.limit_ms = limit_ms
        self.warning_ms = warning_ms
        self.remaining_ms = remaining_ms


class Watchdog:
    """Watches the invocations of a process; its thread starts with the first."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget everything: after a fork the thread and the invocations are the parent's."""
        self._changed = threading.Condition()
        self._deadlines: dict[Invocation, _Deadline] = {}
        self._wakes: float | None = None
        """When the thread looks next; None while it sleeps for good."""
        self._thread: threading.Thread | None = None

    def watch(self, invocation: Invocation) -> None:
        """Warn of an invocation, if its Lambda context tells how much time it has."""
        remaining = getattr(invocation.lambda_context, "get_remaining_time_in_millis", None)
        if not callable(remaining):
            return
        left = remaining()
        limit = limit_of(left)
        warning = warning_ms(limit)
        if not 0 < warning < left:
            return
        deadline = _Deadline(time.monotonic() + (left - warning) / 1_000, limit, warning, remaining)
        with self._changed:
            self._deadlines[invocation] = deadline
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="agentops-watchdog", daemon=True)
                thread.start()
                self._thread = thread
            elif self._wakes is None or deadline.at < self._wakes:
                self._changed.notify()

    def release(self, invocation: Invocation) -> None:
        """Forget an invocation that has ended."""
        with self._changed:
            self._deadlines.pop(invocation, None)

    def _run(self) -> None:
        while True:
            for invocation, deadline in self._wait():
                self._warn(invocation, deadline)

    def _wait(self) -> list[tuple[Invocation, _Deadline]]:
        """Sleep until deadlines are due, and take them out."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = [each for each in self._deadlines.items() if each[1].at <= now]
                if due:
                    for invocation, _ in due:
                        del self._deadlines[invocation]
                    self._wakes = now
                    return due
                self._wakes = min((each.at for each in self._deadlines.values()), default=None)
                self._changed.wait(None if self._wakes is None else self._wakes - now)

    def _warn(self, invocation: Invocation, deadline: _Deadline) -> None:
        try:
            # Lambda's own clock decides: ours may have jumped while the process was frozen.
            left = deadline.remaining_ms()
            late = (left - deadline.warning_ms) / 1_000
            if late > 0.1:
                deadline.at = time.monotonic() + late
                with self._changed:
                    if not invocation.ended:
                        self._deadlines[invocation] = deadline
                return
            if invocation.ended:
                return
            invocation.record(
                TIME_RUNNING_OUT,
                {
                    "remaining_ms": left,
                    "duration_ms": invocation.duration_ms(),
                    "limit_ms": deadline.limit_ms,
                },
            )
        except Exception:  # noqa: BLE001, S110 - a context that raises; the next invocation is watched all the same
            pass


WATCHDOG = Watchdog()
at_fork(after_in_child=WATCHDOG.renew)
