"""One ledger event as one span: pure, and knowing nothing of who receives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.export import conventions as c
from agentops_monitoring.export import records
from agentops_monitoring.export.parts import (
    Attribute,
    Event,
    Parts,
    as_json,
    count,
    duration_ms,
    error_of,
    number,
    text,
)

NS_PER_MS = 1_000_000


class MalformedEvent(ValueError):
    """An event that no span can be made of, now or later."""


@dataclass(frozen=True, slots=True)
class Span:
    """A finished span. The same event always gives the same one, so a redelivery repeats itself."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    """OpenTelemetry's: internal, server, client, producer or consumer."""
    start_ns: int
    end_ns: int
    error: str | None
    """Why it failed; None is success."""
    attributes: Mapping[str, Attribute]
    resource: Mapping[str, str]
    events: Mapping[str, Mapping[str, Attribute]] = field(default_factory=dict)
    """What happened when it ended, by name: attributes."""


def span_of(event: Event) -> Span | None:
    """Map an event to its span.

    Returns
    -------
    Span or None
        None for ``invocation_started``: an invocation's one span is made when it ends, under the same id.

    Raises
    ------
    MalformedEvent
        An id is not hexadecimal, of the wrong length or zero, or the time cannot be read.
    """
    if event.type == AgentEventType.INVOCATION_STARTED:
        return None
    parts = _MAPPERS.get(event.type, _domain)(event)
    end_ns = _time_ns(event.at)
    attributes: dict[str, Attribute | None] = {
        c.AO_KIND: parts.agentops_kind,
        c.AO_OPERATION: parts.label,
        c.AO_AGENT: event.agent,
        c.AO_WORKFLOW: event.workflow_id,
        c.EVENT_ID: event.id,
        c.EVENT_TYPE: event.type,
        c.INVOCATION_ID: event.request_id,
        c.USER_ID: event.user_id,
        c.SESSION_ID: event.session_id,
        c.AO_TAGS: tuple(f"{name}:{as_json(value)}" for name, value in (event.tags or {}).items()) or None,
        **parts.attributes,
    }
    return Span(
        trace_id=_hex_id(event.trace_id, 32, "trace_id"),
        span_id=_hex_id(event.span_id, 16, "span_id"),
        parent_id=_hex_id(event.parent_id, 16, "parent_id") if event.parent_id else None,
        name=_encodable(_name(parts)),
        kind=parts.kind,
        start_ns=max(0, end_ns - parts.duration_ms * NS_PER_MS),
        end_ns=end_ns,
        error=None if parts.error is None else _encodable(parts.error),
        attributes=_told(attributes),
        resource={
            c.SERVICE_NAME: _encodable(event.agent),
            c.SERVICE_NAMESPACE: f"agentops-{event.environment}",
            c.DEPLOYMENT_ENVIRONMENT: event.environment,
            c.AO_ENVIRONMENT: event.environment,
        },
        events={name: _told(told) for name, told in parts.events.items()},
    )


def _told(attributes: Mapping[str, Attribute | None]) -> dict[str, Attribute]:
    return {key: _clean(value) for key, value in attributes.items() if value is not None}


def _clean(value: Attribute) -> Attribute:
    if isinstance(value, tuple):
        return tuple(_encodable(each) for each in value)
    return _encodable(value) if isinstance(value, str) else value


def _name(parts: Parts) -> str:
    """AgentOps' pages tell kinds apart by the end of a span's name; what has no such end and any gen_ai
    attribute is drawn as a model call."""
    return parts.label if parts.agentops_kind == "llm" else f"{parts.label}.{parts.agentops_kind}"


def _invocation(event: Event) -> Parts:
    failed = event.type == AgentEventType.INVOCATION_FAILED
    error = error_of(event.data) if failed else {}
    return Parts(
        label=event.agent,
        # What started it is another agent's message, or something outside all traces.
        kind="consumer" if event.parent_id else "server",
        agentops_kind="agent",
        duration_ms=duration_ms(event.data),
        error=f"{error.get('type', 'Error')}: {error.get('message', '')}" if failed else None,
        attributes={
            c.OPERATION_NAME: c.OPERATION_INVOKE_AGENT,
            c.AGENT_NAME: event.agent,
            c.ERROR_TYPE: error.get("type"),
            c.AO_ERROR_MESSAGE: error.get("message"),
            c.STACKTRACE: error.get("stack"),
        },
    )


