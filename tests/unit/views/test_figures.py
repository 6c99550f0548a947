"""Numbers as people read them, and axes that cover what they must."""

from __future__ import annotations

import math
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring.views import figures
from agentops_monitoring.views.figures import Unit

NUMBERS = st.floats(-1e12, 1e12, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (7, "7"),
        (1234, "1,234"),
        (123_456, "123K"),
        (12_345_678, "12.3M"),
        (0.0123, "0.0123"),
        (2.5, "2.5"),
    ],
)
def test_counts(value: float, shown: str) -> None:
    assert figures.count(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", "$0.00"), ("1234.5", "$1,234.50"), ("0.15234", "$0.152"), ("0.00000213", "$0.00000213"),
        ("0.0000000001", "<$0.000000001"), ("-3", "-$3.00"), ("2500000", "$2.5M"),
    ],
)  # fmt: skip
def test_money(value: str, shown: str) -> None:
    assert figures.usd(Decimal(value)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 ms"),
        (12.34, "12.3 ms"),
        (1240, "1.24 s"),
        (125_000, "2 min 5 s"),
        (120_000, "2 min"),
        (11_400_000, "3 h 10 min"),
    ],
)
def test_durations(value: float, shown: str) -> None:
    assert figures.duration(value) == shown


@given(NUMBERS, st.sampled_from(Unit))
def test_nothing_is_written_in_scientific_notation(value: float, unit: Unit) -> None:
    shown = figures.write(value, unit)
    assert shown
    assert "e" not in shown.replace("min", "").lower()


@pytest.mark.parametrize("unit", list(Unit))
def test_what_is_no_number_is_a_dash(unit: Unit) -> None:
    if unit is not Unit.BYTES:
        assert figures.write(math.nan, unit) == "–"


@given(NUMBERS, NUMBERS, st.integers(2, 9), st.booleans())
def test_ticks_cover_the_range_in_even_steps(a: float, b: float, wanted: int, whole: bool) -> None:
    low, high = min(a, b), max(a, b)
    if whole:
        low, high = math.floor(low), math.ceil(high)
    ticks = figures.nice_ticks(low, high, wanted, whole=whole)
    slack = max(abs(low), abs(high), 1e-6) * 1e-6
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    steps = [after - before for before, after in pairwise(ticks)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-6, abs_tol=1e-9) for step in steps)
    if whole:
        assert all(tick == int(tick) for tick in ticks)


@given(st.floats(1e-7, 900))
def test_money_ticks_are_told_apart(high: float) -> None:
    ticks = figures.nice_ticks(0, high, 5)
    labels = figures.tick_labels(ticks, Unit.USD)
    assert len(set(labels)) == len(ticks)


@pytest.mark.parametrize(
    ("high", "unit", "labels"),
    [
        (2000, Unit.MILLISECONDS, ["0", "0.5 s", "1 s", "1.5 s", "2 s"]),
        (200, Unit.MILLISECONDS, ["0", "50 ms", "100 ms", "150 ms", "200 ms"]),
        (200, Unit.SECONDS, ["0", "50 s", "100 s", "150 s", "200 s"]),
        (0.04, Unit.PERCENT, ["0", "0.01%", "0.02%", "0.03%", "0.04%"]),
    ],
)
def test_the_ticks_of_an_axis_share_one_unit(high: float, unit: Unit, labels: list[str]) -> None:
    assert figures.tick_labels(figures.nice_ticks(0, high, 5), unit) == labels


@pytest.mark.parametrize(("ratio", "shown"), [(0, "0%"), (0.0001, "<0.1%"), (0.001, "0.1%"), (1, "100%")])
def test_a_share_that_is_there_is_never_nothing(ratio: float, shown: str) -> None:
    assert figures.percent(ratio) == shown


@given(st.integers(0, 2_000_000_000), st.integers(60, 10_000_000))
def test_time_ticks_lie_within_the_time_shown(start: int, length: int) -> None:
    ticks = figures.time_ticks(start, start + length, 6)
    assert all(start <= at <= start + length for at, _ in ticks)
    assert len(ticks) <= 18
