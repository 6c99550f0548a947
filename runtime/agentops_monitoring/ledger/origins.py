"""Which functions an agent's lines come from: what AWS counts by function can be held against the ledger."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.parse import Function

# Lambda guide, "Working with Lambda function logs": YYYY/MM/DD/[version]id in the function's own log group,
# YYYY/MM/DD/name[version]id in one that it was given.
_STREAM = re.compile(r"\d{4}/\d\d/\d\d/(?P<name>[^\[\]/]*)\[[^\[\]]*\]\S+")
_OWN_GROUP = "/aws/lambda/"


def function_name(payload: Mapping[str, Any]) -> str | None:
    """Return the name of the function that wrote a payload's lines; None when nothing says so."""
    found = _STREAM.fullmatch(str(payload.get("logStream") or ""))
    if found is None:
        return None
    group = str(payload.get("logGroup") or "")
    own = group.removeprefix(_OWN_GROUP) if group.startswith(_OWN_GROUP) else ""
    return found["name"] or own or None


class Origins:
    """Notes in the ledger which functions an agent's lines come from, each once in the life of a process.

    Parameters
    ----------
    client
        A DynamoDB client.
    table
        The ledger table.
    """

    def __init__(self, client: Any, table: str, *, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._noted: set[tuple[str, str]] = set()

    def note(self, payload: Mapping[str, Any]) -> None:
        """Note a payload's function, if its subscription names an agent.

        Raises
        ------
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
            The table did not take it; the next payload tries again.
        """
        function, name = Function.of(payload), function_name(payload)
        if function is None or name is None or (function.agent, name) in self._noted:
            return
        expires = str(int(self._clock()) + schema.CHECKS_TTL_S)
        item = {
            "pk": {"S": schema.functions_pk(function.agent)},
            "sk": {"S": name},
            "expires_at": {"N": expires},
        }
        self._client.put_item(TableName=self._table, Item=item)
        self._noted.add((function.agent, name))
