"""Faults to order: each does what it says, where it says, as often as it says, and the same for each seed."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from tests.fault.conftest import FaultyAws
from tests.integration.conftest import ACCOUNT, REGION

pytestmark = pytest.mark.xdist_group("faults")

# Calls that our code makes, one of each service: client, method, arguments, IAM action.
CALLS: list[tuple[str, str, dict[str, Any], str]] = [
    ("bedrock-runtime", "converse", {"modelId": "m", "messages": []}, "bedrock:*"),
    ("cloudwatch", "put_metric_data", {"Namespace": "n", "MetricData": []}, "cloudwatch:PutMetricData"),
    ("dynamodb", "get_item", {"TableName": "any", "Key": {"pk": {"S": "a"}}}, "dynamodb:GetItem"),
    ("events", "put_events", {"Entries": [{"Detail": "{}"}]}, "events:PutEvents"),
    ("lambda", "invoke", {"FunctionName": "any"}, "lambda:InvokeFunction"),
    ("logs", "filter_log_events", {"logGroupName": "any"}, "logs:FilterLogEvents"),
    ("s3", "get_object", {"Bucket": "any", "Key": "k"}, "s3:GetObject"),
    ("secretsmanager", "get_secret_value", {"SecretId": "any"}, "secretsmanager:GetSecretValue"),
    ("sns", "publish", {"TopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:t", "Message": "m"}, "sns:Publish"),
    ("sqs", "send_message", {"QueueUrl": f"https://sqs/{ACCOUNT}/q", "MessageBody": "m"}, "sqs:SendMessage"),
    ("ssm", "get_parameter", {"Name": "any"}, "ssm:GetParameter"),
]
# "Common errors" of each service's API reference.
COMMON = {"ThrottlingException": 400, "InternalFailure": 500}
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
S3_ERRORS = {"SlowDown": 503, "InternalError": 500}
# What no service model has: https://github.com/boto/botocore, data/_retry.json (sqs, request_limit_exceeded)
RETRY_DATA = {"RequestThrottled": 403}


def patient(aws: FaultyAws, service: str, mode: Any = "standard", attempts: int = 3) -> Any:
    """Return a client that makes several attempts."""
    return aws.connect(service, Config(retries={"mode": mode, "total_max_attempts": attempts}))


def put(aws: FaultyAws, table: str, *names: str, client: Any = None) -> Any:
    """Put items, in one transaction if there are several."""
    client = client or aws.client("dynamodb")
    items = [{"TableName": table, "Item": {"pk": {"S": name}}} for name in names]
    if len(items) == 1:
        return client.put_item(**items[0])
    return client.transact_write_items(TransactItems=[{"Put": item} for item in items])


@pytest.mark.parametrize("fault", ["throttle", "error"])
def test_errors_are_the_services_own_and_botocore_retries_them(aws: FaultyAws, fault: str) -> None:
    aws.order(*({"call": action, "by": "*", "fault": fault} for *_, action in CALLS))
    clients = [patient(aws, service) for service, *_ in CALLS]

    def fail(client: Any, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        with pytest.raises(ClientError) as caught:
            getattr(client, method)(**arguments)
        return dict(caught.value.response)

    with ThreadPoolExecutor(len(CALLS)) as pool:  # each sleeps between its attempts
        errors = list(pool.map(fail, clients, *zip(*(call[1:3] for call in CALLS), strict=True)))
    for client, error in zip(clients, errors, strict=True):
        declared = {
            shape.error_code: shape.metadata.get("error", {}).get("httpStatusCode")
            for shape in client.meta.service_model.error_shapes
        }
        service = client.meta.service_model.service_name
        known = {**COMMON, **RETRY_DATA, **(S3_ERRORS if service == "s3" else {})}
        code, status = error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]
        assert code in declared or code in known, service
        assert status == (declared.get(code) or known.get(code) or (503 if "Unavailable" in code else 500))
        assert error["ResponseMetadata"]["RetryAttempts"] == 2
        assert error["ResponseMetadata"]["RequestId"]
    assert aws.counts() == [(3, 3)] * len(CALLS)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("fault", "raised"),
    [({"fault": "error"}, ClientError), ({"fault": "timeout", "seconds": 0.05}, ConnectionClosedError)],
)
def test_a_call_fails_before_or_after_its_effect(
    aws: FaultyAws, fault: dict[str, Any], raised: type[Exception], when: str
) -> None:
    table = aws.table()
    aws.order({"call": "dynamodb:*Item*", "by": "", "when": when, **fault})
    for names in ("a", "bc"):
        with pytest.raises(raised):
            put(aws, table, *names)
    aws.order()
    assert aws.keys(table) == (set("abc") if when == "after" else set())


def test_a_repeated_transaction_whose_answer_was_lost_has_its_effect_once(aws: FaultyAws) -> None:
    table = aws.table()
    aws.order({"call": "*", "by": "", "fault": "error", "when": "after", "most": 1})
    add = {
        "TableName": table,
        "Key": {"pk": {"S": "sum"}},
        "UpdateExpression": "ADD n :one",
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    }
    answer = patient(aws, "dynamodb").transact_write_items(TransactItems=[{"Update": add}])
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1
    (item,) = aws.client("dynamodb").scan(TableName=table)["Items"]
    assert item["n"] == {"N": "1"}


def test_a_timeout_is_silence_for_as_long_as_it_says(aws: FaultyAws) -> None:
    table = aws.table()
    aws.order({"call": "dynamodb:PutItem", "by": "", "fault": "timeout", "seconds": 3, "most": 1})
    with pytest.raises(ReadTimeoutError):
        put(aws, table, "a", client=boto3.client(
            "dynamodb", endpoint_url=aws.url, region_name=REGION,
            aws_access_key_id=ACCOUNT, aws_secret_access_key="local",
            config=Config(read_timeout=0.3, retries={"total_max_attempts": 1}),
        ))  # fmt: skip
    assert put(aws, table, "a")["ResponseMetadata"]["RetryAttempts"] == 0


@pytest.mark.parametrize("mode", ["legacy", "standard"])
def test_conflicts_cancel_transactions_and_botocore_does_not_repeat_them(aws: FaultyAws, mode: str) -> None:
    table, client = aws.table(), patient(aws, "dynamodb", mode)
    aws.order({"call": "dynamodb:*", "by": "", "fault": "conflict"}, seed=3)
    seen = set()
    for _ in range(12):
        with pytest.raises(client.exceptions.TransactionCanceledException) as caught:
            put(aws, table, "a", "b", "c", client=client)
        error = caught.value.response
        codes = [reason["Code"] for reason in error["CancellationReasons"]]
        assert error["Error"]["Message"].endswith(f"[{', '.join(codes)}]")
        assert error["ResponseMetadata"]["RetryAttempts"] == 0
        assert set(codes) <= {"TransactionConflict", "None"}
        seen.add(tuple(code == "TransactionConflict" for code in codes))
    assert (False, False, False) not in seen
    assert len(seen) > 2
    with pytest.raises(client.exceptions.TransactionConflictException):
        put(aws, table, "a", client=client)
    assert aws.keys(table) == set(), "no rule says so, for a scan has no conflicts"


def test_throttled_transactions_answer_either_way(aws: FaultyAws) -> None:
    table, client = aws.table(), patient(aws, "dynamodb", attempts=1)
    aws.order({"call": "dynamodb:*", "by": "", "fault": "throttle"}, seed=3)
    seen: dict[str, set[str]] = {}
    for _ in range(24):
        with pytest.raises(ClientError) as caught:
            put(aws, table, "a", "b", client=client)
        error = caught.value.response
        codes = {str(reason["Code"]) for reason in error.get("CancellationReasons", [])}
        seen.setdefault(str(error["Error"]["Code"]), set()).update(codes)
    with pytest.raises(client.exceptions.ThrottlingException):
        put(aws, table, "a", client=client)
    aws.order()
    reasons = {"None", "ThrottlingError", "ProvisionedThroughputExceeded"}
    assert seen == {"ThrottlingException": set(), "TransactionCanceledException": reasons}
    assert aws.keys(table) == set()


CALLER = """
import boto3, os
from botocore.config import Config
client = boto3.client("dynamodb", config=Config(retries={"total_max_attempts": 1}))
def handler(event, context):
    print("called", event)
    client.put_item(TableName=os.environ["TABLE"], Item={"pk": {"S": event}})
    print("answered", event)
    return os.getpid()
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_kill_ends_the_very_environment_that_calls(aws: FaultyAws, when: str) -> None:
    table = aws.table()
    function = aws.function(CALLER, Environment={"Variables": {"TABLE": table}})
    other = aws.function(CALLER, Environment={"Variables": {"TABLE": table}})
    (first, _), (bystander, _) = aws.invoke(function, "warm"), aws.invoke(other, "other")
    aws.order({"call": "dynamodb:PutItem", "fault": "kill", "when": when, "by": function, "most": 1})
    assert aws.invoke(other, "unharmed") == (bystander, False)
    answer, failed = aws.invoke(function, "killed")
    assert failed
    assert answer["errorType"] == "Runtime.ExitError"
    assert "signal: killed" in answer["errorMessage"]
    put(aws, table, "of no function")
    again, failed = aws.invoke(function, "again")
    assert not failed
    assert again != first
    assert ("killed" in aws.keys(table)) is (when == "after")
    lines = [text.strip() for _, text in aws.log(function)]
    assert "called killed" in lines
    assert "answered killed" not in lines
    assert aws.counts() == [(2, 1)]


