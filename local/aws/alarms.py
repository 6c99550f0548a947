"""CloudWatch alarms: evaluated on new data and each second, with metric math, M of N and missing data.

The current period counts as soon as it has data, in place of CloudWatch's delay.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import cloudwatch, eventbridge, sns

from local.aws import clock, metrics

TICK = 1.0  # seconds between evaluations without new data
SPARE_PERIODS = 2  # CloudWatch looks at a few periods more than it evaluates (Alarm user guide, missing data)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}
_WORDS = {
    "GreaterThanOrEqualToThreshold": "greater than or equal to",
    "GreaterThanThreshold": "greater than",
    "LessThanThreshold": "less than",
    "LessThanOrEqualToThreshold": "less than or equal to",
}
_ACTIONS = {"ALARM": "AlarmActions", "OK": "OKActions", "INSUFFICIENT_DATA": "InsufficientDataActions"}
_REGIONS = {
    "us-east-1": "US East (N. Virginia)",
    "us-west-2": "US West (Oregon)",
    "eu-west-1": "EU (Ireland)",
}


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
        self._dirty = threading.Event()
        self._log = logging.getLogger("local.aws.alarms")
        self._evaluating = threading.Lock()

    @property
    def pending(self) -> int:
        """1 while new data has not been evaluated."""
        return int(self._dirty.is_set() or self._evaluating.locked())

    def start(self) -> None:
        """Evaluate from now on."""
        metrics.on_new_data(self._dirty.set)
        threading.Thread(target=self._run, name="alarms", daemon=True).start()

    def evaluate_all(self) -> None:
        """Evaluate every alarm once."""
        with self._evaluating:
            self._dirty.clear()
            for (account, region, _), alarm in list(cloudwatch._alarms.all_items()):
                with request_scope(account, region):
                    try:
                        evaluate(alarm)
                    except Exception:  # noqa: BLE001 - one alarm that can't be evaluated must not stop the others
                        self._log.exception("alarm %s", alarm["AlarmName"])

    def _run(self) -> None:
        while True:
            if not self._dirty.wait(TICK):
                metrics.record_queues()
            self.evaluate_all()
            time.sleep(0.05)


def evaluate(alarm: dict[str, Any]) -> None:
    """Bring one alarm's state up to date, and act on a change."""
    queries = alarm.get("Metrics") or [_single_query(alarm)]
    period = max(
        int(query.get("Period") or query.get("MetricStat", {}).get("Period") or 60) for query in queries
    )
    window = int(alarm.get("EvaluationPeriods") or 1)
    needed = int(alarm.get("DatapointsToAlarm") or window)
    end = (int(clock.now() // period) + 1) * period
    answers = metrics.evaluate(queries, end - period * (window + SPARE_PERIODS + 1), end)
    values = answers[next(query["Id"] for query in queries if query.get("ReturnData", True))]
    compare, threshold = _COMPARE[alarm["ComparisonOperator"]], float(alarm["Threshold"])
    count = window + SPARE_PERIODS
    last = end - period if end - period in values else end - 2 * period
    times = [last - period * back for back in reversed(range(count))]
    points = [compare(values[at], threshold) if at in values else None for at in times]
    old = str(alarm["StateValue"])
    new = decide(points, needed, window, alarm.get("TreatMissingData") or "missing", old)
    if new != old:
        recent = [(at, values[at]) for at in times if at in values][-window:]
        _transition(
            alarm, new, _reason(alarm, new, recent, window, needed), _reason_data(alarm, recent, period)
        )


def _single_query(alarm: Mapping[str, Any]) -> dict[str, Any]:
    metric = {name: alarm.get(name) for name in ("Namespace", "MetricName", "Dimensions")}
    statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average"
    return {"Id": "m1", "MetricStat": {"Metric": metric, "Period": int(alarm["Period"]), "Stat": statistic}}


def _reason(
    alarm: Mapping[str, Any], new: str, recent: list[tuple[int, float]], window: int, needed: int
) -> str:
    if not recent:
        return (
            f"{_unknown(window)} were unknown."
            if new == "INSUFFICIENT_DATA"
            else "No data: treated as " + str(alarm.get("TreatMissingData"))
        )
    shown = ", ".join(
        f"{value} ({datetime.fromtimestamp(at, UTC):%d/%m/%y %H:%M:%S})" for at, value in recent
    )
    negated = "" if new == "ALARM" else "not "
    plural = "datapoints" if window > 1 else "datapoint"
    return (
        f"Threshold Crossed: {len(recent)} out of the last {window} {plural} [{shown}] was {negated}"
        f"{_WORDS[alarm['ComparisonOperator']]} the threshold ({float(alarm['Threshold'])}) "
        f"(minimum {needed} {plural} for {'OK -> ALARM' if new == 'ALARM' else 'ALARM -> OK'} transition)."
    )


def _unknown(window: int) -> str:
    return f"Insufficient Data: {window} datapoint{'s' if window > 1 else ''}"


def _reason_data(alarm: Mapping[str, Any], recent: list[tuple[int, float]], period: int) -> str:
    return json.dumps(
        {
            "version": "1.0",
            "queryDate": _stamp(clock.now()),
            "period": period,
            "recentDatapoints": [value for _, value in recent],
            "threshold": float(alarm["Threshold"]),
        }
    )


def _transition(alarm: dict[str, Any], new: str, reason: str, data: str) -> None:
    old = str(alarm["StateValue"])
    alarm["_previous"] = {
        "value": old,
        "reason": alarm.get("StateReason", ""),
        "timestamp": _stamp(float(alarm.get("StateUpdatedTimestamp") or 0)),
    }
    alarm |= {"StateValue": new, "StateReason": reason, "StateReasonData": data}
    alarm["StateUpdatedTimestamp"] = alarm["StateTransitionedTimestamp"] = int(clock.now())
    cloudwatch._record_history(alarm["AlarmName"], old, new, reason, reason_data=json.loads(data))
    act(alarm, old, new, reason)


def act(alarm: dict[str, Any], old: str, new: str, reason: str) -> None:
    """Send the state-change event to the default bus, and run the state's actions (SNS)."""
    now = clock.now()
    state = {"value": new, "reason": reason, "timestamp": _stamp(now)}
    if alarm.get("StateReasonData"):
        state["reasonData"] = alarm["StateReasonData"]
    configuration = {"description": alarm.get("AlarmDescription") or ""}
    detail = {
        "alarmName": alarm["AlarmName"],
        "state": state,
        "previousState": alarm.pop("_previous", {"value": old}),
        "configuration": configuration | _configuration(alarm),
    }
    entry = {
        "Source": "aws.cloudwatch",
        "DetailType": "CloudWatch Alarm State Change",
        "Resources": [alarm["AlarmArn"]],
        "Detail": json.dumps(detail),
    }
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
    if not alarm.get("ActionsEnabled", True):
        return
    for action in alarm.get(_ACTIONS[new]) or []:
        service = action.split(":")[2]
        if service == "sns":
            subject = f'{new}: "{alarm["AlarmName"]}" in {_REGIONS.get(get_region(), get_region())}'
            message = json.dumps(_notification(alarm, old, new, reason, now))
            sns._fanout(action, str(uuid.uuid4()), message, subject[:100])
        else:
            raise ValueError(f"local AWS: alarm action not supported: {action}")


def _configuration(alarm: Mapping[str, Any]) -> dict[str, Any]:
    listed = []
    for query in alarm.get("Metrics") or [_single_query(alarm)]:
        entry: dict[str, Any] = {"id": query["Id"], "returnData": query.get("ReturnData", True)}
        if query.get("MetricStat"):
            metric = query["MetricStat"]["Metric"]
            entry["metricStat"] = {
                "metric": {
                    "namespace": metric["Namespace"],
                    "name": metric["MetricName"],
                    "dimensions": {d["Name"]: d["Value"] for d in metric.get("Dimensions") or []},
                },
                "period": int(query["MetricStat"]["Period"]),
                "stat": query["MetricStat"]["Stat"],
            }
        else:
            entry |= {"expression": query["Expression"], "label": query.get("Label") or ""}
        listed.append(entry)
    return {"metrics": listed}


def _notification(alarm: Mapping[str, Any], old: str, new: str, reason: str, now: float) -> dict[str, Any]:
    trigger: dict[str, Any] = {
        name: alarm.get(name)
        for name in ("Period", "EvaluationPeriods", "DatapointsToAlarm", "ComparisonOperator", "Threshold")
        if alarm.get(name) is not None
    }
    trigger["TreatMissingData"] = alarm.get("TreatMissingData") or "missing"
    if alarm.get("Metrics"):
        trigger["Metrics"] = alarm["Metrics"]
    else:
        pairs = [{"name": d["Name"], "value": d["Value"]} for d in alarm.get("Dimensions") or []]
        trigger |= {
            "MetricName": alarm.get("MetricName"),
            "Namespace": alarm.get("Namespace"),
            "Dimensions": pairs,
        }
        trigger |= {"StatisticType": "Statistic", "Statistic": str(alarm.get("Statistic") or "").upper()}
    return {
        "AlarmName": alarm["AlarmName"],
        "AlarmDescription": alarm.get("AlarmDescription") or None,
        "AWSAccountId": get_account_id(),
        "AlarmConfigurationUpdatedTimestamp": _stamp(
            float(alarm.get("AlarmConfigurationUpdatedTimestamp") or now)
        ),
        "NewStateValue": new,
        "NewStateReason": reason,
        "StateChangeTime": _stamp(now),
        "Region": _REGIONS.get(get_region(), get_region()),
        "AlarmArn": alarm["AlarmArn"],
        "OldStateValue": old,
        "OKActions": alarm.get("OKActions") or [],
        "AlarmActions": alarm.get("AlarmActions") or [],
        "InsufficientDataActions": alarm.get("InsufficientDataActions") or [],
        "Trigger": trigger,
    }


def _stamp(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}.{int(at % 1 * 1000):03d}+0000"


def record(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return MiniStack's record of an alarm on metric math, from a template or from PutMetricAlarm.

    Raises
    ------
    ValueError
        For an alarm on an anomaly detection band.
    """
    if properties.get("ThresholdMetricId"):
        raise ValueError(f"local AWS: alarm {name}: ANOMALY_DETECTION_BAND is not supported")
    known = cloudwatch._alarms.get(name) or {}
    now = int(clock.now())
    queries = json.loads(json.dumps(properties["Metrics"]))
    for query in queries:
        query["ReturnData"] = str(query.get("ReturnData", True)).lower() == "true"
        if query.get("MetricStat"):
            query["MetricStat"]["Period"] = int(query["MetricStat"]["Period"])
    alarm = {
        "AlarmName": name,
        "AlarmArn": f"arn:aws:cloudwatch:{get_region()}:{get_account_id()}:alarm:{name}",
        "AlarmDescription": properties.get("AlarmDescription") or "",
        "ActionsEnabled": str(properties.get("ActionsEnabled", True)).lower() == "true",
        "EvaluationPeriods": int(properties["EvaluationPeriods"]),
        "Threshold": float(properties["Threshold"]),
        "ComparisonOperator": properties["ComparisonOperator"],
        "TreatMissingData": properties.get("TreatMissingData") or "missing",
        "Metrics": queries,
        "StateValue": known.get("StateValue", "INSUFFICIENT_DATA"),
        "StateReason": known.get("StateReason", "Unchecked: Initial alarm creation"),
        "StateUpdatedTimestamp": known.get("StateUpdatedTimestamp", now),
        "AlarmConfigurationUpdatedTimestamp": now,
    }
    alarm |= {actions: [str(arn) for arn in properties.get(actions) or []] for actions in _ACTIONS.values()}
    if properties.get("DatapointsToAlarm") is not None:
        alarm["DatapointsToAlarm"] = int(properties["DatapointsToAlarm"])
    return alarm


def install() -> Alarms:
    """Put our evaluation and actions in MiniStack's place."""
    stock_put = cloudwatch._put_metric_alarm

    def put_metric_alarm(params: Any, data: dict[str, Any], is_cbor: bool, is_json: bool = False) -> Any:
        if not (is_json and data.get("Metrics")):
            return stock_put(params, data, is_cbor, is_json)
        try:
            cloudwatch.cloudformation_put_metric_alarm(record(data["AlarmName"], data))
        except ValueError as error:
            return cloudwatch._error("ValidationError", str(error), 400, use_json=True)
        return cloudwatch._json_ok({})

    alarms = Alarms()
    cloudwatch._evaluate_alarm = lambda _: alarms._dirty.set()
    cloudwatch._dispatch_alarm_actions = act
    cloudwatch._put_metric_alarm = put_metric_alarm
    return alarms
