"""Where an event belongs: workflow, trace, parent span; and how that travels between agents."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

from agentops_monitoring import identity
from agentops_monitoring.encoding import encode_text

MAX_WORKFLOW_ID = 256
"""The workflow id is part of DynamoDB keys, which end at 2,048 bytes."""

_HEX = frozenset("0123456789abcdef")


def _is_hex(text: object, length: int) -> bool:
    return type(text) is str and len(text) == length and _HEX.issuperset(text)


def _is_id(text: object, length: int) -> bool:
    return _is_hex(text, length) and text != "0" * length


def trace_id_of(workflow_id: str) -> str:
    """Return the workflow id itself where it can be a trace id, else a hash of it."""
    return workflow_id if _is_id(workflow_id, 32) else identity.digest(workflow_id, 16)


def normal_workflow_id(workflow_id: str) -> str:
    """Shorten a workflow id that no key could hold, keeping it distinct."""
    if len(workflow_id) <= MAX_WORKFLOW_ID:
        return workflow_id
    return f"{workflow_id[: MAX_WORKFLOW_ID - 33]}-{identity.digest(workflow_id, 16)}"


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


class TraceContext:
    """Where the events recorded now belong. Read-only; a new span or workflow makes a new one."""

    __slots__ = (
        "calls",
        "hop",
        "request_fields",
        "request_id",
        "span_id",
        "trace_id",
        "workflow_fields",
        "workflow_id",
        "workflow_started_ms",
    )

    def __init__(
        self,
        workflow_id: str,
        *,
        trace_id: str | None = None,
        span_id: str | None = None,
        request_id: str | None = None,
        hop: int = 0,
        workflow_started_ms: int | None = None,
        calls: list[object] | None = None,
    ) -> None:
        self.workflow_id = normal_workflow_id(workflow_id)
        self.trace_id = trace_id or trace_id_of(workflow_id)
        self.span_id = span_id
        """Parent of the events recorded in this context."""
        self.request_id = request_id
        self.hop = hop
        """How many hand-overs led here."""
        self.workflow_started_ms = workflow_started_ms
        self.calls: list[object] = [] if calls is None else calls
        """Model calls that were seen by themselves, shared by all scopes of the invocation; see `llm`."""
        self.workflow_fields = f'"workflow_id":{encode_text(self.workflow_id)},"trace_id":"{self.trace_id}"'
        self.request_fields = f'"request_id":{encode_text(request_id) if request_id else "null"}'

    def within(self, span_id: str) -> TraceContext:
        """Return the same context inside another span."""
        inner = object.__new__(TraceContext)
        for name in TraceContext.__slots__:
            setattr(inner, name, getattr(self, name))
        inner.span_id = span_id
        return inner

    def carried(
        self, *, span_id: str, sender: str, to: str | None, message_id: str, sent_ms: int
    ) -> dict[str, Any]:
        """Return what a message carries in `detail["agentops"]`."""
        carried: dict[str, Any] = {
            "traceparent": f"00-{self.trace_id}-{span_id}-01",
            "workflow_id": self.workflow_id,
            "from": sender,
            "hop": self.hop + 1,
            "sent_ms": sent_ms,
            "message_id": message_id,
            "workflow_started_ms": self.workflow_started_ms or sent_ms,
        }
        if to is not None:
            carried["to"] = to
        return carried


_current: ContextVar[TraceContext | None] = ContextVar("agentops_context", default=None)
# Threads start with an empty context; while one invocation runs alone, what they record is its own.
_active: dict[object, TraceContext] = {}


def current() -> TraceContext:
    """Return the context of the calling code."""
    context = _current.get()
    if context is not None:
        return context
    if len(_active) == 1:
        for context in list(_active.values()):
            return context
    return _implicit()


def enter(context: TraceContext) -> Token[TraceContext | None]:
    """Make a context current; hand the token to `leave`."""
    return _current.set(context)


def leave(token: Token[TraceContext | None]) -> None:
    """Restore the context before `enter`."""
    # A generator may be left in another task than entered; that task's context is not ours to change.
    with suppress(ValueError):
        _current.reset(token)


def activate(key: object, context: TraceContext) -> None:
    """Note that an invocation runs in this process."""
    _active[key] = context


def deactivate(key: object) -> None:
    """Note that an invocation has ended."""
    _active.pop(key, None)


_last_implicit: tuple[str, TraceContext] | None = None


def _implicit() -> TraceContext:
    """Outside any invocation: Lambda's own trace id where there is one, else one workflow a process."""
    global _last_implicit
    header = os.environ.get("_X_AMZN_TRACE_ID", "")
    workflow_id = _root_of(header) or identity.process_workflow_id()
    last = _last_implicit
    if last is not None and last[0] == workflow_id:
        return last[1]
    context = TraceContext(workflow_id)
    _last_implicit = (workflow_id, context)
    return context


def _root_of(header: str) -> str | None:
    """Return the trace id of an X-Ray header such as `Root=1-5759e988-bd862e3fe1be46a994272793;…`."""
    for field in header.split(";"):
        name, _, value = field.strip().partition("=")
        if name == "Root":
            parts = value.split("-")
            if len(parts) == 3 and _is_id(parts[1] + parts[2], 32):
                return parts[1] + parts[2]
    return None


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
    if len(parent) < 4 or not _is_hex(parent[0], 2) or parent[0] == "ff":
        return None
    trace_id, span_id = parent[1], parent[2]
    if not _is_id(trace_id, 32) or not _is_id(span_id, 16):
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
