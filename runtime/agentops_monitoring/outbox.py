"""What waits to be written to the ledger: in files, and in memory where no file can be written."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from itertools import islice

from agentops_monitoring.spill import SpillFile, SpillFolder
from agentops_monitoring.transport import say

MAX_QUEUED, MAX_QUEUED_BYTES = 10_000, 32_000_000
"""Events, and bytes of them, that wait in memory at most."""
MAX_BATCH = 500
"""Lines that are written together at most."""
SLOW_SECONDS = 1.0
"""How long a write to a file may take before the next events wait in memory for a while."""
_NO_FILE_SECONDS = 5.0
_LOCK_SECONDS = 0.05


class Outbox:
    """Takes events from any thread and signal handler; one other thread, the worker, writes them out.

    Where no file can be written, events wait in memory, and when that is full the newest are lost: said and
    counted.

    Parameters
    ----------
    folder
        Where the files go; None for memory only.
    max_queued, max_queued_bytes
        Events and their bytes that wait in memory at most.
    """

    def __init__(
        self,
        folder: SpillFolder | None = None,
        *,
        max_queued: int = MAX_QUEUED,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
    ) -> None:
        self._folder = folder
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self.lost = 0
        """Events that found no room."""
        # Re-entrant, for a signal's handler may record while its own thread writes.
        self._lock = threading.RLock()
        self._files: deque[SpillFile] = deque()
        """Those of this process; the last takes lines while it has room."""
        self._left: list[str] = []
        """Those that others may take."""
        self._refused: SpillFile | None = None
        self._memory: deque[bytes] = deque()
        # Each is changed on one side only: what came in, and what went out.
        self._bytes_in = self._bytes_out = 0
        self._no_file_until = 0.0
        self._said: set[str] = set()

    # What an agent's threads do.

    def put(self, lines: Sequence[str]) -> None:
        """Take the lines of one event."""
        data = "".join(lines).encode("utf-8", "backslashreplace")
        with self._lock:
            if not self._to_file(data):
                self._to_memory(data)

    def _to_file(self, data: bytes) -> bool:
        while True:
            began = time.monotonic()
            if began < self._no_file_until:
                return False
            file = self._files[-1] if self._files else None
            if file is None or file.room <= 0:
                file = self._new_file()
                if file is None:
                    return False
            if not file.append(data):
                # What is there of it is torn, and nothing must stand behind that.
                file.room = 0
                self._no_file_until = time.monotonic() + _NO_FILE_SECONDS
                self.say_once("file", f"{file.path} takes no more: events wait in memory")
                return False
            if time.monotonic() - began > SLOW_SECONDS:
                self._no_file_until = time.monotonic() + _NO_FILE_SECONDS
                self.say_once("file", f"{file.path} is slow: events wait in memory for a while")
            # A handler that ended meanwhile may have deleted it.
            if not file.gone:
                return True

    def _new_file(self) -> SpillFile | None:
        if self._folder is None:
            return None
        try:
            file = self._folder.new()
        except OSError as error:
            self._no_file_until = time.monotonic() + _NO_FILE_SECONDS
            self.say_once("file", f"events wait in memory, for no file can be written: {error}")
            return None
        self._files.append(file)
        return file

    def _to_memory(self, data: bytes) -> None:
        queued = self._bytes_in - self._bytes_out
        if len(self._memory) >= self._max_queued or queued + len(data) > self._max_queued_bytes:
            self.lost += 1
            self.say_once("lost", "the queue is full, events are lost")
            return
        self._bytes_in += len(data)
        self._memory.append(data)

    def _from_memory_to_file(self) -> None:
        self._no_file_until = 0.0  # slow is better than lost
        while self._memory and self._to_file(self._memory[0]):
            self._bytes_out += len(self._memory.popleft())

    # What the worker does.

    def batches(self) -> Generator[list[str], None, None]:
        """Return all lines there are, in batches; each is done with when the next one is asked for."""
        for file in list(self._files):
            yield from _batches(file)
        while self._memory:
            some = list(islice(self._memory, MAX_BATCH))
            yield _texts([line for data in some for line in data.splitlines(keepends=True)])
            for data in some:
                self._memory.popleft()
                self._bytes_out += len(data)
        while self._left:
            again = SpillFile.open(self._left[-1])
            if again is not None:
                try:
                    yield from _batches(again)
                    again.delete()
                finally:
                    again.release()
            self._left.pop()

    def tidy(self) -> None:
        """Delete files that are done with, and empty the last."""
        self._said.clear()
        if self._try_lock():
            try:
                for file in list(self._files):
                    if file.read(1):
                        continue
                    if file is self._files[-1] and file.room > 0:
                        if file.offset:
                            file.clear()
                        continue
                    self._files.remove(file)
                    file.delete()
                    file.release()
            finally:
                self._lock.release()

    def leave(self) -> str:
        """Let go of the files, for `agentops-monitoring replay` to take; returns where all is."""
        if self._try_lock():
            try:
                self._from_memory_to_file()
                while self._files:
                    file = self._files.popleft()
                    self._left.append(file.path)
                    file.release()
            finally:
                self._lock.release()
        return self._whereabouts()

    def _try_lock(self) -> bool:
        # Who holds it may be a handler that interrupted `put`, and waits for the worker.
        return self._lock.acquire(timeout=_LOCK_SECONDS)

    def refuse(self, lines: Sequence[str]) -> None:
        """Keep lines that the ledger never takes in a file of their own."""
        data = "".join(lines).encode("utf-8", "backslashreplace")
        try:
            if self._folder is not None:
                self._refused = self._refused or self._folder.new()
                if self._refused.append(data):
                    return
        except OSError:
            pass
        self.lost += len(lines)

    # What the process's end does, and whoever waits for it.

    def __bool__(self) -> bool:
        with self._lock:
            return bool(self._memory or self._left or any(file.read(1) for file in self._files))

    def close(self, *, written: bool) -> str:
        """Leave no empty file behind; return what becomes of the rest."""
        with self._lock:
            if not written:
                self._from_memory_to_file()
            for file in list(self._files):
                if not file.read(1):
                    # Not closed: the worker may be about to look into it.
                    self._files.remove(file)
                    file.delete()
            lost = self.lost + (0 if written else len(self._memory))
            told = [f"{lost} events are lost"] if lost else []
            if self._files or self._left:
                told.append(self._whereabouts())
            return "; ".join(told)

    def _whereabouts(self) -> str:
        if self._folder is None:
            return "they wait in memory"
        return f"they are in {self._folder.path}, for `agentops-monitoring replay`"

    def say_once(self, subject: str, text: str) -> None:
        """Say it once until all is well again."""
        if subject not in self._said:
            self._said.add(subject)
            say(text)


def _batches(file: SpillFile) -> Iterator[list[str]]:
    while lines := file.read(MAX_BATCH):
        yield _texts(lines)
        file.offset += sum(map(len, lines))


def _texts(lines: Sequence[bytes]) -> list[str]:
    return [line.decode("utf-8", "replace") for line in lines]
