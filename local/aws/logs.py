"""CloudWatch Logs, what MiniStack lacks: EMF, subscription filters that batch and retry, pages of events."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any

from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import cloudwatch_logs, kinesis

from local.aws import clock, metrics, permissions
from local.aws.around import around

WINDOW = 0.1  # seconds in which a stream's events gather for a delivery
BATCH_BYTES = 700_000  # raw; an asynchronous event holds 1 MB (Lambda quotas)
MOST_FILTERS = 2  # of one log group (CloudWatch Logs quotas)
# CloudWatch Logs user guide, "Real-time processing of log data with subscriptions": when a function or the
# permission is missing, its filter is off for up to 10 minutes, and lines are skipped.
OFF_SECONDS = 600.0
PAGE_EVENTS = 10_000  # FilterLogEvents
Matcher = Callable[[str], bool]
Key = tuple[str, str, str, str, str]  # account, region, group, stream, filter
_TERM = re.compile(r'(?<!\S)([?-]?)(?:"((?:[^"\\]|\\.)+)"|(\w+))|(\S)', re.ASCII)
NOT_PERMITTED = (
    "Could not execute the lambda function. Make sure you have given CloudWatch Logs permission to execute "
    "your function."
)
NOT_DELIVERED = (
    "Could not deliver test message to specified Kinesis stream. Check if the given kinesis stream is in "
    "ACTIVE state."
)
_serial = itertools.count()
_create_lock = threading.Lock()
_stored: ContextVar[Sequence[dict[str, Any]]] = ContextVar("stored", default=())
log = logging.getLogger("local.aws.logs")


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> Matcher:
    """Return the test of a filter pattern made of terms: all, ``?any`` or ``-none`` of them.

    Raises
    ------
    ValueError
        For a term that wants double quotes, and for the JSON, space-delimited and regular-expression forms,
        which are not served here.
    """
    text = pattern.strip()
    if text[:1] in ("{", "[", "%"):
        raise ValueError(f"local AWS: this filter pattern form is not supported: {text[:60]}")
    terms = []
    for sign, quoted, plain, wrong in _TERM.findall(text):
        if wrong:
            raise ValueError(f"Invalid character(s) in term '{wrong}'")
        terms.append((sign, plain or re.sub(r"\\(.)", r"\1", quoted)))
    every = [(sign, term) for sign, term in terms if sign != "?"]
    if every:  # AWS ignores the ?terms beside other terms
        return lambda message: all((term in message) is (sign != "-") for sign, term in every)
    return lambda message: not terms or any(term in message for _, term in terms)


def exists(group: str) -> bool:
    """Return whether a log group is there, in the account and region of the context."""
    return group in cloudwatch_logs._log_groups


def write(group: str, stream: str, events: Sequence[tuple[int, str]]) -> None:
    """Store events, in the order given, under the account and region of the context."""
    with _create_lock:  # an error answer when it is there
        cloudwatch_logs._create_log_group({"logGroupName": group})
        cloudwatch_logs._create_log_stream({"logGroupName": group, "logStreamName": stream})
    arrived = time.time_ns() // 1_000_000
    times = itertools.accumulate((at_ms for at_ms, _ in events), max)
    stored = []
    for at_ms, (_, message) in zip(times, events, strict=True):
        event_id = f"{at_ms:020d}{next(_serial):036d}"
        event = {"timestamp": at_ms, "message": message, "ingestionTime": arrived, "eventId": event_id}
        stored.append(event)
    cloudwatch_logs._append_log_events(cloudwatch_logs._log_groups[group]["streams"][stream], stored)
    cloudwatch_logs._fanout_to_subscription_filters(group, stream, stored)


Deliver = Callable[[str, str], bool]
"""Takes a payload of a log stream to where a filter wants it; false when that can't be."""


def _to_stream(role: str, arn: str, source: str, data: str, key: str) -> bool:
    """Put a payload on a Kinesis stream, under the role that the filter names."""
    why = permissions.refusal_to_service("logs.amazonaws.com", source, role, "kinesis:PutRecord", arn)
    if why:
        permissions.tell(f"{source} does not write to {arn}: {why}")
    return not why and kinesis.put_record_internal(arn, key, base64.b64decode(data))


