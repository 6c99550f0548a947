"""Gives an agent again what it was sent while it was stopped, out of the queue of its failed events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

WINDOW = 1_000
WINDOW_BYTES = 32_000_000
"""What is held, and put in order, at once. A queue with more is in order by such pieces."""

SLOWEST, FASTEST = 2.0, 100.0
"""Events a second."""

WAIT_S = 1
"""Without a wait SQS asks only some of its servers, and nothing would not mean empty."""

LOOKS, PAUSE_S = 13, 5.0
"""How often, and how far apart, a queue is asked whether another attempt holds something. Its count lags by a
minute or so: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
"""

ANSWERS_S = 0.25
"""What Lambda and SQS take at most, for an event, to answer: seldom more than a tenth of it."""

_NO_TIME = "time ran out"
_AT_ONCE, _TOO_OLD = "ZeroReservedConcurrency", "EventAgeExceeded"

SKEW = timedelta(minutes=1)
"""Lambda's clock, which dates the records, and ours, which dates the stop, may differ by so much."""


class Redriven(NamedTuple):
    """What became of a queue."""

    accepted: int
    """Events that Lambda has taken again; of a dry run, those that it would be given."""
    others: int
    """Messages that the stop is not the reason of, which stay."""
    others_since: int
    """Those of them that came after the stop."""
    reason: str = ""
    """Why there is a rest, as far as known: time ran out, Lambda refused an event, or another attempt, which
    may have ended without a word, holds messages for a while. Empty when there is none."""


class _Kept(NamedTuple):
    at: datetime
    request_id: str
    message_id: str
    payload: str
    qualifier: str

    @classmethod
    def of(cls, body: Any, message_id: str) -> _Kept:
        context = body["requestContext"]
        # arn:aws:lambda:<region>:<account>:function:<name>:<qualifier>
        qualifier = "".join(context["functionArn"].split(":")[7:8])
        return cls(
            datetime.fromisoformat(body["timestamp"]),
            str(context.get("requestId", "")),
            message_id,
            json.dumps(body["requestPayload"], ensure_ascii=False, separators=(",", ":")),
            "" if qualifier == "$LATEST" else qualifier,
        )


def kept_by_stop(body: Any, function: str, since: datetime) -> bool:
    """Return whether a message is Lambda's record of an event that it refused for a stop.

    With no concurrency an asynchronous event goes to the failure destination at once, under the condition
    `ZeroReservedConcurrency`, whether it has been tried before or not; one that had been waiting may grow too
    old first, and was never answered then: it is without `responseContext`.
    """
    try:
        context, at = body["requestContext"], datetime.fromisoformat(body["timestamp"])
        name = context["functionArn"].split(":")[6]
        condition = context["condition"]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError):
        return False
    return (
        name == function
        and (condition == _AT_ONCE or (condition == _TOO_OLD and "responseContext" not in body))
        and "requestPayload" in body
        and at.tzinfo is not None
        and at >= since - SKEW
    )


