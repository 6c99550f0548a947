"""The fixed names of an environment's resources."""

from __future__ import annotations

import re
from dataclasses import dataclass

PRODUCTION = "production"
ENVIRONMENT_PATTERN = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
AGENT_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
MAX_ENVIRONMENT = 24


def check_environment(environment: str) -> str:
    """Return the name of an environment if resources can be named after it.

    Raises
    ------
    ValueError
        It has other characters than lower-case letters, digits and single hyphens, or is too long.
    """
    if not ENVIRONMENT_PATTERN.fullmatch(environment) or len(environment) > MAX_ENVIRONMENT:
        raise ValueError(
            f"environment {environment!r}: use lower-case letters, digits and single hyphens, "
            f"at most {MAX_ENVIRONMENT}, starting with a letter"
        )
    return environment


def check_agent_name(name: str) -> str:
    """Return the name of an agent if it can stand in metrics, filter names and keys.

    Raises
    ------
    ValueError
        It has other characters than letters, digits, `_` and `-`, or more than 40.
    """
    if not AGENT_PATTERN.fullmatch(name):
        raise ValueError(
            f"agent_name {name!r}: use letters, digits, '_' and '-', at most 40, starting with a letter"
        )
    return name


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one environment: as documented in production, with `-<environment>` behind elsewhere.

    Parameters
    ----------
    environment
        Such as `production`, `staging`, `demo`.
    dashboard_suffix
        Tells the dashboards of two regions apart, since CloudWatch dashboards are global to an account.

    Raises
    ------
    ValueError
        Resources can't be named after this environment.
    """

    environment: str
    dashboard_suffix: str = ""

    def __post_init__(self) -> None:
        check_environment(self.environment)

    @property
    def is_production(self) -> bool:
        """Whether this is the environment whose data outlives its stacks."""
        return self.environment == PRODUCTION

    def of(self, base: str) -> str:
        """Return the name of a resource in this environment."""
        return base if self.is_production else f"{base}-{self.environment}"

    @property
    def monitoring_table(self) -> str:
        """The table of raw events."""
        return self.of("agent-monitoring")

    @property
    def decisions_table(self) -> str:
        """The table of decisions with their reasoning chains."""
        return self.of("agent-decisions")

    @property
    def ledger_table(self) -> str:
        """The table of rollups, budgets and alert marks."""
        return self.of("agent-ledger")

    @property
    def topic(self) -> str:
        """The topic that every alarm goes to."""
        return self.of("agentops-cost-alerts")

    @property
    def event_bus(self) -> str:
        """The bus between the agents."""
        return f"agentops-{self.environment}"

    @property
    def dead_letter_queue(self) -> str:
        """The queue of what ingest could not read or write."""
        return self.of("agentops-dead-letters")

    def function(self, name: str) -> str:
        """Return the name of one of our functions, such as `agentops-ingest-staging`."""
        return self.of(f"agentops-{name}")

    def dashboard(self, kind: str) -> str:
        """Return the name of a dashboard; `kind` is "", "Cost" or "Collaboration"."""
        base = self.of("-".join(filter(None, ("AgentOps-Monitoring", kind))))
        return "-".join(filter(None, (base, self.dashboard_suffix)))

    def alarm(self, name: str) -> str:
        """Return the name of an alarm, such as `AgentOps-production-HighCost`."""
        return f"AgentOps-{self.environment}-{name}"

    def parameter(self, name: str) -> str:
        """Return the name of the SSM parameter through which other stacks find a part of the plane."""
        return f"/agentops/{self.environment}/{name}"
