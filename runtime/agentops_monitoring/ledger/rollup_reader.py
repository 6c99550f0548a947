"""Reads the counters: hours as they were counted, days and months as they were folded.

A fold is taken for what its hours add up to as long as the marks say that nothing came since; otherwise the
hours are read themselves. So nothing is missed or counted twice where folded days meet open ones.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Self

from agentops_monitoring.ledger import rollup, schema
from agentops_monitoring.ledger.exact import Number
from agentops_monitoring.ledger.shards import KEY, Shards
from agentops_monitoring.ledger.totals import Rollups, rollups

PARALLEL = 8
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_LAST = "~"
"""Sorts behind every day."""
_NO_COUNTERS = frozenset(("pk", "sk", "expires_at", "seen"))


def _now() -> datetime:
    return datetime.now(UTC)


class RollupReader:
    """Reads the ledger's counters.

    Parameters
    ----------
    client
        A DynamoDB client.
    tables
        Names of the tables.
    shards
        Over how many items each rollup is spread; as the ledger says when left out.
    clock
        Returns the present time.
    """

    def __init__(
        self,
        client: Any,
        tables: schema.Tables,
        *,
        shards: int | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._client = client
        self._tables = tables
        self._shards = Shards(lambda: self._range(KEY[0], KEY[1], KEY[1]), shards)
        self._clock = clock
        self.requests = 0
        """Requests made so far for rollups."""

    @classmethod
    def from_environment(cls) -> Self:
        """Return a reader of the tables that the environment variables name."""
        return cls(schema.client(), schema.Tables.from_environment())

    def last(self, hours: int, now: datetime | None = None) -> Rollups:
        """Return the last hours as one: the current one so far, and `hours - 1` whole ones before it.

        Raises
        ------
        ValueError
            `hours` is less than 1.
        """
        if hours < 1:
            raise ValueError("at least one hour")
        end = _start_of_hour(now or self._clock()) + _HOUR
        return self.window(end - hours * _HOUR, end)

    def window(self, start: datetime, end: datetime) -> Rollups:
        """Return the hours that touch [start, end) as one; whole days in it are read as days."""
        first = _start_of_hour(start)
        midnight = datetime.combine(first.date() + (_DAY if first.hour else timedelta()), time(), UTC)
        days = [midnight.date() + number * _DAY for number in range((end - midnight) // _DAY)]
        merged: rollup.Increments = {}
        for part in (
            self._hours(first, min(end, midnight) if days else end),
            self._days(days),
            self._hours(midnight + len(days) * _DAY, end) if days else {},
        ):
            for increments in part.values():
                rollup.merge(merged, increments)
        return rollups(merged)

    def hours(self, start: datetime, end: datetime) -> dict[datetime, Rollups]:
        """Return each hour that touches [start, end), those without events too, by its start."""
        return {hour: rollups(increments) for hour, increments in self._hours(start, end).items()}

    def day(self, day: date) -> Rollups:
        """Return a UTC day, so far when it is not over."""
        return self.days(day, day + _DAY)[day]

    def days(self, start: date, end: date) -> dict[date, Rollups]:
        """Return each UTC day in [start, end), those without events too."""
        found = self._days([start + number * _DAY for number in range((end - start).days)])
        return {day: rollups(increments) for day, increments in found.items()}

    def month(self, year: int, month: int) -> Rollups:
        """Return a UTC month, so far when it is not over."""
        days = [date(year, month, number + 1) for number in range(monthrange(year, month)[1])]
        key = schema.month_bucket(days[0].isoformat())
        merged: rollup.Increments = {}
        seen = self.seen(key, key).get(key)
        if seen is not None:
            add_items(merged, self.partition(key))
            first, last = _keys(days)[0], _keys(days)[-1]
            of_days = self.seen(first, last)
            marks = self.marks(first, last)
            if seen >= sum(of_days.values()) and not any(self._stale(day, of_days, marks) for day in marks):
                return rollups(merged)
        merged = {}
        for increments in self._days(days).values():
            rollup.merge(merged, increments)
        return rollups(merged)

    def spend(self, day: date) -> Rollups:
        """Return the costs of a UTC day, in total and by agent, as budgets see them."""
        return self._spend(schema.day_bucket(day.isoformat()))

    def month_spend(self, year: int, month: int) -> Rollups:
        """Return the costs of a UTC month, in total and by agent, as budgets see them."""
        return self._spend(f"{schema.MONTH}{year:04d}-{month:02d}")

    def _spend(self, bucket: str) -> Rollups:
        merged: rollup.Increments = {}
        for shard in range(self._shards()):
            add_items(merged, self.partition(f"{bucket}#{shard}"))
        return rollups(merged)

    def seen(self, first: str = "", last: str = _LAST) -> dict[str, int]:
        """Return up to which of their marks days (`D#…`) and months (`M#…`) are folded."""
        return {item["sk"]["S"]: int(item["seen"]["N"]) for item in self._range(schema.FOLDED, first, last)}

    def marks(self, first: str = "", last: str = _LAST) -> dict[str, int]:
        """Return the marks of the days (`D#…`) on which anything was counted; they only ever rise."""
        found: dict[str, int] = {}
        for shard in range(self._shards()):
            for item in self._range(f"{schema.MARK}#{shard}", first, last):
                day = item["sk"]["S"]
                found[day] = found.get(day, 0) + int(item["ver"]["N"])
        return found

    def partitions(self, keys: Sequence[str]) -> Iterator[list[Mapping[str, Any]]]:
        """Return the items of each partition, in their order."""
        with ThreadPoolExecutor(min(PARALLEL, len(keys) or 1)) as pool:
            yield from pool.map(self.partition, keys)

    def partition(self, pk: str) -> list[Mapping[str, Any]]:
        """Return the items of a partition of the ledger."""
        return list(
            self._query(
                TableName=self._tables.ledger,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": pk}},
                ConsistentRead=True,
            )
        )

    def hour_partitions(self, day: date) -> list[str]:
        """Return the partitions of a day's hours."""
        return [
            f"{schema.hour_bucket(f'{day.isoformat()}T{hour:02d}')}#{shard}"
            for hour in range(24)
            for shard in range(self._shards())
        ]

    def _days(self, days: Sequence[date]) -> dict[date, rollup.Increments]:
        if not days:
            return {}
        found: dict[date, rollup.Increments] = {day: {} for day in days}
        keys = _keys(days)
        # In this order: who folds puts the items before it says so, and what came since has moved the marks.
        seen = self.seen(keys[0], keys[-1])
        folded = dict(zip(seen, self.partitions(list(seen)), strict=True))
        marks = self.marks(keys[0], keys[-1])
        stale = []
        for day, key in zip(days, keys, strict=True):
            if self._stale(key, seen, marks):
                stale.append(day)
            else:
                add_items(found[day], folded.get(key, ()))
        if stale:
            wanted = [(day, pk) for day in stale for pk in self.hour_partitions(day)]
            for (day, _), items in zip(wanted, self.partitions([pk for _, pk in wanted]), strict=True):
                add_items(found[day], items)
        return found

    def _stale(self, day: str, seen: Mapping[str, int], marks: Mapping[str, int]) -> bool:
        """Whether a day has to be read from its hours."""
        now = self._clock()
        if not schema.is_closed(day, now):
            return True
        if day in seen and schema.is_sealed(day, now):
            return False
        return marks.get(day, 0) > seen.get(day, 0)

    def _hours(self, start: datetime, end: datetime) -> dict[datetime, rollup.Increments]:
        hour, wanted = _start_of_hour(start), []
        while hour < end:
            wanted.append(hour)
            hour += _HOUR
        found: dict[datetime, rollup.Increments] = {hour: {} for hour in wanted}
        tasks = [(hour, shard) for hour in wanted for shard in range(self._shards())]
        keys = [f"{schema.hour_bucket(hour.isoformat())}#{shard}" for hour, shard in tasks]
        for (hour, _), items in zip(tasks, self.partitions(keys), strict=True):
            add_items(found[hour], items)
        return found

    def _range(self, pk: str, first: str, last: str) -> Iterator[Mapping[str, Any]]:
        values = {":pk": pk, ":start": first or " ", ":end": last}
        return self._query(
            TableName=self._tables.ledger,
            KeyConditionExpression="pk = :pk AND sk BETWEEN :start AND :end",
            ExpressionAttributeValues={name: {"S": text} for name, text in values.items()},
            ConsistentRead=True,
        )

    def _query(self, **arguments: Any) -> Iterator[Mapping[str, Any]]:
        while True:
            self.requests += 1
            answer = self._client.query(**arguments)
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def _keys(days: Sequence[date]) -> list[str]:
    return [schema.day_bucket(day.isoformat()) for day in days]


def add_items(into: rollup.Increments, items: Iterable[Mapping[str, Any]]) -> None:
    """Add the counters of items; all shards and hours of a rollup add up under one key."""
    for item in items:
        key = ("", item["sk"]["S"])
        for name, value in item.items():
            if name not in _NO_COUNTERS and "N" in value:
                rollup.add(into, key, name, number(value["N"]))


def number(text: str) -> Number:
    """Return a number as DynamoDB writes it."""
    return int(text) if text.lstrip("-").isdigit() else Decimal(text)


def _start_of_hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
