"""From a batch of stream records to confirmed spans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from agentops_monitoring.export.backend import Backend, DeliveryError, bounded, chunks, size_of
from agentops_monitoring.export.spans import MalformedEvent, Span, span_of
from agentops_monitoring.export.stream import Item, event_of, inserted

Complete: TypeAlias = Callable[[Sequence[Item]], Sequence[Item]]
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
    found = list(inserted(records))
    items = [record.item for record in found]
    if complete is not None and items:
        whole = partial(complete, items)
        try:
            items = list(bounded(whole, deadline - time.monotonic()))
        except DeliveryError as error:
            return Outcome(0, len(found), found[0].sequence_number, (str(error),))

    problems: list[str] = []
    ready: list[_Ready] = []
    for record, item in zip(found, items, strict=True):
        try:
            span = span_of(event_of(item, environment))
        except MalformedEvent as error:
            problems.append(f"record {record.sequence_number}: {error}")
            continue
        if span is not None:
            ready.append(_Ready(record.sequence_number, span))

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
