"""Tables, bus, topic, ingest, gauges, analyzer, export and widgets."""

from __future__ import annotations

from typing import Any

from aws_cdk import CfnOutput, Stack
from constructs import Construct

from agentops_constructs import BudgetPeriod, CostBudget, MonitoringPlane

from .settings import Settings


class MonitoringStack(Stack):
    """The monitoring plane of one environment."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, **stack_props: Any) -> None:
        super().__init__(scope, id, **stack_props)
        month = settings.monthly_budget_usd
        self.monitoring = MonitoringPlane(
            self,
            "Monitoring",
            environment=settings.environment,
            alert_email=settings.alert_email,
            daily_budget_usd=settings.daily_budget_usd,
            budgets=[CostBudget(usd=month, period=BudgetPeriod.MONTH)] if month else [],
            agentops_api_key_secret=settings.agentops_api_key_secret,
            metric_detail=settings.metric_detail,
            ingest_stream=settings.ingest_stream,
            dashboard_suffix=settings.dashboard_suffix,
        )
        CfnOutput(self, "AlertTopicArn", value=self.monitoring.topic.topic_arn)
        CfnOutput(self, "EventBusName", value=self.monitoring.event_bus.event_bus_name)
        CfnOutput(self, "DeadLetterQueueUrl", value=self.monitoring.dead_letter_queue.queue_url)
