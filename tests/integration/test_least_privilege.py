"""The real stacks on the embedded AWS: each role allows what its function calls, and each action counts."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local import scenario
from tests.integration.conftest import ACCOUNT, REGION, EmbeddedAws

pytestmark = pytest.mark.xdist_group("least_privilege")

SEED = 7
LOG_WRITING = ("logs:CreateLogStream", "logs:PutLogEvents")
STREAM_READING = tuple(
    f"dynamodb:{action}" for action in ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams")
)
Grant = tuple[str, str]  # function and action


@pytest.fixture(scope="module")
def cloud(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedAws]:
    """Run a small demo and keep its AWS: the stacks are deployed, each function has worked under its role."""
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "local.demo", "--workflows", "3", "--seed", str(SEED), "--keep"]
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": "runtime"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"AWS_ENDPOINT_URL=(\S+)", line):
                yield EmbeddedAws(found[1])
                return
        pytest.fail(f"the demo failed: {''.join(said)[-2000:]}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def used(cloud: EmbeddedAws) -> list[Grant]:
    """Return what each function has called, and Lambda under its role while it ran."""
    return sorted(
        (function, action)
        for function, actions in cloud.local("calls").items()
        for action in actions
        if not action.startswith("ec2:")  # used when it is deployed: see below
    )


def test_roles_allow_all_that_the_functions_call(cloud: EmbeddedAws, used: list[Grant]) -> None:
    functions = {function for function, _ in used}
    for name in ("manager", "engineer", "qa", "sandbox", "ingest", "gauges", "analyze", "widgets", "export"):
        assert f"agentops-{name}-demo" in functions
    assert {function: lines for function in functions if (lines := denials(cloud, function, 0))} == {}


def test_without_an_action_that_it_uses_a_function_is_refused(
    cloud: EmbeddedAws, used: list[Grant], full_size: bool
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chosen = used if full_size else random.Random(seed).sample(used, 5)
    unnoticed = []
    for function, action in chosen:
        with without(cloud, function, action):
            started = time.time_ns() // 1_000_000
            work(cloud, function)
            with contextlib.suppress(AssertionError):
                cloud.until(partial(refused, cloud, function, action, started), 20)
                continue
        unnoticed.append((function, action))
    assert unnoticed == []


def refused(cloud: EmbeddedAws, function: str, action: str, since_ms: int) -> bool:
    """Whether the function was told that it may not, where AWS tells: mostly in its own log."""
    if action in LOG_WRITING:  # which then has nothing
        return cloud.local("idle")["invocations"] == 0 and not log(cloud, function, since_ms)
    if action in STREAM_READING:
        mappings = cloud.client("lambda").list_event_source_mappings(FunctionName=function)
        return (
            f"not authorized to perform: {action}"
            in mappings["EventSourceMappings"][0]["LastProcessingResult"]
        )
    return any(action in line for line in denials(cloud, function, since_ms))


def denials(cloud: EmbeddedAws, function: str, since_ms: int) -> list[str]:
    """Return the lines of a function's log that say it may not do something."""
    return [line for line in log(cloud, function, since_ms) if "is not authorized to perform" in line]


def log(cloud: EmbeddedAws, function: str, since_ms: int) -> list[str]:
    """Return what is in a function's log group since a moment."""
    group = cloud.client("lambda").get_function_configuration(FunctionName=function)["LoggingConfig"][
        "LogGroup"
    ]
    pages = cloud.client("logs").get_paginator("filter_log_events")
    found = pages.paginate(logGroupName=group, startTime=since_ms).build_full_result()
    return [event["message"] for event in found["events"]]


def work(cloud: EmbeddedAws, function: str) -> None:
    """Let everything do its part once more: a repair from report to trace, and what runs by the clock."""
    (incident,) = scenario.incidents(SEED, 1)
    detail = {"environment": "demo", "function": incident["function"], "summary": incident["summary"]}
    entry = {"EventBusName": "agentops-demo", "Source": "support.desk", "DetailType": "issue.reported"}
    cloud.client("events").put_events(Entries=[{**entry, "Detail": json.dumps(detail)}])
    if "widgets" in function:
        item = cloud.client("dynamodb").scan(TableName="agent-decisions-demo", Limit=1)["Items"][0]
        key = {name: item[name]["S"] for name in ("pk", "sk")}
        for widget in ("flow", "decisions", "cost_drivers", "decision"):
            cloud.invoke(function, {"widget": widget, "environment": "demo", "key": key})
    elif "gauges" in function or "analyze" in function or not function.startswith("agentops-"):
        cloud.invoke(function, {})


@contextlib.contextmanager
def without(cloud: EmbeddedAws, function: str, action: str) -> Iterator[None]:
    """Take an action out of a function's role, and start it anew: it may keep what it has read."""
    iam, lambda_ = cloud.client("iam"), cloud.client("lambda")
    role = lambda_.get_function_configuration(FunctionName=function)["Role"].rpartition("/")[2]
    policies = {
        name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    }
    for name, document in policies.items():
        put_policy(iam, role, name, {"Statement": [_less(one, action) for one in document["Statement"]]})
    lambda_.update_function_configuration(FunctionName=function, Description=f"without {action}")
    try:
        yield
    finally:
        for name, document in policies.items():
            put_policy(iam, role, name, document)
        cloud.settle(60)


def put_policy(iam: Any, role: str, name: str, document: dict[str, Any]) -> None:
    iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))


def _less(statement: dict[str, Any], action: str) -> dict[str, Any]:
    actions = statement["Action"]
    rest = [one for one in ([actions] if isinstance(actions, str) else actions) if one != action]
    return {**statement, "Action": rest or "none:Nothing"} if statement["Effect"] == "Allow" else statement


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


def test_a_function_without_permission_to_write_has_no_log(aws: EmbeddedAws) -> None:
    group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:*"
    source = "def handler(event, context): print('a line')"
    written = aws.function(source, Role=aws.role(*(allow(action, f"{group}:*") for action in LOG_WRITING)))
    lost = aws.function(source, Role=aws.role(allow(LOG_WRITING[1], f"{group}:*")))
    for function in (written, lost):
        assert aws.invoke(function) == (None, False)
    assert "a line\n" in [text for _, text in aws.log(written)]
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        aws.log(lost)


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
