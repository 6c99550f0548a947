"""What a test can see of a process and its descendants in /proc: who lives, what it holds and hears."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


def alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def family(pid: int) -> set[int]:
    """Return a process and its living descendants."""
    parents = {}
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {one for one in found if alive(one)}


def of_folder(folder: Path) -> set[int]:
    """Return the living processes that were started with a path under a folder in their environment."""
    found = set()
    for variables in PROC.glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"={folder}/".encode() in variables.read_bytes():
                found.add(int(variables.parent.name))
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
    found = re.search(r"VmRSS:\s*(\d+)", (PROC / str(pid) / "status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def usage(pid: int) -> Usage:
    """Measure a process."""
    children = family(pid) - {pid}
    return Usage(
        processes=len(children),
        threads=len(list((PROC / str(pid) / "task").iterdir())),
        files=len(list((PROC / str(pid) / "fd").iterdir())),
        memory=_memory(pid),
        memory_of_children=max((_memory(child) for child in children), default=0.0),
    )


def listening(pid: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the addresses at which a process takes TCP connections or datagrams, one for each socket."""
    sockets = set()
    for link in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(os.readlink(link)[8:-1])  # "socket:[123]"
    found = []
    for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for row in (PROC / str(pid) / "net" / table).read_text().splitlines()[1:]:
            columns = row.split()
            if columns[3] == state and columns[9] in sockets:
                raw = bytes.fromhex(columns[1].split(":")[0])  # words of four bytes, each the wrong way round
                found.append(
                    ipaddress.ip_address(b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4)))
                )
    return found
