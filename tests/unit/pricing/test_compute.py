"""Lambda's prices."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring.pricing import lambda_cost
from agentops_monitoring.pricing.compute import ready_cost


def test_one_gigabyte_second() -> None:
    assert lambda_cost(1000, 1024, "x86_64", "us-east-1") == Decimal("0.0000166667") + Decimal("0.0000002")
    assert lambda_cost(1000, 1024, "arm64", "eu-west-1") == Decimal("0.0000133334") + Decimal("0.0000002")


def test_dear_regions() -> None:
    assert lambda_cost(1000, 1024, "x86_64", "af-south-1") == Decimal("0.0000221") + Decimal("0.00000027")


@given(ms=st.integers(0, 900_000), memory=st.integers(128, 10_240))
def test_no_digit_is_lost(ms: int, memory: int) -> None:
    exact = Fraction(ms * memory, 1024 * 1000) * Fraction("0.0000133334") + Fraction("0.0000002")
    assert Fraction(lambda_cost(ms, memory, "arm64", "us-east-1")) == exact


@pytest.mark.parametrize(
    ("architecture", "region", "rate"),
    [
        ("x86_64", "us-east-1", "0.0000097222"),
        ("arm64", "us-east-1", "0.0000077778"),
        ("x86_64", "eu-central-1", "0.0000117011"),
        # Not known here: the on-demand rate, which is never too low.
        ("arm64", "eu-central-1", "0.0000133334"),
        ("x86_64", "sa-east-1", "0.0000154867"),
        ("x86_64", "me-central-1", "0.0000206667"),
    ],
)
def test_an_environment_that_was_kept_ready_runs_at_a_rate_of_its_own(
    architecture: str, region: str, rate: str
) -> None:
    request = lambda_cost(0, 1024, architecture, region)
    assert lambda_cost(1000, 1024, architecture, region, provisioned=True) == Decimal(rate) + request
    assert lambda_cost(1000, 1024, architecture, region) >= Decimal(rate) + request


@pytest.mark.parametrize(
    ("region", "rate"),
    [("us-west-2", "0.0000000309"), ("eu-west-1", "0.000000034"), ("sa-east-1", "0.0000000586")],
)
def test_storage_costs_beyond_what_is_free(region: str, rate: str) -> None:
    plain = lambda_cost(1000, 128, "arm64", region)
    assert lambda_cost(1000, 128, "arm64", region, storage_mb=512) == plain
    assert lambda_cost(1000, 128, "arm64", region, storage_mb=512 + 1024) == plain + Decimal(rate)


@given(
    ms=st.integers(0, 1_800_000),
    memory=st.integers(128, 10_240),
    storage=st.integers(512, 10_240),
    provisioned=st.booleans(),
)
def test_parts_of_an_invocation_lose_no_digit(ms: int, memory: int, storage: int, provisioned: bool) -> None:
    rate = Fraction("0.0000097222" if provisioned else "0.0000166667")
    of_storage = Fraction("0.0000000309") * (storage - 512)
    exact = Fraction(ms, 1024 * 1000) * (rate * memory + of_storage) + Fraction("0.0000002")
    cost = lambda_cost(ms, memory, "x86_64", "us-east-1", storage_mb=storage, provisioned=provisioned)
    assert Fraction(cost) == exact


@pytest.mark.parametrize(
    ("architecture", "region", "rate"),
    [
        ("x86_64", "us-east-1", "0.0000041667"),
        ("arm64", "us-west-2", "0.0000033334"),
        ("x86_64", "eu-central-1", "0.0000050147"),
        ("arm64", "eu-central-1", None),
        ("x86_64", "me-central-1", None),
    ],
)
def test_environments_that_are_kept_ready_cost_by_time(
    architecture: str, region: str, rate: str | None
) -> None:
    found = ready_cost(7, 300, 512, architecture, region)
    assert found == (None if rate is None else Decimal(rate) * 7 * 300 / 2)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="architecture"):
        lambda_cost(1, 128, "sparc", "us-east-1")
    with pytest.raises(ValueError, match="negative"):
        lambda_cost(-1, 128, "arm64", "us-east-1")
