"""What a test can see of a process and its descendants: who lives, what it holds and hears."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import psutil


def alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def family(pid: int) -> set[int]:
    """Return a process and its living descendants."""
    descendants = psutil.Process(pid).children(recursive=True)
    return {one for one in (pid, *(child.pid for child in descendants)) if alive(one)}


def of_folder(folder: Path) -> set[int]:
    """Return the living processes that were started with a path under a folder in their environment."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended, or is somebody else's
            if any(value.startswith(f"{folder}/") for value in process.environ().values()):
                found.add(process.pid)
    return {one for one in found if alive(one)}


@dataclass(frozen=True)
class Usage:
    """What a process holds: threads, open files, resident memory in MB; and its children."""

    processes: int
    threads: int
    files: int
    memory: float
    memory_of_children: float


def _memory(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def usage(pid: int) -> Usage:
    """Measure a process."""
    process, children = psutil.Process(pid), family(pid) - {pid}
    return Usage(
        processes=len(children),
        threads=process.num_threads(),
        files=process.num_fds(),
        memory=_memory(pid),
        memory_of_children=max((_memory(child) for child in children), default=0.0),
    )


def listening(pid: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the addresses at which a process takes TCP connections or datagrams, one for each socket."""
    return [
        ipaddress.ip_address(socket.laddr.ip)
        for socket in psutil.Process(pid).net_connections("inet")
        if socket.status == psutil.CONN_LISTEN or (socket.status == psutil.CONN_NONE and not socket.raddr)
    ]
