"""What the embedded AWS refuses for want of a permission, and in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration.conftest import ACCOUNT, REGION, EmbeddedAws

pytestmark = pytest.mark.xdist_group("embedded_aws")

LOG_WRITING = ("logs:CreateLogStream", "logs:PutLogEvents")
CALLER = """
import boto3
def handler(event, context):
    client = boto3.client(event["service"])
    getattr(client, event["call"])(**event["arguments"])
"""
TABLE = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/t"


def allow(action: str, resource: str, **more: Any) -> str:
    return json.dumps({"Effect": "Allow", "Action": action, "Resource": resource, **more})


@pytest.mark.parametrize(
    ("service", "call", "arguments", "granted", "action", "resource"),
    [
        (
            "dynamodb",
            "transact_write_items",
            {
                "TransactItems": [
                    {"Put": {"TableName": "t", "Item": {}}},
                    {"Delete": {"TableName": "t", "Key": {}}},
                ]
            },
            [allow("dynamodb:PutItem", TABLE), allow("dynamodb:TransactWriteItems", TABLE)],
            "dynamodb:DeleteItem",
            TABLE,
        ),
        (
            "dynamodb",
            "query",
            {"TableName": "t", "IndexName": "gsi1", "KeyConditionExpression": "a = b"},
            [allow("dynamodb:Query", TABLE)],
            "dynamodb:Query",
            f"{TABLE}/index/gsi1",
        ),
        (
            "dynamodb",
            "batch_get_item",
            {"RequestItems": {"t": {"Keys": [{}]}, "u": {"Keys": [{}]}}},
            [allow("dynamodb:BatchGetItem", TABLE)],
            "dynamodb:BatchGetItem",
            f"{TABLE[:-1]}u",
        ),
        (
            "s3",
            "get_object",
            {"Bucket": "any", "Key": "other/key"},
            [allow("s3:*", "arn:aws:s3:::any/one/*")],
            "s3:GetObject",
            '"arn:aws:s3:::any/other/key"',
        ),
        (
            "s3",
            "get_object",
            {"Bucket": "any", "Key": "absent"},
            [allow("s3:GetObject", "arn:aws:s3:::any/*")],
            "s3:ListBucket",
            '"arn:aws:s3:::any"',
        ),
        (
            "logs",
            "filter_log_events",
            {"logGroupName": "g"},
            [allow("logs:FilterLogEvents", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:g")],
            "logs:FilterLogEvents",
            f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:g:log-stream:",
        ),
        (
            "cloudwatch",
            "put_metric_data",
            {"Namespace": "n", "MetricData": []},
            [
                allow("cloudwatch:*", "*"),
                json.dumps({"Effect": "Deny", "Action": "cloudwatch:Put*", "Resource": "*"}),
            ],
            "cloudwatch:PutMetricData",
            "*",
        ),
        (
            "sqs",
            "send_message",
            {"QueueUrl": f"https://sqs/{ACCOUNT}/q", "MessageBody": "m"},
            [allow("sqs:*", "*", Condition={"StringEquals": {"aws:RequestedRegion": "elsewhere"}})],
            "sqs:SendMessage",
            f"arn:aws:sqs:{REGION}:{ACCOUNT}:q",
        ),
    ],
)
def test_refusals_name_the_action_and_the_resource_as_on_aws(
    aws: EmbeddedAws,
    service: str,
    call: str,
    arguments: dict[str, Any],
    granted: list[str],
    action: str,
    resource: str,
) -> None:
    role = aws.role(*granted, *(allow(action, "*") for action in LOG_WRITING))
    aws.client("s3").create_bucket(Bucket="any")
    function = aws.function(CALLER, Role=role)
    answer, failed = aws.invoke(function, {"service": service, "call": call, "arguments": arguments})
    assert failed
    reason = (
        "with an explicit deny in an identity-based policy"
        if '"Deny"' in "".join(granted)
        else f"because no identity-based policy allows the {action} action"
    )
    caller = f"arn:aws:sts::{ACCOUNT}:assumed-role/{role.rpartition('/')[2]}/{function}"
    told = f"User: {caller} is not authorized to perform: {action} on resource: {resource} {reason}"
    assert told in answer["errorMessage"]
    assert "(AccessDenied" in answer["errorMessage"]


@pytest.mark.parametrize("value", ["one", "another", None])
def test_a_grant_by_tag_is_for_what_carries_it(aws: EmbeddedAws, value: str | None) -> None:
    url, _ = aws.queue()
    other = aws.function(CALLER)
    if value:
        aws.client("sqs").tag_queue(QueueUrl=url, Tags={"for": value})
        aws.client("lambda").tag_resource(Resource=aws.arn(other), Tags={"for": value})
    tagged = {"Condition": {"StringEquals": {"aws:ResourceTag/for": "one"}}}
    actions = ("sqs:GetQueueAttributes", "lambda:PutFunctionConcurrency")
    caller = aws.function(CALLER, Role=aws.role(*(allow(action, "*", **tagged) for action in actions)))
    calls = {
        "sqs": ("get_queue_attributes", {"QueueUrl": url}),
        "lambda": ("put_function_concurrency", {"FunctionName": other, "ReservedConcurrentExecutions": 0}),
    }
    for service, (call, arguments) in calls.items():
        answer, failed = aws.invoke(caller, {"service": service, "call": call, "arguments": arguments})
        assert failed == (value != "one")
        assert not failed or "AccessDenied" in answer["errorMessage"]


@pytest.mark.parametrize("lacking", [None, *LOG_WRITING, "logs:CreateLogGroup"])
@pytest.mark.parametrize("there", [False, True])
def test_a_function_without_permission_to_write_has_no_log(
    aws: EmbeddedAws, lacking: str | None, there: bool
) -> None:
    resource = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:*:*"
    granted = [action for action in (*LOG_WRITING, "logs:CreateLogGroup") if action != lacking]
    role = aws.role(*(allow(action, resource) for action in granted))
    function = aws.function("def handler(event, context): print('a line')", Role=role)
    if there:
        aws.client("logs").create_log_group(logGroupName=f"/aws/lambda/{function}")
    assert aws.invoke(function) == (None, False)
    groups = aws.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{function}")["logGroups"]
    written = lacking is None or (there and lacking == "logs:CreateLogGroup")
    assert len(groups) == (there or written)
    assert ("a line\n" in [text for _, text in aws.log(function)] if groups else False) is written


@pytest.mark.parametrize(
    ("principal", "source"), [("sns", "*"), ("logs", "arn:aws:logs:*:*:log-group:another:*")]
)
def test_a_subscription_needs_the_functions_permission(aws: EmbeddedAws, principal: str, source: str) -> None:
    function, lambda_ = aws.function(CALLER), aws.client("lambda")
    lambda_.remove_permission(FunctionName=function, StatementId="logs")
    lambda_.add_permission(
        FunctionName=function,
        StatementId="other",
        Action="lambda:InvokeFunction",
        Principal=f"{principal}.amazonaws.com",
        **({} if source == "*" else {"SourceArn": source}),
    )
    group = aws.name("group")
    aws.client("logs").create_log_group(logGroupName=group)
    with pytest.raises(ClientError, match="Could not execute the lambda function"):
        aws.client("logs").put_subscription_filter(
            logGroupName=group, filterName="f", filterPattern="", destinationArn=aws.arn(function)
        )


def test_an_alarm_needs_the_topics_permission(aws: EmbeddedAws) -> None:
    sns, cloudwatch, name = aws.client("sns"), aws.client("cloudwatch"), aws.name("alarm")
    topic = sns.create_topic(Name=name)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="ops@example.com")
    alarm = {"Namespace": name, "MetricName": "m", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1}
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        AlarmActions=[topic],
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="ignore",
        **alarm,
    )
    mailed = []
    for service in ("events", "cloudwatch"):
        allowed = {
            "Principal": {"Service": f"{service}.amazonaws.com"},
            "Action": "sns:Publish",
            "Resource": topic,
        }
        policy = json.dumps({"Statement": [{"Effect": "Allow", **allowed}]})
        sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
        for state in ("OK", "ALARM"):
            cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="told to")
        mailed.append(sum(mail["topic"] == topic for mail in aws.local("mail")))
    assert mailed == [0, 1]
