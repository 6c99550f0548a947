"""A budget whose table is in memory, for tests of the calls that are held to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from agentops_monitoring import instrument
from agentops_monitoring.enforcement.budget import Budget, partition_key
from agentops_monitoring.enforcement.guard import Guard
from agentops_monitoring.enforcement.table import BudgetTable
from tests.unit.ledger.update_item import MemoryTable


class Enforced:
    """The budget of the agent "engineer", and the item that holds it."""

    def __init__(self, usd: str, now: Callable[[], float] = time.time, **options: Any) -> None:
        given = Budget(daily_usd=usd, **options)
        self.table = MemoryTable()
        self.limit = given.daily_usd
        self.now = now
        instrument.guard = Guard(
            given, "engineer", lambda: BudgetTable(self.table, "ledger", "engineer", given.daily_usd), now
        )
        instrument.install()

    @property
    def item(self) -> dict[str, Any]:
        day = time.strftime("%Y-%m-%d", time.gmtime(self.now()))
        return self.table.items.get((partition_key("engineer", day), "STATE"), {})

    @property
    def held(self) -> Decimal:
        """What is reserved for calls under way, in USD."""
        return sum(
            (Decimal(self.item[name]["S"].split()[0]) for name in self.item if name[:2] == "r."), Decimal(0)
        )

    @property
    def booked(self) -> Decimal:
        """What was spent, in USD."""
        if not self.item:
            return Decimal(0)
        return self.limit - Decimal(self.item["available"]["N"]) - self.held


def cost_of(events: list[dict[str, Any]]) -> Decimal:
    """Return what the lines of calls say these cost, in USD."""
    return sum(
        (Decimal(each["data"]["cost_usd"]) for each in events if each["type"] == "llm_usage"), Decimal(0)
    )
