"""What is expected of a budget by the end of its period."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from agentops_monitoring.analysis.outlook import LEAST_DAYS, LEAST_HOURS, Outlooks, outlook
from agentops_monitoring.ledger import budgets
from agentops_monitoring.ledger.budgets import Budget, Case

NOON = datetime(2026, 11, 22, 12, 20, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Ledger:
    """What was spent in each hour and day, on one of two shards."""

    def __init__(self, spent: Mapping[datetime, float], agent: str = "") -> None:
        self.sk = f"AGENT#{agent}" if agent else "TOTAL"
        self.items: dict[tuple[str, str], Decimal] = {}
        for at, usd in spent.items():
            for key in (f"H#{at:%Y-%m-%dT%H}#{at.hour % 2}", f"D#{at:%Y-%m-%d}#{at.hour % 2}"):
                before = self.items.get((key, self.sk), Decimal(0))
                self.items[key, self.sk] = before + Decimal(repr(usd))
        self.reads = 0

    def __call__(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Decimal]:
        self.reads += 1
        return {key: self.items[key] for key in keys if key in self.items}


def told(spent: Mapping[datetime, float], budget: Budget, now: datetime = NOON) -> dict[str, Any] | None:
    case = Case(budget, budget.agent, budgets.period_at(budget.period, now))
    found = Outlooks(Ledger(spent, budget.agent), lambda: 2).of(case, now)
    return found.told if found is not None and found.exceeds else None


def hours(count: int, usd: float, until: datetime = NOON) -> dict[datetime, float]:
    start = until.replace(minute=0)
    return {start - number * HOUR: usd for number in range(1, count + 1)}


def test_a_steady_spend_is_expected_to_go_on() -> None:
    found = told(hours(24 * 10, 0.5), Budget(Decimal(10)))
    assert found is not None
    assert (found["usd"], found["lower_usd"], found["upper_usd"]) == ("12.00", "12.00", "12.00")
    assert found["history"] == "240 hours, 12 to come"
    assert told(hours(24 * 10, 0.5), Budget(Decimal("12.01"))) is None


def test_an_agent_s_month_is_expected_from_its_days() -> None:
    spent = {NOON.replace(minute=0) - number * DAY: 2.0 for number in range(1, 61)}
    found = told(spent, Budget(Decimal(50), "month", agent="manager"))
    assert found is not None
    assert (found["usd"], found["history"]) == ("60.00", "60 days, 9 to come")
    assert told(spent, Budget(Decimal(61), "month", agent="manager")) is None


def test_nights_are_known(full_size: bool) -> None:
    """What stops at six in the evening is not expected to go on, as a mean of all hours would have it."""
    dice = random.Random(5)
    spent = {
        at: usd * dice.uniform(0.95, 1.05) if 8 <= at.hour < 18 else 0.0
        for at, usd in hours(24 * 13, 1.0).items()
    }
    found = told(spent, Budget(Decimal("9.5")))  # 4 so far, 6 to come
    assert found is not None
    assert 9.5 < float(found["usd"]) < 10.5
    assert float(found["lower_usd"]) <= float(found["usd"]) <= float(found["upper_usd"])
    assert float(found["mae_usd"]) <= float(found["naive_mae_usd"])
    assert told(spent, Budget(Decimal("10.8"))) is None


@pytest.mark.parametrize(
    ("count", "budget"),
    [(LEAST_HOURS - 1, Budget(Decimal(1))), (LEAST_DAYS * 24 - 24, Budget(Decimal(1), "month"))],
)
def test_with_too_little_history_it_stays_silent(count: int, budget: Budget) -> None:
    now = NOON if budget.period == "day" else NOON.replace(day=28, hour=0, minute=0)
    assert told(hours(count, 5.0, now), budget, now) is None
    assert told(hours(count + 48, 5.0, now), budget, now) is not None


def test_what_was_before_the_first_spend_is_no_history() -> None:
    """An environment of three days is not taken for one that spent nothing for eleven."""
    found = told(hours(72, 1.0), Budget(Decimal(20)))
    assert found is not None
    assert (found["usd"], found["history"]) == ("24.00", "72 hours, 12 to come")


def test_every_budget_has_its_turn_once_an_hour() -> None:
    ledger = Ledger(hours(100, 0.1))
    outlooks = Outlooks(ledger, lambda: 2)
    cases = [Case(Budget(Decimal(n)), "", "D#2026-11-22") for n in (1, 2, 3)]
    seen = []
    for minute in range(5):
        case = outlooks.due(cases, NOON + minute * timedelta(minutes=1))
        if case is not None:
            seen.append(case)
            outlooks.of(case, NOON)
    assert seen == cases
    assert ledger.reads == 3
    assert outlooks.due(cases, NOON + HOUR) == cases[0]


def test_sums_are_forecast_within_their_intervals(full_size: bool) -> None:
    """A property over random worlds: the truth lies within the stated interval about as often as stated."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    inside = total = 0
    for _ in range(150 if full_size else 12):
        mean = [dice.uniform(0.2, 2) for _ in range(24)]
        values = [Decimal(repr(mean[n % 24] * dice.gammavariate(4, 0.25))) for n in range(24 * 12)]
        remaining = dice.randrange(1, 24)
        found = outlook(values[:-remaining], remaining, 24)
        assert found is not None
        truth = math.fsum(map(float, values[-remaining:]))
        inside += found.lower[-1] <= truth <= found.upper[-1]
        total += 1
    print(f"{inside} of {total} within their interval of 80 %")
    assert inside >= (0.65 * total if full_size else 0.4 * total)
