"""Alarms of the embedded AWS: CloudWatch's own tables of states, actions, and what is refused by name."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.report.widgets import Span, fetch
from tests.integration import reviewed
from tests.integration.conftest import ACCOUNT, REGION, EmbeddedAws

pytestmark = pytest.mark.xdist_group("embedded_aws")
HOUR = 3600
STATES = ("OK", "ALARM", "INSUFFICIENT_DATA")
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")

# Periods (oldest first; 0 does not breach, X does, - is missing), M of N = 3, states as in TREATMENTS.
# Source, unless said: Amazon CloudWatch user guide, "Configuring how CloudWatch alarms treat missing data",
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html, both tables.
KEEPS = "the state that it had"
MISSING_DATA = [
    ("0-X-X", 3, ("OK", "OK", "OK", "OK")),
    ("0----", 3, ("OK", "OK", "OK", "OK")),
    ("-----", 3, ("INSUFFICIENT_DATA", KEEPS, "ALARM", "OK")),
    ("0XX-X", 3, ("ALARM", "ALARM", "ALARM", "ALARM")),
    ("--X--", 3, ("ALARM", KEEPS, "ALARM", "OK")),
    ("0-X-X", 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
    ("00X0X", 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
    ("0-X--", 2, ("OK", "OK", "ALARM", "OK")),
    ("----0", 2, ("OK", "OK", "ALARM", "OK")),
    ("---X-", 2, ("ALARM", KEEPS, "ALARM", "OK")),
    # "Avoiding premature transitions to alarm state", same page: no alarm before the breach is M periods old.
    # Which state it is instead, for the first, third and last row: the guide's edition of 2018
    # (github.com/awsdocs/amazon-cloudwatch-user-guide, 05fd32f).
    ("----X", 3, ("INSUFFICIENT_DATA", KEEPS, "ALARM", "OK")),
    ("---X-", 3, ("INSUFFICIENT_DATA", KEEPS, "ALARM", "OK")),
    ("X----", 3, ("ALARM", KEEPS, "ALARM", "OK")),
    ("---X0", 3, ("OK", "OK", "OK", "OK")),
    ("----X", 2, ("INSUFFICIENT_DATA", KEEPS, "ALARM", "OK")),
]  # fmt: skip


def test_alarms_treat_missing_data_as_documented(aws: EmbeddedAws) -> None:
    cloudwatch, space = aws.client("cloudwatch"), aws.name("Missing")
    expected = {}
    now = time.time()
    for row, (points, needed, states) in enumerate(MISSING_DATA):
        values = [
            # The middle of each hour that ends now.
            {
                "MetricName": f"m{row}",
                "Value": float(point == "X"),
                "Timestamp": now - HOUR * (4.5 - position),
            }
            for position, point in enumerate(points)
            if point != "-"
        ]
        if values:
            cloudwatch.put_metric_data(Namespace=space, MetricData=values)
        for treatment, state in zip(TREATMENTS, states, strict=True):
            for former in STATES if state == KEEPS else STATES[:1]:
                name = f"{space}-{row}-{treatment}-{former}"
                expected[name] = former if state == KEEPS else state
                cloudwatch.put_metric_alarm(
                    AlarmName=name, Namespace=space, MetricName=f"m{row}", Statistic="Sum", Period=HOUR,
                    EvaluationPeriods=3, DatapointsToAlarm=needed, Threshold=0.5,
                    ComparisonOperator="GreaterThanThreshold", TreatMissingData=treatment,
                )  # fmt: skip
                cloudwatch.set_alarm_state(AlarmName=name, StateValue=former, StateReason="a test")
    aws.settle()
    cloudwatch.put_metric_data(Namespace=space, MetricData=[{"MetricName": "another", "Value": 1}])
    aws.settle()  # so each was evaluated since
    pages = cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{space}-")
    found = {alarm["AlarmName"]: alarm["StateValue"] for page in pages for alarm in page["MetricAlarms"]}
    assert found == expected


def stat(space: str, name: str, **changes: Any) -> dict[str, Any]:
    """Return a query of a metric of environment e."""
    metric = {"Namespace": space, "MetricName": name, "Dimensions": [{"Name": "Environment", "Value": "e"}]}
    query = {"Id": name, "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}, "ReturnData": False}
    query["MetricStat"] |= changes  # type: ignore[operator]
    return query


def breach(aws: EmbeddedAws, space: str, name: str = "m") -> None:
    """Measure 1 in environment e."""
    dimensions = [{"Name": "Environment", "Value": "e"}]
    aws.client("cloudwatch").put_metric_data(
        Namespace=space, MetricData=[{"MetricName": name, "Value": 1, "Dimensions": dimensions}]
    )


def put_alarm(aws: EmbeddedAws, name: str, **settings: Any) -> str:
    """Put an alarm on metric m of a namespace of its name, more than 0 in a minute; return its ARN."""
    metrics = [{**stat(name, "m"), "ReturnData": True}]
    aws.client("cloudwatch").put_metric_alarm(
        **{
            "AlarmName": name, "EvaluationPeriods": 1, "Threshold": 0, "Metrics": metrics,
            "ComparisonOperator": "GreaterThanThreshold", "TreatMissingData": "notBreaching", **settings,
        }
    )  # fmt: skip
    return f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{name}"


def state(aws: EmbeddedAws, alarm: str) -> str:
    return str(aws.client("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"][0]["StateValue"])


def test_alarm_on_metric_math_mails_once_and_tells_the_default_bus(aws: EmbeddedAws) -> None:
    space = aws.name("Alarm")
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
    rate = "100 * FILL(good, 0) / (FILL(good, 0) + FILL(bad, 0))"
    put_alarm(
        aws, space, Threshold=80, ComparisonOperator="LessThanThreshold", AlarmActions=[topic],
        Metrics=[stat(space, "good"), stat(space, "bad"), {"Id": "rate", "Expression": rate}],
    )  # fmt: skip
    aws.until(lambda: state(aws, space) == "OK")
    breach(aws, space, "good")
    breach(aws, space, "bad")
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
    assert "1 out of the last 1 datapoints [50.0 (" in detail["state"]["reason"]
    assert detail["configuration"]["metrics"][0]["metricStat"]["metric"]["dimensions"] == {"Environment": "e"}


def shape(value: Any) -> Any:
    """Return the names and kinds of a document."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    return [shape(one) for one in value] if isinstance(value, list) else type(value).__name__


# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-actions-Lambda.html, "Event object
# sent from CloudWatch to Lambda": the metric alarm's; of the metric's optional members those that are set.
STATE = dict.fromkeys(("value", "reason", "timestamp"), "str")
LAMBDA_EVENT = {
    **dict.fromkeys(("source", "alarmArn", "accountId", "time", "region"), "str"),
    "alarmData": {
        "alarmName": "str",
        "state": STATE | {"reasonData": "str"},
        "previousState": STATE,
        "configuration": {
            "description": "str",
            "metrics": [
                {
                    "id": "str",
                    "metricStat": {
                        "metric": {"namespace": "str", "name": "str", "dimensions": {"Environment": "str"}},
                        "period": "int",
                        "stat": "str",
                    },
                    "returnData": "bool",
                }
            ],
        },
    },
}


def test_alarm_invokes_a_function_with_the_documented_event(aws: EmbeddedAws) -> None:
    name, (function, url) = aws.name("Alarm"), aws.relay()
    unwilling, silent = aws.relay()
    elsewhere, quiet = aws.relay()
    arn = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{name}"
    for one, source in ((function, arn), (elsewhere, f"{arn}-other")):
        aws.client("lambda").add_permission(
            FunctionName=one, StatementId="alarms", Action="lambda:InvokeFunction", SourceArn=source,
            Principal="lambda.alarms.cloudwatch.amazonaws.com",
        )  # fmt: skip
    functions = [aws.arn(one) for one in (unwilling, elsewhere, "no-such-function", function)]
    put_alarm(aws, name, AlarmActions=functions, AlarmDescription="watched")
    breach(aws, name)
    (event,) = aws.until(lambda: aws.bodies(url))
    assert shape(event) == LAMBDA_EVENT
    assert (event["source"], event["alarmArn"], event["accountId"]) == ("aws.cloudwatch", arn, ACCOUNT)
    data = event["alarmData"]
    assert (data["state"]["value"], data["configuration"]["description"]) == ("ALARM", "watched")
    assert data["state"]["timestamp"] == event["time"]
    assert data["configuration"]["metrics"][0]["metricStat"]["metric"]["name"] == "m"
    aws.settle()
    assert aws.bodies(silent) == [], "without a permission"
    assert aws.bodies(quiet) == [], "with a permission for another alarm"


