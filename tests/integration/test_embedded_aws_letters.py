"""Failed events that lack a permission on their way: nothing arrives, one line on standard error says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import ACCOUNT, REGION, EmbeddedAws, running_aws

pytestmark = pytest.mark.xdist_group("letters")

FAILING = """
def handler(event, context): raise KeyError("told to")
"""
NO_LETTERS = {"Effect": "Deny", "Action": "sqs:SendMessage", "Resource": "*"}


class Told(EmbeddedAws):
    """An embedded AWS, and what it says on standard error."""

    def __init__(self, url: str, errors: Path) -> None:
        super().__init__(url)
        self._errors = errors

    def told(self, *words: str) -> int:
        """Return how many lines of standard error have all these words."""
        return sum(all(word in line for word in words) for line in self._errors.read_text().splitlines())


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    path = tmp_path_factory.mktemp("letters") / "errors.log"
    with path.open("w") as errors, running_aws("--retry-seconds", "0.05", errors=errors) as (_, url):
        yield Told(url, path)


def role(cloud: Told) -> str:
    """Create a role of the caller's own that may do anything."""
    return cloud.role(json.dumps({"Sid": cloud.name("s"), "Effect": "Allow", "Action": "*", "Resource": "*"}))


def deny_messages(cloud: Told, function: str) -> None:
    """Take the permission to send messages from a function, after what needs it was set up."""
    own = cloud.client("lambda").get_function_configuration(FunctionName=function)["Role"].rpartition("/")[2]
    document = json.dumps({"Statement": [NO_LETTERS]})
    cloud.client("iam").put_role_policy(RoleName=own, PolicyName="denied", PolicyDocument=document)


def attributes(message: dict[str, Any]) -> dict[str, str]:
    return {name: one["StringValue"] for name, one in message["MessageAttributes"].items()}


@pytest.mark.parametrize("kind", ["letter", "destination"])
def test_a_failed_event_needs_the_functions_permission_to_be_kept(cloud: Told, kind: str) -> None:
    url, arn = cloud.queue()
    letter = {"DeadLetterConfig": {"TargetArn": arn}} if kind == "letter" else {}
    function = cloud.function(FAILING, Role=role(cloud), **letter)
    if kind == "destination":
        cloud.client("lambda").put_function_event_invoke_config(
            FunctionName=function, DestinationConfig={"OnFailure": {"Destination": arn}}
        )
    cloud.invoke(function, {"n": 1}, "Event")
    cloud.settle()
    (kept,) = cloud.messages(url)
    if kind == "letter":
        about = attributes(kept)
        assert (about["ErrorCode"], about["ErrorMessage"]) == ("200", "'told to'")
    assert cloud.told(function) == 0
    deny_messages(cloud, function)
    for _ in range(2):
        cloud.invoke(function, {"n": 2}, "Event")
    cloud.settle()
    assert cloud.messages(url) == []
    assert cloud.told(function, "a failed event is gone", "sqs:SendMessage", arn) == 1, "once, not per event"


def test_a_failed_batch_needs_the_functions_permission_to_be_told_of(cloud: Told) -> None:
    url, arn = cloud.queue()
    function, (table, stream) = cloud.function(FAILING, Role=role(cloud)), cloud.stream_table()
    cloud.client("lambda").create_event_source_mapping(
        FunctionName=function,
        EventSourceArn=stream,
        StartingPosition="TRIM_HORIZON",
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": arn}},
    )
    for index, denied in enumerate((False, True)):
        if denied:
            deny_messages(cloud, function)
        cloud.client("dynamodb").put_item(TableName=table, Item={"pk": {"S": str(index)}})
        cloud.settle()
        assert len(cloud.messages(url)) == (not denied)
        assert cloud.told(function, "nothing is told of a failed batch", arn) == denied


def test_a_topic_needs_the_functions_permission(cloud: Told) -> None:
    sns = cloud.client("sns")
    function, url = cloud.relay()
    topic = sns.create_topic(Name=cloud.name("topic"))["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=cloud.arn(function))
    for permitted in (True, False):
        if not permitted:
            cloud.client("lambda").remove_permission(FunctionName=function, StatementId="sns")
        sns.publish(TopicArn=topic, Message="m")
        cloud.settle()
        assert len(cloud.bodies(url)) == permitted
        assert cloud.told(f"{topic} does not invoke", function) == (not permitted)


@pytest.mark.parametrize(
    ("target", "code"), [("willing", None), ("closed", "NO_PERMISSIONS"), ("missing", "NO_RESOURCE")]
)
def test_a_rules_queue_needs_a_policy_for_the_rule(cloud: Told, target: str, code: str | None) -> None:
    events, sqs = cloud.client("events"), cloud.client("sqs")
    url, arn = cloud.queue()
    letters, letters_arn = cloud.queue()
    if target == "closed":
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
    elif target == "missing":
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:no-such-queue"
    bus = cloud.name("bus")
    events.create_event_bus(Name=bus)
    rule = events.put_rule(Name="r", EventBusName=bus, EventPattern=json.dumps({"source": ["s"]}))["RuleArn"]
    one = {"Id": "q", "Arn": arn, "DeadLetterConfig": {"Arn": letters_arn}}
    events.put_targets(Rule="r", EventBusName=bus, Targets=[one])
    events.put_events(Entries=[{"EventBusName": bus, "Source": "s", "DetailType": "t", "Detail": "{}"}])
    if code is None:
        assert cloud.until(lambda: cloud.bodies(url))[0]["source"] == "s"
        assert cloud.messages(letters) == []
        return
    (letter,) = cloud.until(lambda: cloud.messages(letters))
    assert attributes(letter) == {"ERROR_CODE": code, "RULE_ARN": rule, "TARGET_ARN": arn}
    assert json.loads(letter["Body"])["source"] == "s"
    assert cloud.bodies(url) == []
    assert cloud.told(f"{rule} sends nothing to {arn}") == 1
