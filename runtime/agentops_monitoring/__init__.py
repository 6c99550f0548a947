"""Monitoring for autonomous agents: one JSON line per event is metric, record and ledger entry at once."""

from __future__ import annotations

# Not from typing, whose import takes longer than that of the whole monitor; checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentops_monitoring.analysis.analyzer import AgentOpsAnalyzer
    from agentops_monitoring.budget import BudgetExceeded
    from agentops_monitoring.event_types import AgentEventType
    from agentops_monitoring.monitor import AgentOpsMonitor
    from agentops_monitoring.wrapper import monitored

__all__ = ["AgentEventType", "AgentOpsAnalyzer", "AgentOpsMonitor", "BudgetExceeded", "monitored"]
__version__ = "0.1.0"

_HOMES = {
    "AgentEventType": "agentops_monitoring.event_types",
    "AgentOpsAnalyzer": "agentops_monitoring.analysis.analyzer",
    "AgentOpsMonitor": "agentops_monitoring.monitor",
    "BudgetExceeded": "agentops_monitoring.budget",
    "monitored": "agentops_monitoring.wrapper",
}


def __getattr__(name: str) -> object:
    # An agent imports the monitor alone: the analyzer, and boto3 with it, load for those who name them.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__import__(home, fromlist=[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
