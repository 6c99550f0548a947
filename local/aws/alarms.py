"""CloudWatch alarms: evaluated on new data and each second, with metric math, M of N and missing data.

As on AWS, periods end with a minute of the clock, whatever their length ("Alarm evaluation": a period of 5
minutes is evaluated each minute, on the last 5). The current minute counts as soon as it has data, in place
of CloudWatch's delay.
"""

from __future__ import annotations

import json
import logging
import operator
import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import cloudwatch, eventbridge, lambda_svc, sns
from ministack.services.cloudformation import provisioners

from local.aws import clock, metrics, permissions
from local.aws.around import around

TICK = 1.0  # seconds between evaluations without new data
PAUSE = 0.05  # seconds in which new data gathers
MINUTE = 60
ACTIONS = {"ALARM": "AlarmActions", "OK": "OKActions", "INSUFFICIENT_DATA": "InsufficientDataActions"}
MISSING = ("missing", "ignore", "breaching", "notBreaching")
ID = re.compile("[a-z][A-Za-z0-9_]{,254}")
SPARE_PERIODS = 2  # CloudWatch looks at a few periods more than it evaluates (Alarm user guide, missing data)
UNSERVED = (
    "ThresholdMetricId", "EvaluateLowSampleCountPercentile", "EvaluationCriteria", "Unit",
    "EvaluationWindow", "WarmUpConfiguration", "ActionConfiguration",
)  # fmt: skip
FUNCTION_CALLER = "lambda.alarms.cloudwatch.amazonaws.com"
_COMPARE = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
_told: dict[str, dict[str, Any]] = {}  # the last state of each alarm that was acted on, by ARN
log = logging.getLogger("local.aws.alarms")


def decide(points: list[bool | None], needed: int, window: int, missing: str, state: str) -> str:
    """Return an alarm's new state, by CloudWatch's rules for missing data.

    Parameters
    ----------
    points
        Per period, oldest first, whether it breaches; None without data. May be longer than ``window``.
    needed
        Datapoints to alarm (M).
    window
        Evaluation periods (N).
    missing
        TreatMissingData.
    state
        The state now, which ``ignore`` keeps.
    """
    real = [point for point in points if point is not None][-window:]
    if missing in ("breaching", "notBreaching"):
        real += [missing == "breaching"] * (window - len(real))
        return "ALARM" if sum(real) >= needed else "OK"
    if sum(real) >= needed:
        return "ALARM"
    if not all(real):
        return "OK"
    # No data, or too little, but all of it breaches: an alarm only once the oldest breach is M periods old.
    early = not real or len(points) - points.index(True) < needed
    return state if missing == "ignore" else "INSUFFICIENT_DATA" if early else "ALARM"


class Alarms:
    """Keeps every metric alarm's state up to date, in one thread."""

    def __init__(self) -> None:
        self._evaluating = threading.Lock()
        clock.on_move(metrics.changed.set)
        threading.Thread(target=self._run, name="alarms", daemon=True).start()

    @property
    def pending(self) -> int:
        """1 while new data has not been evaluated."""
        return int(metrics.changed.is_set() or self._evaluating.locked())

    def _run(self) -> None:
        while True:
            metrics.changed.wait(TICK)
            metrics.record_queues()
            time.sleep(PAUSE)
            with self._evaluating:
                metrics.changed.clear()
                for (account, region, _), alarm in list(cloudwatch._alarms.all_items()):
                    with request_scope(account, region):
                        try:
                            evaluate(alarm)
                        except Exception:
                            log.exception("alarm %s", alarm["AlarmName"])


