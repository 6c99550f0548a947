"""CloudWatch Logs subscription payloads and plain lines, read into events, reports and rejects."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, NamedTuple

from agentops_monitoring.identity import proof_of
from agentops_monitoring.ledger.events import (
    Event,
    LaterVersion,
    Part,
    Refused,
    Reject,
    Report,
    Source,
    decode_line,
    read_event,
)
from agentops_monitoring.pricing import lambda_cost
from agentops_monitoring.pricing.compute import FREE_STORAGE_MB

TERMS = ("agentops.event", "platform.report", "REPORT RequestId")
"""What a subscription filter has to let through: each line that is meant for the ledger holds one of them."""

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: 15 minutes, 10,240 MB of memory, as
# much of storage. INIT is billed too, and has 15 minutes of its own with provisioned concurrency. What says
# more was printed by an agent.
_MAX_RUN_MS = 15 * 60_000
_MAX_BILLED_MS = 2 * _MAX_RUN_MS
_MAX_MEMORY_MB = _MAX_STORAGE_MB = 10_240
_MAX_DIGITS = 15
_REPORT = re.compile(
    r"REPORT RequestId: (?P<request>\S+)\s+Duration: (?P<duration>[\d.]+) ms\s+"
    r"Billed Duration: (?P<billed>\d+) ms\s+Memory Size: (?P<memory>\d+) MB"
)
# A restored snapshot (SnapStart) has no INIT; what restoring took comes before the part of it that is billed.
_INIT = re.compile(r"\s(?:Init|Restore) Duration: ([\d.]+) ms")
_STATUS = re.compile(r"\sStatus: (\w+)")
_ERROR_TYPE = re.compile(r"\sError Type: (\S+)")
_PEAK = re.compile(r"\sMax Memory Used: (\d+) MB")


@dataclass(slots=True)
class Batch:
    """What one delivery holds, read."""

    stream: str
    events: list[Event] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    later: list[Source] = field(default_factory=list)
    """Lines of a later version, to be kept."""
    frame: dict[str, Any] = field(default_factory=dict)
    """The subscription's payload without its log events; empty where there was none."""
    newest_ms: int = 0
    """Time of the newest line, 0 when there is none."""


def decode(data: str) -> dict[str, Any]:
    """Decode the `awslogs.data` of a subscription's invocation.

    Raises
    ------
    Refused
        It is not base64 of gzip of a JSON object with log events.
    """
    try:
        payload = json.loads(gzip.decompress(base64.b64decode(data, validate=True)))
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise Refused(f"payload cannot be decoded: {error}") from None
    if not isinstance(payload, dict) or not isinstance(payload.get("logEvents"), list):
        raise Refused("payload holds no log events")
    return payload


class Function(NamedTuple):
    """What a report line does not say of its function, and the subscription filter's name does."""

    agent: str
    architecture: str
    storage_mb: int = FREE_STORAGE_MB
    """Of `/tmp`."""

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Function | None:
        """Read the name: `agentops|<environment>|<agent>|<architecture>`, then fields such as `tmp=2048`.

        Fields that are not known here are passed over: a later version may write them.
        """
        for name in payload.get("subscriptionFilters") or ():
            fields = str(name).split("|")
            if len(fields) >= 4 and fields[0] == "agentops" and fields[3] in ("arm64", "x86_64"):
                more = dict(field.split("=", 1) for field in fields[4:] if "=" in field)
                storage = more.get("tmp", "")
                known = storage.isdecimal() and FREE_STORAGE_MB <= int(storage) <= _MAX_STORAGE_MB
                return cls(fields[2], fields[3], int(storage) if known else FREE_STORAGE_MB)
        return None


def read_payload(payload: Mapping[str, Any], region: str) -> Batch:
    """Read a decoded payload; events must prove that a process of this log stream wrote them.

    Parameters
    ----------
    payload
        What `decode` returned.
    region
        The AWS region, for Lambda's prices.
    """
    stream = str(payload.get("logStream") or "")
    batch = Batch(stream, frame={name: value for name, value in payload.items() if name != "logEvents"})
    log = str(payload.get("logGroup") or ""), stream
    function = Function.of(payload)
    for log_event in payload["logEvents"]:
        try:
            source = Source(str(log_event["id"]), int(log_event["timestamp"]), str(log_event["message"]))
        except (TypeError, KeyError, ValueError):
            batch.rejects.append(
                Reject("log event lacks id, time or message", Source("", 0, json.dumps(log_event)))
            )
            continue
        batch.newest_ms = max(batch.newest_ms, source.timestamp_ms)
        _read_line(batch, source, log, function, region)
    return batch


def read_lines(lines: Iterable[str], writer: str, now_ms: int = 0) -> Batch:
    """Read lines that this process wrote itself, so there is nothing to prove.

    Parameters
    ----------
    lines
        The monitor's lines.
    writer
        A name of the process; it takes the log stream's place.
    now_ms
        The time, to tell which events are not believed to be of theirs; all are when left out.
    """
    batch = Batch(writer)
    for text in lines:
        _read_line(batch, Source("", 0, text), None, None, "", now_ms)
    return batch


