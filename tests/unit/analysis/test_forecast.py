"""Forecasts: honest intervals, no look ahead, and the naive one wins unless another earned its place."""

from __future__ import annotations

import csv
import math
import random
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring.analysis import Forecast, forecast
from agentops_monitoring.analysis.forecasting import LEVEL

_DATA = Path(__file__).parents[4] / "shared" / "data"
_VALUES = st.lists(st.floats(-1e9, 1e9) | st.integers(0, 5).map(float), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None, print_blob=True)
@given(_VALUES, st.integers(1, 40), st.none() | st.integers(1, 20))
def test_any_history_has_a_forecast_of_that_many_ordered_values(
    history: list[float], horizon: int, season: int | None
) -> None:
    found = forecast(history, horizon, season)

    assert len(found.mean) == len(found.lower) == len(found.upper) == horizon
    assert all(math.isfinite(each) for each in found.mean)
    assert all(
        low <= mid <= high for low, mid, high in zip(found.lower, found.mean, found.upper, strict=True)
    )
    if min(history) >= 0:
        assert min(found.lower) >= 0
    assert found == forecast(iter(history), horizon, season)


@settings(max_examples=30, deadline=None, print_blob=True)
@given(st.lists(st.integers(0, 2**20).map(float), min_size=1, max_size=50), st.integers(-8, 8))
def test_a_history_in_another_unit_has_the_same_forecast_in_that_unit(
    history: list[float], power: int
) -> None:
    unit = 2.0**power  # which loses no bit
    found, other = forecast(history, 5, 6), forecast([each * unit for each in history], 5, 6)

    assert other.model == found.model
    assert other.mean == tuple(each * unit for each in found.mean)
    assert other.upper == tuple(each * unit for each in found.upper)


