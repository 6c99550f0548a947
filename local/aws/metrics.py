"""CloudWatch metrics: data points, EMF, GetMetricData with expressions.

Points live in MiniStack's store, so that its ListMetrics and PutMetricData stay in use; they are written
under one lock, and equal values of one second are one point with a count, so that memory stays flat.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import cloudwatch, sqs

from local.aws import clock, metric_math
from local.aws.around import around
from local.aws.metric_math import Series

Dimensions = Mapping[str, str]
Key = tuple[str, str, str]
# Embedded metric format specification, limits.
EMF_METRICS, EMF_DIMENSIONS, EMF_VALUES, EMF_TEXT = 100, 30, 100, 1024
PAST, FUTURE = 14 * 86_400, 2 * 3600  # seconds from now that a point may have (PutMetricData, API reference)
MOST_QUERIES = 500  # GetMetricData
STATISTIC = re.compile(r"SampleCount|Sum|Average|Minimum|Maximum|p\d{1,2}(\.\d+)?|p100")

_lock = threading.Lock()
_points: dict[tuple[str, str, Key], dict[tuple[int, float, str], dict[str, Any]]] = {}
_queues: dict[str, tuple[int, int]] = {}  # what was last recorded: the number and the minute
changed = threading.Event()  # set after each write, for who evaluates


def record(
    namespace: str, name: str, value: float, unit: str = "None", dimensions: Dimensions | None = None
) -> None:
    """Store one value, now."""
    _store(namespace, name, dimensions or {}, clock.now(), unit, value)


def record_emf(message: str, group: str) -> None:
    """Extract the metrics of an embedded-metric-format line: all, or none when it breaks the specification.

    CloudWatch keeps such a line and counts it in AWS/Logs EMFValidationErrors or EMFParsingErrors.
    """
    try:
        found = list(_emf_values(json.loads(message)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        name = "EMFParsingErrors" if isinstance(error, json.JSONDecodeError) else "EMFValidationErrors"
        record("AWS/Logs", name, 1, "Count", {"LogGroupName": group})
        return
    for namespace, name, dimensions, at, unit, values in found:
        _store(namespace, name, dimensions, at, unit, values=values)


def _emf_values(line: Any) -> Iterator[tuple[str, str, Dimensions, float, str, list[float]]]:
    at = line["_aws"]["Timestamp"] / 1000
    _must(-PAST <= at - clock.now() <= FUTURE)
    for directive in line["_aws"]["CloudWatchMetrics"]:
        _must(len(directive["Metrics"]) <= EMF_METRICS)
        for names in directive["Dimensions"]:
            dimensions = {name: line[name] for name in names}
            _must(len(dimensions) <= EMF_DIMENSIONS and all(map(_is_dimension, dimensions.values())))
            for metric in directive["Metrics"]:
                found = line[metric["Name"]]
                values = found if isinstance(found, list) else [found]
                _must(len(values) <= EMF_VALUES and not any(isinstance(value, bool) for value in values))
                _must(all(isinstance(value, int | float) and isfinite(value) for value in values))
                unit = metric.get("Unit", "None")
                yield directive["Namespace"], metric["Name"], dimensions, at, unit, values


def _must(holds: bool) -> None:
    if not holds:
        raise ValueError("not as the specification of the embedded metric format says")


def _is_dimension(value: object) -> bool:
    """Return whether CloudWatch takes it as a dimension's value (Dimension, API reference)."""
    return isinstance(value, str) and value.isascii() and 0 < len(value.strip()) <= len(value) <= EMF_TEXT


def _store(
    namespace: str, name: str, dimensions: Dimensions, at: float, unit: str, value: float | None = None,
    values: Sequence[float] | None = None, counts: Sequence[float] | None = None,
    statistics: Mapping[str, float] | None = None,
) -> None:  # fmt: skip
    second = int(at)
    key = (namespace, name, cloudwatch._dims_key(dict(dimensions)))
    point: dict[str, Any] = {"Timestamp": second, "Unit": unit, "Dimensions": dict(dimensions)}
    with _lock:
        bucket = cloudwatch._metric_bucket(key)
        if statistics is not None:
            count = float(statistics.get("SampleCount", 0))
            mean = float(statistics.get("Sum", 0)) / count if count else 0.0
            bucket.append({**point, "Value": mean, "_stat": dict(statistics)})
        else:
            seen = _points.setdefault((get_account_id(), get_region(), key), {})
            each = [float(v) for v in ([value or 0] if values is None else values)]
            for one, count in zip(each, counts or [1.0] * len(each), strict=False):
                if (second, one, unit) not in seen:
                    seen[second, one, unit] = {**point, "Value": one, "Count": 0.0}
                    bucket.append(seen[second, one, unit])
                seen[second, one, unit]["Count"] += float(count)
    changed.set()


