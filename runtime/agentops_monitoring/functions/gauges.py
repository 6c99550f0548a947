"""Lambda entry point, each minute: the spend of the UTC day, from the ledger, and the alerts of budgets.

What an alarm on money watches must not miss a batch whose metrics got lost, and must fall to 0 at midnight.
Ingest tells what its batches crossed; what it could not look at, or not send, is told here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from agentops_monitoring import settings
from agentops_monitoring.analysis.outlook import Outlooks
from agentops_monitoring.catalogue import COSTS
from agentops_monitoring.emf import MetricValue, emf_lines
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.budgets import threshold
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.watch import Watch


def gauges(
    reader: LedgerReader, environment: str, daily_budget_usd: Decimal, now: datetime
) -> Iterator[MetricValue]:
    """Return spend and budget utilization, in total and by agent; 0 for who spent yesterday but not today.

    Parameters
    ----------
    reader
        The ledger.
    environment
        The deployment's name.
    daily_budget_usd
        USD per UTC day; 0 is no budget.
    now
        The day asked for contains it.
    """
    today = reader.spend(now.astimezone(UTC).date())
    yesterday = reader.spend(now.astimezone(UTC).date() - timedelta(days=1))
    own = {"Environment": environment}
    spends = [(own, today.total.total_cost)]
    for agent in sorted({*today.agents, *yesterday.agents}):
        spent = today.agents[agent].total_cost if agent in today.agents else Decimal(0)
        spends.append((own | {"AgentName": agent}, spent))
    for where, spent in spends:
        yield MetricValue(COSTS, "SpendToDate", float(spent), where)
        if daily_budget_usd > 0:
            yield MetricValue(COSTS, "BudgetUtilization", float(spent / daily_budget_usd * 100), where)


class Gauges:
    """The function's parts, made once per process."""

    def __init__(self) -> None:
        client, tables = schema.client(), schema.Tables.from_environment()
        self.reader = LedgerReader(client, tables)
        self.watch = Watch.from_environment(client, tables, alarmed=True)
        self.outlooks = Outlooks(self.watch.read, self.watch.shards) if self.watch else None

    def alert(self, now: datetime, shown: Mapping[str, float]) -> None:
        """Tell the thresholds that are crossed, and look at one forecast: one takes about a second.

        Parameters
        ----------
        now
            The time that the gauges are of.
        shown
            USD that the alarms were shown, by agent, of all of them by an empty name.
        """
        if self.watch is None or self.outlooks is None:
            return
        spent = self.watch.everything(now, shown)
        case = self.outlooks.due([case for case, usd in spent.items() if usd], now)
        if case is None or (found := self.outlooks.of(case, now)) is None:
            return
        self.watch.keep_outlook(case, found.told)
        if found.exceeds and case.reached(spent[case]) < 100:
            self.watch.expect(case, spent[case], found.told)


@lru_cache(maxsize=1)
def _gauges() -> Gauges:
    return Gauges()


def handler(event: Mapping[str, Any], context: Any) -> None:  # noqa: ARG001 - Lambda's signature
    """Print the gauges, then tell what crossed a threshold."""
    parts, found, now = _gauges(), settings.load(), datetime.now(UTC)
    daily = threshold(found.cost_alert_threshold)
    values = list(gauges(parts.reader, found.environment, daily, now))
    for line in emf_lines(values, at_ms=time.time_ns() // 1_000_000):
        print(line, flush=True)
    shown = {
        each.dimensions.get("AgentName", ""): each.value
        for each in values
        if each.name == "SpendToDate" and isinstance(each.value, float)
    }
    parts.alert(now, shown)
