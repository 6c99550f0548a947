"""The plane, its metrics and alarms, as another team's stack would use them."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_cloudwatch as cw
from aws_cdk import aws_events as events
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk.assertions import Match, Template

from agentops_constructs import (
    AgentDashboard,
    CostAlarm,
    DashboardKind,
    MetricDetail,
    MonitoredAgent,
    MonitoringAlarms,
    MonitoringPlane,
    monthly_estimate,
)

from .conftest import NO_BUNDLING, failing_synth, synth

INLINE = lambda_.Code.from_inline


# --- metrics that nothing emits


@pytest.mark.parametrize(
    ("namespace", "name", "dimensions"),
    [
        ("AgentOps/Costs", "TotalCosts", {}),
        ("AgentOps/Cost", "TotalCost", {}),
        ("AgentOps/Costs", "TotalCost", {"Model": "m"}),
        ("AgentOps/Events", "message_sent", {"AgentName": "helper"}),
        ("AgentOps/Events", "made_up", {}),
    ],
)
def test_a_widget_on_what_nothing_emits_can_t_be_built(
    namespace: str, name: str, dimensions: dict[str, str], plane: MonitoringPlane
) -> None:
    with pytest.raises(ValueError, match=name):
        plane.metrics.metric(namespace, name, dimensions)


def test_nor_can_a_hand_made_alarm_or_widget(stack: Stack, plane: MonitoringPlane) -> None:
    typo = cw.Metric(
        namespace="AgentOps/Costs", metric_name="TotalCosts", dimensions_map={"Environment": "team"}
    )
    no_environment = cw.Metric(namespace="AgentOps/Costs", metric_name="TotalCost")
    cw.Alarm(stack, "Alarm", metric=no_environment, threshold=1, evaluation_periods=1)
    ratio = cw.MathExpression(
        expression="a / b", using_metrics={"a": typo, "b": plane.metrics.costs("LLMCost")}
    )
    cw.Alarm(stack, "Ratio", metric=ratio, threshold=1, evaluation_periods=1)
    cw.Dashboard(stack, "Board", widgets=[[cw.GraphWidget(left=[typo, plane.metrics.costs("TotalCost")])]])

    said = failing_synth(stack)

    assert said.count("nothing emits the metric AgentOps/Costs TotalCosts; did you mean") == 2
    assert "Team/Alarm/Resource: AgentOps/Costs TotalCost is not emitted by []" in said


def test_declared_event_types_have_metrics(
    stack: Stack, plane: MonitoringPlane, agent: Callable[..., MonitoredAgent]
) -> None:
    made = agent(event_types=["ticket_closed"])

    cw.Alarm(
        stack,
        "Tickets",
        metric=plane.metrics.events("ticket_closed"),
        threshold=1,
        evaluation_periods=1,
    )

    assert made.function
    synth(stack).has_resource_properties(
        "AWS::Lambda::Function",
        {"Environment": {"Variables": Match.object_like({"AGENTOPS_EVENT_TYPES": "ticket_closed"})}},
    )


@pytest.mark.parametrize("name", ["Ticket Closed", "test_passed", "custom_event"])
def test_a_type_that_could_not_be_a_metric_is_refused(
    name: str, agent: Callable[..., MonitoredAgent]
) -> None:
    with pytest.raises(ValueError, match=name):
        agent(event_types=[name])


# --- one stack or several


def test_a_filter_waits_for_the_permission_to_invoke_ingest(
    stack: Stack, agent: Callable[..., MonitoredAgent]
) -> None:
    agent()

    template = synth(stack)
    (permission,) = template.find_resources(
        "AWS::Lambda::Permission", {"Properties": {"Principal": "logs.amazonaws.com"}}
    )
    (line_filter,) = template.find_resources("AWS::Logs::SubscriptionFilter").values()
    assert permission in line_filter["DependsOn"]


def test_another_stack_finds_the_plane_by_its_environment() -> None:
    app = App(context=NO_BUNDLING, analytics_reporting=False)
    stack = Stack(app, "Other")
    found = MonitoringPlane.from_environment(stack, "Monitoring", "team")
    made = MonitoredAgent(
        stack, "Agent", monitoring=found, agent_name="other", handler="index.handler",
        code=INLINE("def handler(event, context): return 1"), subscribes_to=["ticket.opened"],
    )  # fmt: skip
    CostAlarm(stack, "Cost", monitoring=found, agent=made, threshold_usd=3)
    AgentDashboard(stack, "Main", monitoring=found, kind=DashboardKind.MAIN, agents=[made])

    template = synth(stack)

    parameters = {
        each["Default"]
        for each in template.to_json()["Parameters"].values()
        if each["Default"].startswith("/agentops/")
    }
    assert parameters == {
        f"/agentops/team/{name}"
        for name in ("event-bus-name", "topic-arn", "ingest-function-arn", "widgets-function-arn")
    }
    template.has_resource_properties(
        "AWS::CloudWatch::Alarm", {"AlarmName": "AgentOps-team-Cost-other", "Threshold": 3}
    )
    template.has_resource_properties(
        "AWS::Events::Rule",
        {"EventPattern": {"detail-type": ["ticket.opened"], "detail": {"environment": ["team"]}}},
    )


def test_any_bus_will_do() -> None:
    stack = Stack(App(context=NO_BUNDLING, analytics_reporting=False), "Team")
    bus = events.EventBus.from_event_bus_name(stack, "Default", "default")
    MonitoringPlane(stack, "Monitoring", environment="team", event_bus=bus)

    template = synth(stack)

    template.resource_count_is("AWS::Events::EventBus", 0)
    template.has_resource_properties(
        "AWS::SSM::Parameter", {"Name": "/agentops/team/event-bus-name", "Value": "default"}
    )


def test_the_compute_of_an_unmonitored_function_can_be_booked(stack: Stack, plane: MonitoringPlane) -> None:
    log_group = logs.LogGroup(stack, "Logs")
    function = lambda_.Function(
        stack, "Plain", runtime=lambda_.Runtime.PYTHON_3_13, handler="index.handler",
        code=INLINE("def handler(event, context): return 1"), log_group=log_group,
    )  # fmt: skip
    plane.track_compute(stack, "Lines", function=function, log_group=log_group, agent_name="plain")

    synth(stack).has_resource_properties(
        "AWS::Logs::SubscriptionFilter", {"FilterName": "agentops|team|plain|x86_64"}
    )


def test_two_alarms_of_one_name_are_found_before_the_deployment(stack: Stack, plane: MonitoringPlane) -> None:
    CostAlarm(stack, "Cost", monitoring=plane, agent="helper", threshold_usd=3)
    CostAlarm(stack, "Severe", monitoring=plane, agent="helper", threshold_usd=9)

    said = failing_synth(stack)
    assert (
        "Team/Severe/Alarm/Resource: Team/Cost/Alarm/Resource is named AgentOps-team-Cost-helper too" in said
    )


def test_a_second_threshold_has_an_alarm_of_its_own_name(stack: Stack, plane: MonitoringPlane) -> None:
    CostAlarm(stack, "Cost", monitoring=plane, agent="helper", threshold_usd=3)
    CostAlarm(stack, "Severe", monitoring=plane, agent="helper", threshold_usd=9, name="SevereCost-helper")

    synth(stack).has_resource_properties(
        "AWS::CloudWatch::Alarm", {"AlarmName": "AgentOps-team-SevereCost-helper", "Threshold": 9}
    )


def test_a_secret_is_given_by_its_name(stack: Stack) -> None:
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:key-AbCdEf"
    with pytest.raises(ValueError, match="name, not its ARN"):
        MonitoringPlane(stack, "Monitoring", environment="team", agentops_api_key_secret=arn)


@pytest.mark.parametrize("environment", ["My Team", "", "a--b", "x" * 25])
def test_an_environment_that_names_could_not_hold_is_refused(environment: str, stack: Stack) -> None:
    with pytest.raises(ValueError, match="environment"):
        MonitoringPlane(stack, "Monitoring", environment=environment)


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_is_above_zero(budget: float, stack: Stack, plane: MonitoringPlane) -> None:
    with pytest.raises(ValueError, match="above 0"):
        MonitoringPlane(stack, "Other", environment="other", daily_budget_usd=budget)
    with pytest.raises(ValueError, match="above 0"):
        CostAlarm(stack, "Cost", monitoring=plane, threshold_usd=budget)


# --- what it costs


def test_the_price_of_the_monitoring_counts_metrics_and_alarms(stack: Stack, plane: MonitoringPlane) -> None:
    MonitoringAlarms(stack, "Alarms", monitoring=plane, daily_budget_usd=10)

    few = monthly_estimate(stack, agents=3, pairs=4, detail=MetricDetail.MINIMAL)
    many = monthly_estimate(stack, agents=3, pairs=4, detail=MetricDetail.FULL)

    alarms = Template.from_stack(stack).find_resources("AWS::CloudWatch::Alarm")
    metrics = sum(
        len([each for each in alarm["Properties"].get("Metrics", []) if "MetricStat" in each]) or 1
        for alarm in alarms.values()
    )
    assert few.alarm_metrics == metrics
    assert few.total_usd < many.total_usd
    assert f"${many.total_usd:.2f}" in str(many)
    assert json.dumps(str(many)).count("\\n") == 0


# --- prices of one's own


PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1"


def test_own_prices_reach_the_function_that_books_and_no_other() -> None:
    stack = Stack(App(context=NO_BUNDLING), "Plane")
    prices = {PROFILE: "claude-sonnet-4-5", "mine": {"input": 0.1, "output": Decimal("0.2")}}
    MonitoringPlane(stack, "Monitoring", environment="team", price_overrides=prices)
    template = Template.from_stack(stack)
    ((parameter, body),) = template.find_resources(
        "AWS::SSM::Parameter", {"Properties": {"Name": "/agentops/team/prices"}}
    ).items()
    written = json.loads(body["Properties"]["Value"])
    assert written == {PROFILE: "claude-sonnet-4-5", "mine": {"input": 0.1, "output": "0.2"}}
    functions = template.find_resources("AWS::Lambda::Function").values()
    told = {
        each["Properties"]["FunctionName"]: each["Properties"]["Environment"]["Variables"]["AGENTOPS_PRICES"]
        for each in functions
        if "AGENTOPS_PRICES" in each["Properties"].get("Environment", {}).get("Variables", {})
    }
    assert told == {"agentops-ingest-team": {"Fn::Join": ["", ["ssm:", {"Ref": parameter}]]}}
    template.resource_properties_count_is(
        "AWS::IAM::Policy",
        {
            "PolicyDocument": {
                "Statement": Match.array_with([Match.object_like({"Action": "ssm:GetParameter"})])
            }
        },
        1,
    )


@pytest.mark.parametrize(
    ("prices", "named"),
    [
        ({"mine": {"input": 1}}, "mine.output"),
        ({"mine": {"input": -1, "output": 1}}, "mine.input"),
        ({PROFILE: "claude-sonet-4-5"}, "claude-sonet-4-5"),
        ({f"model-{index}": {"input": 1, "output": 1} for index in range(300)}, "price_overrides"),
    ],
)
def test_prices_that_make_no_sense_fail_at_synth(prices: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        MonitoringPlane(Stack(App(context=NO_BUNDLING), "Plane"), "Monitoring", price_overrides=prices)
