"""What the environment variables of a process say."""

from __future__ import annotations

import os

from agentops_monitoring.event_metrics import MetricDetail
from agentops_monitoring.event_types import BUILT_IN, CUSTOM_EVENT, is_valid_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_ENVIRONMENT = "production"
DEFAULT_AGENT_NAME = "agent"
DEFAULT_DAILY_BUDGET_USD = "10"


class Settings:
    """The settings of one process; every field has a default.

    A value that makes no sense takes its default, since an agent must start regardless.

    Parameters
    ----------
    env
        The environment variables.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self.in_lambda = bool(env.get("AWS_LAMBDA_FUNCTION_NAME"))
        self.environment = env.get("ENVIRONMENT") or DEFAULT_ENVIRONMENT
        self.agent_name = (
            env.get("AGENTOPS_AGENT_NAME") or env.get("AWS_LAMBDA_FUNCTION_NAME") or DEFAULT_AGENT_NAME
        )
        self.handler = env.get("AGENTOPS_HANDLER") or None
        """The handler that the wrapper calls."""
        self.transport = _transport(env, self.in_lambda)
        """"stdout" or "direct"."""
        self.event_types = _event_types(env.get("AGENTOPS_EVENT_TYPES", ""))
        """Event types declared beyond the built-in ones."""
        self.strict = env.get("AGENTOPS_STRICT") == "1"
        self.detail = _detail(env.get("AGENTOPS_METRIC_DETAIL", ""))
        self.log_level = _level(env.get("AWS_LAMBDA_LOG_LEVEL", ""))
        self.log_stream = env.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
        """Empty outside Lambda."""
        self.event_bus = env.get("EVENT_BUS_NAME") or "default"
        self.monitoring_table = env.get("MONITORING_TABLE_NAME") or "agent-monitoring"
        self.decisions_table = env.get("DECISIONS_TABLE_NAME") or "agent-decisions"
        self.ledger_table = env.get("LEDGER_TABLE_NAME") or "agent-ledger"
        self.cost_alert_threshold = env.get("COST_ALERT_THRESHOLD") or DEFAULT_DAILY_BUDGET_USD
        """USD per UTC day, as written."""


def load(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment variables of the process, or from those given."""
    return Settings(os.environ if env is None else env)


def _transport(env: Mapping[str, str], in_lambda: bool) -> str:
    named = env.get("AGENTOPS_TRANSPORT", "").strip().lower()
    if named in ("stdout", "direct"):
        return named
    # A Lambda function that names no table has nothing to write to but its log.
    if in_lambda and not env.get("MONITORING_TABLE_NAME"):
        return "stdout"
    return "direct"


def _event_types(declared: str) -> frozenset[str]:
    names = (name.strip() for name in declared.split(","))
    return frozenset(
        name
        for name in names
        if name and name not in BUILT_IN and name != CUSTOM_EVENT and is_valid_name(name)
    )


def _detail(name: str) -> MetricDetail:
    try:
        return MetricDetail[name.strip().upper()]
    except KeyError:
        return MetricDetail.STANDARD


def _level(level: str) -> str:
    level = level.strip().upper()
    # Lambda's names, and those of Python's logging for the same levels.
    level = {"WARNING": "WARN", "CRITICAL": "FATAL"}.get(level, level)
    return level if level in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL") else "INFO"
