"""Logs, metrics and alarms of the embedded AWS, where our claims rest on them."""

from __future__ import annotations

import base64
import gzip
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration.conftest import ACCOUNT, REGION, EmbeddedAws

pytestmark = pytest.mark.xdist_group("embedded_aws")
HOUR = 3600

PRINT = "def handler(event, context):\n    for line in event['print']: print(line)\n"


def subscribe(aws: EmbeddedAws, source: str, destination: str, pattern: str) -> None:
    aws.client("logs").put_subscription_filter(
        logGroupName=f"/aws/lambda/{source}",
        filterName="subscription",
        filterPattern=pattern,
        destinationArn=aws.arn(destination),
    )


def ready_source(aws: EmbeddedAws, source: str = PRINT) -> str:
    function = aws.function(source)
    aws.client("logs").create_log_group(logGroupName=f"/aws/lambda/{function}")
    return function


def test_subscription_delivers_each_matching_line_once_in_order(aws: EmbeddedAws) -> None:
    function, (destination, url) = ready_source(aws), aws.relay()
    subscribe(aws, function, destination, '?"agentops.event" ?"REPORT RequestId"')
    for number in range(20):
        aws.invoke(function, {"print": [f'{{"agentops.event": {number}}}', "other"]})
    aws.settle()
    payloads = [
        json.loads(gzip.decompress(base64.b64decode(body["awslogs"]["data"]))) for body in aws.bodies(url)
    ]
    events = [event for payload in payloads for event in payload["logEvents"]]
    lines = [event["message"] for event in events if "agentops" in event["message"]]
    assert lines == [f'{{"agentops.event": {number}}}' for number in range(20)]
    assert sum(event["message"].startswith("REPORT") for event in events) == 20
    assert len(events) == 40
    assert len({event["id"] for event in events}) == 40
    stored = aws.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{function}")["events"]
    assert {event["id"] for event in events} <= {event["eventId"] for event in stored}
    assert {(p["messageType"], p["owner"], p["subscriptionFilters"][0]) for p in payloads} == {
        ("DATA_MESSAGE", ACCOUNT, "subscription")
    }


def test_failing_subscriber_is_retried_and_ends_in_its_dead_letters(aws: EmbeddedAws) -> None:
    url, arn = aws.queue()
    function = ready_source(aws)
    destination, _ = aws.relay(variables={"FAIL": "1"}, DeadLetterConfig={"TargetArn": arn})
    subscribe(aws, function, destination, "")
    aws.invoke(function, {"print": ["one", "two"]})
    aws.settle()
    (letter,) = aws.bodies(url)
    payload = json.loads(gzip.decompress(base64.b64decode(letter["awslogs"]["data"])))
    assert [event["message"] for event in payload["logEvents"] if len(event["message"]) == 3] == [
        "one",
        "two",
    ]
    assert sum(text.startswith("REPORT") for _, text in aws.log(destination)) == 3


@pytest.mark.parametrize("pattern", ['{ $.level = "ERROR" }', "[ip, user]", "%regular%"])
def test_pattern_forms_that_are_not_served_are_refused(aws: EmbeddedAws, pattern: str) -> None:
    function = ready_source(aws)
    with pytest.raises(ClientError, match="not supported"):
        subscribe(aws, function, function, pattern)
    with pytest.raises(ClientError, match="not supported"):
        aws.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{function}", filterPattern=pattern)


def test_filter_log_events_has_pages_and_terms(aws: EmbeddedAws) -> None:
    function = ready_source(aws)
    aws.invoke(function, {"print": [f"number {n} {'odd' if n % 2 else 'even'}" for n in range(50)]})
    group = f"/aws/lambda/{function}"
    pages = list(
        aws.client("logs")
        .get_paginator("filter_log_events")
        .paginate(logGroupName=group, filterPattern='"number" -odd', PaginationConfig={"PageSize": 10})
    )
    lines = [event["message"] for page in pages for event in page["events"]]
    assert lines == [f"number {n} even" for n in range(0, 50, 2)]
    assert [len(page["events"]) for page in pages] == [10, 10, 5]


def emf(namespace: str, dimensions: list[list[str]], **values: Any) -> str:
    metrics = [{"Name": name, "Unit": "Count"} for name in values if name.islower()]
    directive = {"Namespace": namespace, "Dimensions": dimensions, "Metrics": metrics}
    header = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": header, **values})


