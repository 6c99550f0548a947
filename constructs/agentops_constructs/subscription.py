"""What a log group's subscription says of the function whose lines it sends."""

from __future__ import annotations

from aws_cdk import aws_lambda as lambda_

from agentops_monitoring.pricing.compute import FREE_STORAGE_MB


def filter_name(environment: str, agent_name: str, function: lambda_.IFunction) -> str:
    """Return the name of a subscription filter, which is in every payload.

    It says what Lambda's report line does not: agent, architecture, and the storage if it costs anything, as
    the function was given it by now.
    """
    fields = ["agentops", environment, agent_name, function.architecture.name]
    resource = function.node.default_child
    storage = resource.ephemeral_storage if isinstance(resource, lambda_.CfnFunction) else None
    size = getattr(storage, "size", None)
    if isinstance(size, int | float) and size > FREE_STORAGE_MB:
        fields.append(f"tmp={size:.0f}")
    return "|".join(fields)
