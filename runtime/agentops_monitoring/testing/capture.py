"""Keeps the events of a stretch of code in this process, apart from all others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from agentops_monitoring import instrument, invocation, receiving, recorder, redaction, trace, transport
from agentops_monitoring.instrument import messages
from agentops_monitoring.testing.events import Events


@contextmanager
def capture_events(*, strict: bool = True, offline: bool = True) -> Iterator[Events]:
    """Capture what is recorded inside, by any monitor of the process, made before or inside.

    Inside, no workflow, invocation, model call or redaction function of before is known, and afterwards none
    of inside. May be nested: the innermost captures.

    Parameters
    ----------
    strict
        Wrong arguments raise a `ValueError` that names them, whatever the environment says.
    offline
        `send_message` reaches no AWS: the message is taken, and its payload kept. What the agent sends with
        clients of its own is its own.
    """
    events = Events()
    before = transport.replace(_Sink(events))
    strict_before, recorder.strict_everywhere = recorder.strict_everywhere, strict
    cold_before, invocation._cold = invocation._cold, True
    known_before, receiving._known = receiving._known, {}
    instrumented = instrument.active()
    redact = redaction.use(None)
    redaction.use(redact)
    client = messages._events_client
    if offline:
        messages._events_client = _Offline(events).client
    try:
        with trace.Isolated():
            yield events
    finally:
        messages._events_client = client
        redaction.use(redact)
        if not instrumented:
            instrument.uninstall()
        receiving._known = known_before
        invocation._cold = cold_before
        recorder.strict_everywhere = strict_before
        transport.replace(before)


class _Sink:
    """Stands in for stdout."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def write(self, lines: Sequence[str]) -> None:
        """Keep the lines of one event; threads do not come between, since the list grows at once."""
        self._events.lines += lines


class _Offline:
    """A client of EventBridge that takes every message, and calls nobody."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._client: Any = None

    def client(self) -> Any:
        """Return the client; boto3 loads with the first message."""
        if self._client is None:
            import boto3

            from agentops_monitoring.instrument import clients

            session = boto3.session.Session(
                aws_access_key_id="testing",
                aws_secret_access_key="testing",  # noqa: S106 - signs what nobody receives
                region_name="us-east-1",
            )
            self._client = session.client("events")
            self._client.meta.events.register("before-send.events.PutEvents", self._take)
            clients.attach_to_client(self._client)
        return self._client

    def _take(self, request: Any, **_: Any) -> Any:
        # Instead of sending: https://botocore.amazonaws.com/v1/documentation/api/latest/topics/events.html
        from botocore.awsrequest import AWSResponse
        from botocore.compat import HTTPHeaders

        entries = json.loads(request.body)["Entries"]
        for entry in entries:
            detail = json.loads(entry["Detail"])
            carried = detail.pop("agentops")
            detail.pop("environment", None)
            self._events.payloads[carried["message_id"]] = detail
        taken = [{"EventId": f"captured-{number}"} for number in range(len(entries))]
        answer = json.dumps({"FailedEntryCount": 0, "Entries": taken}).encode()
        return AWSResponse(request.url, 200, HTTPHeaders(), _Body(answer))


class _Body:
    """A response's body, as botocore reads it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield self._content
