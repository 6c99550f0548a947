"""Streams into functions: partial batch failures, bisection, retries, the failure destination."""

from __future__ import annotations

import contextvars
import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ministack.services import lambda_svc, sqs

from local.aws import clock, metrics, permissions
from local.aws.faults import Faults
from local.aws.functions import Functions, Result, ThrottledError
from local.aws.records import Record
from local.aws.sources import READS, Mapped, Records, Source, arrived, sequence, sources

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between tries of one batch
log = logging.getLogger("local.aws.streams")


class Streams:
    """Reads each source for each mapping, one batch of a source at a time, in order."""

    def __init__(self, functions: Functions, faults: Faults) -> None:
        self._functions = functions
        self._faults = faults
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    @property
    def pending(self) -> int:
        """Number of stream records that a mapping has not dealt with."""
        unread = sum(source.unread for source in sources())
        with self._lock:
            return max(unread, len(self._busy))

    def poll(self) -> bool:
        """Start what can be started; called by MiniStack's poller, which a write to a stream wakes."""
        return sum(self._start(source) for source in sources()) > 0

    def _start(self, source: Source) -> bool:
        mapping = source.mapping
        with self._lock:
            if source.key in self._busy:
                return False
            found, after = source.read(int(mapping.get("BatchSize") or 100))
            function, config = lambda_svc._get_func_record_for_qualifier(
                mapping["FunctionName"], mapping.get("Qualifier")
            )
            if not found or function is None or not _readable(source, config):
                return False
            self._busy.add(source.key)
        batch = ({**function, "config": config}, lambda_svc._apply_filter_criteria(found, mapping))
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(self._work, source, after, *batch), daemon=True).start()
        return True

    def _work(self, source: Source, after: Any, function: Record, records: Records) -> None:
        mapping = source.mapping
        try:
            if records:
                fault = self._faults.of_delivery(function["config"]["FunctionName"], "twice", "late")
                if fault is not None and fault.fault == "late":
                    time.sleep(fault.seconds)
                self._process(mapping, function, records)
                if fault is not None and fault.fault == "twice":
                    self._process(mapping, function, records)
            source.keep(after)
        except Exception:  # the batch stays where it is and is read again
            log.exception("stream mapping of %s", mapping["FunctionName"])
            time.sleep(LONGEST_PAUSE)
        finally:
            with self._lock:
                self._busy.discard(source.key)
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
            age = clock.now() - arrived(records[-1])
            name = {"FunctionName": function["config"]["FunctionName"]}
            metrics.record("AWS/Lambda", "IteratorAge", max(0.0, age * 1000), "Milliseconds", name)
            done = _dealt_with(mapping, records, result)
            good = done == len(records)
            mapping["LastProcessingResult"] = "OK" if good else "PROBLEM: Function call failed"
            if done:
                records, attempts = records[done:], min(attempts, 1)
            if not records:
                return
            age = clock.now() - arrived(records[0])
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


def _give_up(mapping: Mapped, function: Record, records: Records, condition: str) -> None:
    """Tell the failure destination, under the function's role: where the records are, and not what."""
    config = function["config"]
    arn = ((mapping.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
    if arn and (why := permissions.refusal(config, "sqs:SendMessage", arn)):
        permissions.tell(f"{config['FunctionName']}: nothing is told of a failed batch: {why}")
    elif arn and "kinesis" in records[0]:
        body = json.dumps(_kinesis_failure(config, records, condition))
        sqs._act_send_message({"MessageBody": body}, sqs._queue_url(arn.rpartition(":")[2]))
    elif arn:
        stream = mapping["EventSourceArn"]
        lambda_svc._send_ddb_stream_failure_record(mapping, function, records, stream, {}, condition)


def _kinesis_failure(config: Mapping[str, Any], records: Records, condition: str) -> dict[str, Any]:
    """Return Lambda's record of a failed batch (its developer guide, "Retain discarded batch records")."""
    first, last = (datetime.fromtimestamp(arrived(records[at]), UTC).isoformat() for at in (0, -1))
    return {
        "requestContext": {
            "requestId": str(uuid.uuid4()),
            "functionArn": config["FunctionArn"],
            "condition": condition,
            "approximateInvokeCount": 1,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": datetime.fromtimestamp(clock.now(), UTC).isoformat(),
        "KinesisBatchInfo": {
            "shardId": records[0]["eventID"].partition(":")[0],
            "startSequenceNumber": sequence(records[0]),
            "endSequenceNumber": sequence(records[-1]),
            "approximateArrivalOfFirstRecord": first,
            "approximateArrivalOfLastRecord": last,
            "batchSize": len(records),
            "streamArn": records[0]["eventSourceARN"],
        },
    }


def _dealt_with(mapping: Mapping[str, Any], records: Records, result: Result) -> int:
    """Return how many records, from the first, are dealt with."""
    answer = result.payload if isinstance(result.payload, dict) else {}
    failed = {str(item.get("itemIdentifier")) for item in answer.get("batchItemFailures") or []}
    if result.failed:
        return 0
    if not failed or "ReportBatchItemFailures" not in (mapping.get("FunctionResponseTypes") or []):
        return len(records)
    positions = [i for i, one in enumerate(records) if sequence(one) in failed]
    return min(positions, default=0)  # an identifier that is not in the batch fails the whole of it


def _readable(source: Source, config: Mapping[str, Any]) -> bool:
    """Return whether the function's role may read the stream; its mapping says so when it may not."""
    for action in READS[source.service]:
        arn = source.mapping["EventSourceArn"]
        if why := permissions.refusal(config, f"{source.service}:{action}", arn):
            source.mapping["LastProcessingResult"] = f"PROBLEM: {why}"
            permissions.tell(f"{config['FunctionName']} gets no stream records: {why}")
            return False
    return True


def install(streams: Streams) -> None:
    """Replace MiniStack's reader of streams; its poller goes on calling."""
    lambda_svc._poll_dynamodb_streams = streams.poll
    lambda_svc._poll_kinesis = lambda: False
