"""What the monitoring itself costs a month."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from aws_cdk import Stack
from aws_cdk import aws_cloudwatch as cw
from constructs import IConstruct

from agentops_monitoring import catalogue
from agentops_monitoring.catalogue import MetricDetail

# https://aws.amazon.com/cloudwatch/pricing/, us-east-1, first tiers.
ALARM_METRIC_USD = Decimal("0.10")
DASHBOARD_USD = Decimal("3")
FREE_DASHBOARDS = 3


class MonthlyEstimate(NamedTuple):
    """An upper bound of the fixed monthly price, in USD; functions, tables and logs are paid by use."""

    metrics: int
    metrics_usd: Decimal
    alarm_metrics: int
    dashboards: int

    @property
    def total_usd(self) -> Decimal:
        """Everything together, with the account's three free dashboards taken off."""
        paid = max(0, self.dashboards - FREE_DASHBOARDS)
        return self.metrics_usd + self.alarm_metrics * ALARM_METRIC_USD + paid * DASHBOARD_USD

    def __str__(self) -> str:
        return (
            f"monitoring costs at most ${self.total_usd:.2f} a month: {self.metrics} custom metrics "
            f"${self.metrics_usd:.2f}, {self.alarm_metrics} alarm metrics "
            f"${self.alarm_metrics * ALARM_METRIC_USD:.2f}, {self.dashboards} dashboards; "
            "functions, tables and logs by use"
        )


def monthly_estimate(
    root: IConstruct,
    *,
    agents: int,
    pairs: int,
    models: int = 1,
    declared: int = 0,
    detail: MetricDetail = MetricDetail.STANDARD,
) -> MonthlyEstimate:
    """Return what the monitoring in a construct tree costs a month.

    Parameters
    ----------
    root
        The app.
    agents, pairs, models, declared
        How many agents, talking pairs, models and declared event types its environment has.
    detail
        The plane's level of detail.
    """
    count, usd = catalogue.monthly_cost(agents, pairs, models, detail, declared=declared)
    alarm_metrics = dashboards = 0
    for each in root.node.find_all():
        if isinstance(each, cw.CfnAlarm):
            queries = Stack.of(each).resolve(each.metrics) or []
            alarm_metrics += max(1, sum(1 for query in queries if "metricStat" in query))
        elif isinstance(each, cw.CfnDashboard):
            dashboards += 1
    return MonthlyEstimate(count, usd, alarm_metrics, dashboards)
