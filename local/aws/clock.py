"""The time that alarms, metrics, schedules and subscriptions see: the real one, plus what a test moved it by.

A function's own clock does not move.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

from ministack.services import cloudwatch, eventbridge

from local.aws.around import around

MOST = 1_000_000_000
_offset = 0.0
_listeners: list[Callable[[], None]] = []


def now() -> float:
    """Return the local AWS's time in seconds since the epoch."""
    return time.time() + _offset


def on_move(listener: Callable[[], None]) -> None:
    """Call ``listener`` after each move."""
    _listeners.append(listener)


def advance(seconds: float) -> float:
    """Move the clock forward and return the new time.

    A schedule whose time has come then has fired: once, however many of its times were passed.

    Raises
    ------
    ValueError
        When ``seconds`` is negative (alarms and schedules never go back) or many years.
    """
    global _offset
    if not 0 <= seconds <= MOST:
        raise ValueError(f"the clock only moves forward, by {MOST} seconds at most, not by {seconds}")
    eventbridge._tick_scheduled_rules()  # a cron rule counts from the first tick that sees it
    _offset += seconds
    for listener in _listeners:
        listener()
    return now()


def install() -> None:
    """Put this clock in MiniStack's place; its thread and ours never fire one schedule at once."""
    lock = threading.Lock()

    @around(eventbridge, "_tick_scheduled_rules")
    def tick_alone(stock: Callable[[], None]) -> None:
        with lock:
            stock()

    cloudwatch.time = SimpleNamespace(time=now)
    eventbridge._now_ts = now
    eventbridge._SCHEDULER_TICK_INTERVAL = 1
    on_move(eventbridge._tick_scheduled_rules)
