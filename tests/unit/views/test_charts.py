"""Charts: well-formed whatever the names, and true to their values."""

from __future__ import annotations

import json
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring.views import charts, timeseries
from agentops_monitoring.views.charts import Value
from agentops_monitoring.views.figures import Unit
from agentops_monitoring.views.timeseries import Axis, Mark, Series

HOSTILE = '"><script>alert(1)</script>\x00\x1b[2J&amp;\ud800'
SVG = "{http://www.w3.org/2000/svg}"
T0 = 1_795_000_020


def parse(svg: str) -> ElementTree.Element:
    assert "<script" not in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    return ElementTree.fromstring(svg)


def draw(series: list[Series], **more: object) -> ElementTree.Element:
    given = {"width": 600.0, "height": 300.0, "start": T0 - 60, "end": T0 + 3600, **more}
    return parse(timeseries.time_series(series, **given))  # type: ignore[arg-type]


def minutes(*values: float | None, label: str = "a", **more: object) -> Series:
    points = tuple((float(T0 + 60 * index), value) for index, value in enumerate(values) if value is not None)
    return Series(label, points, **more)  # type: ignore[arg-type]


@given(
    st.lists(
        st.tuples(st.text(max_size=30), st.lists(st.floats(-1e9, 1e9), max_size=12), st.booleans()),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.text(max_size=10)), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_any_series_gives_well_formed_svg_within_its_frame(
    given: list[tuple[str, list[float], bool]], stacked: bool, levels: list[tuple[float, str]]
) -> None:
    series = [minutes(*values, label=label, right=right) for label, values, right in given]
    root = draw(
        series, stacked=stacked, marks=[Mark(value, label, "#f00", fill="above") for value, label in levels]
    )
    for node in root.iter():
        for name in ("x", "y", "x1", "y1", "width", "height", "cx", "cy"):
            value = node.get(name, "0").removesuffix("%")
            assert math.isfinite(float(value))
    for column in root.iter(f"{SVG}rect"):
        assert -40 <= float(column.get("y", "0")) <= 340


def test_hostile_names_stay_text() -> None:
    root = draw(
        [minutes(1, 2, label=HOSTILE)],
        title=HOSTILE,
        marks=[Mark(1, HOSTILE, HOSTILE)],
        left=Axis(label=HOSTILE),
    )
    assert not [node for node in root.iter() if "script" in node.tag]
    assert "<script>" in "".join(root.itertext())


def test_a_missing_period_breaks_the_line() -> None:
    whole = draw([minutes(*range(30))])
    broken = draw([minutes(*range(10), None, None, *range(18))])
    lines = [len([p for p in root.iter(f"{SVG}path") if p.get("fill") == "none"]) for root in (whole, broken)]
    assert lines == [1, 2]


def test_columns_are_as_high_as_their_values_and_stack() -> None:
    one = draw([minutes(2, 4)])
    heights = [float(rect.get("height", "0")) for rect in one.iter(f"{SVG}rect") if rect.get("rx") == "2"]
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.01)
    piled = draw([minutes(2, 4), minutes(3, 1, label="b")], stacked=True)
    columns = [rect for rect in piled.iter(f"{SVG}rect") if rect.get("rx") == "2"]
    lower, upper = columns[0], columns[2]
    assert lower.get("x") == upper.get("x")
    assert float(upper.get("y", "0")) + float(upper.get("height", "0")) == pytest.approx(
        float(lower.get("y", "0")), abs=0.1
    )


def test_the_crosshair_has_every_value_written_out() -> None:
    root = draw([minutes(0.001, 0.25, label="cost", unit=Unit.USD), minutes(None, 7, label="calls")])
    data = json.loads(root.get("data-chart", ""))
    assert [row[0] for row in data["s"]] == ["cost", "calls"]
    assert data["s"][0][2] == ["$0.00100", "$0.250"]
    assert data["s"][1][2] == [None, "7"]
    assert data["t"][0].endswith("UTC")


def test_a_threshold_far_above_the_data_is_named_and_does_not_press_it_flat() -> None:
    root = draw([minutes(1, 2, 3)], marks=[Mark(500, "daily budget")])
    assert "↑ daily budget" in list(root.itertext())
    tops = [float(rect.get("height", "0")) for rect in root.iter(f"{SVG}rect") if rect.get("rx") == "2"]
    assert max(tops) > 150


def test_the_axis_obeys_its_bounds() -> None:
    texts = list(draw([minutes(40, 60)], left=Axis(0, 100, "%")).itertext())
    assert "0" in texts
    assert "100" in texts


def test_without_series_there_is_no_chart() -> None:
    with pytest.raises(ValueError, match="series"):
        draw([])


@given(st.lists(st.tuples(st.text(max_size=20), st.floats(0, 1e9)), max_size=8))
@settings(max_examples=40, deadline=None)
def test_single_figures_are_well_formed(given: list[tuple[str, float]]) -> None:
    values = [Value(label, value, Unit.USD) for label, value in given]
    for picture in (
        charts.bars(values, width=400, height=200),
        charts.ring(values, width=400, height=200),
        charts.gauge(values, width=400, height=200, low=0, high=100, marks=[Mark(80, "warn")]),
        charts.big_numbers(values, width=400, height=200),
    ):
        parse(picture)


def test_shares_of_a_ring_add_up() -> None:
    root = parse(charts.ring([Value("a", 3), Value("b", 1)], width=400, height=200))
    shares = [float(found) for found in re.findall(r"([\d.]+)%", " ".join(root.itertext()))]
    assert sum(set(shares)) == 100


def test_a_gauge_past_a_threshold_takes_its_colour() -> None:
    picture = charts.gauge(
        [Value("used", 95)], width=300, height=200, low=0, high=100, marks=[Mark(90, color="#ff0000")]
    )
    arcs = [path.get("stroke") for path in parse(picture).iter(f"{SVG}path") if path.get("fill") == "none"]
    assert "#ff0000" in arcs


def test_a_time_axis_names_its_unit_once() -> None:
    texts = list(draw([minutes(400, 1900, unit=Unit.MILLISECONDS)], left=Axis(label="ms")).itertext())
    assert "2 s" in texts
    assert "ms" not in texts


def test_a_ring_lists_the_largest_share_first_and_keeps_each_ones_colour() -> None:
    values = [Value("small", 0.0001, color="#111199"), Value("large", 3), Value("middle", 1)]
    shown = charts.ring(values, width=400, height=200)
    texts = list(parse(shown).itertext())
    order = [texts.index(name) for name in ("large", "middle", "small")]
    assert order == sorted(order)
    assert "0.0001 · <0.1%" in texts
    assert shown.count("#111199") == 2
