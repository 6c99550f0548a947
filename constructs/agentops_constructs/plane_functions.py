"""The Lambda functions of the plane, each with the permissions that its work needs and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import ArnFormat, Duration, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from . import bundling
from .roles import FailedBatches, FailedEvents, allow, allow_items, function_role
from .stopping import allow_stopping

PLANE_FUNCTIONS = ("ingest", "gauges", "analyze", "widgets", "export", "fold", "ready", "reconcile", "stop")

if TYPE_CHECKING:
    from .monitoring_plane import MonitoringPlane


class PlaneFunctions(Construct):
    """Ingest, gauges, analyze, widgets, stop and, with a key for it, export."""

    def __init__(
        self, scope: Construct, id: str, *, plane: MonitoringPlane, ingest_concurrency: int | None = None
    ) -> None:
        super().__init__(scope, id)
        self._plane = plane
        self.all: list[lambda_.Function] = []
        code = bundling.code(self, bundling.plane_bundle())
        events_table, decisions, ledger = plane.monitoring_table, plane.decisions_table, plane.ledger_table

        self.ingest = self._function(
            "ingest", code, memory=512, timeout=60, concurrency=ingest_concurrency,
            about="Writes the agents' lines to the tables, once each, and prints cost metrics",
            environment={"DEAD_LETTER_QUEUE_URL": plane.dead_letter_queue.queue_url},
        )  # fmt: skip
        role = _role(self.ingest)
        for table in (events_table, decisions):
            allow_items(role, table, "PutItem")
        allow_items(role, ledger, "BatchGetItem", "BatchWriteItem", "PutItem", "Query", "UpdateItem")
        if plane.price_parameter is not None:
            self.ingest.add_environment("AGENTOPS_PRICES", f"ssm:{plane.price_parameter.parameter_name}")
            allow(role, ["ssm:GetParameter"], [plane.price_parameter.parameter_arn])
        # What Lambda gives up on, after its own retries, is kept where ingest keeps what it can't read.
        self.ingest.configure_async_invoke(on_failure=FailedEvents(plane.dead_letter_queue))

        self.gauges = self._function(
            "gauges",
            code,
            memory=256,
            timeout=60,
            about="Tells the spend of the day and budgets, each minute",
        )
        allow_items(_role(self.gauges), ledger, "Query")
        self._every(Duration.minutes(1), self.gauges)

        self.analyze = self._function(
            "analyze", code, memory=512, timeout=120, about="Looks for lost messages, loops and anomalies"
        )
        # Events of a type; the ledger also holds how far it has come, and data too large for one item.
        allow_items(_role(self.analyze), events_table, "Query", index="gsi2")
        allow_items(_role(self.analyze), ledger, "GetItem", "Query", "UpdateItem")
        plane.event_bus.grant_put_events_to(self.analyze)
        self._every(Duration.minutes(5), self.analyze)

        self.widgets = self._function(
            "widgets", code, memory=512, timeout=30, about="Draws the dashboards' custom widgets"
        )
        allow_items(_role(self.widgets), ledger, "Query")
        allow_items(_role(self.widgets), decisions, "GetItem")
        allow_items(_role(self.widgets), decisions, "Query", index="gsi1")

        self.stop = self._stop(code)

        self.fold = self._function(
            # A day of a large environment takes minutes; what one run has no time for, the next one does.
            "fold", code, memory=512, timeout=900, about="Folds hours that are over into days and months",
        )  # fmt: skip
        allow_items(_role(self.fold), ledger, "PutItem", "Query", "UpdateItem")
        self._every(Duration.minutes(15), self.fold)

        self.ready = self._ready(code)

        self.reconcile = self._reconcile(code)

        self.export = self._export(plane.agentops_api_key_secret) if plane.agentops_api_key_secret else None

    def _ready(self, code: lambda_.Code) -> lambda_.Function:
        function = self._function(
            "ready", code, memory=256, timeout=120,
            about="Books what it costs to keep environments ready (provisioned concurrency)",
        )  # fmt: skip
        allow_items(_role(function), self._plane.ledger_table, "Query", "UpdateItem")
        functions = Stack.of(self).format_arn(
            service="lambda",
            resource="function",
            resource_name="*",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        allow(
            _role(function),
            ["lambda:GetFunctionConfiguration", "lambda:ListProvisionedConcurrencyConfigs"],
            [functions],
            why_wildcard="The agents' functions are in other stacks, or not there yet",
        )
        # As often as AWS bills it.
        self._every(Duration.minutes(5), function)
        return function

    def _reconcile(self, code: lambda_.Code) -> lambda_.Function:
        function = self._function(
            "reconcile", code, memory=256, timeout=300,
            about="Holds yesterday's counts against AWS/Lambda's and AWS/Bedrock's",
        )  # fmt: skip
        allow_items(_role(function), self._plane.ledger_table, "BatchWriteItem", "Query")
        allow(
            _role(function),
            ["cloudwatch:GetMetricData", "cloudwatch:ListMetrics"],
            ["*"],
            why_wildcard="CloudWatch's metrics have no ARNs",
        )
        events.Rule(
            self,
            "ReconcileSchedule",
            # Six hours behind the day: by then its lines are in, and what failed was delivered again.
            schedule=events.Schedule.cron(hour="6", minute="0"),
            targets=[targets.LambdaFunction(function, retry_attempts=2)],
        )
        return function

    def _stop(self, code: lambda_.Code) -> lambda_.Function:
        plane = self._plane
        function = self._function(
            "stop", code, memory=256, timeout=300,
            about="Stops agents when their alarm says so, and resumes them in the next UTC day",
        )  # fmt: skip
        allow_stopping(plane, function)
        # A breach that stops nothing must not go unnoticed: an alarm watches this queue.
        function.configure_async_invoke(on_failure=FailedEvents(plane.dead_letter_queue))
        events.Rule(
            self,
            "StopSchedule",
            # 00:05, and each quarter of an hour after it for what was refused or not finished then.
            schedule=events.Schedule.expression("cron(5/15 * * * ? *)"),
            targets=[targets.LambdaFunction(function, retry_attempts=0)],
        )
        # One statement for all alarms: CDK's LambdaAction adds one for each.
        stack = Stack.of(self)
        lambda_.CfnPermission(
            self,
            "AlarmsInvokeStop",
            action="lambda:InvokeFunction",
            function_name=function.function_arn,
            principal="lambda.alarms.cloudwatch.amazonaws.com",
            source_account=stack.account,
            source_arn=stack.format_arn(
                service="cloudwatch",
                resource="alarm",
                resource_name=plane.names.alarm("*"),
                arn_format=ArnFormat.COLON_RESOURCE_NAME,
            ),
        )
        return function

    def _function(
        self,
        name: str,
        code: lambda_.Code,
        *,
        about: str,
        memory: int,
        timeout: int,
        concurrency: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> lambda_.Function:
        plane = self._plane
        title = name.capitalize()
        log_group = logs.LogGroup(
            self,
            f"{title}Logs",
            log_group_name=f"/aws/lambda/{plane.names.function(name)}",
            retention=plane.log_retention,
            removal_policy=plane.log_removal_policy,
        )
        function = lambda_.Function(
            self,
            title,
            function_name=plane.names.function(name),
            description=about,
            runtime=bundling.RUNTIME,
            architecture=lambda_.Architecture.ARM_64,
            handler=f"agentops_monitoring.functions.{name}.handler",
            code=code,
            role=function_role(self, f"{title}Role", log_group),
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            memory_size=memory,
            timeout=Duration.seconds(timeout),
            reserved_concurrent_executions=concurrency,
            environment={
                "ENVIRONMENT": plane.environment,
                "MONITORING_TABLE_NAME": plane.monitoring_table.table_name,
                "DECISIONS_TABLE_NAME": plane.decisions_table.table_name,
                "LEDGER_TABLE_NAME": plane.ledger_table.table_name,
                "EVENT_BUS_NAME": plane.event_bus.event_bus_name,
                "COST_ALERT_THRESHOLD": str(plane.daily_budget_usd),
                "COST_ALERT_TOPIC_ARN": plane.topic.topic_arn,
                "AGENTOPS_METRIC_DETAIL": plane.metrics.detail.name,
                # Who reads has to look where others write.
                "AGENTOPS_LEDGER_SHARDS": str(plane.ledger_shards),
                **(environment or {}),
            },
        )
        self.all.append(function)
        return function

    def _every(self, period: Duration, function: lambda_.Function) -> None:
        events.Rule(
            self,
            f"{function.node.id}Schedule",
            schedule=events.Schedule.rate(period),
            # A missed minute is made up for by the next one.
            targets=[targets.LambdaFunction(function, retry_attempts=0)],
        )

    def _export(self, secret_name: str) -> lambda_.Function:
        plane = self._plane
        code = bundling.code(self, bundling.export_bundle(for_host=bundling.for_host(self)))
        function = self._function(
            "export", code, memory=512, timeout=120,
            about="Sends each workflow as a trace to AgentOps",
            environment={
                "AGENTOPS_API_KEY_SECRET": secret_name,
                # The SDK writes a log file, starts a session and patches model clients unless told not to.
                "AGENTOPS_LOGGING_TO_FILE": "false",
                "AGENTOPS_AUTO_START_SESSION": "false",
                "AGENTOPS_INSTRUMENT_LLM_CALLS": "false",
            },
        )  # fmt: skip
        role = _role(function)
        secret = Stack.of(self).format_arn(
            service="secretsmanager",
            resource="secret",
            # Secrets Manager adds six characters to a name.
            resource_name=f"{secret_name}-??????",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        allow(role, ["secretsmanager:GetSecretValue"], [secret])
        # What an event's item leaves out: a decision's reasoning chain, and data too large for one item.
        allow_items(role, plane.decisions_table, "BatchGetItem")
        allow_items(role, plane.ledger_table, "Query")
        stream_arn = plane.monitoring_table.table_stream_arn
        assert stream_arn is not None
        read = ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams")
        allow(role, [f"dynamodb:{action}" for action in read], [stream_arn])
        function.add_event_source_mapping(
            "Stream",
            event_source_arn=stream_arn,
            starting_position=lambda_.StartingPosition.TRIM_HORIZON,
            batch_size=100,
            max_batching_window=Duration.seconds(2),
            report_batch_item_failures=True,
            bisect_batch_on_error=True,
            # Age alone ends the retries: any number of them would be used up within minutes of an outage, and
            # what a stream gives up on is only its position, not its data. The stream keeps 24 hours.
            max_record_age=Duration.hours(20),
            # Expired items leave deletions in the stream.
            filters=[lambda_.FilterCriteria.filter({"eventName": lambda_.FilterRule.is_equal("INSERT")})],
            on_failure=FailedBatches(plane.dead_letter_queue),
        )
        return function


def _role(function: lambda_.Function) -> iam.IRole:
    assert function.role is not None
    return function.role
