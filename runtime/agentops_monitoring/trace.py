"""Where an event belongs: workflow, trace, parent span; and how that travels between agents."""

from __future__ import annotations

import os
from contextvars import ContextVar, Token

from agentops_monitoring import identity, redaction
from agentops_monitoring.encoding import encode, encode_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_WORKFLOW_ID = 256
"""Characters. The workflow id is part of DynamoDB keys, which end at 2,048 bytes; ids of users and sessions,
which stand in every line as well, end there too."""

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


def normal_id(given: str) -> str:
    """Shorten an id that no key could hold, keeping it distinct."""
    if len(given) <= MAX_WORKFLOW_ID:
        return given
    return f"{given[: MAX_WORKFLOW_ID - 33]}-{identity.digest(given, 16)}"


class TraceContext:
    """Where the events recorded now belong. Read-only; a new span or workflow makes a new one."""

    __slots__ = (
        "calls",
        "hop",
        "left",
        "outer",
        "request_fields",
        "request_id",
        "session_id",
        "span_id",
        "tags",
        "trace_id",
        "user_id",
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
        user_id: str | None = None,
        session_id: str | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> None:
        self.workflow_id = normal_id(workflow_id)
        self.trace_id = trace_id or trace_id_of(workflow_id)
        self.span_id = span_id
        """Parent of the events recorded in this context."""
        self.request_id = request_id
        self.hop = hop
        """How many hand-overs led here."""
        self.workflow_started_ms = workflow_started_ms
        self.calls: list[object] = [] if calls is None else calls
        """Model calls that were seen by themselves, shared by all scopes of the invocation; see `llm`."""
        self.request_fields = f'"request_id":{encode_text(request_id) if request_id else "null"}'
        self.outer: TraceContext | None = None
        """What was current when this one was entered."""
        self.left: bool | None = None
        """Whether it ended where it cannot be undone: in another task, or before what was entered inside.

        None until it is entered."""
        self._belong(user_id, session_id, tags)

    def _belong(self, user_id: str | None, session_id: str | None, tags: Mapping[str, object] | None) -> None:
        self.user_id = user_id and normal_id(user_id)
        self.session_id = session_id and normal_id(session_id)
        self.tags = tags
        """Whom, which conversation and what else the events belong to: fields of each line, no dimensions."""
        fields = f'"workflow_id":{encode_text(self.workflow_id)},"trace_id":"{self.trace_id}"'
        for name, given in (("user_id", self.user_id), ("session_id", self.session_id)):
            if given:
                fields += f',"{name}":{encode_text(redaction.redact_value(given))}'
        if tags:
            fields += f',"tags":{encode(tags)}'
        self.workflow_fields = fields

    def within(self, span_id: str | None) -> TraceContext:
        """Return the same context inside another span."""
        inner = object.__new__(TraceContext)
        for name in TraceContext.__slots__:
            setattr(inner, name, getattr(self, name))
        inner.span_id = span_id
        inner.left = None
        return inner

    def of_workflow(self, workflow_id: str, *, started_ms: int | None = None) -> TraceContext:
        """Return the context of another workflow, at its root, for the same request, user and session."""
        return TraceContext(
            workflow_id,
            request_id=self.request_id,
            workflow_started_ms=started_ms,
            calls=self.calls,
            user_id=self.user_id,
            session_id=self.session_id,
            tags=self.tags,
        )

    def belonging_to(
        self,
        user_id: str | None = None,
        session_id: str | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> TraceContext:
        """Return the same context for a user, a session and all their tags; what is None stays as it was."""
        inner = self.within(self.span_id)
        if user_id or session_id or tags:
            inner._belong(user_id or self.user_id, session_id or self.session_id, tags or self.tags)
        return inner


_current: ContextVar[TraceContext | None] = ContextVar("agentops_context", default=None)
# Threads start with an empty context; while one invocation runs alone, what they record is its own.
_active: dict[object, TraceContext] = {}


def current() -> TraceContext:
    """Return the context of the calling code."""
    context = _current.get()
    while context is not None:
        if not context.left:
            return context
        context = context.outer
    if len(_active) == 1:
        for context in list(_active.values()):
            return context
    return _implicit()


def entered() -> TraceContext | None:
    """Return the context of the scope that the calling code is in, if it is in one of its own."""
    context = _current.get()
    while context is not None and context.left:
        context = context.outer
    return context


def alone() -> bool:
    """Whether the calling code is in no scope of its own, nor does an invocation run."""
    return entered() is None and not _active


def enter(context: TraceContext) -> Token[TraceContext | None]:
    """Make a context current, which no other scope is in; hand the token and it to `leave`."""
    outer = _current.get()
    # The first time only: in what was entered inside it, it would become its own outer one.
    if context.left is None:
        while outer is not None and outer.left:
            outer = outer.outer
        context.outer = outer
    context.left = False
    return _current.set(context)


def leave(token: Token[TraceContext | None], context: TraceContext) -> None:
    """End a scope: what was current before is so again, unless something entered later still is."""
    latest = _current.get()
    try:
        _current.reset(token)
    except (ValueError, RuntimeError):
        # A generator may end in another task than it began in, whose context is not ours to change, and a
        # careless caller ends a scope twice.
        context.left = True
        return
    if latest is not context:
        _current.set(latest)
        context.left = True


def swap(context: TraceContext | None) -> TraceContext | None:
    """Make current what was so before, as a generator does at each step; returns what was current."""
    before = _current.get()
    _current.set(context)
    return before


def activate(key: object, context: TraceContext) -> None:
    """Note that an invocation runs in this process."""
    _active[key] = context


def deactivate(key: object) -> None:
    """Note that an invocation has ended."""
    _active.pop(key, None)


class Isolated:
    """Context manager: inside, nothing that went on before is known; for tests."""

    def __enter__(self) -> None:
        global _last_implicit, _in_lambda
        self._before = dict(_active), _last_implicit, _current.get()
        _active.clear()
        _last_implicit = _in_lambda = None
        _current.set(None)

    def __exit__(self, *_: object) -> None:
        global _last_implicit, _in_lambda
        active, _last_implicit, current = self._before
        _in_lambda = None
        _active.clear()
        _active.update(active)
        _current.set(current)


_last_implicit: tuple[str, TraceContext] | None = None
_in_lambda: bool | None = None


def _implicit() -> TraceContext:
    """Outside any invocation: Lambda's own trace id where there is one, else one workflow a process."""
    global _last_implicit, _in_lambda
    if _in_lambda is None:
        _in_lambda = "AWS_LAMBDA_FUNCTION_NAME" in os.environ
    # Nobody else sets the variable, and asking for one that is not set takes long.
    header = os.environ.get("_X_AMZN_TRACE_ID", "") if _in_lambda else ""
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
