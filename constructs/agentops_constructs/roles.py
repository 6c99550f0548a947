"""Function roles that hold nothing but what the function does."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

READ_ITEMS = ("dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query")
WRITE_ITEMS = ("dynamodb:ConditionCheckItem", "dynamodb:PutItem", "dynamodb:UpdateItem")


def function_role(scope: Construct, id: str, log_group: logs.ILogGroup) -> iam.Role:
    """Return a Lambda role that may write to one log group; CDK's default may write to, and create, any."""
    role = iam.Role(scope, id, assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    log_group.grant_write(role)
    return role


def grant_items(table: dynamodb.ITableV2, role: iam.IRole, actions: Sequence[str]) -> None:
    """Allow actions on the items of a table, and queries of its indexes; scans are in none of our grants."""
    table.grant(role, *actions)


def grant_model(scope: Construct, role: iam.IRole, model_id: str) -> None:
    """Allow calls of one Bedrock model, given as a model id, an inference profile's id or an ARN.

    A cross-region profile (`us.`, `eu.`, `global.`, …) needs the model behind it as well, in each region that
    it may route to, which only a wildcard in the region covers:
    https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-prereq.html
    """
    stack = Stack.of(scope)
    if model_id.startswith("arn:"):
        resources = [model_id]
    else:
        prefix, _, rest = model_id.partition(".")
        if _is_profile_prefix(prefix) and "." in rest:
            profile = stack.format_arn(
                service="bedrock", resource="inference-profile", resource_name=model_id
            )
            resources = [profile, f"arn:{stack.partition}:bedrock:*::foundation-model/{rest}"]
        else:
            resources = [
                stack.format_arn(
                    service="bedrock",
                    account="",
                    resource="foundation-model",
                    resource_name=model_id,
                    arn_format=ArnFormat.SLASH_RESOURCE_NAME,
                )
            ]
    iam.Grant.add_to_principal(
        grantee=role,
        actions=["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"],
        resource_arns=resources,
    )


def _is_profile_prefix(prefix: str) -> bool:
    return prefix == "global" or prefix in {"us", "us-gov", "eu", "apac", "au", "ca", "jp"}
