"""Which stacks an environment has, and how what is wrong with them is said."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk

from agentops_constructs import MonthlyEstimate, monthly_estimate
from agentops_constructs.bundling import BundlingError
from agentops_constructs.validation import acknowledge
from agentops_monitoring import pricing

from .agents_stack import AgentsStack
from .dashboards_stack import DashboardsStack
from .monitoring_stack import MonitoringStack
from .settings import Settings, SettingsError
from .team import FLOWS, TEAM
from .workload_stack import WorkloadStack, shop_functions


class AppError(Exception):
    """The app can't be synthesized; each line names one reason."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Application:
    """The app of one environment."""

    app: cdk.App
    settings: Settings
    stacks: Mapping[str, cdk.Stack]

    def estimate(self) -> MonthlyEstimate:
        """Return what the monitoring costs a month."""
        return monthly_estimate(
            # The sandbox has costs, like an agent.
            self.app,
            agents=len(TEAM) + 1,
            pairs=len(FLOWS),
            detail=self.settings.metric_detail,
        )

    def finish(self) -> None:
        """Write the cloud assembly and say what the monitoring costs.

        Raises
        ------
        AppError
            A check over the tree failed.
        """
        try:
            self.app.synth()
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            if "Validation failed" not in str(error):
                raise
            # Checks over the tree list path and reason. What a rule book found, the CDK has printed already.
            raise AppError(*([line for line in lines if line.startswith("[")] or lines)) from None
        print(f"{self.settings.environment}: {self.estimate()}", file=sys.stderr)


def build(context: Mapping[str, Any] | None = None) -> Application:
    """Build the app.

    Parameters
    ----------
    context
        Added to that of cdk.json and the command line.

    Raises
    ------
    AppError
        The context makes no sense, or the tree can't be built.
    """
    app = cdk.App(context=dict(context or {}), analytics_reporting=False)
    try:
        settings = Settings.from_context(app.node.get_all_context())
    except SettingsError as error:
        raise AppError(*error.args) from None
    try:
        stacks = _stacks(app, settings)
    except (ValueError, BundlingError) as error:
        raise AppError(str(error)) from error
    # Which model an application's own inference profile stands for is not in its ARN.
    if ":application-inference-profile/" not in settings.model_id and not pricing.resolve(settings.model_id):
        cdk.Annotations.of(stacks["agents"]).add_warning_v2(
            "agentops:unpriced-model",
            f"context model_id: the price book does not know it: calls of {settings.model_id} "
            "will be counted as unpriced, not as $0",
        )
    # Python 3.13 is the newest that the AgentOps SDK declares, and all functions run on one version.
    for stack in stacks.values():
        acknowledge(stack, "AwsSolutions-L1", "the newest Python that the AgentOps SDK declares")
    cdk.Tags.of(app).add("application", "agentops-monitoring")
    cdk.Tags.of(app).add("environment", settings.environment)
    return Application(app, settings, stacks)


def _stacks(app: cdk.App, settings: Settings) -> dict[str, cdk.Stack]:
    def name(part: str) -> str:
        return f"AgentOps-{part}-{settings.environment}"

    watch = settings.watch
    stacks: dict[str, cdk.Stack] = {}
    monitoring = stacks["monitoring"] = MonitoringStack(
        app, name("Monitoring"), settings=settings, description="AgentOps: tables, ingest, analysis, alerts"
    )
    if settings.sample_workload:
        stacks["workload"] = WorkloadStack(
            app, name("Workload"), settings=settings, description="AgentOps: a sample shop with defects"
        )
        watch = (*watch, *(each.name for each in shop_functions()))
    agents = stacks["agents"] = AgentsStack(
        app, name("Agents"), settings=settings, watch=watch, description="AgentOps: Manager, Engineer, QA"
    )
    stacks["dashboards"] = DashboardsStack(
        app,
        name("Dashboards"),
        settings=settings,
        team=(agents.manager, agents.engineer, agents.qa),
        description="AgentOps: three dashboards and the alarms",
    )
    for part in ("agents", "dashboards"):
        stacks[part].add_stack_dependency(monitoring, "finds the plane through its SSM parameters")
    return stacks