@settings(max_examples=40, deadline=None, print_blob=True)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=60), st.integers(1, 8), st.integers(2, 9))
def test_the_backtest_equals_one_that_is_done_by_the_book(
    history: list[int], horizon: int, season: int
) -> None:
    found = forecast(history, horizon, season).backtest
    seasonal = season if len(history) > 2 * season else 1
    first = max(seasonal, len(history) // 4, 1)
    errors: dict[str, list[float]] = {"naive": [], "drift": []}
    if seasonal > 1:
        errors["seasonal_naive"] = []
    for origin in range(first, len(history)):
        past = history[:origin]
        slope = (past[-1] - past[0]) / max(1, origin - 1)
        for step, true in enumerate(history[origin : origin + horizon], start=1):
            errors["naive"].append(abs(true - past[-1]))
            errors["drift"].append(abs(true - past[-1] - slope * step))
            if seasonal > 1:
                errors["seasonal_naive"].append(abs(true - past[(step - 1) % seasonal - seasonal]))

    assert found.origins == len(history) - first
    for model, each in errors.items():
        assert found.mae[model] == pytest.approx(fmean(each))


def test_what_comes_after_a_point_changes_no_forecast_made_there() -> None:
    rng = random.Random(3)
    history = [rng.gauss(10, 3) for _ in range(80)]
    before = forecast(history[:-1], 1)
    # The longer backtest has one origin more, the end of the shorter history: what is new is the error there.
    for last in (history[-1], 1e6):
        after = forecast([*history[:-1], last], 1)
        new = after.backtest.mae["naive"] * after.backtest.origins
        old = before.backtest.mae["naive"] * before.backtest.origins
        skipped = after.backtest.origins - before.backtest.origins
        first = len(history) // 4
        dropped = sum(abs(history[i] - history[i - 1]) for i in range(first - 1 + skipped, first))
        assert new == pytest.approx(old - dropped + abs(last - history[-2]), rel=1e-6)


def test_the_naive_model_wins_a_tie() -> None:
    for history in ([0], [0.0] * 30, [7.5] * 50, [1e9] * 10):
        found = forecast(history, 4, 5)

        assert found.model == "naive"
        assert found.mean == (history[-1],) * 4
    assert found.lower == found.mean == found.upper


def test_a_line_goes_on() -> None:
    found = forecast([3.0 + 2 * each for each in range(40)], 5)

    assert found.model == "drift"
    assert found.mean == pytest.approx([83, 85, 87, 89, 91])


def test_a_pattern_repeats() -> None:
    day = [0.0, 0, 1, 4, 9, 7, 2]
    found = forecast(day * 6 + day[:3], 9, season_length=7)

    assert found.model == "seasonal_naive"
    assert found.mean == tuple(day[3:] + day[:5])
    assert forecast(day * 2, 3, season_length=7).model != "seasonal_naive"  # once is no pattern


def test_a_pattern_in_noise_is_found() -> None:
    rng = random.Random(5)
    level = [10 + 6 * math.sin(each * math.pi / 12) for each in range(24 * 15)]
    noisy = [each + rng.gauss(0, 2) for each in level]
    found = forecast(noisy[: 24 * 14], 24, season_length=24)
    truth = level[24 * 14 :]

    assert found.model in ("seasonal", "seasonal_median")
    assert found.backtest.mae[found.model] < 0.6 * found.backtest.mae["naive"]
    assert fmean(abs(a - b) for a, b in zip(found.mean, truth, strict=True)) < 1.5


def test_one_outlier_at_the_end_is_not_taken_for_the_future() -> None:
    rng = random.Random(8)
    history = [rng.gauss(10, 1) for _ in range(60)]
    history[20] = history[-1] = 500.0

    assert max(forecast(history, 5).mean) < 20


@pytest.mark.parametrize("kind", ["walk", "noise", "skewed"])
def test_intervals_hold_the_share_that_they_claim(kind: str, full_size: bool) -> None:
    rng = random.Random(11)
    inside: Counter[int] = Counter()
    claimed: list[float] = []
    runs = 1000 if full_size else 150
    for _ in range(runs):
        steps = [rng.gauss(0, 1) if kind != "skewed" else rng.expovariate(1) for _ in range(70)]
        values = [sum(steps[: end + 1]) for end in range(70)] if kind == "walk" else steps
        found = forecast(values[:60], 10)
        assert found.backtest.level == LEVEL
        assert found.backtest.coverage is not None
        claimed.append(found.backtest.coverage)
        for step, true in enumerate(values[60:]):
            inside[step] += found.lower[step] <= true <= found.upper[step]

    assert LEVEL - 0.08 <= sum(inside.values()) / runs / 10 <= LEVEL + 0.08
    assert LEVEL - 0.08 <= fmean(claimed) <= LEVEL + 0.08


def test_of_a_random_walk_the_naive_forecast_is_seldom_beaten() -> None:
    rng = random.Random(13)
    models: Counter[str] = Counter()
    for _ in range(60):
        value, history = 0.0, []
        for _ in range(120):
            value += rng.gauss(0, 1)
            history.append(value)
        models[forecast(history, 1).model] += 1

    assert models["naive"] >= 40


def test_a_history_too_short_to_tell_says_so() -> None:
    alone = forecast([2.5], 3)
    assert (alone.model, alone.mean, alone.lower, alone.upper) == (
        "naive",
        (2.5,) * 3,
        (0.0,) * 3,
        (math.inf,) * 3,
    )
    assert (alone.backtest.origins, alone.backtest.mae, alone.backtest.coverage) == (0, {}, None)
    assert forecast([-1, 2, -1], 1).lower == (-math.inf,)
    assert math.isfinite(forecast([1, 2, 3, 1, 2], 1).upper[0])  # four errors bound 80 %


def test_beyond_what_was_tried_the_interval_goes_on_widening() -> None:
    rng = random.Random(17)
    found = forecast([rng.gauss(100, 1) for _ in range(12)], 50)
    widths = [high - low for low, high in zip(found.lower, found.upper, strict=True)]

    assert widths[49] > widths[24] > widths[14] > 0
    assert all(math.isfinite(each) for each in widths)


def test_decimals_of_the_ledger_are_numbers() -> None:
    assert forecast([Decimal("0.25"), Decimal("0.25")], 1).mean == (0.25,)


@pytest.mark.parametrize(
    ("field", "history", "horizon", "season"),
    [
        ("history", [], 1, None),
        (r"history\[1\]", [1, math.nan], 1, None),
        (r"history\[0\]", [math.inf], 1, None),
        (r"history\[0\]", [10**400], 1, None),
        (r"history\[0\]", [Decimal("sNaN")], 1, None),
        (r"history\[2\]", [1, 2, None], 1, None),
        (r"history\[0\]", ["1"], 1, None),
        (r"history\[0\]", [True], 1, None),
        ("horizon", [1], 0, None),
        ("horizon", [1], 10_001, None),
        ("horizon", [1], 1.0, None),
        ("season_length", [1], 1, 0),
        ("season_length", [1], 1, "day"),
    ],
)
def test_bad_input_is_named(field: str, history: list[float], horizon: int, season: int | None) -> None:
    with pytest.raises(ValueError, match=field):
        forecast(history, horizon, season)


def _measure(series: Sequence[float], horizon: int, season: int | None, starts: int) -> tuple[float, float]:
    """Forecast from points spread over the second half; return MAE over the naive one's, and coverage."""
    error = naive = inside = count = 0.0
    for number in range(starts):
        origin = len(series) // 2 + (len(series) // 2 - horizon) * number // starts
        found: Forecast = forecast(series[:origin], horizon, season)
        for step, true in enumerate(series[origin : origin + horizon]):
            error += abs(true - found.mean[step])
            naive += abs(true - series[origin - 1])
            inside += found.lower[step] <= true <= found.upper[step]
            count += 1
    return error / naive, inside / count


def test_on_production_model_calls_it_beats_the_naive_forecast() -> None:
    path = _DATA / "azure_llm_code_trace.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    minutes: Counter[str] = Counter()
    with path.open() as file:
        for row in csv.DictReader(file):
            minutes[row["TIMESTAMP"][:16]] += int(row["ContextTokens"])
    ratio, coverage = _measure([minutes[each] for each in sorted(minutes)], 5, None, 20)

    assert ratio < 1
    assert 0.7 <= coverage <= 0.95


def test_on_cloudwatch_series_it_beats_the_naive_forecast(full_size: bool) -> None:
    paths = sorted((_DATA / "nab" / "realAWSCloudwatch").glob("*.csv"))
    if not paths:
        pytest.skip("the series are not here")
    by_hour, by_minutes = [], []
    for path in paths:
        with path.open() as file:
            values = [float(row["value"]) for row in csv.DictReader(file)]
        by_minutes.append(_measure(values[-2000 if full_size else -400 :], 12, None, 30 if full_size else 5))
        if full_size:
            hours = [fmean(values[start : start + 12]) for start in range(0, len(values) - 11, 12)]
            by_hour.append(_measure(hours, 24, 24, 30))
    for measured in filter(None, (by_minutes, by_hour)):
        assert math.exp(fmean(math.log(ratio) for ratio, _ in measured)) < 0.9
        assert 0.7 <= fmean(coverage for _, coverage in measured) <= 0.9