def test_a_function_that_fails_on_an_alarm_is_retried_and_its_event_kept(aws: EmbeddedAws) -> None:
    name, (url, dead) = aws.name("Alarm"), aws.queue()
    function, _ = aws.relay(variables={"FAIL": "1"}, DeadLetterConfig={"TargetArn": dead})
    aws.client("lambda").add_permission(
        FunctionName=function, StatementId="alarms", Action="lambda:InvokeFunction",
        Principal="lambda.alarms.cloudwatch.amazonaws.com",
    )  # fmt: skip
    put_alarm(aws, name, AlarmActions=[aws.arn(function)])
    breach(aws, name)
    (letter,) = aws.until(lambda: aws.bodies(url))
    assert letter["alarmData"]["alarmName"] == name
    assert sum(text.startswith("REPORT") for _, text in aws.log(function)) == 3


def test_disabled_actions_do_nothing_and_each_state_has_its_own(aws: EmbeddedAws) -> None:
    name, cloudwatch, bodies = aws.name("Alarm"), aws.client("cloudwatch"), []
    urls = []
    for _ in STATES:
        function, url = aws.relay()
        aws.client("lambda").add_permission(
            FunctionName=function, StatementId="alarms", Action="lambda:InvokeFunction",
            Principal="lambda.alarms.cloudwatch.amazonaws.com",
        )  # fmt: skip
        urls.append((aws.arn(function), url))
    actions = {
        f"{kind}Actions": [arn]
        for kind, (arn, _) in zip(("OK", "Alarm", "InsufficientData"), urls, strict=True)
    }
    put_alarm(aws, name, **actions, TreatMissingData="ignore")
    for enabled, one in (
        (True, "ALARM"),
        (True, "OK"),
        (False, "ALARM"),
        (False, "OK"),
        (True, "INSUFFICIENT_DATA"),
    ):
        (cloudwatch.enable_alarm_actions if enabled else cloudwatch.disable_alarm_actions)(AlarmNames=[name])
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=one, StateReason=f"{one} by hand")
        aws.settle()
        bodies.append([[body["alarmData"] for body in aws.bodies(url)] for _, url in urls])
    told = [[len(each) for each in step] for step in bodies]
    assert told == [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]
    last = bodies[-1][2][0]
    assert (last["state"]["reason"], last["previousState"]["reason"]) == (
        "INSUFFICIENT_DATA by hand",
        "OK by hand",
    )


def asked(**changes: Any) -> dict[str, Any]:
    return {"Metrics": [{**stat("n", "m", **changes), "ReturnData": True}]}


def math(expression: str, *more: dict[str, Any]) -> dict[str, Any]:
    return {"Metrics": [stat("n", "m"), *more, {"Id": "e", "Expression": expression}]}


