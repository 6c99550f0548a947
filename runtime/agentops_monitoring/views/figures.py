"""How numbers, money and times are written for people, and where an axis puts its ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

Number = int | float | Decimal


class Unit(StrEnum):
    """What a figure counts, which decides how it is written."""

    COUNT = "count"
    USD = "usd"
    MILLISECONDS = "ms"
    SECONDS = "s"
    PERCENT = "percent"
    BYTES = "bytes"


def _trim(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _significant(value: float, digits: int = 3) -> str:
    """Fixed notation with about `digits` significant digits and no trailing zeros."""
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return _trim(f"{value:.{min(decimals, 12)}f}")


def count(value: Number) -> str:
    """1234 → ``1,234``; 12_345_678 → ``12.3M``; 0.0123 → ``0.0123``."""
    number = float(value)
    if not math.isfinite(number):
        return "–"
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e5, "K")):
        if abs(number) >= limit:
            return f"{_significant(number / (1e3 if suffix == 'K' else limit))}{suffix}"
    if abs(number) >= 1000 or number == int(number):
        return f"{number:,.0f}"
    return _significant(number)


def usd(value: Number) -> str:
    """US dollars: cents from one dollar up, below that enough digits to see something."""
    number = float(value)
    if not math.isfinite(number):
        return "–"
    sign, size = ("-" if number < 0 else ""), abs(number)
    if size >= 1e6:
        return f"{sign}${_significant(size / 1e6, 4)}M"
    if size >= 1 or size == 0:
        return f"{sign}${size:,.2f}"
    decimals = max(2, 2 - math.floor(math.log10(size)))
    return f"{sign}${size:.{decimals}f}" if decimals <= 9 else f"{sign}<$0.000000001"


def duration(milliseconds: Number) -> str:
    """``850 ms``, ``1.24 s``, ``2 min 5 s``, ``3 h 10 min``."""
    number = float(milliseconds)
    if not math.isfinite(number):
        return "–"
    if abs(number) < 1000:
        return f"{_significant(number)} ms"
    if abs(number) < 60_000:
        return f"{_significant(number / 1000)} s"
    minutes, seconds = divmod(round(number / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    )


def percent(ratio: Number) -> str:
    """0.923 → ``92.3%``; what would round to nothing → ``<0.1%``; not-a-number → ``–``."""
    number = float(ratio) * 100
    if 0 < number < 0.05:
        return "<0.1%"
    return f"{_trim(f'{number:.1f}')}%" if math.isfinite(number) else "–"


def write(value: Number, unit: Unit = Unit.COUNT) -> str:
    """Write a figure of the given unit for a person; a percentage is given as 0…100, as CloudWatch does."""
    if unit is Unit.USD:
        return usd(value)
    if unit is Unit.MILLISECONDS:
        return duration(value)
    if unit is Unit.SECONDS:
        return duration(float(value) * 1000)
    if unit is Unit.PERCENT:
        return percent(float(value) / 100)
    if unit is Unit.BYTES:
        size, index = float(value), 0
        while abs(size) >= 1000 and index < 4:
            size, index = size / 1000, index + 1
        return f"{_significant(size)} {('B', 'kB', 'MB', 'GB', 'TB')[index]}"
    return count(value)


def nice_ticks(low: float, high: float, wanted: int = 5, *, whole: bool = False) -> list[float]:
    """Round tick positions that cover ``low``…``high`` (steps of 1, 2, 2.5 or 5 × 10ᵏ).

    Parameters
    ----------
    low, high : float
        What must be covered; equal values are widened.
    wanted : int
        About how many ticks.
    whole : bool
        Only whole numbers, for things that are counted.
    """
    if high - low <= max(abs(low), abs(high)) * 1e-9 + 1e-15:
        high = low + (abs(low) if abs(low) > 1e-12 else 1.0)
    raw = (high - low) / max(1, wanted - 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * magnitude >= raw * 0.999)
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


_IN_SECONDS = {Unit.MILLISECONDS: 0.001, Unit.SECONDS: 1.0}


def tick_labels(ticks: Sequence[float], unit: Unit) -> list[str]:
    """Labels of one axis: the same unit and number of decimals on each, so that they read as a scale."""
    top = max((abs(tick) for tick in ticks), default=0.0)
    if unit is Unit.USD and 0 < top < 1000:
        step = ticks[1] - ticks[0] if len(ticks) > 1 else top
        decimals = min(12, max(0, -math.floor(math.log10(step) + 1e-9)))
        if round(step * 10**decimals, 6) % 1:
            decimals += 1
        return ["$0" if tick == 0 else f"${tick:.{max(decimals, 2 if decimals else 0)}f}" for tick in ticks]
    if unit in _IN_SECONDS:
        seconds = _IN_SECONDS[unit]
        # No minutes: steps of 1, 2 or 5 × 10ᵏ are round in seconds only.
        name, size = ("s", seconds) if top * seconds >= 1 else ("ms", seconds * 1000)
        return [f"{_significant(tick * size, 6)} {name}" if tick else "0" for tick in ticks]
    if unit is Unit.PERCENT:
        return [f"{_significant(tick, 6)}%" if tick else "0" for tick in ticks]
    return [write(tick, unit) if tick else "0" for tick in ticks]


_TIME_STEPS = (
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    21600,
    43200,
    86400,
    172800,
    604800,
)


def time_ticks(start: float, end: float, wanted: int = 6) -> list[tuple[float, str]]:
    """Tick positions (epoch seconds) and their UTC labels between two times."""
    step = next((s for s in _TIME_STEPS if (end - start) / s <= wanted), _TIME_STEPS[-1])
    first = math.ceil(start / step) * step
    shape = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86400 else "%b %d"
    return [
        (float(at), datetime.fromtimestamp(at, UTC).strftime(shape))
        for at in range(int(first), int(end) + 1, step)
    ]


def clock(at: float) -> str:
    """Epoch seconds as ``Nov 22 14:05`` or, off the minute, with seconds (UTC)."""
    return datetime.fromtimestamp(at, UTC).strftime("%b %d %H:%M" if at % 60 == 0 else "%b %d %H:%M:%S")
