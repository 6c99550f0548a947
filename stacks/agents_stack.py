"""Manager, Engineer and QA, and the sandbox that QA runs tests in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aws_cdk import CfnOutput, Duration, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as s3_assets
from constructs import Construct

from agentops_constructs import AgentSource, Budget, MonitoredAgent, MonitoringPlane
from agentops_constructs.roles import allow
from agentops_constructs.validation import acknowledge

from .sandbox import Sandbox
from .settings import Settings
from .team import ENGINEER, MANAGER, QA, SANDBOX, Member
from .watch import WatchAlarms, watched_alarms, watched_functions

ROOT = Path(__file__).resolve().parents[1]
AGENTS_SOURCE = ROOT / "runtime" / "agents"
SHOP_SOURCE = ROOT / "examples" / "shop"


class AgentsStack(Stack):
    """The three reference agents on the plane of their environment."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        settings: Settings,
        watch: tuple[str, ...],
        **stack_props: Any,
    ) -> None:
        super().__init__(scope, id, **stack_props)
        self._settings = settings
        self._watch = watch
        self.monitoring = MonitoringPlane.from_environment(
            self,
            "Monitoring",
            settings.environment,
            metric_detail=settings.metric_detail,
            dashboard_suffix=settings.dashboard_suffix,
            ingest_stream=settings.ingest_stream is not None,
        )
        self.evidence = s3.Bucket(
            self,
            "Evidence",
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            removal_policy=self.monitoring.removal_policy,
            lifecycle_rules=[
                s3.LifecycleRule(
                    expiration=Duration.days(90), abort_incomplete_multipart_upload_after=Duration.days(1)
                )
            ],
        )
        acknowledge(self.evidence, "AwsSolutions-S1", "three roles read and write it, and it expires")
        self.source = (
            s3_assets.Asset(self, "WorkloadSource", path=str(SHOP_SOURCE))
            if settings.sample_workload
            else None
        )
        self.sandbox = Sandbox(self, "Sandbox", monitoring=self.monitoring, source=AGENTS_SOURCE)
        self.manager = self._agent(MANAGER)
        self.engineer = self._agent(ENGINEER)
        self.qa = self._agent(QA)
        self._grant()
        self._wake_manager()
        CfnOutput(self, "EvidenceBucket", value=self.evidence.bucket_name)

    def _agent(self, member: Member) -> MonitoredAgent:
        function_name = self.monitoring.names.function(member.name)
        budget = self._settings.agent_budget_usd
        agent = MonitoredAgent(
            self,
            member.title,
            monitoring=self.monitoring,
            agent_name=member.name,
            code=AgentSource(AGENTS_SOURCE, package="agents"),
            handler=f"agents.{member.name}.handler",
            subscribes_to=member.subscribes_to,
            function_name=function_name,
            log_group=logs.LogGroup(
                self,
                f"{member.title}Logs",
                log_group_name=f"/aws/lambda/{function_name}",
                retention=self.monitoring.log_retention,
                removal_policy=self.monitoring.log_removal_policy,
            ),
            timeout=Duration.seconds(member.timeout_seconds),
            memory_size=512,
            environment=self._variables(),
            budget=Budget(daily_usd=budget) if budget else None,
        )
        agent.grant_model(self._settings.model_id, streaming=False)
        return agent

    def _variables(self) -> dict[str, str]:
        variables = {
            "MODEL_ID": self._settings.model_id,
            "EVIDENCE_BUCKET": self.evidence.bucket_name,
            "SANDBOX_FUNCTION_NAME": self.monitoring.names.function(SANDBOX),
            # The sandbox is a tool: a call of it is no message between agents.
            "AGENTOPS_PROPAGATE": "eventbridge",
            "WATCHED_FUNCTIONS": ",".join(watched_functions(self._watch)),
        }
        if self.source:
            variables |= {
                "SOURCE_BUCKET": self.source.s3_bucket_name,
                "SOURCE_KEY": self.source.s3_object_key,
            }
        return variables

    def _grant(self) -> None:
        for agent in (self.manager, self.engineer, self.qa):
            allow(
                agent.role,
                ["s3:GetObject", "s3:PutObject"],
                [self.evidence.arn_for_objects("*")],
                why_wildcard="the objects of one bucket",
            )
            # Without it S3 answers 403 instead of 404 for a document that nobody has filed yet.
            allow(agent.role, ["s3:ListBucket"], [self.evidence.bucket_arn])
            if self.source and agent is not self.manager:
                source = self.source.bucket.arn_for_objects(self.source.s3_object_key)
                allow(agent.role, ["s3:GetObject"], [source])
        self.sandbox.allow_invoke(self.qa.role)
        allow(
            self.manager.role,
            ["cloudwatch:GetMetricData"],
            ["*"],
            why_wildcard="CloudWatch knows no resources for reading metrics",
        )
        # An alarm that exists already tells which function it is about only when it goes off.
        names = ["*"] if watched_alarms(self._watch) else watched_functions(self._watch)
        if names:
            allow(
                self.manager.role,
                ["logs:FilterLogEvents"],
                [
                    self.format_arn(service="logs", resource=f"log-group:/aws/lambda/{name}:*")
                    for name in names
                ],
                why_wildcard="the streams of a log group; of any function's, if an alarm is to name it",
            )

    def _wake_manager(self) -> None:
        functions = watched_functions(self._watch)
        alarms = WatchAlarms(self, "Watch", monitoring=self.monitoring, functions=functions)
        patterns: list[Any] = [{"prefix": alarms.prefix}] if functions else []
        patterns += watched_alarms(self._watch)
        target = targets.LambdaFunction(self.manager.function, dead_letter_queue=self.manager.failed_events)
        if patterns:
            events.Rule(
                self,
                "AlarmWakesManager",
                event_pattern=events.EventPattern(
                    source=["aws.cloudwatch"],
                    detail_type=["CloudWatch Alarm State Change"],
                    # Alarms know no environment; their names do.
                    detail={"alarmName": patterns, "state": {"value": ["ALARM"]}},
                ),
                targets=[target],
            )
        if self._settings.agents_schedule:
            events.Rule(
                self,
                "ScheduleWakesManager",
                schedule=events.Schedule.expression(self._settings.agents_schedule),
                targets=[target],
            )
