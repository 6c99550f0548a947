"""How the context travels between agents: what a message carries, and how its receiver reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from agentops_monitoring.trace import TraceContext, is_hex, is_id


class Incoming(NamedTuple):
    """The context that came with a message."""

    workflow_id: str
    trace_id: str
    span_id: str
    """The sender's message span."""
    sender: str | None
    to: str | None
    hop: int
    sent_ms: int
    message_id: str
    message_type: str
    workflow_started_ms: int


def carried(
    context: TraceContext, *, span_id: str, sender: str, to: str | None, message_id: str, sent_ms: int
) -> dict[str, Any]:
    """Return what a message carries in `detail["agentops"]`."""
    fields: dict[str, Any] = {
        "traceparent": f"00-{context.trace_id}-{span_id}-01",
        "workflow_id": context.workflow_id,
        "from": sender,
        "hop": context.hop + 1,
        "sent_ms": sent_ms,
        "message_id": message_id,
        "workflow_started_ms": context.workflow_started_ms or sent_ms,
    }
    if to is not None:
        fields["to"] = to
    return fields


def incoming(event: object) -> Incoming | None:
    """Read the context out of an EventBridge event; None where there is none, or none that makes sense."""
    if type(event) is not dict:
        return None
    detail = event.get("detail")
    carried = detail.get("agentops") if isinstance(detail, Mapping) else None
    if not isinstance(carried, Mapping):
        return None
    parent = str(carried.get("traceparent", "")).split("-")
    # Later versions may append fields; ff is forbidden: https://www.w3.org/TR/trace-context/#version.
    if len(parent) < 4 or not is_hex(parent[0], 2) or parent[0] == "ff":
        return None
    trace_id, span_id = parent[1], parent[2]
    if not is_id(trace_id, 32) or not is_id(span_id, 16):
        return None
    sent_ms = _count(carried.get("sent_ms"))
    return Incoming(
        workflow_id=_name(carried.get("workflow_id")) or trace_id,
        trace_id=trace_id,
        span_id=span_id,
        sender=_name(carried.get("from")),
        to=_name(carried.get("to")),
        hop=_count(carried.get("hop")),
        sent_ms=sent_ms,
        message_id=_name(carried.get("message_id")) or span_id,
        message_type=_name(event.get("detail-type")) or "",
        workflow_started_ms=_count(carried.get("workflow_started_ms")) or sent_ms,
    )


def _name(value: object) -> str | None:
    return value if type(value) is str and value else None


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
