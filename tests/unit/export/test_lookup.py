"""Completing items from the ledger's other tables, against moto's DynamoDB."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from agentops_monitoring.export.backend import DeliveryError
from agentops_monitoring.export.lookup import Lookup
from agentops_monitoring.export.parts import Event
from agentops_monitoring.export.spans import MalformedEvent
from agentops_monitoring.export.stream import Item, event_of, inserted
from agentops_monitoring.ledger import events as ledger_events
from agentops_monitoring.ledger.events import Source, read_event
from agentops_monitoring.ledger.items import render
from agentops_monitoring.ledger.parts import PartStore
from agentops_monitoring.ledger.payload import pack
from agentops_monitoring.ledger.schema import Tables
from tests.unit.export.factory import AT, CHAIN, INVOCATION, TRACE, image, item, record, span_id

TABLES = Tables("agent-monitoring", "agent-decisions", "agent-ledger")


@pytest.fixture
def dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("dynamodb")
        for table in TABLES:
            client.create_table(
                TableName=table,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
                KeySchema=[
                    {"AttributeName": "pk", "KeyType": "HASH"},
                    {"AttributeName": "sk", "KeyType": "RANGE"},
                ],
            )
        yield client


def shown(number: int, data: dict[str, Any] | None = None, type_: str = "decision_made") -> Item:
    """The item as it comes out of the stream."""
    return next(
        inserted([record(item(type_, number, data or {"decision_type": "remediation"}), number)])
    ).item


def store(client: Any, number: int, data: dict[str, Any]) -> None:
    full, pieces = pack(json.dumps(data))
    key = image({name: item("decision_made", number)[name] for name in ("pk", "sk")})
    client.put_item(TableName=TABLES.decisions, Item={**key, "agent": {"S": "manager"}, **full})
    store_pieces(client, f"nonce-{number}#decision", pieces)


def store_pieces(client: Any, owner: str, pieces: list[bytes]) -> None:
    PartStore(client, TABLES.ledger).put_pieces((owner, piece) for piece in pieces)


def large() -> dict[str, Any]:
    """Random text, for what compresses well needs no pieces."""
    return {"decision_type": "remediation", "reasoning_chain": [{"thought": secrets.token_hex(2_000_000)}]}


def test_decision_gets_its_whole_chain(dynamodb: Any) -> None:
    for number in range(150):
        store(dynamodb, number, {"decision_type": "remediation", "reasoning_chain": CHAIN, "inputs": number})
    items = [shown(number) for number in range(150)]
    whole = Lookup(lambda: dynamodb, TABLES).complete(items)
    events = [event_of(each, "test") for each in whole]
    assert [event.data["inputs"] for event in events] == list(range(150))
    assert all(event.data["reasoning_chain"] == CHAIN for event in events)
    assert [event.id for event in events] == [f"nonce-{number}" for number in range(150)]


def test_chain_of_any_size_comes_back(dynamodb: Any) -> None:
    data = large()
    store(dynamodb, 1, data)
    whole = Lookup(lambda: dynamodb, TABLES).complete([shown(1)])
    assert event_of(whole[0], "test").data == data


def test_event_of_any_size_comes_back(dynamodb: Any) -> None:
    data = large()
    packed, pieces = pack(json.dumps(data))
    rest = {name: value for name, value in shown(1, {}, "code_generated").items() if name != "data"}
    store_pieces(dynamodb, "nonce-1", pieces)
    assert len(pieces) > 1
    whole = Lookup(lambda: dynamodb, TABLES).complete([{**rest, **packed}])
    assert event_of(whole[0], "test").data == data


def test_missing_piece_is_told_not_waited_for(dynamodb: Any) -> None:
    packed, pieces = pack(json.dumps(large()))
    rest = {name: value for name, value in shown(1, {}, "code_generated").items() if name != "data"}
    store_pieces(dynamodb, "nonce-1", pieces[1:])
    whole = Lookup(lambda: dynamodb, TABLES).complete([{**rest, **packed}])
    with pytest.raises(MalformedEvent):
        event_of(whole[0], "test")


def test_forgotten_decision_goes_with_what_is_known(dynamodb: Any) -> None:
    whole = Lookup(lambda: dynamodb, TABLES).complete([shown(1)])
    assert event_of(whole[0], "test").data == {"decision_type": "remediation"}


@pytest.mark.parametrize("size", [1, 20_000, 2_000_000])
def test_what_the_ledger_writes_comes_back_whole(dynamodb: Any, size: int) -> None:
    """Its own rendering of a line, through the stream and back."""
    data = {"decision_type": "remediation", "reasoning_chain": [{"thought": secrets.token_hex(size)}]}
    line = {
        "agentops.event": {
            "v": 1, "id": "nonce-1", "type": "decision_made", "agent": "manager", "at": AT, "seq": 4,
            "workflow_id": "order 7", "trace_id": TRACE, "span_id": span_id(1), "parent_id": INVOCATION,
            "request_id": "r-1", "data": data,
        }
    }  # fmt: skip
    event = read_event(line, Source("log-1", 0, json.dumps(line)))
    assert isinstance(event, ledger_events.Event)
    written = render(event, TABLES, 0.0)
    PartStore(dynamodb, TABLES.ledger).put_pieces(written.pieces)
    dynamodb.transact_write_items(TransactItems=written.actions)
    stored = dynamodb.scan(TableName=TABLES.monitoring)["Items"]
    whole = Lookup(lambda: dynamodb, TABLES).complete(stored)
    assert event_of(whole[0], "test") == Event(
        id="nonce-1", type="decision_made", agent="manager", environment="test", at=AT, workflow_id="order 7",
        trace_id=TRACE, span_id=span_id(1), parent_id=INVOCATION, request_id="r-1", data=data,
    )  # fmt: skip


def test_events_that_are_whole_cost_no_request() -> None:
    def never() -> Any:
        raise AssertionError("a client was made")

    items = [shown(1, {"severity": "high"}, "issue_detected")]
    assert Lookup(never, TABLES).complete(items) == items


def test_compressed_data_comes_through_the_stream_as_base64() -> None:
    data = {"log": "error " * 20_000}
    packed, _ = pack(json.dumps(data))
    assert "data_z" in packed
    content = {**item("issue_detected", 1), "data_z": packed["data_z"]["B"]}
    del content["data"]
    found = next(inserted(json.loads(json.dumps([record(content, 1)]))))
    assert event_of(found.item, "test").data == data


def test_unreadable_table_is_a_failure_to_repeat(dynamodb: Any) -> None:
    dynamodb.delete_table(TableName=TABLES.decisions)
    with pytest.raises(DeliveryError):
        Lookup(lambda: dynamodb, TABLES).complete([shown(1)])


def test_keys_left_unread_are_asked_for_again() -> None:
    class Busy:
        calls = 0

        def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:
            self.calls += 1
            keys = RequestItems[TABLES.decisions]["Keys"]
            rest = {TABLES.decisions: {"Keys": keys[1:]}} if len(keys) > 1 else {}
            data = {"data": {"S": json.dumps({"inputs": self.calls})}}
            return {"Responses": {TABLES.decisions: [{**keys[0], **data}]}, "UnprocessedKeys": rest}

    client = Busy()
    whole = Lookup(lambda: client, TABLES).complete([shown(1), shown(2)])
    assert client.calls == 2
    assert [event_of(each, "test").data["inputs"] for each in whole] == [1, 2]
