"""The clock of the embedded AWS: what alarms, schedules and subscriptions do while hours pass in no time."""

from __future__ import annotations

import base64
import gzip
import json
import math
import random
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from agentops_monitoring import catalogue
from agentops_monitoring.emf import emf_lines
from agentops_monitoring.functions.gauges import gauges
from tests.integration import reviewed
from tests.integration.conftest import EmbeddedAws, running_aws

pytestmark = pytest.mark.xdist_group("embedded_aws_clock")
MINUTE, HOUR, DAY = 60, 3600, 86_400


class MovedAws(EmbeddedAws):
    """An embedded AWS of its own, whose clock moves."""

    def now(self) -> float:
        return float(self.local("clock", {"advance_seconds": 0})["now"])

    def advance(self, seconds: float) -> float:
        """Move the clock, let what follows from it happen, and return the new time."""
        now = float(self.local("clock", {"advance_seconds": seconds})["now"])
        self.settle()
        return now

    def advance_into(self, period: int, seconds: float) -> float:
        """Move to so many seconds after the next full period of the clock, such as noon of an hour."""
        return self.advance(period - self.now() % period + seconds)

    def next_minute(self, minutes: int = 1) -> float:
        """Move to the start of a coming minute, however long the last step took."""
        return self.advance_into(MINUTE, (minutes - 1) * MINUTE + 1)

    def measure(self, space: str, value: float) -> None:
        """Measure metric m, now."""
        self.client("cloudwatch").put_metric_data(
            Namespace=space, MetricData=[{"MetricName": "m", "Value": value}]
        )
        self.settle()

    def alarm(self, name: str, needed: int = 1, window: int = 1, **settings: Any) -> None:
        """Put an alarm on metric m of a namespace of its name, more than 0 in a minute."""
        self.client("cloudwatch").put_metric_alarm(
            **{
                "AlarmName": name, "Namespace": name, "MetricName": "m", "Statistic": "Sum", "Period": MINUTE,
                "EvaluationPeriods": window, "DatapointsToAlarm": needed, "Threshold": 0,
                "ComparisonOperator": "GreaterThanThreshold", "TreatMissingData": "notBreaching", **settings,
            }
        )  # fmt: skip
        self.settle()

    def states(self, *names: str) -> tuple[str, ...]:
        found = self.client("cloudwatch").describe_alarms(AlarmNames=list(names))["MetricAlarms"]
        by_name = {one["AlarmName"]: str(one["StateValue"]) for one in found}
        return tuple(by_name[name] for name in names)

    def refused(self, method: str, page: str, body: Any) -> tuple[int, str]:
        """Ask a page for what it refuses; return the status and the message."""
        request = urllib.request.Request(
            f"{self.url}/_local/{page}", json.dumps(body).encode() if body != "" else b"", method=method
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        with caught.value as answer:
            return answer.code, json.load(answer)["message"]

    def schedule(self, expression: str, state: str = "ENABLED") -> str:
        """Schedule a queue, and return its URL."""
        rule, (url, arn) = self.name("rule"), self.queue()
        self.client("events").put_rule(Name=rule, ScheduleExpression=expression, State=state)
        self.client("events").put_targets(Rule=rule, Targets=[{"Id": "q", "Arn": arn}])
        return url


@pytest.fixture(scope="module")
def moved() -> Iterator[MovedAws]:
    with running_aws("--retry-seconds", "0.05") as (_, url):
        yield MovedAws(url)


WRONG: list[Any] = [[1], {}, 5, "", *({"advance_seconds": wrong} for wrong in (None, "5", [5]))]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        *(({"advance_seconds": number}, "only moves forward") for number in (-1, math.nan, 10**400)),
        *((wrong, 'expected {"advance_seconds": number}') for wrong in WRONG),
    ],
)
def test_the_clock_only_moves_forward(moved: MovedAws, body: Any, told: str) -> None:
    before = moved.now()
    status, message = moved.refused("POST", "clock", body)
    assert (status, told in message) == (400, True), message
    assert 0 <= moved.now() - before < 30


@pytest.mark.parametrize(("method", "page"), [("GET", "clock"), ("GET", "schedules"), ("POST", "faults")])
def test_what_is_no_page_names_those_that_are(moved: MovedAws, method: str, page: str) -> None:
    status, message = moved.refused(method, page, {"rules": []} if method == "POST" else None)
    assert status == 404
    assert f"no such page: {method} /_local/{page}" in message
    assert all(each in message for each in ("GET /_local/idle", "PUT /_local/faults", "POST /_local/clock"))


def test_schedules_fire_when_their_time_has_passed(moved: MovedAws) -> None:
    moved.advance_into(DAY, 6 * HOUR)
    rate, disabled = moved.schedule("rate(5 minutes)"), moved.schedule("rate(5 minutes)", "DISABLED")
    noon = moved.schedule("cron(0 12 * * ? *)")
    fired = []
    for seconds in (4 * MINUTE, MINUTE, 4 * MINUTE, MINUTE, 2 * HOUR, 4 * HOUR, DAY):
        moved.advance(seconds)
        fired.append((len(moved.bodies(rate)), len(moved.bodies(noon))))
    assert fired == [(0, 0), (1, 0), (0, 0), (1, 0), (1, 0), (1, 1), (1, 1)], "once a move, however far"
    assert moved.bodies(disabled) == []


