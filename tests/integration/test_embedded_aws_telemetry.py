"""Metrics of the embedded AWS: the embedded metric format, statistics, metric math; and what is refused."""

from __future__ import annotations

import json
import math
import operator
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration import reviewed
from tests.integration.conftest import EmbeddedAws

pytestmark = pytest.mark.xdist_group("embedded_aws")
MINUTE, HOUR, DAY = 60, 3600, 86_400

PRINT = "def handler(event, context):\n    for line in event['print']: print(line)\n"
Series = dict[int, float]


def emf(namespace: str, dimensions: list[list[str]], **values: Any) -> dict[str, Any]:
    metrics = [{"Name": name, "Unit": "Count"} for name in values if name.islower()]
    directive = {"Namespace": namespace, "Dimensions": dimensions, "Metrics": metrics}
    header = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    return {"_aws": header, **values}


def stat(
    key: str, namespace: str, name: str, statistic: str = "Sum", period: int = HOUR, **dimensions: str
) -> Any:
    """Return a query of GetMetricData."""
    named = [{"Name": n, "Value": v} for n, v in dimensions.items()]
    metric = {"Namespace": namespace, "MetricName": name, "Dimensions": named}
    return {"Id": key, "MetricStat": {"Metric": metric, "Period": period, "Stat": statistic}}


def data(
    aws: EmbeddedAws, queries: list[dict[str, Any]], start: float, end: float, **more: str
) -> dict[str, Series]:
    """Ask GetMetricData: the value at each time, by id, in the order of the answer."""
    answer = aws.client("cloudwatch").get_metric_data(
        MetricDataQueries=queries, StartTime=start, EndTime=end, **more
    )
    return {
        one["Id"]: {
            int(at.timestamp()): value for at, value in zip(one["Timestamps"], one["Values"], strict=True)
        }
        for one in answer["MetricDataResults"]
    }


def day(aws: EmbeddedAws, *queries: dict[str, Any]) -> dict[str, float | None]:
    """Ask for one value of each query over all that a test can have written; its period is a day and more."""
    for query in queries:
        if "MetricStat" in query:
            query["MetricStat"]["Period"] = 100 * DAY
    now = time.time()
    found = data(aws, list(queries), now - 100 * DAY, now + DAY)
    return {key: next(iter(series.values()), None) for key, series in found.items()}


def test_emf_becomes_metrics_of_exactly_its_dimensions(aws: EmbeddedAws) -> None:
    function, space = aws.function(PRINT), aws.name("Space")
    sets = [["Environment"], ["Environment", "Agent"]]
    lines = [
        json.dumps(emf(space, sets, Environment="e", Agent=agent, done=1, cost=cost))
        for agent, cost in (("a", 0.5), ("a", 0.25), ("b", [2, 2]))
    ]
    aws.invoke(function, {"print": lines})
    found = day(
        aws,
        stat("all", space, "done", Environment="e"),
        stat("a", space, "done", Environment="e", Agent="a"),
        stat("b", space, "cost", Environment="e", Agent="b"),
        stat("none", space, "done"),
        stat("mean", space, "cost", "Average", Environment="e"),
        stat("p50", space, "cost", "p50", Environment="e"),
        {"Id": "math", "Expression": "100 * FILL(a, 0) / (FILL(all, 0) + FILL(none, 0))"},
        {"Id": "nothing", "Expression": "a / none"},
    )
    assert (found["all"], found["a"], found["b"]) == (3, 2, 4)
    assert (found["none"], found["nothing"]) == (None, None)
    assert found["mean"] == pytest.approx(4.75 / 4)
    assert found["p50"] == 1.25
    assert found["math"] == pytest.approx(200 / 3)
    listed = aws.client("cloudwatch").list_metrics(Namespace=space)["Metrics"]
    assert len(listed) == 6


def members(count: int) -> dict[str, int]:
    return dict.fromkeys((f"m{number:03d}" for number in range(count)), 1)


def dimensioned(count: int, value: object = "v") -> Callable[[str], dict[str, Any]]:
    names = [f"D{number}" for number in range(count)]
    return lambda space: emf(space, [names], done=1, **dict.fromkeys(names, value))


