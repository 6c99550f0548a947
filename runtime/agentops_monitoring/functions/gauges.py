"""Lambda entry point, each minute: the spend of the UTC day, from the ledger.

What an alarm on money watches must not miss a batch whose metrics got lost, and must fall to 0 at midnight.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from agentops_monitoring import settings
from agentops_monitoring.catalogue import COSTS
from agentops_monitoring.emf import MetricValue, emf_lines
from agentops_monitoring.ledger.reader import LedgerReader


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


def budget(text: str) -> Decimal:
    """Return the daily budget that `COST_ALERT_THRESHOLD` says, USD.

    Raises
    ------
    ValueError
        It is no amount of money.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not (amount.is_finite() and amount >= 0):
        raise ValueError(f"COST_ALERT_THRESHOLD is {text!r}, not an amount in USD")
    return amount


@lru_cache(maxsize=1)
def _reader() -> LedgerReader:
    return LedgerReader.from_environment()


def handler(event: Mapping[str, Any], context: Any) -> None:  # noqa: ARG001 - Lambda's signature
    """Print the gauges."""
    found = settings.load()
    daily = budget(found.cost_alert_threshold)
    values = gauges(_reader(), found.environment, daily, datetime.now(UTC))
    for line in emf_lines(values, at_ms=time.time_ns() // 1_000_000):
        print(line, flush=True)
