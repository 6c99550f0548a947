"""Folds closed days out of their hours, and closed months out of their days.

Every transaction that adds to an hour of a closed day raises that day's mark, and a process's first that
adds to an open one does too (`transaction`). So the marks name the days there are, and a day has to be folded
while its mark is above what its fold has seen: after an outage there are more of them, and after a late event
it is one again.

A fold reads the mark, then the hours, puts the sums under the condition that nobody has put later ones, and
then says up to which mark it has seen. Folding again changes nothing; of two at once, that with the later
mark stays; one that a late event came after, or that was killed, leaves a mark above `seen`, and until the
next one readers take the hours. Only what folds a day gives its hours their end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from agentops_monitoring.ledger import rollup, schema
from agentops_monitoring.ledger.exact import Number, dynamo
from agentops_monitoring.ledger.requests import Requests
from agentops_monitoring.ledger.rollup_reader import PARALLEL, RollupReader, add_items

_CONDITION = "attribute_not_exists(pk) OR seen <= :seen"


class Folded(NamedTuple):
    """What a run did."""

    days: int
    months: int
    left: int
    """Days that wait for the next run, for want of time."""


class _Overtaken(Exception):
    """Somebody else has folded with a later mark."""


class Fold:
    """Folds what has to be folded.

    Parameters
    ----------
    client
        A DynamoDB client.
    tables
        Names of the tables.
    shards
        Over how many items each rollup is spread; as the ledger says when left out.
    """

    def __init__(
        self,
        client: Any,
        tables: schema.Tables,
        *,
        shards: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._table = tables.ledger
        self._reader = RollupReader(client, tables, shards=shards)
        self._requests = Requests(client, sleep=sleep)

    @classmethod
    def from_environment(cls) -> Fold:
        """Return a fold of the tables that the environment variables name."""
        return cls(schema.client(), schema.Tables.from_environment())

    @property
    def requests(self) -> int:
        """Requests made so far."""
        return self._requests.made + self._reader.requests

    def run(self, now: datetime, *, deadline: float | None = None) -> Folded:
        """Fold every closed day and month that has to be, the oldest first.

        Parameters
        ----------
        now
            The time; what ended less than `schema.FOLD_AFTER` before is not closed.
        deadline
            When to begin no other day, on the monotonic clock, seconds.

        Raises
        ------
        ExceptionGroup
            Some could not be folded; the others are.
        """
        marks, seen = self._reader.marks(), self._reader.seen()
        due = [
            day
            for day, mark in sorted(marks.items())
            if schema.is_closed(day, now)
            and mark > seen.get(day, 0)
            and not (day in seen and schema.is_sealed(day, now))
        ]
        done = 0
        failures: list[Exception] = []
        for number, day in enumerate(due):
            if deadline is not None and time.monotonic() > deadline:
                return Folded(done, 0, len(due) - number)
            try:
                self._fold_day(day, marks[day])
                seen[day] = marks[day]
                done += 1
            except _Overtaken:
                continue
            except Exception as error:  # noqa: BLE001 - one day does not hold up the others
                error.add_note(f"folding {day}")
                failures.append(error)
        months = self._fold_months({**dict.fromkeys(marks, 0), **seen}, now, failures)
        if failures:
            raise ExceptionGroup("some days or months could not be folded", failures)
        return Folded(done, months, 0)

    def _fold_day(self, day: str, mark: int) -> None:
        sums: rollup.Increments = {}
        lasting = []
        for items in self._reader.partitions(self._reader.hour_partitions(date.fromisoformat(day[2:]))):
            add_items(sums, items)
            lasting += [item for item in items if "expires_at" not in item]
        self._put(day, sums, mark, schema.end_of(day) + schema.DAYS_KEPT)
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(self._end_hour, lasting))
        self._say(day, mark)

    def _fold_months(self, seen: Mapping[str, int], now: datetime, failures: list[Exception]) -> int:
        """Fold the closed months of which every day is folded."""
        months: dict[str, list[str]] = {}
        for day in seen:
            if day.startswith(schema.DAY):
                months.setdefault(schema.month_bucket(day[2:]), []).append(day)
        done = 0
        for month, days in sorted(months.items()):
            known = sum(seen[day] for day in days)
            whole = schema.is_closed(month, now) and all(seen[day] for day in days)
            if not whole or known <= seen.get(month, 0):
                continue
            try:
                self._fold_month(month, days, known)
                done += 1
            except _Overtaken:
                continue
            except Exception as error:  # noqa: BLE001 - nor does one month
                error.add_note(f"folding {month}")
                failures.append(error)
        return done

    def _fold_month(self, month: str, days: Sequence[str], known: int) -> None:
        sums: rollup.Increments = {}
        for items in self._reader.partitions(days):
            add_items(sums, items)
        self._put(month, sums, known, None)
        self._say(month, known)

    def _put(self, pk: str, sums: rollup.Increments, seen: int, expires: datetime | None) -> None:
        end: dict[str, Number] = {"expires_at": int(expires.timestamp())} if expires else {}

        def put(entry: tuple[rollup.Key, dict[str, Number]]) -> None:
            (_, sk), counters = entry
            kept = {name: value for name, value in counters.items() if value}
            self._put_item(pk, sk, {**kept, **end, "seen": seen})

        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(put, sums.items()))

    def _say(self, period: str, seen: int) -> None:
        self._put_item(schema.FOLDED, period, {"seen": seen})

    def _put_item(self, pk: str, sk: str, values: Mapping[str, Number]) -> None:
        try:
            self._requests.send(
                "put_item",
                TableName=self._table,
                Item={"pk": {"S": pk}, "sk": {"S": sk}}
                | {name: dynamo(each) for name, each in values.items()},
                ConditionExpression=_CONDITION,
                ExpressionAttributeValues={":seen": dynamo(values["seen"])},
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
                raise _Overtaken from None
            raise

    def _end_hour(self, item: Mapping[str, Any]) -> None:
        day = item["pk"]["S"][2:12]
        end = schema.end_of(f"{schema.DAY}{day}") + schema.HOURS_KEPT
        self._requests.send(
            "update_item",
            TableName=self._table,
            Key={"pk": item["pk"], "sk": item["sk"]},
            UpdateExpression="SET expires_at = :expires",
            ExpressionAttributeValues={":expires": dynamo(int(end.timestamp()))},
        )
