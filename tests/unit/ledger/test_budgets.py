"""Budgets: who has which, what of them is reached, and how they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring.ledger import budgets, schema
from agentops_monitoring.ledger.budgets import DAY, LIFE, MONTH, PERCENTS, Budget, Case

AMOUNTS = st.decimals("0.000001", "1000000", places=6)
NAMES = st.sampled_from(["a", "b#c", "d", "*"])
SPENT = st.decimals(0, 2_000_000, places=15)


@st.composite
def one(draw: st.DrawFn) -> Budget:
    kind, name = draw(st.sampled_from(["total", "agent", "workflow"])), draw(NAMES)
    if kind == "workflow":
        return Budget(draw(AMOUNTS), LIFE, workflow=name)
    period = draw(st.sampled_from([DAY, MONTH]))
    return Budget(
        draw(AMOUNTS), period, name if kind == "agent" else "", alarm=period == DAY and draw(st.booleans())
    )


@given(st.lists(one(), max_size=5))
def test_what_is_written_is_read_again(held: list[Budget]) -> None:
    assert budgets.parse(budgets.dump(held)) == tuple(dict.fromkeys(held))


@given(one(), SPENT)
def test_shares_are_exact(budget: Budget, spent: Decimal) -> None:
    case = Case(budget, budget.name, "D#2026-11-22")
    share = Fraction(spent) / Fraction(budget.usd) * 100
    assert case.reached(spent) == max((each for each in PERCENTS if share >= each), default=0)
    assert case.share(spent) == Decimal(share * 10 // 1) / 10


@given(st.lists(one(), max_size=6, unique_by=lambda each: (each.period, each.agent, each.workflow)))
def test_who_has_one_of_his_own_has_it_instead_of_what_each_has(held: list[Budget]) -> None:
    for kind in (DAY, MONTH):
        found = list(budgets.cases(held, "D#2026-11-22", kind, agents=["a", "d", "a"]))
        assert len({case.id for case in found}) == len(found)
        for agent in ("a", "d"):
            own = [each for each in held if (each.period, each.agent) == (kind, agent)]
            common = [each for each in held if (each.period, each.agent) == (kind, "*")]
            assert [case.budget for case in found if case.name == agent] == (own or common)
    found = list(budgets.cases(held, "WS#a", LIFE, workflow="a"))
    wanted = {name: [each for each in held if each.workflow == name] for name in ("a", "*")}
    assert [case.budget for case in found] == (wanted["a"] or wanted["*"])


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_periods_follow_one_another_without_a_gap(at: datetime) -> None:
    for kind in (DAY, MONTH):
        period = budgets.period_at(kind, at)
        end = schema.end_of(period)
        assert budgets.period_at(kind, end - timedelta(microseconds=1)) == period
        assert budgets.period_at(kind, end) != period
        assert budgets.day_of(period) <= at.date() < end.date()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("10", "not a list"), ("[1]", "not a list"), ("{", "not JSON"), ('[{"usd": "NaN"}]', "usd"),
        ('[{"usd": -1}]', "usd"), ('[{"usd": 1, "period": "week"}]', "period"), ("[{}]", "usd"),
        ('[{"usd": 1, "agent": ["a"]}]', "agent"),
        ('[{"usd": 1, "period": "month", "alarm": true}]', "alarm"),
        ('[{"usd": 1, "agnet": "a"}]', "agnet"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_named(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        budgets.parse(text)
