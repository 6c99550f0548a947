"""Flow map, decisions and cost drivers."""

from __future__ import annotations

import html
import json
import re
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentops_monitoring.views import flow, tables
from agentops_monitoring.views.flow import AgentNode, Flow
from agentops_monitoring.views.tables import Decision, Driver

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
SVG = "{http://www.w3.org/2000/svg}"
TEAM = [
    Flow("manager", "engineer", 24, 12.3),
    Flow("engineer", "qa", 41, 9.0),
    Flow("qa", "engineer", 17, 10.0),
]


def boxes(svg: str) -> dict[str, float]:
    """The left edge of each agent's box."""
    root = ElementTree.fromstring(svg)
    found = {}
    for group in root.iter(f"{SVG}g"):
        rects, texts = group.findall(f"{SVG}rect"), group.findall(f"{SVG}text")
        if len(rects) == 2:
            found["".join(texts[0].itertext())] = float(rects[0].get("x", "0"))
    return found


def test_work_runs_from_left_to_right_though_rejections_run_back() -> None:
    at = boxes(flow.render_flow([], TEAM, width=900, height=400))
    assert at["manager"] < at["engineer"] < at["qa"]


def test_agents_come_in_the_order_of_their_work() -> None:
    assert flow.agents_in_order(TEAM) == ["manager", "engineer", "qa"]


def test_every_flow_is_named_with_its_count_and_latency() -> None:
    text = html.unescape(flow.render_flow([], TEAM))
    for each in TEAM:
        assert f"{each.source} → {each.target}: {each.count} messages" in text
    assert "12.3 ms" in text


def test_agents_show_what_they_did_and_the_silent_are_named() -> None:
    text = flow.render_flow([AgentNode("qa", 280, Decimal("0.0113")), AgentNode("sandbox")], TEAM)
    assert "280 events · $0.0113" in text
    assert "without messages: sandbox" in text


NAMES = st.text(min_size=1, max_size=12)


@given(
    st.lists(st.builds(Flow, NAMES, NAMES, st.integers(1, 10**6), st.none() | st.floats(0, 1e7)), max_size=60)
)
@settings(max_examples=60, deadline=None)
def test_any_flows_give_a_well_formed_map(flows: list[Flow]) -> None:
    drawn = flow.render_flow([AgentNode("idle")], flows, width=700, height=200)
    if flows:
        ElementTree.fromstring(drawn)
    else:
        assert "No messages" in drawn


def test_hostile_names_stay_text_everywhere() -> None:
    decision = Decision(
        {"pk": HOSTILE, "sk": "x"}, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 0.5, [{HOSTILE: HOSTILE}], HOSTILE
    )
    shown = [
        flow.render_flow([AgentNode(HOSTILE, 1)], [Flow(HOSTILE, "b", 1)]),
        tables.render_decisions([decision], endpoint=HOSTILE, environment=HOSTILE),
        tables.render_decision(decision),
        tables.render_cost_drivers(
            [Driver(HOSTILE, HOSTILE, Decimal(1), {HOSTILE: HOSTILE})],
            [{"type": HOSTILE, "recommendation": HOSTILE, "evidence": {HOSTILE: HOSTILE}}],
            total_usd=Decimal(1),
        ),
    ]
    for each in shown:
        assert "<script" not in each
        assert "<img" not in each


def decision(at: str, **more: Any) -> Decision:
    chain = [{"thought": "look", "action": "query"}, {"thought": f"concluded {at}"}]
    return Decision({"pk": "WF#1", "sk": at}, "qa", "verdict", at, "wf", 0.9, chain, **more)


def test_the_newest_decision_comes_first_with_what_it_came_to() -> None:
    given = [decision(f"2026-11-22T08:00:0{n}.000Z") for n in (1, 3, 2)]
    shown = tables.render_decisions(given, endpoint="arn", environment="demo")
    assert re.findall(r"concluded \S+:0(\d)", shown) == ["3", "2", "1"]


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({"verdict": "reject", "review": None}, "<strong>reject</strong> – 2 of 8 tests fail"),
        ({"root_cause": "off by one", "action": "none"}, "<strong>none</strong> – off by one"),
        ({"explanation": "Round last.", "diff": "--- a"}, "Round last."),
        ({"score": 7, "top_pick": "b"}, "score 7 · top pick b"),
        ("accepted", "accepted"),
        (None, "compare them"),
    ],
)
def test_a_decision_says_what_was_decided_and_about_what(outputs: object, said: str) -> None:
    chain = [{"thought": "compare them", "observation": "2 of 8 tests fail\nTraceback: …"}]
    verdict = Decision(
        {}, "qa", "verdict", "t", chain=chain, inputs={"function": "cart-total"}, outputs=outputs
    )
    shown = tables.render_decisions([verdict], endpoint="arn", environment="demo")
    cells = re.findall(r"<td[^>]*>(.*?)</td>", shown)
    assert cells[3:5] == ["cart-total", said]