def data(aws: EmbeddedAws, queries: list[dict[str, Any]], period: int = HOUR) -> dict[str, list[float]]:
    """Ask GetMetricData over the last hours; short queries are written out."""
    written = []
    for query in queries:
        if "Expression" not in query:
            query = {
                "Id": query["Id"],
                "MetricStat": {"Metric": query, "Period": period, "Stat": query["Stat"]},
            }
            metric = query["MetricStat"]["Metric"]
            query["MetricStat"]["Metric"] = {
                "Namespace": metric["Namespace"],
                "MetricName": metric["Name"],
                "Dimensions": [{"Name": n, "Value": v} for n, v in metric.get("Dimensions", {}).items()],
            }
        written.append(query)
    now = datetime.now(UTC)
    answer = aws.client("cloudwatch").get_metric_data(
        MetricDataQueries=written, StartTime=now - timedelta(hours=2), EndTime=now + timedelta(hours=1)
    )
    return {one["Id"]: [sum(one["Values"])] if one["Values"] else [] for one in answer["MetricDataResults"]}


def test_emf_becomes_metrics_of_exactly_its_dimensions(aws: EmbeddedAws) -> None:
    function, space = aws.function(PRINT), aws.name("Space")
    lines = [
        emf(
            space,
            [["Environment"], ["Environment", "Agent"]],
            Environment="e",
            Agent=agent,
            done=1,
            cost=cost,
        )
        for agent, cost in (("a", 0.5), ("a", 0.25), ("b", 4))
    ]
    wrong = [
        emf(space, [["Absent"]], done=100),
        emf(space, [["Environment"]], Environment=1, done=100),
        '{"_aws"',
    ]
    aws.invoke(function, {"print": lines + wrong})

    def query(key: str, name: str, stat: str = "Sum", **dimensions: str) -> dict[str, Any]:
        return {"Id": key, "Namespace": space, "Name": name, "Stat": stat, "Dimensions": dimensions}

    queries = [
        query("all", "done", Environment="e"),
        query("a", "done", Environment="e", Agent="a"),
        query("b", "cost", Environment="e", Agent="b"),
        query("none", "done"),
        query("mean", "cost", "Average", Environment="e"),
        query("p50", "cost", "p50", Environment="e"),
        {"Id": "math", "Expression": "100 * FILL(a, 0) / (FILL(all, 0) + FILL(none, 0))"},
        {"Id": "nothing", "Expression": "a / none"},
    ]
    found = data(aws, queries)
    assert found["all"] == [3]
    assert found["a"] == [2]
    assert found["b"] == [4]
    assert found["none"] == []
    assert found["mean"] == pytest.approx([4.75 / 3])
    assert found["p50"] == [0.5]
    assert found["math"] == pytest.approx([200 / 3])
    assert found["nothing"] == []
    listed = aws.client("cloudwatch").list_metrics(Namespace=space)["Metrics"]
    assert len(listed) == 6


def test_metric_math_that_is_not_served_is_refused_by_name(aws: EmbeddedAws) -> None:
    with pytest.raises(ClientError, match="ANOMALY_DETECTION_BAND"):
        data(aws, [{"Id": "x", "Expression": "ANOMALY_DETECTION_BAND(m1, 2)"}])


def test_invocations_are_measured(aws: EmbeddedAws) -> None:
    function = aws.function(PRINT)
    for print_what in (["x"], ["x"], None):
        aws.invoke(function, {"print": print_what})
    found = data(
        aws,
        [
            {
                "Id": name.lower(),
                "Namespace": "AWS/Lambda",
                "Name": name,
                "Stat": "Sum",
                "Dimensions": {"FunctionName": function},
            }
            for name in ("Invocations", "Errors", "Throttles", "Duration")
        ],
    )
    assert (found["invocations"], found["errors"], found["throttles"]) == ([3], [1], [0])
    assert found["duration"][0] > 0


