from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from agentops_monitoring import catalogue
from agentops_monitoring.catalogue import COSTS, EVENTS, MetricDetail
from agentops_monitoring.event_types import AgentEventType

ROOT = Path(__file__).parents[3]


def test_the_page_in_docs_is_what_the_catalogue_prints() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == catalogue.markdown()


def test_every_event_type_is_a_metric() -> None:
    for kind in (*AgentEventType, "custom_event"):
        assert catalogue.spec(EVENTS, str(kind)).emitter == "agent"


@pytest.mark.parametrize(
    ("namespace", "name"),
    [
        (EVENTS, "issue_detected"),
        (EVENTS, "code_generated"),
        (EVENTS, "test_passed"),
        (EVENTS, "test_failed"),
        (EVENTS, "decision_made"),
        (COSTS, "LambdaExecutionCost"),
        (COSTS, "EventCost"),
        (COSTS, "TotalCost"),
        ("AgentOps/Collaboration", "MessageCount"),
        ("AgentOps/Collaboration", "AgentCommunication"),
    ],
)
def test_the_metrics_that_the_users_page_promises_exist(namespace: str, name: str) -> None:
    assert catalogue.spec(namespace, name).name == name


def test_a_metric_that_nothing_emits_is_refused_with_the_near_misses() -> None:
    with pytest.raises(ValueError, match="AgentOps/Costs TotalCost"):
        catalogue.spec(COSTS, "TotalCosts")


def test_dimensions_that_nothing_emits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[Environment, AgentName\]"):
        catalogue.check(COSTS, "TotalCost", ["Environment", "Model"])
    with pytest.raises(ValueError, match="STANDARD"):
        catalogue.check(EVENTS, "llm_usage", ["Environment", "AgentName"])
    assert catalogue.check(EVENTS, "llm_usage", ["AgentName", "Environment"], detail=MetricDetail.FULL)


def test_declared_event_types_are_metrics_too() -> None:
    assert catalogue.check(EVENTS, "order_placed", ["Environment"], declared=["order_placed"]).unit == "Count"
    for wrong in ("Order Placed", "timestamp", "level", "test_passed", "", "x" * 65, "a#b"):
        with pytest.raises(ValueError):
            catalogue.custom_event_spec(wrong)


def test_the_standard_level_costs_three_dollars_an_agent() -> None:
    count, usd = catalogue.monthly_cost(10, 0, 1)
    more, more_usd = catalogue.monthly_cost(11, 0, 1)
    assert (more - count, more_usd - usd) == (10, Decimal("3.00"))


def test_levels_only_add() -> None:
    for metric in catalogue.METRICS.values():
        smaller: set[tuple[str, ...]] = set()
        for detail in MetricDetail:
            assert smaller <= set(metric.sets_at(detail))
            smaller = set(metric.sets_at(detail))
        assert smaller == set(metric.dimension_sets)


def test_pairs_are_bounded() -> None:
    assert catalogue.monthly_cost(3, 50, 1) == catalogue.monthly_cost(3, 9_900, 1)
