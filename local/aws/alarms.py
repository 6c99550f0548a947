"""CloudWatch alarms: evaluated on new data and each second, with metric math, M of N and missing data.

The current period counts as soon as it has data, in place of CloudWatch's delay.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ministack.core.responses import get_account_id, request_scope
from ministack.services import cloudwatch, eventbridge, sns
from ministack.services.cloudformation import provisioners

from local.aws import clock, metrics, permissions

TICK = 1.0  # seconds between evaluations without new data
PAUSE = 0.05  # seconds in which new data gathers
ACTIONS = ("AlarmActions", "OKActions", "InsufficientDataActions")
SPARE_PERIODS = 2  # CloudWatch looks at a few periods more than it evaluates (Alarm user guide, missing data)
_COMPARE: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "GreaterThanOrEqualToThreshold": (lambda value, limit: value >= limit, "greater than or equal to"),
    "GreaterThanThreshold": (lambda value, limit: value > limit, "greater than"),
    "LessThanThreshold": (lambda value, limit: value < limit, "less than"),
    "LessThanOrEqualToThreshold": (lambda value, limit: value <= limit, "less than or equal to"),
}
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
    breaching = sum(real)
    if not real:
        return state if missing == "ignore" else "INSUFFICIENT_DATA"
    if breaching >= needed:
        return "ALARM"
    if breaching == len(real):  # too few points, but each of them breaches
        return state if missing == "ignore" else "ALARM"
    return "OK"


class Alarms:
    """Keeps every metric alarm's state up to date, in one thread."""

    def __init__(self) -> None:
        self.dirty = threading.Event()
        self._evaluating = threading.Lock()

    @property
    def pending(self) -> int:
        """1 while new data has not been evaluated."""
        return int(self.dirty.is_set() or self._evaluating.locked())

    def start(self) -> None:
        """Evaluate from now on."""
        metrics.on_new_data(self.dirty.set)
        threading.Thread(target=self._run, name="alarms", daemon=True).start()

    def _run(self) -> None:
        while True:
            if not self.dirty.wait(TICK):
                metrics.record_queues()
            time.sleep(PAUSE)
            with self._evaluating:
                self.dirty.clear()
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
    end = (int(clock.now() // period) + 1) * period
    answers = metrics.evaluate(queries, end - period * (window + SPARE_PERIODS + 1), end)
    values = answers[next(query["Id"] for query in queries if query.get("ReturnData", True))]
    compare, words = _COMPARE[alarm["ComparisonOperator"]]
    threshold = float(alarm["Threshold"])
    last = end - period if end - period in values else end - 2 * period
    times = [last - period * back for back in reversed(range(window + SPARE_PERIODS))]
    points = [compare(values[at], threshold) if at in values else None for at in times]
    old = str(alarm["StateValue"])
    new = decide(points, needed, window, alarm.get("TreatMissingData") or "missing", old)
    if new == old:
        return
    recent = [(at, values[at]) for at in times if at in values][-window:]
    shown = ", ".join(
        f"{value} ({datetime.fromtimestamp(at, UTC):%d/%m/%y %H:%M:%S})" for at, value in recent
    )
    reason = f"Insufficient Data: {window} datapoint{'s' if window > 1 else ''} were unknown."
    if new != "INSUFFICIENT_DATA":
        reason = (
            f"Threshold Crossed: {len(recent)} out of the last {window} datapoints [{shown}] was "
            f"{'' if new == 'ALARM' else 'not '}{words} the threshold ({threshold}) "
            f"(minimum {needed} for {old} -> {new} transition)."
        )
    told = {
        "version": "1.0",
        "queryDate": _stamp(clock.now()),
        "period": period,
        "recentDatapoints": [value for _, value in recent],
        "threshold": threshold,
    }
    answer = {"AlarmName": alarm["AlarmName"], "StateValue": new, "StateReason": reason}
    cloudwatch._set_alarm_state(
        {}, {**answer, "StateReasonData": json.dumps(told)}, is_cbor=False, is_json=True
    )
    alarm["StateUpdatedTimestamp"] = alarm["StateTransitionedTimestamp"] = int(clock.now())


def _queries(alarm: Mapping[str, Any]) -> list[dict[str, Any]]:
    if alarm.get("Metrics"):
        queries: list[dict[str, Any]] = alarm["Metrics"]
        return queries
    metric = {name: alarm.get(name) for name in ("Namespace", "MetricName", "Dimensions")}
    statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average"
    return [{"Id": "m1", "MetricStat": {"Metric": metric, "Period": int(alarm["Period"]), "Stat": statistic}}]


def _tell_bus(alarm: dict[str, Any], old: str, new: str, reason: str) -> None:
    """Send the state-change event to the default bus (CloudWatch user guide, alarm events)."""
    state = {"value": new, "reason": reason, "timestamp": _stamp(clock.now())}
    if alarm.get("StateReasonData"):
        state["reasonData"] = alarm["StateReasonData"]
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
    detail = {
        "alarmName": alarm["AlarmName"],
        "state": state,
        "previousState": {"value": old},
        "configuration": {"description": alarm.get("AlarmDescription") or "", "metrics": listed},
    }
    entry = {"Source": "aws.cloudwatch", "DetailType": "CloudWatch Alarm State Change"}
    entry |= {"Resources": [alarm["AlarmArn"]], "Detail": json.dumps(detail)}
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


def _may_publish(alarm: Mapping[str, Any], arn: str) -> bool:
    if ":sns:" not in arn or sns.topic_policy_allows(
        arn, "cloudwatch.amazonaws.com", alarm["AlarmArn"], get_account_id()
    ):
        return True
    permissions.tell(f"{alarm['AlarmName']} does not reach {arn}: its topic policy does not allow CloudWatch")
    return False


def _stamp(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}.{int(at % 1 * 1000):03d}+0000"


def install() -> Alarms:
    """Put our evaluation in MiniStack's place, metric math into its records, the bus beside its actions."""
    alarms = Alarms()
    stock_put, stock_record = cloudwatch._put_metric_alarm, provisioners._cw_metric_alarm_record
    stock_actions = cloudwatch._dispatch_alarm_actions

    def record(name: str, properties: Mapping[str, Any]) -> Any:
        if not properties.get("Metrics"):
            return stock_record(name, properties)
        if properties.get("ThresholdMetricId"):
            raise ValueError(f"local AWS: alarm {name}: ANOMALY_DETECTION_BAND is not supported")
        alarm = stock_record(name, {**properties, "Metrics": None, "MetricName": "-", "Namespace": "-"})
        for single in ("MetricName", "Namespace", "Statistic", "ExtendedStatistic", "Period", "Dimensions"):
            alarm.pop(single, None)
        alarm["Metrics"] = json.loads(json.dumps(properties["Metrics"]))
        for query in alarm["Metrics"]:
            query["ReturnData"] = str(query.get("ReturnData", True)).lower() == "true"
            if query.get("MetricStat"):  # templates may say numbers as text
                query["MetricStat"]["Period"] = int(query["MetricStat"]["Period"])
        return alarm

    def put_metric_alarm(params: Any, data: dict[str, Any], is_cbor: bool, is_json: bool = False) -> Any:
        if not (is_json and data.get("Metrics")):
            return stock_put(params, data, is_cbor, is_json)
        try:
            cloudwatch.cloudformation_put_metric_alarm(record(data["AlarmName"], data))
        except ValueError as error:
            return cloudwatch._error("ValidationError", str(error), 400, use_json=True)
        return cloudwatch._json_ok({})

    def act(alarm: dict[str, Any], old: str, new: str, reason: str) -> None:
        _tell_bus(alarm, old, new, reason)
        actions = {
            name: [arn for arn in alarm.get(name) or [] if _may_publish(alarm, arn)] for name in ACTIONS
        }
        stock_actions({**alarm, **actions}, old, new, reason)

    provisioners._cw_metric_alarm_record = record
    cloudwatch._put_metric_alarm = put_metric_alarm
    cloudwatch._evaluate_alarm = lambda _: alarms.dirty.set()
    cloudwatch._dispatch_alarm_actions = act
    alarms.start()
    return alarms
