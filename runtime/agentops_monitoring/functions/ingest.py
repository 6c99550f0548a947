"""Lambda entry point: a subscription's log events into the tables, once each; prints what they cost."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from agentops_monitoring import settings
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.dead_letters import DeadLetters
from agentops_monitoring.ledger.events import Refused, Reject, Source
from agentops_monitoring.ledger.metrics import BusiestPairs, Pair, metric_lines
from agentops_monitoring.ledger.origins import Origins
from agentops_monitoring.ledger.parse import decode, read_payload
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.records import Group, group, read_records
from agentops_monitoring.ledger.requests import LedgerBusy
from agentops_monitoring.ledger.watch import Watch
from agentops_monitoring.ledger.writer import LedgerWriter, WriteResult
from agentops_monitoring.pricing import overrides

_RESERVE_S = 3.0
"""Time kept for dead letters and metrics, and to raise before Lambda ends the function."""
_OBJECTS = 100_000
"""How many more objects there have to be before anyone looks for cycles among them."""


class Ingest:
    """The function's parts, made once per process."""

    def __init__(self) -> None:
        client = schema.client()
        tables = schema.Tables.from_environment()
        self.writer = LedgerWriter(client, tables)
        self.reader = LedgerReader(client, tables)
        self.origins = Origins(client, tables.ledger)
        self.pairs = BusiestPairs(self._busiest)
        self.watch = _watch(client, tables)
        self.environment = settings.load().environment
        self.region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"

    def _busiest(self) -> list[Pair]:
        flows = self.reader.last(2).flows
        return sorted(flows, key=lambda pair: (-flows[pair].messages, pair))

    def dead_letters(self) -> DeadLetters:
        """Return the queue of what cannot be taken; nothing is dropped for want of one."""
        import boto3

        url = os.environ.get("DEAD_LETTER_QUEUE_URL")
        if not url:
            raise RuntimeError("DEAD_LETTER_QUEUE_URL is not set, so lines that cannot be read have no place")
        return DeadLetters(boto3.client("sqs"), url)

    def __call__(self, event: Mapping[str, Any], remaining_s: float) -> WriteResult:
        """Handle one delivery. When it raises, the same delivery may come again and changes nothing twice."""
        try:
            data = event["awslogs"]["data"]
        except (KeyError, TypeError):
            raise ValueError("this function takes CloudWatch Logs subscriptions only") from None
        deadline = self._begin(remaining_s)
        try:
            payload = decode(data)
        except Refused as refused:
            return self._refuse(str(data), str(refused))
        if payload.get("messageType") == "CONTROL_MESSAGE":
            return WriteResult()
        return self._commit(payload, deadline)

    def take_records(self, event: Mapping[str, Any], remaining_s: float) -> list[str]:
        """Handle a batch of a Kinesis stream; return the sequence numbers of the records to deliver again.

        What a stream gives up on is only its position, so what can't ever be taken is kept on the queue here,
        and what the tables are too busy for comes again, with all that follows it in its shard.

        Raises
        ------
        Exception
            Nothing could be taken: the function's errors count that, where they do not count a part.
        """
        records = read_records(event["Records"])
        deadline = self._begin(remaining_s)
        groups, refused = group(records)
        failed: list[str] = []
        failure: Exception | None = None
        for record, reason in refused:
            try:
                self._refuse(record.data, reason)
            except Exception as error:  # noqa: BLE001 - whatever it is, the record comes again
                failure, failed = error, [*failed, record.sequence]
        for each in groups:
            try:
                self._take(each, deadline)
            except Exception as error:  # noqa: BLE001
                failure, failed = error, failed + [record.sequence for record in each.records]
        if failure is not None:
            if len(failed) == len(records):
                raise failure
            print(
                json.dumps({"level": "ERROR", "message": "ingest", "again": len(failed), "why": str(failure)})
            )
        return failed

    def _take(self, found: Group, deadline: float) -> None:
        try:
            self._commit(found.payload, deadline)
        except Exception as error:
            if _is_outage(error):
                raise
            # Which of them it was that nobody foresaw is seen when each is taken by itself.
            if len(found.records) > 1:
                for each in found.alone():
                    self._take(each, deadline)
                return
            # It would fail for ever, and hold up its shard.
            self._refuse(found.records[0].data, f"{type(error).__name__}: {error}"[:500])

    def _begin(self, remaining_s: float) -> float:
        overrides.refresh()
        return time.monotonic() + max(1.0, remaining_s - _RESERVE_S)

    def _refuse(self, data: str, reason: str) -> WriteResult:
        result = WriteResult(rejects=[Reject(reason, Source("", 0, ""))])
        self._print(result)
        self.dead_letters().keep_undecodable(data, reason)
        return result

    def _commit(self, payload: Mapping[str, Any], deadline: float) -> WriteResult:
        batch = read_payload(payload, self.region)
        result = self.writer.write(batch, deadline=deadline)
        # First the metrics: a repetition after what may fail below would find nothing left to commit.
        self._print(result)
        if result.rejects:
            self.dead_letters().keep_rejects(payload, result.rejects)
        with suppress(BotoCoreError, ClientError):  # the next payload tells the same
            self.origins.note(payload)
        if self.watch is not None:
            # Who committed what is here already may have ended before he looked at the budgets.
            again = self.watch.workflows(batch) if result.duplicates else ()
            self.watch.after(result.increments, again, deadline=deadline)
        return result

    def _print(self, result: WriteResult) -> None:
        now_ms = time.time_ns() // 1_000_000
        for line in metric_lines(result, self.environment, now_ms, self.pairs):
            print(line, flush=True)


def _watch(client: Any, tables: schema.Tables) -> Watch | None:
    try:
        return Watch.from_environment(client, tables, alarmed=True)
    except ValueError as error:
        # The lines come first; that no budget is watched is gauges' to fail for, each minute.
        print(json.dumps({"level": "ERROR", "message": "budgets", "why": str(error)}), flush=True)
        return None


def _is_outage(error: Exception) -> bool:
    """Whether the same may succeed when it is delivered again."""
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") != "ValidationException"
    return isinstance(error, LedgerBusy | BotoCoreError)


@lru_cache(maxsize=1)
def _ingest() -> Ingest:
    made = Ingest()
    # A batch makes many objects and no cycles: looking for those, each time among all that was loaded, takes
    # a sixth of the time. Other processes are not ours alone.
    if os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
        gc.freeze()
        gc.set_threshold(_OBJECTS)
    return made


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Handle one delivery of a subscription filter, or a batch of them by way of a Kinesis stream."""
    remaining = context.get_remaining_time_in_millis() / 1000 if context is not None else 60.0
    if "Records" in event:
        again = _ingest().take_records(event, remaining)
        return {"batchItemFailures": [{"itemIdentifier": sequence} for sequence in again]}
    result = _ingest()(event, remaining)
    return {
        "events": result.events,
        "reports": result.reports,
        "duplicates": result.duplicates,
        "rejected": len(result.rejects),
        "later": result.later,
        "requests": result.requests,
    }
