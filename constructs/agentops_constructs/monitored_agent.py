"""A Lambda function whose every invocation, model call, message and cent is on record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cw
from aws_cdk import aws_cloudwatch_actions as cw_actions
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from agentops_monitoring import catalogue
from agentops_monitoring.enforcement import budget as budgets
from agentops_monitoring.enforcement.budget import Budget

from . import bundling
from .handler_check import check_handler
from .naming import check_agent_name
from .plane_base import PlaneBase
from .roles import FailedEvents, allow, allow_model, allow_network_interfaces, function_role
from .stopping import Stoppable
from .validation import TreeValidation, acknowledge

WRAPPER = "agentops_monitoring.wrapper.handler"
_OLDEST_PYTHON = (3, 11)


class MonitoredAgent(Construct):
    """An agent: a Lambda function that runs behind the monitor, with no change to its code.

    The monitor's wrapper is deployed as the handler and finds the agent's own in `AGENTOPS_HANDLER`. Code
    given as an `AgentSource` gets the monitor in its asset. Any other code (a bucket, inline, an asset with a
    bundling of its own) gets it in a layer. An image brings its own: install `agentops-monitoring` in it, set
    its CMD to `agentops_monitoring.wrapper.handler`, and give `AGENTOPS_HANDLER` in `environment`.

    Parameters
    ----------
    monitoring
        The plane that the agent's lines go to.
    agent_name
        In metrics, tables and dashboards.
    code, handler
        The agent's own, as for `lambda_.Function`.
    subscribes_to
        Types of messages on the plane's bus that start the agent.
    event_types
        Event types beyond the built-in ones, each with a metric of its own.
    environment
        The agent's own variables.
    budget
        What the agent may spend on models in a UTC day, held to before each call; its calls then wait for one
        update of the ledger's table, and one more after. None by default, which costs nothing.
    function_props
        Everything else that `lambda_.Function` takes. Python 3.13 on arm64, 256 MB, 60 s, JSON logging, and a
        role that may do what is asked for here and nothing else, by default.

    Raises
    ------
    ValueError
        The runtime is no Python from 3.11 on, a log setting would lose lines, or the folder given as an
        `AgentSource` does not hold the handler.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        monitoring: PlaneBase,
        agent_name: str,
        code: lambda_.Code | bundling.AgentSource,
        handler: str,
        subscribes_to: Sequence[str] = (),
        event_types: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        budget: Budget | None = None,
        **function_props: Any,
    ) -> None:
        super().__init__(scope, id)
        self.monitoring = monitoring
        self.agent_name = check_agent_name(agent_name)
        if budget is not None and not isinstance(budget, Budget):
            raise ValueError(f"agent {agent_name!r}: budget must be a Budget(…), not {budget!r}")
        self.budget = budget
        # Each call that the budget has no room for is counted.
        self.event_types = tuple(dict.fromkeys([*event_types, *([budgets.EVENT] if budget else [])]))
        for each in self.event_types:
            catalogue.custom_event_spec(each)
        runtime = function_props.pop("runtime", bundling.RUNTIME)
        is_image = runtime.name == lambda_.Runtime.FROM_IMAGE.name
        _check(self.agent_name, runtime, is_image, function_props, environment or {})

        self.log_group: logs.ILogGroup = function_props.pop("log_group", None) or logs.LogGroup(
            self, "Logs", retention=monitoring.log_retention, removal_policy=monitoring.log_removal_policy
        )
        self.failed_events = sqs.Queue(
            self,
            "FailedEvents",
            retention_period=Duration.days(14),
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
        )
        acknowledge(self.failed_events, "AwsSolutions-SQS3", "it is where failed events end")
        layers = list(function_props.pop("layers", None) or [])
        if isinstance(code, bundling.AgentSource):
            # A layer, or another path to import from, may hold the handler.
            if not layers and "PYTHONPATH" not in (environment or {}):
                check_handler(self.agent_name, code, handler)
            code = bundling.code(self, bundling.agent_bundle(code, budget=budget is not None))
        elif not is_image:
            layers.append(self._monitor_layer())
        self._stoppable: Stoppable | None = None
        self._on_failure_is_given = "on_failure" in function_props
        props: dict[str, Any] = {
            "architecture": lambda_.Architecture.ARM_64,
            "memory_size": 256,
            "timeout": Duration.seconds(60),
            "logging_format": lambda_.LoggingFormat.JSON,
            "on_failure": FailedEvents(self.failed_events),
            "role": None,
            **function_props,
        }
        role = self._role(props.pop("role"), in_vpc="vpc" in props)
        self.function = lambda_.Function(
            self,
            "Function",
            code=code,
            handler=handler if is_image else WRAPPER,
            runtime=runtime,
            role=role,
            log_group=self.log_group,
            layers=layers or None,
            environment={**(environment or {}), **self._variables(None if is_image else handler)},
            **props,
        )
        self.role = role
        if budget is not None:
            self._allow_budget()
        monitoring.event_bus.grant_put_events_to(self.function)
        self.subscription = monitoring.track_compute(
            self, "Lines", function=self.function, log_group=self.log_group, agent_name=self.agent_name
        )
        if subscribes_to:
            self._subscribe(subscribes_to)
        self._watch()
        monitoring.metrics.declare(self.event_types)
        validation = TreeValidation.ensure(self)
        validation.expect(monitoring.metrics)
        validation.monitored.append((self.function, self.log_group))

    def metric_event(self, event_type: str, **options: Any) -> cw.Metric:
        """Return the count of an event type of this agent."""
        return self.monitoring.metrics.events(event_type, self.agent_name, **options)

    def metric_cost(self, name: str = "TotalCost", **options: Any) -> cw.Metric:
        """Return a cost of this agent in USD."""
        return self.monitoring.metrics.costs(name, self.agent_name, **options)

    def metric_invocations(self, **options: Any) -> cw.Metric:
        """Return the number of invocations."""
        return self.function.metric_invocations(**options)

    def metric_errors(self, **options: Any) -> cw.Metric:
        """Return the number of failed invocations."""
        return self.function.metric_errors(**options)

    def metric_duration(self, **options: Any) -> cw.Metric:
        """Return the duration of invocations."""
        return self.function.metric_duration(**options)

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to invoke the agent."""
        return self.function.grant_invoke(grantee)

    def stop_on(self, alarm: str) -> None:
        """Let an alarm, given by its name, stop the agent through the plane's function `stop`.

        Raises
        ------
        ValueError
            The agent's failed events go elsewhere, so what it is sent while stopped would not be kept.
        """
        if self._stoppable is None:
            if self._on_failure_is_given:
                raise ValueError(
                    f"agent {self.agent_name!r} has an on_failure= of its own: what is sent to it while it "
                    "is stopped would not be kept where `agentops-monitoring resume` finds it"
                )
            self._stoppable = Stoppable(
                self,
                "Stoppable",
                names=self.monitoring.names,
                agent_name=self.agent_name,
                function=self.function,
                queue=self.failed_events,
                failed_alarm=self.monitoring.names.alarm(f"FailedEvents-{self.agent_name}"),
            )
        self._stoppable.add_alarm(alarm)

    def grant_model(self, model_id: str, *, streaming: bool = True) -> None:
        """Allow the agent to call one Bedrock model: its id, an inference profile's id, or an ARN.

        Without `streaming` answers come in one piece only (`Converse`, `InvokeModel`).
        """
        allow_model(self, self.role, model_id, streaming=streaming)

    def _role(self, given: iam.IRole | None, *, in_vpc: bool) -> iam.IRole:
        if given is not None:
            # Whatever it holds, it can't know of a log group that is made here.
            self.log_group.grant_write(given)
            return given
        role = function_role(self, "Role", self.log_group)
        if in_vpc:
            allow_network_interfaces(role)
        return role

    def _variables(self, handler: str | None) -> dict[str, str]:
        variables = {
            "ENVIRONMENT": self.monitoring.environment,
            "EVENT_BUS_NAME": self.monitoring.event_bus.event_bus_name,
            "AGENTOPS_TRANSPORT": "stdout",
            "AGENTOPS_AGENT_NAME": self.agent_name,
            "AGENTOPS_METRIC_DETAIL": self.monitoring.metrics.detail.name,
        }
        if handler:
            variables["AGENTOPS_HANDLER"] = handler
        if self.budget:
            variables[budgets.VARIABLE] = self.budget.to_text()
            variables["LEDGER_TABLE_NAME"] = self.monitoring.names.ledger_table
        if self.event_types:
            variables["AGENTOPS_EVENT_TYPES"] = ",".join(self.event_types)
        return variables

    def _allow_budget(self) -> None:
        table = Stack.of(self).format_arn(
            service="dynamodb", resource="table", resource_name=self.monitoring.names.ledger_table
        )
        # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
        own = {"dynamodb:LeadingKeys": budgets.partition_key(self.agent_name, "*")}
        allow(self.role, ["dynamodb:UpdateItem"], [table], conditions={"ForAllValues:StringLike": own})

    def _monitor_layer(self) -> lambda_.LayerVersion:
        return lambda_.LayerVersion(
            self,
            "Monitor",
            code=bundling.code(self, bundling.layer_bundle(budget=self.budget is not None)),
            description="agentops_monitoring: the wrapper and the monitor",
        )

    def _subscribe(self, message_types: Sequence[str]) -> None:
        events.Rule(
            self,
            "Messages",
            event_bus=self.monitoring.event_bus,
            event_pattern=events.EventPattern(
                detail_type=list(message_types), detail={"environment": [self.monitoring.environment]}
            ),
            targets=[targets.LambdaFunction(self.function, dead_letter_queue=self.failed_events)],
        )

    def _watch(self) -> None:
        names = self.monitoring.names
        action = cw_actions.SnsAction(self.monitoring.topic)
        undelivered = cw.Metric(
            namespace="AWS/Logs",
            metric_name="DeliveryErrors",
            dimensions_map={
                "LogGroupName": self.log_group.log_group_name,
                "DestinationType": self.monitoring.ingest_destination.kind,
                "FilterName": self.subscription.filter_name or "",
            },
            statistic="Sum",
            period=Duration.minutes(5),
        )
        failed = self.failed_events.metric_approximate_number_of_messages_visible(
            statistic="Maximum", period=Duration.minutes(1)
        )
        for id, metric, about in (
            ("LogDelivery", undelivered, "lines do not reach ingest; replay the log group"),
            ("FailedEvents", failed, "events that it failed on, after every retry, wait in its queue"),
        ):
            alarm = cw.Alarm(
                self,
                f"{id}Alarm",
                alarm_name=names.alarm(f"{id}-{self.agent_name}"),
                alarm_description=f"Agent {self.agent_name}: {about}.",
                metric=metric,
                threshold=0,
                comparison_operator=cw.ComparisonOperator.GREATER_THAN_THRESHOLD,
                evaluation_periods=1,
                treat_missing_data=cw.TreatMissingData.NOT_BREACHING,
            )
            alarm.add_alarm_action(action)


def _check(
    agent: str,
    runtime: lambda_.Runtime,
    is_image: bool,
    props: dict[str, Any],
    environment: dict[str, str],
) -> None:
    if is_image:
        if not environment.get("AGENTOPS_HANDLER"):
            raise ValueError(
                f"agent {agent!r} is an image: install agentops-monitoring in it, set its CMD to {WRAPPER}, "
                "and name its own handler in environment={'AGENTOPS_HANDLER': …}"
            )
    elif _python_version(runtime) < _OLDEST_PYTHON:
        raise ValueError(
            f"agent {agent!r} runs on {runtime.name}: the monitor needs Python 3.11 or newer (or an image)"
        )
    level = props.get("system_log_level_v2") or props.get("system_log_level")
    if level and str(getattr(level, "value", level)) not in ("DEBUG", "INFO"):
        raise ValueError(
            f"agent {agent!r}: a system log level above INFO drops Lambda's report line, and with it the "
            "compute cost: use INFO"
        )
    if props.get("snap_start"):
        # https://docs.aws.amazon.com/lambda/latest/dg/snapstart-monitoring.html
        raise ValueError(
            f"agent {agent!r}: Lambda does not tell a SnapStart function its log stream, by which ingest "
            "tells the monitor's lines from what a model wrote: leave snap_start= out"
        )
    if "log_retention" in props:
        raise ValueError(f"agent {agent!r}: pass log_group= with its retention instead of log_retention=")


def _python_version(runtime: lambda_.Runtime) -> tuple[int, ...]:
    if runtime.family != lambda_.RuntimeFamily.PYTHON:
        return (0,)
    return tuple(int(part) for part in runtime.name.removeprefix("python").split("."))
