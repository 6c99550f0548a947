"""What the money of a budget went to, most of it first, out of the ledger's rollups."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from agentops_monitoring.ledger import budgets, schema
from agentops_monitoring.ledger.alerts import Alert
from agentops_monitoring.ledger.letters import Cause
from agentops_monitoring.ledger.reader import LedgerReader, WorkflowSpend
from agentops_monitoring.ledger.totals import Rollups

MOST = 3
"""Of a kind."""


def causes(reader: LedgerReader, alert: Alert, now: datetime) -> list[Cause] | None:
    """Return what was spent most on until now; None when that cannot be read, which keeps no alert back.

    Of a total these are agents, models and event types; of an agent, models and compute; of a workflow,
    agents, models and compute.
    """
    try:
        if alert.scope == "workflow":
            return _of_workflow(reader.workflow_spend(alert.name))
        day = budgets.day_of(alert.period)
        if alert.kind == budgets.DAY:
            start = datetime(day.year, day.month, day.day, tzinfo=UTC)
            found = reader.window(start, min(now, schema.end_of(alert.period)))
        else:
            found = reader.month(day.year, day.month)
    except Exception:  # noqa: BLE001 - whatever it is, and be it each time, the alert must go out
        return None
    return _of_agent(found, alert.name) if alert.scope == "agent" else _of_total(found)


def _of_total(found: Rollups) -> list[Cause]:
    return [
        *_top("agent", {name: totals.total_cost for name, totals in found.agents.items()}),
        *_top("model", {name: totals.llm_cost for name, totals in found.models.items()}),
        *_top("led to", {name.replace("_", " "): each.cost for name, each in found.types.items()}),
    ]


def _of_agent(found: Rollups, agent: str) -> list[Cause]:
    totals = found.agents.get(agent)
    if totals is None:
        return []
    calls, runs = totals.llm_calls, totals.invocations
    parts = {f"model calls ({calls})": totals.llm_cost, f"compute of {runs} invocations": totals.compute_cost}
    # The ledger does not keep which model whose calls were of.
    return _top("its", parts)


def _of_workflow(spent: WorkflowSpend) -> list[Cause]:
    return [
        *_top("agent", spent.agents),
        *_top("model", spent.models),
        *_top("compute", {"of all its invocations": spent.compute_cost}),
    ]


def _top(kind: str, amounts: Mapping[str, Decimal]) -> list[Cause]:
    spent = sorted(
        ((usd, name) for name, usd in amounts.items() if usd), key=lambda each: (-each[0], each[1])
    )
    return [Cause(kind, name, usd) for usd, name in spent[:MOST]]
