"""Which event types an invocation's cost goes to, on examples small enough to reckon by hand."""

from __future__ import annotations

from decimal import Decimal
from itertools import islice, permutations

import pytest

from agentops_monitoring.ledger.allocation import Invocation
from agentops_monitoring.ledger.events import Event, LlmCall, Report, Source
from agentops_monitoring.ledger.exact import share
from agentops_monitoring.ledger.workflows import Workflow
from agentops_monitoring.pricing import TokenUsage

START_MS = 1_795_334_400_000
HOUR = "H#2026-11-22T08"


def event(seq: int, kind: str, after_ms: int, usd: str | None = None, *, nonce: str = "n") -> Event:
    call = LlmCall("m", TokenUsage(1, 1), Decimal(usd)) if usd else None
    at = f"2026-11-22T08:00:00.{after_ms:03d}Z"
    return Event(
        f"{nonce}-{seq}", kind, kind, "manager", at, START_MS + after_ms, "w", "t", "s", None, "r", seq, {},
        call=call,
    )  # fmt: skip


def report(after_ms: int, duration: str, usd: str, *, id: str = "report") -> Report:
    return Report(
        id, "r", START_MS + after_ms, Decimal(duration), 100, 128, Decimal(0), "success", "manager",
        Decimal(usd), Source(id, 0, ""),
    )  # fmt: skip


def costs(*units: Event | Report) -> dict[str, Decimal]:
    invocation = Invocation()
    for unit in units:
        invocation.add(unit)
    again = Invocation(1, invocation.text())
    assert again.contributions() == invocation.contributions()
    assert set(invocation.contributions()) <= invocation.touches
    counters = invocation.contributions().get((HOUR, "TYPES"), {})
    return {name.removeprefix("c."): Decimal(value) for name, value in counters.items()}


def test_calls_and_slices_go_to_the_next_domain_event() -> None:
    units: tuple[Event | Report, ...] = (
        event(1, "invocation_started", 0),
        event(2, "llm_usage", 10, "0.5"),
        event(3, "issue_detected", 40),
        event(4, "llm_usage", 50, "0.25"),
        event(5, "decision_made", 60),
        event(6, "llm_usage", 70, "0.125"),
        report(105, "100", "0.001"),
    )
    expected = {
        # 40 of 100 ms, 20 of 100 ms, and the rest.
        "issue_detected": Decimal("0.5004"),
        "decision_made": Decimal("0.2502"),
        "overhead": Decimal("0.1254"),
    }
    assert costs(*units) == expected
    for some in islice(permutations(units), 0, None, 97):
        assert costs(*some) == expected


def test_before_the_report_comes_only_calls_are_allocated() -> None:
    assert costs(event(1, "llm_usage", 10, "0.5")) == {"overhead": Decimal("0.5")}
    assert costs(event(1, "llm_usage", 10, "0.5"), event(2, "test_passed", 11)) == {
        "test_passed": Decimal("0.5")
    }


def test_a_report_alone_is_overhead() -> None:
    assert costs(report(100, "100", "0.001")) == {"overhead": Decimal("0.001")}


def test_a_retry_is_a_second_attempt() -> None:
    first = (
        event(1, "invocation_started", 0),
        event(2, "llm_usage", 5, "1"),
        report(100, "100", "0.01", id="a"),
    )
    second = (
        event(3, "invocation_started", 200),
        event(4, "test_passed", 250),
        report(300, "100", "0.03", id="b"),
    )
    assert costs(*first, *second) == {"overhead": Decimal("1.025"), "test_passed": Decimal("0.015")}


@pytest.mark.parametrize("after_ms", [1, 50, 100])
def test_a_report_line_that_the_agent_printed_does_not_count(after_ms: int) -> None:
    genuine = (event(1, "invocation_started", 0), report(101, "101", "0.01", id="b"))
    forged = report(after_ms, "1", "1000", id="a")
    assert costs(*genuine, forged) == costs(*genuine) == {"overhead": Decimal("0.01")}


def test_a_restarted_process_comes_after_the_one_before() -> None:
    units = (
        event(7, "llm_usage", 10, "1", nonce="z"),
        event(1, "invocation_started", 50, nonce="a"),
        event(2, "test_failed", 60, nonce="a"),
    )
    assert costs(*units) == {"overhead": Decimal(1)}


def test_a_clock_that_runs_backwards_stands_still() -> None:
    units = (
        event(1, "invocation_started", 10),
        event(2, "issue_detected", 50),
        event(3, "decision_made", 20),
        report(110, "100", "1"),
    )
    assert costs(*units) == {"issue_detected": Decimal("0.4"), "overhead": Decimal("0.6")}


@pytest.mark.parametrize("late", [False, True])
def test_the_start_says_whether_an_attempt_has_the_price_of_an_environment_kept_ready(late: bool) -> None:
    start = event(1, "invocation_started", 0)
    start.data = {"initialization": "provisioned-concurrency"}
    first = report(101, "101", "1", id="a")._replace(provisioned_cost=Decimal("0.5"))
    second = report(300, "100", "1", id="b")._replace(provisioned_cost=Decimal("0.5"))
    units = (start, event(2, "test_passed", 51), first, second)
    # The second attempt wrote no start: what its environment was is not known.
    expected = {"test_passed": share(Decimal("0.5"), Decimal(51), Decimal(101)), "overhead": Decimal("1.5")}
    expected["overhead"] -= expected["test_passed"]
    assert costs(*(reversed(units) if late else units)) == expected
    invocation = Invocation()
    for unit in units:
        invocation.add(unit)
    assert invocation.contributions()[HOUR, "TOTAL"]["provisioned_runs"] == 1


def test_thirds_lose_nothing() -> None:
    units = (event(1, "invocation_started", 0), event(2, "test_passed", 1), report(3, "3", "1"))
    found = costs(*units)
    assert found["test_passed"] == Decimal("0.333333333333333")
    assert sum(found.values()) == 1


def test_a_workflow_ends_as_it_ended_last() -> None:
    workflow = Workflow()
    last, first, early = (
        event(3, "workflow_completed", 30),
        event(1, "issue_detected", 1),
        event(2, "workflow_failed", 20),
    )
    assert workflow.changes(last)
    workflow.add(last)
    assert not workflow.changes(first)
    assert not workflow.changes(early)
    workflow.add(early)
    assert workflow.contributions() == {
        (HOUR, "TOTAL"): {"workflows_completed": 1},
        (HOUR, "OUTCOMES"): {"c.manager": 1},
    }
    assert Workflow(1, workflow.text()).contributions() == workflow.contributions()
