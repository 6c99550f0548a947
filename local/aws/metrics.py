"""CloudWatch metrics: data points, EMF, GetMetricData with expressions.

Points live in MiniStack's store, so that its ListMetrics and PutMetricData stay in use; they are written under
one lock, and equal values of one second are one point with a count, so that memory stays flat.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services import cloudwatch

from local.aws import clock, metric_math
from local.aws.metric_math import Series

Dimensions = Mapping[str, str]
Key = tuple[str, str, str]
# Embedded metric format specification, limits.
EMF_METRICS, EMF_DIMENSIONS, EMF_VALUES = 100, 30, 100
_PROPERTY = re.compile(r"\$\{(LABEL|PROP\('([^']+)'\))\}")
_SEARCH = re.compile(r"\{\s*([^}]+?)\s*\}\s*(.*)", re.DOTALL)
_TOKEN = re.compile(r'(?:([\w.]+)\s*=\s*)?(?:"([^"]*)"|([\w./-]+))')

_lock = threading.Lock()
_points: dict[tuple[str, str, Key], dict[tuple[int, float, str], dict[str, Any]]] = {}
_listeners: list[Callable[[], None]] = []


def on_new_data(listener: Callable[[], None]) -> None:
    """Call ``listener`` after each write."""
    _listeners.append(listener)


def record(
    namespace: str, name: str, value: float, unit: str = "None", dimensions: Dimensions | None = None
) -> None:
    """Store one value, now."""
    _store(namespace, name, dimensions or {}, clock.now(), unit, value, None, None, None)


def record_emf(message: str) -> None:
    """Extract the metrics of an embedded-metric-format line; what breaks its limits is dropped, as on AWS."""
    try:
        document = json.loads(message)
        header = document["_aws"]
        at = float(header["Timestamp"]) / 1000
        for directive in header["CloudWatchMetrics"]:
            for names in directive.get("Dimensions") or [[]]:
                if len(names) > EMF_DIMENSIONS:
                    continue
                dimensions = {name: document[name] for name in names}
                if not all(isinstance(value, str) and value for value in dimensions.values()):
                    continue
                for metric in directive["Metrics"][:EMF_METRICS]:
                    values = document.get(metric["Name"])
                    values = values[:EMF_VALUES] if isinstance(values, list) else [values]
                    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
                        unit = metric.get("Unit", "None")
                        _store(
                            directive["Namespace"],
                            metric["Name"],
                            dimensions,
                            at,
                            unit,
                            None,
                            values,
                            None,
                            None,
                        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # not EMF: CloudWatch keeps the line and makes no metric


def _store(
    namespace: str,
    name: str,
    dimensions: Dimensions,
    at: float,
    unit: str,
    value: float | None,
    values: Sequence[float] | None,
    counts: Sequence[float] | None,
    statistics: Mapping[str, float] | None,
) -> None:
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
            each = [float(value or 0)] if values is None else [float(v) for v in values]
            for one, count in zip(each, counts or [1.0] * len(each), strict=False):
                known = seen.get((second, one, unit))
                if known is not None:
                    known["Count"] += float(count)
                    continue
                seen[second, one, unit] = {**point, "Value": one, "Count": float(count)}
                bucket.append(seen[second, one, unit])
    for listener in _listeners:
        listener()


def series(metric: Mapping[str, Any], period: int, statistic: str, start: float, end: float) -> Series:
    """Return a metric's statistic per period; a metric is one namespace, one name, and exactly its dimensions."""
    dimensions = {d["Name"]: d["Value"] for d in metric.get("Dimensions") or []}
    key = (metric.get("Namespace"), metric.get("MetricName"), cloudwatch._dims_key(dimensions))
    with _lock:
        points = list(cloudwatch._metrics.get(key) or [])
        buckets: dict[int, list[dict[str, Any]]] = {}
        for point in points:
            if start <= point["Timestamp"] < end:
                buckets.setdefault(int(point["Timestamp"] // period) * period, []).append(dict(point))
    found: Series = {}
    for at, group in buckets.items():
        value = cloudwatch._stat_value(cloudwatch._calc_stats(group), statistic, group)
        if value is not None:
            found[at] = float(value)
    return found


def search(expression: str) -> list[dict[str, Any]]:
    """Return the metrics that a SEARCH expression names: ``{Namespace,Dim,…} term Name="value" …``.

    Raises
    ------
    ValueError
        For boolean operators and parentheses, which are not served here.
    """
    parsed = _SEARCH.fullmatch(expression.strip())
    if not parsed or re.search(r"\b(OR|NOT)\b|[()]", parsed[2]):
        raise ValueError(f"local AWS: this SEARCH form is not supported: {expression}")
    namespace, *names = [part.strip().strip('"') for part in parsed[1].split(",")]
    wanted = [(t[1], t[2] if t[2] is not None else t[3]) for t in _TOKEN.finditer(parsed[2]) if t[3] != "AND"]
    found: list[dict[str, Any]] = []
    with _lock:
        metrics = [(key, points[0]["Dimensions"]) for key, points in cloudwatch._metrics.items() if points]
    for (space, name, _), dimensions in sorted(metrics, key=lambda entry: entry[0]):
        known = {"MetricName": name, **dimensions}
        if space != namespace or set(names) != set(dimensions):
            continue
        if all(known.get(field) == text if field else text in known.values() for field, text in wanted):
            pairs = [{"Name": key, "Value": value} for key, value in dimensions.items()]
            found.append({"Namespace": space, "MetricName": name, "Dimensions": pairs})
    return found


def evaluate(
    queries: Sequence[Mapping[str, Any]], start: float, end: float
) -> dict[str, list[tuple[str, Series]]]:
    """Answer GetMetricData queries: for each id, its labelled series (several for SEARCH and arrays).

    Raises
    ------
    ValueError
        For an expression that is malformed or uses what is not served here.
    """
    by_id = {query["Id"]: query for query in queries}
    periods = [int(q["MetricStat"]["Period"]) for q in queries if q.get("MetricStat")]
    period = max(periods or [int(q.get("Period") or 60) for q in queries])
    grid = range(int(start // period) * period, int(-(-end // period)) * period, period)
    answers: dict[str, metric_math.Value] = {}
    labels: dict[str, list[str]] = {}
    sought: list[dict[str, Any]] = []  # what the SEARCH of the expression at hand found: its labels

    def lookup(name: str) -> metric_math.Value:
        if name not in by_id:
            raise ValueError(f"the expression names an unknown id: {name}")
        if name not in answers:
            query = by_id[name]
            if query.get("MetricStat"):
                stat = query["MetricStat"]
                labels[name] = [_label(query.get("Label"), stat["Metric"])]
                answers[name] = series(stat["Metric"], int(stat["Period"]), stat["Stat"], start, end)
            else:
                every = [key for key, other in by_id.items() if other.get("MetricStat")]
                context = metric_math.Context(grid, period, lookup, every, find)
                sought.clear()
                answers[name] = metric_math.evaluate(query["Expression"], context)
                labels[name] = [_label(query.get("Label"), metric) for metric in sought]
        return answers[name]

    def find(expression: str, statistic: str, seconds: int) -> list[Series]:
        sought[:] = search(expression)
        return [series(metric, seconds, statistic, start, end) for metric in sought]

    results: dict[str, list[tuple[str, Series]]] = {}
    for query in queries:
        value = lookup(query["Id"])
        if isinstance(value, list):
            fallback = [f"{query.get('Label') or query['Id']} {i + 1}" for i in range(len(value))]
            names = labels[query["Id"]] if len(labels[query["Id"]]) == len(value) else fallback
            results[query["Id"]] = list(zip(names, value, strict=True))
        elif isinstance(value, dict):
            name = labels[query["Id"]][0] if query.get("MetricStat") else query.get("Label") or query["Id"]
            results[query["Id"]] = [(name, value)]
        else:
            results[query["Id"]] = [(query.get("Label") or query["Id"], dict.fromkeys(grid, float(value)))]
    return results


def _label(template: str | None, metric: Mapping[str, Any]) -> str:
    dimensions = {f"Dim.{d['Name']}": d["Value"] for d in metric.get("Dimensions") or []}
    known = {"MetricName": metric["MetricName"], "Namespace": metric["Namespace"], **dimensions}
    default = " ".join([*dimensions.values(), metric["MetricName"]]) if dimensions else metric["MetricName"]
    if not template:
        return str(default)
    return _PROPERTY.sub(lambda found: str(known.get(found[2], "") if found[2] else default), template)


def install() -> None:
    """Put our store and our GetMetricData in MiniStack's place."""
    stock_statistics = cloudwatch._get_metric_statistics
    stock_data = cloudwatch._get_metric_data

    def get_metric_data(params: Any, data: dict[str, Any], is_cbor: bool, is_json: bool = False) -> Any:
        if not is_json:  # older clients: MiniStack's answer, without expressions
            return stock_data(params, data, is_cbor, is_json)
        start, end = (float(cloudwatch._parse_ts(data[name])) for name in ("StartTime", "EndTime"))
        queries = data.get("MetricDataQueries") or []
        try:
            answers = evaluate(queries, start, end)
        except (ValueError, KeyError) as error:
            return cloudwatch._error("ValidationError", f"Error in expression: {error}", 400, use_json=True)
        newest_first = data.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        results = [
            {
                "Id": query["Id"],
                "Label": label,
                "StatusCode": "Complete",
                "Timestamps": [cloudwatch._ts_iso(at) for at in sorted(values, reverse=newest_first)],
                "Values": [values[at] for at in sorted(values, reverse=newest_first)],
            }
            for query in queries
            if query.get("ReturnData", True)
            for label, values in answers[query["Id"]]
        ]
        return cloudwatch._json_ok({"MetricDataResults": results})

    def get_metric_statistics(params: Any, data: dict[str, Any], is_cbor: bool, is_json: bool = False) -> Any:
        if is_json and not data.get("Dimensions"):
            # MiniStack reads "no dimensions" as "any": on AWS it is the metric that has none.
            data = {**data, "Dimensions": [{"Name": "", "Value": ""}]}
        return stock_statistics(params, data, is_cbor, is_json)

    cloudwatch._store_datum = _store
    cloudwatch.record_metric = record
    cloudwatch._evict_old_metrics = lambda: None  # it rebuilds every list on each request, without a lock
    cloudwatch._evaluate_all_alarms = lambda: None  # `alarms` does, on new data
    cloudwatch._get_metric_data = get_metric_data
    cloudwatch._get_metric_statistics = get_metric_statistics
