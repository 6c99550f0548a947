"""Batches of a Kinesis stream: counted once whatever fails, and no record holds up its shard for ever."""

from __future__ import annotations

import base64
import gzip
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from moto import mock_aws

from agentops_monitoring.functions import ingest
from agentops_monitoring.ledger import parse, schema
from agentops_monitoring.ledger.dead_letters import join
from agentops_monitoring.ledger.writer import LedgerBusy, LedgerWriter
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB, client_error
from tests.unit.ledger.recount import recount
from tests.unit.ledger.streams import LogEvent, World, payload
from tests.unit.ledger.test_writer import Faults, check


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def packed(body: Any) -> str:
    return base64.b64encode(gzip.compress(json.dumps(body).encode())).decode()


def record(number: int, data: str) -> dict[str, Any]:
    """As Lambda hands it over: https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html"""
    sequence = f"495903383{number:047d}"
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0", "partitionKey": "1", "sequenceNumber": sequence, "data": data,
            "approximateArrivalTimestamp": 1_795_334_400.987,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-000000000006:{sequence}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
        "awsRegion": "us-east-1",
        "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/agentops-lines",
    }  # fmt: skip


def sequence_of(each: dict[str, Any]) -> str:
    return str(each["kinesis"]["sequenceNumber"])


class Plane:
    """The function on tables in memory and a queue."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.tables = FakeDynamoDB()

    def invoke(self, records: Sequence[dict[str, Any]]) -> list[str]:
        answer = ingest.handler({"Records": list(records)}, Context())
        assert answer.keys() == {"batchItemFailures"}
        return [each["itemIdentifier"] for each in answer["batchItemFailures"]]

    def drain(self, records: list[dict[str, Any]], batch: Callable[[], int]) -> int:
        """Do as an event source mapping that bisects and takes word of parts; return the invocations."""
        tries = 0
        while records:
            some = records[: batch()]
            while True:
                tries += 1
                assert tries < 2_000, "a record holds up its shard"
                try:
                    again = self.invoke(some)
                except (BotoCoreError, ClientError, LedgerBusy):
                    some = some[: max(1, len(some) // 2)]
                    continue
                break
            done = [sequence_of(each) for each in some]
            # Everything from the first that failed comes again.
            records = records[min([done.index(each) for each in again], default=len(done)) :]
        return tries

    def letters(self) -> list[dict[str, Any]]:
        client, texts = boto3.client("sqs"), []
        while found := client.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in found:
                texts.append(message["Body"])
                client.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return join(texts)


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    monkeypatch.setenv("ENVIRONMENT", "test")
    for name, table in zip(("MONITORING", "DECISIONS", "LEDGER"), TABLES, strict=True):
        monkeypatch.setenv(f"{name}_TABLE_NAME", table)
    ingest._ingest.cache_clear()
    with mock_aws():
        made = Plane(boto3.client("sqs").create_queue(QueueName="dead")["QueueUrl"])
        monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", made.queue)
        monkeypatch.setattr(schema, "client", lambda: made.tables)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield made
    ingest._ingest.cache_clear()


def records_of(batches: Sequence[list[LogEvent]]) -> list[dict[str, Any]]:
    return [record(number, packed(payload(batch))) for number, batch in enumerate(batches)]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_fails_the_ledger_equals_the_recount(plane: Plane, seed: int, full_size: bool) -> None:
    world = World(100 + seed, streams=12 if full_size else 5, invocations=8 if full_size else 3)
    faults = plane.tables.fault = Faults(seed, rate=0.1)
    rng = random.Random(seed)

    plane.drain(records_of(world.deliveries()), lambda: rng.choice((1, 2, 5, 30)))

    faults.rate = 0
    check(plane.tables, recount(world.events))
    assert plane.letters() == []


def test_the_records_of_a_log_stream_are_one_pass(plane: Plane) -> None:
    world = World(7, streams=2, invocations=4)
    batches = [[each] for each in world.events]
    whole, alone = FakeDynamoDB(), FakeDynamoDB()
    for tables, size in ((whole, len(batches)), (alone, 1)):
        ingest._ingest.cache_clear()
        plane.tables = tables
        plane.drain(records_of(batches), lambda size=size: size)  # type: ignore[misc]
        check(tables, recount(world.events))
    streams = len({each.stream for each in world.events})

    assert whole.calls["TransactWriteItems"] <= streams * (1 + len(world.events) // 50)
    assert whole.calls["TransactWriteItems"] * 5 < alone.calls["TransactWriteItems"]


def test_what_cannot_be_decoded_is_kept_and_done_with(plane: Plane) -> None:
    world = World(8, streams=1, invocations=1)
    control = {"messageType": "CONTROL_MESSAGE", "logEvents": [{"id": "1", "timestamp": 1, "message": "x"}]}
    batch = [record(1, "bm8gZ3ppcA=="), record(2, packed(control)), record(3, packed(payload(world.events)))]

    assert plane.invoke(batch) == []

    check(plane.tables, recount(world.events))
    (letter,) = plane.letters()
    assert letter["awslogs"]["data"] == "bm8gZ3ppcA=="
    assert "decoded" in letter["reason"]


def test_a_line_that_is_refused_is_kept_with_its_frame(plane: Plane) -> None:
    world = World(9, streams=1, invocations=1)
    torn = world.events[0]._replace(id="torn", message='{"agentops.event": {"v": 1')

    assert plane.invoke(records_of([world.events, [torn]])) == []

    (letter,) = plane.letters()
    assert letter["logStream"] == torn.stream
    assert [each["message"] for each in letter["logEvents"]] == [torn.message]
    check(plane.tables, recount(world.events))


def test_a_record_that_nobody_foresaw_does_not_hold_up_its_shard(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(10, streams=1, invocations=2)
    poison = world.events[0]._replace(id="poison", message='{"agentops.event": "poison"}')
    stock = parse.read_payload

    def read(body: Any, region: str) -> Any:
        if any(each["id"] == "poison" for each in body["logEvents"]):
            raise RecursionError("as deep as can be")
        return stock(body, region)

    monkeypatch.setattr(ingest, "read_payload", read)
    half = len(world.events) // 2
    batch = records_of([world.events[:half], [poison], world.events[half:]])

    assert plane.invoke(batch) == []

    check(plane.tables, recount(world.events))
    (letter,) = plane.letters()
    assert letter == {
        "awslogs": {"data": packed(payload([poison]))}, "reason": "RecursionError: as deep as can be",
    }  # fmt: skip


def test_only_the_log_streams_that_failed_come_again(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(11, streams=2, invocations=1)
    first, second = sorted({each.stream for each in world.events})
    parts = [[each for each in world.events if each.stream == stream] for stream in (first, second)]
    records = records_of([parts[0][:1], parts[1], parts[0][1:]])
    stock = LedgerWriter.write
    busy = [True]

    def write(self: LedgerWriter, batch: Any, **options: Any) -> Any:
        if batch.stream == second and busy[0]:
            raise LedgerBusy("the table is busy")
        return stock(self, batch, **options)

    monkeypatch.setattr(LedgerWriter, "write", write)

    assert plane.invoke(records) == [sequence_of(records[1])]
    check(plane.tables, recount(parts[0]))
    busy[0] = False
    # Lambda goes back to the first that failed, and so delivers what is in already.
    assert plane.invoke(records[1:]) == []
    check(plane.tables, recount(world.events))


@pytest.mark.parametrize("code", ["AccessDeniedException", "ResourceNotFoundException"])
def test_when_nothing_can_be_taken_the_invocation_fails(plane: Plane, code: str) -> None:
    def deny(operation: str, when: str) -> None:
        raise client_error(code, operation)

    plane.tables.fault = deny
    with pytest.raises(Exception, match=code):
        plane.invoke(records_of([World(12, streams=1).events]))
    assert plane.letters() == [], "an outage is no reason to give up on data"


def test_without_a_queue_nothing_is_dropped(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(13, streams=1, invocations=1)
    monkeypatch.delenv("DEAD_LETTER_QUEUE_URL")
    bad = record(1, "bm8gZ3ppcA==")

    assert plane.invoke([bad, record(2, packed(payload(world.events)))]) == [sequence_of(bad)]
    with pytest.raises(RuntimeError, match="DEAD_LETTER_QUEUE_URL"):
        plane.invoke([bad])


def test_records_of_another_source_are_refused(plane: Plane) -> None:
    with pytest.raises(ValueError, match="subscriptions only"):
        plane.invoke([{"eventSource": "aws:sqs", "body": "{}"}])


def test_two_opinions_of_aws_agree(dynamodb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(14, streams=2, invocations=2)
    monkeypatch.setenv("ENVIRONMENT", "test")
    for name, table in zip(("MONITORING", "DECISIONS", "LEDGER"), TABLES, strict=True):
        monkeypatch.setenv(f"{name}_TABLE_NAME", table)
    ingest._ingest.cache_clear()
    records = records_of(world.deliveries())

    for batch in (records, records[::-1]):
        assert ingest.handler({"Records": batch}, Context()) == {"batchItemFailures": []}

    check(dynamodb, recount(world.events))
    ingest._ingest.cache_clear()
