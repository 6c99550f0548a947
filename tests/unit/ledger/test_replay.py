"""`agentops-monitoring replay`: dead letters and log groups into the ledger, once, whatever interrupts it."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from agentops_monitoring import cli
from agentops_monitoring.cli import plane, through_ingest
from agentops_monitoring.functions import ingest
from agentops_monitoring.ledger import events, replay
from agentops_monitoring.ledger.dead_letters import DeadLetters, split
from agentops_monitoring.ledger.events import Reject, Source
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import client_error
from tests.unit.ledger.recount import recount
from tests.unit.ledger.streams import LogEvent, World, payload
from tests.unit.ledger.test_writer import check

QUEUE = "agentops-dead-letters-test"
POSITION = {
    # As Lambda writes it: https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html
    "requestContext": {
        "requestId": "316aa6d0", "functionArn": "arn:aws:lambda:us-east-1:1:function:agentops-export-test",
        "condition": "RetryAttemptsExhausted", "approximateInvokeCount": 1,
    },
    "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    "version": "1.0", "timestamp": "2026-11-22T00:13:49.717Z",
    "DDBStreamBatchInfo": {"shardId": "shardId-1", "startSequenceNumber": "8", "batchSize": 1},
}  # fmt: skip


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 60_000


class Cloud:
    """A plane of the environment `test`; its ingest function runs in this process."""

    def __init__(self, dynamodb: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.dynamodb = dynamodb
        self._capsys = capsys
        self.sqs = boto3.client("sqs")
        self.queue = self.sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
        self.letters = DeadLetters(self.sqs, self.queue)
        self.parameters = {
            f"/agentops/test/{name}": value
            for name, value in {
                "ingest-function-arn": "arn:aws:lambda:us-east-1:123456789012:function:agentops-ingest-test",
                "dead-letter-queue-name": QUEUE,
                "monitoring-table-name": TABLES.monitoring,
                "decisions-table-name": TABLES.decisions,
                "ledger-table-name": TABLES.ledger,
            }.items()
        }
        for name, value in self.parameters.items():
            boto3.client("ssm").put_parameter(Name=name, Value=value, Type="String", Overwrite=True)
        self.invoked = 0
        self._one = threading.Lock()  # of Lambda, each environment handles one event at a time
        self.before: Callable[[int], None] = lambda number: None
        self.after: Callable[[int], None] = lambda number: None

    # The one method of Lambda's client that a replay uses.
    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:
        assert FunctionName.endswith(":agentops-ingest-test")
        with self._one:
            self.invoked += 1
            return self._handle(Payload, self.invoked)

    def _handle(self, payload: bytes, number: int) -> dict[str, Any]:
        self.before(number)
        try:
            answer: Any = ingest.handler(json.loads(payload), Context())
        except Exception as error:  # noqa: BLE001 - as Lambda does
            told = {"errorMessage": str(error), "errorType": type(error).__name__}
            return {"FunctionError": "Unhandled", "Payload": io.BytesIO(json.dumps(told).encode())}
        self.after(number)
        return {"StatusCode": 200, "Payload": io.BytesIO(json.dumps(answer).encode())}

    def deliver(self, batch: list[LogEvent]) -> None:
        ingest.handler({"awslogs": {"data": encode(payload(batch))}}, Context())

    def send(self, text: str) -> None:
        self.sqs.send_message(QueueUrl=self.queue, MessageBody=text)

    def replay(self, *arguments: str) -> tuple[int, Any]:
        """Return the exit code, and what was printed as JSON."""
        self._capsys.readouterr()
        code = cli.main(["replay", *arguments, "--json", "--environment", "test"])
        printed = self._capsys.readouterr().out
        return code, json.loads(printed[printed.rindex("\n{\n") if "\n{\n" in printed else 0 :])

    def waiting(self) -> list[Any]:
        found = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in messages:
                found.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    def close(self) -> None:
        self.sqs.delete_queue(QueueUrl=self.queue)
        boto3.client("ssm").delete_parameters(Names=list(self.parameters))


def encode(body: Any) -> str:
    return base64.b64encode(gzip.compress(json.dumps(body).encode())).decode()


@pytest.fixture
def cloud(
    dynamodb: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cloud]:
    monkeypatch.setenv("ENVIRONMENT", "test")
    for name, table in zip(("MONITORING", "DECISIONS", "LEDGER"), TABLES, strict=True):
        monkeypatch.setenv(f"{name}_TABLE_NAME", table)
    ingest._ingest.cache_clear()
    made = Cloud(dynamodb, capsys)
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", made.queue)
    monkeypatch.setattr(replay, "_WAIT_S", 0)
    real = plane.client
    monkeypatch.setattr(
        plane, "client", lambda name, **more: made if name == "lambda" else real(name, **more)
    )
    yield made
    made.close()


def as_letters(cloud: Cloud, batch: list[LogEvent], dice: random.Random) -> None:
    """Put a batch into the queue in one of the shapes that ingest and Lambda leave there."""
    shape = dice.randrange(4)
    if shape == 0:
        rejects = [
            Reject(f"reason {n % 3}", Source(e.id, e.timestamp, e.message)) for n, e in enumerate(batch)
        ]
        cloud.letters.keep_rejects(payload(batch), rejects)
    elif shape == 1:
        cloud.letters.keep_undecodable(encode(payload(batch)), "payload cannot be decoded")
    elif shape == 2:
        cloud.send(
            json.dumps(
                {
                    "version": "1.0",
                    "requestContext": {"condition": "RetriesExhausted", "approximateInvokeCount": 3},
                    "requestPayload": {"awslogs": {"data": encode(payload(batch))}},
                    "responsePayload": {"errorMessage": "the tables are busy", "errorType": "LedgerBusy"},
                }
            )
        )
    else:
        noise = base64.b64encode(dice.randbytes(250_000)).decode()
        body = {**payload(batch), "noise": noise}
        texts = list(split(json.dumps(body)))
        assert len(texts) > 1
        for text in texts:
            cloud.send(text)


def scattered(cloud: Cloud, seed: int) -> World:
    """Deliver a part of a world, and leave the rest in the queue; some of it is both, or twice."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    world = World(seed, streams=2, invocations=2)
    for number, batch in enumerate(world.deliveries()):
        fate = dice.random() if number else 1.0  # something always waits
        if fate < 0.6:
            cloud.deliver(batch)
        if fate > 0.5:
            as_letters(cloud, batch, dice)
    return world


