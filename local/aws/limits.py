"""EventBridge, Lambda and dashboards: what AWS refuses by its size or its form, and MiniStack takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ministack.core.responses import error_response_json, json_response
from ministack.services import cloudwatch, eventbridge, lambda_svc

from local.aws.around import Function, around
from local.aws.records import reserved_concurrency

PUT_EVENTS_BYTES = 1_048_576  # PutEvents, API reference: all entries together
# Lambda quotas, invocation payload
EVENT_PAYLOAD_BYTES, SYNCHRONOUS_PAYLOAD_BYTES = 1_048_576, 6_291_456
POLICY_BYTES = 20_480  # Lambda quotas, resource-based policy
CONCURRENCY, UNRESERVED = 1_000, 100  # Lambda quotas, concurrent executions; PutFunctionConcurrency

TARGETS = 5  # of a rule, PutTargets
# Scheduled rules: "minute" goes with 1, "minutes" with more.
RATE = re.compile(r"rate\((1 (minute|hour|day)|([2-9]|[1-9]\d+) (minutes|hours|days))\)")
# Dashboard body structure and syntax, API reference of CloudWatch.
DASHBOARD_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
WIDGETS = 500
WIDGET_KINDS = ("alarm", "custom", "explorer", "log", "metric", "text")
WIDGET_SIZES = {"x": (0, 23), "y": (0, 1e9), "width": (1, 24), "height": (1, 1000)}


def _size(entry: Mapping[str, Any]) -> int:
    """Return an entry's bytes (EventBridge user guide, Calculating PutEvents event entry size)."""
    texts = [entry.get(name) or "" for name in ("Source", "DetailType", "Detail")]
    return 14 * ("Time" in entry) + sum(len(text.encode()) for text in [*texts, *entry.get("Resources", ())])


def _problem(entry: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the result of an entry that fails (PutEventsResultEntry, API reference)."""
    for name in ("Source", "DetailType", "Detail"):
        if not entry.get(name):
            reason = f"Parameter {name} is not valid. Reason: {name} is a required argument."
            return {"ErrorCode": "InvalidArgument", "ErrorMessage": reason}
    try:
        detail = json.loads(entry["Detail"])
    except ValueError:
        detail = None
    malformed = {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}
    return None if isinstance(detail, dict) else malformed


def check_rule(rule: Mapping[str, Any]) -> None:
    """Refuse a schedule that EventBridge does not take, and too many targets.

    Raises
    ------
    ValueError
        With EventBridge's words.
    """
    schedule = rule.get("ScheduleExpression") or ""
    if schedule.startswith("rate") and not RATE.fullmatch(schedule):
        raise ValueError("Parameter ScheduleExpression is not valid.")
    if schedule and str(rule.get("EventBusName") or "default").rpartition("/")[2] != "default":
        raise ValueError("ScheduleExpression is supported only on the default event bus.")
    if len({target["Id"] for target in rule.get("Targets") or ()}) > TARGETS:
        raise ValueError(f"The requested resource exceeds the maximum number allowed: {TARGETS} targets")


def _check_dashboard(name: str, body: str) -> None:
    try:
        widgets = json.loads(body)["widgets"]
        good = len(widgets) <= WIDGETS and all(
            one["type"] in WIDGET_KINDS
            and isinstance(one["properties"], dict)
            and all(low <= one.get(side, low) <= high for side, (low, high) in WIDGET_SIZES.items())
            for one in widgets
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not (good and DASHBOARD_NAME.fullmatch(name)):
        raise ValueError(f"The dashboard {name} is invalid: its name, or a widget's kind, place or size")


def install() -> None:
    """Put our checks in front of MiniStack's."""

    @around(eventbridge, "_put_events", invalid="ValidationException")
    def put_events(stock: Function, data: dict[str, Any], *more: Any, **options: Any) -> Any:
        entries = data.get("Entries") or []
        if sum(map(_size, entries)) > PUT_EVENTS_BYTES:
            raise ValueError("Total size of the entries in the request is over the limit.")
        problems = [_problem(entry) for entry in entries]
        if len(entries) > 10 or not any(problems):
            return stock(data, *more, **options)
        sound = [entry for entry, problem in zip(entries, problems, strict=True) if not problem]
        put = iter(json.loads(stock({**data, "Entries": sound}, *more, **options)[2])["Entries"])
        results = [problem or next(put) for problem in problems]
        failed = sum("ErrorCode" in result for result in results)
        return json_response({"FailedEntryCount": failed, "Entries": results})

    @around(lambda_svc, "_invoke")
    async def invoke(
        stock: Function, name: str, event: Any, headers: Mapping[str, str], *more: Any, **options: Any
    ) -> Any:
        kind = headers.get("x-amz-invocation-type", "RequestResponse")
        most = EVENT_PAYLOAD_BYTES if kind == "Event" else SYNCHRONOUS_PAYLOAD_BYTES
        size = int(headers.get("content-length", 0))
        if size > most:
            text = f"{size} byte payload is too large for the {kind} invocation type (limit {most} bytes)"
            return error_response_json("RequestTooLargeException", text, 413)
        return await stock(name, event, headers, *more, **options)

    @around(lambda_svc, "_add_permission", invalid="PolicyLengthExceededException")
    def add_permission(stock: Function, name: str, *arguments: Any, **options: Any) -> Any:
        answer = stock(name, *arguments, **options)
        if answer[0] == 201:
            policy = lambda_svc._functions[name]["policy"]
            if (size := len(json.dumps(policy, separators=(",", ":")))) > POLICY_BYTES:
                policy["Statement"].pop()
                raise ValueError(f"The final policy size ({size}) is bigger than the limit ({POLICY_BYTES}).")
        return answer

    lambda_svc._ACCOUNT_CONCURRENCY_CAP = CONCURRENCY  # told by GetAccountSettings

    @around(lambda_svc, "_put_function_concurrency", invalid="InvalidParameterValueException")
    def put_function_concurrency(stock: Function, name: str, data: dict[str, Any]) -> Any:
        others = sum(
            reserved_concurrency(record) or 0
            for other, record in lambda_svc._functions.items()
            if other != name
        )
        if others + data["ReservedConcurrentExecutions"] > CONCURRENCY - UNRESERVED:
            raise ValueError(
                "Specified ReservedConcurrentExecutions for function decreases account's "
                f"UnreservedConcurrentExecution below its minimum value of [{UNRESERVED}]."
            )
        return stock(name, data)

    @around(eventbridge, "_put_rule", invalid="ValidationException")
    def put_rule(stock: Function, data: dict[str, Any]) -> Any:
        check_rule(data)
        return stock(data)

    @around(eventbridge, "_put_targets", invalid="LimitExceededException")
    def put_targets(stock: Function, data: dict[str, Any]) -> Any:
        key = eventbridge._rule_key(data.get("Rule"), data.get("EventBusName", "default"))
        check_rule({"Targets": [*eventbridge._targets.get(key, ()), *data.get("Targets", ())]})
        return stock(data)

    @around(cloudwatch, "cloudformation_put_dashboard")
    def put_dashboard(stock: Function, name: str, body: str) -> Any:
        _check_dashboard(name, body)
        return stock(name, body)

    @around(cloudwatch, "_put_dashboard", invalid="InvalidParameterInput")
    def put_dashboard_call(stock: Function, *arguments: Any, **options: Any) -> Any:
        return stock(*arguments, **options)  # calls the one above, whose ValueError is the call's answer here
