"""Alerts: each is told once in its period, and told for sure.

    mark      `ALERT#<period>` / `<budget>#<threshold>`: who puts it tells; it stays
    outbox    `ALERT#PENDING` / `<period>#<budget>#<threshold>`: from the mark on until the alert is sent

Both are put in one transaction, so of all who see a threshold crossed one tells. Should he end before it is
sent, the entry of the outbox outlives him: once its lease is over another sends the alert, with the same key.
So an alert is never lost, and comes twice only when somebody ended between sending and noting so, or took
longer than the lease.

States of a mark: `pending`, `sent`; `passed`, as a higher threshold was told at once; `alarm`, for a
CloudWatch alarm tells of it, and `alarmed` when it has seen the amount that it does so for.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.budgets import Case
from agentops_monitoring.ledger.requests import LedgerBusy, Requests

LEASE_S = 120
"""How long who claimed an alert has for sending it; longer than any function that does so may run."""
_CONFLICTS = 5
"""How often a claim is tried that others are in the way of."""
_BUSY = frozenset(("ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"))
"""Why a transaction is canceled that may succeed when it is tried again."""


class Alert(NamedTuple):
    """What is told."""

    period: str
    """`D#2026-11-22`, `M#2026-11`, or `WS#<workflow>`."""
    budget: str
    """The budget's id in its period."""
    threshold: str
    """A percentage, or `forecast`."""
    scope: str
    """`total`, `agent` or `workflow`."""
    name: str
    """The agent or the workflow."""
    kind: str
    """`day`, `month` or `life`."""
    usd: str
    """The budget's amount."""
    spent: str
    """USD spent when it was claimed."""
    at: str
    """When that was."""
    forecast: dict[str, Any] | None = None

    @classmethod
    def of(
        cls, case: Case, threshold: str, spent: Decimal, at: datetime, forecast: dict[str, Any] | None = None
    ) -> Alert:
        """Return the alert of a budget's threshold."""
        usd = format(case.budget.usd, "f")
        moment = at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return cls(
            case.period, case.id, threshold, case.scope, case.name, case.budget.period, usd,
            format(spent, "f"), moment, forecast,
        )  # fmt: skip

    @property
    def key(self) -> str:
        """What it is known by: the same whenever, and by whomever, it is sent."""
        return f"{self.period}#{self.budget}#{self.threshold}"


