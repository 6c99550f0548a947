"""Templates by the real CDK CLI: what is served and seen, what is refused, what is left of a failure."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from . import served
from .conftest import ACCOUNT, REGION, ROOT, EmbeddedAws, cli_variables, running_aws
from .served import deploy, status

pytestmark = pytest.mark.xdist_group("templates")

Cdk = Callable[..., tuple[bool, str]]
FIRST_WORK = {
    "mails": ["OK", "ALARM", "INSUFFICIENT_DATA"],
    "events": ["one"],
    "records": ["INSERT"],
    "received": (["received"], ["one", "received"]),
    "versions": 2,
    "read": ["AccessDenied", 3],
}
SECOND_WORK = {"mails": [], "events": [], "records": [], "received": ([], []), "versions": 2}
SECOND_WORK |= {"read": ["AccessDenied"] * 2}
ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"
CODE = {"Runtime": "python3.13", "Role": ROLE, "Handler": "index.handler", "Code": {"ZipFile": "x"}}
ALARM = {"ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 1, "Threshold": 1}
TABLE_KIND = "AWS::DynamoDB::GlobalTable"
TABLE = {
    "TableName": "table",
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
    "Replicas": [{"Region": REGION, "DeletionProtectionEnabled": True}],
}
# What is refused, and the properties with which: each alone would do nothing, or something else, here.
BAND = {**ALARM, "ThresholdMetricId": "band"}
SCALING = {**ALARM, "AlarmActions": ["arn:aws:autoscaling:a"]}
INSIGHTS = {"Region": REGION, "ContributorInsightsSpecification": {"Enabled": True}}
REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("AWS::CloudWatch::Alarm", ".AlarmActions = arn:aws:autoscaling:a", SCALING),
    (
        "AWS::CloudWatch::Alarm",
        ".EvaluateLowSampleCountPercentile",
        {"EvaluateLowSampleCountPercentile": "i"},
    ),
    ("AWS::CloudWatch::Alarm", ".ThresholdMetricId", BAND),
    ("AWS::CloudWatch::Alarm", ".Unit", {**ALARM, "Unit": "Seconds"}),
    ("AWS::CloudWatch::AnomalyDetector", "", {"Namespace": "n"}),
    ("AWS::CloudWatch::CompositeAlarm", "", {"AlarmRule": "TRUE"}),
    ("AWS::CloudFormation::Stack", "", {"TemplateURL": "u"}),
    (TABLE_KIND, ".BillingMode = PROVISIONED", {**TABLE, "BillingMode": "PROVISIONED"}),
    (TABLE_KIND, ".Replicas.ContributorInsightsSpecification", {"Replicas": [INSIGHTS]}),
    ("AWS::DynamoDB::Table", "", TABLE),
    ("AWS::Events::Rule", ".Targets.Arn = arn:aws:states:s", {"Targets": [{"Arn": "arn:aws:states:s"}]}),
    ("AWS::Events::Rule", ".Targets.InputTransformer", {"Targets": [{"InputTransformer": {}}]}),
    ("AWS::IAM::Role", ".PermissionsBoundary", {"PermissionsBoundary": "arn"}),
    (
        "AWS::Lambda::EventInvokeConfig",
        ".DestinationConfig.OnSuccess",
        {"DestinationConfig": {"OnSuccess": {}}},
    ),
    (
        "AWS::Lambda::EventSourceMapping",
        ".EventSourceArn = arn:aws:sqs:q",
        {"EventSourceArn": "arn:aws:sqs:q"},
    ),
    ("AWS::Lambda::EventSourceMapping", ".ParallelizationFactor", {"ParallelizationFactor": 2}),
    ("AWS::Lambda::Function", ".Code.ImageUri", {"Code": {"ImageUri": "i"}, "Role": ROLE}),
    ("AWS::Lambda::Function", ".EphemeralStorage", {**CODE, "EphemeralStorage": {"Size": 1024}}),
    ("AWS::Lambda::Function", ".FileSystemConfigs", {**CODE, "FileSystemConfigs": [{"Arn": "a"}]}),
    ("AWS::Lambda::Function", ".PackageType = Image", {**CODE, "PackageType": "Image"}),
    ("AWS::Lambda::Function", ".Runtime = nodejs22.x", {**CODE, "Runtime": "nodejs22.x"}),
    ("AWS::Lambda::Function", ".SnapStart", {**CODE, "SnapStart": {"ApplyOn": "PublishedVersions"}}),
    ("AWS::Lambda::Function", ".TracingConfig", {**CODE, "TracingConfig": {"Mode": "Active"}}),
    ("AWS::Logs::LogGroup", ".DataProtectionPolicy", {"DataProtectionPolicy": {}}),
    ("AWS::Logs::LogGroup", ".LogGroupClass = DELIVERY", {"LogGroupClass": "DELIVERY"}),
    ("AWS::Logs::MetricFilter", "", {"LogGroupName": "g"}),
    ("AWS::S3::Bucket", ".NotificationConfiguration", {"NotificationConfiguration": {}}),
    ("AWS::SNS::Subscription", ".Protocol = https", {"Protocol": "https"}),
    ("AWS::SQS::Queue", ".FifoQueue = true", {"QueueName": "q.fifo", "FifoQueue": True}),
    ("Custom::S3AutoDeleteObjects", "", {"ServiceToken": "t"}),
]
# A parameter of a name that is taken: fails when all else is there.
LAST = {"Type": "AWS::SSM::Parameter", "Properties": {"Name": "taken", "Type": "String", "Value": "v"}}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[psutil.Process, EmbeddedAws]]:
    """Start an AWS of its own, with code in a bucket and a parameter whose name is then taken."""
    with running_aws("--retry-seconds", "0.05") as (process, url):
        aws = EmbeddedAws(url)
        aws.client("s3").create_bucket(Bucket="code")
        for word in ("one", "two"):
            aws.client("s3").put_object(Bucket="code", Key=f"{word}.zip", Body=served.code(word))
        aws.client("ssm").put_parameter(Name="taken", Type="String", Value="v")
        yield psutil.Process(process.pid), aws


@pytest.fixture(scope="module")
def aws(server: tuple[psutil.Process, EmbeddedAws]) -> EmbeddedAws:
    """Return the AWS."""
    return server[1]


@pytest.fixture
def cdk(aws: EmbeddedAws, tmp_path: Path) -> Cdk:
    """Return a function that runs the CDK CLI on a stack: whether it went well, and what it said."""
    keys = {"AWS_ACCESS_KEY_ID": ACCOUNT, "AWS_SECRET_ACCESS_KEY": "local"}
    variables = {**os.environ, **cli_variables(aws.url, tmp_path / "home"), **keys}
    cli = [
        str(ROOT / ".venv/bin/node"),
        "node_modules/aws-cdk/bin/cdk",
        "--no-notices",
        "--app",
        str(tmp_path),
    ]

    def run(verb: str, stack: str, template: Mapping[str, Any], *options: str) -> tuple[bool, str]:
        artifact = {
            "type": "aws:cloudformation:stack",
            "environment": f"aws://{ACCOUNT}/{REGION}",
            "properties": {"templateFile": "template.json", "stackName": stack, "validateOnSynth": False},
        }
        manifest = {"version": "48.0.0", "artifacts": {stack: artifact}}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        (tmp_path / "template.json").write_text(json.dumps(template))
        done = subprocess.run(
            [*cli, verb, stack, *options], cwd=ROOT, env=variables, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return done.returncode == 0, done.stdout

    return run


def inventory(aws: EmbeddedAws) -> dict[str, set[str]]:
    """Return the names of all that the account holds, by kind."""

    def names(service: str, call: str, found: str, name: str = "") -> set[str]:
        answer = getattr(aws.client(service), call)()
        return {one[name] if name else one for one in answer.get(found, [])}

    events = aws.client("events")
    buses = names("events", "list_event_buses", "EventBuses", "Name")
    return {
        "alarms": names("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
        "buckets": names("s3", "list_buckets", "Buckets", "Name"),
        "buses": buses,
        "dashboards": names("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
        "functions": names("lambda", "list_functions", "Functions", "FunctionName"),
        "layers": names("lambda", "list_layers", "Layers", "LayerName"),
        "log groups": names("logs", "describe_log_groups", "logGroups", "logGroupName"),
        "mappings": names("lambda", "list_event_source_mappings", "EventSourceMappings", "UUID"),
        "parameters": names("ssm", "describe_parameters", "Parameters", "Name"),
        "queues": names("sqs", "list_queues", "QueueUrls"),
        "roles": names("iam", "list_roles", "Roles", "RoleName"),
        "rules": {rule["Name"] for bus in buses for rule in events.list_rules(EventBusName=bus)["Rules"]},
        "streams": names("kinesis", "list_streams", "StreamNames"),
        "subscriptions": names("sns", "list_subscriptions", "Subscriptions", "SubscriptionArn"),
        "tables": names("dynamodb", "list_tables", "TableNames"),
        "topics": names("sns", "list_topics", "Topics", "TopicArn"),
    }


def wrong(seen: served.Seen) -> dict[str, tuple[Any, Any]]:
    """Return the properties of which something else is seen than is said."""
    return {name: pair for name, pair in seen.items() if pair[0] != pair[1]}


def failing(template: dict[str, Any], after: Sequence[str] | None = None) -> dict[str, Any]:
    """Return a template that fails after some resources, or when everything else is done."""
    last = {**LAST, "DependsOn": list(template["Resources"] if after is None else after)}
    return {"Resources": {**template["Resources"], "Last": last}}


def test_what_is_served_is_created_updated_rolled_back_and_destroyed(
    server: tuple[psutil.Process, EmbeddedAws], cdk: Cdk, full_size: bool
) -> None:
    process, aws = server
    first, second = served.template(second=False), served.template(second=True)
    nothing, alone = inventory(aws), process.children(recursive=True)

    went_well, said = cdk("deploy", "Life", failing(second), "--method", "direct")
    assert not went_well
    assert "ParameterAlreadyExists" in said
    assert status(aws, "Life") == "ROLLBACK_COMPLETE"
    assert inventory(aws) == nothing

    went_well, said = cdk("deploy", "Life", first)
    assert went_well, said
    seen = served.look(aws, second=False)
    assert wrong(seen) == {}, "said and seen"
    document = tomllib.loads((ROOT / "local/aws/served.toml").read_text())
    assert set(seen) == {path for kind, one in document.items() for path in served.leaves(one, kind)}
    aws.client("dynamodb").put_item(TableName="records", Item={"pk": {"S": "first"}})
    with pytest.raises(ClientError, match="protected against deletion"):
        aws.client("dynamodb").delete_table(TableName="records")

    went_well, said = cdk("deploy", "Life", failing(second), "--method", "direct")
    assert not went_well
    assert status(aws, "Life") == "UPDATE_ROLLBACK_COMPLETE"
    assert wrong(served.look(aws, second=False)) == {}, "said and seen"
    assert served.work(aws, "after the roll-back") == FIRST_WORK
    for seed in range(20 if full_size else 0):
        print(f"seed {seed}")
        some = random.Random(seed).sample(list(first["Resources"]), 5)
        ended, _ = deploy(aws, "Life", failing(second, some)["Resources"])
        assert ended == "UPDATE_ROLLBACK_COMPLETE"
        assert wrong(served.look(aws, second=False)) == {}, "said and seen"

    went_well, said = cdk("deploy", "Life", second)
    assert went_well, said
    assert wrong(served.look(aws, second=True)) == {}, "said and seen"
    assert served.work(aws, "second") == SECOND_WORK
    assert aws.client("dynamodb").scan(TableName="records")["Count"] == 3

    for version in aws.client("s3").list_object_versions(Bucket="bucket")["Versions"]:
        aws.client("s3").delete_object(Bucket="bucket", Key=version["Key"], VersionId=version["VersionId"])
    busy = threading.Thread(target=aws.invoke, args=("function", {"seconds": 3}))
    busy.start()
    went_well, said = cdk("destroy", "Life", second, "--force")
    assert went_well, said
    busy.join()
    aws.settle()
    kept = inventory(aws)
    assert kept.pop("log groups") - nothing.pop("log groups") == {"/aws/lambda/relay", "/aws/lambda/failing"}
    assert kept == nothing
    assert process.children(recursive=True) == alone


def test_what_is_not_served_is_refused_by_name_before_anything_is_made(aws: EmbeddedAws, cdk: Cdk) -> None:
    conditions = {"Asked": {"Fn::Equals": ["a", "a"]}, "Opposite": {"Fn::Equals": ["a", "b"]}}
    neither = {"Fn::If": ["Asked", {"Ref": "AWS::NoValue"}, {"Size": 1024}]}
    chosen = {"Fn::If": ["Asked", "KEYS_ONLY", "ALL"]}
    index = {"IndexName": "i", "KeySchema": TABLE["KeySchema"], "Projection": {"ProjectionType": chosen}}
    resources = {
        f"No{number}": {"Type": kind, "Properties": properties}
        for number, (kind, _, properties) in enumerate(REFUSED)
    }
    more: dict[str, dict[str, Any]] = {
        "Fine": {"Type": "AWS::Lambda::Function", "Properties": {**CODE, "EphemeralStorage": neither}},
        "Chosen": {"Type": TABLE_KIND, "Properties": {**TABLE, "GlobalSecondaryIndexes": [index]}},
        "NotAsked": {"Type": "AWS::SQS::Queue", "Properties": {"FifoQueue": True}, "Condition": "Opposite"},
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "fine"}},
    }
    before = inventory(aws)
    went_well, said = cdk("deploy", "Refused", {"Conditions": conditions, "Resources": resources | more})
    assert not went_well
    refused = dict(part.split(": ", 1) for part in said.split("local AWS: ", 1)[1].strip().split("; "))
    expected = {
        f"No{number}": f"{kind}{path} is not served" for number, (kind, path, _) in enumerate(REFUSED)
    }
    projection = f"{TABLE_KIND}.GlobalSecondaryIndexes.Projection.ProjectionType"
    assert refused == {**expected, "Chosen": f"{projection} = KEYS_ONLY is not served"}
    assert status(aws, "Refused") == ""
    assert inventory(aws) == before

    assert deploy(aws, "Refused", {"Topic": more["Topic"]})[0] == "CREATE_COMPLETE"
    went_well, said = cdk(
        "deploy", "Refused", {"Resources": {"Topic": more["Topic"], "No": resources["No0"]}}
    )
    assert not went_well
    assert f"local AWS: No: {REFUSED[0][0]}{REFUSED[0][1]} is not served" in said
    assert status(aws, "Refused") == "CREATE_COMPLETE"


def denied_if(condition: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of a policy that denies everything under a condition."""
    statement = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}
    return {"Queues": [], "PolicyDocument": {"Statement": statement}}


