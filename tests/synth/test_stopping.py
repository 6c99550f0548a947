"""An alarm that stops agents: what it adds to the templates, in one stack and across apps."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_lambda as lambda_
from aws_cdk.assertions import Match

from agentops_constructs import CostAction, CostAlarm, MonitoredAgent, MonitoringAlarms, MonitoringPlane
from agentops_constructs.roles import FailedEvents

from .conftest import NO_BUNDLING, listed, policy_statements, synth, synthesized

STOP = CostAction.STOP_AGENT
CONCURRENCY = {f"lambda:{verb}FunctionConcurrency" for verb in ("Get", "Put", "Delete")}
TAGGED = {"Key": "agentops:stoppable", "Value": "team"}
Agent = Callable[..., MonitoredAgent]


def parameters(stack: Stack) -> dict[str, str]:
    """Return, by agent, the parameter that makes it known, as text without what only a deployment knows."""
    found = {}
    for one in synth(stack).find_resources("AWS::SSM::Parameter").values():
        name, value = one["Properties"]["Name"], one["Properties"]["Value"]
        if "/stoppable/" in name:
            found[name] = "".join(part for part in value["Fn::Join"][1] if isinstance(part, str))
    return found


def tagged(stack: Stack) -> dict[str, int]:
    """Return how many resources of each type carry the tag."""
    found: dict[str, int] = {}
    for one in synth(stack).to_json()["Resources"].values():
        if TAGGED in listed(one.get("Properties", {}).get("Tags", [])):
            found[one["Type"]] = found.get(one["Type"], 0) + 1
    return found


def test_an_alarm_stops_its_agent(stack: Stack, plane: MonitoringPlane, agent: Agent) -> None:
    helper, other = agent(), agent(id="Other", agent_name="other")
    CostAlarm(stack, "Cost", monitoring=plane, agent=helper, threshold_usd=5, on_breach=STOP)
    CostAlarm(stack, "Late", monitoring=plane, agent=helper, threshold_usd=9, name="Late", on_breach=STOP)
    CostAlarm(stack, "Quiet", monitoring=plane, agent=other, threshold_usd=5)

    found = parameters(stack)
    assert list(found) == ["/agentops/team/stoppable/helper"]
    assert '"alarms":["AgentOps-team-Cost-helper","AgentOps-team-Late"]' in found.popitem()[1]
    assert tagged(stack) == {"AWS::Lambda::Function": 1, "AWS::SQS::Queue": 1}
    alarms = {
        one["Properties"]["AlarmName"]: one["Properties"]
        for one in synth(stack).find_resources("AWS::CloudWatch::Alarm").values()
    }
    actions = alarms["AgentOps-team-Cost-helper"]["AlarmActions"]
    assert len(actions) == 2, "the topic and the function"
    assert "Stop" in json.dumps(actions[1])
    assert "OKActions" not in alarms["AgentOps-team-Cost-helper"]
    assert "Stopped until 00:05 UTC: helper." in alarms["AgentOps-team-Cost-helper"]["AlarmDescription"]
    assert len(alarms["AgentOps-team-Cost-other"]["AlarmActions"]) == 1


def test_an_environments_alarm_stops_those_that_are_listed(
    stack: Stack, plane: MonitoringPlane, agent: Agent
) -> None:
    agents = [agent(id=name.capitalize(), agent_name=name) for name in ("one", "two")]
    MonitoringAlarms(
        stack, "Alarms", monitoring=plane, daily_budget_usd=10, on_breach=STOP, stops=[*agents, agents[0]]
    )  # fmt: skip

    assert set(parameters(stack)) == {f"/agentops/team/stoppable/{name}" for name in ("one", "two")}
    assert all('"alarms":["AgentOps-team-HighCost"]' in value for value in parameters(stack).values())


@pytest.mark.parametrize(
    "settings",
    [
        {"agent": "helper", "on_breach": STOP},
        {"on_breach": STOP},
        {"agent": "helper", "stops": ["helper"]},
        {"agent": "helper", "on_breach": "STOP_AGENT"},
    ],
)
def test_who_is_to_be_stopped_has_to_be_said(
    settings: dict[str, Any], stack: Stack, plane: MonitoringPlane
) -> None:
    with pytest.raises(ValueError, match="STOP_AGENT"):
        CostAlarm(stack, "Cost", monitoring=plane, threshold_usd=5, **settings)


def test_an_agent_of_another_environment_is_not_stopped(
    stack: Stack, plane: MonitoringPlane, agent: Agent
) -> None:
    other = MonitoringPlane.from_environment(stack, "Elsewhere", "elsewhere")
    with pytest.raises(ValueError, match=r"'helper' is of environment 'team'.*'elsewhere'"):
        CostAlarm(stack, "Cost", monitoring=other, threshold_usd=5, on_breach=STOP, stops=[agent()])


def test_an_agent_whose_failed_events_go_elsewhere_is_not_stopped(
    stack: Stack, plane: MonitoringPlane, agent: Agent
) -> None:
    helper = agent(on_failure=FailedEvents(plane.dead_letter_queue))
    with pytest.raises(ValueError, match="on_failure"):
        CostAlarm(stack, "Cost", monitoring=plane, agent=helper, threshold_usd=5, on_breach=STOP)


def test_the_plane_stops_what_carries_its_tag_and_nothing_else(stack: Stack, plane: MonitoringPlane) -> None:
    assert plane.stop_function_arn
    rights = {
        action: statement
        for statement in policy_statements(stack)
        for action in listed(statement["Action"])
        if action in CONCURRENCY or action.startswith("sqs:Rec") or action == "lambda:InvokeFunction"
    }
    assert set(rights) >= {*CONCURRENCY, "lambda:InvokeFunction", "sqs:ReceiveMessage"}
    for statement in rights.values():
        assert statement["Condition"] == {"StringEquals": {"aws:ResourceTag/agentops:stoppable": "team"}}
    permissions = synth(stack).find_resources(
        "AWS::Lambda::Permission",
        {"Properties": {"Principal": "lambda.alarms.cloudwatch.amazonaws.com"}},
    )
    (permission,) = permissions.values()
    assert permission["Properties"]["SourceArn"]["Fn::Join"][1][-1].endswith(":alarm:AgentOps-team-*")
    assert "SourceAccount" in permission["Properties"]


def test_it_is_looked_at_what_is_to_be_resumed_at_five_past_midnight_and_each_quarter_of_an_hour(
    stack: Stack, plane: MonitoringPlane
) -> None:
    (rule,) = (
        one["Properties"]
        for id, one in synth(stack).find_resources("AWS::Events::Rule").items()
        if "StopSchedule" in id
    )
    assert rule["ScheduleExpression"] == "cron(5/15 * * * ? *)"
    assert "FunctionsStop" in json.dumps(rule["Targets"][0]["Arn"])


def test_the_apps_context_stops_its_three_agents() -> None:
    templates = synthesized("stopping", on_breach="stop")
    alarm = templates.one("AWS::CloudWatch::Alarm", AlarmName="AgentOps-stopping-HighCost")
    assert len(alarm.properties["AlarmActions"]) == 2
    names = {one.properties["Name"] for one in templates.resources("AWS::SSM::Parameter")}
    path = "/agentops/stopping/stoppable"
    assert {each for each in names if each.startswith(path)} == {
        f"{path}/{agent}" for agent in ("manager", "engineer", "qa")
    }
    assert alarm.stack == "dashboards", "and nothing there refers to the agents' stack"
    assert "Fn::ImportValue" not in json.dumps(templates["dashboards"])


def test_another_apps_alarm_finds_the_function_through_its_parameter() -> None:
    other = Stack(App(context=NO_BUNDLING, analytics_reporting=False), "Other")
    plane = MonitoringPlane.from_environment(other, "Monitoring", "team")
    helper = MonitoredAgent(
        other, "Helper", monitoring=plane, agent_name="helper", handler="index.handler",
        code=lambda_.Code.from_inline("def handler(event, context): return 1"),
    )  # fmt: skip
    CostAlarm(other, "Cost", monitoring=plane, agent=helper, threshold_usd=5, on_breach=STOP)

    template = synth(other)
    template.has_parameter("*", {"Default": "/agentops/team/stop-function-arn"})
    template.resource_count_is("AWS::Lambda::Permission", 0)
    template.has_resource_properties(
        "AWS::CloudWatch::Alarm",
        {"AlarmName": "AgentOps-team-Cost-helper", "AlarmActions": [Match.any_value(), Match.any_value()]},
    )
    assert set(parameters(other)) == {"/agentops/team/stoppable/helper"}
