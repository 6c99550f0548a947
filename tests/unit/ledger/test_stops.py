"""Stopping and resuming, with the process ended at each of its calls, before and after the call's effect."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from agentops_monitoring.control import redrive
from agentops_monitoring.control.redrive import Redrive
from agentops_monitoring.control.stoppable import Target
from agentops_monitoring.control.stops import Breach, Resumed, Stops
from tests.integration.conftest import REGION

from .conftest import TABLES, create_tables

FUNCTION, QUEUE, FAILED_ALARM = "worker-function", "https://sqs/worker", "FailedEvents-worker"
TARGET = Target("worker", FUNCTION, QUEUE, ("Cost-worker", "HighCost"), FAILED_ALARM)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NEXT_DAY = NOON.replace(hour=0, minute=5) + timedelta(days=1)
AT_ONCE = "ZeroReservedConcurrency"


class Killed(BaseException):
    """The process has ended; nothing of it runs any more."""


class NotFoundError(Exception):
    pass


class InvalidError(Exception):
    pass


class ConflictError(Exception):
    pass


class FakeErrors:
    ResourceNotFoundException = ResourceNotFound = NotFoundError
    InvalidParameterValueException = InvalidError


@dataclass
class FakeAws:
    """Lambda, SQS and CloudWatch, as far as this needs them."""

    concurrency: int | None = None
    exists: bool = True
    free: int = 900
    muted: bool = False
    raised: int = 0
    accepted: list[int] = field(default_factory=list)
    refuses: int | None = None
    clock: datetime = NOON
    queue: dict[str, tuple[str, datetime]] = field(default_factory=dict)  # body, hidden until
    exceptions = FakeErrors

    def _there(self) -> None:
        if not self.exists:
            raise NotFoundError("no such function")

    def get_function_concurrency(self, *, FunctionName: str) -> dict[str, Any]:
        self._there()
        assert FunctionName == FUNCTION
        return {} if self.concurrency is None else {"ReservedConcurrentExecutions": self.concurrency}

    def put_function_concurrency(self, *, FunctionName: str, ReservedConcurrentExecutions: int) -> None:
        self._there()
        if ReservedConcurrentExecutions > self.free:
            raise InvalidError("below its minimum value of [100]")
        self.concurrency = ReservedConcurrentExecutions

    def delete_function_concurrency(self, *, FunctionName: str) -> None:
        self._there()
        self.concurrency = None

    def invoke(self, *, FunctionName: str, InvocationType: str, Payload: bytes) -> None:
        assert (FunctionName, InvocationType) == (FUNCTION, "Event")
        number = json.loads(Payload)["n"]
        if number == self.refuses:
            raise ClientError({"Error": {"Code": "TooManyRequestsException"}}, "Invoke")
        self.accepted.append(number)
        if self.concurrency == 0:
            self.accepted.pop()
            self.keep(number)

    def keep(self, number: int, condition: str = AT_ONCE, **more: Any) -> None:
        """Put Lambda's record of an event into the queue."""
        body = {
            "timestamp": self.clock.isoformat().replace("+00:00", "Z"),
            "requestContext": {
                "requestId": f"{number:04d}", "condition": condition,
                "functionArn": f"arn:aws:lambda:us-east-1:1:function:{FUNCTION}:$LATEST",
            },
            "requestPayload": {"n": number}, **more,
        }  # fmt: skip
        self.put(json.dumps(body))

    def put(self, body: str) -> None:
        self.queue[f"m{random.getrandbits(64):x}"] = (body, self.clock)

    def receive_message(
        self, *, QueueUrl: str, MaxNumberOfMessages: int, VisibilityTimeout: int, **_: Any
    ) -> Any:
        assert QueueUrl == QUEUE
        seen = [name for name, (_, until) in self.queue.items() if until <= self.clock]
        random.shuffle(seen)
        taken = seen[:MaxNumberOfMessages]
        until = self.clock + timedelta(seconds=VisibilityTimeout)
        for name in taken:
            self.queue[name] = (self.queue[name][0], until)
        sent = {"SentTimestamp": str(int(self.clock.timestamp() * 1000))}
        found = [
            {"MessageId": name, "ReceiptHandle": name, "Body": self.queue[name][0], "Attributes": sent}
            for name in taken
        ]
        return {"Messages": found} if found else {}

    def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> None:
        del self.queue[ReceiptHandle]

    def change_message_visibility_batch(self, *, QueueUrl: str, Entries: list[Any]) -> None:
        assert 0 < len(Entries) <= 10
        for entry in Entries:
            self.queue[entry["ReceiptHandle"]] = (self.queue[entry["ReceiptHandle"]][0], self.clock)

    def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: list[str]) -> Any:
        hidden = sum(until > self.clock for _, until in self.queue.values())
        return {"Attributes": dict.fromkeys(AttributeNames, str(hidden))}

    def disable_alarm_actions(self, *, AlarmNames: list[str]) -> None:
        assert AlarmNames == [FAILED_ALARM]
        self.muted = True

    def enable_alarm_actions(self, *, AlarmNames: list[str]) -> None:
        assert AlarmNames == [FAILED_ALARM]
        self.muted = False

    def set_alarm_state(self, *, AlarmName: str, StateValue: str, StateReason: str) -> None:
        self.raised += 1


