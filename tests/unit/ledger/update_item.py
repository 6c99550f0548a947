"""DynamoDB's UpdateItem in memory: atomic, as strict as the real one, fast enough for races without end.

The grammar is that of https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.html, as
much of it as a budget needs; a test holds it against two emulators.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, Inexact, Rounded
from typing import Any

from botocore.exceptions import ClientError

_NUMBERS = Context(prec=38, traps=[Inexact, Rounded])
_TOKEN = re.compile(r"\s*(<=|>=|<>|[#:]?\w+|[()=<>,+-])")
Item = dict[str, Any]


class ConditionalCheckFailedException(ClientError):
    pass


class MemoryTable:
    """A client of DynamoDB with UpdateItem alone; `fault("before" | "after")` may raise around its effect."""

    class exceptions:
        ClientError = ClientError
        ConditionalCheckFailedException = ConditionalCheckFailedException

    def __init__(self, fault: Callable[[str], None] = lambda when: None) -> None:
        self.items: dict[tuple[str, str], Item] = {}
        self.fault = fault
        self.calls = 0
        self.max_bytes = 400 * 1024
        self._lock = threading.Lock()

    def update_item(
        self,
        *,
        TableName: str,
        Key: Mapping[str, Any],
        UpdateExpression: str,
        ConditionExpression: str,
        ExpressionAttributeNames: Mapping[str, str],
        ExpressionAttributeValues: Mapping[str, Any],
        ReturnValuesOnConditionCheckFailure: str,
    ) -> Any:
        assert TableName
        assert ReturnValuesOnConditionCheckFailure == "ALL_OLD"
        self.fault("before")
        both = f"{UpdateExpression} {ConditionExpression}"
        used = set(re.findall(r"[#:]\w+", both))
        assert used == {*ExpressionAttributeNames, *ExpressionAttributeValues}, "as DynamoDB says"
        assert len(UpdateExpression) <= 4096, "an expression's limit"
        assert len(ConditionExpression) <= 4096, "an expression's limit"
        key = Key["pk"]["S"], Key["sk"]["S"]
        with self._lock:
            self.calls += 1
            item = self.items.get(key, {})
            reader = _Reader(ExpressionAttributeNames, ExpressionAttributeValues, item)
            if not reader.condition(ConditionExpression):
                error = {"Code": "ConditionalCheckFailedException", "Message": ""}
                response: Any = {"Error": error, "Item": dict(item)}
                raise ConditionalCheckFailedException(response, "UpdateItem")
            changed = reader.update(UpdateExpression)
            if sum(len(name) + len(str(value)) - 9 for name, value in changed.items()) > self.max_bytes:
                text = "Item size to update has exceeded the maximum allowed size"
                raise ClientError({"Error": {"Code": "ValidationException", "Message": text}}, "UpdateItem")
            self.items[key] = {"pk": Key["pk"], "sk": Key["sk"], **changed}
        self.fault("after")
        return {}


class _Reader:
    def __init__(self, names: Mapping[str, str], values: Mapping[str, Any], item: Item) -> None:
        self._names, self._values, self._item = names, values, item
        self._tokens: list[str] = []

    def condition(self, text: str) -> bool:
        self._tokens = _TOKEN.findall(text)
        found = self._either()
        assert not self._tokens, f"what is left of a condition: {self._tokens}"
        return found

    def update(self, text: str) -> Item:
        changed = dict(self._item)
        set_part, _, remove_part = text.partition(" REMOVE ")
        self._tokens = _TOKEN.findall(set_part.removeprefix("SET "))
        touched = set()
        while self._tokens:
            name = self._names[self._next()]
            assert self._next() == "="
            changed[name] = self._sum()  # of the item as it was
            touched.add(name)
            assert not self._tokens or self._next() == ","
        for name in filter(None, remove_part.split(", ")):
            assert self._names[name] not in touched, "paths overlap"
            changed.pop(self._names[name], None)
        return changed

    def _next(self) -> str:
        return self._tokens.pop(0)

    def _either(self) -> bool:
        found = self._both()
        while self._tokens[:1] == ["OR"]:
            self._next()
            found = self._both() or found
        return found

    def _both(self) -> bool:
        found = self._comparison()
        while self._tokens[:1] == ["AND"]:
            self._next()
            found = self._comparison() and found
        return found

    def _comparison(self) -> bool:
        if self._tokens[0] == "(":
            self._next()
            found = self._either()
            assert self._next() == ")"
            return found
        if self._tokens[0] == "attribute_not_exists":
            _, _, name, _ = (self._next() for _ in range(4))
            return bool(self._names[name] not in self._item)
        left, operator, right = self._operand(), self._next(), self._operand()
        if left is None or right is None or left.keys() != right.keys():
            return False
        if operator == "=":
            return bool(_plain(left) == _plain(right))
        assert operator == ">="
        return bool(_plain(left) >= _plain(right))

    def _operand(self) -> Item | None:
        token = self._next()
        if token.startswith(":"):
            return self._values[token]  # type: ignore[no-any-return]
        if token == "if_not_exists":
            _, name, _, default, _ = (self._next() for _ in range(5))
            return self._item.get(self._names[name], self._values[default])  # type: ignore[no-any-return]
        return self._item.get(self._names[token])

    def _sum(self) -> Item:
        found = self._operand()
        assert found is not None, "an attribute that is not there"
        if self._tokens[:1] not in (["+"], ["-"]):
            return found
        sign = self._next()
        other = self._operand()
        assert other is not None
        calculate = _NUMBERS.add if sign == "+" else _NUMBERS.subtract
        return {"N": format(calculate(Decimal(found["N"]), Decimal(other["N"])), "f")}


def _plain(value: Item) -> Any:
    ((kind, content),) = value.items()
    return Decimal(content) if kind == "N" else content
