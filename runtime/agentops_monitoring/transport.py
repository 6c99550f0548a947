"""Where lines go: to stdout, or directly to the ledger where nobody reads stdout."""

from __future__ import annotations

import io
import sys
from _thread import RLock, get_ident

from agentops_monitoring import settings
from agentops_monitoring.forks import at_fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol
else:
    Protocol = object

_MAX_HOLD_SECONDS = 1.0
"""How long a fork waits for a stdout that takes nothing."""


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
        self._stdout: object = None
        self._text: io.TextIOWrapper | None = None
        self._buffer: io.BufferedWriter | None = None
        self.renew()

    def renew(self) -> None:
        """Start with a free lock, as a forked child must: another thread of its parent may hold its copy."""
        # Re-entrant, since a signal's handler may record while its own thread writes.
        self._lock = RLock()
        self._forking = 0
        self._late: list[str] = []

    def write(self, lines: Sequence[str]) -> None:
        """Write each line with a single call, and flush: Lambda may freeze or kill the process any time."""
        try:
            stdout = sys.stdout
            lock = self._lock
            lock.acquire()  # `with` takes twice as long
            try:
                if stdout is not self._stdout:
                    self._look_behind(stdout)
                buffer = self._buffer
                if buffer is None:
                    for line in lines:
                        stdout.write(line)
                    stdout.flush()
                else:
                    if self._text is not None:
                        self._text.flush()
                    for line in lines:
                        buffer.write(line.encode())
                    buffer.flush()
            except RuntimeError as error:
                self._put_off(lines, error)
            finally:
                lock.release()
                if self._late:
                    self._catch_up()
        except Exception:  # noqa: BLE001 - a closed or broken stdout must not reach the agent
            self.lost += len(lines)

    def _put_off(self, lines: Sequence[str], error: RuntimeError) -> None:
        # A signal's handler records in the midst of its own thread's write, which can't be entered twice.
        if "reentrant" not in str(error):
            raise error
        if not self._late:
            from atexit import register, unregister

            unregister(self._catch_up)
            register(self._catch_up)
        self._late += lines

    def _catch_up(self) -> None:
        """Write what was put off, unless this is still in the midst of that write."""
        with self._lock:
            late, self._late = self._late, []
            try:
                buffer = self._buffer or sys.stdout.buffer
                for line in late:
                    buffer.write(line.encode())
                buffer.flush()
            except RuntimeError:
                self._late = late + self._late
            except Exception:  # noqa: BLE001 - as in `write`
                self.lost += len(late)

    def _look_behind(self, stdout: Any) -> None:
        """Find the buffer of a stdout that is of Python's own kind.

        A text stream is no place to meet other threads: what they print while it flushes can take the place
        of what waits in it (https://github.com/python/cpython/issues/119506, in 3.11 until 2024). The buffer
        behind it has a lock, and takes a line in less time.
        """
        kind = type(stdout)
        in_lambda = (kind.__module__, kind.__name__) == ("awslambdaric.bootstrap", "Unbuffered")
        text = stdout.stream if in_lambda else stdout
        self._text = self._buffer = None
        if (
            type(text) is io.TextIOWrapper
            and type(text.buffer) is io.BufferedWriter
            and "write" not in vars(text)  # somebody listens to what is written
            and "{".encode(text.encoding) == b"{"
        ):
            self._buffer = text.buffer
            # In Lambda whatever was printed is flushed already; elsewhere it comes before the line.
            self._text = None if in_lambda else text
        self._stdout = stdout

    def hold(self) -> None:
        """Keep threads from writing while the process forks: in the child their locks would stay taken."""
        if self._lock.acquire(timeout=_MAX_HOLD_SECONDS):
            self._forking = get_ident()

    def release(self) -> None:
        """Let threads write again."""
        if self._forking == get_ident():
            self._forking = 0
            self._lock.release()


STDOUT = StdoutTransport()
at_fork(before=STDOUT.hold, after_in_parent=STDOUT.release, after_in_child=STDOUT.renew)

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

            transport = direct_transport(configured)
        except ModuleNotFoundError:
            say("this bundle can't write to tables, events go to stdout; AGENTOPS_TRANSPORT=stdout says so")
        except Exception as error:  # noqa: BLE001 - an event on stdout is better than none
            say(f"tables can't be written here, events go to stdout: {type(error).__name__}: {error}")
    chosen = transport
    return transport


def replace(transport: Transport | None) -> Transport | None:
    """Send all lines of the process elsewhere, as tests do; None undoes it. Returns what was there."""
    global _replaced, chosen
    before, _replaced = _replaced, transport
    chosen = transport
    return before
