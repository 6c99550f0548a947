"""Delivery to AgentOps through its SDK (0.4.21).

Only the two parts of the SDK that do the work are used: its client for the token and its authenticated
exporter. ``agentops.init()`` is never called, for in a Lambda function it does harm: it replaces
``builtins.print`` and uploads what the process prints, writes ``agentops.log`` where nothing can be
written, exports from a background thread whose failures nobody sees, and may send the first spans before
their token is there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from agentops_monitoring.export import conventions as c
from agentops_monitoring.export.backend import DeliveryError, bounded
from agentops_monitoring.export.spans import Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

DEFAULT_API_ENDPOINT = "https://api.agentops.ai"
DEFAULT_EXPORTER_ENDPOINT = "https://otlp.agentops.ai/v1/traces"
REQUEST_TIMEOUT_S = 5.0
"""Of one HTTP request, retries of the exporter included."""

SCOPE = "agentops_monitoring"

_QUIET = {
    "AGENTOPS_LOGGING_TO_FILE": "false",
    "AGENTOPS_AUTO_START_SESSION": "false",
    "AGENTOPS_AUTO_INIT": "false",
    "AGENTOPS_INSTRUMENT_LLM_CALLS": "false",
}


class Token(NamedTuple):
    """What AgentOps answers to an API key."""

    jwt: str
    project_id: str


class AgentOpsBackend:
    """Sends spans to AgentOps and knows whether they arrived.

    Parameters
    ----------
    api_key
        Called when a token is needed: at the first delivery, and again when AgentOps refuses the token.
    api_endpoint
        Base URL of the API, for the token.
    exporter_endpoint
        Whole URL that takes traces.
    """

    def __init__(
        self,
        api_key: Callable[[], str],
        *,
        api_endpoint: str = DEFAULT_API_ENDPOINT,
        exporter_endpoint: str = DEFAULT_EXPORTER_ENDPOINT,
    ) -> None:
        self._api_key = api_key
        self._api_endpoint = api_endpoint.rstrip("/")
        self._exporter_endpoint = exporter_endpoint
        self._token: Token | None = None
        self._exporter: Any = None
        self._reasons = _Reasons()

    def deliver(self, spans: Sequence[Span], timeout_s: float) -> None:
        """Send spans in one request; see `Backend.deliver`."""
        deadline = time.monotonic() + timeout_s
        try:
            bounded(lambda: self._deliver(spans, deadline), timeout_s)
        except DeliveryError:
            # What hangs in an abandoned thread is not to be shared with the next delivery.
            self._token = self._exporter = None
            raise

    def _deliver(self, spans: Sequence[Span], deadline: float) -> None:
        fresh = self._token is None
        token = self._token or self._authenticate(deadline)
        reason = self._export(spans, token)
        # The exporter tells that it failed, not why; an old token may be the cause.
        if reason is not None and not fresh and time.monotonic() < deadline:
            token = self._authenticate(deadline)
            reason = self._export(spans, token)
        if reason is not None:
            raise DeliveryError(f"{self._exporter_endpoint} did not accept {len(spans)} spans: {reason}")
        self._token = token

    def _authenticate(self, deadline: float) -> Token:
        api_key = self._api_key()
        _quiet()
        from agentops.client.api import ApiClient
        from agentops.client.http.http_client import HttpClient

        async def fetch() -> Any:
            try:
                timeout = min(REQUEST_TIMEOUT_S, deadline - time.monotonic())
                return await asyncio.wait_for(
                    ApiClient(self._api_endpoint).v3.fetch_auth_token(api_key), timeout
                )
            except TimeoutError:
                return None
            finally:
                # It is kept in a class attribute and bound to this event loop, which ends here.
                await HttpClient.close_async_session()

        answer = asyncio.run(fetch())
        if not answer or not answer.get("token"):
            raise DeliveryError(
                f"no token from {self._api_endpoint}: the API key is wrong, or it cannot be reached"
            )
        return Token(str(answer["token"]), str(answer.get("project_id") or ""))

    def _export(self, spans: Sequence[Span], token: Token) -> str | None:
        """Send once; None when the receiver confirmed, else what the exporter said."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        self._reasons.clear()
        exporter = self._exporter_for(token)
        if exporter.export([_readable(span, token) for span in spans]) is SpanExportResult.SUCCESS:
            return None
        return str(self._reasons) or "no reason given"

    def _exporter_for(self, token: Token) -> Any:
        if self._exporter is None or self._token != token:
            _quiet()
            from agentops.sdk.exporters import AuthenticatedOTLPExporter

            # A new one for a new token: after a refusal the SDK's exporter sends nothing for a minute.
            self._exporter = AuthenticatedOTLPExporter(
                self._exporter_endpoint, jwt=token.jwt, timeout=REQUEST_TIMEOUT_S
            )
            self._reasons.attach()
        return self._exporter


def _quiet() -> None:
    """Before the SDK's first import: read there, or by its `init` should anything call it."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def _readable(span: Span, token: Token) -> ReadableSpan:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    def context(span_id: str, *, is_remote: bool) -> SpanContext:
        flags = TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(int(span.trace_id, 16), int(span_id, 16), is_remote=is_remote, trace_flags=flags)

    return ReadableSpan(
        name=span.name,
        context=context(span.span_id, is_remote=False),
        parent=context(span.parent_id, is_remote=span.kind == "consumer") if span.parent_id else None,
        resource=Resource({**span.resource, c.AO_PROJECT: token.project_id}),
        attributes=span.attributes,
        events=[Event(name, told, span.end_ns) for name, told in span.events.items()],
        kind=SpanKind[span.kind.upper()],
        status=Status(StatusCode.OK) if span.error is None else Status(StatusCode.ERROR, span.error),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=InstrumentationScope(SCOPE),
    )


class _Reasons(logging.Handler):
    """Collects what the exporter logs, for it returns success or failure and nothing more."""

    LOGGERS = ("agentops", "opentelemetry.exporter.otlp.proto.http.trace_exporter")

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._messages: list[str] = []
        self._guard = threading.Lock()

    def attach(self) -> None:
        for name in self.LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(logging.ERROR)
            # Said once, in our own words, by whoever handles the DeliveryError.
            logger.propagate = False
            if self not in logger.handlers:
                logger.addHandler(self)

    def clear(self) -> None:
        with self._guard:
            self._messages.clear()

    def emit(self, record: logging.LogRecord) -> None:
        with self._guard:
            self._messages.append(record.getMessage())

    def __str__(self) -> str:
        with self._guard:
            return "; ".join(self._messages)
