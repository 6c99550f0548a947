"""As much of DynamoDB as the ledger uses, in memory: fast, strict about limits, and it fails on command."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Iterator
from decimal import Context, Decimal, Inexact, Rounded
from typing import Any

from botocore.exceptions import ClientError

_NUMBERS = Context(prec=38, traps=[Inexact, Rounded])


def client_error(code: str, operation: str, **extra: Any) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}, **extra}, operation)  # type: ignore[typeddict-item]


class FakeDynamoDB:
    """A client. `fault(operation, when)` is called "before" and "after" each call's effect."""

    def __init__(self, fault: Callable[[str, str], None] = lambda operation, when: None) -> None:
        self.tables: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        self.fault = fault
        self.calls: dict[str, int] = {}
        self._tokens: dict[str, int] = {}
        self._keys: dict[tuple[str, str], set[tuple[str, str]]] = {}
        self.unprocessed = 0
        """How many of the next batch requests leave half of their items for later."""
        self._lock = threading.RLock()

    def _call(self, operation: str, effect: Callable[[], Any]) -> Any:
        self.fault(operation, "before")
        with self._lock:
            self.calls[operation] = self.calls.get(operation, 0) + 1
            answer = copy.deepcopy(effect())
        self.fault(operation, "after")
        return answer

    def _table(self, name: str) -> dict[tuple[str, str], dict[str, Any]]:
        return self.tables.setdefault(name, {})

    def _put(self, table: str, item: dict[str, Any]) -> None:
        key = item["pk"]["S"], item["sk"]["S"]
        self._table(table)[key] = copy.deepcopy(item)
        self._keys.setdefault((table, key[0]), set()).add(key)

    def transact_write_items(self, *, TransactItems: list[Any], ClientRequestToken: str) -> Any:
        return self._call("TransactWriteItems", lambda: self._transact(TransactItems, ClientRequestToken))

    def _transact(self, actions: list[Any], token: str) -> Any:
        if token in self._tokens:
            if self._tokens[token] != hash(repr(actions)):
                raise client_error("IdempotentParameterMismatchException", "TransactWriteItems")
            return {}
        places = []
        for action in actions:
            ((_, body),) = action.items()
            key = body.get("Item") or body["Key"]
            places.append((body["TableName"], key["pk"]["S"], key["sk"]["S"]))
        size = sum(_size(next(iter(action.values())).get("Item", {})) for action in actions)
        items = [next(iter(action.values())).get("Item", {}) for action in actions]
        if (
            len(actions) > 100
            or not actions
            or len(set(places)) < len(places)
            or size > 4_000_000
            or any(_size(item) > 400_000 for item in items)
        ):
            raise client_error("ValidationException", "TransactWriteItems")
        reasons = []
        for action, (table, pk, sk) in zip(actions, places, strict=True):
            ((_, body),) = action.items()
            failed = not _holds(body, self._table(table).get((pk, sk)))
            reasons.append({"Code": "ConditionalCheckFailed" if failed else "None"})
        if any(reason["Code"] != "None" for reason in reasons):
            raise client_error(
                "TransactionCanceledException", "TransactWriteItems", CancellationReasons=reasons
            )
        for action, (table, pk, sk) in zip(actions, places, strict=True):
            if "Put" in action:
                self._put(table, action["Put"]["Item"])
            else:
                _update(self._table(table), pk, sk, action["Update"])
                self._keys.setdefault((table, pk), set()).add((pk, sk))
        self._tokens[token] = hash(repr(actions))
        return {}

    def batch_get_item(self, *, RequestItems: Any) -> Any:
        def effect() -> Any:
            ((table, request),) = RequestItems.items()
            keys = [(key["pk"]["S"], key["sk"]["S"]) for key in request["Keys"]]
            if len(keys) > 100 or len(set(keys)) < len(keys):
                raise client_error("ValidationException", "BatchGetItem")
            found = [self._table(table)[key] for key in keys if key in self._table(table)]
            left = request["Keys"][len(keys) // 2 :] if self._leaves_some() else []
            late = {(key["pk"]["S"], key["sk"]["S"]) for key in left}
            found = [item for item in found if (item["pk"]["S"], item["sk"]["S"]) not in late]
            return {
                "Responses": {table: found},
                "UnprocessedKeys": {table: {"Keys": left}} if left else {},
            }

        return self._call("BatchGetItem", effect)

    def batch_write_item(self, *, RequestItems: Any) -> Any:
        def effect() -> Any:
            ((table, requests),) = RequestItems.items()
            if len(requests) > 25:
                raise client_error("ValidationException", "BatchWriteItem")
            left = requests[len(requests) // 2 :] if self._leaves_some() else []
            for request in requests[: len(requests) - len(left)]:
                if "DeleteRequest" in request:
                    key = request["DeleteRequest"]["Key"]
                    self._table(table).pop((key["pk"]["S"], key["sk"]["S"]), None)
                else:
                    self._put(table, request["PutRequest"]["Item"])
            return {"UnprocessedItems": {table: left} if left else {}}

        return self._call("BatchWriteItem", effect)

    def _leaves_some(self) -> bool:
        self.unprocessed -= 1
        return self.unprocessed >= 0

    def put_item(self, *, TableName: str, **body: Any) -> Any:
        item = body["Item"]
        return self._one(TableName, item, "PutItem", body, lambda: self._put(TableName, item))

    def update_item(self, *, TableName: str, **body: Any) -> Any:
        key = body["Key"]
        pk, sk = key["pk"]["S"], key["sk"]["S"]

        def effect() -> None:
            _update(self._table(TableName), pk, sk, body)
            self._keys.setdefault((TableName, pk), set()).add((pk, sk))

        return self._one(TableName, key, "UpdateItem", body, effect)

    def delete_item(self, *, TableName: str, Key: Any) -> Any:
        key = (Key["pk"]["S"], Key["sk"]["S"])
        return self._call("DeleteItem", lambda: self._table(TableName).pop(key, None) and {})

    def _one(self, table: str, key: Any, operation: str, body: Any, effect: Callable[[], None]) -> Any:
        def checked() -> Any:
            if not _holds(body, self._table(table).get((key["pk"]["S"], key["sk"]["S"]))):
                raise client_error("ConditionalCheckFailedException", operation)
            effect()
            return {}

        return self._call(operation, checked)

    def get_item(self, *, TableName: str, Key: Any, **_: Any) -> Any:
        item = self._table(TableName).get((Key["pk"]["S"], Key["sk"]["S"]))
        return {} if item is None else {"Item": copy.deepcopy(item)}

    def query(
        self,
        *,
        TableName: str,
        ExpressionAttributeValues: Any,
        IndexName: str = "",
        ScanIndexForward: bool = True,
        Limit: int | None = None,
        **_: Any,
    ) -> Any:
        def effect() -> Any:
            pk = ExpressionAttributeValues[":pk"]["S"]
            first = ExpressionAttributeValues.get(":start", {"S": ""})["S"]
            last = ExpressionAttributeValues.get(":end", {"S": "~"})["S"]
            table = self._table(TableName)
            keys = (
                table if IndexName else [key for key in self._keys.get((TableName, pk), ()) if key in table]
            )
            rows = [
                (table[key][f"{IndexName}sk"]["S"], key, table[key])
                for key in keys
                if table[key].get(f"{IndexName}pk") == {"S": pk}
                and first <= table[key][f"{IndexName}sk"]["S"] <= last
            ]
            rows.sort(key=lambda row: row[:2], reverse=not ScanIndexForward)
            return {"Items": [item for _, _, item in rows[:Limit]]}

        return self._call("Query", effect)

    def scan(self, *, TableName: str, **_: Any) -> Any:
        return {"Items": [item for _, item in sorted(self._table(TableName).items())]}

    def get_paginator(self, name: str) -> Any:
        operation = getattr(self, name)

        class Paginator:
            def paginate(self, **arguments: Any) -> Iterator[Any]:
                yield operation(**arguments)

        return Paginator()


def _size(item: dict[str, Any]) -> int:
    total = 0
    for name, value in item.items():
        content = next(iter(value.values()))
        if isinstance(content, str):
            content = content.encode()
        total += len(name) + (1 if isinstance(content, bool) else len(content))
    return total


def _holds(body: dict[str, Any], item: dict[str, Any] | None) -> bool:
    condition = body.get("ConditionExpression")
    if condition is None:
        return True
    if condition == "attribute_not_exists(pk)":
        return item is None
    if condition == "attribute_exists(pk)":
        return item is not None
    values = body["ExpressionAttributeValues"]
    if condition == "attribute_not_exists(pk) OR seen <= :seen":
        return item is None or int(item["seen"]["N"]) <= int(values[":seen"]["N"])
    if condition == "attribute_not_exists(n) OR n < :count":
        return item is None or int(item["n"]["N"]) < int(values[":count"]["N"])
    equal = re.fullmatch(r"(attribute_not_exists\(pk\) OR )?(#?\w+) = (:\w+)", condition)
    assert equal, condition
    name = body.get("ExpressionAttributeNames", {}).get(equal[2], equal[2])
    return bool(equal[1]) if item is None else item.get(name) == values[equal[3]]


def _update(rows: dict[tuple[str, str], dict[str, Any]], pk: str, sk: str, body: dict[str, Any]) -> None:
    item = rows.setdefault((pk, sk), {"pk": {"S": pk}, "sk": {"S": sk}})
    found = re.fullmatch(r"(?:SET (.+?))?(?: ?ADD (.+))?", body["UpdateExpression"])
    assert found, body["UpdateExpression"]
    values, names = body["ExpressionAttributeValues"], body.get("ExpressionAttributeNames", {})
    for name, first, value in re.findall(r"(#?\w+) = (if_not_exists\(#?\w+, )?(:\w+)", found[1] or ""):
        name = names.get(name, name)
        item[name] = item.get(name, values[value]) if first else values[value]
    for pair in found[2].split(", ") if found[2] else ():
        name, value = pair.split(" ")
        name = names.get(name, name)
        before = Decimal(item.get(name, {"N": "0"})["N"])
        item[name] = {"N": format(_NUMBERS.add(before, Decimal(values[value]["N"])), "f")}