def _llm(event: Event) -> Parts:
    data = event.data
    model = str(data.get(c.REQUEST_MODEL) or "unknown")
    fresh = count(data, c.INPUT_TOKENS)
    output = count(data, c.OUTPUT_TOKENS)
    read = count(data, c.CACHE_READ_TOKENS)
    written = count(data, c.CACHE_WRITE_TOKENS) + count(data, "cache_creation_1h.input_tokens")
    cost = event.cost_usd
    return Parts(
        label=f"{c.OPERATION_CHAT} {model}",
        kind="client",
        agentops_kind="llm",
        duration_ms=duration_ms(data),
        attributes={
            c.OPERATION_NAME: c.OPERATION_CHAT,
            c.AGENT_NAME: event.agent,
            c.PROVIDER: text(data.get(c.PROVIDER)),
            c.REQUEST_MODEL: model,
            c.RESPONSE_ID: text(data.get(c.RESPONSE_ID)),
            c.INPUT_TOKENS: fresh + read + written,
            c.OUTPUT_TOKENS: output,
            c.CACHE_READ_TOKENS: read,
            c.CACHE_WRITE_TOKENS: written,
            c.AO_PROMPT_TOKENS: fresh + written,
            c.AO_COMPLETION_TOKENS: output,
            c.AO_CACHE_READ_TOKENS: read,
            c.AO_CACHE_WRITE_TOKENS: written,
            c.AO_TOTAL_TOKENS: fresh + read + written + output,
            # Left out when unpriced: a 0 would be added up as a price, and any text breaks AgentOps' trace
            # page.
            c.AO_TOTAL_COST: None if cost is None else float(cost),
            c.COST_USD: None if cost is None else f"{cost:f}",
            c.COST_STATUS: "unpriced" if cost is None else "priced",
            c.METADATA: as_json(data.get("metadata")),
        },
    )


def _decision(event: Event) -> Parts:
    data = event.data
    return Parts(
        label=f"decision {text(data.get('decision_type')) or 'unknown'}",
        attributes={
            c.AO_REASONING: as_json(data.get("reasoning_chain")),
            c.AO_INPUT: as_json(data.get("inputs")),
            c.AO_OUTPUT: as_json(data.get("outputs")),
            c.DECISION_ID: text(data.get("decision_id")),
            c.DECISION_TYPE: text(data.get("decision_type")),
            c.DECISION_CONFIDENCE: number(data.get("confidence_score")),
            c.DECISION_ALTERNATIVES: as_json(data.get("alternatives")),
        },
    )


def _message(event: Event) -> Parts:
    data = event.data
    sent = event.type == AgentEventType.MESSAGE_SENT
    return Parts(
        label=f"{'send' if sent else 'receive'} {text(data.get('message_type')) or 'message'}",
        kind="producer" if sent else "consumer",
        attributes={
            c.AO_FROM: text(data.get("from")),
            c.AO_TO: text(data.get("to")),
            c.MESSAGE_ID: text(data.get("message_id")),
            c.MESSAGE_OPERATION: "send" if sent else "receive",
            c.MESSAGE_TYPE: text(data.get("message_type")),
            c.MESSAGE_HOP: number(data.get("hop")),
            c.MESSAGE_LATENCY: number(data.get("latency_ms")),
        },
    )


def _workflow(event: Event) -> Parts:
    failed = event.type == AgentEventType.WORKFLOW_FAILED
    reason = text(event.data.get("reason"))
    # No length of its own: AgentOps takes a trace's name from the span that starts first and its state from
    # the one that starts last, so the root must stay the first and this the last.
    return Parts(
        label=event.type,
        agentops_kind="workflow",
        error=(reason or "workflow failed") if failed else None,
        attributes={
            c.AO_END_STATE: "Error" if failed else "Success",
            c.AO_OUTPUT: as_json(event.data),
            c.WORKFLOW_REASON: reason,
            c.WORKFLOW_DURATION: number(event.data.get("duration_ms")),
        },
    )


def _domain(event: Event) -> Parts:
    failed = event.type == AgentEventType.TEST_FAILED
    return Parts(
        label=event.type,
        duration_ms=duration_ms(event.data),
        error="tests failed" if failed else None,
        attributes={c.AO_OUTPUT: as_json(event.data or None)},
    )


_MAPPERS: Final[Mapping[str, Callable[[Event], Parts]]] = {
    AgentEventType.INVOCATION_COMPLETED: _invocation,
    AgentEventType.INVOCATION_FAILED: _invocation,
    AgentEventType.LLM_USAGE: _llm,
    AgentEventType.DECISION_MADE: _decision,
    AgentEventType.MESSAGE_SENT: _message,
    AgentEventType.MESSAGE_RECEIVED: _message,
    AgentEventType.WORKFLOW_COMPLETED: _workflow,
    AgentEventType.WORKFLOW_FAILED: _workflow,
    **records.MAPPERS,
}


def _hex_id(value: object, length: int, what: str) -> str:
    try:
        if isinstance(value, str) and len(value) == length and int(value, 16) > 0:
            return value.lower()
    except ValueError:
        pass
    raise MalformedEvent(f"{what} {value!r} is not {length} hexadecimal digits other than zero")


def _time_ns(at: str) -> int:
    try:
        ms = round(datetime.fromisoformat(at).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError) as error:
        raise MalformedEvent(f"time {at!r} cannot be read: {error}") from None
    if ms <= 0:
        raise MalformedEvent(f"time {at!r} is before 1970")
    return ms * NS_PER_MS


def _encodable(text: str) -> str:
    """A lone surrogate, which JSON can spell, would make a whole request fail, now and at each repetition."""
    return text.encode("utf-8", "replace").decode()
