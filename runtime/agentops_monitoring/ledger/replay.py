"""What did not get into the ledger, delivered to ingest again: dead letters, log groups, later versions.

All of it takes the way that it missed: a subscription's payload to the ingest function, which counts each
event once. Nothing is deleted before that function has answered, so an interruption anywhere costs a
repetition and nothing else.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

from agentops_monitoring.ledger.dead_letters import join
from agentops_monitoring.ledger.parse import TERMS

VISIBILITY_S = 900
"""How long a message that is being replayed is hidden from others."""
_WAIT_S = 1
"""From one second on SQS asks every server, so that an empty answer means an empty queue."""
_PARALLEL = 4
_MARK = "replayed"
"""Of a payload, when the run began that delivers it: refused lines keep it, and a run tries none twice."""
_BATCH_EVENTS, _BATCH_BYTES = 1_000, 3_000_000
"""Of one delivery; a synchronous invocation takes 6 MB, and ingest has a minute for it."""
_BUFFER_BYTES = 30_000_000


class Answer(NamedTuple):
    """What ingest made of a delivery."""

    events: int = 0
    """Events and reports that are in the ledger now and were not before."""
    known: int = 0
    """Those that were there already."""
    refused: int = 0
    """Lines that went (back) to the dead letters."""
    later: int = 0
    """Lines of a version that ingest does not know yet; it keeps them."""
    error: str = ""
    """Why nothing is known of it: it has to be delivered again."""

    def plus(self, other: Answer) -> Answer:
        """Return the sums, and the first error."""
        return Answer(
            self.events + other.events,
            self.known + other.known,
            self.refused + other.refused,
            self.later + other.later,
            self.error or other.error,
        )


Deliver = Callable[[str], Answer]
"""Delivers a subscription's `awslogs.data`."""


def by_function(client: Any, function: str) -> Deliver:
    """Return what delivers to the ingest function, and waits for its answer.

    Parameters
    ----------
    client
        A Lambda client.
    function
        Name or ARN.
    """

    def deliver(data: str) -> Answer:
        answer = client.invoke(
            FunctionName=function, Payload=json.dumps({"awslogs": {"data": data}}).encode()
        )
        told = json.loads(answer["Payload"].read() or b"null")
        if answer.get("FunctionError"):
            about = told if isinstance(told, dict) else {}
            return Answer(error=str(about.get("errorMessage") or answer["FunctionError"])[:500])
        return Answer(
            told["events"] + told["reports"], told["duplicates"], told["rejected"], told.get("later", 0)
        )

    return deliver


def encode(payload: Mapping[str, Any]) -> str:
    """Return a payload as a subscription delivers it."""
    return base64.b64encode(gzip.compress(json.dumps(payload).encode(), 1)).decode()


class Letter(NamedTuple):
    """What became of a dead letter."""

    kind: str
    """"lines" that were refused, a "delivery" that could not be read, a "failed delivery" that Lambda gave
    up, or "other": none of ingest's."""
    state: str
    """"found" by a dry run; "replayed" and deleted; "failed" and left as it was; "left", as it is none of
    ingest's or not whole."""
    messages: int
    """Of the queue; a large letter has several."""
    lines: int
    """Log events in it; 0 where that is not known."""
    answer: Answer = Answer()
    reason: str = ""


