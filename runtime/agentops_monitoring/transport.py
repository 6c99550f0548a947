"""Where lines go: to stdout, or directly to the ledger where nobody reads stdout."""

from __future__ import annotations

import os
import sys
from _thread import RLock

from agentops_monitoring import settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol, TextIO
else:
    Protocol = object


def say(text: str) -> None:
    """Tell the operator on stderr what keeps the monitor from its work; never raises."""
    try:
        if sys.stderr is not None:  # print would take stdout, where the lines are
            print(f"agentops_monitoring: {text}", file=sys.stderr)
    except Exception:  # noqa: BLE001, S110 - closed or broken
        pass


class Transport(Protocol):
    """Takes the lines of one event; returns at once and never raises."""

    def write(self, lines: Sequence[str]) -> None:
        """Take the lines of one event, each with its newline."""


class StdoutTransport:
    """Writes each line whole to `sys.stdout`."""

    def __init__(self) -> None:
        self.lost = 0
        """Lines that stdout refused."""
        self._unbuffered: type | None = None
        self.renew()

    def renew(self) -> None:
        """Drop the lock: a fork may have copied it while another thread held it."""
        # Re-entrant, since a signal's handler may record while its own thread writes.
        self._lock = RLock()

    def write(self, lines: Sequence[str]) -> None:
        """Write each line with a single call, and flush: Lambda may freeze or kill the process any time."""
        try:
            stdout = sys.stdout
            lock = self._lock
            lock.acquire()  # `with` takes twice as long
            try:
                for line in lines:
                    stdout.write(line)
                if type(stdout) is not self._unbuffered:
                    self._flush(stdout)
            finally:
                lock.release()
        except Exception:  # noqa: BLE001 - a closed or broken stdout must not reach the agent
            self.lost += len(lines)

    def _flush(self, stdout: TextIO) -> None:
        # Lambda's own stdout flushes what is written; once more would cost as much as the line itself.
        kind = type(stdout)
        if kind.__name__ == "Unbuffered" and kind.__module__ == "awslambdaric.bootstrap":
            self._unbuffered = kind
        else:
            stdout.flush()


STDOUT = StdoutTransport()
os.register_at_fork(after_in_child=STDOUT.renew)

chosen: Transport | None = None
"""Where this process's events go; None until the first. Read it, and change it with `replace`."""
_replaced: Transport | None = None


def choose() -> Transport:
    """Return where this process's events go, as the settings say."""
    global chosen
    configured = settings.load()
    transport: Transport = STDOUT
    if configured.transport == "direct":
        try:
            from agentops_monitoring.direct import direct_transport
        except ModuleNotFoundError:
            say("this bundle can't write to tables, events go to stdout; AGENTOPS_TRANSPORT=stdout says so")
        else:
            transport = direct_transport(configured)
    chosen = transport
    return transport


def replace(transport: Transport | None) -> Transport | None:
    """Send all lines of the process elsewhere, as tests do; None undoes it. Returns what was there."""
    global _replaced, chosen
    before, _replaced = _replaced, transport
    chosen = transport
    return before
