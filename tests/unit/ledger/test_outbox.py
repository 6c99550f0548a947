"""Each threshold is told once, whoever crosses it, and whatever ends, fails or comes between."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from botocore.exceptions import ClientError

from agentops_monitoring.ledger import budgets
from agentops_monitoring.ledger.alerts import LEASE_S
from agentops_monitoring.ledger.budgets import Budget
from agentops_monitoring.ledger.requests import LedgerBusy
from agentops_monitoring.ledger.watch import Watch
from tests.unit.ledger.cloud import DAY, MONTH, START, TEN, Cloud, Crash, on_fake_and_embedded, on_one
from tests.unit.ledger.fake_dynamodb import client_error


@pytest.fixture
def cloud(dynamodb: Any) -> Cloud:
    """Give the tables, empty."""
    return Cloud(dynamodb)


def ingest_once(cloud: Cloud, together: threading.Barrier) -> None:
    watch, _ = cloud.process(TEN)
    increments = cloud.spend("0.06")
    together.wait(60)
    watch.after(increments)


def test_sixteen_ingests_that_cross_a_threshold_tell_it_once(cloud: Cloud, full_size: bool) -> None:
    for turn in range(10 if full_size else 1):
        cloud.now = START + turn * timedelta(days=1)
        cloud.spend("4.5")
        together = threading.Barrier(16)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: ingest_once(cloud, together), range(16)))  # noqa: B023
        assert cloud.told() == [(f"D#{cloud.now.date()}#total@10#50", "50")]
        assert cloud.pending() == 0
        cloud.sent.clear()


@on_fake_and_embedded
def test_whoever_ends_between_mark_and_publish_is_stood_in_for_with_the_same_key(cloud: Cloud) -> None:
    """At each call, before and after it took effect: at least one alert, and one key."""
    watch, service = cloud.process(TEN)
    watch.after(cloud.spend("5.1"))
    first, note = service.calls.index("query"), service.calls.index("delete_item")
    assert service.calls[note - 1 :] == ["publish", "delete_item", "update_item"]
    # What it went to is read hour by hour: one of these requests stands for all.
    told_apart = [n for n, name in enumerate(service.calls) if name != "query" or n == first]
    assert len(told_apart) == 6
    crashes = [(call, when) for call in told_apart for when in ("before", "after")]
    for turn, crash in enumerate(crashes, start=1):
        cloud.now, cloud.sent = START + timedelta(days=turn), []
        watch, service = cloud.process(TEN)
        service.crash = crash
        increments = cloud.spend("5.1")
        with pytest.raises(Crash):
            watch.after(increments)
        told = len(cloud.sent)
        for seconds in (1, LEASE_S):
            cloud.now += timedelta(seconds=seconds)
            cloud.process(TEN)[0].everything()
        keys = {key for key, _ in cloud.told()}
        assert keys == {f"D#{cloud.now.date()}#total@10#50"}, crash
        noted = crash[0] > note or crash == (note, "after")
        assert len(cloud.sent) == told + (0 if noted else 1) <= 2, crash
        assert cloud.pending() == 0


@on_one
def test_others_who_try_to_claim_it_meanwhile_do_not_make_it_come_twice(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """A transaction that meets another one is canceled, and so may be what notes that an alert is sent."""

    def publish(**arguments: Any) -> None:
        cloud._publish(**arguments)
        service.refuse = meet

    def meet(name: str, arguments: dict[str, Any]) -> None:
        if f"'ALERT#{DAY}'" in repr(arguments):
            if name != "transact_write_items":
                raise client_error("TransactionConflictException", name)
            reasons = [{"Code": "TransactionConflict"} for _ in arguments["TransactItems"]]
            answer: Any = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons}
            raise ClientError(answer, name)

    watch, service = cloud.process(TEN, publish=publish)
    watch.after(cloud.spend("5.1"))
    assert capsys.readouterr().err == ""
    cloud.now += timedelta(seconds=LEASE_S)
    cloud.process(TEN)[0].everything()
    assert cloud.told() == [(f"{DAY}#total@10#50", "50")]
    assert cloud.pending() == 0


@on_one
def test_one_alert_that_cannot_be_claimed_holds_up_no_other(cloud: Cloud) -> None:
    def refuse(name: str, arguments: dict[str, Any]) -> None:
        if name == "transact_write_items" and "agent:manager" in repr(arguments):
            raise client_error("ValidationException", name)

    cloud.spend("6")
    watch, service = cloud.process(Budget(Decimal(10), agent="manager"), TEN)
    service.refuse = refuse
    with pytest.raises(ClientError, match="ValidationException"):
        watch.everything()
    assert cloud.told() == [(f"{DAY}#total@10#50", "50")]


@on_one
def test_after_one_that_cannot_be_sent_a_batch_waits_for_no_other(cloud: Cloud) -> None:
    tried: list[Any] = []

    def fail(**arguments: Any) -> None:
        tried.append(arguments)
        raise client_error("InternalError", "Publish")

    watch, _ = cloud.process(TEN, Budget(Decimal(10), "month"), publish=fail)
    watch.after(cloud.spend("5.1"))
    assert (len(tried), cloud.pending()) == (1, 2)
    cloud.now += timedelta(seconds=LEASE_S)
    cloud.process(TEN)[0].everything()
    assert sorted(cloud.told()) == [(f"{DAY}#total@10#50", "50"), (f"{MONTH}#total@10#50", "50")]


@on_one
def test_a_batch_that_has_no_time_left_comes_again_for_its_alerts(cloud: Cloud) -> None:
    watch, _ = cloud.process(Budget(Decimal(1), budgets.LIFE, workflow="*"))
    increments = cloud.spend("1.5")
    with pytest.raises(LedgerBusy):
        watch.after(increments, deadline=time.monotonic() - 1)
    watch.after({}, ["w"], deadline=time.monotonic() + 60)
    assert [threshold for _, threshold in cloud.told()] == ["100"]


@on_one
def test_what_cannot_be_published_stays_in_the_outbox_and_does_not_fail_the_batch(cloud: Cloud) -> None:
    def fail(**arguments: Any) -> None:
        raise client_error("InternalError", "Publish")

    watch, _ = cloud.process(TEN, publish=fail)
    watch.after(cloud.spend("5.1"))
    assert (cloud.sent, cloud.pending()) == ([], 1)
    cloud.now += timedelta(seconds=LEASE_S)
    with pytest.raises(ClientError, match="InternalError"):
        cloud.process(TEN, publish=fail)[0].everything()
    cloud.now += timedelta(seconds=LEASE_S)
    cloud.process(TEN)[0].everything()
    assert cloud.told() == [(f"{DAY}#total@10#50", "50")]
    assert cloud.pending() == 0


def test_two_sweepers_send_one(cloud: Cloud) -> None:
    watch, service = cloud.process(TEN)
    increments = cloud.spend("5.1")
    service.crash = (len(_calls_until_publish(cloud)), "before")
    with pytest.raises(Crash):
        watch.after(increments)
    assert cloud.pending() == 1
    cloud.now += timedelta(seconds=LEASE_S)
    sweepers = [cloud.process(TEN)[0] for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(Watch.everything, sweepers))
    assert cloud.told() == [(f"{DAY}#total@10#50", "50")]


@on_one
def test_an_outbox_of_many_pages_is_emptied(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**arguments: Any) -> None:
        raise client_error("InternalError", "Publish")

    query = cloud.dynamodb.query

    def one_by_one(*, ExclusiveStartKey: Any = None, **arguments: Any) -> Any:
        items = query(**arguments)["Items"]
        keys = [{"pk": item["pk"], "sk": item["sk"]} for item in items]
        # The one that the last page ended with may be gone.
        left = [
            n
            for n, key in enumerate(keys)
            if ExclusiveStartKey is None or key["sk"]["S"] > ExclusiveStartKey["sk"]["S"]
        ]
        more = {"LastEvaluatedKey": keys[left[0]]} if len(left) > 1 else {}
        return {"Items": [items[n] for n in left[:1]]} | more

    cloud.process(TEN, publish=fail)[0].after(cloud.spend("5.1"))
    cloud.process(Budget(Decimal(10), "month"), publish=fail)[0].after(cloud.spend("0.3"))
    assert cloud.pending() == 2
    cloud.now += timedelta(seconds=LEASE_S)
    monkeypatch.setattr(cloud.dynamodb, "query", one_by_one)
    cloud.process(TEN)[0].sweep()
    assert sorted(cloud.told()) == [(f"{DAY}#total@10#50", "50"), (f"{MONTH}#total@10#50", "50")]


def _calls_until_publish(cloud: Cloud) -> list[str]:
    now, cloud.now = cloud.now, cloud.now - timedelta(days=3)
    watch, service = cloud.process(TEN)
    watch.after(cloud.spend("5.1"))
    cloud.now, cloud.sent = now, []
    return service.calls[: service.calls.index("publish")]
