"""Questions to the ledger.

    reader = LedgerReader.from_environment()
    day = reader.last(24)                       # the last 24 hours, this one included, as one Rollups
    day.total.total_cost                        # Decimal, exact
    day.agents["manager"].success_rate          # completed ÷ ended workflows it took part in
    day.flows["manager", "engineer"].messages
    day.types["test_failed"].cost               # EventCost; over all types it sums to total.total_cost
    day.agents["manager"].p95_handler_ms        # within 2 %
    reader.hours(start, end)                    # the same, hour by hour: {datetime: Rollups}
    reader.days(start, end)                     # UTC days; reader.day(date), reader.month(2026, 11)
    reader.spend(date(2026, 11, 22)).total.total_cost
    reader.workflow_spend(workflow_id).agents["engineer"]

A window of n hours takes n × shards requests (and rarely a page more, and one a minute to learn how many
shards there are), however many events there were; a day that is over takes one, once it is folded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

from agentops_monitoring.ledger import rollup, schema
from agentops_monitoring.ledger.exact import EXACT
from agentops_monitoring.ledger.parts import PartStore
from agentops_monitoring.ledger.payload import unpack
from agentops_monitoring.ledger.rollup_reader import PARALLEL, RollupReader, add_items, number
from agentops_monitoring.ledger.totals import Rollups, Totals, TypeTotals
from agentops_monitoring.ledger.workflows import Workflow

_OUTCOMES = 100
"""Of one decision, the newest: more say nothing more."""


class WorkflowStatus(NamedTuple):
    """What the ledger knows of a workflow."""

    agents: tuple[str, ...]
    outcome: str | None
    """"completed", "failed", or None while it runs."""
    ended_at: str | None


class WorkflowSpend(NamedTuple):
    """What a workflow has cost, USD."""

    llm_cost: Decimal
    compute_cost: Decimal
    """Of the attempts whose `invocation_started` names the workflow."""
    agents: dict[str, Decimal]
    """Of both, by agent."""
    models: dict[str, Decimal]

    @property
    def total_cost(self) -> Decimal:
        """Both together."""
        return EXACT.add(self.llm_cost, self.compute_cost)


class LedgerReader(RollupReader):
    """Reads the ledger, and raw events where a question is about single ones."""

    @cached_property
    def _parts(self) -> PartStore:
        return PartStore(self._client, self._tables.ledger)

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

    def workflow_spend(self, workflow_id: str) -> WorkflowSpend:
        """Return what a workflow has cost so far."""
        merged: rollup.Increments = {}
        for shard in range(self._shards()):
            add_items(merged, self.partition(f"{schema.workflow_bucket(workflow_id)}#{shard}"))
        found = {name: Decimal(value) for name, value in merged.get(("", schema.SPEND), {}).items()}
        by = {
            letter: {name[2:]: usd for name, usd in found.items() if name.startswith(f"{letter}.")}
            for letter in "am"
        }
        nothing = Decimal(0)
        return WorkflowSpend(
            found.get("llm_cost", nothing), found.get("compute_cost", nothing), by["a"], by["m"]
        )

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
        with ThreadPoolExecutor(min(PARALLEL, len(newest) or 1)) as pool:
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


def _decode(value: Mapping[str, Any]) -> Any:
    if "S" in value:
        return value["S"]
    return number(value["N"]) if "N" in value else next(iter(value.values()))


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


__all__ = ["LedgerReader", "Rollups", "Totals", "TypeTotals", "WorkflowSpend", "WorkflowStatus"]
