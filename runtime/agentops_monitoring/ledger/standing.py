"""What budgets stand at: what is spent of each in its period, what of it was told, what is expected."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from agentops_monitoring.ledger import budgets, schema
from agentops_monitoring.ledger.budgets import EACH, FORECAST, LIFE, PERCENTS, PERIODS, Budget, Case
from agentops_monitoring.ledger.reader import LedgerReader

OUTLOOK = "outlook"
"""Stands for a threshold in the key of what gauges last expected."""
_TOLD = frozenset(("pending", "sent", "alarmed"))


class Standing(NamedTuple):
    """Of one budget in its current period."""

    case: Case
    spent: Decimal
    told: tuple[str, ...]
    """Thresholds, the lowest first; an alarm's once its metric has shown the amount."""
    outlook: Mapping[str, Any] | None
    """The last forecast, as an alert has it, with `at`; None where there is none."""


def standings(reader: LedgerReader, held: Sequence[Budget], now: datetime) -> list[Standing]:
    """Return where budgets stand, the fullest first.

    Of workflows only those are there that have a budget of their own: all others would have to be searched.
    The requests are a few for each period, however many agents there are.
    """
    found = [*_of_periods(reader, held, now), *_of_workflows(reader, held)]
    return sorted(found, key=lambda each: (-each.case.share(each.spent), each.case.scope, each.case.name))


def _of_periods(reader: LedgerReader, held: Sequence[Budget], now: datetime) -> Iterator[Standing]:
    for kind in PERIODS:
        if not any(each.period == kind for each in held):
            continue
        period = budgets.period_at(kind, now)
        day = budgets.day_of(period)
        spent = reader.spend(day) if kind == budgets.DAY else reader.month_spend(day.year, day.month)
        marks = _marks(reader, period)
        for case in budgets.cases(held, period, kind, agents=sorted(spent.agents)):
            totals = spent.agents.get(case.name) if case.name else spent.total
            yield _standing(case, totals.total_cost if totals else Decimal(0), marks)


def _of_workflows(reader: LedgerReader, held: Sequence[Budget]) -> Iterator[Standing]:
    for each in held:
        if each.period == LIFE and each.workflow != EACH:
            case = Case(each, each.workflow, schema.workflow_bucket(each.workflow))
            spent = reader.workflow_spend(each.workflow).total_cost
            yield _standing(case, spent, _marks(reader, case.period))


def _marks(reader: LedgerReader, period: str) -> dict[str, Mapping[str, Any]]:
    return {item["sk"]["S"]: item for item in reader.partition(schema.alert_pk(period))}


def _standing(case: Case, spent: Decimal, marks: Mapping[str, Mapping[str, Any]]) -> Standing:
    thresholds = [*map(str, PERCENTS), FORECAST]
    states = {each: marks.get(f"{case.id}#{each}", {}).get("state", {}).get("S") for each in thresholds}
    kept = marks.get(f"{case.id}#{OUTLOOK}")
    outlook = json.loads(kept["outlook"]["S"]) if kept else None
    return Standing(case, spent, tuple(each for each in thresholds if states[each] in _TOLD), outlook)
