"""What CloudWatch knows of a function: its counts, and the distinct failures in its log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from . import clients

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.type_defs import MetricDataQueryTypeDef

METRICS = ("Invocations", "Errors", "Throttles")
MAX_FAILURES = 5
MAX_FAILURE_CHARS = 4000
_PERIOD_SECONDS = 60
# GetMetricData takes 500 queries (CloudWatch quotas).
_MAX_QUERIES = 500
# One term each, for a plain term means the same wherever logs are searched. Python's runtime writes ERROR.
# Lambda's report says "timeout", or a type such as "Runtime.OutOfMemory"; in China and GovCloud it doesn't,
# and lines of their own say "Task timed out" and "Runtime exited".
_TERMS = ("ERROR", "timeout", "timed", "Runtime")
_MAX_PAGES = 10

_VOLATILE = (
    (re.compile(r"\b[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "<address>"),
)
_FRAME = re.compile(r'File "([^"]+)"')
_REPORT = re.compile(
    r"REPORT RequestId: .*?\sDuration: (\d+\.\d+) ms.*?\sStatus: (timeout|error)(?:\s+Error Type: (\S+))?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums over a window."""

    invocations: int = 0
    errors: int = 0
    throttles: int = 0

    @property
    def error_rate(self) -> float:
        """Errors per invocation, 0 without any."""
        return self.errors / self.invocations if self.invocations else 0.0


def counts(functions: Sequence[str], window: timedelta) -> dict[str, Counts]:
    """Return the counts of each function over the window that ends now."""
    step = _MAX_QUERIES // len(METRICS)
    found: dict[str, Counts] = {}
    for start in range(0, len(functions), step):
        found |= _counts(functions[start : start + step], window)
    return found


def _counts(functions: Sequence[str], window: timedelta) -> dict[str, Counts]:
    now = datetime.now(UTC)
    queries: list[MetricDataQueryTypeDef] = [
        {
            "Id": f"m{index}_{metric.lower()}",
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/Lambda",
                    "MetricName": metric,
                    "Dimensions": [{"Name": "FunctionName", "Value": name}],
                },
                "Period": _PERIOD_SECONDS,
                "Stat": "Sum",
            },
        }
        for index, name in enumerate(functions)
        for metric in METRICS
    ]
    sums: dict[str, float] = {}
    pages = clients.cloudwatch().get_paginator("get_metric_data")
    for page in pages.paginate(
        MetricDataQueries=queries,
        StartTime=now - window,
        EndTime=now + timedelta(seconds=_PERIOD_SECONDS),
    ):
        for result in page["MetricDataResults"]:
            sums[result["Id"]] = sums.get(result["Id"], 0.0) + sum(result["Values"])
    return {
        name: Counts(*(int(sums.get(f"m{index}_{metric.lower()}", 0)) for metric in METRICS))
        for index, name in enumerate(functions)
    }


def failures(function: str, window: timedelta) -> list[str]:
    """Return the distinct recent failures of a function.

    Ids, times, addresses and folders are taken out, so equal failures are equal texts on every run; the
    order is that of the texts, and how often each came is left out.
    """
    client = clients.logs()
    since = int((datetime.now(UTC) - window).timestamp() * 1000)
    group = f"/aws/lambda/{function}"
    distinct: set[str] = set()
    for term in _TERMS:
        token = ""
        for _ in range(_MAX_PAGES):
            more = {"nextToken": token} if token else {}
            try:
                page = client.filter_log_events(
                    logGroupName=group,
                    startTime=since,
                    filterPattern=term,
                    **more,  # type: ignore[arg-type]
                )
            except client.exceptions.ResourceNotFoundException:
                return []
            distinct |= {text for event in page["events"] if (text := failure_text(event["message"]))}
            token = page.get("nextToken", "")
            if not token:
                break
        if distinct:
            break
    return sorted(distinct)[:MAX_FAILURES]


def failure_text(message: str) -> str | None:
    """Return the failure that a log message tells of, as a text that is the same on every run; else None."""
    record = _json_record(message)
    if told := _reported(message, record or {}):
        return told
    if record is not None:
        if not record.get("errorType"):
            return None
        head = f"{record['errorType']}: {record.get('errorMessage', '')}"
        stack = record.get("stackTrace") or []
        text = "\n".join(
            [head, *(str(frame).rstrip() for frame in stack)] if isinstance(stack, list) else [head]
        )
    else:
        text = message.replace("\r", "\n").replace("\u00a0", " ")
        if not any(sign in text for sign in ("Traceback (most", "Task timed out", "Runtime exited")):
            return None
        text = text.replace("[ERROR]", "").replace("Traceback (most recent call last):\n", "")
    for pattern, name in _VOLATILE:
        text = pattern.sub(name, text)
    text = _FRAME.sub(lambda match: f'File "{_frame_path(match[1])}"', text)
    return text.strip()[:MAX_FAILURE_CHARS]


def _reported(message: str, record: Mapping[str, Any]) -> str:
    """Return how Lambda's own report says that the runtime ended, empty when it went on."""
    duration, status, kind = "", "", ""
    if found := _REPORT.match(message):
        duration, status, kind = found.groups()
    elif record.get("type") == "platform.report":
        with suppress(KeyError, TypeError, ValueError):  # a function can print what looks like one
            report = record["record"]
            milliseconds = float(report["metrics"]["durationMs"])
            duration, status, kind = str(milliseconds), report["status"], report.get("errorType")
    if status == "timeout":
        return f"Task timed out after {float(duration) / 1000:.2f} seconds"
    return f"Runtime exited: {kind}" if status == "error" else ""


def _json_record(message: str) -> dict[str, Any] | None:
    if not message.startswith("{"):
        return None
    try:
        record = json.loads(message)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _frame_path(path: str) -> str:
    """Leave out what differs between machines: a library keeps one folder, the workload its own path."""
    if "/python3" in path or "/lib/" in path:
        return "/".join(path.split("/")[-2:])
    return path.partition("/var/task/")[2] or path.rpartition("/")[2]
