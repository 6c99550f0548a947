"""What one result has cost: money of the ledger by what it led to, over how often it did.

========================  ====================================================  ==========================
per                       what it took                                          how many
========================  ====================================================  ==========================
completed workflow        everything: TotalCost, failed workflows included      workflows completed
issue found               EventCost of `issue_detected`                         `issue_detected`
accepted fix              EventCost of `code_generated`, `test_passed` and      `test_passed`
                          `test_failed`: with the attempts that failed
failed attempt            EventCost of `test_failed`, and its part of that of   `test_failed`
                          `code_generated`, shared evenly among all attempts
========================  ====================================================  ==========================

An attempt is a fix whose tests have run: `test_passed` accepts it, `test_failed` does not. EventCost is what
an invocation spent until the event: the calls of models and the compute since the event before.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.ledger.exact import EXACT, share
from agentops_monitoring.ledger.totals import Rollups, Totals, TypeTotals

_NONE = TypeTotals(0, Decimal(0))


class UnitCost(NamedTuple):
    """What results of a kind have cost."""

    name: str
    """Such as `accepted_fix`."""
    usd: Decimal
    """What they took together, exact."""
    results: int

    @property
    def each(self) -> Decimal | None:
        """USD of one, rounded down at 10⁻¹⁵; None when there was none."""
        return share(self.usd, Decimal(1), Decimal(self.results)) if self.results else None


def unit_costs(found: Rollups) -> tuple[UnitCost, ...]:
    """Return the unit costs of a time, in the order of the table above.

    Parameters
    ----------
    found
        Everything counted in that time, as `LedgerReader` returns it.
    """
    issues, code, passed, failed = (
        found.types.get(kind, _NONE)
        for kind in (
            AgentEventType.ISSUE_DETECTED,
            AgentEventType.CODE_GENERATED,
            AgentEventType.TEST_PASSED,
            AgentEventType.TEST_FAILED,
        )
    )
    attempts = passed.events + failed.events
    code_of_failed = share(code.cost, Decimal(failed.events), Decimal(attempts)) if attempts else Decimal(0)
    fixing = EXACT.add(EXACT.add(code.cost, passed.cost), failed.cost)
    return (
        UnitCost("completed_workflow", found.total.total_cost, found.total.workflows_completed),
        UnitCost("issue_found", issues.cost, issues.events),
        UnitCost("accepted_fix", fixing, passed.events),
        UnitCost("failed_attempt", EXACT.add(failed.cost, code_of_failed), failed.events),
    )


def not_in_costs(totals: Totals) -> str:
    """Return what the costs of a time lack, in words; nothing when they lack nothing."""
    lacks = []
    if totals.unpriced_calls:
        lacks.append(f"{totals.unpriced_calls:,} calls of models without a known price")
    if totals.ready_unpriced_s:
        lacks.append(
            f"{totals.ready_unpriced_s:,} seconds of environments that were kept ready, without a known price"
        )
    elif totals.provisioned_runs and not totals.ready_s:
        lacks.append(
            "what it costs to keep environments ready "
            f"(provisioned concurrency, on which {totals.provisioned_runs:,} attempts ran)"
        )
    return f"Not in these figures: {'; '.join(lacks)}." if lacks else ""
