"""The dashboards: complete, without overlaps, and fed by what exists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agentops_constructs.validation import dashboard_body, widget_metrics
from agentops_monitoring import catalogue
from agentops_monitoring.catalogue import MetricDetail

from .conftest import Templates, synthesized

DRAWN = {"timeSeries", "singleValue", "gauge", "pie", "bar"}


def widgets(templates: Templates) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in templates.resources("AWS::CloudWatch::Dashboard"):
        for widget in dashboard_body(each.properties["DashboardBody"])["widgets"]:
            yield each.properties["DashboardName"], widget


@pytest.mark.parametrize("detail", ["minimal", "standard", "full"])
def test_every_metric_is_emitted_at_its_level_of_detail(detail: str) -> None:
    templates = synthesized("staging", metric_detail=detail)
    ours = 0
    for name, widget in widgets(templates):
        for namespace, metric, dimensions in widget_metrics(widget):
            if namespace.startswith("AgentOps/"):
                ours += 1
                catalogue.check(namespace, metric, dimensions, detail=MetricDetail[detail.upper()])
            else:
                assert namespace in ("AWS/Lambda", "AWS/SQS", "AWS/Logs"), name
    assert ours > 30


def test_widgets_fill_the_grid_without_overlap(production: Templates) -> None:
    taken: set[tuple[str, int, int]] = set()
    for name, widget in widgets(production):
        assert widget["x"] + widget["width"] <= 24
        for x in range(widget["x"], widget["x"] + widget["width"]):
            for y in range(widget["y"], widget["y"] + widget["height"]):
                assert (name, x, y) not in taken
                taken.add((name, x, y))


def test_rows_are_full(production: Templates) -> None:
    rows: dict[tuple[str, int], int] = {}
    for name, widget in widgets(production):
        rows[name, widget["y"]] = rows.get((name, widget["y"]), 0) + widget["width"]
    assert {key for key, width in rows.items() if width != 24} == set()


def test_every_widget_has_a_title_and_a_kind_that_the_local_report_draws(production: Templates) -> None:
    for name, widget in widgets(production):
        properties = widget["properties"]
        assert widget["type"] in ("text", "metric", "alarm", "custom"), name
        assert properties.get("title") or widget["type"] == "text", name
        if widget["type"] == "metric":
            assert properties.get("view", "timeSeries") in DRAWN
            assert properties["metrics"], properties["title"]


def test_a_figure_s_unit_stands_once(production: Templates) -> None:
    # The title has it where the metric has none of its own; the label says what is counted.
    for name, widget in widgets(production):
        properties = widget["properties"]
        if properties.get("view") == "singleValue":
            labels = [row[-1].get("label", "") for row in properties["metrics"] if isinstance(row[-1], dict)]
            assert not {"ms", "USD"} & {word for label in labels for word in label.split()}, (name, labels)


def test_each_dashboard_leads_to_the_others(production: Templates) -> None:
    headers = {name: widget for name, widget in widgets(production) if widget["type"] == "text"}
    assert len(headers) == 3
    for name, header in headers.items():
        for other in headers:
            linked = f"#dashboards:name={other})" in header["properties"]["markdown"]
            assert linked == (other != name)


def test_custom_widgets_ask_for_their_picture_and_environment(production: Templates) -> None:
    asked = [
        (name, widget["properties"]["params"])
        for name, widget in widgets(production)
        if widget["type"] == "custom"
    ]
    assert {params["environment"] for _, params in asked} == {"production"}
    assert {(name, params["widget"]) for name, params in asked} == {
        ("AgentOps-Monitoring", "decisions"),
        ("AgentOps-Monitoring-Cost", "budgets"),
        ("AgentOps-Monitoring-Cost", "unit_costs"),
        ("AgentOps-Monitoring-Cost", "cost_drivers"),
        ("AgentOps-Monitoring-Collaboration", "flow"),
    }


def test_every_agent_is_on_the_main_and_the_cost_dashboard(production: Templates) -> None:
    for dashboard in ("AgentOps-Monitoring", "AgentOps-Monitoring-Cost"):
        text = str([widget for name, widget in widgets(production) if name == dashboard])
        for agent in ("manager", "engineer", "qa"):
            assert f"'AgentName', '{agent}'" in text


def test_every_alarm_of_ours_is_on_the_main_dashboard(production: Templates) -> None:
    (states,) = (
        widget["properties"]["alarms"]
        for name, widget in widgets(production)
        if name == "AgentOps-Monitoring" and widget["type"] == "alarm"
    )
    alarms = [
        each.properties["AlarmName"]
        for each in production.resources("AWS::CloudWatch::Alarm")
        if "-Watch-" not in each.properties["AlarmName"]
    ]
    assert len(states) == len(alarms) > 16
