"""Files that hold lines until the ledger has them.

A line is in the file before the agent goes on, so a process that is killed loses none: what the kernel has
taken outlives the process. The file belongs to whoever holds its lock; what no process holds is for
`agentops-monitoring replay`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress

from agentops_monitoring.forks import at_fork
from agentops_monitoring.transport import say

FILE_BYTES = 4_000_000
"""Size from which on a process takes a new file: what is written is deleted a file at a time."""
FOLDER_MB = 256
"""Size from which on no process takes a new file, in millions of bytes; `AGENTOPS_SPILL_MB`."""
SUFFIX = ".jsonl"
_READ_BYTES = 256_000

_open: set[int] = set()


def _release_all() -> None:
    # A lock lasts until the last copy of its descriptor is closed, so a child must not keep its parent's.
    while _open:
        with suppress(OSError):
            os.close(_open.pop())


at_fork(after_in_child=_release_all)


class SpillFile:
    """Whole lines in a file that this process has locked.

    One thread may append while another reads.
    """

    __slots__ = ("_fd", "gone", "offset", "path", "room")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self.offset = 0
        """Where the lines begin that were not done with."""
        self.room = FILE_BYTES
        """Bytes that the file should still take."""
        self.gone = False
        """Whether it was deleted."""
        _open.add(fd)

    @classmethod
    def open(cls, path: str) -> SpillFile | None:
        """Open a file that is there; None when another process holds it, or has just deleted it.

        Raises
        ------
        OSError
            It cannot be opened, or is no plain file.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "no plain file", path)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return cls(path, fd)
        except BlockingIOError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def append(self, data: bytes) -> bool:
        """Append an event's lines in one write; False when they are not all there, and the end is torn."""
        self.room -= len(data)
        try:
            return os.write(self._fd, data) == len(data)
        except OSError:
            return False

    def read(self, count: int) -> list[bytes]:
        """Return the next whole lines, at most so many; none at the end, be it torn or not."""
        size = _READ_BYTES
        while True:
            data = os.pread(self._fd, size, self.offset)
            end = data.rfind(b"\n") + 1
            if end or len(data) < size:
                return data[:end].splitlines(keepends=True)[:count]
            size *= 2

    @property
    def left(self) -> int:
        """Bytes behind the offset."""
        return os.fstat(self._fd).st_size - self.offset

    def clear(self) -> None:
        """Empty the file."""
        os.ftruncate(self._fd, 0)
        self.offset, self.room = 0, FILE_BYTES

    def delete(self) -> None:
        """Delete the file; who has it open still has."""
        self.gone = True
        with suppress(OSError):
            os.unlink(self.path)

    def release(self) -> None:
        """Close the file, for other processes to take."""
        fd, self._fd = self._fd, -1
        # In this order: a fork between the two must not close a number that is somebody else's by then.
        _open.discard(fd)
        if fd >= 0:
            os.close(fd)


class SpillFolder:
    """Where processes keep files of one destination.

    Parameters
    ----------
    path
        The folder; it is made when it is needed.
    table
        The table of raw events, which names the destination: production's lines are not for the ledger of a
        test.
    max_bytes
        Size of all files from which on there are no new ones.
    shared
        Whether the path is known to anybody, as below the system's folder for temporary files; then only a
        folder that nobody else can write or read will do.
    """

    def __init__(
        self, path: str, table: str, *, max_bytes: int = FOLDER_MB * 1_000_000, shared: bool = False
    ) -> None:
        self.path = path
        self._prefix = "".join(each if each.isalnum() or each in "_.-" else "_" for each in table) + "~"
        self._max_bytes = max_bytes
        self._shared = shared

    @classmethod
    def from_environment(cls, table: str) -> SpillFolder | None:
        """Return the folder that `AGENTOPS_SPILL_DIR` names; None when it says `off`.

        Without it, a folder of this user's among the temporary files; None where there are none.
        """
        named = os.environ.get("AGENTOPS_SPILL_DIR", "").strip()
        if named.lower() == "off":
            return None
        megabytes = os.environ.get("AGENTOPS_SPILL_MB", "")
        limit = (int(megabytes) if megabytes.isdecimal() else FOLDER_MB) * 1_000_000
        if named:
            return cls(named, table, max_bytes=limit)
        from tempfile import gettempdir

        try:
            path = os.path.join(gettempdir(), f"agentops-monitoring-{os.geteuid()}")
        except OSError:  # a container that may write nowhere
            say("there is no folder for temporary files, events wait in memory; AGENTOPS_SPILL_DIR names one")
            return None
        return cls(path, table, max_bytes=limit, shared=True)

    def new(self) -> SpillFile:
        """Make a file that only this user can read, and lock it.

        Raises
        ------
        OSError
            The folder cannot be made or written, is not safe, or is full.
        """
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        self._check()
        if self._size() >= self._max_bytes:
            raise OSError(errno.EDQUOT, f"{self._max_bytes // 1_000_000} MB are full", self.path)
        while True:
            path = os.path.join(self.path, f"{self._prefix}{os.getpid()}-{os.urandom(6).hex()}{SUFFIX}")
            fd = os.open(
                path,
                os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # a replay looked into it first, and deletes it
                os.close(fd)
                continue
            except BaseException:
                os.close(fd)
                raise
            if os.fstat(fd).st_nlink:
                return SpillFile(path, fd)
            os.close(fd)

    def _check(self) -> None:
        if self._shared:
            found = os.lstat(self.path)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise PermissionError(errno.EPERM, "not a folder of this user's alone", self.path)

    def files(self) -> list[str]:
        """Return the paths of the destination's files, sorted.

        Raises
        ------
        OSError
            The folder cannot be read, or is not safe: somebody else may have put lines there.
        """
        try:
            self._check()
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        return sorted(
            os.path.join(self.path, name)
            for name in names
            if name.startswith(self._prefix) and name.endswith(SUFFIX)
        )

    def _size(self) -> int:
        """Return the size of all files; deletes empty ones, which processes that were killed left behind."""
        total = 0
        with os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(OSError):
                    if "~" not in entry.name or not entry.name.endswith(SUFFIX):  # another program's
                        continue
                    size = entry.stat(follow_symlinks=False).st_size
                    total += size
                    if not size and (file := SpillFile.open(entry.path)) is not None:
                        if not file.left:
                            file.delete()
                        file.release()
        return total
