"""Over how many items the ledger's counters are spread: who reads has to look wherever anyone writes.

Processes have settings of their own, so the ledger itself keeps the highest number that anybody writes with:
a reader that looked at fewer items would show too little, and nobody would notice. The default is not kept,
for no reader looks at less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.requests import Requests

KEY = (schema.SHARDS, schema.STATE)
_KEPT_S = 60.0
"""How long what was read is taken for true: a reader may live for long."""


def declare(requests: Requests, table: str, count: int) -> None:
    """Say that counters are written over this many items; before the first of them is.

    Raises
    ------
    LedgerBusy, botocore.exceptions.ClientError
        It could not be said.
    """
    if count <= schema.DEFAULT_SHARDS:
        return
    try:
        requests.send(
            "update_item",
            TableName=table,
            Key={"pk": {"S": KEY[0]}, "sk": {"S": KEY[1]}},
            UpdateExpression="SET n = :count",
            ConditionExpression="attribute_not_exists(n) OR n < :count",
            ExpressionAttributeValues={":count": {"N": str(count)}},
        )
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "ConditionalCheckFailedException":
            raise


class Shards:
    """How many items of each counter a reader looks at.

    Parameters
    ----------
    find
        Reads the item at `KEY`, if there is one.
    given
        The number to take; what the ledger and the environment say when left out.
    """

    def __init__(self, find: Callable[[], Iterable[Mapping[str, Any]]], given: int | None = None) -> None:
        self._find = find
        self._given = given
        self._known = 0
        self._until = 0.0

    def __call__(self) -> int:
        """Return the number."""
        if self._given:
            return self._given
        if not self._known or time.monotonic() >= self._until:
            declared = [int(item["n"]["N"]) for item in self._find()]
            self._known = max(schema.DEFAULT_SHARDS, schema.shards(), *declared)
            self._until = time.monotonic() + _KEPT_S
        return self._known
