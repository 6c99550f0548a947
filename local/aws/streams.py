"""DynamoDB streams into functions: partial batch failures, bisection, retries, the failure destination."""

from __future__ import annotations

import contextvars
import itertools
import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ministack.services import dynamodb, lambda_svc

from local.aws import permissions
from local.aws.faults import Faults
from local.aws.functions import Functions, Result, ThrottledError

BATCH_BYTES = 6_000_000  # a synchronous invocation's payload (Lambda quotas)
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between tries of one batch
log = logging.getLogger("local.aws.streams")


@dataclass(frozen=True, slots=True)
class _Batch:
    mapping: dict[str, Any]
    function: Mapping[str, Any]
    records: list[dict[str, Any]]


class Streams:
    """Reads each table's stream for each mapping, one batch of a mapping at a time, in order."""

    def __init__(self, functions: Functions, faults: Faults) -> None:
        self._functions = functions
        self._faults = faults
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    @property
    def pending(self) -> int:
        """Number of stream records that a mapping has not dealt with."""
        unread = 0
        for account, region, mapping in lambda_svc._iter_all_esms():
            table = _table_of(mapping)
            if table is None or not mapping.get("Enabled", True):
                continue
            end = dynamodb.stream_end_position(table, account_id=account, region=region)
            unread += max(
                0,
                end - lambda_svc._dynamodb_stream_positions.get_scoped(account, region, mapping["UUID"], end),
            )
        with self._lock:
            return max(unread, len(self._busy))

    def poll(self) -> bool:
        """Start what can be started; called by MiniStack's poller, which a write to a table wakes."""
        started = False
        for account, region, mapping in lambda_svc._iter_all_esms():
            context = contextvars.copy_context()
            started = context.run(self._poll_one, account, region, mapping) or started
        return started

    def _poll_one(self, account: str, region: str, mapping: dict[str, Any]) -> bool:
        lambda_svc._request_account_id.set(account)
        lambda_svc._request_region.set(region)
        table, key = _table_of(mapping), mapping["UUID"]
        with self._lock:
            if table is None or not mapping.get("Enabled", True) or key in self._busy:
                return False
            positions = lambda_svc._dynamodb_stream_positions
            position = max(positions.get(key, 0), dynamodb.stream_start_position(table))
            raw = _within_payload(
                dynamodb.stream_records_since(table, position, int(mapping.get("BatchSize") or 100))
            )
            function, config = lambda_svc._get_func_record_for_qualifier(
                mapping["FunctionName"], mapping.get("Qualifier")
            )
            if not raw or function is None or not _readable(mapping, config):
                return False
            self._busy.add(key)
        batch = _Batch(
            mapping, {**function, "config": config}, lambda_svc._apply_filter_criteria(raw, mapping)
        )
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(self._work, batch, position + len(raw)), daemon=True).start()
        return True

    def _work(self, batch: _Batch, after: int) -> None:
        try:
            if batch.records:
                self._deliver(batch)
            lambda_svc._dynamodb_stream_positions[batch.mapping["UUID"]] = after
        except Exception:  # the batch stays where it is and is read again
            log.exception("stream mapping of %s", batch.mapping["FunctionName"])
            time.sleep(LONGEST_PAUSE)
        finally:
            with self._lock:
                self._busy.discard(batch.mapping["UUID"])
            lambda_svc.esm_wake.set()

    def _deliver(self, batch: _Batch) -> None:
        fault = self._faults.of_delivery(batch.function["config"]["FunctionName"], "twice", "late")
        if fault is not None and fault.fault == "late":
            time.sleep(fault.seconds)
        self._process(batch, batch.records)
        if fault is not None and fault.fault == "twice":
            self._process(batch, batch.records)

    def _process(self, batch: _Batch, records: list[dict[str, Any]]) -> None:
        """Invoke until every record is dealt with: taken, or given up and told to the failure destination."""
        mapping, attempts = batch.mapping, 0
        retries = int(mapping.get("MaximumRetryAttempts", -1))
        oldest = int(mapping.get("MaximumRecordAgeInSeconds", -1))
        while records and mapping["UUID"] in lambda_svc._esms:
            try:
                result = self._functions.deliver(batch.function, {"Records": records})
            except ThrottledError:
                time.sleep(FIRST_PAUSE)
                continue
            attempts += 1
            failed_from = _first_failure(mapping, records, result)
            mapping["LastProcessingResult"] = (
                "OK" if failed_from == len(records) else "PROBLEM: Function call failed"
            )
            if failed_from:
                records, attempts = records[failed_from:], min(attempts, 1)
            if not records:
                return
            age = time.time() - float(
                records[0]["dynamodb"].get("ApproximateCreationDateTime") or time.time()
            )
            if 0 <= oldest < age or 0 <= retries < attempts:
                condition = "MaxRecordAgeExceeded" if 0 <= oldest < age else "RetryAttemptsExhausted"
                self._give_up(batch, records, condition)
                return
            if mapping.get("BisectBatchOnFunctionError") and len(records) > 1:
                half = len(records) // 2
                self._process(batch, records[:half])
                records, attempts = records[half:], 0
                continue
            time.sleep(min(FIRST_PAUSE * 2**attempts, LONGEST_PAUSE))

    def _give_up(self, batch: _Batch, records: list[dict[str, Any]], condition: str) -> None:
        """Tell the failure destination, under the function's role; MiniStack writes the record."""
        mapping, config = batch.mapping, batch.function["config"]
        arn = ((mapping.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
        if not arn:
            return
        if why := permissions.refusal(config, "sqs:SendMessage", arn):
            permissions.tell(f"{config['FunctionName']}: nothing is told of a failed batch: {why}")
            return
        stream = mapping["EventSourceArn"]
        lambda_svc._send_ddb_stream_failure_record(mapping, batch.function, records, stream, {}, condition)


def _first_failure(mapping: Mapping[str, Any], records: list[dict[str, Any]], result: Result) -> int:
    """Return how many records, from the first, are dealt with."""
    if result.failed:
        return 0
    if "ReportBatchItemFailures" not in (mapping.get("FunctionResponseTypes") or []):
        return len(records)
    answer = result.payload if isinstance(result.payload, dict) else {}
    failed = {str(item.get("itemIdentifier")) for item in answer.get("batchItemFailures") or []}
    if not failed:
        return len(records)
    positions = [i for i, one in enumerate(records) if str(one["dynamodb"]["SequenceNumber"]) in failed]
    return min(positions, default=0)  # an identifier that is not in the batch fails the whole of it


def _readable(mapping: dict[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether the function's role may read the stream; its mapping says so when it may not."""
    for action in ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"):
        if why := permissions.refusal(config, f"dynamodb:{action}", mapping["EventSourceArn"]):
            mapping["LastProcessingResult"] = f"PROBLEM: {why}"
            permissions.tell(f"{config['FunctionName']} gets no stream records: {why}")
            return False
    return True


def _table_of(mapping: Mapping[str, Any]) -> str | None:
    parts = str(mapping.get("EventSourceArn", "")).split(":", 5)
    if len(parts) < 6 or parts[2] != "dynamodb":
        return None
    return parts[5].split("/")[1]


def _within_payload(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sizes = itertools.accumulate(len(json.dumps(record, default=str)) for record in records)
    return records[: max(1, sum(size <= BATCH_BYTES for size in sizes))]


def install(streams: Streams) -> None:
    """Replace MiniStack's reader of streams; its poller goes on calling."""
    lambda_svc._poll_dynamodb_streams = streams.poll
