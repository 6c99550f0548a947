"""Budgets of an environment: what they are told as, and the alarms that some of them have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING

from constructs import Construct

from agentops_monitoring.catalogue import AGENT_NAME, COSTS
from agentops_monitoring.ledger import budgets

from .alarms import CostAlarm
from .naming import check_agent_name
from .roles import allow, allow_items
from .validation import TreeValidation

if TYPE_CHECKING:
    from .monitoring_plane import MonitoringPlane

MAX_CHARACTERS = 2_000
"""Of all budgets together; a function's variables have 4 KB,
https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html."""


class BudgetPeriod(Enum):
    """How long a budget holds, in UTC."""

    DAY = budgets.DAY
    MONTH = budgets.MONTH


@dataclass(frozen=True, slots=True, kw_only=True)
class CostBudget:
    """An amount, of whose 50 %, 80 %, expected overrun and 100 % the topic is told, once each in a period.

    Of all of an agent's daily budget a CloudWatch alarm tells, which this makes. Nothing is stopped by it:
    that is `Budget` of a `MonitoredAgent`, and `on_breach` of a `CostAlarm`.

    Parameters
    ----------
    usd
        The amount.
    period
        A UTC day or month; a workflow's budget holds for its whole life.
    agent
        Whose it is: an agent's name, or `*` for each agent; the whole environment's by default.
    workflow
        A workflow's id, or `*` for each workflow.
    """

    usd: Decimal | float | str
    period: BudgetPeriod | None = None
    agent: str = ""
    workflow: str = ""

    def read(self, *, alarm: bool = False) -> budgets.Budget:
        """Return it as the functions read it.

        Raises
        ------
        ValueError
            It makes no sense.
        """
        if self.period is not None and not isinstance(self.period, BudgetPeriod):
            raise ValueError(f"budget: period is {self.period!r}, not a BudgetPeriod")
        if self.agent not in ("", budgets.EACH):
            check_agent_name(self.agent)
        period = self.period.value if self.period else None
        given = {"usd": str(self.usd), "period": period, "agent": self.agent, "workflow": self.workflow}
        return budgets.budget({**given, "alarm": alarm})


def watch_budgets(scope: Construct, plane: MonitoringPlane, given: Sequence[CostBudget]) -> None:
    """Have a plane's functions watch budgets, and make the alarms of those that have one.

    Raises
    ------
    ValueError
        A budget makes no sense, there are two of the same, or there are too many.
    """
    has_metric = plane.metrics.has(COSTS, "SpendToDate", AGENT_NAME)
    held: list[budgets.Budget] = []
    if not isinstance(given, Sequence) or not all(isinstance(each, CostBudget) for each in given):
        raise ValueError(f"budgets: a list of CostBudget(…) is wanted, not {given!r}")
    for each in given:
        found = each.read()
        if not found.name and found.period == budgets.DAY:
            raise ValueError("budgets: the total of a day is daily_budget_usd")
        if any(other._replace(usd=found.usd, alarm=False) == found for other in held):
            raise ValueError(f"budgets: there are two of {found.name or 'the total'} for a {found.period}")
        if found.agent not in ("", budgets.EACH) and found.period == budgets.DAY and has_metric:
            found = each.read(alarm=True)
            CostAlarm(
                scope, f"Budget-{found.agent}", monitoring=plane, agent=found.agent,
                threshold_usd=found.usd, name=f"Budget-{found.agent}",
            )  # fmt: skip
        elif found.agent not in ("", budgets.EACH):
            TreeValidation.ensure(scope).refer(scope, plane.environment, [found.agent])
        held.append(found)
    text = budgets.dump(held)
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"budgets: {len(text)} characters as JSON, a function takes {MAX_CHARACTERS}: "
            "agent='*' or workflow='*' gives each one the same"
        )
    tellers = (plane.functions.ingest, plane.functions.gauges)
    for function in (*tellers, plane.functions.widgets) if held else ():
        function.add_environment("AGENTOPS_BUDGETS", text)
    for function in tellers:
        function.add_environment("AGENTOPS_COST_DASHBOARD", plane.names.dashboard("Cost"))
        assert function.role is not None
        allow(function.role, ["sns:Publish"], [plane.topic.topic_arn])
        # What is sent leaves the outbox.
        allow_items(function.role, plane.ledger_table, "DeleteItem")
    assert plane.functions.gauges.role is not None
    allow_items(plane.functions.gauges.role, plane.ledger_table, "BatchGetItem", "PutItem", "UpdateItem")
