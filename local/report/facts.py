"""The run's figures: what the page, the console and summary.json all show."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from agentops_monitoring.ledger.unit_costs import UnitCost
from agentops_monitoring.views.flow import Flow

from .recount import Check


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What one agent did; costs in USD, `success_rate` and `mean_confidence` 0…1 or None."""

    name: str
    invocations: int
    events: int
    llm_usd: Decimal
    compute_usd: Decimal
    success_rate: float | None
    ended_workflows: int
    decisions: int
    mean_confidence: float | None


@dataclass(slots=True)
class Facts:
    """Everything that is known of the run."""

    environment: str
    started_at: str
    ended_at: str
    agents: list[AgentFacts]
    flows: list[Flow]
    llm_usd: Decimal
    compute_usd: Decimal
    completed: int
    failed: int
    events: int
    unit_costs: tuple[UnitCost, ...] = ()
    workflows: int = 0
    alarms: list[dict[str, str]] = field(default_factory=list)
    alarm_note: str = ""
    """What a reader must know of the alarms to read them right; page only."""
    mails: list[dict[str, Any]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    dashboards: dict[str, int] = field(default_factory=dict)
    widgets_without_data: list[dict[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every figure was confirmed by the recount."""
        return all(check.ok for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The figures for programs; money as exact decimal strings."""
        return {
            "environment": self.environment,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "ok": self.ok,
            "totals": {
                "workflows": self.workflows,
                "completed": self.completed,
                "failed": self.failed,
                "events": self.events,
                "llm_usd": exact(self.llm_usd),
                "compute_usd": exact(self.compute_usd),
                "total_usd": exact(self.llm_usd + self.compute_usd),
            },
            "agents": [
                {
                    "name": agent.name,
                    "invocations": agent.invocations,
                    "events": agent.events,
                    "llm_usd": exact(agent.llm_usd),
                    "compute_usd": exact(agent.compute_usd),
                    "success_rate": agent.success_rate,
                    "ended_workflows": agent.ended_workflows,
                    "decisions": agent.decisions,
                    "mean_confidence": agent.mean_confidence,
                }
                for agent in self.agents
            ],
            "unit_costs": {
                each.name: {
                    "results": each.results,
                    "usd": exact(each.usd),
                    "each_usd": None if each.each is None else exact(each.each),
                }
                for each in self.unit_costs
            },
            "flows": [
                {
                    "from": flow.source,
                    "to": flow.target,
                    "messages": flow.count,
                    "mean_latency_ms": flow.latency_ms,
                }
                for flow in self.flows
            ],
            "alarms": self.alarms,
            "mails": self.mails,
            "checks": [check.as_json() for check in self.checks],
            "runs": self.runs,
            "dashboards": self.dashboards,
            "widgets_without_data": self.widgets_without_data,
        }


def exact(value: Decimal) -> str:
    """A decimal in full, never in scientific notation."""
    return f"{value.normalize():f}"
