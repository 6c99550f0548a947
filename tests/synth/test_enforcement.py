"""What an agent with a budget gets, and what one without has nothing of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import Stack

from agentops_constructs import AgentSource, Budget, MonitoredAgent, bundling
from agentops_monitoring.enforcement import budget as budgets
from stacks.settings import Settings, SettingsError

from .conftest import Resource, Templates, listed, policy_statements, synth, synthesized


def update_statements(statements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in statements if "dynamodb:UpdateItem" in listed(each["Action"])]


def test_an_agent_with_a_budget_may_update_its_own_item_and_nothing_else(
    stack: Stack, agent: Callable[..., MonitoredAgent]
) -> None:
    given = Budget(daily_usd="2.50", on_exceed="warn", when_unreachable="closed")
    made = agent(budget=given)
    # The plane's own functions update it too, under no condition.
    (statement,) = [each for each in update_statements(policy_statements(stack)) if "Condition" in each]
    assert listed(statement["Action"]) == ["dynamodb:UpdateItem"]
    assert statement["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": "BUDGET#helper#*"}}
    ledger = made.monitoring.names.ledger_table
    assert json.dumps(statement["Resource"]).endswith(f':table/{ledger}"]]}}')
    (variables,) = [
        each["Properties"]["Environment"]["Variables"]
        for each in synth(stack).find_resources("AWS::Lambda::Function").values()
        if "AGENTOPS_BUDGET" in each["Properties"].get("Environment", {}).get("Variables", {})
    ]
    read = budgets.Budget.from_text(variables["AGENTOPS_BUDGET"])
    assert (read.daily_usd, read.blocks, read.closed) == (given.daily_usd, False, True)
    assert variables["LEDGER_TABLE_NAME"] == ledger
    assert variables["AGENTOPS_EVENT_TYPES"] == "budget_exceeded"
    # The table's name alone would turn the direct way to it on.
    assert variables["AGENTOPS_TRANSPORT"] == "stdout"


def test_an_agent_without_a_budget_knows_no_table(stack: Stack, agent: Callable[..., MonitoredAgent]) -> None:
    agent()
    template = synth(stack)
    functions = json.dumps(template.find_resources("AWS::Lambda::Function"))
    assert "AGENTOPS_BUDGET" not in functions
    assert "BUDGET#" not in json.dumps(template.to_json())


@pytest.mark.parametrize("kind", ["asset", "layer"])
def test_only_with_a_budget_the_bundle_can_enforce_one(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "code"
    source.mkdir()
    (source / "index.py").write_text("def handler(event, context): return 1\n")

    def files(*, budget: bool) -> set[str]:
        made = (
            bundling.agent_bundle(AgentSource(source), budget=budget)
            if kind == "asset"
            else bundling.layer_bundle(budget=budget)
        )
        return {str(place).removeprefix("python/") for place, _ in made.files()}

    more = files(budget=True) - files(budget=False)
    assert {Path(each).parent.as_posix() for each in more} == {"agentops_monitoring/enforcement"}
    assert "agentops_monitoring/enforcement/windows.json" in more
    assert "agentops_monitoring/budget.py" in files(budget=False)  # for the exception's name


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"daily_usd": 0}, "daily_usd 0"),
        ({"daily_usd": "much"}, "daily_usd 'much'"),
        ({"daily_usd": "NaN"}, "daily_usd 'NaN'"),
        ({"daily_usd": 1, "on_exceed": "stop"}, "on_exceed 'stop'"),
        ({"daily_usd": 1, "when_unreachable": "maybe"}, "when_unreachable 'maybe'"),
    ],
)
def test_a_budget_that_makes_no_sense_fails_at_synth(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Budget(**arguments)


def test_a_number_is_no_budget(agent: Any) -> None:
    with pytest.raises(ValueError, match="agent 'helper': budget must be a Budget"):
        agent(budget=5)


def test_the_apps_own_agents_have_budgets_when_the_context_says_so(everything: Templates) -> None:
    def with_budgets(resources: Any) -> list[Resource]:
        return [
            each
            for each in resources
            if "AGENTOPS_BUDGET" in each.properties.get("Environment", {}).get("Variables", {})
        ]

    assert with_budgets(everything.resources("AWS::Lambda::Function")) == []
    given = synthesized("staging", agent_budget_usd="3")
    assert len(with_budgets(given.resources("AWS::Lambda::Function"))) == 3
    keys = {
        each["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
        for resource in given.resources("AWS::IAM::Policy")
        for each in update_statements(resource.properties["PolicyDocument"]["Statement"])
        if "Condition" in each
    }
    assert keys == {f"BUDGET#{name}#*" for name in ("manager", "engineer", "qa")}
    with pytest.raises(SettingsError, match="agent_budget_usd"):
        Settings.from_context({"agent_budget_usd": "-1"})
