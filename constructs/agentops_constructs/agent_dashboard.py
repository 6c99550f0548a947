"""The three dashboards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from aws_cdk import Aws, Duration
from aws_cdk import aws_cloudwatch as cw
from constructs import Construct

from .dashboards import collaboration, cost, main
from .dashboards.board import Board
from .monitored_agent import MonitoredAgent
from .plane_base import PlaneBase
from .validation import TreeValidation


class DashboardKind(Enum):
    """Which of the three dashboards; the value is what its name has behind `AgentOps-Monitoring`."""

    MAIN = ""
    COST = "Cost"
    COLLABORATION = "Collaboration"


@dataclass(frozen=True, slots=True)
class AgentRef:
    """An agent of another stack, by its name and the name of its function."""

    agent_name: str
    function_name: str


class AgentDashboard(Construct):
    """One of the dashboards, each widget of which is fed by a metric of the catalogue.

    Parameters
    ----------
    monitoring
        The plane whose environment it shows.
    kind
        Health and activity, costs, or collaboration.
    agents
        Agents with lines of their own.
    flows
        Pairs of agents that send messages, sender first.
    models
        Models whose tokens and cost are shown, by their canonical ids.
    alarms
        Alarms whose state is shown.
    daily_budget_usd
        The line in the spend chart.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        monitoring: PlaneBase,
        kind: DashboardKind,
        agents: Sequence[MonitoredAgent | AgentRef] = (),
        flows: Sequence[tuple[str, str]] = (),
        models: Sequence[str] = (),
        alarms: Sequence[cw.IAlarm] = (),
        daily_budget_usd: Decimal | float = 10,
    ) -> None:
        super().__init__(scope, id)
        names = monitoring.names
        self.dashboard_name = names.dashboard(kind.value)
        board = Board(
            environment=monitoring.environment,
            metrics=monitoring.metrics,
            agents=[
                AgentRef(each.agent_name, each.function.function_name)
                if isinstance(each, MonitoredAgent)
                else each
                for each in agents
            ],
            flows=list(flows),
            models=list(models),
            alarms=list(alarms),
            daily_budget_usd=float(daily_budget_usd),
            widgets_function_arn=monitoring.widgets_function_arn,
            links={each.name.capitalize(): names.dashboard(each.value) for each in DashboardKind},
        )
        rows = {
            DashboardKind.MAIN: main.rows,
            DashboardKind.COST: cost.rows,
            DashboardKind.COLLABORATION: collaboration.rows,
        }[kind](board)
        self.dashboard = cw.Dashboard(
            self,
            "Dashboard",
            dashboard_name=self.dashboard_name,
            default_interval=Duration.days(1) if kind is DashboardKind.COST else Duration.hours(3),
            period_override=cw.PeriodOverride.AUTO,
            widgets=rows,
        )
        self.url = dashboard_url(self.dashboard_name)
        validation = TreeValidation.ensure(self)
        validation.expect(monitoring.metrics)
        named = [each.agent_name for each in agents if isinstance(each, AgentRef)]
        validation.refer(self, monitoring.environment, [*named, *(name for flow in flows for name in flow)])


def dashboard_url(name: str) -> str:
    """Return the console's address of a dashboard in the region of the stack."""
    return (
        f"https://{Aws.REGION}.console.aws.amazon.com/cloudwatch/home"
        f"?region={Aws.REGION}#dashboards:name={name}"
    )
