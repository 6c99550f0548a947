"""Asynchronous invocations: a queue per function, retries, dead letters, destinations."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ministack.core.responses import get_account_id
from ministack.services import eventbridge, sqs

from local.aws import permissions
from local.aws.around import around
from local.aws.faults import Faults
from local.aws.functions import Functions, Result, ThrottledError
from local.aws.records import Record, account_of, current, reserved_concurrency

RETRIES = 2  # Lambda's default for asynchronous invocations
EVENT_AGE = 21_600  # seconds; Lambda's default and most
THROTTLE_PAUSE = 0.1
MOST_AT_ONCE = 4  # of one function's events; its reserved concurrency, when that is lower
log = logging.getLogger("local.aws.invocations")


@dataclass(slots=True, eq=False)
class _Invocation:
    record: Record
    event: Any
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    accepted: float = field(default_factory=time.monotonic)
    attempts: int = 0
    overtaken: bool = False  # held back until a later one has passed it

    @property
    def name(self) -> str:
        return str(self.record["config"]["FunctionName"])

    @property
    def settings(self) -> Any:
        """The function's EventInvokeConfig."""
        by_qualifier = self.record.get("event_invoke_configs") or {}
        return self.record.get("event_invoke_config") or by_qualifier.get("$LATEST") or {}


@dataclass(slots=True)
class _Queue:
    waiting: deque[_Invocation] = field(default_factory=deque)
    workers: int = 0


