"""What agents, alarms and dashboards know of a plane, whether this app defines it or another one has."""

from __future__ import annotations

from functools import cached_property

from aws_cdk import RemovalPolicy
from aws_cdk import aws_events as events
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_ssm as ssm
from constructs import Construct, IDependable

from agentops_monitoring.catalogue import MetricDetail
from agentops_monitoring.ledger.parse import TERMS as ledger_terms

from .ingest_stream import Destination
from .metrics import MetricFactory
from .naming import Names
from .subscription import filter_name
from .validation import TreeValidation


class PlaneBase(Construct):
    """What agents, alarms and dashboards need of a plane, be it defined here or found by its environment."""

    names: Names
    metrics: MetricFactory
    log_retention: logs.RetentionDays
    ready_to_ingest: IDependable | None = None
    """What must exist before the first log group can be subscribed, when it is in this app."""

    @property
    def event_bus(self) -> events.IEventBus:
        """The bus that the agents talk on."""
        raise NotImplementedError

    @property
    def topic(self) -> sns.ITopic:
        """The topic that the alarms go to."""
        raise NotImplementedError

    @property
    def ingest_destination(self) -> Destination:
        """Where the agents' log groups are subscribed."""
        raise NotImplementedError

    @property
    def widgets_function_arn(self) -> str:
        """What draws the custom widgets."""
        raise NotImplementedError

    @property
    def stop_function_arn(self) -> str:
        """What alarms invoke to stop an agent."""
        raise NotImplementedError

    @property
    def environment(self) -> str:
        """The environment's name."""
        return self.names.environment

    @property
    def removal_policy(self) -> RemovalPolicy:
        """What becomes of data when its stack goes: production keeps it, unless its creation failed."""
        if self.names.is_production:
            return RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
        return RemovalPolicy.DESTROY

    @property
    def log_removal_policy(self) -> RemovalPolicy:
        """Logs go with their stack, everywhere: what they hold of the agents is in the tables."""
        return RemovalPolicy.DESTROY

    def track_compute(
        self,
        scope: Construct,
        id: str,
        *,
        function: lambda_.IFunction,
        log_group: logs.ILogGroup,
        agent_name: str,
    ) -> logs.CfnSubscriptionFilter:
        """Send a function's lines and report lines to ingest, under an agent's name.

        For a `MonitoredAgent` that is done already. By itself it books the compute cost of a function that
        is paid for but runs no monitor.
        """
        subscription = logs.CfnSubscriptionFilter(
            scope,
            id,
            log_group_name=log_group.log_group_name,
            filter_name=filter_name(self.environment, agent_name, function),
            # Terms, for a JSON selector cannot name a key with a dot in it.
            filter_pattern=logs.FilterPattern.any_term(*ledger_terms).log_pattern_string,
            destination_arn=self.ingest_destination.arn,
            role_arn=self.ingest_destination.role_arn,
            # A shard has the lines of a log stream in order, and no two batches of one at once.
            distribution="ByLogStream" if self.ingest_destination.role_arn else None,
        )
        if self.ready_to_ingest is not None:
            subscription.node.add_dependency(self.ready_to_ingest)
        TreeValidation.ensure(self).add_agent(self.environment, agent_name)
        return subscription


class ImportedMonitoringPlane(PlaneBase):
    """A plane of another stack, found through its SSM parameters at deployment.

    Parameters
    ----------
    environment
        The plane's environment.
    metric_detail, event_types, dashboard_suffix
        As the plane was given them; they decide which metrics and names exist.
    ingest_stream
        Whether the plane has one.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: str,
        metric_detail: MetricDetail = MetricDetail.STANDARD,
        event_types: tuple[str, ...] = (),
        dashboard_suffix: str = "",
        log_retention: logs.RetentionDays = logs.RetentionDays.ONE_MONTH,
        ingest_stream: bool = False,
    ) -> None:
        super().__init__(scope, id)
        self._has_stream = ingest_stream
        self.names = Names(environment, dashboard_suffix)
        self.metrics = MetricFactory(environment, detail=metric_detail, event_types=event_types)
        self.log_retention = log_retention
        TreeValidation.ensure(self).expect(self.metrics)

    # Each is looked up when it is first used: a template parameter that nothing uses is a warning.
    @cached_property
    def event_bus(self) -> events.IEventBus:
        """The bus that the agents talk on."""
        return events.EventBus.from_event_bus_name(self, "Bus", self._find("event-bus-name"))

    @cached_property
    def topic(self) -> sns.ITopic:
        """The topic that the alarms go to."""
        return sns.Topic.from_topic_arn(self, "Topic", self._find("topic-arn"))

    @cached_property
    def ingest_destination(self) -> Destination:
        """Where the agents' log groups are subscribed."""
        if self._has_stream:
            return Destination(self._find("ingest-stream-arn"), self._find("ingest-stream-role-arn"))
        return Destination(self._find("ingest-function-arn"))

    @property
    def widgets_function_arn(self) -> str:
        """What draws the custom widgets."""
        return self._find("widgets-function-arn")

    @property
    def stop_function_arn(self) -> str:
        """What alarms invoke to stop an agent."""
        return self._find("stop-function-arn")

    def _find(self, name: str) -> str:
        return ssm.StringParameter.value_for_string_parameter(self, self.names.parameter(name))
