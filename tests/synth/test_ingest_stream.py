"""A Kinesis stream between the log groups and ingest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk.assertions import Match, Template

from agentops_constructs import IngestStream, MonitoredAgent, MonitoringPlane
from agentops_monitoring.ledger.parse import TERMS
from benchmarks import scale

from .conftest import NO_BUNDLING, Resource, Templates, listed, synthesized

_CODE = lambda_.Code.from_inline("def handler(event, context): return 1")


def _stack() -> Stack:
    return Stack(App(context=NO_BUNDLING, analytics_reporting=False), "Team")


def _agent(stack: Stack, plane: Any) -> MonitoredAgent:
    return MonitoredAgent(
        stack, "Helper", monitoring=plane, agent_name="helper", code=_CODE, handler="index.handler"
    )


@pytest.fixture(scope="module")
def team() -> Template:
    stack = _stack()
    plane = MonitoringPlane(stack, "Monitoring", environment="team", ingest_stream=IngestStream(shards=3))
    _agent(stack, plane)
    return Template.from_stack(stack)


def _only(template: Template, type: str, **properties: Any) -> tuple[str, Mapping[str, Any]]:
    (found,) = template.find_resources(type, {"Properties": properties} if properties else None).items()
    return found


def test_without_the_setting_there_is_none(production: Templates) -> None:
    assert not list(production.resources("AWS::Kinesis::Stream"))
    for each in production.resources("AWS::Logs::SubscriptionFilter"):
        assert not {"RoleArn", "Distribution"} & each.properties.keys(), "refused with a function"


def test_the_stream_is_encrypted_and_goes_with_its_stack(team: Template) -> None:
    _, stream = _only(team, "AWS::Kinesis::Stream")

    assert stream["Properties"] == {
        "Name": "agentops-lines-team",
        "RetentionPeriodHours": 24,
        "ShardCount": 3,
        "StreamEncryption": {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"},
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
    }
    assert stream["DeletionPolicy"] == "Delete"


def test_on_demand_it_has_no_shards() -> None:
    stack = _stack()
    MonitoringPlane(stack, "Monitoring", environment="team", ingest_stream=IngestStream(retention_hours=72))
    _, stream = _only(Template.from_stack(stack), "AWS::Kinesis::Stream")

    assert stream["Properties"]["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
    assert "ShardCount" not in stream["Properties"]
    assert stream["Properties"]["RetentionPeriodHours"] == 72


def test_log_groups_write_to_it_with_a_role_that_can_do_nothing_else(team: Template) -> None:
    stream, _ = _only(team, "AWS::Kinesis::Stream")
    _, line_filter = _only(team, "AWS::Logs::SubscriptionFilter")
    found = line_filter["Properties"]
    role = found["RoleArn"]["Fn::GetAtt"][0]
    policy_id, policy = _only(team, "AWS::IAM::Policy", Roles=[{"Ref": role}])
    trust = team.to_json()["Resources"][role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]

    assert found["DestinationArn"] == {"Fn::GetAtt": [stream, "Arn"]}
    assert found["Distribution"] == "ByLogStream"
    assert found["FilterName"].startswith("agentops|team|helper|arm64")
    assert all(term in found["FilterPattern"] for term in TERMS)
    # CloudWatch Logs tries the role when the filter is put.
    assert {policy_id, role, stream} <= set(line_filter["DependsOn"])
    assert [each["Action"] for each in policy["Properties"]["PolicyDocument"]["Statement"]] == [
        "kinesis:PutRecord"
    ]
    assert [each["Principal"] for each in trust] == [{"Service": "logs.amazonaws.com"}]
    assert "aws:SourceArn" in trust[0]["Condition"]["StringLike"]


def test_ingest_reads_it_and_says_which_records_failed(team: Template) -> None:
    stream, _ = _only(team, "AWS::Kinesis::Stream")
    _, mapping = _only(team, "AWS::Lambda::EventSourceMapping")
    ingest, function = _only(team, "AWS::Lambda::Function", FunctionName="agentops-ingest-team")
    found = mapping["Properties"]

    assert found["EventSourceArn"] == {"Fn::GetAtt": [stream, "Arn"]}
    assert found["FunctionName"] == {"Ref": ingest}
    assert found["BatchSize"] == scale.RECORDS_A_BATCH
    assert found["MaximumBatchingWindowInSeconds"] == scale.WINDOW_S
    assert found["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert found["BisectBatchOnFunctionError"] is True
    assert found["StartingPosition"] == "TRIM_HORIZON"
    # Age alone ends the retries, hours before the stream forgets.
    assert "MaximumRetryAttempts" not in found
    assert found["MaximumRecordAgeInSeconds"] == 20 * 3600
    assert "OnFailure" in found["DestinationConfig"]
    reads = {
        action
        for policy in team.find_resources("AWS::IAM::Policy").values()
        if function["Properties"]["Role"]["Fn::GetAtt"][0]
        in [each["Ref"] for each in policy["Properties"]["Roles"]]
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        for action in listed(statement["Action"])
        if action.startswith("kinesis:")
    }
    assert reads == {
        f"kinesis:{name}"
        for name in (
            "DescribeStream",
            "DescribeStreamSummary",
            "GetRecords",
            "GetShardIterator",
            "ListShards",
        )
    }


@pytest.mark.parametrize(("hours", "age"), [(168, 164), (8760, 168)])
def test_what_is_given_up_on_can_still_be_looked_at(hours: int, age: int) -> None:
    stack = _stack()
    settings = IngestStream(retention_hours=hours, parallel_batches=4)
    MonitoringPlane(stack, "Monitoring", environment="team", ingest_stream=settings)

    Template.from_stack(stack).has_resource_properties(
        "AWS::Lambda::EventSourceMapping",
        {"MaximumRecordAgeInSeconds": age * 3600, "ParallelizationFactor": 4},
    )


def test_alarms_watch_its_age_and_its_room(team: Template) -> None:
    ingest, _ = _only(team, "AWS::Lambda::Function", FunctionName="agentops-ingest-team")
    for name, properties in (
        (
            "IngestBehind",
            {
                "MetricName": "IteratorAge",
                "Namespace": "AWS/Lambda",
                "Dimensions": [{"Name": "FunctionName", "Value": {"Ref": ingest}}],
                "Threshold": 300_000,
            },
        ),
        ("IngestStreamFull", {"MetricName": "WriteProvisionedThroughputExceeded", "Threshold": 0}),
        (
            "LogDelivery-helper",
            {"Dimensions": Match.array_with([{"Name": "DestinationType", "Value": "Kinesis"}])},
        ),
    ):
        team.has_resource_properties(
            "AWS::CloudWatch::Alarm",
            {"AlarmName": f"AgentOps-team-{name}", "AlarmActions": Match.any_value(), **properties},
        )


def test_another_stack_finds_it_and_a_function_without_a_monitor_writes_to_it_too() -> None:
    stack = _stack()
    plane = MonitoringPlane.from_environment(stack, "Monitoring", "team", ingest_stream=True)
    log_group = logs.LogGroup(stack, "Logs")
    function = lambda_.Function(
        stack, "Plain", runtime=lambda_.Runtime.PYTHON_3_13, handler="index.handler", code=_CODE,
        log_group=log_group,
    )  # fmt: skip
    plane.track_compute(stack, "Lines", function=function, log_group=log_group, agent_name="plain")

    template = Template.from_stack(stack)
    parameters = {name: each["Default"] for name, each in template.to_json()["Parameters"].items()}
    _, line_filter = _only(template, "AWS::Logs::SubscriptionFilter")
    found = line_filter["Properties"]
    assert parameters[found["DestinationArn"]["Ref"]] == "/agentops/team/ingest-stream-arn"
    assert parameters[found["RoleArn"]["Ref"]] == "/agentops/team/ingest-stream-role-arn"


def test_the_plane_tells_others_where_it_is(team: Template) -> None:
    stream, _ = _only(team, "AWS::Kinesis::Stream")
    _, parameter = _only(team, "AWS::SSM::Parameter", Name="/agentops/team/ingest-stream-arn")
    assert parameter["Properties"]["Value"] == {"Fn::GetAtt": [stream, "Arn"]}
    # Log groups of stacks that were deployed before go on.
    for name in ("ingest-stream-role-arn", "ingest-function-arn"):
        _only(team, "AWS::SSM::Parameter", Name=f"/agentops/team/{name}")
    _only(team, "AWS::Lambda::Permission", Principal="logs.amazonaws.com")


def test_the_app_takes_it_from_its_context() -> None:
    templates = synthesized("staging", ingest_stream="on_demand")
    stream: Resource = templates.one("AWS::Kinesis::Stream")
    assert stream.stack == "monitoring"
    filters = list(templates.resources("AWS::Logs::SubscriptionFilter"))
    assert len(filters) == 4
    assert all("RoleArn" in each.properties for each in filters)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"shards": 0}, "shards"),
        ({"retention_hours": 12}, "retention_hours"),
        ({"parallel_batches": 11}, "parallel"),
        ({"shards": "3"}, "shards"),
        ({"shards": 1.5}, "shards"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        IngestStream(**settings)


def test_settings_of_another_kind_are_named() -> None:
    other: Any = True  # as from_environment takes it
    with pytest.raises(ValueError, match="ingest_stream must be an IngestStream"):
        MonitoringPlane(_stack(), "Monitoring", environment="team", ingest_stream=other)
