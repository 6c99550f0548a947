"""Dashboard bodies: the shorthands, the questions to CloudWatch, the drawings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring.views.figures import Unit
from local.report import widgets
from local.report.widgets import Span
from tests.unit.report.factory import FakeCloudWatch

SPAN = Span(1_795_000_020, 1_795_000_020 + 600)


def test_the_shorthands_repeat_the_row_before() -> None:
    rows = [
        ["AgentOps/Costs", "LLMCost", "Environment", "demo", "AgentName", "manager", {"label": "m"}],
        ["...", "qa", {"color": "#123456", "yAxis": "right"}],
        [".", "TotalCost", ".", ".", ".", "engineer"],
    ]
    found = widgets.expand({"metrics": rows, "stat": "Sum", "period": 60})
    assert [(m.name, dict(m.dimensions)["AgentName"]) for m in found] == [
        ("LLMCost", "manager"),
        ("LLMCost", "qa"),
        ("TotalCost", "engineer"),
    ]
    assert all(dict(m.dimensions)["Environment"] == "demo" and m.namespace == "AgentOps/Costs" for m in found)
    assert found[1].right
    assert len({m.id for m in found}) == 3


def test_expressions_keep_their_inputs_out_of_sight() -> None:
    properties = {
        "metrics": [
            [{"expression": "100 * a / b", "label": "rate, %", "id": "e1", "period": 60}],
            ["AgentOps/Events", "workflow_completed", {"id": "a", "visible": False}],
            [".", "workflow_failed", {"id": "b", "visible": False, "stat": "Maximum"}],
        ],
        "stat": "Sum",
    }
    cloudwatch = FakeCloudWatch({}, {"100 * a / b": [91.5]})
    data = widgets.fetch(cloudwatch, properties, SPAN, auto=False)
    assert [(one.label, one.points[0][1]) for one in data] == [("rate, %", 91.5)]
    queries = {query["Id"]: query for query in cloudwatch.asked[0]["queries"]}
    assert queries["e1"]["Expression"] == "100 * a / b"
    assert not queries["a"]["ReturnData"]
    assert queries["b"]["MetricStat"]["Stat"] == "Maximum"


def test_a_row_that_names_no_metric_is_an_error() -> None:
    with pytest.raises(ValueError, match="namespace"):
        widgets.expand({"metrics": [["AgentOps/Costs"]]})


@given(st.integers(0, 2_000_000_000), st.integers(1, 40 * 86_400))
def test_one_period_holds_the_whole_time(start: int, length: int) -> None:
    span, period = widgets.one_period(Span(start, start + length))
    assert span.start <= start
    assert span.end >= start + length
    assert span.end - span.start == period
    assert span.start % period == 0
    assert period % 60 == 0


def test_a_total_over_the_time_is_asked_as_one_period() -> None:
    cloudwatch = FakeCloudWatch({}, {"LLMCost": [1.5]})
    properties = {"metrics": [["AgentOps/Costs", "LLMCost"]], "stat": "Sum", "setPeriodToTimeRange": True}
    widgets.fetch(cloudwatch, properties, SPAN, auto=True)
    asked = cloudwatch.asked[0]
    period = asked["queries"][0]["MetricStat"]["Period"]
    assert period >= 600
    assert asked["EndTime"].timestamp() - asked["start"].timestamp() == period


@pytest.mark.parametrize(
    ("row", "hint", "unit"),
    [
        (["AgentOps/Costs", "SpendToDate"], "", Unit.USD),
        (["AgentOps/Costs", "InputTokens"], "", Unit.COUNT),
        (["AgentOps/Costs", "BudgetUtilization"], "", Unit.PERCENT),
        (["AgentOps/Collaboration", "HandoffLatency"], "", Unit.MILLISECONDS),
        (["AWS/Lambda", "Duration"], "", Unit.MILLISECONDS),
        (["AWS/Lambda", "Invocations"], "invocations", Unit.COUNT),
        ([{"expression": "a/b", "label": "USD a workflow"}], "", Unit.USD),
        ([{"expression": "a/b", "label": "completed"}], "%", Unit.PERCENT),
    ],
)
def test_units(row: list[Any], hint: str, unit: Unit) -> None:
    assert widgets.unit_of(widgets.expand({"metrics": [row]})[0], hint) is unit


@pytest.mark.parametrize("view", ["timeSeries", "singleValue", "bar", "pie", "gauge"])
def test_every_view_draws_its_values(view: str) -> None:
    properties = {
        "view": view, "title": "Cost",
        "metrics": [["AgentOps/Costs", "TotalCost", {"label": "all", "stat": "Sum"}]],
        "annotations": {"horizontal": [{"value": 0.2, "label": "budget"}, [{"value": 1}, {"value": 2}]]},
        "yAxis": {"left": {"min": 0, "max": 1}},
    }  # fmt: skip
    data = widgets.fetch(FakeCloudWatch({}, {"TotalCost": [0.25]}), properties, SPAN, auto=True)
    drawn = widgets.draw(properties, data, SPAN, 500, 300)
    assert drawn
    assert "$0.250" in drawn


def test_no_points_draw_nothing() -> None:
    properties = {"metrics": [["AgentOps/Costs", "TotalCost"]]}
    data = widgets.fetch(FakeCloudWatch({}, {}), properties, SPAN, auto=True)
    assert widgets.draw(properties, data, SPAN, 500, 300) is None
