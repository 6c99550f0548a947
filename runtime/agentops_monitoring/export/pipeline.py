"""From a batch of stream records to confirmed spans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from agentops_monitoring.export import stream
from agentops_monitoring.export.backend import Backend, DeliveryError, chunks, size_of
from agentops_monitoring.export.spans import Event, MalformedEvent, Span, span_of

Complete: TypeAlias = Callable[[Sequence[Event]], Sequence[Event]]
"""Fills in what the monitoring table keeps elsewhere; raises DeliveryError when it cannot for now."""


class Outcome(NamedTuple):
    """What became of a batch."""

    exported: int
    """Spans that the receiver confirmed."""
    failed: int
    """Events that were not exported in this attempt."""
    retry_from: str | None
    """Sequence number of the first record to deliver again; None when all is done."""
    problems: tuple[str, ...]
    """What went wrong, for the log."""


class _Ready(NamedTuple):
    sequence_number: str
    span: Span


def export(
    records: Iterable[Mapping[str, Any]],
    backend: Backend,
    *,
    environment: str,
    deadline: float,
    complete: Complete | None = None,
) -> Outcome:
    """Send every inserted event of a batch, in order, and stop at the first request that fails.

    An event that no span can be made of is told and passed over: it would fail for ever, and hold up the
    stream.

    Parameters
    ----------
    records
        DynamoDB stream records.
    backend
        Who receives the spans.
    environment
        The deployment whose events these are.
    deadline
        `time.monotonic()` by which this must have returned.
    complete
        Fills in what is kept elsewhere.
    """
    problems: list[str] = []
    numbered: list[tuple[str, Event]] = []
    for record in stream.inserted(records):
        try:
            numbered.append((record.sequence_number, stream.event_of(record.item, environment)))
        except MalformedEvent as error:
            problems.append(str(error))
    if complete is not None and numbered:
        try:
            events = complete([event for _, event in numbered])
        except DeliveryError as error:
            return Outcome(0, len(problems) + len(numbered), numbered[0][0], (*problems, str(error)))
        numbered = [(number, event) for (number, _), event in zip(numbered, events, strict=True)]

    ready: list[_Ready] = []
    for number, event in numbered:
        try:
            span = span_of(event)
        except MalformedEvent as error:
            problems.append(f"event {event.id}: {error}")
            continue
        if span is not None:
            ready.append(_Ready(number, span))

    exported = 0
    for part in chunks([size_of(each.span) for each in ready]):
        try:
            backend.deliver([each.span for each in ready[part]], deadline - time.monotonic())
        except DeliveryError as error:
            left = ready[part.start :]
            return Outcome(
                exported, len(problems) + len(left), left[0].sequence_number, (*problems, str(error))
            )
        exported += part.stop - part.start
    return Outcome(exported, len(problems), None, tuple(problems))
