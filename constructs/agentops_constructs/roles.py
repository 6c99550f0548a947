"""Function roles that hold nothing but what the function does; a wildcard needs a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jsii
from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct, IConstruct

from .validation import acknowledge

# What Lambda does with the role of a function in a VPC, on resources that exist only then:
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
NETWORK_INTERFACES = (
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
)
_PROFILE_PREFIXES = frozenset({"global", "us", "us-gov", "eu", "apac", "au", "ca", "jp"})


def function_role(scope: Construct, id: str, log_group: logs.ILogGroup) -> iam.Role:
    """Return a Lambda role that may write to one log group; CDK's default may write to, and create, any."""
    role = iam.Role(scope, id, assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    log_group.grant_write(role)
    return role


def allow(
    role: iam.IRole,
    actions: Sequence[str],
    resources: Sequence[str],
    *,
    why_wildcard: str = "",
    conditions: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Allow a role actions on resources.

    Parameters
    ----------
    conditions
        Under which alone.
    why_wildcard
        The reason for a `*` in a resource; recorded for cdk-nag.

    Raises
    ------
    ValueError
        An action has a `*`, or a resource has one without a reason.
    """
    wild_actions = [action for action in actions if "*" in action]
    if wild_actions:
        raise ValueError(f"name the actions instead of {', '.join(wild_actions)}")
    iam.Grant.add_to_principal(
        grantee=role, actions=list(actions), resource_arns=list(resources), conditions=conditions
    )
    for resource in resources:
        shown = _as_nag_shows(Stack.of(role).resolve(resource))
        if "*" in shown:
            if not why_wildcard:
                raise ValueError(f"{shown} has a wildcard and no reason for it")
            acknowledge(role, f"AwsSolutions-IAM5[Resource::{shown}]", why_wildcard)


def allow_items(role: iam.IRole, table: dynamodb.ITableV2, *actions: str, index: str = "") -> None:
    """Allow DynamoDB's actions on the items of a table, or of an index of it.

    A batch of puts is an action of its own, where a transaction is judged by the actions in it.
    """
    arn = f"{table.table_arn}/index/{index}" if index else table.table_arn
    allow(role, [f"dynamodb:{action}" for action in actions], [arn])


def _allow_sending(function: lambda_.IFunction, queue: sqs.IQueue) -> str:
    if function.role is not None:
        allow(function.role, ["sqs:SendMessage"], [queue.queue_arn])
    return queue.queue_arn


@jsii.implements(lambda_.IDestination)
class FailedEvents:
    """Takes the events that a function fails on; the CDK's own destination grants more than to send."""

    def __init__(self, queue: sqs.IQueue) -> None:
        self._queue = queue

    def bind(
        self,
        scope: IConstruct,  # noqa: ARG002 - the CDK's signature
        fn: lambda_.IFunction,
        *,
        type: lambda_.DestinationType,  # noqa: ARG002
    ) -> lambda_.DestinationConfig:
        """Allow the function to send, and return the queue's ARN."""
        return lambda_.DestinationConfig(destination=_allow_sending(fn, self._queue))


@jsii.implements(lambda_.IEventSourceDlq)
class FailedBatches:
    """Takes word of the batches of a stream that a function fails on; otherwise as `FailedEvents`."""

    def __init__(self, queue: sqs.IQueue) -> None:
        self._queue = queue

    def bind(
        self,
        target: lambda_.IEventSourceMapping,  # noqa: ARG002 - the CDK's signature
        target_handler: lambda_.IFunction,
    ) -> lambda_.DlqDestinationConfig:
        """Allow the function to send, and return the queue's ARN."""
        return lambda_.DlqDestinationConfig(destination=_allow_sending(target_handler, self._queue))


def allow_network_interfaces(role: iam.IRole) -> None:
    """Let Lambda make the network interfaces of a function in a VPC."""
    allow(role, NETWORK_INTERFACES, ["*"], why_wildcard="Lambda makes them before they have an ARN")


def allow_model(scope: Construct, role: iam.IRole, model_id: str, *, streaming: bool = True) -> None:
    """Allow calls of one Bedrock model, given as a model id, an inference profile's id or an ARN.

    Without `streaming` answers come in one piece only.

    A cross-region profile (`us.`, `eu.`, `global.`, …) needs the model behind it as well, in each region that
    it may route to, which only a wildcard in the region covers:
    https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-prereq.html
    A profile's ARN needs it too. An application's own profile does not name its model, so any is allowed, but
    through that profile alone.
    """
    stack = Stack.of(scope)
    behind = f"arn:{stack.partition}:bedrock:*::foundation-model"
    is_arn = model_id.startswith("arn:")
    kind, _, name = model_id.split(":", 5)[-1].partition("/") if is_arn else ("", "", model_id)
    prefix, _, model = name.partition(".")
    actions = ["bedrock:InvokeModel", *(["bedrock:InvokeModelWithResponseStream"] if streaming else [])]
    if kind == "application-inference-profile":
        _allow_calls(role, actions, [model_id])
        _allow_calls(role, actions, [f"{behind}/*"], {"ArnEquals": {"bedrock:InferenceProfileArn": model_id}})
    elif prefix in _PROFILE_PREFIXES and "." in model:
        own = stack.format_arn(service="bedrock", resource="inference-profile", resource_name=name)
        _allow_calls(role, actions, [model_id if is_arn else own, f"{behind}/{model}"])
    elif is_arn:
        _allow_calls(role, actions, [model_id])
    else:
        foundation = stack.format_arn(
            service="bedrock",
            account="",
            resource="foundation-model",
            resource_name=model_id,
            arn_format=ArnFormat.SLASH_RESOURCE_NAME,
        )
        _allow_calls(role, actions, [foundation])


def _allow_calls(
    role: iam.IRole,
    actions: Sequence[str],
    resources: Sequence[str],
    conditions: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    allow(
        role,
        actions,
        resources,
        why_wildcard="a cross-region profile needs its model in every region that it routes to",
        conditions=conditions,
    )


def _as_nag_shows(value: str | Mapping[str, Any]) -> str:
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return str(separator).join(_as_nag_shows(part) for part in parts)
    if "Fn::GetAtt" in value:
        return f"<{'.'.join(value['Fn::GetAtt'])}>"
    return f"<{value.get('Ref', '…')}>"
