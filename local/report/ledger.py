"""The run's figures, read from the ledger through the runtime's own reader."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.schema import Tables
from agentops_monitoring.ledger.unit_costs import unit_costs
from agentops_monitoring.views.flow import Flow

from .facts import AgentFacts, Facts
from .widgets import Span


def tables_of(environment: str) -> Tables:
    """The environment's tables; only production's bear no suffix."""
    suffix = "" if environment == "production" else f"-{environment}"
    return Tables(*(f"agent-{name}{suffix}" for name in ("monitoring", "decisions", "ledger")))


def collect(dynamodb: Any, tables: Tables, environment: str, span: Span) -> Facts:
    """Ask the ledger for everything that happened in the hours that the span touches."""
    start, end = (datetime.fromtimestamp(at, UTC) for at in (span.start, span.end))
    window = LedgerReader(dynamodb, tables).window(start, end)
    agents = []
    for name, totals in sorted(window.agents.items(), key=lambda one: -one[1].total_cost):
        rate = totals.success_rate
        agents.append(
            AgentFacts(
                name=name,
                invocations=totals.invocations,
                events=totals.events,
                llm_usd=totals.llm_cost,
                compute_usd=totals.compute_cost,
                success_rate=None if math.isnan(rate) else rate,
                ended_workflows=totals.workflows_completed + totals.workflows_failed,
                decisions=totals.by_type.get("decision_made", 0),
                mean_confidence=totals.mean_confidence,
            )
        )
    ended = {name: events for name, (events, _) in window.types.items()}
    return Facts(
        environment=environment,
        started_at=start.strftime("%Y-%m-%d %H:%M"),
        ended_at=end.strftime("%Y-%m-%d %H:%M"),
        agents=agents,
        flows=[
            Flow(source, target, totals.messages, totals.mean_handoff_ms, totals.p95_handoff_ms)
            for (source, target), totals in window.flows.items()
            if totals.messages
        ],
        llm_usd=window.total.llm_cost,
        compute_usd=window.total.compute_cost,
        completed=ended.get("workflow_completed", 0),
        failed=ended.get("workflow_failed", 0),
        events=window.total.events,
        unit_costs=unit_costs(window),
    )
