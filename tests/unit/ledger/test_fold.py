"""Days and months out of hours: right at any moment, whoever folds, whatever comes late or fails between."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring.functions import fold as function
from agentops_monitoring.ledger.fold import Fold, Folded
from agentops_monitoring.ledger.parse import read_lines, read_payload
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.requests import LedgerBusy
from agentops_monitoring.ledger.schema import FOLD_AFTER
from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.ledger.compare import check_days
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB, client_error
from tests.unit.ledger.recount import recount
from tests.unit.ledger.streams import LogEvent, World, payload

STARTS = ("2026-10-30T23:59:50", "2026-10-31T23:59:50", "2026-11-01T08:00:00", "2026-11-22T23:59:50")
FULL = os.environ.get("AGENTOPS_TEST_SIZE") == "full"
MORNING = datetime(2026, 11, 23, 2, tzinfo=UTC)
"""All those days are closed, and October is."""
AFTER = datetime(2026, 12, 2, tzinfo=UTC)


def years(seed: int, starts: Sequence[str] = STARTS, **size: int) -> list[list[LogEvent]]:
    """Return deliveries of two months, in the order of their latest lines."""
    batches: list[list[LogEvent]] = []
    for number, start in enumerate(starts):
        begin = round(datetime.fromisoformat(f"{start}+00:00").timestamp() * 1000)
        world = World(seed + number, start_ms=begin, **({"streams": 2, "invocations": 2} | size))
        world.events = [each._replace(id=f"{number}{each.id[1:]}") for each in world.events]
        batches += world.deliveries()
    return sorted(batches, key=lambda batch: max(each.timestamp for each in batch))


class Ledger:
    """The tables, a clock that all share, and what has been delivered."""

    def __init__(self, client: Any, shards: int = 4) -> None:
        self.client = client
        self.shards = shards
        self.now = datetime(2026, 10, 30, tzinfo=UTC)
        self.delivered: list[LogEvent] = []
        self.writer = self.new_writer()

    def new_writer(self) -> LedgerWriter:
        return LedgerWriter(
            self.client, TABLES, shards=self.shards, sleep=lambda _: None, clock=lambda: self.now.timestamp()
        )

    def write(self, batch: list[LogEvent], writer: LedgerWriter | None = None) -> None:
        latest = datetime.fromtimestamp(max(each.timestamp for each in batch) / 1000, UTC)
        self.now = max(self.now, latest)
        result = (writer or self.writer).write(read_payload(payload(batch), "us-east-1"))
        assert not result.rejects
        self.delivered += batch

    def fold(self) -> Folded:
        return Fold(self.client, TABLES, shards=self.shards, sleep=lambda _: None).run(self.now)

    def reader(self) -> LedgerReader:
        return LedgerReader(self.client, TABLES, shards=self.shards, clock=lambda: self.now)

    def check(self) -> None:
        if self.delivered:
            check_days(self.reader(), recount(self.delivered))

    def items(self, prefix: str) -> list[dict[str, Any]]:
        pages = self.client.get_paginator("scan").paginate(TableName=TABLES.ledger)
        return [item for page in pages for item in page["Items"] if item["pk"]["S"].startswith(prefix)]


@settings(max_examples=200 if FULL else 6, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whenever_it_folds_days_and_months_are_the_recount(seed: int) -> None:
    dice = random.Random(seed)
    ledger = Ledger(FakeDynamoDB())
    batches = years(seed)
    # Some come late: days later, folded or not.
    late = [batches.pop(dice.randrange(len(batches))) for _ in range(3)]
    for batch in batches:
        ledger.write(batch, None if dice.random() < 0.7 else ledger.new_writer())
        if dice.random() < 0.15:
            ledger.now += timedelta(minutes=dice.choice((30, 61)))
            ledger.fold()
        if late and dice.random() < 0.1:
            ledger.write(late.pop())
            ledger.check()
    ledger.now = MORNING
    for batch in late:
        ledger.fold()
        ledger.write(batch)
        ledger.check()
    ledger.fold()
    ledger.check()
    assert ledger.fold() == Folded(0, 0, 0)


@settings(max_examples=150 if FULL else 4, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_late_events_other_folds_and_faults_in_the_middle_of_a_fold(seed: int) -> None:
    dice = random.Random(seed)
    client = FakeDynamoDB()
    ledger = Ledger(client)
    batches = years(seed)
    late = [batches.pop(dice.randrange(len(batches))) for _ in range(4)]
    for batch in batches:
        ledger.write(batch)
    ledger.now = MORNING
    meddling = threading.Lock()

    def meddle(operation: str, when: str) -> None:
        # One at a time, and nobody meddles with who meddles.
        if dice.random() > 0.04 or not meddling.acquire(blocking=False):
            return
        try:
            what = dice.randrange(4)
            if what == 0 and when == "after":
                raise ReadTimeoutError(endpoint_url="test")
            if what == 1:
                raise client_error(dice.choice(("AccessDeniedException", "ThrottlingException")), operation)
            if what == 2 and late:
                ledger.write(late.pop())
            if what == 3:
                ledger.fold()
        finally:
            meddling.release()

    for _ in range(4):
        client.fault = meddle
        with contextlib.suppress(ExceptionGroup, ClientError, ReadTimeoutError, LedgerBusy):
            ledger.fold()
        client.fault = lambda operation, when: None
        ledger.check()
    for batch in late:
        ledger.write(batch)
    ledger.fold()
    ledger.check()
    assert ledger.fold() == Folded(0, 0, 0)


class Killed(BaseException):
    """What ends a process."""


def test_killed_at_any_of_its_calls(full_size: bool) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    batches = years(seed)
    late = batches.pop(0)
    client = FakeDynamoDB()
    ledger = Ledger(client)
    for batch in batches:
        ledger.write(batch)
    ledger.now = MORNING
    calls: list[int] = []
    client.fault = lambda operation, when: calls.append(1)
    ledger.fold()
    ledger.write(late)  # so that one day and its month have to be folded again
    calls.clear()
    ledger.fold()
    total = len(calls)
    dice = random.Random(seed)
    for place in range(total) if full_size else dice.sample(range(total), 10):
        client.fault = lambda operation, when: None
        for table in client.tables.values():  # as if it had not been folded after the late event
            for item in table.values():
                if "seen" in item:
                    item["seen"] = {"N": "1"}
        client.fault = _kill_at(place)
        with pytest.raises(Killed):
            ledger.fold()
        client.fault = lambda operation, when: None
        ledger.check()
        ledger.fold()
        ledger.check()


def _kill_at(place: int) -> Callable[[str, str], None]:
    left = [place]

    def fault(operation: str, when: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    return fault


def test_on_the_services(dynamodb: Any) -> None:
    batches = years(5, STARTS[1:2], streams=2, invocations=1)
    ledger = Ledger(dynamodb, shards=1)
    for batch in batches[1:]:
        ledger.write(batch)
    ledger.now = MORNING
    assert ledger.fold() == Folded(days := len(ledger.reader().seen("D#", "D#~")), 1, 0)
    assert days
    ledger.check()
    ledger.write(batches[0])
    ledger.check()
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda _: ledger.fold(), range(2)):
            pass
    ledger.check()
    assert ledger.fold() == Folded(0, 0, 0)


def test_a_day_is_folded_an_hour_after_its_end_and_a_month_with_its_last_day() -> None:
    ledger = Ledger(FakeDynamoDB())
    for batch in years(3):
        if batch[0].timestamp < datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000:
            ledger.write(batch)
    midnight = datetime(2026, 11, 1, tzinfo=UTC)
    ledger.now = midnight + FOLD_AFTER - timedelta(seconds=1)
    ledger.fold()
    assert "D#2026-10-31" not in ledger.reader().seen()
    ledger.now = midnight + FOLD_AFTER
    folded = ledger.fold()
    assert (folded.days, folded.months) == (1, 1)
    assert {"D#2026-10-30", "D#2026-10-31", "M#2026-10"} <= ledger.reader().seen().keys()
    assert "D#2026-11-01" not in ledger.reader().seen()


def test_hours_live_until_their_day_is_folded_and_days_longer_and_months_for_ever() -> None:
    ledger = Ledger(FakeDynamoDB())
    batches = years(4)
    for batch in batches[1:]:
        ledger.write(batch)
    assert not any("expires_at" in item for item in ledger.items("H#"))
    ledger.now = MORNING
    ledger.fold()

    def ends(prefix: str) -> dict[str, datetime]:
        return {
            item["pk"]["S"]: datetime.fromtimestamp(int(item["expires_at"]["N"]), UTC)
            for item in ledger.items(prefix)
        }

    for pk, end in ends("H#").items():
        midnight = datetime.fromisoformat(f"{pk[2:12]}T00:00:00+00:00") + timedelta(days=1)
        assert end - midnight == timedelta(days=400)
    days = [item for item in ledger.items("D#") if item["pk"]["S"].count("#") == 1]
    assert days
    for item in days:
        end = datetime.fromtimestamp(int(item["expires_at"]["N"]), UTC)
        assert end > datetime(2036, 1, 1, tzinfo=UTC)
    assert not any("expires_at" in item for item in ledger.items("M#"))
    # What comes late into an hour without an end gets one by the next fold.
    ledger.write(batches[0])
    ledger.fold()
    assert all("expires_at" in item for item in ledger.items("H#"))


def test_a_day_whose_hours_may_be_gone_stays_what_it_is() -> None:
    client = FakeDynamoDB()
    ledger = Ledger(client)
    batches = years(6)
    for batch in batches[1:]:
        ledger.write(batch)
    ledger.now = AFTER
    ledger.fold()
    before = recount(ledger.delivered)
    ledger.now += timedelta(days=410)
    for key in [key for key in client.tables[TABLES.ledger] if key[0].startswith("H#")]:
        del client.tables[TABLES.ledger][key]
    ledger.write(batches[0])
    ledger.fold()
    check_days(ledger.reader(), before)


def test_a_day_that_no_fold_has_seen_is_folded_years_later() -> None:
    ledger = Ledger(FakeDynamoDB())
    for batch in years(7):
        ledger.write(batch)
    ledger.now = MORNING + timedelta(days=3 * 365)
    folded = ledger.fold()
    assert folded.days >= len(STARTS)
    assert folded.months >= 2
    ledger.check()


@pytest.mark.parametrize("year", ["0001", "9999"])
def test_events_of_any_year_hold_up_no_day(year: str) -> None:
    ledger = Ledger(FakeDynamoDB())
    batches = years(11)
    body = {
        "v": 1, "id": "abc-1", "type": "issue_detected", "agent": "m", "at": f"{year}-12-31T23:59:59.000Z",
        "workflow_id": "w", "trace_id": "0" * 32, "span_id": "1" * 16, "parent_id": None, "request_id": None,
        "seq": 1, "data": {},
    }  # fmt: skip
    text = json.dumps({"issue_detected": 1, "agentops.event": body})
    for batch in batches:
        ledger.write(batch)
    assert ledger.writer.write(read_lines([text], "p")).events == 1
    ledger.now = AFTER
    assert ledger.fold().days >= len(STARTS)
    assert ledger.reader().seen("M#2026-10", "M#2026-10")


def test_who_sleeps_between_two_attempts_tells_the_fold_all_the_same() -> None:
    """A laptop's lid, or a function that Lambda froze: what it repeats in the morning is a late addition."""
    ledger = Ledger(FakeDynamoDB())
    *first, second = [[each] for each in World(20, streams=1, invocations=2).events]

    def sleep(_: float) -> None:
        if ledger.now < MORNING:
            ledger.now = MORNING
            assert ledger.fold().days == 1

    def fail(operation: str, when: str) -> None:
        if operation == "TransactWriteItems" and when == "before" and ledger.now < MORNING:
            raise ReadTimeoutError(endpoint_url="")

    ledger.writer = LedgerWriter(
        ledger.client, TABLES, shards=4, sleep=sleep, clock=lambda: ledger.now.timestamp()
    )
    for batch in first:
        ledger.write(batch)
    ledger.client.fault = fail
    with pytest.raises(LedgerBusy, match="too old"):
        ledger.write(second)
    ledger.write(second)
    ledger.check()


