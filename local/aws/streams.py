"""DynamoDB streams into functions: partial batch failures, bisection, retries, the failure destination."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ministack.core.responses import request_scope
from ministack.services import dynamodb, lambda_svc

from local.aws import clock, permissions
from local.aws.faults import Faults
from local.aws.functions import Functions, Result, ThrottledError
from local.aws.records import Record

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between tries of one batch
Mapped = dict[str, Any]
Records = list[dict[str, Any]]
log = logging.getLogger("local.aws.streams")


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
        for table, mapping in _mappings():
            end = dynamodb.stream_end_position(table)
            unread += max(0, end - lambda_svc._dynamodb_stream_positions.get(mapping["UUID"], end))
        with self._lock:
            return max(unread, len(self._busy))

    def poll(self) -> bool:
        """Start what can be started; called by MiniStack's poller, which a write to a table wakes."""
        return sum(self._start(table, mapping) for table, mapping in _mappings()) > 0

    def _start(self, table: str, mapping: Mapped) -> bool:
        key = mapping["UUID"]
        with self._lock:
            if key in self._busy:
                return False
            position = max(
                lambda_svc._dynamodb_stream_positions.get(key, 0), dynamodb.stream_start_position(table)
            )
            found = dynamodb.stream_records_since(table, position, int(mapping.get("BatchSize") or 100))
            function, config = lambda_svc._get_func_record_for_qualifier(
                mapping["FunctionName"], mapping.get("Qualifier")
            )
            if not found or function is None or not _readable(mapping, config):
                return False
            self._busy.add(key)
        batch = (mapping, {**function, "config": config}, lambda_svc._apply_filter_criteria(found, mapping))
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(self._work, position + len(found), *batch), daemon=True).start()
        return True

    def _work(self, after: int, mapping: Mapped, function: Record, records: Records) -> None:
        try:
            if records:
                fault = self._faults.of_delivery(function["config"]["FunctionName"], "twice", "late")
                if fault is not None and fault.fault == "late":
                    time.sleep(fault.seconds)
                self._process(mapping, function, records)
                if fault is not None and fault.fault == "twice":
                    self._process(mapping, function, records)
            lambda_svc._dynamodb_stream_positions[mapping["UUID"]] = after
        except Exception:  # the batch stays where it is and is read again
            log.exception("stream mapping of %s", mapping["FunctionName"])
            time.sleep(LONGEST_PAUSE)
        finally:
            with self._lock:
                self._busy.discard(mapping["UUID"])
            lambda_svc.esm_wake.set()

    def _process(self, mapping: Mapped, function: Record, records: Records) -> None:
        """Invoke until every record is dealt with: taken, or given up and told to the failure destination."""
        attempts, retries = 0, int(mapping.get("MaximumRetryAttempts", -1))
        oldest = int(mapping.get("MaximumRecordAgeInSeconds", -1))
        while records and mapping["UUID"] in lambda_svc._esms:
            try:
                result = self._functions.invoke(function, {"Records": records}, delivery=True)
            except ThrottledError:
                time.sleep(FIRST_PAUSE)
                continue
            attempts += 1
            done = _dealt_with(mapping, records, result)
            good = done == len(records)
            mapping["LastProcessingResult"] = "OK" if good else "PROBLEM: Function call failed"
            if done:
                records, attempts = records[done:], min(attempts, 1)
            if not records:
                return
            age = clock.now() - float(records[0]["dynamodb"]["ApproximateCreationDateTime"])
            if 0 <= oldest < age or 0 <= retries < attempts:
                condition = "MaxRecordAgeExceeded" if 0 <= oldest < age else "RetryAttemptsExhausted"
                _give_up(mapping, function, records, condition)
                return
            if mapping.get("BisectBatchOnFunctionError") and len(records) > 1:
                half = len(records) // 2
                self._process(mapping, function, records[:half])
                records, attempts = records[half:], 0
                continue
            time.sleep(min(FIRST_PAUSE * 2**attempts, LONGEST_PAUSE))


def _mappings() -> Iterator[tuple[str, Mapped]]:
    """Yield each stream mapping that is on after its table, in its account and region."""
    for account, region, mapping in lambda_svc._iter_all_esms():
        table = str(mapping.get("EventSourceArn")).partition(":table/")[2].partition("/")[0]
        if table and mapping.get("Enabled", True):
            with request_scope(account, region):
                yield table, mapping


def _give_up(mapping: Mapped, function: Record, records: Records, condition: str) -> None:
    """Tell the failure destination, under the function's role; MiniStack writes the record."""
    config = function["config"]
    arn = ((mapping.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
    if arn and (why := permissions.refusal(config, "sqs:SendMessage", arn)):
        permissions.tell(f"{config['FunctionName']}: nothing is told of a failed batch: {why}")
    elif arn:
        stream = mapping["EventSourceArn"]
        lambda_svc._send_ddb_stream_failure_record(mapping, function, records, stream, {}, condition)


def _dealt_with(mapping: Mapping[str, Any], records: Records, result: Result) -> int:
    """Return how many records, from the first, are dealt with."""
    answer = result.payload if isinstance(result.payload, dict) else {}
    failed = {str(item.get("itemIdentifier")) for item in answer.get("batchItemFailures") or []}
    if result.failed:
        return 0
    if not failed or "ReportBatchItemFailures" not in (mapping.get("FunctionResponseTypes") or []):
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


def install(streams: Streams) -> None:
    """Replace MiniStack's reader of streams; its poller goes on calling."""
    lambda_svc._poll_dynamodb_streams = streams.poll