def _read_line(
    batch: Batch,
    source: Source,
    log: tuple[str, str] | None,
    function: Function | None,
    region: str,
    now_ms: int = 0,
) -> None:
    text = source.message
    if not any(term in text for term in TERMS):
        return  # from a filter that lets more through, or a replay
    try:
        if text.startswith("REPORT RequestId:"):
            batch.reports.append(_text_report(source, function, region))
            return
        line = decode_line(text)
        if "agentops.event" in line:
            found = read_event(line, source, now_ms)
            _keep(batch, found, line["agentops.event"].get("proof"), source, log)
            return
        if line.get("type") == "platform.report":
            if not _is_unbilled(line):
                batch.reports.append(_json_report(line, source, function, region))
            return
        raise Refused("neither an event nor a report")
    except Refused as refused:
        if isinstance(refused, LaterVersion) and log is not None:
            batch.later.append(source)
        else:
            batch.rejects.append(Reject(str(refused), source))


def _keep(
    batch: Batch, found: Event | Part, proof: object, source: Source, log: tuple[str, str] | None
) -> None:
    event = found.event if isinstance(found, Part) else found
    event.log = log
    if log is not None and proof != _expected_proof(event.nonce, log[1]):
        batch.rejects.append(Reject("proof does not match the log stream", source, forged=True))
    elif isinstance(found, Part):
        batch.parts.append(found)
    else:
        batch.events.append(found)


@lru_cache(maxsize=256)
def _expected_proof(nonce: str, stream: str) -> str:
    return proof_of(nonce, stream)


def _is_unbilled(line: Mapping[str, Any]) -> bool:
    """Whether it is of Lambda Managed Instances, where nothing is billed by the millisecond."""
    try:
        return list(line["record"]["metrics"]) == ["durationMs"]
    except (KeyError, TypeError):
        return False


def _json_report(line: Mapping[str, Any], source: Source, function: Function | None, region: str) -> Report:
    try:
        record = line["record"]
        metrics = record["metrics"]
        return _report(
            record["requestId"],
            metrics["durationMs"],
            metrics["billedDurationMs"],
            metrics["memorySizeMB"],
            metrics.get("initDurationMs") or metrics.get("restoreDurationMs") or 0,
            record.get("status") or "success",
            source,
            function,
            region,
            record.get("errorType") or "",
            metrics.get("maxMemoryUsedMB") or 0,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Refused(f"report lacks a field: {error}") from None


def _text_report(source: Source, function: Function | None, region: str) -> Report:
    found = _REPORT.match(source.message)
    if found is None:
        raise Refused("report is torn")
    init, status, error_type, peak = (
        pattern.search(source.message) for pattern in (_INIT, _STATUS, _ERROR_TYPE, _PEAK)
    )
    return _report(
        found["request"],
        found["duration"],
        found["billed"],
        found["memory"],
        init[1] if init else 0,
        status[1] if status else "success",
        source,
        function,
        region,
        error_type[1] if error_type else "",
        peak[1] if peak else 0,
    )


def _report(
    request_id: object,
    duration: object,
    billed: object,
    memory: object,
    init: object,
    status: object,
    source: Source,
    function: Function | None,
    region: str,
    error_type: object,
    peak: object,
) -> Report:
    if function is None:
        raise Refused("the subscription filter's name says neither agent nor architecture")
    duration_ms, init_ms, billed_ms, memory_mb = map(_figure, (duration, init, billed, memory))
    if not (
        type(request_id) is str
        and 0 < len(request_id) <= 128
        and request_id.isascii()
        and request_id.isprintable()
        and billed_ms <= _MAX_BILLED_MS
        and duration_ms <= _MAX_BILLED_MS
        and init_ms <= _MAX_BILLED_MS
        and 0 < memory_mb <= _MAX_MEMORY_MB
        and billed_ms == int(billed_ms)
        and memory_mb == int(memory_mb)
    ):
        raise Refused("report is out of range")
    cost, provisioned = (
        lambda_cost(
            int(billed_ms),
            int(memory_mb),
            function.architecture,
            region,
            storage_mb=function.storage_mb,
            provisioned=kept_ready,
        )
        for kept_ready in (False, True)
    )
    return Report(
        source.log_event_id,
        request_id,
        source.timestamp_ms,
        duration_ms,
        int(billed_ms),
        int(memory_mb),
        init_ms,
        str(status)[:32],
        function.agent,
        cost,
        source,
        str(error_type)[:128],
        _peak(peak),
        provisioned,
    )


def _figure(value: object) -> Decimal:
    """Return a number of a report, which is not below 0 and has few enough digits to count with exactly."""
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise Refused("report holds no numbers") from None
    _, digits, exponent = found.as_tuple()
    if not found.is_finite() or found < 0 or len(digits) > _MAX_DIGITS or int(exponent) < -_MAX_DIGITS:
        raise Refused("report is out of range")
    return abs(found)


def _peak(value: object) -> int:
    """Return the memory used at most in MB; 0 for what makes no sense, since no bill depends on it."""
    try:
        found = _figure(value)
    except Refused:
        return 0
    return int(found) if found <= _MAX_MEMORY_MB else 0
