"""What a span is made of: an event as the ledger keeps it, and what each type of event makes of its data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias

Attribute: TypeAlias = str | int | float | bool | tuple[str, ...]

MAX_INTEGER = 2**63 - 1
"""What OTLP's integers hold."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the ledger, as much of it as a span needs."""

    id: str
    type: str
    agent: str
    environment: str
    at: str
    """RFC 3339, UTC, milliseconds."""
    workflow_id: str
    trace_id: str
    span_id: str
    parent_id: str | None
    request_id: str | None
    data: Mapping[str, Any]
    cost_usd: Decimal | None = None
    """The ledger's price of a model call; None when it has none."""
    user_id: str | None = None
    session_id: str | None = None
    tags: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Parts:
    """What differs from one type of event to another."""

    label: str
    kind: str = "internal"
    agentops_kind: str = "operation"
    duration_ms: int = 0
    error: str | None = None
    attributes: dict[str, Attribute | None] = field(default_factory=dict)
    events: Mapping[str, Mapping[str, Attribute | None]] = field(default_factory=dict)
    """What happened when the span ended, by name: attributes."""


def duration_ms(data: Mapping[str, Any]) -> int:
    """Rounded up, so that a span starts no later than what happened inside it."""
    duration = number(data.get("duration_ms"))
    return max(0, math.ceil(duration)) if duration is not None else 0


def number(value: object) -> int | float | None:
    """A number that OTLP can hold; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Not a number compares false.
    return value if -MAX_INTEGER <= value <= MAX_INTEGER else None


def count(data: Mapping[str, Any], key: str) -> int:
    """A number of tokens; 0 for anything else."""
    found = number(data.get(key))
    return max(0, int(found)) if found is not None else 0


def text(value: object) -> str | None:
    """Any value as a text."""
    return None if value is None else str(value)


def as_json(value: object) -> str | None:
    """Text as it is; anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def error_of(data: Mapping[str, Any]) -> dict[str, str]:
    """The fields of an error: type, message, stack."""
    error = data.get("error")
    if not isinstance(error, Mapping):
        return {} if error is None else {"message": str(error)}
    return {key: str(value) for key, value in error.items() if value is not None}
