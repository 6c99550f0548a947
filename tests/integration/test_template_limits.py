"""What AWS refuses for its value, size or want of a permission is refused too; ages end what they limit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .conftest import ACCOUNT, REGION, EmbeddedAws, running_aws
from .served import deploy

pytestmark = pytest.mark.xdist_group("templates")

FUNCTION = {"Handler": "index.handler", "Code": {"ZipFile": "def handler(event, context): 1 / 0"}}
ALARM = {"ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 1, "Threshold": 1}
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:letters"
STREAM = """
import boto3, json, os
def handler(event, context):
    names = [record["dynamodb"]["Keys"]["pk"]["S"] for record in event["Records"]]
    boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps(names))
    if names[0].startswith("bad"): raise ValueError("told to")
"""
VALUES: list[tuple[str, str, Any]] = [
    ("AWS::CloudWatch::Alarm", "TreatMissingData", "notBreeching"),
    ("AWS::Lambda::EventInvokeConfig", "MaximumEventAgeInSeconds", 59),
    ("AWS::Lambda::EventInvokeConfig", "MaximumRetryAttempts", 3),
    ("AWS::Lambda::EventSourceMapping", "BatchSize", 10_001),
    ("AWS::Lambda::EventSourceMapping", "MaximumRecordAgeInSeconds", 59),
    ("AWS::Lambda::Function", "MemorySize", 99_999),
    ("AWS::Lambda::Function", "MemorySize", "127"),
    ("AWS::Lambda::Function", "ReservedConcurrentExecutions", 5000),
    ("AWS::Lambda::Function", "Runtime", "python3.99"),
    ("AWS::Lambda::Function", "Timeout", 5000),
    ("AWS::Lambda::Function", "Timeout", 1.5),
    ("AWS::Logs::LogGroup", "RetentionInDays", 17),
    ("AWS::SNS::Topic", "TopicName", "a b"),
    ("AWS::SSM::Parameter", "Value", "x" * 4097),
]


def board(*widgets: dict[str, Any], name: str = "board") -> dict[str, Any]:
    """Return the properties of a dashboard."""
    return {"DashboardName": name, "DashboardBody": json.dumps({"widgets": widgets})}


def statements(number: int) -> dict[str, Any]:
    """Return a policy's document of about so many kilobytes."""
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "x" * 940}
    return {"Version": "2012-10-17", "Statement": [statement] * number}


def rule(schedule: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """Return the kind and the properties of a scheduled rule."""
    return "AWS::Events::Rule", {"ScheduleExpression": schedule, **more}


WIDGET = {"type": "text", "x": 0, "y": 0, "width": 24, "height": 1000, "properties": {"markdown": "m"}}
TRUST: dict[str, Any] = {"AssumeRolePolicyDocument": {"Statement": []}}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("AWS::CloudWatch::Dashboard", {"DashboardName": "b", "DashboardBody": "not json"}, "b is invalid"),
    ("AWS::CloudWatch::Dashboard", board(name="d d!"), "d d! is invalid"),
    ("AWS::CloudWatch::Dashboard", board(WIDGET | {"width": 99}), "board is invalid"),
    ("AWS::CloudWatch::Dashboard", board(WIDGET | {"x": 24}), "board is invalid"),
    ("AWS::CloudWatch::Dashboard", board(WIDGET | {"type": "chart"}), "board is invalid"),
    ("AWS::CloudWatch::Dashboard", board({"type": "text"}), "board is invalid"),
    ("AWS::CloudWatch::Dashboard", board(*[{"type": "text", "properties": {}}] * 501), "board is invalid"),
    (*rule("rate(1 minutes)"), "ScheduleExpression is not valid"),
    (*rule("rate(5 minute)"), "ScheduleExpression is not valid"),
    (*rule("rate(0 minutes)"), "ScheduleExpression is not valid"),
    (*rule("rate(1 hour)", EventBusName="bus"), "only on the default event bus"),
    (*rule("rate(1 hour)", Targets=[{"Id": str(i), "Arn": QUEUE} for i in range(6)]), "maximum number"),
    ("AWS::IAM::Role", {**TRUST, "Policies": [{"PolicyName": "p", "PolicyDocument": statements(11)}]},
     "Maximum policy size of 10240 bytes exceeded"),
    ("AWS::IAM::Policy", {"PolicyName": "q", "Roles": ["half"], "PolicyDocument": statements(6)},
     "Maximum policy size of 10240 bytes exceeded for role half"),
    ("AWS::Lambda::Function", {"Environment": {"Variables": {"AA": "x" * 4096}}}, "limit 4096"),
    ("AWS::Lambda::Function", {"DeadLetterConfig": {"TargetArn": QUEUE}}, "to call SendMessage on SQS"),
    ("AWS::Lambda::EventInvokeConfig",
     {"FunctionName": "powerless", "DestinationConfig": {"OnFailure": {"Destination": QUEUE}}},
     "to call SendMessage on SQS"),
    ("AWS::Lambda::EventSourceMapping", {"FunctionName": "powerless", "StartingPosition": "LATEST",
     "EventSourceArn": "stream"}, "to call DescribeStream on DynamoDB"),
]  # fmt: skip


