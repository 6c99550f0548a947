"""DynamoDB, what MiniStack lacks: strict expressions, batches of 16 MB, expiry that the stream tells of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from itertools import combinations
from typing import Any

from ministack.core.responses import json_response, request_scope
from ministack.services import dynamodb

from local.aws import clock
from local.aws.around import Function, around

BATCH_BYTES = 16_777_216  # BatchGetItem, API reference
# Record, API reference of the streams: who deletes what has expired.
EXPIRED_BY = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
# What the grammar of conditions has no use for (Condition and filter expressions, developer guide).
_FOREIGN = re.compile(r"[^\w\s#:.,()<>=\[\]]")
_expiring: ContextVar[bool] = ContextVar("expiring", default=False)


def _syntax_error(expression: str, slot: str) -> str | None:
    found = _FOREIGN.search(expression)
    return f'Invalid {slot}: Syntax error; token: "{found[0]}"' if found else None


@lru_cache(maxsize=512)
def _update_error(expression: str, names: tuple[tuple[str, str], ...]) -> str | None:
    """Tell of a clause that is there twice, and of two paths of which one is, or holds, the other."""
    clauses: dict[str, list[Any]] = {}
    clause: list[Any] = []
    for kind, text in dynamodb._tokenize(expression):
        if kind == "IDENT" and (word := text.upper()) in ("SET", "REMOVE", "ADD", "DELETE"):
            if word in clauses:
                return f'The "{word}" section can only be used once in an update expression;'
            clause = clauses[word] = []
        else:
            clause.append((kind, text))
    actions = (action for clause in clauses.values() for action in dynamodb._split_by_comma(clause))
    paths = [dynamodb._parse_path_from_tokens(action, dict(names)) for action in actions]
    for one, two in combinations(paths, 2):
        if one[: len(two)] == two[: len(one)]:
            shown = ", path two: ".join(f"[{', '.join(map(str, path))}]" for path in (one, two))
            text = "Two document paths overlap with each other; must remove or rewrite one of these paths"
            return f"{text}; path one: {shown}"
    return None


def _first_16_megabytes(request: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Leave to UnprocessedKeys what does not fit into one answer of BatchGetItem."""
    left = BATCH_BYTES
    for name, items in answer["Responses"].items():
        table = dynamodb._tables[dynamodb._normalize_table_name(name)]
        names = [key for key in (table["pk_name"], table["sk_name"]) if key]
        for position, item in enumerate(items):
            left -= dynamodb._item_size_bytes(item)
            if left < 0:
                keys = [{key: item[key] for key in names} for item in items[position:]]
                answer["UnprocessedKeys"][name] = {**request[name], "Keys": keys}
                del items[position:]
                break
    return answer


def _expire() -> None:
    """Remove what the clock has left behind; on AWS that takes up to days."""
    _expiring.set(True)
    for (account, region, name), setting in list(dynamodb._ttl_settings.all_items()):
        table = dynamodb._tables.get_scoped(account, region, name)
        if table is None or setting["TimeToLiveStatus"] != "ENABLED":
            continue
        attribute, now = setting["AttributeName"], clock.now()
        with request_scope(account, region), dynamodb._lock:
            due = [
                (pk, sk, item)
                for pk, row in table["items"].items()
                for sk, item in row.items()
                if float(item.get(attribute, {}).get("N", "inf")) <= now
            ]
            for pk, sk, item in due:
                dynamodb._remove_item(table, pk, sk)
                dynamodb._emit_stream_event(name, "REMOVE", item, None)
    _expiring.set(False)


def install() -> None:
    """Put our checks in front of MiniStack's, and expiry behind the clock."""

    @around(dynamodb, "_condition_syntax_error")
    def condition_error(stock: Function, expression: str, slot: str) -> Any:
        return _syntax_error(expression, slot) or stock(expression, slot)

    @around(dynamodb, "_key_condition_operand_error", invalid="ValidationException")
    def key_condition_error(stock: Function, expression: str, values: Any) -> Any:
        if problem := _syntax_error(expression, "KeyConditionExpression"):
            raise ValueError(problem)
        return stock(expression, values)

    @around(dynamodb, "_validate_expression_attrs", invalid="ValidationException")
    def expression_error(stock: Function, request: Mapping[str, Any], slots: Any, *more: Any) -> Any:
        found = stock(request, slots, *more)
        if not found and "UpdateExpression" in slots:
            names = request.get("ExpressionAttributeNames") or {}
            if problem := _update_error(request.get("UpdateExpression") or "", tuple(names.items())):
                raise ValueError(f"Invalid UpdateExpression: {problem}")
        return found

    @around(dynamodb, "_batch_get_item")
    def batch_get(stock: Function, data: dict[str, Any]) -> Any:
        status, headers, body = stock(data)
        if status != 200 or len(body) < BATCH_BYTES:
            return status, headers, body
        return json_response(_first_16_megabytes(data["RequestItems"], json.loads(body)))

    @around(dynamodb, "_build_change_record")
    def change_record(stock: Function, *arguments: Any) -> dict[str, Any]:
        record: dict[str, Any] = stock(*arguments)
        record["dynamodb"]["ApproximateCreationDateTime"] = int(clock.now())
        return {**record, "userIdentity": EXPIRED_BY} if _expiring.get() else record

    clock.on_move(_expire)
