"""Child processes of the demo: started together, ended together, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_SECONDS = 5.0


class StartError(Exception):
    """A service did not come up; the message is one line that says why and what to do."""


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int) -> int:
    """Return ``port`` if nothing listens there on loopback.

    Raises
    ------
    StartError
        When the port is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StartError(
                f"port {port} is in use on 127.0.0.1: choose another with PORT=…, or none"
            ) from error
    return port


class Services:
    """Child processes, each in a process group of its own, stopped in reverse order of their start."""

    def __init__(self, log_folder: Path) -> None:
        self._logs = log_folder
        self._running: list[tuple[str, subprocess.Popen[str]]] = []
        log_folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str], *, ready: str, seconds: float = 30.0) -> str:
        """Start a process and wait for its ready line.

        Parameters
        ----------
        name
            For messages, and the log's file name.
        command
            The program and its arguments.
        ready
            What the line that says it is up contains; the line's last word is returned (a URL).
        seconds
            How long to wait for that line.

        Raises
        ------
        StartError
            When it ends, or says nothing, before the line comes.
        """
        log = self._logs / f"{name}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env={**os.environ},
            )
        self._running.append((name, process))
        line = _first_line(process, ready, seconds)
        if line is None:
            said = [text for text in log.read_text().splitlines() if text.strip()]
            reason = said[-1] if said else f"no sign of life within {seconds:.0f} s"
            raise StartError(f"{name} did not start: {reason} (log: {log})")
        return line.split()[-1]

    def stop(self) -> None:
        """End every process that was started, politely and then for good."""
        while self._running:
            _, process = self._running.pop()
            _signal_group(process, signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)
                process.wait()
            if process.stdout:
                process.stdout.close()


def _first_line(process: subprocess.Popen[str], ready: str, seconds: float) -> str | None:
    found: list[str] = []
    came = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:  # goes on to the end, so that the pipe never fills
            if not came.is_set() and ready in line:
                found.append(line)
                came.set()
        came.set()

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + seconds
    while not came.wait(0.05) and time.monotonic() < deadline:
        pass
    return found[0] if found else None


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