@pytest.mark.parametrize(
    ("kind", "properties", "named"),
    [
        ("AWS::Logs::SubscriptionFilter", {"DestinationArn": {"Fn::GetAtt": ["Queue", "Arn"]}},
         f"DestinationArn = arn:aws:sqs:{REGION}:{ACCOUNT}:known is not served"),
        (TABLE_KIND, {**TABLE, "Replicas": [{"Region": "eu-west-1"}]}, "of another region"),
        ("AWS::SQS::QueuePolicy", denied_if({"StringSounds": {"aws:SourceArn": "v"}}), "StringSounds"),
        ("AWS::SQS::QueuePolicy", denied_if({"Bool": {"aws:ViaAWSService": "true"}}), "aws:ViaAWSService"),
        ("AWS::Lambda::Function", {**CODE, "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": []}},
         "The provided execution role does not have permissions to call CreateNetworkInterface on EC2"),
    ],
)  # fmt: skip
def test_what_only_its_deployment_tells_is_refused_then(
    aws: EmbeddedAws, kind: str, properties: dict[str, Any], named: str
) -> None:
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "known"}}
    before, stack = inventory(aws), aws.name("late")
    refused = {"Type": kind, "Properties": properties, "DependsOn": ["Queue"]}
    ended, said = deploy(aws, stack, {"Queue": queue, "Refused": refused})
    assert ended == "ROLLBACK_COMPLETE"
    assert named in said
    assert inventory(aws) == before


