"""The monitoring plane: tables, bus, topic, and what is between the agents' lines and the dashboards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from typing import Any

from aws_cdk import Annotations, Duration, RemovalPolicy, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_ssm as ssm
from constructs import Construct, IDependable

from agentops_monitoring.catalogue import MetricDetail
from agentops_monitoring.ledger.parse import TERMS as ledger_terms
from agentops_monitoring.pricing import overrides, price_book

from .metrics import MetricFactory
from .naming import Names
from .plane_functions import PlaneFunctions
from .subscription import filter_name
from .validation import TreeValidation, acknowledge

# https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html
_MAX_FREE_PARAMETER = 4096
_MAX_PARAMETER = 8192


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
    def ingest_function_arn(self) -> str:
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
            destination_arn=self.ingest_function_arn,
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
    ) -> None:
        super().__init__(scope, id)
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

    @property
    def ingest_function_arn(self) -> str:
        """Where the agents' log groups are subscribed."""
        return self._find("ingest-function-arn")

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


class MonitoringPlane(PlaneBase):
    """Tables, bus, topic, ingest, gauges, analyzer, export and widgets of one environment.

    Parameters
    ----------
    environment
        Names follow it: as documented in `production`, with `-<environment>` behind elsewhere.
    alert_email
        Who gets the alerts; has to confirm a mail from SNS once.
    daily_budget_usd
        USD per UTC day: the alarm's threshold, the agents' `COST_ALERT_THRESHOLD`, and the budget.
    agentops_api_key_secret
        Name of the secret in Secrets Manager that holds the AgentOps API key; without it nothing is exported.
    event_bus
        A bus of the agents' own by default.
    metric_detail
        How many custom metrics the environment pays for.
    event_types
        Event types that agents of other apps declare, so that widgets here can show them.
    log_retention
        Of the plane's functions and the agents'.
    ingest_concurrency
        Reserved concurrency of ingest; bounds the contention on rollups. The account's pool by default.
    price_overrides
        What models cost you where the price book does not know it: negotiated rates, models of your own, and
        aliases such as an application inference profile's ARN; the format is `agentops_monitoring.pricing.
        overrides`'s. Kept in an SSM parameter that ingest reads anew every five minutes.
    dashboard_suffix
        Tells dashboards of two regions apart.

    Raises
    ------
    ValueError
        The environment's name, the budget, the secret's name or a price makes no sense.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: str = "production",
        alert_email: str | None = None,
        daily_budget_usd: Decimal | float = 10,
        agentops_api_key_secret: str | None = None,
        event_bus: events.IEventBus | None = None,
        metric_detail: MetricDetail = MetricDetail.STANDARD,
        event_types: tuple[str, ...] = (),
        log_retention: logs.RetentionDays = logs.RetentionDays.ONE_MONTH,
        ingest_concurrency: int | None = None,
        dashboard_suffix: str = "",
        price_overrides: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(scope, id)
        if not daily_budget_usd > 0:
            raise ValueError(f"daily_budget_usd must be above 0, not {daily_budget_usd}")
        if agentops_api_key_secret and agentops_api_key_secret.startswith("arn:"):
            raise ValueError("agentops_api_key_secret is the secret's name, not its ARN")
        self.names = Names(environment, dashboard_suffix)
        self.metrics = MetricFactory(environment, detail=metric_detail, event_types=event_types)
        self.log_retention = log_retention
        self.daily_budget_usd = Decimal(str(daily_budget_usd))
        self.agentops_api_key_secret = agentops_api_key_secret

        self.monitoring_table = self._table("Events", self.names.monitoring_table, streamed=True)
        self.decisions_table = self._table("Decisions", self.names.decisions_table, streamed=True)
        self.ledger_table = self._table("Ledger", self.names.ledger_table, indexed=False)
        self._event_bus = event_bus or events.EventBus(self, "Bus", event_bus_name=self.names.event_bus)
        self._topic = self._alerts(alert_email)
        self.dead_letter_queue = sqs.Queue(
            self,
            "DeadLetters",
            queue_name=self.names.dead_letter_queue,
            retention_period=Duration.days(14),
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
        )
        acknowledge(self.dead_letter_queue, "AwsSolutions-SQS3", "it is a dead-letter queue")
        self.price_parameter = None if price_overrides is None else self._prices(price_overrides)
        self.functions = PlaneFunctions(self, "Functions", plane=self, ingest_concurrency=ingest_concurrency)
        self.ready_to_ingest = self._allow_log_groups()
        self._publish()
        TreeValidation.ensure(self).expect(self.metrics)

    @property
    def event_bus(self) -> events.IEventBus:
        """The bus that the agents talk on."""
        return self._event_bus

    @property
    def topic(self) -> sns.ITopic:
        """The topic that the alarms go to."""
        return self._topic

    @property
    def ingest_function_arn(self) -> str:
        """Where the agents' log groups are subscribed."""
        return self.functions.ingest.function_arn

    @property
    def widgets_function_arn(self) -> str:
        """What draws the custom widgets."""
        return self.functions.widgets.function_arn

    @property
    def stop_function_arn(self) -> str:
        """What alarms invoke to stop an agent."""
        return self.functions.stop.function_arn

    @staticmethod
    def from_environment(
        scope: Construct,
        id: str,
        environment: str,
        *,
        metric_detail: MetricDetail = MetricDetail.STANDARD,
        event_types: tuple[str, ...] = (),
        dashboard_suffix: str = "",
    ) -> ImportedMonitoringPlane:
        """Return the plane of another stack, found through its SSM parameters at deployment."""
        return ImportedMonitoringPlane(
            scope,
            id,
            environment=environment,
            metric_detail=metric_detail,
            event_types=event_types,
            dashboard_suffix=dashboard_suffix,
        )

    def _table(self, id: str, name: str, *, streamed: bool = False, indexed: bool = True) -> dynamodb.TableV2:
        def key(name: str) -> dynamodb.Attribute:
            return dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING)

        indexes = [
            dynamodb.GlobalSecondaryIndexPropsV2(
                index_name=index, partition_key=key(f"{index}pk"), sort_key=key(f"{index}sk")
            )
            for index in ("gsi1", "gsi2")
        ]
        return dynamodb.TableV2(
            self,
            id,
            table_name=name,
            partition_key=key("pk"),
            sort_key=key("sk"),
            billing=dynamodb.Billing.on_demand(),
            encryption=dynamodb.TableEncryptionV2.dynamo_owned_key(),
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            time_to_live_attribute="expires_at",
            dynamo_stream=dynamodb.StreamViewType.NEW_IMAGE if streamed else None,
            global_secondary_indexes=indexes if indexed else None,
            deletion_protection=self.names.is_production,
            removal_policy=self.removal_policy,
        )

    def _alerts(self, alert_email: str | None) -> sns.Topic:
        topic = sns.Topic(self, "Alerts", topic_name=self.names.topic, enforce_ssl=True)
        # A policy of its own replaces the default one, under which alarms may publish.
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsPublish",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}},
            )
        )
        if alert_email:
            topic.add_subscription(subscriptions.EmailSubscription(alert_email))
        else:
            Annotations.of(self).add_warning_v2(
                "agentops:no-alert-email", "no alert_email: alarms reach nobody until the topic is subscribed"
            )
        return topic

    def _allow_log_groups(self) -> lambda_.CfnPermission:
        # One statement for all log groups of the account: one for each would overflow the function's policy
        # (20 kB) at about 50 agents.
        stack = Stack.of(self)
        return lambda_.CfnPermission(
            self,
            "LogsInvokeIngest",
            action="lambda:InvokeFunction",
            function_name=self.functions.ingest.function_arn,
            principal="logs.amazonaws.com",
            source_account=stack.account,
            source_arn=f"arn:{stack.partition}:logs:{stack.region}:{stack.account}:log-group:*",
        )

    def _prices(self, given: Mapping[str, Any]) -> ssm.StringParameter:
        text = json.dumps(given, default=str, separators=(",", ":"))
        overrides.parse(text, price_book())
        if len(text) > _MAX_PARAMETER:
            raise ValueError(f"price_overrides: {len(text)} characters, a parameter holds {_MAX_PARAMETER}")
        return ssm.StringParameter(
            self,
            "Prices",
            parameter_name=self.names.parameter("prices"),
            string_value=text,
            tier=ssm.ParameterTier.ADVANCED
            if len(text) > _MAX_FREE_PARAMETER
            else ssm.ParameterTier.STANDARD,
        )

    def _publish(self) -> None:
        for name, value in {
            "monitoring-table-name": self.monitoring_table.table_name,
            "decisions-table-name": self.decisions_table.table_name,
            "ledger-table-name": self.ledger_table.table_name,
            "event-bus-name": self.event_bus.event_bus_name,
            "topic-arn": self.topic.topic_arn,
            "dead-letter-queue-name": self.dead_letter_queue.queue_name,
            "ingest-function-arn": self.ingest_function_arn,
            "widgets-function-arn": self.widgets_function_arn,
            "stop-function-arn": self.stop_function_arn,
            "daily-budget-usd": str(self.daily_budget_usd),
        }.items():
            ssm.StringParameter(
                self, f"Parameter-{name}", parameter_name=self.names.parameter(name), string_value=value
            )
