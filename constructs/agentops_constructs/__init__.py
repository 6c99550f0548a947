"""CDK constructs that monitor autonomous agents: swap `lambda_.Function` for `MonitoredAgent`."""

from __future__ import annotations

try:
    import aws_cdk  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "agentops_constructs needs the AWS CDK: pip install 'agentops-monitoring[cdk]', "
        "or in a clone of it: pip install '.[cdk]'",
        name=missing.name,
    ) from missing

from agentops_monitoring.catalogue import MetricDetail
from agentops_monitoring.enforcement.budget import Budget

from .agent_dashboard import AgentDashboard, AgentRef, DashboardKind
from .alarms import CostAlarm, MonitoringAlarms
from .budgets import BudgetPeriod, CostBudget
from .bundling import AgentSource
from .estimate import MonthlyEstimate, monthly_estimate
from .ingest_stream import IngestStream
from .metrics import MetricFactory
from .monitored_agent import MonitoredAgent
from .monitoring_plane import MonitoringPlane
from .naming import Names
from .plane_base import ImportedMonitoringPlane
from .stopping import CostAction

__all__ = [
    "AgentDashboard",
    "AgentRef",
    "AgentSource",
    "Budget",
    "BudgetPeriod",
    "CostAction",
    "CostAlarm",
    "CostBudget",
    "DashboardKind",
    "ImportedMonitoringPlane",
    "IngestStream",
    "MetricDetail",
    "MetricFactory",
    "MonitoredAgent",
    "MonitoringAlarms",
    "MonitoringPlane",
    "MonthlyEstimate",
    "Names",
    "monthly_estimate",
]
