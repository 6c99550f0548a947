"""The item of a budget: what holds for it whatever happens, in memory; and that DynamoDB means the same."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, Inexact, localcontext
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring.enforcement import table as table_module
from agentops_monitoring.enforcement.budget import partition_key
from agentops_monitoring.enforcement.table import BudgetTable, Refused, Reservation, new_id

from .conftest import TABLES
from .update_item import ConditionalCheckFailedException, MemoryTable

DAY = "2026-11-22"
KEY = (partition_key("engineer", DAY), "STATE")
MICRO = Decimal("0.000001")


def amounts(least: int = 1) -> st.SearchStrategy[Decimal]:
    return st.integers(least, 700_000).map(lambda micros: micros * MICRO)


class Account:
    """A budget's history, told by adding it up: what an item has to say."""

    def __init__(self, client: Any, limit: Decimal) -> None:
        self.client = client
        self.limit = limit
        self.now = 1000
        self.spent = Decimal(0)
        self.under_way: list[Reservation] = []

    def table(self) -> BudgetTable:
        return BudgetTable(self.client, TABLES.ledger, "engineer", self.limit)

    def reserve(self, usd: Decimal, seconds: int, *, force: bool = False, owed: Decimal = Decimal(0)) -> bool:
        wanted = Reservation(DAY, new_id(), usd, self.now + seconds)
        try:
            self.table().reserve(wanted, self.now, force=force, owed=owed)
        except Refused:
            return False
        self.spent += owed
        self.under_way.append(wanted)
        return True

    def settle(self, which: int, share: Decimal) -> None:
        if self.under_way:
            held = self.under_way.pop(which % len(self.under_way))
            cost = held.usd * share
            self.table().settle(held, cost)
            self.spent += cost

    def check(self, item: dict[str, Any]) -> None:
        held = {name: Decimal(value["S"].split()[0]) for name, value in item.items() if name[:2] == "r."}
        gone = {name: Decimal(value["S"].split()[0]) for name, value in item.items() if name[:2] == "x."}
        assert {name[2:] for name in (*held, *gone)} == {each.id for each in self.under_way}
        limit = Decimal(item["limit"]["N"])
        assert Decimal(item["available"]["N"]) + self.spent + sum(held.values()) == limit
        assert Decimal(item.get("released", {"N": "0"})["N"]) == sum(gone.values())


STEPS = st.one_of(
    st.tuples(st.just("reserve"), amounts(), st.integers(0, 500)),
    st.tuples(st.just("force"), amounts(), st.integers(0, 500)),
    st.tuples(st.just("owed"), amounts(), amounts(0)),
    st.tuples(st.just("settle"), st.integers(0, 99), st.integers(0, 150)),
    st.tuples(st.just("crash"), st.integers(0, 99), st.none()),
    st.tuples(st.just("late"), st.integers(0, 99), st.integers(0, 150)),
    st.tuples(st.just("wait"), st.integers(1, 400), st.none()),
    st.tuples(st.just("limit"), amounts(300_000), st.none()),
)


def run(steps: list[tuple[str, Any, Any]], account: Account, read: Callable[[], Any]) -> None:
    crashed: list[Reservation] = []
    for name, one, two in steps:
        if name == "reserve":
            account.reserve(one, two)
        elif name == "force":
            assert account.reserve(one, two, force=True)
        elif name == "owed":
            account.reserve(one, 100, owed=two)
        elif name == "settle":
            account.settle(one, Decimal(two) / 100)
        elif name == "crash" and account.under_way:
            crashed.append(account.under_way.pop(one % len(account.under_way)))
        elif name == "late" and crashed:
            account.under_way.append(crashed.pop(one % len(crashed)))
            account.settle(-1, Decimal(two) / 100)
        elif name == "wait":
            account.now += one
        elif name == "limit":
            account.limit = one
        if item := read():
            account.under_way += crashed
            account.check(item)
            account.under_way = [each for each in account.under_way if each not in crashed]


@given(st.lists(STEPS, min_size=1, max_size=30), st.lists(st.integers(0, 9), max_size=40))
@settings(max_examples=150)
def test_what_is_available_is_the_limit_less_what_is_spent_and_held(
    steps: list[tuple[str, Any, Any]], losses: list[int]
) -> None:
    """Answers get lost after their effect, and botocore asks again."""
    table = MemoryTable()
    account = Account(Repeating(table, losses), Decimal("1"))
    run(steps, account, lambda: table.items.get(KEY))