def test_the_queue_comes_back_exactly(cloud: Cloud) -> None:
    world = scattered(cloud, random.SystemRandom().randrange(10**6))
    cloud.send(json.dumps(POSITION))
    code, told = cloud.replay("--dlq")
    assert code == 1, "the position stays"
    assert {(each["kind"], each["state"]) for each in told["letters"] if each["state"] != "replayed"} == {
        ("other", "left")
    }
    check(cloud.dynamodb, recount(world.events))
    assert cloud.replay("--dlq")[1]["events"] == 0
    assert cloud.waiting() == [POSITION]


@pytest.mark.parametrize("when", ["before", "after"])
def test_interrupted_anywhere_it_is_as_if_it_had_not_been(cloud: Cloud, when: str) -> None:
    """A delivery that fails, and one whose answer is never seen, at each place in turn."""
    world = scattered(cloud, random.SystemRandom().randrange(10**6))
    fails_at = 0

    def fault(number: int) -> None:
        if number == fails_at:
            raise KeyboardInterrupt

    setattr(cloud, when, fault)
    for turn in range(100):
        fails_at = cloud.invoked + 1 + turn % 3
        if cli.main(["replay", "--dlq", "--environment", "test"]) == 0:
            break
    assert turn
    check(cloud.dynamodb, recount(world.events))
    assert cloud.waiting() == []


def test_what_is_refused_again_stays_with_its_reason(cloud: Cloud) -> None:
    world = World(5, streams=1, invocations=1)
    torn = world.events[0]._replace(id="torn", message='{"agentops.event": ')
    rejects = [Reject("x", Source(e.id, e.timestamp, e.message)) for e in [*world.events, torn]]
    cloud.letters.keep_rejects(payload([torn]), rejects)
    for new in (True, False):
        code, told = cloud.replay("--dlq")
        assert (code, told["refused"], bool(told["events"])) == (1, 1, new)
    (letter,) = cloud.waiting()
    (line,) = letter["logEvents"]
    assert line["message"] == torn.message
    assert "not JSON" in line["reason"]
    check(cloud.dynamodb, recount(world.events))


