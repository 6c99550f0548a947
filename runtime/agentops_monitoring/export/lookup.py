"""What an event's item leaves out: a decision's reasoning chain, and data too large for one item."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.export.backend import DeliveryError
from agentops_monitoring.export.stream import Item, text_of
from agentops_monitoring.ledger.parts import PartStore
from agentops_monitoring.ledger.schema import Tables

Key: TypeAlias = tuple[str, str]

MAX_KEYS = 100
"""Of one BatchGetItem."""
_ATTEMPTS = 5
_DATA = ("data", "data_z", "data_parts")


class Lookup:
    """Completes items from the other two tables.

    Parameters
    ----------
    client
        Makes a DynamoDB client; called when the first item needs one.
    tables
        The names of the tables.
    """

    def __init__(self, client: Callable[[], Any], tables: Tables) -> None:
        self._make = client
        self._client: Any = None
        self._tables = tables

    def complete(self, items: Sequence[Item]) -> list[Item]:
        """Return the items, each with all of its data in itself.

        Raises
        ------
        DeliveryError
            A table cannot be read for now.
        """
        wanted = [item for item in items if text_of(item, "type") == AgentEventType.DECISION_MADE]
        if not wanted and not any("data_parts" in item for item in items):
            return list(items)
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if self._client is None:
                self._client = self._make()
            decisions = self._decisions([_key(item) for item in wanted])
            return [self._whole(item, decisions.get(_key(item))) for item in items]
        except (BotoCoreError, ClientError) as error:
            raise DeliveryError(f"the ledger cannot be read: {error}") from error

    def _whole(self, item: Item, decision: Item | None) -> Item:
        owner = _key(item)[1].partition("#")[2]
        if decision is not None:
            owner += "#decision"
            rest = {name: value for name, value in item.items() if name not in _DATA}
            item = {**rest, **{name: decision[name] for name in _DATA if name in decision}}
        if "data_parts" not in item:
            return item
        pieces = PartStore(self._client, self._tables.ledger).pieces(owner)
        # Without all of them the item stays as it is, and is told as one that cannot be read.
        whole = len(pieces) == int(item["data_parts"]["N"])
        return {**item, "data_z": {"B": b"".join(pieces)}} if whole else item

    def _decisions(self, keys: Sequence[Key]) -> dict[Key, Item]:
        found: dict[Key, Item] = {}
        unique = list(dict.fromkeys(keys))
        for start in range(0, len(unique), MAX_KEYS):
            for item in self._get(unique[start : start + MAX_KEYS]):
                found[_key(item)] = item
        return found

    def _get(self, keys: Iterable[Key]) -> list[Item]:
        request: Any = {
            self._tables.decisions: {
                "Keys": [{"pk": {"S": pk}, "sk": {"S": sk}} for pk, sk in keys],
                "ConsistentRead": True,
            }
        }
        items: list[Item] = []
        for attempt in range(_ATTEMPTS):
            # More than 16 MB, or too much at once, comes back as keys to ask for again.
            time.sleep(0.1 * (2**attempt - 1))
            answer = self._client.batch_get_item(RequestItems=request)
            items.extend(answer["Responses"].get(self._tables.decisions, ()))
            request = answer.get("UnprocessedKeys")
            if not request:
                return items
        raise DeliveryError(f"{self._tables.decisions} left keys unread {_ATTEMPTS} times")


def _key(item: Item) -> Key:
    return text_of(item, "pk") or "", text_of(item, "sk") or ""