def _filters(group: str) -> Any:
    return (cloudwatch_logs._log_groups.get(group) or {}).get("subscriptionFilters", {})


def _page(streams: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer FilterLogEvents; unlike MiniStack, with a token when there is more."""
    matches = compile_pattern(request.get("filterPattern") or "")
    start, end = request.get("startTime") or 0, request.get("endTime") or math.inf
    names = request.get("logStreamNames") or list(streams)
    prefix = request.get("logStreamNamePrefix") or ""
    found = [
        {**event, "logStreamName": name}
        for name in names
        if name in streams and name.startswith(prefix)
        for event in list(streams[name]["events"])
        if start <= event["timestamp"] <= end and matches(event["message"])
    ]
    found.sort(key=lambda event: (event["timestamp"], event["ingestionTime"]))
    first = int(request.get("nextToken") or 0)
    last = first + min(request.get("limit") or PAGE_EVENTS, PAGE_EVENTS)
    more = {"nextToken": str(last)} if last < len(found) else {}
    return {"events": found[first:last], "searchedLogStreams": [], **more}


class Subscriptions:
    """Delivers matching events to each filter's function or stream, asynchronously as CloudWatch Logs does.

    A failing function is Lambda's matter (its retries, its dead letters), and so is the order of deliveries:
    as on AWS, one does not wait for another. A function that is missing, or that CloudWatch Logs may not
    invoke, turns its filter off for ten minutes of the local clock.
    """

    def __init__(self, submit: Callable[[Any, Any], object]) -> None:
        self._submit = submit
        self._gathered: dict[Key, list[dict[str, Any]]] = {}
        self._sending: dict[Key, list[dict[str, Any]]] = {}
        self._off_until: dict[tuple[str, ...], float] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._deliver, name="log-subscriptions", daemon=True).start()

    @property
    def pending(self) -> int:
        """Number of streams and filters with events not yet delivered."""
        with self._changed:
            return len(self._gathered) + len(self._sending)

    def add(self, group: str, stream: str, events: Sequence[dict[str, Any]]) -> None:
        """Take what was just stored in a stream."""
        for name, one in list(_filters(group).items()):
            key = (get_account_id(), get_region(), group, stream, name)
            matches = compile_pattern(one.get("filterPattern") or "")
            matched = [event for event in events if matches(event["message"])]
            if matched and not self._is_off(key):
                with self._changed:
                    self._gathered.setdefault(key, []).extend(matched)
                    self._changed.notify()

    def turn_on(self, group: str, name: str) -> None:
        """Deliver again: the filter was put anew, and its function can be invoked."""
        self._off_until.pop((get_account_id(), get_region(), group, name), None)

    def _is_off(self, key: Key) -> bool:
        return self._off_until.get((*key[:3], key[4]), 0.0) > clock.now()

    def _deliver(self) -> None:
        while True:
            with self._changed:
                self._sending = {}
                self._changed.wait_for(lambda: self._gathered)
            time.sleep(WINDOW)
            with self._changed:
                self._sending, self._gathered = self._gathered, {}
            for key, events in self._sending.items():
                try:
                    self._send(key, events)
                except Exception:
                    log.exception("subscription %s", key)

    def _send(self, key: Key, events: Sequence[dict[str, Any]]) -> None:
        account, region, group, stream, name = key
        with request_scope(account, region):
            one = _filters(group).get(name)
            if one is None or self._is_off(key):
                return
            deliver, kind = self._way(group, one)
            while events:
                sizes = itertools.accumulate(len(event["message"].encode()) for event in events)
                count = max(1, sum(size <= BATCH_BYTES for size in sizes))
                data = _envelope(account, group, stream, name, events[:count])
                if not deliver(data, stream):
                    self._off_until[(*key[:3], name)] = clock.now() + OFF_SECONDS
                    dimensions = {"LogGroupName": group, "DestinationType": kind, "FilterName": name}
                    metrics.record("AWS/Logs", "DeliveryErrors", count, "Count", dimensions)
                    return
                events = events[count:]

    def _way(self, group: str, one: Mapping[str, Any]) -> tuple[Deliver, str]:
        """Return what delivers to a filter's destination, and how CloudWatch calls that."""
        arn, source = (
            one["destinationArn"],
            f"arn:aws:logs:{get_region()}:{get_account_id()}:log-group:{group}:*",
        )
        if ":kinesis:" in arn:
            return partial(_to_stream, one["roleArn"], arn, source), "Kinesis"
        function = permissions.invocable("logs.amazonaws.com", source, arn)

        def invoke(data: str, _stream: str) -> bool:
            if function is not None:
                self._submit(function, {"awslogs": {"data": data}})
            return function is not None

        return invoke, "Lambda"

    def check(self, group: str, one: Mapping[str, Any]) -> None:
        """Refuse a filter that could not deliver.

        Raises
        ------
        ValueError
            As CloudWatch Logs says it, which tries: a stream gets a message of its own.
        """
        if ":kinesis:" in one["destinationArn"]:
            if not self._way(group, one)[0](_control_message(), group):
                raise ValueError(NOT_DELIVERED)
        elif one.get("roleArn"):
            raise ValueError("destinationArn for vendor lambda cannot be used with roleArn")
        elif not permissions.invocable(
            "logs.amazonaws.com",
            f"arn:aws:logs:{get_region()}:{get_account_id()}:log-group:{group}:*",
            one["destinationArn"],
        ):
            raise ValueError(NOT_PERMITTED)


def _control_message() -> str:
    """Return what tries a stream (CloudWatch Logs user guide, "Subscription filters with Kinesis")."""
    text = "CWL CONTROL MESSAGE: Checking health of destination Kinesis stream."
    payload = {
        "messageType": "CONTROL_MESSAGE",
        "owner": "CloudwatchLogs",
        "logGroup": "",
        "logStream": "",
        "subscriptionFilters": [],
        "logEvents": [{"id": "", "timestamp": time.time_ns() // 1_000_000, "message": text}],
    }
    return _packed(payload)


def _envelope(account: str, group: str, stream: str, name: str, events: Sequence[dict[str, Any]]) -> str:
    payload = {
        "messageType": "DATA_MESSAGE",
        "owner": account,
        "logGroup": group,
        "logStream": stream,
        "subscriptionFilters": [name],
        "logEvents": [
            {"id": one["eventId"], "timestamp": one["timestamp"], "message": one["message"]} for one in events
        ],
    }
    return _packed(payload)


def _packed(payload: Mapping[str, Any]) -> str:
    content = json.dumps(payload, ensure_ascii=False).encode()
    return base64.b64encode(gzip.compress(content, compresslevel=1)).decode()


def install(submit: Callable[[Any, Any], object]) -> Subscriptions:
    """Put EMF and our subscriptions behind every write, and our patterns behind every filter."""
    subscriptions = Subscriptions(submit)

    @around(cloudwatch_logs, "_append_log_events")
    def append(stock: Callable[..., None], stream: Any, events: list[dict[str, Any]]) -> None:
        stock(stream, events)
        _stored.set(events)

    def fan_out(group: str, stream: str, _given: object) -> None:
        events = _stored.get()  # just now, by the same call: with the ids that FilterLogEvents tells
        for event in events:
            if '"_aws"' in event["message"]:
                metrics.record_emf(event["message"], group)
        subscriptions.add(group, stream, events)

    @around(cloudwatch_logs, "_put_subscription_filter", invalid="InvalidParameterException")
    def put_subscription_filter(stock: Callable[..., Any], data: dict[str, Any]) -> Any:
        group, name = data.get("logGroupName", ""), data.get("filterName", "")
        compile_pattern(data.get("filterPattern") or "")
        subscriptions.check(group, {"destinationArn": "", "roleArn": "", **data})
        if len(_filters(group).keys() | {name}) > MOST_FILTERS:
            text = "Resource limit exceeded."
            return cloudwatch_logs.error_response_json("LimitExceededException", text, 400)
        subscriptions.turn_on(group, name)
        return stock(data)

    @around(cloudwatch_logs, "_filter_log_events", invalid="InvalidParameterException")
    def filter_log_events(stock: Callable[..., Any], data: dict[str, Any]) -> Any:
        group = cloudwatch_logs._log_groups.get(cloudwatch_logs._resolve_log_group_name(data))
        return cloudwatch_logs.json_response(_page(group["streams"], data)) if group else stock(data)

    cloudwatch_logs._fanout_to_subscription_filters = fan_out
    return subscriptions
