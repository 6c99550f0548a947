"""What `local/aws/served.toml` calls served: `served.template.yaml` has each property, here each is seen.

What services only tell back here (an alarm's period, a mapping's bisection) is seen at work elsewhere:
alarms in test_embedded_aws_alarms.py and test_embedded_aws_telemetry.py, dashboards in
tests/synth/test_dashboards.py and test_demo.py, ages and sizes of batches in test_template_limits.py, stream
mappings, rules, schedules, permissions and failure destinations in test_embedded_aws_services.py, functions'
limits, concurrency and logging in test_embedded_aws_functions.py, subscription filters in
test_embedded_aws_subscriptions.py, Kinesis streams in test_embedded_aws_kinesis.py, expiry (TTL) in
test_embedded_aws_expiry.py, roles and policies in test_roles.py and test_least_privilege.py.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]

from .conftest import ACCOUNT, REGION, EmbeddedAws

TEMPLATE = (Path(__file__).parent / "served.template.yaml").read_text()
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:topic"
RELAY = """
import boto3, json
def handler(event, context):
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName="letters")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"code": "%s", "event": event}))
"""


def leaves(served: Any, path: str) -> Iterator[str]:
    """Yield the paths of what is served, without what is only taken."""
    if isinstance(served, Mapping):
        for name, one in served.items():
            yield from leaves(one, f"{path}.{name}" if name.isalnum() else path)
    elif not isinstance(served, str):
        yield path


def arn(service: str, name: str) -> str:
    """Return an ARN of the account."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"


def queue(aws: EmbeddedAws, name: str) -> str:
    """Return a queue's URL."""
    return str(aws.client("sqs").get_queue_url(QueueName=name)["QueueUrl"])


def template(second: bool) -> dict[str, Any]:
    """Return the template, with its first values or with what an update makes of them."""
    text = re.sub(r"<([^<>|]*)\|([^<>|]*)>", lambda pair: pair[2 if second else 1], TEMPLATE)
    return dict(json.loads(json.dumps(cfn_yaml.loads(text))))


def code(word: str) -> bytes:
    """Return an archive that serves as the code of the relay and of the layer, and says its word."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("index.py", RELAY % word)
        archive.writestr("python/layer.py", f"VALUE = {word!r}")
    return content.getvalue()


def take(aws: EmbeddedAws, url: str) -> list[Any]:
    """Take what a queue holds for good, each body read as JSON."""
    messages = aws.messages(url)
    for message in messages:
        aws.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return [json.loads(message["Body"]) for message in messages]


def status(aws: EmbeddedAws, stack: str) -> str:
    """Return a stack's status, empty when there is none."""
    try:
        return str(aws.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])
    except ClientError:
        return ""


def deploy(aws: EmbeddedAws, stack: str, resources: Mapping[str, Any], **template: Any) -> tuple[str, str]:
    """Create or update a stack; return its status, and the reasons of its events, newest first."""
    cloudformation = aws.client("cloudformation")
    call = cloudformation.update_stack if status(aws, stack) else cloudformation.create_stack
    body = json.dumps({"Resources": resources, **template})
    call(StackName=stack, TemplateBody=body, Capabilities=["CAPABILITY_NAMED_IAM"])
    aws.until(lambda: not status(aws, stack).endswith("IN_PROGRESS"))
    events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
    return status(aws, stack), " ".join(str(event.get("ResourceStatusReason", "")) for event in events)


