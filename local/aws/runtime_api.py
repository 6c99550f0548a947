"""One Lambda execution environment: a process of AWS's runtime interface client, served a Runtime API.

Nothing runs between invocations: the thread that invokes drives the sockets and the pipe itself, so there
is no reader that could be late. Whatever the function wrote before it posted its response is in the pipe
when the response arrives, and is read to the end before the invocation is over.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

FRAME_MARK = b"\xa5\x5a\x00"  # a piece of a log record, see `bootstrap`: type, length, time, text
FRAME_HEAD, FRAME_MORE = 16, 0x80
LOG_LINE_BYTES = 262_144  # Lambda cuts longer lines (Lambda quotas: log line size)
FRAME_LEVELS = ("", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
TICK = 0.1  # seconds between looks at the process and its memory
INIT_SECONDS = 10.0  # Lambda's limit for the init phase
MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class LogLine:
    """One log event of a function; ``level`` only where the runtime says it (the logging module)."""

    at_ms: int
    text: str
    level: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an invocation, or the init phase, ended.

    Parameters
    ----------
    status
        ``success``, ``error`` (the handler raised), ``timeout`` or ``failure`` (the process ended).
    payload
        The response or the error document, as JSON.
    seconds
        Wall time from handing over the event.
    """

    status: str
    payload: bytes
    seconds: float
    error_type: str = ""
    message: str = ""


