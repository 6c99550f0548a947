"""What AWS does and the embedded AWS may not: permissions, limits, and who may send where."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from agents import clients, model, sandbox

from .conftest import EVERYTHING, Resource, Templates, listed, synthesized

LAMBDA, POLICY, RULE = "AWS::Lambda::Function", "AWS::IAM::Policy", "AWS::Events::Rule"
LOGS = {"logs:CreateLogStream", "logs:PutLogEvents"}
SEND = {"sqs:SendMessage"}
CASE_FILE = {"s3:GetObject", "s3:PutObject", "s3:ListBucket"}
AGENT = LOGS | SEND | CASE_FILE | {"bedrock:InvokeModel", "events:PutEvents"}
# To tell of budgets, each threshold once.
TELL = {"sns:Publish"} | {
    f"dynamodb:{name}" for name in ("BatchGetItem", "DeleteItem", "PutItem", "Query", "UpdateItem")
}
# What each function calls, read from its code, and Lambda under its role; nothing that it could do without.
CALLS = {
    "ingest": LOGS | SEND | TELL | {"dynamodb:BatchWriteItem"},
    "gauges": LOGS | TELL,
    "fold": LOGS | {f"dynamodb:{name}" for name in ("PutItem", "Query", "UpdateItem")},
    "analyze": LOGS | {"dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem", "events:PutEvents"},
    "widgets": LOGS | {"dynamodb:GetItem", "dynamodb:Query"},
    "ready": LOGS
    | {"dynamodb:Query", "dynamodb:UpdateItem", "lambda:GetFunctionConfiguration"}
    | {"lambda:ListProvisionedConcurrencyConfigs"},
    "reconcile": LOGS
    | {"cloudwatch:GetMetricData", "cloudwatch:ListMetrics", "dynamodb:BatchWriteItem", "dynamodb:Query"},
    "stop": LOGS
    | SEND
    | {"dynamodb:GetItem", "dynamodb:PutItem", "lambda:InvokeFunction", "ssm:GetParametersByPath"}
    | {f"lambda:{name}FunctionConcurrency" for name in ("Delete", "Get", "Put")}
    | {f"sqs:{name}" for name in ("ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes")}
    | {"sqs:ReceiveMessage"}
    | {f"cloudwatch:{name}" for name in ("DisableAlarmActions", "EnableAlarmActions", "SetAlarmState")},
    "export": LOGS
    | SEND
    | {"dynamodb:BatchGetItem", "dynamodb:Query", "secretsmanager:GetSecretValue"}
    | {f"dynamodb:{name}" for name in ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams")},
    "manager": AGENT | {"cloudwatch:GetMetricData", "logs:FilterLogEvents"},
    "engineer": AGENT,
    "qa": AGENT | {"lambda:InvokeFunction"},
}
# https://docs.aws.amazon.com/ of each service; in characters.
LONGEST_NAMES = {
    "AWS::CloudWatch::Alarm": ("AlarmName", 255),
    "AWS::CloudWatch::Dashboard": ("DashboardName", 255),
    "AWS::DynamoDB::GlobalTable": ("TableName", 255),
    "AWS::Events::EventBus": ("Name", 256),
    "AWS::Lambda::Function": ("FunctionName", 64),
    "AWS::Logs::LogGroup": ("LogGroupName", 512),
    "AWS::Logs::SubscriptionFilter": ("FilterName", 512),
    "AWS::SNS::Topic": ("TopicName", 256),
    "AWS::SQS::Queue": ("QueueName", 80),
    "AWS::SSM::Parameter": ("Name", 1011),
}
# Without a name of ours CloudFormation makes one that fits.
NAMED_BY_CLOUDFORMATION = {
    "AWS::IAM::Role": "RoleName",
    "AWS::Events::Rule": "Name",
    "AWS::S3::Bucket": "BucketName",
}


def statements(
    templates: Templates, function: Resource, effect: str = "Allow"
) -> Iterator[Mapping[str, Any]]:
    role = {"Ref": function.properties["Role"]["Fn::GetAtt"][0]}
    for policy in templates.resources(POLICY):
        if policy.stack == function.stack and role in policy.properties["Roles"]:
            for statement in policy.properties["PolicyDocument"]["Statement"]:
                if statement["Effect"] == effect:
                    yield statement


def function(templates: Templates, name: str) -> Resource:
    return templates.one(LAMBDA, FunctionName=f"agentops-{name}-staging")


@pytest.fixture(scope="module")
def longest() -> Templates:
    """An environment whose name has all the characters that it may have."""
    return synthesized("a" * 24, **EVERYTHING)


# --- permissions


@pytest.mark.parametrize("name", CALLS)
def test_a_function_may_do_what_it_calls_and_nothing_else(name: str, everything: Templates) -> None:
    allowed = {
        action
        for statement in statements(everything, function(everything, name))
        for action in listed(statement["Action"])
    }

    assert allowed == CALLS[name]


@pytest.mark.parametrize("name", ["manager", "engineer", "qa"])
def test_s3_tells_an_agent_that_a_document_is_not_there_yet(name: str, everything: Templates) -> None:
    # Who may not list a bucket gets 403 for what is not in it, and the agents read before they write.
    (bucket,) = (
        statement["Resource"]
        for statement in statements(everything, function(everything, name))
        if "s3:ListBucket" in listed(statement["Action"])
    )

    assert bucket == {"Fn::GetAtt": [everything.one("AWS::S3::Bucket").logical_id, "Arn"]}


@pytest.mark.parametrize(
    ("watch", "groups"),
    [
        ("checkout", ["/aws/lambda/checkout:*"]),
        # Which function an alarm is about, only the alarm knows.
        ("checkout,alarm:Orders-Late", ["/aws/lambda/*:*"]),
    ],
)
def test_the_manager_may_read_the_log_that_an_alarm_leads_to(watch: str, groups: list[str]) -> None:
    templates = synthesized("staging", watch=watch)

    readable = [
        json.dumps(resource)
        for statement in statements(templates, function(templates, "manager"))
        if "logs:FilterLogEvents" in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    ]
    assert len(readable) == len(groups)
    for resource, group in zip(readable, groups, strict=True):
        assert f":log-group:{group}" in resource


def test_a_rule_may_write_to_the_queue_that_it_names(everything: Templates) -> None:
    queues = 0
    for rule in everything.resources(RULE):
        for target in rule.properties["Targets"]:
            if "DeadLetterConfig" not in target:
                continue
            queues += 1
            queue = {"Ref": target["DeadLetterConfig"]["Arn"]["Fn::GetAtt"][0]}
            assert any(
                statement["Principal"] == {"Service": "events.amazonaws.com"}
                and statement["Condition"]["ArnEquals"]["aws:SourceArn"]
                == {"Fn::GetAtt": [rule.logical_id, "Arn"]}
                for policy in everything.resources("AWS::SQS::QueuePolicy")
                if queue in policy.properties["Queues"]
                for statement in policy.properties["PolicyDocument"]["Statement"]
            ), rule.logical_id
    assert queues >= 5


def test_alarms_may_publish_to_the_topic(everything: Templates) -> None:
    topic = everything.one("AWS::SNS::Topic")
    policy = everything.one("AWS::SNS::TopicPolicy").properties["PolicyDocument"]

    # Under the key that AWS manages for SNS, alarms would fail without a word.
    assert "KmsMasterKeyId" not in topic.properties
    assert any(
        statement["Effect"] == "Allow"
        and statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        and statement["Action"] == "sns:Publish"
        for statement in policy["Statement"]
    )


# --- limits


def test_every_name_fits_in_the_longest_environment(longest: Templates) -> None:
    for kind, (key, most) in LONGEST_NAMES.items():
        for each in longest.resources(kind):
            name = each.properties.get(key, "")
            assert not isinstance(name, str) or len(name) <= most, name
    for kind, key in NAMED_BY_CLOUDFORMATION.items():
        assert not [each.logical_id for each in longest.resources(kind) if key in each.properties]


def test_variables_and_patterns_fit_with_as_much_watched_as_may_be() -> None:
    functions = [f"{number:03}-{'f' * 56}" for number in range(49)]
    alarms = [f"alarm:{number:02}-{'a' * 40}" for number in range(30)]
    templates = synthesized("staging", watch=",".join([*functions, *alarms]))

    for each in templates.resources(LAMBDA):
        variables = each.properties["Environment"]["Variables"] if "Environment" in each.properties else {}
        # What CloudFormation fills in has at most 256 characters.
        used = sum(
            len(name) + (len(value) if isinstance(value, str) else 256) for name, value in variables.items()
        )
        assert used <= 4096, each.logical_id
    for rule in templates.resources(RULE):
        assert len(json.dumps(rule.properties.get("EventPattern", {}), separators=(",", ":"))) <= 2048


def test_an_alarm_widget_shows_at_most_a_hundred(everything: Templates) -> None:
    for each in everything.resources("AWS::CloudWatch::Dashboard"):
        assert json.dumps(each.properties["DashboardBody"]).count(":alarm:") <= 100


# --- time


@pytest.mark.parametrize("name", ["manager", "engineer", "qa"])
def test_an_agent_has_time_for_every_try_of_the_model(name: str, everything: Templates) -> None:
    needed = model.MAX_TRIES * clients.MODEL_TIMEOUT_SECONDS
    if name == "qa":
        needed += clients.SANDBOX_TIMEOUT_SECONDS

    assert function(everything, name).properties["Timeout"] > needed


def test_the_sandbox_ends_before_its_caller_gives_up(everything: Templates) -> None:
    properties = function(everything, "sandbox").properties

    assert sandbox.SECONDS < properties["Timeout"] < clients.SANDBOX_TIMEOUT_SECONDS
    # Code that takes too much memory fails as a test, and not the whole environment with it.
    assert properties["MemorySize"] * 2**20 >= sandbox.MEMORY_BYTES + 256 * 2**20


def test_an_outage_of_agentops_loses_nothing_for_most_of_a_day(everything: Templates) -> None:
    mapping = everything.one("AWS::Lambda::EventSourceMapping").properties

    assert "MaximumRetryAttempts" not in mapping
    assert 12 * 3600 <= mapping["MaximumRecordAgeInSeconds"] < 24 * 3600
    alarm = everything.one("AWS::CloudWatch::Alarm", AlarmName="AgentOps-staging-ExportFailures").properties
    (metric,) = alarm["Metrics"]
    assert metric["MetricStat"]["Metric"]["MetricName"] == "ExportFailures"
    assert metric["MetricStat"]["Period"] * alarm["EvaluationPeriods"] <= 3600


def test_alarms_keep_the_limits_of_cloudwatch(everything: Templates) -> None:
    """PutMetricAlarm, API reference: 10 metrics; within a day, or 7 days with periods of an hour or more."""
    for alarm in everything.resources("AWS::CloudWatch::Alarm"):
        found, window = alarm.properties, alarm.properties["EvaluationPeriods"]
        stats = [one["MetricStat"] for one in found.get("Metrics", ()) if "MetricStat" in one]
        assert len(stats) <= 10, alarm.logical_id
        assert 1 <= found.get("DatapointsToAlarm", window) <= window, alarm.logical_id
        for period in [one["Period"] for one in stats] or [found["Period"]]:
            assert period * window <= 86_400 * (7 if period >= 3600 else 1), alarm.logical_id
