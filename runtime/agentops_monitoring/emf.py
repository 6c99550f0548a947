"""Metrics of the plane's functions, as lines in CloudWatch's embedded metric format."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from agentops_monitoring import catalogue, settings

MAX_METRICS = 100
MAX_VALUES = 100
"""Limits of one directive and of one metric's list of values:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html."""


class MetricValue(NamedTuple):
    """A value, or several of them, of one metric with one set of dimensions."""

    namespace: str
    name: str
    value: float | Sequence[float]
    dimensions: Mapping[str, str]


def emf_lines(
    values: Iterable[MetricValue],
    *,
    at_ms: int,
    detail: catalogue.MetricDetail | None = None,
    declared: Collection[str] = (),
) -> Iterator[str]:
    """Render metric values, without newlines at the ends, for a function to print.

    A value whose dimension set exists only at a higher level of detail is left out, so emitters need not know
    the deployment's level.

    Parameters
    ----------
    values
        What to emit. Values of one metric with the same dimensions are sent together, each of them counted.
    at_ms
        The metrics' time, milliseconds since the epoch.
    detail
        The deployment's level; from the environment when left out.
    declared
        Event types that agents declare beyond the built-in ones.

    Raises
    ------
    ValueError
        The catalogue has no such metric or dimension set, or a value is not a finite number.
    """
    level = settings.load().detail if detail is None else detail
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, list[float]]] = {}
    for each in values:
        found = catalogue.check(
            each.namespace, each.name, each.dimensions, detail=catalogue.MetricDetail.FULL, declared=declared
        )
        names = next(names for names in found.dimension_sets if set(names) == set(each.dimensions))
        if names not in found.sets_at(level):
            continue
        key = (each.namespace, tuple((name, each.dimensions[name]) for name in names))
        numbers = [each.value] if isinstance(each.value, int | float) else list(each.value)
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"{each.namespace} {each.name} has a value that is not finite")
        groups.setdefault(key, {}).setdefault(each.name, []).extend(numbers)
    for (namespace, dimensions), metrics in groups.items():
        for packed in _pack(metrics):
            yield _line(namespace, dict(dimensions), packed, at_ms, declared)


def _pack(metrics: Mapping[str, list[float]]) -> Iterator[dict[str, list[float]]]:
    """Split into lines that stay within both limits; a key may stand in a line once."""
    rest = {name: values for name, values in metrics.items() if values}
    while rest:
        names = list(rest)[:MAX_METRICS]
        yield {name: rest[name][:MAX_VALUES] for name in names}
        rest = {
            name: values[MAX_VALUES:] if name in names else values
            for name, values in rest.items()
            if name not in names or len(values) > MAX_VALUES
        }


def _line(
    namespace: str,
    dimensions: dict[str, str],
    metrics: Mapping[str, list[float]],
    at_ms: int,
    declared: Collection[str],
) -> str:
    directive = {
        "Namespace": namespace,
        "Dimensions": [list(dimensions)],
        "Metrics": [
            {"Name": name, "Unit": catalogue.spec(namespace, name, declared=declared).unit}
            for name in metrics
        ],
    }
    body: dict[str, object] = {"_aws": {"Timestamp": at_ms, "CloudWatchMetrics": [directive]}}
    body.update(dimensions)
    body.update({name: values[0] if len(values) == 1 else values for name, values in metrics.items()})
    return json.dumps(body, separators=(",", ":"))
