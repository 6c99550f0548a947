"""A dashboard body's metric widgets: what they ask of CloudWatch, and the drawing of what it answers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from agentops_monitoring import catalogue
from agentops_monitoring.views import charts, timeseries
from agentops_monitoring.views.figures import Unit

AUTO_PERIODS = ((3 * 3600, 60), (86400, 300), (15 * 86400, 3600))
_UNITS = {
    "Milliseconds": Unit.MILLISECONDS,
    "Seconds": Unit.SECONDS,
    "Percent": Unit.PERCENT,
    "Bytes": Unit.BYTES,
}
_NEAR_BLACK = re.compile(r"#([0-4][0-9a-f]){3}\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """The time shown, in epoch seconds."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of a widget's ``metrics``, with the shorthands resolved."""

    id: str
    stat: str
    period: int
    namespace: str = ""
    name: str = ""
    dimensions: tuple[tuple[str, str], ...] = ()
    expression: str = ""
    label: str = ""
    color: str = ""
    visible: bool = True
    right: bool = False

    def query(self) -> dict[str, Any]:
        """The row as an entry of GetMetricData's ``MetricDataQueries``."""
        asked: dict[str, Any] = {"Id": self.id, "ReturnData": self.visible}
        if self.label:
            asked["Label"] = self.label
        if self.expression:
            return {**asked, "Expression": self.expression, "Period": self.period}
        metric = {
            "Namespace": self.namespace,
            "MetricName": self.name,
            "Dimensions": [{"Name": name, "Value": value} for name, value in self.dimensions],
        }
        return {**asked, "MetricStat": {"Metric": metric, "Period": self.period, "Stat": self.stat}}


@dataclass(slots=True)
class Data:
    """What GetMetricData returned for one visible row; a SEARCH gives several."""

    metric: Metric
    label: str
    points: list[tuple[float, float]] = field(default_factory=list)


def expand(properties: Mapping[str, Any], period: int | None = None) -> list[Metric]:
    """Resolve a widget's ``metrics``: ``.`` repeats a value of the row before, ``...`` all in its place.

    Parameters
    ----------
    properties : Mapping[str, Any]
        The widget's properties.
    period : int | None
        Seconds, in place of every period that the widget names (a dashboard may ask for "auto").
    """
    rows: Iterable[list[Any]] = properties.get("metrics", [])
    taken = {row[-1].get("id") for row in rows if isinstance(row[-1], dict)}
    free = (f"q{number}" for number in range(10_000) if f"q{number}" not in taken)
    found: list[Metric] = []
    before: list[str] = []
    for row in rows:
        options = dict(row[-1]) if isinstance(row[-1], dict) else {}
        names = [item for item in row if isinstance(item, str)]
        if "..." in names:
            at = names.index("...")
            after = names[at + 1 :]
            names = [*names[:at], *before[at : len(before) - len(after)], *after]
        names = [before[i] if item == "." and i < len(before) else item for i, item in enumerate(names)]
        before = names or before
        expression = options.get("expression", "")
        if not expression and len(names) < 2:
            raise ValueError(f"a metric row without namespace and name: {row!r}")
        found.append(
            Metric(
                id=options.get("id") or next(free),
                stat=options.get("stat") or properties.get("stat") or "Average",
                period=int(period or options.get("period") or properties.get("period") or 300),
                namespace="" if expression else names[0],
                name="" if expression else names[1],
                dimensions=() if expression else tuple(zip(names[2::2], names[3::2], strict=True)),
                expression=expression,
                label=options.get("label", ""),
                color=options.get("color", ""),
                visible=options.get("visible", True),
                right=options.get("yAxis") == "right",
            )
        )
    return found


def one_period(span: Span) -> tuple[Span, int]:
    """A period, and its bounds, that holds the whole time shown: what ``setPeriodToTimeRange`` means."""
    period = max(60, math.ceil((span.end - span.start) / 60) * 60)
    while span.start // period != (span.end - 1) // period:
        period += 60
    start = span.start // period * period
    return Span(start, start + period), period


def auto_period(span: Span) -> int:
    """CloudWatch's automatic period (seconds) for a time of that length."""
    return next((period for length, period in AUTO_PERIODS if span.end - span.start <= length), 86400)


def fetch(cloudwatch: Any, properties: Mapping[str, Any], span: Span, *, auto: bool) -> list[Data]:
    """Ask GetMetricData what the widget asks; rows that only feed expressions stay out of the answer."""
    whole = bool(properties.get("setPeriodToTimeRange"))
    period = auto_period(span) if auto else None
    if whole:
        span, period = one_period(span)
    metrics = expand(properties, period)
    if not metrics:
        return []
    answers: dict[tuple[str, str], Data] = {}
    pages = cloudwatch.get_paginator("get_metric_data").paginate(
        MetricDataQueries=[metric.query() for metric in metrics],
        StartTime=datetime.fromtimestamp(span.start, UTC),
        EndTime=datetime.fromtimestamp(span.end, UTC),
        ScanBy="TimestampAscending",
    )
    by_id = {metric.id: metric for metric in metrics}
    for page in pages:
        for result in page["MetricDataResults"]:
            metric = by_id[result["Id"]]
            label = metric.label or result.get("Label") or metric.name or metric.expression
            data = answers.setdefault((metric.id, label), Data(metric, label))
            times = (at.timestamp() for at in result.get("Timestamps", []))
            data.points += zip(times, result.get("Values", []), strict=True)
    order = [metric.id for metric in metrics]
    return sorted((d for d in answers.values() if d.metric.visible), key=lambda d: order.index(d.metric.id))