def test_without_time_the_rest_is_left_for_the_next_run() -> None:
    ledger = Ledger(FakeDynamoDB())
    for batch in years(8):
        ledger.write(batch)
    ledger.now = MORNING
    fold = Fold(ledger.client, TABLES, shards=4)
    left = fold.run(ledger.now, deadline=0).left
    assert left >= len(STARTS)
    ledger.check()
    assert fold.run(ledger.now).days == left


@pytest.mark.parametrize("invocations", [2, 20])
def test_reading_and_folding_take_requests_by_days_and_not_by_events(invocations: int) -> None:
    client = FakeDynamoDB()
    ledger = Ledger(client)
    for batch in years(9, invocations=invocations):
        ledger.write(batch)
    ledger.now = AFTER
    days = len(ledger.reader().marks())
    client.calls.clear()
    assert ledger.fold().days == days
    # Marks and what is folded, the hours of each day, and the days of each month.
    assert client.calls["Query"] == 4 + 1 + days * 24 * 4 + days
    client.calls.clear()
    ledger.fold()
    assert client.calls == {"Query": 4 + 1}
    reader = ledger.reader()
    reader.days(date(2026, 10, 1), date(2026, 12, 1))
    assert reader.requests == 1 + days + 4
    reader = ledger.reader()
    reader.month(2026, 10)
    assert reader.requests == 1 + 1 + 1 + 4
    reader = ledger.reader()
    reader.last(24 * 7, datetime(2026, 11, 5, 23, 30, tzinfo=UTC))
    assert reader.requests == 1 + len(ledger.reader().marks("D#2026-10-30", "D#2026-11-05")) + 4


def test_the_function_says_in_its_log_what_it_could_not_fold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = FakeDynamoDB()
    ledger = Ledger(client)
    for batch in years(5, STARTS[:1]):
        ledger.write(batch)

    def refuse(operation: str, when: str) -> None:
        if operation == "UpdateItem" and when == "before":
            raise client_error("AccessDeniedException", operation)

    client.fault = refuse
    monkeypatch.setattr(function, "_fold", lambda: Fold(client, TABLES))
    with pytest.raises(ExceptionGroup, match="could not be folded"):
        function.handler({}, None)
    (told,) = {line for line in capsys.readouterr().out.splitlines() if "2026-10-30" in line}
    assert json.loads(told)["at"] == "folding D#2026-10-30"
    assert "AccessDenied" in json.loads(told)["why"]
