"""The event that an invocation could not write itself: Lambda ended it, and only Lambda's report says so.

It is made where the report meets what is known of the invocation (`allocation`). Lines that come later may
move it or take it back, in the tables and in every counter; what has left for other systems meanwhile stays
there. Where reports have no status (China, GovCloud) there is none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import NamedTuple

from agentops_monitoring.event_types import AgentEventType
from agentops_monitoring.ledger.events import Event
from agentops_monitoring.trace import trace_id_of

SOURCE = "report"
"""`source` in the data of such an event."""


class Place(NamedTuple):
    """Where the events of an attempt belong, as its `invocation_started` says."""

    workflow_id: str
    trace_id: str
    span_id: str
    parent_id: str | None
    agent: str
    user_id: str | None = None
    session_id: str | None = None

    @classmethod
    def of(cls, event: Event) -> Place:
        """Return the place of an attempt's first event."""
        return cls(
            event.workflow_id,
            event.trace_id,
            event.span_id,
            event.parent_id,
            event.agent,
            event.user_id,
            event.session_id,
        )


class Ending(NamedTuple):
    """What a report says of an attempt that Lambda ended."""

    report_id: str
    request_id: str
    agent: str
    """From the subscription filter's name."""
    at_ms: int
    duration_ms: float
    status: str
    error_type: str
    memory_mb: int
    peak_mb: int


def workflow_of(request_id: str) -> str:
    """Return the workflow that the wrapper begins for a request that no message brought."""
    return request_id.replace("-", "") or request_id


def failure(ending: Ending, place: Place | None) -> Event:
    """Return the `invocation_failed` of an attempt; the same one however often it is derived.

    Parameters
    ----------
    ending
        What the report says.
    place
        Where the attempt belongs. None when it ended before the wrapper ran: then the workflow is the one
        that the wrapper would have begun, for a request that no message brought.
    """
    if place is None:
        workflow_id = workflow_of(ending.request_id)
        span_id = blake2b(ending.report_id.encode(), digest_size=8).hexdigest()
        place = Place(workflow_id, trace_id_of(workflow_id), span_id, None, ending.agent)
    at = datetime.fromtimestamp(ending.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return Event(
        # One that moves to another span is another item: stream readers see new ones alone.
        f"report-{ending.report_id}-{place.span_id}",
        AgentEventType.INVOCATION_FAILED,
        AgentEventType.INVOCATION_FAILED,
        place.agent,
        at.replace("+00:00", "Z"),
        ending.at_ms,
        place.workflow_id,
        place.trace_id,
        place.span_id,
        place.parent_id,
        ending.request_id,
        0,
        {
            "error": {
                "type": ending.error_type or f"Lambda.{ending.status.capitalize()}",
                "message": _message(ending),
            },
            "duration_ms": ending.duration_ms,
            "source": SOURCE,
        },
        user_id=place.user_id,
        session_id=place.session_id,
    )


def _message(ending: Ending) -> str:
    what = "timed out" if ending.status == "timeout" else "ended by Lambda"
    used = f", with {ending.peak_mb} of {ending.memory_mb} MB in use" if ending.peak_mb else ""
    return f"{what} after {ending.duration_ms / 1000:.2f} s{used}"