def unit_of(metric: Metric, hint: str = "") -> Unit:
    """What a metric counts: the catalogue knows ours; for the rest its label and its axis tell."""
    if metric.name:
        known = catalogue.METRICS.get((metric.namespace, metric.name))
        if known and known.meaning.startswith(("USD", "SpendToDate")) and known.unit == "None":
            return Unit.USD
        if known:
            return _UNITS.get(known.unit, Unit.COUNT)
        if metric.namespace == "AWS/Lambda" and metric.name == "Duration":
            return Unit.MILLISECONDS
    said = f"{metric.label} {hint}"
    if "%" in said:
        return Unit.PERCENT
    if "USD" in said or "$" in said:
        return Unit.USD
    return Unit.MILLISECONDS if re.search(r"\bms\b", said) else Unit.COUNT


def _color(color: str) -> str:
    """A colour that is near black would vanish on a dark page; the text's own colour never does."""
    return "currentColor" if _NEAR_BLACK.match(color) else color


def _annotations(given: Iterable[Any]) -> list[Mapping[str, Any]]:
    """A band is a pair of annotations; each is drawn as a line of its own."""
    return [each for one in given for each in (one if isinstance(one, list) else [one])]


def _marks(annotations: Mapping[str, Any]) -> list[timeseries.Mark]:
    def mark(given: Mapping[str, Any], value: float, *, vertical: bool) -> timeseries.Mark:
        label, color, fill = (str(given.get(name, "")) for name in ("label", "color", "fill"))
        return timeseries.Mark(value, label, color, vertical, given.get("yAxis") == "right", fill)

    levels = [
        mark(one, float(one["value"]), vertical=False)
        for one in _annotations(annotations.get("horizontal", []))
    ]
    times = _annotations(annotations.get("vertical", []))
    return levels + [
        mark(one, datetime.fromisoformat(one["value"]).timestamp(), vertical=True) for one in times
    ]


def _axis(properties: Mapping[str, Any], side: str) -> timeseries.Axis:
    given = properties.get("yAxis", {}).get(side, {})
    return timeseries.Axis(given.get("min"), given.get("max"), str(given.get("label") or ""))


def draw(
    properties: Mapping[str, Any], data: Sequence[Data], span: Span, width: float, height: float
) -> str | None:
    """Draw a metric widget in the view that it asks for; ``None`` when there is nothing to draw.

    Parameters
    ----------
    properties : Mapping[str, Any]
        The widget's properties.
    data : Sequence[Data]
        What `fetch` returned for it.
    span : Span
        The time shown.
    width, height : float
        The drawing's size in pixels.
    """
    view, title = properties.get("view", "timeSeries"), str(properties.get("title", ""))
    left, right = _axis(properties, "left"), _axis(properties, "right")
    marks = _marks(properties.get("annotations", {}))
    if not any(one.points for one in data):
        return None

    def unit(one: Data) -> Unit:
        return unit_of(one.metric, f"{(right if one.metric.right else left).label} {title}")

    if view == "timeSeries":
        series = [
            timeseries.Series(
                one.label,
                tuple((at, value) for at, value in sorted(one.points) if span.start <= at < span.end),
                _color(one.metric.color),
                float(one.metric.period),
                one.metric.right,
                unit(one),
            )
            for one in data
        ]
        return timeseries.time_series(
            series,
            width=width,
            height=height,
            start=span.start,
            end=span.end,
            title=title,
            stacked=bool(properties.get("stacked")),
            marks=marks,
            left=left,
            right=right,
            show_legend=properties.get("legend", {}).get("position") != "hidden",
        )
    values = [
        charts.Value(one.label, one.points[-1][1], unit(one), _color(one.metric.color), tuple(one.points))
        for one in data
        if one.points
    ]
    if view == "gauge":
        low, high = left.minimum or 0.0, left.maximum if left.maximum is not None else 100.0
        return charts.gauge(values, width=width, height=height, low=low, high=high, marks=marks, title=title)
    if view == "bar":
        return charts.bars(values, width=width, height=height, title=title)
    if view == "pie":
        return charts.ring(values, width=width, height=height, title=title)
    if not properties.get("sparkline"):
        values = [replace(value, points=()) for value in values]
    return charts.big_numbers(values, width=width, height=height, title=title)