def evaluate(alarm: dict[str, Any]) -> None:
    """Bring one alarm's state up to date, and act on a change."""
    queries = _queries(alarm)
    period = max(metrics.period_of(query) for query in queries)
    window = int(alarm.get("EvaluationPeriods") or 1)
    needed = int(alarm.get("DatapointsToAlarm") or window)
    minute = int(clock.now() // MINUTE) * MINUTE
    end = minute + MINUTE if _has_data(queries, minute) else minute
    times = range(end - period * (window + SPARE_PERIODS), end, period)
    answers = metrics.evaluate(queries, times.start, end, anchor=times.start)
    values = answers[next(query["Id"] for query in queries if query.get("ReturnData", True))]
    comparison, threshold = alarm["ComparisonOperator"], float(alarm["Threshold"])
    points = [_COMPARE[comparison](values[at], threshold) if at in values else None for at in times]
    old = str(alarm["StateValue"])
    new = decide(points, needed, window, alarm.get("TreatMissingData") or "missing", old)
    if new == old:
        return
    recent = [(at, values[at]) for at in times if at in values][-window:]
    shown = ", ".join(
        f"{value} ({datetime.fromtimestamp(at, UTC):%d/%m/%y %H:%M:%S})" for at, value in recent
    )
    reason = "Insufficient Data" if new == "INSUFFICIENT_DATA" else "Threshold Crossed"
    reason += f": {len(recent)} out of the last {window} datapoints [{shown}]; {comparison} ({threshold})"
    facts = {"version": "1.0", "queryDate": _stamp(clock.now()), "period": period, "threshold": threshold}
    if recent:
        facts["startDate"] = _stamp(recent[0][0])
    data = json.dumps({**facts, "recentDatapoints": [value for _, value in recent]})
    answer = {"AlarmName": alarm["AlarmName"], "StateValue": new, "StateReason": reason}
    cloudwatch._set_alarm_state({}, {**answer, "StateReasonData": data}, is_cbor=False, is_json=True)
    alarm["StateTransitionedTimestamp"] = alarm["StateUpdatedTimestamp"]


def _has_data(queries: list[dict[str, Any]], minute: int) -> bool:
    stats = [query["MetricStat"] for query in queries if query.get("MetricStat")]
    return any(
        metrics.series(stat["Metric"], MINUTE, "SampleCount", minute, minute + MINUTE) for stat in stats
    )


def _queries(alarm: Mapping[str, Any]) -> list[dict[str, Any]]:
    if alarm.get("Metrics"):
        queries: list[dict[str, Any]] = alarm["Metrics"]
        return queries
    metric = {name: alarm.get(name) for name in ("Namespace", "MetricName", "Dimensions")}
    statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average"
    return [{"Id": "m1", "MetricStat": {"Metric": metric, "Period": int(alarm["Period"]), "Stat": statistic}}]


def _check(name: str, alarm: Mapping[str, Any]) -> None:
    """Refuse what is not served, and what could not be evaluated."""
    queries = _queries(alarm)
    periods = {metrics.period_of(query) for query in queries if "MetricStat" in query or "Period" in query}
    parts = [alarm, *(query.get("MetricStat") or {} for query in queries)]
    unserved = [one for one in UNSERVED if any(part.get(one) for part in parts)]
    actions = [str(arn) for kind in ACTIONS.values() for arn in alarm.get(kind) or []]
    unserved += [arn for arn in actions if arn.split(":")[2:3] not in (["sns"], ["lambda"])]
    unserved += [] if alarm.get("ComparisonOperator") in _COMPARE else [str(alarm.get("ComparisonOperator"))]
    unserved += [f"a period of {one} seconds" for one in periods if one % MINUTE]
    if unserved:
        raise ValueError(f"local AWS: alarm {name}: not served: {', '.join(unserved)}")
    metrics.evaluate(queries, 0, MINUTE)  # names an unknown id, statistic or function
    missing = alarm.get("TreatMissingData", "missing")
    returned = sum(query.get("ReturnData", True) for query in queries)
    holds = {  # PutMetricAlarm and MetricDataQuery, API reference
        "AlarmName must have 1 to 255 characters": 0 < len(name) <= 255,
        f"TreatMissingData must be one of {', '.join(MISSING)}": missing in MISSING,
        "each state has at most 5 actions": all(len(alarm.get(kind) or []) <= 5 for kind in ACTIONS.values()),
        "an Id begins with a lower-case letter": all(ID.fullmatch(query["Id"]) for query in queries),
        "Period must be given, and the same in all metrics": len(periods) == 1,
        "exactly one element of the metrics list should return data": returned == 1,
    }
    if wrong := [what for what, sound in holds.items() if not sound]:
        raise ValueError("; ".join(wrong))


def _act(alarm: dict[str, Any], old: str, new: str, reason: str) -> list[str]:
    """Send the state-change event to the default bus and to functions; return the topics to publish to.

    Source: CloudWatch user guide, "Alarm events and EventBridge", "Invoke a Lambda function from an alarm".
    """
    arn, now = alarm["AlarmArn"], _stamp(clock.now())
    previous = _told.get(arn)
    if not previous or previous["value"] != old:  # the first change, or that of another alarm of the name
        previous = {"value": old, "reason": "Unchecked: Initial alarm creation", "timestamp": now}
    state = _told[arn] = {"value": new, "reason": reason, "timestamp": now}
    if (facts := alarm.get("StateReasonData")) and facts != previous.get("reasonData"):
        state["reasonData"] = facts  # SetAlarmState without its own leaves the former one
    detail: dict[str, Any] = {"alarmName": alarm["AlarmName"], "state": state, "previousState": previous}
    detail["configuration"] = {"description": alarm.get("AlarmDescription") or "", "metrics": _told_of(alarm)}
    entry: dict[str, Any] = {"Source": "aws.cloudwatch", "DetailType": "CloudWatch Alarm State Change"}
    entry |= {"Resources": [arn], "Detail": json.dumps(detail)}
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
    event = {"source": "aws.cloudwatch", "alarmArn": arn, "accountId": get_account_id(), "time": now}
    event |= {"region": get_region(), "alarmData": detail}
    topics = []
    for action in alarm.get(ACTIONS[new]) or [] if alarm.get("ActionsEnabled", True) else []:
        if ":lambda:" in action:
            if function := permissions.invocable(FUNCTION_CALLER, arn, action):
                lambda_svc.invoke_async_with_retry(function, event)
        elif sns.topic_policy_allows(action, "cloudwatch.amazonaws.com", arn, get_account_id()):
            topics.append(action)
        else:
            permissions.tell(f"{alarm['AlarmName']} does not reach {action}: its policy does not allow it")
    return topics


def _told_of(alarm: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = []
    for query in _queries(alarm):
        entry: dict[str, Any] = {"id": query["Id"], "returnData": query.get("ReturnData", True)}
        if stat := query.get("MetricStat"):
            dimensions = {d["Name"]: d["Value"] for d in stat["Metric"].get("Dimensions") or []}
            names = {"namespace": stat["Metric"]["Namespace"], "name": stat["Metric"]["MetricName"]}
            entry["metricStat"] = {"metric": {**names, "dimensions": dimensions}}
            entry["metricStat"] |= {"period": int(stat["Period"]), "stat": stat["Stat"]}
        else:
            entry |= {"expression": query["Expression"], "label": query.get("Label") or ""}
        listed.append(entry)
    return listed


def _stamp(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}.{int(at % 1 * 1000):03d}+0000"


def install() -> Alarms:
    """Put our evaluation in MiniStack's place, metric math into its records, our actions beside its own."""

    @around(provisioners, "_cw_metric_alarm_record")
    def record(stock: Any, name: str, properties: Mapping[str, Any]) -> Any:
        listed = json.loads(json.dumps(properties.get("Metrics") or []))
        for query in listed:  # templates may say booleans and numbers as text
            query["ReturnData"] = str(query.get("ReturnData", True)).lower() == "true"
            if query.get("MetricStat"):
                query["MetricStat"]["Period"] = int(query["MetricStat"]["Period"])
        _check(name, {"Period": 60, **properties, "Metrics": listed})
        if not listed:
            return stock(name, properties)
        alarm = stock(name, {**properties, "Metrics": None, "MetricName": "-", "Namespace": "-"})
        for single in ("MetricName", "Namespace", "Statistic", "ExtendedStatistic", "Period", "Dimensions"):
            alarm.pop(single, None)
        return {**alarm, "Metrics": listed}

    @around(cloudwatch, "_put_metric_alarm", invalid="ValidationError")
    def put_metric_alarm(_: Any, __: Any, data: dict[str, Any], *___: Any, **____: Any) -> Any:
        cloudwatch.cloudformation_put_metric_alarm(
            provisioners._cw_metric_alarm_record(data["AlarmName"], data)
        )
        return cloudwatch._json_ok({})

    @around(cloudwatch, "_dispatch_alarm_actions")
    def act(stock: Any, alarm: dict[str, Any], old: str, new: str, reason: str) -> None:
        stock({**alarm, ACTIONS[new]: _act(alarm, old, new, reason)}, old, new, reason)

    metrics.refuse("_put_composite_alarm", "composite alarms")
    cloudwatch._evaluate_alarm = lambda _: metrics.changed.set()
    return Alarms()