def test_a_failing_ingest_keeps_the_letters_and_says_why(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(6, streams=1, invocations=1)
    cloud.letters.keep_undecodable(encode(payload(world.events)), "x")

    def broken(event: Any, context: Any) -> None:
        raise RuntimeError("no table")

    with monkeypatch.context() as broken_ingest:
        broken_ingest.setattr(ingest, "handler", broken)
        code, told = cloud.replay("--dlq")
    assert (code, told["reasons"]) == (1, {"no table": 1})
    assert cloud.replay("--dlq")[0] == 0
    check(cloud.dynamodb, recount(world.events))


def test_a_dry_run_counts_and_touches_nothing(cloud: Cloud) -> None:
    scattered(cloud, 11)
    cloud.send('["neither"]')
    code, told = cloud.replay("--dlq", "--dry-run")
    found = {(each["kind"], each["state"]): each["messages"] for each in told["letters"]}
    assert code == 1
    assert found["other", "left"] == 1
    assert sum(found.values()) == len(cloud.waiting())
    assert cloud.invoked == 0


def test_a_letter_that_is_not_whole_is_left(cloud: Cloud) -> None:
    first, *_ = split(json.dumps({"logEvents": [], "noise": random.Random(1).randbytes(300_000).hex()}))
    cloud.send(first)
    code, told = cloud.replay("--dlq", QUEUE)
    assert code == 1
    assert list(told["reasons"]) == ["1 of 2 parts are here"]
    assert len(cloud.waiting()) == 1


def test_a_delivery_that_lambda_dropped_is_to_be_had_from_the_log(cloud: Cloud) -> None:
    cloud.send(json.dumps({"requestContext": {"condition": "RetriesExhausted"}, "responseContext": {}}))
    code, told = cloud.replay("--dlq")
    assert code == 1
    assert "--from-logs" in next(iter(told["reasons"]))
    assert len(cloud.waiting()) == 1


def test_an_event_of_another_function_is_left_and_said(cloud: Cloud) -> None:
    arn = "arn:aws:lambda:us-east-1:1:function:agentops-stop-test:$LATEST"
    context = {"functionArn": arn, "condition": "RetriesExhausted", "approximateInvokeCount": 3}
    alarm = {"source": "aws.cloudwatch", "alarmData": {"alarmName": "AgentOps-test-HighCost"}}
    cloud.send(json.dumps({"requestContext": context, "requestPayload": alarm}))
    code, told = cloud.replay("--dlq")
    assert code == 1
    assert list(told["reasons"]) == [
        "RetriesExhausted: an event of agentops-stop-test, with no lines for the ledger"
    ]
    assert len(cloud.waiting()) == 1


def test_without_a_plane_the_reason_is_said(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["replay", "--dlq", "--environment", "nowhere"]) == 1
    assert "/agentops/nowhere/ingest-function-arn" in capsys.readouterr().err
    assert cli.main(["replay", "--dlq", "no-such-queue", "--environment", "test"]) == 1
    assert "no-such-queue" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--from-logs", "file"),
        ("--log-group", "g"),
        ("--from-logs", "--start", "1h"),
        ("--from-logs", "--log-group", "g", "--start", "yesterday"),
        ("--from-logs", "--log-group", "g", "--start", "1h", "--end", "2h"),
        ("--from-logs", "--log-group", "g", "--start", "400d"),
        ("--from-logs", "--log-group", "g", "--start", "999999d"),
    ],
)
def test_wrong_usage_is_said(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["replay", *arguments, "--dry-run", "--environment", "test"]) == 2
    assert capsys.readouterr().err


def test_there_is_one_source_at_a_time() -> None:
    with pytest.raises(SystemExit) as told:
        cli.main(["replay", "--dlq", "q", "--from-logs"])
    assert told.value.code == 2


