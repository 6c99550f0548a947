"""The constructs as another team uses them, in an app of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aws_cdk import Duration, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Match

from agentops_constructs import (
    AgentSource,
    MonitoredAgent,
)

from .conftest import allowed_actions, failing_synth, policy_statements, synth

INLINE = lambda_.Code.from_inline


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
        assert each["Action"] == ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"]
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


def test_a_log_group_with_data_protection_is_taken_and_subscribed(
    stack: Stack, agent: Callable[..., MonitoredAgent]
) -> None:
    policy = logs.DataProtectionPolicy(identifiers=[logs.DataIdentifier.EMAILADDRESS])
    group = logs.LogGroup(stack, "Masked", data_protection_policy=policy)
    agent(log_group=group)

    template = synth(stack)
    name = stack.resolve(group.log_group_name)
    policy_of = {"DataProtectionPolicy": Match.object_like({"Statement": Match.any_value()})}
    template.has_resource_properties("AWS::Logs::LogGroup", policy_of)
    template.has_resource_properties(
        "AWS::Lambda::Function", {"LoggingConfig": Match.object_like({"LogGroup": name})}
    )
    template.has_resource_properties("AWS::Logs::SubscriptionFilter", {"LogGroupName": name})
