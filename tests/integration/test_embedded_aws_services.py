"""Streams, events and templates of the embedded AWS, where our claims rest on them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration.conftest import ACCOUNT, REGION, EmbeddedAws

pytestmark = pytest.mark.xdist_group("embedded_aws")

STREAM = """
import boto3, json, os
def handler(event, context):
    names = [r["dynamodb"]["Keys"]["pk"]["S"] for r in event["Records"]]
    boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps(names))
    bad = [r for r in event["Records"] if r["dynamodb"]["Keys"]["pk"]["S"].startswith("bad")]
    if bad and os.environ["HOW"] == "raise": raise RuntimeError("a bad record")
    return {"batchItemFailures": [{"itemIdentifier": bad[0]["dynamodb"]["SequenceNumber"]}] if bad else []}
"""


@pytest.mark.parametrize(
    ("how", "settings", "given_up"),
    [
        # Without bisection, Lambda gives up all that is left of the batch.
        ("report", {"FunctionResponseTypes": ["ReportBatchItemFailures"]}, 3),
        ("raise", {"BisectBatchOnFunctionError": True}, 1),
    ],
)
def test_stream_checkpoints_bisects_and_gives_up(
    aws: EmbeddedAws, how: str, settings: dict[str, Any], given_up: int
) -> None:
    failure_url, failure_arn = aws.queue()
    function, url = aws.relay(STREAM, variables={"HOW": how})
    table = aws.name("table")
    description = aws.client("dynamodb").create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )["TableDescription"]
    names = ["good-0", "good-1", "bad-2", "good-3", "good-4"]
    for name in names:
        aws.client("dynamodb").put_item(TableName=table, Item={"pk": {"S": name}})
    aws.client("lambda").create_event_source_mapping(
        FunctionName=function,
        EventSourceArn=description["LatestStreamArn"],
        StartingPosition="TRIM_HORIZON",
        MaximumRetryAttempts=1,
        BatchSize=10,
        DestinationConfig={"OnFailure": {"Destination": failure_arn}},
        **settings,
    )
    aws.until(lambda: aws.local("idle")["stream_records"] == 0, 15)
    taken = aws.bodies(url)
    assert taken[0] == names
    assert taken[-1][-1] == "good-4"
    (record,) = aws.bodies(failure_url)
    assert record["DDBStreamBatchInfo"]["batchSize"] == given_up
    assert record["requestContext"]["condition"] == "RetryAttemptsExhausted"


def test_events_reach_functions_and_a_missing_one_the_dead_letters(aws: EmbeddedAws) -> None:
    events, bus = aws.client("events"), aws.name("bus")
    function, url = aws.relay()
    dead_url, dead_arn = aws.queue()
    events.create_event_bus(Name=bus)
    unwilling = aws.function(STREAM)
    aws.client("lambda").remove_permission(FunctionName=unwilling, StatementId="events")
    for rule, target in (("there", function), ("gone", "no-such-function"), ("unwilling", unwilling)):
        events.put_rule(
            Name=rule, EventBusName=bus, EventPattern=json.dumps({"detail": {"environment": ["e"]}})
        )
        target_settings = {"Id": "f", "Arn": aws.arn(target), "DeadLetterConfig": {"Arn": dead_arn}}
        events.put_targets(Rule=rule, EventBusName=bus, Targets=[target_settings])
    entries = [
        {"EventBusName": bus, "Source": "s", "DetailType": "t", "Detail": json.dumps({"environment": name})}
        for name in ("e", "other")
    ]
    events.put_events(Entries=entries)
    aws.settle()
    (event,) = aws.bodies(url)
    assert event["detail"] == {"environment": "e"}
    dead = aws.until(lambda: aws.messages(dead_url))
    dead += aws.until(lambda: aws.messages(dead_url)) if len(dead) == 1 else []
    reasons = {one["MessageAttributes"]["ERROR_CODE"]["StringValue"] for one in dead}
    assert reasons == {"NO_RESOURCE", "NO_PERMISSIONS"}
    assert [json.loads(one["Body"])["detail"] for one in dead] == [{"environment": "e"}] * 2


def test_schedules_fire_on_demand(aws: EmbeddedAws) -> None:
    function, url = aws.relay()
    rule = aws.name("rule")
    aws.client("events").put_rule(Name=rule, ScheduleExpression="rate(1 minute)")
    aws.client("events").put_targets(Rule=rule, Targets=[{"Id": "f", "Arn": aws.arn(function)}])
    assert aws.local("schedules", {})["fired"] >= 1
    aws.settle()
    (event,) = aws.bodies(url)
    assert event["detail-type"] == "Scheduled Event"


def deploy(aws: EmbeddedAws, resources: dict[str, Any], **template: Any) -> str:
    """Create a stack and wait for its end; return its status and the reasons of what failed."""
    cloudformation, stack = aws.client("cloudformation"), aws.name("stack")
    cloudformation.create_stack(
        StackName=stack, TemplateBody=json.dumps({"Resources": resources, **template})
    )

    def ended() -> str:
        status = str(cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])
        return "" if status.endswith("IN_PROGRESS") else status

    status = aws.until(ended)
    events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
    return " ".join([status, *(str(event.get("ResourceStatusReason", "")) for event in events)])


def test_templates_keep_what_our_tables_alarms_and_functions_say(aws: EmbeddedAws) -> None:
    table, alarm, function, parameter = (
        aws.name(kind) for kind in ("table", "alarm", "function", "parameter")
    )
    aws.client("ssm").put_parameter(Name=parameter, Value="the value", Type="String")
    metric = {"Namespace": "n", "MetricName": "m"}
    resources = {
        "Table": {
            "Type": "AWS::DynamoDB::GlobalTable",
            "Properties": {
                "TableName": table,
                "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
                "BillingMode": "PAY_PER_REQUEST",
                "StreamSpecification": {"StreamViewType": "NEW_IMAGE"},
                "TimeToLiveSpecification": {"AttributeName": "expires_at", "Enabled": True},
                "Replicas": [
                    {
                        "Region": REGION,
                        "DeletionProtectionEnabled": True,
                        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
                    }
                ],
            },
        },
        "Alarm": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "AlarmName": alarm,
                "AlarmDescription": {"Ref": "Setting"},
                "EvaluationPeriods": 3,
                "DatapointsToAlarm": 2,
                "Threshold": 1,
                "ComparisonOperator": "GreaterThanThreshold",
                "Metrics": [
                    {
                        "Id": "a",
                        "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"},
                        "ReturnData": False,
                    },
                    {"Id": "b", "Expression": "a * 2"},
                ],
            },
        },
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "FunctionName": function,
                "Runtime": "python3.12",
                "Handler": "index.handler",
                "Role": f"arn:aws:iam::{ACCOUNT}:role/any",
                "Code": {"ZipFile": "def handler(event, context): return event"},
                "ReservedConcurrentExecutions": 7,
                "DeadLetterConfig": {"TargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:letters"},
            },
        },
    }
    setting = {"Type": "AWS::SSM::Parameter::Value<String>", "Default": parameter}
    assert deploy(aws, resources, Parameters={"Setting": setting}).startswith("CREATE_COMPLETE")
    dynamodb = aws.client("dynamodb")
    ttl = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "expires_at")
    description = dynamodb.describe_table(TableName=table)["Table"]
    assert description["DeletionProtectionEnabled"] is True
    assert description["StreamSpecification"]["StreamEnabled"] is True
    (described,) = aws.client("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
    assert described["AlarmDescription"] == "the value"
    assert described["DatapointsToAlarm"] == 2
    assert [metric["Id"] for metric in described["Metrics"]] == ["a", "b"]
    settings = aws.client("lambda").get_function(FunctionName=function)
    assert settings["Concurrency"]["ReservedConcurrentExecutions"] == 7
    assert settings["Configuration"]["DeadLetterConfig"]["TargetArn"].endswith(":letters")
    assert aws.invoke(function, {"a": 1}) == ({"a": 1}, False)


def test_a_retained_table_is_not_overwritten(aws: EmbeddedAws) -> None:
    table = aws.name("table")
    properties = {
        "TableName": table,
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
        "Replicas": [{"Region": REGION}],
    }
    resources = {"Table": {"Type": "AWS::DynamoDB::GlobalTable", "Properties": properties}}
    assert deploy(aws, resources).startswith("CREATE_COMPLETE")
    aws.client("dynamodb").put_item(TableName=table, Item={"pk": {"S": "kept"}})
    assert "already exists" in deploy(aws, resources)
    assert aws.client("dynamodb").scan(TableName=table)["Count"] == 1


def denied_if(condition: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of a policy that denies everything under a condition."""
    statement = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}
    return {"Queues": [], "PolicyDocument": {"Statement": statement}}