def test_rules_go_by_the_caller(aws: FaultyAws) -> None:
    table = aws.table()
    one, two = (aws.function(CALLER, Environment={"Variables": {"TABLE": table}}) for _ in range(2))
    for by, hit in ((one, {one}), ("*", {one, two, ""}), ("", {""}), (None, {one, two})):
        aws.order({"call": "dynamodb:PutItem", "fault": "throttle", **({} if by is None else {"by": by})})
        failed = {name for name in (one, two) if aws.invoke(name, "x")[1]}
        try:
            put(aws, table, "x")
        except ClientError:
            failed.add("")
        assert failed == hit


COUNTER = """
import boto3, json, os, time
def handler(event, context):
    event = event if isinstance(event, list) else [r["dynamodb"]["Keys"]["pk"]["S"] for r in event["Records"]]
    time.sleep(0.4 if event == ["slow"] else 0)
    body = json.dumps({"event": event, "id": context.aws_request_id})
    boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody=body)
"""


def delivered(aws: FaultyAws, function: str, url: str, *names: str) -> list[tuple[str, str]]:
    """Invoke asynchronously, one after the other; return the events and request ids as they were handled."""
    for name in names:
        aws.invoke(function, [name], "Event")
    aws.settle()
    return [(one["event"][0], one["id"]) for one in aws.bodies(url)]


