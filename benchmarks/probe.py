"""Measures one case; runs in a fresh interpreter of the environment that holds the peer."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from benchmarks.cases import OUR_CASES
from benchmarks.peers import PEER_CASES, THREAD

CASES = (*OUR_CASES, *PEER_CASES)


def measure(number: int, sink: str, seconds: float) -> dict[str, float]:
    """Return the best round's microseconds per run of a case, and how many sockets it opened.

    Rounds hold as many runs as fit in a few milliseconds, so that some of them are disturbed by nothing. A
    case that exports from a thread gets long ones: its own work must not fall between them.
    """
    from time import perf_counter

    from awslambdaric.bootstrap import Unbuffered  # type: ignore[import-not-found,unused-ignore]

    sockets = 0

    def count(event: str, _arguments: object) -> None:
        nonlocal sockets
        sockets += event == "socket.__new__"

    kept: Any = sys.stdout
    # As in Lambda: each write is flushed, so each line costs a system call.
    sys.stdout = Unbuffered(open(os.devnull, "w"))  # noqa: SIM115
    sys.addaudithook(count)
    case = CASES[number]
    try:
        job = case.prepare(sink)
        begun = perf_counter()
        runs = 0
        while perf_counter() - begun < seconds / 10:
            job()
            runs += 1
        each = (perf_counter() - begun) / runs
        a_round = max(1, int((0.2 if THREAD in case.note else 0.004) / each))
        best = float("inf")
        end = perf_counter() + seconds
        while perf_counter() < end:
            begun = perf_counter()
            for _ in range(a_round):
                job()
            best = min(best, (perf_counter() - begun) / a_round)
    finally:
        sys.stdout = kept
    return {"us": best * 1e6, "sockets": sockets}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))), flush=True)
    # What an SDK still wants to send at exit is not measured.
    os._exit(0)
