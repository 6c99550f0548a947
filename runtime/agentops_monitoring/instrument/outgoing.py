"""A message on its way out: what all services that carry one have in common."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agentops_monitoring import identity, instrument, propagation, trace
from agentops_monitoring.encoding import encode
from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.transport import say

if TYPE_CHECKING:
    from agentops_monitoring.recorder import Recorder

CONTEXT_KEY = "agentops_messages"
"""Where botocore's request context holds the messages of a call until it is answered."""

TOO_LARGE = "the message is too large to carry its context"

CHANNELS = ("eventbridge", "sqs", "sns", "lambda", "stepfunctions")

_named: dict[str, frozenset[str]] = {}


def propagates(channel: str) -> bool:
    """Whether messages through a channel carry the context and are recorded.

    `AGENTOPS_PROPAGATE` names the channels, parted by commas; all of them when it is not set. `none` leaves
    every call as it is.
    """
    if not instrument.active():
        return False
    given = os.environ.get("AGENTOPS_PROPAGATE", "")
    named = _named.get(given)
    if named is None:
        named = _named[given] = _channels(given)
    return channel in named


def _channels(given: str) -> frozenset[str]:
    named = {each.strip() for each in given.lower().split(",")} - {""}
    unknown = named.difference(CHANNELS, ("none",))
    if unknown:
        known = ", ".join((*CHANNELS, "none"))
        say(f"AGENTOPS_PROPAGATE names {', '.join(sorted(unknown))}, which is none of {known}")
    return frozenset(named or CHANNELS)


class Outgoing:
    """A message that waits for the service to take it."""

    __slots__ = ("_context", "_data", "_monitor", "_sent_ms", "_span_id", "carried", "entry_id", "problems")

    def __init__(
        self,
        monitor: Recorder,
        channel: str,
        *,
        to: object = None,
        message_type: object = None,
        destination: str | None = None,
        message_id: str | None = None,
    ) -> None:
        self._monitor = monitor
        self._context = trace.current()
        self._span_id = identity.new_span_id()
        self._sent_ms = time.time_ns() // 1_000_000
        receiver = to if type(to) is str and to else None
        kind = message_type if type(message_type) is str and message_type else None
        self.problems: list[str] = []
        self.entry_id: str | None = None
        """Its name in a batch of SQS or SNS."""
        self.carried = propagation.carried(
            self._context,
            span_id=self._span_id,
            sender=monitor.agent_name,
            to=receiver,
            message_id=message_id or self._span_id,
            sent_ms=self._sent_ms,
            channel=channel,
            message_type=kind,
        )
        """What the message carries."""
        self._data = {
            "from": monitor.agent_name,
            "to": receiver,
            "message_type": kind,
            "message_id": message_id or self._span_id,
            "hop": self._context.hop + 1,
            "channel": channel,
            "destination": destination,
        }

    def record(self) -> None:
        """Record the message as sent."""
        self._monitor.emit(
            AgentEventType.MESSAGE_SENT,
            self._data,
            context=self._context,
            span_id=self._span_id,
            parent_id=self._context.span_id,
            at_ms=self._sent_ms,
            problems=self.problems,
            checked=True,
        )


def keep(context: dict[str, Any], *messages: Outgoing | None) -> None:
    """Note the messages of a call in botocore's request context."""
    context[CONTEXT_KEY] = messages


def kept(context: dict[str, Any], http_response: Any) -> tuple[Outgoing | None, ...]:
    """Return the messages of a call that was answered; none of one that failed."""
    messages: tuple[Outgoing | None, ...] = context.pop(CONTEXT_KEY, ())
    return messages if http_response.status_code < 300 else ()


def json_object(text: object) -> dict[str, Any] | None:
    """Parse the text of a JSON object; None for anything else."""
    try:
        parsed = json.loads(text) if type(text) is str else None
    except (ValueError, RecursionError):
        return None
    return parsed if type(parsed) is dict else None


def spliced(text: str, parsed: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    """Add fields to the text of a JSON object."""
    missing = {name: value for name, value in fields.items() if name not in parsed or parsed[name] != value}
    if missing.keys().isdisjoint(parsed):
        # The agent's text stays as it wrote it, its numbers to the last digit.
        return text.rstrip()[:-1] + ("," if parsed else "") + encode(missing, redact=False)[1:]
    return json.dumps({**parsed, **missing}, separators=(",", ":"))


def fits(before: int, after: int, limit: int, raised: int) -> bool:
    """Whether a message may grow from one size to another, in bytes.

    What the lower limit would take shall pass wherever the raised one is not in force.
    """
    return after <= (limit if before <= limit else raised)
