"""The tables, the topic and the time, for processes that watch budgets and may end anywhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from agentops_monitoring.ledger.budgets import Budget
from agentops_monitoring.ledger.parse import read_lines
from agentops_monitoring.ledger.watch import Watch
from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.ledger.conftest import TABLES

START = datetime(2026, 11, 2, 1, tzinfo=UTC)
"""Early: what an alert's money went to is read day by day and hour by hour."""
DAY, MONTH = "D#2026-11-02", "M#2026-11"
USD_PER_TOKEN = Decimal("0.000015")  # input of claude-3-opus


class Crash(BaseException):
    """The process ends here."""


class Service:
    """A client between whose calls others may come, that ends the process at one of them when told to."""

    def __init__(self, client: Any, lock: threading.Lock) -> None:
        self._client, self._lock = client, lock
        self.calls: list[str] = []
        self.crash: tuple[int, str] | None = None
        self.refuse: Callable[[str, dict[str, Any]], None] = lambda name, arguments: None
        """Raises what a call is refused with."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            self._maybe("before")
            self.refuse(name, arguments)
            with self._lock:
                answer = getattr(self._client, name)(**arguments)
            self._maybe("after")
            self.calls.append(name)
            return answer

        return call

    def _maybe(self, when: str) -> None:
        if self.crash == (len(self.calls), when):
            self.crash = None
            raise Crash


class Cloud:
    """The tables, the topic, and the time."""

    def __init__(self, dynamodb: Any) -> None:
        self.dynamodb = dynamodb
        self.now = START
        self.sent: list[dict[str, Any]] = []
        self.seq = 0
        self._lock = threading.Lock()

    def process(self, *held: Budget, publish: Callable[..., Any] | None = None) -> tuple[Watch, Service]:
        """Start a process that watches budgets, and give its client."""
        service = Service(self.dynamodb, self._lock)

        def send(**arguments: Any) -> None:
            service._maybe("before")
            (publish or self._publish)(**arguments)
            service._maybe("after")
            service.calls.append("publish")

        watch = Watch(service, TABLES, held, send, shards=2, clock=lambda: self.now.timestamp())
        watch.requests._sleep = lambda seconds: None
        return watch, service

    def _publish(self, **arguments: Any) -> None:
        with self._lock:
            self.sent.append(json.loads(json.loads(arguments["Message"])["default"]) | {"raw": arguments})

    def spend(
        self,
        usd: str,
        agent: str = "manager",
        workflow: str = "w",
        at: datetime | None = None,
        shard: int = 0,
    ) -> Any:
        """Book the cost of a model call; return what was added to the counters."""
        with self._lock:
            self.seq += 1
            number = self.seq
        tokens = int(Decimal(usd) / USD_PER_TOKEN)
        assert tokens * USD_PER_TOKEN == Decimal(usd)
        body = {
            "v": 1, "id": f"{number:024x}-1", "type": "llm_usage", "agent": agent, "workflow_id": workflow,
            "at": (at or self.now).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "trace_id": "0" * 32, "span_id": "1" * 16, "parent_id": None, "request_id": None, "seq": 1,
            "data": {"gen_ai.request.model": "claude-3-opus", "gen_ai.usage.input_tokens": tokens,
                     "gen_ai.usage.output_tokens": 0},
        }  # fmt: skip
        batch = read_lines([json.dumps({"llm_usage": 1, "agentops.event": body})], f"stream-{number}")
        assert not batch.rejects
        return LedgerWriter(Service(self.dynamodb, self._lock), TABLES, shards=2).write(batch).increments

    def told(self) -> list[tuple[str, str]]:
        """Return (key, threshold) of what was sent, the environment left out of the key."""
        return [(each["key"].partition("/")[2], each["threshold"]) for each in self.sent]

    def marks(self, period: str) -> dict[str, str]:
        """Return the states of the marks of a period."""
        found = self.dynamodb.query(
            TableName=TABLES.ledger,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"ALERT#{period}"}},
        )
        return {item["sk"]["S"]: item["state"]["S"] for item in found["Items"] if "state" in item}

    def pending(self) -> int:
        """Return how many alerts are in the outbox."""
        found = self.dynamodb.query(
            TableName=TABLES.ledger,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": "ALERT#PENDING"}},
        )
        return len(found["Items"])


on_one = pytest.mark.parametrize("dynamodb", ["fake"], indirect=True)
"""Where no condition of DynamoDB's matters that another test does not rest on."""
on_fake_and_embedded = pytest.mark.parametrize(
    "dynamodb",
    ["fake", pytest.param("embedded", marks=pytest.mark.xdist_group("embedded_aws"))],
    indirect=True,
)
"""Where there are many calls, and one opinion of what AWS does will do."""
TEN = Budget(Decimal(10), alarm=True)
MONTHLY = Budget(Decimal(100), "month")
OUTLOOK = {
    "usd": "120", "lower_usd": "104", "upper_usd": "141", "level": "80 %", "model": "level", "models": 6,
    "history": "40 days", "mae_usd": "1.2", "naive_mae_usd": "2.3", "origins": 30, "coverage": "81 %",
}  # fmt: skip
"""A forecast, as an alert has it."""
