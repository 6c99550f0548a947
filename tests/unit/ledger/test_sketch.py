"""Quantiles from counters: near the exact ones, whatever the values, however they came together."""

from __future__ import annotations

import random
from decimal import Decimal
from math import floor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentops_monitoring.ledger import sketch
from agentops_monitoring.ledger.exact import Number
from agentops_monitoring.ledger.totals import Totals

VALUES = st.lists(
    st.one_of(
        st.integers(0, 10**9),
        st.decimals("-5", "1000", places=3),
        st.floats(0, 1e9, allow_nan=False).map(lambda value: Decimal(repr(value))),
    ),
    min_size=1,
    max_size=200,
)


def counted(values: list[Number]) -> dict[str, Number]:
    counters: dict[str, Number] = {"events": 7, "handler_ms": sum(values), "llm_n": 3}
    for value in values:
        name = sketch.counter(sketch.HANDLER, value)
        counters[name] = counters.get(name, 0) + 1
    return counters


@settings(max_examples=300)
@given(VALUES, st.sampled_from((0.0, 0.5, 0.95, 0.99, 1.0)))
@example([Decimal("0.001")], 0.5)
@example([10**9], 0.99)
def test_quantiles_are_within_two_percent_of_the_exact_ones(values: list[Number], q: float) -> None:
    exact = float(sorted(values)[floor(q * (len(values) - 1))])
    found = sketch.quantile(counted(values), sketch.HANDLER, q)
    assert found is not None
    if exact > 0.001:
        assert abs(found - exact) <= sketch.ACCURACY * exact * (1 + 1e-9)
    else:
        assert found == 0


@pytest.mark.parametrize("spread", [0.3, 1.5, 3.0])
def test_heavy_tails(spread: float) -> None:
    dice = random.Random(spread)
    values: list[Number] = [Decimal(f"{dice.lognormvariate(5, spread):.3f}") for _ in range(20_000)]
    totals = Totals(counted(values))
    for q, found in (
        (0.5, totals.p50_handler_ms),
        (0.95, totals.p95_handler_ms),
        (0.99, totals.p99_handler_ms),
    ):
        exact = float(sorted(values)[floor(q * (len(values) - 1))])
        assert found == pytest.approx(exact, rel=sketch.ACCURACY)


def test_no_values_have_no_quantile() -> None:
    assert Totals({"events": 1}).p95_llm_ms is None
    # What an older version has counted otherwise may be taken back.
    assert sketch.quantile({"ql5": -1, "ql9": 0}, sketch.LLM, 0.5) is None


def test_what_is_out_of_bounds_is_in_the_first_and_the_last_bucket() -> None:
    assert sketch.quantile(counted([-(10**12), 0]), sketch.HANDLER, 1.0) == 0
    most = sketch.quantile(counted([10**12]), sketch.HANDLER, 0.5)
    assert most == pytest.approx(float(sketch.MOST_MS), rel=0.05)


def test_one_item_holds_every_bucket() -> None:
    """DynamoDB's items have 400 kB; three sketches of all buckets with large counts."""
    names = {sketch.counter(sketch.HANDLER, Decimal(10) ** exponent * step)
             for exponent in range(-3, 9) for step in range(1, 10)}  # fmt: skip
    assert len(names) > 50
    buckets = int(sketch.counter(sketch.HANDLER, 10**12)[2:]) + 1
    assert buckets * 3 * (len("qh999") + len(str(10**12))) < 50_000