# CloudWatch user guide, "Configuring how CloudWatch alarms treat missing data": both tables, oldest period
# first; 0 does not breach, X does. Columns: missing, ignore, breaching, notBreaching.
KEEPS = "INSUFFICIENT_DATA"  # "retain current state", of an alarm that had no data yet
MISSING_DATA = [
    ("0-X-X", 3, ("OK", "OK", "OK", "OK")),
    ("0----", 3, ("OK", "OK", "OK", "OK")),
    ("-----", 3, ("INSUFFICIENT_DATA", KEEPS, "ALARM", "OK")),
    ("0XX-X", 3, ("ALARM", "ALARM", "ALARM", "ALARM")),
    ("--X--", 3, ("ALARM", KEEPS, "ALARM", "OK")),
    ("0-X-X", 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
    ("00X0X", 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
    ("0-X--", 2, ("OK", "OK", "ALARM", "OK")),
    ("-----", 2, ("INSUFFICIENT_DATA", KEEPS, "ALARM", "OK")),
    ("----0", 2, ("OK", "OK", "ALARM", "OK")),
    ("---X-", 2, ("ALARM", KEEPS, "ALARM", "OK")),
]


def test_alarms_treat_missing_data_as_documented(aws: EmbeddedAws) -> None:
    cloudwatch, space = aws.client("cloudwatch"), aws.name("Missing")
    expected = {}
    last_hour = int(time.time() // HOUR) * HOUR - HOUR
    for row, (points, needed, states) in enumerate(MISSING_DATA):
        values = [
            {
                "MetricName": f"m{row}",
                "Value": float(point == "X"),
                "Timestamp": last_hour - HOUR * (4 - position) + 60,
            }
            for position, point in enumerate(points)
            if point != "-"
        ]
        if values:
            cloudwatch.put_metric_data(Namespace=space, MetricData=values)
        for treatment, state in zip(("missing", "ignore", "breaching", "notBreaching"), states, strict=True):
            name = f"{space}-{row}-{treatment}"
            expected[name] = state
            cloudwatch.put_metric_alarm(
                AlarmName=name,
                Namespace=space,
                MetricName=f"m{row}",
                Statistic="Sum",
                Period=HOUR,
                EvaluationPeriods=3,
                DatapointsToAlarm=needed,
                Threshold=0.5,
                ComparisonOperator="GreaterThanThreshold",
                TreatMissingData=treatment,
            )
    time.sleep(0.2)
    aws.settle()
    pages = cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{space}-")
    found = {alarm["AlarmName"]: alarm["StateValue"] for page in pages for alarm in page["MetricAlarms"]}
    assert found == expected


def test_alarm_on_metric_math_mails_once_and_tells_the_default_bus(aws: EmbeddedAws) -> None:
    cloudwatch, space = aws.client("cloudwatch"), aws.name("Alarm")
    topic = aws.client("sns").create_topic(Name=aws.name("topic"))["TopicArn"]
    aws.client("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint="ops@example.com")
    url, arn = aws.queue()
    pattern = {
        "source": ["aws.cloudwatch"],
        "detail-type": ["CloudWatch Alarm State Change"],
        "detail": {"alarmName": [{"prefix": space}], "state": {"value": ["ALARM"]}},
    }
    aws.client("events").put_rule(Name=space, EventPattern=json.dumps(pattern))
    aws.client("events").put_targets(Rule=space, Targets=[{"Id": "queue", "Arn": arn}])

    def stat(key: str) -> dict[str, Any]:
        metric = {
            "Namespace": space,
            "MetricName": key,
            "Dimensions": [{"Name": "Environment", "Value": "e"}],
        }
        return {"Id": key, "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}, "ReturnData": False}

    rate = "100 * FILL(good, 0) / (FILL(good, 0) + FILL(bad, 0))"
    cloudwatch.put_metric_alarm(
        AlarmName=space, EvaluationPeriods=1, Threshold=80, ComparisonOperator="LessThanThreshold",
        TreatMissingData="notBreaching", AlarmActions=[topic],
        Metrics=[stat("good"), stat("bad"), {"Id": "rate", "Expression": rate}],
    )  # fmt: skip
    aws.until(lambda: cloudwatch.describe_alarms(AlarmNames=[space])["MetricAlarms"][0]["StateValue"] == "OK")
    for name, value in (("good", 1), ("bad", 1)):
        dimensions = [{"Name": "Environment", "Value": "e"}]
        cloudwatch.put_metric_data(
            Namespace=space, MetricData=[{"MetricName": name, "Value": value, "Dimensions": dimensions}]
        )
    letters = aws.until(lambda: [mail for mail in aws.local("mail") if mail["topic"] == topic])
    (event,) = aws.until(lambda: aws.bodies(url))
    time.sleep(1.5)
    assert [mail for mail in aws.local("mail") if mail["topic"] == topic] == letters
    assert len(letters) == 1, "mails once, however often it is evaluated"
    assert letters[0]["to"] == "ops@example.com"
    assert letters[0]["subject"] == f'ALARM: "{space}" in {REGION}'
    assert json.loads(letters[0]["body"])["NewStateValue"] == "ALARM"
    detail = event["detail"]
    assert event["resources"] == [f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{space}"]
    assert (detail["alarmName"], detail["state"]["value"], detail["previousState"]["value"]) == (
        space,
        "ALARM",
        "OK",
    )
    assert json.loads(detail["state"]["reasonData"])["recentDatapoints"] == [50.0]
    assert detail["configuration"]["metrics"][0]["metricStat"]["metric"]["dimensions"] == {"Environment": "e"}