class DeadLetterQueue:
    """Replays a queue of dead letters.

    Parameters
    ----------
    client
        An SQS client.
    url
        The queue's.
    deliver
        Where to; None to look only.
    """

    def __init__(self, client: Any, url: str, deliver: Deliver | None) -> None:
        self._client = client
        self._url = url
        self._deliver = deliver
        self._lock = threading.Lock()
        self._held: dict[str, str] = {}
        """Messages received and not deleted: receipt handles by id."""
        self._parts: dict[str, dict[int, _Message]] = {}
        self._began = datetime.now(UTC).isoformat()
        self._refused: set[str] = set()
        """Deliveries that came back."""

    def size(self) -> int:
        """Return about how many messages there are."""
        names = ["ApproximateNumberOfMessages"]
        found = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)
        return int(found["Attributes"][names[0]])

    def replay(self) -> Iterator[Letter]:
        """Deliver what is in the queue, and delete what ingest took; the rest is visible again at the end.

        Lines that ingest refuses once more come back as new messages, with their reason, before the old one
        is deleted; those wait for another run.
        """
        try:
            with ThreadPoolExecutor(_PARALLEL) as pool:
                for messages in self._receive():
                    wholes = [whole for each in messages if (whole := self._whole(each))]
                    yield from (letter for letter in pool.map(self._replay, wholes) if letter)
            for parts in self._parts.values():
                (total,) = {each.total for each in parts.values()} or {0}
                yield Letter("other", "left", len(parts), 0, reason=f"{len(parts)} of {total} parts are here")
        finally:
            self._release()

    def _receive(self) -> Iterator[list[_Message]]:
        seen: set[str] = set()
        while True:
            answer = self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=10,
                VisibilityTimeout=VISIBILITY_S,
                WaitTimeSeconds=_WAIT_S,
            )
            found = answer.get("Messages", [])
            if not found:
                return
            with self._lock:
                self._held |= {each["MessageId"]: each["ReceiptHandle"] for each in found}
            new = [each for each in found if each["MessageId"] not in seen]
            seen |= {each["MessageId"] for each in new}
            yield [_Message.read(each) for each in new]

    def _whole(self, message: _Message) -> list[_Message] | None:
        """Return the messages of a letter once all are here; a large letter has several."""
        if not message.name:
            return [message]
        parts = self._parts.setdefault(message.name, {})
        parts[message.number] = message
        return list(self._parts.pop(message.name).values()) if len(parts) == message.total else None

    def _replay(self, messages: Sequence[_Message]) -> Letter | None:
        """Return what became of a letter; None for one that this run itself, or a later one, brought back."""
        found = _read(messages)
        letter = Letter(found.kind, "left", len(messages), found.lines, reason=found.reason)
        if found.replayed >= self._began or (found.data and found.data in self._refused):
            return None
        if not (found.data or found.payload):
            return letter
        if self._deliver is None:
            return letter._replace(state="found")
        data = encode({**found.payload, _MARK: self._began}) if found.payload else found.data
        answer = self._deliver(data)
        if answer.error:
            return letter._replace(state="failed", answer=answer, reason=answer.error)
        if answer.refused:
            self._refused.add(data)
        for message in messages:
            with self._lock:
                receipt = self._held.pop(message.id)
            self._client.delete_message(QueueUrl=self._url, ReceiptHandle=receipt)
        return letter._replace(state="replayed", answer=answer)

    def _release(self) -> None:
        held = list(self._held.items())
        for start in range(0, len(held), 10):
            self._client.change_message_visibility_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                    for number, (_, receipt) in enumerate(held[start : start + 10])
                ],
            )
        self._held.clear()


class _Message(NamedTuple):
    id: str
    text: str
    name: str = ""
    """Of the letter that it is a part of."""
    number: int = 1
    total: int = 1

    @classmethod
    def read(cls, message: Mapping[str, Any]) -> _Message:
        text = str(message["Body"])
        try:
            body = json.loads(text)
            if "gzip" in body:
                number, total = body["part"]
                return cls(message["MessageId"], text, str(body["gzip"]), int(number), int(total))
        except (ValueError, TypeError, KeyError):
            pass
        return cls(message["MessageId"], text)


class _Content(NamedTuple):
    """What a letter holds."""

    kind: str
    reason: str
    data: str = ""
    """A delivery as it came; empty when there is none."""
    payload: dict[str, Any] | None = None
    """A delivery to be made of lines."""
    lines: int = 0
    replayed: str = ""
    """When the run began that brought it back."""