def aged(seconds: float) -> Callable[[str], dict[str, Any]]:
    def line(space: str) -> dict[str, Any]:
        made = emf(space, [["E"]], E="e", done=1)
        made["_aws"]["Timestamp"] -= int(seconds * 1000)
        return made

    return line


def valued(value: object) -> Callable[[str], dict[str, Any]]:
    return lambda space: emf(space, [["E"]], E="e", done=value)


def named(**changes: object) -> Callable[[str], dict[str, Any]]:
    """Change the directive, or its metric."""

    def line(space: str) -> dict[str, Any]:
        made = emf(space, [["E"]], E="e", done=1)
        (directive,) = made["_aws"]["CloudWatchMetrics"]
        for name, value in changes.items():
            (directive if name == "Namespace" else directive["Metrics"][0])[name] = value
        return made

    return line


def without(member: str) -> Callable[[str], dict[str, Any]]:
    def line(space: str) -> dict[str, Any]:
        made = emf(space, [["E"]], E="e", done=1)
        for place in (made, made["_aws"], made["_aws"]["CloudWatchMetrics"][0]):
            place.pop(member, None)
        return made

    return line


# "Specification: Embedded metric format", https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/
# CloudWatch_Embedded_Metric_Format_Specification.html: 100 metrics, 30 dimensions, 100 values, 1,024
# characters, targets that are there and of their type. API reference of Dimension: ASCII, not only spaces; of
# PutMetricData: two weeks back, two hours ahead, no special values, none beyond 2^360; of MetricDatum: units
# and resolutions. User guide, "Metrics concepts": the characters of a namespace; AWS/ is reserved.
@pytest.mark.parametrize(
    ("line", "metrics"),
    [
        (lambda space: emf(space, [["E"]], E="e", **members(100)), 100),
        (lambda space: emf(space, [["E"]], E="e", **members(101)), 0),
        (lambda space: emf(space, [[]], done=1), 1),
        (dimensioned(30), 1),
        (dimensioned(31), 0),
        (dimensioned(1, "x" * 1024), 1),
        (dimensioned(1, "x" * 1025), 0),
        (dimensioned(1, "ü"), 0),
        (dimensioned(1, "  "), 0),
        (dimensioned(1, ""), 0),
        (dimensioned(1, 5), 0),
        (valued([1] * 100), 1),
        (valued([1] * 101), 0),
        (valued("1"), 0),
        (valued(None), 0),
        (valued(True), 0),
        (valued([[1]]), 0),
        (valued(float("nan")), 0),
        (valued(float("-inf")), 0),
        (valued(2.3e108), 1),
        (valued(-2.4e108), 0),
        (dimensioned(1, "a\tb"), 0),
        (named(Unit="Kilobytes/Second", StorageResolution=1), 1),
        (named(Unit="Dollars"), 0),
        (named(Unit="count"), 0),
        (named(StorageResolution=5), 0),
        *((named(Namespace=one), 0) for one in ("AWS/Foo", "a b|c", ":a", " ", "", "n" * 256)),
        (aged(14 * DAY - MINUTE), 1),
        (aged(14 * DAY + MINUTE), 0),
        (aged(MINUTE - 2 * HOUR), 1),
        (aged(-MINUTE - 2 * HOUR), 0),
        *((without(one), 0) for one in ("Timestamp", "Namespace", "Dimensions", "Metrics", "E", "done")),
    ],
)  # fmt: skip
def test_emf_that_breaks_a_limit_makes_no_metric_and_is_counted(
    aws: EmbeddedAws, line: Callable[[str], dict[str, Any]], metrics: int
) -> None:
    space, group = aws.name("Space"), aws.name("/group")
    logs, cloudwatch = aws.client("logs"), aws.client("cloudwatch")
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    events = [{"timestamp": int(time.time() * 1000), "message": json.dumps(line(space))}]
    logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)
    assert len(cloudwatch.list_metrics(Namespace=space)["Metrics"]) == metrics
    errors = day(aws, stat("e", "AWS/Logs", "EMFValidationErrors", LogGroupName=group))
    assert errors["e"] == (None if metrics else 1)
    (stored,) = logs.filter_log_events(logGroupName=group)["events"]
    assert stored["message"] == events[0]["message"], "the line is kept"


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [
        ({"Value": float("nan")}, "Value"),
        ({"Value": 1e200}, "Value"),
        ({"Values": [1, float("inf")]}, "Value"),
        ({"StatisticValues": {"SampleCount": 1, "Sum": 1e200, "Minimum": 1, "Maximum": 1}}, "Value"),
        ({"Timestamp": time.time() - 21 * DAY}, "Timestamp"),
        ({"Timestamp": time.time() + 3 * HOUR}, "Timestamp"),
        ({"Dimensions": [{"Name": f"d{n}", "Value": "v"} for n in range(31)]}, "Dimensions"),
        ({"Dimensions": [{"Name": ":d", "Value": "v"}]}, "Dimensions"),
        ({"Unit": "Dollars"}, "Unit"),
        ({"Namespace": "AWS/Foo"}, "Namespace"),
    ],
)
def test_put_metric_data_takes_all_or_none(aws: EmbeddedAws, changes: dict[str, Any], parameter: str) -> None:
    cloudwatch, space = aws.client("cloudwatch"), aws.name("Space")
    namespace, wrong = changes.get("Namespace", space), {n: v for n, v in changes.items() if n != "Namespace"}
    with pytest.raises(ClientError, match="InvalidParameterValue") as caught:
        cloudwatch.put_metric_data(
            Namespace=namespace, MetricData=[{"MetricName": "m", "Value": 1}, {"MetricName": "m", **wrong}]
        )
    assert parameter in str(caught.value)
    assert not cloudwatch.list_metrics(Namespace=namespace)["Metrics"]


