"""Lambda's prices."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring.pricing import lambda_cost


def test_one_gigabyte_second() -> None:
    assert lambda_cost(1000, 1024, "x86_64", "us-east-1") == Decimal("0.0000166667") + Decimal("0.0000002")
    assert lambda_cost(1000, 1024, "arm64", "eu-west-1") == Decimal("0.0000133334") + Decimal("0.0000002")


def test_dear_regions() -> None:
    assert lambda_cost(1000, 1024, "x86_64", "af-south-1") == Decimal("0.0000221") + Decimal("0.00000027")


@given(ms=st.integers(0, 900_000), memory=st.integers(128, 10_240))
def test_no_digit_is_lost(ms: int, memory: int) -> None:
    exact = Fraction(ms * memory, 1024 * 1000) * Fraction("0.0000133334") + Fraction("0.0000002")
    assert Fraction(lambda_cost(ms, memory, "arm64", "us-east-1")) == exact


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="architecture"):
        lambda_cost(1, 128, "sparc", "us-east-1")
    with pytest.raises(ValueError, match="negative"):
        lambda_cost(-1, 128, "arm64", "us-east-1")
