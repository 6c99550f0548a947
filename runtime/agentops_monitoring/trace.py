"""Where an event belongs: workflow, trace, parent span; and how that travels between agents."""

from __future__ import annotations

import os
from contextlib import suppress
from contextvars import ContextVar, Token

from agentops_monitoring import identity
from agentops_monitoring.encoding import encode_text

MAX_WORKFLOW_ID = 256
"""The workflow id is part of DynamoDB keys, which end at 2,048 bytes."""

_HEX = frozenset("0123456789abcdef")


def is_hex(text: object, length: int) -> bool:
    """Whether a value is a text of so many lowercase hexadecimal digits."""
    return type(text) is str and len(text) == length and _HEX.issuperset(text)


def is_id(text: object, length: int) -> bool:
    """Whether a value is a valid W3C id of so many digits: all zeros is none."""
    return is_hex(text, length) and text != "0" * length


def trace_id_of(workflow_id: str) -> str:
    """Return the workflow id itself where it can be a trace id, else a hash of it."""
    return workflow_id if is_id(workflow_id, 32) else identity.digest(workflow_id, 16)


def normal_workflow_id(workflow_id: str) -> str:
    """Shorten a workflow id that no key could hold, keeping it distinct."""
    if len(workflow_id) <= MAX_WORKFLOW_ID:
        return workflow_id
    return f"{workflow_id[: MAX_WORKFLOW_ID - 33]}-{identity.digest(workflow_id, 16)}"


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
            if len(parts) == 3 and is_id(parts[1] + parts[2], 32):
                return parts[1] + parts[2]
    return None
