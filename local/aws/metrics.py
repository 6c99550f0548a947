"""CloudWatch metrics: data points, EMF, GetMetricData with expressions.

Points live in MiniStack's store, so that its ListMetrics and PutMetricData stay in use; they are written
under one lock and kept until the end. Equal values of one second are one point with a count.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import cloudwatch, sqs

from local.aws import clock, metric_math
from local.aws.around import around
from local.aws.metric_math import Series

Dimensions = Mapping[str, str]
Key = tuple[str, str, str]
EMF_METRICS, EMF_VALUES, DIMENSIONS = 100, 100, 30  # embedded metric format, specification
# API reference of PutMetricData and MetricDatum: seconds from now that a point may have, and its value.
PAST, FUTURE, MOST = 14 * 86_400, 2 * 3600, 2.0**360
# CloudWatch user guide, Metrics concepts; AWS/ is for AWS's own.
NAMESPACE = re.compile(r"(?!AWS/|:| *$)[A-Za-z0-9._/#: -]{1,255}")
NAME, TEXT = re.compile("(?!:| *$)[ -~]{1,255}"), re.compile("(?! *$)[ -~]{1,1024}")  # of a Dimension
UNIT = re.compile(
    "((Micro|Milli)s|S)econds|Percent|None|(Count|B(yte|it)s|(Kilo|Mega|Giga|Tera)(byte|bit)s)(/Second)?"
)
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
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = {name: line[name] for name in names}
            for metric in directive["Metrics"]:
                found = line[metric["Name"]]
                values = found if isinstance(found, list) else [found]
                few = len(directive["Metrics"]) <= EMF_METRICS and len(values) <= EMF_VALUES
                if not few or metric.get("StorageResolution", 60) not in (1, 60):
                    raise ValueError("not as the specification of the embedded metric format says")
                unit = metric.get("Unit", "None")
                _check(directive["Namespace"], metric["Name"], dimensions, at, unit, values)
                yield directive["Namespace"], metric["Name"], dimensions, at, unit, values


def _check(
    namespace: str, name: str, dimensions: Dimensions, at: float, unit: str, values: Sequence[float]
) -> None:
    """Refuse what is no data point of CloudWatch's, naming the parameters that are wrong."""
    holds = {
        "Namespace": NAMESPACE.fullmatch(namespace),
        "MetricName": 0 < len(name) <= 255,
        "Dimensions": len(dimensions) <= DIMENSIONS
        and all(NAME.fullmatch(key) and TEXT.fullmatch(value) for key, value in dimensions.items()),
        "Timestamp": -PAST <= at - clock.now() <= FUTURE,
        "Unit": UNIT.fullmatch(unit),
        "Value": all(type(value) in (int, float) and -MOST <= value <= MOST for value in values),
    }
    if wrong := [parameter for parameter, sound in holds.items() if not sound]:
        raise ValueError(f"The value is invalid for parameter {', '.join(wrong)}")


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

    received: list[Any] = []

    @around(cloudwatch, "_put_metric_data", invalid="InvalidParameterValue")
    def put_metric_data(stock: Any, *request: Any) -> Any:
        received.clear()
        answer = stock(*request)
        for namespace, name, dimensions, at, unit, value, values, _, statistics in received:
            each = [*(statistics or {}).values(), *([value or 0] if values is None else values)]
            _check(namespace, name, dimensions, at, unit, each)  # none is stored unless all are sound
        for datum in received:
            _store(*datum)
        return answer

    cloudwatch._store_datum = lambda *datum: received.append(datum)
    cloudwatch.record_metric = record
    cloudwatch._evict_old_metrics = lambda: None  # it rebuilds every list on each request, without a lock
    cloudwatch._evaluate_all_alarms = lambda: None  # `alarms` does, on new data
    refuse("_get_metric_statistics", "GetMetricStatistics")
