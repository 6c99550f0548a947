"""Who comes between the steps of a fold, or of a reader, at the worst of all moments."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.ledger.fake_dynamodb import FakeDynamoDB
from tests.unit.ledger.streams import LogEvent, World
from tests.unit.ledger.test_fold import MORNING, Ledger

DAY = "D#2026-11-22"


class Client(FakeDynamoDB):
    """Tells before an item is put, and before and after a partition is read."""

    def __init__(self) -> None:
        super().__init__()
        self.on: Callable[[str, str], None] = lambda what, pk: None

    def put_item(self, **arguments: Any) -> Any:
        self.on("put", arguments["Item"]["pk"]["S"])
        return super().put_item(**arguments)

    def query(self, **arguments: Any) -> Any:
        pk = arguments["ExpressionAttributeValues"][":pk"]["S"]
        self.on("read", pk)
        answer = super().query(**arguments)
        self.on("have read", pk)
        return answer


def day() -> tuple[Ledger, Client, list[LogEvent]]:
    """Return a ledger with a day that is over, and what comes late of it."""
    client = Client()
    ledger = Ledger(client)
    lines = World(20, streams=1, invocations=3).events
    half = len(lines) // 2
    ledger.write(lines[:half])
    ledger.now = MORNING
    return ledger, client, lines[half:]


def test_what_comes_after_its_hour_was_read_is_not_taken_for_folded() -> None:
    ledger, client, late = day()
    hours: list[str] = []

    def on(what: str, pk: str) -> None:
        if what == "have read" and pk.startswith("H#"):
            hours.append(pk)
            if len(hours) == 24 * 4:
                ledger.write(late)

    client.on = on
    ledger.fold()
    client.on = lambda what, pk: None
    ledger.check()
    ledger.fold()
    ledger.check()


def test_a_reader_does_not_take_half_of_a_fold_for_the_day() -> None:
    ledger, client, late = day()
    ledger.fold()

    class Killed(Exception):
        pass

    def on(what: str, pk: str) -> None:
        if (what, pk) == ("read", DAY):
            puts: list[str] = []

            def kill(what: str, pk: str) -> None:
                if what == "put":
                    puts.append(pk)
                    if len(puts) > 2:
                        raise Killed

            client.on = kill
            ledger.write(late)
            with pytest.raises(ExceptionGroup):
                ledger.fold()
            client.on = lambda what, pk: None

    client.on = on
    meanwhile = ledger.reader().day(MORNING.date() - timedelta(days=1))
    assert meanwhile.total.counters == ledger.reader().day(MORNING.date() - timedelta(days=1)).total.counters
    ledger.check()


def test_a_fold_that_was_overtaken_leaves_nothing_behind() -> None:
    ledger, client, late = day()
    has_read, go_on = threading.Event(), threading.Event()
    slow: list[int] = []

    def on(what: str, pk: str) -> None:
        if what == "put" and not go_on.is_set():
            if not has_read.is_set():
                slow.append(threading.get_ident())
                has_read.set()
            if not late_is_in.is_set():
                assert go_on.wait(30)
            elif pk == "FOLDED":
                go_on.set()  # the slow one puts what it has read, before the fast one says what it has seen
                first.result(30)

    late_is_in = threading.Event()
    client.on = on
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ledger.fold)
        assert has_read.wait(30)
        ledger.write(late)
        late_is_in.set()
        ledger.fold()
    assert first.result().days == 0
    client.on = lambda what, pk: None
    ledger.check()
