"""The sample shop: functions with real defects for the agents to find and mend."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from agentops_constructs.roles import function_role

from .agents_stack import SHOP_SOURCE
from .settings import Settings


@dataclass(frozen=True, slots=True)
class ShopFunction:
    """A function of the sample shop."""

    name: str
    folder: str
    handler: str
    description: str


def shop_functions() -> list[ShopFunction]:
    """Return the functions that the sample shop declares."""
    declared = json.loads((SHOP_SOURCE / "functions.json").read_text(encoding="utf-8"))
    return [
        ShopFunction(each["name"], each["folder"], each["handler"], each["description"]) for each in declared
    ]


class WorkloadStack(Stack):
    """The sample shop, each function with its own log group and a role that can write to that alone."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, **stack_props: Any) -> None:
        super().__init__(scope, id, **stack_props)
        for each in shop_functions():
            log_group = logs.LogGroup(
                self,
                f"{each.name}-logs",
                log_group_name=f"/aws/lambda/{each.name}",
                retention=logs.RetentionDays.ONE_WEEK,
                removal_policy=RemovalPolicy.DESTROY,
            )
            lambda_.Function(
                self,
                each.name,
                function_name=each.name,
                description=each.description,
                runtime=lambda_.Runtime.PYTHON_3_13,
                architecture=lambda_.Architecture.ARM_64,
                handler=each.handler,
                code=lambda_.Code.from_asset(
                    str(SHOP_SOURCE / each.folder), exclude=["test_*.py", "__pycache__", "*.pyc"]
                ),
                role=function_role(self, f"{each.name}-role", log_group),
                log_group=log_group,
                logging_format=lambda_.LoggingFormat.JSON,
                memory_size=128,
                timeout=Duration.seconds(10),
                environment={"ENVIRONMENT": settings.environment},
                # A failing request is the caller's to repeat.
                retry_attempts=0,
            )