class Repeating:
    """A client that loses answers, and asks once more."""

    def __init__(self, client: Any, losses: list[int]) -> None:
        self._client, self._losses, self.exceptions = client, losses, client.exceptions

    def update_item(self, **request: Any) -> Any:
        if self._losses and self._losses.pop() < 3:
            self._client.update_item(**request)
        return self._client.update_item(**request)


def test_dynamodb_does_what_the_table_in_memory_does(dynamodb: Any, full_size: bool) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(10 if full_size else 2):
        steps: list[tuple[str, Any, Any]] = []
        for _ in range(40):
            name = chance.choice(["reserve", "reserve", "force", "owed", "settle", "crash", "wait", "limit"])
            usd, more = chance.randrange(1, 700_000) * MICRO, chance.randrange(0, 500)
            of = {"owed": (usd, usd / 7 // MICRO * MICRO), "limit": (usd + Decimal("0.3"), None)}
            steps.append((name, *of.get(name, (usd if name in ("reserve", "force") else more + 1, more))))
        memory = MemoryTable()
        ids = [f"{chance.getrandbits(72):018x}" for _ in steps]
        seen: list[Any] = []
        clients: tuple[Any, ...] = (memory, dynamodb)
        for client in clients:
            account = Account(client, Decimal("1"))
            left = iter(ids)
            for name, one, two in steps:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(f"{__name__}.new_id", lambda left=left: next(left))
                    run([(name, one, two)], account, lambda: None)
            if client is memory:
                seen.append(memory.items[KEY])
            else:
                key = {"pk": {"S": KEY[0]}, "sk": {"S": KEY[1]}}
                seen.append(client.get_item(TableName=TABLES.ledger, Key=key)["Item"])
                client.delete_item(TableName=TABLES.ledger, Key=key)
        one, two = [
            {name: Decimal(value["N"]) if "N" in value else value["S"] for name, value in item.items()}
            for item in seen
        ]
        assert one == two


def test_what_crashed_callers_held_comes_back_once_over_and_no_more() -> None:
    table = MemoryTable()
    account = Account(table, Decimal("1"))
    admitted = 0
    for _ in range(400):
        while account.reserve(Decimal("0.3"), 60):
            admitted += 1
        account.now += 120  # they all crash
    # Three fit at once; what they held is released as long as it is no more than the limit.
    assert admitted == 3 + 3
    assert Decimal(table.items[KEY]["released"]["N"]) <= 1


def test_a_late_answer_corrects_what_its_expiry_gave_back() -> None:
    table = MemoryTable()
    account = Account(table, Decimal("1"))
    assert account.reserve(Decimal("0.9"), 60)
    late = account.under_way[0]
    assert not account.reserve(Decimal("0.5"), 60)
    account.now += 61
    assert account.reserve(Decimal("0.5"), 60)
    for _ in range(2):  # the second time its answer was lost
        account.table().settle(late, Decimal("0.4"))
    item = table.items[KEY]
    assert Decimal(item["available"]["N"]) == Decimal("0.1")
    assert Decimal(item["released"]["N"]) == 0


def test_a_refusal_says_what_is_spent_and_what_is_held() -> None:
    account = Account(MemoryTable(), Decimal("1"))
    assert account.reserve(Decimal("0.5"), 60)
    account.settle(0, Decimal("0.5"))
    assert account.reserve(Decimal("0.7"), 60)
    with pytest.raises(Refused) as refused:
        account.table().reserve(Reservation(DAY, "x", Decimal("0.1"), 2000), account.now)
    assert (refused.value.spent, refused.value.reserved) == (Decimal("0.25"), Decimal("0.7"))


def test_an_item_that_is_full_makes_room_of_what_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "_MAX_KEPT", 30)
    table = MemoryTable()
    table.max_bytes = 4096
    account = Account(table, Decimal("1"))
    full = 0
    for _ in range(500):  # each of them is killed
        if not account.reserve(MICRO, 60):
            full += 1
            account.now += 61
    assert full > 2
    item = table.items[KEY]
    assert sum(name[:2] == "x." for name in item) <= 30
    # What is missing is what was released and is no more known: nothing else.
    held = sum(Decimal(value["S"].split()[0]) for name, value in item.items() if name[:2] == "r.")
    assert Decimal(item["available"]["N"]) == 1 - held


def test_an_item_that_never_holds_still_has_no_room() -> None:
    """Whether a call fits is not known then, and the table can be reached: it is refused, whatever is set."""
    item = {
        "available": {"N": "0.1"},
        "limit": {"N": "1"},
        "r.dead": {"S": "0.9 10"},
    }

    class Restless(MemoryTable):
        def update_item(self, **request: Any) -> Any:
            error = {"Code": "ConditionalCheckFailedException", "Message": ""}
            response: Any = {"Error": error, "Item": item}
            raise ConditionalCheckFailedException(response, "UpdateItem")

    with pytest.raises(Refused) as refused:
        Account(Restless(), Decimal("1")).table().reserve(Reservation(DAY, "x", Decimal("0.5"), 2000), 1000)
    assert (refused.value.spent, refused.value.reserved) == (Decimal(0), Decimal("0.9"))


def test_the_agents_own_arithmetic_changes_nothing() -> None:
    account = Account(MemoryTable(), Decimal("1"))
    assert account.reserve(Decimal("0.900001"), 60)
    with localcontext() as context:
        context.prec = 2
        context.traps[Inexact] = True
        with pytest.raises(Refused) as refused:
            account.table().reserve(Reservation(DAY, "x", Decimal("0.5"), 2000), account.now)
        assert refused.value.reserved == Decimal("0.900001")
        account.now += 61
        account.table().reserve(Reservation(DAY, "y", Decimal("0.5"), 2000), account.now)


def test_each_day_has_a_budget_of_its_own() -> None:
    table = MemoryTable()
    account = Account(table, Decimal("1"))
    assert account.reserve(Decimal("1"), 60)
    tomorrow = Reservation("2026-11-23", "a", Decimal("1"), 90_000)
    account.table().reserve(tomorrow, 86_401)
    # The answer comes after midnight, and is booked where it was held.
    account.settle(0, Decimal("0.1"))
    assert Decimal(table.items[KEY]["available"]["N"]) == Decimal("0.9")
    assert Decimal(table.items[partition_key("engineer", "2026-11-23"), "STATE"]["available"]["N"]) == 0


def race(client: Any, rounds: int, threads: int, seed: int) -> None:
    """Let threads race for a dollar; the oracle is what a model billed, added up where it answers."""
    with ThreadPoolExecutor(threads) as pool:
        for number in range(rounds):
            chance = random.Random(seed + number)
            agent = f"agent-{number}"
            billed: list[Decimal] = []
            start = threading.Barrier(threads)
            work = [
                (
                    chance.randrange(1, 400_000) * MICRO,
                    Decimal(chance.randrange(0, 101)) / 100,
                    chance.random(),
                )
                for _ in range(threads)
            ]

            def call(
                usd: Decimal,
                share: Decimal,
                luck: float,
                agent: str = agent,
                billed: Any = billed,
                start: Any = start,
            ) -> None:
                table = BudgetTable(client, TABLES.ledger, agent, Decimal("1.00"))
                start.wait()
                held = Reservation(DAY, new_id(), usd, 5000)
                try:
                    table.reserve(held, 1000)
                except Refused:
                    return
                billed.append(usd * share)  # the model's answer, whatever becomes of its caller
                if luck < 0.9:  # else it is killed
                    table.settle(held, usd * share)

            list(pool.map(lambda arguments: call(*arguments), work))
            assert sum(billed) <= Decimal("1.00"), f"seed {seed}, round {number}"
            assert sum(billed) > 0


def test_64_threads_on_a_dollar_never_exceed_it(full_size: bool) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    race(MemoryTable(), 1000 if full_size else 30, 64, seed)


EMBEDDED = pytest.param("embedded", marks=pytest.mark.xdist_group("embedded_aws"))


@pytest.mark.parametrize("dynamodb", [EMBEDDED], indirect=True)
def test_nor_on_the_embedded_aws(dynamodb: Any, full_size: bool) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    race(dynamodb, 300 if full_size else 1, 64, seed)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_settlement_that_failed_can_be_repeated(when: str) -> None:
    table = MemoryTable()
    account = Account(table, Decimal("1"))
    assert account.reserve(Decimal("0.5"), 60)
    held = account.under_way.pop()

    def fail(at: str) -> None:
        if at == when:
            raise (EndpointConnectionError if when == "before" else ReadTimeoutError)(endpoint_url="there")

    table.fault = fail
    with pytest.raises((EndpointConnectionError, ReadTimeoutError)):
        account.table().settle(held, Decimal("0.2"))
    table.fault = lambda when: None
    for _ in range(3):
        account.table().settle(held, Decimal("0.2"))
    assert Decimal(table.items[KEY]["available"]["N"]) == Decimal("0.8")
