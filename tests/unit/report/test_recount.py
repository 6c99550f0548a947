"""The recount: right about what is there, and not to be fooled."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.report import recount
from local.report.recount import Lines, Source
from tests.unit.report.factory import MODEL, FakeLogs, Process

ARM = Source("/g", "qa", "arm64")


def count(process: Process, source: Source = ARM) -> Lines:
    lines = Lines()
    recount.count_lines(source, process.logged(), lines)
    return lines


def qa() -> Process:
    return Process("qa", "2026/11/22/[$LATEST]0123456789abcdef0123456789abcdef", "n1")


def test_every_log_event_of_every_agents_group_is_read_once() -> None:
    processes = [Process("qa", f"stream-{n}", f"n{n}") for n in range(3)]
    for number, process in enumerate(processes):
        for _ in range(number * 2 + 1):
            process.event("test_passed", {})
    logs = FakeLogs({"/aws/lambda/qa": processes})
    found = recount.sources(logs, "demo")
    assert found == [Source("/aws/lambda/qa", "qa", "arm64")]
    lines = Lines()
    recount.count_lines(found[0], recount.messages(logs, "/aws/lambda/qa"), lines)
    assert len(lines.events) == 1 + 3 + 5


def test_another_environments_groups_are_left_alone() -> None:
    assert recount.sources(FakeLogs({"/g": [qa()]}, environment="other"), "demo") == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 900_000), st.integers(128, 10_240)), max_size=12))
def test_compute_is_the_exact_sum_of_both_forms_of_report(bills: list[tuple[int, int]]) -> None:
    process = qa()
    for index, (billed_ms, memory_mb) in enumerate(bills):
        (process.report if index % 2 else process.text_report)(billed_ms, memory_mb)
    # In whole units of 10⁻¹⁰ USD per second and GB, so nothing can be lost: an oracle without fractions.
    units = sum(billed_ms * memory_mb for billed_ms, memory_mb in bills) * 133_334
    expected = Decimal(units) / Decimal(10**10 * 1000 * 1024) + Decimal("0.0000002") * len(bills)
    assert sum(count(process).compute_usd.values(), Decimal(0)) == expected


def test_what_was_taken_back_is_no_event() -> None:
    class Client:
        def get_paginator(self, _name: str) -> Client:
            return self

        def paginate(self, **asked: Any) -> list[dict[str, Any]]:
            keys = [("WF#1", "t#n-1"), ("WF#1", "t#report-1"), ("OUTCOME#d", "t#n-2")]
            items = [{"pk": {"S": pk}, "sk": {"S": sk}} for pk, sk in keys]
            items[1]["withdrawn"] = {"BOOL": True}  # type: ignore[dict-item]
            names = asked["ProjectionExpression"].split(", ")
            return [{"Items": [{k: v for k, v in item.items() if k in names} for item in items]}]

    assert recount.table_keys(Client(), "t") == Counter(["n-1"])


def test_what_a_model_prints_does_not_count() -> None:
    process = qa()
    process.event("test_passed", {})
    process.event("test_passed", {}, proof="0" * 24)
    process.lines += ["plain text", '{"agentops.event": broken', '{"agentops.event": "no object"}', "[1]"]
    lines = count(process)
    assert (len(lines.events), lines.forged, lines.unreadable) == (1, 1, 1)


def test_a_split_event_counts_once_and_only_when_whole() -> None:
    process = qa()
    for part in (2, 1):
        process.event("decision_made", {}, id="n1-9", part=[part, 2], chunk="x")
    assert list(count(process).events) == ["n1-9"]
    process.lines.pop()
    lines = count(process)
    assert (len(lines.events), lines.incomplete) == (0, 1)


REQUEST = "8f507cfc-fe13-4e04-9f23-1e2f5d1ce93d"


@pytest.mark.parametrize("form", ["report", "text_report"])
@pytest.mark.parametrize(
    ("wrote", "status", "failures"),
    [
        (["invocation_started"], "timeout", 1),
        (["invocation_started", "test_passed"], "error", 1),
        (["invocation_started", "invocation_failed"], "error", 0),
        (["invocation_started", "invocation_completed"], "success", 0),
        (["invocation_started"], "success", 0),
        (["invocation_failed"], "error", 0),
    ],
)
def test_an_attempt_that_lambda_ended_failed_unless_it_says_so_itself(
    form: str, wrote: list[str], status: str, failures: int
) -> None:
    process = qa()
    started, *_ = [process.event(kind, {}, request_id=REQUEST, span_id="f" * 16) for kind in wrote]
    getattr(process, form)(100, request_id=REQUEST, status=status)
    events = count(process).events
    assert len(events) == len(wrote) + failures
    for each in list(events.values())[len(wrote) :]:
        assert (each["type"], each["agent"], each["at"]) == (
            "invocation_failed", "qa", f"1970-01-01T00:00:{len(wrote):02d}.000+00:00",
        )  # fmt: skip
        for place in ("workflow_id", "trace_id", "span_id"):
            assert each[place] == started[place]


def test_each_attempt_of_an_invocation_fails_by_itself() -> None:
    process = qa()
    for status in ("timeout", "success", "error", "error"):
        if status != "error":
            process.event("invocation_started", {}, request_id=REQUEST)
        process.report(100, request_id=REQUEST, status=status)
        process.event("test_passed", {}, request_id="another")
    failed = {id: each for id, each in count(process).events.items() if each["type"] == "invocation_failed"}
    assert [id.rpartition("-")[0] for id in failed] == [f"report-{process.stream}/{n}" for n in (1, 6, 8)]
    before_the_wrapper_ran = [each["trace_id"] for each in list(failed.values())[1:]]
    assert before_the_wrapper_ran == [REQUEST.replace("-", "")] * 2


CALLS = [{"model": MODEL, "input_tokens": 1000, "output_tokens": 100}]


def agreeing() -> dict[str, Any]:
    process = qa()
    process.event("decision_made", {})
    process.event("llm_usage", {})
    process.report(100)
    lines = count(process)
    spans = [
        {"trace_id": "a" * 32, "span_id": "1", "parent_span_id": None},
        {"trace_id": "a" * 32, "span_id": "2", "parent_span_id": "1"},
    ]
    return {
        "lines": lines,
        "stored": Counter(list(lines.events)),
        "decisions": Counter(["n1-1"]),
        "ledger_llm_usd": Decimal("0.000375"),
        "ledger_compute_usd": lines.compute_usd["qa"],
        "calls": CALLS,
        "spans": spans,
        "region": "us-east-1",
    }


def failing(**changed: Any) -> list[str]:
    given = {**agreeing(), **changed}
    return [check.name for check in recount.compare(given.pop("lines"), **given) if not check.ok]


def test_figures_that_agree_pass() -> None:
    assert failing() == []


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"stored": Counter(["n1-1"])}, "agent-monitoring"),
        ({"stored": Counter({"n1-1": 1, "n1-2": 2})}, "agent-monitoring"),
        ({"stored": Counter(["n1-1", "n1-3"])}, "agent-monitoring"),
        ({"decisions": Counter()}, "agent-decisions"),
        ({"ledger_llm_usd": Decimal("0.000375000000000000001")}, "LLM cost"),
        ({"calls": [{"model": "nobody-knows", "input_tokens": 1, "output_tokens": 1}]}, "LLM cost"),
        ({"ledger_compute_usd": Decimal(0)}, "compute cost"),
        ({"spans": []}, "traces"),
        ({"spans": [{"trace_id": "a" * 32, "span_id": "2", "parent_span_id": "1"}]}, "orphan"),
    ],
)
def test_each_difference_is_found(changed: dict[str, Any], name: str) -> None:
    assert any(name in found for found in failing(**changed))


def test_missing_events_are_named() -> None:
    given = agreeing()
    given["stored"] = Counter(["n1-1"])
    check = recount.compare(given.pop("lines"), **given)[0]
    assert (check.expected, check.actual, check.detail) == ("2", "1", "missing n1-2")
