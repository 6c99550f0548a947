"""What one result has cost: of the ledger's own figures, exactly, and nothing where there is no result."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring.analysis.analyzer import AgentOpsAnalyzer
from agentops_monitoring.ledger import schema
from agentops_monitoring.ledger.parse import Batch
from agentops_monitoring.ledger.reader import LedgerReader
from agentops_monitoring.ledger.totals import Rollups, Totals, rollups
from agentops_monitoring.ledger.unit_costs import not_in_costs, unit_costs
from agentops_monitoring.ledger.writer import LedgerWriter
from tests.unit.ledger.conftest import TABLES
from tests.unit.ledger.fake_dynamodb import FakeDynamoDB
from tests.unit.ledger.test_allocation import START_MS, event, report

KINDS = ("issue_detected", "code_generated", "test_passed", "test_failed", "decision_made", "overhead")
USD = st.decimals(0, 1000, places=12)


def found(counts: dict[str, tuple[int, Decimal]], completed: int, llm: Decimal, compute: Decimal) -> Rollups:
    types: dict[str, Any] = {}
    for kind, (events, usd) in counts.items():
        types |= {f"n.{kind}": events, f"c.{kind}": usd}
    total: dict[str, Any] = {
        "llm_cost": llm,
        "compute_cost": compute,
        "workflows_completed": completed,
        "workflows_failed": 9,
    }
    return rollups({("", schema.TYPES): types, ("", schema.TOTAL): total})


@given(
    st.fixed_dictionaries({kind: st.tuples(st.integers(0, 10_000), USD) for kind in KINDS}),
    st.integers(0, 1000), USD, USD,
)  # fmt: skip
def test_each_is_its_part_of_the_ledgers_costs(
    counts: dict[str, tuple[int, Decimal]], completed: int, llm: Decimal, compute: Decimal
) -> None:
    got = {each.name: each for each in unit_costs(found(counts, completed, llm, compute))}
    n = {kind: events for kind, (events, _) in counts.items()}
    usd = {kind: Fraction(cost) for kind, (_, cost) in counts.items()}
    attempts = n["test_passed"] + n["test_failed"]
    failed = usd["test_failed"]
    if attempts:
        failed += usd["code_generated"] * n["test_failed"] / attempts
    expected = {
        "completed_workflow": (Fraction(llm) + Fraction(compute), completed),
        "issue_found": (usd["issue_detected"], n["issue_detected"]),
        "accepted_fix": (usd["code_generated"] + usd["test_passed"] + usd["test_failed"], n["test_passed"]),
        "failed_attempt": (failed, n["test_failed"]),
    }
    assert set(got) == set(expected)
    for name, (cost, results) in expected.items():
        assert got[name].results == results
        assert 0 <= cost - Fraction(got[name].usd) < Fraction(1, 10**15)
        each = got[name].each
        assert (each is None) == (results == 0)
        if each is not None:
            assert 0 <= cost / results - Fraction(each) < Fraction(2, 10**15)


def test_from_the_lines_of_a_workflow_to_the_price_of_its_fix() -> None:
    client = FakeDynamoDB()
    units = [
        event(1, "invocation_started", 0),
        event(2, "issue_detected", 10),
        event(3, "llm_usage", 20, "0.5"),
        event(4, "code_generated", 30),
        event(5, "llm_usage", 31, "0.0625"),
        event(6, "test_failed", 40),
        event(7, "llm_usage", 41, "0.25"),
        event(8, "code_generated", 50),
        event(9, "test_passed", 60),
        event(10, "workflow_completed", 61),
    ]
    LedgerWriter(client, TABLES).write(Batch("stream", units, reports=[report(105, "100", "0.001")]))
    at = datetime.fromtimestamp(START_MS / 1000, UTC)
    told = AgentOpsAnalyzer(LedgerReader(client, TABLES), clock=lambda: at).analyze_unit_costs(1)
    usd = {name: one["each_usd"] for name, one in told.items() if isinstance(one, dict)}
    # Compute is $0.00001 a millisecond: 10 for the issue, 20 + 10 for the code, 10 and 10 for the tests.
    assert usd == {
        "completed_workflow": Decimal("0.8135"),
        "issue_found": Decimal("0.0001"),
        "accepted_fix": Decimal("0.813"),
        "failed_attempt": Decimal("0.43775"),
    }
    assert told["completed_workflow"] == {
        "count": 1,
        "cost_usd": Decimal("0.8135"),
        "each_usd": Decimal("0.8135"),
    }
    assert told["not_in_costs"] == ""


def test_what_is_in_no_figure_is_said() -> None:
    assert not_in_costs(Totals({"llm_calls": 3})) == ""
    said = not_in_costs(Totals({"unpriced": 2, "provisioned_runs": 1_234}))
    assert "2 calls of models without a known price" in said
    assert "1,234 attempts" in said
    assert not_in_costs(Totals({"provisioned_runs": 5, "ready_s": 300})) == ""
    said = not_in_costs(Totals({"provisioned_runs": 5, "ready_s": 300, "ready_unpriced_s": 600}))
    assert said == (
        "Not in these figures: 600 seconds of environments that were kept ready, without a known price."
    )