@pytest.mark.parametrize(
    ("kind", "properties", "named"),
    [
        ("AWS::CloudWatch::Alarm", {**ALARM, "AlarmName": "mine", "Namespace": "N", "MetricName": "m"},
         "alarms"),
        (TABLE_KIND, {**TABLE, "Replicas": [{"Region": REGION}]}, "tables"),
        ("AWS::IAM::Role", {"RoleName": "mine", "AssumeRolePolicyDocument": {"Statement": []}}, "roles"),
        ("AWS::Lambda::Function", {**CODE, "FunctionName": "mine"}, "functions"),
        ("AWS::Logs::LogGroup", {"LogGroupName": "mine"}, "log groups"),
        ("AWS::SQS::Queue", {"QueueName": "mine"}, "queues"),
    ],
)  # fmt: skip
def test_what_another_stack_has_is_neither_taken_nor_deleted(
    aws: EmbeddedAws, kind: str, properties: dict[str, Any], named: str
) -> None:
    resources = {"Mine": {"Type": kind, "Properties": properties}}
    owner, thief = aws.name("owner"), aws.name("thief")
    assert deploy(aws, owner, resources)[0] == "CREATE_COMPLETE"
    owned = inventory(aws)
    ended, said = deploy(aws, thief, resources)
    assert ended == "ROLLBACK_COMPLETE"
    assert "already exists" in said
    assert inventory(aws) == owned
    aws.client("cloudformation").delete_stack(StackName=owner)
    aws.until(lambda: len(inventory(aws)[named]) < len(owned[named]))