def test_no_column_for_what_no_decision_names() -> None:
    shown = tables.render_decisions([decision("t")], endpoint="arn", environment="demo")
    assert "About" not in shown


def test_a_drill_down_carries_the_decisions_key_back() -> None:
    shown = tables.render_decisions([decision("t")], endpoint="arn:aws:lambda:x", environment="demo")
    found = re.search(
        r'<a class="btn">2 steps</a><cwdb-action [^>]*endpoint="arn:aws:lambda:x">(.*?)</cwdb-action>', shown
    )
    assert found
    assert json.loads(html.unescape(found[1])) == {
        "widget": "decision",
        "environment": "demo",
        "key": {"pk": "WF#1", "sk": "t"},
    }


def test_a_decision_is_shown_whole() -> None:
    long = "why " * 20_000
    shown = tables.render_decision(decision("t", inputs={"metrics": [1, 2]}, outputs={"reason": long}))
    assert long.strip() in shown
    assert shown.index("look") < shown.index("concluded t")


def test_drivers_are_ordered_by_cost_within_their_kind_and_savings_are_never_invented() -> None:
    drivers = [
        Driver("agent", "qa", Decimal(1)),
        Driver("agent", "engineer", Decimal(3)),
        Driver("model", "m", Decimal(4)),
    ]
    told = [
        {
            "type": "cache",
            "recommendation": "cache it",
            "evidence": {"calls": 9},
            "estimated_savings_usd": None,
        }
    ]
    shown = tables.render_cost_drivers(drivers, told, total_usd=Decimal(4))
    assert shown.index("engineer") < shown.index("qa") < shown.index(">m<")
    assert shown.index("cache it") < shown.index("calls 9") < shown.index("engineer")
    assert "75%" in shown
    assert "saves" not in shown
    assert "calls 9" in shown


def test_money_in_evidence_is_written_as_money() -> None:
    evidence = {"cost_usd": Decimal("0.19545299397080000000000"), "USD each": 0.5, "calls": 1200}
    told = [{"type": "t", "recommendation": "r", "evidence": evidence}]
    shown = tables.render_cost_drivers([Driver("agent", "qa", Decimal(1))], told, total_usd=Decimal(1))
    assert "cost $0.195 · each $0.500 · calls 1,200" in shown


def test_nothing_says_so() -> None:
    driver = Driver("agent", "qa", Decimal(1))
    assert "Nothing found" in tables.render_cost_drivers([driver], total_usd=Decimal(1))
    assert "No decisions" in tables.render_decisions([], endpoint="a", environment="demo")
    assert "No cost" in tables.render_cost_drivers([], total_usd=Decimal(0))


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ({"correct": True, "score": None}, ["right"]),
        ({"correct": False, "score": Decimal("0.25")}, ["wrong", "25 %"]),
        ({"correct": None, "score": 0.9}, ["90 %"]),
        ({"correct": None, "score": None}, ["–"]),
    ],
)
def test_a_decision_that_proved_right_or_wrong_says_so(outcome: dict[str, object], said: list[str]) -> None:
    outcome |= {"agent": "qa", "at": "2026-11-22T08:00:00.000Z", "evidence": {"failed": ["<b>"]}}
    told = decision("t", outcome=outcome)
    listed = tables.render_decisions([told, decision("u")], endpoint="arn", environment="demo")
    whole = tables.render_decision(told)
    for shown in (listed, whole):
        assert all(word.replace(" ", "") in shown.replace(" ", "") for word in said)
    assert "Proved" in listed
    heads, cells = (re.findall(f"<{cell}[ >]", listed) for cell in ("th", "td"))
    assert len(heads) == len(cells) / 2
    assert "open" in listed
    assert "by qa, 2026-11-22" in whole
    assert "&lt;b&gt;" in whole


def test_decisions_of_which_nobody_told_have_no_such_column() -> None:
    shown = tables.render_decisions([decision("t")], endpoint="arn", environment="demo")
    assert "Proved" not in shown
    assert "proved" not in tables.render_decision(decision("t"))
