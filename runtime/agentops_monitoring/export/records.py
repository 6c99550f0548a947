"""The spans of records: stretches of work, tools, what became of a decision, time that runs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from agentops_monitoring.event_types import DECISION_OUTCOME, LLM_ANNOTATION, SPAN, TIME_RUNNING_OUT
from agentops_monitoring.export import conventions as c
from agentops_monitoring.export.parts import Event, Parts, as_json, duration_ms, error_of, number, text


def _stretch(event: Event) -> Parts:
    """What `monitor.span(name)` leaves: the parent of everything recorded inside."""
    if event.data.get(c.OPERATION_NAME) == c.OPERATION_TOOL:
        return _tool(event)
    error = error_of(event.data)
    if error and c.REQUEST_MODEL in event.data:
        return _failed_call(event)
    return Parts(
        label=text(event.data.get("name")) or event.type,
        agentops_kind="task",
        duration_ms=duration_ms(event.data),
        error=error.get("type", "Error") if error else None,
        attributes={c.ERROR_TYPE: error.get("type"), c.AO_OUTPUT: as_json(event.data)},
    )


def _failed_call(event: Event) -> Parts:
    """A model call without an answer, so without tokens and cost."""
    data, error = event.data, error_of(event.data)
    model = text(data.get(c.REQUEST_MODEL)) or "unknown"
    said = ": ".join(filter(None, (error.get("type", "Error"), error.get("status_code"))))
    return Parts(
        label=f"{text(data.get(c.OPERATION_NAME)) or c.OPERATION_CHAT} {model}",
        kind="client",
        agentops_kind="llm",
        duration_ms=duration_ms(data),
        error=said,
        attributes={
            c.OPERATION_NAME: text(data.get(c.OPERATION_NAME)),
            c.AGENT_NAME: event.agent,
            c.PROVIDER: text(data.get(c.PROVIDER)),
            c.REQUEST_MODEL: model,
            c.ERROR_TYPE: error.get("type", "Error"),
            c.AO_ERROR_MESSAGE: said,
        },
    )


def _tool(event: Event) -> Parts:
    data, error = event.data, error_of(event.data)
    name = text(data.get(c.TOOL_NAME)) or "unknown"
    arguments, result = as_json(data.get(c.TOOL_ARGUMENTS)), as_json(data.get(c.TOOL_RESULT))
    return Parts(
        label=f"{c.OPERATION_TOOL} {name}",
        agentops_kind="tool",
        duration_ms=duration_ms(data),
        error=": ".join(filter(None, (error.get("type", "Error"), error.get("message")))) if error else None,
        attributes={
            c.OPERATION_NAME: c.OPERATION_TOOL,
            c.AGENT_NAME: event.agent,
            c.TOOL_NAME: name,
            c.TOOL_ARGUMENTS: arguments,
            c.TOOL_RESULT: result,
            c.ERROR_TYPE: error.get("type", "Error") if error else None,
            c.AO_ERROR_MESSAGE: error.get("message"),
            c.AO_TOOL_NAME: name,
            c.AO_TOOL_PARAMETERS: arguments,
            c.AO_TOOL_RESULT: result,
            c.AO_TOOL_STATUS: "failed" if error else "succeeded",
        },
    )


def _outcome(event: Event) -> Parts:
    data = event.data
    kind = text(data.get("decision_type"))
    correct = data.get("correct") if isinstance(data.get("correct"), bool) else None
    label = {True: "correct", False: "incorrect", None: None}[correct]
    decision, score = text(data.get("decision_id")), number(data.get("score"))
    evidence = as_json(data.get("evidence"))
    return Parts(
        label=" ".join(filter(None, ("outcome", kind))),
        attributes={
            c.DECISION_ID: decision,
            c.DECISION_TYPE: kind,
            c.DECISION_CORRECT: correct,
            c.DECISION_SCORE: score,
            c.AO_OUTPUT: evidence,
        },
        events={
            c.EVALUATION: {
                c.EVALUATION_NAME: kind or "decision",
                c.EVALUATION_SCORE: score,
                c.EVALUATION_LABEL: label,
                c.EVALUATION_EXPLANATION: evidence,
                c.DECISION_ID: decision,
            }
        },
    )


def _time_running_out(event: Event) -> Parts:
    data = event.data
    told = {
        c.TIME_REMAINING: number(data.get("remaining_ms")),
        c.TIME_SPENT: number(data.get("duration_ms")),
        c.TIME_LIMIT: number(data.get("limit_ms")),
    }
    # No length: what went before is its parent's.
    return Parts(label="time running out", attributes=dict(told), events={event.type: told})


def _annotation(event: Event) -> Parts:
    """What else is known of a model call: no tokens and no cost, for those are the call's own."""
    return Parts(
        label="annotation",
        attributes={
            c.ANNOTATES: text(event.data.get("annotates")),
            c.METADATA: as_json(event.data.get("metadata")),
            c.AO_OUTPUT: as_json(event.data),
        },
    )


MAPPERS: Final[Mapping[str, Callable[[Event], Parts]]] = {
    SPAN: _stretch,
    DECISION_OUTCOME: _outcome,
    TIME_RUNNING_OUT: _time_running_out,
    LLM_ANNOTATION: _annotation,
}