class Outbox:
    """Claims alerts and sends them.

    Parameters
    ----------
    requests
        Of DynamoDB.
    table
        The ledger's name.
    send
        Sends an alert; whatever it raises, the alert stays in the outbox.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self, requests: Requests, table: str, send: Callable[[Alert], None], clock: Callable[[], float]
    ) -> None:
        self._requests = requests
        self._table = table
        self._send = send
        self._clock = clock

    def claim(self, alert: Alert, lower: Iterable[str] = (), *, over_alarm: bool = False) -> bool | None:
        """Claim an alert: True for who has it, False when it was claimed before, None while others try.

        Parameters
        ----------
        lower
            Thresholds that are passed with it, and shall not be told any more.
        over_alarm
            Claim it also where the mark says that it is an alarm's.
        """
        now = self._clock()
        expires = {"N": str(int(now) + schema.ALERTS_TTL_S)}
        mark = self._mark(alert.period, alert.budget, alert.threshold)
        put: dict[str, Any] = {
            "TableName": self._table,
            "Item": mark
            | {"state": {"S": "pending"}, "told_at": {"S": alert.at}, "spent": {"N": alert.spent}}
            | {"usd": {"N": alert.usd}, "expires_at": expires},
            "ConditionExpression": "attribute_not_exists(pk)",
        }
        if over_alarm:
            put["ConditionExpression"] += " OR #state = :alarm"
            put["ExpressionAttributeNames"] = {"#state": "state"}
            put["ExpressionAttributeValues"] = {":alarm": {"S": "alarm"}}
        entry = self._entry(alert) | {
            "alert": {"S": json.dumps(alert._asdict(), separators=(",", ":"))},
            "lease": {"N": str(int(now) + LEASE_S)},
        }
        actions: list[dict[str, Any]] = [
            {"Put": put},
            {"Put": {"TableName": self._table, "Item": entry}},
            *(self._pass(self._mark(alert.period, alert.budget, each), expires) for each in lower),
        ]
        for attempt in range(1, _CONFLICTS + 1):
            try:
                self._transact(actions)
                return True
            except ClientError as error:
                codes = [each.get("Code") for each in error.response.get("CancellationReasons", ())]
                if "ConditionalCheckFailed" in codes:
                    return False
                if not _BUSY.intersection(codes):
                    raise
            self._requests.wait(attempt)
        return None

    def deliver(self, alert: Alert) -> None:
        """Send a claimed alert, and note that it is sent."""
        self._send(alert)
        # By itself: in a transaction with the mark, which others keep trying to claim, it would meet them.
        self._requests.send("delete_item", TableName=self._table, Key=self._entry(alert))
        mark = self._mark(alert.period, alert.budget, alert.threshold)
        with suppress(ClientError, LedgerBusy):  # that it is sent does not hang on what its mark says
            self._update(mark, "SET #state = :sent", "attribute_exists(pk)", {":sent": {"S": "sent"}})

    def sweep(self) -> list[Exception]:
        """Send what others have left in the outbox; return why some of it still could not be sent."""
        failures: list[Exception] = []
        for item in self._waiting():
            if float(item["lease"]["N"]) <= self._clock() and self._take(item):
                try:
                    self.deliver(Alert(**json.loads(item["alert"]["S"])))
                except Exception as error:  # noqa: BLE001 - one that cannot be sent must not hold up the others
                    failures.append(error)
        return failures

    def _waiting(self) -> Iterator[dict[str, Any]]:
        start: dict[str, Any] = {}
        while True:
            answer = self._requests.send(
                "query",
                TableName=self._table,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": schema.PENDING_ALERTS}},
                ConsistentRead=True,
                **start,
            )
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _take(self, item: dict[str, Any]) -> bool:
        lease = {":old": item["lease"], ":new": {"N": str(int(self._clock()) + LEASE_S)}}
        return self._update(item, "SET lease = :new", "lease = :old", lease)

    def leave_to_alarm(self, case: Case) -> None:
        """Note that an alarm tells when all of a budget is spent, unless somebody has told it already."""
        item = {"state": {"S": "alarm"}, "usd": {"N": format(case.budget.usd, "f")}}
        expires = {"N": str(int(self._clock()) + schema.ALERTS_TTL_S)}
        self._update(
            self._mark(case.period, case.id, "100"),
            "SET #state = :alarm, usd = :usd, expires_at = :expires",
            "attribute_not_exists(pk)",
            {":alarm": item["state"], ":usd": item["usd"], ":expires": expires},
        )

    def alarmed(self, case: Case, lower: Iterable[str]) -> None:
        """Note that the alarm has been shown an amount that it tells of; lower thresholds pass with it."""
        expires = {"N": str(int(self._clock()) + schema.ALERTS_TTL_S)}
        for each in lower:
            passed = self._pass(self._mark(case.period, case.id, each), expires)
            self._requests.send("update_item", **passed["Update"])
        mark = self._mark(case.period, case.id, "100")
        values = {":alarm": {"S": "alarm"}, ":alarmed": {"S": "alarmed"}}
        self._update(mark, "SET #state = :alarmed", "#state = :alarm", values)

    def _update(
        self, key: dict[str, Any], expression: str, condition: str, values: dict[str, dict[str, str]]
    ) -> bool:
        """Update an item under a condition; False when the condition does not hold."""
        names = {"#state": "state"} if "#state" in expression + condition else {}
        try:
            self._requests.send(
                "update_item",
                TableName=self._table,
                Key={name: key[name] for name in ("pk", "sk")},
                UpdateExpression=expression,
                ConditionExpression=condition,
                ExpressionAttributeValues=values,
                **({"ExpressionAttributeNames": names} if names else {}),
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def _transact(self, actions: list[dict[str, Any]]) -> None:
        # The token is the transaction's: should an answer get lost, sending the same again tells success.
        self._requests.send(
            "transact_write_items", TransactItems=actions, ClientRequestToken=uuid.uuid4().hex
        )

    def _pass(self, mark: dict[str, Any], expires: dict[str, str]) -> dict[str, Any]:
        return {
            "Update": {
                "TableName": self._table,
                "Key": mark,
                "UpdateExpression": "SET #state = if_not_exists(#state, :passed), expires_at = :expires",
                "ExpressionAttributeNames": {"#state": "state"},
                "ExpressionAttributeValues": {":passed": {"S": "passed"}, ":expires": expires},
            }
        }

    def _mark(self, period: str, budget: str, threshold: str) -> dict[str, Any]:
        return {"pk": {"S": schema.alert_pk(period)}, "sk": {"S": f"{budget}#{threshold}"}}

    def _entry(self, alert: Alert) -> dict[str, Any]:
        return {"pk": {"S": schema.PENDING_ALERTS}, "sk": {"S": alert.key}}