BAND = {
    "Metrics": [
        {**stat("n", "m"), "ReturnData": True},
        {"Id": "b", "Expression": "ANOMALY_DETECTION_BAND(m, 2)"},
    ]
}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (BAND | {"ThresholdMetricId": "b"}, "ThresholdMetricId"),
        ({"ComparisonOperator": "LessThanLowerThreshold"}, "LessThanLowerThreshold"),
        ({"EvaluateLowSampleCountPercentile": "ignore"}, "EvaluateLowSampleCountPercentile"),
        ({"Metrics": [], "Namespace": "n", "MetricName": "m", "Period": 60, "Unit": "Count"}, "Unit"),
        (asked(Unit="Count"), "Unit"),
        ({"AlarmActions": ["arn:aws:automate:us-east-1:ec2:stop"]}, "arn:aws:automate"),
        (asked(Period=10), "a period of 10 seconds"),
        (asked(Period=90), "a period of 90 seconds"),
        (asked(Stat="tm90"), "statistic not served: tm90"),
        (asked(Stat="TM(10%:90%)"), "statistic not served"),
        (math("SEARCH('{n}', 'Sum', 60)"), "SEARCH"),
        (math("IF(m > 0, m)"), "IF"),
        # Those that CloudWatch refuses too: PutMetricAlarm, API reference.
        (math("m + x"), "unknown id: x"),
        (math("m", {**stat("n", "m"), "Id": "o", "ReturnData": True}), "exactly one"),
        (math("m + o", {**stat("n", "m", Period=300), "Id": "o"}), "the same in all metrics"),
        ({"Metrics": [{"Id": "e", "Expression": "SEARCH('{n}', 'Sum', 60)"}]}, "SEARCH"),
        ({"Metrics": [{"Id": "e", "Expression": "1 + 1"}]}, "Period must be given"),
        (math("m + M", {**stat("n", "m"), "Id": "M"}), "lower-case letter"),
        ({"EvaluationWindow": {"WallClockWindow": {}}}, "EvaluationWindow"),
        ({"TreatMissingData": "notBreeching"}, "missing, ignore, breaching, notBreaching"),
        ({"OKActions": [f"arn:aws:sns:us-east-1:000000000000:t{n}" for n in range(6)]}, "at most 5 actions"),
        ({"AlarmName": "n" * 256}, "255 characters"),
    ],
)  # fmt: skip
def test_alarms_that_can_not_be_honoured_are_refused_by_name(
    aws: EmbeddedAws, settings: dict[str, Any], named: str
) -> None:
    name = aws.name("Refused")
    with pytest.raises(ClientError, match="ValidationError") as caught:
        put_alarm(aws, name, **settings)
    assert named in str(caught.value)
    assert not aws.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]


def test_composite_alarms_and_old_statistics_are_refused_by_name(aws: EmbeddedAws) -> None:
    cloudwatch = aws.client("cloudwatch")
    with pytest.raises(ClientError, match="composite alarms"):
        cloudwatch.put_composite_alarm(AlarmName="c", AlarmRule='ALARM("a")')
    with pytest.raises(ClientError, match="GetMetricStatistics"):
        cloudwatch.get_metric_statistics(
            Namespace="n", MetricName="m", Period=60, StartTime=0, EndTime=60, Statistics=["Sum"]
        )


def test_every_alarm_and_widget_of_the_stacks_is_served(aws: EmbeddedAws) -> None:
    """What they ask for is refused by name elsewhere in this file if it is not served."""
    cloudwatch, prefix = aws.client("cloudwatch"), aws.name("Served")
    names = []
    for alarm in reviewed.alarms():
        names.append(f"{prefix}-{alarm['AlarmName']}")
        cloudwatch.put_metric_alarm(**{**alarm, "AlarmName": names[-1]})
    aws.settle()
    now, widgets = time.time(), 0
    for board in reviewed.properties("AWS::CloudWatch::Dashboard"):
        body = board["DashboardBody"]
        for widget in body["widgets"]:
            if widget["type"] == "metric":
                span = Span(int(now) - 3 * HOUR, int(now) + HOUR)
                auto = body.get("periodOverride") == "auto"
                widgets += bool(fetch(cloudwatch, widget["properties"], span, auto=auto))
    pages = cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{prefix}-")
    found = {alarm["AlarmName"]: alarm["StateValue"] for page in pages for alarm in page["MetricAlarms"]}
    assert found.keys() == set(names)
    assert len(names) > 10
    assert widgets > 10
    kept = {name for name, value in found.items() if value != "OK"}  # ignore: as they began
    assert all("Cost" in name for name in kept), kept
