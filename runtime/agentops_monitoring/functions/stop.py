"""Lambda entry point: stops agents when their alarm says so, and resumes them in the next UTC day.

CloudWatch invokes it with an alarm's change of state, and a rule each quarter of an hour: that of 00:05 UTC
finds those of yesterday, the others what was refused or not finished then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from agentops_monitoring import settings
from agentops_monitoring.control.redrive import Redrive
from agentops_monitoring.control.stoppable import Target, targets
from agentops_monitoring.control.stops import Breach, Stops
from agentops_monitoring.ledger import schema

RATE = 20.0
"""Events a second that a resumed agent is given."""

RESERVE_S = 20.0
"""Kept of the function's own time, to show again what it has received and could not give."""


def breach_of(event: Mapping[str, Any]) -> Breach | None:
    """Return the breach that an alarm's event tells of; None when the alarm did not go off.

    The event: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-actions-Lambda.html

    Raises
    ------
    ValueError
        It is no event of an alarm.
    """
    try:
        data = event["alarmData"]
        state = data["state"]
        if state["value"] != "ALARM":
            return None
        at = _time(state["timestamp"])
        # Where the period that breaches begins; a state that was set by hand has no data.
        start = json.loads(state.get("reasonData") or "{}").get("startDate")
        day = (_time(start) if start else at).date()
        return Breach(str(data["alarmName"]), str(state.get("reason", "")), at, day)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"this function takes alarms and a schedule only: {error!r}") from None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@lru_cache(maxsize=1)
def _stops() -> Stops:
    import boto3

    lambda_ = boto3.client("lambda")
    return Stops(
        schema.client(),
        lambda_,
        boto3.client("cloudwatch"),
        schema.Tables.from_environment().ledger,
        Redrive(boto3.client("sqs"), lambda_, rate=RATE),
    )


def _targets() -> list[Target]:
    import boto3

    return list(targets(boto3.client("ssm"), settings.load().environment))


def handler(event: Mapping[str, Any], context: Any) -> None:
    """Stop the agents of an alarm, or resume those whose day is over.

    Raises
    ------
    RuntimeError
        It failed for an agent, and has tried the others; Lambda, or the next run, tries again.
    """
    failed = []
    if event.get("source") == "aws.events":
        now = datetime.fromisoformat(event["time"])
        deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVE_S
        for target in _targets():
            try:
                done = _stops().resume(target.agent, before=now, deadline=deadline)
            except Exception as error:  # noqa: BLE001 - an agent's trouble is not the next one's
                failed.append(f"{target.agent}: {error}")
                continue
            if done.state == "refused":
                failed.append(f"{target.agent}: {done.reason}")
            elif done.state in ("resumed", "unfinished"):
                _say("resume", **done._asdict())
    elif breach := breach_of(event):
        stopped = [target for target in _targets() if breach.alarm in target.alarms]
        if not stopped:
            raise RuntimeError(f"the alarm {breach.alarm} stops no agent of this environment")
        for target in stopped:
            try:
                new = _stops().stop(target, breach)
            except Exception as error:  # noqa: BLE001 - nor here
                failed.append(f"{target.agent}: {error}")
                continue
            known = {"agent": target.agent, "alarm": breach.alarm, "reason": breach.reason}
            _say("stop" if new else "stopped nothing: dealt with before, or of a day that is over", **known)
    if failed:
        raise RuntimeError("; ".join(failed))


def _say(message: str, **facts: Any) -> None:
    print(json.dumps({"level": "INFO", "message": message, **facts}), flush=True)