def test_an_event_is_delivered_twice_under_its_request_id(aws: FaultyAws) -> None:
    function, url = aws.relay(COUNTER)
    aws.order({"invoke": function, "fault": "twice", "skip": 1, "most": 1})
    taken = delivered(aws, function, url, "a", "b", "c")
    assert sorted(name for name, _ in taken) == ["a", "b", "b", "c"]
    assert len(set(taken)) == 3
    assert aws.counts() == [(3, 1)]


def test_events_overtake_one_that_is_held_back_and_idle_counts_it(aws: FaultyAws) -> None:
    function, url = aws.relay(COUNTER)
    aws.invoke(function, ["warm"], "Event")
    aws.settle()
    aws.bodies(url)
    aws.order({"invoke": function, "fault": "reordered", "seconds": 60, "most": 2})
    for name in "ab":
        aws.invoke(function, [name], "Event")
    assert aws.local("idle")["invocations"] == 2
    taken = [name for name, _ in delivered(aws, function, url, "c")]
    assert taken[0] == "c"
    assert sorted(taken[1:]) == ["a", "b"]
    aws.order({"invoke": function, "fault": "reordered", "seconds": 0.1})
    assert [name for name, _ in delivered(aws, function, url, "alone")] == ["alone"]


def test_late_events_come_late_and_are_waited_for(aws: FaultyAws) -> None:
    function, url = aws.relay(COUNTER)
    aws.order({"invoke": function, "fault": "late", "seconds": 0.6, "most": 1})
    assert [name for name, _ in delivered(aws, function, url, "a", "b")] == ["b", "a"]


def test_killed_and_throttled_deliveries_are_tried_again(aws: FaultyAws) -> None:
    function, url = aws.relay(COUNTER)
    delivered(aws, function, url, "warm")
    aws.order(
        {"invoke": function, "fault": "kill", "seconds": 0.1, "most": 1},
        {"invoke": function, "fault": "throttle", "most": 2},
    )
    assert [name for name, _ in delivered(aws, function, url, "slow")] == ["slow"]
    reports = [text for _, text in aws.log(function) if text.startswith("REPORT")]
    assert sorted("Runtime.ExitError" in text for text in reports) == [False, False, True]
    assert aws.counts() == [(4, 1), (4, 2)], "killed first, as its rule comes first, then throttled twice"
    assert aws.invoke(function, ["waited for"]) == (None, False)
    assert aws.counts() == [(4, 1), (4, 2)], "a caller that waits is hit by calls alone"


def test_a_dead_letter_follows_when_no_attempt_succeeds(aws: FaultyAws) -> None:
    dead_url, dead_arn = aws.queue()
    function, url = aws.relay(COUNTER, DeadLetterConfig={"TargetArn": dead_arn})
    aws.order({"invoke": function, "fault": "kill", "seconds": 0})
    assert delivered(aws, function, url, "a") == []
    (letter,) = aws.messages(dead_url)
    assert json.loads(letter["Body"]) == ["a"]
    assert aws.counts() == [(3, 3)]


