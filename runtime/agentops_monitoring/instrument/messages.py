"""Messages between agents over EventBridge: they carry the trace, and are recorded once they are sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from agentops_monitoring import identity, instrument, settings
from agentops_monitoring.encoding import encode
from agentops_monitoring.forks import at_fork
from agentops_monitoring.instrument.outgoing import (
    TOO_LARGE,
    Outgoing,
    fits,
    json_object,
    keep,
    kept,
    propagates,
    spliced,
)

if TYPE_CHECKING:
    from agentops_monitoring.monitor import AgentOpsMonitor

SOURCE = "agentops.agents"
MAX_REQUEST_BYTES = 262_144
"""All entries of a request together:
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html#eb-send-events-limits."""
RAISED_REQUEST_BYTES = 1_048_576
"""The same where AWS has raised the limit (announced in January 2026)."""

_CONTEXT_BYTES = 12_288
"""More than a context takes, its names at their longest and each character of them escaped."""


class MessageNotSentError(RuntimeError):
    """EventBridge did not take a message."""


class _Addressed(NamedTuple):
    """What `send_message` knows of the message it is about to put."""

    monitor: AgentOpsMonitor
    to: str
    message_id: str


_addressed: ContextVar[_Addressed | None] = ContextVar("agentops_addressed", default=None)


def before_put(params: Any, context: Any, **_: Any) -> None:
    """Put the trace context into entries for the agents' bus, leaving the agent's own objects as they are."""
    addressed = _addressed.get()
    if addressed is None and not propagates("eventbridge"):
        return
    try:
        monitor = instrument.monitor() if addressed is None else addressed.monitor
        entries, messages = _with_context(params["Entries"], monitor, addressed)
    except Exception:  # noqa: BLE001 - botocore will say what is wrong with the entries
        return
    params["Entries"] = entries
    keep(context, *messages)


def after_put(http_response: Any, parsed: Any, context: Any, **_: Any) -> None:
    """Record the messages that EventBridge took; each entry succeeds or fails alone."""
    for message, result in zip(kept(context, http_response), parsed.get("Entries", ()), strict=False):
        if message is not None and not result.get("ErrorCode"):
            message.record()


def _with_context(
    entries: Sequence[Mapping[str, Any]], monitor: AgentOpsMonitor, addressed: _Addressed | None
) -> tuple[list[Mapping[str, Any]], list[Outgoing | None]]:
    configured = settings.load()
    bus = _bus_name(configured.event_bus)
    size = before = sum(_entry_bytes(entry) for entry in entries)
    # No rule matches a message of `send_message` without its context.
    limit = RAISED_REQUEST_BYTES if addressed else MAX_REQUEST_BYTES
    changed: list[Mapping[str, Any]] = []
    messages: list[Outgoing | None] = []
    for entry in entries:
        message = None
        if _bus_name(entry.get("EventBusName") or "default") == bus:
            detail, message = _carry(entry, monitor, addressed, configured.environment)
            if message is not None:
                grown = size + len(detail.encode()) - len(entry["Detail"].encode())
                if fits(before, grown, limit, RAISED_REQUEST_BYTES):
                    size = grown
                    entry = {**entry, "Detail": detail}
                else:
                    # A message without its context is better than none.
                    message.problems.append(TOO_LARGE)
        changed.append(entry)
        messages.append(message)
    return changed, messages


def _carry(
    entry: Mapping[str, Any], monitor: AgentOpsMonitor, addressed: _Addressed | None, environment: str
) -> tuple[str, Outgoing | None]:
    text = entry.get("Detail")
    detail = json_object(text)
    if type(text) is not str or detail is None:
        return "", None
    message = Outgoing(
        monitor,
        "eventbridge",
        to=addressed.to if addressed else detail.get("to"),
        message_type=entry.get("DetailType"),
        destination=_bus_name(entry.get("EventBusName") or "default"),
        message_id=addressed.message_id if addressed else None,
    )
    own = detail.get("environment", environment)
    if own != environment:
        became = "was replaced" if addressed else "stays"
        message.problems.append(f"the payload's own field environment {became}, rules route by it")
    fields = {"environment": environment if addressed else own, "agentops": message.carried}
    return spliced(text, detail, fields), message


def _bus_name(name: str) -> str:
    return name.rpartition("event-bus/")[2]


def _entry_bytes(entry: Mapping[str, Any]) -> int:
    texts = [entry.get(name) or "" for name in ("Source", "DetailType", "Detail")]
    texts += entry.get("Resources") or []
    return sum(len(text.encode()) for text in texts) + (14 if entry.get("Time") else 0)


_client: Any = None
_client_lock = threading.Lock()


def forget_client() -> None:
    """Make the next message create a client anew: a fork must not share its connections."""
    global _client, _client_lock
    _client_lock = threading.Lock()
    _client = None


at_fork(after_in_child=forget_client)


def _events_client() -> Any:
    global _client
    with _client_lock:
        if _client is None:
            import boto3

            from agentops_monitoring.instrument import clients

            # A session of our own: the default one is not safe to create from several threads.
            _client = boto3.session.Session().client("events")
            clients.attach_to_client(_client)
        return _client


@contextmanager
def _addressing(addressed: _Addressed) -> Iterator[None]:
    token = _addressed.set(addressed)
    try:
        yield
    finally:
        _addressed.reset(token)


def send(monitor: AgentOpsMonitor, *, to: str, message_type: str, payload: object) -> str:
    """Put one message on the agents' bus; see `AgentOpsMonitor.send_message`."""
    for name, value in (("to", to), ("message_type", message_type)):
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name} has to be a name, not {value!r}")
    detail = encode(payload if isinstance(payload, Mapping) else {"payload": payload}, redact=False)
    # Without its context no rule would match it.
    if len(detail) + len(message_type.encode()) > RAISED_REQUEST_BYTES - _CONTEXT_BYTES:
        raise MessageNotSentError(f"{message_type} to {to}: {len(detail)} bytes are too many for EventBridge")
    message_id = identity.new_span_id()
    entry = {
        "EventBusName": settings.load().event_bus,
        "Source": SOURCE,
        "DetailType": message_type,
        "Detail": detail,
    }
    with _addressing(_Addressed(monitor, to, message_id)):
        answer = _events_client().put_events(Entries=[entry])
    (result,) = answer["Entries"]
    if result.get("ErrorCode"):
        raise MessageNotSentError(
            f"{message_type} to {to}: {result['ErrorCode']}: {result.get('ErrorMessage')}"
        )
    return message_id
