"""A Kinesis stream between the log groups and ingest: what it takes to put one there, and to see it lag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_cloudwatch as cw
from aws_cdk import aws_cloudwatch_actions as cw_actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kinesis as kinesis
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from .naming import Names
from .roles import FailedBatches, allow

# What Lambda's event source mapping needs and checks when it is made, without that of enhanced fan-out:
# https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html
_READ = ("DescribeStream", "DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards")
# https://docs.aws.amazon.com/streams/latest/dev/kinesis-extended-retention.html
_RETENTION_HOURS = (24, 8760)
# https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html
_MAX_RECORD_HOURS = 7 * 24
_MAX_PARALLEL = 10
_TO_LOOK_HOURS = 4
"""Between Lambda's giving up on a record and its end in the stream."""
_BATCH = 100
"""Records; a batch has 6 MB at most, whatever it is here."""
BEHIND = Duration.minutes(5)
"""How old the oldest record may be when it is read."""


class Destination(NamedTuple):
    """Where log groups are subscribed."""

    arn: str
    role_arn: str | None = None
    """What CloudWatch Logs needs for a stream, and refuses for a function."""

    @property
    def kind(self) -> str:
        """As AWS/Logs metrics name it."""
        return "Kinesis" if self.role_arn else "Lambda"


@dataclass(frozen=True, slots=True)
class IngestStream:
    """Settings of the stream between the log groups and ingest; docs/scale.md says when it pays.

    Parameters
    ----------
    shards
        Each takes 1 MB or 1,000 payloads a second; on demand, as many as it takes, when left out.
    retention_hours
        How long the stream keeps what ingest has not taken, 24 to 8,760; from 25 on it costs more.
    parallel_batches
        Of a shard, 1 to 10; lines of one log stream stay in order.

    Raises
    ------
    ValueError
        A number is out of range.
    """

    shards: int | None = None
    retention_hours: int = 24
    parallel_batches: int = 1

    def __post_init__(self) -> None:
        for name, value, (low, high) in (
            ("shards", self.shards, (1, 10_000)),
            ("retention_hours", self.retention_hours, _RETENTION_HOURS),
            ("parallel_batches", self.parallel_batches, (1, _MAX_PARALLEL)),
        ):
            if name == "shards" and value is None:
                continue
            if type(value) is not int or not low <= value <= high:
                raise ValueError(
                    f"ingest_stream {name} must be a whole number from {low} to {high}, not {value!r}"
                )


class LineStream(Construct):
    """The stream, the role with which CloudWatch Logs writes to it, ingest reading it, and two alarms."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        names: Names,
        settings: IngestStream,
        ingest: lambda_.Function,
        dead_letters: sqs.IQueue,
        topic: sns.ITopic,
    ) -> None:
        super().__init__(scope, id)
        mode = kinesis.StreamMode.PROVISIONED if settings.shards else kinesis.StreamMode.ON_DEMAND
        self.stream = kinesis.Stream(
            self,
            "Stream",
            stream_name=names.of("agentops-lines"),
            stream_mode=mode,
            shard_count=settings.shards,
            retention_period=Duration.hours(settings.retention_hours),
            # The key that AWS manages needs no grants in the account.
            encryption=kinesis.StreamEncryption.MANAGED,
            # What it holds is in the log groups as well.
            removal_policy=RemovalPolicy.DESTROY,
        )
        self.destination = Destination(self.stream.stream_arn, self._writer().role_arn)
        self._read(ingest, settings, dead_letters)
        self._watch(names, ingest, topic)

    def _writer(self) -> iam.Role:
        stack = Stack.of(self)
        # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html
        logs = iam.ServicePrincipal(
            "logs.amazonaws.com",
            conditions={
                "StringLike": {
                    "aws:SourceArn": f"arn:{stack.partition}:logs:{stack.region}:{stack.account}:*"
                }
            },
        )
        role = iam.Role(self, "Role", assumed_by=logs)
        allow(role, ["kinesis:PutRecord"], [self.stream.stream_arn])
        return role

    def _read(self, ingest: lambda_.Function, settings: IngestStream, dead_letters: sqs.IQueue) -> None:
        assert ingest.role is not None
        allow(ingest.role, [f"kinesis:{action}" for action in _READ], [self.stream.stream_arn])
        ingest.add_event_source_mapping(
            "Lines",
            event_source_arn=self.stream.stream_arn,
            starting_position=lambda_.StartingPosition.TRIM_HORIZON,
            batch_size=_BATCH,
            max_batching_window=Duration.seconds(2),
            parallelization_factor=settings.parallel_batches if settings.parallel_batches > 1 else None,
            report_batch_item_failures=True,
            bisect_batch_on_error=True,
            # What can't ever be taken ingest itself keeps whole, for a stream gives up on a position, not on
            # data. So age alone ends the retries, and leaves time to read that position by hand.
            max_record_age=Duration.hours(min(settings.retention_hours - _TO_LOOK_HOURS, _MAX_RECORD_HOURS)),
            on_failure=FailedBatches(dead_letters),
        )

    def _watch(self, names: Names, ingest: lambda_.Function, topic: sns.ITopic) -> None:
        age = ingest.metric("IteratorAge", statistic="Maximum", period=Duration.minutes(1))
        full = self.stream.metric_write_provisioned_throughput_exceeded(
            statistic="Sum", period=Duration.minutes(5)
        )
        for id, metric, threshold, about in (
            ("IngestBehind", age, BEHIND.to_milliseconds(), "lines wait in the stream longer than 5 minutes"),
            # CloudWatch Logs tries again for 24 hours; the alert is for a stream that stays too small.
            ("IngestStreamFull", full, 0, "the stream keeps refusing lines: it needs more shards"),
        ):
            alarm = cw.Alarm(
                self,
                id,
                alarm_name=names.alarm(id),
                alarm_description=f"Ingest: {about}.",
                metric=metric,
                threshold=threshold,
                comparison_operator=cw.ComparisonOperator.GREATER_THAN_THRESHOLD,
                evaluation_periods=3,
                treat_missing_data=cw.TreatMissingData.NOT_BREACHING,
            )
            alarm.add_alarm_action(cw_actions.SnsAction(topic))