def record_queues() -> None:
    """Store AWS/SQS ApproximateNumberOfMessagesVisible of each queue when it changed, and each minute."""
    for (account, region, _), queue in list(sqs._queues.all_items()):
        visible = sum(message["visible_at"] <= time.time() for message in list(queue["messages"]))
        found, name = (visible, int(clock.now() // 60)), queue["name"]
        if _queues.get(name) != found:
            _queues[name] = found
            with request_scope(account, region):
                record("AWS/SQS", "ApproximateNumberOfMessagesVisible", visible, "Count", {"QueueName": name})


def series(
    metric: Mapping[str, Any], period: int, statistic: str, start: float, end: float, anchor: int = 0
) -> Series:
    """Return a statistic per period of one metric: its namespace, its name, and exactly its dimensions.

    Parameters
    ----------
    anchor
        A time at which a period begins.

    Raises
    ------
    ValueError
        For a statistic that is not served here.
    """
    if not STATISTIC.fullmatch(statistic):
        raise ValueError(f"local AWS: statistic not served: {statistic}")
    dimensions = {d["Name"]: d["Value"] for d in metric.get("Dimensions") or []}
    key = (metric.get("Namespace"), metric.get("MetricName"), cloudwatch._dims_key(dimensions))
    buckets: dict[int, list[dict[str, Any]]] = {}
    with _lock:
        for point in cloudwatch._metrics.get(key) or ():
            if start <= point["Timestamp"] < end:
                at = int((point["Timestamp"] - anchor) // period) * period + anchor
                buckets.setdefault(at, []).append(dict(point))
    found = {
        at: cloudwatch._stat_value(cloudwatch._calc_stats(group), statistic, group)
        for at, group in buckets.items()
    }
    return {at: float(value) for at, value in found.items() if value is not None}


def evaluate(
    queries: Sequence[Mapping[str, Any]], start: float, end: float, anchor: int = 0
) -> dict[str, Series]:
    """Answer GetMetricData queries: the series of each id.

    Raises
    ------
    ValueError
        For an expression that is malformed, and what is not served here.
    """
    by_id = {query["Id"]: query for query in queries}
    period = max(period_of(query) for query in queries)
    first, last = int((start - anchor) // period), int(-((anchor - end) // period))
    grid = range(anchor + first * period, anchor + last * period, period)
    answers: dict[str, Series] = {}

    def lookup(name: str) -> Series:
        if name not in by_id:
            raise ValueError(f"the expression names an unknown id: {name}")
        if name not in answers:
            query, stat = by_id[name], by_id[name].get("MetricStat")
            if stat:
                own = int(stat["Period"])
                answers[name] = series(stat["Metric"], own, stat["Stat"], start, end, anchor)
            else:
                answers[name] = metric_math.evaluate(query["Expression"], lookup, grid)
        return answers[name]

    return {query["Id"]: lookup(query["Id"]) for query in queries}


def period_of(query: Mapping[str, Any]) -> int:
    """Return a query's period in seconds."""
    return int(query.get("Period") or (query.get("MetricStat") or {}).get("Period") or 60)


def refuse(handler: str, what: str) -> None:
    """Put a refusal in the place of one of MiniStack's handlers."""

    @around(cloudwatch, handler, invalid="ValidationError")
    def answer(*_: Any, **__: Any) -> Any:
        raise ValueError(f"local AWS: not served: {what}")


def install() -> None:
    """Put our store and our GetMetricData in MiniStack's place."""

    @around(cloudwatch, "_get_metric_data", invalid="ValidationError")
    def get_metric_data(_: Any, __: Any, data: dict[str, Any], *___: Any, **____: Any) -> Any:
        start, end = (float(cloudwatch._parse_ts(data[name])) for name in ("StartTime", "EndTime"))
        queries = data.get("MetricDataQueries") or []
        if len(queries) > MOST_QUERIES:
            raise ValueError(f"more than {MOST_QUERIES} MetricDataQueries")
        answers = evaluate(queries, start, end)
        newest_first = data.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        results = []
        for query in queries:
            if not query.get("ReturnData", True):
                continue
            values, stat = answers[query["Id"]], query.get("MetricStat")
            times = sorted(values, reverse=newest_first)
            result = {"Id": query["Id"], "StatusCode": "Complete", "Values": [values[at] for at in times]}
            result["Label"] = query.get("Label") or (stat["Metric"]["MetricName"] if stat else query["Id"])
            results.append({**result, "Timestamps": [cloudwatch._ts_iso(at) for at in times]})
        return cloudwatch._json_ok({"MetricDataResults": results})

    cloudwatch._store_datum = _store
    cloudwatch.record_metric = record
    cloudwatch._evict_old_metrics = lambda: None  # it rebuilds every list on each request, without a lock
    cloudwatch._evaluate_all_alarms = lambda: None  # `alarms` does, on new data
    refuse("_get_metric_statistics", "GetMetricStatistics")
