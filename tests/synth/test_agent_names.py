"""Agents' names that are given as text: a typo would watch, or show, nothing."""

from __future__ import annotations

from aws_cdk import App, Stack
from aws_cdk import aws_lambda as lambda_
from aws_cdk.assertions import Annotations, Match

from agentops_constructs import (
    AgentDashboard,
    AgentRef,
    BudgetPeriod,
    CostAlarm,
    CostBudget,
    DashboardKind,
    MonitoredAgent,
    MonitoringPlane,
)
from stacks.application import build

from .conftest import EVERYTHING, NO_BUNDLING

INLINE = lambda_.Code.from_inline


def unknown_agents(stack: Stack) -> list[str]:
    found = Annotations.from_stack(stack).find_warning("*", Match.string_like_regexp("no agent of this app"))
    return sorted(str(each.entry.data) for each in found)


def test_an_agent_s_name_that_no_agent_of_the_app_has_is_a_warning_with_the_known_ones(
    stack: Stack, plane: MonitoringPlane
) -> None:
    # Before its agents: the whole tree counts, whatever the order.
    CostAlarm(stack, "Typo", monitoring=plane, threshold_usd=1, agent="helpr")
    AgentDashboard(
        stack, "Board", monitoring=plane, kind=DashboardKind.COLLABORATION,
        agents=[AgentRef("othr", "other-function")], flows=[("helper", "other"), ("helper", "nobody")],
    )  # fmt: skip
    CostAlarm(stack, "Right", monitoring=plane, threshold_usd=1, agent="other")
    MonitoredAgent(
        stack, "Agent", monitoring=plane, agent_name="helper", handler="index.handler",
        code=INLINE("handler = print"),
    )  # fmt: skip
    other = Stack(stack, "Other")
    MonitoredAgent(
        other, "Agent", agent_name="other", handler="index.handler", code=INLINE("handler = print"),
        monitoring=MonitoringPlane.from_environment(other, "Monitoring", "team"),
    )  # fmt: skip

    warnings = unknown_agents(stack)
    assert len(warnings) == 3
    for name, line in zip(["helpr", "nobody", "othr"], warnings, strict=True):
        assert f"in environment team is named '{name}', they are helper, other:" in line
        assert "\n" not in line


def test_a_month_s_budget_of_an_agent_that_nobody_is_is_a_warning_too() -> None:
    stack = Stack(App(context=NO_BUNDLING, analytics_reporting=False), "Budgets")
    month = CostBudget(usd=1, agent="hepler", period=BudgetPeriod.MONTH)
    plane = MonitoringPlane(stack, "Monitoring", environment="team", alert_email="a@b.co", budgets=[month])
    MonitoredAgent(
        stack, "Agent", monitoring=plane, agent_name="helper", handler="index.handler",
        code=INLINE("handler = print"),
    )  # fmt: skip

    (warning,) = unknown_agents(stack)
    assert "is named 'hepler'" in warning


def test_agents_of_other_apps_and_environments_are_not_guessed_at(
    stack: Stack, plane: MonitoringPlane
) -> None:
    CostAlarm(stack, "Elsewhere", monitoring=plane, threshold_usd=1, agent="theirs")
    MonitoredAgent(
        stack, "Agent", agent_name="mine", handler="index.handler", code=INLINE("handler = print"),
        monitoring=MonitoringPlane.from_environment(stack, "Another", "another"),
    )  # fmt: skip

    assert unknown_agents(stack) == []


def test_the_app_itself_names_none_that_it_lacks() -> None:
    application = build({**NO_BUNDLING, "environment": "staging", **EVERYTHING})

    for each in application.stacks.values():
        assert unknown_agents(each) == []
