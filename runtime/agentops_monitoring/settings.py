"""What the environment variables of a process say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from agentops_monitoring.catalogue import MetricDetail
from agentops_monitoring.event_types import BUILT_IN, CUSTOM_EVENT, is_valid_name

DEFAULT_ENVIRONMENT = "production"
DEFAULT_AGENT_NAME = "agent"
DEFAULT_DAILY_BUDGET_USD = "10"


class Settings(NamedTuple):
    """The settings of one process; every field has a default."""

    environment: str
    agent_name: str
    handler: str | None
    """The handler that the wrapper calls."""
    transport: str
    """"stdout" or "direct"."""
    event_types: frozenset[str]
    """Event types declared beyond the built-in ones."""
    strict: bool
    detail: MetricDetail
    log_level: str
    log_stream: str
    """Empty outside Lambda."""
    in_lambda: bool
    event_bus: str
    monitoring_table: str
    decisions_table: str
    ledger_table: str
    cost_alert_threshold: str
    """USD per UTC day, as written."""


def load(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; a value that makes no sense takes its default, since an agent must start regardless.

    Parameters
    ----------
    env
        The environment variables; those of the process when left out.
    """
    env = os.environ if env is None else env
    in_lambda = bool(env.get("AWS_LAMBDA_FUNCTION_NAME"))
    return Settings(
        environment=env.get("ENVIRONMENT") or DEFAULT_ENVIRONMENT,
        agent_name=env.get("AGENTOPS_AGENT_NAME")
        or env.get("AWS_LAMBDA_FUNCTION_NAME")
        or DEFAULT_AGENT_NAME,
        handler=env.get("AGENTOPS_HANDLER") or None,
        transport=_transport(env, in_lambda),
        event_types=_event_types(env.get("AGENTOPS_EVENT_TYPES", "")),
        strict=env.get("AGENTOPS_STRICT") == "1",
        detail=_detail(env.get("AGENTOPS_METRIC_DETAIL", "")),
        log_level=_level(env.get("AWS_LAMBDA_LOG_LEVEL", "")),
        log_stream=env.get("AWS_LAMBDA_LOG_STREAM_NAME", ""),
        in_lambda=in_lambda,
        event_bus=env.get("EVENT_BUS_NAME") or "default",
        monitoring_table=env.get("MONITORING_TABLE_NAME") or "agent-monitoring",
        decisions_table=env.get("DECISIONS_TABLE_NAME") or "agent-decisions",
        ledger_table=env.get("LEDGER_TABLE_NAME") or "agent-ledger",
        cost_alert_threshold=env.get("COST_ALERT_THRESHOLD") or DEFAULT_DAILY_BUDGET_USD,
    )


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