class Redrive:
    """Moves events from the queue to the function.

    An event is deleted once Lambda has accepted it: a crash in between gives it twice, never not at all.

    Parameters
    ----------
    sqs, lambda_
        Clients.
    rate
        Events a second at most.
    sleep, clock
        Seconds; tests have their own.
    """

    def __init__(
        self,
        sqs: Any,
        lambda_: Any,
        *,
        rate: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not SLOWEST <= rate <= FASTEST:
            raise ValueError(f"rate: {rate:g} events a second is not between {SLOWEST:g} and {FASTEST:g}")
        self._sqs = sqs
        self._lambda = lambda_
        self._rate = rate
        self._sleep = sleep
        self._clock = clock
        self.hidden_s = int(60 + WINDOW * (1 / rate + ANSWERS_S))
        """How long what was received stays hidden: until its window is through for sure."""

    def __call__(
        self,
        queue_url: str,
        function: str,
        since: datetime,
        *,
        deadline: float = float("inf"),
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Redriven:
        """Give a function what a stop has kept from it, oldest first.

        Parameters
        ----------
        since
            When it was stopped.
        deadline
            By `clock`; what is not through by then stays.
        dry_run
            Only look. What is looked at is hidden from others meanwhile.
        progress
            Called with the number of events accepted so far.
        stopped
            Asked now and then; true ends it, for what a stopped function is given comes back for ever.
        """
        accepted, reason, more = 0, "", True
        others: dict[str, bool] = {}  # by message, whether it came after the stop
        hidden: dict[str, str] = {}  # what is to be shown again in the end, else it would be received again
        try:
            while more and not reason:
                if self._clock() >= deadline:
                    reason = _NO_TIME
                    break
                if stopped():
                    reason = "it was stopped again"
                    break
                messages, more = self._window(queue_url)
                hidden |= {each["MessageId"]: each["ReceiptHandle"] for each in messages}
                kept = []
                for message in messages:
                    body = _json(message["Body"])
                    if kept_by_stop(body, function, since):
                        kept.append(_Kept.of(body, message["MessageId"]))
                    else:
                        others[message["MessageId"]] = _came_after(message, since)
                # A moment after a resumption Lambda may still refuse events: what is given may come back.
                more = more or bool(kept and not dry_run)
                for event in sorted(kept):
                    if self._clock() >= deadline:
                        reason = _NO_TIME
                    elif not dry_run:
                        reason = self._give(function, event)
                    if reason:
                        break
                    if not dry_run:
                        receipt = hidden.pop(event.message_id)
                        self._sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=receipt)
                        self._sleep(1 / self._rate)
                    accepted += 1
                    if progress is not None:
                        progress(accepted)
        finally:
            self._show(queue_url, list(hidden.values()))
        if not reason and (held := self._held(queue_url, deadline)):
            reason = f"{held} messages are held by another attempt, for up to {self.hidden_s} s"
        return Redriven(accepted, len(others), sum(others.values()), reason)

    def _window(self, queue_url: str) -> tuple[list[Mapping[str, Any]], bool]:
        """Receive messages, and return whether there may be more."""
        messages: list[Mapping[str, Any]] = []
        size = 0
        while len(messages) < WINDOW and size < WINDOW_BYTES:
            answer = self._sqs.receive_message(
                QueueUrl=queue_url,
                MaxNumberOfMessages=10,
                VisibilityTimeout=self.hidden_s,
                WaitTimeSeconds=WAIT_S,
                MessageSystemAttributeNames=["SentTimestamp"],
            )
            found = answer.get("Messages", [])
            if not found:
                return messages, False
            messages += found
            size += sum(len(each["Body"]) for each in found)
        return messages, True

    def _held(self, queue_url: str, deadline: float) -> int:
        """Return how many messages are hidden, though not by this attempt."""
        name: Any = "ApproximateNumberOfMessagesNotVisible"
        held = 0
        for look in range(LOOKS):
            if look:
                if self._clock() + PAUSE_S > deadline:
                    break
                self._sleep(PAUSE_S)
            answer = self._sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=[name])
            if not (held := int(answer["Attributes"][name])):
                break
        return held

    def _give(self, function: str, event: _Kept) -> str:
        """Invoke asynchronously; return why Lambda did not accept, empty when it did."""
        from botocore.exceptions import ClientError

        qualifier = {"Qualifier": event.qualifier} if event.qualifier else {}
        try:
            self._lambda.invoke(
                FunctionName=function, InvocationType="Event", Payload=event.payload.encode(), **qualifier
            )
        except ClientError as error:
            return f"Lambda refused an event: {error}"
        return ""

    def _show(self, queue_url: str, receipts: list[str]) -> None:
        for start in range(0, len(receipts), 10):
            entries = [
                {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                for number, receipt in enumerate(receipts[start : start + 10])
            ]
            # What fails here is shown again when its time has run out.
            self._sqs.change_message_visibility_batch(QueueUrl=queue_url, Entries=entries)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _came_after(message: Mapping[str, Any], since: datetime) -> bool:
    sent_ms = int(message.get("Attributes", {}).get("SentTimestamp") or 0)
    return sent_ms >= since.timestamp() * 1000
