"""The three questions that people ask about their agents, answered from the ledger."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from agentops_monitoring.analysis.opportunities import opportunities

if TYPE_CHECKING:
    from agentops_monitoring.ledger.reader import LedgerReader


class AgentOpsAnalyzer:
    """Analyzes collaboration, effectiveness and cost.

    Every answer is made of hourly rollups, so it takes requests by hours and not by events.

    Parameters
    ----------
    reader
        The ledger; the one that the environment variables name when left out.
    clock
        Returns the present time.
    """

    def __init__(
        self, reader: LedgerReader | None = None, *, clock: Callable[[], datetime] | None = None
    ) -> None:
        self._reader = reader
        self._clock = clock or (lambda: datetime.now(UTC))

    @property
    def reader(self) -> LedgerReader:
        """The ledger's reader."""
        if self._reader is None:
            from agentops_monitoring.ledger.reader import LedgerReader

            self._reader = LedgerReader.from_environment()
        return self._reader

    def analyze_collaboration_patterns(self, time_window_hours: int = 24) -> dict[str, Any]:
        """Return who talks to whom.

        Parameters
        ----------
        time_window_hours
            The current hour and as many before it as make this number.

        Returns
        -------
        dict
            `most_active_flow`: such as `"manager->engineer"`, None when nobody talked.
            `total_messages`: messages sent.
            `mean_handoff_ms`, `p95_handoff_ms`: from sending to receiving, None without any.
            `flows`: by messages, each with `flow`, `from`, `to`, `messages`, `received`, `mean_handoff_ms`,
            `p95_handoff_ms`.
            `agents`: messages `sent` and `received` by each agent.

        Raises
        ------
        ValueError
            The window is shorter than an hour.
        """
        found = self.reader.last(time_window_hours, self._clock())
        pairs = sorted(found.flows, key=lambda pair: (-found.flows[pair].messages, pair))
        flows = [
            {
                "flow": f"{sender}->{to}",
                "from": sender,
                "to": to,
                "messages": found.flows[sender, to].messages,
                "received": found.flows[sender, to].messages_received,
                "mean_handoff_ms": found.flows[sender, to].mean_handoff_ms,
                "p95_handoff_ms": found.flows[sender, to].p95_handoff_ms,
            }
            for sender, to in pairs
        ]
        return {
            "time_window_hours": time_window_hours,
            "most_active_flow": flows[0]["flow"] if flows else None,
            "total_messages": found.total.messages_sent,
            "mean_handoff_ms": found.total.mean_handoff_ms,
            "p95_handoff_ms": found.total.p95_handoff_ms,
            "flows": flows,
            "agents": {
                agent: {"sent": each.messages_sent, "received": each.messages_received}
                for agent, each in sorted(found.agents.items())
                if each.messages_sent or each.messages_received
            },
        }

    def analyze_agent_effectiveness(self, agent_name: str, time_window_hours: int = 24) -> dict[str, Any]:
        """Return how well an agent does, and at what price.

        Parameters
        ----------
        agent_name
            The agent. One that the ledger does not know has done nothing.
        time_window_hours
            The current hour and as many before it as make this number.

        Returns
        -------
        dict
            `success_rate`: completed ÷ ended workflows in which the agent took part, NaN when none ended;
            `samples`: how many ended. Money is in USD, as Decimal, under names that end in `_usd`;
            `cost_per_completed_workflow_usd` is None when none was completed. Percentiles are within 2 %, and
            None without any value.

        Raises
        ------
        ValueError
            The window is shorter than an hour.
        """
        from agentops_monitoring.ledger.totals import Totals

        found = self.reader.last(time_window_hours, self._clock()).agents.get(agent_name, Totals())
        completed = found.workflows_completed
        return {
            "agent": agent_name,
            "time_window_hours": time_window_hours,
            "success_rate": found.success_rate,
            "samples": completed + found.workflows_failed,
            "workflows_completed": completed,
            "workflows_failed": found.workflows_failed,
            "events": found.events,
            "events_by_type": found.by_type,
            "mean_confidence": found.mean_confidence,
            "invocations": found.invocations,
            "failed_runs": found.failed_runs,
            "errors": found.errors,
            "mean_handler_ms": found.mean_handler_ms,
            "p50_handler_ms": found.p50_handler_ms,
            "p95_handler_ms": found.p95_handler_ms,
            "p99_handler_ms": found.p99_handler_ms,
            "p95_llm_ms": found.p95_llm_ms,
            "llm_calls": found.llm_calls,
            "unpriced_calls": found.unpriced_calls,
            "llm_cost_usd": found.llm_cost,
            "compute_cost_usd": found.compute_cost,
            "total_cost_usd": found.total_cost,
            "cost_per_completed_workflow_usd": _cents(found.total_cost / completed) if completed else None,
        }

    def analyze_unit_costs(self, time_window_hours: int = 24) -> dict[str, Any]:
        """Return what a completed workflow, an issue found, an accepted fix and a failed attempt have cost.

        `agentops_monitoring.ledger.unit_costs` defines each.

        Parameters
        ----------
        time_window_hours
            The current hour and as many before it as make this number.

        Returns
        -------
        dict
            By result (`completed_workflow`, `issue_found`, …): `count`; `cost_usd`, what they took together,
            exact; `each_usd`, None when there was none. `not_in_costs`: what the figures lack, in words.

        Raises
        ------
        ValueError
            The window is shorter than an hour.
        """
        from agentops_monitoring.ledger.unit_costs import not_in_costs, unit_costs

        found = self.reader.last(time_window_hours, self._clock())
        costs = {
            each.name: {"count": each.results, "cost_usd": each.usd, "each_usd": each.each}
            for each in unit_costs(found)
        }
        lacks = not_in_costs(found.total)
        return {"time_window_hours": time_window_hours, **costs, "not_in_costs": lacks}

    def identify_optimization_opportunities(self, time_window_hours: int = 24) -> list[dict[str, Any]]:
        """Return what could cost less, with the evidence, the dearest first.

        Parameters
        ----------
        time_window_hours
            The current hour and as many before it as make this number.

        Returns
        -------
        list of dict
            `type`, `recommendation`, `evidence`, and `estimated_savings_usd` for the window: a Decimal where
            the ledger's own figures give it, None where anything would have to be guessed.

        Raises
        ------
        ValueError
            The window is shorter than an hour.
        """
        return opportunities(self.reader.last(time_window_hours, self._clock()), self._clock())


def _cents(amount: Decimal) -> Decimal:
    """Round a quotient to a millionth of a dollar: what divides seldom ends."""
    return amount.quantize(Decimal("0.000001"))
