"""The item that holds an agent's budget of a day, changed by single conditional updates.

==============  ====================================================================================
`available`     the limit, less what is spent, less what is reserved
`limit`         the limit that `available` was reckoned with
`r.<id>`        a reservation, "<USD> <until>": the worst case of a call under way, and when it expires
`x.<id>`        a reservation that expired: what it held is available again, and may prove spent later
`released`      the sum of those, bounded by the limit: whatever crashes, no day costs twice the limit
`expires_at`    when the item may go
==============  ====================================================================================

Every update adds or takes away an attribute of its own reservation on the condition that it is still as it
was, so that a request which is repeated, by botocore or by us, has its effect once. A condition has no
arithmetic (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.OperatorsAndFunctions.html),
hence `available` beside the limit instead of a sum of what was spent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

from agentops_monitoring.enforcement.budget import EXACT, partition_key

_ZERO = Decimal(0)
_ROUNDS = 16
_MAX_SWEPT = 40
"""At once: an expression holds 4 kB."""
_MAX_KEPT = 3000
"""Of an item with more attributes what expires is not kept for its late answer: it may have 400 kB."""
_KEPT_S = 7 * 86_400
_DAY_S = 86_400


class Reservation(NamedTuple):
    """What is held of a budget for a call."""

    day: str
    id: str
    usd: Decimal
    until: int
    """When it expires, in seconds since 1970."""

    @property
    def text(self) -> str:
        return f"{self.usd:f} {self.until}"


class Refused(Exception):
    """The budget has too little left; what it has spent and reserved."""

    def __init__(self, spent: Decimal, reserved: Decimal) -> None:
        super().__init__(f"{spent} spent, {reserved} reserved")
        self.spent = spent
        self.reserved = reserved


class BudgetTable:
    """The budget of one agent.

    Parameters
    ----------
    client
        A DynamoDB client; it needs `dynamodb:UpdateItem` on the agent's own keys, and nothing else.
    table
        The ledger's.
    agent, limit
        Whose budget, and what it is a day in USD.
    """

    def __init__(self, client: Any, table: str, agent: str, limit: Decimal) -> None:
        self._client = client
        self._table = table
        self._agent = agent
        self._limit = limit

    def reserve(self, asked: Reservation, now: int, *, owed: Decimal = _ZERO, force: bool = False) -> None:
        """Hold a call's worst case.

        Parameters
        ----------
        asked
            What to hold.
        now
            What has expired by then, in seconds since 1970, is released when there is too little left.
        owed
            What was spent without being reserved, and is booked on the way.
        force
            Hold it even if there is too little left.

        Raises
        ------
        Refused
            There is too little left, or the item kept changing, so that nobody knows.
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
            The table did not take it.
        """
        taken = EXACT.add(asked.usd, owed)
        names = {"#a": "available", "#l": "limit", "#e": "expires_at", "#r": f"r.{asked.id}"}
        values = {
            ":limit": _number(self._limit),
            ":w": _number(taken),
            ":r": {"S": asked.text},
            ":e": {"N": str(asked.until // _DAY_S * _DAY_S + _KEPT_S)},
        }
        fits = "#l = :limit" if force else "#l = :limit AND #a >= :w"
        if force or taken <= self._limit:
            fits = f"(attribute_not_exists(#a) OR ({fits}))"
        item: Mapping[str, Any] = {}
        for _ in range(_ROUNDS):
            try:
                found = self._update(
                    asked.day,
                    "SET #a = if_not_exists(#a, :limit) - :w, #l = if_not_exists(#l, :limit), "
                    "#r = :r, #e = :e",
                    f"attribute_not_exists(#r) AND {fits}",
                    names,
                    values,
                )
            except self._client.exceptions.ClientError as error:
                if "Item size" not in str(error):
                    raise
                found = self._read(asked.day)
            # The first try had its effect where the answer got lost, and botocore asked again.
            if found is None or f"r.{asked.id}" in found:
                return
            item = found
            known = _decimal(item, "limit")
            if known is not None and known != self._limit:
                self._move_limit(asked.day, known)
            elif not self._sweep(asked.day, item, now):
                break
        raise self._refusal(item)

    def settle(self, held: Reservation, cost: Decimal) -> None:
        """Book what a call cost instead of what was held for it; once, however often it is asked for.

        Raises
        ------
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
            The table did not take it.
        """
        back = EXACT.subtract(held.usd, cost)
        found = self._update(
            held.day,
            "SET #a = #a + :back REMOVE #r",
            "#r = :r",
            {"#a": "available", "#r": f"r.{held.id}"},
            {":back": _number(back), ":r": {"S": held.text}},
        )
        if found is not None and f"x.{held.id}" in found:
            # It had expired, and what it held was given back: now it is known what that was.
            self._update(
                held.day,
                "SET #a = #a - :cost, #g = #g - :w REMOVE #x",
                "#x = :x",
                {"#a": "available", "#g": "released", "#x": f"x.{held.id}"},
                {":cost": _number(cost), ":w": _number(held.usd), ":x": {"S": held.text}},
            )

    def _move_limit(self, day: str, known: Decimal) -> None:
        """Apply a limit that was changed by a deployment within the day."""
        self._update(
            day,
            "SET #a = #a + :more, #l = :limit",
            "#l = :known",
            {"#a": "available", "#l": "limit"},
            {
                ":more": _number(EXACT.subtract(self._limit, known)),
                ":limit": _number(self._limit),
                ":known": _number(known),
            },
        )

    def _read(self, day: str) -> Mapping[str, Any]:
        """Return an item that is there, with no right to read: by a condition that does not hold."""
        limit = {":limit": _number(self._limit)}
        return self._update(day, "SET #l = :limit", "attribute_not_exists(#l)", {"#l": "limit"}, limit) or {}

    def _sweep(self, day: str, item: Mapping[str, Any], now: int) -> bool:
        """Give back what callers held that did not live to settle it; returns whether there was any."""
        before = _decimal(item, "released")
        released = before or _ZERO
        total = _ZERO
        dead: list[tuple[str, str]] = []
        for name, text, usd, until in _reservations(item):
            more = EXACT.add(total, usd)
            if until < now and EXACT.add(released, more) <= self._limit and len(dead) < _MAX_SWEPT:
                total = more
                dead.append((name, text))
        if not dead:
            return False
        names = {"#a": "available", "#g": "released"}
        values = {":sum": _number(total), ":g": _number(released)}
        conditions = ["attribute_not_exists(#g)" if before is None else "#g = :g"]
        changes = ["#a = #a + :sum", "#g = if_not_exists(#g, :g) + :sum"]
        removed = []
        for index, (name, text) in enumerate(dead):
            names[f"#r{index}"] = name
            values[f":r{index}"] = {"S": text}
            conditions.append(f"#r{index} = :r{index}")
            if len(item) < _MAX_KEPT:
                names[f"#x{index}"] = f"x{name[1:]}"
                changes.append(f"#x{index} = :r{index}")
            removed.append(f"#r{index}")
        self._update(
            day,
            f"SET {', '.join(changes)} REMOVE {', '.join(removed)}",
            " AND ".join(conditions),
            names,
            values,
        )
        return True

    def _refusal(self, item: Mapping[str, Any]) -> Refused:
        available = _decimal(item, "available")
        if available is None:
            return Refused(_ZERO, _ZERO)
        with localcontext(EXACT):  # the agent's own may round
            reserved = sum((usd for _, _, usd, _ in _reservations(item)), _ZERO)
            return Refused(self._limit - available - reserved, reserved)

    def _update(
        self, day: str, update: str, condition: str, names: Mapping[str, str], values: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Update the item; returns it as it is where the condition does not hold."""
        try:
            self._client.update_item(
                TableName=self._table,
                Key={"pk": {"S": partition_key(self._agent, day)}, "sk": {"S": "STATE"}},
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            found: Mapping[str, Any] = error.response.get("Item") or {}
            return found
        return None


def new_id() -> str:
    """Return what no other reservation is called."""
    return os.urandom(9).hex()


def _number(value: Decimal) -> dict[str, str]:
    return {"N": f"{value:f}"}


def _decimal(item: Mapping[str, Any], name: str) -> Decimal | None:
    found = item.get(name)
    return None if found is None else Decimal(found["N"])


def _reservations(item: Mapping[str, Any]) -> list[tuple[str, str, Decimal, int]]:
    """Return the reservations of an item, the oldest first."""
    found = []
    for name, value in item.items():
        if name.startswith("r."):
            usd, _, until = value["S"].partition(" ")
            found.append((name, value["S"], Decimal(usd), int(until)))
    return sorted(found, key=lambda each: each[3])