class Invocations:
    """Runs accepted events until they succeed, run out of retries, or grow too old.

    Parameters
    ----------
    functions
        Where they run.
    faults
        What is to go wrong.
    retry_seconds
        The pause before the first retry, doubled for the second. AWS waits one and two minutes.
    """

    def __init__(self, functions: Functions, faults: Faults, retry_seconds: float) -> None:
        self._functions = functions
        self._faults = faults
        self._retry_seconds = retry_seconds
        self._queues: dict[str, _Queue] = {}
        self._held: set[_Invocation] = set()  # for a time
        self._lock = threading.Lock()
        self._unfinished = 0

    @property
    def pending(self) -> int:
        """Number of events accepted and not ended; those that wait, or are held back, are among them."""
        with self._lock:
            return self._unfinished

    def submit(self, record: Record, event: Any) -> str:
        """Accept an event and return its request id."""
        invocation = _Invocation(record, event)
        fault = self._faults.of_delivery(invocation.name, "twice", "late", "reordered")
        twice = fault is not None and fault.fault == "twice"
        with self._lock:
            self._unfinished += 1 + twice
        if fault is not None and not twice:
            invocation.overtaken = fault.fault == "reordered"
            self._later(fault.seconds, invocation)
            return invocation.request_id
        self._enqueue(invocation)
        if twice:  # by the queue, so it is the same request (Lambda guide: asynchronous invocation)
            self._enqueue(replace(invocation))
        return invocation.request_id

    def _enqueue(self, invocation: _Invocation) -> None:
        reserved = reserved_concurrency(invocation.record)
        most = MOST_AT_ONCE if reserved is None else min(reserved, MOST_AT_ONCE)
        with self._lock:
            queue = self._queues.setdefault(invocation.name, _Queue())
            queue.waiting.append(invocation)
            if queue.workers >= max(most, 1):
                return
            queue.workers += 1
        threading.Thread(
            target=self._work, args=(queue,), name=f"async-{invocation.name}", daemon=True
        ).start()

    def _work(self, queue: _Queue) -> None:
        while True:
            with self._lock:
                if not queue.waiting:
                    queue.workers -= 1
                    return
                invocation = queue.waiting.popleft()
            try:
                with account_of(invocation.record["config"]):
                    self._attempt(invocation)
            except Exception:  # ours, not the function's: said, and the event is given up
                log.exception("asynchronous invocation of %s", invocation.name)
                self._end(invocation)

    def _attempt(self, invocation: _Invocation) -> None:
        # As it is now, not as it was when it took the event.
        invocation.record = current(invocation.record["config"]["FunctionArn"]) or invocation.record
        settings, retries = invocation.settings, invocation.settings.get("MaximumRetryAttempts")
        if reserved_concurrency(invocation.record) == 0:
            self._give_up(invocation, None, "ZeroReservedConcurrency")
            return
        result, pause = None, THROTTLE_PAUSE
        age = time.monotonic() - invocation.accepted
        with contextlib.suppress(ThrottledError):
            result = self._functions.invoke(
                invocation.record, invocation.event, invocation.request_id, delivery=True
            )
            pause = self._retry_seconds * 2**invocation.attempts
            invocation.attempts += 1
        if result is not None and not result.failed:
            self._end(invocation)
        elif invocation.attempts > (RETRIES if retries is None else int(retries)):
            self._give_up(invocation, result, "RetriesExhausted")
        elif age + pause > int(settings.get("MaximumEventAgeInSeconds") or EVENT_AGE):
            self._give_up(invocation, result, "EventAgeExceeded")
        else:
            self._later(pause, invocation)

    def _later(self, seconds: float, invocation: _Invocation) -> None:
        with self._lock:
            self._held.add(invocation)
        timer = threading.Timer(seconds, self._release, (invocation,))
        timer.daemon = True
        timer.start()

    def _release(self, invocation: _Invocation) -> None:
        """Let one go that was held back, unless it has gone already."""
        with self._lock:
            held = invocation in self._held
            self._held.discard(invocation)
            invocation.overtaken = False
        if held:
            self._enqueue(invocation)

    def _give_up(self, invocation: _Invocation, result: Result | None, condition: str) -> None:
        config, settings = invocation.record["config"], invocation.settings
        if queue := (config.get("DeadLetterConfig") or {}).get("TargetArn"):
            answer = result.payload if result and isinstance(result.payload, dict) else {}
            attributes = {
                "RequestID": invocation.request_id,
                "ErrorCode": "200" if result else "429",
                "ErrorMessage": str(answer.get("errorMessage") or condition)[:1024],
            }
            _send(queue, invocation.event, attributes, config)
        if arn := ((settings.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination"):
            body = {
                "version": "1.0",
                "timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
                "requestContext": {
                    "requestId": invocation.request_id,
                    "functionArn": f"{config['FunctionArn']}:$LATEST",
                    "condition": condition,
                    "approximateInvokeCount": invocation.attempts,
                },
                "requestPayload": invocation.event,
            }
            if result is not None:
                answered = {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
                body |= {"responseContext": answered, "responsePayload": result.payload}
            _send(arn, body, {}, config)
        self._end(invocation)

    def _end(self, invocation: _Invocation) -> None:
        with self._lock:
            self._unfinished -= 1
            passed = [
                one
                for one in self._held
                if one.overtaken and one.name == invocation.name and one.accepted < invocation.accepted
            ]
        for one in passed:
            self._release(one)


def _send(arn: str, body: Any, attributes: Mapping[str, str], config: Record | None = None) -> None:
    """Send a dead letter, or a destination's record, to a queue; a function's under its role."""
    if config and (why := permissions.refusal(config, "sqs:SendMessage", arn)):
        permissions.tell(f"{config['FunctionName']}: a failed event is gone: {why}")
        return
    texts = {key: {"DataType": "String", "StringValue": value} for key, value in attributes.items()}
    message = {"MessageBody": json.dumps(body), "MessageAttributes": texts}
    try:
        sqs._act_send_message(message, sqs._queue_url(arn.rpartition(":")[2]))
    except Exception:  # as on AWS, the event is gone then; there it counts in DestinationDeliveryFailures
        log.exception("nothing delivered to %s", arn)


def install(invocations: Invocations) -> None:
    """Send EventBridge's Lambda targets through the queue, what can't be delivered to the rule's DLQ."""

    def to_lambda(arn: str, payload: str) -> None:
        if function := current(arn):  # otherwise deleted since it was asked whether it may be invoked
            invocations.submit(function, json.loads(payload))

    @around(eventbridge, "_invoke_target")
    def invoke_target(
        stock: Callable[..., None], target: Mapping[str, Any], event: Any, rule: Mapping[str, Any], view: Any
    ) -> None:
        arn, source = target.get("Arn", ""), rule.get("Arn", "")

        def takes(queue: str) -> bool:
            return bool(sqs.queue_policy_allows(queue, "events.amazonaws.com", source, get_account_id()))

        willing: object = True
        there = current(arn) is not None
        if ":lambda:" in arn:
            willing = permissions.invocable("events.amazonaws.com", source, arn)
        elif ":sqs:" in arn:
            willing, there = takes(arn), sqs._queue_by_arn(arn) is not None
            if not willing:
                permissions.tell(
                    f"{source} sends nothing to {arn}: it is missing, or has no policy that allows it"
                )
        queue = (target.get("DeadLetterConfig") or {}).get("Arn")
        if willing:
            stock(target, event, rule, view)
        elif queue and takes(queue):
            code = "NO_PERMISSIONS" if there else "NO_RESOURCE"
            whole = (view or eventbridge._pattern_event_view(event)).event_with_detail()
            _send(queue, whole, {"ERROR_CODE": code, "RULE_ARN": source, "TARGET_ARN": arn})

    eventbridge._dispatch_to_lambda = to_lambda
