from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring.catalogue import COSTS, MONITOR, MetricDetail
from agentops_monitoring.emf import MetricValue, emf_lines

from .conftest import strict_json

AT = 1_795_000_000_000


def flatten(lines: list[str]) -> Counter[tuple[str, str, tuple[tuple[str, str], ...], float]]:
    """Read lines as CloudWatch does: each value of each metric, by each dimension set."""
    seen: Counter[tuple[str, str, tuple[tuple[str, str], ...], float]] = Counter()
    for line in lines:
        body: dict[str, Any] = strict_json(line)
        assert body["_aws"]["Timestamp"] == AT
        for directive in body["_aws"]["CloudWatchMetrics"]:
            assert len(directive["Metrics"]) <= 100
            for names in directive["Dimensions"]:
                dimensions = tuple((name, body[name]) for name in names)
                for metric in directive["Metrics"]:
                    values = body[metric["Name"]]
                    values = values if isinstance(values, list) else [values]
                    assert len(values) <= 100
                    seen.update(
                        (directive["Namespace"], metric["Name"], dimensions, value) for value in values
                    )
    return seen


agents = st.sampled_from(["manager", "engineer", "qa"])
numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["LLMCost", "TotalCost", "LambdaExecutionCost"]),
            agents,
            st.lists(numbers, min_size=1, max_size=250) | numbers,
        )
    )
)
def test_every_value_arrives_once(values: list[tuple[str, str, Any]]) -> None:
    given_values = [
        MetricValue(COSTS, name, value, {"Environment": "demo", "AgentName": agent})
        for name, agent, value in values
    ]
    expected = Counter(
        (COSTS, name, (("Environment", "demo"), ("AgentName", agent)), each)
        for name, agent, value in values
        for each in (value if isinstance(value, list) else [value])
    )
    assert flatten(list(emf_lines(given_values, at_ms=AT))) == expected


def test_metrics_of_one_dimension_set_share_a_line() -> None:
    environment = {"Environment": "demo"}
    values = [
        MetricValue(COSTS, "LLMCost", 1.5, environment),
        MetricValue(COSTS, "TotalCost", 2, environment),
    ]
    (line,) = emf_lines(values, at_ms=AT)
    assert strict_json(line)["LLMCost"] == 1.5


def test_what_the_catalogue_does_not_know_is_refused() -> None:
    for wrong in (
        MetricValue(COSTS, "TotalCosts", 1, {"Environment": "demo"}),
        MetricValue(COSTS, "TotalCost", 1, {"Environment": "demo", "Model": "m"}),
        MetricValue(MONITOR, "IngestLag", float("nan"), {"Environment": "demo"}),
    ):
        with pytest.raises(ValueError):
            list(emf_lines([wrong], at_ms=AT))


def test_sets_above_the_level_are_left_out() -> None:
    value = MetricValue(COSTS, "UnpricedCalls", 1, {"Environment": "demo", "AgentName": "qa"})
    assert list(emf_lines([value], at_ms=AT)) == []
    assert len(list(emf_lines([value], at_ms=AT, detail=MetricDetail.FULL))) == 1
