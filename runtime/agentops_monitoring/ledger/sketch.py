"""Quantiles out of counters: how many values lie in each bucket of a logarithmic scale.

A DDSketch without collapsing buckets (Masson, Rim, Lee: DDSketch, PVLDB 12(12), 2195-2205, 2019,
https://www.vldb.org/pvldb/vol12/p2195-masson.pdf). With the relative accuracy a = 2 % and
g = (1 + a) / (1 - a), bucket i holds the values in (m·g^(i-1), m·g^i], where m is the least value told
from 0. The estimate 2·m·g^i / (g + 1) is at most a·x away from any x of the bucket. Two sketches merge by
adding their counters, so the same values give the same sketch in any order, however they were split; and what
was counted can be taken back.

Limits of the buckets are decimals, found by comparison: every machine puts a value into the same bucket.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from decimal import Context, Decimal
from math import floor

from agentops_monitoring.ledger.exact import Number

ACCURACY = 0.02
"""Of a quantile within (`LEAST_MS`, `MOST_MS`], relative."""
LEAST_MS = Decimal("0.001")
"""Bucket 0 has all that is not above it, negative times of two clocks included; it is estimated as 0."""
MOST_MS = Decimal(10) ** 9
"""11 days. What is above is in the last bucket."""

HANDLER, LLM, HANDOFF = "qh", "ql", "qm"
"""Names of the sketches, before the bucket's number: a handler's duration, a model's, a message's way."""


def _limits() -> list[Decimal]:
    context = Context(prec=38)
    limits = [LEAST_MS]
    while limits[-1] < MOST_MS:
        # g = 1.02 / 0.98 = 51 / 49
        limits.append(context.divide(context.multiply(limits[-1], Decimal(51)), Decimal(49)))
    return limits


_LIMITS = _limits()
_LAST = len(_LIMITS) - 1
_NAMES = {name: [f"{name}{bucket}" for bucket in range(len(_LIMITS))] for name in (HANDLER, LLM, HANDOFF)}


def counter(name: str, milliseconds: Number) -> str:
    """Return the counter of a sketch that a value adds 1 to."""
    return _NAMES[name][min(bisect_left(_LIMITS, milliseconds), _LAST)]


def quantile(counters: Mapping[str, Number], name: str, q: float) -> float | None:
    """Return a quantile of a sketch among other counters, milliseconds; None when it counts nothing.

    Of n values in ascending order it is the one at place floor(q · (n - 1)), the first at place 0.
    """
    buckets = sorted(
        (int(each[2:]), int(count))
        for each, count in counters.items()
        # A value of another version may be taken back that was never counted.
        if each.startswith(name) and each[2:].isdigit() and count > 0
    )
    left = floor(q * (sum(count for _, count in buckets) - 1))
    for bucket, count in buckets:
        left -= count
        if left < 0:
            return float(_LIMITS[bucket]) * (1 - ACCURACY) if bucket else 0.0
    return None
