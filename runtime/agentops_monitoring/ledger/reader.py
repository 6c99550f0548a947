"""Questions to the ledger.

    reader = LedgerReader.from_environment()
    day = reader.last(24)                       # the last 24 hours, this one included, as one Rollups
    day.total.total_cost                        # Decimal, exact
    day.agents["manager"].success_rate          # completed ÷ ended workflows it took part in
    day.flows["manager", "engineer"].messages
    day.types["test_failed"].cost               # EventCost; over all types it sums to total.total_cost
    reader.hours(start, end)                    # the same, hour by hour: {datetime: Rollups}
    reader.spend(date(2026, 11, 22)).total.total_cost

A window of n hours takes n × shards requests (and rarely a page more), however many events there were.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from agentops_monitoring.ledger import rollup, schema
from agentops_monitoring.ledger.exact import Number
from agentops_monitoring.ledger.parts import PartStore
from agentops_monitoring.ledger.payload import unpack
from agentops_monitoring.ledger.totals import Rollups, Totals, TypeTotals, rollups
from agentops_monitoring.ledger.workflows import Workflow

_PARALLEL = 8
_OUTCOMES = 100
"""Of one decision, the newest: more say nothing more."""
_HOUR = timedelta(hours=1)


class WorkflowStatus(NamedTuple):
    """What the ledger knows of a workflow."""

    agents: tuple[str, ...]
    outcome: str | None
    """"completed", "failed", or None while it runs."""
    ended_at: str | None


class LedgerReader:
    """Reads the ledger, and raw events where a question is about single ones.

    Parameters
    ----------
    client
        A DynamoDB client.
    tables
        Names of the tables.
    shards
        Over how many items each rollup is spread; from the environment when left out.
    """

    def __init__(self, client: Any, tables: schema.Tables, *, shards: int | None = None) -> None:
        self._client = client
        self._tables = tables
        self._shards = shards or schema.shards()
        self._parts = PartStore(client, tables.ledger)
        self.requests = 0
        """Requests made so far for rollups."""

    @classmethod
    def from_environment(cls) -> LedgerReader:
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
        end = _start_of_hour(now or datetime.now(UTC)) + _HOUR
        return self.window(end - hours * _HOUR, end)

    def window(self, start: datetime, end: datetime) -> Rollups:
        """Return the hours that touch [start, end) as one."""
        merged: rollup.Increments = {}
        for increments in self._hours(start, end).values():
            rollup.merge(merged, increments)
        return rollups(merged)

    def hours(self, start: datetime, end: datetime) -> dict[datetime, Rollups]:
        """Return each hour that touches [start, end), those without events too, by its start."""
        return {hour: rollups(increments) for hour, increments in self._hours(start, end).items()}

    def spend(self, day: date) -> Rollups:
        """Return the costs of a UTC day, in total and by agent, as budgets see them."""
        merged: rollup.Increments = {}
        self._bucket(f"D#{day.isoformat()}", merged)
        return rollups(merged)

    def workflow(self, workflow_id: str) -> WorkflowStatus | None:
        """Return a workflow's agents and outcome; None when there is no such workflow."""
        key = {"pk": {"S": schema.workflow_pk(workflow_id)}, "sk": {"S": schema.STATE}}
        item = self._client.get_item(TableName=self._tables.ledger, Key=key).get("Item")
        if item is None:
            return None
        state = Workflow(int(item["ver"]["N"]), unpack(item, "state"))
        at, _, outcome = state.ended or (None, None, None)
        outcomes = {"c": "completed", "f": "failed", None: None}
        return WorkflowStatus(tuple(sorted(state.agents)), outcomes[outcome], at)

    def workflow_events(self, workflow_id: str) -> list[dict[str, Any]]:
        """Return a workflow's events in order of time, as plain dictionaries with their `data`."""
        items = self._query(
            TableName=self._tables.monitoring,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": schema.workflow_pk(workflow_id)}},
        )
        return [self._plain(item) for item in items if "withdrawn" not in item]

    def events_of_type(
        self, event_type: str, start: datetime, end: datetime, *, limit: int = 10_000
    ) -> list[dict[str, Any]]:
        """Return the events of a type in [start, end), oldest first, at most `limit` of each day and shard.

        The requests this takes do grow with the events.
        """
        found: list[dict[str, Any]] = []
        first, last = _rfc3339(start), _rfc3339(end)
        day = start.astimezone(UTC).date()
        while day <= end.astimezone(UTC).date():
            for shard in range(schema.INDEX_SHARDS):
                items = self._query(
                    TableName=self._tables.monitoring,
                    IndexName="gsi2",
                    KeyConditionExpression="gsi2pk = :pk AND gsi2sk BETWEEN :start AND :end",
                    ExpressionAttributeValues={
                        ":pk": {"S": schema.type_index(event_type, day.isoformat(), shard)},
                        ":start": {"S": first},
                        ":end": {"S": last},
                    },
                )
                found += [self._plain(item) for _, item in zip(range(limit), items, strict=False)]
            day += timedelta(days=1)
        return sorted(
            (each for each in found if each["at"] < last), key=lambda each: (each["at"], each["sk"])
        )

    def latest_decisions(self, agents: Iterable[str], limit: int = 20) -> list[dict[str, Any]]:
        """Return the newest decisions of some agents with their full chains, newest first.

        Each has an `outcome`, see `decision`.
        """
        found: list[dict[str, Any]] = []
        for agent in agents:
            answer = self._client.query(
                TableName=self._tables.decisions,
                IndexName="gsi1",
                KeyConditionExpression="gsi1pk = :pk",
                ExpressionAttributeValues={":pk": {"S": f"AGENT#{agent}"}},
                ScanIndexForward=False,
                Limit=limit,
            )
            found += [self._plain(item, decision=True) for item in answer["Items"]]
        newest = sorted(found, key=lambda each: str(each["at"]), reverse=True)[:limit]
        with ThreadPoolExecutor(min(_PARALLEL, len(newest) or 1)) as pool:
            for each, outcome in zip(newest, pool.map(self._outcome, newest), strict=True):
                each["outcome"] = outcome
        return newest

    def decision(self, workflow_id: str, sk: str) -> dict[str, Any] | None:
        """Return one decision with its full chain by its keys; None when there is none.

        Its `outcome` is the last that was recorded for its id in its workflow, or else in any: `correct`,
        `score` and `evidence` as recorded, None where they were not, with the outcome's `at`, `agent` and
        `workflow_id`. None while there is none.
        """
        key = {"pk": {"S": schema.workflow_pk(workflow_id)}, "sk": {"S": sk}}
        item = self._client.get_item(TableName=self._tables.decisions, Key=key).get("Item")
        if item is None:
            return None
        plain = self._plain(item, decision=True)
        return {**plain, "outcome": self._outcome(plain)}

    def _outcome(self, decision: Mapping[str, Any]) -> dict[str, Any] | None:
        answer = self._client.query(
            TableName=self._tables.decisions,
            IndexName="gsi1",
            KeyConditionExpression="gsi1pk = :pk",
            ExpressionAttributeValues={":pk": {"S": schema.outcome_pk(str(decision["decision_id"]))}},
            ScanIndexForward=False,
            Limit=_OUTCOMES,
        )
        told = sorted(answer["Items"], key=lambda item: item["sk"]["S"])
        own = [item for item in told if item["workflow_id"]["S"] == decision["workflow_id"]]
        for item in reversed(own or told):
            names = ("correct", "score", "at", "agent", "workflow_id")
            evidence = unpack(item, "evidence")
            return {name: _decode(item[name]) if name in item else None for name in names} | {
                "evidence": None if evidence is None else json.loads(evidence)
            }
        return None

    def _hours(self, start: datetime, end: datetime) -> dict[datetime, rollup.Increments]:
        hour, wanted = _start_of_hour(start), []
        while hour < end:
            wanted.append(hour)
            hour += _HOUR
        found: dict[datetime, rollup.Increments] = {hour: {} for hour in wanted}
        tasks = [(hour, shard) for hour in wanted for shard in range(self._shards)]

        def read(task: tuple[datetime, int]) -> Sequence[Mapping[str, Any]]:
            return self._shard(schema.hour_bucket(_rfc3339(task[0])), task[1])

        with ThreadPoolExecutor(min(_PARALLEL, len(tasks) or 1)) as pool:
            for (hour, _), items in zip(tasks, pool.map(read, tasks), strict=True):
                _add_items(found[hour], items)
        return found

    def _bucket(self, bucket: str, into: rollup.Increments) -> None:
        for shard in range(self._shards):
            _add_items(into, self._shard(bucket, shard))

    def _shard(self, bucket: str, shard: int) -> list[Mapping[str, Any]]:
        return list(
            self._query(
                TableName=self._tables.ledger,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": f"{bucket}#{shard}"}},
                ConsistentRead=True,
            )
        )

    def _query(self, **arguments: Any) -> Iterator[Mapping[str, Any]]:
        while True:
            self.requests += 1
            answer = self._client.query(**arguments)
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _plain(self, item: Mapping[str, Any], *, decision: bool = False) -> dict[str, Any]:
        plain = {
            name: _decode(value)
            for name, value in item.items()
            if not name.startswith(("gsi", "data")) and name != "expires_at"
        }
        event_id = str(plain["sk"]).partition("#")[2]
        plain["id"] = event_id
        plain["workflow_id"] = str(plain["pk"]).removeprefix("WF#")
        owner = f"{event_id}#decision" if decision else event_id
        pieces = self._parts.pieces(owner) if "data_parts" in item else None
        text = unpack(item, "data", pieces)
        plain["data"] = None if text is None else json.loads(text)
        if "tags" in plain:
            plain["tags"] = json.loads(plain["tags"])
        return plain


def _add_items(into: rollup.Increments, items: Iterable[Mapping[str, Any]]) -> None:
    for item in items:
        # All shards and hours of a rollup add up under one key.
        key = ("", item["sk"]["S"])
        for name, value in item.items():
            if name not in ("pk", "sk", "expires_at") and "N" in value:
                rollup.add(into, key, name, _number(value["N"]))


def _number(text: str) -> Number:
    return int(text) if text.lstrip("-").isdigit() else Decimal(text)


def _decode(value: Mapping[str, Any]) -> Any:
    if "S" in value:
        return value["S"]
    return _number(value["N"]) if "N" in value else next(iter(value.values()))


def _start_of_hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


__all__ = ["LedgerReader", "Rollups", "Totals", "TypeTotals", "WorkflowStatus"]
