"""What a server leaves when it ends, however it ends: gone. ``python sweep.py FOLDER`` waits for that.

Every function's process has a place under the server's folder in its environment, and whatever it starts
inherits that: so they are known, without a list that could be wrong.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import IO

PREFIX = "local-aws-"
ROUNDS = 200  # a process that is being killed may have started another


def sweep(folder: Path) -> None:
    """Kill every process that belongs to a folder, then remove the folder."""
    for _ in range(ROUNDS):
        if not _kill(folder):
            break
        time.sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)


def _kill(folder: Path) -> bool:
    found = False
    for variables in Path("/proc").glob("[0-9]*/environ"):  # elsewhere than on Linux: none
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if f"{folder}{os.sep}".encode() in variables.read_bytes():
                os.kill(int(variables.parent.name), signal.SIGKILL)
                found = True
    return found


def hold(folder: Path) -> IO[bytes]:
    """Mark a folder as in use, until the file that is returned is closed or its process ends."""
    lock = open(folder / "starting", "wb")  # noqa: SIM115 - held for the life of the process
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / "starting").rename(folder / "lock")  # never seen without its lock held
    return lock


def sweep_dead(parent: Path) -> None:
    """Sweep what servers left that were killed together with their sweeper."""
    for path in parent.glob(f"{PREFIX}*/lock"):
        with contextlib.suppress(OSError), path.open("rb") as lock:  # held: that server is alive
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sweep(path.parent)


if __name__ == "__main__":
    sys.stdin.read()  # ends when the server does
    sweep(Path(sys.argv[1]))