IN_A_NETWORK = {
    "Runtime": "python3.12",
    "Role": f"arn:aws:iam::{ACCOUNT}:role/without-any-policy",
    "Code": {"ZipFile": "x"},
    "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": []},
}


@pytest.mark.parametrize(
    ("kind", "properties", "named"),
    [
        ("AWS::Lambda::Function", {"Runtime": "nodejs22.x", "Role": "r", "Code": {"ZipFile": "x"}}, "nodejs"),
        ("AWS::CloudWatch::AnomalyDetector", {"Namespace": "n"}, "AWS::CloudWatch::AnomalyDetector"),
        ("AWS::Logs::MetricFilter", {"LogGroupName": "g"}, "AWS::Logs::MetricFilter"),
        ("AWS::SQS::QueuePolicy", denied_if({"StringSounds": {"aws:SourceArn": "v"}}), "StringSounds"),
        ("AWS::SQS::QueuePolicy", denied_if({"Bool": {"aws:ViaAWSService": "true"}}), "aws:ViaAWSService"),
        ("AWS::Lambda::Function", IN_A_NETWORK, "permissions to call CreateNetworkInterface"),
    ],
)  # fmt: skip
def test_what_can_not_be_honoured_is_refused_by_name(
    aws: EmbeddedAws, kind: str, properties: dict[str, Any], named: str
) -> None:
    try:
        told = deploy(aws, {"Refused": {"Type": kind, "Properties": properties}})
    except ClientError as error:
        told = str(error)
    assert named in told
    assert "CREATE_COMPLETE" not in told.split()[0]
