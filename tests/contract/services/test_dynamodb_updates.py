"""DynamoDB: what the budgets of agents rely on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.cloud import Cloud

from .test_dynamodb import fresh, get, key

pytestmark = pytest.mark.xdist_group("embedded_aws")


def update(service: Cloud, table: str, pk: str, expression: str, **more: Any) -> None:
    service.client("dynamodb").update_item(TableName=table, Key=key(pk), UpdateExpression=expression, **more)


def test_an_update_reckons_with_what_is_not_there_yet(service: Cloud, table: str) -> None:
    pk = fresh()
    for left in ("0.75", "0.5"):
        values = {":limit": {"N": "1"}, ":w": {"N": "0.25"}}
        update(service, table, pk, "SET a = if_not_exists(a, :limit) - :w", ExpressionAttributeValues=values)
        assert float(get(service, table, pk)["a"]["N"]) == float(left)


def test_an_update_whose_condition_fails_returns_the_item(service: Cloud, table: str) -> None:
    pk, client = fresh(), service.client("dynamodb")
    condition: dict[str, Any] = {
        "ConditionExpression": "a >= :w",
        "ExpressionAttributeValues": {":w": {"N": "2"}},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    with pytest.raises(client.exceptions.ConditionalCheckFailedException) as refused:
        update(service, table, pk, "SET a = :w", **condition)
    assert not refused.value.response.get("Item")
    item = {**key(pk), "a": {"N": "1"}, "r.1": {"S": "held"}}
    client.put_item(TableName=table, Item=item)
    with pytest.raises(client.exceptions.ConditionalCheckFailedException) as refused:
        update(service, table, pk, "SET a = :w", **condition)
    assert refused.value.response["Item"] == item


def test_an_update_sets_from_the_item_as_it_was(service: Cloud, table: str) -> None:
    pk = fresh()
    names = {"#r": "r.1", "#x": "x.1"}
    update(
        service, table, pk, "SET #r = :v", ExpressionAttributeNames={"#r": "r.1"},
        ExpressionAttributeValues={":v": {"S": "held"}},
    )  # fmt: skip
    update(service, table, pk, "SET #x = #r REMOVE #r", ExpressionAttributeNames=names)
    assert get(service, table, pk) == {**key(pk), "x.1": {"S": "held"}}
