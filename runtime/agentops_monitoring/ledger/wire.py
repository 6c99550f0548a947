"""Transactions as the text that DynamoDB takes, without a detour.

What the ledger writes is in DynamoDB's own JSON from the start. botocore would look up each value's type in
its model of the service, and search all of them for ARNs of tables, to arrive at the same text: half of the
time that a transaction takes.
"""

from __future__ import annotations

import base64
import json
from typing import Any

_BODY = "agentops.body"
_OPERATION = "dynamodb.TransactWriteItems"


def take_over(client: Any) -> None:
    """Have a client send transactions as they were given; its checks of parameters have to be off.

    The events are public: https://docs.aws.amazon.com/boto3/latest/guide/events.html
    """
    client.meta.events.register(f"provide-client-params.{_OPERATION}", _keep)
    client.meta.events.register(f"before-call.{_OPERATION}", _put_in)


def _keep(params: dict[str, Any], context: dict[str, Any], **_: Any) -> dict[str, Any]:
    context[_BODY] = _ENCODER.encode(params).encode()
    return {}


def _put_in(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    params["body"] = context.pop(_BODY)


def _binary(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is nothing that DynamoDB takes")


# Lone surrogates, which no UTF-8 can say, stay escaped.
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_binary, check_circular=False)
