"""Budgets of a plane: what the functions are told, the alarms that some have, and who may publish."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aws_cdk import Stack
from aws_cdk.assertions import Template

from agentops_constructs import BudgetPeriod, CostBudget, MetricDetail, MonitoringPlane
from agentops_monitoring.ledger import budgets

MONTH = CostBudget(usd=100, period=BudgetPeriod.MONTH)
WATCHING = ("agentops-gauges-team", "agentops-ingest-team")


def plane_with(stack: Stack, *given: CostBudget, **more: Any) -> Template:
    MonitoringPlane(stack, "Watched", environment="team", alert_email="a@b.co", budgets=given, **more)
    return Template.from_stack(stack)


def variables(template: Template) -> dict[str, dict[str, Any]]:
    found = template.find_resources("AWS::Lambda::Function")
    functions = [each["Properties"] for each in found.values() if "FunctionName" in each["Properties"]]
    return {each["FunctionName"]: each.get("Environment", {}).get("Variables", {}) for each in functions}


def test_ingest_and_gauges_are_told_the_budgets(stack: Stack) -> None:
    given = (
        MONTH, CostBudget(usd="2.50", agent="manager"), CostBudget(usd=0.5, workflow="*"),
        CostBudget(usd=30, period=BudgetPeriod.MONTH, agent="*"),
    )  # fmt: skip
    template = plane_with(stack, *given)
    told = variables(template)
    shown = [*WATCHING, "agentops-widgets-team"]
    assert sorted(name for name, each in told.items() if "AGENTOPS_BUDGETS" in each) == shown
    assert told[shown[-1]]["AGENTOPS_BUDGETS"] == told[shown[0]]["AGENTOPS_BUDGETS"]
    for name in WATCHING:
        assert budgets.parse(told[name]["AGENTOPS_BUDGETS"]) == (
            given[0].read(), given[1].read(alarm=True), given[2].read(), given[3].read(),
        )  # fmt: skip
        assert told[name]["AGENTOPS_COST_DASHBOARD"] == "AgentOps-Monitoring-Cost-team"
    # Of all of an agent's daily budget its alarm tells.
    template.has_resource_properties(
        "AWS::CloudWatch::Alarm", {"AlarmName": "AgentOps-team-Budget-manager", "Threshold": 2.5}
    )
    template.resource_count_is("AWS::CloudWatch::Alarm", 1)


def test_without_a_metric_there_is_no_alarm_and_the_ledger_tells(stack: Stack) -> None:
    template = plane_with(stack, CostBudget(usd=2, agent="manager"), metric_detail=MetricDetail.MINIMAL)
    template.resource_count_is("AWS::CloudWatch::Alarm", 0)
    (found,) = budgets.parse(variables(template)[WATCHING[0]]["AGENTOPS_BUDGETS"])
    assert not found.alarm


def test_only_who_tells_may_publish(stack: Stack) -> None:
    template = plane_with(stack)
    publishing = set()
    for policy in template.find_resources("AWS::IAM::Policy").values():
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            if "sns:Publish" in statement["Action"]:
                assert statement["Action"] == "sns:Publish"
                assert list(statement["Resource"]) == ["Ref"]
                publishing |= {role["Ref"] for role in policy["Properties"]["Roles"]}
    roles = {
        function["Properties"]["Role"]["Fn::GetAtt"][0]: function["Properties"]["FunctionName"]
        for function in template.find_resources("AWS::Lambda::Function").values()
        if "FunctionName" in function["Properties"]
    }
    assert sorted(roles[role] for role in publishing) == list(WATCHING)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([CostBudget(usd=20)], "daily_budget_usd"),
        ([CostBudget(usd=0, agent="a")], "usd is '0'"),
        ([CostBudget(usd="a lot", agent="a")], "usd is 'a lot'"),
        ([CostBudget(usd=1, agent="a", workflow="w")], "not of both"),
        ([CostBudget(usd=1, workflow="w", period=BudgetPeriod.DAY)], "whole life"),
        ([MONTH, CostBudget(usd=200, period=BudgetPeriod.MONTH)], "two of the total for a month"),
        ([CostBudget(usd=1, agent="a"), CostBudget(usd=2, agent="a")], "two of a for a day"),
        ([CostBudget(usd=1, workflow="w" * n) for n in range(100, 140)], "workflow='\\*'"),
        ([CostBudget(usd=1, agent="no such name")], "agent_name 'no such name'"),
        ([CostBudget(usd=1, agent="a", period="month")], "'month', not a BudgetPeriod"),  # type: ignore[arg-type]
        ([{"usd": 1}], "a list of CostBudget"),
        (MONTH, "a list of CostBudget"),
    ],
)
def test_what_makes_no_sense_fails_at_synth(stack: Stack, given: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        MonitoringPlane(stack, "Watched", environment="team", budgets=given)


def test_functions_read_what_constructs_write() -> None:
    text = budgets.dump([MONTH.read(), CostBudget(usd="1e2", agent="x").read(alarm=True)])
    assert json.loads(text) == [
        {"usd": "100", "period": "month"}, {"usd": "100", "agent": "x", "alarm": True},
    ]  # fmt: skip
