"""DynamoDB: batches, pages, indexes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from tests.contract.cloud import Cloud
from tests.contract.services.probes import refused

pytestmark = pytest.mark.xdist_group("embedded_aws")


def item(pk: str, sk: str, **values: Any) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}, **values}


def fresh() -> str:
    return f"k#{uuid.uuid4().hex}"


def write(service: Cloud, table: str, items: Sequence[dict[str, Any]]) -> None:
    """Put items, 25 a request, and what is left over again."""
    for start in range(0, len(items), 25):
        request: Any = {table: [{"PutRequest": {"Item": each}} for each in items[start : start + 25]]}
        while request:
            request = service.client("dynamodb").batch_write_item(RequestItems=request)["UnprocessedItems"]


def test_a_batch_reads_100_keys_each_once(service: Cloud, table: str) -> None:
    pk, read = fresh(), service.client("dynamodb").batch_get_item
    write(service, table, [item(pk, f"{number:03d}") for number in range(100)])
    keys = [item(pk, f"{number:03d}") for number in range(101)]
    refused(read, "ValidationException", RequestItems={table: {"Keys": keys}})
    refused(read, "ValidationException", RequestItems={table: {"Keys": [keys[0], keys[0]]}})
    answer = read(RequestItems={table: {"Keys": keys[:100], "ConsistentRead": True}})
    assert sorted(each["sk"]["S"] for each in answer["Responses"][table]) == [
        each["sk"]["S"] for each in keys[:100]
    ]
    assert answer["UnprocessedKeys"] == {}


def test_keys_that_are_not_there_are_left_out(service: Cloud, table: str) -> None:
    pk = fresh()
    write(service, table, [item(pk, "1")])
    request = {table: {"Keys": [item(pk, "1"), item(pk, "2")], "ConsistentRead": True}}
    answer = service.client("dynamodb").batch_get_item(RequestItems=request)
    assert answer["Responses"] == {table: [item(pk, "1")]}


def test_a_batch_reads_16_megabytes_and_names_the_rest(service: Cloud, table: str) -> None:
    pk = fresh()
    names = [f"{number:02d}" for number in range(44)]
    for start in range(0, len(names), 11):  # a request of a batch is 16 MB at most as well
        write(
            service, table, [item(pk, name, data={"B": b"x" * 395_000}) for name in names[start : start + 11]]
        )
    request: Any = {table: {"Keys": [item(pk, name) for name in names]}}
    found, requests = [], 0
    while request:
        answer = service.client("dynamodb").batch_get_item(RequestItems=request)
        found += [each["sk"]["S"] for each in answer["Responses"][table]]
        request, requests = answer["UnprocessedKeys"], requests + 1
    assert sorted(found) == names
    assert requests > 1


def test_a_batch_writes_25_items_each_once(service: Cloud, table: str) -> None:
    pk, put = fresh(), service.client("dynamodb").batch_write_item
    requests = [{"PutRequest": {"Item": item(pk, f"{number:02d}")}} for number in range(26)]
    refused(put, "ValidationException", RequestItems={table: requests})
    refused(put, "ValidationException", RequestItems={table: [requests[0], requests[0]]})
    assert put(RequestItems={table: requests[:25]})["UnprocessedItems"] == {}


def test_a_query_reads_pages_of_a_megabyte_in_order(service: Cloud, table: str) -> None:
    pk, names = fresh(), [f"{number:02d}" for number in range(12)]
    write(service, table, [item(pk, name, data={"S": "x" * 200_000}) for name in reversed(names)])
    asked: dict[str, Any] = {
        "TableName": table,
        "KeyConditionExpression": "pk = :pk",
        "ExpressionAttributeValues": {":pk": {"S": pk}},
        "ConsistentRead": True,
    }
    pages: list[list[str]] = []
    start: dict[str, Any] = {}
    while True:
        answer = service.client("dynamodb").query(**asked, **start)
        pages.append([each["sk"]["S"] for each in answer["Items"]])
        if "LastEvaluatedKey" not in answer:
            break
        assert answer["LastEvaluatedKey"] == item(pk, pages[-1][-1])
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
    assert [name for page in pages for name in page] == names
    assert len(pages) == 3  # 2.4 MB
    assert all(len(page) * 200_000 <= 1_300_000 for page in pages)


def test_a_query_may_end_with_a_key_and_an_empty_page_behind_it(service: Cloud, table: str) -> None:
    pk, client = fresh(), service.client("dynamodb")
    write(service, table, [item(pk, "1"), item(pk, "2")])
    asked: dict[str, Any] = {
        "TableName": table,
        "KeyConditionExpression": "pk = :pk",
        "ExpressionAttributeValues": {":pk": {"S": pk}},
    }
    first = client.query(Limit=2, ConsistentRead=True, **asked)
    assert first["LastEvaluatedKey"] == item(pk, "2")
    rest = client.query(ExclusiveStartKey=first["LastEvaluatedKey"], ConsistentRead=True, **asked)
    assert rest["Items"] == []
    assert "LastEvaluatedKey" not in rest


def test_sort_keys_are_in_the_order_of_their_bytes(service: Cloud, table: str) -> None:
    pk = fresh()
    names = ["~", "é", "a", "Z", "1", "10", "2", "\U0001f600", "\uffee"]
    write(service, table, [item(pk, name) for name in names])
    asked: dict[str, Any] = {
        "TableName": table,
        "KeyConditionExpression": "pk = :pk",
        "ExpressionAttributeValues": {":pk": {"S": pk}},
        "ConsistentRead": True,
    }
    answer = service.client("dynamodb").query(**asked)
    found = [each["sk"]["S"] for each in answer["Items"]]
    assert found == sorted(names, key=str.encode)
    backwards = service.client("dynamodb").query(ScanIndexForward=False, **asked)
    assert [each["sk"]["S"] for each in backwards["Items"]] == found[::-1]


def test_an_index_is_read_between_bounds_and_never_consistently(service: Cloud, table: str) -> None:
    pk, client = fresh(), service.client("dynamodb")
    for number in range(4):
        index = {"gsi1pk": {"S": pk}, "gsi1sk": {"S": f"2026-11-22T0{number}"}}
        write(service, table, [item(f"{pk}{number}", "1", **index)])
    write(service, table, [item(f"{pk}x", "1")])  # without the index's keys it is not in the index
    asked: dict[str, Any] = {
        "TableName": table,
        "IndexName": "gsi1",
        "KeyConditionExpression": "gsi1pk = :pk AND gsi1sk BETWEEN :start AND :end",
        "ExpressionAttributeValues": {
            ":pk": {"S": pk}, ":start": {"S": "2026-11-22T01"}, ":end": {"S": "2026-11-22T02~"},
        },
    }  # fmt: skip
    refused(client.query, "ValidationException", ConsistentRead=True, **asked)
    found = service.until(lambda: len(items := client.query(**asked)["Items"]) == 2 and items)
    assert [each["pk"]["S"] for each in found] == [f"{pk}1", f"{pk}2"]