def test_lines_that_are_no_json_are_counted_apart(aws: EmbeddedAws) -> None:
    function = aws.function(PRINT)
    aws.invoke(function, {"print": ['{"_aws"', "no metrics here"]})
    group = f"/aws/lambda/{function}"
    names = ("EMFParsingErrors", "EMFValidationErrors")
    found = day(aws, *(stat(name.lower(), "AWS/Logs", name, LogGroupName=group) for name in names))
    assert found == {"emfparsingerrors": 1, "emfvalidationerrors": None}


STATISTICS: dict[str, Callable[[list[Fraction]], Fraction]] = {
    "Sum": lambda values: sum(values, Fraction(0)),
    "Average": lambda values: sum(values, Fraction(0)) / len(values),
    "Maximum": max,
    "Minimum": min,
    "SampleCount": lambda values: Fraction(len(values)),
}
PERCENTILES = ("p50", "p90", "p95", "p99", "p99.9", "p0", "p100")


def test_statistics_are_those_of_an_independent_computation(aws: EmbeddedAws, full_size: bool) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    draw, space = random.Random(seed), aws.name("Space")
    start = int(time.time() // HOUR) * HOUR - 6 * HOUR
    points: list[tuple[float, Fraction, int]] = []
    for _ in range(60 if full_size else 10):
        batch = []
        for _ in range(draw.randint(1, 50)):
            at, value = start + draw.random() * 5 * HOUR, draw.choice((0.0, 1.0, draw.random() * 100))
            count = draw.randint(1, 3)
            points.append((at, Fraction(value), count))
            batch.append({"MetricName": "m", "Timestamp": at, "Values": [value], "Counts": [count]})
        aws.client("cloudwatch").put_metric_data(Namespace=space, MetricData=batch)
    for period in (MINUTE, 5 * MINUTE, HOUR):
        groups: dict[int, list[Fraction]] = defaultdict(list)
        for at, exact, count in points:
            groups[int(at) // period * period] += [exact] * count
        names = {f"s{i}": name for i, name in enumerate((*STATISTICS, *PERCENTILES))}
        queries = [stat(key, space, "m", name, period) for key, name in names.items()]
        newest = data(aws, queries, start, start + 6 * HOUR)
        oldest = data(aws, queries, start, start + 6 * HOUR, ScanBy="TimestampAscending")
        for key, name in names.items():
            assert list(oldest[key]) == sorted(groups)
            assert list(newest[key]) == sorted(groups, reverse=True)
            assert newest[key] == oldest[key]
            for at, value in newest[key].items():
                if name in STATISTICS:
                    assert value == pytest.approx(float(STATISTICS[name](groups[at]))), (seed, name, at)
                else:
                    assert stands(value, float(name[1:]) / 100, groups[at]), (seed, name, at, value)


def stands(value: float, share: float, values: list[Fraction]) -> bool:
    """Say whether it lies between the ranks around a share; how CloudWatch interpolates is not documented."""
    ordered, rank = sorted(values), share * (len(values) - 1)
    low, high = ordered[math.floor(rank + 1e-9)], ordered[math.ceil(rank - 1e-9)]
    return float(low) - 1e-9 <= value <= float(high) + 1e-9


def test_percentiles_need_values_that_are_not_negative(aws: EmbeddedAws) -> None:
    """CloudWatch user guide, "CloudWatch statistics definitions": with a negative value there are none."""
    space = aws.name("Space")
    values = {"MetricName": "m", "Values": [1.0, -1.0]}
    aws.client("cloudwatch").put_metric_data(Namespace=space, MetricData=[values])
    found = day(aws, stat("p", space, "m", "p95"), stat("m", space, "m", "Minimum"))
    assert found == {"p": None, "m": -1}


OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip


def expression(
    draw: random.Random, series: dict[str, Series], grid: Iterable[int], depth: int
) -> tuple[str, Any]:
    """Return a random expression, and its value: a number, or a series that was worked out point by point."""
    kind = draw.random()
    if not depth or kind < 0.2:
        name = draw.choice(list(series))
        return name, series[name]
    if kind < 0.35:
        number = draw.choice((0, 2, 0.5))
        return str(number), float(number)
    if kind < 0.5:
        text, value = expression(draw, series, grid, depth - 1)
        filled = {at: value.get(at, 7.0) if isinstance(value, dict) else value for at in grid}
        return f"FILL({text}, 7)", filled
    if kind < 0.6:
        text, value = expression(draw, series, grid, depth - 1)
        return f"-({text})", {at: -one for at, one in value.items()} if isinstance(value, dict) else -value
    sign = draw.choice(list(OPERATORS))
    (left, a), (right, b) = (expression(draw, series, grid, depth - 1) for _ in range(2))
    if not isinstance(a, dict) and not isinstance(b, dict):
        sign = "+"
        return f"({left} {sign} {right})", a + b
    times = set(a if isinstance(a, dict) else b) & set(b if isinstance(b, dict) else a)
    pairs = {at: (a[at] if isinstance(a, dict) else a, b[at] if isinstance(b, dict) else b) for at in times}
    # A division by zero has no value.
    kept = {at: pair for at, pair in pairs.items() if not (sign == "/" and pair[1] == 0)}
    return f"({left} {sign} {right})", {at: OPERATORS[sign](*pair) for at, pair in kept.items()}


def test_metric_math_is_that_of_an_independent_computation(aws: EmbeddedAws, full_size: bool) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    draw, space = random.Random(seed), aws.name("Space")
    start = int(time.time() // HOUR) * HOUR - HOUR
    grid = range(start, start + 30 * MINUTE, MINUTE)
    series = {name: {at: float(draw.randint(0, 3)) for at in grid if draw.random() < 0.6} for name in "abc"}
    for name, values in series.items():
        put = [{"MetricName": name, "Timestamp": at + 5, "Value": value} for at, value in values.items()]
        aws.client("cloudwatch").put_metric_data(Namespace=space, MetricData=put)
    for _ in range(20 if full_size else 2):
        made = {f"e{number}": expression(draw, series, grid, 4) for number in range(100)}
        queries = [{**stat(name, space, name, "Sum", MINUTE), "ReturnData": False} for name in series]
        queries += [{"Id": key, "Expression": text} for key, (text, _) in made.items()]
        found = data(aws, queries, start, start + 30 * MINUTE)
        assert found.keys() == made.keys(), "what is asked not to be returned is not"
        for key, (text, expected) in made.items():
            wanted = expected if isinstance(expected, dict) else dict.fromkeys(grid, expected)
            assert found[key] == pytest.approx(wanted), (seed, text)


# CloudWatch user guide, "Using math expressions with CloudWatch metrics": every function but FILL, and what
# FILL takes beside a number; https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
FUNCTIONS = (
    "ABS CEIL DATAPOINT_COUNT DAY DIFF DIFF_TIME EPOCH FLOOR HOUR LOG LOG10 MAX MIN MINUTE MONTH PERIOD RATE "
    "RUNNING_SUM SERVICE_QUOTA STDDEV YEAR AVG SUM FIRST LAST METRIC_COUNT REMOVE_EMPTY TIME_SERIES"
)
UNSERVED = (
    *(f"{name}(m)" for name in FUNCTIONS.split()), "ANOMALY_DETECTION_BAND(m, 2)", "METRICS()",
    "DB_PERF_INSIGHTS('RDS', 'db-1', 'os.cpuUtilization.user.avg')", "FILL(m, REPEAT)", "FILL(m, LINEAR)",
    "IF(m > 0, m, 0)", "INSIGHT_RULE_METRIC('rule', Sum)", "LAMBDA('f', 'p')", "SLICE(METRICS(), 0)",
    "SEARCH('{n,d} m', 'Sum', 300)", "SORT(METRICS(), AVG, DESC)", "SELECT AVG(m) FROM n",
    "m > 0", "m AND m", "m ^ 2", "[m, m]", "m.n", "m +", "'m'",
)  # fmt: skip


@pytest.mark.parametrize("text", UNSERVED)
def test_metric_math_that_is_not_served_is_refused_by_name(aws: EmbeddedAws, text: str) -> None:
    queries = [stat("m", "n", "m"), {"Id": "e", "Expression": text}]
    with pytest.raises(ClientError, match="ValidationError") as caught:
        data(aws, queries, 0, HOUR)
    assert text.split("(")[0].split()[0].strip("[',") in str(caught.value)


@pytest.mark.parametrize(
    "name", ["tm90", "TM(10%:90%)", "IQM", "wm98", "tc90", "ts90", "PR(:300)", "p101", "median"]
)
def test_statistics_that_are_not_served_are_refused_by_name(aws: EmbeddedAws, name: str) -> None:
    with pytest.raises(ClientError, match="statistic not served") as caught:
        data(aws, [stat("m", "n", "m", name)], 0, HOUR)
    assert name in str(caught.value)


def test_get_metric_data_takes_500_queries(aws: EmbeddedAws) -> None:
    """CloudWatch API reference, GetMetricData."""
    queries = [stat(f"m{number}", "n", "m") for number in range(501)]
    assert len(data(aws, queries[:500], 0, HOUR)) == 500
    with pytest.raises(ClientError, match="ValidationError"):
        data(aws, queries, 0, HOUR)


def test_what_the_stacks_ask_of_metrics_is_tested_here() -> None:
    """The statistics and functions of every alarm and widget are among those computed above."""
    asked = json.dumps([list(reviewed.alarms()), list(reviewed.properties("AWS::CloudWatch::Dashboard"))])
    found: dict[str, set[str]] = defaultdict(set)

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for name, one in value.items():
                if isinstance(one, str):
                    found[name.lower()].add(one)
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    walk(json.loads(asked))
    statistics = found["stat"] | found["statistic"] | found["extendedstatistic"]
    assert {"Sum", "Maximum", "p95"} <= statistics <= {*STATISTICS, *PERCENTILES}
    calls = {
        word for text in found["expression"] for word in text.replace("(", "( ").split() if word.endswith("(")
    }
    assert calls - {"("} == {"FILL("}


def test_invocations_are_measured(aws: EmbeddedAws) -> None:
    function = aws.function(PRINT)
    for print_what in (["x"], ["x"], None):
        aws.invoke(function, {"print": print_what})
    names = ("Invocations", "Errors", "Throttles", "Duration")
    found = day(aws, *(stat(name.lower(), "AWS/Lambda", name, FunctionName=function) for name in names))
    assert (found["invocations"], found["errors"], found["throttles"]) == (3, 1, 0)
    assert (found["duration"] or 0) > 0
