"""Sets of whole numbers as sorted intervals, both ends included, that neither touch nor overlap."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

Intervals = list[tuple[int, int]]


def with_number(intervals: Intervals, number: int) -> Intervals:
    """Return a set with one number more."""
    at = bisect_right(intervals, (number, number))
    before = intervals[at - 1] if at else None
    after = intervals[at] if at < len(intervals) else None
    if has(intervals, number):
        return intervals
    first = last = number
    low = high = at
    if before is not None and before[1] == number - 1:
        first, low = before[0], at - 1
    if after is not None and after[0] == number + 1:
        last, high = after[1], at + 1
    return [*intervals[:low], (first, last), *intervals[high:]]


def has(intervals: Intervals, number: int) -> bool:
    """Whether a number is in a set."""
    # A pair that begins with the number comes behind (number, number), and may be in the set.
    at = bisect_right(intervals, (number, number))
    return any(first <= number <= last for first, last in intervals[max(0, at - 1) : at + 1])


def gaps(intervals: Intervals, expected: int = 1) -> Intervals:
    """Return what is missing from a number on up to the largest number of a set."""
    missing: Intervals = []
    for first, last in intervals:
        if first > expected:
            missing.append((expected, first - 1))
        expected = max(expected, last + 1)
    return missing


def minus(left: Iterable[tuple[int, int]], right: Iterable[tuple[int, int]]) -> Intervals:
    """Return what is in the left set and not in the right one."""
    found: Intervals = []
    holes = list(right)
    for first, last in left:
        for start, end in holes:
            if end < first or start > last:
                continue
            if start > first:
                found.append((first, start - 1))
            first = max(first, end + 1)
        if first <= last:
            found.append((first, last))
    return found


def both(left: Iterable[tuple[int, int]], right: Iterable[tuple[int, int]]) -> Intervals:
    """Return what is in both sets."""
    others = list(right)
    return [
        (max(first, start), min(last, end))
        for first, last in left
        for start, end in others
        if max(first, start) <= min(last, end)
    ]


def size(intervals: Iterable[tuple[int, int]]) -> int:
    """Return how many numbers a set has."""
    return sum(last - first + 1 for first, last in intervals)
