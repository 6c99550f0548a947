"""Events, decisions and their outcomes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from agentops_monitoring import AgentOpsMonitor


def test_a_decision_is_kept_whole(recorded: Any) -> None:
    chain: list[dict[str, Any]] = [
        {"thought": "t", "action": "a", "observation": "o", "tool": {"name": "x"}, "took_ms": 5},
        {"thought": None, "note": ["free", "fields"]},
    ]
    identifier = AgentOpsMonitor("a").record_decision(
        decision_type="remediation",
        reasoning_chain=chain,
        inputs={"i": 1},
        outputs=["o"],
        confidence_score=1,
        alternatives=[{"action": "wait", "rejected": "too slow"}],
        decision_id="d-1",
    )
    (event,) = recorded()
    assert identifier == "d-1"
    assert "problems" not in event
    assert event["data"] == {
        "decision_id": "d-1",
        "decision_type": "remediation",
        "reasoning_chain": chain,
        "inputs": {"i": 1},
        "outputs": ["o"],
        "confidence_score": 1.0,
        "alternatives": [{"action": "wait", "rejected": "too slow"}],
    }


def test_a_chain_of_any_length_is_kept_whole(recorded: Any) -> None:
    chain = [{"thought": str(number)} for number in range(10_050)]
    AgentOpsMonitor("a").record_decision(decision_type="d", reasoning_chain=chain)
    assert recorded()[0]["data"]["reasoning_chain"] == chain
    assert "problems" not in recorded()[0]


def test_decisions_without_an_id_get_one_each(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    ids = [monitor.record_decision(decision_type="d", reasoning_chain=[]) for _ in range(3)]
    assert len(set(ids)) == 3
    assert [event["data"]["decision_id"] for event in recorded()] == ids


def test_an_outcome_is_kept_whole_in_its_decisions_workflow(recorded: Any) -> None:
    monitor = AgentOpsMonitor("a")
    with monitor.workflow("order-17"):
        decided = monitor.record_decision(decision_type="d", reasoning_chain=[])
        monitor.record_outcome(decided, correct=True)
    monitor.record_outcome(decided, score=0.25, evidence={"tests": ...}, workflow_id="order-17")
    decision, right, score = recorded()
    assert {right["type"], score["type"]} == {"decision_outcome"}
    assert {each["workflow_id"] for each in (decision, right, score)} == {"order-17"}
    assert {each["trace_id"] for each in (decision, right, score)} == {decision["trace_id"]}
    assert right["data"] == {"decision_id": decided, "correct": True, "score": None, "evidence": None}
    assert score["data"] == {
        "decision_id": decided, "correct": None, "score": 0.25, "evidence": {"tests": "..."},
    }  # fmt: skip


class Odd(Mapping[str, Any]):
    """A mapping that raises when it is read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError


class NumpysBool:
    """Shaped like numpy.bool_."""

    def tolist(self) -> bool:
        return True


def test_a_verdict_of_numpy_is_one(recorded: Any) -> None:
    AgentOpsMonitor("a").record_outcome("d", correct=NumpysBool())  # type: ignore[arg-type]
    (event,) = recorded()
    assert event["data"]["correct"] is True
    assert "problems" not in event


def raising() -> Iterator[dict[str, str]]:
    yield {"thought": "kept"}
    raise RuntimeError


WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("record_outcome", ("",), {"correct": True}, "decision_id"),
    ("record_outcome", (None,), {"correct": True}, "decision_id"),
    ("record_outcome", (7,), {"correct": True}, "decision_id"),
    ("record_outcome", ("d",), {}, "neither correct nor score"),
    ("record_outcome", ("d",), {"correct": "yes"}, "correct"),
    ("record_outcome", ("d",), {"correct": 1}, "correct"),
    ("record_outcome", ("d",), {"score": 1.01}, "score"),
    ("record_outcome", ("d",), {"score": math.nan}, "score"),
    ("record_outcome", ("d",), {"score": True}, "score"),
    ("record_outcome", ("d",), {"correct": True, "workflow_id": 5}, "workflow_id"),
    ("track_tool", (None,), {}, "name"),
    ("track_tool", ("",), {}, "name"),
    ("track_tool", ("t",), {"duration_ms": -1}, "duration_ms"),
    ("track_tool", ("t",), {"duration_ms": math.inf}, "duration_ms"),
    ("track_tool", ("t",), {"duration_ms": "3"}, "duration_ms"),
    ("complete_workflow", (5,), {}, "reason"),
    ("fail_workflow", ({},), {}, "reason"),
    *(
        ("record_decision", (), {"decision_type": "d", "reasoning_chain": chain}, named)
        for chain, named in (
            ([{"thought": ["t"]}], "step 1 of reasoning_chain has as thought no text but list"),
            ([{}, {"action": {}}], "step 2 of reasoning_chain has as action no text"),
            ([{"observation": 5}, "x"], "and 1 more steps are wrong"),
            ([Odd()], "step 1 of reasoning_chain cannot be read"),
            (itertools.repeat({"thought": "t"}), "more than 10000 steps"),
        )
    ),
]


@pytest.mark.parametrize(("method", "given", "named_given", "named"), WRONG)
def test_wrong_arguments_are_said_in_the_line_or_raised_in_strict_mode(
    method: str,
    given: tuple[Any, ...],
    named_given: dict[str, Any],
    named: str,
    recorded: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    getattr(AgentOpsMonitor("a"), method)(*given, **named_given)
    (event,) = recorded()
    assert named in " ".join(event["problems"])
    monkeypatch.setenv("AGENTOPS_STRICT", "1")
    with pytest.raises(ValueError, match=named):
        getattr(AgentOpsMonitor("a"), method)(*given, **named_given)
    assert len(recorded()) == 1


def test_a_span_without_a_name_says_so(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for scope in ("span", "tool"):
        with getattr(AgentOpsMonitor("a"), scope)(None):
            pass
    assert all("name" in event["problems"][0] for event in recorded())
    monkeypatch.setenv("AGENTOPS_STRICT", "1")
    for scope in ("span", "tool"):
        with pytest.raises(ValueError, match="name"):
            getattr(AgentOpsMonitor("a"), scope)(None)


def test_a_chain_that_breaks_off_keeps_what_came(recorded: Any) -> None:
    AgentOpsMonitor("a").record_decision(decision_type="d", reasoning_chain=raising())  # type: ignore[arg-type]
    (event,) = recorded()
    assert event["data"]["reasoning_chain"] == [{"thought": "kept"}]
    assert "ends with RuntimeError" in event["problems"][0]


def test_a_chain_of_many_parts_is_never_cut(recorded: Any) -> None:
    chain = [{"thought": "t" * 1_000, "number": number} for number in range(300)]
    AgentOpsMonitor("a").record_decision(decision_type="d", reasoning_chain=chain)
    (event,) = recorded()
    assert event["data"]["reasoning_chain"] == chain
    assert event["part"][1] > 1