@pytest.fixture(scope="module")
def aws() -> Iterator[EmbeddedAws]:
    """Start an AWS whose clock may move, where no retry comes within the least age that may be set."""
    with running_aws("--retry-seconds", "100") as (_, url):
        yield EmbeddedAws(url)


def test_values_that_aws_refuses_are_refused_before_anything_is_made(aws: EmbeddedAws) -> None:
    resources = {
        f"No{number}": {"Type": kind, "Properties": {name: value}}
        for number, (kind, name, value) in enumerate(VALUES)
    }
    variables = {"AWS_REGION": "r", "a-b": "c", "AWS_LAMBDA_FUNCTION_NAME": "n", "AWS_ENDPOINT_URL": "taken"}
    environment = {"Type": "AWS::Lambda::Function", "Properties": {"Environment": {"Variables": variables}}}
    resources["Variables"] = environment
    with pytest.raises(ClientError) as refused:
        deploy(aws, "Values", resources)
    said = str(refused.value).split("local AWS: ", 1)[1].split("; ")
    assert said == [
        f"No{number}: {kind}.{name} = {str(value)[:100]} is not served"
        for number, (kind, name, value) in enumerate(VALUES)
    ] + [
        f"Variables: AWS::Lambda::Function.Environment.Variables.{name} is not served"
        for name in list(variables)[:3]
    ]


@pytest.fixture(scope="module")
def around(aws: EmbeddedAws) -> str:
    """Make what is named below: a bus, a half full role, a function that may nothing, a stream."""
    aws.client("events").create_event_bus(Name="bus")
    iam = aws.client("iam")
    iam.create_role(RoleName="half", AssumeRolePolicyDocument=json.dumps({"Statement": []}))
    iam.put_role_policy(RoleName="half", PolicyName="p", PolicyDocument=json.dumps(statements(5)))
    powerless = {**FUNCTION, "FunctionName": "powerless", "Runtime": "python3.13", "Role": half()}
    made = {"Powerless": {"Type": "AWS::Lambda::Function", "Properties": powerless}}
    assert deploy(aws, "Around", made)[0] == "CREATE_COMPLETE"
    return aws.stream_table()[1]


def half() -> str:
    """Return the ARN of the role that may do nothing of what is asked."""
    return f"arn:aws:iam::{ACCOUNT}:role/half"


@pytest.mark.parametrize(("kind", "properties", "named"), REFUSED)
def test_what_only_its_deployment_tells_is_refused_then(
    aws: EmbeddedAws, around: str, kind: str, properties: dict[str, Any], named: str
) -> None:
    if kind == "AWS::Lambda::Function":
        properties = {**FUNCTION, "Runtime": "python3.13", "Role": half(), **properties}
    if properties.get("EventSourceArn"):
        properties = {**properties, "EventSourceArn": around}
    ended, said = deploy(aws, aws.name("late"), {"Refused": {"Type": kind, "Properties": properties}})
    assert (ended, named in said) == ("ROLLBACK_COMPLETE", True), said


def test_an_event_grows_too_old_for_its_retry(aws: EmbeddedAws) -> None:
    old, fresh = (aws.function("def handler(event, context): raise RuntimeError('told to')") for _ in "ab")
    url, arn = aws.queue()
    for name, age in ((old, 60), (fresh, 21_600)):
        aws.client("lambda").put_function_event_invoke_config(
            FunctionName=name,
            MaximumEventAgeInSeconds=age,
            DestinationConfig={"OnFailure": {"Destination": arn}},
        )
        aws.invoke(name, {"of": name}, kind="Event")
    aws.until(lambda: aws.local("idle")["pending"] == 1)  # the fresh one waits for its retry
    (record,) = aws.bodies(url)
    assert record["requestPayload"] == {"of": old}
    context = record["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("EventAgeExceeded", 1)


def test_a_record_grows_too_old_and_batches_keep_their_size(aws: EmbeddedAws) -> None:
    (function, url), (failures, arn), (name, stream) = aws.relay(STREAM), aws.queue(), aws.stream_table()
    items = ["good-0", "good-1", "good-2", "bad-3", "good-4"]
    for item in items:
        aws.client("dynamodb").put_item(TableName=name, Item={"pk": {"S": item}})
    aws.local("clock", {"advance_seconds": 30})
    aws.client("dynamodb").put_item(TableName=name, Item={"pk": {"S": "bad-5"}})
    aws.local("clock", {"advance_seconds": 40})  # bad-3 is now 70 seconds old, bad-5 is 40
    aws.client("lambda").create_event_source_mapping(
        FunctionName=function,
        EventSourceArn=stream,
        StartingPosition="TRIM_HORIZON",
        BatchSize=3,
        MaximumRecordAgeInSeconds=60,
        DestinationConfig={"OnFailure": {"Destination": arn}},
    )
    (record,) = aws.until(lambda: aws.bodies(failures))
    assert record["requestContext"]["condition"] == "MaxRecordAgeExceeded"
    assert record["DDBStreamBatchInfo"]["batchSize"] == 3
    assert aws.bodies(url)[:2] == [items[:3], [*items[3:], "bad-5"]]
