"""The time that alarms and schedules see: the real one, plus what a test has moved it by."""

from __future__ import annotations

import time

_offset = 0.0


def now() -> float:
    """Return the local AWS's time in seconds since the epoch."""
    return time.time() + _offset


def advance(seconds: float) -> float:
    """Move the clock forward and return the new time.

    Raises
    ------
    ValueError
        When ``seconds`` is negative: alarms and schedules never go back.
    """
    global _offset
    if seconds < 0:
        raise ValueError(f"the clock only moves forward, not by {seconds}")
    _offset += seconds
    return now()