class Process:
    """One life of a process: the n-th call of its clients ends it, before or after the call's effect."""

    def __init__(self, end_at: int = -1, *, after: bool = False) -> None:
        self.end_at = end_at
        self.after = after
        self.calls: list[str] = []
        self.others: dict[str, Callable[[], object]] = {}
        """What others do right before the first call of a name."""

    def client(self, real: Any) -> Any:
        """Wrap a client."""
        return _Client(self, real)

    def call(self, name: str, method: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Make a call, unless the process has ended."""
        self.others.pop(name, lambda: None)()
        number = len(self.calls)
        self.calls.append(name)
        if 0 <= self.end_at < number + (not self.after):
            raise Killed
        answer = method(**arguments)
        if number == self.end_at:
            raise Killed
        return answer


class _Client:
    def __init__(self, process: Process, real: Any) -> None:
        self._process = process
        self._real = real
        self.exceptions = real.exceptions

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)
        return lambda **arguments: self._process.call(name, method, arguments)


class Cloud:
    """The table and the rest of AWS, and processes that work on them."""

    def __init__(self, dynamodb: Any) -> None:
        self.dynamodb = dynamodb
        self.aws = FakeAws()

    def stops(self, process: Process | None = None) -> Stops:
        """Return what stops and resumes, in a process of its own."""
        process = process or Process()
        aws = process.client(self.aws)
        again = Redrive(aws, aws, rate=100, sleep=self._sleep)
        return Stops(
            process.client(self.dynamodb), aws, aws, TABLES.ledger, again, now=lambda: self.aws.clock
        )

    def attempt(self, process: Process, work: Callable[[Stops], object]) -> list[str]:
        """Work in a process, and in others if it ends; return the call that it ended in."""
        try:
            work(self.stops(process))
        except Killed:
            work(self.stops())  # Lambda tries again after a minute, with what is not hidden
            self.later(minutes=15)  # and so does the schedule
            work(self.stops())
            return [process.calls[process.end_at]]
        return []

    def _sleep(self, seconds: float) -> None:
        self.aws.clock += timedelta(seconds=seconds)

    def breach(self, alarm: str = "Cost-worker") -> Breach:
        """Return a breach, now."""
        return Breach(alarm, "too much", self.aws.clock, self.aws.clock.date())

    def later(self, **time: float) -> None:
        """Let time pass."""
        self.aws.clock += timedelta(**time)

    def send(self, *numbers: int) -> None:
        """Send the agent events."""
        for number in numbers:
            self.aws.invoke(
                FunctionName=FUNCTION, InvocationType="Event", Payload=json.dumps({"n": number}).encode()
            )
            self.later(milliseconds=10)


@pytest.fixture(scope="module")
def session() -> boto3.Session:
    return boto3.Session("test", "test", region_name=REGION)


@pytest.fixture
def cloud(session: boto3.Session) -> Iterator[Cloud]:
    """Give a cloud whose tables are moto's."""
    with mock_aws():
        client = session.client("dynamodb")
        create_tables(client)
        yield Cloud(client)


def test_what_was_refused_comes_back_in_order_and_nothing_else(cloud: Cloud) -> None:
    aws = cloud.aws
    aws.concurrency = 7
    aws.keep(-1)  # of a time before the stop: somebody's own 0
    cloud.later(hours=1)
    assert cloud.stops().stop(TARGET, cloud.breach())
    assert (aws.concurrency, aws.muted) == (0, True)
    cloud.send(*range(25))
    aws.keep(99, responseContext={"functionError": "Unhandled"})  # it was to be tried again
    aws.keep(100, "EventAgeExceeded")  # it waited until it was too old, and was never tried
    aws.keep(-2, "EventAgeExceeded", responseContext={"functionError": "Unhandled"})
    aws.keep(-3, "RetriesExhausted", responseContext={"functionError": "Unhandled"})
    aws.put("not even JSON")
    aws.put(json.dumps({"version": "0", "detail-type": "of a rule"}))

    told: list[int] = []
    done = cloud.stops().resume("worker", progress=told.append)

    assert done == Resumed("worker", "resumed", 7, 27, 5)
    assert aws.accepted == [*range(25), 99, 100]
    assert told == list(range(1, 28))
    assert (aws.concurrency, aws.muted, aws.raised) == (7, False, 1)
    assert len(aws.queue) == 5
    assert all(until <= aws.clock for _, until in aws.queue.values()), "what stays can be seen"
    assert cloud.stops().resume("worker") == Resumed("worker", "not stopped")


def test_wherever_the_process_ends_the_next_one_finishes(dynamodb: Any, full_size: bool) -> None:
    cloud = Cloud(dynamodb)
    former, ended = 7, Counter[str]()
    for after in (False, True):
        # At reduced size every other call ends it before its effect, and those between after theirs.
        for end_at in range(200) if full_size else range(after, 200, 2):
            cloud.aws = aws = FakeAws(concurrency=former, clock=cloud.aws.clock + timedelta(hours=1))
            breach, process = cloud.breach(), Process(end_at, after=after)
            killed_in = cloud.attempt(process, lambda stops, breach=breach: stops.stop(TARGET, breach))  # type: ignore[misc]
            assert aws.concurrency == 0
            cloud.send(1, 2, 3)
            aws.keep(-1, "RetriesExhausted", responseContext={})
            killed_in += cloud.attempt(process, lambda stops: stops.resume("worker"))

            assert aws.concurrency == former
            assert not aws.muted
            twice = Counter(aws.accepted)
            assert set(twice) == {1, 2, 3}
            # Only who ends between the event's acceptance and its deletion gives it twice.
            between = killed_in == ["invoke"] * after or killed_in == ["delete_message"] * (not after)
            assert sum(twice.values()) == 3 + (bool(killed_in) and between)
            assert len(aws.queue) == 1
            known = cloud.stops().find("worker")
            assert known is not None
            assert known.status == "running"
            assert cloud.stops().stop(TARGET, breach) is False, "dealt with"
            ended.update(killed_in)
            if not killed_in:
                break
        else:
            pytest.fail("it never gets through")
    assert set(ended) >= {
        "get_item", "put_item", "get_function_concurrency", "put_function_concurrency", "invoke",
        "receive_message", "delete_message", "disable_alarm_actions", "enable_alarm_actions",
        "change_message_visibility_batch",
    }  # fmt: skip


def test_a_breach_that_is_delivered_again_does_nothing_twice(cloud: Cloud) -> None:
    aws, breach = cloud.aws, cloud.breach()
    assert cloud.stops().stop(TARGET, breach)
    cloud.later(minutes=1)
    other = cloud.breach("HighCost")
    assert cloud.stops().stop(TARGET, other)
    assert cloud.stops().stop(TARGET, breach)
    known = cloud.stops().find("worker")
    assert known is not None
    assert (known.alarm, known.former) == ("Cost-worker", None)
    cloud.stops().resume("worker")
    for again in (breach, other):
        assert cloud.stops().stop(TARGET, again) is False
    assert aws.concurrency is None
    cloud.later(minutes=1)
    assert cloud.stops().stop(TARGET, cloud.breach()), "the next one does"
    assert aws.concurrency == 0


def test_a_breach_of_a_day_that_is_over_stops_nothing(cloud: Cloud) -> None:
    breach = cloud.breach()
    cloud.aws.clock = NEXT_DAY
    assert cloud.stops().stop(TARGET, breach) is False
    assert cloud.aws.concurrency is None


def test_the_schedule_resumes_the_days_before_and_what_is_unfinished(cloud: Cloud) -> None:
    aws = cloud.aws
    cloud.stops().stop(TARGET, cloud.breach())
    cloud.send(1, 2, 3)
    assert cloud.stops().resume("worker", before=NOON + timedelta(hours=6)).state == "stopped"
    assert aws.concurrency == 0

    late = Process()
    done = cloud.stops(late).resume("worker", before=NEXT_DAY, deadline=-1)
    assert "receive_message" not in late.calls, "the function has no time for another queue"
    assert (done.state, done.redriven, done.reason) == ("unfinished", 0, "time ran out")
    assert aws.concurrency is None
    assert aws.muted
    done = cloud.stops().resume("worker", before=NEXT_DAY)
    assert (done.state, done.redriven) == ("resumed", 3)
    assert not aws.muted


@pytest.mark.parametrize("bound", ["WINDOW", "WINDOW_BYTES"])
def test_a_queue_that_does_not_fit_comes_in_pieces(
    cloud: Cloud, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrive, bound, 30 if bound == "WINDOW" else 9_000)
    cloud.stops().stop(TARGET, cloud.breach())
    cloud.send(*range(100))
    for _ in range(45):
        cloud.aws.put("of another kind")
    done = cloud.stops().resume("worker")
    assert (done.state, done.redriven, done.others) == ("resumed", 100, 45)
    assert sorted(cloud.aws.accepted) == list(range(100))
    assert len(cloud.aws.queue) == 45


def test_an_event_that_lambda_refuses_stays_with_those_behind_it(cloud: Cloud) -> None:
    aws = cloud.aws
    cloud.stops().stop(TARGET, cloud.breach())
    cloud.send(1, 2, 3)
    aws.refuses = 2
    done = cloud.stops().resume("worker")
    assert (done.state, done.redriven, "TooManyRequests" in done.reason) == ("unfinished", 1, True)
    assert all(until <= aws.clock for _, until in aws.queue.values())
    aws.refuses = None
    assert cloud.stops().resume("worker", before=NOON).state == "resumed"
    assert aws.accepted == [1, 2, 3]


def test_a_dry_run_changes_nothing(cloud: Cloud) -> None:
    cloud.aws.concurrency = 2
    cloud.stops().stop(TARGET, cloud.breach())
    cloud.send(1, 2)
    before = cloud.stops().find("worker")
    assert cloud.stops().resume("worker", dry_run=True) == Resumed("worker", "resumed", 2, 2)
    assert (cloud.aws.accepted, cloud.aws.concurrency) == ([], 0)
    assert cloud.stops().find("worker") == before
    assert cloud.stops().resume("worker").redriven == 2


def test_what_cannot_be_restored_is_said_and_tried_again(cloud: Cloud) -> None:
    aws = cloud.aws
    aws.concurrency = 50
    cloud.stops().stop(TARGET, cloud.breach())
    cloud.send(1)
    aws.free = 20  # others have reserved the rest
    done = cloud.stops().resume("worker")
    assert (done.state, "[100]" in done.reason) == ("refused", True)
    assert (aws.concurrency, aws.accepted) == (0, [])
    aws.free = 900
    assert cloud.stops().resume("worker", before=NOON) == Resumed("worker", "resumed", 50, 1)


@pytest.mark.parametrize("former", [None, 0, 4])
def test_who_has_set_another_value_since_keeps_it(cloud: Cloud, former: int | None) -> None:
    aws = cloud.aws
    aws.concurrency = former
    cloud.stops().stop(TARGET, cloud.breach())
    aws.concurrency = 9
    assert cloud.stops().resume("worker").concurrency == 9
    assert aws.concurrency == 9


def test_who_had_none_before_gets_no_events(cloud: Cloud) -> None:
    cloud.aws.concurrency = 0
    cloud.stops().stop(TARGET, cloud.breach())
    cloud.send(1)
    assert cloud.stops().resume("worker") == Resumed("worker", "resumed", 0)
    assert len(cloud.aws.queue) == 1


def test_a_function_that_is_gone_is_no_trouble(cloud: Cloud) -> None:
    cloud.stops().stop(TARGET, cloud.breach())
    cloud.aws.exists = False
    done = cloud.stops().resume("worker")
    assert (done.state, FUNCTION in done.reason) == ("not stopped", True)
    assert cloud.stops().resume("worker", before=NEXT_DAY) == Resumed("worker", "not stopped")


def test_a_resumption_amid_a_stop_that_is_delivered_again_holds(cloud: Cloud) -> None:
    aws, breach, process = cloud.aws, cloud.breach(), Process()
    aws.concurrency = 7
    cloud.stops().stop(TARGET, breach)
    cloud.send(1)
    process.others["put_function_concurrency"] = lambda: cloud.stops().resume("worker")
    cloud.stops(process).stop(TARGET, breach)
    assert (aws.concurrency, aws.muted, aws.accepted) == (7, False, [1])
    known = cloud.stops().find("worker")
    assert known is not None
    assert known.status == "running"


@pytest.mark.parametrize(
    "call", ["put_item", "delete_function_concurrency", "receive_message", "invoke", "enable_alarm_actions"]
)
def test_a_breach_amid_a_resumption_stops(cloud: Cloud, call: str) -> None:
    aws, process = cloud.aws, Process()
    cloud.stops().stop(TARGET, cloud.breach())
    cloud.send(1, 2, 3)
    cloud.later(hours=1)
    process.others[call] = lambda: cloud.stops().stop(TARGET, cloud.breach("HighCost"))
    done = cloud.stops(process).resume("worker")
    assert (done.state, "again" in done.reason) == ("unfinished", True)
    assert (aws.concurrency, aws.muted) == (0, True)
    assert len(aws.accepted) + len(aws.queue) == 3
    assert cloud.stops().resume("worker").state == "resumed"
    assert sorted(aws.accepted) == [1, 2, 3]
    assert (aws.concurrency, aws.muted, len(aws.queue)) == (None, False, 0)


def test_what_was_refused_a_moment_after_the_resumption_comes_back_too(cloud: Cloud) -> None:
    cloud.stops().stop(TARGET, cloud.breach())
    cloud.stops().resume("worker")
    cloud.aws.keep(1)  # Lambda had not heard of it everywhere
    assert cloud.stops().resume("worker", before=NEXT_DAY).state == "not stopped", "it is not the schedule's"
    assert cloud.stops().resume("worker") == Resumed("worker", "resumed", None, 1)
    assert cloud.aws.accepted == [1]
    assert cloud.stops().resume("worker") == Resumed("worker", "not stopped")


def test_a_count_that_lags_is_asked_again(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.stops().stop(TARGET, cloud.breach())
    cloud.send(1)
    lags = iter(["1"] * 12)
    monkeypatch.setattr(
        cloud.aws,
        "get_queue_attributes",
        lambda **asked: {"Attributes": dict.fromkeys(asked["AttributeNames"], next(lags, "0"))},
    )
    assert cloud.stops().resume("worker").state == "resumed", "SQS counts within a minute"
