"""The monitoring plane: tables, bus, topic, and what is between the agents' lines and the dashboards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from aws_cdk import Annotations, Duration, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from agentops_monitoring.catalogue import MetricDetail
from agentops_monitoring.pricing import overrides, price_book

from .budgets import CostBudget, watch_budgets
from .ingest_stream import Destination, IngestStream, LineStream
from .metrics import MetricFactory
from .naming import Names
from .plane_base import ImportedMonitoringPlane, PlaneBase
from .plane_functions import PlaneFunctions
from .validation import TreeValidation, acknowledge

# https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html
_MAX_FREE_PARAMETER = 4096
_MAX_PARAMETER = 8192
# The dashboards read each shard of each of 24 hours.
_MAX_SHARDS = 64


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
    budgets
        More budgets: of months, agents and workflows; docs/budgets.md says who is told what, and when.
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
    ingest_stream
        Puts a Kinesis stream between the log groups and ingest; docs/scale.md says when. None by default.
    ledger_shards
        Over how many items each counter is spread, by log stream: with more, more streams can be booked at
        once, and reading takes more requests. It may be raised later, never lowered; docs/scale.md says when.
    price_overrides
        What models cost you where the price book does not know it: negotiated rates, models of your own, and
        aliases such as an application inference profile's ARN; the format is `agentops_monitoring.pricing.
        overrides`'s. Kept in an SSM parameter that ingest reads anew every five minutes.
    dashboard_suffix
        Tells dashboards of two regions apart.

    Raises
    ------
    ValueError
        The environment's name, a budget, the secret's name, the number of shards or a price makes no sense.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: str = "production",
        alert_email: str | None = None,
        daily_budget_usd: Decimal | float = 10,
        budgets: Sequence[CostBudget] = (),
        agentops_api_key_secret: str | None = None,
        event_bus: events.IEventBus | None = None,
        metric_detail: MetricDetail = MetricDetail.STANDARD,
        event_types: tuple[str, ...] = (),
        log_retention: logs.RetentionDays = logs.RetentionDays.ONE_MONTH,
        ingest_concurrency: int | None = None,
        ingest_stream: IngestStream | None = None,
        ledger_shards: int = 4,
        dashboard_suffix: str = "",
        price_overrides: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(scope, id)
        if not daily_budget_usd > 0:
            raise ValueError(f"daily_budget_usd must be above 0, not {daily_budget_usd}")
        if agentops_api_key_secret and agentops_api_key_secret.startswith("arn:"):
            raise ValueError("agentops_api_key_secret is the secret's name, not its ARN")
        if type(ledger_shards) is not int or not 1 <= ledger_shards <= _MAX_SHARDS:
            raise ValueError(f"ledger_shards must be within 1 and {_MAX_SHARDS}, not {ledger_shards!r}")
        if ingest_stream is not None and not isinstance(ingest_stream, IngestStream):
            raise ValueError(f"ingest_stream must be an IngestStream(…) or None, not {ingest_stream!r}")
        self.ledger_shards = ledger_shards
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
        # Log groups that another stack subscribed before there was a stream go on until it is deployed again.
        self.ready_to_ingest = self._allow_log_groups()
        self._lines = None
        if ingest_stream is not None:
            self._lines = self.ready_to_ingest = LineStream(
                self, "Lines", names=self.names, settings=ingest_stream, ingest=self.functions.ingest,
                dead_letters=self.dead_letter_queue, topic=self.topic,
            )  # fmt: skip
        watch_budgets(self, self, budgets)
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
    def ingest_destination(self) -> Destination:
        """Where the agents' log groups are subscribed."""
        return self._lines.destination if self._lines else Destination(self.functions.ingest.function_arn)

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
        ingest_stream: bool = False,
    ) -> ImportedMonitoringPlane:
        """Return the plane of another stack, found through its SSM parameters at deployment."""
        return ImportedMonitoringPlane(
            scope,
            id,
            environment=environment,
            metric_detail=metric_detail,
            event_types=event_types,
            dashboard_suffix=dashboard_suffix,
            ingest_stream=ingest_stream,
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
            "ingest-function-arn": self.functions.ingest.function_arn,
            **(
                {
                    "ingest-stream-arn": self._lines.destination.arn,
                    "ingest-stream-role-arn": self._lines.destination.role_arn or "",
                }
                if self._lines
                else {}
            ),
            "widgets-function-arn": self.widgets_function_arn,
            "stop-function-arn": self.stop_function_arn,
            "daily-budget-usd": str(self.daily_budget_usd),
        }.items():
            ssm.StringParameter(
                self, f"Parameter-{name}", parameter_name=self.names.parameter(name), string_value=value
            )