def test_streams_repeat_and_wait_but_keep_their_order(aws: FaultyAws) -> None:
    (function, url), (table, stream) = aws.relay(COUNTER), aws.stream_table()
    aws.client("lambda").create_event_source_mapping(
        FunctionName=function, EventSourceArn=stream, StartingPosition="TRIM_HORIZON", BatchSize=1
    )
    aws.order(
        {"invoke": function, "fault": "reordered", "seconds": 9},
        {"invoke": function, "fault": "late", "seconds": 0.3, "most": 1},
        {"invoke": function, "fault": "twice", "skip": 1, "most": 1},
        {"invoke": function, "fault": "throttle", "skip": 1, "most": 1},
        {"invoke": function, "fault": "kill", "seconds": 0, "skip": 2, "most": 1},
    )
    names = list("abcd")
    for name in names:
        put(aws, table, name)
    aws.until(lambda: aws.local("idle")["pending"] == 0, 15)
    assert [name for one in aws.bodies(url) for name in one["event"]] == ["a", "b", "b", "c", "d"]
    fired = [fired for _, fired in aws.counts()]
    assert fired == [0, 1, 1, 1, 1]


def test_each_seed_gives_its_own_decisions_again(aws: FaultyAws) -> None:
    table = aws.table()
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    hit = {"call": "dynamodb:PutItem", "by": "", "fault": "throttle", "probability": 0.5}
    other = {"call": "dynamodb:*", "by": "", "fault": "error", "probability": 0.2}

    def decisions(seed: int, *rules: dict[str, Any]) -> list[str]:
        aws.order(*rules, seed=seed)
        found = []
        for _ in range(40):
            try:
                put(aws, table, "a")
                found.append("")
            except ClientError as error:
                found.append(error.response["Error"]["Code"])
        return found

    alone = decisions(seed, hit)
    assert decisions(seed, hit) == alone
    assert decisions(seed + 1, hit) != alone
    assert 5 < alone.count("ThrottlingException") < 35
    both = decisions(seed, hit, other)
    assert "InternalServerError" in both
    assert [code == "ThrottlingException" for code in both] == [bool(code) for code in alone]
    assert aws.counts() == [(40, both.count("ThrottlingException")), (40, both.count("InternalServerError"))]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (None, "body: expected an object"),
        ({"rule": []}, "body: expected no fields but seed and rules"),
        ({"rules": {}}, "rules: expected a list"),
        ({"seed": "x", "rules": []}, "seed: expected a whole number"),
        ({"rules": [7]}, "rules[0]: expected an object"),
        ({"rules": [{"fault": "kill"}]}, "rules[0]: expected either call or invoke"),
        ({"rules": [{"call": "*", "invoke": "*"}]}, "rules[0]: expected either call or invoke"),
        ({"rules": [{"call": "*", "fault": "twice"}]}, "rules[0].fault: expected throttle or error or"),
        ({"rules": [{"invoke": "*", "fault": ["x"]}]}, "rules[0].fault: expected throttle or kill or"),
        ({"rules": [{"call": 7, "fault": "error"}]}, "rules[0].call: expected a pattern"),
        ({"rules": [{"call": "*", "fault": "timeout"}]}, "rules[0].seconds: expected a number"),
        ({"rules": [{"invoke": "*", "fault": "late"}]}, "rules[0].seconds: expected a number"),
        ({"rules": [{"call": "*", "fault": "throttle", "when": "after"}]}, "rules[0].when: expected no such"),
        ({"rules": [{"call": "*", "fault": "error", "when": "then"}]}, "rules[0].when: expected before or"),
        ({"rules": [{"call": "*", "fault": "error", "probability": 2}]}, "rules[0].probability: expected"),
        ({"rules": [{"call": "*", "fault": "error", "skip": -1}]}, "rules[0].skip: expected a whole number"),
        ({"rules": [{"call": "*", "fault": "error", "most": 1.5}]}, "rules[0].most: expected a whole number"),
        ({"rules": [{"invoke": "*", "fault": "twice", "by": "x"}]}, "rules[0].by: expected no such field"),
    ],
)
def test_wrong_rules_are_refused_by_field_and_change_nothing(aws: FaultyAws, wrong: Any, told: str) -> None:
    aws.order({"call": "none:*", "fault": "error"})
    status, answer = aws.put_faults(wrong)
    assert status == 400
    assert told in json.loads(answer)["message"]
    assert aws.counts() == [(0, 0)]