def test_a_function_whose_update_fails_half_way_keeps_its_code(aws: EmbeddedAws) -> None:
    def function(word: str, **more: Any) -> dict[str, Any]:
        code = {"ZipFile": f"def handler(event, context): return {word!r}"}
        properties = {**CODE, "Code": code, "FunctionName": "halfway", "Description": word, **more}
        return {"Function": {"Type": "AWS::Lambda::Function", "Properties": properties}}

    assert deploy(aws, "Halfway", function("old"))[0] == "CREATE_COMPLETE"
    missing = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:missing:1"
    ended, said = deploy(aws, "Halfway", function("new", Layers=[missing]))
    assert ended == "UPDATE_ROLLBACK_COMPLETE"
    assert "missing" in said
    assert aws.invoke("halfway") == ("old", False)
    assert aws.client("lambda").get_function_configuration(FunctionName="halfway")["Description"] == "old"


def test_a_protected_table_outlives_roll_back_and_destruction(aws: EmbeddedAws) -> None:
    """As on AWS: DeleteTable is refused, so a first deployment that fails leaves protected tables behind."""
    dynamodb, cloudformation = aws.client("dynamodb"), aws.client("cloudformation")
    table = {"Type": TABLE_KIND, "Properties": TABLE}
    retained = {**table, "DeletionPolicy": "RetainExceptOnCreate"}
    ended, said = deploy(aws, "Protected", {"Table": retained, "Last": {**LAST, "DependsOn": ["Table"]}})
    assert ended == "ROLLBACK_FAILED"
    assert "protected against deletion" in said
    assert "table" in inventory(aws)["tables"]
    dynamodb.update_table(TableName="table", DeletionProtectionEnabled=False)
    dynamodb.delete_table(TableName="table")

    assert deploy(aws, "Whole", {"Table": table})[0] == "CREATE_COMPLETE"
    cloudformation.delete_stack(StackName="Whole")
    assert aws.until(lambda: status(aws, "Whole") == "DELETE_FAILED")
    dynamodb.update_table(TableName="table", DeletionProtectionEnabled=False)
    cloudformation.delete_stack(StackName="Whole")
    aws.until(lambda: "table" not in inventory(aws)["tables"])


def test_a_parameter_s_value_is_what_its_name_stands_for(aws: EmbeddedAws) -> None:
    setting = {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "taken"}
    alarm = {"AlarmName": "parameter", **ALARM, "Namespace": "N", "MetricName": {"Ref": "Setting"}}
    resources = {"Alarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm}}
    assert deploy(aws, "Parameter", resources, Parameters={"Setting": setting})[0] == "CREATE_COMPLETE"
    (found,) = aws.client("cloudwatch").describe_alarms(AlarmNames=["parameter"])["MetricAlarms"]
    assert found["MetricName"] == "v"