def test_scheduled_events_carry_the_time_of_the_clock(moved: MovedAws) -> None:
    url = moved.schedule("rate(1 hour)")
    now = moved.advance(HOUR)
    (event,) = moved.bodies(url)
    assert event["detail-type"] == "Scheduled Event"
    assert 0 <= now - datetime.fromisoformat(event["time"]).timestamp() < 30


def test_data_that_stops_leaves_an_alarm_as_its_treatment_says(moved: MovedAws) -> None:
    moved.next_minute()
    treatments = ("ignore", "missing", "breaching", "notBreaching")
    names = {one: moved.name(one) for one in treatments}
    for treatment, name in names.items():
        moved.alarm(name, TreatMissingData=treatment)
        moved.measure(name, 1)
    assert moved.states(*names.values()) == ("ALARM",) * 4
    for _ in range(2):  # the last datapoint is looked at for two periods more than are evaluated
        moved.next_minute()
        assert moved.states(*names.values()) == ("ALARM",) * 4
    moved.next_minute(2)
    assert moved.states(*names.values()) == ("ALARM", "INSUFFICIENT_DATA", "ALARM", "OK")
    for name in names.values():
        moved.measure(name, 0)
    assert moved.states(*names.values()) == ("OK",) * 4
    moved.advance(3 * HOUR)
    assert moved.states(*names.values()) == ("OK", "INSUFFICIENT_DATA", "ALARM", "OK")


def test_m_of_n_while_minutes_pass(moved: MovedAws, full_size: bool) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    space, sizes = moved.name("Space"), ((1, 1), (2, 3), (3, 3), (2, 5))
    names = [f"{space}-{needed}-{window}" for needed, window in sizes]
    for name, (needed, window) in zip(names, sizes, strict=True):
        moved.alarm(name, needed, window, Namespace=space)
    history: list[bool | None] = [None] * 10
    for _ in range(200 if full_size else 12):
        moved.next_minute()
        # A gap is never the current minute: whether that will stay one, CloudWatch does not know either.
        history.append(draw.random() < 0.45)
        if draw.random() < 0.25 and len(history) > 11:
            history[-1:] = [None, history[-1]]
            moved.next_minute()
        moved.measure(space, float(bool(history[-1])))
        expected = []
        for needed, window in sizes:
            known = [one for one in history[-window - 2 :] if one is not None][-window:]
            expected.append("ALARM" if sum(known) >= needed else "OK")
        assert moved.states(*names) == tuple(expected), (seed, history)


def test_a_period_slides_with_the_minutes(moved: MovedAws) -> None:
    """More than 5 failures within any 5 minutes, also those across a full 5 minutes of the clock."""
    alarm = reviewed.alarm("HighErrorRate")
    moved.client("cloudwatch").put_metric_alarm(**alarm)
    metric = alarm["Metrics"][0]["MetricStat"]["Metric"]

    def fail(times: int) -> None:
        datum = {"MetricName": metric["MetricName"], "Dimensions": metric["Dimensions"]}
        moved.client("cloudwatch").put_metric_data(
            Namespace=metric["Namespace"], MetricData=[{**datum, "Values": [1.0], "Counts": [times]}]
        )
        moved.settle()

    moved.advance_into(5 * MINUTE, 3 * MINUTE + 1)
    fail(3)
    assert moved.states(alarm["AlarmName"]) == ("OK",)
    moved.advance(3 * MINUTE)
    fail(2)
    assert moved.states(alarm["AlarmName"]) == ("OK",)
    fail(1)
    assert moved.states(alarm["AlarmName"]) == ("ALARM",)
    moved.advance(3 * MINUTE)
    assert moved.states(alarm["AlarmName"]) == ("OK",), "three of six are over 5 minutes old"


