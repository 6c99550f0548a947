"""The three dashboards and the alarms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aws_cdk import ArnFormat, CfnOutput, Stack
from aws_cdk import aws_cloudwatch as cw
from constructs import Construct

from agentops_constructs import (
    AgentDashboard,
    AgentRef,
    CostAction,
    CostAlarm,
    DashboardKind,
    MonitoredAgent,
    MonitoringAlarms,
    MonitoringPlane,
)
from agentops_monitoring import pricing
from agentops_monitoring.catalogue import AGENT_NAME, COSTS

from .settings import Settings
from .team import FLOWS, SANDBOX, TEAM


class DashboardsStack(Stack):
    """What operators and finance look at."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        settings: Settings,
        team: Sequence[MonitoredAgent],
        **stack_props: Any,
    ) -> None:
        super().__init__(scope, id, **stack_props)
        monitoring = MonitoringPlane.from_environment(
            self,
            "Monitoring",
            settings.environment,
            metric_detail=settings.metric_detail,
            dashboard_suffix=settings.dashboard_suffix,
        )
        budget = settings.daily_budget_usd
        alarms = MonitoringAlarms(
            self,
            "Alarms",
            monitoring=monitoring,
            daily_budget_usd=budget,
            on_breach=settings.on_breach,
            stops=team if settings.on_breach is CostAction.STOP_AGENT else (),
        )
        shown: list[cw.IAlarm] = alarms.all
        agents: list[AgentRef] = []
        for member in TEAM:
            agents.append(member.ref(monitoring.names))
            if monitoring.metrics.has(COSTS, "SpendToDate", AGENT_NAME):
                cost = CostAlarm(
                    self,
                    f"{member.title}Cost",
                    monitoring=monitoring,
                    agent=member.name,
                    threshold_usd=budget,
                )
                shown.append(cost.alarm)
            shown += [
                self._alarm(monitoring.names.alarm(f"{kind}-{member.name}"))
                for kind in ("LogDelivery", "FailedEvents")
            ]
        sandbox = AgentRef(SANDBOX, monitoring.names.function(SANDBOX))
        canonical = pricing.resolve(settings.model_id) or settings.model_id
        for board in DashboardKind:
            dashboard = AgentDashboard(
                self,
                board.name.capitalize(),
                monitoring=monitoring,
                kind=board,
                # The sandbox runs no monitor, but its compute is paid for.
                agents=[*agents, sandbox] if board is DashboardKind.COST else agents,
                flows=FLOWS,
                models=[canonical],
                alarms=shown,
                daily_budget_usd=budget,
            )
            CfnOutput(self, f"{board.name.capitalize()}DashboardUrl", value=dashboard.url)

    def _alarm(self, name: str) -> cw.IAlarm:
        """Return an alarm of the agents' stack."""
        arn = self.format_arn(
            service="cloudwatch",
            resource="alarm",
            resource_name=name,
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        return cw.Alarm.from_alarm_arn(self, name, arn)
