"""DynamoDB, what MiniStack lacks: strict conditions, batches of 16 MB, expiry that the stream tells of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from ministack.core.responses import error_response_json, json_response, request_scope
from ministack.services import dynamodb

from local.aws import clock

BATCH_BYTES = 16_777_216  # BatchGetItem, API reference
# Record, API reference of the streams: who deletes what has expired.
EXPIRED_BY = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
# What the grammar of conditions has no use for (Condition and filter expressions, developer guide).
_FOREIGN = re.compile(r"[^\w\s#:.,()<>=\[\]]")
_expiring: ContextVar[bool] = ContextVar("expiring", default=False)


def _syntax_error(expression: str, slot: str) -> str | None:
    found = _FOREIGN.search(expression)
    return f'Invalid {slot}: Syntax error; token: "{found[0]}"' if found else None


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
    stock_condition = dynamodb._condition_syntax_error
    stock_key_condition, stock_batch_get = dynamodb._key_condition_operand_error, dynamodb._batch_get_item
    stock_record = dynamodb._build_change_record

    def condition_error(expression: str, slot: str) -> str | None:
        return _syntax_error(expression, slot) or stock_condition(expression, slot)

    def key_condition_error(expression: str, values: Any) -> Any:
        if problem := _syntax_error(expression, "KeyConditionExpression"):
            return error_response_json("ValidationException", problem, 400)
        return stock_key_condition(expression, values)

    def batch_get(data: dict[str, Any]) -> Any:
        status, headers, body = stock_batch_get(data)
        if status != 200 or len(body) < BATCH_BYTES:
            return status, headers, body
        return json_response(_first_16_megabytes(data["RequestItems"], json.loads(body)))

    def change_record(*arguments: Any) -> dict[str, Any]:
        record: dict[str, Any] = stock_record(*arguments)
        return {**record, "userIdentity": EXPIRED_BY} if _expiring.get() else record

    dynamodb._condition_syntax_error = condition_error
    dynamodb._key_condition_operand_error = key_condition_error
    dynamodb._batch_get_item = batch_get
    dynamodb._build_change_record = change_record
    clock.on_move(_expire)
