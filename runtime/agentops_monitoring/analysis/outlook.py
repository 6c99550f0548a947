"""What of a budget will be spent by the end of its period, if things go on as they went.

What is still to come is a sum of hours (of a day) or of days (of a month), so the history that is forecast is
one of such sums: what every as many hours, or days, in a row have cost. Its forecast by as many steps is what
the rest of the period will cost, and its backtest is of that very question.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from agentops_monitoring.analysis.forecasting import Forecast, forecast
from agentops_monitoring.ledger import budgets, schema
from agentops_monitoring.ledger.budgets import DAY, Case

Read = Callable[[Sequence[tuple[str, str]]], Mapping[tuple[str, str], Decimal]]
"""Reads what the items of some keys say was spent; those that do not exist are left out."""

HOURS, DAYS = 14 * 24, 120
"""How much of the past is looked at, for budgets of days and of months."""
LEAST_HOURS, LEAST_DAYS = 48, 14
"""How much of it there must be, from the first spend on."""
_MARGIN = 7
"""And beyond what is still to come, so that the backtest has something to go by."""
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


class Expected(NamedTuple):
    """What a period will cost."""

    exceeds: bool
    """Whether that is more than the budget."""
    told: dict[str, Any]
    """How much, in which interval, and how far the method was off in the past."""


def outlook(history: Sequence[Decimal], remaining: int, season: int) -> Forecast | None:
    """Forecast the sum of the next `remaining` values; its last step is that sum.

    Parameters
    ----------
    history
        What was spent in each hour or day before, oldest first.
    remaining
        How many are still to come.
    season
        After how many a pattern repeats.

    Returns
    -------
    Forecast | None
        None while the history is too short to state an interval.
    """
    values = [float(each) for each in history]
    sums = [math.fsum(values[end - remaining : end]) for end in range(remaining, len(values) + 1)]
    if len(sums) < _MARGIN:
        return None
    found = forecast(sums, remaining, season)
    return found if math.isfinite(found.upper[-1]) else None


class Outlooks:
    """Forecasts of budgets, each made once an hour.

    Parameters
    ----------
    read
        Reads the ledger.
    shards
        Returns over how many items each rollup is spread.
    """

    def __init__(self, read: Read, shards: Callable[[], int]) -> None:
        self._read = read
        self._shards = shards
        self._made: dict[Case, str] = {}

    def due(self, cases: Sequence[Case], now: datetime) -> Case | None:
        """Return the case that waits longest for its forecast of this hour; None when all are made."""
        hour = _text(now)[:13]
        held = set(cases)
        self._made = {case: at for case, at in self._made.items() if case in held}
        waiting = [case for case in cases if self._made.get(case, "") != hour]
        return min(waiting, key=lambda case: self._made.get(case, ""), default=None)

    def of(self, case: Case, now: datetime) -> Expected | None:
        """Return what a budget's period will cost in all; None when nobody knows."""
        self._made[case] = _text(now)[:13]
        step, season, kept = (_HOUR, 24, HOURS) if case.budget.period == DAY else (_DAY, 7, DAYS)
        this = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        if step == _DAY:
            this = this.replace(hour=0)
        history = self._history(case, [this - step * number for number in range(kept, 0, -1)])
        end, first = schema.end_of(case.period), budgets.day_of(case.period)
        over = int((this - datetime(first.year, first.month, first.day, tzinfo=UTC)) / step)
        if len(history) < (LEAST_HOURS if step == _HOUR else LEAST_DAYS):
            return None
        remaining = int((end - this) / step)
        found = outlook(history, remaining, season)
        if found is None:
            return None
        spent = float(sum(history[max(0, len(history) - over) :], Decimal(0)))
        told = _told(found, spent, len(history), "hours" if step == _HOUR else "days", remaining)
        return Expected(Decimal(spent + found.mean[-1]) > case.budget.usd, told)

    def _history(self, case: Case, starts: Sequence[datetime]) -> list[Decimal]:
        """Return what was spent from each of these times to the next, from the first spend on."""
        sk = schema.agent_key(case.name) if case.budget.agent else schema.TOTAL
        of_bucket = schema.hour_bucket if case.budget.period == DAY else schema.day_bucket
        keys = [[(f"{of_bucket(_text(at))}#{n}", sk) for n in range(self._shards())] for at in starts]
        spent = self._read([key for each in keys for key in each])
        values = [sum((spent.get(key, Decimal(0)) for key in each), Decimal(0)) for each in keys]
        first = next((number for number, value in enumerate(values) if value), len(values))
        return values[first:]


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _told(found: Forecast, spent: float, length: int, unit: str, remaining: int) -> dict[str, Any]:
    backtest = found.backtest
    return {
        "usd": _usd(spent + found.mean[-1]),
        "lower_usd": _usd(spent + found.lower[-1]),
        "upper_usd": _usd(spent + found.upper[-1]),
        "level": f"{backtest.level:.0%}".replace("%", " %"),
        "model": found.model,
        "models": len(backtest.mae),
        "history": f"{length} {unit}, {remaining} to come",
        "mae_usd": _usd(backtest.mae[found.model]),
        "naive_mae_usd": _usd(backtest.mae["naive"]),
        "origins": backtest.origins,
        "coverage": None if backtest.coverage is None else f"{backtest.coverage:.0%}".replace("%", " %"),
    }


def _usd(value: float) -> str:
    """Return an estimate with no more digits than it deserves."""
    return f"{value:.2f}" if value >= 1 else f"{value:.2g}" if value > 0 else "0.00"
