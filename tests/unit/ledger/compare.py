"""What the reader says of hours, days and months, beside what a recount says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from typing import Any

from agentops_monitoring.ledger.reader import LedgerReader, Rollups
from tests.unit.ledger.recount import Count

ENDED = ("workflows_completed", "workflows_failed")


def check_rollups(reader: LedgerReader, expected: Count) -> None:
    """Compare every hour and day, and what budgets see of days and months."""
    hours = sorted({*expected.total, *(hour for hour, _ in expected.types)})
    if not hours:
        return
    start = datetime.fromisoformat(f"{hours[0]}:00:00+00:00")
    end = datetime.fromisoformat(f"{hours[-1]}:00:00+00:00") + timedelta(hours=1)
    for hour, found in reader.hours(start, end).items():
        compare(found, expected, hour.strftime("%Y-%m-%dT%H"))
    for day, found in reader.days(start.date(), end.date() + timedelta(days=1)).items():
        compare(found, expected, day.isoformat())
    for spent in {at for at, _ in expected.day_spend}:
        check_spend(reader.spend(date.fromisoformat(spent)), expected, spent)
    for month in {at[:7] for at, _ in expected.day_spend}:
        check_spend(reader.month_spend(int(month[:4]), int(month[5:])), expected, month)


def check_days(reader: LedgerReader, expected: Count) -> None:
    """Compare every day, with an empty one before and behind, every month, and all of it as one window."""
    days = sorted({hour[:10] for hour in expected.total})
    first, last = (date.fromisoformat(day) for day in (days[0], days[-1]))
    for day, found in reader.days(first - timedelta(days=1), last + timedelta(days=2)).items():
        compare(found, expected, day.isoformat())
    start = datetime.combine(first, time(5), UTC) - timedelta(days=1)
    compare(reader.window(start, start + (last - first) + timedelta(days=2)), expected, "")
    for month in sorted({day[:7] for day in days}):
        compare(reader.month(int(month[:4]), int(month[5:])), expected, month)


def compare(found: Rollups, expected: Count, period: str) -> None:
    """Compare the counters of an hour, a day or a month, told by how its hours begin."""
    total = _sum({hour: counters for hour, counters in expected.total.items() if hour.startswith(period)})
    assert _nonzero(found.total.counters) == total
    agents = _by(expected.agents, period)
    for (hour, agent, name), count in expected.outcomes.items():
        if hour.startswith(period) and count:
            agents.setdefault(agent, {})[name] = agents.get(agent, {}).get(name, Fraction(0)) + count
    assert {agent: _nonzero(each.counters) for agent, each in found.agents.items()} == agents
    assert {model: _nonzero(each.counters) for model, each in found.models.items()} == _by(
        expected.models, period
    )
    flows: dict[tuple[str, str], list[Mapping[str, Fraction]]] = defaultdict(list)
    for (hour, sender, to), counters in expected.flows.items():
        if hour.startswith(period):
            flows[sender, to].append(counters)
    assert {pair: _nonzero(each.counters) for pair, each in found.flows.items()} == {
        pair: _sum(dict(enumerate(each))) for pair, each in flows.items()
    }
    types: dict[str, list[Fraction]] = defaultdict(lambda: [Fraction(0), Fraction(0)])
    for (hour, kind), (events, cost) in expected.types.items():
        if hour.startswith(period):
            types[kind] = [types[kind][0] + events, types[kind][1] + cost]
    assert {kind: [Fraction(each.events), Fraction(each.cost)] for kind, each in found.types.items()} == {
        kind: pair for kind, pair in types.items() if any(pair)
    }
    # EventCost over all types is TotalCost, exactly.
    assert sum(each.cost for each in found.types.values()) == found.total.total_cost


def check_spend(spend: Rollups, expected: Count, period: str) -> None:
    """Compare what budgets see of a day or a month."""
    by_agent: dict[str, Fraction] = defaultdict(Fraction)
    for (day, agent), usd in expected.day_spend.items():
        if day.startswith(period):
            by_agent[agent] += usd
    assert {a: Fraction(t.total_cost) for a, t in spend.agents.items() if t.total_cost} == {
        agent: usd for agent, usd in by_agent.items() if usd
    }
    assert Fraction(spend.total.total_cost) == sum(by_agent.values())


def _by(expected: Mapping[tuple[str, str], Mapping[str, Fraction]], period: str) -> dict[str, Any]:
    found: dict[str, dict[str, Mapping[str, Fraction]]] = defaultdict(dict)
    for (hour, name), counters in expected.items():
        if hour.startswith(period):
            found[name][hour] = counters
    return {name: _sum(each) for name, each in found.items()}


def _sum(several: Mapping[Any, Mapping[str, Fraction]]) -> dict[str, Fraction]:
    total: dict[str, Fraction] = defaultdict(Fraction)
    for counters in several.values():
        for name, value in counters.items():
            total[name] += value
    return _nonzero(total)


def _nonzero(counters: Mapping[str, Any]) -> dict[str, Fraction]:
    return {name: Fraction(value) for name, value in counters.items() if value}