class Seen(dict[str, tuple[Any, Any]]):
    """Per property, what the template says and what is seen."""

    def __init__(self, second: bool) -> None:
        super().__init__()
        self.pick: Callable[[Any, Any], Any] = lambda first, other: other if second else first

    def add(self, kind: str, seen: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        """Take what a service tells of properties, by their paths; lists stand for their only entry."""
        for path, value in said.items():
            found: Any = seen
            for name in path.split("."):
                found = found[name] if isinstance(found, Mapping) else found[0][name]
            self[f"AWS::{kind}.{path}"] = (value, found)


def look(aws: EmbeddedAws, second: bool) -> Seen:
    """See every served property."""
    seen = Seen(second)
    pick = seen.pick
    word, call = pick("one", "two"), aws.client
    alarms = {one["AlarmName"]: one for one in call("cloudwatch").describe_alarms()["MetricAlarms"]}
    seen.add("CloudWatch::Alarm", alarms["single"], {
        "ActionsEnabled": pick(True, False), "AlarmActions": [TOPIC], "AlarmDescription": word,
        "AlarmName": "single", "ComparisonOperator": pick("GreaterThanThreshold", "LessThanThreshold"),
        "DatapointsToAlarm": pick(2, 1), "Dimensions": [{"Name": "Agent", "Value": pick("a", "b")}],
        "EvaluationPeriods": pick(3, 2), "ExtendedStatistic": pick("p95", "p50"),
        "InsufficientDataActions": [TOPIC], "MetricName": pick("m", "n"), "Namespace": pick("M", "N"),
        "OKActions": [TOPIC], "Period": pick(60, 300), "Threshold": pick(5, 6),
        "TreatMissingData": pick("ignore", "breaching"),
    })  # fmt: skip
    seen.add("CloudWatch::Alarm", alarms["plain"], {"Statistic": pick("Sum", "Average")})
    stat, expression = alarms["math"]["Metrics"]
    seen.add("CloudWatch::Alarm", {"Metrics": {**stat, **expression}}, {
        "Metrics.Expression": pick("a * 2", "c * 3"), "Metrics.Label": pick("twice", "thrice"),
        "Metrics.MetricStat.Metric": {"Namespace": "M", "MetricName": pick("m", "n")},
        "Metrics.MetricStat.Period": pick(60, 300), "Metrics.MetricStat.Stat": pick("Sum", "p99"),
        "Metrics.Period": pick(60, 300), "Metrics.ReturnData": True,
    })  # fmt: skip
    seen.add("CloudWatch::Alarm", {"Metrics": stat}, {"Metrics.Id": pick("a", "c")})
    seen.add("CloudWatch::Dashboard", call("cloudwatch").get_dashboard(DashboardName="board"), {
        "DashboardName": "board", "DashboardBody": f'{{"start":"{pick("-PT1H", "-PT3H")}","widgets":[]}}',
    })  # fmt: skip

    table = call("dynamodb").describe_table(TableName="records")["Table"]
    ttl = call("dynamodb").describe_time_to_live(TableName="records")["TimeToLiveDescription"]
    seen.add("DynamoDB::GlobalTable", {
        **table, "BillingMode": table["BillingModeSummary"]["BillingMode"],
        "AttributeDefinitions": [one["AttributeName"] for one in table["AttributeDefinitions"]],
        "Replicas": {**table, "Region": table["TableArn"].split(":")[3]},
        "TimeToLiveSpecification": (ttl["TimeToLiveStatus"], ttl.get("AttributeName")),
    }, {
        "AttributeDefinitions": ["pk", pick("g", "h")], "BillingMode": "PAY_PER_REQUEST",
        "GlobalSecondaryIndexes.IndexName": pick("by-g", "by-h"),
        "GlobalSecondaryIndexes.KeySchema": [{"AttributeName": pick("g", "h"), "KeyType": "HASH"}],
        "GlobalSecondaryIndexes.Projection.ProjectionType": "ALL",
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        "Replicas.DeletionProtectionEnabled": pick(True, False), "Replicas.Region": REGION,
        "StreamSpecification.StreamViewType": "NEW_IMAGE", "TableName": "records",
        "TimeToLiveSpecification": pick(("ENABLED", "expires_at"), ("DISABLED", None)),
    })  # fmt: skip

    events = call("events")
    rule = events.describe_rule(Name="rule", EventBusName="bus")
    rule["Targets"] = events.list_targets_by_rule(Rule="rule", EventBusName="bus")["Targets"]
    seen.add("Events::Rule", {**rule, "EventPattern": json.loads(rule["EventPattern"])}, {
        "Description": word, "EventBusName": "bus", "EventPattern": {"source": [pick("s", "t")]},
        "Name": "rule", "State": pick("ENABLED", "DISABLED"), "Targets.Arn": arn("sqs", "seen"),
        "Targets.DeadLetterConfig.Arn": arn("sqs", "letters"), "Targets.Id": pick("a", "b"),
        "Targets.Input": f'"{word}"',
    })  # fmt: skip
    rate = f"rate({pick('1 minute', '5 minutes')})"
    seen.add("Events::Rule", events.describe_rule(Name="schedule"), {"ScheduleExpression": rate})
    seen.add("Events::EventBus", events.describe_event_bus(Name="bus"), {"Name": "bus"})

    iam = call("iam")
    attached = iam.list_attached_role_policies(RoleName="role")["AttachedPolicies"]
    policies = {
        name: iam.get_role_policy(RoleName="role", PolicyName=name)["PolicyDocument"]["Statement"][0][
            "Action"
        ]
        for name in iam.list_role_policies(RoleName="role")["PolicyNames"]
    }
    seen.add("IAM::Role", {
        **iam.get_role(RoleName="role")["Role"], "Policies": policies["inline"],
        "ManagedPolicyArns": [one["PolicyName"] for one in attached],
    }, {
        "Description": word, "ManagedPolicyArns": [pick("AmazonS3ReadOnlyAccess", "AmazonSSMReadOnlyAccess")],
        "Policies": ["ec2:*", "dynamodb:*", "logs:*", "sqs:*"], "RoleName": "role",
    })  # fmt: skip
    extra = {"PolicyDocument": policies["extra"], "PolicyName": "extra" in policies, "Roles": "role"}
    said = {"PolicyDocument": pick("sts:*", "sns:*"), "PolicyName": True, "Roles": "role"}
    seen.add("IAM::Policy", extra, said)
    look_at_functions(aws, seen)
    look_at_stores(aws, seen)
    return seen


def look_at_functions(aws: EmbeddedAws, seen: Seen) -> None:
    """See the properties of functions."""

    pick = seen.pick
    word, lambda_ = pick("one", "two"), aws.client("lambda")
    answer, failed = aws.invoke("function")
    assert not failed, answer
    whole = lambda_.get_function(FunctionName="function")
    config = whole["Configuration"]
    seen.add("Lambda::Function", {
        **config, **answer, "Code": answer, "Environment": answer, **whole["Concurrency"],
        "Tags": whole["Tags"]["k"],
    }, {
        "Code.ZipFile": word, "Description": word, "Environment.Variables": word, "FunctionName": "function",
        "Handler": f"index.{word}", "Layers": word, "LoggingConfig": [pick("INFO", "WARN"), "/served"],
        "MemorySize": pick(128, 256), "PackageType": "Zip", "ReservedConcurrentExecutions": pick(7, 8),
        "Role": "role", "Runtime": pick("python3.13", "python3.12"), "Timeout": pick(20, 30),
        "Tags": word, "VpcConfig.SubnetIds": [pick("subnet-1", "subnet-2")],
    })  # fmt: skip
    versions = lambda_.list_layer_versions(LayerName="layer")["LayerVersions"]
    seen.add("Lambda::LayerVersion", {
        **versions[0], "LayerName": config["Layers"][0]["Arn"].split(":")[-2],
        "Content": {"S3Bucket": answer["Layers"], "S3Key": answer["Layers"]},
    }, {
        "Description": word, "LayerName": "layer", "Content.S3Bucket": word, "Content.S3Key": word,
    })  # fmt: skip

    letters, failures = queue(aws, "letters"), queue(aws, "failed")
    for url in (letters, failures):
        take(aws, url)
    dead, failure = pick((letters, failures), (failures, letters))
    aws.invoke("failing", {"n": 1}, kind="Event")
    aws.settle()
    (letter,) = [body for body in take(aws, dead) if "n" in body]  # alarms and rules write there too
    (record,) = [body for body in take(aws, failure) if "requestPayload" in body]
    seen.add(
        "Lambda::Function",
        {"DeadLetterConfig": {"TargetArn": letter}},
        {"DeadLetterConfig.TargetArn": {"n": 1}},
    )
    context, settings = (
        record["requestContext"],
        lambda_.get_function_event_invoke_config(FunctionName="failing", Qualifier="$LATEST"),
    )
    seen.add("Lambda::EventInvokeConfig", {
        **settings, "FunctionName": context["functionArn"], "Qualifier": context["functionArn"][-7:],
        "MaximumRetryAttempts": context["approximateInvokeCount"] - 1,
        "DestinationConfig": {"OnFailure": {"Destination": record["requestPayload"]}},
    }, {
        "DestinationConfig.OnFailure.Destination": {"n": 1}, "MaximumRetryAttempts": pick(0, 1),
        "FunctionName": arn("lambda", "function:failing:$LATEST"), "Qualifier": "$LATEST",
        "MaximumEventAgeInSeconds": pick(60, 120),
    })  # fmt: skip

    (mapping,) = lambda_.list_event_source_mappings()["EventSourceMappings"]
    seen.add("Lambda::EventSourceMapping", {
        **mapping, "Enabled": mapping["State"], "FunctionName": mapping["FunctionArn"],
        "EventSourceArn": mapping["EventSourceArn"].rsplit("/", 1)[0],
        "FilterCriteria": mapping["FilterCriteria"]["Filters"][0]["Pattern"],
    }, {
        "BatchSize": pick(3, 4), "BisectBatchOnFunctionError": pick(True, False),
        "DestinationConfig.OnFailure.Destination": arn("sqs", pick("failed", "letters")),
        "Enabled": pick("Enabled", "Disabled"), "EventSourceArn": arn("dynamodb", "table/records/stream"),
        "FilterCriteria": f'{{"eventName":["{pick("INSERT", "REMOVE")}"]}}',
        "FunctionName": arn("lambda", "function:relay"), "StartingPosition": "TRIM_HORIZON",
        "FunctionResponseTypes": ["ReportBatchItemFailures"], "MaximumRecordAgeInSeconds": pick(60, 120),
        "MaximumRetryAttempts": pick(1, 2),
    })  # fmt: skip
    statements = json.loads(lambda_.get_policy(FunctionName="relay")["Policy"])["Statement"]
    (one,) = [one for one in statements if "SourceAccount" in json.dumps(one)]
    condition = one["Condition"]
    seen.add("Lambda::Permission", {
        "Action": one["Action"], "FunctionName": one["Resource"], "Principal": one["Principal"]["Service"],
        "SourceAccount": condition["StringEquals"]["AWS:SourceAccount"],
        "SourceArn": condition["ArnLike"]["AWS:SourceArn"],
    }, {
        "Action": "lambda:InvokeFunction", "FunctionName": arn("lambda", "function:relay"),
        "Principal": pick("logs.amazonaws.com", "events.amazonaws.com"), "SourceAccount": ACCOUNT,
        "SourceArn": f"arn:aws:{pick('logs', 'events')}:{REGION}:{ACCOUNT}:*",
    })  # fmt: skip


def look_at_stores(aws: EmbeddedAws, seen: Seen) -> None:
    """See the properties of logs, buckets, topics, queues and parameters."""

    pick = seen.pick
    word, logs, s3 = pick("one", "two"), aws.client("logs"), aws.client("s3")
    (group,) = logs.describe_log_groups(logGroupNamePrefix="/served")["logGroups"]
    seen.add("Logs::LogGroup", {name[0].upper() + name[1:]: value for name, value in group.items()}, {
        "LogGroupClass": "STANDARD", "LogGroupName": "/served", "RetentionInDays": pick(7, 3653),
    })  # fmt: skip
    (one,) = logs.describe_subscription_filters(logGroupName="/served")["subscriptionFilters"]
    seen.add("Logs::SubscriptionFilter", {name[0].upper() + name[1:]: value for name, value in one.items()}, {
        "DestinationArn": arn("lambda", "function:relay"), "FilterName": "filter", "LogGroupName": "/served",
        "FilterPattern": f'?"{pick("never", "nowhere")}"',
    })  # fmt: skip
    (one,) = logs.describe_subscription_filters(logGroupName="/stream")["subscriptionFilters"]
    seen.add("Logs::SubscriptionFilter", {name[0].upper() + name[1:]: value for name, value in one.items()}, {
        "Distribution": "ByLogStream", "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/stream",
    })  # fmt: skip
    stream = aws.client("kinesis").describe_stream_summary(StreamName="stream")["StreamDescriptionSummary"]
    seen.add("Kinesis::Stream", {
        "Name": stream["StreamName"], "ShardCount": stream["OpenShardCount"], **stream,
    }, {
        "Name": "stream", "RetentionPeriodHours": pick(24, 48), "ShardCount": 2,
        "StreamModeDetails.StreamMode": "PROVISIONED",
    })  # fmt: skip

    s3.put_object(Bucket="bucket", Key="a", Body=b"")
    seen.add("S3::Bucket", {
        "AccessControl": len(s3.get_bucket_acl(Bucket="bucket")["Grants"]),
        "BucketName": "bucket" in {one["Name"] for one in s3.list_buckets()["Buckets"]},
        "VersioningConfiguration": s3.get_bucket_versioning(Bucket="bucket"),
    }, {"AccessControl": 1, "BucketName": True, "VersioningConfiguration.Status": "Enabled"})  # fmt: skip
    (statement,) = json.loads(s3.get_bucket_policy(Bucket="bucket")["Policy"])["Statement"]
    bucket, _, key = statement["Resource"].removeprefix("arn:aws:s3:::").partition("/")
    policy = {"Bucket": bucket, "PolicyDocument": key}
    seen.add("S3::BucketPolicy", policy, {"Bucket": "bucket", "PolicyDocument": pick("a", "b")})

    sns = aws.client("sns")
    attributes = sns.get_topic_attributes(TopicArn=TOPIC)["Attributes"]
    (statement,) = json.loads(attributes["Policy"])["Statement"]
    policy = {"PolicyDocument": statement["Principal"], "Topics": [attributes["TopicArn"]]}
    seen.add("SNS::TopicPolicy", policy, {
        "PolicyDocument": {"Service": f"{pick('cloudwatch', 'events')}.amazonaws.com"}, "Topics": [TOPIC],
    })  # fmt: skip
    seen.add("SNS::Topic", {"TopicName": attributes["TopicArn"]}, {"TopicName": TOPIC})
    before = len(aws.local("mail"))
    sns.publish(TopicArn=TOPIC, Message=f"hello {word}")
    aws.settle()
    (mail,) = [one for one in aws.local("mail")[before:] if "hello" in one["body"]]
    told = [body for body in take(aws, queue(aws, "letters")) if "hello" in json.dumps(body)]
    got = sorted(body.get("code", body.get("Type")) for body in told)
    seen.add("SNS::Subscription", {"Endpoint": mail["to"], "Protocol": got, "TopicArn": mail["topic"]}, {
        "Endpoint": f"{word}@example.com", "Protocol": ["Notification", word], "TopicArn": TOPIC,
    })  # fmt: skip
    code = {"Code": {"S3Bucket": got[-1], "S3Key": got[-1]}}
    seen.add("Lambda::Function", code, {"Code.S3Bucket": word, "Code.S3Key": word})

    asked = {"QueueUrl": queue(aws, "seen"), "AttributeNames": ["All"]}
    attributes = {"FifoQueue": "false", **aws.client("sqs").get_queue_attributes(**asked)["Attributes"]}
    tags = aws.client("sqs").list_queue_tags(QueueUrl=asked["QueueUrl"])["Tags"]
    seen.add("SQS::Queue", {**attributes, "QueueName": attributes["QueueArn"], "Tags": tags["k"]}, {
        "DelaySeconds": pick("0", "900"), "FifoQueue": "false", "MessageRetentionPeriod": pick("60", "120"),
        "QueueName": arn("sqs", "seen"), "Tags": word, "VisibilityTimeout": pick("0", "10"),
        "RedrivePolicy": f'{{"deadLetterTargetArn":"{arn("sqs", "failed")}","maxReceiveCount":{pick(1, 2)}}}',
    })  # fmt: skip
    (statement,) = json.loads(attributes["Policy"])["Statement"]
    policy = {"PolicyDocument": statement["Principal"], "Queues": attributes["QueueArn"]}
    said = {
        "PolicyDocument": {"Service": f"{pick('events', 'sns')}.amazonaws.com"},
        "Queues": arn("sqs", "seen"),
    }
    seen.add("SQS::QueuePolicy", policy, said)

    ssm = aws.client("ssm")
    (parameter,) = ssm.describe_parameters(Filters=[{"Key": "Name", "Values": ["parameter"]}])["Parameters"]
    parameter |= ssm.get_parameter(Name="parameter")["Parameter"]
    seen.add("SSM::Parameter", parameter, {"Description": word, "Name": "parameter", "Value": word})
    seen.add("SSM::Parameter", ssm.get_parameter(Name="list")["Parameter"], {"Type": "StringList"})


def work(aws: EmbeddedAws, item: str) -> dict[str, Any]:
    """Use what was deployed; return what came of it."""
    came: dict[str, Any] = {}
    seen, letters, failed = (queue(aws, name) for name in ("seen", "letters", "failed"))
    before = len(aws.local("mail"))
    for state in ("INSUFFICIENT_DATA", "OK", "ALARM", "INSUFFICIENT_DATA"):  # the first: whatever it was
        aws.client("cloudwatch").set_alarm_state(AlarmName="single", StateValue=state, StateReason="told to")
    aws.client("events").put_events(
        Entries=[{"EventBusName": "bus", "Source": "s", "DetailType": "t", "Detail": "{}"}]
    )
    aws.client("dynamodb").put_item(TableName="records", Item={"pk": {"S": item}})
    aws.settle()
    subjects = [mail["subject"].split(":") for mail in aws.local("mail")[before:]]
    came["mails"] = [state for state, alarm in subjects if '"single"' in alarm][-3:]
    came["events"] = aws.bodies(seen)
    batches = [body["event"]["Records"] for body in take(aws, letters) if "Records" in body.get("event", {})]
    came["records"] = [one["eventName"] for batch in batches for one in batch if "dynamodb" in one]
    aws.client("sqs").send_message(QueueUrl=seen, MessageBody='"received"')
    came["received"] = aws.bodies(seen), take(aws, failed)
    puts = [aws.client("s3").put_object(Bucket="bucket", Key="b", Body=b"123") for _ in range(2)]
    came["versions"] = len({put["VersionId"] for put in puts})
    came["read"] = [aws.invoke("function", {"Bucket": "bucket", "Key": key}) for key in "ab"]
    came["read"] = [answer.get("errorType") if failed else answer for answer, failed in came["read"]]
    return came
