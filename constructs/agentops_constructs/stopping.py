"""What lets an alarm stop an agent: the action, the agent's parameter and tags, and the rights to do it."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING

import jsii
from aws_cdk import ArnFormat, Stack, Tags
from aws_cdk import aws_cloudwatch as cw
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from agentops_monitoring.control import stoppable

from .naming import Names
from .roles import allow, allow_items

if TYPE_CHECKING:
    from .monitoring_plane import MonitoringPlane

# https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html
_MAX_PARAMETER = 4096
_OF_THE_REST = 700
"""Characters, at most, of a function's name, a queue's URL and an alarm's name."""


class CostAction(Enum):
    """What a breach of a cost alarm does beside the mail."""

    ALERT = "alert"
    """Nothing."""
    STOP_AGENT = "stop"
    """The agent's function gets no concurrency until the next UTC day, or `agentops-monitoring resume`."""


@jsii.implements(cw.IAlarmAction)
class StopAction:
    """Invokes the plane's function `stop`; the CDK's own action adds a permission for each alarm."""

    def __init__(self, function_arn: str) -> None:
        self._function_arn = function_arn

    def bind(
        self,
        scope: Construct,  # noqa: ARG002 - the CDK's signature
        alarm: cw.IAlarm,  # noqa: ARG002
    ) -> cw.AlarmActionConfig:
        """Return the function's ARN."""
        return cw.AlarmActionConfig(alarm_action_arn=self._function_arn)


class Stoppable(Construct):
    """Makes one agent known to the function `stop`, from whichever stack the agent is in.

    Parameters
    ----------
    names
        The environment's.
    agent_name
        The agent.
    function, queue
        The agent's function, and the queue of its failed events.
    failed_alarm
        Name of the alarm on that queue.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        names: Names,
        agent_name: str,
        function: lambda_.Function,
        queue: sqs.Queue,
        failed_alarm: str,
    ) -> None:
        super().__init__(scope, id)
        self._alarms: list[str] = []
        self._facts = {
            "function": function.function_name,
            "queue": queue.queue_url,
            "failed_alarm": failed_alarm,
        }
        for tagged, kind in ((function, "AWS::Lambda::Function"), (queue, "AWS::SQS::Queue")):
            Tags.of(tagged).add(stoppable.TAG, names.environment, include_resource_types=[kind])
        self._parameter = ssm.CfnParameter(
            self,
            "Parameter",
            type="String",
            name=f"{stoppable.path(names.environment)}/{agent_name}",
            description=f"How agent {agent_name} is stopped, and by which alarms",
            value=self._value(),
        )

    def add_alarm(self, name: str) -> None:
        """Let one more alarm stop the agent.

        Raises
        ------
        ValueError
            Their names do not fit into a parameter any more.
        """
        self._alarms.append(name)
        if len(json.dumps(self._alarms)) > _MAX_PARAMETER - _OF_THE_REST:
            raise ValueError(f"{len(self._alarms)} alarms stop one agent: their names fit no SSM parameter")
        self._parameter.value = self._value()

    def _value(self) -> str:
        return Stack.of(self).to_json_string({**self._facts, "alarms": self._alarms})


def allow_stopping(plane: MonitoringPlane, function: lambda_.Function) -> None:
    """Let a function stop and resume the agents of an environment that can be stopped, and no others.

    Their functions and queues carry a tag, for their names are known to their own stacks alone; a statement
    for each would overflow the role's policies (10,240 characters) at about 20 agents.
    https://docs.aws.amazon.com/lambda/latest/dg/attribute-based-access-control.html
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-abac.html
    """
    assert function.role is not None
    stack = Stack.of(plane)

    def arn(service: str, resource: str, name: str | None = None) -> str:
        return stack.format_arn(
            service=service,
            resource=resource,
            resource_name=name,
            arn_format=ArnFormat.COLON_RESOURCE_NAME if name else ArnFormat.NO_RESOURCE_NAME,
        )

    tagged = {"StringEquals": {f"aws:ResourceTag/{stoppable.TAG}": plane.environment}}
    concurrency = [f"lambda:{verb}FunctionConcurrency" for verb in ("Get", "Put", "Delete")]
    allow(
        function.role, [*concurrency, "lambda:InvokeFunction"], [arn("lambda", "function", "*")],
        conditions=tagged, why_wildcard="functions that carry the environment's tag; their stacks name them",
    )  # fmt: skip
    queues = [
        f"sqs:{action}"
        for action in ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes")
    ]
    allow(
        function.role, queues, [arn("sqs", "*")],
        conditions=tagged, why_wildcard="queues that carry the environment's tag; their stacks name them",
    )  # fmt: skip
    alarms = ["cloudwatch:DisableAlarmActions", "cloudwatch:EnableAlarmActions", "cloudwatch:SetAlarmState"]
    allow(
        function.role, alarms, [arn("cloudwatch", "alarm", plane.names.alarm("FailedEvents-*"))],
        why_wildcard="the alarms on the failed events of the environment's agents",
    )  # fmt: skip
    parameters = stack.format_arn(
        service="ssm", resource="parameter", resource_name=stoppable.path(plane.environment).lstrip("/")
    )
    allow(function.role, ["ssm:GetParametersByPath"], [parameters])
    allow_items(function.role, plane.ledger_table, "GetItem", "PutItem")
