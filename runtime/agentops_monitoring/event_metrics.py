"""The metrics of events: the part of the catalogue that an agent itself needs, for the heads of its lines."""

from __future__ import annotations

from enum import IntEnum

from agentops_monitoring.event_types import DOMAIN_EVENTS, AgentEventType

DimensionSet = tuple[str, ...]

EVENTS = "AgentOps/Events"

ENVIRONMENT = "Environment"
AGENT_NAME = "AgentName"

BY_ENVIRONMENT: DimensionSet = (ENVIRONMENT,)
BY_AGENT: DimensionSet = (ENVIRONMENT, AGENT_NAME)


class MetricDetail(IntEnum):
    """How many metrics a deployment pays for. Higher levels add dimension sets, never names."""

    MINIMAL = 1
    STANDARD = 2
    FULL = 3


EVENT_SETS: tuple[DimensionSet, ...] = (BY_ENVIRONMENT, BY_AGENT)

_PER_AGENT: frozenset[str] = frozenset({*DOMAIN_EVENTS, AgentEventType.INVOCATION_FAILED})


def detail_of(name: str) -> MetricDetail:
    """Return the level from which an event type's metric also exists by agent."""
    return MetricDetail.STANDARD if name in _PER_AGENT else MetricDetail.FULL


def sets_at(
    sets: tuple[DimensionSet, ...], full_from: MetricDetail, detail: MetricDetail
) -> tuple[DimensionSet, ...]:
    """Return those of a metric's dimension sets that exist at a level of detail.

    Parameters
    ----------
    sets
        All of its sets.
    full_from
        The level from which the sets beyond `[Environment]` exist.
    detail
        The deployment's level.
    """
    return sets if detail >= full_from else tuple(each for each in sets if each == BY_ENVIRONMENT)