def _read(messages: Sequence[_Message]) -> _Content:
    try:
        (body,) = join([each.text for each in messages])
    except (ValueError, TypeError, OSError, EOFError) as error:
        return _Content("other", f"it cannot be read: {error}")
    if not isinstance(body, dict):
        return _Content("other", "it is nothing that ingest writes")
    if isinstance(body.get("logEvents"), list):
        lines = body["logEvents"]
        events = [each for each in lines if isinstance(each, dict)]
        reasons = "; ".join(sorted({str(each.get("reason", "")) for each in events}))[:500]
        clean = [{name: value for name, value in each.items() if name != "reason"} for each in events]
        payload = {**body, "logEvents": clean}
        return _Content("lines", reasons, "", payload, len(lines), str(body.get(_MARK, "")))
    if data := _data(body):
        return _Content("delivery", str(body.get("reason", "")), data)
    context = body.get("requestContext")
    if not isinstance(context, dict):
        return _Content("other", "it is nothing that ingest writes")
    condition = str(context.get("condition", "failed"))
    if data := _data(body.get("requestPayload")):
        return _Content("failed delivery", condition, data)
    for source, name in (("export's", "DDBStreamBatchInfo"), ("a stream's", "KinesisBatchInfo")):
        if name in body:
            return _Content("other", f"{source} batch, of which only the position is kept ({condition})")
    # arn:aws:lambda:<region>:<account>:function:<name>:<qualifier>
    function = ":".join(str(context.get("functionArn", "")).split(":")[6:7]) or "a function"
    if "requestPayload" in body:
        return _Content("other", f"{condition}: an event of {function}, with no lines for the ledger")
    # https://docs.aws.amazon.com/lambda/latest/api/API_OnFailure.html: what is too large is dropped.
    reason = (
        f"{condition}, without the event of {function} itself: if it held lines, replay --from-logs has them"
    )
    return _Content("other", reason)


def _data(holder: object) -> str:
    logs = holder.get("awslogs") if isinstance(holder, dict) else None
    data = logs.get("data") if isinstance(logs, dict) else None
    return data if isinstance(data, str) else ""


class Page(NamedTuple):
    """Log events to deliver."""

    payload: dict[str, Any]
    through_ms: int
    """How far the log has been read."""


def filter_of(client: Any, group: str, environment: str) -> str | None:
    """Return the name of a log group's filter to ingest: it says whose lines these are; None without one.

    Parameters
    ----------
    client
        A CloudWatch Logs client.
    group
        The log group.
    environment
        The plane's.
    """
    prefix = f"agentops|{environment}|"
    pages = client.get_paginator("describe_subscription_filters").paginate(
        logGroupName=group, filterNamePrefix=prefix
    )
    names = [each["filterName"] for page in pages for each in page["subscriptionFilters"]]
    return next((name for name in names if name.startswith(prefix)), None)


def log_pages(
    client: Any, group: str, filter_name: str, *, start_ms: int, end_ms: int, streams: Sequence[str] = ()
) -> Iterator[Page]:
    """Read the lines of a log group that a subscription would have delivered, with the same ids.

    Parameters
    ----------
    client
        A CloudWatch Logs client.
    group, filter_name
        The log group, and the name of its filter to ingest.
    start_ms, end_ms
        Milliseconds since the epoch, both included.
    streams
        Only these, at most 100; all by default.
    """
    wanted: dict[str, Any] = {"logStreamNames": list(streams)} if streams else {}
    pages = client.get_paginator("filter_log_events").paginate(
        logGroupName=group,
        startTime=start_ms,
        endTime=end_ms,
        filterPattern=" ".join(f'?"{term}"' for term in TERMS),
        **wanted,
    )
    waiting: dict[str, list[dict[str, Any]]] = {}
    sizes: dict[str, int] = {}
    through_ms = start_ms

    def take(stream: str) -> Page:
        del sizes[stream]
        payload = {
            "messageType": "DATA_MESSAGE",
            "owner": "",
            "logGroup": group,
            "logStream": stream,
            "subscriptionFilters": [filter_name],
            "logEvents": waiting.pop(stream),
        }
        return Page(payload, through_ms)

    for page in pages:
        for event in page["events"]:
            stream = event["logStreamName"]
            line = {"id": event["eventId"], "timestamp": event["timestamp"], "message": event["message"]}
            size = len(event["message"].encode(errors="replace"))
            if stream in waiting and sizes[stream] + size > _BATCH_BYTES:
                yield take(stream)
            waiting.setdefault(stream, []).append(line)
            sizes[stream] = sizes.get(stream, 0) + size
            through_ms = max(through_ms, event["timestamp"])
            if len(waiting[stream]) >= _BATCH_EVENTS:
                yield take(stream)
            elif sum(sizes.values()) > _BUFFER_BYTES:
                yield take(max(sizes, key=sizes.__getitem__))
    through_ms = end_ms
    while waiting:
        yield take(next(iter(waiting)))


def deliver_all(pages: Iterable[Page], deliver: Deliver) -> Iterator[tuple[Page, Answer]]:
    """Deliver pages one by one; those after a failure are not tried, for they would meet the same."""
    for page in pages:
        answer = deliver(encode(page.payload))
        yield page, answer
        if answer.error:
            return