def later_version(line: LogEvent, version: int = 2) -> LogEvent:
    body = json.loads(line.message)
    body["agentops.event"] |= {"v": version, "unheard_of": "x" * 9_000}
    return line._replace(message=json.dumps(body))


def test_lines_of_a_later_version_are_kept_until_they_are_known(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_RAW_TTL_DAYS", "3")
    world = recent_world(9, streams=2, invocations=1)
    lines = [each for each in world.events if "REPORT" not in each.message and "platform" not in each.message]
    streams = {each.stream for each in lines}
    for _ in range(2):  # a redelivery keeps them once
        for stream in streams:
            cloud.deliver([later_version(each) for each in lines if each.stream == stream])
    assert cloud.waiting() == [], "they are no dead letters"
    code, told = cloud.replay("--later", "--dry-run")
    assert (code, sum(each["lines"] for each in told["sources"])) == (0, len(lines))
    code, told = cloud.replay("--later")
    assert (code, told["events"]) == (1, 0)
    assert told["later"] > 0
    monkeypatch.setattr(events, "VERSION", 2)
    code, told = cloud.replay("--later")
    check(cloud.dynamodb, recount(lines))
    assert (code, told["later"], told["events"]) == (0, 0, len(recount(lines).events))
    assert cloud.replay("--later")[1]["sources"] == []


def test_lines_of_versions_still_unknown_hold_up_no_others(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_RAW_TTL_DAYS", "3")
    world = recent_world(9, streams=2, invocations=2)
    lines = [each for each in world.events if "agentops.event" in each.message]
    known, unknown = [], []
    for stream in {each.stream for each in lines}:
        mine = [each for each in lines if each.stream == stream]
        known += mine[1::2]
        unknown += mine[::2]
        cloud.deliver([later_version(each, 3 - number % 2) for number, each in enumerate(mine)])
    monkeypatch.setattr(events, "VERSION", 2)
    code, told = cloud.replay("--later")
    assert (code, told["events"], told["later"]) == (1, len(recount(known).events), len(unknown))
    code, told = cloud.replay("--later", "--dry-run")
    assert sum(each["lines"] for each in told["sources"]) == len(unknown)


@pytest.fixture
def logged(cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give a log group that ingest is subscribed to, as its filter says; moto has no such patterns."""
    if request.node.callspec.params["dynamodb"] == "moto":
        pytest.skip("moto knows no filter patterns")
    logs: Any = boto3.client("logs")
    group = "/aws/lambda/replayed"
    logs.create_log_group(logGroupName=group)
    real = plane.client

    class Filtered:
        """The log group's filter: a subscription would have to have a function that exists."""

        def get_paginator(self, name: str) -> Any:
            if name != "describe_subscription_filters":
                return logs.get_paginator(name)
            return self

        def paginate(self, *, logGroupName: str, filterNamePrefix: str) -> Any:
            assert filterNamePrefix == "agentops|test|"
            names = ["agentops|test|manager|arm64"] if logGroupName == group else []
            yield {"subscriptionFilters": [{"filterName": name} for name in names]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            plane, "client", lambda name, **more: Filtered() if name == "logs" else real(name, **more)
        )
        yield group
    logs.delete_log_group(logGroupName=group)


def write_log(group: str, world: World) -> list[LogEvent]:
    """Write a world's lines to a log group; return them with the ids that the log gave them."""
    logs: Any = boto3.client("logs")
    for stream in {each.stream for each in world.events}:
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        mine = [each for each in world.events if each.stream == stream]
        noise = {"timestamp": mine[0].timestamp, "message": "hello"}
        entries = [{"timestamp": each.timestamp, "message": each.message} for each in mine]
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[noise, *entries])
    found = logs.filter_log_events(logGroupName=group)["events"]
    name = "agentops|test|manager|arm64"
    return [
        LogEvent(each["logStreamName"], name, each["eventId"], each["timestamp"], each["message"])
        for each in found
        if each["message"] != "hello"
    ]


def recent_world(seed: int, **size: int) -> World:
    return World(seed, start_ms=int(time.time() * 1000) - 3_600_000, **size)


def test_a_log_group_is_read_again_exactly(cloud: Cloud, logged: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    lines = write_log(logged, recent_world(seed, streams=3, invocations=3))
    for stream in {each.stream for each in lines}:
        mine = [each for each in lines if each.stream == stream]
        cloud.deliver([each for number, each in enumerate(mine) if number % 3])
    code, told = cloud.replay("--from-logs", "--log-group", logged, "--start", "2h")
    assert code == 0
    assert told["sources"][0]["lines"] == len(lines)
    assert told["events"] > 0
    check(cloud.dynamodb, recount(lines))
    assert cloud.replay("--from-logs", "--log-group", logged, "--start", "2h")[1]["events"] == 0
    check(cloud.dynamodb, recount(lines))


def test_interrupted_a_log_group_is_read_once_more(
    cloud: Cloud, logged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_BATCH_EVENTS", 5)
    lines = write_log(logged, recent_world(8, streams=2, invocations=3))
    fails_at = 0

    def fault(number: int) -> None:
        if number == fails_at:
            raise KeyboardInterrupt

    for when in ("before", "after"):
        cloud.before = cloud.after = lambda number: None
        setattr(cloud, when, fault)
        fails_at = cloud.invoked + 3
        assert cli.main(["replay", "--from-logs", "--log-group", logged, "--environment", "test"]) == 130
    assert cli.main(["replay", "--from-logs", "--log-group", logged, "--environment", "test"]) == 0
    check(cloud.dynamodb, recount(lines))


def test_gaps_are_closed_from_the_log_without_naming_it(cloud: Cloud, logged: str) -> None:
    lines = write_log(logged, recent_world(12, streams=2, invocations=3))
    for stream in {each.stream for each in lines}:
        mine = [each for each in lines if each.stream == stream]
        ingest.handler(
            {"awslogs": {"data": encode({**payload(mine[:2] + mine[6:]), "logGroup": logged})}}, Context()
        )
    code, told = cloud.replay("--from-logs", "--dry-run")
    assert (code, told["events"]) == (1, 0)
    missing = told["missing"]
    assert missing > 0
    code, told = cloud.replay("--from-logs")
    assert (code, told["missing"]) == (0, 0)
    assert told["events"] >= missing
    check(cloud.dynamodb, recount(lines))
    assert cloud.replay("--from-logs")[1]["sources"] == []


def test_a_stream_that_is_gone_hides_no_other(cloud: Cloud, logged: str) -> None:
    lines = write_log(logged, recent_world(12, streams=2, invocations=3))
    streams = sorted({each.stream for each in lines})
    for stream in streams:
        mine = [each for each in lines if each.stream == stream]
        ingest.handler(
            {"awslogs": {"data": encode({**payload(mine[:2] + mine[6:]), "logGroup": logged})}}, Context()
        )
    real = replay.log_pages

    def pages(client: Any, group: str, name: str, **more: Any) -> Any:
        # AWS refuses all for one that is not there: https://github.com/percona/rds_exporter/issues/81
        if streams[0] in more["streams"]:
            raise client_error("ResourceNotFoundException", "FilterLogEvents")
        return real(client, group, name, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(through_ingest, "log_pages", pages)
        code, told = cloud.replay("--from-logs")
    assert code == 1
    assert [streams[0] in each for each in told["skipped"]] == [True]
    assert told["events"] > 0


def test_a_log_group_that_is_gone_hides_no_other(cloud: Cloud, logged: str) -> None:
    write_log(logged, recent_world(12, streams=1))
    boto3.client("logs").create_log_group(logGroupName="/gone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(through_ingest, "filter_of", lambda *_: "agentops|test|manager|arm64")
        boto3.client("logs").delete_log_group(logGroupName="/gone")
        code, told = cloud.replay(
            "--from-logs", "--log-group", "/gone", "--log-group", logged, "--start", "2h"
        )
    assert code == 1
    assert ["/gone" in each for each in told["skipped"]] == [True]
    assert told["events"] > 0


def test_a_log_group_that_ingest_does_not_read_is_said(cloud: Cloud, logged: str) -> None:
    code, told = cloud.replay("--from-logs", "--log-group", "/other")
    assert code == 1
    assert "no subscription filter" in told["skipped"][0]