def test_the_cost_alarm_over_midnight(moved: MovedAws) -> None:
    """The deployed HighCost on the plane's own gauge lines: one mail a day on which the budget is reached."""
    topic = moved.client("sns").create_topic(Name=moved.name("topic"))["TopicArn"]
    moved.client("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint="ops@example.com")
    alarm, group = reviewed.alarm("HighCost"), moved.name("/gauges")
    moved.client("cloudwatch").put_metric_alarm(**alarm, AlarmActions=[topic])
    moved.client("logs").create_log_group(logGroupName=group)
    moved.client("logs").create_log_stream(logGroupName=group, logStreamName="s")
    spent: dict[date, Decimal] = {}

    def spend(day: date) -> Any:
        return SimpleNamespace(total=SimpleNamespace(total_cost=spent.get(day, Decimal(0))), agents={})

    def minute(seconds: float, usd: str = "") -> tuple[str, int]:
        """Let time pass, spend, let the plane say what was spent today; return the state and the mails."""
        now = moved.advance(seconds)
        at = datetime.fromtimestamp(now, UTC)
        spent[at.date()] = spent.get(at.date(), Decimal(0)) + Decimal(usd or 0)
        reader: Any = SimpleNamespace(spend=spend)
        values = gauges(reader, "production", Decimal(10), at)
        for line in emf_lines(values, at_ms=int(now * 1000), detail=catalogue.MetricDetail.STANDARD):
            events = [{"timestamp": int(now * 1000), "message": line}]
            moved.client("logs").put_log_events(logGroupName=group, logStreamName="s", logEvents=events)
        moved.settle()
        return moved.states(alarm["AlarmName"])[0], len(mails())

    def mails() -> list[Any]:
        return [json.loads(mail["body"]) for mail in moved.local("mail") if mail["topic"] == topic]

    today = moved.advance_into(DAY, DAY - 4 * MINUTE + 1)
    assert minute(0, "9.99") == ("OK", 0)
    assert minute(MINUTE, "0.01") == ("ALARM", 1)
    assert minute(MINUTE, "5") == ("ALARM", 1)
    moved.advance(MINUTE)  # a minute in which the gauge did not run
    assert moved.states(alarm["AlarmName"]) == ("ALARM",)
    assert minute(MINUTE) == ("OK", 1), "midnight"
    moved.advance(5 * HOUR)
    assert minute(0, "3") == ("OK", 1)
    moved.advance(5 * HOUR)
    assert moved.states(alarm["AlarmName"]) == ("OK",), "nothing said is no breach, and no end of one"
    assert minute(0, "7") == ("ALARM", 2)
    assert minute(14 * HOUR) == ("OK", 2), "the next midnight"
    days = [datetime.fromisoformat(mail["StateChangeTime"]).date() for mail in mails()]
    assert (days[1] - days[0]).days == 1
    assert days[0] == datetime.fromtimestamp(today, UTC).date()


PRINT = "def handler(event, context):\n    for line in event: print(line)\n"


def test_without_its_permission_a_subscription_is_off_for_ten_minutes(moved: MovedAws) -> None:
    """CloudWatch Logs user guide, "Real-time processing of log data with subscriptions"."""
    source, (destination, url) = moved.function(PRINT), moved.relay()
    group = f"/aws/lambda/{source}"
    moved.client("logs").create_log_group(logGroupName=group)
    subscription = {
        "logGroupName": group,
        "filterName": "f",
        "filterPattern": "line",
        "destinationArn": moved.arn(destination),
    }
    moved.client("logs").put_subscription_filter(**subscription)
    alarm = moved.name("LogDelivery")
    names = {"LogGroupName": group, "DestinationType": "Lambda", "FilterName": "f"}
    dimensions = [{"Name": name, "Value": value} for name, value in names.items()]
    moved.alarm(
        alarm, Namespace="AWS/Logs", MetricName="DeliveryErrors", Dimensions=dimensions, Period=300,
    )  # fmt: skip
    permission = {
        "FunctionName": destination, "StatementId": "logs", "Action": "lambda:InvokeFunction",
        "Principal": "logs.amazonaws.com",
    }  # fmt: skip

    def write(*lines: str) -> int:
        """Write lines, and return how many of them the function got."""
        moved.invoke(source, lines)
        moved.settle()
        return sum(_lines(body) for body in moved.bodies(url))

    assert write("line 1") == 1
    moved.client("lambda").remove_permission(FunctionName=destination, StatementId="logs")
    assert write("line 2", "line 3") == 0
    assert moved.states(alarm) == ("ALARM",)
    moved.client("lambda").add_permission(**permission)
    assert write("line 4") == 0, "the filter is off"
    moved.advance(9 * MINUTE)
    assert write("line 5") == 0, "still"
    moved.advance(2 * MINUTE)
    assert write("line 6") == 1, "on again; what was written meanwhile is skipped"
    moved.advance(5 * MINUTE)
    assert moved.states(alarm) == ("OK",)
    now = datetime.fromtimestamp(moved.now(), UTC).timestamp()
    stat = {"Metric": {"Namespace": "AWS/Logs", "MetricName": "DeliveryErrors", "Dimensions": dimensions}}
    found = moved.client("cloudwatch").get_metric_data(
        MetricDataQueries=[{"Id": "m", "MetricStat": {**stat, "Period": HOUR, "Stat": "Sum"}}],
        StartTime=now - 2 * HOUR,
        EndTime=now + HOUR,
    )["MetricDataResults"][0]["Values"]
    assert sum(found) == 2, "the lines that met the error"

    moved.client("lambda").remove_permission(FunctionName=destination, StatementId="logs")
    assert write("line 7") == 0
    moved.client("lambda").add_permission(**permission)
    moved.client("logs").put_subscription_filter(**subscription)
    assert write("line 8") == 1, "a filter that is put anew is on"
    moved.client("lambda").delete_function(FunctionName=destination)
    assert write("line 9") == 0
    moved.advance(MINUTE)
    assert moved.states(alarm) == ("ALARM",), "a function that is gone counts too"


def _lines(body: Any) -> int:
    payload = json.loads(gzip.decompress(base64.b64decode(body["awslogs"]["data"])))
    return len(payload["logEvents"])
