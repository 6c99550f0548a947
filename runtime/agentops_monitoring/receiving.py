"""A message that has arrived: its receipt, and the work on it."""

from __future__ import annotations

import time
from contextlib import suppress

from agentops_monitoring import trace
from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.propagation import Incoming, message_of, received
from agentops_monitoring.scopes import Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from agentops_monitoring.monitor import AgentOpsMonitor

# So that a process knows again what it has received: (agent, message id), oldest first.
_known: dict[tuple[str, str], None] = {}
_MAX_KNOWN = 1_024


def receipt(message: Incoming, agent: str, now_ms: int) -> dict[str, Any]:
    """Return the fields of a receipt.

    `redelivered` stands in it where the service says that it delivers again, or the process knows the
    message. It is a hint: another process cannot know, and the first delivery may never have arrived.
    """
    fields: dict[str, Any] = {
        "from": message.sender,
        "to": agent,
        "message_type": message.message_type,
        "message_id": message.message_id,
        "hop": message.hop,
        # Clocks differ a little between hosts; no message arrives before it was sent.
        "latency_ms": max(0, now_ms - message.sent_ms) if message.sent_ms else None,
        "channel": message.channel,
        "addressed_to": message.to,
    }
    if _is_known(agent, message) or message.redelivered:
        fields["redelivered"] = True
    return fields


def _is_known(agent: str, message: Incoming) -> bool:
    # The states of one execution all receive the message that started it.
    if message.channel == "stepfunctions":
        return False
    key = (agent, message.message_id)
    if key in _known:
        return True
    _known[key] = None
    if len(_known) > _MAX_KNOWN:
        with suppress(KeyError, RuntimeError, StopIteration):  # another thread was quicker
            del _known[next(iter(_known))]
    return False


class Handling(Span):
    """The work on one message of several; see `AgentOpsMonitor.message`."""

    __slots__ = ("_message",)

    def __init__(self, monitor: AgentOpsMonitor, record: object) -> None:
        # An event that is one message, as that of EventBridge, will do as well.
        messages = [message_of(record)]
        if messages == [None]:
            messages = received(record)
        self._message = messages[0] if len(messages) == 1 else None
        fields: dict[str, Any] = {}
        if self._message is not None:
            fields = {
                "message_id": self._message.message_id,
                "message_type": self._message.message_type,
                "from": self._message.sender,
                "channel": self._message.channel,
            }
        super().__init__(monitor, "process", fields)

    def __enter__(self) -> Self:
        message, outer = self._message, trace.current()
        if message is None:
            return super().__enter__()
        context = message.context(span_id=message.span_id, request_id=outer.request_id, calls=outer.calls)
        from agentops_monitoring.invocation import of_context  # which needs this module itself

        invocation = of_context(outer)
        # Of the messages that came with an invocation's event its wrapper has told.
        if invocation is None or message.message_id not in invocation.received:
            now = time.time_ns() // 1_000_000
            fields = receipt(message, self._monitor.agent_name, now)
            self._monitor.emit(AgentEventType.MESSAGE_RECEIVED, fields, context=context, at_ms=now)
        self._begin(outer if message.trace_id == outer.trace_id else context)
        return self