class LineSplitter:
    """Turns what a function wrote, text lines and log frames mixed, into log events."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._records: dict[bytes, bytes] = {}  # what has come of each, by its time

    def feed(self, data: bytes) -> list[LogLine]:
        """Return the events that ``data`` completes."""
        self._buffer += data
        at_ms = time.time_ns() // 1_000_000
        lines: list[LogLine] = []
        start = 0
        buffer = self._buffer
        while True:
            mark = buffer.find(FRAME_MARK, start)
            end = buffer.find(b"\n", start) if mark < 0 else buffer.find(b"\n", start, mark)
            if end >= 0:
                lines.extend(_text_lines(at_ms, bytes(buffer[start : end + 1])))
                start = end + 1
                continue
            if mark < 0 or len(buffer) < mark + FRAME_HEAD:
                break
            size = int.from_bytes(buffer[mark + 4 : mark + 8], "big")
            if len(buffer) < mark + FRAME_HEAD + size:
                break
            kind, record = buffer[mark + 3], bytes(buffer[mark + 8 : mark + FRAME_HEAD])
            text = self._records.pop(record, b"") + buffer[mark + FRAME_HEAD : mark + FRAME_HEAD + size]
            if kind & FRAME_MORE:
                self._records[record] = text
            else:
                level = FRAME_LEVELS[min(kind >> 2, len(FRAME_LEVELS) - 1)]
                lines.append(LogLine(at_ms, text.decode("utf-8", "replace"), level))
            # A line that another thread had begun stays whole around the frame.
            del buffer[mark : mark + FRAME_HEAD + size]
        del buffer[:start]
        return lines

    def flush(self) -> list[LogLine]:
        """Return the last line if it has no end."""
        rest, self._buffer = bytes(self._buffer), bytearray()
        return _text_lines(time.time_ns() // 1_000_000, rest) if rest else []


def _text_lines(at_ms: int, raw: bytes) -> list[LogLine]:
    pieces = [raw[i : i + LOG_LINE_BYTES] for i in range(0, len(raw), LOG_LINE_BYTES)]
    return [LogLine(at_ms, piece.decode("utf-8", "replace")) for piece in pieces if piece.strip()]


@dataclass(slots=True)
class _Request:
    method: str
    path: str
    body: bytes


@dataclass(slots=True)
class _Connection:
    sock: socket.socket
    received: bytearray = field(default_factory=bytearray)

    def request(self) -> _Request | None:
        head_end = self.received.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        head = self.received[:head_end].decode("latin-1")
        found = re.search(r"(?im)^content-length:\s*(\d+)", head)
        end = head_end + 4 + (int(found[1]) if found else 0)
        if len(self.received) < end:
            return None
        method, path, _ = head.split(" ", 2)
        body = bytes(self.received[head_end + 4 : end])
        del self.received[:end]
        return _Request(method, path, body)

    def answer(self, status: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        self.sock.setblocking(True)
        # One write: a response in two packets waits 40 ms for a delayed ACK.
        self.sock.sendall("\r\n".join(lines).encode() + body)
        self.sock.setblocking(False)


class Environment:
    """A process that runs one invocation at a time, as on AWS.

    Parameters
    ----------
    command
        The runtime interface client with the handler.
    variables
        The whole environment of the process; nothing of ours leaks in.
    folder
        The unpacked code: the working directory.
    memory_mb
        The function's memory; a process that holds more is killed. What it starts is not counted.
    log_stream
        The stream that this environment writes, for its whole life.
    """

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        folder: Path,
        memory_mb: int,
        log_stream: str,
    ) -> None:
        self.log_stream = log_stream
        self.function = variables["AWS_LAMBDA_FUNCTION_NAME"]
        self.access_key = variables["AWS_ACCESS_KEY_ID"]
        self.idle_since = time.monotonic()
        self.revision = ""
        self._memory = memory_mb * MEGABYTE
        self._peak = 0
        self._splitter = LineSplitter()
        self._lines: list[LogLine] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4)
        self._listener.setblocking(False)
        self._output, write_end = os.pipe()
        os.set_blocking(self._output, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._output, selectors.EVENT_READ)
        self._parked: _Connection | None = None
        self._reply: _Request | None = None
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
            pass_fds=(write_end,),
            cwd=folder,
            start_new_session=True,  # a group of its own: killed whole, with whatever it started
            env={
                **variables,
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._listener.getsockname()[1]}",
                "_LAMBDA_TELEMETRY_LOG_FD": str(write_end),
            },
        )
        os.close(write_end)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def take_lines(self) -> list[LogLine]:
        """Return the log events since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def initialise(self, seconds: float = INIT_SECONDS) -> Outcome:
        """Wait until the function's module is imported and asks for its first event."""
        outcome = self._until(time.monotonic(), seconds, init=True)
        if outcome.status == "success":
            return outcome
        self._end_by_kill()
        return replace(outcome, status="failure") if outcome.status == "error" else outcome

    def invoke(
        self, request_id: str, arn: str, event: bytes, seconds: float, kill_after: float = math.inf
    ) -> Outcome:
        """Hand over one event, and wait for the answer, the deadline or the end of the process.

        ``kill_after`` so many seconds the process is ended: a fault to order.
        """
        started = time.monotonic()
        while self._parked is None:
            if not self.alive or time.monotonic() - started > INIT_SECONDS:
                return self._ended(started)
            self._step(TICK)
        self._reply = None
        connection, self._parked = self._parked, None
        trace = os.urandom(12).hex()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + seconds) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": arn,
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{trace};Parent={trace[:16]};Sampled=0",
        }
        started = time.monotonic()
        try:
            connection.answer("200 OK", headers, event)
        except OSError:
            return self._ended(started)
        return self._until(started, seconds, init=False, kill_after=kill_after)

    def kill(self) -> None:
        """End the process and everything it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Kill, and give back the sockets and the pipe; what was written is in `take_lines`."""
        self.kill()
        self._drain()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, _Connection):
                key.data.sock.close()
        self._selector.close()
        self._listener.close()
        os.close(self._output)

    def peak_memory_mb(self) -> int:
        """Return the largest resident size so far, at most the function's memory."""
        return -(-min(self._peak, self._memory) // MEGABYTE)

    def _until(self, started: float, limit: float, *, init: bool, kill_after: float = math.inf) -> Outcome:
        while True:
            left = started + min(limit, kill_after) - time.monotonic()
            self._step(min(max(left, 0), TICK))
            seconds = time.monotonic() - started
            self._peak = max(self._peak, _memory(self._process.pid))
            if self._peak > self._memory:  # also when it has answered since: it would not have got so far
                self._end_by_kill()
                text = "Runtime exited with error: signal: killed"
                return Outcome("failure", b"", seconds, "Runtime.OutOfMemory", text)
            if self._reply is not None:
                self._drain()
                return _replied(self._reply, seconds)
            if init and self._parked is not None:
                return Outcome("success", b"", seconds)
            if seconds >= kill_after:
                self.kill()
            if not self.alive:
                return self._ended(started)
            if left <= 0:
                self._end_by_kill()
                text = f"Task timed out after {limit:.2f} seconds"
                return Outcome("timeout", b"", limit, "Sandbox.Timedout", text)

    def _ended(self, started: float) -> Outcome:
        self._end_by_kill()
        code = self._process.returncode
        how = f"exit status {code}" if code >= 0 else f"signal: {str(signal.strsignal(-code)).lower()}"
        text = f"Runtime exited with error: {how}" if code else "Runtime exited without providing a reason"
        return Outcome("failure", b"", time.monotonic() - started, "Runtime.ExitError", text)

    def _end_by_kill(self) -> None:
        self.kill()
        self._drain()

    def _step(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._listener:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(sock, selectors.EVENT_READ, _Connection(sock))
            elif key.fd == self._output:
                if self._read() == 0:
                    self._selector.unregister(self._output)
                    self._await_exit()
            else:
                self._receive(key.data)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(MEGABYTE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(connection.sock)
            connection.sock.close()
            self._await_exit()
            return
        connection.received += data
        while (request := connection.request()) is not None:
            if request.method == "GET":
                self._parked = connection
            else:
                self._reply = request
                with contextlib.suppress(OSError):  # it may be gone already: an init error ends the process
                    connection.answer("202 Accepted", {}, b'{"status":"OK"}')

    def _await_exit(self) -> None:
        """A closed pipe or connection is mostly the process's end: spare the wait for the next tick."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.02)

    def _read(self) -> int:
        """Read what the pipe holds; return its length, 0 at the end and -1 when there is nothing."""
        try:
            data = os.read(self._output, MEGABYTE)
        except OSError:
            return -1
        self._lines += self._splitter.feed(data)
        return len(data)

    def _drain(self) -> None:
        while self._read() > 0:
            pass
        self._lines += self._splitter.flush()


def _replied(reply: _Request, seconds: float) -> Outcome:
    if reply.path.endswith("/response"):
        return Outcome("success", reply.body, seconds)
    found = re.search(r'"errorType":\s*"((?:[^"\\]|\\.)*)"', reply.body.decode("utf-8", "replace"))
    return Outcome("error", reply.body, seconds, found[1] if found else "Unhandled")


def _memory(pid: int) -> int:
    """Return the most bytes that a process has held; 0 without /proc (macOS): no limit is held there."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0
