"""Check that invoice numbers run on without a gap, as the tax office wants them."""

from __future__ import annotations

from itertools import pairwise


class SequenceGap(Exception):
    """An invoice is missing."""


def parts(number):
    """Year and running number of an invoice: "2024-17" is (2024, 17)."""
    year, running = number.split("-")
    return int(year), int(running)


def check(numbers):
    """The numbers in order; each year starts again at 1."""
    ordered = sorted(numbers)
    for before, after in pairwise(ordered):
        (year, running), (next_year, next_running) = parts(before), parts(after)
        follows = (year, running + 1) if next_year == year else (next_year, 1)
        if (next_year, next_running) != follows:
            raise SequenceGap(f"{after} does not follow {before}")
    return ordered


def handler(event, _context):
    ordered = check(event["numbers"])
    return {"first": ordered[0], "last": ordered[-1], "count": len(ordered)}
