"""What it costs to keep environments ready (provisioned concurrency), booked by slots of five minutes.

No line tells of it, so Lambda is asked, of each function whose lines have come (`origins`). AWS bills what is
configured from when it is until it is no more, rounded up to five minutes:
https://aws.amazon.com/lambda/pricing/. A slot is booked with what is configured when the slot is first seen.
An item says up to which slot a version or alias is booked, and moves in the transaction that books: so each
slot is booked once, whoever asks how often. Slots that nobody asked in are made up for as far back as the
configuration has not changed; what it was before, nobody knows, and that is said.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import localcontext
from itertools import groupby
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from agentops_monitoring.ledger import rollup, schema
from agentops_monitoring.ledger.exact import EXACT
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.requests import LedgerBusy, Requests
from agentops_monitoring.ledger.shards import declare
from agentops_monitoring.ledger.transaction import update_counters
from agentops_monitoring.pricing.compute import ready_cost

SLOT_S = 300
_SLOTS_AN_HOUR = 3600 // SLOT_S
_MOST_SLOTS = 14 * 24 * _SLOTS_AN_HOUR
"""That are made up for; nothing is that has not been asked for longer."""


class Kept(NamedTuple):
    """A version or alias of a function with environments that are kept ready."""

    agent: str
    function: str
    qualifier: str
    environments: int
    memory_mb: int
    architecture: str
    since: datetime
    """When its configuration was last changed."""


class Booked(NamedTuple):
    """What a run booked."""

    increments: rollup.Increments
    unknown: dict[str, int]
    """Slots left out, since nobody knows what was configured in them, by version or alias."""
    failures: list[Exception]
    """Why some of it could not be booked; the next run makes up for that."""


class Ready:
    """Books what keeping environments ready costs.

    Parameters
    ----------
    client
        A DynamoDB client.
    functions
        A Lambda client.
    tables
        Names of the tables.
    region
        By whose prices.
    shards
        Over how many items each rollup is spread; from the environment when left out.
    """

    def __init__(
        self,
        client: Any,
        functions: Any,
        tables: schema.Tables,
        region: str,
        *,
        shards: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._functions = functions
        self._table = tables.ledger
        self._region = region
        self._shards = shards or schema.shards()
        self._reader = LedgerReader(client, tables, shards=shards)
        self._requests = Requests(client, sleep=sleep)

    def run(self, now: datetime) -> Booked:
        """Book every slot up to the present one, which counts in full."""
        declare(self._requests, self._table, self._shards)
        booked = Booked({}, {}, [])
        slot = int(now.timestamp()) // SLOT_S
        for function, agent in sorted(self._agents(now).items()):
            try:
                for kept in self._kept(agent, function):
                    self._book(kept, slot, booked)
            except (ClientError, BotoCoreError, LedgerBusy) as error:
                booked.failures.append(error)
        return booked

    def _kept(self, agent: str, function: str) -> Iterator[Kept]:
        pages = self._functions.get_paginator("list_provisioned_concurrency_configs")
        try:
            found = pages.paginate(FunctionName=function).build_full_result()
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return  # what is gone keeps nothing ready
            raise
        for each in found["ProvisionedConcurrencyConfigs"]:
            if each["Status"] != "FAILED":
                yield self._described(agent, function, each)

    def _agents(self, now: datetime) -> dict[str, str]:
        """Return the agent of each function: of several, the one that was heard of last."""
        names: set[str] = set()
        for at in (now, now.replace(day=1) - timedelta(days=1)):
            names |= set(self._reader.month_spend(at.year, at.month).agents)
        found: dict[str, tuple[int, str]] = {}
        agents = sorted(names)
        partitions = self._reader.partitions([schema.functions_pk(agent) for agent in agents])
        for agent, items in zip(agents, partitions, strict=True):
            for item in items:
                heard = int(item["expires_at"]["N"]), agent
                found[item["sk"]["S"]] = max(heard, found.get(item["sk"]["S"], heard))
        return {function: agent for function, (_, agent) in found.items()}

    def _described(self, agent: str, function: str, config: Mapping[str, Any]) -> Kept:
        qualifier = config["FunctionArn"].rpartition(":")[2]
        of = self._functions.get_function_configuration(FunctionName=function, Qualifier=qualifier)
        return Kept(
            agent,
            function,
            qualifier,
            config["RequestedProvisionedConcurrentExecutions"],
            of["MemorySize"],
            (of.get("Architectures") or ["x86_64"])[0],
            datetime.fromisoformat(config["LastModified"]).astimezone(UTC),
        )

    def _book(self, kept: Kept, slot: int, booked: Booked) -> None:
        before = self._booked_to(kept)
        first = slot if before is None else max(before + 1, slot - _MOST_SLOTS)
        known = max(first, int(kept.since.timestamp()) // SLOT_S)
        if before is not None and (unknown := min(known, slot + 1) - before - 1) > 0:
            booked.unknown[f"{kept.function}:{kept.qualifier}"] = unknown
        for _, slots in groupby(range(known, slot + 1), key=lambda each: each // _SLOTS_AN_HOUR):
            some = list(slots)
            increments = _cost(kept, some, self._region)
            if not self._commit(kept, before, some[-1], increments):
                return  # somebody else is at it
            before = some[-1]
            rollup.merge(booked.increments, increments)

    def _booked_to(self, kept: Kept) -> int | None:
        for item in self._reader.partition(schema.ready_pk(kept.function)):
            if item["sk"]["S"] == kept.qualifier:
                return int(item["ver"]["N"])
        return None

    def _commit(self, kept: Kept, before: int | None, last: int, increments: rollup.Increments) -> bool:
        """Book, if nobody else has meanwhile."""
        now = time.time()
        values = {":last": {"N": str(last)}, ":expires": {"N": str(int(now) + schema.CHECKS_TTL_S)}}
        mark: dict[str, Any] = {
            "TableName": self._table,
            "Key": {"pk": {"S": schema.ready_pk(kept.function)}, "sk": {"S": kept.qualifier}},
            "UpdateExpression": "SET ver = :last, expires_at = :expires",
            "ConditionExpression": "attribute_not_exists(pk)",
            "ExpressionAttributeValues": values,
        }
        if before is not None:
            mark["ConditionExpression"] = "ver = :known"
            values[":known"] = {"N": str(before)}
        shard = schema.shard_of(kept.function, self._shards)
        actions = [
            {"Update": mark},
            *(update_counters(self._table, key, found, shard, now) for key, found in increments.items()),
        ]
        attempt = 0
        while True:
            attempt += 1
            try:
                self._requests.send(
                    "transact_write_items", TransactItems=actions, ClientRequestToken=uuid.uuid4().hex
                )
            except ClientError as error:
                reasons = error.response.get("CancellationReasons") or [{}]
                if reasons[0].get("Code") == "ConditionalCheckFailed":
                    return False
                conflict = any(each.get("Code") == "TransactionConflict" for each in reasons)
                if not conflict or attempt >= self._requests.attempts:
                    raise
                self._requests.wait(attempt)
            else:
                return True


def _cost(kept: Kept, slots: list[int], region: str) -> rollup.Increments:
    """Return what slots of one hour add to the counters."""
    at = datetime.fromtimestamp(slots[0] * SLOT_S, UTC).isoformat()
    hour = schema.hour_bucket(at)
    seconds = len(slots) * SLOT_S
    usd = ready_cost(kept.environments, seconds, kept.memory_mb, kept.architecture, region)
    name = "ready_s" if usd is not None else "ready_unpriced_s"
    increments: rollup.Increments = {}
    with localcontext(EXACT):
        for key in (schema.TOTAL, schema.agent_key(kept.agent)):
            rollup.add(increments, (hour, key), name, kept.environments * seconds)
            if usd is not None:
                rollup.add(increments, (hour, key), "compute_cost", usd)
        if usd is not None:
            rollup.add(increments, (hour, schema.TYPES), f"c.{rollup.OVERHEAD}", usd)
            rollup.merge(increments, rollup.spend(at, kept.agent, "compute_cost", usd))
        for day in rollup.days_of(increments):
            increments[schema.MARK, schema.day_bucket(day)] = {"ver": 1}
    return increments
