"""The constructs as another team uses them, in an app of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Duration, Stack
from aws_cdk import aws_cloudwatch as cw
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Match, Template

from agentops_constructs import (
    AgentDashboard,
    AgentSource,
    CostAlarm,
    DashboardKind,
    MetricDetail,
    MonitoredAgent,
    MonitoringAlarms,
    MonitoringPlane,
    monthly_estimate,
)

from .conftest import NO_BUNDLING

INLINE = lambda_.Code.from_inline


@pytest.fixture
def stack() -> Stack:
    return Stack(App(context=NO_BUNDLING, analytics_reporting=False), "Team")


@pytest.fixture
def plane(stack: Stack) -> MonitoringPlane:
    return MonitoringPlane(stack, "Monitoring", environment="team", alert_email="team@example.com")


@pytest.fixture
def agent(stack: Stack, plane: MonitoringPlane) -> Callable[..., MonitoredAgent]:
    def make(**changes: Any) -> MonitoredAgent:
        given = {
            "monitoring": plane,
            "agent_name": "helper",
            "code": INLINE("def handler(event, context): return 1"),
            "handler": "index.handler",
            **changes,
        }
        return MonitoredAgent(stack, given.pop("id", "Helper"), **given)

    return make


def synth(stack: Stack) -> Template:
    return Template.from_stack(stack)


def policy_statements(stack: Stack) -> list[dict[str, Any]]:
    return [
        statement
        for policy in synth(stack).find_resources("AWS::IAM::Policy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
    ]


def allowed_actions(stack: Stack) -> set[str]:
    found: set[str] = set()
    for statement in policy_statements(stack):
        found |= {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])
    return found


def failing_synth(stack: Stack) -> str:
    app = stack.node.root
    assert isinstance(app, App)
    with pytest.raises(RuntimeError, match="Validation failed") as caught:
        app.synth()
    return str(caught.value)


# --- any handler


def codes(stack: Stack, folder: Path) -> Iterator[lambda_.Code]:
    yield INLINE("def handler(event, context): return 1")
    yield lambda_.Code.from_asset(str(folder))
    yield lambda_.Code.from_bucket(s3.Bucket.from_bucket_name(stack, "Code", "team-code"), "agent.zip")


@pytest.mark.parametrize("index", range(3))
def test_any_handler_is_wrapped_with_no_change_to_its_code(
    index: int, stack: Stack, agent: Callable[..., MonitoredAgent], tmp_path: Path
) -> None:
    (tmp_path / "index.py").write_text("def handler(event, context): return 1\n")
    code = list(codes(stack, tmp_path))[index]

    agent(code=code, handler="index.handler", environment={"MINE": "kept"}, timeout=Duration.seconds(7))

    template = synth(stack)
    template.has_resource_properties(
        "AWS::Lambda::Function",
        {
            "Handler": "agentops_monitoring.wrapper.handler",
            "Timeout": 7,
            "Layers": [Match.any_value()],
            "Environment": {
                "Variables": Match.object_like(
                    {
                        "MINE": "kept",
                        "AGENTOPS_HANDLER": "index.handler",
                        "AGENTOPS_AGENT_NAME": "helper",
                        "AGENTOPS_TRANSPORT": "stdout",
                        "ENVIRONMENT": "team",
                    }
                )
            },
        },
    )
    template.has_resource_properties(
        "AWS::Logs::SubscriptionFilter", {"FilterName": "agentops|team|helper|arm64"}
    )


def test_code_given_as_a_folder_carries_the_monitor_itself(
    stack: Stack, agent: Callable[..., MonitoredAgent], tmp_path: Path
) -> None:
    (tmp_path / "index.py").write_text("def handler(event, context): return 1")

    agent(code=AgentSource(tmp_path))

    synth(stack).resource_count_is("AWS::Lambda::LayerVersion", 0)


def test_lambda_s_own_properties_pass_through(stack: Stack, agent: Callable[..., MonitoredAgent]) -> None:
    agent(
        architecture=lambda_.Architecture.X86_64,
        runtime=lambda_.Runtime.PYTHON_3_12,
        memory_size=1769,
        reserved_concurrent_executions=3,
        tracing=lambda_.Tracing.ACTIVE,
        description="Helps",
    )

    template = synth(stack)
    template.has_resource_properties(
        "AWS::Lambda::Function",
        {
            "Architectures": ["x86_64"],
            "Runtime": "python3.12",
            "MemorySize": 1769,
            "ReservedConcurrentExecutions": 3,
            "TracingConfig": {"Mode": "Active"},
            "Description": "Helps",
        },
    )
    template.has_resource_properties(
        "AWS::Logs::SubscriptionFilter", {"FilterName": "agentops|team|helper|x86_64"}
    )


@pytest.mark.parametrize(
    "runtime", [lambda_.Runtime.NODEJS_22_X, lambda_.Runtime.PYTHON_3_9, lambda_.Runtime.JAVA_21]
)
def test_a_runtime_without_a_monitor_is_refused(
    runtime: lambda_.Runtime, agent: Callable[..., MonitoredAgent]
) -> None:
    with pytest.raises(ValueError, match=r"helper.*Python 3\.11"):
        agent(runtime=runtime, handler="index.handler")


def test_an_image_says_what_it_has_to_bring(stack: Stack, agent: Callable[..., MonitoredAgent]) -> None:
    image = {
        "runtime": lambda_.Runtime.FROM_IMAGE,
        "handler": lambda_.Handler.FROM_IMAGE,
        "code": lambda_.Code.from_ecr_image(ecr.Repository.from_repository_name(stack, "Images", "agents")),
    }
    with pytest.raises(ValueError, match="CMD"):
        agent(**image)

    agent(**image, id="Told", environment={"AGENTOPS_HANDLER": "app.handler"})

    synth(stack).has_resource_properties(
        "AWS::Lambda::Function", {"PackageType": "Image", "Handler": Match.absent()}
    )


@pytest.mark.parametrize("name", ["", "a|b", "a b", "-a", "x" * 41, "a#b"])
def test_a_name_that_keys_could_not_hold_is_refused(name: str, agent: Callable[..., MonitoredAgent]) -> None:
    with pytest.raises(ValueError, match="agent_name"):
        agent(agent_name=name)


def test_an_agent_in_a_vpc_may_have_its_network_interfaces(
    stack: Stack, agent: Callable[..., MonitoredAgent]
) -> None:
    vpc = ec2.Vpc(stack, "Vpc", max_azs=2, nat_gateways=0)

    agent(
        vpc=vpc, vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC), allow_public_subnet=True
    )

    assert "ec2:CreateNetworkInterface" in allowed_actions(stack)


def test_a_role_of_one_s_own_may_write_the_agent_s_log(
    stack: Stack, agent: Callable[..., MonitoredAgent]
) -> None:
    role = iam.Role(stack, "Own", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))

    agent(role=role)

    assert {"logs:PutLogEvents", "sqs:SendMessage", "events:PutEvents"} <= allowed_actions(stack)


@pytest.mark.parametrize(
    ("model", "resources", "condition"),
    [
        ("anthropic.claude-x-v1:0", [r"bedrock:.*::foundation-model/anthropic\.claude-x-v1:0"], None),
        (
            "global.anthropic.claude-x",
            [
                r":inference-profile/global\.anthropic\.claude-x",
                r"bedrock:\*::foundation-model/anthropic\.claude-x",
            ],
            None,
        ),
        (
            "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-x-v1:0",
            [
                r"eu-west-1:123456789012:inference-profile/eu\.anthropic\.claude-x-v1:0",
                r"bedrock:\*::foundation-model/anthropic\.claude-x-v1:0",
            ],
            None,
        ),
        (
            "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc",
            [r":application-inference-profile/abc", r"bedrock:\*::foundation-model/\*"],
            "bedrock:InferenceProfileArn",
        ),
        (
            "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc",
            [r":provisioned-model/abc"],
            None,
        ),
    ],
)
def test_a_model_comes_with_what_is_behind_it(
    model: str,
    resources: list[str],
    condition: str | None,
    stack: Stack,
    agent: Callable[..., MonitoredAgent],
) -> None:
    agent().grant_model(model)

    granted = [each for each in policy_statements(stack) if "bedrock:InvokeModel" in each["Action"]]
    found = [
        json.dumps(resource)
        for each in granted
        for resource in (each["Resource"] if isinstance(each["Resource"], list) else [each["Resource"]])
    ]
    assert len(found) == len(resources)
    for text, pattern in zip(found, resources, strict=True):
        assert re.search(pattern + '("|$)', text), text
    # Behind a profile that does not name its model is any model, but through that profile alone.
    for each in granted:
        is_any = json.dumps(each["Resource"]).endswith('foundation-model/*"]]}')
        assert is_any == (condition in json.dumps(each.get("Condition")) if condition else False)


# --- settings that would lose lines


def test_a_system_log_level_above_info_is_refused(agent: Callable[..., MonitoredAgent]) -> None:
    with pytest.raises(ValueError, match="report line"):
        agent(system_log_level_v2=lambda_.SystemLogLevel.WARN)


def test_snap_start_is_refused(agent: Callable[..., MonitoredAgent]) -> None:
    with pytest.raises(ValueError, match="log stream"):
        agent(snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS)


def test_so_is_one_set_behind_the_construct_s_back(
    stack: Stack, agent: Callable[..., MonitoredAgent]
) -> None:
    resource = agent().function.node.default_child
    assert isinstance(resource, lambda_.CfnFunction)
    resource.logging_config = lambda_.CfnFunction.LoggingConfigProperty(
        log_format="JSON", system_log_level="WARN"
    )

    assert "system log level WARN" in failing_synth(stack)


def test_a_log_class_that_can_t_be_subscribed_fails_the_synth(
    stack: Stack, agent: Callable[..., MonitoredAgent]
) -> None:
    agent(log_group=logs.LogGroup(stack, "Cheap", log_group_class=logs.LogGroupClass.INFREQUENT_ACCESS))

    assert "INFREQUENT_ACCESS" in failing_synth(stack)


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
